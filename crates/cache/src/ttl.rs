//! Time to live.
//!
//! Invariant: a `Ttl` is at least a millisecond and at most what every backend can hold; what is not is refused with its own
//! error, never rounded to something else. Deliberately absent: "no expiry", which is said in so many words where it is allowed.

use std::time::Duration;

use crate::error::{Error, ErrorKind, Result};

/// Shortest TTL: the backends count milliseconds.
pub(crate) const SHORTEST: Duration = Duration::from_millis(1);
/// Longest TTL: a hundred years; beyond it the expiry time would leave the backends' range sooner or later.
const LONGEST: Duration = Duration::from_hours(100 * 366 * 24);

/// How long a value lives, in whole milliseconds; what is finer is cut off, so that nothing lives longer than asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ttl(u64);

impl Ttl {
    /// From a duration of 1 ms to 100 years.
    pub fn new(duration: Duration) -> Result<Self> {
        if duration < SHORTEST {
            return Err(bad(format!(
                "a TTL of {duration:?} is too short; it must be at least 1 ms (to remove a key now, delete it)"
            )));
        }
        if duration > LONGEST {
            return Err(bad(format!("a TTL of {duration:?} is beyond 100 years; ask for no expiry instead")));
        }
        Ok(Self(duration.as_millis() as u64))
    }

    /// From seconds, fractions kept to the millisecond. Zero, negative and not-a-number are refused.
    pub fn from_secs_f64(seconds: f64) -> Result<Self> {
        let duration = Duration::try_from_secs_f64(seconds)
            .map_err(|_| bad(format!("a TTL of {seconds} seconds cannot be; it must be positive")))?;
        Self::new(duration)
    }

    /// In milliseconds.
    pub fn as_millis(self) -> u64 {
        self.0
    }

    /// As a duration.
    pub fn as_duration(self) -> Duration {
        Duration::from_millis(self.0)
    }
}

impl TryFrom<Duration> for Ttl {
    type Error = Error;

    fn try_from(duration: Duration) -> Result<Self> {
        Self::new(duration)
    }
}

fn bad(message: String) -> Error {
    Error::new(ErrorKind::BadTtl, message)
}

/// What is left of a key's life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TimeLeft {
    /// There is no such key.
    Absent,
    /// The key does not expire.
    Forever,
    /// It expires in so long.
    For(Duration),
}

impl TimeLeft {
    /// From PTTL's answer: -2, -1 or milliseconds.
    pub(crate) fn from_pttl(pttl: i64) -> Self {
        match u64::try_from(pttl) {
            Ok(millis) => Self::For(Duration::from_millis(millis)),
            Err(_) if pttl == -1 => Self::Forever,
            Err(_) => Self::Absent,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ttl_that_cannot_be_is_refused_with_its_kind() {
        for duration in [Duration::ZERO, Duration::from_micros(999), Duration::MAX] {
            assert_eq!(Ttl::new(duration).unwrap_err().kind(), ErrorKind::BadTtl);
        }
        for seconds in [0.0, -1.0, 0.0009, f64::NAN, f64::INFINITY, -0.0, 1e300] {
            assert_eq!(Ttl::from_secs_f64(seconds).unwrap_err().kind(), ErrorKind::BadTtl, "{seconds}");
        }
    }

    #[test]
    fn fractions_of_a_second_are_kept() {
        assert_eq!(Ttl::from_secs_f64(0.3).unwrap().as_millis(), 300);
        assert_eq!(Ttl::from_secs_f64(1.25).unwrap().as_millis(), 1250);
        assert_eq!(Ttl::new(Duration::from_micros(1999)).unwrap().as_millis(), 1);
    }
}
