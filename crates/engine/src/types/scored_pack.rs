//! The small encoding of sorted sets: member, score, member, score in one buffer, in order of score, then member.
//!
//! A score takes 1, 2 or 4 bytes when it is an integer of that size, else the 8 bytes of the float.

use std::cmp::Ordering;

use super::packed::{Packed, PackedIter, Position};

/// Members with scores, packed.
#[derive(Debug, Clone, Default)]
pub(super) struct ScoredPack(Packed);

impl ScoredPack {
    /// Number of members.
    pub(super) fn len(&self) -> usize {
        self.0.len() / 2
    }

    /// Bytes in use.
    pub(super) fn byte_len(&self) -> usize {
        self.0.byte_len()
    }

    /// Heap bytes held, in O(1).
    pub(super) fn heap_bytes(&self) -> usize {
        self.0.heap_bytes()
    }

    /// Rank, place and score of `member`.
    pub(super) fn find(&self, member: &[u8]) -> Option<Found> {
        let (index, at) = self.0.find(member, 2)?;
        let score = decode(self.0.at(self.0.after(at)?)?);
        Some(Found { rank: index / 2, at, score })
    }

    /// Adds a member that is not there.
    pub(super) fn insert(&mut self, member: &[u8], score: f64) {
        let is_before = |(other, other_score)| compare(other_score, other, score, member) == Ordering::Less;
        // New members often have the highest score.
        let last = self.iter(0, usize::MAX).next_back();
        let mut at = if last.is_some_and(is_before) { self.0.end() } else { self.0.start() };
        while let Some((_, after)) = self.pair(at).filter(|&(pair, _)| is_before(pair)) {
            at = after;
        }
        let mut space = [0; 8];
        let at = self.0.insert(at, encode(score, &mut space));
        self.0.insert(at, member);
    }

    /// The member and score at a place, and the place after them.
    fn pair(&self, at: Position) -> Option<((&[u8], f64), Position)> {
        let (member, value) = self.0.entry(at)?;
        let (score, after) = self.0.entry(value)?;
        Some(((member, decode(score)), after))
    }

    /// Gives a member another score.
    pub(super) fn rescore(&mut self, found: &Found, member: &[u8], score: f64) {
        self.0.remove(found.at, 2);
        self.insert(member, score);
    }

    /// Removes a member.
    pub(super) fn remove(&mut self, found: &Found) {
        self.0.remove(found.at, 2);
    }

    /// Removes `count` members from `rank` on, or those there are; returns how many.
    pub(super) fn remove_ranks(&mut self, rank: usize, count: usize) -> usize {
        let at = rank.checked_mul(2).and_then(|index| self.0.position(index));
        at.map_or(0, |at| self.0.remove(at, count.saturating_mul(2)) / 2)
    }

    /// Iterates over the members of the ranks from `start` up to before `end`; both directions.
    pub(super) fn iter(&self, start: usize, end: usize) -> ScoredPackIter<'_> {
        ScoredPackIter(self.0.range(start.saturating_mul(2), end.saturating_mul(2)))
    }
}

/// Where a member was found.
#[derive(Debug, Clone, Copy)]
pub(super) struct Found {
    pub(super) rank: usize,
    pub(super) score: f64,
    at: Position,
}

/// Iterator over the members and scores of a [`ScoredPack`].
#[derive(Debug, Clone)]
pub(super) struct ScoredPackIter<'a>(PackedIter<'a>);

impl<'a> Iterator for ScoredPackIter<'a> {
    type Item = (&'a [u8], f64);

    fn next(&mut self) -> Option<Self::Item> {
        Some((self.0.next()?, decode(self.0.next()?)))
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.0.len() / 2, Some(self.0.len() / 2))
    }
}

impl DoubleEndedIterator for ScoredPackIter<'_> {
    fn next_back(&mut self) -> Option<Self::Item> {
        let score = decode(self.0.next_back()?);
        Some((self.0.next_back()?, score))
    }
}

impl ExactSizeIterator for ScoredPackIter<'_> {}

/// The order of sorted sets: by score, then by member. The scores are not NaN.
fn compare(score: f64, member: &[u8], other_score: f64, other: &[u8]) -> Ordering {
    score.partial_cmp(&other_score).unwrap_or(Ordering::Equal).then_with(|| member.cmp(other))
}

/// Writes a score as short as it goes. Negative zero becomes zero, as it does in Redis' small encoding (and in it alone).
#[allow(clippy::float_cmp, reason = "whether the integer is exactly the score is the question")]
fn encode(score: f64, space: &mut [u8; 8]) -> &[u8] {
    let int = score as i32;
    if f64::from(int) != score {
        *space = score.to_le_bytes();
        return space;
    }
    let len = match int {
        -0x80..=0x7f => 1,
        -0x8000..=0x7fff => 2,
        _ => 4,
    };
    for (to, from) in space.iter_mut().zip(int.to_le_bytes()) {
        *to = from;
    }
    space.get(..len).unwrap_or_default()
}

fn decode(bytes: &[u8]) -> f64 {
    match *bytes {
        [a] => f64::from(a as i8),
        [a, b] => f64::from(i16::from_le_bytes([a, b])),
        [a, b, c, d] => f64::from(i32::from_le_bytes([a, b, c, d])),
        _ => bytes.try_into().map_or(0.0, f64::from_le_bytes),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn length_of(score: f64) -> usize {
        let mut space = [0; 8];
        let bytes = encode(score, &mut space);
        // Adding zero makes negative zero positive and changes nothing else.
        assert_eq!(decode(bytes).to_bits(), (score + 0.0).to_bits());
        bytes.len()
    }

    #[test]
    fn small_integers_are_short_and_nothing_is_lost() {
        for score in [0.0, -0.0, -128.0, 127.0] {
            assert_eq!(length_of(score), 1);
        }
        assert_eq!(length_of(128.0), 2);
        assert_eq!(length_of(-32_769.0), 4);
        for score in [0.5, f64::INFINITY, f64::NEG_INFINITY, 2_147_483_648.0, f64::MIN_POSITIVE] {
            assert_eq!(length_of(score), 8);
        }
    }

    proptest! {
        #[test]
        fn every_score_round_trips(score in proptest::num::f64::ANY.prop_filter("NaN", |score| !score.is_nan()), int: i32) {
            length_of(score);
            length_of(int.into());
        }
    }
}
