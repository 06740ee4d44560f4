//! Scripts: one Lua 5.1 interpreter, its sandbox, and the cache of scripts by their SHA-1.
//!
//! A script runs while every shard is locked, so one interpreter serves all threads. What it writes goes to the journal as
//! the commands that it called, as one atomic group. Nothing of one script is seen by the next: globals cannot be made,
//! libraries are seen through read-only views, and only source text is ever compiled. The libraries cjson, cmsgpack, bit
//! and struct, time limits and `SCRIPT KILL` come with the next release.

mod convert;
mod random;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use ahash::RandomState;
use hashbrown::HashMap;
use mlua::chunk::ChunkMode;
use mlua::{Function, Lua, LuaOptions, MultiValue, StdLib, Table, Value, Variadic};
use mtcache_protocol::{CommandFlags, Reply, Version, lookup, lookup_sub};
use parking_lot::Mutex;

use self::convert::{lua_to_reply, reply_to_lua};
use self::random::Random;
use crate::acl::Place;
use crate::commands::{Locks, handler};
use crate::context::{Ctx, Origin};
use crate::dispatch::{Args, resolve};
use crate::engine::Engine;
use crate::error::{CommandError, CommandResult};

/// Name that scripts go by in error messages.
const CHUNK_NAME: &str = "@user_script";
const PRELUDE: &str = include_str!("prelude.lua");

/// Whether a script may write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Writes {
    /// It may.
    Allowed,
    /// It may not: `EVAL_RO`, `EVALSHA_RO`, a `no-writes` flag.
    Refused,
}

/// The scripts of an engine.
#[derive(Default)]
pub(crate) struct Scripts {
    /// Source text by lower-case SHA-1.
    sources: Mutex<HashMap<[u8; 40], Arc<[u8]>, RandomState>>,
    interpreter: Mutex<Option<Interpreter>>,
}

struct Interpreter {
    lua: Lua,
    /// The `redis` library behind its read-only view.
    redis: Table,
    /// Lua's own `xpcall`, which scripts cannot replace.
    xpcall: Function,
    /// What scripts find as globals, behind an empty table.
    globals: Table,
    compiled: HashMap<[u8; 40], Function, RandomState>,
}

/// The SHA-1 of a script as 40 lower-case hexadecimal digits.
pub(crate) fn sha1_hex(bytes: &[u8]) -> [u8; 40] {
    use sha1::{Digest, Sha1};
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut hex = [b'0'; 40];
    for (pair, byte) in hex.chunks_exact_mut(2).zip(Sha1::digest(bytes)) {
        if let [high, low] = pair {
            *high = DIGITS.get(usize::from(byte >> 4)).copied().unwrap_or_default();
            *low = DIGITS.get(usize::from(byte & 15)).copied().unwrap_or_default();
        }
    }
    hex
}

impl Scripts {
    /// Keeps a script and gives its SHA-1; refuses one that does not compile.
    pub(crate) fn load(&self, source: &[u8]) -> Result<[u8; 40], CommandError> {
        let sha = sha1_hex(source);
        if !self.sources.lock().contains_key(&sha) {
            self.with_interpreter(|interpreter| interpreter.compile(sha, source).map(drop))?;
            self.sources.lock().insert(sha, source.into());
        }
        Ok(sha)
    }

    /// The source of a script that is kept; `sha` in any case.
    pub(crate) fn source(&self, sha: &[u8]) -> Option<Arc<[u8]>> {
        let sha: [u8; 40] = sha.to_ascii_lowercase().try_into().ok()?;
        self.sources.lock().get(&sha).cloned()
    }

    /// Forgets all scripts, and the interpreter with all that they may have left in it.
    pub(crate) fn flush(&self) {
        self.sources.lock().clear();
        *self.interpreter.lock() = None;
    }

    /// Number of scripts kept, and bytes of the interpreter; zero while a script runs, which may be the one that asks.
    pub(crate) fn figures(&self) -> (usize, usize) {
        let interpreter = self.interpreter.try_lock();
        let memory = interpreter.and_then(|it| it.as_ref().map(|it| it.lua.used_memory())).unwrap_or(0);
        (self.sources.lock().len(), memory)
    }

    fn with_interpreter<R>(
        &self,
        work: impl FnOnce(&mut Interpreter) -> Result<R, CommandError>,
    ) -> Result<R, CommandError> {
        let mut interpreter = self.interpreter.lock();
        if interpreter.is_none() {
            let made = Interpreter::new();
            *interpreter =
                Some(made.map_err(|error| CommandError::new(format!("ERR cannot start Lua: {error}")))?);
        }
        match interpreter.as_mut() {
            Some(interpreter) => work(interpreter),
            None => Err(CommandError::new("ERR cannot start Lua")),
        }
    }
}

/// Runs a script. Every shard is locked by the caller.
pub(crate) fn run(
    ctx: &mut Ctx<'_, '_>,
    source: &[u8],
    keys: &[&[u8]],
    args: &[&[u8]],
    writes: Writes,
    out: &mut Reply,
) -> CommandResult {
    let sha = ctx.engine.scripts.load(source)?;
    let engine = ctx.engine;
    engine.scripts.with_interpreter(|interpreter| interpreter.run(ctx, sha, source, keys, args, writes, out))
}

impl Interpreter {
    fn new() -> mlua::Result<Self> {
        let lua = Lua::new_with(StdLib::TABLE | StdLib::STRING | StdLib::MATH, LuaOptions::new())?;
        let host = lua.create_table()?;
        let random = Arc::new(Mutex::new(Random::new(crate::keyspace::random() as u32)));
        let state = Arc::clone(&random);
        host.raw_set("random", lua.create_function(move |_, ()| Ok(state.lock().fraction()))?)?;
        let state = Arc::clone(&random);
        host.raw_set(
            "randomseed",
            lua.create_function(move |_, seed: f64| {
                *state.lock() = Random::new(seed as i64 as u32);
                Ok(())
            })?,
        )?;
        host.raw_set(
            "rawset",
            lua.create_function(|_, (table, key, value): (Table, Value, Value)| table.raw_set(key, value))?,
        )?;
        host.raw_set(
            "sha1hex",
            lua.create_function(|lua, text: mlua::LuaString| lua.create_string(sha1_hex(&text.as_bytes())))?,
        )?;
        host.raw_set("error_text", lua.create_function(|_, error: Value| Ok(error_text(&error)))?)?;
        host.raw_set("log", lua.create_function(|_, _: Variadic<Value>| Ok(()))?)?;
        host.raw_set(
            "loadstring",
            lua.create_function(|lua, (text, name): (mlua::LuaString, mlua::LuaString)| {
                let chunk = lua.load(text.as_bytes().to_vec()).set_mode(ChunkMode::Text);
                match chunk.set_name(name.to_string_lossy()).into_function() {
                    Ok(function) => Ok((Value::Function(function), Value::Nil)),
                    Err(error) => Ok((Value::Nil, Value::String(lua.create_string(plain_message(&error))?))),
                }
            })?,
        )?;
        lua.load(PRELUDE).set_name("@sandbox").set_mode(ChunkMode::Text).call::<()>(&host)?;
        let (redis, xpcall) = (host.raw_get("redis")?, host.raw_get("xpcall")?);
        let globals = host.raw_get("globals")?;
        Ok(Self { lua, redis, xpcall, globals, compiled: HashMap::default() })
    }

    fn compile(&mut self, sha: [u8; 40], source: &[u8]) -> Result<Function, CommandError> {
        if let Some(function) = self.compiled.get(&sha) {
            return Ok(function.clone());
        }
        let body = strip_shebang(source)?;
        let chunk = self.lua.load(body).set_name(CHUNK_NAME).set_mode(ChunkMode::Text);
        let function = chunk.into_function().map_err(|error| {
            CommandError::new(format!("ERR Error compiling script (new function): {}", plain_message(&error)))
        })?;
        self.compiled.insert(sha, function.clone());
        Ok(function)
    }

    #[allow(clippy::too_many_arguments)]
    fn run(
        &mut self,
        ctx: &mut Ctx<'_, '_>,
        sha: [u8; 40],
        source: &[u8],
        keys: &[&[u8]],
        args: &[&[u8]],
        writes: Writes,
        out: &mut Reply,
    ) -> CommandResult {
        let function = self.compile(sha, source)?;
        let writes = if declares_no_writes(source) { Writes::Refused } else { writes };
        let version = std::cell::Cell::new(Version::Resp2);
        let result = (|| {
            for (name, values) in [("KEYS", keys), ("ARGV", args)] {
                let table = self.lua.create_table_with_capacity(values.len(), 0)?;
                for (index, value) in values.iter().enumerate() {
                    table.raw_set(index + 1, self.lua.create_string(value)?)?;
                }
                self.globals.raw_set(name, table)?;
            }
            let ctx = std::cell::RefCell::new(ctx);
            let failure = std::cell::RefCell::new(None);
            self.lua.scope(|scope| {
                let call_or_raise = scope.create_function(|lua, args: MultiValue| {
                    match call(lua, &mut ctx.borrow_mut(), &args, version.get(), writes)? {
                        Ok(value) => Ok(value),
                        Err(error) => Err(mlua::Error::external(error)),
                    }
                })?;
                let call_or_return = scope.create_function(|lua, args: MultiValue| {
                    match call(lua, &mut ctx.borrow_mut(), &args, version.get(), writes)? {
                        Ok(value) => Ok(value),
                        Err(error) => error_table(lua, &error),
                    }
                })?;
                let setresp = scope.create_function(|_, args: MultiValue| {
                    if args.len() != 1 {
                        return Err(mlua::Error::runtime("redis.setresp() requires one argument."));
                    }
                    match args.front().and_then(Value::as_i64) {
                        Some(2) => version.set(Version::Resp2),
                        Some(3) => version.set(Version::Resp3),
                        _ => return Err(mlua::Error::runtime("RESP version must be 2 or 3.")),
                    }
                    Ok(())
                })?;
                self.redis.raw_set("call", call_or_raise)?;
                self.redis.raw_set("pcall", call_or_return)?;
                self.redis.raw_set("setresp", setresp)?;
                let on_error = scope.create_function(|lua, error: Value| {
                    *failure.borrow_mut() = Some(describe(lua, &error));
                    Ok(Value::Nil)
                })?;
                let mut results: MultiValue = self.xpcall.call((function, on_error))?;
                let succeeded = matches!(results.pop_front(), Some(Value::Boolean(true)));
                let failure = failure.borrow_mut().take();
                Ok(if succeeded {
                    Ok(results.pop_front().unwrap_or(Value::Nil))
                } else {
                    Err(failure.unwrap_or_default())
                })
            })
        })();
        match result {
            Ok(Ok(value)) => lua_to_reply(&value, version.get(), out),
            Ok(Err(failure)) => Err(CommandError::new(format!(
                "{} script: {}, on @user_script:{}.",
                failure.text,
                String::from_utf8_lossy(&sha),
                failure.line
            ))),
            Err(error) => Err(CommandError::new(format!("ERR {}", plain_message(&error)))),
        }
    }
}

/// What a script failed with, and in which of its lines.
#[derive(Debug, Default)]
struct Failure {
    text: String,
    line: usize,
}

fn describe(lua: &Lua, error: &Value) -> Failure {
    let text = error_text(error);
    let mut line = 0;
    // The innermost frame of the script itself; the sandbox's own functions lie above it.
    for level in 1..16 {
        let found = lua.inspect_stack(level, |frame| {
            let is_script = frame.source().source.is_some_and(|source| source == CHUNK_NAME);
            is_script.then(|| frame.current_line()).flatten()
        });
        match found {
            Some(Some(found)) => {
                line = found;
                break;
            }
            Some(None) => {}
            None => break,
        }
    }
    Failure { text, line }
}

/// The text of whatever was raised as an error, with its code.
fn error_text(error: &Value) -> String {
    match error {
        Value::Table(table) => match table.raw_get::<Value>("err") {
            Ok(Value::String(text)) => text.to_string_lossy(),
            _ => "ERR the script raised a table without an 'err' field".to_owned(),
        },
        Value::Error(error) => match command_error(error) {
            Some(error) => error.to_string(),
            None => format!("ERR {}", plain_message(error)),
        },
        Value::String(text) => format!("ERR {}", text.to_string_lossy()),
        other => format!("ERR {}", other.to_string().unwrap_or_default()),
    }
}

/// The error of a command inside what the binding wrapped around it.
fn command_error(error: &mlua::Error) -> Option<&CommandError> {
    match error {
        mlua::Error::CallbackError { cause, .. } => command_error(cause),
        mlua::Error::ExternalError(error) => error.downcast_ref(),
        _ => None,
    }
}

fn error_table(lua: &Lua, error: &CommandError) -> mlua::Result<Value> {
    let table = lua.create_table_with_capacity(0, 2)?;
    table.raw_set("err", lua.create_string(error.text())?)?;
    table.raw_set("ignore_error_stats_update", true)?;
    Ok(Value::Table(table))
}

/// Whether the command is there, and the subcommand where it takes one.
fn is_known(args: &[&[u8]]) -> bool {
    let spec = args.first().and_then(|name| lookup(name));
    spec.is_some_and(|spec| {
        spec.subcommands.is_empty() || args.get(1).is_none_or(|sub| lookup_sub(spec, sub).is_some())
    })
}

/// Runs one command for a script: its reply as a Lua value, or its error. The outer error is Lua running out of memory.
fn call(
    lua: &Lua,
    ctx: &mut Ctx<'_, '_>,
    args: &MultiValue,
    version: Version,
    writes: Writes,
) -> mlua::Result<Result<Value, CommandError>> {
    let fail = |text: &'static str| Ok(Err(CommandError::new(text)));
    let mut owned: smallvec::SmallVec<[Vec<u8>; 8]> = smallvec::SmallVec::new();
    for arg in args {
        match arg {
            Value::String(text) => owned.push(text.as_bytes().to_vec()),
            Value::Integer(number) => owned.push(itoa::Buffer::new().format(*number).as_bytes().to_vec()),
            Value::Number(number) => {
                let mut text = Vec::new();
                mtcache_protocol::write_double(&mut text, *number);
                owned.push(text);
            }
            _ => return fail("ERR Lua redis lib command arguments must be strings or integers"),
        }
    }
    if owned.is_empty() {
        return fail("ERR Please specify at least one argument for this redis lib call");
    }
    let args: Args<'_> = owned.iter().map(Vec::as_slice).collect();
    let spec = match resolve(&args) {
        Ok(spec) => spec,
        Err(_) if !is_known(&args) => {
            return fail("ERR Unknown Redis command called from script");
        }
        Err(_) => return fail("ERR Wrong number of args calling Redis command from script"),
    };
    let refused = spec.flags.contains(CommandFlags::NOSCRIPT);
    let runnable = handler(spec).filter(|handler| !refused && handler.locks != Locks::Exec);
    let Some(runnable) = runnable else {
        return fail("ERR This Redis command is not allowed from script");
    };
    if !ctx.session.user.is_unrestricted()
        && let Err(denied) = ctx.engine.check_permission(ctx.session, spec, &args, Place::Lua, ctx.now)
    {
        return Ok(Err(denied.refusal_in_script()));
    }
    if spec.flags.contains(CommandFlags::WRITE) && writes == Writes::Refused {
        return fail("ERR Write commands are not allowed from read-only scripts.");
    }
    if spec.flags.contains(CommandFlags::DENYOOM) && ctx.session.out_of_memory {
        return Ok(Err(CommandError::OOM));
    }
    if spec.flags.contains(CommandFlags::WRITE)
        && let Err(error) = ctx.engine.check_durability()
    {
        return Ok(Err(error));
    }
    let mut reply = Reply::new(version);
    let outer = ctx.origin;
    if outer != Origin::Replay {
        ctx.origin = Origin::Script;
    }
    let result = Engine::run_nested(ctx, spec, runnable, &args, &mut reply);
    ctx.origin = outer;
    match result {
        Ok(()) => {
            let value = reply_to_lua(lua, reply.as_bytes(), version)?;
            match &value {
                Value::Table(table) => match table.raw_get::<Value>("err")? {
                    Value::String(text) => Ok(Err(CommandError::new(text.to_string_lossy()))),
                    _ => Ok(Ok(value)),
                },
                _ => Ok(Ok(value)),
            }
        }
        Err(error) => Ok(Err(error)),
    }
}

/// The message of an error as Lua gave it, without what the binding adds.
fn plain_message(error: &mlua::Error) -> String {
    match error {
        mlua::Error::SyntaxError { message, .. } | mlua::Error::RuntimeError(message) => {
            message.lines().next().unwrap_or_default().to_owned()
        }
        mlua::Error::CallbackError { cause, .. } => plain_message(cause),
        other => other.to_string().lines().next().unwrap_or_default().to_owned(),
    }
}

/// The source below a `#!lua` line, which is made a comment so that line numbers stay.
fn strip_shebang(source: &[u8]) -> Result<Vec<u8>, CommandError> {
    let Some(rest) = source.strip_prefix(b"#!") else { return Ok(source.to_vec()) };
    let line = rest.split(|byte| *byte == b'\n').next().unwrap_or_default();
    let text = String::from_utf8_lossy(line).into_owned();
    let mut words = text.split_ascii_whitespace();
    match words.next() {
        Some("lua") => {}
        engine => {
            let name = engine.unwrap_or_default();
            return Err(CommandError::new(format!("ERR Unexpected engine in script shebang: {name}")));
        }
    }
    for word in words {
        let Some(flags) = word.strip_prefix("flags=") else {
            return Err(CommandError::new(format!("ERR Unknown lua shebang option: {word}")));
        };
        for flag in flags.split(',').filter(|flag| !flag.is_empty()) {
            if !matches!(
                flag,
                "no-writes" | "allow-oom" | "allow-stale" | "no-cluster" | "allow-cross-slot-keys"
            ) {
                return Err(CommandError::new(format!("ERR Unexpected flag in script shebang: {flag}")));
            }
        }
    }
    Ok(rest.get(line.len()..).unwrap_or_default().to_vec())
}

fn declares_no_writes(source: &[u8]) -> bool {
    let Some(rest) = source.strip_prefix(b"#!") else { return false };
    let line = rest.split(|byte| *byte == b'\n').next().unwrap_or_default();
    String::from_utf8_lossy(line)
        .split_ascii_whitespace()
        .filter_map(|word| word.strip_prefix("flags="))
        .any(|flags| flags.split(',').any(|flag| flag == "no-writes"))
}
