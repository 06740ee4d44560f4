//! How long a GET takes while the server saves, and how much memory saving takes: ours beside redis-server, in turn.
//!
//! `MTCACHE_BIN=target/release/mtcache cargo run --release -p mtcache-conformance --example latency_while_saving [ROUNDS]`
//!
//! A million values of 200 bytes; nine GETs to one SET, sent at half of what the slower server can do by a schedule that waits
//! for no reply. A GET's time counts from when it was due, so that whoever stops pays for everything that was due meanwhile
//! (the trap is known as coordinated omission). Resident memory is the server's own, without a forked child's.

use std::collections::VecDeque;
use std::error::Error;
use std::io::{self, ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use mtcache_conformance::resp::write_command;
use mtcache_conformance::{Client, RedisOptions, TestServer, run};

type Result<T> = std::result::Result<T, Box<dyn Error>>;

const KEYS: u64 = 1_000_000;
const VALUE_BYTES: usize = 200;
const CONNECTIONS: usize = 16;
/// Of so many commands one is a SET.
const WRITE_EVERY: u64 = 10;
const QUIET_SECONDS: u64 = 5;
/// A save is repeated until so many GETs fell into one.
const ENOUGH: usize = 50_000;
/// Between two looks at the schedule.
const TICK: Duration = Duration::from_micros(50);

fn main() -> Result<()> {
    let rounds: usize = std::env::args().nth(1).map_or(Ok(5), |text| text.parse())?;
    let mut sides =
        [Side::start("ours", TestServer::mtcache)?, Side::start("redis-server", TestServer::redis)?];
    let mut rate = u64::MAX;
    for side in &mut sides {
        let capacity = side.capacity()?;
        println!(
            "{}: {capacity} commands a second, one at a time on each of {CONNECTIONS} connections",
            side.name
        );
        rate = rate.min(capacity / 2);
    }
    println!("load: {rate} commands a second");
    for round in 1..=rounds {
        for side in &mut sides {
            let quiet = side.phase(rate, None)?;
            let saving = side.phase(rate, Some(("BGSAVE", "rdb_bgsave_in_progress")))?;
            let rewriting = side.phase(rate, Some(("BGREWRITEAOF", "aof_rewrite_in_progress")))?;
            println!("{round} {:12} quiet {quiet} | BGSAVE {saving} | BGREWRITEAOF {rewriting}", side.name);
            for (list, phase) in side.phases.iter_mut().zip([quiet, saving, rewriting]) {
                list.push(phase);
            }
        }
    }
    println!("--- medians of {rounds}");
    for side in &mut sides {
        let [quiet, saving, rewriting] = &mut side.phases;
        let base = median(quiet, |phase| phase.p99);
        println!("{:12} p99 of GET without {base:.0} us", side.name);
        for (name, list) in [("BGSAVE", saving), ("BGREWRITEAOF", rewriting)] {
            let p99 = median(list, |phase| phase.p99);
            println!(
                "{:12} {name:12} p99 {p99:.0} us, {:.2} times; longest {:.1} ms; resident memory {:.2} times",
                side.name,
                p99 / base,
                median(list, |phase| phase.longest) / 1000.0,
                median(list, |phase| phase.memory),
            );
        }
    }
    Ok(())
}

/// What came of one phase.
#[derive(Clone, Copy)]
struct Phase {
    /// Microseconds.
    p50: f64,
    p99: f64,
    longest: f64,
    /// The most resident memory, as a multiple of what there was before.
    memory: f64,
}

impl std::fmt::Display for Phase {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "p50 {:.0} p99 {:.0} longest {:.0} us, memory x{:.2}",
            self.p50, self.p99, self.longest, self.memory
        )
    }
}

struct Side {
    name: &'static str,
    server: TestServer,
    control: Client,
    phases: [Vec<Phase>; 3],
    random: u64,
}

impl Side {
    fn start(
        name: &'static str,
        start: fn(RedisOptions) -> std::result::Result<TestServer, mtcache_conformance::ServerError>,
    ) -> Result<Self> {
        let options =
            ["--save", "", "--appendonly", "yes", "--auto-aof-rewrite-percentage", "0", "--maxmemory", "0"];
        let server = start(RedisOptions::new().args(options))?;
        let control = server.client()?;
        control.set_timeout(Duration::from_mins(1))?;
        let mut side = Self { name, server, control, phases: Default::default(), random: 1 };
        for first in (0..KEYS).step_by(500) {
            let commands: Vec<_> = (first..first + 500).map(|key| side.set(key)).collect();
            side.control.pipeline(&commands)?;
        }
        Ok(side)
    }

    /// A linear congruential generator (D. Knuth's MMIX): the keys need be no more random than that.
    fn draw(&mut self) -> u64 {
        self.random =
            self.random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        self.random >> 33
    }

    /// A SET with a value in which compression finds little.
    fn set(&mut self, key: u64) -> [Vec<u8>; 3] {
        let value = (0..VALUE_BYTES).map(|_| b'0' + (self.draw() % 64) as u8).collect();
        [b"SET".to_vec(), name(key), value]
    }

    fn connect(&self) -> Result<Vec<Link>> {
        let links = (0..CONNECTIONS).map(|_| {
            let stream = TcpStream::connect(("127.0.0.1", self.server.port()))?;
            stream.set_nodelay(true)?;
            stream.set_nonblocking(true)?;
            Ok(Link { stream, due: VecDeque::new(), input: Vec::new(), output: Vec::new() })
        });
        links.collect()
    }

    /// Commands a second when each connection waits for its reply.
    fn capacity(&mut self) -> Result<u64> {
        let mut links = self.connect()?;
        let (begin, mut count) = (Instant::now(), 0);
        while begin.elapsed() < Duration::from_secs(3) {
            for link in &mut links {
                if link.due.is_empty() {
                    link.ask(&[b"GET".to_vec(), name(self.draw() % KEYS)], begin, Kind::Read);
                    count += 1;
                }
                link.send()?;
                link.receive(|_, _| {})?;
            }
        }
        Ok(count / 3)
    }

    /// Loads the server, while it saves or, without a command, for some seconds.
    fn phase(&mut self, rate: u64, saving: Option<(&str, &str)>) -> Result<Phase> {
        let mut links = self.connect()?;
        let before = self.resident()?;
        let mut most = before;
        let mut times: Vec<f64> = Vec::new();
        let gap = Duration::from_secs(1) / u32::try_from(rate)?;
        let begin = Instant::now();
        let (mut sent, mut next_look) = (0_u32, begin);
        let mut is_saving = false;
        loop {
            let now = Instant::now();
            while begin + gap * sent <= now {
                let key = self.draw() % KEYS;
                let (command, kind) = if self.draw().is_multiple_of(WRITE_EVERY) {
                    (self.set(key).to_vec(), Kind::Write)
                } else {
                    (vec![b"GET".to_vec(), name(key)], Kind::Read)
                };
                links[sent as usize % CONNECTIONS].ask(&command, begin + gap * sent, kind);
                sent += 1;
            }
            for link in &mut links {
                link.send()?;
                link.receive(|kind, time| {
                    if kind == Kind::Read && (saving.is_none() || is_saving) {
                        times.push(time.as_secs_f64() * 1e6);
                    }
                })?;
            }
            if now >= next_look {
                next_look = now + Duration::from_millis(20);
                most = most.max(self.resident()?);
                let is_over = match saving {
                    None => begin.elapsed() > Duration::from_secs(QUIET_SECONDS),
                    Some((command, field)) => {
                        is_saving = self.info("persistence", field)? != "0";
                        let is_over = !is_saving && times.len() >= ENOUGH;
                        if !is_saving && !is_over {
                            is_saving = run(&mut self.control, command).error().is_none();
                        }
                        is_over
                    }
                };
                if is_over {
                    break;
                }
            }
            std::thread::sleep(TICK);
        }
        times.sort_by(f64::total_cmp);
        let at = |share: f64| times.get((times.len() as f64 * share) as usize).or(times.last()).copied();
        Ok(Phase {
            p50: at(0.5).unwrap_or_default(),
            p99: at(0.99).unwrap_or_default(),
            longest: at(1.0).unwrap_or_default(),
            memory: most as f64 / before as f64,
        })
    }

    fn info(&mut self, section: &str, field: &str) -> Result<String> {
        let reply = self.control.command(&["INFO", section])?;
        let text = reply.text().ok_or("INFO gave no text")?;
        let prefix = format!("{field}:");
        let found = text.lines().find_map(|line| line.strip_prefix(&prefix));
        Ok(found.ok_or_else(|| format!("INFO has no {field}"))?.trim().to_owned())
    }

    /// Resident kilobytes of the server's process.
    fn resident(&self) -> Result<u64> {
        let pid = self.server.pid().ok_or("the server is gone")?;
        let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).ok_or("no VmRSS")?;
        Ok(line.trim().trim_end_matches("kB").trim().parse()?)
    }
}

fn name(key: u64) -> Vec<u8> {
    format!("market_data:SYM{key:07}").into_bytes()
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Read,
    Write,
}

/// One connection that never waits.
struct Link {
    stream: TcpStream,
    /// When each command that has no reply yet was due.
    due: VecDeque<(Instant, Kind)>,
    input: Vec<u8>,
    output: Vec<u8>,
}

impl Link {
    fn ask(&mut self, command: &[Vec<u8>], due: Instant, kind: Kind) {
        write_command(&mut self.output, command);
        self.due.push_back((due, kind));
    }

    fn send(&mut self) -> Result<()> {
        while !self.output.is_empty() {
            match self.stream.write(&self.output) {
                Ok(written) => drop(self.output.drain(..written)),
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    /// Takes what has come, and tells how long each reply took.
    fn receive(&mut self, mut tell: impl FnMut(Kind, Duration)) -> Result<()> {
        let mut bytes = [0; 16 * 1024];
        if self.due.is_empty() {
            return Ok(());
        }
        match self.stream.read(&mut bytes) {
            Ok(0) => return Err(io::Error::from(ErrorKind::UnexpectedEof).into()),
            Ok(read) => self.input.extend_from_slice(&bytes[..read]),
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
            Err(error) => return Err(error.into()),
        }
        let now = Instant::now();
        let mut start = 0;
        while let Some(length) = reply_length(&self.input[start..])? {
            start += length;
            let (due, kind) = self.due.pop_front().ok_or("a reply that nobody has asked for")?;
            tell(kind, now.saturating_duration_since(due));
        }
        self.input.drain(..start);
        Ok(())
    }
}

/// Bytes of the reply at the beginning, once it is there: a line, or a string of as many bytes as its line says.
fn reply_length(bytes: &[u8]) -> Result<Option<usize>> {
    let Some(end) = bytes.windows(2).position(|pair| pair == b"\r\n") else { return Ok(None) };
    let line = std::str::from_utf8(&bytes[..end])?;
    let length = match line.split_at(1) {
        ("+", _) | ("$", "-1") => end + 2,
        ("$", length) => end + 2 + length.parse::<usize>()? + 2,
        _ => return Err(line.into()),
    };
    Ok((bytes.len() >= length).then_some(length))
}

fn median(phases: &mut [Phase], of: impl Fn(&Phase) -> f64) -> f64 {
    phases.sort_by(|one, other| of(one).total_cmp(&of(other)));
    phases.get(phases.len() / 2).map_or(0.0, of)
}
