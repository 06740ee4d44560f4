//! The words of a trading platform on top of the cache: what is cached, under which key, in which shape, for how long.
//!
//! [`Trading`] opens everything over one cache. The table of TTLs and keys is [`REGIONS`]; the shapes are plain serde types whose
//! unknown fields pass through; [`SignalBuffer`] and [`SessionStore`] are the two kinds of data that are more than a value under
//! a key. Which backend is behind the cache, this crate never knows.

mod clock;
mod decimal;
mod error;
mod market_data;
mod position_sizing;
mod regions;
mod sessions;
mod shapes;
mod signal_filter;
mod signal_id;
mod signals;
mod timestamp;
mod trading;

pub use clock::Clock;
pub use decimal::Decimal;
pub use error::{Error, ErrorKind};
pub use market_data::{KlinesKey, MarketDataCache, SeriesKey, TickOutcome};
pub use mtcache_cache::RegionChange;
pub use position_sizing::PositionSizingCache;
pub use regions::{REGIONS, RegionId, RegionSpec, RegionTable, Stale};
pub use sessions::{DEFAULT_ABSOLUTE_LIFE, Session, SessionStore, SessionToken};
pub use shapes::{
    AggregateSignal, BacktestResult, Extra, MarketData, OnchainMetrics, OrderSide, PositionSizing, Rounding,
    Signal, SignalType, SizingRequest, SizingRounding, SocialSentiment,
};
pub use signal_filter::SignalFilter;
pub use signals::{BufferedSignal, DEFAULT_CAPACITY, MAX_AHEAD, Pushed, SignalBuffer};
pub use timestamp::Timestamp;
pub use trading::Trading;
