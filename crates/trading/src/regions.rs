//! The one table of regions: what is cached, under which key, how long it is fresh and how long it may be served stale.
//!
//! Invariant: no TTL, key or stale window of a trading region is written anywhere else. Every default can be changed by
//! configuration ([`RegionTable`]); the keys cannot, because other services share them.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use mtcache_cache::{LEASE_TTL, RegionChange, RegionMode, RegionPolicy};
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
/// The variable that names a file of regions.
const FILE_VARIABLE: &str = "MTCACHE_REGIONS_FILE";

/// The table as configured: the defaults, and what was changed of them. Reads from TOML or any other serde format as a map of
/// region names to their settings; [docs/configuration.md](https://github.com/mastertrade/cache/blob/main/docs/configuration.md) lists both.
///
/// ```
/// use mtcache_trading::{RegionId, RegionTable};
///
/// let table = RegionTable::from_toml("[social_sentiment]\nttl = \"90s\"\nnear = true\n")?;
/// assert_eq!(table.spec(RegionId::SocialSentiment)?.ttl.as_secs(), 90);
/// let wrong = RegionTable::from_toml("[session]\nttll = \"90s\"\n").unwrap_err().to_string();
/// assert!(wrong.contains("line 2") && wrong.contains("`ttl`"), "{wrong}");
/// # Ok::<(), mtcache_trading::Error>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct RegionTable(BTreeMap<RegionId, RegionChange>);

impl RegionTable {
    /// The same table with one region changed.
    #[must_use]
    pub fn with(mut self, id: RegionId, change: RegionChange) -> Self {
        let merged = self.0.remove(&id).unwrap_or_default().and(change);
        self.0.insert(id, merged);
        self
    }

    /// A table from TOML text. What it does not know is refused, with its line and a list of what there is.
    pub fn from_toml(text: &str) -> Result<Self, Error> {
        let table: Self = toml::from_str(text).map_err(|error| {
            Error::new(ErrorKind::Config, format!("the configuration of regions cannot be read: {error}"))
        })?;
        table.checked()
    }

    /// A table from a TOML file.
    pub fn from_file(path: impl AsRef<Path>) -> Result<Self, Error> {
        let path = path.as_ref();
        let wrong = |error: &dyn std::fmt::Display| {
            Error::new(ErrorKind::Config, format!("{}: {error}", path.display()))
        };
        let text = std::fs::read_to_string(path).map_err(|error| wrong(&error))?;
        Self::from_toml(&text).map_err(|error| wrong(&error))
    }

    /// The shipped table with what this process' environment changes: first the file that `MTCACHE_REGIONS_FILE` names, if it does, then
    /// the variables of [`with_environment`](Self::with_environment).
    pub fn from_environment() -> Result<Self, Error> {
        let table = match std::env::var_os(FILE_VARIABLE) {
            Some(path) if !path.is_empty() => Self::from_file(path)?,
            _ => Self::default(),
        };
        let ours = std::env::vars_os()
            .map(|(variable, value)| (variable.to_string_lossy().into_owned(), value))
            .filter(|(variable, _)| variable.starts_with(ENVIRONMENT_PREFIX));
        // What is no text is no setting either, and is refused as such.
        table.with_environment(ours.map(|(variable, value)| (variable, value.to_string_lossy().into_owned())))
    }

    /// The same table with what the environment changes: `MTCACHE_REGION_MARKET_DATA_TTL=20s`, and so on for every setting. Other
    /// variables are passed over; one that names no region, no setting or no value of it is an error.
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
            let (name, setting) = RegionChange::split_variable(rest)
                .ok_or_else(|| wrong("must end in the name of a setting, such as _TTL"))?;
            let spec =
                REGIONS.iter().find(|spec| spec.name == name).ok_or_else(|| wrong("names no region"))?;
            let change = RegionChange::new()
                .with(setting, value.trim())
                .map_err(|error| wrong(&format!("cannot be: {error}")))?;
            self = self.with(spec.id, change);
        }
        self.checked()
    }

    /// A region's line, as configured; fails if the configuration makes no sense.
    pub fn spec(&self, id: RegionId) -> Result<RegionSpec, Error> {
        let policy = self.policy(id)?;
        let mut spec = shipped(id)?;
        spec.ttl = policy.ttl;
        spec.lease = policy.lease;
        if let Stale::For(_) = spec.stale {
            spec.stale = Stale::For(policy.stale_window);
        }
        Ok(spec)
    }

    /// A region's policy, as configured; fails if the configuration makes no sense.
    pub fn policy(&self, id: RegionId) -> Result<RegionPolicy, Error> {
        let spec = shipped(id)?;
        let Some(change) = self.0.get(&id) else { return Ok(spec.policy()) };
        let policy = change.apply(spec.policy()).map_err(|error| {
            Error::new(ErrorKind::Config, format!("region {} is configured wrongly", spec.name))
                .caused_by(error)
        })?;
        if !matches!(spec.stale, Stale::For(_)) && !policy.stale_window.is_zero() {
            let message = format!("{} is never served stale; take stale_window out", spec.name);
            return Err(Error::new(ErrorKind::Config, message));
        }
        Ok(policy)
    }

    /// The mode that is configured for a region, if one is.
    pub fn mode(&self, id: RegionId) -> Option<RegionMode> {
        self.0.get(&id).and_then(RegionChange::mode)
    }

    fn checked(self) -> Result<Self, Error> {
        for id in self.0.keys() {
            self.policy(*id)?;
        }
        Ok(self)
    }
}

fn shipped(id: RegionId) -> Result<RegionSpec, Error> {
    REGIONS
        .into_iter()
        .find(|spec| spec.id == id)
        .ok_or_else(|| Error::new(ErrorKind::Config, format!("the table has no region {id:?}")))
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
        let table = with("MTCACHE_REGION_MARKET_DATA_TTL", "20s").unwrap();
        assert_eq!(table.spec(RegionId::MarketData).unwrap().ttl, Duration::from_secs(20));
        assert_eq!(table.spec(RegionId::MarketDataSeries).unwrap().ttl, Duration::from_mins(5));
        let table = with("MTCACHE_REGION_BACKTEST_STALE_WINDOW", "0.5s").unwrap();
        assert_eq!(table.spec(RegionId::Backtest).unwrap().stale, Stale::For(Duration::from_millis(500)));
        let table = with("MTCACHE_REGION_SESSION_MODE", "killed").unwrap();
        assert_eq!(table.mode(RegionId::Session), Some(RegionMode::Killed));
        assert_eq!(with("HOME", "/").unwrap(), RegionTable::default());
        for (variable, value) in [
            ("MTCACHE_REGION_MARKET_DATA_TTL_SECONDS", "20"),
            ("MTCACHE_REGION_NONE_SUCH_TTL", "20s"),
            ("MTCACHE_REGION_MARKET_DATA_TTL", "soon"),
            ("MTCACHE_REGION_MARKET_DATA_TTL", "0s"),
        ] {
            assert_eq!(with(variable, value).unwrap_err().kind(), ErrorKind::Config, "{variable}");
        }
    }

    #[test]
    fn the_environment_wins_over_the_file() {
        let table = RegionTable::from_toml("[session]\nttl = \"10m\"\nmax_loads = 7\n").unwrap();
        let variable = ("MTCACHE_REGION_SESSION_TTL".to_owned(), "20m".to_owned());
        let policy = table.with_environment([variable]).unwrap().policy(RegionId::Session).unwrap();
        assert_eq!((policy.ttl, policy.max_loads), (Duration::from_mins(20), 7));
    }

    #[test]
    fn configuration_that_makes_no_sense_is_refused() {
        let changed = |id, setting, value: &str| {
            let change = RegionChange::new().with(setting, value).map_err(Error::from)?;
            RegionTable::default().with(id, change).spec(id)
        };
        assert!(changed(RegionId::MarketData, "ttl", "0s").is_err());
        assert!(changed(RegionId::MarketData, "ttl", "-1s").is_err());
        assert!(changed(RegionId::MarketData, "ttl", "30").is_err(), "a number without a unit");
        let stale = changed(RegionId::PositionSizing, "stale_window", "5s");
        assert!(stale.is_err(), "a stale answer is a wrong answer");
        assert_eq!(changed(RegionId::MarketData, "ttl", "500ms").unwrap().ttl, Duration::from_millis(500));
        let refused = |text: &str| RegionTable::from_toml(text).unwrap_err().to_string();
        let no_region = refused("[no_such_region]\nttl = \"5s\"\n");
        assert!(no_region.contains("line 1") && no_region.contains("`market_data`"), "{no_region}");
        let no_setting = refused("[session]\nttl = \"5s\"\nttl_seconds = 5\n");
        assert!(no_setting.contains("line 3") && no_setting.contains("`load_timeout`"), "{no_setting}");
        refused("[position_sizing]\nstale_window = \"5s\"\n");
    }
}
