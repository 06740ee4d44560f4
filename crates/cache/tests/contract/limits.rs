//! Loads beyond what a region allows: they wait for their turn, not for ever, and what is too much is shed and leaves nothing behind.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use mtcache_cache::{ErrorKind, Region, RegionPolicy, Source};
use tokio::task::JoinHandle;

use crate::loads::Gate;
use crate::rig::{Rig, eventually, on_every_backend};

const TTL: Duration = Duration::from_secs(30);

on_every_backend! {
    loads_beyond_the_limit_wait_and_beyond_that_are_shed,
    a_load_that_waited_looks_again_before_it_runs,
    a_load_does_not_wait_for_ever,
    shed_loads_leave_nothing_behind,
}

async fn loads_beyond_the_limit_wait_and_beyond_that_are_shed(rig: Rig) {
    let policy = RegionPolicy::new("r", TTL).max_loads(3, 5);
    let region: Region<u64> = rig.cache().await.region(policy).unwrap();
    let (running, most) = (Arc::new(AtomicU32::new(0)), Arc::new(AtomicU32::new(0)));
    let open = Arc::new(tokio::sync::Semaphore::new(0));
    let loads: Vec<_> = (0..50)
        .map(|i| {
            let (region, running, most) = (region.clone(), Arc::clone(&running), Arc::clone(&most));
            let open = Arc::clone(&open);
            tokio::spawn(async move {
                let loader = move || async move {
                    most.fetch_max(running.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                    drop(open.acquire().await.unwrap());
                    running.fetch_sub(1, Ordering::SeqCst);
                    Ok::<_, io::Error>(i)
                };
                region.get_or_load(i.to_string(), loader).await.map_err(|error| error.kind())
            })
        })
        .collect();
    eventually("what is too much is shed, and the rest runs", async || {
        region.stats().loads_shed == 42 && running.load(Ordering::SeqCst) == 3
    })
    .await;
    open.add_permits(1);
    let mut answered = 0;
    for load in loads {
        match load.await.unwrap() {
            Ok(_) => answered += 1,
            Err(kind) => assert_eq!(kind, ErrorKind::Shed),
        }
    }
    assert_eq!((answered, most.load(Ordering::SeqCst)), (8, 3));
    // It recovers as soon as the load falls.
    assert!(region.get_or_load("new", || async { Ok::<_, io::Error>(1) }).await.is_ok());
}

/// A load under way in the region's only place, until its gate opens.
async fn occupy(region: &Region<u64>) -> (Gate, JoinHandle<u64>) {
    let gate = Gate::default();
    let load = tokio::spawn({
        let (region, loader) = (region.clone(), gate.loader(1));
        async move { region.get_or_load("first", loader).await.unwrap().value }
    });
    gate.running.notified().await;
    (gate, load)
}

async fn a_load_that_waited_looks_again_before_it_runs(rig: Rig) {
    let policy = RegionPolicy::new("r", TTL).max_loads(1, 5);
    let region: Region<u64> = rig.cache().await.region(policy).unwrap();
    let (gate, first) = occupy(&region).await;
    let waiting = tokio::spawn({
        let region = region.clone();
        async move { region.get_or_load("k", || async { Ok::<_, io::Error>(2) }).await.unwrap() }
    });
    eventually("the second has missed", async || region.stats().misses == 2).await;
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert_eq!(rig.raw_keys().await, ["mtcache:fill:{r:first}"], "who waits has no token to grow old");
    rig.raw(&["SET", "r:k", "5", "PX", "20000"]).await;
    gate.open.notify_one();
    first.await.unwrap();
    let read = waiting.await.unwrap();
    assert_eq!((read.value, read.source), (5, Source::Backend));
    assert_eq!(region.stats().loads, 1);
}

async fn a_load_does_not_wait_for_ever(rig: Rig) {
    let policy = RegionPolicy::new("r", TTL).max_loads(1, 5).max_load_wait(Duration::from_millis(50));
    let region: Region<u64> = rig.cache().await.region(policy).unwrap();
    let (gate, first) = occupy(&region).await;
    let error = region.get_or_load("k", || async { Ok::<_, io::Error>(2) }).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Shed, "{error}");
    assert!(error.to_string().contains("max_load_wait"), "{error}");
    assert_eq!(region.stats().loads_shed, 1);
    gate.open.notify_one();
    assert_eq!(first.await.unwrap(), 1);
    assert_eq!(region.get_or_load("k", || async { Ok::<_, io::Error>(2) }).await.unwrap().value, 2);
}

/// Bytes of this process in memory; none where the system does not tell.
fn resident() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    Some(line.trim().strip_suffix(" kB")?.parse::<u64>().ok()? * 1024)
}

async fn shed_loads_leave_nothing_behind(rig: Rig) {
    const WAVE: usize = 1000;
    let policy = RegionPolicy::new("r", TTL).max_loads(1, 0);
    let region: Region<u64> = rig.cache().await.region(policy).unwrap();
    let (gate, first) = occupy(&region).await;
    let mut before = None;
    for wave in 0..15 {
        let reads: Vec<_> = (0..WAVE)
            .map(|n| {
                let (region, id) = (region.clone(), format!("{wave}-{n}"));
                tokio::spawn(async move {
                    region.get_or_load(id, || async { Ok::<_, io::Error>(2) }).await.unwrap_err().kind()
                })
            })
            .collect();
        for read in reads {
            assert_eq!(read.await.unwrap(), ErrorKind::Shed);
        }
        // The first waves fill pools and buffers.
        if wave == 4 {
            before = resident();
        }
    }
    assert_eq!(rig.raw_keys().await, ["mtcache:fill:{r:first}"], "no token of a load that was shed");
    if let (Some(before), Some(after)) = (before, resident()) {
        assert!(after < before + 8 * 1024 * 1024, "{before} bytes grew to {after}");
    }
    gate.open.notify_one();
    assert_eq!(first.await.unwrap(), 1);
}
