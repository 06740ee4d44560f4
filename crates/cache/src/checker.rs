//! Does the near cache lie? A sample of its hits is compared with the backend.
//!
//! No false alarm: a backend value that differs is no violation by itself, for the message about its change may be on its way. It is
//! one if the very same entry is still served when the near cache, by its own account, has heard of everything that changed before the
//! backend was looked at; that is after one heartbeat. An entry that was dropped and read again is another entry. Deliberately absent: the
//! time that messages take (`read_probe.rs`).

use std::borrow::Cow;
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use crate::cache::Cache;
use crate::events::{Event, RemovalCause};
use crate::metrics;
use crate::near::Held;
use crate::region::RegionState;
use crate::stats;

/// Checks of one cache that are under way at once; a sample beyond is left out.
pub(crate) const MAX_CHECKS: usize = 256;
/// How much longer than the heartbeat a message may take, for clocks that are read in steps.
const SLACK: Duration = Duration::from_millis(10);

/// What stored bytes are compared by; never zero, which stands for entries that were not prepared for it.
pub(crate) fn digest(stored: &[u8]) -> u64 {
    static HASHER: LazyLock<RandomState> = LazyLock::new(RandomState::new);
    HASHER.hash_one(stored).max(1)
}

/// How many checks are under way.
#[derive(Debug, Default)]
pub(crate) struct Checks(AtomicUsize);

impl Cache {
    /// Compares what is near of a key with the backend, beside its callers.
    #[cold]
    pub(crate) fn check_near(&self, state: &Arc<RegionState>, key: String) {
        let Some(seen) = self.near().get(key.as_bytes()).filter(|held| held.digest() != 0) else {
            return;
        };
        if self.checks().0.fetch_add(1, Ordering::Relaxed) >= MAX_CHECKS {
            self.checks().0.fetch_sub(1, Ordering::Relaxed);
            return;
        }
        let (cache, state) = (self.clone(), Arc::clone(state));
        self.near().runtime().spawn(async move {
            cache.check(&state, &key, &seen).await;
            cache.checks().0.fetch_sub(1, Ordering::Relaxed);
        });
    }

    async fn check(&self, state: &RegionState, key: &str, seen: &Held) {
        let Ok(backend) = self.backend().await else { return };
        let Ok(value) = backend.get(key.as_bytes()).await else { return };
        // From here on the backend has had what it was found to have.
        let found = Instant::now();
        let counters = &state.counters;
        stats::count(&counters.near_checks);
        if value.is_some_and(|bytes| digest(&bytes) == seen.digest()) {
            return;
        }
        stats::count(&counters.near_behind);
        tokio::time::sleep(self.near().heartbeat() + SLACK).await;
        let still = self.near().get(key.as_bytes()).is_some_and(|held| held.is_same_as(seen));
        if !still {
            return;
        }
        let age = found.elapsed();
        stats::count(&counters.near_violations);
        let name = &state.policy.name;
        tracing::error!(region = %name, key, ?age, "the near cache served what the backend no longer has");
        if self.reports_metrics() {
            metrics::violation_seen(name, age.as_secs_f64());
        }
        self.event(|| Event::Violation { region: Cow::Borrowed(name), key: Cow::Borrowed(key), age });
        self.near().drop_key(key.as_bytes(), RemovalCause::Invalidated);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::near::Kept;
    use crate::read::Age;
    use crate::region::{Region, RegionPolicy};

    fn lie(digest_of: &[u8]) -> Kept {
        let read = Instant::now();
        let expires = read + Duration::from_mins(1);
        let digest = digest(digest_of);
        Kept {
            value: Arc::new(1_u64),
            age: Age::Unknown,
            read,
            expires,
            weight: 100,
            is_none: false,
            tags: None,
            digest,
            known: None,
        }
    }

    async fn region() -> Region<u64> {
        let builder = Cache::builder("embedded://").near_heartbeat(Duration::from_millis(20));
        let policy = RegionPolicy::new("r", Duration::from_mins(1)).near(true).check_every(1);
        builder.open().await.unwrap().region(policy).unwrap()
    }

    #[tokio::test]
    async fn a_near_value_that_lies_is_found_told_and_dropped() {
        let region = region().await;
        let cache = region.cache().clone();
        region.set("k", &2).await.unwrap();
        let mut events = cache.events();
        cache.near().keep(cache.near().begin("r:k").unwrap(), "r:k", lie(b"1"));
        assert_eq!(*region.get_shared("k").await.unwrap().unwrap().value, 1, "the lie");
        let told = async {
            while let Some(heard) = events.next().await {
                if let crate::Heard::Event(event) = heard
                    && let Event::Violation { key, age, .. } = &*event
                {
                    assert_eq!((key.as_ref(), *age >= Duration::from_millis(20)), ("r:k", true));
                    return;
                }
            }
        };
        tokio::time::timeout(Duration::from_secs(10), told).await.unwrap();
        assert_eq!(*region.get_shared("k").await.unwrap().unwrap().value, 2, "the lie is gone");
        let stats = region.stats();
        assert_eq!((stats.near_violations, stats.near_behind), (1, 1), "{stats:?}");
        assert!(!cache.health().is_ok());
    }

    #[tokio::test]
    async fn a_value_that_is_dropped_in_time_is_no_violation() {
        let region = region().await;
        let cache = region.cache().clone();
        region.set("k", &2).await.unwrap();
        cache.near().keep(cache.near().begin("r:k").unwrap(), "r:k", lie(b"1"));
        region.get_shared("k").await.unwrap();
        while region.stats().near_behind == 0 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        // The message comes, and the next read brings in what is true.
        cache.near().drop_key(b"r:k", RemovalCause::Invalidated);
        region.get_shared("k").await.unwrap();
        // Until the check has looked again.
        tokio::time::sleep(cache.near().heartbeat() + SLACK + Duration::from_millis(50)).await;
        assert_eq!(region.stats().near_violations, 0);
    }
}
