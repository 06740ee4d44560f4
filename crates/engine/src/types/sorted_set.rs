//! The sorted set type: members ordered by score and then by their bytes; `listpack` while small, `skiplist` beyond.
//!
//! Both encodings answer in ranks: a range of scores or of members becomes a range of ranks, which is iterated in
//! either direction, counted or removed. NaN never enters. The name `skiplist` is what Redis reports; inside is a
//! counted B+ tree, so finding a rank, also for an offset into a range, takes O(log n).

use std::ops::Range;

use super::{
    allocation::allocation_size,
    blob::KeyHash,
    dense::DenseIter,
    limits::{EncodingLimits, PACKED_MAX_BYTES},
    scored_pack::{ScoredPack, ScoredPackIter},
    scored_table::{Scored, ScoredTable, ScoredTableIter},
};

/// A sorted set: members with scores.
#[derive(Debug, Clone, Default)]
pub struct SortedSet(Encoding);

#[derive(Debug, Clone)]
enum Encoding {
    Listpack(ScoredPack),
    Skiplist(Box<ScoredTable>),
}

impl Default for Encoding {
    fn default() -> Self {
        Self::Listpack(ScoredPack::default())
    }
}

/// What [`SortedSet::update_with`] did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ScoreChange {
    /// The member is new.
    Added,
    /// The member has another score now.
    Updated,
    /// Nothing changed.
    Unchanged,
}

/// A bound of a range of scores.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum ScoreBound {
    /// The score itself belongs to the range.
    Included(f64),
    /// The score itself does not.
    Excluded(f64),
}

/// A bound of a range of members of equal score.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LexBound<'a> {
    /// Before every member: `-`.
    Min,
    /// After every member: `+`.
    Max,
    /// The member itself belongs to the range.
    Included(&'a [u8]),
    /// The member itself does not.
    Excluded(&'a [u8]),
}

impl ScoreBound {
    /// Whether `score` lies below a range that begins here.
    fn begins_after(self, score: f64) -> bool {
        match self {
            Self::Included(bound) => score < bound,
            Self::Excluded(bound) => score <= bound,
        }
    }

    /// Whether `score` does not lie above a range that ends here.
    fn ends_at_or_after(self, score: f64) -> bool {
        match self {
            Self::Included(bound) => score <= bound,
            Self::Excluded(bound) => score < bound,
        }
    }
}

impl LexBound<'_> {
    fn begins_after(self, member: &[u8]) -> bool {
        match self {
            Self::Min => false,
            Self::Max => true,
            Self::Included(bound) => member < bound,
            Self::Excluded(bound) => member <= bound,
        }
    }

    fn ends_at_or_after(self, member: &[u8]) -> bool {
        match self {
            Self::Min => false,
            Self::Max => true,
            Self::Included(bound) => member <= bound,
            Self::Excluded(bound) => member < bound,
        }
    }
}

impl SortedSet {
    /// Creates an empty sorted set.
    pub fn new() -> Self {
        Self::default()
    }

    /// Creates an empty sorted set in the large encoding, which keeps the sign of a zero score.
    pub fn new_large() -> Self {
        Self(Encoding::Skiplist(Box::new(ScoredTable::with_capacity(0))))
    }

    /// Goes over to the large encoding.
    pub fn unpack(&mut self) {
        if let Encoding::Listpack(pack) = &self.0 {
            self.0 = Encoding::Skiplist(Box::new(enlarged(pack)));
        }
    }

    /// Goes back to the small encoding if that would have been chosen for these members.
    pub fn pack_if_small(&mut self, limits: &EncodingLimits) {
        let Encoding::Skiplist(table) = &self.0 else { return };
        if table.len() > limits.zset_max_listpack_entries {
            return;
        }
        let mut pack = ScoredPack::default();
        for (member, score) in table.iter(0, table.len()) {
            if member.len() > limits.zset_max_listpack_value || pack.byte_len() > PACKED_MAX_BYTES {
                return;
            }
            pack.insert(member, score);
        }
        self.0 = Encoding::Listpack(pack);
    }

    /// Name of the encoding as OBJECT ENCODING reports it.
    pub fn encoding(&self) -> &'static str {
        match &self.0 {
            Encoding::Listpack(_) => "listpack",
            Encoding::Skiplist(_) => "skiplist",
        }
    }

    /// Heap bytes held, in O(1).
    pub fn heap_bytes(&self) -> usize {
        match &self.0 {
            Encoding::Listpack(pack) => pack.heap_bytes(),
            Encoding::Skiplist(table) => allocation_size(size_of::<ScoredTable>()) + table.heap_bytes(),
        }
    }

    /// Number of members.
    pub fn len(&self) -> usize {
        match &self.0 {
            Encoding::Listpack(pack) => pack.len(),
            Encoding::Skiplist(table) => table.len(),
        }
    }

    /// Whether there is no member.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The score of `member`.
    pub fn score(&self, member: &[u8]) -> Option<f64> {
        match &self.0 {
            Encoding::Listpack(pack) => pack.find(member).map(|found| found.score),
            Encoding::Skiplist(table) => table.find(KeyHash::of(member), member).map(|(_, score)| score),
        }
    }

    /// Whether `member` is there.
    pub fn contains(&self, member: &[u8]) -> bool {
        self.score(member).is_some()
    }

    /// The rank of `member` from the lowest score, counted from 0; the rank from the highest is `len() - 1` less it.
    pub fn rank(&self, member: &[u8]) -> Option<usize> {
        match &self.0 {
            Encoding::Listpack(pack) => pack.find(member).map(|found| found.rank),
            Encoding::Skiplist(table) => {
                let (index, _) = table.find(KeyHash::of(member), member)?;
                table.rank(index)
            }
        }
    }

    /// Sets the score of `member`, adding it if need be. NaN changes nothing.
    pub fn insert(&mut self, member: &[u8], score: f64, limits: &EncodingLimits) -> ScoreChange {
        self.update_with(member, limits, |_| Some(score))
    }

    /// Looks `member` up once, and gives it the score that `decide` makes of its present one, if any.
    ///
    /// `None` and NaN leave everything as it is. A score that compares equal to the present one changes nothing: a
    /// zero keeps its sign.
    pub fn update_with(
        &mut self,
        member: &[u8],
        limits: &EncodingLimits,
        decide: impl FnOnce(Option<f64>) -> Option<f64>,
    ) -> ScoreChange {
        match &mut self.0 {
            Encoding::Listpack(pack) => {
                let found = pack.find(member);
                let present = found.as_ref().map(|found| found.score);
                let Some(score) = decide(present).filter(|&score| is_news(score, present)) else {
                    return ScoreChange::Unchanged;
                };
                if let Some(found) = found {
                    pack.rescore(&found, member, score);
                    return ScoreChange::Updated;
                }
                if pack.len() < limits.zset_max_listpack_entries
                    && member.len() <= limits.zset_max_listpack_value
                    && pack.byte_len() <= PACKED_MAX_BYTES
                {
                    pack.insert(member, score);
                } else {
                    let mut table = enlarged(pack);
                    table.insert(KeyHash::of(member), member, score);
                    self.0 = Encoding::Skiplist(Box::new(table));
                }
                ScoreChange::Added
            }
            Encoding::Skiplist(table) => {
                let hash = KeyHash::of(member);
                let found = table.find(hash, member);
                let present = found.map(|(_, score)| score);
                match (decide(present).filter(|&score| is_news(score, present)), found) {
                    (None, _) => ScoreChange::Unchanged,
                    (Some(score), Some((index, _))) => {
                        table.rescore(index, score);
                        ScoreChange::Updated
                    }
                    (Some(score), None) => {
                        table.insert(hash, member, score);
                        ScoreChange::Added
                    }
                }
            }
        }
    }

    /// Removes `member`; returns its score.
    pub fn remove(&mut self, member: &[u8]) -> Option<f64> {
        match &mut self.0 {
            Encoding::Listpack(pack) => {
                let found = pack.find(member)?;
                pack.remove(&found);
                Some(found.score)
            }
            Encoding::Skiplist(table) => {
                let (index, _) = table.find(KeyHash::of(member), member)?;
                table.remove(index).map(|(_, score)| score)
            }
        }
    }

    /// Removes the members of a range of ranks, or those there are; returns how many.
    pub fn remove_ranks(&mut self, ranks: Range<usize>) -> usize {
        let count = ranks.len();
        match &mut self.0 {
            Encoding::Listpack(pack) => pack.remove_ranks(ranks.start, count),
            Encoding::Skiplist(table) => table.remove_ranks(ranks.start, count),
        }
    }

    /// Takes out the member with the lowest score.
    pub fn pop_min(&mut self) -> Option<(Vec<u8>, f64)> {
        self.pop_rank(0)
    }

    /// Takes out the member with the highest score.
    pub fn pop_max(&mut self) -> Option<(Vec<u8>, f64)> {
        self.pop_rank(self.len().checked_sub(1)?)
    }

    /// Iterates over members and scores from the lowest score to the highest; both directions.
    pub fn iter(&self) -> SortedSetIter<'_> {
        self.iter_ranks(0..self.len())
    }

    /// Iterates over the members of a range of ranks, cut to what there is; both directions.
    pub fn iter_ranks(&self, ranks: Range<usize>) -> SortedSetIter<'_> {
        SortedSetIter(match &self.0 {
            Encoding::Listpack(pack) => Source::Listpack(pack.iter(ranks.start, ranks.end)),
            Encoding::Skiplist(table) => Source::Ranks(table.iter(ranks.start, ranks.end)),
        })
    }

    /// The ranks of the members with a score between two bounds.
    pub fn ranks_by_score(&self, min: ScoreBound, max: ScoreBound) -> Range<usize> {
        let before = |score| min.begins_after(score);
        let within = |score| max.ends_at_or_after(score);
        let (start, end) = match &self.0 {
            Encoding::Listpack(pack) => {
                let count = |pred: &dyn Fn(f64) -> bool| {
                    pack.iter(0, usize::MAX).take_while(|&(_, score)| pred(score)).count()
                };
                (count(&before), count(&within))
            }
            Encoding::Skiplist(table) => (table.partition_scores(before), table.partition_scores(within)),
        };
        start..end.max(start)
    }

    /// The ranks of the members between two bounds, in a set where all have the same score.
    ///
    /// Without that the result is unspecified, as in Redis; for a small set it is what Redis gives.
    pub fn ranks_by_lex(&self, min: LexBound<'_>, max: LexBound<'_>) -> Range<usize> {
        match &self.0 {
            Encoding::Listpack(pack) => {
                let mut members = pack.iter(0, usize::MAX).map(|(member, _)| member).peekable();
                let mut start = 0;
                while members.next_if(|member| min.begins_after(member)).is_some() {
                    start += 1;
                }
                start..start + members.take_while(|member| max.ends_at_or_after(member)).count()
            }
            Encoding::Skiplist(table) => {
                let start = table.partition_members(|member| min.begins_after(member));
                let end = table.partition_members(|member| max.ends_at_or_after(member));
                start..end.max(start)
            }
        }
    }

    /// A member by an index from 0 to `len() - 1` that says nothing about its rank; O(1) in the large encoding, for
    /// random choices.
    pub fn by_index(&self, index: usize) -> Option<(&[u8], f64)> {
        match &self.0 {
            Encoding::Listpack(pack) => pack.iter(index, index.checked_add(1)?).next(),
            Encoding::Skiplist(table) => table.by_index(index),
        }
    }

    /// One step of a scan: the next cursor, and members with their scores.
    ///
    /// Cursor 0 begins a scan, and 0 as the next cursor ends it. A member that is there during the whole scan is
    /// reported, perhaps twice. About `count` members are reported at a time, but a small set as a whole.
    pub fn scan(&self, cursor: u64, count: usize) -> (u64, SortedSetIter<'_>) {
        match &self.0 {
            Encoding::Listpack(_) => (0, self.iter()),
            Encoding::Skiplist(table) => {
                let (next, found) = table.scan(cursor, count);
                (next, SortedSetIter(Source::Table(found)))
            }
        }
    }

    fn pop_rank(&mut self, rank: usize) -> Option<(Vec<u8>, f64)> {
        match &mut self.0 {
            Encoding::Listpack(pack) => {
                let popped = pack.iter(rank, rank + 1).next().map(|(member, score)| (member.to_vec(), score));
                pack.remove_ranks(rank, 1);
                popped
            }
            Encoding::Skiplist(table) => table.remove(table.index_of_rank(rank)?),
        }
    }
}

/// Copies a small set into the large encoding.
fn enlarged(pack: &ScoredPack) -> ScoredTable {
    let mut table = ScoredTable::with_capacity(pack.len() + 1);
    for (member, score) in pack.iter(0, usize::MAX) {
        table.insert(KeyHash::of(member), member, score);
    }
    table
}

/// Whether a score may be stored and differs from the present one.
fn is_news(score: f64, present: Option<f64>) -> bool {
    #[allow(clippy::float_cmp, reason = "exactly equal scores are what the rule is about")]
    let differs = present != Some(score);
    differs && !score.is_nan()
}

impl<'a> IntoIterator for &'a SortedSet {
    type Item = (&'a [u8], f64);
    type IntoIter = SortedSetIter<'a>;

    fn into_iter(self) -> SortedSetIter<'a> {
        self.iter()
    }
}

/// Iterator over members and scores of a [`SortedSet`].
#[derive(Debug, Clone)]
pub struct SortedSetIter<'a>(Source<'a>);

#[derive(Debug, Clone)]
enum Source<'a> {
    Listpack(ScoredPackIter<'a>),
    Ranks(ScoredTableIter<'a>),
    Table(DenseIter<'a, Scored>),
}

impl<'a> Iterator for SortedSetIter<'a> {
    type Item = (&'a [u8], f64);

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        match &mut self.0 {
            Source::Listpack(iter) => iter.next(),
            Source::Ranks(iter) => iter.next(),
            Source::Table(iter) => iter.next().map(Scored::parts),
        }
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        match &self.0 {
            Source::Listpack(iter) => iter.size_hint(),
            Source::Ranks(iter) => iter.size_hint(),
            Source::Table(iter) => iter.size_hint(),
        }
    }
}

impl DoubleEndedIterator for SortedSetIter<'_> {
    #[inline]
    fn next_back(&mut self) -> Option<Self::Item> {
        match &mut self.0 {
            Source::Listpack(iter) => iter.next_back(),
            Source::Ranks(iter) => iter.next_back(),
            Source::Table(iter) => iter.next_back().map(Scored::parts),
        }
    }
}

impl ExactSizeIterator for SortedSetIter<'_> {}

#[cfg(test)]
#[path = "sorted_set_tests.rs"]
mod tests;
