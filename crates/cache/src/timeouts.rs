//! Bounds on how long a loader may run.
//!
//! Invariant: a load ends before its fill token can expire of age. Deliberately absent: the soft timeout, which serves a stale value
//! while the load goes on; it comes with `fail_safe.rs`.

use std::future::Future;
use std::time::Duration;

/// Longest load a region allows unless it says otherwise.
pub const LOAD_TIMEOUT: Duration = Duration::from_secs(30);

/// The answer, or none when the time is over. The loader is dropped then.
pub(crate) async fn hard<F: Future>(limit: Duration, load: F) -> Option<F::Output> {
    tokio::time::timeout(limit, load).await.ok()
}
