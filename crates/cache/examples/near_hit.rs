//! What a near hit costs beside bare `quick_cache` and `moka` gets and a get of amalgam-cache: the same `Arc`s under the same keys in
//! random order, in each round one after the other; CPU time of the thread and heap allocations of a hit, medians of the rounds.
//! `cargo run --release -p mtcache-cache --example near_hit -- [KEYS [URL...]]`; 10,000 keys where nobody says otherwise, and the engine in
//! process comes first in any case.

#![allow(unsafe_code, reason = "counting allocations takes an allocator")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::hint::black_box;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use mtcache_cache::{Cache, Read, ReadOptions, Region, RegionPolicy, Result, Source, TrackingState};
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use serde::{Deserialize, Serialize};

const GETS: usize = 200_000;
const ROUNDS: usize = 15;

static ALLOCATIONS: AtomicU64 = AtomicU64::new(0);

struct Counting;

// SAFETY: hands everything on to the system's allocator.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        // SAFETY: the caller's promise is handed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        // SAFETY: the caller's promise is handed on.
        unsafe { System.dealloc(at, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Tick {
    symbol: String,
    price: f64,
    volume: f64,
}

/// What the caller of a get does with it, whoever it is.
fn is_looked_at(tick: &Arc<Tick>) -> bool {
    black_box(tick).price > 0.0
}

/// One contestant's rounds.
#[derive(Default)]
struct Rounds {
    nanos: Vec<f64>,
    allocations: Vec<f64>,
}

/// Nanoseconds that this thread has run, by the scheduler's account.
fn thread_nanos() -> u64 {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    text.split_whitespace().next().and_then(|field| field.parse().ok()).unwrap_or_default()
}

fn median(rounds: &[f64]) -> f64 {
    let mut sorted = rounds.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted.get(sorted.len() / 2).copied().unwrap_or_default()
}

impl Rounds {
    async fn run(&mut self, round: impl AsyncFnOnce()) {
        // What a connection brings is read in between: the loops let nobody else run.
        tokio::time::sleep(Duration::from_millis(20)).await;
        let (start, before) = (thread_nanos(), ALLOCATIONS.load(Ordering::Relaxed));
        round().await;
        let (after, end) = (ALLOCATIONS.load(Ordering::Relaxed), thread_nanos());
        // Reading the thread's time allocates a few times itself, the first reading after the count began.
        self.allocations.push((after - before) as f64 / GETS as f64);
        self.nanos.push((end - start) as f64 / GETS as f64);
    }
}

async fn near_region(url: &str, ids: &[String], tick: &[Arc<Tick>]) -> Result<Region<Tick>> {
    let cache = Cache::builder(url).open().await?;
    let policy = RegionPolicy::new("market_data", Duration::from_hours(1)).near(true);
    let region: Region<Tick> = cache.region(policy)?;
    while cache.near_state() != TrackingState::On {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    for (id, tick) in ids.iter().zip(tick) {
        region.set(id.as_str(), tick).await?;
    }
    // The messages about the sets come before the reads are kept.
    loop {
        let mut far = 0;
        for id in ids {
            let read = region.get_shared(id.as_str()).await?;
            far += u64::from(!read.is_some_and(|read| read.source == Source::Near));
        }
        if far == 0 {
            return Ok(region);
        }
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> std::result::Result<(), Box<dyn std::error::Error>> {
    let count = std::env::args().nth(1).map_or(Ok(10_000), |text| text.parse())?;
    let ids: Vec<String> = (0..count).map(|n| format!("SYM{n:07}")).collect();
    let keys: Vec<String> = ids.iter().map(|id| format!("market_data:{id}")).collect();
    let tick = |id: &String| Arc::new(Tick { symbol: id.clone(), price: 67_000.5, volume: 12.25 });
    let ticks: Vec<Arc<Tick>> = ids.iter().map(tick).collect();

    let quick: quick_cache::sync::Cache<String, Arc<Tick>> = quick_cache::sync::Cache::new(2 * count);
    let moka: moka::sync::Cache<String, Arc<Tick>> = moka::sync::Cache::new(2 * count as u64);
    let amalgam: amalgam::Cache<Arc<Tick>> = amalgam::Cache::builder()
        .default_options(amalgam::EntryOptions::new(Duration::from_hours(1)))
        .max_capacity(2 * count as u64)
        .try_build()?;
    for (key, id) in keys.iter().zip(&ids) {
        quick.insert(key.clone(), tick(id));
    }
    for (key, id) in keys.iter().zip(&ids) {
        moka.insert(key.clone(), tick(id));
    }
    for (key, id) in keys.iter().zip(&ids) {
        amalgam.set(key.as_str(), tick(id)).await?;
    }
    let mut urls = vec!["embedded://".to_owned()];
    urls.extend(std::env::args().skip(2));
    let mut ours = Vec::new();
    for url in urls {
        ours.push((near_region(&url, &ids, &ticks).await?, url, [(); 3].map(|()| Rounds::default())));
    }

    let mut random = StdRng::seed_from_u64(1);
    let order: Vec<usize> = (0..GETS).map(|_| random.random_range(0..count)).collect();
    let [mut of_quick, mut of_moka, mut of_amalgam] = [(); 3].map(|()| Rounds::default());
    for _ in 0..ROUNDS {
        of_quick
            .run(async || {
                for &i in &order {
                    assert!(quick.get(keys[i].as_str()).is_some_and(|tick| is_looked_at(&tick)));
                }
            })
            .await;
        of_moka
            .run(async || {
                for &i in &order {
                    assert!(moka.get(keys[i].as_str()).is_some_and(|tick| is_looked_at(&tick)));
                }
            })
            .await;
        of_amalgam
            .run(async || {
                for &i in &order {
                    let found = amalgam.try_get(keys[i].as_str()).await;
                    assert!(matches!(found, Ok(Some(tick)) if is_looked_at(&tick)));
                }
            })
            .await;
        for (region, _, [awaited, at_once, alone]) in &mut ours {
            let is_near = |read: &Result<Option<Read<Arc<Tick>>>>| match read {
                Ok(Some(read)) => is_looked_at(&read.value) && read.source == Source::Near,
                _ => false,
            };
            awaited
                .run(async || {
                    for &i in &order {
                        assert!(is_near(&region.get_shared(ids[i].as_str()).await));
                    }
                })
                .await;
            at_once
                .run(async || {
                    for &i in &order {
                        assert!(is_near(&region.get_near(ids[i].as_str(), ReadOptions::new())));
                    }
                })
                .await;
            alone
                .run(async || {
                    for &i in &order {
                        assert!(region.peek(ids[i].as_str()).is_some_and(|tick| is_looked_at(&tick)));
                    }
                })
                .await;
        }
    }

    let bare = median(&of_quick.nanos);
    let report = |name: &str, rounds: &Rounds| {
        let (nanos, allocations) = (median(&rounds.nanos), median(&rounds.allocations));
        println!("{name:44} {nanos:7.1} ns   {:.2} times   {allocations:.4} allocations", nanos / bare);
    };
    report("quick_cache get", &of_quick);
    report("moka get", &of_moka);
    report("amalgam-cache try_get", &of_amalgam);
    for (_, url, [awaited, at_once, alone]) in &ours {
        report(&format!("Region::get_shared, {url}"), awaited);
        report(&format!("Region::get_near, {url}"), at_once);
        report(&format!("Region::peek, {url}"), alone);
    }
    Ok(())
}
