//! What a command sees while it runs: the locked part of the keyspace, the session, the time, and the record of what it
//! changed.
//!
//! Every look-up goes through here, and here alone an expired entry is removed, an access is recorded and a hit or a miss
//! is counted. A command that changes a key says so with [`Ctx::modified`] (or [`Ctx::removed`]): that marks the
//! transactions of its watchers, notifies, and makes the command appear in the journal. By default the command is journalled
//! as it came; one whose effect depends on time or chance gives its effect with [`Ctx::journal_as`].

use crate::engine::Engine;
use crate::error::CommandError;
use crate::keyspace::{
    AccessClock, Collection, DbIndex, Entry, EntryMut, Found, KeyHash, Locked, Shard, Slot, Tracked, Value,
};
use crate::notify::Class;
use crate::session::Session;
use crate::time::UnixMillis;

/// Who runs the command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Origin {
    /// A client, directly.
    Client,
    /// `EXEC`.
    Transaction,
    /// `redis.call` in a script.
    Script,
    /// The replay of a journal: nothing expires, nothing is journalled again.
    Replay,
}

/// How the write of the running command goes to the journal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Journalled {
    AsItCame,
    AsGiven,
}

/// What becomes of a key's expiry when its value is replaced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Expiry {
    /// It goes away.
    Clear,
    /// It stays.
    Keep,
    /// It becomes this.
    At(UnixMillis),
}

/// The surroundings of a running command.
pub(crate) struct Ctx<'a, 'e> {
    pub(crate) engine: &'e Engine,
    pub(crate) locked: &'a mut Locked<'e>,
    pub(crate) session: &'a mut Session,
    pub(crate) now: UnixMillis,
    pub(crate) origin: Origin,
    access: AccessClock,
    /// The key that was hashed to find the locks, and its place: most commands have no other.
    known: (*const [u8], Place),
    dirty: usize,
    journalled: Journalled,
}

/// Something whose memory is given back outside the locks.
#[allow(dead_code)] // Held only to be dropped.
pub(crate) enum Garbage {
    Entry(Entry),
    Other(Box<dyn Send>),
}

/// A place in the keyspace.
#[derive(Clone, Copy)]
struct Place {
    hash: KeyHash,
    shard: usize,
}

/// No key is at the null address.
const NOTHING_KNOWN: (*const [u8], Place) =
    (std::ptr::slice_from_raw_parts(std::ptr::null(), 0), Place { hash: KeyHash(0), shard: 0 });

impl<'a, 'e> Ctx<'a, 'e> {
    #[inline]
    pub(crate) fn new(
        engine: &'e Engine,
        locked: &'a mut Locked<'e>,
        session: &'a mut Session,
        access: AccessClock,
        now: UnixMillis,
        origin: Origin,
    ) -> Self {
        Self {
            engine,
            locked,
            session,
            now,
            origin,
            access,
            known: NOTHING_KNOWN,
            dirty: 0,
            journalled: Journalled::AsItCame,
        }
    }

    /// The selected database.
    #[inline]
    pub(crate) fn db(&self) -> DbIndex {
        self.session.db
    }

    // ---- reading -------------------------------------------------------------------------------------------------

    /// The entry for a read: counts a hit or a miss and records the access.
    #[inline]
    pub(crate) fn read(&mut self, key: &[u8]) -> Option<&Entry> {
        let place = self.place(key);
        let db = self.db();
        let slot = self.live_counted(place, db, key)?;
        let access = self.access;
        self.locked.shard(place.shard).accessed(db, slot, access)
    }

    /// The entry for a read that is no use of the value: counts a hit or a miss, records no access.
    pub(crate) fn look(&mut self, key: &[u8]) -> Option<&Entry> {
        let place = self.place(key);
        let db = self.db();
        let slot = self.live_counted(place, db, key)?;
        self.locked.shard(place.shard).entry(db, slot)
    }

    /// As [`look`](Self::look), and nobody is notified of a miss: for what looks at how a value is kept.
    pub(crate) fn inspect(&mut self, key: &[u8]) -> Option<&Entry> {
        let place = self.place(key);
        let db = self.db();
        let slot = self.live_silently(place, db, key)?;
        self.locked.shard(place.shard).entry(db, slot)
    }

    /// The entry, without any trace of the look-up but the removal of an expired one.
    pub(crate) fn peek(&mut self, key: &[u8]) -> Option<&Entry> {
        self.peek_in(self.db(), key)
    }

    /// As [`peek`](Self::peek), in another database.
    pub(crate) fn peek_in(&mut self, db: DbIndex, key: &[u8]) -> Option<&Entry> {
        let place = self.place(key);
        let slot = self.live(place, db, key)?;
        self.locked.shard(place.shard).entry(db, slot)
    }

    /// Whether the key is there; leaves no trace.
    pub(crate) fn exists(&mut self, key: &[u8]) -> bool {
        self.peek(key).is_some()
    }

    /// The bytes of a string, read.
    #[inline]
    pub(crate) fn read_string(&mut self, key: &[u8]) -> Result<Option<&[u8]>, CommandError> {
        match self.read(key) {
            None => Ok(None),
            Some(entry) => entry.string_bytes().map(Some).ok_or(CommandError::WRONG_TYPE),
        }
    }

    /// A collection, read: `ctx.read_as::<Hash>(key)?`.
    pub(crate) fn read_as<T: Collection>(&mut self, key: &[u8]) -> Result<Option<&T>, CommandError> {
        match self.read(key) {
            None => Ok(None),
            Some(entry) => T::of_ref(entry).map(Some).ok_or(CommandError::WRONG_TYPE),
        }
    }

    /// A collection seen together with others: for keys that this command has read before, which has checked their types
    /// and removed what had expired. `None` for any other key.
    pub(crate) fn view_as<T: Collection>(&self, key: &[u8]) -> Option<&T> {
        let place = self.place(key);
        let shard = self.locked.shard_ref(place.shard)?;
        match shard.find_live(self.db(), place.hash, key, self.expiry_now()) {
            Found::Live(slot) => shard.entry(self.db(), slot).and_then(T::of_ref),
            Found::Absent | Found::Expired(_) => None,
        }
    }

    // ---- writing -------------------------------------------------------------------------------------------------

    /// A collection for change, if it is there; records the access, counts neither hit nor miss.
    pub(crate) fn write_as<T: Collection>(
        &mut self,
        key: &[u8],
    ) -> Result<Option<Tracked<'_, T>>, CommandError> {
        let place = self.place(key);
        let db = self.db();
        let Some(slot) = self.live(place, db, key) else { return Ok(None) };
        self.collection_at(place, db, slot).map(Some)
    }

    /// A collection for change, made empty if it is not there. The caller fills it, or removes it again with
    /// [`remove_if_empty`](Self::remove_if_empty).
    #[inline(always)]
    #[allow(clippy::inline_always, reason = "see `collection_at`")]
    pub(crate) fn write_or_create<T: Collection + Default>(
        &mut self,
        key: &[u8],
    ) -> Result<Tracked<'_, T>, CommandError> {
        let place = self.place(key);
        let db = self.db();
        let slot = match self.live(place, db, key) {
            Some(slot) => slot,
            None => self.create::<T>(place, db, key).ok_or(CommandError::NO_SUCH_KEY)?,
        };
        self.collection_at(place, db, slot)
    }

    #[inline(never)]
    fn create<T: Collection + Default>(&mut self, place: Place, db: DbIndex, key: &[u8]) -> Option<Slot> {
        self.put(key, T::default().into_value(), None);
        self.live(place, db, key)
    }

    /// Always inlined, so that what it gives stays in registers: written to the stack in single words and read back in pairs, as the
    /// compiler does it with what a function returns, it takes longer than all the rest here.
    #[inline(always)]
    #[allow(clippy::inline_always, reason = "a quarter of the time that a push takes")]
    fn collection_at<T: Collection>(
        &mut self,
        place: Place,
        db: DbIndex,
        slot: Slot,
    ) -> Result<Tracked<'_, T>, CommandError> {
        let access = self.access;
        let shard = self.locked.shard(place.shard);
        shard.collection_accessed(db, slot, access).ok_or(CommandError::WRONG_TYPE)
    }

    /// The entry for change; records the access, counts neither hit nor miss.
    pub(crate) fn write(&mut self, key: &[u8]) -> Option<EntryMut<'_>> {
        let place = self.place(key);
        let db = self.db();
        let slot = self.live(place, db, key)?;
        let access = self.access;
        let shard = self.locked.shard(place.shard);
        shard.record_access(db, slot, access);
        shard.entry_mut(db, slot)
    }

    /// Stores a string, whatever was there.
    #[inline]
    pub(crate) fn set_string(&mut self, key: &[u8], value: &[u8], expiry: Expiry) {
        let place = self.place(key);
        let db = self.db();
        let slot = self.live(place, db, key);
        let access = self.access;
        let shard = self.locked.shard(place.shard);
        let Some(slot) = slot else {
            let expires_at = if let Expiry::At(at) = expiry { Some(at) } else { None };
            shard.insert(db, place.hash, Entry::string(key, value, expires_at, access.initial()));
            self.engine.notify(db, Class::New, "new", key);
            return;
        };
        let expires_at = match expiry {
            Expiry::Clear => None,
            Expiry::At(at) => Some(at),
            Expiry::Keep => shard.entry(db, slot).and_then(Entry::expires_at),
        };
        if let Some(old) = shard.overwrite_string(db, slot, value, expires_at, access) {
            self.discard(old);
        }
    }

    /// Stores a value, whatever was there, with this expiry or none.
    pub(crate) fn put(&mut self, key: &[u8], value: Value, expires_at: Option<UnixMillis>) {
        let (db, place) = (self.db(), self.place(key));
        let entry = Entry::new(key, value, expires_at, self.access.initial());
        if self.is_creation_of_interest(&entry) && self.live(place, db, key).is_none() {
            self.announce(db, &entry);
        }
        self.replace(place, db, entry);
    }

    /// Stores an entry under its key in `db`. What was there is deleted before, so that the key is always a new one to those
    /// who listen or wait.
    pub(crate) fn put_entry(&mut self, db: DbIndex, entry: Entry) {
        let place = self.place(entry.key());
        if self.is_creation_of_interest(&entry) {
            self.announce(db, &entry);
        }
        self.replace(place, db, entry);
    }

    fn is_creation_of_interest(&self, entry: &Entry) -> bool {
        self.engine.settings.event_classes().wants(Class::New) || self.is_awaited(entry)
    }

    /// Whether somebody may wait for such a key.
    fn is_awaited(&self, entry: &Entry) -> bool {
        self.engine.blocking.any() && entry.string_bytes().is_none()
    }

    /// Tells who listens or waits that a key has come to be.
    fn announce(&mut self, db: DbIndex, entry: &Entry) {
        self.engine.notify(db, Class::New, "new", entry.key());
        if self.is_awaited(entry) {
            self.note_ready(db, entry.key());
        }
    }

    fn replace(&mut self, place: Place, db: DbIndex, entry: Entry) {
        if let Some(old) = self.locked.shard(place.shard).put(db, place.hash, entry) {
            self.discard(old);
        }
    }

    /// Takes the entry out, if it is there. Follow with [`removed`](Self::removed).
    pub(crate) fn take(&mut self, key: &[u8]) -> Option<Entry> {
        self.take_in(self.db(), key)
    }

    /// As [`take`](Self::take), in another database.
    pub(crate) fn take_in(&mut self, db: DbIndex, key: &[u8]) -> Option<Entry> {
        let place = self.place(key);
        let slot = self.live(place, db, key)?;
        self.locked.shard(place.shard).take(db, slot)
    }

    /// Deletes the key; whether it was there. Does not mark anything: follow with [`removed`](Self::removed).
    pub(crate) fn delete(&mut self, key: &[u8]) -> bool {
        match self.take(key) {
            Some(entry) => {
                self.discard(entry);
                true
            }
            None => false,
        }
    }

    /// Removes a collection that has become empty, and says so to whoever listens. True if it did.
    pub(crate) fn remove_if_empty<T: Collection>(&mut self, key: &[u8]) -> bool {
        let empty = self.peek(key).and_then(T::of_ref).is_some_and(Collection::is_empty);
        if empty {
            self.delete(key);
            self.notify(Class::Generic, "del", key);
        }
        empty
    }

    /// The key's expiry; `None` when it has none or is not there.
    pub(crate) fn expires_at(&mut self, key: &[u8]) -> Option<UnixMillis> {
        self.peek(key).and_then(Entry::expires_at)
    }

    /// Sets or clears the expiry of a key that is there.
    pub(crate) fn set_expires_at(&mut self, key: &[u8], expires_at: Option<UnixMillis>) {
        let place = self.place(key);
        let db = self.db();
        if let Some(slot) = self.live(place, db, key) {
            self.locked.shard(place.shard).set_expires_at(db, slot, expires_at);
        }
    }

    // ---- whole databases -------------------------------------------------------------------------------------------

    /// The entry in a slot of a shard, for walks; removes it if it has expired. Every shard has to be locked.
    pub(crate) fn live_at(&mut self, shard: usize, db: DbIndex, slot: Slot) -> Option<&Entry> {
        let now = self.expiry_now();
        if self.locked.shard(shard).is_expired_slot(db, slot, now) {
            self.remove_expired(shard, db, slot);
            return None;
        }
        self.locked.shard(shard).entry(db, slot)
    }

    /// Removes the entry of a key if it has expired, for walks that have met it.
    pub(crate) fn remove_if_expired(&mut self, key: &[u8]) {
        self.live(self.place(key), self.db(), key);
    }

    /// Number of keys of a database, expired ones included. Every shard has to be locked.
    pub(crate) fn database_len(&mut self, db: DbIndex) -> usize {
        self.locked.shards().map(|shard| shard.len(db)).sum()
    }

    /// Empties a database and tells the watchers of the keys that were there. Every shard has to be locked.
    pub(crate) fn clear_database(&mut self, db: DbIndex) {
        for number in 0..self.engine.keyspace.shards() {
            let shard = self.locked.shard(number);
            shard.signal_all(db, |shard, key| shard.holds(db, key));
            let cleared = shard.clear(db);
            self.discard_other(cleared);
        }
    }

    /// Exchanges two databases and tells the watchers of the keys that are in either. Every shard has to be locked.
    pub(crate) fn swap_databases(&mut self, first: DbIndex, second: DbIndex) {
        if first == second {
            return;
        }
        for number in 0..self.engine.keyspace.shards() {
            // A watched key that has expired counts as absent on both sides, so it has to be.
            for (db, key) in self.locked.shard(number).watched_keys() {
                if db == first || db == second {
                    self.peek_in(first, &key);
                    self.peek_in(second, &key);
                }
            }
            let shard = self.locked.shard(number);
            for db in [first, second] {
                shard.signal_all(db, |shard, key| shard.holds(first, key) || shard.holds(second, key));
            }
            shard.swap(first, second);
        }
        if self.engine.blocking.any() {
            self.note_database_ready(first);
            self.note_database_ready(second);
        }
    }

    /// Tells clients that track keys that every one of them is gone.
    pub(crate) fn flushed(&mut self) {
        self.engine.tracking.flushed(&self.engine.registry);
    }

    // ---- saying what happened --------------------------------------------------------------------------------------

    /// Says that a key's value has changed: one change for the journal, watchers are told, `event` is notified.
    #[inline]
    pub(crate) fn modified(&mut self, key: &[u8], class: Class, event: &'static str) {
        self.modified_in(self.db(), key, class, event);
    }

    /// As [`modified`](Self::modified), in another database.
    #[inline]
    pub(crate) fn modified_in(&mut self, db: DbIndex, key: &[u8], class: Class, event: &'static str) {
        self.changed(db, key);
        self.engine.notify(db, class, event, key);
    }

    /// As [`modified_in`](Self::modified_in), and nobody is notified of an event.
    #[inline]
    pub(crate) fn changed(&mut self, db: DbIndex, key: &[u8]) {
        self.dirty += 1;
        let place = self.place(key);
        let shard = self.locked.shard(place.shard);
        shard.changes += 1;
        shard.signal(db, key);
        self.engine.tracking.changed(&self.engine.registry, key, self.session.client.id);
    }

    /// Says that a key has been deleted by name.
    pub(crate) fn removed(&mut self, key: &[u8]) {
        self.modified(key, Class::Generic, "del");
    }

    /// Publishes a keyspace notification, if that class is switched on.
    #[inline]
    pub(crate) fn notify(&mut self, class: Class, event: &'static str, key: &[u8]) {
        self.engine.notify(self.db(), class, event, key);
    }

    /// Counts a change that concerns no single key: `FLUSHALL`, `SWAPDB`.
    pub(crate) fn mark_dirty(&mut self) {
        self.dirty += 1;
        self.engine.other_changes.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    }

    /// Gives the effect of the running command to the journal in place of the command itself; may be called repeatedly.
    pub(crate) fn journal_as(&mut self, args: &[&[u8]]) {
        self.journalled = Journalled::AsGiven;
        if self.is_journalled() {
            let db = self.session.db;
            self.session.effects.push(db, args);
        }
    }

    /// Whether anybody keeps what this command writes.
    #[inline]
    pub(crate) fn is_journalled(&self) -> bool {
        self.origin != Origin::Replay && self.engine.journal.get().is_some()
    }

    /// Keeps the running command out of the journal although it has changed something (its parts have gone there).
    pub(crate) fn journal_nothing(&mut self) {
        self.journalled = Journalled::AsGiven;
    }

    /// Lets a value be dropped after the locks are released.
    pub(crate) fn discard(&mut self, entry: Entry) {
        if entry.string_bytes().is_none() {
            self.session.garbage.push(Garbage::Entry(entry));
        }
    }

    /// As [`discard`](Self::discard), for anything else.
    pub(crate) fn discard_other(&mut self, value: impl Send + 'static) {
        self.session.garbage.push(Garbage::Other(Box::new(value)));
    }

    // ---- for the dispatcher ----------------------------------------------------------------------------------------

    /// Starts the account of one command.
    pub(crate) fn begin_command(&mut self) {
        self.dirty = 0;
        self.journalled = Journalled::AsItCame;
        self.known = NOTHING_KNOWN;
    }

    /// Whether the command that has just run is to be journalled as it came.
    #[inline]
    pub(crate) fn journals_itself(&self) -> bool {
        self.dirty > 0 && self.journalled == Journalled::AsItCame
    }

    /// The shard of a key, for the few commands that walk or sample slots.
    pub(crate) fn shard_of(&mut self, key: &[u8]) -> &mut Shard {
        let place = self.place(key);
        self.locked.shard(place.shard)
    }

    /// Takes note of a key's hash, so that the command need not compute it again. The key is one of its arguments.
    #[inline]
    pub(crate) fn remember(&mut self, key: &[u8], hash: KeyHash) {
        let shard = self.locked.keyspace().shard_of(hash);
        self.known = (std::ptr::from_ref(key), Place { hash, shard });
    }

    #[inline]
    fn place(&self, key: &[u8]) -> Place {
        // Arguments live as long as the command runs, so that nothing else can be at the same address.
        let (known, place) = self.known;
        if std::ptr::eq(known, key) {
            return place;
        }
        let keyspace = self.locked.keyspace();
        let hash = keyspace.hash(key);
        Place { hash, shard: keyspace.shard_of(hash) }
    }

    /// The slot of a key that is there and alive; removes it if it has expired.
    #[inline]
    fn live(&mut self, place: Place, db: DbIndex, key: &[u8]) -> Option<Slot> {
        let now = self.expiry_now();
        match self.locked.shard(place.shard).find_live(db, place.hash, key, now) {
            Found::Live(slot) => Some(slot),
            Found::Absent => None,
            Found::Expired(slot) => {
                self.remove_expired(place.shard, db, slot);
                None
            }
        }
    }

    /// As [`live`](Self::live), counting a hit or a miss, and telling who wants to know of misses.
    #[inline]
    fn live_counted(&mut self, place: Place, db: DbIndex, key: &[u8]) -> Option<Slot> {
        let slot = self.live_silently(place, db, key);
        if slot.is_none() {
            self.engine.notify(db, Class::Miss, "keymiss", key);
        }
        slot
    }

    /// As [`live`](Self::live), counting a hit or a miss.
    #[inline]
    fn live_silently(&mut self, place: Place, db: DbIndex, key: &[u8]) -> Option<Slot> {
        let now = self.expiry_now();
        let shard = self.locked.shard(place.shard);
        let found = shard.find_live(db, place.hash, key, now);
        if let Found::Live(slot) = found {
            shard.counters.hits += 1;
            return Some(slot);
        }
        shard.counters.misses += 1;
        if let Found::Expired(slot) = found {
            self.remove_expired(place.shard, db, slot);
        }
        None
    }

    /// The time that expiries are held against. While a journal is replayed nothing expires: its own deletions say what did.
    #[inline]
    pub(crate) fn expiry_now(&self) -> UnixMillis {
        if self.origin == Origin::Replay { UnixMillis(0) } else { self.now }
    }

    #[cold]
    fn remove_expired(&mut self, shard: usize, db: DbIndex, slot: Slot) {
        let shard = self.locked.shard(shard);
        let Some(entry) = shard.take(db, slot) else { return };
        shard.counters.expired += 1;
        shard.signal(db, entry.key());
        self.engine.tracking.changed(&self.engine.registry, entry.key(), 0);
        if self.is_journalled() {
            self.session.effects.push(db, &[b"DEL", entry.key()]);
        }
        self.engine.notify(db, Class::Expired, "expired", entry.key());
        self.discard(entry);
    }

    /// Runs `with` while every shard is locked, for commands that lock by themselves ([`Locks::Later`]). Fails while a script
    /// that takes too long has them, for whoever waited then would keep the script from being ended.
    ///
    /// [`Locks::Later`]: crate::commands::Locks::Later
    pub(crate) fn with_every_shard<T>(
        &mut self,
        with: impl FnOnce(&Engine, &mut Locked<'_>) -> T,
    ) -> Result<T, CommandError> {
        if self.locked.is_all() {
            return Ok(with(self.engine, self.locked));
        }
        let mut locked = self.engine.keyspace.lock_all_unless_busy().ok_or(CommandError::BUSY)?;
        Ok(with(self.engine, &mut locked))
    }
}
