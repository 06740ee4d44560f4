//! Arguments to values by Redis' rules: which spellings of a number count, which expiries fit, how options are told.
//!
//! Integers have one spelling each ([`parse_i64`]); floating point numbers are what C's `strtod` reads whole, without
//! leading space, NaN and what overflows or underflows. Whatever the text, nothing here allocates more than the text.

use std::borrow::Cow;

use mtcache_protocol::parse_i64;
use rustc_apfloat::ieee::Double;
use rustc_apfloat::{Float, Round};

use crate::error::CommandError;
use crate::keyspace::DbIndex;
use crate::time::UnixMillis;

/// Whether an argument is this option word, in any case.
#[inline]
pub(crate) fn is(arg: &[u8], word: &str) -> bool {
    arg.eq_ignore_ascii_case(word.as_bytes())
}

/// A 64-bit integer.
#[inline]
pub(crate) fn integer(arg: &[u8]) -> Result<i64, CommandError> {
    parse_i64(arg).ok_or(CommandError::NOT_INTEGER)
}

/// A 64-bit integer that is zero or more.
pub(crate) fn non_negative(arg: &[u8]) -> Result<i64, CommandError> {
    match parse_i64(arg) {
        Some(value) if value >= 0 => Ok(value),
        _ => Err(CommandError::OUT_OF_RANGE_POSITIVE),
    }
}

/// How many elements to choose at random: any 64-bit integer that has an opposite.
pub(crate) fn random_count(arg: &[u8]) -> Result<i64, CommandError> {
    match integer(arg)? {
        i64::MIN => Err(CommandError::new(format!(
            "ERR value is out of range, value must between {} and {}",
            -i64::MAX,
            i64::MAX
        ))),
        count => Ok(count),
    }
}

/// A bound of a range of scores: unlike other numbers one that overflows is infinite, one that underflows is as good as
/// zero, space may stand before it, a NUL ends it, and nothing at all is zero.
pub(crate) fn score(arg: &[u8]) -> Result<f64, CommandError> {
    let text = arg.split(|b| *b == 0).next().unwrap_or_default();
    if text.is_empty() {
        return Ok(0.0);
    }
    let start = text.iter().position(|b| !matches!(b, b' ' | b'\t'..=b'\r')).unwrap_or(text.len());
    lenient_double(text.get(start..).unwrap_or_default()).ok_or(CommandError::MIN_OR_MAX_NOT_FLOAT)
}

/// What SORT sorts by: space may stand before it, a NUL ends it, and nothing at all is zero; but what is too large or too
/// small to be kept in full is none.
pub(crate) fn weight(arg: &[u8]) -> Option<f64> {
    let text = arg.split(|b| *b == 0).next().unwrap_or_default();
    if text.is_empty() {
        return Some(0.0);
    }
    let start = text.iter().position(|b| !matches!(b, b' ' | b'\t'..=b'\r')).unwrap_or(text.len());
    double(text.get(start..).unwrap_or_default()).filter(|value| !value.is_subnormal())
}

/// A floating point number, infinities included.
pub(crate) fn float(arg: &[u8]) -> Result<f64, CommandError> {
    double(arg).ok_or(CommandError::NOT_FLOAT)
}

/// A floating point number, infinities included; `None` for anything else, NaN included.
pub(crate) fn double(text: &[u8]) -> Option<f64> {
    let number = number(text)?;
    let value = nearest(&number)?;
    match number {
        Number::Finite(text) if value.is_infinite() || (value == 0.0 && has_nonzero_digit(&text)) => None,
        _ => Some(value),
    }
}

/// How long to wait, in seconds with a fraction: milliseconds, or `None` for ever. As in Redis what does not fit into 64 bits
/// has become negative.
pub(crate) fn timeout(arg: &[u8]) -> Result<Option<u64>, CommandError> {
    let seconds =
        lenient_double(arg).ok_or(CommandError::new("ERR timeout is not a float or out of range"))?;
    let millis = (seconds * 1000.0).ceil();
    if millis < 0.0 || millis >= i64::MAX as f64 {
        return Err(CommandError::new("ERR timeout is negative"));
    }
    Ok(Some(millis as u64).filter(|millis| *millis > 0))
}

/// As [`double`], but what overflows or underflows is the nearest there is.
fn lenient_double(text: &[u8]) -> Option<f64> {
    nearest(&number(text)?)
}

fn nearest(number: &Number<'_>) -> Option<f64> {
    match number {
        Number::Infinity { negative } => Some(if *negative { f64::NEG_INFINITY } else { f64::INFINITY }),
        Number::Finite(text) if is_hexadecimal(text) => {
            let parsed = Double::from_str_r(text, Round::NearestTiesToEven).ok()?.value;
            Some(f64::from_bits(parsed.to_bits() as u64))
        }
        Number::Finite(text) => text.parse().ok(),
    }
}

/// A number that C's `strtod` would read whole.
pub(crate) enum Number<'a> {
    /// `inf` or `infinity` in any case.
    Infinity {
        /// With a minus sign.
        negative: bool,
    },
    /// Decimal, or hexadecimal with its exponent, without a plus sign.
    Finite(Cow<'a, str>),
}

/// Tells numbers from other texts. `None` for NaN.
pub(crate) fn number(text: &[u8]) -> Option<Number<'_>> {
    let text = std::str::from_utf8(text).ok()?;
    let text = text.strip_prefix('+').filter(|rest| !rest.starts_with('-')).unwrap_or(text);
    let magnitude = text.strip_prefix('-').unwrap_or(text);
    if magnitude.eq_ignore_ascii_case("inf") || magnitude.eq_ignore_ascii_case("infinity") {
        return Some(Number::Infinity { negative: text.starts_with('-') });
    }
    let hexadecimal = magnitude.strip_prefix("0x").or_else(|| magnitude.strip_prefix("0X"));
    let (digits, marks): (_, &[char]) = match hexadecimal {
        Some(digits) => (digits, &['p', 'P']),
        None => (magnitude, &['e', 'E']),
    };
    let (mantissa, exponent) = match digits.split_once(marks) {
        Some((mantissa, exponent)) => (mantissa, Some(exponent)),
        None => (digits, None),
    };
    let is_digit = |b: u8| if hexadecimal.is_some() { b.is_ascii_hexdigit() } else { b.is_ascii_digit() };
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let mantissa_fits =
        whole.len() + fraction.len() > 0 && whole.bytes().chain(fraction.bytes()).all(is_digit);
    let exponent_fits = exponent.is_none_or(|exponent| {
        let digits = exponent.strip_prefix(['+', '-']).unwrap_or(exponent);
        !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit())
    });
    if !mantissa_fits || !exponent_fits {
        return None;
    }
    // Our hexadecimal reader wants an exponent; C does not.
    Some(Number::Finite(if hexadecimal.is_some() && exponent.is_none() {
        Cow::Owned(format!("{text}p0"))
    } else {
        Cow::Borrowed(text)
    }))
}

fn is_hexadecimal(text: &str) -> bool {
    let magnitude = text.strip_prefix('-').unwrap_or(text);
    magnitude.starts_with("0x") || magnitude.starts_with("0X")
}

/// Whether the mantissa is more than zeros: such a number that reads as zero was too small.
fn has_nonzero_digit(text: &str) -> bool {
    let hexadecimal = is_hexadecimal(text);
    let mantissa = text.split(if hexadecimal { ['p', 'P'] } else { ['e', 'E'] }).next().unwrap_or(text);
    mantissa
        .bytes()
        .any(|b| matches!(b, b'1'..=b'9') || (hexadecimal && b.is_ascii_alphabetic() && !is(&[b], "x")))
}

/// The unit of an expiry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unit {
    /// Whole seconds.
    Seconds,
    /// Milliseconds.
    Millis,
}

/// From where an expiry counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Since {
    /// From now.
    Now,
    /// From the Unix epoch.
    Epoch,
}

/// An expiry as an option of a command that stores or reads (`EX 10`): has to be positive, and to end in the range of
/// times. `command` is named in the error.
pub(crate) fn expiry(
    arg: &[u8],
    unit: Unit,
    since: Since,
    now: UnixMillis,
    command: &str,
) -> Result<UnixMillis, CommandError> {
    let given = integer(arg)?;
    if given <= 0 {
        return Err(CommandError::invalid_expire(command));
    }
    moment(given, unit, since, now)
        .and_then(|at| u64::try_from(at).ok())
        .map(UnixMillis)
        .ok_or_else(|| CommandError::invalid_expire(command))
}

/// The absolute time in milliseconds of an expiry of any sign; `None` beyond the range of 64 bits.
pub(crate) fn moment(given: i64, unit: Unit, since: Since, now: UnixMillis) -> Option<i64> {
    let millis = match unit {
        Unit::Seconds => given.checked_mul(1000)?,
        Unit::Millis => given,
    };
    match since {
        Since::Now => millis.checked_add_unsigned(now.0),
        Since::Epoch => Some(millis),
    }
}

/// The number of a database that exists.
pub(crate) fn database(arg: &[u8], databases: usize) -> Result<DbIndex, CommandError> {
    let number = small_integer(arg)?;
    match DbIndex::try_from(number) {
        Ok(db) if usize::from(db) < databases => Ok(db),
        _ => Err(CommandError::DB_OUT_OF_RANGE),
    }
}

/// A 32-bit integer.
pub(crate) fn small_integer(arg: &[u8]) -> Result<i32, CommandError> {
    i32::try_from(integer(arg)?).map_err(|_| {
        CommandError::new(format!(
            "ERR value is out of range, value must between {} and {}",
            i32::MIN,
            i32::MAX
        ))
    })
}

/// A cursor as C's `strtoul` reads it.
pub(crate) fn cursor(arg: &[u8]) -> Result<u64, CommandError> {
    // C stops at a NUL and takes nothing at all for zero.
    let text = arg.split(|b| *b == 0).next().unwrap_or_default();
    if text.is_empty() {
        return Ok(0);
    }
    let (negative, digits) = match text {
        [b'-', digits @ ..] => (true, digits),
        [b'+', digits @ ..] | digits => (false, digits),
    };
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return Err(CommandError::INVALID_CURSOR);
    }
    let value = std::str::from_utf8(digits)
        .ok()
        .and_then(|text| text.parse::<u64>().ok())
        .ok_or(CommandError::INVALID_CURSOR)?;
    Ok(if negative { value.wrapping_neg() } else { value })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn doubles_are_what_strtod_reads_whole() {
        let good = [
            ("1", 1.0),
            ("+1.5", 1.5),
            ("-.5", -0.5),
            ("5.", 5.0),
            ("1e3", 1000.0),
            ("1E-3", 0.001),
            ("0x10", 16.0),
            ("-0x1.8p1", -3.0),
            ("0X.8", 0.5),
            ("inf", f64::INFINITY),
            ("-Infinity", f64::NEG_INFINITY),
            ("+inf", f64::INFINITY),
            ("0e999999", 0.0),
            ("0x0p-9999", 0.0),
            ("4.9e-324", 4.9e-324),
        ];
        for (text, value) in good {
            assert_eq!(double(text.as_bytes()), Some(value), "{text}");
        }
        for text in [
            "",
            " 1",
            "1 ",
            "1e",
            "e1",
            ".",
            "nan",
            "-nan",
            "+-1",
            "--1",
            "0x",
            "0xp1",
            "0x1p",
            "1_0",
            "1e400",
            "1e-400",
            "infin",
            "1.2.3",
            "1e1.5",
            "0x1e5000p9999999",
            "0x1p-9999",
        ] {
            assert_eq!(double(text.as_bytes()), None, "{text}");
        }
    }

    #[test]
    fn bounds_of_scores_are_whatever_strtod_makes_of_them() {
        let good = [
            ("", 0.0),
            ("  1", 1.0),
            ("1e5000", f64::INFINITY),
            ("-1e5000", f64::NEG_INFINITY),
            ("1e-5000", 0.0),
            ("1\0x", 1.0),
        ];
        for (text, value) in good {
            assert_eq!(score(text.as_bytes()), Ok(value), "{text}");
        }
        for text in ["1 ", "  ", "nan", "a", "(1"] {
            assert!(score(text.as_bytes()).is_err(), "{text}");
        }
    }

    #[test]
    fn cursors_are_what_strtoul_reads() {
        for (text, value) in
            [("0", 0), ("", 0), ("+5", 5), ("-1", u64::MAX), ("007", 7), ("18446744073709551615", u64::MAX)]
        {
            assert_eq!(cursor(text.as_bytes()), Ok(value), "{text}");
        }
        for text in ["a", "1a", " 1", "-", "18446744073709551616"] {
            assert!(cursor(text.as_bytes()).is_err(), "{text}");
        }
    }

    #[test]
    fn an_expiry_stays_in_the_range_of_times() {
        let now = UnixMillis(1000);
        let at = |arg: &str, unit, since| expiry(arg.as_bytes(), unit, since, now, "set").ok();
        assert_eq!(at("1", Unit::Seconds, Since::Now), Some(UnixMillis(2000)));
        assert_eq!(at("1", Unit::Millis, Since::Epoch), Some(UnixMillis(1)));
        assert_eq!(at("0", Unit::Seconds, Since::Now), None);
        assert_eq!(at("-1", Unit::Seconds, Since::Epoch), None);
        assert_eq!(at("9223372036854775807", Unit::Millis, Since::Now), None);
        assert_eq!(at("9223372036854775807", Unit::Millis, Since::Epoch), Some(UnixMillis(i64::MAX as u64)));
        assert_eq!(at("9223372036854776", Unit::Seconds, Since::Epoch), None);
    }
}
