//! Refreshing ahead of time: when a value that is still fresh, or served stale, is loaded anew in the background.
//!
//! Two rules, each off by default. By threshold: once a part of the TTL has passed. By `XFetch`: at random, the likelier the nearer the
//! end and the longer a load takes, so that of many readers one refreshes shortly before the value expires: a read refreshes if
//! `-delta * beta * ln(u) >= left`, where `delta` is the time that a load takes, `left` what is left of the value's life and `u` uniform
//! in (0, 1]. The probability of that is `exp(-left / (delta * beta))`, and the time by which it is early has the mean `delta * beta`.
//! Source: Vattani, Chierichetti, Lowenstein, Optimal Probabilistic Cache Stampede Prevention, VLDB 2015. Invariants: at most one
//! refresh of a key at a time in a process, none for a while after one that failed. Deliberately absent: the load itself (`load.rs`).

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::region::RegionPolicy;

/// How long a key is left alone after a refresh of it failed.
pub(crate) const REFRESH_PAUSE: Duration = Duration::from_secs(1);
/// Keys of a region that are left alone at once; beyond, some are refreshed too early or too often.
const MAX_PAUSED: usize = 10_000;
/// The part by which a load's time changes what is expected of the next.
const SMOOTHING: u64 = 8;

/// What a region knows about its refreshes.
#[derive(Debug, Default)]
pub(crate) struct Refreshes {
    /// Nanoseconds that a load takes, smoothed; zero while none has ended.
    load_time: AtomicU64,
    /// Keys that are left alone, and until when.
    paused: Mutex<HashMap<String, Instant>>,
}

impl Refreshes {
    pub(crate) fn loaded_in(&self, elapsed: Duration) {
        let new = u64::try_from(elapsed.as_nanos()).unwrap_or(u64::MAX).max(1);
        let _ = self.load_time.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |old| {
            Some(if old == 0 { new } else { old - old / SMOOTHING + new / SMOOTHING })
        });
    }

    pub(crate) fn load_time(&self) -> Duration {
        Duration::from_nanos(self.load_time.load(Ordering::Relaxed))
    }

    pub(crate) fn is_paused(&self, key: &str) -> bool {
        self.paused.lock().get(key).is_some_and(|until| Instant::now() < *until)
    }

    /// Leaves a key alone for so long.
    pub(crate) fn pause(&self, key: &str, pause: Duration) {
        let now = Instant::now();
        let Some(until) = now.checked_add(pause) else { return };
        let mut paused = self.paused.lock();
        if paused.len() >= MAX_PAUSED {
            paused.retain(|_, until| now < *until);
        }
        if paused.len() < MAX_PAUSED {
            paused.insert(key.to_owned(), until);
        }
    }

    /// To be held while a key is refreshed; unless it is told of success, the key is left alone for a while.
    pub(crate) fn attempt<'a>(&'a self, key: &'a str) -> Attempt<'a> {
        Attempt { refreshes: self, key, succeeded: false }
    }
}

pub(crate) struct Attempt<'a> {
    refreshes: &'a Refreshes,
    key: &'a str,
    succeeded: bool,
}

impl Attempt<'_> {
    pub(crate) fn succeeded(&mut self) {
        self.succeeded = true;
    }
}

impl Drop for Attempt<'_> {
    fn drop(&mut self) {
        if !self.succeeded {
            self.refreshes.pause(self.key, REFRESH_PAUSE);
        }
    }
}

/// The rules of a region.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rules {
    ttl: Duration,
    threshold: Option<f64>,
    beta: Option<f64>,
}

impl Rules {
    /// None where values are not refreshed ahead of time.
    pub(crate) fn of(policy: &RegionPolicy) -> Option<Self> {
        let &RegionPolicy { ttl, eager_refresh: threshold, xfetch_beta: beta, .. } = policy;
        (threshold.is_some() || beta.is_some()).then_some(Self { ttl, threshold, beta })
    }

    /// Whether a value with so much of its life left is to be refreshed now, by chance where that is the rule.
    pub(crate) fn are_met(self, left: Duration, load_time: Duration) -> bool {
        // In (0, 1]: the logarithm of zero is none.
        self.are_met_by(left, load_time, 1.0 - rand::random::<f64>())
    }

    fn are_met_by(self, left: Duration, load_time: Duration, u: f64) -> bool {
        self.threshold.is_some_and(|part| left <= self.ttl.mul_f64(1.0 - part))
            || self.beta.is_some_and(|beta| left.as_secs_f64() <= early(load_time.as_secs_f64(), beta, u))
    }

    /// How long a value that lives for so long is left alone after its load: one that lives shorter than the region's TTL would be past the
    /// threshold too soon.
    pub(crate) fn rest(self, life: Duration) -> Option<Duration> {
        self.threshold.filter(|_| life < self.ttl).map(|part| life.mul_f64(part))
    }
}

/// How long before its end a value is refreshed by `XFetch`, in seconds.
fn early(delta: f64, beta: f64, u: f64) -> f64 {
    -delta * beta * u.ln()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const GRID: u32 = 20_000;

    /// The unit interval in equal steps.
    fn grid() -> impl Iterator<Item = f64> {
        (0..GRID).map(|n| (f64::from(n) + 0.5) / f64::from(GRID))
    }

    proptest! {
        /// Over the unit interval the part that refreshes is the closed form of the probability.
        #[test]
        fn xfetch_refreshes_with_the_probability_of_the_paper(
            left in 0.0..120.0_f64,
            delta in 0.001..30.0_f64,
            beta in 0.1..5.0_f64,
        ) {
            let refreshed = grid().filter(|u| left <= early(delta, beta, *u)).count();
            let expected = (-left / (delta * beta)).exp();
            let measured = refreshed as f64 / f64::from(GRID);
            prop_assert!((measured - expected).abs() <= 1.0 / f64::from(GRID), "{measured} of {expected}");
        }

        #[test]
        fn xfetch_is_early_by_the_mean_of_the_paper(delta in 0.001..30.0_f64, beta in 0.1..5.0_f64) {
            let mean = grid().map(|u| early(delta, beta, u)).sum::<f64>() / f64::from(GRID);
            prop_assert!((mean / (delta * beta) - 1.0).abs() < 1e-3, "{mean} of {}", delta * beta);
        }

        #[test]
        fn a_threshold_is_met_once_its_part_has_passed(part in 0.01..1.0_f64, left in 0_u64..60_000) {
            let rules = Rules { ttl: Duration::from_mins(1), threshold: Some(part), beta: None };
            let left = Duration::from_millis(left);
            let due = left <= rules.ttl.mul_f64(1.0 - part);
            prop_assert_eq!(rules.are_met_by(left, Duration::ZERO, 0.5), due);
        }
    }

    #[test]
    fn what_is_drawn_has_the_probability_of_the_paper() {
        let rules = Rules { ttl: Duration::from_mins(1), threshold: None, beta: Some(2.0) };
        let (left, load_time) = (Duration::from_secs(3), Duration::from_secs(1));
        let met = (0..100_000).filter(|_| rules.are_met(left, load_time)).count();
        let expected = 100_000.0 * (-1.5_f64).exp();
        // Seven standard deviations.
        assert!((met as f64 - expected).abs() < 7.0 * (expected * (1.0 - (-1.5_f64).exp())).sqrt(), "{met}");
    }

    #[test]
    fn before_a_load_was_measured_only_what_has_ended_is_refreshed() {
        let rules = Rules { ttl: Duration::from_mins(1), threshold: None, beta: Some(1.0) };
        assert!(rules.are_met_by(Duration::ZERO, Duration::ZERO, 1.0));
        assert!(!rules.are_met_by(Duration::from_millis(1), Duration::ZERO, 0.001));
    }

    #[test]
    fn a_value_that_lives_shorter_is_left_alone_until_its_own_part_has_passed() {
        let rules = Rules { ttl: Duration::from_mins(1), threshold: Some(0.5), beta: None };
        assert_eq!(rules.rest(Duration::from_secs(10)), Some(Duration::from_secs(5)));
        assert_eq!(rules.rest(Duration::from_mins(1)), None);
    }

    #[test]
    fn the_load_time_follows_the_loads() {
        let refreshes = Refreshes::default();
        refreshes.loaded_in(Duration::from_secs(1));
        assert_eq!(refreshes.load_time(), Duration::from_secs(1));
        for _ in 0..100 {
            refreshes.loaded_in(Duration::from_secs(3));
        }
        assert!(refreshes.load_time() > Duration::from_millis(2900));
    }

    #[test]
    fn a_key_whose_refresh_failed_is_left_alone_and_others_are_not() {
        let refreshes = Refreshes::default();
        refreshes.attempt("good").succeeded();
        drop(refreshes.attempt("bad"));
        assert!(refreshes.is_paused("bad") && !refreshes.is_paused("good"));
    }

    #[test]
    fn keys_that_are_left_alone_are_bounded() {
        let refreshes = Refreshes::default();
        for n in 0..=MAX_PAUSED {
            refreshes.pause(&n.to_string(), Duration::from_mins(1));
        }
        assert!(refreshes.is_paused("0") && !refreshes.is_paused(&MAX_PAUSED.to_string()));
    }
}
