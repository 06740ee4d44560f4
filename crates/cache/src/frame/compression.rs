//! Packing of values in frames.
//!
//! Invariants: a value is packed only if that makes it smaller; unpacking gives exactly as many bytes as the frame names, and memory is
//! taken as bytes come out, never for what a frame merely claims. Deliberately absent: dictionaries, and levels: zstd's default.

use std::borrow::Cow;
use std::io::Read as _;

use super::Unreadable;

/// zstd's own default.
const ZSTD_LEVEL: i32 = 3;
/// The longest window that a zstd value may ask for, as a power of two: 8 MiB, what levels up to 19 use.
const ZSTD_MAX_WINDOW_LOG: u32 = 23;
/// LZ4 makes at the most so many bytes out of one.
const LZ4_MAX_RATIO: usize = 255;
/// Taken at once when unpacking begins.
const FIRST_BYTES: usize = 64 * 1024;

/// How values are packed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Compression {
    /// Not at all.
    #[default]
    None,
    /// Zstandard, level 3: smaller.
    Zstd,
    /// An LZ4 block: faster.
    Lz4,
}

impl Compression {
    pub(super) fn of(number: u8) -> Result<Self, Unreadable> {
        match number {
            0 => Ok(Self::None),
            1 => Ok(Self::Zstd),
            2 => Ok(Self::Lz4),
            other => Err(Unreadable::Newer(format!("compression {other}"))),
        }
    }

    pub(super) fn number(self) -> u8 {
        match self {
            Self::None => 0,
            Self::Zstd => 1,
            Self::Lz4 => 2,
        }
    }

    /// The value packed, and how; as it is if packing does not make it smaller.
    pub(super) fn pack(self, value: &[u8]) -> (Self, Cow<'_, [u8]>) {
        let packed = match self {
            Self::None => None,
            Self::Zstd => zstd::bulk::compress(value, ZSTD_LEVEL).ok(),
            Self::Lz4 => Some(lz4_flex::block::compress(value)),
        };
        match packed {
            Some(packed) if packed.len() < value.len() => (self, Cow::Owned(packed)),
            _ => (Self::None, Cow::Borrowed(value)),
        }
    }

    /// The value, which must have so many bytes.
    pub(super) fn unpack(self, packed: &[u8], bytes: usize) -> Result<Cow<'_, [u8]>, Unreadable> {
        let value = match self {
            Self::None => return Ok(Cow::Borrowed(packed)),
            Self::Zstd => unpack_zstd(packed, bytes),
            // It takes what is claimed at once; so the claim is held against what can be in so few bytes.
            Self::Lz4 if bytes / LZ4_MAX_RATIO > packed.len() => None,
            Self::Lz4 => lz4_flex::block::decompress(packed, bytes).ok(),
        };
        value
            .filter(|value| value.len() == bytes)
            .map(Cow::Owned)
            .ok_or(Unreadable::Broken("its value does not unpack to what it names"))
    }
}

fn unpack_zstd(packed: &[u8], bytes: usize) -> Option<Vec<u8>> {
    let mut reader = zstd::stream::read::Decoder::with_buffer(packed).ok()?;
    reader.window_log_max(ZSTD_MAX_WINDOW_LOG).ok()?;
    let mut value = Vec::with_capacity(bytes.min(FIRST_BYTES));
    // One byte more than claimed is enough to see that there are more.
    reader.take(bytes as u64 + 1).read_to_end(&mut value).ok()?;
    Some(value)
}
