//! Sorted sets: members, their scores, and what changes them one by one.
//!
//! Ranges are in `sorted_set_ranges`, unions and the like in `sorted_set_combine`. A sorted set that loses its last member
//! is removed. ZINCRBY and ZADD INCR are journalled as they came: adding the same number to the same score gives the
//! same sum again.

use mtcache_protocol::{Reply, Version};

use super::Locks::Keys;
use super::blocking::{Wanted, take_first};
use super::collection_scan::{ScanOptions, nothing};
use super::hashes::Picks;
use super::lists::{numbered_keys, pop_count};
use super::{Row, parse};
use crate::context::Ctx;
use crate::error::{CommandError, CommandResult};
use crate::keyspace::random_below;
use crate::notify::Class;
use crate::types::{ScoreChange, SortedSet};

pub(super) const TABLE: &[Row] = &[
    ("zadd", Keys, zadd),
    ("zincrby", Keys, zincrby),
    ("zrem", Keys, zrem),
    ("zscore", Keys, zscore),
    ("zmscore", Keys, zmscore),
    ("zcard", Keys, zcard),
    ("zrank", Keys, |ctx, args, out| rank(ctx, args, out, Order::Ascending)),
    ("zrevrank", Keys, |ctx, args, out| rank(ctx, args, out, Order::Descending)),
    ("zpopmin", Keys, |ctx, args, out| zpop(ctx, args, out, Order::Ascending)),
    ("zpopmax", Keys, |ctx, args, out| zpop(ctx, args, out, Order::Descending)),
    ("zmpop", Keys, zmpop),
    ("zrandmember", Keys, zrandmember),
    ("zscan", Keys, zscan),
];

/// From the lowest score up, or from the highest down.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Order {
    Ascending,
    Descending,
}

/// What ZADD may do to a member.
#[derive(Debug, Clone, Copy, Default)]
struct AddOptions {
    only_new: bool,
    only_present: bool,
    only_greater: bool,
    only_less: bool,
    count_changed: bool,
    increment: bool,
}

impl AddOptions {
    /// Reads the options before the scores, and how many there are.
    fn parse(args: &[&[u8]]) -> (Self, usize) {
        let mut options = Self::default();
        let mut taken = 0;
        for arg in args {
            let flag = match arg {
                word if parse::is(word, "nx") => &mut options.only_new,
                word if parse::is(word, "xx") => &mut options.only_present,
                word if parse::is(word, "gt") => &mut options.only_greater,
                word if parse::is(word, "lt") => &mut options.only_less,
                word if parse::is(word, "ch") => &mut options.count_changed,
                word if parse::is(word, "incr") => &mut options.increment,
                _ => break,
            };
            *flag = true;
            taken += 1;
        }
        (options, taken)
    }

    fn check(self, pairs: usize) -> Result<(), CommandError> {
        if self.only_new && self.only_present {
            return Err(CommandError::new("ERR XX and NX options at the same time are not compatible"));
        }
        if (self.only_greater && self.only_less) || (self.only_new && (self.only_greater || self.only_less)) {
            return Err(CommandError::new(
                "ERR GT, LT, and/or NX options at the same time are not compatible",
            ));
        }
        if self.increment && pairs > 1 {
            return Err(CommandError::new("ERR INCR option supports a single increment-element pair"));
        }
        Ok(())
    }

    /// The score that a member is to have, or `None` to leave it as it is.
    fn decide(self, present: Option<f64>, given: f64) -> Option<f64> {
        match present {
            None => (!self.only_present).then_some(given),
            Some(_) if self.only_new => None,
            Some(present) => {
                let score = if self.increment { present + given } else { given };
                let refused = (self.only_greater && score <= present) || (self.only_less && score >= present);
                (!refused).then_some(score)
            }
        }
    }
}

fn zadd(ctx: &mut Ctx<'_, '_>, args: &[&[u8]], out: &mut Reply) -> CommandResult {
    let (options, taken) = AddOptions::parse(&args[2..]);
    let (pairs, rest) = args[2 + taken..].as_chunks::<2>();
    if pairs.is_empty() || !rest.is_empty() {
        return Err(CommandError::SYNTAX);
    }
    add(ctx, args[1], options, pairs, out)
}

fn zincrby(ctx: &mut Ctx<'_, '_>, args: &[&[u8]], out: &mut Reply) -> CommandResult {
    let options = AddOptions { increment: true, ..AddOptions::default() };
    add(ctx, args[1], options, &[[args[2], args[3]]], out)
}

fn add(
    ctx: &mut Ctx<'_, '_>,
    key: &[u8],
    options: AddOptions,
    pairs: &[[&[u8]; 2]],
    out: &mut Reply,
) -> CommandResult {
    options.check(pairs.len())?;
    // All scores are read before anything changes.
    let mut scores = smallvec::SmallVec::<[f64; 8]>::new();
    for [score, _] in pairs {
        scores.push(parse::float(score)?);
    }
    let limits = ctx.engine.settings.encoding_limits();
    if options.only_present && ctx.write_as::<SortedSet>(key)?.is_none() {
        if options.increment {
            out.null();
        } else {
            out.integer(0);
        }
        return Ok(());
    }
    let mut set = ctx.write_or_create::<SortedSet>(key)?;
    let (mut added, mut updated, mut is_nan, mut result) = (0, 0, false, None);
    for ([_, member], score) in pairs.iter().zip(&scores) {
        let change = set.update_with(member, &limits, |present| {
            let decided = options.decide(present, *score)?;
            is_nan |= decided.is_nan();
            result = Some(decided);
            Some(decided)
        });
        match change {
            ScoreChange::Added => added += 1,
            ScoreChange::Updated => updated += 1,
            ScoreChange::Unchanged => {}
        }
    }
    drop(set);
    if is_nan {
        return Err(CommandError::new("ERR resulting score is not a number (NaN)"));
    }
    if added + updated > 0 {
        ctx.modified(key, Class::SortedSet, if options.increment { "zincr" } else { "zadd" });
    }
    if options.increment {
        match result {
            Some(score) => out.double(score),
            None => out.null(),
        }
    } else {
        out.integer(if options.count_changed { added + updated } else { added });
    }
    Ok(())
}

fn zrem(ctx: &mut Ctx<'_, '_>, args: &[&[u8]], out: &mut Reply) -> CommandResult {
    let mut removed = 0;
    if let Some(mut set) = ctx.write_as::<SortedSet>(args[1])? {
        removed = args[2..].iter().filter(|member| set.remove(member).is_some()).count();
    }
    if removed > 0 {
        ctx.modified(args[1], Class::SortedSet, "zrem");
        ctx.remove_if_empty::<SortedSet>(args[1]);
    }
    out.integer(removed as i64);
    Ok(())
}

fn zscore(ctx: &mut Ctx<'_, '_>, args: &[&[u8]], out: &mut Reply) -> CommandResult {
    match ctx.read_as::<SortedSet>(args[1])?.and_then(|set| set.score(args[2])) {
        Some(score) => out.double(score),
        None => out.null(),
    }
    Ok(())
}

fn zmscore(ctx: &mut Ctx<'_, '_>, args: &[&[u8]], out: &mut Reply) -> CommandResult {
    let set = ctx.read_as::<SortedSet>(args[1])?;
    out.array(args.len() - 2);
    for member in &args[2..] {
        match set.and_then(|set| set.score(member)) {
            Some(score) => out.double(score),
            None => out.null(),
        }
    }
    Ok(())
}

fn zcard(ctx: &mut Ctx<'_, '_>, args: &[&[u8]], out: &mut Reply) -> CommandResult {
    out.integer(ctx.read_as::<SortedSet>(args[1])?.map_or(0, SortedSet::len) as i64);
    Ok(())
}

fn rank(ctx: &mut Ctx<'_, '_>, args: &[&[u8]], out: &mut Reply, order: Order) -> CommandResult {
    let set = ctx.read_as::<SortedSet>(args[1])?;
    match set.and_then(|set| set.rank(args[2]).map(|rank| (rank, set.len()))) {
        Some((rank, _)) if order == Order::Ascending => out.integer(rank as i64),
        Some((rank, len)) => out.integer((len - 1 - rank) as i64),
        None => out.null(),
    }
    Ok(())
}

/// Takes up to `count` members from one end.
pub(super) fn take(set: &mut SortedSet, order: Order, count: usize) -> Vec<(Vec<u8>, f64)> {
    let mut taken = Vec::new();
    for _ in 0..count.min(set.len()) {
        taken.extend(if order == Order::Ascending { set.pop_min() } else { set.pop_max() });
    }
    taken
}

pub(super) fn note_popped(ctx: &mut Ctx<'_, '_>, key: &[u8], order: Order) {
    let event = if order == Order::Ascending { "zpopmin" } else { "zpopmax" };
    ctx.modified(key, Class::SortedSet, event);
    ctx.remove_if_empty::<SortedSet>(key);
}

fn zpop(ctx: &mut Ctx<'_, '_>, args: &[&[u8]], out: &mut Reply, order: Order) -> CommandResult {
    if args.len() > 3 {
        return Err(CommandError::SYNTAX);
    }
    let key = args[1];
    let count = args.get(2).map(|count| parse::non_negative(count)).transpose()?;
    let wanted = usize::try_from(count.unwrap_or(1)).unwrap_or(usize::MAX);
    let popped = match ctx.write_as::<SortedSet>(key)? {
        Some(mut set) => take(&mut set, order, wanted),
        None => Vec::new(),
    };
    // With a count RESP3 nests each pair; without one the reply is flat in both.
    let nests = count.is_some() && out.version() == Version::Resp3;
    out.array(popped.len() * if nests { 1 } else { 2 });
    for (member, score) in &popped {
        if out.is_over() {
            break;
        }
        if nests {
            out.array(2);
        }
        out.bulk(member);
        out.double(*score);
    }
    if !popped.is_empty() {
        note_popped(ctx, key, order);
    }
    Ok(())
}

/// The end that ZMPOP takes from.
pub(super) fn order_of(word: &[u8]) -> Result<Order, CommandError> {
    match word {
        word if parse::is(word, "min") => Ok(Order::Ascending),
        word if parse::is(word, "max") => Ok(Order::Descending),
        _ => Err(CommandError::SYNTAX),
    }
}

fn zmpop(ctx: &mut Ctx<'_, '_>, args: &[&[u8]], out: &mut Reply) -> CommandResult {
    let (keys, rest) = numbered_keys(args, 1)?;
    let (word, options) = rest.split_first().ok_or(CommandError::SYNTAX)?;
    let order = order_of(word)?;
    let count = pop_count(options)?;
    if !take_first(ctx, keys, &Wanted::ZPopMany(order, count), out)? {
        out.null_array();
    }
    Ok(())
}

fn zrandmember(ctx: &mut Ctx<'_, '_>, args: &[&[u8]], out: &mut Reply) -> CommandResult {
    let Some(count) = args.get(2) else {
        let set = ctx.read_as::<SortedSet>(args[1])?;
        match set.and_then(|set| set.by_index(random_below(set.len()))) {
            Some((member, _)) => out.bulk(member),
            None => out.null(),
        }
        return Ok(());
    };
    let count = parse::random_count(count)?;
    let with_scores = match args.get(3) {
        None => false,
        Some(option) if parse::is(option, "withscores") && args.len() == 4 => true,
        Some(_) => return Err(CommandError::SYNTAX),
    };
    let is_enormous = count < -(i64::MAX / 2);
    if with_scores && (is_enormous || count > i64::MAX / 2) {
        return Err(CommandError::OUT_OF_RANGE);
    }
    let Some(set) = ctx.read_as::<SortedSet>(args[1])?.filter(|_| count != 0) else {
        out.array(0);
        return Ok(());
    };
    if is_enormous {
        return Err(CommandError::OUT_OF_RANGE);
    }
    let picks = Picks::new(set.len(), count);
    let members = picks.len();
    write_members(out, members, with_scores, picks.filter_map(|index| set.by_index(index)));
    Ok(())
}

/// Writes members, with their scores if wanted: flat in RESP2, in pairs in RESP3.
pub(super) fn write_members<'a>(
    out: &mut Reply,
    len: usize,
    with_scores: bool,
    members: impl Iterator<Item = (&'a [u8], f64)>,
) {
    let nests = out.version() == Version::Resp3;
    out.array(len * if with_scores && !nests { 2 } else { 1 });
    for (member, score) in members {
        if out.is_over() {
            break;
        }
        if with_scores && nests {
            out.array(2);
        }
        out.bulk(member);
        if with_scores {
            out.double(score);
        }
    }
}

fn zscan(ctx: &mut Ctx<'_, '_>, args: &[&[u8]], out: &mut Reply) -> CommandResult {
    let cursor = parse::cursor(args[2])?;
    let Some(set) = ctx.read_as::<SortedSet>(args[1])? else {
        nothing(out);
        return Ok(());
    };
    let options = ScanOptions::parse(&args[3..])?;
    let (next, members) = set.scan(cursor, options.count);
    out.array(2);
    out.bulk_u64(next);
    let mark = out.begin_deferred();
    let mut found = 0;
    let mut text = Vec::new();
    for (member, score) in members.filter(|(member, _)| options.admits(member)) {
        if out.is_over() {
            break;
        }
        out.bulk(member);
        // A score is text here in both versions of the protocol.
        text.clear();
        write_scanned_score(&mut text, score, set.encoding() == "listpack");
        out.bulk(&text);
        found += 2;
    }
    out.end_array(mark, found);
    Ok(())
}

/// The text of a score in ZSCAN's reply. The small encoding of Redis keeps integers up to half the range of 64 bits as
/// integers, and a scan shows its entries as they are.
#[allow(clippy::float_cmp, reason = "whether the integer is exactly the score is the question")]
fn write_scanned_score(text: &mut Vec<u8>, score: f64, is_small: bool) {
    const LARGEST: f64 = (i64::MAX / 2) as f64;
    let integer = score as i64;
    if is_small && score.abs() <= LARGEST && integer as f64 == score {
        text.extend_from_slice(itoa::Buffer::new().format(integer).as_bytes());
    } else {
        mtcache_protocol::write_double(text, score);
    }
}
