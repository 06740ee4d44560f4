//! The near cache: what it serves is what the backend has, on every backend that tells of changes.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use mtcache_cache::{
    Age, Cache, Event, Heard, Read, ReadOptions, Region, RegionPolicy, Source, TimeLeft, TrackingState,
};

use crate::rig::{Rig, eventually, on_every_backend};

const TTL: Duration = Duration::from_secs(30);

on_every_backend! {
    a_value_read_twice_comes_from_near_and_is_shared,
    a_region_that_has_not_asked_reads_the_backend,
    a_change_by_another_process_is_seen_once_it_is_told,
    a_refresh_by_this_process_leaves_nothing_older_near,
    a_change_of_ones_own_is_seen_by_the_next_read,
    what_is_loaded_is_near_from_the_next_read_on,
    a_near_value_lives_no_longer_than_in_the_backend,
    a_near_value_tells_its_age_and_meets_demands,
    a_flush_empties_it,
    readers_and_writers_agree_in_the_end,
    a_cached_none_is_near_too,
    each_near_hit_is_counted_once_and_told_once,
}

fn policy() -> RegionPolicy {
    RegionPolicy::new("r", TTL).near(true)
}

pub(crate) async fn near_is_on(cache: &Cache) {
    eventually("tracking is on", async || cache.near_state() == TrackingState::On).await;
}

async fn region(rig: &Rig) -> Region<u64> {
    let region = rig.cache().await.region(policy()).unwrap();
    near_is_on(region.cache()).await;
    region
}

/// Reads until the value is near.
pub(crate) async fn warm(region: &Region<u64>, id: &str) -> Read<Arc<u64>> {
    let mut last = None;
    eventually("the value is near", async || {
        last = region.get_shared(id).await.ok().flatten();
        last.as_ref().is_some_and(|read| read.source == Source::Near)
    })
    .await;
    last.unwrap()
}

async fn value(region: &Region<u64>, id: &str) -> Option<u64> {
    region.get_shared(id).await.unwrap().map(|read| *read.value)
}

async fn a_refresh_by_this_process_leaves_nothing_older_near(rig: Rig) {
    let region = region(&rig).await;
    region.set("k", &0).await.unwrap();
    warm(&region, "k").await;
    for loaded in 1..50 {
        tokio::time::sleep(Duration::from_millis(4)).await;
        let fresh = ReadOptions::new().max_age(Duration::from_millis(1));
        let read =
            region.get_or_load_shared_with("k", fresh, move || async move { Ok::<_, io::Error>(loaded) });
        assert_eq!(*read.await.unwrap().value, loaded);
        assert_eq!(value(&region, "k").await, Some(loaded), "what was near before the load");
    }
}

async fn a_value_read_twice_comes_from_near_and_is_shared(rig: Rig) {
    let region = region(&rig).await;
    region.set("k", &1).await.unwrap();
    let first = warm(&region, "k").await;
    let second = region.get_shared("k").await.unwrap().unwrap();
    assert_eq!((*second.value, second.source, second.is_stale()), (1, Source::Near, false));
    assert!(Arc::ptr_eq(&first.value, &second.value));
    let stats = region.stats();
    assert!(stats.near_hits >= 2 && stats.hits > stats.near_hits && stats.near_kept >= 1, "{stats:?}");
    assert!(region.cache().near_size().1 > 0);
    assert_eq!(region.get("k").await.unwrap().unwrap().source, Source::Backend);
}

/// However it was found, by each call that finds it; what is refused as too old is no hit.
async fn each_near_hit_is_counted_once_and_told_once(rig: Rig) {
    let region = region(&rig).await;
    let ids = ["k", "a:b", "50%", "", "an id of more bytes than lie within an entry"];
    for id in ids {
        region.set(id, &1).await.unwrap();
        warm(&region, id).await;
    }
    let is_near =
        |read: Option<Read<Arc<u64>>>| u64::from(read.is_some_and(|read| read.source == Source::Near));
    for listens in [false, true] {
        let mut events = listens.then(|| region.cache().events());
        let (before, mut near) = (region.stats(), 0);
        for id in ids {
            near += is_near(region.get_shared(id).await.unwrap());
            near += is_near(region.get_shared_with(id, ReadOptions::new()).await.unwrap());
            near += is_near(region.get_near(id, ReadOptions::new()).unwrap());
            near += u64::from(region.peek(id).is_some());
            let too_old = ReadOptions::new().max_age(Duration::ZERO);
            assert!(region.get_near(id, too_old).unwrap().is_none());
        }
        assert!(near > 0, "nothing is near any more");
        assert_eq!(region.stats().near_hits - before.near_hits, near, "listens: {listens}");
        let Some(events) = &mut events else { continue };
        let mut told = 0;
        // What was told is there already.
        while let Ok(Some(heard)) = tokio::time::timeout(Duration::ZERO, events.next()).await {
            let Heard::Event(event) = heard else { panic!("{heard:?}") };
            told += u64::from(matches!(&*event, Event::Read { source: Source::Near, .. }));
        }
        assert_eq!(told, near);
    }
}

async fn a_region_that_has_not_asked_reads_the_backend(rig: Rig) {
    let region: Region<u64> = rig.cache().await.region(RegionPolicy::new("r", TTL)).unwrap();
    region.set("k", &1).await.unwrap();
    for _ in 0..3 {
        assert_eq!(region.get_shared("k").await.unwrap().unwrap().source, Source::Backend);
    }
    assert_eq!(region.cache().near_state(), TrackingState::Idle);
    assert_eq!(region.cache().near_size(), (0, 0));
}

async fn a_change_by_another_process_is_seen_once_it_is_told(rig: Rig) {
    let region = region(&rig).await;
    let other: Region<u64> = rig.cache().await.region(policy()).unwrap();
    let sees = async |expected: Option<u64>| {
        eventually("the change is seen", async || value(&region, "k").await == expected).await;
        // What has been told is never untold.
        for _ in 0..20 {
            assert_eq!(value(&region, "k").await, expected);
        }
    };
    other.set("k", &1).await.unwrap();
    warm(&region, "k").await;
    other.set("k", &2).await.unwrap();
    sees(Some(2)).await;
    warm(&region, "k").await;
    other.invalidate("k").await.unwrap();
    sees(None).await;
    rig.raw(&["SET", "r:k", "3", "PX", "20000"]).await;
    sees(Some(3)).await;
    warm(&region, "k").await;
    rig.raw(&["DEL", "r:k"]).await;
    sees(None).await;
    other.set("k", &4).await.unwrap();
    warm(&region, "k").await;
    other.invalidate_all().await.unwrap();
    sees(None).await;
}

async fn a_change_of_ones_own_is_seen_by_the_next_read(rig: Rig) {
    let region = region(&rig).await;
    let cache = region.cache().clone();
    for round in 0..20 {
        region.set("k", &round).await.unwrap();
        assert_eq!(value(&region, "k").await, Some(round));
        warm(&region, "k").await;
        cache.increment("r:k", 100).await.unwrap();
        assert_eq!(value(&region, "k").await, Some(round + 100));
        warm(&region, "k").await;
        match round % 4 {
            0 => drop(region.invalidate("k").await.unwrap()),
            1 => drop(cache.delete(&["r:k"]).await.unwrap()),
            2 => drop(region.invalidate_all().await.unwrap()),
            _ => cache.flush_database().await.unwrap(),
        }
        assert_eq!(value(&region, "k").await, None);
    }
}

async fn what_is_loaded_is_near_from_the_next_read_on(rig: Rig) {
    let region = region(&rig).await;
    let calls = Arc::new(AtomicU32::new(0));
    let load = async || {
        let calls = Arc::clone(&calls);
        let loader =
            move || async move { Ok::<_, io::Error>(u64::from(calls.fetch_add(1, Ordering::SeqCst))) };
        region.get_or_load_shared("k", loader).await.unwrap()
    };
    assert_eq!(load().await.source, Source::Loader);
    eventually("it is near", async || load().await.source == Source::Near).await;
    assert_eq!((calls.load(Ordering::SeqCst), *load().await.value), (1, 0));
}

async fn a_near_value_lives_no_longer_than_in_the_backend(rig: Rig) {
    let region = region(&rig).await;
    for _ in 0..5 {
        region.set_for("k", &1, Duration::from_millis(300)).await.unwrap();
        while let Some(read) = region.get_shared("k").await.unwrap() {
            let left = region.time_left("k").await.unwrap();
            // Whatever was served, the backend had it still when the read began; so it is gone here once it is gone there.
            if left == TimeLeft::Absent {
                assert_eq!(value(&region, "k").await, None, "was {:?}", read.source);
            }
        }
    }
}

async fn a_near_value_tells_its_age_and_meets_demands(rig: Rig) {
    let region = region(&rig).await;
    let set = std::time::Instant::now();
    region.set("k", &1).await.unwrap();
    warm(&region, "k").await;
    tokio::time::sleep(Duration::from_millis(50)).await;
    let demand = ReadOptions::new().max_age(TTL);
    let read = region.get_shared_with("k", demand).await.unwrap().unwrap();
    let Age::AtMost(age) = read.age else { panic!("{:?}", read.age) };
    assert!(age >= Duration::from_millis(50), "{age:?}");
    // A server's own clock stands while it is at work, which on a busy machine takes a while.
    assert!(age <= set.elapsed() + Duration::from_millis(200), "not a loose bound: {age:?}");
    let strict = ReadOptions::new().max_age(Duration::from_millis(20));
    assert!(region.get_shared_with("k", strict).await.unwrap().is_none());
    // Of what a foreign writer gave more than the region's TTL the age is not known, near or not.
    rig.raw(&["SET", "r:foreign", "7", "PX", "90000"]).await;
    let read = warm(&region, "foreign").await;
    assert_eq!(read.age, Age::Unknown);
    assert!(region.get_shared_with("foreign", demand).await.unwrap().is_none());
}

async fn a_flush_empties_it(rig: Rig) {
    let region = region(&rig).await;
    for flush in ["FLUSHALL", "FLUSHDB"] {
        region.set("k", &1).await.unwrap();
        warm(&region, "k").await;
        rig.raw(&[flush]).await;
        eventually("the flush is seen", async || value(&region, "k").await.is_none()).await;
    }
}

async fn readers_and_writers_agree_in_the_end(rig: Rig) {
    const KEYS: u64 = 100;
    let nodes = [region(&rig).await, region(&rig).await];
    let workers: Vec<_> = (0..4_u64)
        .map(|worker| {
            let node = nodes[(worker % 2) as usize].clone();
            tokio::spawn(async move {
                for step in 0..400 {
                    let id = ((step * 7 + worker * 13) % KEYS).to_string();
                    match (step + worker) % 4 {
                        0 => node.set(&id, &(worker * 1000 + step)).await.unwrap(),
                        1 if step % 3 == 0 => drop(node.invalidate(&id).await.unwrap()),
                        _ => drop(node.get_shared(&id).await.unwrap()),
                    }
                }
            })
        })
        .collect();
    for worker in workers {
        worker.await.unwrap();
    }
    for key in 0..KEYS {
        let id = key.to_string();
        let truth = nodes[0].get(&id).await.unwrap().map(|read| read.value);
        for node in &nodes {
            eventually("near is as the backend", async || value(node, &id).await == truth).await;
        }
    }
}

async fn a_cached_none_is_near_too(rig: Rig) {
    let region: Region<Option<u64>> = rig.cache().await.region(policy().none_ttl(Some(TTL))).unwrap();
    near_is_on(region.cache()).await;
    region.set("k", &None).await.unwrap();
    eventually("it is near", async || {
        let read = region.get_shared("k").await.unwrap().unwrap();
        read.value.is_none() && read.source == Source::Near
    })
    .await;
    assert!(region.stats().none_hits >= 2);
}
