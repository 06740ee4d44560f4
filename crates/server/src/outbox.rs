//! A connection's outbox: what it receives without having asked, until it can be written.
//!
//! Other connections' threads fill it, the connection's own task empties it. Its size is bounded: a subscriber that does
//! not read is disconnected rather than kept in memory.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use mtcache_engine::Mailbox;
use parking_lot::Mutex;
use tokio::sync::Notify;

/// Bytes that may wait in one outbox, as Redis' hard `client-output-buffer-limit` for `pubsub`. Default: 32 MB.
pub const MAX_OUTBOX_BYTES: usize = 32 * 1024 * 1024;

/// The outbox of one connection.
#[derive(Debug, Default)]
pub(crate) struct Outbox {
    waiting: Mutex<Vec<u8>>,
    /// Whether `waiting` may hold something, to be asked before each command without taking the lock.
    filled: AtomicBool,
    closed: AtomicBool,
    wake: Notify,
}

impl Outbox {
    /// Moves what is waiting to the end of `into`.
    pub(crate) fn drain_into(&self, into: &mut Vec<u8>) {
        if !self.filled.load(Ordering::Acquire) {
            return;
        }
        let mut waiting = self.waiting.lock();
        self.filled.store(false, Ordering::Release);
        if into.is_empty() {
            std::mem::swap(&mut *waiting, into);
        } else {
            into.append(&mut waiting);
        }
    }

    /// Whether the connection is to end.
    pub(crate) fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Acquire)
    }

    /// Waits until something has been delivered, or the connection is to end.
    pub(crate) async fn changed(&self) {
        self.wake.notified().await;
    }

    fn end(&self) {
        self.closed.store(true, Ordering::Release);
        self.wake.notify_one();
    }
}

/// The engine's side of an outbox.
pub(crate) struct OutboxHandle(pub(crate) Arc<Outbox>);

impl Mailbox for OutboxHandle {
    fn deliver(&self, bytes: &[u8]) {
        {
            let mut waiting = self.0.waiting.lock();
            if waiting.len() + bytes.len() > MAX_OUTBOX_BYTES {
                drop(waiting);
                tracing::warn!(
                    "a client does not read its messages: closed at {MAX_OUTBOX_BYTES} waiting bytes"
                );
                self.0.end();
                return;
            }
            waiting.extend_from_slice(bytes);
            self.0.filled.store(true, Ordering::Release);
        }
        self.0.wake.notify_one();
    }

    fn drain_into(&self, replies: &mut Vec<u8>) {
        self.0.drain_into(replies);
    }

    fn close(&self) {
        self.0.end();
    }

    fn wake(&self) {
        self.0.wake.notify_one();
    }
}
