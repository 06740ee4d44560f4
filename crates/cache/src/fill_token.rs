//! Fill tokens: what keeps a load that began before a set or an invalidation from storing after it.
//!
//! The protocol (contract 3; its model is `tests/model_fill_token.rs`): a load begins by taking a random token in the slot of its
//! key, or by joining the one that is there. A set or an invalidation deletes the token in its own atomic step. A fill stores only if its token is still there and the key is
//! as the load found it, and removes the token. Equality of random tokens decides; no clocks are compared, and a token that
//! expired or was evicted only refuses a fill. Joining is safe because a token that is there proves that nothing was set or
//! invalidated since it was taken. A lease is a token that is not joined (`lease.rs`; `tests/model_lease.rs`).
//!
//! Deliberately absent: who loads (`single_flight.rs`) and in what order (`read_through.rs`).

use std::sync::LazyLock;
use std::time::{Duration, Instant};

use mtcache_link::{Reply, Script};

use crate::backend::{Backend, Bytes, CachedKey, ScriptCall};
use crate::error::{Error, ErrorKind, Result};
use crate::frame;
use crate::framed;
use crate::refresh::Due;
use crate::slot::{bookkeeping_key, key_of};
use crate::ttl::{self, TimeLeft, Ttl};

/// How much longer a token lives than the longest load.
pub(crate) const TOKEN_MARGIN: Duration = Duration::from_secs(30);

/// What the token of a lease begins with.
const LEASE_MARK: &str = "L";

/// How often a load asks for a token whose answer does not come, before it goes on without one.
const BEGIN_TRIES: usize = 3;
const NOT_TRIED: &str = "no attempt to begin a load was made";

/// KEYS: key, token. ARGV: a new token, the token's TTL in ms, and the range that the key's time left must be in for its plain value to
/// do; a lower bound of -1 takes any value; 1 if the token is to be nobody else's; the token of an attempt before this one whose answer
/// did not come, or nothing; how old in ms a frame may be, by its own account, and the run of the server whose time it must have. Answers {1, value, ms left}, {2, ms left of another's token} or {0, value or nil, ms left, token, the
/// backend's time in seconds and the microseconds beyond}.
///
/// Who joins a lease does not lengthen it: for how long its holder is waited for is for the holder's region to say. With 2 in place of 1 a
/// lease is taken, but a token that is none is joined.
///
/// To refresh ahead of time there are a third key, that of the value's rest, and the part of its life for which it is left alone. Answers
/// {3, value, ms left, ms of rest} while it is; a frame says that itself. A rest that would outlive the value was another's, or the value's life was
/// cut short since.
///
/// Not idempotent: sent again, and late, it would put back a token that a write has deleted, so each attempt has a token of its own.
static BEGIN: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        "local value = redis.call('GET', KEYS[1])\n\
         local left = -2\n\
         if value then\n\
           left = redis.call('PTTL', KEYS[1])\n\
           local least = tonumber(ARGV[3])\n\
           local will_do = least < 0 or (left >= least and left <= tonumber(ARGV[4]))\n\
           local rest = KEYS[3] and redis.call('PTTL', KEYS[3]) or 0\n\
           if least >= 0 and string.sub(value, 1, 2) == '\\193\\1' and #value >= 48 then\n\
             local now = redis.call('TIME')\n\
             local by_clock = now[1] * 1000 + now[2] / 1000 - struct.unpack('>I8', value, 9) / 1000\n\
             local gone = struct.unpack('>I8', value, 17) + struct.unpack('>I8', value, 25) - left\n\
             will_do = left >= 0 and by_clock >= 0 and gone >= 0 and string.sub(value, 41, 48) == ARGV[8]\n\
               and math.max(by_clock, gone) <= tonumber(ARGV[7])\n\
             if KEYS[3] and left >= 0 and gone >= 0 then\n\
               rest = math.floor(struct.unpack('>I8', value, 17) * ARGV[9] - gone)\n\
             end\n\
           end\n\
           if rest > 0 and rest <= left then return {3, value, left, rest} end\n\
           if will_do then return {1, value, left} end\n\
         end\n\
         local token = redis.call('GET', KEYS[2])\n\
         if not token or token == ARGV[6] then\n\
           token = ARGV[1]\n\
           redis.call('SET', KEYS[2], token, 'PX', ARGV[2])\n\
         elseif ARGV[5] == '1' or (ARGV[5] == '2' and string.sub(token, 1, 1) == 'L') then\n\
           return {2, redis.call('PTTL', KEYS[2])}\n\
         elseif string.sub(token, 1, 1) ~= 'L' and redis.call('PTTL', KEYS[2]) < tonumber(ARGV[2]) then\n\
           redis.call('PEXPIRE', KEYS[2], ARGV[2])\n\
         end\n\
         local now = redis.call('TIME')\n\
         return {0, value, left, token, now[1], now[2]}\n",
    )
});

/// KEYS: token. ARGV: the token, its new TTL in ms. Answers 1 if it was there.
static RENEW: LazyLock<Script> = LazyLock::new(|| {
    Script::idempotent(
        "if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end\n\
         return redis.call('PEXPIRE', KEYS[1], ARGV[2])\n",
    )
});

/// KEYS: token. ARGV: the token. Sent twice it finds nothing of its own.
static RELEASE: LazyLock<Script> = LazyLock::new(|| {
    Script::idempotent(
        "if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end\n\
         return redis.call('DEL', KEYS[1])\n",
    )
});

/// KEYS: key, token. ARGV: the token, the value, the TTL in ms that it would have had when its load began, 1 if the load found a
/// value, that value, how long ago in ms the load began by the loader's clock, the two times that BEGIN answered, the shortest TTL in ms.
///
/// A value lives for its TTL less its age, so that what is left of its TTL always bounds its age. The loader's clock does not see how
/// long the fill is on its way, the backend's clock may have been set back or be another's after a failover: the longer time counts, and
/// a wrong one can only make the value go sooner.
///
/// For a frame two ARGV more are there: then the value goes up to its time, the first of the two is the rest of it, and the second by
/// how many ms the key outlives its TTL. For a plain value that is not to be refreshed before a part of its own life has passed, a third key
/// is set for the ms of the one ARGV more.
///
/// Answers 1 if it stored, 0 if the token is another or gone, 2 if the key is not as it was found, 3 if nothing is left of the TTL; then
/// the token stays for others who joined it.
static FILL: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        "if redis.call('GET', KEYS[2]) ~= ARGV[1] then return 0 end\n\
         local now = redis.call('TIME')\n\
         local age = (now[1] - ARGV[7]) * 1000 + math.ceil((now[2] - ARGV[8]) / 1000)\n\
         age = math.max(age, tonumber(ARGV[6]))\n\
         local ttl = ARGV[3] - age\n\
         if ttl < tonumber(ARGV[9]) then return 3 end\n\
         local value = redis.call('GET', KEYS[1])\n\
         redis.call('DEL', KEYS[2])\n\
         if ARGV[4] == '1' then\n\
           if value ~= ARGV[5] then return 2 end\n\
         elseif value then\n\
           return 2\n\
         end\n\
         local stored = ARGV[2]\n\
         if ARGV[11] then\n\
           local began = (now[1] * 1000 - age) * 1000 + now[2]\n\
           stored = stored .. struct.pack('>I8', began) .. ARGV[10]\n\
           ttl = ttl + ARGV[11]\n\
         end\n\
         redis.call('SET', KEYS[1], stored, 'PX', string.format('%d', ttl))\n\
         if KEYS[3] then redis.call('SET', KEYS[3], '1', 'PX', ARGV[10]) end\n\
         return 1\n",
    )
});

/// The key that is there while a key's plain value, which lives shorter than its region's TTL, is not to be refreshed.
pub(crate) fn rest_key(key: &[u8]) -> Bytes {
    bookkeeping_key("rest", key)
}

/// The key of a key's fill token, in the same slot.
pub(crate) fn token_key(key: &[u8]) -> Bytes {
    bookkeeping_key("fill", key)
}

/// What every token key begins with.
pub(crate) fn token_prefix() -> &'static [u8] {
    b"mtcache:fill:{"
}

/// The key that this is the token key of, if it is one.
pub(crate) fn key_of_token(token: &[u8]) -> Option<&[u8]> {
    key_of("fill", token)
}

/// A load that may store, if nothing comes in between.
#[derive(Debug)]
pub(crate) struct Permit {
    token: Bytes,
    found: Option<Bytes>,
    found_left: TimeLeft,
    /// The backend's time when the load began: seconds, and microseconds beyond.
    began: [Bytes; 2],
    sharing: Sharing,
}

impl Permit {
    /// What the load found that would not do, and what was left of its life.
    pub(crate) fn found(&self) -> Option<(&[u8], TimeLeft)> {
        Some((self.found.as_deref()?, self.found_left))
    }

    /// The token, if nobody else may load under it.
    pub(crate) fn lease(&self) -> Option<&[u8]> {
        (self.sharing == Sharing::Exclusive).then_some(&self.token)
    }
}

/// A value that a load found when it was to begin.
#[derive(Debug)]
pub(crate) struct Present {
    pub(crate) bytes: Bytes,
    /// Of its life, at a moment after it was asked for.
    pub(crate) left: TimeLeft,
    /// When it was asked for.
    pub(crate) sent: Instant,
}

/// What beginning a load found.
#[derive(Debug)]
pub(crate) enum Begun {
    /// A value that will do is there already.
    Found(Present),
    /// A value is there that is to be left alone for so long.
    Rests(Present, Duration),
    /// The load may go on.
    Load(Permit),
    /// Somebody else holds the lease, for so long if he does not renew it.
    Held(Duration),
}

/// Who else may load under the same token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sharing {
    /// Whoever begins while it is there.
    Joined,
    /// Nobody: it is a lease.
    Exclusive,
    /// Nobody; but one that is there and no lease is joined.
    Refreshing,
}

/// What a fill stores.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Stored<'a> {
    Plain(&'a [u8]),
    /// The backend writes the time into the frame. The key outlives its TTL by the stale window.
    Framed {
        frame: &'a [u8],
        stale_window: Duration,
    },
}

/// How a fill ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fill {
    Stored,
    /// The key was set or invalidated since the load began, or the token is lost.
    Refused,
    /// The load took as long as the value may live. Nothing was set or invalidated since it began.
    TooLate,
}

/// Which value that is there already will do.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Suffices {
    Any,
    /// None: load in any case.
    Nothing,
    /// Only one no older than `max_age`: a plain one as if it was stored with the region's TTL, a frame by its own time.
    Within {
        ttl: Duration,
        max_age: Duration,
    },
    /// To refresh ahead of time what had so much of its life left: one that has been stored since, which a plain one shows by having more left,
    /// a frame by its age; and one that is not due.
    Ahead {
        seen_left: Duration,
        max_age: Duration,
        due: Due,
    },
}

/// By so much more is left of a value that was stored again than of the one that was seen: the answer that told of it was on its way.
const STORED_SINCE: Duration = Duration::from_millis(20);

/// The second look and the start of a load, as one atomic step.
pub(crate) async fn begin(
    backend: &Backend,
    key: &CachedKey,
    token_ttl: Duration,
    suffices: Suffices,
    sharing: Sharing,
) -> Result<Begun> {
    let begun = begin_many(backend, &[(key, suffices)], token_ttl, sharing).await.pop();
    begun.unwrap_or_else(|| Err(Error::protocol(NOT_TRIED)))
}

/// What was begun, unless a frame was judged by the clock of another server than the one whose run was named: one that has refused the
/// script has handed it on to its successor.
fn judged(begun: Begun, suffices: Suffices, named: u64, now: u64) -> Result<Begun> {
    match (&begun, suffices) {
        (Begun::Found(Present { bytes, .. }), Suffices::Within { .. } | Suffices::Ahead { .. })
            if frame::is_framed(bytes) && named != now =>
        {
            Err(Error::new(
                ErrorKind::ConnectionLost,
                "another server has answered than the one that was asked",
            ))
        }
        _ => Ok(begun),
    }
}

/// As [`begin`], for several keys in one go; each its own step, with its own outcome.
pub(crate) async fn begin_many(
    backend: &Backend,
    keys: &[(&CachedKey, Suffices)],
    token_ttl: Duration,
    sharing: Sharing,
) -> Vec<Result<Begun>> {
    let mut outcomes: Vec<_> = keys.iter().map(|_| Err(Error::protocol(NOT_TRIED))).collect();
    let mut open: Vec<(usize, Option<Bytes>)> = (0..keys.len()).map(|place| (place, None)).collect();
    for last in (0..BEGIN_TRIES).rev().map(|left| left == 0) {
        let mut asked = Vec::with_capacity(open.len());
        let mut calls = Vec::with_capacity(open.len());
        for (place, unanswered) in open {
            let Some((key, suffices)) = keys.get(place) else { continue };
            let (token, run) = (fresh_token(sharing), backend.run_of(&key.key));
            calls.push(begin_call(key, run, token.clone(), token_ttl, *suffices, sharing, unanswered));
            asked.push((place, key, *suffices, token, run));
        }
        let sent = Instant::now();
        let replies = run_each(backend, &BEGIN, &calls).await;
        let mut again = Vec::new();
        for ((place, key, suffices, token, run), reply) in asked.into_iter().zip(replies) {
            let outcome = reply.and_then(|reply| begun(reply, sharing, sent));
            let outcome = outcome.and_then(|begun| judged(begun, suffices, run, backend.run_of(&key.key)));
            // After a timeout its caller has waited long enough.
            if !last && outcome.as_ref().is_err_and(|error| error.kind() == ErrorKind::ConnectionLost) {
                // A token that others may have joined is joined again; a lease that only we can hold is taken anew.
                again.push((place, (sharing != Sharing::Joined).then_some(token)));
            }
            if let Some(stands) = outcomes.get_mut(place) {
                *stands = outcome;
            }
        }
        if again.is_empty() {
            break;
        }
        open = again;
    }
    outcomes
}

/// The outcome of each of these calls; if all failed together, each has that error.
async fn run_each(backend: &Backend, script: &Script, calls: &[ScriptCall]) -> Vec<Result<Reply>> {
    if let [call] = calls {
        return vec![backend.script(script, &call.keys, &call.args).await];
    }
    match backend.scripts(script, calls).await {
        Ok(replies) => replies.into_iter().map(|reply| Ok(reply.ok()?)).collect(),
        Err(error) => calls.iter().map(|_| Err(error.clone())).collect(),
    }
}

fn begin_call(
    key: &CachedKey,
    run: u64,
    token: Bytes,
    token_ttl: Duration,
    suffices: Suffices,
    sharing: Sharing,
    unanswered: Option<Bytes>,
) -> ScriptCall {
    let (least, most, oldest) = match suffices {
        Suffices::Any => (-1, -1, -1),
        Suffices::Nothing => (i64::MAX, -1, -1),
        Suffices::Within { ttl, max_age } => {
            // At least 1: a key that is about to go has -2 or 0 left in some backends' rounding.
            (millis(ttl.saturating_sub(max_age)).max(1), millis(ttl), millis(max_age))
        }
        Suffices::Ahead { seen_left, max_age, .. } => {
            (millis(seen_left + STORED_SINCE), i64::MAX, millis(max_age))
        }
    };
    let mut keys = vec![key.key.clone(), key.token.clone()];
    let mut args = vec![
        token,
        millis(token_ttl).to_string().into_bytes(),
        least.to_string().into_bytes(),
        most.to_string().into_bytes(),
        match sharing {
            Sharing::Joined => b"0".to_vec(),
            Sharing::Exclusive => b"1".to_vec(),
            Sharing::Refreshing => b"2".to_vec(),
        },
        unanswered.unwrap_or_default(),
        oldest.to_string().into_bytes(),
        // Of an unknown run is no frame, also one that was stored by an unknown run.
        if run == 0 { Bytes::new() } else { run.to_be_bytes().to_vec() },
    ];
    if let Suffices::Ahead { due: Due::IfPast { part }, .. } = suffices {
        keys.push(rest_key(&key.key));
        args.push(part.to_string().into_bytes());
    }
    ScriptCall { keys, args }
}

fn begun(reply: Reply, sharing: Sharing, sent: Instant) -> Result<Begun> {
    let mut parts = reply.into_array()?.into_iter();
    let mut next = || parts.next().unwrap_or(Reply::Nil);
    let answer = next().into_int()?;
    if answer == 2 {
        let left = u64::try_from(next().into_int()?).unwrap_or(0);
        return Ok(Begun::Held(Duration::from_millis(left)));
    }
    let value = next().into_bytes()?;
    let left = TimeLeft::from_pttl(next().into_int()?);
    match value {
        Some(bytes) if answer == 1 => Ok(Begun::Found(Present { bytes, left, sent })),
        Some(bytes) if answer == 3 => {
            let rest = u64::try_from(next().into_int()?).unwrap_or(0);
            Ok(Begun::Rests(Present { bytes, left, sent }, Duration::from_millis(rest)))
        }
        found => {
            let token = next().into_bytes()?.ok_or_else(|| Error::protocol("no token was handed out"))?;
            // One that others have taken, and that was joined, is no lease of ours.
            let is_ours = sharing != Sharing::Joined && token.starts_with(LEASE_MARK.as_bytes());
            let sharing = if is_ours { Sharing::Exclusive } else { Sharing::Joined };
            let mut time = || next().into_bytes()?.ok_or_else(|| Error::protocol("the time is missing"));
            Ok(Begun::Load(Permit { token, found, found_left: left, began: [time()?, time()?], sharing }))
        }
    }
}

/// A token and the key that it is for.
#[derive(Clone, Debug)]
pub(crate) struct Token {
    pub(crate) key: CachedKey,
    pub(crate) token: Bytes,
}

/// Lengthens tokens' lives; false for one that is gone or another's.
pub(crate) async fn renew(backend: &Backend, tokens: &[Token], ttl: Duration) -> Vec<Result<bool>> {
    let ttl = millis(ttl).to_string().into_bytes();
    let calls: Vec<_> = tokens.iter().map(|held| held.call([ttl.clone()])).collect();
    run_each(backend, &RENEW, &calls).await.into_iter().map(|reply| Ok(reply?.into_int()? == 1)).collect()
}

/// Takes tokens away, unless they are others'.
pub(crate) async fn release(backend: &Backend, tokens: &[Token]) -> Result<()> {
    let calls: Vec<_> = tokens.iter().map(|held| held.call([])).collect();
    run_each(backend, &RELEASE, &calls).await.into_iter().try_for_each(|reply| reply.map(drop))
}

impl Token {
    fn call(&self, more: impl IntoIterator<Item = Bytes>) -> ScriptCall {
        let args = std::iter::once(self.token.clone()).chain(more).collect();
        ScriptCall { keys: vec![self.key.token.clone()], args }
    }
}

/// What [`fill`] is to store.
pub(crate) struct Filling<'a> {
    pub(crate) key: &'a CachedKey,
    pub(crate) permit: Permit,
    pub(crate) value: Stored<'a>,
    /// Counts from when the load began; none for a value that is not to be stored, where all that is wanted is whether something came in between.
    pub(crate) ttl: Option<Ttl>,
    /// For how long from then on a value that lives shorter than others is not refreshed; a frame says that itself.
    pub(crate) rest: Option<Duration>,
}

/// Stores what one load has brought, if nothing came in between; each key its own step, with its own outcome.
pub(crate) async fn fill(backend: &Backend, fillings: Vec<Filling<'_>>, began: Instant) -> Vec<Result<Fill>> {
    let elapsed = began.elapsed();
    let calls: Vec<_> = fillings.into_iter().map(|filling| fill_call(filling, elapsed)).collect();
    run_each(backend, &FILL, &calls).await.into_iter().map(|reply| filled(reply?)).collect()
}

fn fill_call(filling: Filling<'_>, elapsed: Duration) -> ScriptCall {
    let Filling { key, permit, value, ttl, rest } = filling;
    let rest = rest.map(|rest| millis(rest.saturating_sub(elapsed))).filter(|rest| *rest > 0);
    // Rounded up: a value must not look younger than it is.
    let elapsed = millis(elapsed) + 1;
    let shortest = millis(ttl::SHORTEST);
    let ttl = ttl.map_or(0, |ttl| millis(ttl.as_duration()));
    // The script is asked in any case whether the token is there; the value it need not see.
    let value = if ttl - elapsed < shortest { Stored::Plain(&[]) } else { value };
    let (head, tail) = match value {
        Stored::Plain(value) => (value, None),
        Stored::Framed { frame, stale_window } => {
            let (head, tail) = framed::parts(frame);
            (head, Some([tail.to_vec(), millis(stale_window).to_string().into_bytes()]))
        }
    };
    let refresh = permit.found.is_some();
    let [seconds, micros] = permit.began;
    let mut args = vec![
        permit.token,
        head.to_vec(),
        ttl.to_string().into_bytes(),
        if refresh { b"1".to_vec() } else { b"0".to_vec() },
        permit.found.unwrap_or_default(),
        elapsed.to_string().into_bytes(),
        seconds,
        micros,
        shortest.to_string().into_bytes(),
    ];
    let mut keys = vec![key.key.clone(), key.token.clone()];
    match (tail, rest) {
        (Some(tail), _) => args.extend(tail),
        (None, Some(rest)) => {
            keys.push(rest_key(&key.key));
            args.push(rest.to_string().into_bytes());
        }
        (None, None) => {}
    }
    ScriptCall { keys, args }
}

fn filled(reply: Reply) -> Result<Fill> {
    match reply.into_int()? {
        1 => Ok(Fill::Stored),
        0 | 2 => Ok(Fill::Refused),
        3 => Ok(Fill::TooLate),
        other => Err(Error::protocol(format!("a fill answered {other}"))),
    }
}

fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

/// 128 random bits in hex, behind an `L` if nobody is to join. Never guessed, never ordered, only compared.
fn fresh_token(sharing: Sharing) -> Bytes {
    let mark = if sharing == Sharing::Joined { "" } else { LEASE_MARK };
    format!("{mark}{:032x}", rand::random::<u128>()).into_bytes()
}
