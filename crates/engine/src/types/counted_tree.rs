//! A B+ tree that counts what lies below each branch: the order of a large sorted set, by score, member and rank.
//!
//! Its items are a score and the index of the member in a table beside it, so that members are stored once; whoever
//! calls brings the comparison of members (`tie`). Every branch knows its first item and its count, and all leaves lie
//! equally deep. Leaves that fill in order, ascending or descending, stay full. Recursion is as deep as the tree: 8
//! levels hold more than 2^32 items.

use std::{array, cmp::Ordering};

use super::{
    allocation::allocation_size,
    sorted_keys::{Item, SortedKeys},
};

/// Items in a leaf: with 12 bytes each they fill a 768-byte size class.
const LEAF: usize = 63;

/// Branches of an inner node: with 32 bytes each they fill a 1 KiB size class.
const FAN: usize = 31;

/// An ordered sequence of items; see the module.
#[derive(Debug, Clone)]
pub(super) struct CountedTree {
    root: Node,
    len: usize,
    tally: Tally,
}

impl CountedTree {
    /// Creates an empty tree, which is one leaf.
    pub(super) fn new() -> Self {
        Self { root: Node::Leaf(Box::new(SortedKeys::new())), len: 0, tally: Tally { leaves: 1, inners: 0 } }
    }

    /// Heap bytes held, in O(1).
    pub(super) fn heap_bytes(&self) -> usize {
        self.tally.leaves * allocation_size(size_of::<Leaf>())
            + self.tally.inners * allocation_size(size_of::<Inner>())
    }

    /// Adds an item that is not there; `tie` compares its member with that of any index.
    pub(super) fn insert(&mut self, item: Item, tie: impl Fn(u32) -> Ordering) {
        self.len += 1;
        if let Some(right) = self.root.insert(item, &tie, &mut self.tally) {
            self.tally.inners += 1;
            let left = std::mem::replace(&mut self.root, Node::Inner(Inner::boxed()));
            if let Node::Inner(inner) = &mut self.root {
                inner.insert(0, left);
                inner.insert(1, right);
            }
        }
    }

    /// Removes an item; returns whether it was there.
    pub(super) fn remove(&mut self, score: f64, tie: impl Fn(u32) -> Ordering) -> bool {
        let removed = self.root.remove(score, &tie, &mut self.tally);
        if removed {
            self.len -= 1;
            self.lower_root();
        }
        removed
    }

    /// Removes the items of `count` ranks from `rank` on, and adds their indices to `removed`.
    pub(super) fn remove_ranks(&mut self, rank: usize, count: usize, removed: &mut Vec<u32>) {
        let mut left = count.min(self.len.saturating_sub(rank));
        while left > 0 {
            let taken = self.root.remove_run(rank, left, removed, &mut self.tally);
            self.len -= taken;
            left -= taken;
            self.lower_root();
            if taken == 0 {
                return;
            }
        }
    }

    /// Gives an item a new score where it is, if it stays between its neighbours there; returns whether it does.
    pub(super) fn rescore(&mut self, score: f64, new_score: f64, tie: impl Fn(u32) -> Ordering) -> bool {
        let order = |item: Item| match item.score.partial_cmp(&new_score) {
            Some(Ordering::Equal) | None => tie(item.index),
            Some(order) => order,
        };
        self.root.change(score, &tie, &|leaf, at, item| {
            // At a leaf's edge the neighbour is elsewhere; moving the item is then simply the slower way.
            let above = at.checked_sub(1).and_then(|before| leaf.item(before));
            let below = leaf.item(at + 1);
            let stays = above.is_some_and(|item| order(item) == Ordering::Less)
                && below.is_some_and(|item| order(item) == Ordering::Greater);
            if stays {
                leaf.put(at, Item { score: new_score, ..item });
            }
            stays
        })
    }

    /// Points an item to the new place of its member.
    pub(super) fn reindex(&mut self, score: f64, index: u32, tie: impl Fn(u32) -> Ordering) {
        self.root.change(score, &tie, &|leaf, at, item| {
            leaf.put(at, Item { index, ..item });
            true
        });
    }

    /// The item of rank `rank`.
    pub(super) fn get(&self, rank: usize) -> Option<Item> {
        let (leaf, at) = self.seek(rank)?;
        leaf.item(at)
    }

    /// The rank of an item, or the one it would have.
    pub(super) fn rank(&self, score: f64, tie: impl Fn(u32) -> Ordering) -> usize {
        let mut node = &self.root;
        let mut rank = 0;
        loop {
            match node {
                Node::Leaf(leaf) => return rank + leaf.search(score, &tie).unwrap_or_else(|place| place),
                Node::Inner(inner) => {
                    let at = inner.branch_of(score, &tie);
                    rank += inner.count_before(at);
                    let Some(branch) = inner.node(at) else { return rank };
                    node = branch;
                }
            }
        }
    }

    /// Counts the items for which `is_before` holds; it holds for all up to some rank and for none from there on.
    pub(super) fn partition(&self, is_before: impl Fn(Item) -> bool) -> usize {
        let mut node = &self.root;
        let mut rank = 0;
        loop {
            match node {
                Node::Leaf(leaf) => return rank + leaf.partition(is_before),
                Node::Inner(inner) => {
                    let at = inner.firsts.partition(&is_before).saturating_sub(1);
                    rank += inner.count_before(at);
                    let Some(branch) = inner.node(at) else { return rank };
                    node = branch;
                }
            }
        }
    }

    /// Iterates over the items of the ranks from `start` up to before `end`, cut to what there is; both directions.
    pub(super) fn range(&self, start: usize, end: usize) -> TreeIter<'_> {
        let end = end.min(self.len);
        TreeIter { tree: self, start: start.min(end), end, front: None, back: None }
    }

    /// The leaf with the rank `rank`, and the item's place there.
    fn seek(&self, mut rank: usize) -> Option<(&Leaf, usize)> {
        let mut node = &self.root;
        loop {
            match node {
                Node::Leaf(leaf) => return Some((leaf, rank)),
                Node::Inner(inner) => node = inner.node(inner.branch_of_rank(&mut rank)?)?,
            }
        }
    }

    /// Takes away root nodes with a single branch.
    fn lower_root(&mut self) {
        while let Node::Inner(inner) = &mut self.root {
            if inner.firsts.len() > 1 {
                return;
            }
            self.root = inner.remove(0).unwrap_or_else(|| {
                self.tally.leaves += 1;
                Node::Leaf(Box::new(SortedKeys::new()))
            });
            self.tally.inners = self.tally.inners.saturating_sub(1);
        }
    }
}

/// Iterator over items by rank; see [`CountedTree::range`].
#[derive(Debug, Clone)]
pub(super) struct TreeIter<'a> {
    tree: &'a CountedTree,
    start: usize,
    end: usize,
    /// Where the next item is, as long as it is in the same leaf as the one before; sought anew otherwise.
    front: Option<(&'a Leaf, usize)>,
    /// The same for the other end; the place is one past the item.
    back: Option<(&'a Leaf, usize)>,
}

impl Iterator for TreeIter<'_> {
    type Item = Item;

    #[inline]
    fn next(&mut self) -> Option<Item> {
        if self.start >= self.end {
            return None;
        }
        let (leaf, at) = match self.front {
            Some(place) => place,
            None => self.tree.seek(self.start)?,
        };
        self.front = (at + 1 < leaf.len()).then_some((leaf, at + 1));
        self.start += 1;
        leaf.item(at)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.end - self.start, Some(self.end - self.start))
    }
}

impl DoubleEndedIterator for TreeIter<'_> {
    #[inline]
    fn next_back(&mut self) -> Option<Item> {
        if self.start >= self.end {
            return None;
        }
        let (leaf, at) = match self.back {
            Some((leaf, past)) => (leaf, past - 1),
            None => self.tree.seek(self.end - 1)?,
        };
        self.back = (at > 0).then_some((leaf, at));
        self.end -= 1;
        leaf.item(at)
    }
}

impl ExactSizeIterator for TreeIter<'_> {}

/// How many nodes there are, for the memory's account.
#[derive(Debug, Clone, Copy)]
struct Tally {
    leaves: usize,
    inners: usize,
}

type Leaf = SortedKeys<LEAF>;

#[derive(Debug, Clone)]
enum Node {
    Leaf(Box<Leaf>),
    /// Never empty.
    Inner(Box<Inner>),
}

/// Branches in order; the first item and the number of items below each lie apart from the nodes, so that a search
/// stays within few cache lines.
#[derive(Debug, Clone)]
struct Inner {
    firsts: SortedKeys<FAN>,
    counts: [u32; FAN],
    /// As many as there are first items, then none.
    nodes: [Option<Node>; FAN],
}

impl Node {
    /// Adds an item below; returns a new right neighbour if the node had to be split.
    fn insert(&mut self, item: Item, tie: &impl Fn(u32) -> Ordering, tally: &mut Tally) -> Option<Self> {
        match self {
            Self::Leaf(leaf) => {
                let at = leaf.search(item.score, tie).unwrap_or_else(|place| place);
                let right = insert_into_leaf(leaf, at, item)?;
                tally.leaves += 1;
                Some(Self::Leaf(right))
            }
            Self::Inner(inner) => {
                let at = inner.branch_of(item.score, tie);
                let split = inner.node_mut(at)?.insert(item, tie, tally);
                inner.refresh(at, |count| count + 1);
                let right = split?;
                if let Some(node) = inner.node(at) {
                    let count = node.count();
                    inner.refresh(at, |_| count);
                }
                let right = inner.insert_or_split(at + 1, right)?;
                tally.inners += 1;
                Some(Self::Inner(right))
            }
        }
    }

    fn remove(&mut self, score: f64, tie: &impl Fn(u32) -> Ordering, tally: &mut Tally) -> bool {
        match self {
            Self::Leaf(leaf) => {
                let found = leaf.search(score, tie);
                if let Ok(at) = found {
                    leaf.remove(at, 1);
                }
                found.is_ok()
            }
            Self::Inner(inner) => {
                let at = inner.branch_of(score, tie);
                let removed = inner.node_mut(at).is_some_and(|node| node.remove(score, tie, tally));
                if removed {
                    inner.settle(at, 1, tally);
                }
                removed
            }
        }
    }

    /// Removes up to `max` items from `rank` on, all in one leaf; returns how many.
    fn remove_run(
        &mut self,
        mut rank: usize,
        max: usize,
        removed: &mut Vec<u32>,
        tally: &mut Tally,
    ) -> usize {
        match self {
            Self::Leaf(leaf) => {
                let taken = max.min(leaf.len().saturating_sub(rank));
                removed.extend(leaf.indices().iter().skip(rank).take(taken));
                leaf.remove(rank, taken);
                taken
            }
            Self::Inner(inner) => {
                let Some(at) = inner.branch_of_rank(&mut rank) else { return 0 };
                let taken = inner.node_mut(at).map_or(0, |node| node.remove_run(rank, max, removed, tally));
                inner.settle(at, taken as u32, tally);
                taken
            }
        }
    }

    /// Changes an item in its leaf; returns what `change` says, and false if there is no such item.
    fn change(
        &mut self,
        score: f64,
        tie: &impl Fn(u32) -> Ordering,
        change: &impl Fn(&mut Leaf, usize, Item) -> bool,
    ) -> bool {
        match self {
            Self::Leaf(leaf) => leaf
                .search(score, tie)
                .ok()
                .and_then(|at| Some((at, leaf.item(at)?)))
                .is_some_and(|(at, item)| change(leaf, at, item)),
            Self::Inner(inner) => {
                let at = inner.branch_of(score, tie);
                let changed = inner.node_mut(at).is_some_and(|node| node.change(score, tie, change));
                inner.refresh(at, |count| count);
                changed
            }
        }
    }

    fn first(&self) -> Option<Item> {
        match self {
            Self::Leaf(leaf) => leaf.item(0),
            Self::Inner(inner) => inner.firsts.item(0),
        }
    }

    /// Number of items below.
    fn count(&self) -> u32 {
        match self {
            Self::Leaf(leaf) => leaf.len() as u32,
            Self::Inner(inner) => inner.count_before(FAN) as u32,
        }
    }

    /// Items or branches held, and how many there may be.
    fn slots(&self) -> (usize, usize) {
        match self {
            Self::Leaf(leaf) => (leaf.len(), LEAF),
            Self::Inner(inner) => (inner.firsts.len(), FAN),
        }
    }
}

impl Inner {
    fn boxed() -> Box<Self> {
        let nodes = array::from_fn(|_| None);
        Box::new(Self { firsts: SortedKeys::new(), counts: [0; FAN], nodes })
    }

    fn node(&self, at: usize) -> Option<&Node> {
        self.nodes.get(at)?.as_ref()
    }

    fn node_mut(&mut self, at: usize) -> Option<&mut Node> {
        self.nodes.get_mut(at)?.as_mut()
    }

    /// The branch that an item is in, or would go to.
    #[inline]
    fn branch_of(&self, score: f64, tie: &impl Fn(u32) -> Ordering) -> usize {
        self.firsts.search(score, tie).unwrap_or_else(|place| place.saturating_sub(1))
    }

    /// The branch with the rank `rank`, which becomes the rank within it.
    #[inline]
    fn branch_of_rank(&self, rank: &mut usize) -> Option<usize> {
        for (at, &count) in self.counts.iter().enumerate().take(self.firsts.len()) {
            match rank.checked_sub(count as usize) {
                Some(rest) => *rank = rest,
                None => return Some(at),
            }
        }
        None
    }

    /// Number of items below the branches before `at`; those beyond the last count nothing.
    #[inline]
    fn count_before(&self, at: usize) -> usize {
        self.counts.iter().take(at).map(|&count| count as usize).sum()
    }

    /// Brings a branch's first item up to date with its node, and its count with `count`.
    fn refresh(&mut self, at: usize, count: impl Fn(u32) -> u32) {
        if let Some(first) = self.node(at).and_then(Node::first) {
            self.firsts.put(at, first);
        }
        if let Some(slot) = self.counts.get_mut(at) {
            *slot = count(*slot);
        }
    }

    /// Inserts a branch, for which there is room.
    fn insert(&mut self, at: usize, node: Node) {
        let len = self.firsts.len();
        let Some(first) = node.first().filter(|_| len < FAN && at <= len) else { return };
        let count = node.count();
        self.firsts.insert(at, first);
        self.counts.copy_within(at..len, at + 1);
        if let Some(moved) = self.nodes.get_mut(at..=len) {
            moved.rotate_right(1);
        }
        if let (Some(slot), Some(place)) = (self.counts.get_mut(at), self.nodes.get_mut(at)) {
            *slot = count;
            *place = Some(node);
        }
    }

    fn remove(&mut self, at: usize) -> Option<Node> {
        let len = self.firsts.len();
        let node = self.nodes.get_mut(at)?.take()?;
        self.firsts.remove(at, 1);
        self.counts.copy_within(at + 1.., at);
        if let Some(last) = self.counts.last_mut() {
            *last = 0;
        }
        if let Some(moved) = self.nodes.get_mut(at..len) {
            moved.rotate_left(1);
        }
        Some(node)
    }

    /// Inserts a branch; returns a new right neighbour if there was no room.
    fn insert_or_split(&mut self, at: usize, node: Node) -> Option<Box<Self>> {
        if !self.firsts.is_full() {
            self.insert(at, node);
            return None;
        }
        // Growth at the right end leaves a full node behind.
        let cut = if at >= FAN { FAN } else { FAN / 2 };
        let mut right = Self::boxed();
        right.take_from(self, cut);
        if at > cut || cut == FAN {
            right.insert(at - cut, node);
        } else {
            self.insert(at, node);
        }
        Some(right)
    }

    /// Appends the branches of `other` from `start` on.
    fn take_from(&mut self, other: &mut Self, start: usize) {
        let len = self.firsts.len();
        let moved = other.firsts.len().saturating_sub(start).min(FAN - len);
        self.firsts.extend_from(&other.firsts, start);
        other.firsts.remove(start, moved);
        let counts = self.counts.iter_mut().skip(len).zip(other.counts.iter_mut().skip(start));
        for (to, from) in counts.take(moved) {
            *to = std::mem::take(from);
        }
        let nodes = self.nodes.iter_mut().skip(len).zip(other.nodes.iter_mut().skip(start));
        for (to, from) in nodes.take(moved) {
            *to = from.take();
        }
    }

    /// After the removal of `removed` items below a branch: brings it up to date, drops it if it is empty, merges it
    /// with a neighbour if it has become small.
    fn settle(&mut self, at: usize, removed: u32, tally: &mut Tally) {
        self.refresh(at, |count| count.saturating_sub(removed));
        if self.counts.get(at).is_some_and(|&count| count == 0) {
            self.remove(at).inspect(|node| tally.forget(node));
            return;
        }
        let Some((slots, capacity)) = self.node(at).map(Node::slots) else { return };
        if slots >= capacity / 3 {
            return;
        }
        // What is merged stays clear of the limit, or the next insertion would split it again.
        let roomy =
            |other| self.node(other).is_some_and(|other| other.slots().0 + slots <= capacity - capacity / 8);
        let left = match at.checked_sub(1) {
            Some(before) if roomy(before) => before,
            _ if roomy(at + 1) => at,
            _ => return,
        };
        let Some(right) = self.remove(left + 1).inspect(|node| tally.forget(node)) else { return };
        let gained = right.count();
        match (self.node_mut(left), right) {
            (Some(Node::Leaf(into)), Node::Leaf(from)) => into.extend_from(&from, 0),
            (Some(Node::Inner(into)), Node::Inner(mut from)) => into.take_from(&mut from, 0),
            // Neighbours are equally deep.
            _ => {}
        }
        self.refresh(left, |count| count + gained);
    }
}

/// Adds an item to a leaf; returns a new right neighbour if it was full.
fn insert_into_leaf(leaf: &mut Leaf, at: usize, item: Item) -> Option<Box<Leaf>> {
    if !leaf.is_full() {
        leaf.insert(at, item);
        return None;
    }
    // An item at either end gets a leaf of its own, which leaves full ones behind when items come in order.
    let cut = match at {
        0 => 0,
        LEAF => LEAF,
        _ => LEAF / 2,
    };
    let mut right = Box::new(SortedKeys::new());
    right.extend_from(leaf, cut);
    leaf.remove(cut, LEAF);
    if at > cut || at == LEAF {
        right.insert(at - cut, item);
    } else {
        leaf.insert(at, item);
    }
    Some(right)
}

impl Tally {
    fn forget(&mut self, node: &Node) {
        let count = match node {
            Node::Leaf(_) => &mut self.leaves,
            Node::Inner(_) => &mut self.inners,
        };
        *count = count.saturating_sub(1);
    }
}

#[cfg(test)]
#[path = "counted_tree_tests.rs"]
mod tests;
