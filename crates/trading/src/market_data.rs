//! Latest prices, and series of them.
//!
//! Invariant: a tick never replaces a newer one, by the ticks' own `timestamp`, whoever writes first; equal times replace.
//! Absent: where prices come from.

use std::future::Future;

use mtcache_cache::{Condition, KeyParts, Read, ReadOptions, Region};
use serde_json::Value;

use crate::{Error, MarketData};

/// The field by which ticks are ordered.
const TIME_FIELD: &str = "timestamp";

/// What became of a tick.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TickOutcome {
    /// It is the price now.
    Stored,
    /// A newer one was there already; nothing changed.
    Late,
}

/// Latest prices by symbol.
#[derive(Clone, Debug)]
pub struct MarketDataCache {
    latest: Region<MarketData>,
    series: Region<Value>,
}

impl MarketDataCache {
    pub(crate) fn new(latest: Region<MarketData>, series: Region<Value>) -> Self {
        Self { latest, series }
    }

    /// Stores a price unless a newer one is there, in one atomic step.
    pub async fn store(&self, tick: &MarketData) -> Result<TickOutcome, Error> {
        let condition = Condition::IfNewer { field: TIME_FIELD.to_owned() };
        let stored = self.latest.set_when(&tick.symbol, tick, condition).await?;
        Ok(if stored { TickOutcome::Stored } else { TickOutcome::Late })
    }

    /// The latest price; `None` is a miss.
    pub async fn latest(&self, symbol: &str) -> Result<Option<Read<MarketData>>, Error> {
        Ok(self.latest.get(symbol).await?)
    }

    /// The latest price that meets the reader's demands, such as an age of two seconds at the most.
    pub async fn latest_with(
        &self,
        symbol: &str,
        options: ReadOptions,
    ) -> Result<Option<Read<MarketData>>, Error> {
        Ok(self.latest.get_with(symbol, options).await?)
    }

    /// The latest price, from the source if it is not cached.
    pub async fn latest_or_load<F, Fut, E>(&self, symbol: &str, loader: F) -> Result<Read<MarketData>, Error>
    where
        F: FnOnce() -> Fut + Send + 'static,
        Fut: Future<Output = Result<MarketData, E>> + Send + 'static,
        E: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        Ok(self.latest.get_or_load(symbol, loader).await?)
    }

    /// The region of latest prices, for everything else.
    pub fn region(&self) -> &Region<MarketData> {
        &self.latest
    }

    /// The region of series, to be asked with a [`SeriesKey`].
    pub fn series(&self) -> &Region<Value> {
        &self.series
    }
}

/// Which series of a symbol's prices.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct SeriesKey {
    /// What is traded.
    pub symbol: String,
    /// The length of a candle, such as `1h`.
    pub timeframe: String,
    /// What kind of series, such as `ohlcv`.
    pub kind: String,
}

impl KeyParts for SeriesKey {
    fn each_part(&self, part: &mut dyn FnMut(&str)) {
        part(&self.symbol);
        part(&self.timeframe);
        part(&self.kind);
    }
}

/// Which past candles: every argument of the question is part of the key.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct KlinesKey {
    /// What is traded.
    pub symbol: String,
    /// The length of a candle, such as `1h`.
    pub interval: String,
    /// First moment, as the caller writes it; nothing is written `none`.
    pub start: Option<String>,
    /// Last moment, as the caller writes it; nothing is written `none`.
    pub end: Option<String>,
    /// How many candles at the most.
    pub limit: u32,
}

impl KeyParts for KlinesKey {
    fn each_part(&self, part: &mut dyn FnMut(&str)) {
        part(&self.symbol);
        part(&self.interval);
        part(self.start.as_deref().unwrap_or("none"));
        part(self.end.as_deref().unwrap_or("none"));
        part(&self.limit.to_string());
    }
}
