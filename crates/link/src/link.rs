//! A link to one server: sends commands, pipelines, transactions and scripts.
//!
//! Invariant: a command whose outcome is unknown is sent again only where the retry table says so; every other caller learns
//! that it is unknown. A dropped call never shifts the replies of others: its reply still arrives and is thrown away.
//! Deliberately absent: routing between several servers.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use crate::breaker::BreakerState;
use crate::command::Command;
use crate::connection::{Connection, Pass, Supervised};
use crate::dial::Dialer;
use crate::error::{Delivery, Error, ErrorKind, Result};
use crate::options::LinkOptions;
use crate::reply::Reply;
use crate::retry::Retry;
use crate::route::Route;
use crate::script::Script;
use crate::url::{LinkUrl, Transport};

/// Longest wait for the next connection before a safe command is sent again.
const RETRY_PATIENCE: Duration = Duration::from_millis(500);

/// A link to one server. Cheap to clone; all clones share one connection.
///
/// ```no_run
/// # async fn example() -> mtcache_link::Result<()> {
/// use mtcache_link::{Command, Link, LinkOptions};
///
/// let link = Link::open(&"redis://localhost:6379".parse()?, LinkOptions::default())?;
/// link.command(Command::new("SET").arg("greeting").arg("hello")).await?;
/// let value = link.command(Command::new("GET").arg("greeting")).await?.into_bytes()?;
/// assert_eq!(value.as_deref(), Some(&b"hello"[..]));
/// # Ok(()) }
/// ```
#[derive(Clone)]
pub struct Link(Arc<Inner>);

struct Inner {
    url: LinkUrl,
    supervised: Supervised,
    max_in_flight: usize,
    max_retries: u32,
    dialer: Dialer,
}

impl Link {
    /// Starts to connect in the background and returns at once; a server that is down is not an error here. Must be called
    /// inside a tokio runtime.
    pub fn open(url: &LinkUrl, options: LinkOptions) -> Result<Self> {
        if tokio::runtime::Handle::try_current().is_err() {
            return Err(Error::config("a link must be opened inside a tokio runtime"));
        }
        let (max_in_flight, max_retries) = (options.max_in_flight, options.max_retries);
        let dialer = Dialer::new(url, options)?;
        let route = Route::of(url, &dialer)?;
        Ok(Self(Arc::new(Inner {
            url: url.clone(),
            supervised: Supervised::start(dialer.clone(), route),
            max_in_flight,
            max_retries,
            dialer,
        })))
    }

    pub(crate) fn options(&self) -> &LinkOptions {
        self.0.dialer.options()
    }

    pub(crate) fn dialer(&self) -> &Dialer {
        &self.0.dialer
    }

    /// Where the present connection leads to, and its number; none if there is none.
    pub(crate) fn place(&self) -> Option<(Transport, u64)> {
        let connection = self.0.supervised.current()?;
        Some((connection.at().clone(), connection.generation()))
    }

    /// Stands for the run of the server that commands go to now, or went to last, the same to everybody: another number after a restart or a
    /// failover, the same after a mere new connection. 0 before the first connection, and where the server does not say which it is.
    pub fn server_run(&self) -> u64 {
        self.0.supervised.server()
    }

    /// A cursor of SCAN means something while this number is the same. 0 before the first connection.
    pub fn cursor_epoch(&self) -> u64 {
        match self.server_run() {
            0 => self.generation(),
            run => run,
        }
    }

    /// The number of the present connection, or of the last.
    pub(crate) fn generation(&self) -> u64 {
        self.0.supervised.generation()
    }

    /// Waits for a connection after that of this number.
    pub(crate) async fn next_generation(&self, current: u64) {
        self.0.supervised.next_generation(current).await;
    }

    /// The server's URL; its text form has no password.
    pub fn url(&self) -> &LinkUrl {
        &self.0.url
    }

    /// True while there is a connection that is not known to be broken.
    pub fn is_connected(&self) -> bool {
        self.0.supervised.is_up()
    }

    /// Whether calls are let through.
    pub fn breaker(&self) -> BreakerState {
        self.0.supervised.breaker()
    }

    /// Waits for the attempt to connect that is under way, and says how it ended.
    pub async fn connected(&self) -> Result<()> {
        self.0.supervised.ready().await.map(|_| ())
    }

    /// Waits for a connection at most so long; false if there is none then.
    pub async fn wait_connected(&self, patience: Duration) -> bool {
        self.0.supervised.wait_up(patience).await
    }

    /// Sends one command. An error reply is an `Err`.
    pub async fn command(&self, command: Command) -> Result<Reply> {
        self.command_of(&command).await
    }

    /// As [`command`](Self::command), of one that its caller keeps.
    pub(crate) async fn command_of(&self, command: &Command) -> Result<Reply> {
        let _slot = self.0.slot()?;
        let mut tries = 0;
        loop {
            let error = match self.0.command_once(command).await {
                Ok(reply) => return Ok(reply),
                Err(error) => error,
            };
            if !self.0.may_retry(&error, &mut tries, || command.retry()).await {
                return Err(error);
            }
        }
    }

    /// Sends several commands in one go. They are not one atomic step. An error reply stands in its command's place.
    pub async fn pipeline(&self, commands: Vec<Command>) -> Result<Vec<Reply>> {
        self.pipeline_of(&commands.iter().collect::<Vec<_>>()).await
    }

    /// As [`pipeline`](Self::pipeline), of commands that their caller keeps.
    pub(crate) async fn pipeline_of(&self, commands: &[&Command]) -> Result<Vec<Reply>> {
        self.several(commands, Grouping::Pipeline).await
    }

    /// Sends several commands as one MULTI/EXEC. If a command is refused while queueing, nothing has taken effect. One that
    /// fails while executing has its error in its place; the others have taken effect.
    pub async fn transaction(&self, commands: Vec<Command>) -> Result<Vec<Reply>> {
        self.transaction_of(&commands.iter().collect::<Vec<_>>()).await
    }

    /// As [`transaction`](Self::transaction), of commands that their caller keeps.
    pub(crate) async fn transaction_of(&self, commands: &[&Command]) -> Result<Vec<Reply>> {
        self.several(commands, Grouping::Transaction).await
    }

    /// Runs a script, by its hash where the server knows it.
    pub async fn script<K: AsRef<[u8]>, A: AsRef<[u8]>>(
        &self,
        script: &Script,
        keys: &[K],
        args: &[A],
    ) -> Result<Reply> {
        match self.command(script.by_hash(keys, args)).await {
            Err(e) if e.kind() == ErrorKind::NoScript => self.command(script.by_text(keys, args)).await,
            other => other,
        }
    }

    async fn several(&self, commands: &[&Command], grouping: Grouping) -> Result<Vec<Reply>> {
        if commands.is_empty() {
            return Ok(Vec::new());
        }
        let _slot = self.0.slot()?;
        let count = commands.len();
        let retry = || {
            let safe = commands.iter().all(|c| c.retry() == Retry::Safe);
            if safe { Retry::Safe } else { Retry::Never }
        };
        let mut pipeline = redis::Pipeline::with_capacity(count);
        if grouping == Grouping::Transaction {
            pipeline.atomic();
        }
        for command in commands {
            pipeline.add_command(command.inner.clone());
        }
        let mut tries = 0;
        loop {
            let error = match self.0.several_once(&pipeline, count, grouping).await {
                Ok(replies) => return Ok(replies),
                Err(error) => error,
            };
            if !self.0.may_retry(&error, &mut tries, retry).await {
                return Err(error);
            }
        }
    }
}

impl std::fmt::Debug for Link {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Link")
            .field("url", &self.0.url)
            .field("connected", &self.is_connected())
            .finish_non_exhaustive()
    }
}

#[derive(Clone, Copy, PartialEq)]
enum Grouping {
    Pipeline,
    Transaction,
}

impl Inner {
    async fn command_once(&self, command: &Command) -> Result<Reply> {
        let mut pass = self.supervised.pass().await?;
        let replies_before = pass.replies();
        match pass.mux().send_packed_command(&command.inner).await {
            Ok(value) => {
                pass.answered();
                Reply::from_value(value).ok().inspect_err(|error| self.notice(&pass, error))
            }
            Err(error) => {
                let error = judge(&mut pass, replies_before, error);
                self.notice(&pass, &error);
                Err(error)
            }
        }
    }

    async fn several_once(
        &self,
        pipeline: &redis::Pipeline,
        count: usize,
        grouping: Grouping,
    ) -> Result<Vec<Reply>> {
        let mut pass = self.supervised.pass().await?;
        let replies_before = pass.replies();
        let mux = pass.mux();
        let sent = match grouping {
            Grouping::Pipeline => mux.send_packed_commands(pipeline, 0, count).await,
            // MULTI's OK and one QUEUED for each are skipped; EXEC's array is the one reply.
            Grouping::Transaction => mux.send_packed_commands(pipeline, count + 1, 1).await,
        };
        let values = sent.map_err(|error| {
            let error = judge(&mut pass, replies_before, error);
            self.notice(&pass, &error);
            error
        })?;
        pass.answered();
        let replies: Vec<Reply> = match grouping {
            Grouping::Pipeline => values.into_iter().map(Reply::from_value).collect(),
            Grouping::Transaction => match values.into_iter().next() {
                Some(value) => Reply::from_value(value).into_array()?,
                None => Vec::new(),
            },
        };
        for reply in &replies {
            if let Reply::Error(error) = reply {
                self.notice(&pass, error);
            }
        }
        if replies.len() == count {
            Ok(replies)
        } else {
            Err(Error::protocol(format!("{} replies to {count} commands", replies.len())))
        }
    }

    /// Has the connection replaced if its server says that it is no primary, where another may be.
    fn notice(&self, connection: &Connection, error: &Error) {
        if self.supervised.moves() && error.is_of_a_replica() {
            connection.give_up();
        }
    }

    /// Decides over another try, and waits for what it needs.
    async fn may_retry(&self, error: &Error, tries: &mut u32, retry: impl Fn() -> Retry) -> bool {
        // Only a broken connection: after a timeout the caller has waited long enough, and a refusal is an answer.
        let lost = error.kind() == ErrorKind::ConnectionLost && error.delivery() == Delivery::Unknown;
        // But for that of a server which is no primary any more. It has done nothing, so whatever it was may be asked of the next.
        let demoted = self.supervised.moves() && error.is_of_a_replica();
        let worth_it = *tries < self.max_retries && (demoted || (lost && retry() == Retry::Safe));
        if !worth_it {
            return false;
        }
        *tries += 1;
        self.supervised.wait_up(RETRY_PATIENCE).await
    }

    fn slot(&self) -> Result<Slot<'_>> {
        let in_flight = self.dialer.in_flight();
        if in_flight.fetch_add(1, Ordering::Relaxed) >= self.max_in_flight {
            in_flight.fetch_sub(1, Ordering::Relaxed);
            return Err(Error::new(
                ErrorKind::Overloaded,
                Delivery::NotSent,
                format!(
                    "{} commands are under way already; ask for less at once, or raise max_in_flight",
                    self.max_in_flight
                ),
            ));
        }
        Ok(Slot(in_flight))
    }
}

/// Turns a failure into our error and has the connection replaced if it is of no more use.
fn judge(pass: &mut Pass<'_>, replies_before: u64, error: redis::RedisError) -> Error {
    let error = Error::in_flight(error);
    match error.kind() {
        ErrorKind::ConnectionLost | ErrorKind::Protocol => pass.give_up(),
        // Nothing at all was answered while we waited: the other side is gone or frozen, and a half-open connection would
        // swallow every later command too.
        ErrorKind::Timeout if pass.replies() == replies_before => pass.give_up_as_silent(),
        ErrorKind::Timeout => {}
        // The server refuses it, which is an answer.
        _ => {
            pass.answered();
            return error;
        }
    }
    pass.failed();
    error
}

/// One of the commands under way.
struct Slot<'a>(&'a AtomicUsize);

impl Drop for Slot<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}
