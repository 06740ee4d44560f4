//! The caching layer of a trading platform: one import for services.

pub use mtcache_cache as cache;
pub use mtcache_trading as trading;
