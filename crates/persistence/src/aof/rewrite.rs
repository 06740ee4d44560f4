//! The base that a rewrite makes, while the writer goes on.
//!
//! The invariant: until the manifest names it, the base lies under a temporary name or under one that nothing reads, and
//! until then nothing that was there before is touched. Deliberately absent: where the keys come from, and threads.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::checksum::push_group;
use crate::disk::Disk;
use crate::error::Result;
use crate::manifest::TEMP_PREFIX;
use crate::rdb::{RdbOptions, RdbUse, RdbWriter};
use crate::recover::{AofOptions, BaseForm};

/// A rewrite that has begun: the journal has been cut, and what comes after the cut is in files of its own.
#[derive(Clone, Debug)]
pub struct Rewrite {
    /// The mark of the writer that began it.
    pub(super) of: Arc<()>,
    /// The first increment after the cut.
    pub(super) first_incr: u64,
    /// The bytes of all files before it.
    pub(super) replaced_bytes: u64,
}

/// Where the bases of a journal are made.
#[derive(Clone, Debug)]
pub struct BasePlace {
    pub(super) disk: Arc<dyn Disk>,
    pub(super) dir: PathBuf,
    pub(super) file_name: String,
}

/// A base that is complete and durable, under a temporary name.
#[derive(Debug)]
pub struct NewBase {
    pub(super) path: PathBuf,
    pub(super) len: u64,
    form: BaseForm,
}

impl NewBase {
    /// Its bytes.
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Whether it holds nothing: commands that make no keys.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    pub(super) fn suffix(&self) -> &'static str {
        match self.form {
            BaseForm::Rdb => "rdb",
            BaseForm::Aof => "aof",
        }
    }
}

/// A base that is being written. Dropped before its end, it is removed.
#[derive(Debug)]
pub struct BaseWriter {
    disk: Arc<dyn Disk>,
    path: PathBuf,
    form: BaseForm,
    file: Option<RdbWriter>,
    framed: Vec<u8>,
}

impl BasePlace {
    /// The place of the journal in `dir`.
    pub fn new(disk: Arc<dyn Disk>, dir: &Path, options: &AofOptions) -> Self {
        Self { disk, dir: dir.join(&options.dir_name), file_name: options.file_name.clone() }
    }

    /// Begins a base.
    pub fn create_base(&self, form: BaseForm, options: &RdbOptions) -> Result<BaseWriter> {
        let path = self.dir.join(format!("{TEMP_PREFIX}{}.base", self.file_name));
        let file = match form {
            BaseForm::Rdb => RdbWriter::create(&*self.disk, &path, RdbUse::BaseOfJournal, options)?,
            BaseForm::Aof => RdbWriter::create_bare(&*self.disk, &path)?,
        };
        Ok(BaseWriter { disk: Arc::clone(&self.disk), path, form, file: Some(file), framed: Vec::new() })
    }

    /// Removes files that have been replaced; the names of those that are gone.
    pub fn remove_history(&self, names: Vec<String>) -> Vec<String> {
        let mut removed = names;
        removed.retain(|name| match self.disk.remove(&self.dir.join(name)) {
            Ok(()) => true,
            Err(error) => error.kind() == std::io::ErrorKind::NotFound,
        });
        removed
    }
}

impl BaseWriter {
    /// Writes keys, or whole commands, as the engine has made them.
    pub fn append(&mut self, bytes: &[u8]) -> Result<()> {
        let Some(file) = &mut self.file else { return Ok(()) };
        if self.form == BaseForm::Rdb || bytes.is_empty() {
            return file.append(bytes);
        }
        self.framed.clear();
        push_group(&mut self.framed, [bytes, b""]);
        file.append(&self.framed)
    }

    /// Ends the base and makes it durable.
    pub fn finish(mut self) -> Result<NewBase> {
        let len = match (self.file.take(), self.form) {
            (Some(file), BaseForm::Rdb) => file.finish(),
            (Some(file), BaseForm::Aof) => file.finish_bare(),
            (None, _) => Ok(0),
        };
        let path = std::mem::take(&mut self.path);
        match len {
            Ok(len) => Ok(NewBase { path, len, form: self.form }),
            Err(error) => {
                let _ = self.disk.remove(&path);
                Err(error)
            }
        }
    }
}

impl Drop for BaseWriter {
    fn drop(&mut self) {
        if self.file.take().is_some() {
            // Its room may be what is missing; that it cannot be removed is no news.
            let _ = self.disk.remove(&self.path);
        }
    }
}
