//! Invalidation by what names begin with, and of whole regions.

use std::time::Duration;

use futures_util::FutureExt;
use mtcache_cache::{Framing, Region, RegionPolicy};

use crate::rig::{Rig, on_every_backend};

const TTL: Duration = Duration::from_secs(30);

on_every_backend! {
    an_entry_and_what_is_below_it_go_and_nothing_that_looks_alike,
    a_long_walk_tells_how_far_it_has_come,
    a_walk_that_is_dropped_is_made_good_before_the_next_read,
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
