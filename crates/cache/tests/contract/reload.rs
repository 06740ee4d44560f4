//! Loaders that say how long their value lives, and those that are told what was known before.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use mtcache_cache::{
    Age, ErrorKind, Framing, Loaded, Previous, Read, ReadOptions, Region, RegionPolicy, Source, Staleness,
};
use parking_lot::Mutex;

use crate::near::near_is_on;
use crate::rig::{Rig, eventually, on_every_backend};
use crate::stale::{TTL, WINDOW, known_and_expired, policy, region_with};

const LONG: Duration = Duration::from_secs(30);

on_every_backend! {
    a_loader_chooses_how_long_its_value_lives,
    a_life_longer_than_the_regions_is_cut,
    what_is_not_to_be_kept_is_for_its_callers_alone,
    not_modified_gives_a_frame_a_new_life_with_its_validator,
    not_modified_gives_a_known_plain_value_a_new_life,
    a_value_that_is_loaded_ahead_of_its_end_is_told_to_its_loader,
    what_was_invalidated_is_told_to_nobody,
    a_refresh_that_stores_nothing_is_not_tried_by_every_read,
    a_validator_needs_a_frame_and_has_a_bound,
}

type Told = Arc<Mutex<Vec<Option<(u64, Option<Vec<u8>>)>>>>;

/// Loads, and notes what the loader is told.
async fn reload(region: &Region<u64>, told: &Told, answer: Loaded<u64>) -> mtcache_cache::Result<Read<u64>> {
    let told = Arc::clone(told);
    let loader = move |previous: Option<Previous<u64>>| async move {
        told.lock().push(previous.map(|previous| (previous.value, previous.validator)));
        Ok::<_, io::Error>(answer)
    };
    region.get_or_reload("k", ReadOptions::new(), loader).await
}

async fn a_loader_chooses_how_long_its_value_lives(rig: Rig) {
    for policy in [RegionPolicy::new("r", LONG), RegionPolicy::new("r", LONG).framed(Framing::new())] {
        let region: Region<u64> = rig.cache().await.region(policy).unwrap();
        let told = Told::default();
        let short = Loaded::new(1).ttl(Duration::from_millis(400));
        assert_eq!(reload(&region, &told, short).await.unwrap().value, 1);
        let left = rig.raw(&["PTTL", "r:k"]).await.into_int().unwrap();
        assert!((1..=400).contains(&left), "{left}");
        let read = reload(&region, &told, Loaded::new(2)).await.unwrap();
        assert_eq!((read.value, read.source), (1, Source::Backend));
        eventually("it has ended", async || region.get("k").await.unwrap().is_none()).await;
        let read = reload(&region, &told, Loaded::new(2)).await.unwrap();
        assert_eq!((read.value, read.source), (2, Source::Loader));
        assert_eq!(*told.lock(), [None, None], "nothing was known");
        region.invalidate("k").await.unwrap();
    }
}

async fn a_life_longer_than_the_regions_is_cut(rig: Rig) {
    let region: Region<u64> = rig.cache().await.region(RegionPolicy::new("r", LONG)).unwrap();
    let long = Loaded::new(1).ttl(LONG * 2);
    reload(&region, &Told::default(), long).await.unwrap();
    let left = rig.raw(&["PTTL", "r:k"]).await.into_int().unwrap();
    assert!(left > 0 && u128::try_from(left).unwrap() <= LONG.as_millis(), "{left}");
}

async fn what_is_not_to_be_kept_is_for_its_callers_alone(rig: Rig) {
    let region: Region<u64> = region_with(&rig, policy()).await;
    for unkept in [Loaded::new(1).not_kept(), Loaded::new(1).ttl(Duration::ZERO)] {
        let read = reload(&region, &Told::default(), unkept).await.unwrap();
        assert_eq!((read.value, read.source), (1, Source::Loader));
        assert!(rig.raw_get("r:k").await.is_none());
    }
    let failed = region.get_or_load("k", || async { Err::<u64, _>(io::Error::other("no")) }).await;
    assert_eq!(failed.unwrap_err().kind(), ErrorKind::Loader, "nor is it known");
    assert_eq!(region.stats().fills_too_late, 0);
}

async fn not_modified_gives_a_frame_a_new_life_with_its_validator(rig: Rig) {
    let framed = policy().framed(Framing::new());
    let (one, other): (Region<u64>, Region<u64>) =
        (region_with(&rig, framed.clone()).await, region_with(&rig, framed).await);
    let told = Told::default();
    reload(&one, &told, Loaded::new(1).validator("v1")).await.unwrap();
    for _ in 0..2 {
        eventually("it is past its TTL", async || one.get("k").await.unwrap().is_none()).await;
        // By a process that has never read it.
        let read = reload(&other, &told, Loaded::not_modified()).await.unwrap();
        assert_eq!((read.value, read.source, read.staleness), (1, Source::Loader, Staleness::Fresh));
        let read = one.get("k").await.unwrap().expect("it is fresh again");
        assert_eq!(read.value, 1);
        assert!(matches!(read.age, Age::Exact(age) if age < TTL), "{:?}", read.age);
    }
    eventually("it is past its TTL", async || one.get("k").await.unwrap().is_none()).await;
    reload(&one, &told, Loaded::not_modified().validator("v2")).await.unwrap();
    eventually("it is past its TTL", async || one.get("k").await.unwrap().is_none()).await;
    reload(&one, &told, Loaded::new(3)).await.unwrap();
    let with = |validator: &str| Some((1, Some(validator.as_bytes().to_vec())));
    assert_eq!(*told.lock(), [None, with("v1"), with("v1"), with("v1"), with("v2")]);
}

async fn not_modified_gives_a_known_plain_value_a_new_life(rig: Rig) {
    let region: Region<u64> = region_with(&rig, policy()).await;
    known_and_expired(&region, 1).await;
    let told = Told::default();
    let read = reload(&region, &told, Loaded::not_modified()).await.unwrap();
    assert_eq!((read.value, read.source, read.staleness), (1, Source::Loader, Staleness::Fresh));
    assert_eq!(rig.raw_get("r:k").await.as_deref(), Some("1"));
    assert_eq!(*told.lock(), [Some((1, None))]);
    // Where nothing is known, nothing can be as it was.
    region.invalidate("k").await.unwrap();
    let refused = reload(&region, &told, Loaded::not_modified()).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Loader);
    assert!(refused.to_string().contains("not modified"), "{refused}");
}

async fn a_value_that_is_loaded_ahead_of_its_end_is_told_to_its_loader(rig: Rig) {
    let eager = RegionPolicy::new("r", LONG).eager_refresh(0.01);
    for policy in [eager.clone(), eager.framed(Framing::new())] {
        let region: Region<u64> = rig.cache().await.region(policy).unwrap();
        let life = LONG / 5 * 2;
        region.set_for("k", &1, life).await.unwrap();
        tokio::time::sleep(life.mul_f64(0.011)).await;
        let told = Told::default();
        let read = reload(&region, &told, Loaded::not_modified()).await.unwrap();
        assert_eq!((read.value, read.source), (1, Source::Backend));
        eventually("its life is longer", async || {
            let left = rig.raw(&["PTTL", "r:k"]).await.into_int().unwrap();
            u128::try_from(left).unwrap() > (LONG / 2).as_millis()
        })
        .await;
        assert_eq!(*told.lock(), [Some((1, None))]);
        region.invalidate("k").await.unwrap();
    }
}

async fn a_refresh_that_stores_nothing_is_not_tried_by_every_read(rig: Rig) {
    let region: Region<u64> = region_with(&rig, policy().stale_while_revalidate(true)).await;
    known_and_expired(&region, 1).await;
    let (told, began) = (Told::default(), std::time::Instant::now());
    for _ in 0..20 {
        reload(&region, &told, Loaded::new(2).not_kept()).await.ok();
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let most = 2 + began.elapsed().as_secs();
    assert!(region.stats().refreshes <= most, "{} in {:?}", region.stats().refreshes, began.elapsed());
}

async fn what_was_invalidated_is_told_to_nobody(rig: Rig) {
    let long = RegionPolicy::new("r", LONG).stale_window(WINDOW);
    for policy in [long.clone(), long.framed(Framing::new())] {
        let framed = policy.framing.is_some();
        let region: Region<u64> = rig.cache().await.region(policy).unwrap();
        near_is_on(region.cache()).await;
        let told = Told::default();
        reload(&region, &told, Loaded::new(1)).await.unwrap();
        eventually("it is known", async || region.cache().near_size().0 > 0).await;
        rig.cache().await.delete(&["r:k"]).await.unwrap();
        reload(&region, &told, Loaded::new(2)).await.unwrap();
        assert_eq!(*told.lock(), [None, None]);
        if framed {
            let tagged = region.tagged(["t"]).unwrap();
            tagged.set("k", &3).await.unwrap();
            rig.cache().await.invalidate_tag("t").await.unwrap();
            reload(&tagged, &told, Loaded::new(4)).await.unwrap();
            assert_eq!(*told.lock(), [None, None, None], "it is there, and has fallen with its tag");
        }
        region.invalidate("k").await.unwrap();
    }
}

async fn a_validator_needs_a_frame_and_has_a_bound(rig: Rig) {
    let plain: Region<u64> = rig.cache().await.region(RegionPolicy::new("r", LONG)).unwrap();
    let refused = reload(&plain, &Told::default(), Loaded::new(1).validator("v")).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Unencodable);
    let framed = RegionPolicy::new("r", LONG).framed(Framing::new());
    let framed: Region<u64> = rig.cache().await.region(framed).unwrap();
    let long = Loaded::new(1).validator(vec![b'v'; 1025]);
    assert_eq!(reload(&framed, &Told::default(), long).await.unwrap_err().kind(), ErrorKind::Unencodable);
    let longest = Loaded::new(1).validator(vec![b'v'; 1024]);
    assert_eq!(reload(&framed, &Told::default(), longest).await.unwrap().value, 1);
}
