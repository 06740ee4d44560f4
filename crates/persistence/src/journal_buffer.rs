//! Commands on their way to the journal: many threads append, one takes all of them at once.
//!
//! Appending is a copy under one mutex, made while the locks of the data are held, so that the order here is the
//! order of effect. It never blocks and never fails; the bound is kept by asking for room before a command takes
//! effect, with no lock held ([`JournalBuffer::wait_for_room`]). Deliberately absent: files and threads.

use std::time::Duration;

use parking_lot::{Condvar, Mutex};

use crate::lsn::Lsn;

/// Buffers that have grown beyond this are not kept for reuse, in bytes.
const KEPT_CAPACITY: usize = 4 * 1024 * 1024;

/// The room of a buffer unless another is asked for: 64 MiB.
pub const DEFAULT_JOURNAL_BUFFER_BYTES: usize = 64 * 1024 * 1024;

/// Whether there is room for a write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Room {
    /// There is; go on.
    Available,
    /// There was none in all the time that was given.
    None,
    /// The buffer has been closed: nobody takes from it any more.
    Closed,
}

/// What was taken from the buffer.
#[derive(Debug, Default)]
pub struct Batch {
    /// Complete commands.
    pub bytes: Vec<u8>,
    /// The database in effect before the first of them; `None` if they begin with a SELECT (or are none).
    pub db_before: Option<u32>,
    /// The place in the logical journal after the last of them.
    pub end: Lsn,
}

/// The commands that no file has yet.
#[derive(Debug)]
pub struct JournalBuffer {
    state: Mutex<State>,
    /// Signalled when there is something to take, or the buffer is closed.
    filled: Condvar,
    /// Signalled when there is room again, or the buffer is closed.
    emptied: Condvar,
    limit: usize,
}

#[derive(Debug, Default)]
struct State {
    bytes: Vec<u8>,
    spare: Vec<u8>,
    db: Option<u32>,
    db_before: Option<u32>,
    end: Lsn,
    is_closed: bool,
}

impl JournalBuffer {
    /// A buffer that asks for patience from `limit` bytes on. It can hold more: the commands that had found room
    /// before it was full are all taken, one for each thread at most.
    pub fn new(limit: usize) -> Self {
        Self { state: Mutex::default(), filled: Condvar::new(), emptied: Condvar::new(), limit }
    }

    /// Appends one command that took effect in `db`, and a SELECT before it where that is another database than
    /// the last one's.
    pub fn append_args(&self, db: u32, args: &[&[u8]]) -> Lsn {
        self.append(db, db, |bytes| push_command(bytes, args))
    }

    /// Appends encoded commands, complete ones. The first of them takes effect in `first_db`; after the last of
    /// them `last_db` is in effect, which differs if there is a SELECT among them.
    pub fn append_encoded(&self, first_db: u32, last_db: u32, commands: &[u8]) -> Lsn {
        self.append(first_db, last_db, |bytes| bytes.extend_from_slice(commands))
    }

    /// The place after the last command appended.
    pub fn end(&self) -> Lsn {
        self.state.lock().end
    }

    /// The bytes waiting to be taken.
    pub fn len(&self) -> usize {
        self.state.lock().bytes.len()
    }

    /// Whether nothing waits to be taken.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Waits until there is room. To be asked before a write takes effect, and with no lock held.
    pub fn wait_for_room(&self, patience: Duration) -> Room {
        let mut state = self.state.lock();
        if state.bytes.len() >= self.limit && !state.is_closed {
            self.emptied.wait_while_for(
                &mut state,
                |state| state.bytes.len() >= self.limit && !state.is_closed,
                patience,
            );
        }
        if state.is_closed {
            Room::Closed
        } else if state.bytes.len() < self.limit {
            Room::Available
        } else {
            Room::None
        }
    }

    /// Waits until there is something to take; false if there was nothing in all the time that was given, or the
    /// buffer is closed and empty.
    pub fn wait_for_commands(&self, patience: Duration) -> bool {
        let mut state = self.state.lock();
        if state.bytes.is_empty() && !state.is_closed {
            self.filled.wait_while_for(
                &mut state,
                |state| state.bytes.is_empty() && !state.is_closed,
                patience,
            );
        }
        !state.bytes.is_empty()
    }

    /// Takes all that is there. Give the batch's bytes back with [`JournalBuffer::recycle`] when they are written.
    pub fn take(&self) -> Batch {
        let mut state = self.state.lock();
        let spare = std::mem::take(&mut state.spare);
        let bytes = std::mem::replace(&mut state.bytes, spare);
        let db_before = state.db_before;
        let end = state.end;
        drop(state);
        self.emptied.notify_all();
        Batch { bytes, db_before, end }
    }

    /// Takes a buffer back for reuse.
    pub fn recycle(&self, mut bytes: Vec<u8>) {
        bytes.clear();
        if bytes.capacity() <= KEPT_CAPACITY {
            self.state.lock().spare = bytes;
        }
    }

    /// Lets everyone who waits go on, for good. What is appended after is still kept to be taken.
    pub fn close(&self) {
        self.state.lock().is_closed = true;
        self.filled.notify_all();
        self.emptied.notify_all();
    }

    fn append(&self, first_db: u32, last_db: u32, push: impl FnOnce(&mut Vec<u8>)) -> Lsn {
        let mut state = self.state.lock();
        let State { bytes, db, db_before, .. } = &mut *state;
        let begin = bytes.len();
        if begin == 0 {
            *db_before = db.filter(|&db| db == first_db);
        }
        if *db != Some(first_db) {
            push_select(bytes, first_db);
        }
        push(bytes);
        *db = Some(last_db);
        let appended = bytes.len() - begin;
        state.end = state.end + appended;
        let end = state.end;
        drop(state);
        if begin == 0 {
            self.filled.notify_one();
        }
        end
    }
}

/// Appends a SELECT.
pub(crate) fn push_select(bytes: &mut Vec<u8>, db: u32) {
    push_command(bytes, &[b"SELECT", db.to_string().as_bytes()]);
}

/// Appends a command as an array of strings.
fn push_command(bytes: &mut Vec<u8>, args: &[&[u8]]) {
    mtcache_protocol::write_array_header(bytes, args.len());
    for arg in args {
        mtcache_protocol::write_bulk(bytes, arg);
    }
}
