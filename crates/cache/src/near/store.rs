//! What is kept, bounded by bytes.
//!
//! Invariants: `keep` and `drop_key` of one key exclude each other, so that a value whose key was dropped after its ticket was taken is
//! never there, not for a moment; after `drop_all` no entry of before is served. What is kept past its life is given to nobody who asks
//! for what is fresh. Deliberately absent: whether anybody tells of changes, and who has to go (`table.rs`).

use std::collections::HashMap;
use std::fmt;
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::time::Instant;

use mtcache_link::{Listener, Moment};
use mtcache_node::ChangeListener;
use parking_lot::{Mutex, RwLockReadGuard};
use tokio::sync::oneshot;

use super::Keeping;
use super::held::{Held, Rest};
use super::shards::{Shards, There};
use super::sought::{Base, ShortSought, Sought};
use super::table::{Gone, Table};
use super::typed::Typed;
use super::wakes::{Wake, Wakes};
use crate::events::{Event, RemovalCause, Teller};
use crate::read::Age;
use crate::read_probe::PROBE_PREFIX;
use crate::tags::TAG_KEY_PREFIX;
use crate::told::Told;

/// Keys share so many locks, and so many counts of what was heard: a fill is dropped too when a neighbour's key changes.
const STRIPES: usize = 1024;
/// The part of a shard's bytes that one entry may have.
const ENTRY_SHARE: u64 = 4;

/// A value that is to be kept.
pub(crate) struct Kept {
    pub(crate) value: Arc<dyn Typed>,
    /// Its age at `read`, which is before its read was sent.
    pub(crate) age: Age,
    pub(crate) read: Instant,
    /// It is fresh until then.
    pub(crate) expires: Instant,
    pub(crate) weight: u64,
    /// It stands for "the source has none".
    pub(crate) is_none: bool,
    /// The stripes of the tags that it carries.
    pub(crate) tags: Option<Arc<[u16]>>,
    /// Of its stored form, see `checker.rs`; 0 where it is not to be checked.
    pub(crate) digest: u64,
    /// What it is past its life; none where nothing may be served stale.
    pub(crate) known: Option<Arc<Known>>,
}

/// A last known value.
#[derive(Debug)]
pub(crate) struct Known {
    /// It may be served, marked stale, until then.
    pub(crate) until: Instant,
    /// The backend has it until then, unless it is removed.
    pub(crate) lives_until: Instant,
    pub(crate) stored: Box<[u8]>,
    /// The one message that may be about its expiring has come, or none can be.
    pub(crate) expiry_is_told: AtomicBool,
}

impl Kept {
    /// One of now for tests, which lives for an hour and of which nothing else is known.
    #[cfg(test)]
    pub(super) fn plain(value: Arc<dyn Typed>, weight: u64) -> Self {
        let read = Instant::now();
        let expires = read + std::time::Duration::from_hours(1);
        let (age, is_none) = (Age::Unknown, false);
        Self { value, age, read, expires, weight, is_none, tags: None, digest: 0, known: None }
    }

    /// What its stored form counts for.
    pub(crate) fn known_bytes(&self) -> u64 {
        self.known.as_ref().map_or(0, |known| known.stored.len() as u64)
    }
}

/// What had been heard when a read was sent.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ticket {
    pub(super) epoch: u32,
    pub(super) heard: u64,
    pub(super) tags_heard: u64,
}

pub(crate) struct Store {
    /// Grows when any key may have changed.
    epoch: AtomicU32,
    /// Each grows when one of its keys has changed.
    heard: Box<[Mutex<u64>]>,
    /// How often a tag was heard of.
    tags_heard: AtomicU64,
    /// The number of the last time for each stripe of tags. Nothing lists who carries a tag: a value that does is held against this
    /// when it is asked for.
    tags: Box<[AtomicU64]>,
    hasher: RandomState,
    entries: Shards,
    teller: Arc<Teller>,
    /// Who waits for probes to be dropped, by their keys.
    awaited: Mutex<HashMap<Box<[u8]>, oneshot::Sender<Instant>>>,
    max_entry: u64,
    wakes: Arc<Wakes>,
}

fn tell_dropped(teller: &Teller, key: &[u8], cause: RemovalCause) {
    teller.tell(|| Event::NearDropped { key: String::from_utf8_lossy(key), cause });
}

impl Store {
    pub(crate) fn new(max_bytes: u64, teller: Arc<Teller>) -> Self {
        let entries = Shards::new(max_bytes);
        Self {
            epoch: AtomicU32::new(0),
            heard: (0..STRIPES).map(|_| Mutex::new(0)).collect(),
            tags_heard: AtomicU64::new(0),
            tags: (0..STRIPES).map(|_| AtomicU64::new(0)).collect(),
            hasher: RandomState::new(),
            max_entry: (entries.shard_bytes() / ENTRY_SHARE).min(Held::MAX_BYTES),
            entries,
            teller,
            wakes: Arc::default(),
            awaited: Mutex::default(),
        }
    }

    /// The beginning of keys that are looked for often.
    pub(crate) fn base(&self, base: &str) -> Base {
        self.entries.base(base.as_bytes())
    }

    pub(crate) fn sought<'a>(&self, key: &'a [u8]) -> Sought<'a> {
        self.entries.sought(key)
    }

    /// What is kept of a key, whether or not it may be served.
    pub(crate) fn find(&self, key: &Sought<'_>) -> Option<There<'_>> {
        self.entries.get(key)
    }

    /// The entries among which a key is, if it is kept.
    #[allow(
        clippy::inline_always,
        reason = "what a hit is made of passes through memory wherever a call is left"
    )]
    #[inline(always)]
    pub(crate) fn part(&self, key: ShortSought<'_>) -> RwLockReadGuard<'_, Table> {
        self.entries.part(key)
    }

    /// What was found, if it is fresh; to be asked last, as [`is_fresh`](Self::is_fresh).
    pub(crate) fn fresh<'a>(&self, key: &Sought<'_>, held: There<'a>, now: Moment) -> Option<There<'a>> {
        if self.is_fresh(&held, now) {
            return Some(held);
        }
        drop(held);
        self.drop_over(key, now);
        None
    }

    /// Whether what was found is fresh. To be asked last: what was heard before the tracker became coherent is known here by then.
    #[allow(
        clippy::inline_always,
        reason = "what a hit is made of passes through memory wherever a call is left"
    )]
    #[inline(always)]
    pub(crate) fn is_fresh(&self, held: &Held, now: Moment) -> bool {
        self.stands(held) && held.is_fresh(now)
    }

    /// Whether nothing was heard since its read was sent that may be about all keys, or a tag of it.
    #[allow(
        clippy::inline_always,
        reason = "what a hit is made of passes through memory wherever a call is left"
    )]
    #[inline(always)]
    fn stands(&self, held: &Held) -> bool {
        held.epoch == self.epoch.load(Ordering::Acquire) && !(held.has_tags() && self.has_fallen(held))
    }

    /// Drops what is kept of a key if it is over: one of its tags has fallen, or it is of no use any more. What is of an epoch before was told
    /// of when that ended.
    #[cold]
    fn drop_over(&self, key: &Sought<'_>, now: Moment) {
        let mut cause = None;
        let over = self.entries.remove_sought(key, |held| {
            if held.epoch != self.epoch.load(Ordering::Acquire) {
                return true;
            }
            cause = if self.has_fallen(held) {
                Some(RemovalCause::Invalidated)
            } else {
                held.is_over(now).then_some(RemovalCause::Expired)
            };
            cause.is_some()
        });
        if let (Some(_), Some(cause)) = (over, cause) {
            tell_dropped(&self.teller, key.key, cause);
        }
    }

    /// What was last known of a key, fresh or not.
    pub(crate) fn last_known(&self, key: &[u8], now: Instant) -> Option<Held> {
        let held = self.entries.get(&self.entries.sought(key))?;
        (self.stands(&held) && now < held.known()?.until).then(|| held.clone())
    }

    /// The backend has answered for this key, and what it said is not kept: what is known may be older.
    pub(crate) fn forget(&self, key: &[u8]) {
        let _forgotten = {
            // Nothing was heard: reads that are under way may be kept.
            let _heard = self.stripe(key).lock();
            self.entries.remove_if(key, |held| held.known().is_some())
        };
    }

    /// The backend has nothing under this key. What should still live there was removed, and the message about that has yet to come.
    pub(crate) fn is_missing(&self, key: &[u8], now: Instant) {
        let is_known = |held: &Held| held.known().is_some_and(|known| now < known.lives_until);
        let held = self.entries.get(&self.entries.sought(key));
        let is_there = held.is_some_and(|held| held.is_fresh(Moment::now()) || is_known(&held));
        if is_there {
            self.drop_key(key, RemovalCause::Invalidated);
        }
    }

    /// Whether one of its tags was heard of since its read was sent.
    #[inline(never)]
    fn has_fallen(&self, held: &Held) -> bool {
        held.rest()
            .is_some_and(|Rest { tags, tags_heard, .. }| self.have_fallen(tags.as_deref(), *tags_heard))
    }

    /// Whether one of these tags was heard of since then.
    fn have_fallen(&self, tags: Option<&[u16]>, since: u64) -> bool {
        let mut tags = tags.unwrap_or_default().iter();
        tags.any(|stripe| self.tags[usize::from(*stripe)].load(Ordering::Acquire) > since)
    }

    pub(crate) fn begin(&self, key: &[u8]) -> Ticket {
        let heard = self.stripe(key).lock();
        Ticket {
            epoch: self.epoch.load(Ordering::Acquire),
            heard: *heard,
            tags_heard: self.tags_heard.load(Ordering::Acquire),
        }
    }

    /// Whether nothing was heard of a key or of these tags, by the keys of their tokens, since its ticket was taken.
    pub(crate) fn is_unheard_since(&self, ticket: Ticket, key: &[u8], tags: &[Vec<u8>]) -> bool {
        let stripes: Vec<u16> = tags.iter().map(|tag| self.tag_stripe(tag)).collect();
        *self.stripe(key).lock() == ticket.heard
            && self.epoch.load(Ordering::Acquire) == ticket.epoch
            && !self.have_fallen(Some(&stripes), ticket.tags_heard)
    }

    pub(crate) fn keep(&self, ticket: Ticket, key: &[u8], kept: Kept) -> Keeping {
        if kept.weight > self.max_entry {
            return Keeping::TooLarge;
        }
        let heard = self.stripe(key).lock();
        if *heard != ticket.heard || self.epoch.load(Ordering::Acquire) != ticket.epoch {
            return Keeping::Overtaken;
        }
        if self.have_fallen(kept.tags.as_deref(), ticket.tags_heard) {
            return Keeping::Overtaken;
        }
        // Should the epoch grow now, nobody is served the entry, because it is of the epoch before. The same holds for its tags.
        let gone = self.entries.insert(key, Held::new(ticket, kept));
        drop(heard);
        self.tell_gone(&gone);
        Keeping::Kept
    }

    /// Drops what is kept of a key and keeps this instead, unless something was heard since its ticket was taken.
    pub(crate) fn replace(&self, ticket: Ticket, key: &[u8], kept: Kept) {
        let weight = kept.weight;
        let held = Held::new(ticket, kept);
        let (_replaced, gone, _refused) = {
            let mut heard = self.stripe(key).lock();
            let stands = *heard == ticket.heard && self.stands(&held) && weight <= self.max_entry;
            *heard += 1;
            let replaced = self.entries.remove(key);
            if stands {
                (replaced, Some(self.entries.insert(key, held)), None)
            } else {
                (replaced, None, Some(held))
            }
        };
        if let Some(gone) = gone {
            self.tell_gone(&gone);
        }
    }

    /// Drops what is kept of a key. Of the key of a tag's token: all that carries the tag.
    pub(crate) fn drop_key(&self, key: &[u8], cause: RemovalCause) {
        if key.starts_with(TAG_KEY_PREFIX.as_bytes()) {
            let number = self.tags_heard.fetch_add(1, Ordering::AcqRel) + 1;
            self.tags[usize::from(self.tag_stripe(key))].fetch_max(number, Ordering::AcqRel);
            return;
        }
        let dropped = {
            let mut heard = self.stripe(key).lock();
            *heard += 1;
            self.entries.remove(key)
        };
        // Its value may be the last of its kind and take long to take apart: not under the lock.
        if key.starts_with(PROBE_PREFIX.as_bytes()) {
            // Ours or another process': a probe is nobody's value, and no event.
            if let Some(waiting) = self.awaited.lock().remove(key) {
                let _ = waiting.send(Instant::now());
            }
        } else if dropped.is_some() {
            tell_dropped(&self.teller, key, cause);
        }
    }

    pub(crate) fn await_drop(&self, key: &[u8]) -> oneshot::Receiver<Instant> {
        let (sender, receiver) = oneshot::channel();
        let mut awaited = self.awaited.lock();
        awaited.retain(|_, waiting| !waiting.is_closed());
        awaited.insert(key.into(), sender);
        receiver
    }

    pub(crate) fn drop_prefix(&self, prefix: &[u8]) {
        self.drop_some(&|key| key.starts_with(prefix));
    }

    /// Drops the entries whose keys are meant, and the reads of any that are under way.
    pub(crate) fn drop_some(&self, is_meant: &dyn Fn(&[u8]) -> bool) {
        for heard in &self.heard {
            *heard.lock() += 1;
        }
        for key in self.entries.remove_all(is_meant).keys() {
            tell_dropped(&self.teller, key, RemovalCause::Invalidated);
        }
    }

    pub(crate) fn drop_all(&self) {
        self.epoch.fetch_add(1, Ordering::AcqRel);
        self.entries.clear();
        self.teller.tell(|| Event::NearCleared {});
    }

    fn tell_gone(&self, gone: &Gone) {
        for key in gone.keys() {
            tell_dropped(&self.teller, key, RemovalCause::Evicted);
        }
    }

    pub(crate) fn wake(&self, key: &[u8]) -> Wake {
        self.wakes.wake(key)
    }

    fn heard(&self, key: &[u8]) {
        if let Some(told) = Told::read(key) {
            match told {
                Told::Gone(key) => self.drop_key(key, RemovalCause::Invalidated),
                Told::Cleared(prefix) => self.drop_prefix(prefix),
            }
        } else if !self.outlives_its_expiry(key) {
            self.drop_key(key, RemovalCause::Invalidated);
        }
        self.wakes.changed(key);
    }

    /// Whether the message about this key may be about its expiring, after which its value stays known. The first that comes when its life must
    /// be over is taken for that, and no other: before it, it must be a change; after it, something else was stored meanwhile.
    fn outlives_its_expiry(&self, key: &[u8]) -> bool {
        let mut heard = self.stripe(key).lock();
        let known = self.entries.get(&self.entries.sought(key)).and_then(|held| held.shared_known());
        let Some(known) = known else { return false };
        let now = Instant::now();
        if now < known.lives_until || now >= known.until || known.expiry_is_told.swap(true, Ordering::Relaxed)
        {
            return false;
        }
        // What is being read meanwhile is not kept, as after any message.
        *heard += 1;
        true
    }

    pub(crate) fn size(&self) -> (u64, u64) {
        self.entries.size()
    }

    /// The stripe of a tag, by the key of its token. Tags of one stripe fall together.
    pub(crate) fn tag_stripe(&self, key: &[u8]) -> u16 {
        (self.hasher.hash_one(key) as usize % STRIPES) as u16
    }

    fn stripe(&self, key: &[u8]) -> &Mutex<u64> {
        &self.heard[self.hasher.hash_one(key) as usize % STRIPES]
    }
}

impl Listener for Store {
    fn changed(&self, key: &[u8]) {
        self.heard(key);
    }

    fn all_changed(&self) {
        self.drop_all();
    }

    /// Nothing is served as fresh now, for the tracker is not coherent; what was known is known.
    fn silence(&self) {}

    fn some_changed(&self, may_have: &dyn Fn(&[u8]) -> bool) {
        // Whose tokens are among the keys nobody lists, so every tag counts as heard of.
        let number = self.tags_heard.fetch_add(1, Ordering::AcqRel) + 1;
        for tag in &self.tags {
            tag.fetch_max(number, Ordering::AcqRel);
        }
        self.drop_some(may_have);
    }
}

impl ChangeListener for Store {
    fn changed(&self, key: &[u8]) {
        self.heard(key);
    }

    fn all_changed(&self) {
        self.drop_all();
    }
}

impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Store").field("size", &self.size()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::typed::TypeNumber;
    use super::*;

    const MIB: u64 = 1024 * 1024;

    fn kept(value: u64, weight: u64) -> Kept {
        Kept::plain(Arc::new(value), weight)
    }

    fn get(store: &Store, key: &str) -> Option<u64> {
        let sought = store.sought(key.as_bytes());
        store
            .fresh(&sought, store.find(&sought)?, Moment::now())?
            .value(TypeNumber::<u64>::own())
            .map(|value| *value)
    }

    #[test]
    fn a_value_that_was_overtaken_is_not_kept() {
        let store = Store::new(MIB, Arc::new(Teller::new(None)));
        let drops: [&dyn Fn(); 3] =
            [&|| store.drop_key(b"r:k", RemovalCause::Deleted), &|| store.drop_prefix(b"r:"), &|| {
                store.drop_all();
            }];
        for drop in drops {
            let ticket = store.begin(b"r:k");
            drop();
            assert_eq!(store.keep(ticket, b"r:k", kept(1, 100)), Keeping::Overtaken);
            assert_eq!(get(&store, "r:k"), None);
            let ticket = store.begin(b"r:k");
            assert_eq!(store.keep(ticket, b"r:k", kept(2, 100)), Keeping::Kept);
            assert_eq!(get(&store, "r:k"), Some(2));
            drop();
            assert_eq!(get(&store, "r:k"), None);
        }
    }

    #[test]
    fn another_prefix_is_left_alone() {
        let store = Store::new(MIB, Arc::new(Teller::new(None)));
        store.keep(store.begin(b"a:k"), b"a:k", kept(1, 100));
        store.keep(store.begin(b"b:k"), b"b:k", kept(2, 100));
        store.drop_prefix(b"a:");
        assert_eq!((get(&store, "a:k"), get(&store, "b:k")), (None, Some(2)));
    }

    #[test]
    fn what_carries_a_tag_falls_with_it_and_is_not_kept_if_it_fell_on_the_way() {
        let store = Store::new(MIB, Arc::new(Teller::new(None)));
        let a = b"mtcache:tag:{a}".as_slice();
        let others = (0..).map(|n| format!("mtcache:tag:{{{n}}}").into_bytes());
        let b = others.into_iter().find(|key| store.tag_stripe(key) != store.tag_stripe(a)).unwrap();
        let b = b.as_slice();
        let tagged = |store: &Store, tags: &[&[u8]]| {
            let tags = tags.iter().map(|tag| store.tag_stripe(tag)).collect();
            Kept { tags: Some(tags), ..kept(1, 100) }
        };
        store.keep(store.begin(b"k"), b"k", tagged(&store, &[a, b]));
        store.keep(store.begin(b"l"), b"l", tagged(&store, &[b]));
        assert_eq!((get(&store, "k"), get(&store, "l")), (Some(1), Some(1)));
        store.drop_key(a, RemovalCause::Invalidated);
        assert_eq!((get(&store, "k"), get(&store, "l")), (None, Some(1)));
        assert_eq!(store.size().0, 1);
        let ticket = store.begin(b"k");
        store.drop_key(b, RemovalCause::Invalidated);
        assert_eq!(store.keep(ticket, b"k", tagged(&store, &[a, b])), Keeping::Overtaken);
        assert_eq!(store.keep(ticket, b"k", tagged(&store, &[a])), Keeping::Kept);
        assert_eq!((get(&store, "k"), get(&store, "l")), (Some(1), None));
    }

    #[test]
    fn the_bytes_are_bounded_and_what_is_too_large_is_not_kept() {
        let store = Store::new(MIB, Arc::new(Teller::new(None)));
        for n in 0..10_000_u64 {
            let key = n.to_string();
            store.keep(store.begin(key.as_bytes()), key.as_bytes(), kept(n, 1000));
        }
        let (entries, bytes) = store.size();
        assert!(bytes <= MIB && entries > 500, "{entries} entries, {bytes} bytes");
        assert_eq!(store.keep(store.begin(b"k"), b"k", kept(1, MIB / 2)), Keeping::TooLarge);
    }

    #[test]
    fn an_expired_value_is_not_served() {
        let store = Store::new(MIB, Arc::new(Teller::new(None)));
        let mut short = kept(1, 100);
        short.expires = short.read;
        store.keep(store.begin(b"k"), b"k", short);
        assert_eq!(get(&store, "k"), None);
        assert_eq!(store.size().0, 0);
    }

    fn known(store: &Store) -> bool {
        store.last_known(b"k", Instant::now()).is_some()
    }

    fn remembered(value: u64, left: Duration) -> Kept {
        let kept = kept(value, 100);
        let expires = kept.read + left;
        let known = Known {
            until: expires + Duration::from_hours(1),
            lives_until: expires,
            stored: Box::default(),
            expiry_is_told: AtomicBool::new(false),
        };
        Kept { expires, known: Some(Arc::new(known)), ..kept }
    }

    fn expired(store: &Store) {
        store.keep(store.begin(b"k"), b"k", remembered(1, Duration::ZERO));
        assert_eq!(get(store, "k"), None);
        assert!(known(store));
    }

    #[test]
    fn what_expired_is_known_until_more_is_heard() {
        let store = Store::new(MIB, Arc::new(Teller::new(None)));
        expired(&store);
        store.heard(b"k");
        assert!(known(&store), "the first message may be about its expiring");
        store.heard(b"k");
        assert!(!known(&store), "the second is about something else");
    }

    #[test]
    fn what_changed_or_is_missing_before_it_expired_is_not_known() {
        let store = Store::new(MIB, Arc::new(Teller::new(None)));
        let long = Duration::from_hours(1);
        for change in
            [|store: &Store| store.heard(b"k"), |store: &Store| store.is_missing(b"k", Instant::now())]
        {
            store.keep(store.begin(b"k"), b"k", remembered(1, long));
            assert!(known(&store));
            change(&store);
            assert!(!known(&store));
        }
        expired(&store);
        store.is_missing(b"k", Instant::now());
        assert!(known(&store), "it had expired");
    }

    #[test]
    fn what_was_invalidated_after_it_expired_is_not_known() {
        let store = Store::new(MIB, Arc::new(Teller::new(None)));
        for told in [Told::Gone(b"k"), Told::Cleared(b""), Told::Cleared(b"k")] {
            expired(&store);
            store.heard(&told.key());
            assert!(!known(&store), "{told:?}");
        }
        expired(&store);
        store.heard(&Told::Cleared(b"l").key());
        assert!(known(&store));
    }

    #[test]
    fn what_is_forgotten_is_not_known_and_overtakes_nothing() {
        let store = Store::new(MIB, Arc::new(Teller::new(None)));
        expired(&store);
        let ticket = store.begin(b"k");
        store.forget(b"k");
        assert!(!known(&store));
        assert_eq!(store.keep(ticket, b"k", remembered(2, Duration::ZERO)), Keeping::Kept);
    }

    #[test]
    fn in_silence_all_is_known_until_it_ends() {
        let store = Store::new(MIB, Arc::new(Teller::new(None)));
        expired(&store);
        Listener::silence(&store);
        assert!(known(&store));
        Listener::all_changed(&store);
        assert!(!known(&store));
    }

    #[test]
    fn what_replaces_it_has_to_be_newer_than_what_was_heard() {
        let store = Store::new(MIB, Arc::new(Teller::new(None)));
        let ticket = store.begin(b"k");
        expired(&store);
        store.replace(ticket, b"k", remembered(2, Duration::ZERO));
        let kept = store.last_known(b"k", Instant::now()).unwrap();
        assert_eq!(
            kept.value(TypeNumber::<u64>::own()).as_deref(),
            Some(&2),
            "and not what was known before"
        );
        let ticket = store.begin(b"k");
        store.heard(b"k");
        store.replace(ticket, b"k", remembered(3, Duration::ZERO));
        assert!(!known(&store), "neither is");
    }

    /// Looks, as it goes, whether a stripe is locked.
    struct Watching {
        store: std::sync::Weak<Store>,
        was_locked: Arc<AtomicBool>,
    }

    impl Drop for Watching {
        fn drop(&mut self) {
            if self.store.upgrade().is_some_and(|store| store.heard.iter().any(Mutex::is_locked)) {
                self.was_locked.store(true, Ordering::Relaxed);
            }
        }
    }

    #[test]
    fn nothing_is_taken_apart_while_its_key_is_locked() {
        let store = Arc::new(Store::new(MIB, Arc::new(Teller::new(None))));
        let was_locked = Arc::new(AtomicBool::new(false));
        let watching = |weight| {
            let value = Watching { store: Arc::downgrade(&store), was_locked: Arc::clone(&was_locked) };
            Kept { value: Arc::new(value), ..kept(1, weight) }
        };
        let check = |what: &str| assert!(!was_locked.swap(false, Ordering::Relaxed), "{what}");
        store.keep(store.begin(b"k"), b"k", watching(1));
        store.keep(store.begin(b"k"), b"k", watching(1));
        check("kept anew");
        store.drop_key(b"k", RemovalCause::Deleted);
        check("dropped");
        let ticket = store.begin(b"k");
        store.drop_key(b"k", RemovalCause::Deleted);
        store.keep(ticket, b"k", watching(1));
        check("overtaken");
        store.replace(store.begin(b"k"), b"k", watching(1));
        store.replace(store.begin(b"k"), b"k", watching(1));
        check("replaced");
        store.replace(ticket, b"k", watching(1));
        check("what does not replace it");
    }
}
