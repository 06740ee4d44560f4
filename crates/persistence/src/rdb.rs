//! RDB files: a snapshot of all keys. Reading them, and writing them in one durable step.
//!
//! The form of a single value is the engine's; here is what stands around the keys, the checksum, and the disk.

mod reader;
mod source;
mod writer;

pub(crate) use reader::{Place, RDB_MAGICS, read_rdb};
pub use reader::{RdbKey, RdbReport};
pub use writer::{RdbOptions, RdbWriter, TEMP_RDB, save_rdb};
pub(crate) use writer::{RdbUse, empty_rdb};

use std::path::Path;

use crate::disk::Disk;
use crate::error::{Error, Result};
use crate::receiver::Receiver;

/// Hands every key of the file at `path` on; `None` if there is no such file.
///
/// Keys are handed on before the file's checksum has been seen, which stands at its end: after an error, what was
/// received must not be used.
pub fn load_rdb(disk: &dyn Disk, path: &Path, receiver: &mut dyn Receiver) -> Result<Option<RdbReport>> {
    let io = |error| Error::io(format_args!("read {}", path.display()), error);
    if !disk.exists(path).map_err(io)? {
        return Ok(None);
    }
    let file = disk.open_read(path).map_err(io)?;
    let name = path
        .file_name()
        .map_or_else(|| path.display().to_string(), |name| name.to_string_lossy().into_owned());
    read_rdb(&*file, &name, Place::Alone, receiver).map(Some)
}
