//! Traces of real caches, and what a cache of a given size would do with them.
//!
//! [`TraceReader`] streams a recorded trace, [`replay`] plays it through anything that is a [`ReplayTarget`], and
//! [`ReplayReport`] says what came of it: hit ratio by count, operations per second, latency percentiles, evictions.
//! [`LruModel`] is an exact LRU cache to measure against. Traces are read one request at a time, so a trace may
//! be larger than memory. What is behind a target (engine, Redis) is none of this crate's business.

mod error;
mod lru;
mod replay;
mod report;
mod tally;
mod trace;

pub use error::{Error, ErrorKind};
pub use lru::{Capacity, LruModel, LruTarget};
pub use replay::{Lookup, ReplayOptions, ReplayTarget, replay};
pub use report::{Latency, ReplayReport};
pub use tally::Tally;
pub use trace::{
    CsvPairs, Decoded, MAX_VALUE_BYTES, Request, TraceFormat, TraceReader, U32Pairs, open_trace,
};
