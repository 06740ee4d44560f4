//! How old a value is: what its reader is told is never less than the truth, and a demand for fresh values does not make a stampede.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use mtcache_cache::{Age, Cache, Framing, ReadOptions, Region, RegionPolicy, Source};
use mtcache_conformance::Program;
use mtcache_conformance::servers::{ServerOptions, TestServer};

use crate::loads::Gate;
use crate::near::{near_is_on, warm};
use crate::proxy::{Mode, Proxy};
use crate::rig::{Rig, eventually, on_every_backend};

const TTL: Duration = Duration::from_secs(30);
/// How long the slow loaders here take.
const SLOW: Duration = Duration::from_millis(300);

on_every_backend! {
    a_stored_value_is_as_old_as_its_load,
    a_load_as_long_as_the_ttl_stores_nothing,
    strict_readers_share_two_loads_when_nothing_is_stored,
    strict_readers_one_after_another_make_two_loads_at_once_at_the_most,
    a_lax_leaders_find_does_not_serve_a_strict_follower,
    a_frame_that_was_stored_meanwhile_is_judged_by_its_own_time,
    what_a_batch_has_found_grows_older_while_it_waits_for_the_rest,
}

fn at_least(age: Age) -> Duration {
    match age {
        Age::AtMost(age) | Age::Exact(age) => age,
        Age::Unknown => panic!("the age was asked for"),
    }
}

async fn slow(value: u64) -> io::Result<u64> {
    tokio::time::sleep(SLOW).await;
    Ok(value)
}

async fn a_stored_value_is_as_old_as_its_load(rig: Rig) {
    let region: Region<u64> = rig.cache().await.region(RegionPolicy::new("r", TTL)).unwrap();
    let began = Instant::now();
    let loaded = region.get_or_load("k", || slow(1)).await.unwrap();
    assert!(at_least(loaded.age) >= SLOW);
    let read = region.get_with("k", ReadOptions::new().with_age()).await.unwrap().unwrap();
    let age = at_least(read.age);
    assert!(age >= SLOW, "{age:?}");
    assert!(
        age <= began.elapsed() + Duration::from_millis(10),
        "an upper bound, and not a loose one: {age:?}"
    );
    assert!(region.get_with("k", ReadOptions::new().max_age(SLOW / 2)).await.unwrap().is_none());
    // Another's second look sees the same.
    let demand = ReadOptions::new().max_age(SLOW / 2);
    let read = region.get_or_load_with("k", demand, || async { Ok::<_, io::Error>(2) }).await.unwrap();
    assert_eq!((read.value, read.source), (2, Source::Loader));
}

async fn a_load_as_long_as_the_ttl_stores_nothing(rig: Rig) {
    let policy = RegionPolicy::new("r", TTL).none_ttl(Some(SLOW / 3));
    let region: Region<Option<u64>> = rig.cache().await.region(policy).unwrap();
    let absent = || async {
        tokio::time::sleep(SLOW).await;
        Ok::<_, io::Error>(None)
    };
    let read = region.get_or_load("k", absent).await.unwrap();
    assert_eq!((read.value, read.source), (None, Source::Loader));
    assert_eq!(rig.raw_get("r:k").await, None);
    let stats = region.stats();
    assert_eq!((stats.fills_too_late, stats.fills_stored, stats.fills_refused), (1, 0, 0));
}

/// A region whose values are never stored: somebody else invalidates each key while it is loaded.
struct Restless {
    region: Region<u64>,
    other: Region<u64>,
    calls: Arc<AtomicU32>,
}

impl Restless {
    async fn on(rig: &Rig) -> Self {
        let policy = RegionPolicy::new("r", TTL);
        let region = rig.cache().await.region(policy.clone()).unwrap();
        Self { region, other: rig.cache().await.region(policy).unwrap(), calls: Arc::default() }
    }

    fn read(&self, max_age: Duration, until_missed: u64) -> tokio::task::JoinHandle<()> {
        let (region, other, calls) = (self.region.clone(), self.other.clone(), Arc::clone(&self.calls));
        tokio::spawn(async move {
            let watched = region.clone();
            let loader = move || async move {
                calls.fetch_add(1, Ordering::SeqCst);
                other.invalidate("k").await.unwrap();
                while watched.stats().misses < until_missed {
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
                // For those who have missed and not come to wait yet.
                tokio::time::sleep(Duration::from_millis(200)).await;
                Ok::<_, io::Error>(1)
            };
            let demand = ReadOptions::new().max_age(max_age);
            region.get_or_load_with("k", demand, loader).await.unwrap();
        })
    }
}

async fn strict_readers_share_two_loads_when_nothing_is_stored(rig: Rig) {
    let restless = Restless::on(&rig).await;
    let gate = Gate::default();
    let leader = tokio::spawn({
        let (region, loader) = (restless.region.clone(), gate.loader(0));
        async move { region.get_or_load("k", loader).await.unwrap() }
    });
    gate.running.notified().await;
    tokio::time::sleep(Duration::from_millis(20)).await;
    // All too late for the load under way, and too strict for one that takes longer than their demand.
    let readers: Vec<_> = (0..50).map(|_| restless.read(Duration::from_millis(10), 51)).collect();
    for reader in readers {
        reader.await.unwrap();
    }
    assert_eq!(restless.region.stats().fills_stored, 0, "else nothing was tested");
    assert_eq!(restless.calls.load(Ordering::SeqCst), 2);
    gate.open.notify_one();
    leader.await.unwrap();
}

async fn strict_readers_one_after_another_make_two_loads_at_once_at_the_most(rig: Rig) {
    let restless = Restless::on(&rig).await;
    let mut readers = Vec::new();
    for n in 1..=20 {
        readers.push(restless.read(Duration::ZERO, 20));
        eventually("it has missed", async || restless.region.stats().misses >= n).await;
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    assert!(restless.calls.load(Ordering::SeqCst) <= 2);
    for reader in readers {
        reader.await.unwrap();
    }
    assert_eq!(restless.calls.load(Ordering::SeqCst), 3, "the first, one beside it, one for all the others");
}

async fn a_lax_leaders_find_does_not_serve_a_strict_follower(rig: Rig) {
    let policy = RegionPolicy::new("r", TTL).max_loads(1, 10);
    let region: Region<u64> = rig.cache().await.region(policy).unwrap();
    let gate = Gate::default();
    let first = tokio::spawn({
        let (region, loader) = (region.clone(), gate.loader(0));
        async move { region.get_or_load("first", loader).await.unwrap() }
    });
    gate.running.notified().await;
    // Both miss, and the second joins the first's flight, which has no place yet.
    let read = |options: ReadOptions| {
        let region = region.clone();
        tokio::spawn(async move {
            region.get_or_load_with("k", options, || async { Ok::<_, io::Error>(2) }).await.unwrap()
        })
    };
    let lax = read(ReadOptions::new());
    eventually("the lax reader waits", async || region.stats().misses == 2).await;
    tokio::time::sleep(Duration::from_millis(50)).await;
    let strict = read(ReadOptions::new().max_age(Duration::from_secs(5)));
    eventually("the strict reader waits", async || region.stats().misses == 3).await;
    tokio::time::sleep(Duration::from_millis(50)).await;
    rig.raw(&["SET", "r:k", "1", "PX", "15000"]).await;
    gate.open.notify_one();
    first.await.unwrap();
    let lax = lax.await.unwrap();
    assert_eq!((lax.value, lax.source), (1, Source::Backend), "the second look found it");
    let strict = strict.await.unwrap();
    assert_eq!((strict.value, strict.source), (2, Source::Loader), "15 of 30 seconds are gone");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_fill_that_was_long_on_its_way_does_not_look_young() {
    for program in Program::ALL {
        let server = TestServer::start(program, ServerOptions::new()).unwrap();
        let proxy = Arc::new(Proxy::before(server.port()).await);
        let patient = Cache::builder(proxy.url()).response_timeout(Duration::from_secs(20));
        let region: Region<u64> = patient.open().await.unwrap().region(RegionPolicy::new("r", TTL)).unwrap();
        let held = Arc::clone(&proxy);
        let load = tokio::spawn({
            let region = region.clone();
            let loader = move || async move {
                held.set(Mode::HoldRequests);
                Ok::<_, io::Error>(1)
            };
            async move { region.get_or_load("k", loader).await.unwrap() }
        });
        eventually("the fill is on its way", async || proxy.is_holding()).await;
        tokio::time::sleep(SLOW).await;
        proxy.set(Mode::Pass);
        load.await.unwrap();
        assert_eq!(region.stats().fills_stored, 1, "{program}");
        let read = region.get_with("k", ReadOptions::new().with_age()).await.unwrap().unwrap();
        assert!(at_least(read.age) >= SLOW, "{:?} on {program}", read.age);
    }
}

/// Between a look that finds nothing and its load another process stores a value with a short life of its own.
async fn a_frame_that_was_stored_meanwhile_is_judged_by_its_own_time(rig: Rig) {
    let policy = || RegionPolicy::new("f", TTL).framed(Framing::new());
    let region: Region<u64> = rig.cache().await.region(policy().max_loads(1, 9)).unwrap();
    let other: Region<u64> = rig.cache().await.region(policy()).unwrap();
    let gate = Gate::default();
    let occupied = tokio::spawn({
        let (region, loader) = (region.clone(), gate.loader(0));
        async move { region.get_or_load("occupied", loader).await }
    });
    gate.running.notified().await;
    let strict = ReadOptions::new().max_age(TTL / 3);
    let load = |id: &'static str| {
        let region = region.clone();
        let loader = || async { Ok::<_, io::Error>(9) };
        tokio::spawn(async move { region.get_or_load_with(id, strict, loader).await.unwrap() })
    };
    let (young, old) = (load("young"), load("old"));
    let batch = tokio::spawn({
        let region = region.clone();
        let loader = |ids: Vec<&'static str>| async move {
            Ok::<_, io::Error>(ids.into_iter().map(|id| (id, 9)).collect::<Vec<_>>())
        };
        async move { region.get_or_load_each(["in a batch", "missing"], strict, loader).await.unwrap() }
    });
    eventually("all have missed", async || region.stats().misses == 5).await;
    tokio::time::sleep(Duration::from_millis(50)).await;
    for id in ["young", "in a batch"] {
        other.set_for(id, &1, TTL / 2).await.unwrap();
    }
    other.set_for("old", &1, TTL).await.unwrap();
    // By the rest of its TTL it is too old; its own time still says that it is young.
    rig.raw(&["PEXPIRE", "f:old", "1000"]).await;
    gate.open.notify_one();
    occupied.await.unwrap().unwrap();
    let (young, old) = (young.await.unwrap(), old.await.unwrap());
    assert_eq!((young.value, young.source), (1, Source::Backend), "it was loaded anew");
    assert!(young.age.is_within(TTL / 3), "{young:?}");
    assert_eq!((old.value, old.source), (9, Source::Loader));
    let sources =
        batch.await.unwrap().into_iter().map(|read| read.unwrap().unwrap().source).collect::<Vec<_>>();
    assert_eq!(sources, [Source::Backend, Source::Loader]);
}

/// All of a batch is handed out together: what was found at once is as old then as it is, and not as it was when it was found.
async fn what_a_batch_has_found_grows_older_while_it_waits_for_the_rest(rig: Rig) {
    let policy = RegionPolicy::new("r", TTL).near(true);
    for policy in [policy.clone().key_base("p"), policy.key_base("f").framed(Framing::new())] {
        let region: Region<u64> = rig.cache().await.region(policy).unwrap();
        near_is_on(region.cache()).await;
        let loader = |ids: Vec<&'static str>| async move {
            let value = slow(2).await?;
            Ok::<_, io::Error>(ids.into_iter().map(|id| (id, value)).collect::<Vec<_>>())
        };
        let before = Instant::now();
        region.set("1", &1).await.unwrap();
        let set = Instant::now();
        let check = |age: Age, asked: Instant| {
            let age = at_least(age) + Duration::from_millis(2);
            assert!(age >= asked.duration_since(set) + SLOW, "{age:?}");
            assert!(
                age <= before.elapsed() + Duration::from_millis(200),
                "an upper bound, and no loose one: {age:?}"
            );
        };
        let (options, asked) = (ReadOptions::new().with_age(), Instant::now());
        let reads = region.get_or_load_each(["1", "2"], options, loader).await.unwrap();
        let far = reads.into_iter().next().unwrap().unwrap().unwrap();
        assert_eq!(far.source, Source::Backend);
        check(far.age, asked);
        warm(&region, "1").await;
        let asked = Instant::now();
        let reads = region.get_or_load_each_shared(["1", "3"], options, loader).await.unwrap();
        let near = reads.into_iter().next().unwrap().unwrap().unwrap();
        assert_eq!(near.source, Source::Near);
        check(near.age, asked);
    }
}
