//! A mailbox that keeps what is delivered, and a session that owns one.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use mtcache_conformance::Value;
use mtcache_conformance::resp::read_value;
use parking_lot::Mutex;

use crate::client::Mailbox;

/// What a client has been sent without asking.
#[derive(Debug, Clone, Default)]
pub(crate) struct Inbox {
    bytes: Arc<Mutex<Vec<u8>>>,
    closed: Arc<AtomicBool>,
}

impl Inbox {
    /// The messages since the last call, each as the text of a reply.
    pub(crate) fn take(&self) -> Vec<String> {
        let bytes = std::mem::take(&mut *self.bytes.lock());
        let mut rest = bytes.as_slice();
        let mut messages = Vec::new();
        while !rest.is_empty() {
            let value: Value = read_value(&mut rest).unwrap();
            messages.push(format!("{value:?}"));
        }
        messages
    }

    /// The bytes since the last call.
    pub(crate) fn take_text(&self) -> String {
        String::from_utf8(std::mem::take(&mut *self.bytes.lock())).unwrap()
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.closed.load(Ordering::SeqCst)
    }
}

impl Mailbox for Inbox {
    fn deliver(&self, bytes: &[u8]) {
        self.bytes.lock().extend_from_slice(bytes);
    }

    fn close(&self) {
        self.closed.store(true, Ordering::SeqCst);
    }

    fn drain_into(&self, replies: &mut Vec<u8>) {
        replies.append(&mut self.bytes.lock());
    }
}
