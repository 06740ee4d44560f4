//! A look at the keys of commands that are to come, so that what they need is on its way from memory.
//!
//! A look-up waits for memory two or three times in a row, and the next one begins only when it is through. Here each step is done
//! for all commands before the next step, so that their waits lie side by side (group prefetching: S. Chen and others, 2004).
//! Nothing is decided here, and nothing changes: a shard that somebody else holds is passed over. Deliberately absent: what the commands
//! are; what is taken for a key or a field and is none costs a moment.

use std::sync::atomic::Ordering;

use mtcache_protocol::Peeked;
use smallvec::SmallVec;

use super::{DbIndex, KeyHash, Keyspace, ValueRef};

/// Bytes in use below which everything is taken to be in the processor's caches. Default: 1 MB.
const CACHED: usize = 1 << 20;

/// Commands in a row about the same key.
struct Run<'a> {
    key: &'a [u8],
    hash: KeyHash,
    commands: &'a [Peeked<'a>],
}

impl Keyspace {
    /// Looks ahead; see the module. Whether anything was asked for.
    pub(crate) fn look_ahead(&self, db: DbIndex, commands: &[Peeked<'_>]) -> bool {
        if self.coarse_used.load(Ordering::Relaxed) < CACHED {
            return false;
        }
        let runs: SmallVec<[Run<'_>; 16]> = commands
            .chunk_by(|one, next| one.args[0] == next.args[0])
            .filter_map(|commands| {
                let key = commands.first().map(|first| first.args[0]).filter(|key| !key.is_empty())?;
                Some(Run { key, hash: self.hash(key), commands })
            })
            .collect();
        if runs.len() > 1 {
            for run in &runs {
                self.peek_at(run, |shard| {
                    if let Some(db) = shard.db(db) {
                        db.prefetch_bucket(run.hash);
                    }
                });
            }
        }
        let mut has_asked = runs.len() > 1;
        for run in &runs {
            self.peek_at(run, |shard| {
                let Some(db) = shard.db(db) else { return };
                if run.commands.len() == 1 {
                    db.prefetch_entry(run.hash);
                } else if let Some(entry) = db.find(run.hash, run.key).and_then(|slot| db.get(slot)) {
                    let members = run.commands.iter().map(|command| command.args[1]);
                    match entry.value() {
                        ValueRef::Hash(hash) => hash.prefetch(members),
                        ValueRef::Set(set) => set.prefetch(members),
                        _ => return,
                    }
                    has_asked = true;
                }
            });
        }
        has_asked
    }

    #[inline]
    fn peek_at(&self, run: &Run<'_>, look: impl FnOnce(&super::Shard)) {
        if let Some(shard) = self.cells.get(self.shard_of(run.hash)).and_then(|cell| cell.shard.try_lock()) {
            look(&shard);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Rig;
    use crate::time::{Clock as _, UnixMillis};

    fn commands<'a>(keys: &[&'a str], member: &'a str) -> Vec<Peeked<'a>> {
        let command = |key: &&'a str| Peeked { args: [key.as_bytes(), member.as_bytes()], consumed: 1 };
        keys.iter().map(command).collect()
    }

    /// A keyspace that no cache holds: a string, a list, a large hash and a large set.
    fn filled() -> Rig {
        let mut rig = Rig::new();
        let value = "v".repeat(1000);
        for n in 0..2000 {
            rig.raw(&format!("HSET hash f{n} {value}"));
            rig.raw(&format!("SADD set m{n}{value}"));
        }
        rig.raw("SET string s");
        rig.raw("RPUSH list a b");
        rig.raw("SET gone s PX 10");
        rig.clock.set(UnixMillis(rig.clock.now().0 + 20));
        rig
    }

    #[test]
    fn a_look_ahead_changes_nothing() {
        let mut rig = filled();
        let questions = ["SCAN 0 COUNT 100", "DBSIZE", "OBJECT IDLETIME hash", "OBJECT IDLETIME set"];
        rig.clock.set(UnixMillis(rig.clock.now().0 + 5_000));
        let before = questions.map(|question| rig.raw(question));
        let keys = ["hash", "string", "absent", "list", "", "gone", "set", "hash", "hash", "set", "set"];
        let keyspace = &rig.engine.keyspace;
        for db in [0, 1, 15, 255] {
            assert!(keyspace.look_ahead(db, &commands(&keys, "f77")));
        }
        assert_eq!(questions.map(|question| rig.raw(question)), before);
    }

    #[test]
    fn it_says_where_there_is_nothing_to_ask_for() {
        let rig = filled();
        let keyspace = &rig.engine.keyspace;
        let asks = |key| keyspace.look_ahead(0, &commands(&[key; 16], "f1"));
        assert!(asks("hash") && asks("set"));
        assert!(!asks("list") && !asks("string") && !asks("absent") && !asks("") && !asks("gone"));
        assert!(
            !Rig::new().engine.keyspace.look_ahead(0, &commands(&["a", "b"], "")),
            "all is in the caches"
        );
        assert!(!keyspace.look_ahead(0, &[]));
    }

    #[test]
    fn it_waits_for_nobody() {
        let rig = filled();
        let keyspace = &rig.engine.keyspace;
        let locked = keyspace.lock_all();
        std::thread::scope(|scope| {
            let look = || keyspace.look_ahead(0, &commands(&["hash", "hash"], "f1"));
            assert!(!scope.spawn(look).join().unwrap());
        });
        drop(locked);
    }
}
