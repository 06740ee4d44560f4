//! A RESP2/RESP3 value and its decoder, written apart from `mtcache-protocol` on purpose: a test that read our server's
//! answers with our server's own decoder would not see a mistake that both share. Texts are kept as the server sent them
//! (doubles, big numbers), because the tests compare the text. Deliberately absent: speed, and limits against a hostile
//! server, except a bound on nesting.

use std::fmt;
use std::io::{self, BufRead, Read};

/// The deepest nesting of a reply that is read; Redis itself nests Lua tables less deep.
const MAX_DEPTH: usize = 256;

/// One reply, as close to its bytes as the tests need: null bulk, null array and RESP3 null stay apart.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Value {
    /// `+OK`
    Simple(Vec<u8>),
    /// `-ERR ...`
    Error(Vec<u8>),
    /// `:1`
    Integer(i64),
    /// `$3`
    Bulk(Vec<u8>),
    /// `$-1`
    NullBulk,
    /// `*-1`
    NullArray,
    /// `_`
    Null,
    /// `*2`
    Array(Vec<Value>),
    /// `%1`, in the order sent.
    Map(Vec<(Value, Value)>),
    /// `~2`, in the order sent.
    Set(Vec<Value>),
    /// `>2`
    Push(Vec<Value>),
    /// `,1.5`, its text.
    Double(Vec<u8>),
    /// `#t`
    Boolean(bool),
    /// `(123`, its text.
    BigNumber(Vec<u8>),
    /// `=7`, with the three letters and colon before the text.
    Verbatim(Vec<u8>),
    /// `!5`
    BulkError(Vec<u8>),
}

impl Value {
    /// The bytes of a bulk, simple or verbatim string or a double.
    pub fn bytes(&self) -> Option<&[u8]> {
        match self {
            Self::Simple(text) | Self::Bulk(text) | Self::Double(text) => Some(text),
            Self::Verbatim(text) => Some(text.get(4..).unwrap_or_default()),
            _ => None,
        }
    }

    /// As [`Value::bytes`], as text; bytes that are not UTF-8 are replaced.
    pub fn text(&self) -> Option<String> {
        self.bytes().map(|bytes| String::from_utf8_lossy(bytes).into_owned())
    }

    /// The number of an integer reply.
    pub fn integer(&self) -> Option<i64> {
        match self {
            Self::Integer(number) => Some(*number),
            _ => None,
        }
    }

    /// The elements of an array, set or push; a map's keys and values in turn.
    pub fn elements(&self) -> Option<Vec<&Value>> {
        match self {
            Self::Array(items) | Self::Set(items) | Self::Push(items) => Some(items.iter().collect()),
            Self::Map(pairs) => Some(pairs.iter().flat_map(|(key, value)| [key, value]).collect()),
            _ => None,
        }
    }

    /// The text of an error reply.
    pub fn error(&self) -> Option<String> {
        match self {
            Self::Error(text) | Self::BulkError(text) => Some(String::from_utf8_lossy(text).into_owned()),
            _ => None,
        }
    }

    /// Whether this is any of the three nulls.
    pub fn is_null(&self) -> bool {
        matches!(self, Self::NullBulk | Self::NullArray | Self::Null)
    }
}

impl fmt::Debug for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Simple(text) => write!(f, "+{}", text.escape_ascii()),
            Self::Error(text) => write!(f, "-{}", text.escape_ascii()),
            Self::Integer(number) => write!(f, ":{number}"),
            Self::Bulk(text) => write!(f, "\"{}\"", text.escape_ascii()),
            Self::NullBulk => f.write_str("(null bulk)"),
            Self::NullArray => f.write_str("(null array)"),
            Self::Null => f.write_str("(null)"),
            Self::Array(items) => f.debug_list().entries(items).finish(),
            Self::Map(pairs) => f.debug_map().entries(pairs.iter().map(|(key, value)| (key, value))).finish(),
            Self::Set(items) => f.write_str("set").and_then(|()| f.debug_set().entries(items).finish()),
            Self::Push(items) => f.write_str("push").and_then(|()| f.debug_list().entries(items).finish()),
            Self::Double(text) => write!(f, ",{}", text.escape_ascii()),
            Self::Boolean(claim) => write!(f, "#{claim}"),
            Self::BigNumber(text) => write!(f, "({}", text.escape_ascii()),
            Self::Verbatim(text) => write!(f, "verbatim\"{}\"", text.escape_ascii()),
            Self::BulkError(text) => write!(f, "!{}", text.escape_ascii()),
        }
    }
}

/// Reads one reply, waiting for all of it. Attributes (`|`) are read and dropped.
pub fn read_value(reader: &mut impl BufRead) -> io::Result<Value> {
    read_nested(reader, 0)
}

/// Appends a command as an array of bulk strings.
pub fn write_command<A: AsRef<[u8]>>(out: &mut Vec<u8>, args: &[A]) {
    out.extend_from_slice(format!("*{}\r\n", args.len()).as_bytes());
    for arg in args {
        let arg = arg.as_ref();
        out.extend_from_slice(format!("${}\r\n", arg.len()).as_bytes());
        out.extend_from_slice(arg);
        out.extend_from_slice(b"\r\n");
    }
}

fn read_nested(reader: &mut impl BufRead, depth: usize) -> io::Result<Value> {
    if depth > MAX_DEPTH {
        return Err(malformed("nested too deep"));
    }
    loop {
        let line = read_line(reader)?;
        let Some((&kind, rest)) = line.split_first() else {
            return Err(malformed("empty line"));
        };
        return Ok(match kind {
            b'+' => Value::Simple(rest.to_vec()),
            b'-' => Value::Error(rest.to_vec()),
            b':' => Value::Integer(number(rest)?),
            b',' => Value::Double(rest.to_vec()),
            b'(' => Value::BigNumber(rest.to_vec()),
            b'#' => Value::Boolean(rest == b"t"),
            b'_' => Value::Null,
            b'$' => match number(rest)? {
                -1 => Value::NullBulk,
                length => Value::Bulk(read_bulk(reader, length)?),
            },
            b'=' => Value::Verbatim(read_bulk(reader, number(rest)?)?),
            b'!' => Value::BulkError(read_bulk(reader, number(rest)?)?),
            b'*' => match number(rest)? {
                -1 => Value::NullArray,
                length => Value::Array(read_items(reader, length, depth)?),
            },
            b'~' => Value::Set(read_items(reader, number(rest)?, depth)?),
            b'>' => Value::Push(read_items(reader, number(rest)?, depth)?),
            b'%' => Value::Map(read_pairs(reader, number(rest)?, depth)?),
            b'|' => {
                read_pairs(reader, number(rest)?, depth)?;
                continue;
            }
            _ => {
                return Err(malformed(&format!(
                    "unknown type in line {:?}",
                    line.escape_ascii().to_string()
                )));
            }
        });
    }
}

fn read_items(reader: &mut impl BufRead, length: i64, depth: usize) -> io::Result<Vec<Value>> {
    (0..length).map(|_| read_nested(reader, depth + 1)).collect()
}

fn read_pairs(reader: &mut impl BufRead, length: i64, depth: usize) -> io::Result<Vec<(Value, Value)>> {
    (0..length).map(|_| Ok((read_nested(reader, depth + 1)?, read_nested(reader, depth + 1)?))).collect()
}

fn read_bulk(reader: &mut impl BufRead, length: i64) -> io::Result<Vec<u8>> {
    let length = u64::try_from(length).map_err(|_| malformed("negative length"))?;
    let mut bytes = Vec::new();
    reader.by_ref().take(length).read_to_end(&mut bytes)?;
    let mut end = [0; 2];
    reader.read_exact(&mut end)?;
    if bytes.len() as u64 != length || end != *b"\r\n" {
        return Err(malformed("a bulk string does not end where its length says"));
    }
    Ok(bytes)
}

fn read_line(reader: &mut impl BufRead) -> io::Result<Vec<u8>> {
    let mut line = Vec::new();
    reader.read_until(b'\n', &mut line)?;
    if line.is_empty() {
        return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the server closed the connection"));
    }
    if !line.ends_with(b"\r\n") {
        return Err(malformed("a line without its end"));
    }
    line.truncate(line.len() - 2);
    Ok(line)
}

fn number(text: &[u8]) -> io::Result<i64> {
    std::str::from_utf8(text)
        .ok()
        .and_then(|text| text.parse().ok())
        .ok_or_else(|| malformed(&format!("not a number: {:?}", text.escape_ascii().to_string())))
}

fn malformed(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("malformed reply: {what}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decode(mut bytes: &[u8]) -> Value {
        read_value(&mut bytes).unwrap()
    }

    #[test]
    fn every_type_of_both_protocols_is_read() {
        assert_eq!(decode(b"+OK\r\n"), Value::Simple(b"OK".to_vec()));
        assert_eq!(decode(b"$-1\r\n"), Value::NullBulk);
        assert_eq!(decode(b"*-1\r\n"), Value::NullArray);
        assert_eq!(decode(b"_\r\n"), Value::Null);
        assert_eq!(decode(b"$4\r\na\r\nb\r\n"), Value::Bulk(b"a\r\nb".to_vec()));
        assert_eq!(decode(b",1.50\r\n"), Value::Double(b"1.50".to_vec()));
        assert_eq!(decode(b"=6\r\ntxt:hi\r\n").text().unwrap(), "hi");
        assert_eq!(
            decode(b"%1\r\n+a\r\n~2\r\n:1\r\n#t\r\n"),
            Value::Map(vec![(
                Value::Simple(b"a".to_vec()),
                Value::Set(vec![Value::Integer(1), Value::Boolean(true)])
            )])
        );
        assert_eq!(decode(b"|1\r\n+a\r\n:1\r\n:7\r\n"), Value::Integer(7));
    }

    #[test]
    fn a_cut_or_malformed_reply_is_an_error_not_a_value() {
        for bytes in
            [&b""[..], b"+OK", b"$5\r\nab\r\n", b"$2\r\nabcd\r\n", b"*2\r\n:1\r\n", b"?\r\n", b":x\r\n"]
        {
            assert!(read_value(&mut &*bytes).is_err(), "{}", bytes.escape_ascii());
        }
    }

    #[test]
    fn a_command_is_an_array_of_bulks() {
        let mut out = Vec::new();
        write_command(&mut out, &["GET", "k"]);
        assert_eq!(out, b"*2\r\n$3\r\nGET\r\n$1\r\nk\r\n");
    }
}
