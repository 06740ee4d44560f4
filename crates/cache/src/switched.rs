//! Reads of a region that is not on: killed, or in shadow.
//!
//! Invariants: nothing that the cache holds reaches a caller whose read has a loader; what differed is told by its place, never by its
//! content. Deliberately absent: the switches (`control.rs`), and writes, which are the same in every mode.

use std::borrow::{Borrow, Cow};
use std::time::Instant;

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::backend::CachedKey;
use crate::control::RegionMode;
use crate::error::Result;
use crate::events::{Event, RemovalCause};
use crate::load::Storing;
use crate::loader::Loader;
use crate::read::{Read, ReadOptions};
use crate::read_through::Looked;
use crate::region::{Region, RegionState};
use crate::stats;

/// How many places that differ are told.
const MAX_PLACES: usize = 8;

impl<T> Region<T> {
    /// Whether a read without a loader is to go past the cache, which finds nothing.
    #[inline]
    pub(crate) fn is_killed(&self) -> bool {
        self.state.mode() == RegionMode::Killed
    }

    /// To be called before a caller is given what the cache has not, or has otherwise.
    pub(crate) fn served_past(&self, key: &str) {
        if let Some(prefix) = self.state.key_prefix() {
            self.state.counters.control.served_past(&CachedKey::new(key), &prefix, self.cache.pending());
            // The region may have been switched on while this was loaded, and have kept what the cache had.
            self.cache.near().drop_key(key.as_bytes(), RemovalCause::Invalidated);
            self.cache.flights(Storing::IfCurrent).detach(key);
        }
    }

    /// Such a read.
    pub(crate) fn bypassed(&self, key: &str) {
        stats::count(&self.state.counters.bypassed);
        self.cache.event(|| Event::Bypassed { region: Cow::Borrowed(self.name()), key: Cow::Borrowed(key) });
    }
}

impl<T: Serialize + DeserializeOwned> Region<T> {
    /// Straight to the loader.
    pub(crate) async fn past_the_cache<L>(
        &self,
        key: &str,
        options: ReadOptions,
        loader: L,
        started: Option<Instant>,
    ) -> Result<Read<T>>
    where
        T: Send + 'static,
        L: Loader<T>,
    {
        stats::count(&self.state.counters.bypassed);
        let read = self.loaded(key, options, loader, started, Storing::Never).await?;
        self.served_past(key);
        Ok(read)
    }

    /// Serves the loader, and compares with what was looked up.
    pub(crate) async fn shadowed<V, L>(
        &self,
        key: &str,
        looked: Result<Looked<V>>,
        options: ReadOptions,
        loader: L,
        started: Option<Instant>,
    ) -> Result<Read<T>>
    where
        T: Send + 'static,
        V: Borrow<T>,
        L: Loader<T>,
    {
        match looked {
            Ok(Looked::Value(cached)) => {
                // Not stored: otherwise the cache would hold what the last read loaded, and be compared with itself.
                let read = self.loaded(key, options, loader, started, Storing::Never).await?;
                self.compare(key, Some(cached.value.borrow()), Some(&read.value));
                return Ok(read);
            }
            Ok(Looked::Stale(_) | Looked::Nothing) => stats::count(&self.state.counters.shadow_missing),
            Err(error) => tracing::debug!(region = self.name(), %error, "nothing to compare with"),
        }
        self.loaded(key, options, loader, started, Storing::IfMissing).await
    }

    /// What the cache has against what the loader gives; none where the source has none.
    pub(crate) fn compare(&self, key: &str, cached: Option<&T>, loaded: Option<&T>) {
        let counters = &self.state.counters;
        let places = match (serde_json::to_value(cached), serde_json::to_value(loaded)) {
            (Ok(cached), Ok(loaded)) => places_that_differ(&cached, &loaded),
            _ => vec![String::new()],
        };
        if places.is_empty() {
            stats::count(&counters.shadow_equal);
            return;
        }
        stats::count(&counters.shadow_different);
        self.served_past(key);
        if counters.control.may_report() {
            tracing::warn!(region = self.name(), key, ?places, "the cache differs from its source");
            self.cache.event(|| Event::ShadowDiffered {
                region: Cow::Borrowed(self.name()),
                key: Cow::Borrowed(key),
                places,
            });
        }
    }
}

impl RegionState {
    #[inline]
    pub(crate) fn mode(&self) -> RegionMode {
        self.counters.control.mode()
    }
}

/// JSON pointers to where the two differ, a few of them.
fn places_that_differ(one: &Value, other: &Value) -> Vec<String> {
    let mut places = Vec::new();
    find(one, other, &mut String::new(), &mut places);
    places
}

fn find(one: &Value, other: &Value, at: &mut String, places: &mut Vec<String>) {
    if places.len() >= MAX_PLACES || one == other {
        return;
    }
    let mut step = |name: &str, one: Option<&Value>, other: Option<&Value>, at: &mut String| {
        let here = at.len();
        at.push('/');
        at.push_str(&name.replace('~', "~0").replace('/', "~1"));
        match (one, other) {
            (Some(one), Some(other)) => find(one, other, at, places),
            _ if places.len() < MAX_PLACES => places.push(at.clone()),
            _ => {}
        }
        at.truncate(here);
    };
    match (one, other) {
        (Value::Object(one), Value::Object(other)) => {
            for (name, value) in one {
                step(name, Some(value), other.get(name), at);
            }
            for (name, value) in other.iter().filter(|(name, _)| !one.contains_key(*name)) {
                step(name, None, Some(value), at);
            }
        }
        (Value::Array(one), Value::Array(other)) => {
            for place in 0..one.len().max(other.len()) {
                step(&place.to_string(), one.get(place), other.get(place), at);
            }
        }
        _ => places.push(at.clone()),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_differs_is_told_by_its_place() {
        let places = |one, other| places_that_differ(&one, &other);
        assert_eq!(places(json!({"a": 1, "b": [1, 2]}), json!({"b": [1, 2], "a": 1})), [""; 0]);
        assert_eq!(
            places(json!({"a": 1, "b": {"c/d": [1, 2]}}), json!({"a": 1, "b": {"c/d": [1, 3, 4]}, "e": 0})),
            ["/b/c~1d/1", "/b/c~1d/2", "/e"]
        );
        assert_eq!(places(json!(1), json!("1")), [""]);
        assert_eq!(places(json!((0..100).collect::<Vec<_>>()), json!([])).len(), MAX_PLACES);
    }
}
