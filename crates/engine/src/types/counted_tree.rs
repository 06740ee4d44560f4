//! A B+ tree that counts what lies below each branch: the order of a large sorted set, by score, member and rank.
//!
//! Its items are a score and the index of the member in a table beside it, so that members are stored once; whoever
//! calls brings the comparison. Every branch knows its first item and its count, and all leaves lie equally deep.
//! Leaves that fill in order, ascending or descending, stay full. Recursion is as deep as the tree: 7 levels hold
//! more than 2^32 items.

use std::cmp::Ordering;

use super::allocation::{allocation_size, vec_bytes};

/// Items in a leaf: with 12 bytes each they fill a 768-byte size class.
const LEAF: usize = 63;

/// Branches of an inner node.
const FAN: usize = 32;

/// An item: a score, and where its member is found.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Item {
    pub(super) score: f64,
    pub(super) index: u32,
}

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
        Self { root: Node::Leaf(Leaf::boxed()), len: 0, tally: Tally { leaves: 1, inners: 0 } }
    }

    /// Heap bytes held, in O(1).
    pub(super) fn heap_bytes(&self) -> usize {
        self.tally.leaves * allocation_size(size_of::<Leaf>()) + self.tally.inners * vec_bytes::<Branch>(FAN)
    }

    /// Adds `item` at its place; `order` compares an item of the tree with it.
    pub(super) fn insert(&mut self, item: Item, order: impl Fn(Item) -> Ordering) {
        if let Some(right) = self.root.insert(item, &order, &mut self.tally) {
            let left = std::mem::replace(&mut self.root, Node::new_inner(&mut self.tally));
            if let Node::Inner(branches) = &mut self.root {
                branches.extend([Branch::of(left), Branch::of(right)]);
            }
        }
        self.len += 1;
    }

    /// Removes the item that `order` finds equal; returns whether there was one.
    pub(super) fn remove(&mut self, order: impl Fn(Item) -> Ordering) -> bool {
        let removed = self.root.remove(&order, &mut self.tally);
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

    /// Gives the item that `order` finds equal a new score where it is, if `new_order` still finds it between its
    /// neighbours there; returns whether it did.
    pub(super) fn rescore(
        &mut self,
        score: f64,
        order: impl Fn(Item) -> Ordering,
        new_order: impl Fn(Item) -> Ordering,
    ) -> bool {
        self.root.change(&order, &|leaf, at| {
            let above = at.checked_sub(1).and_then(|before| leaf.item(before));
            let below = leaf.item(at + 1);
            // At a leaf's edge the neighbour is elsewhere; moving the item is then simply the slower way.
            let stays = above.is_some_and(|item| new_order(item) == Ordering::Less)
                && below.is_some_and(|item| new_order(item) == Ordering::Greater);
            if let Some(place) = leaf.scores.get_mut(at).filter(|_| stays) {
                *place = score;
            }
            stays
        })
    }

    /// Points the item that `order` finds equal to the new place of its member.
    pub(super) fn reindex(&mut self, index: u32, order: impl Fn(Item) -> Ordering) {
        self.root.change(&order, &|leaf, at| {
            leaf.indices.get_mut(at).is_some_and(|place| {
                *place = index;
                true
            })
        });
    }

    /// The item of rank `rank`.
    pub(super) fn get(&self, rank: usize) -> Option<Item> {
        let (leaf, at) = self.seek(rank)?;
        leaf.item(at)
    }

    /// Counts the items for which `is_before` holds; it holds for all up to some rank and for none from there on.
    pub(super) fn partition(&self, is_before: impl Fn(Item) -> bool) -> usize {
        let mut node = &self.root;
        let mut rank = 0;
        loop {
            match node {
                Node::Leaf(leaf) => return rank + leaf.partition(&is_before),
                Node::Inner(branches) => {
                    let at = branches.partition_point(|branch| is_before(branch.first)).saturating_sub(1);
                    rank += branches.iter().take(at).map(|branch| branch.count as usize).sum::<usize>();
                    let Some(branch) = branches.get(at) else { return rank };
                    node = &branch.node;
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
                Node::Inner(branches) => node = &branch_of_rank(branches, &mut rank)?.1.node,
            }
        }
    }

    /// Takes away root nodes with a single branch.
    fn lower_root(&mut self) {
        while let Node::Inner(branches) = &mut self.root {
            if branches.len() > 1 {
                return;
            }
            self.root = match branches.pop() {
                Some(branch) => branch.node,
                None => Node::new_leaf(&mut self.tally),
            };
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

#[derive(Debug)]
enum Node {
    Leaf(Box<Leaf>),
    /// Never empty, and always with the capacity for `FAN` branches.
    Inner(Vec<Branch>),
}

#[derive(Debug, Clone)]
struct Branch {
    /// The first item below.
    first: Item,
    /// Number of items below.
    count: u32,
    node: Node,
}

impl Clone for Node {
    fn clone(&self) -> Self {
        match self {
            Self::Leaf(leaf) => Self::Leaf(leaf.clone()),
            Self::Inner(branches) => {
                let mut copy = Vec::with_capacity(FAN);
                copy.extend(branches.iter().cloned());
                Self::Inner(copy)
            }
        }
    }
}

impl Branch {
    fn of(node: Node) -> Self {
        let mut branch = Self { first: Item { score: 0.0, index: 0 }, count: 0, node };
        branch.refresh();
        branch
    }

    /// Brings first item and count up to date with the node.
    fn refresh(&mut self) {
        self.refresh_first();
        self.count = match &self.node {
            Node::Leaf(leaf) => u32::from(leaf.len),
            Node::Inner(branches) => branches.iter().map(|branch| branch.count).sum(),
        };
    }

    fn refresh_first(&mut self) {
        let first = match &self.node {
            Node::Leaf(leaf) => leaf.item(0),
            Node::Inner(branches) => branches.first().map(|branch| branch.first),
        };
        self.first = first.unwrap_or(self.first);
    }
}

impl Node {
    fn new_leaf(tally: &mut Tally) -> Self {
        tally.leaves += 1;
        Self::Leaf(Leaf::boxed())
    }

    fn new_inner(tally: &mut Tally) -> Self {
        tally.inners += 1;
        Self::Inner(Vec::with_capacity(FAN))
    }

    /// Adds an item below; returns a new right neighbour if the node had to be split.
    fn insert(&mut self, item: Item, order: &impl Fn(Item) -> Ordering, tally: &mut Tally) -> Option<Self> {
        match self {
            Self::Leaf(leaf) => {
                let at = leaf.partition(|x| order(x) == Ordering::Less);
                let right = leaf.insert(at, item)?;
                tally.leaves += 1;
                Some(Self::Leaf(right))
            }
            Self::Inner(branches) => {
                let at = branches.partition_point(|b| order(b.first) == Ordering::Less).saturating_sub(1);
                let branch = branches.get_mut(at)?;
                let Some(right) = branch.node.insert(item, order, tally) else {
                    branch.count += 1;
                    branch.refresh_first();
                    return None;
                };
                branch.refresh();
                insert_branch(branches, at + 1, Branch::of(right), tally)
            }
        }
    }

    fn remove(&mut self, order: &impl Fn(Item) -> Ordering, tally: &mut Tally) -> bool {
        match self {
            Self::Leaf(leaf) => {
                let Some(at) = leaf.find(order) else { return false };
                leaf.remove(at, 1);
                true
            }
            Self::Inner(branches) => {
                let Some((at, branch)) = branch_of_item(branches, order) else { return false };
                let removed = branch.node.remove(order, tally);
                if removed {
                    branch.count = branch.count.saturating_sub(1);
                    branch.refresh_first();
                    settle(branches, at, tally);
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
                removed.extend(leaf.indices.iter().skip(rank).take(taken));
                leaf.remove(rank, taken);
                taken
            }
            Self::Inner(branches) => {
                let Some(at) = branch_of_rank(branches, &mut rank).map(|(at, _)| at) else { return 0 };
                let Some(branch) = branches.get_mut(at) else { return 0 };
                let taken = branch.node.remove_run(rank, max, removed, tally);
                branch.count = branch.count.saturating_sub(taken as u32);
                branch.refresh_first();
                settle(branches, at, tally);
                taken
            }
        }
    }

    /// Changes the item that `order` finds equal in its leaf; returns what `change` says.
    fn change(
        &mut self,
        order: &impl Fn(Item) -> Ordering,
        change: &impl Fn(&mut Leaf, usize) -> bool,
    ) -> bool {
        match self {
            Self::Leaf(leaf) => leaf.find(order).is_some_and(|at| change(leaf, at)),
            Self::Inner(branches) => branch_of_item(branches, order).is_some_and(|(_, branch)| {
                let changed = branch.node.change(order, change);
                branch.refresh_first();
                changed
            }),
        }
    }

    /// Items or branches held.
    fn slots(&self) -> usize {
        match self {
            Self::Leaf(leaf) => leaf.len(),
            Self::Inner(branches) => branches.len(),
        }
    }

    fn capacity(&self) -> usize {
        match self {
            Self::Leaf(_) => LEAF,
            Self::Inner(_) => FAN,
        }
    }
}

/// The branch that holds the item which `order` finds equal, if any does.
fn branch_of_item<'a>(
    branches: &'a mut [Branch],
    order: &impl Fn(Item) -> Ordering,
) -> Option<(usize, &'a mut Branch)> {
    let at = branches.partition_point(|branch| order(branch.first) != Ordering::Greater).checked_sub(1)?;
    branches.get_mut(at).map(|branch| (at, branch))
}

/// The branch that holds the rank `rank`, which becomes the rank within it.
fn branch_of_rank<'a>(branches: &'a [Branch], rank: &mut usize) -> Option<(usize, &'a Branch)> {
    for (at, branch) in branches.iter().enumerate() {
        match rank.checked_sub(branch.count as usize) {
            Some(rest) => *rank = rest,
            None => return Some((at, branch)),
        }
    }
    None
}

/// Adds a branch to an inner node; returns a new right neighbour if it had to be split.
fn insert_branch(branches: &mut Vec<Branch>, at: usize, branch: Branch, tally: &mut Tally) -> Option<Node> {
    if branches.len() < FAN {
        branches.insert(at.min(branches.len()), branch);
        return None;
    }
    // Growth at the right end leaves a full node behind.
    let cut = if at >= FAN { FAN } else { FAN / 2 };
    tally.inners += 1;
    let mut right = Vec::with_capacity(FAN);
    right.extend(branches.drain(cut..));
    if at >= cut {
        right.insert((at - cut).min(right.len()), branch);
    } else {
        branches.insert(at, branch);
    }
    Some(Node::Inner(right))
}

/// After a removal below branch `at`: drops it if it is empty, merges it with a neighbour if it has become small.
fn settle(branches: &mut Vec<Branch>, at: usize, tally: &mut Tally) {
    let Some(branch) = branches.get(at) else { return };
    if branch.count == 0 {
        let gone = branches.remove(at);
        tally.forget(&gone.node);
        return;
    }
    let slots = branch.node.slots();
    let capacity = branch.node.capacity();
    if slots >= capacity / 3 {
        return;
    }
    // What is merged stays clear of the limit, or the next insertion would split it again.
    let roomy = |other: usize| {
        branches.get(other).is_some_and(|other| other.node.slots() + slots <= capacity - capacity / 8)
    };
    let left = match at.checked_sub(1) {
        Some(before) if roomy(before) => before,
        _ if roomy(at + 1) => at,
        _ => return,
    };
    let right = branches.remove(left + 1);
    tally.forget(&right.node);
    if let Some(branch) = branches.get_mut(left) {
        match (&mut branch.node, right.node) {
            (Node::Leaf(into), Node::Leaf(from)) => into.append(&from),
            (Node::Inner(into), Node::Inner(from)) => into.extend(from),
            // Neighbours are equally deep.
            (Node::Leaf(_), Node::Inner(_)) | (Node::Inner(_), Node::Leaf(_)) => {}
        }
        branch.count += right.count;
    }
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

/// Items in order; scores and indices apart, so that a search reads scores only.
#[derive(Debug, Clone)]
struct Leaf {
    scores: [f64; LEAF],
    indices: [u32; LEAF],
    len: u8,
}

impl Leaf {
    fn boxed() -> Box<Self> {
        Box::new(Self { scores: [0.0; LEAF], indices: [0; LEAF], len: 0 })
    }

    fn len(&self) -> usize {
        usize::from(self.len)
    }

    #[inline]
    fn item(&self, at: usize) -> Option<Item> {
        if at >= self.len() {
            return None;
        }
        Some(Item { score: *self.scores.get(at)?, index: *self.indices.get(at)? })
    }

    /// Counts the items for which `is_before` holds.
    #[inline]
    fn partition(&self, is_before: impl Fn(Item) -> bool) -> usize {
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

    fn find(&self, order: &impl Fn(Item) -> Ordering) -> Option<usize> {
        let at = self.partition(|item| order(item) == Ordering::Less);
        self.item(at).is_some_and(|item| order(item) == Ordering::Equal).then_some(at)
    }

    /// Adds an item; returns a new right neighbour if the leaf was full.
    fn insert(&mut self, at: usize, item: Item) -> Option<Box<Self>> {
        let len = self.len();
        if len < LEAF {
            self.scores.copy_within(at..len, at + 1);
            self.indices.copy_within(at..len, at + 1);
            self.len += 1;
            self.put(at, item);
            return None;
        }
        let mut right = Self::boxed();
        // An item at either end gets a leaf of its own, which leaves full ones behind when items come in order.
        let cut = match at {
            0 => 0,
            LEAF => LEAF,
            _ => LEAF / 2,
        };
        right.copy_from(self, cut);
        self.len = cut as u8;
        if at > cut || at == LEAF {
            right.insert(at - cut, item);
        } else {
            self.insert(at, item);
        }
        Some(right)
    }

    fn put(&mut self, at: usize, item: Item) {
        if let (Some(score), Some(index)) = (self.scores.get_mut(at), self.indices.get_mut(at)) {
            *score = item.score;
            *index = item.index;
        }
    }

    /// Removes `count` items from `at` on, which are there.
    fn remove(&mut self, at: usize, count: usize) {
        let len = self.len();
        let end = (at + count).min(len);
        if at < end {
            self.scores.copy_within(end..len, at);
            self.indices.copy_within(end..len, at);
            self.len -= (end - at) as u8;
        }
    }

    /// Appends the items of `other` from `start` on, as far as there is room.
    fn copy_from(&mut self, other: &Self, start: usize) {
        let mut at = self.len();
        for item in (start..other.len()).filter_map(|i| other.item(i)).take(LEAF - at) {
            self.put(at, item);
            at += 1;
        }
        self.len = at as u8;
    }

    fn append(&mut self, other: &Self) {
        self.copy_from(other, 0);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The index decides among equal scores, as the member does in a sorted set.
    fn order(key: Item) -> impl Fn(Item) -> Ordering {
        move |x| x.score.total_cmp(&key.score).then(x.index.cmp(&key.index))
    }

    fn item(score: u16, index: u32) -> Item {
        Item { score: score.into(), index }
    }

    /// Checks every promise of the structure and returns depth, items, leaves and inner nodes.
    fn check_node(node: &Node) -> (usize, usize, Tally) {
        match node {
            Node::Leaf(leaf) => (0, leaf.len(), Tally { leaves: 1, inners: 0 }),
            Node::Inner(branches) => {
                assert!(!branches.is_empty() && branches.len() <= FAN && branches.capacity() == FAN);
                let mut total = (None, 0, Tally { leaves: 0, inners: 1 });
                for branch in branches {
                    let (depth, count, tally) = check_node(&branch.node);
                    assert_eq!(count, branch.count as usize);
                    assert!(count > 0);
                    let mut fresh = branch.clone();
                    fresh.refresh();
                    assert_eq!(fresh.first, branch.first);
                    assert!(total.0.is_none_or(|d| d == depth + 1));
                    total.0 = Some(depth + 1);
                    total.1 += count;
                    total.2.leaves += tally.leaves;
                    total.2.inners += tally.inners;
                }
                (total.0.unwrap(), total.1, total.2)
            }
        }
    }

    fn check(tree: &CountedTree, model: &[Item]) {
        let (_, len, tally) = check_node(&tree.root);
        assert_eq!((len, tree.len), (model.len(), model.len()));
        assert_eq!((tally.leaves, tally.inners), (tree.tally.leaves, tree.tally.inners));
        assert!(tree.range(0, usize::MAX).eq(model.iter().copied()));
        assert!(tree.range(0, usize::MAX).rev().eq(model.iter().rev().copied()));
    }

    #[derive(Debug, Clone)]
    enum Op {
        Insert(u16),
        Remove(usize),
        RemoveRanks(usize, usize),
        Rescore(usize, u16),
        Reindex(usize),
    }

    fn op(remove: u32) -> impl Strategy<Value = Op> {
        prop_oneof![
            10 => any::<u16>().prop_map(Op::Insert),
            3 => (0_u16..4).prop_map(Op::Insert),
            remove => any::<usize>().prop_map(Op::Remove),
            1 => (any::<usize>(), 0_usize..150).prop_map(|(i, n)| Op::RemoveRanks(i, n)),
            2 => (any::<usize>(), 0_u16..500).prop_map(|(i, s)| Op::Rescore(i, s)),
            1 => any::<usize>().prop_map(Op::Reindex),
        ]
    }

    fn apply(tree: &mut CountedTree, model: &mut Vec<Item>, op: &Op, next: &mut u32) {
        let place = |model: &[Item], x: Item| model.partition_point(|&y| order(x)(y) == Ordering::Less);
        *next += 2;
        match *op {
            Op::Insert(score) => {
                let new = item(score, *next);
                tree.insert(new, order(new));
                model.insert(place(model, new), new);
            }
            Op::Remove(i) if !model.is_empty() => {
                let gone = model.remove(i % model.len());
                assert!(tree.remove(order(gone)));
                assert!(!tree.remove(order(gone)));
            }
            Op::RemoveRanks(i, n) if !model.is_empty() => {
                let i = i % model.len();
                let end = (i + n).min(model.len());
                let mut removed = Vec::new();
                tree.remove_ranks(i, n, &mut removed);
                assert!(removed.into_iter().eq(model.drain(i..end).map(|x| x.index)));
            }
            Op::Rescore(i, by) if !model.is_empty() => {
                let i = i % model.len();
                let old = model[i];
                let new = Item { score: old.score + f64::from(by) / 100.0, ..old };
                if !tree.rescore(new.score, order(old), order(new)) {
                    assert!(tree.remove(order(old)));
                    tree.insert(new, order(new));
                }
                model.remove(i);
                model.insert(place(model, new), new);
            }
            Op::Reindex(i) if !model.is_empty() => {
                // An odd number next to its own keeps the order.
                let i = i % model.len();
                if model[i].index.is_multiple_of(2) {
                    tree.reindex(model[i].index + 1, order(model[i]));
                    model[i].index += 1;
                }
            }
            Op::Remove(_) | Op::RemoveRanks(..) | Op::Rescore(..) | Op::Reindex(_) => {}
        }
    }

    proptest! {
        #[test]
        fn behaves_as_a_sorted_vector(
            grow in prop::collection::vec(op(1), 0..1500),
            shrink in prop::collection::vec(op(40), 0..1500),
        ) {
            let (mut tree, mut model, mut next) = (CountedTree::new(), Vec::new(), 0);
            for (i, op) in grow.iter().chain(&shrink).enumerate() {
                apply(&mut tree, &mut model, op, &mut next);
                if i % 256 == 0 {
                    check(&tree, &model);
                }
            }
            check(&tree, &model);
            check(&tree.clone(), &model);
            for rank in (0..=model.len()).step_by(13) {
                prop_assert_eq!(tree.get(rank), model.get(rank).copied());
                if let Some(&x) = model.get(rank) {
                    prop_assert_eq!(tree.partition(|y| order(x)(y) == Ordering::Less), rank);
                }
                let mut both = tree.range(rank / 2, rank);
                let (front, back) = (both.next(), both.next_back());
                let expected = &model[rank / 2..rank];
                prop_assert_eq!(front, expected.first().copied());
                prop_assert_eq!(back, expected.get(1..).and_then(<[Item]>::last).copied());
                let inner = expected.get(1..expected.len().max(2) - 1).unwrap_or_default();
                prop_assert!(both.eq(inner.iter().copied()));
            }
        }
    }

    #[test]
    fn leaves_filled_in_order_are_full() {
        for descending in [false, true] {
            let mut tree = CountedTree::new();
            for i in 0..63_000_u32 {
                let i = if descending { 63_000 - i } else { i };
                let new = Item { score: i.into(), index: i };
                tree.insert(new, order(new));
            }
            assert!(tree.tally.leaves <= 1001, "{}", tree.tally.leaves);
        }
    }

    #[test]
    fn an_emptied_tree_is_one_leaf() {
        let mut tree = CountedTree::new();
        for i in 0..10_000_u32 {
            let new = Item { score: (i % 77).into(), index: i };
            tree.insert(new, order(new));
        }
        let mut removed = Vec::new();
        tree.remove_ranks(0, usize::MAX, &mut removed);
        assert_eq!(removed.len(), 10_000);
        assert_eq!((tree.tally.leaves, tree.tally.inners, tree.len), (1, 0, 0));
        check(&tree, &[]);
    }
}
