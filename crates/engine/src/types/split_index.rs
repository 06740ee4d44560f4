//! A hash index that grows and shrinks a small table at a time, so that no single insertion pays for a rehash of all.
//!
//! It maps a hash to a 32-bit number whose meaning, key included, only the caller knows. The entries lie in many small
//! hash tables. When there are too many for the tables, one table is split in two, in turn (linear hashing: W. Litwin,
//! 1980); when there are too few, the last table is merged back. A split moves about a thousand entries, whatever the
//! size of the whole.

use hashbrown::{HashTable, hash_table::Entry as Slot};

use super::{
    allocation::{allocation_size, vec_bytes},
    blob::KeyHash,
};

/// Entries per table on average; a table is split before it has twice as many.
const PER_TABLE: usize = 800;

/// Tables are merged when they hold fewer than `PER_TABLE` by this factor.
const SPARSE: usize = 4;

/// A hash index; see the module.
#[derive(Debug, Clone)]
pub(super) struct SplitIndex {
    /// Never empty.
    tables: Vec<HashTable<u32>>,
    len: usize,
    /// Heap bytes of the tables.
    owned: usize,
}

impl SplitIndex {
    /// Creates an empty index with room for `capacity` entries, as far as one table goes.
    pub(super) fn with_capacity(capacity: usize) -> Self {
        let table = HashTable::with_capacity(capacity.min(PER_TABLE));
        let owned = allocation_size(table.allocation_size());
        Self { tables: vec![table], len: 0, owned }
    }

    /// Heap bytes held, in O(1).
    pub(super) fn heap_bytes(&self) -> usize {
        self.owned + vec_bytes::<HashTable<u32>>(self.tables.capacity())
    }

    /// The entry with this hash that `is_it` accepts.
    #[inline]
    pub(super) fn find(&self, hash: KeyHash, is_it: impl Fn(u32) -> bool) -> Option<u32> {
        let table = self.tables.get(place(hash, self.tables.len()))?;
        table.find(hash.spread(), |&entry| is_it(entry)).copied()
    }

    /// Finds the entry with this hash that `is_it` accepts, or else adds `entry` and returns nothing; `hash_of` tells
    /// the hash of any entry already there.
    #[inline]
    pub(super) fn find_or_insert(
        &mut self,
        hash: KeyHash,
        entry: u32,
        is_it: impl Fn(u32) -> bool,
        hash_of: impl Fn(u32) -> KeyHash,
    ) -> Option<u32> {
        let tables = self.tables.len();
        let table = self.tables.get_mut(place(hash, tables))?;
        let full = table.len() == table.capacity();
        let before = if full { table.allocation_size() } else { 0 };
        let found = match table.entry(hash.spread(), |&entry| is_it(entry), |&entry| hash_of(entry).spread())
        {
            Slot::Occupied(slot) => Some(*slot.get()),
            Slot::Vacant(slot) => {
                slot.insert(entry);
                None
            }
        };
        if full {
            // Room is made before the entry is looked for, so a full table grows even when it is found.
            self.owned += allocation_size(table.allocation_size());
            self.owned = self.owned.saturating_sub(allocation_size(before));
        }
        if found.is_some() {
            return found;
        }
        self.len += 1;
        if self.len > tables * PER_TABLE {
            self.split(hash_of);
        }
        None
    }

    /// Removes an entry, which has this hash.
    pub(super) fn remove(&mut self, hash: KeyHash, entry: u32, hash_of: impl Fn(u32) -> KeyHash) {
        let tables = self.tables.len();
        let Some(table) = self.tables.get_mut(place(hash, tables)) else { return };
        let Ok(slot) = table.find_entry(hash.spread(), |&other| other == entry) else { return };
        slot.remove();
        self.len -= 1;
        if self.len < tables * PER_TABLE / SPARSE {
            if tables > 1 {
                self.merge(hash_of);
            } else if let Some(table) = self.tables.first_mut()
                && table.capacity() > 64
                && table.len() < table.capacity() / (2 * SPARSE)
            {
                table.shrink_to(table.len() * 2, |&entry| hash_of(entry).spread());
                self.owned = allocation_size(table.allocation_size());
            }
        }
    }

    /// Replaces an entry by another with the same hash.
    pub(super) fn replace(&mut self, hash: KeyHash, entry: u32, by: u32) {
        let tables = self.tables.len();
        let table = self.tables.get_mut(place(hash, tables));
        if let Some(slot) = table.and_then(|table| table.find_mut(hash.spread(), |&other| other == entry)) {
            *slot = by;
        }
    }

    /// Splits the table whose turn it is.
    fn split(&mut self, hash_of: impl Fn(u32) -> KeyHash) {
        let new = self.tables.len();
        let Some(table) = self.tables.get_mut(sibling(new)) else { return };
        let half = table.len() / 2;
        // A little more than half, or every other table would have to grow at once.
        let room = half + half / 16;
        let old = std::mem::replace(table, HashTable::with_capacity(room));
        let mut halves = [std::mem::take(table), HashTable::with_capacity(room)];
        self.owned = self.owned.saturating_sub(allocation_size(old.allocation_size()));
        for entry in old {
            let hash = hash_of(entry);
            let [stays, goes] = &mut halves;
            let target = if place(hash, new + 1) == new { goes } else { stays };
            target.insert_unique(hash.spread(), entry, |&entry| hash_of(entry).spread());
        }
        self.owned += halves.iter().map(|half| allocation_size(half.allocation_size())).sum::<usize>();
        let [stays, goes] = halves;
        *table = stays;
        self.tables.push(goes);
    }

    /// Takes back the last split.
    fn merge(&mut self, hash_of: impl Fn(u32) -> KeyHash) {
        let Some(last) = self.tables.pop() else { return };
        let new = self.tables.len();
        let Some(table) = self.tables.get_mut(sibling(new)) else { return };
        let mut merged = HashTable::with_capacity(last.len() + table.len());
        let first = std::mem::take(table);
        for gone in [&first, &last] {
            self.owned = self.owned.saturating_sub(allocation_size(gone.allocation_size()));
        }
        for entry in first.into_iter().chain(last) {
            merged.insert_unique(hash_of(entry).spread(), entry, |&entry| hash_of(entry).spread());
        }
        self.owned += allocation_size(merged.allocation_size());
        *table = merged;
        if self.tables.capacity() > 64 && new < self.tables.capacity() / 4 {
            self.tables.shrink_to(new * 2);
        }
    }
}

/// The table of a hash among `tables` tables.
///
/// The next power of two decides, except for tables that do not exist yet: their entries are still with the table
/// that they will be split from.
#[inline]
fn place(hash: KeyHash, tables: usize) -> usize {
    // These bits are neither those that choose the bucket within a table nor those of its tags.
    let bits = (hash.spread() >> 32) as usize & 0x01ff_ffff;
    let mask = tables.next_power_of_two() - 1;
    let at = bits & mask;
    if at < tables { at } else { at & (mask >> 1) }
}

/// The table that table `new` is split from.
fn sibling(new: usize) -> usize {
    new & !(1_usize << new.max(1).ilog2())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    fn hash_of(entry: u32) -> KeyHash {
        KeyHash::of(&entry.to_le_bytes())
    }

    fn insert(index: &mut SplitIndex, entry: u32) -> bool {
        index.find_or_insert(hash_of(entry), entry, |other| other == entry, hash_of).is_none()
    }

    fn check(index: &SplitIndex, model: &BTreeSet<u32>) {
        assert_eq!(index.len, model.len());
        assert_eq!(index.tables.iter().map(HashTable::len).sum::<usize>(), model.len());
        let owned: usize = index.tables.iter().map(|t| allocation_size(t.allocation_size())).sum();
        assert_eq!(index.owned, owned);
        for &entry in model {
            assert_eq!(index.find(hash_of(entry), |other| other == entry), Some(entry));
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]

        #[test]
        fn finds_what_was_put_in_while_growing_and_shrinking(
            steps in prop::collection::vec((any::<bool>(), 0_u32..20_000, 0_u32..6000), 1..10),
        ) {
            let mut index = SplitIndex::with_capacity(0);
            let mut model = BTreeSet::new();
            for (adds, from, count) in steps {
                for entry in from..from + count {
                    if adds {
                        prop_assert_eq!(insert(&mut index, entry), model.insert(entry));
                    } else {
                        index.remove(hash_of(entry), entry, hash_of);
                        model.remove(&entry);
                    }
                }
                check(&index, &model);
            }
        }
    }

    #[test]
    fn no_insertion_moves_many_entries() {
        let mut index = SplitIndex::with_capacity(0);
        for entry in 0..300_000 {
            let moved = std::cell::Cell::new(0);
            let counted = |entry| {
                moved.set(moved.get() + 1);
                hash_of(entry)
            };
            index.find_or_insert(hash_of(entry), entry, |other| other == entry, counted);
            assert!(moved.get() < 4 * PER_TABLE, "{} moved", moved.get());
        }
        assert!(index.heap_bytes() < 300_000 * 11, "{}", index.heap_bytes());
    }

    #[test]
    fn meeting_a_known_entry_again_keeps_the_books() {
        let mut index = SplitIndex::with_capacity(0);
        let mut model = BTreeSet::new();
        for entry in 0..3000 {
            assert!(insert(&mut index, entry));
            model.insert(entry);
            // At some of these sizes the entry's table is full.
            assert!(!insert(&mut index, entry));
            let owned: usize = index.tables.iter().map(|t| allocation_size(t.allocation_size())).sum();
            assert_eq!(index.owned, owned, "after {entry}");
        }
        check(&index, &model);
    }

    #[test]
    fn a_replaced_entry_is_found_by_its_new_number() {
        let mut index = SplitIndex::with_capacity(4);
        insert(&mut index, 1);
        index.replace(hash_of(1), 1, 2);
        assert_eq!(index.find(hash_of(1), |_| true), Some(2));
    }
}
