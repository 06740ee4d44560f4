//! When a worker that has nothing to do pauses for a moment, instead of waiting for the next request alone.
//!
//! Under load, requests of many connections come one by one just faster than they are answered. To wait for each of them is a sleep and
//! a wake-up, and two questions to the system, per request; those of a short pause are read in one round and answered together, as a
//! network card gathers packets before it interrupts. It costs latency, so the pause is as short as the clock of the system
//! allows, is taken only when several requests are expected in it, and only while those who wait for it are few among those who ask: a
//! client that sends its next request when it has the answer is never what the pause waits for. Invariants: one pause, then a wait; before
//! a pause the worker's tasks have their turn, so that a connection that is one of them (`connection.rs`) waits for one pause at the most.
//! Measured in `docs/benchmarks.md`.

use std::time::{Duration, Instant};

/// How long a busy worker pauses to gather requests. The system's timers add up to 50 µs of their own. Default: 50 µs.
const GATHER_PAUSE: Duration = Duration::from_micros(50);
/// Fewer requests than this, expected in a pause, are not worth one. Default: 2.
const GATHER_MIN_EXPECTED: u64 = 2;
/// A pause may hold up one in so many of the connections that are asking. Default: 3.
const GATHER_ONE_IN: u64 = 3;
/// By how much of its excess over [`GATHER_PAUSE`] the time that a pause is thought to take falls in a window. Default: a 64th.
const EXCESS_FALLS: u32 = 64;
/// How long is counted before the next decision, at least. Default: 500 µs.
const WINDOW: Duration = Duration::from_micros(500);

/// What came in the present window, and what the last one has decided.
#[derive(Debug)]
pub(crate) struct Gathering {
    window: u32,
    began: Instant,
    batches: u32,
    /// Connections among them.
    asking: u32,
    /// The window in which each slot of the lane was last served.
    last: Vec<u32>,
    is_worth_it: bool,
    /// How long a pause takes: as the last one has, or less where it was long ago.
    takes: Duration,
    /// Nothing has come since the last pause.
    has_paused: bool,
}

impl Gathering {
    pub(crate) fn new(now: Instant) -> Self {
        Self {
            window: 1,
            began: now,
            batches: 0,
            asking: 0,
            last: Vec::new(),
            is_worth_it: false,
            takes: GATHER_PAUSE,
            has_paused: false,
        }
    }

    /// Something has come from the connection in this slot.
    pub(crate) fn note(&mut self, slot: usize) {
        if self.last.len() <= slot {
            self.last.resize(slot + 1, 0);
        }
        if let Some(last) = self.last.get_mut(slot)
            && *last != self.window
        {
            *last = self.window;
            self.asking += 1;
        }
        self.batches = self.batches.saturating_add(1);
        self.has_paused = false;
    }

    /// Nothing is there to be done: whether to pause before looking again.
    pub(crate) fn should_pause(&mut self, now: Instant) -> bool {
        let elapsed = now.saturating_duration_since(self.began);
        if elapsed >= WINDOW {
            let expected =
                self.takes.as_nanos().saturating_mul(self.batches.into()) / elapsed.as_nanos().max(1);
            let expected = u64::try_from(expected).unwrap_or(u64::MAX);
            self.is_worth_it = expected >= GATHER_MIN_EXPECTED
                && expected.saturating_mul(GATHER_ONE_IN) <= self.asking.into();
            self.takes -= self.takes.saturating_sub(GATHER_PAUSE) / EXCESS_FALLS;
            self.began = now;
            self.batches = 0;
            self.asking = 0;
            // Zero is a slot that has never been served.
            self.window = self.window.checked_add(1).unwrap_or(1);
        }
        let pauses = self.is_worth_it && !self.has_paused;
        self.has_paused = pauses;
        pauses
    }

    /// Pauses. Where the system's timers are coarse, or the worker had to wait for a processor, the next one has to be worth what this one took.
    pub(crate) fn pause(&mut self) {
        let began = Instant::now();
        std::thread::sleep(GATHER_PAUSE);
        self.has_taken(began.elapsed());
    }

    fn has_taken(&mut self, time: Duration) {
        self.takes = time.max(GATHER_PAUSE);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is decided after windows in each of which as many connections send this many batches each.
    fn decided(connections: usize, each: usize, windows: u32) -> bool {
        let begin = Instant::now();
        let mut gathering = Gathering::new(begin);
        let mut pauses = false;
        for window in 1..=windows {
            for slot in (0..connections).flat_map(|slot| std::iter::repeat_n(slot, each)) {
                gathering.note(slot);
            }
            pauses = gathering.should_pause(begin + WINDOW * window);
        }
        pauses
    }

    #[test]
    fn it_pauses_for_many_that_ask_often_and_for_nobody_else() {
        // 50 connections in 500 us: five in 50 us.
        assert!(decided(50, 1, 1));
        assert!(decided(50, 1, 5));
        // A few connections, however much they send: each of them waits for its answer.
        assert!(!decided(1, 1_000, 3));
        assert!(!decided(7, 10, 3));
        // Many, of which few ask; and many that come so fast that the pause would hold up most of them.
        assert!(!decided(19, 1, 3));
        assert!(!decided(40, 10, 3));
    }

    #[test]
    fn pauses_that_take_long_are_not_taken_for_a_while() {
        let begin = Instant::now();
        let mut gathering = Gathering::new(begin);
        let decide = |window: u32, gathering: &mut Gathering| {
            (0..50).for_each(|slot| gathering.note(slot));
            gathering.should_pause(begin + WINDOW * window)
        };
        assert!(decide(1, &mut gathering));
        gathering.has_taken(Duration::from_micros(110));
        assert!(decide(2, &mut gathering));
        gathering.has_taken(Duration::from_millis(4));
        assert!((3..100).all(|window| !decide(window, &mut gathering)));
        assert!((100..1_000).any(|window| decide(window, &mut gathering)));
    }

    #[test]
    fn a_pause_that_brought_nothing_is_the_last() {
        let begin = Instant::now();
        let mut gathering = Gathering::new(begin);
        (0..50).for_each(|slot| gathering.note(slot));
        assert!(gathering.should_pause(begin + WINDOW));
        assert!(!gathering.should_pause(begin + WINDOW));
        gathering.note(3);
        assert!(gathering.should_pause(begin + WINDOW));
        // The window after it has seen one batch alone.
        gathering.note(3);
        assert!(!gathering.should_pause(begin + WINDOW * 3));
    }
}
