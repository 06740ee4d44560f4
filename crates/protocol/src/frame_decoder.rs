//! The reply decoder: bytes of either protocol version into [`Frame`]s, resumable and without recursion.
//!
//! Finished elements are taken out of the buffer at once and kept on an explicit stack, so a long reply that
//! arrives in many pieces is looked at once and nesting costs heap, up to a named limit. A header that
//! announces a million elements reserves room for a few. Streamed strings and aggregates (`$?`, `*?`), which
//! no Redis sends, are refused.

use crate::error::{ProtocolError, ProtocolErrorKind as Kind};
use crate::frame::Frame;
use crate::limits::ReplyLimits;
use crate::number::parse_i64;

/// Elements for which room is made before they arrive.
const RESERVED_ELEMENTS: usize = 64;
/// Longest line that holds a number, a boolean or a length.
const MAX_NUMBER_LINE: usize = 64;

/// Decodes one complete frame at the start of `bytes`: the frame and its length, or `None` when bytes are
/// missing. Meant for whole replies; what comes in pieces is better given to a [`FrameDecoder`].
///
/// ```
/// use mtcache_protocol::{Frame, decode_frame};
///
/// let (frame, len) = decode_frame(b"*2\r\n:1\r\n$1\r\na\r\n")?.unwrap();
/// assert_eq!(frame, Frame::Array(vec![Frame::Integer(1), Frame::bulk("a")]));
/// assert_eq!(len, 15);
/// assert!(decode_frame(b"*2\r\n:1\r\n")?.is_none());
/// # Ok::<(), mtcache_protocol::ProtocolError>(())
/// ```
pub fn decode_frame(bytes: &[u8]) -> Result<Option<(Frame, usize)>, ProtocolError> {
    let progress = FrameDecoder::new(ReplyLimits::default()).next(bytes)?;
    Ok(progress.frame.map(|frame| (frame, progress.consumed)))
}

/// What [`FrameDecoder::next`] did.
#[derive(Debug, Clone, PartialEq)]
pub struct FrameProgress {
    /// Bytes that are done with, also when the frame is not complete: drop them before the next call.
    pub consumed: usize,
    /// The frame, once complete.
    pub frame: Option<Frame>,
}

/// Decodes the replies of one connection.
#[derive(Debug)]
pub struct FrameDecoder {
    limits: ReplyLimits,
    open: Vec<Open>,
    /// No carriage return lies before this offset of the line being waited for.
    scanned: usize,
    failed: Option<Kind>,
}

/// An aggregate that waits for elements.
#[derive(Debug)]
struct Open {
    kind: Aggregate,
    missing: usize,
    items: Vec<Frame>,
}

#[derive(Debug)]
enum Aggregate {
    Array,
    Set,
    Push,
    Map,
    Attributes,
    /// The reply that these remarks are on.
    Subject(Vec<(Frame, Frame)>),
}

/// One step: a complete scalar, or the opening of an aggregate.
enum Item {
    Scalar(Frame),
    Aggregate(Aggregate, usize),
}

impl FrameDecoder {
    /// A decoder at the start of a reply.
    pub const fn new(limits: ReplyLimits) -> Self {
        Self { limits, open: Vec::new(), scanned: 0, failed: None }
    }

    /// Decodes the next frame from `bytes`, all that was received and not yet consumed. After an error the
    /// connection is lost and every further call repeats it.
    pub fn next(&mut self, bytes: &[u8]) -> Result<FrameProgress, ProtocolError> {
        if let Some(kind) = self.failed {
            return Err(kind.into());
        }
        self.advance(bytes).map_err(|kind| {
            self.failed = Some(kind);
            kind.into()
        })
    }

    /// Whether part of a frame has been taken.
    pub const fn is_mid_frame(&self) -> bool {
        !self.open.is_empty()
    }

    fn advance(&mut self, bytes: &[u8]) -> Result<FrameProgress, Kind> {
        let mut consumed = 0;
        loop {
            let rest = bytes.get(consumed..).unwrap_or_default();
            let Some((item, len)) = self.item(rest)? else {
                return Ok(FrameProgress { consumed, frame: None });
            };
            consumed += len;
            self.scanned = 0;
            let complete = match item {
                Item::Scalar(frame) => self.close(frame),
                Item::Aggregate(kind, count) => self.open(kind, count)?,
            };
            if complete.is_some() {
                return Ok(FrameProgress { consumed, frame: complete });
            }
        }
    }

    /// Begins an aggregate; an empty one is complete already.
    fn open(&mut self, kind: Aggregate, count: usize) -> Result<Option<Frame>, Kind> {
        if self.open.len() >= self.limits.max_depth {
            return Err(Kind::ReplyTooDeep);
        }
        if count > self.limits.max_elements {
            return Err(Kind::ReplyTooLong);
        }
        let missing = match kind {
            Aggregate::Map | Aggregate::Attributes => count.saturating_mul(2),
            _ => count,
        };
        let items = Vec::with_capacity(missing.min(RESERVED_ELEMENTS));
        self.open.push(Open { kind, missing, items });
        Ok(if missing == 0 { self.unwind() } else { None })
    }

    /// Puts a complete frame where it belongs; gives back the outermost one when that is complete.
    fn close(&mut self, frame: Frame) -> Option<Frame> {
        let Some(innermost) = self.open.last_mut() else { return Some(frame) };
        innermost.items.push(frame);
        innermost.missing -= 1;
        if innermost.missing == 0 { self.unwind() } else { None }
    }

    /// Closes aggregates from the innermost outwards for as long as they are complete.
    fn unwind(&mut self) -> Option<Frame> {
        while self.open.last().is_some_and(|innermost| innermost.missing == 0) {
            let Open { kind, items, .. } = self.open.pop()?;
            let frame = match kind {
                Aggregate::Array => Frame::Array(items),
                Aggregate::Set => Frame::Set(items),
                Aggregate::Push => Frame::Push(items),
                Aggregate::Map => Frame::Map(pairs(items)),
                Aggregate::Attributes => {
                    let kind = Aggregate::Subject(pairs(items));
                    self.open.push(Open { kind, missing: 1, items: Vec::new() });
                    return None;
                }
                Aggregate::Subject(attributes) => {
                    let reply = Box::new(items.into_iter().next()?);
                    Frame::Attributed { attributes, reply }
                }
            };
            match self.open.last_mut() {
                None => return Some(frame),
                Some(outer) => {
                    outer.items.push(frame);
                    outer.missing -= 1;
                }
            }
        }
        None
    }

    /// The scalar or the header at the start of `bytes` and its length.
    fn item(&mut self, bytes: &[u8]) -> Result<Option<(Item, usize)>, Kind> {
        let Some(marker) = bytes.first() else { return Ok(None) };
        let is_text = match marker {
            b'+' | b'-' | b'(' => true,
            b':' | b'$' | b'*' | b'_' | b'#' | b',' | b'=' | b'!' | b'%' | b'~' | b'>' | b'|' => false,
            other => return Err(Kind::UnknownType(*other)),
        };
        let longest = if is_text { self.limits.max_bulk_len } else { MAX_NUMBER_LINE };
        let Some(line) = self.line(bytes, longest)? else { return Ok(None) };
        let after_line = line.len() + 3;
        let scalar = |frame| Ok(Some((Item::Scalar(frame), after_line)));
        let aggregate = |kind, count| Ok(Some((Item::Aggregate(kind, count), after_line)));
        match marker {
            b'+' => scalar(Frame::Simple(line.to_vec())),
            b'-' => scalar(Frame::Error(line.to_vec())),
            b'(' if is_big_number(line) => scalar(Frame::BigNumber(line.to_vec())),
            b':' => scalar(Frame::Integer(parse_i64(line).ok_or(Kind::InvalidReply)?)),
            b',' => scalar(Frame::Double(parse_double(line).ok_or(Kind::InvalidReply)?)),
            b'#' if line == b"t" => scalar(Frame::Boolean(true)),
            b'#' if line == b"f" => scalar(Frame::Boolean(false)),
            b'_' if line.is_empty() => scalar(Frame::Null),
            b'$' if line == b"-1" => scalar(Frame::Null),
            b'*' if line == b"-1" => scalar(Frame::NullArray),
            b'*' => aggregate(Aggregate::Array, length(line)?),
            b'~' => aggregate(Aggregate::Set, length(line)?),
            b'>' => aggregate(Aggregate::Push, length(line)?),
            b'%' => aggregate(Aggregate::Map, length(line)?),
            b'|' => aggregate(Aggregate::Attributes, length(line)?),
            b'$' | b'!' | b'=' => {
                let Some((data, end)) = self.body(bytes, after_line, length(line)?)? else { return Ok(None) };
                let frame = match (marker, data) {
                    (b'$', data) => Frame::Bulk(data.to_vec()),
                    (b'!', data) => Frame::Error(data.to_vec()),
                    (_, [a, b, c, b':', text @ ..]) => {
                        Frame::Verbatim { format: [*a, *b, *c], data: text.to_vec() }
                    }
                    _ => return Err(Kind::InvalidReply),
                };
                Ok(Some((Item::Scalar(frame), end)))
            }
            _ => Err(Kind::InvalidReply),
        }
    }

    /// What lies between the type byte and the end of the line.
    fn line<'a>(&mut self, bytes: &'a [u8], longest: usize) -> Result<Option<&'a [u8]>, Kind> {
        let from = self.scanned.max(1);
        let found = memchr::memchr(b'\r', bytes.get(from..).unwrap_or_default()).map(|at| from + at);
        let end = found.unwrap_or(bytes.len());
        if end - 1 > longest {
            return Err(Kind::ReplyTooLong);
        }
        self.scanned = end;
        match (found, bytes.get(end + 1)) {
            (None, _) | (_, None) => Ok(None),
            (_, Some(b'\n')) => Ok(bytes.get(1..end)),
            _ => Err(Kind::InvalidReply),
        }
    }

    /// `len` bytes from `start` on and the end behind their CRLF.
    fn body<'a>(&self, bytes: &'a [u8], start: usize, len: usize) -> Result<Option<(&'a [u8], usize)>, Kind> {
        if len > self.limits.max_bulk_len {
            return Err(Kind::ReplyTooLong);
        }
        let end = start.saturating_add(len);
        match bytes.get(end..).unwrap_or_default() {
            [b'\r', b'\n', ..] => Ok(bytes.get(start..end).map(|data| (data, end.saturating_add(2)))),
            [] | [b'\r'] => Ok(None),
            _ => Err(Kind::InvalidReply),
        }
    }
}

fn length(line: &[u8]) -> Result<usize, Kind> {
    parse_i64(line).and_then(|n| usize::try_from(n).ok()).ok_or(Kind::InvalidReply)
}

fn is_big_number(line: &[u8]) -> bool {
    let digits = line.strip_prefix(b"-").unwrap_or(line);
    !digits.is_empty() && digits.iter().all(u8::is_ascii_digit)
}

fn parse_double(line: &[u8]) -> Option<f64> {
    match line {
        b"inf" => Some(f64::INFINITY),
        b"-inf" => Some(f64::NEG_INFINITY),
        b"nan" | b"-nan" => Some(f64::NAN),
        // Rust also knows words such as `infinity`, which the protocol does not.
        digits if digits.iter().all(|b| matches!(b, b'0'..=b'9' | b'+' | b'-' | b'.' | b'e' | b'E')) => {
            std::str::from_utf8(digits).ok()?.parse().ok()
        }
        _ => None,
    }
}

fn pairs(items: Vec<Frame>) -> Vec<(Frame, Frame)> {
    let mut pairs = Vec::with_capacity(items.len() / 2);
    let mut items = items.into_iter();
    while let (Some(key), Some(value)) = (items.next(), items.next()) {
        pairs.push((key, value));
    }
    pairs
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::MAX_REPLY_DEPTH;

    #[track_caller]
    fn check(input: &[u8], expected: &Frame) {
        let (frame, len) = decode_frame(input).unwrap().unwrap();
        assert_eq!((&frame, len), (expected, input.len()));
        for end in 0..input.len() {
            assert_eq!(decode_frame(&input[..end]), Ok(None), "a prefix of {end} bytes");
        }
    }

    #[test]
    fn every_type_is_read() {
        let bulk = |text: &str| Frame::bulk(text);
        check(b"+OK\r\n", &Frame::Simple(b"OK".to_vec()));
        check(b"-ERR no\r\n", &Frame::Error(b"ERR no".to_vec()));
        check(b"!5\r\nA\r\nBC\r\n", &Frame::Error(b"A\r\nBC".to_vec()));
        check(b":-7\r\n", &Frame::Integer(-7));
        check(b"$0\r\n\r\n", &bulk(""));
        check(b"$2\r\n\r\n\r\n", &bulk("\r\n"));
        check(b"$-1\r\n", &Frame::Null);
        check(b"*-1\r\n", &Frame::NullArray);
        check(b"_\r\n", &Frame::Null);
        check(b"*0\r\n", &Frame::Array(vec![]));
        check(
            b"%1\r\n+a\r\n*1\r\n:1\r\n",
            &Frame::Map(vec![(Frame::Simple(b"a".to_vec()), Frame::Array(vec![Frame::Integer(1)]))]),
        );
        check(b"~1\r\n:1\r\n", &Frame::Set(vec![Frame::Integer(1)]));
        check(b">1\r\n:1\r\n", &Frame::Push(vec![Frame::Integer(1)]));
        check(b",1.5\r\n", &Frame::Double(1.5));
        check(b",-inf\r\n", &Frame::Double(f64::NEG_INFINITY));
        check(b"#f\r\n", &Frame::Boolean(false));
        check(b"=6\r\ntxt:hi\r\n", &Frame::Verbatim { format: *b"txt", data: b"hi".to_vec() });
        check(
            b"(-123456789012345678901234567890\r\n",
            &Frame::BigNumber(b"-123456789012345678901234567890".to_vec()),
        );
        check(
            b"|1\r\n+k\r\n:1\r\n*2\r\n|0\r\n:1\r\n:2\r\n",
            &Frame::Attributed {
                attributes: vec![(Frame::Simple(b"k".to_vec()), Frame::Integer(1))],
                reply: Box::new(Frame::Array(vec![
                    Frame::Attributed { attributes: vec![], reply: Box::new(Frame::Integer(1)) },
                    Frame::Integer(2),
                ])),
            },
        );
    }

    #[test]
    fn malformed_replies_are_refused() {
        for (input, kind) in [
            (b"x".as_slice(), Kind::UnknownType(b'x')),
            (b":1x\r\n", Kind::InvalidReply),
            (b":\r\n", Kind::InvalidReply),
            (b"$-2\r\n", Kind::InvalidReply),
            (b"$?\r\n", Kind::InvalidReply),
            (b"$1\r\nab", Kind::InvalidReply),
            (b"+a\rb", Kind::InvalidReply),
            (b"#x\r\n", Kind::InvalidReply),
            (b"_x\r\n", Kind::InvalidReply),
            (b",infinity\r\n", Kind::InvalidReply),
            (b",\r\n", Kind::InvalidReply),
            (b"(1.5\r\n", Kind::InvalidReply),
            (b"=3\r\ntxt\r\n", Kind::InvalidReply),
            (b"$536870913\r\n", Kind::ReplyTooLong),
            (b"*2147483648\r\n", Kind::ReplyTooLong),
            (&[b':'; 100], Kind::ReplyTooLong),
        ] {
            assert_eq!(decode_frame(input).unwrap_err().kind(), kind, "{}", input.escape_ascii());
        }
    }

    #[test]
    fn nesting_is_bounded() {
        let deepest = b"*1\r\n".repeat(MAX_REPLY_DEPTH);
        assert_eq!(decode_frame(&deepest), Ok(None));
        let deeper = b"*1\r\n".repeat(MAX_REPLY_DEPTH + 1);
        assert_eq!(decode_frame(&deeper).unwrap_err().kind(), Kind::ReplyTooDeep);
    }

    #[test]
    fn elements_leave_the_buffer_as_they_come() {
        let mut decoder = FrameDecoder::new(ReplyLimits::default());
        let progress = decoder.next(b"*3\r\n:1\r\n:2").unwrap();
        assert_eq!(progress, FrameProgress { consumed: 8, frame: None });
        assert!(decoder.is_mid_frame());
        let progress = decoder.next(b":2\r\n$1\r\nx\r\n+next").unwrap();
        let items = vec![Frame::Integer(1), Frame::Integer(2), Frame::bulk("x")];
        assert_eq!(progress, FrameProgress { consumed: 11, frame: Some(Frame::Array(items)) });
        assert!(!decoder.is_mid_frame());
    }

    #[test]
    fn an_error_is_final() {
        let mut decoder = FrameDecoder::new(ReplyLimits::default());
        assert!(decoder.next(b":x\r\n").is_err());
        assert!(decoder.next(b":1\r\n").is_err());
    }
}
