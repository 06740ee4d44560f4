//! Calls of Python code by threads that may see the interpreter's end.
//!
//! Up to version 3.13 the interpreter, once it ends, ends every other thread that wants its lock back, by unwinding all that the thread is in. Frames of
//! Rust are not made for that: the process would abort. Invariant: such a thread gets no further than here, and stays until the process is gone,
//! as it does from 3.14 on. Deliberately absent: calls that run no Python code, and so never wait for the lock.

#![allow(
    unsafe_code,
    reason = "the one call that lets a thread be unwound up to here; the pointers are those of living objects"
)]

use std::hint::black_box;
use std::{mem, ptr};

use pyo3::BoundObject;
use pyo3::ffi::{PyObject, PyObject_Call};
use pyo3::prelude::*;
use pyo3::types::PyTuple;

/// `PyObject_Call` as what it is: a function that may be unwound.
type Unwinds = unsafe extern "C-unwind" fn(*mut PyObject, *mut PyObject, *mut PyObject) -> *mut PyObject;
/// The same as it is declared.
type Declared = unsafe extern "C" fn(*mut PyObject, *mut PyObject, *mut PyObject) -> *mut PyObject;

/// Calls a Python callable.
pub(crate) fn call<'py>(
    callable: &Bound<'py, PyAny>,
    arguments: impl IntoPyObject<'py, Target = PyTuple, Error: Into<PyErr>>,
) -> PyResult<Bound<'py, PyAny>> {
    let py = callable.py();
    let arguments = arguments.into_pyobject(py).map_err(Into::into)?.into_bound();
    // By a pointer that the optimiser knows nothing of: it takes the word of any declaration in the program that a function is never unwound, and
    // removes what is to be done then.
    let function = black_box(unsafe { mem::transmute::<Declared, Unwinds>(PyObject_Call) });
    let stays = Stays;
    let result = unsafe { function(callable.as_ptr(), arguments.as_ptr(), ptr::null_mut()) };
    mem::forget(stays);
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
