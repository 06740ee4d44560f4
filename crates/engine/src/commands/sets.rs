//! Sets.
//!
//! A set that loses its last member is removed; a STORE form whose result is empty removes its destination. SPOP is
//! journalled by the members that it took.

use mtcache_protocol::Reply;

use super::Locks::Keys;
use super::collection_scan::{ScanOptions, nothing};
use super::hashes::Picks;
use super::{Row, parse};
use crate::context::Ctx;
use crate::error::{CommandError, CommandResult};
use crate::keyspace::{Value, random_below};
use crate::notify::Class;
use crate::types::Set;

pub(super) const TABLE: &[Row] = &[
    ("sadd", Keys, sadd),
    ("srem", Keys, srem),
    ("smove", Keys, smove),
    ("sismember", Keys, sismember),
    ("smismember", Keys, smismember),
    ("scard", Keys, scard),
    ("smembers", Keys, smembers),
    ("spop", Keys, spop),
    ("srandmember", Keys, srandmember),
    ("sinter", Keys, sinter),
    ("sintercard", Keys, sintercard),
    ("sinterstore", Keys, sinterstore),
    ("sunion", Keys, sunion),
    ("sunionstore", Keys, sunionstore),
    ("sdiff", Keys, sdiff),
    ("sdiffstore", Keys, sdiffstore),
    ("sscan", Keys, sscan),
];

fn sadd(ctx: &mut Ctx<'_, '_>, args: &[&[u8]], out: &mut Reply) -> CommandResult {
    let limits = ctx.engine.settings.encoding_limits();
    let mut set = ctx.write_or_create::<Set>(args[1])?;
    let added = args[2..].iter().filter(|member| set.add(member, &limits)).count();
    drop(set);
    if added > 0 {
        ctx.modified(args[1], Class::Set, "sadd");
    }
    out.integer(added as i64);
    Ok(())
}

fn srem(ctx: &mut Ctx<'_, '_>, args: &[&[u8]], out: &mut Reply) -> CommandResult {
    let mut removed = 0;
    if let Some(mut set) = ctx.write_as::<Set>(args[1])? {
        removed = args[2..].iter().filter(|member| set.remove(member)).count();
    }
    if removed > 0 {
        ctx.modified(args[1], Class::Set, "srem");
        ctx.remove_if_empty::<Set>(args[1]);
    }
    out.integer(removed as i64);
    Ok(())
}

fn smove(ctx: &mut Ctx<'_, '_>, args: &[&[u8]], out: &mut Reply) -> CommandResult {
    let (from, to, member) = (args[1], args[2], args[3]);
    let Some(has_member) = ctx.write_as::<Set>(from)?.map(|set| set.contains(member)) else {
        out.integer(0);
        return Ok(());
    };
    // The destination's type is looked at before anything moves.
    ctx.write_as::<Set>(to)?;
    if from == to || !has_member {
        out.integer(i64::from(has_member));
        return Ok(());
    }
    if let Some(mut set) = ctx.write_as::<Set>(from)? {
        set.remove(member);
    }
    ctx.modified(from, Class::Set, "srem");
    ctx.remove_if_empty::<Set>(from);
    let limits = ctx.engine.settings.encoding_limits();
    if ctx.write_or_create::<Set>(to)?.add(member, &limits) {
        ctx.modified(to, Class::Set, "sadd");
    }
    out.integer(1);
    Ok(())
}

fn sismember(ctx: &mut Ctx<'_, '_>, args: &[&[u8]], out: &mut Reply) -> CommandResult {
    let found = ctx.read_as::<Set>(args[1])?.is_some_and(|set| set.contains(args[2]));
    out.integer(i64::from(found));
    Ok(())
}

fn smismember(ctx: &mut Ctx<'_, '_>, args: &[&[u8]], out: &mut Reply) -> CommandResult {
    let set = ctx.read_as::<Set>(args[1])?;
    out.array(args.len() - 2);
    for member in &args[2..] {
        out.integer(i64::from(set.is_some_and(|set| set.contains(member))));
    }
    Ok(())
}

fn scard(ctx: &mut Ctx<'_, '_>, args: &[&[u8]], out: &mut Reply) -> CommandResult {
    out.integer(ctx.read_as::<Set>(args[1])?.map_or(0, Set::len) as i64);
    Ok(())
}

fn smembers(ctx: &mut Ctx<'_, '_>, args: &[&[u8]], out: &mut Reply) -> CommandResult {
    let set = ctx.read_as::<Set>(args[1])?;
    out.set(set.map_or(0, Set::len));
    for member in set.into_iter().flatten() {
        if out.is_over() {
            break;
        }
        out.bulk(member.as_bytes());
    }
    Ok(())
}

fn spop(ctx: &mut Ctx<'_, '_>, args: &[&[u8]], out: &mut Reply) -> CommandResult {
    if args.len() > 3 {
        return Err(CommandError::SYNTAX);
    }
    let key = args[1];
    let count = args.get(2).map(|count| parse::non_negative(count)).transpose()?;
    let mut popped: Vec<Vec<u8>> = Vec::new();
    if let Some(mut set) = ctx.write_as::<Set>(key)? {
        let wanted = usize::try_from(count.unwrap_or(1)).unwrap_or(usize::MAX).min(set.len());
        for _ in 0..wanted {
            let index = random_below(set.len());
            popped.extend(set.pop_at(index));
        }
    }
    match count {
        Some(_) => {
            out.set(popped.len());
            for member in &popped {
                if out.is_over() {
                    break;
                }
                out.bulk(member);
            }
        }
        None => match popped.first() {
            Some(member) => out.bulk(member),
            None => out.null(),
        },
    }
    if popped.is_empty() {
        return Ok(());
    }
    ctx.modified(key, Class::Set, "spop");
    if ctx.remove_if_empty::<Set>(key) {
        ctx.journal_as(&[b"DEL", key]);
    } else {
        let mut effect: Vec<&[u8]> = vec![b"SREM", key];
        effect.extend(popped.iter().map(Vec::as_slice));
        ctx.journal_as(&effect);
    }
    Ok(())
}

fn srandmember(ctx: &mut Ctx<'_, '_>, args: &[&[u8]], out: &mut Reply) -> CommandResult {
    if args.len() > 3 {
        return Err(CommandError::SYNTAX);
    }
    let Some(count) = args.get(2) else {
        let set = ctx.read_as::<Set>(args[1])?;
        match set.and_then(|set| set.by_index(random_below(set.len()))) {
            Some(member) => out.bulk(member.as_bytes()),
            None => out.null(),
        }
        return Ok(());
    };
    let count = parse::random_count(count)?;
    let Some(set) = ctx.read_as::<Set>(args[1])?.filter(|_| count != 0) else {
        out.array(0);
        return Ok(());
    };
    let picks = Picks::new(set.len(), count);
    out.array(picks.len());
    for member in picks.filter_map(|index| set.by_index(index)) {
        if out.is_over() {
            break;
        }
        out.bulk(member.as_bytes());
    }
    Ok(())
}

/// Looks all keys up: checks their types and drops what has expired, so that they can be viewed together afterwards.
fn check_sets(ctx: &mut Ctx<'_, '_>, keys: &[&[u8]]) -> CommandResult {
    for key in keys {
        ctx.read_as::<Set>(key)?;
    }
    Ok(())
}

fn intersection(ctx: &Ctx<'_, '_>, keys: &[&[u8]], mut each: impl FnMut(&[u8]) -> bool) {
    let sets: Vec<&Set> = keys.iter().filter_map(|key| ctx.view_as::<Set>(key)).collect();
    if sets.len() < keys.len() {
        return;
    }
    for member in Set::intersection(&sets) {
        if !each(member.as_bytes()) {
            return;
        }
    }
}

fn sinter(ctx: &mut Ctx<'_, '_>, args: &[&[u8]], out: &mut Reply) -> CommandResult {
    check_sets(ctx, &args[1..])?;
    let mark = out.begin_deferred();
    let mut found = 0;
    intersection(ctx, &args[1..], |member| {
        out.bulk(member);
        found += 1;
        !out.is_over()
    });
    out.end_set(mark, found);
    Ok(())
}

fn sintercard(ctx: &mut Ctx<'_, '_>, args: &[&[u8]], out: &mut Reply) -> CommandResult {
    let numkeys = parse::integer(args[1]).ok().filter(|n| *n > 0);
    let numkeys = numkeys.ok_or(CommandError::new("ERR numkeys should be greater than 0"))?;
    let numkeys = usize::try_from(numkeys).unwrap_or(usize::MAX);
    if numkeys > args.len() - 2 {
        return Err(CommandError::new("ERR Number of keys can't be greater than number of args"));
    }
    let (keys, mut options) = args[2..].split_at(numkeys);
    let mut limit = usize::MAX;
    while let Some((option, rest)) = options.split_first() {
        let Some((value, rest)) = rest.split_first().filter(|_| parse::is(option, "limit")) else {
            return Err(CommandError::SYNTAX);
        };
        let given = parse::integer(value).ok().filter(|n| *n >= 0);
        let given = given.ok_or(CommandError::new("ERR LIMIT can't be negative"))?;
        limit = if given == 0 { usize::MAX } else { usize::try_from(given).unwrap_or(usize::MAX) };
        options = rest;
    }
    check_sets(ctx, keys)?;
    let mut found = 0;
    intersection(ctx, keys, |_| {
        found += 1;
        found < limit
    });
    out.integer(found as i64);
    Ok(())
}

fn sunion(ctx: &mut Ctx<'_, '_>, args: &[&[u8]], out: &mut Reply) -> CommandResult {
    let union = union(ctx, &args[1..])?;
    write_set(&union, out);
    Ok(())
}

fn sdiff(ctx: &mut Ctx<'_, '_>, args: &[&[u8]], out: &mut Reply) -> CommandResult {
    let difference = difference(ctx, &args[1..])?;
    write_set(&difference, out);
    Ok(())
}

fn sinterstore(ctx: &mut Ctx<'_, '_>, args: &[&[u8]], out: &mut Reply) -> CommandResult {
    check_sets(ctx, &args[2..])?;
    let limits = ctx.engine.settings.encoding_limits();
    let mut result = Set::new();
    intersection(ctx, &args[2..], |member| {
        result.add(member, &limits);
        true
    });
    store(ctx, args[1], result, "sinterstore", out);
    Ok(())
}

fn sunionstore(ctx: &mut Ctx<'_, '_>, args: &[&[u8]], out: &mut Reply) -> CommandResult {
    let result = union(ctx, &args[2..])?;
    store(ctx, args[1], result, "sunionstore", out);
    Ok(())
}

fn sdiffstore(ctx: &mut Ctx<'_, '_>, args: &[&[u8]], out: &mut Reply) -> CommandResult {
    let result = difference(ctx, &args[2..])?;
    store(ctx, args[1], result, "sdiffstore", out);
    Ok(())
}

fn union(ctx: &mut Ctx<'_, '_>, keys: &[&[u8]]) -> Result<Set, CommandError> {
    let limits = ctx.engine.settings.encoding_limits();
    check_sets(ctx, keys)?;
    let mut result = Set::new();
    for member in keys.iter().filter_map(|key| ctx.view_as::<Set>(key)).flatten() {
        result.add(member.as_bytes(), &limits);
    }
    Ok(result)
}

fn difference(ctx: &mut Ctx<'_, '_>, keys: &[&[u8]]) -> Result<Set, CommandError> {
    let limits = ctx.engine.settings.encoding_limits();
    check_sets(ctx, keys)?;
    let mut result = Set::new();
    let Some((first, others)) = keys.split_first() else { return Ok(result) };
    let others: Vec<&Set> = others.iter().filter_map(|key| ctx.view_as::<Set>(key)).collect();
    let Some(first) = ctx.view_as::<Set>(first) else { return Ok(result) };
    // Redis chooses between asking the others for each member and taking theirs out of a copy; the copy's encoding, which
    // OBJECT shows, is the one that all members of the first set ask for.
    let asked = first.len().saturating_mul(others.len() + 1) / 2;
    let taken_out = others.iter().map(|set| set.len()).fold(first.len(), usize::saturating_add);
    if asked > taken_out {
        for member in first {
            result.add(member.as_bytes(), &limits);
        }
        for member in others.into_iter().flatten() {
            result.remove(member.as_bytes());
        }
    } else {
        for member in first.difference(&others) {
            result.add(member.as_bytes(), &limits);
        }
    }
    Ok(result)
}

fn write_set(set: &Set, out: &mut Reply) {
    out.set(set.len());
    for member in set {
        if out.is_over() {
            break;
        }
        out.bulk(member.as_bytes());
    }
}

fn store(ctx: &mut Ctx<'_, '_>, key: &[u8], result: Set, event: &'static str, out: &mut Reply) {
    let len = result.len();
    if len == 0 {
        if ctx.delete(key) {
            ctx.removed(key);
        }
    } else {
        ctx.put(key, Value::Set(Box::new(result)), None);
        ctx.modified(key, Class::Set, event);
    }
    out.integer(len as i64);
}

fn sscan(ctx: &mut Ctx<'_, '_>, args: &[&[u8]], out: &mut Reply) -> CommandResult {
    let cursor = parse::cursor(args[2])?;
    let Some(set) = ctx.read_as::<Set>(args[1])? else {
        nothing(out);
        return Ok(());
    };
    let options = ScanOptions::parse(&args[3..])?;
    let (next, members) = set.scan(cursor, options.count);
    out.array(2);
    out.bulk_u64(next);
    let mark = out.begin_deferred();
    let mut found = 0;
    for member in members.filter(|member| options.admits(member.as_bytes())) {
        if out.is_over() {
            break;
        }
        out.bulk(member.as_bytes());
        found += 1;
    }
    out.end_array(mark, found);
    Ok(())
}
