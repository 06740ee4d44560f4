//! Values that go through the form and back, and bytes that are no values.

use proptest::prelude::*;

use super::read::Content;
use super::*;
use crate::keyspace::{StringEncoding, Value, ValueRef};
use crate::types::{EncodingLimits, Hash, List, ListEnd, Set, SortedSet};

const LIMITS: EncodingLimits = EncodingLimits::DEFAULT;

fn borrowed(object: &Object) -> ValueRef<'_> {
    match &object.0 {
        Content::String(text) => ValueRef::String(text, StringEncoding::Whole),
        Content::Collection(Value::Hash(hash)) => ValueRef::Hash(hash),
        Content::Collection(Value::List(list)) => ValueRef::List(list),
        Content::Collection(Value::Set(set)) => ValueRef::Set(set),
        Content::Collection(Value::SortedSet(set)) => ValueRef::SortedSet(set),
    }
}

/// Everything that can be seen of a value.
fn shown(object: &Object) -> (String, Vec<Vec<u8>>) {
    match &object.0 {
        Content::String(text) => ("string".into(), vec![text.clone()]),
        Content::Collection(Value::Hash(hash)) => {
            let mut pairs: Vec<_> = hash.iter().map(|(field, value)| [field, b"=", value].concat()).collect();
            pairs.sort();
            (hash.encoding().into(), pairs)
        }
        Content::Collection(Value::List(list)) => {
            (list.encoding().into(), list.iter().map(<[u8]>::to_vec).collect())
        }
        Content::Collection(Value::Set(set)) => {
            let mut members: Vec<_> = set.iter().map(|member| member.to_vec()).collect();
            members.sort();
            (set.encoding().into(), members)
        }
        Content::Collection(Value::SortedSet(set)) => {
            let scored = set.iter().map(|(member, score)| [&score.to_bits().to_le_bytes(), member].concat());
            (set.encoding().into(), scored.collect())
        }
    }
}

fn text() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        3 => (-100_000_i64..100_000).prop_map(|n| n.to_string().into_bytes()),
        1 => any::<i64>().prop_map(|n| n.to_string().into_bytes()),
        3 => proptest::collection::vec(any::<u8>(), 0..70),
        1 => (proptest::collection::vec(any::<u8>(), 1..6), 1..300_usize).prop_map(|(part, times)| part.repeat(times)),
        1 => Just(vec![b'z'; 9000]),
    ]
}

fn object() -> impl Strategy<Value = Object> {
    let texts = || proptest::collection::vec(text(), 1..40);
    let collection = |value| Object(Content::Collection(value));
    prop_oneof![
        text().prop_map(|text| Object(Content::String(text))),
        texts().prop_map(move |texts| {
            let mut list = List::new();
            for text in &texts {
                list.push(ListEnd::Back, text, &LIMITS);
            }
            collection(Value::List(Box::new(list)))
        }),
        texts().prop_map(move |texts| {
            let mut set = Set::new();
            for text in &texts {
                let _ = set.add(text, &LIMITS);
            }
            collection(Value::Set(Box::new(set)))
        }),
        proptest::collection::vec((any::<i64>(), 0..64_u32), 1..700).prop_map(move |values| {
            let mut set = Set::new();
            for (value, bits) in &values {
                let _ = set.add((value >> bits).to_string().as_bytes(), &LIMITS);
            }
            collection(Value::Set(Box::new(set)))
        }),
        texts().prop_map(move |texts| {
            let mut hash = Hash::new();
            for text in &texts {
                let _ = hash.set(text, &text[..text.len() / 2], &LIMITS);
            }
            collection(Value::Hash(Box::new(hash)))
        }),
        proptest::collection::vec(
            (text(), any::<f64>().prop_filter("a number", |score| !score.is_nan())),
            1..200
        )
        .prop_map(move |pairs| {
            let mut set = SortedSet::new();
            for (member, score) in &pairs {
                let _ = set.insert(member, *score, &LIMITS);
            }
            collection(Value::SortedSet(Box::new(set)))
        }),
    ]
}

proptest! {
    #[test]
    fn a_value_comes_back_as_it_was_in_the_same_encoding(object in object(), compressed in any::<bool>()) {
        let compression = if compressed { Compression::Lzf } else { Compression::Off };
        let payload = dump(borrowed(&object), &LIMITS, compression);
        let back = undump(&payload, &LIMITS).unwrap();
        prop_assert_eq!(back.type_name(), object.type_name());
        prop_assert_eq!(shown(&back), shown(&object));
    }

    #[test]
    fn a_changed_or_shortened_payload_is_refused(object in object(), at in any::<prop::sample::Index>()) {
        let payload = dump(borrowed(&object), &LIMITS, Compression::Lzf);
        let bit = at.index(payload.len() * 8);
        let mut flipped = payload.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        prop_assert!(undump(&flipped, &LIMITS).is_err());
        prop_assert!(undump(&payload[..bit / 8], &LIMITS).is_err());
    }

    #[test]
    fn a_broken_value_is_read_without_a_panic(object in object(), flips in proptest::collection::vec(any::<prop::sample::Index>(), 1..4)) {
        let kind = write_kind_of(borrowed(&object));
        let mut bytes = Vec::new();
        write_value(borrowed(&object), &LIMITS, Compression::Lzf, &mut bytes);
        for flip in flips {
            let bit = flip.index(bytes.len() * 8);
            bytes[bit / 8] ^= 1 << (bit % 8);
        }
        let _ = read_object(&mut bytes.as_slice(), kind, &LIMITS);
    }

    #[test]
    fn any_bytes_are_read_without_a_panic(kind in 0..=30_u8, bytes in proptest::collection::vec(any::<u8>(), 0..100)) {
        if let Ok(kind) = ValueKind::from_byte(kind) {
            let _ = read_object(&mut bytes.as_slice(), kind, &LIMITS);
        }
    }
}

#[test]
fn values_of_older_forms_are_read() {
    let read = |kind: u8, bytes: &[u8]| {
        shown(&read_object(&mut &bytes[..], ValueKind::from_byte(kind).unwrap(), &LIMITS).unwrap())
    };
    assert_eq!(read(1, b"\x02\x01a\xc0\xff").1, [&b"a"[..], b"-1"]);
    assert_eq!(read(3, b"\x02\x01a\x031.5\x01b\xfe").1.len(), 2);
    assert_eq!(read(9, b"\x0b\x01\x03foo\x03\x00bar\xff").1, [b"foo=bar"]);
    assert_eq!(read(4, b"\x01\x01f\x01v"), ("listpack".into(), vec![b"f=v".to_vec()]));
    assert_eq!(read(2, b"\x02\x011\x012").0, "intset");
}

#[test]
fn a_length_that_is_not_there_is_refused_before_anything_is_made() {
    for kind in [1, 2, 3, 4, 5, 14, 18] {
        let bytes = b"\x81\x00\xff\xff\xff\xff\xff\xff\xff\x01a";
        let fault = read_object(&mut &bytes[..], ValueKind::from_byte(kind).unwrap(), &LIMITS).unwrap_err();
        assert_eq!(fault, Fault::Damaged(Damage::Length));
    }
}
