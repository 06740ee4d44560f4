//! What only the engine in this process can do: run a command whose effect its own journal then fails to keep.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::FutureExt;
use mtcache_cache::{Cache, ErrorKind, Outcome, Region, RegionMode, RegionPolicy, SetOptions};
use mtcache_node::{AppendOnly, Node, NodeOptions};
use mtcache_persistence::AppendFsync;
use mtcache_persistence::disk::{Fault, SimDisk};
use tokio::runtime::{Builder, Runtime};

use crate::rig::eventually;

const TTL: Duration = Duration::from_mins(5);

fn node_on(disk: &SimDisk) -> Arc<Node> {
    let mut append_only = AppendOnly::in_dir(Path::new("/data"));
    append_only.fsync = AppendFsync::Always;
    let options = NodeOptions { append_only: Some(append_only), ..NodeOptions::default() };
    Arc::new(Node::open_on(&options, Arc::new(disk.clone())).unwrap())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_write_that_ran_and_could_not_be_kept_has_an_unknown_outcome() {
    let disk = SimDisk::with_dir("/data");
    let cache = Cache::builder("embedded://").on_node(node_on(&disk), 0).open().await.unwrap();
    let region = cache.region::<u64>(RegionPolicy::new("r", TTL)).unwrap();
    cache.increment("n", 1).await.unwrap();
    region.set("k", &1).await.unwrap();

    disk.inject(Fault::SyncFails { times: u32::MAX });
    disk.inject(Fault::Full { free: 0 });
    let error = cache.increment("n", 1).await.unwrap_err();
    assert_eq!((error.kind(), error.outcome()), (ErrorKind::NotNow, Outcome::Unknown), "{error}");
    let error = region.set("k", &2).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotNow, "{error}");
    assert_eq!(cache.pending_invalidations(), (1, 0), "as for every write that failed");

    disk.heal();
    eventually("writes are taken again", async || cache.set("probe", &1, SetOptions::ttl(TTL)).await.is_ok())
        .await;
    // Who had taken it for not applied would have counted twice.
    assert_eq!(cache.get::<i64>("n").await.unwrap(), Some(2));
    assert_eq!(region.get("k").await.unwrap().map(|read| read.value), None);
}

/// A region of the engine in this process, with something that waits to be invalidated under "k".
async fn with_something_that_waits() -> Region<u64> {
    something_waits_in("embedded://").await
}

async fn something_waits_in(url: &str) -> Region<u64> {
    let region = Cache::connect(url).await.unwrap().region::<u64>(RegionPolicy::new("r", TTL)).unwrap();
    region.set("k", &1).await.unwrap();
    region.control().set_mode(RegionMode::Killed);
    region.get_or_load("k", || async { Ok::<_, std::io::Error>(2) }).await.unwrap();
    region.control().set_mode(RegionMode::On);
    assert_eq!(region.cache().pending_invalidations(), (1, 0));
    region
}

/// Polls a read outside of any runtime until it is there.
fn read_outside(region: &Region<u64>) -> Option<u64> {
    let mut read = Box::pin(region.get("k"));
    let began = Instant::now();
    loop {
        if let Some(read) = (&mut read).now_or_never() {
            return read.unwrap().map(|read| read.value);
        }
        assert!(began.elapsed() < Duration::from_secs(20), "nothing brings what waits to the engine");
        std::thread::sleep(Duration::from_millis(1));
    }
}

fn of_one_thread() -> Runtime {
    Builder::new_current_thread().enable_all().build().unwrap()
}

/// A read of an engine in this process needs no runtime, and has none from a thread of its caller's own.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_waits_is_made_good_for_a_reader_outside_of_any_runtime() {
    let region = with_something_that_waits().await;
    let reader = std::thread::spawn(move || read_outside(&region));
    assert_eq!(tokio::task::spawn_blocking(|| reader.join().unwrap()).await.unwrap(), None);
}

/// A runtime of one thread runs only while somebody waits in it. What a reader began there must not stop when he leaves, for all others wait
/// for it.
#[test]
fn what_a_reader_began_who_left_his_runtime_keeps_nobody_waiting() {
    let of_the_cache = Runtime::new().unwrap();
    let region = of_the_cache.block_on(with_something_that_waits());
    let of_the_reader = of_one_thread();
    let _left = of_the_reader.block_on(async { region.get("k").now_or_never() });
    assert_eq!(read_outside(&region), None);
    drop(of_the_reader);
}

/// An engine in this process is there without the runtime in which the cache was opened.
#[test]
fn what_waits_is_made_good_without_the_runtime_of_the_cache() {
    for has_ended in [false, true] {
        for of_the_cache in [of_one_thread(), Runtime::new().unwrap()] {
            let region = of_the_cache.block_on(with_something_that_waits());
            let _stands_still = (!has_ended).then_some(of_the_cache);
            assert_eq!(read_outside(&region), None, "ended: {has_ended}");
            assert_eq!(region.cache().pending_invalidations(), (0, 0));
        }
    }
}

/// An engine that syncs each write has who brings something there wait. That he then stands still, and is not gone, is nothing to the others.
#[test]
fn a_reader_who_stands_still_while_the_engine_syncs_keeps_nobody_waiting() {
    let there = tempfile::tempdir().unwrap();
    let url = format!("embedded://{}?appendfsync=always", there.path().display());
    for has_ended in [false, true] {
        let of_the_cache = of_one_thread();
        let region = of_the_cache.block_on(something_waits_in(&url));
        let _stands_still = (!has_ended).then_some(of_the_cache);
        let mut first = Box::pin(region.get("k"));
        assert!((&mut first).now_or_never().is_none(), "it does not wait: nothing is tested");
        assert_eq!(read_outside(&region), None, "ended: {has_ended}");
    }
}
