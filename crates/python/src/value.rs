//! A value as the layer keeps it for Python: its stored bytes, and the object they were decoded to if that is shared.

use std::sync::OnceLock;

use mtcache::cache::codec::Stored;
use pyo3::prelude::*;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::decode::decode;

/// Stored bytes, and one object made of them for readers who share it.
pub(crate) struct Value {
    stored: Stored,
    shared: OnceLock<Py<PyAny>>,
}

impl Value {
    pub(crate) fn new(bytes: Vec<u8>) -> Self {
        Self { stored: Stored(bytes), shared: OnceLock::new() }
    }

    /// An object of the caller's own.
    pub(crate) fn fresh(&self, py: Python<'_>) -> PyResult<Py<PyAny>> {
        decode(py, &self.stored.0)
    }

    /// The object that all readers of this value get.
    pub(crate) fn shared(&self, py: Python<'_>) -> PyResult<Py<PyAny>> {
        if let Some(object) = self.shared.get() {
            return Ok(object.clone_ref(py));
        }
        let object = self.fresh(py)?;
        // Decoding lets others run; who came first stays.
        Ok(self.shared.get_or_init(|| object).clone_ref(py))
    }
}

impl Serialize for Value {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.stored.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Value {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Stored::deserialize(deserializer).map(|stored| Self { stored, shared: OnceLock::new() })
    }
}
