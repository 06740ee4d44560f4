//! The two services of the reference integration, written as a service author would write them, and a load on them.
//!
//! Read [`market_data_service`] and [`risk_manager`] first: they are the example to copy. The rest is what they work on (bars,
//! backtests, position sizes, a database) and what [`run`] puts on them: a stampede, ticks, traders, signals and sessions. The
//! demo knows the cache by its URL alone.

pub mod backtest;
pub mod bars;
pub mod crossover;
pub mod database;
mod error;
mod latencies;
mod load;
pub mod market_data_service;
mod popularity;
mod progress;
mod report;
pub mod risk_manager;
mod run;
pub mod sizing;
mod source;
pub mod synthetic;

pub use error::{Error, ErrorKind};
pub use latencies::SourceLatency;
pub use report::{Check, Counts, DemoReport, RegionReport};
pub use run::{DEFAULT_PREFIX, DemoOptions, run};
pub use source::MeteredSource;
