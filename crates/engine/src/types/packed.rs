//! A sequence of byte strings in one buffer: the compact encoding behind small hashes, small sorted sets and the
//! chunks of lists.
//!
//! An element is its length (LEB128), its bytes, and the same length with its bytes reversed, so that the sequence is
//! walked from both ends. Removed front elements leave a gap that later front pushes reuse, which makes both ends of a
//! list cheap. The buffer's capacity is always an allocator size class. Numbers are not stored in binary: readers get
//! slices. A damaged buffer would end an iteration early; it never panics.

use super::allocation::{allocation_size, reserve_class};

/// Buffers up to this size are not worth giving back.
const SHRINK_ABOVE: usize = 64;

/// The largest gap that a front push opens ahead of the elements, in bytes.
const MAX_FRONT_GAP: usize = 2048;

/// A sequence of byte strings packed into one allocation.
#[derive(Debug, Clone, Default)]
pub struct Packed {
    /// The gap, then the elements.
    buf: Vec<u8>,
    /// Bytes of the gap at the front.
    head: u32,
    /// Number of elements.
    count: u32,
}

/// The place of an element in a [`Packed`], valid until the next change of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Position(usize);

impl Packed {
    /// Creates an empty sequence; allocates nothing.
    pub fn new() -> Self {
        Self::default()
    }

    /// Creates an empty sequence with room for `bytes` bytes of elements and their headers.
    pub fn with_capacity(bytes: usize) -> Self {
        Self { buf: Vec::with_capacity(allocation_size(bytes)), head: 0, count: 0 }
    }

    /// Creates an empty sequence with room for `bytes` bytes ahead of the elements: for one that grows at the front.
    pub fn with_front_gap(bytes: usize) -> Self {
        let gap = allocation_size(bytes);
        Self { buf: vec![0; gap], head: u32::try_from(gap).unwrap_or(u32::MAX), count: 0 }
    }

    /// The bytes an element of `len` bytes takes here.
    pub fn stored_size(len: usize) -> usize {
        len + 2 * varint_size(len)
    }

    /// Number of elements.
    pub fn len(&self) -> usize {
        self.count as usize
    }

    /// Whether there is no element.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Bytes that the elements take, headers included and spare room excluded.
    pub fn byte_len(&self) -> usize {
        self.buf.len().saturating_sub(self.head())
    }

    /// Heap bytes held, in O(1).
    pub fn heap_bytes(&self) -> usize {
        allocation_size(self.buf.capacity())
    }

    /// Iterates over the elements; both directions.
    pub fn iter(&self) -> PackedIter<'_> {
        PackedIter { bytes: self.buf.get(self.head()..).unwrap_or_default(), remaining: self.len() }
    }

    /// Iterates over the elements from index `start` up to before `end`, cut to what there is.
    pub fn range(&self, start: usize, end: usize) -> PackedIter<'_> {
        let end = end.min(self.len());
        if start >= end {
            return PackedIter::default();
        }
        let at = |index| self.position(index).unwrap_or(self.end()).0;
        PackedIter { bytes: self.buf.get(at(start)..at(end)).unwrap_or_default(), remaining: end - start }
    }

    /// The first element.
    pub fn front(&self) -> Option<&[u8]> {
        self.iter().next()
    }

    /// The last element.
    pub fn back(&self) -> Option<&[u8]> {
        self.iter().next_back()
    }

    /// The element at `index`, walking from the nearer end.
    pub fn get(&self, index: usize) -> Option<&[u8]> {
        self.at(self.position(index)?)
    }

    /// The place of the element at `index`, walking from the nearer end.
    pub fn position(&self, index: usize) -> Option<Position> {
        let from_end = self.len().checked_sub(index)?.checked_sub(1)?;
        let mut iter = self.iter();
        if index <= from_end {
            for _ in 0..index {
                iter.next()?;
            }
            Some(Position(self.buf.len() - iter.bytes.len()))
        } else {
            for _ in 0..=from_end {
                iter.next_back()?;
            }
            Some(Position(self.head() + iter.bytes.len()))
        }
    }

    /// The place before the first element.
    pub fn start(&self) -> Position {
        Position(self.head())
    }

    /// The place after the last element.
    pub fn end(&self) -> Position {
        Position(self.buf.len())
    }

    /// The element at `position`; none at the end.
    #[inline]
    pub fn at(&self, position: Position) -> Option<&[u8]> {
        split_front(self.buf.get(position.0..)?).map(|(element, _)| element)
    }

    /// The place after the element at `position`; none at the end.
    #[inline]
    pub fn after(&self, position: Position) -> Option<Position> {
        self.entry(position).map(|(_, after)| after)
    }

    /// The element at `position` and the place after it; none at the end.
    #[inline]
    pub fn entry(&self, position: Position) -> Option<(&[u8], Position)> {
        let (element, rest) = split_front(self.buf.get(position.0..)?)?;
        Some((element, Position(self.buf.len() - rest.len())))
    }

    /// Finds the first element equal to `needle` among those whose index is a multiple of `step`, with its index.
    pub fn find(&self, needle: &[u8], step: usize) -> Option<(usize, Position)> {
        let mut rest = self.buf.get(self.head()..)?;
        let mut index = 0;
        loop {
            let (element, after) = split_front(rest)?;
            // Names in one value tend to share their beginning, so the end tells them apart sooner.
            if element.len() == needle.len() && element.last() == needle.last() && element == needle {
                return Some((index, Position(self.buf.len() - rest.len())));
            }
            rest = after;
            for _ in 1..step {
                rest = split_front(rest)?.1;
            }
            index += step.max(1);
        }
    }

    /// Appends an element.
    pub fn push_back(&mut self, element: &[u8]) {
        self.insert(self.end(), element);
    }

    /// Prepends an element.
    pub fn push_front(&mut self, element: &[u8]) {
        self.insert(self.start(), element);
    }

    /// Inserts an element before `position`; returns its place.
    pub fn insert(&mut self, position: Position, element: &[u8]) -> Position {
        let size = Self::stored_size(element.len());
        let at = position.0.clamp(self.head(), self.buf.len());
        // The front of an empty sequence is its back, too, but the room ahead was made for what comes now.
        let has_gap_for_first = self.is_empty() && self.head() >= size;
        self.count = self.count.saturating_add(1);
        if at == self.buf.len() && !has_gap_for_first {
            self.make_room_at_back(size);
            let at = self.end();
            let mut header = [0; VARINT_MAX];
            let header = encode_varint(element.len(), &mut header);
            self.buf.extend_from_slice(header);
            self.buf.extend_from_slice(element);
            self.buf.extend(header.iter().rev());
            return at;
        }
        let at = if at == self.head() { self.open_front(size) } else { self.open_inside(at, size) };
        self.write(at, element);
        Position(at)
    }

    /// Replaces the element at `position`; does nothing at the end.
    pub fn replace(&mut self, position: Position, element: &[u8]) {
        let Some(old) = self.at(position) else { return };
        let (old, new) = (Self::stored_size(old.len()), Self::stored_size(element.len()));
        let at = if new > old {
            self.open_inside(position.0, new - old)
        } else {
            // The surplus goes from the tail of the old element, whose header is then overwritten.
            self.close(position.0 + new, old - new);
            position.0
        };
        self.write(at, element);
        self.give_back();
    }

    /// Removes `n` elements from `position` on, or those there are; returns how many.
    pub fn remove(&mut self, position: Position, n: usize) -> usize {
        let mut removed = 0;
        let mut end = position;
        while removed < n {
            let Some(after) = self.after(end) else { break };
            end = after;
            removed += 1;
        }
        self.count = self.count.saturating_sub(u32::try_from(removed).unwrap_or(u32::MAX));
        self.close(position.0, end.0 - position.0);
        self.give_back();
        removed
    }

    /// Removes the first element, handing its bytes to `read`.
    pub fn pop_front_with<R>(&mut self, read: impl FnOnce(&[u8]) -> R) -> Option<R> {
        let at = self.start();
        let result = read(self.at(at)?);
        self.remove(at, 1);
        Some(result)
    }

    /// Removes the last element, handing its bytes to `read`.
    pub fn pop_back_with<R>(&mut self, read: impl FnOnce(&[u8]) -> R) -> Option<R> {
        let element = self.back()?;
        let at = Position(self.buf.len() - Self::stored_size(element.len()));
        let result = read(element);
        self.remove(at, 1);
        Some(result)
    }

    /// Cuts the sequence before `index` and returns what follows.
    #[must_use]
    pub fn split_off(&mut self, index: usize) -> Self {
        let Some(at) = self.position(index) else { return Self::new() };
        let tail = self.buf.get(at.0..).unwrap_or_default();
        let mut right = Self::with_capacity(tail.len());
        right.buf.extend_from_slice(tail);
        right.count = self.count.saturating_sub(u32::try_from(index).unwrap_or(u32::MAX));
        self.count -= right.count;
        self.buf.truncate(at.0);
        self.give_back();
        right
    }

    /// Appends all elements of `other`.
    pub fn append(&mut self, other: &Self) {
        let tail = other.buf.get(other.head()..).unwrap_or_default();
        self.make_room_at_back(tail.len());
        self.buf.extend_from_slice(tail);
        self.count = self.count.saturating_add(other.count);
    }

    /// Keeps the elements for which `keep` holds, called once each from front to back.
    pub fn retain(&mut self, mut keep: impl FnMut(&[u8]) -> bool) {
        let mut read = self.head();
        let mut write = read;
        let mut kept = 0;
        while let Some((element, after)) = self.buf.get(read..).and_then(split_front) {
            let next = self.buf.len() - after.len();
            if keep(element) {
                if write != read {
                    self.buf.copy_within(read..next, write);
                }
                write += next - read;
                kept += 1;
            }
            read = next;
        }
        self.buf.truncate(write);
        self.count = kept;
        self.give_back();
    }

    /// Gives back all spare room beyond the allocator's size class.
    pub fn shrink_to_fit(&mut self) {
        let live = self.byte_len();
        let class = allocation_size(live);
        if self.buf.capacity() > class {
            self.drop_gap();
            self.buf.shrink_to(class);
        }
    }

    fn head(&self) -> usize {
        self.head as usize
    }

    /// Makes `size` bytes of spare capacity after the last element.
    fn make_room_at_back(&mut self, size: usize) {
        if self.buf.len() + size > self.buf.capacity() {
            if self.head > 0 {
                self.drop_gap();
            }
            reserve_class(&mut self.buf, size);
        }
    }

    /// Opens `size` bytes before the first element and returns their place.
    fn open_front(&mut self, size: usize) -> usize {
        if self.head() < size {
            let live = self.byte_len();
            let gap = size + (live / 4).min(MAX_FRONT_GAP);
            let capacity = allocation_size(live + gap);
            // What the size class leaves over belongs to the gap: pushes at the front come in runs.
            let gap = if capacity > self.buf.capacity() { capacity - live } else { gap };
            let mut moved = Vec::with_capacity(capacity.max(self.buf.capacity()));
            moved.resize(gap, 0);
            moved.extend_from_slice(self.buf.get(self.head()..).unwrap_or_default());
            self.buf = moved;
            self.head = u32::try_from(gap).unwrap_or(u32::MAX);
        }
        self.head -= u32::try_from(size).unwrap_or(self.head);
        self.head()
    }

    /// Opens `size` bytes before the offset `at` and returns their place, which moves when the gap is reclaimed.
    fn open_inside(&mut self, at: usize, size: usize) -> usize {
        let from_head = at.saturating_sub(self.head());
        self.make_room_at_back(size);
        let at = self.head() + from_head;
        let end = self.buf.len();
        self.buf.resize(end + size, 0);
        self.buf.copy_within(at..end, at + size);
        at
    }

    /// Takes `size` bytes at `at` out of the buffer.
    fn close(&mut self, at: usize, size: usize) {
        let end = self.buf.len();
        if at == self.head() && at + size < end && u32::try_from(at + size).is_ok() {
            self.head = (at + size) as u32;
        } else if at + size <= end {
            self.buf.copy_within(at + size.., at);
            self.buf.truncate(end - size);
        }
        if self.count == 0 {
            self.buf.clear();
            self.head = 0;
        }
    }

    /// Returns memory once less than half of the buffer is in use.
    fn give_back(&mut self) {
        let live = self.byte_len();
        if self.buf.capacity() > SHRINK_ABOVE && live < self.buf.capacity() / 2 {
            self.drop_gap();
            self.buf.shrink_to(allocation_size(live + live / 8));
        }
    }

    /// Moves the elements to the start of the buffer.
    fn drop_gap(&mut self) {
        self.buf.drain(..self.head());
        self.head = 0;
    }

    /// Writes an element over the bytes at `at`, which are as many as it takes.
    fn write(&mut self, at: usize, element: &[u8]) {
        let size = Self::stored_size(element.len());
        let Some(slot) = self.buf.get_mut(at..at + size) else { return };
        let mut header = [0; VARINT_MAX];
        let header = encode_varint(element.len(), &mut header);
        let (front, rest) = slot.split_at_mut(header.len());
        let (body, back) = rest.split_at_mut(element.len());
        front.copy_from_slice(header);
        body.copy_from_slice(element);
        for (to, from) in back.iter_mut().zip(header.iter().rev()) {
            *to = *from;
        }
    }
}

impl<'a> IntoIterator for &'a Packed {
    type Item = &'a [u8];
    type IntoIter = PackedIter<'a>;

    fn into_iter(self) -> PackedIter<'a> {
        self.iter()
    }
}

/// Iterator over the elements of a [`Packed`].
#[derive(Debug, Clone, Default)]
pub struct PackedIter<'a> {
    /// What has been consumed from neither end.
    bytes: &'a [u8],
    remaining: usize,
}

impl<'a> Iterator for PackedIter<'a> {
    type Item = &'a [u8];

    #[inline]
    fn next(&mut self) -> Option<&'a [u8]> {
        let (element, rest) = split_front(self.bytes)?;
        self.bytes = rest;
        self.remaining = self.remaining.saturating_sub(1);
        Some(element)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.remaining, Some(self.remaining))
    }
}

impl DoubleEndedIterator for PackedIter<'_> {
    #[inline]
    fn next_back(&mut self) -> Option<Self::Item> {
        let (element, rest) = split_back(self.bytes)?;
        self.bytes = rest;
        self.remaining = self.remaining.saturating_sub(1);
        Some(element)
    }
}

impl ExactSizeIterator for PackedIter<'_> {}

/// Takes the first element off a run of elements.
#[inline]
fn split_front(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (len, header) = match bytes.first() {
        Some(&short) if short < 0x80 => (usize::from(short), 1),
        _ => decode_varint(bytes.iter())?,
    };
    let body = bytes.get(header..)?;
    Some((body.get(..len)?, body.get(len + header..)?))
}

/// Takes the last element off a run of elements.
#[inline]
fn split_back(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (len, header) = match bytes.last() {
        Some(&short) if short < 0x80 => (usize::from(short), 1),
        _ => decode_varint(bytes.iter().rev())?,
    };
    let body_end = bytes.len().checked_sub(header)?;
    let body_start = body_end.checked_sub(len)?;
    Some((bytes.get(body_start..body_end)?, bytes.get(..body_start.checked_sub(header)?)?))
}

/// Longest LEB128 form of a length.
pub(super) const VARINT_MAX: usize = 10;

/// Bytes that the LEB128 form of `n` takes.
#[inline]
pub(super) fn varint_size(n: usize) -> usize {
    if n < 0x80 { 1 } else { (n.ilog2() / 7 + 1) as usize }
}

/// Writes the LEB128 form of `n` and returns the part of `out` it took.
#[inline]
pub(super) fn encode_varint(mut n: usize, out: &mut [u8; VARINT_MAX]) -> &[u8] {
    let mut used = 0;
    for slot in out.iter_mut() {
        used += 1;
        *slot = (n & 0x7f) as u8;
        n >>= 7;
        if n == 0 {
            break;
        }
        *slot |= 0x80;
    }
    out.get(..used).unwrap_or_default()
}

/// Reads a LEB128 number and how many bytes it took.
pub(super) fn decode_varint<'a>(bytes: impl Iterator<Item = &'a u8>) -> Option<(usize, usize)> {
    let mut n = 0_usize;
    for (i, &byte) in bytes.take(VARINT_MAX).enumerate() {
        n |= usize::from(byte & 0x7f).checked_shl(7 * i as u32)?;
        if byte < 0x80 {
            return Some((n, i + 1));
        }
    }
    None
}

#[cfg(test)]
#[path = "packed_tests.rs"]
mod tests;
