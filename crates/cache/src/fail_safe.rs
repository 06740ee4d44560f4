//! The place of fail-safe: serving the last known value, marked stale, when a loader or the backend fails.
//!
//! Regions already carry their stale window; nothing is served from it yet. Invariant until then: every value served is fresh.
