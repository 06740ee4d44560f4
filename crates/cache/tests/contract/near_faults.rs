//! The near cache when something is wrong between it and the server: it says nothing rather than something old.

use std::sync::Arc;
use std::time::{Duration, Instant};

use mtcache_cache::{Cache, Refusal, Region, RegionPolicy, Source, TrackingState};
use mtcache_conformance::Program;
use mtcache_conformance::servers::{ServerOptions, TestServer};

use crate::near::{near_is_on, warm};
use crate::proxy::{Mode, Proxy};
use crate::rig::eventually;

const TTL: Duration = Duration::from_mins(5);
const HEARTBEAT: Duration = Duration::from_millis(500);
const SHORT: Duration = Duration::from_secs(2);

fn servers() -> impl Iterator<Item = TestServer> {
    Program::ALL.into_iter().map(|program| TestServer::start(program, ServerOptions::new()).unwrap())
}

async fn region(url: &str) -> Region<u64> {
    let cache = Cache::builder(url)
        .connect_timeout(SHORT)
        .response_timeout(SHORT)
        .backoff(Duration::from_millis(20), Duration::from_millis(200))
        .near_heartbeat(HEARTBEAT)
        .open()
        .await
        .unwrap();
    cache.region(RegionPolicy::new("r", TTL).near(true)).unwrap()
}

/// A silent connection is believed for the heartbeat and not a moment longer.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn over_a_half_open_link_nothing_older_than_the_heartbeat_is_served() {
    for server in servers() {
        let proxy = Proxy::before(server.port()).await;
        let region = region(&proxy.url()).await;
        near_is_on(region.cache()).await;
        let mut raw = server.client().unwrap();
        raw.command(&["SET", "r:k", "1", "PX", "200000"]).unwrap();
        warm(&region, "k").await;
        proxy.set(Mode::SwallowReplies);
        let silent = Instant::now();
        raw.command(&["SET", "r:k", "2", "PX", "200000"]).unwrap();
        loop {
            let asked = Instant::now();
            match region.get_shared("k").await {
                Ok(Some(read)) if *read.value == 1 => {
                    assert_eq!(read.source, Source::Near);
                    assert!(asked <= silent + HEARTBEAT, "{:?} after the silence began", asked - silent);
                }
                Ok(Some(read)) => {
                    assert_eq!(*read.value, 2);
                    break;
                }
                Ok(None) => panic!("the key is there"),
                Err(_) => {}
            }
        }
        // By itself it comes back, and hears again.
        warm(&region, "k").await;
        raw.command(&["SET", "r:k", "3", "PX", "200000"]).unwrap();
        eventually("the change is seen", async || {
            region.get_shared("k").await.is_ok_and(|read| read.is_some_and(|read| *read.value == 3))
        })
        .await;
    }
}

/// Its value left the server before the write; its reply comes after the message about the write.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_read_that_was_overtaken_is_not_kept() {
    for server in servers() {
        let region = Arc::new(region(&server.url()).await);
        near_is_on(region.cache()).await;
        let mut raw = server.client().unwrap();
        let done = Arc::new(std::sync::atomic::AtomicBool::new(false));
        let readers: Vec<_> = (0..4)
            .map(|_| {
                let (region, done) = (Arc::clone(&region), Arc::clone(&done));
                tokio::spawn(async move {
                    while !done.load(std::sync::atomic::Ordering::SeqCst) {
                        drop(region.get_shared("k").await.unwrap());
                        tokio::task::yield_now().await;
                    }
                })
            })
            .collect();
        for n in 0..500_u64 {
            tokio::task::block_in_place(|| {
                raw.command(&["SET", "r:k", &n.to_string(), "PX", "200000"]).unwrap();
            });
            if n % 25 == 0 {
                eventually("the last write is seen", async || {
                    region.get_shared("k").await.unwrap().is_some_and(|read| *read.value == n)
                })
                .await;
            }
        }
        eventually("the last write is seen", async || *warm(&region, "k").await.value == 499).await;
        done.store(true, std::sync::atomic::Ordering::SeqCst);
        for reader in readers {
            reader.await.unwrap();
        }
        assert_eq!(*warm(&region, "k").await.value, 499);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_changed_while_the_connection_was_cut_is_seen_after_it() {
    for server in servers() {
        let proxy = Proxy::before(server.port()).await;
        let region = region(&proxy.url()).await;
        near_is_on(region.cache()).await;
        let mut raw = server.client().unwrap();
        for round in 0..5_u64 {
            raw.command(&["SET", "r:k", &round.to_string(), "PX", "200000"]).unwrap();
            eventually("the change is seen", async || *warm(&region, "k").await.value == round).await;
            // Every connection is cut as its server says something: the first reply or message.
            proxy.set(Mode::CutReplies);
            raw.command(&["SET", "r:k", "1000", "PX", "200000"]).unwrap();
            eventually("the change is seen", async || {
                region.get_shared("k").await.is_ok_and(|read| read.is_some_and(|read| *read.value == 1000))
            })
            .await;
            proxy.set(Mode::Pass);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_a_restart_of_the_server_nothing_of_before_is_served() {
    for mut server in servers() {
        let region = region(&server.url()).await;
        near_is_on(region.cache()).await;
        region.set("k", &1).await.unwrap();
        warm(&region, "k").await;
        server.kill().unwrap();
        server.start_again().unwrap();
        // Kept nowhere: it came back empty.
        eventually("the loss is seen", async || {
            region.get_shared("k").await.is_ok_and(|read| read.is_none())
        })
        .await;
        region.set("k", &2).await.unwrap();
        assert_eq!(*warm(&region, "k").await.value, 2);
    }
}

/// Another region makes it begin anew; what is kept of the first is not served without being heard of.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_region_that_comes_later_is_heard_of_too() {
    for server in servers() {
        let first = region(&server.url()).await;
        near_is_on(first.cache()).await;
        first.set("k", &1).await.unwrap();
        warm(&first, "k").await;
        let second: Region<u64> = first.cache().region(RegionPolicy::new("later", TTL).near(true)).unwrap();
        second.set("k", &1).await.unwrap();
        warm(&second, "k").await;
        warm(&first, "k").await;
        let mut raw = server.client().unwrap();
        for (region, key) in [(&first, "r:k"), (&second, "later:k")] {
            raw.command(&["SET", key, "2", "PX", "200000"]).unwrap();
            eventually("the change is seen", async || {
                region.get_shared("k").await.unwrap().is_some_and(|read| *read.value == 2)
            })
            .await;
        }
    }
}

async fn is_off_for(region: &Region<u64>, refusal: Refusal) {
    eventually("it is off", async || region.cache().near_state() == TrackingState::Refused(refusal)).await;
    region.set("k", &1).await.unwrap();
    for _ in 0..5 {
        let read = region.get_shared("k").await.unwrap().unwrap();
        assert_eq!((*read.value, read.source), (1, Source::Backend));
    }
    assert_eq!(region.cache().near_size(), (0, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_user_who_may_not_track_has_it_off() {
    for server in servers() {
        let mut raw = server.client().unwrap();
        raw.command(&["ACL", "SETUSER", "u", "on", ">p", "~*", "&*", "+@all", "-client|tracking"]).unwrap();
        let region = region(&format!("redis://u:p@127.0.0.1:{}", server.port())).await;
        is_off_for(&region, Refusal::NotPermitted).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_without_resp3_has_it_off() {
    for program in [Program::Redis, Program::Valkey] {
        let options = ServerOptions::new().args(["--rename-command", "HELLO", ""]);
        let server = TestServer::start(program, options).unwrap();
        is_off_for(&region(&server.url()).await, Refusal::NoResp3).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_service_that_starts_before_its_server_has_it_on_once_it_is_there() {
    for mut server in servers() {
        server.stop().unwrap();
        let region = region(&server.url()).await;
        assert_eq!(region.cache().near_state(), TrackingState::Waiting);
        server.start_again().unwrap();
        near_is_on(region.cache()).await;
        region.set("k", &1).await.unwrap();
        warm(&region, "k").await;
    }
}
