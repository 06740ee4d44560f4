//! Large values on their way between Python's memory and ours: copied without Python's lock.
//!
//! Invariant: what is copied meanwhile cannot change and cannot go: the bytes of a `str` or a `bytes` whose owner is held, or of an object that
//! nobody else has yet. Deliberately absent: texts on their way to Python; only its own function makes them, with the lock.

#![allow(
    unsafe_code,
    reason = "a bytes object is made without its content, which is written before anybody else can have it"
)]

use std::mem::MaybeUninit;
use std::sync::atomic::{AtomicBool, Ordering};
use std::{ptr, slice};

use pyo3::ffi::{PyBytes_AsString, PyBytes_FromStringAndSize};
use pyo3::prelude::*;
use pyo3::types::PyBytes;

/// From how many bytes on: fewer are copied sooner than the lock is given away and taken back.
pub(crate) const LARGE: usize = 256 * 1024;

/// Whether the value that was read last was large: how large the next one is, nobody knows before an engine in this process has copied it.
static LAST_IS_LARGE: AtomicBool = AtomicBool::new(false);

/// Whether a read is to expect much.
pub(crate) fn expects_large() -> bool {
    LAST_IS_LARGE.load(Ordering::Relaxed)
}

/// Notes how much a read has brought.
pub(crate) fn note_read(bytes: usize) {
    let is_large = bytes >= LARGE;
    if is_large != expects_large() {
        LAST_IS_LARGE.store(is_large, Ordering::Relaxed);
    }
}

/// What is done with so many bytes: without the lock, if they are many.
pub(crate) fn unlocked_if_large<R: Send>(py: Python<'_>, bytes: usize, work: impl FnOnce() -> R + Send) -> R {
    if bytes < LARGE { work() } else { py.detach(work) }
}

/// A copy of the bytes of a `str` or a `bytes` that is held meanwhile.
pub(crate) fn copied(py: Python<'_>, bytes: &[u8]) -> Vec<u8> {
    unlocked_if_large(py, bytes.len(), || bytes.to_vec())
}

/// A `bytes` of these.
pub(crate) fn object_of<'py>(py: Python<'py>, bytes: &[u8]) -> PyResult<Bound<'py, PyBytes>> {
    if bytes.len() < LARGE {
        return Ok(PyBytes::new(py, bytes));
    }
    let length = bytes.len().try_into()?;
    // A null pointer asks for room alone.
    let object = unsafe {
        let room = PyBytes_FromStringAndSize(ptr::null(), length);
        Bound::from_owned_ptr_or_err(py, room)?.cast_into_unchecked::<PyBytes>()
    };
    let room = unsafe {
        slice::from_raw_parts_mut(PyBytes_AsString(object.as_ptr()).cast::<MaybeUninit<u8>>(), bytes.len())
    };
    py.detach(|| {
        room.write_copy_of_slice(bytes);
    });
    Ok(object)
}

/// What `make` makes of bytes that nobody needs afterwards.
pub(crate) fn made_of<R>(py: Python<'_>, bytes: Vec<u8>, make: impl FnOnce(Python<'_>, &[u8]) -> R) -> R {
    note_read(bytes.len());
    let object = make(py, &bytes);
    unlocked_if_large(py, bytes.len(), move || drop(bytes));
    object
}
