//! What a replay found, as text for people and JSON for programs. Both say the same numbers.

use std::fmt;
use std::time::Duration;

use hdrhistogram::Histogram;
use serde_json::{Value, json};

use crate::Tally;

/// Latency percentiles of one kind of step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Latency {
    /// Half of the steps took no longer.
    pub p50: Duration,
    /// 99 of 100 steps took no longer.
    pub p99: Duration,
    /// 999 of 1000 steps took no longer.
    pub p999: Duration,
    /// The longest step.
    pub max: Duration,
}

impl Latency {
    fn of(times: &Histogram<u64>) -> Self {
        let at = |quantile| Duration::from_nanos(times.value_at_quantile(quantile));
        Self { p50: at(0.5), p99: at(0.99), p999: at(0.999), max: Duration::from_nanos(times.max()) }
    }

    fn json(self) -> Value {
        let micros = |time: Duration| time.as_nanos() as f64 / 1000.0;
        json!({
            "p50_us": micros(self.p50),
            "p99_us": micros(self.p99),
            "p999_us": micros(self.p999),
            "max_us": micros(self.max),
        })
    }
}

impl fmt::Display for Latency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "p50 {:.1?}  p99 {:.1?}  p99.9 {:.1?}  max {:.1?}", self.p50, self.p99, self.p999, self.max)
    }
}

/// What a replay found.
#[derive(Clone, Debug, PartialEq)]
pub struct ReplayReport {
    /// What was replayed against.
    pub target: String,
    /// How many requests were under way at once.
    pub lanes: usize,
    /// How many requests were replayed.
    pub requests: u64,
    /// How many found their object.
    pub hits: u64,
    /// Hits per request.
    pub hit_ratio: f64,
    /// Bytes found per byte asked for.
    pub byte_hit_ratio: f64,
    /// How many values were stored.
    pub stores: u64,
    /// How many objects were evicted, where the target can tell.
    pub evictions: Option<u64>,
    /// How long it all took.
    pub took: Duration,
    /// Lookups and stores together, each second.
    pub ops_per_second: f64,
    /// How long lookups took.
    pub lookups: Latency,
    /// How long stores took.
    pub store_latency: Latency,
}

impl ReplayReport {
    pub(crate) fn new(
        target: String,
        tally: &Tally,
        took: Duration,
        evictions: Option<u64>,
        lanes: usize,
    ) -> Self {
        let operations = (tally.requests + tally.stores) as f64;
        Self {
            target,
            lanes,
            requests: tally.requests,
            hits: tally.hits,
            hit_ratio: tally.hit_ratio(),
            byte_hit_ratio: tally.byte_hit_ratio(),
            stores: tally.stores,
            evictions,
            took,
            ops_per_second: operations / took.as_secs_f64().max(1e-9),
            lookups: Latency::of(&tally.lookup_times),
            store_latency: Latency::of(&tally.store_times),
        }
    }

    /// The report for programs.
    pub fn to_json(&self) -> Value {
        json!({
            "target": self.target,
            "lanes": self.lanes,
            "requests": self.requests,
            "hits": self.hits,
            "hit_ratio": self.hit_ratio,
            "byte_hit_ratio": self.byte_hit_ratio,
            "stores": self.stores,
            "evictions": self.evictions,
            "seconds": self.took.as_secs_f64(),
            "ops_per_second": self.ops_per_second,
            "lookup_latency": self.lookups.json(),
            "store_latency": self.store_latency.json(),
        })
    }
}

impl fmt::Display for ReplayReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "target       {} ({} at once)", self.target, self.lanes)?;
        writeln!(f, "requests     {}", self.requests)?;
        writeln!(
            f,
            "hit ratio    {:.2} % by count, {:.2} % by bytes",
            self.hit_ratio * 100.0,
            self.byte_hit_ratio * 100.0
        )?;
        match self.evictions {
            Some(evictions) => writeln!(f, "evictions    {evictions}")?,
            None => writeln!(f, "evictions    unknown to this target")?,
        }
        writeln!(
            f,
            "operations   {:.0} a second ({} lookups and {} stores in {:.2?})",
            self.ops_per_second, self.requests, self.stores, self.took
        )?;
        writeln!(f, "lookup       {}", self.lookups)?;
        write!(f, "store        {}", self.store_latency)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Lookup, Request};

    #[test]
    fn text_and_json_say_the_same_numbers() {
        let mut tally = Tally::default();
        let request = Request { object: 1, value_bytes: 10 };
        tally.looked_up(request, Lookup::Miss, Duration::from_micros(10));
        tally.stored(Duration::from_micros(20));
        tally.looked_up(request, Lookup::Hit, Duration::from_micros(10));
        let report = ReplayReport::new("a cache".into(), &tally, Duration::from_secs(1), Some(4), 1);
        let json = report.to_json();
        assert_eq!(json["hit_ratio"], 0.5);
        assert_eq!(json["evictions"], 4);
        let text = report.to_string();
        assert!(text.contains("50.00 % by count") && text.contains("evictions    4"), "{text}");
        assert!(text.contains("3 a second"), "{text}");
    }
}
