//! Rewrites of the journal: BGREWRITEAOF, and the automatic ones.
//!
//! The cut of the keyspace and the cut of the journal are one moment, so the base and the increment after it hold exactly
//! everything. The base is written on a thread of its own while commands go on; only then does the writer put it in the
//! place of what it replaces. A rewrite that fails leaves all as it was. Deliberately absent: what stands in the files.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak, mpsc};
use std::thread::JoinHandle;
use std::time::Instant;

use mtcache_engine::rdb::RecordShape;
use mtcache_engine::{Engine, JournalReport, UnixMillis};
use mtcache_persistence::{BaseForm, BaseWriter, Error, NewBase, RdbOptions};
use parking_lot::Mutex;

use crate::journal::{JournalThread, NodeJournal};
use crate::snapshots::pour;
use crate::turns::{Turns, Work};

/// Failures in a row after which the next attempt is put off, as in Redis.
const FREE_FAILURES: u64 = 3;
/// How long it is put off then, in milliseconds; twice as long each time up to [`LONGEST_DELAY`]. Default: a minute.
const FIRST_DELAY: u64 = 60_000;
/// Default: an hour.
const LONGEST_DELAY: u64 = 60 * 60_000;

/// How long to wait before looking again whether others are through.
const NAP: std::time::Duration = std::time::Duration::from_millis(10);

const IN_PROGRESS: &str = "ERR Background append only file rewriting already in progress";

/// The rewrites of a node's journal.
pub(crate) struct Rewriter {
    engine: Weak<Engine>,
    thread: Arc<JournalThread>,
    journal: Arc<NodeJournal>,
    turns: Arc<Turns>,
    /// Goes up when the rewrite that is running, or waits for its turn, is to be given up.
    cancelled: AtomicU64,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    is_scheduled: bool,
    thread: Option<JoinHandle<()>>,
    /// First bases of journals that are switched on and have not begun to be written. They count as running: who is told that nothing
    /// is being rewritten may rely on the journal.
    first_bases: u32,
    started: Option<Instant>,
    last_seconds: Option<u64>,
    has_failed: bool,
    rewrites: u64,
    failures: u64,
    delay: u64,
    not_before: Option<UnixMillis>,
}

impl State {
    /// Whether attempts are put off after too many failures in a row.
    fn is_put_off(&mut self, now: UnixMillis) -> bool {
        if self.failures < FREE_FAILURES {
            self.delay = 0;
            self.not_before = None;
            return false;
        }
        if let Some(at) = self.not_before {
            if now < at {
                return true;
            }
            self.not_before = None;
            return false;
        }
        self.delay = (self.delay * 2).clamp(FIRST_DELAY, LONGEST_DELAY);
        self.not_before = Some(UnixMillis(now.0.saturating_add(self.delay)));
        true
    }
}

impl Rewriter {
    pub(crate) fn new(engine: &Arc<Engine>, thread: Arc<JournalThread>, turns: Arc<Turns>) -> Self {
        let (engine, journal) = (Arc::downgrade(engine), Arc::clone(thread.journal()));
        Self { engine, thread, journal, turns, cancelled: AtomicU64::new(0), state: Mutex::default() }
    }

    /// What a client asks for: a rewrite now, or after the snapshot that is being written. While the journal is off, its files
    /// become a base of what is there.
    pub(crate) fn request(self: &Arc<Self>) -> Result<String, String> {
        self.state.lock().failures = 0;
        self.start()
    }

    fn start(self: &Arc<Self>) -> Result<String, String> {
        match self.turns.begin(Work::Rewrite) {
            Ok(()) => {}
            Err(Work::Rewrite) => return Err(IN_PROGRESS.to_owned()),
            Err(Work::Save) => {
                self.state.lock().is_scheduled = true;
                return Ok("Background append only file rewriting scheduled".to_owned());
            }
        }
        let mut state = self.state.lock();
        state.is_scheduled = false;
        state.started = Some(Instant::now());
        state.rewrites += 1;
        let (rewriter, mine) = (Arc::clone(self), self.cancelled.load(Ordering::Acquire));
        let spawned = std::thread::Builder::new().name("mtcache-rewrite".to_owned()).spawn(move || {
            // The caller may hold locks of the keyspace (EXEC does); the cut waits here until they are released.
            rewriter.run(mine);
        });
        match spawned {
            Ok(thread) => {
                state.thread = Some(thread);
                Ok("Background append only file rewriting started".to_owned())
            }
            Err(error) => {
                drop(state);
                self.end(false);
                Err(format!("ERR cannot start a thread: {error}"))
            }
        }
    }

    /// Looks whether a rewrite is due. To be called a few times a second.
    pub(crate) fn tick(self: &Arc<Self>) {
        let Some(engine) = self.engine.upgrade() else { return };
        if self.turns.running().is_some() {
            return;
        }
        let is_scheduled = self.state.lock().is_scheduled;
        if !self.journal.is_on() && !is_scheduled {
            return;
        }
        let is_due = is_scheduled || self.journal.is_detached() || {
            let config = engine.config();
            let status = self.journal.status();
            let least = config.int("auto-aof-rewrite-min-size").max(0) as u64;
            let percentage = config.int("auto-aof-rewrite-percentage").max(0) as u64;
            is_grown(status.current_size, status.base_size, least, percentage) && status.failure.is_none()
        };
        if is_due && !self.state.lock().is_put_off(engine.now()) {
            // What goes wrong is logged and counted.
            let _ = self.start();
        }
    }

    /// Writes the first base of a journal that has just been switched on, however long others are at work before it. From
    /// its cut on, which is not before this returns, writes are journalled.
    pub(crate) fn begin_journal(self: &Arc<Self>) -> Result<(), String> {
        let (rewriter, mine) = (Arc::clone(self), self.cancelled.load(Ordering::Acquire));
        self.state.lock().first_bases += 1;
        let spawned = std::thread::Builder::new().name("mtcache-rewrite".to_owned()).spawn(move || {
            while rewriter.turns.begin(Work::Rewrite).is_err() {
                std::thread::sleep(NAP);
                if rewriter.is_cancelled(mine) {
                    rewriter.state.lock().first_bases -= 1;
                    return;
                }
            }
            let mut state = rewriter.state.lock();
            state.first_bases -= 1;
            state.started = Some(Instant::now());
            state.rewrites += 1;
            drop(state);
            rewriter.run(mine);
        });
        if spawned.is_err() {
            self.state.lock().first_bases -= 1;
        }
        let thread = spawned.map_err(|error| format!("cannot start a thread: {error}"))?;
        self.state.lock().thread = Some(thread);
        Ok(())
    }

    /// Makes the engine journal what it writes, or not.
    pub(crate) fn keep_journal(&self, on: bool) {
        if let Some(engine) = self.engine.upgrade() {
            engine.keep_journal(on);
        }
    }

    /// Before the end of the node: gives the rewrite up that is running, unless a start would find nothing without it.
    pub(crate) fn end_with(&self, journal: Option<&Arc<NodeJournal>>) {
        if journal.is_some_and(|journal| journal.is_detached()) {
            self.wait();
        } else {
            self.cancel();
        }
    }

    fn is_cancelled(&self, mine: u64) -> bool {
        self.cancelled.load(Ordering::Acquire) != mine
    }

    /// Rewrites, in the turn that has been taken.
    fn run(&self, mine: u64) {
        let result = Turns::caught(|| {
            if self.journal.is_on() { self.rewrite(mine) } else { self.rewrite_while_off(mine) }
        });
        match &result {
            Ok(bytes) => tracing::info!(bytes, "rewrote the append-only file"),
            Err(error) => tracing::error!("the append-only file was not rewritten: {error}"),
        }
        self.end(result.is_ok());
    }

    /// Has the rewrite that is running, if one is, be given up. It may be at work for a moment longer.
    pub(crate) fn give_up(&self) {
        let mut state = self.state.lock();
        self.cancelled.fetch_add(1, Ordering::AcqRel);
        state.is_scheduled = false;
    }

    /// Gives up the rewrite that is running, if one is, and waits for its end.
    pub(crate) fn cancel(&self) {
        self.give_up();
        self.wait();
    }

    /// Waits for the rewrite that is running.
    pub(crate) fn wait(&self) {
        let thread = self.state.lock().thread.take();
        if let Some(thread) = thread
            && thread.join().is_err()
        {
            tracing::error!("the thread that rewrote the append-only file had panicked");
        }
    }

    /// Adds what is known of rewrites.
    pub(crate) fn report(&self, report: &mut JournalReport) {
        let state = self.state.lock();
        report.is_rewriting = state.started.is_some() || state.first_bases > 0;
        report.is_scheduled = state.is_scheduled;
        report.current_rewrite_seconds = state.started.map(|started| started.elapsed().as_secs());
        report.last_rewrite_seconds = state.last_seconds;
        report.rewrites = state.rewrites;
        report.last_rewrite_ok = !state.has_failed;
        report.failed_rewrites = state.failures;
    }

    fn end(&self, is_ok: bool) {
        let mut state = self.state.lock();
        state.last_seconds = state.started.take().map(|started| started.elapsed().as_secs());
        state.has_failed = !is_ok;
        state.failures = if is_ok { 0 } else { state.failures + 1 };
        drop(state);
        self.turns.end();
    }

    fn rewrite(&self, mine: u64) -> Result<u64, Error> {
        let Some(engine) = self.engine.upgrade() else { return Err(Error::abandoned("the engine is gone")) };
        let (mut base, shape) = self.begin_base(&engine)?;
        let (answer, cut) = mpsc::channel();
        let begun = engine.begin_snapshot_as(shape, || {
            // Under the lock that giving up takes: whoever switches the journal off does so after this, or is seen here. The
            // journal that is on by then may be another one, which this is not to cut.
            let _state = self.state.lock();
            if !self.is_cancelled(mine) {
                self.journal.mark_cut(answer);
                engine.keep_journal(true);
            }
        });
        let mut snapshot = begun.ok_or_else(Error::busy)?;
        let mut rewrite = None;
        let go_on = || {
            if self.is_cancelled(mine) {
                return Err(Error::abandoned("it is needed no more"));
            }
            if rewrite.is_none()
                && let Ok(reached) = cut.try_recv()
            {
                rewrite = Some(reached?);
            }
            Ok(())
        };
        pour(&mut snapshot, go_on, |bytes| base.append(bytes))?;
        let base: NewBase = base.finish()?;
        let len = base.len();
        let rewrite = match rewrite {
            Some(rewrite) => rewrite,
            None => cut.recv().map_err(|_| Error::abandoned("the journal has ended"))??,
        };
        let replaced = self.journal.finish_rewrite(rewrite, base)?;
        let removed = self.journal.base_place().remove_history(replaced);
        self.journal.forget_history(removed);
        Ok(len)
    }

    /// As [`rewrite`](Self::rewrite), of a journal that is off: nothing is journalled meanwhile, and nothing after it.
    fn rewrite_while_off(&self, mine: u64) -> Result<u64, Error> {
        let Some(engine) = self.engine.upgrade() else { return Err(Error::abandoned("the engine is gone")) };
        self.thread.make_directory()?;
        let (mut base, shape) = self.begin_base(&engine)?;
        let mut snapshot = engine.begin_snapshot_as(shape, || ()).ok_or_else(Error::busy)?;
        let go_on = || {
            if self.is_cancelled(mine) { Err(Error::abandoned("it is needed no more")) } else { Ok(()) }
        };
        pour(&mut snapshot, go_on, |bytes| base.append(bytes))?;
        let base = base.finish()?;
        let len = base.len();
        self.thread.replace_while_off(&base, go_on)?;
        Ok(len)
    }

    fn begin_base(&self, engine: &Engine) -> Result<(BaseWriter, RecordShape), Error> {
        let config = engine.config();
        let (form, shape) = if config.flag("aof-use-rdb-preamble") {
            (BaseForm::Rdb, RecordShape::Rdb)
        } else {
            (BaseForm::Aof, RecordShape::Commands)
        };
        let mut options = RdbOptions::new(engine.now(), engine.used_memory() as u64);
        options.checksum = config.flag("rdbchecksum");
        Ok((self.journal.base_place().create_base(form, &options)?, shape))
    }
}

/// Whether the journal has grown by so much that a rewrite is due.
fn is_grown(current: u64, base: u64, least: u64, percentage: u64) -> bool {
    let grown = u128::from(current.saturating_sub(base)) * 100 / u128::from(base.max(1));
    percentage > 0 && current > least && grown >= u128::from(percentage)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rewrite_is_due_when_the_journal_is_large_and_has_grown() {
        assert!(is_grown(200, 100, 64, 100));
        assert!(!is_grown(199, 100, 64, 100));
        assert!(!is_grown(200, 100, 200, 100));
        assert!(!is_grown(2_000, 100, 64, 0));
        assert!(is_grown(u64::MAX, 0, 64, 100));
        assert!(!is_grown(50, 100, 0, 100));
    }

    #[test]
    fn after_three_failures_the_next_attempt_is_put_off_longer_and_longer() {
        let mut state = State { failures: 2, ..State::default() };
        assert!(!state.is_put_off(UnixMillis(0)));
        let (mut now, mut delays) = (0, Vec::new());
        for _ in 0..8 {
            state.failures += 1;
            let from = now;
            while state.is_put_off(UnixMillis(now)) {
                now += 60_000;
            }
            delays.push((now - from) / 60_000);
        }
        assert_eq!(delays, [1, 2, 4, 8, 16, 32, 60, 60]);
        state.failures = 0;
        assert!(!state.is_put_off(UnixMillis(now)));
    }
}
