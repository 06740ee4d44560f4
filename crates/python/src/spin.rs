//! How the runtime stays awake between calls that are answered at once, so that who makes one call after the other does not pay for
//! waking a thread up with each.
//!
//! A reply from the same machine comes within some tens of microseconds, and to wake a sleeping thread takes as long. While few calls
//! are under way, and lately they were answered that fast, a task keeps the thread that waits for replies looking for them. Invariants: it
//! ends by itself [`PATIENCE`] after the last call; nothing is done where there is one processor only. Deliberately absent: anything that results depend on.

use std::sync::LazyLock;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tokio::runtime::Runtime;

/// How long after a call's begin or end the thread looks for more, unless `MTCACHE_SPIN_MICROS` says otherwise; 0: not at all.
const PATIENCE: Duration = Duration::from_micros(100);
/// Longest that can be asked for.
const MAX_PATIENCE: Duration = Duration::from_millis(1);
/// Calls that take longer, on average, are not looked out for.
const FAST: Duration = Duration::from_micros(200);
/// Each call counts for one in so many of the average, and for no more than so many fast ones.
const MAX_WEIGHT: u32 = 8;
/// With more calls under way the thread has enough to do.
const MAX_CALLS: u32 = 4;

static STATE: LazyLock<State> = LazyLock::new(|| State {
    start: Instant::now(),
    patience: patience(),
    calls: AtomicU32::new(0),
    average: AtomicU32::new(0),
    last: AtomicU64::new(0),
    is_awake: AtomicBool::new(false),
});

struct State {
    start: Instant,
    /// In nanoseconds.
    patience: u64,
    /// Under way now.
    calls: AtomicU32,
    /// What a call takes, in microseconds.
    average: AtomicU32,
    /// When a call began or ended last, in nanoseconds since the start.
    last: AtomicU64,
    is_awake: AtomicBool,
}

fn patience() -> u64 {
    if std::thread::available_parallelism().is_ok_and(|processors| processors.get() == 1) {
        return 0;
    }
    let wanted = std::env::var("MTCACHE_SPIN_MICROS").ok().and_then(|text| text.parse().ok());
    let patience = wanted.map_or(PATIENCE, Duration::from_micros).min(MAX_PATIENCE);
    u64::from(patience.subsec_nanos())
}

/// A child of a fork has none of its parent's calls.
pub(crate) fn after_fork() {
    STATE.calls.store(0, Ordering::Relaxed);
    STATE.is_awake.store(false, Ordering::Relaxed);
}

impl State {
    fn now(&self) -> u64 {
        u64::try_from(self.start.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }

    async fn stay_awake(&self) {
        while self.calls.load(Ordering::Relaxed) <= MAX_CALLS
            && self.now().saturating_sub(self.last.load(Ordering::Relaxed)) < self.patience
        {
            // Whoever else wants this processor, the server that is to answer perhaps, goes first.
            std::thread::yield_now();
            tokio::task::yield_now().await;
        }
        self.is_awake.store(false, Ordering::Relaxed);
    }
}

/// A call that is under way, from its making to its end.
pub(crate) struct UnderWay {
    began: u64,
}

impl UnderWay {
    pub(crate) fn begin(runtime: &Runtime) -> Self {
        let state = &*STATE;
        let began = state.now();
        let calls = state.calls.fetch_add(1, Ordering::Relaxed);
        state.last.store(began, Ordering::Relaxed);
        let is_fast = state.average.load(Ordering::Relaxed) < FAST.subsec_micros();
        if state.patience > 0 && is_fast && calls < MAX_CALLS && !state.is_awake.swap(true, Ordering::Relaxed)
        {
            runtime.spawn(state.stay_awake());
        }
        Self { began }
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        let state = &*STATE;
        let now = state.now();
        state.last.store(now, Ordering::Relaxed);
        // Approximately is enough: what gets in between is lost.
        if state.calls.fetch_sub(1, Ordering::Relaxed) <= MAX_CALLS {
            let took = u32::try_from(now.saturating_sub(self.began) / 1000).unwrap_or(u32::MAX);
            let took = took.min(MAX_WEIGHT * FAST.subsec_micros());
            let average = state.average.load(Ordering::Relaxed);
            state.average.store(average - average / MAX_WEIGHT + took / MAX_WEIGHT, Ordering::Relaxed);
        }
    }
}
