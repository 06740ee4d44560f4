//! Loads: one per key, kept when callers leave, refused when something came in between.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use mtcache_cache::{Condition, ErrorKind, ReadOptions, Region, RegionPolicy, Source};
use serde_json::{Value, json};
use tokio::sync::Notify;
use tokio::task::JoinHandle;

use crate::rig::{Rig, eventually, on_every_backend};

const TTL: Duration = Duration::from_secs(30);

on_every_backend! {
    a_miss_loads_and_the_next_read_hits,
    ten_thousand_misses_make_one_load,
    four_caches_make_one_load_each_at_the_most,
    a_cancelled_leaders_work_is_kept,
    a_panicking_leader_is_replaced_once,
    a_loader_that_always_panics_fails_everyone,
    a_failing_loader_fails_everyone_once,
    a_load_that_takes_too_long_is_ended,
    nothing_stores_after_an_invalidation,
    a_refresh_does_not_store_after_a_set,
    a_read_after_an_invalidation_does_not_join_the_old_load,
    a_read_after_another_process_invalidated_does_not_have_the_old_load,
    a_herd_behind_an_overtaken_load_makes_one_more,
    a_herd_on_an_absence_that_is_not_cached_makes_one_load,
    a_deadline_ends_the_call_and_not_the_load,
    a_lost_token_refuses_the_fill,
    of_two_processes_one_stores,
    a_load_waits_for_nobodys_token,
    a_key_of_another_type_is_an_error,
    a_value_without_a_stored_form_is_an_error,
    a_follower_with_a_demand_gets_what_meets_it,
}

async fn region(rig: &Rig) -> Region<u64> {
    rig.cache().await.region(RegionPolicy::new("r", TTL)).unwrap()
}

/// A loader that says when it runs and ends when it is let.
#[derive(Clone, Default)]
pub(crate) struct Gate {
    pub(crate) running: Arc<Notify>,
    pub(crate) open: Arc<Notify>,
    calls: Arc<AtomicU32>,
}

impl Gate {
    pub(crate) fn calls(&self) -> u32 {
        self.calls.load(Ordering::SeqCst)
    }

    pub(crate) fn loader<T: Send + 'static>(
        &self,
        value: T,
    ) -> impl FnOnce() -> LoadFuture<T> + Send + 'static {
        let gate = self.clone();
        move || {
            Box::pin(async move {
                gate.calls.fetch_add(1, Ordering::SeqCst);
                gate.running.notify_one();
                gate.open.notified().await;
                Ok(value)
            })
        }
    }
}

pub(crate) type LoadFuture<T> = std::pin::Pin<Box<dyn Future<Output = io::Result<T>> + Send>>;

async fn a_miss_loads_and_the_next_read_hits(rig: Rig) {
    let region = region(&rig).await;
    let read = region.get_or_load("k", || async { Ok::<_, io::Error>(1) }).await.unwrap();
    assert_eq!((read.value, read.source), (1, Source::Loader));
    let read = region.get_or_load("k", || async { Ok::<_, io::Error>(2) }).await.unwrap();
    assert_eq!((read.value, read.source), (1, Source::Backend));
    assert_eq!(rig.raw_keys().await, ["r:k"], "the token is gone");
    let stats = region.stats();
    assert_eq!((stats.hits, stats.misses, stats.loads, stats.fills_stored), (1, 1, 1, 1));
    assert!(stats.hit_rate() > 0.49 && stats.load_nanos > 0);
}

async fn ten_thousand_misses_make_one_load(rig: Rig) {
    let region = region(&rig).await;
    let calls = Arc::new(AtomicU32::new(0));
    let tasks = herd(&region, &calls, 10_000);
    for task in tasks {
        assert_eq!(task.await.unwrap(), 7);
    }
    assert_eq!(calls.load(Ordering::SeqCst), 1);
}

/// Tasks that all want the same key, which loads slowly enough for them to meet.
pub(crate) fn herd(region: &Region<u64>, calls: &Arc<AtomicU32>, tasks: usize) -> Vec<JoinHandle<u64>> {
    let task = |_| {
        let (region, calls) = (region.clone(), Arc::clone(calls));
        tokio::spawn(async move {
            let loader = move || async move {
                calls.fetch_add(1, Ordering::SeqCst);
                tokio::time::sleep(Duration::from_millis(50)).await;
                Ok::<_, io::Error>(7)
            };
            region.get_or_load("k", loader).await.unwrap().value
        })
    };
    (0..tasks).map(task).collect()
}

/// One load for all of them, as for all processes, needs leases: `leases.rs`.
async fn four_caches_make_one_load_each_at_the_most(rig: Rig) {
    let calls: [Arc<AtomicU32>; 4] = Default::default();
    let mut tasks = Vec::new();
    for calls in &calls {
        let region = region(&rig).await;
        tasks.extend(herd(&region, calls, 2500));
    }
    for task in tasks {
        assert_eq!(task.await.unwrap(), 7);
    }
    let calls = calls.map(|calls| calls.load(Ordering::SeqCst));
    assert!(calls.iter().all(|calls| *calls <= 1), "{calls:?}");
    assert_eq!(rig.raw_keys().await, ["r:k"]);
}

async fn a_cancelled_leaders_work_is_kept(rig: Rig) {
    let region = region(&rig).await;
    let gate = Gate::default();
    let leader = tokio::spawn({
        let (region, loader) = (region.clone(), gate.loader(1));
        async move { region.get_or_load("k", loader).await }
    });
    gate.running.notified().await;
    let followers: Vec<_> = (0..100)
        .map(|_| {
            let (region, loader) = (region.clone(), gate.loader(2));
            tokio::spawn(async move { region.get_or_load("k", loader).await.unwrap().value })
        })
        .collect();
    eventually("all followers wait", async || region.stats().misses == 101).await;
    leader.abort();
    assert!(leader.await.unwrap_err().is_cancelled());
    gate.open.notify_one();
    for follower in followers {
        assert_eq!(follower.await.unwrap(), 1);
    }
    assert_eq!(gate.calls(), 1);
    assert_eq!(region.get("k").await.unwrap().unwrap().value, 1);
}

async fn a_panicking_leader_is_replaced_once(rig: Rig) {
    let region = region(&rig).await;
    let calls = Arc::new(AtomicU32::new(0));
    let start = Arc::new(Notify::new());
    let loader = |panics: bool| {
        let (calls, start) = (Arc::clone(&calls), Arc::clone(&start));
        move || async move {
            calls.fetch_add(1, Ordering::SeqCst);
            if panics {
                start.notified().await;
                panic!("a loader that panics, on purpose");
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
            Ok::<_, io::Error>(5)
        }
    };
    let leader = tokio::spawn({
        let (region, loader) = (region.clone(), loader(true));
        async move { region.get_or_load("k", loader).await }
    });
    eventually("the leader loads", async || calls.load(Ordering::SeqCst) == 1).await;
    let followers: Vec<_> = (0..100)
        .map(|_| {
            let (region, loader) = (region.clone(), loader(false));
            tokio::spawn(async move { region.get_or_load("k", loader).await.unwrap().value })
        })
        .collect();
    eventually("all followers wait", async || region.stats().misses == 101).await;
    start.notify_one();
    assert_eq!(leader.await.unwrap().unwrap_err().kind(), ErrorKind::LoaderPanicked);
    for follower in followers {
        assert_eq!(follower.await.unwrap(), 5);
    }
    assert_eq!(calls.load(Ordering::SeqCst), 2);
    assert_eq!((region.stats().loads, region.stats().load_failures), (2, 1));
}

async fn a_loader_that_always_panics_fails_everyone(rig: Rig) {
    let region = region(&rig).await;
    let calls = Arc::new(AtomicU32::new(0));
    let tasks: Vec<_> = (0..100)
        .map(|_| {
            let (region, calls) = (region.clone(), Arc::clone(&calls));
            tokio::spawn(async move {
                let region2 = region.clone();
                let loader = move || async move {
                    calls.fetch_add(1, Ordering::SeqCst);
                    while region2.stats().misses < 100 {
                        tokio::time::sleep(Duration::from_millis(5)).await;
                    }
                    tokio::time::sleep(Duration::from_millis(50)).await;
                    assert!(region2.stats().misses == 0, "a loader that panics, on purpose");
                    Ok::<_, io::Error>(0)
                };
                region.get_or_load("k", loader).await.unwrap_err().kind()
            })
        })
        .collect();
    for task in tasks {
        assert_eq!(task.await.unwrap(), ErrorKind::LoaderPanicked);
    }
    assert_eq!(calls.load(Ordering::SeqCst), 2);
    // The next call starts anew.
    let read = region.get_or_load("k", || async { Ok::<_, io::Error>(3) }).await.unwrap();
    assert_eq!(read.value, 3);
}

async fn a_failing_loader_fails_everyone_once(rig: Rig) {
    let region = region(&rig).await;
    let calls = Arc::new(AtomicU32::new(0));
    let tasks: Vec<_> = (0..100)
        .map(|_| {
            let (region, calls) = (region.clone(), Arc::clone(&calls));
            tokio::spawn(async move {
                let watched = region.clone();
                let loader = move || async move {
                    calls.fetch_add(1, Ordering::SeqCst);
                    while watched.stats().misses < 100 {
                        tokio::time::sleep(Duration::from_millis(5)).await;
                    }
                    tokio::time::sleep(Duration::from_millis(50)).await;
                    Err::<u64, _>(io::Error::other("the exchange says no"))
                };
                region.get_or_load("k", loader).await.unwrap_err()
            })
        })
        .collect();
    for task in tasks {
        let error = task.await.unwrap();
        assert_eq!(error.kind(), ErrorKind::Loader);
        assert!(error.to_string().contains("the exchange says no"));
        assert!(std::error::Error::source(&error).is_some());
    }
    assert_eq!(calls.load(Ordering::SeqCst), 1);
    assert_eq!(region.stats().load_failures, 1);
}

async fn a_load_that_takes_too_long_is_ended(rig: Rig) {
    let policy = RegionPolicy::new("r", TTL).load_timeout(Duration::from_millis(50));
    let region: Region<u64> = rig.cache().await.region(policy).unwrap();
    let error = region.get_or_load("k", std::future::pending::<io::Result<u64>>).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::LoadTimeout);
    assert_eq!(region.stats().load_failures, 1);
}

/// What can come in between a load's begin and its fill.
#[derive(Clone, Copy, Debug)]
enum Between {
    Invalidate,
    InvalidateAll,
    DeleteKey,
    Set,
    SetIfNewer,
    SetMany,
    OtherProcessInvalidates,
    ForeignSet,
    Flush,
}

async fn nothing_stores_after_an_invalidation(rig: Rig) {
    use Between::*;
    let others = rig.cache().await;
    let other: Region<Value> = others.region(RegionPolicy::new("r", TTL)).unwrap();
    for between in [
        Invalidate,
        InvalidateAll,
        DeleteKey,
        Set,
        SetIfNewer,
        SetMany,
        OtherProcessInvalidates,
        ForeignSet,
        Flush,
    ] {
        let cache = rig.cache().await;
        let region: Region<Value> = cache.region(RegionPolicy::new("r", TTL)).unwrap();
        let (gate, id) = (Gate::default(), format!("{between:?}"));
        let load = tokio::spawn({
            let (region, id, loader) = (region.clone(), id.clone(), gate.loader(json!("old")));
            async move { region.get_or_load(&id, loader).await.unwrap() }
        });
        gate.running.notified().await;
        let new = json!({"timestamp": 1});
        let expected = match between {
            Invalidate => region.invalidate(&id).await.map(|_| None),
            InvalidateAll => region.invalidate_all().await.map(|_| None),
            DeleteKey => cache.delete(&[region.key(&id).unwrap()]).await.map(|_| None),
            Set => region.set(&id, &new).await.map(|()| Some(new)),
            SetIfNewer => {
                let newer = Condition::IfNewer { field: "timestamp".into() };
                region.set_when(&id, &new, newer).await.map(|_| Some(new))
            }
            SetMany => region.set_many(&[(&id, new.clone())]).await.map(|()| Some(new)),
            OtherProcessInvalidates => other.invalidate(&id).await.map(|_| None),
            ForeignSet => {
                rig.raw(&["SET", &region.key(&id).unwrap(), r#"{"timestamp":1}"#]).await;
                Ok(Some(new))
            }
            Flush => others.flush_database().await.map(|()| None),
        };
        gate.open.notify_one();
        let read = load.await.unwrap();
        assert_eq!((read.value, read.source), (json!("old"), Source::Loader), "{between:?}");
        let now = region.get(&id).await.unwrap().map(|read| read.value);
        assert_eq!(now, expected.unwrap(), "{between:?}");
        assert_eq!(region.stats().fills_refused, 1, "{between:?}");
    }
}

async fn a_refresh_does_not_store_after_a_set(rig: Rig) {
    let region = region(&rig).await;
    for same_bytes in [false, true] {
        region.set("k", &1).await.unwrap();
        region.expire("k", TTL / 2).await.unwrap();
        let gate = Gate::default();
        let refresh = tokio::spawn({
            let (region, loader) = (region.clone(), gate.loader(9));
            let demand = ReadOptions::new().max_age(Duration::from_secs(1));
            async move { region.get_or_load_with("k", demand, loader).await.unwrap() }
        });
        gate.running.notified().await;
        let set = if same_bytes { 1 } else { 2 };
        region.set("k", &set).await.unwrap();
        gate.open.notify_one();
        assert_eq!(refresh.await.unwrap().value, 9);
        assert_eq!(region.get("k").await.unwrap().unwrap().value, set, "same bytes: {same_bytes}");
    }
    // And with nothing in between it does store.
    region.expire("k", TTL / 2).await.unwrap();
    let demand = ReadOptions::new().max_age(Duration::from_secs(1));
    region.get_or_load_with("k", demand, || async { Ok::<_, io::Error>(9) }).await.unwrap();
    assert_eq!(region.get("k").await.unwrap().unwrap().value, 9);
}

async fn a_read_after_an_invalidation_does_not_join_the_old_load(rig: Rig) {
    let region = region(&rig).await;
    let gate = Gate::default();
    let old = tokio::spawn({
        let (region, loader) = (region.clone(), gate.loader(1));
        async move { region.get_or_load("k", loader).await.unwrap().value }
    });
    gate.running.notified().await;
    region.invalidate("k").await.unwrap();
    let new = region.get_or_load("k", || async { Ok::<_, io::Error>(2) }).await.unwrap();
    assert_eq!(new.value, 2);
    gate.open.notify_one();
    assert_eq!(old.await.unwrap(), 1);
    assert_eq!(region.get("k").await.unwrap().unwrap().value, 2);
}

/// Its reader has missed because of the invalidation and finds a load under way that knows nothing of it.
async fn a_read_after_another_process_invalidated_does_not_have_the_old_load(rig: Rig) {
    let (one, other) = (region(&rig).await, region(&rig).await);
    let gate = Gate::default();
    let read = |gate: &Gate, value| {
        let (region, loader) = (one.clone(), gate.loader(value));
        tokio::spawn(async move { region.get_or_load("k", loader).await.unwrap() })
    };
    let old = read(&gate, 1);
    gate.running.notified().await;
    other.invalidate("k").await.unwrap();
    let later = Gate::default();
    let new = read(&later, 2);
    eventually("the second reader waits", async || one.stats().misses == 2).await;
    later.open.notify_one();
    gate.open.notify_one();
    assert_eq!(old.await.unwrap().value, 1, "it asked before the invalidation");
    assert_eq!(new.await.unwrap().value, 2);
    assert_eq!((later.calls(), one.stats().fills_refused), (1, 1));
    assert_eq!(other.get("k").await.unwrap().unwrap().value, 2);
}

async fn a_herd_behind_an_overtaken_load_makes_one_more(rig: Rig) {
    let (one, other) = (region(&rig).await, region(&rig).await);
    let gate = Gate::default();
    let old = tokio::spawn({
        let (region, loader) = (one.clone(), gate.loader(1));
        async move { region.get_or_load("k", loader).await.unwrap().value }
    });
    gate.running.notified().await;
    other.set("k", &9).await.unwrap();
    other.invalidate("k").await.unwrap();
    let calls = Arc::new(AtomicU32::new(0));
    let tasks = herd(&one, &calls, 1000);
    eventually("all wait", async || one.stats().misses == 1001).await;
    gate.open.notify_one();
    assert_eq!(old.await.unwrap(), 1);
    for task in tasks {
        assert_eq!(task.await.unwrap(), 7);
    }
    assert_eq!(calls.load(Ordering::SeqCst), 1);
}

async fn a_herd_on_an_absence_that_is_not_cached_makes_one_load(rig: Rig) {
    let policy = RegionPolicy::new("r", TTL).none_ttl(None);
    let region: Region<Option<u64>> = rig.cache().await.region(policy).unwrap();
    let gate = Gate::default();
    let read = || {
        let (region, loader) = (region.clone(), gate.loader(None));
        tokio::spawn(async move { region.get_or_load("k", loader).await.unwrap().value })
    };
    let tasks: Vec<_> = (0..100).map(|_| read()).collect();
    gate.running.notified().await;
    eventually("all wait", async || region.stats().misses == 100).await;
    // A miss is counted a moment before its reader joins.
    tokio::time::sleep(Duration::from_millis(100)).await;
    gate.open.notify_one();
    for task in tasks {
        assert_eq!(task.await.unwrap(), None);
    }
    assert_eq!((gate.calls(), region.stats().fills_too_late), (1, 0));
    assert_eq!(region.get("k").await.unwrap().map(|read| read.value), None);
}

async fn a_deadline_ends_the_call_and_not_the_load(rig: Rig) {
    let region = region(&rig).await;
    let gate = Gate::default();
    let limit = Duration::from_millis(300);
    let options = ReadOptions::new().deadline(limit);
    let asked = std::time::Instant::now();
    let refused = region.get_or_load_with("k", options, gate.loader(1)).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Deadline);
    assert!(asked.elapsed() >= limit);
    gate.open.notify_one();
    eventually("the load has stored", async || {
        region.get_with("k", options).await.unwrap().is_some_and(|read| read.value == 1)
    })
    .await;
    assert_eq!(gate.calls(), 1);
}

async fn a_lost_token_refuses_the_fill(rig: Rig) {
    let region = region(&rig).await;
    let gate = Gate::default();
    let load = tokio::spawn({
        let (region, loader) = (region.clone(), gate.loader(1));
        async move { region.get_or_load("k", loader).await.unwrap().value }
    });
    gate.running.notified().await;
    assert_eq!(rig.raw_keys().await, ["mtcache:fill:{r:k}"]);
    assert!(rig.raw(&["PTTL", "mtcache:fill:{r:k}"]).await.into_int().unwrap() > 30_000);
    rig.raw(&["DEL", "mtcache:fill:{r:k}"]).await;
    gate.open.notify_one();
    assert_eq!(load.await.unwrap(), 1);
    assert!(region.get("k").await.unwrap().is_none());
    assert_eq!(region.stats().fills_refused, 1);
}

async fn of_two_processes_one_stores(rig: Rig) {
    let (one, two) = (region(&rig).await, region(&rig).await);
    let (gate_one, gate_two) = (Gate::default(), Gate::default());
    let load = |region: &Region<u64>, gate: &Gate, value| {
        let (region, loader) = (region.clone(), gate.loader(value));
        tokio::spawn(async move { region.get_or_load("k", loader).await.unwrap().value })
    };
    let (a, b) = (load(&one, &gate_one, 1), load(&two, &gate_two, 2));
    gate_one.running.notified().await;
    gate_two.running.notified().await;
    gate_two.open.notify_one();
    assert_eq!(b.await.unwrap(), 2);
    gate_one.open.notify_one();
    assert_eq!(a.await.unwrap(), 1);
    assert_eq!(one.get("k").await.unwrap().unwrap().value, 2);
    assert_eq!((one.stats().fills_refused, two.stats().fills_stored), (1, 1));
}

async fn a_load_waits_for_nobodys_token(rig: Rig) {
    // Left by a process that died while loading.
    rig.raw(&["SET", "mtcache:fill:{r:k}", "left behind", "PX", "100"]).await;
    let region = region(&rig).await;
    let loader = || async {
        tokio::time::sleep(Duration::from_millis(150)).await;
        Ok::<_, io::Error>(1)
    };
    assert_eq!(region.get_or_load("k", loader).await.unwrap().value, 1);
    assert_eq!(region.get("k").await.unwrap().unwrap().value, 1, "joining lengthens a token's life");
}

async fn a_key_of_another_type_is_an_error(rig: Rig) {
    rig.raw(&["RPUSH", "r:k", "x"]).await;
    let region = region(&rig).await;
    let refused = region.get_or_load("k", || async { Ok::<_, io::Error>(1) }).await;
    assert_eq!(refused.unwrap_err().kind(), ErrorKind::WrongType);
    assert_eq!((region.stats().misses, region.stats().loads), (0, 0));
}

async fn a_value_without_a_stored_form_is_an_error(rig: Rig) {
    let region: Region<f64> = rig.cache().await.region(RegionPolicy::new("r", TTL)).unwrap();
    let refused = region.get_or_load("k", || async { Ok::<_, io::Error>(f64::NAN) }).await;
    assert_eq!(refused.unwrap_err().kind(), ErrorKind::Unencodable);
}

async fn a_follower_with_a_demand_gets_what_meets_it(rig: Rig) {
    let region = region(&rig).await;
    let slow = Gate::default();
    let leader = tokio::spawn({
        let (region, loader) = (region.clone(), slow.loader(1));
        async move { region.get_or_load("k", loader).await.unwrap() }
    });
    slow.running.notified().await;
    tokio::time::sleep(Duration::from_millis(120)).await;
    // The load under way began too long ago for this reader.
    let demand = ReadOptions::new().max_age(Duration::from_millis(50));
    let read = region.get_or_load_with("k", demand, || async { Ok::<_, io::Error>(2) }).await.unwrap();
    assert_eq!(read.value, 2);
    slow.open.notify_one();
    assert_eq!(leader.await.unwrap().value, 1);
    assert_eq!(region.get("k").await.unwrap().unwrap().value, 2);
}
