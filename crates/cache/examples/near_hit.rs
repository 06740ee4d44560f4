//! What a near hit costs beside a bare `quick_cache` get of the same `Arc`s under the same keys: CPU time of the thread, keys in random
//! order, and heap allocations of a hit. Also that `metrics` and `tracing` cost a hit nothing while nobody listens.
//! `cargo run --release -p mtcache-cache --example near_hit`

#![allow(unsafe_code, reason = "counting allocations takes an allocator")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::hint::black_box;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use mtcache_cache::{Cache, Region, RegionPolicy, Source, TrackingState};
use quick_cache::sync::Cache as Bare;
use serde::{Deserialize, Serialize};

const KEYS: usize = 10_000;
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

/// Nanoseconds that this thread has run, by the scheduler's account.
fn thread_nanos() -> u64 {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    text.split_whitespace().next().and_then(|field| field.parse().ok()).unwrap_or_default()
}

fn median(mut rounds: Vec<f64>) -> f64 {
    rounds.sort_by(f64::total_cmp);
    rounds.get(rounds.len() / 2).copied().unwrap_or_default()
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let cache = Cache::builder("embedded://").open().await?;
    let policy = RegionPolicy::new("market_data", Duration::from_hours(1)).near(true);
    let region: Region<Tick> = cache.region(policy)?;
    assert_eq!(cache.near_state(), TrackingState::On);
    let bare: Bare<Box<[u8]>, Arc<Tick>> = Bare::new(2 * KEYS);
    let ids: Vec<String> = (0..KEYS).map(|n| format!("SYM{n:07}")).collect();
    let keys: Vec<Box<[u8]>> = ids.iter().map(|id| format!("market_data:{id}").into_bytes().into()).collect();
    for (id, key) in ids.iter().zip(&keys) {
        let price = Tick { symbol: id.clone(), price: 67_000.5, volume: 12.25 };
        region.set(id.as_str(), &price).await?;
        region.get_shared(id.as_str()).await?;
        bare.insert(key.clone(), Arc::new(price));
    }
    // The same order for all, with a stride that leaves no locality.
    let order: Vec<usize> = (0..GETS).map(|i| i * 7_919 % KEYS).collect();
    let (mut bares, mut nears, mut allocations) = (Vec::new(), Vec::new(), 0);
    for _ in 0..ROUNDS {
        let start = thread_nanos();
        for &i in &order {
            black_box(bare.get(&keys[i]));
        }
        bares.push((thread_nanos() - start) as f64 / GETS as f64);
        let (start, before) = (thread_nanos(), ALLOCATIONS.load(Ordering::Relaxed));
        for &i in &order {
            let read = region.get_shared(ids[i].as_str()).await?;
            assert!(black_box(read).is_some_and(|read| read.source == Source::Near));
        }
        allocations = ALLOCATIONS.load(Ordering::Relaxed) - before;
        nears.push((thread_nanos() - start) as f64 / GETS as f64);
    }
    let (bare, near) = (median(bares), median(nears));
    println!("quick_cache get      {bare:7.1} ns");
    println!("Region::get_shared   {near:7.1} ns   {:.2} times", near / bare);
    // Reading the thread's time allocates a few times itself.
    println!("allocations per hit  {:7.4}", allocations as f64 / GETS as f64);
    Ok(())
}
