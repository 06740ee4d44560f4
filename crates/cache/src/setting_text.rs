//! How values of settings are written: durations with their units, `off` where there may be none.
//!
//! Invariant: what is shown is read back as the same value. Deliberately absent: which settings there are.

use std::time::Duration;

use crate::codec::Codec;
use crate::region::Undecodable;

/// What a setting can be.
pub(crate) trait SettingText: Sized {
    /// What it takes, for people.
    const TAKES: &'static str;

    fn parse(text: &str) -> Result<Self, String>;

    fn show(&self) -> String;
}

/// Units, the long ones first, in nanoseconds.
const UNITS: [(&str, u64); 7] = [
    ("d", 86_400_000_000_000),
    ("h", 3_600_000_000_000),
    ("m", 60_000_000_000),
    ("s", 1_000_000_000),
    ("ms", 1_000_000),
    ("us", 1_000),
    ("ns", 1),
];

impl SettingText for Duration {
    const TAKES: &'static str = "a duration: `30s`, `1h30m`, `250ms`, `7d`";

    fn parse(text: &str) -> Result<Self, String> {
        duration(text).ok_or_else(|| {
            format!(
                "{text:?} is no duration; write a duration with its unit, such as 30s, 1h30m, 250ms or 7d"
            )
        })
    }

    fn show(&self) -> String {
        let mut nanos = self.as_nanos();
        if nanos == 0 {
            return "0s".to_owned();
        }
        let mut text = String::new();
        for (unit, size) in UNITS {
            let count = nanos / u128::from(size);
            if count > 0 {
                text += &format!("{count}{unit}");
                nanos %= u128::from(size);
            }
        }
        text
    }
}

/// Counts with units, one after the other: `1h30m`; a count may have a fraction.
fn duration(text: &str) -> Option<Duration> {
    let mut rest = text.trim();
    if rest.is_empty() {
        return None;
    }
    let mut sum = Duration::ZERO;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let (count, after) = rest.split_at(digits);
        let letters = after.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(after.len());
        let (unit, after) = after.split_at(letters);
        let size = UNITS.iter().find(|(name, _)| *name == unit)?.1;
        let part = match count.parse::<u32>() {
            Ok(count) => Duration::from_nanos(size).checked_mul(count)?,
            Err(_) => Duration::try_from_secs_f64(count.parse::<f64>().ok()? * size as f64 / 1e9).ok()?,
        };
        sum = sum.checked_add(part)?;
        rest = after.trim_start();
    }
    Some(sum)
}

impl SettingText for Option<Duration> {
    const TAKES: &'static str = "a duration, or `off`";

    fn parse(text: &str) -> Result<Self, String> {
        if text == "off" { Ok(None) } else { Duration::parse(text).map(Some) }
    }

    fn show(&self) -> String {
        self.map_or_else(|| "off".to_owned(), |duration| duration.show())
    }
}

impl SettingText for Option<f64> {
    const TAKES: &'static str = "a number, or `off`";

    fn parse(text: &str) -> Result<Self, String> {
        if text == "off" { Ok(None) } else { f64::parse(text).map(Some) }
    }

    fn show(&self) -> String {
        self.map_or_else(|| "off".to_owned(), |number| number.show())
    }
}

/// Values whose text is their own.
macro_rules! plain {
    ($($type:ty: $takes:literal;)*) => {
        $(impl SettingText for $type {
            const TAKES: &'static str = $takes;

            fn parse(text: &str) -> Result<Self, String> {
                text.trim().parse().map_err(|_| format!("{text:?} is not {}", Self::TAKES))
            }

            fn show(&self) -> String {
                self.to_string()
            }
        })*
    };
}

plain! {
    bool: "`true` or `false`";
    usize: "a whole number";
    u64: "a whole number";
    f64: "a number";
}

/// Values that are one of a few words.
macro_rules! words {
    ($($type:ty: $($word:literal = $value:path),+;)*) => {
        $(impl SettingText for $type {
            const TAKES: &'static str = words!(@takes $($word),+);

            fn parse(text: &str) -> Result<Self, String> {
                match text.trim() {
                    $($word => Ok($value),)+
                    other => Err(format!("{other:?} is not {}", Self::TAKES)),
                }
            }

            fn show(&self) -> String {
                match self {
                    $($value => $word,)+
                }
                .to_owned()
            }
        })*
    };
    (@takes $first:literal $(, $word:literal)*) => { concat!("`", $first, "`" $(, ", `", $word, "`")*) };
}

words! {
    Undecodable: "error" = Undecodable::Error, "miss" = Undecodable::Miss;
    Codec: "json" = Codec::Json, "messagepack" = Codec::MessagePack;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_have_units() {
        let secs = |text| duration(text).map(|duration| duration.as_secs_f64());
        assert_eq!(secs("30s"), Some(30.0));
        assert_eq!(secs("1h30m"), Some(5400.0));
        assert_eq!(secs("1h 30m"), Some(5400.0));
        assert_eq!(secs("250ms"), Some(0.25));
        assert_eq!(secs("0.5s"), Some(0.5));
        assert_eq!(secs("7d"), Some(604_800.0));
        for wrong in ["", "30", "s", "-1s", "1 s", "1y", "1..5s", "1e3s", "9999999999999999999999d", "30s x"]
        {
            assert_eq!(duration(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn a_duration_is_read_back_as_it_is_shown() {
        for nanos in [0, 1, 999, 1_500_000, 90_000_000_000, 86_400_000_000_000, 604_800_000_000_001] {
            let whole = Duration::from_nanos(nanos);
            assert_eq!(duration(&whole.show()), Some(whole), "{}", whole.show());
        }
    }
}
