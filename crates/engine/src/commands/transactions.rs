//! MULTI, DISCARD, WATCH, UNWATCH. EXEC itself is the dispatcher's: it locks for all queued commands at once.
//!
//! A watch is a flag that a change of the key raises, under the lock of the key's shard. A key that has expired when it is
//! watched is removed first, so that "absent" is what is watched, and its removal no change.

use std::sync::atomic::Ordering;

use mtcache_protocol::Reply;

use super::Locks::{Exec, Keys, None as NoLocks};
use super::Row;
use crate::context::Ctx;
use crate::error::{CommandError, CommandResult};
use crate::session::Transaction;

pub(super) const TABLE: &[Row] = &[
    ("multi", NoLocks, multi),
    ("exec", Exec, exec),
    ("discard", NoLocks, discard),
    ("watch", Keys, watch),
    ("unwatch", NoLocks, unwatch),
];

fn multi(ctx: &mut Ctx<'_, '_>, _: &[&[u8]], out: &mut Reply) -> CommandResult {
    if ctx.session.transaction.is_some() {
        return Err(CommandError::NESTED_MULTI);
    }
    ctx.session.transaction = Some(Transaction::default());
    out.ok();
    Ok(())
}

/// Only reached without a transaction.
fn exec(_: &mut Ctx<'_, '_>, _: &[&[u8]], _: &mut Reply) -> CommandResult {
    Err(CommandError::EXEC_WITHOUT_MULTI)
}

fn discard(ctx: &mut Ctx<'_, '_>, _: &[&[u8]], out: &mut Reply) -> CommandResult {
    if ctx.session.transaction.take().is_none() {
        return Err(CommandError::DISCARD_WITHOUT_MULTI);
    }
    ctx.engine.unwatch_all(ctx.session);
    out.ok();
    Ok(())
}

fn watch(ctx: &mut Ctx<'_, '_>, args: &[&[u8]], out: &mut Reply) -> CommandResult {
    if ctx.session.transaction.is_some() {
        return Err(CommandError::WATCH_INSIDE_MULTI);
    }
    out.ok();
    // A watched key has changed already: EXEC will refuse, whatever else is watched.
    if ctx.session.watch_flag.load(Ordering::Acquire) {
        return Ok(());
    }
    let db = ctx.db();
    for key in &args[1..] {
        if ctx.session.watched.iter().any(|(watched_db, watched)| *watched_db == db && **watched == **key) {
            continue;
        }
        ctx.exists(key);
        let flag = ctx.session.watch_flag.clone();
        ctx.shard_of(key).watch(db, key, &flag);
        ctx.session.watched.push((db, Box::from(*key)));
    }
    Ok(())
}

fn unwatch(ctx: &mut Ctx<'_, '_>, _: &[&[u8]], out: &mut Reply) -> CommandResult {
    // Inside EXEC there is nothing left to forget, so that this never locks a shard that EXEC holds.
    ctx.engine.unwatch_all(ctx.session);
    out.ok();
    Ok(())
}
