//! The one runtime of the process, and what a fork does to it.
//!
//! Invariant: a child of a fork never touches what its parent made: the threads are gone, and sockets and locks are the parent's. It gets
//! a new runtime, and what was opened before the fork is refused with a clear error and never dropped (dropping a socket would take it
//! out of the parent's poll). Deliberately absent: a way to stop it; its threads hold no Python state and end with the process.

use std::sync::atomic::{AtomicPtr, AtomicU32, Ordering};
use std::{mem, ptr};

use pyo3::prelude::*;
use tokio::runtime::{Builder, Runtime};
use tokio::sync::{Semaphore, SemaphorePermit};

use crate::{errors, spin};

/// Threads of the runtime, unless `MTCACHE_THREADS` says otherwise. One carries several hundred thousand commands a second, and each more
/// takes time from Python's own.
const THREADS: usize = 1;
/// Most threads that can be asked for.
const MAX_THREADS: usize = 64;

/// Loaders that run at once in threads of the package, for callers without a loop, unless `MTCACHE_LOADER_THREADS` says otherwise. Further ones
/// wait for their turn, in the time that a load may take.
const LOADER_THREADS: usize = 512;
/// Most that can be asked for.
const MAX_LOADER_THREADS: usize = 4096;
/// Threads besides for what runs aside. A loader may wait for such a thing, so that these are never a loader's.
const ASIDE_THREADS: usize = 64;

/// What runs; null before the first use, and in a child after a fork. What it points at is never freed.
static RUNNING: AtomicPtr<Running> = AtomicPtr::new(ptr::null_mut());
/// How many forks lie between this process and the one that loaded the module.
static GENERATION: AtomicU32 = AtomicU32::new(0);

struct Running {
    runtime: Runtime,
    /// A permit for each loader that may run in a thread of the package.
    loaders: Semaphore,
}

/// The runtime, started if there is none. Called with the GIL held, so that two do not start one each.
pub(crate) fn runtime(_: Python<'_>) -> PyResult<&'static Runtime> {
    if let Some(running) = running() {
        return Ok(&running.runtime);
    }
    let loaders = threads("MTCACHE_LOADER_THREADS", LOADER_THREADS, MAX_LOADER_THREADS);
    let runtime = Builder::new_multi_thread()
        .worker_threads(threads("MTCACHE_THREADS", THREADS, MAX_THREADS))
        .max_blocking_threads(loaders + ASIDE_THREADS)
        .thread_name("mtcache")
        .enable_all()
        .build()?;
    let started: &'static Running =
        Box::leak(Box::new(Running { runtime, loaders: Semaphore::new(loaders) }));
    RUNNING.store(ptr::from_ref(started).cast_mut(), Ordering::Release);
    Ok(&started.runtime)
}

/// How many threads there are to be.
fn threads(variable: &str, default: usize, most: usize) -> usize {
    std::env::var(variable).ok().and_then(|text| text.parse().ok()).unwrap_or(default).clamp(1, most)
}

/// Waits until one more loader may run in a thread of the package.
pub(crate) async fn place_for_loader() -> Option<SemaphorePermit<'static>> {
    running()?.loaders.acquire().await.ok()
}

#[allow(
    unsafe_code,
    reason = "the pointer is null or comes from Box::leak, and what it points at is never freed or written"
)]
fn running() -> Option<&'static Running> {
    unsafe { RUNNING.load(Ordering::Acquire).as_ref() }
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
    RUNNING.store(ptr::null_mut(), Ordering::Release);
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
