//! The compact forms in which Redis keeps small collections: listpacks, and what came before them: ziplists, zipmaps.
//! And intsets, the arrays of small sets of integers.
//!
//! Reading hands elements out one by one and believes nothing: every length must fit into what is left, the announced
//! totals must agree, and the end must be where it was announced. Writing makes listpacks and intsets only.

use super::source::integer;
use super::{Damage, Fault};

const BROKEN: Fault = Fault::Damaged(Damage::Packed);
const END: u8 = 0xff;

/// An element: bytes, or an integer whose digits are meant.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Item<'a> {
    Bytes(&'a [u8]),
    Int(i64),
}

/// Room for the digits of an [`Item`].
#[derive(Default)]
pub(super) struct Digits(itoa::Buffer);

impl<'a> Item<'a> {
    pub(super) fn bytes<'b>(&'b self, digits: &'b mut Digits) -> &'b [u8]
    where
        'a: 'b,
    {
        match self {
            Self::Bytes(bytes) => bytes,
            Self::Int(value) => digits.0.format(*value).as_bytes(),
        }
    }
}

/// The elements of a packed form, in order; ends after an error.
pub(super) struct Items<'a> {
    rest: &'a [u8],
    next: fn(&'a [u8]) -> Result<(Item<'a>, &'a [u8]), Fault>,
    left: Announced,
}

/// How many elements a header announces.
#[derive(Clone, Copy)]
enum Announced {
    /// So many.
    Exactly(usize),
    /// More than the header can say.
    Unknown,
}

impl<'a> Iterator for Items<'a> {
    type Item = Result<Item<'a>, Fault>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest == [END] {
            self.rest = &[];
            return match self.left {
                Announced::Exactly(1..) => Some(Err(BROKEN)),
                _ => None,
            };
        }
        if self.rest.is_empty() {
            return None;
        }
        let announced = match &mut self.left {
            Announced::Exactly(left) => left.checked_sub(1).map(|less| *left = less),
            Announced::Unknown => Some(()),
        };
        let result = announced.ok_or(BROKEN).and_then(|()| (self.next)(self.rest));
        match result {
            // Something has to come after an element: at least the end.
            Ok((item, rest)) if !rest.is_empty() => {
                self.rest = rest;
                Some(Ok(item))
            }
            Ok(_) => {
                self.rest = &[];
                Some(Err(BROKEN))
            }
            Err(error) => {
                self.rest = &[];
                Some(Err(error))
            }
        }
    }
}

fn split(bytes: &[u8], at: usize) -> Result<(&[u8], &[u8]), Fault> {
    bytes.split_at_checked(at).ok_or(BROKEN)
}

fn chunk<const N: usize>(bytes: &[u8]) -> Result<([u8; N], &[u8]), Fault> {
    let (chunk, rest) = bytes.split_first_chunk::<N>().ok_or(BROKEN)?;
    Ok((*chunk, rest))
}

/// The elements of a listpack.
pub(super) fn listpack(bytes: &[u8]) -> Result<Items<'_>, Fault> {
    let (total, rest) = chunk::<4>(bytes)?;
    let (count, rest) = chunk::<2>(rest)?;
    if u32::from_le_bytes(total) as usize != bytes.len() || rest.is_empty() {
        return Err(BROKEN);
    }
    Ok(Items { rest, next: listpack_item, left: announced(count) })
}

fn announced(count: [u8; 2]) -> Announced {
    match u16::from_le_bytes(count) {
        u16::MAX => Announced::Unknown,
        count => Announced::Exactly(usize::from(count)),
    }
}

fn listpack_item(bytes: &[u8]) -> Result<(Item<'_>, &[u8]), Fault> {
    let ([first], rest) = chunk::<1>(bytes)?;
    let int = |width: usize| -> Result<(Item<'_>, &[u8]), Fault> {
        let (value, rest) = split(rest, width)?;
        Ok((Item::Int(integer(value)), rest))
    };
    let (item, rest) = match first {
        0x00..=0x7f => (Item::Int(i64::from(first)), rest),
        0x80..=0xbf => {
            let (text, rest) = split(rest, usize::from(first & 0x3f))?;
            (Item::Bytes(text), rest)
        }
        0xc0..=0xdf => {
            let ([low], rest) = chunk::<1>(rest)?;
            // Thirteen bits with a sign.
            let value = (i64::from(first & 0x1f) << 8 | i64::from(low)) << 51 >> 51;
            (Item::Int(value), rest)
        }
        0xe0..=0xef => {
            let ([low], rest) = chunk::<1>(rest)?;
            let (text, rest) = split(rest, usize::from(first & 0x0f) << 8 | usize::from(low))?;
            (Item::Bytes(text), rest)
        }
        0xf0 => {
            let (len, rest) = chunk::<4>(rest)?;
            let (text, rest) = split(rest, u32::from_le_bytes(len) as usize)?;
            (Item::Bytes(text), rest)
        }
        0xf1 => int(2)?,
        0xf2 => int(3)?,
        0xf3 => int(4)?,
        0xf4 => int(8)?,
        _ => return Err(BROKEN),
    };
    let taken = bytes.len() - rest.len();
    let mut expected = Vec::with_capacity(5);
    push_back_len(taken, &mut expected);
    let rest = rest.strip_prefix(expected.as_slice()).ok_or(BROKEN)?;
    Ok((item, rest))
}

/// The length of an element, behind it, to be read backwards: seven bits a byte, the highest first.
fn push_back_len(len: usize, out: &mut Vec<u8>) {
    // One less than two bytes could hold and so on: Redis draws the lines there.
    let bytes = match len {
        0..=127 => 1,
        128..=16_382 => 2,
        16_383..=2_097_150 => 3,
        2_097_151..=268_435_454 => 4,
        _ => 5,
    };
    for place in (0..bytes).rev() {
        let continued = if place == bytes - 1 { 0 } else { 0x80 };
        out.push((len >> (7 * place)) as u8 & 0x7f | continued);
    }
}

/// The elements of a ziplist.
pub(super) fn ziplist(bytes: &[u8]) -> Result<Items<'_>, Fault> {
    let (total, rest) = chunk::<4>(bytes)?;
    let (_tail, rest) = chunk::<4>(rest)?;
    let (count, rest) = chunk::<2>(rest)?;
    if u32::from_le_bytes(total) as usize != bytes.len() || rest.is_empty() {
        return Err(BROKEN);
    }
    Ok(Items { rest, next: ziplist_item, left: announced(count) })
}

fn ziplist_item(bytes: &[u8]) -> Result<(Item<'_>, &[u8]), Fault> {
    // The length of the element before, which only walks from the end need.
    let ([before], mut rest) = chunk::<1>(bytes)?;
    if before == 0xfe {
        (_, rest) = split(rest, 4)?;
    }
    let ([first], rest) = chunk::<1>(rest)?;
    let text = |rest, len| split(rest, len).map(|(text, rest)| (Item::Bytes(text), rest));
    let int = |width: usize| split(rest, width).map(|(value, rest)| (Item::Int(integer(value)), rest));
    match first {
        0x00..=0x3f => text(rest, usize::from(first)),
        0x40..=0x7f => {
            let ([low], rest) = chunk::<1>(rest)?;
            text(rest, usize::from(first & 0x3f) << 8 | usize::from(low))
        }
        0x80 => {
            let (len, rest) = chunk::<4>(rest)?;
            text(rest, u32::from_be_bytes(len) as usize)
        }
        0xc0 => int(2),
        0xd0 => int(4),
        0xe0 => int(8),
        0xf0 => int(3),
        0xfe => int(1),
        0xf1..=0xfd => Ok((Item::Int(i64::from(first & 0x0f) - 1), rest)),
        _ => Err(BROKEN),
    }
}

/// The keys and values of a zipmap, in turn.
pub(super) fn zipmap(bytes: &[u8]) -> Result<Vec<&[u8]>, Fault> {
    let (_count, mut rest) = chunk::<1>(bytes)?;
    let mut items = Vec::new();
    while rest != [END] {
        let (len, tail) = zipmap_len(rest)?;
        let (key, tail) = split(tail, len)?;
        let (len, tail) = zipmap_len(tail)?;
        let ([free], tail) = chunk::<1>(tail)?;
        let (value, tail) = split(tail, len)?;
        let (_free, tail) = split(tail, usize::from(free))?;
        items.extend([key, value]);
        rest = tail;
    }
    Ok(items)
}

fn zipmap_len(bytes: &[u8]) -> Result<(usize, &[u8]), Fault> {
    let ([first], rest) = chunk::<1>(bytes)?;
    match first {
        0..=0xfd => Ok((usize::from(first), rest)),
        0xfe => {
            let (len, rest) = chunk::<4>(rest)?;
            Ok((u32::from_le_bytes(len) as usize, rest))
        }
        END => Err(BROKEN),
    }
}

/// The integers of an intset.
pub(super) fn intset(bytes: &[u8]) -> Result<impl Iterator<Item = i64> + '_, Fault> {
    let (width, rest) = chunk::<4>(bytes)?;
    let (count, rest) = chunk::<4>(rest)?;
    let width = match u32::from_le_bytes(width) {
        width @ (2 | 4 | 8) => width as usize,
        _ => return Err(BROKEN),
    };
    if (u32::from_le_bytes(count) as usize).checked_mul(width) != Some(rest.len()) {
        return Err(BROKEN);
    }
    Ok(rest.chunks_exact(width).map(integer))
}

/// A listpack in the making.
pub(super) struct ListpackWriter {
    bytes: Vec<u8>,
    count: usize,
}

const HEADER_LEN: usize = 6;

impl ListpackWriter {
    pub(super) fn new() -> Self {
        Self { bytes: vec![0; HEADER_LEN], count: 0 }
    }

    /// Begins anew, keeping the memory.
    pub(super) fn clear(&mut self) {
        self.bytes.truncate(HEADER_LEN);
        self.count = 0;
    }

    pub(super) fn count(&self) -> usize {
        self.count
    }

    /// Bytes so far, the end included.
    pub(super) fn len(&self) -> usize {
        self.bytes.len() + 1
    }

    /// Adds an element; digits of an integer become that integer, as in Redis.
    pub(super) fn push(&mut self, element: &[u8]) {
        if let Some(value) = crate::types::canonical_int(element) {
            return self.push_int(value);
        }
        let from = self.bytes.len();
        match element.len() {
            len @ 0..=0x3f => self.bytes.push(0x80 | len as u8),
            len @ 0x40..=0xfff => self.bytes.extend_from_slice(&[0xe0 | (len >> 8) as u8, len as u8]),
            len => {
                self.bytes.push(0xf0);
                self.bytes.extend_from_slice(&(len as u32).to_le_bytes());
            }
        }
        self.bytes.extend_from_slice(element);
        self.end_element(from);
    }

    pub(super) fn push_int(&mut self, value: i64) {
        let from = self.bytes.len();
        let low = value.to_le_bytes();
        let width = match value {
            0..=127 => {
                self.bytes.push(value as u8);
                0
            }
            -4096..=4095 => {
                let bits = value as u16 & 0x1fff;
                self.bytes.extend_from_slice(&[0xc0 | (bits >> 8) as u8, bits as u8]);
                0
            }
            -0x8000..=0x7fff => 2,
            -0x80_0000..=0x7f_ffff => 3,
            -0x8000_0000..=0x7fff_ffff => 4,
            _ => 8,
        };
        if width > 0 {
            self.bytes.push(match width {
                2 => 0xf1,
                3 => 0xf2,
                4 => 0xf3,
                _ => 0xf4,
            });
            self.bytes.extend_from_slice(low.get(..width).unwrap_or_default());
        }
        self.end_element(from);
    }

    fn end_element(&mut self, from: usize) {
        push_back_len(self.bytes.len() - from, &mut self.bytes);
        self.count += 1;
    }

    /// The whole listpack. To be followed by [`clear`](Self::clear).
    pub(super) fn finish(&mut self) -> &[u8] {
        self.bytes.push(END);
        let total = (self.bytes.len() as u32).to_le_bytes();
        let count = u16::try_from(self.count).unwrap_or(u16::MAX).to_le_bytes();
        let header = total.into_iter().chain(count);
        for (to, from) in self.bytes.iter_mut().zip(header) {
            *to = from;
        }
        &self.bytes
    }
}

/// Makes an intset of rising integers.
pub(super) fn write_intset(values: &[i64]) -> Vec<u8> {
    let fits = |bits: u32| values.iter().all(|value| (value << (64 - bits) >> (64 - bits)) == *value);
    let width = if fits(16) {
        2
    } else if fits(32) {
        4
    } else {
        8
    };
    let mut bytes = Vec::with_capacity(8 + values.len() * width);
    bytes.extend_from_slice(&(width as u32).to_le_bytes());
    bytes.extend_from_slice(&(values.len() as u32).to_le_bytes());
    for value in values {
        bytes.extend_from_slice(value.to_le_bytes().get(..width).unwrap_or_default());
    }
    bytes
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn texts(items: Items<'_>) -> Option<Vec<Vec<u8>>> {
        items.map(|item| item.ok().map(|item| item.bytes(&mut Digits::default()).to_vec())).collect()
    }

    fn element() -> impl Strategy<Value = Vec<u8>> {
        prop_oneof![
            any::<i64>().prop_map(|n| n.to_string().into_bytes()),
            (-5000..5000_i64).prop_map(|n| n.to_string().into_bytes()),
            (any::<i64>(), 0..64_u32).prop_map(|(n, bits)| (n >> bits).to_string().into_bytes()),
            proptest::collection::vec(any::<u8>(), 0..80),
            (0..5000_usize).prop_map(|len| vec![b'x'; len]),
            Just(vec![b'y'; 16_380]),
            Just(vec![b'y'; 16_384]),
        ]
    }

    proptest! {
        #[test]
        fn a_listpack_reads_back(elements in proptest::collection::vec(element(), 0..20)) {
            let mut writer = ListpackWriter::new();
            for element in &elements {
                writer.push(element);
            }
            let len = writer.len();
            let bytes = writer.finish();
            prop_assert_eq!(bytes.len(), len);
            prop_assert_eq!(texts(listpack(bytes).unwrap()).unwrap(), elements);
        }

        #[test]
        fn an_intset_reads_back(values in proptest::collection::vec((any::<i64>(), 0..64_u32), 0..50)) {
            let values: Vec<i64> = values.into_iter().map(|(value, bits)| value >> bits).collect();
            prop_assert_eq!(intset(&write_intset(&values)).unwrap().collect::<Vec<_>>(), values);
        }

        #[test]
        fn any_bytes_are_read_without_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..80)) {
            for read in [listpack, ziplist] {
                let mut whole = bytes.clone();
                let total = (whole.len() as u32).to_le_bytes();
                whole.iter_mut().zip(total).for_each(|(to, from)| *to = from);
                let _ = read(&whole).map(Iterator::count);
                let _ = read(&bytes).map(Iterator::count);
            }
            let _ = zipmap(&bytes);
            let _ = intset(&bytes).map(Iterator::count);
        }
    }

    #[test]
    fn a_ziplist_of_redis_is_read() {
        // ["foo", "12", "-30000"] with lengths of the elements before.
        let bytes = b"\x17\0\0\0\x12\0\0\0\x03\0\x00\x03foo\x05\xfe\x0c\x03\xc0\xd0\x8a\xff";
        assert_eq!(texts(ziplist(bytes).unwrap()).unwrap(), [&b"foo"[..], b"12", b"-30000"]);
        assert!(ziplist(&bytes[..bytes.len() - 1]).is_err());
    }

    #[test]
    fn a_zipmap_of_redis_is_read() {
        let bytes = b"\x02\x03foo\x03\x00bar\x05hello\x05\x02world!!\xff";
        assert_eq!(zipmap(bytes).unwrap(), [&b"foo"[..], b"bar", b"hello", b"world"]);
        assert!(zipmap(b"\x02\x03foo\xff").is_err());
    }
}
