//! Opens a journal: finds its files, replays them, cuts off a torn tail, and goes on writing where it ended.
//!
//! Two steps, so that the caller can get ready for the commands in between: [`Aof::open`] takes the lock and
//! reads the manifest, [`Aof::replay`] hands every command on and returns the writer. A crash at any point of
//! either loses nothing: the next start finds the same commands. What is not understood is refused.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use mtcache_engine::Lsn;

use crate::aof::{AofWriter, Command, FileOutcome, Tail, Warnings, WriterParts, replay_file, sync_dir};
use crate::disk::{Disk, DiskLock, append_all};
use crate::error::{Error, ErrorKind, Result};
use crate::manifest::{FileEntry, FileType, Manifest};
use crate::rdb::empty_rdb;
use crate::receiver::{CommandsOnly, Receiver};

/// What to do with a last file that ends in the middle of a command (`aof-load-truncated`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TornTail {
    /// Cut the incomplete end off and go on. The default, as in Redis (`yes`).
    #[default]
    CutOff,
    /// Refuse to start (`no`).
    Refuse,
}

/// The form of the base of a new journal (`aof-use-rdb-preamble`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum BaseForm {
    /// An RDB file. The default, as in Redis (`yes`).
    #[default]
    Rdb,
    /// Commands (`no`).
    Aof,
}

/// How a journal is kept.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct AofOptions {
    /// The directory's name within `dir` (`appenddirname`). Default: `appendonlydir`.
    pub dir_name: String,
    /// What the names of all its files begin with (`appendfilename`). Default: `appendonly.aof`.
    pub file_name: String,
    /// What to do with a torn tail. Default: cut it off.
    pub torn_tail: TornTail,
    /// The form of a new base. Default: RDB.
    pub base_form: BaseForm,
    /// Bytes that are written but not synced, at most; more of them cause a sync, whatever the fsync policy. They
    /// are kept in memory, to be written again should the sync fail. Default: 64 MiB.
    pub max_unsynced_bytes: usize,
    /// The longest string that is taken for sound when read (`proto-max-bulk-len`), in bytes. Default: 512 MiB.
    pub max_bulk_bytes: usize,
}

impl Default for AofOptions {
    fn default() -> Self {
        Self {
            dir_name: "appendonlydir".into(),
            file_name: "appendonly.aof".into(),
            torn_tail: TornTail::default(),
            base_form: BaseForm::default(),
            max_unsynced_bytes: 64 * 1024 * 1024,
            max_bulk_bytes: 512 * 1024 * 1024,
        }
    }
}

impl AofOptions {
    pub(crate) fn manifest_name(&self) -> String {
        format!("{}.manifest", self.file_name)
    }
}

/// What was cut off the end of the last file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CutOff {
    /// The file's name.
    pub file: String,
    /// Its length now, in bytes.
    pub offset: u64,
    /// How many bytes were cut off.
    pub bytes: u64,
    /// What they were.
    pub reason: &'static str,
}

/// What a replay found.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct ReplayReport {
    /// The files that were read.
    pub files: usize,
    /// The commands that were handed on.
    pub commands: u64,
    /// The keys of a snapshot that were handed on.
    pub keys: u64,
    /// The bytes that were read, without what was cut off.
    pub bytes: u64,
    /// What was cut off the end.
    pub cut_off: Option<CutOff>,
    /// Whether the single file of a Redis before 7 was taken into the directory.
    pub is_upgraded: bool,
    /// Oddities for the log, a bounded number.
    pub warnings: Vec<String>,
}

/// A journal that is locked and whose files are known, but not read yet.
#[derive(Debug)]
pub struct Aof {
    disk: Arc<dyn Disk>,
    dir: PathBuf,
    options: AofOptions,
    manifest: Manifest,
    is_upgraded: bool,
    lock: Box<dyn DiskLock>,
}

impl Aof {
    /// Opens the journal in `dir`, which must be there; the journal need not.
    ///
    /// Fails with [`ErrorKind::Locked`] while another process has it open. An `appendonly.aof` in `dir`, as
    /// Redis before 7 wrote it, is taken into the directory as its base.
    pub fn open(disk: Arc<dyn Disk>, dir: &Path, options: AofOptions) -> Result<Self> {
        check_name("appenddirname", &options.dir_name)?;
        check_name("appendfilename", &options.file_name)?;
        let aof_dir = dir.join(&options.dir_name);
        disk.create_dir(&aof_dir)
            .map_err(|error| Error::io(format_args!("make the directory {}", aof_dir.display()), error))?;
        sync_dir(&*disk, dir)?;
        let lock = lock(&*disk, &aof_dir, &options)?;
        let name = options.manifest_name();
        let manifest = Manifest::load(&*disk, &aof_dir, &name)?.unwrap_or_default();
        // The process before this one may have died after it had replaced it, and before that was durable.
        sync_dir(&*disk, &aof_dir)?;
        let mut aof = Self { disk, dir: aof_dir, options, manifest, is_upgraded: false, lock };
        aof.upgrade(dir)?;
        Ok(aof)
    }

    /// The files, as the manifest names them.
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// Whether there is nothing to replay.
    pub fn is_new(&self) -> bool {
        self.manifest.has_no_data()
    }

    /// The bytes that a replay will read, for a progress display.
    pub fn bytes_to_replay(&self) -> Result<u64> {
        self.manifest.data_files().map(|entry| self.file_len(&entry.name)).sum()
    }

    /// As [`replay_into`](Self::replay_into), for a journal of commands alone: a snapshot with keys is refused.
    pub fn replay(
        self,
        on_command: impl FnMut(Command<'_>) -> Result<(), String>,
    ) -> Result<(AofWriter, ReplayReport)> {
        self.replay_into(&mut CommandsOnly(on_command))
    }

    /// Hands everything on, in order, and goes on as the writer of the journal.
    ///
    /// If the receiver refuses something, or a file is damaged, nothing on disk has been changed.
    pub fn replay_into(self, receiver: &mut dyn Receiver) -> Result<(AofWriter, ReplayReport)> {
        let mut warnings = Warnings::default();
        let mut report = ReplayReport { is_upgraded: self.is_upgraded, ..ReplayReport::default() };
        // All of them, before the first command is handed on: a missing one is found now.
        self.bytes_to_replay()?;
        let count = self.manifest.data_files().count();
        for (at, entry) in self.manifest.data_files().enumerate() {
            let file = self.disk.open_read(&self.dir.join(&entry.name));
            let file = file.map_err(|error| Error::io(format_args!("read {}", entry.name), error))?;
            let limit = self.options.max_bulk_bytes;
            let outcome = replay_file(file, &entry.name, limit, &mut warnings, receiver)?;
            report.cut_off = self.end_of_file(&entry.name, outcome, at + 1 == count)?;
            report.files += 1;
            report.commands += outcome.commands;
            report.keys += outcome.keys;
            report.bytes += if report.cut_off.is_some() { outcome.valid_up_to } else { outcome.len };
        }
        let data_bytes = report.bytes;
        let writer = self.begin_writing(data_bytes, &mut warnings)?;
        report.warnings = warnings.into_texts();
        Ok((writer, report))
    }

    /// Judges how a file ended, and cuts its incomplete end off where that is allowed.
    fn end_of_file(&self, name: &str, outcome: FileOutcome, is_last: bool) -> Result<Option<CutOff>> {
        let FileOutcome { len, valid_up_to, tail, .. } = outcome;
        let how = tail.describe();
        match tail {
            Tail::Clean => return Ok(None),
            // It holds no command. In the last file it must go all the same: what is appended would become part of
            // the line and be ignored with it.
            Tail::TornAnnotation if !is_last => return Ok(None),
            Tail::TornAnnotation => {}
            _ if !is_last => {
                let message = format!(
                    "the AOF file {name} is incomplete ({how}, after offset {valid_up_to}), and it is not the last \
                     one: commands between it and the next are missing; restore the directory from a backup, or cut \
                     it off with `mtcache check-aof --fix` to go on without them"
                );
                return Err(Error::new(ErrorKind::Damaged, message).at(valid_up_to, valid_up_to));
            }
            _ if self.options.torn_tail == TornTail::Refuse => {
                let message = format!(
                    "the AOF file {name} is incomplete: {how}, after offset {valid_up_to}; make a backup of it, then \
                     set aof-load-truncated to yes and start again, or cut it off with `mtcache check-aof --fix`"
                );
                return Err(Error::new(ErrorKind::Truncated, message).at(valid_up_to, valid_up_to));
            }
            _ => {}
        }
        cut_off(&*self.disk, &self.dir.join(name), valid_up_to)?;
        Ok(Some(CutOff { file: name.to_owned(), offset: valid_up_to, bytes: len - valid_up_to, reason: how }))
    }

    fn begin_writing(mut self, data_bytes: u64, warnings: &mut Warnings) -> Result<AofWriter> {
        let mut base_bytes = 0;
        let mut data_bytes = data_bytes;
        if self.manifest.has_no_data() {
            base_bytes = self.make_base()?;
            data_bytes = base_bytes;
        } else if let Some(base) = &self.manifest.base {
            base_bytes = self.file_len(&base.name)?;
            if self.manifest.incrs.is_empty() {
                // It will not be the last one any more. What was read of it, and that it ends there, need not be durable
                // yet: the process before this one may have died over cutting it off.
                let file =
                    self.disk.open_append(&self.dir.join(&base.name)).and_then(|mut file| file.sync_all());
                file.map_err(|error| Error::io(format_args!("sync the AOF file {}", base.name), error))?;
            }
        }
        self.remove_history(warnings);
        AofWriter::open(WriterParts {
            disk: self.disk,
            dir: self.dir,
            options: self.options,
            manifest: self.manifest,
            base_bytes,
            data_bytes,
            is_detached: false,
            begin: Lsn::default(),
            lock: self.lock,
        })
    }

    /// Begins to write, from `begin` on, without a replay: for data that is in memory already, and not what the files hold.
    /// They stay what a start would load until a rewrite, which has to follow, has put its base in their place.
    pub fn begin_anew(self, begin: Lsn) -> Result<AofWriter> {
        AofWriter::open(WriterParts {
            disk: self.disk,
            dir: self.dir,
            options: self.options,
            manifest: self.manifest,
            base_bytes: 0,
            data_bytes: 0,
            is_detached: true,
            begin,
            lock: self.lock,
        })
    }

    /// Makes the base of a new journal. The writer stores the manifest, with the first increment in it.
    fn make_base(&mut self) -> Result<u64> {
        let (suffix, content) = match self.options.base_form {
            BaseForm::Rdb => ("rdb", empty_rdb()),
            BaseForm::Aof => ("aof", Vec::new()),
        };
        let name = format!("{}.1.base.{suffix}", self.options.file_name);
        let io = |error| Error::io(format_args!("make the AOF base file {name}"), error);
        let mut file = self.disk.create(&self.dir.join(&name)).map_err(io)?;
        append_all(&mut *file, &content).map_err(io)?;
        file.sync_all().map_err(io)?;
        self.manifest.base = Some(FileEntry { name, seq: 1, file_type: FileType::Base });
        Ok(content.len() as u64)
    }

    /// Removes what a rewrite has replaced. That it fails is no reason not to start.
    fn remove_history(&mut self, warnings: &mut Warnings) {
        if self.manifest.history.is_empty() {
            return;
        }
        let mut kept = Vec::new();
        for entry in std::mem::take(&mut self.manifest.history) {
            let path = self.dir.join(&entry.name);
            let removed = self.disk.remove(&path);
            if let Err(error) = removed
                && error.kind() != std::io::ErrorKind::NotFound
            {
                warnings.add(|| format!("the replaced AOF file {} cannot be removed: {error}", entry.name));
                kept.push(entry);
            }
        }
        self.manifest.history = kept;
        if let Err(store) = self.manifest.store(&*self.disk, &self.dir, &self.options.manifest_name()) {
            warnings.add(|| format!("replaced AOF files are still in the manifest: {}", store.error));
        }
    }

    /// Takes the single file of a Redis before 7 into the directory, under the conditions of Redis 7: when there
    /// is no journal there, or one that was begun by an upgrade that did not come to its end.
    fn upgrade(&mut self, dir: &Path) -> Result<()> {
        let name = self.options.file_name.clone();
        let (old, new) = (dir.join(&name), self.dir.join(&name));
        let look = |path: &Path| {
            let exists = self.disk.exists(path);
            exists.map_err(|error| Error::io(format_args!("look for {}", path.display()), error))
        };
        if !look(&old)? {
            return Ok(());
        }
        let is_begun = self.manifest.incrs.is_empty()
            && self.manifest.base.as_ref().is_some_and(|base| base.name == name)
            && !look(&new)?;
        if !self.manifest.has_no_data() && !is_begun {
            return Ok(());
        }
        if look(&new)? {
            let message = format!(
                "both {} and {} are there, and no manifest says which is meant; move one of them away",
                old.display(),
                new.display()
            );
            return Err(Error::new(ErrorKind::Manifest, message));
        }
        self.manifest.base = Some(FileEntry { name, seq: 1, file_type: FileType::Base });
        // First the manifest, then the file: found without the file, it says how to go on.
        self.manifest.store(&*self.disk, &self.dir, &self.options.manifest_name())?;
        let io = |error| Error::io(format_args!("move {} into {}", old.display(), self.dir.display()), error);
        self.disk.rename(&old, &new).map_err(io)?;
        sync_dir(&*self.disk, &self.dir)?;
        sync_dir(&*self.disk, dir)?;
        self.is_upgraded = true;
        Ok(())
    }

    fn file_len(&self, name: &str) -> Result<u64> {
        let file = self.disk.open_read(&self.dir.join(name));
        file.and_then(|file| file.len()).map_err(|error| {
            if error.kind() == std::io::ErrorKind::NotFound {
                let message = format!(
                    "the AOF file {name} is in the manifest but not in {}: restore it from a backup",
                    self.dir.display()
                );
                Error::new(ErrorKind::Manifest, message)
            } else {
                Error::io(format_args!("read the AOF file {name}"), error)
            }
        })
    }
}

/// Cuts a file off, durably: before anything is appended, so that the bytes do not come back in the middle.
pub(crate) fn cut_off(disk: &dyn Disk, path: &Path, len: u64) -> Result<()> {
    let cut = |error| Error::io(format_args!("cut off the end of {}", path.display()), error);
    let mut file = disk.open_append(path).map_err(cut)?;
    file.truncate(len).map_err(cut)?;
    file.sync_all().map_err(cut)
}

pub(crate) fn lock(disk: &dyn Disk, dir: &Path, options: &AofOptions) -> Result<Box<dyn DiskLock>> {
    let path = dir.join(format!("{}.lock", options.file_name));
    disk.lock(&path).map_err(|error| {
        if error.kind() == std::io::ErrorKind::WouldBlock {
            let message = format!(
                "{} is in use by another process: stop that one first, or choose another --dir",
                dir.display()
            );
            Error::new(ErrorKind::Locked, message)
        } else {
            Error::io(format_args!("lock {}", path.display()), error)
        }
    })
}

fn check_name(option: &str, name: &str) -> Result<()> {
    if matches!(name, "" | "." | "..") || name.contains(['/', '\\', '\0']) {
        let message = format!("{option} must be a plain name, not a path: {name:?} is none");
        return Err(Error::new(ErrorKind::Manifest, message));
    }
    Ok(())
}
