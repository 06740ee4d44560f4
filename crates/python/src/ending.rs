//! The interpreter's end, at which all caches are closed.
//!
//! Threads that nobody waits for go on for a moment more, until the interpreter ends them too. Invariant: they do not hear of what is none of their
//! faults, and who waits for one of them all the same waits no longer than [`LONGEST`]. Deliberately absent: the end itself
//! (`mtcache/cache.py`; `calling.rs` for what it does to a thread in Python code).

use std::sync::OnceLock;
use std::thread::{self, ThreadId};
use std::time::Duration;

use pyo3::prelude::*;

/// How long a thread is kept from hearing that its cache has been closed by the interpreter's end.
const LONGEST: Duration = Duration::from_secs(1);

/// The thread that ends the interpreter.
static ENDED_BY: OnceLock<ThreadId> = OnceLock::new();

/// To be called before the caches are closed.
#[pyfunction]
pub(crate) fn _interpreter_ends() {
    let _ = ENDED_BY.set(thread::current().id());
}

/// Keeps a thread that is about to be ended.
pub(crate) fn stay(py: Python<'_>) {
    if ENDED_BY.get().is_some_and(|thread| *thread != thread::current().id()) {
        py.detach(|| thread::sleep(LONGEST));
    }
}
