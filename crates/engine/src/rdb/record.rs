//! One key of a snapshot: its expiry, what the eviction policy knows of it, its name and its value.
//!
//! The bytes that stand between the keys of a file are named here as well, because the first of them belong to a key.

use super::Object;
use super::commands::write_commands;
use super::write::{Compression, write_kind_of, write_length, write_string, write_value};
use crate::keyspace::{Entry, LfuParameters, idle_millis};
use crate::time::UnixMillis;
use crate::types::EncodingLimits;

/// The bytes that announce something else than a value.
pub mod opcode {
    /// The place of a slot in a cluster, and its sizes: hints.
    pub const SLOT_INFO: u8 = 244;
    /// A library of functions.
    pub const FUNCTION: u8 = 245;
    /// A library of functions as release candidates of 7.0 wrote it.
    pub const FUNCTION_BEFORE_RELEASE: u8 = 246;
    /// What a module keeps besides its keys.
    pub const MODULE_AUX: u8 = 247;
    /// Seconds since the next key was last used.
    pub const IDLE: u8 = 248;
    /// The use counter of the next key.
    pub const FREQ: u8 = 249;
    /// A fact about the file.
    pub const AUX: u8 = 250;
    /// How many keys come, and how many of them expire: hints.
    pub const RESIZE_DB: u8 = 251;
    /// When the next key expires, in milliseconds.
    pub const EXPIRE_MILLIS: u8 = 252;
    /// When the next key expires, in seconds.
    pub const EXPIRE_SECONDS: u8 = 253;
    /// The database of the keys that follow.
    pub const SELECT_DB: u8 = 254;
    /// The end of the keys.
    pub const END: u8 = 255;
}

/// A key that comes from a file.
#[derive(Debug)]
#[non_exhaustive]
pub struct Loaded {
    /// The value.
    pub object: Object,
    /// When it expires.
    pub expires_at: Option<UnixMillis>,
    /// Seconds since it was last used, when the file says so.
    pub idle_seconds: Option<u64>,
    /// Its use counter, when the file says so.
    pub counter: Option<u8>,
}

impl Loaded {
    /// A key without an expiry and of unknown use.
    pub fn new(object: Object) -> Self {
        Self { object, expires_at: None, idle_seconds: None, counter: None }
    }
}

/// How keys are written: fixed for one snapshot.
#[derive(Debug, Clone, Copy)]
pub(crate) struct RecordForm {
    pub(crate) limits: EncodingLimits,
    pub(crate) compression: Compression,
    pub(crate) now: UnixMillis,
    pub(crate) access: AccessForm,
    pub(crate) shape: RecordShape,
}

/// What a snapshot is written as.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum RecordShape {
    /// As the keys of an RDB file. The default.
    #[default]
    Rdb,
    /// As the commands that make the keys anew: the base of a journal that is commands from its beginning.
    Commands,
}

/// What is written of the record of uses.
#[derive(Debug, Clone, Copy)]
pub(crate) enum AccessForm {
    /// Nothing: the policy does not read it.
    Left,
    /// Seconds without a use.
    Idle,
    /// The use counter.
    Counter(LfuParameters),
}

/// Appends everything about one key.
pub(crate) fn write_record(entry: &Entry, form: &RecordForm, out: &mut Vec<u8>) {
    if form.shape == RecordShape::Commands {
        return write_commands(entry, out);
    }
    if let Some(at) = entry.expires_at() {
        out.push(opcode::EXPIRE_MILLIS);
        out.extend_from_slice(&at.0.to_le_bytes());
    }
    match form.access {
        AccessForm::Left => {}
        AccessForm::Idle => {
            out.push(opcode::IDLE);
            write_length(idle_millis(entry.access(), form.now) / 1000, out);
        }
        AccessForm::Counter(lfu) => {
            out.extend_from_slice(&[opcode::FREQ, lfu.counter(entry.access(), form.now) as u8]);
        }
    }
    out.push(write_kind_of(entry.value()).to_byte());
    write_string(entry.key(), form.compression, out);
    write_value(entry.value(), &form.limits, form.compression, out);
}
