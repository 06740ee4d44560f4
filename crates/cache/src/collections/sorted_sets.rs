//! A view of one sorted set.
//!
//! Invariant: a score that is not a number never reaches the backend. Deliberately absent: ranges by member (ZRANGEBYLEX) and
//! operations over several sets.

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::backend::Order;
use crate::cache::Cache;
use crate::codec;
use crate::error::{Error, ErrorKind, Result};

/// One sorted set. Made by [`Cache::sorted_set`].
#[derive(Clone, Debug)]
pub struct SortedSetView {
    cache: Cache,
    key: String,
}

/// Which members an add touches. Default: all, and count the new ones.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ZaddOptions {
    only: Only,
    counts_changed: bool,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Only {
    #[default]
    All,
    New,
    Present,
}

impl ZaddOptions {
    /// Only add new members (NX).
    #[must_use]
    pub fn only_new(mut self) -> Self {
        self.only = Only::New;
        self
    }

    /// Only update members that are there (XX).
    #[must_use]
    pub fn only_present(mut self) -> Self {
        self.only = Only::Present;
        self
    }

    /// Count the members whose score changed too (CH).
    #[must_use]
    pub fn count_changed(mut self) -> Self {
        self.counts_changed = true;
        self
    }

    pub(crate) fn words(self) -> impl Iterator<Item = &'static str> {
        let only = match self.only {
            Only::All => None,
            Only::New => Some("NX"),
            Only::Present => Some("XX"),
        };
        only.into_iter().chain(self.counts_changed.then_some("CH"))
    }
}

/// One end of a range of scores.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Bound {
    /// No bound.
    Open,
    /// This score and what is inside of it.
    Including(f64),
    /// Only what is inside of this score.
    Excluding(f64),
}

/// A range of scores.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ScoreRange {
    low: Bound,
    high: Bound,
}

impl ScoreRange {
    /// All scores.
    pub const ALL: Self = Self { low: Bound::Open, high: Bound::Open };

    /// From a lower to a higher bound. A bound that is not a number is refused.
    pub fn new(low: Bound, high: Bound) -> Result<Self> {
        for bound in [low, high] {
            if let Bound::Including(score) | Bound::Excluding(score) = bound {
                checked(score)?;
            }
        }
        Ok(Self { low, high })
    }

    /// From this score upwards.
    pub fn from(score: f64) -> Result<Self> {
        Self::new(Bound::Including(score), Bound::Open)
    }

    /// Everything below this score.
    pub fn below(score: f64) -> Result<Self> {
        Self::new(Bound::Open, Bound::Excluding(score))
    }

    pub(crate) fn low(self) -> Bound {
        self.low
    }

    pub(crate) fn high(self) -> Bound {
        self.high
    }

    /// Both ends as a command writes them.
    pub(crate) fn words(self) -> (String, String) {
        (word(self.low(), "-inf"), word(self.high(), "+inf"))
    }
}

fn word(bound: Bound, open: &str) -> String {
    let text = |score: f64| match score {
        s if s == f64::INFINITY => "+inf".to_owned(),
        s if s == f64::NEG_INFINITY => "-inf".to_owned(),
        s => format!("{s:?}"),
    };
    match bound {
        Bound::Open => open.to_owned(),
        Bound::Including(score) => text(score),
        Bound::Excluding(score) => format!("({}", text(score)),
    }
}

fn checked(score: f64) -> Result<f64> {
    if score.is_nan() {
        return Err(Error::new(ErrorKind::Unencodable, "a score must be a number, not NaN"));
    }
    Ok(score)
}

impl SortedSetView {
    pub(crate) fn new(cache: Cache, key: String) -> Self {
        Self { cache, key }
    }

    /// The key in the backend, prefix included.
    pub fn key(&self) -> &str {
        &self.key
    }

    /// Adds members or updates their scores; says how many are new (or changed, if asked).
    pub async fn add<M: Serialize>(&self, members: &[(M, f64)], options: ZaddOptions) -> Result<u64> {
        if members.is_empty() {
            return Ok(0);
        }
        let members = members
            .iter()
            .map(|(member, score)| Ok((codec::encode(member)?, checked(*score)?)))
            .collect::<Result<Vec<_>>>()?;
        self.cache.backend().await?.zset_add(self.key.as_bytes(), &members, options).await
    }

    /// Adds to a member's score and returns the sum. Never sent twice.
    pub async fn increment<M: Serialize + ?Sized>(&self, member: &M, by: f64) -> Result<f64> {
        let member = codec::encode(member)?;
        self.cache.backend().await?.zset_increment(self.key.as_bytes(), &member, checked(by)?).await
    }

    /// Members by place, first to last place included; places below zero count from the end.
    pub async fn range<M: DeserializeOwned>(
        &self,
        first: i64,
        last: i64,
        order: Order,
    ) -> Result<Vec<(M, f64)>> {
        decoded(self.cache.backend().await?.zset_range(self.key.as_bytes(), first, last, order).await?)
    }

    /// Members by score, after skipping some, at most so many.
    pub async fn range_by_score<M: DeserializeOwned>(
        &self,
        range: ScoreRange,
        order: Order,
        skip: u64,
        limit: Option<u64>,
    ) -> Result<Vec<(M, f64)>> {
        if limit == Some(0) {
            return Ok(Vec::new());
        }
        let backend = self.cache.backend().await?;
        decoded(backend.zset_range_by_score(self.key.as_bytes(), range, order, skip, limit).await?)
    }

    /// Removes members; says how many there were.
    pub async fn remove<M: Serialize>(&self, members: &[M]) -> Result<u64> {
        if members.is_empty() {
            return Ok(0);
        }
        let members = members.iter().map(codec::encode).collect::<Result<Vec<_>>>()?;
        self.cache.backend().await?.zset_remove(self.key.as_bytes(), &members).await
    }

    /// Removes by place, in ascending order of score; says how many. Never sent twice.
    pub async fn remove_by_rank(&self, first: i64, last: i64) -> Result<u64> {
        self.cache.backend().await?.zset_remove_by_rank(self.key.as_bytes(), first, last).await
    }

    /// Removes by score; says how many.
    pub async fn remove_by_score(&self, range: ScoreRange) -> Result<u64> {
        self.cache.backend().await?.zset_remove_by_score(self.key.as_bytes(), range).await
    }

    /// How many members there are.
    pub async fn len(&self) -> Result<u64> {
        self.cache.backend().await?.zset_len(self.key.as_bytes()).await
    }

    /// True if there is no member.
    pub async fn is_empty(&self) -> Result<bool> {
        Ok(self.len().await? == 0)
    }

    /// How many members have a score in the range.
    pub async fn count(&self, range: ScoreRange) -> Result<u64> {
        self.cache.backend().await?.zset_count(self.key.as_bytes(), range).await
    }

    /// A member's score.
    pub async fn score<M: Serialize + ?Sized>(&self, member: &M) -> Result<Option<f64>> {
        let member = codec::encode(member)?;
        self.cache.backend().await?.zset_score(self.key.as_bytes(), &member).await
    }
}

fn decoded<M: DeserializeOwned>(members: Vec<(Vec<u8>, f64)>) -> Result<Vec<(M, f64)>> {
    members.into_iter().map(|(member, score)| Ok((codec::decode(&member)?, score))).collect()
}
