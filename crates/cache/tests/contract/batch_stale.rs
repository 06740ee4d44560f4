//! What batches serve stale and load behind their callers' backs, by the policy that reads of one entry go by.

use std::future::Future;
use std::io;
use std::panic::resume_unwind;
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use mtcache_cache::{
    Age, Cache, ErrorKind, Framing, ReadOptions, Refusal, Region, RegionPolicy, Source, Staleness,
    TrackingState,
};
use mtcache_conformance::Program;
use mtcache_conformance::servers::{ServerOptions, TestServer};

use crate::batch_leases::Slow;
use crate::loads::Gate;
use crate::near::{near_is_on, warm};
use crate::rig::{Rig, eventually, on_every_backend};
use crate::stale::{TTL, WINDOW, failing, policy, region_with};

const LONG: Duration = Duration::from_secs(30);

on_every_backend! {
    a_batch_waits_no_longer_than_the_soft_timeout_for_what_is_known,
    beside_what_is_known_the_soft_timeout_waits_for_the_rest,
    a_batch_of_frames_has_the_stale_ones_after_the_soft_timeout,
    the_stale_ones_of_a_batch_are_served_at_once_and_loaded_anew_by_one_call,
    the_stale_frames_of_a_batch_are_served_at_once_and_loaded_anew_by_one_call,
    a_batch_in_the_background_that_fails_is_not_tried_by_every_batch,
    what_is_due_in_a_batch_is_refreshed_by_one_call,
    frames_and_near_values_of_a_batch_are_refreshed_too,
    what_lives_shorter_is_not_refreshed_by_every_batch,
    one_process_at_a_time_refreshes_what_is_due_in_its_batches,
    xfetch_knows_how_long_batches_take,
    what_a_batch_has_loaded_is_known_without_a_read_after_it,
    a_batch_meets_its_deadline_with_what_is_known,
    what_the_backend_said_after_the_soft_timeout_is_had_at_the_deadline,
    what_was_invalidated_after_the_soft_timeout_is_not_had_at_the_deadline,
    what_another_process_invalidated_after_the_soft_timeout_is_not_had_at_the_deadline,
    what_was_invalidated_after_the_soft_timeout_is_waited_for_like_the_rest,
}

/// What a batch ends with: values, and whether they are stale.
type Answers = Vec<Result<(u64, Staleness), ErrorKind>>;

const FRESH: Staleness = Staleness::Fresh;
const STALE: Staleness = Staleness::Stale;

async fn batch(region: &Region<u64>, ids: &[&'static str], source: &Slow) -> Answers {
    batch_with(region, ids, ReadOptions::new(), source).await
}

async fn batch_with(
    region: &Region<u64>,
    ids: &[&'static str],
    options: ReadOptions,
    source: &Slow,
) -> Answers {
    let source = source.clone();
    let loader = move |ids| source.clone().answer(ids);
    let each = region.get_or_load_each(ids.iter().copied(), options, loader).await.unwrap();
    let outcome = |read: Option<mtcache_cache::Read<u64>>| read.map(|read| (read.value, read.staleness));
    each.into_iter().map(|o| o.map(|read| outcome(read).unwrap()).map_err(|error| error.kind())).collect()
}

/// A source that fails, whatever it is asked for.
fn broken() -> Slow {
    let source = Slow::new(0);
    source.open.close();
    source
}

/// Sets the values of "1" and "2" to 1 and 2, has them known, and waits until they have expired.
async fn known_and_expired(rig: &Rig, region: &Region<u64>) {
    let is_known = async || {
        for id in ["1", "2"] {
            region.get(id).await.unwrap();
        }
        region.cache().near_size().0 == 2
    };
    eventually("both are known", async || {
        region.set_many(&[("1", 1), ("2", 2)]).await.unwrap();
        let mut known = 0;
        for _ in 0..10 {
            // The messages about the sets may be still to come.
            known = if is_known().await { known + 1 } else { 0 };
            if known == 2 {
                return true;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        false
    })
    .await;
    eventually("they have expired", async || {
        rig.raw_get("r:1").await.is_none() && rig.raw_get("r:2").await.is_none()
    })
    .await;
}

async fn drop_both(region: &Region<u64>) {
    for id in ["1", "2"] {
        region.invalidate(id).await.unwrap();
    }
}

async fn are_stored(region: &Region<u64>, entries: &[(&str, u64)]) {
    eventually("the new values are there", async || {
        for (id, value) in entries {
            if region.get(id).await.unwrap().is_none_or(|read| read.value != *value) {
                return false;
            }
        }
        true
    })
    .await;
}

async fn a_batch_waits_no_longer_than_the_soft_timeout_for_what_is_known(rig: Rig) {
    let soft = Duration::from_millis(100);
    let region: Region<u64> = region_with(&rig, policy().soft_timeout(soft)).await;
    known_and_expired(&rig, &region).await;
    let source = Slow::new(0);
    let asked = Instant::now();
    assert_eq!(
        batch(&region, &["1", "2", "1"], &source).await,
        [Ok((1, STALE)), Ok((2, STALE)), Ok((1, STALE))]
    );
    assert!(asked.elapsed() >= soft, "{:?}", asked.elapsed());
    source.open.add_permits(1);
    are_stored(&region, &[("1", 10), ("2", 20)]).await;
    assert_eq!((source.calls(), region.stats().soft_timeouts), (vec![vec!["1".into(), "2".into()]], 3));
    // Who wants it fresh waits.
    let strict = ReadOptions::new().fresh_only();
    drop_both(&region).await;
    source.open.add_permits(1);
    assert_eq!(batch_with(&region, &["2"], strict, &source).await, [Ok((20, FRESH))]);
}

async fn beside_what_is_known_the_soft_timeout_waits_for_the_rest(rig: Rig) {
    let soft = Duration::from_millis(100);
    let region: Region<u64> = region_with(&rig, policy().soft_timeout(soft)).await;
    known_and_expired(&rig, &region).await;
    // One of the two is loaded by somebody else, for ever; the third is not known.
    let (gate, source) = (Gate::default(), Slow::new(0));
    let single = tokio::spawn({
        let (region, loader) = (region.clone(), gate.loader(7));
        async move { region.get_or_load("1", loader).await.unwrap().staleness }
    });
    gate.running.notified().await;
    let reads = tokio::spawn({
        let (region, source) = (region.clone(), source.clone());
        async move { batch(&region, &["1", "2", "3"], &source).await }
    });
    source.is_asked(1).await;
    tokio::time::sleep(soft * 3).await;
    assert!(!reads.is_finished(), "of the third nothing is known");
    source.open.add_permits(1);
    // What has come meanwhile is better than what was known.
    assert_eq!(reads.await.unwrap(), [Ok((1, STALE)), Ok((20, FRESH)), Ok((30, FRESH))]);
    assert_eq!((single.await.unwrap(), source.calls()), (STALE, vec![vec!["2".into(), "3".into()]]));
    gate.open.notify_one();
    assert_eq!(region.stats().soft_timeouts, 2);
}

async fn past_its_ttl(writer: &Region<u64>) {
    writer.set_many(&[("1", 1), ("2", 2)]).await.unwrap();
    eventually("they are past their TTL", async || {
        writer.get("1").await.unwrap().is_none() && writer.get("2").await.unwrap().is_none()
    })
    .await;
}

async fn a_batch_of_frames_has_the_stale_ones_after_the_soft_timeout(rig: Rig) {
    let framed = policy().framed(Framing::new()).soft_timeout(Duration::from_millis(50));
    let (writer, reader): (Region<u64>, Region<u64>) =
        (region_with(&rig, framed.clone()).await, region_with(&rig, framed).await);
    past_its_ttl(&writer).await;
    let source = Slow::new(0);
    assert_eq!(batch(&reader, &["1", "2"], &source).await, [Ok((1, STALE)), Ok((2, STALE))]);
    source.open.add_permits(1);
    are_stored(&writer, &[("1", 10), ("2", 20)]).await;
    assert_eq!(source.calls().len(), 1);
}

/// The third id is not there: it is loaded, and waited for, beside what is loaded in the background.
async fn is_loaded_anew_by_one_call(reader: &Region<u64>, writer: &Region<u64>) {
    let (source, other) = (Slow::new(0), Slow::new(9));
    let ids = ["2", "1"];
    for _ in 0..5 {
        assert_eq!(batch(reader, &ids, &source).await, [Ok((2, STALE)), Ok((1, STALE))]);
    }
    source.is_asked(1).await;
    // One that overlaps asks for the rest alone, and so does a single read.
    let more = batch(reader, &["1", "3", "2"], &other).await;
    assert_eq!(more, [Ok((1, STALE)), Ok((30, FRESH)), Ok((2, STALE))]);
    let single = reader.get_or_load("1", || async { Ok::<_, io::Error>(0) }).await.unwrap();
    assert_eq!((single.value, single.staleness), (1, STALE));
    source.open.add_permits(1);
    are_stored(writer, &[("1", 10), ("2", 20)]).await;
    assert_eq!((source.calls(), other.calls()), (vec![vec!["2".into(), "1".into()]], vec![vec!["3".into()]]));
    let stats = reader.stats();
    assert_eq!((stats.refreshes, stats.loads, stats.stale_served), (1, 2, 13));
}

async fn the_stale_ones_of_a_batch_are_served_at_once_and_loaded_anew_by_one_call(rig: Rig) {
    let region: Region<u64> = region_with(&rig, policy().stale_while_revalidate(true)).await;
    known_and_expired(&rig, &region).await;
    is_loaded_anew_by_one_call(&region, &region).await;
}

async fn the_stale_frames_of_a_batch_are_served_at_once_and_loaded_anew_by_one_call(rig: Rig) {
    let framed = policy().framed(Framing::new()).stale_while_revalidate(true);
    let (writer, reader): (Region<u64>, Region<u64>) =
        (region_with(&rig, framed.clone()).await, region_with(&rig, framed).await);
    past_its_ttl(&writer).await;
    is_loaded_anew_by_one_call(&reader, &writer).await;
}

async fn a_batch_in_the_background_that_fails_is_not_tried_by_every_batch(rig: Rig) {
    let region: Region<u64> = region_with(&rig, policy().stale_while_revalidate(true)).await;
    known_and_expired(&rig, &region).await;
    let (source, began) = (broken(), Instant::now());
    for _ in 0..50 {
        assert_eq!(batch(&region, &["1", "2"], &source).await, [Ok((1, STALE)), Ok((2, STALE))]);
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    // Both are asked for together, or what has just failed is not.
    let most = 1 + began.elapsed().as_secs();
    assert!((1..=2 * most).contains(&region.stats().refreshes), "{}", region.stats().refreshes);
    assert_eq!(source.calls()[0], ["1", "2"]);
    // A loader that panics is a failure, too.
    known_and_expired(&rig, &region).await;
    let before = region.stats().refreshes;
    for _ in 0..20 {
        let panics = |_: Vec<&str>| async move {
            let nothing: io::Result<Vec<(&str, u64)>> = Ok(Vec::new());
            if nothing.is_ok() {
                // Past the hook: a backtrace keeps the runtime busy for up to a second, and then nobody could tell of changes, nor is anything known.
                resume_unwind(Box::new("a loader that panics, on purpose"));
            }
            nothing
        };
        let reads = region.get_or_load_many(["1", "2"], panics).await.unwrap();
        assert!(reads.iter().flatten().all(mtcache_cache::Read::is_stale));
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let tried = region.stats().refreshes - before;
    assert!(tried <= 2 * (2 + began.elapsed().as_secs()), "{tried}");
}

async fn what_is_due_in_a_batch_is_refreshed_by_one_call(rig: Rig) {
    let region: Region<u64> =
        rig.cache().await.region(RegionPolicy::new("r", LONG).eager_refresh(0.5)).unwrap();
    region.set_many(&[("1", 1), ("2", 2), ("3", 3)]).await.unwrap();
    let source = Slow::new(0);
    let old = [Ok((1, FRESH)), Ok((2, FRESH)), Ok((3, FRESH))];
    assert_eq!(batch(&region, &["1", "2", "3"], &source).await, old);
    for id in ["1", "3"] {
        region.expire(id, LONG / 5 * 2).await.unwrap();
    }
    for _ in 0..5 {
        assert_eq!(batch(&region, &["1", "2", "3"], &source).await, old);
    }
    source.is_asked(1).await;
    source.open.add_permits(1);
    are_stored(&region, &[("1", 10), ("3", 30)]).await;
    assert_eq!(source.calls(), [["1", "3"]], "one for all, and what is not due is left alone");
    let new = [Ok((10, FRESH)), Ok((2, FRESH)), Ok((30, FRESH))];
    assert_eq!(batch(&region, &["1", "2", "3"], &source).await, new);
    let stats = region.stats();
    assert_eq!((stats.misses, stats.refreshes, stats.loads), (0, 1, 1));
}

async fn frames_and_near_values_of_a_batch_are_refreshed_too(rig: Rig) {
    let eager = RegionPolicy::new("r", LONG).eager_refresh(0.01);
    for policy in [eager.clone().framed(Framing::new()), eager.clone()] {
        let region: Region<u64> = region_with(&rig, policy.near(true)).await;
        region.set_many(&[("1", 1), ("2", 2)]).await.unwrap();
        tokio::time::sleep(LONG.mul_f64(0.011)).await;
        warm(&region, "1").await;
        warm(&region, "2").await;
        let source = Slow::new(9);
        let loader = {
            let source = source.clone();
            move |ids| source.clone().answer(ids)
        };
        let reads = region.get_or_load_many_shared(["1", "2"], loader).await.unwrap();
        let reads: Vec<_> = reads.into_iter().flatten().map(|read| (*read.value, read.source)).collect();
        assert_eq!(reads, [(1, Source::Near), (2, Source::Near)]);
        are_stored(&region, &[("1", 10), ("2", 20)]).await;
        assert_eq!(source.calls(), [["1", "2"]]);
        drop_both(&region).await;
    }
}

/// Each process asks once, for all of them together, whether what seems due to it is.
async fn what_lives_shorter_is_not_refreshed_by_every_batch(rig: Rig) {
    let eager = RegionPolicy::new("r", LONG).eager_refresh(0.5);
    for policy in [eager.clone(), eager.framed(Framing::new())] {
        let mut processes: Vec<Region<u64>> = Vec::new();
        for _ in 0..2 {
            processes.push(rig.cache().await.region(policy.clone()).unwrap());
        }
        for (id, value) in [("1", 1), ("2", 2)] {
            processes[0].set_for(id, &value, LONG / 3).await.unwrap();
        }
        let source = Slow::new(9);
        for _ in 0..5 {
            for region in &processes {
                assert_eq!(batch(region, &["1", "2"], &source).await, [Ok((1, FRESH)), Ok((2, FRESH))]);
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        assert_eq!(source.calls(), Vec::<Vec<String>>::new());
        // A frame says itself how long its life is, and seems due to nobody who has read that.
        let asked: Vec<_> = processes.iter().map(|region| region.stats().refreshes).collect();
        assert!(asked.iter().all(|asked| *asked <= 2), "{asked:?}");
        drop_both(&processes[0]).await;
    }
}

async fn one_process_at_a_time_refreshes_what_is_due_in_its_batches(rig: Rig) {
    let eager = RegionPolicy::new("r", LONG).eager_refresh(0.5);
    let mut processes: Vec<Region<u64>> = Vec::new();
    for _ in 0..3 {
        processes.push(rig.cache().await.region(eager.clone()).unwrap());
    }
    processes[0].set_many(&[("1", 1), ("2", 2)]).await.unwrap();
    for key in ["r:1", "r:2"] {
        rig.raw(&["PEXPIRE", key, "10000"]).await;
    }
    let source = Slow::new(0);
    for _ in 0..3 {
        for region in &processes {
            assert_eq!(batch(region, &["1", "2"], &source).await, [Ok((1, FRESH)), Ok((2, FRESH))]);
        }
    }
    // All by one of them, or each by one, where they have begun at the same time.
    let loaded = || {
        let mut ids = source.calls().concat();
        ids.sort();
        ids
    };
    eventually("the others wait", async || {
        processes.iter().map(|region| region.stats().lease_waits).sum::<u64>() >= 2 && loaded().len() >= 2
    })
    .await;
    // Long enough for the others to begin, if they would.
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert_eq!(loaded(), ["1", "2"], "each is loaded once");
    source.open.add_permits(9);
    are_stored(&processes[2], &[("1", 10), ("2", 20)]).await;
    for region in &processes {
        assert_eq!(batch(region, &["1", "2"], &source).await, [Ok((10, FRESH)), Ok((20, FRESH))]);
        assert_eq!(region.stats().refreshes, 1, "one for both");
    }
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(loaded(), ["1", "2"], "for all");
}

async fn xfetch_knows_how_long_batches_take(rig: Rig) {
    // With such a beta what is expected is far more than a life, once it is known that a load takes time at all.
    let region: Region<u64> =
        rig.cache().await.region(RegionPolicy::new("r", LONG).xfetch_beta(1e9)).unwrap();
    let source = Slow::new(99);
    region.set_many(&[("1", 1), ("2", 2)]).await.unwrap();
    assert_eq!(batch(&region, &["1", "2"], &source).await, [Ok((1, FRESH)), Ok((2, FRESH))]);
    assert_eq!(region.stats().refreshes, 0, "nobody knows yet what a load takes");
    drop_both(&region).await;
    assert_eq!(batch(&region, &["1", "2"], &source).await, [Ok((10, FRESH)), Ok((20, FRESH))]);
    let before = source.calls().len();
    eventually("it is refreshed", async || {
        assert_eq!(batch(&region, &["1", "2"], &source).await, [Ok((10, FRESH)), Ok((20, FRESH))]);
        source.calls().len() > before
    })
    .await;
}

async fn what_a_batch_has_loaded_is_known_without_a_read_after_it(rig: Rig) {
    for policy in [policy().key_base("p"), policy().key_base("f").framed(Framing::new())] {
        let region: Region<u64> = region_with(&rig, policy.clone()).await;
        let loaded = batch(&region, &["1", "2"], &Slow::new(1)).await;
        assert_eq!(loaded, [Ok((10, FRESH)), Ok((20, FRESH))]);
        eventually("both are read back", async || region.cache().near_size().0 == 2).await;
        eventually("they have expired", async || {
            region.get("1").await.unwrap().is_none() && region.get("2").await.unwrap().is_none()
        })
        .await;
        let failed = batch(&region, &["1", "2", "3"], &broken()).await;
        assert_eq!(failed, [Ok((10, STALE)), Ok((20, STALE)), Err(ErrorKind::Loader)]);
        region.invalidate("1").await.unwrap();
        let failed = batch(&region, &["1", "2"], &broken()).await;
        assert_eq!(failed, [Err(ErrorKind::Loader), Ok((20, STALE))], "what was invalidated");
    }
}

async fn a_batch_meets_its_deadline_with_what_is_known(rig: Rig) {
    let region: Region<u64> = region_with(&rig, policy()).await;
    known_and_expired(&rig, &region).await;
    let (source, options) = (Slow::new(0), ReadOptions::new().deadline(Duration::from_millis(150)));
    let late = batch_with(&region, &["1", "2", "3"], options, &source).await;
    assert_eq!(late, [Ok((1, STALE)), Ok((2, STALE)), Err(ErrorKind::Deadline)]);
    let strict = batch_with(&region, &["1"], options.fresh_only(), &source).await;
    assert_eq!(strict, [Err(ErrorKind::Deadline)]);
    // What comes in time is kept, whatever the others do.
    let other = Slow::new(1);
    let some = batch_with(&region, &["3", "4"], options, &other).await;
    assert_eq!(some, [Err(ErrorKind::Deadline), Ok((40, FRESH))]);
    source.open.add_permits(1);
    are_stored(&region, &[("1", 10), ("2", 20), ("3", 30)]).await;
    assert_eq!((source.calls().len(), other.calls()), (1, vec![vec!["4".to_owned()]]));
}

/// To a process that has no room to know anything itself.
async fn what_the_backend_said_after_the_soft_timeout_is_had_at_the_deadline(rig: Rig) {
    let deadline = Duration::from_secs(1);
    let framed = policy().framed(Framing::new()).soft_timeout(Duration::from_millis(50));
    let writer: Region<u64> = region_with(&rig, framed.clone()).await;
    let cache = rig.builder().near_max_bytes(1).open().await.unwrap();
    let reader: Region<u64> = cache.region(framed).unwrap();
    past_its_ttl(&writer).await;
    let source = Slow::new(0);
    let loader = move |ids| source.clone().answer(ids);
    let options = ReadOptions::new().deadline(deadline);
    let mut each = reader.get_or_load_each(["1", "3"], options, loader).await.unwrap();
    assert_eq!(each.pop().unwrap().unwrap_err().kind(), ErrorKind::Deadline);
    let known = each.pop().unwrap().unwrap().unwrap();
    assert_eq!((known.value, known.source, known.staleness), (1, Source::Backend, STALE));
    let (Age::Exact(age) | Age::AtMost(age)) = known.age else { panic!("a frame says its age") };
    assert!(age >= TTL + deadline, "as old as it is now: {age:?}");
    assert_eq!((reader.stats().soft_timeouts, cache.near_size().0), (1, 0));
}

/// What two ids that are known end with, and a third that is known to nobody, so that the batch waits on to its deadline; something is done to
/// them after its soft timeout.
async fn at_the_deadline(region: &Region<u64>, done: impl Future<Output = ()>) -> Answers {
    let source = Slow::new(0);
    let options = ReadOptions::new().deadline(Duration::from_secs(3));
    let late = tokio::spawn({
        let (region, source) = (region.clone(), source.clone());
        async move { batch_with(&region, &["1", "2", "3"], options, &source).await }
    });
    source.is_asked(1).await;
    after_a_soft_timeout(region, "2").await;
    done.await;
    late.await.unwrap()
}

/// That of a read which joins a batch under way, whose own is over by then.
async fn after_a_soft_timeout(region: &Region<u64>, id: &'static str) {
    let read = region.get_or_load(id, || async { Ok::<_, io::Error>(0) }).await.unwrap();
    assert_eq!(read.staleness, STALE);
}

/// Regions that know two values which are past their lives: a plain one, a framed one, and one whose first value alone carries a tag.
async fn with_what_has_expired(rig: &Rig) -> [Region<u64>; 3] {
    let soft = policy().soft_timeout(Duration::from_millis(50));
    let framed = soft.clone().framed(Framing::new());
    let plain: Region<u64> = region_with(rig, soft).await;
    known_and_expired(rig, &plain).await;
    let [untagged, tagged]: [Region<u64>; 2] =
        [region_with(rig, framed.clone().key_base("f")).await, region_with(rig, framed.key_base("t")).await];
    past_its_ttl(&untagged).await;
    tagged.tagged(["T"]).unwrap().set("1", &1).await.unwrap();
    tagged.set("2", &2).await.unwrap();
    eventually("they are past their TTL", async || {
        tagged.get("1").await.unwrap().is_none() && tagged.get("2").await.unwrap().is_none()
    })
    .await;
    [plain, untagged, tagged]
}

async fn what_was_invalidated_after_the_soft_timeout_is_not_had_at_the_deadline(rig: Rig) {
    let [plain, framed, tagged] = with_what_has_expired(&rig).await;
    let lost = [Err(ErrorKind::Deadline), Ok((2, STALE)), Err(ErrorKind::Deadline)];
    let each = async |(region, by_tag): (&Region<u64>, bool)| {
        let had = at_the_deadline(region, async {
            if by_tag {
                region.cache().invalidate_tag("T").await.unwrap();
            } else {
                region.invalidate("1").await.unwrap();
            }
        });
        assert_eq!(had.await, lost, "{}, by tag: {by_tag}", region.key("k").unwrap());
    };
    join_all([(&plain, false), (&framed, false), (&tagged, true)].map(each)).await;
}

/// It is told in time.
async fn what_another_process_invalidated_after_the_soft_timeout_is_not_had_at_the_deadline(rig: Rig) {
    let [plain, framed, tagged] = with_what_has_expired(&rig).await;
    let others: [Region<u64>; 2] = [
        rig.cache().await.region(policy()).unwrap(),
        rig.cache().await.region(policy().key_base("f").framed(Framing::new())).unwrap(),
    ];
    let lost = [Err(ErrorKind::Deadline), Ok((2, STALE)), Err(ErrorKind::Deadline)];
    let each = async |(region, other): (&Region<u64>, Option<&Region<u64>>)| {
        let had = at_the_deadline(region, async {
            match other {
                Some(other) => drop(other.invalidate("1").await.unwrap()),
                None => others[0].cache().invalidate_tag("T").await.unwrap(),
            }
        });
        assert_eq!(had.await, lost, "{}, by key: {}", region.key("k").unwrap(), other.is_some());
    };
    join_all([(&plain, Some(&others[0])), (&framed, Some(&others[1])), (&tagged, None)].map(each)).await;
}

/// It has no deadline that it could miss.
async fn what_was_invalidated_after_the_soft_timeout_is_waited_for_like_the_rest(rig: Rig) {
    for region in &with_what_has_expired(&rig).await[..2] {
        let (gate, source) = (Gate::default(), Slow::new(0));
        let single = tokio::spawn({
            let (region, loader) = (region.clone(), gate.loader(7));
            async move { region.get_or_load("1", loader).await.unwrap().staleness }
        });
        gate.running.notified().await;
        let late = tokio::spawn({
            let (region, source) = (region.clone(), source.clone());
            async move { batch(&region, &["1", "2", "3"], &source).await }
        });
        source.is_asked(1).await;
        after_a_soft_timeout(region, "2").await;
        region.invalidate("1").await.unwrap();
        source.open.add_permits(9);
        are_stored(region, &[("3", 30)]).await;
        gate.open.notify_one();
        assert_eq!(late.await.unwrap(), [Ok((10, FRESH)), Ok((20, FRESH)), Ok((30, FRESH))]);
        assert_eq!(single.await.unwrap(), STALE);
    }
}

/// What a batch has loaded while the backend is away is what is known from then on.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_the_server_down_what_a_batch_has_loaded_is_known() {
    for program in Program::ALL {
        let mut server = TestServer::start(program, ServerOptions::new()).unwrap();
        let short = Duration::from_secs(2);
        let cache = Cache::builder(server.url()).connect_timeout(short).response_timeout(short).open();
        let region: Region<u64> = cache.await.unwrap().region(policy()).unwrap();
        near_is_on(region.cache()).await;
        server.kill().unwrap();
        let loaded = batch(&region, &["1", "2"], &Slow::new(1)).await;
        assert_eq!(loaded, [Ok((10, FRESH)), Ok((20, FRESH))]);
        let failed = batch(&region, &["1", "2", "3"], &broken()).await;
        assert_eq!(failed, [Ok((10, STALE)), Ok((20, STALE)), Err(ErrorKind::Loader)]);
    }
}

/// What the backend answers is newer than what is known, and nobody would tell of what comes after it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_batch_is_answered_while_nobody_tells_of_changes_ends_what_was_known() {
    for program in Program::ALL {
        let long = RegionPolicy::new("r", Duration::from_mins(5)).stale_window(WINDOW).near(true);
        for (policy, is_shared) in [
            (long.clone(), true),
            (long.clone(), false),
            (long.clone().framed(Framing::new()), true),
            (long.framed(Framing::new()), false),
        ] {
            let mut server = TestServer::start(program, ServerOptions::new()).unwrap();
            let mut raw = server.client().unwrap();
            raw.command(&["ACL", "SETUSER", "u", "on", ">p", "~*", "&*", "+@all"]).unwrap();
            let other: Region<u64> =
                Cache::connect(&server.url()).await.unwrap().region(policy.clone()).unwrap();
            let short = Duration::from_secs(2);
            let cache = Cache::builder(format!("redis://u:p@127.0.0.1:{}", server.port()))
                .connect_timeout(short)
                .response_timeout(short)
                .backoff(Duration::from_millis(20), Duration::from_millis(200));
            let region: Region<u64> = cache.open().await.unwrap().region(policy).unwrap();
            near_is_on(region.cache()).await;
            other.set_many(&[("1", 1), ("2", 1)]).await.unwrap();
            warm(&region, "1").await;
            warm(&region, "2").await;
            raw.command(&["ACL", "SETUSER", "u", "-client|tracking"]).unwrap();
            raw.command(&["CLIENT", "KILL", "USER", "u"]).unwrap();
            let refused = TrackingState::Refused(Refusal::NotPermitted);
            eventually("nobody tells", async || region.cache().near_state() == refused).await;
            other.set("1", &2).await.unwrap();
            other.invalidate("2").await.unwrap();
            let none = |_: Vec<&'static str>| async { Ok::<_, io::Error>(Vec::<(&str, u64)>::new()) };
            assert!(other.get_or_load_many(["2"], none).await.unwrap()[0].is_none());
            let ids = ["1", "2"];
            let values: Vec<Option<u64>> = if is_shared {
                let reads = region.get_or_load_many_shared(ids, none).await.unwrap();
                reads.into_iter().map(|read| read.map(|read| *read.value)).collect()
            } else {
                let reads = region.get_or_load_many(ids, none).await.unwrap();
                reads.into_iter().map(|read| read.map(|read| read.value)).collect()
            };
            assert_eq!(values, [Some(2), None]);
            server.kill().unwrap();
            for id in ids {
                let failed = region.get_or_load(id, failing).await.map(|read| read.value);
                assert!(failed.is_err(), "{program:?}, shared: {is_shared}, {id}: {failed:?}");
            }
        }
    }
}
