//! The cache of responses: its region, and what it was told beyond the responses' own words.

use std::collections::HashSet;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderMap, Uri};
use mtcache_cache::{Cache, Error, Region, RegionPolicy, RegionStats, Undecodable};
use parking_lot::Mutex;

use crate::entry::Entry;
use crate::key::{self, QueryKey};
use crate::layer::HttpCacheLayer;
use crate::terms::Rules;

/// Largest body that is stored, unless the cache is told another: 1 MiB. Larger ones are passed through.
pub const MAX_BODY: usize = 1024 * 1024;
/// How long the body of a response may take to come to be stored, unless the cache is told another time: 5 s. One that takes longer is passed
/// on as it comes.
pub const MAX_BODY_WAIT: Duration = Duration::from_secs(5);
/// How long after a response that may not be stored nobody waits for another's answer to the same request: 10 s.
pub const PASS_FOR: Duration = Duration::from_secs(10);
/// How long after the service was asked no client can have it asked again, unless the cache is told another time: 1 s.
pub const RELOAD_INTERVAL: Duration = Duration::from_secs(1);
/// Answers that are refreshed at once while their stale ones are served; more are served stale without being refreshed.
pub(crate) const MAX_REFRESHING: usize = 1024;

/// A shared cache of HTTP responses. Cheap to clone.
///
/// What is stored is what the responses' `Cache-Control` allows. The region's policy bounds it: its TTL is the longest time that a response
/// is kept, to be used or asked about; its `stale_window` is the longest time that `stale-while-revalidate`, `stale-if-error` and the
/// clients' `max-stale` can have; `near` answers from this process's memory.
///
/// ```
/// # tokio::runtime::Runtime::new().unwrap().block_on(async {
/// use std::time::Duration;
/// use axum::{Router, routing::get};
/// use mtcache_cache::{Cache, RegionPolicy};
/// use mtcache_http::HttpCache;
///
/// let cache = Cache::connect("embedded://").await?;
/// let policy = RegionPolicy::new("http", Duration::from_secs(3600)).near(true);
/// let responses = HttpCache::new(&cache, policy)?.negative_life(Duration::from_secs(5));
/// let prices = get(|| async { ([("cache-control", "max-age=30")], "67000.5") });
/// let app: Router = Router::new().route("/price/BTC", prices).layer(responses.layer());
/// # let _ = app; Ok::<_, mtcache_cache::Error>(()) }).unwrap();
/// ```
#[derive(Clone)]
pub struct HttpCache {
    pub(crate) region: Region<Entry>,
    pub(crate) rules: Rules,
    pub(crate) max_body: usize,
    pub(crate) max_body_wait: Duration,
    pub(crate) reload_interval: Duration,
    query: QueryKey,
    pub(crate) refreshing: Arc<Mutex<HashSet<Vec<String>>>>,
}

impl HttpCache {
    /// A cache in a region with this policy. Entries that cannot be read are misses, whatever the policy says.
    pub fn new(cache: &Cache, policy: RegionPolicy) -> Result<Self, Error> {
        let policy = policy.undecodable(Undecodable::Miss);
        let rules = Rules { stale_window: policy.stale_window, ..Rules::default() };
        // What is stale is decided here, by what the response and the request allow.
        let region = cache.region(policy.stale_window(Duration::ZERO))?;
        Ok(Self {
            region,
            rules,
            max_body: MAX_BODY,
            max_body_wait: MAX_BODY_WAIT,
            reload_interval: RELOAD_INTERVAL,
            query: QueryKey::default(),
            refreshing: Arc::default(),
        })
    }

    /// Stores bodies up to so many bytes. Default: 1 MiB.
    #[must_use]
    pub fn max_body(mut self, bytes: usize) -> Self {
        self.max_body = bytes;
        self
    }

    /// Stores bodies that come within so long of their first byte; a client waits for no more than that of a body that takes longer. Default:
    /// 5 s.
    #[must_use]
    pub fn max_body_wait(mut self, wait: Duration) -> Self {
        self.max_body_wait = wait;
        self
    }

    /// Answers requests that ask for something newer than what is stored (`no-cache`, `max-age`, `min-fresh`, `Pragma: no-cache`) from the store all
    /// the same, if the service gave it less than so long ago and it is fresh. Default: 1 s, so that whoever may send requests cannot have
    /// the service asked for each of them; a client that means it waits no longer than that. Zero where all clients are trusted: each such request
    /// is heeded. `Duration::MAX` where none is, as shared caches in front of the public have it: only the response's own words count.
    #[must_use]
    pub fn reload_interval(mut self, interval: Duration) -> Self {
        self.reload_interval = interval;
        self
    }

    /// Stores 404 and 410 that name no lifetime, for so long. Default: not at all.
    #[must_use]
    pub fn negative_life(mut self, life: Duration) -> Self {
        self.rules.negative_life = Some(life);
        self
    }

    /// Stores other responses that name no lifetime, for so long. Default: not at all. Only for services none of whose answers are for
    /// one user: a response that says nothing is taken to be for all.
    #[must_use]
    pub fn default_life(mut self, life: Duration) -> Self {
        self.rules.default_life = Some(life);
        self
    }

    /// Stores responses with `Set-Cookie` too, and hands the cookie to everybody. Default: not at all.
    #[must_use]
    pub fn store_set_cookie(mut self) -> Self {
        self.rules.stores_set_cookie = true;
        self
    }

    /// What a URI's query is to the key. Default: [`QueryKey::Exact`].
    #[must_use]
    pub fn query(mut self, query: QueryKey) -> Self {
        self.query = query;
        self
    }

    /// The layer that puts this cache before a service. On a nested axum router the path is what is left of it there: give each its own
    /// region, or put the layer outside.
    pub fn layer(&self) -> HttpCacheLayer {
        HttpCacheLayer::new(self.clone())
    }

    /// Forgets the response to a GET of this URI, with all of its variants. The authority is what clients send as `Host`; without one it is
    /// the response to clients that send none. True if there was one.
    pub async fn invalidate(&self, uri: &Uri) -> Result<bool, Error> {
        self.region.invalidate(self.key(uri, &HeaderMap::new())).await
    }

    /// Forgets all responses.
    pub async fn invalidate_all(&self) -> Result<u64, Error> {
        self.region.invalidate_all().await
    }

    /// The region's counters.
    pub fn stats(&self) -> RegionStats {
        self.region.stats()
    }

    pub(crate) fn key(&self, uri: &Uri, headers: &HeaderMap) -> Vec<String> {
        key::primary(uri, headers, self.query)
    }
}

impl fmt::Debug for HttpCache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HttpCache")
            .field("region", &self.region)
            .field("rules", &self.rules)
            .finish_non_exhaustive()
    }
}
