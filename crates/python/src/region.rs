//! A region as Python holds it.
//!
//! Invariant: a near hit is answered in the call itself, without the loop and without a task. Deliberately absent: several entries at once
//! (`batches.rs`); models (`mtcache/region.py` makes and reads them).

use std::collections::HashMap;
use std::sync::Arc;

use mtcache::cache::{Codec, Counted, RegionMode};
use mtcache::{Age, Read, ReadOptions, Region, RegionPolicy};
use parking_lot::Mutex;
use pyo3::IntoPyObjectExt;
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyDict, PyModule, PyString, PyTuple};

use crate::arguments::{self, parts, read_options};
use crate::begin::Begin;
use crate::cache::{Closing, Core, Parts, time_left};
use crate::errors;
use crate::large::note_read;
use crate::loading::Loader;
use crate::operation::{Operation, waits_here};
use crate::value::{Upgrades, Value};
use crate::{calling, policy, stats};

/// What a call makes of a read.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Wanted {
    Value,
    /// The value, where it came from, whether it is stale, and its age in words and seconds.
    Read,
}

/// How the values of a region become objects.
#[derive(Clone)]
pub(crate) struct Objects {
    /// Whether all readers get one object.
    are_shared: bool,
    upgrades: Upgrades,
}

impl Objects {
    pub(crate) fn of(&self, py: Python<'_>, value: &Value) -> PyResult<Py<PyAny>> {
        if self.are_shared { value.shared(py, &self.upgrades) } else { value.fresh(py, &self.upgrades) }
    }

    fn told(&self, py: Python<'_>, wanted: Wanted, read: &Read<Arc<Value>>) -> PyResult<Py<PyAny>> {
        match wanted {
            Wanted::Value => self.of(py, &read.value),
            Wanted::Read => self.read(py, read),
        }
    }

    /// A read as `mtcache.Read` takes it.
    pub(crate) fn read(&self, py: Python<'_>, read: &Read<Arc<Value>>) -> PyResult<Py<PyAny>> {
        let (bound, age) = match read.age {
            Age::Exact(age) => ("exact", Some(age.as_secs_f64())),
            Age::AtMost(age) => ("at_most", Some(age.as_secs_f64())),
            Age::Unknown => ("unknown", None),
        };
        let counted = name_of(read.counted());
        (self.of(py, &read.value)?, read.source.name(), read.is_stale(), bound, age, counted).into_py_any(py)
    }
}

/// As what hit a read is counted, as Python hands it back; none if as none.
pub(crate) fn name_of(counted: Counted) -> Option<&'static str> {
    match counted {
        Counted::NearHit => Some("near"),
        Counted::Hit => Some("backend"),
        Counted::NoHit => None,
    }
}

/// A region. Python's `mtcache.Region` is made of it.
#[pyclass(frozen, subclass, module = "mtcache", name = "_RegionCore")]
pub(crate) struct RegionCore {
    region: Closing<Region<Value>>,
    objects: Objects,
    is_near: bool,
    /// How values are written; none: as plain ones.
    codec: Option<Codec>,
    parts: Parts,
}

impl RegionCore {
    pub(crate) fn region(&self, py: Python<'_>) -> PyResult<Region<Value>> {
        self.region.get(py)
    }

    pub(crate) fn objects(&self) -> Objects {
        self.objects.clone()
    }

    pub(crate) fn codec(&self) -> Option<Codec> {
        self.codec
    }

    pub(crate) fn value(&self, object: &Bound<'_, PyAny>) -> PyResult<Value> {
        Value::of(object, self.codec)
    }

    /// The same region, seen otherwise.
    fn seen(&self, region: Region<Value>, objects: Objects) -> OpenedRegion {
        let Self { is_near, codec, ref parts, .. } = *self;
        let parts = parts.clone();
        let core = Self { region: parts.add(region), objects, is_near, codec, parts };
        OpenedRegion { inside: Mutex::new(Some(core)) }
    }

    fn read(
        &self,
        py: Python<'_>,
        id: &Bound<'_, PyAny>,
        options: ReadOptions,
        wanted: Wanted,
        default: Option<Py<PyAny>>,
    ) -> PyResult<Operation> {
        if let Some(read) = self.near(py, id, options)? {
            return Ok(Operation::ready(self.objects.told(py, wanted, &read)));
        }
        let (region, id, objects) = (self.region(py)?, parts(id)?, self.objects());
        let future = async move { region.get_shared_with(id, options).await };
        Ok(Operation::new(future, move |py, read| match read {
            Some(read) => {
                note_read(read.value.len());
                objects.told(py, wanted, &read)
            }
            None => Ok(default.unwrap_or_else(|| py.None())),
        })
        .begins(Begin::for_read()))
    }

    /// What is in this process's memory.
    fn near(
        &self,
        py: Python<'_>,
        id: &Bound<'_, PyAny>,
        options: ReadOptions,
    ) -> PyResult<Option<Read<Arc<Value>>>> {
        if !self.is_near {
            return Ok(None);
        }
        self.region.with(py, |region| {
            let read = match id.cast::<PyString>() {
                Ok(text) => region.get_near(text.to_str()?, options),
                Err(_) => region.get_near(parts(id)?, options),
            };
            read.map_err(|error| errors::raise(py, &error))
        })
    }

    fn read_or_load(
        &self,
        py: Python<'_>,
        id: &Bound<'_, PyAny>,
        options: ReadOptions,
        wanted: Wanted,
        loader: impl FnOnce() -> PyResult<Loader>,
    ) -> PyResult<Operation> {
        // In shadow mode the loader is asked in any case, and one that may be asked ahead of time has to be there.
        let needs_none = self.region.with(py, |region| {
            let policy = region.policy();
            let never_ahead = policy.eager_refresh.is_none() && policy.xfetch_beta.is_none();
            Ok(never_ahead && region.mode() == RegionMode::On)
        })?;
        if needs_none && let Some(read) = self.near(py, id, options)? {
            return Ok(Operation::ready(self.objects.told(py, wanted, &read)));
        }
        let (region, id, objects) = (self.region(py)?, parts(id)?, self.objects());
        let loader = loader()?;
        let future = async move { region.get_or_load_shared_with(id, options, move || loader.one()).await };
        Ok(Operation::new(future, move |py, read| objects.told(py, wanted, &read)))
    }
}

/// Reads, or has a loader bring, what it is told about.
impl RegionCore {
    fn reload_through(
        &self,
        py: Python<'_>,
        id: &Bound<'_, PyAny>,
        options: ReadOptions,
        loader: Loader,
    ) -> PyResult<Operation> {
        let (region, id, objects) = (self.region(py)?, parts(id)?, self.objects());
        let told = objects.clone();
        let future = async move {
            region.get_or_reload_shared(id, options, move |previous| loader.reloaded(previous, objects)).await
        };
        Ok(Operation::new(future, move |py, read| told.told(py, Wanted::Read, &read)))
    }
}

/// A loader, called by what `mtcache/_loading.py` makes of it: in the running loop, or in a thread for who waits without one.
pub(crate) fn loader_of(
    py: Python<'_>,
    loader: &Bound<'_, PyAny>,
    form: Option<&Bound<'_, PyAny>>,
    codec: Option<Codec>,
) -> PyResult<Loader> {
    static MODULE: PyOnceLock<Py<PyModule>> = PyOnceLock::new();
    let module = MODULE.get_or_try_init(py, || py.import("mtcache._loading").map(Bound::unbind))?.bind(py);
    let made = |how| calling::call_method(module, how, (loader, form)).map(Bound::unbind);
    if waits_here() {
        Ok(Loader::in_thread(made("in_thread")?, codec))
    } else {
        Loader::in_loop(py, made("starter")?, codec)
    }
}

#[pymethods]
impl Core {
    /// A region, for `mtcache.Region` to be made of.
    fn _region(
        &self,
        py: Python<'_>,
        name: String,
        ttl: &Bound<'_, PyAny>,
        share: bool,
        options: &Bound<'_, PyDict>,
    ) -> PyResult<OpenedRegion> {
        let policy = policy::changed(RegionPolicy::new(name, arguments::ttl(ttl)?), options)?;
        let (is_near, codec) = (policy.near, policy.framing.as_ref().map(|_| policy.codec));
        let region = self.cache(py)?.region(policy).map_err(|error| errors::raise(py, &error))?;
        let objects = Objects { are_shared: share, upgrades: Upgrades::default() };
        let parts = self.parts();
        let core = RegionCore { region: parts.add(region), objects, is_near, codec, parts };
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
        Ok(self.region(py)?.mode().name())
    }

    #[setter]
    fn set_mode(&self, py: Python<'_>, mode: &str) -> PyResult<()> {
        let mode: RegionMode = mode.parse().map_err(|error| errors::raise(py, &error))?;
        let region = self.region(py)?;
        py.detach(|| region.control().set_mode(mode));
        Ok(())
    }

    /// Changes options of all regions of this name; what has changed, and what would only if they were opened anew.
    #[pyo3(signature = (**options))]
    fn _reload(
        &self,
        py: Python<'_>,
        options: Option<&Bound<'_, PyDict>>,
    ) -> PyResult<(Vec<&'static str>, Vec<&'static str>)> {
        let region = self.region(py)?;
        let mut wanted = region.policy().clone();
        if let Some(options) = options {
            wanted = policy::changed(wanted, options)?;
        }
        let reloaded = region.control().reload(&wanted).map_err(|error| errors::raise(py, &error))?;
        Ok((reloaded.changed, reloaded.needs_restart))
    }

    fn _tagged(&self, py: Python<'_>, tags: Vec<String>) -> PyResult<OpenedRegion> {
        let region = self.region(py)?.tagged(tags).map_err(|error| errors::raise(py, &error))?;
        Ok(self.seen(region, self.objects()))
    }

    fn _reads_schema(&self, py: Python<'_>, schema: u32, upgrade: Py<PyAny>) -> PyResult<OpenedRegion> {
        let region = self.region(py)?;
        // The object is made and turned into one of now where it is asked for: here nobody holds Python's lock.
        let region = region
            .reads_schema(schema, move |coded| Value::of_schema(schema, coded))
            .map_err(|error| errors::raise(py, &error))?;
        let mut upgrades: HashMap<_, _> =
            self.objects.upgrades.iter().map(|(schema, upgrade)| (*schema, upgrade.clone_ref(py))).collect();
        upgrades.insert(schema, upgrade);
        let objects = Objects { upgrades: Arc::new(upgrades), ..self.objects() };
        Ok(self.seen(region, objects))
    }

    /// What was read, and counted so, is no value to its reader.
    #[pyo3(signature = (counted))]
    fn _count_undecodable(&self, py: Python<'_>, counted: Option<&str>) -> PyResult<()> {
        let is = |hit: &Counted| counted.is_some() && counted == name_of(*hit);
        let counted = [Counted::NearHit, Counted::Hit].into_iter().find(is).unwrap_or(Counted::NoHit);
        self.region.with(py, |region| {
            region.count_undecodable(counted);
            Ok(())
        })
    }

    fn key(&self, py: Python<'_>, id: &Bound<'_, PyAny>) -> PyResult<String> {
        self.region(py)?.key(parts(id)?).map_err(|error| errors::raise(py, &error))
    }

    fn stats<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        stats::dict(py, &self.region(py)?.stats())
    }

    #[pyo3(signature = (id, default=None))]
    fn peek(&self, py: Python<'_>, id: &Bound<'_, PyAny>, default: Option<Py<PyAny>>) -> PyResult<Py<PyAny>> {
        match self.near(py, id, ReadOptions::new())? {
            Some(read) => self.objects.of(py, &read.value),
            None => Ok(default.unwrap_or_else(|| py.None())),
        }
    }

    #[pyo3(signature = (id, default=None, *, max_age=None, backend_timeout=None, deadline=None, fresh_only=false))]
    #[allow(clippy::too_many_arguments, reason = "Python's caller names them")]
    fn get(
        &self,
        py: Python<'_>,
        id: &Bound<'_, PyAny>,
        default: Option<Py<PyAny>>,
        max_age: Option<&Bound<'_, PyAny>>,
        backend_timeout: Option<&Bound<'_, PyAny>>,
        deadline: Option<&Bound<'_, PyAny>>,
        fresh_only: bool,
    ) -> PyResult<Operation> {
        self.read(
            py,
            id,
            read_options(max_age, backend_timeout, deadline, fresh_only)?,
            Wanted::Value,
            default,
        )
    }

    #[allow(clippy::too_many_arguments, reason = "Python's caller names them")]
    fn _read(
        &self,
        py: Python<'_>,
        id: &Bound<'_, PyAny>,
        with_age: bool,
        max_age: Option<&Bound<'_, PyAny>>,
        backend_timeout: Option<&Bound<'_, PyAny>>,
        deadline: Option<&Bound<'_, PyAny>>,
        fresh_only: bool,
    ) -> PyResult<Operation> {
        let mut options = read_options(max_age, backend_timeout, deadline, fresh_only)?;
        options.with_age = with_age;
        self.read(py, id, options, Wanted::Read, None)
    }

    #[pyo3(signature = (id, loader, form, as_read, max_age, backend_timeout, deadline, fresh_only))]
    #[allow(clippy::too_many_arguments, reason = "Python's caller names them")]
    fn _get_or_load(
        &self,
        py: Python<'_>,
        id: &Bound<'_, PyAny>,
        loader: &Bound<'_, PyAny>,
        form: Option<&Bound<'_, PyAny>>,
        as_read: bool,
        max_age: Option<&Bound<'_, PyAny>>,
        backend_timeout: Option<&Bound<'_, PyAny>>,
        deadline: Option<&Bound<'_, PyAny>>,
        fresh_only: bool,
    ) -> PyResult<Operation> {
        let options = read_options(max_age, backend_timeout, deadline, fresh_only)?;
        let wanted = if as_read { Wanted::Read } else { Wanted::Value };
        self.read_or_load(py, id, options, wanted, || loader_of(py, loader, form, self.codec))
    }

    /// The loader is called with what was known before, and says more than a value. Ends with a read.
    #[pyo3(signature = (id, loader, form, max_age, backend_timeout, deadline, fresh_only))]
    #[allow(clippy::too_many_arguments, reason = "Python's caller names them")]
    fn _get_or_reload(
        &self,
        py: Python<'_>,
        id: &Bound<'_, PyAny>,
        loader: &Bound<'_, PyAny>,
        form: Option<&Bound<'_, PyAny>>,
        max_age: Option<&Bound<'_, PyAny>>,
        backend_timeout: Option<&Bound<'_, PyAny>>,
        deadline: Option<&Bound<'_, PyAny>>,
        fresh_only: bool,
    ) -> PyResult<Operation> {
        let options = read_options(max_age, backend_timeout, deadline, fresh_only)?;
        self.reload_through(py, id, options, loader_of(py, loader, form, self.codec)?)
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
        let (region, id, value) = (self.region(py)?, parts(id)?, self.value(value)?);
        let condition = arguments::condition(nx, xx, newer_by)?;
        let begin = Begin::for_bytes(1, value.len());
        let Some(ttl) = ttl else {
            return Ok(
                Operation::of(async move { region.set_when(id, &value, condition).await }).begins(begin)
            );
        };
        if condition != mtcache::Condition::Always {
            return Err(PyValueError::new_err("a condition goes with the region's own ttl only"));
        }
        let ttl = arguments::ttl(ttl)?;
        Ok(Operation::of(async move { region.set_for(id, &value, ttl).await.map(|()| true) }).begins(begin))
    }

    fn invalidate(&self, py: Python<'_>, id: &Bound<'_, PyAny>) -> PyResult<Operation> {
        let (region, id) = (self.region(py)?, parts(id)?);
        Ok(Operation::of(async move { region.invalidate(id).await }))
    }

    fn invalidate_under(&self, py: Python<'_>, id: &Bound<'_, PyAny>) -> PyResult<Operation> {
        let (region, id) = (self.region(py)?, parts(id)?);
        Ok(Operation::of(async move { region.invalidate_under(id).await }).begins(Begin::Aside))
    }

    fn invalidate_all(&self, py: Python<'_>) -> PyResult<Operation> {
        let region = self.region(py)?;
        Ok(Operation::of(async move { region.invalidate_all().await }).begins(Begin::Aside))
    }

    fn touch(&self, py: Python<'_>, id: &Bound<'_, PyAny>) -> PyResult<Operation> {
        let (region, id) = (self.region(py)?, parts(id)?);
        Ok(Operation::of(async move { region.touch(id).await }))
    }

    fn expire(&self, py: Python<'_>, id: &Bound<'_, PyAny>, ttl: &Bound<'_, PyAny>) -> PyResult<Operation> {
        let (region, id, ttl) = (self.region(py)?, parts(id)?, arguments::ttl(ttl)?);
        Ok(Operation::of(async move { region.expire(id, ttl).await }))
    }

    /// Seconds left; infinite without an expiry, None if the entry is absent.
    fn time_left(&self, py: Python<'_>, id: &Bound<'_, PyAny>) -> PyResult<Operation> {
        let (region, id) = (self.region(py)?, parts(id)?);
        Ok(Operation::new(async move { region.time_left(id).await }, time_left))
    }
}
