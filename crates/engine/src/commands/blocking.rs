//! Commands that wait for an element: the BLPOP family, BLMOVE, BZPOPMIN and their like.
//!
//! What there is at once is taken at once, by the same [`serve`] that later answers those who wait, and that LMPOP and ZMPOP
//! take by. Effects are journalled as the command that does not wait: LPOP, LMOVE, ZPOPMIN.

use mtcache_protocol::{CommandId, Reply};

use super::Locks::Keys;
use super::lists::{end_of, move_element, numbered_keys, pop_count, pop_event};
use super::sorted_sets::{Order, note_popped, order_of, take};
use super::{Row, parse};
use crate::context::Ctx;
use crate::error::{CommandError, CommandResult};
use crate::notify::Class;
use crate::types::{List, ListEnd, SortedSet};

pub(super) const TABLE: &[Row] = &[
    ("blpop", Keys, |ctx, args, out| pop(ctx, BLPOP, args, Wanted::Pop(ListEnd::Front), out)),
    ("brpop", Keys, |ctx, args, out| pop(ctx, BRPOP, args, Wanted::Pop(ListEnd::Back), out)),
    ("blmpop", Keys, blmpop),
    ("blmove", Keys, blmove),
    ("brpoplpush", Keys, brpoplpush),
    ("bzpopmin", Keys, |ctx, args, out| pop(ctx, BZPOPMIN, args, Wanted::ZPop(Order::Ascending), out)),
    ("bzpopmax", Keys, |ctx, args, out| pop(ctx, BZPOPMAX, args, Wanted::ZPop(Order::Descending), out)),
    ("bzmpop", Keys, bzmpop),
];

const BLPOP: CommandId = CommandId::of("blpop");
const BRPOP: CommandId = CommandId::of("brpop");
const BLMPOP: CommandId = CommandId::of("blmpop");
const BLMOVE: CommandId = CommandId::of("blmove");
const BRPOPLPUSH: CommandId = CommandId::of("brpoplpush");
const BZPOPMIN: CommandId = CommandId::of("bzpopmin");
const BZPOPMAX: CommandId = CommandId::of("bzpopmax");
const BZMPOP: CommandId = CommandId::of("bzmpop");

/// What is to be done with a key when it is there.
#[derive(Debug, Clone)]
pub(crate) enum Wanted {
    /// One element of a list.
    Pop(ListEnd),
    /// Up to so many.
    PopMany(ListEnd, usize),
    /// One element, to be put into another list.
    Move(Box<Move>),
    /// One member of a sorted set.
    ZPop(Order),
    /// Up to so many.
    ZPopMany(Order, usize),
}

/// Where an element goes, and from which ends.
#[derive(Debug, Clone)]
pub(crate) struct Move {
    from_end: ListEnd,
    to: Box<[u8]>,
    to_end: ListEnd,
    /// Whether it is `BRPOPLPUSH`, which is journalled as `RPOPLPUSH`.
    is_old: bool,
}

impl Wanted {
    /// The type of value that it can be done with.
    pub(crate) fn kind(&self) -> &'static str {
        match self {
            Self::Pop(_) | Self::PopMany(..) | Self::Move(_) => "list",
            Self::ZPop(_) | Self::ZPopMany(..) => "zset",
        }
    }

    /// A key that it needs besides.
    pub(crate) fn other_key(&self) -> Option<&[u8]> {
        match self {
            Self::Move(to) => Some(&to.to),
            _ => None,
        }
    }
}

/// Does with `key`, which is there and of the right type, what is wanted.
pub(crate) fn serve(ctx: &mut Ctx<'_, '_>, key: &[u8], wanted: &Wanted, out: &mut Reply) -> CommandResult {
    match wanted {
        Wanted::Pop(end) => pop_list(ctx, key, *end, None, out),
        Wanted::PopMany(end, count) => pop_list(ctx, key, *end, Some(*count), out),
        Wanted::Move(to) => {
            let Move { from_end, to, to_end, is_old } = &**to;
            move_element(ctx, (key, *from_end), (to, *to_end), out)?;
            if *is_old {
                ctx.journal_as(&[b"RPOPLPUSH", key, to]);
            } else {
                ctx.journal_as(&[b"LMOVE", key, to, end_word(*from_end), end_word(*to_end)]);
            }
            Ok(())
        }
        Wanted::ZPop(order) => pop_sorted_set(ctx, key, *order, None, out),
        Wanted::ZPopMany(order, count) => pop_sorted_set(ctx, key, *order, Some(*count), out),
    }
}

fn end_word(end: ListEnd) -> &'static [u8] {
    if end == ListEnd::Front { b"left" } else { b"right" }
}

/// With a count the reply is that of LMPOP.
fn pop_list(
    ctx: &mut Ctx<'_, '_>,
    key: &[u8],
    end: ListEnd,
    count: Option<usize>,
    out: &mut Reply,
) -> CommandResult {
    let Some(mut list) = ctx.write_as::<List>(key)? else { return Ok(()) };
    let wanted = count.unwrap_or(1).min(list.len());
    out.array(2);
    out.bulk(key);
    if count.is_some() {
        out.array(wanted);
    }
    for _ in 0..wanted {
        list.pop_with(end, |element| out.bulk(element));
    }
    drop(list);
    ctx.modified(key, Class::List, pop_event(end));
    ctx.remove_if_empty::<List>(key);
    journal_pop(ctx, if end == ListEnd::Front { b"LPOP" } else { b"RPOP" }, key, count);
    Ok(())
}

/// With a count the reply is that of ZMPOP.
fn pop_sorted_set(
    ctx: &mut Ctx<'_, '_>,
    key: &[u8],
    order: Order,
    count: Option<usize>,
    out: &mut Reply,
) -> CommandResult {
    let Some(mut set) = ctx.write_as::<SortedSet>(key)? else { return Ok(()) };
    let popped = take(&mut set, order, count.unwrap_or(1));
    drop(set);
    out.array(if count.is_some() { 2 } else { 3 });
    out.bulk(key);
    if count.is_some() {
        out.array(popped.len());
    }
    for (member, score) in &popped {
        if count.is_some() {
            out.array(2);
        }
        out.bulk(member);
        out.double(*score);
    }
    note_popped(ctx, key, order);
    journal_pop(ctx, if order == Order::Ascending { b"ZPOPMIN" } else { b"ZPOPMAX" }, key, count);
    Ok(())
}

fn journal_pop(ctx: &mut Ctx<'_, '_>, name: &[u8], key: &[u8], count: Option<usize>) {
    match count {
        None => ctx.journal_as(&[name, key]),
        Some(count) => ctx.journal_as(&[name, key, count.to_string().as_bytes()]),
    }
}

/// `BLPOP key [key ...] timeout` and its like.
fn pop(
    ctx: &mut Ctx<'_, '_>,
    id: CommandId,
    args: &[&[u8]],
    wanted: Wanted,
    out: &mut Reply,
) -> CommandResult {
    let Some((timeout, keys)) = args[1..].split_last() else { return Err(CommandError::SYNTAX) };
    let timeout = parse::timeout(timeout)?;
    take_or_wait(ctx, id, keys, wanted, timeout, out)
}

fn blmpop(ctx: &mut Ctx<'_, '_>, args: &[&[u8]], out: &mut Reply) -> CommandResult {
    let (keys, rest) = numbered_keys(args, 2)?;
    let (word, options) = rest.split_first().ok_or(CommandError::SYNTAX)?;
    let end = end_of(word)?;
    let wanted = Wanted::PopMany(end, pop_count(options)?);
    // Last of all, as in Redis.
    let timeout = parse::timeout(args[1])?;
    take_or_wait(ctx, BLMPOP, keys, wanted, timeout, out)
}

fn bzmpop(ctx: &mut Ctx<'_, '_>, args: &[&[u8]], out: &mut Reply) -> CommandResult {
    let (keys, rest) = numbered_keys(args, 2)?;
    let (word, options) = rest.split_first().ok_or(CommandError::SYNTAX)?;
    let order = order_of(word)?;
    let wanted = Wanted::ZPopMany(order, pop_count(options)?);
    // Last of all, as in Redis.
    let timeout = parse::timeout(args[1])?;
    take_or_wait(ctx, BZMPOP, keys, wanted, timeout, out)
}

fn blmove(ctx: &mut Ctx<'_, '_>, args: &[&[u8]], out: &mut Reply) -> CommandResult {
    let (from_end, to_end) = (end_of(args[3])?, end_of(args[4])?);
    let timeout = parse::timeout(args[5])?;
    let to = Move { from_end, to: args[2].into(), to_end, is_old: false };
    take_or_wait(ctx, BLMOVE, &args[1..2], Wanted::Move(Box::new(to)), timeout, out)
}

fn brpoplpush(ctx: &mut Ctx<'_, '_>, args: &[&[u8]], out: &mut Reply) -> CommandResult {
    let timeout = parse::timeout(args[3])?;
    let to = Move { from_end: ListEnd::Back, to: args[2].into(), to_end: ListEnd::Front, is_old: true };
    take_or_wait(ctx, BRPOPLPUSH, &args[1..2], Wanted::Move(Box::new(to)), timeout, out)
}

/// Takes from the first key that is there, or waits for any of them.
fn take_or_wait(
    ctx: &mut Ctx<'_, '_>,
    id: CommandId,
    keys: &[&[u8]],
    wanted: Wanted,
    timeout: Option<u64>,
    out: &mut Reply,
) -> CommandResult {
    if take_first(ctx, keys, &wanted, out)? {
        return Ok(());
    }
    if ctx.may_wait() {
        ctx.wait_for(id.spec(), keys, wanted, timeout);
    } else if matches!(wanted, Wanted::Move(_)) {
        out.null();
    } else {
        out.null_array();
    }
    Ok(())
}

/// Takes from the first key that is there; false, and no reply, if none is.
pub(super) fn take_first(
    ctx: &mut Ctx<'_, '_>,
    keys: &[&[u8]],
    wanted: &Wanted,
    out: &mut Reply,
) -> Result<bool, CommandError> {
    for key in keys {
        match ctx.write(key).map(|entry| entry.type_name()) {
            None => {}
            Some(kind) if kind == wanted.kind() => return serve(ctx, key, wanted, out).map(|()| true),
            Some(_) => return Err(CommandError::WRONG_TYPE),
        }
    }
    Ok(false)
}
