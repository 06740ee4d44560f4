//! The buffer of recent signals: a sorted set by time, shared by every service that makes or reads signals.
//!
//! Invariant: a push is one atomic step (add, drop what is older than the TTL, keep the newest, re-arm the expiry), so no
//! number of writers loses a signal that belongs in; it reports success only for a signal that is in the buffer. Reads are
//! newest first, and filters run before the limit. Absent: order by anything but the signals' own times.

use std::time::Duration;

use mtcache_cache::codec::{self, Stored};
use mtcache_cache::collections::{Bound, ScoreRange};
use mtcache_cache::{Cache, Order, Script};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::regions::RegionSpec;
use crate::signal_filter::SignalFilter;
use crate::signal_id::SignalIds;
use crate::{Clock, Error, ErrorKind, Timestamp};

/// How many signals the buffer holds. Default.
pub const DEFAULT_CAPACITY: usize = 1000;

/// How far a signal's time may be ahead of this machine's clock: what machines' clocks differ by, and no more. Default: 60 s.
pub const MAX_AHEAD: Duration = Duration::from_mins(1);

/// Most entries a filtered read looks at. The buffer's own writers keep it far smaller; others may not.
const MAX_SCANNED: u64 = 100_000;

/// The field that tells equal signals apart.
const ID_FIELD: &str = "_id";

/// Running it twice with the same arguments leaves the same buffer, so a retry is safe.
const PUSH: &str = "
redis.call('ZADD', KEYS[1], ARGV[1], ARGV[2])
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', '(' .. ARGV[3])
redis.call('ZREMRANGEBYRANK', KEYS[1], 0, ARGV[4])
redis.call('PEXPIRE', KEYS[1], ARGV[5])
local kept = redis.call('ZSCORE', KEYS[1], ARGV[2]) and 1 or 0
return {kept, redis.call('ZCARD', KEYS[1])}
";

/// The buffer of recent signals. Cheap to clone.
///
/// ```no_run
/// # async fn example(buffer: mtcache_trading::SignalBuffer) -> Result<(), mtcache_trading::Error> {
/// use mtcache_trading::{Extra, Signal, SignalFilter, SignalType, Timestamp};
///
/// let signal = Signal {
///     symbol: "BTCUSDT".into(),
///     signal_type: SignalType::Buy,
///     strength: 0.85,
///     timestamp: Timestamp::now(),
///     extra: Extra::new(),
/// };
/// buffer.push(&signal).await?;
/// for recent in buffer.find(&SignalFilter::new().symbol("BTCUSDT").min_strength(0.5), 10).await? {
///     println!("{:?} ago: {}", recent.age, recent.signal);
/// }
/// # Ok(()) }
/// ```
#[derive(Clone, Debug)]
pub struct SignalBuffer {
    cache: Cache,
    key: String,
    capacity: usize,
    ttl: Duration,
    clock: Clock,
    ids: SignalIds,
    push: Script,
}

/// A signal that was pushed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pushed {
    /// Its identity in the buffer.
    pub id: String,
    /// How many signals the buffer holds now.
    pub buffered: u64,
}

/// A signal read from the buffer.
#[derive(Clone, Debug, PartialEq)]
pub struct BufferedSignal {
    /// The signal as it was pushed, without the buffer's own field. What an old writer stored that is no JSON is its text.
    pub signal: Value,
    /// Its identity in the buffer; signals of old writers have none.
    pub id: Option<String>,
    /// Its time.
    pub at: Timestamp,
    /// How old it was when it was read.
    pub age: Duration,
    stored: Vec<u8>,
}

impl BufferedSignal {
    /// Its bytes in the buffer, identity included: for readers to whom every digit counts, which [`Value`] has only up to 64 bits.
    pub fn stored(&self) -> &[u8] {
        &self.stored
    }

    /// The signal as a type of the caller's, such as [`crate::Signal`].
    pub fn parse<T: DeserializeOwned>(&self) -> Result<T, Error> {
        T::deserialize(&self.signal).map_err(|error| {
            Error::new(ErrorKind::Undecodable, "a buffered signal has another shape").caused_by(error)
        })
    }
}

impl SignalBuffer {
    /// The buffer of this region, of 1000 signals.
    pub(crate) fn new(cache: &Cache, spec: &RegionSpec) -> Self {
        Self {
            cache: cache.clone(),
            key: spec.key.to_owned(),
            capacity: DEFAULT_CAPACITY,
            ttl: spec.ttl,
            clock: Clock::default(),
            ids: SignalIds::default(),
            push: Script::idempotent(PUSH),
        }
    }

    /// The same buffer, trimmed to so many signals by the pushes made through this handle; at least one. Default: 1000.
    #[must_use]
    pub fn with_capacity(mut self, capacity: usize) -> Self {
        self.capacity = capacity.max(1);
        self
    }

    /// The same buffer with another clock.
    #[must_use]
    pub fn with_clock(mut self, clock: Clock) -> Self {
        self.clock = clock;
        self
    }

    /// Puts a signal in: any JSON object. Its time is its `timestamp`, or now when it has none.
    ///
    /// Fails with [`ErrorKind::InvalidTimestamp`] or [`ErrorKind::InvalidSignal`] before anything is sent, and with
    /// [`ErrorKind::SignalTooOld`] when the signal is older than the TTL, or than all the newer ones that there is room for. An `_id`
    /// that the signal brings itself is kept as its identity; otherwise the call makes one.
    pub async fn push<S: Serialize + ?Sized>(&self, signal: &S) -> Result<Pushed, Error> {
        let now = self.clock.now();
        let entry = self.entry(signal, &now)?;
        let ahead = entry.score - now.epoch_seconds();
        if ahead > MAX_AHEAD.as_secs_f64() {
            return Err(Error::new(
                ErrorKind::InvalidTimestamp,
                format!(
                    "the signal's timestamp is {ahead:.0} s ahead of this machine's clock, and {} s are allowed: it would keep \
                     true signals out of the buffer",
                    MAX_AHEAD.as_secs()
                ),
            ));
        }
        let cutoff = self.cutoff(&now);
        if entry.score < cutoff {
            return Err(too_old(&format!("it is older than {} s", self.ttl.as_secs())));
        }
        let last_trimmed = -(i64::try_from(self.capacity).unwrap_or(i64::MAX - 1)) - 1;
        let args = [
            entry.score.to_string().into_bytes(),
            entry.member,
            cutoff.to_string().into_bytes(),
            last_trimmed.to_string().into_bytes(),
            self.ttl.as_millis().to_string().into_bytes(),
        ];
        let reply = self.cache.script(&self.push, &[&self.key], &args).await?;
        let mut counts = Vec::with_capacity(2);
        for part in reply.into_array().map_err(mtcache_cache::Error::from)? {
            counts.push(part.into_int().map_err(mtcache_cache::Error::from)?);
        }
        match counts.as_slice() {
            [1, buffered] => Ok(Pushed { id: entry.id, buffered: buffered.unsigned_abs() }),
            [_, _] => Err(too_old(&format!("the buffer holds {} newer ones", self.capacity))),
            _ => Err(Error::new(ErrorKind::Undecodable, "the push script answered something else")),
        }
    }

    /// The newest `count` signals, newest first; none for a count of zero.
    pub async fn recent(&self, count: usize) -> Result<Vec<BufferedSignal>, Error> {
        self.find(&SignalFilter::default(), count).await
    }

    /// The newest `count` signals that the filter lets through, newest first; none for a count of zero.
    pub async fn find(&self, filter: &SignalFilter, count: usize) -> Result<Vec<BufferedSignal>, Error> {
        if count == 0 {
            return Ok(Vec::new());
        }
        let now = self.clock.now();
        let cutoff = self.cutoff(&now);
        let low = filter.since.as_ref().map_or(cutoff, |since| since.epoch_seconds().max(cutoff));
        let high = filter.until.as_ref().map_or(Bound::Open, |until| Bound::Including(until.epoch_seconds()));
        let range = ScoreRange::new(Bound::Including(low), high)?;
        // What the scores cannot decide is decided here, so the limit can only be left to the backend without it.
        let limit = if filter.looks_inside() { MAX_SCANNED } else { count as u64 };
        let entries: Vec<(Stored, f64)> =
            self.set()?.range_by_score(range, Order::Descending, 0, Some(limit)).await?;
        let mut found = Vec::with_capacity(entries.len().min(count));
        for (Stored(stored), score) in entries {
            if found.len() == count {
                break;
            }
            let signal = codec::decode(&stored)?;
            if filter.lets_through(&signal) {
                found.push(buffered(stored, signal, score, &now)?);
            }
        }
        Ok(found)
    }

    /// How many signals are younger than the TTL.
    pub async fn len(&self) -> Result<u64, Error> {
        let cutoff = self.cutoff(&self.clock.now());
        Ok(self.set()?.count(ScoreRange::from(cutoff)?).await?)
    }

    /// Whether there is none.
    pub async fn is_empty(&self) -> Result<bool, Error> {
        Ok(self.len().await? == 0)
    }

    /// Removes every signal.
    pub async fn clear(&self) -> Result<(), Error> {
        self.cache.delete(&[&self.key]).await?;
        Ok(())
    }

    fn set(&self) -> Result<mtcache_cache::collections::SortedSetView, Error> {
        Ok(self.cache.sorted_set(&self.key)?)
    }

    fn cutoff(&self, now: &Timestamp) -> f64 {
        now.epoch_seconds() - self.ttl.as_secs_f64()
    }

    /// The stored form of a signal. Its own bytes are kept, so that no digit of it changes.
    fn entry<S: Serialize + ?Sized>(&self, signal: &S, now: &Timestamp) -> Result<Entry, Error> {
        let json = codec::encode(signal).map_err(|error| {
            Error::new(ErrorKind::InvalidValue, "the signal has no JSON form").caused_by(error)
        })?;
        let Ok(Value::Object(fields)) = serde_json::from_slice(&json) else {
            return Err(Error::new(ErrorKind::InvalidSignal, "a signal must be a JSON object"));
        };
        let score = match fields.get("timestamp") {
            Some(written) => Timestamp::from_json(written)?.epoch_seconds(),
            None => now.epoch_seconds(),
        };
        match fields.get(ID_FIELD) {
            None => {
                let id = self.ids.next(now);
                // The identity comes first: among signals of one moment the later push then sorts later.
                let mut member = format!("{{\"{ID_FIELD}\":\"{id}\"").into_bytes();
                if !fields.is_empty() {
                    member.push(b',');
                }
                member.extend_from_slice(json.get(1..).unwrap_or_default());
                Ok(Entry { id, score, member })
            }
            Some(Value::String(id)) => Ok(Entry { id: id.clone(), score, member: json }),
            Some(other) => Err(Error::new(
                ErrorKind::InvalidSignal,
                format!(
                    "the signal's {ID_FIELD} is {other}, but that field is its identity and must be a text"
                ),
            )),
        }
    }
}

struct Entry {
    id: String,
    score: f64,
    member: Vec<u8>,
}

fn buffered(
    stored: Vec<u8>,
    mut signal: Value,
    score: f64,
    now: &Timestamp,
) -> Result<BufferedSignal, Error> {
    let id = match signal.as_object_mut().and_then(|fields| fields.shift_remove(ID_FIELD)) {
        Some(Value::String(id)) => Some(id),
        _ => None,
    };
    let at = Timestamp::from_epoch_seconds(score)?;
    let age = at.age(now);
    Ok(BufferedSignal { signal, id, at, age, stored })
}

fn too_old(why: &str) -> Error {
    Error::new(ErrorKind::SignalTooOld, format!("the signal was not buffered: {why}"))
}
