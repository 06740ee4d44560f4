//! Refreshing ahead of time: when a value that is still fresh, or served stale, is loaded anew in the background.
//!
//! Two rules, each off by default. By threshold: once a part of the TTL has passed. By `XFetch`: at random, the likelier the nearer the
//! end and the longer a load takes, so that of many readers one refreshes shortly before the value expires: a read refreshes if
//! `-delta * beta * ln(u) >= left`, where `delta` is the time that a load takes, `left` what is left of the value's life and `u` uniform
//! in (0, 1]. The probability of that is `exp(-left / (delta * beta))`, and the time by which it is early has the mean `delta * beta`.
//! Source: Vattani, Chierichetti, Lowenstein, Optimal Probabilistic Cache Stampede Prevention, VLDB 2015. A threshold is a part of the
//! value's own life, which may be shorter than the region's TTL: a frame says how long it is, of a plain value a key beside it says for how long
//! it is to be left alone (`fill_token.rs`). Invariants: at most one
//! refresh of a key at a time among all processes, by a lease; none for a while after one that failed here. Deliberately absent: the load itself (`load.rs`).

use std::hash::{BuildHasher, RandomState};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use mtcache_link::Command;
use quick_cache::sync::Cache;

use crate::fill_token::rest_key;
use crate::region::{Region, RegionPolicy};
use crate::ttl::Ttl;

/// How long a key is left alone after a refresh of it failed.
pub(crate) const REFRESH_PAUSE: Duration = Duration::from_secs(1);
/// Keys of a region that are left alone at once; beyond, some of them are refreshed too early or too often. 16 bytes each.
const MAX_PAUSED: usize = 65_536;
/// The part by which a load's time changes what is expected of the next.
const SMOOTHING: u64 = 8;

/// What a region knows about its refreshes.
#[derive(Default)]
pub(crate) struct Refreshes {
    /// Nanoseconds that a load takes, smoothed; zero while none has ended.
    load_time: AtomicU64,
    /// Keys that are left alone, by their hash. Each takes the same time to note and to find, however many there are; there once
    /// one is noted, for most regions refresh nothing.
    paused: OnceLock<Cache<u64, Pause>>,
    hasher: RandomState,
}

#[derive(Clone, Copy)]
struct Pause {
    until: Instant,
    cause: Cause,
}

/// Why a key is left alone.
#[derive(Clone, Copy, PartialEq)]
enum Cause {
    /// A refresh of it has failed, or was not stored.
    Failure,
    /// Of its value's life so much is to pass first.
    Rest,
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

    /// Whether a key is left alone of whose value's life so much is left; nothing of one that is past it.
    pub(crate) fn is_paused(&self, key: &str, left: Duration) -> bool {
        let Some(paused) = self.paused.get() else { return false };
        let hash = self.hasher.hash_one(key);
        let Some(pause) = paused.get(&hash) else { return false };
        let now = Instant::now();
        if now < pause.until {
            // One that ends before its rest is not the one that was to have it.
            return pause.cause == Cause::Failure
                || now.checked_add(left).is_none_or(|end| end > pause.until);
        }
        // The room is for others.
        paused.remove_if(&hash, |pause| now >= pause.until);
        false
    }

    /// Leaves a key alone for a while, as a refresh of it has failed or was not stored.
    pub(crate) fn pause(&self, key: &str) {
        self.leave_alone(key, REFRESH_PAUSE, Cause::Failure);
    }

    /// Leaves a key alone for so much of its value's life.
    pub(crate) fn rest(&self, key: &str, rest: Duration) {
        self.leave_alone(key, rest, Cause::Rest);
    }

    fn leave_alone(&self, key: &str, time: Duration, cause: Cause) {
        let Some(until) = Instant::now().checked_add(time) else { return };
        let paused = self.paused.get_or_init(|| Cache::new(MAX_PAUSED));
        paused.insert(self.hasher.hash_one(key), Pause { until, cause });
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
            self.refreshes.pause(self.key);
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

    /// By which rule a value with so much of its life left is to be refreshed now, by chance where that is the rule.
    pub(crate) fn met(self, left: Duration, load_time: Duration) -> Option<Due> {
        // In (0, 1]: the logarithm of zero is none.
        self.met_by(left, load_time, 1.0 - rand::random::<f64>())
    }

    fn met_by(self, left: Duration, load_time: Duration, u: f64) -> Option<Due> {
        if self.beta.is_some_and(|beta| left.as_secs_f64() <= early(load_time.as_secs_f64(), beta, u)) {
            return Some(Due::ByChance);
        }
        let is_past = |part: &f64| left <= self.ttl.mul_f64(1.0 - part);
        self.threshold.filter(is_past).map(|part| Due::IfPast { part })
    }

    /// For how much of a life that long, from the beginning of its load on, a value is left alone: one that lives shorter than the region's TTL
    /// would seem past the threshold too soon.
    pub(crate) fn rest(self, life: Duration) -> Option<Duration> {
        self.threshold.filter(|_| life < self.ttl).map(|part| life.mul_f64(part))
    }
}

impl<T> Region<T> {
    /// Has all processes leave alone for its time what is set now to live shorter than the region's TTL. A frame says that itself.
    pub(crate) async fn rest_for(&self, key: &str, life: Ttl) {
        let rest = Rules::of(&self.state.policy).and_then(|rules| rules.rest(life.as_duration()));
        let (Some(rest), true) = (rest.and_then(|rest| Ttl::new(rest).ok()), self.framing().is_none()) else {
            return;
        };
        let command = Command::new("SET")
            .arg(rest_key(key.as_bytes()))
            .arg("1")
            .arg("PX")
            .arg(rest.as_millis().to_string());
        let said = match self.cache.backend().await {
            Ok(backend) => backend.command(command).await.map(drop),
            Err(error) => Err(error),
        };
        if let Err(error) = said {
            tracing::debug!(region = self.name(), %error, "what is set now may be refreshed too early");
        }
    }
}

/// By which rule a value is due.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Due {
    ByChance,
    /// If this part of its own life has passed, too: readers only know what is left of it, and take it for one that lives as long as the region
    /// says.
    IfPast {
        part: f64,
    },
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
            prop_assert_eq!(rules.met_by(left, Duration::ZERO, 0.5).is_some(), due);
        }
    }

    #[test]
    fn what_is_drawn_has_the_probability_of_the_paper() {
        let rules = Rules { ttl: Duration::from_mins(1), threshold: None, beta: Some(2.0) };
        let (left, load_time) = (Duration::from_secs(3), Duration::from_secs(1));
        let met = (0..100_000).filter(|_| rules.met(left, load_time).is_some()).count();
        let expected = 100_000.0 * (-1.5_f64).exp();
        // Seven standard deviations.
        assert!((met as f64 - expected).abs() < 7.0 * (expected * (1.0 - (-1.5_f64).exp())).sqrt(), "{met}");
    }

    #[test]
    fn before_a_load_was_measured_only_what_has_ended_is_refreshed() {
        let rules = Rules { ttl: Duration::from_mins(1), threshold: None, beta: Some(1.0) };
        assert_eq!(rules.met_by(Duration::ZERO, Duration::ZERO, 1.0), Some(Due::ByChance));
        assert_eq!(rules.met_by(Duration::from_millis(1), Duration::ZERO, 0.001), None);
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
        for left in [Duration::ZERO, Duration::from_mins(1)] {
            assert!(refreshes.is_paused("bad", left) && !refreshes.is_paused("good", left));
        }
    }

    #[test]
    fn what_ends_before_a_rest_is_another_value_than_the_one_that_rests() {
        let refreshes = Refreshes::default();
        refreshes.rest("k", Duration::from_mins(1));
        assert!(refreshes.is_paused("k", Duration::from_mins(2)));
        assert!(!refreshes.is_paused("k", Duration::from_secs(30)), "a shorter one");
        assert!(!refreshes.is_paused("k", Duration::ZERO), "one that is past its life");
        assert!(refreshes.is_paused("k", Duration::MAX), "and the rest goes on");
    }

    #[test]
    fn keys_that_are_left_alone_are_bounded_and_the_newest_is_among_them() {
        let refreshes = Refreshes::default();
        for n in 0..2 * MAX_PAUSED {
            let key = n.to_string();
            refreshes.rest(&key, Duration::from_mins(1));
            assert!(refreshes.is_paused(&key, Duration::from_mins(2)), "{n}");
        }
        let kept = refreshes.paused.get().unwrap().len();
        assert!(kept <= MAX_PAUSED && kept > MAX_PAUSED / 2, "{kept}");
        let paused = (0..2 * MAX_PAUSED)
            .filter(|n| refreshes.is_paused(&n.to_string(), Duration::from_mins(2)))
            .count();
        assert_eq!(paused, kept);
    }

    #[test]
    fn a_pause_that_is_over_leaves_its_room() {
        let refreshes = Refreshes::default();
        refreshes.rest("k", Duration::ZERO);
        assert!(!refreshes.is_paused("k", Duration::from_mins(1)));
        assert_eq!(refreshes.paused.get().unwrap().len(), 0);
    }
}
