//! Reads that share their value: through the near cache, where the region has it on.
//!
//! The steps: near, then as `read_through.rs` has them. Invariant: a value is kept near only with what the backend said is left of its
//! life, under a ticket taken before its read was sent. Deliberately absent: when such a value is dropped (`near.rs`).

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::time::Instant;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::checker;
use crate::control::RegionMode;
use crate::error::{Error, Result};
use crate::framed::Sight;
use crate::keys::KeyParts;
use crate::loader::{Knowing, Loaded, Loader, Plainly, Previous};
use crate::near::{self, Kept, Life, Ticket};
use crate::read::{Age, Counted, Read, ReadOptions, Source};
use crate::read_through::{FreshFor, Looked, ahead};
use crate::refresh::Rules;
use crate::region::Region;
use crate::stats;
use crate::ttl::TimeLeft;

impl<T: DeserializeOwned + Send + Sync + 'static> Region<T> {
    /// Reads an entry whose value is shared with other readers. Where the policy has `near` on, a value that was read before is answered
    /// from this process's memory, undecoded and uncopied, until its key changes anywhere or its life ends.
    ///
    /// A change made by this process is seen by the next read; one made elsewhere once the backend's message about it has come, at the
    /// latest after [`near_heartbeat`](crate::CacheBuilder::near_heartbeat). Where the backend sends no such messages this reads
    /// the backend, as [`get`](Self::get) always does; [`Cache::near_state`](crate::Cache::near_state) tells.
    pub async fn get_shared(&self, id: impl KeyParts) -> Result<Option<Read<Arc<T>>>> {
        // Not `get_shared_with`: to carry demands into a future and through it is a fifth of a hit.
        if let Some(read) = self.near_hit(&id, ReadOptions::new()) {
            return Ok(Some(read));
        }
        Box::pin(self.get_far(self.key(id), ReadOptions::new())).await
    }

    /// As [`get_shared`](Self::get_shared), with demands.
    pub async fn get_shared_with(
        &self,
        id: impl KeyParts,
        options: ReadOptions,
    ) -> Result<Option<Read<Arc<T>>>> {
        if let Some(read) = self.near_hit(&id, options) {
            return Ok(Some(read));
        }
        Box::pin(self.get_far(self.key(id), options)).await
    }

    /// As [`get_shared_with`](Self::get_shared_with), past this process's memory.
    async fn get_far(&self, key: Result<String>, options: ReadOptions) -> Result<Option<Read<Arc<T>>>> {
        let key = key?;
        if self.is_killed() {
            self.bypassed(&key);
            return Ok(None);
        }
        let started = self.cache.observed_from();
        let call = async {
            match self.look_and_keep(&key, options).await {
                Ok((Looked::Value(read), _)) => {
                    self.count_hit(&key, &read, started);
                    Ok(Some(read))
                }
                Ok((Looked::Stale(_) | Looked::Nothing, _)) => {
                    self.count_miss(&key, started);
                    Ok(None)
                }
                Err(error) => {
                    let read = Box::pin(self.or_stale(error, &key, options)).await?.shared();
                    self.observe_read(&key, &read, started);
                    Ok(Some(read))
                }
            }
        };
        let read = options.by_deadline(self.name(), pin!(call)).await;
        read.or_else(|error| self.late(error, &key, options).map(|read| Some(read.shared())))
    }

    /// Reads an entry from this process's memory alone: at once, without a word to the backend. `None` says that it is not there, or that it
    /// cannot be relied on now; whether the backend has it is for [`get_shared`](Self::get_shared) to find out, and counted there.
    pub fn get_near(&self, id: impl KeyParts, options: ReadOptions) -> Result<Option<Read<Arc<T>>>> {
        match self.near_hit(&id, options) {
            Some(read) => Ok(Some(read)),
            // What can be no key is said here, for it is not there either.
            None => self.key(id).map(|_| None),
        }
    }

    /// The value alone of what [`get_near`](Self::get_near) finds, for who asks for nothing else: it is fresh in any case. `None` also for
    /// what can be no key.
    pub fn peek(&self, id: impl KeyParts) -> Option<Arc<T>> {
        if self.is_killed() {
            return None;
        }
        let started = self.cache.observed_from();
        let near = self.state.near.get()?;
        let (held, _) = near.get(&id)?;
        let (value, life) = (held.value(self.value)?, held.life());
        drop(held);
        if life.is_none {
            stats::count(&self.state.counters.none_hits);
        }
        self.count_near_hit(&id, started);
        Some(value)
    }

    /// One look at this process's memory, counted if it finds something.
    #[allow(
        clippy::inline_always,
        reason = "what a hit is made of passes through memory wherever a call is left"
    )]
    #[inline(always)]
    fn near_hit(&self, id: &impl KeyParts, options: ReadOptions) -> Option<Read<Arc<T>>> {
        if self.is_killed() {
            return None;
        }
        let started = self.cache.observed_from();
        let (value, age, _) = self.near_value(id, options)?;
        self.count_near_hit(id, started);
        Some(Read { counted: Counted::NearHit, ..Read::fresh(value, Source::Near, age) })
    }

    /// One look at this process's memory.
    pub(crate) fn near_look(&self, id: &impl KeyParts, options: ReadOptions) -> Option<(Read<Arc<T>>, Life)> {
        let (value, age, life) = self.near_value(id, options)?;
        Some((Read { counted: Counted::NearHit, ..Read::fresh(value, Source::Near, age) }, life))
    }

    #[allow(
        clippy::inline_always,
        reason = "what a hit is made of passes through memory wherever a call is left"
    )]
    #[inline(always)]
    fn near_value(&self, id: &impl KeyParts, options: ReadOptions) -> Option<(Arc<T>, Age, Life)> {
        let near = self.state.near.get()?;
        let (held, now) = near.get(id)?;
        let age = held.age(now);
        if !options.accepts(age) {
            return None;
        }
        let (value, life) = (held.value(self.value)?, held.life());
        drop(held);
        if life.is_none {
            stats::count(&self.state.counters.none_hits);
        }
        Some((value, age, life))
    }

    #[allow(
        clippy::inline_always,
        reason = "what a hit is made of passes through memory wherever a call is left"
    )]
    #[inline(always)]
    pub(crate) fn count_near_hit(&self, id: &impl KeyParts, started: Option<Instant>) {
        let counters = &self.state.counters;
        let number = counters.near.count();
        if counters.control.is_checked(number) {
            self.check_near_hit(id);
        }
        if started.is_some() {
            self.tell_near_hit(id, started);
        }
    }

    #[cold]
    fn check_near_hit(&self, id: &impl KeyParts) {
        if let Ok(key) = self.key(id) {
            self.cache.check_near(&self.state, key);
        }
    }

    #[cold]
    fn tell_near_hit(&self, id: &impl KeyParts, started: Option<Instant>) {
        if let Ok(key) = self.key(id) {
            self.observe_read(&key, &Read::fresh((), Source::Near, Age::Unknown), started);
        }
    }

    /// One look at the backend; keeps near what it finds.
    async fn look_and_keep(&self, key: &str, options: ReadOptions) -> Result<(Looked<Arc<T>>, FreshFor)> {
        let ticket = if self.state.policy.near { self.cache.near().begin(key) } else { None };
        let Some(ticket) = ticket else {
            let (looked, left) = self.look_ahead(key, options).await?;
            return Ok((looked.shared(), left));
        };
        let failed = |error: Error| {
            stats::count(&self.state.counters.backend_errors);
            error
        };
        if self.framing().is_some() {
            return Box::pin(self.look_at_frame_and_keep(ticket, key, options)).await;
        }
        let answer = async {
            let backend = self.cache.backend().await?;
            let sent = Instant::now();
            Ok((sent, backend.get_with_time_left(key.as_bytes()).await?))
        };
        let (sent, (value, left)) = options.in_time(pin!(answer)).await.map_err(failed)?;
        let Some(bytes) = value else {
            self.found_nothing(Some(ticket), key);
            return Ok((Looked::Nothing, None));
        };
        let age = self.state.age(&bytes, left);
        if !options.accepts(age) {
            return Ok((Looked::Nothing, None));
        }
        let looked = match self.decoded(&bytes, age)? {
            Looked::Value(read) => Looked::Value(self.kept_near(ticket, key, &bytes, left, sent, read)),
            other => other.shared(),
        };
        Ok((looked, ahead(&bytes, left)))
    }

    /// Keeps near what was read, if it may be, and shares it.
    pub(crate) fn kept_near(
        &self,
        ticket: Ticket,
        key: &str,
        bytes: &[u8],
        left: TimeLeft,
        sent: Instant,
        read: Read<T>,
    ) -> Read<Arc<T>> {
        let read = read.shared();
        if let Some(kept) = self.state.kept(key, bytes, left, sent) {
            let value: Arc<T> = Arc::clone(&read.value);
            let weight = near::weight::<T>(key, bytes.len()) + kept.known_bytes();
            let digest = if self.state.policy.check_every > 0 { checker::digest(bytes) } else { 0 };
            self.keep(ticket, key, Kept { value, weight, digest, ..kept });
        }
        read
    }

    /// The same for a framed region.
    async fn look_at_frame_and_keep(
        &self,
        ticket: Ticket,
        key: &str,
        options: ReadOptions,
    ) -> Result<(Looked<Arc<T>>, FreshFor)> {
        let sent = Instant::now();
        let (looked, sight) = self.look_at_frame(key, options).await?;
        let Some(sight) = sight else { return Ok((looked.shared(), None)) };
        let left = sight.ahead();
        let looked = match looked {
            Looked::Value(read) => Looked::Value(self.kept_near_frame(ticket, key, &sight, sent, read)),
            other => {
                self.remember_frame(Some(ticket), key, &sight, sent);
                other.shared()
            }
        };
        Ok((looked, left))
    }

    /// As [`kept_near`](Self::kept_near), of a framed region.
    pub(crate) fn kept_near_frame(
        &self,
        ticket: Ticket,
        key: &str,
        sight: &Sight,
        sent: Instant,
        read: Read<T>,
    ) -> Read<Arc<T>> {
        let read = read.shared();
        if let Some(kept) = self.state.kept_frame(&self.cache, key, sight, sent) {
            let value: Arc<T> = Arc::clone(&read.value);
            let weight = near::weight::<T>(key, sight.unpacked_bytes) + kept.known_bytes();
            self.keep(ticket, key, Kept { value, weight, ..kept });
        }
        read
    }
}

impl<T: Serialize + DeserializeOwned + Send + Sync + 'static> Region<T> {
    /// Reads an entry as [`get_shared`](Self::get_shared) does, or loads and stores it as [`get_or_load`](Self::get_or_load) does. What
    /// was loaded is near from the next read on.
    pub async fn get_or_load_shared<F, Fut, E>(&self, id: impl KeyParts, loader: F) -> Result<Read<Arc<T>>>
    where
        F: FnOnce() -> Fut + Send + 'static,
        Fut: Future<Output = std::result::Result<T, E>> + Send + 'static,
        E: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        self.get_or_load_shared_with(id, ReadOptions::new(), loader).await
    }

    /// As [`get_or_load_shared`](Self::get_or_load_shared), with demands.
    pub async fn get_or_load_shared_with<F, Fut, E>(
        &self,
        id: impl KeyParts,
        options: ReadOptions,
        loader: F,
    ) -> Result<Read<Arc<T>>>
    where
        F: FnOnce() -> Fut + Send + 'static,
        Fut: Future<Output = std::result::Result<T, E>> + Send + 'static,
        E: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        self.shared_through(id, options, Plainly(loader)).await
    }

    /// Reads an entry as [`get_shared`](Self::get_shared) does, or loads and stores it as [`get_or_reload`](Self::get_or_reload) does.
    pub async fn get_or_reload_shared<F, Fut, E>(
        &self,
        id: impl KeyParts,
        options: ReadOptions,
        loader: F,
    ) -> Result<Read<Arc<T>>>
    where
        F: FnOnce(Option<Previous<T>>) -> Fut + Send + 'static,
        Fut: Future<Output = std::result::Result<Loaded<T>, E>> + Send + 'static,
        E: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        self.shared_through(id, options, Knowing(loader)).await
    }

    async fn shared_through<L: Loader<T>>(
        &self,
        id: impl KeyParts,
        options: ReadOptions,
        loader: L,
    ) -> Result<Read<Arc<T>>> {
        let started = self.cache.observed_from();
        let mode = self.state.mode();
        if mode != RegionMode::On {
            let key = self.key(&id)?;
            let call = async {
                if mode == RegionMode::Killed {
                    return Box::pin(self.past_the_cache(&key, options, loader, started)).await;
                }
                let looked = match self.near_look(&id, options) {
                    Some((read, _)) => Ok(Looked::Value(read)),
                    None => self.look_and_keep(&key, options).await.map(|(looked, _)| looked),
                };
                Box::pin(self.shadowed(&key, looked, options, loader, started)).await
            };
            return options.by_deadline(self.name(), pin!(call)).await.map(Read::shared);
        }
        if let Some((read, life)) = self.near_look(&id, options) {
            self.count_near_hit(&id, started);
            if Rules::of(&self.state.policy).is_some() {
                self.refresh_ahead(&self.key(&id)?, life.left(), read.age, loader);
            }
            return Ok(read);
        }
        let key = self.key(id)?;
        let call = async {
            let looked = self.look_and_keep(&key, options).await;
            self.answered(&key, looked, options, loader, started, Read::shared).await
        };
        let read = options.by_deadline(self.name(), pin!(call)).await;
        read.or_else(|error| self.late(error, &key, options).map(Read::shared))
    }
}
