//! Hashes: fields and values under one key.
//!
//! A hash that loses its last field is removed. HINCRBYFLOAT is journalled by its result, everything else as it came.

use mtcache_protocol::Reply;

use super::Locks::Keys;
use super::collection_scan::{ScanOptions, nothing};
use super::{Row, parse};
use crate::context::Ctx;
use crate::error::{CommandError, CommandResult};
use crate::float::ExtendedFloat;
use crate::keyspace::random_below;
use crate::notify::Class;
use crate::types::Hash;

pub(super) const TABLE: &[Row] = &[
    ("hset", Keys, hset),
    ("hmset", Keys, hset),
    ("hsetnx", Keys, hsetnx),
    ("hget", Keys, hget),
    ("hmget", Keys, hmget),
    ("hgetall", Keys, hgetall),
    ("hkeys", Keys, hkeys),
    ("hvals", Keys, hvals),
    ("hlen", Keys, hlen),
    ("hexists", Keys, hexists),
    ("hstrlen", Keys, hstrlen),
    ("hdel", Keys, hdel),
    ("hincrby", Keys, hincrby),
    ("hincrbyfloat", Keys, hincrbyfloat),
    ("hrandfield", Keys, hrandfield),
    ("hscan", Keys, hscan),
];

/// HSET counts the new fields, HMSET only says OK.
fn hset(ctx: &mut Ctx<'_, '_>, args: &[&[u8]], out: &mut Reply) -> CommandResult {
    let (pairs, rest) = args[2..].as_chunks::<2>();
    if !rest.is_empty() {
        return Err(CommandError::arity(&String::from_utf8_lossy(args[0]).to_ascii_lowercase()));
    }
    let limits = ctx.engine.settings.encoding_limits();
    let mut hash = ctx.write_or_create::<Hash>(args[1])?;
    let mut added = 0;
    for [field, value] in pairs {
        added += i64::from(hash.set(field, value, &limits));
    }
    drop(hash);
    ctx.modified(args[1], Class::Hash, "hset");
    if parse::is(args[0], "hset") {
        out.integer(added);
    } else {
        out.ok();
    }
    Ok(())
}

fn hsetnx(ctx: &mut Ctx<'_, '_>, args: &[&[u8]], out: &mut Reply) -> CommandResult {
    let limits = ctx.engine.settings.encoding_limits();
    let mut hash = ctx.write_or_create::<Hash>(args[1])?;
    if hash.contains(args[2]) {
        out.integer(0);
        return Ok(());
    }
    hash.set(args[2], args[3], &limits);
    drop(hash);
    ctx.modified(args[1], Class::Hash, "hset");
    out.integer(1);
    Ok(())
}

fn hget(ctx: &mut Ctx<'_, '_>, args: &[&[u8]], out: &mut Reply) -> CommandResult {
    match ctx.read_as::<Hash>(args[1])?.and_then(|hash| hash.get(args[2])) {
        Some(value) => out.bulk(value),
        None => out.null(),
    }
    Ok(())
}

fn hmget(ctx: &mut Ctx<'_, '_>, args: &[&[u8]], out: &mut Reply) -> CommandResult {
    let hash = ctx.read_as::<Hash>(args[1])?;
    out.array(args.len() - 2);
    for field in &args[2..] {
        if out.is_over() {
            break;
        }
        match hash.and_then(|hash| hash.get(field)) {
            Some(value) => out.bulk(value),
            None => out.null(),
        }
    }
    Ok(())
}

fn hgetall(ctx: &mut Ctx<'_, '_>, args: &[&[u8]], out: &mut Reply) -> CommandResult {
    let hash = ctx.read_as::<Hash>(args[1])?;
    out.map(hash.map_or(0, Hash::len));
    for (field, value) in hash.into_iter().flatten() {
        if out.is_over() {
            break;
        }
        out.bulk(field);
        out.bulk(value);
    }
    Ok(())
}

fn hkeys(ctx: &mut Ctx<'_, '_>, args: &[&[u8]], out: &mut Reply) -> CommandResult {
    let hash = ctx.read_as::<Hash>(args[1])?;
    out.array(hash.map_or(0, Hash::len));
    for (field, _) in hash.into_iter().flatten() {
        if out.is_over() {
            break;
        }
        out.bulk(field);
    }
    Ok(())
}

fn hvals(ctx: &mut Ctx<'_, '_>, args: &[&[u8]], out: &mut Reply) -> CommandResult {
    let hash = ctx.read_as::<Hash>(args[1])?;
    out.array(hash.map_or(0, Hash::len));
    for (_, value) in hash.into_iter().flatten() {
        if out.is_over() {
            break;
        }
        out.bulk(value);
    }
    Ok(())
}

fn hlen(ctx: &mut Ctx<'_, '_>, args: &[&[u8]], out: &mut Reply) -> CommandResult {
    out.integer(ctx.read_as::<Hash>(args[1])?.map_or(0, Hash::len) as i64);
    Ok(())
}

fn hexists(ctx: &mut Ctx<'_, '_>, args: &[&[u8]], out: &mut Reply) -> CommandResult {
    let found = ctx.read_as::<Hash>(args[1])?.is_some_and(|hash| hash.contains(args[2]));
    out.integer(i64::from(found));
    Ok(())
}

fn hstrlen(ctx: &mut Ctx<'_, '_>, args: &[&[u8]], out: &mut Reply) -> CommandResult {
    let value = ctx.read_as::<Hash>(args[1])?.and_then(|hash| hash.get(args[2]));
    out.integer(value.map_or(0, <[u8]>::len) as i64);
    Ok(())
}

fn hdel(ctx: &mut Ctx<'_, '_>, args: &[&[u8]], out: &mut Reply) -> CommandResult {
    let mut removed = 0;
    if let Some(mut hash) = ctx.write_as::<Hash>(args[1])? {
        for field in &args[2..] {
            removed += i64::from(hash.remove(field));
        }
    }
    if removed > 0 {
        ctx.modified(args[1], Class::Hash, "hdel");
        ctx.remove_if_empty::<Hash>(args[1]);
    }
    out.integer(removed);
    Ok(())
}

fn hincrby(ctx: &mut Ctx<'_, '_>, args: &[&[u8]], out: &mut Reply) -> CommandResult {
    let increment = parse::integer(args[3])?;
    let old = match ctx.write_as::<Hash>(args[1])?.as_deref().and_then(|hash| hash.get(args[2])) {
        Some(value) => {
            parse::integer(value).map_err(|_| CommandError::new("ERR hash value is not an integer"))?
        }
        None => 0,
    };
    let new = old.checked_add(increment).ok_or(CommandError::OVERFLOW)?;
    let limits = ctx.engine.settings.encoding_limits();
    let mut digits = itoa::Buffer::new();
    ctx.write_or_create::<Hash>(args[1])?.set(args[2], digits.format(new).as_bytes(), &limits);
    ctx.modified(args[1], Class::Hash, "hincrby");
    out.integer(new);
    Ok(())
}

fn hincrbyfloat(ctx: &mut Ctx<'_, '_>, args: &[&[u8]], out: &mut Reply) -> CommandResult {
    let increment = ExtendedFloat::parse(args[3]).ok_or(CommandError::NOT_FLOAT)?;
    if increment.is_infinite() {
        return Err(CommandError::new("ERR value is NaN or Infinity"));
    }
    let old = match ctx.write_as::<Hash>(args[1])?.as_deref().and_then(|hash| hash.get(args[2])) {
        Some(value) => {
            ExtendedFloat::parse(value).ok_or(CommandError::new("ERR hash value is not a float"))?
        }
        None => ExtendedFloat::ZERO,
    };
    let new = old.checked_add(increment).ok_or(CommandError::NAN_OR_INFINITY)?.to_text();
    let limits = ctx.engine.settings.encoding_limits();
    ctx.write_or_create::<Hash>(args[1])?.set(args[2], new.as_bytes(), &limits);
    ctx.modified(args[1], Class::Hash, "hincrbyfloat");
    ctx.journal_as(&[b"HSET", args[1], args[2], new.as_bytes()]);
    out.bulk(new.as_bytes());
    Ok(())
}

fn hrandfield(ctx: &mut Ctx<'_, '_>, args: &[&[u8]], out: &mut Reply) -> CommandResult {
    let Some(count) = args.get(2) else {
        let hash = ctx.read_as::<Hash>(args[1])?;
        match hash.and_then(|hash| hash.by_index(random_below(hash.len()))) {
            Some((field, _)) => out.bulk(field),
            None => out.null(),
        }
        return Ok(());
    };
    let count = parse::random_count(count)?;
    let with_values = match args.get(3) {
        None => false,
        Some(option) if parse::is(option, "withvalues") && args.len() == 4 => true,
        Some(_) => return Err(CommandError::SYNTAX),
    };
    let is_enormous = count < -(i64::MAX / 2);
    if with_values && (is_enormous || count > i64::MAX / 2) {
        return Err(CommandError::OUT_OF_RANGE);
    }
    let Some(hash) = ctx.read_as::<Hash>(args[1])?.filter(|_| count != 0) else {
        out.array(0);
        return Ok(());
    };
    if is_enormous {
        return Err(CommandError::OUT_OF_RANGE);
    }
    let picks = Picks::new(hash.len(), count);
    let pairs_nest = out.version() == mtcache_protocol::Version::Resp3;
    out.array(picks.len() * if with_values && !pairs_nest { 2 } else { 1 });
    for (field, value) in picks.filter_map(|index| hash.by_index(index)) {
        if out.is_over() {
            break;
        }
        if with_values && pairs_nest {
            out.array(2);
        }
        out.bulk(field);
        if with_values {
            out.bulk(value);
        }
    }
    Ok(())
}

fn hscan(ctx: &mut Ctx<'_, '_>, args: &[&[u8]], out: &mut Reply) -> CommandResult {
    let cursor = parse::cursor(args[2])?;
    let Some(hash) = ctx.read_as::<Hash>(args[1])? else {
        nothing(out);
        return Ok(());
    };
    let options = ScanOptions::parse(&args[3..])?;
    let (next, fields) = hash.scan(cursor, options.count);
    out.array(2);
    out.bulk_u64(next);
    let mark = out.begin_deferred();
    let mut found = 0;
    for (field, value) in fields.filter(|(field, _)| options.admits(field)) {
        if out.is_over() {
            break;
        }
        out.bulk(field);
        out.bulk(value);
        found += 2;
    }
    out.end_array(mark, found);
    Ok(())
}

/// Random indices as HRANDFIELD, SRANDMEMBER and ZRANDMEMBER want them: a positive count asks for distinct ones, a
/// negative one for that many with repetition.
pub(super) struct Picks {
    remaining: usize,
    population: usize,
    /// What a partial Fisher-Yates shuffle has moved; `None` where repetition is wanted.
    moved: Option<hashbrown::HashMap<usize, usize, ahash::RandomState>>,
    next: usize,
}

impl Picks {
    pub(super) fn new(population: usize, count: i64) -> Self {
        let wanted = usize::try_from(count.unsigned_abs()).unwrap_or(usize::MAX);
        if count >= 0 {
            let moved = hashbrown::HashMap::with_hasher(ahash::RandomState::new());
            Self { remaining: wanted.min(population), population, moved: Some(moved), next: 0 }
        } else {
            Self { remaining: if population == 0 { 0 } else { wanted }, population, moved: None, next: 0 }
        }
    }

    pub(super) fn len(&self) -> usize {
        self.remaining
    }
}

impl Iterator for Picks {
    type Item = usize;

    fn next(&mut self) -> Option<usize> {
        self.remaining = self.remaining.checked_sub(1)?;
        let Some(moved) = &mut self.moved else { return Some(random_below(self.population)) };
        let here = self.next;
        self.next += 1;
        let other = here + random_below(self.population - here);
        let at_here = moved.get(&here).copied().unwrap_or(here);
        Some(if other == here { at_here } else { moved.insert(other, at_here).unwrap_or(other) })
    }
}

#[cfg(test)]
mod tests {
    use super::Picks;

    #[test]
    fn a_positive_count_picks_distinct_indices() {
        for count in [0_usize, 1, 5, 10, 50] {
            let mut picked: Vec<_> = Picks::new(10, count as i64).collect();
            picked.sort_unstable();
            picked.dedup();
            assert_eq!(picked.len(), count.min(10));
            assert!(picked.iter().all(|&index| index < 10));
        }
    }

    #[test]
    fn a_negative_count_picks_that_many() {
        assert_eq!(Picks::new(3, -20).count(), 20);
        assert_eq!(Picks::new(0, -20).count(), 0);
    }
}
