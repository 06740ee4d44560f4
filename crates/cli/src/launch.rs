//! From a configuration to a running server: what `serve` and `demo` share.

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, mpsc};

use mtcache_engine::{Config, EngineOptions};
use mtcache_node::{AppendOnly, Node, NodeOptions, Snapshots};
use mtcache_server::{Bind, BoundServer, Server, ServerOptions, TlsFiles, TlsOptions};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::oneshot;

use crate::allocator;

/// A server and the node that it serves.
#[derive(Debug)]
pub(crate) struct Running {
    pub(crate) node: Arc<Node>,
    pub(crate) server: Server,
    _pid_file: Option<PidFile>,
}

impl Running {
    /// Opens the files, loads what is there, and starts to listen: first for signals, or one that comes as soon as the server answers
    /// would end it without a word.
    pub(crate) fn start(config: &Config) -> Result<(Self, StopSignals), String> {
        let mut signals = None;
        let running = Self::start_once(config, None, &mut || {
            signals = Some(StopSignals::listen()?);
            Ok(())
        })?;
        let signals = signals.ok_or("nobody listens for signals")?;
        Ok((running, signals))
    }

    /// As [`start`](Self::start), on another TCP port, 0 lets the system choose; signals end the process as ever.
    pub(crate) fn start_on(config: &Config, port: u16) -> Result<Self, String> {
        Self::start_once(config, Some(port), &mut || Ok(()))
    }

    /// Before the first client is served, all being loaded, `ready` is called.
    fn start_once(
        config: &Config,
        port: Option<u16>,
        ready: &mut dyn FnMut() -> Result<(), String>,
    ) -> Result<Self, String> {
        // A wrong directory and a busy port are found before a long load begins.
        let options = node_options(config)?;
        let mut listening = server_options(config)?;
        listening.port = port.or(listening.port);
        let bound = BoundServer::bind(&listening).map_err(|error| error.to_string())?;
        let node = Arc::new(Node::open(&options).map_err(|error| error.to_string())?);
        if let Some(report) = node.replayed() {
            tracing::info!(
                keys = report.keys,
                commands = report.commands,
                bytes = report.bytes,
                "loaded the append-only file"
            );
            if let Some(cut) = &report.cut_off {
                tracing::warn!(
                    "{}: cut off {} bytes at offset {}: {}",
                    cut.file,
                    cut.bytes,
                    cut.offset,
                    cut.reason
                );
            }
        }
        if let Some(report) = node.loaded() {
            tracing::info!(keys = report.keys, bytes = report.end, "loaded the snapshot");
        }
        ready()?;
        let server = bound.serve(Arc::clone(&node)).map_err(|error| error.to_string())?;
        Ok(Self { node, server, _pid_file: PidFile::write(config) })
    }

    /// Stops listening, ends the connections, and brings everything to disk.
    pub(crate) fn stop(self) -> Result<(), String> {
        let Self { node, server, _pid_file } = self;
        server.stop();
        node.close().map_err(|error| error.to_string())
    }

    /// Waits for SIGTERM, SIGINT, or a client's `SHUTDOWN`.
    pub(crate) fn wait(&self, signals: StopSignals) -> Result<&'static str, String> {
        signals.wait_or(self.server.stop_requested())
    }
}

fn node_options(config: &Config) -> Result<NodeOptions, String> {
    let dir = PathBuf::from(config.text("dir").into_owned());
    let snapshots = Snapshots { dir: dir.clone(), file_name: config.text("dbfilename").into_owned() };
    if config.flag("appendonly") {
        check_dir(&dir)?;
    }
    let mut append_only = AppendOnly::in_dir(dir);
    append_only.is_on = config.flag("appendonly");
    append_only.fsync = config.text("appendfsync").parse()?;
    append_only.files.dir_name = config.text("appenddirname").into_owned();
    append_only.files.file_name = config.text("appendfilename").into_owned();
    // What could be written has to be read again; lowering the limit for clients makes no file unsound.
    let longest = usize::try_from(config.memory("proto-max-bulk-len")).unwrap_or(usize::MAX);
    append_only.files.max_bulk_bytes = append_only.files.max_bulk_bytes.max(longest);
    if !config.flag("aof-load-truncated") {
        append_only.files.torn_tail = mtcache_persistence::TornTail::Refuse;
    }
    if !config.flag("aof-use-rdb-preamble") {
        append_only.files.base_form = mtcache_persistence::BaseForm::Aof;
    }
    Ok(NodeOptions {
        engine: EngineOptions { config: config.clone(), ..EngineOptions::default() },
        append_only: Some(append_only),
        allocator: Some(allocator::figures),
        snapshots: Some(snapshots),
    })
}

/// Checks the data directory before anything starts, so that a wrong one is one clear line.
fn check_dir(dir: &Path) -> Result<(), String> {
    let metadata = std::fs::metadata(dir).map_err(|error| {
        format!("the directory {} cannot be used: {error}; choose another with --dir", dir.display())
    })?;
    if !metadata.is_dir() {
        return Err(format!("{} is not a directory; choose another with --dir", dir.display()));
    }
    let probe = dir.join(format!(".mtcache-probe-{}", std::process::id()));
    std::fs::write(&probe, b"").map_err(|error| {
        format!("the directory {} is not writable: {error}; choose another with --dir", dir.display())
    })?;
    // What could be written can be removed; if not, an empty file stays and harms nobody.
    let _ = std::fs::remove_file(&probe);
    Ok(())
}

fn server_options(config: &Config) -> Result<ServerOptions, String> {
    let defaults = ServerOptions::default();
    let bind = config.words("bind").iter().map(|word| parse_bind(word)).collect::<Result<Vec<_>, _>>()?;
    let socket = config.text("unixsocket").into_owned();
    let permissions = u32::try_from(config.int("unixsocketperm")).ok().filter(|mode| *mode != 0);
    let port = config.port();
    let tls_port = u16::try_from(config.int("tls-port")).unwrap_or_default();
    if port == 0 && tls_port == 0 && socket.is_empty() {
        return Err("nothing to listen on: give a --port, a --tls-port or a --unixsocket".to_owned());
    }
    Ok(ServerOptions {
        port: (port != 0).then_some(port),
        tls: (tls_port != 0).then(|| TlsOptions { port: tls_port, files: TlsFiles::of(config) }),
        protected_mode: config.flag("protected-mode"),
        bind: bind.into_iter().flatten().collect(),
        tcp_backlog: i32::try_from(config.int("tcp-backlog")).unwrap_or(defaults.tcp_backlog),
        unixsocket: (!socket.is_empty()).then(|| socket.into()),
        unixsocketperm: permissions,
        maxclients: usize::try_from(config.int("maxclients")).unwrap_or(defaults.maxclients),
        workers: workers(config),
        saturated: defaults.saturated,
        idle: defaults.idle,
    })
}

/// Worker threads: what `io-threads` says; its default of 1 stands for one per core.
fn workers(config: &Config) -> usize {
    match usize::try_from(config.int("io-threads")) {
        Ok(threads @ 2..) => threads,
        _ => ServerOptions::default().workers,
    }
}

/// An address as redis.conf has it: `*` for all of IPv4, `::*` for all of IPv6, a dash before one that may be missing.
fn parse_bind(word: &str) -> Result<Vec<Bind>, String> {
    let (is_optional, address) = match word.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, word),
    };
    let addresses: Vec<IpAddr> = match address {
        "*" => vec![IpAddr::from([0, 0, 0, 0])],
        "::*" => vec![IpAddr::from([0_u16; 8])],
        "localhost" => vec![IpAddr::from([127, 0, 0, 1])],
        _ => vec![address.parse().map_err(|_| format!("--bind {word}: not an IP address"))?],
    };
    Ok(addresses.into_iter().map(|address| Bind { address, is_optional }).collect())
}

/// Hears of SIGTERM and SIGINT from when it is made. A second one, while the first is being obeyed, ends the process at once.
pub(crate) struct StopSignals(oneshot::Receiver<&'static str>);

impl StopSignals {
    pub(crate) fn listen() -> Result<Self, String> {
        let (sender, first) = oneshot::channel();
        let (listening, listens) = mpsc::channel();
        std::thread::Builder::new()
            .name("mtcache-signals".to_owned())
            .spawn(move || watch_signals(&listening, sender))
            .map_err(cannot_wait)?;
        listens.recv().map_err(cannot_wait)??;
        Ok(Self(first))
    }

    pub(crate) fn wait(self) -> Result<&'static str, String> {
        self.wait_or(std::future::pending())
    }

    fn wait_or(self, requested: impl Future<Output = ()>) -> Result<&'static str, String> {
        event_loop()?.block_on(async {
            tokio::select! {
                first = self.0 => first.map_err(cannot_wait),
                () = requested => Ok("asked to shut down by a client"),
            }
        })
    }
}

fn cannot_wait(error: impl std::fmt::Display) -> String {
    format!("cannot wait for signals: {error}")
}

fn event_loop() -> Result<tokio::runtime::Runtime, String> {
    tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(cannot_wait)
}

/// Says when it listens; tells the first signal to whoever waits, and ends the process at the second one, whatever it is doing.
fn watch_signals(listening: &mpsc::Sender<Result<(), String>>, first: oneshot::Sender<&'static str>) {
    let watch = async || {
        let mut terminate = signal(SignalKind::terminate()).map_err(cannot_wait)?;
        let mut interrupt = signal(SignalKind::interrupt()).map_err(cannot_wait)?;
        // Whoever waits for this goes on to wait for the first signal.
        let _ = listening.send(Ok(()));
        let mut next = async || {
            tokio::select! {
                _ = terminate.recv() => "received SIGTERM",
                _ = interrupt.recv() => "received SIGINT",
            }
        };
        // A client may have asked for the stop before; then nobody hears of this one.
        let _ = first.send(next().await);
        let why = next().await;
        tracing::error!("{why} again: ending at once; what is not saved is lost");
        std::process::exit(1);
    };
    let watched: Result<(), String> = event_loop().and_then(|event_loop| event_loop.block_on(watch()));
    if let Err(error) = watched {
        let _ = listening.send(Err(error));
    }
}

/// The file that holds the process' number while it runs.
#[derive(Debug)]
struct PidFile(PathBuf);

impl PidFile {
    /// Writes the file that `pidfile` names, if it names one; a relative path is one below `dir`.
    fn write(config: &Config) -> Option<Self> {
        let name = config.text("pidfile");
        if name.is_empty() {
            return None;
        }
        let path = Path::new(&*config.text("dir")).join(&*name);
        match std::fs::write(&path, format!("{}\n", std::process::id())) {
            Ok(()) => Some(Self(path)),
            Err(error) => {
                // As in Redis, a server without its file is better than none.
                tracing::warn!("cannot write the pidfile {}: {error}", path.display());
                None
            }
        }
    }
}

impl Drop for PidFile {
    fn drop(&mut self) {
        // Somebody may have removed it, which is just as well.
        let _ = std::fs::remove_file(&self.0);
    }
}
