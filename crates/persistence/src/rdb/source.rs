//! A file as the engine's reader of values wants it: bytes from the front, with a checksum of what is behind.
//!
//! The length of the file when it was opened is its end. Holds one chunk, or one string that is longer than that.

use std::io;

use mtcache_engine::rdb::{Damage, Fault, Source, crc64};

use crate::disk::ReadFile;

/// How much is read at once, in bytes.
const CHUNK_BYTES: usize = 256 * 1024;

pub(super) struct FileSource<'f> {
    file: &'f dyn ReadFile,
    len: u64,
    buffer: Vec<u8>,
    /// Where in the file the buffer begins.
    buffer_at: u64,
    /// How much of the buffer has been taken, and how much of it is in the checksum.
    taken: usize,
    summed: usize,
    checksum: u64,
    /// What the disk said when it failed.
    failure: Option<io::Error>,
}

impl<'f> FileSource<'f> {
    pub(super) fn new(file: &'f dyn ReadFile) -> io::Result<Self> {
        let len = file.len()?;
        let buffer = Vec::new();
        Ok(Self { file, len, buffer, buffer_at: 0, taken: 0, summed: 0, checksum: 0, failure: None })
    }

    /// How far the file has been taken.
    pub(super) fn offset(&self) -> u64 {
        self.buffer_at + self.taken as u64
    }

    /// The checksum of all that has been taken.
    pub(super) fn checksum(&mut self) -> u64 {
        let new = self.buffer.get(self.summed..self.taken).unwrap_or_default();
        self.checksum = crc64(self.checksum, new);
        self.summed = self.taken;
        self.checksum
    }

    /// What the disk said, after a [`Fault::Source`].
    pub(super) fn take_failure(&mut self) -> Option<io::Error> {
        self.failure.take()
    }

    /// Makes `count` bytes from `taken` on be in the buffer. They are known to be in the file.
    fn fill(&mut self, count: usize) -> io::Result<()> {
        self.checksum();
        self.buffer.drain(..self.taken);
        self.buffer_at += self.taken as u64;
        (self.taken, self.summed) = (0, 0);
        // A long string read before must not keep its memory.
        self.buffer.shrink_to(CHUNK_BYTES.max(count));
        while self.buffer.len() < count {
            let have = self.buffer.len();
            let at = self.buffer_at + have as u64;
            let wanted = (count - have).max(CHUNK_BYTES.saturating_sub(have));
            let wanted = wanted.min(usize::try_from(self.len - at).unwrap_or(usize::MAX));
            self.buffer.resize(have + wanted, 0);
            let result = self.file.read_at(self.buffer.get_mut(have..).unwrap_or_default(), at);
            let read = result.as_ref().copied().unwrap_or_default();
            self.buffer.truncate(have + read);
            match result {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

impl Source for FileSource<'_> {
    fn take(&mut self, count: usize) -> Result<&[u8], Fault> {
        if count as u64 > self.left() {
            return Err(Fault::Damaged(Damage::TooShort));
        }
        if self.buffer.len() - self.taken < count
            && let Err(error) = self.fill(count)
        {
            self.failure = Some(error);
            return Err(Fault::Source);
        }
        let from = self.taken;
        self.taken += count;
        self.buffer.get(from..self.taken).ok_or(Fault::Damaged(Damage::TooShort))
    }

    fn left(&self) -> u64 {
        self.len - self.offset()
    }
}
