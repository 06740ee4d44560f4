//! A connection's outbox: what it receives without having asked, until it can be written, and how much may wait for it.
//!
//! Other connections' threads fill it, the connection's own task empties it. Its size is bounded: a client that does not
//! read is disconnected rather than kept in memory. What the task is writing counts with what waits behind it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering, fence};

use mtcache_engine::{BufferLimit, Config, Mailbox, UnixMillis};
use mtcache_protocol::MAX_REPLY_BYTES;
use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::lane::Bell;

/// Bytes that may wait in one outbox where `client-output-buffer-limit` names no hard limit for the client's class, so
/// that nothing waits without a bound. Default: 256 MB.
pub const MAX_OUTBOX_BYTES: u64 = 256 * 1024 * 1024;

/// `client-output-buffer-limit`, shared by all outboxes of a server.
#[derive(Debug, Default)]
pub(crate) struct OutputLimits([ClassLimit; 3]);

#[derive(Debug, Default)]
struct ClassLimit {
    hard: AtomicU64,
    soft: AtomicU64,
    soft_millis: AtomicU64,
}

impl OutputLimits {
    pub(crate) fn set(&self, config: &Config) {
        for (class, BufferLimit { hard, soft, soft_seconds }) in self.0.iter().zip(config.output_limits()) {
            class.hard.store(hard, Ordering::Relaxed);
            class.soft.store(soft, Ordering::Relaxed);
            class.soft_millis.store(soft_seconds.saturating_mul(1000), Ordering::Relaxed);
        }
    }
}

/// The outbox of one connection.
#[derive(Debug)]
pub(crate) struct Outbox {
    waiting: Mutex<Vec<u8>>,
    /// Whose it is, for the log.
    client: AtomicU64,
    /// Whether `waiting` may hold something, to be asked before each command without taking the lock.
    filled: AtomicBool,
    /// Bytes that the task has taken and not yet written.
    in_flight: AtomicUsize,
    /// Bytes in `waiting`.
    queued: AtomicUsize,
    is_subscriber: AtomicBool,
    /// When the soft limit was first seen exceeded, in Unix milliseconds; zero while it is not.
    over_since: AtomicU64,
    limits: Arc<OutputLimits>,
    closed: AtomicBool,
    /// The worker that the connection is to go to, plus one; zero for none.
    destination: AtomicUsize,
    wake: Notify,
    ended: Notify,
    /// While the connection is in a worker's lane, where nobody waits for `wake`.
    bell: Mutex<Option<Arc<Bell>>>,
    has_bell: AtomicBool,
}

impl Outbox {
    pub(crate) fn new(limits: Arc<OutputLimits>) -> Self {
        Self {
            waiting: Mutex::default(),
            client: AtomicU64::new(0),
            filled: AtomicBool::new(false),
            in_flight: AtomicUsize::new(0),
            queued: AtomicUsize::new(0),
            is_subscriber: AtomicBool::new(false),
            over_since: AtomicU64::new(0),
            limits,
            closed: AtomicBool::new(false),
            destination: AtomicUsize::new(0),
            wake: Notify::new(),
            ended: Notify::new(),
            bell: Mutex::default(),
            has_bell: AtomicBool::new(false),
        }
    }

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
        self.queued.store(0, Ordering::Relaxed);
    }

    /// Whether the connection is to end.
    pub(crate) fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Acquire)
    }

    /// Waits until something has been delivered, or the connection is to end.
    pub(crate) async fn changed(&self) {
        self.wake.notified().await;
    }

    /// Waits until the connection is to end, for whoever waits for something that may never come.
    pub(crate) async fn ended(&self) {
        while !self.is_closed() {
            self.ended.notified().await;
        }
    }

    /// Ends the connection.
    pub(crate) fn end(&self) {
        self.closed.store(true, Ordering::Release);
        self.call();
        self.ended.notify_one();
    }

    /// Says by what the connection is called for while it is no task.
    pub(crate) fn set_bell(&self, bell: Option<Arc<Bell>>) {
        let mut place = self.bell.lock();
        self.has_bell.store(bell.is_some(), Ordering::SeqCst);
        *place = bell;
    }

    /// Whether there is something to send, or the connection is to end.
    pub(crate) fn has_news(&self) -> bool {
        self.filled.load(Ordering::SeqCst) || self.closed.load(Ordering::SeqCst)
    }

    /// Has whoever serves the connection look at it.
    fn call(&self) {
        self.wake.notify_one();
        // With `set_bell` and `has_news`: either this sees the bell, or that sees the news.
        fence(Ordering::SeqCst);
        if self.has_bell.load(Ordering::SeqCst)
            && let Some(bell) = &*self.bell.lock()
        {
            bell.ring(self.client.load(Ordering::Relaxed));
        }
    }

    /// Asks the connection to go to another worker, once it has answered what it is at. An idle one may stay.
    pub(crate) fn ask_to_move(&self, worker: usize) {
        self.destination.store(worker + 1, Ordering::Relaxed);
    }

    /// Where the connection has been asked to go since this was asked last.
    pub(crate) fn asked_to_move(&self) -> Option<usize> {
        if self.destination.load(Ordering::Relaxed) == 0 {
            return None;
        }
        self.destination.swap(0, Ordering::Relaxed).checked_sub(1)
    }

    /// Says whose it is.
    pub(crate) fn set_client(&self, id: u64) {
        self.client.store(id, Ordering::Relaxed);
    }

    /// Says which limits hold from now on.
    pub(crate) fn set_subscriber(&self, is_subscriber: bool) {
        self.is_subscriber.store(is_subscriber, Ordering::Relaxed);
    }

    /// Says how many bytes the task still has to write. False when that is more than the client may let wait.
    pub(crate) fn set_in_flight(&self, bytes: usize) -> bool {
        self.in_flight.store(bytes, Ordering::Relaxed);
        let limit = self.limit();
        if self.over_since.load(Ordering::Relaxed) != 0
            && self.pending() <= limit.soft.load(Ordering::Relaxed)
        {
            self.over_since.store(0, Ordering::Relaxed);
        }
        match limit.hard.load(Ordering::Relaxed) {
            // A reply that was asked for may be of any size, if no limit is set.
            0 => true,
            hard => self.pending() <= hard,
        }
    }

    /// Bytes of replies that may be made at once.
    pub(crate) fn reply_ceiling(&self) -> usize {
        match self.limit().hard.load(Ordering::Relaxed) {
            0 => MAX_REPLY_BYTES,
            hard => usize::try_from(hard).unwrap_or(usize::MAX),
        }
    }

    /// Bytes that wait for the client to read.
    pub(crate) fn pending(&self) -> u64 {
        (self.in_flight.load(Ordering::Relaxed) + self.queued.load(Ordering::Relaxed)) as u64
    }

    /// Looks whether the soft limit has been exceeded for too long. To be called about once a second.
    pub(crate) fn is_over_soft_limit(&self, now: UnixMillis) -> bool {
        let limit = self.limit();
        let soft = limit.soft.load(Ordering::Relaxed);
        if soft == 0 || self.pending() <= soft {
            self.over_since.store(0, Ordering::Relaxed);
            return false;
        }
        match self.over_since.load(Ordering::Relaxed) {
            0 => {
                self.over_since.store(now.0, Ordering::Relaxed);
                false
            }
            since => now.since(UnixMillis(since)) > limit.soft_millis.load(Ordering::Relaxed),
        }
    }

    fn limit(&self) -> &ClassLimit {
        // In the order of the parameter; there are no replicas.
        let [normal, _, pubsub] = &self.limits.0;
        if self.is_subscriber.load(Ordering::Relaxed) { pubsub } else { normal }
    }
}

/// The engine's side of an outbox.
pub(crate) struct OutboxHandle(pub(crate) Arc<Outbox>);

impl Mailbox for OutboxHandle {
    fn deliver(&self, bytes: &[u8]) {
        let outbox = &self.0;
        let limit = match outbox.limit().hard.load(Ordering::Relaxed) {
            0 => MAX_OUTBOX_BYTES,
            hard => hard,
        };
        {
            let mut waiting = outbox.waiting.lock();
            if outbox.is_closed() {
                return;
            }
            let total = outbox.in_flight.load(Ordering::Relaxed) + waiting.len() + bytes.len();
            if total as u64 > limit {
                *waiting = Vec::new();
                outbox.queued.store(0, Ordering::Relaxed);
                drop(waiting);
                tracing::warn!(
                    client = outbox.client.load(Ordering::Relaxed),
                    "a client does not read its messages: closed at {limit} waiting bytes"
                );
                outbox.end();
                return;
            }
            waiting.extend_from_slice(bytes);
            outbox.queued.store(waiting.len(), Ordering::Relaxed);
            outbox.filled.store(true, Ordering::Release);
        }
        outbox.call();
    }

    fn drain_into(&self, replies: &mut Vec<u8>) {
        self.0.drain_into(replies);
    }

    fn pending(&self) -> u64 {
        self.0.pending()
    }

    fn close(&self) {
        self.0.end();
    }

    fn wake(&self) {
        self.0.call();
    }
}
