//! The backends behind a cache, and the one set of typed operations that all have.
//!
//! Invariant: an operation means the same on every backend; the contract tests run one body over all of them. A write of a
//! cached value deletes its fill token in the same atomic step. Deliberately absent: codecs, regions, keys' meaning: all is bytes here.

mod cluster;
mod commands;
mod embedded;
mod redis;

use std::time::Duration;

use mtcache_link::BreakerState;

pub(crate) use self::cluster::ClusterBackend;
pub(crate) use self::commands::READ_STEP;
use self::commands::Speaks;
pub(crate) use self::embedded::EmbeddedBackend;
pub(crate) use self::redis::RedisBackend;
use crate::collections::{ScoreRange, ZaddOptions};
use crate::error::Result;
use crate::health::Troubles;
use crate::told::Told;
use crate::ttl::{TimeLeft, Ttl};

/// Bytes of a key, a field, a member or a value.
pub(crate) type Bytes = Vec<u8>;

/// A cached key with the key of its fill token.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct CachedKey {
    pub(crate) key: Bytes,
    pub(crate) token: Bytes,
    /// What is changed to tell that the key was deleted, be it there or not.
    pub(crate) gone: Option<Bytes>,
}

impl CachedKey {
    pub(crate) fn new(key: &str) -> Self {
        Self::of(key.as_bytes().to_vec())
    }

    pub(crate) fn of(key: Bytes) -> Self {
        Self { token: crate::fill_token::token_key(&key), key, gone: None }
    }

    /// The same, told of when it is deleted.
    pub(crate) fn told_when_gone(mut self) -> Self {
        self.gone = Some(Told::Gone(&self.key).key());
        self
    }
}

/// A value to store.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    pub(crate) key: CachedKey,
    pub(crate) value: Bytes,
    /// None: it does not expire.
    pub(crate) ttl: Option<Ttl>,
}

/// The keys and arguments of one run of a script.
#[derive(Clone, Debug)]
pub(crate) struct ScriptCall {
    pub(crate) keys: Vec<Bytes>,
    pub(crate) args: Vec<Bytes>,
}

/// When a plain SET stores.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum When {
    Always,
    Absent,
    Present,
}

/// Which end of a sorted set comes first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// Lowest score first.
    Ascending,
    /// Highest score first.
    Descending,
}

/// Stands for every engine in a process: its clock is the machine's, before and after a restart.
const EMBEDDED_RUN: u64 = 1;

pub(crate) enum Backend {
    Redis(RedisBackend),
    Cluster(ClusterBackend),
    Embedded(EmbeddedBackend),
}

macro_rules! operations {
    ($($(#[$doc:meta])* fn $name:ident(&self $(, $arg:ident: $type:ty)* $(,)?) -> $result:ty;)*) => {
        impl Backend {
            $($(#[$doc])* pub(crate) async fn $name(&self $(, $arg: $type)*) -> Result<$result> {
                match self {
                    Self::Redis(backend) => backend.$name($($arg),*).await,
                    Self::Cluster(backend) => backend.noted(backend.$name($($arg),*).await),
                    Self::Embedded(backend) => backend.$name($($arg),*).await,
                }
            })*
        }
    };
}

operations! {
    /// The time left is asked first, so that a change in between can only make the value look older than it is.
    fn get_with_time_left(&self, key: &[u8]) -> (Option<Bytes>, TimeLeft);
    /// A key's value, what is left of its life, and the time in microseconds by the clock of the node that has the key, of one moment.
    fn get_with_clock(&self, key: &[u8]) -> (Option<Bytes>, TimeLeft, u64);
    fn get_many(&self, keys: &[Bytes]) -> Vec<Option<Bytes>>;
    /// As `get_many`, each with its own error.
    fn get_each(&self, keys: &[Bytes]) -> Vec<Result<Option<Bytes>>>;
    /// As `get_with_time_left`, each with its own error.
    fn look_many(&self, keys: &[Bytes]) -> Vec<Result<(Option<Bytes>, TimeLeft)>>;
    /// Stores and deletes the token; says whether it stored. Without a TTL the key does not expire.
    fn set(&self, key: &CachedKey, value: &[u8], ttl: Option<Ttl>, when: When) -> bool;
    /// Stores all and deletes their tokens in one atomic step; on a cluster in one for each slot.
    fn set_many(&self, entries: &[Entry]) -> ();
    /// Deletes keys and tokens in one atomic step, on a cluster in one for each slot; says how many keys there were.
    fn delete(&self, keys: &[CachedKey]) -> u64;
    /// Tells those who track this key that it has changed, and leaves nothing behind.
    fn tell(&self, key: &[u8]) -> ();
    fn exists(&self, keys: &[Bytes]) -> u64;
    fn expire(&self, key: &[u8], ttl: Ttl) -> bool;
    fn time_left(&self, key: &[u8]) -> TimeLeft;
    fn increment(&self, key: &[u8], by: i64) -> i64;
    fn hash_set(&self, key: &[u8], fields: &[(Bytes, Bytes)]) -> u64;
    fn hash_get(&self, key: &[u8], fields: &[Bytes]) -> Vec<Option<Bytes>>;
    fn hash_all(&self, key: &[u8]) -> Vec<(Bytes, Bytes)>;
    fn hash_delete(&self, key: &[u8], fields: &[Bytes]) -> u64;
    fn hash_len(&self, key: &[u8]) -> u64;
    fn hash_increment(&self, key: &[u8], field: &[u8], by: i64) -> i64;
    fn zset_add(&self, key: &[u8], members: &[(Bytes, f64)], options: ZaddOptions) -> u64;
    fn zset_increment(&self, key: &[u8], member: &[u8], by: f64) -> f64;
    fn zset_range(&self, key: &[u8], start: i64, stop: i64, order: Order) -> Vec<(Bytes, f64)>;
    fn zset_range_by_score(
        &self,
        key: &[u8],
        range: ScoreRange,
        order: Order,
        skip: u64,
        limit: Option<u64>,
    ) -> Vec<(Bytes, f64)>;
    fn zset_remove(&self, key: &[u8], members: &[Bytes]) -> u64;
    fn zset_remove_by_rank(&self, key: &[u8], start: i64, stop: i64) -> u64;
    fn zset_remove_by_score(&self, key: &[u8], range: ScoreRange) -> u64;
    fn zset_len(&self, key: &[u8]) -> u64;
    fn zset_count(&self, key: &[u8], range: ScoreRange) -> u64;
    fn zset_score(&self, key: &[u8], member: &[u8]) -> Option<f64>;
    fn script(&self, script: &mtcache_link::Script, keys: &[Bytes], args: &[Bytes]) -> mtcache_link::Reply;
    /// One script run for each call, in one go but not as one step. Errors stand in their call's place.
    fn scripts(&self, script: &mtcache_link::Script, calls: &[ScriptCall]) -> Vec<mtcache_link::Reply>;
    fn command(&self, command: mtcache_link::Command) -> mtcache_link::Reply;
    fn ping(&self) -> ();
    fn info(&self, section: &str) -> String;
    fn flush_database(&self) -> ();
    /// One step of a walk over all keys with this prefix; the next cursor is 0 at the end.
    fn scan(&self, cursor: u64, prefix: &[u8]) -> (u64, Vec<Bytes>);
}

impl Backend {
    pub(crate) async fn get(&self, key: &[u8]) -> Result<Option<Bytes>> {
        match self {
            Self::Redis(backend) => backend.get(key).await,
            Self::Cluster(backend) => backend.noted(backend.get(key).await),
            Self::Embedded(backend) => backend.get_directly(key).await,
        }
    }

    /// True unless the backend is known to be out of reach.
    pub(crate) fn is_up(&self) -> bool {
        match self {
            Self::Redis(backend) => backend.is_up(),
            Self::Cluster(backend) => backend.is_up(),
            Self::Embedded(_) => true,
        }
    }

    /// Whether calls are let through.
    pub(crate) fn breaker(&self) -> BreakerState {
        match self {
            Self::Redis(backend) => backend.link().breaker(),
            Self::Cluster(backend) => backend.link().breaker(),
            Self::Embedded(_) => BreakerState::Closed,
        }
    }

    /// By the servers' numbers what has to stay the same for a walk over their keys to go on.
    pub(crate) fn cursor_epochs(&self) -> Vec<(u16, u64)> {
        match self {
            Self::Redis(backend) => vec![(0, backend.link().cursor_epoch())],
            Self::Cluster(backend) => backend.link().cursor_epochs(),
            Self::Embedded(_) => Vec::new(),
        }
    }

    /// Stands for the run of the server that has this key; 0 if that is not known.
    pub(crate) fn run_of(&self, key: &[u8]) -> u64 {
        match self {
            Self::Redis(backend) => backend.link().server_run(),
            Self::Cluster(backend) => backend.link().server_run_of(key),
            Self::Embedded(_) => EMBEDDED_RUN,
        }
    }

    /// The same, once there has been a connection that says it: the first command of all would not know otherwise.
    pub(crate) async fn settled_run_of(&self, key: &[u8]) -> u64 {
        if self.run_of(key) == 0 {
            // The command that follows says what is wrong.
            let _ = match self {
                Self::Redis(backend) => backend.link().connected().await,
                Self::Cluster(backend) => backend.link().connected_for(key).await,
                Self::Embedded(_) => Ok(()),
            };
        }
        self.run_of(key)
    }

    /// Waits for the backend at most so long.
    pub(crate) async fn wait_up(&self, patience: Duration) -> bool {
        match self {
            Self::Redis(backend) => backend.wait_up(patience).await,
            Self::Cluster(backend) => backend.wait_up(patience).await,
            Self::Embedded(_) => true,
        }
    }

    /// What went wrong lately.
    pub(crate) fn troubles(&self) -> &Troubles {
        match self {
            Self::Redis(backend) => backend.troubles(),
            Self::Cluster(backend) => backend.troubles(),
            Self::Embedded(backend) => backend.troubles(),
        }
    }

    /// Where it is, without credentials.
    pub(crate) fn describe(&self) -> String {
        match self {
            Self::Redis(backend) => backend.describe(),
            Self::Cluster(backend) => backend.describe(),
            Self::Embedded(backend) => backend.describe(),
        }
    }
}
