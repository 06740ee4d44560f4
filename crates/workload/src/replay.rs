//! Playing a trace through a cache: look each object up, and store it when it was not there.
//!
//! Invariant: the trace is taken in order. With one lane each request ends before the next begins, so the hit ratio is
//! exact and repeatable; with more lanes, requests close together in the trace overlap, as they do for a real client. Absent:
//! think times; a replay is as fast as the target lets it be.

use std::future::Future;
use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::task::JoinSet;

use crate::{Error, ErrorKind, ReplayReport, Request, Tally};

/// Requests a lane takes from the trace at once when there are several lanes.
const REQUESTS_PER_TURN: usize = 16;

/// Most lanes one replay runs.
const MAX_LANES: usize = 4096;

/// Whether the cache held the object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lookup {
    /// It did.
    Hit,
    /// It did not.
    Miss,
}

/// A cache to replay a trace against.
pub trait ReplayTarget: Send + Sync + 'static {
    /// One line on what this is and how large, for the report.
    fn describe(&self) -> String;

    /// Looks an object up.
    fn get(&self, request: Request) -> impl Future<Output = Result<Lookup, Error>> + Send;

    /// Stores an object's value, of which only the size means anything.
    fn set(&self, request: Request, value: &[u8]) -> impl Future<Output = Result<(), Error>> + Send;

    /// How many objects were evicted since the replay began, where the target can tell.
    fn evictions(&self) -> impl Future<Output = Result<Option<u64>, Error>> + Send;
}

/// How to replay.
#[derive(Clone, Debug)]
pub struct ReplayOptions {
    /// How many requests are under way at once, up to 4096. Default: 1, which keeps the trace's order exactly.
    pub lanes: NonZeroUsize,
    /// Stop after so many requests. Default: none, the whole trace.
    pub limit: Option<u64>,
}

impl Default for ReplayOptions {
    fn default() -> Self {
        Self { lanes: NonZeroUsize::MIN, limit: None }
    }
}

/// Replays `trace` through `target`; `progress` hears now and then how many requests were taken from the trace.
///
/// The first error, of the trace or of the target, ends the replay.
pub async fn replay<T: ReplayTarget>(
    trace: impl Iterator<Item = Result<Request, Error>> + Send + 'static,
    target: Arc<T>,
    options: &ReplayOptions,
    progress: impl Fn(u64) + Send + Sync + 'static,
) -> Result<ReplayReport, Error> {
    let lanes = options.lanes.get().min(MAX_LANES);
    let source = Source {
        trace: Box::new(trace),
        left: options.limit.unwrap_or(u64::MAX),
        taken: 0,
        progress: Box::new(progress),
    };
    let source = Arc::new(Mutex::new(source));
    let started = Instant::now();
    let mut running = JoinSet::new();
    for _ in 0..lanes {
        running.spawn(run_lane(
            source.clone(),
            target.clone(),
            if lanes == 1 { 1024 } else { REQUESTS_PER_TURN },
        ));
    }
    let mut total = Tally::default();
    while let Some(ended) = running.join_next().await {
        // An error drops `running`, which stops the other lanes.
        let tally = ended
            .map_err(|panic| Error::new(ErrorKind::Target, "a replay lane stopped").caused_by(panic))??;
        total.merge(&tally);
    }
    let took = started.elapsed();
    let evictions = target.evictions().await?;
    Ok(ReplayReport::new(target.describe(), &total, took, evictions, lanes))
}

struct Source {
    trace: Box<dyn Iterator<Item = Result<Request, Error>> + Send>,
    left: u64,
    taken: u64,
    progress: Box<dyn Fn(u64) + Send + Sync>,
}

impl Source {
    /// Takes the next few requests; none means the trace is over.
    fn take_into(&mut self, turn: &mut Vec<Request>, most: usize) -> Result<(), Error> {
        turn.clear();
        while turn.len() < most && self.left > 0 {
            let Some(request) = self.trace.next() else {
                self.left = 0;
                break;
            };
            turn.push(request?);
            self.left -= 1;
        }
        self.taken += turn.len() as u64;
        (self.progress)(self.taken);
        Ok(())
    }
}

async fn run_lane<T: ReplayTarget>(
    source: Arc<Mutex<Source>>,
    target: Arc<T>,
    per_turn: usize,
) -> Result<Tally, Error> {
    let mut tally = Tally::default();
    let mut turn = Vec::with_capacity(per_turn);
    let mut filler = Vec::new();
    loop {
        source.lock().unwrap_or_else(PoisonError::into_inner).take_into(&mut turn, per_turn)?;
        if turn.is_empty() {
            return Ok(tally);
        }
        for &request in &turn {
            let (found, took) = timed(target.get(request)).await;
            let found = found?;
            tally.looked_up(request, found, took);
            if found == Lookup::Miss {
                let size = request.value_bytes as usize;
                if filler.len() < size {
                    filler.resize(size, b'x');
                }
                let (stored, took) = timed(target.set(request, &filler[..size])).await;
                stored?;
                tally.stored(took);
            }
        }
        // A target that never waits would otherwise keep its thread from everything else.
        tokio::task::yield_now().await;
    }
}

async fn timed<T>(step: impl Future<Output = T>) -> (T, Duration) {
    let started = Instant::now();
    let outcome = step.await;
    (outcome, started.elapsed())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Capacity, LruTarget};

    fn looping(count: u64, distinct: u64) -> impl Iterator<Item = Result<Request, Error>> + Send {
        (0..count).map(move |i| Ok(Request { object: i % distinct, value_bytes: 10 }))
    }

    #[tokio::test]
    async fn every_request_is_counted_once_whatever_the_lanes() {
        for lanes in [1, 7] {
            let target = Arc::new(LruTarget::new(Capacity::Objects(100)).unwrap());
            let options = ReplayOptions { lanes: NonZeroUsize::new(lanes).unwrap(), limit: None };
            let report = replay(looping(10_000, 50), target, &options, |_| ()).await.unwrap();
            assert_eq!(report.requests, 10_000);
            assert!(report.hits >= 10_000 - 50 * lanes as u64, "{report:?}");
            assert_eq!(report.evictions, Some(0));
        }
    }

    #[tokio::test]
    async fn limit_ends_the_replay_early() {
        let target = Arc::new(LruTarget::new(Capacity::Objects(100)).unwrap());
        let options = ReplayOptions { limit: Some(123), ..ReplayOptions::default() };
        let report = replay(looping(10_000, 50), target, &options, |_| ()).await.unwrap();
        assert_eq!(report.requests, 123);
    }

    #[tokio::test]
    async fn damaged_trace_fails_the_replay() {
        let target = Arc::new(LruTarget::new(Capacity::Objects(100)).unwrap());
        let trace = looping(10, 5).chain([Err(Error::new(ErrorKind::Truncated, "cut"))]);
        let error = replay(trace, target, &ReplayOptions::default(), |_| ()).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Truncated);
    }
}
