//! A fixed array of items in order, the stuff that the nodes of the counted tree are made of.
//!
//! Scores and indices lie apart: a search runs over scores alone, and asks about a member only among equal scores.

use std::cmp::Ordering;

/// An item: a score, and where its member is found.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Item {
    pub(super) score: f64,
    pub(super) index: u32,
}

/// Up to `N` items in order; `N` is less than 256.
#[derive(Debug, Clone)]
pub(super) struct SortedKeys<const N: usize> {
    scores: [f64; N],
    indices: [u32; N],
    len: u8,
}

impl<const N: usize> SortedKeys<N> {
    /// Creates an empty array.
    pub(super) fn new() -> Self {
        Self { scores: [0.0; N], indices: [0; N], len: 0 }
    }

    /// Number of items.
    #[inline]
    pub(super) fn len(&self) -> usize {
        usize::from(self.len)
    }

    /// Whether there is room for no more.
    #[inline]
    pub(super) fn is_full(&self) -> bool {
        self.len() >= N
    }

    /// The scores.
    #[inline]
    pub(super) fn scores(&self) -> &[f64] {
        self.scores.get(..self.len()).unwrap_or_default()
    }

    /// The indices.
    #[inline]
    pub(super) fn indices(&self) -> &[u32] {
        self.indices.get(..self.len()).unwrap_or_default()
    }

    /// The item at `at`.
    #[inline]
    pub(super) fn item(&self, at: usize) -> Option<Item> {
        Some(Item { score: *self.scores().get(at)?, index: *self.indices().get(at)? })
    }

    /// Overwrites the item at `at`.
    #[inline]
    pub(super) fn put(&mut self, at: usize, item: Item) {
        if let (Some(score), Some(index)) = (self.scores.get_mut(at), self.indices.get_mut(at)) {
            *score = item.score;
            *index = item.index;
        }
    }

    /// Finds a key, a score with a member that `tie` compares members by index with: its place if it is here, or
    /// else the place where it would go.
    #[inline]
    pub(super) fn search(&self, score: f64, tie: &impl Fn(u32) -> Ordering) -> Result<usize, usize> {
        // Counting all needs no more than one wait for memory, where a binary search waits at each step.
        let start = self.scores().iter().filter(|&&other| other < score).count();
        let rest = self.scores().get(start..).unwrap_or_default();
        if rest.first().is_none_or(|&next| next > score) {
            return Err(start);
        }
        // Mostly one item has the score; with many the members are searched.
        let equal = if rest.get(1).is_none_or(|&next| next > score) {
            1
        } else {
            rest.partition_point(|&other| other <= score)
        };
        let equal = self.indices().get(start..start + equal).unwrap_or_default();
        let at = equal.partition_point(|&index| tie(index) == Ordering::Less);
        match equal.get(at) {
            Some(&index) if tie(index) == Ordering::Equal => Ok(start + at),
            _ => Err(start + at),
        }
    }

    /// Counts the items for which `is_before` holds; it holds for the first ones only.
    pub(super) fn partition(&self, is_before: impl Fn(Item) -> bool) -> usize {
        let (mut low, mut high) = (0, self.len());
        while low < high {
            let middle = usize::midpoint(low, high);
            if self.item(middle).is_some_and(&is_before) {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        low
    }

    /// Inserts an item before the one at `at`; does nothing when full.
    pub(super) fn insert(&mut self, at: usize, item: Item) {
        let len = self.len();
        if len < N && at <= len {
            self.scores.copy_within(at..len, at + 1);
            self.indices.copy_within(at..len, at + 1);
            self.len += 1;
            self.put(at, item);
        }
    }

    /// Removes `count` items from `at` on, or those there are.
    pub(super) fn remove(&mut self, at: usize, count: usize) {
        let len = self.len();
        let end = at.saturating_add(count).min(len);
        if at < end {
            self.scores.copy_within(end..len, at);
            self.indices.copy_within(end..len, at);
            self.len -= (end - at) as u8;
        }
    }

    /// Appends the items of `other` from `start` on, as far as there is room.
    pub(super) fn extend_from(&mut self, other: &Self, start: usize) {
        for item in (start..other.len()).filter_map(|at| other.item(at)).take(N - self.len()) {
            self.len += 1;
            self.put(self.len() - 1, item);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_decide_among_equal_scores_only() {
        let mut keys = SortedKeys::<8>::new();
        for (score, index) in [(1.0, 5), (2.0, 1), (2.0, 3), (2.0, 7), (4.0, 0)] {
            keys.insert(keys.len(), Item { score, index });
        }
        let find = |score, member: u32| keys.search(score, &|index| index.cmp(&member));
        assert_eq!(find(0.0, 9), Err(0));
        assert_eq!(find(1.0, 5), Ok(0));
        assert_eq!(find(2.0, 0), Err(1));
        assert_eq!(find(2.0, 3), Ok(2));
        assert_eq!(find(2.0, 9), Err(4));
        assert_eq!(find(3.0, 0), Err(4));
        assert_eq!(find(4.0, 0), Ok(4));
        assert_eq!(find(5.0, 0), Err(5));
    }

    #[test]
    fn a_full_array_takes_no_more() {
        let mut keys = SortedKeys::<2>::new();
        for index in 0..3 {
            keys.insert(0, Item { score: 0.0, index });
        }
        assert_eq!(keys.indices(), [1, 0]);
        keys.remove(1, 9);
        assert_eq!(keys.indices(), [1]);
    }
}
