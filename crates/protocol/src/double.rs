//! Floating point numbers as text, exactly as C's `printf("%.17g")` gives them.
//!
//! Redis prints scores and double replies this way, so clients and saved files see the same digits.
//! Seventeen significant digits are enough to read back the very same number. There is no "shortest"
//! form here: 0.1 is `0.10000000000000001`, because that is what Redis says.

use std::io::Write;

/// The largest magnitude up to which every integral double is written as its digits (below 10^17 `%.17g`
/// uses no exponent; below 2^53 the conversion to an integer is also exact).
const EXACT_INTEGERS: f64 = 9_007_199_254_740_992.0;

/// Appends `value` as `printf("%.17g")` prints it; `inf`, `-inf`, `nan` and `-nan` for what is not finite.
///
/// ```
/// let mut text = Vec::new();
/// mtcache_protocol::write_double(&mut text, 0.1);
/// assert_eq!(text, b"0.10000000000000001");
/// ```
pub fn write_double(buf: &mut Vec<u8>, value: f64) {
    if value.abs() < EXACT_INTEGERS && value.trunc().to_bits() == value.to_bits() {
        // Negative zero keeps its sign in C, which no integer can.
        if value == 0.0 && value.is_sign_negative() {
            buf.extend_from_slice(b"-0");
            return;
        }
        let mut digits = itoa::Buffer::new();
        buf.extend_from_slice(digits.format(value as i64).as_bytes());
        return;
    }
    if !value.is_finite() {
        buf.extend_from_slice(match (value.is_nan(), value.is_sign_negative()) {
            (true, false) => b"nan",
            (true, true) => b"-nan",
            (false, false) => b"inf",
            (false, true) => b"-inf",
        });
        return;
    }
    write_finite(buf, value);
}

/// Rearranges Rust's exact scientific form (`d.dddddddddddddddde-7`) by the rules of `%g`.
fn write_finite(buf: &mut Vec<u8>, value: f64) {
    // Sign, 17 digits, point, `e`, sign and three exponent digits are 24 bytes at most.
    let mut scratch = [0_u8; 32];
    let mut rest = scratch.as_mut_slice();
    let written = write!(rest, "{:.16e}", value.abs()).is_ok();
    let left = rest.len();
    let text = scratch.get(..scratch.len() - left).unwrap_or_default();
    debug_assert!(written, "the scratch buffer holds every double");

    let split = text.iter().position(|b| *b == b'e').unwrap_or(text.len());
    let (mantissa, exponent) = text.split_at(split);
    let exponent = parse_exponent(exponent);
    let mut digits = [b'0'; 17];
    for (to, from) in digits.iter_mut().zip(mantissa.iter().filter(|b| **b != b'.')) {
        *to = *from;
    }
    let significant = digits.iter().rposition(|b| *b != b'0').map_or(1, |last| last + 1);
    let digits = digits.get(..significant).unwrap_or_default();

    if value.is_sign_negative() {
        buf.push(b'-');
    }
    if (-4..17).contains(&exponent) {
        write_fixed(buf, digits, exponent);
    } else {
        write_scientific(buf, digits, exponent);
    }
}

fn write_fixed(buf: &mut Vec<u8>, digits: &[u8], exponent: i32) {
    if exponent < 0 {
        buf.extend_from_slice(b"0.");
        buf.extend((1..-exponent).map(|_| b'0'));
        buf.extend_from_slice(digits);
        return;
    }
    let whole = exponent as usize + 1;
    if digits.len() <= whole {
        buf.extend_from_slice(digits);
        buf.extend((digits.len()..whole).map(|_| b'0'));
        return;
    }
    let (integer, fraction) = digits.split_at(whole);
    buf.extend_from_slice(integer);
    buf.push(b'.');
    buf.extend_from_slice(fraction);
}

fn write_scientific(buf: &mut Vec<u8>, digits: &[u8], exponent: i32) {
    let (first, fraction) = digits.split_at(1.min(digits.len()));
    buf.extend_from_slice(first);
    if !fraction.is_empty() {
        buf.push(b'.');
        buf.extend_from_slice(fraction);
    }
    buf.extend_from_slice(if exponent < 0 { b"e-" } else { b"e+" });
    let magnitude = exponent.unsigned_abs();
    if magnitude < 10 {
        buf.push(b'0');
    }
    let mut text = itoa::Buffer::new();
    buf.extend_from_slice(text.format(magnitude).as_bytes());
}

/// Reads `e-308` or `e16`.
fn parse_exponent(text: &[u8]) -> i32 {
    let text = text.strip_prefix(b"e").unwrap_or(text);
    let (negative, digits) = match text.strip_prefix(b"-") {
        Some(digits) => (true, digits),
        None => (false, text),
    };
    let magnitude = digits.iter().fold(0, |sum, digit| sum * 10 + i32::from(digit.wrapping_sub(b'0')));
    if negative { -magnitude } else { magnitude }
}

#[cfg(test)]
mod tests {
    use super::write_double;

    fn ours(value: f64) -> String {
        let mut buf = Vec::new();
        write_double(&mut buf, value);
        String::from_utf8(buf).unwrap()
    }

    #[allow(unsafe_code, reason = "the C library is the oracle")]
    fn libc_text(value: f64) -> String {
        let mut buf = [0_u8; 64];
        // SAFETY: the format takes one double and the output is bounded by the buffer's length.
        let len = unsafe { libc::snprintf(buf.as_mut_ptr().cast(), buf.len(), c"%.17g".as_ptr(), value) };
        String::from_utf8(buf[..usize::try_from(len).unwrap()].to_vec()).unwrap()
    }

    /// A small generator (splitmix64), so that a run can be repeated from its seed.
    fn next(state: &mut u64) -> u64 {
        *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = *state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn rounds() -> u32 {
        std::env::var("DOUBLE_ROUNDS").ok().and_then(|n| n.parse().ok()).unwrap_or(200_000)
    }

    #[test]
    fn special_values_read_as_c_prints_them() {
        let cases = [
            0.0,
            -0.0,
            1.0,
            -1.0,
            0.1,
            0.5,
            1.5,
            1e16,
            1e17,
            1e18,
            -1e17,
            123_456_789.125,
            1e-4,
            1e-5,
            9.999_999e-5,
            f64::MAX,
            f64::MIN,
            f64::MIN_POSITIVE,
            f64::EPSILON,
            5e-324,
            9_007_199_254_740_991.0,
            9_007_199_254_740_992.0,
            9_007_199_254_740_993.0,
            99_999_999_999_999_990.0,
            1e100,
            1e-100,
            f64::INFINITY,
            f64::NEG_INFINITY,
        ];
        for value in cases {
            assert_eq!(ours(value), libc_text(value), "{:#x}", value.to_bits());
        }
        assert_eq!(ours(f64::NAN.copysign(1.0)), "nan");
        assert_eq!(ours(f64::NAN.copysign(-1.0)), "-nan");
    }

    #[test]
    fn random_bit_patterns_read_as_c_prints_them() {
        let mut state = 1;
        for _ in 0..rounds() {
            let value = f64::from_bits(next(&mut state));
            if value.is_nan() {
                continue;
            }
            assert_eq!(ours(value), libc_text(value), "{:#x}", value.to_bits());
        }
    }

    #[test]
    fn numbers_people_use_read_as_c_prints_them() {
        let mut state = 2;
        for _ in 0..rounds() {
            let scale = 10_f64.powi((next(&mut state) % 24) as i32 - 6);
            let value = (next(&mut state) % 2_000_000) as f64 / scale - 1_000.0;
            assert_eq!(ours(value), libc_text(value), "{:#x}", value.to_bits());
        }
    }

    /// An odd multiple of a small power of two has few binary and many decimal digits: where the digits
    /// after the seventeenth are exactly a half, the last one must go to even as in C.
    #[test]
    fn exact_halves_round_to_even() {
        let mut state = 3;
        for _ in 0..rounds() {
            let mantissa = (next(&mut state) >> (11 + next(&mut state) % 30)) | 1;
            let shift = (next(&mut state) % 40) as i32;
            let value = mantissa as f64 / 2_f64.powi(shift);
            assert_eq!(ours(value), libc_text(value), "{:#x}", value.to_bits());
        }
    }

    #[test]
    fn text_reads_back_as_the_same_number() {
        let mut state = 4;
        for _ in 0..rounds() / 4 {
            let value = f64::from_bits(next(&mut state));
            if value.is_finite() {
                assert_eq!(ours(value).parse::<f64>().unwrap().to_bits(), value.to_bits());
            }
        }
    }
}
