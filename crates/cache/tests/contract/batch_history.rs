//! Batches against a model: step by step with drawn operations, and as a checked history with batches, single reads and writes at once.

use std::collections::HashMap;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use mtcache_cache::{Region, RegionPolicy};
use parking_lot::Mutex;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use crate::rig::{Rig, on_every_backend};

const KEYS: usize = 12;
const TTL: Duration = Duration::from_secs(30);

on_every_backend! {
    drawn_operations_end_as_the_model_has_them,
    no_batch_is_older_than_the_last_acknowledged_invalidation,
}

/// The source has a value for some ids and none for the others; what is cached stays when it changes, until it is invalidated.
async fn drawn_operations_end_as_the_model_has_them(rig: Rig) {
    let seed = std::env::var("MTCACHE_SEED").ok().and_then(|s| s.parse().ok()).unwrap_or_else(rand::random);
    println!("MTCACHE_SEED={seed}");
    let mut draw = StdRng::seed_from_u64(seed);
    let policy = RegionPolicy::new("r", TTL).none_ttl(Some(TTL)).max_batch(5);
    let region: Region<u64> = rig.cache().await.region(policy).unwrap();
    let source: Arc<Mutex<HashMap<String, u64>>> = Arc::default();
    let mut cached: HashMap<String, Option<u64>> = HashMap::new();
    for step in 0..600 {
        let id = draw.random_range(0..KEYS).to_string();
        match draw.random_range(0..10) {
            0..=4 => {
                let ids: Vec<String> = (0..draw.random_range(0..2 * KEYS))
                    .map(|_| draw.random_range(0..KEYS).to_string())
                    .collect();
                let asked: Arc<Mutex<Vec<String>>> = Arc::default();
                let loader = {
                    let (source, asked) = (Arc::clone(&source), Arc::clone(&asked));
                    move |ids: Vec<String>| {
                        asked.lock().extend(ids.iter().cloned());
                        let has = |id: &String| source.lock().get(id).map(|value| (id.clone(), *value));
                        std::future::ready(Ok::<Vec<_>, io::Error>(ids.iter().filter_map(has).collect()))
                    }
                };
                let reads = region.get_or_load_many(ids.clone(), loader).await.unwrap();
                let mut expected = Vec::new();
                for id in &ids {
                    if !cached.contains_key(id) {
                        expected.push(id.clone());
                        cached.insert(id.clone(), source.lock().get(id).copied());
                    }
                }
                let values: Vec<_> = reads.into_iter().map(|read| read.map(|read| read.value)).collect();
                let due: Vec<_> = ids.iter().map(|id| cached[id]).collect();
                assert_eq!(values, due, "step {step}, MTCACHE_SEED={seed}");
                let mut asked = asked.lock().clone();
                asked.sort();
                expected.sort();
                assert_eq!(asked, expected, "step {step}, MTCACHE_SEED={seed}");
            }
            5 => {
                let read = region.get(&id).await.unwrap().map(|read| read.value);
                assert_eq!(read, cached.get(&id).copied().flatten(), "step {step}, MTCACHE_SEED={seed}");
            }
            6 => {
                let read = region.get_or_load(&id, || async { Ok::<_, io::Error>(7) }).await.unwrap().value;
                let due = *cached.entry(id).or_default().get_or_insert(7);
                assert_eq!(read, due, "step {step}, MTCACHE_SEED={seed}");
            }
            7 => {
                region.set(&id, &step).await.unwrap();
                cached.insert(id, Some(step));
            }
            8 => {
                let was_there = region.invalidate(&id).await.unwrap();
                assert_eq!(was_there, cached.remove(&id).is_some(), "step {step}, MTCACHE_SEED={seed}");
            }
            _ => {
                let mut source = source.lock();
                if draw.random_bool(0.7) {
                    source.insert(id, 1000 + step);
                } else {
                    source.remove(&id);
                }
            }
        }
    }
}

async fn pause() {
    let micros = rand::random_range(0..3000);
    if micros > 200 {
        tokio::time::sleep(Duration::from_micros(micros)).await;
    }
}

type Versions = Arc<[AtomicU64; KEYS]>;

/// As `history.rs` has it, with many keys: the source's versions only grow, and once an invalidation has returned nothing older is read.
async fn no_batch_is_older_than_the_last_acknowledged_invalidation(rig: Rig) {
    let (source, acknowledged): (Versions, Versions) = Default::default();
    let done = Arc::new(AtomicBool::new(false));
    let region: Region<u64> = rig.cache().await.region(RegionPolicy::new("r", TTL)).unwrap();
    let mut readers = Vec::new();
    for reader in 0..10 {
        let region = region.clone();
        let (source, acknowledged, done) =
            (Arc::clone(&source), Arc::clone(&acknowledged), Arc::clone(&done));
        readers.push(tokio::spawn(async move {
            let mut reads = 0_u32;
            while !done.load(Ordering::SeqCst) {
                pause().await;
                let floors: Vec<_> = acknowledged.iter().map(|v| v.load(Ordering::SeqCst)).collect();
                let wanted: Vec<usize> = if reader < 3 {
                    vec![rand::random_range(0..KEYS)]
                } else {
                    (0..KEYS).filter(|_| rand::random_bool(0.5)).collect()
                };
                let source = Arc::clone(&source);
                let load = move |ids: Vec<String>| {
                    let source = Arc::clone(&source);
                    async move {
                        pause().await;
                        let version =
                            |id: &String| source[id.parse::<usize>().unwrap()].load(Ordering::SeqCst);
                        let pairs: HashMap<_, _> =
                            ids.into_iter().map(|id| (id.clone(), version(&id))).collect();
                        pause().await;
                        Ok::<_, io::Error>(pairs)
                    }
                };
                let ids: Vec<String> = wanted.iter().map(usize::to_string).collect();
                let values: Vec<u64> = if reader < 3 {
                    let one = move || async move { load(ids.clone()).await.map(|pairs| pairs[&ids[0]]) };
                    vec![region.get_or_load(wanted[0].to_string(), one).await.unwrap().value]
                } else {
                    let reads = region.get_or_load_many(ids, load).await.unwrap();
                    reads.into_iter().map(|read| read.unwrap().value).collect()
                };
                for (key, value) in wanted.iter().zip(values) {
                    assert!(value >= floors[*key], "key {key}: {value} after {}", floors[*key]);
                }
                reads += 1;
            }
            reads
        }));
    }
    for version in 1..=400 {
        pause().await;
        let key = rand::random_range(0..KEYS);
        source[key].store(version, Ordering::SeqCst);
        if version % 3 == 0 {
            region.set(key.to_string(), &version).await.unwrap();
        } else {
            region.invalidate(key.to_string()).await.unwrap();
        }
        acknowledged[key].store(version, Ordering::SeqCst);
    }
    done.store(true, Ordering::SeqCst);
    for reader in readers {
        assert!(reader.await.unwrap() > 0);
    }
    let stats = region.stats();
    assert!(
        stats.fills_refused > 0 && stats.joined_loads > 0,
        "nothing raced: nothing was tested: {stats:?}"
    );
}
