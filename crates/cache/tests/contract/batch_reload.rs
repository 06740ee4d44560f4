//! Batches whose loaders are told what was known before, and say how long what they bring lives.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use mtcache_cache::{
    ErrorKind, Event, Framing, Loaded, Previous, ReadOptions, Region, RegionPolicy, Source, Staleness,
};
use parking_lot::Mutex;

use crate::events::next;
use crate::near::near_is_on;
use crate::rig::{Rig, eventually, on_every_backend};
use crate::stale::{WINDOW, policy, region_with};

const LONG: Duration = Duration::from_secs(30);

on_every_backend! {
    each_id_of_a_batch_is_told_what_was_known_of_it,
    what_is_due_in_a_batch_is_told_to_its_loader,
    each_value_of_a_batch_lives_as_its_loader_says,
    what_was_invalidated_is_told_to_no_batch,
}

type Told = Arc<Mutex<Vec<Vec<(&'static str, Option<(u64, Option<Vec<u8>>)>)>>>>;

/// Reads with a loader that answers so, and notes what it is told.
async fn reload(
    region: &Region<u64>,
    ids: &[&'static str],
    told: &Told,
    answer: fn(&str) -> Option<Loaded<u64>>,
) -> Vec<Result<Option<(u64, Source, Staleness)>, ErrorKind>> {
    let told = Arc::clone(told);
    let loader = move |asked: Vec<(&'static str, Option<Previous<u64>>)>| {
        let known =
            |(id, previous): (_, Option<Previous<u64>>)| (id, previous.map(|p| (p.value, p.validator)));
        let mut asked: Vec<_> = asked.into_iter().map(known).collect();
        let loaded: Vec<_> = asked.iter().filter_map(|(id, _)| Some((*id, answer(id)?))).collect();
        // In any order.
        asked.sort();
        told.lock().push(asked);
        std::future::ready(Ok::<_, io::Error>(loaded))
    };
    let each = region.get_or_reload_each(ids.iter().copied(), ReadOptions::new(), loader).await.unwrap();
    let outcome = |read: mtcache_cache::Read<u64>| (read.value, read.source, read.staleness);
    each.into_iter().map(|o| o.map(|read| read.map(outcome)).map_err(|error| error.kind())).collect()
}

fn loaded(value: u64) -> (u64, Source, Staleness) {
    (value, Source::Loader, Staleness::Fresh)
}

async fn each_id_of_a_batch_is_told_what_was_known_of_it(rig: Rig) {
    for policy in [policy().key_base("p"), policy().key_base("f").framed(Framing::new())] {
        let is_framed = policy.framing.is_some();
        let region: Region<u64> = region_with(&rig, policy).await;
        let told = Told::default();
        let first: fn(&str) -> _ = if is_framed {
            |id| Some(Loaded::new(if id == "1" { 1 } else { 2 }).validator(id))
        } else {
            |id| Some(Loaded::new(if id == "1" { 1 } else { 2 }))
        };
        assert_eq!(
            reload(&region, &["1", "2"], &told, first).await,
            [Ok(Some(loaded(1))), Ok(Some(loaded(2)))]
        );
        eventually("both are read back", async || region.cache().near_size().0 >= 2).await;
        eventually("they have expired", async || {
            region.get("1").await.unwrap().is_none() && region.get("2").await.unwrap().is_none()
        })
        .await;
        let then = |id: &str| match id {
            "1" | "new" => Some(Loaded::not_modified()),
            "2" => Some(Loaded::new(20)),
            _ => None,
        };
        let mut events = region.cache().events();
        let reads = reload(&region, &["1", "2", "new", "none"], &told, then).await;
        for _ in 0..4 {
            let loaded = |event: &Event<'_>| match event {
                Event::Load { key, succeeded, .. } => Some((key.ends_with(":new"), *succeeded)),
                _ => None,
            };
            let (is_new, succeeded) = next(&mut events, "a load", loaded).await;
            assert_ne!(is_new, succeeded);
        }
        assert_eq!(reads, [Ok(Some(loaded(1))), Ok(Some(loaded(20))), Err(ErrorKind::Loader), Ok(None)]);
        let known = |id: &'static str, value| (id, Some((value, is_framed.then(|| id.as_bytes().to_vec()))));
        let all = [known("1", 1), known("2", 2), ("new", None), ("none", None)];
        assert_eq!(*told.lock(), [vec![("1", None), ("2", None)], all.to_vec()]);
        assert_eq!(region.get("1").await.unwrap().map(|read| read.value), Some(1), "it has a new life");
        assert!(region.get("new").await.unwrap().is_none());
        assert_eq!((region.stats().loads, region.stats().load_failures), (2, 1), "as with a load of one");
        region.cache().flush_database().await.unwrap();
    }
}

async fn what_is_due_in_a_batch_is_told_to_its_loader(rig: Rig) {
    let eager = RegionPolicy::new("r", LONG).eager_refresh(0.01);
    for policy in [eager.clone(), eager.framed(Framing::new())] {
        let region: Region<u64> = rig.cache().await.region(policy).unwrap();
        let life = LONG / 5 * 2;
        for (id, value) in [("1", 1), ("2", 2)] {
            region.set_for(id, &value, life).await.unwrap();
        }
        tokio::time::sleep(life.mul_f64(0.011)).await;
        let told = Told::default();
        let reads = reload(&region, &["1", "2"], &told, |_| Some(Loaded::not_modified())).await;
        assert!(reads.into_iter().all(|read| matches!(read, Ok(Some((_, Source::Backend, _))))));
        eventually("their lives are longer", async || {
            let left = async |key| rig.raw(&["PTTL", key]).await.into_int().unwrap();
            let shorter = left("r:1").await.min(left("r:2").await);
            u128::try_from(shorter).unwrap() > (LONG / 2).as_millis()
        })
        .await;
        assert_eq!(*told.lock(), [vec![("1", Some((1, None))), ("2", Some((2, None)))]]);
        region.invalidate("1").await.unwrap();
        region.invalidate("2").await.unwrap();
    }
}

async fn each_value_of_a_batch_lives_as_its_loader_says(rig: Rig) {
    let region: Region<u64> = rig.cache().await.region(RegionPolicy::new("r", LONG)).unwrap();
    let answer = |id: &str| {
        Some(match id {
            "short" => Loaded::new(1).ttl(LONG / 3),
            "unkept" => Loaded::new(2).not_kept(),
            "long" => Loaded::new(3).ttl(LONG * 2),
            _ => Loaded::new(4),
        })
    };
    let ids = ["short", "unkept", "long", "other"];
    let reads = reload(&region, &ids, &Told::default(), answer).await;
    assert_eq!(reads, [Ok(Some(loaded(1))), Ok(Some(loaded(2))), Ok(Some(loaded(3))), Ok(Some(loaded(4)))]);
    let third = i64::try_from((LONG / 3).as_millis()).unwrap();
    let mut left = Vec::new();
    for id in ids {
        left.push(rig.raw(&["PTTL", &format!("r:{id}")]).await.into_int().unwrap());
    }
    assert!((1..=third).contains(&left[0]) && left[1] == -2, "{left:?}");
    assert!(left[2..].iter().all(|left| (2 * third..=3 * third).contains(left)), "{left:?}");
}

async fn what_was_invalidated_is_told_to_no_batch(rig: Rig) {
    let long = RegionPolicy::new("r", LONG).stale_window(WINDOW);
    for policy in [long.clone(), long.framed(Framing::new())] {
        let region: Region<u64> = rig.cache().await.region(policy).unwrap();
        near_is_on(region.cache()).await;
        let told = Told::default();
        reload(&region, &["1", "2"], &told, |_| Some(Loaded::new(1))).await;
        eventually("both are known", async || region.cache().near_size().0 >= 2).await;
        rig.cache().await.delete(&["r:1", "r:2"]).await.unwrap();
        let reads = reload(&region, &["1", "2"], &told, |_| Some(Loaded::new(2))).await;
        assert_eq!(reads, [Ok(Some(loaded(2))), Ok(Some(loaded(2)))]);
        assert!(told.lock().iter().flatten().all(|(_, known)| known.is_none()), "{told:?}");
        region.invalidate("1").await.unwrap();
        region.invalidate("2").await.unwrap();
    }
}
