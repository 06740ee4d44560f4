//! How a cache is, as one value that a service can expose.
//!
//! Invariant: asking costs no call to the backend and never fails. Deliberately absent: what a service does with the answer; reads go on in
//! every state that is named here.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use mtcache_link::{BreakerState, TrackingState};
use parking_lot::Mutex;
use serde::Serialize;

use crate::cache::Cache;
use crate::control::RegionMode;
use crate::error::{Error, ErrorKind};

/// How many errors are kept.
pub(crate) const MAX_LAST_ERRORS: usize = 16;
/// How long an error makes a cache look worse.
const RECENT: Duration = Duration::from_mins(1);

/// How a cache is. Made by [`Cache::health`]; a map of plain values to serde.
///
/// ```no_run
/// # async fn example(cache: mtcache_cache::Cache) {
/// let health = cache.health();
/// if !health.is_ok() {
///     eprintln!("the cache is {}: {}", health.level, health.reasons.join("; "));
/// }
/// # }
/// ```
#[derive(Clone, Debug, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Health {
    /// The worst of the reasons.
    pub level: HealthLevel,
    /// What is not as it should be, for people.
    pub reasons: Vec<String>,
    /// Where the backend is, without credentials.
    pub backend: String,
    /// False if the backend is known to be out of reach.
    pub backend_is_up: bool,
    /// The circuit breaker: `closed`, `open` or `half_open`; over a cluster the worst of its nodes.
    pub breaker: &'static str,
    /// How it stands with the connection that keeps the near cache honest: `idle`, `waiting`, `on`, or why it is refused.
    pub tracking: String,
    /// Keys that wait to be invalidated in the backend.
    pub pending_keys: usize,
    /// Whole regions that wait to be invalidated in the backend.
    pub pending_regions: usize,
    /// Values in the near cache.
    pub near_entries: u64,
    /// What they count for.
    pub near_bytes: u64,
    /// Loads that were refused since the cache was opened, because too many waited.
    pub loads_shed: u64,
    /// Reads of the near cache that were wrong, of those that were checked.
    pub near_violations: u64,
    /// Regions that are not on.
    pub switched: Vec<(String, RegionMode)>,
    /// The last errors of the backend, and loads that were shed, the newest first; at most 16.
    pub last_errors: Vec<LastError>,
}

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum HealthLevel {
    /// All is as it should be.
    Ok,
    /// It answers, and something of what it is for is missing.
    Degraded,
    /// The backend is out of reach: reads are answered by loaders, writes fail.
    Down,
}

impl std::fmt::Display for HealthLevel {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Ok => "ok",
            Self::Degraded => "degraded",
            Self::Down => "down",
        })
    }
}

/// An error that was met.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct LastError {
    /// Its kind.
    pub kind: String,
    /// What it said.
    pub message: String,
    /// How long ago.
    pub ago: Duration,
    /// How often it was met on end with the same kind.
    pub times: u64,
}

impl Health {
    /// True if nothing is amiss.
    pub fn is_ok(&self) -> bool {
        self.level == HealthLevel::Ok
    }
}

impl Cache {
    /// How this cache is now.
    pub fn health(&self) -> Health {
        let (pending_keys, pending_regions) = self.pending_invalidations();
        let (near_entries, near_bytes) = self.near_size();
        let stats = self.stats();
        let tracking = self.near_state();
        let breaker = self.breaker();
        let mut health = Health {
            level: HealthLevel::Ok,
            reasons: Vec::new(),
            backend: self.describe_backend(),
            backend_is_up: self.is_connected(),
            breaker: breaker_name(breaker),
            tracking: tracking_name(tracking),
            pending_keys,
            pending_regions,
            near_entries,
            near_bytes,
            loads_shed: stats.iter().map(|(_, stats)| stats.loads_shed).sum(),
            near_violations: stats.iter().map(|(_, stats)| stats.near_violations).sum(),
            switched: self.switched_regions(),
            last_errors: self.troubles().last(),
        };
        health.judge(tracking, breaker);
        health
    }
}

impl Health {
    fn judge(&mut self, tracking: TrackingState, breaker: BreakerState) {
        use HealthLevel::{Degraded, Down};
        let mut found: Vec<(HealthLevel, String)> = Vec::new();
        if !self.backend_is_up {
            found.push((Down, format!("{} is out of reach", self.backend)));
        }
        if self.backend_is_up && breaker != BreakerState::Closed {
            found
                .push((Degraded, format!("{} does not answer; calls are refused for a while", self.backend)));
        }
        match tracking {
            TrackingState::Idle | TrackingState::On => {}
            _ => found.push((Degraded, format!("the near cache is off: {}", self.tracking))),
        }
        if self.pending_keys + self.pending_regions > 0 {
            let waiting = format!("{} keys and {} regions", self.pending_keys, self.pending_regions);
            found.push((Degraded, format!("{waiting} wait to be invalidated")));
        }
        if self.near_violations > 0 {
            found.push((Degraded, format!("{} checked near reads were wrong", self.near_violations)));
        }
        for (region, mode) in self.switched.iter().filter(|(_, mode)| *mode == RegionMode::Killed) {
            found.push((Degraded, format!("region {region} is {mode}")));
        }
        if let Some(error) = self.last_errors.iter().find(|error| error.ago < RECENT) {
            found.push((Degraded, format!("{} ({:.0?} ago)", error.message, error.ago)));
        }
        self.level = found.iter().map(|(level, _)| *level).max().unwrap_or(HealthLevel::Ok);
        self.reasons = found.into_iter().map(|(_, reason)| reason).collect();
    }
}

fn breaker_name(state: BreakerState) -> &'static str {
    match state {
        BreakerState::Closed => "closed",
        BreakerState::Open => "open",
        BreakerState::HalfOpen => "half_open",
    }
}

fn tracking_name(state: TrackingState) -> String {
    match state {
        TrackingState::Idle => "idle".to_owned(),
        TrackingState::Waiting => "waiting".to_owned(),
        TrackingState::On => "on".to_owned(),
        TrackingState::Refused(refusal) => format!("refused: {refusal:?}"),
        other => format!("{other:?}"),
    }
}

/// The last errors.
#[derive(Debug, Default)]
pub(crate) struct Troubles(Mutex<VecDeque<Trouble>>);

#[derive(Debug)]
struct Trouble {
    error: Error,
    at: Instant,
    times: u64,
}

impl Troubles {
    /// Takes note of an error, if it says something about the backend rather than about a call.
    pub(crate) fn note(&self, error: &Error) {
        let is_ours = error.is_backend_down()
            || matches!(
                error.kind(),
                ErrorKind::Denied | ErrorKind::OutOfMemory | ErrorKind::Shed | ErrorKind::Protocol
            );
        if !is_ours {
            return;
        }
        let mut all = self.0.lock();
        let now = Instant::now();
        match all.front_mut() {
            Some(last) if last.error.kind() == error.kind() => {
                *last = Trouble { error: error.clone(), at: now, times: last.times + 1 };
            }
            _ => {
                all.truncate(MAX_LAST_ERRORS - 1);
                all.push_front(Trouble { error: error.clone(), at: now, times: 1 });
            }
        }
    }

    fn last(&self) -> Vec<LastError> {
        let told = |trouble: &Trouble| LastError {
            kind: format!("{:?}", trouble.error.kind()),
            message: trouble.error.to_string(),
            ago: trouble.at.elapsed(),
            times: trouble.times,
        };
        self.0.lock().iter().map(told).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_are_bounded_and_one_on_end_is_kept_once() {
        let troubles = Troubles::default();
        for n in 0..100 {
            let kind = if n % 2 == 0 { ErrorKind::Timeout } else { ErrorKind::Unavailable };
            troubles.note(&Error::new(kind, "gone"));
            troubles.note(&Error::new(kind, "gone again"));
            troubles.note(&Error::new(ErrorKind::WrongType, "a caller's own"));
        }
        let last = troubles.last();
        assert_eq!(last.len(), MAX_LAST_ERRORS);
        assert_eq!(
            (last[0].kind.as_str(), last[0].message.as_str(), last[0].times),
            ("Unavailable", "gone again", 2)
        );
    }
}
