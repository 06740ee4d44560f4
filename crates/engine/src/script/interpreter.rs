//! One Lua state: made once, it runs scripts one after the other.
//!
//! Invariant: what one script does to the state, the next does not see. Scripts find globals and libraries through tables
//! that hold nothing themselves (`prelude.lua`), and those are swept after every run. Every function that scripts call is made
//! once; those that need the running command come through a single one that is made for each run.

use std::cell::{Cell, RefCell};
use std::sync::Arc;

use mlua::chunk::ChunkMode;
use mlua::debug::HookTriggers;
use mlua::{Function, Lua, LuaOptions, LuaString, StdLib, Table, Value, VmState};
use mtcache_protocol::{Reply, Version};
use parking_lot::Mutex;

use super::call::{self, Surroundings};
use super::convert::lua_to_reply;
use super::libraries;
use super::libraries::arguments::Raised;
use super::random::Random;
use super::watchdog::{INSTRUCTIONS_PER_LOOK, MustEnd, Watchdog};
use super::{CHUNK_NAME, Writes, functions, shebang};
use crate::context::Ctx;
use crate::error::{CommandError, CommandResult};

const PRELUDE: &str = include_str!("prelude.lua");
/// Name of the prelude in error positions.
const PRELUDE_NAME: &str = "@sandbox";

/// Bytes that scripts may hold at once; beyond, they fail with "not enough memory". Default: 1 GB.
const MAX_SCRIPT_MEMORY: usize = 1 << 30;

pub(super) struct Interpreter {
    pub(super) lua: Lua,
    /// Runs a script, and sweeps.
    run: Function,
    /// Empties the tables that scripts see, which hold nothing.
    sweep: Function,
    /// Why the script that has just run failed.
    failure: Arc<Mutex<Option<Failure>>>,
    /// Functions by the SHA-1 of their text. On Lua's side: there is room for some thousands of references to its values only.
    compiled: Table,
    watchdog: Arc<Watchdog>,
}

/// One run of a script.
pub(super) struct Run<'r> {
    pub(super) sha: [u8; 40],
    pub(super) source: &'r [u8],
    pub(super) keys: &'r [&'r [u8]],
    pub(super) args: &'r [&'r [u8]],
    pub(super) writes: Writes,
    /// Whether it may write without memory left.
    pub(super) allow_oom: bool,
}

impl Interpreter {
    pub(super) fn new(watchdog: &Arc<Watchdog>) -> mlua::Result<Self> {
        let libraries = StdLib::TABLE | StdLib::STRING | StdLib::MATH;
        // Lua's own `pcall` rather than the binding's, which lets panics through: nothing here panics.
        let lua = Lua::new_with(libraries, LuaOptions::new().catch_rust_panics(false))?;
        lua.set_memory_limit(MAX_SCRIPT_MEMORY)?;
        let host = lua.create_table()?;
        let random = Arc::new(Mutex::new(Random::new(crate::keyspace::random() as u32)));
        functions::add_random(&lua, &host, &random)?;
        functions::add_redis(&lua, &host)?;
        functions::add_repeat(&lua, &host)?;
        for (name, library) in libraries::all(&lua)? {
            host.raw_set(name, library)?;
        }
        host.raw_set(
            "rawset",
            lua.create_function(|_, (table, key, value): (Table, Value, Value)| table.raw_set(key, value))?,
        )?;
        host.raw_set("caught", lua.create_function(caught)?)?;
        let failure = Arc::new(Mutex::new(None));
        let slot = Arc::clone(&failure);
        let keep = move |lua: &Lua, error: Value| {
            let failure = describe(lua, &error);
            *slot.lock() = Some(failure);
            Ok(())
        };
        host.raw_set("describe", lua.create_function(keep)?)?;
        host.raw_set(
            "loadstring",
            lua.create_function(|lua, (text, name): (LuaString, LuaString)| {
                let chunk = lua.load(text.as_bytes().to_vec()).set_mode(ChunkMode::Text);
                match chunk.set_name(name.to_string_lossy()).into_function() {
                    Ok(function) => Ok((Value::Function(function), Value::Nil)),
                    Err(error) => Ok((Value::Nil, Value::String(lua.create_string(plain_message(&error))?))),
                }
            })?,
        )?;
        let dog = Arc::clone(watchdog);
        let check = move || if dog.must_end() { Err(call::ended()) } else { Ok(()) };
        host.raw_set("alive", lua.create_function(move |_, ()| check())?)?;
        let dog = Arc::clone(watchdog);
        // For every coroutine too, which inherits it.
        lua.set_global_hook(
            HookTriggers::new().every_nth_instruction(INSTRUCTIONS_PER_LOOK),
            move |_, _| dog.look().map(|()| VmState::Continue).map_err(|MustEnd| call::ended()),
        )?;
        lua.load(PRELUDE).set_name(PRELUDE_NAME).set_mode(ChunkMode::Text).call::<()>(&host)?;
        lua.set_globals(host.raw_get("environment")?)?;
        let (run, sweep) = (host.raw_get("run")?, host.raw_get("sweep")?);
        let compiled = lua.create_table()?;
        Ok(Self { lua, run, sweep, failure, compiled, watchdog: Arc::clone(watchdog) })
    }

    pub(super) fn compile(&mut self, sha: [u8; 40], source: &[u8]) -> Result<Function, CommandError> {
        let failed = |error: mlua::Error| CommandError::new(format!("ERR {}", plain_message(&error)));
        let name = self.lua.create_string(sha).map_err(failed)?;
        if let Some(function) = self.compiled.raw_get(&name).map_err(failed)? {
            return Ok(function);
        }
        let (_, body) = shebang::read(source)?;
        let chunk = self.lua.load(body).set_name(CHUNK_NAME).set_mode(ChunkMode::Text);
        let function = chunk.into_function().map_err(|error| {
            CommandError::new(format!("ERR Error compiling script (new function): {}", plain_message(&error)))
        })?;
        self.compiled.raw_set(name, &function).map_err(failed)?;
        Ok(function)
    }

    pub(super) fn run(&mut self, ctx: &mut Ctx<'_, '_>, run: &Run<'_>, out: &mut Reply) -> CommandResult {
        let function = self.compile(run.sha, run.source)?;
        let surroundings = Surroundings {
            ctx: RefCell::new(ctx),
            version: Cell::new(Version::Resp2),
            writes: run.writes,
            allow_oom: run.allow_oom,
            has_written: Cell::new(false),
            watchdog: &self.watchdog,
            calls: Cell::new(0),
            is_journalled: Cell::new(true),
        };
        let db = surroundings.ctx.borrow().session.db();
        self.watchdog.begin(surroundings.ctx.borrow().engine.settings.busy_reply_threshold());
        let result = self.run_in(&surroundings, &function, run);
        let is_cut_off = self.watchdog.is_abandoned() && !matches!(result, Ok(Ok(_)));
        self.watchdog.end();
        // What a script selects, it selects for itself.
        surroundings.ctx.borrow_mut().session.select(db);
        if result.is_err() {
            // It may have been ended before it was swept up.
            let _ = self.sweep.call::<()>(());
        }
        if is_cut_off {
            surroundings.ctx.borrow_mut().session.effects.void();
        }
        match result {
            Ok(Ok(value)) => lua_to_reply(&value, surroundings.version.get(), out),
            Ok(Err(failure)) => Err(CommandError::from_bytes(
                [
                    &*failure.text,
                    b" script: ",
                    &run.sha,
                    format!(", on {}:{}.", failure.source, failure.line).as_bytes(),
                ]
                .concat(),
            )),
            Err(error) => Err(CommandError::new(format!("ERR {}", plain_message(&error)))),
        }
    }

    fn run_in(
        &self,
        surroundings: &Surroundings<'_, '_, '_>,
        function: &Function,
        run: &Run<'_>,
    ) -> mlua::Result<Result<Value, Failure>> {
        let strings = |values: &[&[u8]]| {
            let table = self.lua.create_table_with_capacity(values.len(), 0)?;
            for value in values {
                table.raw_push(self.lua.create_string(value)?)?;
            }
            mlua::Result::Ok(table)
        };
        let (keys, args) = (strings(run.keys)?, strings(run.args)?);
        *self.failure.lock() = None;
        self.lua.scope(|scope| {
            let call = scope.create_function(|lua, args| call::perform(lua, surroundings, args))?;
            let (succeeded, value): (bool, Value) = self.run.call((function, call, keys, args))?;
            Ok(if succeeded {
                Ok(value)
            } else {
                // Without a word from the handler, it could not run: memory or the stack was used up.
                Err(self.failure.lock().take().unwrap_or_else(Failure::unknown))
            })
        })
    }
}

/// What a script failed with, and where.
#[derive(Debug)]
struct Failure {
    text: Vec<u8>,
    source: String,
    line: i64,
}

impl Failure {
    fn unknown() -> Self {
        Self { text: b"ERR not enough memory or stack".to_vec(), source: CHUNK_NAME.to_owned(), line: -1 }
    }
}

fn describe(lua: &Lua, error: &Value) -> Failure {
    let text = error_text(error);
    // The function that raised it, or the one that called that if it is none of Lua's; the sandbox's own are passed over.
    let mut is_after_prelude = false;
    for level in 1..16 {
        let found = lua.inspect_stack(level, |frame| {
            let source = frame.source();
            let name = source.source.map(|name| name.into_owned()).unwrap_or_default();
            let line = frame.current_line().map_or(-1, |line| line as i64);
            // A call that the sandbox itself has ended with leaves a mark of its own.
            let is_ours = name == PRELUDE_NAME || is_after_prelude && source.what == "tail";
            is_after_prelude = is_ours;
            (source.what != "C" && !is_ours).then_some((name, line))
        });
        match found {
            Some(Some((source, line))) => return Failure { text, source, line },
            Some(None) => {}
            None => break,
        }
    }
    Failure { text, source: CHUNK_NAME.to_owned(), line: 0 }
}

/// The text of whatever was raised as an error, with its code.
fn error_text(error: &Value) -> Vec<u8> {
    let general = |text: &[u8]| [b"ERR ", text].concat();
    match error {
        Value::Table(table) => match table.raw_get::<Value>("err") {
            Ok(Value::String(text)) => text.as_bytes().to_vec(),
            Ok(number @ (Value::Integer(_) | Value::Number(_))) => {
                number.to_string().unwrap_or_default().into_bytes()
            }
            _ => b"ERR unknown error".to_vec(),
        },
        Value::Error(error) => match Raised::of(error) {
            Some(Raised::Command(text)) => text.clone(),
            Some(Raised::Text(text)) => general(text),
            None => general(plain_message(error).as_bytes()),
        },
        Value::String(text) => general(&text.as_bytes()),
        Value::Nil => general(b"nil"),
        // What `tostring` says of anything else is its type and address.
        other => general(other.to_string().unwrap_or_default().as_bytes()),
    }
}

/// An error as a script sees it: of those that our functions raise, what they stand for.
fn caught(lua: &Lua, error: Value) -> mlua::Result<Value> {
    let Value::Error(inner) = &error else { return Ok(error) };
    match Raised::of(inner) {
        Some(Raised::Command(text)) => call::error_table(lua, text),
        Some(Raised::Text(text)) => Ok(Value::String(lua.create_string(text)?)),
        None => Ok(Value::String(lua.create_string(plain_message(inner))?)),
    }
}

/// The message of an error as Lua gave it, without what the binding adds.
fn plain_message(error: &mlua::Error) -> String {
    match error {
        mlua::Error::SyntaxError { message, .. } | mlua::Error::RuntimeError(message) => {
            message.lines().next().unwrap_or_default().to_owned()
        }
        mlua::Error::MemoryError(_) => "not enough memory".to_owned(),
        mlua::Error::CallbackError { cause, .. } => plain_message(cause),
        other => other.to_string().lines().next().unwrap_or_default().to_owned(),
    }
}
