//! Invalidations that could not reach the backend, kept until they can.
//!
//! Invariant: after a set or an invalidation failed, nothing is read from the backend before its key has been invalidated there; so
//! no read after a reconnect sees what the failed write was to replace. The queue is bounded; what does not fit is
//! kept as whole regions (or everything), which are then invalidated by walking their keys. Deliberately absent: the writes
//! themselves: they failed, and their callers know.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;

use crate::backend::{Backend, CachedKey};
use crate::error::Result;
use crate::fill_token;

/// How many keys can be waiting one by one.
pub(crate) const MAX_KEYS: usize = 10_000;
/// How many keys one step of the replay invalidates.
const BATCH: usize = 500;

#[derive(Default)]
pub(crate) struct Pending {
    /// Looked at before every read; everything else only when it is set.
    waiting: AtomicBool,
    queue: Mutex<Queue>,
    replaying: tokio::sync::Mutex<()>,
}

/// Each entry with the number of the failure that put it here last: one that failed again while it was being replayed stays.
#[derive(Default)]
struct Queue {
    keys: HashMap<CachedKey, u64>,
    /// Key prefixes of whole regions.
    regions: BTreeMap<String, u64>,
    failures: u64,
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
            if let Some(waiting) = region.and_then(|prefix| queue.regions.get_mut(prefix)) {
                *waiting = failure;
                break;
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
            queue.keys.retain(|k, _| !k.key.starts_with(prefix.as_bytes()));
            queue.regions.insert(prefix.to_owned(), failure);
            break;
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

    /// Queues the invalidation of everything with this prefix.
    pub(crate) fn push_region(&self, prefix: &str) {
        let mut queue = self.queue.lock();
        queue.failures += 1;
        let failure = queue.failures;
        queue.keys.retain(|key, _| !key.key.starts_with(prefix.as_bytes()));
        queue.regions.insert(prefix.to_owned(), failure);
        self.waiting.store(true, Ordering::Release);
    }

    /// How many keys and whole regions wait.
    pub(crate) fn len(&self) -> (usize, usize) {
        let queue = self.queue.lock();
        (queue.keys.len(), queue.regions.len())
    }

    /// Brings what waits to the backend. An error means that it still waits, and that the backend must not be read.
    pub(crate) async fn replay(&self, backend: &Backend) -> Result<()> {
        if !self.waiting.load(Ordering::Acquire) {
            return Ok(());
        }
        self.replay_all(backend).await
    }

    #[cold]
    async fn replay_all(&self, backend: &Backend) -> Result<()> {
        // One at a time; the others wait, since none may read before it is done.
        let _turn = self.replaying.lock().await;
        loop {
            let (batch, region) = {
                let queue = self.queue.lock();
                if queue.keys.is_empty() && queue.regions.is_empty() {
                    self.waiting.store(false, Ordering::Release);
                    return Ok(());
                }
                let batch: Vec<_> = queue.keys.iter().take(BATCH).map(|(key, n)| (key.clone(), *n)).collect();
                (batch, queue.regions.first_key_value().map(|(prefix, n)| (prefix.clone(), *n)))
            };
            if batch.is_empty() {
                let Some((prefix, failure)) = region else { continue };
                invalidate_prefix(backend, &prefix).await?;
                let mut queue = self.queue.lock();
                if queue.regions.get(&prefix) == Some(&failure) {
                    queue.regions.remove(&prefix);
                }
                continue;
            }
            let keys: Vec<CachedKey> = batch.iter().map(|(key, _)| key.clone()).collect();
            backend.delete(&keys).await?;
            let mut queue = self.queue.lock();
            for (key, failure) in &batch {
                if queue.keys.get(key) == Some(failure) {
                    queue.keys.remove(key);
                }
            }
            tracing::info!(keys = batch.len(), "invalidations that had waited were replayed");
        }
    }
}

/// Invalidates every key with this prefix, and every load of one that is under way.
pub(crate) async fn invalidate_prefix(backend: &Backend, prefix: &str) -> Result<u64> {
    let mut invalidated = 0;
    let mut cursor = 0;
    loop {
        let (next, keys) = backend.scan(cursor, prefix.as_bytes()).await?;
        let keys: Vec<_> = keys
            .into_iter()
            .filter(|key| key.starts_with(prefix.as_bytes()))
            .map(|key| CachedKey { token: fill_token::token_key(&key), key })
            .collect();
        if !keys.is_empty() {
            invalidated += backend.delete(&keys).await?;
        }
        if next == 0 {
            break;
        }
        cursor = next;
    }
    // Loads of keys that are absent have only their token.
    let tokens = fill_token::token_prefix();
    cursor = 0;
    loop {
        let (next, keys) = backend.scan(cursor, tokens).await?;
        let keys: Vec<_> = keys
            .into_iter()
            .filter(|token| fill_token::token_is_of_prefix(token, prefix.as_bytes()))
            .map(|token| CachedKey { key: token.clone(), token })
            .collect();
        if !keys.is_empty() {
            backend.delete(&keys).await?;
        }
        if next == 0 {
            return Ok(invalidated);
        }
        cursor = next;
    }
}
