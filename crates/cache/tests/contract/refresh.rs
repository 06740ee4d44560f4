//! What is loaded in the background: stale while revalidating, refreshing ahead of time by threshold and by `XFetch`.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use mtcache_cache::{ErrorKind, Framing, Read, Region, RegionPolicy, Source, Staleness};

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
    let eager = RegionPolicy::new("r", LONG).eager_refresh(0.5);
    for policy in [eager.clone().framed(Framing::new()), eager.near(true)] {
        let region: Region<u64> = region_with(&rig, policy.near(true)).await;
        let calls = Arc::new(AtomicU32::new(0));
        region.set_for("k", &1, LONG / 5 * 2).await.unwrap();
        tokio::time::sleep(Duration::from_millis(50)).await;
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

/// Jitter makes values live for half the TTL at the least, so that a part of a half would have passed from the beginning.
async fn what_lives_shorter_is_not_refreshed_by_every_read(rig: Rig) {
    let eager = RegionPolicy::new("r", LONG).eager_refresh(0.5).ttl_jitter(0.5);
    let region: Region<u64> = rig.cache().await.region(eager).unwrap();
    let calls = Arc::new(AtomicU32::new(0));
    for _ in 0..5 {
        for _ in 0..10 {
            read_counting(&region, &calls).await;
        }
        tokio::time::sleep(Duration::from_millis(60)).await;
    }
    assert_eq!((calls.load(Ordering::SeqCst), region.stats().refreshes), (1, 0));
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
