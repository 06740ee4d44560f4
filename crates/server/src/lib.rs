//! The server: listeners, worker threads, connections, graceful stop.
//!
//! Each worker is one thread with one single-threaded runtime that owns its connections; all of them call the shared
//! engine directly. Measured against a work-stealing runtime this saves about a microsecond per unpipelined command.
//! Deliberately absent: any cache, any client, what a command does.
#![cfg_attr(
    not(test),
    warn(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)
)]

mod balance;
mod connection;
mod conversation;
mod descriptors;
mod error;
mod fiber;
mod gathering;
mod host;
mod idle_cores;
mod lane;
mod listener;
mod outbox;
mod protected;
mod roster;
mod tls;
mod worker;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;

use mtcache_node::Node;
use tokio::sync::watch;

use self::balance::Balance;
pub use self::balance::{IDLE, SATURATED};
pub use self::descriptors::{DESCRIPTORS_PER_WORKER, RESERVED_DESCRIPTORS};
pub use self::error::ServerError;
use self::host::ServerHost;
use self::listener::Listeners;
pub use self::outbox::MAX_OUTBOX_BYTES;
use self::tls::Certificates;
pub use self::tls::{ClientCertificates, TlsFiles, TlsOptions};
use self::worker::{Shared, Worker};

/// An address to listen on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bind {
    /// The address.
    pub address: IpAddr,
    /// Whether the server starts although this address is not to be had (`-::1` in redis.conf).
    pub is_optional: bool,
}

/// How a server listens and works.
#[derive(Debug, Clone)]
pub struct ServerOptions {
    /// TCP port; `Some(0)` lets the system choose, `None` means no TCP. Default: 6379.
    pub port: Option<u16>,
    /// A port for TLS besides, on the same addresses. Default: none.
    pub tls: Option<TlsOptions>,
    /// Connections from other machines are refused while the user `default` needs no password. Default: yes.
    pub protected_mode: bool,
    /// Addresses to listen on. Default: 127.0.0.1 and, where there is one, `::1`.
    pub bind: Vec<Bind>,
    /// Length of the queue of connections to be accepted. Default: 511.
    pub tcp_backlog: i32,
    /// A Unix socket to listen on besides. Default: none.
    pub unixsocket: Option<PathBuf>,
    /// Its permissions. Default: whatever the umask gives.
    pub unixsocketperm: Option<u32>,
    /// Connections at a time; one more is told so and closed. Fewer where the process may not have so many files open.
    /// Default: 10,000.
    pub maxclients: usize,
    /// Worker threads. Default: one per core.
    pub workers: usize,
    /// Share of a core, in thousandths, from which on a worker hands connections over. Default: [`SATURATED`].
    pub saturated: u32,
    /// Share of a core, in thousandths, that must be idle for that. Default: [`IDLE`].
    pub idle: u32,
}

impl Default for ServerOptions {
    fn default() -> Self {
        Self {
            port: Some(6379),
            tls: None,
            protected_mode: true,
            bind: vec![
                Bind { address: Ipv4Addr::LOCALHOST.into(), is_optional: false },
                Bind { address: Ipv6Addr::LOCALHOST.into(), is_optional: true },
            ],
            tcp_backlog: 511,
            unixsocket: None,
            unixsocketperm: None,
            maxclients: 10_000,
            workers: std::thread::available_parallelism().map_or(1, std::num::NonZero::get),
            saturated: SATURATED,
            idle: IDLE,
        }
    }
}

/// A running server.
#[derive(Debug)]
pub struct Server {
    workers: Vec<Worker>,
    balance: Balance,
    stop: watch::Sender<bool>,
    addresses: Vec<SocketAddr>,
    unix_path: Option<PathBuf>,
    requested: watch::Receiver<bool>,
    node: Arc<Node>,
}

/// A server whose sockets are open and which accepts nothing yet: a busy port is found before a long load begins.
#[derive(Debug)]
pub struct BoundServer {
    listeners: Listeners,
    certificates: Option<Certificates>,
    options: ServerOptions,
}

impl BoundServer {
    /// Makes room for the clients, reads the certificates and opens the sockets.
    pub fn bind(options: &ServerOptions) -> Result<Self, ServerError> {
        let maxclients = descriptors::make_room_at_start(options.maxclients, options.workers)?;
        let certificates = options.tls.as_ref().map(|tls| Certificates::load(&tls.files)).transpose();
        let certificates = certificates.map_err(ServerError::told)?;
        let listeners = Listeners::open(options)?;
        Ok(Self { listeners, certificates, options: ServerOptions { maxclients, ..options.clone() } })
    }

    /// Starts to serve `node`.
    pub fn serve(self, node: Arc<Node>) -> Result<Server, ServerError> {
        let Self { listeners, certificates, options } = self;
        let addresses = listeners.addresses();
        let unix_path = listeners.unix_path.clone();
        let (stop, stopped) = watch::channel(false);
        let serving = Arc::clone(&node);
        let shared = Arc::new(Shared::new(node, &options, certificates));
        let (stop_requested, requested) = watch::channel(false);
        let port = options.port.and_then(|_| addresses.first().map(SocketAddr::port));
        let tls_port = options.tls.as_ref().map(|tls| tls.port);
        let host = Arc::new(ServerHost {
            shared: Arc::clone(&shared),
            port,
            tls_port,
            workers: options.workers,
            stop_requested,
        });
        let engine = Arc::clone(shared.node.engine());
        if engine.config().int("maxclients") > options.maxclients as i64 {
            // What is shown is what there is room for.
            let maxclients = options.maxclients.to_string();
            let changed = engine.set_config(&[b"maxclients", maxclients.as_bytes()]);
            changed.map_err(|error| ServerError::told(error.to_string()))?;
        }
        // Before the first client: one that comes at once may ask for `SHUTDOWN` or change the configuration.
        engine.add_host(Arc::clone(&host) as _);
        engine.on_config_change(host);
        engine.on_overdue_script(|is_first| {
            if is_first {
                tracing::warn!(
                    "a script takes longer than busy-reply-threshold: other commands are refused; SCRIPT KILL ends it if \
                     it has not written"
                );
            }
            fiber::give_turn();
        });
        let (workers, balance) = worker::start(&shared, listeners, &options, &stopped)?;
        Ok(Server { workers, balance, stop, addresses, unix_path, requested, node: serving })
    }
}

impl Server {
    /// Opens the sockets and starts to serve `node`.
    pub fn start(node: Arc<Node>, options: &ServerOptions) -> Result<Self, ServerError> {
        BoundServer::bind(options)?.serve(node)
    }

    /// The TCP addresses listened on, those of TLS last.
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// How many times a connection has gone from one worker to another.
    pub fn moves(&self) -> u64 {
        self.balance.moves()
    }

    /// Waits until a client has asked the server to stop, with `SHUTDOWN`. Stopping is the caller's business.
    pub async fn stop_requested(&self) {
        let mut requested = self.requested.clone();
        if requested.wait_for(|requested| *requested).await.is_err() {
            // Nobody is left who could ask.
            std::future::pending::<()>().await;
        }
    }

    /// Stops accepting, ends the connections and waits for the workers. What was executed stays with the node, which the
    /// caller closes afterwards.
    pub fn stop(self) {
        // The workers may have ended already; then nobody listens and nothing is to be done.
        self.node.engine().end_scripts();
        let _ = self.stop.send(true);
        for worker in self.workers {
            worker.join();
        }
        if let Some(path) = self.unix_path {
            // Somebody may have removed it first, which is just as well.
            let _ = std::fs::remove_file(path);
        }
    }
}
