//! What a parameter's words mean: checked, and turned into the one text that `CONFIG GET` shows.
//!
//! The texts of the refusals are Redis'. Invariant: a value that has passed is stored in its canonical form, and giving that
//! form again gives the same value.

use mtcache_protocol::{parse_i64, split_args};

use super::table::Kind;
use crate::notify::EventClasses;

/// A parameter's value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Value {
    /// As `CONFIG GET` shows it.
    pub(super) text: Box<[u8]>,
    /// Of flags, numbers, amounts and choices (their place in the list); zero for the rest. A percentage is below zero.
    pub(super) number: i64,
}

type Parsed = Result<Value, String>;

impl Kind {
    /// Whether a value may have several words.
    pub(super) fn takes_words(self) -> bool {
        matches!(
            self,
            Self::Words
                | Self::Save
                | Self::BufferLimits
                | Self::Percentiles
                | Self::OomAdjust
                | Self::ShutdownOptions
        )
    }

    /// The value of words as they stand in a file. `old` is the value until now, which the limits of some classes of client
    /// leave partly as it was.
    pub(super) fn parse_words(self, words: &[Vec<u8>], old: &Value) -> Parsed {
        if self.takes_words() {
            return self.parse_many(words, old);
        }
        match words {
            [only] => self.parse_one(only),
            _ => Err("wrong number of arguments".into()),
        }
    }

    /// The value of one string, as `CONFIG SET` gives it.
    pub(super) fn parse_string(self, value: &[u8], old: &Value) -> Parsed {
        if !self.takes_words() {
            return self.parse_one(value);
        }
        let words = split_args(value).ok_or("Unbalanced quotes in configuration line")?;
        self.parse_many(&words, old)
    }

    fn parse_one(self, value: &[u8]) -> Parsed {
        match self {
            Self::Flag => flag(value),
            Self::Int(min, max) => integer(value, min, max),
            Self::Memory(min) => memory(value, min),
            Self::MemoryOrPercent => memory_or_percent(value),
            Self::Choice(words) => choice(value, words),
            Self::Octal => octal(value),
            Self::Events => events(value),
            _ => Ok(Value { text: value.into(), number: 0 }),
        }
    }

    fn parse_many(self, words: &[Vec<u8>], old: &Value) -> Parsed {
        match self {
            Self::Save => save_points(words),
            Self::BufferLimits => buffer_limits(words, old),
            Self::Percentiles => percentiles(words),
            Self::OomAdjust => oom_adjustments(words),
            Self::ShutdownOptions => shutdown_options(words),
            _ => Ok(text(join(words))),
        }
    }
}

fn text(text: impl Into<Vec<u8>>) -> Value {
    Value { text: text.into().into(), number: 0 }
}

fn join(words: &[Vec<u8>]) -> Vec<u8> {
    words.join(&b' ')
}

fn flag(value: &[u8]) -> Parsed {
    for (word, number) in [("yes", 1), ("no", 0)] {
        if value.eq_ignore_ascii_case(word.as_bytes()) {
            return Ok(Value { text: word.as_bytes().into(), number });
        }
    }
    Err("argument must be 'yes' or 'no'".into())
}

fn integer(value: &[u8], min: i64, max: i64) -> Parsed {
    let number = parse_i64(value).ok_or("argument couldn't be parsed into an integer")?;
    if !(min..=max).contains(&number) {
        return Err(format!("argument must be between {min} and {max} inclusive"));
    }
    Ok(Value { text: number.to_string().into_bytes().into(), number })
}

fn octal(value: &[u8]) -> Parsed {
    const MAX: i64 = 0o777;
    let number = std::str::from_utf8(value).ok().and_then(|text| i64::from_str_radix(text, 8).ok());
    let number = number.ok_or("argument couldn't be parsed into an integer")?;
    if !(0..=MAX).contains(&number) {
        return Err(format!("argument must be between 0 and {MAX:o} inclusive"));
    }
    Ok(Value { text: format!("{number:o}").into_bytes().into(), number })
}

fn memory(value: &[u8], min: u64) -> Parsed {
    let bytes = parse_memory(value).ok_or("argument must be a memory value")?;
    if bytes < min || (min > 0 && bytes > i64::MAX as u64) {
        return Err(format!("argument must be between {min} and {} inclusive", i64::MAX));
    }
    Ok(amount(bytes))
}

fn amount(bytes: u64) -> Value {
    Value { text: bytes.to_string().into_bytes().into(), number: i64::try_from(bytes).unwrap_or(i64::MAX) }
}

fn memory_or_percent(value: &[u8]) -> Parsed {
    let Some((b'%', digits)) = value.split_last() else {
        return parse_memory(value)
            .map(amount)
            .ok_or_else(|| "argument must be a memory or percent value".into());
    };
    let percent = parse_i64(digits).filter(|percent| *percent >= 0);
    let percent = percent.ok_or("argument must be a memory or percent value")?;
    if percent > 100 {
        return Err("percentage argument must be less or equal to 100".into());
    }
    Ok(Value { text: value.into(), number: -percent })
}

/// Bytes from a number and its unit: `k` is 1000, `kb` is 1024, and so on.
pub(crate) fn parse_memory(value: &[u8]) -> Option<u64> {
    let digits = value.iter().take_while(|byte| byte.is_ascii_digit()).count();
    let (number, unit) = value.split_at_checked(digits)?;
    let factor = match unit.to_ascii_lowercase().as_slice() {
        b"" | b"b" => 1,
        b"k" => 1000,
        b"kb" => 1 << 10,
        b"m" => 1_000_000,
        b"mb" => 1 << 20,
        b"g" => 1_000_000_000,
        b"gb" => 1 << 30,
        _ => return None,
    };
    std::str::from_utf8(number).ok()?.parse::<u64>().ok()?.checked_mul(factor)
}

fn choice(value: &[u8], words: &[&str]) -> Parsed {
    let found = words.iter().position(|word| value.eq_ignore_ascii_case(word.as_bytes()));
    match found.and_then(|place| Some((place, words.get(place)?))) {
        Some((place, word)) => Ok(Value { text: word.as_bytes().into(), number: place as i64 }),
        None => Err(one_of(words)),
    }
}

fn one_of(words: &[&str]) -> String {
    format!("argument(s) must be one of the following: {}", words.join(", "))
}

fn events(value: &[u8]) -> Parsed {
    let classes =
        EventClasses::parse(value).ok_or("Invalid event class character. Use 'Ag$lshzxeKEtmdn'.")?;
    Ok(Value { text: classes.to_string().into_bytes().into(), number: i64::from(classes.bits()) })
}

fn save_points(words: &[Vec<u8>]) -> Parsed {
    const INVALID: &str = "Invalid save parameters";
    if words.iter().all(Vec::is_empty) && words.len() <= 1 {
        return Ok(text(""));
    }
    if !words.len().is_multiple_of(2) {
        return Err(INVALID.into());
    }
    for pair in words.chunks_exact(2) {
        let numbers = (pair.first().and_then(|w| parse_i64(w)), pair.get(1).and_then(|w| parse_i64(w)));
        match numbers {
            (Some(1..=I32_MAX), Some(0..=I32_MAX)) => {}
            _ => return Err(INVALID.into()),
        }
    }
    Ok(text(join(words)))
}

const I32_MAX: i64 = i32::MAX as i64;

/// The classes of client that have output limits, as `CONFIG GET` names them.
const LIMITED: [&str; 3] = ["normal", "slave", "pubsub"];

fn buffer_limits(words: &[Vec<u8>], old: &Value) -> Parsed {
    if words.is_empty() || !words.len().is_multiple_of(4) {
        return Err("Wrong number of arguments in buffer limit configuration.".into());
    }
    let mut limits = parse_buffer_limits(&old.text);
    for group in words.chunks_exact(4) {
        let [class, hard, soft, seconds] = group else { continue };
        let class = class.to_ascii_lowercase();
        let class = if class == b"replica" { b"slave".as_slice() } else { &class };
        let place = LIMITED.iter().position(|name| name.as_bytes() == class);
        let Some(limit) = place.and_then(|place| limits.get_mut(place)) else {
            return Err("Invalid client class specified in buffer limit configuration.".into());
        };
        let seconds = parse_i64(seconds).and_then(|seconds| u64::try_from(seconds).ok());
        match (parse_memory(hard), parse_memory(soft), seconds) {
            (Some(hard), Some(soft), Some(soft_seconds)) => *limit = BufferLimit { hard, soft, soft_seconds },
            _ => {
                return Err(
                    "Error in hard, soft or soft_seconds setting in buffer limit configuration.".into()
                );
            }
        }
    }
    let show = |(name, limit): (&&str, &BufferLimit)| {
        format!("{name} {} {} {}", limit.hard, limit.soft, limit.soft_seconds)
    };
    let shown: Vec<String> = LIMITED.iter().zip(&limits).map(show).collect();
    Ok(text(shown.join(" ")))
}

/// How much output may wait for a client before it is disconnected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct BufferLimit {
    /// Bytes beyond which the client goes at once; zero for no limit.
    pub hard: u64,
    /// Bytes beyond which it goes after `soft_seconds`; zero for no limit.
    pub soft: u64,
    /// See `soft`.
    pub soft_seconds: u64,
}

/// The limits of normal clients, replicas and subscribers, from the text that `CONFIG GET` shows.
pub(super) fn parse_buffer_limits(text: &[u8]) -> [BufferLimit; 3] {
    let mut limits = [BufferLimit::default(); 3];
    let mut words = text.split(|byte| *byte == b' ').skip(1);
    for limit in &mut limits {
        let mut number = || words.next().and_then(parse_memory).unwrap_or_default();
        *limit = BufferLimit { hard: number(), soft: number(), soft_seconds: number() };
        words.next();
    }
    limits
}

fn percentiles(words: &[Vec<u8>]) -> Parsed {
    let words = if matches!(words, [only] if only.is_empty()) { &[] } else { words };
    let mut shown = Vec::new();
    for word in words {
        let number = std::str::from_utf8(word).ok().and_then(|text| text.parse::<f64>().ok());
        let number = number.ok_or("Invalid latency-tracking-info-percentiles parameters")?;
        if !(0.0..=100.0).contains(&number) {
            return Err("latency-tracking-info-percentiles parameters should sit between [0.0,100.0]".into());
        }
        shown.push(number.to_string());
    }
    Ok(text(shown.join(" ")))
}

fn oom_adjustments(words: &[Vec<u8>]) -> Parsed {
    if words.len() != 3 {
        return Err("wrong number of arguments".into());
    }
    let in_range = |word: &Vec<u8>| matches!(parse_i64(word), Some(-2000..=2000));
    if !words.iter().all(in_range) {
        return Err("Invalid oom-score-adj-values, elements must be between -2000 and 2000.".into());
    }
    Ok(text(join(words)))
}

fn shutdown_options(words: &[Vec<u8>]) -> Parsed {
    const WORDS: [&str; 5] = ["default", "save", "nosave", "now", "force"];
    let mut chosen = [false; WORDS.len()];
    for word in words {
        let found = WORDS.iter().position(|name| word.eq_ignore_ascii_case(name.as_bytes()));
        *found.and_then(|place| chosen.get_mut(place)).ok_or_else(|| one_of(&WORDS))? = true;
    }
    if let [_, true, true, ..] = chosen {
        return Err("shutdown options SAVE and NOSAVE can't be used simultaneously".into());
    }
    let mut names: Vec<&str> =
        WORDS.iter().zip(chosen).skip(1).filter_map(|(name, chosen)| chosen.then_some(*name)).collect();
    if names.is_empty() {
        names.push("default");
    }
    Ok(text(names.join(" ")))
}
