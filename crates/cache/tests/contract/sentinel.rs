//! A cache behind sentinels, through real failovers: what is near is never of a primary that is one no more, and nothing needs a restart.

use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use mtcache_cache::{Cache, ErrorKind, Outcome, Region, RegionPolicy, SetOptions, Source};
use mtcache_conformance::Client;
use mtcache_conformance::watched::{Watched, WatchedOptions};

use crate::near::{near_is_on, warm};
use crate::rig::eventually;

const TTL: Duration = Duration::from_mins(5);
const HEARTBEAT: Duration = Duration::from_millis(500);
const SHORT: Duration = Duration::from_millis(300);

fn watched() -> Watched {
    tokio::task::block_in_place(|| Watched::start(WatchedOptions::default()).unwrap())
}

fn settled(action: impl FnOnce()) {
    tokio::task::block_in_place(action);
}

async fn open(url: &str) -> Cache {
    Cache::builder(url)
        .connect_timeout(SHORT)
        .response_timeout(SHORT)
        .backoff(Duration::from_millis(20), Duration::from_millis(200))
        .near_heartbeat(HEARTBEAT)
        .open()
        .await
        .unwrap()
}

fn region(cache: &Cache) -> Region<u64> {
    cache.region(RegionPolicy::new("r", TTL).near(true)).unwrap()
}

fn to_primary(watched: &Watched) -> Client {
    tokio::task::block_in_place(|| watched.primary_server().client().unwrap())
}

async fn reads(region: &Region<u64>, value: u64) -> bool {
    region.get_shared("k").await.is_ok_and(|read| read.is_some_and(|read| *read.value == value))
}

/// Rows 4 and 9: what changes on the new primary is heard of there, and nothing of before the failover is served once it is.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_near_cache_begins_anew_on_the_new_primary() {
    let watched = watched();
    let region = region(&open(&watched.url()).await);
    near_is_on(region.cache()).await;
    let mut now = 1;
    region.set("k", &now).await.unwrap();
    for _ in 0..3 {
        warm(&region, "k").await;
        settled(|| watched.fail_over());
        let mut raw = to_primary(&watched);
        for _ in 0..3 {
            now += 1;
            raw.command(&["SET", "r:k", &now.to_string(), "PX", "200000"]).unwrap();
            eventually("the change is seen", async || reads(&region, now).await).await;
            assert_eq!(*warm(&region, "k").await.value, now);
        }
    }
}

/// Row 5: the primary is frozen, so its connections say nothing and stay open, and another takes its place.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_a_frozen_primary_nothing_older_than_the_heartbeat_is_served() {
    let mut watched = watched();
    let region = region(&open(&watched.url()).await);
    near_is_on(region.cache()).await;
    region.set("k", &1).await.unwrap();
    warm(&region, "k").await;
    let old = watched.primary().unwrap();
    watched.servers()[old].pause().unwrap();
    let written: Arc<OnceLock<Instant>> = Arc::default();
    let reader = {
        let (region, written) = (region.clone(), Arc::clone(&written));
        tokio::spawn(async move {
            loop {
                let asked = Instant::now();
                match region.get_shared("k").await {
                    Ok(Some(read)) if *read.value == 1 => {
                        let late = written.get().map(|written| asked.saturating_duration_since(*written));
                        assert!(late.is_none_or(|late| late <= HEARTBEAT), "{late:?} after it was replaced");
                    }
                    Ok(Some(read)) if *read.value == 2 => return,
                    _ => {}
                }
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        })
    };
    settled(|| watched.wait_for_other_than(Some(old)));
    let mut raw = to_primary(&watched);
    raw.command(&["SET", "r:k", "2", "PX", "200000"]).unwrap();
    written.set(Instant::now()).unwrap();
    reader.await.unwrap();
    // It wakes and thinks that it is what it was; nobody here listens to it.
    watched.servers()[old].resume().unwrap();
    for n in 3..30 {
        raw.command(&["SET", "r:k", &n.to_string(), "PX", "200000"]).unwrap();
        eventually("the change is seen", async || reads(&region, n).await).await;
    }
}

/// Row 9: under load, loaders stand in, every kind of failure is one that says so, and afterwards all agree with the new primary.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_primary_costs_errors_that_say_so_and_no_stale_value() {
    let mut watched = watched();
    let nodes = [open(&watched.url()).await, open(&watched.url()).await];
    let regions = nodes.each_ref().map(region);
    let stop = Arc::new(AtomicBool::new(false));
    let written = Arc::new(AtomicU64::new(0));
    let workers: Vec<_> = (0..8_u64)
        .map(|worker| {
            let region = regions[(worker % 2) as usize].clone();
            let (stop, written) = (Arc::clone(&stop), Arc::clone(&written));
            tokio::spawn(async move {
                let mut step = worker;
                while !stop.load(Ordering::SeqCst) {
                    step += 8;
                    let id = (step % 20).to_string();
                    let loaded =
                        region.get_or_load(&id, move || async move { Ok::<_, io::Error>(step) }).await;
                    loaded.unwrap();
                    match region.set(&id, &step).await {
                        Ok(()) => drop(written.fetch_add(1, Ordering::SeqCst)),
                        Err(error) => assert!(error.is_backend_down(), "{error}"),
                    }
                    let _ = region.get_shared(&id).await;
                    tokio::time::sleep(Duration::from_millis(1)).await;
                }
            })
        })
        .collect();
    for killed in 0..2 {
        tokio::time::sleep(Duration::from_millis(300)).await;
        if killed == 0 {
            settled(|| {
                watched.kill_primary();
            });
        } else {
            settled(|| {
                let away = watched.servers().iter().position(|server| server.pid().is_none()).unwrap();
                watched.servers()[away].start_again().unwrap();
                watched.fail_over();
            });
        }
        let before = written.load(Ordering::SeqCst);
        eventually("writes go on", async || written.load(Ordering::SeqCst) > before + 100).await;
    }
    stop.store(true, Ordering::SeqCst);
    for worker in workers {
        worker.await.unwrap();
    }
    let mut raw = to_primary(&watched);
    for id in 0..20 {
        let id = id.to_string();
        eventually("both agree with the primary", async || {
            let truth = raw.command(&["GET", &format!("r:{id}")]).unwrap().text();
            let mut agree = true;
            for region in &regions {
                let seen = region.get_shared(&id).await;
                agree &= seen.is_ok_and(|read| read.map(|read| read.value.to_string()) == truth);
            }
            agree
        })
        .await;
    }
}

/// Row 22.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_service_starts_without_its_sentinels_and_uses_them_once_they_are_there() {
    let mut watched = watched();
    let url = watched.url();
    for sentinel in watched.sentinels() {
        sentinel.stop().unwrap();
    }
    watched.sentinels()[0].start_again().unwrap();
    let misnamed = Cache::connect(&url.replace("/svc", "/svd")).await.unwrap_err();
    assert!(misnamed.kind() == ErrorKind::Config && misnamed.to_string().contains("svd"), "{misnamed}");
    watched.sentinels()[0].stop().unwrap();
    let cache = open(&url).await;
    let region = region(&cache);
    let read = region.get_or_load("k", || async { Ok::<_, io::Error>(1) }).await.unwrap();
    assert_eq!((read.value, read.source), (1, Source::Loader));
    let error = cache.set("a", &1, SetOptions::default()).await.unwrap_err();
    assert_eq!((error.kind(), error.outcome()), (ErrorKind::Unavailable, Outcome::NotApplied));
    watched.sentinels()[0].start_again().unwrap();
    eventually("it is used", async || cache.set("a", &1, SetOptions::default()).await.is_ok()).await;
    near_is_on(&cache).await;
}

/// Row 26: an increment is never sent twice, whatever became of the first; so there are no more than were tried.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_increment_of_unknown_outcome_is_not_sent_again() {
    let watched = watched();
    let cache = open(&watched.url()).await;
    let (mut done, mut unknown) = (0, 0);
    for round in 0..60 {
        if round % 20 == 10 {
            settled(|| watched.fail_over());
        }
        for _ in 0..20 {
            match cache.increment("n", 1).await {
                Ok(_) => done += 1,
                Err(error) if error.outcome() == Outcome::Unknown => unknown += 1,
                Err(error) => assert!(error.is_backend_down(), "{error}"),
            }
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let mut raw = to_primary(&watched);
    let counted: i64 = raw.command(&["GET", "n"]).unwrap().text().unwrap().parse().unwrap();
    assert!(counted <= done + unknown, "{counted} counted, {done} done, {unknown} unknown");
    assert!(counted > 0 && done > 600, "{counted} counted, {done} done, {unknown} unknown");
}
