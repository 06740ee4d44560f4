//! Counting: calls and time per command, errors, connections, bytes, and rates.
//!
//! Invariant: a thread counts in a lane of its own with plain relaxed stores, so that no cache line is shared on the hot
//! path; a reader adds the lanes up. `CONFIG RESETSTAT` touches no lane: it remembers the sums of that moment, which are
//! subtracted from then on, so that no count made meanwhile is lost. Deliberately absent: reading a clock.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering, fence};
use std::sync::{Arc, OnceLock};

use mtcache_protocol::{COMMAND_COUNT, COMMANDS, CommandId, CommandSpec};
use parking_lot::Mutex;

use crate::histogram::{BUCKETS, Histogram, bucket};

/// What is counted for a command.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct CommandStats {
    /// Calls that ran, failed ones included.
    pub calls: u64,
    /// Nanoseconds spent in them.
    pub nanos: u64,
    /// Calls refused before they ran.
    pub rejected: u64,
    /// Calls that ran and ended in an error.
    pub failed: u64,
}

/// What is counted for the whole engine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Totals {
    /// Commands that ran.
    pub commands: u64,
    /// Connections accepted.
    pub connections: u64,
    /// Connections turned away.
    pub rejected_connections: u64,
    /// Connections ended for the memory that they held.
    pub evicted_clients: u64,
    /// Bytes received.
    pub input_bytes: u64,
    /// Bytes sent.
    pub output_bytes: u64,
    /// Times that something was read from a connection.
    pub reads: u64,
    /// Times that something was written to a connection.
    pub writes: u64,
    /// Nanoseconds spent on removing what has expired and nobody asked for.
    pub expiring_nanos: u64,
}

/// A counter with one writer.
#[derive(Debug, Default)]
struct Counter(AtomicU64);

impl Counter {
    /// No other thread writes here, so that a load and a store cannot lose anything.
    #[inline]
    fn add(&self, n: u64) {
        self.0.store(self.0.load(Ordering::Relaxed).wrapping_add(n), Ordering::Relaxed);
    }

    fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

#[derive(Debug, Default)]
struct CommandLane {
    calls: Counter,
    nanos: Counter,
    rejected: Counter,
    failed: Counter,
    /// Made with the first call, for most commands are never called.
    durations: OnceLock<Box<[Counter; BUCKETS]>>,
}

impl CommandLane {
    #[inline]
    fn ran(&self, nanos: u64, failed: bool) {
        self.calls.add(1);
        self.nanos.add(nanos);
        if failed {
            self.failed.add(1);
        }
        let durations = self.durations.get_or_init(|| Box::new(std::array::from_fn(|_| Counter::default())));
        if let Some(counter) = durations.get(bucket(nanos)) {
            counter.add(1);
        }
    }
}

/// One thread's counters.
#[repr(align(128))]
struct Lane {
    commands: Box<[CommandLane]>,
    input_bytes: Counter,
    output_bytes: Counter,
    reads: Counter,
    writes: Counter,
}

impl Lane {
    fn new() -> Self {
        Self {
            commands: (0..COMMAND_COUNT).map(|_| CommandLane::default()).collect(),
            input_bytes: Counter::default(),
            output_bytes: Counter::default(),
            reads: Counter::default(),
            writes: Counter::default(),
        }
    }
}

thread_local! {
    /// This thread's lanes, by the number of the engine.
    static LANES: RefCell<Vec<(u64, Arc<Lane>)>> = const { RefCell::new(Vec::new()) };
}

/// Different codes of error that are counted apart; the rest are counted together. Default: 128.
const MAX_ERROR_CODES: usize = 128;
/// Samples that a rate is averaged over: at ten a second, the last 1.6 seconds.
const RATE_SAMPLES: usize = 16;
/// Samples closer to each other than this many nanoseconds are left out: 50 ms.
const MIN_PERIOD: u64 = 50_000_000;

/// See the module.
pub(crate) struct Stats {
    /// Tells engines apart in the thread-local lists.
    id: u64,
    lanes: Mutex<Vec<Arc<Lane>>>,
    connections: AtomicU64,
    rejected_connections: AtomicU64,
    evicted_clients: AtomicU64,
    expiring_nanos: AtomicU64,
    errors: Mutex<BTreeMap<Box<str>, u64>>,
    baseline: Mutex<Sums>,
    rates: Mutex<Rates>,
}

/// The lanes added up.
#[derive(Debug, Clone, Default)]
struct Sums {
    totals: Totals,
    commands: Vec<CommandStats>,
    /// By a command's position in the table; only in the baseline.
    histograms: Vec<(usize, Histogram)>,
}

impl Stats {
    pub(crate) fn new() -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        Self {
            id: NEXT.fetch_add(1, Ordering::Relaxed),
            lanes: Mutex::default(),
            connections: AtomicU64::new(0),
            rejected_connections: AtomicU64::new(0),
            evicted_clients: AtomicU64::new(0),
            expiring_nanos: AtomicU64::new(0),
            errors: Mutex::default(),
            baseline: Mutex::default(),
            rates: Mutex::default(),
        }
    }

    /// Counts a command that ran.
    #[inline]
    pub(crate) fn ran(&self, command: CommandId, nanos: u64, failed: bool) {
        self.with_lane(|lane| {
            if let Some(counters) = lane.commands.get(command.index()) {
                counters.ran(nanos, failed);
            }
        });
    }

    /// Counts a command that was refused before it ran.
    pub(crate) fn rejected(&self, command: CommandId) {
        self.with_lane(|lane| {
            if let Some(counters) = lane.commands.get(command.index()) {
                counters.rejected.add(1);
            }
        });
    }

    /// Counts an error reply by its code, the first word of its text.
    #[cold]
    pub(crate) fn error(&self, text: &[u8]) {
        let code = text.split(|byte| *byte == b' ').next().unwrap_or_default();
        let code = &*String::from_utf8_lossy(code);
        let mut errors = self.errors.lock();
        if let Some(count) = errors.get_mut(code) {
            *count += 1;
            return;
        }
        let code = if errors.len() < MAX_ERROR_CODES { code } else { "OTHER" };
        *errors.entry(code.into()).or_default() += 1;
    }

    /// Counts bytes that went over a connection.
    #[inline]
    pub(crate) fn network(&self, received: u64, sent: u64) {
        self.with_lane(|lane| {
            if received > 0 {
                lane.input_bytes.add(received);
                lane.reads.add(1);
            }
            if sent > 0 {
                lane.output_bytes.add(sent);
                lane.writes.add(1);
            }
        });
    }

    pub(crate) fn connected(&self) {
        self.connections.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn connection_rejected(&self) {
        self.rejected_connections.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn client_evicted(&self) {
        self.evicted_clients.fetch_add(1, Ordering::Relaxed);
    }

    /// Adds time that was spent on removing what has expired.
    pub(crate) fn expired_for(&self, nanos: u64) {
        self.expiring_nanos.fetch_add(nanos, Ordering::Relaxed);
    }

    /// The totals since the last reset.
    pub(crate) fn totals(&self) -> Totals {
        let (now, then) = (self.sums().totals, self.baseline.lock().totals);
        Totals {
            commands: now.commands.wrapping_sub(then.commands),
            connections: now.connections.wrapping_sub(then.connections),
            rejected_connections: now.rejected_connections.wrapping_sub(then.rejected_connections),
            evicted_clients: now.evicted_clients.wrapping_sub(then.evicted_clients),
            expiring_nanos: now.expiring_nanos.wrapping_sub(then.expiring_nanos),
            input_bytes: now.input_bytes.wrapping_sub(then.input_bytes),
            output_bytes: now.output_bytes.wrapping_sub(then.output_bytes),
            reads: now.reads.wrapping_sub(then.reads),
            writes: now.writes.wrapping_sub(then.writes),
        }
    }

    /// The commands that were called or refused since the last reset.
    pub(crate) fn commands(&self) -> Vec<(&'static CommandSpec, CommandStats)> {
        let now = self.sums().commands;
        let baseline = self.baseline.lock();
        let mut used = Vec::new();
        for (index, (spec, now)) in COMMANDS.iter().zip(now).enumerate() {
            let then = baseline.commands.get(index).copied().unwrap_or_default();
            let since = CommandStats {
                calls: now.calls.wrapping_sub(then.calls),
                nanos: now.nanos.wrapping_sub(then.nanos),
                rejected: now.rejected.wrapping_sub(then.rejected),
                failed: now.failed.wrapping_sub(then.failed),
            };
            if since != CommandStats::default() {
                used.push((spec, since));
            }
        }
        used
    }

    /// How long the commands took that were called since the last reset.
    pub(crate) fn histograms(&self) -> Vec<(&'static CommandSpec, Histogram)> {
        let baseline = self.baseline.lock();
        let mut found = Vec::new();
        for (index, mut histogram) in self.sum_histograms() {
            if let Some((_, then)) = baseline.histograms.iter().find(|(other, _)| *other == index) {
                for (count, then) in histogram.counts.iter_mut().zip(then.counts) {
                    *count = count.wrapping_sub(then);
                }
            }
            if let Some(spec) = COMMANDS.get(index).filter(|_| histogram.count() > 0) {
                found.push((spec, histogram));
            }
        }
        found
    }

    fn sum_histograms(&self) -> Vec<(usize, Histogram)> {
        let mut sums: Vec<(usize, Histogram)> = Vec::new();
        let lanes = self.lanes.lock();
        for index in 0..COMMAND_COUNT {
            let mut sum: Option<Histogram> = None;
            for lane in lanes.iter() {
                let durations = lane.commands.get(index).and_then(|command| command.durations.get());
                let Some(durations) = durations else { continue };
                let sum = sum.get_or_insert_default();
                for (count, counter) in sum.counts.iter_mut().zip(durations.iter()) {
                    *count += counter.get();
                }
            }
            sums.extend(sum.map(|sum| (index, sum)));
        }
        sums
    }

    /// Error replies by code.
    pub(crate) fn errors(&self) -> Vec<(Box<str>, u64)> {
        self.errors.lock().iter().map(|(code, count)| (code.clone(), *count)).collect()
    }

    /// Starts counting from zero.
    pub(crate) fn reset(&self) {
        let sums = Sums { histograms: self.sum_histograms(), ..self.sums() };
        self.rates.lock().clear();
        *self.baseline.lock() = sums;
        self.errors.lock().clear();
    }

    /// Takes a sample for the rates; to be called ten times a second.
    pub(crate) fn sample(&self, monotonic_nanos: u64) {
        let totals = self.sums().totals;
        self.rates.lock().sample(monotonic_nanos, totals);
    }

    /// Commands a second, kilobytes received a second, kilobytes sent a second.
    pub(crate) fn rates(&self) -> (u64, f64, f64) {
        let rates = self.rates.lock();
        let mean = |of: fn(&Sample) -> f64| {
            let sum: f64 = rates.samples.iter().map(of).sum();
            sum / rates.samples.len().max(1) as f64
        };
        (mean(|s| s.commands) as u64, mean(|s| s.input) / 1024.0, mean(|s| s.output) / 1024.0)
    }

    fn sums(&self) -> Sums {
        let mut commands = vec![CommandStats::default(); COMMAND_COUNT];
        let mut totals = Totals {
            connections: self.connections.load(Ordering::Relaxed),
            rejected_connections: self.rejected_connections.load(Ordering::Relaxed),
            evicted_clients: self.evicted_clients.load(Ordering::Relaxed),
            expiring_nanos: self.expiring_nanos.load(Ordering::Relaxed),
            ..Totals::default()
        };
        for lane in self.lanes.lock().iter() {
            for (sum, counters) in commands.iter_mut().zip(&lane.commands) {
                sum.calls += counters.calls.get();
                sum.nanos += counters.nanos.get();
                sum.rejected += counters.rejected.get();
                sum.failed += counters.failed.get();
            }
            totals.input_bytes += lane.input_bytes.get();
            totals.output_bytes += lane.output_bytes.get();
            totals.reads += lane.reads.get();
            totals.writes += lane.writes.get();
        }
        totals.commands = commands.iter().map(|command| command.calls).sum();
        Sums { totals, commands, histograms: Vec::new() }
    }

    #[inline]
    fn with_lane(&self, count: impl FnOnce(&Lane)) {
        // A thread that is ending has no lane any more; what it does then goes uncounted.
        let _ = LANES.try_with(|lanes| {
            let Ok(mut lanes) = lanes.try_borrow_mut() else { return };
            match lanes.iter().find(|(id, _)| *id == self.id) {
                Some((_, lane)) => count(lane),
                None => count(&self.open_lane(&mut lanes)),
            }
        });
    }

    /// Gives this thread a lane: one that a thread which has ended left behind, or a new one.
    #[cold]
    fn open_lane(&self, mine: &mut Vec<(u64, Arc<Lane>)>) -> Arc<Lane> {
        // Engines that are gone have left their lanes here alone.
        mine.retain(|(_, lane)| Arc::strong_count(lane) > 1);
        let mut lanes = self.lanes.lock();
        let free = lanes.iter().find(|lane| Arc::strong_count(lane) == 1).cloned();
        let lane = free.unwrap_or_else(|| {
            let lane = Arc::new(Lane::new());
            lanes.push(Arc::clone(&lane));
            lane
        });
        // The count of a lane that was left behind went down after the last write into it: see that before writing.
        fence(Ordering::Acquire);
        mine.push((self.id, Arc::clone(&lane)));
        lane
    }
}

/// What went by in one period, per second.
#[derive(Debug, Clone, Copy)]
struct Sample {
    commands: f64,
    input: f64,
    output: f64,
}

#[derive(Debug, Default)]
struct Rates {
    last: Option<(u64, Totals)>,
    samples: Vec<Sample>,
    next: usize,
}

impl Rates {
    fn sample(&mut self, nanos: u64, totals: Totals) {
        if let Some((then, before)) = self.last {
            if nanos.saturating_sub(then) < MIN_PERIOD {
                return;
            }
            let seconds = (nanos - then) as f64 / 1e9;
            let rate = |now: u64, before: u64| now.saturating_sub(before) as f64 / seconds;
            let sample = Sample {
                commands: rate(totals.commands, before.commands),
                input: rate(totals.input_bytes, before.input_bytes),
                output: rate(totals.output_bytes, before.output_bytes),
            };
            match self.samples.get_mut(self.next) {
                Some(place) => *place = sample,
                None => self.samples.push(sample),
            }
            self.next = (self.next + 1) % RATE_SAMPLES;
        }
        self.last = Some((nanos, totals));
    }

    fn clear(&mut self) {
        self.samples.clear();
        self.next = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_of_all_threads_add_up_and_a_reset_forgets_them() {
        const GET: CommandId = CommandId::of("get");
        let stats = Arc::new(Stats::new());
        for _ in 0..3 {
            let stats = Arc::clone(&stats);
            std::thread::spawn(move || (0..1000).for_each(|_| stats.ran(GET, 2, false))).join().unwrap();
        }
        stats.ran(GET, 2, true);
        let expected = CommandStats { calls: 3001, nanos: 6002, rejected: 0, failed: 1 };
        assert_eq!(stats.commands().len(), 1);
        assert_eq!(stats.commands()[0].1, expected);
        assert!(stats.lanes.lock().len() <= 2, "lanes of threads that have ended are used again");
        stats.reset();
        assert!(stats.commands().is_empty());
        stats.rejected(GET);
        assert_eq!(stats.commands()[0].1, CommandStats { rejected: 1, ..CommandStats::default() });
    }

    #[test]
    fn rates_are_means_over_the_last_samples() {
        const GET: CommandId = CommandId::of("get");
        let stats = Stats::new();
        for second in 0..20_u64 {
            stats.sample(second * 1_000_000_000);
            (0..100).for_each(|_| stats.ran(GET, 1, false));
            stats.network(2048, 1024);
        }
        assert_eq!(stats.rates(), (100, 2.0, 1.0));
    }

    #[test]
    fn error_codes_are_bounded() {
        let stats = Stats::new();
        for i in 0..1000 {
            stats.error(format!("E{i} text").as_bytes());
        }
        assert_eq!(stats.errors().len(), MAX_ERROR_CODES + 1);
        assert_eq!(stats.errors().iter().map(|(_, count)| count).sum::<u64>(), 1000);
    }
}
