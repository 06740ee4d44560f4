//! How long after a write another node still reads the old value from its near cache: one node writes a counter, another reads it in a
//! tight loop. The time runs from just before the write is sent to the last read that gave what was there before.
//! `cargo run --release -p mtcache-cache --example stale_reads -- URL...`; without URLs, the engine in process.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use mtcache_cache::{Cache, Region, RegionPolicy, TrackingState};

const WRITES: u64 = 5000;

async fn node(url: &str) -> Result<Region<u64>, mtcache_cache::Error> {
    let cache = Cache::connect(url).await?;
    let policy = RegionPolicy::new("stale_reads_example", Duration::from_mins(5)).near(true);
    let region = cache.region(policy)?;
    while cache.near_state() != TrackingState::On {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    Ok(region)
}

async fn measure(url: &str) -> Result<(), Box<dyn std::error::Error>> {
    let writer = node(url).await?;
    // One engine in process has one near cache for each cache that is opened on it; a second URL would be a second engine.
    let reader = if url.starts_with("embedded:") { writer.clone() } else { node(url).await? };
    writer.set("k", &0).await?;
    let began = Arc::new(AtomicU64::new(0));
    let anchor = Instant::now();
    let nanos = move || anchor.elapsed().as_nanos() as u64;
    let reading = tokio::spawn({
        let began = Arc::clone(&began);
        async move {
            let mut times = Histogram::<u64>::new(3).expect("three digits can be");
            let (mut last_value, mut last_read) = (0, 0_u64);
            while last_value < WRITES {
                let asked = nanos();
                let Ok(Some(read)) = reader.get_shared("k").await else { continue };
                let value = *read.value;
                if value > last_value {
                    // The last read of what was before `value` was at `last_read`; a write before that one is not told apart.
                    let write = began.load(Ordering::SeqCst);
                    times.saturating_record(last_read.saturating_sub(write).max(1));
                    last_value = value;
                }
                last_read = asked;
                tokio::task::yield_now().await;
            }
            times
        }
    });
    for n in 1..=WRITES {
        began.store(nanos(), Ordering::SeqCst);
        writer.set("k", &n).await?;
        // Long enough for the reader to have it near again.
        tokio::time::sleep(Duration::from_micros(1500)).await;
    }
    let times = reading.await?;
    let micros = |part: f64| times.value_at_quantile(part) as f64 / 1000.0;
    println!(
        "{url}: {} writes, microseconds from write to last stale read: p50 {:.0}, p99 {:.0}, p99.9 {:.0}, longest {:.0}",
        times.len(),
        micros(0.5),
        micros(0.99),
        micros(0.999),
        times.max() as f64 / 1000.0
    );
    Ok(())
}

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let urls: Vec<String> = std::env::args().skip(1).collect();
    if urls.is_empty() {
        return measure("embedded://").await;
    }
    for url in &urls {
        measure(url).await?;
    }
    Ok(())
}
