//! The reply writer: one buffer, two protocol versions.
//!
//! A command says what it answers (a map, a double, nothing) and the version of the connection decides
//! the bytes: RESP3 has its own types, RESP2 gets what Redis sends instead. Beyond growth of the one
//! buffer nothing is allocated. Counts are taken on trust: who announces `array(3)` writes three replies.

use crate::double::write_double;
use crate::limits::MAX_REPLY_BYTES;

/// The protocol version that a connection speaks; RESP2 until `HELLO 3`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Version {
    /// What every Redis client since 1.2 understands.
    #[default]
    Resp2,
    /// Redis 6 and later: maps, sets, doubles, pushes.
    Resp3,
}

impl Version {
    /// The number that `HELLO` reports and takes.
    pub const fn number(self) -> u8 {
        match self {
            Self::Resp2 => 2,
            Self::Resp3 => 3,
        }
    }
}

/// The place of a length that is not known yet; see [`Reply::begin_deferred`].
#[derive(Debug)]
#[must_use = "a deferred header that is never ended leaves a broken reply"]
pub struct Deferred(usize);

/// Room kept for a deferred header: a type byte, one digit and CRLF, which fits without moving the rest.
const DEFERRED_ROOM: usize = 4;

/// Encoded replies, appended one after another.
///
/// ```
/// use mtcache_protocol::{Reply, Version};
///
/// let mut reply = Reply::new(Version::Resp3);
/// reply.map(1);
/// reply.bulk(b"age");
/// reply.integer(3);
/// assert_eq!(reply.as_bytes(), b"%1\r\n$3\r\nage\r\n:3\r\n");
/// ```
#[derive(Debug)]
pub struct Reply {
    buf: Vec<u8>,
    version: Version,
    ceiling: usize,
    is_cut: bool,
}

impl Default for Reply {
    fn default() -> Self {
        Self::new(Version::default())
    }
}

impl Reply {
    /// An empty reply.
    pub const fn new(version: Version) -> Self {
        Self::with_buffer(Vec::new(), version)
    }

    /// Appends to `buf`, so that a connection keeps its allocation from batch to batch.
    pub const fn with_buffer(buf: Vec<u8>, version: Version) -> Self {
        Self { buf, version, ceiling: MAX_REPLY_BYTES, is_cut: false }
    }

    /// The version that the writers follow.
    pub const fn version(&self) -> Version {
        self.version
    }

    /// Changes the version for what is written from here on (`HELLO` answers in the new one).
    pub const fn set_version(&mut self, version: Version) {
        self.version = version;
    }

    /// What has been written so far.
    pub fn as_bytes(&self) -> &[u8] {
        &self.buf
    }

    /// Bytes written so far.
    pub const fn len(&self) -> usize {
        self.buf.len()
    }

    /// Whether nothing has been written.
    pub const fn is_empty(&self) -> bool {
        self.buf.is_empty()
    }

    /// The bytes that replies may have. Default: [`MAX_REPLY_BYTES`].
    pub const fn ceiling(&self) -> usize {
        self.ceiling
    }

    /// Changes the ceiling.
    pub const fn set_ceiling(&mut self, ceiling: usize) {
        self.ceiling = ceiling;
    }

    /// Whether more was written than may be. Nothing stops a writer: whoever writes element by element asks before each, stops,
    /// and leaves half a reply, which is never sent.
    #[inline]
    pub const fn is_over(&self) -> bool {
        self.is_cut || self.buf.len() > self.ceiling
    }

    /// Drops what was written after the first `len` bytes, with its memory, because it is [over](Self::is_over) the ceiling. It
    /// stays so until it is [cleared](Self::clear).
    pub fn cut(&mut self, len: usize) {
        self.buf.truncate(len);
        self.buf.shrink_to_fit();
        self.is_cut = true;
    }

    /// Forgets what was written and keeps the allocation.
    pub fn clear(&mut self) {
        self.buf.clear();
        self.is_cut = false;
    }

    /// Drops what was written after the first `len` bytes: takes back a reply that turned into an error.
    pub fn truncate(&mut self, len: usize) {
        self.buf.truncate(len);
    }

    /// Makes room for `additional` bytes at once.
    pub fn reserve(&mut self, additional: usize) {
        self.buf.reserve(additional);
    }

    /// The bytes, giving up the writer.
    pub fn into_bytes(self) -> Vec<u8> {
        self.buf
    }

    /// The bytes, leaving an empty writer of the same version.
    pub fn take(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.buf)
    }

    /// The buffer itself, for a caller that drains it as the socket takes it.
    pub const fn buffer_mut(&mut self) -> &mut Vec<u8> {
        &mut self.buf
    }

    /// A status line such as `+QUEUED`; line breaks in it become spaces.
    pub fn simple(&mut self, text: &str) {
        self.line(b'+', text.as_bytes());
    }

    /// `+OK`.
    pub fn ok(&mut self) {
        self.buf.extend_from_slice(b"+OK\r\n");
    }

    /// An error line from its text without the dash (`ERR no such key`); line breaks become spaces.
    pub fn error(&mut self, text: impl AsRef<[u8]>) {
        self.line(b'-', text.as_ref());
    }

    /// A 64-bit integer.
    pub fn integer(&mut self, value: i64) {
        write_integer(&mut self.buf, value);
    }

    /// A binary-safe string.
    pub fn bulk(&mut self, data: &[u8]) {
        write_bulk(&mut self.buf, data);
    }

    /// A signed number as a string.
    pub fn bulk_i64(&mut self, value: i64) {
        let mut digits = itoa::Buffer::new();
        write_bulk(&mut self.buf, digits.format(value).as_bytes());
    }

    /// An unsigned number as a string.
    pub fn bulk_u64(&mut self, value: u64) {
        let mut digits = itoa::Buffer::new();
        write_bulk(&mut self.buf, digits.format(value).as_bytes());
    }

    /// No value: `_` in RESP3, the null bulk string in RESP2.
    pub fn null(&mut self) {
        self.by_version(b"$-1\r\n", b"_\r\n");
    }

    /// No list: `_` in RESP3, the null array in RESP2.
    pub fn null_array(&mut self) {
        self.by_version(b"*-1\r\n", b"_\r\n");
    }

    /// Announces `n` elements.
    pub fn array(&mut self, n: usize) {
        write_header(&mut self.buf, b'*', n);
    }

    /// Announces `pairs` keys, each followed by its value; RESP2 sees an array twice as long.
    pub fn map(&mut self, pairs: usize) {
        match self.version {
            Version::Resp2 => write_header(&mut self.buf, b'*', pairs * 2),
            Version::Resp3 => write_header(&mut self.buf, b'%', pairs),
        }
    }

    /// Announces `n` members of a set; an array in RESP2.
    pub fn set(&mut self, n: usize) {
        self.aggregate(b'~', n);
    }

    /// Announces an out-of-band message of `n` elements; an array in RESP2.
    pub fn push(&mut self, n: usize) {
        self.aggregate(b'>', n);
    }

    /// Announces `pairs` remarks on the reply that follows them. RESP2 has no such thing: write none there.
    pub fn attribute(&mut self, pairs: usize) {
        write_header(&mut self.buf, b'|', pairs);
    }

    /// A floating point number: `,` in RESP3, a bulk string in RESP2, the text of `%.17g` in both.
    pub fn double(&mut self, value: f64) {
        match self.version {
            Version::Resp3 => {
                self.buf.push(b',');
                write_double(&mut self.buf, value);
                self.buf.extend_from_slice(b"\r\n");
            }
            Version::Resp2 => {
                // The text has at most 24 bytes; its two-digit length is patched in afterwards.
                let start = self.buf.len();
                self.buf.extend_from_slice(b"$0\r\n");
                write_double(&mut self.buf, value);
                let len = self.buf.len() - start - DEFERRED_ROOM;
                patch_header(&mut self.buf, start, b'$', len);
                self.buf.extend_from_slice(b"\r\n");
            }
        }
    }

    /// True or false: `#t` and `#f` in RESP3, 1 and 0 in RESP2.
    pub fn bool(&mut self, value: bool) {
        if value {
            self.by_version(b":1\r\n", b"#t\r\n");
        } else {
            self.by_version(b":0\r\n", b"#f\r\n");
        }
    }

    /// Text with its format in three letters (`txt`, `mkd`), meant for people; a bulk string in RESP2.
    pub fn verbatim(&mut self, ext: [u8; 3], data: &[u8]) {
        if self.version == Version::Resp2 {
            return self.bulk(data);
        }
        self.buf.reserve(data.len() + HEADER_MAX + 6);
        write_header(&mut self.buf, b'=', data.len() + 4);
        self.buf.extend_from_slice(&ext);
        self.buf.push(b':');
        self.buf.extend_from_slice(data);
        self.buf.extend_from_slice(b"\r\n");
    }

    /// An integer of any size from its digits; a bulk string in RESP2.
    pub fn big_number(&mut self, digits: &str) {
        self.big_number_bytes(digits.as_bytes());
    }

    pub(crate) fn big_number_bytes(&mut self, digits: &[u8]) {
        match self.version {
            Version::Resp2 => self.bulk(digits),
            Version::Resp3 => self.line(b'(', digits),
        }
    }

    /// Appends bytes that are encoded already.
    pub fn raw(&mut self, encoded: &[u8]) {
        self.buf.extend_from_slice(encoded);
    }

    /// Starts an aggregate whose length is known only at the end. Several may be open at once when each is
    /// ended before the one around it; [`Reply::cancel`] takes everything since the mark back.
    ///
    /// ```
    /// # use mtcache_protocol::{Reply, Version};
    /// let mut reply = Reply::new(Version::Resp2);
    /// let mark = reply.begin_deferred();
    /// reply.bulk(b"a");
    /// reply.end_array(mark, 1);
    /// assert_eq!(reply.as_bytes(), b"*1\r\n$1\r\na\r\n");
    /// ```
    pub fn begin_deferred(&mut self) -> Deferred {
        let at = self.buf.len();
        self.buf.extend_from_slice(&[0; DEFERRED_ROOM]);
        Deferred(at)
    }

    /// Makes what was written since `mark` an array of `n`.
    pub fn end_array(&mut self, Deferred(at): Deferred, n: usize) {
        patch_header(&mut self.buf, at, b'*', n);
    }

    /// Makes what was written since `mark` a map of `pairs`.
    pub fn end_map(&mut self, Deferred(at): Deferred, pairs: usize) {
        match self.version {
            Version::Resp2 => patch_header(&mut self.buf, at, b'*', pairs * 2),
            Version::Resp3 => patch_header(&mut self.buf, at, b'%', pairs),
        }
    }

    /// Makes what was written since `mark` a set of `n`.
    pub fn end_set(&mut self, Deferred(at): Deferred, n: usize) {
        let kind = self.aggregate_type(b'~');
        patch_header(&mut self.buf, at, kind, n);
    }

    /// Makes what was written since `mark` a push of `n`.
    pub fn end_push(&mut self, Deferred(at): Deferred, n: usize) {
        let kind = self.aggregate_type(b'>');
        patch_header(&mut self.buf, at, kind, n);
    }

    /// Takes back everything since `mark`.
    pub fn cancel(&mut self, Deferred(at): Deferred) {
        self.buf.truncate(at);
    }

    fn by_version(&mut self, resp2: &[u8], resp3: &[u8]) {
        self.buf.extend_from_slice(match self.version {
            Version::Resp2 => resp2,
            Version::Resp3 => resp3,
        });
    }

    fn aggregate_type(&self, resp3: u8) -> u8 {
        match self.version {
            Version::Resp2 => b'*',
            Version::Resp3 => resp3,
        }
    }

    fn aggregate(&mut self, resp3: u8, n: usize) {
        let kind = self.aggregate_type(resp3);
        write_header(&mut self.buf, kind, n);
    }

    pub(crate) fn line(&mut self, kind: u8, text: &[u8]) {
        write_line(&mut self.buf, kind, text);
    }
}

/// Appends a bulk string.
#[inline]
pub fn write_bulk(buf: &mut Vec<u8>, data: &[u8]) {
    buf.reserve(data.len() + HEADER_MAX + 2);
    write_header(buf, b'$', data.len());
    buf.extend_from_slice(data);
    buf.extend_from_slice(b"\r\n");
}

/// Appends an integer.
#[inline]
pub fn write_integer(buf: &mut Vec<u8>, value: i64) {
    if let Ok(small) = u8::try_from(value)
        && small < 10
    {
        return buf.extend_from_slice(&[b':', b'0' + small, b'\r', b'\n']);
    }
    if let Ok(value @ 0..EIGHT_DIGITS) = u64::try_from(value) {
        return write_short_integer(buf, value);
    }
    let mut digits = itoa::Buffer::new();
    let digits = digits.format(value).as_bytes();
    buf.reserve(digits.len() + 3);
    buf.push(b':');
    buf.extend_from_slice(digits);
    buf.extend_from_slice(b"\r\n");
}

/// Numbers below this have at most eight digits.
const EIGHT_DIGITS: u64 = 100_000_000;

/// The line is put together in one word: digits that are written one by one and copied at once make the processor wait.
#[inline]
fn write_short_integer(buf: &mut Vec<u8>, value: u64) {
    let digits = eight_digits(value);
    // The last digit is one even if it is zero.
    let leading = (digits | 1 << 56).trailing_zeros() / 8;
    let count = 8 - leading;
    let text = (digits | 0x3030_3030_3030_3030) >> (8 * leading);
    let end = u128::from(u16::from_le_bytes(*b"\r\n"));
    let line = u128::from(b':') | u128::from(text) << 8 | end << (8 * (count + 1));
    let start = buf.len();
    buf.extend_from_slice(&line.to_le_bytes());
    buf.truncate(start + count as usize + 3);
}

/// The eight digits of a number below [`EIGHT_DIGITS`], the first one in the lowest byte, all of them found at once.
#[inline]
const fn eight_digits(value: u64) -> u64 {
    // Two numbers of four digits; four of two; eight of one. The quotients by 100 and 10 are exact in these ranges.
    let fours = (value / 10_000) | ((value % 10_000) << 32);
    let hundreds = ((fours * 10_486) >> 20) & 0x0000_007f_0000_007f;
    let twos = hundreds | (fours - hundreds * 100) << 16;
    let tens = ((twos * 103) >> 10) & 0x000f_000f_000f_000f;
    tens | (twos - tens * 10) << 8
}

/// Appends the header of an array of `n` (also that of a request with `n` arguments).
#[inline]
pub fn write_array_header(buf: &mut Vec<u8>, n: usize) {
    write_header(buf, b'*', n);
}

/// Appends a request: an array of bulk strings, as every client sends and every log holds it.
pub fn encode_command(args: &[&[u8]], buf: &mut Vec<u8>) {
    write_array_header(buf, args.len());
    for arg in args {
        write_bulk(buf, arg);
    }
}

/// A type byte, the 20 digits of a `u64` and CRLF.
const HEADER_MAX: usize = 23;

#[inline]
pub(crate) fn write_header(buf: &mut Vec<u8>, kind: u8, n: usize) {
    // Most headers have one or two digits: they go out in one piece.
    if n < 10 {
        buf.extend_from_slice(&[kind, b'0' + n as u8, b'\r', b'\n']);
    } else if n < 100 {
        buf.extend_from_slice(&[kind, b'0' + (n / 10) as u8, b'0' + (n % 10) as u8, b'\r', b'\n']);
    } else {
        write_long_header(buf, kind, n);
    }
}

#[inline]
fn write_long_header(buf: &mut Vec<u8>, kind: u8, n: usize) {
    if n < 1000 {
        let (hundreds, rest) = (n / 100, n % 100);
        let digit = |d: usize| b'0' + d as u8;
        return buf.extend_from_slice(&[
            kind,
            digit(hundreds),
            digit(rest / 10),
            digit(rest % 10),
            b'\r',
            b'\n',
        ]);
    }
    let mut digits = itoa::Buffer::new();
    let digits = digits.format(n).as_bytes();
    buf.reserve(digits.len() + 3);
    buf.push(kind);
    buf.extend_from_slice(digits);
    buf.extend_from_slice(b"\r\n");
}

/// Writes a header into the [`DEFERRED_ROOM`] bytes kept at `at`, moving what follows when it needs more.
fn patch_header(buf: &mut Vec<u8>, at: usize, kind: u8, n: usize) {
    let end = at + DEFERRED_ROOM;
    let Some(room) = buf.get_mut(at..end) else {
        debug_assert!(false, "the mark lies behind the end: the reply was truncated below it");
        return;
    };
    if n < 10 {
        room.copy_from_slice(&[kind, b'0' + n as u8, b'\r', b'\n']);
        return;
    }
    let mut digits = itoa::Buffer::new();
    let digits = digits.format(n).as_bytes();
    buf.splice(at..end, [kind].iter().chain(digits).chain(b"\r\n").copied());
}

pub(crate) fn write_line(buf: &mut Vec<u8>, kind: u8, text: &[u8]) {
    buf.reserve(text.len() + 3);
    buf.push(kind);
    let start = buf.len();
    buf.extend_from_slice(text);
    if memchr::memchr2(b'\r', b'\n', text).is_some() {
        for byte in buf.iter_mut().skip(start).filter(|b| matches!(**b, b'\r' | b'\n')) {
            *byte = b' ';
        }
    }
    buf.extend_from_slice(b"\r\n");
}

#[cfg(test)]
mod tests {
    use super::*;

    fn both(write: impl Fn(&mut Reply)) -> (String, String) {
        let text = |version| {
            let mut reply = Reply::new(version);
            write(&mut reply);
            String::from_utf8(reply.into_bytes()).unwrap()
        };
        (text(Version::Resp2), text(Version::Resp3))
    }

    fn check(write: impl Fn(&mut Reply), resp2: &str, resp3: &str) {
        assert_eq!(both(write), (resp2.to_owned(), resp3.to_owned()));
    }

    #[test]
    fn each_type_has_its_bytes_in_both_versions() {
        check(Reply::ok, "+OK\r\n", "+OK\r\n");
        check(|r| r.simple("PONG"), "+PONG\r\n", "+PONG\r\n");
        check(|r| r.error("ERR a\r\nb"), "-ERR a  b\r\n", "-ERR a  b\r\n");
        check(|r| r.bulk(b"hello"), "$5\r\nhello\r\n", "$5\r\nhello\r\n");
        check(|r| r.bulk_i64(-12), "$3\r\n-12\r\n", "$3\r\n-12\r\n");
        check(Reply::null, "$-1\r\n", "_\r\n");
        check(Reply::null_array, "*-1\r\n", "_\r\n");
        check(|r| r.map(3), "*6\r\n", "%3\r\n");
        check(|r| r.set(3), "*3\r\n", "~3\r\n");
        check(|r| r.push(3), "*3\r\n", ">3\r\n");
        check(|r| r.bool(true), ":1\r\n", "#t\r\n");
        check(|r| r.bool(false), ":0\r\n", "#f\r\n");
        check(|r| r.verbatim(*b"txt", b"hi"), "$2\r\nhi\r\n", "=6\r\ntxt:hi\r\n");
        check(|r| r.big_number("123"), "$3\r\n123\r\n", "(123\r\n");
        check(|r| r.double(1.5), "$3\r\n1.5\r\n", ",1.5\r\n");
        check(|r| r.double(0.1), "$19\r\n0.10000000000000001\r\n", ",0.10000000000000001\r\n");
        check(|r| r.double(f64::NEG_INFINITY), "$4\r\n-inf\r\n", ",-inf\r\n");
    }

    #[test]
    fn integers_of_every_width_are_written() {
        let edges = (0..19).flat_map(|zeros| [0, 1, 7].map(|less| 10_i64.pow(zeros) - less));
        let some = (0..100_000).map(|n| n * 1_009 % 100_000_007);
        for value in edges.chain(some).chain(-12..=10_100).chain([12345, i64::MAX, i64::MIN]) {
            check(|r| r.integer(value), &format!(":{value}\r\n"), &format!(":{value}\r\n"));
        }
        for n in [0, 9, 10, 99, 100, 999, 1000, 123_456_789] {
            check(|r| r.array(n), &format!("*{n}\r\n"), &format!("*{n}\r\n"));
        }
    }

    #[test]
    fn deferred_lengths_nest_and_grow() {
        let mut reply = Reply::new(Version::Resp3);
        let outer = reply.begin_deferred();
        let inner = reply.begin_deferred();
        for _ in 0..123 {
            reply.integer(1);
        }
        reply.end_set(inner, 123);
        let map = reply.begin_deferred();
        reply.end_map(map, 0);
        reply.end_array(outer, 2);
        let expected = format!("*2\r\n~123\r\n{}%0\r\n", ":1\r\n".repeat(123));
        assert_eq!(reply.as_bytes(), expected.as_bytes());
    }

    #[test]
    fn a_cancelled_reply_leaves_nothing() {
        let mut reply = Reply::new(Version::Resp2);
        reply.ok();
        let mark = reply.begin_deferred();
        reply.bulk(b"half");
        reply.cancel(mark);
        assert_eq!(reply.as_bytes(), b"+OK\r\n");
    }
}
