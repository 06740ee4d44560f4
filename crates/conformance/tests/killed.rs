//! Our server killed with SIGKILL while several clients write, and started again on the same directory, over and over: what
//! was acknowledged is there, nothing is newer than what was sent, and transactions are there whole or not at all.
//! `MTCACHE_SEED` repeats a run, `MTCACHE_KILLS` sets how often the server is killed (default 100).

use std::env;
use std::fmt::Display;
use std::io;
use std::str::FromStr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use mtcache_conformance::generate::draw::Draw;
use mtcache_conformance::resp::write_command;
use mtcache_conformance::{Client, ServerOptions, TestServer, Value};

const WRITERS: u64 = 4;
const KEYS: usize = 24;
/// The longest pipeline that a writer sends at once.
const PIPELINE: usize = 8;
/// Up to so many writes are acknowledged before a kill.
const WRITES: usize = 240;
/// How long a machine may take for a round's writes.
const ROUND_DEADLINE: Duration = Duration::from_secs(30);
/// The oldest write that `appendfsync everysec` may lose.
const EVERYSEC: Duration = Duration::from_secs(1);

#[test]
fn no_acknowledged_write_is_lost_in_a_hundred_kills() {
    let (seed, kills) =
        (from_environment("MTCACHE_SEED", fresh_seed()), from_environment("MTCACHE_KILLS", 100));
    println!("MTCACHE_SEED={seed} MTCACHE_KILLS={kills}");
    let mut chance = Draw::new(seed);
    let mut server = start("always");
    let mut writers: Vec<Writer> = (0..WRITERS).map(|number| Writer::new(number, chance.bits())).collect();
    let mut totals = Totals::default();
    for round in 1..=kills {
        let goal = chance.below(WRITES) as u64;
        kill_under_load(&mut server, &mut writers, |acknowledged, _| acknowledged >= goal);
        for writer in &mut writers {
            let found = writer.read_back(&server);
            let lost = writer.lost(&found);
            assert!(lost.is_empty(), "seed {seed}, kill {round}: acknowledged and lost: {lost:?}");
            writer.check_nothing_is_invented(&found, &format!("seed {seed}, kill {round}"));
            totals.add(&writer.settle(&found));
        }
    }
    let Totals { acknowledged, open, effective } = totals;
    println!(
        "{acknowledged} writes were acknowledged, {open} were open when the server died, {effective} of these took effect"
    );
    assert!(acknowledged > 0, "seed {seed}: the writers wrote nothing");
}

#[test]
fn a_kill_under_everysec_loses_at_most_the_last_second() {
    let (seed, kills) = (from_environment("MTCACHE_SEED", fresh_seed()), 4);
    println!("MTCACHE_SEED={seed}");
    let mut chance = Draw::new(seed);
    let mut server = start("everysec");
    let mut writers: Vec<Writer> = (0..WRITERS).map(|number| Writer::new(number, chance.bits())).collect();
    for round in 1..=kills {
        let span = Duration::from_millis(1_200 + chance.below(900) as u64);
        let stalls = Stalls::default();
        let killed = thread::scope(|scope| {
            scope.spawn(|| stalls.watch());
            let killed = kill_under_load(&mut server, &mut writers, |_, elapsed| elapsed >= span);
            stalls.end();
            killed
        });
        // The second is the server's; a machine that gave nobody its processor meanwhile adds what it took.
        let window = EVERYSEC + stalls.longest();
        let (mut lost, mut oldest, mut acknowledged) = (0, Duration::ZERO, 0);
        for writer in &mut writers {
            let found = writer.read_back(&server);
            writer.check_nothing_is_invented(&found, &format!("seed {seed}, kill {round}"));
            for (what, age) in writer.lost_since(&found, killed) {
                assert!(
                    age <= window,
                    "seed {seed}, kill {round}: {what} was acknowledged {age:?} before the kill"
                );
                (lost, oldest) = (lost + 1, oldest.max(age));
            }
            acknowledged += writer.settle(&found).acknowledged;
        }
        println!(
            "kill {round}: of {acknowledged} acknowledged writes the last of {lost} keys is lost, the oldest of {oldest:?}"
        );
    }
}

fn start(appendfsync: &str) -> TestServer {
    let options = ServerOptions::from(["--appendonly", "yes", "--appendfsync", appendfsync]);
    TestServer::mtcache(options).unwrap()
}

/// Lets all writers write until `enough(acknowledged writes, time)`, kills the server in the middle of it, and starts it again.
fn kill_under_load(
    server: &mut TestServer,
    writers: &mut [Writer],
    enough: impl Fn(u64, Duration) -> bool,
) -> Instant {
    let (begin, acknowledged) = (Instant::now(), AtomicU64::new(0));
    let connections: Vec<Client> = writers.iter().map(|_| server.client().unwrap()).collect();
    let killed = thread::scope(|scope| {
        let working: Vec<_> = writers
            .iter_mut()
            .zip(connections)
            .map(|(writer, client)| scope.spawn(|| writer.write_until_it_breaks(client, &acknowledged)))
            .collect();
        while !enough(acknowledged.load(Ordering::Relaxed), begin.elapsed()) {
            assert!(begin.elapsed() < ROUND_DEADLINE, "the server took too long: {}", server.log());
            // A refusal ends a writer before its time; waiting for the others would hide it.
            assert!(!working.iter().any(|writer| writer.is_finished()), "a writer ended early");
            thread::sleep(Duration::from_micros(200));
        }
        let killed = Instant::now();
        server.kill().unwrap();
        killed
    });
    server.start_again().unwrap();
    killed
}

/// One client, the keys that only it writes, and what it knows of them.
struct Writer {
    number: u64,
    chance: Draw,
    /// Grows with every write and is the value written, so that values of a key are ordered.
    sequence: u64,
    keys: Vec<History>,
}

/// What a writer knows of one key.
#[derive(Clone, Default)]
struct History {
    /// The value that must be there at least: the last acknowledged one, or what was read after the last kill.
    acknowledged: u64,
    /// All values sent since the last kill, with the time of their acknowledgement.
    sent: Vec<(u64, Option<Instant>)>,
}

/// What is sent at once and acknowledged at once: keys, all of which take the same value.
type Step = (Vec<usize>, u64);

impl Writer {
    fn new(number: u64, seed: u64) -> Self {
        Self { number, chance: Draw::new(seed), sequence: 0, keys: vec![History::default(); KEYS] }
    }

    fn key(&self, index: usize) -> String {
        format!("writer:{}:{index}", self.number)
    }

    /// Writes until the connection ends, noting what was sent before it is sent and what was acknowledged after it was.
    fn write_until_it_breaks(&mut self, mut client: Client, acknowledged: &AtomicU64) {
        loop {
            let mut bytes = Vec::new();
            let steps: Vec<Step> = (0..=self.chance.below(PIPELINE)).map(|_| self.draw(&mut bytes)).collect();
            if client.send_raw(&bytes).is_err() {
                return;
            }
            for (keys, value) in steps {
                match Self::outcome(&mut client, keys.len()) {
                    Err(_) => return,
                    Ok(reply) => assert!(reply.error().is_none(), "refused: {reply:?}"),
                }
                let now = Instant::now();
                for index in keys {
                    let history = &mut self.keys[index];
                    history.acknowledged = value;
                    let sent = history.sent.iter_mut().rfind(|(sent, _)| *sent == value);
                    sent.expect("it was noted before it was sent").1 = Some(now);
                }
                acknowledged.fetch_add(1, Ordering::Relaxed);
            }
        }
    }

    /// One SET, or a transaction that sets the two keys of a pair; keys from the middle on are pairs.
    fn draw(&mut self, bytes: &mut Vec<u8>) -> Step {
        self.sequence += 1;
        let (value, index) = (self.sequence, self.chance.below(KEYS));
        let single = index < KEYS / 2;
        let keys = if single { vec![index] } else { vec![index & !1, index | 1] };
        if !single {
            write_command(bytes, &["MULTI"]);
        }
        for &index in &keys {
            write_command(bytes, &["SET", &self.key(index), &value.to_string()]);
            self.keys[index].sent.push((value, None));
        }
        if !single {
            write_command(bytes, &["EXEC"]);
        }
        (keys, value)
    }

    fn outcome(client: &mut Client, keys: usize) -> io::Result<Value> {
        if keys > 1 {
            for _ in 0..=keys {
                client.reply()?;
            }
        }
        client.reply()
    }

    /// The values of all keys; 0 for none.
    fn read_back(&self, server: &TestServer) -> Vec<u64> {
        let gets: Vec<_> = (0..KEYS).map(|index| vec!["GET".to_owned(), self.key(index)]).collect();
        let replies = server.client().unwrap().pipeline(&gets).unwrap();
        replies
            .iter()
            .map(|reply| if reply.is_null() { 0 } else { reply.text().unwrap().parse().unwrap() })
            .collect()
    }

    /// Keys whose last acknowledged value is gone: key, acknowledged, found.
    fn lost(&self, found: &[u64]) -> Vec<(String, u64, u64)> {
        let keys = self.keys.iter().zip(found).enumerate();
        keys.filter(|(_, (history, found))| history.acknowledged > **found)
            .map(|(index, (history, found))| (self.key(index), history.acknowledged, *found))
            .collect()
    }

    /// What was acknowledged after what was found: in words, and how long before the kill.
    fn lost_since(&self, found: &[u64], killed: Instant) -> Vec<(String, Duration)> {
        let keys = self.keys.iter().zip(found).enumerate();
        keys.filter_map(|(index, (history, found))| {
            let first_lost = history.sent.iter().find(|(value, _)| value > found)?;
            Some((
                format!("{} of {}", first_lost.0, self.key(index)),
                killed.saturating_duration_since(first_lost.1?),
            ))
        })
        .collect()
    }

    /// A value is one that was sent to this key, and the two keys of a pair have the same.
    fn check_nothing_is_invented(&self, found: &[u64], place: &str) {
        for (index, (history, &value)) in self.keys.iter().zip(found).enumerate() {
            let known = value == 0
                || value == history.acknowledged
                || history.sent.iter().any(|(sent, _)| *sent == value);
            assert!(
                known,
                "{place}: {} has {value}, which was not sent since the kill before",
                self.key(index)
            );
        }
        for pair in (KEYS / 2..KEYS).step_by(2) {
            assert_eq!(found[pair], found[pair + 1], "{place}: half of a transaction in {}", self.key(pair));
        }
    }

    /// Takes what was found as what must be there from now on.
    fn settle(&mut self, found: &[u64]) -> Totals {
        let mut totals = Totals::default();
        for (history, &value) in self.keys.iter_mut().zip(found) {
            for (sent, acknowledged) in history.sent.drain(..) {
                totals.acknowledged += u64::from(acknowledged.is_some());
                totals.open += u64::from(acknowledged.is_none());
                totals.effective += u64::from(acknowledged.is_none() && sent <= value);
            }
            history.acknowledged = value;
        }
        totals
    }
}

/// Writes, counted by key.
#[derive(Default)]
struct Totals {
    acknowledged: u64,
    open: u64,
    effective: u64,
}

impl Totals {
    fn add(&mut self, other: &Self) {
        self.acknowledged += other.acknowledged;
        self.open += other.open;
        self.effective += other.effective;
    }
}

/// How long this machine kept a thread from running that wanted to: no promise in seconds holds while nobody runs.
#[derive(Default)]
struct Stalls {
    longest_micros: AtomicU64,
    ended: AtomicBool,
}

impl Stalls {
    const STEP: Duration = Duration::from_millis(5);

    fn watch(&self) {
        while !self.ended.load(Ordering::Relaxed) {
            let begin = Instant::now();
            thread::sleep(Self::STEP);
            let late = begin.elapsed().saturating_sub(Self::STEP);
            self.longest_micros.fetch_max(late.as_micros() as u64, Ordering::Relaxed);
        }
    }

    fn end(&self) {
        self.ended.store(true, Ordering::Relaxed);
    }

    fn longest(&self) -> Duration {
        Duration::from_micros(self.longest_micros.load(Ordering::Relaxed))
    }
}

fn fresh_seed() -> u64 {
    let clock = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
    clock.as_micros() as u64 ^ u64::from(std::process::id()) << 40
}

fn from_environment<T: FromStr<Err: Display>>(name: &str, default: T) -> T {
    match env::var(name) {
        Err(_) => default,
        Ok(text) => text.parse().unwrap_or_else(|error| panic!("{name}={text}: {error}")),
    }
}
