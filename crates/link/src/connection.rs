//! One multiplexed connection as its callers see it: there, being made, on trial, or refused.
//!
//! Invariant: a caller never waits for more than one attempt to connect; while the supervisor (`supervise.rs`) pauses
//! between attempts, callers are refused at once with the last attempt's error. Deliberately absent: what is sent.

use std::ops::Deref;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use redis::aio::MultiplexedConnection;
use tokio::sync::{Notify, watch};

use crate::breaker::BreakerState;
use crate::dial::Dialer;
use crate::error::{Delivery, Error, ErrorKind, Result};
use crate::route::Route;
use crate::seats::{Seat, Seats};
use crate::supervise::supervise;
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
    /// Given up because nothing was answered.
    silent: AtomicBool,
    trial: Option<Trial>,
    /// The replies there were when a caller left without waiting for its own.
    left_at: Mutex<Option<u64>>,
}

/// One call at a time goes over a connection on trial, until one is answered.
pub(crate) struct Trial {
    /// What the others are told.
    refusal: Error,
    is_free: AtomicBool,
    is_proved: AtomicBool,
    proved: Notify,
}

impl Connection {
    pub(crate) fn new(at: Transport, mux: MultiplexedConnection, identity: Option<Identity>) -> Self {
        Self {
            at,
            generation: 0,
            mux,
            identity,
            replies: AtomicU64::new(0),
            broken: Notify::new(),
            given_up: AtomicBool::new(false),
            silent: AtomicBool::new(false),
            trial: None,
            left_at: Mutex::default(),
        }
    }

    /// Its number, and what its callers are told while it is on trial.
    pub(crate) fn begin(mut self, generation: u64, trial: Option<Trial>) -> Self {
        self.generation = generation;
        self.trial = trial;
        self
    }

    pub(crate) fn identity(&self) -> Option<&Identity> {
        self.identity.as_ref()
    }

    pub(crate) fn is_on_trial(&self) -> bool {
        self.trial.is_some()
    }

    /// True if it was given up because nothing was answered.
    pub(crate) fn was_silent(&self) -> bool {
        self.silent.load(Ordering::Acquire)
    }

    /// Waits until somebody has given it up.
    pub(crate) async fn broken(&self) {
        self.broken.notified().await;
    }

    pub(crate) fn at(&self) -> &Transport {
        &self.at
    }

    pub(crate) fn generation(&self) -> u64 {
        self.generation
    }

    fn mux(&self) -> MultiplexedConnection {
        self.mux.clone()
    }

    /// Whether it is of use, to everybody.
    pub(crate) fn lets_through(&self) -> bool {
        self.is_usable() && self.refusal().is_none()
    }

    /// How many replies came so far. Tells a slow command from a dead connection.
    pub(crate) fn replies(&self) -> u64 {
        self.replies.load(Ordering::Relaxed)
    }

    fn count_reply(&self) {
        self.replies.fetch_add(1, Ordering::Relaxed);
        if let Some(trial) = &self.trial
            && !trial.is_proved.swap(true, Ordering::AcqRel)
        {
            trial.proved.notify_one();
        }
    }

    /// Has the supervisor replace this connection.
    pub(crate) fn give_up(&self) {
        self.given_up.store(true, Ordering::Release);
        self.broken.notify_one();
    }

    /// As [`give_up`](Self::give_up), because nothing was answered.
    pub(crate) fn give_up_as_silent(&self) {
        self.silent.store(true, Ordering::Release);
        self.give_up();
    }

    fn is_usable(&self) -> bool {
        !self.given_up.load(Ordering::Acquire)
    }

    /// What a caller is told who is not the one that is let through.
    fn refusal(&self) -> Option<&Error> {
        let trial = self.trial.as_ref()?;
        (!trial.is_proved.load(Ordering::Acquire)).then_some(&trial.refusal)
    }

    /// Waits until the trial has ended well; for ever if there is none.
    pub(crate) async fn proved(&self) {
        match &self.trial {
            Some(trial) if !trial.is_proved.load(Ordering::Acquire) => trial.proved.notified().await,
            Some(_) => {}
            None => std::future::pending().await,
        }
    }

    /// Waits until the node has been silent to callers who did not wait themselves.
    pub(crate) async fn found_silent(&self, patience: Duration) {
        loop {
            tokio::time::sleep(patience / 2).await;
            let Some(left_at) = self.left_at.lock().take() else { continue };
            if left_at != self.replies() {
                continue;
            }
            let mut mux = self.mux();
            let answer = tokio::time::timeout(patience, mux.send_packed_command(&redis::cmd("PING"))).await;
            // A connection that is lost is somebody else's to notice; an error is an answer.
            let silent = match answer {
                Err(_) => true,
                Ok(Err(error)) => error.is_timeout(),
                Ok(Ok(_)) => false,
            };
            if silent && left_at == self.replies() {
                return;
            }
        }
    }
}

/// The right to send one call over a connection. Dropped without an outcome, its caller has left.
pub(crate) struct Pass<'a> {
    /// There until it is dropped.
    seat: Option<Seat>,
    /// Where the seat goes then.
    seats: &'a Seats,
    on_trial: bool,
    has_outcome: bool,
}

impl<'a> Pass<'a> {
    fn new(connection: Arc<Connection>, seats: &'a Seats, on_trial: bool) -> Self {
        let mux = connection.mux();
        Self::on(Seat { connection, mux }, seats, on_trial)
    }

    fn on(seat: Seat, seats: &'a Seats, on_trial: bool) -> Self {
        Self { seat: Some(seat), seats, on_trial, has_outcome: false }
    }

    fn seat(&self) -> &Seat {
        self.seat.as_ref().unwrap_or_else(|| unreachable!("a pass has its seat until it is dropped"))
    }

    /// What the call is sent over.
    pub(crate) fn mux(&mut self) -> &mut MultiplexedConnection {
        let seat =
            self.seat.as_mut().unwrap_or_else(|| unreachable!("a pass has its seat until it is dropped"));
        &mut seat.mux
    }
    /// The call was answered.
    pub(crate) fn answered(&mut self) {
        self.has_outcome = true;
        self.seat().connection.count_reply();
    }

    /// The call has failed.
    pub(crate) fn failed(&mut self) {
        self.has_outcome = true;
    }
}

impl Deref for Pass<'_> {
    type Target = Connection;

    fn deref(&self) -> &Connection {
        &self.seat().connection
    }
}

impl Drop for Pass<'_> {
    fn drop(&mut self) {
        let Some(seat) = self.seat.take() else { return };
        let connection = &seat.connection;
        if !self.has_outcome {
            connection.left_at.lock().get_or_insert(connection.replies());
        }
        if self.on_trial
            && let Some(trial) = &connection.trial
        {
            trial.is_free.store(true, Ordering::Release);
        }
        if connection.lets_through() {
            self.seats.keep(seat);
        }
    }
}

/// A connection as its server knows it.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Identity {
    /// Names this run of the server: client numbers begin anew with each.
    pub(crate) run: String,
    pub(crate) client: i64,
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
            Self::Up(connection) if connection.is_usable() => match connection.refusal() {
                None => Some(Ok(Arc::clone(connection))),
                Some(refusal) => Some(Err(refusal.clone())),
            },
            Self::Down(error) => Some(Err(error.clone())),
            Self::Up(_) | Self::Connecting => None,
        }
    }

    /// The connection on trial, if nobody else is being let through.
    fn free_trial<'a>(&self, seats: &'a Seats) -> Option<Pass<'a>> {
        let Self::Up(connection) = self else { return None };
        let trial = connection.trial.as_ref().filter(|_| connection.is_usable())?;
        let got_it = !trial.is_proved.load(Ordering::Acquire) && trial.is_free.swap(false, Ordering::AcqRel);
        got_it.then(|| Pass::new(Arc::clone(connection), seats, true))
    }

    fn breaker(&self) -> BreakerState {
        match self {
            Self::Up(connection) if connection.refusal().is_some() => BreakerState::HalfOpen,
            Self::Up(_) | Self::Connecting => BreakerState::Closed,
            Self::Down(_) => BreakerState::Open,
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
    server: Arc<AtomicU64>,
    seats: Arc<Seats>,
    moves: bool,
}

impl Supervised {
    /// Starts to connect. Needs a tokio runtime; lives until the last clone is dropped.
    pub(crate) fn start(dialer: Dialer, route: Route) -> Self {
        let (sender, state) = watch::channel(State::Connecting);
        let connect_timeout = dialer.options().connect_timeout;
        let generation = Arc::new(AtomicU64::new(0));
        let server = Arc::new(AtomicU64::new(0));
        let moves = route.moves();
        tokio::spawn(supervise(dialer, route, sender, Arc::clone(&generation), Arc::clone(&server)));
        Self { state, connect_timeout, generation, server, seats: Arc::new(Seats::new()), moves }
    }

    /// True if one connection may lead to another server than the last.
    pub(crate) fn moves(&self) -> bool {
        self.moves
    }

    /// Changes before anybody can use a new connection.
    pub(crate) fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    /// Stands for the run of the server that the connection leads to, or the last one did; 0 if that is not known. Changes before anybody can
    /// use a new connection.
    pub(crate) fn server(&self) -> u64 {
        self.server.load(Ordering::Acquire)
    }

    /// Waits for a connection after that of this number; for ever if there is none.
    pub(crate) async fn next_generation(&self, current: u64) {
        let mut state = self.state.clone();
        if state.wait_for(|_| self.generation() != current).await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    /// The right to send one call, if there is a connection now or the attempt under way makes one, and the breaker lets it through.
    pub(crate) async fn pass(&self) -> Result<Pass<'_>> {
        if let Some(seat) = self.seats.take(self.generation()) {
            return Ok(Pass::on(seat, &self.seats, false));
        }
        let refused = match self.ready().await {
            Ok(connection) => return Ok(Pass::new(connection, &self.seats, false)),
            Err(error) => error,
        };
        self.state.borrow().free_trial(&self.seats).ok_or(refused)
    }

    pub(crate) fn breaker(&self) -> BreakerState {
        self.state.borrow().breaker()
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

impl Trial {
    pub(crate) fn new(refusal: Error) -> Self {
        Self {
            refusal,
            is_free: AtomicBool::new(true),
            is_proved: AtomicBool::new(false),
            proved: Notify::new(),
        }
    }
}
