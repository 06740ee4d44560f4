//! A line typed by hand, split into arguments the way Redis splits it.
//!
//! Double quotes know the escapes `\n \r \t \b \a \xHH` and `\` before anything else; single quotes know
//! only `\'`. A closing quote must be followed by white space or the end. Unlike in C, a NUL byte is an
//! ordinary byte and does not cut the line short.

use crate::error::ProtocolErrorKind;

/// Splits `line`, appending the arguments' bytes to `bytes` and telling `argument` where each lies there.
pub(crate) fn split(
    line: &[u8],
    bytes: &mut Vec<u8>,
    mut argument: impl FnMut(usize, usize),
) -> Result<(), ProtocolErrorKind> {
    let mut rest = line;
    loop {
        rest = rest.trim_ascii_start_c();
        if rest.is_empty() {
            return Ok(());
        }
        let start = bytes.len();
        rest = take_argument(rest, bytes)?;
        argument(start, bytes.len());
    }
}

/// Splits `line` into owned arguments; for tools and configuration files, which use the same quoting.
///
/// `None` when the quotes do not balance.
pub fn split_args(line: &[u8]) -> Option<Vec<Vec<u8>>> {
    let mut bytes = Vec::new();
    let mut ranges = Vec::new();
    split(line, &mut bytes, |start, end| ranges.push(start..end)).ok()?;
    Some(ranges.into_iter().map(|range| bytes.get(range).unwrap_or_default().to_vec()).collect())
}

/// Takes one argument off the front of `rest`, which does not start with white space.
fn take_argument<'a>(mut rest: &'a [u8], bytes: &mut Vec<u8>) -> Result<&'a [u8], ProtocolErrorKind> {
    loop {
        match rest {
            [] => return Ok(rest),
            [b' ' | b'\n' | b'\r' | b'\t', tail @ ..] => return Ok(tail),
            [b'"', tail @ ..] => return after_quote(take_double_quoted(tail, bytes)),
            [b'\'', tail @ ..] => return after_quote(take_single_quoted(tail, bytes)),
            [byte, tail @ ..] => {
                bytes.push(*byte);
                rest = tail;
            }
        }
    }
}

/// What follows a closing quote must be the end of the argument; `None` means that the quote never closed.
fn after_quote(rest: Option<&[u8]>) -> Result<&[u8], ProtocolErrorKind> {
    match rest {
        Some(rest) if rest.first().is_none_or(|b| is_c_space(*b)) => Ok(rest),
        _ => Err(ProtocolErrorKind::UnbalancedQuotes),
    }
}

fn take_double_quoted<'a>(mut rest: &'a [u8], bytes: &mut Vec<u8>) -> Option<&'a [u8]> {
    loop {
        let (byte, tail) = match rest {
            [] => return None,
            [b'"', tail @ ..] => return Some(tail),
            [b'\\', b'x', high, low, tail @ ..] if high.is_ascii_hexdigit() && low.is_ascii_hexdigit() => {
                (hex_value(*high) << 4 | hex_value(*low), tail)
            }
            [b'\\', escaped, tail @ ..] => (unescape(*escaped), tail),
            [byte, tail @ ..] => (*byte, tail),
        };
        bytes.push(byte);
        rest = tail;
    }
}

fn take_single_quoted<'a>(mut rest: &'a [u8], bytes: &mut Vec<u8>) -> Option<&'a [u8]> {
    loop {
        let (byte, tail) = match rest {
            [] => return None,
            [b'\'', tail @ ..] => return Some(tail),
            [b'\\', b'\'', tail @ ..] => (b'\'', tail),
            [byte, tail @ ..] => (*byte, tail),
        };
        bytes.push(byte);
        rest = tail;
    }
}

fn unescape(byte: u8) -> u8 {
    match byte {
        b'n' => b'\n',
        b'r' => b'\r',
        b't' => b'\t',
        b'b' => 0x08,
        b'a' => 0x07,
        other => other,
    }
}

fn hex_value(digit: u8) -> u8 {
    match digit {
        b'0'..=b'9' => digit - b'0',
        _ => (digit | 0x20).wrapping_sub(b'a').wrapping_add(10),
    }
}

/// White space as C's `isspace` knows it: Rust's notion lacks the vertical tab.
fn is_c_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\n' | 0x0b | 0x0c | b'\r')
}

trait TrimC {
    fn trim_ascii_start_c(&self) -> &Self;
}

impl TrimC for [u8] {
    fn trim_ascii_start_c(&self) -> &Self {
        let start = self.iter().position(|b| !is_c_space(*b)).unwrap_or(self.len());
        self.get(start..).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::split_args;

    #[track_caller]
    fn check(line: &str, expected: &[&[u8]]) {
        assert_eq!(split_args(line.as_bytes()).unwrap(), expected, "{line:?}");
    }

    #[test]
    fn lines_split_at_white_space() {
        check("", &[]);
        check(" \t\x0b\x0c ", &[]);
        check("  get\t key ", &[b"get", b"key"]);
        check("a\x0bb", &[b"a\x0bb"]);
        check("nul\0byte x", &[b"nul\0byte", b"x"]);
    }

    #[test]
    fn quotes_and_escapes_read_as_in_redis() {
        check(r#"set k "a b""#, &[b"set", b"k", b"a b"]);
        check(r#""\x41\xfF\n\r\t\b\a\q\"" "\xg1""#, &[b"A\xff\n\r\t\x08\x07q\"", b"xg1"]);
        check(r"'a\'b\n'", &[br"a'b\n"]);
        check(r#"foo"bar" ''"#, &[b"foobar", b""]);
        check(r#""""#, &[b""]);
    }

    #[test]
    fn unbalanced_quotes_are_refused() {
        for line in [r#"""#, "'", r#""a"b"#, "'a'b", r#""a\""#, r"'a\'", r#"a"b"c"#] {
            assert_eq!(split_args(line.as_bytes()), None, "{line:?}");
        }
    }
}
