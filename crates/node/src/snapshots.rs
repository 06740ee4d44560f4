//! Snapshots of a node: SAVE, BGSAVE, the save points, and the one at the end.
//!
//! One snapshot at a time, each written under a temporary name and put in place whole. After a failure the old file is still
//! there; with save points and `stop-writes-on-bgsave-error` writes are then refused until a snapshot succeeds, and one
//! is tried every [`RETRY`]. One that was only too slow is tried again too, and refuses nothing. Deliberately absent: the journal.

use std::path::PathBuf;
use std::sync::{Arc, Weak};
use std::thread::JoinHandle;
use std::time::Instant;

use mtcache_engine::{
    CommandError, Config, Engine, NotReloaded, Progress, ShutdownMode, Snapshot, SnapshotReport,
    StandingData, UnixMillis,
};
use mtcache_persistence::disk::Disk;
use mtcache_persistence::{ErrorKind, RdbOptions, save_rdb};
use parking_lot::Mutex;

use crate::replay::load_snapshot;
use crate::turns::{Turns, Work};

/// Milliseconds after a failure until the next attempt, where there are save points. Default: 5 s.
const RETRY: u64 = 5_000;
/// What is written at once, at least.
const WRITE_BYTES: usize = 256 * 1024;

const IN_PROGRESS: &str = "ERR Background save already in progress";
const REWRITE_IN_PROGRESS: &str = "ERR Another child process is active (AOF?): can't BGSAVE right now. Use BGSAVE SCHEDULE \
                                   in order to schedule a BGSAVE whenever possible.";

/// The snapshots of a node.
pub(crate) struct SnapshotKeeper {
    engine: Weak<Engine>,
    disk: Arc<dyn Disk>,
    dir: PathBuf,
    turns: Arc<Turns>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    is_scheduled: bool,
    /// Whether it is decided that no snapshot has to be made at the end.
    is_settled: bool,
    thread: Option<JoinHandle<()>>,
    last_save: UnixMillis,
    last_attempt: UnixMillis,
    has_failed: bool,
    /// Whether the last one failed only because the disk did not keep up.
    was_given_up: bool,
    last_seconds: Option<u64>,
    saves: u64,
    /// The engine's count of changes at the cut of the last good snapshot.
    changes_saved: u64,
}

impl SnapshotKeeper {
    /// Keeps snapshots in `dir`; what is in memory now counts as saved.
    pub(crate) fn new(engine: &Arc<Engine>, disk: Arc<dyn Disk>, dir: PathBuf, turns: Arc<Turns>) -> Self {
        let state = State { last_save: engine.now(), changes_saved: engine.changes(), ..State::default() };
        Self { engine: Arc::downgrade(engine), disk, dir, turns, state: Mutex::new(state) }
    }

    /// Writes a snapshot, on the caller's thread, after a rewrite of the journal that is running.
    pub(crate) fn save(&self) -> Result<(), String> {
        let engine = self.engine.upgrade().ok_or("ERR the engine is gone")?;
        let refusal =
            || if engine.is_busy() { CommandError::BUSY.to_string() } else { IN_PROGRESS.to_owned() };
        self.turns.begin_after_others(Work::Save, || engine.is_busy()).map_err(|_| refusal())?;
        let changes = engine.changes();
        let Some(snapshot) = engine.begin_snapshot_at_once() else {
            // Nothing has been tried, so nothing has failed.
            self.turns.end();
            return Err(refusal());
        };
        self.run(Some((snapshot, changes))).map_err(|error| format!("ERR {error}"))
    }

    /// Takes the turn to read data again while everything stands; it fails while a snapshot or a rewrite is written.
    pub(crate) fn begin_reload(&self) -> Result<(), NotReloaded> {
        self.turns.begin(Work::Save).map_err(|_| NotReloaded::Busy)
    }

    /// Writes a snapshot of data that stands, in the turn that [`begin_reload`](Self::begin_reload) has taken.
    pub(crate) fn save_standing(&self, data: &mut StandingData<'_, '_>) -> Result<(), String> {
        let (started, changes) = (Instant::now(), data.engine().changes());
        let (name, options) = rdb_options(data.engine());
        let result = save_rdb(&*self.disk, &self.dir, &name, &options, |writer| {
            data.pour(|bytes| writer.append(bytes))
        });
        let result = result.map(drop).map_err(|error| error.to_string());
        self.note_end(&result, changes, started);
        self.apply(&data.engine().config());
        result
    }

    /// Ends a reload. `is_as_saved`: the data is now what the files hold.
    pub(crate) fn end_reload(&self, engine: &Engine, is_as_saved: bool) {
        if is_as_saved {
            self.state.lock().changes_saved = engine.changes();
        }
        self.turns.end();
    }

    /// Loads the snapshot that is there into another engine.
    pub(crate) fn load_into(&self, engine: &Engine) -> Result<(), String> {
        let path = self.dir.join(engine.config().text("dbfilename").as_ref());
        match load_snapshot(engine, &*self.disk, &path) {
            Ok(Some(_)) => Ok(()),
            Ok(None) => Err(format!("there is no {}", path.display())),
            Err(error) => Err(error.to_string()),
        }
    }

    /// Starts a snapshot on a thread of its own. While one is running, `schedule` makes another follow it.
    pub(crate) fn save_in_background(self: &Arc<Self>, schedule: bool) -> Result<String, String> {
        match self.turns.begin(Work::Save) {
            Ok(()) => {}
            Err(Work::Save) => return Err(IN_PROGRESS.to_owned()),
            Err(Work::Rewrite) if !schedule => return Err(REWRITE_IN_PROGRESS.to_owned()),
            Err(Work::Rewrite) => {
                self.state.lock().is_scheduled = true;
                return Ok("Background saving scheduled".to_owned());
            }
        }
        let keeper = Arc::clone(self);
        let spawned = std::thread::Builder::new().name("mtcache-save".to_owned()).spawn(move || {
            // The caller may hold locks of the keyspace (EXEC does); the cut waits here until they are released.
            let _ = keeper.run(None);
        });
        match spawned {
            Ok(thread) => {
                self.state.lock().thread = Some(thread);
                Ok("Background saving started".to_owned())
            }
            Err(error) => {
                self.end(&Err(error.to_string()), 0, Instant::now());
                Err(format!("ERR cannot start a thread: {error}"))
            }
        }
    }

    /// Looks whether a snapshot is due. To be called a few times a second.
    pub(crate) fn tick(self: &Arc<Self>) {
        let Some(engine) = self.engine.upgrade() else { return };
        let now = engine.now();
        let (is_scheduled, since, retry_since, has_failed, saved) = {
            if self.turns.running().is_some() {
                return;
            }
            let state = self.state.lock();
            let since = |at: UnixMillis| now.0.saturating_sub(at.0);
            (
                state.is_scheduled,
                since(state.last_save),
                since(state.last_attempt),
                state.has_failed,
                state.changes_saved,
            )
        };
        let points = engine.config().save_points();
        if points.is_empty() && !is_scheduled {
            return;
        }
        let is_due = is_scheduled || {
            let changes = engine.changes().saturating_sub(saved);
            let is_reached = points
                .iter()
                .any(|point| changes >= point.changes && since > point.seconds.saturating_mul(1000));
            if has_failed { retry_since > RETRY } else { is_reached }
        };
        if is_due {
            self.state.lock().is_scheduled = false;
            let _ = self.save_in_background(false);
        }
    }

    /// Waits for a snapshot that is being written in the background.
    pub(crate) fn wait(&self) {
        let thread = self.state.lock().thread.take();
        if let Some(thread) = thread
            && thread.join().is_err()
        {
            tracing::error!("the thread that wrote a snapshot had panicked");
        }
    }

    /// What `SHUTDOWN` asks for, before the server ends. An error keeps it from ending.
    pub(crate) fn before_shutdown(&self, mode: ShutdownMode) -> Result<(), String> {
        let has_points =
            self.engine.upgrade().is_some_and(|engine| !engine.config().save_points().is_empty());
        self.state.lock().is_settled = true;
        if !mode.save.unwrap_or(has_points) {
            return Ok(());
        }
        self.wait();
        match self.save() {
            Err(error) if !mode.force => {
                tracing::error!("not shutting down: {error}");
                self.state.lock().is_settled = false;
                Err("ERR Errors trying to SHUTDOWN. Check logs.".to_owned())
            }
            _ => Ok(()),
        }
    }

    /// The snapshot at the end of a node, where save points are configured and `SHUTDOWN` has not decided otherwise.
    pub(crate) fn end_with_the_node(&self) {
        self.wait();
        let is_settled = std::mem::replace(&mut self.state.lock().is_settled, true);
        let has_points =
            self.engine.upgrade().is_some_and(|engine| !engine.config().save_points().is_empty());
        if !is_settled && has_points {
            // What goes wrong has been logged, and the file before it is still there.
            let _ = self.save();
        }
    }

    pub(crate) fn report(&self) -> SnapshotReport {
        let changes = self.engine.upgrade().map_or(0, |engine| engine.changes());
        let state = self.state.lock();
        SnapshotReport {
            changes: changes.saturating_sub(state.changes_saved),
            is_running: self.turns.running() == Some(Work::Save),
            last_save: Some(state.last_save),
            last_ok: !state.has_failed,
            last_seconds: state.last_seconds,
            saves: state.saves,
        }
    }

    /// Writes a snapshot that has begun, with the changes that were counted before its cut, or one that begins when it can.
    fn run(&self, begun: Option<(Snapshot, u64)>) -> Result<(), String> {
        let started = Instant::now();
        let Some(engine) = self.engine.upgrade() else { return Err("the engine is gone".to_owned()) };
        let mut changes = 0;
        let result = Turns::caught(|| self.write(&engine, begun, &mut changes));
        self.state.lock().was_given_up = matches!(&result, Err(error) if error.kind() == ErrorKind::TooSlow);
        match &result {
            Ok(bytes) => tracing::info!(bytes, "saved a snapshot"),
            Err(error) => tracing::error!("no snapshot was saved: {error}"),
        }
        let result = result.map(drop).map_err(|error| error.to_string());
        self.end(&result, changes, started);
        self.apply(&engine.config());
        result
    }

    fn write(
        &self,
        engine: &Arc<Engine>,
        begun: Option<(Snapshot, u64)>,
        changes: &mut u64,
    ) -> Result<u64, mtcache_persistence::Error> {
        let (name, options) = rdb_options(engine);
        save_rdb(&*self.disk, &self.dir, &name, &options, |writer| {
            // Counted before the cut: what changes in between is saved, and counted again.
            let (mut snapshot, before) = match begun {
                Some(begun) => begun,
                None => {
                    let changes = engine.changes();
                    (engine.begin_snapshot(|| {}).ok_or_else(mtcache_persistence::Error::busy)?, changes)
                }
            };
            *changes = before;
            pour(&mut snapshot, || Ok(()), |bytes| writer.append(bytes))
        })
    }

    fn end(&self, result: &Result<(), String>, changes: u64, started: Instant) {
        self.note_end(result, changes, started);
        self.turns.end();
    }

    fn note_end(&self, result: &Result<(), String>, changes: u64, started: Instant) {
        let now = self.engine.upgrade().map_or(UnixMillis(0), |engine| engine.now());
        let mut state = self.state.lock();
        state.last_attempt = now;
        state.last_seconds = Some(started.elapsed().as_secs());
        state.has_failed = result.is_err();
        if result.is_ok() {
            state.last_save = now;
            state.saves += 1;
            state.changes_saved = changes;
        }
    }

    /// Makes writes be refused, or not, as the configuration and the last snapshot demand.
    pub(crate) fn apply(&self, config: &Config) {
        let Some(engine) = self.engine.upgrade() else { return };
        let has_failed = {
            let state = self.state.lock();
            state.has_failed && !state.was_given_up
        };
        let refuse =
            has_failed && config.flag("stop-writes-on-bgsave-error") && !config.save_points().is_empty();
        engine.refuse_writes_for_snapshots(refuse);
    }
}

/// The file's name, and how it is written.
fn rdb_options(engine: &Engine) -> (String, RdbOptions) {
    let config = engine.config();
    let mut options = RdbOptions::new(engine.now(), engine.used_memory() as u64);
    options.checksum = config.flag("rdbchecksum");
    (config.text("dbfilename").into_owned(), options)
}

/// Writes out a whole snapshot, in pieces of about [`WRITE_BYTES`]. `before_each` step may end it with an error.
pub(crate) fn pour(
    snapshot: &mut Snapshot,
    mut before_each: impl FnMut() -> Result<(), mtcache_persistence::Error>,
    mut write: impl FnMut(&[u8]) -> Result<(), mtcache_persistence::Error>,
) -> Result<(), mtcache_persistence::Error> {
    let mut bytes = Vec::with_capacity(2 * WRITE_BYTES);
    loop {
        before_each()?;
        let progress = snapshot.next(&mut bytes);
        if bytes.len() >= WRITE_BYTES || progress == Progress::Done {
            write(&bytes)?;
            bytes.clear();
            bytes.shrink_to(8 * WRITE_BYTES);
        }
        match progress {
            // Whoever answers commands and waits for this core goes first, not after what the scheduler thinks is our turn.
            Progress::More => std::thread::yield_now(),
            Progress::Done => return Ok(()),
            Progress::Abandoned => return Err(mtcache_persistence::Error::too_slow()),
        }
    }
}
