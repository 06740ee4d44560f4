//! The annotation line that stands before a group of commands and says what it has to be: `#CRC:`.
//!
//! `#CRC:<checksum> <length> <check>`: the CRC-64 of the bytes that follow, how many they are, and a check of the line itself,
//! so that a damaged length is not taken for the end of a file that was cut off. redis-server 7 and redis-check-aof pass
//! such lines over. Deliberately absent: a chain from one line to the next, because redis-server may append without any.

use std::io::Write as _;

use mtcache_engine::rdb::crc64;

const BEGIN: &[u8] = b"#CRC:";
/// The length of the shortest line: the word, the checksum, a length of one digit, the check, what is between them, the end.
const SHORTEST: usize = BEGIN.len() + 16 + 1 + 1 + 1 + 4 + 2;

/// What an annotation line is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Line {
    /// The line of a group.
    Group(Group),
    /// Such a line that has been damaged.
    Damaged,
    /// Another annotation.
    Other,
}

/// What a line says of the bytes behind it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Group {
    pub(super) checksum: u64,
    pub(super) len: u64,
}

/// Appends the parts of a group, one after another, with their line before them.
pub(super) fn push_group(file: &mut Vec<u8>, parts: [&[u8]; 2]) {
    let len: usize = parts.iter().map(|part| part.len()).sum();
    let checksum = parts.iter().fold(0, |checksum, part| crc64(checksum, part));
    file.reserve(len + 64);
    push_line(file, checksum, len as u64);
    for part in parts {
        file.extend_from_slice(part);
    }
}

fn push_line(file: &mut Vec<u8>, checksum: u64, len: u64) {
    let begin = file.len();
    file.extend_from_slice(BEGIN);
    push_hex(file, checksum, 16);
    file.push(b' ');
    // Writing to a vector cannot fail.
    let _ = write!(file, "{len}");
    file.push(b' ');
    let check = crc64(0, file.get(begin..).unwrap_or_default());
    push_hex(file, check & 0xffff, 4);
    file.extend_from_slice(b"\r\n");
}

fn push_hex(file: &mut Vec<u8>, number: u64, digits: u32) {
    for digit in (0..digits).rev() {
        let nibble = (number >> (4 * digit)) as u8 & 15;
        file.push(if nibble < 10 { b'0' + nibble } else { b'a' + nibble - 10 });
    }
}

/// Tells what an annotation line is; its end is part of it.
pub(super) fn read_line(line: &[u8]) -> Line {
    if let Some(group) = read_group(line) {
        return Line::Group(group);
    }
    // What is damaged may be the word itself. No other annotation that is known is as long.
    let alike = BEGIN.iter().zip(line).filter(|(a, b)| a == b).count();
    let is_one = alike + 1 >= BEGIN.len() || line.len() >= SHORTEST && !line.starts_with(b"#TS:");
    if is_one { Line::Damaged } else { Line::Other }
}

/// Reads a line that is sound to its last byte.
pub(super) fn read_group(line: &[u8]) -> Option<Group> {
    let text = std::str::from_utf8(line.strip_prefix(BEGIN)?).ok()?;
    let mut words = text.split(' ');
    let checksum = u64::from_str_radix(words.next()?, 16).ok()?;
    let group = Group { checksum, len: words.next()?.parse().ok()? };
    // Written again, it has to be the same to the last byte.
    let mut again = Vec::with_capacity(line.len());
    push_line(&mut again, group.checksum, group.len);
    (again == line).then_some(group)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_says_what_follows_it() {
        let mut file = Vec::new();
        push_group(&mut file, [b"12345", b"6789"]);
        let (line, body) = file.split_at(file.len() - 9);
        assert_eq!(body, b"123456789");
        // The check value of the CRC-64 that Redis uses.
        assert_eq!(read_line(line), Line::Group(Group { checksum: 0xe9c6_d914_c4b8_d9ca, len: 9 }));
        assert_eq!(&line[..23], b"#CRC:e9c6d914c4b8d9ca 9");
        assert_eq!(read_line(b"#TS:1700000000\r\n"), Line::Other);
        assert_eq!(read_line(b"#\r\n"), Line::Other);
    }

    #[test]
    fn every_flipped_bit_of_a_line_is_seen() {
        let mut line = Vec::new();
        push_line(&mut line, 0x0123_4567_89ab_cdef, 1234);
        for bit in 8..line.len() * 8 {
            let mut flipped = line.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(read_line(&flipped), Line::Damaged, "bit {bit}");
        }
    }
}
