//! A backend whose clock is a quarter of an hour away from ours, and tags while a backend is out of reach. Servers outside only.

use std::io;
use std::time::Duration;

use mtcache_cache::{Age, Cache, ErrorKind, Framing, ReadOptions, Region, RegionPolicy, Source};
use mtcache_conformance::{Program, ServerOptions, TestServer, Value};

use crate::near::{near_is_on, warm};
use crate::proxy::{Mode, Proxy};
use crate::rig::eventually;

const TTL: Duration = Duration::from_secs(30);
const SHORT: Duration = Duration::from_millis(300);

fn policy() -> RegionPolicy {
    RegionPolicy::new("r", TTL).framed(Framing::new())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ages_and_tags_are_the_same_whatever_the_backends_clock_says() {
    for program in [Program::Valkey, Program::Mtcache] {
        for offset in [900, -900] {
            let server = TestServer::start(program, ServerOptions::new().clock_ahead(offset)).unwrap();
            let here = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
            let time = server.client().unwrap().command(&["TIME"]).unwrap();
            let Value::Array(parts) = time else { panic!("{time:?}") };
            let Some(Value::Bulk(seconds)) = parts.first() else { panic!("{parts:?}") };
            let there: u64 = String::from_utf8_lossy(seconds).parse().unwrap();
            assert!(there.abs_diff(here) > 800, "{program:?} {offset}: {there} against {here}");

            let cache = Cache::connect(&server.url()).await.unwrap();
            let region: Region<u64> = cache.region(policy().near(true).stale_window(TTL)).unwrap();
            let tagged = region.tagged(["t"]).unwrap();
            near_is_on(&cache).await;
            tagged.set("k", &1).await.unwrap();
            let loader = || async { Ok::<_, io::Error>(2) };
            tagged.get_or_load("l", loader).await.unwrap();
            for id in ["k", "l"] {
                let strict = ReadOptions::new().max_age(Duration::from_secs(10));
                let read = region.get_with(id, strict).await.unwrap().unwrap();
                assert!(matches!(read.age, Age::Exact(_)), "{program:?} {offset}: {:?}", read.age);
                warm(&region, id).await;
            }
            region.set_for("short", &3, Duration::from_millis(50)).await.unwrap();
            tokio::time::sleep(Duration::from_millis(60)).await;
            assert!(region.get("short").await.unwrap().is_none());
            cache.invalidate_tag("t").await.unwrap();
            assert!(region.get_shared("k").await.unwrap().is_none());
            assert!(region.get("l").await.unwrap().is_none());
            let read = tagged.get_or_load("l", || async { Ok::<_, io::Error>(4) }).await.unwrap();
            assert_eq!((read.value, read.source), (4, Source::Loader));
        }
    }
}

/// The new primary's clock is behind: by all that it says, what the old one stored is younger than it is.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_what_another_server_has_stored_no_age_is_known() {
    const BEHIND: u64 = 3;
    let old = TestServer::valkey(ServerOptions::new()).unwrap();
    let options = ServerOptions::new().clock_ahead(-i32::try_from(BEHIND).unwrap()).args([
        "--replicaof",
        "127.0.0.1",
        &old.port().to_string(),
    ]);
    let new = TestServer::valkey(options).unwrap();
    let before: Region<u64> = Cache::connect(&old.url()).await.unwrap().region(policy()).unwrap();
    before.set("k", &1).await.unwrap();
    let stored = std::time::Instant::now();
    let read = before.get_with("k", ReadOptions::new().with_age()).await.unwrap().unwrap();
    assert!(matches!(read.age, Age::Exact(_)), "{:?}", read.age);
    let mut raw = new.client().unwrap();
    eventually("it is replicated", async || {
        raw.command(&["EXISTS", "r:k"]).unwrap() == Value::Integer(1) && stored.elapsed().as_secs() > BEHIND
    })
    .await;
    raw.command(&["REPLICAOF", "NO", "ONE"]).unwrap();

    let after: Region<u64> = Cache::connect(&new.url()).await.unwrap().region(policy()).unwrap();
    let read = after.get_with("k", ReadOptions::new().with_age()).await.unwrap().unwrap();
    assert_eq!((read.value, read.age), (1, Age::Unknown), "it is served for what is left of its key's life");
    // It is older than this, and looks younger.
    let strict = ReadOptions::new().max_age(Duration::from_secs(BEHIND));
    assert!(after.get_with("k", strict).await.unwrap().is_none());
    let each = after
        .get_or_load_each(["k"], strict, |_: Vec<&str>| async { Ok::<_, io::Error>([("k", 2)]) })
        .await
        .unwrap();
    assert_eq!(each[0].as_ref().unwrap().as_ref().unwrap().value, 2);
    let read = after.get_with("k", strict).await.unwrap().unwrap();
    assert!(matches!((read.value, read.age), (2, Age::Exact(_))), "{read:?}");
    // One that is given a new life is this server's own.
    assert!(after.touch("k").await.unwrap());
    let read = after.get_with("k", strict).await.unwrap().unwrap();
    assert!(matches!(read.age, Age::Exact(age) if age < TTL), "{read:?}");
}

/// A primary that is none any more refuses to begin a load, and the same request goes to its successor, whose clock is behind.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_load_that_its_server_has_handed_on_takes_no_value_by_another_clock() {
    // By the old primary's clock it is older than this, by the new one's, four seconds behind, it is not for some time.
    const DEMAND: Duration = Duration::from_millis(4500);
    let old = TestServer::valkey(ServerOptions::new()).unwrap();
    let options =
        ServerOptions::new().clock_ahead(-4).args(["--replicaof", "127.0.0.1", &old.port().to_string()]);
    let new = TestServer::valkey(options).unwrap();
    let files = tempfile::tempdir().unwrap();
    let file = files.path().join("sentinel.conf");
    std::fs::write(&file, format!("sentinel monitor svc 127.0.0.1 {} 1", old.port())).unwrap();
    let options = ServerOptions::new().config_file(&file).arg("--sentinel");
    let sentinel = TestServer::start(Program::Valkey, options).unwrap();
    let url = format!("redis+sentinel://127.0.0.1:{}/svc", sentinel.port());
    let cache = Cache::builder(url)
        .backoff(Duration::from_millis(20), Duration::from_millis(40))
        .open()
        .await
        .unwrap();
    let region: Region<u64> = cache.region(policy()).unwrap();
    eventually("the primary is found", async || region.set("k", &1).await.is_ok()).await;
    let stored = std::time::Instant::now();
    let (mut to_old, mut to_new) = (old.client().unwrap(), new.client().unwrap());
    eventually("it is replicated, and older than it will look", async || {
        to_new.command(&["EXISTS", "r:k"]).unwrap() == Value::Integer(1) && stored.elapsed() > DEMAND + SHORT
    })
    .await;

    to_new.command(&["REPLICAOF", "NO", "ONE"]).unwrap();
    to_old.command(&["REPLICAOF", "127.0.0.1", "1"]).unwrap();
    let strict = ReadOptions::new().max_age(DEMAND);
    let reading = tokio::spawn({
        let region = region.clone();
        async move { region.get_or_load_with("k", strict, || async { Ok::<_, io::Error>(2) }).await.unwrap() }
    });
    eventually("the old primary has refused", async || {
        let Value::Bulk(told) = to_old.command(&["INFO", "errorstats"]).unwrap() else { return false };
        String::from_utf8_lossy(&told).contains("errorstat_READONLY")
    })
    .await;
    // Soon enough for the request to wait for it.
    let mut to_sentinel = sentinel.client().unwrap();
    let port = new.port().to_string();
    to_sentinel.command(&["SENTINEL", "REMOVE", "svc"]).unwrap();
    to_sentinel.command(&["SENTINEL", "MONITOR", "svc", "127.0.0.1", &port, "1"]).unwrap();
    let read = reading.await.unwrap();
    assert_eq!((read.value, read.source), (2, Source::Loader));
    let kept = region.get("k").await.unwrap().map(|read| read.value);
    assert_eq!(kept, Some(2), "the new primary has it");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tag_whose_invalidation_failed_falls_before_the_next_read() {
    for program in Program::ALL {
        let server = TestServer::start(program, ServerOptions::new()).unwrap();
        let proxy = Proxy::before(server.port()).await;
        let cache = Cache::builder(proxy.url())
            .connect_timeout(SHORT)
            .response_timeout(SHORT)
            .backoff(Duration::from_millis(20), Duration::from_millis(200))
            .open()
            .await
            .unwrap();
        let region: Region<u64> = cache.region(policy()).unwrap();
        region.tagged(["t"]).unwrap().set("k", &1).await.unwrap();
        region.tagged(["u"]).unwrap().set("other", &2).await.unwrap();
        proxy.set(Mode::SwallowRequests);
        assert_eq!(cache.invalidate_tag("t").await.unwrap_err().kind(), ErrorKind::Timeout);
        assert_eq!(cache.pending_invalidations(), (1, 0));
        // Dropped by its caller is no better. The connection is a new one by now.
        assert!(cache.wait_connected(Duration::from_secs(10)).await);
        proxy.set(Mode::SwallowRequests);
        let dropped =
            tokio::time::timeout(Duration::from_millis(50), cache.invalidate_tags(&["t", "u2"])).await;
        assert!(dropped.is_err());
        assert_eq!(cache.pending_invalidations(), (2, 0));
        proxy.set(Mode::Pass);
        eventually("the first read after it", async || match region.get("k").await {
            Ok(read) => {
                assert!(read.is_none(), "{read:?}");
                true
            }
            Err(_) => false,
        })
        .await;
        assert_eq!(cache.pending_invalidations(), (0, 0));
        assert_eq!(region.get("other").await.unwrap().unwrap().value, 2);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn more_tags_than_the_queue_holds_take_all_tags_with_them() {
    let mut server = TestServer::redis(ServerOptions::new()).unwrap();
    let cache = Cache::builder(server.url())
        .connect_timeout(SHORT)
        .backoff(Duration::from_millis(20), Duration::from_millis(200))
        .open()
        .await
        .unwrap();
    server.stop().unwrap();
    let tags: Vec<_> = (0..10_001).map(|n| n.to_string()).collect();
    assert!(cache.invalidate_tags(&tags).await.is_err());
    assert_eq!(cache.pending_invalidations(), (0, 1));
    server.start_again().unwrap();
    let mut raw = server.client().unwrap();
    raw.command(&["SET", "mtcache:tag:{some}", "x"]).unwrap();
    raw.command(&["SET", "mtcache:tagged", "x"]).unwrap();
    let region: Region<u64> = cache.region(policy()).unwrap();
    eventually("it is read again", async || region.get("k").await.is_ok()).await;
    assert_eq!(raw.command(&["EXISTS", "mtcache:tag:{some}"]).unwrap(), Value::Integer(0));
    assert_eq!(raw.command(&["EXISTS", "mtcache:tagged"]).unwrap(), Value::Integer(1));
}
