//! What the engine asks of whoever owns it: the node, the server.
//!
//! Some commands are about the process and its files (`SHUTDOWN`, `BGSAVE`, half of `INFO`), of which the engine knows
//! nothing. Every owner registers a [`Host`]; each adds its part to a report, and the first that understands a request
//! answers it.

use std::sync::Arc;

use parking_lot::RwLock;

use crate::engine::Engine;
use crate::reload::{NotReloaded, ReloadFrom, StandingData};
use crate::time::UnixMillis;

/// An owner of the engine.
pub trait Host: Send + Sync {
    /// Writes what this owner knows into the report.
    fn report(&self, _report: &mut HostReport) {}

    /// Does what a client asks for; the text becomes the reply. `None` when it is no business of this owner. An error's text
    /// starts with its code.
    fn perform(&self, _request: HostRequest) -> Option<Result<String, String>> {
        None
    }

    /// An engine like this one with the data that its files hold: `DEBUG RELOAD`, `DEBUG LOADAOF`. Everything stands
    /// meanwhile. `None` when this owner knows no such files.
    fn reload(
        &self,
        _from: ReloadFrom,
        _data: &mut StandingData<'_, '_>,
    ) -> Option<Result<Box<Engine>, NotReloaded>> {
        None
    }

    /// The bytes of a file: `ACL LOAD`, `CONFIG REWRITE`. `None` when this owner knows no files.
    fn read_file(&self, _path: &str) -> Option<Result<Vec<u8>, String>> {
        None
    }

    /// Puts a file of these bytes in place of what is there, wholly or not at all: `ACL SAVE`, `CONFIG REWRITE`.
    fn replace_file(&self, _path: &str, _bytes: &[u8]) -> Option<Result<(), String>> {
        None
    }

    /// Writes a line to the log, for a client: `redis.log`, `DEBUG LOG`. Every owner is told.
    fn log(&self, _level: LogLevel, _text: &str) {}
}

/// How much a line of the log matters, least first; redis.conf's `loglevel` has the same names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum LogLevel {
    /// For who looks for a fault.
    Debug,
    /// Rarely useful.
    Verbose,
    /// What one wants to know.
    Notice,
    /// What must not be missed.
    Warning,
}

/// What a client may ask of the engine's owners.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum HostRequest {
    /// `SAVE`: a snapshot, done when this returns.
    Save,
    /// `BGSAVE`: a snapshot in the background, later if a rewrite is running and `schedule` is set.
    BackgroundSave {
        /// The `SCHEDULE` option.
        schedule: bool,
    },
    /// `BGREWRITEAOF`.
    RewriteJournal,
    /// `MEMORY PURGE`: give unused memory back to the system.
    ReleaseMemory,
    /// `SHUTDOWN`. The reply, if any, is only seen when the server does not go down.
    Shutdown(ShutdownMode),
    /// `SHUTDOWN ABORT`.
    CancelShutdown,
}

/// How to shut down.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ShutdownMode {
    /// `SAVE` (true), `NOSAVE` (false), or as the configuration says.
    pub save: Option<bool>,
    /// `NOW`: do not wait for replicas.
    pub now: bool,
    /// `FORCE`: go down even if saving fails.
    pub force: bool,
}

/// What the owners know about themselves, for `INFO`. Whatever nobody fills in stays at its default.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct HostReport {
    /// Path of the binary.
    pub executable: String,
    /// Release of the operating system's kernel.
    pub kernel_release: String,
    /// Path of the configuration file; empty without one.
    pub config_file: String,
    /// Port that is listened on, when it is not the configured one.
    pub tcp_port: Option<u16>,
    /// Resident set of the process, in bytes.
    pub resident_bytes: u64,
    /// Bytes that were given out before anything was loaded.
    pub startup_bytes: u64,
    /// Bytes that the allocator has given out; zero when unknown.
    pub allocated_bytes: u64,
    /// Bytes in pages that the allocator uses.
    pub active_bytes: u64,
    /// Bytes that the allocator holds physically.
    pub allocator_resident_bytes: u64,
    /// The allocator's name.
    pub allocator: String,
    /// Memory of the machine, in bytes.
    pub system_memory: u64,
    /// Seconds of processor time in the kernel.
    pub cpu_system: f64,
    /// Seconds of processor time in the program.
    pub cpu_user: f64,
    /// Whether data is being loaded.
    pub is_loading: bool,
    /// The append-only file, where one can be.
    pub journal: Option<JournalReport>,
    /// Snapshots.
    pub snapshot: SnapshotReport,
}

/// The state of the append-only file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JournalReport {
    /// It is on.
    pub is_on: bool,
    /// Bytes of all files.
    pub current_bytes: u64,
    /// Bytes of all files after the last rewrite, or of the base at the start.
    pub base_bytes: u64,
    /// Bytes not yet written.
    pub buffered_bytes: u64,
    /// Whether the last write succeeded.
    pub last_write_ok: bool,
    /// A rewrite is running.
    pub is_rewriting: bool,
    /// A rewrite is to begin when a snapshot that is being written has ended.
    pub is_scheduled: bool,
    /// Seconds that the running rewrite has taken.
    pub current_rewrite_seconds: Option<u64>,
    /// Seconds that the last rewrite took.
    pub last_rewrite_seconds: Option<u64>,
    /// Rewrites so far.
    pub rewrites: u64,
    /// Rewrites that have failed since the last that succeeded.
    pub failed_rewrites: u64,
    /// Whether the last rewrite succeeded.
    pub last_rewrite_ok: bool,
    /// Syncs that are waiting or running.
    pub pending_syncs: u64,
    /// Times a write had to wait for a sync.
    pub delayed_syncs: u64,
}

impl Default for JournalReport {
    fn default() -> Self {
        Self {
            current_bytes: 0,
            base_bytes: 0,
            buffered_bytes: 0,
            last_write_ok: true,
            is_on: true,
            is_rewriting: false,
            is_scheduled: false,
            current_rewrite_seconds: None,
            last_rewrite_seconds: None,
            rewrites: 0,
            failed_rewrites: 0,
            last_rewrite_ok: true,
            pending_syncs: 0,
            delayed_syncs: 0,
        }
    }
}

/// The state of snapshots.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SnapshotReport {
    /// Changes since the last one.
    pub changes: u64,
    /// A snapshot is being written.
    pub is_running: bool,
    /// When the last good one ended; the start of the process before the first.
    pub last_save: Option<UnixMillis>,
    /// Whether the last one succeeded.
    pub last_ok: bool,
    /// Seconds the last one took.
    pub last_seconds: Option<u64>,
    /// Snapshots so far.
    pub saves: u64,
}

impl Default for SnapshotReport {
    fn default() -> Self {
        Self { changes: 0, is_running: false, last_save: None, last_ok: true, last_seconds: None, saves: 0 }
    }
}

/// The engine's owners.
#[derive(Default)]
pub(crate) struct Hosts(RwLock<Vec<Arc<dyn Host>>>);

impl Hosts {
    pub(crate) fn add(&self, host: Arc<dyn Host>) {
        self.0.write().push(host);
    }

    pub(crate) fn report(&self) -> HostReport {
        let mut report = HostReport::default();
        for host in self.all() {
            host.report(&mut report);
        }
        report
    }

    pub(crate) fn perform(&self, request: HostRequest) -> Option<Result<String, String>> {
        self.all().iter().find_map(|host| host.perform(request))
    }

    pub(crate) fn reload(
        &self,
        from: ReloadFrom,
        data: &mut StandingData<'_, '_>,
    ) -> Option<Result<Box<Engine>, NotReloaded>> {
        self.all().iter().find_map(|host| host.reload(from, data))
    }

    pub(crate) fn read_file(&self, path: &str) -> Option<Result<Vec<u8>, String>> {
        self.all().iter().find_map(|host| host.read_file(path))
    }

    pub(crate) fn replace_file(&self, path: &str, bytes: &[u8]) -> Option<Result<(), String>> {
        self.all().iter().find_map(|host| host.replace_file(path, bytes))
    }

    pub(crate) fn log(&self, level: LogLevel, text: &str) {
        for host in self.all() {
            host.log(level, text);
        }
    }

    /// A copy, so that a host may register another one meanwhile.
    fn all(&self) -> Vec<Arc<dyn Host>> {
        self.0.read().clone()
    }
}
