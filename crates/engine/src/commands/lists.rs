//! Lists; the commands that wait are in `blocking`.
//!
//! A list that loses its last element is removed.

use mtcache_protocol::Reply;

use super::Locks::Keys;
use super::blocking::{Wanted, take_first};
use super::{Row, parse};
use crate::context::Ctx;
use crate::error::{CommandError, CommandResult};
use crate::notify::Class;
use crate::types::{List, ListEnd};

pub(super) const TABLE: &[Row] = &[
    ("lpush", Keys, |ctx, args, out| push(ctx, args, out, ListEnd::Front, Missing::Create)),
    ("rpush", Keys, |ctx, args, out| push(ctx, args, out, ListEnd::Back, Missing::Create)),
    ("lpushx", Keys, |ctx, args, out| push(ctx, args, out, ListEnd::Front, Missing::Skip)),
    ("rpushx", Keys, |ctx, args, out| push(ctx, args, out, ListEnd::Back, Missing::Skip)),
    ("lpop", Keys, |ctx, args, out| pop(ctx, args, out, ListEnd::Front)),
    ("rpop", Keys, |ctx, args, out| pop(ctx, args, out, ListEnd::Back)),
    ("llen", Keys, llen),
    ("lindex", Keys, lindex),
    ("lrange", Keys, lrange),
    ("lset", Keys, lset),
    ("linsert", Keys, linsert),
    ("lrem", Keys, lrem),
    ("ltrim", Keys, ltrim),
    ("lpos", Keys, lpos),
    ("lmove", Keys, lmove),
    ("rpoplpush", Keys, rpoplpush),
    ("lmpop", Keys, lmpop),
];

/// What a push does about a key that is not there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Missing {
    Create,
    Skip,
}

fn push_event(end: ListEnd) -> &'static str {
    if end == ListEnd::Front { "lpush" } else { "rpush" }
}

pub(super) fn pop_event(end: ListEnd) -> &'static str {
    if end == ListEnd::Front { "lpop" } else { "rpop" }
}

fn push(
    ctx: &mut Ctx<'_, '_>,
    args: &[&[u8]],
    out: &mut Reply,
    end: ListEnd,
    missing: Missing,
) -> CommandResult {
    let limits = ctx.engine.settings.encoding_limits();
    if missing == Missing::Skip && ctx.write_as::<List>(args[1])?.is_none() {
        out.integer(0);
        return Ok(());
    }
    let mut list = ctx.write_or_create::<List>(args[1])?;
    for element in &args[2..] {
        list.push(end, element, &limits);
    }
    out.integer(list.len() as i64);
    drop(list);
    ctx.modified(args[1], Class::List, push_event(end));
    Ok(())
}

fn pop(ctx: &mut Ctx<'_, '_>, args: &[&[u8]], out: &mut Reply, end: ListEnd) -> CommandResult {
    if args.len() > 3 {
        return Err(CommandError::arity(pop_event(end)));
    }
    let key = args[1];
    let count = args.get(2).map(|count| parse::non_negative(count)).transpose()?;
    let Some(mut list) = ctx.write_as::<List>(key)? else {
        if count.is_some() {
            out.null_array();
        } else {
            out.null();
        }
        return Ok(());
    };
    let wanted = match count {
        None => 1,
        Some(count) => {
            let wanted = usize::try_from(count).unwrap_or(usize::MAX).min(list.len());
            out.array(wanted);
            wanted
        }
    };
    for _ in 0..wanted {
        list.pop_with(end, |element| {
            if !out.is_over() {
                out.bulk(element);
            }
        });
    }
    drop(list);
    if wanted > 0 {
        ctx.modified(key, Class::List, pop_event(end));
        ctx.remove_if_empty::<List>(key);
    }
    Ok(())
}

fn llen(ctx: &mut Ctx<'_, '_>, args: &[&[u8]], out: &mut Reply) -> CommandResult {
    out.integer(ctx.read_as::<List>(args[1])?.map_or(0, List::len) as i64);
    Ok(())
}

/// An index that counts from the end when negative; `None` outside of the list.
fn position(index: i64, len: usize) -> Option<usize> {
    let index = if index < 0 { index.checked_add(len as i64)? } else { index };
    usize::try_from(index).ok().filter(|index| *index < len)
}

/// A range of indices as LRANGE and ZRANGE take it, cut to what there is: the start and the length.
pub(super) fn index_range(start: i64, stop: i64, len: usize) -> (usize, usize) {
    let len = len as i64;
    let from_end = |index: i64| if index < 0 { index.saturating_add(len) } else { index };
    let (start, stop) = (from_end(start).max(0), from_end(stop).min(len - 1));
    if start > stop { (0, 0) } else { (start as usize, (stop - start + 1) as usize) }
}

fn lindex(ctx: &mut Ctx<'_, '_>, args: &[&[u8]], out: &mut Reply) -> CommandResult {
    let Some(list) = ctx.read_as::<List>(args[1])? else {
        out.null();
        return Ok(());
    };
    let index = parse::integer(args[2])?;
    match position(index, list.len()).and_then(|index| list.get(index)) {
        Some(element) => out.bulk(element),
        None => out.null(),
    }
    Ok(())
}

fn lrange(ctx: &mut Ctx<'_, '_>, args: &[&[u8]], out: &mut Reply) -> CommandResult {
    let (start, stop) = (parse::integer(args[2])?, parse::integer(args[3])?);
    let Some(list) = ctx.read_as::<List>(args[1])? else {
        out.array(0);
        return Ok(());
    };
    let (start, count) = index_range(start, stop, list.len());
    out.array(count);
    for element in list.range(start, count) {
        if out.is_over() {
            break;
        }
        out.bulk(element);
    }
    Ok(())
}

fn lset(ctx: &mut Ctx<'_, '_>, args: &[&[u8]], out: &mut Reply) -> CommandResult {
    let limits = ctx.engine.settings.encoding_limits();
    let Some(mut list) = ctx.write_as::<List>(args[1])? else { return Err(CommandError::NO_SUCH_KEY) };
    let index = parse::integer(args[2])?;
    let index = position(index, list.len()).ok_or(CommandError::INDEX_OUT_OF_RANGE)?;
    list.set(index, args[3], &limits);
    drop(list);
    ctx.modified(args[1], Class::List, "lset");
    out.ok();
    Ok(())
}

fn linsert(ctx: &mut Ctx<'_, '_>, args: &[&[u8]], out: &mut Reply) -> CommandResult {
    let after = match args[2] {
        word if parse::is(word, "after") => 1,
        word if parse::is(word, "before") => 0,
        _ => return Err(CommandError::SYNTAX),
    };
    let limits = ctx.engine.settings.encoding_limits();
    let Some(mut list) = ctx.write_as::<List>(args[1])? else {
        out.integer(0);
        return Ok(());
    };
    let Some(pivot) = list.iter().position(|element| element == args[3]) else {
        out.integer(-1);
        return Ok(());
    };
    list.insert(pivot + after, args[4], &limits);
    out.integer(list.len() as i64);
    drop(list);
    ctx.modified(args[1], Class::List, "linsert");
    Ok(())
}

fn lrem(ctx: &mut Ctx<'_, '_>, args: &[&[u8]], out: &mut Reply) -> CommandResult {
    let count = parse::integer(args[2])?;
    let end = if count < 0 { ListEnd::Back } else { ListEnd::Front };
    let limit =
        if count == 0 { usize::MAX } else { usize::try_from(count.unsigned_abs()).unwrap_or(usize::MAX) };
    let removed = match ctx.write_as::<List>(args[1])? {
        Some(mut list) => list.remove_matches(args[3], limit, end),
        None => 0,
    };
    if removed > 0 {
        ctx.modified(args[1], Class::List, "lrem");
        ctx.remove_if_empty::<List>(args[1]);
    }
    out.integer(removed as i64);
    Ok(())
}

fn ltrim(ctx: &mut Ctx<'_, '_>, args: &[&[u8]], out: &mut Reply) -> CommandResult {
    let (start, stop) = (parse::integer(args[2])?, parse::integer(args[3])?);
    let trimmed = ctx.write_as::<List>(args[1])?.map(|mut list| {
        let (start, count) = index_range(start, stop, list.len());
        list.trim(start, count);
    });
    if trimmed.is_some() {
        ctx.modified(args[1], Class::List, "ltrim");
        ctx.remove_if_empty::<List>(args[1]);
    }
    out.ok();
    Ok(())
}

fn lpos(ctx: &mut Ctx<'_, '_>, args: &[&[u8]], out: &mut Reply) -> CommandResult {
    let (mut rank, mut count, mut max_len) = (1_i64, None, usize::MAX);
    let mut options = &args[3..];
    while let Some((option, rest)) = options.split_first() {
        let Some((value, rest)) = rest.split_first() else { return Err(CommandError::SYNTAX) };
        let bounded = |text: &'static str| {
            let value = parse::integer(value).ok().filter(|n| *n >= 0);
            value.map(|n| usize::try_from(n).unwrap_or(usize::MAX)).ok_or(CommandError::new(text))
        };
        if parse::is(option, "rank") {
            rank = parse::integer(value)?;
            if rank == 0 {
                return Err(CommandError::new(
                    "ERR RANK can't be zero: use 1 to start from the first match, 2 from the second ... or use negative to start from the end of the list",
                ));
            }
        } else if parse::is(option, "count") {
            count = Some(bounded("ERR COUNT can't be negative")?);
        } else if parse::is(option, "maxlen") {
            let given = bounded("ERR MAXLEN can't be negative")?;
            max_len = if given == 0 { usize::MAX } else { given };
        } else {
            return Err(CommandError::SYNTAX);
        }
        options = rest;
    }
    let list = ctx.read_as::<List>(args[1])?;
    // The one rank without an opposite finds what -1 finds, as in Redis, where negating it overflows.
    let rank = if rank == i64::MIN { -1 } else { rank };
    let skip = usize::try_from(rank.unsigned_abs() - 1).unwrap_or(usize::MAX);
    let wanted = match count {
        None => 1,
        Some(0) => usize::MAX,
        Some(count) => count,
    };
    let matches = |list: &List| -> Vec<usize> {
        let is_match = |(_, element): &(usize, &[u8])| *element == args[2];
        let len = list.len();
        if rank > 0 {
            let hits = list.iter().enumerate().take(max_len).filter(is_match);
            hits.skip(skip).take(wanted).map(|(index, _)| index).collect()
        } else {
            let hits = list.iter().rev().enumerate().take(max_len).filter(is_match);
            hits.skip(skip).take(wanted).map(|(index, _)| len - 1 - index).collect()
        }
    };
    let found = list.map(matches).unwrap_or_default();
    match (count, found.first()) {
        (None, Some(index)) => out.integer(*index as i64),
        (None, None) => out.null(),
        (Some(_), _) => {
            out.array(found.len());
            for index in &found {
                out.integer(*index as i64);
            }
        }
    }
    Ok(())
}

pub(super) fn end_of(word: &[u8]) -> Result<ListEnd, CommandError> {
    if parse::is(word, "left") {
        Ok(ListEnd::Front)
    } else if parse::is(word, "right") {
        Ok(ListEnd::Back)
    } else {
        Err(CommandError::SYNTAX)
    }
}

fn lmove(ctx: &mut Ctx<'_, '_>, args: &[&[u8]], out: &mut Reply) -> CommandResult {
    let (from, to) = (end_of(args[3])?, end_of(args[4])?);
    move_element(ctx, (args[1], from), (args[2], to), out)
}

fn rpoplpush(ctx: &mut Ctx<'_, '_>, args: &[&[u8]], out: &mut Reply) -> CommandResult {
    move_element(ctx, (args[1], ListEnd::Back), (args[2], ListEnd::Front), out)
}

pub(super) fn move_element(
    ctx: &mut Ctx<'_, '_>,
    (from, from_end): (&[u8], ListEnd),
    (to, to_end): (&[u8], ListEnd),
    out: &mut Reply,
) -> CommandResult {
    if ctx.write_as::<List>(from)?.is_none() {
        out.null();
        return Ok(());
    }
    // The destination's type is looked at before anything moves.
    ctx.write_as::<List>(to)?;
    let popped = match ctx.write_as::<List>(from)? {
        Some(mut list) => list.pop(from_end),
        None => None,
    };
    let Some(element) = popped else {
        out.null();
        return Ok(());
    };
    let limits = ctx.engine.settings.encoding_limits();
    ctx.write_or_create::<List>(to)?.push(to_end, &element, &limits);
    ctx.modified(to, Class::List, push_event(to_end));
    ctx.modified(from, Class::List, pop_event(from_end));
    ctx.remove_if_empty::<List>(from);
    out.bulk(&element);
    Ok(())
}

/// The keys and the rest of `numkeys key [key ...] rest`, from `args[at]` on.
pub(super) fn numbered_keys<'a, 'b>(
    args: &'a [&'b [u8]],
    at: usize,
) -> Result<(&'a [&'b [u8]], &'a [&'b [u8]]), CommandError> {
    let numkeys = parse::integer(args[at]).ok().filter(|n| *n > 0);
    let numkeys = numkeys.ok_or(CommandError::new("ERR numkeys should be greater than 0"))?;
    let numkeys = usize::try_from(numkeys).unwrap_or(usize::MAX);
    args[at + 1..].split_at_checked(numkeys).ok_or(CommandError::SYNTAX)
}

/// The `COUNT` of LMPOP and ZMPOP, 1 if there is none.
pub(super) fn pop_count(options: &[&[u8]]) -> Result<usize, CommandError> {
    match options {
        [] => Ok(1),
        [word, count, more @ ..] if parse::is(word, "count") => {
            let count = parse::integer(count).ok().filter(|n| *n > 0);
            let count = count.ok_or(CommandError::new("ERR count should be greater than 0"))?;
            if !more.is_empty() {
                return Err(CommandError::SYNTAX);
            }
            Ok(usize::try_from(count).unwrap_or(usize::MAX))
        }
        _ => Err(CommandError::SYNTAX),
    }
}

fn lmpop(ctx: &mut Ctx<'_, '_>, args: &[&[u8]], out: &mut Reply) -> CommandResult {
    let (keys, rest) = numbered_keys(args, 1)?;
    let (word, options) = rest.split_first().ok_or(CommandError::SYNTAX)?;
    let end = end_of(word)?;
    let count = pop_count(options)?;
    if !take_first(ctx, keys, &Wanted::PopMany(end, count), out)? {
        out.null_array();
    }
    Ok(())
}
