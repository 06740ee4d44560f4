//! Everything a trading service caches, opened at once over one cache.

use std::sync::{Arc, PoisonError, RwLock};

use mtcache_cache::{Cache, Region, Reloaded};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::{
    BacktestResult, Error, MarketDataCache, OnchainMetrics, PositionSizingCache, REGIONS, RegionId,
    RegionTable, SessionStore, SignalBuffer, SocialSentiment,
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
    table: Arc<RwLock<RegionTable>>,
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

    /// All regions, with what this process' environment changes: the file that `MTCACHE_REGIONS_FILE` names, and variables such as
    /// `MTCACHE_REGION_MARKET_DATA_TTL=20s`. What makes no sense is an error.
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
            sessions: SessionStore::new(cache, region(cache, table, RegionId::Session)?),
            cache: cache.clone(),
            table: Arc::new(RwLock::new(table.clone())),
        })
    }

    /// Takes over, for the regions that are open, what may change while they are, and the modes that the table names; for values that are
    /// read and stored from then on. All of the table is checked before anything is changed. Says for each region with a change what has
    /// changed, and what would only when the service starts anew. The signal buffer and the sessions keep their TTLs.
    ///
    /// ```no_run
    /// # fn on_hangup(trading: &mtcache_trading::Trading) -> Result<(), mtcache_trading::Error> {
    /// use mtcache_trading::RegionTable;
    ///
    /// for (region, reloaded) in trading.reload(&RegionTable::from_environment()?)? {
    ///     println!("{region:?}: {:?} changed, {:?} need a restart", reloaded.changed, reloaded.needs_restart);
    /// }
    /// # Ok(()) }
    /// ```
    pub fn reload(&self, table: &RegionTable) -> Result<Vec<(RegionId, Reloaded)>, Error> {
        let policies: Vec<_> =
            REGIONS.iter().map(|spec| Ok((spec.id, table.policy(spec.id)?))).collect::<Result<_, Error>>()?;
        let mut all = Vec::new();
        for (id, policy) in policies {
            let Some(control) = self.cache.control(&policy.name) else { continue };
            let reloaded = control.reload(&policy)?;
            if let Some(mode) = table.mode(id) {
                control.set_mode(mode);
            }
            if reloaded != Reloaded::default() {
                all.push((id, reloaded));
            }
        }
        *self.table.write().unwrap_or_else(PoisonError::into_inner) = table.clone();
        Ok(all)
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
    pub fn region<T: Serialize + DeserializeOwned + 'static>(
        &self,
        id: RegionId,
    ) -> Result<Region<T>, Error> {
        region(&self.cache, &self.table.read().unwrap_or_else(PoisonError::into_inner), id)
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

fn region<T: 'static>(cache: &Cache, table: &RegionTable, id: RegionId) -> Result<Region<T>, Error> {
    let policy = table.policy(id)?;
    let is_first = cache.control(&policy.name).is_none();
    let region: Region<T> = cache.region(policy)?;
    // Later on the mode is the operator's.
    if let Some(mode) = table.mode(id).filter(|_| is_first) {
        region.control().set_mode(mode);
    }
    Ok(region)
}
