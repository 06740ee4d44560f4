//! The node's journal: takes what the engine writes, and a thread of its own brings it to disk.
//!
//! Workers only copy into a buffer; writing happens on the writer thread, so that a slow disk delays nobody who need not
//! wait. With `appendfsync always` a reply waits ([`Reached`]) until what it saw is durable. With `everysec` a second thread
//! syncs while the first goes on writing, and the reply to a write waits only once the oldest write that is not durable is
//! older than [`MAX_UNSYNCED_AGE`]. After a failure writes are refused, reads go on, and the thread tries again each
//! [`RETRY`] until a new file takes everything.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::sync::mpsc::{self, TryRecvError};
use std::task::{Context, Poll, Waker};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use mtcache_engine::{Commands, DbIndex, Journal, Lsn};
use mtcache_persistence::disk::Disk;
use mtcache_persistence::{
    Aof, AofFiles, AofWriter, AppendFsync, BasePlace, DEFAULT_JOURNAL_BUFFER_BYTES, Error, JournalBuffer,
    NewBase, PendingSync, Rewrite,
};
use parking_lot::Mutex;

use crate::desk::Desk;
use crate::slowest::Slowest;
use crate::{AppendOnly, NodeError};

/// Writes of one such span go to the file together, unless replies wait for them. Default: 2 ms.
const GATHER: Duration = Duration::from_millis(2);
/// Time between two syncs with `appendfsync everysec`; what lies between is what a loss of power may cost.
const SYNC_PERIOD: Duration = Duration::from_millis(900);
/// With `appendfsync everysec` replies to writes wait while a write older than this is not durable: no more is lost with
/// the machine, however slow its disk. Default: 2 s, as long as Redis puts a write off.
const MAX_UNSYNCED_AGE: Duration = Duration::from_secs(2);
/// A sync begins before it is due once so many bytes wait for one. Default: 32 MB, half of what the writer may hold.
const SYNC_AT_BYTES: u64 = 32 * 1024 * 1024;
/// How long the writer sleeps when nothing comes.
const IDLE: Duration = Duration::from_millis(100);
/// How long the writer may take to bring all that waits to its files for somebody who reads them. Default: 1 minute.
const FILES_PATIENCE: Duration = Duration::from_mins(1);
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
    /// When the oldest write that is not durable was taken from the buffer, in milliseconds after `started`, plus one; zero
    /// when all is durable.
    oldest_unsynced: AtomicU64,
    started: Instant,
    failed: AtomicBool,
    stopping: AtomicBool,
    waiting: Mutex<Vec<Waker>>,
    failure: Mutex<Option<String>>,
    /// Bytes of all files of the journal, and of its base.
    sizes: (AtomicU64, AtomicU64),
    pub(crate) slowest: Slowest,
    /// What rewrites ask of the writer thread.
    desk: Desk,
    base_place: BasePlace,
    is_on: AtomicBool,
    /// Whether a start would not find what is journalled, because the first rewrite has not ended.
    is_detached: AtomicBool,
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

/// Runs the writer thread of a journal, while that is on.
pub(crate) struct JournalThread {
    journal: Arc<NodeJournal>,
    thread: Mutex<Option<JoinHandle<()>>>,
    /// Held by whoever opens the files: they are locked against other processes only.
    opening: Mutex<()>,
    disk: Arc<dyn Disk>,
    options: AppendOnly,
}

impl JournalThread {
    /// A journal that is off.
    pub(crate) fn new(disk: Arc<dyn Disk>, options: &AppendOnly) -> Self {
        let journal = Arc::new(NodeJournal {
            buffer: JournalBuffer::new(DEFAULT_JOURNAL_BUFFER_BYTES),
            policy: AtomicU8::new(options.fsync as u8),
            appended: AtomicU64::new(0),
            written: AtomicU64::new(0),
            synced: AtomicU64::new(0),
            oldest_unsynced: AtomicU64::new(0),
            started: Instant::now(),
            failed: AtomicBool::new(false),
            stopping: AtomicBool::new(false),
            waiting: Mutex::default(),
            failure: Mutex::default(),
            sizes: (AtomicU64::new(0), AtomicU64::new(0)),
            slowest: Slowest::default(),
            desk: Desk::default(),
            base_place: BasePlace::new(Arc::clone(&disk), &options.dir, &options.files),
            is_on: AtomicBool::new(false),
            is_detached: AtomicBool::new(false),
        });
        Self { journal, thread: Mutex::default(), opening: Mutex::default(), disk, options: options.clone() }
    }

    /// Goes on as this writer.
    pub(crate) fn start(&self, writer: AofWriter) -> Result<(), NodeError> {
        let journal = Arc::clone(&self.journal);
        journal.begin(&writer);
        let thread = std::thread::Builder::new()
            .name("mtcache-aof".to_owned())
            .spawn(move || {
                let writer = journal.run(writer);
                // Who waits for something of it waits in vain.
                journal.desk.close(&journal.buffer);
                writer.remove_if_detached();
            })
            .map_err(|error| NodeError::new(format!("cannot start the journal thread: {error}")))?;
        self.journal.is_on.store(true, Ordering::Release);
        *self.thread.lock() = Some(thread);
        Ok(())
    }

    /// Begins a journal for data that is in memory already. What is journalled before the first rewrite's cut belongs to
    /// nothing; that rewrite has to follow.
    pub(crate) fn start_anew(&self) -> Result<(), NodeError> {
        let _opening = self.opening.lock();
        let begin = self.journal.buffer.reopen();
        let aof = Aof::open(Arc::clone(&self.disk), &self.options.dir, self.options.files.clone());
        let writer = aof.and_then(|aof| aof.begin_anew(begin)).map_err(NodeError::files)?;
        self.start(writer)
    }

    /// Makes the directory of the files, for a base to be written in.
    pub(crate) fn make_directory(&self) -> Result<(), Error> {
        let AppendOnly { dir, files, .. } = &self.options;
        let _opening = self.opening.lock();
        Aof::open(Arc::clone(&self.disk), dir, files.clone()).map(drop)
    }

    /// Puts a base in the place of all that the files hold, while the journal is off. `go_on` is asked once it cannot be
    /// switched on any more before this is done.
    pub(crate) fn replace_while_off(
        &self,
        base: &NewBase,
        go_on: impl FnOnce() -> Result<(), Error>,
    ) -> Result<(), Error> {
        let AppendOnly { dir, files, .. } = &self.options;
        let _opening = self.opening.lock();
        go_on()?;
        if self.journal.is_on() {
            return Err(Error::abandoned("the append-only file has been switched on"));
        }
        let mut writer = Aof::open(Arc::clone(&self.disk), dir, files.clone())?.begin_anew(Lsn::default())?;
        let replaced = writer.begin_rewrite().and_then(|rewrite| writer.finish_rewrite(&rewrite, base));
        match replaced {
            Ok(replaced) => {
                let removed = self.journal.base_place().remove_history(replaced);
                writer.forget_history(&removed)
            }
            Err(error) => {
                writer.remove_if_detached();
                Err(error)
            }
        }
    }

    pub(crate) fn journal(&self) -> &Arc<NodeJournal> {
        &self.journal
    }

    /// The journal, if it is on.
    pub(crate) fn running(&self) -> Option<&Arc<NodeJournal>> {
        self.journal.is_on().then_some(&self.journal)
    }

    /// Writes and syncs the rest, and ends the thread.
    pub(crate) fn stop(&self) -> Result<(), NodeError> {
        self.journal.stopping.store(true, Ordering::Release);
        self.journal.buffer.close();
        let thread = self.thread.lock().take();
        let has_panicked = thread.is_some_and(|thread| thread.join().is_err());
        self.journal.is_on.store(false, Ordering::Release);
        self.journal.wake();
        if has_panicked {
            return Err(NodeError::new("the journal thread had panicked: the last writes may be lost"));
        }
        match &*self.journal.failure.lock() {
            None => Ok(()),
            Some(failure) => Err(NodeError::new(format!("the last writes could not be saved: {failure}"))),
        }
    }
}

impl NodeJournal {
    #[inline]
    pub(crate) fn is_on(&self) -> bool {
        self.is_on.load(Ordering::Acquire)
    }

    /// Whether a start would not find what is journalled.
    pub(crate) fn is_detached(&self) -> bool {
        self.is_detached.load(Ordering::Acquire)
    }

    /// Takes over what a writer begins with.
    fn begin(&self, writer: &AofWriter) {
        let begin = writer.written_lsn().0;
        for position in [&self.appended, &self.written, &self.synced] {
            position.store(begin, Ordering::Release);
        }
        self.oldest_unsynced.store(0, Ordering::Release);
        self.stopping.store(false, Ordering::Release);
        self.failed.store(false, Ordering::Release);
        *self.failure.lock() = None;
        self.desk.open();
        self.publish(writer);
    }

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

    /// Where the bases of this journal are made.
    pub(crate) fn base_place(&self) -> &BasePlace {
        &self.base_place
    }

    /// Cuts the journal; what the writer makes of it is sent there. Called while all of the keyspace is locked.
    pub(crate) fn mark_cut(&self, answer: mpsc::Sender<Result<Rewrite, Error>>) {
        self.desk.mark_cut(&self.buffer, answer);
    }

    /// Has the writer end a rewrite; the names of the files that can be removed.
    pub(crate) fn finish_rewrite(&self, rewrite: Rewrite, base: NewBase) -> Result<Vec<String>, Error> {
        self.desk.finish(rewrite, base)
    }

    /// The files of the journal, with all that was journalled until now in them. Called while nothing is journalled.
    pub(crate) fn files(&self) -> Result<AofFiles, Error> {
        let answer = self.desk.ask_for_files().recv_timeout(FILES_PATIENCE);
        answer.unwrap_or_else(|_| Err(Error::abandoned("the journal does not come to its end")))
    }

    /// Has the writer take removed files out of the manifest.
    pub(crate) fn forget_history(&self, removed: Vec<String>) {
        self.desk.forget(removed);
    }

    /// What a reply has to wait for after its session's last write at `last_write`; `None` for nothing.
    pub(crate) fn before_reply(self: &Arc<Self>, last_write: Lsn) -> Option<Reached> {
        if !self.is_on() {
            return None;
        }
        let appended = self.appended.load(Ordering::Acquire);
        let goal = match self.policy() {
            // A reply may show what another session wrote, so it waits for all that has been written until now.
            AppendFsync::Always if self.synced.load(Ordering::Acquire) < appended => Goal::Synced(appended),
            AppendFsync::Always => return None,
            AppendFsync::Everysec
                if self.is_behind() && self.synced.load(Ordering::Acquire) < last_write.0 =>
            {
                Goal::Recent
            }
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

    /// Whether a write has been waiting for its sync for too long.
    fn is_behind(&self) -> bool {
        match self.oldest_unsynced.load(Ordering::Acquire) {
            0 => false,
            at => self.millis().saturating_sub(at) > MAX_UNSYNCED_AGE.as_millis() as u64,
        }
    }

    /// Milliseconds since the start, plus one.
    fn millis(&self) -> u64 {
        self.started.elapsed().as_millis() as u64 + 1
    }

    /// Writes until the end is asked for; the writer comes back.
    fn run(&self, mut writer: AofWriter) -> AofWriter {
        let mut syncer = Syncer::new();
        let mut last_sync = Instant::now();
        // When the first write was taken that no sync has been begun for, and the first that the running one is to cover.
        let (mut waiting_since, mut syncing_since) = (0, 0);
        loop {
            let stopping = self.stopping.load(Ordering::Acquire);
            if let Some((pending, result)) = syncer.finished(stopping || writer.is_failed())
                && !writer.is_failed()
            {
                let result = writer.finish_sync(&pending, result);
                syncing_since = 0;
                self.note_oldest(syncing_since, waiting_since);
                self.note(&writer, result.map(drop));
            }
            if self.desk.serve(&mut writer) {
                self.note(&writer, Ok(()));
            }
            if writer.is_failed() || self.buffer.is_empty() {
                self.desk.show_files(&writer);
            }
            if writer.is_failed() {
                (waiting_since, syncing_since) = (0, 0);
                self.note_oldest(0, 0);
                self.desk.refuse_cut(&self.buffer);
                self.recover(&mut writer);
                // When it has recovered, what has been acknowledged meanwhile is still to be written.
                if stopping && writer.is_failed() {
                    return writer;
                }
                continue;
            }
            let patience = if syncer.is_busy() { GATHER } else { IDLE };
            let has_work = self.buffer.wait_for_commands(patience);
            if has_work {
                if waiting_since == 0 {
                    waiting_since = self.millis();
                    self.note_oldest(syncing_since, waiting_since);
                }
                let batch = self.buffer.take();
                // What fails here stays in the writer's keeping and is written again by `recover`.
                let began = Instant::now();
                let result = writer.append(&batch.bytes, batch.db_before);
                self.slowest.wrote(began.elapsed());
                self.buffer.recycle(batch.bytes);
                self.note(&writer, result.map(drop));
                if batch.reaches_cut
                    && let Some(result) = self.desk.reach_cut(batch.end, &mut writer)
                {
                    self.note(&writer, result);
                }
            }
            let policy = self.policy();
            let unsynced = writer.written_lsn().0.saturating_sub(writer.synced_lsn().0);
            let is_due = match policy {
                AppendFsync::Always => true,
                AppendFsync::Everysec => last_sync.elapsed() >= SYNC_PERIOD || unsynced >= SYNC_AT_BYTES,
                AppendFsync::No => unsynced >= SYNC_AT_BYTES,
            };
            if !writer.is_failed() && (is_due || stopping) && !syncer.is_busy() {
                let in_background = policy != AppendFsync::Always && !stopping;
                let result = if in_background {
                    writer.begin_sync().map(|pending| {
                        if let Some(pending) = pending {
                            (syncing_since, waiting_since) = (waiting_since, 0);
                            syncer.begin(pending);
                        }
                    })
                } else {
                    (syncing_since, waiting_since) = (0, 0);
                    let began = Instant::now();
                    let result = writer.sync().map(drop);
                    self.slowest.synced(began.elapsed());
                    result
                };
                last_sync = Instant::now();
                if !in_background || result.is_err() {
                    self.note(&writer, result);
                }
            }
            if writer.written_lsn() == writer.synced_lsn() {
                (waiting_since, syncing_since) = (0, 0);
            }
            self.note_oldest(syncing_since, waiting_since);
            if stopping && self.buffer.is_empty() && !syncer.is_busy() && !writer.is_failed() {
                return writer;
            }
            if has_work && policy != AppendFsync::Always && !stopping {
                std::thread::sleep(GATHER);
            }
        }
    }

    fn note_oldest(&self, syncing_since: u64, waiting_since: u64) {
        let oldest = if syncing_since != 0 { syncing_since } else { waiting_since };
        self.oldest_unsynced.store(oldest, Ordering::Release);
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
        self.publish(writer);
        self.wake();
    }

    fn publish(&self, writer: &AofWriter) {
        self.sizes.0.store(writer.current_size(), Ordering::Relaxed);
        self.sizes.1.store(writer.base_size(), Ordering::Relaxed);
        self.is_detached.store(writer.is_detached(), Ordering::Release);
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

/// The thread that syncs, one sync at a time, while the writer goes on.
struct Syncer {
    /// Gone when the thread could not be started: then the writer syncs itself.
    thread: Option<(mpsc::Sender<PendingSync>, mpsc::Receiver<Synced>)>,
    done: Option<Synced>,
    is_busy: bool,
}

type Synced = (PendingSync, std::io::Result<()>);

impl Syncer {
    fn new() -> Self {
        let (to_thread, syncs) = mpsc::channel::<PendingSync>();
        let (done, from_thread) = mpsc::channel();
        let thread = std::thread::Builder::new().name("mtcache-fsync".to_owned()).spawn(move || {
            for pending in syncs {
                let result = pending.run();
                if done.send((pending, result)).is_err() {
                    return;
                }
            }
        });
        let thread = match thread {
            Ok(_) => Some((to_thread, from_thread)),
            Err(error) => {
                tracing::warn!("cannot start the thread that syncs: {error}; writing waits for each sync");
                None
            }
        };
        Self { thread, done: None, is_busy: false }
    }

    fn is_busy(&self) -> bool {
        self.is_busy
    }

    fn begin(&mut self, pending: PendingSync) {
        self.is_busy = true;
        let unsent = match &self.thread {
            Some((to_thread, _)) => to_thread.send(pending).err().map(|error| error.0),
            None => Some(pending),
        };
        if let Some(pending) = unsent {
            let result = pending.run();
            self.done = Some((pending, result));
        }
    }

    /// The sync that has ended, if one has; with `wait`, the one that is running.
    fn finished(&mut self, wait: bool) -> Option<Synced> {
        if !self.is_busy {
            return None;
        }
        let mut is_gone = false;
        let done = self.done.take().or_else(|| {
            let (_, from_thread) = self.thread.as_ref()?;
            match if wait {
                from_thread.recv().map_err(|_| TryRecvError::Disconnected)
            } else {
                from_thread.try_recv()
            } {
                Ok(done) => Some(done),
                Err(TryRecvError::Empty) => None,
                Err(TryRecvError::Disconnected) => {
                    // The writer learns that its sync did not end when it begins the next one.
                    is_gone = true;
                    None
                }
            }
        });
        if is_gone {
            tracing::error!("the thread that syncs is gone; writing waits for each sync");
            self.thread = None;
        }
        if done.is_some() || wait || is_gone {
            self.is_busy = false;
        }
        done
    }
}

#[derive(Debug, Clone, Copy)]
enum Goal {
    Written(u64),
    Synced(u64),
    /// No write that is not durable is too old.
    Recent,
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
            Goal::Recent => synced >= self.last_write || !self.journal.is_behind(),
        };
        if done || !self.journal.is_on() {
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
