//! A region: one kind of data with one policy.
//!
//! Invariant: every value of a region is stored under the region's prefix, with at most the region's TTL. Deliberately absent: which
//! regions there are; the tables are their owners'.

use std::collections::HashMap;
use std::fmt;
use std::future::Future;
use std::ops::Deref;
use std::pin::pin;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use crossbeam_utils::atomic::AtomicCell;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::backend::{CachedKey, Entry};
use crate::batch::MAX_BATCH;
use crate::cache::Cache;
use crate::codec::{self, Codec};
use crate::control::{RegionControl, RegionMode};
use crate::error::{Error, ErrorKind, Result};
use crate::fill_token::Suffices;
use crate::frame::{self, Frame, Framing};
use crate::framed::{self, View};
use crate::keys::{self, KeyParts};
use crate::lease::LEASE_TTL_MIN;
use crate::load::Storing;
use crate::loader::{Knowing, Life, Loaded, Loader, Plainly, Previous};
use crate::near::NearRegion;
use crate::near::TypeNumber;
use crate::newer;
use crate::options::{Condition, SetOptions};
use crate::read::{Age, Counted, Read, ReadOptions};
use crate::refresh::Refreshes;
use crate::settings::{self, Reloaded};
use crate::stats::{self, Counters, RegionStats};
use crate::tags::Tag;
use crate::timeouts::{LOAD_TIMEOUT, LoadLimit, MAX_LOAD_WAIT, MAX_LOADS, MAX_WAITING_LOADS};
use crate::ttl::{TimeLeft, Ttl};

/// Default of [`RegionPolicy::none_ttl`].
pub const NONE_TTL: Duration = Duration::from_secs(5);

/// What holds for all values of a region.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct RegionPolicy {
    /// The region's name, for reports. Letters, digits, `_`, `-` and `.`.
    pub name: String,
    /// What its keys begin with, before the first `:`. Default: the name.
    pub key_base: String,
    /// How long a value is fresh.
    pub ttl: Duration,
    /// How long past its TTL a value may be served, marked [`Stale`](crate::Staleness::Stale), when its loader fails, is shed or slow, or
    /// when the backend is down. Of a plain region that is what this process has last read or loaded, of a framed one what the backend
    /// has. Never what was invalidated. Default: not at all.
    pub stale_window: Duration,
    /// How long "the source has none" (a value whose stored form is `null`) is kept; never longer than `ttl`. `None`: not kept.
    /// Default: 5 s.
    pub none_ttl: Option<Duration>,
    /// By how much of the TTL, at random, a value lives shorter, so that what was stored together does not expire together. 0 to
    /// 0.5. Default: 0.
    pub ttl_jitter: f64,
    /// How values are written. Default: [`Codec::Json`], the only one for plain regions.
    pub codec: Codec,
    /// Whether and how values are framed. Default: not, they are plain.
    pub framing: Option<Framing>,
    /// What stored bytes are to a reader that cannot read them. Default: an error.
    pub undecodable: Undecodable,
    /// Whether values are kept decoded in this process too, see [`Region::get_shared`]. Default: no.
    pub near: bool,
    /// One near hit of so many, rounded up to a power of two, is compared with the backend; 0: none. Default: 0.
    pub check_every: u64,
    /// Longest run of a loader. Default: 30 s.
    pub load_timeout: Duration,
    // What is served past its TTL, and what is loaded ahead of time.
    /// How long a read waits for a loader if it can be given a stale value; the load goes on and stores. `None`: until it ends. Default: none.
    pub soft_timeout: Option<Duration>,
    /// Whether a value in its stale window is served at once, and loaded anew in the background. Default: no.
    pub stale_while_revalidate: bool,
    /// The part of the TTL, above 0 and below 1, after which a read has the value loaded anew in the background. `None`: reads do not.
    /// Default: none.
    pub eager_refresh: Option<f64>,
    /// The beta of `XFetch`: a read has the value loaded anew at random, with the probability `exp(-left / (load time * beta))`, so the likelier
    /// the nearer the value's end and the longer its load takes (Vattani, Chierichetti, Lowenstein: Optimal Probabilistic Cache Stampede
    /// Prevention, VLDB 2015). Above 0; 1 is the paper's, more is earlier. `None`: reads do not. Default: none.
    pub xfetch_beta: Option<f64>,
    // Loads.
    /// Loads in this process that run at once; more wait. Default: 256.
    pub max_loads: usize,
    /// Loads that wait; more are refused at once as [`ErrorKind::Shed`]. Default: 10,000.
    pub max_waiting_loads: usize,
    /// How long a load waits for its turn; after that it is refused as [`ErrorKind::Shed`] too. Default: 30 s.
    pub max_load_wait: Duration,
    /// Ids that one loader call of a batch is given; more are loaded by several calls, each a load. At least 1. Default: 1000.
    pub max_batch: usize,
    // Loads across processes.
    /// One load of a key among all processes instead of one in each: how long a process that loads and stands still is waited for. At
    /// least 50 ms, at most 100 years; [`LEASE_TTL`](crate::LEASE_TTL) is a good value. `None`: no leases. Default: none.
    pub lease: Option<Duration>,
}

/// What stored bytes are to a reader that cannot read them. Counted in any case.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Undecodable {
    /// An error of its own kind.
    #[default]
    Error,
    /// A miss: the next load replaces them.
    Miss,
}

impl RegionPolicy {
    /// A policy with this name and TTL, and the defaults for the rest.
    pub fn new(name: impl Into<String>, ttl: Duration) -> Self {
        let name = name.into();
        Self {
            key_base: name.clone(),
            name,
            ttl,
            stale_window: Duration::ZERO,
            none_ttl: Some(NONE_TTL),
            ttl_jitter: 0.0,
            codec: Codec::Json,
            framing: None,
            undecodable: Undecodable::Error,
            near: false,
            check_every: 0,
            load_timeout: LOAD_TIMEOUT,
            soft_timeout: None,
            stale_while_revalidate: false,
            eager_refresh: None,
            xfetch_beta: None,
            max_loads: MAX_LOADS,
            max_waiting_loads: MAX_WAITING_LOADS,
            max_load_wait: MAX_LOAD_WAIT,
            max_batch: MAX_BATCH,
            lease: None,
        }
    }

    /// Sets what its keys begin with.
    #[must_use]
    pub fn key_base(mut self, base: impl Into<String>) -> Self {
        self.key_base = base.into();
        self
    }

    /// Sets how long past its TTL a value may be served.
    #[must_use]
    pub fn stale_window(mut self, window: Duration) -> Self {
        self.stale_window = window;
        self
    }

    /// Sets how long "the source has none" is kept.
    #[must_use]
    pub fn none_ttl(mut self, ttl: Option<Duration>) -> Self {
        self.none_ttl = ttl;
        self
    }

    /// Sets by how much of the TTL a value lives shorter at random.
    #[must_use]
    pub fn ttl_jitter(mut self, part: f64) -> Self {
        self.ttl_jitter = part;
        self
    }

    /// Has values framed: exact age, tags, schema versions, compression, and a stale window that the backend keeps. Other programs that
    /// read the keys must know the form, see `docs/stored-form.md`.
    #[must_use]
    pub fn framed(mut self, framing: Framing) -> Self {
        self.framing = Some(framing);
        self
    }

    /// Sets how values are written.
    #[must_use]
    pub fn codec(mut self, codec: Codec) -> Self {
        self.codec = codec;
        self
    }

    /// Sets what unreadable bytes are.
    #[must_use]
    pub fn undecodable(mut self, choice: Undecodable) -> Self {
        self.undecodable = choice;
        self
    }

    /// Sets whether values are kept decoded in this process too.
    #[must_use]
    pub fn near(mut self, on: bool) -> Self {
        self.near = on;
        self
    }

    /// Sets that one near hit of so many, rounded up to a power of two, is compared with the backend; 0: none. See
    /// `near_violations` in [`RegionStats`].
    #[must_use]
    pub fn check_every(mut self, hits: u64) -> Self {
        self.check_every = hits;
        self
    }

    /// Sets the longest run of a loader.
    #[must_use]
    pub fn load_timeout(mut self, limit: Duration) -> Self {
        self.load_timeout = limit;
        self
    }

    /// Sets how long a read waits for a loader if it can be given a stale value.
    #[must_use]
    pub fn soft_timeout(mut self, limit: Duration) -> Self {
        self.soft_timeout = Some(limit);
        self
    }

    /// Sets whether a value in its stale window is served at once.
    #[must_use]
    pub fn stale_while_revalidate(mut self, on: bool) -> Self {
        self.stale_while_revalidate = on;
        self
    }

    /// Sets the part of the TTL after which a value is loaded anew in the background.
    #[must_use]
    pub fn eager_refresh(mut self, part: f64) -> Self {
        self.eager_refresh = Some(part);
        self
    }

    /// Sets the beta of `XFetch`.
    #[must_use]
    pub fn xfetch_beta(mut self, beta: f64) -> Self {
        self.xfetch_beta = Some(beta);
        self
    }

    /// Sets how many loads run at once, and how many more wait.
    #[must_use]
    pub fn max_loads(mut self, running: usize, waiting: usize) -> Self {
        self.max_loads = running;
        self.max_waiting_loads = waiting;
        self
    }

    /// Sets how long a load waits for its turn.
    #[must_use]
    pub fn max_load_wait(mut self, limit: Duration) -> Self {
        self.max_load_wait = limit;
        self
    }

    /// Sets how many ids one loader call of a batch is given.
    #[must_use]
    pub fn max_batch(mut self, ids: usize) -> Self {
        self.max_batch = ids;
        self
    }

    /// Has one process at a time load a key, and the others wait for it. A process that stands still loses its lease after this TTL; one
    /// that works on renews it.
    #[must_use]
    pub fn lease(mut self, ttl: Duration) -> Self {
        self.lease = Some(ttl);
        self
    }

    /// The tags that every value carries.
    pub(crate) fn tags(&self) -> Result<Vec<Tag>> {
        self.framing.as_ref().map_or(Ok(Vec::new()), |framing| framing.check(&self.name))
    }

    /// Fails if it makes no sense.
    pub fn check(&self) -> Result<()> {
        keys::checked_name(&self.name)?;
        keys::checked_name(&self.key_base)?;
        Ttl::new(self.ttl)?;
        Ttl::new(self.load_timeout)?;
        if let Some(ttl) = self.none_ttl {
            Ttl::new(ttl)?;
        }
        if let Some(ttl) = self.lease {
            let wrong = |what: String| {
                Error::new(ErrorKind::Config, format!("region {}: a lease of {ttl:?} is {what}", self.name))
            };
            if ttl < LEASE_TTL_MIN {
                return Err(wrong(format!("shorter than {LEASE_TTL_MIN:?}")));
            }
            // What a token can live.
            Ttl::new(ttl).map_err(|_| wrong("longer than 100 years".to_owned()))?;
        }
        if let Some(limit) = self.soft_timeout {
            Ttl::new(limit)?;
        }
        if self.eager_refresh.is_some_and(|part| part.is_nan() || part <= 0.0 || part >= 1.0)
            || self.xfetch_beta.is_some_and(|beta| !beta.is_finite() || beta <= 0.0)
        {
            return Err(Error::new(
                ErrorKind::Config,
                format!("region {}: eager_refresh is above 0 and below 1, xfetch_beta above 0", self.name),
            ));
        }
        self.tags()?;
        if self.framing.is_none() && self.codec != Codec::Json {
            return Err(Error::new(
                ErrorKind::Config,
                format!(
                    "region {}: plain values are JSON, which others read too; make it framed for {:?}",
                    self.name, self.codec
                ),
            ));
        }
        if self.framing.is_some() {
            Ttl::new(self.ttl.saturating_add(self.stale_window))?;
        }
        if !(0.0..=0.5).contains(&self.ttl_jitter) {
            return Err(Error::new(
                ErrorKind::Config,
                format!(
                    "region {}: ttl_jitter must be between 0 and 0.5, not {}",
                    self.name, self.ttl_jitter
                ),
            ));
        }
        Ok(())
    }
}

/// A policy that can be replaced while readers hold it.
///
/// What was replaced stays in memory, since a reader may still look at it: a few hundred bytes for each reload that changes something.
pub(crate) struct Live {
    first: RegionPolicy,
    replaced_by: AtomicCell<Option<&'static RegionPolicy>>,
}

impl Live {
    fn new(first: RegionPolicy) -> Self {
        Self { first, replaced_by: AtomicCell::new(None) }
    }

    fn replace(&self, policy: RegionPolicy) {
        self.replaced_by.store(Some(Box::leak(Box::new(policy))));
    }
}

impl Deref for Live {
    type Target = RegionPolicy;

    #[inline]
    fn deref(&self) -> &RegionPolicy {
        self.replaced_by.load().unwrap_or(&self.first)
    }
}

/// What a region is made of, whatever type its values are read as.
pub(crate) struct RegionState {
    pub(crate) policy: Live,
    /// Deployment prefix and key base.
    pub(crate) base: String,
    pub(crate) counters: Arc<Counters>,
    pub(crate) limit: LoadLimit,
    pub(crate) refreshes: Refreshes,
    /// There if its values are kept in this process, once that is so.
    pub(crate) near: OnceLock<NearRegion>,
    /// Whether it was opened with a stale window, and so is told of what its last known values depend on.
    pub(crate) hears_of_stale: bool,
}

impl RegionState {
    pub(crate) fn new(policy: RegionPolicy, deployment: &str, counters: Arc<Counters>) -> Result<Self> {
        policy.check()?;
        let base = format!("{deployment}{}", policy.key_base);
        keys::checked_base(&base)?;
        let limit = LoadLimit::new(policy.max_loads, policy.max_waiting_loads, policy.max_load_wait);
        Ok(Self {
            base,
            hears_of_stale: !policy.stale_window.is_zero(),
            policy: Live::new(policy),
            counters,
            limit,
            refreshes: Refreshes::default(),
            near: OnceLock::new(),
        })
    }

    /// What stands for the keys that are of no region: no policy is applied to them.
    pub(crate) fn of_plain_keys(name: &str, deployment: &str, counters: Arc<Counters>) -> Self {
        let policy = RegionPolicy::new(name, crate::options::DEFAULT_TTL).key_base("");
        Self {
            base: deployment.to_owned(),
            policy: Live::new(policy),
            counters,
            limit: LoadLimit::new(1, 0, Duration::ZERO),
            refreshes: Refreshes::default(),
            near: OnceLock::new(),
            hears_of_stale: false,
        }
    }

    /// Takes over what may change while the region is open.
    pub(crate) fn reload(&self, wanted: &RegionPolicy) -> Reloaded {
        let (policy, reloaded) = settings::reloaded(&self.policy, wanted);
        if !reloaded.changed.is_empty() {
            self.policy.replace(policy);
        }
        reloaded
    }

    /// The TTL for these bytes; none if they are not to be kept at all.
    pub(crate) fn ttl_for(&self, bytes: &[u8]) -> Option<Ttl> {
        let whole =
            if codec::is_null(bytes) { self.policy.none_ttl?.min(self.policy.ttl) } else { self.policy.ttl };
        let ttl = if self.policy.ttl_jitter > 0.0 {
            whole.mul_f64(1.0 - self.policy.ttl_jitter * rand::random::<f64>())
        } else {
            whole
        };
        // The policy's TTLs were checked; jitter can take one of a millisecond below it.
        Ttl::new(ttl).or_else(|_| Ttl::new(whole)).ok()
    }

    /// The same for what a loader has brought.
    pub(crate) fn ttl_of(&self, bytes: &[u8], life: Life) -> Option<Ttl> {
        match life {
            Life::OfRegion => self.ttl_for(bytes),
            Life::NotKept => None,
            Life::Own(own) => {
                let most = if codec::is_null(bytes) { self.policy.none_ttl? } else { self.policy.ttl };
                Ttl::new(own.min(most).min(self.policy.ttl)).ok()
            }
        }
    }

    /// As [`age`](Self::age), also of a frame, which tells that to the run of the server that stored it.
    pub(crate) fn age_on(&self, bytes: &[u8], left: TimeLeft, run: u64) -> Age {
        if !frame::is_framed(bytes) {
            return self.age(bytes, left);
        }
        let own = Frame::read(bytes).ok().filter(|frame| frame.header.clock == run && run != 0);
        own.and_then(|frame| framed::aged_by_ttl(&frame.header, left)).map_or(Age::Unknown, Age::AtMost)
    }

    /// How old a plain value is at most, by what is left of its life.
    pub(crate) fn age(&self, bytes: &[u8], left: TimeLeft) -> Age {
        if frame::is_framed(bytes) {
            return Age::Unknown;
        }
        let whole = match self.policy.none_ttl {
            Some(none_ttl) if codec::is_null(bytes) => none_ttl.min(self.policy.ttl),
            _ => self.policy.ttl,
        };
        Age::from_ttl(whole, left)
    }

    /// Which value that is there already will do for these demands.
    pub(crate) fn suffices(&self, options: ReadOptions, storing: Storing) -> Suffices {
        if storing == Storing::IfMissing {
            return Suffices::Nothing;
        }
        match options.max_age {
            Some(max_age) => Suffices::Within { ttl: self.policy.ttl, max_age },
            None => Suffices::Any,
        }
    }

    /// What every key of the region begins with; none for the keys that are of no region.
    pub(crate) fn key_prefix(&self) -> Option<String> {
        (!self.policy.key_base.is_empty()).then(|| format!("{}:", self.base))
    }
}

/// A region whose values are read and written as `T`. Cheap to clone. Made by [`Cache::region`].
///
/// For sources that may have nothing, let `T` be an `Option`: `None` is then cached as `null` with [`RegionPolicy::none_ttl`].
pub struct Region<T> {
    pub(crate) cache: Cache,
    pub(crate) state: Arc<RegionState>,
    pub(crate) view: Arc<View<T>>,
    pub(crate) value: TypeNumber<T>,
}

impl<T: 'static> Region<T> {
    pub(crate) fn new(cache: Cache, state: Arc<RegionState>, view: Arc<View<T>>) -> Self {
        Self { cache, state, view, value: TypeNumber::own() }
    }
}

impl<T> Region<T> {
    /// The region's policy.
    pub fn policy(&self) -> &RegionPolicy {
        &self.state.policy
    }

    /// The region's name.
    pub fn name(&self) -> &str {
        &self.state.policy.name
    }

    /// The cache it belongs to.
    pub fn cache(&self) -> &Cache {
        &self.cache
    }

    /// The key in the backend of what has this name.
    pub fn key(&self, id: impl KeyParts) -> Result<String> {
        keys::join(&self.state.base, &id)
    }

    /// The switches of all regions of this name.
    pub fn control(&self) -> RegionControl {
        RegionControl::new(self.cache.clone(), self.name().to_owned(), Arc::clone(&self.state.counters))
    }

    /// Whether this region is on, see [`control`](Self::control).
    pub fn mode(&self) -> RegionMode {
        self.state.mode()
    }

    /// Counts a hit as a miss, and as undecodable: for readers with a form of their own on top of the stored one, to whom what was
    /// read is no value. Once for each read, which knows as what it was counted; one that was no hit stays what it is.
    pub fn count_undecodable(&self, read: Counted) {
        self.count_no_hit(read);
        stats::count(&self.state.counters.undecodable);
    }

    /// The region's counters now.
    pub fn stats(&self) -> RegionStats {
        self.state.counters.snapshot()
    }

    /// Removes an entry; no load that began before can store it again. True if it was there.
    pub async fn invalidate(&self, id: impl KeyParts) -> Result<bool> {
        let key = self.key(id)?;
        self.cache.delete_full(&[key], &self.state).await.map(|n| n > 0)
    }

    /// Gives an entry the region's whole TTL again; false if it is not there. Its age counts from here on: this is for what lives by
    /// being used, such as sessions, not for answers that grow old.
    pub async fn touch(&self, id: impl KeyParts) -> Result<bool> {
        self.expire(id, self.state.policy.ttl).await
    }

    /// Gives an entry a new time to live; false if it is not there. Its age is then told by what is left of that, see
    /// [`touch`](Self::touch).
    pub async fn expire(&self, id: impl KeyParts, ttl: Duration) -> Result<bool> {
        let key = self.key(id)?;
        if self.framing().is_some() {
            return self.cache.renew_framed(&key, Ttl::new(ttl)?).await;
        }
        self.cache.expire_full(&key, ttl).await
    }

    /// What is left of an entry's life.
    pub async fn time_left(&self, id: impl KeyParts) -> Result<TimeLeft> {
        let key = self.key(id)?;
        self.cache.time_left_full(&key).await
    }
}

impl<T: DeserializeOwned> Region<T> {
    /// Reads an entry; `None` is a miss, and nothing else is.
    pub async fn get(&self, id: impl KeyParts) -> Result<Option<Read<T>>> {
        self.get_with(id, ReadOptions::new()).await
    }

    /// Reads an entry with demands.
    pub async fn get_with(&self, id: impl KeyParts, options: ReadOptions) -> Result<Option<Read<T>>> {
        let key = self.key(id)?;
        let read = pin!(self.read(&key, options));
        let read = options.by_deadline(self.name(), read).await;
        read.or_else(|error| self.late(error, &key, options).map(Some))
    }

    /// Reads several entries, in the order asked for.
    pub async fn get_many<K: KeyParts>(&self, ids: &[K]) -> Result<Vec<Option<Read<T>>>> {
        let keys = ids.iter().map(|id| self.key(id)).collect::<Result<Vec<_>>>()?;
        self.read_many(&keys).await
    }
}

impl<T: Serialize> Region<T> {
    /// Sets an entry with the region's TTL.
    pub async fn set(&self, id: impl KeyParts, value: &T) -> Result<()> {
        self.set_when(id, value, Condition::Always).await.map(drop)
    }

    /// Sets an entry under a condition; says whether it was stored.
    ///
    /// A `None` that the policy keeps nothing of (`none_ttl(None)`) ends what is there instead: with [`Condition::Always`] and
    /// [`Condition::IfPresent`], which then says whether something was. With [`Condition::IfAbsent`] it does nothing and is not stored;
    /// [`Condition::IfNewer`] fails, for it has no time.
    pub async fn set_when(&self, id: impl KeyParts, value: &T, condition: Condition) -> Result<bool> {
        let key = self.key(id)?;
        let bytes = self.encode(value)?;
        let Some(ttl) = self.state.ttl_for(&bytes) else {
            // "None" is not kept here: what was there before is no longer true, though.
            return match condition {
                Condition::Always => self.cache.delete_full(&[key], &self.state).await.map(|_| true),
                Condition::IfPresent => {
                    self.cache.delete_full(&[key], &self.state).await.map(|deleted| deleted > 0)
                }
                Condition::IfAbsent => Ok(false),
                Condition::IfNewer { field } => Err(newer::no_time(&field)),
            };
        };
        self.store(&key, &bytes, ttl, condition).await
    }

    async fn store(&self, key: &str, bytes: &[u8], ttl: Ttl, condition: Condition) -> Result<bool> {
        if self.framing().is_some() {
            return self.cache.set_framed(key, bytes, ttl, &condition, &self.state, &self.view.tags).await;
        }
        let options = SetOptions { condition, ..SetOptions::ttl(ttl.as_duration()) };
        self.cache.set_full(key, bytes, &options, &self.state).await
    }

    /// Sets an entry that lives shorter than the region's TTL. Where the region refreshes ahead of time, a part of that life counts.
    pub async fn set_for(&self, id: impl KeyParts, value: &T, ttl: Duration) -> Result<()> {
        if ttl > self.state.policy.ttl {
            return Err(Error::new(
                ErrorKind::BadTtl,
                format!(
                    "region {} keeps values for {:?}; {ttl:?} would make them look younger than they are",
                    self.name(),
                    self.state.policy.ttl
                ),
            ));
        }
        let key = self.key(id)?;
        let (bytes, ttl) = (self.encode(value)?, Ttl::new(ttl)?);
        self.rest_for(&key, ttl).await;
        self.store(&key, &bytes, ttl, Condition::Always).await.map(drop)
    }

    /// Sets several entries with the region's TTL, at most a thousand in one atomic step; of a framed region each in a step of its own.
    ///
    /// An entry whose value has no stored form is left alone, as by [`set`](Self::set): the others are set, and then the call fails with
    /// its error.
    pub async fn set_many<K: KeyParts>(&self, entries: &[(K, T)]) -> Result<()> {
        let mut stored = Vec::with_capacity(entries.len());
        let mut removed = Vec::new();
        let mut refused = Ok(());
        let keys = entries.iter().map(|(id, _)| self.key(id)).collect::<Result<Vec<_>>>()?;
        // Of entries with one identity the last one counts.
        let last: HashMap<_, _> = keys.iter().cloned().zip(0..).collect();
        for (place, (key, (_, value))) in keys.into_iter().zip(entries).enumerate() {
            if last.get(&key) != Some(&place) {
                continue;
            }
            let value = match self.encode(value) {
                Ok(value) => value,
                Err(error) => {
                    refused = refused.and(Err(error));
                    continue;
                }
            };
            match self.state.ttl_for(&value) {
                Some(ttl) => stored.push(Entry { key: CachedKey::new(&key), value, ttl: Some(ttl) }),
                // As in `set`: "none" that is not kept still ends what was there.
                None => removed.push(key),
            }
        }
        let tags = self.framing().map(|_| &*self.view.tags);
        self.cache.set_and_delete(&stored, &removed, &self.state, tags).await.and(refused)
    }
}

impl<T: Serialize + DeserializeOwned> Region<T> {
    /// Reads an entry, or loads and stores it. Concurrent misses share one load; it goes on if its callers leave.
    ///
    /// With the backend down the loader's value is returned all the same and the error is counted. A key of another type and an
    /// undecodable value are errors.
    ///
    /// ```no_run
    /// # async fn example(cache: mtcache_cache::Cache) -> mtcache_cache::Result<()> {
    /// use std::time::Duration;
    /// use mtcache_cache::{Region, RegionPolicy};
    ///
    /// let prices: Region<f64> = cache.region(RegionPolicy::new("price", Duration::from_secs(30)))?;
    /// let read = prices
    ///     .get_or_load("BTC", || async { Ok::<_, std::io::Error>(67_000.5) })
    ///     .await?;
    /// println!("{} from {:?}", read.value, read.source);
    /// # Ok(()) }
    /// ```
    pub async fn get_or_load<F, Fut, E>(&self, id: impl KeyParts, loader: F) -> Result<Read<T>>
    where
        T: Send + 'static,
        F: FnOnce() -> Fut + Send + 'static,
        Fut: Future<Output = std::result::Result<T, E>> + Send + 'static,
        E: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        self.get_or_load_with(id, ReadOptions::new(), loader).await
    }

    /// Reads an entry with demands, or loads and stores it.
    pub async fn get_or_load_with<F, Fut, E>(
        &self,
        id: impl KeyParts,
        options: ReadOptions,
        loader: F,
    ) -> Result<Read<T>>
    where
        T: Send + 'static,
        F: FnOnce() -> Fut + Send + 'static,
        Fut: Future<Output = std::result::Result<T, E>> + Send + 'static,
        E: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        self.loaded_through(id, options, Plainly(loader)).await
    }

    /// Reads an entry with demands, or has a loader bring it that is told what was known before, and says how long what it brings lives
    /// ([`Loaded`]). Concurrent misses share one load, and background refreshes are as with [`get_or_load`](Self::get_or_load).
    ///
    /// What was known is within its TTL (where a value is loaded ahead of its end) or its stale window: of a framed region what the backend
    /// keeps, with its validator; of a plain one what is there, or what this process has last known.
    ///
    /// ```no_run
    /// # struct Answer { not_modified: bool, figures: Vec<f64>, etag: String, max_age: std::time::Duration }
    /// # async fn ask_the_provider(_: Option<Vec<u8>>) -> std::io::Result<Answer> { Err(std::io::ErrorKind::NotFound.into()) }
    /// # async fn example(cache: mtcache_cache::Cache) -> mtcache_cache::Result<()> {
    /// use std::time::Duration;
    /// use mtcache_cache::{Framing, Loaded, ReadOptions, Region, RegionPolicy};
    ///
    /// let policy = RegionPolicy::new("onchain", Duration::from_secs(300)).stale_window(Duration::from_secs(3600));
    /// let figures: Region<Vec<f64>> = cache.region(policy.framed(Framing::new()))?;
    /// let read = figures
    ///     .get_or_reload("BTC", ReadOptions::new(), |previous| async move {
    ///         let answer = ask_the_provider(previous.and_then(|known| known.validator)).await?;
    ///         Ok::<_, std::io::Error>(if answer.not_modified {
    ///             Loaded::not_modified()
    ///         } else {
    ///             Loaded::new(answer.figures).ttl(answer.max_age).validator(answer.etag)
    ///         })
    ///     })
    ///     .await?;
    /// # let _ = read;
    /// # Ok(()) }
    /// ```
    pub async fn get_or_reload<F, Fut, E>(
        &self,
        id: impl KeyParts,
        options: ReadOptions,
        loader: F,
    ) -> Result<Read<T>>
    where
        T: Send + 'static,
        F: FnOnce(Option<Previous<T>>) -> Fut + Send + 'static,
        Fut: Future<Output = std::result::Result<Loaded<T>, E>> + Send + 'static,
        E: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        self.loaded_through(id, options, Knowing(loader)).await
    }

    async fn loaded_through<L: Loader<T>>(
        &self,
        id: impl KeyParts,
        options: ReadOptions,
        loader: L,
    ) -> Result<Read<T>>
    where
        T: Send + 'static,
    {
        let key = self.key(id)?;
        let read = pin!(self.read_through(&key, options, loader));
        let read = options.by_deadline(self.name(), read).await;
        read.or_else(|error| self.late(error, &key, options))
    }
}

impl<T> Clone for Region<T> {
    fn clone(&self) -> Self {
        let (cache, state, view) = (self.cache.clone(), Arc::clone(&self.state), Arc::clone(&self.view));
        Self { cache, state, view, value: self.value }
    }
}

impl<T> fmt::Debug for Region<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Region").field("policy", self.policy()).finish_non_exhaustive()
    }
}
