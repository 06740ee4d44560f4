//! Where the bytes of a value come from: a DUMP payload in memory, or a file that is read piece by piece.
//!
//! Every length that the bytes announce is held against what is left before anything is made of it; no reader here
//! allocates more than a small multiple of the bytes that are really there.

use super::{Damage, Fault, lzf};

/// Bytes that are read once, from the front.
pub trait Source {
    /// The next `count` bytes, which are then behind. Fails, reading nothing, if fewer are left.
    fn take(&mut self, count: usize) -> Result<&[u8], Fault>;

    /// How many bytes are left.
    fn left(&self) -> u64;
}

impl Source for &[u8] {
    fn take(&mut self, count: usize) -> Result<&[u8], Fault> {
        let (taken, rest) = self.split_at_checked(count).ok_or(Fault::Damaged(Damage::TooShort))?;
        *self = rest;
        Ok(taken)
    }

    fn left(&self) -> u64 {
        self.len() as u64
    }
}

/// A length, or the short form of a string that stands in its place.
enum Length {
    Plain(u64),
    /// A string that is the digits of an integer of so many bytes.
    Integer(usize),
    Compressed,
}

/// The next byte.
pub fn byte<S: Source + ?Sized>(source: &mut S) -> Result<u8, Fault> {
    let [byte] = array(source)?;
    Ok(byte)
}

/// The next `N` bytes.
pub fn array<const N: usize, S: Source + ?Sized>(source: &mut S) -> Result<[u8; N], Fault> {
    source.take(N)?.try_into().map_err(|_| Fault::Damaged(Damage::TooShort))
}

/// A length in its variable form.
pub fn length<S: Source + ?Sized>(source: &mut S) -> Result<u64, Fault> {
    match any_length(source)? {
        Length::Plain(length) => Ok(length),
        _ => Err(Fault::Damaged(Damage::Length)),
    }
}

/// A number of elements, each of which takes at least `each` bytes of what is left.
pub(super) fn count<S: Source + ?Sized>(source: &mut S, each: u64) -> Result<usize, Fault> {
    let count = length(source)?;
    if count == 0 {
        return Err(Fault::Empty);
    }
    if count.saturating_mul(each) > source.left() {
        return Err(Fault::Damaged(Damage::Length));
    }
    usize::try_from(count).map_err(|_| Fault::Damaged(Damage::Length))
}

fn any_length<S: Source + ?Sized>(source: &mut S) -> Result<Length, Fault> {
    let first = byte(source)?;
    Ok(match first {
        0x00..=0x3f => Length::Plain(u64::from(first)),
        0x40..=0x7f => Length::Plain(u64::from(first & 0x3f) << 8 | u64::from(byte(source)?)),
        0x80 => Length::Plain(u64::from(u32::from_be_bytes(array(source)?))),
        0x81 => Length::Plain(u64::from_be_bytes(array(source)?)),
        0xc0 => Length::Integer(1),
        0xc1 => Length::Integer(2),
        0xc2 => Length::Integer(4),
        0xc3 => Length::Compressed,
        _ => return Err(Fault::Damaged(Damage::Length)),
    })
}

/// Reads a string into `out`, which is emptied before.
pub fn string<S: Source + ?Sized>(source: &mut S, out: &mut Vec<u8>) -> Result<(), Fault> {
    out.clear();
    match any_length(source)? {
        Length::Plain(length) => out.extend_from_slice(take_u64(source, length)?),
        Length::Integer(width) => {
            let value = integer(source.take(width)?);
            out.extend_from_slice(itoa::Buffer::new().format(value).as_bytes());
        }
        Length::Compressed => {
            let (packed, len) = (length(source)?, length(source)?);
            let len = usize::try_from(len).map_err(|_| Fault::Damaged(Damage::Compression))?;
            lzf::expand(take_u64(source, packed)?, len, out)?;
        }
    }
    Ok(())
}

/// The next `count` bytes, for a count that may be too large for this machine.
fn take_u64<S: Source + ?Sized>(source: &mut S, count: u64) -> Result<&[u8], Fault> {
    let count = usize::try_from(count).map_err(|_| Fault::Damaged(Damage::TooShort))?;
    source.take(count)
}

/// A signed integer of up to eight bytes, the lowest first.
pub(super) fn integer(bytes: &[u8]) -> i64 {
    let negative = bytes.last().is_some_and(|high| high & 0x80 != 0);
    let mut wide = if negative { [0xff; 8] } else { [0; 8] };
    for (to, from) in wide.iter_mut().zip(bytes) {
        *to = *from;
    }
    i64::from_le_bytes(wide)
}
