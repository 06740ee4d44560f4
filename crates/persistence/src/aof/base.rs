//! The RDB part that a journal may begin with: for now only one that holds no keys.
//!
//! A Redis that starts with an empty data set makes its journal's base an RDB file without keys, and so do we,
//! so that either can go on with the other's directory. Loading a base that holds data comes with snapshots;
//! until then it is refused, never skipped.

use crate::crc64::crc64;
use crate::disk::ReadFile;
use crate::error::{Error, ErrorKind, Result};

/// What an RDB file begins with.
pub(crate) const RDB_MAGIC: &[u8] = b"REDIS";

/// A file without keys is far shorter: it holds a handful of facts about the server that wrote it.
const MAX_EMPTY_RDB_BYTES: usize = 16 * 1024;

const OPCODE_AUX: u8 = 0xfa;
const OPCODE_EOF: u8 = 0xff;

/// An RDB file, version 10, that holds no keys.
pub(crate) fn empty_rdb() -> Vec<u8> {
    let mut rdb = b"REDIS0010".to_vec();
    // redis-ver 7.0.15; redis-bits 64 and aof-base 1 as 8-bit integers.
    rdb.extend_from_slice(b"\xfa\x09redis-ver\x067.0.15");
    rdb.extend_from_slice(b"\xfa\x0aredis-bits\xc0\x40");
    rdb.extend_from_slice(b"\xfa\x08aof-base\xc0\x01");
    rdb.push(OPCODE_EOF);
    let checksum = crc64(0, &rdb);
    rdb.extend_from_slice(&checksum.to_le_bytes());
    rdb
}

/// Where the commands of the file `name` begin: after its RDB part, or at its beginning if it has none.
pub(crate) fn commands_begin(file: &dyn ReadFile, name: &str) -> Result<u64> {
    let mut head = vec![0; MAX_EMPTY_RDB_BYTES];
    let mut filled = 0;
    while let Some(rest) = head.get_mut(filled..).filter(|rest| !rest.is_empty()) {
        match file.read_at(rest, filled as u64) {
            Ok(0) => break,
            Ok(read) => filled += read,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(error) => return Err(Error::io(format_args!("read {name}"), error)),
        }
    }
    head.truncate(filled);
    if !head.starts_with(RDB_MAGIC) {
        return Ok(0);
    }
    empty_rdb_len(&head).map(|len| len as u64).map_err(|trouble| match trouble {
        Trouble::HoldsData => Error::new(
            ErrorKind::Unsupported,
            format!(
                "{name} holds data in RDB form, which this version does not load yet (it comes with snapshots, in \
                 the next release); on the Redis that wrote it, run CONFIG SET aof-use-rdb-preamble no and \
                 BGREWRITEAOF, and copy the directory again"
            ),
        ),
        Trouble::Damaged(what) => Error::new(
            ErrorKind::Damaged,
            format!("{name} begins as an RDB file and is damaged: {what}; restore it from a backup"),
        ),
    })
}

enum Trouble {
    HoldsData,
    Damaged(&'static str),
}

const CUT_SHORT: Trouble = Trouble::Damaged("it ends too early");

/// The length of the RDB file without keys at the beginning of `bytes`.
fn empty_rdb_len(bytes: &[u8]) -> Result<usize, Trouble> {
    let mut cursor = Cursor { bytes, at: RDB_MAGIC.len() };
    let version = std::str::from_utf8(cursor.take(4)?).ok().and_then(|digits| digits.parse::<u32>().ok());
    // Journals begin with an RDB part since version 8 of the format.
    version.filter(|&version| version >= 8).ok_or(Trouble::Damaged("its version is none"))?;
    loop {
        match cursor.byte()? {
            OPCODE_AUX => {
                cursor.skip_string()?;
                cursor.skip_string()?;
            }
            OPCODE_EOF => break,
            _ => return Err(Trouble::HoldsData),
        }
    }
    let computed = crc64(0, bytes.get(..cursor.at).unwrap_or_default());
    let stored = cursor.take(8)?.try_into().map_or(0, u64::from_le_bytes);
    // 0 means that the writer had checksums switched off.
    if stored != 0 && stored != computed {
        return Err(Trouble::Damaged("its checksum is wrong"));
    }
    Ok(cursor.at)
}

struct Cursor<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Cursor<'a> {
    fn take(&mut self, count: usize) -> Result<&'a [u8], Trouble> {
        let end = self.at.saturating_add(count);
        let taken = self.bytes.get(self.at..end).ok_or_else(|| self.beyond())?;
        self.at = end;
        Ok(taken)
    }

    /// Facts that go on beyond what was read are more than an RDB file without keys has.
    fn beyond(&self) -> Trouble {
        if self.bytes.len() < MAX_EMPTY_RDB_BYTES { CUT_SHORT } else { Trouble::HoldsData }
    }

    fn byte(&mut self) -> Result<u8, Trouble> {
        self.take(1)?.first().copied().ok_or(CUT_SHORT)
    }

    /// A string with its length before it, or one of the short forms of an integer.
    fn skip_string(&mut self) -> Result<(), Trouble> {
        let first = self.byte()?;
        let count = match first {
            0x00..=0x3f => usize::from(first),
            0x40..=0x7f => usize::from(first & 0x3f) << 8 | usize::from(self.byte()?),
            0x80 => self.take(4)?.try_into().map_or(0, u32::from_be_bytes) as usize,
            0xc0 => 1,
            0xc1 => 2,
            0xc2 => 4,
            _ => return Err(Trouble::Damaged("a fact about its server is in an unknown form")),
        };
        self.take(count).map(|_| ())
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::disk::{Disk, SimDisk};

    fn begin(content: &[u8]) -> Result<u64> {
        let disk = SimDisk::with_dir("/d");
        disk.place("/d/a", content);
        commands_begin(&*disk.open_read(Path::new("/d/a")).unwrap(), "a")
    }

    #[test]
    fn an_empty_rdb_part_is_passed_over() {
        let mut content = empty_rdb();
        let len = content.len() as u64;
        assert_eq!(begin(&content).unwrap(), len);
        content.extend_from_slice(b"*1\r\n$4\r\nPING\r\n");
        assert_eq!(begin(&content).unwrap(), len);
        assert_eq!(begin(b"*1\r\n$4\r\nPING\r\n").unwrap(), 0);
        assert_eq!(begin(b"").unwrap(), 0);
        assert_eq!(begin(b"REDI").unwrap(), 0);
    }

    #[test]
    fn an_rdb_part_with_keys_is_refused_and_says_what_to_do() {
        let error = begin(b"REDIS0010\xfe\x00\xfb\x01\x00\x00\x01k\x01v\xff12345678").unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unsupported);
        assert!(error.to_string().contains("aof-use-rdb-preamble no"), "{error}");
    }

    #[test]
    fn every_flipped_bit_and_every_truncation_of_an_empty_one_is_noticed() {
        let rdb = empty_rdb();
        for len in 5..rdb.len() {
            assert!(begin(&rdb[..len]).is_err(), "cut at {len}");
        }
        for bit in 5 * 8..(rdb.len() - 8) * 8 {
            let mut flipped = rdb.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(begin(&flipped).is_err(), "bit {bit}");
        }
    }
}
