//! A call under way, as something to `await`.
//!
//! An [`Operation`] behaves as a coroutine does: nothing happens before it is awaited (or made a task), and one that never is warns. A call
//! that ends at once, from this process's memory or an engine in it, never goes through the loop. Otherwise the task waits on a [`Waiter`],
//! which is to asyncio what a future is, without a loop's callback for each. Invariants: cancelling an awaiting task cancels that wait and nothing
//! else, the call goes on to its end unless it has been made to end with the wait; the value is made in the awaiting task's own turn.

use std::cell::Cell;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use pyo3::IntoPyObjectExt;
use pyo3::exceptions::{PyBaseException, PyRuntimeError, PyRuntimeWarning, PyStopIteration};
use pyo3::gc::{PyTraverseError, PyVisit};
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyDict, PyTuple};
use tokio::task::AbortHandle;

use crate::begin::{Begin, Call, Outcome, Polled};
use crate::calling;
use crate::hub::{Delivery, Hub};
use crate::runtime::{Owned, runtime};
use crate::{errors, spin};

/// How long a thread that waits for a call goes without a look at signals.
const SIGNAL_PERIOD: Duration = Duration::from_millis(50);

enum State {
    /// Ended before it was awaited.
    Ready(PyResult<Py<PyAny>>),
    Fresh(Owned<Call>),
    Waiting(Py<Waiter>),
    Over,
}

/// A call that can be awaited once.
#[pyclass(frozen, module = "mtcache")]
pub(crate) struct Operation {
    state: Mutex<State>,
    begin: Begin,
    /// Whether the call ends when the wait for it is cancelled.
    ends_with_its_task: bool,
}

impl Operation {
    fn in_state(state: State) -> Self {
        Self { state: Mutex::new(state), begin: Begin::Here, ends_with_its_task: false }
    }

    /// A call whose result is made by `convert` once the future has ended.
    pub(crate) fn new<T, E, F>(
        future: F,
        convert: impl FnOnce(Python<'_>, T) -> PyResult<Py<PyAny>> + Send + 'static,
    ) -> Self
    where
        T: Send + 'static,
        E: Raised,
        F: Future<Output = Result<T, E>> + Send + 'static,
    {
        let call: Call = Box::pin(async move {
            let result = future.await;
            let outcome: Outcome = Box::new(move |py| match result {
                Ok(value) => convert(py, value),
                Err(error) => Err(error.raised(py)),
            });
            outcome
        });
        Self::in_state(State::Fresh(Owned::new(call)))
    }

    /// A call whose result is a Python object as it is.
    pub(crate) fn of<T, E, F>(future: F) -> Self
    where
        T: for<'py> IntoPyObject<'py> + Send + 'static,
        E: Raised,
        F: Future<Output = Result<T, E>> + Send + 'static,
    {
        Self::new(future, |py, value| value.into_py_any(py))
    }

    /// A call that has no result.
    pub(crate) fn done<E: Raised>(future: impl Future<Output = Result<(), E>> + Send + 'static) -> Self {
        Self::new(future, |py, ()| Ok(py.None()))
    }

    /// The same call, begun elsewhere than [`Begin::Here`].
    pub(crate) fn begins(mut self, begin: Begin) -> Self {
        self.begin = begin;
        self
    }

    /// The same call, which ends when its wait is cancelled: for what is long, or waits for something to happen.
    pub(crate) fn ends_with_its_task(mut self) -> Self {
        self.ends_with_its_task = true;
        self
    }

    /// A call that has ended.
    pub(crate) fn ready(result: PyResult<Py<PyAny>>) -> Self {
        Self::in_state(State::Ready(result))
    }

    /// The next step of the awaiting task: what it waits for, or the end.
    fn step(&self, py: Python<'_>) -> PyResult<Py<PyAny>> {
        let state = std::mem::replace(&mut *self.state.lock(), State::Over);
        match state {
            State::Ready(result) => Err(stop(py, result)),
            State::Fresh(call) => match self.begin.step(py, call.take()?)? {
                Polled::Ended(outcome) => Err(stop(py, outcome(py))),
                Polled::Pending(call) if WAITS_HERE.get() => Err(stop(py, wait_for(py, call))),
                Polled::Pending(call) => {
                    let hub = Hub::of_running_loop(py)?;
                    let waiter = Py::new(py, Waiter::new(Arc::clone(&hub)))?;
                    let delivered = Delivered { to: Some((hub, waiter.clone_ref(py))) };
                    let runtime = runtime(py)?;
                    let under_way = spin::UnderWay::begin(runtime);
                    let task = runtime.spawn(async move {
                        let outcome = call.await;
                        drop(under_way);
                        delivered.end(outcome);
                    });
                    if self.ends_with_its_task {
                        waiter.get().inside.lock().call = Some(task.abort_handle());
                    }
                    let waits_for = waiter.clone_ref(py).into_any();
                    *self.state.lock() = State::Waiting(waiter);
                    Ok(waits_for)
                }
            },
            State::Waiting(waiter) => match waiter.get().take() {
                Some(outcome) => Err(stop(py, outcome(py))),
                None => {
                    // Somebody resumed it too early, which a task never does.
                    let waits_for = waiter.clone_ref(py).into_any();
                    *self.state.lock() = State::Waiting(waiter);
                    Ok(waits_for)
                }
            },
            State::Over => Err(PyRuntimeError::new_err("cannot reuse already awaited coroutine")),
        }
    }
}

#[pymethods]
impl Operation {
    fn __await__(slf: Py<Self>) -> Py<Self> {
        slf
    }

    fn __iter__(slf: Py<Self>) -> Py<Self> {
        slf
    }

    fn __next__(&self, py: Python<'_>) -> PyResult<Py<PyAny>> {
        self.step(py)
    }

    fn send(&self, py: Python<'_>, _value: &Bound<'_, PyAny>) -> PyResult<Py<PyAny>> {
        self.step(py)
    }

    #[pyo3(signature = (kind, value=None, traceback=None))]
    fn throw(
        &self,
        kind: &Bound<'_, PyAny>,
        value: Option<&Bound<'_, PyAny>>,
        traceback: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<Py<PyAny>> {
        let _ = traceback;
        self.close();
        let exception = match (kind.cast::<PyBaseException>(), value) {
            (Ok(exception), _) => exception.clone().into_any(),
            (Err(_), Some(value)) if value.is_instance_of::<PyBaseException>() => value.clone(),
            (Err(_), Some(value)) if !value.is_none() => kind.call1((value,))?,
            (Err(_), _) => kind.call0()?,
        };
        Err(PyErr::from_value(exception))
    }

    fn close(&self) {
        // Taken apart without the lock: that may run anybody's code.
        let before = std::mem::replace(&mut *self.state.lock(), State::Over);
        drop(before);
    }

    /// Waits for the result in this thread, without a loop. Python's lock is released meanwhile.
    fn wait(&self, py: Python<'_>) -> PyResult<Py<PyAny>> {
        let state = std::mem::replace(&mut *self.state.lock(), State::Over);
        match state {
            State::Ready(result) => result,
            State::Fresh(call) => match self.begin.step(py, call.take()?)? {
                Polled::Ended(outcome) => outcome(py),
                Polled::Pending(call) => wait_for(py, call),
            },
            other => {
                *self.state.lock() = other;
                Err(PyRuntimeError::new_err("this call is being awaited already"))
            }
        }
    }

    #[getter]
    #[allow(clippy::unused_self, reason = "a property of objects to Python")]
    fn __name__(&self) -> &'static str {
        "Operation"
    }

    #[getter]
    #[allow(clippy::unused_self, reason = "a property of objects to Python")]
    fn __qualname__(&self) -> &'static str {
        "mtcache.Operation"
    }

    #[getter]
    #[allow(clippy::unused_self, reason = "a property of objects to Python")]
    fn cr_running(&self) -> bool {
        false
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        match self.state.try_lock().as_deref() {
            Some(State::Waiting(waiter)) => visit.call(waiter),
            Some(State::Ready(Ok(value))) => visit.call(value),
            _ => Ok(()),
        }
    }

    fn __clear__(&self) {
        self.close();
    }
}

impl Drop for Operation {
    fn drop(&mut self) {
        if !matches!(self.state.get_mut(), State::Fresh(call) if call.is_ours()) {
            return;
        }
        Python::try_attach(|py| {
            // An object may end while an exception is on its way.
            let under_way = PyErr::take(py);
            let category = py.get_type::<PyRuntimeWarning>();
            if let Err(error) = PyErr::warn(py, &category, c"a call of mtcache was never awaited", 1) {
                error.write_unraisable(py, None);
            }
            if let Some(error) = under_way {
                error.restore(py);
            }
        });
    }
}

/// Waits in this thread, with looks at signals, so that Ctrl-C ends it.
fn wait_for(py: Python<'_>, mut call: Call) -> PyResult<Py<PyAny>> {
    let runtime = runtime(py)?;
    let _under_way = spin::UnderWay::begin(runtime);
    loop {
        let ended = py
            .detach(|| runtime.block_on(async { tokio::time::timeout(SIGNAL_PERIOD, &mut call).await.ok() }));
        if let Some(outcome) = ended {
            return outcome(py);
        }
        py.check_signals()?;
    }
}

thread_local! {
    /// Whether calls that are awaited wait in this thread, which has no loop.
    static WAITS_HERE: Cell<bool> = const { Cell::new(false) };
}

/// Whether this thread runs a coroutine without a loop.
pub(crate) fn waits_here() -> bool {
    WAITS_HERE.get()
}

/// The same, for Python.
#[pyfunction]
pub(crate) fn _waits_here() -> bool {
    waits_here()
}

/// Runs a coroutine to its end without a loop. It must await nothing but calls of this module.
#[pyfunction]
#[pyo3(name = "_send_waiting")]
pub(crate) fn send_waiting(py: Python<'_>, coroutine: &Bound<'_, PyAny>) -> PyResult<Py<PyAny>> {
    let before = WAITS_HERE.replace(true);
    let sent = calling::call_method(coroutine, "send", (py.None(),));
    WAITS_HERE.set(before);
    sent.map(Bound::unbind)
}

/// How a coroutine says its result.
fn stop(py: Python<'_>, result: PyResult<Py<PyAny>>) -> PyErr {
    match result {
        // A tuple would be taken for the arguments, and an exception for the one to raise.
        Ok(value)
            if value.bind(py).is_instance_of::<PyTuple>()
                || value.bind(py).is_instance_of::<PyBaseException>() =>
        {
            PyStopIteration::new_err((value,))
        }
        Ok(value) => PyStopIteration::new_err(value),
        Err(error) => error,
    }
}

/// Sees to it that a waiter hears of the end of its call even if the call's task ends without one.
struct Delivered {
    to: Option<(Arc<Hub>, Py<Waiter>)>,
}

impl Delivered {
    fn end(mut self, outcome: Outcome) {
        if let Some((hub, waiter)) = self.to.take() {
            hub.deliver(Delivery::Ended(waiter, outcome));
        }
    }
}

impl Drop for Delivered {
    fn drop(&mut self) {
        if let Some((hub, waiter)) = self.to.take() {
            let lost: Outcome = Box::new(|_| {
                Err(errors::internal("the call ended without a result; this is a fault of mtcache"))
            });
            hub.deliver(Delivery::Ended(waiter, lost));
        }
    }
}

/// An error that becomes an exception.
pub(crate) trait Raised: Send + 'static {
    fn raised(self, py: Python<'_>) -> PyErr;
}

impl Raised for mtcache::Error {
    fn raised(self, py: Python<'_>) -> PyErr {
        errors::raise(py, &self)
    }
}

impl Raised for mtcache::trading::Error {
    fn raised(self, py: Python<'_>) -> PyErr {
        errors::raise_trading(py, &self)
    }
}

impl Raised for PyErr {
    fn raised(self, _: Python<'_>) -> PyErr {
        self
    }
}

/// What a task waits for. To asyncio it is a future of its loop.
#[pyclass(frozen, module = "mtcache")]
pub(crate) struct Waiter {
    hub: Arc<Hub>,
    inside: Mutex<Inside>,
}

struct Inside {
    is_blocking: bool,
    outcome: Option<Outcome>,
    cancelled: Option<Py<PyAny>>,
    /// The call, if it ends with the wait.
    call: Option<AbortHandle>,
    /// The one callback that a task adds, and the context to run it in.
    callback: Option<(Py<PyAny>, Option<Py<PyAny>>)>,
}

impl Waiter {
    fn new(hub: Arc<Hub>) -> Self {
        let inside = Inside { is_blocking: true, outcome: None, cancelled: None, call: None, callback: None };
        Self { hub, inside: Mutex::new(inside) }
    }

    fn take(&self) -> Option<Outcome> {
        self.inside.lock().outcome.take()
    }

    /// The call has ended: the task goes on at once. This is the loop's own turn, so that nothing is gained by a callback more.
    pub(crate) fn end(&self, py: Python<'_>, this: &Py<Self>, outcome: Outcome) -> PyResult<()> {
        let callback = {
            let mut inside = self.inside.lock();
            if inside.cancelled.is_some() {
                return Ok(());
            }
            inside.outcome = Some(outcome);
            inside.callback.take()
        };
        let Some((callback, context)) = callback else { return Ok(()) };
        match context {
            Some(context) => calling::call_method(context.bind(py), "run", (callback, this)).map(drop),
            None => calling::call(callback.bind(py), (this,)).map(drop),
        }
    }
}

#[pymethods]
impl Waiter {
    #[getter(_asyncio_future_blocking)]
    fn is_blocking(&self) -> bool {
        self.inside.lock().is_blocking
    }

    #[setter(_asyncio_future_blocking)]
    fn set_blocking(&self, blocking: bool) {
        self.inside.lock().is_blocking = blocking;
    }

    fn get_loop(&self, py: Python<'_>) -> Py<PyAny> {
        self.hub.event_loop().clone_ref(py)
    }

    #[pyo3(signature = (callback, *, context=None))]
    fn add_done_callback(&self, callback: Py<PyAny>, context: Option<Py<PyAny>>) -> PyResult<()> {
        let mut inside = self.inside.lock();
        if inside.callback.is_some() {
            return Err(PyRuntimeError::new_err("a call of mtcache is awaited by one task"));
        }
        inside.callback = Some((callback, context));
        Ok(())
    }

    fn remove_done_callback(&self, _callback: &Bound<'_, PyAny>) -> usize {
        usize::from(self.inside.lock().callback.take().is_some())
    }

    /// The waiting ends; the call does not.
    #[pyo3(signature = (msg=None))]
    fn cancel(slf: &Bound<'_, Self>, msg: Option<Py<PyAny>>) -> PyResult<bool> {
        let py = slf.py();
        let callback = {
            let mut inside = slf.get().inside.lock();
            if inside.outcome.is_some() || inside.cancelled.is_some() {
                return Ok(false);
            }
            inside.cancelled = Some(msg.unwrap_or_else(|| py.None()));
            if let Some(call) = inside.call.take() {
                call.abort();
            }
            inside.callback.take()
        };
        if let Some((callback, context)) = callback {
            let options = PyDict::new(py);
            options.set_item("context", context)?;
            slf.get().hub.event_loop().bind(py).call_method("call_soon", (callback, slf), Some(&options))?;
        }
        Ok(true)
    }

    fn cancelled(&self) -> bool {
        self.inside.lock().cancelled.is_some()
    }

    fn done(&self) -> bool {
        let inside = self.inside.lock();
        inside.outcome.is_some() || inside.cancelled.is_some()
    }

    /// Asked by the task before it goes on: only a cancellation is an answer here, the value comes from the operation.
    fn result(&self, py: Python<'_>) -> PyResult<()> {
        static CANCELLED: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
        let message = match &self.inside.lock().cancelled {
            Some(message) => message.clone_ref(py),
            None => return Ok(()),
        };
        let class = CANCELLED
            .get_or_try_init(py, || py.import("asyncio")?.getattr("CancelledError").map(Bound::unbind))?
            .bind(py);
        let exception = if message.is_none(py) { class.call0()? } else { class.call1((message,))? };
        Err(PyErr::from_value(exception))
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        if let Some(inside) = self.inside.try_lock()
            && let Some((callback, context)) = &inside.callback
        {
            visit.call(callback)?;
            visit.call(context)?;
        }
        Ok(())
    }

    fn __clear__(&self) {
        let callback = self.inside.lock().callback.take();
        drop(callback);
    }
}
