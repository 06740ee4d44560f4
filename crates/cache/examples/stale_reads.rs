//! How long after a write another node still reads the old value from its near cache.
//!
//! Two caches, each with a connection and a runtime of its own. The reader asks its near cache in a tight loop, on a thread of its own, from
//! before the write is sent until the value has gone from there. Told are the times from when the write was sent, and from when its
//! writer had the acknowledgement, to the return of the last read that gave what was there before; the second is zero where the last such
//! read came before the acknowledgement. `cargo run --release -p mtcache-cache --example stale_reads -- URL...`; without URLs, the engine in
//! process.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use mtcache_cache::{Cache, CacheBuilder, ReadOptions, Region, RegionPolicy, TrackingState};
use mtcache_node::{Node, NodeOptions};
use tokio::runtime::Runtime;

const WRITES: u64 = 5000;

type Failure = Box<dyn std::error::Error + Send + Sync>;

async fn node(builder: CacheBuilder) -> Result<Region<u64>, Failure> {
    let cache = builder.open().await?;
    let policy = RegionPolicy::new("stale_reads_example", Duration::from_mins(5)).near(true);
    let region = cache.region(policy)?;
    while cache.near_state() != TrackingState::On {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    Ok(region)
}

/// What the last read that gave the value of before had: when it returned, and how many such reads there were.
struct LastStale {
    at: Instant,
    reads: u64,
}

/// Says in `polled` which value it polls, and tells what it has read of that once it has gone.
fn read(
    builder: CacheBuilder,
    polled: &AtomicU64,
    stopped: &AtomicBool,
    told: &mpsc::Sender<LastStale>,
) -> Result<(), Failure> {
    let runtime = one_thread()?;
    let region = runtime.block_on(node(builder))?;
    let near = || region.get_near("k", ReadOptions::new());
    for version in 1..=WRITES {
        while near()?.is_none_or(|read| *read.value != version) {
            if stopped.load(Ordering::Acquire) {
                return Ok(());
            }
            runtime.block_on(region.get_shared("k"))?;
        }
        let mut last = LastStale { at: Instant::now(), reads: 0 };
        polled.store(version, Ordering::Release);
        while near()?.is_some_and(|read| *read.value == version) {
            last = LastStale { at: Instant::now(), reads: last.reads + 1 };
            // On a machine with few cores the others have to have their turn.
            std::thread::yield_now();
        }
        told.send(last)?;
    }
    Ok(())
}

fn write(
    builder: CacheBuilder,
    polled: &AtomicU64,
    stopped: &AtomicBool,
    heard: &mpsc::Receiver<LastStale>,
) -> Result<Times, Failure> {
    let runtime = one_thread()?;
    let region = runtime.block_on(node(builder))?;
    let mut times = Times::new()?;
    runtime.block_on(region.set("k", &1))?;
    for version in 1..=WRITES {
        while polled.load(Ordering::Acquire) != version {
            if stopped.load(Ordering::Acquire) {
                return Err("the reader has stopped".into());
            }
            std::thread::sleep(Duration::from_micros(20));
        }
        // The reader is in the middle of it, wherever that is.
        std::thread::sleep(Duration::from_micros(50 + rand::random_range(0..100)));
        let sent = Instant::now();
        runtime.block_on(region.set("k", &(version + 1)))?;
        let acknowledged = Instant::now();
        times.record(sent, acknowledged, &heard.recv()?);
    }
    Ok(times)
}

fn one_thread() -> Result<Runtime, Failure> {
    Ok(tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?)
}

struct Times {
    since_sent: Histogram<u64>,
    since_acknowledged: Histogram<u64>,
    round_trips: Histogram<u64>,
    reads: u64,
    /// Writes after whose acknowledgement there was such a read.
    later: u64,
}

impl Times {
    fn new() -> Result<Self, Failure> {
        // With bounds: one that grows by itself does not when it saturates.
        let histogram = || Histogram::new_with_bounds(1, 10_000_000_000, 3);
        Ok(Self {
            since_sent: histogram()?,
            since_acknowledged: histogram()?,
            round_trips: histogram()?,
            reads: 0,
            later: 0,
        })
    }

    fn record(&mut self, sent: Instant, acknowledged: Instant, last: &LastStale) {
        let nanos = |time: Duration| u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        self.since_sent.saturating_record(nanos(last.at.saturating_duration_since(sent)));
        self.since_acknowledged.saturating_record(nanos(last.at.saturating_duration_since(acknowledged)));
        self.round_trips.saturating_record(nanos(acknowledged - sent));
        self.reads += last.reads;
        self.later += u64::from(last.at > acknowledged);
    }

    fn print(&self, url: &str) {
        println!("{url}: {WRITES} writes, {} reads of what was there before them; microseconds", self.reads);
        for (what, times) in [
            ("write sent to acknowledged     ", &self.round_trips),
            ("write sent to last stale read  ", &self.since_sent),
            ("acknowledged to last stale read", &self.since_acknowledged),
        ] {
            let [p50, p99, longest] =
                [0.5, 0.99, 1.0].map(|part| times.value_at_quantile(part) as f64 / 1000.0);
            println!("  {what}  p50 {p50:7.1}  p99 {p99:7.1}  longest {longest:7.1}");
        }
        let later = self.later;
        println!("  stale reads after the acknowledgement: of {later} writes");
    }
}

fn measure(url: &str) -> Result<(), Failure> {
    // One engine for both, where it is in process.
    let engine = match url {
        "embedded://" => Some(Arc::new(Node::open(&NodeOptions::default())?)),
        _ => None,
    };
    let builder = || match &engine {
        Some(engine) => Cache::builder(url).on_node(Arc::clone(engine), 0),
        None => Cache::builder(url),
    };
    let (polled, stopped) = (AtomicU64::new(0), AtomicBool::new(false));
    let (told, heard) = mpsc::channel();
    std::thread::scope(|scope| {
        let (polled, stopped) = (&polled, &stopped);
        let reader = builder();
        let reading = scope.spawn(move || {
            let ended = read(reader, polled, stopped, &told);
            stopped.store(true, Ordering::Release);
            ended
        });
        let written = write(builder(), polled, stopped, &heard);
        stopped.store(true, Ordering::Release);
        reading.join().map_err(|_| "the reader has panicked")??;
        written?.print(url);
        Ok(())
    })
}

fn main() -> Result<(), Failure> {
    let urls: Vec<String> = std::env::args().skip(1).collect();
    if urls.is_empty() {
        return measure("embedded://");
    }
    urls.iter().try_for_each(|url| measure(url))
}
