//! What an operator does to a region while it runs: the kill switch and the shadow mode.
//!
//! Invariant: after a region was switched on again, no read of this process has a value older than what it was given past the cache
//! while it was off. So writes reach the backend in every mode, and the keys whose values came past the cache are remembered (a bounded
//! number; beyond it their whole region) and invalidated in the backend before it is read again. Deliberately absent: the reads
//! themselves (`switched.rs`).

use std::borrow::Cow;
use std::collections::{BTreeMap, HashSet};
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use serde::Serialize;

use crate::backend::CachedKey;
use crate::cache::Cache;
use crate::error::{Error, ErrorKind, Result};
use crate::events::Event;
use crate::pending::Pending;
use crate::region::RegionPolicy;
use crate::settings::Reloaded;
use crate::stats::{Counters, RegionStats};

/// How many keys of a region are remembered one by one as served past the cache; beyond it the whole region is.
pub(crate) const MAX_REMEMBERED: usize = 10_000;
/// Time between two reports of what differed in shadow mode.
const SHADOW_REPORT_PERIOD: Duration = Duration::from_secs(1);

/// How a region's reads are answered in this process. Can be changed while it runs, see [`RegionControl`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
#[repr(u8)]
pub enum RegionMode {
    /// As its policy says.
    #[default]
    On = 0,
    /// Reads with a loader look into the cache and serve what the loader gives; the two are compared and counted. What was loaded is
    /// stored where the cache had nothing, so that the cache is filled as it would be. Reads without a loader are as in `On`.
    Shadow = 1,
    /// The kill switch: reads go straight to the loader, one load at a time and key, and nothing of it is stored; reads without a loader
    /// are misses. Sets and invalidations reach the backend as ever, for others read it.
    Killed = 2,
}

impl RegionMode {
    /// All modes.
    pub const ALL: [Self; 3] = [Self::On, Self::Shadow, Self::Killed];

    /// Its name in configuration and reports.
    pub fn name(self) -> &'static str {
        match self {
            Self::On => "on",
            Self::Shadow => "shadow",
            Self::Killed => "killed",
        }
    }
}

impl fmt::Display for RegionMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for RegionMode {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        Self::ALL.into_iter().find(|mode| mode.name() == text).ok_or_else(|| {
            Error::new(ErrorKind::Config, format!("a region is on, shadow or killed, not {text:?}"))
        })
    }
}

/// The switches of all regions of one name in this process. Made by [`Cache::control`] and
/// [`Region::control`](crate::Region::control).
///
/// ```no_run
/// # async fn example(cache: mtcache_cache::Cache) -> mtcache_cache::Result<()> {
/// use mtcache_cache::RegionMode;
///
/// let sentiment = cache.control("social_sentiment").expect("such a region is open");
/// sentiment.set_mode(RegionMode::Shadow);
/// // ... a day later:
/// let stats = sentiment.stats();
/// if stats.shadow_different * 100 > stats.shadow_equal {
///     sentiment.set_mode(RegionMode::Killed);
/// }
/// # Ok(()) }
/// ```
#[derive(Clone)]
pub struct RegionControl {
    cache: Cache,
    name: String,
    counters: Arc<Counters>,
}

impl RegionControl {
    pub(crate) fn new(cache: Cache, name: String, counters: Arc<Counters>) -> Self {
        Self { cache, name, counters }
    }

    /// The regions' name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The regions' counters now.
    pub fn stats(&self) -> RegionStats {
        self.counters.snapshot()
    }

    /// How their reads are answered now.
    pub fn mode(&self) -> RegionMode {
        self.counters.control.mode()
    }

    /// Switches them. Holds for every read that begins afterwards. What is near of them is dropped, and nobody joins a load of before.
    ///
    /// Switching back on costs a load for each key that was served past the cache meanwhile: what is cached of it may be older than what
    /// was served.
    pub fn set_mode(&self, mode: RegionMode) {
        let forget = || self.cache.forget_near_and_loads(&self.name);
        let Some(from) = self.counters.control.switch(mode, self.cache.pending(), forget) else { return };
        tracing::warn!(region = %self.name, %from, to = %mode, "a region was switched");
        self.cache.event(|| Event::Switched { region: Cow::Borrowed(&self.name), from, to: mode });
    }
}

impl RegionControl {
    /// Takes over what may change while regions are open, of a policy of their name; for values that are read and stored from then on.
    /// Says what has changed, and what would only if they were opened anew.
    pub fn reload(&self, wanted: &RegionPolicy) -> Result<Reloaded> {
        wanted.check()?;
        if wanted.name != self.name {
            let message = format!("a policy of {} cannot be given to {}", wanted.name, self.name);
            return Err(Error::new(ErrorKind::Config, message));
        }
        let mut all = Reloaded::default();
        let note = |into: &mut Vec<&'static str>, names: Vec<&'static str>| {
            let new: Vec<_> = names.into_iter().filter(|name| !into.contains(name)).collect();
            into.extend(new);
        };
        for region in self.cache.regions_named(&self.name) {
            let reloaded = region.reload(wanted);
            note(&mut all.changed, reloaded.changed);
            note(&mut all.needs_restart, reloaded.needs_restart);
        }
        self.counters.control.check_every(wanted.check_every);
        if all != Reloaded::default() {
            let Reloaded { changed, needs_restart } = &all;
            tracing::info!(region = %self.name, ?changed, ?needs_restart, "a region's policy was reloaded");
        }
        Ok(all)
    }
}

impl fmt::Debug for RegionControl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RegionControl")
            .field("name", &self.name)
            .field("mode", &self.mode())
            .finish_non_exhaustive()
    }
}

/// What is switched, beside the counters of a region's name.
#[derive(Debug)]
pub(crate) struct Control {
    mode: AtomicU8,
    /// A near hit is checked if its number has none of these bits; all ones: none is.
    check_mask: AtomicU64,
    /// By the prefix of their keys: what was served past the cache.
    passed: Mutex<BTreeMap<String, Passed>>,
    reported: Mutex<Option<Instant>>,
}

#[derive(Debug)]
enum Passed {
    Keys(HashSet<CachedKey>),
    Any,
}

impl Default for Control {
    fn default() -> Self {
        Self {
            mode: AtomicU8::default(),
            check_mask: AtomicU64::new(u64::MAX),
            passed: Mutex::default(),
            reported: Mutex::default(),
        }
    }
}

impl Control {
    pub(crate) fn check_every(&self, hits: u64) {
        let mask =
            hits.checked_next_power_of_two().map_or(u64::MAX, |n| if hits == 0 { u64::MAX } else { n - 1 });
        self.check_mask.store(mask, Ordering::Relaxed);
    }

    /// Whether the near hit of this number is to be checked.
    #[inline]
    pub(crate) fn is_checked(&self, hit: u64) -> bool {
        let mask = self.check_mask.load(Ordering::Relaxed);
        hit & mask == 0 && mask != u64::MAX
    }

    #[inline]
    pub(crate) fn mode(&self) -> RegionMode {
        match self.mode.load(Ordering::Relaxed) {
            1 => RegionMode::Shadow,
            2 => RegionMode::Killed,
            _ => RegionMode::On,
        }
    }

    /// Says how it was, if that was another mode. `forget` drops what is near and lets go of the loads under way.
    fn switch(&self, mode: RegionMode, pending: &Pending, forget: impl FnOnce()) -> Option<RegionMode> {
        let mut passed = self.passed.lock();
        let from = self.mode();
        if from == mode {
            return None;
        }
        if mode == RegionMode::On {
            // All is in order before anybody reads as if nothing had been served past the cache.
            queue(&mut passed, pending);
            forget();
            self.mode.store(mode as u8, Ordering::SeqCst);
        } else {
            self.mode.store(mode as u8, Ordering::SeqCst);
            forget();
        }
        Some(from)
    }

    /// To be called before a caller is given what the cache has not, or has otherwise.
    pub(crate) fn served_past(&self, key: &CachedKey, prefix: &str, pending: &Pending) {
        let mut passed = self.passed.lock();
        let of_prefix = passed.entry(prefix.to_owned()).or_insert_with(|| Passed::Keys(HashSet::new()));
        if let Passed::Keys(keys) = of_prefix {
            if keys.len() < MAX_REMEMBERED {
                keys.insert(key.clone());
            } else if !keys.contains(key) {
                *of_prefix = Passed::Any;
            }
        }
        // The switch may have come since this read began, and whoever threw it has settled what was there then.
        if self.mode.load(Ordering::SeqCst) == RegionMode::On as u8 {
            queue(&mut passed, pending);
        }
    }

    /// Whether a difference may be reported now.
    pub(crate) fn may_report(&self) -> bool {
        let now = Instant::now();
        let mut reported = self.reported.lock();
        if reported.is_some_and(|before| now.duration_since(before) < SHADOW_REPORT_PERIOD) {
            return false;
        }
        *reported = Some(now);
        true
    }
}

fn queue(passed: &mut BTreeMap<String, Passed>, pending: &Pending) {
    for (prefix, passed) in std::mem::take(passed) {
        match passed {
            Passed::Keys(keys) => {
                pending.push(&keys, Some(&prefix));
            }
            Passed::Any => {
                pending.push_prefix(&prefix, Some(&prefix));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_passed_is_queued_once_the_region_is_on_and_is_bounded() {
        let (control, pending) = (Control::default(), Pending::default());
        let switch = |mode| control.switch(mode, &pending, || {});
        switch(RegionMode::Killed);
        control.served_past(&CachedKey::new("r:1"), "r:", &pending);
        control.served_past(&CachedKey::new("r:1"), "r:", &pending);
        switch(RegionMode::Shadow);
        assert_eq!(pending.len(), (0, 0), "still not on");
        switch(RegionMode::On);
        assert_eq!(pending.len(), (1, 0));
        // A read that had begun before the switch ends after it.
        control.served_past(&CachedKey::new("r:2"), "r:", &pending);
        assert_eq!(pending.len(), (2, 0));
        switch(RegionMode::Killed);
        for n in 0..=MAX_REMEMBERED {
            control.served_past(&CachedKey::new(&format!("r:{n}")), "r:", &pending);
        }
        switch(RegionMode::On);
        assert_eq!(pending.len(), (0, 1), "the whole region stands in for its keys");
    }

    #[test]
    fn a_region_is_on_only_when_all_is_in_order_and_off_before_it_is_tidied() {
        let (control, pending) = (Control::default(), Pending::default());
        assert_eq!(control.switch(RegionMode::On, &pending, || unreachable!("it is on")), None);
        let killed = control.switch(RegionMode::Killed, &pending, || {
            assert_eq!(control.mode(), RegionMode::Killed, "or what is forgotten comes back");
        });
        assert_eq!(killed, Some(RegionMode::On));
        control.served_past(&CachedKey::new("r:1"), "r:", &pending);
        let on = control.switch(RegionMode::On, &pending, || {
            assert_eq!(pending.len(), (1, 0));
            assert_eq!(
                control.mode(),
                RegionMode::Killed,
                "a reader would find what is near, or older than what was served"
            );
        });
        assert_eq!((on, control.mode()), (Some(RegionMode::Killed), RegionMode::On));
    }

    #[test]
    fn one_hit_of_so_many_is_checked() {
        let control = Control::default();
        let checked = |control: &Control| (0..1024).filter(|hit| control.is_checked(*hit)).count();
        assert_eq!(checked(&control), 0);
        for (every, expected) in [(1, 1024), (2, 512), (1000, 1), (100, 8), (0, 0), (u64::MAX, 0)] {
            control.check_every(every);
            assert_eq!(checked(&control), expected, "{every}");
        }
    }

    #[test]
    fn every_mode_is_called_by_its_name() {
        for mode in RegionMode::ALL {
            assert_eq!(mode.name().parse::<RegionMode>().unwrap(), mode);
            let control = Control::default();
            control.switch(mode, &Pending::default(), || {});
            assert_eq!(control.mode(), mode);
        }
        assert_eq!("off".parse::<RegionMode>().unwrap_err().kind(), ErrorKind::Config);
    }
}
