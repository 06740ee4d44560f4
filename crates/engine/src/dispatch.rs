//! From the arguments of a command to its reply: look it up, check what may be checked before it runs, lock the shards of
//! its keys, run it, journal what it did.
//!
//! The order of the checks is Redis': unknown command, number of arguments, authentication, rights, memory, durability,
//! open transaction. Deliberately absent: what any command does.

use std::cell::Cell;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use mtcache_protocol::{CommandFlags, CommandId, CommandSpec, KeyShape, Peeked, Reply, lookup, lookup_sub};
use smallvec::SmallVec;

use crate::acl::{Denied, Place};
use crate::blocking::Parked;
use crate::commands::{Handler, Locks, handler};
use crate::context::{Ctx, Origin};
use crate::engine::Engine;
use crate::error::CommandError;
use crate::host::LogLevel;
use crate::journal::Commands;
use crate::keyspace::{DbIndex, Found, KeyHash, Locked};
use crate::observe::{Observed, check_restriction, newer_subcommand, silence};
use crate::session::{Caching, Nesting, Queued, ReplyMode, Restriction, Session, Transaction};
use crate::time::UnixMillis;

const EXEC: CommandId = CommandId::of("exec");

thread_local! {
    static ALONE: Alone = const { Alone::new() };
}

/// What a thread knows of the time in which it leaves no work to others.
struct Alone {
    nanos: Cell<u64>,
    /// The shard that most commands are about, if there is such a one, and by how many it leads (R. Boyer and J. Moore's
    /// majority vote, 1981).
    favourite: Cell<(usize, u32)>,
    is_in_favourite: Cell<bool>,
}

impl Alone {
    /// As far as a lead counts: a favourite that is one no more is forgotten after so many commands.
    const LONGEST_LEAD: u32 = 1000;

    const fn new() -> Self {
        Self { nanos: Cell::new(0), favourite: Cell::new((0, 0)), is_in_favourite: Cell::new(false) }
    }

    /// The thread runs a command on this shard alone.
    #[inline]
    fn enter(&self, shard: usize) {
        let (favourite, lead) = self.favourite.get();
        let is_it = favourite == shard;
        self.favourite.set(match lead {
            0 => (shard, 1),
            _ if is_it => (favourite, (lead + 1).min(Self::LONGEST_LEAD)),
            _ => (favourite, lead - 1),
        });
        self.is_in_favourite.set(is_it);
    }

    /// The command has taken so long.
    #[inline]
    fn leave(&self, nanos: u64) {
        if self.is_in_favourite.take() {
            self.add(nanos);
        }
    }

    fn add(&self, nanos: u64) {
        self.nanos.set(self.nanos.get().wrapping_add(nanos));
    }
}

/// Nanoseconds for which the calling thread has held all keys so far, or the shard that most of its commands are about: time in
/// which another thread with the same work would have waited. Counts up from any number, and wraps.
#[must_use]
pub fn nanos_alone() -> u64 {
    ALONE.with(|alone| alone.nanos.get())
}

/// Arguments of most commands fit without an allocation.
pub(crate) type Args<'a> = SmallVec<[&'a [u8]; 16]>;

impl Engine {
    /// Runs one command and writes its reply. `args` starts with the command's name; an empty one is ignored.
    pub fn dispatch(&self, session: &mut Session, args: &[&[u8]], now: UnixMillis, out: &mut Reply) {
        if args.is_empty() {
            return;
        }
        out.set_version(session.version);
        let mark = out.len();
        if let Err(error) = self.try_dispatch(session, args, now, out) {
            out.truncate(mark);
            out.error(error.text());
            self.stats.error(error.text());
        }
        if out.is_over() {
            self.cut_off(session, out, mark);
        }
        if session.reply_mode != ReplyMode::On && session.parked() == Parked::No {
            silence(session, out, mark);
        }
    }

    /// Ends a session whose replies have grown beyond what they may be, and tells it so if it can still be told.
    #[cold]
    fn cut_off(&self, session: &mut Session, out: &mut Reply, mark: usize) {
        out.cut(mark);
        let error = CommandError::REPLY_TOO_LARGE;
        out.error(error.text());
        self.stats.error(error.text());
        session.close = true;
        let client = &session.client;
        client.mailbox.close();
        let text = format!(
            "Client id={} addr={} scheduled to be closed ASAP for overcoming of output buffer limits: its replies were larger \
             than {} bytes.",
            client.id,
            client.addr,
            out.ceiling()
        );
        self.hosts.log(LogLevel::Warning, &text);
    }

    /// Looks at commands that a session will send next, in order, so that what they need is on its way from memory when they
    /// run. Changes nothing, and waits for nobody. Whether there was anything to be asked for: if not, there may be nothing for a while.
    #[inline]
    pub fn look_ahead(&self, session: &Session, commands: &[Peeked<'_>]) -> bool {
        session.authenticated && self.keyspace.look_ahead(session.db, commands)
    }

    fn try_dispatch(
        &self,
        session: &mut Session,
        args: &[&[u8]],
        now: UnixMillis,
        out: &mut Reply,
    ) -> Result<(), CommandError> {
        let spec = match resolve_by(|name| session.recent.lookup(name), args) {
            Ok(spec) => spec,
            Err(_) if is_http(args) => {
                session.close = true;
                return Ok(());
            }
            Err(error) => return Err(self.refuse(session, args, error)),
        };
        session.client.touch(spec.id, now);
        let flags = self.flags_of(spec, args);
        if let Err(error) = self.admit(session, spec, flags, args, now) {
            return Err(self.refuse(session, args, error));
        }
        if self.pause.is_on() && self.is_held(session, spec, flags) {
            return Ok(());
        }
        if let Some(transaction) = &mut session.transaction
            && !ends_or_escapes_transaction(spec)
        {
            let is_void = session.watch_flag.load(Ordering::Acquire);
            let queued = queue(transaction, spec, flags, args, is_void, out);
            session.show_queue();
            return queued;
        }
        let Some(handler) = handler(spec) else { return Err(not_yet(spec)) };
        let was_in_transaction = session.transaction.is_some();
        let started = session.start_timing(&*self.clock);
        let result = if handler.locks == Locks::Exec {
            self.exec(session, now, out)
        } else {
            self.execute(session, handler, spec, args, now, out)
        };
        if session.caching != Caching::Unsaid
            && session.transaction.is_none()
            && spec.container != Some("client")
        {
            session.caching = Caching::Unsaid;
        }
        let nanos = session.end_timing(&*self.clock, started, Nesting::Outer);
        ALONE.with(|alone| alone.leave(nanos));
        if session.blocked.is_some() {
            Self::begin_waiting(session, nanos);
        } else {
            self.stats.ran(spec.id, nanos, result.is_err());
        }
        if self.is_observed(nanos) {
            self.observe(session, &Observed { spec, args, nanos, now, origin: Origin::Client });
        }
        if was_in_transaction || session.transaction.is_some() {
            session.show_queue();
        }
        result
    }

    /// Locks what the command needs, runs it and journals what it did.
    #[inline]
    fn execute(
        &self,
        session: &mut Session,
        handler: Handler,
        spec: &'static CommandSpec,
        args: &[&[u8]],
        now: UnixMillis,
        out: &mut Reply,
    ) -> Result<(), CommandError> {
        // Whatever is read behind a lock waits for it.
        let access = self.settings.access_clock(now);
        let (mut locked, hash) = self.lock_for(handler, spec, args).ok_or(CommandError::BUSY)?;
        let alone_since = (handler.locks == Locks::All).then(|| self.clock.monotonic_nanos());
        let origin = if session.replay { Origin::Replay } else { Origin::Client };
        let mut ctx = Ctx::new(self, &mut locked, session, access, now, origin);
        if let Some((key, hash)) = hash {
            ctx.remember(key, hash);
        }
        let result = (handler.run)(&mut ctx, args, out);
        if ctx.session.tracks {
            ctx.remember_reads(spec, args);
        }
        if let Some(journal) = self.journal.get() {
            // The usual case, one plain write, goes to the journal without a detour.
            let lsn = if ctx.session.effects.is_empty() {
                ctx.journals_itself().then(|| journal.append(ctx.session.db, Commands::Args(args)))
            } else {
                if ctx.journals_itself() {
                    let db = ctx.session.db;
                    ctx.session.effects.push(db, args);
                }
                ctx.session.effects.flush(&**journal)
            };
            if let Some(lsn) = lsn {
                ctx.session.last_write = lsn;
            }
        } else {
            ctx.session.effects.clear();
        }
        self.release(locked, session, now);
        if let Some(since) = alone_since {
            let nanos = self.clock.monotonic_nanos().saturating_sub(since);
            ALONE.with(|alone| alone.add(nanos));
            if self.scripts.has_left() {
                self.do_what_was_left(session, now);
            }
        }
        result
    }

    /// Runs a command inside another one's locks: `EXEC` and `redis.call`. Its writes join the outer one's.
    pub(crate) fn run_nested(
        ctx: &mut Ctx<'_, '_>,
        spec: &'static CommandSpec,
        handler: Handler,
        args: &[&[u8]],
        out: &mut Reply,
    ) -> Result<(), CommandError> {
        ctx.begin_command();
        let (engine, db) = (ctx.engine, ctx.session.db);
        let mark = out.len();
        let started = ctx.session.start_timing(&*engine.clock);
        let result = (handler.run)(ctx, args, out);
        if ctx.session.tracks {
            ctx.remember_reads(spec, args);
        }
        let nanos = ctx.session.end_timing(&*engine.clock, started, Nesting::Inner);
        engine.stats.ran(spec.id, nanos, result.is_err());
        if engine.is_observed(nanos) {
            let observed = Observed { spec, args, nanos, now: ctx.now, origin: ctx.origin };
            engine.observe(ctx.session, &observed);
        }
        if result.is_err() {
            out.truncate(mark);
        }
        if ctx.journals_itself() && ctx.is_journalled() {
            ctx.session.effects.push(db, args);
        }
        ctx.begin_command();
        result
    }

    /// The flags by which a command is admitted: its own, or those that the script in it declares.
    #[inline]
    fn flags_of(&self, spec: &CommandSpec, args: &[&[u8]]) -> CommandFlags {
        // Few commands have it: those that run scripts are among them.
        if spec.flags.contains(CommandFlags::SKIP_MONITOR) {
            return self.scripts.flags_of(spec, args);
        }
        spec.flags
    }

    /// What has to hold before a command may run or be queued.
    #[inline]
    fn admit(
        &self,
        session: &mut Session,
        spec: &CommandSpec,
        mut flags: CommandFlags,
        args: &[&[u8]],
        now: UnixMillis,
    ) -> Result<(), CommandError> {
        if !session.authenticated
            && !spec.flags.contains(CommandFlags::NO_AUTH)
            && !self.is_authenticated(session)
        {
            return Err(CommandError::NO_AUTH);
        }
        if session.replay {
            return Ok(());
        }
        if self.keyspace.is_busy() && !spec.flags.contains(CommandFlags::ALLOW_BUSY) {
            return Err(CommandError::BUSY);
        }
        if session.transaction.is_some() && spec.flags.contains(CommandFlags::NO_MULTI) {
            return Err(CommandError::new("ERR Command not allowed inside a transaction"));
        }
        if !session.user.is_unrestricted() {
            let place = if session.transaction.is_some() { Place::Multi } else { Place::TopLevel };
            self.check_permission(session, spec, args, place, now).map_err(|denied| denied.refusal(spec))?;
        }
        if session.restriction != Restriction::None {
            check_restriction(session.restriction, spec, flags)?;
        }
        if let Some(transaction) = &session.transaction {
            if spec.id == EXEC {
                flags = flags.union(transaction.flags);
            } else if !matches!(spec.name, "discard" | "quit" | "reset") {
                // What is queued takes memory too.
                flags = flags.union(CommandFlags::DENYOOM);
            }
        }
        if flags.contains(CommandFlags::DENYOOM) {
            if !self.make_room(now) {
                return Err(if self.keyspace.is_busy() { CommandError::BUSY } else { CommandError::OOM });
            }
            session.out_of_memory = false;
        }
        // A script cannot make room once it runs, for it holds every lock.
        if flags.contains(CommandFlags::MAY_REPLICATE) {
            session.out_of_memory = !self.make_room(now);
            self.await_snapshot();
        }
        if flags.contains(CommandFlags::WRITE) {
            self.check_durability()?;
            self.await_snapshot();
        }
        Ok(())
    }

    /// Whether what is written now can be kept.
    pub(crate) fn check_durability(&self) -> Result<(), CommandError> {
        if self.snapshots_fail() {
            return Err(CommandError::MISCONF_RDB);
        }
        if !self.accepts_writes() {
            return Err(CommandError::MISCONF_AOF);
        }
        Ok(())
    }

    /// What a command that may not run does to an open transaction: `EXEC` ends it, any other makes `EXEC` refuse.
    #[cold]
    fn refuse(&self, session: &mut Session, args: &[&[u8]], error: CommandError) -> CommandError {
        self.count_refused(args);
        let is_exec = args.first().is_some_and(|name| name.eq_ignore_ascii_case(b"exec"));
        if !is_exec {
            if let Some(transaction) = &mut session.transaction {
                transaction.aborted = true;
            }
            return error;
        }
        session.transaction = None;
        self.unwatch_all(session);
        CommandError::exec_abort(&error)
    }

    /// Locks what a command needs. The first key's hash comes along where it was needed for that. `None` when a script that
    /// takes too long has the locks.
    #[inline]
    fn lock_for<'r>(
        &self,
        handler: Handler,
        spec: &CommandSpec,
        args: &[&'r [u8]],
    ) -> Option<(Locked<'_>, Option<(&'r [u8], KeyHash)>)> {
        Some(match handler.locks {
            Locks::None | Locks::Later | Locks::Exec => (Locked::none(&self.keyspace), None),
            Locks::All => (self.keyspace.lock_all_unless_busy()?, None),
            Locks::Keys => {
                if let (KeyShape::First, [_, key, ..]) = (spec.key_shape, args) {
                    let hash = self.keyspace.hash(key);
                    let shard = self.keyspace.shard_of(hash);
                    let locked = self.keyspace.lock_one_unless_busy(shard)?;
                    ALONE.with(|alone| alone.enter(shard));
                    return Some((locked, Some((*key, hash))));
                }
                let mut shards = SmallVec::new();
                self.shards_of(spec, args, &mut shards);
                (self.keyspace.lock_shards_unless_busy(&mut shards)?, None)
            }
        })
    }

    /// Adds the shards of a command's keys. A command whose keys cannot be told locks nothing here: it fails on its own.
    fn shards_of(&self, spec: &CommandSpec, args: &[&[u8]], shards: &mut SmallVec<[usize; 8]>) {
        let mut keys = SmallVec::new();
        if mtcache_protocol::keys(spec, args, &mut keys).is_err() {
            return;
        }
        for key in keys.iter().filter_map(|&index| args.get(index)) {
            shards.push(self.keyspace.shard_of(self.keyspace.hash(key)));
        }
    }

    fn exec(&self, session: &mut Session, now: UnixMillis, out: &mut Reply) -> Result<(), CommandError> {
        let Some(transaction) = session.transaction.take() else {
            return Err(CommandError::EXEC_WITHOUT_MULTI);
        };
        if transaction.aborted {
            self.unwatch_all(session);
            return Err(CommandError::EXEC_ABORT);
        }
        let (watched, flag) = session.take_watches();
        let Some(mut locked) = self.lock_for_transaction(&transaction, &watched) else {
            self.unwatch(&watched, flag);
            return Err(CommandError::exec_abort(&CommandError::BUSY));
        };
        // Under the locks nothing can change a watched key any more; until here it may have, or have expired.
        let mut void = flag.load(Ordering::Acquire);
        for (db, key) in &watched {
            let hash = self.keyspace.hash(key);
            let shard = locked.shard(self.keyspace.shard_of(hash));
            shard.unwatch(*db, key, &flag);
            void |= matches!(shard.find_live(*db, hash, key, now), Found::Expired(_));
        }
        if void {
            out.null_array();
            return Ok(());
        }
        let origin = if session.replay { Origin::Replay } else { Origin::Transaction };
        let access = self.settings.access_clock(now);
        let mut ctx = Ctx::new(self, &mut locked, session, access, now, origin);
        let begin = out.len();
        out.array(transaction.queue.len());
        for queued in &transaction.queue {
            let args: Args<'_> = queued.args.iter().map(|arg| &**arg).collect();
            let result = Self::run_queued(&mut ctx, queued.spec, &args, out);
            if let Err(error) = result {
                out.error(error.text());
                self.stats.error(error.text());
            }
            if out.is_over() {
                // All of them run, whoever hears of it.
                out.cut(begin);
            }
        }
        match self.journal.get() {
            Some(journal) => {
                if let Some(lsn) = ctx.session.effects.flush(&**journal) {
                    ctx.session.last_write = lsn;
                }
            }
            None => ctx.session.effects.clear(),
        }
        self.release(locked, session, now);
        if self.scripts.has_left() {
            self.do_what_was_left(session, now);
        }
        Ok(())
    }

    /// Runs a queued command, if its user may still run it: rights can change while commands are queued.
    fn run_queued(
        ctx: &mut Ctx<'_, '_>,
        spec: &'static CommandSpec,
        args: &[&[u8]],
        out: &mut Reply,
    ) -> Result<(), CommandError> {
        if !ctx.session.user.is_unrestricted() {
            ctx.engine
                .check_permission(ctx.session, spec, args, Place::Multi, ctx.now)
                .map_err(Denied::refusal_in_exec)?;
        }
        match handler(spec) {
            Some(handler) => Self::run_nested(ctx, spec, handler, args, out),
            None => Err(not_yet(spec)),
        }
    }

    /// Ends a command: what it has brought goes to those who wait for it, and its locks are released.
    #[inline]
    fn release<'e>(&'e self, locked: Locked<'e>, session: &mut Session, now: UnixMillis) {
        if session.ready.is_empty() {
            drop(locked);
        } else {
            self.serve_ready(locked, session, now);
        }
        session.drop_garbage();
    }

    /// Whether a pause holds the command back.
    #[cold]
    fn is_held(&self, session: &mut Session, spec: &CommandSpec, flags: CommandFlags) -> bool {
        let queued = session.transaction.as_ref().filter(|_| spec.id == EXEC);
        let queued = queued.map(|transaction| transaction.flags).unwrap_or_default();
        !session.replay && self.hold(session, flags.union(queued))
    }

    fn lock_for_transaction(
        &self,
        transaction: &Transaction,
        watched: &[(DbIndex, Box<[u8]>)],
    ) -> Option<Locked<'_>> {
        let mut shards = SmallVec::new();
        for queued in &transaction.queue {
            match handler(queued.spec).map(|handler| handler.locks) {
                Some(Locks::All | Locks::Later) => return self.keyspace.lock_all_unless_busy(),
                Some(Locks::Keys) => {
                    let args: Args<'_> = queued.args.iter().map(|arg| &**arg).collect();
                    self.shards_of(queued.spec, &args, &mut shards);
                }
                _ => {}
            }
        }
        for (_, key) in watched {
            shards.push(self.keyspace.shard_of(self.keyspace.hash(key)));
        }
        self.keyspace.lock_shards_unless_busy(&mut shards)
    }

    /// Forgets what a session watches. Called without locks, unless it watches nothing.
    pub(crate) fn unwatch_all(&self, session: &mut Session) {
        let (watched, flag) = session.take_watches();
        self.unwatch(&watched, flag);
    }

    /// Takes keys off the watch. What cannot be done while a script takes too long is done after it: until then a flag goes up
    /// that nobody looks at.
    fn unwatch(&self, watched: &[(DbIndex, Box<[u8]>)], flag: Arc<AtomicBool>) {
        for (done, (db, key)) in watched.iter().enumerate() {
            let number = self.keyspace.shard_of(self.keyspace.hash(key));
            let Some(mut locked) = self.keyspace.lock_one_unless_busy(number) else {
                self.scripts.unwatch_later(watched.get(done..).unwrap_or_default().to_vec(), flag);
                if !self.keyspace.is_busy() {
                    self.unwatch_late();
                }
                return;
            };
            locked.shard(number).unwatch(*db, key, &flag);
        }
    }

    #[cold]
    fn do_what_was_left(&self, session: &mut Session, now: UnixMillis) {
        self.unwatch_late();
        self.serve_left(session, now);
    }

    /// Does what [`unwatch`](Self::unwatch) has left.
    #[cold]
    pub(crate) fn unwatch_late(&self) {
        for (watched, flag) in self.scripts.take_unwatched() {
            self.unwatch(&watched, flag);
        }
    }
}

/// Whether this is a line of an HTTP request. A browser that was tricked into sending one here could smuggle commands in
/// what follows, so the connection ends at once and without an answer.
fn is_http(args: &[&[u8]]) -> bool {
    args.first().is_some_and(|name| name.eq_ignore_ascii_case(b"post") || name.eq_ignore_ascii_case(b"host:"))
}

impl Session {
    /// Whether this command may run a script, and so take long.
    #[inline]
    pub fn may_run_script(&self, args: &[&[u8]]) -> bool {
        matches!(args, [[b'e' | b'E', ..], ..]) && self.runs_script(args)
    }

    #[cold]
    fn runs_script(&self, args: &[&[u8]]) -> bool {
        let runs_one =
            |spec: &CommandSpec| matches!(spec.name, "eval" | "evalsha" | "eval_ro" | "evalsha_ro");
        match args.first().and_then(|name| lookup(name)) {
            Some(spec) if spec.id == EXEC => self
                .transaction
                .as_ref()
                .is_some_and(|transaction| transaction.queue.iter().any(|queued| runs_one(queued.spec))),
            Some(spec) => runs_one(spec),
            None => false,
        }
    }
}

/// Finds the command, or the subcommand, and checks the number of arguments.
#[inline]
pub(crate) fn resolve(args: &[&[u8]]) -> Result<&'static CommandSpec, CommandError> {
    resolve_by(lookup, args)
}

#[inline]
fn resolve_by(
    find: impl FnOnce(&[u8]) -> Option<&'static CommandSpec>,
    args: &[&[u8]],
) -> Result<&'static CommandSpec, CommandError> {
    let name = args.first().copied().unwrap_or_default();
    let Some(mut spec) = find(name) else { return Err(CommandError::unknown_command(args)) };
    if spec.is_container()
        && let Some(sub) = args.get(1)
    {
        match lookup_sub(spec, sub) {
            Some(found) => spec = found,
            None => return newer_subcommand(spec, sub, args.len()),
        }
    }
    if spec.accepts(args.len()) { Ok(spec) } else { Err(CommandError::arity(spec.full_name())) }
}

/// A command of the table that the engine cannot run yet.
pub(crate) fn not_yet(spec: &CommandSpec) -> CommandError {
    CommandError::new(format!(
        "ERR '{}' is not supported by this version of the engine yet",
        spec.full_name()
    ))
}

/// Commands that run at once although a transaction is open.
fn ends_or_escapes_transaction(spec: &CommandSpec) -> bool {
    matches!(spec.name, "exec" | "discard" | "multi" | "watch" | "quit" | "reset")
}

/// Bytes that one transaction may queue. Default: 1 GB, Redis' limit of a client's query buffer.
pub const MAX_TRANSACTION_BYTES: usize = 1 << 30;

fn queue(
    transaction: &mut Transaction,
    spec: &'static CommandSpec,
    flags: CommandFlags,
    args: &[&[u8]],
    is_void: bool,
    out: &mut Reply,
) -> Result<(), CommandError> {
    out.simple("QUEUED");
    if is_void || transaction.aborted {
        // It will not run: no memory for it.
        return Ok(());
    }
    transaction.bytes += args.iter().map(|arg| arg.len() + size_of::<Box<[u8]>>()).sum::<usize>();
    if transaction.bytes > MAX_TRANSACTION_BYTES {
        transaction.aborted = true;
        return Err(CommandError::new("ERR transaction too large: more than 1 GB of queued arguments"));
    }
    transaction.flags = transaction.flags.union(flags);
    transaction.queue.push(Queued { spec, args: args.iter().map(|arg| Box::from(*arg)).collect() });
    Ok(())
}

#[cfg(test)]
mod alone_tests {
    use super::Alone;

    fn share(shards: impl Iterator<Item = usize>) -> u64 {
        let alone = Alone::new();
        for shard in shards.take(10_000) {
            alone.enter(shard);
            alone.leave(1);
        }
        alone.nanos.get() / 100
    }

    #[test]
    fn time_in_one_shard_counts_and_time_spread_over_many_does_not() {
        assert!(share(std::iter::repeat(7)) >= 99);
        // Three of four commands are about one key, the others about any.
        assert!((70..=80).contains(&share((0..).map(|n| if n % 4 == 0 { n % 64 } else { 7 }))));
        assert!(share((0..).map(|n| n * 2_654_435_761 % 4_294_967_291 % 64)) <= 3);
        assert_eq!(share(0..), 0);
    }

    #[test]
    fn a_favourite_that_is_one_no_more_is_forgotten() {
        let alone = Alone::new();
        for shard in std::iter::repeat_n(1, 1_000_000).chain(std::iter::repeat_n(2, 10_000)) {
            alone.enter(shard);
            alone.leave(u64::from(shard == 2));
        }
        assert!(alone.nanos.get() >= 8_000, "{}", alone.nanos.get());
    }
}
