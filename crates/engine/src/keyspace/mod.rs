//! The keyspace: shards by key hash, each behind its own lock, each holding its part of all databases.
//!
//! Invariants: a key lives in the shard that [`Keyspace::shard_of`] names; locks are taken in shard order, so that no
//! two threads wait for each other; no lock is held across a system call. Whether an entry has expired is decided in
//! [`Shard::find_live`] and nowhere else.

mod ahead;
mod capture;
mod db;
mod dense;
mod entry;
mod eviction;
mod expiry;
mod scan;
mod shard;
mod table;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use ahash::RandomState;
use parking_lot::{Mutex, MutexGuard};
use smallvec::SmallVec;

pub(crate) use self::capture::{Copies, Records, Room, Step};
pub(crate) use self::db::Db;
pub use self::entry::MAX_KEY_LEN;
pub(crate) use self::entry::{Entry, StringEncoding, Value, ValueMut, ValueRef};
pub use self::eviction::EvictionPolicy;
pub(crate) use self::eviction::{
    AccessClock, EvictionPool, EvictionRules, LfuParameters, idle_millis, random, random_below,
};
pub(crate) use self::scan::ScanCursor;
pub(crate) use self::shard::{Collection, EntryMut, Found, Shard, ShardCounters, Tracked, footprint};
pub(crate) use self::table::{Position, Slot};

/// Number of a database, from 0 up to the configured number less one.
pub type DbIndex = u8;

/// Default number of databases.
pub const DEFAULT_DATABASES: usize = 16;

/// A key's hash, made once per command and handed on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct KeyHash(pub(crate) u64);

impl KeyHash {
    /// The place of the key in the order of its shard, by the upper half of the hash. The lower names the shard.
    #[inline]
    pub(crate) fn position(self) -> Position {
        (self.0 >> 32) as Position
    }
}

/// Everything that is stored.
pub(crate) struct Keyspace {
    cells: Box<[Cell]>,
    hasher: RandomState,
    databases: usize,
    /// Bytes in use, behind by less than [`GRAIN`] per shard: so that a write need not add all shards up to see that it
    /// is far from `maxmemory`, and two threads in different shards seldom write here.
    coarse_used: AtomicUsize,
    busy: Arc<Busy>,
}

/// Goes up while somebody holds every shard for long: a script over its time. Who would wait for a shard gives up. Every command
/// reads it, so it is alone on its cache lines.
#[derive(Debug, Default)]
#[repr(align(128))]
pub(crate) struct Busy(AtomicBool);

impl Busy {
    #[inline]
    pub(crate) fn is_up(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    /// Raises it; whether it was up.
    pub(crate) fn raise(&self) -> bool {
        self.0.swap(true, Ordering::AcqRel)
    }

    pub(crate) fn lower(&self) {
        self.0.store(false, Ordering::Release);
    }

    /// Waits for a lock, a little at a time, until it is there or the flag is up.
    #[cold]
    pub(crate) fn wait<G>(&self, mut try_for: impl FnMut(Duration) -> Option<G>) -> Option<G> {
        /// Time between two looks at the flag. Default: 10 ms.
        const LOOK_PERIOD: Duration = Duration::from_millis(10);
        loop {
            if self.is_up() {
                return None;
            }
            if let Some(guard) = try_for(LOOK_PERIOD) {
                return Some(guard);
            }
        }
    }
}

/// How far a shard's use may differ from what it has last reported.
const GRAIN: usize = 16 * 1024;

/// A shard, its lock, and the figures of it that are read without the lock. Alone on its cache lines, so that two
/// threads in neighbouring shards do not slow each other down.
#[repr(align(128))]
struct Cell {
    shard: Mutex<Shard>,
    used: AtomicUsize,
    changes: AtomicU64,
}

impl Keyspace {
    /// Makes an empty keyspace. `shards` is rounded up to a power of two.
    pub(crate) fn new(shards: usize, databases: usize) -> Self {
        let hasher = RandomState::new();
        let cells = (0..shards.max(1).next_power_of_two())
            .map(|_| Cell {
                shard: Mutex::new(Shard::new(databases, hasher.clone())),
                used: AtomicUsize::new(0),
                changes: AtomicU64::new(0),
            })
            .collect();
        Self { cells, hasher, databases, coarse_used: AtomicUsize::new(0), busy: Arc::default() }
    }

    pub(crate) fn databases(&self) -> usize {
        self.databases
    }

    pub(crate) fn shards(&self) -> usize {
        self.cells.len()
    }

    #[inline]
    pub(crate) fn hash(&self, key: &[u8]) -> KeyHash {
        KeyHash(self.hasher.hash_one(key))
    }

    /// The shard of a key, by bits from the lower half of the hash: the order inside a shard has the upper.
    #[inline]
    pub(crate) fn shard_of(&self, hash: KeyHash) -> usize {
        hash.0 as u32 as usize & (self.cells.len() - 1)
    }

    /// Bytes in use by all entries and the structures around them, by our own accounting.
    pub(crate) fn used_memory(&self) -> usize {
        self.cells.iter().map(|cell| cell.used.load(Ordering::Relaxed)).sum()
    }

    /// Changes of keys since the start, but for those of commands that run now. Takes no lock, for `INFO` may ask inside a
    /// transaction, which holds them.
    pub(crate) fn changes(&self) -> u64 {
        self.cells.iter().map(|cell| cell.changes.load(Ordering::Relaxed)).sum()
    }

    /// Whether the bytes in use are surely no more than `limit`; a false may be wrong.
    #[inline]
    pub(crate) fn is_surely_within(&self, limit: usize) -> bool {
        self.coarse_used.load(Ordering::Relaxed).saturating_add(self.cells.len() * GRAIN) <= limit
    }

    /// Takes over what a shard uses now. Called under its lock.
    #[inline]
    fn publish(&self, cell: &Cell, shard: &mut Shard) {
        cell.changes.store(shard.changes, Ordering::Relaxed);
        let used = shard.used();
        if cell.used.load(Ordering::Relaxed) == used {
            return;
        }
        cell.used.store(used, Ordering::Relaxed);
        if used.abs_diff(shard.reported) >= GRAIN {
            self.coarse_used.fetch_add(used.wrapping_sub(shard.reported), Ordering::Relaxed);
            shard.reported = used;
        }
    }

    pub(crate) fn busy(&self) -> &Arc<Busy> {
        &self.busy
    }

    #[inline]
    pub(crate) fn is_busy(&self) -> bool {
        self.busy.is_up()
    }

    /// The guard of a shard, unless the keyspace is busy or gets so before it is free.
    #[inline]
    fn guard_unless_busy<'e>(&self, cell: &'e Cell) -> Option<MutexGuard<'e, Shard>> {
        cell.shard.try_lock().or_else(|| {
            self.busy.wait(|period| {
                #[cfg(debug_assertions)]
                held::check(self);
                cell.shard.try_lock_for(period)
            })
        })
    }

    /// Locks one shard; `None` when the keyspace is busy.
    #[inline]
    pub(crate) fn lock_one_unless_busy(&self, index: usize) -> Option<Locked<'_>> {
        match self.cells.get(index) {
            Some(cell) => Some(Locked::of(self, Some((index, self.guard_unless_busy(cell)?)), Vec::new())),
            None => Some(Locked::none(self)),
        }
    }

    /// Locks every shard; `None` when the keyspace is busy.
    pub(crate) fn lock_all_unless_busy(&self) -> Option<Locked<'_>> {
        self.lock_several_unless_busy(0..self.cells.len())
    }

    fn lock_several_unless_busy(&self, shards: impl Iterator<Item = usize>) -> Option<Locked<'_>> {
        let cells = shards.filter_map(|index| Some((index, self.cells.get(index)?)));
        let guards = cells.map(|(index, cell)| Some((index, self.guard_unless_busy(cell)?)));
        Some(Locked::of(self, None, guards.collect::<Option<_>>()?))
    }

    /// Locks one shard, however long that takes: for those who are not to fail and do not serve clients.
    #[inline]
    pub(crate) fn lock_one(&self, index: usize) -> Locked<'_> {
        #[cfg(debug_assertions)]
        held::check(self);
        match self.cells.get(index) {
            Some(cell) => Locked::of(self, Some((index, cell.shard.lock())), Vec::new()),
            None => Locked::none(self),
        }
    }

    /// Locks every shard, however long that takes.
    pub(crate) fn lock_all(&self) -> Locked<'_> {
        #[cfg(debug_assertions)]
        held::check(self);
        Locked::of(self, None, self.cells.iter().map(|cell| cell.shard.lock()).enumerate().collect())
    }

    /// Locks the given shards; the order and repetitions do not matter. `None` when the keyspace is busy.
    pub(crate) fn lock_shards_unless_busy(&self, shards: &mut SmallVec<[usize; 8]>) -> Option<Locked<'_>> {
        shards.sort_unstable();
        shards.dedup();
        match shards.as_slice() {
            [] => Some(Locked::none(self)),
            [only] => self.lock_one_unless_busy(*only),
            several => self.lock_several_unless_busy(several.iter().copied()),
        }
    }
}

/// The shards that a command has locked. Releasing publishes their memory figures.
pub(crate) struct Locked<'e> {
    keyspace: &'e Keyspace,
    /// The shard, where there is one: the usual case, kept apart so that it costs no loop.
    only: Option<Guard<'e>>,
    /// The shards in order, where there are several.
    several: Vec<Guard<'e>>,
    #[cfg(debug_assertions)]
    _held: Option<held::Held>,
}

type Guard<'e> = (usize, MutexGuard<'e, Shard>);

impl<'e> Locked<'e> {
    /// One shard, several in order, or none.
    #[inline]
    fn of(keyspace: &'e Keyspace, only: Option<Guard<'e>>, several: Vec<Guard<'e>>) -> Self {
        Self {
            keyspace,
            #[cfg(debug_assertions)]
            _held: (only.is_some() || !several.is_empty()).then(|| held::Held::new(keyspace)),
            only,
            several,
        }
    }

    /// No shard at all, for commands without keys.
    #[inline]
    pub(crate) fn none(keyspace: &'e Keyspace) -> Self {
        Self::of(keyspace, None, Vec::new())
    }

    /// The shard with this number.
    ///
    /// # Panics
    /// When the shard is not locked. Which shards a command locks follows from its keys in the command table, and the
    /// commands touch no other keys, whatever a client sends.
    #[inline]
    pub(crate) fn shard(&mut self, index: usize) -> &mut Shard {
        match &mut self.only {
            Some((number, shard)) if *number == index => shard,
            _ => one_of_several(&mut self.several, index),
        }
    }

    /// As [`shard`](Self::shard), to look only; `None` if it is not locked.
    pub(crate) fn shard_ref(&self, index: usize) -> Option<&Shard> {
        let mut guards = self.only.iter().chain(&self.several);
        guards.find(|(number, _)| *number == index).map(|(_, shard)| &**shard)
    }

    /// The locked shards, in order.
    pub(crate) fn shards(&mut self) -> impl Iterator<Item = &mut Shard> {
        self.only.iter_mut().chain(&mut self.several).map(|(_, shard)| &mut **shard)
    }

    /// Whether every shard is locked.
    pub(crate) fn is_all(&self) -> bool {
        self.only.iter().len() + self.several.len() == self.keyspace.cells.len()
    }

    #[inline]
    pub(crate) fn keyspace(&self) -> &'e Keyspace {
        self.keyspace
    }
}

impl Drop for Locked<'_> {
    #[inline]
    fn drop(&mut self) {
        let keyspace = self.keyspace;
        let publish = |(index, shard): &mut Guard<'_>| {
            if let Some(cell) = keyspace.cells.get(*index) {
                keyspace.publish(cell, shard);
            }
        };
        match &mut self.only {
            Some(guard) => publish(guard),
            None => self.several.iter_mut().for_each(publish),
        }
    }
}

/// In builds with debug assertions, finds a thread that would wait for itself: it holds shards and asks for more of them.
#[cfg(debug_assertions)]
mod held {
    use std::cell::RefCell;

    use super::Keyspace;

    thread_local! {
        static KEYSPACES: RefCell<Vec<usize>> = const { RefCell::new(Vec::new()) };
    }

    /// Says, while it lives, that this thread holds shards of a keyspace.
    pub(super) struct Held(usize);

    /// Looks, before a lock is waited for, whether this thread would wait for itself.
    pub(super) fn check(keyspace: &Keyspace) {
        let place = std::ptr::from_ref(keyspace).addr();
        let holds = KEYSPACES.with_borrow(|held| held.contains(&place));
        assert!(!holds, "a thread that holds shards of a keyspace asks for more of them");
    }

    impl Held {
        pub(super) fn new(keyspace: &Keyspace) -> Self {
            check(keyspace);
            let place = std::ptr::from_ref(keyspace).addr();
            KEYSPACES.with_borrow_mut(|held| held.push(place));
            Self(place)
        }
    }

    impl Drop for Held {
        fn drop(&mut self) {
            KEYSPACES.with_borrow_mut(|held| held.retain(|place| *place != self.0));
        }
    }
}

#[allow(clippy::panic, reason = "see `Locked::shard`")]
fn one_of_several<'g>(several: &'g mut [Guard<'_>], index: usize) -> &'g mut Shard {
    // With every shard locked, the place is the number.
    let place = match several.get(index) {
        Some((number, _)) if *number == index => Some(index),
        _ => several.iter().position(|(number, _)| *number == index),
    };
    match place.and_then(|place| several.get_mut(place)) {
        Some((_, shard)) => shard,
        None => panic!("shard {index} is not locked: a command touches a key that it does not declare"),
    }
}
