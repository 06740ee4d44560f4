//! The backends that every trading test runs on, each started and stopped by the test itself.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use mtcache_cache::Cache;
use mtcache_conformance::programs::{Program, find};
use mtcache_conformance::servers::{ServerOptions, TestServer};
use mtcache_trading::{Clock, Timestamp, Trading};

/// A cache over one backend, and the server behind it; the engine in this process has none.
pub(crate) struct Backend {
    pub(crate) cache: Cache,
    pub(crate) trading: Trading,
    pub(crate) server: Option<TestServer>,
}

impl Backend {
    /// Another service's cache over the same backend.
    pub(crate) async fn another(&self) -> Trading {
        match &self.server {
            Some(server) => Self::open(&server.url()).await.1,
            None => Trading::new(&self.cache).unwrap(),
        }
    }

    async fn open(url: &str) -> (Cache, Trading) {
        let cache = Cache::builder(url).prefix("test:").open().await.unwrap();
        let trading = Trading::new(&cache).unwrap();
        (cache, trading)
    }
}

/// A type that is dropped is moved whole: without this, a body that names only `trading` would leave the server behind to be
/// stopped before the body has run.
impl Drop for Backend {
    fn drop(&mut self) {}
}

/// Runs a test body once over each backend: the engine in this process, and each server that is installed.
pub(crate) async fn on_every_backend<F, Fut>(body: F)
where
    F: Fn(Backend) -> Fut,
    Fut: Future<Output = ()>,
{
    eprintln!("on embedded://");
    let (cache, trading) = Backend::open("embedded://").await;
    body(Backend { cache, trading, server: None }).await;
    for program in Program::ALL {
        if program == Program::Valkey && find(program).is_err() {
            eprintln!("not on {program}: it is not installed");
            continue;
        }
        eprintln!("on {program}");
        let server = TestServer::start(program, ServerOptions::new()).unwrap();
        let (cache, trading) = Backend::open(&server.url()).await;
        body(Backend { cache, trading, server: Some(server) }).await;
    }
}

/// A clock that stands still until it is moved.
#[derive(Clone)]
pub(crate) struct ManualClock(Arc<AtomicU64>);

#[allow(dead_code, reason = "not every test binary moves time")]
impl ManualClock {
    pub(crate) fn now() -> Self {
        Self(Arc::new(AtomicU64::new((Timestamp::now().epoch_seconds() * 1000.0) as u64)))
    }

    pub(crate) fn advance(&self, by: Duration) {
        self.0.fetch_add(by.as_millis() as u64, Ordering::SeqCst);
    }

    pub(crate) fn clock(&self) -> Clock {
        let millis = self.0.clone();
        Clock::new(move || {
            Timestamp::from_epoch_seconds(millis.load(Ordering::SeqCst) as f64 / 1000.0).unwrap()
        })
    }

    pub(crate) fn seconds(&self) -> f64 {
        self.clock().now().epoch_seconds()
    }
}
