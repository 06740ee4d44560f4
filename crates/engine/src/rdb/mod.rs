//! Values in Redis' RDB form: what DUMP gives, RESTORE takes and snapshot files are made of.
//!
//! Here is the form of one value, read from any [`Source`] and written by the types' own thresholds; what stands around
//! the values in a file is for the persistence layer. Every encoding that Redis 7 or an older one writes is read; a type that
//! the engine does not have is refused by name. Deliberately absent: files, recursion, and trust in any length.

mod commands;
mod crc64;
mod kind;
mod listpack;
mod lzf;
mod payload;
mod read;
mod record;
mod source;
#[cfg(test)]
mod tests;
mod write;

use std::fmt;

pub use self::crc64::crc64;
pub use self::kind::{ValueKind, module_name};
pub(crate) use self::payload::{BadPayload, dump, undump};
pub(crate) use self::read::Content;
pub use self::read::{Object, read_object, skip_module_value};
pub(crate) use self::record::{AccessForm, RecordForm, write_record};
pub use self::record::{Loaded, RecordShape, opcode};
pub use self::source::{Source, array, byte, length, string};
pub use self::write::{Compression, write_length, write_string};
pub(crate) use self::write::{each_listpack, write_kind_of, write_value};

/// The version of the format that is written, which is that of Redis 7.0.
pub const WRITTEN_VERSION: u16 = 10;

/// Whether files and payloads of this version of the format are read: Redis' up to 12, and Valkey's 80.
pub fn reads_version(version: u16) -> bool {
    matches!(version, 1..=12 | 80)
}

/// Why bytes could not be read as a value.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Fault {
    /// The bytes are not what a writer of the format makes.
    Damaged(Damage),
    /// Sound, but of a type that is not supported: its name.
    Unsupported(String),
    /// A collection without elements, which early versions of Redis could leave behind; there is nothing to load.
    Empty,
    /// The source itself failed, and knows why.
    Source,
}

/// What is wrong with bytes that cannot be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Damage {
    /// They end too early.
    TooShort,
    /// A length cannot be right.
    Length,
    /// A compressed string does not expand to what it announces.
    Compression,
    /// A listpack, ziplist, zipmap or intset is broken.
    Packed,
    /// A member or field occurs twice.
    Duplicate,
    /// A score is no number.
    Score,
    /// A field without a value, or a member without a score.
    Odd,
    /// There is no such type of value.
    Kind,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Damaged(damage) => damage.fmt(f),
            Self::Unsupported(name) => write!(f, "{name} is not supported by this version"),
            Self::Empty => f.write_str("a collection has no elements"),
            Self::Source => f.write_str("it cannot be read"),
        }
    }
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::TooShort => "it ends too early",
            Self::Length => "a length cannot be right",
            Self::Compression => "a compressed string is broken",
            Self::Packed => "a packed collection is broken",
            Self::Duplicate => "an element occurs twice",
            Self::Score => "a score is no number",
            Self::Odd => "an element lacks its other half",
            Self::Kind => "there is no such type of value",
        })
    }
}

impl std::error::Error for Fault {}
