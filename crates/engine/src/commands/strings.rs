//! Strings: GET, SET and their family.
//!
//! Every command that replaces a value drops its expiry unless it says otherwise. What goes to the journal is the effect:
//! an expiry as a moment, a computed float as its text, a conditional write without its condition.

use mtcache_protocol::Reply;

use super::Locks::Keys;
use super::parse::{self, Since, Unit};
use super::{Row, lcs};
use crate::context::{Ctx, Expiry};
use crate::error::{CommandError, CommandResult};
use crate::float::ExtendedFloat;
use crate::keyspace::{EntryMut, ValueMut};
use crate::notify::Class;
use crate::time::UnixMillis;

pub(super) const TABLE: &[Row] = &[
    ("get", Keys, get),
    ("set", Keys, set),
    ("setnx", Keys, setnx),
    ("setex", Keys, setex),
    ("psetex", Keys, psetex),
    ("getset", Keys, getset),
    ("getdel", Keys, getdel),
    ("getex", Keys, getex),
    ("mget", Keys, mget),
    ("mset", Keys, mset),
    ("msetnx", Keys, msetnx),
    ("append", Keys, append),
    ("strlen", Keys, strlen),
    ("setrange", Keys, setrange),
    ("getrange", Keys, getrange),
    ("substr", Keys, getrange),
    ("incr", Keys, incr),
    ("decr", Keys, decr),
    ("incrby", Keys, incrby),
    ("decrby", Keys, decrby),
    ("incrbyfloat", Keys, incrbyfloat),
    ("lcs", Keys, lcs::lcs),
];

fn get(ctx: &mut Ctx<'_, '_>, args: &[&[u8]], out: &mut Reply) -> CommandResult {
    match ctx.read_string(args[1])? {
        Some(value) => out.bulk(value),
        None => out.null(),
    }
    Ok(())
}

fn set(ctx: &mut Ctx<'_, '_>, args: &[&[u8]], out: &mut Reply) -> CommandResult {
    if args.len() == 3 {
        ctx.set_string(args[1], args[2], Expiry::Clear);
        ctx.modified(args[1], Class::String, "set");
        out.ok();
        return Ok(());
    }
    let options = Options::parse(&args[3..], Accepts::ForSet)?;
    let expiry = match options.expiry {
        GivenExpiry::None => Expiry::Clear,
        GivenExpiry::Keep => Expiry::Keep,
        GivenExpiry::At(arg, unit, since) => Expiry::At(parse::expiry(arg, unit, since, ctx.now, "set")?),
    };
    if options.get {
        get(ctx, args, out)?;
    }
    let refused = match options.condition {
        Condition::Always => false,
        Condition::IfAbsent => ctx.exists(args[1]),
        Condition::IfPresent => !ctx.exists(args[1]),
    };
    if refused {
        if !options.get {
            out.null();
        }
        return Ok(());
    }
    store(ctx, args[1], args[2], expiry);
    if !options.get {
        out.ok();
    }
    Ok(())
}

fn setnx(ctx: &mut Ctx<'_, '_>, args: &[&[u8]], out: &mut Reply) -> CommandResult {
    let absent = !ctx.exists(args[1]);
    if absent {
        ctx.set_string(args[1], args[2], Expiry::Clear);
        ctx.modified(args[1], Class::String, "set");
    }
    out.integer(i64::from(absent));
    Ok(())
}

fn setex(ctx: &mut Ctx<'_, '_>, args: &[&[u8]], out: &mut Reply) -> CommandResult {
    let at = parse::expiry(args[2], Unit::Seconds, Since::Now, ctx.now, "setex")?;
    store(ctx, args[1], args[3], Expiry::At(at));
    out.ok();
    Ok(())
}

fn psetex(ctx: &mut Ctx<'_, '_>, args: &[&[u8]], out: &mut Reply) -> CommandResult {
    let at = parse::expiry(args[2], Unit::Millis, Since::Now, ctx.now, "psetex")?;
    store(ctx, args[1], args[3], Expiry::At(at));
    out.ok();
    Ok(())
}

fn getset(ctx: &mut Ctx<'_, '_>, args: &[&[u8]], out: &mut Reply) -> CommandResult {
    get(ctx, args, out)?;
    store(ctx, args[1], args[2], Expiry::Clear);
    Ok(())
}

fn getdel(ctx: &mut Ctx<'_, '_>, args: &[&[u8]], out: &mut Reply) -> CommandResult {
    get(ctx, args, out)?;
    if ctx.delete(args[1]) {
        ctx.removed(args[1]);
        ctx.journal_as(&[b"DEL", args[1]]);
    }
    Ok(())
}

fn getex(ctx: &mut Ctx<'_, '_>, args: &[&[u8]], out: &mut Reply) -> CommandResult {
    let options = Options::parse(&args[2..], Accepts::ForGetex)?;
    let key = args[1];
    let Some(value) = ctx.read_string(key)? else {
        out.null();
        return Ok(());
    };
    out.bulk(value);
    if options.persist {
        if ctx.expires_at(key).is_some() {
            ctx.set_expires_at(key, None);
            ctx.modified(key, Class::Generic, "persist");
            ctx.journal_as(&[b"PERSIST", key]);
        }
    } else if let GivenExpiry::At(arg, unit, since) = options.expiry {
        let at = parse::expiry(arg, unit, since, ctx.now, "getex")?;
        super::expire::expire_at(ctx, key, at);
    }
    Ok(())
}

fn mget(ctx: &mut Ctx<'_, '_>, args: &[&[u8]], out: &mut Reply) -> CommandResult {
    out.array(args.len() - 1);
    for key in &args[1..] {
        if out.is_over() {
            break;
        }
        match ctx.read_string(key) {
            Ok(Some(value)) => out.bulk(value),
            Ok(None) | Err(_) => out.null(),
        }
    }
    Ok(())
}

fn mset(ctx: &mut Ctx<'_, '_>, args: &[&[u8]], out: &mut Reply) -> CommandResult {
    set_pairs(ctx, pairs(args, "mset")?);
    out.ok();
    Ok(())
}

fn msetnx(ctx: &mut Ctx<'_, '_>, args: &[&[u8]], out: &mut Reply) -> CommandResult {
    let pairs = pairs(args, "msetnx")?;
    let free = !pairs.iter().any(|[key, _]| ctx.exists(key));
    if free {
        set_pairs(ctx, pairs);
    }
    out.integer(i64::from(free));
    Ok(())
}

fn append(ctx: &mut Ctx<'_, '_>, args: &[&[u8]], out: &mut Reply) -> CommandResult {
    let len = append_bytes(ctx, args[1], args[2])?;
    ctx.modified(args[1], Class::String, "append");
    out.integer(len as i64);
    Ok(())
}

fn append_bytes(ctx: &mut Ctx<'_, '_>, key: &[u8], tail: &[u8]) -> Result<usize, CommandError> {
    let limit = ctx.engine.settings.max_bulk_len();
    let Some(mut entry) = write_string(ctx, key)? else {
        ctx.set_string(key, tail, Expiry::Clear);
        return Ok(tail.len());
    };
    let len = entry.string_bytes().map_or(0, <[u8]>::len) + tail.len();
    fits(len, limit)?;
    if let ValueMut::String(value) = entry.value_mut() {
        value.extend_from_slice(tail);
    }
    Ok(len)
}

fn strlen(ctx: &mut Ctx<'_, '_>, args: &[&[u8]], out: &mut Reply) -> CommandResult {
    out.integer(ctx.read_string(args[1])?.map_or(0, <[u8]>::len) as i64);
    Ok(())
}

fn setrange(ctx: &mut Ctx<'_, '_>, args: &[&[u8]], out: &mut Reply) -> CommandResult {
    let (key, patch) = (args[1], args[3]);
    let offset = usize::try_from(parse::integer(args[2])?).map_err(|_| CommandError::OFFSET_OUT_OF_RANGE)?;
    let old_len = write_string(ctx, key)?.map(|entry| entry.string_bytes().map_or(0, <[u8]>::len));
    if patch.is_empty() {
        out.integer(old_len.unwrap_or(0) as i64);
        return Ok(());
    }
    let end = offset.saturating_add(patch.len());
    fits(end, ctx.engine.settings.max_bulk_len())?;
    if old_len.is_none() {
        ctx.set_string(key, b"", Expiry::Clear);
    }
    let len = end.max(old_len.unwrap_or(0));
    if let Some(mut entry) = ctx.write(key)
        && let ValueMut::String(value) = entry.value_mut()
    {
        value.resize(len, 0);
        value[offset..end].copy_from_slice(patch);
    }
    ctx.modified(key, Class::String, "setrange");
    out.integer(len as i64);
    Ok(())
}

fn getrange(ctx: &mut Ctx<'_, '_>, args: &[&[u8]], out: &mut Reply) -> CommandResult {
    let (start, end) = (parse::integer(args[2])?, parse::integer(args[3])?);
    let value = ctx.read_string(args[1])?.unwrap_or_default();
    let range = byte_range(start, end, value.len());
    out.bulk(value.get(range).unwrap_or_default());
    Ok(())
}

/// The bytes from `start` to `end`, both included, negative ones counted from the end, as far as they exist.
fn byte_range(start: i64, end: i64, len: usize) -> std::ops::Range<usize> {
    if start < 0 && end < 0 && start > end {
        return 0..0;
    }
    let from_front = |index: i64| {
        let distance = usize::try_from(index.unsigned_abs()).unwrap_or(usize::MAX);
        if index < 0 { len.saturating_sub(distance) } else { distance }
    };
    let (start, end) = (from_front(start), from_front(end).saturating_add(1).min(len));
    if start < end { start..end } else { 0..0 }
}

fn incr(ctx: &mut Ctx<'_, '_>, args: &[&[u8]], out: &mut Reply) -> CommandResult {
    increment(ctx, args[1], 1, out)
}

fn decr(ctx: &mut Ctx<'_, '_>, args: &[&[u8]], out: &mut Reply) -> CommandResult {
    increment(ctx, args[1], -1, out)
}

fn incrby(ctx: &mut Ctx<'_, '_>, args: &[&[u8]], out: &mut Reply) -> CommandResult {
    increment(ctx, args[1], parse::integer(args[2])?, out)
}

fn decrby(ctx: &mut Ctx<'_, '_>, args: &[&[u8]], out: &mut Reply) -> CommandResult {
    match parse::integer(args[2])?.checked_neg() {
        Some(by) => increment(ctx, args[1], by, out),
        None => Err(CommandError::new("ERR decrement would overflow")),
    }
}

fn increment(ctx: &mut Ctx<'_, '_>, key: &[u8], by: i64, out: &mut Reply) -> CommandResult {
    let new = add(ctx, key, by)?;
    ctx.modified(key, Class::String, "incrby");
    out.integer(new);
    Ok(())
}

fn add(ctx: &mut Ctx<'_, '_>, key: &[u8], by: i64) -> Result<i64, CommandError> {
    let mut digits = itoa::Buffer::new();
    let Some(mut entry) = write_string(ctx, key)? else {
        ctx.set_string(key, digits.format(by).as_bytes(), Expiry::Clear);
        return Ok(by);
    };
    let old = parse::integer(entry.string_bytes().unwrap_or_default())?;
    let new = old.checked_add(by).ok_or(CommandError::OVERFLOW)?;
    entry.set_string(digits.format(new).as_bytes());
    Ok(new)
}

fn incrbyfloat(ctx: &mut Ctx<'_, '_>, args: &[&[u8]], out: &mut Reply) -> CommandResult {
    let key = args[1];
    let old = match write_string(ctx, key)? {
        Some(entry) => ExtendedFloat::parse(entry.string_bytes().unwrap_or_default()),
        None => Some(ExtendedFloat::ZERO),
    };
    let (Some(old), Some(by)) = (old, ExtendedFloat::parse(args[2])) else {
        return Err(CommandError::NOT_FLOAT);
    };
    let new = old.checked_add(by).ok_or(CommandError::NAN_OR_INFINITY)?.to_text();
    if !ctx.exists(key) {
        ctx.set_string(key, b"", Expiry::Clear);
    }
    if let Some(mut entry) = ctx.write(key) {
        entry.set_text(new.as_bytes());
    }
    ctx.modified(key, Class::String, "incrbyfloat");
    ctx.journal_as(&[b"SET", key, new.as_bytes(), b"KEEPTTL"]);
    out.bulk(new.as_bytes());
    Ok(())
}

/// What a SET or GETEX is told after its key and value.
#[derive(Default)]
struct Options<'a> {
    condition: Condition,
    get: bool,
    persist: bool,
    expiry: GivenExpiry<'a>,
}

#[derive(Clone, Copy, PartialEq, Eq, Default)]
enum Condition {
    #[default]
    Always,
    IfAbsent,
    IfPresent,
}

#[derive(Clone, Copy, PartialEq, Eq, Default)]
enum GivenExpiry<'a> {
    #[default]
    None,
    Keep,
    At(&'a [u8], Unit, Since),
}

/// Which command's options are read.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Accepts {
    ForSet,
    ForGetex,
}

impl<'a> Options<'a> {
    fn parse(args: &[&'a [u8]], accepts: Accepts) -> Result<Self, CommandError> {
        let mut options = Self::default();
        let for_set = accepts == Accepts::ForSet;
        let mut args = args.iter();
        while let Some(option) = args.next() {
            if let Some((unit, since)) = expiry_option(option) {
                // The same option may come again, and the last one counts; two different ones contradict each other.
                let agrees = match options.expiry {
                    GivenExpiry::None => !options.persist,
                    GivenExpiry::Keep => false,
                    GivenExpiry::At(_, other_unit, other_since) => (other_unit, other_since) == (unit, since),
                };
                let value = args.next().filter(|_| agrees).ok_or(CommandError::SYNTAX)?;
                options.expiry = GivenExpiry::At(value, unit, since);
                continue;
            }
            let has_moment = matches!(options.expiry, GivenExpiry::At(..));
            if parse::is(option, "nx") && for_set && options.condition != Condition::IfPresent {
                options.condition = Condition::IfAbsent;
            } else if parse::is(option, "xx") && for_set && options.condition != Condition::IfAbsent {
                options.condition = Condition::IfPresent;
            } else if parse::is(option, "get") && for_set {
                options.get = true;
            } else if parse::is(option, "keepttl") && for_set && !has_moment {
                options.expiry = GivenExpiry::Keep;
            } else if parse::is(option, "persist") && !for_set && !has_moment {
                options.persist = true;
            } else {
                return Err(CommandError::SYNTAX);
            }
        }
        Ok(options)
    }
}

fn expiry_option(option: &[u8]) -> Option<(Unit, Since)> {
    // Two or four letters: most options are told apart by that.
    match option.len() {
        2 if parse::is(option, "ex") => Some((Unit::Seconds, Since::Now)),
        2 if parse::is(option, "px") => Some((Unit::Millis, Since::Now)),
        4 if parse::is(option, "exat") => Some((Unit::Seconds, Since::Epoch)),
        4 if parse::is(option, "pxat") => Some((Unit::Millis, Since::Epoch)),
        _ => None,
    }
}

/// Stores a string, says so, and journals what it comes to.
fn store(ctx: &mut Ctx<'_, '_>, key: &[u8], value: &[u8], expiry: Expiry) {
    ctx.set_string(key, value, expiry);
    ctx.modified(key, Class::String, "set");
    match expiry {
        Expiry::Clear => ctx.journal_as(&[b"SET", key, value]),
        Expiry::Keep => ctx.journal_as(&[b"SET", key, value, b"KEEPTTL"]),
        Expiry::At(UnixMillis(at)) => {
            ctx.notify(Class::Generic, "expire", key);
            let mut digits = itoa::Buffer::new();
            ctx.journal_as(&[b"SET", key, value, b"PXAT", digits.format(at).as_bytes()]);
        }
    }
}

/// A string for change, if the key is there.
fn write_string<'c>(ctx: &'c mut Ctx<'_, '_>, key: &[u8]) -> Result<Option<EntryMut<'c>>, CommandError> {
    match ctx.write(key) {
        Some(entry) if entry.string_bytes().is_none() => Err(CommandError::WRONG_TYPE),
        entry => Ok(entry),
    }
}

fn pairs<'r, 'a>(args: &'r [&'a [u8]], command: &str) -> Result<&'r [[&'a [u8]; 2]], CommandError> {
    let (pairs, rest) = args[1..].as_chunks::<2>();
    if rest.is_empty() { Ok(pairs) } else { Err(CommandError::arity(command)) }
}

fn set_pairs(ctx: &mut Ctx<'_, '_>, pairs: &[[&[u8]; 2]]) {
    for [key, value] in pairs {
        ctx.set_string(key, value, Expiry::Clear);
        ctx.modified(key, Class::String, "set");
    }
}

fn fits(len: usize, limit: u64) -> CommandResult {
    if len as u64 > limit { Err(CommandError::STRING_TOO_LONG) } else { Ok(()) }
}
