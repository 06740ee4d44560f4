//! A checked history (hazard 1): readers that load, a writer that changes the source and invalidates, pauses at random.
//!
//! The source holds a version that only grows. The writer raises it, then invalidates; once the invalidation has returned, that
//! version is acknowledged. No read of the cache that begins later may return an older one.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use mtcache_cache::{Region, RegionPolicy};

use crate::rig::{Rig, on_every_backend};

on_every_backend! { no_read_is_older_than_the_last_acknowledged_invalidation }

async fn pause() {
    let micros = rand_micros();
    if micros > 200 {
        tokio::time::sleep(Duration::from_micros(micros)).await;
    }
}

fn rand_micros() -> u64 {
    use std::hash::{BuildHasher, RandomState};
    RandomState::new().hash_one(0) % 3000
}

async fn no_read_is_older_than_the_last_acknowledged_invalidation(rig: Rig) {
    let source = Arc::new(AtomicU64::new(0));
    let acknowledged = Arc::new(AtomicU64::new(0));
    let done = Arc::new(AtomicBool::new(false));
    let region = |cache: mtcache_cache::Cache| -> Region<u64> {
        cache.region(RegionPolicy::new("r", Duration::from_secs(30))).unwrap()
    };
    // Two processes; the writer is in the first.
    let (here, there) = (region(rig.cache().await), region(rig.cache().await));
    let mut readers = Vec::new();
    for reader in 0..12 {
        let at_writer = reader % 2 == 0;
        let region = if at_writer { here.clone() } else { there.clone() };
        let (source, acknowledged, done) =
            (Arc::clone(&source), Arc::clone(&acknowledged), Arc::clone(&done));
        readers.push(tokio::spawn(async move {
            let mut reads = 0_u32;
            while !done.load(Ordering::SeqCst) {
                pause().await;
                let floor = acknowledged.load(Ordering::SeqCst);
                let source = Arc::clone(&source);
                let loader = move || async move {
                    pause().await;
                    let version = source.load(Ordering::SeqCst);
                    pause().await;
                    Ok::<_, io::Error>(version)
                };
                let loaded = region.get_or_load("k", loader).await.unwrap();
                // Elsewhere than in the writer's process a load that is under way may be joined until the invalidation push
                // comes. What is stored is held to the same everywhere.
                let read = if at_writer { Some(loaded) } else { region.get("k").await.unwrap() };
                if let Some(read) = read {
                    assert!(read.value >= floor, "{} after {floor} from {:?}", read.value, read.source);
                }
                reads += 1;
            }
            reads
        }));
    }
    for version in 1..=300 {
        pause().await;
        source.store(version, Ordering::SeqCst);
        if version % 3 == 0 {
            here.set("k", &version).await.unwrap();
        } else {
            here.invalidate("k").await.unwrap();
        }
        acknowledged.store(version, Ordering::SeqCst);
    }
    done.store(true, Ordering::SeqCst);
    for reader in readers {
        assert!(reader.await.unwrap() > 0);
    }
    let refused = here.stats().fills_refused + there.stats().fills_refused;
    assert!(refused > 0, "the history never raced: nothing was tested");
}
