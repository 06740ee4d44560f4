//! A moment as the services write it: epoch seconds, or ISO 8601 text, of which a time without a zone is UTC.
//!
//! Invariant: what was read is written back in the same form, digit for digit; only the comparison looks at the moment. Which
//! moment a form means is the cache's rule (`mtcache_cache::Timestamp`), so that set-if-newer and the signal buffer never
//! disagree. Moments before 1970 and after 9999 are refused: such a value would stay the oldest or newest for ever.

use std::fmt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::{Number, Value};

use crate::{Error, ErrorKind};

/// Epoch seconds of the first moment after the year 9999.
const TOO_LATE: f64 = 253_402_300_800.0;

/// A moment, and the form it was written in. Compares by the moment alone.
#[derive(Clone, Debug)]
pub struct Timestamp {
    epoch_seconds: f64,
    written: Written,
}

#[derive(Clone, Debug)]
enum Written {
    Epoch(Number),
    Text(String),
}

impl Timestamp {
    /// The present moment by this machine's clock, written as epoch seconds.
    pub fn now() -> Self {
        Self::from(SystemTime::now())
    }

    /// A moment in seconds since 1970-01-01 00:00 UTC, fractions allowed.
    ///
    /// Fails for NaN, infinities, negative numbers and anything after the year 9999.
    pub fn from_epoch_seconds(seconds: f64) -> Result<Self, Error> {
        let Some(number) = Number::from_f64(seconds) else {
            return Err(invalid(&seconds.to_string(), "is not a finite number"));
        };
        in_range(seconds, &number)?;
        Ok(Self { epoch_seconds: seconds, written: Written::Epoch(number) })
    }

    /// Reads ISO 8601: `2026-02-03T04:05:06.7Z`, with another offset, with a space for the `T`, or a date alone; without a zone it
    /// is UTC. Also reads a number in quotes.
    pub fn parse(text: &str) -> Result<Self, Error> {
        if text.contains('[') {
            return Err(invalid(text, "names a time zone; write an offset such as +02:00 or Z"));
        }
        let moment = mtcache_cache::Timestamp::parse(text)
            .ok_or_else(|| invalid(text, "is neither ISO 8601 nor epoch seconds"))?;
        let epoch_seconds = moment.as_epoch_seconds();
        in_range(epoch_seconds, &text)?;
        Ok(Self { epoch_seconds, written: Written::Text(text.to_owned()) })
    }

    /// Reads the JSON form: a number is seconds (or, by its size, milliseconds or finer) since 1970, a text as [`Self::parse`]
    /// has it.
    pub fn from_json(value: &Value) -> Result<Self, Error> {
        match value {
            Value::Number(number) => {
                let moment = mtcache_cache::Timestamp::from_json(value)
                    .ok_or_else(|| invalid(&number.to_string(), "is out of range"))?;
                let epoch_seconds = moment.as_epoch_seconds();
                in_range(epoch_seconds, number)?;
                Ok(Self { epoch_seconds, written: Written::Epoch(number.clone()) })
            }
            Value::String(text) => Self::parse(text),
            other => Err(invalid(&other.to_string(), "is neither epoch seconds nor ISO 8601 text")),
        }
    }

    /// Seconds since 1970-01-01 00:00 UTC, to about a microsecond.
    pub fn epoch_seconds(&self) -> f64 {
        self.epoch_seconds
    }

    /// The same moment, written as ISO 8601 in UTC to the microsecond.
    #[must_use]
    pub fn to_iso(&self) -> Self {
        let micros = (self.epoch_seconds * 1e6).round() as i64;
        let text = jiff::Timestamp::from_microsecond(micros).unwrap_or_default().to_string();
        Self { epoch_seconds: self.epoch_seconds, written: Written::Text(text) }
    }

    /// How long before `now` this was; zero when it is later than `now`.
    pub fn age(&self, now: &Self) -> Duration {
        Duration::try_from_secs_f64(now.epoch_seconds - self.epoch_seconds).unwrap_or_default()
    }

    /// How long after `now` this is; zero when it has passed.
    pub fn left_at(&self, now: &Self) -> Duration {
        now.age(self)
    }
}

impl From<SystemTime> for Timestamp {
    /// Times before 1970 become 1970.
    fn from(time: SystemTime) -> Self {
        let micros = time.duration_since(UNIX_EPOCH).unwrap_or_default().as_micros();
        let seconds = micros as f64 / 1e6;
        let number = Number::from_f64(seconds).unwrap_or_else(|| Number::from(0));
        Self { epoch_seconds: seconds, written: Written::Epoch(number) }
    }
}

impl PartialEq for Timestamp {
    fn eq(&self, other: &Self) -> bool {
        self.epoch_seconds.total_cmp(&other.epoch_seconds).is_eq()
    }
}

impl Eq for Timestamp {}

impl PartialOrd for Timestamp {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Timestamp {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.epoch_seconds.total_cmp(&other.epoch_seconds)
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.written {
            Written::Epoch(number) => number.fmt(f),
            Written::Text(text) => text.fmt(f),
        }
    }
}

impl Serialize for Timestamp {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match &self.written {
            Written::Epoch(number) => number.serialize(serializer),
            Written::Text(text) => text.serialize(serializer),
        }
    }
}

impl<'de> Deserialize<'de> for Timestamp {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::from_json(&Value::deserialize(deserializer)?).map_err(D::Error::custom)
    }
}

fn in_range(seconds: f64, written: &dyn fmt::Display) -> Result<(), Error> {
    if !seconds.is_finite() || seconds < 0.0 {
        return Err(invalid(&written.to_string(), "is not a moment after 1970"));
    }
    if seconds >= TOO_LATE {
        return Err(invalid(&written.to_string(), "is after the year 9999"));
    }
    Ok(())
}

fn invalid(written: &str, why: &str) -> Error {
    let shown: String = written.chars().take(64).collect();
    Error::new(ErrorKind::InvalidTimestamp, format!("the timestamp {shown:?} {why}"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn seconds(value: &Value) -> f64 {
        Timestamp::from_json(value).unwrap().epoch_seconds()
    }

    #[test]
    fn iso_time_without_zone_is_utc() {
        let expected = 1_770_091_506.25;
        for text in [
            "2026-02-03T04:05:06.250Z",
            "2026-02-03T04:05:06.25",
            "2026-02-03 04:05:06.250000",
            "2026-02-03T06:05:06.25+02:00",
            "2026-02-03T04:05:06.250000+00:00",
        ] {
            assert!((seconds(&json!(text)) - expected).abs() < 1e-6, "{text}");
        }
        assert!((seconds(&json!("2026-02-03")) - 1_770_076_800.0).abs() < 1e-6);
    }

    #[test]
    fn epoch_numbers_are_seconds_also_in_quotes() {
        assert!((seconds(&json!(1_770_091_506)) - 1_770_091_506.0).abs() < 1e-6);
        assert!((seconds(&json!("1770091506.5")) - 1_770_091_506.5).abs() < 1e-6);
    }

    #[test]
    fn what_was_read_is_written_back_in_the_same_form() {
        for value in [
            json!(1_770_091_506),
            json!(1_770_091_506.25),
            json!("2026-02-03 04:05:06"),
            json!("1770091506.50"),
        ] {
            let read: Timestamp = serde_json::from_value(value.clone()).unwrap();
            assert_eq!(serde_json::to_value(read).unwrap(), value);
        }
    }

    #[test]
    fn milliseconds_are_told_by_their_size_as_the_cache_does() {
        assert!((seconds(&json!(1_770_091_506_250_i64)) - 1_770_091_506.25).abs() < 1e-6);
    }

    #[test]
    fn what_is_no_moment_is_refused_with_a_kind() {
        for value in [
            json!("yesterday"),
            json!(""),
            json!(null),
            json!(true),
            json!(-1),
            json!("NaN"),
            json!("inf"),
            json!("0001-01-01"),
            json!(1e30),
            json!("2026-02-03T04:05:06[Europe/Berlin]"),
            json!("2026-13-03T04:05:06"),
        ] {
            let error = Timestamp::from_json(&value).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidTimestamp, "{value}");
        }
    }

    #[test]
    fn iso_form_names_the_same_moment() {
        let now = Timestamp::now();
        let read = Timestamp::parse(&now.to_iso().to_string()).unwrap();
        assert!((read.epoch_seconds() - now.epoch_seconds()).abs() < 1e-5);
    }

    #[test]
    fn age_of_the_future_is_zero() {
        let early = Timestamp::from_epoch_seconds(10.0).unwrap();
        let late = Timestamp::from_epoch_seconds(12.5).unwrap();
        assert_eq!(early.age(&late), Duration::from_millis(2500));
        assert_eq!(late.age(&early), Duration::ZERO);
    }

    proptest::proptest! {
        #[test]
        fn whatever_is_written_is_a_moment_in_range_or_a_typed_error(text in ".{0,40}", number: f64, whole: i64) {
            for value in [json!(text), json!(number), json!(whole), json!(number.to_string())] {
                match Timestamp::from_json(&value) {
                    Ok(moment) => {
                        proptest::prop_assert!((0.0..TOO_LATE).contains(&moment.epoch_seconds()));
                        proptest::prop_assert_eq!(serde_json::to_value(moment).unwrap(), value);
                    }
                    Err(error) => proptest::prop_assert_eq!(error.kind(), ErrorKind::InvalidTimestamp),
                }
            }
        }

        #[test]
        fn forms_of_one_moment_are_equal_to_the_microsecond(micros in 0i64..4_000_000_000_000_000) {
            let moment = Timestamp::from_epoch_seconds(micros as f64 / 1e6).unwrap();
            let read = Timestamp::parse(&moment.to_iso().to_string()).unwrap();
            proptest::prop_assert!((read.epoch_seconds() - moment.epoch_seconds()).abs() < 1.5e-6);
        }
    }
}
