//! How many of a trace's reads the near cache answers, beside `moka` and `quick_cache` with room for as many objects: every request counts
//! as one, whatever its size, and every miss brings its object in. All values count for the same number of bytes near, so that its room
//! is known in objects too.
//! `cargo run --release -p mtcache-cache --example near_hit_ratio -- data/twitter_cluster52.u32pairs.zst`

use std::collections::HashSet;
use std::io::Read as _;
use std::time::Duration;

use mtcache_cache::{Cache, Region, RegionPolicy, Source};

/// In thousandths.
const SHARES: [usize; 5] = [5, 10, 30, 100, 300];

/// The object numbers of the trace: of each pair the first.
fn objects(path: &str) -> std::io::Result<Vec<u32>> {
    let mut pairs = Vec::new();
    zstd::Decoder::new(std::fs::File::open(path)?)?.read_to_end(&mut pairs)?;
    Ok(pairs.chunks_exact(8).map(|pair| u32::from_le_bytes([pair[0], pair[1], pair[2], pair[3]])).collect())
}

fn id(object: u32) -> String {
    format!("{object:010}")
}

/// The bytes that one entry counts for.
async fn entry_bytes() -> Result<u64, mtcache_cache::Error> {
    let region = near_region(1 << 20, &[1]).await?;
    region.get_shared(id(1)).await?;
    Ok(region.cache().near_size().1)
}

/// A region with all objects in its backend and none near.
async fn near_region(max_bytes: u64, objects: &[u32]) -> Result<Region<u32>, mtcache_cache::Error> {
    let cache = Cache::builder("embedded://?maxmemory=1gb").near_max_bytes(max_bytes).open().await?;
    let region = cache.region(RegionPolicy::new("trace", Duration::from_hours(1)).near(true))?;
    for object in objects {
        region.set(id(*object), &1_000_000_000).await?;
    }
    Ok(region)
}

async fn near_hits(trace: &[u32], region: &Region<u32>) -> Result<usize, mtcache_cache::Error> {
    let mut hits = 0;
    for object in trace {
        let read = region.get_shared(id(*object)).await?;
        hits += usize::from(read.is_some_and(|read| read.source == Source::Near));
    }
    Ok(hits)
}

fn quick_hits(trace: &[u32], room: usize) -> usize {
    let cache: quick_cache::sync::Cache<u32, ()> = quick_cache::sync::Cache::new(room);
    let hit = |object: &&u32| {
        let hit = cache.get(*object).is_some();
        if !hit {
            cache.insert(**object, ());
        }
        hit
    };
    trace.iter().filter(hit).count()
}

fn moka_hits(trace: &[u32], room: usize) -> usize {
    let cache: moka::sync::Cache<u32, ()> = moka::sync::Cache::new(room as u64);
    let hit = |object: &&u32| {
        let hit = cache.get(*object).is_some();
        if !hit {
            cache.insert(**object, ());
        }
        hit
    };
    trace.iter().filter(hit).count()
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let path = std::env::args().nth(1).unwrap_or_else(|| "data/twitter_cluster52.u32pairs.zst".to_owned());
    let trace = objects(&path)?;
    let distinct: Vec<u32> = trace.iter().copied().collect::<HashSet<_>>().into_iter().collect();
    let bytes = entry_bytes().await?;
    println!("{} requests of {} objects; an entry counts for {bytes} bytes", trace.len(), distinct.len());
    for share in SHARES {
        let room = distinct.len() * share / 1000;
        let region = near_region(bytes * room as u64, &distinct).await?;
        let near = near_hits(&trace, &region).await?;
        let percent = |hits: usize| 100.0 * hits as f64 / trace.len() as f64;
        println!(
            "room for {:4.1} % of the objects ({room}): near {:.2} %, {} there in the end; quick_cache {:.2} %, moka {:.2} %",
            share as f64 / 10.0,
            percent(near),
            region.cache().near_size().0,
            percent(quick_hits(&trace, room)),
            percent(moka_hits(&trace, room)),
        );
    }
    Ok(())
}
