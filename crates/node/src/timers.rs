//! The timers: one thread that calls the engine's housekeeping, `hz` times a second.

use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use mtcache_engine::{Config, Engine};
use parking_lot::{Condvar, Mutex};

use crate::NodeError;
use crate::host::NodeHost;

/// Time between two samples of the rates that `INFO` shows.
const SAMPLE_PERIOD: Duration = Duration::from_millis(100);
/// Time between two rounds while there is more to expire than one round's budget.
const BUSY_PERIOD: Duration = Duration::from_millis(5);
/// Expired entries that one round removes per shard and database, so that no lock is held for long; multiplied by
/// `active-expire-effort`.
const EXPIRE_BUDGET: usize = 1000;

/// The housekeeping thread.
pub(crate) struct Timers {
    state: Arc<State>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

/// How often and how much, by the configuration.
#[derive(Debug, PartialEq, Eq)]
struct Rounds {
    period: Duration,
    budget: usize,
}

impl From<&Config> for Rounds {
    fn from(config: &Config) -> Self {
        let number = |name| u32::try_from(config.int(name)).unwrap_or(1).max(1);
        Self {
            period: Duration::from_secs(1) / number("hz"),
            budget: EXPIRE_BUDGET * number("active-expire-effort") as usize,
        }
    }
}

#[derive(Default)]
struct State {
    stopped: Mutex<bool>,
    wake: Condvar,
}

impl Timers {
    pub(crate) fn start(engine: &Arc<Engine>, host: Arc<NodeHost>) -> Result<Self, NodeError> {
        let state = Arc::new(State::default());
        let (in_thread, engine) = (Arc::clone(&state), Arc::downgrade(engine));
        let thread = std::thread::Builder::new()
            .name("mtcache-timers".to_owned())
            .spawn(move || {
                let mut pause = BUSY_PERIOD;
                let mut sampled = None::<Instant>;
                while in_thread.sleep(pause) {
                    let Some(engine) = engine.upgrade() else { return };
                    if sampled.is_none_or(|at| at.elapsed() >= SAMPLE_PERIOD) {
                        host.sample_memory(&engine);
                        engine.sample_rates();
                        sampled = Some(Instant::now());
                        host.tick(&engine);
                    }
                    engine.evict_clients();
                    engine.hold_memory();
                    let rounds = Rounds::from(&*engine.config());
                    pause = if engine.expire_cycle(rounds.budget) {
                        BUSY_PERIOD.min(rounds.period)
                    } else {
                        rounds.period
                    };
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_configuration_says_how_often_and_how_much() {
        let mut config = Config::default();
        let rounds = |config: &Config| (Rounds::from(config).period.as_millis(), Rounds::from(config).budget);
        assert_eq!(rounds(&config), (100, 1000));
        config.set("hz", "50").unwrap();
        config.set("active-expire-effort", "10").unwrap();
        assert_eq!(rounds(&config), (20, 10_000));
    }
}
