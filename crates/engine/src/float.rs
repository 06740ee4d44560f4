//! The arithmetic of `INCRBYFLOAT` and `HINCRBYFLOAT`: x87 extended precision, as Redis has it on x86.
//!
//! Redis adds in C's `long double` and prints with 17 decimals, trailing zeros cut. Only the same 64-bit significand
//! gives the same digits, so that 0.1 plus 0.2 is 0.3 here and 0.30000000000000004 nowhere. Deliberately absent: any
//! other operation.

use std::fmt::Write;

use rustc_apfloat::ieee::X87DoubleExtended;
use rustc_apfloat::{Float, Round, Status};

use crate::commands::parse::{self, Number};

/// The longest text that is read as a number; Redis' buffer for it.
const MAX_TEXT: usize = 5 * 1024 - 1;
/// Digits printed after the point, before zeros are cut.
const DECIMALS: usize = 17;
const TEN_TO_DECIMALS: u128 = 100_000_000_000_000_000;
/// Bias of the exponent, with the 63 bits after the significand's integer bit taken in.
const EXPONENT_BIAS: i32 = 16_383 + 63;

/// A number in 80-bit extended precision.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ExtendedFloat(X87DoubleExtended);

impl ExtendedFloat {
    /// Zero, the value of a key or field that is not there.
    pub(crate) const ZERO: Self = Self(X87DoubleExtended::ZERO);

    /// Reads a number as C's `strtold` does: decimal or hexadecimal, infinities by name. `None` for anything else, for
    /// NaN, and for what is too large or too small to be told from infinity or zero.
    pub(crate) fn parse(text: &[u8]) -> Option<Self> {
        if text.len() > MAX_TEXT {
            return None;
        }
        let value = match parse::number(text)? {
            Number::Infinity { negative: false } => X87DoubleExtended::INFINITY,
            Number::Infinity { negative: true } => -X87DoubleExtended::INFINITY,
            Number::Finite(text) => {
                let parsed = X87DoubleExtended::from_str_r(&text, Round::NearestTiesToEven).ok()?;
                let lost = parsed.status.contains(Status::OVERFLOW)
                    || (parsed.status.contains(Status::UNDERFLOW) && parsed.value.is_zero());
                if lost {
                    return None;
                }
                parsed.value
            }
        };
        Some(Self(value))
    }

    /// Whether this is one of the infinities.
    pub(crate) fn is_infinite(self) -> bool {
        self.0.is_infinite()
    }

    /// The sum, rounded to nearest; `None` when it is no finite number.
    pub(crate) fn checked_add(self, other: Self) -> Option<Self> {
        let sum = (self.0 + other.0).value;
        sum.is_finite().then_some(Self(sum))
    }

    /// The text: at most 17 decimals, no trailing zeros, never an exponent, never minus zero.
    pub(crate) fn to_text(self) -> String {
        let bits = self.0.to_bits();
        let significand = bits as u64;
        let exponent = i32::from((bits >> 64) as u16 & 0x7fff).max(1) - EXPONENT_BIAS;
        let negative = bits >> 79 & 1 == 1;
        let (whole, fraction) = decimal_parts(significand, exponent);
        let mut text = String::with_capacity(whole.len() + DECIMALS + 2);
        if negative && (whole != "0" || fraction != 0) {
            text.push('-');
        }
        text.push_str(&whole);
        if fraction != 0 {
            text.push('.');
            let digits = format!("{fraction:0DECIMALS$}");
            text.push_str(digits.trim_end_matches('0'));
        }
        text
    }
}

/// Whole part as digits, and the fraction in units of 10^-17, of `significand * 2^exponent`, ties to even.
fn decimal_parts(significand: u64, exponent: i32) -> (String, u128) {
    if exponent >= 0 {
        return (whole_digits(significand, exponent.unsigned_abs()), 0);
    }
    let shift = exponent.unsigned_abs();
    let (whole, rest) =
        if shift < 64 { (significand >> shift, significand & ((1 << shift) - 1)) } else { (0, significand) };
    // Below 2^64 * 10^17 < 2^121, so it fits; and from a shift of 122 on everything rounds to zero.
    let scaled = u128::from(rest) * TEN_TO_DECIMALS;
    let mut fraction = 0;
    if shift < 123 {
        fraction = scaled >> shift;
        let remainder = scaled & ((1 << shift) - 1);
        let half = 1 << (shift - 1);
        if remainder > half || (remainder == half && fraction & 1 == 1) {
            fraction += 1;
        }
    }
    let carry = fraction == TEN_TO_DECIMALS;
    let whole = u128::from(whole) + u128::from(carry);
    (whole.to_string(), if carry { 0 } else { fraction })
}

/// The digits of `significand * 2^shift`, by repeated doubling in base 10^9.
fn whole_digits(significand: u64, shift: u32) -> String {
    const BASE: u64 = 1_000_000_000;
    /// Bits per step: a limb below 10^9 < 2^30 shifted by this stays below 2^64.
    const STEP: u32 = 32;
    let mut limbs = Vec::new();
    let mut rest = significand;
    while rest > 0 || limbs.is_empty() {
        limbs.push(rest % BASE);
        rest /= BASE;
    }
    let mut left = shift;
    while left > 0 {
        let step = left.min(STEP);
        let mut carry = 0;
        for limb in &mut limbs {
            let value = (*limb << step) + carry;
            *limb = value % BASE;
            carry = value / BASE;
        }
        while carry > 0 {
            limbs.push(carry % BASE);
            carry /= BASE;
        }
        left -= step;
    }
    let mut limbs = limbs.iter().rev();
    let mut text = limbs.next().map_or_else(String::new, u64::to_string);
    for limb in limbs {
        // Writing to a string cannot fail.
        let _ = write!(text, "{limb:09}");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::ExtendedFloat;

    fn sum(a: &str, b: &str) -> Option<String> {
        let (a, b) = (ExtendedFloat::parse(a.as_bytes())?, ExtendedFloat::parse(b.as_bytes())?);
        a.checked_add(b).map(ExtendedFloat::to_text)
    }

    #[test]
    fn sums_read_as_in_redis() {
        assert_eq!(sum("0.1", "0.2").unwrap(), "0.3");
        assert_eq!(sum("10.5", "0.1").unwrap(), "10.6");
        assert_eq!(sum("5.0e3", "2.0e2").unwrap(), "5200");
        assert_eq!(sum("3", "-3.0").unwrap(), "0");
        assert_eq!(sum("-0", "0").unwrap(), "0");
        assert_eq!(sum("0x10", "0").unwrap(), "16");
        assert_eq!(sum("1e-18", "0").unwrap(), "0");
        assert_eq!(sum("0.99999999999999999999", "0").unwrap(), "1");
        assert_eq!(sum("1e25", "0").unwrap(), "10000000000000000000000000");
        assert_eq!(sum("inf", "1"), None);
        assert_eq!(sum("1e4932", "1e4932"), None);
        assert_eq!(sum("1e5000", "0"), None);
    }
}
