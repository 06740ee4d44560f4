//! A running engine: the engine with its clock, its timers and its files, opened by the server and by `embedded://` alike.
//!
//! Deliberately absent: sockets and an async runtime. Waiting for durability is a plain future, so that any runtime can.
#![cfg_attr(
    not(test),
    warn(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)
)]

mod changes;
mod clock;
mod desk;
mod error;
mod host;
mod journal;
mod local;
mod replay;
mod rewrites;
mod slowest;
mod snapshots;
mod timers;
mod turns;

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use mtcache_engine::{Engine, EngineOptions, Session};
use mtcache_persistence::disk::{Disk, RealDisk};
use mtcache_persistence::{Aof, AofOptions, AppendFsync, RdbReport, ReplayReport};

pub use self::changes::{ChangeListener, Changes};
pub use self::clock::SystemClock;
pub use self::error::NodeError;
pub use self::host::{AllocatorFigures, AllocatorProbe};
use self::host::{NodeFiles, NodeHost};
use self::journal::JournalThread;
pub use self::journal::{JournalStatus, NotDurable, Reached};
pub use self::local::{Answer, Local};
use self::rewrites::Rewriter;
use self::snapshots::SnapshotKeeper;
use self::timers::Timers;
use self::turns::Turns;

/// How a node is opened. The default keeps everything in memory only.
#[derive(Debug, Clone, Default)]
pub struct NodeOptions {
    /// The engine's shape.
    pub engine: EngineOptions,
    /// Where and how writes are kept; `None` for memory only. Default: `None`.
    pub append_only: Option<AppendOnly>,
    /// Asks the allocator of a process whose memory is all the engine's business, so that `used_memory` and `maxmemory` count
    /// all of it. Default: `None`, and only the keyspace counts.
    pub allocator: Option<AllocatorProbe>,
    /// Where snapshots lie; `None` for memory only. One that is there is loaded if there is no append-only file to load,
    /// which knows better. Default: `None`.
    pub snapshots: Option<Snapshots>,
}

/// Where snapshots lie.
#[derive(Debug, Clone)]
pub struct Snapshots {
    /// The directory; it must exist.
    pub dir: PathBuf,
    /// The file's name in there (`dbfilename`). Default: `dump.rdb`.
    pub file_name: String,
}

impl Snapshots {
    /// The file `dump.rdb` in `dir`.
    pub fn in_dir(dir: impl Into<PathBuf>) -> Self {
        Self { dir: dir.into(), file_name: "dump.rdb".to_owned() }
    }
}

/// How writes are kept in an append-only file.
#[derive(Debug, Clone)]
pub struct AppendOnly {
    /// Whether it is on from the start; the configuration can switch it later. Default: yes.
    pub is_on: bool,
    /// The directory in which `appendonlydir` lies; it must exist.
    pub dir: PathBuf,
    /// When writes are made durable. Default: `everysec`.
    pub fsync: AppendFsync,
    /// Names and limits of the files.
    pub files: AofOptions,
}

impl AppendOnly {
    /// Keeps writes under `dir`, made durable every second.
    pub fn in_dir(dir: impl Into<PathBuf>) -> Self {
        Self { is_on: true, dir: dir.into(), fsync: AppendFsync::Everysec, files: AofOptions::default() }
    }
}

/// A running engine.
pub struct Node {
    engine: Arc<Engine>,
    timers: Timers,
    journal: Option<Arc<JournalThread>>,
    replayed: Option<ReplayReport>,
    loaded: Option<RdbReport>,
    keeper: Option<Arc<SnapshotKeeper>>,
    rewriter: Option<Arc<Rewriter>>,
}

impl Node {
    /// Opens a node: loads what is on disk, then starts the timers.
    pub fn open(options: &NodeOptions) -> Result<Self, NodeError> {
        Self::open_on(options, Arc::new(RealDisk))
    }

    /// As [`open`](Self::open), on a disk of the caller's.
    pub fn open_on(options: &NodeOptions, disk: Arc<dyn Disk>) -> Result<Self, NodeError> {
        let engine = Arc::new(Engine::new(&options.engine, Arc::new(SystemClock::new())));
        let startup = options.allocator.map_or(0, |allocator| allocator().allocated);
        let mut journal = None;
        let mut replayed = None;
        // Users first: what is wrong with them is found before a long load begins.
        engine.add_host(Arc::new(NodeFiles) as _);
        engine.load_users().map_err(NodeError::new)?;
        let mut loaded = None;
        if let Some(append_only) = &options.append_only {
            let thread = Arc::new(JournalThread::new(Arc::clone(&disk), append_only));
            if append_only.is_on {
                let aof = Aof::open(Arc::clone(&disk), &append_only.dir, append_only.files.clone())
                    .map_err(NodeError::files)?;
                let (writer, report) = replay::load(&engine, aof)?;
                thread.start(writer)?;
                replayed = Some(report);
            }
            engine.attach_journal(Arc::clone(thread.journal()) as _);
            engine.keep_journal(append_only.is_on);
            journal = Some(thread);
        }
        if replayed.is_none()
            && let Some(snapshots) = &options.snapshots
        {
            let path = snapshots.dir.join(&snapshots.file_name);
            loaded = replay::load_snapshot(&engine, &*disk, &path)?;
        }
        let turns = Arc::new(Turns::default());
        let keeper = options.snapshots.as_ref().map(|snapshots| {
            Arc::new(SnapshotKeeper::new(&engine, disk, snapshots.dir.clone(), Arc::clone(&turns)))
        });
        let rewriter =
            journal.as_ref().map(|thread| Arc::new(Rewriter::new(&engine, Arc::clone(thread), turns)));
        let host = Arc::new(NodeHost {
            keeper: keeper.clone(),
            rewriter: rewriter.clone(),
            journal: journal.clone(),
            opened: engine.now(),
            allocator: options.allocator,
            startup,
        });
        engine.add_host(Arc::clone(&host) as _);
        engine.on_config_change(Arc::clone(&host) as _);
        host.sample_memory(&engine);
        let timers = Timers::start(&engine, host)?;
        Ok(Self { engine, timers, journal, replayed, loaded, keeper, rewriter })
    }

    /// The engine.
    pub fn engine(&self) -> &Arc<Engine> {
        &self.engine
    }

    /// What was loaded when the node was opened.
    pub fn replayed(&self) -> Option<&ReplayReport> {
        self.replayed.as_ref()
    }

    /// The snapshot that was loaded when the node was opened.
    pub fn loaded(&self) -> Option<&RdbReport> {
        self.loaded.as_ref()
    }

    /// What the replies of this session have to wait for before they may leave; `None` when nothing.
    #[inline]
    pub fn before_reply(&self, session: &Session) -> Option<Reached> {
        self.journal.as_ref()?.journal().before_reply(session.last_write())
    }

    /// When writes are made durable; `None` when they are not kept at all.
    pub fn fsync_policy(&self) -> Option<AppendFsync> {
        Some(self.journal.as_ref()?.running()?.policy())
    }

    /// Changes when writes are made durable; does nothing when they are not kept.
    pub fn set_fsync_policy(&self, policy: AppendFsync) {
        if let Some(journal) = &self.journal {
            journal.journal().set_policy(policy);
        }
    }

    /// The state of the journal, if there is one.
    pub fn journal_status(&self) -> Option<JournalStatus> {
        Some(self.journal.as_ref()?.running()?.status())
    }

    /// Stops the timers and brings everything to disk. Commands that run afterwards are not kept.
    pub fn close(&self) -> Result<(), NodeError> {
        self.timers.stop();
        if let Some(rewriter) = &self.rewriter {
            rewriter.end_with(self.journal.as_ref().and_then(|thread| thread.running()));
        }
        if let Some(keeper) = &self.keeper {
            keeper.end_with_the_node();
        }
        match &self.journal {
            Some(journal) if journal.running().is_some() => journal.stop(),
            _ => Ok(()),
        }
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        // Who wants to know whether it worked has called `close`.
        if let Err(error) = self.close() {
            tracing::error!("{error}");
        }
    }
}

impl fmt::Debug for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Node").field("journal", &self.journal_status()).finish_non_exhaustive()
    }
}
