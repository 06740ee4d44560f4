//! A cache, an axum server behind it, and a client that says exactly what it is told.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use axum::Router;
use mtcache_cache::{Cache, RegionPolicy};
use mtcache_conformance::Program;
use mtcache_conformance::servers::{ServerOptions, TestServer};
use mtcache_http::HttpCache;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

pub(crate) const TTL: Duration = Duration::from_hours(1);

pub(crate) struct Rig {
    pub(crate) cache: Cache,
    _server: Option<TestServer>,
}

impl Rig {
    pub(crate) async fn embedded() -> Self {
        Self { cache: Cache::connect("embedded://").await.unwrap(), _server: None }
    }

    pub(crate) async fn redis() -> Self {
        let server = TestServer::start(Program::Redis, ServerOptions::new()).unwrap();
        Self { cache: Cache::connect(&server.url()).await.unwrap(), _server: Some(server) }
    }

    pub(crate) fn responses(&self) -> HttpCache {
        let policy = RegionPolicy::new("http", TTL).stale_window(TTL);
        HttpCache::new(&self.cache, policy).unwrap()
    }
}

/// Makes a test of each function for each of the two.
macro_rules! on_both_backends {
    ($($name:ident),* $(,)?) => {
        $(mod $name {
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn embedded() {
                super::$name(crate::rig::Rig::embedded().await).await;
            }

            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn redis() {
                super::$name(crate::rig::Rig::redis().await).await;
            }
        })*
    };
}

pub(crate) use on_both_backends;

/// Serves until the test's runtime ends.
pub(crate) async fn serve(app: Router) -> Client {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
    Client { address }
}

#[derive(Clone, Copy)]
pub(crate) struct Client {
    address: SocketAddr,
}

#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    headers: HashMap<String, String>,
    pub(crate) body: Vec<u8>,
}

impl Answer {
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", String::as_str)
    }

    pub(crate) fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }

    /// What `Cache-Status` says, without the cache's name.
    pub(crate) fn came_by(&self) -> &str {
        self.header("cache-status").strip_prefix("mtcache; ").unwrap()
    }

    pub(crate) fn is_hit(&self) -> bool {
        self.came_by().starts_with("hit")
    }
}

impl Client {
    pub(crate) async fn get(&self, path: &str) -> Answer {
        self.send("GET", path, &[]).await
    }

    pub(crate) async fn get_with(&self, path: &str, headers: &[(&str, &str)]) -> Answer {
        self.send("GET", path, headers).await
    }

    pub(crate) async fn send(&self, method: &str, path: &str, headers: &[(&str, &str)]) -> Answer {
        // HTTP/1.0: a body ends where the connection does.
        let mut text = format!("{method} {path} HTTP/1.0\r\nHost: test\r\nContent-Length: 0\r\n");
        for (name, value) in headers {
            text.push_str(&format!("{name}: {value}\r\n"));
        }
        text.push_str("\r\n");
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        stream.write_all(text.as_bytes()).await.unwrap();
        let mut bytes = Vec::new();
        stream.read_to_end(&mut bytes).await.unwrap();
        let end = bytes.windows(4).position(|w| w == b"\r\n\r\n").unwrap();
        let head = String::from_utf8(bytes[..end].to_vec()).unwrap();
        let mut lines = head.lines();
        let status = lines.next().unwrap().split(' ').nth(1).unwrap().parse().unwrap();
        let headers = lines.map(|line| {
            let (name, value) = line.split_once(':').unwrap();
            (name.to_ascii_lowercase(), value.trim().to_owned())
        });
        Answer { status, headers: headers.collect(), body: bytes[end + 4..].to_vec() }
    }
}

/// How often a handler was asked.
#[derive(Clone, Default)]
pub(crate) struct Count(Arc<AtomicU64>);

impl Count {
    pub(crate) fn up(&self) -> u64 {
        self.0.fetch_add(1, Ordering::SeqCst) + 1
    }

    pub(crate) fn now(&self) -> u64 {
        self.0.load(Ordering::SeqCst)
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
