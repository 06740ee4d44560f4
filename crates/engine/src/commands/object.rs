//! OBJECT: how a value is kept, and what the eviction policy knows of it.

use mtcache_protocol::Reply;

use super::Locks::{Keys, None as NoLocks};
use super::Row;
use crate::context::Ctx;
use crate::error::{CommandError, CommandResult};
use crate::keyspace::{Entry, StringEncoding, ValueRef, idle_millis};

pub(super) const TABLE: &[Row] = &[
    ("object|encoding", Keys, encoding),
    ("object|freq", Keys, freq),
    ("object|idletime", Keys, idletime),
    ("object|refcount", Keys, refcount),
    ("object|help", NoLocks, help),
];

/// The longest string that Redis keeps in one block with its header.
const EMBEDDED_LEN: usize = 44;
/// Redis shares the objects of the integers below this one.
const SHARED_INTEGERS: usize = 10_000;
/// What Redis shows as the number of references of a shared object.
const SHARED_REFCOUNT: i64 = i32::MAX as i64;

fn encoding(ctx: &mut Ctx<'_, '_>, args: &[&[u8]], out: &mut Reply) -> CommandResult {
    match ctx.inspect(args[2]) {
        Some(entry) => out.bulk(encoding_name(entry).as_bytes()),
        None => out.null(),
    }
    Ok(())
}

/// The name of an entry's encoding, as OBJECT ENCODING shows it.
pub(crate) fn encoding_name(entry: &Entry) -> &'static str {
    match entry.value() {
        ValueRef::String(_, StringEncoding::Int) => "int",
        ValueRef::String(bytes, StringEncoding::Whole) if bytes.len() <= EMBEDDED_LEN => "embstr",
        ValueRef::String(..) => "raw",
        ValueRef::Hash(hash) => hash.encoding(),
        ValueRef::List(list) => list.encoding(),
        ValueRef::Set(set) => set.encoding(),
        ValueRef::SortedSet(set) => set.encoding(),
    }
}

fn freq(ctx: &mut Ctx<'_, '_>, args: &[&[u8]], out: &mut Reply) -> CommandResult {
    let (settings, now) = (&ctx.engine.settings, ctx.now);
    let Some(entry) = ctx.inspect(args[2]) else {
        out.null();
        return Ok(());
    };
    if !settings.policy().is_lfu() {
        return Err(CommandError::NOT_LFU);
    }
    out.integer(i64::from(settings.lfu().counter(entry.access(), now)));
    Ok(())
}

fn idletime(ctx: &mut Ctx<'_, '_>, args: &[&[u8]], out: &mut Reply) -> CommandResult {
    let (policy, now) = (ctx.engine.policy(), ctx.now);
    let Some(entry) = ctx.inspect(args[2]) else {
        out.null();
        return Ok(());
    };
    if policy.is_lfu() {
        return Err(CommandError::IS_LFU);
    }
    out.integer((idle_millis(entry.access(), now) / 1000) as i64);
    Ok(())
}

/// Nothing is ever shared here, but clients that look for Redis' shared integers find them.
fn refcount(ctx: &mut Ctx<'_, '_>, args: &[&[u8]], out: &mut Reply) -> CommandResult {
    let policy = ctx.engine.policy();
    let shares = ctx.engine.settings.maxmemory() == 0 || !policy.reads_access_records();
    match ctx.inspect(args[2]).map(Entry::value) {
        Some(ValueRef::String(text, StringEncoding::Int)) if shares && is_shared_integer(text) => {
            out.integer(SHARED_REFCOUNT);
        }
        Some(_) => out.integer(1),
        None => out.null(),
    }
    Ok(())
}

fn is_shared_integer(text: &[u8]) -> bool {
    std::str::from_utf8(text).is_ok_and(|text| text.parse().is_ok_and(|value: usize| value < SHARED_INTEGERS))
}

fn help(_: &mut Ctx<'_, '_>, _: &[&[u8]], out: &mut Reply) -> CommandResult {
    const LINES: [&str; 12] = [
        "ENCODING <key>",
        "    Return the kind of internal representation used in order to store the value",
        "    associated with a <key>.",
        "FREQ <key>",
        "    Return the access frequency index of the <key>. The returned integer is",
        "    proportional to the logarithm of the recent access frequency of the key.",
        "IDLETIME <key>",
        "    Return the idle time of the <key>, that is the approximated number of",
        "    seconds elapsed since the last access to the key.",
        "REFCOUNT <key>",
        "    Return the number of references of the value associated with the specified",
        "    <key>.",
    ];
    super::write_help("OBJECT", &LINES, out);
    Ok(())
}
