//! Kill switch and shadow mode: what is served, what still reaches the backend, and what comes after.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use mtcache_cache::{Event, Heard, Region, RegionMode, RegionPolicy, Source};
use serde_json::{Value, json};

use crate::loads::Gate;
use crate::near::{near_is_on, warm};
use crate::rig::{Rig, eventually, on_every_backend};

const TTL: Duration = Duration::from_secs(30);

on_every_backend! {
    a_killed_region_asks_its_loader_alone,
    a_killed_region_still_tells_the_backend,
    nothing_older_than_what_was_served_comes_after_the_kill,
    a_herd_on_a_killed_region_makes_few_loads_and_none_is_joined_late,
    a_kill_in_the_middle_of_a_load_is_kept,
    shadow_serves_the_loader_and_counts,
    shadow_fills_what_was_missing_and_leaves_what_was_there,
    after_shadow_nothing_older_than_what_was_served_is_read,
    what_is_stored_during_a_shadow_load_is_not_served,
    regions_of_other_names_are_left_alone,
}

fn policy() -> RegionPolicy {
    RegionPolicy::new("r", TTL).near(true)
}

async fn region(rig: &Rig) -> Region<u64> {
    let region = rig.cache().await.region(policy()).unwrap();
    near_is_on(region.cache()).await;
    region
}

/// What the loader would say now.
#[derive(Clone, Default)]
struct Origin {
    value: Arc<AtomicU64>,
    calls: Arc<AtomicU32>,
}

impl Origin {
    fn is(&self, value: u64) {
        self.value.store(value, Ordering::SeqCst);
    }

    fn calls(&self) -> u32 {
        self.calls.load(Ordering::SeqCst)
    }

    async fn read(&self, region: &Region<u64>) -> (u64, Source) {
        let read = region.get_or_load("k", self.loader()).await.unwrap();
        (read.value, read.source)
    }

    async fn read_shared(&self, region: &Region<u64>) -> (u64, Source) {
        let read = region.get_or_load_shared("k", self.loader()).await.unwrap();
        (*read.value, read.source)
    }

    fn loader(&self) -> impl FnOnce() -> std::future::Ready<io::Result<u64>> + Send + 'static {
        let origin = self.clone();
        move || {
            origin.calls.fetch_add(1, Ordering::SeqCst);
            std::future::ready(Ok(origin.value.load(Ordering::SeqCst)))
        }
    }
}

async fn a_killed_region_asks_its_loader_alone(rig: Rig) {
    let region = region(&rig).await;
    region.set("k", &1).await.unwrap();
    warm(&region, "k").await;
    let origin = Origin::default();
    region.control().set_mode(RegionMode::Killed);
    for value in 2..5 {
        origin.is(value);
        assert_eq!(origin.read(&region).await, (value, Source::Loader));
        assert_eq!(origin.read_shared(&region).await, (value, Source::Loader));
    }
    assert_eq!(origin.calls(), 6);
    assert!(region.get("k").await.unwrap().is_none());
    assert!(region.get_shared("k").await.unwrap().is_none());
    assert!(region.get_many(&["k", "l"]).await.unwrap().iter().all(Option::is_none));
    assert_eq!(rig.raw_get("r:k").await.as_deref(), Some("1"), "nothing of it is stored");
    let stats = region.stats();
    assert_eq!((stats.bypassed, stats.misses, stats.loads, stats.fills_stored), (10, 0, 6, 0), "{stats:?}");
}

async fn a_killed_region_still_tells_the_backend(rig: Rig) {
    let (region, other) = (region(&rig).await, region(&rig).await);
    region.set("gone", &1).await.unwrap();
    region.control().set_mode(RegionMode::Killed);
    region.set("k", &2).await.unwrap();
    assert!(region.invalidate("gone").await.unwrap());
    assert_eq!(other.get("k").await.unwrap().unwrap().value, 2);
    assert!(other.get("gone").await.unwrap().is_none());
    // A load of another process that began before the write does not store after it, killed or not.
    let gate = Gate::default();
    let loading = tokio::spawn({
        let (other, loader) = (other.clone(), gate.loader(7_u64));
        async move { other.get_or_load("late", loader).await }
    });
    gate.running.notified().await;
    region.invalidate("late").await.unwrap();
    gate.open.notify_one();
    assert_eq!(loading.await.unwrap().unwrap().value, 7);
    assert_eq!(rig.raw_get("r:late").await, None);
    region.control().set_mode(RegionMode::On);
    assert_eq!(region.get("k").await.unwrap().unwrap().value, 2);
    assert!(region.get("gone").await.unwrap().is_none());
}

async fn nothing_older_than_what_was_served_comes_after_the_kill(rig: Rig) {
    let region = region(&rig).await;
    let origin = Origin::default();
    for (round, shared) in [(0, true), (10, false)] {
        origin.is(round + 1);
        region.invalidate("k").await.unwrap();
        assert_eq!(origin.read(&region).await.0, round + 1);
        warm(&region, "k").await;
        region.control().set_mode(RegionMode::Killed);
        origin.is(round + 2);
        let served = if shared { origin.read_shared(&region).await } else { origin.read(&region).await };
        assert_eq!(served.0, round + 2);
        region.control().set_mode(RegionMode::On);
        // What is cached is older than what was served: it has to be loaded again, and is then cached.
        assert!(region.get("k").await.unwrap().is_none(), "an old value came back");
        assert_eq!(origin.read_shared(&region).await, (round + 2, Source::Loader));
        assert_eq!(region.get("k").await.unwrap().unwrap().value, round + 2);
        region.set("other", &1).await.unwrap();
        assert_eq!(region.get("other").await.unwrap().unwrap().value, 1, "only what was served past it goes");
    }
}

async fn a_herd_on_a_killed_region_makes_few_loads_and_none_is_joined_late(rig: Rig) {
    let region = region(&rig).await;
    region.control().set_mode(RegionMode::Killed);
    let gate = Gate::default();
    let read = |value: u64| {
        let (region, loader) = (region.clone(), gate.loader(value));
        tokio::spawn(async move { region.get_or_load("k", loader).await.unwrap().value })
    };
    let first = read(1);
    gate.running.notified().await;
    // These asked after the load began, maybe because of a change: its answer is not for them. They share the next one.
    let late: Vec<_> = (0..100).map(|_| read(2)).collect();
    tokio::time::sleep(Duration::from_millis(50)).await;
    gate.open.notify_one();
    assert_eq!(first.await.unwrap(), 1);
    gate.running.notified().await;
    gate.open.notify_one();
    for read in late {
        assert_eq!(read.await.unwrap(), 2);
    }
    assert_eq!(region.stats().loads, 2);
}

async fn a_kill_in_the_middle_of_a_load_is_kept(rig: Rig) {
    let region = region(&rig).await;
    let gate = Gate::default();
    let loading = tokio::spawn({
        let (region, loader) = (region.clone(), gate.loader(1_u64));
        async move { region.get_or_load("k", loader).await.unwrap() }
    });
    gate.running.notified().await;
    region.control().set_mode(RegionMode::Killed);
    // Not a follower of the load that began before.
    let origin = Origin::default();
    origin.is(2);
    assert_eq!(origin.read(&region).await, (2, Source::Loader));
    gate.open.notify_one();
    assert_eq!(loading.await.unwrap().value, 1);
    // The load of before has stored what is older than what was served since.
    region.control().set_mode(RegionMode::On);
    assert!(region.get("k").await.unwrap().is_none_or(|read| read.value == 2), "an old value came back");
}

async fn shadow_serves_the_loader_and_counts(rig: Rig) {
    let cache = rig.cache().await;
    let region: Region<Value> = cache.region(policy()).unwrap();
    near_is_on(&cache).await;
    // As another service would write it: other order, other spaces.
    rig.raw(&["SET", "r:k", r#"{"b": [1, 2],  "a": 1.5}"#, "PX", "20000"]).await;
    let mut events = cache.events();
    region.control().set_mode(RegionMode::Shadow);
    let load =
        async |value: Value| region.get_or_load("k", || async { Ok::<_, io::Error>(value) }).await.unwrap();
    let read = load(json!({"a": 1.5, "b": [1, 2]})).await;
    assert_eq!((read.source, region.stats().shadow_equal), (Source::Loader, 1));
    let read = load(json!({"a": 1.5, "b": [1, 3]})).await;
    assert_eq!((read.value["b"][1].clone(), region.stats().shadow_different), (json!(3), 1));
    let shared = region.get_or_load_shared("k", || async { Ok::<_, io::Error>(json!(4)) }).await.unwrap();
    assert_eq!((shared.source, region.stats().shadow_different), (Source::Loader, 2));
    let failed = region.get_or_load("k", || async { Err(io::Error::other("closed")) }).await;
    assert!(failed.is_err(), "the cache is not to be served");
    let stats = region.stats();
    assert_eq!((stats.hits, stats.misses, stats.shadow_missing), (0, 0, 0), "{stats:?}");
    // Without a loader it reads as ever.
    assert!(region.get("k").await.unwrap().is_some());
    drop((region, cache, rig));
    let mut differed = Vec::new();
    while let Ok(Some(Heard::Event(event))) =
        tokio::time::timeout(Duration::from_secs(1), events.next()).await
    {
        if let Event::ShadowDiffered { places, .. } = &*event {
            differed.push(places.clone());
        }
    }
    assert_eq!(differed, [["/b/1"]], "one a second at the most");
}

async fn shadow_fills_what_was_missing_and_leaves_what_was_there(rig: Rig) {
    let region = region(&rig).await;
    region.control().set_mode(RegionMode::Shadow);
    let origin = Origin::default();
    origin.is(1);
    assert_eq!(origin.read(&region).await, (1, Source::Loader));
    assert_eq!(rig.raw_get("r:k").await.as_deref(), Some("1"));
    for value in 2..5 {
        origin.is(value);
        assert_eq!(origin.read(&region).await, (value, Source::Loader));
        assert_eq!(rig.raw_get("r:k").await.as_deref(), Some("1"), "or it would be compared with itself");
    }
    let stats = region.stats();
    assert_eq!((stats.shadow_missing, stats.shadow_different, stats.shadow_equal), (1, 3, 0));
}

async fn after_shadow_nothing_older_than_what_was_served_is_read(rig: Rig) {
    let region = region(&rig).await;
    let origin = Origin::default();
    region.set("k", &1).await.unwrap();
    region.set("equal", &1).await.unwrap();
    region.control().set_mode(RegionMode::Shadow);
    origin.is(2);
    origin.read(&region).await;
    region.get_or_load("equal", || async { Ok::<_, io::Error>(1) }).await.unwrap();
    region.control().set_mode(RegionMode::On);
    assert!(region.get("k").await.unwrap().is_none(), "an old value came back");
    assert_eq!(region.get("equal").await.unwrap().unwrap().value, 1, "what was equal stays");
}

/// Between a look that finds nothing and its load another process stores.
async fn what_is_stored_during_a_shadow_load_is_not_served(rig: Rig) {
    let region: Region<u64> = rig.cache().await.region(RegionPolicy::new("r", TTL).max_loads(1, 9)).unwrap();
    region.control().set_mode(RegionMode::Shadow);
    let gate = Gate::default();
    let occupied = tokio::spawn({
        let (region, loader) = (region.clone(), gate.loader(0));
        async move { region.get_or_load("other", loader).await }
    });
    gate.running.notified().await;
    let single = tokio::spawn({
        let region = region.clone();
        async move { region.get_or_load("k", || async { Ok::<_, io::Error>(1) }).await.unwrap() }
    });
    let batch = tokio::spawn({
        let region = region.clone();
        let loader = |ids: Vec<&'static str>| async move {
            Ok::<_, io::Error>(ids.into_iter().map(|id| (id, 1)).collect::<Vec<_>>())
        };
        async move { region.get_or_load_many(["l", "m"], loader).await.unwrap() }
    });
    eventually("both have missed", async || region.stats().shadow_missing == 2).await;
    tokio::time::sleep(Duration::from_millis(50)).await;
    for key in ["r:k", "r:l"] {
        rig.raw(&["SET", key, "99", "PX", "20000"]).await;
    }
    gate.open.notify_one();
    occupied.await.unwrap().unwrap();
    let read = single.await.unwrap();
    assert_eq!(
        (read.value, read.source),
        (1, Source::Loader),
        "the cache was served, and compared with nothing"
    );
    for read in batch.await.unwrap().into_iter().flatten() {
        assert_eq!((read.value, read.source), (1, Source::Loader));
    }
    for (key, value) in [("r:k", "99"), ("r:l", "99"), ("r:m", "1")] {
        assert_eq!(rig.raw_get(key).await.as_deref(), Some(value), "{key}");
    }
}

async fn regions_of_other_names_are_left_alone(rig: Rig) {
    let cache = rig.cache().await;
    let one: Region<u64> = cache.region(policy()).unwrap();
    let again: Region<u64> = cache.region(policy()).unwrap();
    let other: Region<u64> = cache.region(RegionPolicy::new("other", TTL)).unwrap();
    one.set("k", &1).await.unwrap();
    other.set("k", &1).await.unwrap();
    assert!(cache.control("no_such_region").is_none());
    assert!(cache.control("keys").is_none(), "what is of no region has no switch");
    cache.control("r").unwrap().set_mode(RegionMode::Killed);
    assert!(one.get("k").await.unwrap().is_none() && again.get("k").await.unwrap().is_none());
    assert!(other.get("k").await.unwrap().is_some());
    let elsewhere = region(&rig).await;
    assert!(elsewhere.get("k").await.unwrap().is_some(), "another process has its own switch");
    cache.control("r").unwrap().set_mode(RegionMode::On);
    eventually("it is read again", async || one.get_shared("k").await.unwrap().is_some()).await;
}
