//! Tests of the packed sequence against a plain vector of byte strings.

use proptest::prelude::*;

use super::*;

#[derive(Debug, Clone)]
enum Op {
    PushBack(Vec<u8>),
    PushFront(Vec<u8>),
    PopBack,
    PopFront,
    Insert(usize, Vec<u8>),
    Replace(usize, Vec<u8>),
    Remove(usize, usize),
    SplitAppend(usize),
    Retain(u8),
}

fn element() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        8 => prop::collection::vec(any::<u8>(), 0..12),
        2 => prop::collection::vec(any::<u8>(), 120..140),
        1 => (16_370_usize..16_400).prop_map(|n| vec![7; n]),
    ]
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        element().prop_map(Op::PushBack),
        element().prop_map(Op::PushFront),
        Just(Op::PopBack),
        Just(Op::PopFront),
        (any::<usize>(), element()).prop_map(|(i, e)| Op::Insert(i, e)),
        (any::<usize>(), element()).prop_map(|(i, e)| Op::Replace(i, e)),
        (any::<usize>(), 0_usize..4).prop_map(|(i, n)| Op::Remove(i, n)),
        any::<usize>().prop_map(Op::SplitAppend),
        any::<u8>().prop_map(Op::Retain),
    ]
}

fn apply(packed: &mut Packed, model: &mut Vec<Vec<u8>>, op: Op) {
    match op {
        Op::PushBack(e) => {
            packed.push_back(&e);
            model.push(e);
        }
        Op::PushFront(e) => {
            packed.push_front(&e);
            model.insert(0, e);
        }
        Op::PopBack => assert_eq!(packed.pop_back_with(<[u8]>::to_vec), model.pop()),
        Op::PopFront => {
            let expected = (!model.is_empty()).then(|| model.remove(0));
            assert_eq!(packed.pop_front_with(<[u8]>::to_vec), expected);
        }
        Op::Insert(i, e) => {
            let i = i % (model.len() + 1);
            let at = packed.position(i).unwrap_or(packed.end());
            packed.insert(at, &e);
            model.insert(i, e);
        }
        Op::Replace(i, e) if !model.is_empty() => {
            let i = i % model.len();
            packed.replace(packed.position(i).unwrap(), &e);
            model[i] = e;
        }
        Op::Remove(i, n) if !model.is_empty() => {
            let i = i % model.len();
            let end = (i + n).min(model.len());
            assert_eq!(packed.remove(packed.position(i).unwrap(), n), end - i);
            model.drain(i..end);
        }
        Op::SplitAppend(i) => {
            let i = i % (model.len() + 1);
            let right = packed.split_off(i);
            assert_eq!(right.len(), model.len() - i);
            packed.append(&right);
        }
        Op::Retain(bit) => {
            let keep = |e: &[u8]| e.first().is_none_or(|b| b & 1 == bit & 1);
            packed.retain(keep);
            model.retain(|e| keep(e));
        }
        Op::Replace(..) | Op::Remove(..) => {}
    }
}

proptest! {
    #[test]
    fn behaves_as_a_vector_of_byte_strings(ops in prop::collection::vec(op(), 0..120)) {
        let mut packed = Packed::new();
        let mut model: Vec<Vec<u8>> = Vec::new();
        for op in ops {
            apply(&mut packed, &mut model, op);
            prop_assert_eq!(packed.len(), model.len());
            prop_assert!(packed.iter().eq(model.iter()));
            prop_assert!(packed.iter().rev().eq(model.iter().rev()));
            let live: usize = model.iter().map(|e| Packed::stored_size(e.len())).sum();
            prop_assert_eq!(packed.byte_len(), live);
            prop_assert!(packed.heap_bytes() <= (live * 3).max(128) + 2 * MAX_FRONT_GAP);
        }
        for (i, expected) in model.iter().enumerate() {
            prop_assert_eq!(packed.get(i), Some(expected.as_slice()));
            let found = packed.find(expected, 1).map(|(at, _)| at);
            prop_assert_eq!(found, model.iter().position(|e| e == expected));
        }
        prop_assert_eq!(packed.get(model.len()), None);
    }

    #[test]
    fn a_damaged_buffer_is_walked_without_panic(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
        let mut packed = Packed { buf: bytes, head: 0, count: 9 };
        let _ = packed.iter().count();
        let _ = packed.iter().rev().count();
        let _ = packed.find(b"x", 2);
        let _ = packed.position(5);
        packed.retain(|e| e.len() > 2);
    }
}

#[test]
fn find_with_a_step_looks_at_keys_only() {
    let mut packed = Packed::new();
    for e in [b"a", b"b", b"b", b"c"] {
        packed.push_back(e);
    }
    let (index, at) = packed.find(b"b", 2).unwrap();
    assert_eq!((index, packed.at(at)), (2, Some(&b"b"[..])));
    assert_eq!(packed.find(b"c", 2), None);
}

#[test]
fn a_queue_does_not_grow() {
    let mut packed = Packed::new();
    for i in 0..100_000_u32 {
        packed.push_front(&i.to_le_bytes());
        if i >= 10 {
            packed.pop_back_with(|_| ()).unwrap();
        }
    }
    assert!(packed.heap_bytes() < 512, "{}", packed.heap_bytes());
}

#[test]
fn what_grows_at_the_front_stays_where_it_is_while_its_room_lasts() {
    let element = [b'x'; 200];
    let size = Packed::stored_size(element.len());
    let mut packed = Packed::with_front_gap(8192);
    packed.push_front(&element);
    let place = packed.front().unwrap().as_ptr();
    for _ in 1..8192 / size {
        packed.push_front(&element);
        assert_eq!(packed.back().unwrap().as_ptr(), place);
    }
    assert_eq!((packed.len(), packed.heap_bytes()), (8192 / size, 8192));
}
