//! The caching layer of a trading platform: slow or metered answers are computed once, read in microseconds, and never served
//! older than their owner allows.
//!
//! ```
//! use std::time::Duration;
//! use mtcache::{Cache, Region, RegionPolicy};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let cache = Cache::connect("embedded://").await?; // or redis://localhost:6379
//! let metrics: Region<f64> = cache.region(RegionPolicy::new("nvt_ratio", Duration::from_mins(5)))?;
//! let read = metrics.get_or_load("BTC", || async { ask_the_provider("BTC").await }).await?;
//! println!("{} from {:?}", read.value, read.source);
//! # Ok(())
//! # }
//! async fn ask_the_provider(symbol: &str) -> std::io::Result<f64> {
//!     Ok(45.2) // slow, metered, called once for everybody who asks meanwhile
//! }
//! ```
//!
//! # The data of a trading platform
//!
//! Prices, sentiment, on-chain metrics, backtests, position sizes, signals and sessions have their regions ready, with their
//! TTLs, keys and shapes:
//!
//! ```
//! use mtcache::Cache;
//! use mtcache::trading::{Extra, Signal, SignalFilter, SignalType, Timestamp, Trading};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let trading = Trading::new(&Cache::connect("embedded://").await?)?;
//! trading
//!     .signals()
//!     .push(&Signal {
//!         symbol: "BTCUSDT".into(),
//!         signal_type: SignalType::Buy,
//!         strength: 0.85,
//!         timestamp: Timestamp::now(),
//!         extra: Extra::new(),
//!     })
//!     .await?;
//! let strong = SignalFilter::new().symbol("BTCUSDT").min_strength(0.5);
//! assert_eq!(trading.signals().find(&strong, 10).await?.len(), 1);
//! # Ok(())
//! # }
//! ```
//!
//! # Where to look
//!
//! - [`Cache`]: keys, conditions, counters, views of hashes and sorted sets ([`cache::collections`]).
//! - [`Region`]: one kind of data under one [`RegionPolicy`]; [`Region::get_or_load`] is the read that most services need.
//! - [`Read`]: what a read returned: the value, where it came from, how old it is, whether it is stale.
//! - [`trading::REGIONS`]: the table of everything a trading platform caches.
//! - `cached`, with the feature `macros`: an attribute that caches a function's answers, keyed by all of its arguments.
//! - `http`, with the feature of that name: a tower layer that caches responses, and a store for `tower-sessions`.
//! - [`Error`]: errors are values; none of them reads as a miss.
//! - `docs/README.md` in the repository: the manual, a page for each idea.
//!
//! This crate only gathers what its parts export; it has no logic of its own.

pub use mtcache_cache as cache;
#[cfg(feature = "http")]
pub use mtcache_http as http;
/// Caches the answers of an async function, one for each set of arguments.
///
/// ```
/// use std::sync::OnceLock;
/// use mtcache::{Cache, cached};
///
/// static CACHE: OnceLock<Cache> = OnceLock::new();
///
/// fn cache() -> &'static Cache {
///     CACHE.get().expect("main opens the cache first")
/// }
///
/// /// NVT ratio of a coin over so many days. The provider bills each call.
/// #[cached(cache = cache(), ttl = 300)]
/// async fn nvt_ratio(symbol: &str, days: u32) -> Result<f64, Box<dyn std::error::Error + Send + Sync>> {
///     Ok(45.2 + f64::from(days) + symbol.len() as f64)
/// }
///
/// # tokio::runtime::Runtime::new().unwrap().block_on(async {
/// CACHE.set(Cache::connect("embedded://").await?).ok();
/// assert_eq!(nvt_ratio("BTC", 7).await?, nvt_ratio("BTC", 7).await?); // one call to the provider
/// # Ok::<_, Box<dyn std::error::Error + Send + Sync>>(()) }).unwrap();
/// ```
///
/// An argument that has no form in a key does not compile; skip it, if the answer does not depend on it:
///
/// ```compile_fail
/// # fn cache() -> mtcache::Cache { unreachable!() }
/// #[derive(Clone)]
/// struct Client;
///
/// #[mtcache::cached(cache = cache(), ttl = 60)]
/// async fn price(client: &Client, symbol: &str) -> u64 {
///     0
/// }
/// ```
#[cfg(feature = "macros")]
pub use mtcache_macros::cached;
pub use mtcache_trading as trading;

pub use mtcache_cache::{
    Age, Cache, CacheBuilder, Condition, Error, ErrorKind, Event, KeyParts, Outcome, Read, ReadOptions,
    Region, RegionPolicy, RegionStats, Result, SetOptions, Source, Staleness, TimeLeft,
};

/// The examples of the project's README, run as tests of this crate.
#[cfg(doctest)]
#[doc = include_str!("../../../README.md")]
struct Readme;
