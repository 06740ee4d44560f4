//! Walks over the keys of a database: SCAN, KEYS, RANDOMKEY.
//!
//! None of them shows an expired key. What SCAN promises, and why it holds, stands at the cursor in `keyspace/scan.rs`.

use mtcache_protocol::{Reply, glob};

use super::Locks::All;
use super::{Row, parse};
use crate::context::Ctx;
use crate::error::{CommandError, CommandResult};
use crate::keyspace::{Db, Entry, ScanCursor, random_below};

pub(super) const TABLE: &[Row] = &[("scan", All, scan), ("keys", All, keys), ("randomkey", All, randomkey)];

/// Entries that one SCAN looks at unless `COUNT` says otherwise.
const DEFAULT_COUNT: usize = 10;

fn scan(ctx: &mut Ctx<'_, '_>, args: &[&[u8]], out: &mut Reply) -> CommandResult {
    let mut cursor = ScanCursor::from_wire(parse::cursor(args[1])?);
    let filter = Filter::parse(&args[2..])?;
    let db = ctx.db();
    let shards = ctx.engine.keyspace.shards();
    let mut keys = Reply::new(out.version());
    keys.set_ceiling(out.ceiling());
    let (mut found, mut left) = (0, filter.count);
    while cursor.shard < shards && left > 0 && !keys.is_over() {
        // What has expired is only noted here: a removal moves other entries.
        let mut expired: Vec<Box<[u8]>> = Vec::new();
        let now = ctx.expiry_now();
        let next = ctx.locked.shard(cursor.shard).walk(db, cursor.from, now, |entry, is_expired| {
            left = left.saturating_sub(1);
            if is_expired {
                expired.push(entry.key().into());
            } else if filter.admits(entry) {
                keys.bulk(entry.key());
                found += 1;
            }
        });
        for key in expired {
            ctx.remove_if_expired(&key);
        }
        cursor = match next {
            Some(from) => ScanCursor { from, ..cursor },
            None => ScanCursor::start_of(cursor.shard + 1),
        };
    }
    out.array(2);
    out.bulk_u64(cursor.to_wire(shards));
    out.array(found);
    out.raw(keys.as_bytes());
    Ok(())
}

/// The options of SCAN.
struct Filter<'a> {
    pattern: Option<&'a [u8]>,
    type_name: Option<&'a [u8]>,
    count: usize,
}

impl<'a> Filter<'a> {
    fn parse(args: &[&'a [u8]]) -> Result<Self, CommandError> {
        let mut filter = Self { pattern: None, type_name: None, count: DEFAULT_COUNT };
        let (options, rest) = args.as_chunks::<2>();
        for [option, value] in options {
            if parse::is(option, "count") {
                filter.count = match parse::integer(value)? {
                    count if count < 1 => return Err(CommandError::SYNTAX),
                    count => usize::try_from(count).unwrap_or(usize::MAX),
                };
            } else if parse::is(option, "match") {
                filter.pattern = (*value != b"*").then_some(*value);
            } else if parse::is(option, "type") {
                filter.type_name = Some(value);
            } else {
                return Err(CommandError::SYNTAX);
            }
        }
        if rest.is_empty() { Ok(filter) } else { Err(CommandError::SYNTAX) }
    }

    fn admits(&self, entry: &Entry) -> bool {
        self.type_name.is_none_or(|name| parse::is(name, entry.type_name()))
            && self.pattern.is_none_or(|pattern| glob::matches(pattern, entry.key(), false))
    }
}

fn keys(ctx: &mut Ctx<'_, '_>, args: &[&[u8]], out: &mut Reply) -> CommandResult {
    let pattern = (args[1] != b"*").then_some(args[1]);
    let (db, now) = (ctx.db(), ctx.expiry_now());
    let mark = out.begin_deferred();
    let mut found = 0;
    for shard in ctx.locked.shards() {
        for entry in shard.live_entries(db, now) {
            if out.is_over() {
                break;
            }
            if pattern.is_none_or(|pattern| glob::matches(pattern, entry.key(), false)) {
                out.bulk(entry.key());
                found += 1;
            }
        }
    }
    out.end_array(mark, found);
    Ok(())
}

fn randomkey(ctx: &mut Ctx<'_, '_>, _: &[&[u8]], out: &mut Reply) -> CommandResult {
    let db = ctx.db();
    // Each round that finds an expired entry removes it, so this ends.
    loop {
        let mut pick = random_below(ctx.database_len(db));
        let mut place = None;
        for (number, shard) in ctx.locked.shards().enumerate() {
            let len = shard.len(db);
            if pick < len {
                place = shard.db(db).and_then(Db::random_slot).map(|slot| (number, slot));
                break;
            }
            pick -= len;
        }
        let Some((number, slot)) = place else {
            out.null();
            return Ok(());
        };
        if let Some(entry) = ctx.live_at(number, db, slot) {
            out.bulk(entry.key());
            return Ok(());
        }
    }
}
