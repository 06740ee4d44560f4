//! The RDB part that a journal may begin with.

use crate::disk::ReadFile;
use crate::error::{Error, Result};
use crate::rdb::{Place, RDB_MAGICS, RdbReport, read_rdb};
use crate::receiver::Receiver;

/// Reads the RDB part of the file `name`, if it begins with one; its commands begin where that ends.
pub(crate) fn read_base(
    file: &dyn ReadFile,
    name: &str,
    receiver: &mut dyn Receiver,
) -> Result<Option<RdbReport>> {
    // Five letters tell the two sorts apart: a journal of commands begins with `*` or `#`.
    let mut head = [0; 5];
    let mut filled = 0;
    while let Some(rest) = head.get_mut(filled..).filter(|rest| !rest.is_empty()) {
        match file.read_at(rest, filled as u64) {
            Ok(0) => break,
            Ok(read) => filled += read,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(error) => return Err(Error::io(format_args!("read {name}"), error)),
        }
    }
    let is_rdb = filled == head.len() && RDB_MAGICS.iter().any(|magic| magic.starts_with(&head));
    if is_rdb { read_rdb(file, name, Place::BeforeCommands, receiver).map(Some) } else { Ok(None) }
}

/// Where the commands of the file `name` begin.
pub(crate) fn end_of_base(file: &dyn ReadFile, name: &str, receiver: &mut dyn Receiver) -> Result<u64> {
    Ok(read_base(file, name, receiver)?.map_or(0, |report| report.end))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::aof::Command;
    use crate::aof::empty_rdb;
    use crate::disk::{Disk, SimDisk};
    use crate::error::ErrorKind;
    use crate::rdb::RdbKey;

    #[derive(Default)]
    struct Keys(Vec<(u64, Vec<u8>)>);

    impl Receiver for Keys {
        fn command(&mut self, _: Command<'_>) -> Result<(), String> {
            Ok(())
        }

        fn key(&mut self, key: RdbKey<'_>) -> Result<(), String> {
            self.0.push((key.db, key.key.to_vec()));
            Ok(())
        }
    }

    fn begin(content: &[u8]) -> Result<(Option<u64>, Keys)> {
        let disk = SimDisk::with_dir("/d");
        disk.place("/d/a", content);
        let mut keys = Keys::default();
        let report = read_base(&*disk.open_read(Path::new("/d/a")).unwrap(), "a", &mut keys)?;
        Ok((report.map(|report| report.end), keys))
    }

    #[test]
    fn an_rdb_part_is_read_and_its_end_found() {
        let mut content = empty_rdb();
        let len = content.len() as u64;
        assert_eq!(begin(&content).unwrap().0, Some(len));
        content.extend_from_slice(b"*1\r\n$4\r\nPING\r\n");
        assert_eq!(begin(&content).unwrap().0, Some(len));
        assert_eq!(begin(b"*1\r\n$4\r\nPING\r\n").unwrap().0, None);
        assert_eq!(begin(b"").unwrap().0, None);
        assert_eq!(begin(b"REDI").unwrap().0, None);
        let (end, keys) = begin(b"REDIS0010\xfe\x03\xfb\x01\x00\x00\x01k\x01v\xff\0\0\0\0\0\0\0\0").unwrap();
        assert_eq!(end, Some(28));
        assert_eq!(keys.0, [(3, b"k".to_vec())]);
    }

    #[test]
    fn what_is_not_supported_is_refused_by_name() {
        for (content, name) in [
            (&b"REDIS0010\x0f\x01k\x01"[..], "stream"),
            (b"REDIS0010\x07\x01k\x01", "module"),
            (b"REDIS0012\x18\x01k\x01", "hash whose fields expire"),
            (b"REDIS0010\xf5\x0f#!lua name=mine\n", "#!lua name=mine"),
            (b"REDIS0010\xf7\x81\0\0\0\0\0\0\0\0", "module AAAAAAAAA"),
            (b"REDIS0013", "version 13"),
            (b"VALKEY081", "version 81"),
        ] {
            let error = begin(content).map(|_| ()).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Unsupported, "{error}");
            assert!(error.to_string().contains(name), "{error}");
        }
    }

    #[test]
    fn every_flipped_bit_and_every_truncation_of_an_empty_one_is_noticed() {
        let rdb = empty_rdb();
        for len in 5..rdb.len() {
            assert!(begin(&rdb[..len]).is_err(), "cut at {len}");
        }
        for bit in 5 * 8..rdb.len() * 8 {
            let mut flipped = rdb.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(begin(&flipped).is_err(), "bit {bit}");
        }
    }
}
