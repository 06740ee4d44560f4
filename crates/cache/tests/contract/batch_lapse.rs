//! What was there when a batch began, and went past its life, or past what the call allows, while the rest was loaded.

use std::time::Duration;

use mtcache_cache::{ErrorKind, Framing, ReadOptions, Region, RegionPolicy, Staleness};
use tokio::task::JoinHandle;

use crate::batch_leases::Slow;
use crate::near::{near_is_on, warm};
use crate::rig::{Rig, eventually, on_every_backend};
use crate::stale::{WINDOW, region_with};

/// Long enough for a batch to find what was just set, short enough to be waited for.
const TTL: Duration = Duration::from_secs(2);
const LONG: Duration = Duration::from_secs(30);

on_every_backend! {
    what_expires_while_the_rest_is_loaded_is_loaded_too,
    what_becomes_too_old_while_the_rest_is_loaded_is_loaded_too,
    an_absence_that_expires_while_the_rest_is_loaded_is_asked_for_again,
    what_is_near_and_expires_while_the_rest_is_loaded_is_loaded_too,
    what_others_had_stored_and_expires_while_the_rest_is_loaded_is_loaded_too,
    what_has_expired_is_served_stale_if_it_cannot_be_loaded,
    what_has_expired_is_served_stale_at_once_where_the_region_says_so,
    what_has_expired_by_the_deadline_is_not_had_as_fresh,
}

/// Values, and whether they are stale.
type Answers = Vec<Result<Option<(u64, Staleness)>, ErrorKind>>;

const FRESH: Staleness = Staleness::Fresh;
const STALE: Staleness = Staleness::Stale;

fn batch(
    region: &Region<u64>,
    ids: &[&'static str],
    options: ReadOptions,
    source: &Slow,
) -> JoinHandle<Answers> {
    let (region, source, ids) = (region.clone(), source.clone(), ids.to_vec());
    tokio::spawn(async move {
        let loader = move |ids| source.clone().answer(ids);
        let each = region.get_or_load_each(ids, options, loader).await.unwrap();
        let outcome = |read: mtcache_cache::Read<u64>| (read.value, read.staleness);
        each.into_iter().map(|o| o.map(|read| read.map(outcome)).map_err(|error| error.kind())).collect()
    })
}

/// Of a plain region and a framed one, with keys of their own.
fn both(policy: &RegionPolicy) -> [RegionPolicy; 2] {
    [policy.clone().key_base("p"), policy.clone().key_base("f").framed(Framing::new())]
}

async fn is_gone(region: &Region<u64>, id: &str, options: ReadOptions) {
    eventually("it is past its life", async || region.get_with(id, options).await.unwrap().is_none()).await;
}

/// In this process, where the message about its set may be still to come.
async fn is_known(region: &Region<u64>) {
    let is_near = || region.cache().near_size().0 > 0;
    eventually("it is known", async || {
        region.get("1").await.unwrap();
        let was_near = is_near();
        tokio::time::sleep(Duration::from_millis(20)).await;
        was_near && is_near()
    })
    .await;
}

async fn what_expires_while_the_rest_is_loaded_is_loaded_too(rig: Rig) {
    for policy in both(&RegionPolicy::new("r", LONG)) {
        let region: Region<u64> = rig.cache().await.region(policy).unwrap();
        let source = Slow::new(0);
        region.set_for("1", &1, TTL).await.unwrap();
        region.set("2", &2).await.unwrap();
        let late = batch(&region, &["1", "2", "3"], ReadOptions::new(), &source);
        source.is_asked(1).await;
        is_gone(&region, "1", ReadOptions::new()).await;
        source.open.add_permits(9);
        assert_eq!(late.await.unwrap(), [Ok(Some((10, FRESH))), Ok(Some((2, FRESH))), Ok(Some((30, FRESH)))]);
        assert_eq!(source.calls(), [["3"], ["1"]]);
    }
}

async fn what_becomes_too_old_while_the_rest_is_loaded_is_loaded_too(rig: Rig) {
    let young = ReadOptions::new().max_age(TTL);
    for policy in both(&RegionPolicy::new("r", LONG)) {
        let region: Region<u64> = rig.cache().await.region(policy).unwrap();
        let source = Slow::new(0);
        region.set("1", &1).await.unwrap();
        let late = batch(&region, &["1", "3"], young, &source);
        source.is_asked(1).await;
        is_gone(&region, "1", ReadOptions::new().max_age(TTL + Duration::from_millis(200))).await;
        source.open.add_permits(9);
        // The third is as young as its source could have it.
        assert_eq!(late.await.unwrap(), [Ok(Some((10, FRESH))), Ok(Some((30, FRESH)))]);
        assert_eq!(source.calls(), [["3"], ["1"]]);
    }
}

async fn an_absence_that_expires_while_the_rest_is_loaded_is_asked_for_again(rig: Rig) {
    for policy in both(&RegionPolicy::new("r", LONG).none_ttl(Some(TTL))) {
        let key = if policy.framing.is_some() { "f:1" } else { "p:1" };
        let region: Region<u64> = rig.cache().await.region(policy).unwrap();
        let none = |_: Vec<&'static str>| async { Ok::<_, std::io::Error>(Vec::<(&str, u64)>::new()) };
        assert_eq!(region.get_or_load_many(["1"], none).await.unwrap(), [None]);
        let source = Slow::new(0);
        let late = batch(&region, &["1", "3"], ReadOptions::new(), &source);
        source.is_asked(1).await;
        eventually("it is past its life", async || !rig.raw_keys().await.iter().any(|there| there == key))
            .await;
        source.open.add_permits(9);
        assert_eq!(late.await.unwrap(), [Ok(Some((10, FRESH))), Ok(Some((30, FRESH)))]);
        assert_eq!(source.calls(), [["3"], ["1"]]);
    }
}

async fn what_is_near_and_expires_while_the_rest_is_loaded_is_loaded_too(rig: Rig) {
    for policy in both(&RegionPolicy::new("r", LONG).near(true)) {
        let region: Region<u64> = region_with(&rig, policy).await;
        let source = Slow::new(0);
        region.set_for("1", &1, 2 * TTL).await.unwrap();
        warm(&region, "1").await;
        let late = tokio::spawn({
            let (region, source) = (region.clone(), source.clone());
            let loader = move |ids| source.clone().answer(ids);
            async move { region.get_or_load_many_shared(["1", "3"], loader).await.unwrap() }
        });
        source.is_asked(1).await;
        is_gone(&region, "1", ReadOptions::new()).await;
        source.open.add_permits(9);
        let values: Vec<_> = late.await.unwrap().into_iter().map(|read| *read.unwrap().value).collect();
        assert_eq!(values, [10, 30]);
        assert_eq!(source.calls(), [["3"], ["1"]]);
    }
}

/// The second look finds what another process has stored after the first, and has it land long before the rest.
async fn what_others_had_stored_and_expires_while_the_rest_is_loaded_is_loaded_too(rig: Rig) {
    let [short, long] = [TTL, LONG].map(|ttl| both(&RegionPolicy::new("r", ttl).lease(LONG)));
    for (short, long) in short.into_iter().zip(long) {
        let other: Region<u64> = rig.cache().await.region(short).unwrap();
        let region: Region<u64> = rig.cache().await.region(long).unwrap();
        let (held, source) = (Slow::new(0), Slow::new(0));
        let first = batch(&other, &["1"], ReadOptions::new(), &held);
        held.is_asked(1).await;
        let late = batch(&region, &["1", "3"], ReadOptions::new(), &source);
        source.is_asked(1).await;
        held.open.add_permits(1);
        assert_eq!(first.await.unwrap(), [Ok(Some((10, FRESH)))]);
        is_gone(&region, "1", ReadOptions::new()).await;
        region.set("1", &7).await.unwrap();
        source.open.add_permits(9);
        let answers = late.await.unwrap();
        assert_eq!(answers[1], Ok(Some((30, FRESH))));
        assert_eq!(answers[0], Ok(Some((7, FRESH))), "what is there now");
        assert_eq!(source.calls(), [["3"]]);
    }
}

async fn what_has_expired_is_served_stale_if_it_cannot_be_loaded(rig: Rig) {
    for policy in both(&RegionPolicy::new("r", LONG).stale_window(WINDOW)) {
        let region: Region<u64> = region_with(&rig, policy).await;
        for (options, expected) in [
            (ReadOptions::new(), Ok(Some((1, STALE)))),
            (ReadOptions::new().fresh_only(), Err(ErrorKind::Loader)),
        ] {
            let source = Slow::new(0);
            region.set_for("1", &1, TTL).await.unwrap();
            is_known(&region).await;
            let late = batch(&region, &["1", "3"], options, &source);
            source.is_asked(1).await;
            is_gone(&region, "1", ReadOptions::new()).await;
            source.open.add_permits(1);
            source.is_asked(2).await;
            source.open.close();
            assert_eq!(late.await.unwrap(), [expected, Ok(Some((30, FRESH)))]);
            assert_eq!(source.calls(), [["3"], ["1"]]);
            region.invalidate_all().await.unwrap();
        }
    }
}

async fn what_has_expired_is_served_stale_at_once_where_the_region_says_so(rig: Rig) {
    let policy = RegionPolicy::new("r", LONG).stale_window(WINDOW).stale_while_revalidate(true);
    for policy in both(&policy) {
        let region: Region<u64> = region_with(&rig, policy).await;
        let source = Slow::new(0);
        region.set_for("1", &1, TTL).await.unwrap();
        is_known(&region).await;
        let late = batch(&region, &["1", "3"], ReadOptions::new(), &source);
        source.is_asked(1).await;
        is_gone(&region, "1", ReadOptions::new()).await;
        source.open.add_permits(1);
        assert_eq!(late.await.unwrap(), [Ok(Some((1, STALE))), Ok(Some((30, FRESH)))]);
        source.is_asked(2).await;
        source.open.add_permits(1);
        eventually("it is loaded in the background", async || {
            region.get("1").await.unwrap().is_some_and(|read| read.value == 10)
        })
        .await;
    }
}

async fn what_has_expired_by_the_deadline_is_not_had_as_fresh(rig: Rig) {
    let until = ReadOptions::new().deadline(2 * TTL);
    let never = RegionPolicy::new("r", LONG);
    let window = never.clone().stale_window(WINDOW);
    for (policy, expected) in [(never, Err(ErrorKind::Deadline)), (window, Ok(Some((1, STALE))))] {
        for policy in both(&policy) {
            let remembers = !policy.stale_window.is_zero();
            let region: Region<u64> = rig.cache().await.region(policy).unwrap();
            if remembers {
                near_is_on(region.cache()).await;
            }
            region.set_for("1", &1, TTL).await.unwrap();
            if remembers {
                is_known(&region).await;
            }
            let late = batch(&region, &["1", "3"], until, &Slow::new(0));
            assert_eq!(late.await.unwrap(), [expected, Err(ErrorKind::Deadline)]);
        }
    }
}
