//! A sync that runs on another thread while the writer goes on.
//!
//! The invariant: the writer learns what became of a sync before it does another of the same file. The system reports a failure of
//! writing back once per open file, so a second sync that overtook the first could be told that all is well while the first is told what
//! was lost. Deliberately absent: the thread.

use std::io;
use std::sync::Arc;

use mtcache_engine::Lsn;
use parking_lot::{Condvar, Mutex};

use crate::disk::SyncFile;

/// What a started sync will have made durable.
#[derive(Debug)]
pub struct PendingSync {
    file: Box<dyn SyncFile>,
    pub(super) covers: Covers,
    turn: Arc<Turn>,
}

/// The bytes that a sync is about.
#[derive(Debug, Clone)]
pub(super) struct Covers {
    pub(super) file_name: String,
    pub(super) len: u64,
    pub(super) lsn: Lsn,
}

/// The writer's end of it.
#[derive(Debug)]
pub(super) struct Begun {
    pub(super) covers: Covers,
    turn: Arc<Turn>,
}

#[derive(Debug, Default)]
struct Turn {
    state: Mutex<State>,
    ended: Condvar,
}

#[derive(Debug, Default)]
enum State {
    #[default]
    Waiting,
    Running,
    /// Nobody needs it any more: the writer syncs itself.
    Dropped,
    Ended(Result<(), (io::ErrorKind, String)>),
}

pub(super) fn begin(file: Box<dyn SyncFile>, covers: Covers) -> (Begun, PendingSync) {
    let turn = Arc::new(Turn::default());
    (Begun { covers: covers.clone(), turn: Arc::clone(&turn) }, PendingSync { file, covers, turn })
}

impl PendingSync {
    /// Does the sync, on whatever thread, once. Its result goes to [`AofWriter::finish_sync`](super::AofWriter::finish_sync).
    pub fn run(&self) -> io::Result<()> {
        {
            let mut state = self.turn.state.lock();
            if !matches!(*state, State::Waiting) {
                return Ok(());
            }
            *state = State::Running;
        }
        let result = self.file.sync_data();
        let seen = result.as_ref().map(|&()| ()).map_err(|error| (error.kind(), error.to_string()));
        *self.turn.state.lock() = State::Ended(seen);
        self.turn.ended.notify_all();
        result
    }
}

impl Drop for PendingSync {
    fn drop(&mut self) {
        let mut state = self.turn.state.lock();
        if matches!(*state, State::Waiting | State::Running) {
            // The thread is gone; what became of the bytes is not known.
            *state = State::Ended(Err((io::ErrorKind::Other, "the sync was not done to its end".to_owned())));
            self.turn.ended.notify_all();
        }
    }
}

impl Begun {
    /// What became of it, waited for if it runs; `None` if it had not begun and will not any more.
    pub(super) fn settle(self) -> Option<io::Result<()>> {
        let mut state = self.turn.state.lock();
        self.turn.ended.wait_while(&mut state, |state| matches!(state, State::Running));
        match std::mem::replace(&mut *state, State::Dropped) {
            State::Ended(result) => Some(result.map_err(|(kind, text)| io::Error::new(kind, text))),
            State::Waiting | State::Running | State::Dropped => None,
        }
    }
}
