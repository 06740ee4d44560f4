//! EVAL and its family.

use mtcache_protocol::{Reply, lookup};

use super::Locks::{All, None as NoLocks};
use super::{Row, parse};
use crate::context::{Ctx, Origin};
use crate::error::{CommandError, CommandResult};
use crate::script::{self, Writes};

pub(super) const TABLE: &[Row] = &[
    ("eval", All, |ctx, args, out| eval(ctx, args, out, Writes::Allowed)),
    ("eval_ro", All, |ctx, args, out| eval(ctx, args, out, Writes::Refused)),
    ("evalsha", All, |ctx, args, out| evalsha(ctx, args, out, Writes::Allowed)),
    ("evalsha_ro", All, |ctx, args, out| evalsha(ctx, args, out, Writes::Refused)),
    ("script|kill", NoLocks, kill),
    ("script|load", NoLocks, load),
    ("script|exists", NoLocks, exists),
    ("script|flush", NoLocks, flush),
    ("script|help", NoLocks, help),
    ("script|debug", NoLocks, debug),
];

fn eval(ctx: &mut Ctx<'_, '_>, args: &[&[u8]], out: &mut Reply, writes: Writes) -> CommandResult {
    show(ctx, args);
    let (keys, rest) = split(args)?;
    run(ctx, args[1], keys, rest, out, writes)
}

fn evalsha(ctx: &mut Ctx<'_, '_>, args: &[&[u8]], out: &mut Reply, writes: Writes) -> CommandResult {
    show(ctx, args);
    // Wrong arguments come before a script that is not there.
    let (keys, rest) = split(args)?;
    let source = ctx.engine.scripts.source(args[1]).ok_or(CommandError::NO_SCRIPT)?;
    run(ctx, &source, keys, rest, out, writes)
}

/// Shows the command to who monitors now, so that it comes before those that the script calls.
fn show(ctx: &Ctx<'_, '_>, args: &[&[u8]]) {
    if ctx.origin != Origin::Replay
        && let Some(spec) = lookup(args[0])
    {
        ctx.engine.show_to_monitors(ctx.session, spec, args, false);
    }
}

/// The keys and the other arguments of `EVAL script numkeys key ... arg ...`.
fn split<'a, 'b>(args: &'a [&'b [u8]]) -> Result<Split<'a, 'b>, CommandError> {
    let numkeys = parse::integer(args[2])?;
    if numkeys < 0 {
        return Err(CommandError::new("ERR Number of keys can't be negative"));
    }
    args[3..]
        .split_at_checked(usize::try_from(numkeys).unwrap_or(usize::MAX))
        .ok_or(CommandError::new("ERR Number of keys can't be greater than number of args"))
}

type Split<'a, 'b> = (&'a [&'b [u8]], &'a [&'b [u8]]);

fn run(
    ctx: &mut Ctx<'_, '_>,
    source: &[u8],
    keys: &[&[u8]],
    rest: &[&[u8]],
    out: &mut Reply,
    writes: Writes,
) -> CommandResult {
    // Writes of the script are journalled by the commands that make them, never by the script.
    ctx.journal_nothing();
    script::run(ctx, source, keys, rest, writes, out)
}

fn load(ctx: &mut Ctx<'_, '_>, args: &[&[u8]], out: &mut Reply) -> CommandResult {
    out.bulk(&ctx.engine.scripts.load(args[2])?);
    Ok(())
}

fn exists(ctx: &mut Ctx<'_, '_>, args: &[&[u8]], out: &mut Reply) -> CommandResult {
    out.array(args.len() - 2);
    for sha in &args[2..] {
        out.integer(i64::from(ctx.engine.scripts.source(sha).is_some()));
    }
    Ok(())
}

fn flush(ctx: &mut Ctx<'_, '_>, args: &[&[u8]], out: &mut Reply) -> CommandResult {
    match &args[2..] {
        [] => {}
        [mode] if parse::is(mode, "sync") || parse::is(mode, "async") => {}
        _ => return Err(CommandError::new("ERR SCRIPT FLUSH only support SYNC|ASYNC option")),
    }
    ctx.engine.scripts.flush()?;
    out.ok();
    Ok(())
}

fn kill(ctx: &mut Ctx<'_, '_>, _: &[&[u8]], out: &mut Reply) -> CommandResult {
    ctx.engine.scripts.kill()?;
    out.ok();
    Ok(())
}

fn debug(_: &mut Ctx<'_, '_>, args: &[&[u8]], out: &mut Reply) -> CommandResult {
    if parse::is(args[2], "no") {
        out.ok();
        return Ok(());
    }
    if parse::is(args[2], "yes") || parse::is(args[2], "sync") {
        return Err(CommandError::new("ERR this server has no debugger for scripts"));
    }
    Err(CommandError::new("ERR Use SCRIPT DEBUG YES/SYNC/NO"))
}

fn help(_: &mut Ctx<'_, '_>, _: &[&[u8]], out: &mut Reply) -> CommandResult {
    const LINES: &[&str] = &[
        "SCRIPT <subcommand> [<arg> ...]. Subcommands are:",
        "DEBUG (YES|SYNC|NO)",
        "    Switch the debugger of scripts, which this server does not have.",
        "EXISTS <sha1> [<sha1> ...]",
        "    Tell which of these scripts are cached.",
        "FLUSH [ASYNC|SYNC]",
        "    Forget all cached scripts.",
        "KILL",
        "    End the script that runs, if it has not written yet.",
        "LOAD <script>",
        "    Cache a script without running it.",
        "HELP",
        "    Print this help.",
    ];
    out.array(LINES.len());
    for line in LINES {
        out.simple(line);
    }
    Ok(())
}
