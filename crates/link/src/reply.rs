//! A server's answer, the same for RESP2 and RESP3.
//!
//! Invariant: what differs only by protocol version (maps against flat arrays, doubles against text, booleans against 0 and 1)
//! is evened out by the typed readers here. Deliberately absent: pushes, which never reach a caller as a reply.

use crate::error::{Error, Result};

/// One reply.
#[derive(Clone, Debug, PartialEq)]
pub enum Reply {
    /// No value.
    Nil,
    /// An integer.
    Int(i64),
    /// A floating number (RESP3).
    Double(f64),
    /// Bytes, or a simple text such as `OK`.
    Bytes(Vec<u8>),
    /// Several replies. A RESP3 map is its keys and values in turn.
    Array(Vec<Reply>),
    /// An error reply inside an array or a pipeline.
    Error(Error),
}

impl Reply {
    pub(crate) fn from_value(value: redis::Value) -> Self {
        use redis::Value;
        match value {
            Value::Nil => Self::Nil,
            Value::Int(n) => Self::Int(n),
            Value::BulkString(bytes) | Value::BigNumber(bytes) => Self::Bytes(bytes),
            Value::SimpleString(text) | Value::VerbatimString { text, .. } => Self::Bytes(text.into_bytes()),
            Value::Okay => Self::Bytes(b"OK".to_vec()),
            Value::Array(items) | Value::Set(items) => {
                Self::Array(items.into_iter().map(Self::from_value).collect())
            }
            Value::Map(pairs) => Self::Array(
                pairs.into_iter().flat_map(|(k, v)| [Self::from_value(k), Self::from_value(v)]).collect(),
            ),
            Value::Attribute { data, .. } => Self::from_value(*data),
            Value::Double(d) => Self::Double(d),
            Value::Boolean(b) => Self::Int(i64::from(b)),
            Value::ServerError(e) => Self::Error(Error::server(e.code(), e.details())),
            other => {
                Self::Error(Error::protocol(format!("a reply of a form that no command promises: {other:?}")))
            }
        }
    }

    /// The reply itself, with an error reply turned into `Err`.
    pub fn ok(self) -> Result<Self> {
        match self {
            Self::Error(e) => Err(e),
            other => Ok(other),
        }
    }

    /// An integer.
    pub fn into_int(self) -> Result<i64> {
        match self.ok()? {
            Self::Int(n) => Ok(n),
            other => other.unexpected("an integer"),
        }
    }

    /// An integer that counts something.
    pub fn into_count(self) -> Result<u64> {
        let n = self.into_int()?;
        u64::try_from(n).map_err(|_| Error::protocol(format!("the server counted {n}, which cannot be")))
    }

    /// 0 or 1 as a claim.
    pub fn into_bool(self) -> Result<bool> {
        Ok(self.into_int()? != 0)
    }

    /// Bytes, or none for a nil.
    pub fn into_bytes(self) -> Result<Option<Vec<u8>>> {
        match self.ok()? {
            Self::Nil => Ok(None),
            Self::Bytes(bytes) => Ok(Some(bytes)),
            other => other.unexpected("bytes or nil").map(Some),
        }
    }

    /// A number, sent as a double or as its text; none for a nil.
    pub fn into_float(self) -> Result<Option<f64>> {
        match self.ok()? {
            Self::Nil => Ok(None),
            Self::Double(d) => Ok(Some(d)),
            Self::Int(n) => Ok(Some(n as f64)),
            Self::Bytes(bytes) => {
                match std::str::from_utf8(&bytes).ok().and_then(|t| t.parse::<f64>().ok()) {
                    Some(d) => Ok(Some(d)),
                    None => Self::Bytes(bytes).unexpected("a number").map(Some),
                }
            }
            other @ (Self::Array(_) | Self::Error(_)) => other.unexpected("a number").map(Some),
        }
    }

    /// The items of an array; a nil is an empty one.
    pub fn into_array(self) -> Result<Vec<Self>> {
        match self.ok()? {
            Self::Nil => Ok(Vec::new()),
            Self::Array(items) => Ok(items),
            other => other.unexpected("an array"),
        }
    }

    /// The items of an array in twos, whether they came flat (RESP2) or as arrays of two (RESP3).
    pub fn into_pairs(self) -> Result<Vec<(Self, Self)>> {
        let items = self.into_array()?;
        if items.iter().all(|i| matches!(i, Self::Array(two) if two.len() == 2)) {
            return items
                .into_iter()
                .map(|item| {
                    let mut two = item.into_array()?.into_iter();
                    match (two.next(), two.next()) {
                        (Some(a), Some(b)) => Ok((a, b)),
                        _ => Err(Error::protocol("a pair without its second half")),
                    }
                })
                .collect();
        }
        let mut pairs = Vec::with_capacity(items.len() / 2);
        let mut items = items.into_iter();
        while let Some(first) = items.next() {
            let Some(second) = items.next() else {
                return Err(Error::protocol("an odd number of items where pairs were due"));
            };
            pairs.push((first, second));
        }
        Ok(pairs)
    }

    fn unexpected<T>(self, wanted: &str) -> Result<T> {
        let got = match self {
            Self::Error(e) => return Err(e),
            Self::Nil => "nil".to_owned(),
            Self::Int(n) => format!("the integer {n}"),
            Self::Double(d) => format!("the number {d}"),
            Self::Bytes(b) => format!("{} bytes", b.len()),
            Self::Array(a) => format!("an array of {}", a.len()),
        };
        Err(Error::protocol(format!("the server answered {got} where {wanted} was due")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(text: &str) -> Reply {
        Reply::Bytes(text.as_bytes().to_vec())
    }

    #[test]
    fn pairs_are_the_same_flat_and_nested() {
        let flat = Reply::Array(vec![bytes("a"), bytes("1"), bytes("b"), bytes("2")]);
        let nested = Reply::Array(vec![
            Reply::Array(vec![bytes("a"), bytes("1")]),
            Reply::Array(vec![bytes("b"), bytes("2")]),
        ]);
        assert_eq!(flat.into_pairs().unwrap(), nested.into_pairs().unwrap());
    }

    #[test]
    fn a_number_is_the_same_as_text_and_as_double() {
        assert_eq!(bytes("1.5").into_float().unwrap(), Some(1.5));
        assert_eq!(Reply::Double(1.5).into_float().unwrap(), Some(1.5));
        assert!(bytes("x").into_float().is_err());
        assert_eq!(bytes("inf").into_float().unwrap(), Some(f64::INFINITY));
    }
}
