//! Who waits for a key to change: woken by the message about it.
//!
//! Invariant: a message that comes after `wake` was made wakes it, however late it begins to wait. It is a help, not a promise: no
//! message may come at all, so whoever waits looks again by itself.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::Mutex;
use tokio::sync::Notify;

#[derive(Default)]
pub(super) struct Wakes {
    /// Looked at for every message; the map only when somebody waits.
    waiting: AtomicUsize,
    by_key: Mutex<HashMap<Box<[u8]>, Waiters>>,
}

struct Waiters {
    told: Arc<Notify>,
    count: usize,
}

/// Wakes its owner when the key is heard to change.
pub(crate) struct Wake {
    wakes: Arc<Wakes>,
    key: Box<[u8]>,
    told: Arc<Notify>,
}

impl Wakes {
    pub(super) fn wake(self: &Arc<Self>, key: &[u8]) -> Wake {
        let mut by_key = self.by_key.lock();
        let waiters = by_key.entry(key.into()).or_insert_with(|| Waiters { told: Arc::default(), count: 0 });
        waiters.count += 1;
        let told = Arc::clone(&waiters.told);
        self.waiting.fetch_add(1, Ordering::Release);
        Wake { wakes: Arc::clone(self), key: key.into(), told }
    }

    pub(super) fn changed(&self, key: &[u8]) {
        if self.waiting.load(Ordering::Acquire) == 0 {
            return;
        }
        if let Some(waiters) = self.by_key.lock().get(key) {
            waiters.told.notify_waiters();
            // For one that has yet to begin to wait.
            waiters.told.notify_one();
        }
    }
}

impl Wake {
    /// Until the key is heard to change.
    pub(crate) async fn heard(&self) {
        self.told.notified().await;
    }
}

impl Drop for Wake {
    fn drop(&mut self) {
        self.wakes.waiting.fetch_sub(1, Ordering::Release);
        let mut by_key = self.wakes.by_key.lock();
        if let Some(waiters) = by_key.get_mut(&self.key) {
            waiters.count -= 1;
            if waiters.count == 0 {
                by_key.remove(&self.key);
            }
        }
    }
}
