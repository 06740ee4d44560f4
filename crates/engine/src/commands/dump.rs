//! DUMP and RESTORE: a value as bytes that another server understands, and back.
//!
//! RESTORE goes to the journal with its expiry as a moment. A payload is looked through completely before anything is
//! changed.

use mtcache_protocol::Reply;

use super::Locks::Keys;
use super::{Row, parse};
use crate::context::{Ctx, Origin};
use crate::error::{CommandError, CommandResult};
use crate::keyspace::Entry;
use crate::notify::Class;
use crate::rdb;
use crate::time::UnixMillis;

pub(super) const TABLE: &[Row] =
    &[("dump", Keys, dump), ("restore", Keys, restore), ("restore-asking", Keys, restore)];

fn dump(ctx: &mut Ctx<'_, '_>, args: &[&[u8]], out: &mut Reply) -> CommandResult {
    let settings = &ctx.engine.settings;
    let (limits, compression) = (settings.encoding_limits(), settings.rdb_compression());
    match ctx.read(args[1]) {
        Some(entry) => out.bulk(&rdb::dump(entry.value(), &limits, compression)),
        None => out.null(),
    }
    Ok(())
}

/// What follows the payload.
#[derive(Default)]
struct Options {
    replace: bool,
    absolute: bool,
    idle_seconds: Option<u64>,
    counter: Option<u8>,
}

impl Options {
    fn parse(args: &[&[u8]]) -> Result<Self, CommandError> {
        let mut options = Self::default();
        let mut args = args.iter();
        while let Some(arg) = args.next() {
            if parse::is(arg, "replace") {
                options.replace = true;
            } else if parse::is(arg, "absttl") {
                options.absolute = true;
            } else if parse::is(arg, "idletime")
                && options.counter.is_none()
                && let Some(seconds) = args.next()
            {
                let seconds = parse::integer(seconds)?;
                options.idle_seconds =
                    Some(u64::try_from(seconds).map_err(|_| CommandError::INVALID_IDLE_TIME)?);
            } else if parse::is(arg, "freq")
                && options.idle_seconds.is_none()
                && let Some(counter) = args.next()
            {
                let counter = parse::integer(counter)?;
                options.counter = Some(u8::try_from(counter).map_err(|_| CommandError::INVALID_FREQ)?);
            } else {
                return Err(CommandError::SYNTAX);
            }
        }
        Ok(options)
    }

    /// The moment at which the key expires; `None` for never.
    fn expires_at(&self, ttl: &[u8], now: UnixMillis) -> Result<Option<UnixMillis>, CommandError> {
        let ttl = u64::try_from(parse::integer(ttl)?).map_err(|_| CommandError::INVALID_TTL)?;
        Ok(match ttl {
            0 => None,
            _ if self.absolute => Some(UnixMillis(ttl)),
            _ => Some(UnixMillis(now.0.saturating_add(ttl))),
        })
    }
}

fn restore(ctx: &mut Ctx<'_, '_>, args: &[&[u8]], out: &mut Reply) -> CommandResult {
    let (key, payload) = (args[1], args[3]);
    let options = Options::parse(&args[4..])?;
    if !options.replace && ctx.exists(key) {
        return Err(CommandError::BUSY_KEY);
    }
    let expires_at = options.expires_at(args[2], ctx.now)?;
    let limits = ctx.engine.settings.encoding_limits();
    let object = rdb::undump(payload, &limits).map_err(|bad| match bad {
        rdb::BadPayload::Footer => CommandError::BAD_PAYLOAD,
        rdb::BadPayload::Content(rdb::Fault::Unsupported(name)) => {
            CommandError::new(format!("ERR Bad data format: {name} is not supported by this version"))
        }
        rdb::BadPayload::Content(_) => CommandError::BAD_DATA,
    })?;
    let deleted = options.replace && ctx.delete(key);
    // A journal that is replayed says itself what has expired since.
    let is_past = ctx.origin != Origin::Replay && expires_at.is_some_and(|at| at <= ctx.now);
    if is_past {
        if deleted {
            ctx.journal_as(&[b"DEL", key]);
            ctx.removed(key);
        }
        out.ok();
        return Ok(());
    }
    let access = ctx.engine.settings.access_clock(ctx.now).restored(options.idle_seconds, options.counter);
    ctx.put_entry(ctx.db(), Entry::of_object(key, object, expires_at, access));
    if let Some(at) = expires_at
        && !options.absolute
    {
        journal_moment(ctx, args, at);
    }
    ctx.modified(key, Class::Generic, "restore");
    out.ok();
    Ok(())
}

/// Journals the command with the moment of its expiry in place of the time until then.
fn journal_moment(ctx: &mut Ctx<'_, '_>, args: &[&[u8]], at: UnixMillis) {
    let mut digits = itoa::Buffer::new();
    let mut given = args.to_vec();
    given[2] = digits.format(at.0).as_bytes();
    given.push(b"ABSTTL");
    ctx.journal_as(&given);
}
