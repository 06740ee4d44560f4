//! What is loaded in the background: stale while revalidating, refreshing ahead of time by threshold and by `XFetch`.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use mtcache_cache::{ErrorKind, Framing, Loaded, Read, ReadOptions, Region, RegionPolicy, Source, Staleness};

use crate::loads::Gate;
use crate::near::warm;
use crate::rig::{Rig, eventually, on_every_backend};
use crate::stale::{failing, known_and_expired, policy, region_with};

const LONG: Duration = Duration::from_secs(30);

on_every_backend! {
    a_stale_value_is_served_at_once_and_loaded_anew_once,
    a_stale_frame_is_served_at_once_and_loaded_anew_once,
    a_refresh_that_fails_is_not_tried_by_every_read,
    a_value_is_refreshed_once_a_part_of_its_life_has_passed,
    a_frame_and_a_near_value_are_refreshed_too,
    what_lives_shorter_is_not_refreshed_by_every_read,
    what_lives_shorter_is_left_alone_by_other_processes_too,
    what_lives_shorter_is_refreshed_once_a_part_of_its_own_life_has_passed,
    what_is_left_alone_is_loaded_anew_once_another_has_replaced_it,
    a_life_that_is_cut_short_ends_the_rest_of_its_value,
    one_process_at_a_time_refreshes,
    xfetch_refreshes_before_the_end,
    rules_that_make_no_sense_are_refused,
}

async fn a_stale_value_is_served_at_once_and_loaded_anew_once(rig: Rig) {
    let region: Region<u64> = region_with(&rig, policy().stale_while_revalidate(true)).await;
    known_and_expired(&region, 1).await;
    let gate = Gate::default();
    for _ in 0..10 {
        let read = region.get_or_load("k", gate.loader(2)).await.unwrap();
        assert_eq!((read.value, read.staleness), (1, Staleness::Stale));
    }
    gate.running.notified().await;
    gate.open.notify_one();
    eventually("the new value is there", async || rig.raw_get("r:k").await.as_deref() == Some("2")).await;
    assert_eq!((gate.calls(), region.stats().refreshes), (1, 1));
}

async fn a_stale_frame_is_served_at_once_and_loaded_anew_once(rig: Rig) {
    let framed = policy().framed(Framing::new()).stale_while_revalidate(true);
    let (writer, reader): (Region<u64>, Region<u64>) =
        (region_with(&rig, framed.clone()).await, region_with(&rig, framed).await);
    writer.set("k", &1).await.unwrap();
    eventually("it is past its TTL", async || writer.get("k").await.unwrap().is_none()).await;
    let gate = Gate::default();
    for _ in 0..10 {
        let read = reader.get_or_load("k", gate.loader(2)).await.unwrap();
        assert_eq!((read.value, read.source, read.staleness), (1, Source::Backend, Staleness::Stale));
    }
    gate.running.notified().await;
    gate.open.notify_one();
    eventually("the new value is there", async || {
        writer.get("k").await.unwrap().is_some_and(|read| read.value == 2)
    })
    .await;
    assert_eq!((gate.calls(), reader.stats().refreshes), (1, 1));
}

async fn a_refresh_that_fails_is_not_tried_by_every_read(rig: Rig) {
    let region: Region<u64> = region_with(&rig, policy().stale_while_revalidate(true)).await;
    known_and_expired(&region, 1).await;
    let began = Instant::now();
    for _ in 0..50 {
        assert_eq!(region.get_or_load("k", failing).await.unwrap().value, 1);
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let most = 1 + began.elapsed().as_secs();
    assert!((1..=most).contains(&region.stats().refreshes), "{}", region.stats().refreshes);
}

/// Reads, and counts what the loader is asked for.
async fn read_counting(region: &Region<u64>, calls: &Arc<AtomicU32>) -> Read<u64> {
    let calls = Arc::clone(calls);
    let loader = move || async move {
        calls.fetch_add(1, Ordering::SeqCst);
        tokio::time::sleep(Duration::from_millis(50)).await;
        Ok::<_, io::Error>(2)
    };
    region.get_or_load("k", loader).await.unwrap()
}

async fn a_value_is_refreshed_once_a_part_of_its_life_has_passed(rig: Rig) {
    let region: Region<u64> =
        rig.cache().await.region(RegionPolicy::new("r", LONG).eager_refresh(0.5)).unwrap();
    let calls = Arc::new(AtomicU32::new(0));
    region.set("k", &1).await.unwrap();
    assert_eq!(read_counting(&region, &calls).await.value, 1);
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert_eq!(calls.load(Ordering::SeqCst), 0, "too early");
    region.expire("k", LONG / 5 * 2).await.unwrap();
    for _ in 0..10 {
        let read = read_counting(&region, &calls).await;
        assert_eq!(read.staleness, Staleness::Fresh);
    }
    eventually("it is refreshed", async || rig.raw_get("r:k").await.as_deref() == Some("2")).await;
    assert_eq!(calls.load(Ordering::SeqCst), 1, "one for all");
    assert_eq!(read_counting(&region, &calls).await.value, 2);
    assert_eq!(region.stats().misses, 0);
}

async fn a_frame_and_a_near_value_are_refreshed_too(rig: Rig) {
    let eager = RegionPolicy::new("r", LONG).eager_refresh(0.01);
    for policy in [eager.clone().framed(Framing::new()), eager.near(true)] {
        let region: Region<u64> = region_with(&rig, policy.near(true)).await;
        let calls = Arc::new(AtomicU32::new(0));
        region.set("k", &1).await.unwrap();
        tokio::time::sleep(LONG.mul_f64(0.011)).await;
        warm(&region, "k").await;
        let counting = Arc::clone(&calls);
        let loader = move || async move {
            counting.fetch_add(1, Ordering::SeqCst);
            Ok::<_, io::Error>(2)
        };
        let read = region.get_or_load_shared("k", loader).await.unwrap();
        assert_eq!((*read.value, read.source), (1, Source::Near));
        eventually("it is refreshed", async || region.get("k").await.unwrap().unwrap().value == 2).await;
        assert_eq!(calls.load(Ordering::SeqCst), 1);
        region.invalidate("k").await.unwrap();
    }
}

/// Jitter makes values live for half the TTL at the least: of 40 % of them three tenths of the TTL have passed from the beginning.
async fn what_lives_shorter_is_not_refreshed_by_every_read(rig: Rig) {
    const IDS: u32 = 30;
    let eager = RegionPolicy::new("r", LONG).eager_refresh(0.3).ttl_jitter(0.5);
    let region: Region<u64> = rig.cache().await.region(eager).unwrap();
    let calls = Arc::new(AtomicU32::new(0));
    for _ in 0..5 {
        for id in 0..IDS {
            let calls = Arc::clone(&calls);
            let loader =
                || async move { Ok::<_, io::Error>(u64::from(calls.fetch_add(1, Ordering::SeqCst))) };
            region.get_or_load(id.to_string(), loader).await.unwrap();
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!((calls.load(Ordering::SeqCst), region.stats().refreshes), (IDS, 0));
}

/// Reads of another process, with a loader that brings what lives for a third of the TTL.
async fn read_short(region: &Region<u64>, calls: &Arc<AtomicU32>, life: Duration) -> u64 {
    let calls = Arc::clone(calls);
    let loader = move |_| async move {
        let n = calls.fetch_add(1, Ordering::SeqCst) + 1;
        Ok::<_, io::Error>(Loaded::new(u64::from(n)).ttl(life))
    };
    region.get_or_reload("k", ReadOptions::new(), loader).await.unwrap().value
}

/// Whatever made it short, and whether or not the near cache is in between.
async fn what_lives_shorter_is_left_alone_by_other_processes_too(rig: Rig) {
    let eager = RegionPolicy::new("r", LONG).eager_refresh(0.5);
    for policy in [eager.clone(), eager.framed(Framing::new())] {
        let mut processes: Vec<Region<u64>> = Vec::new();
        for _ in 0..3 {
            processes.push(rig.cache().await.region(policy.clone()).unwrap());
        }
        for was_set in [false, true] {
            let calls = Arc::new(AtomicU32::new(0));
            if was_set {
                processes[0].set_for("k", &7, LONG / 3).await.unwrap();
            } else {
                read_short(&processes[0], &calls, LONG / 3).await;
            }
            let before = calls.load(Ordering::SeqCst);
            for _ in 0..5 {
                for region in &processes {
                    read_short(region, &calls, LONG / 3).await;
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            let after = calls.load(Ordering::SeqCst);
            assert_eq!(after, before, "set: {was_set}, {:?}", policy.framing);
            // Each has asked once whether it is due.
            let asked = processes.iter().map(|region| region.stats().refreshes).sum::<u64>();
            assert!(asked <= if was_set { 6 } else { 3 }, "{asked}");
            processes[0].invalidate("k").await.unwrap();
        }
    }
}

async fn what_lives_shorter_is_refreshed_once_a_part_of_its_own_life_has_passed(rig: Rig) {
    let eager = RegionPolicy::new("r", LONG).eager_refresh(0.05);
    for policy in [eager.clone(), eager.framed(Framing::new())] {
        let mut processes: Vec<Region<u64>> = Vec::new();
        for _ in 0..3 {
            processes.push(rig.cache().await.region(policy.clone()).unwrap());
        }
        let (calls, life) = (Arc::new(AtomicU32::new(0)), LONG / 3);
        read_short(&processes[0], &calls, life).await;
        let loaded = Instant::now();
        eventually("it is refreshed", async || {
            for region in &processes {
                read_short(region, &calls, life).await;
            }
            calls.load(Ordering::SeqCst) > 1
        })
        .await;
        // The life began with the load, which was before it had returned.
        let early = Duration::from_millis(100);
        assert!(loaded.elapsed() + early >= life.mul_f64(0.05), "{:?}", loaded.elapsed());
        assert!(loaded.elapsed() < life, "ahead of its end");
        processes[0].invalidate("k").await.unwrap();
    }
}

/// What this process has loaded rests for long; what another has set instead is past its TTL before that is over.
async fn what_is_left_alone_is_loaded_anew_once_another_has_replaced_it(rig: Rig) {
    let policy = RegionPolicy::new("replaced", LONG)
        .eager_refresh(0.9)
        .stale_window(LONG)
        .stale_while_revalidate(true);
    for policy in [policy.clone(), policy.framed(Framing::new())] {
        let region: Region<u64> = region_with(&rig, policy.clone()).await;
        let other: Region<u64> = rig.cache().await.region(policy).unwrap();
        let (calls, began) = (Arc::new(AtomicU32::new(0)), Instant::now());
        assert_eq!(read_short(&region, &calls, LONG / 2).await, 1);
        other.set_for("k", &7, Duration::from_millis(400)).await.unwrap();
        eventually("it is known", async || {
            let read = region.get("k").await.unwrap();
            read.is_none_or(|read| read.value == 7)
        })
        .await;
        eventually("it is past its TTL", async || region.get("k").await.unwrap().is_none()).await;
        eventually("it is loaded anew", async || read_short(&region, &calls, LONG / 2).await == 2).await;
        assert!(began.elapsed() < LONG / 3, "before the first one's rest would have ended");
        region.invalidate("k").await.unwrap();
    }
}

async fn a_life_that_is_cut_short_ends_the_rest_of_its_value(rig: Rig) {
    let policy = RegionPolicy::new("cut", LONG).eager_refresh(0.5);
    let region: Region<u64> = rig.cache().await.region(policy).unwrap();
    let calls = Arc::new(AtomicU32::new(0));
    assert_eq!(read_short(&region, &calls, LONG / 2).await, 1);
    // Sooner than the rest ends, and late enough for a busy machine.
    rig.raw(&["PEXPIRE", "cut:k", "5000"]).await;
    eventually("it is refreshed", async || read_short(&region, &calls, LONG / 2).await == 2).await;
    assert_eq!(region.stats().misses, 1, "ahead of its end");
    for _ in 0..20 {
        assert_eq!(read_short(&region, &calls, LONG / 2).await, 2);
    }
    assert_eq!((calls.load(Ordering::SeqCst), region.stats().refreshes), (2, 1), "the new one rests");
}

async fn one_process_at_a_time_refreshes(rig: Rig) {
    let eager = RegionPolicy::new("r", LONG).eager_refresh(0.5);
    let mut processes: Vec<Region<u64>> = Vec::new();
    for _ in 0..4 {
        processes.push(rig.cache().await.region(eager.clone()).unwrap());
    }
    processes[0].set("k", &1).await.unwrap();
    rig.raw(&["PEXPIRE", "r:k", "10000"]).await;
    let gate = Gate::default();
    for _ in 0..5 {
        for region in &processes {
            assert_eq!(region.get_or_load("k", gate.loader(2)).await.unwrap().value, 1);
        }
    }
    gate.running.notified().await;
    // Long enough for the others to begin, if they would.
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert_eq!(gate.calls(), 1, "one loads");
    gate.open.notify_one();
    eventually("the new value is there", async || rig.raw_get("r:k").await.as_deref() == Some("2")).await;
    for region in &processes {
        let read = region.get_or_load("k", gate.loader(3)).await.unwrap();
        assert_eq!((read.value, read.staleness), (2, Staleness::Fresh));
    }
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!((gate.calls(), rig.raw_get("r:k").await.as_deref()), (1, Some("2")), "for all");
}

async fn xfetch_refreshes_before_the_end(rig: Rig) {
    // A load takes 50 ms; with such a beta what is expected is far more than a life.
    let region: Region<u64> =
        rig.cache().await.region(RegionPolicy::new("r", LONG).xfetch_beta(1e9)).unwrap();
    let calls = Arc::new(AtomicU32::new(0));
    region.set("k", &1).await.unwrap();
    read_counting(&region, &calls).await;
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert_eq!(calls.load(Ordering::SeqCst), 0, "nobody knows yet what a load takes");
    region.invalidate("k").await.unwrap();
    read_counting(&region, &calls).await;
    let before = calls.load(Ordering::SeqCst);
    eventually("it is refreshed", async || {
        read_counting(&region, &calls).await;
        calls.load(Ordering::SeqCst) > before
    })
    .await;
}

async fn rules_that_make_no_sense_are_refused(rig: Rig) {
    let cache = rig.cache().await;
    for policy in [
        policy().eager_refresh(0.0),
        policy().eager_refresh(1.0),
        policy().eager_refresh(f64::NAN),
        policy().xfetch_beta(0.0),
        policy().xfetch_beta(f64::INFINITY),
    ] {
        assert_eq!(cache.region::<u64>(policy).unwrap_err().kind(), ErrorKind::Config);
    }
    assert_eq!(
        cache.region::<u64>(policy().soft_timeout(Duration::ZERO)).unwrap_err().kind(),
        ErrorKind::BadTtl
    );
}
