//! Bounds on loaders: how long one may run, how many run at once, how many wait.
//!
//! Invariants: a load ends before its fill token can expire of age, because it has its place before it takes the token; a region never has more loads running or waiting than its policy
//! says, whatever the request rate, and none waits for ever: what is beyond is shed with its own error. Deliberately absent: what is served
//! when a time is over (`fail_safe.rs`).

use std::future::Future;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::{Semaphore, SemaphorePermit};

use crate::error::{Error, ErrorKind, Result};

/// Longest load a region allows unless it says otherwise.
pub const LOAD_TIMEOUT: Duration = Duration::from_secs(30);

/// The answer, or none when the time is over. The loader is dropped then.
pub(crate) async fn hard<F: Future>(limit: Duration, load: F) -> Option<F::Output> {
    tokio::time::timeout(limit, load).await.ok()
}

/// The answer, if it comes within the limit; whoever still wants it waits on.
pub(crate) async fn soft<F: Future + Unpin>(limit: Option<Duration>, flight: F) -> Option<F::Output> {
    match limit {
        Some(limit) => tokio::time::timeout(limit, flight).await.ok(),
        None => Some(flight.await),
    }
}

/// Loads of one region that run at once, unless it says otherwise.
pub const MAX_LOADS: usize = 256;
/// Loads of one region that wait for their turn, unless it says otherwise.
pub const MAX_WAITING_LOADS: usize = 10_000;
/// How long a load waits for its turn, unless its region says otherwise.
pub const MAX_LOAD_WAIT: Duration = Duration::from_secs(30);

/// The places for a region's loads.
#[derive(Debug)]
pub(crate) struct LoadLimit {
    running: Semaphore,
    waiting: AtomicUsize,
    max_waiting: usize,
    max_wait: Duration,
}

impl LoadLimit {
    pub(crate) fn new(max_loads: usize, max_waiting: usize, max_wait: Duration) -> Self {
        Self {
            running: Semaphore::new(max_loads.clamp(1, Semaphore::MAX_PERMITS)),
            waiting: AtomicUsize::new(0),
            max_waiting,
            max_wait,
        }
    }

    /// A place to run, now or after waiting; refused when too many wait already, or the wait is too long.
    pub(crate) async fn place(&self, region: &str) -> Result<SemaphorePermit<'_>> {
        if let Ok(place) = self.running.try_acquire() {
            return Ok(place);
        }
        let _waiting = Waiting::enter(self).ok_or_else(|| {
            Error::new(
                ErrorKind::Shed,
                format!(
                    "{} loads of region {region} wait already; ask again later, or raise max_loads",
                    self.max_waiting
                ),
            )
        })?;
        match tokio::time::timeout(self.max_wait, self.running.acquire()).await {
            Ok(place) => place.map_err(|_| Error::protocol("the places for loads are gone")),
            Err(_) => Err(Error::new(
                ErrorKind::Shed,
                format!(
                    "a load of region {region} waited {:?} for its turn; ask again later, or raise max_loads or max_load_wait",
                    self.max_wait
                ),
            )),
        }
    }
}

/// One of those who wait; it leaves when dropped, cancelled or not.
struct Waiting<'a>(&'a AtomicUsize);

impl<'a> Waiting<'a> {
    fn enter(limit: &'a LoadLimit) -> Option<Self> {
        if limit.waiting.fetch_add(1, Ordering::Relaxed) >= limit.max_waiting {
            limit.waiting.fetch_sub(1, Ordering::Relaxed);
            return None;
        }
        Some(Self(&limit.waiting))
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}
