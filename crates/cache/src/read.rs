//! What a read returns, and what a reader may demand.
//!
//! Invariant: a read never claims to be fresher than it can know. Deliberately absent: how any of it is found out.

use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::error::{Error, ErrorKind, Result};

/// A value with what is known of it.
#[derive(Clone, Debug, PartialEq)]
pub struct Read<T> {
    /// The value. Nobody else holds it, unless it is an `Arc` of a shared read.
    pub value: T,
    /// Where it came from.
    pub source: Source,
    /// Whether it is known to be within its TTL and the newest.
    pub staleness: Staleness,
    /// How old it is.
    pub age: Age,
    pub(crate) counted: Counted,
}

impl<T> Read<T> {
    /// A value that is within its TTL, and has been counted as a miss.
    pub(crate) fn fresh(value: T, source: Source, age: Age) -> Self {
        Self { value, source, staleness: Staleness::Fresh, age, counted: Counted::NoHit }
    }

    /// A value of this process's memory, which is counted as a hit of that.
    #[inline]
    pub(crate) fn near(value: T, age: Age) -> Self {
        Self { counted: Counted::NearHit, ..Self::fresh(value, Source::Near, age) }
    }

    /// As what hit it is counted, for [`Region::count_undecodable`](crate::Region::count_undecodable).
    pub fn counted(&self) -> Counted {
        self.counted
    }

    /// The value alone.
    pub fn into_value(self) -> T {
        self.value
    }

    /// The same read of what `f` makes of the value.
    pub fn map<U>(self, f: impl FnOnce(T) -> U) -> Read<U> {
        let Self { value, source, staleness, age, counted } = self;
        Read { value: f(value), source, staleness, age, counted }
    }

    /// The same read, seen then and handed out now.
    pub(crate) fn aged_since(self, seen: Instant) -> Self {
        Self { age: self.age.grown_by(seen.elapsed()), ..self }
    }

    pub(crate) fn shared(self) -> Read<Arc<T>> {
        self.map(Arc::new)
    }

    /// True if the value is past its TTL, or may not be the newest.
    pub fn is_stale(&self) -> bool {
        self.staleness == Staleness::Stale
    }
}

/// Where a value came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Source {
    /// This process's memory.
    Near,
    /// The backend.
    Backend,
    /// The loader, now.
    Loader,
}

impl Source {
    /// A short name for reports and labels.
    pub fn name(self) -> &'static str {
        match self {
            Self::Near => "near",
            Self::Backend => "backend",
            Self::Loader => "loader",
        }
    }
}

/// As what a read is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Counted {
    /// A hit of this process's memory.
    NearHit,
    /// A hit of the backend.
    Hit,
    /// None: it was a miss, or served stale, whatever its source.
    NoHit,
}

/// Whether a value is past its TTL.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Staleness {
    /// Within its TTL.
    Fresh,
    /// Past it, or within it and perhaps changed since without a word of it, as the backend is away: served because the region has a
    /// stale window.
    Stale,
}

/// How old a value is, counted from when its load began or it was set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Age {
    /// Exactly so old.
    Exact(Duration),
    /// So old or younger.
    AtMost(Duration),
    /// Not known, or not asked for.
    Unknown,
}

impl Age {
    /// True if the value is certainly no older than `limit`.
    pub fn is_within(self, limit: Duration) -> bool {
        match self {
            Self::Exact(age) | Self::AtMost(age) => age <= limit,
            Self::Unknown => false,
        }
    }

    /// The age after so much more time.
    pub(crate) fn grown_by(self, more: Duration) -> Self {
        match self {
            Self::Exact(age) => Self::Exact(age.saturating_add(more)),
            Self::AtMost(age) => Self::AtMost(age.saturating_add(more)),
            Self::Unknown => Self::Unknown,
        }
    }

    /// A plain value's age: its TTL when it was stored is at most the region's, so what is gone of the region's TTL bounds it. A
    /// key without expiry, or with more left than the region gives, was written by somebody with other rules.
    pub(crate) fn from_ttl(region: Duration, left: crate::ttl::TimeLeft) -> Self {
        match left {
            crate::ttl::TimeLeft::For(left) if left <= region => Self::AtMost(region.saturating_sub(left)),
            _ => Self::Unknown,
        }
    }
}

/// What a reader demands of a read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ReadOptions {
    /// A value older than this, or of unknown age, is a miss. Default: none.
    pub max_age: Option<Duration>,
    /// Whether to find out the age even without `max_age`; costs the backend one more command. Default: no.
    pub with_age: bool,
    /// Longest wait of this read for the backend; then it is an [`ErrorKind::Timeout`](crate::ErrorKind::Timeout), or goes on to the loader
    /// where there is one. The load itself asks the backend for its token and is bound by the response timeout there. Default: the
    /// response timeout alone.
    pub backend_timeout: Option<Duration>,
    /// How long a read may take, a batch as a whole, its loader included; then it ends with this process's last known value where the
    /// region serves stale ones, or with [`ErrorKind::Deadline`](crate::ErrorKind::Deadline). A load that has begun goes on and stores. Default: no
    /// limit of its own.
    pub deadline: Option<Duration>,
    /// Whether a value past its TTL is refused, whatever the region allows. Default: no.
    pub fresh_only: bool,
}

impl ReadOptions {
    /// No demands.
    #[inline]
    pub fn new() -> Self {
        Self::default()
    }

    /// A value older than this, or of unknown age, is a miss.
    #[must_use]
    pub fn max_age(mut self, limit: Duration) -> Self {
        self.max_age = Some(limit);
        self
    }

    /// Find out the age.
    #[must_use]
    pub fn with_age(mut self) -> Self {
        self.with_age = true;
        self
    }

    /// Longest wait of this read for the backend.
    #[must_use]
    pub fn backend_timeout(mut self, limit: Duration) -> Self {
        self.backend_timeout = Some(limit);
        self
    }

    /// How long a read may take, a batch as a whole, its loader included.
    #[must_use]
    pub fn deadline(mut self, limit: Duration) -> Self {
        self.deadline = Some(limit);
        self
    }

    /// Refuse values past their TTL.
    #[must_use]
    pub fn fresh_only(mut self) -> Self {
        self.fresh_only = true;
        self
    }

    /// What the call gives, if it ends before its caller's time does.
    pub(crate) async fn by_deadline<A>(
        self,
        region: &str,
        call: Pin<&mut impl Future<Output = Result<A>>>,
    ) -> Result<A> {
        let Some(limit) = self.deadline else { return call.await };
        tokio::time::timeout(limit, call).await.unwrap_or_else(|_| Err(self.past_deadline(region)))
    }

    pub(crate) fn past_deadline(self, region: &str) -> Error {
        let limit = self.deadline.unwrap_or_default();
        Error::new(
            ErrorKind::Deadline,
            format!("no value of region {region} within the {limit:?} that this read allows"),
        )
    }

    /// The backend's answer, if it comes in time. One that comes later is thrown away; that the backend is silent is noticed all the same,
    /// by the link.
    pub(crate) async fn in_time<A>(self, answer: Pin<&mut impl Future<Output = Result<A>>>) -> Result<A> {
        self.in_time_since(Instant::now(), answer).await
    }

    /// The same for one of several questions, the first of which was asked then.
    pub(crate) async fn in_time_since<A>(
        self,
        began: Instant,
        answer: Pin<&mut impl Future<Output = Result<A>>>,
    ) -> Result<A> {
        let Some(limit) = self.backend_timeout else { return answer.await };
        tokio::time::timeout(limit.saturating_sub(began.elapsed()), answer).await.unwrap_or_else(|_| {
            Err(Error::new(
                ErrorKind::Timeout,
                format!("the backend did not answer within the {limit:?} that this read allows"),
            ))
        })
    }

    pub(crate) fn wants_age(self) -> bool {
        self.with_age || self.max_age.is_some()
    }

    #[inline]
    pub(crate) fn accepts(&self, age: Age) -> bool {
        self.max_age.is_none_or(|limit| age.is_within(limit))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ttl::TimeLeft;

    #[test]
    fn age_is_bounded_by_what_is_gone_of_the_ttl() {
        let region = Duration::from_secs(30);
        let left = |s| TimeLeft::For(Duration::from_secs(s));
        assert_eq!(Age::from_ttl(region, left(20)), Age::AtMost(Duration::from_secs(10)));
        assert_eq!(Age::from_ttl(region, left(31)), Age::Unknown);
        assert_eq!(Age::from_ttl(region, TimeLeft::Forever), Age::Unknown);
    }

    #[test]
    fn unknown_age_meets_no_demand() {
        assert!(!ReadOptions::new().max_age(Duration::MAX).accepts(Age::Unknown));
        assert!(ReadOptions::new().accepts(Age::Unknown));
    }
}
