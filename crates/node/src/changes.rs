//! Invalidations within the process: who keeps copies of values is told, as a tracking client is over a socket, which keys change.
//!
//! Invariant: the listener is told under the lock of the key's shard: before the reply to the write, and after every reply that showed
//! the older value. So it must be quick, and must not call the engine. Deliberately absent: a heartbeat; nothing lies between.

use std::fmt;
use std::sync::Arc;

use mtcache_engine::{Mailbox, Session};
use mtcache_protocol::{Frame, Reply, Version, decode_frame};
use parking_lot::Mutex;

use crate::Node;

/// Who is told.
pub trait ChangeListener: Send + Sync + 'static {
    /// This key has changed, expired or gone.
    fn changed(&self, key: &[u8]);

    /// Any key may have changed.
    fn all_changed(&self);
}

/// Hears of changed keys, whichever database they are in. Stops when it is dropped.
pub struct Changes {
    node: Arc<Node>,
    session: Mutex<Session>,
}

impl Changes {
    /// Hears of no keys yet.
    pub fn of(node: Arc<Node>, listener: Arc<dyn ChangeListener>) -> Self {
        let mailbox = Box::new(Ear(listener));
        let client = node.engine().connect("in-process".into(), "in-process".into(), mailbox);
        Self { session: Mutex::new(Session::trusted(client)), node }
    }

    /// Has the listener told of keys with this prefix too, from the return of this call on. The error is the engine's refusal: prefixes
    /// must not begin with one another.
    pub fn add_prefix(&self, prefix: &[u8]) -> Result<(), String> {
        let mut session = self.session.lock();
        for command in
            [&[b"HELLO".as_slice(), b"3"][..], &[b"CLIENT", b"TRACKING", b"ON", b"BCAST", b"PREFIX", prefix]]
        {
            let engine = self.node.engine();
            let mut reply = Reply::new(Version::Resp3);
            engine.dispatch(&mut session, command, engine.now(), &mut reply);
            if let Ok(Some((Frame::Error(text), _))) = decode_frame(reply.as_bytes()) {
                return Err(String::from_utf8_lossy(&text).into_owned());
            }
        }
        Ok(())
    }
}

impl Drop for Changes {
    fn drop(&mut self) {
        self.node.engine().disconnect(self.session.get_mut());
    }
}

impl fmt::Debug for Changes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Changes").field("node", &self.node).finish_non_exhaustive()
    }
}

struct Ear(Arc<dyn ChangeListener>);

impl Mailbox for Ear {
    fn deliver(&self, bytes: &[u8]) {
        let keys = match decode_frame(bytes) {
            Ok(Some((Frame::Push(parts), _))) => parts.into_iter().nth(1),
            _ => None,
        };
        match keys {
            Some(Frame::Array(keys)) => {
                for key in keys {
                    match key {
                        Frame::Bulk(key) => self.0.changed(&key),
                        _ => self.0.all_changed(),
                    }
                }
            }
            // Null after a flush. What cannot be understood may mean anything.
            _ => self.0.all_changed(),
        }
    }

    // Nobody but its owner ends it: CLIENT KILL would leave copies of which nobody is told.
    fn close(&self) {}
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Local, NodeOptions};

    #[derive(Default)]
    struct Told(Mutex<Vec<Option<Vec<u8>>>>);

    impl ChangeListener for Told {
        fn changed(&self, key: &[u8]) {
            self.0.lock().push(Some(key.to_vec()));
        }

        fn all_changed(&self) {
            self.0.lock().push(None);
        }
    }

    #[test]
    fn a_listener_is_told_before_the_write_returns_and_of_its_prefixes_alone() {
        let node = Arc::new(Node::open(&NodeOptions::default()).unwrap());
        let told = Arc::new(Told::default());
        let changes = Changes::of(Arc::clone(&node), Arc::<Told>::clone(&told));
        changes.add_prefix(b"a:").unwrap();
        changes.add_prefix(b"b:").unwrap();
        changes.add_prefix(b"a:").unwrap();
        assert!(changes.add_prefix(b"a:b").is_err());
        let local = Local::new(Arc::clone(&node), 0).unwrap();
        let run = |words: &[&[u8]]| {
            let answer = futures_lite(local.command(words));
            assert!(!matches!(answer, crate::Answer::Error(_)), "{answer:?}");
        };
        run(&[b"SET", b"a:1", b"x"]);
        run(&[b"SET", b"c:1", b"x"]);
        run(&[b"CLIENT", b"KILL", b"TYPE", b"normal"]);
        run(&[b"DEL", b"a:1"]);
        run(&[b"SET", b"b:1", b"x"]);
        run(&[b"FLUSHALL"]);
        let expected = [Some(b"a:1".to_vec()), Some(b"a:1".to_vec()), Some(b"b:1".to_vec()), None];
        assert_eq!(told.0.lock().as_slice(), &expected);
        drop(changes);
        run(&[b"SET", b"a:1", b"x"]);
        assert_eq!(told.0.lock().len(), 4, "who has left is told nothing");
    }

    /// Nothing waits in a node without files.
    fn futures_lite<F: Future>(future: F) -> F::Output {
        let mut context = std::task::Context::from_waker(std::task::Waker::noop());
        match std::pin::pin!(future).poll(&mut context) {
            std::task::Poll::Ready(output) => output,
            std::task::Poll::Pending => panic!("a node without files has nothing to wait for"),
        }
    }
}
