//! The entries of the near cache, in parts of their own locks.
//!
//! An entry is looked at where it lies, under its part's lock for readers: to hand out copies, as the library's own `sync` cache does, would
//! be half of a hit. Invariants: nothing that has had to go is taken apart under a lock; a key is hashed once. Deliberately absent: what
//! the entries mean (`store.rs`).

use parking_lot::{MappedRwLockReadGuard, RwLock, RwLockReadGuard};
use quick_cache::unsync::Cache;
use quick_cache::{Lifecycle, OptionsBuilder, Weighter};

use super::held::{Held, Name};
use super::sought::{Base, Seeds, Sought};

/// Most parts; fewer when there are few bytes.
const MAX_SHARDS: u64 = 16;
/// A part has at least so many bytes.
const MIN_SHARD_BYTES: u64 = 1024 * 1024;
/// What an entry is expected to count for: half as many entries as would then fit are remembered by their hash after they have had to go. More
/// would let small entries hit 0.2 points more of the trace in `data/`, and take memory that the bound does not count.
const EXPECTED_BYTES: u64 = 512;
/// The part for entries that were asked for again; the rest is for those on probation. The library's own 0.97 leaves them too little time in
/// small caches: 1.2 points fewer hits with room for 1 % of the trace's objects, 0.1 with room for 10 %.
const HOT_PART: f64 = 0.9;

pub(super) struct Shards {
    shards: Box<[RwLock<Shard>]>,
    seeds: Seeds,
}

/// An entry where it lies, under its part's lock for readers: not to be kept for long, and no other to be asked for meanwhile.
pub(crate) type There<'a> = MappedRwLockReadGuard<'a, Held>;

type Shard = Cache<Name, Held, ByWeight, Seeds, Gathering>;

/// What had to go for an insertion. To be dropped once no lock is held.
#[derive(Default)]
pub(super) struct Gone(Vec<(Name, Held)>);

impl Gone {
    pub(super) fn keys(&self) -> impl Iterator<Item = &[u8]> {
        self.0.iter().map(|(name, _)| &**name)
    }
}

impl Shards {
    pub(super) fn new(max_bytes: u64) -> Self {
        let count = (max_bytes / MIN_SHARD_BYTES).clamp(1, MAX_SHARDS);
        let count = if count.is_power_of_two() { count } else { count.next_power_of_two() / 2 };
        let bytes = max_bytes / count;
        let expected = usize::try_from(bytes / EXPECTED_BYTES).unwrap_or(usize::MAX).max(16);
        let options = OptionsBuilder::new()
            .shards(1)
            .estimated_items_capacity(expected)
            .weight_capacity(bytes)
            .hot_allocation(HOT_PART)
            .build()
            .unwrap_or_else(|_| unreachable!("all that has to be given is given"));
        let seeds = Seeds::random();
        let shard = |_| RwLock::new(Cache::with_options(options.clone(), ByWeight, seeds, Gathering));
        Self { shards: (0..count).map(shard).collect(), seeds }
    }

    /// The most that one part may hold.
    pub(super) fn shard_bytes(&self) -> u64 {
        self.shards.first().map_or(0, |shard| shard.read().capacity())
    }

    /// The entry with this key, which stays where it is until this is dropped.
    #[allow(
        clippy::inline_always,
        reason = "what a hit is made of passes through memory wherever a call is left"
    )]
    #[inline(always)]
    pub(super) fn get(&self, key: &Sought<'_>) -> Option<There<'_>> {
        RwLockReadGuard::try_map(self.shard(key.hash).read(), |shard| shard.get(key)).ok()
    }

    pub(super) fn insert(&self, key: &[u8], held: Held) -> Gone {
        let mut gone = Gone::default();
        let hash = self.sought(key).hash;
        self.shard(hash).write().insert_with_lifecycle(Name::new(key), held, &mut gone);
        gone
    }

    pub(super) fn remove(&self, key: &[u8]) -> Option<Held> {
        self.remove_if(key, |_| true)
    }

    pub(super) fn remove_if(&self, key: &[u8], is_meant: impl FnOnce(&Held) -> bool) -> Option<Held> {
        let key = self.sought(key);
        self.shard(key.hash).write().remove_if(&key, is_meant).map(|(_, held)| held)
    }

    /// Removes all entries whose keys are meant.
    pub(super) fn remove_all(&self, is_meant: &dyn Fn(&[u8]) -> bool) -> Gone {
        let mut gone = Gone::default();
        for shard in &self.shards {
            let mut shard = shard.write();
            let names: Vec<Name> =
                shard.iter().map(|(name, _)| name).filter(|name| is_meant(name)).cloned().collect();
            gone.0.extend(names.iter().filter_map(|name| shard.remove(name)));
        }
        gone
    }

    pub(super) fn clear(&self) {
        for shard in &self.shards {
            let cleared: Vec<(Name, Held)> = shard.write().drain().collect();
            drop(cleared);
        }
    }

    /// Entries, and what they count for.
    pub(super) fn size(&self) -> (u64, u64) {
        self.shards.iter().fold((0, 0), |(entries, bytes), shard| {
            let shard = shard.read();
            (entries + shard.len() as u64, bytes + shard.weight())
        })
    }

    /// The beginning of keys.
    pub(super) fn base(&self, base: &[u8]) -> Base {
        Base::new(self.seeds, base)
    }

    #[inline]
    pub(super) fn sought<'a>(&self, key: &'a [u8]) -> Sought<'a> {
        Sought::whole(self.seeds, key)
    }

    /// By bits that the parts' own tables do not go by first.
    #[inline]
    fn shard(&self, hash: u64) -> &RwLock<Shard> {
        &self.shards[(hash >> 32) as usize & (self.shards.len() - 1)]
    }
}

#[derive(Clone)]
struct ByWeight;

impl Weighter<Name, Held> for ByWeight {
    fn weight(&self, _: &Name, held: &Held) -> u64 {
        u64::from(held.bytes())
    }
}

#[derive(Clone)]
struct Gathering;

impl Lifecycle<Name, Held> for Gathering {
    type RequestState = Gone;

    fn on_evict(&self, gone: &mut Gone, key: Name, held: Held) {
        gone.0.push((key, held));
    }
}
