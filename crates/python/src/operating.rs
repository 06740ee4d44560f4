//! What operators ask of a cache: how it is, what it counts, tags, and the switches of its regions.
//!
//! Deliberately absent: exporters; `stats` has every counter by its name, for whichever of Python's a service uses.

use mtcache::cache::{BreakerState, RegionMode, StaleReads, hot_keys};
use pyo3::IntoPyObjectExt;
use pyo3::exceptions::PyKeyError;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyList, PyTuple};
use serde::Serialize;

use crate::begin::Begin;
use crate::cache::Core;
use crate::decode::decode_json;
use crate::errors;
use crate::operation::Operation;
use crate::stats;

/// Plain values as dicts, lists, numbers and texts.
fn plain(py: Python<'_>, value: &impl Serialize) -> PyResult<Py<PyAny>> {
    let json = serde_json::to_vec(value).map_err(|_| errors::internal("a report that is no JSON"))?;
    decode_json(py, &json)
}

fn quantiles<'py>(py: Python<'py>, reads: &StaleReads) -> PyResult<Bound<'py, PyDict>> {
    let dict = PyDict::new(py);
    dict.set_item("count", reads.count())?;
    dict.set_item("p50", reads.quantile(0.5).as_secs_f64())?;
    dict.set_item("p99", reads.quantile(0.99).as_secs_f64())?;
    dict.set_item("max", reads.max().as_secs_f64())?;
    Ok(dict)
}

/// The entries that a file names, one a line: what follows the region's name in the key, each a tuple of parts.
#[pyfunction]
#[pyo3(name = "hot_keys")]
pub(crate) fn hot_keys_of(py: Python<'_>, path: std::path::PathBuf) -> PyResult<Py<PyAny>> {
    let ids = py.detach(|| hot_keys(path))?;
    let list = PyList::empty(py);
    for parts in ids {
        list.append(PyTuple::new(py, parts)?)?;
    }
    list.into_py_any(py)
}

#[pymethods]
impl Core {
    /// The fields of a `mtcache.Health`.
    fn _health(&self, py: Python<'_>) -> PyResult<Py<PyAny>> {
        plain(py, &self.cache(py)?.health())
    }

    /// `closed`, `open` or `half_open`; over a cluster the worst of its nodes.
    #[getter]
    fn breaker(&self, py: Python<'_>) -> PyResult<&'static str> {
        Ok(match self.cache(py)?.breaker() {
            BreakerState::Closed => "closed",
            BreakerState::Open => "open",
            BreakerState::HalfOpen => "half_open",
        })
    }

    /// The key in the backend.
    fn full_key(&self, py: Python<'_>, key: &str) -> PyResult<String> {
        self.cache(py)?.full_key(key).map_err(|error| errors::raise(py, &error))
    }

    #[pyo3(signature = (*tags))]
    fn invalidate_tag(&self, py: Python<'_>, tags: Vec<String>) -> PyResult<Operation> {
        let cache = self.cache(py)?;
        Ok(Operation::done(async move { cache.invalidate_tags(&tags).await }))
    }

    /// The mode of the regions of this name.
    fn mode(&self, py: Python<'_>, region: &str) -> PyResult<&'static str> {
        match self.cache(py)?.control(region) {
            Some(control) => Ok(control.mode().name()),
            None => Err(PyKeyError::new_err(region.to_owned())),
        }
    }

    fn set_mode(&self, py: Python<'_>, region: &str, mode: &str) -> PyResult<()> {
        let mode: RegionMode = mode.parse().map_err(|error| errors::raise(py, &error))?;
        let control =
            self.cache(py)?.control(region).ok_or_else(|| PyKeyError::new_err(region.to_owned()))?;
        py.detach(|| control.set_mode(mode));
        Ok(())
    }

    /// What the counters of every process of this deployment add up to.
    fn published_stats(&self, py: Python<'_>) -> PyResult<Operation> {
        let cache = self.cache(py)?;
        Ok(Operation::new(async move { cache.published_stats().await }, |py, published| {
            let (dict, regions) = (PyDict::new(py), PyDict::new(py));
            for (region, sums) in published.by_region() {
                regions.set_item(region, stats::dict(py, &sums)?)?;
            }
            dict.set_item("regions", regions)?;
            dict.set_item("processes", plain(py, &published.processes)?)?;
            dict.set_item("is_complete", published.is_complete)?;
            dict.set_item("stale_reads", quantiles(py, &published.stale_reads())?)?;
            dict.into_py_any(py)
        })
        .begins(Begin::Unlocked))
    }

    /// How long after a write this process' near cache served what was there before: how many were measured, and seconds.
    fn stale_reads<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        quantiles(py, &self.cache(py)?.stale_reads())
    }

    /// Measures that once, in seconds; None where the near cache is off.
    fn probe_stale_reads(&self, py: Python<'_>) -> PyResult<Operation> {
        let cache = self.cache(py)?;
        Ok(Operation::of(async move {
            Ok::<_, mtcache::Error>(cache.probe_stale_reads().await?.map(|time| time.as_secs_f64()))
        }))
    }
}
