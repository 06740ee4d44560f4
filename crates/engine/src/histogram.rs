//! Durations in buckets: how many commands took how long.
//!
//! Buckets grow by a quarter of a power of two, so a percentile is off by at most a fifth; the first covers everything
//! below [`SMALLEST`] nanoseconds, the last everything beyond half a minute. Counting is one store into a lane of the thread's own
//! (see `stats`).

/// Buckets per power of two.
const STEPS: u32 = 4;
/// Powers of two covered, from 2^8 ns to 2^35 ns (34 s).
const POWERS: u32 = 27;
/// Exponent of the first bucket's upper end: 256 ns.
const SMALLEST: u32 = 8;
/// Number of buckets.
pub(crate) const BUCKETS: usize = (POWERS * STEPS) as usize + 1;

/// The bucket of a duration.
#[inline]
pub(crate) fn bucket(nanos: u64) -> usize {
    let exponent = u64::BITS - 1 - (nanos | 1).leading_zeros();
    if exponent < SMALLEST {
        return 0;
    }
    // The two bits below the highest one choose the quarter.
    let quarter = (nanos >> (exponent - 2)) as u32 & (STEPS - 1);
    (((exponent - SMALLEST) * STEPS + quarter) as usize + 1).min(BUCKETS - 1)
}

/// The longest duration that falls into a bucket, in nanoseconds.
fn upper_end(bucket: usize) -> u64 {
    let Some(place) = bucket.checked_sub(1) else { return 1 << SMALLEST };
    let (power, quarter) = (place as u32 / STEPS, place as u32 % STEPS);
    ((u64::from(STEPS + quarter + 1)) << (power + SMALLEST)) / u64::from(STEPS)
}

/// Counts by bucket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Histogram {
    pub(crate) counts: [u64; BUCKETS],
}

impl Default for Histogram {
    fn default() -> Self {
        Self { counts: [0; BUCKETS] }
    }
}

impl Histogram {
    pub(crate) fn count(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// The duration, in nanoseconds, that `percent` of the calls did not exceed.
    pub(crate) fn percentile(&self, percent: f64) -> u64 {
        let wanted = (self.count() as f64 * percent / 100.0).ceil().max(1.0) as u64;
        let mut seen = 0;
        for (bucket, count) in self.counts.iter().enumerate() {
            seen += count;
            if seen >= wanted {
                return upper_end(bucket);
            }
        }
        0
    }

    /// For each power of two in microseconds that is reached, how many calls took no longer; up to where all are counted.
    pub(crate) fn by_powers_of_two(&self) -> Vec<(u64, u64)> {
        let total = self.count();
        let mut shown = Vec::new();
        let (mut seen, mut next, mut micros) = (0, 0, 1_u64);
        while seen < total {
            let before = seen;
            while let Some(count) = self.counts.get(next)
                && upper_end(next) <= micros * 1024
            {
                seen += count;
                next += 1;
            }
            if next >= self.counts.len() {
                seen = total;
            }
            if seen > before {
                shown.push((micros, seen));
            }
            micros *= 2;
        }
        shown
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(durations: impl IntoIterator<Item = u64>) -> Histogram {
        let mut histogram = Histogram::default();
        for nanos in durations {
            histogram.counts[bucket(nanos)] += 1;
        }
        histogram
    }

    #[test]
    fn a_duration_lies_in_its_bucket() {
        for nanos in (0..40).flat_map(|power| [1_u64 << power, (1 << power) + 1, (1 << power) * 3 / 2]) {
            let bucket = bucket(nanos);
            assert!(nanos <= upper_end(bucket) || bucket == BUCKETS - 1, "{nanos} {bucket}");
            assert!(bucket == 0 || nanos >= upper_end(bucket - 1), "{nanos} {bucket}");
        }
    }

    #[test]
    fn percentiles_are_off_by_a_fourth_at_most() {
        let histogram = of((1..=1000).map(|micros| micros * 1000));
        for (percent, exact) in [(50.0, 500_000.0), (99.0, 990_000.0), (100.0, 1_000_000.0)] {
            let found = histogram.percentile(percent) as f64;
            assert!(found >= exact && found <= exact * 1.26, "{percent}: {found}");
        }
        assert_eq!(Histogram::default().percentile(50.0), 0);
    }

    #[test]
    fn powers_of_two_add_up_to_all_calls() {
        let histogram = of([100, 900, 5_000, 5_000, 70_000, u64::MAX]);
        let shown = histogram.by_powers_of_two();
        assert_eq!(shown[0], (1, 2));
        assert_eq!(shown.last().unwrap().1, 6);
        assert!(shown.is_sorted());
    }
}
