//! Leases: one load among all processes, whatever becomes of its holder. Other caches stand for other processes here; `processes.rs` has
//! real ones.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use mtcache_cache::{ErrorKind, ReadOptions, Region, RegionPolicy, Source};
use mtcache_conformance::Program;
use mtcache_conformance::servers::{ServerOptions, TestServer};
use tokio::task::JoinHandle;

use crate::loads::{Gate, herd};
use crate::proxy::{Mode, Proxy};
use crate::rig::{Rig, eventually, on_every_backend};

const TTL: Duration = Duration::from_secs(30);
/// Longer than any of these tests waits for something that is to happen before the lease ends by itself.
const LONG: Duration = Duration::from_mins(1);
const TOKEN: &str = "mtcache:fill:{r:k}";

on_every_backend! {
    four_caches_make_one_load_where_the_region_leases,
    a_failing_holder_is_followed_at_once,
    a_panicking_holder_is_followed_at_once,
    a_holder_that_died_is_followed_when_its_lease_ends,
    a_long_load_keeps_its_lease,
    a_holder_that_lost_its_lease_stores_nothing,
    an_invalidation_ends_the_lease_and_the_next_holder_stores,
    a_lease_that_never_ends_is_waited_for_no_longer_than_one_load,
    what_is_not_stored_leaves_no_lease,
    a_refresh_is_leased_too,
    a_lease_is_off_unless_asked_for,
    who_joins_a_lease_does_not_lengthen_it,
}

fn leased(lease: Duration) -> RegionPolicy {
    RegionPolicy::new("r", TTL).lease(lease)
}

async fn region(rig: &Rig, policy: RegionPolicy) -> Region<u64> {
    rig.cache().await.region(policy).unwrap()
}

fn reading(region: &Region<u64>, gate: &Gate, value: u64) -> JoinHandle<mtcache_cache::Result<u64>> {
    let (region, loader) = (region.clone(), gate.loader(value));
    tokio::spawn(async move { region.get_or_load("k", loader).await.map(|read| read.value) })
}

async fn waits_for_the_lease(region: &Region<u64>) {
    eventually("it waits for the lease", async || region.stats().lease_waits == 1).await;
}

async fn four_caches_make_one_load_where_the_region_leases(rig: Rig) {
    let calls = Arc::new(AtomicU32::new(0));
    let mut tasks = Vec::new();
    for _ in 0..4 {
        let region = region(&rig, leased(LONG)).await;
        tasks.extend(herd(&region, &calls, 2500));
    }
    for task in tasks {
        assert_eq!(task.await.unwrap(), 7);
    }
    assert_eq!(calls.load(Ordering::SeqCst), 1);
    assert_eq!(rig.raw_keys().await, ["r:k"], "the lease is gone");
}

async fn a_failing_holder_is_followed_at_once(rig: Rig) {
    let (one, two) = (region(&rig, leased(LONG)).await, region(&rig, leased(LONG)).await);
    let gate = Gate::default();
    let holder = tokio::spawn({
        let (one, gate) = (one.clone(), gate.clone());
        let loader = move || async move {
            gate.running.notify_one();
            gate.open.notified().await;
            Err::<u64, _>(io::Error::other("the exchange says no"))
        };
        async move { one.get_or_load("k", loader).await }
    });
    gate.running.notified().await;
    let next = Gate::default();
    next.open.notify_one();
    let waiter = reading(&two, &next, 2);
    waits_for_the_lease(&two).await;
    assert_eq!(next.calls(), 0);
    let began = Instant::now();
    gate.open.notify_one();
    assert_eq!(holder.await.unwrap().unwrap_err().kind(), ErrorKind::Loader);
    assert_eq!(waiter.await.unwrap().unwrap(), 2);
    assert!(began.elapsed() < LONG / 6, "{:?}", began.elapsed());
    assert_eq!(one.get("k").await.unwrap().unwrap().value, 2);
}

async fn a_panicking_holder_is_followed_at_once(rig: Rig) {
    let (one, two) = (region(&rig, leased(LONG)).await, region(&rig, leased(LONG)).await);
    let gate = Gate::default();
    let holder = tokio::spawn({
        let (one, gate) = (one.clone(), gate.clone());
        let loader = move || async move {
            gate.running.notify_one();
            gate.open.notified().await;
            assert!(gate.calls() > 0, "a loader that panics, on purpose");
            Ok::<_, io::Error>(1)
        };
        async move { one.get_or_load("k", loader).await }
    });
    gate.running.notified().await;
    let next = Gate::default();
    next.open.notify_one();
    let waiter = reading(&two, &next, 2);
    waits_for_the_lease(&two).await;
    gate.open.notify_one();
    assert_eq!(holder.await.unwrap().unwrap_err().kind(), ErrorKind::LoaderPanicked);
    assert_eq!(waiter.await.unwrap().unwrap(), 2);
}

async fn a_holder_that_died_is_followed_when_its_lease_ends(rig: Rig) {
    let left = Duration::from_millis(600);
    let region = region(&rig, leased(LONG)).await;
    let began = Instant::now();
    rig.raw(&["SET", TOKEN, "of a process that died", "PX", "600"]).await;
    let read = region.get_or_load("k", || async { Ok::<_, io::Error>(1) }).await.unwrap();
    assert_eq!((read.value, read.source), (1, Source::Loader));
    let waited = began.elapsed();
    assert!(waited + Duration::from_millis(20) >= left, "{waited:?}");
    assert!(waited < left + Duration::from_secs(2), "the bound is the lease and one look: {waited:?}");
    assert_eq!(region.get("k").await.unwrap().unwrap().value, 1);
}

async fn a_long_load_keeps_its_lease(rig: Rig) {
    // Long enough that a busy machine renews it in time.
    let lease = Duration::from_secs(2);
    let (one, two) = (region(&rig, leased(lease)).await, region(&rig, leased(lease)).await);
    let (gate, other) = (Gate::default(), Gate::default());
    let holder = reading(&one, &gate, 1);
    gate.running.notified().await;
    let waiter = reading(&two, &other, 2);
    tokio::time::sleep(lease + lease / 2).await;
    gate.open.notify_one();
    assert_eq!((holder.await.unwrap().unwrap(), waiter.await.unwrap().unwrap()), (1, 1));
    assert_eq!((gate.calls(), other.calls(), one.stats().fills_stored), (1, 0, 1));
}

async fn a_holder_that_lost_its_lease_stores_nothing(rig: Rig) {
    for taken_by_another in [false, true] {
        let region = region(&rig, leased(Duration::from_millis(300))).await;
        let gate = Gate::default();
        let load = reading(&region, &gate, 1);
        gate.running.notified().await;
        rig.raw(&["DEL", TOKEN]).await;
        if taken_by_another {
            rig.raw(&["SET", TOKEN, "the next holder's", "PX", "60000"]).await;
        }
        // Long enough to renew, if it did not look whose it is.
        tokio::time::sleep(Duration::from_millis(250)).await;
        let left = rig.raw(&["PTTL", TOKEN]).await.into_int().unwrap();
        gate.open.notify_one();
        assert_eq!(load.await.unwrap().unwrap(), 1, "its own callers have their value");
        assert_eq!((region.get("k").await.unwrap(), region.stats().fills_refused), (None, 1));
        if taken_by_another {
            assert!(left > 50_000, "another's lease is not touched: {left} ms left");
            assert_eq!(rig.raw_get(TOKEN).await.as_deref(), Some("the next holder's"));
        } else {
            assert_eq!(left, -2, "a renewal does not bring a lease back");
        }
    }
}

async fn an_invalidation_ends_the_lease_and_the_next_holder_stores(rig: Rig) {
    let (one, two) = (region(&rig, leased(LONG)).await, region(&rig, leased(LONG)).await);
    let (old, new) = (Gate::default(), Gate::default());
    let zombie = reading(&one, &old, 1);
    old.running.notified().await;
    let waiter = reading(&two, &new, 2);
    waits_for_the_lease(&two).await;
    rig.cache().await.region::<u64>(leased(LONG)).unwrap().invalidate("k").await.unwrap();
    new.running.notified().await;
    old.open.notify_one();
    assert_eq!(zombie.await.unwrap().unwrap(), 1);
    assert_eq!(one.stats().fills_refused, 1);
    new.open.notify_one();
    assert_eq!(waiter.await.unwrap().unwrap(), 2);
    assert_eq!(one.get("k").await.unwrap().unwrap().value, 2);
}

async fn a_lease_that_never_ends_is_waited_for_no_longer_than_one_load(rig: Rig) {
    let policy = leased(Duration::from_millis(100)).load_timeout(Duration::from_millis(400));
    let region = region(&rig, policy).await;
    rig.raw(&["SET", TOKEN, "of nobody, and without an expiry"]).await;
    let began = Instant::now();
    let read = region.get_or_load("k", || async { Ok::<_, io::Error>(1) }).await.unwrap();
    let waited = began.elapsed();
    assert_eq!(read.value, 1);
    assert!(waited >= Duration::from_millis(480) && waited < Duration::from_secs(3), "{waited:?}");
    assert_eq!(region.stats().lease_timeouts, 1);
}

async fn what_is_not_stored_leaves_no_lease(rig: Rig) {
    let region: Region<Option<u64>> = rig.cache().await.region(leased(LONG).none_ttl(None)).unwrap();
    let read = region.get_or_load("k", || async { Ok::<_, io::Error>(None) }).await.unwrap();
    assert_eq!(read.value, None);
    eventually("the lease is given back", async || rig.raw_keys().await.is_empty()).await;
}

async fn a_refresh_is_leased_too(rig: Rig) {
    let (one, two) = (region(&rig, leased(LONG)).await, region(&rig, leased(LONG)).await);
    one.set("k", &1).await.unwrap();
    one.expire("k", TTL / 2).await.unwrap();
    let calls = Arc::new(AtomicU32::new(0));
    let refresh = |region: &Region<u64>| {
        let (region, calls) = (region.clone(), Arc::clone(&calls));
        let demand = ReadOptions::new().max_age(Duration::from_secs(5));
        let loader = move || async move {
            calls.fetch_add(1, Ordering::SeqCst);
            tokio::time::sleep(Duration::from_millis(100)).await;
            Ok::<_, io::Error>(2)
        };
        tokio::spawn(async move { region.get_or_load_with("k", demand, loader).await.unwrap().value })
    };
    let tasks = [refresh(&one), refresh(&two)];
    for task in tasks {
        assert_eq!(task.await.unwrap(), 2);
    }
    assert_eq!(calls.load(Ordering::SeqCst), 1);
}

async fn a_lease_is_off_unless_asked_for(rig: Rig) {
    let (one, two) =
        (region(&rig, RegionPolicy::new("r", TTL)).await, region(&rig, RegionPolicy::new("r", TTL)).await);
    let (a, b) = (Gate::default(), Gate::default());
    let loads = [reading(&one, &a, 1), reading(&two, &b, 2)];
    a.running.notified().await;
    b.running.notified().await;
    a.open.notify_one();
    b.open.notify_one();
    for load in loads {
        load.await.unwrap().unwrap();
    }
    assert_eq!(one.stats().lease_waits + two.stats().lease_waits, 0);
    let short = RegionPolicy::new("r", TTL).lease(Duration::from_millis(49));
    assert_eq!(rig.cache().await.region::<u64>(short).unwrap_err().kind(), ErrorKind::Config);
    let endless = rig.cache().await.region::<u64>(leased(Duration::MAX)).unwrap_err();
    assert!(endless.kind() == ErrorKind::Config && endless.to_string().contains("longer than"), "{endless}");
}

async fn who_joins_a_lease_does_not_lengthen_it(rig: Rig) {
    let leasing = region(&rig, leased(Duration::from_secs(5))).await;
    // Another service has not heard of leases yet.
    let joining = region(&rig, RegionPolicy::new("r", TTL)).await;
    let (holder, joiner) = (Gate::default(), Gate::default());
    let held = reading(&leasing, &holder, 1);
    holder.running.notified().await;
    let joined = reading(&joining, &joiner, 2);
    joiner.running.notified().await;
    let left = rig.raw(&["PTTL", TOKEN]).await.into_int().unwrap();
    assert!(
        (0..=5000).contains(&left),
        "the holder would be waited for longer than its region says: {left} ms"
    );
    joiner.open.notify_one();
    holder.open.notify_one();
    for load in [held, joined] {
        load.await.unwrap().unwrap();
    }
    assert_eq!(leasing.stats().fills_stored + joining.stats().fills_stored, 1);
}

/// The request of a load whose connection was lost takes effect when the load has begun by a second one and its key has been invalidated. The
/// server does not let us close the connection before: nothing but the tokens keeps the old load from storing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_that_comes_late_brings_no_token_back() {
    for program in Program::ALL {
        for policy in [RegionPolicy::new("r", TTL), leased(LONG)] {
            let server = TestServer::start(program, ServerOptions::new()).unwrap();
            server.client().unwrap().command(&["ACL", "SETUSER", "default", "-client|kill"]).unwrap();
            let proxy = Proxy::before(server.port()).await;
            let cache = mtcache_cache::Cache::builder(proxy.url())
                .backoff(Duration::from_millis(20), Duration::from_millis(100))
                .open()
                .await
                .unwrap();
            let region: Region<u64> = cache.region(policy.max_loads(1, 100)).unwrap();
            let (first, second) = (Gate::default(), Gate::default());
            let occupied = tokio::spawn({
                let (region, loader) = (region.clone(), first.loader(0));
                async move { region.get_or_load("other", loader).await }
            });
            first.running.notified().await;
            // It has missed and waits for its place; what it sends next is the request to begin.
            let load = reading(&region, &second, 1);
            eventually("it waits for its place", async || region.stats().misses == 2).await;
            tokio::time::sleep(Duration::from_millis(50)).await;
            // Not at the first request there is: that may be the one that stores the other value.
            proxy.hold_and_cut_at(TOKEN);
            first.open.notify_one();
            occupied.await.unwrap().unwrap();
            second.running.notified().await;
            assert!(proxy.is_holding(), "{program:?}");
            region.invalidate("k").await.unwrap();
            proxy.set(Mode::Pass);
            eventually("what was held back has arrived", async || proxy.is_settled()).await;
            eventually("it has taken effect", async || {
                let left = server.client().unwrap().command(&["EXISTS", TOKEN]).unwrap();
                left == mtcache_conformance::Value::Integer(1)
            })
            .await;
            second.open.notify_one();
            assert_eq!(load.await.unwrap().unwrap(), 1);
            assert_eq!(region.get("k").await.unwrap(), None, "{program:?}: stored after the invalidation");
        }
    }
}
