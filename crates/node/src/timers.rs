//! The timers: one thread that calls the engine's housekeeping ten times a second.

use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use mtcache_engine::Engine;
use parking_lot::{Condvar, Mutex};

use crate::NodeError;

/// Time between two rounds, as Redis' default `hz 10`.
const PERIOD: Duration = Duration::from_millis(100);
/// Time between two rounds while there is more to expire than one round's budget.
const BUSY_PERIOD: Duration = Duration::from_millis(5);
/// Expired entries that one round removes per shard and database, so that no lock is held for long.
const EXPIRE_BUDGET: usize = 1000;

/// The housekeeping thread.
pub(crate) struct Timers {
    state: Arc<State>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

#[derive(Default)]
struct State {
    stopped: Mutex<bool>,
    wake: Condvar,
}

impl Timers {
    pub(crate) fn start(engine: &Arc<Engine>) -> Result<Self, NodeError> {
        let state = Arc::new(State::default());
        let (in_thread, engine) = (Arc::clone(&state), Arc::downgrade(engine));
        let thread = std::thread::Builder::new()
            .name("mtcache-timers".to_owned())
            .spawn(move || {
                let mut pause = PERIOD;
                while in_thread.sleep(pause) {
                    let Some(engine) = engine.upgrade() else { return };
                    engine.sample_rates();
                    pause = if engine.expire_cycle(EXPIRE_BUDGET) { BUSY_PERIOD } else { PERIOD };
                }
            })
            .map_err(|error| NodeError::new(format!("cannot start the timer thread: {error}")))?;
        Ok(Self { state, thread: Mutex::new(Some(thread)) })
    }

    /// Ends the thread and waits for it.
    pub(crate) fn stop(&self) {
        *self.state.stopped.lock() = true;
        self.state.wake.notify_all();
        if let Some(thread) = self.thread.lock().take()
            && thread.join().is_err()
        {
            tracing::error!("the timer thread had panicked");
        }
    }
}

impl Drop for Timers {
    fn drop(&mut self) {
        self.stop();
    }
}

impl State {
    /// Sleeps; false when it is time to end.
    fn sleep(&self, pause: Duration) -> bool {
        let mut stopped = self.stopped.lock();
        if !*stopped {
            self.wake.wait_for(&mut stopped, pause);
        }
        !*stopped
    }
}
