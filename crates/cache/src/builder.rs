//! How a cache is opened.
//!
//! Invariant: a backend that is down does not keep a service from starting; a URL that cannot work, or credentials that are refused, do.
//! Deliberately absent: reading configuration files and the environment.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use mtcache_link::{ClusterLink, Link, LinkOptions, LinkUrl, Moment, Target, TlsOptions};
use mtcache_node::Node;

use crate::backend::{Backend, ClusterBackend, EmbeddedBackend, RedisBackend};
use crate::background::{self, Periods};
use crate::cache::Cache;
use crate::error::{Error, ErrorKind, Result};
use crate::events::{Event, Observer};
use crate::near::NearOptions;

/// Longest deployment prefix in bytes.
const PREFIX_MAX: usize = 128;
/// Shortest heartbeat of the near cache, or four times what the clock of hits may be late: it is asked five times in each, the answer stands
/// for the question before, and its end comes early by that slack.
const HEARTBEAT_MIN: Duration = Duration::from_millis(100);

/// Options for opening a cache. Made by [`Cache::builder`].
#[derive(Clone)]
pub struct CacheBuilder {
    url: String,
    prefix: String,
    link: LinkOptions,
    near: NearOptions,
    observer: Option<Observer>,
    periods: Periods,
    node: Option<(Arc<Node>, usize)>,
}

impl CacheBuilder {
    pub(crate) fn new(url: impl Into<String>) -> Self {
        Self {
            url: url.into(),
            prefix: String::new(),
            link: LinkOptions::default(),
            near: NearOptions::default(),
            observer: None,
            periods: Periods::default(),
            node: None,
        }
    }

    /// Works on an engine that is open already, in its database `db`, instead of the URL's: for a process that serves the same
    /// engine to others.
    #[must_use]
    pub fn on_node(mut self, node: Arc<Node>, db: usize) -> Self {
        self.node = Some((node, db));
        self
    }

    /// What every key begins with, such as `staging:`. Default: nothing.
    #[must_use]
    pub fn prefix(mut self, prefix: impl Into<String>) -> Self {
        self.prefix = prefix.into();
        self
    }

    /// Longest wait for a connection. Default: 2 s.
    #[must_use]
    pub fn connect_timeout(mut self, timeout: Duration) -> Self {
        self.link.connect_timeout = timeout;
        self
    }

    /// Longest wait for the backend's answer. Default: 2 s.
    #[must_use]
    pub fn response_timeout(mut self, timeout: Duration) -> Self {
        self.link.response_timeout = timeout;
        self
    }

    /// First and longest pause between attempts to connect. Default: 50 ms and 2 s.
    #[must_use]
    pub fn backoff(mut self, first: Duration, longest: Duration) -> Self {
        self.link.backoff_min = first;
        self.link.backoff_max = longest;
        self
    }

    /// When the circuit breaker refuses calls at once: after how many connections in a row on which the backend takes calls and answers none
    /// of them, for how long at first, and for how long at the most. 0 connections: never. Default: 3, 500 ms and 10 s.
    #[must_use]
    pub fn breaker(mut self, silences: u32, first: Duration, longest: Duration) -> Self {
        self.link.breaker_silences = silences;
        self.link.breaker_pause_min = first;
        self.link.breaker_pause_max = longest;
        self
    }

    /// Commands under way at once before more are shed. Default: 65,536.
    #[must_use]
    pub fn max_in_flight(mut self, commands: usize) -> Self {
        self.link.max_in_flight = commands;
        self
    }

    /// How TLS is spoken, where the URL (`rediss://`...) does not say. Default: with what the system trusts, and no certificate of our
    /// own.
    #[must_use]
    pub fn tls(mut self, tls: TlsOptions) -> Self {
        self.link.tls = tls;
        self
    }

    /// On a cluster: how often it is asked who serves what, beside the times when something calls for it. Default: 10 s.
    #[must_use]
    pub fn topology_refresh(mut self, period: Duration) -> Self {
        self.link.topology_refresh = period;
        self
    }

    /// The name shown in CLIENT LIST. Default: `mtcache`.
    #[must_use]
    pub fn client_name(mut self, name: impl Into<String>) -> Self {
        self.link.client_name = name.into();
        self
    }

    /// Most bytes that the near cache holds, for all regions that have it on together. Counted by the values' stored form, since what a
    /// decoded value takes cannot be asked of it; one entry may have a sixty-fourth, or a quarter MiB if that is more. Default: 64 MiB.
    #[must_use]
    pub fn near_max_bytes(mut self, bytes: u64) -> Self {
        self.near.max_bytes = bytes;
        self
    }

    /// How long a change may go unheard, because the connection that tells of it is silent, before the near cache is not used. At
    /// least 100 ms, and 128 ms where the system has 250 ticks a second. Default: 1 s.
    #[must_use]
    pub fn near_heartbeat(mut self, bound: Duration) -> Self {
        self.near.tracking.heartbeat = bound.max(HEARTBEAT_MIN).max(4 * Moment::slack());
        self
    }

    /// Is called for each event, on the thread where it happens; it must be quick, and must not call the cache. Default: nobody, and no
    /// times are taken.
    #[must_use]
    pub fn observer(mut self, observer: impl Fn(&Event<'_>) + Send + Sync + 'static) -> Self {
        self.observer = Some(Arc::new(observer));
        self
    }

    /// Reports to the recorder of the `metrics` crate, if the process has installed one, each such period: see
    /// [docs/metrics.md](https://github.com/mastertrade/cache/blob/main/docs/metrics.md) for the names. Default: not at all.
    #[must_use]
    pub fn report_metrics(mut self, period: Duration) -> Self {
        self.periods.metrics = Some(period);
        self
    }

    /// Publishes the counters of this process in the backend each such period, under `mtcache:stats:` and an identity of its own, to be
    /// added up by [`Cache::published_stats`] anywhere; they expire after three periods. Default: not at all.
    #[must_use]
    pub fn publish_stats(mut self, period: Duration) -> Self {
        self.periods.publish = Some(period);
        self
    }

    /// Measures each such period how long after a write the near cache serves what was there before, see
    /// [`Cache::probe_stale_reads`]: one write of a small key. Default: not at all.
    #[must_use]
    pub fn probe_stale_reads(mut self, period: Duration) -> Self {
        self.periods.probe = Some(period);
        self
    }

    /// Opens the cache. Waits for the first attempt to connect; if the backend is down the cache is opened all the same and
    /// uses it once it is there.
    pub async fn open(self) -> Result<Cache> {
        if self.prefix.len() > PREFIX_MAX || self.prefix.contains(['{', '}']) {
            return Err(Error::new(
                ErrorKind::Config,
                format!(
                    "the prefix {:?} must have at most {PREFIX_MAX} bytes and no braces (they would put all keys in one slot)",
                    self.prefix
                ),
            ));
        }
        crate::keys::checked(format!("{}x", self.prefix))?;
        let backend = if let Some((node, db)) = self.node {
            EmbeddedBackend::on(node, db)?.into()
        } else if self.url.starts_with("embedded:") {
            EmbeddedBackend::open(&self.url)?.into()
        } else {
            let url: LinkUrl = self.url.parse()?;
            let (backend, first_attempt) = if let Target::Cluster(_) = url.target() {
                let cluster = ClusterBackend::new(ClusterLink::open(&url, self.link)?);
                let first_attempt = cluster.first_attempt().await;
                (Backend::Cluster(cluster), first_attempt)
            } else {
                let redis = RedisBackend::new(Link::open(&url, self.link)?);
                let first_attempt = redis.first_attempt().await;
                (Backend::Redis(redis), first_attempt)
            };
            match first_attempt {
                Err(error) if matches!(error.kind(), ErrorKind::Denied | ErrorKind::Config) => {
                    return Err(error);
                }
                Err(error) => tracing::warn!(%error, "the backend is down; starting without it"),
                Ok(()) => {}
            }
            backend
        };
        let reports_metrics = self.periods.metrics.is_some();
        let cache = Cache::with(backend, self.prefix, self.observer, self.near, reports_metrics);
        background::start(&cache, &self.periods);
        Ok(cache)
    }
}

impl fmt::Debug for CacheBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CacheBuilder")
            .field("prefix", &self.prefix)
            .field("link", &self.link)
            .finish_non_exhaustive()
    }
}
