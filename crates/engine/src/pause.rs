//! `CLIENT PAUSE`: for a time no command runs that may write, or none at all.
//!
//! Invariant: a command is held before it has done anything, so that whoever held it hands it in again afterwards. The commands
//! of one connection keep their order, for its owner runs nothing else of it meanwhile. While clients are paused, nothing
//! is expired or evicted on its own either: a copy of the data that is taken then stays equal.

use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};

use mtcache_protocol::CommandFlags;

use crate::engine::Engine;
use crate::session::Session;
use crate::time::UnixMillis;

/// What is held back; more is greater.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub(crate) enum Paused {
    /// Nothing.
    Nothing = 0,
    /// What may write.
    Writes = 1,
    /// Everything.
    All = 2,
}

/// The pause that is on.
#[derive(Debug, Default)]
pub(crate) struct Pause {
    what: AtomicU8,
    until: AtomicU64,
}

impl Pause {
    /// Whether a pause has been asked for; it may be over by now. One relaxed load, for every command.
    #[inline]
    pub(crate) fn is_on(&self) -> bool {
        self.what.load(Ordering::Relaxed) != Paused::Nothing as u8
    }

    /// What is held back at this moment. A pause whose time is over ends here.
    pub(crate) fn what(&self, now: UnixMillis) -> Paused {
        let what = self.what.load(Ordering::Acquire);
        if what == Paused::Nothing as u8 {
            return Paused::Nothing;
        }
        if self.until.load(Ordering::Acquire) <= now.0 {
            self.what.store(Paused::Nothing as u8, Ordering::Release);
            return Paused::Nothing;
        }
        if what == Paused::All as u8 { Paused::All } else { Paused::Writes }
    }
}

impl Engine {
    /// Pauses clients until `until`; of two pauses the longer and the stricter hold.
    pub(crate) fn pause(&self, what: Paused, now: UnixMillis, until: UnixMillis) {
        let running = self.pause.what(now);
        if running == Paused::Nothing {
            self.pause.until.store(until.0, Ordering::Release);
        } else {
            self.pause.until.fetch_max(until.0, Ordering::AcqRel);
        }
        self.pause.what.store(what.max(running) as u8, Ordering::Release);
    }

    /// Ends the pause, and wakes who was held.
    pub(crate) fn unpause(&self) {
        self.pause.what.store(Paused::Nothing as u8, Ordering::Release);
        for client in self.registry.all() {
            if client.is_blocked() {
                client.mailbox.wake();
            }
        }
    }

    /// Whether nothing may change on its own at this moment.
    pub(crate) fn is_paused(&self, now: UnixMillis) -> bool {
        self.pause.is_on() && self.pause.what(now) != Paused::Nothing
    }

    /// Whether a command with these flags has to wait for the end of a pause; notes it in the session.
    #[cold]
    pub(crate) fn hold(&self, session: &mut Session, flags: CommandFlags) -> bool {
        let may_write = CommandFlags::WRITE.union(CommandFlags::MAY_REPLICATE);
        let held = match self.pause.what(self.now()) {
            Paused::Nothing => false,
            Paused::Writes => flags.intersects(may_write),
            Paused::All => true,
        };
        if held && !session.never_waits {
            let until = UnixMillis(self.pause.until.load(Ordering::Acquire));
            session.held = Some(until);
            session.client.set_blocked(true);
            return true;
        }
        false
    }

    /// Whether a session that was held goes on.
    pub(crate) fn release_held(&self, session: &mut Session, now: UnixMillis) -> bool {
        if self.pause.what(now) == Paused::Nothing {
            session.held = None;
            session.client.set_blocked(false);
            return true;
        }
        session.held = Some(UnixMillis(self.pause.until.load(Ordering::Acquire)));
        false
    }
}
