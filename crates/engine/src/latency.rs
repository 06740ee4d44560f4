//! The latency monitor: when something took longer than `latency-monitor-threshold`, by kind of event.
//!
//! Invariant: bounded: [`MAX_SAMPLES`] samples per event, one per second (the worst of it), and at most [`MAX_EVENTS`] kinds.
//! Commands are recorded by the engine; whoever owns it adds its own events (`fork`, `aof-fsync-always`, ...).

use std::collections::{BTreeMap, VecDeque};

use parking_lot::Mutex;

/// Samples kept per event. Default: 160, as in Redis.
const MAX_SAMPLES: usize = 160;
/// Kinds of event kept. Default: 64.
const MAX_EVENTS: usize = 64;

/// One bad second.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Sample {
    /// Seconds since the epoch.
    pub(crate) second: u64,
    pub(crate) millis: u64,
}

/// An event's samples, oldest first, and its worst ever.
#[derive(Debug, Clone, Default)]
pub(crate) struct History {
    pub(crate) samples: VecDeque<Sample>,
    pub(crate) worst: u64,
}

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct LatencyMonitor {
    events: Mutex<BTreeMap<&'static str, History>>,
}

impl LatencyMonitor {
    #[cold]
    pub(crate) fn record(&self, event: &'static str, second: u64, millis: u64) {
        let mut events = self.events.lock();
        if events.len() >= MAX_EVENTS && !events.contains_key(event) {
            return;
        }
        let history = events.entry(event).or_default();
        history.worst = history.worst.max(millis);
        match history.samples.back_mut() {
            Some(last) if last.second == second => last.millis = last.millis.max(millis),
            _ => {
                history.samples.push_back(Sample { second, millis });
                if history.samples.len() > MAX_SAMPLES {
                    history.samples.pop_front();
                }
            }
        }
    }

    /// Every event with its samples, by name.
    pub(crate) fn all(&self) -> Vec<(&'static str, History)> {
        self.events.lock().iter().map(|(event, history)| (*event, history.clone())).collect()
    }

    /// The samples of the event called so, in any case of letters.
    pub(crate) fn history(&self, event: &[u8]) -> History {
        let events = self.events.lock();
        let found = events.iter().find(|(name, _)| event.eq_ignore_ascii_case(name.as_bytes()));
        found.map(|(_, history)| history.clone()).unwrap_or_default()
    }

    /// Forgets the events called so, or all of them; how many there were.
    pub(crate) fn reset(&self, names: &[&[u8]]) -> usize {
        let mut events = self.events.lock();
        let before = events.len();
        let is_meant = |event: &str| names.iter().any(|name| name.eq_ignore_ascii_case(event.as_bytes()));
        events.retain(|event, _| !names.is_empty() && !is_meant(event));
        before - events.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_counts_once_with_its_worst_and_old_ones_go() {
        let monitor = LatencyMonitor::default();
        for (second, millis) in [(1, 100), (1, 300), (1, 200), (2, 50)] {
            monitor.record("command", second, millis);
        }
        let history = monitor.history(b"COMMAND");
        assert_eq!(history.samples, [Sample { second: 1, millis: 300 }, Sample { second: 2, millis: 50 }]);
        assert_eq!(history.worst, 300);
        (3..1000).for_each(|second| monitor.record("command", second, 1));
        assert_eq!(monitor.history(b"command").samples.len(), MAX_SAMPLES);
        assert_eq!(monitor.reset(&[b"other"]), 0);
        assert_eq!(monitor.reset(&[b"command"]), 1);
        assert!(monitor.all().is_empty());
    }
}
