//! The near cache: decoded values in this process, shared as `Arc`s, and dropped when their keys change anywhere.
//!
//! It also keeps the last known values of regions with a stale window (`fail_safe.rs`).
//!
//! Invariants: a value is kept only if nothing was heard of its key, and nothing of all keys, since its read was sent; it is served only
//! while whoever tells of changes can be relied on, and never past what was left of its life when it was read. A set or an
//! invalidation by this process drops it before it returns. Deliberately absent: values of loads and sets: the message about
//! their own storing would drop them, so the next read brings them in.

mod held;
mod index;
mod shards;
mod sought;
mod store;
mod table;
mod typed;
mod wakes;

use std::any::Any;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use mtcache_link::{ClusterTracker, Moment, TrackOptions, Tracker, TrackingState};
use mtcache_node::Changes;
use tokio::runtime::Handle;
use tokio::sync::oneshot;

pub(crate) use self::held::{Held, Life, NearAge, Taken};
use self::shards::There;
use self::sought::{Base, ShortSought, Sought};
use self::store::Store;
pub(crate) use self::store::{Kept, Known, Ticket};
pub(crate) use self::typed::TypeNumber;
pub(crate) use self::wakes::Wake;
use crate::backend::Backend;
use crate::error::{Error, ErrorKind, Result};
use crate::events::{RemovalCause, Teller};
use crate::keys::{self, KeyParts};
use crate::read_probe::PROBE_PREFIX;

/// Default of [`CacheBuilder::near_max_bytes`](crate::CacheBuilder::near_max_bytes).
pub(crate) const NEAR_MAX_BYTES: u64 = 64 * 1024 * 1024;

/// How a near cache is made.
#[derive(Clone, Debug)]
pub(crate) struct NearOptions {
    pub(crate) max_bytes: u64,
    pub(crate) tracking: TrackOptions,
}

impl Default for NearOptions {
    fn default() -> Self {
        Self { max_bytes: NEAR_MAX_BYTES, tracking: TrackOptions::default() }
    }
}

pub(crate) struct Near {
    options: NearOptions,
    runtime: Handle,
    teller: Arc<Teller>,
    /// There once a region has asked.
    on: OnceLock<Arc<On>>,
}

/// A near cache that is on.
pub(crate) struct On {
    store: Arc<Store>,
    told_by: ToldBy,
}

/// Who tells of changes.
enum ToldBy {
    Server(Tracker),
    Cluster(ClusterTracker),
    Engine(Box<Changes>),
}

impl Near {
    /// Must be called inside a tokio runtime.
    pub(crate) fn new(options: NearOptions, teller: Arc<Teller>) -> Self {
        Self { options, runtime: Handle::current(), teller, on: OnceLock::new() }
    }

    /// Has changes of keys with this prefix heard, so that values of such keys can be kept.
    pub(crate) fn hear(&self, backend: &Backend, prefix: &str) -> Result<Arc<On>> {
        let on = self.on.get_or_init(|| {
            let store = Arc::new(Store::new(self.options.max_bytes, Arc::clone(&self.teller)));
            let told_by = match backend {
                Backend::Redis(backend) => {
                    let _runtime = self.runtime.enter();
                    let tracking = self.options.tracking.clone();
                    ToldBy::Server(Tracker::start(backend.link(), tracking, Arc::<Store>::clone(&store)))
                }
                Backend::Cluster(backend) => {
                    let _runtime = self.runtime.enter();
                    let tracking = self.options.tracking.clone();
                    let listener = Arc::<Store>::clone(&store);
                    ToldBy::Cluster(ClusterTracker::start(backend.link(), tracking, listener))
                }
                Backend::Embedded(backend) => ToldBy::Engine(Box::new(Changes::of(
                    Arc::clone(backend.node()),
                    Arc::<Store>::clone(&store),
                ))),
            };
            Arc::new(On { store, told_by })
        });
        match &on.told_by {
            ToldBy::Server(tracker) => tracker.add_prefix(prefix),
            ToldBy::Cluster(tracker) => tracker.add_prefix(prefix),
            ToldBy::Engine(changes) => {
                for prefix in [prefix, PROBE_PREFIX] {
                    changes.add_prefix(prefix.as_bytes()).map_err(|refusal| {
                        Error::new(
                            ErrorKind::Config,
                            format!("the engine does not tell of {prefix}: {refusal}"),
                        )
                    })?;
                }
            }
        }
        Ok(Arc::clone(on))
    }

    /// What is kept of a key, if it can be relied on now.
    pub(crate) fn get(&self, key: &[u8]) -> Option<Held> {
        let on = self.on.get()?;
        on.get(&on.store.sought(key)).map(|(held, _)| held.clone())
    }

    /// To be called before a read is sent whose value is to be kept; none if values cannot be kept now.
    pub(crate) fn begin(&self, key: &str) -> Option<Ticket> {
        let on = self.on.get()?;
        on.can_be_relied_on(key.as_bytes(), Moment::now()).then(|| on.store.begin(key.as_bytes()))
    }

    /// As [`begin`](Self::begin), for what will be served marked stale at the most, and so may be kept while nobody tells of changes.
    pub(crate) fn begin_unheard(&self, key: &str) -> Option<Ticket> {
        // Where nobody will ever tell, nobody would take it back.
        let can_be_told = !matches!(self.state(), TrackingState::Refused(_));
        self.on.get().filter(|_| can_be_told).map(|on| on.store.begin(key.as_bytes()))
    }

    /// For [`is_unheard_since`](Self::is_unheard_since), whether or not changes elsewhere are told: those made here always are.
    pub(crate) fn listen(&self, key: &str) -> Option<Ticket> {
        self.on.get().map(|on| on.store.begin(key.as_bytes()))
    }

    /// Whether nothing was heard of this key, nor of these tags, since its ticket was taken. A word about a neighbour may pass for one about it.
    pub(crate) fn is_unheard_since(&self, ticket: Ticket, key: &str, tags: &[Vec<u8>]) -> bool {
        self.on.get().is_some_and(|on| on.store.is_unheard_since(ticket, key.as_bytes(), tags))
    }

    /// What was last known of a key, fresh or not, whether or not changes are told now.
    pub(crate) fn last_known(&self, key: &str, now: Instant) -> Option<Held> {
        self.on.get()?.store.last_known(key.as_bytes(), now)
    }

    /// To be called when the backend has answered for this key and that is not kept: what is known may be older.
    pub(crate) fn forget(&self, key: &str) {
        if let Some(on) = self.on.get() {
            on.store.forget(key.as_bytes());
        }
    }

    /// To be called when the backend was found to have nothing under this key.
    pub(crate) fn is_missing(&self, key: &str, now: Instant) {
        if let Some(on) = self.on.get() {
            on.store.is_missing(key.as_bytes(), now);
        }
    }

    /// Drops what is kept of a key and keeps this instead, unless something was heard since its ticket was taken.
    pub(crate) fn replace(&self, ticket: Ticket, key: &[u8], kept: Kept) {
        if let Some(on) = self.on.get() {
            on.store.replace(ticket, key, kept);
        }
    }

    /// Keeps a value, unless something was heard since its ticket was taken.
    pub(crate) fn keep(&self, ticket: Ticket, key: &str, kept: Kept) -> Keeping {
        self.on.get().map_or(Keeping::Overtaken, |on| on.store.keep(ticket, key.as_bytes(), kept))
    }

    /// Wakes its owner when a message about this key comes; none if nobody would tell of it.
    pub(crate) fn wake(&self, key: &str) -> Option<Wake> {
        let on = self.on.get()?;
        on.can_be_relied_on(key.as_bytes(), Moment::now()).then(|| on.store.wake(key.as_bytes()))
    }

    pub(crate) fn drop_key(&self, key: &[u8], cause: RemovalCause) {
        if let Some(on) = self.on.get() {
            on.store.drop_key(key, cause);
        }
    }

    /// The stripes of tags, by the keys of their tokens.
    pub(crate) fn tag_stripes(&self, keys: &[Vec<u8>]) -> Option<Arc<[u16]>> {
        let on = self.on.get().filter(|_| !keys.is_empty())?;
        Some(keys.iter().map(|key| on.store.tag_stripe(key)).collect())
    }

    pub(crate) fn drop_prefix(&self, prefix: &str) {
        if let Some(on) = self.on.get() {
            on.store.drop_prefix(prefix.as_bytes());
        }
    }

    pub(crate) fn drop_all(&self) {
        if let Some(on) = self.on.get() {
            on.store.drop_all();
        }
    }

    /// The moment at which this key will have been dropped because of a message about it; none if nobody tells.
    pub(crate) fn await_drop(&self, key: &str) -> Option<oneshot::Receiver<Instant>> {
        self.on.get().map(|on| on.store.await_drop(key.as_bytes()))
    }

    /// How long a change may go unheard.
    pub(crate) fn heartbeat(&self) -> Duration {
        self.options.tracking.heartbeat
    }

    pub(crate) fn runtime(&self) -> &Handle {
        &self.runtime
    }

    pub(crate) fn state(&self) -> TrackingState {
        match self.on.get().map(|on| &on.told_by) {
            None => TrackingState::Idle,
            Some(ToldBy::Server(tracker)) => tracker.state(),
            Some(ToldBy::Cluster(tracker)) => tracker.state(),
            Some(ToldBy::Engine(_)) => TrackingState::On,
        }
    }

    /// Entries and their bytes, as they are counted.
    pub(crate) fn size(&self) -> (u64, u64) {
        self.on.get().map_or((0, 0), |on| on.store.size())
    }
}

impl On {
    /// What is kept of a key, if it can be relied on now.
    fn get(&self, key: &Sought<'_>) -> Option<(There<'_>, Moment)> {
        let held = self.store.find(key)?;
        let now = Moment::now();
        let is_coherent = self.can_be_relied_on(key.key, now);
        // A tag's token is another primary's, maybe.
        if !is_coherent || held.has_tags() && !self.all_can_be_relied_on(now) {
            return None;
        }
        Some((self.store.fresh(key, held, now)?, now))
    }

    /// The same, and the same steps, where no more is to be done than there is to be for most: what hits are made of. None says nothing.
    #[allow(
        clippy::inline_always,
        reason = "what a hit is made of passes through memory wherever a call is left"
    )]
    #[inline(always)]
    fn take_at_once<T: Send + Sync + 'static>(
        &self,
        key: ShortSought<'_>,
        own: TypeNumber<T>,
    ) -> Option<Taken<T>> {
        let part = self.store.part(key);
        let held = part.get_at_once(key)?;
        // While its memory is on its way.
        let now = Moment::now();
        let is_coherent = match &self.told_by {
            ToldBy::Engine(_) => true,
            ToldBy::Server(tracker) => tracker.is_coherent(now),
            ToldBy::Cluster(_) => false,
        };
        if !is_coherent || !self.store.is_fresh(held, now) {
            return None;
        }
        held.take(own, now)
    }

    fn all_can_be_relied_on(&self, now: Moment) -> bool {
        match &self.told_by {
            ToldBy::Server(tracker) => tracker.is_coherent(now),
            ToldBy::Cluster(tracker) => tracker.is_coherent_everywhere(now),
            ToldBy::Engine(_) => true,
        }
    }

    fn can_be_relied_on(&self, key: &[u8], now: Moment) -> bool {
        match &self.told_by {
            ToldBy::Server(tracker) => tracker.is_coherent(now),
            ToldBy::Cluster(tracker) => tracker.is_coherent(key, now),
            ToldBy::Engine(_) => true,
        }
    }
}

/// The near cache of a region.
pub(crate) struct NearRegion {
    on: Arc<On>,
    /// As its keys begin, and hashed with the `:` that follows.
    base: String,
    begun: Base,
    /// Neither is it a cluster's, whose primaries are asked for by key, nor are its keys too long.
    may_be_at_once: bool,
}

impl NearRegion {
    /// Of keys that begin with this and a `:`.
    pub(crate) fn new(on: Arc<On>, base: &str) -> Self {
        let begun = on.store.base(&format!("{base}:"));
        let may_be_at_once = !begun.is_long() && !matches!(on.told_by, ToldBy::Cluster(_));
        Self { on, base: base.to_owned(), begun, may_be_at_once }
    }

    /// What is kept under a key with these parts, if it can be relied on now and is found at one look. None says nothing: it is to be asked for
    /// with [`take`](Self::take) then.
    ///
    /// These are two calls for who asks, because what one and the same variable has of both would pass through memory.
    #[allow(
        clippy::inline_always,
        reason = "what a hit is made of passes through memory wherever a call is left"
    )]
    #[inline(always)]
    pub(crate) fn take_at_once<T: Send + Sync + 'static>(
        &self,
        id: &(impl KeyParts + ?Sized),
        own: TypeNumber<T>,
    ) -> Option<Taken<T>> {
        debug_assert!(is_the_only_part(id), "`only_part` is not what `each_part` hands over");
        if self.may_be_at_once
            && let Some(part) = id.only_part()
            && let Some(key) = self.begun.then(part)
        {
            return self.on.take_at_once(key, own);
        }
        None
    }

    /// What is kept under a key with these parts, if it can be relied on now.
    #[inline(never)]
    pub(crate) fn take<T: Send + Sync + 'static>(
        &self,
        id: &(impl KeyParts + ?Sized),
        own: TypeNumber<T>,
    ) -> Option<Taken<T>> {
        keys::with_joined(&self.base, id, |key| {
            let (held, now) = self.on.get(&self.on.store.sought(key))?;
            held.take(own, now)
        })
    }
}

fn is_the_only_part(id: &(impl KeyParts + ?Sized)) -> bool {
    let Some(only) = id.only_part() else { return true };
    let mut parts = 0;
    let mut is_equal = true;
    id.each_part(&mut |part| {
        parts += 1;
        is_equal &= part == only;
    });
    parts == 1 && is_equal
}

/// What became of a value that was to be kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Keeping {
    Kept,
    /// Its key changed, or may have, while it was on its way.
    Overtaken,
    TooLarge,
}

/// The bytes that a value of this type counts for, by its stored form: what it takes in memory cannot be asked of it.
pub(crate) fn weight<T: Any>(key: &str, stored_bytes: usize) -> u64 {
    const PER_ENTRY: usize = 160;
    (PER_ENTRY + key.len() + size_of::<T>() + 2 * stored_bytes) as u64
}

/// How long a value is kept at the most. A millisecond less than was left: the backend counts whole ones of a clock it has read before.
pub(crate) fn life(left: crate::ttl::TimeLeft, region: Duration) -> Option<Duration> {
    match left {
        crate::ttl::TimeLeft::For(left) => Some(left.saturating_sub(Duration::from_millis(1)).min(region)),
        crate::ttl::TimeLeft::Forever => Some(region),
        // It was not there a moment before: what it has left is not known.
        crate::ttl::TimeLeft::Absent => None,
    }
}
