//! One connection as a task: read what has come, run every complete command, answer all of them with one write.
//!
//! Invariants: replies leave in the order of the commands, and messages before the replies to later commands; with `appendfsync always` none leaves before what it saw is
//! durable; a connection that sends bytes which are no commands gets an error and is closed. Deliberately absent: what a
//! command is, and which stream this is (TCP, Unix, TLS). Connections that do nothing but ask and be answered need no task: see `lane.rs`.
//! Whatever the task waits for, it ends when its outbox does: `CLIENT KILL` and a limit reach a client that does not read.

use std::future::{Future, pending, poll_fn};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use mtcache_engine::Parked;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use crate::conversation::{Conversation, Pause, READ_BUFFER};
use crate::fiber;

/// A waiting connection looks at the clock again no sooner than this. Default: 1 ms.
const SHORTEST_SLEEP: Duration = Duration::from_millis(1);
/// And no later, however long it waits. Default: an hour.
const LONGEST_SLEEP: Duration = Duration::from_hours(1);
/// Batches in a row that need nothing but to be read, run and answered, after which a connection needs no task any more. Default: 32.
const CALM_BATCHES: u32 = 32;

/// Where a task takes a conversation up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Begin {
    /// Nothing has come yet.
    Reading,
    /// Something may have been received and not run, or not been sent.
    Running,
    /// The session is parked.
    Waiting,
    /// It ends once its replies are sent.
    Closing,
}

/// Why a connection is served here no longer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Left {
    /// It has ended.
    Over,
    /// It goes to this worker.
    For(usize),
    /// It needs no task at present.
    Calm,
}

/// Runs a connection until it ends, or has nothing to send and is asked to move, or may become calm and is.
pub(crate) async fn serve<S>(
    stream: S,
    conversation: Conversation,
    begin: Begin,
    may_calm: bool,
) -> (S, Conversation, Left)
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let mut connection = Connection { stream, conversation, may_calm, calm: 0 };
    // A peer that goes away in the middle is the end of its connection and nothing more.
    let left = connection.run(begin).await.unwrap_or_else(|error| {
        tracing::debug!(client = connection.conversation.session.client().id, %error, "connection lost");
        Left::Over
    });
    (connection.stream, connection.conversation, left)
}

struct Connection<S> {
    stream: S,
    conversation: Conversation,
    may_calm: bool,
    /// Batches in a row that needed nothing special.
    calm: u32,
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

impl<S: AsyncRead + AsyncWrite + Unpin> Connection<S> {
    async fn run(&mut self, begin: Begin) -> std::io::Result<Left> {
        let outbox = Arc::clone(&self.conversation.outbox);
        // Registered once and renewed when it has fired: to register anew for each read costs a lock.
        let renew = || outbox.changed();
        let mut changed = pin!(renew());
        let mut next = match begin {
            Begin::Reading => Next::GoOn,
            Begin::Running => self.run_batch().await?,
            Begin::Waiting => {
                self.flush().await?;
                Next::Park
            }
            Begin::Closing => {
                self.flush().await?;
                Next::Close
            }
        };
        loop {
            while next == Next::Park {
                self.calm = 0;
                next = match self.wait(changed.as_mut(), renew).await? {
                    Next::GoOn => self.run_batch().await?,
                    _ => return Ok(Left::Over),
                };
            }
            if next == Next::Close {
                self.shut_down().await?;
                return Ok(Left::Over);
            }
            if let Some(worker) = self.conversation.outbox.asked_to_move() {
                return Ok(Left::For(worker));
            }
            if self.may_calm && self.calm >= CALM_BATCHES {
                return Ok(Left::Calm);
            }
            let input = &mut self.conversation.input;
            if input.capacity() - input.len() < READ_BUFFER / 4 {
                input.reserve(READ_BUFFER);
            }
            tokio::select! {
                biased;
                read = self.stream.read_buf(&mut self.conversation.input) => {
                    let received = read?;
                    if received == 0 {
                        return Ok(Left::Over);
                    }
                    self.conversation.shared.node.engine().count_network(received as u64, 0);
                    next = self.run_batch().await?;
                }
                () = &mut changed => {
                    self.calm = 0;
                    changed.set(renew());
                    if self.conversation.outbox.is_closed() {
                        return Ok(Left::Over);
                    }
                    self.conversation.outbox.drain_into(self.conversation.output.buffer_mut());
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
            let Conversation { shared, session, input, output, .. } = &mut self.conversation;
            let engine = shared.node.engine();
            if engine.resume(session, engine.now(), output) {
                return Ok(Next::GoOn);
            }
            let until = match session.parked() {
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
            if input.capacity() - input.len() < READ_BUFFER / 4 {
                input.reserve(READ_BUFFER);
            }
            tokio::select! {
                read = self.stream.read_buf(&mut self.conversation.input) => {
                    let received = read?;
                    if received == 0 {
                        return Ok(Next::Close);
                    }
                    self.conversation.shared.node.engine().count_network(received as u64, 0);
                    self.conversation.check_input()?;
                }
                () = &mut changed => {
                    changed.set(renew());
                    if self.conversation.outbox.is_closed() {
                        return Ok(Next::Close);
                    }
                    self.conversation.outbox.drain_into(self.conversation.output.buffer_mut());
                    self.flush().await?;
                }
                () = over => {}
            }
        }
    }

    /// Runs every complete command that has been received.
    async fn run_batch(&mut self) -> std::io::Result<Next> {
        self.calm = self.calm.saturating_add(1);
        loop {
            let pause = self.conversation.run_received();
            match pause {
                Pause::NeedMore(_) => self.conversation.check_input()?,
                Pause::Script => {
                    self.calm = 0;
                    fiber::on_a_fiber().await;
                    continue;
                }
                Pause::Park | Pause::Flush | Pause::Close => {}
            }
            if !self.conversation.output.is_empty() {
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

    /// Writes all replies, once what they saw is as durable as the configuration promises.
    async fn flush(&mut self) -> std::io::Result<()> {
        let Self { stream, conversation, calm, .. } = self;
        if conversation.output.is_empty() {
            return Ok(());
        }
        let outbox = Arc::clone(&conversation.outbox);
        if let Some(reached) = conversation.shared.node.before_reply(&conversation.session) {
            *calm = 0;
            tokio::select! {
                biased;
                // A write whose fate is unknown is answered by a closed connection, never by a reply.
                reached = reached => reached.map_err(|_| std::io::Error::other("the journal failed"))?,
                () = outbox.ended() => return Err(ended()),
            }
        }
        if !conversation.begin_to_write() {
            return Err(ended());
        }
        let mut sent = 0;
        while let Some(rest) = conversation.output.as_bytes().get(sent..).filter(|rest| !rest.is_empty()) {
            let written = tokio::select! {
                biased;
                written = stream.write(rest) => written?,
                () = outbox.ended() => return Err(ended()),
            };
            if written == 0 {
                return Err(std::io::ErrorKind::WriteZero.into());
            }
            sent += written;
            if sent < conversation.output.len() {
                *calm = 0;
                outbox.set_in_flight(conversation.output.len() - sent);
                conversation.session.client().note_activity(conversation.shared.node.engine().now());
            }
        }
        // Of a TLS stream the last record may still be waiting; for a socket this is nothing.
        tokio::select! {
            biased;
            flushed = stream.flush() => flushed?,
            () = outbox.ended() => return Err(ended()),
        }
        conversation.replies_written(sent);
        Ok(())
    }

    /// Closes in order, so that the last reply arrives.
    async fn shut_down(&mut self) -> std::io::Result<()> {
        tokio::select! {
            biased;
            result = self.stream.shutdown() => result,
            () = self.conversation.outbox.ended() => Err(ended()),
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
