//! A byte string in 24 bytes: up to 22 bytes live inside it, longer ones in one allocation beside their key's hash.
//!
//! It is the element of the general encodings. The hash is kept only where recomputing it would mean following the
//! pointer, which is what makes the growth of a big table cheap.

use std::{hash::BuildHasher, hash::Hasher as _, sync::LazyLock};

use super::allocation::allocation_size;
use crate::prefetch::prefetch_bytes;

/// Longest byte string that needs no allocation.
const INLINE_MAX: usize = 22;

/// One random seed for the process: an outsider cannot craft colliding members, and all tables agree on a hash, so a
/// member looked up in many sets is hashed once.
static SEED: LazyLock<ahash::RandomState> = LazyLock::new(ahash::RandomState::new);

/// The hash of a key: of a set's or sorted set's member, of a hash's field.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct KeyHash(u32);

impl KeyHash {
    /// Stands for the hash of what is not there.
    pub(super) const NONE: Self = Self(0);

    /// Hashes a key.
    #[inline]
    pub(super) fn of(key: &[u8]) -> Self {
        let mut hasher = SEED.build_hasher();
        hasher.write(key);
        let hash = hasher.finish();
        Self((hash ^ (hash >> 32)) as u32)
    }

    /// Spreads the 32 bits over the 64 that a hash table looks at (its tag bits are the top ones).
    #[inline]
    pub(super) fn spread(self) -> u64 {
        u64::from(self.0).wrapping_mul(0x9e37_79b9_7f4a_7c15)
    }
}

/// A byte string; see the module.
#[derive(Debug, Clone)]
pub(super) struct Blob(Repr);

#[derive(Debug, Clone)]
enum Repr {
    Inline { len: u8, bytes: [u8; INLINE_MAX] },
    Heap { hash: KeyHash, bytes: Box<[u8]> },
}

impl Blob {
    /// Joins `parts` into one byte string whose key has the hash `hash`.
    #[inline]
    pub(super) fn new(hash: KeyHash, parts: &[&[u8]]) -> Self {
        let len = parts.iter().map(|part| part.len()).sum();
        let mut inline = [0; INLINE_MAX];
        if let Some(target) = inline.get_mut(..len) {
            fill(target, parts);
            return Self(Repr::Inline { len: len as u8, bytes: inline });
        }
        let mut bytes = Vec::with_capacity(len);
        for part in parts {
            bytes.extend_from_slice(part);
        }
        Self(Repr::Heap { hash, bytes: bytes.into_boxed_slice() })
    }

    /// The bytes.
    #[inline]
    pub(super) fn bytes(&self) -> &[u8] {
        match &self.0 {
            Repr::Inline { len, bytes } => bytes.get(..usize::from(*len)).unwrap_or_default(),
            Repr::Heap { bytes, .. } => bytes,
        }
    }

    /// The bytes, to be overwritten where they are; the key among them must stay what it is.
    #[inline]
    pub(super) fn bytes_mut(&mut self) -> &mut [u8] {
        match &mut self.0 {
            Repr::Inline { len, bytes } => bytes.get_mut(..usize::from(*len)).unwrap_or_default(),
            Repr::Heap { bytes, .. } => bytes,
        }
    }

    /// The key's hash; `key` tells it anew for what is stored inline.
    #[inline]
    pub(super) fn hash(&self, key: impl FnOnce(&[u8]) -> &[u8]) -> KeyHash {
        match &self.0 {
            Repr::Inline { .. } => KeyHash::of(key(self.bytes())),
            Repr::Heap { hash, .. } => *hash,
        }
    }

    /// Asks for what is on the heap.
    #[inline]
    pub(super) fn prefetch(&self) {
        if let Repr::Heap { bytes, .. } = &self.0 {
            prefetch_bytes(bytes);
        }
    }

    /// Heap bytes held.
    #[inline]
    pub(super) fn heap_bytes(&self) -> usize {
        match &self.0 {
            Repr::Inline { .. } => 0,
            Repr::Heap { bytes, .. } => allocation_size(bytes.len()),
        }
    }

    /// Takes the bytes out.
    pub(super) fn into_vec(self) -> Vec<u8> {
        match self.0 {
            Repr::Inline { .. } => self.bytes().to_vec(),
            Repr::Heap { bytes, .. } => bytes.into_vec(),
        }
    }
}

/// Writes `parts` one after the other; `target` is as long as all of them.
fn fill(mut target: &mut [u8], parts: &[&[u8]]) {
    for part in parts {
        let Some((head, tail)) = target.split_at_mut_checked(part.len()) else { return };
        head.copy_from_slice(part);
        target = tail;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_blob_is_24_bytes() {
        assert_eq!(size_of::<Blob>(), 24);
    }

    #[test]
    fn bytes_come_back_at_every_length() {
        let text: Vec<u8> = (0..60).collect();
        for len in 0..text.len() {
            let (a, b) = text[..len].split_at(len / 3);
            let blob = Blob::new(KeyHash::of(a), &[a, b]);
            assert_eq!(blob.bytes(), &text[..len]);
            assert_eq!(blob.hash(|bytes| &bytes[..len / 3]), KeyHash::of(a));
            assert_eq!(blob.heap_bytes() == 0, len <= INLINE_MAX);
            assert_eq!(blob.into_vec(), &text[..len]);
        }
    }
}
