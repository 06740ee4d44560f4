//! Events: what happened is told, in its order, with the product's words.

use std::io;
use std::time::Duration;

use mtcache_cache::{Event, EventStream, Heard, Region, RegionPolicy, RemovalCause, Source};

use crate::near::{near_is_on, warm};
use crate::rig::{Rig, on_every_backend};

const TTL: Duration = Duration::from_secs(30);

on_every_backend! {
    each_kind_of_event_is_told,
}

/// The next event that `wanted` makes something of.
pub(crate) async fn next<T>(
    events: &mut EventStream,
    what: &str,
    wanted: impl Fn(&Event<'_>) -> Option<T>,
) -> T {
    let found = async {
        loop {
            match events.next().await {
                Some(Heard::Event(event)) => {
                    if let Some(found) = wanted(&event) {
                        return found;
                    }
                }
                other => panic!("{what}: {other:?}"),
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(20), found).await.unwrap_or_else(|_| panic!("not told: {what}"))
}

async fn each_kind_of_event_is_told(rig: Rig) {
    let cache = rig.cache().await;
    let region: Region<u64> = cache.region(RegionPolicy::new("r", TTL).near(true)).unwrap();
    near_is_on(&cache).await;
    let mut events = cache.events();
    let read_from = |from: Source| {
        move |event: &Event<'_>| match event {
            Event::Read { source, key, .. } if *source == from => Some(key.to_string()),
            _ => None,
        }
    };
    let is_miss = |event: &Event<'_>| matches!(event, Event::Miss { key, .. } if key == "r:k").then_some(());
    region.get("k").await.unwrap();
    next(&mut events, "a miss", is_miss).await;
    region.get_or_load("k", || async { Ok::<_, io::Error>(1) }).await.unwrap();
    let loaded = |event: &Event<'_>| match event {
        Event::Load { key, succeeded, .. } => Some((key.to_string(), *succeeded)),
        _ => None,
    };
    assert_eq!(next(&mut events, "a load", loaded).await, ("r:k".to_owned(), true));
    assert_eq!(next(&mut events, "the read", read_from(Source::Loader)).await, "r:k");
    region.get("k").await.unwrap();
    assert_eq!(next(&mut events, "a hit", read_from(Source::Backend)).await, "r:k");
    warm(&region, "k").await;
    assert_eq!(next(&mut events, "a near hit", read_from(Source::Near)).await, "r:k");
    let dropped = |event: &Event<'_>| match event {
        Event::NearDropped { key, cause, .. } => Some((key.to_string(), *cause)),
        _ => None,
    };
    rig.raw(&["SET", "r:k", "2", "PX", "20000"]).await;
    let gone = next(&mut events, "a drop by a message", dropped).await;
    assert_eq!(gone, ("r:k".to_owned(), RemovalCause::Invalidated));
    let changed = |event: &Event<'_>| match event {
        Event::Changed { key, cause, .. } => Some((key.to_string(), *cause)),
        _ => None,
    };
    region.set("k", &3).await.unwrap();
    let set = next(&mut events, "a set", changed).await;
    assert_eq!(set, ("r:k".to_owned(), RemovalCause::Replaced));
    region.invalidate("k").await.unwrap();
    let invalidated = next(&mut events, "an invalidation", changed).await;
    assert_eq!(invalidated, ("r:k".to_owned(), RemovalCause::Invalidated));
    cache.delete(&["r:k"]).await.unwrap();
    assert_eq!(next(&mut events, "a deletion", changed).await.1, RemovalCause::Deleted);
    let other = rig.cache().await.region::<u64>(RegionPolicy::new("r", TTL)).unwrap();
    let overtaken = region.get_or_load("k", move || async move {
        other.set("k", &5).await.unwrap();
        Ok::<_, io::Error>(4)
    });
    overtaken.await.unwrap();
    let refused = |event: &Event<'_>| matches!(event, Event::FillRefused { .. }).then_some(());
    next(&mut events, "a refused fill", refused).await;
    region.set_for("short", &1, Duration::from_millis(200)).await.unwrap();
    warm(&region, "short").await;
    tokio::time::sleep(Duration::from_millis(210)).await;
    region.get_shared("short").await.unwrap();
    let expired = |event: &Event<'_>| match event {
        Event::NearDropped { key, cause, .. } if key == "r:short" => Some(*cause),
        _ => None,
    };
    // The backend may have told of the expiry first.
    let cause = next(&mut events, "an expiry", expired).await;
    assert!(matches!(cause, RemovalCause::Expired | RemovalCause::Invalidated), "{cause:?}");
    region.invalidate_all().await.unwrap();
    let cleared = |event: &Event<'_>| match event {
        Event::RegionInvalidated { keys, .. } => Some(*keys),
        _ => None,
    };
    assert_eq!(next(&mut events, "an invalidation of all", cleared).await, 1);
    warm_something(&region).await;
    rig.raw(&["FLUSHALL"]).await;
    // On a cluster it is the flush of one primary after another.
    let empty = |event: &Event<'_>| match event {
        Event::NearCleared { .. } => Some(()),
        Event::NearDropped { key, .. } if key == "r:w" => Some(()),
        _ => None,
    };
    next(&mut events, "a flush", empty).await;
}

async fn warm_something(region: &Region<u64>) {
    region.set("w", &1).await.unwrap();
    warm(region, "w").await;
}
