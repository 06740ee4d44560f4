//! All that the layer asks of a disk, as one trait: the real one and a simulated one that loses power.
//!
//! The invariant: no file of the layer is touched except through [`Disk`]. The contract is POSIX's and not
//! more: written bytes are durable after a sync of their file, and a file's name after a sync of its
//! directory, each without the other. Deliberately absent: threads, buffering, paths relative to anything.

mod real;
mod sim;

use std::fmt;
use std::io;
use std::path::Path;

pub use real::RealDisk;
pub use sim::{Crash, Fault, SimDisk};

/// A place that holds files.
///
/// Paths are taken as given. Every operation may fail, and a failed one may have taken effect or not.
pub trait Disk: Send + Sync + fmt::Debug {
    /// Makes one directory; that it is there already is no error.
    fn create_dir(&self, path: &Path) -> io::Result<()>;

    /// The names in a directory, sorted. Names that are not UTF-8 are left out: none of ours is.
    fn list(&self, dir: &Path) -> io::Result<Vec<String>>;

    /// Whether there is a file or a directory of that name.
    fn exists(&self, path: &Path) -> io::Result<bool>;

    /// Opens a file that must be there, to read.
    fn open_read(&self, path: &Path) -> io::Result<Box<dyn ReadFile>>;

    /// Opens a file that must be there, to write at its end.
    fn open_append(&self, path: &Path) -> io::Result<Box<dyn WriteFile>>;

    /// Makes a file, or empties the one that is there, to write at its end.
    fn create(&self, path: &Path) -> io::Result<Box<dyn WriteFile>>;

    /// Gives a file another name, in one step, replacing what had that name.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;

    /// Removes a file.
    fn remove(&self, path: &Path) -> io::Result<()>;

    /// Makes the names in a directory durable: files made, renamed and removed.
    fn sync_dir(&self, dir: &Path) -> io::Result<()>;

    /// Takes the lock that this file stands for, making the file if need be. While the returned value lives,
    /// every other attempt fails at once with [`io::ErrorKind::WouldBlock`], in this process and in others.
    fn lock(&self, path: &Path) -> io::Result<Box<dyn DiskLock>>;
}

/// A file that is open to be read.
pub trait ReadFile: Send + fmt::Debug {
    /// The length of the file now, in bytes.
    fn len(&self) -> io::Result<u64>;

    /// Reads some bytes from `offset`; 0 means the end of the file.
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize>;

    /// Whether the file is empty.
    fn is_empty(&self) -> io::Result<bool> {
        Ok(self.len()? == 0)
    }
}

/// A file that is open to be written at its end.
pub trait WriteFile: Send + fmt::Debug {
    /// Writes some of the bytes at the end of the file and says how many.
    fn append(&mut self, bytes: &[u8]) -> io::Result<usize>;

    /// Makes the content durable, with all that is known about the file.
    fn sync_all(&mut self) -> io::Result<()>;

    /// Makes the content durable, with as much about the file as is needed to read it.
    fn sync_data(&mut self) -> io::Result<()>;

    /// The same file for another thread to sync, while this one goes on writing.
    fn sync_handle(&self) -> io::Result<Box<dyn SyncFile>>;

    /// Cuts the file off at `len` bytes.
    fn truncate(&mut self, len: u64) -> io::Result<()>;

    /// The length of the file now, in bytes.
    fn len(&self) -> io::Result<u64>;

    /// Whether the file is empty.
    fn is_empty(&self) -> io::Result<bool> {
        Ok(self.len()? == 0)
    }
}

/// A file that can be made durable; what had been written to it when the sync began is.
pub trait SyncFile: Send + Sync + fmt::Debug {
    /// As [`WriteFile::sync_data`].
    fn sync_data(&self) -> io::Result<()>;
}

/// A lock, held until it is dropped.
pub trait DiskLock: Send + Sync + fmt::Debug {}

/// Appends all the bytes, or fails after having appended some of them.
pub(crate) fn append_all(file: &mut dyn WriteFile, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        match file.append(bytes) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(written) => bytes = bytes.get(written..).unwrap_or_default(),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}
