//! ZUNION, ZINTER, ZDIFF and their STORE forms: several sorted sets, or plain sets with a score of 1 each, made one.

use mtcache_protocol::Reply;

use super::Locks::Keys;
use super::sorted_set_ranges::store;
use super::sorted_sets::write_members;
use super::{Row, parse};
use crate::context::Ctx;
use crate::error::{CommandError, CommandResult};
use crate::keyspace::ValueRef;
use crate::types::{EncodingLimits, Set, SortedSet};

pub(super) const TABLE: &[Row] = &[
    ("zunion", Keys, |ctx, args, out| read(ctx, args, out, Operation::Union)),
    ("zinter", Keys, |ctx, args, out| read(ctx, args, out, Operation::Inter)),
    ("zdiff", Keys, |ctx, args, out| read(ctx, args, out, Operation::Diff)),
    ("zunionstore", Keys, |ctx, args, out| combine_and_store(ctx, args, out, Operation::Union)),
    ("zinterstore", Keys, |ctx, args, out| combine_and_store(ctx, args, out, Operation::Inter)),
    ("zdiffstore", Keys, |ctx, args, out| combine_and_store(ctx, args, out, Operation::Diff)),
    ("zintercard", Keys, zintercard),
];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Operation {
    Union,
    Inter,
    Diff,
}

impl Operation {
    fn event(self) -> &'static str {
        match self {
            Self::Union => "zunionstore",
            Self::Inter => "zinterstore",
            Self::Diff => "zdiffstore",
        }
    }
}

/// How the scores of one member are brought together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Aggregate {
    Sum,
    Min,
    Max,
}

impl Aggregate {
    fn apply(self, a: f64, b: f64) -> f64 {
        match self {
            // Infinities of both signs meet at zero, as Redis has it.
            Self::Sum if (a + b).is_nan() => 0.0,
            Self::Sum => a + b,
            Self::Min => {
                if b < a {
                    b
                } else {
                    a
                }
            }
            Self::Max => {
                if b > a {
                    b
                } else {
                    a
                }
            }
        }
    }
}

/// One of the inputs.
#[derive(Clone, Copy)]
enum Source<'a> {
    Absent,
    Sorted(&'a SortedSet),
    Plain(&'a Set),
}

impl Source<'_> {
    fn len(self) -> usize {
        match self {
            Self::Absent => 0,
            Self::Sorted(set) => set.len(),
            Self::Plain(set) => set.len(),
        }
    }

    fn score(self, member: &[u8]) -> Option<f64> {
        match self {
            Self::Absent => None,
            Self::Sorted(set) => set.score(member),
            Self::Plain(set) => set.contains(member).then_some(1.0),
        }
    }

    fn for_each(self, mut each: impl FnMut(&[u8], f64) -> bool) {
        match self {
            Self::Absent => {}
            Self::Sorted(set) => {
                for (member, score) in set {
                    if !each(member, score) {
                        return;
                    }
                }
            }
            Self::Plain(set) => {
                for member in set {
                    if !each(member.as_bytes(), 1.0) {
                        return;
                    }
                }
            }
        }
    }
}

/// A parsed request.
struct Request<'a> {
    keys: &'a [&'a [u8]],
    weights: Vec<f64>,
    aggregate: Aggregate,
    with_scores: bool,
}

impl<'a> Request<'a> {
    /// Reads `numkeys key [key ...] [options]` from `args[at]` on.
    ///
    /// The inputs' types are checked before the options are read, as Redis does.
    fn parse(
        ctx: &mut Ctx<'_, '_>,
        args: &'a [&'a [u8]],
        at: usize,
        operation: Operation,
        stores: bool,
    ) -> Result<Self, CommandError> {
        let numkeys = parse::integer(args[at])?;
        let Some(numkeys) = usize::try_from(numkeys).ok().filter(|n| *n > 0) else {
            let name = String::from_utf8_lossy(args[0]).to_ascii_lowercase();
            return Err(CommandError::new(format!(
                "ERR at least 1 input key is needed for '{name}' command"
            )));
        };
        let (keys, mut options) = args[at + 1..].split_at_checked(numkeys).ok_or(CommandError::SYNTAX)?;
        check(ctx, keys)?;
        let mut request =
            Self { keys, weights: vec![1.0; numkeys], aggregate: Aggregate::Sum, with_scores: false };
        while let Some((option, rest)) = options.split_first() {
            options = rest;
            if operation != Operation::Diff && parse::is(option, "weights") {
                let (weights, rest) = rest.split_at_checked(numkeys).ok_or(CommandError::SYNTAX)?;
                for (place, weight) in request.weights.iter_mut().zip(weights) {
                    *place =
                        parse::double(weight).ok_or(CommandError::new("ERR weight value is not a float"))?;
                }
                options = rest;
            } else if operation != Operation::Diff && parse::is(option, "aggregate") {
                let (word, rest) = rest.split_first().ok_or(CommandError::SYNTAX)?;
                request.aggregate = match word {
                    word if parse::is(word, "sum") => Aggregate::Sum,
                    word if parse::is(word, "min") => Aggregate::Min,
                    word if parse::is(word, "max") => Aggregate::Max,
                    _ => return Err(CommandError::SYNTAX),
                };
                options = rest;
            } else if !stores && parse::is(option, "withscores") {
                request.with_scores = true;
            } else {
                return Err(CommandError::SYNTAX);
            }
        }
        Ok(request)
    }
}

/// Looks the inputs up: checks their types and drops what has expired.
fn check(ctx: &mut Ctx<'_, '_>, keys: &[&[u8]]) -> CommandResult {
    for key in keys {
        match ctx.read(key).map(|entry| matches!(entry.value(), ValueRef::Set(_) | ValueRef::SortedSet(_))) {
            None | Some(true) => {}
            Some(false) => return Err(CommandError::WRONG_TYPE),
        }
    }
    Ok(())
}

fn sources<'a>(ctx: &'a Ctx<'_, '_>, keys: &[&[u8]]) -> Vec<Source<'a>> {
    let source = |key: &&[u8]| match (ctx.view_as::<SortedSet>(key), ctx.view_as::<Set>(key)) {
        (Some(set), _) => Source::Sorted(set),
        (None, Some(set)) => Source::Plain(set),
        (None, None) => Source::Absent,
    };
    keys.iter().map(source).collect()
}

fn weighted(score: f64, weight: f64) -> f64 {
    let product = score * weight;
    if product.is_nan() { 0.0 } else { product }
}

fn combine(
    ctx: &Ctx<'_, '_>,
    request: &Request<'_>,
    operation: Operation,
    limits: &EncodingLimits,
) -> SortedSet {
    let mut inputs: Vec<(Source<'_>, f64)> =
        sources(ctx, request.keys).into_iter().zip(request.weights.iter().copied()).collect();
    // Large while it is made, as in Redis: reading it shows zeros with their sign, storing it may drop that.
    let mut result = SortedSet::new_large();
    if operation == Operation::Diff {
        let Some(((first, _), others)) = inputs.split_first() else { return result };
        first.for_each(|member, score| {
            if others.iter().all(|(other, _)| other.score(member).is_none()) {
                result.insert(member, score, limits);
            }
            true
        });
        return result;
    }
    // As Redis, from the smallest input on: the order decides how floating point sums round.
    inputs.sort_by_key(|(source, _)| source.len());
    if operation == Operation::Union {
        for (source, weight) in inputs {
            source.for_each(|member, score| {
                let mut score = weighted(score, weight);
                if let Some(present) = result.score(member) {
                    score = request.aggregate.apply(present, score);
                    // Taken out first, because one zero does not replace the other.
                    if score.to_bits() != present.to_bits() {
                        result.remove(member);
                    }
                }
                result.insert(member, score, limits);
                true
            });
        }
        return result;
    }
    let Some(((smallest, weight), others)) = inputs.split_first() else { return result };
    smallest.for_each(|member, score| {
        let total = others.iter().try_fold(weighted(score, *weight), |total, (other, weight)| {
            // Redis makes no zero of a product here that is not a number: a sum becomes zero, MIN and MAX pass over it.
            Some(request.aggregate.apply(total, other.score(member)? * weight))
        });
        if let Some(total) = total {
            result.insert(member, total, limits);
        }
        true
    });
    result
}

fn read(ctx: &mut Ctx<'_, '_>, args: &[&[u8]], out: &mut Reply, operation: Operation) -> CommandResult {
    let request = Request::parse(ctx, args, 1, operation, false)?;
    let limits = ctx.engine.settings.encoding_limits();
    let result = combine(ctx, &request, operation, &limits);
    write_members(out, result.len(), request.with_scores, result.iter());
    Ok(())
}

fn combine_and_store(
    ctx: &mut Ctx<'_, '_>,
    args: &[&[u8]],
    out: &mut Reply,
    operation: Operation,
) -> CommandResult {
    let request = Request::parse(ctx, args, 2, operation, true)?;
    let limits = ctx.engine.settings.encoding_limits();
    let mut result = combine(ctx, &request, operation, &limits);
    result.pack_if_small(&limits);
    store(ctx, args[1], result, operation.event(), out);
    Ok(())
}

fn zintercard(ctx: &mut Ctx<'_, '_>, args: &[&[u8]], out: &mut Reply) -> CommandResult {
    let numkeys = parse::integer(args[1])?;
    let Some(numkeys) = usize::try_from(numkeys).ok().filter(|n| *n > 0) else {
        return Err(CommandError::new("ERR at least 1 input key is needed for 'zintercard' command"));
    };
    let (keys, options) = args[2..].split_at_checked(numkeys).ok_or(CommandError::SYNTAX)?;
    check(ctx, keys)?;
    let mut limit = usize::MAX;
    let mut options = options;
    while let Some((word, rest)) = options.split_first() {
        let Some((given, rest)) = rest.split_first().filter(|_| parse::is(word, "limit")) else {
            return Err(CommandError::SYNTAX);
        };
        let given = parse::integer(given).ok().filter(|n| *n >= 0);
        limit = match given.ok_or(CommandError::new("ERR LIMIT can't be negative"))? {
            0 => usize::MAX,
            given => usize::try_from(given).unwrap_or(usize::MAX),
        };
        options = rest;
    }
    let mut inputs = sources(ctx, keys);
    inputs.sort_by_key(|source| source.len());
    let mut found = 0;
    if let Some((smallest, others)) = inputs.split_first() {
        smallest.for_each(|member, _| {
            found += usize::from(others.iter().all(|other| other.score(member).is_some()));
            found < limit
        });
    }
    out.integer(found as i64);
    Ok(())
}
