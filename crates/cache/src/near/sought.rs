//! A key that is sought in the near cache, in two pieces, so that nobody has to join them first: what is put together in memory in small
//! pieces and read back at once in large ones costs more than the look-up itself.
//!
//! The hash folds the 128-bit product of state and word, as wyhash and foldhash do, with a start and a factor of this process' own. It takes a
//! key in two pieces as well, after the last `:`, so that the first of them is hashed once for all keys that begin with it. It is the same whether
//! a key is sought or kept. Invariant: two keys that are sought as equal have the same bytes, whatever their hashes.

use std::mem::size_of;

use super::held::{SHORT_MAX, ShortName};

const WORD: usize = size_of::<u64>();
/// As many as there are whole ones in a name that lies within its entry.
const START_WORDS: usize = SHORT_MAX / WORD;

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

/// The beginning that the keys of a region share, up to a `:`.
#[derive(Debug)]
pub(crate) struct Base {
    len: usize,
    hashed: State,
    start: Start,
}

/// What the first bytes of a name have to be, and which of them count.
#[derive(Debug)]
struct Start {
    words: [u64; START_WORDS],
    masks: [u64; START_WORDS],
}

impl Base {
    pub(super) fn new(seeds: Seeds, base: &[u8]) -> Self {
        debug_assert_eq!(base.last(), Some(&b':'), "a part that follows would be another piece");
        let mut hashed = State::new(seeds);
        hashed.feed(base);
        Self { len: base.len(), hashed, start: Start::of(base) }
    }

    /// Whether all keys that begin so are too long to be sought in two pieces.
    #[inline]
    pub(crate) fn is_long(&self) -> bool {
        self.len + WORD > SHORT_MAX
    }

    /// The key that begins so and goes on with this part; none if the part is long. What has to be escaped is sought as it is, and is no name.
    #[allow(
        clippy::inline_always,
        reason = "what a hit is made of passes through memory wherever a call is left"
    )]
    #[inline(always)]
    pub(crate) fn then<'a>(&'a self, part: &str) -> Option<ShortSought<'a>> {
        let ends = ends(part.as_bytes())?;
        let mut state = self.hashed;
        state.fold_short(ends, part.len());
        Some(ShortSought { hash: state.folded, base: self, rest_len: part.len(), rest: ends })
    }
}

impl Start {
    fn of(base: &[u8]) -> Self {
        let mut bytes = [[0; WORD]; START_WORDS];
        let mut masks = bytes;
        match (bytes.as_flattened_mut().get_mut(..base.len()), masks.as_flattened_mut().get_mut(..base.len()))
        {
            (Some(bytes), Some(masks)) => {
                bytes.copy_from_slice(base);
                masks.fill(u8::MAX);
            }
            // It is too long for that, and what nothing counts for is no byte of a name.
            _ => bytes = [[u8::MAX; WORD]; START_WORDS],
        }
        Self { words: bytes.map(u64::from_le_bytes), masks: masks.map(u64::from_le_bytes) }
    }
}

/// A key that is sought in two pieces, the second of which is short: so many words that they need no memory.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ShortSought<'a> {
    pub(super) hash: u64,
    base: &'a Base,
    rest_len: usize,
    rest: Ends,
}

impl ShortSought<'_> {
    /// Whether this is its name. It may say no where it is.
    #[allow(
        clippy::inline_always,
        reason = "what a hit is made of passes through memory wherever a call is left"
    )]
    #[inline(always)]
    pub(super) fn is(&self, name: &ShortName) -> bool {
        let ShortName { len, last_part, bytes } = name;
        let word = |at: usize| bytes.get(at..)?.first_chunk().map(|word| u64::from_le_bytes(*word));
        let Start { words, masks } = &self.base.start;
        let starts =
            |place: usize| word(place * WORD).is_some_and(|word| word & masks[place] == words[place]);
        let end = self.base.len + self.rest_len;
        // A `:` or a `%` in the rest would have to be escaped: in no name is the last part cut so and one of both within.
        usize::from(*len) == end
            && usize::from(*last_part) == self.base.len
            && starts(0)
            && starts(1)
            && starts(2)
            && word(self.base.len) == Some(self.rest[0])
            && (self.rest_len < WORD || word(end - WORD) == Some(self.rest[1]))
    }
}

/// Where a key's last part begins.
pub(super) fn last_part(key: &[u8]) -> usize {
    key.iter().rposition(|byte| *byte == b':').map_or(0, |last| last + 1)
}

/// A key that is sought, whatever its length.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sought<'a> {
    pub(super) hash: u64,
    pub(super) key: &'a [u8],
}

impl<'a> Sought<'a> {
    pub(super) fn new(seeds: Seeds, key: &'a [u8]) -> Self {
        let (base, rest) = key.split_at(last_part(key));
        let mut state = State::new(seeds);
        state.feed(base);
        state.feed(rest);
        Self { hash: state.folded, key }
    }
}

/// The first and the last eight bytes of what has eight to sixteen; of what is shorter all of it, and nothing.
type Ends = [u64; 2];

/// Of a short piece.
#[allow(
    clippy::inline_always,
    reason = "what a hit is made of passes through memory wherever a call is left"
)]
#[inline(always)]
fn ends(piece: &[u8]) -> Option<Ends> {
    match (piece.first_chunk(), piece.last_chunk()) {
        // They may overlap.
        (Some(first), Some(last)) => {
            (piece.len() <= 2 * WORD).then(|| [*first, *last].map(u64::from_le_bytes))
        }
        _ => Some([part_of_word(piece), 0]),
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

    /// Takes in a piece.
    fn feed(&mut self, piece: &[u8]) {
        if let Some(ends) = ends(piece) {
            return self.fold_short(ends, piece.len());
        }
        let (words, tail) = piece.as_chunks();
        for word in words {
            self.fold([u64::from_le_bytes(*word), 0]);
        }
        // What is left is seven bytes at the most, so that the length has room above them.
        self.fold([part_of_word(tail) | ((piece.len() as u64) << 56), 0]);
    }

    /// Takes in a short piece.
    #[inline]
    fn fold_short(&mut self, ends: Ends, len: usize) {
        self.fold(ends);
        // After the product: before it, keys of two lengths could be made equal whatever this process' own numbers are.
        self.folded ^= len as u64;
    }

    #[inline]
    fn fold(&mut self, [word, other]: Ends) {
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::held::Name;
    use super::*;

    const SEEDS: Seeds = Seeds { start: 0x1234_5678_9abc_def0, factor: 0x9e37_79b9_7f4a_7c15 };

    fn is_at_once(key: &ShortSought<'_>, name: &str) -> bool {
        match Name::new(name.as_bytes()) {
            Name::Short(name) => key.is(&name),
            Name::Long(_) => false,
        }
    }

    proptest! {
        #[test]
        fn what_is_sought_in_two_pieces_is_the_joined_key(base in "[a-z:]{0,30}:", part in "[a-zA-Zé0-9]{0,20}") {
            let joined = format!("{base}{part}");
            let in_two = Base::new(SEEDS, base.as_bytes());
            let in_two = in_two.then(&part);
            prop_assert_eq!(in_two.is_some(), part.len() <= 16);
            if let Some(in_two) = in_two {
                prop_assert_eq!(in_two.hash, Sought::new(SEEDS, joined.as_bytes()).hash);
                // The rest's first word lies within the entry as well.
                let is_easy = base.len() <= 21 && joined.len() <= SHORT_MAX;
                prop_assert_eq!(is_at_once(&in_two, &joined), is_easy);
            }
        }

        #[test]
        fn a_part_with_separators_is_in_no_name(before in "[ -$&-9;-~]{0,8}", separator in "[:%]", after in "[ -~]{0,7}") {
            let base = Base::new(SEEDS, b"r:");
            let part = format!("{before}{separator}{after}");
            // Neither in that of a key with these bytes, which is of another id, nor in its own.
            for name in [format!("r:{part}"), crate::keys::join("r", &part).unwrap()] {
                prop_assert!(!is_at_once(&base.then(&part).unwrap(), &name));
            }
            let plain = format!("r:{before}");
            prop_assert!(is_at_once(&base.then(&before).unwrap(), &plain));
        }

        #[test]
        fn what_differs_is_not_equal_even_if_its_hash_is(base in "[ab]{0,18}", part in "[ab]{0,16}", name in "[ab:\0]{0,30}") {
            let base = format!("{base}:");
            let begun = Base::new(SEEDS, base.as_bytes());
            let key = begun.then(&part).unwrap();
            for name in [name, format!("{base}{part}\0"), format!("{base}a{part}"), format!("b{base}{part}")] {
                let joined = format!("{base}{part}");
                prop_assert!(!is_at_once(&key, &name) || name == joined, "{:?}", name);
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
                    assert!(seen.insert(Sought::new(SEEDS, &key).hash), "{key:?}");
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
                assert!(seen.insert(Sought::new(SEEDS, &key).hash), "{key:?}");
            }
        }
    }

    #[test]
    fn hashes_spread_over_tables_and_shards() {
        let mut counts = [[0_u32; 16]; 3];
        for n in 0..16_000 {
            let hash = Sought::new(SEEDS, format!("market_data:SYM{n:07}").as_bytes()).hash;
            for (counts, shift) in counts.iter_mut().zip([0, 32, 60]) {
                counts[(hash >> shift) as usize % 16] += 1;
            }
        }
        assert!(counts.iter().flatten().all(|count| (850..1150).contains(count)), "{counts:?}");
    }

    /// The names that are nearest to a key: each byte another, one less, and one and more zeroes behind.
    fn nearly(joined: &[u8]) -> Vec<Vec<u8>> {
        let mut names: Vec<Vec<u8>> = (0..joined.len())
            .flat_map(|at| [0x01, 0x80, 0xff, joined[at]].map(|change| (at, change)))
            .map(|(at, change)| {
                let mut name = joined.to_vec();
                name[at] ^= change;
                name
            })
            .collect();
        names.push(joined[..joined.len() - 1].to_vec());
        for zeroes in 1..10 {
            names.push([joined, &vec![0; zeroes]].concat());
        }
        names.push([joined, b"x"].concat());
        names
    }

    #[test]
    fn of_all_lengths_a_key_is_its_name_and_no_other() {
        // A part whose bytes are all zero, or whose last are, and one in which no byte is like another.
        let parts: [fn(usize) -> String; 4] = [
            |len| "\0".repeat(len),
            |len| (0..len).map(|at| if at * 2 < len { 'a' } else { '\0' }).collect(),
            |len| (0..len).map(|at| char::from(b'a' + at as u8)).collect(),
            |len| "a".repeat(len),
        ];
        for base_len in 1..=40 {
            let mut base: Vec<u8> = (0..base_len).map(|at| b'A' + (at % 26) as u8).collect();
            base[base_len - 1] = b':';
            let begun = Base::new(SEEDS, &base);
            for part_len in 0..=16 {
                for part in parts {
                    let part = part(part_len);
                    let key = begun.then(&part).unwrap();
                    let joined = [&base, part.as_bytes()].concat();
                    let is = |name: &[u8]| match Name::new(name) {
                        Name::Short(name) => key.is(&name),
                        Name::Long(_) => false,
                    };
                    assert_eq!(key.hash, Sought::new(SEEDS, &joined).hash);
                    assert_eq!(is(&joined), base_len <= 21 && joined.len() <= SHORT_MAX, "{joined:?}");
                    for name in nearly(&joined) {
                        assert!(!is(&name) || name == joined, "{joined:?} {name:?}");
                    }
                }
            }
        }
    }
}
