//! A client as others see it: identity, address, counters, and a mailbox for what it did not ask for.
//!
//! Invariant: nothing here is needed to run a command; it is the public face of a [`Session`](crate::Session).

use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;

use crate::time::UnixMillis;

/// Where a connection receives messages that are no replies: pub/sub, `MONITOR`, invalidations.
pub trait Mailbox: Send + Sync {
    /// Queues encoded bytes for the client. Must not block.
    fn deliver(&self, bytes: &[u8]);

    /// Asks the connection to close.
    fn close(&self);
}

/// A mailbox of callers that never receive anything.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoMailbox;

impl Mailbox for NoMailbox {
    fn deliver(&self, _: &[u8]) {}
    fn close(&self) {}
}

/// The public face of a session.
pub struct Client {
    /// Unique and ever growing.
    pub id: u64,
    /// The peer's address, as `CLIENT LIST` shows it.
    pub addr: String,
    /// The local address.
    pub laddr: String,
    /// When it connected.
    pub created: UnixMillis,
    pub(crate) mailbox: Box<dyn Mailbox>,
    pub(crate) name: Mutex<Vec<u8>>,
    pub(crate) killed: AtomicBool,
}

impl Client {
    /// A client that has just connected.
    pub fn new(id: u64, addr: String, laddr: String, created: UnixMillis, mailbox: Box<dyn Mailbox>) -> Self {
        Self {
            id,
            addr,
            laddr,
            created,
            mailbox,
            name: Mutex::new(Vec::new()),
            killed: AtomicBool::new(false),
        }
    }

    /// Whether somebody has asked for this connection to end.
    pub fn is_killed(&self) -> bool {
        self.killed.load(Ordering::Relaxed)
    }
}
