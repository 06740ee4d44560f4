//! Tests of the list against a plain vector.

use proptest::prelude::*;

use super::*;

#[derive(Debug, Clone)]
enum Op {
    Push(bool, Vec<u8>),
    Pop(bool),
    Set(usize, Vec<u8>),
    Insert(usize, Vec<u8>),
    RemoveRange(usize, usize),
    Trim(usize, usize),
    RemoveMatches(usize, usize, bool),
}

fn element() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        10 => "[a-c]".prop_map(String::into_bytes),
        10 => prop::collection::vec(any::<u8>(), 0..300),
        1 => (4000_usize..9000).prop_map(|n| vec![1; n]),
    ]
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        30 => (any::<bool>(), element()).prop_map(|(end, e)| Op::Push(end, e)),
        5 => any::<bool>().prop_map(Op::Pop),
        10 => (any::<usize>(), element()).prop_map(|(i, e)| Op::Set(i, e)),
        20 => (any::<usize>(), element()).prop_map(|(i, e)| Op::Insert(i, e)),
        2 => (any::<usize>(), 0_usize..40).prop_map(|(i, n)| Op::RemoveRange(i, n)),
        1 => (0_usize..10, any::<usize>()).prop_map(|(i, n)| Op::Trim(i, n)),
        1 => (any::<usize>(), 0_usize..6, any::<bool>()).prop_map(|(i, n, end)| Op::RemoveMatches(i, n, end)),
    ]
}

fn end(front: bool) -> ListEnd {
    if front { ListEnd::Front } else { ListEnd::Back }
}

fn remove_matches(model: &mut Vec<Vec<u8>>, e: &[u8], limit: usize, front: bool) -> usize {
    let mut left = limit;
    if !front {
        model.reverse();
    }
    model.retain(|m| {
        let goes = left > 0 && m == e;
        left -= usize::from(goes);
        !goes
    });
    if !front {
        model.reverse();
    }
    limit - left
}

fn apply(list: &mut List, model: &mut Vec<Vec<u8>>, op: Op, limits: &EncodingLimits) {
    match op {
        Op::Push(front, e) => {
            list.push(end(front), &e, limits);
            model.insert(if front { 0 } else { model.len() }, e);
        }
        Op::Pop(front) => {
            let expected = if front { (!model.is_empty()).then(|| model.remove(0)) } else { model.pop() };
            assert_eq!(list.pop(end(front)), expected);
        }
        Op::Set(i, e) if !model.is_empty() => {
            let i = i % model.len();
            assert!(list.set(i, &e, limits));
            model[i] = e;
        }
        Op::Insert(i, e) => {
            let i = i % (model.len() + 1);
            list.insert(i, &e, limits);
            model.insert(i, e);
        }
        Op::RemoveRange(i, n) => {
            let i = i % (model.len() + 1);
            let end = (i + n).min(model.len());
            assert_eq!(list.remove_range(i, n), end - i);
            model.drain(i..end);
        }
        Op::Trim(i, n) => {
            let i = i.min(model.len());
            // Keeps at least half, so that sequences do not stay short.
            let n = model.len() / 2 + n % (model.len() + 1);
            list.trim(i, n);
            model.truncate(i + n);
            model.drain(..i);
        }
        Op::RemoveMatches(i, n, front) => {
            let e = model.get(i % model.len().max(1)).cloned().unwrap_or_default();
            let expected = remove_matches(model, &e, n, front);
            assert_eq!(list.remove_matches(&e, n, end(front)), expected);
        }
        Op::Set(i, e) => assert!(!list.set(i, &e, limits)),
    }
}

fn check_books(list: &List, limits: &EncodingLimits) {
    let limit = ChunkLimit::new(limits);
    assert_eq!(list.owned, list.nodes.iter().map(Node::heap_bytes).sum::<usize>());
    assert_eq!(list.len, list.nodes.iter().map(Node::len).sum::<usize>());
    for node in &list.nodes {
        match node {
            Node::Packed(packed) => assert!(!packed.is_empty() && packed.byte_len() <= limit.bytes),
            Node::Plain(element) => assert!(Packed::stored_size(element.len()) > limit.bytes),
        }
    }
}

fn check(ops: Vec<Op>, limits: &EncodingLimits) {
    let mut list = List::new();
    let mut model: Vec<Vec<u8>> = Vec::new();
    for op in ops {
        apply(&mut list, &mut model, op, limits);
        assert_eq!(list.len(), model.len());
        check_books(&list, limits);
        assert_eq!(list.front(), model.first().map(Vec::as_slice));
        assert_eq!(list.back(), model.last().map(Vec::as_slice));
    }
    assert!(list.iter().eq(model.iter()));
    assert!(list.iter().rev().eq(model.iter().rev()));
    for (i, expected) in model.iter().enumerate() {
        assert_eq!(list.get(i), Some(expected.as_slice()));
    }
    assert_eq!(list.get(model.len()), None);
    assert_eq!(list.get(usize::MAX), None);
    for start in (0..=model.len()).step_by(7) {
        for count in [0, 1, 5, 60, usize::MAX] {
            let end = start.saturating_add(count).min(model.len());
            let expected = &model[start..end];
            let range = list.range(start, count);
            assert_eq!(range.len(), expected.len());
            assert!(range.clone().eq(expected.iter()));
            assert!(range.rev().eq(expected.iter().rev()));
        }
    }
    let copy = list.clone();
    assert!(copy.iter().eq(list.iter()));
    check_books(&copy, limits);
}

proptest! {
    #[test]
    fn behaves_as_a_vector(ops in prop::collection::vec(op(), 0..300)) {
        check(ops, &EncodingLimits::DEFAULT);
    }

    #[test]
    fn behaves_as_a_vector_with_chunks_of_three(ops in prop::collection::vec(op(), 0..150)) {
        check(ops, &EncodingLimits { list_max_listpack_size: 3, ..EncodingLimits::DEFAULT });
    }
}

#[test]
fn many_small_elements_take_little_more_than_their_bytes() {
    for at in [ListEnd::Front, ListEnd::Back] {
        let mut list = List::new();
        for _ in 0..100_000 {
            list.push(at, &[b'x'; 20], &EncodingLimits::DEFAULT);
        }
        let per_element = list.heap_bytes() as f64 / 100_000.0;
        assert!(per_element < 22.6, "{at:?}: {per_element}");
    }
}

#[test]
fn a_queue_stays_small() {
    let mut list = List::new();
    for i in 0..200_000_u32 {
        list.push(ListEnd::Front, &i.to_le_bytes(), &EncodingLimits::DEFAULT);
        if list.len() > 2000 {
            assert_eq!(list.pop(ListEnd::Back), Some((i - 2000).to_le_bytes().to_vec()));
        }
    }
    assert!(list.heap_bytes() < 40_000, "{}", list.heap_bytes());
}
