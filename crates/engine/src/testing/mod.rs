//! What the unit tests of the commands share: an engine whose clock the test moves and whose journal it reads, and the
//! same lines run against a real redis-server.
//!
//! Commands are lines as one types them into redis-cli; replies are the text of a reply as the conformance crate prints
//! it: `+OK`, `-ERR ...`, `:1`, `"bulk"`, `(null bulk)`, `(null array)`, `[:1, "a"]`.

mod inbox;
mod pair;
mod recorder;
mod rig;
mod wire;

pub(crate) use self::inbox::Inbox;
pub(crate) use self::pair::Pair;
pub(crate) use self::recorder::{Recorder, line};
pub(crate) use self::rig::{Rig, plain};
pub(crate) use self::wire::Wires;

/// Cases of a property test: `usual`, or what `PROPTEST_CASES` says.
pub(crate) fn cases(usual: u32) -> u32 {
    std::env::var("PROPTEST_CASES").ok().and_then(|cases| cases.parse().ok()).unwrap_or(usual)
}

/// The arguments of a line as redis-cli would split it.
pub(crate) fn split(line: &str) -> Vec<Vec<u8>> {
    mtcache_protocol::split_args(line.as_bytes()).unwrap_or_else(|| panic!("unbalanced quotes: {line}"))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_rig_runs_lines_moves_time_and_shows_its_journal() {
        let mut rig = Rig::new();
        rig.check(&[("SET k \"a b\"", "+OK"), ("GET k", "\"a b\""), ("GET none", "(null bulk)")]);
        rig.advance(Duration::from_secs(1));
        assert_eq!(rig.now().0, rig::START.0 + 1000);
        assert_eq!(rig.journal(), ["SET k \"a b\""]);
        assert!(rig.journal().is_empty(), "the journal shows each write once");
        rig.assert_replay_gives_the_same();
    }

    #[test]
    fn a_pair_compares_with_redis() {
        let mut pair = Pair::start();
        pair.same(&["SET k v", "GET k", "GET none", "SET k"]);
    }
}
