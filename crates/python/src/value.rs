//! A value as the layer keeps it for Python: its stored bytes, and the object they were decoded to if that is shared.
//!
//! Invariant: bytes are decoded by the codec that they were stored in, which a framed region has in its frames; what an older schema has stored
//! is turned into what this one's readers take before anybody sees it. Deliberately absent: the forms themselves (`encode.rs`, `decode.rs`,
//! `message_pack.rs`).

use std::collections::HashMap;
use std::sync::{Arc, OnceLock};

use mtcache::cache::Codec;
use mtcache::cache::codec::Coded;
use pyo3::prelude::*;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::calling;
use crate::decode::{decode, decode_json};
use crate::encode::{encode, encode_json};
use crate::{errors, message_pack};

/// What turns values of older schemas into those of now, by their schemas.
pub(crate) type Upgrades = Arc<HashMap<u32, Py<PyAny>>>;

/// Stored bytes, and one object made of them for readers who share it.
pub(crate) struct Value {
    coded: Coded,
    /// The older schema that the bytes are of.
    schema: Option<u32>,
    shared: OnceLock<Py<PyAny>>,
}

impl Value {
    /// The value in the form that a region stores: plain, or by a codec.
    pub(crate) fn of(object: &Bound<'_, PyAny>, codec: Option<Codec>) -> PyResult<Self> {
        let bytes = match codec {
            None => encode(object)?,
            Some(Codec::MessagePack) => message_pack::encode(object)?,
            Some(_) => encode_json(object)?,
        };
        Ok(Self::from(Coded { codec, bytes }))
    }

    /// How many bytes it is stored as.
    pub(crate) fn len(&self) -> usize {
        self.coded.bytes.len()
    }

    /// A value of an older schema.
    pub(crate) fn of_schema(schema: u32, coded: Coded) -> Self {
        Self { schema: Some(schema), ..Self::from(coded) }
    }

    /// An object of the caller's own.
    pub(crate) fn fresh(&self, py: Python<'_>, upgrades: &Upgrades) -> PyResult<Py<PyAny>> {
        let bytes = &self.coded.bytes;
        let object = match self.coded.codec {
            None => decode(py, bytes),
            Some(Codec::MessagePack) => message_pack::decode(py, bytes),
            Some(_) => decode_json(py, bytes),
        }?;
        match self.schema.and_then(|schema| upgrades.get(&schema)) {
            Some(upgrade) => calling::call(upgrade.bind(py), (object,)).map(Bound::unbind).map_err(|error| {
                let message =
                    format!("a value of an older schema could not be turned into one of now: {error}");
                let raised = errors::new(py, "UndecodableError", &message);
                raised.set_cause(py, Some(error));
                raised
            }),
            None => Ok(object),
        }
    }

    /// The object that all readers of this value get.
    pub(crate) fn shared(&self, py: Python<'_>, upgrades: &Upgrades) -> PyResult<Py<PyAny>> {
        if let Some(object) = self.shared.get() {
            return Ok(object.clone_ref(py));
        }
        let object = self.fresh(py, upgrades)?;
        // Decoding lets others run; who came first stays.
        Ok(self.shared.get_or_init(|| object).clone_ref(py))
    }
}

impl From<Coded> for Value {
    fn from(coded: Coded) -> Self {
        Self { coded, schema: None, shared: OnceLock::new() }
    }
}

impl Serialize for Value {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.coded.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Value {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Coded::deserialize(deserializer).map(Self::from)
    }
}
