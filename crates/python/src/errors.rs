//! Errors as Python exceptions, one class for each kind.
//!
//! Invariant: what a caller can act on differently is a class of its own; each says whether the write can have taken effect. The classes
//! are written in Python (`mtcache/errors.py`), where their place among the built-in ones is easier to read.

use std::error::Error as StdError;
use std::fmt;

use mtcache::{Error, ErrorKind, Outcome, trading};
use pyo3::exceptions::PyRuntimeError;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyModule, PyType};

use crate::ending;

/// The class for a kind.
fn class_name(kind: ErrorKind) -> &'static str {
    match kind {
        ErrorKind::Config => "ConfigError",
        ErrorKind::BadTtl => "BadTtlError",
        ErrorKind::BadKey => "BadKeyError",
        ErrorKind::Unencodable => "UnencodableError",
        ErrorKind::Undecodable => "UndecodableError",
        ErrorKind::WrongType => "WrongTypeError",
        ErrorKind::NotANumber => "NotANumberError",
        ErrorKind::Unavailable => "UnavailableError",
        ErrorKind::ConnectionLost => "ConnectionLostError",
        ErrorKind::Timeout => "BackendTimeoutError",
        ErrorKind::Denied => "DeniedError",
        ErrorKind::OutOfMemory => "BackendMemoryError",
        ErrorKind::NotNow => "NotNowError",
        ErrorKind::Shed => "ShedError",
        ErrorKind::Refused => "RefusedError",
        ErrorKind::Protocol => "ProtocolError",
        ErrorKind::Loader => "LoaderError",
        ErrorKind::LoaderPanicked => "LoaderLostError",
        ErrorKind::LoadTimeout => "LoadTimeoutError",
        ErrorKind::Deadline => "DeadlineError",
        _ => "CacheError",
    }
}

fn class<'py>(py: Python<'py>, name: &str) -> PyResult<Bound<'py, PyAny>> {
    static MODULE: PyOnceLock<Py<PyModule>> = PyOnceLock::new();
    let module = MODULE.get_or_try_init(py, || py.import("mtcache.errors").map(Bound::unbind))?;
    module.bind(py).getattr(name)
}

/// An exception of one of the classes.
pub(crate) fn new(py: Python<'_>, name: &str, message: &str) -> PyErr {
    match class(py, name).and_then(|class| class.cast_into::<PyType>().map_err(Into::into)) {
        Ok(class) => PyErr::from_type(class, (message.to_owned(),)),
        Err(error) => error,
    }
}

/// The exception of an error.
pub(crate) fn raise(py: Python<'_>, error: &Error) -> PyErr {
    let failure = failure_of(error);
    if let Some(failure) = failure
        && failure.is_ours(py)
    {
        return failure.exception.clone_ref(py);
    }
    let raised = new(py, class_name(error.kind()), &error.to_string());
    let unknown = error.outcome() == Outcome::Unknown;
    if unknown && let Err(other) = raised.value(py).setattr("outcome_unknown", true) {
        return other;
    }
    if let Some(failure) = failure {
        raised.set_cause(py, Some(failure.exception.clone_ref(py)));
    }
    raised
}

/// The exception of an error of the trading layer.
pub(crate) fn raise_trading(py: Python<'_>, error: &trading::Error) -> PyErr {
    use trading::ErrorKind as Kind;
    if let Some(error) = error.cache_error() {
        return raise(py, error);
    }
    let name = match error.kind() {
        Kind::InvalidTimestamp => "InvalidTimestampError",
        Kind::InvalidSignal => "InvalidSignalError",
        Kind::SignalTooOld => "SignalTooOldError",
        Kind::InvalidKey => "BadKeyError",
        Kind::InvalidValue => "UnencodableError",
        Kind::Undecodable => "UndecodableError",
        Kind::Config => "ConfigError",
        _ => "CacheError",
    };
    new(py, name, &error.to_string())
}

pub(crate) fn forked() -> PyErr {
    Python::attach(|py| {
        new(py, "ForkedError", "this was opened before a fork; a child has to open a cache of its own")
    })
}

pub(crate) fn closed(py: Python<'_>) -> PyErr {
    ending::stay(py);
    new(py, "ClosedError", "this cache has been closed")
}

pub(crate) fn internal(message: &'static str) -> PyErr {
    PyRuntimeError::new_err(message)
}

/// What a loader in Python raised. Its text is made where it was raised: a thread of the runtime must not wait for Python.
pub(crate) struct LoaderFailure {
    exception: PyErr,
    text: String,
}

impl LoaderFailure {
    pub(crate) fn new(py: Python<'_>, exception: PyErr) -> Self {
        let name = exception.get_type(py).name().map(|name| name.to_string()).unwrap_or_default();
        Self { text: format!("{name}: {}", exception.value(py)), exception }
    }

    /// Whether it is an exception of this package already, which says more than one around it would.
    fn is_ours(&self, py: Python<'_>) -> bool {
        class(py, "CacheError").is_ok_and(|class| self.exception.is_instance(py, &class))
    }
}

fn failure_of(error: &Error) -> Option<&LoaderFailure> {
    error.source().and_then(|source| source.downcast_ref())
}

impl fmt::Display for LoaderFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl fmt::Debug for LoaderFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("LoaderFailure").field(&self.text).finish()
    }
}

impl StdError for LoaderFailure {}
