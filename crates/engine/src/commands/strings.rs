//! Strings: GET, SET and their family.
//!
//! Every command that replaces a value drops its expiry unless it says otherwise, and journals relative expiries as
//! absolute ones.

use mtcache_protocol::Reply;

use super::Locks::Keys;
use super::Row;
use crate::context::{Ctx, Expiry};
use crate::error::{CommandError, CommandResult};
use crate::notify::Class;

pub(super) const TABLE: &[Row] = &[("get", Keys, get), ("set", Keys, set)];

fn get(ctx: &mut Ctx<'_, '_>, args: &[&[u8]], out: &mut Reply) -> CommandResult {
    match ctx.read_string(args[1])? {
        Some(value) => out.bulk(value),
        None => out.null(),
    }
    Ok(())
}

fn set(ctx: &mut Ctx<'_, '_>, args: &[&[u8]], out: &mut Reply) -> CommandResult {
    if args.len() > 3 {
        return Err(CommandError::SYNTAX);
    }
    ctx.set_string(args[1], args[2], Expiry::Clear);
    ctx.modified(args[1], Class::String, "set");
    out.ok();
    Ok(())
}
