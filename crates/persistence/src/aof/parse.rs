//! One record of an append-only file from bytes: a command, or an annotation line.
//!
//! Stricter than Redis, which takes `*3x`, a missing carriage return and any two bytes after a string: such
//! bytes come from damage only, and read on they would pass damage for data. Never panics, and allocates no
//! more than the bytes that are there account for, whatever a header announces.

use std::ops::Range;

/// The longest annotation line, its end included, that Redis 7 reads.
pub(crate) const MAX_ANNOTATION_BYTES: usize = 1024;

/// The shortest argument: `$0`, a line end, nothing, a line end.
const MIN_ARG_BYTES: usize = 6;

/// The longest header line: its sign, twenty digits, the line end.
const MAX_HEADER_BYTES: usize = 23;

/// What the bytes begin with.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Parsed {
    /// A command of so many bytes; its arguments have been stored.
    Command(usize),
    /// An annotation line of so many bytes.
    Annotation(usize),
    /// A record that has at least so many bytes, more than there are.
    Incomplete(usize),
    /// Something else, noticed at this place.
    Bad(usize, &'static str),
}

/// Reads the record at the beginning of `bytes`, and stores where its arguments are.
pub(crate) fn parse(bytes: &[u8], max_bulk_bytes: usize, args: &mut Vec<Range<usize>>) -> Parsed {
    args.clear();
    match bytes.first() {
        None => Parsed::Incomplete(1),
        Some(b'#') => annotation(bytes),
        Some(b'*') => command(bytes, max_bulk_bytes, args).unwrap_or_else(|stop| stop),
        Some(_) => Parsed::Bad(0, "neither a command (`*`) nor an annotation (`#`) begins here"),
    }
}

fn annotation(bytes: &[u8]) -> Parsed {
    match bytes.iter().take(MAX_ANNOTATION_BYTES).position(|&byte| byte == b'\n') {
        Some(end) => Parsed::Annotation(end + 1),
        None if bytes.len() < MAX_ANNOTATION_BYTES => Parsed::Incomplete(bytes.len() + 1),
        None => Parsed::Bad(0, "an annotation line does not end"),
    }
}

fn command(bytes: &[u8], max_bulk_bytes: usize, args: &mut Vec<Range<usize>>) -> Result<Parsed, Parsed> {
    let (count, mut at) = header(bytes, 0, b'*')?;
    if count == 0 || count > i32::MAX as usize {
        return Err(Parsed::Bad(0, "the number of arguments is out of range"));
    }
    for left in (0..count).rev() {
        let (len, begin) = header(bytes, at, b'$').map_err(|stop| needing_more(stop, left))?;
        if len > max_bulk_bytes {
            return Err(Parsed::Bad(at, "a string is longer than proto-max-bulk-len allows"));
        }
        let end = begin + len;
        match bytes.get(end..end + 2) {
            Some(b"\r\n") => {}
            Some(_) => return Err(Parsed::Bad(end, "a string does not end where its length says")),
            None => {
                // Of the line end the first byte may be there.
                if bytes.get(end).is_some_and(|&byte| byte != b'\r') {
                    return Err(Parsed::Bad(end, "a string does not end where its length says"));
                }
                return Err(Parsed::Incomplete(end + 2 + left * MIN_ARG_BYTES));
            }
        }
        args.push(begin..end);
        at = end + 2;
    }
    Ok(Parsed::Command(at))
}

/// What `stop` needs, and so many arguments after it.
fn needing_more(stop: Parsed, args: usize) -> Parsed {
    match stop {
        Parsed::Incomplete(needed) => Parsed::Incomplete(needed + args * MIN_ARG_BYTES),
        other => other,
    }
}

/// Reads the line `sign NUMBER` at `at`: the number, and where the line ends.
fn header(bytes: &[u8], at: usize, sign: u8) -> Result<(usize, usize), Parsed> {
    const NOT_A_HEADER: &str = "a length is not a plain number";
    let line = bytes.get(at..).unwrap_or_default();
    match line.first() {
        None => return Err(Parsed::Incomplete(at + 4)),
        Some(&first) if first != sign => return Err(Parsed::Bad(at, "an argument does not begin with `$`")),
        Some(_) => {}
    }
    let mut number = 0_usize;
    for (place, &byte) in line.iter().enumerate().skip(1).take(MAX_HEADER_BYTES) {
        match byte {
            b'0'..=b'9' => {
                let digit = usize::from(byte - b'0');
                // A number that does not fit is out of every range that is checked.
                number = number.saturating_mul(10).saturating_add(digit);
            }
            b'\r' if place > 1 => {
                return match line.get(place + 1) {
                    Some(b'\n') => Ok((number, at + place + 2)),
                    Some(_) => Err(Parsed::Bad(at + place, NOT_A_HEADER)),
                    None => Err(Parsed::Incomplete(at + place + 2)),
                };
            }
            _ => return Err(Parsed::Bad(at + place, NOT_A_HEADER)),
        }
    }
    if line.len() > MAX_HEADER_BYTES {
        return Err(Parsed::Bad(at, NOT_A_HEADER));
    }
    // At least the line end is missing, and a digit if there is none yet.
    Err(Parsed::Incomplete(at + line.len().max(2) + 2))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const LIMIT: usize = 512 * 1024 * 1024;

    fn run(bytes: &[u8]) -> (Parsed, Vec<Vec<u8>>) {
        let mut args = Vec::new();
        let parsed = parse(bytes, LIMIT, &mut args);
        (parsed, args.into_iter().map(|range| bytes[range].to_vec()).collect())
    }

    #[test]
    fn a_command_is_read_with_its_arguments() {
        let (parsed, args) = run(b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$0\r\n\r\n*1");
        assert_eq!(parsed, Parsed::Command(26));
        assert_eq!(args, [b"SET".to_vec(), b"k".to_vec(), Vec::new()]);
    }

    #[test]
    fn every_prefix_of_a_command_is_incomplete_and_asks_for_no_more_than_there_is() {
        let whole = b"*3\r\n$3\r\nSET\r\n$10\r\n0123456789\r\n$0\r\n\r\n";
        for len in 0..whole.len() {
            match run(&whole[..len]).0 {
                Parsed::Incomplete(needed) => {
                    assert!(needed > len && needed <= whole.len(), "{len}: {needed}");
                }
                other => panic!("{len}: {other:?}"),
            }
        }
    }

    #[test]
    fn bytes_that_no_writer_wrote_are_bad_where_they_are() {
        for (bytes, at) in [
            (&b"SET k v\r\n"[..], 0),
            (b"\0\0\0", 0),
            (b"*0\r\n", 0),
            (b"*-1\r\n", 1),
            (b"*\r\n", 1),
            (b"*1x\r\n", 2),
            (b"*1\n$4\r\nPING\r\n", 2),
            (b"*1\rx", 2),
            (b"*2147483648\r\n", 0),
            (b"*99999999999999999999999999\r\n", 0),
            (b"*1\r\n:1\r\n", 4),
            (b"*1\r\n$-1\r\n", 5),
            (b"*1\r\n$536870913\r\n", 4),
            (b"*1\r\n$4\r\nPINGxx", 12),
            (b"*1\r\n$4\r\nPINGx", 12),
        ] {
            match run(bytes).0 {
                Parsed::Bad(found, _) => assert_eq!(found, at, "{}", bytes.escape_ascii()),
                other => panic!("{} gave {other:?}", bytes.escape_ascii()),
            }
        }
    }

    #[test]
    fn a_header_that_announces_much_asks_for_it_without_taking_it() {
        let mut args = Vec::new();
        assert_eq!(
            parse(b"*2000000000\r\n", LIMIT, &mut args),
            Parsed::Incomplete(13 + 4 + 1_999_999_999 * 6)
        );
        assert_eq!(args.capacity(), 0);
    }

    #[test]
    fn annotation_lines_are_told_apart_and_bounded() {
        assert_eq!(run(b"#TS:1700000000\r\n*1").0, Parsed::Annotation(16));
        assert_eq!(run(b"#TS:17").0, Parsed::Incomplete(7));
        assert!(matches!(run(&[b'#'; 2000]).0, Parsed::Bad(0, _)));
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_without_a_panic(bytes in "[*$#0-9\r\nab]{0,60}") {
            let (parsed, args) = run(bytes.as_bytes());
            if let Parsed::Command(len) = parsed {
                prop_assert!(len <= bytes.len() && !args.is_empty());
            }
        }
    }
}
