//! A reply as a value: what tests, tools, the in-process client and the script bridge work with.
//!
//! Both protocol versions share one set of types; writing a frame for RESP2 sends what Redis sends there
//! instead. A server's own replies never take this way: they go straight into [`Reply`].

use std::fmt;

use crate::encode::{Reply, Version};

/// One reply of either protocol version.
#[derive(Clone, PartialEq)]
pub enum Frame {
    /// A status line.
    Simple(Vec<u8>),
    /// An error's text, its code first.
    Error(Vec<u8>),
    /// A 64-bit integer.
    Integer(i64),
    /// A binary-safe string.
    Bulk(Vec<u8>),
    /// No value: RESP3's null, RESP2's null bulk string.
    Null,
    /// RESP2's null array, kept apart from [`Frame::Null`] so that servers can be compared.
    NullArray,
    /// Elements in order.
    Array(Vec<Frame>),
    /// Keys with values, in the order received.
    Map(Vec<(Frame, Frame)>),
    /// Members in the order received.
    Set(Vec<Frame>),
    /// An out-of-band message.
    Push(Vec<Frame>),
    /// A floating point number.
    Double(f64),
    /// True or false.
    Boolean(bool),
    /// Text with its format.
    Verbatim {
        /// Three letters such as `txt`.
        format: [u8; 3],
        /// The text.
        data: Vec<u8>,
    },
    /// An integer of any size, as its digits.
    BigNumber(Vec<u8>),
    /// A reply with remarks on it, which who does not know them may ignore.
    Attributed {
        /// The remarks.
        attributes: Vec<(Frame, Frame)>,
        /// The reply itself.
        reply: Box<Frame>,
    },
}

impl Frame {
    /// A bulk string.
    pub fn bulk(data: impl Into<Vec<u8>>) -> Self {
        Self::Bulk(data.into())
    }

    /// Whether it says that there is nothing, in either version's way.
    pub const fn is_null(&self) -> bool {
        matches!(self, Self::Null | Self::NullArray)
    }

    /// The error's text, if it is one.
    pub fn as_error(&self) -> Option<&[u8]> {
        match self.without_attributes() {
            Self::Error(text) => Some(text),
            _ => None,
        }
    }

    /// The bytes of a string of any kind, not of an error.
    pub fn as_bytes(&self) -> Option<&[u8]> {
        match self.without_attributes() {
            Self::Simple(data) | Self::Bulk(data) | Self::Verbatim { data, .. } | Self::BigNumber(data) => {
                Some(data)
            }
            _ => None,
        }
    }

    /// The number of an integer or a boolean.
    pub fn as_integer(&self) -> Option<i64> {
        match self.without_attributes() {
            Self::Integer(value) => Some(*value),
            Self::Boolean(value) => Some(i64::from(*value)),
            _ => None,
        }
    }

    /// The elements of an array, a set or a push.
    pub fn as_elements(&self) -> Option<&[Self]> {
        match self.without_attributes() {
            Self::Array(items) | Self::Set(items) | Self::Push(items) => Some(items),
            _ => None,
        }
    }

    /// The reply below any remarks on it.
    pub fn without_attributes(&self) -> &Self {
        let mut frame = self;
        while let Self::Attributed { reply, .. } = frame {
            frame = reply;
        }
        frame
    }

    /// Appends the frame to `reply`, in its version. The depth of recursion is that of the frame.
    pub fn write_to(&self, reply: &mut Reply) {
        match self {
            Self::Simple(text) => reply.line(b'+', text),
            Self::Error(text) => reply.line(b'-', text),
            Self::Integer(value) => reply.integer(*value),
            Self::Bulk(data) => reply.bulk(data),
            Self::Null => reply.null(),
            Self::NullArray => reply.null_array(),
            Self::Array(items) => {
                reply.array(items.len());
                write_all(items, reply);
            }
            Self::Set(items) => {
                reply.set(items.len());
                write_all(items, reply);
            }
            Self::Push(items) => {
                reply.push(items.len());
                write_all(items, reply);
            }
            Self::Map(pairs) => {
                reply.map(pairs.len());
                write_pairs(pairs, reply);
            }
            Self::Double(value) => reply.double(*value),
            Self::Boolean(value) => reply.bool(*value),
            Self::Verbatim { format, data } => reply.verbatim(*format, data),
            Self::BigNumber(digits) => reply.big_number_bytes(digits),
            Self::Attributed { attributes, reply: inner } => {
                if reply.version() == Version::Resp3 {
                    reply.attribute(attributes.len());
                    write_pairs(attributes, reply);
                }
                inner.write_to(reply);
            }
        }
    }

    /// The frame's bytes in a protocol version.
    pub fn encode(&self, version: Version) -> Vec<u8> {
        let mut reply = Reply::new(version);
        self.write_to(&mut reply);
        reply.into_bytes()
    }
}

fn write_all(items: &[Frame], reply: &mut Reply) {
    for item in items {
        item.write_to(reply);
    }
}

fn write_pairs(pairs: &[(Frame, Frame)], reply: &mut Reply) {
    for (key, value) in pairs {
        key.write_to(reply);
        value.write_to(reply);
    }
}

/// Shows bytes as text, so that a failing comparison can be read.
impl fmt::Debug for Frame {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Simple(text) => write!(f, "+{}", text.escape_ascii()),
            Self::Error(text) => write!(f, "-{}", text.escape_ascii()),
            Self::Integer(value) => write!(f, "{value}"),
            Self::Bulk(data) => write!(f, "\"{}\"", data.escape_ascii()),
            Self::Null => f.write_str("null"),
            Self::NullArray => f.write_str("null-array"),
            Self::Array(items) => f.debug_list().entries(items).finish(),
            Self::Set(items) => {
                f.write_str("set")?;
                f.debug_list().entries(items).finish()
            }
            Self::Push(items) => {
                f.write_str("push")?;
                f.debug_list().entries(items).finish()
            }
            Self::Map(pairs) => f.debug_map().entries(pairs.iter().map(|(k, v)| (k, v))).finish(),
            Self::Double(value) => write!(f, "double {value:?}"),
            Self::Boolean(value) => write!(f, "{value}"),
            Self::Verbatim { format, data } => {
                write!(f, "{}:\"{}\"", format.escape_ascii(), data.escape_ascii())
            }
            Self::BigNumber(digits) => write!(f, "big {}", digits.escape_ascii()),
            Self::Attributed { attributes, reply } => {
                f.debug_map().entries(attributes.iter().map(|(k, v)| (k, v))).finish()?;
                write!(f, " on {reply:?}")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_are_seen_through_and_left_out_of_the_old_version() {
        let frame = Frame::Attributed {
            attributes: vec![(Frame::Simple(b"ttl".to_vec()), Frame::Integer(3))],
            reply: Box::new(Frame::bulk("x")),
        };
        assert_eq!(frame.as_bytes(), Some(b"x".as_slice()));
        assert_eq!(frame.encode(Version::Resp3), b"|1\r\n+ttl\r\n:3\r\n$1\r\nx\r\n");
        assert_eq!(frame.encode(Version::Resp2), b"$1\r\nx\r\n");
        assert_eq!(format!("{frame:?}"), r#"{+ttl: 3} on "x""#);
    }
}
