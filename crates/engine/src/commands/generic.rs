//! Commands that know no type: DEL, EXISTS, RENAME, COPY, the databases as wholes, and their like.

use mtcache_protocol::Reply;

use super::Locks::{All, Keys, None as NoLocks};
use super::{Row, parse};
use crate::context::Ctx;
use crate::error::{CommandError, CommandResult};
use crate::keyspace::DbIndex;
use crate::notify::Class;

pub(super) const TABLE: &[Row] = &[
    ("del", Keys, del),
    ("unlink", Keys, del),
    ("exists", Keys, exists),
    ("touch", Keys, touch),
    ("type", Keys, type_of),
    ("rename", Keys, rename),
    ("renamenx", Keys, renamenx),
    ("copy", Keys, copy),
    ("move", Keys, move_key),
    ("select", NoLocks, select),
    ("swapdb", All, swapdb),
    ("flushdb", All, flushdb),
    ("flushall", All, flushall),
    ("dbsize", All, dbsize),
];

fn del(ctx: &mut Ctx<'_, '_>, args: &[&[u8]], out: &mut Reply) -> CommandResult {
    let mut removed = 0;
    for key in &args[1..] {
        if ctx.delete(key) {
            ctx.removed(key);
            removed += 1;
        }
    }
    out.integer(removed);
    Ok(())
}

fn exists(ctx: &mut Ctx<'_, '_>, args: &[&[u8]], out: &mut Reply) -> CommandResult {
    let found = args[1..].iter().filter(|key| ctx.look(key).is_some()).count();
    out.integer(found as i64);
    Ok(())
}

fn touch(ctx: &mut Ctx<'_, '_>, args: &[&[u8]], out: &mut Reply) -> CommandResult {
    let found = args[1..].iter().filter(|key| ctx.read(key).is_some()).count();
    out.integer(found as i64);
    Ok(())
}

fn type_of(ctx: &mut Ctx<'_, '_>, args: &[&[u8]], out: &mut Reply) -> CommandResult {
    out.simple(ctx.look(args[1]).map_or("none", |entry| entry.type_name()));
    Ok(())
}

fn rename(ctx: &mut Ctx<'_, '_>, args: &[&[u8]], out: &mut Reply) -> CommandResult {
    let (from, to) = (args[1], args[2]);
    if ctx.write(from).is_none() {
        return Err(CommandError::NO_SUCH_KEY);
    }
    if from != to {
        ctx.delete(to);
        move_value(ctx, from, to);
    }
    out.ok();
    Ok(())
}

fn renamenx(ctx: &mut Ctx<'_, '_>, args: &[&[u8]], out: &mut Reply) -> CommandResult {
    let (from, to) = (args[1], args[2]);
    if ctx.write(from).is_none() {
        return Err(CommandError::NO_SUCH_KEY);
    }
    let free = from != to && !ctx.exists(to);
    if free {
        move_value(ctx, from, to);
    }
    out.integer(i64::from(free));
    Ok(())
}

/// Gives what is under `from` the name `to`, which is free.
fn move_value(ctx: &mut Ctx<'_, '_>, from: &[u8], to: &[u8]) {
    if let Some(entry) = ctx.take(from) {
        ctx.put_entry(ctx.db(), entry.into_renamed(to));
        ctx.modified(from, Class::Generic, "rename_from");
        ctx.modified(to, Class::Generic, "rename_to");
    }
}

fn copy(ctx: &mut Ctx<'_, '_>, args: &[&[u8]], out: &mut Reply) -> CommandResult {
    let (from, to) = (args[1], args[2]);
    let source = ctx.db();
    let mut target = source;
    let mut replace = false;
    let mut options = args[3..].iter();
    while let Some(option) = options.next() {
        if parse::is(option, "replace") {
            replace = true;
        } else if parse::is(option, "db")
            && let Some(number) = options.next()
        {
            target = parse::database(number, ctx.engine.databases())?;
        } else {
            return Err(CommandError::SYNTAX);
        }
    }
    if source == target && from == to {
        return Err(CommandError::SAME_OBJECT);
    }
    // The copy is new: what is known of the uses of the original is not its own.
    let made = ctx.engine.settings.access_clock(ctx.now).initial();
    let Some(original) = ctx.read(from) else {
        out.integer(0);
        return Ok(());
    };
    let expires_at = original.expires_at();
    let mut copied = original.copy_as(to, made);
    copied.set_expires_at(expires_at);
    let taken = ctx.peek_in(target, to).is_some();
    let done = !taken || replace;
    if done {
        ctx.put_entry(target, copied);
        ctx.modified_in(target, to, Class::Generic, "copy_to");
    }
    out.integer(i64::from(done));
    Ok(())
}

fn move_key(ctx: &mut Ctx<'_, '_>, args: &[&[u8]], out: &mut Reply) -> CommandResult {
    let key = args[1];
    let (source, target) = (ctx.db(), parse::database(args[2], ctx.engine.databases())?);
    if source == target {
        return Err(CommandError::SAME_OBJECT);
    }
    let movable = ctx.write(key).is_some() && ctx.peek_in(target, key).is_none();
    if movable && let Some(entry) = ctx.take(key) {
        ctx.put_entry(target, entry);
        ctx.modified_in(source, key, Class::Generic, "move_from");
        ctx.modified_in(target, key, Class::Generic, "move_to");
    }
    out.integer(i64::from(movable));
    Ok(())
}

fn select(ctx: &mut Ctx<'_, '_>, args: &[&[u8]], out: &mut Reply) -> CommandResult {
    let db = parse::database(args[1], ctx.engine.databases())?;
    ctx.session.select(db);
    out.ok();
    Ok(())
}

fn swapdb(ctx: &mut Ctx<'_, '_>, args: &[&[u8]], out: &mut Reply) -> CommandResult {
    let number = |arg: &[u8], which: &str| {
        parse::small_integer(arg).map_err(|_| CommandError::new(format!("ERR invalid {which} DB index")))
    };
    let (first, second) = (number(args[1], "first")?, number(args[2], "second")?);
    let existing = |number: i32| match DbIndex::try_from(number) {
        Ok(db) if usize::from(db) < ctx.engine.databases() => Ok(db),
        _ => Err(CommandError::DB_OUT_OF_RANGE),
    };
    let (first, second) = (existing(first)?, existing(second)?);
    ctx.swap_databases(first, second);
    ctx.mark_dirty();
    out.ok();
    Ok(())
}

fn flushdb(ctx: &mut Ctx<'_, '_>, args: &[&[u8]], out: &mut Reply) -> CommandResult {
    check_flush_mode(args)?;
    ctx.clear_database(ctx.db());
    ctx.flushed();
    ctx.mark_dirty();
    out.ok();
    Ok(())
}

fn flushall(ctx: &mut Ctx<'_, '_>, args: &[&[u8]], out: &mut Reply) -> CommandResult {
    check_flush_mode(args)?;
    for db in 0..ctx.engine.databases() {
        ctx.clear_database(db as DbIndex);
    }
    ctx.flushed();
    ctx.mark_dirty();
    out.ok();
    Ok(())
}

/// ASYNC and SYNC are the same here: values are always dropped after the locks are released.
fn check_flush_mode(args: &[&[u8]]) -> CommandResult {
    match args {
        [_] => Ok(()),
        [_, mode] if parse::is(mode, "async") || parse::is(mode, "sync") => Ok(()),
        _ => Err(CommandError::SYNTAX),
    }
}

fn dbsize(ctx: &mut Ctx<'_, '_>, _: &[&[u8]], out: &mut Reply) -> CommandResult {
    out.integer(ctx.database_len(ctx.db()) as i64);
    Ok(())
}
