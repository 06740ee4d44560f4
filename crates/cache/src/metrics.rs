//! The cache's figures for whatever recorder of the `metrics` crate the process has.
//!
//! Invariants: labels are the names of regions, never keys; reads do nothing for it, because what they count is read from the counters
//! once a period. Deliberately absent: exporters.

use std::collections::HashMap;

use crate::cache::Cache;
use crate::health::HealthLevel;
use crate::stats::RegionStats;

/// What a metric is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MetricKind {
    /// Only grows.
    Counter,
    /// Goes up and down.
    Gauge,
    /// A distribution.
    Histogram,
}

/// One metric.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Metric {
    /// Its name.
    pub name: String,
    /// What it is.
    pub kind: MetricKind,
    /// Whether it is labelled `region`; no other label is used.
    pub by_region: bool,
    /// What it tells.
    pub help: &'static str,
}

macro_rules! metrics {
    ($($(#[doc = $help:literal])* $constant:ident = $name:literal, $kind:ident, $by_region:literal;)*) => {
        $($(#[doc = $help])* const $constant: &str = $name;)*

        const OTHERS: &[(&str, MetricKind, bool, &str)] =
            &[$(($constant, MetricKind::$kind, $by_region, concat!($($help),*).trim_ascii()),)*];
    };
}

metrics! {
    /// How long loaders ran, in seconds.
    LOAD_SECONDS = "mtcache_load_seconds", Histogram, true;
    /// From a write to the last near read of what was there before, in seconds; measured with a key of its own, see docs/near-cache.md.
    STALE_READ_SECONDS = "mtcache_write_to_last_stale_read_seconds", Histogram, false;
    /// Time since the backend's value was seen to differ when a wrong near read was established, in seconds.
    VIOLATION_SECONDS = "mtcache_near_violation_age_seconds", Histogram, true;
    /// How the region's reads are answered: 0 on, 1 shadow, 2 killed.
    REGION_MODE = "mtcache_region_mode", Gauge, true;
    /// Values in the near cache.
    NEAR_ENTRIES = "mtcache_near_entries", Gauge, false;
    /// What the values in the near cache count for.
    NEAR_BYTES = "mtcache_near_bytes", Gauge, false;
    /// 1 while the backend's messages about changes can be relied on, or no region needs them.
    TRACKING_UP = "mtcache_tracking_up", Gauge, false;
    /// Keys that wait to be invalidated in the backend.
    PENDING_KEYS = "mtcache_pending_invalidations", Gauge, false;
    /// Whole regions that wait to be invalidated in the backend.
    PENDING_REGIONS = "mtcache_pending_region_invalidations", Gauge, false;
    /// 0 if the backend is known to be out of reach.
    BACKEND_UP = "mtcache_backend_up", Gauge, false;
    /// 0 ok, 1 degraded, 2 down.
    HEALTH = "mtcache_health", Gauge, false;
}

/// Every metric, in the order of docs/metrics.md.
pub fn all_metrics() -> Vec<Metric> {
    let counters = RegionStats::FIELDS.iter().map(|(field, help)| Metric {
        name: counter_name(field),
        kind: MetricKind::Counter,
        by_region: true,
        help,
    });
    let others = OTHERS.iter().map(|(name, kind, by_region, help)| Metric {
        name: (*name).to_owned(),
        kind: *kind,
        by_region: *by_region,
        help,
    });
    counters.chain(others).collect()
}

fn counter_name(field: &str) -> String {
    format!("mtcache_{field}_total")
}

/// What was reported before, since a recorder wants differences.
#[derive(Debug, Default)]
pub(crate) struct Reported {
    regions: HashMap<String, RegionStats>,
}

impl Reported {
    /// Tells the recorder what is new.
    pub(crate) fn report(&mut self, cache: &Cache) {
        for (region, stats) in cache.stats() {
            let before = self.regions.insert(region.clone(), stats).unwrap_or_default();
            for ((field, now), (_, before)) in stats.values().zip(before.values()) {
                if now > before {
                    metrics::counter!(counter_name(field), "region" => region.clone())
                        .increment(now - before);
                }
            }
            if let Some(control) = cache.control(&region) {
                metrics::gauge!(REGION_MODE, "region" => region).set(f64::from(control.mode() as u8));
            }
        }
        let health = cache.health();
        let flag = |is: bool| if is { 1.0 } else { 0.0 };
        metrics::gauge!(NEAR_ENTRIES).set(health.near_entries as f64);
        metrics::gauge!(NEAR_BYTES).set(health.near_bytes as f64);
        metrics::gauge!(TRACKING_UP).set(flag(matches!(health.tracking.as_str(), "idle" | "on")));
        metrics::gauge!(PENDING_KEYS).set(health.pending_keys as f64);
        metrics::gauge!(PENDING_REGIONS).set(health.pending_regions as f64);
        metrics::gauge!(BACKEND_UP).set(flag(health.backend_is_up));
        metrics::gauge!(HEALTH).set(match health.level {
            HealthLevel::Ok => 0.0,
            HealthLevel::Degraded => 1.0,
            HealthLevel::Down => 2.0,
        });
    }
}

/// Times that are recorded as they are taken; called only where metrics are on.
pub(crate) fn load_took(region: &str, seconds: f64) {
    metrics::histogram!(LOAD_SECONDS, "region" => region.to_owned()).record(seconds);
}

pub(crate) fn stale_read_took(seconds: f64) {
    metrics::histogram!(STALE_READ_SECONDS).record(seconds);
}

pub(crate) fn violation_seen(region: &str, seconds: f64) {
    metrics::histogram!(VIOLATION_SECONDS, "region" => region.to_owned()).record(seconds);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_ours_and_stand_once() {
        let all = all_metrics();
        for metric in &all {
            assert!(metric.name.starts_with("mtcache_") && !metric.help.is_empty(), "{metric:?}");
            assert_eq!(all.iter().filter(|other| other.name == metric.name).count(), 1, "{metric:?}");
        }
    }
}
