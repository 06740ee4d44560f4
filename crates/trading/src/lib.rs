//! The words of a trading platform on top of the cache: what is cached, under which key, in which shape, for how long.

mod decimal;
mod error;
mod shapes;
mod timestamp;

pub use decimal::Decimal;
pub use error::{Error, ErrorKind};
pub use shapes::{
    AggregateSignal, BacktestResult, Extra, MarketData, OnchainMetrics, OrderSide, PositionSizing, Rounding,
    Signal, SignalType, SizingRequest, SizingRounding, SocialSentiment,
};
pub use timestamp::Timestamp;
