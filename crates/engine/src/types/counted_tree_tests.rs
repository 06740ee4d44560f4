//! Tests of the counted tree against a sorted vector, and of every promise of its structure.

use proptest::prelude::*;

use super::*;

/// The index decides among equal scores, as the member does in a sorted set.
fn tie(key: u32) -> impl Fn(u32) -> Ordering {
    move |index| index.cmp(&key)
}

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
        Node::Inner(inner) => {
            let len = inner.firsts.len();
            assert!(len > 0);
            assert!(inner.nodes[len..].iter().all(Option::is_none));
            assert!(inner.counts[len..].iter().all(|&count| count == 0));
            let mut total = (None, 0, Tally { leaves: 0, inners: 1 });
            for at in 0..len {
                let node = inner.node(at).unwrap();
                let (depth, count, tally) = check_node(node);
                assert_eq!(count, inner.counts[at] as usize);
                assert!(count > 0);
                assert_eq!(node.first(), inner.firsts.item(at));
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

#[test]
fn nodes_fill_their_size_classes() {
    assert!(size_of::<Leaf>() > 704 && size_of::<Leaf>() <= 768);
    assert!(size_of::<Inner>() > 960 && size_of::<Inner>() <= 1024);
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
            tree.insert(new, tie(new.index));
            model.insert(place(model, new), new);
        }
        Op::Remove(i) if !model.is_empty() => {
            let gone = model.remove(i % model.len());
            assert!(tree.remove(gone.score, tie(gone.index)));
            assert!(!tree.remove(gone.score, tie(gone.index)));
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
            if !tree.rescore(old.score, new.score, tie(old.index)) {
                assert!(tree.remove(old.score, tie(old.index)));
                tree.insert(new, tie(new.index));
            }
            model.remove(i);
            model.insert(place(model, new), new);
        }
        Op::Reindex(i) if !model.is_empty() => {
            // An odd number next to its own keeps the order.
            let i = i % model.len();
            if model[i].index.is_multiple_of(2) {
                tree.reindex(model[i].score, model[i].index + 1, tie(model[i].index));
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
                prop_assert_eq!(tree.rank(x.score, tie(x.index)), rank);
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
            tree.insert(new, tie(new.index));
        }
        assert!(tree.tally.leaves <= 1001, "{}", tree.tally.leaves);
    }
}

#[test]
fn an_emptied_tree_is_one_leaf() {
    let mut tree = CountedTree::new();
    for i in 0..10_000_u32 {
        let new = Item { score: (i % 77).into(), index: i };
        tree.insert(new, tie(new.index));
    }
    let mut removed = Vec::new();
    tree.remove_ranks(0, usize::MAX, &mut removed);
    assert_eq!(removed.len(), 10_000);
    assert_eq!((tree.tally.leaves, tree.tally.inners, tree.len), (1, 0, 0));
    check(&tree, &[]);
}
