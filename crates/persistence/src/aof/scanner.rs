//! Walks through an append-only file record by record, holding little more than the record it is at.
//!
//! The length of the file when it was opened is its end: a record that would need more than that is torn, and
//! is known to be so before a byte is allocated for it. Knows nothing of what the commands mean.

use std::io;
use std::ops::Range;

use mtcache_engine::rdb::crc64;
use smallvec::SmallVec;

use super::parse::{Parsed, parse};
use crate::disk::ReadFile;
use crate::error::{Error, ErrorKind, Result};

/// How much is read at once, in bytes.
const CHUNK_BYTES: usize = 256 * 1024;

/// What the scanner has come to.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Record {
    /// A command; its arguments are [`Scanner::args`].
    Command,
    /// An annotation line.
    Annotation,
    /// The end of the file, after a complete record.
    End,
    /// The end of the file, in the middle of a record.
    Torn(TornRecord),
    /// Bytes that are no record: the offset, and what is wrong.
    Bad(u64, &'static str),
}

/// What is incomplete at the end of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TornRecord {
    Command,
    Annotation,
    /// Nothing but zeros up to the end: the file had grown before its bytes came to the disk.
    Zeros,
}

/// A reader of records.
#[derive(Debug)]
pub(crate) struct Scanner {
    file: Box<dyn ReadFile>,
    name: String,
    len: u64,
    max_bulk_bytes: usize,
    buffer: Vec<u8>,
    /// Where in the file the buffer begins.
    buffer_at: u64,
    /// Where in the file the record begins that was read last.
    record: u64,
    /// Where in the file the next one begins.
    next: u64,
    args: Vec<Range<usize>>,
}

/// The arguments of one command.
pub(crate) type Args<'a> = SmallVec<[&'a [u8]; 8]>;

impl Scanner {
    /// Begins at `offset`.
    pub(crate) fn new(
        file: Box<dyn ReadFile>,
        name: &str,
        offset: u64,
        max_bulk_bytes: usize,
    ) -> Result<Self> {
        let len = file.len().map_err(|error| Error::io(format_args!("read {name}"), error))?;
        Ok(Self {
            file,
            name: name.to_owned(),
            len,
            max_bulk_bytes,
            buffer: Vec::new(),
            buffer_at: offset,
            record: offset,
            next: offset,
            args: Vec::new(),
        })
    }

    /// The length of the file.
    pub(crate) fn len(&self) -> u64 {
        self.len
    }

    /// Where the record that was read last begins.
    pub(crate) fn record_offset(&self) -> u64 {
        self.record
    }

    /// Where the next record begins.
    pub(crate) fn offset(&self) -> u64 {
        self.next
    }

    /// Goes to a place where a record begins, so that it is the next one.
    pub(crate) fn go_to(&mut self, offset: u64) {
        self.next = offset;
        let is_buffered =
            offset.checked_sub(self.buffer_at).is_some_and(|distance| distance <= self.buffer.len() as u64);
        if !is_buffered {
            self.buffer.clear();
            self.buffer_at = offset;
        }
    }

    /// Reads the next record. After anything but a command or an annotation it stays where it is.
    pub(crate) fn advance(&mut self) -> Result<Record> {
        self.record = self.next;
        if self.next >= self.len {
            return Ok(Record::End);
        }
        loop {
            let mut args = std::mem::take(&mut self.args);
            let parsed = parse(self.ahead(), self.max_bulk_bytes, &mut args);
            self.args = args;
            match parsed {
                Parsed::Command(len) => {
                    self.next += len as u64;
                    return Ok(Record::Command);
                }
                Parsed::Annotation(len) => {
                    self.next += len as u64;
                    return Ok(Record::Annotation);
                }
                Parsed::Incomplete(needed) if self.next + needed as u64 > self.len => {
                    let torn =
                        if self.starts_with(b'#')? { TornRecord::Annotation } else { TornRecord::Command };
                    return Ok(Record::Torn(torn));
                }
                Parsed::Incomplete(needed) => self.fill(needed)?,
                Parsed::Bad(0, _) if self.starts_with(0)? && self.rest_is_zero()? => {
                    return Ok(Record::Torn(TornRecord::Zeros));
                }
                Parsed::Bad(at, what) => return Ok(Record::Bad(self.next + at as u64, what)),
            }
        }
    }

    /// The arguments of the command that was read last.
    pub(crate) fn args(&self) -> Args<'_> {
        let begin = self.record.saturating_sub(self.buffer_at) as usize;
        let bytes = self.buffer.get(begin..).unwrap_or_default();
        self.args.iter().map(|range| bytes.get(range.clone()).unwrap_or_default()).collect()
    }

    /// All bytes of the record that was read last.
    pub(crate) fn line(&self) -> &[u8] {
        let begin = self.record.saturating_sub(self.buffer_at) as usize;
        let end = self.next.saturating_sub(self.buffer_at) as usize;
        self.buffer.get(begin..end).unwrap_or_default()
    }

    /// How many bytes follow the record that was read last.
    pub(crate) fn left(&self) -> u64 {
        self.len.saturating_sub(self.next)
    }

    /// The CRC-64 of so many bytes that follow; the file has them.
    pub(crate) fn checksum_ahead(&mut self, len: u64) -> Result<u64> {
        if len <= CHUNK_BYTES as u64 {
            let len = len as usize;
            if self.ahead().len() < len {
                // Short groups stand close together: many of them come into memory at once.
                self.fill(len)?;
            }
            return Ok(crc64(0, self.ahead().get(..len).unwrap_or_default()));
        }
        let begin = self.next;
        let mut checksum = 0;
        while self.next < begin + len {
            if self.ahead().is_empty() {
                self.fill(1)?;
            }
            let ahead = self.ahead();
            let part = ahead.len().min((begin + len - self.next) as usize);
            checksum = crc64(checksum, ahead.get(..part).unwrap_or_default());
            self.next += part as u64;
        }
        self.go_to(begin);
        Ok(checksum)
    }

    /// Whether the file ends with zeros, as one does that had grown before its bytes came to the disk. No command ends so.
    pub(crate) fn ends_with_zeros(&mut self) -> Result<bool> {
        const END: u64 = 2;
        let Some(at) = self.len.checked_sub(END) else { return Ok(false) };
        let here = self.next;
        self.go_to(at);
        if (self.ahead().len() as u64) < END {
            self.fill(END as usize)?;
        }
        let is_zero = self.ahead().iter().all(|&byte| byte == 0);
        self.go_to(here);
        Ok(is_zero)
    }

    /// The name of the command that was read last; `None` at an annotation.
    pub(crate) fn name(&self) -> Option<&[u8]> {
        let begin = self.record.saturating_sub(self.buffer_at) as usize;
        let bytes = self.buffer.get(begin..).unwrap_or_default();
        self.args.first().and_then(|range| bytes.get(range.clone()))
    }

    /// Whether a torn record is one whose length has been damaged, and not the end of what was written: then
    /// commands follow it, whole ones of which the last ends the file. Says where the first of them begins.
    ///
    /// Where one does not lead to the end of the file, the search goes on behind it; so it takes one pass.
    pub(crate) fn commands_behind_torn(&mut self, is_known: fn(&[u8]) -> bool) -> Result<Option<u64>> {
        let torn = self.next;
        let mut from = torn + 1;
        let found = loop {
            let Some(candidate) = self.find_command(from)? else { break None };
            self.go_to(candidate);
            let mut count = 0;
            let outcome = loop {
                match self.advance()? {
                    Record::Command if !self.name().is_some_and(is_known) => break None,
                    Record::Command => count += 1,
                    Record::Annotation => {}
                    Record::End => break Some(candidate),
                    Record::Torn(_) | Record::Bad(..) => break None,
                }
            };
            // One alone could stand in a string.
            if outcome.is_some() && count >= 2 {
                break outcome;
            }
            from = self.next.max(candidate + 1);
        };
        self.record = torn;
        self.go_to(torn);
        Ok(found)
    }

    /// The next place from `from` on where a line begins with `*`.
    fn find_command(&mut self, from: u64) -> Result<Option<u64>> {
        let mut at = from.saturating_sub(1);
        while at < self.len {
            self.go_to(at);
            if self.ahead().len() < 2 {
                self.fill(1)?;
            }
            let ahead = self.ahead();
            if let Some(place) = ahead.windows(2).position(|pair| pair == b"\n*") {
                return Ok(Some(at + place as u64 + 1));
            }
            // The last byte may be the first of the pair.
            at += (ahead.len() as u64 - 1).max(1);
        }
        Ok(None)
    }

    /// What is in memory from the next record on.
    fn ahead(&self) -> &[u8] {
        let begin = self.next.saturating_sub(self.buffer_at) as usize;
        self.buffer.get(begin..).unwrap_or_default()
    }

    pub(super) fn starts_with(&mut self, byte: u8) -> Result<bool> {
        if self.ahead().is_empty() {
            self.fill(1)?;
        }
        Ok(self.ahead().first() == Some(&byte))
    }

    /// Gets at least so many bytes from the next record on into memory; the file has them.
    fn fill(&mut self, needed: usize) -> Result<()> {
        let done = (self.next.saturating_sub(self.buffer_at) as usize).min(self.buffer.len());
        self.buffer.drain(..done);
        self.buffer_at = self.next;
        let in_file = self.len.saturating_sub(self.next);
        // Doubling keeps the cost of parsing a long command again from its beginning within twice its length.
        let wanted = needed.max(self.buffer.len() * 2).max(CHUNK_BYTES);
        let wanted = (wanted as u64).min(in_file) as usize;
        let mut filled = self.buffer.len();
        self.buffer.resize(wanted, 0);
        while let Some(rest) = self.buffer.get_mut(filled..).filter(|rest| !rest.is_empty()) {
            match self.file.read_at(rest, self.next + filled as u64) {
                Ok(0) => {
                    let message = format!("{} became shorter while it was read", self.name);
                    return Err(Error::new(ErrorKind::Damaged, message));
                }
                Ok(read) => filled += read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(Error::io(format_args!("read {}", self.name), error)),
            }
        }
        Ok(())
    }

    /// Whether there is nothing but zeros from the next record to the end of the file.
    fn rest_is_zero(&mut self) -> Result<bool> {
        let begin = self.next;
        let mut is_zero = true;
        while is_zero && self.next < self.len {
            if self.ahead().is_empty() {
                self.fill(1)?;
            }
            is_zero = self.ahead().iter().all(|&byte| byte == 0);
            self.next += self.ahead().len() as u64;
        }
        self.go_to(begin);
        Ok(is_zero)
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::disk::{Disk, SimDisk};

    fn scanner(content: &[u8]) -> Scanner {
        let disk = SimDisk::with_dir("/d");
        disk.place("/d/a", content);
        Scanner::new(disk.open_read(Path::new("/d/a")).unwrap(), "a", 0, 512 * 1024 * 1024).unwrap()
    }

    #[test]
    fn records_are_walked_through_and_gone_back_to() {
        let mut scanner = scanner(b"*1\r\n$4\r\nPING\r\n#TS:1\r\n*2\r\n$3\r\nGET\r\n$1\r\nk\r\n");
        assert_eq!(scanner.advance().unwrap(), Record::Command);
        assert_eq!(scanner.advance().unwrap(), Record::Annotation);
        let offset = scanner.offset();
        assert_eq!(scanner.advance().unwrap(), Record::Command);
        assert_eq!(scanner.args().as_slice(), [&b"GET"[..], b"k"]);
        assert_eq!(scanner.advance().unwrap(), Record::End);
        scanner.go_to(offset);
        assert_eq!(scanner.advance().unwrap(), Record::Command);
        assert_eq!((scanner.record_offset(), scanner.args().len()), (21, 2));
        scanner.go_to(0);
        assert_eq!(scanner.advance().unwrap(), Record::Command);
        assert_eq!(scanner.args().as_slice(), [b"PING"]);
    }

    #[test]
    fn commands_longer_than_a_chunk_are_read_whole() {
        let value = vec![b'v'; CHUNK_BYTES * 5 + 17];
        let mut content = Vec::new();
        for _ in 0..3 {
            content.extend_from_slice(format!("*2\r\n$3\r\nSET\r\n${}\r\n", value.len()).as_bytes());
            content.extend_from_slice(&value);
            content.extend_from_slice(b"\r\n");
        }
        let mut scanner = scanner(&content);
        for _ in 0..3 {
            assert_eq!(scanner.advance().unwrap(), Record::Command);
            assert_eq!(scanner.args().last().copied(), Some(value.as_slice()));
        }
        assert_eq!(scanner.advance().unwrap(), Record::End);
        scanner.go_to(0);
        assert_eq!(scanner.advance().unwrap(), Record::Command);
    }

    #[test]
    fn zeros_up_to_the_end_are_a_torn_tail_and_zeros_before_data_are_not() {
        let mut zeros = b"*1\r\n$4\r\nPING\r\n".to_vec();
        zeros.resize(CHUNK_BYTES * 3, 0);
        let mut tail = scanner(&zeros);
        assert_eq!(tail.advance().unwrap(), Record::Command);
        assert_eq!(tail.advance().unwrap(), Record::Torn(TornRecord::Zeros));
        assert_eq!(tail.offset(), 14);
        zeros.push(b'*');
        let mut middle = scanner(&zeros);
        assert_eq!(middle.advance().unwrap(), Record::Command);
        assert!(matches!(middle.advance().unwrap(), Record::Bad(14, _)));
    }

    #[test]
    fn a_length_beyond_the_end_of_the_file_is_torn_without_being_allocated() {
        let mut scanner = scanner(b"*2\r\n$500000000\r\nabc");
        assert_eq!(scanner.advance().unwrap(), Record::Torn(TornRecord::Command));
        assert!(scanner.buffer.capacity() < CHUNK_BYTES);
    }
}
