//! The shapes of what is cached, one file each. Known fields are typed; every other field passes through untouched in
//! `extra`, so that a service may add fields without the others being rebuilt.
//!
//! Absent: how and how long any of it is cached, which is in the table of `regions.rs`.

mod backtest;
mod market_data;
mod onchain;
mod sentiment;
mod signal;
mod sizing;

pub use backtest::BacktestResult;
pub use market_data::MarketData;
pub use onchain::OnchainMetrics;
pub use sentiment::SocialSentiment;
pub use signal::{AggregateSignal, Signal, SignalType};
pub(crate) use sizing::hex;
pub use sizing::{OrderSide, PositionSizing, Rounding, SizingRequest, SizingRounding};

/// Fields that this version of the library does not know, in the order they were written.
pub type Extra = serde_json::Map<String, serde_json::Value>;
