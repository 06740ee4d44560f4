//! Writes whose callers leave before the answer: their outcome is unknown, and nobody reads as if nothing had happened.
//! Servers outside only: the embedded engine answers before a caller can leave.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use mtcache_cache::{Cache, Condition, Region, RegionPolicy, SetOptions};
use mtcache_conformance::Program;
use mtcache_conformance::servers::{ServerOptions, TestServer};
use tokio::sync::Notify;

use crate::proxy::{Mode, Proxy};
use crate::rig::eventually;

const TTL: Duration = Duration::from_mins(5);
/// How long a caller waits before it leaves.
const PATIENCE: Duration = Duration::from_millis(50);

async fn open(url: &str) -> Cache {
    Cache::builder(url)
        .response_timeout(Duration::from_secs(1))
        .backoff(Duration::from_millis(20), Duration::from_millis(200))
        .open()
        .await
        .unwrap()
}

fn region(cache: &Cache, name: &str) -> Region<Option<u64>> {
    cache.region(RegionPolicy::new(name, TTL).none_ttl(None)).unwrap()
}

/// The caller loses patience. On a stalled machine the call may have failed before; what must hold is the same.
async fn leaves<T>(call: impl Future<Output = mtcache_cache::Result<T>>) {
    if let Ok(answer) = tokio::time::timeout(PATIENCE, call).await {
        assert!(answer.is_err(), "the server cannot have answered");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_write_whose_caller_left_is_made_good_before_the_next_read() {
    for program in Program::ALL {
        let server = TestServer::start(program, ServerOptions::new()).unwrap();
        let proxy = Proxy::before(server.port()).await;
        let cache = open(&proxy.url()).await;
        let (region, cleared) = (region(&cache, "r"), region(&cache, "cleared"));
        let ids = ["invalidated", "set", "newer", "in a batch", "none in a batch"];
        for id in ids {
            region.set(id, &Some(1)).await.unwrap();
        }
        cleared.set("k", &Some(1)).await.unwrap();
        let plain = ["plain", "plain in a batch", "deleted"];
        for key in plain {
            cache.set(key, &1, SetOptions::ttl(TTL)).await.unwrap();
        }
        region.set("other", &Some(1)).await.unwrap();

        proxy.set(Mode::SwallowRequests);
        leaves(region.invalidate("invalidated")).await;
        assert_eq!(cache.pending_invalidations(), (1, 0), "{program}");
        leaves(region.set("set", &Some(2))).await;
        leaves(region.set_when("newer", &Some(2), Condition::IfPresent)).await;
        leaves(region.set_many(&[("in a batch", Some(2)), ("none in a batch", None)])).await;
        leaves(cache.set("plain", &2, SetOptions::ttl(TTL))).await;
        leaves(cache.set_many(&[("plain in a batch", 2)], TTL)).await;
        leaves(cache.delete(&["deleted"])).await;
        leaves(cleared.invalidate_all()).await;
        assert_eq!(cache.pending_invalidations(), (8, 1), "{program}");
        assert_eq!(region.stats().invalidations_queued, 5);

        proxy.set(Mode::Pass);
        eventually("reads again", async || region.get("other").await.is_ok()).await;
        assert_eq!(cache.pending_invalidations(), (0, 0));
        for id in ids {
            assert!(region.get(id).await.unwrap().is_none(), "{id} on {program}");
        }
        for key in plain {
            assert_eq!(cache.get::<u64>(key).await.unwrap(), None, "{key} on {program}");
        }
        assert!(cleared.get("k").await.unwrap().is_none());
        assert!(region.get("other").await.unwrap().is_some());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobodys_lock_is_invalidated_because_a_caller_left() {
    for program in Program::ALL {
        let server = TestServer::start(program, ServerOptions::new()).unwrap();
        let proxy = Proxy::before(server.port()).await;
        let cache = open(&proxy.url()).await;
        cache.set("lock", "somebody", SetOptions::ttl(TTL).if_absent()).await.unwrap();
        proxy.set(Mode::SwallowRequests);
        leaves(cache.set("lock", "me", SetOptions::ttl(TTL).if_absent())).await;
        assert_eq!(cache.pending_invalidations(), (0, 0));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_read_after_a_caller_left_its_invalidation_does_not_join_the_old_load() {
    for program in Program::ALL {
        let server = TestServer::start(program, ServerOptions::new()).unwrap();
        let proxy = Proxy::before(server.port()).await;
        let cache = open(&proxy.url()).await;
        let region = region(&cache, "r");
        let (running, end) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
        let old = tokio::spawn({
            let (region, running, end) = (region.clone(), Arc::clone(&running), Arc::clone(&end));
            let loader = move || async move {
                running.notify_one();
                end.notified().await;
                Ok::<_, io::Error>(Some(1))
            };
            async move { region.get_or_load("k", loader).await.unwrap().value }
        });
        running.notified().await;
        proxy.set(Mode::SwallowRequests);
        leaves(region.invalidate("k")).await;
        proxy.set(Mode::Pass);
        eventually("reads again", async || region.get("other").await.is_ok()).await;
        let new = region.get_or_load("k", || async { Ok::<_, io::Error>(Some(2)) }).await.unwrap();
        assert_eq!(new.value, Some(2), "{program}");
        end.notify_one();
        assert_eq!(old.await.unwrap(), Some(1));
        assert_eq!(region.get("k").await.unwrap().unwrap().value, Some(2), "the old load did not store");
    }
}
