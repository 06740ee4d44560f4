//! One backend under test, empty, with what a test needs around it.

use std::collections::HashMap;
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant};

use futures_util::FutureExt;
use mtcache_cache::{Cache, CacheBuilder, Reply, Script};
use mtcache_conformance::certificates::Authority;
use mtcache_conformance::ports::free_port;
use mtcache_conformance::servers::{ServerOptions, TestServer};
use mtcache_conformance::watched::{Watched, WatchedOptions};
use mtcache_conformance::{ClusterOptions, Program, TestCluster};
use mtcache_link::{
    ClusterLink, ClusterTracker, Command, Link, LinkOptions, Listener, TrackOptions, Tracker,
};
use mtcache_node::{Answer, ChangeListener, Changes, Local, Node, NodeOptions};
use parking_lot::Mutex;
use tempfile::TempDir;

/// The backends of the contract.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Under {
    Redis,
    RedisOverUnixSocket,
    RedisOverTls,
    RedisBehindSentinel,
    Valkey,
    Mtcache,
    Embedded,
}

pub(crate) struct Rig {
    backend: Behind,
    foreign: Foreign,
}

enum Behind {
    Server { server: Box<TestServer>, url: String, _files: Option<TempDir> },
    Sentinels(Box<Watched>),
    Engine(Arc<Node>),
    Cluster(Arc<TestCluster>),
}

/// What a foreign writer does, without a prefix.
enum Foreign {
    Anywhere(Cache),
    OnACluster(ClusterLink),
}

/// Any command, through whatever backend there is.
static ANY: LazyLock<Script> = LazyLock::new(|| Script::new("return redis.call(unpack(ARGV))"));

impl Rig {
    pub(crate) async fn start(under: Under) -> Self {
        let started = |program| TestServer::start(program, ServerOptions::new()).unwrap();
        let over_tcp =
            |server: TestServer| Behind::Server { url: server.url(), server: Box::new(server), _files: None };
        let backend = match under {
            Under::Redis => over_tcp(started(Program::Redis)),
            Under::RedisOverUnixSocket => {
                let server = started(Program::Redis);
                Behind::Server { url: server.unix_url(), server: Box::new(server), _files: None }
            }
            Under::RedisOverTls => {
                let files = tempfile::tempdir().unwrap();
                let authority = Authority::new(files.path(), "ours");
                let port = free_port().unwrap();
                let server = TestServer::start(Program::Redis, authority.options(port)).unwrap();
                Behind::Server { url: authority.url(port), server: Box::new(server), _files: Some(files) }
            }
            Under::RedisBehindSentinel => {
                // No replica, which would be a fork for each test: failovers have tests of their own in sentinel.rs.
                let options = WatchedOptions { replicas: 0, sentinels: 1, ..WatchedOptions::default() };
                Behind::Sentinels(Box::new(Watched::start(options).unwrap()))
            }
            Under::Valkey => over_tcp(started(Program::Valkey)),
            Under::Mtcache => over_tcp(started(Program::Mtcache)),
            Under::Embedded => Behind::Engine(Arc::new(Node::open(&NodeOptions::default()).unwrap())),
        };
        let foreign = Foreign::Anywhere(builder(&backend).open().await.unwrap());
        Self { backend, foreign }
    }

    /// A rig on a cluster that others have used before.
    async fn on(cluster: &Arc<TestCluster>) -> Self {
        let url = cluster.url().parse().unwrap();
        let foreign = ClusterLink::open(&url, LinkOptions::default()).unwrap();
        foreign.connected().await.unwrap();
        let rig =
            Self { backend: Behind::Cluster(Arc::clone(cluster)), foreign: Foreign::OnACluster(foreign) };
        rig.raw(&["FLUSHALL"]).await;
        rig.forget_scripts().await;
        rig
    }

    /// Another client of the same backend: another process, as far as the cache can tell.
    pub(crate) async fn cache(&self) -> Cache {
        self.builder().open().await.unwrap()
    }

    pub(crate) fn builder(&self) -> CacheBuilder {
        builder(&self.backend)
    }

    /// Has the backend forget all scripts, as a restart would.
    pub(crate) async fn forget_scripts(&self) {
        match &self.backend {
            Behind::Server { server, .. } => {
                server.client().unwrap().command(&["SCRIPT", "FLUSH"]).unwrap();
            }
            Behind::Sentinels(watched) => {
                watched.primary_server().client().unwrap().command(&["SCRIPT", "FLUSH"]).unwrap();
            }
            Behind::Engine(node) => {
                let answer = Local::new(Arc::clone(node), 0).unwrap().command(&[b"SCRIPT", b"FLUSH"]).await;
                assert_eq!(answer, Answer::Bytes(b"OK".to_vec()));
            }
            Behind::Cluster(_) => drop(self.raw(&["SCRIPT", "FLUSH"]).await),
        }
    }

    /// Counts the messages about keys with this prefix that one more process would have.
    pub(crate) fn told_of(&self, prefix: &str) -> Told {
        let counts = Arc::new(Counts::default());
        let over_link = |url: &str| {
            let link = Link::open(&url.parse().unwrap(), LinkOptions::default()).unwrap();
            let tracker = Tracker::start(&link, TrackOptions::default(), Arc::<Counts>::clone(&counts));
            tracker.add_prefix(prefix);
            Box::new((link, tracker))
        };
        let by: Box<dyn Send> = match &self.backend {
            Behind::Server { url, .. } => over_link(url),
            Behind::Sentinels(watched) => over_link(&watched.url()),
            Behind::Cluster(cluster) => {
                let link =
                    ClusterLink::open(&cluster.url().parse().unwrap(), LinkOptions::default()).unwrap();
                let listener = Arc::<Counts>::clone(&counts);
                let tracker = ClusterTracker::start(&link, TrackOptions::default(), listener);
                tracker.add_prefix(prefix);
                Box::new((link, tracker))
            }
            Behind::Engine(node) => {
                let changes = Changes::of(Arc::clone(node), Arc::<Counts>::clone(&counts));
                changes.add_prefix(prefix.as_bytes()).unwrap();
                Box::new(changes)
            }
        };
        Told { counts, _by: by }
    }

    /// Does as a foreign writer does.
    pub(crate) async fn raw(&self, words: &[&str]) -> Reply {
        match &self.foreign {
            Foreign::Anywhere(cache) => {
                let args: Vec<Vec<u8>> = words.iter().map(|w| w.as_bytes().to_vec()).collect();
                cache.script::<&str>(&ANY, &[], &args).await.unwrap()
            }
            Foreign::OnACluster(link) => {
                let command = Command::new(words[0]).args(&words[1..]);
                if !matches!(words[0], "KEYS" | "FLUSHALL" | "FLUSHDB" | "SCRIPT") {
                    return link.command(command).await.unwrap();
                }
                let mut all = Vec::new();
                for (_, answer) in link.on_every_primary(&command).await.unwrap() {
                    if let Reply::Array(items) = answer.unwrap() {
                        all.extend(items);
                    }
                }
                Reply::Array(all)
            }
        }
    }

    /// The bytes of a key as a foreign reader sees them.
    pub(crate) async fn raw_get(&self, key: &str) -> Option<String> {
        let bytes = self.raw(&["GET", key]).await.into_bytes().unwrap();
        bytes.map(|b| String::from_utf8(b).unwrap())
    }

    /// All keys, sorted.
    pub(crate) async fn raw_keys(&self) -> Vec<String> {
        let keys = self.raw(&["KEYS", "*"]).await.into_array().unwrap();
        let mut keys: Vec<_> =
            keys.into_iter().map(|k| String::from_utf8(k.into_bytes().unwrap().unwrap()).unwrap()).collect();
        keys.sort();
        keys
    }
}

/// Messages by their key.
#[derive(Default)]
struct Counts(Mutex<HashMap<Vec<u8>, u64>>);

impl Counts {
    fn count(&self, key: &[u8]) {
        *self.0.lock().entry(key.to_vec()).or_default() += 1;
    }
}

impl Listener for Counts {
    fn changed(&self, key: &[u8]) {
        self.count(key);
    }

    fn all_changed(&self) {}
}

impl ChangeListener for Counts {
    fn changed(&self, key: &[u8]) {
        self.count(key);
    }

    fn all_changed(&self) {}
}

/// The messages that have come.
pub(crate) struct Told {
    counts: Arc<Counts>,
    _by: Box<dyn Send>,
}

impl Told {
    /// About this key.
    pub(crate) fn of(&self, key: &str) -> u64 {
        self.counts.0.lock().get(key.as_bytes()).copied().unwrap_or_default()
    }

    /// About keys without this prefix, and none of a probe.
    pub(crate) fn others(&self, prefix: &str) -> u64 {
        let counts = self.counts.0.lock();
        let is_other =
            |key: &[u8]| !key.starts_with(prefix.as_bytes()) && !key.starts_with(b"mtcache:probe:");
        counts.iter().filter(|(key, _)| is_other(key)).map(|(_, count)| count).sum()
    }
}

fn builder(backend: &Behind) -> CacheBuilder {
    match backend {
        Behind::Server { url, .. } => Cache::builder(url),
        Behind::Sentinels(watched) => Cache::builder(watched.url()),
        Behind::Engine(node) => Cache::builder("embedded://").on_node(Arc::clone(node), 0),
        Behind::Cluster(cluster) => Cache::builder(cluster.url()),
    }
}

/// Waits until a claim holds; fails the test if it does not in time.
pub(crate) async fn eventually(what: &str, mut claim: impl AsyncFnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !claim().await {
        assert!(Instant::now() < deadline, "not in time: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// One cluster for all tests of a file: one for each would take more time than all that they do.
pub(crate) struct Column {
    cluster: Arc<TestCluster>,
    failed: Vec<&'static str>,
}

impl Column {
    pub(crate) fn start(program: Program) -> Self {
        let cluster = TestCluster::start(program, ClusterOptions::default()).unwrap();
        Self { cluster: Arc::new(cluster), failed: Vec::new() }
    }

    /// Runs one test on the emptied cluster. One that fails does not keep the next from running.
    pub(crate) async fn run(&mut self, name: &'static str, body: impl AsyncFnOnce(Rig)) {
        let began = Instant::now();
        let rig = Rig::on(&self.cluster).await;
        let ended = AssertUnwindSafe(body(rig)).catch_unwind().await;
        println!("{name}: {}, {:?}", if ended.is_ok() { "passed" } else { "FAILED" }, began.elapsed());
        if ended.is_err() {
            self.failed.push(name);
        }
    }

    pub(crate) fn end(self) {
        assert!(self.failed.is_empty(), "failed on a cluster: {}", self.failed.join(", "));
    }
}

/// Makes a test of each function for each backend, and one of all of them on a cluster.
macro_rules! on_every_backend {
    ($($name:ident),* $(,)?) => {
        $(mod $name {
            use crate::rig::{Rig, Under};

            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn redis() {
                super::$name(Rig::start(Under::Redis).await).await;
            }

            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn redis_over_a_unix_socket() {
                super::$name(Rig::start(Under::RedisOverUnixSocket).await).await;
            }

            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn redis_over_tls() {
                super::$name(Rig::start(Under::RedisOverTls).await).await;
            }

            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn redis_behind_sentinel() {
                super::$name(Rig::start(Under::RedisBehindSentinel).await).await;
            }

            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn valkey() {
                super::$name(Rig::start(Under::Valkey).await).await;
            }

            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn our_server() {
                super::$name(Rig::start(Under::Mtcache).await).await;
            }

            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn embedded() {
                super::$name(Rig::start(Under::Embedded).await).await;
            }
        })*

        mod on_a_cluster {
            use mtcache_conformance::Program;

            use crate::rig::Column;

            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn of_redis() {
                let mut column = Column::start(Program::Redis);
                $(column.run(stringify!($name), super::$name).await;)*
                column.end();
            }

            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn of_valkey() {
                let mut column = Column::start(Program::Valkey);
                $(column.run(stringify!($name), super::$name).await;)*
                column.end();
            }
        }
    };
}

pub(crate) use on_every_backend;
