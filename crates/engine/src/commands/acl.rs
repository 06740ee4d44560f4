//! ACL: users and their rights, as operators see and change them.
//!
//! Invariant: no reply shows a password, only its hash, as in Redis.

use mtcache_protocol::{AclCategories, Reply, lookup, lookup_sub, parse_i64};

use super::Locks::None as NoLocks;
use super::{Row, write_help};
use crate::acl::selector::in_category;
use crate::acl::{DEFAULT_USER, Denied, has_spaces, hex, merge_parentheses};
use crate::context::Ctx;
use crate::error::{CommandError, CommandResult};

pub(super) const TABLE: &[Row] = &[
    ("acl|cat", NoLocks, categories),
    ("acl|deluser", NoLocks, delete_users),
    ("acl|dryrun", NoLocks, dry_run),
    ("acl|genpass", NoLocks, generate_password),
    ("acl|getuser", NoLocks, get_user),
    ("acl|help", NoLocks, acl_help),
    ("acl|list", NoLocks, list),
    ("acl|load", NoLocks, load),
    ("acl|log", NoLocks, log),
    ("acl|save", NoLocks, save),
    ("acl|setuser", NoLocks, set_user),
    ("acl|users", NoLocks, users),
    ("acl|whoami", NoLocks, whoami),
];

/// Bits of the longest password that `GENPASS` makes. Redis' value.
const MAX_PASSWORD_BITS: i64 = 4096;
/// Entries that `LOG` shows unless told.
const LOG_ENTRIES: usize = 10;

fn whoami(ctx: &mut Ctx<'_, '_>, _: &[&[u8]], out: &mut Reply) -> CommandResult {
    if ctx.session.user.is_trusted() {
        out.null();
    } else {
        out.bulk(ctx.session.user.name());
    }
    Ok(())
}

fn set_user(ctx: &mut Ctx<'_, '_>, args: &[&[u8]], out: &mut Reply) -> CommandResult {
    let name = args[2];
    if has_spaces(name) {
        return Err(CommandError::new("ERR Usernames can't contain spaces or null characters"));
    }
    let rules = merge_parentheses(args[3..].iter().copied()).map_err(|index| {
        let start = String::from_utf8_lossy(args[3 + index]);
        CommandError::new(format!("ERR Unmatched parenthesis in acl selector starting at '{start}'."))
    })?;
    let changes = ctx.engine.acl.set_user(name, &rules).map_err(|(index, error)| {
        let rule = rules.get(index).map(|rule| String::from_utf8_lossy(rule)).unwrap_or_default();
        CommandError::new(format!("ERR Error in ACL SETUSER modifier '{rule}': {}", error.text()))
    })?;
    ctx.engine.enforce(&changes, ctx.session);
    out.ok();
    Ok(())
}

fn delete_users(ctx: &mut Ctx<'_, '_>, args: &[&[u8]], out: &mut Reply) -> CommandResult {
    let names = &args[2..];
    if names.contains(&DEFAULT_USER) {
        return Err(CommandError::new("ERR The 'default' user cannot be removed"));
    }
    let changes = ctx.engine.acl.delete_users(names);
    ctx.engine.enforce(&changes, ctx.session);
    out.integer(changes.gone.len() as i64);
    Ok(())
}

fn get_user(ctx: &mut Ctx<'_, '_>, args: &[&[u8]], out: &mut Reply) -> CommandResult {
    let Some(user) = ctx.engine.acl.user(args[2]) else {
        out.null();
        return Ok(());
    };
    let rules = user.rules();
    out.map(6);
    out.bulk(b"flags");
    let flags = rules.flags();
    out.set(flags.len());
    for flag in flags {
        out.bulk(flag.as_bytes());
    }
    out.bulk(b"passwords");
    let hashes: Vec<String> = rules.hashes().collect();
    out.array(hashes.len());
    for hash in hashes {
        out.bulk(hash.as_bytes());
    }
    out.bulk(b"commands");
    out.bulk(rules.selector.show_commands().as_bytes());
    out.bulk(b"keys");
    out.bulk(&rules.selector.show_keys());
    out.bulk(b"channels");
    out.bulk(&rules.selector.show_channels());
    out.bulk(b"selectors");
    out.array(0);
    Ok(())
}

fn list(ctx: &mut Ctx<'_, '_>, _: &[&[u8]], out: &mut Reply) -> CommandResult {
    let lines = ctx.engine.acl.lines();
    out.array(lines.len());
    for line in lines {
        out.bulk(&line);
    }
    Ok(())
}

fn users(ctx: &mut Ctx<'_, '_>, _: &[&[u8]], out: &mut Reply) -> CommandResult {
    let users = ctx.engine.acl.users();
    out.array(users.len());
    for user in users {
        out.bulk(user.name());
    }
    Ok(())
}

fn categories(_: &mut Ctx<'_, '_>, args: &[&[u8]], out: &mut Reply) -> CommandResult {
    match args {
        [_, _] => {
            out.array(AclCategories::all().count());
            for (name, _) in AclCategories::all() {
                out.bulk(name.as_bytes());
            }
        }
        [_, _, name] => {
            let name = String::from_utf8_lossy(name);
            let category = AclCategories::from_name(&name)
                .ok_or_else(|| CommandError::new(format!("ERR Unknown category '{name}'")))?;
            out.array(in_category(category).count());
            for spec in in_category(category) {
                out.bulk(spec.full_name().as_bytes());
            }
        }
        _ => return Err(wrong_arguments("cat")),
    }
    Ok(())
}

fn wrong_arguments(sub: &str) -> CommandError {
    CommandError::new(format!(
        "ERR unknown subcommand or wrong number of arguments for '{sub}'. Try ACL HELP."
    ))
}

fn generate_password(_: &mut Ctx<'_, '_>, args: &[&[u8]], out: &mut Reply) -> CommandResult {
    let bits = match args {
        [_, _] => 256,
        [_, _, bits] => parse_i64(bits).ok_or(CommandError::NOT_INTEGER)?,
        _ => return Err(wrong_arguments("genpass")),
    };
    if !(1..=MAX_PASSWORD_BITS).contains(&bits) {
        return Err(CommandError::new(format!(
            "ERR ACL GENPASS argument must be the number of bits for the output password, a positive number up to \
             {MAX_PASSWORD_BITS}"
        )));
    }
    let digits = (bits as usize).div_ceil(4);
    let mut bytes = vec![0; digits.div_ceil(2)];
    // From the system, never from a generator of ours: this becomes somebody's password.
    getrandom::fill(&mut bytes)
        .map_err(|error| CommandError::new(format!("ERR the system gives no random bytes: {error}")))?;
    let mut password = hex(&bytes);
    password.truncate(digits);
    out.bulk(password.as_bytes());
    Ok(())
}

fn log(ctx: &mut Ctx<'_, '_>, args: &[&[u8]], out: &mut Reply) -> CommandResult {
    let count = match args {
        [_, _] => LOG_ENTRIES,
        [_, _, word] if word.eq_ignore_ascii_case(b"reset") => {
            ctx.engine.acl.log.clear();
            out.ok();
            return Ok(());
        }
        [_, _, count] => {
            let count = parse_i64(count).ok_or(CommandError::NOT_INTEGER)?;
            usize::try_from(count).unwrap_or_default()
        }
        _ => return Err(wrong_arguments("log")),
    };
    let entries = ctx.engine.acl.log.newest(count);
    out.array(entries.len());
    for entry in entries {
        out.map(7);
        out.bulk(b"count");
        out.integer(entry.count as i64);
        for (name, text) in [
            ("reason", entry.reason.name().as_bytes()),
            ("context", entry.place.name().as_bytes()),
            ("object", &entry.object),
            ("username", &entry.user),
        ] {
            out.bulk(name.as_bytes());
            out.bulk(text);
        }
        out.bulk(b"age-seconds");
        out.double(ctx.now.since(entry.when) as f64 / 1000.0);
        out.bulk(b"client-info");
        out.bulk(entry.client.as_bytes());
    }
    Ok(())
}

fn dry_run(ctx: &mut Ctx<'_, '_>, args: &[&[u8]], out: &mut Reply) -> CommandResult {
    let shown = |index: usize| String::from_utf8_lossy(args[index]);
    let Some(user) = ctx.engine.acl.user(args[2]) else {
        return Err(CommandError::new(format!("ERR User '{}' not found", shown(2))));
    };
    let command = &args[3..];
    let spec = lookup(command[0]).and_then(|spec| match command.get(1) {
        Some(sub) if spec.is_container() => lookup_sub(spec, sub),
        _ => Some(spec),
    });
    let Some(spec) = spec else {
        return Err(CommandError::new(format!("ERR Command '{}' not found", shown(3))));
    };
    if !spec.accepts(command.len()) {
        return Err(CommandError::arity(spec.full_name()));
    }
    let denied = match user.rules().selector.check(spec, command) {
        Ok(()) => {
            out.ok();
            return Ok(());
        }
        Err(Denied::Command) => format!("run the '{}' command", spec.full_name()),
        Err(Denied::Key(index)) => format!("access the '{}' key", shown(3 + index)),
        Err(Denied::Channel(index)) => format!("access the '{}' channel", shown(3 + index)),
    };
    out.bulk(format!("This user has no permissions to {denied}").as_bytes());
    Ok(())
}

fn load(ctx: &mut Ctx<'_, '_>, _: &[&[u8]], out: &mut Reply) -> CommandResult {
    needs_file(ctx)?;
    let changes = ctx.engine.load_acl_file().map_err(|error| CommandError::new(format!("ERR {error}")))?;
    ctx.engine.enforce(&changes, ctx.session);
    out.ok();
    Ok(())
}

fn save(ctx: &mut Ctx<'_, '_>, _: &[&[u8]], out: &mut Reply) -> CommandResult {
    needs_file(ctx)?;
    ctx.engine.save_acl_file().map_err(|error| {
        CommandError::new(format!("ERR There was an error trying to save the ACLs: {error}"))
    })?;
    out.ok();
    Ok(())
}

fn needs_file(ctx: &Ctx<'_, '_>) -> CommandResult {
    if ctx.engine.config().bytes("aclfile").is_empty() {
        return Err(CommandError::new(
            "ERR This Redis instance is not configured to use an ACL file. You may want to specify users via the ACL SETUSER \
             command and then issue a CONFIG REWRITE (assuming you have a Redis configuration file set) in order to store \
             users in the Redis configuration.",
        ));
    }
    Ok(())
}

fn acl_help(_: &mut Ctx<'_, '_>, _: &[&[u8]], out: &mut Reply) -> CommandResult {
    write_help(
        "ACL",
        &[
            "CAT [<category>]",
            "    The categories, or the commands of one.",
            "DELUSER <username> [<username> ...]",
            "    Deletes users and ends their connections.",
            "DRYRUN <username> <command> [<arg> ...]",
            "    Whether the user may run a command, without running it.",
            "GENPASS [<bits>]",
            "    A random password, of 256 bits unless told.",
            "GETUSER <username>",
            "    A user's rules.",
            "LIST",
            "    The users as lines of a configuration file.",
            "LOAD",
            "    Reads the users from the ACL file again.",
            "LOG [<count> | RESET]",
            "    What was denied lately.",
            "SAVE",
            "    Writes the users to the ACL file.",
            "SETUSER <username> <rule> [<rule> ...]",
            "    Makes or changes a user.",
            "USERS",
            "    The names of all users.",
            "WHOAMI",
            "    The user of this connection.",
        ],
        out,
    );
    Ok(())
}
