//! The one table of regions: what is cached, under which key, how long it is fresh and how long it may be served stale.
//!
//! Invariant: no TTL, key or stale window of a trading region is written anywhere else. Every default can be changed by
//! configuration ([`RegionTable`]); the keys cannot, because other services share them.

use std::collections::BTreeMap;
use std::time::Duration;

use mtcache_cache::{LEASE_TTL, RegionPolicy};
use serde::{Deserialize, Serialize};

use crate::{Error, ErrorKind};

/// A kind of data.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum RegionId {
    /// Latest prices.
    MarketData,
    /// Candles and other series of a price.
    MarketDataSeries,
    /// What social media say.
    SocialSentiment,
    /// What the blockchain shows.
    OnchainMetrics,
    /// Results of backtests.
    Backtest,
    /// Answers of the risk manager.
    PositionSizing,
    /// The buffer of recent signals.
    Signals,
    /// Sessions of users.
    Session,
    /// Signals drawn from prices.
    PriceSignal,
    /// Signals drawn from sentiment.
    SentimentSignal,
    /// Past candles.
    HistoricalKlines,
    /// States of circuit breakers.
    CircuitBreaker,
    /// States of rate limiters.
    RateLimiter,
}

/// Whether a value may be served past its TTL.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stale {
    /// Never: a stale value is a wrong one.
    Never,
    /// For so long, marked stale.
    For(Duration),
    /// The question does not arise: the region is not filled by loaders.
    NotApplicable,
}

/// One line of the table.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RegionSpec {
    /// Which region.
    pub id: RegionId,
    /// Its name in reports and configuration.
    pub name: &'static str,
    /// Its keys, with the words in capitals to be filled in.
    pub key: &'static str,
    /// How long a value is fresh.
    pub ttl: Duration,
    /// Whether it may be served afterwards.
    pub stale: Stale,
    /// Whether one process loads for all, and how long one that stands still is waited for.
    pub lease: Option<Duration>,
}

const fn spec(
    id: RegionId,
    name: &'static str,
    key: &'static str,
    ttl_secs: u64,
    stale: Stale,
) -> RegionSpec {
    RegionSpec { id, name, key, ttl: Duration::from_secs(ttl_secs), stale, lease: None }
}

/// Its loader is expensive: one process runs it and the others wait.
const fn leased(spec: RegionSpec) -> RegionSpec {
    RegionSpec { lease: Some(LEASE_TTL), ..spec }
}

const fn minutes(count: u64) -> Stale {
    Stale::For(Duration::from_mins(count))
}

/// The table, with the shipped defaults.
pub const REGIONS: [RegionSpec; 13] = {
    use RegionId as Id;
    use Stale::{Never, NotApplicable};
    const WEEK: Stale = minutes(7 * 24 * 60);
    [
        spec(Id::MarketData, "market_data", "market_data:SYMBOL", 30, Never),
        spec(Id::MarketDataSeries, "market_data_series", "market_data:SYMBOL:TIMEFRAME:TYPE", 300, Never),
        spec(Id::SocialSentiment, "social_sentiment", "social_sentiment:SYMBOL", 60, minutes(5)),
        spec(Id::OnchainMetrics, "onchain_metrics", "onchain_metrics:SYMBOL", 300, minutes(30)),
        leased(spec(Id::Backtest, "backtest", "backtest:STRATEGY_ID", 86_400, WEEK)),
        spec(Id::PositionSizing, "position_sizing", "position_sizing:SYMBOL:STRATEGY_ID:HASH", 60, Never),
        spec(Id::Signals, "signals", "signals:recent", 86_400, NotApplicable),
        spec(Id::Session, "session", "session:HASH", 1800, Never),
        spec(Id::PriceSignal, "price_signal", "price_signal:SYMBOL", 45, Never),
        spec(Id::SentimentSignal, "sentiment_signal", "sentiment_signal:SYMBOL", 60, Never),
        spec(
            Id::HistoricalKlines,
            "historical_klines",
            "historical_klines:SYMBOL:INTERVAL:START:END:LIMIT",
            300,
            minutes(60),
        ),
        spec(Id::CircuitBreaker, "circuit_breaker", "circuit_breaker:NAME", 86_400, NotApplicable),
        spec(Id::RateLimiter, "rate_limiter", "rate_limiter:NAME", 3600, NotApplicable),
    ]
};

impl RegionSpec {
    /// What the keys begin with, before the first `:`.
    pub fn key_base(&self) -> &'static str {
        self.key.split(':').next().unwrap_or(self.key)
    }

    /// The policy that the cache needs.
    pub fn policy(&self) -> RegionPolicy {
        let stale = match self.stale {
            Stale::For(window) => window,
            Stale::Never | Stale::NotApplicable => Duration::ZERO,
        };
        let policy = RegionPolicy::new(self.name, self.ttl).key_base(self.key_base()).stale_window(stale);
        match self.lease {
            Some(ttl) => policy.lease(ttl),
            None => policy,
        }
    }
}

/// What the environment's variables about regions begin with.
const ENVIRONMENT_PREFIX: &str = "MTCACHE_REGION_";

/// What configuration may change of a region. What is absent stays as shipped.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RegionChange {
    /// Seconds a value is fresh, above zero; fractions count.
    pub ttl_seconds: Option<f64>,
    /// Seconds a value may be served stale; refused for regions that never may.
    pub stale_seconds: Option<f64>,
}

/// The table as configured: the defaults, and what was changed of them. Reads from TOML or any other serde format as a map of
/// region names.
///
/// ```
/// use mtcache_trading::{RegionId, RegionTable};
///
/// let table: RegionTable = toml::from_str("[social_sentiment]\nttl_seconds = 90\n").unwrap();
/// assert_eq!(table.spec(RegionId::SocialSentiment).unwrap().ttl.as_secs(), 90);
/// ```
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct RegionTable(BTreeMap<RegionId, RegionChange>);

impl RegionTable {
    /// The same table with one region changed.
    #[must_use]
    pub fn with(mut self, id: RegionId, change: RegionChange) -> Self {
        self.0.insert(id, change);
        self
    }

    /// The shipped table with what this process' environment changes, see [`with_environment`](Self::with_environment).
    pub fn from_environment() -> Result<Self, Error> {
        let ours = std::env::vars_os()
            .map(|(variable, value)| (variable.to_string_lossy().into_owned(), value))
            .filter(|(variable, _)| variable.starts_with(ENVIRONMENT_PREFIX));
        // What is no text is no number either, and is refused as such.
        Self::default()
            .with_environment(ours.map(|(variable, value)| (variable, value.to_string_lossy().into_owned())))
    }

    /// The same table with what the environment changes: `MTCACHE_REGION_MARKET_DATA_TTL_SECONDS=20`, and `..._STALE_SECONDS`. Other
    /// variables are passed over; one that names no region, or no number, is an error.
    ///
    /// ```
    /// # use mtcache_trading::RegionTable;
    /// let table = RegionTable::default().with_environment(std::env::vars())?;
    /// # Ok::<(), mtcache_trading::Error>(())
    /// ```
    pub fn with_environment(
        mut self,
        variables: impl IntoIterator<Item = (String, String)>,
    ) -> Result<Self, Error> {
        for (variable, value) in variables {
            let Some(rest) = variable.strip_prefix(ENVIRONMENT_PREFIX) else { continue };
            let wrong = |what: &str| Error::new(ErrorKind::Config, format!("{variable}={value} {what}"));
            let rest = rest.to_ascii_lowercase();
            let (name, is_ttl) =
                match (rest.strip_suffix("_ttl_seconds"), rest.strip_suffix("_stale_seconds")) {
                    (Some(name), _) => (name, true),
                    (None, Some(name)) => (name, false),
                    (None, None) => return Err(wrong("must end in _TTL_SECONDS or _STALE_SECONDS")),
                };
            let spec =
                REGIONS.iter().find(|spec| spec.name == name).ok_or_else(|| wrong("names no region"))?;
            let seconds = value.trim().parse().map_err(|_| wrong("is no number of seconds"))?;
            let change = self.0.entry(spec.id).or_default();
            *if is_ttl { &mut change.ttl_seconds } else { &mut change.stale_seconds } = Some(seconds);
        }
        Ok(self)
    }

    /// A region's line, as configured; fails if the configuration makes no sense.
    pub fn spec(&self, id: RegionId) -> Result<RegionSpec, Error> {
        let mut spec = REGIONS
            .into_iter()
            .find(|spec| spec.id == id)
            .ok_or_else(|| Error::new(ErrorKind::Config, format!("the table has no region {id:?}")))?;
        let Some(change) = self.0.get(&id) else { return Ok(spec) };
        if let Some(seconds) = change.ttl_seconds {
            spec.ttl = duration(&spec, "ttl_seconds", seconds)?;
        }
        match (change.stale_seconds, spec.stale) {
            (None, _) => {}
            (Some(seconds), Stale::For(_)) => {
                spec.stale = Stale::For(duration(&spec, "stale_seconds", seconds)?);
            }
            (Some(_), Stale::Never | Stale::NotApplicable) => {
                let message = format!("{} is never served stale; take stale_seconds out", spec.name);
                return Err(Error::new(ErrorKind::Config, message));
            }
        }
        Ok(spec)
    }
}

fn duration(spec: &RegionSpec, field: &str, seconds: f64) -> Result<Duration, Error> {
    Duration::try_from_secs_f64(seconds).ok().filter(|duration| !duration.is_zero()).ok_or_else(|| {
        Error::new(ErrorKind::Config, format!("{field} of {} is {seconds}; it must be above zero", spec.name))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_region_is_in_the_table_once_and_has_a_name_of_its_own() {
        for spec in REGIONS {
            assert_eq!(
                REGIONS.iter().filter(|other| other.id == spec.id || other.name == spec.name).count(),
                1
            );
            assert_eq!(RegionTable::default().spec(spec.id).unwrap(), spec);
            let named: RegionId = serde_json::from_value(spec.name.into()).unwrap();
            assert_eq!(named, spec.id, "configuration calls a region by its name in the table");
        }
    }

    #[test]
    fn documented_ttls_and_stale_windows_are_the_defaults() {
        let line = |id| {
            let spec = RegionTable::default().spec(id).unwrap();
            (spec.key_base(), spec.ttl.as_secs(), spec.policy().stale_window.as_secs())
        };
        assert_eq!(line(RegionId::MarketData), ("market_data", 30, 0));
        assert_eq!(line(RegionId::MarketDataSeries), ("market_data", 300, 0));
        assert_eq!(line(RegionId::SocialSentiment), ("social_sentiment", 60, 300));
        assert_eq!(line(RegionId::OnchainMetrics), ("onchain_metrics", 300, 1800));
        assert_eq!(line(RegionId::Backtest), ("backtest", 86_400, 604_800));
        assert_eq!(line(RegionId::PositionSizing), ("position_sizing", 60, 0));
        assert_eq!(line(RegionId::Signals), ("signals", 86_400, 0));
        assert_eq!(line(RegionId::Session), ("session", 1800, 0));
        assert_eq!(line(RegionId::PriceSignal), ("price_signal", 45, 0));
        assert_eq!(line(RegionId::SentimentSignal), ("sentiment_signal", 60, 0));
        assert_eq!(line(RegionId::HistoricalKlines), ("historical_klines", 300, 3600));
        assert_eq!(line(RegionId::CircuitBreaker), ("circuit_breaker", 86_400, 0));
        assert_eq!(line(RegionId::RateLimiter), ("rate_limiter", 3600, 0));
    }

    #[test]
    fn backtests_are_run_by_one_process_for_all() {
        for spec in REGIONS {
            let expected = (spec.id == RegionId::Backtest).then_some(LEASE_TTL);
            assert_eq!(spec.policy().lease, expected, "{}", spec.name);
        }
    }

    #[test]
    fn environment_changes_what_it_names_and_nothing_else() {
        let with = |variable: &str, value: &str| {
            RegionTable::default().with_environment([(variable.to_owned(), value.to_owned())])
        };
        let table = with("MTCACHE_REGION_MARKET_DATA_TTL_SECONDS", "20").unwrap();
        assert_eq!(table.spec(RegionId::MarketData).unwrap().ttl, Duration::from_secs(20));
        assert_eq!(table.spec(RegionId::MarketDataSeries).unwrap().ttl, Duration::from_mins(5));
        let table = with("MTCACHE_REGION_BACKTEST_STALE_SECONDS", "0.5").unwrap();
        assert_eq!(table.spec(RegionId::Backtest).unwrap().stale, Stale::For(Duration::from_millis(500)));
        assert_eq!(with("HOME", "/").unwrap(), RegionTable::default());
        for (variable, value) in [
            ("MTCACHE_REGION_MARKET_DATA_TTL", "20"),
            ("MTCACHE_REGION_NONE_TTL_SECONDS", "20"),
            ("MTCACHE_REGION_MARKET_DATA_TTL_SECONDS", "soon"),
        ] {
            assert_eq!(with(variable, value).unwrap_err().kind(), ErrorKind::Config, "{variable}");
        }
    }

    #[test]
    fn configuration_that_makes_no_sense_is_refused() {
        let changed = |id, ttl_seconds, stale_seconds| {
            RegionTable::default().with(id, RegionChange { ttl_seconds, stale_seconds }).spec(id)
        };
        assert!(changed(RegionId::MarketData, Some(0.0), None).is_err());
        assert!(changed(RegionId::MarketData, Some(-1.0), None).is_err());
        assert!(changed(RegionId::MarketData, Some(f64::NAN), None).is_err());
        assert!(
            changed(RegionId::PositionSizing, None, Some(5.0)).is_err(),
            "a stale answer is a wrong answer"
        );
        assert_eq!(changed(RegionId::MarketData, Some(0.5), None).unwrap().ttl, Duration::from_millis(500));
        assert!(toml::from_str::<RegionTable>("[no_such_region]\nttl_seconds = 5\n").is_err());
        assert!(toml::from_str::<RegionTable>("[session]\nttl = 5\n").is_err());
    }
}
