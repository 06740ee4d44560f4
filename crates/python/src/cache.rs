//! The cache as Python holds it: keys, counters, scripts' absence, and the way to regions and views.
//!
//! Invariant: every call is an [`Operation`]; nothing here waits. Deliberately absent: defaults and names that only Python needs
//! (`mtcache/cache.py`).

use std::sync::Arc;

use mtcache::cache::codec::Stored;
use mtcache::cache::{Reply, TimeLeft, TrackingState};
use mtcache::{Cache, CacheBuilder};
use parking_lot::{Mutex, RwLock};
use pyo3::IntoPyObjectExt;
use pyo3::exceptions::PyTypeError;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyList};

use crate::arguments::{self, ttl};
use crate::begin::Begin;
use crate::calling;
use crate::decode::decode;
use crate::encode::encode;
use crate::errors;
use crate::large::{made_of, object_of};
use crate::operation::Operation;
use crate::runtime::Owned;
use crate::stats;
use crate::trading::Known;

/// What is closed with its cache.
pub(crate) struct Closing<T>(Owned<Arc<RwLock<Option<T>>>>);

impl<T: Clone + Send + Sync + 'static> Closing<T> {
    pub(crate) fn get(&self, py: Python<'_>) -> PyResult<T> {
        self.open()?.ok_or_else(|| errors::closed(py))
    }

    /// None once it has been closed.
    pub(crate) fn open(&self) -> PyResult<Option<T>> {
        Ok(self.0.get()?.read().clone())
    }

    /// Without a clone, for what ends at once.
    pub(crate) fn with<R>(&self, py: Python<'_>, call: impl FnOnce(&T) -> PyResult<R>) -> PyResult<R> {
        match &*self.0.get()?.read() {
            Some(inside) => call(inside),
            None => Err(errors::closed(py)),
        }
    }
}

/// All that ends with a cache.
#[derive(Clone, Default)]
pub(crate) struct Parts(Arc<Mutex<Vec<std::sync::Weak<dyn Close>>>>);

impl Parts {
    pub(crate) fn add<T: Send + Sync + 'static>(&self, part: T) -> Closing<T> {
        let part = Arc::new(RwLock::new(Some(part)));
        let weak: std::sync::Weak<dyn Close> = Arc::<RwLock<Option<T>>>::downgrade(&part);
        let mut parts = self.0.lock();
        parts.retain(|part| part.strong_count() > 0);
        parts.push(weak);
        Closing(Owned::new(part))
    }

    fn close(&self) {
        let parts = std::mem::take(&mut *self.0.lock());
        for part in parts.iter().filter_map(std::sync::Weak::upgrade) {
            part.close();
        }
    }
}

trait Close: Send + Sync {
    fn close(&self);
}

impl<T: Send + Sync> Close for RwLock<Option<T>> {
    fn close(&self) {
        let closed = self.write().take();
        drop(closed);
    }
}

/// A cache. Python's `mtcache.Cache` is made of it.
#[pyclass(frozen, subclass, module = "mtcache", name = "_Core")]
pub(crate) struct Core {
    cache: Closing<Cache>,
    parts: Parts,
    known: Known,
}

impl Core {
    pub(crate) fn known(&self) -> &Known {
        &self.known
    }

    pub(crate) fn cache(&self, py: Python<'_>) -> PyResult<Cache> {
        self.cache.get(py)
    }

    /// Where to put what ends with the cache.
    pub(crate) fn parts(&self) -> Parts {
        self.parts.clone()
    }

    /// Something made of the cache that ends with it.
    pub(crate) fn part<T: Send + Sync + 'static>(&self, part: T) -> Closing<T> {
        self.parts.add(part)
    }
}

/// Opens a cache.
#[pyfunction]
#[pyo3(name = "_open")]
pub(crate) fn open(kind: Py<PyAny>, url: String, options: &Bound<'_, PyDict>) -> PyResult<Operation> {
    let mut builder = Cache::builder(url);
    for (name, value) in options {
        builder = option(builder, &name.extract::<String>()?, &value)?;
    }
    let opening = Operation::new(builder.open(), move |py, cache| {
        let cache = Closing(Owned::new(Arc::new(RwLock::new(Some(cache)))));
        let core = Core { cache, parts: Parts::default(), known: Known::default() };
        calling::call(kind.bind(py), (Opened { inside: Mutex::new(Some(core)) },)).map(Bound::unbind)
    });
    Ok(opening.begins(Begin::Aside))
}

fn option(builder: CacheBuilder, name: &str, value: &Bound<'_, PyAny>) -> PyResult<CacheBuilder> {
    let period = || arguments::ttl(value);
    Ok(match name {
        "prefix" => builder.prefix(value.extract::<String>()?),
        "connect_timeout" => builder.connect_timeout(period()?),
        "response_timeout" => builder.response_timeout(period()?),
        "backoff" => {
            let (first, longest): (Bound<'_, PyAny>, Bound<'_, PyAny>) = value.extract()?;
            builder.backoff(arguments::ttl(&first)?, arguments::ttl(&longest)?)
        }
        "breaker" => {
            let (silences, first, longest): (u32, Bound<'_, PyAny>, Bound<'_, PyAny>) = value.extract()?;
            builder.breaker(silences, arguments::ttl(&first)?, arguments::ttl(&longest)?)
        }
        "max_in_flight" => builder.max_in_flight(value.extract()?),
        "topology_refresh" => builder.topology_refresh(period()?),
        "client_name" => builder.client_name(value.extract::<String>()?),
        "near_max_bytes" => builder.near_max_bytes(value.extract()?),
        "near_heartbeat" => builder.near_heartbeat(period()?),
        "publish_stats" => builder.publish_stats(period()?),
        "probe_stale_reads" => builder.probe_stale_reads(period()?),
        other => return Err(PyTypeError::new_err(format!("a cache has no option {other}"))),
    })
}

/// What has been opened, on its way into the object of Python's class.
#[pyclass(frozen, module = "mtcache", name = "_Opened")]
pub(crate) struct Opened {
    inside: Mutex<Option<Core>>,
}

pub(crate) fn time_left(py: Python<'_>, left: TimeLeft) -> PyResult<Py<PyAny>> {
    match left {
        TimeLeft::Absent => Ok(py.None()),
        TimeLeft::Forever => f64::INFINITY.into_py_any(py),
        TimeLeft::For(left) => left.as_secs_f64().into_py_any(py),
    }
}

pub(crate) fn members(py: Python<'_>, members: Vec<(Stored, f64)>, with_scores: bool) -> PyResult<Py<PyAny>> {
    let list = PyList::empty(py);
    for (member, score) in members {
        let member = decode(py, &member.0)?;
        if with_scores {
            list.append((member, score))?;
        } else {
            list.append(member)?;
        }
    }
    list.into_py_any(py)
}

fn reply(py: Python<'_>, reply: Reply) -> PyResult<Py<PyAny>> {
    match reply {
        Reply::Nil => Ok(py.None()),
        Reply::Int(int) => int.into_py_any(py),
        Reply::Double(float) => float.into_py_any(py),
        Reply::Bytes(bytes) => object_of(py, &bytes)?.into_py_any(py),
        Reply::Array(items) => {
            let list = PyList::empty(py);
            for item in items {
                list.append(self::reply(py, item)?)?;
            }
            list.into_py_any(py)
        }
        Reply::Error(error) => Ok(errors::raise(py, &error.into()).into_value(py).into_any()),
    }
}

#[pymethods]
impl Core {
    #[new]
    fn new(opened: &Bound<'_, Opened>) -> PyResult<Self> {
        opened.get().inside.lock().take().ok_or_else(|| errors::internal("a cache is made by Cache.connect"))
    }

    /// Lets go of the backend. What is under way goes on to its end; everything else is refused.
    fn close(&self, py: Python<'_>) -> PyResult<()> {
        let cache = self.cache.0.get()?;
        // An engine in this process writes and syncs what is not on disk yet.
        py.detach(|| {
            self.parts.close();
            cache.close();
        });
        Ok(())
    }

    #[getter]
    fn closed(&self) -> bool {
        self.cache.0.get().is_ok_and(|cache| cache.read().is_none())
    }

    #[getter]
    fn prefix(&self, py: Python<'_>) -> PyResult<String> {
        Ok(self.cache(py)?.prefix().to_owned())
    }

    #[getter]
    fn is_connected(&self, py: Python<'_>) -> PyResult<bool> {
        Ok(self.cache(py)?.is_connected())
    }

    /// Whether changes elsewhere are heard of, as a short word.
    #[getter]
    fn near_state(&self, py: Python<'_>) -> PyResult<&'static str> {
        Ok(match self.cache(py)?.near_state() {
            TrackingState::Idle => "idle",
            TrackingState::On => "on",
            // Why, `health` says.
            TrackingState::Refused(_) => "refused",
            _ => "waiting",
        })
    }

    fn near_size(&self, py: Python<'_>) -> PyResult<(u64, u64)> {
        Ok(self.cache(py)?.near_size())
    }

    fn pending_invalidations(&self, py: Python<'_>) -> PyResult<(usize, usize)> {
        Ok(self.cache(py)?.pending_invalidations())
    }

    fn stats<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let all = PyDict::new(py);
        for (name, counters) in self.cache(py)?.stats() {
            all.set_item(name, stats::dict(py, &counters)?)?;
        }
        Ok(all)
    }

    fn wait_connected(&self, py: Python<'_>, patience: &Bound<'_, PyAny>) -> PyResult<Operation> {
        let (cache, patience) = (self.cache(py)?, arguments::span(patience)?);
        Ok(Operation::of(async move { Ok::<_, mtcache::Error>(cache.wait_connected(patience).await) }))
    }

    fn ping(&self, py: Python<'_>) -> PyResult<Operation> {
        let cache = self.cache(py)?;
        Ok(Operation::of(async move { cache.ping().await.map(|()| true) }))
    }

    fn info(&self, py: Python<'_>, section: String) -> PyResult<Operation> {
        let cache = self.cache(py)?;
        Ok(Operation::of(async move { cache.info(&section).await }))
    }

    fn flush_database(&self, py: Python<'_>) -> PyResult<Operation> {
        let cache = self.cache(py)?;
        Ok(Operation::done(async move { cache.flush_database().await }).begins(Begin::Aside))
    }

    /// Sends a command as its words are.
    #[pyo3(signature = (*words))]
    fn command(&self, py: Python<'_>, words: Vec<Bound<'_, PyAny>>) -> PyResult<Operation> {
        let cache = self.cache(py)?;
        let words = words.iter().map(encode).collect::<PyResult<Vec<_>>>()?;
        Ok(Operation::new(async move { cache.command(&words).await }, reply).begins(Begin::Unlocked))
    }

    #[pyo3(signature = (key, default=None))]
    fn get(&self, py: Python<'_>, key: String, default: Option<Py<PyAny>>) -> PyResult<Operation> {
        let cache = self.cache(py)?;
        Ok(Operation::new(async move { cache.get_bytes(&key).await }, move |py, bytes| match bytes {
            Some(bytes) => made_of(py, bytes, decode),
            None => Ok(default.unwrap_or_else(|| py.None())),
        })
        .begins(Begin::for_read()))
    }

    /// The stored bytes themselves.
    fn get_bytes(&self, py: Python<'_>, key: String) -> PyResult<Operation> {
        let cache = self.cache(py)?;
        Ok(Operation::new(async move { cache.get_bytes(&key).await }, |py, bytes| {
            let object = |bytes| made_of(py, bytes, |_, bytes| object_of(py, bytes));
            bytes.map(object).transpose()?.into_py_any(py)
        })
        .begins(Begin::for_read()))
    }

    #[pyo3(signature = (keys))]
    fn get_many(&self, py: Python<'_>, keys: Vec<String>) -> PyResult<Operation> {
        let cache = self.cache(py)?;
        let begin = Begin::for_many(keys.len());
        let future = async move { cache.get_many_bytes(&keys).await.map(|values| (keys, values)) };
        Ok(Operation::new(future, |py, (keys, values)| {
            let found = PyDict::new(py);
            for (key, bytes) in keys.into_iter().zip(values) {
                if let Some(bytes) = bytes {
                    found.set_item(key, decode(py, &bytes)?)?;
                }
            }
            found.into_py_any(py)
        })
        .begins(begin))
    }

    #[pyo3(signature = (key, value, ttl, nx=false, xx=false, newer_by=None))]
    #[allow(clippy::too_many_arguments, reason = "Python's caller names them")]
    fn set(
        &self,
        py: Python<'_>,
        key: String,
        value: &Bound<'_, PyAny>,
        ttl: Option<&Bound<'_, PyAny>>,
        nx: bool,
        xx: bool,
        newer_by: Option<String>,
    ) -> PyResult<Operation> {
        let cache = self.cache(py)?;
        let options = arguments::set_options(ttl, nx, xx, newer_by)?;
        let bytes = encode(value)?;
        let begin = Begin::for_bytes(1, bytes.len());
        Ok(Operation::of(async move { cache.set_bytes(&key, &bytes, options).await }).begins(begin))
    }

    fn set_many(
        &self,
        py: Python<'_>,
        entries: &Bound<'_, PyDict>,
        ttl: &Bound<'_, PyAny>,
    ) -> PyResult<Operation> {
        let cache = self.cache(py)?;
        let ttl = self::ttl(ttl)?;
        let entries = entries
            .iter()
            .map(|(key, value)| Ok((key.extract()?, Stored(encode(&value)?))))
            .collect::<PyResult<Vec<(String, Stored)>>>()?;
        let begin = Begin::for_bytes(entries.len(), entries.iter().map(|(_, value)| value.0.len()).sum());
        Ok(Operation::done(async move { cache.set_many(&entries, ttl).await }).begins(begin))
    }

    #[pyo3(signature = (*keys))]
    fn delete(&self, py: Python<'_>, keys: Vec<String>) -> PyResult<Operation> {
        let cache = self.cache(py)?;
        let begin = Begin::for_many(keys.len());
        Ok(Operation::of(async move { cache.delete(&keys).await }).begins(begin))
    }

    #[pyo3(signature = (*keys))]
    fn exists(&self, py: Python<'_>, keys: Vec<String>) -> PyResult<Operation> {
        let cache = self.cache(py)?;
        let begin = Begin::for_many(keys.len());
        Ok(Operation::of(async move { cache.exists(&keys).await }).begins(begin))
    }

    fn expire(&self, py: Python<'_>, key: String, ttl: &Bound<'_, PyAny>) -> PyResult<Operation> {
        let (cache, ttl) = (self.cache(py)?, self::ttl(ttl)?);
        Ok(Operation::of(async move { cache.expire(&key, ttl).await }))
    }

    /// Seconds left; infinite without an expiry, None if the key is absent.
    fn ttl(&self, py: Python<'_>, key: String) -> PyResult<Operation> {
        let cache = self.cache(py)?;
        Ok(Operation::new(async move { cache.ttl(&key).await }, time_left))
    }

    #[pyo3(signature = (key, by=1))]
    fn increment(&self, py: Python<'_>, key: String, by: i64) -> PyResult<Operation> {
        let cache = self.cache(py)?;
        Ok(Operation::of(async move { cache.increment(&key, by).await }))
    }

    #[pyo3(signature = (key, by=1))]
    fn decrement(&self, py: Python<'_>, key: String, by: i64) -> PyResult<Operation> {
        let cache = self.cache(py)?;
        Ok(Operation::of(async move { cache.decrement(&key, by).await }))
    }
}
