//! How long after a write this process' near cache can still serve what was there before: measured, not assumed.
//!
//! A probe keeps a value of its own near, writes its key over the ordinary connection, and takes the time until the backend's message
//! about it has dropped the value. Both moments are of one clock. The time counts from before the write was sent, so that it is never less
//! than what a reader could see after another process' write. Deliberately absent: whether what is near is right (`checker.rs`).

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use mtcache_link::TrackingState;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use crate::backend::{CachedKey, When};
use crate::cache::Cache;
use crate::error::Result;
use crate::metrics;
use crate::near::{Keeping, Kept};
use crate::read::Age;
use crate::ttl::Ttl;

/// What the keys of probes begin with; the connection for invalidations hears of keys like that in any case.
pub(crate) const PROBE_PREFIX: &str = "mtcache:probe:";
/// How long such a key lives, and how long a probe waits for the message about it.
const PROBE_LIFE: Duration = Duration::from_secs(10);
/// Longest time that is told apart, in microseconds.
const LONGEST_MICROS: u64 = 60_000_000;

/// Times from a write to the last near read of what was there before.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct StaleReads {
    /// Microseconds, to 1 %, and how often they were measured.
    buckets: BTreeMap<u64, u64>,
}

impl StaleReads {
    /// How many writes were measured.
    pub fn count(&self) -> u64 {
        self.buckets.values().sum()
    }

    /// The time that this part of all, 0 to 1, did not exceed; zero if none was measured.
    pub fn quantile(&self, part: f64) -> Duration {
        let wanted = (self.count() as f64 * part.clamp(0.0, 1.0)).ceil() as u64;
        let mut seen = 0;
        for (micros, count) in &self.buckets {
            seen += count;
            if seen >= wanted.max(1) {
                return Duration::from_micros(*micros);
            }
        }
        Duration::ZERO
    }

    /// The longest.
    pub fn max(&self) -> Duration {
        self.buckets.last_key_value().map_or(Duration::ZERO, |(micros, _)| Duration::from_micros(*micros))
    }

    /// These and the others.
    #[must_use]
    pub fn and(mut self, other: &Self) -> Self {
        for (micros, count) in &other.buckets {
            *self.buckets.entry(*micros).or_default() += count;
        }
        self
    }
}

/// What this process' probes have measured.
pub(crate) struct Measured(Mutex<Histogram<u64>>);

impl Measured {
    pub(crate) fn new() -> Self {
        let histogram = Histogram::new_with_bounds(1, LONGEST_MICROS, 2);
        Self(Mutex::new(histogram.unwrap_or_else(|_| unreachable!("the bounds are right"))))
    }

    fn record(&self, time: Duration) {
        self.0.lock().saturating_record(u64::try_from(time.as_micros()).unwrap_or(u64::MAX).max(1));
    }

    fn read(&self) -> StaleReads {
        let histogram = self.0.lock();
        let buckets =
            histogram.iter_recorded().map(|step| (step.value_iterated_to(), step.count_at_value())).collect();
        StaleReads { buckets }
    }
}

impl Cache {
    /// What [`probe_stale_reads`](Self::probe_stale_reads) has measured in this process so far.
    pub fn stale_reads(&self) -> StaleReads {
        self.measured().read()
    }

    /// Measures once how long after a write the near cache serves what was there before. `None` if the near cache is off, or the
    /// backend's message did not come within 10 s. [`CacheBuilder::probe_stale_reads`](crate::CacheBuilder::probe_stale_reads) does it
    /// again and again.
    pub async fn probe_stale_reads(&self) -> Result<Option<Duration>> {
        if self.near_state() != TrackingState::On {
            return Ok(None);
        }
        let backend = self.backend().await?;
        let key = format!("{PROBE_PREFIX}near:{:032x}", rand::random::<u128>());
        let Some(ticket) = self.near().begin(&key) else { return Ok(None) };
        let now = Instant::now();
        let kept = Kept {
            value: Arc::new(()),
            age: Age::Unknown,
            read: now,
            expires: now + PROBE_LIFE,
            weight: 1,
            is_none: false,
            tags: None,
            digest: 0,
            known: None,
        };
        let Some(dropped) = self.near().await_drop(&key) else { return Ok(None) };
        if self.near().keep(ticket, &key, kept) != Keeping::Kept {
            return Ok(None);
        }
        let began = Instant::now();
        backend.set(&CachedKey::new(&key), b"1", Some(Ttl::new(PROBE_LIFE)?), When::Always).await?;
        let Ok(Ok(at)) = tokio::time::timeout(PROBE_LIFE, dropped).await else { return Ok(None) };
        let took = at.saturating_duration_since(began);
        self.measured().record(took);
        if self.reports_metrics() {
            metrics::stale_read_took(took.as_secs_f64());
        }
        Ok(Some(took))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_of_processes_add_up() {
        let (one, other) = (Measured::new(), Measured::new());
        for micros in 1..=99 {
            one.record(Duration::from_micros(micros));
        }
        other.record(Duration::from_millis(500));
        let both = StaleReads::default().and(&one.read()).and(&other.read());
        assert_eq!(both.count(), 100);
        assert_eq!(both.quantile(0.5), Duration::from_micros(50));
        assert_eq!(both.quantile(0.99), Duration::from_micros(99));
        let max = both.max().as_secs_f64();
        assert!((0.49..0.51).contains(&max), "{max}");
        assert_eq!(StaleReads::default().quantile(0.99), Duration::ZERO);
        let json = serde_json::to_string(&both).unwrap();
        assert_eq!(serde_json::from_str::<StaleReads>(&json).unwrap(), both);
    }
}
