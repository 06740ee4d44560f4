//! The slow log: the last commands that took longer than `slowlog-log-slower-than`.
//!
//! Invariant: an entry is small whatever the command was: 32 arguments of 128 bytes, the rest is counted in words, as
//! in Redis. Passwords are not shown.

use std::collections::VecDeque;

use mtcache_protocol::{CommandId, CommandSpec};
use parking_lot::Mutex;

use crate::config::is_secret_name;
use crate::time::UnixMillis;

/// Arguments kept of an entry, the last of which may stand for the rest.
const MAX_ARGS: usize = 32;
/// Bytes kept of an argument.
const MAX_ARG_BYTES: usize = 128;

/// One slow command.
#[derive(Debug, Clone)]
pub(crate) struct Entry {
    pub(crate) id: u64,
    pub(crate) when: UnixMillis,
    pub(crate) micros: u64,
    pub(crate) args: Vec<Box<[u8]>>,
    pub(crate) addr: Box<str>,
    pub(crate) name: Box<[u8]>,
}

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct SlowLog {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    next_id: u64,
    /// Newest first.
    entries: VecDeque<Entry>,
}

impl SlowLog {
    /// Adds an entry, whose id is given here, and drops the oldest beyond `limit`.
    pub(crate) fn add(&self, mut entry: Entry, limit: usize) {
        let mut state = self.state.lock();
        entry.id = state.next_id;
        state.next_id += 1;
        state.entries.push_front(entry);
        state.entries.truncate(limit);
    }

    /// The newest `count` entries, newest first.
    pub(crate) fn newest(&self, count: usize) -> Vec<Entry> {
        self.state.lock().entries.iter().take(count).cloned().collect()
    }

    pub(crate) fn len(&self) -> usize {
        self.state.lock().entries.len()
    }

    pub(crate) fn clear(&self) {
        self.state.lock().entries.clear();
    }
}

/// The arguments as an entry keeps them.
pub(crate) fn shorten(spec: &CommandSpec, args: &[&[u8]]) -> Vec<Box<[u8]>> {
    let shown = if args.len() > MAX_ARGS { MAX_ARGS - 1 } else { args.len() };
    let mut kept: Vec<Box<[u8]>> = args
        .iter()
        .enumerate()
        .take(shown)
        .map(|(index, arg)| if is_secret(spec, args, index) { REDACTED.into() } else { shorten_one(arg) })
        .collect();
    if args.len() > MAX_ARGS {
        kept.push(format!("... ({} more arguments)", args.len() - shown).into_bytes().into());
    }
    kept
}

fn shorten_one(arg: &[u8]) -> Box<[u8]> {
    match arg.split_at_checked(MAX_ARG_BYTES) {
        Some((start, rest)) if !rest.is_empty() => {
            [start, format!("... ({} more bytes)", rest.len()).as_bytes()].concat().into()
        }
        _ => arg.into(),
    }
}

/// What is shown in place of a password.
pub(crate) const REDACTED: &[u8] = b"(redacted)";

/// Whether an argument is a password or goes with one.
pub(crate) fn is_secret(spec: &CommandSpec, args: &[&[u8]], index: usize) -> bool {
    const AUTH: CommandId = CommandId::of("auth");
    const HELLO: CommandId = CommandId::of("hello");
    const CONFIG_SET: CommandId = CommandId::of("config|set");
    const ACL_SETUSER: CommandId = CommandId::of("acl|setuser");
    const ACL_DELUSER: CommandId = CommandId::of("acl|deluser");
    const ACL_GETUSER: CommandId = CommandId::of("acl|getuser");
    let before = |distance: usize| index.checked_sub(distance).and_then(|place| args.get(place)).copied();
    let is_auth = |arg: Option<&[u8]>| arg.is_some_and(|arg| arg.eq_ignore_ascii_case(b"auth"));
    match spec.id {
        AUTH => index > 0,
        HELLO => index > 2 && (is_auth(before(1)) || (index > 3 && is_auth(before(2)))),
        CONFIG_SET => {
            index > 2
                && index % 2 == 1
                && before(1).is_some_and(|name| is_secret_name(&String::from_utf8_lossy(name)))
        }
        // Names of users are hidden with what is done to them, as in Redis.
        ACL_SETUSER | ACL_DELUSER | ACL_GETUSER => index > 1,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use mtcache_protocol::{lookup, lookup_sub};

    use super::*;

    fn shown(line: &str) -> String {
        let args = mtcache_protocol::split_args(line.as_bytes()).unwrap();
        let args: Vec<&[u8]> = args.iter().map(Vec::as_slice).collect();
        let spec = lookup(args[0]).unwrap();
        let spec = args.get(1).and_then(|sub| lookup_sub(spec, sub)).unwrap_or(spec);
        let kept = shorten(spec, &args);
        kept.iter().map(|arg| String::from_utf8_lossy(arg)).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn passwords_are_hidden() {
        assert_eq!(shown("auth default pw"), "auth (redacted) (redacted)");
        assert_eq!(
            shown("hello 3 auth default pw setname x"),
            "hello 3 auth (redacted) (redacted) setname x"
        );
        assert_eq!(shown("hello 3 setname auth"), "hello 3 setname auth");
        assert_eq!(shown("config set port 1 requirepass pw"), "config set port 1 requirepass (redacted)");
        assert_eq!(shown("set auth requirepass"), "set auth requirepass");
        assert_eq!(shown("acl setuser bob >pw on"), "acl setuser (redacted) (redacted) (redacted)");
        assert_eq!(shown("acl cat keyspace"), "acl cat keyspace");
    }

    #[test]
    fn long_commands_are_cut() {
        let many = format!("del{}", " k".repeat(40));
        assert_eq!(shown(&many), format!("del{} ... (10 more arguments)", " k".repeat(30)));
        let long = format!("set k {}", "v".repeat(200));
        assert_eq!(shown(&long), format!("set k {}... (72 more bytes)", "v".repeat(128)));
    }
}
