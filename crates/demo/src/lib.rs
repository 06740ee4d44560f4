//! The two services of the reference integration, written as a service author would write them, and a load on them.

pub mod backtest;
pub mod bars;
pub mod crossover;
pub mod database;
mod error;
pub mod sizing;
pub mod synthetic;

pub use error::{Error, ErrorKind};
