//! Single-flight: concurrent misses of one key share one load.
//!
//! A flight is a spawned task, so that a caller who is cancelled, the leader included, takes nothing from the others and the
//! work is kept. Invariants: at most one flight that newcomers can join per key; when a flight panics exactly one other takes over, whoever
//! waits; a set or an invalidation detaches the flight of its key before it returns, so that no later read joins a load
//! that began before it. Deliberately absent: what a flight does.

use std::collections::HashMap;
use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::time::Instant;

use futures_util::FutureExt;
use parking_lot::Mutex;
use tokio::sync::watch;

use crate::error::Error;
use crate::read::{Age, Source};

/// What a flight brings home. Bytes, so that every reader decodes a value of its own.
#[derive(Clone, Debug)]
pub(crate) struct Landed {
    pub(crate) bytes: Arc<[u8]>,
    pub(crate) source: Source,
    pub(crate) age: Age,
}

pub(crate) type LoadFuture = Pin<Box<dyn Future<Output = Result<Landed, Error>> + Send>>;

/// How a flight ended.
#[derive(Clone, Debug)]
enum Ending {
    Landed(Result<Landed, Error>),
    Panicked,
}

/// One load under way.
struct Flight {
    began: Instant,
    ending: watch::Receiver<Option<Ending>>,
    /// The flight that takes over if this one panics; made by whoever of its waiters is first.
    successor: OnceLock<Arc<Flight>>,
}

/// All loads under way in this process.
#[derive(Clone, Default)]
pub(crate) struct Flights {
    by_key: Arc<Mutex<HashMap<String, Arc<Flight>>>>,
}

/// How a caller came by its answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Part {
    Led,
    Joined,
}

impl Flights {
    /// Joins the flight for this key if it began late enough, or starts one with `load`. None if two flights in a row panicked.
    pub(crate) async fn fly(
        &self,
        key: &str,
        not_before: Option<Instant>,
        load: impl FnOnce() -> LoadFuture,
    ) -> (Part, Option<Result<Landed, Error>>) {
        let mut load = Some(load);
        let (mut part, flight) = {
            let mut by_key = self.by_key.lock();
            match by_key.get(key) {
                Some(flight) if not_before.is_none_or(|earliest| flight.began >= earliest) => {
                    (Part::Joined, Arc::clone(flight))
                }
                _ => {
                    let Some(load) = load.take() else { return (Part::Led, None) };
                    let flight = self.start(key, load());
                    by_key.insert(key.to_owned(), Arc::clone(&flight));
                    (Part::Led, flight)
                }
            }
        };
        if let Ending::Landed(landed) = flight.ending().await {
            return (part, Some(landed));
        }
        // It panicked. The leader is told; of the others, who have loaders of their own, the first to come here takes over.
        let Some(load) = load else { return (part, None) };
        let next = {
            let mut by_key = self.by_key.lock();
            let next = flight.successor.get_or_init(|| {
                part = Part::Led;
                self.start(key, load())
            });
            by_key.entry(key.to_owned()).or_insert_with(|| Arc::clone(next));
            Arc::clone(next)
        };
        match next.ending().await {
            Ending::Landed(landed) => (part, Some(landed)),
            Ending::Panicked => (part, None),
        }
    }

    /// Lets nobody join the present flight of this key any more. Those in it still get its answer.
    pub(crate) fn detach(&self, key: &str) {
        self.by_key.lock().remove(key);
    }

    /// Detaches every flight of a key with this prefix.
    pub(crate) fn detach_prefix(&self, prefix: &str) {
        self.by_key.lock().retain(|key, _| !key.starts_with(prefix));
    }

    fn start(&self, key: &str, load: LoadFuture) -> Arc<Flight> {
        let (sender, ending) = watch::channel(None);
        let flight = Arc::new(Flight { began: Instant::now(), ending, successor: OnceLock::new() });
        let weak = Arc::downgrade(&flight);
        let by_key = Arc::clone(&self.by_key);
        let key = key.to_owned();
        tokio::spawn(async move {
            let ending = match AssertUnwindSafe(load).catch_unwind().await {
                Ok(landed) => Ending::Landed(landed),
                Err(_) => Ending::Panicked,
            };
            // Out of the map first: whoever comes after the answer is known looks in the cache, not here.
            {
                let mut by_key = by_key.lock();
                if by_key.get(&key).is_some_and(|present| std::ptr::eq(Arc::as_ptr(present), weak.as_ptr())) {
                    by_key.remove(&key);
                }
            }
            sender.send_replace(Some(ending));
        });
        flight
    }
}

impl Flight {
    async fn ending(&self) -> Ending {
        let mut ending = self.ending.clone();
        match ending.wait_for(Option::is_some).await {
            Ok(ending) => ending.clone().unwrap_or(Ending::Panicked),
            // The task was dropped with its runtime.
            Err(_) => Ending::Panicked,
        }
    }
}
