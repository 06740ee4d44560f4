//! What the demo did, as text for people and JSON for programs.
//!
//! Time saved is what the hits would have cost as loads (the region's mean load) less what they took: an estimate, and labelled so.

use std::fmt;
use std::time::Duration;

use mtcache::RegionStats;
use serde_json::{Value, json};

use crate::latencies::{Latencies, SourceLatency};

/// What one region did.
#[derive(Clone, Debug)]
pub struct RegionReport {
    /// The region's name.
    pub region: String,
    /// Its counters.
    pub stats: RegionStats,
    /// What the hits would have taken as loads, less what they took.
    pub saved: Duration,
}

impl RegionReport {
    pub(crate) fn new(region: String, stats: &RegionStats, latencies: &Latencies) -> Self {
        let hits = latencies.hits_of(&region);
        let saved = if stats.loads == 0 {
            Duration::ZERO
        } else {
            let mean = stats.load_time().as_secs_f64() / stats.loads as f64;
            Duration::try_from_secs_f64(mean * hits.count as f64 - hits.time.as_secs_f64())
                .unwrap_or_default()
        };
        Self { region, stats: *stats, saved }
    }

    fn requests(&self) -> u64 {
        self.stats.hits + self.stats.misses
    }
}

/// Something the demo held the cache to.
#[derive(Clone, Debug)]
pub struct Check {
    /// What was expected, with the figures that were seen.
    pub what: String,
    /// Whether it was so.
    pub held: bool,
}

/// Counts of the parts that are no regions.
#[derive(Clone, Copy, Debug, Default)]
pub struct Counts {
    /// Ticks that became the price.
    pub ticks_stored: u64,
    /// Ticks that came too late and were refused.
    pub ticks_late: u64,
    /// Signals pushed.
    pub signals_pushed: u64,
    /// Signals in the buffer at the end.
    pub signals_buffered: u64,
    /// Reads of the buffer.
    pub signal_reads: u64,
    /// Sessions created.
    pub sessions_created: u64,
    /// Requests made with a session.
    pub sessions_used: u64,
    /// Sessions revoked.
    pub sessions_revoked: u64,
    /// Times new bars made the backtests of a share invalid.
    pub invalidations: u64,
    /// Operations that failed.
    pub errors: u64,
}

/// What the demo did.
#[derive(Clone, Debug)]
pub struct DemoReport {
    /// The cache, without credentials.
    pub cache: String,
    /// The database.
    pub database: String,
    /// How long the load lasted.
    pub took: Duration,
    /// The made-up latency of the metered source.
    pub source_latency: Duration,
    /// How often the metered source was called.
    pub source_calls: u64,
    /// What each region did.
    pub regions: Vec<RegionReport>,
    /// Latencies by source.
    pub sources: Vec<SourceLatency>,
    /// Everything else.
    pub counts: Counts,
    /// What the cache was held to.
    pub checks: Vec<Check>,
    /// The first error, if any operation failed.
    pub first_error: Option<String>,
}

impl DemoReport {
    /// Whether every check held and nothing failed.
    pub fn is_success(&self) -> bool {
        self.checks.iter().all(|check| check.held) && self.counts.errors == 0
    }

    /// Requests of every kind.
    pub fn requests(&self) -> u64 {
        let reads: u64 = self.regions.iter().map(RegionReport::requests).sum();
        let Counts { ticks_stored, ticks_late, signals_pushed, signal_reads, .. } = self.counts;
        reads + ticks_stored + ticks_late + signals_pushed + signal_reads
    }

    /// The report for programs.
    pub fn to_json(&self) -> Value {
        let regions = self.regions.iter().map(|region| {
            json!({
                "region": region.region,
                "requests": region.requests(),
                "hit_rate": region.stats.hit_rate(),
                "loads": region.stats.loads,
                "joined_loads": region.stats.joined_loads,
                "load_seconds": region.stats.load_time().as_secs_f64(),
                "saved_seconds": region.saved.as_secs_f64(),
            })
        });
        let sources = self.sources.iter().map(|source| {
            json!({
                "source": source.source,
                "reads": source.count,
                "p50_us": source.p50.as_secs_f64() * 1e6,
                "p99_us": source.p99.as_secs_f64() * 1e6,
            })
        });
        let checks = self.checks.iter().map(|check| json!({"what": check.what, "held": check.held}));
        json!({
            "cache": self.cache,
            "database": self.database,
            "seconds": self.took.as_secs_f64(),
            "requests": self.requests(),
            "source_calls": self.source_calls,
            "regions": regions.collect::<Vec<_>>(),
            "sources": sources.collect::<Vec<_>>(),
            "signals": {"pushed": self.counts.signals_pushed, "buffered": self.counts.signals_buffered},
            "sessions": {
                "created": self.counts.sessions_created,
                "used": self.counts.sessions_used,
                "revoked": self.counts.sessions_revoked,
            },
            "ticks": {"stored": self.counts.ticks_stored, "late_refused": self.counts.ticks_late},
            "errors": self.counts.errors,
            "checks": checks.collect::<Vec<_>>(),
            "success": self.is_success(),
        })
    }
}

impl fmt::Display for DemoReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let requests = self.requests();
        let rate = requests as f64 / self.took.as_secs_f64().max(1e-9);
        writeln!(f, "cache      {}", self.cache)?;
        writeln!(f, "database   {}", self.database)?;
        writeln!(
            f,
            "requests   {requests} in {:.1} s, {rate:.0} a second, {} failed",
            self.took.as_secs_f64(),
            self.counts.errors
        )?;
        writeln!(f)?;
        writeln!(
            f,
            "{:<18} {:>9} {:>9} {:>7} {:>7} {:>12} {:>12}",
            "region", "requests", "hit rate", "loads", "joined", "in loaders", "time saved"
        )?;
        let mut total = RegionStats::default();
        let mut saved = Duration::ZERO;
        for region in &self.regions {
            line(f, &region.region, &region.stats, region.saved)?;
            total += region.stats;
            saved += region.saved;
        }
        line(f, "all", &total, saved)?;
        writeln!(
            f,
            "(joined: misses that waited for a load under way; time saved: hits times the mean load, less the hits' own time)"
        )?;
        writeln!(f)?;
        writeln!(f, "{:<18} {:>9} {:>12} {:>12}", "read from", "reads", "p50", "p99")?;
        for source in &self.sources {
            writeln!(
                f,
                "{:<18} {:>9} {:>12} {:>12}",
                source.source,
                source.count,
                time(source.p50),
                time(source.p99)
            )?;
        }
        writeln!(f)?;
        let counts = &self.counts;
        writeln!(f, "ticks      {} stored, {} late ones refused", counts.ticks_stored, counts.ticks_late)?;
        writeln!(
            f,
            "signals    {} pushed, {} in the buffer, {} reads",
            counts.signals_pushed, counts.signals_buffered, counts.signal_reads
        )?;
        writeln!(
            f,
            "sessions   {} created, {} uses, {} revoked",
            counts.sessions_created, counts.sessions_used, counts.sessions_revoked
        )?;
        writeln!(f, "new bars   {} times, each making a share's backtests invalid", counts.invalidations)?;
        writeln!(f, "provider   {} calls at {} each", self.source_calls, time(self.source_latency))?;
        writeln!(f)?;
        for check in &self.checks {
            writeln!(f, "{} {}", if check.held { "ok    " } else { "FAILED" }, check.what)?;
        }
        if let Some(error) = &self.first_error {
            writeln!(f, "FAILED {} operations, the first: {error}", self.counts.errors)?;
        }
        writeln!(f)?;
        write!(
            f,
            "Prices are real daily bars moved to end now; ticks between them, sentiment and on-chain figures are synthetic; the provider's latency is simulated."
        )
    }
}

fn line(f: &mut fmt::Formatter<'_>, name: &str, stats: &RegionStats, saved: Duration) -> fmt::Result {
    writeln!(
        f,
        "{name:<18} {:>9} {:>7.1} % {:>7} {:>7} {:>12} {:>12}",
        stats.hits + stats.misses,
        stats.hit_rate() * 100.0,
        stats.loads,
        stats.joined_loads,
        time(stats.load_time()),
        time(saved),
    )
}

/// A time with the unit that fits it.
fn time(time: Duration) -> String {
    let seconds = time.as_secs_f64();
    match seconds {
        s if s >= 100.0 => format!("{s:.0} s"),
        s if s >= 1.0 => format!("{s:.2} s"),
        s if s >= 1e-3 => format!("{:.1} ms", s * 1e3),
        0.0 => "0".to_owned(),
        s => format!("{:.0} us", s * 1e6),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_the_unit_that_fits() {
        let texts = [0.0, 45e-6, 0.0123, 2.5, 250.0].map(|seconds| time(Duration::from_secs_f64(seconds)));
        assert_eq!(texts, ["0", "45 us", "12.3 ms", "2.50 s", "250 s"]);
    }
}
