//! Commands that know no type: DEL, EXISTS, the EXPIRE family, SCAN and their like.

use mtcache_protocol::Reply;

use super::Locks::Keys;
use super::Row;
use crate::context::Ctx;
use crate::error::CommandResult;

pub(super) const TABLE: &[Row] = &[("del", Keys, del), ("exists", Keys, exists)];

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
    let found = args[1..].iter().filter(|key| ctx.exists(key)).count();
    out.integer(found as i64);
    Ok(())
}
