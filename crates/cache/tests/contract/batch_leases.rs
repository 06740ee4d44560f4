//! Batches where the region leases: each key is one load among all processes, and what others load is waited for beside the rest.

use std::collections::HashMap;
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use mtcache_cache::{ErrorKind, ReadOptions, Region, RegionPolicy, Source};
use parking_lot::Mutex;
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;

use crate::loads::Gate;
use crate::rig::{Rig, eventually, on_every_backend};

const TTL: Duration = Duration::from_secs(30);
/// Longer than any of these tests waits for something that is to happen before the lease ends by itself.
const LONG: Duration = Duration::from_mins(1);

on_every_backend! {
    what_another_process_loads_is_waited_for_beside_the_rest,
    a_failing_batch_gives_its_leases_back,
    a_panicking_batch_gives_its_leases_back,
    a_panicking_call_takes_no_other_call_of_its_batch_with_it,
    what_a_dead_holder_left_is_taken_over,
    a_lease_that_never_ends_is_waited_for_no_longer_than_one_load,
    batches_of_many_processes_load_each_key_once,
    a_long_batch_keeps_its_leases,
}

fn leased(lease: Duration) -> RegionPolicy {
    RegionPolicy::new("r", TTL).lease(lease)
}

async fn region(rig: &Rig, policy: RegionPolicy) -> Region<u64> {
    rig.cache().await.region(policy).unwrap()
}

/// A source that answers when it is let, with ten times the number that an id is.
#[derive(Clone)]
pub(crate) struct Slow {
    calls: Arc<Mutex<Vec<Vec<String>>>>,
    pub(crate) open: Arc<Semaphore>,
}

impl Slow {
    pub(crate) fn new(open: usize) -> Self {
        Self { calls: Arc::default(), open: Arc::new(Semaphore::new(open)) }
    }

    pub(crate) async fn is_asked(&self, times: usize) {
        eventually("the source is asked", async || self.calls.lock().len() == times).await;
    }

    pub(crate) fn calls(&self) -> Vec<Vec<String>> {
        self.calls.lock().clone()
    }

    pub(crate) async fn answer(self, ids: Vec<&'static str>) -> io::Result<HashMap<&'static str, u64>> {
        self.calls.lock().push(ids.iter().map(ToString::to_string).collect());
        let answered = self.open.acquire().await;
        answered.map_err(|_| io::Error::other("the exchange says no"))?.forget();
        Ok(ids.into_iter().map(|id| (id, id.parse::<u64>().unwrap() * 10)).collect())
    }

    fn batch(
        &self,
        region: &Region<u64>,
        ids: &[&'static str],
    ) -> JoinHandle<Vec<Result<(u64, Source), ErrorKind>>> {
        let (region, source, ids) = (region.clone(), self.clone(), ids.to_vec());
        tokio::spawn(async move {
            let loader = move |ids| source.clone().answer(ids);
            let each = region.get_or_load_each(ids, ReadOptions::new(), loader).await.unwrap();
            let outcome = |read: mtcache_cache::Read<u64>| (read.value, read.source);
            each.into_iter().map(|o| o.map(|read| outcome(read.unwrap())).map_err(|e| e.kind())).collect()
        })
    }
}

async fn what_another_process_loads_is_waited_for_beside_the_rest(rig: Rig) {
    let (one, two) = (region(&rig, leased(LONG)).await, region(&rig, leased(LONG)).await);
    let (first, second) = (Slow::new(0), Slow::new(0));
    let theirs = first.batch(&one, &["1", "2"]);
    first.is_asked(1).await;
    let ours = second.batch(&two, &["2", "3"]);
    second.is_asked(1).await;
    assert_eq!(second.calls(), [["3"]]);
    // It joins what the batch loads, and does not wait for what the batch waits for.
    let joined = tokio::spawn({
        let two = two.clone();
        async move { two.get_or_load("3", || async { Ok::<_, io::Error>(0) }).await.unwrap().value }
    });
    eventually("it has missed", async || two.stats().misses == 3).await;
    second.open.add_permits(1);
    assert_eq!(joined.await.unwrap(), 30);
    assert_eq!((ours.is_finished(), two.stats().lease_waits), (false, 1));
    first.open.add_permits(1);
    assert_eq!(theirs.await.unwrap(), [Ok((10, Source::Loader)), Ok((20, Source::Loader))]);
    assert_eq!(ours.await.unwrap(), [Ok((20, Source::Backend)), Ok((30, Source::Loader))]);
    assert_eq!((first.calls().len(), second.calls().len()), (1, 1));
    assert_eq!(rig.raw_keys().await, ["r:1", "r:2", "r:3"], "the leases are gone");
}

async fn is_followed_at_once(rig: &Rig, ends: impl FnOnce(&Slow), kind: ErrorKind) {
    let (one, two) = (region(rig, leased(LONG)).await, region(rig, leased(LONG)).await);
    let (failing, next) = (Slow::new(0), Slow::new(9));
    let fails = failing.batch(&one, &["1", "2"]);
    failing.is_asked(1).await;
    let follows = next.batch(&two, &["2", "3"]);
    let single = tokio::spawn({
        let two = two.clone();
        async move { two.get_or_load("1", || async { Ok::<_, io::Error>(5) }).await.unwrap().value }
    });
    eventually("both wait", async || two.stats().lease_waits == 2).await;
    let began = Instant::now();
    ends(&failing);
    assert_eq!(fails.await.unwrap(), [Err(kind), Err(kind)]);
    assert_eq!(follows.await.unwrap(), [Ok((20, Source::Loader)), Ok((30, Source::Loader))]);
    assert_eq!(single.await.unwrap(), 5);
    assert!(began.elapsed() < LONG / 4, "{:?}", began.elapsed());
    assert_eq!(next.calls(), [["3"], ["2"]]);
    assert_eq!(one.get("2").await.unwrap().unwrap().value, 20);
}

async fn a_failing_batch_gives_its_leases_back(rig: Rig) {
    is_followed_at_once(&rig, |source| source.open.close(), ErrorKind::Loader).await;
}

async fn a_panicking_batch_gives_its_leases_back(rig: Rig) {
    let (one, two) = (region(&rig, leased(LONG)).await, region(&rig, leased(LONG)).await);
    let gate = Gate::default();
    let panics = tokio::spawn({
        let (one, gate) = (one.clone(), gate.clone());
        let loader = move |_: Vec<&str>| {
            let gate = gate.clone();
            async move {
                gate.running.notify_one();
                gate.open.notified().await;
                assert!(gate.calls() > 0, "a loader that panics, on purpose");
                Ok::<_, io::Error>(HashMap::<&str, u64>::new())
            }
        };
        async move { one.get_or_load_many(["1", "2"], loader).await.unwrap_err().kind() }
    });
    gate.running.notified().await;
    let next = Slow::new(9);
    let follows = next.batch(&two, &["1", "2"]);
    eventually("it waits", async || two.stats().lease_waits == 1).await;
    let began = Instant::now();
    gate.open.notify_one();
    assert_eq!(panics.await.unwrap(), ErrorKind::LoaderPanicked);
    assert_eq!(follows.await.unwrap(), [Ok((10, Source::Loader)), Ok((20, Source::Loader))]);
    assert!(began.elapsed() < LONG / 4, "{:?}", began.elapsed());
}

async fn a_panicking_call_takes_no_other_call_of_its_batch_with_it(rig: Rig) {
    let region = region(&rig, leased(LONG)).await;
    rig.raw(&["SET", "mtcache:fill:{r:1}", "of a process that died", "PX", "300"]).await;
    let (gate, panics) = (Gate::default(), Arc::new(Semaphore::new(0)));
    let batch = tokio::spawn({
        let (region, gate, panics) = (region.clone(), gate.clone(), Arc::clone(&panics));
        let loader = move |ids: Vec<&'static str>| {
            let (gate, panics) = (gate.clone(), Arc::clone(&panics));
            async move {
                if ids == ["1"] {
                    panics.add_permits(1);
                    panic!("a loader that panics, on purpose");
                }
                gate.running.notify_one();
                gate.open.notified().await;
                Ok::<_, io::Error>([("2", 20)])
            }
        };
        async move { region.get_or_load_each(["1", "2"], ReadOptions::new(), loader).await.unwrap() }
    });
    gate.running.notified().await;
    drop(panics.acquire().await.unwrap());
    gate.open.notify_one();
    let each = batch.await.unwrap();
    let kinds: Vec<_> =
        each.into_iter().map(|o| o.map(|read| read.unwrap().value).map_err(|e| e.kind())).collect();
    assert_eq!(kinds, [Err(ErrorKind::LoaderPanicked), Ok(20)]);
    eventually("both leases are gone", async || rig.raw_keys().await == ["r:2"]).await;
}

async fn what_a_dead_holder_left_is_taken_over(rig: Rig) {
    let left = Duration::from_millis(600);
    let (region, source) = (region(&rig, leased(LONG)).await, Slow::new(9));
    let began = Instant::now();
    rig.raw(&["SET", "mtcache:fill:{r:1}", "of a process that died", "PX", "600"]).await;
    let got = source.batch(&region, &["1", "2"]).await.unwrap();
    assert_eq!(got, [Ok((10, Source::Loader)), Ok((20, Source::Loader))]);
    let waited = began.elapsed();
    assert!(
        waited + Duration::from_millis(20) >= left && waited < left + Duration::from_secs(5),
        "{waited:?}"
    );
    assert_eq!((source.calls(), region.stats().fills_stored), (vec![vec!["2".into()], vec!["1".into()]], 2));
}

async fn a_lease_that_never_ends_is_waited_for_no_longer_than_one_load(rig: Rig) {
    let policy = leased(Duration::from_millis(100)).load_timeout(Duration::from_millis(400));
    let (region, source) = (region(&rig, policy).await, Slow::new(9));
    rig.raw(&["SET", "mtcache:fill:{r:1}", "of nobody, and without an expiry"]).await;
    let began = Instant::now();
    let got = source.batch(&region, &["1", "2"]).await.unwrap();
    let waited = began.elapsed();
    assert_eq!(got, [Ok((10, Source::Loader)), Ok((20, Source::Loader))]);
    assert!(waited >= Duration::from_millis(480) && waited < Duration::from_secs(5), "{waited:?}");
    assert_eq!(region.stats().lease_timeouts, 1);
}

async fn batches_of_many_processes_load_each_key_once(rig: Rig) {
    const KEYS: usize = 40;
    static IDS: [&str; KEYS] = [
        "0", "1", "2", "3", "4", "5", "6", "7", "8", "9", "10", "11", "12", "13", "14", "15", "16", "17",
        "18", "19", "20", "21", "22", "23", "24", "25", "26", "27", "28", "29", "30", "31", "32", "33", "34",
        "35", "36", "37", "38", "39",
    ];
    let source = Slow::new(usize::MAX >> 4);
    let mut batches = Vec::new();
    let mut regions = Vec::new();
    for process in 0..4 {
        let region = region(&rig, leased(LONG)).await;
        for batch in 0..8 {
            // Overlapping, and in both directions.
            let mut ids: Vec<_> = IDS.iter().copied().skip((process * 7 + batch * 5) % 20).take(20).collect();
            if process % 2 == 0 {
                ids.reverse();
            }
            batches.push((ids.clone(), source.batch(&region, &ids)));
        }
        regions.push(region);
    }
    for (ids, batch) in batches {
        let values: Vec<_> = batch.await.unwrap().into_iter().map(|outcome| outcome.unwrap().0).collect();
        let expected: Vec<_> = ids.iter().map(|id| id.parse::<u64>().unwrap() * 10).collect();
        assert_eq!(values, expected);
    }
    let mut loaded: Vec<String> = source.calls().concat();
    loaded.sort();
    let count = loaded.len();
    loaded.dedup();
    assert_eq!(count, loaded.len(), "each key was loaded once");
    let keys = rig.raw_keys().await;
    assert!(keys.iter().all(|key| key.starts_with("r:")), "a lease is left: {keys:?}");
}

async fn a_long_batch_keeps_its_leases(rig: Rig) {
    let lease = Duration::from_secs(2);
    let (one, two) = (region(&rig, leased(lease)).await, region(&rig, leased(lease)).await);
    let (slow, other) = (Slow::new(0), Slow::new(9));
    let holder = slow.batch(&one, &["1", "2"]);
    slow.is_asked(1).await;
    let waiter = other.batch(&two, &["2", "1"]);
    tokio::time::sleep(lease + lease / 2).await;
    slow.open.add_permits(1);
    assert_eq!(holder.await.unwrap(), [Ok((10, Source::Loader)), Ok((20, Source::Loader))]);
    assert_eq!(waiter.await.unwrap(), [Ok((20, Source::Backend)), Ok((10, Source::Backend))]);
    assert_eq!((other.calls().len(), one.stats().fills_stored), (0, 2));
}
