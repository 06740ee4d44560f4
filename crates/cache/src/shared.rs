//! Reads that share their value: through the near cache, where the region has it on.
//!
//! The steps: near, then as `read_through.rs` has them. Invariant: a value is kept near only with what the backend said is left of its
//! life, under a ticket taken before its read was sent. Deliberately absent: when such a value is dropped (`near.rs`).

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::checker;
use crate::codec;
use crate::control::RegionMode;
use crate::error::{Error, Result};
use crate::framed::Sight;
use crate::keys::{self, KeyParts};
use crate::near::{self, Keeping, Kept, Ticket};
use crate::read::{Age, Read, ReadOptions, Source, Staleness};
use crate::read_through::{Looked, Storing};
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
        self.get_shared_with(id, ReadOptions::new()).await
    }

    /// As [`get_shared`](Self::get_shared), with demands.
    pub async fn get_shared_with(
        &self,
        id: impl KeyParts,
        options: ReadOptions,
    ) -> Result<Option<Read<Arc<T>>>> {
        if self.is_killed() {
            self.bypassed(&self.key(id)?);
            return Ok(None);
        }
        let started = self.cache.observed_from();
        if let Some(read) = self.near_look(&id, options)? {
            self.count_near_hit(&id, &read, started);
            return Ok(Some(read));
        }
        let key = self.key(id)?;
        let look = pin!(self.look_and_keep(&key, options));
        match options.by_deadline(self.name(), look).await? {
            Looked::Value(read) => {
                self.count_hit(&key, &read, started);
                Ok(Some(read))
            }
            Looked::Nothing => {
                self.count_miss(&key, started);
                Ok(None)
            }
        }
    }

    /// Reads an entry from this process's memory alone: at once, without a word to the backend. `None` says that it is not there, or that it
    /// cannot be relied on now; whether the backend has it is for [`get_shared`](Self::get_shared) to find out, and counted there.
    pub fn get_near(&self, id: impl KeyParts, options: ReadOptions) -> Result<Option<Read<Arc<T>>>> {
        if self.is_killed() {
            return Ok(None);
        }
        let started = self.cache.observed_from();
        let read = self.near_look(&id, options)?;
        if let Some(read) = &read {
            self.count_near_hit(&id, read, started);
        }
        Ok(read)
    }

    pub(crate) fn near_look(&self, id: &impl KeyParts, options: ReadOptions) -> Result<Option<Read<Arc<T>>>> {
        if !self.state.policy.near {
            return Ok(None);
        }
        let now = Instant::now();
        let kept = keys::with_joined(&self.state.base, id, |key| self.cache.near().get(key, now))?;
        let Some(kept) = kept else { return Ok(None) };
        let age = kept.age.grown_by(now.saturating_duration_since(kept.read));
        if !options.accepts(age) {
            return Ok(None);
        }
        // A value of another type was kept by somebody who reads the same keys as that.
        let Ok(value) = kept.value.downcast::<T>() else { return Ok(None) };
        if kept.is_none {
            stats::count(&self.state.counters.none_hits);
        }
        Ok(Some(Read { value, source: Source::Near, staleness: Staleness::Fresh, age }))
    }

    pub(crate) fn count_near_hit(&self, id: &impl KeyParts, read: &Read<Arc<T>>, started: Option<Instant>) {
        let counters = &self.state.counters;
        let number = counters.near_hits.fetch_add(1, Ordering::Relaxed);
        stats::count(&counters.hits);
        if counters.control.is_checked(number)
            && let Ok(key) = self.key(id)
        {
            self.cache.check_near(&self.state, key);
        }
        if started.is_some()
            && let Ok(key) = self.key(id)
        {
            self.observe_read(&key, read, started);
        }
    }

    /// One look at the backend; keeps near what it finds.
    async fn look_and_keep(&self, key: &str, options: ReadOptions) -> Result<Looked<Arc<T>>> {
        let ticket = if self.state.policy.near { self.cache.near().begin(key) } else { None };
        let Some(ticket) = ticket else {
            return Ok(match self.look(key, options).await? {
                Looked::Value(read) => Looked::Value(read.shared()),
                Looked::Nothing => Looked::Nothing,
            });
        };
        let failed = |error: Error| {
            stats::count(&self.state.counters.backend_errors);
            error
        };
        if self.framing().is_some() {
            return self.look_at_frame_and_keep(ticket, key, options).await;
        }
        let answer = async {
            let backend = self.cache.backend().await?;
            let sent = Instant::now();
            Ok((sent, backend.get_with_time_left(key.as_bytes()).await?))
        };
        let (sent, (value, left)) = options.in_time(pin!(answer)).await.map_err(failed)?;
        let Some(bytes) = value else { return Ok(Looked::Nothing) };
        let age = self.state.age(&bytes, left);
        if !options.accepts(age) {
            return Ok(Looked::Nothing);
        }
        Ok(match self.decoded(&bytes, age)? {
            Looked::Value(read) => Looked::Value(self.kept_near(ticket, key, &bytes, left, sent, read)),
            Looked::Nothing => Looked::Nothing,
        })
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
        let (read, age) = (read.shared(), self.state.age(bytes, left));
        if let Some(expires) = near::life(left, self.state.policy.ttl).and_then(|life| sent.checked_add(life))
        {
            let value: Arc<T> = Arc::clone(&read.value);
            let weight = near::weight::<T>(key, bytes.len());
            let is_none = codec::is_null(bytes);
            let digest = if self.state.policy.check_every > 0 { checker::digest(bytes) } else { 0 };
            self.keep(
                ticket,
                key,
                Kept { value, age, read: sent, expires, weight, is_none, tags: None, digest },
            );
        }
        read
    }

    /// The same for a framed region.
    async fn look_at_frame_and_keep(
        &self,
        ticket: Ticket,
        key: &str,
        options: ReadOptions,
    ) -> Result<Looked<Arc<T>>> {
        let sent = Instant::now();
        let (Looked::Value(read), Some(sight)) = self.look_at_frame(key, options).await? else {
            return Ok(Looked::Nothing);
        };
        Ok(Looked::Value(self.kept_near_frame(ticket, key, &sight, sent, read)))
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
        if let Some(expires) = sight.fresh_for.and_then(|life| sent.checked_add(life)) {
            let value: Arc<T> = Arc::clone(&read.value);
            let weight = near::weight::<T>(key, sight.unpacked_bytes);
            let is_none = codec::is_null(&sight.bytes);
            let tags = sight.tags.as_deref().and_then(|tags| self.cache.near().tag_stripes(&tags.keys));
            // Exact when it was read, which was later than `sent`.
            let age = match sight.age {
                Age::Exact(age) => Age::AtMost(age),
                other => other,
            };
            let kept = Kept { value, age, read: sent, expires, weight, is_none, tags, digest: 0 };
            self.keep(ticket, key, kept);
        }
        read
    }

    fn keep(&self, ticket: Ticket, key: &str, kept: Kept) {
        let counters = &self.state.counters;
        stats::count(match self.cache.near().keep(ticket, key, kept) {
            Keeping::Kept => &counters.near_kept,
            Keeping::Overtaken => &counters.near_overtaken,
            Keeping::TooLarge => &counters.near_too_large,
        });
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
        let started = self.cache.observed_from();
        let mode = self.state.mode();
        if mode != RegionMode::On {
            let key = self.key(&id)?;
            let read = if mode == RegionMode::Killed {
                self.past_the_cache(&key, options, loader, started).await
            } else {
                let looked = match self.near_look(&id, options)? {
                    Some(read) => Ok(Looked::Value(read)),
                    None => self.look_and_keep(&key, options).await,
                };
                self.shadowed(&key, looked, options, loader, started).await
            };
            return read.map(Read::shared);
        }
        if let Some(read) = self.near_look(&id, options)? {
            self.count_near_hit(&id, &read, started);
            return Ok(read);
        }
        let key = self.key(id)?;
        let call = async {
            let looked = self.look_and_keep(&key, options).await;
            match self.found(&key, looked, started)? {
                Some(read) => Ok(read),
                None => {
                    self.loaded(&key, options, loader, started, Storing::IfCurrent).await.map(Read::shared)
                }
            }
        };
        options.by_deadline(self.name(), pin!(call)).await
    }
}
