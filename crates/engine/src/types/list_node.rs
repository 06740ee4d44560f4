//! One chunk of a list: many small elements packed together, or a big one alone.

use super::{
    allocation::allocation_size,
    limits::EncodingLimits,
    list::ListEnd,
    packed::{Packed, PackedIter},
};

/// With chunks limited by a count of elements, their bytes are still limited to this.
const COUNTED_CHUNK_BYTES: usize = 8192;

/// How much a chunk may hold.
#[derive(Debug, Clone, Copy)]
pub(super) struct ChunkLimit {
    pub(super) bytes: usize,
    pub(super) count: usize,
}

impl ChunkLimit {
    /// Reads redis.conf's `list-max-listpack-size`.
    pub(super) fn new(limits: &EncodingLimits) -> Self {
        match limits.list_max_listpack_size {
            size @ ..0 => {
                let step = size.saturating_neg().min(5);
                Self { bytes: 2048 << step, count: usize::MAX }
            }
            count => Self { bytes: COUNTED_CHUNK_BYTES, count: count as usize },
        }
    }
}

/// A chunk of a list.
#[derive(Debug, Clone)]
pub(super) enum Node {
    /// Elements that together stay within the chunk limit.
    Packed(Packed),
    /// A single element that is larger than a chunk may be.
    Plain(Box<[u8]>),
}

impl Node {
    /// Creates a chunk that holds `element`, with room for `capacity` bytes if more are to follow at `end`.
    pub(super) fn new(element: &[u8], capacity: usize, end: ListEnd, limit: ChunkLimit) -> Self {
        let size = Packed::stored_size(element.len());
        if size > limit.bytes {
            return Self::Plain(element.into());
        }
        let capacity = capacity.min(limit.bytes);
        let packed = if end == ListEnd::Front && capacity > size {
            let mut packed = Packed::with_front_gap(capacity);
            packed.push_front(element);
            packed
        } else {
            let mut packed = Packed::with_capacity(size.max(capacity));
            packed.push_back(element);
            packed
        };
        Self::Packed(packed)
    }

    /// Number of elements.
    pub(super) fn len(&self) -> usize {
        match self {
            Self::Packed(packed) => packed.len(),
            Self::Plain(_) => 1,
        }
    }

    /// Heap bytes held, in O(1).
    pub(super) fn heap_bytes(&self) -> usize {
        match self {
            Self::Packed(packed) => packed.heap_bytes(),
            Self::Plain(element) => allocation_size(element.len()),
        }
    }

    /// The packed elements, if one of `len` bytes may join them.
    pub(super) fn room_for(&mut self, len: usize, limit: ChunkLimit) -> Option<&mut Packed> {
        match self {
            Self::Packed(packed)
                if packed.len() < limit.count
                    && packed.byte_len() + Packed::stored_size(len) <= limit.bytes =>
            {
                Some(packed)
            }
            _ => None,
        }
    }

    /// The element at `index`.
    pub(super) fn get(&self, index: usize) -> Option<&[u8]> {
        match self {
            Self::Packed(packed) => packed.get(index),
            Self::Plain(element) => (index == 0).then_some(element),
        }
    }

    /// Iterates over the elements.
    pub(super) fn iter(&self) -> NodeIter<'_> {
        match self {
            Self::Packed(packed) => NodeIter::Packed(packed.iter()),
            Self::Plain(element) => NodeIter::Plain(Some(element)),
        }
    }

    /// Iterates over the elements from `start` up to before `end`.
    pub(super) fn range(&self, start: usize, end: usize) -> NodeIter<'_> {
        match self {
            Self::Packed(packed) => NodeIter::Packed(packed.range(start, end)),
            Self::Plain(element) => NodeIter::Plain((start == 0 && end > 0).then_some(element)),
        }
    }
}

/// Iterator over the elements of a [`Node`].
#[derive(Debug, Clone)]
pub(super) enum NodeIter<'a> {
    Packed(PackedIter<'a>),
    Plain(Option<&'a [u8]>),
}

impl Default for NodeIter<'_> {
    fn default() -> Self {
        Self::Plain(None)
    }
}

impl<'a> Iterator for NodeIter<'a> {
    type Item = &'a [u8];

    #[inline]
    fn next(&mut self) -> Option<&'a [u8]> {
        match self {
            Self::Packed(iter) => iter.next(),
            Self::Plain(element) => element.take(),
        }
    }
}

impl DoubleEndedIterator for NodeIter<'_> {
    #[inline]
    fn next_back(&mut self) -> Option<Self::Item> {
        match self {
            Self::Packed(iter) => iter.next_back(),
            Self::Plain(element) => element.take(),
        }
    }
}
