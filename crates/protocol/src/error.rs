//! What can be wrong with bytes from the other side.
//!
//! The texts for broken requests are Redis', to the letter: clients and operators match on them. An error
//! is two bytes and carries no input, so refusing a hostile peer costs nothing.

use std::borrow::Cow;
use std::fmt;

use crate::encode::{Reply, write_line};

/// The bytes break the protocol; the connection they came from can only be answered and closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ProtocolError {
    kind: ProtocolErrorKind,
}

/// What exactly is wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum ProtocolErrorKind {
    /// A request's argument count is no number or beyond [`crate::Limits::max_args`].
    InvalidMultibulkLength,
    /// An argument's length is no number, negative or beyond [`crate::Limits::max_bulk_len`].
    InvalidBulkLength,
    /// An argument does not start with `$` but with this byte.
    ExpectedBulk(u8),
    /// The line with the argument count does not end.
    TooBigMultibulkCount,
    /// The line with an argument's length does not end.
    TooBigBulkCount,
    /// An inline command is longer than [`crate::Limits::max_inline`].
    TooBigInline,
    /// An inline command has a quote that is not closed, or text right behind a closing quote.
    UnbalancedQuotes,
    /// More arguments than a client may send before it has authenticated.
    UnauthenticatedMultibulkLength,
    /// A longer argument than a client may send before it has authenticated.
    UnauthenticatedBulkLength,
    /// A reply starts with a byte that is no RESP type.
    UnknownType(u8),
    /// A number, boolean or length inside a reply is malformed.
    InvalidReply,
    /// A reply announces more bytes or elements than its limit.
    ReplyTooLong,
    /// A reply nests deeper than its limit.
    ReplyTooDeep,
}

impl ProtocolError {
    pub(crate) const fn new(kind: ProtocolErrorKind) -> Self {
        Self { kind }
    }

    /// What exactly is wrong.
    pub const fn kind(self) -> ProtocolErrorKind {
        self.kind
    }

    /// Answers the peer as Redis does: `-ERR Protocol error: ...`.
    pub fn write_to(self, reply: &mut Reply) {
        let mut text = b"ERR ".to_vec();
        text.extend_from_slice(&self.text());
        write_line(reply.buffer_mut(), b'-', &text);
    }

    /// Redis' text. It is bytes because one of them quotes a byte of the input as it came.
    pub fn text(self) -> Cow<'static, [u8]> {
        use ProtocolErrorKind as Kind;
        let text = match self.kind {
            Kind::InvalidMultibulkLength => "Protocol error: invalid multibulk length",
            Kind::InvalidBulkLength => "Protocol error: invalid bulk length",
            Kind::ExpectedBulk(byte) => {
                let mut text = b"Protocol error: expected '$', got '".to_vec();
                text.extend_from_slice(&[byte, b'\'']);
                return text.into();
            }
            Kind::TooBigMultibulkCount => "Protocol error: too big mbulk count string",
            Kind::TooBigBulkCount => "Protocol error: too big bulk count string",
            Kind::TooBigInline => "Protocol error: too big inline request",
            Kind::UnbalancedQuotes => "Protocol error: unbalanced quotes in request",
            Kind::UnauthenticatedMultibulkLength => "Protocol error: unauthenticated multibulk length",
            Kind::UnauthenticatedBulkLength => "Protocol error: unauthenticated bulk length",
            Kind::UnknownType(byte) => {
                let shown = byte.escape_ascii();
                return format!("Protocol error: unknown reply type '{shown}'").into_bytes().into();
            }
            Kind::InvalidReply => "Protocol error: malformed number or length in a reply",
            Kind::ReplyTooLong => "Protocol error: a reply is longer than the limit",
            Kind::ReplyTooDeep => "Protocol error: a reply nests deeper than the limit",
        };
        text.as_bytes().into()
    }
}

impl fmt::Display for ProtocolError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&String::from_utf8_lossy(&self.text()))
    }
}

impl std::error::Error for ProtocolError {}

impl From<ProtocolErrorKind> for ProtocolError {
    fn from(kind: ProtocolErrorKind) -> Self {
        Self::new(kind)
    }
}
