//! Worker threads: each runs one single-threaded runtime and the connections given to it.
//!
//! The first worker accepts; who serves a connection, and when it moves, is decided in `balance.rs`. A worker that panics
//! takes its own connections with it and nothing else.

use std::io::{Read, Write};
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::net::UnixStream as StdUnixStream;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use mtcache_engine::Config;
use mtcache_node::Node;
use socket2::{SockRef, TcpKeepalive};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::sync::{mpsc, watch};
use tokio::task::LocalSet;
use tokio_rustls::server::TlsStream;

use crate::ServerOptions;
use crate::balance::{Balance, LOOK_PERIOD, Meter};
use crate::connection::{self, Begin, Left};
use crate::conversation::Conversation;
use crate::error::ServerError;
use crate::fiber::Fiber;
use crate::lane::{Exit, Lane, Member};
use crate::listener::Listeners;
use crate::outbox::OutputLimits;
use crate::protected;
use crate::roster::{Present, Roster};
use crate::tls::Certificates;

/// Time between two looks at all connections of a worker: how exact `timeout` and soft limits are. Default: 1 s.
const SWEEP_PERIOD: Duration = Duration::from_secs(1);

/// What all workers share.
pub(crate) struct Shared {
    pub(crate) node: Arc<Node>,
    pub(crate) connections: AtomicUsize,
    pub(crate) maxclients: AtomicUsize,
    /// Seconds between keep-alive probes of connections that come from now on; zero for none.
    tcp_keepalive: AtomicU32,
    /// Seconds after which an idle connection is closed; zero for never.
    timeout: AtomicU32,
    /// Bytes that a client may have sent and that are not run yet.
    pub(crate) query_buffer_limit: AtomicUsize,
    pub(crate) output_limits: Arc<OutputLimits>,
    /// With a TLS port.
    pub(crate) certificates: Option<Certificates>,
    pub(crate) protected_mode: AtomicBool,
}

impl Shared {
    pub(crate) fn new(node: Arc<Node>, options: &ServerOptions, certificates: Option<Certificates>) -> Self {
        let shared = Self {
            connections: AtomicUsize::new(0),
            maxclients: AtomicUsize::new(options.maxclients),
            tcp_keepalive: AtomicU32::new(0),
            timeout: AtomicU32::new(0),
            query_buffer_limit: AtomicUsize::new(0),
            output_limits: Arc::default(),
            certificates,
            protected_mode: AtomicBool::new(options.protected_mode),
            node,
        };
        shared.configure(&shared.node.engine().config());
        shared
    }

    /// Takes over what the configuration says about every connection; it may change while the server runs.
    pub(crate) fn configure(&self, config: &Config) {
        let number = |name| u32::try_from(config.int(name)).unwrap_or_default();
        self.tcp_keepalive.store(number("tcp-keepalive"), Ordering::Relaxed);
        self.timeout.store(number("timeout"), Ordering::Relaxed);
        let limit = usize::try_from(config.memory("client-query-buffer-limit")).unwrap_or(usize::MAX);
        self.query_buffer_limit.store(limit, Ordering::Relaxed);
        self.output_limits.set(config);
    }
}

/// How long a peer may take for the TLS handshake. Default: 10 s.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// A connection on its way to its worker.
pub(crate) enum Accepted {
    Tcp(std::net::TcpStream, Place),
    Tls(std::net::TcpStream, Place),
    Unix(StdUnixStream, Place),
    /// From another worker.
    Moved(Socket, Box<Conversation>, Place),
}

/// A socket that the runtime's event loop does not know.
pub(crate) enum Socket {
    Tcp(std::net::TcpStream),
    Unix(StdUnixStream),
}

impl Read for Socket {
    fn read(&mut self, into: &mut [u8]) -> std::io::Result<usize> {
        match self {
            Self::Tcp(stream) => stream.read(into),
            Self::Unix(stream) => stream.read(into),
        }
    }
}

impl Write for Socket {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        match self {
            Self::Tcp(stream) => stream.write(bytes),
            Self::Unix(stream) => stream.write(bytes),
        }
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl AsRawFd for Socket {
    fn as_raw_fd(&self) -> RawFd {
        match self {
            Self::Tcp(stream) => stream.as_raw_fd(),
            Self::Unix(stream) => stream.as_raw_fd(),
        }
    }
}

/// A stream that may leave its event loop for another.
trait Leave: AsyncRead + AsyncWrite + Unpin + Sized {
    /// Whether it can: the state of an encrypted stream stays where it is.
    const IS_MOVABLE: bool;

    /// Leaves. None loses the connection: the system has refused, or it is not movable.
    fn leave(self) -> Option<Socket>;
}

impl Leave for TcpStream {
    const IS_MOVABLE: bool = true;

    fn leave(self) -> Option<Socket> {
        self.into_std().ok().map(Socket::Tcp)
    }
}

impl Leave for UnixStream {
    const IS_MOVABLE: bool = true;

    fn leave(self) -> Option<Socket> {
        self.into_std().ok().map(Socket::Unix)
    }
}

impl Leave for TlsStream<TcpStream> {
    const IS_MOVABLE: bool = false;

    fn leave(self) -> Option<Socket> {
        None
    }
}

/// One running worker.
#[derive(Debug)]
pub(crate) struct Worker {
    thread: JoinHandle<()>,
}

impl Worker {
    pub(crate) fn join(self) {
        if self.thread.join().is_err() {
            tracing::error!("a worker thread had panicked");
        }
    }
}

/// Starts the workers; the first one accepts from `listeners`.
pub(crate) fn start(
    shared: &Arc<Shared>,
    listeners: Listeners,
    options: &ServerOptions,
    stopped: &watch::Receiver<bool>,
) -> Result<(Vec<Worker>, Balance), ServerError> {
    let count = options.workers.max(1);
    let (senders, receivers): (Vec<_>, Vec<_>) = (0..count).map(|_| mpsc::unbounded_channel()).unzip();
    let balance = Balance::new(senders, options.saturated, options.idle);
    let mut listeners = Some(listeners);
    let mut workers = Vec::with_capacity(count);
    for (number, receiver) in receivers.into_iter().enumerate() {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|error| ServerError::new("cannot start an event loop", error))?;
        let poll = mio::Poll::new().map_err(|error| ServerError::new("cannot start an event loop", error))?;
        let (shared, stopped, accepting) = (Arc::clone(shared), stopped.clone(), listeners.take());
        let balance = balance.clone();
        let thread = std::thread::Builder::new()
            .name(format!("mtcache-io-{number}"))
            .spawn(move || {
                let local = LocalSet::new();
                let seat = Seat { shared, roster: Roster::default(), lane: Lane::new(poll), balance, number };
                local.block_on(&runtime, run(seat, receiver, accepting, stopped));
            })
            .map_err(|error| ServerError::new("cannot start a thread", error))?;
        workers.push(Worker { thread });
    }
    Ok((workers, balance))
}

/// What a worker's connections need of it.
#[derive(Clone)]
struct Seat {
    shared: Arc<Shared>,
    roster: Roster,
    lane: Lane,
    balance: Balance,
    /// Which worker it is.
    number: usize,
}

async fn run(
    seat: Seat,
    mut receiver: mpsc::UnboundedReceiver<Accepted>,
    accepting: Option<Listeners>,
    mut stopped: watch::Receiver<bool>,
) {
    if let Some(listeners) = accepting {
        accept_all(&seat, listeners);
    }
    let leaves = seat.clone();
    tokio::task::spawn_local(seat.lane.clone().run(move |exit| leave_lane(&leaves, exit)));
    let mut sweep = tokio::time::interval(SWEEP_PERIOD);
    sweep.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut look = tokio::time::interval(LOOK_PERIOD);
    look.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut meter = Meter::start();
    loop {
        tokio::select! {
            // The sender is gone only with the server itself; both mean the end.
            _ = stopped.changed() => break,
            accepted = receiver.recv() => match accepted {
                Some(accepted) => spawn(&seat, accepted),
                None => break,
            },
            _ = look.tick() => {
                let now = seat.shared.node.engine().now();
                seat.balance.look(seat.number, meter.read(), &seat.roster, now);
            }
            _ = sweep.tick() => {
                let timeout = seat.shared.timeout.load(Ordering::Relaxed);
                seat.roster.sweep(seat.shared.node.engine().now(), timeout);
            }
        }
    }
    // A script that has stopped in the middle of a command is a task of this worker, or of another one, and has to end.
    while seat.shared.node.engine().is_busy() {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

/// Starts a task per listening socket.
fn accept_all(seat: &Seat, listeners: Listeners) {
    let dealer = Rc::new(Dealer { balance: seat.balance.clone(), shared: Arc::clone(&seat.shared) });
    let plain = listeners.tcp.into_iter().map(|listener| (listener, Encryption::None));
    let encrypted = listeners.tls.into_iter().map(|listener| (listener, Encryption::Tls));
    for (listener, encryption) in plain.chain(encrypted) {
        let dealer = Rc::clone(&dealer);
        tokio::task::spawn_local(async move {
            let Ok(listener) = TcpListener::from_std(listener) else { return };
            loop {
                match listener.accept().await {
                    Ok((stream, _)) => dealer.deal_tcp(stream, encryption),
                    Err(error) => pause_after(&error).await,
                }
            }
        });
    }
    if let Some(listener) = listeners.unix {
        tokio::task::spawn_local(async move {
            let Ok(listener) = UnixListener::from_std(listener) else { return };
            loop {
                match listener.accept().await {
                    Ok((stream, _)) => dealer.deal_unix(stream),
                    Err(error) => pause_after(&error).await,
                }
            }
        });
    }
}

/// Accepting fails when descriptors run out; trying again at once would only burn the processor.
async fn pause_after(error: &std::io::Error) {
    tracing::warn!(%error, "cannot accept a connection");
    tokio::time::sleep(Duration::from_millis(50)).await;
}

/// What a port speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Encryption {
    None,
    Tls,
}

/// Lets connections in and deals them out to the workers.
struct Dealer {
    balance: Balance,
    shared: Arc<Shared>,
}

impl Dealer {
    fn deal_tcp(&self, stream: TcpStream, encryption: Encryption) {
        let Some(place) = self.admit() else {
            // Best effort: the peer is told why if its socket takes the line. Before a handshake nothing can be said.
            if encryption == Encryption::None {
                let _ = stream.try_write(b"-ERR max number of clients reached\r\n");
            }
            return;
        };
        if let Ok(stream) = stream.into_std() {
            self.balance.deal(match encryption {
                Encryption::None => Accepted::Tcp(stream, place),
                Encryption::Tls => Accepted::Tls(stream, place),
            });
        }
    }

    fn deal_unix(&self, stream: UnixStream) {
        let Some(place) = self.admit() else {
            let _ = stream.try_write(b"-ERR max number of clients reached\r\n");
            return;
        };
        if let Ok(stream) = stream.into_std() {
            self.balance.deal(Accepted::Unix(stream, place));
        }
    }

    fn admit(&self) -> Option<Place> {
        let max = self.shared.maxclients.load(Ordering::Relaxed);
        if self.shared.connections.fetch_add(1, Ordering::Relaxed) < max {
            return Some(Place(Arc::clone(&self.shared)));
        }
        self.shared.connections.fetch_sub(1, Ordering::Relaxed);
        self.shared.node.engine().count_rejected_connection();
        None
    }
}

/// The place of a connection among `maxclients`; given back when it ends, however it ends.
pub(crate) struct Place(Arc<Shared>);

impl Drop for Place {
    fn drop(&mut self) {
        self.0.connections.fetch_sub(1, Ordering::Relaxed);
    }
}

fn spawn(seat: &Seat, accepted: Accepted) {
    match accepted {
        Accepted::Tcp(stream, place) => {
            let ends = Ends::of(&stream);
            if prepare(&seat.shared, &stream).is_err() {
                return;
            }
            if is_refused(seat, &ends) {
                if let Ok(stream) = TcpStream::from_std(stream) {
                    tokio::task::spawn_local(protected::refuse(stream));
                }
                return;
            }
            let conversation = Conversation::begin(&seat.shared, ends.peer(), ends.local());
            join(seat, Socket::Tcp(stream), conversation, place);
        }
        Accepted::Tls(stream, place) => {
            let ends = Ends::of(&stream);
            let Some(acceptor) = seat.shared.certificates.as_ref().map(Certificates::acceptor) else {
                return;
            };
            if prepare(&seat.shared, &stream).is_err() {
                return;
            }
            let Ok(stream) = TcpStream::from_std(stream) else { return };
            let seat = seat.clone();
            tokio::task::spawn_local(Fiber::new(async move {
                match tokio::time::timeout(HANDSHAKE_TIMEOUT, acceptor.accept(stream)).await {
                    Ok(Ok(stream)) if is_refused(&seat, &ends) => protected::refuse(stream).await,
                    Ok(Ok(stream)) => {
                        let conversation = Conversation::begin(&seat.shared, ends.peer(), ends.local());
                        let present = conversation.enter(&seat.roster, false);
                        converse(seat, stream, conversation, present, place, Begin::Reading).await;
                    }
                    Ok(Err(error)) => {
                        tracing::info!(peer = ends.peer(), %error, "TLS connection refused");
                        seat.shared.node.engine().count_rejected_connection();
                    }
                    Err(_) => tracing::info!(peer = ends.peer(), "TLS handshake took too long"),
                }
            }));
        }
        Accepted::Unix(stream, place) => {
            let path = stream
                .local_addr()
                .ok()
                .and_then(|addr| addr.as_pathname().map(|path| format!("{}:0", path.display())))
                .unwrap_or_else(|| "unixsocket:0".to_owned());
            let conversation = Conversation::begin(&seat.shared, path.clone(), path);
            join(seat, Socket::Unix(stream), conversation, place);
        }
        Accepted::Moved(socket, conversation, place) => join(seat, socket, *conversation, place),
    }
}

/// Whether a connection may not come from where it comes from, as long as there is no password.
fn is_refused(seat: &Seat, ends: &Ends) -> bool {
    let engine = seat.shared.node.engine();
    let is_local = ends.peer.is_some_and(|peer| protected::is_local(peer.ip()));
    let is_refused =
        !is_local && seat.shared.protected_mode.load(Ordering::Relaxed) && engine.is_unprotected();
    if is_refused {
        engine.count_rejected_connection();
    }
    is_refused
}

/// Takes a connection to the others of this worker.
fn join(seat: &Seat, socket: Socket, conversation: Conversation, place: Place) {
    let present = conversation.enter(&seat.roster, true);
    enter_lane(seat, Member { socket, conversation: Box::new(conversation), place, present });
}

fn enter_lane(seat: &Seat, member: Member) {
    if let Err(member) = seat.lane.enter(member) {
        serve_as_task(seat, member, Begin::Reading);
    }
}

fn leave_lane(seat: &Seat, exit: Exit) {
    match exit {
        Exit::Over(conversation) => conversation.end(),
        Exit::Task(member, begin) => serve_as_task(seat, member, begin),
        Exit::For(member, worker) => {
            let Member { socket, conversation, place, present } = member;
            drop(present);
            seat.balance.hand_over(worker, Accepted::Moved(socket, conversation, place));
        }
    }
}

fn serve_as_task(seat: &Seat, member: Member, begin: Begin) {
    let seat = seat.clone();
    let Member { socket, conversation, place, present } = member;
    tokio::task::spawn_local(Fiber::new(async move {
        match socket {
            Socket::Tcp(stream) => match TcpStream::from_std(stream) {
                Ok(stream) => converse(seat, stream, *conversation, present, place, begin).await,
                Err(_) => conversation.end(),
            },
            Socket::Unix(stream) => match UnixStream::from_std(stream) {
                Ok(stream) => converse(seat, stream, *conversation, present, place, begin).await,
                Err(_) => conversation.end(),
            },
        }
    }));
}

/// The addresses of a connection.
struct Ends {
    peer: Option<SocketAddr>,
    local: Option<SocketAddr>,
}

impl Ends {
    fn of(stream: &std::net::TcpStream) -> Self {
        Self { peer: stream.peer_addr().ok(), local: stream.local_addr().ok() }
    }

    fn peer(&self) -> String {
        self.peer.map(|addr| addr.to_string()).unwrap_or_default()
    }

    fn local(&self) -> String {
        self.local.map(|addr| addr.to_string()).unwrap_or_default()
    }
}

fn prepare(shared: &Shared, stream: &std::net::TcpStream) -> std::io::Result<()> {
    // Without these two the connection works, only worse.
    let _ = stream.set_nodelay(true);
    let keepalive = shared.tcp_keepalive.load(Ordering::Relaxed);
    if keepalive > 0 {
        let every = Duration::from_secs(u64::from(keepalive));
        let probes = TcpKeepalive::new().with_time(every).with_interval(every / 3).with_retries(3);
        let _ = SockRef::from(stream).set_tcp_keepalive(&probes);
    }
    stream.set_nonblocking(true)
}

/// Serves a connection as a task until it ends, goes to another worker, or goes (back) to the lane.
async fn converse<S: Leave>(
    seat: Seat,
    stream: S,
    conversation: Conversation,
    present: Present,
    place: Place,
    begin: Begin,
) {
    let (stream, conversation, left) = connection::serve(stream, conversation, begin, S::IS_MOVABLE).await;
    let socket = match left {
        Left::Over => None,
        Left::For(_) | Left::Calm => stream.leave(),
    };
    match (left, socket) {
        (Left::For(worker), Some(socket)) => {
            drop(present);
            seat.balance.hand_over(worker, Accepted::Moved(socket, Box::new(conversation), place));
        }
        (Left::Calm, Some(socket)) => {
            enter_lane(&seat, Member { socket, conversation: Box::new(conversation), place, present });
        }
        _ => {
            drop(present);
            conversation.end();
        }
    }
}
