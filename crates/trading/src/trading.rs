//! Everything a trading service caches, opened at once over one cache.

use mtcache_cache::{Cache, Region};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::{
    BacktestResult, Error, MarketDataCache, OnchainMetrics, PositionSizingCache, RegionId, RegionTable,
    SessionStore, SignalBuffer, SocialSentiment,
};

/// The trading regions of one cache. Cheap to clone.
///
/// ```no_run
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// use mtcache_cache::Cache;
/// use mtcache_trading::{SocialSentiment, Trading};
///
/// # async fn ask_the_source(_: &str) -> std::io::Result<SocialSentiment> { Err(std::io::Error::other("closed")) }
/// let trading = Trading::new(&Cache::connect("redis://localhost:6379").await?)?;
/// let read = trading.social_sentiment().get_or_load("BTC", || ask_the_source("BTC")).await?;
/// println!("{} from {:?}", read.value.sentiment_score, read.source);
/// # Ok(()) }
/// ```
#[derive(Clone, Debug)]
pub struct Trading {
    cache: Cache,
    table: RegionTable,
    market_data: MarketDataCache,
    social_sentiment: Region<SocialSentiment>,
    onchain_metrics: Region<OnchainMetrics>,
    backtests: Region<BacktestResult>,
    position_sizing: PositionSizingCache,
    signals: SignalBuffer,
    sessions: SessionStore,
}

impl Trading {
    /// All regions with the shipped TTLs, whatever the environment says.
    pub fn new(cache: &Cache) -> Result<Self, Error> {
        Self::with_table(cache, &RegionTable::default())
    }

    /// All regions, with the TTLs and stale windows that this process' environment changes: `MTCACHE_REGION_MARKET_DATA_TTL_SECONDS=20`. A
    /// variable of that form that makes no sense is an error.
    pub fn from_environment(cache: &Cache) -> Result<Self, Error> {
        Self::with_table(cache, &RegionTable::from_environment()?)
    }

    /// All regions as configured.
    pub fn with_table(cache: &Cache, table: &RegionTable) -> Result<Self, Error> {
        Ok(Self {
            market_data: MarketDataCache::new(
                region(cache, table, RegionId::MarketData)?,
                region(cache, table, RegionId::MarketDataSeries)?,
            ),
            social_sentiment: region(cache, table, RegionId::SocialSentiment)?,
            onchain_metrics: region(cache, table, RegionId::OnchainMetrics)?,
            backtests: region(cache, table, RegionId::Backtest)?,
            position_sizing: PositionSizingCache::new(region(cache, table, RegionId::PositionSizing)?),
            signals: SignalBuffer::new(cache, &table.spec(RegionId::Signals)?),
            sessions: SessionStore::new(cache, &table.spec(RegionId::Session)?)?,
            cache: cache.clone(),
            table: table.clone(),
        })
    }

    /// Latest prices.
    pub fn market_data(&self) -> &MarketDataCache {
        &self.market_data
    }

    /// What social media say, by symbol.
    pub fn social_sentiment(&self) -> &Region<SocialSentiment> {
        &self.social_sentiment
    }

    /// What the blockchain shows, by symbol.
    pub fn onchain_metrics(&self) -> &Region<OnchainMetrics> {
        &self.onchain_metrics
    }

    /// Results of backtests, by strategy.
    pub fn backtests(&self) -> &Region<BacktestResult> {
        &self.backtests
    }

    /// Answers of the risk manager.
    pub fn position_sizing(&self) -> &PositionSizingCache {
        &self.position_sizing
    }

    /// The buffer of recent signals.
    pub fn signals(&self) -> &SignalBuffer {
        &self.signals
    }

    /// Sessions of users.
    pub fn sessions(&self) -> &SessionStore {
        &self.sessions
    }

    /// Any region of the table, read and written as `T`; for the regions whose shape is the service's own
    /// (`price_signal`, `historical_klines`, `circuit_breaker`...).
    pub fn region<T: Serialize + DeserializeOwned>(&self, id: RegionId) -> Result<Region<T>, Error> {
        region(&self.cache, &self.table, id)
    }

    /// Past candles, to be asked with a [`crate::KlinesKey`].
    pub fn historical_klines(&self) -> Result<Region<Value>, Error> {
        self.region(RegionId::HistoricalKlines)
    }

    /// The cache below.
    pub fn cache(&self) -> &Cache {
        &self.cache
    }
}

fn region<T>(cache: &Cache, table: &RegionTable, id: RegionId) -> Result<Region<T>, Error> {
    Ok(cache.region(table.spec(id)?.policy())?)
}
