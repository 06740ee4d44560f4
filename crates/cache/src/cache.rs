//! The cache: what a service opens once and clones.
//!
//! Invariants: every backend call passes `backend()`, which replays waiting invalidations first; every write of a
//! cached value is a `Writing`, so that one which fails or is dropped queues its key. Deliberately absent: the steps of a load (`read_through.rs`).

mod replay;

use std::borrow::Cow;
use std::collections::{BTreeSet, HashMap, HashSet};
use std::fmt;
use std::sync::{Arc, Weak};
use std::time::Duration;

use mtcache_link::{BreakerState, Command, Reply, Script, TrackingState};
use parking_lot::{Mutex, RwLock};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::backend::{Backend, Bytes, CachedKey, Entry, When};
use crate::builder::CacheBuilder;
use crate::checker::Checks;
use crate::codec;
use crate::collections::{HashView, SortedSetView};
use crate::control::{RegionControl, RegionMode};
use crate::error::{Error, ErrorKind, Outcome, Result};
use crate::events::{Event, EventStream, Observer, RemovalCause, Teller};
use crate::framed::View;
use crate::health::Troubles;
use crate::keys;
use crate::load::Storing;
use crate::near::{Near, NearOptions, NearRegion};
use crate::newer;
use crate::options::{Condition, SetOptions};
use crate::pending::Pending;
use crate::read_probe::Measured;
use crate::region::{Region, RegionPolicy, RegionState};
use crate::single_flight::Flights;
use crate::stats::{self, Counters, RegionStats};
use crate::tags::{self, TagBook, Tags};
use crate::told;
use crate::ttl::{TimeLeft, Ttl};
use crate::writing::{Keyed, Ledger, Writing};

/// How many keys one atomic step of a bulk write touches; more would keep the backend from others for too long.
const BULK_STEP: usize = 1000;
/// Commands that change the state of the connection or wait on it: with one connection for all callers they would hit everybody.
const OF_A_CONNECTION: &[&str] = &[
    "ASKING",
    "AUTH",
    "BLMOVE",
    "BLMPOP",
    "BLPOP",
    "BRPOP",
    "BRPOPLPUSH",
    "BZMPOP",
    "BZPOPMAX",
    "BZPOPMIN",
    "CLIENT",
    "DISCARD",
    "EXEC",
    "HELLO",
    "MONITOR",
    "MULTI",
    "PSUBSCRIBE",
    "PSYNC",
    "PUNSUBSCRIBE",
    "QUIT",
    "READONLY",
    "READWRITE",
    "REPLCONF",
    "RESET",
    "SELECT",
    "SSUBSCRIBE",
    "SUBSCRIBE",
    "SUNSUBSCRIBE",
    "SYNC",
    "UNSUBSCRIBE",
    "UNWATCH",
    "WAIT",
    "WAITAOF",
    "WATCH",
    "XREAD",
    "XREADGROUP",
];
/// The name under which what is not of a region is counted.
const NO_REGION: &str = "keys";

/// A cache over one backend. Cheap to clone; all clones are the same cache.
///
/// ```no_run
/// # async fn example() -> mtcache_cache::Result<()> {
/// use std::time::Duration;
/// use mtcache_cache::{Cache, SetOptions};
///
/// let cache = Cache::connect("redis://localhost:6379").await?;
/// cache.set("greeting", "hello", SetOptions::ttl(Duration::from_secs(60))).await?;
/// let greeting: Option<String> = cache.get("greeting").await?;
/// assert_eq!(greeting.as_deref(), Some("hello"));
/// # Ok(()) }
/// ```
#[derive(Clone)]
pub struct Cache(Arc<Shared>);

/// A cache that may have gone.
pub(crate) struct WeakCache(Weak<Shared>);

impl WeakCache {
    pub(crate) fn upgrade(&self) -> Option<Cache> {
        self.0.upgrade().map(Cache)
    }
}

struct Shared {
    backend: Backend,
    prefix: String,
    ledger: Ledger,
    teller: Arc<Teller>,
    /// Under which this process publishes its counters.
    identity: String,
    measured: Measured,
    checks: Checks,
    reports_metrics: bool,
    names: Mutex<HashMap<String, Named>>,
    /// Stands for the keys that are of no region.
    no_region: Arc<RegionState>,
    /// What the keys begin with of which processes keep last known values.
    remembered: RwLock<BTreeSet<String>>,
}

/// What the regions of one name share.
#[derive(Default)]
struct Named {
    counters: Arc<Counters>,
    /// Those that are still there, and some that were.
    regions: Vec<Weak<RegionState>>,
}

impl Cache {
    /// Opens a cache with the defaults. A backend that is down is not an error; one that refuses our credentials is.
    pub async fn connect(url: &str) -> Result<Self> {
        Self::builder(url).open().await
    }

    /// Options for opening a cache. URLs: `embedded://`, `embedded:///directory`, `redis://host:port/db`,
    /// `rediss://...` for TLS, `unix:///path`; docs/connections.md has them all.
    pub fn builder(url: impl Into<String>) -> CacheBuilder {
        CacheBuilder::new(url)
    }

    pub(crate) fn with(
        backend: Backend,
        prefix: String,
        observer: Option<Observer>,
        near: NearOptions,
        reports_metrics: bool,
    ) -> Self {
        let counters = Arc::new(Counters::default());
        let no_region = Arc::new(RegionState::of_plain_keys(NO_REGION, &prefix, Arc::clone(&counters)));
        let teller = Arc::new(Teller::new(observer));
        Self(Arc::new(Shared {
            backend,
            prefix,
            ledger: Ledger::new(Near::new(near, Arc::clone(&teller))),
            teller,
            identity: format!("{}-{:016x}", std::process::id(), rand::random::<u64>()),
            measured: Measured::new(),
            checks: Checks::default(),
            reports_metrics,
            names: Mutex::new(HashMap::from([(
                NO_REGION.to_owned(),
                Named { counters, regions: Vec::new() },
            )])),
            no_region,
            remembered: RwLock::default(),
        }))
    }

    /// A region of this cache. Regions of one name share their counters, and those of one key base what is kept near.
    pub fn region<T: 'static>(&self, policy: RegionPolicy) -> Result<Region<T>> {
        let state = {
            let mut by_name = self.0.names.lock();
            let named = by_name.entry(policy.name.clone()).or_default();
            named.counters.control.check_every(policy.check_every);
            let state = Arc::new(RegionState::new(policy, &self.0.prefix, Arc::clone(&named.counters))?);
            named.regions.retain(|region| region.strong_count() > 0);
            named.regions.push(Arc::downgrade(&state));
            state
        };
        self.hear(&state)?;
        let tags = Arc::new(Tags::new(state.policy.tags()?, &self.0.prefix)?);
        Ok(Region::new(self.clone(), state, Arc::new(View::new(tags))))
    }

    /// Has changes of a region's keys heard, where values of it are kept in this process.
    fn hear(&self, state: &RegionState) -> Result<()> {
        let Some(prefix) = state.key_prefix().filter(|_| state.policy.near || state.hears_of_stale) else {
            return Ok(());
        };
        let near = self.near().hear(&self.0.backend, &prefix)?;
        if state.policy.near {
            let _ = state.near.set(NearRegion::new(near, &state.base));
        }
        if state.policy.framing.is_some() {
            self.near().hear(&self.0.backend, &tags::key_prefix(&self.0.prefix))?;
        }
        if state.hears_of_stale {
            for told in told::prefixes() {
                self.near().hear(&self.0.backend, &told)?;
            }
            self.0.remembered.write().insert(prefix);
        }
        Ok(())
    }

    /// The switches of the regions of this name; none if no region of it was ever opened. See [`RegionMode`](crate::RegionMode).
    pub fn control(&self, region: &str) -> Option<RegionControl> {
        let counters = match self.0.names.lock().get(region) {
            Some(named) if region != NO_REGION => Arc::clone(&named.counters),
            _ => return None,
        };
        Some(RegionControl::new(self.clone(), region.to_owned(), counters))
    }

    /// Everything that happens from now on, see [`Event`]. A stream that is not read in time misses the oldest events, and is told how
    /// many.
    pub fn events(&self) -> EventStream {
        self.0.teller.stream()
    }

    /// The view of one hash.
    pub fn hash(&self, key: &str) -> Result<HashView> {
        Ok(HashView::new(self.clone(), self.full_key(key)?))
    }

    /// The view of one sorted set.
    pub fn sorted_set(&self, key: &str) -> Result<SortedSetView> {
        Ok(SortedSetView::new(self.clone(), self.full_key(key)?))
    }

    /// Reads a key; `None` is a miss, and nothing else is.
    pub async fn get<T: DeserializeOwned>(&self, key: &str) -> Result<Option<T>> {
        self.get_bytes(key).await?.map(|bytes| codec::decode(&bytes)).transpose()
    }

    /// Reads a key's bytes as they are stored.
    pub async fn get_bytes(&self, key: &str) -> Result<Option<Vec<u8>>> {
        let key = self.full_key(key)?;
        let counters = &self.0.no_region.counters;
        let value = self.counted(self.backend().await)?.get(key.as_bytes()).await;
        let value = self.counted(value)?;
        stats::count(if value.is_some() { &counters.hits } else { &counters.misses });
        Ok(value)
    }

    /// Reads several keys, in the order asked for.
    pub async fn get_many<T: DeserializeOwned, K: AsRef<str>>(&self, keys: &[K]) -> Result<Vec<Option<T>>> {
        let values = self.get_many_bytes(keys).await?;
        values.into_iter().map(|value| value.map(|bytes| codec::decode(&bytes)).transpose()).collect()
    }

    /// Reads several keys' bytes as they are stored.
    pub async fn get_many_bytes<K: AsRef<str>>(&self, keys: &[K]) -> Result<Vec<Option<Vec<u8>>>> {
        if keys.is_empty() {
            return Ok(Vec::new());
        }
        let keys = self.full_keys(keys)?;
        let counters = &self.0.no_region.counters;
        let values = self.counted(self.backend().await)?.get_many(&keys).await;
        let values = self.counted(values)?;
        for value in &values {
            stats::count(if value.is_some() { &counters.hits } else { &counters.misses });
        }
        Ok(values)
    }

    /// Sets a key; says whether its condition let it be stored.
    pub async fn set<T: Serialize + ?Sized>(
        &self,
        key: &str,
        value: &T,
        options: SetOptions,
    ) -> Result<bool> {
        self.set_bytes(key, &codec::encode(value)?, options).await
    }

    /// Sets a key to bytes that are stored as they are.
    pub async fn set_bytes(&self, key: &str, value: &[u8], options: SetOptions) -> Result<bool> {
        let key = self.full_key(key)?;
        self.set_full(&key, value, &options, &self.0.no_region).await
    }

    /// Sets several keys with one TTL, at most a thousand in one atomic step. One whose value has no stored form is left alone; the others
    /// are set, and then the call fails with its error.
    pub async fn set_many<K: AsRef<str>, T: Serialize>(
        &self,
        entries: &[(K, T)],
        ttl: Duration,
    ) -> Result<()> {
        let ttl = Ttl::new(ttl)?;
        let keys = entries.iter().map(|(key, _)| self.full_key(key.as_ref())).collect::<Result<Vec<_>>>()?;
        let (mut stored, mut refused) = (Vec::with_capacity(entries.len()), Ok(()));
        for (key, (_, value)) in keys.iter().zip(entries) {
            match codec::encode(value) {
                Ok(value) => stored.push(Entry { key: CachedKey::new(key), value, ttl: Some(ttl) }),
                Err(error) => refused = refused.and(Err(error)),
            }
        }
        self.set_many_full(&stored, &self.0.no_region).await.and(refused)
    }

    /// Deletes keys; no load of them that began before can store again. Says how many there were.
    pub async fn delete<K: AsRef<str>>(&self, keys: &[K]) -> Result<u64> {
        let keys = keys.iter().map(|key| self.full_key(key.as_ref())).collect::<Result<Vec<_>>>()?;
        self.delete_full(&keys, &self.0.no_region).await
    }

    /// How many of these keys are there; one named twice counts twice.
    pub async fn exists<K: AsRef<str>>(&self, keys: &[K]) -> Result<u64> {
        if keys.is_empty() {
            return Ok(0);
        }
        let keys = self.full_keys(keys)?;
        self.backend().await?.exists(&keys).await
    }

    /// Gives a key a new time to live; false if it is not there.
    pub async fn expire(&self, key: &str, ttl: Duration) -> Result<bool> {
        self.expire_full(&self.full_key(key)?, ttl).await
    }

    /// What is left of a key's life.
    pub async fn ttl(&self, key: &str) -> Result<TimeLeft> {
        self.time_left_full(&self.full_key(key)?).await
    }

    /// Adds to a key's integer and returns the sum; an absent key counts as 0 and gets no expiry. Never sent twice: if the outcome is
    /// unknown, the error says so.
    pub async fn increment(&self, key: &str, by: i64) -> Result<i64> {
        let key = self.full_key(key)?;
        let _stale = self.drops_near([key.as_bytes()]);
        self.backend().await?.increment(key.as_bytes(), by).await
    }

    /// Subtracts from a key's integer and returns the difference.
    pub async fn decrement(&self, key: &str, by: i64) -> Result<i64> {
        let by = by.checked_neg().ok_or_else(|| {
            Error::new(
                ErrorKind::NotANumber,
                "the smallest integer cannot be subtracted; its negation does not fit",
            )
        })?;
        self.increment(key, by).await
    }

    /// Runs a script as one atomic step. Its keys get the prefix; it must touch no others. What is kept near of them is dropped.
    pub async fn script<K: AsRef<str>>(
        &self,
        script: &Script,
        keys: &[K],
        args: &[Vec<u8>],
    ) -> Result<Reply> {
        let keys = self.full_keys(keys)?;
        let _stale = self.drops_near(keys.iter().map(Vec::as_slice));
        self.backend().await?.script(script, &keys, args).await
    }

    /// Sends any command as its words are, without the prefix, for what has no method here. It may be sent again only if the retry table
    /// knows it to be safe. What it changes is not fenced against loads; what is kept near of it goes when the backend tells of the change.
    pub async fn command<W: AsRef<[u8]>>(&self, words: &[W]) -> Result<Reply> {
        let Some((name, args)) = words.split_first() else {
            return Err(Error::new(ErrorKind::Refused, "a command has a name; there are no words"));
        };
        let name = String::from_utf8_lossy(name.as_ref()).to_ascii_uppercase();
        if OF_A_CONNECTION.contains(&name.as_str()) {
            return Err(Error::new(
                ErrorKind::Refused,
                format!(
                    "{name} changes or holds up the connection, which all callers share; use a client of your own for it"
                ),
            ));
        }
        let command = Command::new(&name).args(args);
        self.backend().await?.command(command).await
    }

    /// Asks the backend for a sign of life.
    pub async fn ping(&self) -> Result<()> {
        self.0.backend.ping().await
    }

    /// The backend's own report.
    pub async fn info(&self, section: &str) -> Result<String> {
        self.0.backend.info(section).await
    }

    /// Deletes everything in the backend's database, not only what has this cache's prefix. If its outcome is unknown, everything is deleted
    /// before the first read after it. One that was refused, or not even sent, is an error and no more.
    pub async fn flush_database(&self) -> Result<()> {
        let mut flushing = Flushing { ledger: self.ledger(), is_settled: false };
        let flushed = self.0.backend.flush_database().await;
        // What was refused has not happened, and is not to be done by another way.
        flushing.is_settled =
            flushed.as_ref().err().is_none_or(|error| error.outcome() == Outcome::NotApplied);
        flushed
    }

    /// True unless the backend is known to be out of reach.
    pub fn is_connected(&self) -> bool {
        self.0.backend.is_up()
    }

    /// Whether calls are let through to the backend.
    pub fn breaker(&self) -> BreakerState {
        self.0.backend.breaker()
    }

    /// Waits for the backend at most so long; false if it is not there then.
    pub async fn wait_connected(&self, patience: Duration) -> bool {
        self.0.backend.wait_up(patience).await
    }

    /// Whether this is a clone of the other.
    pub fn is_same_as(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    /// The deployment prefix.
    pub fn prefix(&self) -> &str {
        &self.0.prefix
    }

    /// The counters of every region, by name; what is of no region is under `keys`.
    pub fn stats(&self) -> Vec<(String, RegionStats)> {
        let mut all: Vec<_> = self
            .0
            .names
            .lock()
            .iter()
            .map(|(name, named)| (name.clone(), named.counters.snapshot()))
            .collect();
        all.sort_by(|a, b| a.0.cmp(&b.0));
        all
    }

    /// How it stands with the connection that keeps the near cache honest: idle while no region has it on.
    pub fn near_state(&self) -> TrackingState {
        self.near().state()
    }

    /// How many values the near cache holds, and the bytes that they count for.
    pub fn near_size(&self) -> (u64, u64) {
        self.near().size()
    }

    /// How many keys, and how many prefixes of keys (of whole regions or parts of them, or of everything), wait to be invalidated in the
    /// backend. What a prefix that waits has within it is not counted again.
    pub fn pending_invalidations(&self) -> (usize, usize) {
        self.0.ledger.pending.len()
    }

    /// A key as the backend has it.
    pub fn full_key(&self, key: &str) -> Result<String> {
        let mut full = String::with_capacity(self.0.prefix.len() + key.len());
        full.push_str(&self.0.prefix);
        full.push_str(key);
        keys::checked(full)
    }

    fn full_keys<K: AsRef<str>>(&self, keys: &[K]) -> Result<Vec<Bytes>> {
        keys.iter().map(|key| Ok(self.full_key(key.as_ref())?.into_bytes())).collect()
    }

    fn counted<T>(&self, result: Result<T>) -> Result<T> {
        result.inspect_err(|_| stats::count(&self.0.no_region.counters.backend_errors))
    }
}

/// What regions and views build on; keys are whole here.
impl Cache {
    /// The backend, once nothing waits to be invalidated in it.
    pub(crate) async fn backend(&self) -> Result<&Backend> {
        if self.0.ledger.pending.is_waiting() {
            Box::pin(self.replayed()).await?;
        }
        Ok(&self.0.backend)
    }

    pub(crate) fn flights(&self, storing: Storing) -> &Flights {
        match storing {
            Storing::IfCurrent => &self.0.ledger.flights,
            Storing::IfMissing | Storing::Never => &self.0.ledger.straight_flights,
        }
    }

    pub(crate) fn pending(&self) -> &Pending {
        &self.0.ledger.pending
    }

    /// Drops what is near of the regions of this name, and has nobody join their loads.
    pub(crate) fn forget_near_and_loads(&self, name: &str) {
        for prefix in self.regions_named(name).iter().filter_map(|region| region.key_prefix()) {
            self.near().drop_prefix(&prefix);
            self.0.ledger.detach_prefix(&prefix);
        }
    }

    /// Stands for the run of the server that has this key.
    pub(crate) fn run_of(&self, key: &[u8]) -> u64 {
        self.0.backend.run_of(key)
    }

    pub(crate) fn ledger(&self) -> &Ledger {
        &self.0.ledger
    }

    pub(crate) fn tag_book(&self) -> &TagBook {
        &self.0.ledger.tags
    }

    /// The regions of this name that are open.
    pub(crate) fn regions_named(&self, name: &str) -> Vec<Arc<RegionState>> {
        let by_name = self.0.names.lock();
        let open = |named: &Named| named.regions.iter().filter_map(Weak::upgrade).collect();
        by_name.get(name).map(open).unwrap_or_default()
    }

    /// The regions that are not on, by name.
    pub(crate) fn switched_regions(&self) -> Vec<(String, RegionMode)> {
        let by_name = self.0.names.lock();
        let modes = by_name.iter().map(|(name, named)| (name.clone(), named.counters.control.mode()));
        let mut switched: Vec<_> = modes.filter(|(_, mode)| *mode != RegionMode::On).collect();
        switched.sort_by(|a, b| a.0.cmp(&b.0));
        switched
    }

    pub(crate) fn describe_backend(&self) -> String {
        self.0.backend.describe()
    }

    pub(crate) fn troubles(&self) -> &Troubles {
        self.0.backend.troubles()
    }

    pub(crate) fn identity(&self) -> &str {
        &self.0.identity
    }

    pub(crate) fn measured(&self) -> &Measured {
        &self.0.measured
    }

    pub(crate) fn checks(&self) -> &Checks {
        &self.0.checks
    }

    pub(crate) fn reports_metrics(&self) -> bool {
        self.0.reports_metrics
    }

    /// For tasks that must not keep the cache open.
    pub(crate) fn downgrade(&self) -> WeakCache {
        WeakCache(Arc::downgrade(&self.0))
    }

    #[inline]
    pub(crate) fn near(&self) -> &Near {
        &self.0.ledger.near
    }

    /// When this is dropped, so is what is kept near of these keys.
    pub(crate) fn drops_near<'a, I: IntoIterator<Item = &'a [u8]> + Clone>(
        &'a self,
        keys: I,
    ) -> DropsNear<'a, I> {
        DropsNear { near: self.near(), keys }
    }

    #[inline]
    pub(crate) fn is_heard(&self) -> bool {
        self.0.teller.is_heard()
    }

    pub(crate) fn event<'a>(&self, event: impl FnOnce() -> Event<'a>) {
        self.0.teller.tell(event);
    }

    #[tracing::instrument(level = "debug", name = "mtcache_set", skip_all, fields(region = %region.policy.name, key = key))]
    pub(crate) async fn set_full(
        &self,
        key: &str,
        value: &[u8],
        options: &SetOptions,
        region: &RegionState,
    ) -> Result<bool> {
        let ttl = options.checked_ttl()?;
        let cached = CachedKey::new(key);
        let mut writing = self.writing(region, std::slice::from_ref(&cached), RemovalCause::Replaced);
        if options.condition == Condition::IfAbsent {
            // A set that stores only where nothing is leaves nothing old behind when it fails, and what is there may be
            // somebody else's lock.
            writing.leaves_nothing_old();
        }
        let result = match self.backend().await {
            Err(error) => Err(error),
            Ok(backend) => match &options.condition {
                Condition::Always => backend.set(&cached, value, ttl, When::Always).await,
                Condition::IfAbsent => backend.set(&cached, value, ttl, When::Absent).await,
                Condition::IfPresent => backend.set(&cached, value, ttl, When::Present).await,
                Condition::IfNewer { field } => {
                    newer::set_if_newer(backend, &cached, value, field, ttl).await
                }
            },
        };
        match &result {
            Ok(stored) => {
                stats::count(if *stored { &region.counters.sets } else { &region.counters.sets_refused });
                if *stored {
                    self.changed(region, [&cached], RemovalCause::Replaced);
                }
                writing.leaves_nothing_old();
            }
            Err(error) => writing.failed(error),
        }
        result
    }

    pub(crate) async fn set_many_full(&self, entries: &[Entry], region: &RegionState) -> Result<()> {
        let mut writing = self.writing(region, entries, RemovalCause::Replaced);
        for step in entries.chunks(BULK_STEP) {
            let stored = match self.backend().await {
                Err(error) => Err(error),
                Ok(backend) => backend.set_many(step).await,
            };
            stored.inspect_err(|error| writing.failed(error))?;
            writing.done(step.len());
            stats::add(&region.counters.sets, step.len() as u64);
            self.changed(region, step.iter().map(|entry| &entry.key), RemovalCause::Replaced);
        }
        Ok(())
    }

    /// Keys of regions with a stale window are told of even where they are absent: they may be known elsewhere.
    fn to_delete(&self, keys: &[String]) -> Vec<CachedKey> {
        let remembered = self.0.remembered.read();
        let is_remembered = |key: &str| remembered.iter().any(|prefix| key.starts_with(prefix.as_str()));
        let cached = keys.iter().map(|key| {
            let cached = CachedKey::new(key);
            if is_remembered(key) { cached.told_when_gone() } else { cached }
        });
        cached.collect()
    }

    #[tracing::instrument(level = "debug", name = "mtcache_invalidate", skip_all, fields(region = %region.policy.name))]
    pub(crate) async fn delete_full(&self, keys: &[String], region: &RegionState) -> Result<u64> {
        let cached = self.to_delete(keys);
        let mut writing = self.writing(region, &cached, removal_of(region));
        self.delete_in_steps(&cached, &mut writing, region).await
    }

    /// Sets entries and deletes keys. They are under way together: what fails or ends before its turn waits to be invalidated too.
    pub(crate) async fn set_and_delete(
        &self,
        entries: &[Entry],
        keys: &[String],
        region: &RegionState,
        framed_with: Option<&Tags>,
    ) -> Result<()> {
        let cached = self.to_delete(keys);
        let mut deleting = self.writing(region, &cached, removal_of(region));
        match framed_with {
            None => self.set_many_full(entries, region).await?,
            Some(tags) => self.set_many_framed(entries, region, tags).await?,
        }
        self.delete_in_steps(&cached, &mut deleting, region).await.map(drop)
    }

    async fn delete_in_steps(
        &self,
        keys: &[CachedKey],
        writing: &mut Writing<'_, CachedKey>,
        region: &RegionState,
    ) -> Result<u64> {
        let mut deleted = 0;
        for step in keys.chunks(BULK_STEP) {
            let removed = match self.backend().await {
                Err(error) => Err(error),
                Ok(backend) => backend.delete(step).await,
            };
            deleted += removed.inspect_err(|error| writing.failed(error))?;
            writing.done(step.len());
            stats::add(&region.counters.invalidations, step.len() as u64);
            self.changed(region, step, removal_of(region));
        }
        Ok(deleted)
    }

    pub(crate) async fn expire_full(&self, key: &str, ttl: Duration) -> Result<bool> {
        let ttl = Ttl::new(ttl)?;
        let _stale = self.drops_near([key.as_bytes()]);
        self.backend().await?.expire(key.as_bytes(), ttl).await
    }

    pub(crate) async fn time_left_full(&self, key: &str) -> Result<TimeLeft> {
        self.backend().await?.time_left(key.as_bytes()).await
    }

    pub(crate) fn changed<'a>(
        &self,
        region: &RegionState,
        keys: impl IntoIterator<Item = &'a CachedKey>,
        cause: RemovalCause,
    ) {
        if !self.is_heard() {
            return;
        }
        for key in keys {
            let region = Cow::Borrowed(region.policy.name.as_str());
            self.event(|| Event::Changed { region, key: String::from_utf8_lossy(&key.key), cause });
        }
    }

    pub(crate) fn writing<'a, K: Keyed>(
        &'a self,
        region: &'a RegionState,
        keys: &'a [K],
        cause: RemovalCause,
    ) -> Writing<'a, K> {
        Writing::new(&self.0.ledger, region, keys, cause)
    }
}

/// The deletion of everything, under way: every flight is let go and all that is near dropped, whether or not the answer is waited for.
struct Flushing<'a> {
    ledger: &'a Ledger,
    is_settled: bool,
}

impl Drop for Flushing<'_> {
    fn drop(&mut self) {
        if !self.is_settled {
            self.ledger.pending.push_prefix("", None);
        }
        self.ledger.near.drop_all();
        self.ledger.detach_prefix("");
    }
}

/// Values of a region are declared untrue; what is of no region is deleted by name.
fn removal_of(region: &RegionState) -> RemovalCause {
    if region.key_prefix().is_some() { RemovalCause::Invalidated } else { RemovalCause::Deleted }
}

/// A change of keys under way that is not a [`Writing`].
pub(crate) struct DropsNear<'a, I: IntoIterator<Item = &'a [u8]> + Clone> {
    near: &'a Near,
    keys: I,
}

impl<'a> DropsNear<'a, Vec<&'a [u8]>> {
    /// Leaves these to the caller after all.
    pub(crate) fn spare(&mut self, keys: &HashSet<&[u8]>) {
        self.keys.retain(|key| !keys.contains(key));
    }
}

impl<'a, I: IntoIterator<Item = &'a [u8]> + Clone> Drop for DropsNear<'a, I> {
    fn drop(&mut self) {
        for key in self.keys.clone() {
            self.near.drop_key(key, RemovalCause::Replaced);
        }
    }
}

impl fmt::Debug for Cache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cache")
            .field("backend", &self.0.backend.describe())
            .field("prefix", &self.0.prefix)
            .finish_non_exhaustive()
    }
}
