//! Entries: what was put in comes out, in every form and size.

use proptest::prelude::*;

use super::*;

/// What may be done to an entry.
#[derive(Debug, Clone)]
enum Change {
    SetString(Vec<u8>),
    SetText(Vec<u8>),
    OverwriteSameSize(u8, Option<u64>),
    Append(Vec<u8>),
    SetExpiry(Option<u64>),
    SetTtlIndex(u32),
    SetAccess(u32),
    BecomeHash(usize),
    Rename(Vec<u8>),
    Copy(Vec<u8>),
}

fn change() -> impl Strategy<Value = Change> {
    let bytes = || proptest::collection::vec(any::<u8>(), 0..300);
    let number = any::<i64>().prop_map(|n| n.to_string().into_bytes());
    let expiry = || proptest::option::of(0..u64::MAX / 2);
    prop_oneof![
        bytes().prop_map(Change::SetString),
        number.prop_map(Change::SetString),
        bytes().prop_map(Change::SetText),
        (any::<u8>(), expiry()).prop_map(|(byte, at)| Change::OverwriteSameSize(byte, at)),
        bytes().prop_map(Change::Append),
        expiry().prop_map(Change::SetExpiry),
        any::<u32>().prop_map(Change::SetTtlIndex),
        any::<u32>().prop_map(Change::SetAccess),
        (0..20_usize).prop_map(Change::BecomeHash),
        bytes().prop_map(Change::Rename),
        bytes().prop_map(Change::Copy),
    ]
}

/// What an entry has to be: the plain fields that the block packs.
#[derive(Debug, Clone)]
struct Model {
    key: Vec<u8>,
    value: Stored,
    expires_at: Option<u64>,
    /// Undefined after an expiry has come or gone.
    ttl_index: Option<u32>,
    access: u32,
}

#[derive(Debug, Clone)]
enum Stored {
    String(Vec<u8>),
    Hash(usize),
}

#[allow(clippy::unnecessary_box_returns, reason = "an entry takes its collection in a box")]
fn hash_of(len: usize) -> Box<Hash> {
    let mut hash = Hash::default();
    for i in 0..len {
        hash.set(format!("field{i}").as_bytes(), &[7; 40], &crate::types::EncodingLimits::default());
    }
    Box::new(hash)
}

fn apply(entry: &mut Entry, model: &mut Model, change: Change) {
    let replace = |entry: &mut Entry, with: Entry| *entry = with;
    match change {
        Change::SetString(bytes) => {
            entry.set_string(&bytes);
            model.value = Stored::String(bytes);
        }
        Change::SetText(bytes) => {
            entry.set_text(&bytes);
            model.value = Stored::String(bytes);
        }
        Change::OverwriteSameSize(byte, at) => {
            let Stored::String(old) = &model.value else { return };
            let new = vec![byte; old.len()];
            if entry.overwrite_same_size(&new, at.map(UnixMillis)) {
                assert_eq!(at.is_some(), model.expires_at.is_some());
                model.value = Stored::String(new);
                model.expires_at = at;
            }
        }
        Change::Append(bytes) => {
            let Stored::String(old) = &mut model.value else { return };
            let ValueMut::String(value) = entry.value_mut() else { panic!("a string is one") };
            value.extend_from_slice(&bytes);
            old.extend_from_slice(&bytes);
        }
        Change::SetExpiry(at) => {
            entry.set_expires_at(at.map(UnixMillis));
            if at.is_some() != model.expires_at.is_some() {
                model.ttl_index = None;
            }
            model.expires_at = at;
        }
        Change::SetTtlIndex(index) => {
            entry.set_ttl_index(index);
            model.ttl_index = model.expires_at.is_some().then_some(index);
        }
        Change::SetAccess(access) => {
            entry.set_access(access);
            model.access = access;
        }
        Change::BecomeHash(len) => {
            let at = model.expires_at.map(UnixMillis);
            replace(entry, Entry::new(&model.key, Value::Hash(hash_of(len)), at, model.access));
            model.value = Stored::Hash(len);
            model.ttl_index = None;
        }
        Change::Rename(key) => {
            let old = std::mem::replace(entry, Entry::string(b"", b"", None, 0));
            replace(entry, old.into_renamed(&key));
            model.key = key;
            model.ttl_index = None;
        }
        Change::Copy(key) => {
            let copy = entry.copy_as(&key, entry.access());
            replace(entry, copy);
            model.key = key;
            model.expires_at = None;
            model.ttl_index = None;
        }
    }
}

fn check(entry: &Entry, model: &Model) {
    assert_eq!(entry.key(), model.key);
    assert_eq!(entry.expires_at(), model.expires_at.map(UnixMillis));
    assert_eq!(entry.access(), model.access);
    if let Some(index) = model.ttl_index {
        assert_eq!(entry.ttl_index(), index);
    }
    match (&model.value, entry.value()) {
        (Stored::String(bytes), ValueRef::String(stored, encoding)) => {
            assert_eq!(stored, bytes);
            assert_eq!(entry.string_bytes(), Some(bytes.as_slice()));
            assert!(encoding != StringEncoding::Int || is_canonical_integer(bytes));
        }
        (Stored::Hash(len), ValueRef::Hash(hash)) => {
            assert_eq!(hash.len(), *len);
            assert!(entry.memory() >= hash.heap_bytes());
        }
        other => panic!("{other:?}"),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(crate::testing::cases(256)))]

    #[test]
    fn an_entry_is_what_was_put_into_it(
        key in proptest::collection::vec(any::<u8>(), 0..40),
        changes in proptest::collection::vec(change(), 0..40),
    ) {
        let mut entry = Entry::string(&key, b"first", None, 1);
        let mut model = Model { key, value: Stored::String(b"first".to_vec()), expires_at: None, ttl_index: None, access: 1 };
        for change in changes {
            apply(&mut entry, &mut model, change);
            check(&entry, &model);
        }
    }

    #[test]
    fn canonical_integers_are_those_that_print_as_they_read(text in "-?[0-9]{0,21}") {
        let canonical = text.parse::<i64>().is_ok_and(|number| number.to_string() == text);
        prop_assert_eq!(is_canonical_integer(text.as_bytes()), canonical, "{}", text);
    }
}

#[test]
fn the_header_holds_the_longest_key() {
    let key = vec![b'k'; 1 << 20];
    let mut entry = Entry::string(&key, b"v", Some(UnixMillis(7)), u32::MAX);
    assert_eq!(entry.key(), key);
    entry.set_expires_at(None);
    assert_eq!((entry.key().len(), entry.string_bytes()), (1 << 20, Some(&b"v"[..])));
}

#[test]
fn a_block_takes_what_its_parts_take() {
    let size = |key: usize, value: usize, ttl: bool| {
        Entry::string(&vec![b'k'; key], &vec![b'v'; value], ttl.then_some(UnixMillis(1)), 0).memory()
    };
    assert_eq!(size(16, 200, false), 256, "12 bytes of header, the key, the value: 228");
    assert_eq!(size(16, 200, true), 256, "12 more");
}

#[test]
fn an_entry_is_that_of_its_key_alone() {
    for len in 0..=40_usize {
        let key: Vec<u8> = (0..len).map(|n| n as u8).collect();
        let entry = Entry::string(&key, b"value", None, 0);
        assert!(entry.has_key(&key), "{len} bytes");
        assert!(!entry.has_key(&[key.as_slice(), b"x"].concat()) && (len == 0 || !entry.has_key(&key[1..])));
        for at in 0..len {
            let mut other = key.clone();
            other[at] ^= 0x80;
            assert!(!entry.has_key(&other), "byte {at} of {len}");
        }
    }
}
