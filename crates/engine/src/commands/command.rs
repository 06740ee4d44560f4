//! COMMAND: the command table, as clients and proxies ask for it.
//!
//! Everything comes from the one table in `protocol`, whose rows also know how they are written.

use mtcache_protocol::{
    AclCategories, COMMANDS, CommandFlags, CommandSpec, KeyFlags, Reply, glob, keys_with_flags, lookup,
    lookup_sub, top_level,
};
use smallvec::SmallVec;

use super::Locks::None as NoLocks;
use super::{Row, write_help};
use crate::context::Ctx;
use crate::error::{CommandError, CommandResult};

pub(super) const TABLE: &[Row] = &[
    ("command", NoLocks, all),
    ("command|count", NoLocks, count),
    ("command|list", NoLocks, list),
    ("command|info", NoLocks, info),
    ("command|docs", NoLocks, docs),
    ("command|getkeys", NoLocks, |_, args, out| get_keys(args, WithFlags::No, out)),
    ("command|getkeysandflags", NoLocks, |_, args, out| get_keys(args, WithFlags::Yes, out)),
    ("command|help", NoLocks, command_help),
];

fn all(_: &mut Ctx<'_, '_>, _: &[&[u8]], out: &mut Reply) -> CommandResult {
    write_all(out);
    Ok(())
}

fn write_all(out: &mut Reply) {
    out.array(top_level().len());
    for spec in top_level() {
        spec.write_info(out);
    }
}

fn count(_: &mut Ctx<'_, '_>, _: &[&[u8]], out: &mut Reply) -> CommandResult {
    out.integer(top_level().len() as i64);
    Ok(())
}

fn list(_: &mut Ctx<'_, '_>, args: &[&[u8]], out: &mut Reply) -> CommandResult {
    let names: Vec<&str> = match args.get(2..).unwrap_or_default() {
        [] => COMMANDS.iter().map(CommandSpec::full_name).collect(),
        [word, by, value] if word.eq_ignore_ascii_case(b"filterby") => {
            let keep: Box<dyn Fn(&CommandSpec) -> bool> = match by.to_ascii_lowercase().as_slice() {
                b"module" => Box::new(|_| false),
                b"aclcat" => {
                    let category = std::str::from_utf8(value).ok().and_then(AclCategories::from_name);
                    Box::new(move |spec| {
                        category.is_some_and(|category| spec.acl_categories.contains(category))
                    })
                }
                b"pattern" => Box::new(|spec| glob::matches(value, spec.full_name().as_bytes(), true)),
                _ => return Err(CommandError::SYNTAX),
            };
            COMMANDS.iter().filter(|spec| keep(spec)).map(CommandSpec::full_name).collect()
        }
        _ => return Err(CommandError::SYNTAX),
    };
    out.array(names.len());
    for name in names {
        out.bulk(name.as_bytes());
    }
    Ok(())
}

fn info(_: &mut Ctx<'_, '_>, args: &[&[u8]], out: &mut Reply) -> CommandResult {
    let names = args.get(2..).unwrap_or_default();
    if names.is_empty() {
        write_all(out);
        return Ok(());
    }
    out.array(names.len());
    for name in names {
        match by_full_name(name) {
            Some(spec) => spec.write_info(out),
            None => out.null(),
        }
    }
    Ok(())
}

/// The command called `get` or `config|get`.
fn by_full_name(name: &[u8]) -> Option<&'static CommandSpec> {
    match name.iter().position(|byte| *byte == b'|') {
        None => lookup(name),
        Some(bar) => lookup_sub(lookup(name.get(..bar)?)?, name.get(bar + 1..)?),
    }
}

fn docs(_: &mut Ctx<'_, '_>, args: &[&[u8]], out: &mut Reply) -> CommandResult {
    let names = args.get(2..).unwrap_or_default();
    let specs: Vec<&CommandSpec> = if names.is_empty() {
        top_level().iter().collect()
    } else {
        names.iter().filter_map(|name| by_full_name(name)).collect()
    };
    out.map(specs.len());
    for spec in specs {
        out.bulk(spec.full_name().as_bytes());
        spec.write_docs(out);
    }
    Ok(())
}

/// Whether what is done with each key is told besides.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum WithFlags {
    Yes,
    No,
}

fn get_keys(args: &[&[u8]], with_flags: WithFlags, out: &mut Reply) -> CommandResult {
    let command = args.get(2..).unwrap_or_default();
    let spec = command.first().and_then(|name| lookup(name));
    let spec = match (spec, command.get(1)) {
        (Some(spec), Some(sub)) if spec.is_container() => lookup_sub(spec, sub),
        (spec, _) => spec,
    };
    let spec = spec.ok_or_else(|| CommandError::new("ERR Invalid command specified"))?;
    let takes_keys = spec.key_specs.iter().any(|keys| !keys.flags.contains(KeyFlags::NOT_KEY));
    if !takes_keys {
        return Err(CommandError::new("ERR The command has no key arguments"));
    }
    if !spec.accepts(command.len()) {
        return Err(CommandError::new("ERR Invalid number of arguments specified for command"));
    }
    let mut keys = SmallVec::new();
    let named = keys_with_flags(spec, command, &mut keys).is_ok() && !keys.is_empty();
    if !named {
        // A count of keys that cannot be is no error for a command that may have none, as
        // EVAL: running it would tell, and asking for its keys finds none.
        if !spec.flags.contains(CommandFlags::NO_MANDATORY_KEYS) {
            return Err(CommandError::new("ERR Invalid arguments specified for command"));
        }
        keys.clear();
    }
    out.array(keys.len());
    for key in &keys {
        let name = command.get(key.index).copied().unwrap_or_default();
        if with_flags == WithFlags::Yes {
            out.array(2);
            out.bulk(name);
            let flags: SmallVec<[&str; 8]> = key.flags.names().collect();
            out.set(flags.len());
            for flag in flags {
                out.simple(flag);
            }
        } else {
            out.bulk(name);
        }
    }
    Ok(())
}

fn command_help(_: &mut Ctx<'_, '_>, _: &[&[u8]], out: &mut Reply) -> CommandResult {
    write_help(
        "COMMAND",
        &[
            "(no subcommand)",
            "    All commands.",
            "COUNT",
            "    Number of commands.",
            "LIST [FILTERBY (MODULE|ACLCAT|PATTERN) <value>]",
            "    Names of commands.",
            "INFO [<command> ...]",
            "    Arity, flags and key positions.",
            "DOCS [<command> ...]",
            "    What commands do.",
            "GETKEYS <full-command>",
            "    The keys among the arguments of a command.",
            "GETKEYSANDFLAGS <full-command>",
            "    The same, with what is done with each.",
        ],
        out,
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use crate::testing::Pair;

    #[test]
    fn the_table_answers_as_redis_does() {
        let mut pair = Pair::start();
        pair.same(&[
            "command count",
            "command count x",
            "command list filterby module x",
            "command list filterby foo x",
            "command list filterby",
            "command foo",
            "command getkeys get a",
            "command getkeys mset a b c d",
            "command getkeys ping",
            "command getkeys",
            "command getkeys nosuch a",
            "command getkeys eval x 0",
            "command getkeys eval x 1 a",
            "command getkeys get",
            "command getkeys get a b",
            "command getkeys ping x",
            "command getkeys sort a store b",
            "command getkeysandflags mset a b c d",
            "command getkeysandflags eval x 1 a",
            "command getkeysandflags set a b",
            "command getkeysandflags set a b get",
            "command getkeys memory usage k",
            "command getkeys object foo k",
            "command getkeys zunionstore d 2 a b",
            "command getkeys zunionstore d x a b",
            "command info nosuch",
            "command docs nosuch",
        ]);
        pair.same_set(&[
            "command list",
            "command list filterby aclcat dangerous",
            "command list filterby pattern xr*",
            "command list filterby aclcat bogus",
        ]);
    }
}
