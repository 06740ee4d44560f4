//! A shard's part in a snapshot that is taken while commands go on.
//!
//! At the cut the shard's epoch flips, which makes every entry old at one stroke. From there on an old entry is written once:
//! by the walk, which goes through the shard a few entries at a time, or just before something changes it, whichever comes
//! first; either makes it new. Entries that are made later are new from the start. So what is written is the data of the
//! cut, whatever happens meanwhile, and after the walk no entry is old. Deliberately absent: files, threads, waiting.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use super::DbIndex;
use super::db::Db;
use super::entry::Entry;
use super::shard::Shard;
use super::table::{Position, Slot};
use crate::rdb::{RecordForm, write_record};

/// What is shared between the shards of one snapshot and those who wait for it.
#[derive(Debug, Default)]
pub(crate) struct Room {
    /// Bytes that were written before a change and are not with the file yet.
    held: AtomicUsize,
    /// Nothing is written any more: the snapshot has failed.
    abandoned: AtomicBool,
}

impl Room {
    #[inline]
    pub(crate) fn held(&self) -> usize {
        self.held.load(Ordering::Relaxed)
    }

    pub(crate) fn is_abandoned(&self) -> bool {
        self.abandoned.load(Ordering::Relaxed)
    }

    pub(crate) fn set_abandoned(&self, abandoned: bool) {
        self.abandoned.store(abandoned, Ordering::Relaxed);
    }
}

/// Keys as they stand in a file, in runs of one database each.
#[derive(Debug, Default)]
pub(crate) struct Records {
    bytes: Vec<u8>,
    /// The database of each run and where it ends.
    runs: Vec<(DbIndex, usize)>,
}

impl Records {
    pub(crate) fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Hands the runs out in order, and empties itself.
    pub(crate) fn drain(&mut self, mut take: impl FnMut(DbIndex, &[u8])) {
        let mut from = 0;
        for (db, end) in self.runs.drain(..) {
            take(db, self.bytes.get(from..end).unwrap_or_default());
            from = end;
        }
        self.bytes.clear();
    }

    pub(crate) fn push(&mut self, db: DbIndex, entry: &Entry, form: &RecordForm) {
        write_record(entry, form, &mut self.bytes);
        let end = self.bytes.len();
        match self.runs.last_mut() {
            Some(run) if run.0 == db => run.1 = end,
            _ => self.runs.push((db, end)),
        }
    }

    fn append(&mut self, other: &mut Self) {
        let before = self.bytes.len();
        self.runs.extend(other.runs.drain(..).map(|(db, end)| (db, before + end)));
        self.bytes.append(&mut other.bytes);
        // What was held may have been much; it is not needed twice.
        *other = Self::default();
    }
}

/// Bytes of the longest string that is copied and written later; of a longer one, the copy would cost as much.
const COPIED_LEN: usize = 4096;

/// Short strings as the walk has met them, to be written without the shard's lock: to compress them takes far longer than
/// to copy them.
#[derive(Default)]
pub(crate) struct Copies {
    entries: Vec<(DbIndex, Entry)>,
    bytes: usize,
}

impl Copies {
    /// Takes a copy, if it is worth it.
    fn take(&mut self, db: DbIndex, entry: &Entry) -> bool {
        let Some(value) = entry.string_bytes().filter(|value| value.len() <= COPIED_LEN) else {
            return false;
        };
        self.bytes += entry.key().len() + value.len();
        self.entries.push((db, Entry::string(entry.key(), value, entry.expires_at(), entry.access())));
        true
    }

    /// Writes them, and is empty again.
    pub(crate) fn write(&mut self, form: &RecordForm, out: &mut Records) {
        for (db, entry) in self.entries.drain(..) {
            out.push(db, &entry, form);
        }
        self.bytes = 0;
    }
}

/// The state of a shard during a snapshot.
pub(crate) struct Capture {
    form: RecordForm,
    room: Arc<Room>,
    /// For each database, its number at the cut and where the walk goes on; `None` when it is through.
    places: Vec<(DbIndex, Option<Position>)>,
    /// Databases that were emptied before the walk was through with them.
    flushed: Vec<(DbIndex, Db)>,
    saved: Records,
}

/// How far one step has come.
pub(crate) enum Step {
    /// There is more to do here.
    More,
    /// The shard is through; what is left of databases that were emptied meanwhile, for the caller to write.
    Done(Option<Leftover>),
}

/// Databases that were emptied during a snapshot; nobody else sees them any more.
pub(crate) struct Leftover {
    dbs: Vec<(DbIndex, Db)>,
    epoch: bool,
    form: RecordForm,
}

impl Leftover {
    /// Writes the entries that are not written yet.
    pub(crate) fn write(&self, out: &mut Records) {
        for (number, db) in &self.dbs {
            for entry in db.entries().filter(|entry| entry.epoch() != self.epoch) {
                out.push(*number, entry, &self.form);
            }
        }
    }
}

impl Shard {
    /// Makes the cut. Called while every shard is locked, so that it is one moment for all of them.
    pub(crate) fn begin_capture(&mut self, form: RecordForm, room: &Arc<Room>) {
        self.epoch = !self.epoch;
        let places = (0..self.dbs.len()).map(|db| (db as DbIndex, Some(0))).collect();
        let (flushed, saved) = (Vec::new(), Records::default());
        self.capture = Some(Box::new(Capture { form, room: Arc::clone(room), places, flushed, saved }));
    }

    /// Writes an old entry that is about to change.
    #[cold]
    pub(super) fn save_before_change(&mut self, db: DbIndex, slot: Slot) {
        let Self { dbs, capture, epoch, .. } = self;
        let Some(capture) = capture else { return };
        let Some(entry) = dbs.get_mut(usize::from(db)).and_then(|db| db.get_mut(slot)) else { return };
        if entry.epoch() == *epoch {
            return;
        }
        entry.set_epoch(*epoch);
        if capture.room.is_abandoned() {
            return;
        }
        let number = capture.places.get(usize::from(db)).map_or(db, |place| place.0);
        let before = capture.saved.len();
        capture.saved.push(number, entry, &capture.form);
        capture.room.held.fetch_add(capture.saved.len() - before, Ordering::Relaxed);
    }

    /// Keeps a database that is being emptied until it is written. Gives it back if there is nothing to write of it.
    pub(super) fn keep_flushed(&mut self, db: DbIndex, cleared: Db) -> Db {
        let Some(capture) = &mut self.capture else { return cleared };
        match capture.places.get_mut(usize::from(db)) {
            Some((number, next @ Some(_))) => {
                *next = None;
                capture.flushed.push((*number, cleared));
                Db::default()
            }
            _ => cleared,
        }
    }

    /// Follows an exchange of two databases.
    pub(super) fn swap_captured(&mut self, a: DbIndex, b: DbIndex) {
        if let Some(capture) = &mut self.capture {
            capture.places.swap(usize::from(a), usize::from(b));
        }
    }

    /// Takes what was written before changes.
    pub(crate) fn take_saved(&mut self, out: &mut Records) {
        if let Some(capture) = &mut self.capture {
            capture.room.held.fetch_sub(capture.saved.len(), Ordering::Relaxed);
            out.append(&mut capture.saved);
        }
    }

    /// Writes what was saved before changes, and walks on until about `bytes` are there or `entries` have been seen.
    /// The caller writes the copies when it has released the shard.
    pub(crate) fn capture_some(
        &mut self,
        bytes: usize,
        entries: usize,
        out: &mut Records,
        copies: &mut Copies,
    ) -> Step {
        self.take_saved(out);
        let Self { dbs, capture, epoch, .. } = self;
        let Some(walked) = capture else { return Step::Done(None) };
        let is_abandoned = walked.room.is_abandoned();
        let mut seen = 0;
        let mut old = Vec::with_capacity(16);
        for (db, (number, next)) in dbs.iter_mut().zip(&mut walked.places) {
            while let Some(from) = *next {
                if seen >= entries || out.len() + copies.bytes >= bytes {
                    return Step::More;
                }
                *next = db.walk(from, |slot, entry| {
                    seen += 1;
                    if entry.epoch() != *epoch {
                        old.push(slot);
                        if !is_abandoned && !copies.take(*number, entry) {
                            out.push(*number, entry, &walked.form);
                        }
                    }
                });
                // A bucket without entries is a step as well.
                seen += 1;
                for slot in old.drain(..) {
                    if let Some(entry) = db.get_mut(slot) {
                        entry.set_epoch(*epoch);
                    }
                }
            }
        }
        let epoch = *epoch;
        Step::Done(capture.take().map(|done| Leftover { dbs: done.flushed, epoch, form: done.form }))
    }
}
