//! Fail-safe: the last known value, marked stale, when the loader fails, is shed or slow, or when the backend is down.
//!
//! Of a plain region that is what this process has read or loaded, kept near past its TTL for the region's stale window; of a framed one
//! what the backend keeps for its window, and while the backend is away what this process has read of it. Invariants: a value whose key was
//! set or invalidated here is not known any more when that call returns, and nor is one whose key was heard to change, but by expiring;
//! what is served says that it is stale and how old it is; a region without a stale window serves none. Deliberately absent: where the
//! values lie (`near/store.rs`), and how others are told of an invalidation (`told.rs`).

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use mtcache_link::Moment;
use serde::de::DeserializeOwned;

use crate::backend::Bytes;
use crate::cache::Cache;
use crate::codec;
use crate::control::RegionMode;
use crate::error::{Error, ErrorKind, Result};
use crate::framed::{Sight, Standing};
use crate::near::{self, Keeping, Kept, Known, Ticket, Wake};
use crate::read::{Age, Read, ReadOptions, Source, Staleness};
use crate::region::{Region, RegionState};
use crate::stats;
use crate::tags::Tags;
use crate::ttl::TimeLeft;

/// How long the message about a fill of our own is waited for, before what it has stored is read back all the same.
const OWN_MESSAGE_WAIT: Duration = Duration::from_secs(1);
/// How often that is tried, should the key change meanwhile.
const READ_BACK_TRIES: usize = 3;
/// Keys that are read back at once.
const READ_BACK_STEP: usize = 200;

impl RegionState {
    /// Whether last known values are kept in this process.
    pub(crate) fn remembers(&self) -> bool {
        self.hears_of_stale && !self.policy.stale_window.is_zero()
    }

    /// Whether anything may be served stale now: in the other modes nothing that the cache holds reaches a caller.
    fn serves_stale(&self, options: ReadOptions) -> bool {
        !options.fresh_only && !self.policy.stale_window.is_zero() && self.mode() == RegionMode::On
    }

    /// Plain bytes as they are kept in this process; none if nothing is left of their life.
    pub(crate) fn kept(&self, key: &str, bytes: &[u8], left: TimeLeft, sent: Instant) -> Option<Kept> {
        let expires = sent.checked_add(near::life(left, self.policy.ttl)?)?;
        // "The source has none" has no stale window, as in frames.
        let window = Some(self.window_for(bytes)).filter(|window| self.remembers() && !window.is_zero());
        let until = window.and_then(|window| expires.checked_add(window));
        // The region's TTL bounds what is fresh here; the backend may have it for longer, or for ever.
        let lives_until = match left {
            TimeLeft::For(left) => sent.checked_add(left.saturating_sub(Duration::from_millis(1))),
            _ => until,
        };
        let known = until.map(|until| known(bytes, until, lives_until.unwrap_or(until).max(expires), false));
        Some(Kept {
            value: Arc::new(()),
            age: self.age(bytes, left),
            read: sent,
            expires,
            weight: near::weight::<()>(key, bytes.len()),
            is_none: codec::is_null(bytes),
            tags: None,
            digest: 0,
            known,
        })
    }

    /// What was loaded and could not be stored, as it is kept: known, and never fresh.
    pub(crate) fn unstored(&self, key: &str, bytes: &[u8], began: Instant, ttl: Duration) -> Option<Kept> {
        if !self.remembers() || codec::is_null(bytes) {
            return None;
        }
        let until = began.checked_add(ttl.checked_add(self.policy.stale_window)?)?;
        Some(Kept {
            value: Arc::new(()),
            age: Age::AtMost(Duration::ZERO),
            read: began,
            expires: began,
            weight: near::weight::<()>(key, bytes.len()),
            is_none: codec::is_null(bytes),
            tags: None,
            digest: 0,
            // It is not there: whatever is told is about something else.
            known: Some(known(bytes, until, began, true)),
        })
    }
}

fn known(stored: &[u8], until: Instant, lives_until: Instant, expiry_is_told: bool) -> Arc<Known> {
    let expiry_is_told = AtomicBool::new(expiry_is_told);
    Arc::new(Known { until, lives_until, stored: stored.into(), expiry_is_told })
}

/// A value that is stale.
pub(crate) struct Stale<T> {
    pub(crate) read: Read<T>,
    /// When its window ends, where that is known.
    pub(crate) until: Option<Instant>,
    /// The tags that it carries, if it was read from the backend.
    pub(crate) tags: Option<Arc<Tags>>,
}

impl<T: DeserializeOwned> Region<T> {
    /// What this process knows, if this reader takes a stale value.
    pub(crate) fn last_known(&self, key: &str, options: ReadOptions) -> Option<Read<T>> {
        self.known_here(key, options).map(|stale| stale.read)
    }

    /// The same, and when its window ends.
    pub(crate) fn known_here(&self, key: &str, options: ReadOptions) -> Option<Stale<T>> {
        if !self.state.serves_stale(options) || !self.state.remembers() {
            return None;
        }
        let held = self.cache.near().last_known(key, Instant::now())?;
        let age = held.age(Moment::now());
        let known = held.known()?;
        let read = self.stale(&known.stored, Source::Near, age, options)?;
        Some(Stale { read, until: Some(known.until), tags: None })
    }

    /// A value past its TTL, or one of which nobody knows whether it has changed, to this reader.
    pub(crate) fn stale(
        &self,
        stored: &[u8],
        source: Source,
        age: Age,
        options: ReadOptions,
    ) -> Option<Read<T>> {
        if !self.state.serves_stale(options) || !options.accepts(age) || !self.is_value(stored) {
            return None;
        }
        let value = self.decode(stored).ok()?;
        Some(Read { staleness: Staleness::Stale, ..Read::fresh(value, source, age) })
    }

    /// To be called for every stale value that is given to a caller.
    pub(crate) fn served_stale<V>(&self, read: Read<V>, instead_of: &str) -> Read<V> {
        stats::count(&self.state.counters.stale_served);
        tracing::debug!(region = self.name(), instead_of, age = ?read.age, "served stale");
        read
    }

    /// What a read ends with that has failed: the last known value, where that is what the stale window is for.
    pub(crate) async fn or_stale(&self, error: Error, key: &str, options: ReadOptions) -> Result<Read<T>> {
        self.or_stale_until(error, key, options).await.map(|stale| stale.read)
    }

    /// The same, and when the window of that ends.
    pub(crate) async fn or_stale_until(
        &self,
        error: Error,
        key: &str,
        options: ReadOptions,
    ) -> Result<Stale<T>> {
        if !is_covered(&error) || !self.state.serves_stale(options) {
            return Err(error);
        }
        let mut stale = None;
        if self.framing().is_some() && !error.is_backend_down() {
            match self.stale_frame(key, options).await {
                Ok(Some(there)) => stale = Some(there),
                Err(unread) if unread.is_backend_down() => {}
                _ => return Err(error),
            }
        }
        match stale.or_else(|| self.known_here(key, options)) {
            Some(stale) => Ok(Stale { read: self.served_stale(stale.read, &error.to_string()), ..stale }),
            None => Err(error),
        }
    }

    /// What a read of several ends with that has failed: all of them, or none.
    pub(crate) fn all_last_known(&self, error: Error, keys: &[String]) -> Result<Vec<Option<Read<T>>>> {
        let known =
            keys.iter().map(|key| self.last_known(key, ReadOptions::new())).collect::<Option<Vec<_>>>();
        match known.filter(|_| is_covered(&error)) {
            Some(known) => {
                Ok(known.into_iter().map(|read| Some(self.served_stale(read, &error.to_string()))).collect())
            }
            None => Err(error),
        }
    }

    /// What a read may be given that has waited for its loader as long as the region says; none if it is to wait on.
    pub(crate) async fn known_stale(&self, key: &str, options: ReadOptions) -> Option<Read<T>> {
        self.known_stale_until(key, options).await.map(|stale| stale.read)
    }

    /// The same, and when its window ends.
    pub(crate) async fn known_stale_until(&self, key: &str, options: ReadOptions) -> Option<Stale<T>> {
        let here = || self.known_here(key, options);
        if !self.state.serves_stale(options) {
            return None;
        }
        if self.framing().is_none() {
            return here();
        }
        self.stale_frame(key, options).await.unwrap_or_else(|_| here())
    }

    /// To be called if it is given that.
    pub(crate) fn served_unwaited(&self, read: Read<T>) -> Read<T> {
        stats::count(&self.state.counters.soft_timeouts);
        self.served_stale(read, "a loader that is slow")
    }

    /// What a read ends with whose caller's time is over; no time is left to ask the backend.
    pub(crate) fn late(&self, error: Error, key: &str, options: ReadOptions) -> Result<Read<T>> {
        match self.last_known(key, options).filter(|_| error.kind() == ErrorKind::Deadline) {
            Some(read) => Ok(self.served_stale(read, "a deadline")),
            None => Err(error),
        }
    }

    /// Asked anew, for it may have been invalidated since it was seen; and when its window ends, where that is known.
    async fn stale_frame(&self, key: &str, options: ReadOptions) -> Result<Option<Stale<T>>> {
        let sent = Instant::now();
        let sight = self.cache.see(key, &self.state).await?;
        let seen = sight.filter(|sight| sight.standing != Standing::Fallen);
        Ok(seen.and_then(|sight| {
            let until = match sight.left {
                TimeLeft::For(left) => sent.checked_add(left),
                _ => None,
            };
            let read = self.stale(&sight.bytes, Source::Backend, sight.age, options)?;
            Some(Stale { read, until, tags: sight.tags })
        }))
    }

    /// Keeps what a read of the backend found as the last known value.
    pub(crate) fn remember(
        &self,
        ticket: Option<Ticket>,
        key: &str,
        bytes: &[u8],
        left: TimeLeft,
        sent: Instant,
    ) {
        if !self.state.remembers() {
            return;
        }
        match (ticket, self.state.kept(key, bytes, left, sent)) {
            (Some(_), Some(_)) if !self.is_to_be_kept(key) => {}
            (Some(ticket), Some(kept)) => self.keep(ticket, key, kept),
            _ => self.cache.near().forget(key),
        }
    }

    /// The same of a frame.
    pub(crate) fn remember_frame(&self, ticket: Option<Ticket>, key: &str, sight: &Sight, sent: Instant) {
        if !self.state.remembers() {
            return;
        }
        match (ticket, self.state.kept_frame(&self.cache, key, sight, sent)) {
            (Some(_), Some(_)) if !self.is_to_be_kept(key) => {}
            (Some(ticket), Some(kept)) => self.keep(ticket, key, kept),
            _ => self.cache.near().forget(key),
        }
    }

    /// To be called when the backend has nothing under a key. While nobody tells of changes it may have had something newer meanwhile.
    pub(crate) fn found_nothing(&self, ticket: Option<Ticket>, key: &str) {
        match ticket {
            Some(_) => self.cache.near().is_missing(key, Instant::now()),
            None if self.state.remembers() => self.cache.near().forget(key),
            None => {}
        }
    }

    /// A decoded value that is near already is as good, and shared reads want it.
    fn is_to_be_kept(&self, key: &str) -> bool {
        self.cache.near().get(key.as_bytes()).is_none_or(|held| held.known().is_none())
    }
}

impl<T> Region<T> {
    pub(crate) fn keep(&self, ticket: Ticket, key: &str, kept: Kept) {
        keep(&self.cache, &self.state, ticket, key, kept);
    }
}

impl RegionState {
    /// A frame as it is kept in this process, undecoded.
    pub(crate) fn kept_frame(&self, cache: &Cache, key: &str, sight: &Sight, sent: Instant) -> Option<Kept> {
        let known = self.known_of(sight, sent);
        let expires = sight.fresh_for.and_then(|life| sent.checked_add(life));
        let expires = expires.or(known.as_ref().map(|_| sent))?;
        // Exact when it was read, which was later than `sent`.
        let age = match sight.age {
            Age::Exact(age) => Age::AtMost(age),
            other => other,
        };
        Some(Kept {
            value: Arc::new(()),
            age,
            read: sent,
            expires,
            weight: near::weight::<()>(key, sight.bytes.len()),
            is_none: codec::is_null(&sight.bytes),
            tags: sight.tags.as_deref().and_then(|tags| cache.near().tag_stripes(&tags.keys)),
            digest: 0,
            known,
        })
    }

    /// The backend keeps a frame for its window too, so that what is left of its key's life is all that it may be known for.
    pub(crate) fn known_of(&self, sight: &Sight, sent: Instant) -> Option<Arc<Known>> {
        if !self.remembers() || sight.standing == Standing::Fallen {
            return None;
        }
        let until = sent.checked_add(near::life(sight.left, self.longest_life())?)?;
        Some(known(&sight.bytes, until, until, false))
    }
}

fn keep(cache: &Cache, state: &RegionState, ticket: Ticket, key: &str, kept: Kept) -> Keeping {
    let keeping = cache.near().keep(ticket, key, kept);
    stats::count(match keeping {
        Keeping::Kept => &state.counters.near_kept,
        Keeping::Overtaken => &state.counters.near_overtaken,
        Keeping::TooLarge => &state.counters.near_too_large,
    });
    if keeping != Keeping::Kept {
        cache.near().forget(key);
    }
    keeping
}

/// Whether a stale value is better than this error: it says that there is no newer one to be had now, and not that the call or
/// what is stored is wrong.
fn is_covered(error: &Error) -> bool {
    let by_loading = matches!(
        error.kind(),
        ErrorKind::Loader | ErrorKind::LoaderPanicked | ErrorKind::LoadTimeout | ErrorKind::Shed
    );
    by_loading || error.is_backend_down()
}

/// Reads back what fills have stored, so that it is known when it is needed. Not before the messages about the fills themselves, which would
/// have it forgotten.
pub(crate) fn read_back(cache: &Cache, state: &Arc<RegionState>, stored: Vec<(String, Wake)>) {
    if stored.is_empty() {
        return;
    }
    let (cache, state) = (cache.downgrade(), Arc::clone(state));
    tokio::spawn(async move {
        let (mut keys, wakes): (Vec<String>, Vec<Wake>) = stored.into_iter().unzip();
        let _ = tokio::time::timeout(OWN_MESSAGE_WAIT, join_all(wakes.iter().map(Wake::heard))).await;
        drop(wakes);
        let Some(cache) = cache.upgrade() else { return };
        for _ in 0..READ_BACK_TRIES {
            keys = read_to_keep(&cache, &state, keys).await;
            if keys.is_empty() {
                return;
            }
        }
    });
}

/// Reads these keys and keeps what is there; says which have changed meanwhile.
async fn read_to_keep(cache: &Cache, state: &RegionState, keys: Vec<String>) -> Vec<String> {
    let mut overtaken = Vec::new();
    for step in keys.chunks(READ_BACK_STEP) {
        let tickets: Vec<_> = step.iter().map(|key| cache.near().begin(key)).collect();
        let sent = Instant::now();
        let found = if state.policy.framing.is_some() {
            let look = async |key: &String| {
                let sight = cache.see(key, state).await.ok()??;
                state.kept_frame(cache, key, &sight, sent)
            };
            join_all(step.iter().map(look)).await
        } else {
            let Ok(backend) = cache.backend().await else { return Vec::new() };
            let bytes: Vec<Bytes> = step.iter().map(|key| key.as_bytes().to_vec()).collect();
            let Ok(looks) = backend.look_many(&bytes).await else { return Vec::new() };
            let kept = |(key, look): (&String, Result<(Option<Bytes>, TimeLeft)>)| {
                let (bytes, left) = look.ok()?;
                state.kept(key, &bytes?, left, sent)
            };
            step.iter().zip(looks).map(kept).collect()
        };
        for ((key, ticket), kept) in step.iter().zip(tickets).zip(found) {
            let (Some(ticket), Some(kept)) = (ticket, kept) else { continue };
            if keep(cache, state, ticket, key, kept) == Keeping::Overtaken {
                overtaken.push(key.clone());
            }
        }
    }
    overtaken
}
