//! Histories whose nodes are processes: their clocks and the server's are up to half an hour apart from each other.
//!
//! This process has the source (a file), the proxies and the server; it orders writes, one at a time, and breaks things. The nodes say
//! what they read and when, by the monotonic clock, which all processes of a machine share and nobody shifts; what their reads are held to is
//! checked when all have ended. `MTCACHE_APART_HISTORIES=200` runs so many.

use std::fs::File;
use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::process::{Child, ChildStdin, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use mtcache_cache::{Age, Cache, Outcome, Region, Source, Staleness};
use mtcache_conformance::Program;
use mtcache_conformance::clock;
use mtcache_conformance::servers::TestServer;
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

use super::breaks;
use super::run::{
    CLOCKS, HEARTBEAT, NODES, Seen, Shared, any_clock, any_read, is_understated, many, node, pause,
};
use crate::proxy::Proxy;

/// Runs where nobody says otherwise.
const HISTORIES: u64 = 2;
const READERS: u32 = 3;
const URL: &str = "MTCACHE_TEST_NODE_URL";
const SEED: &str = "MTCACHE_TEST_NODE_SEED";
const SOURCE: &str = "MTCACHE_TEST_NODE_SOURCE";
const TTL: &str = "MTCACHE_TEST_NODE_TTL";
const FRAMED: &str = "MTCACHE_TEST_NODE_FRAMED";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_history_of_processes_with_clocks_apart_breaks_the_contract() {
    many("MTCACHE_APART_HISTORIES", HISTORIES, history).await;
}

/// What a node says.
enum Word {
    Read(Seeing),
    FailedRead,
    /// When a write had ended, and how.
    Wrote(u64, Ending),
    /// How many fills were refused, and values dropped by messages.
    Ended(u64, u64),
}

/// What a read saw, and when it was asked.
struct Seeing {
    asked: u64,
    value: u64,
    source: Source,
    staleness: Staleness,
    /// The most that it may be, if that is known.
    age: Option<u64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ending {
    Acknowledged,
    Failed,
    Unknown,
}

/// A version, and when it had been written.
type Written = (u64, u64);

struct Node {
    child: Child,
    orders: ChildStdin,
    words: UnboundedReceiver<Word>,
    reads: Vec<Seeing>,
    failed_reads: u64,
    /// Its own, however they ended.
    writes: Vec<Written>,
}

async fn history(seed: u64, total: &Seen) {
    let mut random = StdRng::seed_from_u64(seed);
    let program = Program::ALL[usize::try_from(seed).unwrap_or(0) % Program::ALL.len()];
    let mut server = TestServer::start(program, any_clock(program, &mut random)).unwrap();
    let proxies = [Proxy::before(server.port()).await, Proxy::before(server.port()).await];
    let files = tempfile::tempdir().unwrap();
    let path = files.path().join("source");
    let source = File::create(&path).unwrap();
    put(&source, 0);
    let shared = Shared::stale(&mut random);
    let mut nodes = Vec::new();
    for proxy in &proxies {
        let ahead = CLOCKS[random.random_range(0..CLOCKS.len())];
        nodes.push(Node::start(&proxy.url(), &path, random.random(), ahead, shared));
    }
    let (mut breaking, mut ordering) = (StdRng::seed_from_u64(random.random()), random);
    let broken = AtomicBool::new(false);
    let (mut acknowledged, mut uncertain, mut superseded) = (Vec::new(), Vec::new(), Vec::new());
    let seen = Seen::default();
    let faults = async {
        breaks(&mut server, &proxies, &mut breaking).await;
        pause(&mut breaking, 200_000).await;
        broken.store(true, Ordering::SeqCst);
    };
    let orders = async {
        let mut version = 0;
        while !broken.load(Ordering::SeqCst) {
            pause(&mut ordering, 60_000).await;
            version += 1;
            put(&source, version);
            superseded.push(now());
            let ending =
                nodes[ordering.random_range(0..NODES)].write(ordering.random_range(0..4), version).await;
            seen.writes.fetch_add(1, Ordering::Relaxed);
            match ending {
                Ending::Acknowledged => acknowledged.push((now(), version)),
                Ending::Failed | Ending::Unknown => drop(seen.failed_writes.fetch_add(1, Ordering::Relaxed)),
            }
            if ending == Ending::Unknown {
                uncertain.push(version);
            }
        }
    };
    tokio::join!(faults, orders);
    let mut violations = Vec::new();
    for (at, node) in nodes.iter_mut().enumerate() {
        let (refused, told) = node.end().await;
        seen.refused.fetch_add(refused, Ordering::Relaxed);
        seen.told.fetch_add(told, Ordering::Relaxed);
        seen.failed_reads.fetch_add(node.failed_reads, Ordering::Relaxed);
        for Seeing { asked, value, source, staleness, age } in &node.reads {
            seen.count(*source, *staleness);
            let least = superseded.get(*value as usize).map(|superseded| asked.saturating_sub(*superseded));
            if let (Some(age), Some(least)) = (age, least) {
                seen.aged.fetch_add(1, Ordering::Relaxed);
                let said = Age::AtMost(Duration::from_nanos(*age));
                let is_older = is_understated(said, Duration::from_nanos(least)) == Some(true);
                if is_older && !uncertain.contains(value) {
                    violations
                        .push(format!("node {at} read {value} from {source:?} as {said:?}, of {least} ns"));
                }
            }
            let of_any = match (staleness, source) {
                (Staleness::Fresh, Source::Backend) => newest(&acknowledged, *asked),
                (Staleness::Fresh, Source::Near) => {
                    newest(&acknowledged, asked.saturating_sub(HEARTBEAT.as_nanos() as u64))
                }
                (Staleness::Fresh, Source::Loader) | (Staleness::Stale, _) => 0,
            };
            let floor = of_any.max(newest(&node.writes, *asked));
            if *value < floor && !uncertain.contains(value) {
                violations.push(format!(
                    "node {at} read {value} from {source:?} although {floor} had been written"
                ));
            }
        }
    }
    assert!(violations.is_empty(), "MTCACHE_HISTORY_SEED={seed} on {program:?}: {violations:#?}");
    total.add(&seen);
}

/// The newest of the versions that had been written before the moment.
fn newest(written: &[Written], moment: u64) -> u64 {
    written.iter().filter(|(when, _)| *when < moment).map(|(_, version)| *version).max().unwrap_or(0)
}

impl Node {
    /// Returns when it is ready.
    fn start(url: &str, source: &Path, seed: u64, clock_ahead: i32, shared: Shared) -> Self {
        let mut child = clock::command(&std::env::current_exe().unwrap(), clock_ahead)
            .unwrap()
            .args(["--exact", "histories::apart::a_node", "--ignored", "--nocapture"])
            .env(URL, url)
            .env(SEED, seed.to_string())
            .env(SOURCE, source)
            .env(FRAMED, shared.framed.to_string())
            .env(TTL, shared.ttl.as_millis().to_string())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let orders = child.stdin.take().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let (sender, words) = unbounded_channel();
        let clock = tokio::task::block_in_place(|| {
            let mut lines = lines.by_ref().map_while(Result::ok);
            lines.find_map(|line| Some(line.split_once("node: ")?.1.parse::<i64>().unwrap())).unwrap()
        });
        let off = clock - seconds_now() - i64::from(clock_ahead);
        assert!(off.abs() < 60, "its clock is {off} s away from where it should be");
        std::thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                // The test harness has words of its own.
                let Some((_, words)) = line.split_once("node: ") else { continue };
                if sender.send(Word::of(words)).is_err() {
                    return;
                }
            }
        });
        Self { child, orders, words, reads: Vec::new(), failed_reads: 0, writes: Vec::new() }
    }

    /// Orders a write, and waits for its end.
    async fn write(&mut self, kind: u32, version: u64) -> Ending {
        writeln!(self.orders, "{kind} {version}").unwrap();
        let Word::Wrote(when, ending) = self.says().await else { panic!("the node ended before its time") };
        self.writes.push((when, version));
        ending
    }

    async fn end(&mut self) -> (u64, u64) {
        writeln!(self.orders, "end").unwrap();
        let Word::Ended(refused, told) = self.says().await else { panic!("the node wrote unasked") };
        (refused, told)
    }

    /// The next word that is not about a read; those are noted.
    async fn says(&mut self) -> Word {
        loop {
            let word = tokio::time::timeout(Duration::from_mins(1), self.words.recv()).await;
            match word.expect("a node that is asked says something within a minute").expect("the node lives")
            {
                Word::Read(seeing) => self.reads.push(seeing),
                Word::FailedRead => self.failed_reads += 1,
                word => return word,
            }
        }
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Word {
    fn of(text: &str) -> Self {
        let words: Vec<&str> = text.split(' ').collect();
        let number = |at: usize| words[at].parse::<u64>().unwrap();
        match words[0] {
            "read" => {
                let sources = [Source::Near, Source::Backend, Source::Loader];
                let source = sources.into_iter().find(|source| source.name() == words[3]).unwrap();
                let staleness = if words[4] == "stale" { Staleness::Stale } else { Staleness::Fresh };
                let age = words[5].parse().ok();
                Self::Read(Seeing { asked: number(1), value: number(2), source, staleness, age })
            }
            "failed" => Self::FailedRead,
            "wrote" => {
                let endings = [Ending::Acknowledged, Ending::Failed, Ending::Unknown];
                Self::Wrote(
                    number(1),
                    endings.into_iter().find(|ending| format!("{ending:?}") == words[2]).unwrap(),
                )
            }
            "ended" => Self::Ended(number(1), number(2)),
            other => panic!("the node said {other:?}"),
        }
    }
}

/// Not a test by itself: what a node does.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "started by the tests of this file"]
async fn a_node() {
    let order = |name: &str| std::env::var(name).unwrap();
    let mut random = StdRng::seed_from_u64(order(SEED).parse().unwrap());
    let source = Arc::new(File::open(order(SOURCE)).unwrap());
    let ttl = Duration::from_millis(order(TTL).parse().unwrap());
    let shared = Shared { ttl, framed: order(FRAMED).parse().unwrap(), ..Shared::stale(&mut random) };
    let node = node(Cache::builder(order(URL)), &mut random, shared).await;
    let region = node.region.clone();
    println!("node: {}", seconds_now());
    let done = Arc::new(AtomicBool::new(false));
    let mut readers = Vec::new();
    for _ in 0..READERS {
        let random = StdRng::seed_from_u64(random.random());
        readers.push(tokio::spawn(reads(region.clone(), Arc::clone(&source), random, Arc::clone(&done))));
    }
    loop {
        let mut order = String::new();
        tokio::task::block_in_place(|| std::io::stdin().read_line(&mut order).unwrap());
        let Some((kind, version)) = order.trim().split_once(' ') else { break };
        let written = node.write(kind.parse().unwrap(), version.parse().unwrap()).await;
        let ending = match written {
            Ok(()) => Ending::Acknowledged,
            Err(error) if error.outcome() == Outcome::Unknown => Ending::Unknown,
            Err(_) => Ending::Failed,
        };
        println!("node: wrote {} {ending:?}", now());
    }
    done.store(true, Ordering::SeqCst);
    for reader in readers {
        reader.await.unwrap();
    }
    println!("node: ended {} {}", node.region.stats().fills_refused, node.told());
}

async fn reads(region: Region<u64>, source: Arc<File>, mut random: StdRng, done: Arc<AtomicBool>) {
    while !done.load(Ordering::SeqCst) {
        pause(&mut random, 8_000).await;
        let (asked, source) = (now(), Arc::clone(&source));
        match any_read(&region, &mut random, move || taken(&source)).await {
            Ok(None) => {}
            Ok(Some(read)) => {
                let staleness = if read.is_stale() { "stale" } else { "fresh" };
                let age = match read.age {
                    Age::Exact(age) | Age::AtMost(age) => age.as_nanos().to_string(),
                    Age::Unknown => "unknown".to_owned(),
                };
                let source = read.source.name();
                println!("node: read {asked} {} {source} {staleness} {age}", read.value);
            }
            Err(_) => println!("node: failed"),
        }
    }
}

fn put(source: &File, version: u64) {
    source.write_all_at(&version.to_le_bytes(), 0).unwrap();
}

fn taken(source: &File) -> u64 {
    let mut version = [0; 8];
    source.read_exact_at(&mut version, 0).unwrap();
    u64::from_le_bytes(version)
}

/// Nanoseconds by the clock that all processes share.
fn now() -> u64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}

fn seconds_now() -> i64 {
    i64::try_from(std::time::UNIX_EPOCH.elapsed().unwrap().as_secs()).unwrap()
}
