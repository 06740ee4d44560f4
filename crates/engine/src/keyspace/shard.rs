//! One shard: its part of every database, its memory account, and who watches which of its keys.
//!
//! Invariants: [`Shard::find_live`] is the one place that decides whether an entry has expired; every change of an
//! entry goes through a method that keeps `used` equal to the sum of what the entries take. Access to an entry is
//! recorded in [`Shard::record_access`] only.

use std::ops::{Deref, DerefMut};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use ahash::RandomState;
use hashbrown::HashMap;

use super::capture::Capture;
use super::db::Db;
use super::entry::{Entry, Value};
use super::eviction::AccessClock;
use super::table::{Position, Slot};
use super::{DbIndex, KeyHash};
use crate::time::UnixMillis;
use crate::types::{Hash, List, Set, SortedSet};

/// Memory that the table takes per entry, on average over its growth: an address at four fifths load. An entry with an
/// expiry takes [`EXPIRING_OVERHEAD`] more, for its position in the list of those.
const SLOT_OVERHEAD: usize = 10;
const EXPIRING_OVERHEAD: usize = 4;

/// What a look-up found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Found {
    /// No such key.
    Absent,
    /// A key that is there and has not expired.
    Live(Slot),
    /// A key whose expiry has passed; nobody may see its value.
    Expired(Slot),
}

/// Watchers by database and key; the flag tells the watching client that its transaction is void.
type Watchers = HashMap<(DbIndex, Box<[u8]>), Vec<Arc<AtomicBool>>, RandomState>;

/// One of the keyspace's shards.
pub(crate) struct Shard {
    pub(super) dbs: Vec<Db>,
    /// Flips with each snapshot; see the module `capture`.
    pub(super) epoch: bool,
    pub(super) capture: Option<Box<Capture>>,
    /// Changes of keys so far.
    pub(crate) changes: u64,
    hasher: RandomState,
    account: Account,
    /// What of it the keyspace has been told; see [`Keyspace`](super::Keyspace).
    pub(super) reported: usize,
    watchers: Watchers,
    pub(crate) counters: ShardCounters,
}

/// Bytes in use: in all, and by database.
#[derive(Debug)]
struct Account {
    total: usize,
    by_db: Box<[usize]>,
}

impl Account {
    /// Something in `db` that took `before` bytes takes `after` now.
    #[inline]
    fn settle(&mut self, db: DbIndex, before: usize, after: usize) {
        if before != after
            && let Some(part) = self.by_db.get_mut(usize::from(db))
        {
            *part = part.wrapping_add(after).wrapping_sub(before);
            self.total = self.total.wrapping_add(after).wrapping_sub(before);
        }
    }

    fn clear(&mut self, db: DbIndex) {
        if let Some(part) = self.by_db.get(usize::from(db)).copied() {
            self.settle(db, part, 0);
        }
    }
}

/// Counts kept under the shard's lock and added up for `INFO`.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct ShardCounters {
    pub(crate) hits: u64,
    pub(crate) misses: u64,
    pub(crate) expired: u64,
    pub(crate) evicted: u64,
}

impl ShardCounters {
    /// Adds another shard's counts.
    pub(crate) fn add(&mut self, other: &Self) {
        self.hits += other.hits;
        self.misses += other.misses;
        self.expired += other.expired;
        self.evicted += other.evicted;
    }
}

impl Shard {
    pub(crate) fn new(databases: usize, hasher: RandomState) -> Self {
        Self {
            dbs: (0..databases).map(|_| Db::default()).collect(),
            epoch: false,
            capture: None,
            changes: 0,
            watchers: HashMap::with_hasher(hasher.clone()),
            hasher,
            account: Account { total: 0, by_db: vec![0; databases].into_boxed_slice() },
            reported: 0,
            counters: ShardCounters::default(),
        }
    }

    #[inline]
    pub(crate) fn used(&self) -> usize {
        self.account.total
    }

    pub(crate) fn db(&self, db: DbIndex) -> Option<&Db> {
        self.dbs.get(usize::from(db))
    }

    /// Makes room for about so many entries of a database in which none has ever been.
    pub(crate) fn reserve(&mut self, db: DbIndex, entries: usize) {
        if let Some(db) = self.dbs.get_mut(usize::from(db)) {
            db.reserve(entries);
        }
    }

    /// Number of entries of a database, expired ones included.
    pub(crate) fn len(&self, db: DbIndex) -> usize {
        self.db(db).map_or(0, Db::len)
    }

    fn db_mut(&mut self, db: DbIndex) -> Option<&mut Db> {
        self.dbs.get_mut(usize::from(db))
    }

    /// Looks a key up and decides whether it has expired.
    #[inline]
    pub(crate) fn find_live(&self, db: DbIndex, hash: KeyHash, key: &[u8], now: UnixMillis) -> Found {
        let Some(db) = self.db(db) else { return Found::Absent };
        match db.find(hash, key) {
            None => Found::Absent,
            Some(slot) if is_expired(db.get(slot), now) => Found::Expired(slot),
            Some(slot) => Found::Live(slot),
        }
    }

    /// Whether the entry in `slot` has expired, for walks and samples that start from slots.
    #[inline]
    pub(crate) fn is_expired_slot(&self, db: DbIndex, slot: Slot, now: UnixMillis) -> bool {
        self.db(db).is_some_and(|db| is_expired(db.get(slot), now))
    }

    #[inline]
    pub(crate) fn entry(&self, db: DbIndex, slot: Slot) -> Option<&Entry> {
        self.db(db)?.get(slot)
    }

    /// Records a use of the entry for the eviction policy.
    #[inline]
    pub(crate) fn record_access(&mut self, db: DbIndex, slot: Slot, clock: AccessClock) {
        self.accessed(db, slot, clock);
    }

    /// Records a use of the entry and gives it.
    #[inline]
    pub(crate) fn accessed(&mut self, db: DbIndex, slot: Slot, clock: AccessClock) -> Option<&Entry> {
        let entry = self.db_mut(db)?.get_mut(slot)?;
        entry.set_access(clock.touch(entry.access()));
        Some(entry)
    }

    /// The entries of a database that have not expired at `now`.
    pub(crate) fn live_entries(&self, db: DbIndex, now: UnixMillis) -> impl Iterator<Item = &Entry> {
        let entries = self.db(db).into_iter().flat_map(Db::entries);
        entries.filter(move |entry| !is_expired(Some(*entry), now))
    }

    /// Visits some entries of a database from a position on, each with whether it has expired, and says where to go on.
    pub(crate) fn walk(
        &self,
        db: DbIndex,
        from: Position,
        now: UnixMillis,
        mut visit: impl FnMut(&Entry, bool),
    ) -> Option<Position> {
        self.db(db)?.walk(from, |_, entry| visit(entry, is_expired(Some(entry), now)))
    }

    /// The entry in `slot`, for change in place; the account is settled when the borrow ends.
    pub(crate) fn entry_mut(&mut self, db: DbIndex, slot: Slot) -> Option<EntryMut<'_>> {
        self.before_change(db, slot);
        let entry = self.dbs.get_mut(usize::from(db))?.get_mut(slot)?;
        let before = entry.memory();
        Some(EntryMut { entry, account: &mut self.account, db, before })
    }

    /// To be called before any change of an entry but of its access record.
    #[inline]
    fn before_change(&mut self, db: DbIndex, slot: Slot) {
        if self.capture.is_some() {
            self.save_before_change(db, slot);
        }
    }

    /// Adds or replaces an entry. The replaced one comes back, for the caller to drop after the lock.
    pub(crate) fn put(&mut self, db: DbIndex, hash: KeyHash, mut entry: Entry) -> Option<Entry> {
        let slot = self.db(db)?.find(hash, entry.key());
        if let Some(slot) = slot {
            self.before_change(db, slot);
        }
        entry.set_epoch(self.epoch);
        let Self { dbs, account, hasher, .. } = self;
        let entries = dbs.get_mut(usize::from(db))?;
        let after = footprint(&entry);
        let old = if let Some(slot) = slot {
            entries.replace(hash, slot, entry)
        } else {
            entries.insert(hash, entry, hash_with(hasher));
            None
        };
        account.settle(db, old.as_ref().map_or(0, footprint), after);
        old
    }

    /// Takes an entry out.
    pub(crate) fn take(&mut self, db: DbIndex, slot: Slot) -> Option<Entry> {
        self.before_change(db, slot);
        let Self { dbs, account, .. } = self;
        let entry = dbs.get_mut(usize::from(db))?.remove(slot)?;
        account.settle(db, footprint(&entry), 0);
        Some(entry)
    }

    /// Adds an entry whose key is not there.
    #[inline]
    pub(crate) fn insert(&mut self, db: DbIndex, hash: KeyHash, mut entry: Entry) {
        entry.set_epoch(self.epoch);
        let Self { dbs, account, hasher, .. } = self;
        if let Some(entries) = dbs.get_mut(usize::from(db)) {
            account.settle(db, 0, footprint(&entry));
            entries.insert(hash, entry, hash_with(hasher));
        }
    }

    /// Overwrites the entry in `slot` by a string with the given expiry. A string is overwritten in place; anything else
    /// comes back, for the caller to drop after the lock.
    #[inline]
    pub(crate) fn overwrite_string(
        &mut self,
        db: DbIndex,
        slot: Slot,
        value: &[u8],
        expires_at: Option<UnixMillis>,
        clock: AccessClock,
    ) -> Option<Entry> {
        self.before_change(db, slot);
        let entries = self.dbs.get_mut(usize::from(db))?;
        let entry = entries.get_mut(slot)?;
        let access = clock.touch(entry.access());
        if entry.overwrite_same_size(value, expires_at) {
            entry.set_access(access);
            return None;
        }
        let before = footprint(entry);
        let old = if entry.string_bytes().is_some() {
            entry.set_string(value);
            entry.set_access(access);
            if entry.expires_at() != expires_at {
                entries.set_expires_at(slot, expires_at, hash_with(&self.hasher));
            }
            None
        } else {
            let mut new = Entry::string(entry.key(), value, expires_at, access);
            new.set_epoch(self.epoch);
            entries.replace(hash_with(&self.hasher)(new.key()), slot, new)
        };
        let after = entries.get(slot).map_or(0, footprint);
        self.account.settle(db, before, after);
        old
    }

    /// Sets or clears an entry's expiry.
    pub(crate) fn set_expires_at(&mut self, db: DbIndex, slot: Slot, expires_at: Option<UnixMillis>) {
        self.before_change(db, slot);
        let Some(entries) = self.dbs.get_mut(usize::from(db)) else { return };
        let before = entries.get(slot).map_or(0, footprint);
        entries.set_expires_at(slot, expires_at, hash_with(&self.hasher));
        let after = entries.get(slot).map_or(0, footprint);
        self.account.settle(db, before, after);
    }

    /// Empties a database; what it held comes back, to be dropped after the lock.
    pub(crate) fn clear(&mut self, db: DbIndex) -> Db {
        self.account.clear(db);
        let cleared = self.db_mut(db).map(std::mem::take).unwrap_or_default();
        self.keep_flushed(db, cleared)
    }

    /// Exchanges two databases.
    pub(crate) fn swap(&mut self, a: DbIndex, b: DbIndex) {
        self.dbs.swap(usize::from(a), usize::from(b));
        self.swap_captured(a, b);
        self.account.by_db.swap(usize::from(a), usize::from(b));
    }

    /// Makes `flag` go up when the key is next changed.
    pub(crate) fn watch(&mut self, db: DbIndex, key: &[u8], flag: &Arc<AtomicBool>) {
        self.watchers.entry((db, key.into())).or_default().push(Arc::clone(flag));
    }

    /// Undoes [`watch`](Self::watch).
    pub(crate) fn unwatch(&mut self, db: DbIndex, key: &[u8], flag: &Arc<AtomicBool>) {
        let key = (db, key.into());
        if let Some(flags) = self.watchers.get_mut(&key) {
            flags.retain(|other| !Arc::ptr_eq(other, flag));
            if flags.is_empty() {
                self.watchers.remove(&key);
            }
        }
    }

    /// Tells the watchers of a key that it has changed.
    #[inline]
    pub(crate) fn signal(&self, db: DbIndex, key: &[u8]) {
        if !self.watchers.is_empty() {
            self.signal_watchers(db, key);
        }
    }

    #[cold]
    fn signal_watchers(&self, db: DbIndex, key: &[u8]) {
        if let Some(flags) = self.watchers.get(&(db, key.into())) {
            for flag in flags {
                flag.store(true, Ordering::Release);
            }
        }
    }

    /// Tells the watchers of every key of `db` that `affected` says has changed: `FLUSHDB`, `SWAPDB`.
    pub(crate) fn signal_all(&self, db: DbIndex, affected: impl Fn(&Self, &[u8]) -> bool) {
        for ((watched_db, key), flags) in &self.watchers {
            if *watched_db == db && affected(self, key) {
                for flag in flags {
                    flag.store(true, Ordering::Release);
                }
            }
        }
    }

    /// The keys that somebody watches here.
    pub(crate) fn watched_keys(&self) -> Vec<(DbIndex, Box<[u8]>)> {
        self.watchers.keys().cloned().collect()
    }

    /// Whether the key is stored, expired or not.
    pub(crate) fn holds(&self, db: DbIndex, key: &[u8]) -> bool {
        let hash = hash_with(&self.hasher)(key);
        self.db(db).is_some_and(|db| db.find(hash, key).is_some())
    }
}

/// The hash of keys, as the keyspace makes it.
fn hash_with(hasher: &RandomState) -> impl Fn(&[u8]) -> KeyHash {
    |key| KeyHash(hasher.hash_one(key))
}

#[inline]
fn is_expired(entry: Option<&Entry>, now: UnixMillis) -> bool {
    entry.and_then(Entry::expires_at).is_some_and(|at| at <= now)
}

/// What an entry takes, with its share of the structures around it.
#[inline]
pub(crate) fn footprint(entry: &Entry) -> usize {
    entry.memory() + SLOT_OVERHEAD + if entry.expires_at().is_some() { EXPIRING_OVERHEAD } else { 0 }
}

/// An entry borrowed for change; settles the shard's memory account when dropped.
pub(crate) struct EntryMut<'a> {
    entry: &'a mut Entry,
    account: &'a mut Account,
    db: DbIndex,
    before: usize,
}

impl Deref for EntryMut<'_> {
    type Target = Entry;

    fn deref(&self) -> &Entry {
        self.entry
    }
}

impl DerefMut for EntryMut<'_> {
    fn deref_mut(&mut self) -> &mut Entry {
        self.entry
    }
}

impl Drop for EntryMut<'_> {
    fn drop(&mut self) {
        self.account.settle(self.db, self.before, self.entry.memory());
    }
}

/// A value that knows what it takes, and what it is called when it is the wrong one.
pub(crate) trait Collection: Sized {
    fn heap_bytes(&self) -> usize;
    fn of(entry: &mut Entry) -> Option<&mut Self>;
    fn of_ref(entry: &Entry) -> Option<&Self>;
    fn into_value(self) -> Value;
    fn is_empty(&self) -> bool;
}

macro_rules! collections {
    ($($type:ident),*) => {$(
        impl Collection for $type {
            fn heap_bytes(&self) -> usize {
                $type::heap_bytes(self)
            }

            fn of(entry: &mut Entry) -> Option<&mut Self> {
                // Not `value_mut` at once, which would turn a string into one that grows.
                Self::of_ref(entry)?;
                match entry.value_mut() {
                    super::ValueMut::$type(value) => Some(value),
                    _ => None,
                }
            }

            fn of_ref(entry: &Entry) -> Option<&Self> {
                match entry.value() {
                    super::ValueRef::$type(value) => Some(value),
                    _ => None,
                }
            }

            fn into_value(self) -> Value {
                Value::$type(Box::new(self))
            }

            fn is_empty(&self) -> bool {
                $type::len(self) == 0
            }
        }
    )*};
}
collections!(Hash, List, Set, SortedSet);

/// A collection borrowed for change; settles the shard's memory account when dropped.
pub(crate) struct Tracked<'a, T: Collection> {
    value: &'a mut T,
    account: &'a mut Account,
    db: DbIndex,
    before: usize,
}

impl Shard {
    /// [`record_access`](Self::record_access) and [`collection_mut`](Self::collection_mut) in one step.
    #[inline(always)]
    #[allow(clippy::inline_always, reason = "what it gives stays in registers")]
    pub(crate) fn collection_accessed<T: Collection>(
        &mut self,
        db: DbIndex,
        slot: Slot,
        clock: AccessClock,
    ) -> Option<Tracked<'_, T>> {
        if self.capture.is_some() {
            return self.collection_captured(db, slot, clock);
        }
        let Self { dbs, account, .. } = self;
        let entry = dbs.get_mut(usize::from(db))?.get_mut(slot)?;
        entry.set_access(clock.touch(entry.access()));
        let value = T::of(entry)?;
        let before = value.heap_bytes();
        Some(Tracked { value, account, db, before })
    }

    #[cold]
    fn collection_captured<T: Collection>(
        &mut self,
        db: DbIndex,
        slot: Slot,
        clock: AccessClock,
    ) -> Option<Tracked<'_, T>> {
        self.record_access(db, slot, clock);
        self.collection_mut(db, slot)
    }

    /// The collection in `slot`, or `None` when the entry is of another type.
    pub(crate) fn collection_mut<T: Collection>(
        &mut self,
        db: DbIndex,
        slot: Slot,
    ) -> Option<Tracked<'_, T>> {
        T::of_ref(self.entry(db, slot)?)?;
        self.before_change(db, slot);
        let entry = self.dbs.get_mut(usize::from(db))?.get_mut(slot)?;
        let value = T::of(entry)?;
        let before = value.heap_bytes();
        Some(Tracked { value, account: &mut self.account, db, before })
    }
}

impl<T: Collection> Deref for Tracked<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        self.value
    }
}

impl<T: Collection> DerefMut for Tracked<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        self.value
    }
}

impl<T: Collection> Drop for Tracked<'_, T> {
    fn drop(&mut self) {
        self.account.settle(self.db, self.before, self.value.heap_bytes());
    }
}
