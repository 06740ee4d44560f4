//! SORT and `SORT_RO`: a list, set or sorted set in the order of its elements, or of what other keys say about them.
//!
//! Elements that weigh the same come in the order of their bytes, so that the result is the same each time. Whoever sorts by
//! or gets from other keys may touch any key, so that every shard is locked. Texts are compared by their bytes, as Redis does
//! in the C locale.

use std::cmp::Ordering;

use mtcache_protocol::Reply;

use super::Locks::All;
use super::{Row, parse};
use crate::context::{Ctx, Origin};
use crate::error::{CommandError, CommandResult};
use crate::keyspace::Collection;
use crate::notify::Class;
use crate::types::{Hash, List, ListEnd, Set, SortedSet};

pub(super) const TABLE: &[Row] = &[
    ("sort", All, |ctx, args, out| sort(ctx, args, out, Storing::Allowed)),
    ("sort_ro", All, |ctx, args, out| sort(ctx, args, out, Storing::Refused)),
];

/// Whether `STORE` is an option.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Storing {
    Allowed,
    Refused,
}

/// What SORT is asked for.
struct Request<'a> {
    descending: bool,
    alpha: bool,
    limit: Option<(i64, i64)>,
    by: Option<&'a [u8]>,
    get: Vec<&'a [u8]>,
    store: Option<&'a [u8]>,
}

impl<'a> Request<'a> {
    /// Who may not read every key may not name keys by what is stored either.
    fn parse(mut args: &[&'a [u8]], storing: Storing, reads_all: bool) -> Result<Self, CommandError> {
        let denied = |option| {
            CommandError::new(format!(
                "ERR {option} option of SORT denied due to insufficient ACL permissions"
            ))
        };
        let mut request =
            Self { descending: false, alpha: false, limit: None, by: None, get: Vec::new(), store: None };
        while let Some((option, rest)) = args.split_first() {
            args = match (option, rest) {
                (word, rest) if parse::is(word, "asc") => {
                    request.descending = false;
                    rest
                }
                (word, rest) if parse::is(word, "desc") => {
                    request.descending = true;
                    rest
                }
                (word, rest) if parse::is(word, "alpha") => {
                    request.alpha = true;
                    rest
                }
                (word, [start, count, rest @ ..]) if parse::is(word, "limit") => {
                    request.limit = Some((parse::integer(start)?, parse::integer(count)?));
                    rest
                }
                (word, [key, rest @ ..]) if storing == Storing::Allowed && parse::is(word, "store") => {
                    request.store = Some(key);
                    rest
                }
                (word, [pattern, rest @ ..]) if parse::is(word, "by") => {
                    if pattern.contains(&b'*') && !reads_all {
                        return Err(denied("BY"));
                    }
                    request.by = Some(pattern);
                    rest
                }
                (word, [pattern, rest @ ..]) if parse::is(word, "get") => {
                    if !reads_all {
                        return Err(denied("GET"));
                    }
                    request.get.push(pattern);
                    rest
                }
                _ => return Err(CommandError::SYNTAX),
            };
        }
        Ok(request)
    }

    /// The elements that are wanted, of so many.
    fn range(&self, len: usize) -> (usize, usize) {
        let len = len as i64;
        let (start, count) = self.limit.unwrap_or((0, -1));
        let start = start.clamp(0, len);
        let end = match count.clamp(-1, len) {
            count if count < 0 => len,
            count => (start + count).min(len),
        };
        (start as usize, end.max(start) as usize)
    }
}

/// An element, and what it is sorted by.
struct Item {
    element: Vec<u8>,
    weight: Weight,
}

enum Weight {
    /// Its own text, or none at all: nothing is sorted by.
    Own,
    Number(f64),
    /// Another key's text, if there is one.
    Text(Option<Vec<u8>>),
}

fn sort(ctx: &mut Ctx<'_, '_>, args: &[&[u8]], out: &mut Reply, storing: Storing) -> CommandResult {
    let user = &ctx.session.user;
    let reads_all = user.is_unrestricted() || user.rules().selector.may_read_every_key();
    let mut request = Request::parse(&args[2..], storing, reads_all)?;
    // A pattern without a place for the element means: do not sort.
    let mut unsorted = request.by.is_some_and(|pattern| !pattern.contains(&b'*'));
    let kind = ctx.read(args[1]).map(|entry| entry.type_name());
    if kind == Some("set") && unsorted && (request.store.is_some() || ctx.origin == Origin::Script) {
        // A set has no order of its own, and what is stored or computed has to have one.
        (unsorted, request.alpha, request.by) = (false, true, None);
    }
    let (elements, (start, end)) = elements(ctx, args[1], kind, &request, unsorted)?;
    let mut items = Vec::with_capacity(elements.len());
    let mut all_numbers = true;
    for element in elements {
        let weight = if unsorted { Some(Weight::Own) } else { weigh(ctx, &request, &element) };
        all_numbers &= weight.is_some();
        items.push(Item { element, weight: weight.unwrap_or(Weight::Own) });
    }
    if !all_numbers {
        return Err(CommandError::new("ERR One or more scores can't be converted into double"));
    }
    if !unsorted {
        let is_stored = request.store.is_some();
        items.sort_by(|a, b| {
            let order = compare(a, b, is_stored);
            if request.descending { order.reverse() } else { order }
        });
    }
    let chosen = items.get(start..end).unwrap_or_default();
    match request.store {
        None => answer(ctx, chosen, &request, out),
        Some(key) => store(ctx, key, chosen, &request, out),
    }
    Ok(())
}

/// The elements to be sorted, and which of them are wanted then.
fn elements(
    ctx: &mut Ctx<'_, '_>,
    key: &[u8],
    kind: Option<&str>,
    request: &Request<'_>,
    unsorted: bool,
) -> Result<(Vec<Vec<u8>>, (usize, usize)), CommandError> {
    let elements: Vec<Vec<u8>> = match kind {
        None => Vec::new(),
        Some("list") => ctx
            .write_as::<List>(key)?
            .map(|list| list.iter().map(<[u8]>::to_vec).collect())
            .unwrap_or_default(),
        Some("set") => ctx
            .write_as::<Set>(key)?
            .map(|set| set.iter().map(|member| member.as_ref().to_vec()).collect())
            .unwrap_or_default(),
        Some("zset") => {
            let Some(mut set) = ctx.write_as::<SortedSet>(key)? else { return Ok((Vec::new(), (0, 0))) };
            // As in Redis, which shows in OBJECT ENCODING.
            set.unpack();
            if unsorted && request.descending {
                (0..set.len())
                    .rev()
                    .filter_map(|rank| set.by_index(rank))
                    .map(|(member, _)| member.to_vec())
                    .collect()
            } else {
                set.iter().map(|(member, _)| member.to_vec()).collect()
            }
        }
        Some(_) => return Err(CommandError::WRONG_TYPE),
    };
    let range = request.range(elements.len());
    Ok((elements, range))
}

/// What an element is sorted by; `None` when that should be a number and is none.
fn weigh(ctx: &mut Ctx<'_, '_>, request: &Request<'_>, element: &[u8]) -> Option<Weight> {
    let text = match request.by {
        None if request.alpha => return Some(Weight::Own),
        None => Some(element.to_vec()),
        Some(pattern) => look_up(ctx, pattern, element),
    };
    if request.alpha {
        return Some(Weight::Text(text));
    }
    match text {
        None => Some(Weight::Number(0.0)),
        Some(text) => parse::weight(&text).map(Weight::Number),
    }
}

fn compare(a: &Item, b: &Item, is_stored: bool) -> Ordering {
    let texts = |a: &[u8], b: &[u8]| if is_stored { a.cmp(b) } else { until_nul(a).cmp(until_nul(b)) };
    match (&a.weight, &b.weight) {
        (Weight::Number(one), Weight::Number(other)) => {
            one.partial_cmp(other).unwrap_or(Ordering::Equal).then_with(|| a.element.cmp(&b.element))
        }
        (Weight::Text(one), Weight::Text(other)) => match (one, other) {
            (Some(one), Some(other)) => texts(one, other),
            _ => one.is_some().cmp(&other.is_some()),
        }
        .then_with(|| a.element.cmp(&b.element)),
        _ => texts(&a.element, &b.element),
    }
}

/// A text as C's `strcoll` sees it.
fn until_nul(text: &[u8]) -> &[u8] {
    text.split(|byte| *byte == 0).next().unwrap_or_default()
}

/// What the pattern's key says about an element: `#` is the element itself, `*` the place for it, `->` leads to a hash's
/// field.
fn look_up(ctx: &mut Ctx<'_, '_>, pattern: &[u8], element: &[u8]) -> Option<Vec<u8>> {
    if pattern == b"#" {
        return Some(element.to_vec());
    }
    let star = pattern.iter().position(|byte| *byte == b'*')?;
    let (before, after) = (pattern.get(..star)?, pattern.get(star + 1..)?);
    let arrow = after.windows(2).position(|pair| pair == b"->").filter(|at| at + 2 < after.len());
    let Some(arrow) = arrow else {
        let key = [before, element, after].concat();
        return ctx.read_string(&key).ok().flatten().map(<[u8]>::to_vec);
    };
    let key = [before, element, after.get(..arrow)?].concat();
    let field = after.get(arrow + 2..)?;
    ctx.read_as::<Hash>(&key).ok().flatten().and_then(|hash| hash.get(field)).map(<[u8]>::to_vec)
}

fn answer(ctx: &mut Ctx<'_, '_>, items: &[Item], request: &Request<'_>, out: &mut Reply) {
    out.array(items.len() * request.get.len().max(1));
    for item in items {
        if out.is_over() {
            break;
        }
        if request.get.is_empty() {
            out.bulk(&item.element);
        }
        for pattern in &request.get {
            match look_up(ctx, pattern, &item.element) {
                Some(value) => out.bulk(&value),
                None => out.null(),
            }
        }
    }
}

fn store(ctx: &mut Ctx<'_, '_>, key: &[u8], items: &[Item], request: &Request<'_>, out: &mut Reply) {
    let limits = ctx.engine.settings.encoding_limits();
    let mut list = List::new();
    for item in items {
        if request.get.is_empty() {
            list.push(ListEnd::Back, &item.element, &limits);
        }
        for pattern in &request.get {
            let value = look_up(ctx, pattern, &item.element).unwrap_or_default();
            list.push(ListEnd::Back, &value, &limits);
        }
    }
    let len = list.len();
    if len > 0 {
        ctx.put(key, list.into_value(), None);
        ctx.modified(key, Class::List, "sortstore");
    } else if ctx.delete(key) {
        ctx.removed(key);
    }
    out.integer(len as i64);
}
