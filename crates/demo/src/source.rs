//! A provider on the other side of a network, whose every call takes time and costs money.
//!
//! Simulated: what it answers is computed here, only its latency is made up, and reports say so.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// A metered provider. Clones share their meter.
#[derive(Clone, Debug)]
pub struct MeteredSource {
    latency: Duration,
    calls: Arc<AtomicU64>,
}

impl MeteredSource {
    /// A provider that answers after so long.
    pub fn new(latency: Duration) -> Self {
        Self { latency, calls: Arc::default() }
    }

    /// Makes one call; what it brings is for the caller to compute.
    pub async fn call(&self) {
        self.calls.fetch_add(1, Ordering::Relaxed);
        tokio::time::sleep(self.latency).await;
    }

    /// How many calls were made, and would be on the bill.
    pub fn calls(&self) -> u64 {
        self.calls.load(Ordering::Relaxed)
    }
}
