//! Servers for tests: redis-server, Valkey and our own, each on a port and in a directory of its own, stopped when dropped.
//!
//! Invariants: only processes started here are signalled, by their pid; a server counts as ready when the process that
//! answers on the port says that it is the one started here; every wait has a deadline, and its error carries the log's end.
//! Deliberately absent: containers, clusters, anything that is not on the loopback.

use std::ffi::OsString;
use std::fmt;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::client::{Address, Client};
use crate::clock;
use crate::patience::PATIENCE;
use crate::ports::Port;
use crate::programs::{self, Program};
use crate::spawner;

/// How long a server may take until it answers.
const START_DEADLINE: Duration = PATIENCE;
/// How long a server may take to end after SIGTERM.
const STOP_DEADLINE: Duration = Duration::from_secs(20);
/// How many other ports are tried when somebody who is no test takes ours between the choice and the bind.
const PORT_ATTEMPTS: usize = 8;
/// How much of the log an error shows.
const LOG_TAIL: usize = 3_000;

/// What a test server is started with, beyond port, socket, directory and no persistence. Later arguments win over the
/// harness's own, so `--appendonly yes` turns persistence on.
#[derive(Debug, Clone, Default)]
pub struct ServerOptions {
    args: Vec<OsString>,
    password: Option<String>,
    environment: Vec<(String, String)>,
    no_tcp: bool,
    config_file: Option<PathBuf>,
    open_files: Option<OpenFiles>,
    clock_ahead: i32,
}

/// How many files a server may have open: `ulimit -S -n` and `ulimit -H -n`. Even root may not go beyond.
#[derive(Debug, Clone, Copy)]
pub struct OpenFiles {
    /// The limit that the server starts with.
    pub soft: u32,
    /// As far as it may raise that.
    pub hard: u32,
}

/// The options of [`TestServer::redis`].
pub type RedisOptions = ServerOptions;

impl ServerOptions {
    /// Nothing but the harness's own options.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds one argument.
    #[must_use]
    pub fn arg(mut self, arg: impl Into<OsString>) -> Self {
        self.args.push(arg.into());
        self
    }

    /// Adds arguments.
    #[must_use]
    pub fn args<I: IntoIterator<Item = A>, A: Into<OsString>>(mut self, args: I) -> Self {
        self.args.extend(args.into_iter().map(Into::into));
        self
    }

    /// Sets `--requirepass`; [`TestServer::client`] and the URLs then carry it. Letters and digits only.
    #[must_use]
    pub fn password(mut self, password: &str) -> Self {
        self.password = Some(password.to_owned());
        self
    }

    /// Starts it without a plain TCP port, as a server that speaks TLS alone; the harness asks over the Unix socket.
    #[must_use]
    pub fn no_tcp(mut self) -> Self {
        self.no_tcp = true;
        self
    }

    /// Starts it with this configuration file, which the harness's own options go before.
    #[must_use]
    pub fn config_file(mut self, path: impl Into<PathBuf>) -> Self {
        self.config_file = Some(path.into());
        self
    }

    /// Limits the files that the server may have open.
    #[must_use]
    pub fn open_files(mut self, limit: OpenFiles) -> Self {
        self.open_files = Some(limit);
        self
    }

    /// Has its clock so many seconds ahead. Not for Debian's redis-server (see [`clock`]).
    #[must_use]
    pub fn clock_ahead(mut self, seconds: i32) -> Self {
        self.clock_ahead = seconds;
        self
    }

    /// Sets an environment variable of the server.
    #[must_use]
    pub fn environment(mut self, name: &str, value: &str) -> Self {
        self.environment.push((name.to_owned(), value.to_owned()));
        self
    }
}

impl<const N: usize> From<[&str; N]> for ServerOptions {
    fn from(args: [&str; N]) -> Self {
        Self::new().args(args)
    }
}

impl From<&[&str]> for ServerOptions {
    fn from(args: &[&str]) -> Self {
        Self::new().args(args.iter().copied())
    }
}

/// Why a server could not be started or stopped, with the end of its log.
pub struct ServerError(String);

impl fmt::Display for ServerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

// What `unwrap` prints in a failing test is read by people.
impl fmt::Debug for ServerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for ServerError {}

impl From<String> for ServerError {
    fn from(message: String) -> Self {
        Self(message)
    }
}

/// A running (or stopped, and then restartable) server.
#[derive(Debug)]
pub struct TestServer {
    program: Program,
    executable: PathBuf,
    options: ServerOptions,
    port: Port,
    directory: TempDir,
    child: Option<Child>,
}

impl TestServer {
    /// Starts `redis-server` from PATH (or `MTCACHE_REDIS_SERVER`).
    pub fn redis(options: impl Into<ServerOptions>) -> Result<Self, ServerError> {
        Self::start(Program::Redis, options.into())
    }

    /// Starts Valkey: `MTCACHE_VALKEY_SERVER`, or what `scripts/install-test-tools.sh` installed.
    pub fn valkey(options: impl Into<ServerOptions>) -> Result<Self, ServerError> {
        Self::start(Program::Valkey, options.into())
    }

    /// Starts `mtcache serve`: the binary `MTCACHE_BIN`, or this workspace's, built first when that is needed.
    pub fn mtcache(options: impl Into<ServerOptions>) -> Result<Self, ServerError> {
        Self::start(Program::Mtcache, options.into())
    }

    /// Starts any of the three.
    pub fn start(program: Program, options: ServerOptions) -> Result<Self, ServerError> {
        let executable = programs::find(program)?;
        let directory = tempfile::Builder::new()
            .prefix("mtcache-test-")
            .tempdir()
            .map_err(|error| format!("no temporary directory for a test server: {error}"))?;
        let mut server = Self { program, executable, options, port: Port::any()?, directory, child: None };
        for _ in 0..PORT_ATTEMPTS {
            match server.launch() {
                Err(LaunchError::PortTaken) => server.port = Port::any()?,
                Err(LaunchError::Failed(error)) => return Err(error),
                Ok(()) => return Ok(server),
            }
        }
        Err(server.error(&format!("was started {PORT_ATTEMPTS} times and found a port taken each time")))
    }

    /// Which program this is.
    pub fn program(&self) -> Program {
        self.program
    }

    /// The TCP port on 127.0.0.1; the same after a restart.
    pub fn port(&self) -> u16 {
        self.port.number()
    }

    /// The TCP address.
    pub fn address(&self) -> Address {
        Address::Tcp(self.port())
    }

    /// The Unix socket; every test server has one.
    pub fn socket(&self) -> PathBuf {
        self.directory.path().join("server.sock")
    }

    /// `redis://[:password@]127.0.0.1:port`
    pub fn url(&self) -> String {
        let credentials =
            self.options.password.as_ref().map_or_else(String::new, |password| format!(":{password}@"));
        format!("redis://{credentials}127.0.0.1:{}", self.port())
    }

    /// `unix:///path/of/socket[?pass=password]`
    pub fn unix_url(&self) -> String {
        let credentials =
            self.options.password.as_ref().map_or_else(String::new, |password| format!("?pass={password}"));
        format!("unix://{}{credentials}", self.socket().display())
    }

    /// The server's working directory, kept over restarts.
    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// The pid of the running process.
    pub fn pid(&self) -> Option<u32> {
        self.child.as_ref().map(Child::id)
    }

    /// All that the server has printed, over all its restarts.
    pub fn log(&self) -> String {
        fs::read(self.log_path())
            .map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
            .unwrap_or_default()
    }

    /// A new connection over TCP, authenticated when the server has a password.
    pub fn client(&self) -> io::Result<Client> {
        self.authenticated(Client::connect(&self.address())?)
    }

    /// A new connection over the Unix socket, authenticated when the server has a password.
    pub fn unix_client(&self) -> io::Result<Client> {
        self.authenticated(Client::connect(&Address::Unix(self.socket()))?)
    }

    /// SIGTERM, then waits for the end.
    pub fn stop(&mut self) -> Result<ExitStatus, ServerError> {
        self.signal("TERM")?;
        // A stopped process handles the signal only when it goes on.
        self.signal("CONT")?;
        self.wait()
    }

    /// Waits for the end of a server that has been told to stop.
    pub fn wait(&mut self) -> Result<ExitStatus, ServerError> {
        let deadline = Instant::now() + STOP_DEADLINE;
        loop {
            if let Some(status) = self.exit_status()? {
                self.child = None;
                return Ok(status);
            }
            if Instant::now() > deadline {
                self.kill()?;
                return Err(self.error("did not end in time"));
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// SIGKILL, then waits for the end.
    pub fn kill(&mut self) -> Result<(), ServerError> {
        let Some(mut child) = self.child.take() else {
            return Ok(());
        };
        child
            .kill()
            .and_then(|()| child.wait())
            .map(drop)
            .map_err(|error| self.error(&format!("cannot be killed: {error}")))
    }

    /// SIGSTOP: connections stay open, nothing answers. Returns when every thread has stopped.
    pub fn pause(&self) -> Result<(), ServerError> {
        self.signal("STOP")?;
        let deadline = Instant::now() + STOP_DEADLINE;
        while self.pid().is_some_and(has_running_threads) {
            if Instant::now() > deadline {
                return Err(self.error("did not stop after SIGSTOP"));
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        Ok(())
    }

    /// SIGCONT.
    pub fn resume(&self) -> Result<(), ServerError> {
        self.signal("CONT")
    }

    /// Stops the server if it runs, and starts it on the same port and directory.
    pub fn restart(&mut self) -> Result<(), ServerError> {
        if self.child.is_some() {
            self.stop()?;
        }
        self.start_again()
    }

    /// Starts a stopped or killed server on the same port and directory.
    pub fn start_again(&mut self) -> Result<(), ServerError> {
        let deadline = Instant::now() + START_DEADLINE;
        loop {
            match self.launch() {
                Ok(()) => return Ok(()),
                Err(LaunchError::Failed(error)) => return Err(error),
                Err(LaunchError::PortTaken) if Instant::now() > deadline => {
                    return Err(self.error(&format!("found its port taken for {START_DEADLINE:?}")));
                }
                Err(LaunchError::PortTaken) => std::thread::sleep(Duration::from_millis(50)),
            }
        }
    }

    /// Sends a signal by its name without `SIG`.
    pub fn signal(&self, name: &str) -> Result<(), ServerError> {
        let pid = self.pid().ok_or_else(|| self.error("is not running"))?;
        let status = Command::new("kill").args([&format!("-{name}"), &pid.to_string()]).status();
        match status {
            Ok(status) if status.success() => Ok(()),
            Ok(status) => Err(self.error(&format!("kill -{name} {pid}: {status}"))),
            Err(error) => Err(self.error(&format!("kill -{name} {pid}: {error}"))),
        }
    }

    fn launch(&mut self) -> Result<(), LaunchError> {
        // A socket file left by a killed server would look like a live one.
        let _ = fs::remove_file(self.socket());
        let said_before = self.log().len();
        self.child = Some(self.spawn().map_err(|error| self.error(&format!("cannot be started: {error}")))?);
        let began = Instant::now();
        loop {
            let pid = self.pid().unwrap_or_default();
            if let Some(status) = self.exit_status()? {
                self.child = None;
                // Not what an earlier run has said.
                if self.log().get(said_before..).is_some_and(|said| said.contains("ddress already in use")) {
                    return Err(LaunchError::PortTaken);
                }
                let after = began.elapsed();
                return Err(self
                    .error(&format!("(pid {pid}) ended {after:?} after its start: {status}"))
                    .into());
            }
            match self.process_behind_port() {
                Ok(answering) if answering == pid => return Ok(()),
                Ok(_) | Err(_) if began.elapsed() < START_DEADLINE => {
                    std::thread::sleep(Duration::from_millis(5));
                }
                outcome => {
                    let _ = self.kill();
                    let what = match outcome {
                        Ok(other) => format!("process {other} answers there"),
                        Err(error) => format!("last: {error}"),
                    };
                    let waited = began.elapsed();
                    return Err(self
                        .error(&format!("(pid {pid}) does not answer for {waited:?}; {what}"))
                        .into());
                }
            }
        }
    }

    fn spawn(&self) -> io::Result<Child> {
        let port = if self.options.no_tcp { 0 } else { self.port() };
        let log = File::options().create(true).append(true).open(self.log_path())?;
        let clock = clock::ahead(self.options.clock_ahead).map_err(io::Error::other)?;
        let mut command = spawner::dies_with_us(&self.executable, self.options.open_files, clock);
        if self.program == Program::Mtcache {
            command.arg("serve");
        }
        command
            .args(&self.options.config_file)
            .args(["--port", &port.to_string(), "--bind", "127.0.0.1"])
            .args(["--save", "", "--appendonly", "no"])
            .arg("--unixsocket")
            .arg(self.socket())
            .arg("--dir")
            .arg(self.directory.path())
            .args(self.options.password.iter().flat_map(|password| ["--requirepass", password]))
            .args(&self.options.args)
            .envs(self.options.environment.iter().map(|(name, value)| (name, value)))
            .current_dir(self.directory.path())
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log);
        spawner::spawn(command)
    }

    fn process_behind_port(&self) -> io::Result<u32> {
        let mut client = if self.options.no_tcp { self.unix_client() } else { self.client() }?;
        // INFO is answered while a server still loads its data; PING is not.
        let pong = client.command(&["PING"])?;
        if let Some(error) = pong.error() {
            return Err(io::Error::other(error));
        }
        let info = client.command(&["INFO", "server"])?;
        let text = info.text().ok_or_else(|| io::Error::other(format!("INFO server answered {info:?}")))?;
        text.lines()
            .find_map(|line| line.strip_prefix("process_id:"))
            .and_then(|pid| pid.trim().parse().ok())
            .ok_or_else(|| io::Error::other("INFO server has no process_id"))
    }

    fn authenticated(&self, mut client: Client) -> io::Result<Client> {
        if let Some(password) = &self.options.password {
            let reply = client.command(&["AUTH", password])?;
            if let Some(error) = reply.error() {
                return Err(io::Error::other(error));
            }
        }
        Ok(client)
    }

    fn exit_status(&mut self) -> Result<Option<ExitStatus>, ServerError> {
        let status = self.child.as_mut().map(Child::try_wait).transpose();
        status.map(Option::flatten).map_err(|error| self.error(&format!("cannot be waited for: {error}")))
    }

    fn log_path(&self) -> PathBuf {
        self.directory.path().join("server.log")
    }

    fn log_tail(&self) -> String {
        let log = self.log();
        let mut start = log.len().saturating_sub(LOG_TAIL);
        while !log.is_char_boundary(start) {
            start += 1;
        }
        log[start..].to_owned()
    }

    fn error(&self, what: &str) -> ServerError {
        ServerError(format!(
            "{} ({}, port {}) {what}; the end of its log:\n{}",
            self.program,
            self.executable.display(),
            self.port(),
            self.log_tail()
        ))
    }
}

impl Drop for TestServer {
    fn drop(&mut self) {
        let _ = self.kill();
    }
}

enum LaunchError {
    PortTaken,
    Failed(ServerError),
}

impl From<ServerError> for LaunchError {
    fn from(error: ServerError) -> Self {
        Self::Failed(error)
    }
}

/// Whether a thread of the process is not stopped; false where the system does not tell.
fn has_running_threads(pid: u32) -> bool {
    let Ok(threads) = fs::read_dir(format!("/proc/{pid}/task")) else { return false };
    threads.flatten().any(|thread| {
        let stat = fs::read_to_string(thread.path().join("stat")).unwrap_or_default();
        // The state follows the name, which is in parentheses and may contain any others.
        stat.rsplit_once(") ").is_some_and(|(_, state)| !state.starts_with(['T', 't', 'Z', 'X']))
    })
}
