//! One backend under test, empty, with what a test needs around it.

use std::sync::LazyLock;
use std::time::{Duration, Instant};

use mtcache_cache::{Cache, CacheBuilder, Reply, Script};
use mtcache_conformance::servers::{ServerOptions, TestServer};

/// The backends of the contract.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Under {
    Redis,
    RedisOverUnixSocket,
    Valkey,
}

pub(crate) struct Rig {
    pub(crate) server: TestServer,
    url: String,
    /// Without a prefix: what a foreign writer does.
    foreign: Cache,
}

/// Any command, through whatever backend there is.
static ANY: LazyLock<Script> = LazyLock::new(|| Script::new("return redis.call(unpack(ARGV))"));

impl Rig {
    pub(crate) async fn start(under: Under) -> Self {
        let options = ServerOptions::new();
        let server = match under {
            Under::Redis | Under::RedisOverUnixSocket => TestServer::redis(options),
            Under::Valkey => TestServer::valkey(options),
        };
        let server = server.unwrap();
        let url = if under == Under::RedisOverUnixSocket { server.unix_url() } else { server.url() };
        let foreign = Cache::connect(&url).await.unwrap();
        Self { server, url, foreign }
    }

    /// Another client of the same backend: another process, as far as the cache can tell.
    pub(crate) async fn cache(&self) -> Cache {
        self.builder().open().await.unwrap()
    }

    pub(crate) fn builder(&self) -> CacheBuilder {
        Cache::builder(&self.url)
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
            async fn valkey() {
                super::$name(Rig::start(Under::Valkey).await).await;
            }
        })*
    };
}

pub(crate) use on_every_backend;
