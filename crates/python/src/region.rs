//! A region as Python holds it.
//!
//! Invariant: a near hit is answered in the call itself, without the loop and without a task. Deliberately absent: models
//! (`mtcache/region.py` makes and reads them).

use std::sync::Arc;

use mtcache::cache::{RegionMode, Undecodable};
use mtcache::{Age, Read, ReadOptions, Region, RegionPolicy};
use parking_lot::Mutex;
use pyo3::IntoPyObjectExt;
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyList, PyTuple};

use crate::arguments::{self, parts, read_options};
use crate::cache::{Closing, Core, time_left};
use crate::encode::encode;
use crate::errors;
use crate::hub::Hub;
use crate::loading::Loader;
use crate::operation::Operation;
use crate::stats;
use crate::value::Value;

/// Whether readers get an object of their own.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Copies {
    Fresh,
    Shared,
}

impl Copies {
    fn object(self, py: Python<'_>, value: &Value) -> PyResult<Py<PyAny>> {
        match self {
            Self::Fresh => value.fresh(py),
            Self::Shared => value.shared(py),
        }
    }
}

/// What a call makes of a read.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Wanted {
    Value,
    /// The value, where it came from, whether it is stale, and its age in words and seconds.
    Read,
}

/// A region. Python's `mtcache.Region` is made of it.
#[pyclass(frozen, subclass, module = "mtcache", name = "_RegionCore")]
pub(crate) struct RegionCore {
    region: Closing<Region<Value>>,
    copies: Copies,
    is_near: bool,
}

fn told(py: Python<'_>, copies: Copies, wanted: Wanted, read: &Read<Arc<Value>>) -> PyResult<Py<PyAny>> {
    let object = copies.object(py, &read.value)?;
    if wanted == Wanted::Value {
        return Ok(object);
    }
    let (bound, age) = match read.age {
        Age::Exact(age) => ("exact", Some(age.as_secs_f64())),
        Age::AtMost(age) => ("at_most", Some(age.as_secs_f64())),
        Age::Unknown => ("unknown", None),
    };
    (object, read.source.name(), read.is_stale(), bound, age).into_py_any(py)
}

impl RegionCore {
    fn region(&self, py: Python<'_>) -> PyResult<Region<Value>> {
        self.region.get(py)
    }

    fn read(
        &self,
        py: Python<'_>,
        id: &Bound<'_, PyAny>,
        options: ReadOptions,
        wanted: Wanted,
        default: Option<Py<PyAny>>,
    ) -> PyResult<Operation> {
        let (region, id, copies) = (self.region(py)?, parts(id)?, self.copies);
        if let Some(read) = self.near(py, &region, &id, options)? {
            return Ok(Operation::ready(told(py, copies, wanted, &read)));
        }
        let future = async move { region.get_shared_with(id, options).await };
        Ok(Operation::new(future, move |py, read| match read {
            Some(read) => told(py, copies, wanted, &read),
            None => Ok(default.unwrap_or_else(|| py.None())),
        }))
    }

    fn near(
        &self,
        py: Python<'_>,
        region: &Region<Value>,
        id: &[String],
        options: ReadOptions,
    ) -> PyResult<Option<Read<Arc<Value>>>> {
        if !self.is_near {
            return Ok(None);
        }
        region.get_near(id, options).map_err(|error| errors::raise(py, &error))
    }

    fn read_or_load(
        &self,
        py: Python<'_>,
        id: &Bound<'_, PyAny>,
        options: ReadOptions,
        wanted: Wanted,
        loader: impl FnOnce() -> PyResult<Loader>,
    ) -> PyResult<Operation> {
        let (region, id, copies) = (self.region(py)?, parts(id)?, self.copies);
        let loader = loader()?;
        let future = async move { region.get_or_load_shared_with(id, options, move || loader.run()).await };
        Ok(Operation::new(future, move |py, read| told(py, copies, wanted, &read)))
    }
}

#[pymethods]
impl Core {
    /// A region, for `mtcache.Region` to be made of.
    #[pyo3(signature = (name, *, ttl, key_base, stale, none_ttl, ttl_jitter, undecodable, near, share, load_timeout, max_loads,
        max_waiting_loads, max_load_wait))]
    #[allow(clippy::too_many_arguments, reason = "Python's caller names them")]
    fn _region(
        &self,
        py: Python<'_>,
        name: String,
        ttl: &Bound<'_, PyAny>,
        key_base: Option<String>,
        stale: &Bound<'_, PyAny>,
        none_ttl: Option<&Bound<'_, PyAny>>,
        ttl_jitter: f64,
        undecodable: &str,
        near: bool,
        share: bool,
        load_timeout: &Bound<'_, PyAny>,
        max_loads: usize,
        max_waiting_loads: usize,
        max_load_wait: &Bound<'_, PyAny>,
    ) -> PyResult<OpenedRegion> {
        let undecodable = match undecodable {
            "error" => Undecodable::Error,
            "miss" => Undecodable::Miss,
            other => {
                return Err(PyValueError::new_err(format!(
                    "undecodable is 'error' or 'miss', not {other:?}"
                )));
            }
        };
        let mut policy = RegionPolicy::new(name, arguments::ttl(ttl)?)
            .stale_window(arguments::span(stale)?)
            .none_ttl(none_ttl.map(arguments::ttl).transpose()?)
            .ttl_jitter(ttl_jitter)
            .undecodable(undecodable)
            .near(near)
            .load_timeout(arguments::ttl(load_timeout)?)
            .max_loads(max_loads, max_waiting_loads)
            .max_load_wait(arguments::span(max_load_wait)?);
        if let Some(base) = key_base {
            policy = policy.key_base(base);
        }
        let region = self.cache(py)?.region(policy).map_err(|error| errors::raise(py, &error))?;
        let copies = if share { Copies::Shared } else { Copies::Fresh };
        let core = RegionCore { region: self.part(region), copies, is_near: near };
        Ok(OpenedRegion { inside: Mutex::new(Some(core)) })
    }
}

/// A region on its way into the object of Python's class.
#[pyclass(frozen, module = "mtcache", name = "_OpenedRegion")]
pub(crate) struct OpenedRegion {
    inside: Mutex<Option<RegionCore>>,
}

#[pymethods]
impl RegionCore {
    #[new]
    #[pyo3(signature = (opened, *_rest))]
    fn new(opened: &Bound<'_, OpenedRegion>, _rest: &Bound<'_, PyTuple>) -> PyResult<Self> {
        opened.get().inside.lock().take().ok_or_else(|| errors::internal("a region is made by Cache.region"))
    }

    #[getter]
    fn name(&self, py: Python<'_>) -> PyResult<String> {
        Ok(self.region(py)?.name().to_owned())
    }

    /// `on`, `shadow` or `killed`, for all regions of this name in this process.
    #[getter]
    fn mode(&self, py: Python<'_>) -> PyResult<&'static str> {
        Ok(self.region(py)?.control().mode().name())
    }

    #[setter]
    fn set_mode(&self, py: Python<'_>, mode: &str) -> PyResult<()> {
        let mode: RegionMode = mode.parse().map_err(|error| errors::raise(py, &error))?;
        let region = self.region(py)?;
        py.detach(|| region.control().set_mode(mode));
        Ok(())
    }

    fn key(&self, py: Python<'_>, id: &Bound<'_, PyAny>) -> PyResult<String> {
        self.region(py)?.key(parts(id)?).map_err(|error| errors::raise(py, &error))
    }

    fn stats<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        stats::dict(py, &self.region(py)?.stats())
    }

    #[pyo3(signature = (id, default=None))]
    fn peek(&self, py: Python<'_>, id: &Bound<'_, PyAny>, default: Option<Py<PyAny>>) -> PyResult<Py<PyAny>> {
        let default = || Ok(default.unwrap_or_else(|| py.None()));
        let near = self.region.with(py, |region| match id.cast::<pyo3::types::PyString>() {
            Ok(text) => {
                region.get_near(text.to_str()?, ReadOptions::new()).map_err(|error| errors::raise(py, &error))
            }
            Err(_) => {
                region.get_near(parts(id)?, ReadOptions::new()).map_err(|error| errors::raise(py, &error))
            }
        })?;
        match near {
            Some(read) => self.copies.object(py, &read.value),
            None => default(),
        }
    }

    #[pyo3(signature = (id, default=None, *, max_age=None))]
    fn get(
        &self,
        py: Python<'_>,
        id: &Bound<'_, PyAny>,
        default: Option<Py<PyAny>>,
        max_age: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<Operation> {
        self.read(py, id, read_options(max_age, false)?, Wanted::Value, default)
    }

    #[pyo3(signature = (id, max_age, with_age))]
    fn _read(
        &self,
        py: Python<'_>,
        id: &Bound<'_, PyAny>,
        max_age: Option<&Bound<'_, PyAny>>,
        with_age: bool,
    ) -> PyResult<Operation> {
        self.read(py, id, read_options(max_age, with_age)?, Wanted::Read, None)
    }

    /// `start(done)` begins the loader in the running loop.
    #[pyo3(signature = (id, start, max_age, as_read))]
    fn _get_or_load(
        &self,
        py: Python<'_>,
        id: &Bound<'_, PyAny>,
        start: Py<PyAny>,
        max_age: Option<&Bound<'_, PyAny>>,
        as_read: bool,
    ) -> PyResult<Operation> {
        let wanted = if as_read { Wanted::Read } else { Wanted::Value };
        let loader = || Ok(Loader::InLoop { hub: Hub::of_running_loop(py)?, start });
        self.read_or_load(py, id, read_options(max_age, false)?, wanted, loader)
    }

    /// `load()` gives the value, in a thread.
    #[pyo3(signature = (id, load, max_age, as_read))]
    fn _get_or_load_in_thread(
        &self,
        py: Python<'_>,
        id: &Bound<'_, PyAny>,
        load: Py<PyAny>,
        max_age: Option<&Bound<'_, PyAny>>,
        as_read: bool,
    ) -> PyResult<Operation> {
        let wanted = if as_read { Wanted::Read } else { Wanted::Value };
        self.read_or_load(py, id, read_options(max_age, false)?, wanted, || Ok(Loader::InThread { load }))
    }

    #[pyo3(signature = (ids))]
    fn _get_many(&self, py: Python<'_>, ids: Vec<Bound<'_, PyAny>>) -> PyResult<Operation> {
        let (region, copies) = (self.region(py)?, self.copies);
        let ids = ids.iter().map(parts).collect::<PyResult<Vec<_>>>()?;
        Ok(Operation::new(async move { region.get_many(&ids).await }, move |py, reads| {
            let list = PyList::empty(py);
            for read in reads {
                match read {
                    Some(read) => list.append(PyTuple::new(py, [copies.object(py, &read.value)?])?)?,
                    None => list.append(PyTuple::empty(py))?,
                }
            }
            list.into_py_any(py)
        }))
    }

    #[pyo3(signature = (id, value, *, ttl=None, nx=false, xx=false, newer_by=None))]
    #[allow(clippy::too_many_arguments, reason = "Python's caller names them")]
    fn set(
        &self,
        py: Python<'_>,
        id: &Bound<'_, PyAny>,
        value: &Bound<'_, PyAny>,
        ttl: Option<&Bound<'_, PyAny>>,
        nx: bool,
        xx: bool,
        newer_by: Option<String>,
    ) -> PyResult<Operation> {
        let (region, id) = (self.region(py)?, parts(id)?);
        let condition = arguments::condition(py, nx, xx, newer_by)?;
        let value = Value::new(encode(value)?);
        let Some(ttl) = ttl else {
            let future = async move { region.set_when(id, &value, condition).await };
            return Ok(Operation::new(future, |py, stored| stored.into_py_any(py)));
        };
        if condition != mtcache::Condition::Always {
            return Err(PyValueError::new_err("a condition goes with the region's own ttl only"));
        }
        let ttl = arguments::ttl(ttl)?;
        Ok(Operation::new(async move { region.set_for(id, &value, ttl).await }, |py, ()| {
            true.into_py_any(py)
        }))
    }

    fn set_many(&self, py: Python<'_>, entries: &Bound<'_, PyDict>) -> PyResult<Operation> {
        let region = self.region(py)?;
        let entries = entries
            .iter()
            .map(|(id, value)| Ok((parts(&id)?, Value::new(encode(&value)?))))
            .collect::<PyResult<Vec<_>>>()?;
        Ok(Operation::new(async move { region.set_many(&entries).await }, |py, ()| Ok(py.None())))
    }

    fn invalidate(&self, py: Python<'_>, id: &Bound<'_, PyAny>) -> PyResult<Operation> {
        let (region, id) = (self.region(py)?, parts(id)?);
        Ok(Operation::new(async move { region.invalidate(id).await }, |py, there| there.into_py_any(py)))
    }

    fn invalidate_all(&self, py: Python<'_>) -> PyResult<Operation> {
        let region = self.region(py)?;
        Ok(Operation::new(async move { region.invalidate_all().await }, |py, count| count.into_py_any(py)))
    }

    fn touch(&self, py: Python<'_>, id: &Bound<'_, PyAny>) -> PyResult<Operation> {
        let (region, id) = (self.region(py)?, parts(id)?);
        Ok(Operation::new(async move { region.touch(id).await }, |py, there| there.into_py_any(py)))
    }

    /// Seconds left; infinite without an expiry, None if the entry is absent.
    fn time_left(&self, py: Python<'_>, id: &Bound<'_, PyAny>) -> PyResult<Operation> {
        let (region, id) = (self.region(py)?, parts(id)?);
        Ok(Operation::new(async move { region.time_left(id).await }, time_left))
    }
}
