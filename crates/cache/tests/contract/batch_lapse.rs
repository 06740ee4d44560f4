//! What was there when a batch began, and went past its life, or past what the call allows, while the rest was loaded.

use std::time::Duration;

use futures_util::future::join_all;
use mtcache_cache::{Cache, ErrorKind, Framing, ReadOptions, Region, RegionPolicy, RegionStats, Staleness};
use mtcache_conformance::Program;
use mtcache_conformance::servers::{ServerOptions, TestServer};
use tokio::task::JoinHandle;

use crate::batch_leases::Slow;
use crate::clearing::calls;
use crate::near::{near_is_on, warm};
use crate::rig::{Rig, eventually, on_every_backend};
use crate::stale::{WINDOW, region_with};

/// Long enough for a batch to find what was just set, short enough to be waited for.
const TTL: Duration = Duration::from_secs(1);
const LONG: Duration = Duration::from_secs(30);

on_every_backend! {
    what_expires_while_the_rest_is_loaded_is_loaded_too,
    what_becomes_too_old_while_the_rest_is_loaded_is_loaded_too,
    an_absence_that_expires_while_the_rest_is_loaded_is_asked_for_again,
    what_is_near_and_expires_while_the_rest_is_loaded_is_loaded_too,
    what_is_loaded_anew_is_a_miss_and_no_hit,
    what_lapses_after_that_is_loaded_by_one_last_call,
    what_took_longer_to_load_than_it_lives_waits_no_longer_than_that,
    who_takes_nothing_that_was_there_has_all_loaded_once,
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
    let each = async |policy: RegionPolicy| {
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
    };
    join_all(both(&RegionPolicy::new("r", LONG)).map(each)).await;
}

async fn what_becomes_too_old_while_the_rest_is_loaded_is_loaded_too(rig: Rig) {
    let young = ReadOptions::new().max_age(TTL);
    let each = async |policy: RegionPolicy| {
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
    };
    join_all(both(&RegionPolicy::new("r", LONG)).map(each)).await;
}

async fn an_absence_that_expires_while_the_rest_is_loaded_is_asked_for_again(rig: Rig) {
    let each = async |policy: RegionPolicy| {
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
    };
    join_all(both(&RegionPolicy::new("r", LONG).none_ttl(Some(TTL))).map(each)).await;
}

async fn what_is_near_and_expires_while_the_rest_is_loaded_is_loaded_too(rig: Rig) {
    let each = async |policy: RegionPolicy| {
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
    };
    join_all(both(&RegionPolicy::new("r", LONG).near(true)).map(each)).await;
}

async fn what_is_loaded_anew_is_a_miss_and_no_hit(rig: Rig) {
    let each = async |policy: RegionPolicy| {
        let (is_near, none) = (policy.near, if policy.framing.is_some() { "f:4" } else { "p:4" });
        let region: Region<u64> = rig.cache().await.region(policy.clone()).unwrap();
        // Another process, whose reads do not count here.
        let watch: Region<u64> = rig.cache().await.region(policy.clone().near(false)).unwrap();
        let source = Slow::new(0);
        watch.set("2", &2).await.unwrap();
        watch.set_for("1", &1, 2 * TTL).await.unwrap();
        if is_near {
            near_is_on(region.cache()).await;
            warm(&region, "1").await;
        }
        let has_none = |_: Vec<&'static str>| async { Ok::<_, std::io::Error>(Vec::<(&str, u64)>::new()) };
        assert_eq!(watch.get_or_load_many(["4"], has_none).await.unwrap(), [None]);
        let before = region.stats();
        let late = tokio::spawn({
            let (region, source) = (region.clone(), source.clone());
            let loader = move |ids| source.clone().answer(ids);
            async move { region.get_or_load_many_shared(["1", "2", "3", "4"], loader).await.unwrap() }
        });
        source.is_asked(1).await;
        is_gone(&watch, "1", ReadOptions::new()).await;
        eventually("the absence is over", async || !rig.raw_keys().await.iter().any(|key| key == none)).await;
        source.open.add_permits(9);
        let values: Vec<_> = late.await.unwrap().into_iter().map(|read| *read.unwrap().value).collect();
        assert_eq!(values, [10, 2, 30, 40]);
        let after = region.stats();
        let counted = |of: fn(&RegionStats) -> u64| of(&after) - of(&before);
        assert_eq!((counted(|s| s.hits), counted(|s| s.misses)), (1, 3), "near: {is_near}");
        assert_eq!((counted(|s| s.near_hits), counted(|s| s.none_hits)), (0, 0));
    };
    let policy = RegionPolicy::new("r", LONG).none_ttl(Some(2 * TTL));
    join_all(both(&policy).map(&each)).await;
    rig.raw(&["FLUSHALL"]).await;
    join_all(both(&policy.near(true)).map(&each)).await;
}

/// The second call takes what would lapse if it took as long as the first; it takes longer.
async fn what_lapses_after_that_is_loaded_by_one_last_call(rig: Rig) {
    let each = async |policy: RegionPolicy| {
        let region: Region<u64> = rig.cache().await.region(policy).unwrap();
        let source = Slow::new(0);
        for (id, ttl) in [("1", TTL), ("2", 3 * TTL), ("4", LONG)] {
            region.set_for(id, &1, ttl).await.unwrap();
        }
        // Older than the batch, by as much as a backend tells apart.
        tokio::time::sleep(Duration::from_millis(20)).await;
        let late = batch(&region, &["1", "2", "3", "4"], ReadOptions::new(), &source);
        source.is_asked(1).await;
        is_gone(&region, "1", ReadOptions::new()).await;
        source.open.add_permits(1);
        source.is_asked(2).await;
        is_gone(&region, "2", ReadOptions::new()).await;
        source.open.add_permits(9);
        let (answers, calls) = (late.await.unwrap(), source.calls());
        let fresh = |value| Ok(Some((value, FRESH)));
        if calls[1] == ["1"] {
            assert_eq!(answers, [10, 20, 30, 40].map(fresh));
            assert_eq!(calls, [vec!["3"], vec!["1"], vec!["2", "4"]]);
        } else {
            // On a slow machine the first call has taken so long.
            assert_eq!(answers, [10, 20, 30, 1].map(fresh));
            assert_eq!(calls, [vec!["3"], vec!["1", "2"]]);
        }
    };
    join_all(both(&RegionPolicy::new("r", LONG)).map(each)).await;
}

/// Each id is a call of its own. The first has taken longer than its value lives, and then waits for the second for as long again.
async fn what_took_longer_to_load_than_it_lives_waits_no_longer_than_that(rig: Rig) {
    let each = async |policy: RegionPolicy| {
        let region: Region<u64> = rig.cache().await.region(policy).unwrap();
        let source = Slow::new(0);
        let late = batch(&region, &["1", "2"], ReadOptions::new(), &source);
        source.is_asked(2).await;
        tokio::time::sleep(TTL / 2).await;
        source.open.add_permits(1);
        eventually("the first is there", async || region.stats().fills_too_late == 1).await;
        tokio::time::sleep(TTL / 2).await;
        source.open.add_permits(9);
        assert_eq!(late.await.unwrap(), [Ok(Some((10, FRESH))), Ok(Some((20, FRESH)))]);
        let calls = source.calls();
        assert_eq!((calls.len(), &calls[2]), (3, &calls[0]), "{calls:?}");
    };
    join_all(both(&RegionPolicy::new("r", TTL / 2).max_batch(1)).map(each)).await;
}

/// Whatever a load brings is older than that.
async fn who_takes_nothing_that_was_there_has_all_loaded_once(rig: Rig) {
    let each = async |policy: RegionPolicy| {
        let region: Region<u64> = rig.cache().await.region(policy).unwrap();
        let source = Slow::new(0);
        region.set("1", &1).await.unwrap();
        // Older than nothing, by as much as a backend tells apart.
        tokio::time::sleep(Duration::from_millis(20)).await;
        let late = batch(&region, &["1", "2"], ReadOptions::new().max_age(Duration::ZERO), &source);
        source.is_asked(1).await;
        tokio::time::sleep(Duration::from_millis(100)).await;
        source.open.add_permits(9);
        assert_eq!(late.await.unwrap(), [Ok(Some((10, FRESH))), Ok(Some((20, FRESH)))]);
        assert_eq!(source.calls(), [["1", "2"]]);
    };
    join_all(both(&RegionPolicy::new("r", LONG)).map(each)).await;
}

/// The second look finds what another process has stored after the first, and has it land long before the rest.
async fn what_others_had_stored_and_expires_while_the_rest_is_loaded_is_loaded_too(rig: Rig) {
    let [short, long] = [TTL, LONG].map(|ttl| both(&RegionPolicy::new("r", ttl).lease(LONG)));
    let each = async |(short, long): (RegionPolicy, RegionPolicy)| {
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
    };
    join_all(short.into_iter().zip(long).map(each)).await;
}

async fn what_has_expired_is_served_stale_if_it_cannot_be_loaded(rig: Rig) {
    let each = async |policy: RegionPolicy| {
        let region: Region<u64> = region_with(&rig, policy).await;
        for (options, expected) in [
            (ReadOptions::new(), Ok(Some((1, STALE)))),
            (ReadOptions::new().fresh_only(), Err(ErrorKind::Loader)),
        ] {
            let source = Slow::new(0);
            region.set_for("1", &1, 2 * TTL).await.unwrap();
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
    };
    join_all(both(&RegionPolicy::new("r", LONG).stale_window(WINDOW)).map(each)).await;
}

async fn what_has_expired_is_served_stale_at_once_where_the_region_says_so(rig: Rig) {
    let policy = RegionPolicy::new("r", LONG).stale_window(WINDOW).stale_while_revalidate(true);
    let each = async |policy: RegionPolicy| {
        let region: Region<u64> = region_with(&rig, policy).await;
        let source = Slow::new(0);
        region.set_for("1", &1, 2 * TTL).await.unwrap();
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
    };
    join_all(both(&policy).map(each)).await;
}

async fn what_has_expired_by_the_deadline_is_not_had_as_fresh(rig: Rig) {
    let until = ReadOptions::new().deadline(3 * TTL);
    let never = RegionPolicy::new("r", LONG);
    let each = async |policy: RegionPolicy| {
        let remembers = !policy.stale_window.is_zero();
        let region: Region<u64> = rig.cache().await.region(policy).unwrap();
        if remembers {
            near_is_on(region.cache()).await;
        }
        region.set_for("1", &1, 2 * TTL).await.unwrap();
        if remembers {
            is_known(&region).await;
        }
        let late = batch(&region, &["1", "3"], until, &Slow::new(0));
        let expected = if remembers { Ok(Some((1, STALE))) } else { Err(ErrorKind::Deadline) };
        assert_eq!(late.await.unwrap(), [expected, Err(ErrorKind::Deadline)]);
    };
    join_all(both(&never).map(&each)).await;
    join_all(both(&never.stale_window(WINDOW)).map(&each)).await;
}

/// Nothing is loaded meanwhile: what is near waits for the server's answer about the rest.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_near_and_expires_while_the_server_is_slow_is_loaded() {
    for program in Program::ALL {
        let server = TestServer::start(program, ServerOptions::new()).unwrap();
        let patient = Cache::builder(server.url()).response_timeout(LONG).open().await.unwrap();
        let region: Region<u64> = patient.region(RegionPolicy::new("r", LONG).near(true)).unwrap();
        near_is_on(region.cache()).await;
        region.set("2", &2).await.unwrap();
        region.set_for("1", &1, TTL).await.unwrap();
        warm(&region, "1").await;
        server.pause().unwrap();
        let (late, source) = (region.clone(), Slow::new(9));
        let loader = {
            let source = source.clone();
            move |ids| source.clone().answer(ids)
        };
        let late =
            tokio::spawn(async move { late.get_or_load_many_shared(["1", "2"], loader).await.unwrap() });
        tokio::time::sleep(TTL + Duration::from_millis(100)).await;
        server.resume().unwrap();
        let values: Vec<_> = late.await.unwrap().into_iter().map(|read| *read.unwrap().value).collect();
        assert_eq!(values, [10, 2], "{program:?}");
        assert_eq!(source.calls(), [["1"]]);
    }
}

/// GETs and PTTLs since this was last asked, those in scripts too.
fn asked(server: &TestServer, before: &mut [u32; 2]) -> [u32; 2] {
    let now = ["get", "pttl"].map(|command| calls(server, command));
    let since = [now[0] - before[0], now[1] - before[1]];
    *before = now;
    since
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_batch_of_hits_is_one_command_for_each_unless_lives_matter() {
    const IDS: u32 = 200;
    for program in Program::ALL {
        let server = TestServer::start(program, ServerOptions::new()).unwrap();
        let cache = Cache::connect(&server.url()).await.unwrap();
        let mut before = [0, 0];
        let read = async |region: &Region<u64>, ids: u32, options: ReadOptions| {
            let loader = |ids: Vec<String>| async move {
                Ok::<_, std::io::Error>(ids.into_iter().map(|id| (id, 7)).collect::<Vec<_>>())
            };
            let ids = (0..ids).map(|id| id.to_string());
            let each = region.get_or_load_each(ids, options, loader).await.unwrap();
            assert!(each.into_iter().all(|read| read.unwrap().unwrap().value == 7));
        };
        let region: Region<u64> = cache.region(RegionPolicy::new("r", LONG)).unwrap();
        read(&region, IDS, ReadOptions::new()).await;
        asked(&server, &mut before);
        read(&region, IDS, ReadOptions::new()).await;
        assert_eq!(asked(&server, &mut before), [IDS, 0], "{program:?}");
        read(&region, IDS, ReadOptions::new().with_age()).await;
        assert_eq!(asked(&server, &mut before), [IDS, IDS], "{program:?}");
        let eager: Region<u64> =
            cache.region(RegionPolicy::new("eager", LONG).key_base("r").eager_refresh(0.9)).unwrap();
        read(&eager, IDS, ReadOptions::new()).await;
        assert_eq!(asked(&server, &mut before), [IDS, IDS], "{program:?}");
        // One is loaded: the others are looked at once more. Its own load has some of its own.
        read(&region, IDS + 1, ReadOptions::new()).await;
        let [gets, ttls] = asked(&server, &mut before);
        assert!((2 * IDS + 1..2 * IDS + 10).contains(&gets), "{program:?}: {gets}");
        assert!((IDS..IDS + 10).contains(&ttls), "{program:?}: {ttls}");
        let stats = region.stats();
        assert_eq!((stats.hits, stats.misses), (3 * u64::from(IDS), u64::from(IDS) + 1));
    }
}
