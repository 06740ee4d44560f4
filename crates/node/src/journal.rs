//! The node's journal: takes what the engine writes, and a thread of its own brings it to disk.
//!
//! Workers only copy into a buffer; writing and syncing happen on the writer thread, so that a slow disk delays nobody who
//! need not wait. With `appendfsync always` a reply waits ([`Reached`]) until what it saw is durable. After a failure writes
//! are refused, reads go on, and the thread tries again each [`RETRY`] until a new file takes everything.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::task::{Context, Poll, Waker};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use mtcache_engine::{Commands, DbIndex, Journal, Lsn};
use mtcache_persistence::{AofWriter, AppendFsync, DEFAULT_JOURNAL_BUFFER_BYTES, JournalBuffer};
use parking_lot::Mutex;

use crate::NodeError;

/// Writes of one such span go to the file together, unless replies wait for them. Default: 2 ms.
const GATHER: Duration = Duration::from_millis(2);
/// Time between two syncs with `appendfsync everysec`; what lies between is what a loss of power may cost.
const SYNC_PERIOD: Duration = Duration::from_millis(900);
/// How long the writer sleeps when nothing comes.
const IDLE: Duration = Duration::from_millis(100);
/// Time between two attempts to write again after a failure. Default: 1 s.
const RETRY: Duration = Duration::from_secs(1);

/// The journal of a node.
pub(crate) struct NodeJournal {
    buffer: JournalBuffer,
    policy: AtomicU8,
    /// Ends of what has been appended, written and synced, in bytes.
    appended: AtomicU64,
    written: AtomicU64,
    synced: AtomicU64,
    failed: AtomicBool,
    stopping: AtomicBool,
    waiting: Mutex<Vec<Waker>>,
    failure: Mutex<Option<String>>,
    /// Bytes of all files of the journal, and of its base.
    sizes: (AtomicU64, AtomicU64),
}

impl Journal for NodeJournal {
    fn append(&self, db: DbIndex, commands: Commands<'_>) -> Lsn {
        let end = match commands {
            Commands::Args(args) => self.buffer.append_args(u32::from(db), args),
            Commands::Encoded { bytes, last_db } => {
                self.buffer.append_encoded(u32::from(db), u32::from(last_db), bytes)
            }
        };
        self.appended.fetch_max(end.0, Ordering::Release);
        Lsn(end.0)
    }

    fn accepts_writes(&self) -> bool {
        !self.failed.load(Ordering::Relaxed)
    }
}

/// The state of a journal, for `INFO persistence`.
#[derive(Debug, Clone)]
pub struct JournalStatus {
    /// What the last write or sync failed with, until writing works again.
    pub failure: Option<String>,
    /// Bytes of all its files.
    pub current_size: u64,
    /// Bytes of its base file.
    pub base_size: u64,
    /// Bytes not written to the file yet.
    pub buffer_length: u64,
    /// Bytes written and not known to be durable.
    pub unsynced: u64,
}

/// Runs the writer thread of a journal.
pub(crate) struct JournalThread {
    journal: Arc<NodeJournal>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl JournalThread {
    pub(crate) fn start(writer: AofWriter, policy: AppendFsync) -> Result<Self, NodeError> {
        let journal = Arc::new(NodeJournal {
            buffer: JournalBuffer::new(DEFAULT_JOURNAL_BUFFER_BYTES),
            policy: AtomicU8::new(policy as u8),
            appended: AtomicU64::new(0),
            written: AtomicU64::new(0),
            synced: AtomicU64::new(0),
            failed: AtomicBool::new(false),
            stopping: AtomicBool::new(false),
            waiting: Mutex::default(),
            failure: Mutex::default(),
            sizes: (AtomicU64::new(writer.current_size()), AtomicU64::new(writer.base_size())),
        });
        let in_thread = Arc::clone(&journal);
        let thread = std::thread::Builder::new()
            .name("mtcache-aof".to_owned())
            .spawn(move || in_thread.run(writer))
            .map_err(|error| NodeError::new(format!("cannot start the journal thread: {error}")))?;
        Ok(Self { journal, thread: Mutex::new(Some(thread)) })
    }

    pub(crate) fn journal(&self) -> &Arc<NodeJournal> {
        &self.journal
    }

    /// Writes and syncs the rest, and ends the thread.
    pub(crate) fn stop(&self) -> Result<(), NodeError> {
        self.journal.stopping.store(true, Ordering::Release);
        self.journal.buffer.close();
        if let Some(thread) = self.thread.lock().take()
            && thread.join().is_err()
        {
            return Err(NodeError::new("the journal thread had panicked: the last writes may be lost"));
        }
        match &*self.journal.failure.lock() {
            None => Ok(()),
            Some(failure) => Err(NodeError::new(format!("the last writes could not be saved: {failure}"))),
        }
    }
}

impl NodeJournal {
    pub(crate) fn policy(&self) -> AppendFsync {
        match self.policy.load(Ordering::Relaxed) {
            0 => AppendFsync::Always,
            1 => AppendFsync::Everysec,
            _ => AppendFsync::No,
        }
    }

    pub(crate) fn set_policy(&self, policy: AppendFsync) {
        self.policy.store(policy as u8, Ordering::Relaxed);
    }

    pub(crate) fn status(&self) -> JournalStatus {
        let (appended, written, synced) = (
            self.appended.load(Ordering::Relaxed),
            self.written.load(Ordering::Relaxed),
            self.synced.load(Ordering::Relaxed),
        );
        JournalStatus {
            failure: self.failure.lock().clone(),
            current_size: self.sizes.0.load(Ordering::Relaxed),
            base_size: self.sizes.1.load(Ordering::Relaxed),
            buffer_length: appended.saturating_sub(written),
            unsynced: written.saturating_sub(synced),
        }
    }

    /// What a reply has to wait for after its session's last write at `last_write`; `None` for nothing.
    pub(crate) fn before_reply(self: &Arc<Self>, last_write: Lsn) -> Option<Reached> {
        let appended = self.appended.load(Ordering::Acquire);
        let goal = match self.policy() {
            // A reply may show what another session wrote, so it waits for all that has been written until now.
            AppendFsync::Always if self.synced.load(Ordering::Acquire) < appended => Goal::Synced(appended),
            AppendFsync::Always => return None,
            _ => {
                let room = DEFAULT_JOURNAL_BUFFER_BYTES as u64;
                if appended.saturating_sub(self.written.load(Ordering::Relaxed)) <= room {
                    return None;
                }
                Goal::Written(appended - room / 2)
            }
        };
        Some(Reached { journal: Arc::clone(self), goal, last_write: last_write.0 })
    }

    fn run(&self, mut writer: AofWriter) {
        let mut last_sync = Instant::now();
        loop {
            let stopping = self.stopping.load(Ordering::Acquire);
            if writer.is_failed() {
                self.recover(&mut writer);
                if stopping {
                    return;
                }
                continue;
            }
            let has_work = self.buffer.wait_for_commands(IDLE);
            if has_work {
                let batch = self.buffer.take();
                // What fails here stays in the writer's keeping and is written again by `recover`.
                let result = writer.append(&batch.bytes, batch.db_before);
                self.buffer.recycle(batch.bytes);
                self.note(&writer, result.map(drop));
            }
            let policy = self.policy();
            let is_due = match policy {
                AppendFsync::Always => true,
                AppendFsync::Everysec => last_sync.elapsed() >= SYNC_PERIOD,
                AppendFsync::No => false,
            };
            if !writer.is_failed() && (is_due || stopping) {
                let result = writer.sync();
                last_sync = Instant::now();
                self.note(&writer, result.map(drop));
            }
            if stopping && self.buffer.is_empty() && !writer.is_failed() {
                return;
            }
            if has_work && policy != AppendFsync::Always && !stopping {
                std::thread::sleep(GATHER);
            }
        }
    }

    /// Publishes how far the writer has come, and wakes who waits for it.
    fn note(&self, writer: &AofWriter, result: mtcache_persistence::Result<()>) {
        if let Err(error) = result {
            tracing::error!("writes are refused from now on: {error}");
            *self.failure.lock() = Some(error.to_string());
            self.failed.store(true, Ordering::Release);
        }
        self.written.store(writer.written_lsn().0, Ordering::Release);
        self.synced.store(writer.synced_lsn().0, Ordering::Release);
        self.sizes.0.store(writer.current_size(), Ordering::Relaxed);
        self.sizes.1.store(writer.base_size(), Ordering::Relaxed);
        self.wake();
    }

    fn recover(&self, writer: &mut AofWriter) {
        match writer.start_new_incr() {
            Ok(()) => {
                tracing::info!("the journal can be written again");
                *self.failure.lock() = None;
                self.failed.store(false, Ordering::Release);
                self.note(writer, Ok(()));
            }
            Err(error) => {
                *self.failure.lock() = Some(error.to_string());
                let until = Instant::now() + RETRY;
                while Instant::now() < until && !self.stopping.load(Ordering::Acquire) {
                    std::thread::sleep(GATHER);
                }
            }
        }
    }

    fn wake(&self) {
        for waker in std::mem::take(&mut *self.waiting.lock()) {
            waker.wake();
        }
    }
}

#[derive(Debug, Clone, Copy)]
enum Goal {
    Written(u64),
    Synced(u64),
}

/// Ready when the journal has come as far as a reply has to wait for. [`NotDurable`] when it failed before that: then the
/// reply must not be sent.
pub struct Reached {
    journal: Arc<NodeJournal>,
    goal: Goal,
    last_write: u64,
}

/// The journal failed before what a session wrote was durable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NotDurable;

impl Reached {
    fn state(&self) -> Poll<Result<(), NotDurable>> {
        let synced = self.journal.synced.load(Ordering::Acquire);
        let done = match self.goal {
            Goal::Written(lsn) => self.journal.written.load(Ordering::Acquire) >= lsn,
            Goal::Synced(lsn) => synced >= lsn,
        };
        if done {
            return Poll::Ready(Ok(()));
        }
        if self.journal.failed.load(Ordering::Acquire) {
            // Reads go on while writes are refused; a write whose fate is open is answered by silence.
            let wrote = matches!(self.goal, Goal::Synced(_)) && self.last_write > synced;
            return Poll::Ready(if wrote { Err(NotDurable) } else { Ok(()) });
        }
        Poll::Pending
    }
}

impl Future for Reached {
    type Output = Result<(), NotDurable>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        if let ready @ Poll::Ready(_) = self.state() {
            return ready;
        }
        self.journal.waiting.lock().push(context.waker().clone());
        // The writer may have come this far between the look and the registration.
        self.state()
    }
}
