//! Loaders that are Python's: how a load of the layer calls one and hears of its end.
//!
//! The load itself is a task of the runtime. It has the loader run where it belongs, in the loop of the caller who leads, or in a thread
//! when there is no loop, and waits without Python's lock. Invariant: a loader whose loop is closed, or whose task is cancelled, is a loader
//! that was lost: the next caller's takes over, as the layer has it for loaders that panic. Deliberately absent: which kind of
//! loader it is (`mtcache/_loading.py`).

use std::panic::resume_unwind;
use std::sync::Arc;

use parking_lot::Mutex;
use pyo3::prelude::*;
use tokio::sync::oneshot;

use crate::encode::encode;
use crate::errors::LoaderFailure;
use crate::hub::{Delivery, Hub};
use crate::value::Value;

type Loaded = Result<Vec<u8>, LoaderFailure>;

/// A loader with the place where it is to run.
pub(crate) enum Loader {
    /// In a loop: `start(done)` begins there.
    InLoop { hub: Arc<Hub>, start: Py<PyAny> },
    /// In a thread: `load()` gives the value.
    InThread { load: Py<PyAny> },
}

impl Loader {
    pub(crate) async fn run(self) -> Result<Value, LoaderFailure> {
        let loaded = match self {
            Self::InLoop { hub, start } => {
                let (sender, receiver) = oneshot::channel();
                let under_way = UnderWay { hub, task: Arc::default() };
                let task = Arc::clone(&under_way.task);
                under_way.hub.deliver(Delivery::Run(Box::new(move |py| {
                    let done = Py::new(py, Done { sender: Mutex::new(Some(sender)) })?;
                    *task.lock() = Some(start.bind(py).call1((done,))?.unbind());
                    Ok(())
                })));
                receiver.await.ok()
            }
            Self::InThread { load } => {
                tokio::task::spawn_blocking(move || in_thread(&load)).await.ok().flatten()
            }
        };
        match loaded {
            Some(loaded) => loaded.map(Value::new),
            // Nobody's fault but the caller's who left.
            None => resume_unwind(Box::new("the loader was lost with its caller")),
        }
    }
}

/// A loader in a loop. When nobody waits for it any more, because it took too long, its task is cancelled; one that has ended does not mind.
struct UnderWay {
    hub: Arc<Hub>,
    task: Arc<Mutex<Option<Py<PyAny>>>>,
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        let task = Arc::clone(&self.task);
        self.hub.deliver(Delivery::Run(Box::new(move |py| {
            let task = task.lock().take();
            task.map_or(Ok(()), |task| task.bind(py).call_method0("cancel").map(drop))
        })));
    }
}

fn in_thread(load: &Py<PyAny>) -> Option<Loaded> {
    // None while the interpreter ends.
    Python::try_attach(|py| {
        load.bind(py).call0().and_then(|value| encode(&value)).map_err(|error| LoaderFailure::new(py, error))
    })
}

/// How a loader in a loop tells of its end. Dropped without a word, the loader was lost.
#[pyclass(frozen, name = "_Done")]
struct Done {
    sender: Mutex<Option<oneshot::Sender<Loaded>>>,
}

impl Done {
    fn tell(&self, loaded: Loaded) {
        if let Some(sender) = self.sender.lock().take() {
            // The load may have run out of time.
            let _ = sender.send(loaded);
        }
    }
}

#[pymethods]
impl Done {
    fn value(&self, py: Python<'_>, value: &Bound<'_, PyAny>) {
        self.tell(encode(value).map_err(|error| LoaderFailure::new(py, error)));
    }

    fn failed(&self, py: Python<'_>, error: Bound<'_, PyAny>) {
        self.tell(Err(LoaderFailure::new(py, PyErr::from_value(error))));
    }

    fn lost(&self) {
        let sender = self.sender.lock().take();
        drop(sender);
    }
}
