//! Invalidations that could not reach the backend, kept until they can.
//!
//! Invariant: after a set or an invalidation failed, nothing is read from the backend before its key has been invalidated there; so
//! no read after a reconnect sees what the failed write was to replace. On a cluster that is so of each key, and other keys are read. No key or
//! prefix waits that a prefix which waits has within it. What is being brought there is so to the end, though the reader that began it leave. The queue is bounded; what does not fit is
//! kept as whole regions (or everything), which are then invalidated by walking their keys. Deliberately absent: the writes
//! themselves: they failed, and their callers know.

use std::collections::{BTreeMap, HashMap};
use std::ops::Bound;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::sync::OwnedMutexGuard;

use crate::backend::{Backend, CachedKey, ClusterBackend};
use crate::clearing::invalidate_prefixes;
use crate::error::{Error, ErrorKind, Result};

/// How many keys can be waiting one by one.
pub(crate) const MAX_KEYS: usize = 10_000;
/// How many prefixes can be waiting; beyond, whole regions stand in for parts of them.
pub(crate) const MAX_PREFIXES: usize = 1000;
/// How many keys one step of the replay invalidates.
const BATCH: usize = 500;
/// Pause between two attempts to invalidate in a cluster of which a part is away; meanwhile the rest is read.
const PART_PAUSE: Duration = Duration::from_millis(100);

#[derive(Default)]
pub(crate) struct Pending {
    /// Looked at before every read; everything else only when it is set.
    waiting: AtomicBool,
    queue: Mutex<Queue>,
    replaying: Arc<tokio::sync::Mutex<()>>,
    /// When it was last tried on a cluster.
    tried: Arc<tokio::sync::Mutex<Option<Instant>>>,
}

type Tried = OwnedMutexGuard<Option<Instant>>;

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

    /// Brings what waits to the backend. An error means that it still waits, and that the backend must not be read.
    pub(crate) async fn bring(&self, backend: &Backend) -> Result<()> {
        match (self.turn(backend).await, backend) {
            (None, _) => Ok(()),
            (Some(Turn::InPart(tried)), Backend::Cluster(cluster)) => {
                self.replay_in_part(backend, cluster, tried).await;
                Ok(())
            }
            (Some(_turn), _) => self.replay_all(backend).await,
        }
    }

    async fn replay_all(&self, backend: &Backend) -> Result<()> {
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
                match invalidate_prefixes(backend, &names, &mut |_| {}).await {
                    Err(error) if error.is_forbidden() => clear_what_may_be(backend, names).await?,
                    cleared => drop(cleared?),
                }
                let mut queue = self.queue.lock();
                queue.prefixes.retain(|prefix, failure| prefixes.get(prefix) != Some(failure));
                tracing::info!(prefixes = prefixes.len(), "clearings that had waited were replayed");
                continue;
            }
            let keys: Vec<CachedKey> = batch.iter().map(|(key, _)| key.clone()).collect();
            match backend.delete(&keys).await {
                Err(error) if error.is_forbidden() => delete_what_may_be(backend, &keys).await?,
                deleted => drop(deleted?),
            }
            let mut queue = self.queue.lock();
            for (key, failure) in &batch {
                if queue.keys.get(key) == Some(failure) {
                    queue.keys.remove(key);
                }
            }
            tracing::info!(keys = batch.len(), "invalidations that had waited were replayed");
        }
    }

    async fn replay_in_part(&self, backend: &Backend, cluster: &ClusterBackend, mut tried: Tried) {
        let waiting: Vec<(CachedKey, u64)> =
            self.queue.lock().keys.iter().map(|(key, failure)| (key.clone(), *failure)).collect();
        let keys: Vec<CachedKey> = waiting.iter().map(|(key, _)| key.clone()).collect();
        let mut done = Vec::with_capacity(keys.len());
        for (key, outcome) in keys.iter().zip(cluster.delete_each(&keys).await) {
            done.push(match outcome {
                // Some other key of its slot may be what is forbidden.
                Err(error) if error.is_forbidden() => {
                    delete_what_may_be(backend, std::slice::from_ref(key)).await.is_ok()
                }
                outcome => outcome.is_ok(),
            });
        }
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

/// Deletes keys one by one, and gives up those that our user may not delete: they would keep all others from being read for ever.
async fn delete_what_may_be(backend: &Backend, keys: &[CachedKey]) -> Result<()> {
    for key in keys {
        match backend.delete(std::slice::from_ref(key)).await {
            Err(error) if error.is_forbidden() => {
                let key = String::from_utf8_lossy(&key.key);
                tracing::error!(%key, %error, "an invalidation is given up; the key keeps its old value until its TTL");
            }
            deleted => drop(deleted?),
        }
    }
    Ok(())
}

/// The same of what begins with these.
async fn clear_what_may_be(backend: &Backend, prefixes: Vec<Vec<u8>>) -> Result<()> {
    for prefix in prefixes {
        match invalidate_prefixes(backend, std::slice::from_ref(&prefix), &mut |_| {}).await {
            Err(error) if error.is_forbidden() => {
                let prefix = String::from_utf8_lossy(&prefix);
                tracing::error!(%prefix, %error, "a clearing is given up; what it meant keeps its old values until their TTL");
            }
            cleared => drop(cleared?),
        }
    }
    Ok(())
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
