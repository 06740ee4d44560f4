//! What is served past its TTL: fail-safe, the soft timeout, deadlines.

use std::io;
use std::time::{Duration, Instant};

use mtcache_cache::{
    Age, Cache, ErrorKind, Framing, ReadOptions, Region, RegionMode, RegionPolicy, Source, Staleness,
};
use mtcache_conformance::Program;
use mtcache_conformance::servers::{ServerOptions, TestServer};

use crate::loads::Gate;
use crate::near::near_is_on;
use crate::proxy::{Mode, Proxy};
use crate::rig::{Rig, eventually, on_every_backend};

/// Short, so that a test can wait for its end.
pub(crate) const TTL: Duration = Duration::from_millis(600);
pub(crate) const WINDOW: Duration = Duration::from_mins(1);

on_every_backend! {
    a_failing_loader_is_answered_with_the_last_known_value,
    a_shared_read_is_answered_with_the_last_known_value_too,
    a_loaded_value_is_known_without_a_read_after_it,
    a_region_that_never_serves_stale_fails,
    a_reader_that_wants_it_fresh_or_young_gets_the_error,
    what_was_deleted_is_not_raised_from_the_dead,
    what_was_deleted_elsewhere_after_it_expired_is_not_raised,
    what_was_cleared_or_set_elsewhere_is_not_raised,
    what_a_foreigner_deleted_while_it_lived_is_not_raised,
    what_lives_longer_than_the_region_says_and_is_deleted_is_not_raised,
    a_none_that_is_not_kept_ends_what_was_there,
    a_flush_leaves_nothing_known,
    after_the_stale_window_nothing_is_known,
    a_cached_none_is_not_served_stale,
    in_other_modes_nothing_is_served_stale,
    a_frame_in_its_window_is_served_to_whoever_asks,
    a_frame_that_was_invalidated_or_fell_with_its_tag_is_not_served,
    a_slow_loader_is_not_waited_for_longer_than_the_soft_timeout,
    without_a_stale_value_the_soft_timeout_waits_on,
    a_deadline_is_met_with_the_last_known_value,
    a_batch_whose_loader_fails_is_answered_with_what_is_known,
}

pub(crate) fn policy() -> RegionPolicy {
    RegionPolicy::new("r", TTL).stale_window(WINDOW)
}

pub(crate) async fn region_with<T: 'static>(rig: &Rig, policy: RegionPolicy) -> Region<T> {
    let region = rig.cache().await.region(policy).unwrap();
    near_is_on(region.cache()).await;
    region
}

async fn region(rig: &Rig) -> Region<u64> {
    region_with(rig, policy()).await
}

pub(crate) async fn failing() -> io::Result<u64> {
    Err(io::Error::other("the exchange says no"))
}

/// Sets, and has it known.
async fn known(region: &Region<u64>, value: u64) {
    region.set("k", &value).await.unwrap();
    eventually("it is known", async || {
        let _read = region.get("k").await.unwrap();
        // The message about the set may be still to come.
        let is_known = region.cache().near_size().0 > 0;
        tokio::time::sleep(Duration::from_millis(20)).await;
        is_known && region.cache().near_size().0 > 0
    })
    .await;
}

/// Sets, has it known, and waits until it has expired.
pub(crate) async fn known_and_expired(region: &Region<u64>, value: u64) -> Instant {
    let set = Instant::now();
    known(region, value).await;
    eventually("it has expired", async || region.get("k").await.unwrap().is_none()).await;
    set
}

async fn fails(region: &Region<u64>) -> bool {
    match region.get_or_load("k", failing).await {
        Err(error) => error.kind() == ErrorKind::Loader,
        Ok(read) => {
            assert!(read.is_stale());
            false
        }
    }
}

fn at_most(age: Age) -> Duration {
    match age {
        Age::AtMost(age) | Age::Exact(age) => age,
        Age::Unknown => panic!("the age is known"),
    }
}

async fn a_failing_loader_is_answered_with_the_last_known_value(rig: Rig) {
    let region = region(&rig).await;
    let set = known_and_expired(&region, 1).await;
    let read = region.get_or_load("k", failing).await.unwrap();
    assert_eq!((read.value, read.source, read.staleness), (1, Source::Near, Staleness::Stale));
    let age = at_most(read.age);
    assert!(age >= TTL && age <= set.elapsed() + Duration::from_millis(50), "honest: {age:?}");
    assert_eq!(region.stats().stale_served, 1);
    // Once the loader is well again, all is.
    let read = region.get_or_load("k", || async { Ok::<_, io::Error>(2) }).await.unwrap();
    assert_eq!((read.value, read.staleness), (2, Staleness::Fresh));
}

async fn a_shared_read_is_answered_with_the_last_known_value_too(rig: Rig) {
    let region: Region<u64> = region_with(&rig, policy().near(true)).await;
    region.set("k", &1).await.unwrap();
    crate::near::warm(&region, "k").await;
    eventually("it has expired", async || region.get("k").await.unwrap().is_none()).await;
    let read = region.get_or_load_shared("k", failing).await.unwrap();
    assert_eq!((*read.value, read.source, read.staleness), (1, Source::Near, Staleness::Stale));
    assert!(region.get_shared("k").await.unwrap().is_none(), "without a loader a miss is a miss");
}

async fn a_loaded_value_is_known_without_a_read_after_it(rig: Rig) {
    let region = region(&rig).await;
    region.get_or_load("k", || async { Ok::<_, io::Error>(1) }).await.unwrap();
    eventually("it is read back", async || region.cache().near_size().0 > 0).await;
    eventually("it has expired", async || rig.raw_get("r:k").await.is_none()).await;
    let read = region.get_or_load("k", failing).await.unwrap();
    assert_eq!((read.value, read.staleness), (1, Staleness::Stale));
}

async fn a_region_that_never_serves_stale_fails(rig: Rig) {
    let region: Region<u64> = region_with(&rig, RegionPolicy::new("r", TTL).near(true)).await;
    region.set("k", &1).await.unwrap();
    crate::near::warm(&region, "k").await;
    eventually("it has expired", async || region.get("k").await.unwrap().is_none()).await;
    assert!(fails(&region).await);
}

async fn a_reader_that_wants_it_fresh_or_young_gets_the_error(rig: Rig) {
    let region = region(&rig).await;
    known_and_expired(&region, 1).await;
    for options in [ReadOptions::new().fresh_only(), ReadOptions::new().max_age(TTL / 2)] {
        let refused = region.get_or_load_with("k", options, failing).await;
        assert_eq!(refused.unwrap_err().kind(), ErrorKind::Loader, "{options:?}");
    }
    let lax = ReadOptions::new().max_age(WINDOW);
    assert_eq!(region.get_or_load_with("k", lax, failing).await.unwrap().value, 1);
}

async fn what_was_deleted_is_not_raised_from_the_dead(rig: Rig) {
    let region = region(&rig).await;
    // While it lives, and when it has expired, by each way there is here.
    known(&region, 1).await;
    region.invalidate("k").await.unwrap();
    assert!(fails(&region).await, "deleted while it lived");
    known_and_expired(&region, 2).await;
    region.invalidate("k").await.unwrap();
    assert!(fails(&region).await, "deleted after it had expired");
    known_and_expired(&region, 3).await;
    region.cache().delete(&[region.key("k").unwrap()]).await.unwrap();
    assert!(fails(&region).await, "deleted by its key");
    known_and_expired(&region, 4).await;
    region.invalidate_all().await.unwrap();
    assert!(fails(&region).await, "its region cleared");
}

async fn what_was_deleted_elsewhere_after_it_expired_is_not_raised(rig: Rig) {
    let (here, there) = (region(&rig).await, region(&rig).await);
    known_and_expired(&here, 1).await;
    assert!(!fails(&here).await, "it is known");
    assert!(!there.invalidate("k").await.unwrap(), "there was nothing to delete any more");
    eventually("it is not known any more", async || fails(&here).await).await;
    let mut keys = rig.raw_keys().await;
    keys.retain(|key| !key.starts_with("mtcache:probe:") && !key.starts_with("mtcache:fill:"));
    assert_eq!(keys, Vec::<String>::new(), "what tells of it leaves nothing behind");
}

async fn what_was_cleared_or_set_elsewhere_is_not_raised(rig: Rig) {
    let (here, there) = (region(&rig).await, region(&rig).await);
    known_and_expired(&here, 1).await;
    there.invalidate_all().await.unwrap();
    eventually("it is not known any more", async || fails(&here).await).await;
    known(&here, 1).await;
    rig.raw(&["SET", "r:k", "2", "PX", "300"]).await;
    eventually("the foreign value has expired", async || rig.raw_get("r:k").await.is_none()).await;
    eventually("the older one is not known any more", async || fails(&here).await).await;
}

async fn what_a_foreigner_deleted_while_it_lived_is_not_raised(rig: Rig) {
    let region =
        region_with(&rig, RegionPolicy::new("r", Duration::from_secs(30)).stale_window(WINDOW)).await;
    known(&region, 1).await;
    rig.raw(&["DEL", "r:k"]).await;
    // Told or not: it should live, and the backend has nothing.
    assert!(fails(&region).await);
}

async fn what_lives_longer_than_the_region_says_and_is_deleted_is_not_raised(rig: Rig) {
    let region = region(&rig).await;
    for words in [&["SET", "r:k", "1"][..], &["SET", "r:k", "1", "PX", "200000"]] {
        rig.raw(words).await;
        eventually("it is known", async || {
            let _read = region.get("k").await.unwrap();
            region.cache().near_size().0 > 0
        })
        .await;
        tokio::time::sleep(TTL).await;
        rig.raw(&["DEL", "r:k"]).await;
        eventually("it is not known any more", async || fails(&region).await).await;
    }
}

async fn a_none_that_is_not_kept_ends_what_was_there(rig: Rig) {
    let unkept = policy().none_ttl(None).framed(Framing::new());
    let region: Region<Option<u64>> = region_with(&rig, unkept).await;
    region.set("k", &Some(1)).await.unwrap();
    eventually("it is past its TTL", async || region.get("k").await.unwrap().is_none()).await;
    let none = region.get_or_load("k", || async { Ok::<_, io::Error>(None) }).await.unwrap();
    assert_eq!(none.value, None);
    let failed = region.get_or_load("k", || async { Err::<Option<u64>, _>(io::Error::other("no")) }).await;
    assert_eq!(failed.unwrap_err().kind(), ErrorKind::Loader, "what the source has no longer");
}

async fn a_flush_leaves_nothing_known(rig: Rig) {
    let (here, there) = (region(&rig).await, region(&rig).await);
    known_and_expired(&here, 1).await;
    there.cache().flush_database().await.unwrap();
    eventually("it is not known any more", async || fails(&here).await).await;
    known_and_expired(&here, 2).await;
    here.cache().flush_database().await.unwrap();
    assert!(fails(&here).await, "by this process");
}

async fn a_cached_none_is_not_served_stale(rig: Rig) {
    let region: Region<Option<u64>> = region_with(&rig, policy().none_ttl(Some(TTL))).await;
    region.get_or_load("k", || async { Ok::<_, io::Error>(None) }).await.unwrap();
    eventually("it is read back", async || region.cache().near_size().0 > 0).await;
    eventually("it has expired", async || rig.raw_get("r:k").await.is_none()).await;
    let loader = || async { Err::<Option<u64>, _>(io::Error::other("no")) };
    assert_eq!(region.get_or_load("k", loader).await.unwrap_err().kind(), ErrorKind::Loader);
}

async fn in_other_modes_nothing_is_served_stale(rig: Rig) {
    let region = region(&rig).await;
    for mode in [RegionMode::Shadow, RegionMode::Killed] {
        region.control().set_mode(RegionMode::On);
        known_and_expired(&region, 1).await;
        assert!(!fails(&region).await);
        region.control().set_mode(mode);
        assert!(fails(&region).await, "{mode}");
    }
    // Nor what came to be known in that mode, which the switch did not drop.
    region.control().set_mode(RegionMode::Shadow);
    known_and_expired(&region, 2).await;
    assert!(region.cache().near_size().0 > 0, "it is known");
    assert!(fails(&region).await);
    region.control().set_mode(RegionMode::On);
}

async fn a_frame_in_its_window_is_served_to_whoever_asks(rig: Rig) {
    let (writer, reader): (Region<u64>, Region<u64>) = (
        region_with(&rig, policy().framed(Framing::new())).await,
        region_with(&rig, policy().framed(Framing::new()).soft_timeout(Duration::from_millis(50))).await,
    );
    writer.set("k", &1).await.unwrap();
    eventually("it is past its TTL", async || writer.get("k").await.unwrap().is_none()).await;
    let read = reader.get_or_load("k", failing).await.unwrap();
    assert_eq!((read.value, read.source, read.staleness), (1, Source::Backend, Staleness::Stale));
    assert!(matches!(read.age, Age::Exact(age) if age >= TTL), "{:?}", read.age);
    let read = reader.get_or_load_shared("k", failing).await.unwrap();
    assert_eq!((*read.value, read.staleness), (1, Staleness::Stale));
    let gate = Gate::default();
    let read = reader.get_or_load("k", gate.loader(2)).await.unwrap();
    assert_eq!((read.value, read.staleness), (1, Staleness::Stale), "not waited for");
    gate.open.notify_one();
    eventually("the load has stored", async || {
        writer.get("k").await.unwrap().is_some_and(|read| read.value == 2)
    })
    .await;
}

async fn a_frame_that_was_invalidated_or_fell_with_its_tag_is_not_served(rig: Rig) {
    let region = region_with::<u64>(&rig, policy().framed(Framing::new())).await;
    let tagged = region.tagged(["t"]).unwrap();
    for by_tag in [false, true] {
        tagged.set("k", &1).await.unwrap();
        eventually("it is past its TTL", async || region.get("k").await.unwrap().is_none()).await;
        let gate = Gate::default();
        let failing_late = {
            let loader = gate.loader(0_u64);
            || async { loader().await.and(Err::<u64, _>(io::Error::other("no"))) }
        };
        let (reader, other) = (region.clone(), rig.cache().await);
        let read = tokio::spawn(async move { reader.get_or_load("k", failing_late).await });
        gate.running.notified().await;
        if by_tag {
            other.invalidate_tag("t").await.unwrap();
        } else {
            other.delete(&["r:k"]).await.unwrap();
        }
        gate.open.notify_one();
        assert_eq!(read.await.unwrap().unwrap_err().kind(), ErrorKind::Loader, "invalidated meanwhile");
        assert!(fails(&region).await);
    }
}

async fn a_deadline_is_met_with_the_last_known_value(rig: Rig) {
    let region = region(&rig).await;
    known_and_expired(&region, 1).await;
    let (gate, options) = (Gate::default(), ReadOptions::new().deadline(Duration::from_millis(150)));
    let read = region.get_or_load_with("k", options, gate.loader(2)).await.unwrap();
    assert_eq!((read.value, read.staleness), (1, Staleness::Stale));
    let shared = region.get_or_load_shared_with("k", options, gate.loader(2)).await.unwrap();
    assert_eq!((*shared.value, shared.staleness), (1, Staleness::Stale));
    let strict = options.fresh_only();
    let refused = region.get_or_load_with("k", strict, gate.loader(2)).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Deadline);
    gate.open.notify_one();
    eventually("the load has stored", async || rig.raw_get("r:k").await.as_deref() == Some("2")).await;
    assert_eq!(gate.calls(), 1);
}

async fn after_the_stale_window_nothing_is_known(rig: Rig) {
    let region: Region<u64> =
        region_with(&rig, RegionPolicy::new("r", TTL).stale_window(Duration::from_millis(300))).await;
    known_and_expired(&region, 1).await;
    tokio::time::sleep(Duration::from_millis(350)).await;
    assert!(fails(&region).await);
}

async fn a_slow_loader_is_not_waited_for_longer_than_the_soft_timeout(rig: Rig) {
    let soft = Duration::from_millis(100);
    let region: Region<u64> = region_with(&rig, policy().soft_timeout(soft)).await;
    known_and_expired(&region, 1).await;
    let gate = Gate::default();
    let asked = Instant::now();
    let read = region.get_or_load("k", gate.loader(2)).await.unwrap();
    assert_eq!((read.value, read.staleness), (1, Staleness::Stale));
    assert!(asked.elapsed() >= soft, "{:?}", asked.elapsed());
    gate.open.notify_one();
    eventually("the load has stored", async || rig.raw_get("r:k").await.as_deref() == Some("2")).await;
    assert_eq!((gate.calls(), region.stats().soft_timeouts), (1, 1));
}

async fn without_a_stale_value_the_soft_timeout_waits_on(rig: Rig) {
    let region: Region<u64> = region_with(&rig, policy().soft_timeout(Duration::from_millis(20))).await;
    let loader = || async {
        tokio::time::sleep(Duration::from_millis(200)).await;
        Ok::<_, io::Error>(1)
    };
    let read = region.get_or_load("k", loader).await.unwrap();
    assert_eq!((read.value, read.staleness), (1, Staleness::Fresh));
}

async fn a_batch_whose_loader_fails_is_answered_with_what_is_known(rig: Rig) {
    let (here, there) = (region(&rig).await, region(&rig).await);
    there.set_many(&[("a", 1), ("b", 2)]).await.unwrap();
    let failing = |_: Vec<&'static str>| async { Err::<Vec<(&str, u64)>, _>(io::Error::other("no")) };
    eventually("both are known", async || {
        drop(here.get_or_load_many(["a", "b"], failing).await);
        // The messages about the sets may be still to come.
        let are_known = here.cache().near_size().0 == 2;
        tokio::time::sleep(Duration::from_millis(20)).await;
        are_known && here.cache().near_size().0 == 2
    })
    .await;
    eventually("they have expired", async || {
        rig.raw_get("r:a").await.is_none() && rig.raw_get("r:b").await.is_none()
    })
    .await;
    let options = ReadOptions::new();
    let outcomes = here.get_or_load_each(["a", "b", "c"], options, failing).await.unwrap();
    let known: Vec<_> =
        outcomes.into_iter().map(|read| read.map(|read| read.map(|read| read.value))).collect();
    assert!(matches!(known[..], [Ok(Some(1)), Ok(Some(2)), Err(_)]), "{known:?}");
    there.invalidate("a").await.unwrap();
    eventually("one is not known any more", async || {
        let outcomes = here.get_or_load_each(["a", "b"], options, failing).await.unwrap();
        matches!(&outcomes[..], [Err(_), Ok(Some(read))] if read.value == 2 && read.is_stale())
    })
    .await;
    let strict = here.get_or_load_each(["b"], options.fresh_only(), failing).await.unwrap();
    assert!(strict[0].is_err());
}

fn quick(url: &str) -> mtcache_cache::CacheBuilder {
    let short = Duration::from_secs(2);
    Cache::builder(url)
        .connect_timeout(short)
        .response_timeout(short)
        .backoff(Duration::from_millis(20), Duration::from_millis(200))
}

/// The server dies, and comes back with nothing: meanwhile the last known value is served marked stale although it is within its TTL, and
/// afterwards it is not, for nobody knows what happened to it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_the_server_down_the_last_known_value_is_served() {
    for program in Program::ALL {
        let mut server = TestServer::start(program, ServerOptions::new()).unwrap();
        let cache = quick(&server.url()).open().await.unwrap();
        let long = RegionPolicy::new("r", Duration::from_mins(5)).stale_window(WINDOW);
        let region: Region<u64> = cache.region(long).unwrap();
        near_is_on(region.cache()).await;
        known(&region, 1).await;
        server.kill().unwrap();
        eventually("reads are answered stale", async || {
            region
                .get("k")
                .await
                .is_ok_and(|read| read.is_some_and(|read| read.value == 1 && read.is_stale()))
        })
        .await;
        let read = region.get_or_load("k", failing).await.unwrap();
        assert_eq!((read.value, read.staleness), (1, Staleness::Stale));
        let reads = region.get_many(&["k"]).await.unwrap();
        assert!(reads[0].as_ref().is_some_and(|read| read.value == 1 && read.is_stale()));
        region.get_many(&["k", "unknown"]).await.unwrap_err();
        let refused = region.get_with("k", ReadOptions::new().fresh_only()).await.unwrap_err();
        assert!(refused.is_backend_down(), "{refused}");
        let read = region.get_or_load("k", || async { Ok::<_, io::Error>(2) }).await.unwrap();
        assert_eq!((read.value, read.source), (2, Source::Loader), "the loader comes first");
        let read = region.get_or_load("k", failing).await.unwrap();
        assert_eq!((read.value, read.staleness), (2, Staleness::Stale), "what was loaded last is known now");
        assert!(at_most(read.age) < Duration::from_mins(1), "{:?}", read.age);
        // A write that fails is not forgotten either.
        region.invalidate("k").await.unwrap_err();
        assert!(region.get("k").await.is_err(), "what this process has invalidated is not served");
        server.start_again().unwrap();
        near_is_on(region.cache()).await;
        assert!(fails(&region).await);
    }
}

/// Of frames too: what this process has read of them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_the_server_down_the_last_known_frame_is_served() {
    for program in Program::ALL {
        let mut server = TestServer::start(program, ServerOptions::new()).unwrap();
        let cache = quick(&server.url()).open().await.unwrap();
        let long = RegionPolicy::new("r", Duration::from_mins(5)).stale_window(WINDOW);
        let region: Region<u64> = cache.region(long.framed(Framing::new())).unwrap();
        near_is_on(region.cache()).await;
        let tagged = region.tagged(["t"]).unwrap();
        region.set("k", &1).await.unwrap();
        tagged.set("tagged", &2).await.unwrap();
        eventually("both are known", async || {
            drop(region.get_many(&["k", "tagged"]).await.unwrap());
            region.cache().near_size().0 == 2
        })
        .await;
        server.kill().unwrap();
        for (id, value) in [("k", 1), ("tagged", 2)] {
            let read = region.get_or_load(id, failing).await.unwrap();
            assert_eq!((read.value, read.source, read.staleness), (value, Source::Near, Staleness::Stale));
        }
        cache.invalidate_tag("t").await.unwrap_err();
        assert!(region.get_or_load("tagged", failing).await.is_err(), "fallen with its tag");
        assert_eq!(region.get_or_load("k", failing).await.unwrap().value, 1);
    }
}

/// Nothing older than the heartbeat is served as fresh, and until the link is given up what is old is served marked.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn over_a_half_open_link_what_may_be_old_is_served_marked() {
    const HEARTBEAT: Duration = Duration::from_millis(500);
    for program in Program::ALL {
        let server = TestServer::start(program, ServerOptions::new()).unwrap();
        let proxy = Proxy::before(server.port()).await;
        let cache = quick(&proxy.url()).near_heartbeat(HEARTBEAT).open().await.unwrap();
        let long = RegionPolicy::new("r", Duration::from_mins(5)).stale_window(WINDOW).near(true);
        let region: Region<u64> = cache.region(long).unwrap();
        near_is_on(region.cache()).await;
        let mut raw = server.client().unwrap();
        raw.command(&["SET", "r:k", "1", "PX", "200000"]).unwrap();
        crate::near::warm(&region, "k").await;
        proxy.set(Mode::SwallowReplies);
        let silent = Instant::now();
        raw.command(&["SET", "r:k", "2", "PX", "200000"]).unwrap();
        let mut marked = 0;
        loop {
            let asked = Instant::now();
            // A read that waited for as long as the link takes to find out would have the new value, on a new connection.
            let options = ReadOptions::new().deadline(Duration::from_millis(100));
            let read = region.get_or_load_shared_with("k", options, failing).await;
            match read.map(|read| (*read.value, read.staleness)) {
                Ok((1, Staleness::Fresh)) => {
                    assert!(asked <= silent + HEARTBEAT, "{:?} after the silence began", asked - silent);
                }
                Ok((1, Staleness::Stale)) => marked += 1,
                Ok((value, staleness)) => {
                    assert_eq!((value, staleness), (2, Staleness::Fresh));
                    break;
                }
                Err(error) => assert_eq!(error.kind(), ErrorKind::Loader),
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        assert!(marked > 0, "it was served marked");
    }
}
