//! Sessions of users, found by a random token that is never stored.
//!
//! Invariants: only the token's SHA-256 is kept, so what leaks from the cache opens nothing. A session lives while both its own key
//! and its entry in its user's index do, so removing the index ends all of a user's sessions in one step, and an evicted index fails
//! closed. No use extends a session past its absolute end, and no late step brings a revoked one back: extending is EXPIRE and
//! ZADD XX, updating is SET XX. Absent: cookies, passwords, permissions.

use std::fmt;
use std::time::Duration;

use mtcache_cache::collections::{Bound, ScoreRange, SortedSetView};
use mtcache_cache::{Age, Cache, Order, ReadOptions, Region, Script};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::shapes::hex;
use crate::{Clock, Error, ErrorKind, Extra, Timestamp};

/// How long a session lives at the most, however much it is used. Default.
pub const DEFAULT_ABSOLUTE_LIFE: Duration = Duration::from_hours(30 * 24);

/// How much of the sliding life must be gone before a use re-arms it, or half of it if that is less: at most one EXPIRE a minute.
const REARM_AFTER: Duration = Duration::from_mins(1);

/// How long an index entry outlives its session, so that machines whose clocks differ by less never trim a living session's.
const INDEX_MARGIN: Duration = Duration::from_hours(1);

/// Bytes of randomness in a token.
const TOKEN_BYTES: usize = 32;

const ADD_TO_INDEX: &str = "
redis.call('ZADD', KEYS[1], ARGV[1], ARGV[2])
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', '(' .. ARGV[3])
redis.call('PEXPIRE', KEYS[1], ARGV[4])
return 1
";

/// As above, but only for an entry that is there: a revoked session must not come back.
const EXTEND_IN_INDEX: &str = "
if not redis.call('ZSCORE', KEYS[1], ARGV[2]) then return 0 end
redis.call('ZADD', KEYS[1], 'XX', ARGV[1], ARGV[2])
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', '(' .. ARGV[3])
redis.call('PEXPIRE', KEYS[1], ARGV[4])
return 1
";

const UPDATE: &str = "
if redis.call('EXISTS', KEYS[1]) == 0 then return 0 end
redis.call('SET', KEYS[1], ARGV[1], 'XX', 'KEEPTTL')
return 1
";

/// What a user proves a session with: 64 hexadecimal digits. Not shown by `Debug`.
#[derive(Clone, PartialEq, Eq)]
pub struct SessionToken(String);

impl SessionToken {
    /// Reads a token that came from outside; anything but 64 lower-case hexadecimal digits is none.
    pub fn parse(text: &str) -> Option<Self> {
        let fits = text.len() == 2 * TOKEN_BYTES
            && text.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte));
        fits.then(|| Self(text.to_owned()))
    }

    /// The token itself, to be given to the user and to nobody else.
    pub fn reveal(&self) -> &str {
        &self.0
    }

    fn random() -> Result<Self, Error> {
        let mut bytes = [0u8; TOKEN_BYTES];
        getrandom::fill(&mut bytes).map_err(|error| {
            Error::new(ErrorKind::Randomness, "the operating system gave no random numbers").caused_by(error)
        })?;
        Ok(Self(hex(&bytes)))
    }

    fn hash(&self) -> String {
        hex(&Sha256::digest(self.0.as_bytes()))
    }
}

impl fmt::Debug for SessionToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SessionToken(..)")
    }
}

/// A session.
#[derive(Clone, Debug, PartialEq)]
pub struct Session {
    /// Names the session without opening it; fit for a list of a user's sessions.
    pub id: String,
    /// Whose it is.
    pub user_id: String,
    /// When it was created.
    pub created_at: Timestamp,
    /// When it ends, however much it is used.
    pub ends_at: Timestamp,
    /// What the service keeps in it.
    pub data: Extra,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Stored {
    user_id: String,
    created_at: Timestamp,
    ends_at: Timestamp,
    #[serde(default)]
    data: Extra,
}

impl Stored {
    fn into_session(self, id: String) -> Session {
        let Self { user_id, created_at, ends_at, data } = self;
        Session { id, user_id, created_at, ends_at, data }
    }
}

/// Sessions of users. Cheap to clone.
///
/// ```no_run
/// # async fn example(sessions: mtcache_trading::SessionStore) -> Result<(), mtcache_trading::Error> {
/// use mtcache_trading::{Extra, SessionToken};
///
/// let (token, _) = sessions.create("ada", Extra::new()).await?;
/// let cookie = token.reveal().to_owned();
/// // Later, with what the browser sent:
/// if let Some(token) = SessionToken::parse(&cookie) && let Some(session) = sessions.get(&token).await? {
///     println!("{} is logged in", session.user_id);
/// }
/// sessions.revoke_all("ada").await?;
/// # Ok(()) }
/// ```
#[derive(Clone, Debug)]
pub struct SessionStore {
    cache: Cache,
    region: Region<Stored>,
    sliding: Duration,
    absolute: Duration,
    clock: Clock,
    add_to_index: Script,
    extend_in_index: Script,
    update: Script,
}

impl SessionStore {
    pub(crate) fn new(cache: &Cache, region: Region<Stored>) -> Self {
        Self {
            cache: cache.clone(),
            sliding: region.policy().ttl,
            region,
            absolute: DEFAULT_ABSOLUTE_LIFE,
            clock: Clock::default(),
            add_to_index: Script::idempotent(ADD_TO_INDEX),
            extend_in_index: Script::idempotent(EXTEND_IN_INDEX),
            update: Script::idempotent(UPDATE),
        }
    }

    /// The same store, whose new sessions live so long at the most. Default: 30 days.
    #[must_use]
    pub fn with_absolute_life(mut self, life: Duration) -> Self {
        self.absolute = life;
        self
    }

    /// The same store with another clock.
    #[must_use]
    pub fn with_clock(mut self, clock: Clock) -> Self {
        self.clock = clock;
        self
    }

    /// Opens a session for a user. The token is in nobody's hands but the caller's.
    pub async fn create(&self, user_id: &str, data: Extra) -> Result<(SessionToken, Session), Error> {
        let index = index_key(user_id)?;
        let token = SessionToken::random()?;
        let id = token.hash();
        let now = self.clock.now();
        let ends_at = Timestamp::from_epoch_seconds(now.epoch_seconds() + self.absolute.as_secs_f64())?;
        let stored = Stored { user_id: user_id.to_owned(), created_at: now.clone(), ends_at, data };
        // The index first: a session that is in no index does not open.
        self.write_index(&self.add_to_index, &index, &id, &now, self.sliding.min(self.absolute)).await?;
        self.region.set_for(&id, &stored, self.sliding.min(self.absolute)).await?;
        Ok((token, stored.into_session(id)))
    }

    /// The session that a token opens, if it is alive; using it extends its life.
    pub async fn get(&self, token: &SessionToken) -> Result<Option<Session>, Error> {
        let id = token.hash();
        let Some(read) = self.region.get_with(&id, ReadOptions::new().with_age()).await? else {
            return Ok(None);
        };
        let (stored, age) = (read.value, read.age);
        let index = index_key(&stored.user_id)?;
        let now = self.clock.now();
        let left = stored.ends_at.left_at(&now);
        if left.is_zero() || self.index(&index)?.score(&id).await?.is_none() {
            // It does not open, whether or not what is left of it can be removed now.
            if let Err(error) = self.region.invalidate(&id).await {
                tracing::debug!(%error, "a dead session's key stays until it expires");
            }
            return Ok(None);
        }
        // A cache that takes no writes now must not log everybody out; the next use tries again.
        if let Err(error) = self.extend(&index, &id, &now, age, left).await {
            tracing::debug!(%error, "a session was not extended");
        }
        Ok(Some(stored.into_session(id)))
    }

    /// Replaces what the service keeps in a session; false if the session is gone. Counts as a use.
    pub async fn update(&self, token: &SessionToken, data: Extra) -> Result<bool, Error> {
        let Some(session) = self.get(token).await? else { return Ok(false) };
        let Session { id, user_id, created_at, ends_at, .. } = session;
        let stored = Stored { user_id, created_at, ends_at, data };
        let bytes = mtcache_cache::codec::encode(&stored)?;
        let reply = self.cache.script(&self.update, &[session_key(&id)], &[bytes]).await?;
        Ok(reply.into_int().map_err(mtcache_cache::Error::from)? == 1)
    }

    /// Ends the session that a token opens; false if there was none.
    pub async fn revoke(&self, token: &SessionToken) -> Result<bool, Error> {
        let id = token.hash();
        let Some(read) = self.region.get(&id).await? else { return Ok(false) };
        self.revoke_id(&read.value.user_id, &id).await
    }

    /// Ends one session of a user by its [`Session::id`]; false if there was none.
    pub async fn revoke_id(&self, user_id: &str, id: &str) -> Result<bool, Error> {
        // The index first: from here on the session does not open, whatever becomes of the second step.
        let listed = self.index(&index_key(user_id)?)?.remove(&[id]).await? > 0;
        if listed {
            self.region.invalidate(id).await?;
        }
        Ok(listed)
    }

    /// Ends all sessions of a user, at once; says how many were alive.
    pub async fn revoke_all(&self, user_id: &str) -> Result<u64, Error> {
        let index = index_key(user_id)?;
        let ids = self.ids(&index).await?;
        self.cache.delete(&[&index]).await?;
        // They no longer open; this only frees their memory sooner.
        let keys: Vec<String> = ids.iter().map(|id| session_key(id)).collect();
        Ok(self.cache.delete(&keys).await?)
    }

    /// The living sessions of a user, the one to end last first.
    pub async fn list(&self, user_id: &str) -> Result<Vec<Session>, Error> {
        let ids = self.ids(&index_key(user_id)?).await?;
        let now = self.clock.now();
        let reads = self.region.get_many(&ids).await?;
        let alive = ids.into_iter().zip(reads).filter_map(|(id, read)| {
            let stored = read?.value;
            (stored.ends_at > now).then(|| stored.into_session(id))
        });
        Ok(alive.collect())
    }

    async fn extend(
        &self,
        index: &str,
        id: &str,
        now: &Timestamp,
        age: Age,
        left: Duration,
    ) -> Result<(), Error> {
        let life = self.sliding.min(left);
        let remaining = match age {
            Age::Exact(age) | Age::AtMost(age) => self.sliding.saturating_sub(age),
            // Somebody took the expiry away, or gave a longer one.
            Age::Unknown => Duration::ZERO,
        };
        // A life of a minute or less would else run out before the minute has.
        if remaining + REARM_AFTER.min(life / 2) > life && !matches!(age, Age::Unknown) {
            return Ok(());
        }
        // The index first, so that it never forgets a session that lives.
        self.write_index(&self.extend_in_index, index, id, now, life).await?;
        self.region.expire(id, life).await?;
        Ok(())
    }

    async fn write_index(
        &self,
        script: &Script,
        index: &str,
        id: &str,
        now: &Timestamp,
        life: Duration,
    ) -> Result<(), Error> {
        let now = now.epoch_seconds();
        let args = [
            (now + life.as_secs_f64()).to_string().into_bytes(),
            id.as_bytes().to_vec(),
            (now - INDEX_MARGIN.as_secs_f64()).to_string().into_bytes(),
            (self.sliding + INDEX_MARGIN).as_millis().to_string().into_bytes(),
        ];
        self.cache.script(script, &[index], &args).await?;
        Ok(())
    }

    /// Identities that may still be alive, the one to end last first.
    async fn ids(&self, index: &str) -> Result<Vec<String>, Error> {
        let oldest = self.clock.now().epoch_seconds() - INDEX_MARGIN.as_secs_f64();
        let range = ScoreRange::new(Bound::Including(oldest), Bound::Open)?;
        let entries = self.index(index)?.range_by_score(range, Order::Descending, 0, None).await?;
        Ok(entries.into_iter().map(|(id, _)| id).collect())
    }

    fn index(&self, key: &str) -> Result<SortedSetView, Error> {
        Ok(self.cache.sorted_set(key)?)
    }
}

fn session_key(id: &str) -> String {
    format!("session:{id}")
}

fn index_key(user_id: &str) -> Result<String, Error> {
    if user_id.is_empty() {
        return Err(Error::new(ErrorKind::InvalidKey, "a session needs a user; the user id is empty"));
    }
    Ok(format!("session_index:{user_id}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_256_random_bits_and_debug_hides_them() {
        let (one, two) = (SessionToken::random().unwrap(), SessionToken::random().unwrap());
        assert_ne!(one, two);
        assert_eq!(one.reveal().len(), 64);
        assert_eq!(SessionToken::parse(one.reveal()), Some(one.clone()));
        assert!(!format!("{one:?}").contains(one.reveal()));
        assert_ne!(one.hash(), one.reveal());
    }

    #[test]
    fn what_is_no_token_is_refused_before_anything_is_asked() {
        for text in ["", "abc", &"g".repeat(64), &"A".repeat(64), &"a".repeat(65)] {
            assert_eq!(SessionToken::parse(text), None);
        }
    }
}
