//! A view of one hash.
//!
//! Invariant: a hash that is written with a TTL gets it in the same call, and one atomic step where the key is new, so that no hash
//! lives for ever by accident. Deliberately absent: reading a whole hash in pieces (HSCAN).

use std::sync::LazyLock;
use std::time::Duration;

use mtcache_link::Script;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::cache::Cache;
use crate::codec;
use crate::error::Result;
use crate::ttl::Ttl;

/// KEYS: the hash. ARGV: its TTL in ms, whether that is only for a hash without an expiry, then fields and values. Answers how many fields
/// are new.
static SET_WITH_TTL: LazyLock<Script> = LazyLock::new(|| {
    Script::idempotent(
        "local added = 0\n\
         for i = 3, #ARGV, 2 do\n\
           added = added + redis.call('HSET', KEYS[1], ARGV[i], ARGV[i + 1])\n\
         end\n\
         if ARGV[2] == '0' or redis.call('PTTL', KEYS[1]) == -1 then\n\
           redis.call('PEXPIRE', KEYS[1], ARGV[1])\n\
         end\n\
         return added\n",
    )
});

/// One hash. Made by [`Cache::hash`].
#[derive(Clone, Debug)]
pub struct HashView {
    cache: Cache,
    key: String,
}

impl HashView {
    pub(crate) fn new(cache: Cache, key: String) -> Self {
        Self { cache, key }
    }

    /// Sets fields and gives the whole hash this TTL, as one step; says how many fields are new.
    pub async fn set_many<F: AsRef<str>, V: Serialize>(
        &self,
        fields: &[(F, V)],
        ttl: Duration,
    ) -> Result<u64> {
        self.set_all(fields, ttl, b"0").await
    }

    /// Sets fields, and gives the hash this TTL if it has no expiry yet, as one step: one that it has, whoever set it, is neither prolonged
    /// nor cut short. Says how many fields are new.
    pub async fn set_many_keeping_expiry<F: AsRef<str>, V: Serialize>(
        &self,
        fields: &[(F, V)],
        ttl: Duration,
    ) -> Result<u64> {
        self.set_all(fields, ttl, b"1").await
    }

    async fn set_all<F: AsRef<str>, V: Serialize>(
        &self,
        fields: &[(F, V)],
        ttl: Duration,
        only_without_expiry: &[u8],
    ) -> Result<u64> {
        let ttl = Ttl::new(ttl)?;
        if fields.is_empty() {
            return Ok(0);
        }
        let mut args = vec![ttl.as_millis().to_string().into_bytes(), only_without_expiry.to_vec()];
        for (field, value) in fields {
            args.push(field.as_ref().as_bytes().to_vec());
            args.push(codec::encode(value)?);
        }
        let keys = [self.key.clone().into_bytes()];
        let backend = self.cache.backend().await?;
        Ok(backend.script(&SET_WITH_TTL, &keys, &args).await?.into_count()?)
    }

    /// Sets one field and leaves the hash's expiry as it is: a new hash has none. Says whether the field is new.
    pub async fn set<V: Serialize + ?Sized>(&self, field: &str, value: &V) -> Result<bool> {
        let fields = [(field.as_bytes().to_vec(), codec::encode(value)?)];
        Ok(self.cache.backend().await?.hash_set(self.key.as_bytes(), &fields).await? > 0)
    }

    /// One field.
    pub async fn get<V: DeserializeOwned>(&self, field: &str) -> Result<Option<V>> {
        Ok(self.get_many(&[field]).await?.into_iter().next().flatten())
    }

    /// Several fields, in the order asked for.
    pub async fn get_many<F: AsRef<str>, V: DeserializeOwned>(&self, fields: &[F]) -> Result<Vec<Option<V>>> {
        if fields.is_empty() {
            return Ok(Vec::new());
        }
        let fields: Vec<_> = fields.iter().map(|field| field.as_ref().as_bytes().to_vec()).collect();
        let values = self.cache.backend().await?.hash_get(self.key.as_bytes(), &fields).await?;
        values.into_iter().map(|value| value.map(|v| codec::decode(&v)).transpose()).collect()
    }

    /// All fields with their values, in no particular order.
    pub async fn all<V: DeserializeOwned>(&self) -> Result<Vec<(String, V)>> {
        let pairs = self.cache.backend().await?.hash_all(self.key.as_bytes()).await?;
        pairs
            .into_iter()
            .map(|(field, value)| Ok((String::from_utf8_lossy(&field).into_owned(), codec::decode(&value)?)))
            .collect()
    }

    /// Deletes fields; says how many there were.
    pub async fn delete<F: AsRef<str>>(&self, fields: &[F]) -> Result<u64> {
        if fields.is_empty() {
            return Ok(0);
        }
        let fields: Vec<_> = fields.iter().map(|field| field.as_ref().as_bytes().to_vec()).collect();
        self.cache.backend().await?.hash_delete(self.key.as_bytes(), &fields).await
    }

    /// How many fields there are.
    pub async fn len(&self) -> Result<u64> {
        self.cache.backend().await?.hash_len(self.key.as_bytes()).await
    }

    /// True if there is no field.
    pub async fn is_empty(&self) -> Result<bool> {
        Ok(self.len().await? == 0)
    }

    /// Adds to a field's integer and returns the sum. Never sent twice.
    pub async fn increment(&self, field: &str, by: i64) -> Result<i64> {
        self.cache.backend().await?.hash_increment(self.key.as_bytes(), field.as_bytes(), by).await
    }
}
