//! Time as the engine sees it: a value that comes in, never a clock that is read on the side.
//!
//! Whoever opens the engine supplies a [`Clock`]; tests supply one they can move. Wall time decides expiry, monotonic
//! time measures durations, and the two are never mixed.

use std::time::Duration;

/// A moment, in milliseconds since the Unix epoch. Range: 0 to 2^63 - 1 (what Redis accepts as an absolute expiry).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct UnixMillis(pub u64);

impl UnixMillis {
    /// The moment `duration` later, saturating at the end of the range.
    #[must_use]
    pub fn plus(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)))
    }

    /// Milliseconds from `earlier` to this moment; zero when `earlier` is later.
    #[must_use]
    pub fn since(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0)
    }

    /// Whole seconds since the epoch.
    #[must_use]
    pub fn as_seconds(self) -> u64 {
        self.0 / 1000
    }
}

/// Where the engine's time comes from.
pub trait Clock: Send + Sync {
    /// The wall clock, which may jump.
    fn now(&self) -> UnixMillis;

    /// The wall clock in microseconds, for what is shown to people. Default: that of [`now`](Self::now), in whole milliseconds.
    fn now_micros(&self) -> u64 {
        self.now().0.saturating_mul(1000)
    }

    /// Nanoseconds of a clock that never goes back; only differences mean anything.
    fn monotonic_nanos(&self) -> u64;
}
