//! Invalidation by what names begin with, and of whole regions.

use std::time::{Duration, Instant};

use futures_util::FutureExt;
use mtcache_cache::{Cache, ErrorKind, Framing, ReadOptions, Region, RegionPolicy};
use mtcache_conformance::{Program, ServerOptions, TestServer, Value};

use crate::proxy::{Mode, Proxy};
use crate::rig::{Rig, eventually, on_every_backend};

const TTL: Duration = Duration::from_secs(30);

on_every_backend! {
    an_entry_and_what_is_below_it_go_and_nothing_that_looks_alike,
    a_long_walk_tells_how_far_it_has_come,
    a_walk_that_is_dropped_is_made_good_before_the_next_read,
    readers_with_little_time_bring_a_walk_to_its_end,
}

async fn an_entry_and_what_is_below_it_go_and_nothing_that_looks_alike(rig: Rig) {
    let cache = rig.cache().await;
    for policy in [RegionPolicy::new("users", TTL), RegionPolicy::new("users", TTL).framed(Framing::new())] {
        let users: Region<u32> = cache.region(policy).unwrap();
        let others: Region<u32> = cache.region(RegionPolicy::new("usersAbc", TTL)).unwrap();
        users.set("BTC", &1).await.unwrap();
        users.set(["BTC", "1h"], &2).await.unwrap();
        users.set(["BTC", "1h", "x"], &3).await.unwrap();
        // `BTC:1h` as one part is `BTC%3A1h`.
        for kept in ["BTCUSDT", "BT", "BTC:1h", "*", "BTC%"] {
            users.set(kept, &4).await.unwrap();
        }
        others.set("BTC", &5).await.unwrap();
        assert_eq!(users.invalidate_under("BTC").await.unwrap(), 3);
        assert_eq!(users.invalidate_under("BTC").await.unwrap(), 0);
        assert_eq!(
            rig.raw_keys().await,
            ["users:*", "users:BT", "users:BTC%25", "users:BTC%3A1h", "users:BTCUSDT", "usersAbc:BTC"]
        );
        assert_eq!(users.invalidate_under("*").await.unwrap(), 1);
        assert_eq!(users.invalidate_all().await.unwrap(), 4);
        assert_eq!(rig.raw_keys().await, ["usersAbc:BTC"]);
    }
}

/// None of them waits for as long as it takes.
async fn readers_with_little_time_bring_a_walk_to_its_end(rig: Rig) {
    let cache = rig.cache().await;
    let region: Region<u32> = cache.region(RegionPolicy::new("r", TTL)).unwrap();
    let other: Region<u32> = cache.region(RegionPolicy::new("other", TTL)).unwrap();
    let entries: Vec<_> = (0..30_000_u32).map(|n| (n.to_string(), n)).collect();
    other.set_many(&entries).await.unwrap();
    region.set("k", &1).await.unwrap();
    if region.invalidate_all().now_or_never().is_some() {
        assert_eq!(region.get("k").await.unwrap(), None, "in process a walk waits for nothing");
        return;
    }
    assert_eq!(cache.pending_invalidations(), (0, 1));
    let hurried = ReadOptions::new().backend_timeout(Duration::from_millis(2));
    let (mut tries, began) = (0, Instant::now());
    while region.get_with("k", hurried).await.map_err(|error| error.kind()) != Ok(None) {
        tries += 1;
        assert!(began.elapsed() < Duration::from_secs(30), "after {tries} tries");
    }
}

async fn a_long_walk_tells_how_far_it_has_come(rig: Rig) {
    let region: Region<u32> = rig.cache().await.region(RegionPolicy::new("r", TTL)).unwrap();
    let entries: Vec<_> = (0..5000_u32).map(|n| (n.to_string(), n)).collect();
    region.set_many(&entries).await.unwrap();
    let mut told = Vec::new();
    assert_eq!(region.invalidate_all_with(|progress| told.push(progress)).await.unwrap(), 5000);
    assert!(told.len() >= 5, "{}", told.len());
    assert!(told.is_sorted_by_key(|progress| (progress.steps, progress.invalidated)));
    assert_eq!(told.last().unwrap().invalidated, 5000);
    // No step takes much more than a thousand.
    let largest = told.windows(2).map(|pair| pair[1].invalidated - pair[0].invalidated).max().unwrap();
    assert!(largest <= 2000, "{largest}");
}

async fn a_walk_that_is_dropped_is_made_good_before_the_next_read(rig: Rig) {
    let region: Region<u32> = rig.cache().await.region(RegionPolicy::new("r", TTL)).unwrap();
    let entries: Vec<_> = (0..3000_u32).map(|n| (n.to_string(), n)).collect();
    region.set_many(&entries).await.unwrap();
    let (tell, mut told) = tokio::sync::mpsc::unbounded_channel();
    let mut walk = Box::pin(region.invalidate_all_with(move |progress| tell.send(progress).unwrap()));
    // In process the walk may end before it is dropped; then there is nothing to be made good.
    let has_ended = loop {
        if let Some(ended) = (&mut walk).now_or_never() {
            assert_eq!(ended.unwrap(), 3000);
            break true;
        }
        if told.try_recv().is_ok() {
            break false;
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    };
    drop(walk);
    assert_eq!(region.cache().pending_invalidations(), (0, usize::from(!has_ended)));
    for n in [0, 1500, 2999] {
        assert!(region.get(n.to_string()).await.unwrap().is_none(), "{n}");
    }
    assert_eq!(region.cache().pending_invalidations(), (0, 0));
    assert_eq!(rig.raw_keys().await, Vec::<String>::new());
}

/// A server that has after a restart what it had before, and a cache that finds out soon that it is back.
async fn that_comes_back(program: Program) -> (TestServer, Cache) {
    let server = TestServer::start(program, ServerOptions::new().args(["--appendonly", "yes"])).unwrap();
    let (first, longest) = (Duration::from_millis(20), Duration::from_millis(100));
    let cache = Cache::builder(server.url()).backoff(first, longest).open().await.unwrap();
    (server, cache)
}

/// How often a command has run there.
pub(crate) fn calls(server: &TestServer, command: &str) -> u32 {
    let Value::Bulk(stats) = server.client().unwrap().command(&["INFO", "commandstats"]).unwrap() else {
        panic!("no statistics")
    };
    let stats = String::from_utf8(stats).unwrap();
    let calls =
        stats.split(&format!("cmdstat_{command}:calls=")).nth(1).and_then(|rest| rest.split(',').next());
    calls.map_or(0, |calls| calls.parse().unwrap())
}

/// A cursor is a place in a table that the server's next run has in another order.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_walk_begins_again_when_the_server_was_started_anew() {
    for program in Program::ALL {
        let (mut server, cache) = that_comes_back(program).await;
        let region: Region<u32> = cache.region(RegionPolicy::new("r", Duration::from_hours(1))).unwrap();
        let entries: Vec<_> = (0..12_000_u32).map(|n| (n.to_string(), n)).collect();
        region.set_many(&entries).await.unwrap();
        let mut anew = 0;
        let walk = region.invalidate_all_with(|progress| {
            if anew == 0 && progress.invalidated > 5000 {
                anew += 1;
                server.stop().unwrap();
                server.start_again().unwrap();
            }
        });
        let walked = walk.await;
        assert_eq!(anew, 1);
        // The commands of the moment may have been lost with the connection; then the walk is made good before the next read.
        assert!(walked.is_ok() || cache.pending_invalidations() == (0, 1), "{program:?}: {walked:?}");
        eventually("the region is read again", async || region.get("0").await.is_ok()).await;
        let left = server.client().unwrap().command(&["DBSIZE"]).unwrap();
        assert_eq!(left, Value::Integer(0), "{program:?}: keys were passed over");
    }
}

/// Clearings that failed wait as one where one has the other within it, and all of what they meant is gone before the first read.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clearings_that_wait_are_joined() {
    for program in Program::ALL {
        let (mut server, cache) = that_comes_back(program).await;
        let region: Region<u32> = cache.region(RegionPolicy::new("r", TTL)).unwrap();
        let other: Region<u32> = cache.region(RegionPolicy::new("rest", TTL)).unwrap();
        let ids = [&["a"][..], &["a", "1"], &["a", "1", "x"], &["a", "2"], &["ab"], &["b", "1"]];
        for id in ids {
            region.set(id, &1).await.unwrap();
        }
        other.set("a", &1).await.unwrap();
        server.stop().unwrap();
        let waits = async |id: &[&str]| {
            region.invalidate_under(id).await.unwrap_err();
            cache.pending_invalidations()
        };
        assert_eq!(waits(&["a", "1"]).await, (1, 1));
        assert_eq!(waits(&["a", "1"]).await, (1, 1), "the same once more");
        assert_eq!(waits(&["a", "1", "x"]).await, (1, 1), "within it");
        assert_eq!(waits(&["a", "2"]).await, (2, 2));
        assert_eq!(waits(&["a"]).await, (1, 1), "around them");
        server.start_again().unwrap();
        eventually("it is read again", async || region.get(&["ab"]).await.is_ok()).await;
        for (id, is_left) in ids.into_iter().zip([false, false, false, false, true, true]) {
            assert_eq!(region.get(id).await.unwrap().is_some(), is_left, "{program:?}: {id:?}");
        }
        server.stop().unwrap();
        assert_eq!(waits(&["b"]).await, (1, 1));
        region.invalidate_all().await.unwrap_err();
        assert_eq!(cache.pending_invalidations(), (0, 1), "the whole region");
        region.set("c", &1).await.unwrap_err();
        assert_eq!(cache.pending_invalidations(), (0, 1));
        server.start_again().unwrap();
        eventually("it is read again", async || region.get(&["ab"]).await.is_ok_and(|read| read.is_none()))
            .await;
        assert_eq!(other.get("a").await.unwrap().map(|read| read.value), Some(1), "{program:?}");
        assert_eq!(cache.pending_invalidations(), (0, 0));
    }
}

/// A flush whose outcome is unknown is made good before the first read, near and far.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_a_flush_that_failed_nothing_of_before_is_read() {
    for program in Program::ALL {
        let server = TestServer::start(program, ServerOptions::new()).unwrap();
        let proxy = Proxy::before(server.port()).await;
        let cache = Cache::builder(proxy.url())
            .response_timeout(Duration::from_millis(300))
            .backoff(Duration::from_millis(20), Duration::from_millis(100))
            .open()
            .await
            .unwrap();
        let region: Region<u32> = cache.region(RegionPolicy::new("r", TTL)).unwrap();
        region.set("k", &1).await.unwrap();
        server.client().unwrap().command(&["SET", "foreign", "1"]).unwrap();
        proxy.set(Mode::SwallowRequests);
        let failed = cache.flush_database().await.unwrap_err();
        assert_eq!((failed.kind(), cache.pending_invalidations()), (ErrorKind::Timeout, (0, 1)));
        proxy.set(Mode::Pass);
        eventually("the first read after it", async || match region.get("k").await {
            Ok(read) => {
                assert!(read.is_none(), "{program:?}: {read:?}");
                true
            }
            Err(_) => false,
        })
        .await;
        assert_eq!(server.client().unwrap().command(&["DBSIZE"]).unwrap(), Value::Integer(0), "{program:?}");
        assert_eq!(cache.pending_invalidations(), (0, 0));
        // What the backend refuses is not done by another way.
        let mut raw = server.client().unwrap();
        raw.command(&["ACL", "SETUSER", "default", "-flushdb"]).unwrap();
        region.set("k", &2).await.unwrap();
        assert_eq!(cache.flush_database().await.unwrap_err().kind(), ErrorKind::Denied);
        assert_eq!(region.get("k").await.unwrap().map(|read| read.value), Some(2), "{program:?}");
    }
}

/// Nobody finds everything gone when the server takes writes again, because of a flush that he was told has not happened.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flush_that_was_refused_waits_for_nothing() {
    for program in [Program::Redis, Program::Valkey] {
        let server = TestServer::start(program, ServerOptions::new()).unwrap();
        let cache = Cache::connect(&server.url()).await.unwrap();
        let region: Region<u32> = cache.region(RegionPolicy::new("r", TTL)).unwrap();
        region.set("k", &1).await.unwrap();
        let mut raw = server.client().unwrap();
        raw.command(&["REPLICAOF", "127.0.0.1", "1"]).unwrap();
        let refused = cache.flush_database().await.unwrap_err();
        assert_eq!(
            (refused.kind(), cache.pending_invalidations()),
            (ErrorKind::NotNow, (0, 0)),
            "{program:?}"
        );
        raw.command(&["REPLICAOF", "NO", "ONE"]).unwrap();
        assert_eq!(region.get("k").await.unwrap().map(|read| read.value), Some(1), "{program:?}");
    }
}

/// One key that our user may not write keeps nobody from reading the others.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_may_not_be_invalidated_keeps_no_other_key_from_being_read() {
    for program in Program::ALL {
        let server = TestServer::start(program, ServerOptions::new()).unwrap();
        let cache = Cache::connect(&server.url()).await.unwrap();
        let ours: Region<u32> = cache.region(RegionPolicy::new("ours", TTL)).unwrap();
        let theirs: Region<u32> = cache.region(RegionPolicy::new("theirs", TTL)).unwrap();
        ours.set("k", &1).await.unwrap();
        let mut raw = server.client().unwrap();
        raw.command(&["ACL", "SETUSER", "default", "resetkeys", "~ours:*", "~mtcache:*"]).unwrap();
        assert_eq!(theirs.set("k", &2).await.unwrap_err().kind(), ErrorKind::Denied, "{program:?}");
        ours.set_many(&[("l", 3)]).await.unwrap();
        assert_eq!(ours.get("k").await.unwrap().map(|read| read.value), Some(1), "{program:?}");
        assert_eq!(ours.get("l").await.unwrap().map(|read| read.value), Some(3), "{program:?}");
        assert_eq!(cache.pending_invalidations(), (0, 0));
        assert_eq!(
            (ours.stats().invalidations_lost, theirs.stats().invalidations_lost),
            (0, 1),
            "{program:?}"
        );
    }
}

/// Of many that wait together, what is forbidden is found in few steps, few of them at once, and the rest is invalidated.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_may_not_be_invalidated_is_found_by_halves() {
    for program in Program::ALL {
        let server = TestServer::start(program, ServerOptions::new()).unwrap();
        let cache = Cache::builder(server.url()).max_in_flight(10).open().await.unwrap();
        let names = (0..400).map(|n| if n % 40 == 3 { format!("theirs:{n}") } else { format!("ours:{n}") });
        let entries: Vec<_> = names.map(|name| (name, 1_u32)).collect();
        cache.set_many(&entries, TTL).await.unwrap();
        let mut raw = server.client().unwrap();
        raw.command(&["ACL", "SETUSER", "default", "resetkeys", "~ours:*", "%R~theirs:*", "~mtcache:*"])
            .unwrap();
        assert_eq!(cache.set_many(&entries, TTL).await.unwrap_err().kind(), ErrorKind::Denied, "{program:?}");
        assert_eq!(cache.pending_invalidations(), (400, 0));
        let before = calls(&server, "multi");
        for (name, _) in &entries {
            let read = cache.get::<u32>(name).await.unwrap();
            assert_eq!(read.is_some(), name.starts_with("theirs"), "{program:?}: {name}");
        }
        let steps = calls(&server, "multi") - before;
        assert!((20..=200).contains(&steps), "{program:?}: {steps} steps");
        let keys = cache.stats().into_iter().find(|(name, _)| name == "keys").unwrap().1;
        assert_eq!((cache.pending_invalidations(), keys.invalidations_lost), ((0, 0), 10), "{program:?}");
    }
}

/// Who may invalidate and not tell others of it has it done, and is told that they were not.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_may_not_be_told_is_invalidated_all_the_same() {
    for program in Program::ALL {
        let server = TestServer::start(program, ServerOptions::new()).unwrap();
        let cache = Cache::connect(&server.url()).await.unwrap();
        let region: Region<u32> = cache.region(RegionPolicy::new("r", TTL).stale_window(TTL)).unwrap();
        for id in ["a", "b"] {
            region.set(id, &1).await.unwrap();
        }
        let mut raw = server.client().unwrap();
        raw.command(&["ACL", "SETUSER", "default", "resetkeys", "~r:*", "~mtcache:fill:*"]).unwrap();
        assert_eq!(region.invalidate("a").await.unwrap_err().kind(), ErrorKind::Denied, "{program:?}");
        assert_eq!(cache.pending_invalidations(), (1, 0));
        assert!(region.get("a").await.unwrap().is_none(), "{program:?}");
        let untold = region.invalidate_all().await.unwrap_err();
        assert_eq!(untold.kind(), ErrorKind::Denied, "{program:?}");
        assert!(untold.to_string().contains("was invalidated, but"), "{untold}");
        assert_eq!(cache.pending_invalidations(), (0, 0), "{program:?}");
        assert!(region.get("b").await.unwrap().is_none(), "{program:?}");
        let stats = region.stats();
        assert_eq!((stats.invalidations, stats.invalidations_lost), (1, 0), "{program:?}");
    }
}

/// To walk over the keys is a right of its own: who has it not is told so, and reads on.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_clearing_that_is_forbidden_keeps_nothing_from_being_read() {
    for program in Program::ALL {
        let server = TestServer::start(program, ServerOptions::new()).unwrap();
        let cache = Cache::connect(&server.url()).await.unwrap();
        let region: Region<u32> = cache.region(RegionPolicy::new("r", TTL)).unwrap();
        region.set(&["a", "b"], &1).await.unwrap();
        let mut raw = server.client().unwrap();
        raw.command(&["ACL", "SETUSER", "default", "-scan"]).unwrap();
        assert_eq!(region.invalidate_all().await.unwrap_err().kind(), ErrorKind::Denied, "{program:?}");
        assert_eq!(
            region.invalidate_under(&["a"]).await.unwrap_err().kind(),
            ErrorKind::Denied,
            "{program:?}"
        );
        let read = region.get(&["a", "b"]).await.unwrap();
        assert_eq!(read.map(|read| read.value), Some(1), "{program:?}");
        assert_eq!((cache.pending_invalidations(), region.stats().invalidations_lost), ((0, 0), 2));
        raw.command(&["ACL", "SETUSER", "default", "+scan"]).unwrap();
        assert_eq!(region.invalidate_all().await.unwrap(), 1, "{program:?}: nothing else was forbidden");
    }
}

/// However many wait, the first read waits for no more than the keys are walked over once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_clearings_that_wait_are_one_walk() {
    for program in Program::ALL {
        let (mut server, cache) = that_comes_back(program).await;
        let region: Region<u32> = cache.region(RegionPolicy::new("r", TTL)).unwrap();
        let other: Region<u32> = cache.region(RegionPolicy::new("other", TTL)).unwrap();
        let ids: Vec<String> = (0..50).map(|n| n.to_string()).collect();
        for id in &ids {
            region.set(&[id.as_str(), "x"], &1).await.unwrap();
            other.set(&[id.as_str(), "x"], &1).await.unwrap();
        }
        server.stop().unwrap();
        let (cleared, left) = ids.split_at(40);
        for id in cleared {
            region.invalidate_under(&[id.as_str()]).await.unwrap_err();
            other.invalidate_under(&[id.as_str()]).await.unwrap_err();
        }
        assert_eq!(cache.pending_invalidations(), (80, 80));
        server.start_again().unwrap();
        eventually("it is read again", async || region.get("0").await.is_ok()).await;
        assert_eq!(cache.pending_invalidations(), (0, 0));
        let scans = calls(&server, "scan");
        assert!((1..=6).contains(&scans), "{program:?}: {scans} scans");
        for (ids, is_left) in [(cleared, false), (left, true)] {
            for id in ids {
                for region in [&region, &other] {
                    let read = region.get(&[id.as_str(), "x"]).await.unwrap();
                    assert_eq!(read.is_some(), is_left, "{program:?}: {id}");
                }
            }
        }
    }
}
