//! One history: a source whose version only grows, nodes that read and write one key, and what their reads are held to.
//!
//! Checked for every read: what a node reads is no older than what it wrote itself last; what it reads as fresh from the backend is no
//! older than the last acknowledged write of any node; what it reads as fresh from near, no older than the last that was acknowledged a
//! heartbeat before. The one thing exempted is a write whose outcome was unknown: it may take effect late, which its writer was told.

use std::collections::HashSet;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use mtcache_cache::{CacheBuilder, Outcome, ReadOptions, Region, RegionPolicy, Source, Staleness};
use mtcache_conformance::Program;
use mtcache_conformance::servers::ServerOptions;
use parking_lot::Mutex;
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};

use crate::faketime;

/// Seconds by which a clock may differ.
pub(super) const CLOCKS: [i32; 4] = [0, 900, -900, 450];
pub(super) const NODES: usize = 2;
const READERS: u64 = 3;
pub(super) const HEARTBEAT: Duration = Duration::from_millis(200);
pub(super) const ANSWER: Duration = Duration::from_millis(200);

/// What is known at one moment.
#[derive(Clone, Default)]
struct Floors {
    /// The last write of each node that was acknowledged.
    own: [u64; NODES],
    /// The last that was acknowledged, and those before it with their times.
    acknowledged: Vec<(Instant, u64)>,
}

pub(super) struct Run {
    source: AtomicU64,
    floors: Mutex<Floors>,
    /// Versions whose writes may take effect late.
    uncertain: Mutex<HashSet<u64>>,
    /// One write at a time, so that versions are written in their order; says whether it can be counted on.
    writing: tokio::sync::Mutex<Settled>,
    violations: Mutex<Vec<String>>,
    done: AtomicBool,
    seen: Seen,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Settled {
    Yes,
    No,
}

/// What the histories were about, so that they prove something.
#[derive(Default)]
pub(super) struct Seen {
    pub(super) near: AtomicU64,
    pub(super) backend: AtomicU64,
    pub(super) loader: AtomicU64,
    pub(super) stale: AtomicU64,
    pub(super) failed_reads: AtomicU64,
    pub(super) writes: AtomicU64,
    pub(super) failed_writes: AtomicU64,
}

impl Seen {
    pub(super) fn count(&self, source: Source, staleness: Staleness) {
        let counter = match (staleness, source) {
            (Staleness::Stale, _) => &self.stale,
            (_, Source::Near) => &self.near,
            (_, Source::Backend) => &self.backend,
            (_, Source::Loader) => &self.loader,
        };
        counter.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn add(&self, other: &Self) {
        for (to, from) in self.all().into_iter().zip(other.all()) {
            to.fetch_add(from.load(Ordering::Relaxed), Ordering::Relaxed);
        }
    }

    /// Prints what was seen; fails if that proves nothing.
    pub(super) fn report(&self) {
        let [near, backend, loader, stale, failed_reads, writes, failed_writes] =
            self.all().map(|counter| counter.load(Ordering::Relaxed));
        println!(
            "reads: {near} near, {backend} backend, {loader} loader, {stale} stale, {failed_reads} failed; {writes} writes, \
             {failed_writes} failed"
        );
        assert!(near > 0 && backend > 0 && loader > 0, "the cache was hardly used");
        assert!(failed_writes + failed_reads > 0, "nothing ever failed");
    }

    fn all(&self) -> [&AtomicU64; 7] {
        let Self { near, backend, loader, stale, failed_reads, writes, failed_writes } = self;
        [near, backend, loader, stale, failed_reads, writes, failed_writes]
    }
}

impl Floors {
    fn at(&self, moment: Option<Instant>) -> u64 {
        let before = |when: &Instant| moment.is_some_and(|moment| *when <= moment);
        let versions = self.acknowledged.iter().filter(|(when, _)| before(when)).map(|(_, version)| *version);
        versions.max().unwrap_or(0)
    }
}

impl Run {
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self {
            source: AtomicU64::new(0),
            floors: Mutex::default(),
            uncertain: Mutex::default(),
            writing: tokio::sync::Mutex::new(Settled::Yes),
            violations: Mutex::default(),
            done: AtomicBool::new(false),
            seen: Seen::default(),
        })
    }

    /// From here on what is acknowledged may be lost.
    pub(super) async fn unsettle(&self) {
        *self.writing.lock().await = Settled::No;
    }

    /// From here on what is acknowledged is kept.
    pub(super) async fn settle(&self) {
        *self.writing.lock().await = Settled::Yes;
    }

    /// Has each node read and write while `breaks` runs and a little longer, and then says what was seen.
    pub(super) async fn go(
        self: &Arc<Self>,
        nodes: Vec<Region<u64>>,
        random: &mut StdRng,
        breaks: impl AsyncFnOnce(&mut StdRng),
    ) -> Result<&Seen, Vec<String>> {
        let mut tasks = Vec::new();
        for (node, region) in nodes.into_iter().enumerate() {
            let mut next = || StdRng::seed_from_u64(random.random());
            for _ in 0..READERS {
                tasks.push(tokio::spawn(Arc::clone(self).reads(node, region.clone(), next())));
            }
            tasks.push(tokio::spawn(Arc::clone(self).writes(node, region, next())));
        }
        breaks(random).await;
        pause(random, 200_000).await;
        self.done.store(true, Ordering::SeqCst);
        for task in tasks {
            task.await.unwrap();
        }
        let violations = self.violations.lock().clone();
        if violations.is_empty() { Ok(&self.seen) } else { Err(violations) }
    }

    async fn reads(self: Arc<Self>, node: usize, region: Region<u64>, mut random: StdRng) {
        while !self.done.load(Ordering::SeqCst) {
            pause(&mut random, 8_000).await;
            let (asked, floors) = (Instant::now(), self.floors.lock().clone());
            let source = Arc::clone(&self);
            let read = any_read(&region, &mut random, move || source.source.load(Ordering::SeqCst)).await;
            let read = match read {
                Ok(Some(read)) => read,
                Ok(None) => continue,
                Err(_) => {
                    self.seen.failed_reads.fetch_add(1, Ordering::Relaxed);
                    continue;
                }
            };
            self.seen.count(read.source, read.staleness);
            let floor = match (read.staleness, read.source) {
                (Staleness::Fresh, Source::Backend) => floors.at(Some(asked)),
                (Staleness::Fresh, Source::Near) => floors.at(asked.checked_sub(HEARTBEAT)),
                // A load that another node's write has overtaken may be shared until that is known.
                (Staleness::Fresh, Source::Loader) | (Staleness::Stale, _) => 0,
            };
            let floor = floor.max(floors.own[node]);
            if read.value < floor && !self.uncertain.lock().contains(&read.value) {
                self.violations
                    .lock()
                    .push(format!("node {node} read {read:?} although {floor} had been written"));
            }
        }
    }

    async fn writes(self: Arc<Self>, node: usize, region: Region<u64>, mut random: StdRng) {
        while !self.done.load(Ordering::SeqCst) {
            pause(&mut random, 60_000).await;
            let settled = self.writing.lock().await;
            let version = self.source.fetch_add(1, Ordering::SeqCst) + 1;
            let written = any_write(&region, random.random_range(0..4), version).await;
            self.seen.writes.fetch_add(1, Ordering::Relaxed);
            let mut floors = self.floors.lock();
            if *settled == Settled::Yes && written.is_ok() {
                floors.own[node] = version;
            }
            match written {
                Ok(()) if *settled == Settled::Yes => floors.acknowledged.push((Instant::now(), version)),
                Ok(()) => {}
                Err(error) => {
                    self.seen.failed_writes.fetch_add(1, Ordering::Relaxed);
                    if error.outcome() == Outcome::Unknown {
                        self.uncertain.lock().insert(version);
                    }
                }
            }
        }
    }
}

/// Runs as many histories as the variable says, each with a seed of its own.
pub(super) async fn many(variable: &str, count: u64, history: impl AsyncFn(u64, &Seen)) {
    let number = |name: &str| std::env::var(name).ok().map(|text| text.parse::<u64>().unwrap());
    let total = Seen::default();
    if let Some(seed) = number("MTCACHE_HISTORY_SEED") {
        return history(seed, &total).await;
    }
    let first = rand::random::<u32>();
    let count = number(variable).unwrap_or(count);
    println!("{count} histories from seed {first}");
    for n in 0..count {
        history(u64::from(first) + n, &total).await;
    }
    total.report();
}

/// A server whose clock may be wrong, where it can be: Debian's redis-server does not start under faketime.
pub(super) fn any_clock(program: Program, random: &mut StdRng) -> ServerOptions {
    let ahead = CLOCKS[random.random_range(0..CLOCKS.len())];
    if program == Program::Redis { ServerOptions::new() } else { faketime::server(ahead) }
}

/// A read of one kind or another, with a loader that may fail.
pub(super) async fn any_read(
    region: &Region<u64>,
    random: &mut StdRng,
    version: impl FnOnce() -> u64 + Send + 'static,
) -> mtcache_cache::Result<Option<mtcache_cache::Read<u64>>> {
    let (before, after) = (random.random_range(0..3000), random.random_range(0..3000));
    let fails = random.random_bool(0.1);
    let loader = move || async move {
        tokio::time::sleep(Duration::from_micros(before)).await;
        let version = version();
        tokio::time::sleep(Duration::from_micros(after)).await;
        if fails { Err(io::Error::other("the source says no")) } else { Ok(version) }
    };
    let options = match random.random_range(0..3) {
        0 => ReadOptions::new().deadline(Duration::from_millis(300)),
        1 => ReadOptions::new().with_age(),
        _ => ReadOptions::new(),
    };
    match random.random_range(0..4) {
        0 => region.get_with("k", options).await,
        1 => region.get_shared_with("k", options).await.map(|read| read.map(|read| read.map(|v| *v))),
        2 => region.get_or_load_with("k", options, loader).await.map(Some),
        _ => region.get_or_load_shared_with("k", options, loader).await.map(|read| Some(read.map(|v| *v))),
    }
}

/// A write of one of four kinds.
pub(super) async fn any_write(region: &Region<u64>, kind: u32, version: u64) -> mtcache_cache::Result<()> {
    match kind {
        0 => region.set("k", &version).await,
        1 => region.cache().delete(&["r:k"]).await.map(drop),
        2 => region.invalidate_all().await.map(drop),
        _ => region.invalidate("k").await.map(drop),
    }
}

/// A node that loses patience soon.
pub(super) async fn node(builder: CacheBuilder, random: &mut StdRng) -> Region<u64> {
    let cache = builder
        .connect_timeout(ANSWER)
        .response_timeout(ANSWER)
        .backoff(Duration::from_millis(5), Duration::from_millis(40))
        .near_heartbeat(HEARTBEAT)
        .open()
        .await
        .unwrap();
    let mut policy = RegionPolicy::new("r", Duration::from_millis(random.random_range(50..1000))).near(true);
    if random.random_bool(0.5) {
        policy = policy.lease(Duration::from_millis(100)).load_timeout(Duration::from_millis(200));
    }
    cache.region(policy).unwrap()
}

pub(super) async fn pause(random: &mut StdRng, most: u64) {
    tokio::time::sleep(Duration::from_micros(random.random_range(0..most))).await;
}
