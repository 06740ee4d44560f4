//! Set-if-newer: a late tick never overwrites a newer price.
//!
//! The stored JSON is read, compared here, and replaced by one atomic step that stores only if the stored bytes are still
//! the ones compared; else the step returns what is there now, and it is compared again. So it works on every backend, with no JSON in
//! its scripts. Invariant: what is stored at the end is never older than what was stored before. Deliberately absent: clocks; only the values' own times count.

use std::sync::LazyLock;

use mtcache_link::Script;
use serde_json::Value;

use crate::backend::{Backend, Bytes, CachedKey};
use crate::error::{Error, ErrorKind, Result};
use crate::timestamp::Timestamp;
use crate::ttl::Ttl;

/// How often a step is tried against other writers. Each failure means that another writer's value got in.
const MAX_TRIES: usize = 1000;

/// KEYS: key, token. ARGV: 1 if a value is expected, that value, the new value, its TTL in ms or 0 for none. Answers {1} if it stored, else
/// {0, the present value or nil}. Sent twice it finds its own value, which the caller takes as stored.
static SWAP: LazyLock<Script> = LazyLock::new(|| {
    Script::idempotent(
        "local value = redis.call('GET', KEYS[1])\n\
         if ARGV[1] == '1' then\n\
           if value ~= ARGV[2] then return {0, value} end\n\
         elseif value then\n\
           return {0, value}\n\
         end\n\
         if ARGV[4] == '0' then\n\
           redis.call('SET', KEYS[1], ARGV[3])\n\
         else\n\
           redis.call('SET', KEYS[1], ARGV[3], 'PX', ARGV[4])\n\
         end\n\
         redis.call('DEL', KEYS[2])\n\
         return {1}\n",
    )
});

/// The error of a value that cannot be compared.
pub(crate) fn no_time(field: &str) -> Error {
    Error::new(
        ErrorKind::Unencodable,
        format!("the value has no readable time in its field {field:?}, so it cannot be compared"),
    )
}

/// Stores unless the stored value is newer by this field; says whether it stored.
pub(crate) async fn set_if_newer(
    backend: &Backend,
    key: &CachedKey,
    value: &[u8],
    field: &str,
    ttl: Option<Ttl>,
) -> Result<bool> {
    let Some(time) = time_of(value, field) else {
        return Err(no_time(field));
    };
    let ttl = ttl.map_or(0, Ttl::as_millis).to_string().into_bytes();
    let keys = [key.key.clone(), key.token.clone()];
    let mut present: Option<Bytes> = backend.get(&key.key).await?;
    for _ in 0..MAX_TRIES {
        let newer =
            present.as_deref().and_then(|stored| time_of(stored, field)).is_some_and(|stored| stored > time);
        if newer {
            return Ok(false);
        }
        let expected = if present.is_some() { b"1".to_vec() } else { b"0".to_vec() };
        let args = [expected, present.clone().unwrap_or_default(), value.to_vec(), ttl.clone()];
        let mut answer = backend.script(&SWAP, &keys, &args).await?.into_array()?.into_iter();
        let stored = answer.next().map_or(Ok(0), mtcache_link::Reply::into_int)? == 1;
        if stored {
            return Ok(true);
        }
        present = answer.next().map_or(Ok(None), mtcache_link::Reply::into_bytes)?;
    }
    Err(Error::new(
        ErrorKind::Shed,
        format!("{MAX_TRIES} other writers got in before this one; write this key from fewer places"),
    ))
}

fn time_of(json: &[u8], field: &str) -> Option<Timestamp> {
    let value: Value = serde_json::from_slice(json).ok()?;
    Timestamp::from_json(value.get(field)?)
}
