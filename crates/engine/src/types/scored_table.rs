//! The large encoding of sorted sets: a table from member to score, and a counted tree that holds their order.
//!
//! The tree names members by their index in the table. A removal from the table moves its last entry, so the tree's
//! item of that entry is pointed to the new index before the table changes.

use std::cmp::Ordering;

use super::{
    blob::{Blob, KeyHash},
    counted_tree::{CountedTree, TreeIter},
    dense::{DenseIter, DenseTable, Record},
    sorted_keys::Item,
};

/// Members with scores, hashed and ordered.
#[derive(Debug, Clone)]
pub(super) struct ScoredTable {
    table: DenseTable<Scored>,
    tree: CountedTree,
}

impl ScoredTable {
    /// Creates an empty one with room for `capacity` members.
    pub(super) fn with_capacity(capacity: usize) -> Self {
        Self { table: DenseTable::with_capacity(capacity), tree: CountedTree::new() }
    }

    /// Number of members.
    pub(super) fn len(&self) -> usize {
        self.table.len()
    }

    /// Heap bytes held, in O(1).
    pub(super) fn heap_bytes(&self) -> usize {
        self.table.heap_bytes() + self.tree.heap_bytes()
    }

    /// Index and score of `member`.
    pub(super) fn find(&self, hash: KeyHash, member: &[u8]) -> Option<(usize, f64)> {
        let index = self.table.find(hash, member)?;
        Some((index, self.table.get(index)?.score))
    }

    /// Adds a member unless it is there.
    pub(super) fn insert(&mut self, hash: KeyHash, member: &[u8], score: f64) {
        let make = || Scored { member: Blob::new(hash, &[member]), score };
        if let Some((index, true)) = self.table.insert_with(hash, member, make) {
            self.tree.insert(Item { score, index: index as u32 }, tie(&self.table, member));
        }
    }

    /// Gives the member at `index` another score.
    pub(super) fn rescore(&mut self, index: usize, score: f64) {
        {
            let Some(old) = self.table.get(index) else { return };
            let tie = tie(&self.table, old.member.bytes());
            if !self.tree.rescore(old.score, score, &tie) && self.tree.remove(old.score, &tie) {
                self.tree.insert(Item { score, index: index as u32 }, &tie);
            }
        }
        self.table.update(index, |scored| scored.score = score);
    }

    /// Removes the member at `index`; returns it with its score.
    pub(super) fn remove(&mut self, index: usize) -> Option<(Vec<u8>, f64)> {
        let gone = self.table.get(index)?;
        self.tree.remove(gone.score, tie(&self.table, gone.member.bytes()));
        self.take_from_table(index)
    }

    /// Removes `count` members from `rank` on, or those there are; returns how many.
    pub(super) fn remove_ranks(&mut self, rank: usize, count: usize) -> usize {
        let mut indices = Vec::new();
        self.tree.remove_ranks(rank, count, &mut indices);
        // From the highest index down, the entry that moves is never one that is to go.
        indices.sort_unstable_by(|a, b| b.cmp(a));
        for &index in &indices {
            self.take_from_table(index as usize);
        }
        indices.len()
    }

    /// The index of the member of rank `rank`.
    pub(super) fn index_of_rank(&self, rank: usize) -> Option<usize> {
        self.tree.get(rank).map(|item| item.index as usize)
    }

    /// The rank of the member at `index`.
    pub(super) fn rank(&self, index: usize) -> Option<usize> {
        let scored = self.table.get(index)?;
        Some(self.tree.rank(scored.score, tie(&self.table, scored.member.bytes())))
    }

    /// Counts the members whose score `is_before` holds for; the lowest scores, if any.
    pub(super) fn partition_scores(&self, is_before: impl Fn(f64) -> bool) -> usize {
        self.tree.partition(|item| is_before(item.score))
    }

    /// Counts the members that `is_before` holds for, given that the order of ranks is that of the bytes.
    pub(super) fn partition_members(&self, is_before: impl Fn(&[u8]) -> bool) -> usize {
        self.tree.partition(|item| is_before(member_of(&self.table, item.index)))
    }

    /// Iterates over the members of the ranks from `start` up to before `end`; both directions.
    pub(super) fn iter(&self, start: usize, end: usize) -> ScoredTableIter<'_> {
        ScoredTableIter { table: &self.table, items: self.tree.range(start, end) }
    }

    /// The member at `index`, with its score.
    pub(super) fn by_index(&self, index: usize) -> Option<(&[u8], f64)> {
        self.table.get(index).map(Scored::parts)
    }

    /// One step of a scan; see [`DenseTable::scan`].
    pub(super) fn scan(&self, cursor: u64, count: usize) -> (u64, DenseIter<'_, Scored>) {
        self.table.scan(cursor, count)
    }

    /// Removes an entry that the tree no longer names.
    fn take_from_table(&mut self, index: usize) -> Option<(Vec<u8>, f64)> {
        let last = self.table.len().checked_sub(1)?;
        if index != last {
            let moved = self.table.get(last)?;
            self.tree.reindex(moved.score, index as u32, tie(&self.table, moved.member.bytes()));
        }
        let scored = self.table.swap_remove(index)?;
        Some((scored.member.into_vec(), scored.score))
    }
}

/// Iterator over members and scores by rank.
#[derive(Debug, Clone)]
pub(super) struct ScoredTableIter<'a> {
    table: &'a DenseTable<Scored>,
    items: TreeIter<'a>,
}

impl<'a> Iterator for ScoredTableIter<'a> {
    type Item = (&'a [u8], f64);

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        let item = self.items.next()?;
        Some((member_of(self.table, item.index), item.score))
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        self.items.size_hint()
    }
}

impl DoubleEndedIterator for ScoredTableIter<'_> {
    #[inline]
    fn next_back(&mut self) -> Option<Self::Item> {
        let item = self.items.next_back()?;
        Some((member_of(self.table, item.index), item.score))
    }
}

impl ExactSizeIterator for ScoredTableIter<'_> {}

/// A member and its score, in 32 bytes.
#[derive(Debug, Clone)]
pub(super) struct Scored {
    member: Blob,
    score: f64,
}

impl Scored {
    /// Member and score.
    #[inline]
    pub(super) fn parts(&self) -> (&[u8], f64) {
        (self.member.bytes(), self.score)
    }
}

impl Record for Scored {
    #[inline]
    fn key(&self) -> &[u8] {
        self.member.bytes()
    }

    #[inline]
    fn key_hash(&self) -> KeyHash {
        self.member.hash(|bytes| bytes)
    }

    #[inline]
    fn heap_bytes(&self) -> usize {
        self.member.heap_bytes()
    }

    #[inline]
    fn prefetch(&self) {
        self.member.prefetch();
    }
}

#[inline]
fn member_of(table: &DenseTable<Scored>, index: u32) -> &[u8] {
    table.get(index as usize).map_or(&[], |scored| scored.member.bytes())
}

/// Compares the member at an index with `member`.
#[inline]
fn tie<'a>(table: &'a DenseTable<Scored>, member: &'a [u8]) -> impl Fn(u32) -> Ordering + use<'a> {
    move |index| member_of(table, index).cmp(member)
}
