//! A store for `tower-sessions`: the sessions of web applications, in a region.
//!
//! Invariants: the session's id, which is what its cookie opens it with, is never stored: a key has its SHA-256, and the value does not
//! repeat it. A session lives no longer than it says and no longer than the region's TTL; one that was deleted is not brought back by a
//! late save, which is SET XX. Deliberately absent: users and their lists of sessions, which `mtcache_trading::SessionStore` has.

use std::collections::HashMap;
use std::fmt;
use std::time::Duration;

use async_trait::async_trait;
use mtcache_cache::{Cache, ErrorKind, Region, RegionPolicy, SetOptions};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::{Digest, Sha256};
use time::OffsetDateTime;
use tower_sessions_core::SessionStore;
use tower_sessions_core::session::{Id, Record};
use tower_sessions_core::session_store::{Error, Result};

use crate::key::hex;

/// Longest life of a session between two saves, unless the policy says otherwise: 30 days.
pub const SESSION_LIFE: Duration = Duration::from_hours(30 * 24);
/// How many ids are tried for a new session. One is free unless 2^64 sessions are there.
const MAX_IDS: usize = 4;

/// A store of `tower-sessions` over a cache. Cheap to clone.
///
/// ```
/// # tokio::runtime::Runtime::new().unwrap().block_on(async {
/// use axum::{Router, routing::get};
/// use mtcache_cache::Cache;
/// use mtcache_http::TowerSessions;
/// use tower_sessions::{Session, SessionManagerLayer};
///
/// let sessions = TowerSessions::new(&Cache::connect("embedded://").await?)?;
/// let visits = get(|session: Session| async move {
///     let visits = session.get::<u64>("visits").await.ok().flatten().unwrap_or(0) + 1;
///     session.insert("visits", visits).await.map(|()| visits.to_string()).unwrap_or_default()
/// });
/// let app: Router = Router::new().route("/", visits).layer(SessionManagerLayer::new(sessions));
/// # let _ = app; Ok::<_, mtcache_cache::Error>(()) }).unwrap();
/// ```
#[derive(Clone)]
pub struct TowerSessions {
    cache: Cache,
    region: Region<Kept>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Kept {
    expires_ms: i64,
    data: HashMap<String, Value>,
}

impl TowerSessions {
    /// Sessions in a region of their own, `tower_session`, that live 30 days at the most between two saves.
    pub fn new(cache: &Cache) -> mtcache_cache::Result<Self> {
        Self::with_policy(cache, RegionPolicy::new("tower_session", SESSION_LIFE))
    }

    /// Sessions in a region with this policy. Its TTL is the longest life between two saves; nothing of it is kept near or served stale, for a
    /// session that was ended must not open.
    pub fn with_policy(cache: &Cache, policy: RegionPolicy) -> mtcache_cache::Result<Self> {
        let policy = policy.near(false).stale_window(Duration::ZERO).ttl_jitter(0.0);
        Ok(Self { cache: cache.clone(), region: cache.region(policy)? })
    }

    /// What is stored, and for how long; none if the session is over.
    fn kept(&self, record: &Record) -> Option<(Kept, Duration)> {
        let left = record.expiry_date - OffsetDateTime::now_utc();
        let left = Duration::try_from(left).ok()?.min(self.region.policy().ttl);
        let expires_ms = i64::try_from(record.expiry_date.unix_timestamp_nanos() / 1_000_000).ok()?;
        (left >= Duration::from_millis(1)).then(|| (Kept { expires_ms, data: record.data.clone() }, left))
    }

    async fn put(&self, record: &Record, condition: fn(SetOptions) -> SetOptions) -> Result<bool> {
        let Some((kept, left)) = self.kept(record) else {
            return self.delete(&record.id).await.map(|()| true);
        };
        let key = self.key(&record.id)?;
        self.cache.set(&key, &kept, condition(SetOptions::ttl(left))).await.map_err(failed)
    }

    /// The key without the deployment's prefix, which the cache adds.
    fn key(&self, id: &Id) -> Result<String> {
        let full = self.region.key(name(id)).map_err(failed)?;
        Ok(full.strip_prefix(self.cache.prefix()).map_or(full.clone(), str::to_owned))
    }
}

#[async_trait]
impl SessionStore for TowerSessions {
    async fn create(&self, record: &mut Record) -> Result<()> {
        for _ in 0..MAX_IDS {
            if self.put(record, SetOptions::if_absent).await? {
                return Ok(());
            }
            record.id = Id::default();
        }
        Err(Error::Backend("no free session id was found; is the random generator broken?".to_owned()))
    }

    async fn save(&self, record: &Record) -> Result<()> {
        if !self.put(record, SetOptions::if_present).await? {
            tracing::debug!("a session that has ended was not saved");
        }
        Ok(())
    }

    async fn load(&self, id: &Id) -> Result<Option<Record>> {
        let Some(read) = self.region.get(name(id)).await.map_err(failed)? else { return Ok(None) };
        let Kept { expires_ms, data } = read.value;
        let expiry_date = OffsetDateTime::from_unix_timestamp_nanos(i128::from(expires_ms) * 1_000_000)
            .map_err(|error| Error::Decode(error.to_string()))?;
        Ok((expiry_date > OffsetDateTime::now_utc()).then_some(Record { id: *id, data, expiry_date }))
    }

    async fn delete(&self, id: &Id) -> Result<()> {
        self.region.invalidate(name(id)).await.map(drop).map_err(failed)
    }
}

impl fmt::Debug for TowerSessions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TowerSessions").field("region", &self.region).finish_non_exhaustive()
    }
}

/// What a session is found by: nothing that opens it.
fn name(id: &Id) -> String {
    hex(&Sha256::digest(id.to_string().as_bytes()))
}

#[allow(clippy::needless_pass_by_value, reason = "what map_err hands over")]
fn failed(error: mtcache_cache::Error) -> Error {
    match error.kind() {
        ErrorKind::Unencodable => Error::Encode(error.to_string()),
        ErrorKind::Undecodable => Error::Decode(error.to_string()),
        _ => Error::Backend(error.to_string()),
    }
}
