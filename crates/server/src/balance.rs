//! Which worker serves which connection: as few workers as have the time, and more as soon as one has not.
//!
//! A thread that serves many connections is woken once for many requests, so a load that one core can carry costs less
//! there than spread out. Each worker measures its own processor time. New connections go to the first worker that is not
//! full; a worker that is saturated hands connections over to the one that has most time. Processor time, not time spent away
//! from waiting: where all cores are taken by others, one more thread would win nothing. For the same reason a core must have been idle
//! while the worker was saturated: else two threads share the core that one had, and each is woken for fewer requests. Nor
//! is anything won where a worker spends its time with all keys locked, in scripts mostly, or with the shard of one key that most
//! commands are about: two such threads wait for each other.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use mtcache_engine::{UnixMillis, nanos_alone};
use rustix::time::{ClockId, clock_gettime};
use tokio::sync::mpsc::UnboundedSender;

use parking_lot::Mutex;

use crate::idle_cores::IdleTime;
use crate::roster::Roster;
use crate::worker::Accepted;

/// Time between two looks of a worker at its own load. Default: 100 ms.
pub(crate) const LOOK_PERIOD: Duration = Duration::from_millis(100);
/// Share of a core, in thousandths, from which on a worker hands connections over. Default: 900.
pub const SATURATED: u32 = 900;
/// A worker has to be saturated in so many looks on end: to be moved costs more than a short burst. Default: 5.
const LASTING: u32 = 5;
/// Share of a core, in thousandths, that must be idle for connections to be handed over: two threads take more time for the same
/// commands than one. Default: 500.
pub const IDLE: u32 = 500;
/// Share of a core, in thousandths, up to which a worker is given connections. Default: 700.
const FULL: u32 = 700;

/// What the workers know of each other. Cloning is cheap.
#[derive(Debug, Clone)]
pub(crate) struct Balance {
    workers: Arc<[Peer]>,
    saturated: u32,
    idle: u32,
    moves: Arc<AtomicU64>,
}

#[derive(Debug)]
struct Peer {
    sender: UnboundedSender<Accepted>,
    /// Thousandths of a core.
    load: AtomicU32,
    /// Looks on end in which it was saturated.
    saturated_for: AtomicU32,
    /// What the cores had idled when it became saturated.
    idled: Mutex<Option<IdleTime>>,
}

impl Balance {
    /// `saturated` and `idle`: as [`SATURATED`] and [`IDLE`].
    pub(crate) fn new(senders: Vec<UnboundedSender<Accepted>>, saturated: u32, idle: u32) -> Self {
        let workers = senders
            .into_iter()
            .map(|sender| Peer {
                sender,
                load: AtomicU32::new(0),
                saturated_for: AtomicU32::new(0),
                idled: Mutex::default(),
            })
            .collect();
        Self { workers, saturated, idle, moves: Arc::default() }
    }

    /// How many times a connection has gone from one worker to another.
    pub(crate) fn moves(&self) -> u64 {
        self.moves.load(Ordering::Relaxed)
    }

    /// Gives a connection that leaves another worker to this one.
    pub(crate) fn hand_over(&self, worker: usize, accepted: Accepted) {
        self.moves.fetch_add(1, Ordering::Relaxed);
        self.give(worker, accepted);
    }

    /// Gives a connection to a worker. One that is gone has panicked; the connection is dropped, which closes it.
    fn give(&self, worker: usize, accepted: Accepted) {
        if let Some(peer) = self.workers.get(worker) {
            let _ = peer.sender.send(accepted);
        }
    }

    /// Gives a new connection to the first worker that has time for it.
    pub(crate) fn deal(&self, accepted: Accepted) {
        self.give(self.host(), accepted);
    }

    /// Takes note of how busy `worker` is, and asks as many of its connections to move as bring it level with the one that
    /// has most time, if it has too little itself.
    pub(crate) fn look(&self, worker: usize, load: Load, roster: &Roster, now: UnixMillis) {
        let Some(own) = self.workers.get(worker) else { return };
        let is_divisible = load.alone <= load.whole / 2;
        let load = load.whole;
        own.load.store(load, Ordering::Relaxed);
        if load < self.saturated || !is_divisible {
            own.saturated_for.store(0, Ordering::Relaxed);
            return;
        }
        let looks = own.saturated_for.fetch_add(1, Ordering::Relaxed) + 1;
        if looks == 1 {
            *own.idled.lock() = IdleTime::now();
        }
        if looks < LASTING {
            return;
        }
        if own.idled.lock().is_some_and(|before| before.share_since() < self.idle) {
            own.saturated_for.store(0, Ordering::Relaxed);
            return;
        }
        let Some((idlest, least)) =
            self.idlest().filter(|(idlest, least)| *idlest != worker && *least < FULL)
        else {
            return;
        };
        let active = roster.movable(now);
        let Some(count) = surplus(active.len(), load, least) else { return };
        for outbox in active.iter().take(count) {
            outbox.ask_to_move(idlest);
        }
        own.saturated_for.store(0, Ordering::Relaxed);
        // Nobody else is to count on the same time before that worker has looked again.
        if let Some(target) = self.workers.get(idlest) {
            target.load.fetch_add(load.saturating_sub(least) / 2, Ordering::Relaxed);
        }
    }

    /// The first worker with time, or the one with most.
    fn host(&self) -> usize {
        let first = self.loads().position(|load| load < FULL);
        first.or_else(|| self.idlest().map(|(worker, _)| worker)).unwrap_or(0)
    }

    fn loads(&self) -> impl Iterator<Item = u32> {
        self.workers.iter().map(|peer| peer.load.load(Ordering::Relaxed))
    }

    fn idlest(&self) -> Option<(usize, u32)> {
        self.loads().enumerate().min_by_key(|(_, load)| *load)
    }
}

/// How many of `connections` that make up `load` have to go for the two loads to be even; at least one, and never all.
fn surplus(connections: usize, load: u32, least: u32) -> Option<usize> {
    let most = connections.checked_sub(1).filter(|most| *most > 0)?;
    let share = connections * load.saturating_sub(least) as usize / (2 * load.max(1) as usize);
    Some(share.clamp(1, most))
}

/// What a worker has done with its time, in thousandths of a core.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Load {
    whole: u32,
    /// While it kept all others from doing anything.
    alone: u32,
}

/// Measures the load of the thread that owns it.
pub(crate) struct Meter {
    wall: Instant,
    processor: Duration,
    nanos_alone: u64,
}

impl Meter {
    /// Begins to measure the calling thread.
    pub(crate) fn start() -> Self {
        Self { wall: Instant::now(), processor: thread_time(), nanos_alone: nanos_alone() }
    }

    /// What the thread has done since the last call, which must have come from the same thread.
    pub(crate) fn read(&mut self) -> Load {
        let now = Self::start();
        let wall = now.wall.duration_since(self.wall).max(Duration::from_micros(1));
        let thousandths = |time: Duration| (time.as_secs_f64() / wall.as_secs_f64() * 1000.0) as u32;
        let whole = thousandths(now.processor.saturating_sub(self.processor));
        let alone = thousandths(Duration::from_nanos(now.nanos_alone.wrapping_sub(self.nanos_alone)));
        *self = now;
        Load { whole, alone }
    }
}

fn thread_time() -> Duration {
    Duration::try_from(clock_gettime(ClockId::ThreadCPUTime)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn half_of_the_difference_goes_and_never_everything() {
        assert_eq!(surplus(50, 1000, 0), Some(25));
        assert_eq!(surplus(50, 1000, 600), Some(10));
        assert_eq!(surplus(3, 950, 690), Some(1));
        assert_eq!(surplus(2, 1000, 0), Some(1));
        assert_eq!(surplus(2, 0, 0), Some(1));
        assert_eq!(surplus(1, 1000, 0), None);
        assert_eq!(surplus(0, 1000, 0), None);
    }

    #[test]
    fn the_meter_sees_the_processor_time_of_its_thread_alone() {
        let mut meter = Meter::start();
        std::thread::sleep(Duration::from_millis(30));
        assert!(meter.read().whole < 500);
        let begin = thread_time();
        while thread_time().saturating_sub(begin) < Duration::from_millis(5) {}
        assert!(meter.read().whole > 0);
    }

    #[test]
    fn new_connections_go_to_the_first_worker_with_time() {
        let senders = (0..3).map(|_| tokio::sync::mpsc::unbounded_channel().0).collect();
        let balance = Balance::new(senders, SATURATED, IDLE);
        let roster = Roster::default();
        let host = |loads: [u32; 3]| {
            for (worker, load) in loads.into_iter().enumerate() {
                balance.look(worker, Load { whole: load, alone: 0 }, &roster, UnixMillis(0));
            }
            balance.host()
        };
        assert_eq!(host([0, 0, 0]), 0);
        assert_eq!(host([650, 100, 0]), 0);
        assert_eq!(host([800, 300, 0]), 1);
        assert_eq!(host([990, 980, 960]), 2);
    }

    #[test]
    fn a_worker_that_keeps_the_others_from_working_is_not_taken_for_one_that_has_too_little_time() {
        let senders = (0..2).map(|_| tokio::sync::mpsc::unbounded_channel().0).collect();
        let balance = Balance::new(senders, SATURATED, IDLE);
        let looks = |alone| {
            for _ in 1..LASTING {
                balance.look(0, Load { whole: 1000, alone }, &Roster::default(), UnixMillis(0));
            }
            balance.workers[0].saturated_for.load(Ordering::Relaxed)
        };
        assert_eq!(looks(600), 0);
        assert_eq!(looks(400), LASTING - 1);
    }
}
