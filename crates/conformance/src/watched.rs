//! A service that sentinels watch, for tests: a primary, replicas and sentinels on the loopback.
//!
//! Invariant: a primary is whichever server all running sentinels name, never what a test believes it to be. Sentinels
//! look ten times as often as they do in production, so that a failover takes a second or two. Deliberately absent: TLS.

use std::fs;
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::patience::wait_until;
use crate::programs::Program;
use crate::resp::Value;
use crate::servers::{ServerError, ServerOptions, TestServer};

/// The service's name.
pub const SERVICE: &str = "svc";
/// How long a server is silent before a sentinel thinks it is down.
const DOWN_AFTER_MS: u32 = 500;
/// Time between two orders to fail over, while nothing has come of the first.
const AGAIN_AFTER: Duration = Duration::from_secs(1);

/// What is started.
#[derive(Clone, Debug)]
pub struct WatchedOptions {
    /// Default: redis-server.
    pub program: Program,
    /// Default: 1.
    pub replicas: usize,
    /// Default: 3, two of which have to agree.
    pub sentinels: usize,
    /// The servers' password. Default: none.
    pub password: Option<String>,
    /// The sentinels' own password. Default: none.
    pub sentinel_password: Option<String>,
}

impl Default for WatchedOptions {
    fn default() -> Self {
        Self { program: Program::Redis, replicas: 1, sentinels: 3, password: None, sentinel_password: None }
    }
}

/// The running service.
#[derive(Debug)]
pub struct Watched {
    options: WatchedOptions,
    servers: Vec<TestServer>,
    sentinels: Vec<TestServer>,
    files: TempDir,
}

impl Watched {
    /// Starts servers and sentinels, and waits until the sentinels name the primary.
    ///
    /// # Panics
    /// When the sentinels do not within [`crate::PATIENCE`].
    pub fn start(options: WatchedOptions) -> Result<Self, ServerError> {
        let files = tempfile::tempdir().map_err(|error| format!("no temporary directory: {error}"))?;
        let start_server = |more: &[&str]| {
            let mut server = ServerOptions::new().args(["--repl-diskless-sync-delay", "0"]).args(more);
            if let Some(password) = &options.password {
                server = server.password(password).args(["--masterauth", password]);
            }
            TestServer::start(options.program, server)
        };
        let mut servers = vec![start_server(&[])?];
        let port = servers[0].port();
        for _ in 0..options.replicas {
            servers.push(start_server(&["--replicaof", &format!("127.0.0.1 {port}")])?);
        }
        let mut watched = Self { options, servers, sentinels: Vec::new(), files };
        if watched.options.replicas > 0 {
            wait_until("the replicas have their primary's data", || {
                watched.servers[1..].iter().all(|server| role(server) == "slave connected")
            });
        }
        for n in 0..watched.options.sentinels {
            let sentinel = watched.start_sentinel(n)?;
            watched.sentinels.push(sentinel);
        }
        watched.introduce();
        Ok(watched)
    }

    /// `redis+sentinel://...`
    pub fn url(&self) -> String {
        let hosts: Vec<String> =
            self.sentinels.iter().map(|sentinel| format!("127.0.0.1:{}", sentinel.port())).collect();
        let credentials =
            self.options.password.as_ref().map_or_else(String::new, |password| format!(":{password}@"));
        let query = self
            .options
            .sentinel_password
            .as_ref()
            .map_or_else(String::new, |password| format!("?sentinel_password={password}"));
        format!("redis+sentinel://{credentials}{}/{SERVICE}{query}", hosts.join(","))
    }

    /// The servers, in the order in which they were started.
    pub fn servers(&mut self) -> &mut [TestServer] {
        &mut self.servers
    }

    /// The sentinels.
    pub fn sentinels(&mut self) -> &mut [TestServer] {
        &mut self.sentinels
    }

    /// The index of the server that all running sentinels name; none while they do not agree.
    pub fn primary(&self) -> Option<usize> {
        let running = || self.sentinels.iter().filter(|sentinel| sentinel.pid().is_some());
        let mut named: Vec<Option<u16>> = running().map(named_by).collect();
        named.dedup();
        match named.as_slice() {
            [Some(port)] => self.servers.iter().position(|server| server.port() == *port),
            _ => None,
        }
    }

    /// The primary's server.
    ///
    /// # Panics
    /// When the sentinels do not agree within [`crate::PATIENCE`].
    pub fn primary_server(&self) -> &TestServer {
        wait_until("the sentinels agree", || self.primary().is_some());
        &self.servers[self.primary().unwrap_or_default()]
    }

    /// Has a sentinel make another server the primary, and waits until all say so and it takes writes.
    ///
    /// # Panics
    /// When that does not come about within [`crate::PATIENCE`].
    pub fn fail_over(&self) {
        wait_until("the sentinels agree", || self.primary().is_some());
        let before = self.primary();
        let old = self.servers[before.unwrap_or_default()].port();
        let mut asked: Option<Instant> = None;
        wait_until("a sentinel has made a replica the primary", || {
            // One that finds no good replica gives up without a word, so it is asked again.
            if asked.is_none_or(|asked| asked.elapsed() >= AGAIN_AFTER) {
                let mut sentinel = self.sentinels[0].client().unwrap();
                sentinel.command(&["SENTINEL", "FAILOVER", SERVICE]).unwrap();
                asked = Some(Instant::now());
            }
            named_by(&self.sentinels[0]) != Some(old)
        });
        self.wait_for_other_than(before);
    }

    /// Kills the primary, and waits for another; says which it was.
    ///
    /// # Panics
    /// When there is none within [`crate::PATIENCE`].
    pub fn kill_primary(&mut self) -> usize {
        wait_until("the sentinels agree", || self.primary().is_some());
        let before = self.primary();
        let killed = before.unwrap_or_default();
        self.servers[killed].kill().unwrap();
        self.wait_for_other_than(before);
        killed
    }

    /// Waits until all sentinels name another primary, which takes writes.
    ///
    /// # Panics
    /// When there is none within [`crate::PATIENCE`].
    pub fn wait_for_other_than(&self, before: Option<usize>) {
        wait_until("another server is the primary", || {
            self.primary()
                .is_some_and(|now| Some(now) != before && role(&self.servers[now]).starts_with("master"))
        });
    }

    fn start_sentinel(&self, n: usize) -> Result<TestServer, ServerError> {
        let quorum = self.options.sentinels / 2 + 1;
        let port = self.servers[0].port();
        let file = self.files.path().join(format!("sentinel-{n}.conf"));
        let mut lines = vec![
            format!("sentinel myid {}", id(n)),
            format!("sentinel monitor {SERVICE} 127.0.0.1 {port} {quorum}"),
            format!("sentinel down-after-milliseconds {SERVICE} {DOWN_AFTER_MS}"),
            format!("sentinel failover-timeout {SERVICE} 5000"),
        ];
        if let Some(password) = &self.options.password {
            lines.push(format!("sentinel auth-pass {SERVICE} {password}"));
        }
        for replica in &self.servers[1..] {
            lines.push(format!("sentinel known-replica {SERVICE} 127.0.0.1 {}", replica.port()));
        }
        for (other, sentinel) in self.sentinels.iter().enumerate() {
            lines.push(format!(
                "sentinel known-sentinel {SERVICE} 127.0.0.1 {} {}",
                sentinel.port(),
                id(other)
            ));
        }
        if let Some(password) = &self.options.sentinel_password {
            lines.push(format!("sentinel sentinel-pass {password}"));
        }
        fs::write(&file, lines.join("\n")).map_err(|error| format!("{}: {error}", file.display()))?;
        let mut options = ServerOptions::new().config_file(&file);
        if let Some(password) = &self.options.sentinel_password {
            options = options.password(password);
        }
        TestServer::start(self.options.program, options.arg("--sentinel"))
    }

    /// Makes the sentinels quick, and waits until each knows all others and the replicas.
    fn introduce(&self) {
        let periods =
            ["INFO-PERIOD", "100", "PING-PERIOD", "100", "ASK-PERIOD", "100", "PUBLISH-PERIOD", "1000"];
        for sentinel in &self.sentinels {
            let mut client = sentinel.client().unwrap();
            let reply = client.command(&[&["SENTINEL", "DEBUG"][..], &periods[..]].concat()).unwrap();
            assert!(reply.error().is_none(), "{reply:?}");
        }
        let expected = [
            ("num-other-sentinels", self.options.sentinels.saturating_sub(1)),
            ("num-slaves", self.options.replicas),
        ];
        wait_until("the sentinels know one another", || {
            self.sentinels.iter().all(|sentinel| {
                let mut client = sentinel.client().unwrap();
                let said = client.command(&["SENTINEL", "MASTER", SERVICE]).unwrap();
                let words = texts(&said);
                expected.iter().all(|(name, count)| {
                    words.windows(2).any(|pair| pair[0] == *name && pair[1] == count.to_string())
                })
            })
        });
    }
}

fn id(n: usize) -> String {
    format!("{:040x}", n + 1)
}

fn named_by(sentinel: &TestServer) -> Option<u16> {
    let mut client = sentinel.client().ok()?;
    let said = client.command(&["SENTINEL", "GET-MASTER-ADDR-BY-NAME", SERVICE]).ok()?;
    texts(&said).get(1)?.parse().ok()
}

/// `master`, or `slave` with the state of its connection.
fn role(server: &TestServer) -> String {
    let Ok(mut client) = server.client() else { return String::new() };
    let words = client.command(&["ROLE"]).map(|said| texts(&said)).unwrap_or_default();
    match words.as_slice() {
        [role, _, _, state, ..] if role == "slave" => format!("{role} {state}"),
        [role, ..] => role.clone(),
        [] => String::new(),
    }
}

fn texts(value: &Value) -> Vec<String> {
    match value {
        Value::Array(items) => {
            items.iter().map(|item| item.text().unwrap_or_else(|| format!("{item:?}"))).collect()
        }
        _ => Vec::new(),
    }
}
