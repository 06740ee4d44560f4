//! Callers in the node's own process: commands as calls, without frames or sockets.
//!
//! Invariant: an answer is handed out only when what it saw is as durable as the node promises, exactly as for a
//! connection. Calls of different threads use different sessions, so they wait for each other only where their keys' shards
//! meet. Deliberately absent: waiting, and subscriptions. A call always ends: what would wait finds nothing instead.

use std::cell::Cell;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use mtcache_engine::{NoMailbox, Session};
use mtcache_protocol::{Frame, Reply, Version, decode_frame};
use parking_lot::Mutex;

use crate::{Node, NotDurable, Reached};

/// Sessions per core: enough that threads rarely share one.
const SESSIONS_PER_CORE: usize = 4;

/// A command's answer.
#[derive(Debug, Clone, PartialEq)]
pub enum Answer {
    /// No value.
    Nil,
    /// An integer, or a claim as 0 or 1.
    Int(i64),
    /// A floating number.
    Double(f64),
    /// Bytes, or a short text such as `OK`.
    Bytes(Vec<u8>),
    /// Several answers. A map is its keys and values in turn.
    Array(Vec<Answer>),
    /// A refusal: its code word first. The command had no effect.
    Error(String),
    /// The command has run, and its answer is withheld because the journal failed before what it wrote was durable: others may see
    /// its effect, and a restart may undo it. A connection would get no reply at all.
    NotDurable,
}

/// A way into a node from its own process. Any number of threads may use one.
pub struct Local {
    node: Arc<Node>,
    sessions: Box<[Mutex<Seat>]>,
}

/// A session with the buffer that its replies are written to.
struct Seat {
    session: Session,
    reply: Reply,
}

impl Local {
    /// A way into this node that works in database `db`; none if there is no such database.
    pub fn new(node: Arc<Node>, db: usize) -> Option<Self> {
        let engine = node.engine();
        if db >= engine.databases() {
            return None;
        }
        let db = db.try_into().ok()?;
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let sessions = (0..(cores * SESSIONS_PER_CORE).next_power_of_two())
            .map(|_| {
                let client = engine.connect("in-process".into(), "in-process".into(), Box::new(NoMailbox));
                let mut session = Session::trusted(client);
                session.select(db);
                session.never_wait();
                Mutex::new(Seat { session, reply: Reply::new(Version::Resp2) })
            })
            .collect();
        Some(Self { node, sessions })
    }

    /// The node.
    pub fn node(&self) -> &Arc<Node> {
        &self.node
    }

    /// Runs one command.
    pub async fn command(&self, args: &[&[u8]]) -> Answer {
        let (answer, reached) = self.with_seat(|node, seat| {
            run(node, seat, args);
            read_answer(seat.reply.as_bytes())
        });
        settled(answer, reached).await
    }

    /// Runs several commands as one atomic step; their answers in order. If one is refused before it runs, none has run, and
    /// the refusal is the one answer.
    pub async fn transaction(&self, commands: &[Vec<&[u8]>]) -> Answer {
        let (answer, reached) = self.with_seat(|node, seat| {
            run(node, seat, &[b"MULTI"]);
            for command in commands {
                run(node, seat, command);
                if let refusal @ Answer::Error(_) = read_answer(seat.reply.as_bytes()) {
                    run(node, seat, &[b"DISCARD"]);
                    return refusal;
                }
            }
            run(node, seat, &[b"EXEC"]);
            read_answer(seat.reply.as_bytes())
        });
        settled(answer, reached).await
    }

    /// The bytes of a string key: GET, with one copy. The error is [`Answer::Error`] or [`Answer::NotDurable`].
    pub async fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, Answer> {
        let (value, reached) = self.with_seat(|node, seat| {
            run(node, seat, &[b"GET", key]);
            match bulk(seat.reply.as_bytes()) {
                Some(bytes) => Ok(Some(bytes.to_vec())),
                None => match read_answer(seat.reply.as_bytes()) {
                    refusal @ Answer::Error(_) => Err(refusal),
                    _ => Ok(None),
                },
            }
        });
        match reached {
            None => value,
            Some(reached) => match reached.await {
                Ok(()) => value,
                Err(NotDurable) => Err(Answer::NotDurable),
            },
        }
    }

    fn with_seat<T>(&self, call: impl FnOnce(&Node, &mut Seat) -> T) -> (T, Option<Reached>) {
        let mask = self.sessions.len() - 1;
        // The number of sessions is a power of two, so there is one for every masked number.
        #[allow(clippy::indexing_slicing, reason = "masked to the length")]
        let mut seat = self.sessions[thread_number() & mask].lock();
        let result = call(&self.node, &mut seat);
        let reached = self.node.before_reply(&seat.session);
        if seat.reply.as_bytes().len() > KEEP_BUFFER {
            seat.reply = Reply::new(Version::Resp2);
        }
        (result, reached)
    }
}

/// A reply buffer larger than this is given back after the call.
const KEEP_BUFFER: usize = 64 * 1024;

fn run(node: &Node, seat: &mut Seat, args: &[&[u8]]) {
    seat.reply.clear();
    let engine = node.engine();
    engine.dispatch(&mut seat.session, args, engine.now(), &mut seat.reply);
}

async fn settled(answer: Answer, reached: Option<Reached>) -> Answer {
    match reached {
        None => answer,
        Some(reached) => match reached.await {
            Ok(()) => answer,
            Err(NotDurable) => Answer::NotDurable,
        },
    }
}

/// Each thread's own number, so that threads take different sessions.
fn thread_number() -> usize {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    thread_local! {
        static NUMBER: Cell<usize> = const { Cell::new(usize::MAX) };
    }
    NUMBER.with(|number| {
        if number.get() == usize::MAX {
            number.set(NEXT.fetch_add(1, Ordering::Relaxed));
        }
        number.get()
    })
}

/// The bytes of a bulk string that is the whole reply.
fn bulk(reply: &[u8]) -> Option<&[u8]> {
    let rest = reply.strip_prefix(b"$")?;
    let end = rest.iter().position(|b| *b == b'\r')?;
    if rest.first() == Some(&b'-') {
        return None;
    }
    rest.get(end + 2..)?.strip_suffix(b"\r\n")
}

fn read_answer(reply: &[u8]) -> Answer {
    match decode_frame(reply) {
        Ok(Some((frame, _))) => frame.into(),
        Ok(None) => Answer::Error("ERR the engine gave half an answer".to_owned()),
        Err(error) => Answer::Error(format!("ERR the engine's answer cannot be read: {error}")),
    }
}

impl From<Frame> for Answer {
    fn from(frame: Frame) -> Self {
        match frame {
            Frame::Null | Frame::NullArray => Self::Nil,
            Frame::Integer(n) => Self::Int(n),
            Frame::Boolean(claim) => Self::Int(i64::from(claim)),
            Frame::Double(d) => Self::Double(d),
            Frame::Simple(bytes) | Frame::Bulk(bytes) | Frame::BigNumber(bytes) => Self::Bytes(bytes),
            Frame::Verbatim { data, .. } => Self::Bytes(data),
            Frame::Error(text) => Self::Error(String::from_utf8_lossy(&text).into_owned()),
            Frame::Array(items) | Frame::Set(items) | Frame::Push(items) => {
                Self::Array(items.into_iter().map(Self::from).collect())
            }
            Frame::Map(pairs) => {
                Self::Array(pairs.into_iter().flat_map(|(k, v)| [Self::from(k), Self::from(v)]).collect())
            }
            Frame::Attributed { reply, .. } => Self::from(*reply),
        }
    }
}

impl fmt::Debug for Local {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Local").field("node", &self.node).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::NodeOptions;

    #[test]
    fn a_bulk_is_told_from_its_absence() {
        assert_eq!(bulk(b"$3\r\na\r\n\r\n"), Some(&b"a\r\n"[..]));
        assert_eq!(bulk(b"$0\r\n\r\n"), Some(&b""[..]));
        assert_eq!(bulk(b"$-1\r\n"), None);
        assert_eq!(bulk(b"-ERR no\r\n"), None);
    }

    #[test]
    fn a_database_that_is_not_there_is_refused() {
        let node = Arc::new(Node::open(&NodeOptions::default()).unwrap());
        assert!(Local::new(Arc::clone(&node), 15).is_some());
        assert!(Local::new(node, 16).is_none());
    }
}
