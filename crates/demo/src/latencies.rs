//! How long reads took, by where their values came from, gathered from the cache's events.
//!
//! Invariant: recording never waits for long; each source and region has its own histogram. Times are in nanoseconds with three
//! significant digits, from call to value, as a caller sees them.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use hdrhistogram::Histogram;
use mtcache::{Event, Source};

/// The longest time told apart; longer ones count as this.
const LONGEST: Duration = Duration::from_mins(1);

/// Gathers latencies of every cache that it observes. Clones share their histograms.
#[derive(Clone, Debug, Default)]
pub(crate) struct Latencies(Arc<Mutex<Histograms>>);

#[derive(Debug, Default)]
struct Histograms {
    by_source: BTreeMap<&'static str, Histogram<u64>>,
    hits_by_region: BTreeMap<String, Spent>,
}

/// How often, and how long altogether.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Spent {
    /// How often.
    pub(crate) count: u64,
    /// How long altogether.
    pub(crate) time: Duration,
}

/// The figures of one source.
#[derive(Clone, Copy, Debug)]
pub struct SourceLatency {
    /// `near`, `backend` or `loader`.
    pub source: &'static str,
    /// How many reads it answered.
    pub count: u64,
    /// Half of them took no longer.
    pub p50: Duration,
    /// 99 of 100 took no longer.
    pub p99: Duration,
}

impl Latencies {
    /// Takes note of an event; to be given to a cache as its observer.
    pub(crate) fn observe(&self, event: &Event<'_>) {
        let Event::Read { region, source, elapsed, .. } = event else { return };
        let mut histograms = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let nanos = u64::try_from(elapsed.min(&LONGEST).as_nanos()).unwrap_or(u64::MAX);
        histograms.by_source.entry(source.name()).or_insert_with(histogram).saturating_record(nanos);
        if *source != Source::Loader {
            if !histograms.hits_by_region.contains_key(region.as_ref()) {
                histograms.hits_by_region.insert(region.to_string(), Spent::default());
            }
            if let Some(spent) = histograms.hits_by_region.get_mut(region.as_ref()) {
                spent.count += 1;
                spent.time += *elapsed;
            }
        }
    }

    /// The figures of every source that answered anything.
    pub(crate) fn by_source(&self) -> Vec<SourceLatency> {
        let histograms = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let figures = histograms.by_source.iter().map(|(source, times)| SourceLatency {
            source,
            count: times.len(),
            p50: Duration::from_nanos(times.value_at_quantile(0.5)),
            p99: Duration::from_nanos(times.value_at_quantile(0.99)),
        });
        figures.collect()
    }

    /// What the hits of a region took.
    pub(crate) fn hits_of(&self, region: &str) -> Spent {
        let histograms = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        histograms.hits_by_region.get(region).copied().unwrap_or_default()
    }
}

fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, u64::try_from(LONGEST.as_nanos()).unwrap_or(u64::MAX), 3)
        .expect("one nanosecond to a minute is a valid range")
}
