//! Expiries: EXPIRE and its family, TTL and its family, PERSIST.
//!
//! An expiry is kept as the moment in milliseconds at which it ends, and goes to the journal as that. One that lies in the
//! past deletes the key at once, and goes to the journal as the deletion.

use mtcache_protocol::Reply;

use super::Locks::Keys;
use super::Row;
use super::parse::{self, Since, Unit};
use crate::context::{Ctx, Origin};
use crate::error::{CommandError, CommandResult};
use crate::notify::Class;
use crate::time::UnixMillis;

pub(super) const TABLE: &[Row] = &[
    ("expire", Keys, expire),
    ("pexpire", Keys, pexpire),
    ("expireat", Keys, expireat),
    ("pexpireat", Keys, pexpireat),
    ("ttl", Keys, ttl),
    ("pttl", Keys, pttl),
    ("expiretime", Keys, expiretime),
    ("pexpiretime", Keys, pexpiretime),
    ("persist", Keys, persist),
];

fn expire(ctx: &mut Ctx<'_, '_>, args: &[&[u8]], out: &mut Reply) -> CommandResult {
    expire_generic(ctx, args, Unit::Seconds, Since::Now, "expire", out)
}

fn pexpire(ctx: &mut Ctx<'_, '_>, args: &[&[u8]], out: &mut Reply) -> CommandResult {
    expire_generic(ctx, args, Unit::Millis, Since::Now, "pexpire", out)
}

fn expireat(ctx: &mut Ctx<'_, '_>, args: &[&[u8]], out: &mut Reply) -> CommandResult {
    expire_generic(ctx, args, Unit::Seconds, Since::Epoch, "expireat", out)
}

fn pexpireat(ctx: &mut Ctx<'_, '_>, args: &[&[u8]], out: &mut Reply) -> CommandResult {
    expire_generic(ctx, args, Unit::Millis, Since::Epoch, "pexpireat", out)
}

fn expire_generic(
    ctx: &mut Ctx<'_, '_>,
    args: &[&[u8]],
    unit: Unit,
    since: Since,
    command: &str,
    out: &mut Reply,
) -> CommandResult {
    let key = args[1];
    let conditions = Conditions::parse(&args[3..])?;
    let given = parse::integer(args[2])?;
    let at =
        parse::moment(given, unit, since, ctx.now).ok_or_else(|| CommandError::invalid_expire(command))?;
    let present = ctx.write(key).map(|entry| entry.expires_at());
    let allowed = present.is_some_and(|current| conditions.allow(current, at));
    if allowed {
        // A moment before the epoch is as past as any.
        expire_at(ctx, key, UnixMillis(u64::try_from(at).unwrap_or_default()));
    }
    out.integer(i64::from(allowed));
    Ok(())
}

/// Makes a key that is there expire at `at`: deletes it at once when that has passed.
pub(super) fn expire_at(ctx: &mut Ctx<'_, '_>, key: &[u8], at: UnixMillis) {
    // A replay decides nothing by the clock: the journal says what was deleted.
    if at <= ctx.now && ctx.origin != Origin::Replay {
        ctx.delete(key);
        ctx.removed(key);
        ctx.journal_as(&[b"DEL", key]);
        return;
    }
    ctx.set_expires_at(key, Some(at));
    ctx.modified(key, Class::Generic, "expire");
    let mut digits = itoa::Buffer::new();
    ctx.journal_as(&[b"PEXPIREAT", key, digits.format(at.0).as_bytes()]);
}

/// When an EXPIRE may change what is there.
#[derive(Default)]
#[allow(clippy::struct_excessive_bools, reason = "four words that may come in any selection")]
struct Conditions {
    nx: bool,
    xx: bool,
    gt: bool,
    lt: bool,
}

impl Conditions {
    fn parse(args: &[&[u8]]) -> Result<Self, CommandError> {
        let mut conditions = Self::default();
        for option in args {
            if parse::is(option, "nx") {
                conditions.nx = true;
            } else if parse::is(option, "xx") {
                conditions.xx = true;
            } else if parse::is(option, "gt") {
                conditions.gt = true;
            } else if parse::is(option, "lt") {
                conditions.lt = true;
            } else {
                return Err(CommandError::unsupported_option(option));
            }
        }
        if conditions.nx && (conditions.xx || conditions.gt || conditions.lt) {
            return Err(CommandError::new(
                "ERR NX and XX, GT or LT options at the same time are not compatible",
            ));
        }
        if conditions.gt && conditions.lt {
            return Err(CommandError::new("ERR GT and LT options at the same time are not compatible"));
        }
        Ok(conditions)
    }

    /// A key without expiry counts as one that expires after any other.
    fn allow(&self, current: Option<UnixMillis>, at: i64) -> bool {
        let current = current.map(|current| i64::try_from(current.0).unwrap_or(i64::MAX));
        !(self.nx && current.is_some()
            || self.xx && current.is_none()
            || self.gt && current.is_none_or(|current| at <= current)
            || self.lt && current.is_some_and(|current| at >= current))
    }
}

fn ttl(ctx: &mut Ctx<'_, '_>, args: &[&[u8]], out: &mut Reply) -> CommandResult {
    let now = ctx.now;
    report(ctx, args[1], out, |at| rounded_seconds(at.since(now)))
}

fn pttl(ctx: &mut Ctx<'_, '_>, args: &[&[u8]], out: &mut Reply) -> CommandResult {
    let now = ctx.now;
    report(ctx, args[1], out, |at| at.since(now))
}

fn expiretime(ctx: &mut Ctx<'_, '_>, args: &[&[u8]], out: &mut Reply) -> CommandResult {
    report(ctx, args[1], out, |at| rounded_seconds(at.0))
}

fn pexpiretime(ctx: &mut Ctx<'_, '_>, args: &[&[u8]], out: &mut Reply) -> CommandResult {
    report(ctx, args[1], out, |at| at.0)
}

fn rounded_seconds(millis: u64) -> u64 {
    millis.saturating_add(500) / 1000
}

/// Answers -2 without the key, -1 without an expiry, and `show` of the expiry with one.
fn report(
    ctx: &mut Ctx<'_, '_>,
    key: &[u8],
    out: &mut Reply,
    show: impl FnOnce(UnixMillis) -> u64,
) -> CommandResult {
    out.integer(match ctx.look(key) {
        None => -2,
        Some(entry) => match entry.expires_at() {
            None => -1,
            Some(at) => i64::try_from(show(at)).unwrap_or(i64::MAX),
        },
    });
    Ok(())
}

fn persist(ctx: &mut Ctx<'_, '_>, args: &[&[u8]], out: &mut Reply) -> CommandResult {
    let expires = ctx.write(args[1]).is_some_and(|entry| entry.expires_at().is_some());
    if expires {
        ctx.set_expires_at(args[1], None);
        ctx.modified(args[1], Class::Generic, "persist");
    }
    out.integer(i64::from(expires));
    Ok(())
}
