//! Eviction: what is recorded at each access, and how a victim is chosen.
//!
//! The approximated LRU and LFU of Redis (documented under "Key eviction" in its manual): `maxmemory-samples` random
//! entries are looked at, the best candidates so far are kept in a pool of [`POOL_SIZE`], and the best of the pool goes.
//! Our LRU stamps have a resolution of 8 ms instead of Redis' second, so that an order is known even between entries of
//! one busy second. Deliberately absent: when to evict, which the engine decides.

use crate::time::UnixMillis;

use super::shard::Shard;
use super::table::Slot;
use super::{DbIndex, KeyHash};

/// Candidates kept between samples.
const POOL_SIZE: usize = 16;
/// LRU stamps count units of 2^3 = 8 ms and wrap after 397 days.
const LRU_SHIFT: u32 = 3;
/// The counter that a new entry starts with, so that it survives long enough to be used again.
const LFU_INITIAL: u32 = 5;

/// What happens when `maxmemory` is reached; Redis' eight policies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[repr(u8)]
pub enum EvictionPolicy {
    /// Least recently used among all keys. The default.
    #[default]
    AllKeysLru,
    /// Least frequently used among all keys.
    AllKeysLfu,
    /// Any key.
    AllKeysRandom,
    /// Least recently used among keys with an expiry.
    VolatileLru,
    /// Least frequently used among keys with an expiry.
    VolatileLfu,
    /// Any key with an expiry.
    VolatileRandom,
    /// The key that expires first.
    VolatileTtl,
    /// None: writes that need memory are refused.
    NoEviction,
}

impl EvictionPolicy {
    /// All policies, in the order of their numbers.
    pub const ALL: [Self; 8] = [
        Self::AllKeysLru,
        Self::AllKeysLfu,
        Self::AllKeysRandom,
        Self::VolatileLru,
        Self::VolatileLfu,
        Self::VolatileRandom,
        Self::VolatileTtl,
        Self::NoEviction,
    ];

    /// The name in redis.conf.
    pub fn name(self) -> &'static str {
        match self {
            Self::AllKeysLru => "allkeys-lru",
            Self::AllKeysLfu => "allkeys-lfu",
            Self::AllKeysRandom => "allkeys-random",
            Self::VolatileLru => "volatile-lru",
            Self::VolatileLfu => "volatile-lfu",
            Self::VolatileRandom => "volatile-random",
            Self::VolatileTtl => "volatile-ttl",
            Self::NoEviction => "noeviction",
        }
    }

    /// The policy of that name, in any case.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|policy| policy.name().eq_ignore_ascii_case(name))
    }

    /// Whether accesses are counted rather than stamped.
    pub fn is_lfu(self) -> bool {
        matches!(self, Self::AllKeysLfu | Self::VolatileLfu)
    }

    /// Whether the record of accesses decides.
    pub fn reads_access_records(self) -> bool {
        self.is_lfu() || matches!(self, Self::AllKeysLru | Self::VolatileLru)
    }

    /// Whether only keys with an expiry may go.
    pub fn is_volatile(self) -> bool {
        matches!(self, Self::VolatileLru | Self::VolatileLfu | Self::VolatileRandom | Self::VolatileTtl)
    }

    fn is_random(self) -> bool {
        matches!(self, Self::AllKeysRandom | Self::VolatileRandom)
    }
}

/// What is recorded of an access that happens now.
#[derive(Debug, Clone, Copy)]
pub(crate) struct AccessClock {
    now: UnixMillis,
    lfu: Option<LfuParameters>,
}

/// The settings of LFU.
#[derive(Debug, Clone, Copy)]
pub(crate) struct LfuParameters {
    /// How slowly the counters grow. Default: 10.
    pub(crate) log_factor: u32,
    /// Minutes after which a counter has lost one; zero for never. Default: 1.
    pub(crate) decay_minutes: u32,
}

impl AccessClock {
    /// `lfu` when the policy counts accesses rather than stamps them.
    #[inline]
    pub(crate) fn new(now: UnixMillis, lfu: Option<LfuParameters>) -> Self {
        Self { now, lfu }
    }

    /// The record of an entry made now.
    #[inline]
    pub(crate) fn initial(self) -> u32 {
        if self.lfu.is_some() { (minutes(self.now) << 8) | LFU_INITIAL } else { stamp(self.now) }
    }

    /// The record of an entry that comes from a snapshot or a payload which knows of earlier uses: seconds without one, or a
    /// use counter. What the policy does not keep is ignored.
    pub(crate) fn restored(self, idle_seconds: Option<u64>, counter: Option<u8>) -> u32 {
        match (self.lfu, idle_seconds, counter) {
            (Some(_), _, Some(counter)) => (minutes(self.now) << 8) | u32::from(counter),
            (None, Some(idle), _) => {
                let used = self.now.0.saturating_sub(idle.saturating_mul(1000));
                stamp(UnixMillis(used))
            }
            _ => self.initial(),
        }
    }

    /// The record after one more use.
    #[inline]
    pub(crate) fn touch(self, access: u32) -> u32 {
        match self.lfu {
            Some(lfu) => lfu.count_use(access, self.now),
            None => stamp(self.now),
        }
    }
}

impl LfuParameters {
    /// The logarithmic use counter after its decay, 0 to 255.
    pub(crate) fn counter(self, access: u32, now: UnixMillis) -> u32 {
        let elapsed = minutes(now).wrapping_sub(access >> 8) & 0xffff;
        (access & 0xff).saturating_sub(elapsed.checked_div(self.decay_minutes).unwrap_or(0))
    }

    fn count_use(self, access: u32, now: UnixMillis) -> u32 {
        let mut counter = self.counter(access, now);
        if counter < 255 {
            let base = f64::from(counter.saturating_sub(LFU_INITIAL));
            if random_unit() < 1.0 / (base * f64::from(self.log_factor) + 1.0) {
                counter += 1;
            }
        }
        (minutes(now) << 8) | counter
    }
}

/// Milliseconds since the last use, by an LRU record.
pub(crate) fn idle_millis(access: u32, now: UnixMillis) -> u64 {
    u64::from(stamp(now).wrapping_sub(access)) << LRU_SHIFT
}

#[inline]
fn stamp(now: UnixMillis) -> u32 {
    (now.0 >> LRU_SHIFT) as u32
}

fn minutes(now: UnixMillis) -> u32 {
    (now.0 / 60_000) as u32 & 0xffff
}

/// A quick random number in [0, 1): xorshift64*, one state per thread. Good enough to sample by, not for secrets.
fn random_unit() -> f64 {
    (random() >> 11) as f64 / (1_u64 << 53) as f64
}

/// A quick random number; see [`random_unit`].
pub(crate) fn random() -> u64 {
    thread_local! {
        static STATE: std::cell::Cell<u64> = const { std::cell::Cell::new(0) };
    }
    STATE.with(|state| {
        let mut x = state.get();
        if x == 0 {
            x = ahash::RandomState::new().hash_one(0_u8) | 1;
        }
        x ^= x >> 12;
        x ^= x << 25;
        x ^= x >> 27;
        state.set(x);
        x.wrapping_mul(0x2545_f491_4f6c_dd1d)
    })
}

/// A random number below `bound`; zero when `bound` is zero.
pub(crate) fn random_below(bound: usize) -> usize {
    ((u128::from(random()) * bound as u128) >> 64) as usize
}

/// By what eviction chooses.
#[derive(Debug, Clone, Copy)]
pub(crate) struct EvictionRules {
    pub(crate) policy: EvictionPolicy,
    /// Entries looked at per shard and database.
    pub(crate) samples: usize,
    pub(crate) lfu: LfuParameters,
}

/// A candidate for eviction: where it is to be found again, and how much better than others it is.
#[derive(Debug)]
struct Candidate {
    score: u64,
    shard: usize,
    db: DbIndex,
    key: Box<[u8]>,
}

/// The best candidates seen, best last.
#[derive(Debug, Default)]
pub(crate) struct EvictionPool {
    candidates: Vec<Candidate>,
}

impl EvictionPool {
    /// Looks at some random entries of a shard's database and keeps the best.
    pub(crate) fn sample(
        &mut self,
        shard_number: usize,
        shard: &Shard,
        db: DbIndex,
        rules: EvictionRules,
        now: UnixMillis,
    ) {
        let EvictionRules { policy, samples, lfu } = rules;
        let Some(entries) = shard.db(db) else { return };
        let population = if policy.is_volatile() { entries.expiring_len() } else { entries.len() };
        for _ in 0..samples.min(population) {
            let slot = if policy.is_volatile() {
                entries.expiring_slot(random_below(population))
            } else {
                entries.random_slot()
            };
            let Some(entry) = slot.and_then(|slot| entries.get(slot)) else { continue };
            let score = match policy {
                EvictionPolicy::VolatileTtl => u64::MAX - entry.expires_at().map_or(u64::MAX, |at| at.0),
                _ if policy.is_lfu() => 255 - u64::from(lfu.counter(entry.access(), now)),
                _ if policy.is_random() => random(),
                _ => idle_millis(entry.access(), now),
            };
            self.offer(score, shard_number, db, entry.key());
        }
    }

    /// Takes the best candidate: its shard, database and key.
    pub(crate) fn best(&mut self) -> Option<(usize, DbIndex, Box<[u8]>)> {
        self.candidates.pop().map(|c| (c.shard, c.db, c.key))
    }

    fn offer(&mut self, score: u64, shard: usize, db: DbIndex, key: &[u8]) {
        let place = self.candidates.partition_point(|c| c.score < score);
        if self.candidates.len() == POOL_SIZE && place == 0 {
            return;
        }
        if self.candidates.iter().any(|c| c.shard == shard && c.db == db && *c.key == *key) {
            return;
        }
        self.candidates.insert(place, Candidate { score, shard, db, key: key.into() });
        if self.candidates.len() > POOL_SIZE {
            self.candidates.remove(0);
        }
    }
}

impl Shard {
    /// The candidate's slot, if it is still a fit victim under `policy`.
    pub(crate) fn victim(
        &self,
        db: DbIndex,
        hash: KeyHash,
        key: &[u8],
        policy: EvictionPolicy,
    ) -> Option<Slot> {
        let entries = self.db(db)?;
        let slot = entries.find(hash, key)?;
        let fits = !policy.is_volatile() || entries.get(slot)?.expires_at().is_some();
        fits.then_some(slot)
    }
}
