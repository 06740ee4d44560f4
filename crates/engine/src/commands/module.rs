//! `MODULE`: there are none, and none can be loaded.
//!
//! The answers are those of a Redis without modules and with `enable-module-command no`, its default. Loading one is
//! deliberately absent: a module is machine code of another program inside ours.

use mtcache_protocol::Reply;

use super::Locks::None as NoLocks;
use super::{Row, write_help};
use crate::context::Ctx;
use crate::error::{CommandError, CommandResult};

pub(super) const TABLE: &[Row] = &[
    ("module|list", NoLocks, list),
    ("module|load", NoLocks, refuse),
    ("module|loadex", NoLocks, refuse),
    ("module|unload", NoLocks, refuse),
    ("module|help", NoLocks, help),
];

fn list(_: &mut Ctx<'_, '_>, _: &[&[u8]], out: &mut Reply) -> CommandResult {
    out.array(0);
    Ok(())
}

fn refuse(_: &mut Ctx<'_, '_>, _: &[&[u8]], _: &mut Reply) -> CommandResult {
    Err(CommandError::new(
        "ERR MODULE command not allowed. If the enable-module-command option is set to \"local\", you can run it from a \
         local connection, otherwise you need to set this option in the configuration file, and then restart the server.",
    ))
}

fn help(_: &mut Ctx<'_, '_>, _: &[&[u8]], out: &mut Reply) -> CommandResult {
    write_help(
        "MODULE",
        &[
            "LIST",
            "    The modules that are loaded: none.",
            "LOAD <path> [<arg> ...]",
            "    Refused: modules are not supported.",
            "LOADEX <path> [CONFIG <name> <value> ...] [ARGS <arg> ...]",
            "    Refused as LOAD is.",
            "UNLOAD <name>",
            "    Refused as LOAD is.",
        ],
        out,
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use crate::testing::Pair;

    #[test]
    fn there_are_no_modules_as_in_a_redis_without_any() {
        Pair::start().same(&[
            "module list",
            "module load /nowhere.so",
            "module load",
            "module loadex /nowhere.so config a b",
            "module unload nothing",
            "module nosuch",
        ]);
    }
}
