//! What DUMP gives and RESTORE takes: the kind of the value, the value, the version of the format, a checksum.

use super::source::byte;
use super::{
    Compression, Fault, Object, ValueKind, WRITTEN_VERSION, crc64, read_object, reads_version, write_kind_of,
    write_value,
};
use crate::keyspace::ValueRef;
use crate::types::EncodingLimits;

const VERSION_LEN: usize = 2;
const CHECKSUM_LEN: usize = 8;

/// Why a payload is refused.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum BadPayload {
    /// Its version is none that is read, or its checksum is wrong.
    Footer,
    /// Its content is not a value.
    Content(Fault),
}

/// Makes a payload of a value.
pub(crate) fn dump(value: ValueRef<'_>, limits: &EncodingLimits, compression: Compression) -> Vec<u8> {
    let mut out = vec![write_kind_of(value).to_byte()];
    write_value(value, limits, compression, &mut out);
    out.extend_from_slice(&WRITTEN_VERSION.to_le_bytes());
    let checksum = crc64(0, &out);
    out.extend_from_slice(&checksum.to_le_bytes());
    out
}

/// Makes a value of a payload.
pub(crate) fn undump(payload: &[u8], limits: &EncodingLimits) -> Result<Object, BadPayload> {
    let (rest, checksum) = payload.split_last_chunk::<CHECKSUM_LEN>().ok_or(BadPayload::Footer)?;
    let (content, version) = rest.split_last_chunk::<VERSION_LEN>().ok_or(BadPayload::Footer)?;
    let version = u16::from_le_bytes(*version);
    // Redis takes whatever is not newer than itself, 0 included.
    let is_read = version == 0 || reads_version(version);
    if !is_read || crc64(0, rest) != u64::from_le_bytes(*checksum) {
        return Err(BadPayload::Footer);
    }
    let mut source = content;
    let kind = byte(&mut source).and_then(ValueKind::from_byte).map_err(BadPayload::Content)?;
    read_object(&mut source, kind, limits).map_err(BadPayload::Content)
}
