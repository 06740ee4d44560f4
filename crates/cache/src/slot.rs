//! Bookkeeping keys in the cluster slot of their key.
//!
//! Invariants: a bookkeeping key has the slot of the key it keeps book for, whatever braces that contains, and no two keys share
//! one. Deliberately absent: how a slot is computed, and which node serves it; that is the link's.

pub use mtcache_link::key_slot;
use mtcache_link::{hash_tag, slot_text};

/// The prefix of every bookkeeping key. Keys of applications must not begin with it.
pub const BOOKKEEPING_PREFIX: &str = "mtcache:";

/// The bookkeeping key of a kind (`fill`, `index`) for a key, in the key's slot.
///
/// Three forms, told apart by what follows the first `}`: a key with a hash tag `t` gives `mtcache:KIND:{t}:KEY`; one
/// without a `}` gives `mtcache:KIND:{KEY}`; any other (`a}b`, `{}x`, the empty key) gives `mtcache:KIND:{n}:KEY`, where `n` is a
/// short text whose slot is the key's.
pub fn bookkeeping_key(kind: &str, key: &[u8]) -> Vec<u8> {
    let mut name = Vec::with_capacity(BOOKKEEPING_PREFIX.len() + kind.len() + 2 * key.len() + 8);
    name.extend_from_slice(BOOKKEEPING_PREFIX.as_bytes());
    name.extend_from_slice(kind.as_bytes());
    name.extend_from_slice(b":{");
    if let Some(tag) = hash_tag(key) {
        name.extend_from_slice(tag);
    } else if !key.is_empty() && !key.contains(&b'}') {
        name.extend_from_slice(key);
        name.push(b'}');
        return name;
    } else {
        name.extend_from_slice(slot_text(key_slot(key)).to_string().as_bytes());
    }
    name.extend_from_slice(b"}:");
    name.extend_from_slice(key);
    name
}

/// The key that a bookkeeping key of this kind keeps book for; none if it is of another kind.
pub(crate) fn key_of<'a>(kind: &str, bookkeeping: &'a [u8]) -> Option<&'a [u8]> {
    let rest = bookkeeping.strip_prefix(BOOKKEEPING_PREFIX.as_bytes())?;
    let rest = rest.strip_prefix(kind.as_bytes())?.strip_prefix(b":{")?;
    let end = rest.iter().position(|b| *b == b'}')?;
    if end + 1 == rest.len() { rest.get(..end) } else { rest.get(end + 2..) }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;

    use super::*;

    /// Keys out of few letters, so that braces meet in every way.
    fn braced() -> impl Strategy<Value = Vec<u8>> {
        proptest::collection::vec(
            prop_oneof![Just(b'{'), Just(b'}'), Just(b':'), Just(b'a'), any::<u8>()],
            0..12,
        )
    }

    proptest! {
        #[test]
        fn a_bookkeeping_key_has_the_slot_of_its_key(key in braced()) {
            prop_assert_eq!(key_slot(&bookkeeping_key("fill", &key)), key_slot(&key));
        }

        #[test]
        fn a_bookkeeping_key_names_its_key(key in braced()) {
            let bookkeeping = bookkeeping_key("fill", &key);
            prop_assert_eq!(key_of("fill", &bookkeeping), Some(key.as_slice()));
            prop_assert_eq!(key_of("fil", &bookkeeping), None);
        }

        #[test]
        fn no_two_keys_share_a_bookkeeping_key(keys in proptest::collection::vec(braced(), 2..40)) {
            let mut seen = HashMap::new();
            for key in keys {
                if let Some(other) = seen.insert(bookkeeping_key("fill", &key), key.clone()) {
                    prop_assert_eq!(other, key);
                }
            }
        }
    }

    #[test]
    fn each_kind_of_key_has_its_form() {
        for (key, expected) in [
            ("a", "mtcache:fill:{a}"),
            ("a{b", "mtcache:fill:{a{b}"),
            ("a{t}b", "mtcache:fill:{t}:a{t}b"),
            ("a{b{c}d", "mtcache:fill:{b{c}:a{b{c}d"),
        ] {
            assert_eq!(bookkeeping_key("fill", key.as_bytes()), expected.as_bytes());
        }
        assert!(bookkeeping_key("fill", b"a}b").ends_with(b"}:a}b"));
        assert!(bookkeeping_key("fill", b"").ends_with(b"}:"));
    }
}
