//! A hash table whose entries lie dense in an indexable slab: the general encoding of hashes, sets and sorted sets.
//!
//! Indices run from 0 to len-1 without holes; a removal moves the last entry into the hole. That gives random choice
//! in O(1) and a scan that walks the indices downwards and misses nothing that stays, because entries only ever move
//! to lower indices. The slab grows by fixed chunks, so that growth copies nothing and wastes little. Indices are
//! 32-bit: 2^32 - 1 entries are the most, as in Redis; an insertion beyond is dropped.

use smallvec::SmallVec;

use crate::prefetch::prefetch_value;

use super::{allocation::vec_bytes, blob::KeyHash, split_index::SplitIndex};

/// Records that are asked for together, at most.
const AHEAD: usize = 16;

/// Entries in a chunk of the slab.
const CHUNK: usize = 512;

/// What a [`DenseTable`] holds: something with a byte-string key.
pub(super) trait Record {
    /// The key.
    fn key(&self) -> &[u8];

    /// The key's hash.
    fn key_hash(&self) -> KeyHash;

    /// Heap bytes that the record holds.
    fn heap_bytes(&self) -> usize;

    /// Asks for what it holds on the heap.
    fn prefetch(&self);
}

/// A hash table with dense indices; see the module.
#[derive(Debug, Clone)]
pub(super) struct DenseTable<R> {
    slab: Slab<R>,
    index: SplitIndex,
    /// Heap bytes of all records.
    owned: usize,
}

impl<R: Record> DenseTable<R> {
    /// Creates an empty table with room for `capacity` entries.
    pub(super) fn with_capacity(capacity: usize) -> Self {
        Self { slab: Slab::with_capacity(capacity), index: SplitIndex::with_capacity(capacity), owned: 0 }
    }

    /// Number of entries.
    pub(super) fn len(&self) -> usize {
        self.slab.len()
    }

    /// Heap bytes held, in O(1).
    pub(super) fn heap_bytes(&self) -> usize {
        self.owned + self.slab.heap_bytes() + self.index.heap_bytes()
    }

    /// The entry at `index`.
    #[inline]
    pub(super) fn get(&self, index: usize) -> Option<&R> {
        self.slab.get(index)
    }

    /// The index of the entry with the key `key`.
    #[inline]
    pub(super) fn find(&self, hash: KeyHash, key: &[u8]) -> Option<usize> {
        let slab = &self.slab;
        let is_key = |i: u32| slab.get(i as usize).is_some_and(|record| record.key() == key);
        self.index.find(hash, is_key).map(|i| i as usize)
    }

    /// Asks for the records with these keys, [`AHEAD`] at most, and for what they hold.
    pub(super) fn prefetch<'k>(&self, keys: impl Iterator<Item = &'k [u8]>) {
        // A step at a time for all of them, so that the waits for each lie side by side. Another record with the same tag may be
        // taken for the one that is meant.
        let places = keys.filter_map(|key| self.index.find(KeyHash::of(key), |_| true));
        let places: SmallVec<[u32; AHEAD]> = places.take(AHEAD).collect();
        let records = || places.iter().filter_map(|&place| self.get(place as usize));
        records().for_each(prefetch_value);
        records().for_each(R::prefetch);
    }

    /// Adds a record unless there is one with its key; returns the key's index and whether it is new.
    #[inline]
    pub(super) fn insert_with(
        &mut self,
        hash: KeyHash,
        key: &[u8],
        make: impl FnOnce() -> R,
    ) -> Option<(usize, bool)> {
        let slab = &self.slab;
        let Ok(next) = u32::try_from(slab.len()) else {
            return self.find(hash, key).map(|index| (index, false));
        };
        let is_key = |i: u32| slab.get(i as usize).is_some_and(|record| record.key() == key);
        // The new record's hash is asked for, too, when its table is split at once.
        let hash_of = |i: u32| if i == next { hash } else { slab.key_hash(i) };
        if let Some(index) = self.index.find_or_insert(hash, next, is_key, hash_of) {
            return Some((index as usize, false));
        }
        let record = make();
        self.owned += record.heap_bytes();
        self.slab.push(record);
        Some((next as usize, true))
    }

    /// Changes the record at `index` in place; its key must stay what it is.
    #[inline]
    pub(super) fn update<T>(&mut self, index: usize, change: impl FnOnce(&mut R) -> T) -> Option<T> {
        let record = self.slab.get_mut(index)?;
        let before = record.heap_bytes();
        let result = change(record);
        let after = record.heap_bytes();
        self.owned = (self.owned + after).saturating_sub(before);
        Some(result)
    }

    /// Takes the entry at `index` out; the last entry takes its place.
    pub(super) fn swap_remove(&mut self, index: usize) -> Option<R> {
        let slab = &self.slab;
        let hash = slab.get(index)?.key_hash();
        self.index.remove(hash, index as u32, |i| slab.key_hash(i));
        let last = slab.len() - 1;
        if index != last {
            self.index.replace(slab.key_hash(last as u32), last as u32, index as u32);
        }
        let record = self.slab.swap_remove(index)?;
        self.owned = self.owned.saturating_sub(record.heap_bytes());
        Some(record)
    }

    /// Iterates over the entries in index order.
    pub(super) fn iter(&self) -> DenseIter<'_, R> {
        self.range(0, self.len())
    }

    /// Iterates over the entries of a range of indices, cut to what there is.
    pub(super) fn range(&self, start: usize, end: usize) -> DenseIter<'_, R> {
        let end = end.min(self.len());
        DenseIter { slab: &self.slab, front: start.min(end), back: end }
    }

    /// One step of a scan: the next cursor, and the entries to report.
    ///
    /// Cursor 0 begins a scan and ends it. Every entry that is there during the whole scan is reported, some perhaps
    /// twice.
    pub(super) fn scan(&self, cursor: u64, count: usize) -> (u64, DenseIter<'_, R>) {
        let len = self.len();
        let end = match usize::try_from(cursor) {
            Ok(1..) => (cursor as usize).min(len),
            _ => len,
        };
        let start = end.saturating_sub(count.max(1));
        (start as u64, self.range(start, end))
    }
}

/// Iterator over the entries of a [`DenseTable`].
#[derive(Debug)]
pub(super) struct DenseIter<'a, R> {
    slab: &'a Slab<R>,
    front: usize,
    back: usize,
}

impl<R> Clone for DenseIter<'_, R> {
    fn clone(&self) -> Self {
        Self { slab: self.slab, front: self.front, back: self.back }
    }
}

impl<'a, R> Iterator for DenseIter<'a, R> {
    type Item = &'a R;

    #[inline]
    fn next(&mut self) -> Option<&'a R> {
        if self.front >= self.back {
            return None;
        }
        self.front += 1;
        self.slab.get(self.front - 1)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.back - self.front, Some(self.back - self.front))
    }
}

impl<R> DoubleEndedIterator for DenseIter<'_, R> {
    fn next_back(&mut self) -> Option<Self::Item> {
        if self.front >= self.back {
            return None;
        }
        self.back -= 1;
        self.slab.get(self.back)
    }
}

impl<R> ExactSizeIterator for DenseIter<'_, R> {}

/// A growable array in chunks: all but the last are full, and all but the first are allocated whole.
#[derive(Debug)]
struct Slab<T> {
    chunks: Vec<Vec<T>>,
    len: usize,
}

impl<T> Slab<T> {
    fn with_capacity(capacity: usize) -> Self {
        let mut chunks = Vec::with_capacity(capacity.div_ceil(CHUNK));
        if capacity > 0 {
            chunks.push(Vec::with_capacity(capacity.min(CHUNK)));
        }
        Self { chunks, len: 0 }
    }

    fn len(&self) -> usize {
        self.len
    }

    /// Heap bytes of the array itself; only the first chunk can be shorter than a whole one.
    fn heap_bytes(&self) -> usize {
        let first = self.chunks.first().map_or(0, |chunk| vec_bytes::<T>(chunk.capacity()));
        let rest = self.chunks.len().saturating_sub(1) * vec_bytes::<T>(CHUNK);
        vec_bytes::<Vec<T>>(self.chunks.capacity()) + first + rest
    }

    #[inline]
    fn get(&self, index: usize) -> Option<&T> {
        self.chunks.get(index / CHUNK)?.get(index % CHUNK)
    }

    #[inline]
    fn get_mut(&mut self, index: usize) -> Option<&mut T> {
        self.chunks.get_mut(index / CHUNK)?.get_mut(index % CHUNK)
    }

    fn push(&mut self, value: T) {
        self.len += 1;
        match self.chunks.last_mut() {
            Some(chunk) if chunk.len() < CHUNK => {
                if chunk.len() == chunk.capacity() {
                    // Doubling, but never past the chunk's size.
                    let capacity = (chunk.len() * 2).clamp(4, CHUNK);
                    chunk.reserve_exact(capacity - chunk.len());
                }
                chunk.push(value);
            }
            Some(_) => {
                let mut chunk = Vec::with_capacity(CHUNK);
                chunk.push(value);
                self.chunks.push(chunk);
            }
            None => self.chunks.push(vec![value]),
        }
    }

    fn swap_remove(&mut self, index: usize) -> Option<T> {
        let chunks = self.chunks.len();
        let tail = self.chunks.last_mut()?;
        let last = tail.pop()?;
        if tail.is_empty() && chunks > 1 {
            self.chunks.pop();
            if self.chunks.capacity() > 64 && self.chunks.len() < self.chunks.capacity() / 4 {
                self.chunks.shrink_to(chunks * 2);
            }
        } else if chunks == 1 && tail.capacity() > 16 && tail.len() < tail.capacity() / 4 {
            tail.shrink_to(tail.len() * 2);
        }
        self.len -= 1;
        if index == self.len {
            return Some(last);
        }
        self.get_mut(index).map(|slot| std::mem::replace(slot, last))
    }
}

impl<R: Record> Slab<R> {
    /// The hash of the key at `index`.
    #[inline]
    fn key_hash(&self, index: u32) -> KeyHash {
        self.get(index as usize).map_or(KeyHash::NONE, Record::key_hash)
    }
}

impl<T: Clone> Clone for Slab<T> {
    fn clone(&self) -> Self {
        let mut copy = Self::with_capacity(self.len);
        for chunk in &self.chunks {
            for value in chunk {
                copy.push(value.clone());
            }
        }
        copy
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeSet, HashMap};

    use proptest::prelude::*;

    use super::*;
    use crate::types::blob::Blob;

    fn key(i: u32) -> Vec<u8> {
        // Both inline and allocated keys.
        if i.is_multiple_of(2) { format!("k{i}").into_bytes() } else { format!("{i:040}").into_bytes() }
    }

    fn add(table: &mut DenseTable<Blob>, i: u32) -> bool {
        let key = key(i);
        let hash = KeyHash::of(&key);
        table.insert_with(hash, &key, || Blob::new(hash, &[&key])).unwrap().1
    }

    fn remove(table: &mut DenseTable<Blob>, i: u32) -> bool {
        let key = key(i);
        let found = table.find(KeyHash::of(&key), &key);
        found.is_some_and(|index| table.swap_remove(index).unwrap().bytes() == key)
    }

    proptest! {
        #[test]
        fn holds_what_a_set_holds(ops in prop::collection::vec((any::<bool>(), 0_u32..1500), 0..4000)) {
            let mut table = DenseTable::with_capacity(0);
            let mut model = BTreeSet::new();
            for (adds, i) in ops {
                if adds {
                    prop_assert_eq!(add(&mut table, i), model.insert(i));
                } else {
                    prop_assert_eq!(remove(&mut table, i), model.remove(&i));
                }
                prop_assert_eq!(table.len(), model.len());
            }
            let owned: usize = table.iter().map(Blob::heap_bytes).sum();
            prop_assert_eq!(table.owned, owned);
            let found: BTreeSet<Vec<u8>> = table.iter().map(|b| b.bytes().to_vec()).collect();
            prop_assert_eq!(found, model.iter().map(|&i| key(i)).collect::<BTreeSet<_>>());
        }

        #[test]
        fn a_scan_reports_everything_that_stays(
            size in 1_u32..1400,
            count in 1_usize..200,
            changes in prop::collection::vec((any::<bool>(), 0_u32..2000), 0..400),
        ) {
            let mut table = DenseTable::with_capacity(0);
            for i in 0..size {
                add(&mut table, i);
            }
            let mut stays: HashMap<Vec<u8>, bool> = (0..size).map(|i| (key(i), false)).collect();
            let mut changes = changes.into_iter();
            let mut cursor = 0;
            loop {
                let (next, found) = table.scan(cursor, count);
                for blob in found {
                    if let Some(seen) = stays.get_mut(blob.bytes()) {
                        *seen = true;
                    }
                }
                cursor = next;
                if cursor == 0 {
                    break;
                }
                for (adds, i) in changes.by_ref().take(20) {
                    if adds {
                        add(&mut table, i);
                    } else {
                        remove(&mut table, i);
                        stays.remove(&key(i));
                    }
                }
            }
            prop_assert!(stays.values().all(|&seen| seen));
        }
    }

    #[test]
    fn memory_comes_back_after_removal() {
        let mut table = DenseTable::with_capacity(0);
        for i in 0..50_000 {
            add(&mut table, i);
        }
        let full = table.heap_bytes();
        for i in 0..49_990 {
            remove(&mut table, i);
        }
        assert!(table.heap_bytes() < full / 100, "{} of {full}", table.heap_bytes());
    }
}
