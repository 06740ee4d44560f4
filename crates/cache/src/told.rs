//! How an invalidation is told where there may be nothing to delete.
//!
//! To delete an absent key tells nobody, and other processes may still know its value (`fail_safe.rs`). So a bookkeeping key is set and
//! deleted in the same atomic step, and whoever tracks those hears of it. Invariants: it lies in the slot of its key, so that the same
//! node tells of both; nothing is left behind. Deliberately absent: who listens (`near/store.rs`).

use mtcache_link::Command;

use crate::backend::Bytes;
use crate::slot::{BOOKKEEPING_PREFIX, bookkeeping_key, key_of};

const GONE: &str = "gone";
const CLEARED: &str = "cleared";
/// How long such a key lives, should it not be deleted at once: on a slot that is on its way to another node there are no steps.
const TTL_MS: i64 = 10_000;

/// What is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Told<'a> {
    /// This key was invalidated.
    Gone(&'a [u8]),
    /// Every key with this prefix was.
    Cleared(&'a [u8]),
}

impl<'a> Told<'a> {
    /// What the change of this key tells; none if it is about itself.
    pub(crate) fn read(key: &'a [u8]) -> Option<Self> {
        if !key.starts_with(BOOKKEEPING_PREFIX.as_bytes()) {
            return None;
        }
        key_of(GONE, key).map(Self::Gone).or_else(|| key_of(CLEARED, key).map(Self::Cleared))
    }

    /// The key whose change tells it.
    pub(crate) fn key(self) -> Bytes {
        match self {
            Self::Gone(key) => bookkeeping_key(GONE, key),
            Self::Cleared(prefix) => bookkeeping_key(CLEARED, prefix),
        }
    }
}

/// What the keys begin with that have to be tracked to be told.
pub(crate) fn prefixes() -> [String; 2] {
    [GONE, CLEARED].map(|kind| format!("{BOOKKEEPING_PREFIX}{kind}:"))
}

/// Changes a key and takes it away again.
pub(crate) fn telling(key: &[u8]) -> [Command; 2] {
    [Command::new("SET").arg(key).arg("1").arg("PX").int(TTL_MS), Command::new("DEL").arg(key)]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_told_is_read_and_nothing_else_is() {
        for key in [b"r:k".as_slice(), b"r:{a}b", b"r:}{", b""] {
            assert_eq!(Told::read(&Told::Gone(key).key()), Some(Told::Gone(key)));
            assert_eq!(Told::read(&Told::Cleared(key).key()), Some(Told::Cleared(key)));
            assert_eq!(Told::read(key), None);
            assert_eq!(Told::read(&bookkeeping_key("fill", key)), None);
        }
    }
}
