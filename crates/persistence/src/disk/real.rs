//! The machine's own disk, through `std::fs`.
//!
//! Files are opened in append mode, so that a write can never land on bytes that are there already. The lock
//! is the operating system's on an open file (`flock`): it goes with the process, however that ends.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Write};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;

use super::{Disk, DiskLock, ReadFile, SyncFile, WriteFile};

/// The file system of this machine.
#[derive(Clone, Copy, Debug, Default)]
pub struct RealDisk;

impl Disk for RealDisk {
    fn create_dir(&self, path: &Path) -> io::Result<()> {
        match fs::create_dir(path) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists && path.is_dir() => Ok(()),
            result => result,
        }
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in fs::read_dir(dir)? {
            names.extend(entry?.file_name().into_string());
        }
        names.sort_unstable();
        Ok(names)
    }

    fn exists(&self, path: &Path) -> io::Result<bool> {
        path.try_exists()
    }

    fn open_read(&self, path: &Path) -> io::Result<Box<dyn ReadFile>> {
        Ok(RealFile::boxed(File::open(path)?))
    }

    fn open_append(&self, path: &Path) -> io::Result<Box<dyn WriteFile>> {
        Ok(RealFile::boxed(OpenOptions::new().append(true).open(path)?))
    }

    fn create(&self, path: &Path) -> io::Result<Box<dyn WriteFile>> {
        let file = OpenOptions::new().append(true).create(true).open(path)?;
        // `append` and `truncate` cannot be asked for in one call.
        file.set_len(0)?;
        Ok(RealFile::boxed(file))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        File::open(dir)?.sync_all()
    }

    fn lock(&self, path: &Path) -> io::Result<Box<dyn DiskLock>> {
        let file = OpenOptions::new().write(true).create(true).truncate(false).open(path)?;
        match file.try_lock() {
            Ok(()) => Ok(Box::new(RealLock { _file: file })),
            Err(TryLockError::WouldBlock) => Err(io::ErrorKind::WouldBlock.into()),
            Err(TryLockError::Error(error)) => Err(error),
        }
    }
}

/// An open file. A handle to sync it by is the same one: no descriptor is taken that could be missing in the midst of work.
#[derive(Debug)]
struct RealFile(Arc<File>);

impl RealFile {
    fn boxed(file: File) -> Box<Self> {
        Box::new(Self(Arc::new(file)))
    }
}

impl ReadFile for RealFile {
    fn len(&self) -> io::Result<u64> {
        Ok(self.0.metadata()?.len())
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        self.0.read_at(buffer, offset)
    }
}

impl WriteFile for RealFile {
    fn append(&mut self, bytes: &[u8]) -> io::Result<usize> {
        (&*self.0).write(bytes)
    }

    fn sync_all(&mut self) -> io::Result<()> {
        self.0.sync_all()
    }

    fn sync_data(&mut self) -> io::Result<()> {
        self.0.sync_data()
    }

    fn sync_handle(&self) -> io::Result<Box<dyn SyncFile>> {
        Ok(Box::new(Self(Arc::clone(&self.0))))
    }

    fn truncate(&mut self, len: u64) -> io::Result<()> {
        self.0.set_len(len)
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.0.metadata()?.len())
    }
}

impl SyncFile for RealFile {
    fn sync_data(&self) -> io::Result<()> {
        self.0.sync_data()
    }
}

/// Holding the open file is holding the lock.
#[derive(Debug)]
struct RealLock {
    _file: File,
}

impl DiskLock for RealLock {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn second_lock_is_refused_until_the_first_is_dropped() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lock");
        let first = RealDisk.lock(&path).unwrap();
        assert_eq!(RealDisk.lock(&path).unwrap_err().kind(), io::ErrorKind::WouldBlock);
        drop(first);
        RealDisk.lock(&path).unwrap();
    }

    #[test]
    fn writes_land_at_the_end_after_a_truncation() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        let mut file = RealDisk.create(&path).unwrap();
        assert_eq!(file.append(b"abcdef").unwrap(), 6);
        file.truncate(3).unwrap();
        assert_eq!(file.append(b"XY").unwrap(), 2);
        file.sync_all().unwrap();
        let mut buffer = [0; 16];
        let read = RealDisk.open_read(&path).unwrap().read_at(&mut buffer, 1).unwrap();
        assert_eq!(&buffer[..read], b"bcXY");
    }

    #[test]
    fn making_a_directory_twice_is_fine_but_not_over_a_file() {
        let dir = tempfile::tempdir().unwrap();
        RealDisk.create_dir(&dir.path().join("d")).unwrap();
        RealDisk.create_dir(&dir.path().join("d")).unwrap();
        RealDisk.create(&dir.path().join("f")).unwrap();
        assert!(RealDisk.create_dir(&dir.path().join("f")).is_err());
        assert_eq!(RealDisk.list(dir.path()).unwrap(), ["d", "f"]);
    }
}
