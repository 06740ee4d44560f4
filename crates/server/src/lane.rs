//! The connections of a worker that do nothing but ask and be answered, served without a task for each.
//!
//! One task waits for all of them. In a round it reads from each socket that has something, runs what has come, and then answers all: a
//! client that serves many connections in one thread is woken once for many replies (see also `gathering.rs`). What needs more than that (a command that
//! waits, a script, a reply that has to wait for the disk or does not fit into the socket, a message that comes unasked) takes the
//! connection out, and it goes on as a task (`connection.rs`) until it has been calm for a while. Invariants: a connection is in the
//! lane or a task, never both; one whose command panics ends alone. Deliberately absent: TLS.
//!
//! Why it is there: a task is polled twice per batch through several layers, which took two thirds of the time that the server
//! spends outside the kernel for a request that comes alone (`docs/benchmarks.md`).

use std::cell::RefCell;
use std::collections::HashMap;
use std::io::{ErrorKind, Read, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token};
use parking_lot::Mutex;
use tokio::io::unix::AsyncFd;
use tokio::sync::Notify;

use crate::connection::Begin;
use crate::conversation::{Conversation, Pause};
use crate::gathering::Gathering;
use crate::roster::Present;
use crate::worker::{Place, Socket};

/// Bytes that are read from a connection at once. Default: 32 KB.
const LANE_BUFFER: usize = 32 * 1024;
/// Sockets that one look at the system tells of. Default: 256.
const EVENTS: usize = 256;
/// Rounds after which the worker's other tasks have their turn, where there is always something to do. Default: 8.
const ROUNDS: u32 = 8;

/// See the module. Belongs to one worker.
#[derive(Clone)]
pub(crate) struct Lane(Rc<Inner>);

struct Inner {
    state: RefCell<State>,
    bell: Arc<Bell>,
}

/// Through it other threads say that a connection of the lane has something besides requests.
#[derive(Debug, Default)]
pub(crate) struct Bell {
    rung: Mutex<Vec<u64>>,
    is_rung: AtomicBool,
    notify: Notify,
}

impl Bell {
    /// Calls for the connection of this client.
    pub(crate) fn ring(&self, client: u64) {
        let mut rung = self.rung.lock();
        // A client is known by its last call only if it is the same: a burst of messages to one must not grow this.
        if rung.last() != Some(&client) {
            rung.push(client);
        }
        self.is_rung.store(true, Ordering::Release);
        drop(rung);
        self.notify.notify_one();
    }

    fn take(&self) -> Vec<u64> {
        if !self.is_rung.load(Ordering::Acquire) {
            return Vec::new();
        }
        let mut rung = self.rung.lock();
        self.is_rung.store(false, Ordering::Release);
        std::mem::take(&mut *rung)
    }
}

/// A connection with all that belongs to it.
pub(crate) struct Member {
    pub(crate) socket: Socket,
    pub(crate) conversation: Box<Conversation>,
    pub(crate) place: Place,
    pub(crate) present: Present,
}

/// A connection that leaves the lane, and what for.
pub(crate) enum Exit {
    /// It has ended.
    Over(Box<Conversation>),
    /// It goes on as a task.
    Task(Member, Begin),
    /// It goes to this worker.
    For(Member, usize),
}

/// What is to become of a connection after its turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Turn {
    Stay,
    /// There may be more to read.
    Again,
    Task(Begin),
    For(usize),
    Over,
}

struct State {
    poll: Poll,
    members: Vec<Option<Member>>,
    free: Vec<usize>,
    /// Where the connection of a client is.
    by_client: HashMap<u64, usize>,
    /// What is read goes here; what is not run at once is copied to its connection.
    buffer: Box<[u8]>,
    /// Connections with replies to send, in this round.
    to_answer: Vec<usize>,
    /// Connections of which more may be read without the system saying so.
    again: Vec<usize>,
    exits: Vec<Exit>,
    gathering: Gathering,
}

impl Lane {
    /// A lane without connections.
    pub(crate) fn new(poll: Poll) -> Self {
        let state = State {
            poll,
            members: Vec::new(),
            free: Vec::new(),
            by_client: HashMap::new(),
            buffer: vec![0; LANE_BUFFER].into(),
            to_answer: Vec::new(),
            again: Vec::new(),
            exits: Vec::new(),
            gathering: Gathering::new(Instant::now()),
        };
        Self(Rc::new(Inner { state: RefCell::new(state), bell: Arc::default() }))
    }

    /// Takes a connection in; gives it back if the system does not watch its socket.
    pub(crate) fn enter(&self, member: Member) -> Result<(), Member> {
        let mut state = self.0.state.borrow_mut();
        let id = member.conversation.session.client().id;
        let slot = state.free.pop().unwrap_or_else(|| {
            state.members.push(None);
            state.members.len() - 1
        });
        let fd = member.socket.as_raw_fd();
        if let Err(error) =
            state.poll.registry().register(&mut SourceFd(&fd), Token(slot), Interest::READABLE)
        {
            tracing::debug!(client = id, %error, "a connection cannot be watched");
            state.free.push(slot);
            return Err(member);
        }
        let outbox = Arc::clone(&member.conversation.outbox);
        state.by_client.insert(id, slot);
        if let Some(place) = state.members.get_mut(slot) {
            *place = Some(member);
        }
        // From here on it is called for; what came before is seen by this call.
        outbox.set_bell(Some(Arc::clone(&self.0.bell)));
        if outbox.has_news() {
            self.0.bell.ring(id);
        }
        Ok(())
    }

    /// Has the runtime's event loop watch the lane's.
    #[allow(
        unsafe_code,
        reason = "the one way in which the runtime watches a descriptor that it has not made"
    )]
    fn watch(&self) -> std::io::Result<AsyncFd<OwnedFd>> {
        let fd = self.0.state.borrow().poll.registry().as_fd().try_clone_to_owned()?;
        // SAFETY: an `OwnedFd` is open as long as it lives, and always the same.
        let watched = unsafe { AsyncFd::register_with_interest(fd, tokio::io::Interest::READABLE) };
        watched.map_err(|error| std::io::Error::other(error.to_string()))
    }

    /// Serves the lane for ever. Connections that leave it are handed to `leave`.
    pub(crate) async fn run(self, leave: impl Fn(Exit)) {
        let ready = match self.watch() {
            Ok(ready) => ready,
            Err(error) => {
                tracing::error!(%error, "an event loop does not take another one: its connections are not served");
                return;
            }
        };
        let mut events = Events::with_capacity(EVENTS);
        loop {
            let mut guard = tokio::select! {
                biased;
                ready = ready.readable() => match ready {
                    Ok(guard) => Some(guard),
                    Err(_) => return,
                },
                () = self.0.bell.notify.notified() => None,
            };
            let mut rounds = 0;
            let mut will_pause = false;
            loop {
                let called = self.0.bell.take();
                let (has_worked, exits) = {
                    let mut state = self.0.state.borrow_mut();
                    state.call(&called);
                    let has_worked = state.round(&mut events);
                    (has_worked, std::mem::take(&mut state.exits))
                };
                for exit in exits {
                    leave(exit);
                }
                if has_worked {
                    will_pause = false;
                } else if will_pause {
                    self.0.state.borrow_mut().gathering.pause();
                    will_pause = false;
                } else if self.0.state.borrow_mut().gathering.should_pause(Instant::now()) {
                    // What is a task has its turn first, and the sockets are looked at once more.
                    will_pause = true;
                    tokio::task::yield_now().await;
                } else {
                    break;
                }
                rounds += 1;
                if rounds % ROUNDS == 0 {
                    tokio::task::yield_now().await;
                }
            }
            if let Some(guard) = &mut guard {
                guard.clear_ready();
            }
        }
    }
}

impl State {
    /// One round over what has something to do; whether there was anything.
    fn round(&mut self, events: &mut Events) -> bool {
        let again = std::mem::take(&mut self.again);
        if let Err(error) = self.poll.poll(events, Some(Duration::ZERO))
            && error.kind() != ErrorKind::Interrupted
        {
            tracing::error!(%error, "the event loop cannot be asked");
            return false;
        }
        let mut has_worked = !again.is_empty();
        for slot in again {
            self.serve(slot, false);
        }
        for event in &*events {
            has_worked = true;
            self.serve(event.token().0, event.is_read_closed());
        }
        for slot in std::mem::take(&mut self.to_answer) {
            let turn = self.take_turn(slot, |member, _| member.answer());
            self.follow(slot, turn);
        }
        has_worked
    }

    /// Looks after connections that were called for.
    fn call(&mut self, clients: &[u64]) {
        for client in clients {
            let Some(&slot) = self.by_client.get(client) else { continue };
            let turn = self.take_turn(slot, |member, _| {
                let outbox = &member.conversation.outbox;
                if outbox.is_closed() {
                    Turn::Over
                } else if outbox.has_news() {
                    Turn::Task(Begin::Running)
                } else {
                    Turn::Stay
                }
            });
            self.follow(slot, turn);
        }
    }

    fn serve(&mut self, slot: usize, is_closed: bool) {
        self.gathering.note(slot);
        let mut turn = self.take_turn(slot, Member::ask);
        if turn == Turn::Stay && is_closed {
            // The end has been announced once and will not be again.
            turn = Turn::Again;
        }
        let has_replies = |member: &Member| !member.conversation.output.is_empty();
        if matches!(turn, Turn::Stay | Turn::Again)
            && self.members.get(slot).and_then(Option::as_ref).is_some_and(has_replies)
        {
            self.to_answer.push(slot);
        }
        self.follow(slot, turn);
    }

    /// Runs one step of a connection. One that panics is the end of it.
    fn take_turn(&mut self, slot: usize, step: impl FnOnce(&mut Member, &mut [u8]) -> Turn) -> Turn {
        let Some(Some(member)) = self.members.get_mut(slot) else { return Turn::Stay };
        let buffer = &mut self.buffer;
        catch_unwind(AssertUnwindSafe(|| step(member, buffer))).unwrap_or_else(|_| {
            tracing::error!("a connection has ended by a fault of the server");
            Turn::Over
        })
    }

    fn follow(&mut self, slot: usize, turn: Turn) {
        let exit: fn(Member, Turn) -> Exit = match turn {
            Turn::Stay => return,
            Turn::Again => {
                self.again.push(slot);
                return;
            }
            Turn::Over => |member, _| Exit::Over(member.conversation),
            Turn::Task(_) | Turn::For(_) => |member, turn| match turn {
                Turn::Task(begin) => Exit::Task(member, begin),
                Turn::For(worker) => Exit::For(member, worker),
                _ => Exit::Over(member.conversation),
            },
        };
        let Some(member) = self.members.get_mut(slot).and_then(Option::take) else { return };
        let fd = member.socket.as_raw_fd();
        // Fails only for a socket that is not watched.
        let _ = self.poll.registry().deregister(&mut SourceFd(&fd));
        member.conversation.outbox.set_bell(None);
        self.by_client.remove(&member.conversation.session.client().id);
        self.free.push(slot);
        self.exits.push(exit(member, turn));
    }
}

impl Member {
    /// Reads once and runs what has come.
    fn ask(&mut self, buffer: &mut [u8]) -> Turn {
        let conversation = &mut *self.conversation;
        if conversation.outbox.is_closed() {
            return Turn::Over;
        }
        if conversation.output.is_empty()
            && let Some(worker) = conversation.outbox.asked_to_move()
        {
            return Turn::For(worker);
        }
        let received = match self.socket.read(buffer) {
            Ok(0) => return Turn::Over,
            Ok(received) => received,
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Turn::Stay,
            Err(error) if error.kind() == ErrorKind::Interrupted => return Turn::Again,
            Err(_) => return Turn::Over,
        };
        let after = if received == buffer.len() { Turn::Again } else { Turn::Stay };
        conversation.shared.node.engine().count_network(received as u64, 0);
        let bytes = buffer.get(..received).unwrap_or_default();
        let pause = if conversation.input.is_empty() {
            conversation.run_from(bytes)
        } else {
            conversation.input.extend_from_slice(bytes);
            conversation.run_received()
        };
        match pause {
            Pause::NeedMore(_) if conversation.check_input().is_ok() => after,
            Pause::NeedMore(_) => Turn::Over,
            Pause::Script | Pause::Flush => Turn::Task(Begin::Running),
            Pause::Park => Turn::Task(Begin::Waiting),
            Pause::Close => Turn::Task(Begin::Closing),
        }
    }

    /// Sends the replies, if they may leave now and the socket takes them.
    fn answer(&mut self) -> Turn {
        let conversation = &mut *self.conversation;
        let bytes = conversation.output.len();
        if bytes == 0 {
            return Turn::Stay;
        }
        if conversation.shared.node.before_reply(&conversation.session).is_some() {
            return Turn::Task(Begin::Running);
        }
        if !conversation.begin_to_write() {
            return Turn::Over;
        }
        match self.socket.write(conversation.output.as_bytes()) {
            Ok(written) if written == bytes => {
                conversation.replies_written(bytes);
                Turn::Stay
            }
            Ok(0) => Turn::Over,
            Ok(written) => {
                conversation.output.buffer_mut().drain(..written);
                conversation.shared.node.engine().count_network(0, written as u64);
                Turn::Task(Begin::Running)
            }
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {
                Turn::Task(Begin::Running)
            }
            Err(_) => Turn::Over,
        }
    }
}
