//! Ranges of sorted sets, by rank, score or member: reading, counting, storing and removing them.
//!
//! Every range is first made a range of ranks, which the type finds in logarithmic time; order, offset and limit are
//! arithmetic on ranks.

use std::ops::Range;

use mtcache_protocol::Reply;

use super::Locks::Keys;
use super::lists::index_range;
use super::sorted_sets::{Order, write_members};
use super::{Row, parse};
use crate::context::Ctx;
use crate::error::{CommandError, CommandResult};
use crate::keyspace::Value;
use crate::notify::Class;
use crate::types::{LexBound, ScoreBound, SortedSet};

pub(super) const TABLE: &[Row] = &[
    ("zrange", Keys, zrange),
    ("zrangestore", Keys, zrangestore),
    ("zrevrange", Keys, |ctx, args, out| read(ctx, args, out, By::Rank, Order::Descending)),
    ("zrangebyscore", Keys, |ctx, args, out| read(ctx, args, out, By::Score, Order::Ascending)),
    ("zrevrangebyscore", Keys, |ctx, args, out| read(ctx, args, out, By::Score, Order::Descending)),
    ("zrangebylex", Keys, |ctx, args, out| read(ctx, args, out, By::Lex, Order::Ascending)),
    ("zrevrangebylex", Keys, |ctx, args, out| read(ctx, args, out, By::Lex, Order::Descending)),
    ("zcount", Keys, |ctx, args, out| count(ctx, args, out, By::Score)),
    ("zlexcount", Keys, |ctx, args, out| count(ctx, args, out, By::Lex)),
    ("zremrangebyrank", Keys, |ctx, args, out| remove(ctx, args, out, By::Rank)),
    ("zremrangebyscore", Keys, |ctx, args, out| remove(ctx, args, out, By::Score)),
    ("zremrangebylex", Keys, |ctx, args, out| remove(ctx, args, out, By::Lex)),
];

/// What the bounds of a range are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum By {
    Rank,
    Score,
    Lex,
}

/// The bounds of a range, in ascending order.
enum Bounds<'a> {
    Rank(i64, i64),
    Score(ScoreBound, ScoreBound),
    Lex(LexBound<'a>, LexBound<'a>),
}

impl<'a> Bounds<'a> {
    /// Reads bounds; in descending order the upper one comes first, but for ranks, which then count from the other end.
    fn parse(by: By, order: Order, first: &'a [u8], second: &'a [u8]) -> Result<Self, CommandError> {
        let (min, max) =
            if order == Order::Descending && by != By::Rank { (second, first) } else { (first, second) };
        Ok(match by {
            By::Rank => Self::Rank(parse::integer(min)?, parse::integer(max)?),
            By::Score => Self::Score(score_bound(min)?, score_bound(max)?),
            By::Lex => Self::Lex(lex_bound(min)?, lex_bound(max)?),
        })
    }

    /// The ascending ranks of the range.
    fn ranks(&self, set: &SortedSet, order: Order) -> Range<usize> {
        let len = set.len();
        match *self {
            Self::Rank(start, stop) => {
                let (start, count) = index_range(start, stop, len);
                if order == Order::Ascending {
                    start..start + count
                } else {
                    len - start - count..len - start
                }
            }
            Self::Score(min, max) => set.ranks_by_score(min, max),
            Self::Lex(min, max) => set.ranks_by_lex(min, max),
        }
    }
}

fn score_bound(arg: &[u8]) -> Result<ScoreBound, CommandError> {
    match arg {
        [b'(', score @ ..] => parse::score(score).map(ScoreBound::Excluded),
        score => parse::score(score).map(ScoreBound::Included),
    }
}

fn lex_bound(arg: &[u8]) -> Result<LexBound<'_>, CommandError> {
    match arg {
        b"-" => Ok(LexBound::Min),
        b"+" => Ok(LexBound::Max),
        [b'[', member @ ..] => Ok(LexBound::Included(member)),
        [b'(', member @ ..] => Ok(LexBound::Excluded(member)),
        _ => Err(CommandError::new("ERR min or max not valid string range item")),
    }
}

/// A whole range request: which members, in which order, how many of them.
struct Request<'a> {
    bounds: Bounds<'a>,
    order: Order,
    /// Members to pass over, and how many to take; negative for all.
    limit: Option<(i64, i64)>,
    with_scores: bool,
}

impl<'a> Request<'a> {
    /// Reads `min max [options]`. `fixed` is what the command's name says already; ZRANGE says nothing.
    fn parse(
        first: &'a [u8],
        second: &'a [u8],
        mut options: &[&'a [u8]],
        fixed: Option<(By, Order)>,
        stores: bool,
    ) -> Result<Self, CommandError> {
        let (mut by, mut order) = fixed.map_or((None, None), |(by, order)| (Some(by), Some(order)));
        let (mut limit, mut with_scores) = (None, false);
        while let Some((option, rest)) = options.split_first() {
            options = rest;
            if !stores && parse::is(option, "withscores") {
                with_scores = true;
            } else if parse::is(option, "limit") {
                let [offset, count, rest @ ..] = rest else { return Err(CommandError::SYNTAX) };
                limit = Some((parse::integer(offset)?, parse::integer(count)?));
                options = rest;
            } else if order.is_none() && parse::is(option, "rev") {
                order = Some(Order::Descending);
            } else if by.is_none() && parse::is(option, "byscore") {
                by = Some(By::Score);
            } else if by.is_none() && parse::is(option, "bylex") {
                by = Some(By::Lex);
            } else {
                return Err(CommandError::SYNTAX);
            }
        }
        let (by, order) = (by.unwrap_or(By::Rank), order.unwrap_or(Order::Ascending));
        // By rank a limit of -1 is passed over, offset and all.
        limit = limit.filter(|(_, count)| by != By::Rank || *count != -1);
        if limit.is_some() && by == By::Rank {
            return Err(CommandError::new(
                "ERR syntax error, LIMIT is only supported in combination with either BYSCORE or BYLEX",
            ));
        }
        if with_scores && by == By::Lex {
            return Err(CommandError::new(
                "ERR syntax error, WITHSCORES not supported in combination with BYLEX",
            ));
        }
        Ok(Self { bounds: Bounds::parse(by, order, first, second)?, order, limit, with_scores })
    }

    /// The ascending ranks that are asked for.
    fn ranks(&self, set: &SortedSet) -> Range<usize> {
        let ranks = self.bounds.ranks(set, self.order);
        let Some((offset, count)) = self.limit else { return ranks };
        let (Ok(offset), true) = (usize::try_from(offset), ranks.start < ranks.end) else { return 0..0 };
        let len = ranks.len().saturating_sub(offset).min(usize::try_from(count).unwrap_or(usize::MAX));
        if len == 0 {
            return 0..0;
        }
        match self.order {
            Order::Ascending => ranks.start + offset..ranks.start + offset + len,
            Order::Descending => ranks.end - offset - len..ranks.end - offset,
        }
    }
}

fn zrange(ctx: &mut Ctx<'_, '_>, args: &[&[u8]], out: &mut Reply) -> CommandResult {
    let request = Request::parse(args[2], args[3], &args[4..], None, false)?;
    write(ctx, args[1], &request, out)
}

fn read(ctx: &mut Ctx<'_, '_>, args: &[&[u8]], out: &mut Reply, by: By, order: Order) -> CommandResult {
    let request = Request::parse(args[2], args[3], &args[4..], Some((by, order)), false)?;
    write(ctx, args[1], &request, out)
}

fn write(ctx: &mut Ctx<'_, '_>, key: &[u8], request: &Request<'_>, out: &mut Reply) -> CommandResult {
    let Some(set) = ctx.read_as::<SortedSet>(key)? else {
        out.array(0);
        return Ok(());
    };
    let members = set.iter_ranks(request.ranks(set));
    let (len, with_scores) = (members.len(), request.with_scores);
    match request.order {
        Order::Ascending => write_members(out, len, with_scores, members),
        Order::Descending => write_members(out, len, with_scores, members.rev()),
    }
    Ok(())
}

fn zrangestore(ctx: &mut Ctx<'_, '_>, args: &[&[u8]], out: &mut Reply) -> CommandResult {
    let request = Request::parse(args[3], args[4], &args[5..], None, true)?;
    let limits = ctx.engine.settings.encoding_limits();
    let mut result = SortedSet::new();
    if let Some(set) = ctx.read_as::<SortedSet>(args[2])? {
        let ranks = request.ranks(set);
        if ranks.len() > limits.zset_max_listpack_entries {
            result = SortedSet::new_large();
        }
        for (member, score) in set.iter_ranks(ranks) {
            result.insert(member, score, &limits);
        }
    }
    store(ctx, args[1], result, "zrangestore", out);
    Ok(())
}

/// Stores a computed sorted set and answers its size; an empty one removes the key.
pub(super) fn store(
    ctx: &mut Ctx<'_, '_>,
    key: &[u8],
    result: SortedSet,
    event: &'static str,
    out: &mut Reply,
) {
    let len = result.len();
    if len == 0 {
        if ctx.delete(key) {
            ctx.removed(key);
        }
    } else {
        ctx.put(key, Value::SortedSet(Box::new(result)), None);
        ctx.modified(key, Class::SortedSet, event);
    }
    out.integer(len as i64);
}

fn count(ctx: &mut Ctx<'_, '_>, args: &[&[u8]], out: &mut Reply, by: By) -> CommandResult {
    let bounds = Bounds::parse(by, Order::Ascending, args[2], args[3])?;
    let set = ctx.read_as::<SortedSet>(args[1])?;
    out.integer(set.map_or(0, |set| bounds.ranks(set, Order::Ascending).len()) as i64);
    Ok(())
}

fn remove(ctx: &mut Ctx<'_, '_>, args: &[&[u8]], out: &mut Reply, by: By) -> CommandResult {
    let bounds = Bounds::parse(by, Order::Ascending, args[2], args[3])?;
    let mut removed = 0;
    if let Some(mut set) = ctx.write_as::<SortedSet>(args[1])? {
        let ranks = bounds.ranks(&set, Order::Ascending);
        removed = set.remove_ranks(ranks);
    }
    if removed > 0 {
        let event = match by {
            By::Rank => "zremrangebyrank",
            By::Score => "zremrangebyscore",
            By::Lex => "zremrangebylex",
        };
        ctx.modified(args[1], Class::SortedSet, event);
        ctx.remove_if_empty::<SortedSet>(args[1]);
    }
    out.integer(removed as i64);
    Ok(())
}
