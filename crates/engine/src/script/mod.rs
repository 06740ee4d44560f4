//! Scripts: one Lua 5.1 interpreter, its sandbox, and the cache of scripts by their SHA-1.
//!
//! A script runs while every shard is locked, so one interpreter serves all threads. What it writes goes to the journal as
//! the commands that it called, as one atomic group. Nothing of one script is seen by the next: globals cannot be made,
//! libraries are seen through read-only views, and only source text is ever compiled. What happens to scripts that take too
//! long is in `watchdog.rs`.

mod call;
mod convert;
mod functions;
mod interpreter;
mod libraries;
mod random;
mod shebang;
#[cfg(test)]
mod tests;
mod watchdog;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use ahash::RandomState;
use hashbrown::HashMap;
use mtcache_protocol::{CommandFlags, CommandSpec, Reply};
use parking_lot::{Mutex, MutexGuard};

use self::interpreter::{Interpreter, Run};
use self::shebang::Flags;
use self::watchdog::Watchdog;
use crate::context::Ctx;
use crate::engine::Engine;
use crate::error::{CommandError, CommandResult};
use crate::keyspace::{Busy, DbIndex};
use crate::time::Clock;

/// Name that scripts go by in error messages.
const CHUNK_NAME: &str = "@user_script";

/// Whether a script may write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Writes {
    /// It may.
    Allowed,
    /// It may not: `EVAL_RO`, `EVALSHA_RO`, a `no-writes` flag.
    Refused,
}

/// Keys that a session does not watch any more, and its flag.
type Watches = (Vec<(DbIndex, Box<[u8]>)>, Arc<AtomicBool>);

/// The scripts of an engine.
pub(crate) struct Scripts {
    /// Source text by lower-case SHA-1.
    sources: Mutex<HashMap<[u8; 40], Arc<[u8]>, RandomState>>,
    interpreter: Mutex<Option<Interpreter>>,
    watchdog: Arc<Watchdog>,
    /// The keyspace's.
    busy: Arc<Busy>,
    /// What could not be taken off the watch while a script took too long.
    unwatched: Mutex<Vec<Watches>>,
    has_unwatched: AtomicBool,
    /// Keys that could not be given to those who wait for them meanwhile.
    unserved: Mutex<Vec<(DbIndex, Box<[u8]>)>>,
    has_unserved: AtomicBool,
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
    pub(crate) fn new(clock: Arc<dyn Clock>, busy: Arc<Busy>) -> Self {
        Self {
            sources: Mutex::default(),
            interpreter: Mutex::default(),
            watchdog: Arc::new(Watchdog::new(clock, Arc::clone(&busy))),
            busy,
            unwatched: Mutex::default(),
            has_unwatched: AtomicBool::new(false),
            unserved: Mutex::default(),
            has_unserved: AtomicBool::new(false),
        }
    }

    /// `SCRIPT KILL`.
    pub(crate) fn kill(&self) -> CommandResult {
        self.watchdog.kill()
    }

    /// Makes scripts end from now on, for the server goes down: those that have not written, or all.
    pub(crate) fn close(&self, all: bool) {
        self.watchdog.close(all);
    }

    pub(crate) fn unwatch_later(&self, watched: Vec<(DbIndex, Box<[u8]>)>, flag: Arc<AtomicBool>) {
        self.unwatched.lock().push((watched, flag));
        self.has_unwatched.store(true, Ordering::Release);
    }

    pub(crate) fn serve_later(&self, ready: Vec<(DbIndex, Box<[u8]>)>) {
        self.unserved.lock().extend(ready);
        self.has_unserved.store(true, Ordering::Release);
    }

    /// Whether something was left to do for whoever runs a script.
    pub(crate) fn has_left(&self) -> bool {
        self.has_unwatched.load(Ordering::Relaxed) || self.has_unserved.load(Ordering::Relaxed)
    }

    pub(crate) fn take_unwatched(&self) -> Vec<Watches> {
        let mut unwatched = self.unwatched.lock();
        self.has_unwatched.store(false, Ordering::Release);
        std::mem::take(&mut *unwatched)
    }

    pub(crate) fn take_unserved(&self) -> Vec<(DbIndex, Box<[u8]>)> {
        let mut unserved = self.unserved.lock();
        self.has_unserved.store(false, Ordering::Release);
        std::mem::take(&mut *unserved)
    }

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

    /// The flags of a command that may run a script: what the script declares takes the place of what its command says. Of a
    /// script that declares nothing or that nobody knows, the command's own.
    #[cold]
    pub(crate) fn flags_of(&self, spec: &CommandSpec, args: &[&[u8]]) -> CommandFlags {
        const DECIDED: CommandFlags = CommandFlags::of(&[
            CommandFlags::STALE,
            CommandFlags::DENYOOM,
            CommandFlags::WRITE,
            CommandFlags::MAY_REPLICATE,
        ]);
        let Some(text) = args.get(1) else { return spec.flags };
        let flags_in = |source: &[u8]| shebang::read(source).map(|(flags, _)| flags).ok();
        let declared = match spec.name {
            "eval" | "eval_ro" => flags_in(text),
            "evalsha" | "evalsha_ro" => self.source(text).and_then(|source| flags_in(&source)),
            _ => None,
        };
        // What cannot be read is refused in its own words when it is run.
        let Some(flags) = declared.filter(|flags| flags.declared) else { return spec.flags };
        let mut effective = spec.flags.without(DECIDED);
        if !flags.no_writes {
            effective = effective.union(CommandFlags::WRITE);
            if !flags.allow_oom {
                effective = effective.union(CommandFlags::DENYOOM);
            }
        }
        effective
    }

    /// Forgets all scripts, and the interpreter with all that they may have left in it.
    pub(crate) fn flush(&self) -> CommandResult {
        let mut interpreter = self.interpreter()?;
        self.sources.lock().clear();
        *interpreter = None;
        Ok(())
    }

    /// The interpreter, unless a script takes too long in it.
    fn interpreter(&self) -> Result<MutexGuard<'_, Option<Interpreter>>, CommandError> {
        let guard = self.interpreter.try_lock();
        let guard = guard.or_else(|| self.busy.wait(|period| self.interpreter.try_lock_for(period)));
        guard.ok_or(CommandError::BUSY)
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
        let mut interpreter = self.interpreter()?;
        if interpreter.is_none() {
            let made = Interpreter::new(&self.watchdog);
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
    let (flags, _) = shebang::read(source)?;
    let writes = admit(ctx, flags, writes)?;
    let run = Run { sha, source, keys, args, writes, allow_oom: flags.declared && flags.allow_oom };
    let engine = ctx.engine;
    engine.scripts.with_interpreter(|interpreter| interpreter.run(ctx, &run, out))
}

impl Engine {
    /// What a thread that runs a script calls again and again once the script takes too long (`busy-reply-threshold`), so that
    /// it can serve others meanwhile, who are told so; the argument says whether it is the first time for this script. Only the
    /// first function that is given counts.
    pub fn on_overdue_script(&self, turn: impl Fn(bool) + Send + Sync + 'static) {
        self.scripts.watchdog.set_turn(Box::new(turn));
    }

    /// Whether a script takes too long at this moment, and nearly everything is refused.
    #[inline]
    pub fn is_busy(&self) -> bool {
        self.keyspace.is_busy()
    }

    /// Makes scripts that have not written end from now on: for whoever goes down.
    pub fn end_scripts(&self) {
        self.scripts.close(false);
    }
}

/// Whether a script that says what it does may run, and may write.
fn admit(ctx: &Ctx<'_, '_>, flags: Flags, writes: Writes) -> Result<Writes, CommandError> {
    if flags.no_writes {
        return Ok(Writes::Refused);
    }
    if !flags.declared || ctx.session.replay {
        return Ok(writes);
    }
    if writes == Writes::Refused {
        return Err(CommandError::new("ERR Can not execute a script with write flag using *_ro command."));
    }
    ctx.engine.check_durability()?;
    if ctx.session.out_of_memory && !flags.allow_oom {
        return Err(CommandError::new(
            "OOM allow-oom flag is not set on the script, can not run it when used memory > 'maxmemory'",
        ));
    }
    Ok(writes)
}
