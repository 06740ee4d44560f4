//! The request decoder of a server: complete commands out of a growing read buffer, nothing copied.
//!
//! It holds positions relative to the start of the unconsumed bytes, never bytes, and remembers how far it
//! has come, so that a large request arriving in many pieces is looked at once. Memory grows with arguments
//! that have arrived, not with those announced. As in Redis, the two bytes that end a line or an argument
//! are skipped without a look at the second. Deliberately absent: the buffer itself and all reading.

use smallvec::SmallVec;

use crate::error::{ProtocolError, ProtocolErrorKind as Kind};
use crate::inline;
use crate::limits::Limits;
use crate::number::parse_i64;

/// The arguments of one command; most have few, so they live on the stack.
pub type Args<'a> = SmallVec<[&'a [u8]; 16]>;

/// What [`short_line`] reads is below this.
const SHORT: usize = 1000;
/// Room for argument positions that a connection keeps between commands; more is given back.
const KEPT_ARGS: usize = 256;
/// Room for unquoted inline bytes that a connection keeps between commands; more is given back.
const KEPT_INLINE: usize = 4096;

/// What [`RequestDecoder::next`] found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Progress {
    /// A command is complete: read it with [`RequestDecoder::args`] and go on behind its bytes.
    Command {
        /// Bytes of the buffer that are done with, empty lines before the command included.
        consumed: usize,
    },
    /// The bytes end inside a command.
    NeedMore {
        /// Bytes at the start (empty commands) to drop before the next call. Nearly always 0.
        consumed: usize,
        /// At least so many more bytes are needed; worth making room for when the argument is large.
        hint: usize,
    },
}

/// Decodes the requests of one connection.
///
/// ```
/// use mtcache_protocol::{Args, Limits, Progress, RequestDecoder};
///
/// let mut decoder = RequestDecoder::new(Limits::default());
/// let mut rest: &[u8] = b"*2\r\n$3\r\nGET\r\n$1\r\nk\r\nPING\r\n*1\r\n$4\r\nPI";
/// let mut seen = Vec::new();
/// while let Progress::Command { consumed } = decoder.next(rest)? {
///     let mut args = Args::new();
///     decoder.args(rest, &mut args);
///     seen.push(args.len());
///     rest = &rest[consumed..];
/// }
/// assert_eq!(seen, [2, 1]);
/// # Ok::<(), mtcache_protocol::ProtocolError>(())
/// ```
#[derive(Debug)]
pub struct RequestDecoder {
    limits: Limits,
    authenticated: bool,
    step: Step,
    /// Start of what is still to be understood.
    pos: usize,
    /// No line end lies between `pos` and here.
    scanned: usize,
    /// Arguments still to come.
    remaining: usize,
    /// Where each argument lies: in the caller's buffer, or in `inline` for an inline command.
    ranges: Vec<(usize, usize)>,
    is_inline: bool,
    inline: Vec<u8>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    /// At the first byte of a command, or inside its first line.
    Start,
    /// At the `$` line of an argument.
    Length,
    /// At the bytes of an argument of this length.
    Body(usize),
    /// Nothing more can be understood on this connection.
    Failed(Kind),
}

/// A step that could not be finished, and how many bytes it lacks at least.
struct Lacking(usize);

type Parsed<T> = Result<Result<T, Lacking>, Kind>;

impl RequestDecoder {
    /// A decoder for a fresh connection that needs no authentication.
    pub const fn new(limits: Limits) -> Self {
        Self {
            limits,
            authenticated: true,
            step: Step::Start,
            pos: 0,
            scanned: 0,
            remaining: 0,
            ranges: Vec::new(),
            is_inline: false,
            inline: Vec::new(),
        }
    }

    /// Whether the stricter limits for strangers are off; consulted for each command as it begins.
    pub const fn set_authenticated(&mut self, authenticated: bool) {
        self.authenticated = authenticated;
    }

    /// Replaces the limits (`CONFIG SET proto-max-bulk-len`), from the next line on.
    pub const fn set_limits(&mut self, limits: Limits) {
        self.limits = limits;
    }

    /// Whether a command has begun and is not complete.
    pub fn is_mid_command(&self) -> bool {
        self.step != Step::Start || self.scanned != 0
    }

    /// Looks for the next command at the start of `buf`, all bytes received and not yet consumed.
    ///
    /// After `NeedMore` the next call must see the same bytes (less `consumed` of them) with more behind.
    /// After an error the connection is lost, for there is no way to find the next command: the decoder
    /// repeats the error.
    #[inline]
    pub fn next(&mut self, buf: &[u8]) -> Result<Progress, ProtocolError> {
        self.advance(buf).map_err(|kind| {
            self.step = Step::Failed(kind);
            kind.into()
        })
    }

    #[inline]
    fn advance(&mut self, buf: &[u8]) -> Result<Progress, Kind> {
        if self.step == Step::Start {
            if self.scanned == 0 {
                self.reset();
            }
            match self.start(buf)? {
                Started::Multi => {}
                Started::Inline(consumed) => return Ok(Progress::Command { consumed }),
                Started::NeedMore { consumed, hint } => return Ok(Progress::NeedMore { consumed, hint }),
            }
        }
        match self.arguments(buf)? {
            Ok(()) => {
                let consumed = self.pos;
                self.restart();
                Ok(Progress::Command { consumed })
            }
            Err(Lacking(hint)) => Ok(Progress::NeedMore { consumed: 0, hint }),
        }
    }

    /// [`next`](Self::next) and [`args`](Self::args) at once, for what nearly all commands are: complete, an array of short bulk
    /// strings (below 1,000 arguments of less than 1,000 bytes), from a client that is no stranger. Appends the arguments to the empty
    /// `into` and tells how many bytes are done with. Anything else is for `next`, and so far nothing has happened to it.
    #[inline]
    pub fn next_short<'a>(&self, buf: &'a [u8], into: &mut Args<'a>) -> Option<usize> {
        // What the last command has left behind is given back by `next`.
        let is_clean = !self.is_inline && self.ranges.capacity() <= KEPT_ARGS;
        if self.is_mid_command()
            || !is_clean
            || !self.authenticated
            || self.limits.max_bulk_len.min(self.limits.max_args) < SHORT
        {
            return None;
        }
        let pos = short_args(buf, into);
        if pos.is_none() {
            into.clear();
        }
        pos
    }

    /// Number of arguments of the command that `next` completed, its name included; at least 1.
    pub const fn arg_count(&self) -> usize {
        self.ranges.len()
    }

    /// Appends the arguments of the command that `next` completed to `into`; `buf` is the same buffer.
    #[inline]
    pub fn args<'a>(&'a self, buf: &'a [u8], into: &mut Args<'a>) {
        let source = if self.is_inline { &self.inline } else { buf };
        into.extend(self.ranges.iter().map(|(start, end)| source.get(*start..*end).unwrap_or_default()));
    }

    /// The arguments of the command that `next` completed, one after another.
    pub fn iter<'a>(&'a self, buf: &'a [u8]) -> impl ExactSizeIterator<Item = &'a [u8]> {
        let source = if self.is_inline { &self.inline } else { buf };
        self.ranges.iter().map(|(start, end)| source.get(*start..*end).unwrap_or_default())
    }

    /// Forgets the last command's arguments.
    #[inline]
    fn reset(&mut self) {
        self.ranges.clear();
        if self.ranges.capacity() > KEPT_ARGS {
            self.ranges.shrink_to(KEPT_ARGS);
        }
        if self.is_inline {
            self.is_inline = false;
            self.inline.clear();
            self.inline.shrink_to(KEPT_INLINE);
        }
    }

    /// The next byte is the first of a command again.
    #[inline]
    fn restart(&mut self) {
        self.step = Step::Start;
        self.pos = 0;
        self.scanned = 0;
    }

    /// The first line: a count of arguments or an inline command. Skips what is empty.
    #[inline]
    fn start(&mut self, buf: &[u8]) -> Result<Started, Kind> {
        loop {
            let Some(first) = buf.get(self.pos) else { return Ok(self.pause_at_start(1)) };
            if *first != b'*' {
                match self.inline(buf)? {
                    Ok(()) if self.ranges.is_empty() => continue,
                    Ok(()) => {
                        let consumed = self.pos;
                        self.restart();
                        return Ok(Started::Inline(consumed));
                    }
                    Err(Lacking(hint)) => return Ok(self.pause_at_start(hint)),
                }
            }
            let count =
                match self.count_line(buf, Kind::TooBigMultibulkCount, Kind::InvalidMultibulkLength)? {
                    Ok(count) => count,
                    Err(Lacking(hint)) => return Ok(self.pause_at_start(hint)),
                };
            if count <= 0 {
                continue;
            }
            let count = usize::try_from(count).unwrap_or(usize::MAX);
            if count > self.limits.max_args {
                return Err(Kind::InvalidMultibulkLength);
            }
            if !self.authenticated && count > self.limits.max_unauthenticated_args {
                return Err(Kind::UnauthenticatedMultibulkLength);
            }
            self.remaining = count;
            self.step = Step::Length;
            return Ok(Started::Multi);
        }
    }

    /// Lets the caller drop the empty commands before `pos`.
    fn pause_at_start(&mut self, hint: usize) -> Started {
        let consumed = std::mem::take(&mut self.pos);
        self.scanned = self.scanned.saturating_sub(consumed);
        Started::NeedMore { consumed, hint }
    }

    /// The arguments that are still missing.
    #[inline]
    fn arguments(&mut self, buf: &[u8]) -> Parsed<()> {
        loop {
            let len = match self.step {
                Step::Body(len) => len,
                Step::Failed(kind) => return Err(kind),
                Step::Start | Step::Length => match self.length_line(buf)? {
                    Ok(len) => len,
                    Err(lacking) => return Ok(Err(lacking)),
                },
            };
            let end = self.pos.saturating_add(len);
            let next = end.saturating_add(2);
            if buf.len() < next {
                self.step = Step::Body(len);
                return Ok(Err(Lacking(next - buf.len())));
            }
            self.ranges.push((self.pos, end));
            self.pos = next;
            self.scanned = self.pos;
            self.step = Step::Length;
            self.remaining -= 1;
            if self.remaining == 0 {
                return Ok(Ok(()));
            }
        }
    }

    #[inline]
    fn length_line(&mut self, buf: &[u8]) -> Parsed<usize> {
        if let Some((len, size)) = short_line(buf, self.pos, b'$') {
            self.pos += size;
            return self.checked_length(len).map(Ok);
        }
        let marker = buf.get(self.pos).copied();
        let len = match self.line(buf, Kind::TooBigBulkCount)? {
            Ok(_) if marker != Some(b'$') => return Err(Kind::ExpectedBulk(marker.unwrap_or_default())),
            Ok(line) => parse_i64(line).ok_or(Kind::InvalidBulkLength)?,
            Err(lacking) => return Ok(Err(lacking)),
        };
        self.checked_length(len).map(Ok)
    }

    #[inline]
    fn checked_length(&self, len: i64) -> Result<usize, Kind> {
        let len = usize::try_from(len).map_err(|_| Kind::InvalidBulkLength)?;
        if len > self.limits.max_bulk_len {
            return Err(Kind::InvalidBulkLength);
        }
        if !self.authenticated && len > self.limits.max_unauthenticated_bulk_len {
            return Err(Kind::UnauthenticatedBulkLength);
        }
        Ok(len)
    }

    #[inline]
    fn count_line(&mut self, buf: &[u8], endless: Kind, invalid: Kind) -> Parsed<i64> {
        if let Some((count, size)) = short_line(buf, self.pos, b'*') {
            self.pos += size;
            self.scanned = self.pos;
            return Ok(Ok(count));
        }
        match self.line(buf, endless)? {
            Ok(line) => parse_i64(line).ok_or(invalid).map(Ok),
            Err(lacking) => Ok(Err(lacking)),
        }
    }

    /// What lies between the byte at `pos` and the carriage return; moves behind the line feed.
    fn line<'a>(&mut self, buf: &'a [u8], endless: Kind) -> Parsed<&'a [u8]> {
        let from = self.scanned.max(self.pos);
        let found = memchr::memchr(b'\r', buf.get(from..).unwrap_or_default()).map(|at| from + at);
        let end = found.unwrap_or(buf.len());
        if end - self.pos > self.limits.max_inline {
            return Err(endless);
        }
        self.scanned = end;
        if found.is_none() || end + 1 == buf.len() {
            return Ok(Err(Lacking(if found.is_none() { 2 } else { 1 })));
        }
        let line = buf.get(self.pos + 1..end).unwrap_or_default();
        self.pos = end + 2;
        self.scanned = self.pos;
        Ok(Ok(line))
    }

    /// A line without `*`: words typed by hand. An empty one leaves no arguments.
    #[cold]
    fn inline(&mut self, buf: &[u8]) -> Parsed<()> {
        let from = self.scanned.max(self.pos);
        let found = memchr::memchr(b'\n', buf.get(from..).unwrap_or_default()).map(|at| from + at);
        let end = found.unwrap_or(buf.len());
        if end - self.pos > self.limits.max_inline {
            return Err(Kind::TooBigInline);
        }
        self.scanned = end;
        if found.is_none() {
            return Ok(Err(Lacking(1)));
        }
        let line = buf.get(self.pos..end).unwrap_or_default();
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        let ranges = &mut self.ranges;
        inline::split(line, &mut self.inline, |start, end| ranges.push((start, end)))?;
        self.is_inline = !self.ranges.is_empty();
        self.pos = end + 1;
        self.scanned = self.pos;
        Ok(Ok(()))
    }
}

enum Started {
    Multi,
    Inline(usize),
    NeedMore { consumed: usize, hint: usize },
}

/// A command that lies complete in a buffer, as [`peek`] sees it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Peeked<'a> {
    /// The arguments after the command's name, as far as they are looked at; empty where there are fewer.
    pub args: [&'a [u8]; 2],
    /// Bytes of the whole command.
    pub consumed: usize,
}

/// Looks at a command ahead of its turn, without any change and without a decoder: what is at the start of `buf` if it is a complete
/// command of the usual form, an array of short bulk strings (below 1,000 arguments of less than 1,000 bytes). Nothing else is
/// told apart from what is not there: whoever looks ahead may look away.
#[inline]
pub fn peek(buf: &[u8]) -> Option<Peeked<'_>> {
    let (count, mut pos) = short_line(buf, 0, b'*').filter(|(count, _)| *count > 0)?;
    let mut peeked = Peeked::default();
    for number in 0..count {
        let (len, size) = short_line(buf, pos, b'$')?;
        let (start, end) = (pos + size, pos + size + len as usize);
        let arg = buf.get(start..end)?;
        if let Some(place) = (number as usize).checked_sub(1).and_then(|place| peeked.args.get_mut(place)) {
            *place = arg;
        }
        pos = end + 2;
    }
    peeked.consumed = pos;
    (pos <= buf.len()).then_some(peeked)
}

/// Appends the arguments of a short command and tells where it ends.
#[inline]
fn short_args<'a>(buf: &'a [u8], into: &mut Args<'a>) -> Option<usize> {
    let (count, mut pos) = short_line(buf, 0, b'*').filter(|(count, _)| *count > 0)?;
    for _ in 0..count {
        let (len, size) = short_line(buf, pos, b'$')?;
        let (start, end) = (pos + size, pos + size + len as usize);
        into.push(buf.get(start..end)?);
        pos = end + 2;
    }
    (pos <= buf.len()).then_some(pos)
}

/// The number in a line of up to three digits, as nearly all are, and the line's size with its end; anything
/// unusual, also a line that is not complete, is left to the careful way.
#[inline]
fn short_line(buf: &[u8], pos: usize, marker: u8) -> Option<(i64, usize)> {
    let line = buf.get(pos..)?;
    let digit = |byte: u8| i64::from(byte - b'0');
    match line {
        [m, a @ b'0'..=b'9', b'\r', _, ..] if *m == marker => Some((digit(*a), 4)),
        [m, a @ b'1'..=b'9', b @ b'0'..=b'9', b'\r', _, ..] if *m == marker => {
            Some((digit(*a) * 10 + digit(*b), 5))
        }
        [m, a @ b'1'..=b'9', b @ b'0'..=b'9', c @ b'0'..=b'9', b'\r', _, ..] if *m == marker => {
            Some((digit(*a) * 100 + digit(*b) * 10 + digit(*c), 6))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::MAX_INLINE;

    fn short_way(decoder: &RequestDecoder, buf: &[u8]) -> Option<(usize, Vec<Vec<u8>>)> {
        let mut args = Args::new();
        let consumed = decoder.next_short(buf, &mut args);
        assert_eq!(consumed.is_some(), !args.is_empty());
        Some((consumed?, args.iter().map(|arg| arg.to_vec()).collect()))
    }

    /// All commands in `input`, fed in pieces of `step` bytes, then what ended the decoding.
    fn decode(input: &[u8], step: usize, mut decoder: RequestDecoder) -> (Vec<Vec<Vec<u8>>>, Option<Kind>) {
        let (mut commands, mut buf) = (Vec::new(), Vec::new());
        for piece in input.chunks(step) {
            buf.extend_from_slice(piece);
            loop {
                let short = short_way(&decoder, &buf);
                match decoder.next(&buf) {
                    Ok(Progress::Command { consumed }) => {
                        let command: Vec<_> = decoder.iter(&buf).map(<[u8]>::to_vec).collect();
                        if let Some(short) = short {
                            assert_eq!(short, (consumed, command.clone()));
                        }
                        commands.push(command);
                        buf.drain(..consumed);
                    }
                    other if short.is_some() => panic!("{other:?} where {short:?} was seen"),
                    Ok(Progress::NeedMore { consumed, hint }) => {
                        assert!(hint > 0);
                        buf.drain(..consumed);
                        break;
                    }
                    Err(error) => return (commands, Some(error.kind())),
                }
            }
        }
        (commands, None)
    }

    #[track_caller]
    fn check_with(
        decoder: impl Fn() -> RequestDecoder,
        input: &[u8],
        commands: &[&[&str]],
        error: Option<Kind>,
    ) {
        for step in [1, 2, 3, 7, input.len()] {
            let (got, ended) = decode(input, step, decoder());
            let got: Vec<Vec<String>> = got
                .iter()
                .map(|args| args.iter().map(|arg| String::from_utf8_lossy(arg).into_owned()).collect())
                .collect();
            assert_eq!(got, commands, "in steps of {step}");
            assert_eq!(ended, error, "in steps of {step}");
        }
    }

    #[track_caller]
    fn check(input: &[u8], commands: &[&[&str]], error: Option<Kind>) {
        check_with(|| RequestDecoder::new(Limits::default()), input, commands, error);
    }

    #[test]
    fn pipelined_commands_come_out_one_by_one() {
        check(
            b"*2\r\n$3\r\nGET\r\n$1\r\nk\r\n*1\r\n$4\r\nPING\r\n*2\r\n$4\r\nECHO\r\n$12\r\ntwelve bytes\r\n",
            &[&["GET", "k"], &["PING"], &["ECHO", "twelve bytes"]],
            None,
        );
    }

    #[test]
    fn inline_commands_mix_with_counted_ones() {
        check(
            b"PING\r\n*1\r\n$4\r\nPING\r\nset k \"a b\"\n\r\n\n*0\r\n*-1\r\n  \r\n*1\r\n$1\r\nx\r\n",
            &[&["PING"], &["PING"], &["set", "k", "a b"], &["x"]],
            None,
        );
    }

    #[test]
    fn empty_arguments_and_binary_ones_survive() {
        check(b"*3\r\n$0\r\n\r\n$2\r\n\r\n\r\n$1\r\n\0\r\n", &[&["", "\r\n", "\0"]], None);
    }

    #[test]
    fn bytes_that_end_a_line_are_not_looked_at() {
        check(b"*1\rX$4\rYPINGab*1\r\n$1\r\nx\r\n", &[&["PING"], &["x"]], None);
    }

    #[test]
    fn empty_commands_are_dropped_from_the_buffer() {
        let mut decoder = RequestDecoder::new(Limits::default());
        let input = b"\r\n*0\r\n*1";
        assert_eq!(decoder.next(input), Ok(Progress::NeedMore { consumed: 6, hint: 2 }));
        assert_eq!(decoder.next(b"*1\r\n$1\r\nx\r\n"), Ok(Progress::Command { consumed: 11 }));
        assert_eq!(decoder.next(b""), Ok(Progress::NeedMore { consumed: 0, hint: 1 }));
    }

    #[test]
    fn broken_requests_are_refused_after_the_good_ones() {
        let ping: &[&[&str]] = &[&["PING"]];
        check(b"PING\n*x\r\n", ping, Some(Kind::InvalidMultibulkLength));
        check(b"PING\n*01\r\n", ping, Some(Kind::InvalidMultibulkLength));
        check(b"*2147483648\r\n", &[], Some(Kind::InvalidMultibulkLength));
        check(b"*1\r\nPING\r\n", &[], Some(Kind::ExpectedBulk(b'P')));
        check(b"*1\r\n$-1\r\n", &[], Some(Kind::InvalidBulkLength));
        check(b"*1\r\n$536870913\r\n", &[], Some(Kind::InvalidBulkLength));
        check(b"PING\r\nget \"x\r\n", ping, Some(Kind::UnbalancedQuotes));
        check(&[b"*".as_slice(), &vec![b'1'; 70_000]].concat(), &[], Some(Kind::TooBigMultibulkCount));
        check(&[b"*1\r\n$".as_slice(), &vec![b'1'; 70_000]].concat(), &[], Some(Kind::TooBigBulkCount));
        check(&vec![b'a'; 70_000], &[], Some(Kind::TooBigInline));
    }

    #[test]
    fn the_longest_inline_command_is_the_limit() {
        let mut line = vec![b'a'; MAX_INLINE];
        line.push(b'\n');
        let (commands, error) = decode(&line, line.len(), RequestDecoder::new(Limits::default()));
        assert_eq!((commands.len(), error), (1, None));
        line.insert(0, b'a');
        for step in [1000, MAX_INLINE + 1, line.len()] {
            let (commands, error) = decode(&line, step, RequestDecoder::new(Limits::default()));
            assert_eq!((commands.len(), error), (0, Some(Kind::TooBigInline)));
        }
    }

    #[test]
    fn strangers_may_send_less() {
        let stranger = || {
            let mut decoder = RequestDecoder::new(Limits::default());
            decoder.set_authenticated(false);
            decoder
        };
        check_with(stranger, b"*11\r\n", &[], Some(Kind::UnauthenticatedMultibulkLength));
        check_with(stranger, b"*2\r\n$16385\r\n", &[], Some(Kind::UnauthenticatedBulkLength));
        check_with(stranger, b"*1\r\n$4\r\nAUTH\r\n", &[&["AUTH"]], None);
    }

    #[test]
    fn what_is_not_short_and_complete_is_left_to_the_careful_way() {
        let short =
            |decoder: &RequestDecoder, input: &[u8]| short_way(decoder, input).map(|(consumed, _)| consumed);
        let command = b"*2\r\n$4\r\nECHO\r\n$3\r\nabc\r\n";
        let mut decoder = RequestDecoder::new(Limits::default());
        assert_eq!(short(&decoder, &[command, b"*1".as_slice()].concat()), Some(command.len()));
        for end in 0..command.len() {
            assert_eq!(short(&decoder, &command[..end]), None);
        }
        for other in ["PING\r\n", "*0\r\n*1\r\n$1\r\nx\r\n", "*1\r\n$01\r\nx\r\n", "*1\r\n$-1\r\n"] {
            assert_eq!(short(&decoder, other.as_bytes()), None, "{other}");
        }
        let long = |len: usize| format!("*2\r\n$4\r\nECHO\r\n${len}\r\n{}\r\n", "x".repeat(len));
        assert!(short(&decoder, long(999).as_bytes()).is_some());
        assert!(short(&decoder, long(1000).as_bytes()).is_none());
        decoder.set_authenticated(false);
        assert_eq!(short(&decoder, command), None, "of a stranger less is taken");
        decoder.set_authenticated(true);
        decoder.set_limits(Limits { max_bulk_len: 2, ..Limits::default() });
        assert_eq!(short(&decoder, command), None, "less is allowed");
        decoder.set_limits(Limits::default());
        assert!(matches!(decoder.next(&command[..9]), Ok(Progress::NeedMore { .. })));
        assert_eq!(short(&decoder, command), None, "the careful way has begun and has to end it");
        assert_eq!(decoder.next(command), Ok(Progress::Command { consumed: command.len() }));
        let many = format!("*1500\r\n{}", "$1\r\nx\r\n".repeat(1500));
        for large in [many.as_bytes(), b"ECHO abc\r\n"] {
            assert!(short(&decoder, command).is_some());
            assert!(matches!(decoder.next(large), Ok(Progress::Command { .. })));
            assert_eq!(short(&decoder, command), None, "room is to be given back");
            assert!(matches!(decoder.next(command), Ok(Progress::Command { .. })));
        }
        assert!(short(&decoder, command).is_some());
        assert!(decoder.ranges.capacity() <= KEPT_ARGS);
    }

    #[test]
    fn an_error_is_final() {
        let mut decoder = RequestDecoder::new(Limits::default());
        for _ in 0..2 {
            assert_eq!(decoder.next(b"*1\r\n:1\r\n").unwrap_err().kind(), Kind::ExpectedBulk(b':'));
        }
    }

    #[test]
    fn a_large_argument_tells_how_much_is_missing() {
        let mut decoder = RequestDecoder::new(Limits::default());
        let head = b"*2\r\n$3\r\nSET\r\n$1000000\r\nabc";
        assert_eq!(decoder.next(head), Ok(Progress::NeedMore { consumed: 0, hint: 999_999 }));
        assert!(decoder.is_mid_command());
    }
}
