//! Counters as Python has them.

use mtcache::RegionStats;
use pyo3::prelude::*;
use pyo3::types::PyDict;

/// A region's counters by their names, with what is worked out of them.
pub(crate) fn dict<'py>(py: Python<'py>, stats: &RegionStats) -> PyResult<Bound<'py, PyDict>> {
    let dict = PyDict::new(py);
    for (name, count) in [
        ("hits", stats.hits),
        ("near_hits", stats.near_hits),
        ("near_kept", stats.near_kept),
        ("near_overtaken", stats.near_overtaken),
        ("near_too_large", stats.near_too_large),
        ("misses", stats.misses),
        ("bypassed", stats.bypassed),
        ("shadow_equal", stats.shadow_equal),
        ("shadow_different", stats.shadow_different),
        ("shadow_missing", stats.shadow_missing),
        ("none_hits", stats.none_hits),
        ("joined_loads", stats.joined_loads),
        ("loads", stats.loads),
        ("load_failures", stats.load_failures),
        ("loads_shed", stats.loads_shed),
        ("fills_stored", stats.fills_stored),
        ("fills_refused", stats.fills_refused),
        ("fills_too_late", stats.fills_too_late),
        ("fills_failed", stats.fills_failed),
        ("sets", stats.sets),
        ("sets_refused", stats.sets_refused),
        ("invalidations", stats.invalidations),
        ("backend_errors", stats.backend_errors),
        ("undecodable", stats.undecodable),
        ("invalidations_queued", stats.invalidations_queued),
        ("invalidations_lost", stats.invalidations_lost),
    ] {
        dict.set_item(name, count)?;
    }
    dict.set_item("hit_rate", stats.hit_rate())?;
    dict.set_item("load_seconds", stats.load_time().as_secs_f64())?;
    dict.set_item("seconds_saved", stats.time_saved().as_secs_f64())?;
    Ok(dict)
}
