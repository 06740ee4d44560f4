//! What a region has done, in numbers.
//!
//! Invariant: counting never blocks and never fails; a snapshot is a plain value. Deliberately absent: metric names and
//! exporters, and keys: nothing here is counted by key. Each event is told in `events.rs`.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::control::Control;
use crate::tally::Tally;

macro_rules! counters {
    ($($(#[doc = $doc:literal])* $name:ident),* $(,)?) => {
        /// The counters of a region, counting on.
        #[derive(Debug, Default)]
        pub(crate) struct Counters {
            /// In the same block of memory, because both are at hand in every read.
            pub(crate) control: Control,
            /// Near hits.
            pub(crate) near: Tally,
            /// Of these, those that turned out to be none.
            pub(crate) not_near: AtomicU64,
            $(pub(crate) $name: AtomicU64,)*
        }

        /// The counters of a region at one moment.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
        #[serde(default)]
        #[non_exhaustive]
        pub struct RegionStats {
            $($(#[doc = $doc])* pub $name: u64,)*
        }

        impl Counters {
            pub(crate) fn snapshot(&self) -> RegionStats {
                let mut stats = RegionStats { $($name: self.$name.load(Ordering::Relaxed),)* };
                // A near hit is counted once, for counting twice would be a twentieth of it.
                stats.near_hits = self.near.sum().saturating_sub(self.not_near.load(Ordering::Relaxed));
                stats.hits += stats.near_hits;
                stats
            }
        }

        impl RegionStats {
            /// Each counter's name and what it counts.
            pub const FIELDS: &'static [(&'static str, &'static str)] =
                &[$((stringify!($name), concat!($($doc),*).trim_ascii()),)*];

            /// Each counter's name and value.
            pub fn values(&self) -> impl Iterator<Item = (&'static str, u64)> {
                [$((stringify!($name), self.$name),)*].into_iter()
            }
        }

        impl std::ops::AddAssign for RegionStats {
            fn add_assign(&mut self, other: Self) {
                $(self.$name += other.$name;)*
            }
        }
    };
}

counters! {
    /// Reads answered from the cache.
    hits,
    /// Reads answered from this process's memory; also in `hits`.
    near_hits,
    /// Values read from the backend that were then kept in this process's memory.
    near_kept,
    /// Values that were not, because their keys changed, or may have, while they were on their way.
    near_overtaken,
    /// Values that were not, because one entry may not be so large.
    near_too_large,
    /// Near hits that were compared with the backend.
    near_checks,
    /// Of these, those where the backend had another value, so that a message about its change was due.
    near_behind,
    /// Of these, those where no message came within the heartbeat and the value was served all the same: the contract is broken.
    near_violations,
    /// Reads that the cache could not answer.
    misses,
    /// Reads that went past the cache because their region is killed; in neither `hits` nor `misses`.
    bypassed,
    /// Reads in shadow mode for which the cache had what the loader gave; like the next two in neither `hits` nor `misses`.
    shadow_equal,
    /// Reads in shadow mode for which the cache had another value.
    shadow_different,
    /// Reads in shadow mode for which the cache had nothing.
    shadow_missing,
    /// Hits that were a cached "the source has none"; also in `hits`.
    none_hits,
    /// Reads that waited for somebody else's load; also in `misses`.
    joined_loads,
    /// Loader calls.
    loads,
    /// Loader calls that failed, panicked, ran out of time or brought what could not be used, be it for one id of a batch.
    load_failures,
    /// Loads that were refused because too many waited already, or their turn did not come in time.
    loads_shed,
    /// Loads that waited for another process's lease.
    lease_waits,
    /// Loads that went on without a lease because theirs did not come in time.
    lease_timeouts,
    /// Reads that were given a value marked stale; also in `misses`, unless they had no loader or the backend was down.
    stale_served,
    /// Of these, those that would not wait longer for a slow loader.
    soft_timeouts,
    /// Refreshes in the background, of values that were about to end or were served stale; also in `loads`, but for those that found a younger value, or that it was too early.
    refreshes,
    /// Nanoseconds spent in loaders.
    load_nanos,
    /// Loads whose value the backend took.
    fills_stored,
    /// Loads whose value was not stored, because the key had been set or invalidated meanwhile.
    fills_refused,
    /// Loads that took as long as a value may live, so that there was nothing to store.
    fills_too_late,
    /// Loads whose value could not be stored because the backend failed.
    fills_failed,
    /// Values set.
    sets,
    /// Sets that their condition refused.
    sets_refused,
    /// Keys invalidated.
    invalidations,
    /// Backend calls that failed.
    backend_errors,
    /// Stored bytes that are no value of the region's type.
    undecodable,
    /// Stored values of a newer schema or form than this reader knows.
    newer,
    /// Framed values that were there and not served because a tag of theirs had been invalidated; also in `misses`.
    fallen,
    /// Looks at tagged values that took a second trip to the backend, because this process did not know the value's tags.
    tag_trips,
    /// Framed values that were there and past their TTL.
    expired_in_window,
    /// Invalidations that wait for the backend, counted as they are queued.
    invalidations_queued,
    /// Invalidations that were given up, because they are of no region and found the queue full, or because the backend forbids them to our user; the old values live until their TTL.
    invalidations_lost,
}

impl RegionStats {
    /// Hits among all reads, 0 to 1; 0 when there was no read.
    pub fn hit_rate(&self) -> f64 {
        let reads = self.hits + self.misses;
        if reads == 0 { 0.0 } else { self.hits as f64 / reads as f64 }
    }

    /// Time spent in loaders.
    pub fn load_time(&self) -> Duration {
        Duration::from_nanos(self.load_nanos)
    }

    /// Mean time of a loader call; zero when there was none.
    pub fn mean_load_time(&self) -> Duration {
        self.load_nanos.checked_div(self.loads).map_or(Duration::ZERO, Duration::from_nanos)
    }

    /// What the hits would have cost in loader time: the mean load time for each.
    pub fn time_saved(&self) -> Duration {
        self.mean_load_time().mul_f64(self.hits as f64)
    }
}

#[inline]
pub(crate) fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

/// What was counted a moment ago turned out to be something else. False if nothing was counted.
pub(crate) fn take_back(counter: &AtomicU64) -> bool {
    let less = |counted: u64| counted.checked_sub(1);
    counter.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less).is_ok()
}

pub(crate) fn add(counter: &AtomicU64, n: u64) {
    counter.fetch_add(n, Ordering::Relaxed);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unused_region_divides_by_nothing() {
        let stats = RegionStats::default();
        assert!(stats.hit_rate().abs() < f64::EPSILON);
        assert_eq!(stats.time_saved(), Duration::ZERO);
    }

    #[test]
    fn time_saved_is_the_mean_load_for_each_hit() {
        let stats =
            RegionStats { hits: 10, misses: 2, loads: 2, load_nanos: 4_000_000, ..Default::default() };
        assert_eq!(stats.time_saved(), Duration::from_millis(20));
        assert!((stats.hit_rate() - 10.0 / 12.0).abs() < 1e-12);
    }
}
