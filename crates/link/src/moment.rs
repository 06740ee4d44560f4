//! Moments by the clock that the system keeps up to date at its own ticks, for questions that are asked so often that reading the exact
//! clock would be most of their cost: 5 ns instead of 23 here, and of the 10 of the processor's own counter.
//!
//! Invariant: every answer errs towards "longer ago". A moment read now is the present one or up to [`SLACK`](Moment::slack) before it, so
//! that time that has passed is given with the slack on top, and a deadline without it. Unlike a thread of our own that counted time, the
//! system's ticks go on while a process is stopped. Deliberately absent: dates, and moments as exact as [`Instant`]'s.
//!
//! Linux documents `CLOCK_MONOTONIC_COARSE` in `clock_gettime(2)`; elsewhere the exact clock is read.

use std::time::{Duration, Instant};

/// Ticks that may be late: where the processor that keeps the time does not run, another takes over after five.
#[cfg(target_os = "linux")]
const LATE_TICKS: i64 = 6;

/// A moment of this machine's monotonic clock, in nanoseconds of an origin that no other machine shares; the present one is read up to
/// [`slack`](Self::slack) too early.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Moment(i64);

impl Moment {
    /// Before any other.
    pub const NEVER: Self = Self(i64::MIN);

    /// Now, or up to [`slack`](Self::slack) ago.
    #[inline]
    pub fn now() -> Self {
        #[cfg(target_os = "linux")]
        {
            let time = rustix::time::clock_gettime(rustix::time::ClockId::MonotonicCoarse);
            Self(time.tv_sec.wrapping_mul(1_000_000_000).wrapping_add(time.tv_nsec))
        }
        #[cfg(not(target_os = "linux"))]
        {
            static ORIGIN: std::sync::LazyLock<Instant> = std::sync::LazyLock::new(Instant::now);
            Self(nanos(ORIGIN.elapsed()))
        }
    }

    /// How much earlier than now the present moment may be read: six ticks of the system, 24 ms where it has 250 a second.
    #[inline]
    pub fn slack() -> Duration {
        Duration::from_nanos(slack_nanos().unsigned_abs())
    }

    /// A moment that has been: then, or a little before.
    pub fn of(past: Instant) -> Self {
        Self::now().back_by(past.elapsed())
    }

    /// So much before.
    #[must_use]
    pub fn back_by(self, time: Duration) -> Self {
        Self(self.0.saturating_sub(nanos(time)))
    }

    /// The last moment that can be read as the present one while certainly less than this time has passed since `self`.
    #[must_use]
    pub fn deadline(self, time: Duration) -> Self {
        Self(self.0.saturating_add(nanos(time)).saturating_sub(slack_nanos()))
    }

    /// The time that has passed from the earlier moment until this one, read as the present; rather more than less.
    #[inline]
    pub fn since(self, earlier: Self) -> Duration {
        self.between(earlier).saturating_add(Self::slack())
    }

    /// The time between two moments as they were read; zero if the other is later.
    #[inline]
    pub fn between(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0).max(0).unsigned_abs())
    }

    /// The time from this moment until a [`deadline`](Self::deadline); zero once it is past.
    #[inline]
    pub fn until(self, deadline: Self) -> Duration {
        Duration::from_nanos(deadline.0.saturating_sub(self.0).max(0).unsigned_abs())
    }

    pub(crate) fn number(self) -> i64 {
        self.0
    }

    pub(crate) fn from_number(number: i64) -> Self {
        Self(number)
    }
}

fn nanos(time: Duration) -> i64 {
    i64::try_from(time.as_nanos()).unwrap_or(i64::MAX)
}

#[cfg(target_os = "linux")]
#[inline]
fn slack_nanos() -> i64 {
    static SLACK: std::sync::LazyLock<i64> = std::sync::LazyLock::new(|| {
        let tick = rustix::time::clock_getres(rustix::time::ClockId::MonotonicCoarse);
        LATE_TICKS * (tick.tv_sec * 1_000_000_000 + tick.tv_nsec)
    });
    *SLACK
}

#[cfg(not(target_os = "linux"))]
fn slack_nanos() -> i64 {
    0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_deadline_is_no_later_than_by_the_exact_clock() {
        for time in [Duration::from_millis(100), Duration::from_millis(150)] {
            let (began, deadline) = (Instant::now(), Moment::now().deadline(time));
            while Moment::now() < deadline {}
            let lasted = began.elapsed();
            assert!(lasted <= time, "{lasted:?}");
        }
    }

    #[test]
    fn a_deadline_comes_not_before_its_time_less_the_slack_and_a_tick() {
        let time = Duration::from_millis(200);
        let (deadline, began) = (Moment::now().deadline(time), Instant::now());
        while Moment::now() < deadline {}
        let lasted = began.elapsed();
        assert!(lasted + 2 * Moment::slack() >= time, "{lasted:?}");
    }

    #[test]
    fn what_has_passed_is_no_less_than_by_the_exact_clock() {
        for pause in [1, 7, 20] {
            let (since, began) = (Moment::now(), Instant::now());
            std::thread::sleep(Duration::from_millis(pause));
            let (passed, exactly) = (began.elapsed(), Moment::now().since(since));
            assert!(exactly >= passed, "{exactly:?} {passed:?}");
            assert!(Moment::now().since(Moment::of(began)) >= passed);
        }
    }

    #[test]
    fn beyond_what_can_be_counted_nothing_turns_round() {
        let now = Moment::now();
        assert!(now < now.deadline(Duration::MAX));
        assert!(Moment::NEVER < now.back_by(Duration::from_secs(u64::from(u32::MAX))));
        assert!(now.back_by(Duration::MAX).deadline(Duration::ZERO) < now);
        assert!(now.deadline(Duration::ZERO) <= now, "nothing lives for no time");
        assert!(now.since(Moment::NEVER) > Duration::from_hours(24 * 365));
    }
}
