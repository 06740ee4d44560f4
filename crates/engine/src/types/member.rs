//! A set's member as it is read: bytes of the set itself, or the digits of an integer, without an allocation.

use std::ops::Deref;

/// Longest decimal form of a 64-bit integer.
const DIGITS_MAX: usize = 20;

/// A member of a set; derefs to its bytes.
#[derive(Clone, Copy)]
pub struct Member<'a>(Repr<'a>);

#[derive(Clone, Copy)]
enum Repr<'a> {
    Bytes(&'a [u8]),
    Int { value: i64, len: u8, digits: [u8; DIGITS_MAX] },
}

impl<'a> Member<'a> {
    pub(super) fn from_bytes(bytes: &'a [u8]) -> Self {
        Self(Repr::Bytes(bytes))
    }

    pub(super) fn from_int(value: i64) -> Self {
        let mut buffer = itoa::Buffer::new();
        let text = buffer.format(value).as_bytes();
        let mut digits = [0; DIGITS_MAX];
        for (to, from) in digits.iter_mut().zip(text) {
            *to = *from;
        }
        Self(Repr::Int { value, len: text.len() as u8, digits })
    }

    /// The member's bytes.
    #[inline]
    pub fn as_bytes(&self) -> &[u8] {
        match &self.0 {
            Repr::Bytes(bytes) => bytes,
            Repr::Int { len, digits, .. } => digits.get(..usize::from(*len)).unwrap_or_default(),
        }
    }

    /// The member as an integer, if its bytes are the canonical decimal form of one.
    pub fn as_int(&self) -> Option<i64> {
        match self.0 {
            Repr::Bytes(bytes) => parse_int(bytes),
            Repr::Int { value, .. } => Some(value),
        }
    }
}

impl Deref for Member<'_> {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        self.as_bytes()
    }
}

impl AsRef<[u8]> for Member<'_> {
    fn as_ref(&self) -> &[u8] {
        self.as_bytes()
    }
}

impl PartialEq for Member<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.as_bytes() == other.as_bytes()
    }
}

impl Eq for Member<'_> {}

impl std::fmt::Debug for Member<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "\"{}\"", self.as_bytes().escape_ascii())
    }
}

/// Reads the canonical decimal form of a 64-bit integer: no plus sign, leading zero, blank or negative zero.
pub(crate) fn parse_int(bytes: &[u8]) -> Option<i64> {
    let (negative, digits) = match bytes.split_first()? {
        (b'-', digits) => (true, digits),
        _ => (false, bytes),
    };
    match digits {
        [b'0'] if !negative => return Some(0),
        [b'1'..=b'9', ..] if digits.len() < DIGITS_MAX => {}
        _ => return None,
    }
    // Summed below zero, where the range is larger by one.
    let mut value = 0_i64;
    for &digit in digits {
        if !digit.is_ascii_digit() {
            return None;
        }
        value = value.checked_mul(10)?.checked_sub(i64::from(digit - b'0'))?;
    }
    if negative { Some(value) } else { value.checked_neg() }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn only_canonical_decimals_are_integers() {
        for text in [
            "",
            "-",
            "-0",
            "00",
            "01",
            "+1",
            " 1",
            "1 ",
            "1.0",
            "9223372036854775808",
            "-9223372036854775809",
        ] {
            assert_eq!(parse_int(text.as_bytes()), None, "{text:?}");
        }
        for value in [0, 7, -7, i64::MAX, i64::MIN, 1_000_000] {
            assert_eq!(parse_int(value.to_string().as_bytes()), Some(value));
        }
    }

    proptest! {
        #[test]
        fn integers_round_trip(value: i64) {
            let member = Member::from_int(value);
            let text = value.to_string();
            prop_assert_eq!(member.as_bytes(), text.as_bytes());
            prop_assert_eq!(Member::from_bytes(&member).as_int(), Some(value));
        }

        #[test]
        fn what_parses_prints_the_same(text in "-?[0-9]{1,21}") {
            if let Some(value) = parse_int(text.as_bytes()) {
                prop_assert_eq!(value.to_string(), text);
            }
        }
    }
}
