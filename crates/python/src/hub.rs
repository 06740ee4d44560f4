//! How results come back to an event loop: in batches, with one wake-up for all that has gathered.
//!
//! A hub belongs to one loop. Threads of the runtime put what has ended into its inbox and ring a bell, a socket that the loop watches,
//! only if it has not been rung already; the loop takes everything at once. Invariants: no thread of the runtime ever waits for Python's lock;
//! a loop that is closed costs nothing but what waits for it. Deliberately absent: what a delivery means (`operation.rs`, `loading.rs`).

use std::cell::RefCell;
use std::io::{ErrorKind, Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use pyo3::exceptions::{PyKeyboardInterrupt, PySystemExit};
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;

use crate::begin::Outcome;
use crate::calling;
use crate::operation::Waiter;
use crate::runtime;

/// How long deliveries run before the loop gets to do something else. What is left is taken in its next turn.
const TURN: Duration = Duration::from_millis(10);
/// How many deliveries are made between two looks at the clock.
const BETWEEN_LOOKS: usize = 16;

/// Something for the loop's thread to do.
pub(crate) enum Delivery {
    /// A call has ended.
    Ended(Py<Waiter>, Outcome),
    /// Python code has to run there.
    Run(Box<dyn FnOnce(Python<'_>) -> PyResult<()> + Send>),
}

/// The deliveries for one loop.
pub(crate) struct Hub {
    event_loop: Py<PyAny>,
    inbox: Mutex<Vec<Delivery>>,
    has_rung: AtomicBool,
    /// Nobody takes anything any more.
    is_deaf: AtomicBool,
    bell: UnixStream,
    hammer: UnixStream,
    generation: u32,
}

thread_local! {
    /// The hubs of this thread's loops: one, but for programs that run several in turn.
    static HUBS: RefCell<Vec<Arc<Hub>>> = const { RefCell::new(Vec::new()) };
}

impl Hub {
    /// The hub of the loop that runs in this thread.
    pub(crate) fn of_running_loop(py: Python<'_>) -> PyResult<Arc<Self>> {
        static RUNNING: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
        let running = RUNNING
            .get_or_try_init(py, || py.import("asyncio")?.getattr("get_running_loop").map(Bound::unbind))?
            .bind(py)
            .call0()?;
        let known = HUBS.with_borrow(|hubs| hubs.iter().find(|hub| hub.is_of(&running)).map(Arc::clone));
        match known {
            Some(hub) => Ok(hub),
            None => Self::open(&running),
        }
    }

    fn is_of(&self, running: &Bound<'_, PyAny>) -> bool {
        self.event_loop.is(running) && self.generation == runtime::generation()
    }

    fn open(running: &Bound<'_, PyAny>) -> PyResult<Arc<Self>> {
        let py = running.py();
        let (bell, hammer) = UnixStream::pair()?;
        bell.set_nonblocking(true)?;
        hammer.set_nonblocking(true)?;
        let fd = bell.as_raw_fd();
        let hub = Arc::new(Self {
            event_loop: running.clone().unbind(),
            inbox: Mutex::new(Vec::new()),
            has_rung: AtomicBool::new(false),
            is_deaf: AtomicBool::new(false),
            bell,
            hammer,
            generation: runtime::generation(),
        });
        running.call_method1("add_reader", (fd, Taker { hub: Arc::clone(&hub) }))?;
        let kept = HUBS.take().into_iter().filter(|hub| {
            let of_this_process = hub.generation == runtime::generation();
            of_this_process && !hub.is_deaf.load(Ordering::Acquire) && !hub.is_closed(py)
        });
        let mut kept: Vec<_> = kept.collect();
        kept.push(Arc::clone(&hub));
        HUBS.set(kept);
        Ok(hub)
    }

    fn is_closed(&self, py: Python<'_>) -> bool {
        let closed = self.event_loop.bind(py).call_method0("is_closed");
        closed.and_then(|closed| closed.is_truthy()).unwrap_or(true)
    }

    /// The loop itself.
    pub(crate) fn event_loop(&self) -> &Py<PyAny> {
        &self.event_loop
    }

    /// Hands something over to the loop's thread. From any thread, at once.
    pub(crate) fn deliver(&self, delivery: Delivery) {
        {
            let mut inbox = self.inbox.lock();
            if self.is_deaf.load(Ordering::Acquire) {
                return;
            }
            inbox.push(delivery);
        }
        self.ring();
    }

    fn ring(&self) {
        if !self.has_rung.swap(true, Ordering::AcqRel) {
            // A full socket has been rung often enough. Without the other end there is nobody to tell.
            let _ = (&self.hammer).write(&[1]);
        }
    }

    /// Makes the deliveries that are there.
    fn take_all(&self, py: Python<'_>) -> PyResult<()> {
        let mut rings = [0; 16];
        while let Err(error) = (&self.bell).read(&mut rings) {
            if error.kind() != ErrorKind::Interrupted {
                break;
            }
        }
        // Before the inbox is emptied: what comes after that rings again.
        self.has_rung.store(false, Ordering::Release);
        let began = Instant::now();
        let mut batch = std::mem::take(&mut *self.inbox.lock()).into_iter();
        let mut made = 0;
        let mut result = Ok(());
        for delivery in batch.by_ref() {
            result = match delivery {
                Delivery::Ended(waiter, outcome) => waiter.get().end(py, &waiter, outcome),
                Delivery::Run(run) => run(py),
            };
            if let Err(error) = &result {
                if error.is_instance_of::<PySystemExit>(py) || error.is_instance_of::<PyKeyboardInterrupt>(py)
                {
                    break;
                }
                self.report(py, error);
                result = Ok(());
            }
            made += 1;
            if made % BETWEEN_LOOKS == 0 && began.elapsed() > TURN {
                break;
            }
        }
        let left: Vec<_> = batch.collect();
        if !left.is_empty() {
            self.inbox.lock().splice(0..0, left);
            self.ring();
        }
        result
    }

    /// What no awaiting task can be told is the loop's to report.
    fn report(&self, py: Python<'_>, error: &PyErr) {
        let context = pyo3::types::PyDict::new(py);
        let told = context
            .set_item("message", "a delivery of mtcache failed")
            .and_then(|()| context.set_item("exception", error.value(py)))
            .and_then(|()| {
                calling::call_method(self.event_loop.bind(py), "call_exception_handler", (&context,))
            });
        if told.is_err() {
            error.clone_ref(py).write_unraisable(py, None);
        }
    }
}

/// What the loop calls when the bell has been rung.
#[pyclass(frozen, name = "_Taker")]
struct Taker {
    hub: Arc<Hub>,
}

/// The loop lets go of it when it is closed: whoever waits for a delivery has to hear that it will not come.
impl Drop for Taker {
    fn drop(&mut self) {
        let left = {
            let mut inbox = self.hub.inbox.lock();
            self.hub.is_deaf.store(true, Ordering::Release);
            std::mem::take(&mut *inbox)
        };
        drop(left);
    }
}

#[pymethods]
impl Taker {
    fn __call__(&self, py: Python<'_>) -> PyResult<()> {
        self.hub.take_all(py)
    }
}
