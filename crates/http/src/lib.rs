//! The cache for HTTP services: responses by the rules of RFC 9111, as a tower layer, and a store for `tower-sessions`.
//!
//! What is cached is what the response's own `Cache-Control` allows a shared cache, in a region like any other: single-flight, near cache
//! and recovery are the region's. Deliberately absent: a proxy; the layer stands before the service of the same process.

mod body;
mod cache_control;
mod client;
mod entry;
mod exchange;
mod fetch;
mod http_cache;
mod key;
mod layer;
mod sessions;
mod terms;

pub use crate::body::{BoxError, CacheBody};
pub use crate::http_cache::{HttpCache, MAX_BODY, MAX_BODY_WAIT, PASS_FOR, RELOAD_INTERVAL};
pub use crate::key::QueryKey;
pub use crate::layer::{HttpCacheLayer, HttpCacheService};
pub use crate::sessions::{SESSION_LIFE, TowerSessions};

/// The examples of the manual's page, run as tests of this crate.
#[cfg(doctest)]
#[doc = include_str!("../../../docs/http.md")]
struct Manual;
