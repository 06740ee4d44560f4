//! All data read again from files while everything stands: `DEBUG RELOAD`, `DEBUG LOADAOF`.
//!
//! Every shard is locked from before the old data is saved until the new data is in its place, so nobody sees anything in
//! between, and no write falls in between. The files are read into an engine of their own first: when they turn out to be
//! damaged or missing, nothing has changed. Deliberately absent: files, which whoever owns the engine knows about.

use std::sync::Arc;

use crate::context::{Ctx, Origin};
use crate::engine::{Engine, EngineOptions};
use crate::error::CommandError;
use crate::keyspace::{DbIndex, Found, Locked, Records};
use crate::rdb::RecordShape;
use crate::snapshot::give_out;
use crate::time::UnixMillis;

/// What is written out at once, at least.
const POUR_BYTES: usize = 256 * 1024;
/// How long to wait before looking again whether files can be read.
const NAP: std::time::Duration = std::time::Duration::from_millis(2);

/// Where the data comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReloadFrom {
    /// From a snapshot that is made first.
    NewSnapshot,
    /// From the snapshot that is there.
    Snapshot,
    /// From the append-only file, with all that was journalled.
    Journal,
}

/// Why data was not read again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NotReloaded {
    /// A snapshot or a rewrite is being written, which cannot end while everything stands.
    Busy,
    /// This is wrong; the text is a reply.
    Failed(String),
}

/// What becomes of the data that is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Present {
    /// It goes.
    Replaced,
    /// It stays; what comes has other keys.
    Kept,
    /// It stays but for keys that come.
    Merged,
}

/// The data of an engine while everything stands.
pub struct StandingData<'d, 'e> {
    engine: &'e Engine,
    locked: &'d mut Locked<'e>,
}

impl StandingData<'_, '_> {
    /// The engine. Its data is locked: to ask it for a key now would wait for ever.
    pub fn engine(&self) -> &Engine {
        self.engine
    }

    /// Gives all keys out as they stand in an RDB file.
    pub fn pour<E>(&mut self, mut write: impl FnMut(&[u8]) -> Result<(), E>) -> Result<(), E> {
        let form = self.engine.record_form(RecordShape::Rdb);
        let (mut records, mut last_db, mut bytes) = (Records::default(), None, Vec::new());
        for db in 0..self.engine.databases() {
            for shard in self.locked.shards() {
                for entry in shard.live_entries(db as DbIndex, UnixMillis(0)) {
                    records.push(db as DbIndex, entry, &form);
                    if records.len() >= POUR_BYTES {
                        give_out(&mut records, &mut last_db, RecordShape::Rdb, &mut bytes);
                        write(&bytes)?;
                        bytes.clear();
                    }
                }
            }
        }
        give_out(&mut records, &mut last_db, RecordShape::Rdb, &mut bytes);
        write(&bytes)
    }
}

impl Engine {
    /// An engine without data that is configured like this one.
    #[must_use]
    pub fn new_like(&self) -> Self {
        let options = EngineOptions { shards: self.keyspace.shards(), config: (*self.config()).clone() };
        Self::new(&options, Arc::clone(&self.clock))
    }
}

/// Reads the data again. Every shard has to be locked; they are released for a while if there is something to wait for.
pub(crate) fn reload(ctx: &mut Ctx<'_, '_>, from: ReloadFrom, present: Present) -> Result<(), CommandError> {
    let loaded = loop {
        let mut data = StandingData { engine: ctx.engine, locked: ctx.locked };
        match ctx.engine.hosts.reload(from, &mut data) {
            Some(Ok(loaded)) => break loaded,
            Some(Err(NotReloaded::Busy)) if ctx.origin == Origin::Client => {
                let keyspace = ctx.locked.keyspace();
                *ctx.locked = Locked::none(keyspace);
                std::thread::sleep(NAP);
                *ctx.locked = keyspace.lock_all_unless_busy().ok_or(CommandError::BUSY)?;
            }
            Some(Err(NotReloaded::Busy)) => {
                return Err(CommandError::new("ERR Background save already in progress"));
            }
            Some(Err(NotReloaded::Failed(text))) => return Err(CommandError::new(text)),
            None => {
                return Err(CommandError::new("ERR this engine keeps no files: there is nothing to load"));
            }
        }
    };
    adopt(ctx, &loaded, present)
}

/// Puts the keys of another engine here.
fn adopt(ctx: &mut Ctx<'_, '_>, loaded: &Engine, present: Present) -> Result<(), CommandError> {
    let engine = ctx.engine;
    if present == Present::Kept && has_common_key(ctx, loaded) {
        return Err(CommandError::new("ERR Error trying to load the RDB dump, check server logs."));
    }
    if present == Present::Replaced {
        for db in 0..engine.databases() {
            ctx.clear_database(db as DbIndex);
        }
        ctx.flushed();
    }
    for number in 0..loaded.keyspace.shards() {
        let mut from = loaded.keyspace.lock_one(number);
        for db in 0..engine.databases() as DbIndex {
            for entry in from.shard(number).clear(db).into_entries() {
                let hash = engine.keyspace.hash(entry.key());
                let shard = ctx.locked.shard(engine.keyspace.shard_of(hash));
                if let Some(old) = shard.put(db, hash, entry) {
                    ctx.discard(old);
                }
            }
        }
    }
    Ok(())
}

fn has_common_key(ctx: &mut Ctx<'_, '_>, loaded: &Engine) -> bool {
    let keyspace = &ctx.engine.keyspace;
    (0..loaded.keyspace.shards()).any(|number| {
        let mut from = loaded.keyspace.lock_one(number);
        (0..ctx.engine.databases() as DbIndex).any(|db| {
            from.shard(number).live_entries(db, UnixMillis(0)).any(|entry| {
                let hash = keyspace.hash(entry.key());
                let shard = ctx.locked.shard(keyspace.shard_of(hash));
                shard.find_live(db, hash, entry.key(), UnixMillis(0)) != Found::Absent
            })
        })
    })
}
