//! Points in time as values carry them: numbers or ISO 8601 text.
//!
//! Invariant: every form of the same moment gives the same `Timestamp`, and a text without a zone is UTC. Deliberately absent: the
//! clock; this only reads what a value says.

use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use serde_json::Value;

const NANOS_PER_SECOND: i128 = 1_000_000_000;

/// Nanoseconds since 1970 in UTC.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(i128);

impl Timestamp {
    /// From a JSON number or string; none for anything else, and for text that is no time.
    pub fn from_json(value: &Value) -> Option<Self> {
        match value {
            Value::Number(n) => match n.as_i64() {
                Some(n) => Some(Self::from_integer(n)),
                None => Self::from_epoch(n.as_f64()?),
            },
            Value::String(text) => Self::parse(text),
            _ => None,
        }
    }

    /// From text: ISO 8601 with or without a zone, or a number of seconds.
    pub fn parse(text: &str) -> Option<Self> {
        let text = text.trim();
        // Numbers first: a date parser takes some of them for dates without separators.
        if let Ok(n) = text.parse::<i64>() {
            return Some(Self::from_integer(n));
        }
        if let Ok(n) = text.parse::<f64>() {
            return Self::from_epoch(n);
        }
        if let Ok(moment) = text.parse::<jiff::Timestamp>() {
            return Some(Self(moment.as_nanosecond()));
        }
        let naive = text.parse::<DateTime>().ok()?;
        Some(Self(naive.to_zoned(TimeZone::UTC).ok()?.timestamp().as_nanosecond()))
    }

    /// From a number since 1970, to the microsecond: seconds, or by its size milliseconds (from 1e11), microseconds (1e14) or nanoseconds (1e17).
    pub fn from_epoch(n: f64) -> Option<Self> {
        if !n.is_finite() || n.abs() >= 1e20 {
            return None;
        }
        let unit = unit_of(n.abs());
        // The fraction apart, and to the microsecond: a float has no finer places left beside today's seconds.
        let micros = (n.fract() * unit as f64 / 1000.0).round() as i128;
        Some(Self(n.trunc() as i128 * unit + micros * 1000))
    }

    fn from_integer(n: i64) -> Self {
        Self(i128::from(n) * unit_of(n.unsigned_abs() as f64))
    }

    /// Nanoseconds since 1970.
    pub fn as_nanos(self) -> i128 {
        self.0
    }

    /// Seconds since 1970; a float holds today's times to about a quarter of a microsecond.
    pub fn as_epoch_seconds(self) -> f64 {
        let (whole, rest) = (self.0.div_euclid(NANOS_PER_SECOND), self.0.rem_euclid(NANOS_PER_SECOND));
        whole as f64 + rest as f64 / NANOS_PER_SECOND as f64
    }
}

/// How many nanoseconds one of the number's units has.
fn unit_of(size: f64) -> i128 {
    match size {
        s if s >= 1e17 => 1,
        s if s >= 1e14 => 1_000,
        s if s >= 1e11 => 1_000_000,
        _ => NANOS_PER_SECOND,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn every_form_of_a_moment_is_the_same_moment() {
        let moment = Timestamp(1_700_000_000_250_000_000);
        for form in [
            json!(1_700_000_000.25),
            json!(1_700_000_000_250_i64),
            json!(1_700_000_000_250_000_i64),
            json!(1_700_000_000_250_000_000_i64),
            json!("2023-11-14T22:13:20.250Z"),
            json!("2023-11-14T22:13:20.250+00:00"),
            json!("2023-11-15T03:43:20.25+05:30"),
            json!("2023-11-14T22:13:20.250000"),
            json!("2023-11-14 22:13:20.25"),
            json!("1700000000.25"),
        ] {
            assert_eq!(Timestamp::from_json(&form), Some(moment), "{form}");
        }
        assert!((moment.as_epoch_seconds() - 1_700_000_000.25).abs() < 1e-9);
    }

    #[test]
    fn what_is_no_time_is_none() {
        for form in
            [json!(null), json!("yesterday"), json!({}), json!(true), json!(1e30), json!("nan"), json!("")]
        {
            assert_eq!(Timestamp::from_json(&form), None, "{form}");
        }
    }
}
