//! The backend in this process: an engine called directly, without frames or sockets.
//!
//! Invariant: the same results as the other backend, from the same scripts where a step must be atomic. Its place is kept here until
//! the node can be opened in process; until then it cannot be constructed, so none of its operations can be reached.

use mtcache_link::{Reply, Script};

use super::{Bytes, CachedKey, Order, When};
use crate::collections::{ScoreRange, ZaddOptions};
use crate::error::{Error, ErrorKind, Result};
use crate::ttl::{TimeLeft, Ttl};

pub(crate) enum EmbeddedBackend {}

macro_rules! unreachable_operations {
    ($(fn $name:ident($($type:ty),*) -> $result:ty;)*) => {
        $(#[allow(clippy::unused_async)]
        pub(super) async fn $name(&self, $(_: $type),*) -> Result<$result> {
            match *self {}
        })*
    };
}

impl EmbeddedBackend {
    pub(crate) fn open(_url: &str) -> Result<Self> {
        Err(Error::new(ErrorKind::Config, "embedded:// comes later in this version; use redis:// or unix://"))
    }

    pub(crate) fn describe(&self) -> String {
        match *self {}
    }

    unreachable_operations! {
        fn get(&[u8]) -> Option<Bytes>;
        fn get_with_time_left(&[u8]) -> (Option<Bytes>, TimeLeft);
        fn get_many(&[Bytes]) -> Vec<Option<Bytes>>;
        fn set(&CachedKey, &[u8], Option<Ttl>, When) -> bool;
        fn set_many(&[(CachedKey, Bytes)], Option<Ttl>) -> ();
        fn delete(&[CachedKey]) -> u64;
        fn exists(&[Bytes]) -> u64;
        fn expire(&[u8], Ttl) -> bool;
        fn time_left(&[u8]) -> TimeLeft;
        fn increment(&[u8], i64) -> i64;
        fn hash_set(&[u8], &[(Bytes, Bytes)]) -> u64;
        fn hash_get(&[u8], &[Bytes]) -> Vec<Option<Bytes>>;
        fn hash_all(&[u8]) -> Vec<(Bytes, Bytes)>;
        fn hash_delete(&[u8], &[Bytes]) -> u64;
        fn hash_len(&[u8]) -> u64;
        fn hash_increment(&[u8], &[u8], i64) -> i64;
        fn zset_add(&[u8], &[(Bytes, f64)], ZaddOptions) -> u64;
        fn zset_increment(&[u8], &[u8], f64) -> f64;
        fn zset_range(&[u8], i64, i64, Order) -> Vec<(Bytes, f64)>;
        fn zset_range_by_score(&[u8], ScoreRange, Order, u64, Option<u64>) -> Vec<(Bytes, f64)>;
        fn zset_remove(&[u8], &[Bytes]) -> u64;
        fn zset_remove_by_rank(&[u8], i64, i64) -> u64;
        fn zset_remove_by_score(&[u8], ScoreRange) -> u64;
        fn zset_len(&[u8]) -> u64;
        fn zset_count(&[u8], ScoreRange) -> u64;
        fn zset_score(&[u8], &[u8]) -> Option<f64>;
        fn script(&Script, &[Bytes], &[Bytes]) -> Reply;
        fn ping() -> ();
        fn info(&str) -> String;
        fn flush_database() -> ();
        fn scan(u64, &[u8]) -> (u64, Vec<Bytes>);
    }
}
