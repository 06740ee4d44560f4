//! Writes the append-only file: groups of commands at the end of the last increment, and syncs.
//!
//! The invariants: a file holds whole groups only, and a file of which a write or a sync has failed is never
//! appended to again. After such a failure everything is refused until a new increment has been started; the
//! bytes that were not durable are kept in memory until then, so that the new file begins with them and no
//! write is lost. Deliberately absent: threads, timers, and the decision when to sync.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use mtcache_engine::Lsn;

use super::beside::{self, Begun, Covers, PendingSync};
use super::checksum::push_group;
use super::files::AofFiles;
use super::rewrite::{BasePlace, NewBase, Rewrite};
use crate::disk::{Disk, DiskLock, WriteFile, append_all};
use crate::error::{Error, ErrorKind, Result};
use crate::journal_buffer::push_select;
use crate::manifest::{FileEntry, FileType, Manifest};
use crate::recover::AofOptions;

/// The end of the journal, open to be written.
#[derive(Debug)]
pub struct AofWriter {
    disk: Arc<dyn Disk>,
    dir: PathBuf,
    options: AofOptions,
    manifest: Manifest,
    file: Increment,
    /// The bytes in `file` after `file.synced_len`, and after a failure the group that could not be written.
    unsynced: Unsynced,
    /// The highest number that an increment may have on disk.
    last_seq: u64,
    /// Files that a failed attempt may have left behind.
    leftovers: Vec<String>,
    appended: Lsn,
    written: Lsn,
    synced: Lsn,
    failure: Option<String>,
    /// The first increment that the manifest on disk does not name yet: the first rewrite puts what is written there.
    detached_from: Option<u64>,
    /// Tells this writer from another of the same files: a rewrite bears the mark of the one that began it.
    mark: Arc<()>,
    /// The sync that runs beside, if its result has not been taken.
    begun: Option<Begun>,
    /// The highest number that a base may have on disk.
    last_base_seq: u64,
    /// The bytes of all files before the current one.
    earlier_bytes: u64,
    /// The bytes of all files at the end of the last rewrite, or of the base that was found.
    rewritten_bytes: u64,
    _lock: Box<dyn DiskLock>,
}

/// The increment that is written to.
#[derive(Debug)]
struct Increment {
    name: String,
    file: Box<dyn WriteFile>,
    /// Bytes, all of them complete groups.
    len: u64,
    /// Bytes that are known to be durable.
    synced_len: u64,
    /// Whether nothing has been appended since it was opened: the database in effect at its end is unknown.
    is_untouched: bool,
}

/// What stands in the file and is not known to be durable, in the order of the file.
#[derive(Debug, Default)]
struct Unsynced {
    groups: VecDeque<Group>,
    /// The bytes of all of them.
    len: usize,
}

/// A group as it stands in the file.
#[derive(Debug)]
struct Group {
    framed: Vec<u8>,
    /// The database in effect before it, `None` if it begins with a SELECT.
    db_before: Option<u32>,
}

impl Unsynced {
    fn push(&mut self, group: Group) -> &[u8] {
        self.len += group.framed.len();
        self.groups.push_back(group);
        self.groups.back().map(|group| group.framed.as_slice()).unwrap_or_default()
    }

    fn is_empty(&self) -> bool {
        self.groups.is_empty()
    }

    fn db_before(&self) -> Option<u32> {
        self.groups.front().and_then(|group| group.db_before)
    }

    /// Forgets the first so many bytes, whole groups.
    fn forget(&mut self, bytes: usize) {
        let mut left = bytes;
        while let Some(group) = self.groups.pop_front_if(|group| group.framed.len() <= left) {
            left -= group.framed.len();
            self.len -= group.framed.len();
        }
    }
}

impl AofWriter {
    /// Appends a group of complete commands and hands it to the operating system, in one piece if it takes it.
    ///
    /// `db_before` is the database in effect before the first of them, `None` if they begin with a SELECT. On
    /// success they survive the process, though not the machine. On failure the writer has failed, but the group
    /// is in its keeping: do not append it again. A writer that had failed before takes nothing.
    pub fn append(&mut self, group: &[u8], db_before: Option<u32>) -> Result<Lsn> {
        self.refuse_if_failed()?;
        if group.is_empty() {
            return Ok(self.written);
        }
        let select = select_of(db_before.filter(|_| self.file.is_untouched));
        let framed = frame_group(&select, group);
        self.appended.0 += group.len() as u64;
        let framed = self.unsynced.push(Group { framed, db_before });
        if let Err(error) = append_all(&mut *self.file.file, framed) {
            // Best effort: what was written of the group must not stay, but the file is given up in any case, and
            // a new one is not begun before this one has been cut off durably.
            let _ = self.file.file.truncate(self.file.len);
            return Err(self.fail("write to the AOF file", error));
        }
        self.file.len += framed.len() as u64;
        self.file.is_untouched = false;
        self.written = self.appended;
        if self.unsynced.len > self.options.max_unsynced_bytes {
            self.sync()?;
        }
        Ok(self.written)
    }

    /// Makes all that was appended durable.
    pub fn sync(&mut self) -> Result<Lsn> {
        self.refuse_if_failed()?;
        self.settle()?;
        if self.synced == self.written {
            return Ok(self.synced);
        }
        match self.file.file.sync_data() {
            Ok(()) => {
                let (len, lsn) = (self.file.len, self.written);
                self.note_synced(len, lsn);
                Ok(self.synced)
            }
            Err(error) => Err(self.fail_sync(error)),
        }
    }

    /// Prepares a sync of all that was appended so far, to be run on another thread while this one goes on
    /// appending; `None` if all of it is durable. There is one at a time: another one that runs is waited for.
    pub fn begin_sync(&mut self) -> Result<Option<PendingSync>> {
        self.refuse_if_failed()?;
        self.settle()?;
        if self.synced == self.written {
            return Ok(None);
        }
        match self.file.file.sync_handle() {
            Ok(file) => {
                let file_name = self.file.name.clone();
                let covers = Covers { file_name, len: self.file.len, lsn: self.written };
                let (begun, pending) = beside::begin(file, covers);
                self.begun = Some(begun);
                Ok(Some(pending))
            }
            Err(error) => Err(self.fail("sync the AOF file", error)),
        }
    }

    /// Takes the result of a prepared sync. One of a file that has been given up since changes nothing.
    pub fn finish_sync(&mut self, pending: &PendingSync, result: std::io::Result<()>) -> Result<Lsn> {
        self.refuse_if_failed()?;
        self.begun = None;
        self.take_result(&pending.covers, result)
    }

    fn take_result(&mut self, covers: &Covers, result: std::io::Result<()>) -> Result<Lsn> {
        if covers.file_name == self.file.name {
            match result {
                Ok(()) if covers.lsn > self.synced => self.note_synced(covers.len, covers.lsn),
                Ok(()) => {}
                Err(error) => return Err(self.fail_sync(error)),
            }
        }
        Ok(self.synced)
    }

    /// Learns what became of a sync that was begun, before another of the same file.
    fn settle(&mut self) -> Result<()> {
        let Some(begun) = self.begun.take() else { return Ok(()) };
        let covers = begun.covers.clone();
        match begun.settle() {
            Some(result) => self.take_result(&covers, result).map(drop),
            None => Ok(()),
        }
    }

    /// Ends the current increment and begins a new one. On a writer that has failed this is the way back: the old
    /// file is cut off after its last durable byte, and the new one begins with all that came after it.
    ///
    /// If it fails, a sound writer stays as it was where that is safe, and a failed one stays failed; try again
    /// when the cause may be gone.
    pub fn start_new_incr(&mut self) -> Result<()> {
        if self.failure.is_none() {
            self.sync()?;
        } else if let Err(error) = self.cut_off_old_file() {
            return Err(self.still_failed(error));
        }
        let name = format!("{}.{}.incr.aof", self.options.file_name, self.last_seq + 1);
        let mut next = match self.prepare_increment(&name) {
            Ok(next) => next,
            Err(error) => {
                // Nothing names it yet.
                let _ = self.disk.remove(&self.dir.join(&name));
                return Err(self.still_failed(error));
            }
        };
        let mut manifest = self.manifest.clone();
        manifest.incrs.push(FileEntry {
            name: name.clone(),
            seq: self.last_seq + 1,
            file_type: FileType::Incr,
        });
        if self.is_detached() {
            // What it replaces holds data that what is written does not go with.
        } else if let Err(store) = manifest.store(&*self.disk, &self.dir, &self.options.manifest_name()) {
            if store.may_have_replaced {
                // After a crash either manifest may be found. That names the new file as the last one, so the old
                // one must not be appended to; and the new one has to stay, under a number that is not used again.
                self.last_seq += 1;
                self.leftovers.push(name);
                self.failure.get_or_insert_with(|| in_short(&store.error));
            } else {
                let _ = self.disk.remove(&self.dir.join(&name));
            }
            return Err(self.still_failed(store.error));
        }
        self.last_seq += 1;
        self.manifest = manifest;
        self.earlier_bytes += self.file.synced_len;
        next.is_untouched = self.unsynced.is_empty();
        self.file = next;
        self.unsynced = Unsynced::default();
        // One that still runs is of the file before.
        self.begun = None;
        self.written = self.appended;
        self.synced = self.appended;
        self.failure = None;
        if !self.is_detached() {
            self.remove_leftovers();
        }
        Ok(())
    }

    /// Removes what a manifest might have named that can no longer be found.
    fn remove_leftovers(&mut self) {
        for leftover in std::mem::take(&mut self.leftovers) {
            let _ = self.disk.remove(&self.dir.join(leftover));
        }
    }

    /// Whether a write or a sync has failed, and nothing is accepted until [`AofWriter::start_new_incr`] succeeds.
    pub fn is_failed(&self) -> bool {
        self.failure.is_some()
    }

    /// What failed, in the operating system's words, as a MISCONF reply gives it.
    pub fn failure(&self) -> Option<&str> {
        self.failure.as_deref()
    }

    /// The end of what has been accepted.
    pub fn appended_lsn(&self) -> Lsn {
        self.appended
    }

    /// The end of what the operating system has: it survives the process.
    pub fn written_lsn(&self) -> Lsn {
        self.written
    }

    /// The end of what is durable: it survives the machine.
    pub fn synced_lsn(&self) -> Lsn {
        self.synced
    }

    /// The bytes of all files of the journal (`aof_current_size` of INFO).
    pub fn current_size(&self) -> u64 {
        self.earlier_bytes + self.file.len
    }

    /// The bytes of all files after the last rewrite; of the base file before the first (`aof_base_size` of INFO).
    pub fn base_size(&self) -> u64 {
        self.rewritten_bytes
    }

    /// Begins a rewrite: ends the current increment at the cut, which is here. The base that is to hold everything up to it
    /// can be written with [`BasePlace::create_base`] while the writer goes on.
    pub fn begin_rewrite(&mut self) -> Result<Rewrite> {
        self.refuse_if_failed()?;
        self.start_new_incr()?;
        Ok(Rewrite {
            of: Arc::clone(&self.mark),
            first_incr: self.last_seq,
            replaced_bytes: self.earlier_bytes,
        })
    }

    /// Where the bases of this journal are made.
    pub fn base_place(&self) -> BasePlace {
        let (disk, dir) = (Arc::clone(&self.disk), self.dir.clone());
        BasePlace { disk, dir, file_name: self.options.file_name.clone() }
    }

    /// Ends a rewrite: puts the base in the place of all that was written before the cut, in one durable step. What it
    /// replaces is to be removed by [`BasePlace::remove_history`] and then forgotten.
    ///
    /// If it fails, the journal is what it was before. It does for a rewrite that another writer has begun, be it of the
    /// same files: the numbers of its increments mean others here.
    pub fn finish_rewrite(&mut self, rewrite: &Rewrite, base: &NewBase) -> Result<Vec<String>> {
        self.replace_base(rewrite, base).inspect_err(|_| {
            // Its room may be what is missing; that it cannot be removed is no news.
            let _ = self.disk.remove(&base.path);
        })
    }

    fn replace_base(&mut self, rewrite: &Rewrite, base: &NewBase) -> Result<Vec<String>> {
        self.refuse_if_failed()?;
        if !Arc::ptr_eq(&rewrite.of, &self.mark) {
            return Err(Error::abandoned("it belongs to a journal that has ended"));
        }
        let (seq, suffix) = (self.last_base_seq + 1, base.suffix());
        let name = format!("{}.{seq}.base.{suffix}", self.options.file_name);
        let path = self.dir.join(&name);
        let io = |error| Error::io(format_args!("put the new AOF base {name} in place"), error);
        let named = self.disk.rename(&base.path, &path).map_err(io);
        if let Err(error) = named.and_then(|()| sync_dir(&*self.disk, &self.dir)) {
            let _ = self.disk.remove(&path);
            return Err(error);
        }
        let mut manifest = self.manifest.clone();
        let (kept, replaced) = manifest.incrs.drain(..).partition(|incr| incr.seq >= rewrite.first_incr);
        manifest.incrs = kept;
        let replaced = manifest.base.take().into_iter().chain(replaced);
        manifest.history.extend(replaced.map(|entry| FileEntry { file_type: FileType::History, ..entry }));
        manifest.base = Some(FileEntry { name: name.clone(), seq, file_type: FileType::Base });
        if let Err(store) = manifest.store(&*self.disk, &self.dir, &self.options.manifest_name()) {
            if store.may_have_replaced {
                // After a crash either manifest may be found, and both hold everything: none of their files may go.
                self.last_base_seq = seq;
                self.leftovers.push(name);
            } else {
                let _ = self.disk.remove(&path);
            }
            return Err(store.error);
        }
        self.last_base_seq = seq;
        self.manifest = manifest;
        self.detached_from = None;
        self.earlier_bytes = self.earlier_bytes.saturating_sub(rewrite.replaced_bytes) + base.len;
        self.rewritten_bytes = self.current_size();
        self.remove_leftovers();
        Ok(self.manifest.history.iter().map(|entry| entry.name.clone()).collect())
    }

    /// Takes removed files out of the manifest.
    pub fn forget_history(&mut self, removed: &[String]) -> Result<()> {
        if self.is_detached() {
            return Ok(());
        }
        let mut manifest = self.manifest.clone();
        manifest.history.retain(|entry| !removed.contains(&entry.name));
        manifest.store(&*self.disk, &self.dir, &self.options.manifest_name())?;
        self.manifest = manifest;
        Ok(())
    }

    /// The files, for somebody who reads them while nothing is appended.
    pub fn files(&self) -> Result<AofFiles> {
        self.refuse_if_failed()?;
        let (disk, dir) = (Arc::clone(&self.disk), self.dir.clone());
        let names = self.manifest.data_files().map(|entry| entry.name.clone()).collect();
        Ok(AofFiles { disk, dir, names, max_bulk_bytes: self.options.max_bulk_bytes })
    }

    /// Whether the manifest does not name what is written, and a start would not find it, before the first rewrite.
    pub fn is_detached(&self) -> bool {
        self.detached_from.is_some()
    }

    /// Gives up what was written, if the manifest does not name it.
    pub fn remove_if_detached(self) {
        let Some(from) = self.detached_from else { return };
        if !self.leftovers.is_empty() {
            // After a crash the manifest may be found that a rewrite has made, and it names them.
            return;
        }
        for incr in self.manifest.incrs.iter().filter(|incr| incr.seq >= from) {
            // What stays behind under this name is written over the next time.
            let _ = self.disk.remove(&self.dir.join(&incr.name));
        }
    }

    /// The manifest as it is on disk, or as the first rewrite is to make it.
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// Takes over a directory that has been replayed: the last increment of `manifest`, or a new one.
    pub(crate) fn open(parts: WriterParts) -> Result<Self> {
        let WriterParts {
            disk,
            dir,
            options,
            mut manifest,
            base_bytes,
            data_bytes,
            is_detached,
            begin,
            lock,
        } = parts;
        let may_be_new = manifest.incrs.is_empty() || is_detached;
        if may_be_new {
            // What has been replaced may still be there, or be on its way out, under its number.
            let history = manifest.history.iter().filter(|entry| entry.name.contains(".incr."));
            let seq =
                manifest.incrs.iter().chain(history).map(|entry| entry.seq).max().unwrap_or_default() + 1;
            let name = format!("{}.{seq}.incr.aof", options.file_name);
            manifest.incrs.push(FileEntry { name, seq, file_type: FileType::Incr });
        }
        let last = manifest.incrs.last().ok_or_else(|| Error::new(ErrorKind::Manifest, "no increment"))?;
        let (name, last_seq) = (last.name.clone(), last.seq);
        let file = open_increment(&*disk, &dir, &name, may_be_new)
            .map_err(|error| Error::io(format_args!("open the AOF file {name}"), error))?;
        if may_be_new {
            // The file's name is durable before the manifest that has it.
            sync_dir(&*disk, &dir)?;
            if !is_detached {
                manifest.store(&*disk, &dir, &options.manifest_name())?;
            }
        }
        // A file that has been replaced may still be there under its number.
        let bases = manifest.base.iter().chain(&manifest.history);
        let last_base_seq = bases.map(|entry| entry.seq).max().unwrap_or_default();
        Ok(Self {
            earlier_bytes: data_bytes.saturating_sub(file.len),
            disk,
            dir,
            options,
            manifest,
            file,
            unsynced: Unsynced::default(),
            last_seq,
            leftovers: Vec::new(),
            appended: begin,
            written: begin,
            synced: begin,
            failure: None,
            detached_from: is_detached.then_some(last_seq),
            mark: Arc::new(()),
            begun: None,
            last_base_seq,
            rewritten_bytes: base_bytes,
            _lock: lock,
        })
    }

    fn refuse_if_failed(&self) -> Result<()> {
        match &self.failure {
            Some(failure) => Err(Error::new(
                ErrorKind::Failed,
                format!(
                    "nothing is written to the AOF since a failure ({failure}) until a new file has been begun"
                ),
            )),
            None => Ok(()),
        }
    }

    fn fail(&mut self, what: &str, error: std::io::Error) -> Error {
        let error = Error::io(format_args!("{what} {}", self.file.name), error);
        self.failure = Some(in_short(&error));
        error
    }

    fn fail_sync(&mut self, error: std::io::Error) -> Error {
        // The system may show bytes from now on that it will never bring to the disk, and say that they are synced. A
        // process that comes after this one must not take them for data and go on behind them.
        let _ = self.file.file.truncate(self.file.synced_len);
        self.file.len = self.file.synced_len;
        self.fail("sync the AOF file", error)
    }

    /// Remembers the latest cause, if the writer had failed before.
    fn still_failed(&mut self, error: Error) -> Error {
        if let Some(failure) = &mut self.failure {
            *failure = in_short(&error);
        }
        error
    }

    fn note_synced(&mut self, len: u64, lsn: Lsn) {
        self.unsynced.forget(len.saturating_sub(self.file.synced_len) as usize);
        self.file.synced_len = len;
        self.synced = lsn;
    }

    /// Makes it durable that the old file ends after what was durable of it.
    fn cut_off_old_file(&mut self) -> Result<()> {
        let cut = |error| Error::io(format_args!("cut off the AOF file {}", self.file.name), error);
        // Opened again: an error that was reported to the old descriptor is not reported to this one.
        let mut file = self.disk.open_append(&self.dir.join(&self.file.name)).map_err(cut)?;
        file.truncate(self.file.synced_len).map_err(cut)?;
        file.sync_all().map_err(cut)
    }

    /// Makes the next increment, durable with its name, and with what is not durable elsewhere.
    fn prepare_increment(&self, name: &str) -> Result<Increment> {
        let io = |error| Error::io(format_args!("begin the AOF file {name}"), error);
        let mut file = self.disk.create(&self.dir.join(name)).map_err(io)?;
        let select = select_of(self.unsynced.db_before());
        let begin = if select.is_empty() { Vec::new() } else { frame_group(&select, b"") };
        append_all(&mut *file, &begin).map_err(io)?;
        for group in &self.unsynced.groups {
            append_all(&mut *file, &group.framed).map_err(io)?;
        }
        file.sync_all().map_err(io)?;
        sync_dir(&*self.disk, &self.dir)?;
        let len = (begin.len() + self.unsynced.len) as u64;
        Ok(Increment { name: name.to_owned(), file, len, synced_len: len, is_untouched: true })
    }
}

/// The cause as strerror says it, without the number that Rust adds.
fn in_short(error: &Error) -> String {
    let text = error.io_error().map_or_else(|| error.to_string(), ToString::to_string);
    text.split(" (os error").next().unwrap_or_default().to_owned()
}

/// What a writer begins with.
pub(crate) struct WriterParts {
    pub(crate) disk: Arc<dyn Disk>,
    pub(crate) dir: PathBuf,
    pub(crate) options: AofOptions,
    pub(crate) manifest: Manifest,
    pub(crate) base_bytes: u64,
    pub(crate) data_bytes: u64,
    /// Whether the manifest is not to be touched before the first rewrite.
    pub(crate) is_detached: bool,
    /// The position in the logical journal that writing goes on from.
    pub(crate) begin: Lsn,
    pub(crate) lock: Box<dyn DiskLock>,
}

fn open_increment(disk: &dyn Disk, dir: &Path, name: &str, is_new: bool) -> std::io::Result<Increment> {
    let path = dir.join(name);
    let mut file = if is_new { disk.create(&path)? } else { disk.open_append(&path)? };
    // What was replayed may have come from memory: the process before this one need not have synced it. Clients
    // see it from now on, so it has to last.
    file.sync_all()?;
    let len = file.len()?;
    Ok(Increment { name: name.to_owned(), file, len, synced_len: len, is_untouched: true })
}

pub(crate) fn sync_dir(disk: &dyn Disk, dir: &Path) -> Result<()> {
    disk.sync_dir(dir).map_err(|error| Error::io(format_args!("sync the directory {}", dir.display()), error))
}

/// The one place that decides what stands in the file for a group of commands: they themselves, after a line with their
/// checksum that does not count as part of the logical journal.
fn frame_group(select: &[u8], group: &[u8]) -> Vec<u8> {
    let mut framed = Vec::new();
    push_group(&mut framed, [select, group]);
    framed
}

/// Says which database is in effect, at the beginning of a file or after an unknown one.
fn select_of(db: Option<u32>) -> Vec<u8> {
    let mut select = Vec::new();
    if let Some(db) = db {
        push_select(&mut select, db);
    }
    select
}
