//! The market-data service: prices, candles, sentiment and on-chain metrics, each through the cache.
//!
//! What it shows: a read is one call, `get_or_load` with the source as its loader; a price is stored by its own time, so a late
//! tick never replaces a newer one. There is no code for misses, stampedes, retries or a cache that is down.

use mtcache::Read;
use mtcache::trading::{
    Decimal, Extra, KlinesKey, MarketData, OnchainMetrics, RegionId, SocialSentiment, TickOutcome, Timestamp,
    Trading,
};
use mtcache::{Cache, Region};
use serde_json::json;

use crate::bars::Bar;
use crate::database::Database;
use crate::source::MeteredSource;
use crate::{Error, ErrorKind, synthetic};

/// One candle: time, open, high, low, close, volume, the prices as decimal strings.
pub type Candle = (i64, String, String, String, String, f64);

/// Serves market data to the other services.
#[derive(Clone, Debug)]
pub struct MarketDataService {
    trading: Trading,
    klines: Region<Vec<Candle>>,
    database: Database,
    source: MeteredSource,
}

impl MarketDataService {
    /// A service over this cache.
    pub fn new(cache: &Cache, database: Database, source: MeteredSource) -> Result<Self, Error> {
        let trading = Trading::from_environment(cache)?;
        let klines = trading.region(RegionId::HistoricalKlines)?;
        Ok(Self { trading, klines, database, source })
    }

    /// The latest price; asked from the exchange when no tick came for 30 seconds.
    pub async fn latest_price(&self, symbol: &str) -> Result<Read<MarketData>, Error> {
        let (database, source, wanted) = (self.database.clone(), self.source.clone(), symbol.to_owned());
        let load = move || async move {
            source.call().await;
            let series = database.bars(&wanted, 1).await?;
            series.last().map(|bar| price_of(&wanted, bar)).ok_or_else(|| no_bars(&wanted))
        };
        Ok(self.trading.market_data().latest_or_load(symbol, load).await?)
    }

    /// Takes a tick from the exchange's stream; says whether it is the price now or came too late.
    pub async fn take_tick(&self, tick: &MarketData) -> Result<TickOutcome, Error> {
        Ok(self.trading.market_data().store(tick).await?)
    }

    /// What social media say; a synthetic figure in this demo.
    pub async fn social_sentiment(&self, symbol: &str) -> Result<Read<SocialSentiment>, Error> {
        let (database, source, wanted) = (self.database.clone(), self.source.clone(), symbol.to_owned());
        let load = move || async move {
            source.call().await;
            let series = database.bars(&wanted, 21).await?;
            synthetic::sentiment(&series).ok_or_else(|| no_bars(&wanted))
        };
        Ok(self.trading.social_sentiment().get_or_load(symbol, load).await?)
    }

    /// What the blockchain shows; a synthetic figure in this demo.
    pub async fn onchain_metrics(&self, symbol: &str) -> Result<Read<OnchainMetrics>, Error> {
        let (database, source, wanted) = (self.database.clone(), self.source.clone(), symbol.to_owned());
        let load = move || async move {
            source.call().await;
            let series = database.bars(&wanted, 63).await?;
            synthetic::onchain(&series).ok_or_else(|| no_bars(&wanted))
        };
        Ok(self.trading.onchain_metrics().get_or_load(symbol, load).await?)
    }

    /// The newest daily candles, oldest first.
    pub async fn daily_candles(&self, symbol: &str, limit: u32) -> Result<Read<Vec<Candle>>, Error> {
        let (database, wanted) = (self.database.clone(), symbol.to_owned());
        let key =
            KlinesKey { symbol: symbol.to_owned(), interval: "1d".into(), start: None, end: None, limit };
        let load = move || async move {
            let series = database.bars(&wanted, limit).await?;
            Ok::<_, Error>(series.bars.iter().map(candle_of).collect())
        };
        Ok(self.klines.get_or_load(key, load).await?)
    }
}

/// A price as the exchange would send it, from a daily bar.
pub fn price_of(symbol: &str, bar: &Bar) -> MarketData {
    let decimal = |price: f64| Some(Decimal::Text(format!("{price:.2}")));
    let mut extra = Extra::new();
    extra.insert("interval".into(), json!("1d"));
    MarketData {
        symbol: symbol.to_owned(),
        price: bar.close,
        volume: bar.volume,
        timestamp: Timestamp::from_epoch_seconds(bar.time as f64).unwrap_or_else(|_| Timestamp::now()),
        open: decimal(bar.open),
        high: decimal(bar.high),
        low: decimal(bar.low),
        close: decimal(bar.close),
        extra,
    }
}

fn candle_of(bar: &Bar) -> Candle {
    let text = |price: f64| format!("{price:.2}");
    (bar.time, text(bar.open), text(bar.high), text(bar.low), text(bar.close), bar.volume)
}

fn no_bars(symbol: &str) -> Error {
    Error::new(ErrorKind::Unknown, format!("there are no bars of {symbol}"))
}
