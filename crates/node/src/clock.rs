//! The real clocks.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use mtcache_engine::{Clock, UnixMillis};

/// The machine's wall clock and its monotonic one.
///
/// The monotonic one is read once per command, from the processor's own counter where that runs evenly on all cores: 11 to 16 ns instead
/// of the 32 to 53 of the system's (`quanta` looks whether it does, and asks the system where it does not).
#[derive(Debug)]
pub struct SystemClock {
    clock: quanta::Clock,
    start: u64,
}

impl SystemClock {
    /// Starts counting monotonic time now.
    pub fn new() -> Self {
        let clock = quanta::Clock::new();
        Self { start: clock.raw(), clock }
    }
}

impl Default for SystemClock {
    fn default() -> Self {
        Self::new()
    }
}

impl Clock for SystemClock {
    fn now(&self) -> UnixMillis {
        UnixMillis(u64::try_from(since_epoch().as_millis()).unwrap_or(u64::MAX))
    }

    fn now_micros(&self) -> u64 {
        u64::try_from(since_epoch().as_micros()).unwrap_or(u64::MAX)
    }

    fn monotonic_nanos(&self) -> u64 {
        self.clock.delta_as_nanos(self.start, self.clock.raw())
    }
}

/// A clock set before 1970 reads as the epoch: everything with an expiry then lives until it is put right.
fn since_epoch() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}
