//! Several entries of a region at once: reads, writes, one loader call for all that are missing, and warming up.
//!
//! Deliberately absent: the order of steps, which is the layer's.

use std::sync::Arc;

use mtcache::cache::{WarmUp, WarmUpReport};
use mtcache::{ReadOptions, Source};
use pyo3::IntoPyObjectExt;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyList, PyTuple};

use crate::arguments::{parts, read_options};
use crate::begin::Begin;
use crate::calling;
use crate::errors;
use crate::hub::{Delivery, Hub};
use crate::loading::{Id, Loader};
use crate::operation::Operation;
use crate::region::{RegionCore, loader_of, name_of};

impl RegionCore {
    fn load_many(
        &self,
        py: Python<'_>,
        ids: Vec<Id>,
        loader: Loader,
        options: ReadOptions,
    ) -> PyResult<Operation> {
        let (region, objects, begin) = (self.region(py)?, self.objects(), Begin::for_many(ids.len()));
        let future = async move {
            region.get_or_load_each_shared(ids, options, move |missing| loader.clone().many(missing)).await
        };
        Ok(Operation::new(future, move |py, outcomes| {
            let list = PyList::empty(py);
            for outcome in outcomes {
                list.append(match outcome {
                    Ok(Some(read)) => objects.read(py, &read)?,
                    // The source has none, as a read whose value is none says too.
                    Ok(None) => {
                        (py.None(), Source::Loader.name(), false, "unknown", py.None()).into_py_any(py)?
                    }
                    Err(error) => errors::raise(py, &error).into_value(py).into_any(),
                })?;
            }
            list.into_py_any(py)
        })
        .begins(begin))
    }
}

fn named(ids: Vec<Bound<'_, PyAny>>) -> PyResult<Vec<Id>> {
    ids.into_iter().map(Id::new).collect()
}

fn counted(report: WarmUpReport) -> [u64; 5] {
    [report.asked, report.found, report.loaded, report.missing, report.failed]
}

#[pymethods]
impl RegionCore {
    /// Those that are there: a tuple of the value and as what hit it is counted, or an empty one.
    fn _get_many(&self, py: Python<'_>, ids: Vec<Bound<'_, PyAny>>) -> PyResult<Operation> {
        let (region, objects) = (self.region(py)?, self.objects());
        let ids = ids.iter().map(parts).collect::<PyResult<Vec<_>>>()?;
        let begin = Begin::for_many(ids.len());
        let future = async move {
            let mut reads = Vec::with_capacity(ids.len());
            let mut elsewhere = Vec::new();
            for (place, id) in ids.into_iter().enumerate() {
                reads.push(region.get_near(&id, ReadOptions::new())?);
                if reads.last().is_some_and(Option::is_none) {
                    elsewhere.push((place, id));
                }
            }
            let (places, ids): (Vec<_>, Vec<_>) = elsewhere.into_iter().unzip();
            for (place, read) in places.into_iter().zip(region.get_many(&ids).await?) {
                if let Some(place) = reads.get_mut(place) {
                    *place = read.map(|read| read.map(Arc::new));
                }
            }
            Ok::<_, mtcache::Error>(reads)
        };
        Ok(Operation::new(future, move |py, reads| {
            let list = PyList::empty(py);
            for read in reads {
                match read {
                    Some(read) => list.append((objects.of(py, &read.value)?, name_of(read.counted())))?,
                    None => list.append(PyTuple::empty(py))?,
                }
            }
            list.into_py_any(py)
        })
        .begins(begin))
    }

    fn set_many(&self, py: Python<'_>, entries: &Bound<'_, PyDict>) -> PyResult<Operation> {
        let region = self.region(py)?;
        let entries = entries
            .iter()
            .map(|(id, value)| Ok((parts(&id)?, self.value(&value)?)))
            .collect::<PyResult<Vec<_>>>()?;
        let begin = Begin::for_bytes(entries.len(), entries.iter().map(|(_, value)| value.len()).sum());
        Ok(Operation::done(async move { region.set_many(&entries).await }).begins(begin))
    }

    /// One loader call for all that are missing. For each of the names a read or an exception.
    #[pyo3(signature = (ids, loader, form, max_age, backend_timeout, deadline, fresh_only))]
    #[allow(clippy::too_many_arguments, reason = "Python's caller names them")]
    fn _get_or_load_each(
        &self,
        py: Python<'_>,
        ids: Vec<Bound<'_, PyAny>>,
        loader: &Bound<'_, PyAny>,
        form: Option<&Bound<'_, PyAny>>,
        max_age: Option<&Bound<'_, PyAny>>,
        backend_timeout: Option<&Bound<'_, PyAny>>,
        deadline: Option<&Bound<'_, PyAny>>,
        fresh_only: bool,
    ) -> PyResult<Operation> {
        let options = read_options(max_age, backend_timeout, deadline, fresh_only)?;
        let loader = loader_of(py, loader, form, self.codec())?;
        self.load_many(py, named(ids)?, loader, options)
    }

    /// Reads these entries, and loads those that are missing if there is a loader. Ends with the counts of a `mtcache.WarmUp`.
    #[pyo3(signature = (ids, loader, form, at_once, per_second, progress))]
    #[allow(clippy::too_many_arguments, reason = "Python's caller names them")]
    fn _warm_up(
        &self,
        py: Python<'_>,
        ids: Vec<Bound<'_, PyAny>>,
        loader: Option<&Bound<'_, PyAny>>,
        form: Option<&Bound<'_, PyAny>>,
        at_once: usize,
        per_second: u32,
        progress: Option<Py<PyAny>>,
    ) -> PyResult<Operation> {
        let (region, ids) = (self.region(py)?, named(ids)?);
        let mut options = WarmUp::new().at_once(at_once).per_second(per_second);
        if let Some(progress) = progress {
            let (hub, progress) = (Hub::of_running_loop(py)?, Arc::new(progress));
            options = options.on_progress(move |so_far| {
                let (so_far, progress) = (counted(*so_far), Arc::clone(&progress));
                hub.deliver(Delivery::Run(Box::new(move |py| {
                    calling::call(progress.bind(py), (so_far,)).map(drop)
                })));
            });
        }
        let loader = loader.map(|loader| loader_of(py, loader, form, self.codec())).transpose()?;
        let future = async move {
            let report = match loader {
                Some(loader) => {
                    let load = move |id: Id| loader.clone().named(id);
                    region.warm_up_or_load(ids, &options, load).await
                }
                None => region.warm_up(ids, &options).await,
            };
            Ok::<_, mtcache::Error>(counted(report))
        };
        Ok(Operation::of(future).begins(Begin::Aside).ends_with_its_task())
    }
}
