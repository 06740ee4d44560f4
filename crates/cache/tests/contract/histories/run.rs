//! One history: a source whose version only grows, nodes that read and write one key, and what their reads are held to.
//!
//! Checked for every read: what a node reads is no older than what it wrote itself last; what it reads as fresh from the backend is no
//! older than the last acknowledged write of any node; what it reads as fresh from near, no older than the last that was acknowledged a
//! heartbeat before; and nothing is older than it is said to be. The one thing exempted is a write whose outcome was unknown: it may take
//! effect late, which its writer was told.

use std::collections::HashSet;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use mtcache_cache::{
    Age, CacheBuilder, Event, Framing, Outcome, ReadOptions, Region, RegionPolicy, RemovalCause, Source,
    Staleness,
};
use mtcache_conformance::Program;
use mtcache_conformance::servers::ServerOptions;
use parking_lot::Mutex;
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};

/// Seconds by which a clock may differ.
pub(super) const CLOCKS: [i32; 4] = [0, 900, -900, 450];
pub(super) const NODES: usize = 2;
const READERS: u64 = 3;
/// So many more histories are run while something has not come about.
pub(super) const MORE: u64 = 4;
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
    superseded: Superseded,
    violations: Mutex<Vec<String>>,
    done: AtomicBool,
    seen: Seen,
}

/// When each version of the source made way for the next.
#[derive(Default)]
pub(super) struct Superseded(Mutex<Vec<Instant>>);

impl Superseded {
    /// To be called once a version is there.
    pub(super) fn next(&self) {
        self.0.lock().push(Instant::now());
    }

    /// How old a version that was read must be at a moment, at the least; none if it is the source's still.
    fn age_of(&self, version: u64, moment: Instant) -> Option<Duration> {
        let superseded = *self.0.lock().get(usize::try_from(version).ok()?)?;
        moment.checked_duration_since(superseded)
    }

    /// Whether a value is older than it is said to be; none if that is not known.
    pub(super) fn is_understated(&self, read: &mtcache_cache::Read<u64>, asked: Instant) -> Option<bool> {
        is_understated(read.age, self.age_of(read.value, asked)?)
    }
}

/// Whether what is so old at the least is older than it is said to be.
pub(super) fn is_understated(said: Age, least: Duration) -> Option<bool> {
    // Backends count whole milliseconds.
    const ROUNDING: Duration = Duration::from_millis(5);
    match said {
        Age::Exact(age) | Age::AtMost(age) => Some(age + ROUNDING < least),
        Age::Unknown => None,
    }
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
    /// Reads whose age was held against the source's.
    pub(super) aged: AtomicU64,
    /// Fills.
    pub(super) refused: AtomicU64,
    /// Values that messages have taken from near.
    pub(super) told: AtomicU64,
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

    /// What has not been seen yet and has to be, for the histories to prove something.
    fn lacks(&self) -> Vec<&'static str> {
        let lacks = |counter: &AtomicU64| counter.load(Ordering::Relaxed) == 0;
        let failed = self.failed_reads.load(Ordering::Relaxed) + self.failed_writes.load(Ordering::Relaxed);
        let needed = [
            ("a near hit", lacks(&self.near)),
            ("a read of the backend", lacks(&self.backend)),
            ("a load", lacks(&self.loader)),
            ("a stale read", lacks(&self.stale)),
            ("a known age", lacks(&self.aged)),
            ("a refused fill", lacks(&self.refused)),
            ("a message that took a value from near", lacks(&self.told)),
            ("a failure", failed == 0),
        ];
        needed.into_iter().filter(|(_, is_lacking)| *is_lacking).map(|(what, _)| what).collect()
    }

    fn print(&self) {
        let [near, backend, loader, stale, failed_reads, writes, failed_writes, aged, refused, told] =
            self.all().map(|counter| counter.load(Ordering::Relaxed));
        println!(
            "reads: {near} near, {backend} backend, {loader} loader, {stale} stale, {failed_reads} failed, {aged} ages checked; \
             {writes} writes, {failed_writes} failed; {refused} fills refused, {told} values dropped by messages"
        );
    }

    fn all(&self) -> [&AtomicU64; 10] {
        let Self { near, backend, loader, stale, failed_reads, writes, failed_writes, aged, refused, told } =
            self;
        [near, backend, loader, stale, failed_reads, writes, failed_writes, aged, refused, told]
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
            superseded: Superseded::default(),
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
        nodes: Vec<Node>,
        random: &mut StdRng,
        breaks: impl AsyncFnOnce(&mut StdRng),
    ) -> Result<&Seen, Vec<String>> {
        let mut tasks = Vec::new();
        for (at, node) in nodes.iter().cloned().enumerate() {
            let mut next = || StdRng::seed_from_u64(random.random());
            for _ in 0..READERS {
                tasks.push(tokio::spawn(Arc::clone(self).reads(at, node.region.clone(), next())));
            }
            tasks.push(tokio::spawn(Arc::clone(self).writes(at, node, next())));
        }
        breaks(random).await;
        pause(random, 200_000).await;
        self.done.store(true, Ordering::SeqCst);
        for task in tasks {
            task.await.unwrap();
        }
        for node in nodes {
            node.count(&self.seen);
        }
        let violations = self.violations.lock().clone();
        if violations.is_empty() { Ok(&self.seen) } else { Err(violations) }
    }

    async fn reads(self: Arc<Self>, node: usize, region: Region<u64>, mut random: StdRng) {
        while !self.done.load(Ordering::SeqCst) {
            pause(&mut random, 8_000).await;
            let (asked, floors) = (Instant::now(), self.floors.lock().clone());
            let source = Arc::clone(&self);
            // The others ask near first, always: a load or a look past it would drop what is old there.
            let kind = if node == 0 { random.random_range(0..4) } else { 1 + 2 * random.random_range(0..2) };
            let version = move || source.source.load(Ordering::SeqCst);
            let read = read_of_kind(&region, &mut random, kind, version).await;
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
            if let Some(is_understated) = self.superseded.is_understated(&read, asked) {
                self.seen.aged.fetch_add(1, Ordering::Relaxed);
                if is_understated && !self.uncertain.lock().contains(&read.value) {
                    self.violations.lock().push(format!("node {node} read {read:?}, which is older"));
                }
            }
            let floor = floor.max(floors.own[node]);
            if read.value < floor && !self.uncertain.lock().contains(&read.value) {
                self.violations
                    .lock()
                    .push(format!("node {node} read {read:?} although {floor} had been written"));
            }
        }
    }

    async fn writes(self: Arc<Self>, at: usize, node: Node, mut random: StdRng) {
        // Whatever a node writes leaves nothing near there: one that writes often would never show that it has not been told.
        let longest = if at == 0 { 60_000 } else { 2_000_000 };
        while !self.done.load(Ordering::SeqCst) {
            pause(&mut random, longest).await;
            let settled = self.writing.lock().await;
            let version = self.source.fetch_add(1, Ordering::SeqCst) + 1;
            self.superseded.next();
            let written = node.write(random.random_range(0..4), version).await;
            self.seen.writes.fetch_add(1, Ordering::Relaxed);
            let mut floors = self.floors.lock();
            if *settled == Settled::Yes && written.is_ok() {
                floors.own[at] = version;
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
    let mut n = 0;
    // In a few short histories something may not have come about by chance.
    while n < count || (n < count + MORE && !total.lacks().is_empty()) {
        history(u64::from(first) + n, &total).await;
        n += 1;
    }
    total.print();
    assert_eq!(total.lacks(), Vec::<&str>::new(), "what the histories were about did not come about");
}

/// A server whose clock may be wrong, where it can be: Debian's redis-server does not start under faketime.
pub(super) fn any_clock(program: Program, random: &mut StdRng) -> ServerOptions {
    let ahead = CLOCKS[random.random_range(0..CLOCKS.len())];
    if program == Program::Redis { ServerOptions::new() } else { ServerOptions::new().clock_ahead(ahead) }
}

/// A read of one kind or another, with a loader that may fail.
pub(super) async fn any_read(
    region: &Region<u64>,
    random: &mut StdRng,
    version: impl FnOnce() -> u64 + Send + 'static,
) -> mtcache_cache::Result<Option<mtcache_cache::Read<u64>>> {
    let kind = random.random_range(0..4);
    read_of_kind(region, random, kind, version).await
}

/// Past the near cache or, of an odd kind, through it.
async fn read_of_kind(
    region: &Region<u64>,
    random: &mut StdRng,
    kind: u32,
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
    match kind {
        0 => region.get_with("k", options).await,
        1 => region.get_shared_with("k", options).await.map(|read| read.map(|read| read.map(|v| *v))),
        2 => region.get_or_load_with("k", options, loader).await.map(Some),
        _ => region.get_or_load_shared_with("k", options, loader).await.map(|read| Some(read.map(|v| *v))),
    }
}

/// A write of one of four kinds.
async fn any_write(region: &Region<u64>, kind: u32, version: u64) -> mtcache_cache::Result<()> {
    match kind {
        0 => region.set("k", &version).await,
        1 => region.cache().delete(&["r:k"]).await.map(drop),
        2 => region.invalidate_all().await.map(drop),
        _ => region.invalidate("k").await.map(drop),
    }
}

/// What all who share a region have to agree on.
#[derive(Clone, Copy, Debug)]
pub(super) struct Shared {
    /// By which readers of plain values tell their age.
    pub(super) ttl: Duration,
    pub(super) stale_window: Duration,
    pub(super) framed: bool,
}

impl Shared {
    pub(super) fn any(random: &mut StdRng) -> Self {
        let stale_window = Duration::from_secs(if random.random_bool(0.7) { 10 } else { 0 });
        Self { stale_window, ..Self::stale(random) }
    }

    /// For where there are few histories: always with a stale window.
    pub(super) fn stale(random: &mut StdRng) -> Self {
        let ttl = Duration::from_millis(random.random_range(50..1000));
        Self { ttl, stale_window: Duration::from_secs(10), framed: random.random_bool(0.5) }
    }
}

/// One that reads and writes.
#[derive(Clone)]
pub(super) struct Node {
    pub(super) region: Region<u64>,
    heard: Arc<Heard>,
}

/// What goes from near because it is invalid while nothing is written here: a message has said so.
#[derive(Default)]
struct Heard {
    writes: AtomicBool,
    dropped: AtomicU64,
}

impl Node {
    /// A write of one of four kinds.
    pub(super) async fn write(&self, kind: u32, version: u64) -> mtcache_cache::Result<()> {
        self.heard.writes.store(true, Ordering::SeqCst);
        let written = any_write(&self.region, kind, version).await;
        self.heard.writes.store(false, Ordering::SeqCst);
        written
    }

    /// Values that messages have taken from near.
    pub(super) fn told(&self) -> u64 {
        self.heard.dropped.load(Ordering::Relaxed)
    }

    fn count(&self, seen: &Seen) {
        seen.refused.fetch_add(self.region.stats().fills_refused, Ordering::Relaxed);
        seen.told.fetch_add(self.told(), Ordering::Relaxed);
    }
}

/// A node that loses patience soon.
pub(super) async fn node(builder: CacheBuilder, random: &mut StdRng, shared: Shared) -> Node {
    let heard = Arc::<Heard>::default();
    let hears = Arc::clone(&heard);
    let observer = move |event: &Event<'_>| {
        let is_invalid = matches!(event, Event::NearDropped { cause: RemovalCause::Invalidated, .. });
        if is_invalid && !hears.writes.load(Ordering::SeqCst) {
            hears.dropped.fetch_add(1, Ordering::Relaxed);
        }
    };
    let cache = builder
        .observer(observer)
        .connect_timeout(ANSWER)
        .response_timeout(ANSWER)
        .backoff(Duration::from_millis(5), Duration::from_millis(40))
        .near_heartbeat(HEARTBEAT)
        .open()
        .await
        .unwrap();
    let mut policy = RegionPolicy::new("r", shared.ttl).near(true);
    if random.random_bool(0.5) {
        policy = policy.lease(Duration::from_millis(100)).load_timeout(Duration::from_millis(200));
    }
    let region = cache.region(any_policy(policy, random, shared)).unwrap();
    Node { region, heard }
}

/// What is served stale, and what is loaded ahead of time.
pub(super) fn any_policy(mut policy: RegionPolicy, random: &mut StdRng, shared: Shared) -> RegionPolicy {
    if shared.framed {
        policy = policy.framed(Framing::new());
    }
    if shared.stale_window.is_zero() {
        return policy;
    }
    policy = policy.stale_window(shared.stale_window);
    match random.random_range(0..3) {
        0 => policy.soft_timeout(Duration::from_millis(2)),
        1 => policy.stale_while_revalidate(true).eager_refresh(0.5),
        _ => policy.xfetch_beta(2.0),
    }
}

pub(super) async fn pause(random: &mut StdRng, most: u64) {
    tokio::time::sleep(Duration::from_micros(random.random_range(0..most))).await;
}
