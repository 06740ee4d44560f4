//! What a cache does once in a while: publishing its counters, reporting to a metrics recorder, probing for stale reads.
//!
//! Invariant: none of it keeps a cache alive, and a failure is tried again at the next turn. Deliberately absent: what is done.

use std::future::{Future, ready};
use std::time::Duration;

use crate::cache::Cache;
use crate::metrics::Reported;

/// Shortest period.
const SHORTEST_PERIOD: Duration = Duration::from_millis(10);

/// What is done, and how often.
#[derive(Clone, Debug, Default)]
pub(crate) struct Periods {
    pub(crate) metrics: Option<Duration>,
    pub(crate) publish: Option<Duration>,
    pub(crate) probe: Option<Duration>,
}

/// Starts it. Must be called inside a tokio runtime.
pub(crate) fn start(cache: &Cache, periods: &Periods) {
    if let Some(period) = periods.metrics {
        let mut reported = Reported::default();
        every(cache, period, move |cache| {
            reported.report(&cache);
            ready(())
        });
    }
    if let Some(period) = periods.publish {
        every(cache, period, move |cache| async move {
            if let Err(error) = cache.publish_stats(period).await {
                tracing::debug!(%error, "the counters were not published");
            }
        });
    }
    if let Some(period) = periods.probe {
        every(cache, period, |cache| async move {
            if let Err(error) = cache.probe_stale_reads().await {
                tracing::debug!(%error, "stale reads were not measured");
            }
        });
    }
}

fn every<F>(cache: &Cache, period: Duration, mut work: impl FnMut(Cache) -> F + Send + 'static)
where
    F: Future<Output = ()> + Send + 'static,
{
    let cache = cache.downgrade();
    tokio::spawn(async move {
        let mut turns = tokio::time::interval(period.max(SHORTEST_PERIOD));
        turns.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            turns.tick().await;
            let Some(cache) = cache.upgrade() else { return };
            work(cache).await;
        }
    });
}
