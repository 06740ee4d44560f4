//! What a connection is besides its socket: the session, what has been received, and the replies that wait.
//!
//! Invariant: commands run in the order in which they came, and what reached the client unasked before a command stands before its reply.
//! It goes along when the connection changes its worker, or the way in which it is served. Deliberately absent: sockets and waiting.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use mtcache_engine::{Engine, Parked, Session};
use mtcache_protocol::{Args, Limits, Peeked, Progress, Reply, RequestDecoder, peek};
use smallvec::SmallVec;

use crate::fiber;
use crate::outbox::{Outbox, OutboxHandle};
use crate::roster::{Present, Roster};
use crate::worker::Shared;

/// Room that a read buffer starts with and shrinks back to. Default: 16 KB, as Redis reads.
pub(crate) const READ_BUFFER: usize = 16 * 1024;
/// Commands of a batch that are looked at together before the first of them runs. Default: 16.
const AHEAD: usize = 16;
/// Batches that are not looked at after one of which nothing had to come from memory. Default: 15.
const LOOKS_SKIPPED: u8 = 15;
/// Replies are written in the middle of a batch when they have grown to this. Default: 256 KB.
const FLUSH_AT: usize = 256 * 1024;
/// A buffer with more room than this is given back once it is empty. Default: 64 KB.
const KEEP_BUFFER: usize = 64 * 1024;

/// See the module.
pub(crate) struct Conversation {
    pub(crate) shared: Arc<Shared>,
    pub(crate) outbox: Arc<Outbox>,
    pub(crate) session: Session,
    decoder: RequestDecoder,
    /// Bytes received and not yet consumed.
    pub(crate) input: Vec<u8>,
    pub(crate) output: Reply,
    /// Batches that are not looked at before they run.
    looks_to_skip: u8,
}

/// Why a run of commands stops.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Pause {
    /// No complete command is left; at least so many more bytes are needed.
    NeedMore(usize),
    /// Enough replies have gathered.
    Flush,
    /// The next command may run a script, for which the task wants a stack of its own.
    Script,
    /// The last command waits, and what follows it.
    Park,
    /// The connection ends.
    Close,
}

impl Conversation {
    /// Makes the client known to the engine.
    pub(crate) fn begin(shared: &Arc<Shared>, addr: String, laddr: String) -> Self {
        let outbox = Arc::new(Outbox::new(Arc::clone(&shared.output_limits)));
        let engine = shared.node.engine();
        let client = engine.connect(addr, laddr, Box::new(OutboxHandle(Arc::clone(&outbox))));
        outbox.set_client(client.id);
        let session = engine.new_session(client);
        Self {
            shared: Arc::clone(shared),
            outbox,
            input: Vec::new(),
            decoder: RequestDecoder::new(Limits::default()),
            output: Reply::new(session.version()),
            session,
            looks_to_skip: 0,
        }
    }

    /// Takes its place among the connections of a worker.
    pub(crate) fn enter(&self, roster: &Roster, is_movable: bool) -> Present {
        roster.enter(self.session.client(), &self.outbox, is_movable)
    }

    /// Takes leave of the engine.
    pub(crate) fn end(mut self) {
        self.shared.node.engine().disconnect(&mut self.session);
    }

    /// Runs what has been received, until there is a reason to stop. What is left over stays.
    pub(crate) fn run_received(&mut self) -> Pause {
        let input = std::mem::take(&mut self.input);
        let (pause, start) = self.run(&input);
        self.input = input;
        if start >= self.input.len() {
            self.input.clear();
            if self.input.capacity() > KEEP_BUFFER {
                self.input = Vec::new();
            }
        } else if start > 0 {
            self.input.copy_within(start.., 0);
            self.input.truncate(self.input.len() - start);
        }
        self.make_room(pause);
        pause
    }

    /// As [`run_received`](Self::run_received), of bytes that are in somebody else's buffer, nothing having been left over before.
    pub(crate) fn run_from(&mut self, received: &[u8]) -> Pause {
        let (pause, start) = self.run(received);
        let rest = received.get(start..).unwrap_or_default();
        if !rest.is_empty() {
            self.input.extend_from_slice(rest);
        }
        self.make_room(pause);
        pause
    }

    fn make_room(&mut self, pause: Pause) {
        if let Pause::NeedMore(hint @ 1..) = pause {
            // The announced length is taken on trust only up to a step beyond what has really come.
            const STEP: usize = 1024 * 1024;
            self.input.reserve(hint.min(self.input.len() + STEP));
        }
    }

    fn run(&mut self, input: &[u8]) -> (Pause, usize) {
        let mut start = 0;
        self.session.begin_batch();
        let pause = self.run_commands(input, &mut start);
        self.session.end_batch();
        self.outbox.set_subscriber(self.session.client().is_subscribed());
        (pause, start)
    }

    /// Runs complete commands from `start` on, until there is a reason to stop.
    fn run_commands(&mut self, input: &[u8], start: &mut usize) -> Pause {
        let engine: &Engine = self.shared.node.engine();
        let now = engine.now();
        let max_bulk_len = usize::try_from(engine.settings().max_bulk_len()).unwrap_or(usize::MAX);
        self.decoder.set_limits(Limits { max_bulk_len, ..Limits::default() });
        self.output.set_ceiling(self.outbox.reply_ceiling());
        let mut seen = *start;
        loop {
            if *start >= seen {
                let rest = input.get(*start..).unwrap_or_default();
                let looked = look_ahead(engine, &self.session, rest, &mut self.looks_to_skip);
                seen = start.saturating_add(looked);
            }
            // Asked before each command: AUTH, HELLO and RESET change it in the midst of a pipeline.
            self.decoder.set_authenticated(engine.is_authenticated(&self.session));
            let rest = input.get(*start..).unwrap_or_default();
            let mut args = Args::new();
            let consumed = match self.decoder.next_short(rest, &mut args) {
                Some(consumed) => consumed,
                None => match self.decoder.next(rest) {
                    Ok(Progress::Command { consumed }) => {
                        self.decoder.args(rest, &mut args);
                        consumed
                    }
                    Ok(Progress::NeedMore { consumed, hint }) => {
                        *start += consumed;
                        return Pause::NeedMore(hint);
                    }
                    Err(error) => {
                        error.write_to(&mut self.output);
                        return Pause::Close;
                    }
                },
            };
            if self.session.may_run_script(&args) && fiber::is_needed() {
                return Pause::Script;
            }
            // What reached this client before its command leaves before the command's reply: who has seen a reply
            // has seen every message and invalidation that is older.
            self.outbox.drain_into(self.output.buffer_mut());
            engine.dispatch(&mut self.session, &args, now, &mut self.output);
            match self.session.parked() {
                Parked::No => *start += consumed,
                Parked::Blocked { .. } => {
                    *start += consumed;
                    return Pause::Park;
                }
                // It has not run: it stays where it is.
                Parked::Held { .. } => return Pause::Park,
            }
            if self.session.wants_close() || self.outbox.is_closed() {
                return Pause::Close;
            }
            if self.output.len() >= FLUSH_AT {
                return Pause::Flush;
            }
        }
    }

    /// Looks at what has been received and not yet run: a command that is not complete, or what follows one that waits.
    pub(crate) fn check_input(&self) -> std::io::Result<()> {
        let client = self.session.client();
        client.set_input(self.input.len(), self.input.capacity() - self.input.len());
        if self.input.is_empty() {
            return Ok(());
        }
        client.note_activity(self.shared.node.engine().now());
        let limit = self.shared.query_buffer_limit.load(Ordering::Relaxed);
        if self.input.len() > limit {
            tracing::warn!(
                client = client.id,
                "more bytes wait to be run than client-query-buffer-limit allows: closed at {limit}"
            );
            return Err(std::io::Error::other("the query buffer's limit was reached"));
        }
        Ok(())
    }

    /// To be called when all replies have been written.
    pub(crate) fn replies_written(&mut self, bytes: usize) {
        self.shared.node.engine().count_network(0, bytes as u64);
        self.output.clear();
        self.outbox.set_in_flight(0);
        if self.output.buffer_mut().capacity() > KEEP_BUFFER {
            drop(self.output.take());
        }
    }

    /// Says how many bytes are to be written. False when that is more than the client may let wait.
    pub(crate) fn begin_to_write(&self) -> bool {
        let may = self.outbox.set_in_flight(self.output.len());
        if !may {
            tracing::warn!(
                client = self.session.client().id,
                "a client does not read its replies: closed at {} waiting bytes",
                self.outbox.pending()
            );
        }
        may
    }
}

/// Tells the engine what comes next in `input`, if several commands of the usual form do, and says how far it need not look again.
#[inline]
fn look_ahead(engine: &Engine, session: &Session, input: &[u8], looks_to_skip: &mut u8) -> usize {
    if *looks_to_skip > 0 {
        *looks_to_skip -= 1;
        return usize::MAX;
    }
    let mut commands = SmallVec::<[Peeked<'_>; AHEAD]>::new();
    let mut at = 0;
    while commands.len() < AHEAD
        && let Some(command) = peek(input.get(at..).unwrap_or_default())
    {
        at += command.consumed;
        commands.push(command);
    }
    if commands.len() > 1 && !engine.look_ahead(session, &commands) {
        *looks_to_skip = LOOKS_SKIPPED;
    }
    if commands.len() < AHEAD { usize::MAX } else { at }
}
