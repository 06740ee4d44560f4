//! The journal: told of every write, in the order in which it takes effect.
//!
//! The engine calls [`Journal::append`] while it still holds the locks of the shards that changed, so an implementation
//! must only copy the bytes away. What is appended is the effect, not the request: relative expiries have become
//! absolute ones, random choices have become removals by name, a script has become the writes it made.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use crate::keyspace::DbIndex;

/// A position in the journal, in bytes since the engine was opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Lsn(pub u64);

/// One atomic group of writes.
#[derive(Debug, Clone, Copy)]
pub enum Commands<'a> {
    /// One command, as its arguments.
    Args(&'a [&'a [u8]]),
    /// One or more commands as RESP arrays. A group of several starts with `MULTI` and ends with `EXEC`; `SELECT`s
    /// inside it account for `last_db` differing from the first.
    Encoded {
        /// The RESP arrays.
        bytes: &'a [u8],
        /// The database that the last command ran in.
        last_db: DbIndex,
    },
}

/// Somebody who keeps the writes: persistence, later replication.
pub trait Journal: Send + Sync {
    /// Takes a group of writes that starts in database `db`, and says where the journal then ends. Called under shard
    /// locks: copies and returns, never blocks on I/O.
    fn append(&self, db: DbIndex, commands: Commands<'_>) -> Lsn;

    /// Whether writes can be kept at present. While not, the engine refuses them with `MISCONF`.
    fn accepts_writes(&self) -> bool;
}

/// The place of an engine's journal: it is attached once, and can be switched off and on.
#[derive(Default)]
pub(crate) struct JournalSlot {
    attached: OnceLock<Arc<dyn Journal>>,
    is_on: AtomicBool,
}

impl JournalSlot {
    /// The journal that writes go to, if they go to one.
    #[inline]
    pub(crate) fn get(&self) -> Option<&Arc<dyn Journal>> {
        if self.is_on.load(Ordering::Acquire) { self.attached.get() } else { None }
    }

    pub(crate) fn set(&self, journal: Arc<dyn Journal>) -> bool {
        let is_first = self.attached.set(journal).is_ok();
        self.is_on.store(true, Ordering::Release);
        is_first
    }

    pub(crate) fn switch(&self, on: bool) {
        self.is_on.store(on, Ordering::Release);
    }
}

/// The writes of one top-level command on their way to the journal.
#[derive(Debug, Default)]
pub(crate) struct Effects {
    bytes: Vec<u8>,
    count: usize,
    first_db: Option<DbIndex>,
    last_db: DbIndex,
    /// The command was cut off in the middle: a part of its writes must not become a whole in the journal.
    is_void: bool,
}

/// An end of the writes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct EffectsMark {
    len: usize,
    count: usize,
    first_db: Option<DbIndex>,
    last_db: DbIndex,
}

/// A buffer that grew beyond this is given back instead of being kept for the next command.
const KEEP_CAPACITY: usize = 64 * 1024;

impl Effects {
    /// Whether there is nothing to do at the end of the command.
    pub(crate) fn is_empty(&self) -> bool {
        self.count == 0 && !self.is_void
    }

    /// Where the writes end at present, for [`cut`](Self::cut).
    pub(crate) fn mark(&self) -> EffectsMark {
        EffectsMark {
            len: self.bytes.len(),
            count: self.count,
            first_db: self.first_db,
            last_db: self.last_db,
        }
    }

    /// Takes back what has come since.
    pub(crate) fn cut(&mut self, mark: EffectsMark) {
        self.bytes.truncate(mark.len);
        (self.count, self.first_db, self.last_db) = (mark.count, mark.first_db, mark.last_db);
    }

    pub(crate) fn push(&mut self, db: DbIndex, args: &[&[u8]]) {
        if self.first_db.is_none() {
            self.first_db = Some(db);
        } else if self.last_db != db {
            let mut digits = itoa::Buffer::new();
            mtcache_protocol::encode_command(&[b"SELECT", digits.format(db).as_bytes()], &mut self.bytes);
        }
        self.last_db = db;
        mtcache_protocol::encode_command(args, &mut self.bytes);
        self.count += 1;
    }

    /// Gives up what has come, and what comes until the end of the top-level command.
    pub(crate) fn void(&mut self) {
        self.is_void = true;
    }

    /// Hands everything to the journal as one atomic group, and empties itself.
    pub(crate) fn flush(&mut self, journal: &dyn Journal) -> Option<Lsn> {
        const MULTI: &[u8] = b"*1\r\n$5\r\nMULTI\r\n";
        const EXEC: &[u8] = b"*1\r\n$4\r\nEXEC\r\n";
        if self.is_void {
            self.clear();
            return None;
        }
        let first = self.first_db.take()?;
        if self.count > 1 {
            self.bytes.splice(0..0, MULTI.iter().copied());
            self.bytes.extend_from_slice(EXEC);
        }
        let lsn = journal.append(first, Commands::Encoded { bytes: &self.bytes, last_db: self.last_db });
        self.clear();
        Some(lsn)
    }

    pub(crate) fn clear(&mut self) {
        self.bytes.clear();
        if self.bytes.capacity() > KEEP_CAPACITY {
            self.bytes = Vec::new();
        }
        self.count = 0;
        self.first_db = None;
        self.is_void = false;
    }
}
