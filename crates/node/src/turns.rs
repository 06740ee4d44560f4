//! One at a time: a snapshot or a rewrite of the journal, because there is one cut of the keyspace at a time.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use mtcache_persistence::Error;
use parking_lot::{Condvar, Mutex};

/// What walks over the whole keyspace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Work {
    /// A snapshot.
    Save,
    /// A rewrite of the journal.
    Rewrite,
}

/// Whose turn it is.
#[derive(Debug, Default)]
pub(crate) struct Turns {
    running: Mutex<Option<Work>>,
    is_over: Condvar,
}

impl Turns {
    /// Takes the turn, or says who has it.
    pub(crate) fn begin(&self, work: Work) -> Result<(), Work> {
        let mut running = self.running.lock();
        match *running {
            Some(other) => Err(other),
            None => {
                *running = Some(work);
                Ok(())
            }
        }
    }

    /// As [`begin`](Self::begin), but waits for other work.
    pub(crate) fn begin_after_others(&self, work: Work, give_up: impl Fn() -> bool) -> Result<(), Work> {
        /// Between two looks whether to give up. Default: 10 ms.
        const LOOK_PERIOD: Duration = Duration::from_millis(10);
        let mut running = self.running.lock();
        while running.is_some_and(|other| other != work) && !give_up() {
            self.is_over.wait_for(&mut running, LOOK_PERIOD);
        }
        if running.is_some() {
            return Err(work);
        }
        *running = Some(work);
        Ok(())
    }

    /// Does work whose turn has been taken. A panic is an error like any other, so that the turn is given back and the next work can begin.
    pub(crate) fn caught<T>(work: impl FnOnce() -> Result<T, Error>) -> Result<T, Error> {
        catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|_| Err(Error::panicked()))
    }

    /// Gives the turn back.
    pub(crate) fn end(&self) {
        *self.running.lock() = None;
        self.is_over.notify_all();
    }

    pub(crate) fn running(&self) -> Option<Work> {
        *self.running.lock()
    }
}
