//! Loaders that are Python's: how a load of the layer calls one and hears of its end.
//!
//! The load itself is a task of the runtime. It has the loader run where it belongs, in the loop of the caller who leads, or in a thread
//! when there is no loop, and waits without Python's lock. Invariant: a loader whose loop is closed, or whose task is cancelled, is a loader
//! that was lost: the next caller's takes over, as the layer has it for loaders that panic. Deliberately absent: which kind of
//! loader it is (`mtcache/_loading.py`).

use std::panic::resume_unwind;
use std::sync::Arc;

use mtcache::KeyParts;
use mtcache::cache::{Codec, Previous};
use parking_lot::Mutex;
use pyo3::IntoPyObjectExt;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyList, PyMapping, PyTuple};
use tokio::sync::oneshot;

use crate::arguments::{parts, span};
use crate::calling;
use crate::errors::LoaderFailure;
use crate::hub::{Delivery, Hub};
use crate::region::Objects;
use crate::runtime::place_for_loader;
use crate::value::Value;

/// A name of an entry, with the object that the caller gave for it.
#[derive(Clone)]
pub(crate) struct Id(Arc<(Vec<String>, Py<PyAny>)>);

impl Id {
    pub(crate) fn new(object: Bound<'_, PyAny>) -> PyResult<Self> {
        Ok(Self(Arc::new((parts(&object)?, object.unbind()))))
    }
}

impl KeyParts for Id {
    fn only_part(&self) -> Option<&str> {
        self.0.0.only_part()
    }

    fn each_part(&self, part: &mut dyn FnMut(&str)) {
        self.0.0.each_part(part);
    }
}

/// What a loader is called with, and what its answer is made into.
enum Asked {
    /// Nothing; one value.
    One,
    /// A name; one value.
    Named(Id),
    /// What was known before, as its value and what the source gave with it; a `mtcache.Loaded`.
    Known(Option<(Value, Option<Vec<u8>>)>, Objects),
    /// A list of names; a mapping from names to values.
    Many(Vec<Id>),
}

/// What a loader gave.
pub(crate) enum Loaded {
    One(Value),
    Many(Vec<(Vec<String>, Value)>),
    More(mtcache::cache::Loaded<Value>),
}

impl Asked {
    fn arguments<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyAny>>> {
        match self {
            Self::One => Ok(None),
            Self::Named(id) => Ok(Some(id.0.1.bind(py).clone())),
            Self::Known(None, _) => Ok(Some(py.None().into_bound(py))),
            Self::Known(Some((value, validator)), objects) => {
                let validator = validator.as_ref().map(|validator| PyBytes::new(py, validator));
                Ok(Some((objects.of(py, value)?, validator).into_bound_py_any(py)?))
            }
            Self::Many(ids) => {
                let ids = ids.iter().map(|id| id.0.1.bind(py));
                Ok(Some(PyList::new(py, ids.collect::<Vec<_>>())?.into_any()))
            }
        }
    }

    fn answer(&self, answer: &Bound<'_, PyAny>, codec: Option<Codec>) -> PyResult<Loaded> {
        match self {
            Self::One | Self::Named(_) => return Value::of(answer, codec).map(Loaded::One),
            Self::Known(..) => return more(answer, codec).map(Loaded::More),
            Self::Many(_) => {}
        }
        let mut values = Vec::new();
        for item in answer.cast::<PyMapping>()?.items()?.iter() {
            let (id, value): (Bound<'_, PyAny>, Bound<'_, PyAny>) = item.extract()?;
            values.push((parts(&id)?, Value::of(&value, codec)?));
        }
        Ok(Loaded::Many(values))
    }
}

/// What a loader says that is told what was known before: whether that still holds, the value, how long it lives, whether it is kept at
/// all, and what to ask with later.
fn more(answer: &Bound<'_, PyAny>, codec: Option<Codec>) -> PyResult<mtcache::cache::Loaded<Value>> {
    type Said<'py> = (bool, Bound<'py, PyAny>, Option<Bound<'py, PyAny>>, bool, Option<Vec<u8>>);
    let (is_modified, value, ttl, is_kept, validator): Said<'_> = answer.extract()?;
    let mut loaded = if is_modified {
        mtcache::cache::Loaded::new(Value::of(&value, codec)?)
    } else {
        mtcache::cache::Loaded::not_modified()
    };
    if let Some(ttl) = ttl {
        loaded = loaded.ttl(span(&ttl)?);
    }
    if !is_kept {
        loaded = loaded.not_kept();
    }
    Ok(match validator {
        Some(validator) => loaded.validator(validator),
        None => loaded,
    })
}

type Ended = Result<Loaded, LoaderFailure>;

/// A loader with the place where it is to run. Called once or several times.
#[derive(Clone)]
pub(crate) struct Loader(Arc<Inside>);

struct Inside {
    place: Place,
    codec: Option<Codec>,
}

enum Place {
    /// In a loop: `start(done, *arguments)` begins there.
    Loop { hub: Arc<Hub>, start: Py<PyAny> },
    /// In a thread: `load(*arguments)` gives the value.
    Thread { load: Py<PyAny> },
}

impl Loader {
    /// Runs in the loop of this thread.
    pub(crate) fn in_loop(py: Python<'_>, start: Py<PyAny>, codec: Option<Codec>) -> PyResult<Self> {
        let place = Place::Loop { hub: Hub::of_running_loop(py)?, start };
        Ok(Self(Arc::new(Inside { place, codec })))
    }

    /// Runs in a thread.
    pub(crate) fn in_thread(load: Py<PyAny>, codec: Option<Codec>) -> Self {
        Self(Arc::new(Inside { place: Place::Thread { load }, codec }))
    }

    /// One value.
    pub(crate) async fn one(self) -> Result<Value, LoaderFailure> {
        match self.run(Asked::One).await? {
            Loaded::One(value) => Ok(value),
            _ => unreachable!("one was asked for"),
        }
    }

    /// The value of this name.
    pub(crate) async fn named(self, id: Id) -> Result<Value, LoaderFailure> {
        match self.run(Asked::Named(id)).await? {
            Loaded::One(value) => Ok(value),
            _ => unreachable!("one was asked for"),
        }
    }

    /// A value and more, with what was known before.
    pub(crate) async fn reloaded(
        self,
        previous: Option<Previous<Value>>,
        objects: Objects,
    ) -> Result<mtcache::cache::Loaded<Value>, LoaderFailure> {
        let known = previous.map(|previous| (previous.value, previous.validator));
        match self.run(Asked::Known(known, objects)).await? {
            Loaded::More(more) => Ok(more),
            _ => unreachable!("more was asked for"),
        }
    }

    /// The values of these names, as far as the source has them.
    pub(crate) async fn many(self, ids: Vec<Id>) -> Result<Vec<(Vec<String>, Value)>, LoaderFailure> {
        match self.run(Asked::Many(ids)).await? {
            Loaded::Many(values) => Ok(values),
            _ => unreachable!("several were asked for"),
        }
    }

    async fn run(self, asked: Asked) -> Ended {
        let ended = match &self.0.place {
            Place::Loop { hub, .. } => {
                let (sender, receiver) = oneshot::channel();
                let under_way = UnderWay { hub: Arc::clone(hub), task: Arc::default() };
                let (task, loader) = (Arc::clone(&under_way.task), self.clone());
                under_way.hub.deliver(Delivery::Run(Box::new(move |py| {
                    *task.lock() = Some(loader.start(py, asked, sender)?);
                    Ok(())
                })));
                receiver.await.ok()
            }
            Place::Thread { .. } => {
                let (loader, place) = (self.clone(), place_for_loader().await);
                let called = tokio::task::spawn_blocking(move || {
                    // Until the loader has ended, whether or not anybody waits for it.
                    let _place = place;
                    loader.call(&asked)
                });
                called.await.ok().flatten()
            }
        };
        match ended {
            Some(ended) => ended,
            // Nobody's fault but the caller's who left.
            None => resume_unwind(Box::new("the loader was lost with its caller")),
        }
    }

    fn start(&self, py: Python<'_>, asked: Asked, sender: oneshot::Sender<Ended>) -> PyResult<Py<PyAny>> {
        let Place::Loop { start, .. } = &self.0.place else { unreachable!("it runs in a loop") };
        let arguments = asked.arguments(py)?;
        let done = Done { sender: Mutex::new(Some(sender)), asked, codec: self.0.codec };
        let done = Py::new(py, done)?.into_any();
        let arguments = std::iter::once(done.into_bound(py)).chain(arguments);
        calling::call(start.bind(py), PyTuple::new(py, arguments.collect::<Vec<_>>())?).map(Bound::unbind)
    }

    fn call(&self, asked: &Asked) -> Option<Ended> {
        let Place::Thread { load } = &self.0.place else { unreachable!("it runs in a thread") };
        let loaded = |py: Python<'_>| {
            let arguments = PyTuple::new(py, asked.arguments(py)?.into_iter().collect::<Vec<_>>())?;
            asked.answer(&calling::call(load.bind(py), arguments)?, self.0.codec)
        };
        // None while the interpreter ends.
        Python::try_attach(|py| loaded(py).map_err(|error| LoaderFailure::new(py, error)))
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

/// How a loader in a loop tells of its end. Dropped without a word, the loader was lost.
#[pyclass(frozen, name = "_Done")]
struct Done {
    sender: Mutex<Option<oneshot::Sender<Ended>>>,
    asked: Asked,
    codec: Option<Codec>,
}

impl Done {
    fn tell(&self, ended: Ended) {
        if let Some(sender) = self.sender.lock().take() {
            // The load may have run out of time.
            let _ = sender.send(ended);
        }
    }
}

#[pymethods]
impl Done {
    fn value(&self, py: Python<'_>, value: &Bound<'_, PyAny>) {
        self.tell(self.asked.answer(value, self.codec).map_err(|error| LoaderFailure::new(py, error)));
    }

    fn failed(&self, py: Python<'_>, error: Bound<'_, PyAny>) {
        self.tell(Err(LoaderFailure::new(py, PyErr::from_value(error))));
    }

    fn lost(&self) {
        let sender = self.sender.lock().take();
        drop(sender);
    }
}
