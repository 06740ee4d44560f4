//! Calls of Python code by threads that may see the interpreter's end.
//!
//! Up to version 3.13 the interpreter, once it ends, ends every other thread that wants its lock back, by unwinding all that the thread is in. Frames of
//! Rust are not made for that: the process would abort. Invariant: such a thread gets no further than here, and stays until the process is gone,
//! as it does from 3.14 on. Deliberately absent: calls that run no Python code, and so never wait for the lock.

#![allow(
    unsafe_code,
    reason = "the one call that lets a thread be unwound up to here; the pointers are those of living objects"
)]

use std::ptr;

use pyo3::BoundObject;
use pyo3::ffi::PyObject;
use pyo3::prelude::*;
use pyo3::types::PyTuple;

unsafe extern "C-unwind" {
    fn PyObject_Call(
        callable: *mut PyObject,
        arguments: *mut PyObject,
        named: *mut PyObject,
    ) -> *mut PyObject;
}

/// Calls a Python callable.
pub(crate) fn call<'py>(
    callable: &Bound<'py, PyAny>,
    arguments: impl IntoPyObject<'py, Target = PyTuple, Error: Into<PyErr>>,
) -> PyResult<Bound<'py, PyAny>> {
    let py = callable.py();
    let arguments = arguments.into_pyobject(py).map_err(Into::into)?.into_bound();
    let stays = Stays;
    let result = unsafe { PyObject_Call(callable.as_ptr(), arguments.as_ptr(), ptr::null_mut()) };
    std::mem::forget(stays);
    unsafe { Bound::from_owned_ptr_or_err(py, result) }
}

/// Calls a method of a Python object.
pub(crate) fn call_method<'py>(
    object: &Bound<'py, PyAny>,
    name: &str,
    arguments: impl IntoPyObject<'py, Target = PyTuple, Error: Into<PyErr>>,
) -> PyResult<Bound<'py, PyAny>> {
    call(&object.getattr(name)?, arguments)
}

/// Keeps its thread if it is unwound.
struct Stays;

impl Drop for Stays {
    fn drop(&mut self) {
        loop {
            std::thread::park();
        }
    }
}
