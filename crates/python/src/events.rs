//! What happens in a cache, as Python hears it.
//!
//! Deliberately absent: calling back into Python from a thread of the runtime; a stream is read by who wants to know.

use std::sync::Arc;

use mtcache::Event;
use mtcache::cache::{EventStream, Heard};
use pyo3::IntoPyObjectExt;
use pyo3::prelude::*;
use pyo3::types::PyDict;
use tokio::sync::Mutex;

use crate::cache::{Closing, Core};
use crate::operation::Operation;

/// A stream of events.
#[pyclass(frozen, module = "mtcache", name = "_Events")]
pub(crate) struct Events {
    stream: Closing<Arc<Mutex<EventStream>>>,
}

#[pymethods]
impl Core {
    fn _events(&self, py: Python<'_>) -> PyResult<Events> {
        let stream = Arc::new(Mutex::new(self.cache(py)?.events()));
        Ok(Events { stream: self.part(stream) })
    }
}

#[pymethods]
impl Events {
    /// The next event; None once the cache is gone.
    fn next(&self, py: Python<'_>) -> PyResult<Operation> {
        let Some(stream) = self.stream.open()? else { return Ok(Operation::ready(Ok(py.None()))) };
        let future = async move { Ok::<_, mtcache::Error>(stream.lock().await.next().await) };
        let next = Operation::new(future, |py, heard| match heard {
            Some(Heard::Event(event)) => dict(py, &event)?.into_py_any(py),
            Some(Heard::Missed(count)) => {
                let dict = PyDict::new(py);
                dict.set_item("kind", "missed")?;
                dict.set_item("count", count)?;
                dict.into_py_any(py)
            }
            None => Ok(py.None()),
        });
        Ok(next.ends_with_its_task())
    }
}

fn dict<'py>(py: Python<'py>, event: &Event<'_>) -> PyResult<Bound<'py, PyDict>> {
    let dict = PyDict::new(py);
    let about = |kind: &str, region: Option<&str>, key: Option<&str>| {
        dict.set_item("kind", kind)?;
        if let Some(region) = region {
            dict.set_item("region", region)?;
        }
        key.map_or(Ok(()), |key| dict.set_item("key", key))
    };
    match event {
        Event::Read { region, key, source, staleness, elapsed, .. } => {
            about("read", Some(region), Some(key))?;
            dict.set_item("source", source.name())?;
            dict.set_item("is_stale", *staleness == mtcache::Staleness::Stale)?;
            dict.set_item("seconds", elapsed.as_secs_f64())?;
        }
        Event::Miss { region, key, elapsed, .. } => {
            about("miss", Some(region), Some(key))?;
            dict.set_item("seconds", elapsed.as_secs_f64())?;
        }
        Event::Load { region, key, elapsed, succeeded, .. } => {
            about("load", Some(region), Some(key))?;
            dict.set_item("seconds", elapsed.as_secs_f64())?;
            dict.set_item("succeeded", succeeded)?;
        }
        Event::Bypassed { region, key, .. } => about("bypassed", Some(region), Some(key))?,
        Event::FillRefused { region, key, .. } => about("fill_refused", Some(region), Some(key))?,
        Event::Changed { region, key, cause, .. } => {
            about("changed", Some(region), Some(key))?;
            dict.set_item("cause", cause.name())?;
        }
        Event::RegionInvalidated { region, keys, .. } => {
            about("region_invalidated", Some(region), None)?;
            dict.set_item("count", keys)?;
        }
        Event::NearDropped { key, cause, .. } => {
            about("near_dropped", None, Some(key))?;
            dict.set_item("cause", cause.name())?;
        }
        Event::NearCleared { .. } => about("near_cleared", None, None)?,
        Event::ShadowDiffered { region, key, places, .. } => {
            about("shadow_differed", Some(region), Some(key))?;
            dict.set_item("places", places)?;
        }
        Event::Violation { region, key, age, .. } => {
            about("violation", Some(region), Some(key))?;
            dict.set_item("seconds", age.as_secs_f64())?;
        }
        Event::Switched { region, from, to, .. } => {
            about("switched", Some(region), None)?;
            dict.set_item("was", from.name())?;
            dict.set_item("is", to.name())?;
        }
        // One that this package does not know yet.
        _ => about("other", None, None)?,
    }
    Ok(dict)
}
