//! One multiplexed connection that is always being looked after.
//!
//! A supervisor task owns the attempts to connect: it makes a connection, waits for its end, and makes the next one with
//! exponential back-off and full jitter. Invariant: a caller never waits for more than one attempt; while the supervisor pauses
//! between attempts, callers are refused at once with the last attempt's error. Deliberately absent: what is sent.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use redis::aio::MultiplexedConnection;
use tokio::sync::{Notify, watch};
use tokio::task::JoinHandle;

use crate::dial::Dialer;
use crate::error::{Delivery, Error, ErrorKind, Result};
use crate::options::LinkOptions;
use crate::reply::Reply;
use crate::route::Route;
use crate::url::Transport;

/// A living connection.
pub(crate) struct Connection {
    /// Where it leads to.
    at: Transport,
    /// Its number.
    generation: u64,
    mux: MultiplexedConnection,
    /// Who we are to the server; none if it does not say.
    identity: Option<Identity>,
    replies: AtomicU64,
    broken: Notify,
    /// Known to be of no more use, before the supervisor has had its turn.
    given_up: AtomicBool,
}

impl Connection {
    pub(crate) fn at(&self) -> &Transport {
        &self.at
    }

    pub(crate) fn generation(&self) -> u64 {
        self.generation
    }

    pub(crate) fn mux(&self) -> MultiplexedConnection {
        self.mux.clone()
    }

    /// How many replies came so far. Tells a slow command from a dead connection.
    pub(crate) fn replies(&self) -> u64 {
        self.replies.load(Ordering::Relaxed)
    }

    pub(crate) fn count_reply(&self) {
        self.replies.fetch_add(1, Ordering::Relaxed);
    }

    /// Has the supervisor replace this connection.
    pub(crate) fn give_up(&self) {
        self.given_up.store(true, Ordering::Release);
        self.broken.notify_one();
    }

    fn is_usable(&self) -> bool {
        !self.given_up.load(Ordering::Acquire)
    }
}

/// A connection as its server knows it.
#[derive(Clone, Debug, PartialEq)]
struct Identity {
    /// Names this run of the server: client numbers begin anew with each.
    run: String,
    client: i64,
}

#[derive(Clone)]
pub(crate) enum State {
    /// The first attempt since the start or since a loss: worth waiting for.
    Connecting,
    Up(Arc<Connection>),
    /// Attempts fail; the next one is being made or waits for its time.
    Down(Error),
}

impl State {
    /// The connection or the refusal; none while that is still being found out.
    fn settled(&self) -> Option<Result<Arc<Connection>>> {
        match self {
            Self::Up(connection) if connection.is_usable() => Some(Ok(Arc::clone(connection))),
            Self::Down(error) => Some(Err(error.clone())),
            Self::Up(_) | Self::Connecting => None,
        }
    }
}

/// The supervised connection.
#[derive(Clone)]
pub(crate) struct Supervised {
    state: watch::Receiver<State>,
    connect_timeout: Duration,
    /// Number of the connection that is up, or was last; a number of none once the next may lead elsewhere.
    generation: Arc<AtomicU64>,
    moves: bool,
}

impl Supervised {
    /// Starts to connect. Needs a tokio runtime; lives until the last clone is dropped.
    pub(crate) fn start(dialer: Dialer, route: Route) -> Self {
        let (sender, state) = watch::channel(State::Connecting);
        let connect_timeout = dialer.options().connect_timeout;
        let generation = Arc::new(AtomicU64::new(0));
        let moves = route.moves();
        tokio::spawn(supervise(dialer, route, sender, Arc::clone(&generation)));
        Self { state, connect_timeout, generation, moves }
    }

    /// True if one connection may lead to another server than the last.
    pub(crate) fn moves(&self) -> bool {
        self.moves
    }

    /// Changes before anybody can use a new connection.
    pub(crate) fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    /// Waits for a connection after that of this number; for ever if there is none.
    pub(crate) async fn next_generation(&self, current: u64) {
        let mut state = self.state.clone();
        if state.wait_for(|_| self.generation() != current).await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    /// The connection, if there is one now or the attempt under way makes one.
    pub(crate) async fn ready(&self) -> Result<Arc<Connection>> {
        if let Some(settled) = self.state.borrow().settled() {
            return settled;
        }
        let mut state = self.state.clone();
        let settled = state.wait_for(|s| s.settled().is_some());
        // The attempt has the same bound; the extra time is for the supervisor to say so.
        match tokio::time::timeout(self.connect_timeout + Duration::from_millis(200), settled).await {
            Ok(Ok(state)) => state.settled().unwrap_or_else(|| {
                Err(Error::new(ErrorKind::Connect, Delivery::NotSent, "the new connection broke at once"))
            }),
            Ok(Err(_)) => Err(stopped()),
            Err(_) => Err(Error::new(
                ErrorKind::Connect,
                Delivery::NotSent,
                "no connection within the connect timeout",
            )),
        }
    }

    /// Waits until there is a connection, or the time is over.
    pub(crate) async fn wait_up(&self, patience: Duration) -> bool {
        let mut state = self.state.clone();
        let up = state.wait_for(|s| matches!(s.settled(), Some(Ok(_))));
        matches!(tokio::time::timeout(patience, up).await, Ok(Ok(_)))
    }

    /// The connection that is up.
    pub(crate) fn current(&self) -> Option<Arc<Connection>> {
        match self.state.borrow().settled() {
            Some(Ok(connection)) => Some(connection),
            _ => None,
        }
    }

    pub(crate) fn is_up(&self) -> bool {
        matches!(self.state.borrow().settled(), Some(Ok(_)))
    }
}

fn stopped() -> Error {
    Error::new(
        ErrorKind::Connect,
        Delivery::NotSent,
        "the runtime that looked after this link has been shut down",
    )
}

async fn supervise(dialer: Dialer, route: Route, state: watch::Sender<State>, generation: Arc<AtomicU64>) {
    let options = dialer.options();
    let mut failures = 0_u32;
    // The last connection: the server may not have read all that was sent on it.
    let mut abandoned: Option<Identity> = None;
    loop {
        let attempt = tokio::select! {
            () = state.closed() => return,
            attempt = connect(&dialer, &route, abandoned.as_ref()) => attempt,
        };
        match attempt {
            Ok((mut connection, driver)) => {
                connection.generation = generation.fetch_add(1, Ordering::AcqRel) + 1;
                let connection = Arc::new(connection);
                let server = connection.at();
                let since = Instant::now();
                if failures > 0 {
                    tracing::info!(%server, "connected again");
                }
                state.send_replace(State::Up(Arc::clone(&connection)));
                if watch_over(&connection, driver, &route, &state).await == Ended::NobodyListens {
                    return;
                }
                connection.give_up();
                if route.moves() {
                    // From here on nothing counts that was heard of a server which may be the primary no more.
                    generation.fetch_add(1, Ordering::AcqRel);
                }
                abandoned.clone_from(&connection.identity);
                tracing::warn!(%server, "connection lost, connecting again");
                // A server that takes connections and drops them at once must not be hammered.
                if since.elapsed() > options.backoff_max {
                    failures = 0;
                    state.send_replace(State::Connecting);
                    continue;
                }
                if failures == 0 {
                    failures = 1;
                    state.send_replace(State::Connecting);
                    continue;
                }
                state.send_replace(State::Down(Error::new(
                    ErrorKind::Connect,
                    Delivery::NotSent,
                    format!("{server} keeps closing the connection"),
                )));
            }
            Err(error) => {
                if failures == 0 {
                    tracing::warn!(%error, "no connection, trying on");
                }
                // A refusal does not pass by waiting a moment, and each attempt is a line in the server's log.
                if matches!(error.kind(), ErrorKind::Auth | ErrorKind::Tls) {
                    failures = u32::MAX;
                }
                state.send_replace(State::Down(error));
            }
        }
        failures = failures.saturating_add(1);
        tokio::select! {
            () = state.closed() => return,
            () = tokio::time::sleep(pause(failures, options)) => {}
        }
    }
}

#[derive(PartialEq)]
enum Ended {
    Connection,
    NobodyListens,
}

async fn watch_over(
    connection: &Connection,
    mut driver: JoinHandle<()>,
    route: &Route,
    state: &watch::Sender<State>,
) -> Ended {
    let ended = tokio::select! {
        _ = &mut driver => return Ended::Connection,
        () = connection.broken.notified() => Ended::Connection,
        () = route.leads_elsewhere(connection.at()) => Ended::Connection,
        () = state.closed() => Ended::NobodyListens,
    };
    driver.abort();
    ended
}

/// Exponential back-off with jitter over its upper half, so that many clients of one server do not come back together.
pub(crate) fn pause(failures: u32, options: &LinkOptions) -> Duration {
    let doubled = options
        .backoff_min
        .saturating_mul(1_u32.checked_shl(failures.saturating_sub(1).min(16)).unwrap_or(u32::MAX));
    let ceiling = doubled.min(options.backoff_max);
    ceiling.mul_f64(0.5 + 0.5 * rand::random::<f64>())
}

async fn connect(
    dialer: &Dialer,
    route: &Route,
    abandoned: Option<&Identity>,
) -> Result<(Connection, JoinHandle<()>)> {
    let attempt = async {
        let at = route.find().await?;
        let (mut mux, driver) = dialer.open(&at).await?;
        route.check(&at, &mut mux).await?;
        let introduced = async {
            let identity = introduce(&mut mux, dialer.options()).await?;
            if let (Some(old), Some(new)) = (abandoned, &identity) {
                fence(&mut mux, old, new).await?;
            }
            Ok(identity)
        };
        let identity = introduced.await.map_err(|error| Error::connecting(&at, error))?;
        let connection = Connection {
            at,
            generation: 0,
            mux,
            identity,
            replies: AtomicU64::new(0),
            broken: Notify::new(),
            given_up: AtomicBool::new(false),
        };
        Ok((connection, driver))
    };
    match tokio::time::timeout(dialer.options().connect_timeout, attempt).await {
        Ok(outcome) => outcome,
        Err(_) => Err(dialer.too_late(route)),
    }
}

/// Tells the server our name and asks who we are to it. A server that refuses any of it is used all the same.
async fn introduce(
    mux: &mut MultiplexedConnection,
    options: &LinkOptions,
) -> redis::RedisResult<Option<Identity>> {
    let mut questions = redis::pipe();
    questions.cmd("CLIENT").arg("SETNAME").arg(&options.client_name);
    questions.cmd("CLIENT").arg("ID");
    questions.cmd("INFO").arg("server");
    let mut answers =
        mux.send_packed_commands(&questions, 0, 3).await?.into_iter().map(Reply::from_value).skip(1);
    let client = answers.next().and_then(|id| id.into_int().ok());
    let info = answers.next().and_then(|info| info.into_bytes().ok()).flatten().unwrap_or_default();
    let run = String::from_utf8_lossy(&info)
        .lines()
        .find_map(|line| line.strip_prefix("run_id:").map(|id| id.trim().to_owned()));
    Ok(client.zip(run).map(|(client, run)| Identity { run, client }))
}

/// Has the server close the connection before this one, so that what was sent on it and not yet read is never run: a write
/// whose outcome we reported as unknown must not take effect after later ones that succeeded.
async fn fence(mux: &mut MultiplexedConnection, old: &Identity, new: &Identity) -> redis::RedisResult<()> {
    if old.run != new.run {
        // A server that was started anew has forgotten it, and its number may be somebody else's now.
        return Ok(());
    }
    let mut kill = redis::cmd("CLIENT");
    kill.arg("KILL").arg("ID").arg(old.client);
    // Mostly it is closed already; not being allowed to is no reason to go without a connection.
    let answer = mux.send_packed_command(&kill).await?;
    tracing::debug!(?answer, "the connection before this one is closed");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pause_grows_to_its_bound_and_never_past_it() {
        let options = LinkOptions::default();
        for failures in 1..80 {
            let pause = pause(failures, &options);
            assert!(pause <= options.backoff_max, "{failures}: {pause:?}");
            assert!(pause >= options.backoff_min / 2, "{failures}: {pause:?}");
        }
        assert!(super::pause(40, &options) >= options.backoff_max / 2);
    }
}
