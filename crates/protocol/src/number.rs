//! Decimal integers as Redis reads them: one spelling per number.
//!
//! No plus sign, no leading zero, no space, no minus zero. So text that parses is text that printing the
//! number gives back, which is also the condition for storing a string value as an integer.

/// Reads `text` as a 64-bit integer; `None` when it is not exactly how that integer is written.
///
/// ```
/// assert_eq!(mtcache_protocol::parse_i64(b"-12"), Some(-12));
/// assert_eq!(mtcache_protocol::parse_i64(b"012"), None);
/// ```
pub fn parse_i64(text: &[u8]) -> Option<i64> {
    let (negative, digits) = match text {
        [b'0'] => return Some(0),
        [b'-', digits @ ..] => (true, digits),
        digits => (false, digits),
    };
    // Twenty digits are beyond any i64; the bound also keeps hostile input from being walked.
    if !matches!(digits.first(), Some(b'1'..=b'9')) || digits.len() > 19 {
        return None;
    }
    let mut value: u64 = 0;
    for byte in digits {
        let digit = byte.wrapping_sub(b'0');
        if digit > 9 {
            return None;
        }
        // 19 digits stay below 10^19, which a u64 holds.
        value = value * 10 + u64::from(digit);
    }
    if negative { 0_i64.checked_sub_unsigned(value) } else { i64::try_from(value).ok() }
}

#[cfg(test)]
mod tests {
    use super::parse_i64;

    #[test]
    fn only_the_canonical_spelling_is_a_number() {
        for good in [0, 1, -1, 10, i64::MAX, i64::MIN, i64::MAX - 1, i64::MIN + 1] {
            assert_eq!(parse_i64(good.to_string().as_bytes()), Some(good));
        }
        let bad = [
            "",
            "-",
            "-0",
            "00",
            "01",
            "+1",
            " 1",
            "1 ",
            "1a",
            "0x1",
            "1.0",
            "9223372036854775808",
            "-9223372036854775809",
            "99999999999999999999",
            "--1",
        ];
        for text in bad {
            assert_eq!(parse_i64(text.as_bytes()), None, "{text:?}");
        }
    }
}
