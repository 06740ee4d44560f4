//! A write under way, and what becomes of its keys if it does not get through.
//!
//! Invariant: when a write ends, however it ends, dropped by its caller included, each of its keys is either known to be written or
//! waits to be invalidated, nobody can join a load of it that began before, and no older value is kept near. What was sent before its caller left may still take
//! effect; the invalidation follows on the same connection, or after that one was given up. Deliberately absent: the writes themselves.

use std::collections::HashSet;

use crate::backend::{CachedKey, Entry};
use crate::error::{Error, ErrorKind};
use crate::events::RemovalCause;
use crate::near::Near;
use crate::pending::Pending;
use crate::region::RegionState;
use crate::single_flight::Flights;
use crate::stats;
use crate::tags::TagBook;

/// What a write must leave in order: the invalidations that wait, the loads under way, and what is kept near.
pub(crate) struct Ledger {
    pub(crate) pending: Pending,
    pub(crate) tags: TagBook,
    pub(crate) flights: Flights,
    /// Loads for reads that must not join one that may end with what the cache holds.
    pub(crate) straight_flights: Flights,
    pub(crate) near: Near,
}

impl Ledger {
    pub(crate) fn new(near: Near) -> Self {
        Self {
            pending: Pending::default(),
            tags: TagBook::default(),
            flights: Flights::default(),
            straight_flights: Flights::default(),
            near,
        }
    }
}

impl Ledger {
    /// Has nobody join a load of before, of any key with this prefix.
    pub(crate) fn detach_prefix(&self, prefix: &str) {
        self.flights.detach_prefix(prefix);
        self.straight_flights.detach_prefix(prefix);
    }
}

/// What has a key.
pub(crate) trait Keyed {
    fn cached_key(&self) -> &CachedKey;
}

impl Keyed for CachedKey {
    fn cached_key(&self) -> &CachedKey {
        self
    }
}

impl Keyed for Entry {
    fn cached_key(&self) -> &CachedKey {
        &self.key
    }
}

/// A write of these keys of a region.
pub(crate) struct Writing<'a, K: Keyed> {
    ledger: &'a Ledger,
    region: &'a RegionState,
    keys: &'a [K],
    /// So many of the first keys need no invalidation.
    settled: usize,
    /// Nor do these that come after them, by their places.
    apart: HashSet<usize>,
    cause: RemovalCause,
}

impl<'a, K: Keyed> Writing<'a, K> {
    pub(crate) fn new(
        ledger: &'a Ledger,
        region: &'a RegionState,
        keys: &'a [K],
        cause: RemovalCause,
    ) -> Self {
        Self { ledger, region, keys, settled: 0, apart: HashSet::new(), cause }
    }

    /// So many more keys are written.
    pub(crate) fn done(&mut self, keys: usize) {
        self.settled += keys;
        self.apart.clear();
    }

    /// The key at this place after those that are written is so too, or was refused for what the caller gave.
    pub(crate) fn done_apart(&mut self, place: usize) {
        self.apart.insert(self.settled + place);
    }

    /// Whatever happens or has happened, what is stored under the rest of the keys is as good as before.
    pub(crate) fn leaves_nothing_old(&mut self) {
        self.settled = self.keys.len();
    }

    /// The rest failed. What it was to replace must not be read again as if nothing had happened.
    pub(crate) fn failed(&mut self, error: &Error) {
        // These were refused for what the caller gave, or for what is there; neither is out of date.
        if is_refusal(error) {
            self.leaves_nothing_old();
            return;
        }
        stats::count(&self.region.counters.backend_errors);
        let (region, keys) = (&self.region.policy.name, self.keys.len() - self.settled - self.apart.len());
        tracing::debug!(%region, %error, keys, "a write failed; its keys wait to be invalidated");
    }
}

impl<K: Keyed> Drop for Writing<'_, K> {
    fn drop(&mut self) {
        let rest = (0..).zip(self.keys).skip(self.settled).filter(|(place, _)| !self.apart.contains(place));
        let rest: Vec<_> = rest.map(|(_, key)| key.cached_key()).collect();
        if !rest.is_empty() {
            let counters = &self.region.counters;
            stats::add(&counters.invalidations_queued, rest.len() as u64);
            let prefix = self.region.key_prefix();
            let lost = self.ledger.pending.push(rest, prefix.as_deref());
            stats::add(&counters.invalidations_lost, lost);
        }
        for key in self.keys {
            self.ledger.near.drop_key(&key.cached_key().key, self.cause);
            if let Ok(key) = std::str::from_utf8(&key.cached_key().key) {
                self.ledger.flights.detach(key);
                self.ledger.straight_flights.detach(key);
            }
        }
    }
}

/// Whether it was refused for what the caller gave, or for what is there.
pub(crate) fn is_refusal(error: &Error) -> bool {
    matches!(error.kind(), ErrorKind::Unencodable | ErrorKind::WrongType)
}

/// A write of everything that a region holds.
pub(crate) struct Clearing<'a> {
    ledger: &'a Ledger,
    region: &'a RegionState,
    prefix: &'a str,
    done: bool,
}

impl<'a> Clearing<'a> {
    pub(crate) fn new(ledger: &'a Ledger, region: &'a RegionState, prefix: &'a str) -> Self {
        Self { ledger, region, prefix, done: false }
    }

    /// It is cleared.
    pub(crate) fn done(&mut self) {
        self.done = true;
    }
}

impl Drop for Clearing<'_> {
    fn drop(&mut self) {
        if !self.done {
            stats::count(&self.region.counters.invalidations_queued);
            if !self.ledger.pending.push_prefix(self.prefix, self.region.key_prefix().as_deref()) {
                stats::count(&self.region.counters.invalidations_lost);
            }
        }
        self.ledger.near.drop_prefix(self.prefix);
        self.ledger.detach_prefix(self.prefix);
    }
}
