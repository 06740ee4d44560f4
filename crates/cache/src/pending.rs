//! Invalidations that could not reach the backend, kept until they can.
//!
//! Invariant: after a set or an invalidation failed, nothing is read from the backend before its key has been invalidated there; so
//! no read after a reconnect sees what the failed write was to replace. On a cluster that is so of each key, and other keys are read. No key or
//! prefix waits that a prefix which waits has within it. What is being brought there is so to the end, though the reader that began it leave. The queue is bounded; what does not fit is
//! kept as whole regions (or everything), which are then invalidated by walking their keys. Deliberately absent: the writes
//! themselves: they failed, and their callers know.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::ops::Bound;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use parking_lot::Mutex;
use tokio::sync::{OwnedMutexGuard, watch};

use crate::backend::{Backend, CachedKey, ClusterBackend};
use crate::clearing::{Cleared, invalidate_prefixes};
use crate::error::{Error, ErrorKind, Result};

/// How many keys can be waiting one by one.
pub(crate) const MAX_KEYS: usize = 10_000;
/// How many prefixes can be waiting; beyond, whole regions stand in for parts of them.
pub(crate) const MAX_PREFIXES: usize = 1000;
/// How many keys one step of the replay invalidates.
const BATCH: usize = 500;
/// Steps that find out what is forbidden go at once: few, that a link which takes few commands does not shed them.
const HALVES_STEP: usize = 8;
/// Pause between two attempts to invalidate in a cluster of which a part is away; meanwhile the rest is read.
const PART_PAUSE: Duration = Duration::from_millis(100);

#[derive(Default)]
pub(crate) struct Pending {
    /// Looked at before every read; everything else only when it is set.
    waiting: AtomicBool,
    queue: Mutex<Queue>,
    replaying: Arc<tokio::sync::Mutex<()>>,
    /// The attempt of a thread, where it takes one.
    attempt: Mutex<Option<Attempt>>,
    /// When it was last tried on a cluster.
    tried: Arc<tokio::sync::Mutex<Option<Instant>>>,
}

type Tried = OwnedMutexGuard<Option<Instant>>;
/// How an attempt has ended, once it has.
pub(crate) type Attempt = watch::Receiver<Option<Result<()>>>;
/// Is told of a key, or of what a clearing meant began with, that is given up.
pub(crate) type Lost<'a> = &'a (dyn Fn(&[u8]) + Sync);

/// The right of one at a time to bring what waits to the backend.
enum Turn {
    /// All of it.
    Whole(#[allow(dead_code, reason = "held, not looked at")] OwnedMutexGuard<()>),
    /// What can be brought to the primaries that answer.
    InPart(Tried),
}

/// Each entry with the number of the failure that put it here last: one that failed again while it was being replayed stays.
#[derive(Default)]
struct Queue {
    keys: HashMap<CachedKey, u64>,
    /// Of whole regions, parts of them, or everything; none begins with another.
    prefixes: BTreeMap<Vec<u8>, u64>,
    failures: u64,
    /// The failures and the keys that the cluster's bar is of.
    barred: (u64, usize),
}

impl Queue {
    fn is_empty(&self) -> bool {
        self.keys.is_empty() && self.prefixes.is_empty()
    }

    /// The failure of the prefix that waits and that this begins with. None begins with another: it is the last that is not behind this.
    fn covering(&mut self, name: &[u8]) -> Option<&mut u64> {
        let (prefix, failure) =
            self.prefixes.range_mut::<[u8], _>((Bound::Unbounded, Bound::Included(name))).next_back()?;
        name.starts_with(prefix).then_some(failure)
    }

    /// Has a prefix wait, in place of all that begins with it; or the one that it begins with, once more.
    fn await_prefix(&mut self, prefix: &str, failure: u64) {
        let prefix = prefix.as_bytes();
        if let Some(waiting) = self.covering(prefix) {
            *waiting = failure;
            return;
        }
        self.keys.retain(|key, _| !key.key.starts_with(prefix));
        self.prefixes.retain(|waiting, _| !waiting.starts_with(prefix));
        self.prefixes.insert(prefix.to_vec(), failure);
    }

    /// Has the cluster refuse to read what waits. Called with the queue locked, so that the bar is never of another time.
    fn bar(&mut self, cluster: &ClusterBackend) {
        let now = (self.failures, self.keys.len());
        if self.barred != now {
            cluster.bar(self.keys.keys().map(|key| key.key.clone()).collect());
            self.barred = now;
        }
    }
}

impl Pending {
    /// Queues the invalidation of keys, which all begin with the prefix of their region if they have one.
    ///
    /// When the queue is full the whole region stands in for its keys. Keys of no region have nothing that could: what shares their
    /// prefix may be anything. Those are given up, loudly; what was stored under them lives until its TTL. Says how many were.
    pub(crate) fn push<'a>(
        &self,
        keys: impl IntoIterator<Item = &'a CachedKey>,
        region: Option<&str>,
    ) -> u64 {
        let mut lost = 0;
        let mut queue = self.queue.lock();
        queue.failures += 1;
        let failure = queue.failures;
        for key in keys {
            if let Some(waiting) = queue.covering(&key.key) {
                *waiting = failure;
                continue;
            }
            if queue.keys.len() < MAX_KEYS || queue.keys.contains_key(key) {
                queue.keys.insert(key.clone(), failure);
                continue;
            }
            let Some(prefix) = region else {
                lost += 1;
                continue;
            };
            tracing::warn!(
                region = prefix,
                "too many invalidations wait; the whole region will be invalidated"
            );
            queue.await_prefix(prefix, failure);
        }
        self.waiting.store(true, Ordering::Release);
        if lost > 0 {
            tracing::error!(
                keys = lost,
                "too many invalidations wait; these keys keep their old values until their TTL"
            );
        }
        lost
    }

    /// Queues the invalidation of everything with this prefix, which begins with the one of its region if it has one.
    ///
    /// When too many wait the whole region stands in, as with keys; false if there is none that could, and it is given up.
    pub(crate) fn push_prefix(&self, prefix: &str, region: Option<&str>) -> bool {
        let mut queue = self.queue.lock();
        queue.failures += 1;
        let failure = queue.failures;
        let is_full = queue.prefixes.len() >= MAX_PREFIXES && queue.covering(prefix.as_bytes()).is_none();
        match region {
            _ if !is_full || prefix.is_empty() => queue.await_prefix(prefix, failure),
            Some(region) => {
                tracing::warn!(region, "too many clearings wait; the whole region will be invalidated");
                queue.await_prefix(region, failure);
            }
            None => {
                tracing::error!(
                    prefix,
                    "too many clearings wait; what this one meant keeps its old values until their TTL"
                );
                return false;
            }
        }
        self.waiting.store(true, Ordering::Release);
        true
    }

    /// How many keys and prefixes wait.
    pub(crate) fn len(&self) -> (usize, usize) {
        let queue = self.queue.lock();
        (queue.keys.len(), queue.prefixes.len())
    }

    /// Looked at before every read.
    #[inline]
    pub(crate) fn is_waiting(&self) -> bool {
        self.waiting.load(Ordering::Acquire)
    }

    /// The attempt that is under way, or one that `begin` begins. Who waits for it, and stands still, stands in nobody's way.
    pub(crate) fn attempt(
        &self,
        begin: impl FnOnce(watch::Sender<Option<Result<()>>>) -> Result<()>,
    ) -> Result<Attempt> {
        let mut attempt = self.attempt.lock();
        // One that panicked has nobody left to tell.
        let is_under_way = |ended: &&Attempt| ended.borrow().is_none() && ended.has_changed().is_ok();
        if let Some(under_way) = attempt.as_ref().filter(is_under_way) {
            return Ok(under_way.clone());
        }
        let (sender, receiver) = watch::channel(None);
        begin(sender)?;
        *attempt = Some(receiver.clone());
        Ok(receiver)
    }

    /// The turn to bring what waits to the backend; none if a reader need not wait for that.
    async fn turn(&self, backend: &Backend) -> Option<Turn> {
        if let Backend::Cluster(cluster) = backend
            && self.is_in_part(cluster)
        {
            // Somebody else is at it, or was just now.
            let tried = Arc::clone(&self.tried).try_lock_owned().ok()?;
            let is_due = tried.is_none_or(|tried| tried.elapsed() >= PART_PAUSE);
            return is_due.then_some(Turn::InPart(tried));
        }
        // One at a time; the others wait, since none may read before it is done.
        let turn = Arc::clone(&self.replaying).lock_owned().await;
        self.is_waiting().then_some(Turn::Whole(turn))
    }

    /// What waits for one primary of a cluster does not keep reads from the others: its keys are barred instead, and it is tried now and
    /// then. False if prefixes wait, whose keys are everywhere.
    fn is_in_part(&self, cluster: &ClusterBackend) -> bool {
        let mut queue = self.queue.lock();
        queue.bar(cluster);
        queue.prefixes.is_empty()
    }

    /// Brings what waits to the backend; `lost` is told of what our user may not invalidate there, which is given up. An error means that it
    /// still waits, and that the backend must not be read.
    pub(crate) async fn bring(&self, backend: &Backend, lost: Lost<'_>) -> Result<()> {
        match (self.turn(backend).await, backend) {
            (None, _) => Ok(()),
            (Some(Turn::InPart(tried)), Backend::Cluster(cluster)) => {
                self.replay_in_part(backend, cluster, tried, lost).await;
                Ok(())
            }
            (Some(_turn), _) => self.replay_all(backend, lost).await,
        }
    }

    async fn replay_all(&self, backend: &Backend, lost: Lost<'_>) -> Result<()> {
        loop {
            let (batch, prefixes) = {
                let mut queue = self.queue.lock();
                if queue.is_empty() {
                    if let Backend::Cluster(cluster) = backend {
                        queue.bar(cluster);
                    }
                    self.waiting.store(false, Ordering::Release);
                    return Ok(());
                }
                let batch: Vec<_> = queue.keys.iter().take(BATCH).map(|(key, n)| (key.clone(), *n)).collect();
                // What takes a walk comes after the keys, all of it in one walk.
                let prefixes = if batch.is_empty() { queue.prefixes.clone() } else { BTreeMap::new() };
                (batch, prefixes)
            };
            if batch.is_empty() {
                let names: Vec<Vec<u8>> = prefixes.keys().cloned().collect();
                clear_what_may_be(backend, &names, lost).await?;
                let mut queue = self.queue.lock();
                queue.prefixes.retain(|prefix, failure| prefixes.get(prefix) != Some(failure));
                tracing::info!(prefixes = prefixes.len(), "clearings that had waited were replayed");
                continue;
            }
            let keys: Vec<CachedKey> = batch.iter().map(|(key, _)| key.clone()).collect();
            delete_what_may_be(backend, &keys, lost).await?;
            let mut queue = self.queue.lock();
            for (key, failure) in &batch {
                if queue.keys.get(key) == Some(failure) {
                    queue.keys.remove(key);
                }
            }
            tracing::info!(keys = batch.len(), "invalidations that had waited were replayed");
        }
    }

    async fn replay_in_part(
        &self,
        backend: &Backend,
        cluster: &ClusterBackend,
        mut tried: Tried,
        lost: Lost<'_>,
    ) {
        let waiting: Vec<(CachedKey, u64)> =
            self.queue.lock().keys.iter().map(|(key, failure)| (key.clone(), *failure)).collect();
        let keys: Vec<CachedKey> = waiting.iter().map(|(key, _)| key.clone()).collect();
        let outcomes = cluster.delete_each(&keys).await;
        // Some other key of its slot may be what is forbidden.
        let is_refused = |outcome: &Result<()>| outcome.as_ref().is_err_and(Error::is_forbidden);
        let refused = keys.iter().zip(&outcomes).filter(|(_, outcome)| is_refused(outcome));
        let refused: Vec<CachedKey> = refused.map(|(key, _)| key.clone()).collect();
        let given_up = delete_what_may_be(backend, &refused, lost).await.is_ok();
        let done = outcomes.iter().map(|outcome| outcome.is_ok() || given_up && is_refused(outcome));
        let done: Vec<bool> = done.collect();
        *tried = if done.iter().all(|done| *done) { None } else { Some(Instant::now()) };
        let mut queue = self.queue.lock();
        for ((key, failure), done) in waiting.iter().zip(done) {
            if done && queue.keys.get(key) == Some(failure) {
                queue.keys.remove(key);
            }
        }
        queue.bar(cluster);
        if queue.is_empty() {
            self.waiting.store(false, Ordering::Release);
        }
    }
}

/// The attempt to bring what waits to the backend came to no end of its own.
pub(crate) fn panicked() -> Error {
    Error::new(ErrorKind::Unavailable, "what waits to be invalidated waits on: the attempt to do so panicked")
}

/// Deletes keys, and gives up those that our user may not delete: they would keep all others from being read for ever.
async fn delete_what_may_be(backend: &Backend, keys: &[CachedKey], lost: Lost<'_>) -> Result<()> {
    let refused = delete_in_halves(backend, keys).await?;
    // It may be only that others are told which is forbidden.
    let told = refused.iter().filter(|(key, _)| key.gone.is_some());
    let untold: Vec<CachedKey> = told.map(|(key, _)| CachedKey { gone: None, ..(*key).clone() }).collect();
    let kept = delete_in_halves(backend, &untold).await?;
    let kept: HashSet<&[u8]> = kept.into_iter().map(|(key, _)| key.key.as_slice()).collect();
    for (key, error) in refused {
        let name = String::from_utf8_lossy(&key.key);
        if key.gone.is_some() && !kept.contains(key.key.as_slice()) {
            tracing::error!(key = %name, %error, "{UNTOLD}");
        } else {
            tracing::error!(key = %name, %error, "an invalidation is given up; the key keeps its old value until its TTL");
            lost(&key.key);
        }
    }
    Ok(())
}

const UNTOLD: &str =
    "an invalidation was made and may not be told; other processes may serve what they knew, marked stale";

/// Deletes what may be deleted; returns the rest.
async fn delete_in_halves<'a>(
    backend: &Backend,
    keys: &'a [CachedKey],
) -> Result<Vec<(&'a CachedKey, Error)>> {
    let mut halves = Halves::of(keys);
    while halves.is_open() {
        let mut outcomes = Vec::with_capacity(halves.parts.len());
        for some in halves.parts.chunks(HALVES_STEP) {
            outcomes.extend(join_all(some.iter().map(|part| backend.delete(part))).await);
        }
        halves.settle(outcomes)?;
    }
    Ok(halves.forbidden)
}

/// Clears what begins with these, and gives up what our user may not clear.
async fn clear_what_may_be(backend: &Backend, prefixes: &[Vec<u8>], lost: Lost<'_>) -> Result<()> {
    let mut halves = Halves::of(prefixes);
    while halves.is_open() {
        let mut outcomes = Vec::with_capacity(halves.parts.len());
        // Each of them walks over all keys.
        for part in &halves.parts {
            let cleared = invalidate_prefixes(backend, part, &mut |_| {}).await;
            if let Ok(Cleared { untold: Some(error), .. }) = &cleared {
                let prefixes: Vec<_> = part.iter().map(|prefix| String::from_utf8_lossy(prefix)).collect();
                tracing::error!(?prefixes, %error, "{UNTOLD}");
            }
            outcomes.push(cleared);
        }
        halves.settle(outcomes)?;
    }
    for (prefix, error) in halves.forbidden {
        let name = String::from_utf8_lossy(prefix);
        tracing::error!(prefix = %name, %error, "a clearing is given up; what it meant keeps its old values until their TTL");
        lost(prefix);
    }
    Ok(())
}

/// What is done to all of something at once, and to halves of it where that is forbidden, down to those to which it may not be done: one by one
/// it would take as many trips as there are.
struct Halves<'a, T> {
    parts: Vec<&'a [T]>,
    forbidden: Vec<(&'a T, Error)>,
}

impl<'a, T> Halves<'a, T> {
    fn of(all: &'a [T]) -> Self {
        Self { parts: if all.is_empty() { Vec::new() } else { vec![all] }, forbidden: Vec::new() }
    }

    fn is_open(&self) -> bool {
        !self.parts.is_empty()
    }

    /// What became of each of the parts.
    fn settle<A>(&mut self, outcomes: Vec<Result<A>>) -> Result<()> {
        for (part, outcome) in std::mem::take(&mut self.parts).into_iter().zip(outcomes) {
            match outcome {
                Err(error) if error.is_forbidden() => match part {
                    [one] => self.forbidden.push((one, error)),
                    _ => self.parts.extend(<[_; 2]>::from(part.split_at(part.len() / 2))),
                },
                done => drop(done?),
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn name() -> impl Strategy<Value = String> {
        "[ab:]{0,5}"
    }

    proptest! {
        /// Whatever was queued is covered by what waits, and by one entry alone.
        #[test]
        fn what_waits_covers_what_was_queued_and_nothing_twice(
            pushed in prop::collection::vec((any::<bool>(), name()), 0..30)
        ) {
            let pending = Pending::default();
            for (is_prefix, name) in &pushed {
                if *is_prefix {
                    assert!(pending.push_prefix(name, None));
                } else {
                    assert_eq!(pending.push([&CachedKey::new(name)], None), 0);
                }
            }
            let mut queue = pending.queue.lock();
            for (is_prefix, name) in &pushed {
                let is_covered = queue.covering(name.as_bytes()).is_some();
                let waits = !is_prefix && queue.keys.contains_key(&CachedKey::new(name));
                prop_assert!(is_covered != waits, "{name:?} of {pushed:?}");
            }
            let prefixes: Vec<_> = queue.prefixes.keys().cloned().collect();
            for (place, prefix) in prefixes.iter().enumerate() {
                let mut others = prefixes.iter().enumerate().filter(|(other, _)| *other != place);
                prop_assert!(!others.any(|(_, other)| prefix.starts_with(other)), "{prefixes:?}");
            }
        }
    }

    #[test]
    fn a_clearing_that_fails_while_the_one_around_it_is_replayed_is_made_once_more() {
        let pending = Pending::default();
        assert!(pending.push_prefix("r:", Some("r:")));
        let replayed = pending.queue.lock().prefixes.clone();
        assert!(pending.push_prefix("r:BTC:", Some("r:")));
        pending.push([&CachedKey::new("r:1")], Some("r:"));
        assert_eq!(pending.len(), (0, 1));
        assert_ne!(pending.queue.lock().prefixes, replayed, "the walk that is under way is not enough");
    }

    #[test]
    fn beyond_the_bound_a_whole_region_stands_in_for_its_parts() {
        let pending = Pending::default();
        for n in 0..MAX_PREFIXES {
            assert!(pending.push_prefix(&format!("r:{n}:"), Some("r:")));
        }
        assert_eq!(pending.len(), (0, MAX_PREFIXES));
        assert!(!pending.push_prefix("of no region:", None), "nothing could stand in");
        assert!(pending.push_prefix("r:7:1h:", Some("r:")), "that waits already");
        assert_eq!(pending.len(), (0, MAX_PREFIXES));
        assert!(pending.push_prefix("other:1:", Some("other:")));
        assert_eq!(pending.len(), (0, MAX_PREFIXES + 1), "as many more as there are regions");
        assert!(pending.push_prefix("r:more:", Some("r:")));
        assert_eq!(pending.len(), (0, 2));
        assert!(pending.push_prefix("", None), "a flush");
        assert_eq!(pending.len(), (0, 1));
    }
}
