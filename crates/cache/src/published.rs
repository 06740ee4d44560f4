//! Counters of every process, where any console can add them up: each process writes its own under one key, with an expiry.
//!
//! The keys: `mtcache:stats:`, the deployment's prefix, an identity made when the cache was opened; the values: one JSON object, see
//! [`ProcessStats`]. Invariants: a process that has gone is gone from the sum after three periods; nothing but counters is published, no
//! key and no value. Deliberately absent: an index of processes: the walk over keys is bounded, and says when the bound was met.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use crate::backend::{CachedKey, When};
use crate::cache::Cache;
use crate::clearing::note_epochs;
use crate::error::Result;
use crate::read_probe::StaleReads;
use crate::stats::RegionStats;
use crate::ttl::Ttl;

/// What the keys begin with.
pub(crate) const STATS_PREFIX: &str = "mtcache:stats:";
/// How many periods a process' counters outlive their last writing.
const PERIODS_KEPT: u32 = 3;
/// Processes that are added up at the most.
const MAX_PROCESSES: usize = 1000;
/// Steps of the walk over the backend's keys, each of some thousand keys.
const MAX_STEPS: usize = 10_000;

/// The counters of one process, as it publishes them.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
#[non_exhaustive]
pub struct ProcessStats {
    /// The process' identity: its number, and random digits.
    pub process: String,
    /// The deployment's prefix.
    pub prefix: String,
    /// When it was written, by the writer's clock, in milliseconds since 1970.
    pub at_millis: u64,
    /// How often it is written, in milliseconds.
    pub period_millis: u64,
    /// The counters by region; what is of no region is under `keys`.
    pub regions: BTreeMap<String, RegionStats>,
    /// Values in the near cache.
    pub near_entries: u64,
    /// What they count for.
    pub near_bytes: u64,
    /// Keys that wait to be invalidated.
    pub pending_keys: u64,
    /// `ok`, `degraded` or `down`.
    pub health: String,
    /// From a write to the last near read of what was there before, see [`StaleReads`].
    pub stale_reads: StaleReads,
}

/// The counters of all processes that have published theirs.
#[derive(Clone, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct PublishedStats {
    /// By process, in the order of their identities.
    pub processes: Vec<ProcessStats>,
    /// False if there was more than could be walked over: 10,000 steps over the keys, 1,000 processes.
    pub is_complete: bool,
}

impl PublishedStats {
    /// The sums by region.
    pub fn by_region(&self) -> BTreeMap<String, RegionStats> {
        let mut sums = BTreeMap::new();
        for (region, stats) in self.processes.iter().flat_map(|process| &process.regions) {
            *sums.entry(region.clone()).or_default() += *stats;
        }
        sums
    }

    /// From a write to the last near read of what was there before, over all processes.
    pub fn stale_reads(&self) -> StaleReads {
        self.processes.iter().fold(StaleReads::default(), |sum, process| sum.and(&process.stale_reads))
    }
}

impl Cache {
    /// The counters of every process of this deployment that publishes them
    /// ([`CacheBuilder::publish_stats`](crate::CacheBuilder::publish_stats)), this one among them. Walks over the keys of the whole
    /// database: it is for a console that asks every few seconds, not for each request.
    pub async fn published_stats(&self) -> Result<PublishedStats> {
        let backend = self.backend().await?;
        let prefix = format!("{STATS_PREFIX}{}", self.prefix());
        let (mut keys, mut cursor, mut steps) = (Vec::new(), 0, 0);
        let mut epochs = BTreeMap::new();
        let mut published = PublishedStats { processes: Vec::new(), is_complete: true };
        note_epochs(backend, &mut epochs);
        loop {
            let (next, found) = backend.scan(cursor, prefix.as_bytes()).await?;
            // Another server's table is in another order.
            published.is_complete &= note_epochs(backend, &mut epochs);
            keys.extend(found.into_iter().filter(|key| key.starts_with(prefix.as_bytes())));
            (cursor, steps) = (next, steps + 1);
            if cursor == 0 {
                break;
            }
            if steps == MAX_STEPS || keys.len() > MAX_PROCESSES {
                published.is_complete = false;
                break;
            }
        }
        keys.sort();
        // A walk may come across a key twice.
        keys.dedup();
        keys.truncate(MAX_PROCESSES);
        for value in backend.get_many(&keys).await?.into_iter().flatten() {
            // Of another version, or gone since: not ours to add up.
            let Ok(process) = serde_json::from_slice::<ProcessStats>(&value) else { continue };
            // `staging:` is not `staging:eu:`, though its keys begin alike.
            if process.prefix == self.prefix() {
                published.processes.push(process);
            }
        }
        Ok(published)
    }

    /// Publishes this process' counters now; they expire after three periods.
    pub(crate) async fn publish_stats(&self, period: Duration) -> Result<()> {
        let stats = self.process_stats(period);
        let key = CachedKey::new(&format!("{STATS_PREFIX}{}{}", self.prefix(), stats.process));
        let value = crate::codec::encode(&stats)?;
        let ttl = Ttl::new(period * PERIODS_KEPT)?;
        self.backend().await?.set(&key, &value, Some(ttl), When::Always).await.map(drop)
    }

    fn process_stats(&self, period: Duration) -> ProcessStats {
        let health = self.health();
        let millis = |duration: Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
        ProcessStats {
            process: self.identity().to_owned(),
            prefix: self.prefix().to_owned(),
            at_millis: SystemTime::now().duration_since(UNIX_EPOCH).map(millis).unwrap_or_default(),
            period_millis: millis(period),
            regions: self.stats().into_iter().collect(),
            near_entries: health.near_entries,
            near_bytes: health.near_bytes,
            pending_keys: health.pending_keys as u64,
            health: health.level.to_string(),
            stale_reads: self.stale_reads(),
        }
    }
}
