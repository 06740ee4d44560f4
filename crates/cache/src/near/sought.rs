//! A key that is sought in the near cache, in two pieces, so that nobody has to join them first: what is put together in memory in small
//! pieces and read back at once in large ones costs more than the look-up itself.
//!
//! The hash folds the 128-bit product of state and word, as wyhash and foldhash do, with a start and a factor of this process' own. It takes a
//! key in two pieces as well, after the last `:`, so that the first of them is hashed once for all keys that begin with it. It is the same whether
//! a key is sought or kept. Invariant: two keys that are sought as equal have the same bytes, whatever their hashes.

use std::hash::{BuildHasher, Hash, Hasher};
use std::mem::size_of;

use quick_cache::Equivalent;

use super::held::Name;
use crate::keys::Joined;

const WORD: usize = size_of::<u64>();

/// What makes this cache's hashes its own.
#[derive(Clone, Copy, Debug)]
pub(super) struct Seeds {
    start: u64,
    factor: u64,
}

impl Seeds {
    pub(super) fn random() -> Self {
        Self { start: rand::random(), factor: rand::random::<u64>() | 1 }
    }
}

impl BuildHasher for Seeds {
    type Hasher = KeyHasher;

    #[inline]
    fn build_hasher(&self) -> KeyHasher {
        KeyHasher { seeds: *self, hash: 0 }
    }
}

/// Hashes the names of entries as they are sought, and takes the hash of a key that is sought for what it is.
pub(super) struct KeyHasher {
    seeds: Seeds,
    hash: u64,
}

impl Hasher for KeyHasher {
    fn write(&mut self, key: &[u8]) {
        self.hash = Sought::whole(self.seeds, key).hash;
    }

    #[inline]
    fn write_u64(&mut self, hash: u64) {
        self.hash = hash;
    }

    #[inline]
    fn finish(&self) -> u64 {
        self.hash
    }
}

/// The beginning that the keys of a region share, up to a `:`.
#[derive(Debug)]
pub(crate) struct Base {
    bytes: Box<[u8]>,
    hashed: State,
}

impl Base {
    pub(super) fn new(seeds: Seeds, base: &[u8]) -> Self {
        debug_assert_eq!(base.last(), Some(&b':'), "a part that follows would be another piece");
        let mut hashed = State::new(seeds);
        hashed.feed(base);
        Self { bytes: base.into(), hashed }
    }

    /// The key that begins so and goes on with this part; none if the part has to be escaped.
    #[inline]
    pub(crate) fn then<'a>(&'a self, part: &'a str) -> Option<Sought<'a>> {
        let mut state = self.hashed;
        let has_separators = state.feed(part.as_bytes());
        (!has_separators).then_some(Sought { hash: state.folded, base: &self.bytes, rest: part.as_bytes() })
    }
}

/// A key that is sought.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sought<'a> {
    pub(super) hash: u64,
    base: &'a [u8],
    rest: &'a [u8],
}

impl<'a> Sought<'a> {
    pub(super) fn whole(seeds: Seeds, key: &'a [u8]) -> Self {
        let cut = key.iter().rposition(|byte| *byte == b':').map_or(0, |last| last + 1);
        let (base, rest) = key.split_at(cut);
        let mut state = State::new(seeds);
        state.feed(base);
        state.feed(rest);
        Self { hash: state.folded, base, rest }
    }

    /// What `f` makes of its bytes.
    pub(super) fn with_joined<R>(&self, f: impl FnOnce(&[u8]) -> R) -> R {
        let mut key = Joined::from_slice(self.base);
        key.extend_from_slice(self.rest);
        f(&key)
    }
}

impl Hash for Sought<'_> {
    #[inline]
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(self.hash);
    }
}

impl Equivalent<Name> for Sought<'_> {
    #[inline]
    fn equivalent(&self, name: &Name) -> bool {
        let Some((base, rest)) = name.split_at_checked(self.base.len()) else { return false };
        are_equal(base, self.base) && are_equal(rest, self.rest)
    }
}

/// Whether the bytes are the same; without a call where they are few.
#[inline]
fn are_equal(a: &[u8], b: &[u8]) -> bool {
    if a.len() != b.len() {
        return false;
    }
    match (a.first_chunk::<WORD>(), b.first_chunk::<WORD>(), a.last_chunk::<WORD>(), b.last_chunk::<WORD>()) {
        (Some(first), Some(other_first), Some(last), Some(other_last)) if a.len() <= 2 * WORD => {
            first == other_first && last == other_last
        }
        _ => a == b,
    }
}

/// A hash under way, of whole pieces.
#[derive(Clone, Copy, Debug)]
struct State {
    factor: u64,
    folded: u64,
}

impl State {
    fn new(seeds: Seeds) -> Self {
        Self { factor: seeds.factor, folded: seeds.start }
    }

    /// Takes in a piece. Returns whether a `:` or a `%` is among its bytes.
    #[inline]
    fn feed(&mut self, piece: &[u8]) -> bool {
        // What is neither short nor long is read in two words that may overlap.
        if let (Some(first), Some(last)) = (piece.first_chunk::<WORD>(), piece.last_chunk::<WORD>())
            && piece.len() <= 2 * WORD
        {
            let (first, last) = (u64::from_le_bytes(*first), u64::from_le_bytes(*last));
            self.fold_both(first, last);
            // After the product: before it, keys of two lengths could be made equal whatever this process' own numbers are.
            self.folded ^= piece.len() as u64;
            return separators_in(first) | separators_in(last) != 0;
        }
        let (words, tail) = piece.as_chunks::<WORD>();
        let mut separators = 0;
        for word in words {
            let word = u64::from_le_bytes(*word);
            separators |= separators_in(word);
            self.fold(word);
        }
        let tail = part_of_word(tail);
        separators |= separators_in(tail);
        // What is left is seven bytes at the most, so that the length has room above them.
        self.fold(tail | ((piece.len() as u64) << 56));
        separators != 0
    }

    #[inline]
    fn fold(&mut self, word: u64) {
        self.fold_both(word, 0);
    }

    #[inline]
    fn fold_both(&mut self, word: u64, other: u64) {
        let product = u128::from(self.folded ^ word) * u128::from(self.factor ^ other);
        self.folded = product as u64 ^ (product >> 64) as u64;
    }
}

/// Up to seven bytes as a word, the first lowest.
#[inline]
fn part_of_word(bytes: &[u8]) -> u64 {
    let len = bytes.len();
    if let (Some(first), Some(last)) = (bytes.first_chunk::<4>(), bytes.last_chunk::<4>()) {
        let (first, last) = (u32::from_le_bytes(*first), u32::from_le_bytes(*last));
        return u64::from(first) | (u64::from(last) << (8 * (len - 4)));
    }
    let (Some(first), Some(middle), Some(last)) = (bytes.first(), bytes.get(len / 2), bytes.last()) else {
        return 0;
    };
    u64::from(*first) | (u64::from(*middle) << (8 * (len / 2))) | (u64::from(*last) << (8 * (len - 1)))
}

/// Not zero if one of the eight bytes is a `:` or a `%`.
#[inline]
fn separators_in(word: u64) -> u64 {
    const ONES: u64 = u64::from_le_bytes([1; WORD]);
    const COLONS: u64 = u64::from_le_bytes([b':'; WORD]);
    const PERCENTS: u64 = u64::from_le_bytes([b'%'; WORD]);
    const TOPS: u64 = u64::from_le_bytes([0x80; WORD]);
    let zero_bytes = |word: u64| word.wrapping_sub(ONES) & !word & TOPS;
    zero_bytes(word ^ COLONS) | zero_bytes(word ^ PERCENTS)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SEEDS: Seeds = Seeds { start: 0x1234_5678_9abc_def0, factor: 0x9e37_79b9_7f4a_7c15 };

    proptest! {
        #[test]
        fn a_hash_is_the_same_whether_a_key_is_whole_or_follows_its_base(base in "[a-z:]{0,40}:", part in "[a-zA-Zé0-9]{0,40}") {
            let whole = format!("{base}{part}").into_bytes();
            let in_two = Base::new(SEEDS, base.as_bytes());
            let in_two = in_two.then(&part).unwrap();
            let whole_key = Sought::whole(SEEDS, &whole);
            prop_assert_eq!(in_two.hash, whole_key.hash);
            prop_assert!(in_two.with_joined(|key| key == whole));
            let name = Name::new(&whole);
            prop_assert!(in_two.equivalent(&name) && whole_key.equivalent(&name));
            prop_assert_eq!(SEEDS.hash_one(&name), SEEDS.hash_one(in_two));
        }

        #[test]
        fn a_part_with_separators_is_no_rest_of_a_key(before in "[ -$&-9;-~]{0,20}", separator in "[:%]", after in "[ -~]{0,20}") {
            let base = Base::new(SEEDS, b"r:");
            let part = format!("{before}{separator}{after}");
            prop_assert!(base.then(&part).is_none());
            prop_assert!(base.then(&before).is_some());
        }

        #[test]
        fn what_differs_is_not_equal_even_if_its_hash_is(a in "[ab]{0,36}", b in "[ab]{0,36}") {
            let name = Name::new(a.as_bytes());
            for cut in 0..=b.len() {
                let (base, rest) = b.as_bytes().split_at(cut);
                prop_assert_eq!(Sought { hash: 7, base, rest }.equivalent(&name), a == b);
            }
        }
    }

    #[test]
    fn short_keys_of_all_lengths_have_hashes_of_their_own() {
        let mut seen = std::collections::HashSet::new();
        for len in 0..40 {
            for byte in 0..=u8::MAX {
                let mut key = vec![0_u8; len];
                if let Some(last) = key.last_mut() {
                    *last = byte;
                }
                if len > 0 || byte == 0 {
                    assert!(seen.insert(Sought::whole(SEEDS, &key).hash), "{key:?}");
                }
            }
        }
    }

    #[test]
    fn keys_that_overlap_with_themselves_have_hashes_of_their_own() {
        let mut seen = std::collections::HashSet::new();
        for len in 8..40 {
            for (first, byte) in [(b'a', b'a'), (b'a', b'b'), (b'b', b'a'), (b'c', b'b')] {
                let mut key = vec![byte; len];
                key[1] = first;
                assert!(seen.insert(Sought::whole(SEEDS, &key).hash), "{key:?}");
            }
        }
    }

    #[test]
    fn hashes_spread_over_tables_and_shards() {
        let mut counts = [[0_u32; 16]; 3];
        for n in 0..16_000 {
            let hash = Sought::whole(SEEDS, format!("market_data:SYM{n:07}").as_bytes()).hash;
            for (counts, shift) in counts.iter_mut().zip([0, 32, 60]) {
                counts[(hash >> shift) as usize % 16] += 1;
            }
        }
        assert!(counts.iter().flatten().all(|count| (850..1150).contains(count)), "{counts:?}");
    }
}
