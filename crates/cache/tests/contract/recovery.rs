//! A backend that stops, hangs, refuses, or loses answers. Servers outside only: the embedded engine cannot do these things.

use std::collections::HashMap;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use mtcache_cache::{
    BreakerState, Cache, Error, ErrorKind, Outcome, ReadOptions, Region, RegionPolicy, SetOptions, Source,
};
use mtcache_conformance::Program;
use mtcache_conformance::servers::{ServerOptions, TestServer};

use crate::proxy::{Mode, Proxy};
use crate::rig::eventually;

const TTL: Duration = Duration::from_secs(30);
const SHORT: Duration = Duration::from_millis(300);

fn servers() -> impl Iterator<Item = TestServer> {
    Program::ALL.into_iter().map(|program| TestServer::start(program, ServerOptions::new()).unwrap())
}

async fn open(url: &str) -> Cache {
    Cache::builder(url)
        .connect_timeout(SHORT)
        .response_timeout(SHORT)
        .backoff(Duration::from_millis(20), Duration::from_millis(200))
        .open()
        .await
        .unwrap()
}

fn region(cache: &Cache) -> Region<u64> {
    cache.region(RegionPolicy::new("r", TTL)).unwrap()
}

async fn load(region: &Region<u64>, id: &str, value: u64) -> mtcache_cache::Result<mtcache_cache::Read<u64>> {
    region.get_or_load(id, move || async move { Ok::<_, io::Error>(value) }).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_service_starts_without_its_backend_and_uses_it_once_it_is_there() {
    for mut server in servers() {
        server.stop().unwrap();
        let cache = open(&server.url()).await;
        let region = region(&cache);
        assert!(!cache.is_connected());
        let read = load(&region, "k", 1).await.unwrap();
        assert_eq!((read.value, read.source), (1, Source::Loader));
        assert_eq!(region.get("k").await.unwrap_err().kind(), ErrorKind::Unavailable);
        let error = cache.set("a", &1, SetOptions::default()).await.unwrap_err();
        assert_eq!((error.kind(), error.outcome()), (ErrorKind::Unavailable, Outcome::NotApplied));
        assert!(region.stats().backend_errors > 0);
        server.start_again().unwrap();
        assert!(cache.wait_connected(Duration::from_secs(10)).await);
        load(&region, "k", 2).await.unwrap();
        let read = load(&region, "k", 3).await.unwrap();
        assert_eq!((read.value, read.source), (2, Source::Backend));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_stopped_and_started_under_load_is_used_again() {
    for mut server in servers() {
        let cache = open(&server.url()).await;
        let region = region(&cache);
        let stop = Arc::new(AtomicBool::new(false));
        let answered = Arc::new(AtomicU64::new(0));
        let workers: Vec<_> = (0..32_u64)
            .map(|worker| {
                let (cache, region) = (cache.clone(), region.clone());
                let (stop, answered) = (Arc::clone(&stop), Arc::clone(&answered));
                tokio::spawn(async move {
                    let mut kinds: HashMap<ErrorKind, u32> = HashMap::new();
                    let mut step = 0;
                    while !stop.load(Ordering::SeqCst) {
                        step += 1;
                        let id = format!("{}", (worker * 7 + step) % 50);
                        // Reads with a loader never fail, whatever the backend does.
                        load(&region, &id, step).await.unwrap();
                        let results: [Result<(), Error>; 3] = [
                            region.get(&id).await.map(drop),
                            cache.set(&id, &step, SetOptions::ttl(TTL)).await.map(drop),
                            cache.increment("n", 1).await.map(drop),
                        ];
                        for error in results.into_iter().filter_map(Result::err) {
                            *kinds.entry(error.kind()).or_default() += 1;
                        }
                        answered.fetch_add(1, Ordering::SeqCst);
                        tokio::time::sleep(Duration::from_millis(1)).await;
                    }
                    kinds
                })
            })
            .collect();
        for _ in 0..2 {
            tokio::time::sleep(Duration::from_millis(300)).await;
            server.kill().unwrap();
            tokio::time::sleep(Duration::from_millis(500)).await;
            server.start_again().unwrap();
            let since = Instant::now();
            eventually("reads hit again", async || region.get("0").await.is_ok()).await;
            assert!(since.elapsed() < Duration::from_secs(5), "{:?}", since.elapsed());
        }
        let before = answered.load(Ordering::SeqCst);
        eventually("work goes on", async || answered.load(Ordering::SeqCst) > before + 100).await;
        stop.store(true, Ordering::SeqCst);
        let mut kinds: HashMap<ErrorKind, u32> = HashMap::new();
        for worker in workers {
            for (kind, n) in worker.await.unwrap() {
                *kinds.entry(kind).or_default() += n;
            }
        }
        let allowed =
            [ErrorKind::Unavailable, ErrorKind::ConnectionLost, ErrorKind::Timeout, ErrorKind::NotNow];
        assert!(kinds.keys().all(|kind| allowed.contains(kind)), "{kinds:?}");
        assert!(kinds.contains_key(&ErrorKind::Unavailable), "{kinds:?}");
        eventually("nothing waits", async || {
            let _ = region.get("0").await;
            cache.pending_invalidations() == (0, 0)
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failed_write_is_made_good_before_the_next_read() {
    for server in servers() {
        let proxy = Proxy::before(server.port()).await;
        let cache = open(&proxy.url()).await;
        let region = region(&cache);
        let mut raw = server.client().unwrap();
        region.set("set", &1).await.unwrap();
        region.set("gone", &1).await.unwrap();
        region.set("other", &1).await.unwrap();

        proxy.set(Mode::SwallowRequests);
        let error = region.set("set", &2).await.unwrap_err();
        assert_eq!((error.kind(), error.outcome()), (ErrorKind::Timeout, Outcome::Unknown));
        assert_eq!(cache.pending_invalidations(), (1, 0));
        let error = region.invalidate("gone").await;
        // Either still in the hanging connection or already on a new one.
        if let Err(error) = error {
            assert!(error.is_backend_down(), "{error}");
        }
        proxy.set(Mode::Pass);
        eventually("reads again", async || region.get("other").await.is_ok()).await;
        assert_eq!(cache.pending_invalidations(), (0, 0));
        assert!(region.get("set").await.unwrap().is_none(), "what the failed set was to replace is gone");
        assert!(region.get("gone").await.unwrap().is_none());
        assert!(region.get("other").await.unwrap().is_some());
        assert!(raw.command(&["GET", "r:set"]).unwrap().is_null());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_may_have_happened_is_sent_again_only_where_that_is_safe() {
    for server in servers() {
        let proxy = Proxy::before(server.port()).await;
        let cache = open(&proxy.url()).await;
        let mut raw = server.client().unwrap();

        // INCR reaches the server, its answer does not come back: never again, and the caller learns it.
        proxy.set(Mode::CutReplies);
        let error = cache.increment("n", 1).await.unwrap_err();
        assert_eq!((error.kind(), error.outcome()), (ErrorKind::ConnectionLost, Outcome::Unknown));
        assert_eq!(raw.command(&["GET", "n"]).unwrap().text().as_deref(), Some("1"));

        // A lock likewise.
        eventually("connected", async || cache.ping().await.is_ok()).await;
        proxy.set(Mode::CutReplies);
        let error = cache.set("lock", "me", SetOptions::ttl(TTL).if_absent()).await.unwrap_err();
        assert_eq!((error.kind(), error.outcome()), (ErrorKind::ConnectionLost, Outcome::Unknown));
        assert_eq!(cache.pending_invalidations(), (0, 0), "nobody's lock is invalidated");

        // A read and a plain set are sent again by themselves.
        eventually("connected", async || cache.ping().await.is_ok()).await;
        proxy.set(Mode::CutReplies);
        assert_eq!(cache.get::<u32>("n").await.unwrap(), Some(1));
        proxy.set(Mode::CutReplies);
        assert!(cache.set("k", &5, SetOptions::ttl(TTL)).await.unwrap());
        assert_eq!(cache.get::<u32>("k").await.unwrap(), Some(5));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_half_open_connection_is_noticed_and_replaced() {
    for server in servers() {
        let proxy = Proxy::before(server.port()).await;
        let cache = open(&proxy.url()).await;
        cache.set("k", &1, SetOptions::ttl(TTL)).await.unwrap();
        let before = proxy.connections();
        proxy.set(Mode::SwallowReplies);
        let since = Instant::now();
        assert_eq!(cache.get::<u32>("k").await.unwrap_err().kind(), ErrorKind::Timeout);
        assert!(since.elapsed() < SHORT * 4, "{:?}", since.elapsed());
        eventually("reads again", async || cache.get::<u32>("k").await.is_ok()).await;
        assert!(proxy.connections() > before);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_write_that_was_given_up_never_takes_effect_after_a_later_one() {
    for server in servers() {
        let proxy = Proxy::before(server.port()).await;
        let cache = open(&proxy.url()).await;
        let region = region(&cache);
        region.set("k", &1).await.unwrap();
        proxy.set(Mode::HoldRequests);
        assert_eq!(region.set("k", &2).await.unwrap_err().outcome(), Outcome::Unknown);
        eventually("connected", async || cache.ping().await.is_ok()).await;
        region.set("k", &3).await.unwrap();
        // Only now does the network deliver the first.
        proxy.set(Mode::Pass);
        eventually("the old connection is settled", async || proxy.is_settled()).await;
        tokio::time::sleep(Duration::from_millis(100)).await;
        assert_eq!(region.get("k").await.unwrap().unwrap().value, 3);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_frozen_server_is_a_timeout_and_thawed_it_is_used_again() {
    for server in servers() {
        let cache = open(&server.url()).await;
        let region = region(&cache);
        region.set("k", &1).await.unwrap();
        server.pause().unwrap();
        assert_eq!(region.get("k").await.unwrap_err().kind(), ErrorKind::Timeout);
        // A reader with a loader has its value within the timeouts.
        let since = Instant::now();
        assert_eq!(load(&region, "k", 2).await.unwrap().value, 2);
        assert!(since.elapsed() < Duration::from_secs(3), "{:?}", since.elapsed());
        server.resume().unwrap();
        eventually("reads again", async || region.get("k").await.is_ok()).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dropped_calls_never_shift_the_replies_of_others() {
    for server in servers() {
        let cache = open(&server.url()).await;
        let entries: Vec<(String, u64)> = (0..100).map(|i| (format!("k{i}"), i)).collect();
        cache.set_many(&entries, TTL).await.unwrap();
        let cut = Arc::new(AtomicU64::new(0));
        let workers: Vec<_> = (0..20_u64)
            .map(|worker| {
                let (cache, cut) = (cache.clone(), Arc::clone(&cut));
                tokio::spawn(async move {
                    for step in 0..300_u64 {
                        let n = (worker * 31 + step) % 100;
                        let key = format!("k{n}");
                        // Dropped after so many polls: at every point where it awaits, over the run.
                        let get = cache.get::<u64>(&key);
                        if let Some(value) = poll_at_most(get, step % 4).await {
                            assert_eq!(value.unwrap(), Some(n));
                        } else {
                            cut.fetch_add(1, Ordering::SeqCst);
                        }
                        // Sets of keys of their own: one that is dropped has its key invalidated.
                        let written = format!("w{n}");
                        let set = cache.set(&written, &n, SetOptions::ttl(TTL));
                        let _ = poll_at_most(set, (step + 1) % 4).await;
                        let value = cache.get::<u64>(&written).await.unwrap();
                        assert!(value.is_none_or(|value| value == n), "{value:?} for {n}");
                        let names = ["k1", "k2", &key];
                        let many = cache.get_many::<u64, _>(&names);
                        if let Some(values) = poll_at_most(many, (step + 2) % 5).await {
                            assert_eq!(values.unwrap(), [Some(1), Some(2), Some(n)]);
                        }
                    }
                })
            })
            .collect();
        for worker in workers {
            worker.await.unwrap();
        }
        assert!(cut.load(Ordering::SeqCst) > 0, "no call was dropped: nothing was tested");
        for (key, n) in entries {
            assert_eq!(cache.get::<u64>(&key).await.unwrap(), Some(n));
        }
    }
}

/// The future's answer if it has one within so many polls; else it is dropped where it stands.
async fn poll_at_most<F: Future>(future: F, polls: u64) -> Option<F::Output> {
    let mut future = Box::pin(future);
    let mut left = polls + 1;
    std::future::poll_fn(move |context| {
        if let std::task::Poll::Ready(output) = future.as_mut().poll(context) {
            return std::task::Poll::Ready(Some(output));
        }
        left -= 1;
        if left == 0 { std::task::Poll::Ready(None) } else { std::task::Poll::Pending }
    })
    .await
}

/// Row 18: a frozen server, a queue that is full and one slow reply are three outcomes, and the first alone makes calls be refused.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_frozen_server_a_full_queue_and_a_slow_reply_are_three_outcomes() {
    for server in servers() {
        let cache = Cache::builder(server.url())
            .connect_timeout(SHORT)
            .response_timeout(SHORT)
            .backoff(Duration::from_millis(20), Duration::from_millis(200))
            .max_in_flight(10)
            .open()
            .await
            .unwrap();
        let region = region(&cache);
        let ask = async |n: usize| {
            let calls: Vec<_> = (0..n)
                .map(|_| {
                    let region = region.clone();
                    tokio::spawn(async move { region.get("k").await.map_err(|error| error.kind()).err() })
                })
                .collect();
            let mut kinds = Vec::new();
            for call in calls {
                kinds.push(call.await.unwrap());
            }
            kinds
        };
        // Slow, and too slow for one call: that one alone.
        server.pause().unwrap();
        assert_eq!(ask(1).await, [Some(ErrorKind::Timeout)]);
        server.resume().unwrap();
        eventually("the next is answered", async || region.get("k").await.is_ok()).await;
        assert_eq!(cache.breaker(), BreakerState::Closed);
        // Full: shed, by us and at once, whatever the server does.
        server.pause().unwrap();
        let kinds = ask(30).await;
        server.resume().unwrap();
        assert_eq!(kinds.iter().filter(|kind| **kind == Some(ErrorKind::Shed)).count(), 20, "{kinds:?}");
        eventually("the next is answered", async || region.get("k").await.is_ok()).await;
        assert_eq!(cache.breaker(), BreakerState::Closed);
        // Frozen: after the first timeouts nobody waits any more, and a reader with a loader has its value at once.
        server.pause().unwrap();
        eventually("it is open", async || {
            let _ = region.get("k").await;
            cache.breaker() == BreakerState::Open
        })
        .await;
        assert_eq!(ask(1).await, [Some(ErrorKind::Unavailable)]);
        let read = load(&region, "k", 1).await.unwrap();
        assert_eq!((read.value, read.source), (1, Source::Loader));
        server.resume().unwrap();
        eventually("it is used again", async || region.get("k").await.is_ok()).await;
        assert_eq!(cache.breaker(), BreakerState::Closed);
    }
}

/// A reader's own limit is shorter than the backend's, is kept, and hides a dead connection from nobody.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_read_waits_for_the_backend_no_longer_than_it_says() {
    const LIMIT: Duration = Duration::from_millis(30);
    for server in servers() {
        let proxy = Proxy::before(server.port()).await;
        let cache = open(&proxy.url()).await;
        let region = region(&cache);
        region.set("k", &1).await.unwrap();
        let options = ReadOptions::new().backend_timeout(LIMIT);
        let connections = proxy.connections();
        proxy.set(Mode::SwallowReplies);
        let since = Instant::now();
        let error = region.get_with("k", options).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Timeout);
        assert!(since.elapsed() >= LIMIT && since.elapsed() < SHORT, "{:?}", since.elapsed());
        let aged = region.get_with("k", options.with_age()).await.unwrap_err();
        assert_eq!(aged.kind(), ErrorKind::Timeout);
        let (since, errors) = (Instant::now(), region.stats().backend_errors);
        let batch = tokio::spawn({
            let region = region.clone();
            let loader = |_: Vec<&str>| async { Ok::<_, io::Error>([("k", 2)]) };
            async move { region.get_or_load_each(["k"], options, loader).await.unwrap() }
        });
        eventually("the look is given up", async || region.stats().backend_errors > errors).await;
        assert!(since.elapsed() < SHORT, "{:?}", since.elapsed());
        assert!(batch.await.unwrap().iter().all(Result::is_ok));
        let late = ReadOptions::new().deadline(LIMIT);
        let each = region
            .get_or_load_each(["l", "m"], late, |_: Vec<&str>| {
                std::future::pending::<io::Result<Vec<(&str, u64)>>>()
            })
            .await
            .unwrap();
        for outcome in each {
            assert_eq!(outcome.unwrap_err().kind(), ErrorKind::Deadline);
        }
        let loader = || async { Ok::<_, io::Error>(2) };
        let read = region.get_or_load_with("k", options, loader).await.unwrap();
        // Where the dead connection has been replaced by now, the backend answers.
        let is_replaced =
            proxy.connections() > connections && (read.value, read.source) == (1, Source::Backend);
        assert!(is_replaced || (read.value, read.source) == (2, Source::Loader), "{read:?}");
        // No caller ever waits for the response timeout, and the connection is replaced all the same.
        eventually("it is read again", async || region.get_with("k", options).await.is_ok()).await;
        assert!(proxy.connections() > connections);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn more_than_the_bound_is_shed_at_once() {
    for server in servers() {
        let cache = Cache::builder(server.url()).max_in_flight(10).open().await.unwrap();
        server.pause().unwrap();
        let calls: Vec<_> = (0..50)
            .map(|_| {
                let cache = cache.clone();
                tokio::spawn(async move { cache.get::<u32>("k").await.map_err(|e| e.kind()) })
            })
            .collect();
        tokio::time::sleep(Duration::from_millis(200)).await;
        server.resume().unwrap();
        let mut shed = 0;
        for call in calls {
            match call.await.unwrap() {
                Ok(None) => {}
                Err(ErrorKind::Shed) => shed += 1,
                other => panic!("{other:?}"),
            }
        }
        assert_eq!(shed, 40);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn credentials_are_used_and_wrong_ones_are_refused_at_once() {
    for program in Program::ALL {
        let server = TestServer::start(program, ServerOptions::new().password("s3cret")).unwrap();
        for url in [server.url(), server.unix_url()] {
            let cache = Cache::connect(&url).await.unwrap();
            cache.set("k", &1, SetOptions::default()).await.unwrap();
        }
        let port = server.port();
        for url in [format!("redis://127.0.0.1:{port}"), format!("redis://:wrong@127.0.0.1:{port}")] {
            let error = Cache::connect(&url).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Denied, "{error}");
            assert!(!error.to_string().contains("wrong@"), "{error}");
        }
        let database = Cache::connect(&format!("redis://:s3cret@127.0.0.1:{port}/3")).await.unwrap();
        assert_eq!(database.get::<u32>("k").await.unwrap(), None, "another database");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_user_whose_password_is_changed_is_denied_until_it_is_put_right() {
    for server in servers() {
        let mut raw = server.client().unwrap();
        raw.command(&["ACL", "SETUSER", "app", "on", ">first", "~*", "&*", "+@all"]).unwrap();
        let socket = server.unix_url();
        for url in [
            format!("redis://app:first@127.0.0.1:{}", server.port()),
            format!("{socket}?user=app&password=first"),
        ] {
            let cache = open(&url).await;
            cache.set("k", &1, SetOptions::default()).await.unwrap();
            raw.command(&["ACL", "SETUSER", "app", "resetpass", ">second"]).unwrap();
            raw.command(&["CLIENT", "KILL", "USER", "app"]).unwrap();
            let mut denials = 0;
            eventually("it is denied", async || match cache.get::<u32>("k").await.unwrap_err() {
                error if error.kind() == ErrorKind::Denied => {
                    assert_eq!(error.outcome(), Outcome::NotApplied);
                    denials += 1;
                    denials == 20
                }
                // The connection that was closed, once.
                error => {
                    assert!(denials == 0 && error.is_backend_down(), "after {denials} denials: {error}");
                    false
                }
            })
            .await;
            // The log has one line for the attempts of a minute, with their number.
            let log = raw.command(&["ACL", "LOG"]).unwrap();
            assert!(format!("{log:?}").contains("auth"), "{log:?}");
            raw.command(&["ACL", "SETUSER", "app", ">first"]).unwrap();
            eventually("it is used again", async || cache.get::<u32>("k").await.is_ok()).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_server_refuses_writes_with_its_own_kind() {
    for program in Program::ALL {
        let options = ServerOptions::new().args(["--maxmemory", "1", "--maxmemory-policy", "noeviction"]);
        let server = TestServer::start(program, options).unwrap();
        let cache = open(&server.url()).await;
        let region = region(&cache);
        // An empty engine may have room for a first value.
        let _ = region.set("first", &1).await;
        assert_eq!(region.set("k", &1).await.unwrap_err().kind(), ErrorKind::OutOfMemory);
        let read = load(&region, "k", 1).await.unwrap();
        assert_eq!((read.value, read.source), (1, Source::Loader));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn too_many_failed_writes_invalidate_the_whole_region() {
    let mut server = TestServer::redis(ServerOptions::new().args(["--appendonly", "yes"])).unwrap();
    let cache = open(&server.url()).await;
    let region = region(&cache);
    let other: Region<u64> = cache.region(RegionPolicy::new("other", TTL)).unwrap();
    let entries: Vec<(String, u64)> = (0..10_001).map(|i| (i.to_string(), i)).collect();
    region.set_many(&entries).await.unwrap();
    region.set("survivor of the outage", &1).await.unwrap();
    other.set("k", &1).await.unwrap();
    server.stop().unwrap();
    eventually("the loss is noticed", async || region.set_many(&entries).await.is_err()).await;
    assert_eq!(cache.pending_invalidations(), (0, 1));
    // Of keys of no region nothing but themselves may be invalidated: what is beyond the bound is given up and counted.
    assert!(cache.set_many(&entries, TTL).await.is_err());
    assert_eq!(cache.pending_invalidations(), (10_000, 1));
    let plain = cache.stats().into_iter().find(|(name, _)| name == "keys").unwrap().1;
    assert_eq!(plain.invalidations_lost, 1);
    server.start_again().unwrap();
    eventually("reads again", async || other.get("k").await.is_ok()).await;
    assert_eq!(cache.pending_invalidations(), (0, 0));
    assert!(region.get("survivor of the outage").await.unwrap().is_none());
    assert!(other.get("k").await.unwrap().is_some());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_batch_is_answered_by_its_loader_while_the_backend_is_away() {
    for mut server in servers() {
        let cache = open(&server.url()).await;
        let region = region(&cache);
        let values = async |factor: u64| -> Vec<(u64, Source)> {
            let loader = move |ids: Vec<&'static str>| async move {
                Ok::<_, io::Error>(ids.into_iter().map(move |id| (id, id.parse::<u64>().unwrap() * factor)))
            };
            let reads = region.get_or_load_many(["1", "2"], loader).await.unwrap();
            reads.into_iter().map(|read| read.map(|read| (read.value, read.source)).unwrap()).collect()
        };
        server.stop().unwrap();
        eventually("the loss is noticed", async || !cache.is_connected()).await;
        assert_eq!(values(10).await, [(10, Source::Loader), (20, Source::Loader)]);
        assert!(region.stats().backend_errors > 0);
        server.start_again().unwrap();
        assert!(cache.wait_connected(Duration::from_secs(10)).await);
        assert_eq!(values(100).await, [(100, Source::Loader), (200, Source::Loader)]);
        assert_eq!(values(0).await, [(100, Source::Backend), (200, Source::Backend)]);
    }
}

/// Nor does its link, whose commands fail; what waits must not keep readers for as long.
#[test]
fn what_waits_keeps_no_reader_whose_caches_runtime_stands_still() {
    let of_one_thread = || tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    for server in servers() {
        let (opened_in, other) = (of_one_thread(), of_one_thread());
        let region = opened_in.block_on(async {
            let region = region(&open(&server.url()).await);
            region.set("k", &1).await.unwrap();
            server.pause().unwrap();
            assert!(region.set("k", &2).await.is_err());
            server.resume().unwrap();
            region
        });
        assert_eq!(region.cache().pending_invalidations(), (1, 0));
        let read = async { tokio::time::timeout(Duration::from_secs(20), load(&region, "k", 3)).await };
        let read = other.block_on(read).expect("it does not wait for ever").unwrap();
        assert_eq!((read.value, read.source), (3, Source::Loader));
        opened_in.block_on(eventually("what waited is made good", async || {
            region.get("k").await.is_ok_and(|read| read.is_none_or(|read| read.value == 3))
        }));
        assert_eq!(region.cache().pending_invalidations(), (0, 0));
    }
}
