//! The entries of the near cache, in parts of their own locks.
//!
//! An entry is looked at where it lies, under its part's lock for readers: to hand out copies would be half of a hit. Invariants: nothing that has
//! had to go is taken apart under a lock; a look hashes its key once. Deliberately absent: what the entries mean (`store.rs`).

use parking_lot::{MappedRwLockReadGuard, RwLock, RwLockReadGuard};

use super::held::{Held, Name};
use super::sought::{Base, Seeds, ShortSought, Sought};
use super::table::{Gone, Table};

/// Most parts; fewer when there are few bytes.
const MAX_SHARDS: u64 = 16;
/// A part has at least so many bytes.
const MIN_SHARD_BYTES: u64 = 1024 * 1024;
/// One key that had to go is remembered, by its hash, for so many bytes that a part may hold.
const BYTES_PER_GHOST: u64 = 512;
/// And no more than so many of a part, whose room is taken at once.
const MAX_GHOSTS: u64 = 1024 * 1024;

pub(super) struct Shards {
    shards: Box<[Shard]>,
    seeds: Seeds,
}

/// Alone in its lines, of which readers of others change some.
#[repr(align(64))]
struct Shard(RwLock<Table>);

/// An entry where it lies, under its part's lock for readers: not to be kept for long, and no other to be asked for meanwhile.
pub(crate) type There<'a> = MappedRwLockReadGuard<'a, Held>;

impl Shards {
    pub(super) fn new(max_bytes: u64) -> Self {
        let count = (max_bytes / MIN_SHARD_BYTES).clamp(1, MAX_SHARDS);
        let count = if count.is_power_of_two() { count } else { count.next_power_of_two() / 2 };
        let bytes = max_bytes / count;
        let ghosts = (bytes / BYTES_PER_GHOST).min(MAX_GHOSTS) as usize;
        let shard = |_| Shard(RwLock::new(Table::new(bytes, ghosts)));
        Self { shards: (0..count).map(shard).collect(), seeds: Seeds::random() }
    }

    /// The most that one part may hold.
    pub(super) fn shard_bytes(&self) -> u64 {
        self.shards.first().map_or(0, |shard| shard.0.read().capacity())
    }

    /// The entry with this key, which stays where it is until this is dropped.
    pub(super) fn get(&self, key: &Sought<'_>) -> Option<There<'_>> {
        RwLockReadGuard::try_map(self.shard(key.hash).0.read(), |table| table.get(key)).ok()
    }

    /// The part in which an entry with this key is, under its lock for readers.
    #[allow(
        clippy::inline_always,
        reason = "what a hit is made of passes through memory wherever a call is left"
    )]
    #[inline(always)]
    pub(super) fn part(&self, key: ShortSought<'_>) -> RwLockReadGuard<'_, Table> {
        self.shard(key.hash).0.read()
    }

    pub(super) fn insert(&self, key: &[u8], held: Held) -> Gone {
        let mut gone = Gone::default();
        let hash = self.sought(key).hash;
        self.shard(hash).0.write().insert(hash, Name::new(key), held, &mut gone);
        gone
    }

    pub(super) fn remove(&self, key: &[u8]) -> Option<Held> {
        self.remove_if(key, |_| true)
    }

    pub(super) fn remove_if(&self, key: &[u8], is_meant: impl FnOnce(&Held) -> bool) -> Option<Held> {
        self.remove_sought(&self.sought(key), is_meant)
    }

    pub(super) fn remove_sought(
        &self,
        key: &Sought<'_>,
        is_meant: impl FnOnce(&Held) -> bool,
    ) -> Option<Held> {
        self.shard(key.hash).0.write().remove(key, is_meant)
    }

    /// Removes all entries whose keys are meant.
    pub(super) fn remove_all(&self, is_meant: &dyn Fn(&[u8]) -> bool) -> Gone {
        let mut gone = Gone::default();
        for shard in &self.shards {
            shard.0.write().remove_all(is_meant, &mut gone);
        }
        gone
    }

    pub(super) fn clear(&self) {
        for shard in &self.shards {
            let cleared = shard.0.write().clear();
            drop(cleared);
        }
    }

    /// Entries, and what they count for.
    pub(super) fn size(&self) -> (u64, u64) {
        self.shards.iter().fold((0, 0), |(entries, bytes), shard| {
            let table = shard.0.read();
            (entries + table.len() as u64, bytes + table.bytes())
        })
    }

    /// The beginning of keys.
    pub(super) fn base(&self, base: &[u8]) -> Base {
        Base::new(self.seeds, base)
    }

    #[inline]
    pub(super) fn sought<'a>(&self, key: &'a [u8]) -> Sought<'a> {
        Sought::new(self.seeds, key)
    }

    /// By bits that the parts' own tables do not go by first.
    #[inline]
    fn shard(&self, hash: u64) -> &Shard {
        &self.shards[(hash >> 32) as usize & (self.shards.len() - 1)]
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};
    use std::sync::{Arc, Weak};
    use std::time::{Duration, Instant};

    use super::super::store::{Kept, Ticket};
    use super::super::typed::{TypeNumber, Typed};
    use super::*;

    fn held(value: Arc<dyn Typed>, weight: u64) -> Held {
        Held::new(Ticket { epoch: 0, heard: 0, tags_heard: 0 }, Kept::plain(value, weight))
    }

    /// Looks, as it goes, whether any lock is held.
    struct Watching {
        shards: Weak<Shards>,
        went: Arc<AtomicU32>,
    }

    impl Drop for Watching {
        fn drop(&mut self) {
            let shards = self.shards.upgrade();
            let is_free =
                shards.is_none_or(|shards| shards.shards.iter().all(|shard| shard.0.try_write().is_some()));
            self.went.fetch_add(if is_free { 1 } else { 1_000_000 }, Ordering::Relaxed);
        }
    }

    #[test]
    fn nothing_is_taken_apart_under_a_lock_and_nothing_is_left() {
        let shards = Arc::new(Shards::new(4 * MIN_SHARD_BYTES));
        assert_eq!(shards.shards.len(), 4);
        let went = Arc::new(AtomicU32::new(0));
        let mut given = 0;
        let mut insert = |key: &str, weight: u64| {
            let watching = Watching { shards: Arc::downgrade(&shards), went: Arc::clone(&went) };
            given += 1;
            drop(shards.insert(key.as_bytes(), held(Arc::new(watching), weight)));
        };
        for n in 0..100 {
            insert(&format!("r:{n}"), MIN_SHARD_BYTES / 8);
        }
        for n in 90..100 {
            insert(&format!("r:{n}"), MIN_SHARD_BYTES / 4);
        }
        drop(shards.remove(b"r:99"));
        drop(shards.remove_if(b"r:98", |_| true));
        drop(shards.remove_all(&|key| key == b"r:97"));
        insert("a key that is too long to lie within an entry:1", 1);
        insert("a key that is too long to lie within an entry:1", 1);
        shards.clear();
        assert_eq!(shards.size(), (0, 0));
        assert_eq!(went.load(Ordering::Relaxed), given);
    }

    #[test]
    fn there_is_room_for_what_there_is_however_little_or_much() {
        for (max_bytes, parts) in [
            (0, 1),
            (1, 1),
            (MIN_SHARD_BYTES - 1, 1),
            (2 * MIN_SHARD_BYTES - 1, 1),
            (2 * MIN_SHARD_BYTES, 2),
            (31 * MIN_SHARD_BYTES, 16),
            (1 << 40, 16),
            (u64::MAX, 16),
        ] {
            let shards = Shards::new(max_bytes);
            assert_eq!((shards.shards.len() as u64, shards.shard_bytes()), (parts, max_bytes / parts));
            assert!(shards.get(&shards.sought(b"k")).is_none());
            assert!(shards.remove(b"k").is_none());
            shards.insert(b"k", held(Arc::new(1_u64), max_bytes.min(1)));
            assert_eq!(shards.size(), (1, max_bytes.min(1)));
            shards.clear();
            assert_eq!(shards.size(), (0, 0));
        }
    }

    #[test]
    fn readers_find_what_they_seek_and_nothing_else_while_others_write() {
        let shards = Shards::new(2 * MIN_SHARD_BYTES);
        let key = |n: u64| format!("market_data:S{n}");
        let base = shards.base(b"market_data:");
        let until = Instant::now() + Duration::from_millis(500);
        let own = TypeNumber::<u64>::own();
        std::thread::scope(|scope| {
            for thread in 0..4_u64 {
                let (shards, base) = (&shards, &base);
                scope.spawn(move || {
                    let mut n = thread;
                    while Instant::now() < until {
                        n = n.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(0x1405_7b7e_f767_814f);
                        let number = (n >> 33) % 1000;
                        let key = key(number);
                        match (n >> 20) % 64 {
                            0..8 if thread < 2 => drop(
                                shards.insert(key.as_bytes(), held(Arc::new(number), 1 + (n >> 40) % 10_000)),
                            ),
                            8..12 if thread < 2 => drop(shards.remove(key.as_bytes())),
                            12 if thread < 2 => drop(shards.remove_all(&|key| key.ends_with(b"7"))),
                            13 if thread == 0 && n % 32 == 0 => shards.clear(),
                            _ => {
                                let sought = base.then(&key[12..]).unwrap();
                                let at_once = shards
                                    .part(sought)
                                    .get_at_once(sought)
                                    .map(|held| *held.value(own).unwrap());
                                assert!(at_once.is_none_or(|value| value == number));
                                let slowly = shards
                                    .get(&shards.sought(key.as_bytes()))
                                    .map(|held| *held.value(own).unwrap());
                                assert!(slowly.is_none_or(|value| value == number));
                            }
                        }
                    }
                });
            }
        });
        let (_, bytes) = shards.size();
        assert!(bytes <= 2 * MIN_SHARD_BYTES);
    }
}
