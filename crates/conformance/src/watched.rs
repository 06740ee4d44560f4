//! A service that sentinels watch, for tests: a primary, replicas and sentinels on the loopback.
//!
//! Invariant: a primary is whichever server all running sentinels name, never what a test believes it to be. Sentinels
//! look ten times as often as they do in production, so that a failover takes a second or two. Deliberately absent: clusters.

use std::fs;
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::certificates::Authority;
use crate::patience::{PATIENCE, wait_until};
use crate::ports::free_port;
use crate::programs::Program;
use crate::resp::Value;
use crate::servers::{ServerError, ServerOptions, TestServer};

/// The service's name.
pub const SERVICE: &str = "svc";
/// How long a server is silent before a sentinel thinks it is down.
const DOWN_AFTER_MS: u32 = 500;
/// Time between two looks at who is the primary.
const LOOK_PERIOD: Duration = Duration::from_millis(10);
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
    /// Servers and sentinels speak TLS with one another and with clients. Default: no.
    pub tls: bool,
}

impl Default for WatchedOptions {
    fn default() -> Self {
        Self {
            program: Program::Redis,
            replicas: 1,
            sentinels: 3,
            password: None,
            sentinel_password: None,
            tls: false,
        }
    }
}

/// The running service.
#[derive(Debug)]
pub struct Watched {
    options: WatchedOptions,
    servers: Vec<TestServer>,
    sentinels: Vec<TestServer>,
    /// Where servers and sentinels are reached by one another and by clients, in the same orders.
    ports: Vec<u16>,
    sentinel_ports: Vec<u16>,
    authority: Option<Authority>,
    files: TempDir,
}

impl Watched {
    /// Starts servers and sentinels, and waits until the sentinels name the primary.
    ///
    /// # Panics
    /// When the sentinels do not within [`crate::PATIENCE`].
    pub fn start(options: WatchedOptions) -> Result<Self, ServerError> {
        let files = tempfile::tempdir().map_err(|error| format!("no temporary directory: {error}"))?;
        let authority = options.tls.then(|| Authority::new(files.path(), "ours"));
        let mut watched = Self {
            options,
            servers: Vec::new(),
            sentinels: Vec::new(),
            ports: Vec::new(),
            sentinel_ports: Vec::new(),
            authority,
            files,
        };
        for _ in 0..=watched.options.replicas {
            watched.start_server()?;
        }
        if watched.options.replicas > 0 {
            wait_until("the replicas have their primary's data", || {
                watched.servers[1..].iter().all(|server| role(server) == "slave connected")
            });
        }
        for n in 0..watched.options.sentinels {
            watched.start_sentinel(n)?;
        }
        watched.introduce();
        Ok(watched)
    }

    /// `redis+sentinel://...`, or with TLS `rediss+sentinel://...`
    pub fn url(&self) -> String {
        let hosts: Vec<String> = self.sentinel_ports.iter().map(|port| format!("127.0.0.1:{port}")).collect();
        let credentials =
            self.options.password.as_ref().map_or_else(String::new, |password| format!(":{password}@"));
        let mut query = Vec::new();
        query.extend(self.options.sentinel_password.iter().map(|word| format!("sentinel_password={word}")));
        query.extend(self.authority.iter().map(Authority::url_options));
        let (s, mark) = (if self.options.tls { "s" } else { "" }, if query.is_empty() { "" } else { "?" });
        format!("redis{s}+sentinel://{credentials}{}/{SERVICE}{mark}{}", hosts.join(","), query.join("&"))
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
            [Some(port)] => self.ports.iter().position(|known| known == port),
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
        let old = self.ports[before.unwrap_or_default()];
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
        let is_there = || {
            self.primary()
                .is_some_and(|now| Some(now) != before && role(&self.servers[now]).starts_with("master"))
        };
        let deadline = Instant::now() + PATIENCE;
        while !is_there() {
            assert!(Instant::now() < deadline, "another server is not the primary: {}", self.account());
            std::thread::sleep(LOOK_PERIOD);
        }
    }

    /// Waits until every running server but the primary follows it, and every running sentinel has seen so: one that has not finds no
    /// good replica in the next failover.
    ///
    /// # Panics
    /// When one does not within [`crate::PATIENCE`].
    pub fn wait_replicated(&self) {
        wait_until("the other servers follow the primary, and the sentinels know", || {
            let Some(primary) = self.primary() else { return false };
            let others = self.servers.iter().enumerate();
            let mut others = others.filter(|(at, server)| *at != primary && server.pid().is_some());
            role(&self.servers[primary]).starts_with("master")
                && others.all(|(at, server)| {
                    let mut running = self.sentinels.iter().filter(|sentinel| sentinel.pid().is_some());
                    role(server) == "slave connected"
                        && running.all(|sentinel| is_good_replica(sentinel, self.ports[at]))
                })
        });
    }

    /// What each server says it is, whom each sentinel names, and what the sentinels have seen.
    fn account(&self) -> String {
        let servers = self.servers.iter().zip(&self.ports);
        let servers = servers.map(|(server, port)| format!("{port}: {}", role(server)));
        let sentinels = self.sentinels.iter().map(|sentinel| {
            let (named, log) = (named_by(sentinel), sentinel.log());
            format!("sentinel {} names {named:?}; its log:\n{log}", sentinel.port())
        });
        servers.chain(sentinels).collect::<Vec<_>>().join("\n")
    }

    /// Options for either kind, and the port of TLS if there is one.
    fn options(&self) -> Result<(ServerOptions, Option<u16>), ServerError> {
        let Some(authority) = &self.authority else { return Ok((ServerOptions::new(), None)) };
        let port = free_port()?;
        let [cert, key] = ["client.pem", "client.key"].map(|what| authority.path(what));
        let client = ["--tls-client-cert-file", &cert, "--tls-client-key-file", &key];
        Ok((authority.options(port).args(client).args(["--tls-replication", "yes"]), Some(port)))
    }

    fn start_server(&mut self) -> Result<(), ServerError> {
        let (mut options, tls_port) = self.options()?;
        options = options.args(["--repl-diskless-sync-delay", "0"]);
        if let Some(port) = self.ports.first() {
            options = options.args(["--replicaof", &format!("127.0.0.1 {port}")]);
        }
        if let Some(password) = &self.options.password {
            options = options.password(password).args(["--masterauth", password]);
        }
        let server = TestServer::start(self.options.program, options)?;
        self.ports.push(tls_port.unwrap_or(server.port()));
        self.servers.push(server);
        Ok(())
    }

    fn start_sentinel(&mut self, n: usize) -> Result<(), ServerError> {
        let quorum = self.options.sentinels / 2 + 1;
        let port = self.ports[0];
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
        for port in &self.ports[1..] {
            lines.push(format!("sentinel known-replica {SERVICE} 127.0.0.1 {port}"));
        }
        for (other, port) in self.sentinel_ports.iter().enumerate() {
            lines.push(format!("sentinel known-sentinel {SERVICE} 127.0.0.1 {port} {}", id(other)));
        }
        if let Some(password) = &self.options.sentinel_password {
            lines.push(format!("sentinel sentinel-pass {password}"));
        }
        fs::write(&file, lines.join("\n")).map_err(|error| format!("{}: {error}", file.display()))?;
        let (mut options, tls_port) = self.options()?;
        options = options.config_file(&file);
        if let Some(password) = &self.options.sentinel_password {
            options = options.password(password);
        }
        let sentinel = TestServer::start(self.options.program, options.arg("--sentinel"))?;
        self.sentinel_ports.push(tls_port.unwrap_or(sentinel.port()));
        self.sentinels.push(sentinel);
        Ok(())
    }

    /// Makes the sentinels quick, and waits until each knows all others and the replicas.
    fn introduce(&self) {
        // A sentinel that thinks its clock has jumped, because a busy machine has let it wait for two seconds, would do nothing for 30.
        let periods = [
            ["INFO-PERIOD", "100"],
            // A replica is good for five of these after it has last spoken of itself, which it is asked to do once a second (whatever the
            // period above) when its primary is down: with much less, most attempts find none, and the next one is ten seconds off.
            ["PING-PERIOD", "400"],
            ["ASK-PERIOD", "100"],
            ["PUBLISH-PERIOD", "1000"],
            ["TILT-TRIGGER", "60000"],
            ["MIN-LINK-RECONNECT-PERIOD", "1000"],
            ["ELECTION-TIMEOUT", "2000"],
        ]
        .concat();
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

/// By the word of a sentinel.
fn is_good_replica(sentinel: &TestServer, port: u16) -> bool {
    let Ok(mut client) = sentinel.client() else { return false };
    let Ok(said) = client.command(&["SENTINEL", "REPLICAS", SERVICE]) else { return false };
    let Value::Array(replicas) = said else { return false };
    replicas.iter().map(texts).any(|words| {
        let is = |name: &str, value: &str| words.windows(2).any(|pair| pair[0] == name && pair[1] == value);
        is("port", &port.to_string()) && is("flags", "slave") && is("master-link-status", "ok")
    })
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
