//! What framed regions do with the backend: store and look.
//!
//! Invariants: the time in a frame is the backend's, written by the step that stores it; a look holds a value's tags against their tokens of
//! a moment after the look began; what has fallen with a tag is not there, whatever the region allows. One trip to the backend per look, unless this
//! process did not know the value's tags. Deliberately absent: the layout (`frame.rs`), the order of steps of a load (`read_through.rs`).

mod view;

use std::pin::pin;
use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant};

use futures_util::future::{join_all, try_join, try_join_all};
use mtcache_link::Script;
use serde::de::DeserializeOwned;

pub(crate) use self::view::{Unusable, View};
use crate::backend::{Backend, Bytes, CachedKey, Entry, When};
use crate::cache::Cache;
use crate::codec;
use crate::error::{Error, ErrorKind, Result};
use crate::events::RemovalCause;
use crate::fill_token::Stored;
use crate::frame::{self, Frame, Header, STAMP_AT, STAMP_END};
use crate::options::Condition;
use crate::read::{Age, Read, ReadOptions, Source};
use crate::read_through::{FreshFor, Looked};
use crate::region::{Region, RegionState};
use crate::stats;
use crate::tags::{self, Tag, TagToken, Tags};
use crate::ttl::{TimeLeft, Ttl};
use crate::writing::is_refusal;

/// By how much the two accounts that a backend gives of a value's age, its clock and what is gone of the key's TTL, may differ.
const SAME_AGE: Duration = Duration::from_millis(100);
/// Entries of a bulk write that are under way at once.
const SET_STEP: usize = 100;
/// Looks of a bulk read that are under way at once.
const READ_STEP: usize = 100;

/// KEYS: key, token. ARGV: a frame up to its time, the rest of it, how long the key lives in ms, and NX, XX or nothing. Answers 1 if it
/// stored.
const STORE: &str = "local now = redis.call('TIME')\n\
     local stored = ARGV[1] .. struct.pack('>I8', now[1] * 1000000 + now[2]) .. ARGV[2]\n\
     redis.call('DEL', KEYS[2])\n\
     local done\n\
     if ARGV[4] == '' then\n\
       done = redis.call('SET', KEYS[1], stored, 'PX', ARGV[3])\n\
     else\n\
       done = redis.call('SET', KEYS[1], stored, 'PX', ARGV[3], ARGV[4])\n\
     end\n\
     return done and 1 or 0\n";
static STORE_ALWAYS: LazyLock<Script> = LazyLock::new(|| Script::idempotent(STORE));
static STORE_WHEN: LazyLock<Script> = LazyLock::new(|| Script::new(STORE));

/// KEYS: key. ARGV: how long it is fresh from now on in ms, and what stands for this run of the server. Writes that and the time into the frame, and gives the key that life and its
/// stale window; a plain value is only given the life. One that is past its life stays so. Answers 1 if the key is there and fresh.
static RENEW: LazyLock<Script> = LazyLock::new(|| {
    Script::idempotent(
        "local value = redis.call('GET', KEYS[1])\n\
         if not value then return 0 end\n\
         if string.sub(value, 1, 2) == '\\193\\1' and #value >= 48 then\n\
           local now = redis.call('TIME')\n\
           local ends = struct.unpack('>I8', value, 9) + struct.unpack('>I8', value, 17) * 1000\n\
           if now[1] * 1000000 + now[2] >= ends then return 0 end\n\
           local life = ARGV[1] + struct.unpack('>I8', value, 25)\n\
           value = string.sub(value, 1, 8) .. struct.pack('>I8', now[1] * 1000000 + now[2])\n\
             .. struct.pack('>I8', tonumber(ARGV[1])) .. string.sub(value, 25, 40) .. ARGV[2] .. string.sub(value, 49)\n\
           redis.call('SET', KEYS[1], value, 'PX', string.format('%d', life))\n\
           return 1\n\
         end\n\
         redis.call('PEXPIRE', KEYS[1], ARGV[1])\n\
         return 1\n",
    )
});

/// A value as it lies in the backend.
pub(crate) struct Sight {
    pub(crate) bytes: Bytes,
    /// How many it has once it is unpacked.
    pub(crate) unpacked_bytes: usize,
    pub(crate) age: Age,
    pub(crate) standing: Standing,
    /// What is left of its key's life.
    pub(crate) left: TimeLeft,
    /// How much longer it is fresh, by what its frame says and what is left of its key; none where that is not known.
    pub(crate) fresh_for: Option<Duration>,
    /// The keys of the tags that it carries.
    pub(crate) tags: Option<Arc<Tags>>,
}

impl Sight {
    /// How much longer it is fresh, where that matters for loading it anew.
    pub(crate) fn ahead(&self) -> FreshFor {
        self.fresh_for.filter(|_| !codec::is_null(&self.bytes))
    }
}

impl Sight {
    /// When it ceases to be what a read that was sent then has seen, fresh or stale, if it does.
    pub(crate) fn ends(&self, sent: Instant) -> Option<Instant> {
        let for_so_long = match (self.standing, self.left) {
            (Standing::Fresh, _) => self.fresh_for.unwrap_or_default(),
            (_, TimeLeft::For(left)) => left,
            (_, TimeLeft::Forever) => return None,
            (_, TimeLeft::Absent) => Duration::ZERO,
        };
        sent.checked_add(for_so_long)
    }
}

/// Whether a value that is there may be served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Standing {
    Fresh,
    /// Past its TTL and within the stale window that its frame names.
    Stale,
    /// One of its tags has been invalidated, or it is past everything.
    Fallen,
}

impl<T: DeserializeOwned> Region<T> {
    /// One look at the backend; also how the value that is fresh or stale may be kept near.
    pub(crate) async fn look_at_frame(
        &self,
        key: &str,
        options: ReadOptions,
    ) -> Result<(Looked<T>, Option<Sight>)> {
        let sight = options.in_time(pin!(self.cache.see(key, &self.state))).await;
        let sight = sight.inspect_err(|_| stats::count(&self.state.counters.backend_errors))?;
        let Some(sight) = sight else {
            self.cache.near().is_missing(key, Instant::now());
            return Ok((Looked::Nothing, None));
        };
        match sight.standing {
            Standing::Fallen => {
                self.cache.near().forget(key);
                return Ok((Looked::Nothing, None));
            }
            Standing::Stale => {
                stats::count(&self.state.counters.expired_in_window);
                let stale = self.stale(&sight.bytes, Source::Backend, sight.age, options);
                return Ok(stale.map_or((Looked::Nothing, None), |stale| (Looked::Stale(stale), Some(sight))));
            }
            Standing::Fresh if !options.accepts(sight.age) => return Ok((Looked::Nothing, None)),
            Standing::Fresh => {}
        }
        let looked = self.decoded(&sight.bytes, sight.age)?;
        Ok((looked, Some(sight)))
    }

    /// Reads several entries, each in a step of its own.
    pub(crate) async fn read_many_frames(&self, keys: &[String]) -> Result<Vec<Option<Read<T>>>> {
        let mut reads = Vec::with_capacity(keys.len());
        for step in keys.chunks(READ_STEP) {
            let step = step.iter().map(|key| self.read(key, ReadOptions::new()));
            reads.extend(try_join_all(step).await?);
        }
        Ok(reads)
    }
}

/// What a frame is given when it is stored.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Final<'a> {
    pub(crate) ttl: Ttl,
    pub(crate) load_time: Duration,
    /// The run of the server that stores it. Should another take its place before it does, that one's frames are of no known age to it.
    pub(crate) clock: u64,
    pub(crate) tags: &'a [(Tag, TagToken)],
}

impl RegionState {
    /// The stale window of a frame: "the source has none" has none.
    pub(crate) fn window_for(&self, stored: &[u8]) -> Duration {
        if codec::is_null(stored) { Duration::ZERO } else { self.policy.stale_window }
    }

    /// How long what this region stores lives in the backend at the most.
    pub(crate) fn longest_life(&self) -> Duration {
        self.policy.ttl.saturating_add(self.policy.stale_window)
    }

    /// The frame as it is stored, but for its time.
    pub(crate) fn finish(&self, draft: &[u8], last: Final<'_>) -> Result<Bytes> {
        let refused = |message: String| Error::new(ErrorKind::Unencodable, message);
        let frame = Frame::read(draft).map_err(|unreadable| refused(unreadable.to_string()))?;
        let value = frame.value().map_err(|unreadable| refused(unreadable.to_string()))?;
        let header = Header {
            ttl: last.ttl.as_duration(),
            stale_window: self.window_for(draft),
            load_time: last.load_time,
            clock: last.clock,
            tags: last.tags.to_vec(),
            ..frame.header
        };
        let compression = self
            .policy
            .framing
            .as_ref()
            .map_or(frame::Compression::None, |framing| framing.compression_for(value.len()));
        frame::write(&header, 0, &value, compression).map_err(refused)
    }
}

/// A frame that was written here, in the two parts between which the backend writes its time.
pub(crate) fn parts(frame: &[u8]) -> (&[u8], &[u8]) {
    (frame.get(..STAMP_AT).unwrap_or_default(), frame.get(STAMP_END..).unwrap_or_default())
}

impl Cache {
    /// Sets a framed entry; says whether its condition let it be stored.
    pub(crate) async fn set_framed(
        &self,
        key: &str,
        draft: &[u8],
        ttl: Ttl,
        condition: &Condition,
        region: &RegionState,
        tags: &Tags,
    ) -> Result<bool> {
        let when = match condition {
            Condition::Always => When::Always,
            Condition::IfAbsent => When::Absent,
            Condition::IfPresent => When::Present,
            Condition::IfNewer { .. } => {
                return Err(Error::new(
                    ErrorKind::Config,
                    format!(
                        "region {} is framed; a set that compares times is for plain regions",
                        region.policy.name
                    ),
                ));
            }
        };
        let cached = CachedKey::new(key);
        let mut writing = self.writing(region, std::slice::from_ref(&cached), RemovalCause::Replaced);
        if when == When::Absent {
            // As in set_full.
            writing.leaves_nothing_old();
        }
        let stored = self.store_framed(&cached, draft, ttl, when, region, tags).await;
        match &stored {
            Ok(stored) => {
                stats::count(if *stored { &region.counters.sets } else { &region.counters.sets_refused });
                if *stored {
                    self.changed(region, [&cached], RemovalCause::Replaced);
                }
                writing.leaves_nothing_old();
            }
            Err(error) => writing.failed(error),
        }
        stored
    }

    /// Sets framed entries, each in a step of its own. All of a step end, whatever becomes of one; the first error is told.
    pub(crate) async fn set_many_framed(
        &self,
        entries: &[Entry],
        region: &RegionState,
        tags: &Tags,
    ) -> Result<()> {
        let mut writing = self.writing(region, entries, RemovalCause::Replaced);
        let mut refused = Ok(());
        for step in entries.chunks(SET_STEP) {
            let stores = step.iter().map(async |entry| {
                let ttl = entry.ttl.ok_or_else(|| Error::protocol("an entry of a region without a TTL"))?;
                self.store_framed(&entry.key, &entry.value, ttl, When::Always, region, tags).await
            });
            let mut failed = Ok(());
            for (place, (entry, stored)) in step.iter().zip(join_all(stores).await).enumerate() {
                match stored {
                    Ok(_) => {
                        writing.done_apart(place);
                        stats::count(&region.counters.sets);
                        self.changed(region, [&entry.key], RemovalCause::Replaced);
                    }
                    Err(error) if is_refusal(&error) => {
                        writing.done_apart(place);
                        refused = refused.and(Err(error));
                    }
                    Err(error) => failed = failed.and(Err(error)),
                }
            }
            failed.inspect_err(|error| writing.failed(error))?;
            writing.done(step.len());
        }
        refused
    }

    async fn store_framed(
        &self,
        key: &CachedKey,
        draft: &[u8],
        ttl: Ttl,
        when: When,
        region: &RegionState,
        tags: &Tags,
    ) -> Result<bool> {
        let backend = self.backend().await?;
        let taken = tags.take(backend, region.longest_life()).await?;
        let clock = backend.settled_run_of(&key.key).await;
        let frame = region.finish(draft, Final { ttl, load_time: Duration::ZERO, clock, tags: &taken })?;
        let (head, tail) = parts(&frame);
        let life = ttl.as_duration() + region.window_for(draft);
        let (script, word): (&Script, &[u8]) = match when {
            When::Always => (&STORE_ALWAYS, b""),
            When::Absent => (&STORE_WHEN, b"NX"),
            When::Present => (&STORE_WHEN, b"XX"),
        };
        let args = [head.to_vec(), tail.to_vec(), life.as_millis().to_string().into_bytes(), word.to_vec()];
        let stored = backend.script(script, &[key.key.clone(), key.token.clone()], &args).await?;
        Ok(stored.into_int()? == 1)
    }

    /// Gives a framed entry a new TTL from now on; false if it is not there.
    pub(crate) async fn renew_framed(&self, key: &str, ttl: Ttl) -> Result<bool> {
        let _stale = self.drops_near([key.as_bytes()]);
        let backend = self.backend().await?;
        let clock = backend.settled_run_of(key.as_bytes()).await;
        let args = [ttl.as_millis().to_string().into_bytes(), clock.to_be_bytes().to_vec()];
        let renewed = backend.script(&RENEW, &[key.as_bytes().to_vec()], &args).await?;
        Ok(renewed.into_bool()?)
    }

    /// One look at a key of a framed region.
    pub(crate) async fn see(&self, key: &str, region: &RegionState) -> Result<Option<Sight>> {
        let backend = self.backend().await?;
        let key = key.as_bytes();
        let book = self.tag_book();
        let hinted = book.hint(key);
        let hinted_keys = hinted.as_deref().map_or(&[][..], |tags| &tags.keys);
        let run = backend.settled_run_of(key).await;
        // Together: a token that is still there when it is read was there when the value was, whichever came first.
        let ((value, left, now), tokens) =
            try_join(backend.get_with_clock(key), tags::tokens(backend, hinted_keys)).await?;
        let Some(bytes) = value else { return Ok(None) };
        let Ok(frame) = Frame::read(&bytes) else {
            // Plain, or nothing that this reader knows: told by its TTL, as in plain regions. Whoever decodes it says what it is.
            let age = region.age(&bytes, left);
            let fresh_for = crate::near::life(left, region.policy.ttl);
            let (standing, unpacked_bytes) = (Standing::Fresh, bytes.len());
            return Ok(Some(Sight { bytes, unpacked_bytes, age, standing, left, fresh_for, tags: None }));
        };
        let is_of_this_clock = frame.header.clock == run && run == backend.run_of(key) && run != 0;
        let age = if is_of_this_clock { told_age(&frame, now, left) } else { Age::Unknown };
        let bound = if is_of_this_clock { age } else { bound_by_ttl(&frame.header, left) };
        let (mut standing, fresh_for) = standing(&frame.header, bound, left);
        let (on_it, unpacked_bytes) = (&frame.header.tags, frame.value_bytes);
        let mut known = None;
        if !on_it.is_empty() {
            let (carries, tokens) = match hinted {
                Some(hinted) if hinted.tags.iter().eq(on_it.iter().map(|(tag, _)| tag)) => (hinted, tokens),
                _ => {
                    stats::count(&region.counters.tag_trips);
                    let names = on_it.iter().map(|(tag, _)| tag.clone()).collect();
                    let carries = Tags::as_carried(names, self.prefix());
                    let tokens = tags::tokens(backend, &carries.keys).await?;
                    let carries = Arc::new(carries);
                    book.remember(key, Arc::clone(&carries));
                    (carries, tokens)
                }
            };
            let stand = on_it.len() == tokens.len()
                && on_it.iter().zip(&tokens).all(|((_, token), now)| Some(token) == now.as_ref());
            if !stand {
                standing = Standing::Fallen;
                stats::count(&region.counters.fallen);
            }
            known = Some(carries);
        }
        Ok(Some(Sight { age, unpacked_bytes, standing, left, fresh_for, tags: known, bytes }))
    }

    /// How it stands with what a load found in its second look.
    pub(crate) async fn stands(&self, bytes: &[u8], left: TimeLeft) -> Result<Standing> {
        let Ok(frame) = Frame::read(bytes) else { return Ok(Standing::Fresh) };
        let age = bound_by_ttl(&frame.header, left);
        let standing = standing(&frame.header, age, left).0;
        if standing == Standing::Fallen || frame.header.tags.is_empty() {
            return Ok(standing);
        }
        let names = frame.header.tags.iter().map(|(tag, _)| tag.clone()).collect();
        let carries = Tags::as_carried(names, self.prefix());
        let tokens = tags::tokens(self.backend().await?, &carries.keys).await?;
        let stand =
            frame.header.tags.iter().zip(&tokens).all(|((_, token), now)| Some(token) == now.as_ref());
        Ok(if stand { standing } else { Standing::Fallen })
    }

    /// Whether these tags have the tokens still that they had when these were taken.
    pub(crate) async fn tags_stand(&self, backend: &Backend, tags: &Tags, taken: &[(Tag, TagToken)]) -> bool {
        match tags::tokens(backend, &tags.keys).await {
            Ok(now) => taken.iter().zip(&now).all(|((_, token), now)| Some(token) == now.as_ref()),
            Err(_) => false,
        }
    }
}

impl RegionState {
    /// What is to be stored, as a fill takes it.
    pub(crate) fn stored<'a>(&self, bytes: &'a [u8]) -> Stored<'a> {
        if self.policy.framing.is_some() && frame::is_framed(bytes) {
            Stored::Framed { frame: bytes, stale_window: self.window_for(bytes) }
        } else {
            Stored::Plain(bytes)
        }
    }
}

/// The age by what is gone of the life that the frame names; none if the key has more left than that, or for ever.
pub(crate) fn aged_by_ttl(header: &Header, left: TimeLeft) -> Option<Duration> {
    match left {
        TimeLeft::For(left) => header.life().checked_sub(left),
        _ => None,
    }
}

/// The age of a frame by what is gone of its key's TTL alone: what decides whether it is fresh where its time is by another clock.
fn bound_by_ttl(header: &Header, left: TimeLeft) -> Age {
    aged_by_ttl(header, left).map_or(Age::Unknown, Age::AtMost)
}

/// How much longer what a load found in its second look is fresh; none where that does not end.
pub(crate) fn fresh_for(bytes: &[u8], left: TimeLeft) -> Option<Duration> {
    match Frame::read(bytes) {
        Ok(frame) => standing(&frame.header, bound_by_ttl(&frame.header, left), left).1,
        Err(_) => match left {
            TimeLeft::For(left) => Some(left),
            TimeLeft::Forever | TimeLeft::Absent => None,
        },
    }
}

/// The age of a frame. There are two accounts of it, both by the backend: its clock, and what is gone of the key's TTL. They agree unless
/// somebody changed the key's expiry, or the clock was set: then the longer one is a bound. Only for the server's own frames: after a failover
/// both accounts may be wrong by the same.
fn told_age(frame: &Frame<'_>, now: u64, left: TimeLeft) -> Age {
    let by_clock = frame.age(now);
    match aged_by_ttl(&frame.header, left) {
        Some(by_ttl) if by_ttl.abs_diff(by_clock) <= SAME_AGE && now >= frame.began => {
            Age::Exact(by_clock.max(by_ttl))
        }
        Some(by_ttl) => Age::AtMost(by_clock.max(by_ttl)),
        // More is left than there was at first: whoever did that has other rules. The clock alone cannot be held against anything.
        None => Age::Unknown,
    }
}

/// Whether a value is fresh, and how much longer. One whose age is not known is not served: a load replaces it.
fn standing(header: &Header, age: Age, left: TimeLeft) -> (Standing, Option<Duration>) {
    let (Age::Exact(age) | Age::AtMost(age)) = age else {
        return (Standing::Fallen, None);
    };
    match header.ttl.checked_sub(age) {
        Some(fresh_for) if !fresh_for.is_zero() => {
            let left = crate::near::life(left, fresh_for);
            (Standing::Fresh, left)
        }
        _ if age < header.life() => (Standing::Stale, None),
        _ => (Standing::Fallen, None),
    }
}
