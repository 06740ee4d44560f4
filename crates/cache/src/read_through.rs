//! The order of steps of a read, with and without a loader. The one place that has it.
//!
//! get: replay what waits, backend, codec. `get_or_load`: the same; on a miss the flight: a place among the region's loads, second look
//! and fill token in one step, loader under its timeout, codec, fill. Invariants: a backend in trouble never keeps a caller from the loader's value; only a
//! read that found nothing counts as a miss. Deliberately absent: the near cache (`shared.rs`, before the
//! backend) and stale values (when the loader fails).

use std::borrow::Cow;
use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::SemaphorePermit;
use tracing::Instrument;

use crate::backend::{Bytes, CachedKey};
use crate::cache::Cache;
use crate::codec;
use crate::control::RegionMode;
use crate::error::{Error, ErrorKind, Result};
use crate::events::Event;
use crate::fill_token::{self, Begun, Fill, Permit, Sharing, Suffices, TOKEN_MARGIN};
use crate::framed::{Final, Unusable};
use crate::lease::{Lease, Patience};
use crate::metrics;
use crate::read::{Age, Read, ReadOptions, Source, Staleness};
use crate::region::{Region, RegionState, Undecodable};
use crate::single_flight::{Currency, Demand, Landed, NoneIs, Part};
use crate::stats;
use crate::tags::{Tag, TagToken, Tags};
use crate::timeouts;

/// What a backend read gave, decoded.
pub(crate) enum Looked<T> {
    Value(Read<T>),
    Nothing,
}

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
            Ok(Looked::Nothing) => {
                self.count_miss(key, started);
                Ok(None)
            }
            Err(error) => Err(error),
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
        let values = values.inspect_err(|_| stats::count(&self.state.counters.backend_errors))?;
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
    #[tracing::instrument(level = "debug", name = "mtcache_read", skip_all, fields(region = self.name(), key = key))]
    pub(crate) async fn look(&self, key: &str, options: ReadOptions) -> Result<Looked<T>> {
        if self.framing().is_some() {
            return self.look_at_frame(key, options).await.map(|(looked, _)| looked);
        }
        let failed = |error: Error| {
            stats::count(&self.state.counters.backend_errors);
            error
        };
        let answer = async {
            let backend = self.cache.backend().await?;
            if options.wants_age() {
                let (value, left) = backend.get_with_time_left(key.as_bytes()).await?;
                let age = value.as_deref().map_or(Age::Unknown, |bytes| self.state.age(bytes, left));
                return Ok((value, age));
            }
            Ok((backend.get(key.as_bytes()).await?, Age::Unknown))
        };
        let (value, age) = options.in_time(pin!(answer)).await.map_err(failed)?;
        match value {
            Some(bytes) if options.accepts(age) => self.decoded(&bytes, age),
            _ => Ok(Looked::Nothing),
        }
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
                Ok(Looked::Value(Read { value, source: Source::Backend, staleness: Staleness::Fresh, age }))
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

impl<T: Serialize + DeserializeOwned> Region<T> {
    pub(crate) async fn read_through<F, Fut, E>(
        &self,
        key: String,
        options: ReadOptions,
        loader: F,
    ) -> Result<Read<T>>
    where
        T: Send + 'static,
        F: FnOnce() -> Fut + Send + 'static,
        Fut: Future<Output = std::result::Result<T, E>> + Send + 'static,
        E: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let started = self.cache.observed_from();
        let mode = self.state.mode();
        if mode == RegionMode::Killed {
            return self.past_the_cache(&key, options, loader, started).await;
        }
        let looked = self.look(&key, options).await;
        if mode == RegionMode::Shadow {
            return self.shadowed(&key, looked, options, loader, started).await;
        }
        match self.found(&key, looked, started)? {
            Some(read) => Ok(read),
            None => self.loaded(&key, options, loader, started, Storing::IfCurrent).await,
        }
    }

    /// What a look before a load found; none if the load is to run.
    pub(crate) fn found<V>(
        &self,
        key: &str,
        looked: Result<Looked<V>>,
        started: Option<Instant>,
    ) -> Result<Option<Read<V>>> {
        match looked {
            Ok(Looked::Value(read)) => {
                self.count_hit(key, &read, started);
                return Ok(Some(read));
            }
            Ok(Looked::Nothing) => {}
            // What is there cannot be read by this caller; loading would neither replace it nor say so.
            Err(error) if matches!(error.kind(), ErrorKind::Undecodable | ErrorKind::WrongType) => {
                return Err(error);
            }
            // Counted in look(). The loader has the value all the same.
            Err(error) => tracing::debug!(region = self.name(), %error, "backend read failed, loading"),
        }
        stats::count(&self.state.counters.misses);
        Ok(None)
    }

    /// Loads and, as said, stores.
    pub(crate) async fn loaded<F, Fut, E>(
        &self,
        key: &str,
        options: ReadOptions,
        loader: F,
        started: Option<Instant>,
        storing: Storing,
    ) -> Result<Read<T>>
    where
        T: Send + 'static,
        F: FnOnce() -> Fut + Send + 'static,
        Fut: Future<Output = std::result::Result<T, E>> + Send + 'static,
        E: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let (part, landed) = self
            .cache
            .flights(storing)
            .fly(key, Demand::now(options, NoneIs::to::<T>()), || {
                let region = self.clone();
                let load = Load {
                    cache: self.cache.clone(),
                    state: Arc::clone(&self.state),
                    tags: Arc::clone(&self.view.tags),
                    key: CachedKey::new(key),
                    options,
                    storing,
                    decodes: Box::new(move |bytes| region.is_value(bytes)),
                };
                let region = self.clone();
                let span = tracing::debug_span!("mtcache_load", region = self.name(), key);
                let run = load.run(|| async move {
                    let value = loader().await.map_err(Into::into)?;
                    Ok(region.encode(&value))
                });
                Box::pin(run.instrument(span))
            })
            .await;
        if part == Part::Joined {
            stats::count(&self.state.counters.joined_loads);
        }
        let landed = landed.unwrap_or_else(|| Err(Error::loader_panicked(self.name())))?;
        let value = self.decode(landed.bytes()).map_err(|unusable| unusable.error)?;
        let (source, age) = (landed.source(), landed.age());
        let read = Read { value, source, staleness: Staleness::Fresh, age };
        self.observe_read(key, &read, started);
        Ok(read)
    }
}

/// What becomes of a loaded value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Storing {
    /// It is stored if nothing came in between.
    IfCurrent,
    /// It is stored if nothing was there and nothing came in between; what is there is never the answer.
    IfMissing,
    /// It is only given to those who asked.
    Never,
}

/// One load: what a flight does.
struct Load {
    cache: Cache,
    state: Arc<RegionState>,
    /// What the value will carry.
    tags: Arc<Tags>,
    key: CachedKey,
    options: ReadOptions,
    storing: Storing,
    decodes: Box<dyn Fn(&[u8]) -> bool + Send + Sync>,
}

impl Load {
    async fn run<F, Fut>(self, loader: F) -> Result<Landed>
    where
        F: FnOnce() -> Fut + Send,
        Fut: Future<Output = std::result::Result<Result<Bytes>, Box<dyn std::error::Error + Send + Sync>>>
            + Send,
    {
        // Before the tokens are taken: an invalidation of a tag from here on finds this load.
        let _loading = self.cache.tag_book().loading(&self.key.key, &self.tags);
        let (place, entered) = self.enter().await?;
        let permit = match entered {
            Ok(Some(Begun::Found(bytes, left))) => {
                let age = self.state.age_on(&bytes, left, self.cache.run_of(&self.key.key));
                return Ok(Landed::now(bytes, Source::Backend, age, Currency::MayBeOvertaken));
            }
            Ok(Some(Begun::Load(permit))) => Some(permit),
            // A lease that is not to be had in time is as good as no token.
            Ok(Some(Begun::Held(_)) | None) => None,
            Err(error) => {
                stats::count(&self.state.counters.backend_errors);
                tracing::debug!(region = %self.state.policy.name, %error, "no fill token; the value will not be stored");
                None
            }
        };
        let lease = self.hold(permit.as_ref());
        // Before the loader runs, so that an invalidation during the load invalidates what it stores.
        let taken = match &permit {
            Some(_) => self.take_tags().await,
            None => Ok(Vec::new()),
        };
        let began = Instant::now();
        let outcome = self.load(loader).await;
        drop(place);
        let elapsed = began.elapsed();
        if self.cache.reports_metrics() {
            metrics::load_took(&self.state.policy.name, elapsed.as_secs_f64());
        }
        let counters = &self.state.counters;
        stats::count(&counters.loads);
        stats::add(&counters.load_nanos, u64::try_from(elapsed.as_nanos()).unwrap_or(u64::MAX));
        if outcome.is_err() {
            stats::count(&counters.load_failures);
        }
        self.cache.event(|| Event::Load {
            region: Cow::Borrowed(&self.state.policy.name),
            key: self.key_text(),
            elapsed,
            succeeded: outcome.is_ok(),
        });
        let bytes = outcome?;
        let currency = match (permit, taken) {
            (Some(permit), _) if self.storing == Storing::IfMissing && permit.found_something() => {
                Currency::MayBeOvertaken
            }
            (Some(permit), Ok(taken)) => self.fill(permit, lease, &taken, &bytes, began, elapsed).await,
            (Some(_), Err(error)) => {
                stats::count(&counters.backend_errors);
                tracing::debug!(region = %self.state.policy.name, %error, "no tag tokens; the value is not stored");
                Currency::Current
            }
            // Nobody can tell whether its key has changed meanwhile.
            (None, _) if self.storing == Storing::Never => Currency::MayBeOvertaken,
            // The backend is in trouble, which must not make a load for each reader.
            (None, _) => Currency::Current,
        };
        Ok(Landed::now(bytes, Source::Loader, Age::AtMost(began.elapsed()), currency))
    }

    fn key_text(&self) -> Cow<'_, str> {
        String::from_utf8_lossy(&self.key.key)
    }

    /// A place among the region's loads, and then what the backend says; waits while another process holds the lease.
    async fn enter(&self) -> Result<(SemaphorePermit<'_>, Result<Option<Begun>>)> {
        let (policy, counters) = (&self.state.policy, &self.state.counters);
        let mut patience: Option<Patience> = None;
        loop {
            // The place first: the second look is worth most after the wait, and a token's life must not be spent waiting.
            let place = self.state.limit.place(&policy.name).await.inspect_err(|error| {
                stats::count(&counters.loads_shed);
                self.cache.troubles().note(error);
            })?;
            if self.storing == Storing::Never {
                return Ok((place, Ok(None)));
            }
            let sharing = match policy.lease {
                Some(_) if patience.as_ref().is_none_or(|patience| !patience.is_exhausted()) => {
                    Sharing::Exclusive
                }
                Some(_) => {
                    stats::count(&counters.lease_timeouts);
                    Sharing::Joined
                }
                None => Sharing::Joined,
            };
            match self.begin(sharing).await {
                Ok(Begun::Held(left)) => {
                    // Who waits does not load.
                    drop(place);
                    let patience = patience.get_or_insert_with(|| {
                        stats::count(&counters.lease_waits);
                        let limit = policy.load_timeout + policy.lease.unwrap_or_default();
                        Patience::new(
                            limit,
                            std::str::from_utf8(&self.key.key)
                                .ok()
                                .and_then(|key| self.cache.near().wake(key)),
                        )
                    });
                    patience.pause(left).await;
                }
                begun => return Ok((place, begun.map(Some))),
            }
        }
    }

    fn hold(&self, permit: Option<&Permit>) -> Option<Lease> {
        let policy = &self.state.policy;
        let (token, ttl) = (permit?.lease()?, policy.lease?);
        Some(Lease::hold(&self.cache, &self.key, token, ttl, policy.load_timeout))
    }

    async fn begin(&self, sharing: Sharing) -> Result<Begun> {
        let policy = &self.state.policy;
        let suffices = self.state.suffices(self.options, self.storing);
        let backend = self.cache.backend().await?;
        let token_ttl = policy.lease.unwrap_or(policy.load_timeout + TOKEN_MARGIN);
        match fill_token::begin(backend, &self.key, token_ttl, suffices, sharing).await? {
            // There is a value, but not for this reader: unreadable, or "there is none" to a type that has no place for it.
            Begun::Found(bytes, left)
                if !(self.decodes)(&bytes) || !self.cache.still_stands(&bytes, left).await? =>
            {
                fill_token::begin(backend, &self.key, token_ttl, Suffices::Nothing, sharing).await
            }
            begun => Ok(begun),
        }
    }

    /// The tokens of its tags, for as long as the value may live after the longest load.
    async fn take_tags(&self) -> Result<Vec<(Tag, TagToken)>> {
        if self.tags.is_empty() {
            return Ok(Vec::new());
        }
        let life = self.state.longest_life() + self.state.policy.load_timeout + TOKEN_MARGIN;
        self.tags.take(self.cache.backend().await?, life).await
    }

    async fn load<F, Fut>(&self, loader: F) -> Result<Bytes>
    where
        F: FnOnce() -> Fut + Send,
        Fut: Future<Output = std::result::Result<Result<Bytes>, Box<dyn std::error::Error + Send + Sync>>>
            + Send,
    {
        let policy = &self.state.policy;
        match timeouts::hard(policy.load_timeout, loader()).await {
            Some(Ok(encoded)) => encoded,
            Some(Err(source)) => Err(Error::loader(&policy.name, source)),
            None => Err(Error::load_timeout(&policy.name, policy.load_timeout)),
        }
    }

    async fn fill(
        &self,
        permit: Permit,
        mut lease: Option<Lease>,
        taken: &[(Tag, TagToken)],
        bytes: &[u8],
        began: Instant,
        load_time: Duration,
    ) -> Currency {
        let ttl = self.state.ttl_for(bytes);
        // Whatever comes of it: the next read of this process must not find what was near before.
        let _drops = self.cache.drops_near([self.key.key.as_slice()]);
        let mut stand = true;
        let mut sent = Instant::now();
        let filled: Result<Fill> = async {
            let backend = self.cache.backend().await?;
            let frame = match ttl.filter(|_| self.state.policy.framing.is_some()) {
                Some(ttl) => Some(self.state.finish(
                    bytes,
                    Final { ttl, load_time, clock: backend.run_of(&self.key.key), tags: taken },
                )?),
                None => None,
            };
            let stored = self.state.stored(frame.as_deref().unwrap_or(bytes));
            sent = Instant::now();
            let filled = fill_token::fill(backend, &self.key, permit, stored, ttl, began.elapsed()).await?;
            stand = taken.is_empty() || self.cache.tags_stand(backend, &self.tags, taken).await;
            Ok(filled)
        }
        .await;
        let counters = &self.state.counters;
        if let (Some(lease), Ok(Fill::Stored | Fill::Refused)) = (&mut lease, &filled) {
            lease.is_over();
        }
        match filled {
            Ok(Fill::Stored) => {
                stats::count(&counters.fills_stored);
                if stand { Currency::AsOf(sent) } else { Currency::MayBeOvertaken }
            }
            Ok(Fill::Refused) => {
                stats::count(&counters.fills_refused);
                self.cache.event(|| Event::FillRefused {
                    region: Cow::Borrowed(&self.state.policy.name),
                    key: self.key_text(),
                });
                Currency::MayBeOvertaken
            }
            Ok(Fill::TooLate) => {
                if ttl.is_some() {
                    stats::count(&counters.fills_too_late);
                }
                Currency::AsOf(sent)
            }
            Err(error) => {
                stats::count(&counters.fills_failed);
                stats::count(&counters.backend_errors);
                tracing::debug!(region = %self.state.policy.name, %error, "a loaded value was not stored");
                Currency::after(&error)
            }
        }
    }
}

/// Times are taken only while somebody observes.
impl Cache {
    /// Now, if anybody wants to know.
    pub(crate) fn observed_from(&self) -> Option<Instant> {
        self.is_heard().then(Instant::now)
    }

    pub(crate) fn observe<'a>(&self, started: Option<Instant>, event: impl FnOnce(Duration) -> Event<'a>) {
        if let Some(started) = started {
            self.event(|| event(started.elapsed()));
        }
    }
}
