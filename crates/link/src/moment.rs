//! Moments by the clock that the system keeps up to date at its own ticks, for questions that are asked so often that reading the exact
//! clock would be most of their cost: 5 ns instead of 23 here, and of the 10 of the processor's own counter.
//!
//! Invariant: every answer errs towards "longer ago". A moment read by [`now`](Moment::now) is the present one or up to
//! [`slack`](Moment::slack) before it, so that time that has passed is given with the slack on top, and a deadline without it. Unlike a thread
//! of our own that counted time, the system's ticks go on while a process is stopped. Both clocks have one origin. Deliberately absent: dates.
//!
//! Linux documents `CLOCK_MONOTONIC_COARSE` in `clock_gettime(2)`. It is only as good as the processor that counts the ticks is alive: where
//! that is a virtual one that does not get to run, another takes over after five ticks since Linux 5.18 (`tick_sched.c`,
//! `MAX_STALLED_JIFFIES`), and nobody before. There, and elsewhere than on Linux, the exact clock is read.

use std::time::{Duration, Instant};

/// A moment of this machine's monotonic clock, in nanoseconds of an origin that no other machine shares.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Moment(i64);

impl Moment {
    /// Before any other.
    pub const NEVER: Self = Self(i64::MIN);

    /// Now, or up to [`slack`](Self::slack) ago.
    #[allow(clippy::inline_always, reason = "a call takes as long as a fifth of what is asked for so")]
    #[inline(always)]
    pub fn now() -> Self {
        Self(clock::quickly())
    }

    /// Now, by the exact clock.
    pub fn exactly_now() -> Self {
        Self(clock::exactly())
    }

    /// How much earlier than now the present moment may be read: eight ticks of the system, 32 ms where it has 250 a second; nothing where the
    /// exact clock is read.
    #[inline]
    pub fn slack() -> Duration {
        Duration::from_nanos(clock::slack().unsigned_abs())
    }

    /// A moment that has been.
    pub fn of(past: Instant) -> Self {
        Self::exactly_now().back_by(past.elapsed())
    }

    /// So much before.
    #[must_use]
    pub fn back_by(self, time: Duration) -> Self {
        Self(self.0.saturating_sub(nanos(time)))
    }

    /// So much after.
    #[must_use]
    pub fn forward_by(self, time: Duration) -> Self {
        Self(self.0.saturating_add(nanos(time)))
    }

    /// The last moment that can be read as the present one while certainly less than this time has passed since `self`.
    #[must_use]
    pub fn deadline(self, time: Duration) -> Self {
        self.forward_by(time).back_by(Self::slack())
    }

    /// The time from an earlier moment to this one; zero if the other is later.
    #[inline]
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.nanos_since(earlier))
    }

    /// The same in nanoseconds.
    #[inline]
    pub fn nanos_since(self, earlier: Self) -> u64 {
        // Of any two numbers the difference of the greater and the less has room without its sign.
        if self > earlier { self.0.wrapping_sub(earlier.0).cast_unsigned() } else { 0 }
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
mod clock {
    use std::sync::LazyLock;
    use std::sync::atomic::{AtomicBool, Ordering};

    use rustix::time::{ClockId, Timespec, clock_getres, clock_gettime};

    /// Ticks by which the clock may be late: five before another processor takes over, the one in which it begins to count, the one that is
    /// not over, and one for the time that all this takes.
    const LATE_TICKS: i64 = 8;
    /// The first Linux in which another processor takes over.
    const TAKES_OVER: (u32, u32) = (5, 18);

    struct Quick {
        clock: ClockId,
        slack: i64,
    }

    static QUICK: LazyLock<Quick> = LazyLock::new(|| {
        let takes_over = release(&rustix::system::uname().release().to_string_lossy()) >= Some(TAKES_OVER);
        if takes_over {
            let slack = LATE_TICKS * number(clock_getres(ClockId::MonotonicCoarse));
            Quick { clock: ClockId::MonotonicCoarse, slack }
        } else {
            Quick { clock: ClockId::Monotonic, slack: 0 }
        }
    });

    /// The quick clock is known to be one that others keep.
    static IS_QUICK: AtomicBool = AtomicBool::new(false);

    #[allow(clippy::inline_always, reason = "see `Moment::now`")]
    #[inline(always)]
    pub(super) fn quickly() -> i64 {
        // That is asked for by itself, and not by looking at `QUICK`, because two tests of whether that is there would be left in every read.
        if IS_QUICK.load(Ordering::Relaxed) {
            return number(clock_gettime(ClockId::MonotonicCoarse));
        }
        quickly_if_that_is_possible()
    }

    #[cold]
    fn quickly_if_that_is_possible() -> i64 {
        if QUICK.clock == ClockId::MonotonicCoarse {
            IS_QUICK.store(true, Ordering::Relaxed);
        }
        number(clock_gettime(QUICK.clock))
    }

    pub(super) fn exactly() -> i64 {
        number(clock_gettime(ClockId::Monotonic))
    }

    #[inline]
    pub(super) fn slack() -> i64 {
        QUICK.slack
    }

    #[inline]
    fn number(time: Timespec) -> i64 {
        time.tv_sec.wrapping_mul(1_000_000_000).wrapping_add(time.tv_nsec)
    }

    /// `6.18.44-cloud` is (6, 18).
    fn release(text: &str) -> Option<(u32, u32)> {
        let mut numbers = text.split(|c: char| !c.is_ascii_digit());
        Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
    }

    #[test]
    fn releases_are_told_apart() {
        assert!(release("6.18.44-cloud") >= Some(TAKES_OVER) && release("5.18.0") >= Some(TAKES_OVER));
        for older in ["5.15.0-91-generic", "4.18.0-553.el8", "5.9", "", "unknown"] {
            assert!(release(older) < Some(TAKES_OVER), "{older}");
        }
    }
}

#[cfg(not(target_os = "linux"))]
mod clock {
    use std::sync::LazyLock;
    use std::time::Instant;

    static ORIGIN: LazyLock<Instant> = LazyLock::new(Instant::now);

    pub(super) fn quickly() -> i64 {
        super::nanos(ORIGIN.elapsed())
    }

    pub(super) fn exactly() -> i64 {
        quickly()
    }

    pub(super) fn slack() -> i64 {
        0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_present_is_read_late_by_the_slack_at_the_most_and_never_early() {
        let end = Instant::now() + Duration::from_millis(200);
        while Instant::now() < end {
            let (before, quick, after) = (Moment::exactly_now(), Moment::now(), Moment::exactly_now());
            assert!(
                quick <= after && before.since(quick) <= Moment::slack(),
                "{before:?} {quick:?} {after:?}"
            );
        }
    }

    #[test]
    fn a_deadline_is_no_later_than_by_the_exact_clock_and_not_much_earlier() {
        for time in [Duration::from_millis(100), Duration::from_millis(150)] {
            let began = Instant::now();
            let deadline = Moment::of(began).deadline(time);
            while Moment::now() < deadline {}
            let lasted = began.elapsed();
            assert!(lasted <= time, "{lasted:?}");
            assert!(lasted + 2 * Moment::slack() >= time, "{lasted:?}");
        }
    }

    #[test]
    fn a_moment_is_where_its_instant_was() {
        let (before, instant, after) = (Moment::exactly_now(), Instant::now(), Moment::exactly_now());
        std::thread::sleep(Duration::from_millis(7));
        let moment = Moment::of(instant);
        assert!(before.back_by(Duration::from_millis(1)) <= moment && moment <= after);
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
