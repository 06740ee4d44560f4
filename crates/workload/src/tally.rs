//! Counting what a workload did: requests, hits, bytes, and how long each step took.
//!
//! Latencies go into HDR histograms in nanoseconds with three significant digits, from 1 ns to 60 s; longer ones count as
//! 60 s. Tallies of several tasks add up with [`Tally::merge`], so that nothing is shared while measuring.

use std::time::Duration;

use hdrhistogram::Histogram;

use crate::{Lookup, Request};

const LONGEST: Duration = Duration::from_mins(1);

/// What one task, or all of them together, did and how long it took.
#[derive(Clone, Debug)]
pub struct Tally {
    /// How many requests were made.
    pub requests: u64,
    /// How many of them found their object.
    pub hits: u64,
    /// The bytes of value asked for.
    pub bytes: u64,
    /// The bytes of value found.
    pub hit_bytes: u64,
    /// How many values were stored after a miss.
    pub stores: u64,
    /// How long lookups took.
    pub lookup_times: Histogram<u64>,
    /// How long stores took.
    pub store_times: Histogram<u64>,
}

impl Default for Tally {
    fn default() -> Self {
        Self {
            requests: 0,
            hits: 0,
            bytes: 0,
            hit_bytes: 0,
            stores: 0,
            lookup_times: nanosecond_histogram(),
            store_times: nanosecond_histogram(),
        }
    }
}

impl Tally {
    /// Counts a lookup.
    pub fn looked_up(&mut self, request: Request, found: Lookup, took: Duration) {
        let bytes = u64::from(request.value_bytes);
        self.requests += 1;
        self.bytes += bytes;
        if found == Lookup::Hit {
            self.hits += 1;
            self.hit_bytes += bytes;
        }
        self.lookup_times.saturating_record(nanoseconds(took));
    }

    /// Counts a store.
    pub fn stored(&mut self, took: Duration) {
        self.stores += 1;
        self.store_times.saturating_record(nanoseconds(took));
    }

    /// Adds another task's counts to this one's.
    pub fn merge(&mut self, other: &Self) {
        self.requests += other.requests;
        self.hits += other.hits;
        self.bytes += other.bytes;
        self.hit_bytes += other.hit_bytes;
        self.stores += other.stores;
        // All have the same bounds, so adding cannot be refused.
        let _ = self.lookup_times.add(&other.lookup_times);
        let _ = self.store_times.add(&other.store_times);
    }

    /// Hits per request, each request counting one; 0 when there were none.
    pub fn hit_ratio(&self) -> f64 {
        ratio(self.hits, self.requests)
    }

    /// Bytes found per byte asked for; 0 when there were none.
    pub fn byte_hit_ratio(&self) -> f64 {
        ratio(self.hit_bytes, self.bytes)
    }
}

fn ratio(part: u64, whole: u64) -> f64 {
    if whole == 0 { 0.0 } else { part as f64 / whole as f64 }
}

fn nanoseconds(took: Duration) -> u64 {
    u64::try_from(took.min(LONGEST).as_nanos()).unwrap_or(u64::MAX)
}

fn nanosecond_histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, nanoseconds(LONGEST), 3)
        .expect("one nanosecond to a minute is a valid range")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn merged_tallies_count_like_one() {
        let request = Request { object: 1, value_bytes: 10 };
        let mut one = Tally::default();
        one.looked_up(request, Lookup::Hit, Duration::from_micros(5));
        let mut two = Tally::default();
        two.looked_up(Request { value_bytes: 30, ..request }, Lookup::Miss, Duration::from_mins(5));
        two.stored(Duration::from_micros(1));
        one.merge(&two);
        assert_eq!((one.requests, one.hits, one.stores), (2, 1, 1));
        assert!((one.hit_ratio() - 0.5).abs() < 1e-9);
        assert!((one.byte_hit_ratio() - 0.25).abs() < 1e-9);
        assert!(
            one.lookup_times.max() >= 60_000_000_000,
            "an overlong lookup counts as a minute, not as nothing"
        );
    }

    #[test]
    fn nothing_done_is_a_ratio_of_zero_not_nan() {
        assert!(Tally::default().hit_ratio().abs() < f64::EPSILON);
    }
}
