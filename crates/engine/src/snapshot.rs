//! Snapshots: all keys as they are at one moment, written while commands go on.
//!
//! [`Engine::begin_snapshot`] makes the cut under all locks, which is brief whatever there is; [`Snapshot::next`] is then
//! called again and again by whoever writes the file, and holds one lock at a time for a few entries. What is about to change
//! is written first, into memory that is bounded: a write waits when [`MAX_SAVED_BYTES`] wait for the file, and a file that
//! takes nothing for [`PATIENCE`] fails the snapshot, not the writes.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use crate::engine::Engine;
use crate::keyspace::{Copies, DbIndex, Locked, Records, Step};
use crate::rdb::{AccessForm, RecordForm, RecordShape, opcode, write_length};

/// Bytes that are saved before changes and not with the file yet, at most; a single large value may go beyond. Default: 64 MiB.
pub const MAX_SAVED_BYTES: usize = 64 * 1024 * 1024;
/// How long a write waits for a file that takes nothing before the snapshot is given up. Its worker waits with it. Default: 1 s.
const PATIENCE: Duration = Duration::from_secs(1);
const NAP: Duration = Duration::from_millis(1);
/// What one step writes and sees under a shard's lock.
const STEP_BYTES: usize = 64 * 1024;
const STEP_ENTRIES: usize = 256;

/// How far a snapshot has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Progress {
    /// There is more.
    More,
    /// All keys have been given out.
    Done,
    /// It was given up, because the file took too long; what was given out is not whole.
    Abandoned,
}

/// A snapshot that is being written. Dropped before its end, it is given up.
pub struct Snapshot {
    engine: Arc<Engine>,
    form: RecordForm,
    shard: usize,
    last_db: Option<DbIndex>,
    records: Records,
    copies: Copies,
    is_done: bool,
}

impl Engine {
    /// Makes the cut, and runs `at_cut` in that moment, while nothing can change. `None` while another snapshot is written.
    /// The caller holds no lock of the keyspace.
    pub fn begin_snapshot(self: &Arc<Self>, at_cut: impl FnOnce()) -> Option<Snapshot> {
        self.begin_snapshot_as(RecordShape::Rdb, at_cut)
    }

    /// As [`begin_snapshot`](Self::begin_snapshot), but `None` also while a script takes too long: for a thread that serves
    /// clients, who could not end the script while it waits.
    pub fn begin_snapshot_at_once(self: &Arc<Self>) -> Option<Snapshot> {
        self.start_capture()?;
        let Some(locked) = self.keyspace.lock_all_unless_busy() else {
            self.is_capturing.store(false, Ordering::Release);
            return None;
        };
        Some(self.cut(locked, RecordShape::Rdb, || {}))
    }

    /// As [`begin_snapshot`](Self::begin_snapshot), in another shape.
    pub fn begin_snapshot_as(
        self: &Arc<Self>,
        shape: RecordShape,
        at_cut: impl FnOnce(),
    ) -> Option<Snapshot> {
        self.start_capture()?;
        Some(self.cut(self.keyspace.lock_all(), shape, at_cut))
    }

    fn start_capture(&self) -> Option<()> {
        (!self.is_capturing.swap(true, Ordering::AcqRel)).then_some(())
    }

    fn cut(self: &Arc<Self>, mut locked: Locked<'_>, shape: RecordShape, at_cut: impl FnOnce()) -> Snapshot {
        let form = self.record_form(shape);
        // A write that waited for the snapshot before this one may have given it up when it had ended.
        self.room.set_abandoned(false);
        for shard in locked.shards() {
            shard.begin_capture(form, &self.room);
        }
        at_cut();
        drop(locked);
        let (records, copies) = (Records::default(), Copies::default());
        Snapshot { engine: Arc::clone(self), form, shard: 0, last_db: None, records, copies, is_done: false }
    }

    /// How keys are written now.
    pub(crate) fn record_form(&self, shape: RecordShape) -> RecordForm {
        let policy = self.settings.policy();
        RecordForm {
            limits: self.settings.encoding_limits(),
            compression: self.settings.rdb_compression(),
            now: self.now(),
            access: match policy.reads_access_records() {
                false => AccessForm::Left,
                true if policy.is_lfu() => AccessForm::Counter(self.settings.lfu()),
                true => AccessForm::Idle,
            },
            shape,
        }
    }

    /// Lets a write wait until there is room for what it may have to save first. Called without locks.
    #[inline]
    pub(crate) fn await_snapshot(&self) {
        if self.room.held() > MAX_SAVED_BYTES {
            self.await_room();
        }
    }

    #[cold]
    fn await_room(&self) {
        let (mut waited, mut least) = (Duration::ZERO, usize::MAX);
        loop {
            let held = self.room.held();
            if held <= MAX_SAVED_BYTES || self.room.is_abandoned() {
                return;
            }
            if held < least {
                // The file takes something, so it is not given up.
                (waited, least) = (Duration::ZERO, held);
            }
            if waited >= PATIENCE {
                self.room.set_abandoned(true);
                return;
            }
            std::thread::sleep(NAP);
            waited += NAP;
        }
    }

    /// Changes of keys since the engine was made, but for those of commands that run now.
    pub fn changes(&self) -> u64 {
        self.keyspace.changes() + self.other_changes.load(Ordering::Relaxed)
    }
}

impl Snapshot {
    /// Appends keys to `out`, as they stand in an RDB file, or as commands.
    pub fn next(&mut self, out: &mut Vec<u8>) -> Progress {
        if self.engine.room.is_abandoned() {
            return Progress::Abandoned;
        }
        if self.engine.room.held() > MAX_SAVED_BYTES / 8 {
            self.collect_saved();
        } else {
            self.step(STEP_BYTES);
        }
        give_out(&mut self.records, &mut self.last_db, self.form.shape, out);
        if self.is_done { Progress::Done } else { Progress::More }
    }

    /// Takes what has been saved before changes in shards that the walk has not come to.
    fn collect_saved(&mut self) {
        for number in self.shard..self.engine.keyspace.shards() {
            self.engine.keyspace.lock_one(number).shard(number).take_saved(&mut self.records);
        }
    }

    fn step(&mut self, bytes: usize) {
        let Self { engine, form, shard: number, records, copies, .. } = self;
        if *number >= engine.keyspace.shards() {
            self.end();
            return;
        }
        let step = {
            let mut locked = engine.keyspace.lock_one(*number);
            locked.shard(*number).capture_some(bytes, STEP_ENTRIES, records, copies)
        };
        copies.write(form, records);
        if let Step::Done(leftover) = step {
            *number += 1;
            if let Some(leftover) = leftover.filter(|_| !engine.room.is_abandoned()) {
                leftover.write(records);
            }
            if *number >= engine.keyspace.shards() {
                self.end();
            }
        }
    }

    fn end(&mut self) {
        if !self.is_done {
            self.is_done = true;
            self.engine.room.set_abandoned(false);
            self.engine.is_capturing.store(false, Ordering::Release);
        }
    }
}

/// Hands records over with the databases that they are in, and empties them.
pub(crate) fn give_out(
    records: &mut Records,
    last_db: &mut Option<DbIndex>,
    shape: RecordShape,
    out: &mut Vec<u8>,
) {
    records.drain(|db, bytes| {
        if *last_db != Some(db) {
            match shape {
                RecordShape::Rdb => {
                    out.push(opcode::SELECT_DB);
                    write_length(u64::from(db), out);
                }
                RecordShape::Commands => {
                    let mut digits = itoa::Buffer::new();
                    mtcache_protocol::encode_command(&[b"SELECT", digits.format(db).as_bytes()], out);
                }
            }
            *last_db = Some(db);
        }
        out.extend_from_slice(bytes);
    });
}

impl Drop for Snapshot {
    fn drop(&mut self) {
        // Every entry has to be met, so that the next snapshot finds them all alike; nothing is written any more.
        while !self.is_done {
            self.engine.room.set_abandoned(true);
            self.step(usize::MAX);
            self.records = Records::default();
        }
    }
}
