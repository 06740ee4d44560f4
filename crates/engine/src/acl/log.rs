//! The ACL log: what was denied to whom, like things gathered in one entry.
//!
//! Invariant: bounded by `acllog-max-len`; an entry repeats no password, because a denied `AUTH` is shown by its name alone.

use std::collections::VecDeque;

use parking_lot::Mutex;

use crate::time::UnixMillis;

/// How far back an entry like the new one is looked for. Redis' value.
const LOOK_BACK: usize = 10;
/// Entries further apart than so many milliseconds stay apart. Redis' value.
const GROUP_WITHIN: u64 = 60_000;

/// What was denied.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reason {
    Command,
    Key,
    Channel,
    Auth,
}

impl Reason {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Command => "command",
            Self::Key => "key",
            Self::Channel => "channel",
            Self::Auth => "auth",
        }
    }
}

/// Where it was denied.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Place {
    TopLevel,
    Multi,
    Lua,
}

impl Place {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::TopLevel => "toplevel",
            Self::Multi => "multi",
            Self::Lua => "lua",
        }
    }
}

/// One entry.
#[derive(Debug, Clone)]
pub(crate) struct Entry {
    pub(crate) count: u64,
    pub(crate) reason: Reason,
    pub(crate) place: Place,
    /// The command, the key or the channel.
    pub(crate) object: Vec<u8>,
    pub(crate) user: Vec<u8>,
    /// The last time.
    pub(crate) when: UnixMillis,
    /// The client as `CLIENT LIST` shows it.
    pub(crate) client: String,
}

impl Entry {
    fn is_like(&self, other: &Self) -> bool {
        self.reason == other.reason
            && self.place == other.place
            && other.when.since(self.when) <= GROUP_WITHIN
            && self.object == other.object
            && self.user == other.user
    }
}

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct AclLog(Mutex<VecDeque<Entry>>);

impl AclLog {
    /// Adds an entry, or counts it to one like it, and drops the oldest beyond `limit`.
    pub(crate) fn add(&self, mut entry: Entry, limit: usize) {
        let mut entries = self.0.lock();
        let like = entries.iter().take(LOOK_BACK).position(|known| known.is_like(&entry));
        if let Some(known) = like.and_then(|place| entries.remove(place)) {
            entry.count += known.count;
        }
        entries.push_front(entry);
        entries.truncate(limit);
    }

    /// The newest entries, newest first.
    pub(crate) fn newest(&self, count: usize) -> Vec<Entry> {
        self.0.lock().iter().take(count).cloned().collect()
    }

    pub(crate) fn clear(&self) {
        self.0.lock().clear();
    }
}
