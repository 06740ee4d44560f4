//! The one runtime of the process, and what a fork does to it.
//!
//! Invariant: a child of a fork never touches what its parent made: the threads are gone, and sockets and locks are the parent's. It gets
//! a new runtime, and what was opened before the fork is refused with a clear error and never dropped (dropping a socket would take it
//! out of the parent's poll). Deliberately absent: a way to stop it; its threads hold no Python state and end with the process.

use std::sync::atomic::{AtomicPtr, AtomicU32, Ordering};
use std::{mem, ptr};

use pyo3::prelude::*;
use tokio::runtime::{Builder, Runtime};

use crate::{errors, spin};

/// Threads of the runtime, unless `MTCACHE_THREADS` says otherwise. One carries several hundred thousand commands a second, and each more
/// takes time from Python's own.
const THREADS: usize = 1;
/// Most threads that can be asked for.
const MAX_THREADS: usize = 64;

/// The runtime; null before the first use, and in a child after a fork. What it points at is never freed.
static RUNTIME: AtomicPtr<Runtime> = AtomicPtr::new(ptr::null_mut());
/// How many forks lie between this process and the one that loaded the module.
static GENERATION: AtomicU32 = AtomicU32::new(0);

/// The runtime, started if there is none. Called with the GIL held, so that two do not start one each.
pub(crate) fn runtime(_: Python<'_>) -> PyResult<&'static Runtime> {
    let running = RUNTIME.load(Ordering::Acquire);
    if let Some(runtime) = as_ref(running) {
        return Ok(runtime);
    }
    let threads = std::env::var("MTCACHE_THREADS").ok().and_then(|text| text.parse().ok()).unwrap_or(THREADS);
    let started = Builder::new_multi_thread()
        .worker_threads(threads.clamp(1, MAX_THREADS))
        .thread_name("mtcache")
        .enable_all()
        .build()?;
    let started: &'static Runtime = Box::leak(Box::new(started));
    RUNTIME.store(ptr::from_ref(started).cast_mut(), Ordering::Release);
    Ok(started)
}

#[allow(
    unsafe_code,
    reason = "the pointer is null or comes from Box::leak, and what it points at is never freed or written"
)]
fn as_ref(running: *mut Runtime) -> Option<&'static Runtime> {
    unsafe { running.as_ref() }
}

/// Which process this is, counted in forks.
pub(crate) fn generation() -> u32 {
    GENERATION.load(Ordering::Relaxed)
}

/// To be called in a child right after the fork.
#[pyfunction]
#[pyo3(name = "_after_fork_in_child")]
pub(crate) fn after_fork_in_child() {
    GENERATION.fetch_add(1, Ordering::Relaxed);
    RUNTIME.store(ptr::null_mut(), Ordering::Release);
    spin::after_fork();
}

/// Something that belongs to the process that made it.
#[derive(Debug)]
pub(crate) struct Owned<T> {
    value: Option<T>,
    generation: u32,
}

impl<T> Owned<T> {
    pub(crate) fn new(value: T) -> Self {
        Self { value: Some(value), generation: generation() }
    }

    pub(crate) fn is_ours(&self) -> bool {
        self.generation == generation()
    }

    /// The value itself, in the process that made it.
    pub(crate) fn take(mut self) -> PyResult<T> {
        match self.value.take() {
            Some(value) if self.is_ours() => Ok(value),
            other => {
                mem::forget(other);
                Err(errors::forked())
            }
        }
    }

    /// The value, in the process that made it.
    pub(crate) fn get(&self) -> PyResult<&T> {
        match &self.value {
            Some(value) if self.is_ours() => Ok(value),
            _ => Err(errors::forked()),
        }
    }
}

impl<T> Drop for Owned<T> {
    fn drop(&mut self) {
        if !self.is_ours() {
            mem::forget(self.value.take());
        }
    }
}
