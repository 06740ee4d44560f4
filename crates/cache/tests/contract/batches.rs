//! Batches: one loader call for all that is missing, and to everybody else each key is a load like any other.

use std::collections::HashMap;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use mtcache_cache::{ErrorKind, Framing, ReadOptions, Region, RegionMode, RegionPolicy, Source, TimeLeft};
use parking_lot::Mutex;
use tokio::sync::Semaphore;

use crate::loads::Gate;
use crate::near::{near_is_on, warm};
use crate::rig::{Rig, eventually, on_every_backend};

const TTL: Duration = Duration::from_secs(30);

on_every_backend! {
    one_call_loads_all_that_is_missing,
    what_the_loader_leaves_out_is_cached_as_an_absence,
    a_text_is_never_read_out_of_an_absence,
    an_id_named_twice_is_loaded_once,
    overlapping_batches_and_single_reads_load_each_key_once,
    a_batch_waits_for_a_single_load_and_a_single_read_for_a_batch,
    an_absence_in_a_batch_is_no_answer_to_a_reader_without_a_place_for_it,
    a_failing_batch_fails_those_who_depend_on_it,
    a_deadline_takes_nothing_of_what_was_found,
    a_batch_whose_caller_left_is_kept,
    a_panicking_batch_is_taken_over_by_those_who_joined_it,
    an_invalidation_during_a_batch_refuses_its_own_key_alone,
    a_batch_is_one_load_to_the_limit,
    more_than_a_batch_may_have_is_loaded_by_several,
    a_value_of_another_type_fails_its_own_key,
    a_value_without_a_stored_form_fails_its_own_key,
    what_is_too_old_is_loaded_with_what_is_missing,
    a_batch_shares_what_is_near,
    scripts_that_were_forgotten_are_sent_again,
    a_batch_of_a_killed_region_asks_its_loader_alone,
    a_batch_in_shadow_serves_the_loader_and_is_compared,
}

async fn region(rig: &Rig) -> Region<u64> {
    rig.cache().await.region(RegionPolicy::new("r", TTL)).unwrap()
}

/// What a source was asked for.
#[derive(Clone, Default)]
struct Source64(Arc<Mutex<Vec<Vec<String>>>>);

impl Source64 {
    fn calls(&self) -> Vec<Vec<String>> {
        self.0.lock().clone()
    }

    /// A loader that has the ids that are numbers, ten times as large.
    fn loader<S: AsRef<str>>(&self) -> impl Fn(Vec<S>) -> Ready + Send + Sync + 'static {
        let calls = Arc::clone(&self.0);
        move |ids| {
            let ids: Vec<String> = ids.iter().map(|id| id.as_ref().to_owned()).collect();
            calls.lock().push(ids.clone());
            let has = |id: String| id.parse().ok().map(|n: u64| (id, n * 10));
            std::future::ready(Ok(ids.into_iter().filter_map(has).collect()))
        }
    }
}

type Ready = std::future::Ready<io::Result<HashMap<String, u64>>>;

async fn values(region: &Region<u64>, ids: &[&'static str], source: &Source64) -> Vec<Option<u64>> {
    let reads = region.get_or_load_many(ids.iter().copied(), source.loader()).await.unwrap();
    reads.into_iter().map(|read| read.map(|read| read.value)).collect()
}

async fn one_call_loads_all_that_is_missing(rig: Rig) {
    let (region, source) = (region(&rig).await, Source64::default());
    region.set("2", &2).await.unwrap();
    let reads = region.get_or_load_many(["3", "2", "1"], source.loader()).await.unwrap();
    let reads: Vec<_> = reads.into_iter().map(|read| read.map(|r| (r.value, r.source)).unwrap()).collect();
    assert_eq!(reads, [(30, Source::Loader), (2, Source::Backend), (10, Source::Loader)]);
    assert_eq!(values(&region, &["1", "2", "3"], &source).await, [Some(10), Some(2), Some(30)]);
    assert_eq!(source.calls(), [["3", "1"]]);
    assert_eq!(rig.raw_keys().await, ["r:1", "r:2", "r:3"], "the tokens are gone");
    let stats = region.stats();
    assert_eq!((stats.hits, stats.misses, stats.loads, stats.fills_stored), (4, 2, 1, 2));
    let TimeLeft::For(left) = region.time_left("1").await.unwrap() else { panic!("no expiry") };
    assert!(left <= TTL);
    assert_eq!(values(&region, &[], &source).await, []);
}

async fn what_the_loader_leaves_out_is_cached_as_an_absence(rig: Rig) {
    let policy = RegionPolicy::new("r", TTL).none_ttl(Some(Duration::from_secs(3)));
    let cache = rig.cache().await;
    let (region, source): (Region<u64>, _) = (cache.region(policy.clone()).unwrap(), Source64::default());
    assert_eq!(values(&region, &["x", "1", "y"], &source).await, [None, Some(10), None]);
    assert_eq!(values(&region, &["x", "y"], &source).await, [None, None]);
    assert_eq!(source.calls().len(), 1);
    assert_eq!(region.stats().none_hits, 2);
    assert_eq!(rig.raw_get("r:x").await.as_deref(), Some("null"));
    let TimeLeft::For(left) = region.time_left("x").await.unwrap() else { panic!("no expiry") };
    assert!(left <= Duration::from_secs(3), "{left:?}");

    let maybe: Region<Option<u64>> = cache.region(policy.clone()).unwrap();
    let reads = maybe.get_or_load_many(["x", "z"], |_| async { Ok::<_, io::Error>([("z", None)]) }).await;
    let values_of: Vec<_> = reads.unwrap().into_iter().map(|read| read.map(|read| read.value)).collect();
    assert_eq!(values_of, [Some(None), Some(None)], "a type with a place for it has it there");

    let forgetful: Region<u64> = cache.region(policy.key_base("f").none_ttl(None)).unwrap();
    assert_eq!(values(&forgetful, &["x"], &source).await, [None]);
    assert_eq!(rig.raw_get("f:x").await, None);
    let kept: Vec<_> = rig.raw_keys().await.into_iter().filter(|key| key.starts_with("r:")).collect();
    assert_eq!(kept, ["r:1", "r:x", "r:y", "r:z"]);
}

async fn a_text_is_never_read_out_of_an_absence(rig: Rig) {
    let names: Region<String> = rig.cache().await.region(RegionPolicy::new("r", TTL)).unwrap();
    let none = |_| async { Ok::<_, io::Error>(Vec::<(String, String)>::new()) };
    for _ in 0..2 {
        assert_eq!(names.get_or_load_many(["x"], none).await.unwrap(), [None]);
    }
    assert_eq!(names.get("x").await.unwrap(), None);
    let read = names.get_or_load("x", || async { Ok::<_, io::Error>("a name".to_owned()) }).await.unwrap();
    assert_eq!(read.value, "a name");
}

async fn an_id_named_twice_is_loaded_once(rig: Rig) {
    let (region, source) = (region(&rig).await, Source64::default());
    assert_eq!(values(&region, &["1", "2", "1"], &source).await, [Some(10), Some(20), Some(10)]);
    assert_eq!(source.calls(), [["1", "2"]]);
}

async fn overlapping_batches_and_single_reads_load_each_key_once(rig: Rig) {
    const KEYS: usize = 60;
    let region = region(&rig).await;
    let loaded: Arc<Vec<AtomicU32>> = Arc::new((0..KEYS).map(|_| AtomicU32::new(0)).collect());
    let open = Arc::new(Semaphore::new(0));
    let mut tasks = Vec::new();
    for task in 0..80 {
        let (region, loaded, open) = (region.clone(), Arc::clone(&loaded), Arc::clone(&open));
        tasks.push(tokio::spawn(async move {
            let wanted: Vec<usize> = if task % 2 == 0 {
                (0..=rand::random_range(0..KEYS)).map(|_| rand::random_range(0..KEYS)).collect()
            } else {
                vec![rand::random_range(0..KEYS)]
            };
            let load = move |ids: Vec<String>| {
                let (loaded, open) = (Arc::clone(&loaded), Arc::clone(&open));
                async move {
                    let ids = ids.iter().map(|id| id.parse::<usize>().unwrap());
                    let pairs: Vec<_> = ids.map(|n| (n.to_string(), n as u64)).collect();
                    for (_, n) in &pairs {
                        loaded[*n as usize].fetch_add(1, Ordering::SeqCst);
                    }
                    drop(open.acquire().await.unwrap());
                    Ok::<_, io::Error>(pairs)
                }
            };
            if let [one] = wanted[..] {
                let id = one.to_string();
                let load = load(vec![id.clone()]);
                let read = region.get_or_load(id, || async { load.await.map(|pairs| pairs[0].1) }).await;
                assert_eq!(read.unwrap().value, one as u64);
                return;
            }
            let ids: Vec<String> = wanted.iter().map(usize::to_string).collect();
            let reads = region.get_or_load_many(ids, load).await.unwrap();
            let got: Vec<_> = reads.into_iter().map(|read| read.unwrap().value as usize).collect();
            assert_eq!(got, wanted);
        }));
    }
    eventually("somebody loads", async || region.stats().misses > 40).await;
    tokio::time::sleep(Duration::from_millis(30)).await;
    open.add_permits(1);
    for task in tasks {
        task.await.unwrap();
    }
    let loaded: Vec<_> = loaded.iter().map(|n| n.load(Ordering::SeqCst)).collect();
    assert!(loaded.iter().all(|n| *n <= 1), "{loaded:?}");
    assert!(region.stats().joined_loads > 10, "nothing overlapped: nothing was tested");
}

async fn a_batch_waits_for_a_single_load_and_a_single_read_for_a_batch(rig: Rig) {
    let (region, source) = (region(&rig).await, Source64::default());
    let gate = Gate::default();
    let single = tokio::spawn({
        let (region, loader) = (region.clone(), gate.loader(7));
        async move { region.get_or_load("1", loader).await.unwrap().value }
    });
    gate.running.notified().await;
    let batch = tokio::spawn({
        let (region, source) = (region.clone(), source.clone());
        async move { values(&region, &["1", "2"], &source).await }
    });
    eventually("the batch has loaded the rest", async || region.get("2").await.unwrap().is_some()).await;
    assert_eq!(source.calls(), [["2"]]);
    gate.open.notify_one();
    assert_eq!((single.await.unwrap(), batch.await.unwrap()), (7, vec![Some(7), Some(20)]));

    let gate = Gate::default();
    let batch = tokio::spawn({
        let (region, gate) = (region.clone(), gate.clone());
        let loader = move |_| gate.loader([("3", 3), ("4", 4)])();
        async move { region.get_or_load_many(["3", "4"], loader).await.unwrap().len() }
    });
    gate.running.notified().await;
    let missed = region.stats().misses;
    let single = tokio::spawn({
        let region = region.clone();
        async move { region.get_or_load("4", || async { Ok::<_, io::Error>(0) }).await.unwrap().value }
    });
    eventually("the single read has joined", async || region.stats().misses == missed + 1).await;
    gate.open.notify_one();
    assert_eq!((batch.await.unwrap(), single.await.unwrap()), (2, 4));
}

async fn an_absence_in_a_batch_is_no_answer_to_a_reader_without_a_place_for_it(rig: Rig) {
    let region = region(&rig).await;
    let gate = Gate::default();
    let batch = tokio::spawn({
        let (region, gate) = (region.clone(), gate.clone());
        let loader = move |_| gate.loader(Vec::<(String, u64)>::new())();
        async move { region.get_or_load_many(["x"], loader).await.unwrap() }
    });
    gate.running.notified().await;
    let single = tokio::spawn({
        let region = region.clone();
        async move { region.get_or_load("x", || async { Ok::<_, io::Error>(5) }).await.unwrap().value }
    });
    eventually("the single read has missed", async || region.stats().misses == 2).await;
    tokio::time::sleep(Duration::from_millis(30)).await;
    gate.open.notify_one();
    assert_eq!((batch.await.unwrap(), single.await.unwrap()), (vec![None], 5));
    assert_eq!(region.get("x").await.unwrap().unwrap().value, 5);
}

async fn a_failing_batch_fails_those_who_depend_on_it(rig: Rig) {
    let (region, source) = (region(&rig).await, Source64::default());
    region.set("0", &1).await.unwrap();
    let (running, open) = (Arc::new(Semaphore::new(0)), Arc::new(Semaphore::new(0)));
    let failing = tokio::spawn({
        let (region, running, open) = (region.clone(), Arc::clone(&running), Arc::clone(&open));
        let loader = move |_| {
            let (running, open) = (Arc::clone(&running), Arc::clone(&open));
            async move {
                running.add_permits(1);
                drop(open.acquire().await.unwrap());
                Err::<HashMap<String, u64>, _>(io::Error::other("the exchange says no"))
            }
        };
        async move { region.get_or_load_each(["0", "1", "2"], ReadOptions::new(), loader).await.unwrap() }
    });
    drop(running.acquire().await.unwrap());
    let other = tokio::spawn({
        let (region, loader) = (region.clone(), source.loader());
        async move { region.get_or_load_each(["2", "3"], ReadOptions::new(), loader).await.unwrap() }
    });
    eventually("the other has loaded the rest", async || region.get("3").await.unwrap().is_some()).await;
    open.add_permits(1);
    let kinds = |outcomes: Vec<mtcache_cache::Result<Option<mtcache_cache::Read<u64>>>>| -> Vec<_> {
        outcomes.into_iter().map(|o| o.map(|read| read.unwrap().value).map_err(|e| e.kind())).collect()
    };
    assert_eq!(kinds(failing.await.unwrap()), [Ok(1), Err(ErrorKind::Loader), Err(ErrorKind::Loader)]);
    assert_eq!(kinds(other.await.unwrap()), [Err(ErrorKind::Loader), Ok(30)]);
    assert_eq!((source.calls(), region.stats().load_failures), (vec![vec!["3".to_owned()]], 1));
    assert_eq!(values(&region, &["1", "2"], &source).await, [Some(10), Some(20)]);
}

async fn a_deadline_takes_nothing_of_what_was_found(rig: Rig) {
    let options = ReadOptions::new().deadline(Duration::from_secs(1));
    let policy = RegionPolicy::new("r", TTL);
    for policy in [policy.clone().key_base("p"), policy.key_base("f").framed(Framing::new())] {
        let region: Region<u64> = rig.cache().await.region(policy).unwrap();
        let there: Vec<_> = (0..199_u64).map(|n| (n.to_string(), n)).collect();
        region.set_many(&there).await.unwrap();
        let ids: Vec<String> = (0..200).map(|n| n.to_string()).collect();
        let never = |_: Vec<String>| std::future::pending::<io::Result<Vec<(String, u64)>>>();
        let mut each = region.get_or_load_each(ids, options, never).await.unwrap();
        assert_eq!(each.pop().unwrap().unwrap_err().kind(), ErrorKind::Deadline);
        let values: Vec<_> = each.into_iter().map(|outcome| outcome.unwrap().unwrap().value).collect();
        assert!(values.into_iter().eq(0..199));
        assert_eq!((region.stats().hits, region.stats().misses), (199, 1));
    }
}

async fn a_batch_whose_caller_left_is_kept(rig: Rig) {
    let region = region(&rig).await;
    let gate = Gate::default();
    let caller = tokio::spawn({
        let (region, gate) = (region.clone(), gate.clone());
        let loader = move |_| gate.loader([("1", 1), ("2", 2)])();
        async move { region.get_or_load_many(["1", "2"], loader).await }
    });
    gate.running.notified().await;
    let follower = tokio::spawn({
        let region = region.clone();
        async move { region.get_or_load("2", || async { Ok::<_, io::Error>(0) }).await.unwrap().value }
    });
    eventually("the follower waits", async || region.stats().misses == 3).await;
    caller.abort();
    assert!(caller.await.unwrap_err().is_cancelled());
    gate.open.notify_one();
    assert_eq!(follower.await.unwrap(), 2);
    assert_eq!(region.get("1").await.unwrap().unwrap().value, 1);
}

async fn a_panicking_batch_is_taken_over_by_those_who_joined_it(rig: Rig) {
    let (region, source) = (region(&rig).await, Source64::default());
    let (running, open) = (Arc::new(Semaphore::new(0)), Arc::new(Semaphore::new(0)));
    let panicking = tokio::spawn({
        let (region, running, open) = (region.clone(), Arc::clone(&running), Arc::clone(&open));
        let loader = move |_| {
            let (running, open) = (Arc::clone(&running), Arc::clone(&open));
            async move {
                running.add_permits(1);
                drop(open.acquire().await.unwrap());
                assert!(open.is_closed(), "a loader that panics, on purpose");
                Ok::<_, io::Error>(HashMap::<String, u64>::new())
            }
        };
        async move { region.get_or_load_many(["1", "2"], loader).await.unwrap_err().kind() }
    });
    drop(running.acquire().await.unwrap());
    let joined = tokio::spawn({
        let (region, source) = (region.clone(), source.clone());
        async move { values(&region, &["2", "1", "3"], &source).await }
    });
    eventually("the other waits", async || region.get("3").await.unwrap().is_some()).await;
    open.add_permits(1);
    assert_eq!(panicking.await.unwrap(), ErrorKind::LoaderPanicked);
    assert_eq!(joined.await.unwrap(), [Some(20), Some(10), Some(30)]);
    assert_eq!(source.calls(), [vec!["3"], vec!["2", "1"]], "one more call for both");
    assert_eq!((region.stats().loads, region.stats().load_failures), (3, 1));
}

async fn an_invalidation_during_a_batch_refuses_its_own_key_alone(rig: Rig) {
    let (region, source) = (region(&rig).await, Source64::default());
    let gate = Gate::default();
    let batch = tokio::spawn({
        let (region, gate) = (region.clone(), gate.clone());
        let loader = move |_| gate.loader([("1", 1), ("2", 2), ("3", 3)])();
        async move { region.get_or_load_many(["1", "2", "3"], loader).await.unwrap() }
    });
    gate.running.notified().await;
    region.invalidate("1").await.unwrap();
    region.set("2", &22).await.unwrap();
    assert_eq!(values(&region, &["1"], &source).await, [Some(10)], "who asks now does not join the old load");
    gate.open.notify_one();
    let old: Vec<_> = batch.await.unwrap().into_iter().map(|read| read.unwrap().value).collect();
    assert_eq!(old, [1, 2, 3], "who asked before has what was loaded");
    assert_eq!(values(&region, &["1", "2", "3"], &source).await, [Some(10), Some(22), Some(3)]);
    assert_eq!(region.stats().fills_refused, 2);
}

async fn a_batch_is_one_load_to_the_limit(rig: Rig) {
    let policy = RegionPolicy::new("r", TTL).max_loads(1, 0);
    let region: Region<u64> = rig.cache().await.region(policy).unwrap();
    let (gate, ids) = (Gate::default(), (0..100).map(|n| n.to_string()));
    let batch = tokio::spawn({
        let (region, gate, ids) = (region.clone(), gate.clone(), ids.clone());
        let loader = move |ids: Vec<String>| gate.loader(ids.into_iter().map(|id| (id, 1)))();
        async move { region.get_or_load_many(ids, loader).await.unwrap().len() }
    });
    gate.running.notified().await;
    let source = Source64::default();
    let each = tokio::spawn({
        let region = region.clone();
        async move { region.get_or_load_each(["101", "102"], ReadOptions::new(), source.loader()).await.unwrap() }
    });
    for outcome in each.await.unwrap() {
        assert_eq!(outcome.unwrap_err().kind(), ErrorKind::Shed);
    }
    assert_eq!(region.stats().loads_shed, 1);
    gate.open.notify_one();
    assert_eq!(batch.await.unwrap(), 100);
    assert_eq!((region.stats().loads, region.stats().fills_stored), (1, 100));
}

async fn more_than_a_batch_may_have_is_loaded_by_several(rig: Rig) {
    let policy = RegionPolicy::new("r", TTL).max_batch(40);
    let (region, source): (Region<u64>, _) = (rig.cache().await.region(policy).unwrap(), Source64::default());
    let ids: Vec<String> = (0..1001).map(|n| n.to_string()).collect();
    let reads = region.get_or_load_many(ids.clone(), source.loader()).await.unwrap();
    for (n, read) in reads.into_iter().enumerate() {
        assert_eq!(read.unwrap().value, n as u64 * 10);
    }
    let sizes: Vec<_> = source.calls().iter().map(Vec::len).collect();
    assert_eq!((sizes.len(), sizes.iter().sum::<usize>(), sizes.iter().max()), (26, 1001, Some(&40)));
    let reads = region.get_or_load_many(ids, source.loader()).await.unwrap();
    assert!(reads.into_iter().all(|read| read.unwrap().source == Source::Backend));
}

async fn a_value_of_another_type_fails_its_own_key(rig: Rig) {
    let (region, source) = (region(&rig).await, Source64::default());
    rig.raw(&["HSET", "r:1", "f", "v"]).await;
    rig.raw(&["SET", "r:2", "no number"]).await;
    let each = region.get_or_load_each(["1", "2", "3"], ReadOptions::new(), source.loader()).await.unwrap();
    let kinds: Vec<_> =
        each.into_iter().map(|o| o.map(|read| read.unwrap().value).map_err(|e| e.kind())).collect();
    assert_eq!(kinds, [Err(ErrorKind::WrongType), Err(ErrorKind::Undecodable), Ok(30)]);
    assert_eq!(source.calls(), [["3"]], "what is there and cannot be read is not loaded");
    let all = region.get_or_load_many(["3", "1"], source.loader()).await;
    assert_eq!(all.unwrap_err().kind(), ErrorKind::WrongType);
}

async fn a_value_without_a_stored_form_fails_its_own_key(rig: Rig) {
    let region: Region<f64> = rig.cache().await.region(RegionPolicy::new("r", TTL)).unwrap();
    let loader = |_| async { Ok::<_, io::Error>([("1", 0.5), ("2", f64::NAN), ("never asked for", 1.0)]) };
    let each = region.get_or_load_each(["1", "2"], ReadOptions::new(), loader).await.unwrap();
    let kinds: Vec<_> =
        each.into_iter().map(|o| o.map(|read| read.unwrap().value > 0.4).map_err(|e| e.kind())).collect();
    assert_eq!(kinds, [Ok(true), Err(ErrorKind::Unencodable)]);
    assert_eq!(region.get("never asked for").await.unwrap(), None);
}

async fn what_is_too_old_is_loaded_with_what_is_missing(rig: Rig) {
    let (region, source) = (region(&rig).await, Source64::default());
    region.set("1", &1).await.unwrap();
    region.set("2", &2).await.unwrap();
    region.expire("1", Duration::from_secs(10)).await.unwrap();
    let demand = ReadOptions::new().max_age(Duration::from_secs(15));
    let each = region.get_or_load_each(["1", "2", "3"], demand, source.loader()).await.unwrap();
    let reads: Vec<_> = each.into_iter().map(|read| read.unwrap().unwrap()).collect();
    assert!(reads.iter().all(|read| read.age.is_within(Duration::from_secs(15))), "{reads:?}");
    assert_eq!(reads.into_iter().map(|read| read.value).collect::<Vec<_>>(), [10, 2, 30]);
    assert_eq!(source.calls(), [["1", "3"]]);
    assert_eq!(region.get("1").await.unwrap().unwrap().value, 10);
}

async fn a_batch_shares_what_is_near(rig: Rig) {
    let policy = RegionPolicy::new("r", TTL).near(true);
    let (region, source): (Region<u64>, _) = (rig.cache().await.region(policy).unwrap(), Source64::default());
    near_is_on(region.cache()).await;
    region.set("1", &1).await.unwrap();
    let near = warm(&region, "1").await;
    let reads = region.get_or_load_many_shared(["2", "1", "x"], source.loader()).await.unwrap();
    let read = reads[1].as_ref().unwrap();
    assert!(Arc::ptr_eq(&read.value, &near.value) && read.source == Source::Near);
    assert_eq!((*reads[0].as_ref().unwrap().value, reads[2].is_none()), (20, true));
    assert_eq!(source.calls(), [["2", "x"]]);
    // What it reads from the backend it keeps; the absence is asked for there.
    eventually("all is near", async || {
        let reads = region.get_or_load_many_shared(["2", "1", "x"], source.loader()).await.unwrap();
        reads.iter().flatten().all(|read| read.source == Source::Near)
    })
    .await;
    region.set("2", &5).await.unwrap();
    let reads = region.get_or_load_many_shared(["2"], source.loader()).await.unwrap();
    assert_eq!(*reads[0].as_ref().unwrap().value, 5);
    assert_eq!(source.calls().len(), 1);
}

async fn scripts_that_were_forgotten_are_sent_again(rig: Rig) {
    let (region, source) = (region(&rig).await, Source64::default());
    values(&region, &["1", "2"], &source).await;
    rig.forget_scripts().await;
    assert_eq!(values(&region, &["1", "3", "4"], &source).await, [Some(10), Some(30), Some(40)]);
    rig.forget_scripts().await;
    assert_eq!(values(&region, &["3", "4"], &source).await, [Some(30), Some(40)]);
    assert_eq!((source.calls().len(), region.stats().fills_stored), (2, 4));
}

async fn a_batch_of_a_killed_region_asks_its_loader_alone(rig: Rig) {
    let (region, source) = (region(&rig).await, Source64::default());
    region.set("1", &1).await.unwrap();
    region.control().set_mode(RegionMode::Killed);
    assert_eq!(values(&region, &["1", "2", "x"], &source).await, [Some(10), Some(20), None]);
    assert_eq!(source.calls(), [["1", "2", "x"]]);
    assert_eq!(rig.raw_keys().await, ["r:1"], "nothing of it is stored");
    assert_eq!((region.stats().bypassed, region.stats().misses), (3, 0));
    region.control().set_mode(RegionMode::On);
    assert_eq!(
        values(&region, &["1", "2"], &source).await,
        [Some(10), Some(20)],
        "nothing older than was served"
    );
}

async fn a_batch_in_shadow_serves_the_loader_and_is_compared(rig: Rig) {
    let (region, source) = (region(&rig).await, Source64::default());
    region.set("1", &1).await.unwrap();
    region.set("2", &20).await.unwrap();
    rig.raw(&["SET", "r:x", "null", "PX", "20000"]).await;
    region.control().set_mode(RegionMode::Shadow);
    let got = values(&region, &["1", "2", "3", "x"], &source).await;
    assert_eq!(got, [Some(10), Some(20), Some(30), None]);
    let mut calls = source.calls();
    calls.sort();
    assert_eq!(calls, [vec!["1", "2", "x"], vec!["3"]]);
    let stats = region.stats();
    assert_eq!((stats.shadow_different, stats.shadow_equal, stats.shadow_missing), (1, 2, 1));
    assert_eq!((stats.hits, stats.misses), (0, 0));
    assert_eq!(rig.raw_get("r:3").await.as_deref(), Some("30"));
}
