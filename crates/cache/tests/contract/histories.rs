//! Randomised histories with faults, each checked against the contract.
//!
//! Two nodes, each with a proxy of its own before one server; one key. Readers and writers pause at random; links are cut or become black holes,
//! requests are held back and come late, the server is killed and comes back empty, tokens and values vanish. The source holds a version
//! that only grows. Checked for every read: what a node reads, is no older than what it wrote itself last, acknowledged or
//! not; what it reads as fresh from the backend is no older than the last acknowledged write of any node; what it reads as fresh from near,
//! no older than the last that was acknowledged a heartbeat before; what it reads as stale while it hears of changes, no older than the
//! last invalidation that was acknowledged a heartbeat before; and nothing is older than it is said to be. The one thing exempted is a write whose outcome was unknown: it may take
//! effect late, which its writer was told.
//!
//! A violation prints the seed; `MTCACHE_HISTORY_SEED=N` runs that one alone. `MTCACHE_HISTORIES=1000` runs so many. Nodes whose
//! clocks are apart need processes: `histories/apart.rs`; failovers: `histories/failovers.rs`.

mod apart;
mod failovers;
mod run;

use std::collections::HashSet;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use mtcache_cache::{Cache, Outcome, Read, ReadOptions, Region, RegionPolicy, Source, Staleness};
use mtcache_conformance::Program;
use mtcache_conformance::servers::TestServer;
use parking_lot::Mutex;
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};

use self::run::{ANSWER, HEARTBEAT, MORE, NODES, Node, Shared, Superseded, any_read, node, pause};
use crate::proxy::{Mode, Proxy};

/// Runs where nobody says otherwise.
const HISTORIES: u64 = 9;
const READERS: u64 = 3;
const FAULTS: u32 = 4;

/// What is known at one moment.
#[derive(Clone, Default)]
struct Floors {
    /// The last write of each node that has ended, however it ended.
    own: [u64; NODES],
    /// The last that was acknowledged, and those before it with their times.
    acknowledged: Vec<(Instant, u64)>,
    /// Of these, the invalidations.
    invalidated: Vec<(Instant, u64)>,
}

#[derive(Default)]
struct Run {
    source: AtomicU64,
    floors: Mutex<Floors>,
    /// Versions whose writes may take effect late.
    uncertain: Mutex<HashSet<u64>>,
    /// One write at a time, so that versions are written in their order.
    writing: tokio::sync::Mutex<()>,
    superseded: Superseded,
    violations: Mutex<Vec<String>>,
    done: AtomicBool,
    seen: Seen,
}

/// What the histories were about, so that they prove something.
#[derive(Default)]
struct Seen {
    near: AtomicU64,
    backend: AtomicU64,
    loader: AtomicU64,
    stale: AtomicU64,
    /// Of these, those that were held against what had been told.
    told: AtomicU64,
    /// Reads whose age was held against the source's.
    aged: AtomicU64,
    failed_reads: AtomicU64,
    failed_writes: AtomicU64,
    /// Fills.
    refused: AtomicU64,
    /// Values that messages have taken from near.
    dropped: AtomicU64,
}

/// The last of these writes before a moment.
fn at(writes: &[(Instant, u64)], moment: Option<Instant>) -> u64 {
    let before = |when: &Instant| moment.is_some_and(|moment| *when <= moment);
    writes.iter().filter(|(when, _)| before(when)).map(|(_, version)| *version).max().unwrap_or(0)
}

/// Whether a node hears of changes at this moment: only then it serves what is near.
fn hears(canary: &Region<u64>) -> bool {
    canary.get_near("c", ReadOptions::new()).is_ok_and(|read| read.is_some())
}

/// Keeps the canary near.
async fn warms(run: Arc<Run>, canary: Region<u64>) {
    while !run.done.load(Ordering::SeqCst) {
        let options = ReadOptions::new().deadline(ANSWER);
        drop(canary.get_or_load_shared_with("c", options, || async { Ok::<_, io::Error>(777) }).await);
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

async fn reads(run: Arc<Run>, node: usize, region: Region<u64>, canary: Region<u64>, mut random: StdRng) {
    while !run.done.load(Ordering::SeqCst) {
        pause(&mut random, 8_000).await;
        let (asked, floors) = (Instant::now(), run.floors.lock().clone());
        let hears = hears(&canary);
        let source = Arc::clone(&run);
        let read = any_read(&region, &mut random, move || source.source.load(Ordering::SeqCst)).await;
        let seen = match &read {
            Err(_) => &run.seen.failed_reads,
            Ok(None) => continue,
            Ok(Some(read)) if read.is_stale() => &run.seen.stale,
            Ok(Some(read)) => match read.source {
                Source::Near => &run.seen.near,
                Source::Backend => &run.seen.backend,
                Source::Loader => &run.seen.loader,
            },
        };
        seen.fetch_add(1, Ordering::Relaxed);
        if hears && read.as_ref().is_ok_and(|read| read.as_ref().is_some_and(Read::is_stale)) {
            run.seen.told.fetch_add(1, Ordering::Relaxed);
        }
        let Ok(Some(read)) = read else { continue };
        let floor = match (read.staleness, read.source) {
            (Staleness::Fresh, Source::Backend) => at(&floors.acknowledged, Some(asked)),
            (Staleness::Fresh, Source::Near) => at(&floors.acknowledged, asked.checked_sub(HEARTBEAT)),
            (Staleness::Stale, _) if hears => at(&floors.invalidated, asked.checked_sub(HEARTBEAT)),
            // A load that another node's write has overtaken may be shared until that is known; of what was not told nobody knows.
            (Staleness::Fresh, Source::Loader) | (Staleness::Stale, _) => 0,
        };
        if let Some(is_understated) = run.superseded.is_understated(&read, asked) {
            run.seen.aged.fetch_add(1, Ordering::Relaxed);
            if is_understated && !run.uncertain.lock().contains(&read.value) {
                run.violations.lock().push(format!("node {node} read {read:?}, which is older"));
            }
        }
        let floor = floor.max(floors.own[node]);
        if read.value > run.source.load(Ordering::SeqCst) {
            run.violations.lock().push(format!("node {node} read {read:?}, which was never written"));
        }
        if read.value < floor && !run.uncertain.lock().contains(&read.value) {
            run.violations
                .lock()
                .push(format!("node {node} read {read:?} although {floor} had been written"));
        }
    }
}

async fn writes(run: Arc<Run>, at: usize, node: Node, mut random: StdRng) {
    while !run.done.load(Ordering::SeqCst) {
        pause(&mut random, 60_000).await;
        let _turn = run.writing.lock().await;
        let version = run.source.fetch_add(1, Ordering::SeqCst) + 1;
        run.superseded.next();
        let kind = random.random_range(0..4);
        let written = node.write(kind, version).await;
        let mut floors = run.floors.lock();
        floors.own[at] = version;
        match written {
            Ok(()) => {
                floors.acknowledged.push((Instant::now(), version));
                if kind != 0 {
                    floors.invalidated.push((Instant::now(), version));
                }
            }
            Err(error) => {
                run.seen.failed_writes.fetch_add(1, Ordering::Relaxed);
                if error.outcome() == Outcome::Unknown {
                    run.uncertain.lock().insert(version);
                }
            }
        }
    }
}

async fn breaks(server: &mut TestServer, proxies: &[Proxy], random: &mut StdRng) {
    for _ in 0..FAULTS {
        pause(random, 120_000).await;
        let modes = [Mode::CutReplies, Mode::SwallowReplies, Mode::SwallowRequests, Mode::HoldRequests];
        match random.random_range(0..8) {
            0 => {
                server.kill().unwrap();
                pause(random, 100_000).await;
                server.start_again().unwrap();
            }
            1 => vanishes(server, "mtcache:fill:{r:k}"),
            2 => vanishes(server, "r:k"),
            3 => {
                server.pause().unwrap();
                pause(random, 400_000).await;
                server.resume().unwrap();
            }
            _ => {
                let proxy = &proxies[random.random_range(0..NODES)];
                proxy.set(modes[random.random_range(0..modes.len())]);
                pause(random, 300_000).await;
                proxy.set(Mode::Pass);
            }
        }
    }
}

/// As after an eviction.
fn vanishes(server: &TestServer, key: &str) {
    server.client().unwrap().command(&["DEL", key]).unwrap();
}

async fn history(seed: u64, total: &Seen) {
    let mut random = StdRng::seed_from_u64(seed);
    let program = Program::ALL[usize::try_from(seed).unwrap_or(0) % Program::ALL.len()];
    let mut server = TestServer::start(program, run::any_clock(program, &mut random)).unwrap();
    let proxies = [Proxy::before(server.port()).await, Proxy::before(server.port()).await];
    let run = Arc::new(Run::default());
    // The same for all, as for all who share a region: who has none does not tell of keys that are absent.
    let shared = Shared::any(&mut random);
    let (mut tasks, mut nodes) = (Vec::new(), Vec::new());
    for (at, proxy) in proxies.iter().enumerate() {
        let node = node(Cache::builder(proxy.url()), &mut random, shared).await;
        let region = node.region.clone();
        let canary = RegionPolicy::new("canary", Duration::from_mins(5)).near(true);
        let canary: Region<u64> = region.cache().region(canary).unwrap();
        let mut next = || StdRng::seed_from_u64(random.random());
        for _ in 0..READERS {
            tasks.push(tokio::spawn(reads(Arc::clone(&run), at, region.clone(), canary.clone(), next())));
        }
        tasks.push(tokio::spawn(warms(Arc::clone(&run), canary)));
        tasks.push(tokio::spawn(writes(Arc::clone(&run), at, node.clone(), next())));
        nodes.push(node);
    }
    breaks(&mut server, &proxies, &mut random).await;
    pause(&mut random, 200_000).await;
    run.done.store(true, Ordering::SeqCst);
    for task in tasks {
        task.await.unwrap();
    }
    for node in nodes {
        run.seen.refused.fetch_add(node.region.stats().fills_refused, Ordering::Relaxed);
        run.seen.dropped.fetch_add(node.told(), Ordering::Relaxed);
    }
    let violations = run.violations.lock();
    assert!(violations.is_empty(), "MTCACHE_HISTORY_SEED={seed} on {program:?}: {violations:#?}");
    let seen = &run.seen;
    for (from, to) in [
        (&seen.near, &total.near),
        (&seen.backend, &total.backend),
        (&seen.loader, &total.loader),
        (&seen.stale, &total.stale),
        (&seen.told, &total.told),
        (&seen.aged, &total.aged),
        (&seen.refused, &total.refused),
        (&seen.dropped, &total.dropped),
        (&seen.failed_reads, &total.failed_reads),
        (&seen.failed_writes, &total.failed_writes),
    ] {
        to.fetch_add(from.load(Ordering::Relaxed), Ordering::Relaxed);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_history_with_faults_breaks_the_contract() {
    let number = |name: &str| std::env::var(name).ok().map(|text| text.parse::<u64>().unwrap());
    let total = Seen::default();
    if let Some(seed) = number("MTCACHE_HISTORY_SEED") {
        return history(seed, &total).await;
    }
    let first = rand::random::<u32>();
    let count = number("MTCACHE_HISTORIES").unwrap_or(HISTORIES);
    println!("{count} histories from seed {first}");
    let of = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
    let is_lacking = || {
        let needed = [
            &total.near,
            &total.backend,
            &total.loader,
            &total.stale,
            &total.told,
            &total.aged,
            &total.refused,
            &total.dropped,
        ];
        needed.into_iter().any(|counter| of(counter) == 0)
    };
    let mut n = 0;
    // As in `run.rs`.
    while n < count || (n < count + MORE && is_lacking()) {
        history(u64::from(first) + n, &total).await;
        n += 1;
    }
    println!(
        "reads: {} near, {} backend, {} loader, {} stale of which {} while changes were heard, {} failed, {} ages checked; \
         {} writes failed; {} fills refused, {} values dropped by messages",
        of(&total.near),
        of(&total.backend),
        of(&total.loader),
        of(&total.stale),
        of(&total.told),
        of(&total.failed_reads),
        of(&total.aged),
        of(&total.failed_writes),
        of(&total.refused),
        of(&total.dropped)
    );
    assert!(!is_lacking(), "what the histories were about did not come about");
    assert!(of(&total.failed_writes) + of(&total.failed_reads) > 0, "nothing ever failed");
}
