//! Counters as Python has them.

use mtcache::RegionStats;
use pyo3::prelude::*;
use pyo3::types::PyDict;

/// A region's counters by their names, with what is worked out of them.
pub(crate) fn dict<'py>(py: Python<'py>, stats: &RegionStats) -> PyResult<Bound<'py, PyDict>> {
    let dict = PyDict::new(py);
    for (name, count) in stats.values().filter(|(name, _)| *name != "load_nanos") {
        dict.set_item(name, count)?;
    }
    dict.set_item("hit_rate", stats.hit_rate())?;
    dict.set_item("load_seconds", stats.load_time().as_secs_f64())?;
    dict.set_item("seconds_saved", stats.time_saved().as_secs_f64())?;
    Ok(dict)
}
