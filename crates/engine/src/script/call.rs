//! `redis.call` and what else needs the running command's surroundings.

use std::cell::{Cell, RefCell};

use mlua::{Function, LightUserData, Lua, MultiValue, Table, Value};
use mtcache_protocol::{CommandFlags, CommandSpec, Reply, Version, lookup, lookup_sub};
use smallvec::SmallVec;

use super::Writes;
use super::convert::reply_to_lua;
use super::libraries::arguments::Raised;
use super::watchdog::{CALLS_PER_LOOK, Watchdog};
use crate::acl::Place;
use crate::commands::{Locks, handler};
use crate::context::{Ctx, Origin};
use crate::dispatch::{Args, resolve};
use crate::engine::Engine;
use crate::error::CommandError;
use crate::host::LogLevel;

/// What a running script can reach.
pub(super) struct Surroundings<'s, 'a, 'e> {
    pub(super) ctx: RefCell<&'s mut Ctx<'a, 'e>>,
    /// What the script has chosen.
    pub(super) version: Cell<Version>,
    pub(super) writes: Writes,
    pub(super) allow_oom: bool,
    /// From then on it may go on writing, whatever the memory.
    pub(super) has_written: Cell<bool>,
    pub(super) watchdog: &'s Watchdog,
    /// Commands that it has called.
    pub(super) calls: Cell<u32>,
    /// Whether what it writes is journalled: `redis.set_repl`.
    pub(super) is_journalled: Cell<bool>,
}

const KILLED: &str = "ERR Script killed by user with SCRIPT KILL...";

type Words = SmallVec<[Vec<u8>; 8]>;

/// What `redis` has besides `call` that needs the surroundings. Their functions are made once and go through the run's `call`,
/// with their place in this list, from 1 on, as an address before the arguments: scripts have no such values.
const BESIDES: [&str; 5] = ["pcall", "setresp", "set_repl", "acl_check_cmd", "log"];

/// Puts the functions that go through `call` beside it.
pub(super) fn add_besides(lua: &Lua, redis: &Table) -> mlua::Result<()> {
    for (number, name) in (1..).zip(BESIDES) {
        let library = redis.clone();
        let function = lua.create_function(move |_, mut args: MultiValue| {
            args.push_front(Value::LightUserData(LightUserData(std::ptr::without_provenance_mut(number))));
            library.raw_get::<Function>("call")?.call::<Value>(args)
        })?;
        redis.raw_set(name, function)?;
    }
    Ok(())
}

/// What a script calls as `redis.call`, and what the functions beside it call.
pub(super) fn perform(
    lua: &Lua,
    around: &Surroundings<'_, '_, '_>,
    mut args: MultiValue,
) -> mlua::Result<Value> {
    let number = match args.front() {
        Some(Value::LightUserData(address)) => address.0.addr(),
        _ => 0,
    };
    if (1..=BESIDES.len()).contains(&number) {
        args.pop_front();
    }
    match number {
        1 => pcall(lua, around, &args),
        2 => set_version(around, &args),
        3 => set_journalled(around, &args),
        4 => check_rights(around, &args),
        5 => log(around, &args),
        _ => call(lua, around, &args),
    }
}

/// `redis.call`: errors are raised.
fn call(lua: &Lua, around: &Surroundings<'_, '_, '_>, args: &MultiValue) -> mlua::Result<Value> {
    run(lua, around, args)?.map_err(|error| Raised::command(error.text()))
}

/// `redis.pcall`: errors are returned.
fn pcall(lua: &Lua, around: &Surroundings<'_, '_, '_>, args: &MultiValue) -> mlua::Result<Value> {
    match run(lua, around, args)? {
        Ok(value) => Ok(value),
        Err(error) => error_table(lua, error.text()),
    }
}

/// `redis.setresp`.
fn set_version(around: &Surroundings<'_, '_, '_>, args: &MultiValue) -> mlua::Result<Value> {
    if args.len() != 1 {
        return Err(Raised::command("ERR redis.setresp() requires one argument."));
    }
    around.version.set(match whole(args.front()) {
        Some(2) => Version::Resp2,
        Some(3) => Version::Resp3,
        _ => return Err(Raised::command("ERR RESP version must be 2 or 3.")),
    });
    Ok(Value::Nil)
}

/// `redis.set_repl`. There are no replicas, so of its flags only the journal's counts.
fn set_journalled(around: &Surroundings<'_, '_, '_>, args: &MultiValue) -> mlua::Result<Value> {
    const JOURNAL: i64 = 1;
    if args.len() != 1 {
        return Err(Raised::command("ERR redis.set_repl() requires two arguments."));
    }
    match whole(args.front()).unwrap_or(0) {
        flags @ 0..=3 => around.is_journalled.set(flags & JOURNAL != 0),
        _ => {
            return Err(Raised::command(
                "ERR Invalid replication flags. Use REPL_AOF, REPL_REPLICA, REPL_ALL or REPL_NONE.",
            ));
        }
    }
    Ok(Value::Nil)
}

/// A number, or a string that reads as one, without its fraction.
fn whole(value: Option<&Value>) -> Option<i64> {
    match value? {
        Value::Integer(number) => Some(*number),
        Value::Number(number) => Some(*number as i64),
        Value::String(text) => text.to_string_lossy().trim().parse::<f64>().ok().map(|number| number as i64),
        _ => None,
    }
}

/// `redis.acl_check_cmd`.
fn check_rights(around: &Surroundings<'_, '_, '_>, args: &MultiValue) -> mlua::Result<Value> {
    let words = words(args).map_err(|error| Raised::command(error.text()))?;
    let args: Args<'_> = words.iter().map(Vec::as_slice).collect();
    let Some(spec) = find(&args) else {
        return Err(Raised::command("ERR Invalid command passed to redis.acl_check_cmd()"));
    };
    let ctx = around.ctx.borrow();
    let user = &ctx.session.user;
    Ok(Value::Boolean(user.is_unrestricted() || user.rules().selector.check(spec, &args).is_ok()))
}

/// `redis.log`: what is no text among the parts is passed over, as in Redis.
fn log(around: &Surroundings<'_, '_, '_>, args: &MultiValue) -> mlua::Result<Value> {
    if args.len() < 2 {
        return Err(Raised::command("ERR redis.log() requires two arguments or more."));
    }
    let level = match args.front() {
        Some(Value::Integer(level)) => *level,
        Some(Value::Number(level)) => *level as i64,
        _ => return Err(Raised::command("ERR First argument must be a number (log level).")),
    };
    let level = match level {
        0 => LogLevel::Debug,
        1 => LogLevel::Verbose,
        2 => LogLevel::Notice,
        3 => LogLevel::Warning,
        _ => return Err(Raised::command("ERR Invalid debug level.")),
    };
    let parts: Vec<String> = args
        .iter()
        .skip(1)
        .filter_map(|part| match part {
            Value::String(text) => Some(text.to_string_lossy()),
            Value::Integer(_) | Value::Number(_) => part.to_string().ok(),
            _ => None,
        })
        .collect();
    around.ctx.borrow().engine.hosts.log(level, &parts.join(" "));
    Ok(Value::Nil)
}

/// The error as the table that scripts know it by.
pub(super) fn error_table(lua: &Lua, text: &[u8]) -> mlua::Result<Value> {
    let table = lua.create_table_with_capacity(0, 2)?;
    table.raw_set("err", lua.create_string(text)?)?;
    table.raw_set("ignore_error_stats_update", true)?;
    Ok(Value::Table(table))
}

/// The command, or the subcommand where it takes one.
fn find(args: &[&[u8]]) -> Option<&'static CommandSpec> {
    let spec = lookup(args.first()?)?;
    match args.get(1) {
        Some(sub) if spec.is_container() => lookup_sub(spec, sub),
        _ => Some(spec),
    }
}

/// From then on whole numbers have an exponent: 17 digits are written.
const LONGEST_WHOLE: u64 = 100_000_000_000_000_000;

fn words(args: &MultiValue) -> Result<Words, CommandError> {
    if args.is_empty() {
        return Err(CommandError::new("ERR Please specify at least one argument for this redis lib call"));
    }
    args.iter()
        .map(|arg| match arg {
            Value::String(text) => Ok(text.as_bytes().to_vec()),
            Value::Integer(number) if number.unsigned_abs() < LONGEST_WHOLE => {
                Ok(itoa::Buffer::new().format(*number).as_bytes().to_vec())
            }
            Value::Integer(number) => Ok(double(*number as f64)),
            Value::Number(number) => Ok(double(*number)),
            _ => Err(CommandError::new("ERR Lua redis lib command arguments must be strings or integers")),
        })
        .collect()
}

fn double(number: f64) -> Vec<u8> {
    let mut text = Vec::new();
    mtcache_protocol::write_double(&mut text, number);
    text
}

/// What a script that is killed fails with.
pub(super) fn ended() -> mlua::Error {
    Raised::command(KILLED)
}

/// Runs one command for a script: its reply as a Lua value, or its error. The outer error is Lua running out of memory.
fn run(
    lua: &Lua,
    around: &Surroundings<'_, '_, '_>,
    args: &MultiValue,
) -> mlua::Result<Result<Value, CommandError>> {
    let calls = around.calls.get().wrapping_add(1);
    around.calls.set(calls);
    if calls.is_multiple_of(CALLS_PER_LOOK) && around.watchdog.look().is_err() {
        return Err(ended());
    }
    let version = around.version.get();
    let mut reply = Reply::new(version);
    if let Err(error) = execute(around, args, &mut reply) {
        return Ok(Err(error));
    }
    if reply.is_over() {
        return Ok(Err(CommandError::REPLY_TOO_LARGE));
    }
    let value = reply_to_lua(lua, reply.as_bytes(), version)?;
    if let (Value::Table(table), Some(b'-')) = (&value, reply.as_bytes().first())
        && let Value::String(text) = table.raw_get::<Value>("err")?
    {
        return Ok(Err(CommandError::from_bytes(text.as_bytes().to_vec())));
    }
    Ok(Ok(value))
}

fn execute(
    around: &Surroundings<'_, '_, '_>,
    args: &MultiValue,
    reply: &mut Reply,
) -> Result<(), CommandError> {
    let words = words(args)?;
    let args: Args<'_> = words.iter().map(Vec::as_slice).collect();
    let ctx = &mut **around.ctx.borrow_mut();
    let spec = match resolve(&args) {
        Ok(spec) => spec,
        Err(_) if find(&args).is_none() => {
            return Err(CommandError::new("ERR Unknown Redis command called from script"));
        }
        Err(_) => {
            return Err(CommandError::new("ERR Wrong number of args calling Redis command from script"));
        }
    };
    let refused = spec.flags.contains(CommandFlags::NOSCRIPT);
    let Some(runnable) = handler(spec).filter(|handler| !refused && handler.locks != Locks::Exec) else {
        return Err(CommandError::new("ERR This Redis command is not allowed from script"));
    };
    if !ctx.session.user.is_unrestricted() {
        ctx.engine
            .check_permission(ctx.session, spec, &args, Place::Lua, ctx.now)
            .map_err(|denied| denied.refusal_in_script())?;
    }
    let may_write = spec.flags.contains(CommandFlags::WRITE);
    if may_write && around.writes == Writes::Refused {
        return Err(CommandError::new("ERR Write commands are not allowed from read-only scripts."));
    }
    let lacks_memory = ctx.session.out_of_memory && !around.allow_oom && !around.has_written.get();
    if spec.flags.contains(CommandFlags::DENYOOM) && lacks_memory {
        return Err(CommandError::OOM);
    }
    if may_write {
        ctx.engine.check_durability()?;
        if !around.has_written.replace(true) && around.watchdog.write().is_err() {
            return Err(CommandError::new(KILLED));
        }
    }
    let outer = ctx.origin;
    if outer != Origin::Replay {
        ctx.origin = Origin::Script;
    }
    let kept = ctx.session.effects.mark();
    let result = Engine::run_nested(ctx, spec, runnable, &args, reply);
    if !around.is_journalled.get() {
        ctx.session.effects.cut(kept);
    }
    ctx.origin = outer;
    result
}
