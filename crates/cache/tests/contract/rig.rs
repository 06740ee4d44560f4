//! One backend under test, empty, with what a test needs around it.

use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant};

use mtcache_cache::{Cache, CacheBuilder, Reply, Script};
use mtcache_conformance::Program;
use mtcache_conformance::certificates::Authority;
use mtcache_conformance::servers::{ServerOptions, TestServer, free_port};
use mtcache_conformance::watched::{Watched, WatchedOptions};
use mtcache_node::{Answer, Local, Node, NodeOptions};
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
    /// Without a prefix: what a foreign writer does.
    foreign: Cache,
}

enum Behind {
    Server { server: Box<TestServer>, url: String, _files: Option<TempDir> },
    Sentinels(Box<Watched>),
    Engine(Arc<Node>),
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
        let foreign = builder(&backend).open().await.unwrap();
        Self { backend, foreign }
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
        }
    }

    /// Does as a foreign writer does.
    pub(crate) async fn raw(&self, words: &[&str]) -> Reply {
        let args: Vec<Vec<u8>> = words.iter().map(|w| w.as_bytes().to_vec()).collect();
        self.foreign.script::<&str>(&ANY, &[], &args).await.unwrap()
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

fn builder(backend: &Behind) -> CacheBuilder {
    match backend {
        Behind::Server { url, .. } => Cache::builder(url),
        Behind::Sentinels(watched) => Cache::builder(watched.url()),
        Behind::Engine(node) => Cache::builder("embedded://").on_node(Arc::clone(node), 0),
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

/// Makes a test of each function for each backend.
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
    };
}

pub(crate) use on_every_backend;
