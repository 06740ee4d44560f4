//! SLOWLOG: the commands that took long.

use mtcache_protocol::{Reply, parse_i64};

use super::Locks::None as NoLocks;
use super::{Row, write_help};
use crate::context::Ctx;
use crate::error::{CommandError, CommandResult};

pub(super) const TABLE: &[Row] = &[
    ("slowlog|get", NoLocks, get),
    ("slowlog|len", NoLocks, len),
    ("slowlog|reset", NoLocks, reset),
    ("slowlog|help", NoLocks, slowlog_help),
];

/// Entries that `SLOWLOG GET` gives without a count.
const DEFAULT_COUNT: usize = 10;

fn get(ctx: &mut Ctx<'_, '_>, args: &[&[u8]], out: &mut Reply) -> CommandResult {
    if args.len() > 3 {
        return Err(CommandError::wrong_arguments(args));
    }
    let count = match args.get(2) {
        None => DEFAULT_COUNT,
        Some(count) => {
            let refused = || CommandError::new("ERR count should be greater than or equal to -1");
            match parse_i64(count).ok_or_else(refused)? {
                -1 => usize::MAX,
                count => usize::try_from(count).map_err(|_| refused())?,
            }
        }
    };
    let entries = ctx.engine.slowlog.newest(count);
    out.array(entries.len());
    for entry in entries {
        out.array(6);
        out.integer(entry.id as i64);
        out.integer(entry.when.as_seconds() as i64);
        out.integer(entry.micros as i64);
        out.array(entry.args.len());
        for arg in &entry.args {
            out.bulk(arg);
        }
        out.bulk(entry.addr.as_bytes());
        out.bulk(&entry.name);
    }
    Ok(())
}

fn len(ctx: &mut Ctx<'_, '_>, _: &[&[u8]], out: &mut Reply) -> CommandResult {
    out.integer(ctx.engine.slowlog.len() as i64);
    Ok(())
}

fn reset(ctx: &mut Ctx<'_, '_>, _: &[&[u8]], out: &mut Reply) -> CommandResult {
    ctx.engine.slowlog.clear();
    out.ok();
    Ok(())
}

fn slowlog_help(_: &mut Ctx<'_, '_>, _: &[&[u8]], out: &mut Reply) -> CommandResult {
    write_help(
        "SLOWLOG",
        &[
            "GET [<count>]",
            "    The newest entries (default: 10, -1: all): id, time, microseconds, arguments, client address and name.",
            "LEN",
            "    Number of entries.",
            "RESET",
            "    Forgets all entries.",
        ],
        out,
    );
    Ok(())
}
