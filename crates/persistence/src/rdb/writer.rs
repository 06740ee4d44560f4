//! Writes an RDB file of version 10, which redis-server 7.0 and everything newer loads.
//!
//! The invariant: under its real name there is always a whole file. It grows under a temporary name, is made durable, and
//! takes the place of the old one in one step. The keys come as bytes from the engine.

use std::path::Path;

use mtcache_engine::UnixMillis;
use mtcache_engine::rdb::{Compression, WRITTEN_VERSION, crc64, opcode, write_string};

use crate::disk::{Disk, WriteFile, append_all};
use crate::error::{Error, Result};

/// What the temporary name of a file ends with.
pub const TEMP_RDB: &str = "temp-mtcache.rdb";

/// Bytes after which what has been written is made durable, so that the end need not wait for all of it at once.
const SYNC_BYTES: u64 = 32 * 1024 * 1024;

/// How a file is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct RdbOptions {
    /// Whether it ends with a checksum (`rdbchecksum`). Default: yes.
    pub checksum: bool,
    /// When it was begun, as it says itself.
    pub created: UnixMillis,
    /// The bytes in use then, as it says itself.
    pub used_memory: u64,
}

impl RdbOptions {
    /// With a checksum, made at `created`.
    pub fn new(created: UnixMillis, used_memory: u64) -> Self {
        Self { checksum: true, created, used_memory }
    }
}

/// What a file is for, as it says itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RdbUse {
    Snapshot,
    BaseOfJournal,
}

/// A file that grows under a temporary name.
#[derive(Debug)]
pub struct RdbWriter {
    file: Box<dyn WriteFile>,
    checksum: Option<u64>,
    len: u64,
    synced: u64,
    name: String,
}

impl RdbWriter {
    /// Begins the file at `path`, in the place of whatever is there.
    pub(crate) fn create(
        disk: &dyn Disk,
        path: &Path,
        used_as: RdbUse,
        options: &RdbOptions,
    ) -> Result<Self> {
        let name = path.display().to_string();
        let file = disk.create(path).map_err(|error| Error::io(format_args!("make {name}"), error))?;
        let mut writer = Self { file, checksum: options.checksum.then_some(0), len: 0, synced: 0, name };
        writer.append(&head(used_as, options))?;
        Ok(writer)
    }

    /// Begins a file that holds nothing but what is appended to it: commands.
    pub(crate) fn create_bare(disk: &dyn Disk, path: &Path) -> Result<Self> {
        let name = path.display().to_string();
        let file = disk.create(path).map_err(|error| Error::io(format_args!("make {name}"), error))?;
        Ok(Self { file, checksum: None, len: 0, synced: 0, name })
    }

    /// Writes keys, as the engine has made them.
    pub fn append(&mut self, bytes: &[u8]) -> Result<()> {
        append_all(&mut *self.file, bytes)
            .map_err(|error| Error::io(format_args!("write {}", self.name), error))?;
        self.len += bytes.len() as u64;
        if let Some(checksum) = &mut self.checksum {
            *checksum = crc64(*checksum, bytes);
        }
        if self.len - self.synced >= SYNC_BYTES {
            self.synced = self.len;
            self.file.sync_data().map_err(|error| Error::io(format_args!("sync {}", self.name), error))?;
        }
        Ok(())
    }

    /// Bytes written so far.
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Whether nothing has been written.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Ends the file and makes it durable; its length.
    pub(crate) fn finish(mut self) -> Result<u64> {
        self.append(&[opcode::END])?;
        let checksum = self.checksum.take().unwrap_or_default();
        self.append(&checksum.to_le_bytes())?;
        self.finish_bare()
    }

    /// Makes the file durable as it is; its length.
    pub(crate) fn finish_bare(mut self) -> Result<u64> {
        self.file.sync_all().map_err(|error| Error::io(format_args!("sync {}", self.name), error))?;
        Ok(self.len)
    }
}

/// Writes a snapshot into `dir` under `name`: `fill` gives the keys. Afterwards there is the new file or, after a failure
/// at any point, the old one. The length of the new one.
pub fn save_rdb(
    disk: &dyn Disk,
    dir: &Path,
    name: &str,
    options: &RdbOptions,
    fill: impl FnOnce(&mut RdbWriter) -> Result<()>,
) -> Result<u64> {
    let temp = dir.join(TEMP_RDB);
    let path = dir.join(name);
    let written = RdbWriter::create(disk, &temp, RdbUse::Snapshot, options).and_then(|mut writer| {
        fill(&mut writer)?;
        writer.finish()
    });
    let written = written.inspect_err(|_| {
        // Its room may be what is missing; that it cannot be removed is no news.
        let _ = disk.remove(&temp);
    })?;
    disk.rename(&temp, &path)
        .map_err(|error| Error::io(format_args!("put {} in place", path.display()), error))?;
    disk.sync_dir(dir)
        .map_err(|error| Error::io(format_args!("sync the directory {}", dir.display()), error))?;
    Ok(written)
}

/// What stands before the keys.
fn head(used_as: RdbUse, options: &RdbOptions) -> Vec<u8> {
    let mut head = format!("REDIS{WRITTEN_VERSION:04}").into_bytes();
    let mut fact = |name: &str, value: &str| {
        head.push(opcode::AUX);
        write_string(name.as_bytes(), Compression::Off, &mut head);
        write_string(value.as_bytes(), Compression::Off, &mut head);
    };
    fact("redis-ver", "7.0.15");
    fact("redis-bits", "64");
    fact("ctime", &(options.created.0 / 1000).to_string());
    fact("used-mem", &options.used_memory.to_string());
    fact("aof-base", if used_as == RdbUse::BaseOfJournal { "1" } else { "0" });
    head
}

/// An RDB file that holds no keys, to begin a journal with.
pub(crate) fn empty_rdb() -> Vec<u8> {
    let mut rdb = head(RdbUse::BaseOfJournal, &RdbOptions::new(UnixMillis(0), 0));
    rdb.push(opcode::END);
    let checksum = crc64(0, &rdb);
    rdb.extend_from_slice(&checksum.to_le_bytes());
    rdb
}
