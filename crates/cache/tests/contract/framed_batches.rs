//! Batches of framed regions: what they store carries its tags and its time, and what they find is held against both.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use mtcache_cache::{
    Age, Cache, ErrorKind, Framing, Loaded, Previous, ReadOptions, Region, RegionPolicy, Source, TimeLeft,
};
use mtcache_conformance::{Program, ServerOptions, TestServer};
use parking_lot::Mutex;

use crate::loads::Gate;
use crate::near::{near_is_on, warm};
use crate::rig::{Rig, eventually, on_every_backend};

const TTL: Duration = Duration::from_secs(30);

on_every_backend! {
    a_batch_stores_frames_and_reads_them_with_their_age,
    what_a_batch_stores_falls_with_its_tags,
    a_tag_that_falls_during_a_batch_takes_what_it_stores,
    an_absence_in_a_frame_is_read_by_the_next_batch,
    what_has_fallen_or_is_too_old_is_loaded_with_what_is_missing,
    a_batch_keeps_frames_near,
    a_framed_batch_leases,
    what_has_no_stored_form_keeps_no_other_from_being_set,
}

fn policy() -> RegionPolicy {
    RegionPolicy::new("r", TTL).framed(Framing::new())
}

async fn region(rig: &Rig, policy: RegionPolicy) -> Region<u64> {
    rig.cache().await.region(policy).unwrap()
}

/// The ids that a source was asked for.
type Calls = Arc<Mutex<Vec<Vec<&'static str>>>>;

/// Reads with a source that has all numbers, ten times as large.
async fn read(
    region: &Region<u64>,
    ids: &[&'static str],
    options: ReadOptions,
    calls: &Calls,
) -> Vec<Option<(u64, Source, Age)>> {
    let calls = Arc::clone(calls);
    let loader = move |ids: Vec<&'static str>| {
        calls.lock().push(ids.clone());
        let pairs: Vec<_> =
            ids.into_iter().filter_map(|id| Some((id, id.parse::<u64>().ok()? * 10))).collect();
        std::future::ready(Ok::<_, io::Error>(pairs))
    };
    let reads = region.get_or_load_each(ids.iter().copied(), options, loader).await.unwrap();
    reads.into_iter().map(|read| read.unwrap().map(|read| (read.value, read.source, read.age))).collect()
}

async fn sources(region: &Region<u64>, ids: &[&'static str], calls: &Calls) -> Vec<Option<(u64, Source)>> {
    let reads = read(region, ids, ReadOptions::new(), calls).await;
    reads.into_iter().map(|read| read.map(|(value, source, _)| (value, source))).collect()
}

async fn a_batch_stores_frames_and_reads_them_with_their_age(rig: Rig) {
    let (region, calls) = (region(&rig, policy()).await, Calls::default());
    region.set("2", &2).await.unwrap();
    let first = sources(&region, &["1", "2", "3", "1"], &calls).await;
    let loaded = |value| Some((value, Source::Loader));
    assert_eq!(first, [loaded(10), Some((2, Source::Backend)), loaded(30), loaded(10)]);
    assert_eq!(*calls.lock(), [["1", "3"]]);
    let with_age = ReadOptions::new().with_age();
    for (n, read) in read(&region, &["1", "2", "3"], with_age, &calls).await.into_iter().enumerate() {
        let (value, source, age) = read.unwrap();
        assert_eq!((value, source), ([10, 2, 30][n], Source::Backend));
        assert!(matches!(age, Age::Exact(age) if age < TTL), "{age:?}");
    }
    for key in ["r:1", "r:3"] {
        assert!(rig.raw(&["STRLEN", key]).await.into_int().unwrap() >= 42, "it is a frame");
    }
    let single = region.get("3").await.unwrap().unwrap();
    assert!((single.value, matches!(single.age, Age::Exact(_))) == (30, true));
    assert_eq!((calls.lock().len(), region.stats().fills_stored), (1, 2));
    assert_eq!(rig.raw_keys().await, ["r:1", "r:2", "r:3"], "the tokens are gone");
}

async fn what_a_batch_stores_falls_with_its_tags(rig: Rig) {
    let (region, calls) = (region(&rig, policy()).await, Calls::default());
    let (a, b) = (region.tagged(["a"]).unwrap(), region.tagged(["a", "b"]).unwrap());
    for (round, (falls, left)) in [("a", 0), ("b", 2)].into_iter().enumerate() {
        sources(&a, &["1", "2"], &calls).await;
        sources(&b, &["3", "4"], &calls).await;
        assert_eq!(calls.lock().len(), 2 * (round + 1) - round);
        rig.cache().await.invalidate_tag(falls).await.unwrap();
        let there = sources(&region, &["1", "2", "3", "4"], &calls).await;
        let from_backend = there.iter().flatten().filter(|(_, source)| *source == Source::Backend).count();
        assert_eq!(from_backend, left, "{falls}");
        calls.lock().pop();
        region.invalidate_all().await.unwrap();
        calls.lock().truncate(1);
    }
}

async fn a_tag_that_falls_during_a_batch_takes_what_it_stores(rig: Rig) {
    let region = region(&rig, policy()).await;
    for by_ourselves in [true, false] {
        let gate = Gate::default();
        let tagged = region.tagged(["t"]).unwrap();
        let batch = tokio::spawn({
            let gate = gate.clone();
            let loader = move |_: Vec<&str>| gate.loader([("1", 1), ("2", 2)])();
            async move { tagged.get_or_load_many(["1", "2"], loader).await.unwrap().len() }
        });
        gate.running.notified().await;
        let other = if by_ourselves { region.cache().clone() } else { rig.cache().await };
        other.invalidate_tag("t").await.unwrap();
        // Who asks now does not have the old load.
        let new = tokio::spawn({
            let region = region.tagged(["t"]).unwrap();
            async move { region.get_or_load("1", || async { Ok::<_, io::Error>(7) }).await.unwrap().value }
        });
        tokio::time::sleep(Duration::from_millis(50)).await;
        gate.open.notify_one();
        assert_eq!((batch.await.unwrap(), new.await.unwrap()), (2, 7), "by ourselves: {by_ourselves}");
        assert_eq!(region.get("2").await.unwrap(), None, "by ourselves: {by_ourselves}");
        region.invalidate_all().await.unwrap();
    }
}

async fn an_absence_in_a_frame_is_read_by_the_next_batch(rig: Rig) {
    let policy = policy().none_ttl(Some(Duration::from_secs(3)));
    let (region, calls) = (region(&rig, policy).await, Calls::default());
    for _ in 0..2 {
        assert_eq!(sources(&region, &["x", "1"], &calls).await.first().unwrap(), &None);
    }
    assert_eq!((calls.lock().len(), region.stats().none_hits), (1, 1));
    let TimeLeft::For(left) = region.time_left("x").await.unwrap() else { panic!("no expiry") };
    assert!(left <= Duration::from_secs(3), "{left:?}");
    assert_eq!(region.get("x").await.unwrap(), None);
}

async fn what_has_fallen_or_is_too_old_is_loaded_with_what_is_missing(rig: Rig) {
    let (region, calls) = (region(&rig, policy()).await, Calls::default());
    region.set("1", &1).await.unwrap();
    region.tagged(["t"]).unwrap().set("2", &2).await.unwrap();
    rig.raw(&["SET", "r:5", "no frame and no number"]).await;
    region.cache().invalidate_tag("t").await.unwrap();
    tokio::time::sleep(Duration::from_millis(300)).await;
    region.set("3", &3).await.unwrap();
    let demand = ReadOptions::new().max_age(Duration::from_millis(250));
    let reads = read(&region, &["1", "2", "3", "4"], demand, &calls).await;
    let values: Vec<_> = reads.iter().flatten().map(|(value, ..)| *value).collect();
    let fresh = matches!(reads[2], Some((3, Source::Backend, _)));
    // A slow machine may find the third too old as well.
    assert_eq!(values, [10, 20, if fresh { 3 } else { 30 }, 40]);
    assert_eq!(calls.lock()[0].len(), if fresh { 3 } else { 4 });
    let each = region
        .get_or_load_each(["5"], ReadOptions::new(), |_: Vec<&str>| async { Ok::<_, io::Error>([("5", 50)]) })
        .await
        .unwrap();
    assert_eq!(each[0].as_ref().unwrap_err().kind(), ErrorKind::Undecodable);
}

async fn a_batch_keeps_frames_near(rig: Rig) {
    let region = region(&rig, policy().near(true)).await;
    near_is_on(region.cache()).await;
    let tagged = region.tagged(["t"]).unwrap();
    tagged.set("1", &1).await.unwrap();
    let near = warm(&region, "1").await;
    let loader = |ids: Vec<&'static str>| async move {
        Ok::<_, io::Error>(ids.into_iter().map(|id| (id, 20)).collect::<Vec<_>>())
    };
    let batch = async || tagged.get_or_load_many_shared(["1", "2"], loader).await.unwrap();
    let reads = batch().await;
    assert!(Arc::ptr_eq(&reads[0].as_ref().unwrap().value, &near.value));
    eventually("all is near", async || {
        batch().await.iter().flatten().all(|read| read.source == Source::Near)
    })
    .await;
    region.cache().invalidate_tag("t").await.unwrap();
    let sources: Vec<_> = batch().await.into_iter().map(|read| read.unwrap().source).collect();
    assert_eq!(sources, [Source::Loader, Source::Loader]);
}

async fn a_framed_batch_leases(rig: Rig) {
    let policy = || policy().lease(Duration::from_mins(1));
    let (one, two) = (region(&rig, policy()).await, region(&rig, policy()).await);
    let gate = Gate::default();
    let holder = tokio::spawn({
        let (one, gate) = (one.tagged(["t"]).unwrap(), gate.clone());
        let loader = move |_: Vec<&str>| gate.loader([("1", 1), ("2", 2)])();
        async move { one.get_or_load_many(["1", "2"], loader).await.unwrap().len() }
    });
    gate.running.notified().await;
    let calls = Calls::default();
    let waiter = tokio::spawn({
        let (two, calls) = (two.clone(), Arc::clone(&calls));
        async move { sources(&two, &["2", "3"], &calls).await }
    });
    eventually("it waits", async || two.stats().lease_waits == 1).await;
    gate.open.notify_one();
    assert_eq!(holder.await.unwrap(), 2);
    assert_eq!(waiter.await.unwrap(), [Some((2, Source::Backend)), Some((30, Source::Loader))]);
    assert_eq!(*calls.lock(), [["3"]]);
}

async fn what_has_no_stored_form_keeps_no_other_from_being_set(rig: Rig) {
    let cache = rig.cache().await;
    let framed = RegionPolicy::new("f", TTL).framed(Framing::new());
    for policy in [RegionPolicy::new("r", TTL), framed] {
        let region: Region<f64> = cache.region(policy).unwrap();
        region.set_many(&[("1", 1.0), ("2", 2.0), ("3", 3.0)]).await.unwrap();
        let refused = region.set_many(&[("1", 1.5), ("2", f64::NAN), ("3", 3.5)]).await.unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::Unencodable);
        let values = region.get_many(&["1", "2", "3"]).await.unwrap();
        let values: Vec<_> = values.into_iter().map(|read| read.unwrap().value).collect();
        assert_eq!(values, [1.5, 2.0, 3.5], "what was refused is as it was, the others are as they were set");
    }
    let refused = cache.set_many(&[("a", 1.0), ("b", f64::NAN)], TTL).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Unencodable);
    assert_eq!(cache.get_many::<f64, _>(&["a", "b"]).await.unwrap(), [Some(1.0), None]);
    assert_eq!(cache.pending_invalidations(), (0, 0));
}

/// A batch asks for what carries tags in steps, so that it is not shed by a link that takes fewer commands at once than the batch has ids.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tags_of_a_large_batch_are_asked_for_in_steps() {
    for program in Program::ALL {
        let server = TestServer::start(program, ServerOptions::new()).unwrap();
        let others = Cache::connect(&server.url()).await.unwrap();
        let cache = Cache::builder(server.url()).max_in_flight(600).open().await.unwrap();
        let ids: Vec<String> = (0..1000).map(|n| n.to_string()).collect();
        // How many it was asked for, and of how many it was told something.
        let asked: Arc<Mutex<Vec<(usize, usize)>>> = Arc::default();
        let loader = {
            let asked = Arc::clone(&asked);
            move |wishes: Vec<(String, Option<Previous<u64>>)>| {
                asked.lock().push((wishes.len(), wishes.iter().filter(|(_, known)| known.is_some()).count()));
                let loaded: Vec<_> = wishes.into_iter().map(|(id, _)| (id, Loaded::new(2))).collect();
                std::future::ready(Ok::<_, io::Error>(loaded))
            }
        };
        // In the second look: what others have loaded meanwhile.
        let leased = policy().lease(TTL);
        let other: Region<u64> = others.region(leased.clone()).unwrap();
        let region: Region<u64> = cache.region(leased).unwrap();
        let gate = Gate::default();
        let first = tokio::spawn({
            let (other, gate, ids) = (other.tagged(["T"]).unwrap(), gate.clone(), ids.clone());
            let loader =
                move |ids: Vec<String>| gate.loader(ids.into_iter().map(|id| (id, 1)).collect::<Vec<_>>())();
            async move { other.get_or_load_many(ids, loader).await.unwrap().len() }
        });
        gate.running.notified().await;
        let second = tokio::spawn({
            let (region, ids, loader) = (region.clone(), ids.clone(), loader.clone());
            async move { region.get_or_reload_each(ids, ReadOptions::new(), loader).await.unwrap() }
        });
        eventually("it waits", async || region.stats().lease_waits == 1).await;
        gate.open.notify_one();
        assert_eq!(first.await.unwrap(), 1000);
        let reads = second.await.unwrap();
        assert!(reads.into_iter().all(|read| read.unwrap().unwrap().value == 1), "{program:?}");
        assert_eq!(*asked.lock(), [], "{program:?}");
        // What is known of them before they are loaded.
        let [short, long] = [Duration::from_millis(500), TTL]
            .map(|ttl| RegionPolicy::new("s", ttl).stale_window(TTL).framed(Framing::new()));
        let other: Region<u64> = others.region(short).unwrap();
        let region: Region<u64> = cache.region(long).unwrap();
        near_is_on(&cache).await;
        let entries: Vec<_> = ids.iter().map(|id| (id.as_str(), 1)).collect();
        other.tagged(["T"]).unwrap().set_many(&entries).await.unwrap();
        eventually("all are past their lives", async || {
            other.get("0").await.unwrap().is_none() && other.get("999").await.unwrap().is_none()
        })
        .await;
        let reads = region.get_or_reload_each(ids, ReadOptions::new(), loader).await.unwrap();
        assert!(reads.into_iter().all(|read| read.unwrap().unwrap().value == 2), "{program:?}");
        assert_eq!(*asked.lock(), [(1000, 1000)], "{program:?}");
    }
}
