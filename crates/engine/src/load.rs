//! Putting keys from a snapshot into the keyspace, past commands, journal and notifications.
//!
//! For the time before anybody is served, so nothing is evicted and nobody is told. A key that comes twice is refused: it
//! means that the file is damaged.

use std::fmt;

use crate::engine::Engine;
use crate::keyspace::{DbIndex, Entry, Found, MAX_KEY_LEN};
use crate::rdb::Loaded;
use crate::time::UnixMillis;

/// Why a key was not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum NotLoaded {
    /// There is no such database.
    NoDatabase,
    /// The key is there already.
    Duplicate,
    /// The key is longer than a key may be.
    KeyTooLong,
}

impl fmt::Display for NotLoaded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NoDatabase => "its database is not configured; raise `databases`",
            Self::Duplicate => "it is there twice",
            Self::KeyTooLong => "it is longer than 512 MB",
        })
    }
}

impl Engine {
    /// Says that about so many keys of a database are coming from a snapshot. It makes their way shorter, and takes memory for
    /// them at once: the caller does not trust a number that is larger than the file.
    pub fn expect_keys(&self, db: u64, keys: u64) {
        let Some(db) = DbIndex::try_from(db).ok().filter(|db| usize::from(*db) < self.databases()) else {
            return;
        };
        let share = usize::try_from(keys).unwrap_or(usize::MAX) / self.keyspace.shards();
        for number in 0..self.keyspace.shards() {
            self.keyspace.lock_one(number).shard(number).reserve(db, share);
        }
    }

    /// Stores a key that comes from a snapshot.
    pub fn load(&self, db: u64, key: &[u8], loaded: Loaded, now: UnixMillis) -> Result<(), NotLoaded> {
        let db = DbIndex::try_from(db).ok().filter(|db| usize::from(*db) < self.databases());
        let db = db.ok_or(NotLoaded::NoDatabase)?;
        if key.len() > MAX_KEY_LEN {
            return Err(NotLoaded::KeyTooLong);
        }
        let access = self.settings.access_clock(now).restored(loaded.idle_seconds, loaded.counter);
        let entry = Entry::of_object(key, loaded.object, loaded.expires_at, access);
        let hash = self.keyspace.hash(key);
        let number = self.keyspace.shard_of(hash);
        let mut locked = self.keyspace.lock_one(number);
        let shard = locked.shard(number);
        if shard.find_live(db, hash, key, UnixMillis(0)) != Found::Absent {
            return Err(NotLoaded::Duplicate);
        }
        shard.insert(db, hash, entry);
        Ok(())
    }
}
