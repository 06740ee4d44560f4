//! The extension module `_mtcache`: the layer as Python's package `mtcache` calls it.
//!
//! Invariants: no thread of the runtime waits for Python's lock, and no call waits while it holds it. Deliberately absent: logic of its own; what
//! the cache promises is kept by the layer, and what is only Python's is written in Python.

#![allow(clippy::needless_pass_by_value, reason = "PyO3 hands arguments over by value")]

mod arguments;
mod batches;
mod begin;
mod cache;
mod calling;
mod collections;
mod decode;
mod encode;
mod ending;
mod errors;
mod events;
mod hub;
mod large;
mod loading;
mod message_pack;
mod operating;
mod operation;
mod policy;
mod region;
mod runtime;
mod spin;
mod stats;
mod trading;
mod value;

use pyo3::prelude::*;
use pyo3::types::PyBytes;

/// The allocator of the server too: what a call needs is made in one thread and given back in another, and the engine counts its memory in
/// jemalloc's classes. Python's own memory stays Python's.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// The stored form of a value, as the cache would write it.
#[pyfunction]
#[pyo3(name = "encode")]
fn stored_form<'py>(py: Python<'py>, value: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyBytes>> {
    large::object_of(py, &encode::encode(value)?)
}

/// The value of a stored form, as the cache would read it.
#[pyfunction]
#[pyo3(name = "decode")]
fn value_of(py: Python<'_>, stored: &[u8]) -> PyResult<Py<PyAny>> {
    decode::decode(py, stored)
}

#[pymodule]
fn _mtcache(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_class::<cache::Core>()?;
    module.add_class::<region::RegionCore>()?;
    module.add_class::<trading::SignalCore>()?;
    module.add_class::<trading::SessionCore>()?;
    module.add_class::<operation::Operation>()?;
    module.add_function(wrap_pyfunction!(stored_form, module)?)?;
    module.add_function(wrap_pyfunction!(value_of, module)?)?;
    module.add_function(wrap_pyfunction!(cache::open, module)?)?;
    module.add_function(wrap_pyfunction!(operating::hot_keys_of, module)?)?;
    module.add_function(wrap_pyfunction!(runtime::after_fork_in_child, module)?)?;
    module.add_function(wrap_pyfunction!(operation::send_waiting, module)?)?;
    module.add_function(wrap_pyfunction!(operation::_waits_here, module)?)?;
    module.add_function(wrap_pyfunction!(ending::_interpreter_ends, module)?)?;
    module.add("__version__", env!("CARGO_PKG_VERSION"))
}
