//! What the node tells clients about the process and the journal, and which settings it acts on.
//!
//! Figures of the process come from `/proc`; where there is none they stay at zero. Deliberately absent: sockets, which the
//! server knows about.

use std::fs::File;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::sync::Arc;

use mtcache_engine::{
    AllocatedMemory, Config, ConfigListener, Engine, Host, HostReport, HostRequest, JournalReport, LogLevel,
    NotReloaded, ReloadFrom, SnapshotReport, StandingData, UnixMillis,
};

use crate::journal::{JournalThread, NodeJournal};
use crate::replay::load_files;
use crate::rewrites::Rewriter;
use crate::snapshots::SnapshotKeeper;

/// A node's part in what a client may ask of the engine's owners.
pub(crate) struct NodeHost {
    pub(crate) journal: Option<Arc<JournalThread>>,
    pub(crate) keeper: Option<Arc<SnapshotKeeper>>,
    pub(crate) rewriter: Option<Arc<Rewriter>>,
    pub(crate) opened: UnixMillis,
    pub(crate) allocator: Option<AllocatorProbe>,
    /// Bytes allocated before anything was loaded.
    pub(crate) startup: u64,
}

/// What a process' allocator says about itself, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct AllocatorFigures {
    /// Given out.
    pub allocated: u64,
    /// In pages that are in use.
    pub active: u64,
    /// Held physically.
    pub resident: u64,
    /// The allocator's name.
    pub name: &'static str,
}

/// Asks the allocator; called ten times a second.
pub type AllocatorProbe = fn() -> AllocatorFigures;

impl NodeHost {
    /// The journal, if it is on.
    fn running(&self) -> Option<&Arc<NodeJournal>> {
        self.journal.as_ref()?.running()
    }

    /// Switches the journal while the server runs.
    fn switch_journal(&self, on: bool) -> Result<(), String> {
        let (Some(thread), Some(rewriter)) = (&self.journal, &self.rewriter) else {
            return Err("this cache keeps everything in memory: it has no directory for an append-only file"
                .to_owned());
        };
        if on {
            // One that was asked for while the journal was off is not needed beside the first of its own.
            rewriter.give_up();
            let begun = thread.start_anew().map_err(|error| error.to_string());
            return begun.and_then(|()| rewriter.begin_journal()).map_err(|error| {
                tracing::error!("the append-only file cannot be switched on: {error}");
                "Unable to turn on AOF. Check server logs.".to_owned()
            });
        }
        rewriter.give_up();
        rewriter.keep_journal(false);
        if let Err(error) = thread.stop() {
            tracing::error!("the append-only file is off, and {error}");
        }
        Ok(())
    }

    /// Tells the engine what the process has allocated.
    pub(crate) fn sample_memory(&self, engine: &Engine) {
        let Some(allocator) = self.allocator else { return };
        let of_journal = self.running().map_or(0, |journal| {
            let status = journal.status();
            status.buffer_length + status.unsynced
        });
        let figures = allocator();
        engine.set_allocated_memory(AllocatedMemory {
            bytes: figures.allocated as usize,
            of_journal: of_journal as usize,
            in_pages: figures.active as usize,
        });
    }

    /// Saves if a save point says so, rewrites the journal if it has grown, and tells `LATENCY` of slow writes of it.
    pub(crate) fn tick(&self, engine: &Engine) {
        if let Some(journal) = self.running() {
            for (event, took) in journal.slowest.take() {
                engine.record_latency(event, took);
            }
        }
        if let Some(keeper) = &self.keeper {
            keeper.tick();
        }
        if let Some(rewriter) = &self.rewriter {
            rewriter.tick();
        }
    }
}

impl Host for NodeHost {
    fn report(&self, report: &mut HostReport) {
        report.executable =
            std::env::current_exe().map(|path| path.display().to_string()).unwrap_or_default();
        report.kernel_release = std::fs::read_to_string("/proc/sys/kernel/osrelease")
            .map(|release| release.trim().to_owned())
            .unwrap_or_default();
        report.startup_bytes = self.startup;
        if let Some(figures) = self.allocator.map(|allocator| allocator()) {
            report.allocated_bytes = figures.allocated;
            report.active_bytes = figures.active;
            report.allocator_resident_bytes = figures.resident;
            figures.name.clone_into(&mut report.allocator);
        }
        report.resident_bytes = resident_bytes().unwrap_or_default();
        report.system_memory = system_memory().unwrap_or_default();
        (report.cpu_user, report.cpu_system) = cpu_seconds().unwrap_or_default();
        report.snapshot = match &self.keeper {
            Some(keeper) => keeper.report(),
            None => SnapshotReport { last_save: Some(self.opened), ..SnapshotReport::default() },
        };
        report.journal = self.journal.as_ref().map(|thread| {
            let status = thread.journal().status();
            let mut report = JournalReport {
                is_on: thread.running().is_some(),
                current_bytes: status.current_size,
                base_bytes: status.base_size,
                buffered_bytes: status.buffer_length,
                last_write_ok: status.failure.is_none(),
                pending_syncs: u64::from(status.unsynced > 0),
                ..JournalReport::default()
            };
            if let Some(rewriter) = &self.rewriter {
                rewriter.report(&mut report);
            }
            report
        });
    }

    fn reload(
        &self,
        from: ReloadFrom,
        data: &mut StandingData<'_, '_>,
    ) -> Option<Result<Box<Engine>, NotReloaded>> {
        let keeper = self.keeper.as_ref()?;
        if let Err(busy) = keeper.begin_reload() {
            return Some(Err(busy));
        }
        let result = self.read_again(keeper, from, data);
        if let Err(NotReloaded::Failed(text)) = &result {
            tracing::error!("data was not read again: {text}");
        }
        let is_as_saved = result.is_ok() && from == ReloadFrom::Journal;
        keeper.end_reload(data.engine(), is_as_saved);
        if let (Ok(_), ReloadFrom::Snapshot, Some(rewriter)) = (&result, from, &self.rewriter) {
            // What the journal says is no more what is there; its thread waits until this is over.
            let _ = rewriter.request();
        }
        Some(result)
    }

    fn perform(&self, request: HostRequest) -> Option<Result<String, String>> {
        const NOWHERE: &str = "ERR this cache keeps everything in memory: it has no directory for a snapshot";
        let keeper = self.keeper.as_ref();
        let refused = match (request, keeper) {
            (HostRequest::Save, Some(keeper)) => return Some(keeper.save().map(|()| "OK".to_owned())),
            (HostRequest::BackgroundSave { schedule }, Some(keeper)) => {
                return Some(keeper.save_in_background(schedule));
            }
            (HostRequest::Shutdown(mode), Some(keeper)) => {
                // What is to be saved needs its turn; without, the end of the node is soon enough. A rewrite may wait for a script.
                if let Some(rewriter) = self.rewriter.as_ref().filter(|_| mode.save != Some(false)) {
                    rewriter.end_with(self.running());
                }
                // The rest is the server's.
                return keeper.before_shutdown(mode).err().map(Err);
            }
            (HostRequest::Save | HostRequest::BackgroundSave { .. }, None) => NOWHERE,
            (HostRequest::RewriteJournal, _) => match &self.rewriter {
                Some(rewriter) => return Some(rewriter.request()),
                None => "ERR the append-only file is off: there is nothing to rewrite",
            },
            _ => return None,
        };
        Some(Err(refused.to_owned()))
    }
}

impl NodeHost {
    fn read_again(
        &self,
        keeper: &SnapshotKeeper,
        from: ReloadFrom,
        data: &mut StandingData<'_, '_>,
    ) -> Result<Box<Engine>, NotReloaded> {
        let failed = |text: String| NotReloaded::Failed(format!("ERR {text}"));
        let loaded = Box::new(data.engine().new_like());
        match from {
            ReloadFrom::NewSnapshot | ReloadFrom::Snapshot => {
                if from == ReloadFrom::NewSnapshot {
                    keeper.save_standing(data).map_err(failed)?;
                }
                keeper.load_into(&loaded).map_err(|text| {
                    tracing::error!("{text}");
                    failed("Error trying to load the RDB dump, check server logs.".to_owned())
                })?;
            }
            ReloadFrom::Journal => {
                let Some(journal) = self.running() else {
                    return Err(failed("the append-only file is off: there is nothing to load".to_owned()));
                };
                let files = journal.files().map_err(|error| failed(error.to_string()))?;
                load_files(&loaded, &files).map_err(|error| failed(error.to_string()))?;
            }
        }
        Ok(loaded)
    }
}

/// The node's files, as far as the engine names them: it exists before everything else of the node.
pub(crate) struct NodeFiles;

impl Host for NodeFiles {
    fn read_file(&self, path: &str) -> Option<Result<Vec<u8>, String>> {
        Some(std::fs::read(path).map_err(|error| error.to_string()))
    }

    fn replace_file(&self, path: &str, bytes: &[u8]) -> Option<Result<(), String>> {
        Some(replace(Path::new(path), bytes).map_err(|error| error.to_string()))
    }

    fn log(&self, level: LogLevel, text: &str) {
        match level {
            LogLevel::Debug => tracing::trace!("{text}"),
            LogLevel::Verbose => tracing::debug!("{text}"),
            LogLevel::Notice => tracing::info!("{text}"),
            LogLevel::Warning => tracing::warn!("{text}"),
        }
    }
}

/// Writes beside the file and renames, so that a crash leaves the old one or the new one. Who may read it is as it was; a new
/// file may hold hashes of passwords, so nobody else may. Behind a symbolic link the file that it leads to is replaced.
fn replace(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let target = std::fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    let path = target.as_path();
    let permissions = std::fs::metadata(path).ok().map(|old| old.permissions());
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".tmp-{}", std::process::id()));
    let beside = path.with_file_name(name);
    let write = || {
        let mut file = File::options().write(true).create(true).truncate(true).mode(0o600).open(&beside)?;
        if let Some(permissions) = &permissions {
            file.set_permissions(permissions.clone())?;
        }
        file.write_all(bytes)?;
        file.sync_all()?;
        std::fs::rename(&beside, path)?;
        let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty());
        File::open(directory.unwrap_or(Path::new(".")))?.sync_all()
    };
    write().inspect_err(|_| {
        // Whatever was written of it is of no use.
        let _ = std::fs::remove_file(&beside);
    })
}

impl ConfigListener for NodeHost {
    fn config_changed(&self, config: &Config, names: &[&'static str]) -> Result<(), String> {
        if names.contains(&"appendonly") && config.flag("appendonly") != self.running().is_some() {
            self.switch_journal(config.flag("appendonly"))?;
        }
        if names.contains(&"appendfsync")
            && let Some(thread) = &self.journal
        {
            thread.journal().set_policy(config.text("appendfsync").parse()?);
        }
        if let Some(keeper) = &self.keeper
            && names.iter().any(|name| matches!(*name, "save" | "stop-writes-on-bgsave-error"))
        {
            keeper.apply(config);
        }
        Ok(())
    }
}

/// Bytes per page and ticks per second as Linux shows them to programs on every platform that we build for.
const PAGE_BYTES: u64 = 4096;
const TICKS_PER_SECOND: f64 = 100.0;

fn resident_bytes() -> Option<u64> {
    let statm = std::fs::read_to_string("/proc/self/statm").ok()?;
    Some(statm.split(' ').nth(1)?.parse::<u64>().ok()? * PAGE_BYTES)
}

fn system_memory() -> Option<u64> {
    let meminfo = std::fs::read_to_string("/proc/meminfo").ok()?;
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    Some(line.trim().strip_suffix(" kB")?.parse::<u64>().ok()? * 1024)
}

/// Seconds of processor time in the program and in the kernel.
fn cpu_seconds() -> Option<(f64, f64)> {
    let stat = std::fs::read_to_string("/proc/self/stat").ok()?;
    // The program's name, in parentheses, may hold spaces; the fields are counted from behind it.
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace().skip(11);
    let mut seconds = || Some(fields.next()?.parse::<f64>().ok()? / TICKS_PER_SECOND);
    Some((seconds()?, seconds()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_process_knows_what_it_takes() {
        let (user, system) = cpu_seconds().unwrap();
        assert!(user >= 0.0 && system >= 0.0);
        assert!(resident_bytes().unwrap() > 100_000);
        assert!(system_memory().unwrap() > resident_bytes().unwrap());
    }
}
