//! Reads that share their value: through the near cache, where the region has it on.
//!
//! The steps: near, then as `read_through.rs` has them. Invariant: a value is kept near only with what the backend said is left of its
//! life, under a ticket taken before its read was sent. Deliberately absent: when such a value is dropped (`near.rs`).

use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Instant;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::checker;
use crate::control::RegionMode;
use crate::error::{Error, Result};
use crate::framed::Sight;
use crate::keys::KeyParts;
use crate::loader::{Knowing, Loaded, Loader, Plainly, Previous};
use crate::near::{self, Kept, Life, NearAge, Taken, Ticket};
use crate::read::{Age, Read, ReadOptions, Source};
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
    pub fn get_shared<K: KeyParts>(
        &self,
        id: K,
    ) -> impl Future<Output = Result<Option<Read<Arc<T>>>>> + use<'_, T, K> {
        SharedRead { region: self, step: Step::Asked(id) }
    }

    /// As [`get_shared`](Self::get_shared), with demands.
    pub async fn get_shared_with(
        &self,
        id: impl KeyParts,
        options: ReadOptions,
    ) -> Result<Option<Read<Arc<T>>>> {
        if let Some((value, age)) = self.called_near_hit(&id, &options) {
            return Ok(Some(Read::near(value, age.into())));
        }
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
    #[inline]
    pub fn get_near(&self, id: impl KeyParts, options: ReadOptions) -> Result<Option<Read<Arc<T>>>> {
        match self.called_near_hit(&id, &options) {
            Some((value, age)) => Ok(Some(Read::near(value, age.into()))),
            None => self.get_near_slowly(&id, options),
        }
    }

    #[inline(never)]
    fn get_near_slowly(&self, id: &impl KeyParts, options: ReadOptions) -> Result<Option<Read<Arc<T>>>> {
        match self.near_hit(id, options) {
            Some(read) => Ok(Some(read)),
            // What can be no key is said here, for it is not there either.
            None => self.key(id).map(|_| None),
        }
    }

    /// The value alone of what [`get_near`](Self::get_near) finds, for who asks for nothing else: it is fresh in any case. `None` also for
    /// what can be no key.
    pub fn peek(&self, id: impl KeyParts) -> Option<Arc<T>> {
        match self.near_hit_at_once(&id, &ReadOptions::new()) {
            Some((value, _)) => Some(value),
            None => self.near_hit(&id, ReadOptions::new()).map(Read::into_value),
        }
    }

    /// One look at this process's memory, counted if it finds something and no more is to be done than for most hits. `None` says nothing:
    /// [`near_hit`](Self::near_hit) is to be asked then.
    ///
    /// Who asks does so one after the other, because what comes of both into one and the same variable passes through memory.
    #[allow(
        clippy::inline_always,
        reason = "what a hit is made of passes through memory wherever a call is left"
    )]
    #[inline(always)]
    fn near_hit_at_once(&self, id: &impl KeyParts, options: &ReadOptions) -> Option<(Arc<T>, NearAge)> {
        if self.is_killed() || self.cache.is_heard() {
            return None;
        }
        let near = self.state.near.get()?;
        // In pieces, of which only the value is left in memory for the sake of its drop.
        let Taken { value, life, age } = near.take_at_once(id, self.value)?;
        if !options.accepts(age.into()) {
            return None;
        }
        self.count_if_none(life);
        self.count_near_hit(id);
        Some((value, age))
    }

    /// The same as a function of its own, which hands over what it finds in two registers: a whole [`Read`] would be written, and read again in
    /// pieces of other sizes, for which a processor waits until all that it was to write before is in its cache.
    #[inline(never)]
    fn called_near_hit(&self, id: &impl KeyParts, options: &ReadOptions) -> Option<(Arc<T>, NearAge)> {
        self.near_hit_at_once(id, options)
    }

    /// One look at this process's memory, counted and told of if it finds something.
    #[inline(never)]
    fn near_hit(&self, id: &impl KeyParts, options: ReadOptions) -> Option<Read<Arc<T>>> {
        if self.is_killed() {
            return None;
        }
        let started = self.cache.observed_from();
        // Where somebody listens nothing has been looked for at once yet.
        let (read, _) = match started {
            Some(_) => self.near_look(id, options)?,
            None => self.accepted(self.state.near.get()?.take(id, self.value)?, options)?,
        };
        self.count_near_hit(id);
        self.tell_near_hit(id, started);
        Some(read)
    }

    /// One look at this process's memory.
    pub(crate) fn near_look(&self, id: &impl KeyParts, options: ReadOptions) -> Option<(Read<Arc<T>>, Life)> {
        let near = self.state.near.get()?;
        let taken = match near.take_at_once(id, self.value) {
            Some(taken) => taken,
            None => near.take(id, self.value)?,
        };
        self.accepted(taken, options)
    }

    fn accepted(&self, taken: Taken<T>, options: ReadOptions) -> Option<(Read<Arc<T>>, Life)> {
        let Taken { value, life, age } = taken;
        let age = age.into();
        if !options.accepts(age) {
            return None;
        }
        self.count_if_none(life);
        Some((Read::near(value, age), life))
    }

    #[inline]
    fn count_if_none(&self, life: Life) {
        if life.is_none {
            stats::count(&self.state.counters.none_hits);
        }
    }

    #[allow(
        clippy::inline_always,
        reason = "what a hit is made of passes through memory wherever a call is left"
    )]
    #[inline(always)]
    pub(crate) fn count_near_hit(&self, id: &impl KeyParts) {
        let counters = &self.state.counters;
        let number = counters.near.count();
        if counters.control.is_checked(number) {
            self.check_near_hit(id);
        }
    }

    #[cold]
    fn check_near_hit(&self, id: &impl KeyParts) {
        if let Ok(key) = self.key(id) {
            self.cache.check_near(&self.state, key);
        }
    }

    /// To be called after [`count_near_hit`](Self::count_near_hit); says nothing where nobody listened when the read began.
    pub(crate) fn tell_near_hit(&self, id: &impl KeyParts, started: Option<Instant>) {
        if started.is_some()
            && let Ok(key) = self.key(id)
        {
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
            self.count_near_hit(&id);
            self.tell_near_hit(&id, started);
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

/// A read that is under way.
///
/// By hand for the sake of near hits, see `called_near_hit`: what an `async fn` keeps between its steps passes through memory as well.
struct SharedRead<'a, T, K> {
    region: &'a Region<T>,
    step: Step<'a, T, K>,
}

enum Step<'a, T, K> {
    Asked(K),
    Far(Pin<Box<dyn Future<Output = Result<Option<Read<Arc<T>>>>> + Send + 'a>>),
}

/// Nothing in it is pinned but what is in the box.
impl<T, K> Unpin for SharedRead<'_, T, K> {}

impl<T: DeserializeOwned + Send + Sync + 'static, K: KeyParts> Future for SharedRead<'_, T, K> {
    type Output = Result<Option<Read<Arc<T>>>>;

    #[inline]
    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.get_mut();
        if let Step::Asked(id) = &this.step
            && let Some((value, age)) = this.region.called_near_hit(id, &ReadOptions::new())
        {
            return Poll::Ready(Ok(Some(Read::near(value, age.into()))));
        }
        // Taken apart, so that what is above has no variable with this in which it would have to lie in memory.
        match this.poll_slowly(context) {
            Poll::Ready(read) => Poll::Ready(read),
            Poll::Pending => Poll::Pending,
        }
    }
}

impl<T: DeserializeOwned + Send + Sync + 'static, K: KeyParts> SharedRead<'_, T, K> {
    #[inline(never)]
    fn poll_slowly(&mut self, context: &mut Context<'_>) -> Poll<Result<Option<Read<Arc<T>>>>> {
        loop {
            match &mut self.step {
                Step::Asked(id) => {
                    if let Some(read) = self.region.near_hit(id, ReadOptions::new()) {
                        return Poll::Ready(Ok(Some(read)));
                    }
                    let key = self.region.key(&*id);
                    self.step = Step::Far(Box::pin(self.region.get_far(key, ReadOptions::new())));
                }
                Step::Far(read) => return read.as_mut().poll(context),
            }
        }
    }
}
