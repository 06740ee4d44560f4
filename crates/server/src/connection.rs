//! One connection: read what has come, run every complete command, answer all of them with one write.
//!
//! Invariants: replies leave in the order of the commands, and messages before the replies to later commands; with `appendfsync always` none leaves before what it saw is
//! durable; a connection that sends bytes which are no commands gets an error and is closed. Deliberately absent: what a
//! command is, and which stream this is (TCP, Unix, in memory).
//! Whatever the task waits for, it ends when its outbox does: `CLIENT KILL` and a limit reach a client that does not read.

use std::future::{Future, pending, poll_fn};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::Poll;
use std::time::Duration;

use mtcache_engine::{Engine, Parked, Session};
use mtcache_protocol::{Args, Limits, Peeked, Progress, Reply, RequestDecoder, peek};
use smallvec::SmallVec;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use crate::fiber;
use crate::outbox::{Outbox, OutboxHandle};
use crate::roster::{Present, Roster};
use crate::worker::Shared;

/// Room that a connection's read buffer starts with and shrinks back to. Default: 16 KB, as Redis reads.
const READ_BUFFER: usize = 16 * 1024;
/// Commands of a batch that are looked at together before the first of them runs. Default: 16.
const AHEAD: usize = 16;
/// Batches that are not looked at after one of which nothing had to come from memory. Default: 15.
const LOOKS_SKIPPED: u8 = 15;
/// Replies are written in the middle of a batch when they have grown to this. Default: 256 KB.
const FLUSH_AT: usize = 256 * 1024;
/// A buffer with more room than this is given back once it is empty. Default: 64 KB.
const KEEP_BUFFER: usize = 64 * 1024;
/// A waiting connection looks at the clock again no sooner than this. Default: 1 ms.
const SHORTEST_SLEEP: Duration = Duration::from_millis(1);
/// And no later, however long it waits. Default: an hour.
const LONGEST_SLEEP: Duration = Duration::from_hours(1);

/// What a connection is besides its socket; it goes along when that moves to another worker.
pub(crate) struct Conversation {
    shared: Arc<Shared>,
    outbox: Arc<Outbox>,
    session: Session,
    decoder: RequestDecoder,
    /// Bytes received and not yet consumed.
    input: Vec<u8>,
    output: Reply,
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
            input: Vec::with_capacity(READ_BUFFER),
            decoder: RequestDecoder::new(Limits::default()),
            output: Reply::new(session.version()),
            session,
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
}

/// Why a connection is served here no longer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Left {
    /// It has ended.
    Over,
    /// It goes to this worker.
    For(usize),
}

/// Runs a connection until it ends, or is asked to move and has nothing to send.
pub(crate) async fn serve<S>(stream: S, conversation: Conversation) -> (S, Conversation, Left)
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let Conversation { shared, outbox, session, decoder, input, output } = conversation;
    let mut connection =
        Connection { shared, stream, outbox, session, decoder, input, output, looks_to_skip: 0 };
    // A peer that goes away in the middle is the end of its connection and nothing more.
    let left = connection.run().await.unwrap_or_else(|error| {
        tracing::debug!(client = connection.session.client().id, %error, "connection lost");
        Left::Over
    });
    let Connection { shared, stream, outbox, session, decoder, input, output, .. } = connection;
    (stream, Conversation { shared, outbox, session, decoder, input, output }, left)
}

struct Connection<S> {
    shared: Arc<Shared>,
    stream: S,
    outbox: Arc<Outbox>,
    session: Session,
    decoder: RequestDecoder,
    /// Bytes received and not yet consumed.
    input: Vec<u8>,
    output: Reply,
    /// Batches that are not looked at before they run.
    looks_to_skip: u8,
}

/// Whether the connection goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Next {
    GoOn,
    /// The session is parked.
    Park,
    /// Send the replies and close.
    Close,
}

/// Why a run of commands stops.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Pause {
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

impl<S: AsyncRead + AsyncWrite + Unpin> Connection<S> {
    async fn run(&mut self) -> std::io::Result<Left> {
        let outbox = Arc::clone(&self.outbox);
        // Registered once and renewed when it has fired: to register anew for each read costs a lock.
        let renew = || outbox.changed();
        let mut changed = pin!(renew());
        loop {
            if let Some(worker) = self.outbox.asked_to_move() {
                return Ok(Left::For(worker));
            }
            if self.input.capacity() - self.input.len() < READ_BUFFER / 4 {
                self.input.reserve(READ_BUFFER);
            }
            tokio::select! {
                biased;
                read = self.stream.read_buf(&mut self.input) => {
                    let received = read?;
                    if received == 0 {
                        return Ok(Left::Over);
                    }
                    self.shared.node.engine().count_network(received as u64, 0);
                    let mut next = self.run_batch().await?;
                    while next == Next::Park {
                        next = match self.wait(changed.as_mut(), renew).await? {
                            Next::GoOn => self.run_batch().await?,
                            _ => return Ok(Left::Over),
                        };
                    }
                    if next == Next::Close {
                        self.shut_down().await?;
                        return Ok(Left::Over);
                    }
                }
                () = &mut changed => {
                    changed.set(renew());
                    if self.outbox.is_closed() {
                        return Ok(Left::Over);
                    }
                    self.outbox.drain_into(self.output.buffer_mut());
                    self.flush().await?;
                }
            }
        }
    }

    /// Waits while the session is parked. Bytes that come meanwhile are kept, and a peer that goes away is noticed. The task
    /// sleeps, so that a worker serves any number of such connections.
    async fn wait<C: Future<Output = ()>>(
        &mut self,
        mut changed: Pin<&mut C>,
        renew: impl Fn() -> C,
    ) -> std::io::Result<Next> {
        loop {
            let engine = self.shared.node.engine();
            if engine.resume(&mut self.session, engine.now(), &mut self.output) {
                return Ok(Next::GoOn);
            }
            let until = match self.session.parked() {
                Parked::No => return Ok(Next::GoOn),
                Parked::Blocked { until } => until,
                Parked::Held { until } => Some(until),
            };
            let left = until.map(|until| Duration::from_millis(until.0.saturating_sub(engine.now().0)));
            let over = async {
                match left {
                    Some(left) => tokio::time::sleep(left.clamp(SHORTEST_SLEEP, LONGEST_SLEEP)).await,
                    None => pending().await,
                }
            };
            if self.input.capacity() - self.input.len() < READ_BUFFER / 4 {
                self.input.reserve(READ_BUFFER);
            }
            tokio::select! {
                read = self.stream.read_buf(&mut self.input) => {
                    let received = read?;
                    if received == 0 {
                        return Ok(Next::Close);
                    }
                    self.shared.node.engine().count_network(received as u64, 0);
                    self.check_input()?;
                }
                () = &mut changed => {
                    changed.set(renew());
                    if self.outbox.is_closed() {
                        return Ok(Next::Close);
                    }
                    self.outbox.drain_into(self.output.buffer_mut());
                    self.flush().await?;
                }
                () = over => {}
            }
        }
    }

    /// Runs every complete command that has been received.
    async fn run_batch(&mut self) -> std::io::Result<Next> {
        let mut start = 0;
        loop {
            self.session.begin_batch();
            let pause = self.run_commands(&mut start);
            self.session.end_batch();
            self.outbox.set_subscriber(self.session.client().is_subscribed());
            match pause {
                Pause::NeedMore(hint) => {
                    self.consume(start, hint);
                    self.check_input()?;
                }
                Pause::Park => self.consume(start, 0),
                Pause::Script => {
                    fiber::on_a_fiber().await;
                    continue;
                }
                Pause::Flush | Pause::Close => {}
            }
            if !self.output.is_empty() {
                give_way().await;
            }
            self.flush().await?;
            match pause {
                Pause::NeedMore(_) => return Ok(Next::GoOn),
                Pause::Close => return Ok(Next::Close),
                Pause::Park => return Ok(Next::Park),
                Pause::Flush | Pause::Script => {}
            }
        }
    }

    /// Runs complete commands from `start` on, until there is a reason to stop.
    fn run_commands(&mut self, start: &mut usize) -> Pause {
        let engine: &Engine = self.shared.node.engine();
        let now = engine.now();
        let max_bulk_len = usize::try_from(engine.settings().max_bulk_len()).unwrap_or(usize::MAX);
        self.decoder.set_limits(Limits { max_bulk_len, ..Limits::default() });
        let mut seen = *start;
        loop {
            if *start >= seen {
                let rest = self.input.get(*start..).unwrap_or_default();
                let looked = look_ahead(engine, &self.session, rest, &mut self.looks_to_skip);
                seen = start.saturating_add(looked);
            }
            // Asked before each command: AUTH, HELLO and RESET change it in the midst of a pipeline.
            self.decoder.set_authenticated(engine.is_authenticated(&self.session));
            let rest = self.input.get(*start..).unwrap_or_default();
            match self.decoder.next(rest) {
                Ok(Progress::Command { consumed }) => {
                    let mut args = Args::new();
                    self.decoder.args(rest, &mut args);
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
                Ok(Progress::NeedMore { consumed, hint }) => {
                    *start += consumed;
                    return Pause::NeedMore(hint);
                }
                Err(error) => {
                    error.write_to(&mut self.output);
                    return Pause::Close;
                }
            }
        }
    }

    /// Drops what has been understood, and makes room for what is to come.
    fn consume(&mut self, consumed: usize, hint: usize) {
        if consumed >= self.input.len() {
            self.input.clear();
            if self.input.capacity() > KEEP_BUFFER {
                self.input = Vec::with_capacity(READ_BUFFER);
            }
        } else if consumed > 0 {
            self.input.copy_within(consumed.., 0);
            self.input.truncate(self.input.len() - consumed);
        }
        if hint > 0 {
            // The announced length is taken on trust only up to a step beyond what has really come.
            const STEP: usize = 1024 * 1024;
            self.input.reserve(hint.min(self.input.len() + STEP));
        }
    }

    /// Looks at what has been received and not yet run: a command that is not complete, or what follows one that waits.
    fn check_input(&self) -> std::io::Result<()> {
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

    /// Writes all replies, once what they saw is as durable as the configuration promises.
    async fn flush(&mut self) -> std::io::Result<()> {
        if self.output.is_empty() {
            return Ok(());
        }
        if let Some(reached) = self.shared.node.before_reply(&self.session) {
            tokio::select! {
                biased;
                // A write whose fate is unknown is answered by a closed connection, never by a reply.
                reached = reached => reached.map_err(|_| std::io::Error::other("the journal failed"))?,
                () = self.outbox.ended() => return Err(ended()),
            }
        }
        if !self.outbox.set_in_flight(self.output.len()) {
            tracing::warn!(
                client = self.session.client().id,
                "a client does not read its replies: closed at {} waiting bytes",
                self.outbox.pending()
            );
            return Err(ended());
        }
        let mut sent = 0;
        while let Some(rest) = self.output.as_bytes().get(sent..).filter(|rest| !rest.is_empty()) {
            let written = tokio::select! {
                biased;
                written = self.stream.write(rest) => written?,
                () = self.outbox.ended() => return Err(ended()),
            };
            if written == 0 {
                return Err(std::io::ErrorKind::WriteZero.into());
            }
            sent += written;
            if sent < self.output.len() {
                self.outbox.set_in_flight(self.output.len() - sent);
                self.session.client().note_activity(self.shared.node.engine().now());
            }
        }
        // Of a TLS stream the last record may still be waiting; for a socket this is nothing.
        tokio::select! {
            biased;
            flushed = self.stream.flush() => flushed?,
            () = self.outbox.ended() => return Err(ended()),
        }
        self.shared.node.engine().count_network(0, self.output.len() as u64);
        self.output.clear();
        self.outbox.set_in_flight(0);
        if self.output.buffer_mut().capacity() > KEEP_BUFFER {
            drop(self.output.take());
        }
        Ok(())
    }

    /// Closes in order, so that the last reply arrives.
    async fn shut_down(&mut self) -> std::io::Result<()> {
        tokio::select! {
            biased;
            result = self.stream.shutdown() => result,
            () = self.outbox.ended() => Err(ended()),
        }
    }
}

/// Lets the other connections of this worker that have something to do go first, once.
///
/// Replies then leave when all that had arrived has run. A client that serves many connections in one thread is woken once for
/// many replies, and does not take the processor away in the midst of a round.
async fn give_way() {
    let mut went_first = false;
    poll_fn(|context| {
        if went_first {
            return Poll::Ready(());
        }
        went_first = true;
        context.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

fn ended() -> std::io::Error {
    std::io::Error::other("the connection was ended from inside")
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
