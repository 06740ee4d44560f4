//! What operators see and do: health, published counters, checks of the near cache, stale reads, warm-up, reload.

use std::collections::BTreeSet;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use mtcache_cache::{Cache, HealthLevel, Region, RegionMode, RegionPolicy, Source, WarmUp, hot_keys};

use crate::near::{near_is_on, warm};
use crate::rig::{Rig, eventually, on_every_backend};

const TTL: Duration = Duration::from_secs(30);
const HEARTBEAT: Duration = Duration::from_millis(300);

on_every_backend! {
    counters_of_all_processes_add_up,
    a_process_that_has_gone_leaves_the_sum,
    deployments_are_told_apart,
    near_reads_under_load_are_checked_without_a_false_alarm,
    stale_reads_are_measured_and_published,
    a_healthy_cache_says_so_and_a_killed_region_is_named,
    a_warm_up_brings_near_what_is_there,
    a_warm_up_loads_what_is_not_and_keeps_to_its_limits,
    a_warm_up_that_is_dropped_starts_nothing_more,
    a_reload_holds_for_regions_that_are_open,
    a_fill_costs_each_process_that_tracks_one_message,
}

fn policy() -> RegionPolicy {
    RegionPolicy::new("r", TTL).near(true)
}

async fn near_region(rig: &Rig, policy: RegionPolicy) -> Region<u64> {
    let cache = rig.builder().near_heartbeat(HEARTBEAT).open().await.unwrap();
    let region = cache.region(policy).unwrap();
    near_is_on(&cache).await;
    region
}

async fn publishing(rig: &Rig, prefix: &str, period: Duration) -> Cache {
    rig.builder().prefix(prefix).publish_stats(period).open().await.unwrap()
}

async fn hits(cache: &Cache, region: &str) -> (usize, u64) {
    let published = cache.published_stats().await.unwrap();
    assert!(published.is_complete);
    let hits = published.by_region().get(region).map_or(0, |stats| stats.hits);
    (published.processes.len(), hits)
}

async fn counters_of_all_processes_add_up(rig: Rig) {
    let mut processes = Vec::new();
    for reads in 1..=3_u64 {
        let cache = publishing(&rig, "", Duration::from_millis(50)).await;
        let region: Region<u64> = cache.region(RegionPolicy::new("r", TTL)).unwrap();
        region.set("k", &1).await.unwrap();
        for _ in 0..reads {
            region.get("k").await.unwrap();
        }
        processes.push(cache);
    }
    let console = rig.cache().await;
    eventually("all have published", async || hits(&console, "r").await == (3, 6)).await;
    let published = console.published_stats().await.unwrap();
    let identities: BTreeSet<_> = published.processes.iter().map(|process| &process.process).collect();
    assert_eq!(identities.len(), 3);
    assert!(published.processes.iter().all(|process| process.health == "ok"), "{published:?}");
    let keys = rig.raw_keys().await;
    assert_eq!(keys.iter().filter(|key| key.starts_with("mtcache:stats:")).count(), 3, "{keys:?}");
}

async fn a_process_that_has_gone_leaves_the_sum(rig: Rig) {
    let gone = publishing(&rig, "", Duration::from_millis(50)).await;
    let console = rig.cache().await;
    eventually("it has published", async || hits(&console, "r").await.0 == 1).await;
    drop(gone);
    eventually("it has expired", async || hits(&console, "r").await.0 == 0).await;
}

async fn deployments_are_told_apart(rig: Rig) {
    let eu = publishing(&rig, "staging:eu:", Duration::from_millis(50)).await;
    let staging = publishing(&rig, "staging:", Duration::from_millis(50)).await;
    let plain = rig.cache().await;
    eventually("both have published", async || {
        hits(&eu, "r").await.0 == 1 && hits(&staging, "r").await.0 == 1
    })
    .await;
    assert_eq!(hits(&plain, "r").await.0, 0);
    // What is no counter of ours is passed over.
    rig.raw(&["SET", "mtcache:stats:staging:x", "no JSON"]).await;
    assert_eq!(hits(&staging, "r").await.0, 1);
}

async fn near_reads_under_load_are_checked_without_a_false_alarm(rig: Rig) {
    let nodes =
        [near_region(&rig, policy().check_every(1)).await, near_region(&rig, policy().check_every(1)).await];
    let until = Instant::now() + Duration::from_millis(1500);
    let workers: Vec<_> = (0..4_u64)
        .map(|worker| {
            let node = nodes[(worker % 2) as usize].clone();
            tokio::spawn(async move {
                let mut step = worker;
                while Instant::now() < until {
                    step += 1;
                    let id = (step % 7).to_string();
                    match step % 16 {
                        0 => node.set(&id, &step).await.unwrap(),
                        8 => drop(node.invalidate(&id).await.unwrap()),
                        4 => node.set_for(&id, &step, Duration::from_millis(step % 20 + 1)).await.unwrap(),
                        _ => drop(node.get_shared(&id).await.unwrap()),
                    }
                    tokio::task::yield_now().await;
                }
            })
        })
        .collect();
    for worker in workers {
        worker.await.unwrap();
    }
    tokio::time::sleep(2 * HEARTBEAT).await;
    for node in nodes {
        let stats = node.stats();
        assert!(stats.near_checks > 0, "{stats:?}");
        assert_eq!(stats.near_violations, 0, "{stats:?}");
    }
}

async fn stale_reads_are_measured_and_published(rig: Rig) {
    let period = Duration::from_millis(20);
    let builder = rig.builder().near_heartbeat(HEARTBEAT).probe_stale_reads(period).publish_stats(period);
    let cache = builder.open().await.unwrap();
    assert_eq!(cache.probe_stale_reads().await.unwrap(), None, "no region has the near cache on");
    let _region: Region<u64> = cache.region(policy()).unwrap();
    near_is_on(&cache).await;
    eventually("some are measured", async || cache.stale_reads().count() >= 20).await;
    let stale = cache.stale_reads();
    assert!(stale.quantile(0.5) > Duration::ZERO && stale.quantile(0.5) < HEARTBEAT, "{stale:?}");
    assert!(stale.quantile(0.5) <= stale.quantile(0.99) && stale.quantile(0.99) <= stale.max());
    let console = rig.cache().await;
    eventually("they are published", async || {
        console.published_stats().await.unwrap().stale_reads().count() >= 20
    })
    .await;
}

async fn a_healthy_cache_says_so_and_a_killed_region_is_named(rig: Rig) {
    let region = near_region(&rig, policy()).await;
    let cache = region.cache();
    region.set("k", &1).await.unwrap();
    warm(&region, "k").await;
    let health = cache.health();
    assert!(health.is_ok() && health.reasons.is_empty(), "{health:?}");
    assert_eq!((health.backend_is_up, health.tracking.as_str()), (true, "on"));
    assert!(health.near_entries >= 1 && health.near_bytes > 0);
    region.control().set_mode(RegionMode::Killed);
    let health = cache.health();
    assert_eq!(health.level, HealthLevel::Degraded);
    assert!(health.reasons.iter().any(|reason| reason.contains("region r is killed")), "{health:?}");
    assert_eq!(health.switched, [("r".to_owned(), RegionMode::Killed)]);
    let json = serde_json::to_value(&health).unwrap();
    assert_eq!((json["level"].as_str(), json["switched"][0][1].as_str()), (Some("degraded"), Some("killed")));
    region.control().set_mode(RegionMode::On);
    assert!(cache.health().is_ok());
}

async fn a_warm_up_brings_near_what_is_there(rig: Rig) {
    let region = near_region(&rig, policy()).await;
    region.set(["BTC", "1h"], &1).await.unwrap();
    region.set("a:b", &2).await.unwrap();
    let file =
        std::env::temp_dir().join(format!("hot-keys-{}-{:x}", std::process::id(), rand::random::<u64>()));
    std::fs::write(&file, "# hottest first\nBTC:1h\n\n a%3Ab \nnone\n").unwrap();
    let ids = hot_keys(&file).unwrap();
    std::fs::remove_file(&file).unwrap();
    // The messages about the two sets may still be on their way.
    eventually("all is near", async || {
        let report = region.warm_up(ids.clone(), &WarmUp::new()).await;
        assert_eq!((report.asked, report.found, report.missing, report.failed), (3, 2, 1, 0));
        let read = region.get_shared("a:b").await.unwrap().unwrap();
        read.source == Source::Near
            && region.get_shared(["BTC", "1h"]).await.unwrap().unwrap().source == Source::Near
    })
    .await;
    assert_eq!(region.stats().loads, 0);
}

async fn a_warm_up_loads_what_is_not_and_keeps_to_its_limits(rig: Rig) {
    let region = near_region(&rig, policy()).await;
    region.set("0", &0).await.unwrap();
    let running = Arc::new(AtomicU32::new(0));
    let most = Arc::new(AtomicU32::new(0));
    let loader = {
        let most = Arc::clone(&most);
        move |id: String| {
            let (running, most) = (Arc::clone(&running), Arc::clone(&most));
            async move {
                most.fetch_max(running.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                tokio::time::sleep(Duration::from_millis(20)).await;
                running.fetch_sub(1, Ordering::SeqCst);
                if id == "13" { Err(io::Error::other("closed")) } else { Ok(id.parse::<u64>().unwrap()) }
            }
        }
    };
    let told = Arc::new(AtomicU64::new(0));
    let options = WarmUp::new().at_once(4).per_second(200).on_progress({
        let told = Arc::clone(&told);
        move |report| told.store(report.asked, Ordering::SeqCst)
    });
    let began = Instant::now();
    let report = region.warm_up_or_load((0..40).map(|id| id.to_string()), &options, loader).await;
    assert_eq!((report.asked, report.found, report.loaded, report.failed), (40, 1, 38, 1), "{report}");
    assert_eq!(told.load(Ordering::SeqCst), 40);
    let most = most.load(Ordering::SeqCst);
    assert!((2..=4).contains(&most), "{most} at once");
    assert!(
        began.elapsed() >= Duration::from_millis(39 * 5),
        "more than 200 a second: {:?}",
        began.elapsed()
    );
    assert_eq!(region.get("39").await.unwrap().unwrap().value, 39);
}

async fn a_warm_up_that_is_dropped_starts_nothing_more(rig: Rig) {
    let region = near_region(&rig, policy()).await;
    let loader = |id: String| async move {
        tokio::time::sleep(Duration::from_millis(10)).await;
        Ok::<_, io::Error>(id.parse::<u64>().unwrap())
    };
    let options = WarmUp::new().at_once(2).per_second(100);
    let warming = region.warm_up_or_load((0..1000).map(|id| id.to_string()), &options, loader);
    assert!(tokio::time::timeout(Duration::from_millis(200), warming).await.is_err());
    tokio::time::sleep(Duration::from_millis(100)).await;
    let loads = region.stats().loads;
    assert!(loads > 0 && loads < 100, "{loads}");
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert_eq!(region.stats().loads, loads);
}

async fn a_reload_holds_for_regions_that_are_open(rig: Rig) {
    let region = near_region(&rig, policy()).await;
    let clone = region.clone();
    let mut wanted = policy().load_timeout(Duration::from_millis(50)).max_loads(1, 0);
    wanted.ttl = Duration::from_mins(5);
    let reloaded = region.control().reload(&wanted).unwrap();
    assert_eq!(reloaded.changed, ["ttl", "load_timeout"]);
    assert_eq!(reloaded.needs_restart, ["max_loads", "max_waiting_loads"]);
    clone.set("k", &1).await.unwrap();
    let left = rig.raw(&["PTTL", "r:k"]).await.into_int().unwrap();
    assert!(left > 200_000, "{left} ms");
    let slow = clone.get_or_load("slow", || async {
        tokio::time::sleep(Duration::from_secs(20)).await;
        Ok::<_, io::Error>(1)
    });
    assert_eq!(slow.await.unwrap_err().kind(), mtcache_cache::ErrorKind::LoadTimeout);
    let mut wrong = policy();
    wrong.ttl = Duration::ZERO;
    assert!(region.control().reload(&wrong).is_err());
    assert!(region.control().reload(&RegionPolicy::new("other", TTL)).is_err());
    assert_eq!(clone.policy().ttl, Duration::from_mins(5), "what is refused changes nothing");
    assert_eq!(region.control().reload(&wanted).unwrap().changed, [""; 0]);
}

/// Hazard 16: nothing is published by ourselves, so a fill is one message to each process that hears of its key, and no more.
async fn a_fill_costs_each_process_that_tracks_one_message(rig: Rig) {
    const FILLS: u64 = 200;
    let region = near_region(&rig, policy()).await;
    let told = rig.told_of("r:");
    // Twice: a tracker that is told of its prefix just when it begins connects once more, and hears nothing in between.
    for _ in 0..2 {
        let before = told.of("r:sentinel");
        eventually("changes are told", async || {
            rig.raw(&["SET", "r:sentinel", "1"]).await;
            told.of("r:sentinel") > before
        })
        .await;
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
    for n in 0..FILLS {
        let read =
            region.get_or_load_shared(n.to_string(), move || async move { Ok::<_, io::Error>(n) }).await;
        assert_eq!(read.unwrap().source, Source::Loader);
        region.get_shared(n.to_string()).await.unwrap();
    }
    assert_eq!(region.stats().fills_stored, FILLS);
    rig.raw(&["SET", "r:end", "1"]).await;
    eventually("the last change is told", async || told.of("r:end") > 0).await;
    let counts: Vec<_> = (0..FILLS).map(|n| told.of(&format!("r:{n}"))).collect();
    assert!(counts.iter().all(|count| *count == 1), "{counts:?}");
    assert_eq!(told.others("r:"), 0, "only keys of the region are told of");
}
