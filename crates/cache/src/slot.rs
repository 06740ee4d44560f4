//! Cluster slots: CRC16 and the hash-tag rule of the Redis Cluster specification, and bookkeeping keys in the slot of their key.
//!
//! Invariants: a bookkeeping key has the slot of the key it keeps book for, whatever braces that contains, and no two keys share
//! one. Deliberately absent: which node serves a slot.

use std::sync::OnceLock;

/// The prefix of every bookkeeping key. Keys of applications must not begin with it.
pub const BOOKKEEPING_PREFIX: &str = "mtcache:";

const SLOTS: usize = 16_384;

/// CRC-16/XMODEM, polynomial 0x1021, as the cluster specification names it.
const CRC_TABLE: [u16; 256] = {
    let mut table = [0; 256];
    let mut i = 0;
    while i < 256 {
        let mut crc = (i as u16) << 8;
        let mut bit = 0;
        while bit < 8 {
            crc = if crc & 0x8000 == 0 { crc << 1 } else { (crc << 1) ^ 0x1021 };
            bit += 1;
        }
        table[i] = crc;
        i += 1;
    }
    table
};

fn crc16(bytes: &[u8]) -> u16 {
    bytes.iter().fold(0, |crc, byte| (crc << 8) ^ CRC_TABLE[usize::from((crc >> 8) as u8 ^ byte)])
}

/// What is between the first `{` and the first `}` after it, if that is anything.
fn hash_tag(key: &[u8]) -> Option<&[u8]> {
    let open = key.iter().position(|b| *b == b'{')?;
    let inside = &key[open + 1..];
    let length = inside.iter().position(|b| *b == b'}')?;
    (length > 0).then(|| &inside[..length])
}

/// The cluster slot of a key, as CLUSTER KEYSLOT gives it.
pub fn key_slot(key: &[u8]) -> u16 {
    crc16(hash_tag(key).unwrap_or(key)) % SLOTS as u16
}

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
        name.extend_from_slice(text_for_slot(key_slot(key)).to_string().as_bytes());
    }
    name.extend_from_slice(b"}:");
    name.extend_from_slice(key);
    name
}

/// The smallest number whose decimal text has this slot.
fn text_for_slot(slot: u16) -> u32 {
    static TEXTS: OnceLock<Vec<u32>> = OnceLock::new();
    TEXTS.get_or_init(|| {
        let mut texts = vec![None; SLOTS];
        let mut left = SLOTS;
        for n in 0_u32.. {
            let place = &mut texts[usize::from(key_slot(n.to_string().as_bytes()))];
            if place.is_none() {
                *place = Some(n);
                left -= 1;
                if left == 0 {
                    break;
                }
            }
        }
        texts.into_iter().map(Option::unwrap_or_default).collect()
    })[usize::from(slot)]
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
    fn the_specifications_example_has_its_crc() {
        assert_eq!(crc16(b"123456789"), 0x31C3);
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
