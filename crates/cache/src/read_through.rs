//! The order of steps of a read, with and without a loader. The one place that has it.
//!
//! get: replay what waits, backend, codec. `get_or_load`: the same; on a miss the flight. Invariants: a backend in trouble never keeps a
//! caller from the loader's value; only a read that found nothing counts as a miss. A value past its TTL (`fail_safe.rs`) is served instead of
//! an error and, where the policy says so, instead of waiting (soft timeout) or of a miss (stale while revalidating). Deliberately absent:
//! the near cache (`shared.rs`, before the backend), and what a flight does (`load.rs`).

use std::borrow::Cow;
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::future::{Either, select};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tracing::Instrument;

use crate::backend::{Bytes, CachedKey};
use crate::cache::Cache;
use crate::codec;
use crate::control::RegionMode;
use crate::error::{Error, ErrorKind, Result};
use crate::events::Event;
use crate::framed::Unusable;
use crate::load::{Errand, Load, Storing};
use crate::loader::Loader;
use crate::read::{Age, Counted, Read, ReadOptions, Source};
use crate::refresh::Rules;
use crate::region::{Region, Undecodable};
use crate::single_flight::{Demand, LoadFuture, NoneIs, Part};
use crate::stats;
use crate::terms::Terms;
use crate::timeouts;
use crate::ttl::TimeLeft;

/// What a backend read gave, decoded.
pub(crate) enum Looked<T> {
    Value(Read<T>),
    /// It is past its TTL, and this reader takes such.
    Stale(Read<T>),
    Nothing,
}

impl<T> Looked<T> {
    pub(crate) fn shared(self) -> Looked<Arc<T>> {
        match self {
            Self::Value(read) => Looked::Value(read.shared()),
            Self::Stale(read) => Looked::Stale(read.shared()),
            Self::Nothing => Looked::Nothing,
        }
    }
}

/// How much longer a value that was found is fresh, where that matters and is known; of "the source has none" it does not.
pub(crate) type FreshFor = Option<Duration>;

impl<T: DeserializeOwned> Region<T> {
    pub(crate) async fn read(&self, key: &str, options: ReadOptions) -> Result<Option<Read<T>>> {
        if self.is_killed() {
            self.bypassed(key);
            return Ok(None);
        }
        let started = self.cache.observed_from();
        match self.look(key, options).await {
            Ok(Looked::Value(read)) => {
                self.count_hit(key, &read, started);
                Ok(Some(read))
            }
            Ok(Looked::Stale(_) | Looked::Nothing) => {
                self.count_miss(key, started);
                Ok(None)
            }
            Err(error) => {
                let read = Box::pin(self.or_stale(error, key, options)).await?;
                self.observe_read(key, &read, started);
                Ok(Some(read))
            }
        }
    }

    pub(crate) async fn read_many(&self, keys: &[String]) -> Result<Vec<Option<Read<T>>>> {
        if keys.is_empty() {
            return Ok(Vec::new());
        }
        if self.is_killed() {
            for key in keys {
                self.bypassed(key);
            }
            return Ok(keys.iter().map(|_| None).collect());
        }
        if self.framing().is_some() {
            return self.read_many_frames(keys).await;
        }
        let started = self.cache.observed_from();
        let bytes: Vec<Bytes> = keys.iter().map(|key| key.as_bytes().to_vec()).collect();
        let values = match self.cache.backend().await {
            Ok(backend) => backend.get_many(&bytes).await,
            Err(error) => Err(error),
        };
        let values = match values {
            Ok(values) => values,
            Err(error) => {
                stats::count(&self.state.counters.backend_errors);
                return self.all_last_known(error, keys);
            }
        };
        values
            .into_iter()
            .zip(keys)
            .map(|(value, key)| {
                if let Some(Looked::Value(read)) =
                    value.map(|v| self.decoded(&v, Age::Unknown)).transpose()?
                {
                    self.count_hit(key, &read, started);
                    Ok(Some(read))
                } else {
                    self.count_miss(key, started);
                    Ok(None)
                }
            })
            .collect()
    }

    /// One look at the backend.
    pub(crate) async fn look(&self, key: &str, options: ReadOptions) -> Result<Looked<T>> {
        self.look_ahead(key, options).await.map(|(looked, _)| looked)
    }

    /// The same, with what tells whether the value is to be loaded anew.
    #[tracing::instrument(level = "debug", name = "mtcache_read", skip_all, fields(region = self.name(), key = key))]
    pub(crate) async fn look_ahead(&self, key: &str, options: ReadOptions) -> Result<(Looked<T>, FreshFor)> {
        let remembers = self.state.remembers();
        let ticket = if remembers { self.cache.near().begin(key) } else { None };
        if self.framing().is_some() {
            let sent = Instant::now();
            let (looked, sight) = Box::pin(self.look_at_frame(key, options)).await?;
            match &sight {
                Some(sight) => self.remember_frame(ticket, key, sight, sent),
                None if ticket.is_none() && remembers => self.cache.near().forget(key),
                None => {}
            }
            return Ok((looked, sight.and_then(|sight| sight.ahead())));
        }
        let failed = |error: Error| {
            stats::count(&self.state.counters.backend_errors);
            error
        };
        let wants_left = remembers || options.wants_age() || Rules::of(&self.state.policy).is_some();
        let answer = async {
            let backend = self.cache.backend().await?;
            let sent = Instant::now();
            if wants_left {
                let (value, left) = backend.get_with_time_left(key.as_bytes()).await?;
                return Ok((sent, value, Some(left)));
            }
            Ok((sent, backend.get(key.as_bytes()).await?, None))
        };
        let (sent, value, left) = options.in_time(pin!(answer)).await.map_err(failed)?;
        let Some(bytes) = value else {
            self.found_nothing(ticket, key);
            return Ok((Looked::Nothing, None));
        };
        let age = left.map_or(Age::Unknown, |left| self.state.age(&bytes, left));
        if let (Some(left), true) = (left, remembers) {
            self.remember(ticket, key, &bytes, left, sent);
        }
        if !options.accepts(age) {
            return Ok((Looked::Nothing, None));
        }
        Ok((self.decoded(&bytes, age)?, left.and_then(|left| ahead(&bytes, left))))
    }

    pub(crate) fn decoded(&self, bytes: &[u8], age: Age) -> Result<Looked<T>> {
        // Somebody whose type has a place for it cached that there is none; to this reader that is no value.
        if codec::is_null(bytes) && !codec::has_none::<T>() {
            return Ok(Looked::Nothing);
        }
        match self.decode(bytes) {
            Ok(value) => {
                if codec::is_null(bytes) {
                    stats::count(&self.state.counters.none_hits);
                }
                // Whoever hands it out counts it.
                Ok(Looked::Value(Read { counted: Counted::Hit, ..Read::fresh(value, Source::Backend, age) }))
            }
            Err(Unusable { error, counts_as, is_newer }) => {
                let counters = &self.state.counters;
                stats::count(if is_newer { &counters.newer } else { &counters.undecodable });
                match counts_as {
                    Undecodable::Miss => Ok(Looked::Nothing),
                    Undecodable::Error => Err(error),
                }
            }
        }
    }

    pub(crate) fn count_hit<V>(&self, key: &str, read: &Read<V>, started: Option<Instant>) {
        stats::count(&self.state.counters.hits);
        self.observe_read(key, read, started);
    }

    pub(crate) fn count_miss(&self, key: &str, started: Option<Instant>) {
        stats::count(&self.state.counters.misses);
        let (region, key) = (Cow::Borrowed(self.name()), Cow::Borrowed(key));
        self.cache.observe(started, |elapsed| Event::Miss { region, key, elapsed });
    }

    pub(crate) fn observe_read<V>(&self, key: &str, read: &Read<V>, started: Option<Instant>) {
        self.cache.observe(started, |elapsed| Event::Read {
            region: Cow::Borrowed(self.name()),
            key: Cow::Borrowed(key),
            source: read.source,
            staleness: read.staleness,
            elapsed,
        });
    }
}

impl<T> Region<T> {
    /// Counts a hit as a miss; what was no hit stays what it is.
    pub(crate) fn count_no_hit(&self, read: Counted) {
        let counters = &self.state.counters;
        let was_a_hit = match read {
            Counted::NearHit => {
                stats::count(&counters.not_near);
                true
            }
            Counted::Hit => stats::take_back(&counters.hits),
            Counted::NoHit => false,
        };
        if was_a_hit {
            stats::count(&counters.misses);
        }
    }
}

impl<T: Serialize + DeserializeOwned> Region<T> {
    pub(crate) async fn read_through<L>(&self, key: &str, options: ReadOptions, loader: L) -> Result<Read<T>>
    where
        T: Send + 'static,
        L: Loader<T>,
    {
        let started = self.cache.observed_from();
        let mode = self.state.mode();
        if mode == RegionMode::Killed {
            return Box::pin(self.past_the_cache(key, options, loader, started)).await;
        }
        let looked = self.look_ahead(key, options).await;
        if mode == RegionMode::Shadow {
            let looked = looked.map(|(looked, _)| looked);
            return Box::pin(self.shadowed(key, looked, options, loader, started)).await;
        }
        self.answered(key, looked, options, loader, started, |read| read).await
    }

    /// What was found, or what the loader or fail-safe has instead. What was found may be loaded anew behind the caller's back.
    pub(crate) async fn answered<V, L>(
        &self,
        key: &str,
        looked: Result<(Looked<V>, FreshFor)>,
        options: ReadOptions,
        loader: L,
        started: Option<Instant>,
        own: fn(Read<T>) -> Read<V>,
    ) -> Result<Read<V>>
    where
        T: Send + 'static,
        L: Loader<T>,
    {
        let (looked, left) = match looked {
            Ok((looked, left)) => (Ok(looked), left),
            Err(error) => (Err(error), None),
        };
        let stale = match self.found(key, looked, started)? {
            Looked::Value(read) => {
                self.refresh_ahead(key, left, read.age, loader);
                return Ok(read);
            }
            Looked::Stale(read) => Some(read),
            Looked::Nothing => None,
        };
        if let Some(stale) = self.instead_of_loading(key, stale, options, own) {
            self.refresh(key, Errand::Revalidate, loader);
            self.observe_read(key, &stale, started);
            return Ok(stale);
        }
        // What a hit does not need is not part of each read's future, which callers move about.
        Box::pin(self.loaded(key, options, loader, started, Storing::IfCurrent)).await.map(own)
    }

    /// What a read is given at once whose value is loaded in the background: what is there past its TTL, or was last known, where the region
    /// says so.
    pub(crate) fn instead_of_loading<V>(
        &self,
        key: &str,
        stale: Option<Read<V>>,
        options: ReadOptions,
        own: impl FnOnce(Read<T>) -> Read<V>,
    ) -> Option<Read<V>> {
        if !self.state.policy.stale_while_revalidate {
            return None;
        }
        let stale = stale.or_else(|| self.last_known(key, options).map(own))?;
        Some(self.served_stale(stale, "a load that goes on"))
    }

    /// Has a value loaded anew in the background that is near its end.
    pub(crate) fn refresh_ahead<L>(&self, key: &str, left: FreshFor, age: Age, loader: L)
    where
        T: Send + 'static,
        L: Loader<T>,
    {
        if let Some(errand) = self.due(left, age) {
            self.refresh(key, errand, loader);
        }
    }

    /// Whether a value is to be loaded ahead of time, by the region's rules; `left` is what is left of its life.
    pub(crate) fn due(&self, left: FreshFor, age: Age) -> Option<Errand> {
        let (rules, left) = (Rules::of(&self.state.policy)?, left?);
        let due = rules.met(left, self.state.refreshes.load_time())?;
        // One that is half as old was loaded meanwhile, and will do.
        let age = match age {
            Age::Exact(age) | Age::AtMost(age) => age,
            Age::Unknown => self.state.policy.ttl.saturating_sub(left),
        };
        Some(Errand::Ahead { seen_left: left, max_age: age / 2, due })
    }

    /// Loads and stores in the background, unless that goes on already or has just failed.
    fn refresh<L>(&self, key: &str, errand: Errand, loader: L)
    where
        T: Send + 'static,
        L: Loader<T>,
    {
        if self.state.refreshes.is_paused(key, errand.left()) {
            return;
        }
        let departed = self.cache.flights(Storing::IfCurrent).depart(key, || {
            let load = self.load_of(key, ReadOptions::new(), loader, Storing::IfCurrent, errand);
            let (state, key) = (Arc::clone(&self.state), key.to_owned());
            Box::pin(async move {
                let mut attempt = state.refreshes.attempt(&key);
                let landed = load.await;
                if landed.is_ok() {
                    attempt.succeeded();
                }
                landed
            })
        });
        if departed {
            stats::count(&self.state.counters.refreshes);
        }
    }

    fn load_of<L>(
        &self,
        key: &str,
        options: ReadOptions,
        loader: L,
        storing: Storing,
        errand: Errand,
    ) -> LoadFuture
    where
        T: Send + 'static,
        L: Loader<T>,
    {
        let terms = Terms::of(self, options, storing);
        let load = Load { region: self.clone(), terms, key: CachedKey::new(key), errand };
        let span = tracing::debug_span!("mtcache_load", region = self.name(), key);
        Box::pin(load.run(loader).instrument(span))
    }

    /// What a look before a load found.
    pub(crate) fn found<V>(
        &self,
        key: &str,
        looked: Result<Looked<V>>,
        started: Option<Instant>,
    ) -> Result<Looked<V>> {
        let rest = match looked {
            Ok(Looked::Value(read)) => {
                self.count_hit(key, &read, started);
                return Ok(Looked::Value(read));
            }
            Ok(rest) => rest,
            // What is there cannot be read by this caller; loading would neither replace it nor say so.
            Err(error) if matches!(error.kind(), ErrorKind::Undecodable | ErrorKind::WrongType) => {
                return Err(error);
            }
            // Counted in look(). The loader has the value all the same.
            Err(error) => {
                tracing::debug!(region = self.name(), %error, "backend read failed, loading");
                Looked::Nothing
            }
        };
        stats::count(&self.state.counters.misses);
        Ok(rest)
    }

    /// Loads and, as said, stores.
    pub(crate) async fn loaded<L>(
        &self,
        key: &str,
        options: ReadOptions,
        loader: L,
        started: Option<Instant>,
        storing: Storing,
    ) -> Result<Read<T>>
    where
        T: Send + 'static,
        L: Loader<T>,
    {
        let demand = Demand::now(options, NoneIs::to::<T>());
        let load = || self.load_of(key, options, loader, storing, Errand::Readers);
        let mut flight = pin!(self.cache.flights(storing).fly(key, demand, load));
        let (part, landed) = match timeouts::soft(self.state.policy.soft_timeout, &mut flight).await {
            Some(ended) => ended,
            None => match select(&mut flight, pin!(self.known_stale(key, options))).await {
                Either::Left((ended, _)) => ended,
                // The flight goes on without this caller, and stores.
                Either::Right((Some(stale), _)) => {
                    let stale = self.served_unwaited(stale);
                    self.observe_read(key, &stale, started);
                    return Ok(stale);
                }
                Either::Right((None, _)) => flight.await,
            },
        };
        if part == Part::Joined {
            stats::count(&self.state.counters.joined_loads);
        }
        let read = match landed.unwrap_or_else(|| Err(Error::loader_panicked(self.name()))) {
            Ok(landed) => {
                let value = self.decode(landed.bytes()).map_err(|unusable| unusable.error)?;
                Read::fresh(value, landed.source(), landed.age())
            }
            Err(error) => Box::pin(self.or_stale(error, key, options)).await?,
        };
        self.observe_read(key, &read, started);
        Ok(read)
    }
}

/// What is left of a plain value's life, where that matters.
pub(crate) fn ahead(bytes: &[u8], left: TimeLeft) -> FreshFor {
    match left {
        TimeLeft::For(left) if !codec::is_null(bytes) => Some(left),
        _ => None,
    }
}

/// Times are taken only while somebody observes.
impl Cache {
    /// Now, if anybody wants to know.
    #[inline]
    pub(crate) fn observed_from(&self) -> Option<Instant> {
        self.is_heard().then(Instant::now)
    }

    pub(crate) fn observe<'a>(&self, started: Option<Instant>, event: impl FnOnce(Duration) -> Event<'a>) {
        if let Some(started) = started {
            self.event(|| event(started.elapsed()));
        }
    }
}
