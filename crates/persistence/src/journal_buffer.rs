//! Commands on their way to the journal: many threads append, one takes all of them at once.
//!
//! Appending is a copy under one mutex, made while the locks of the data are held, so that the order here is the
//! order of effect. It never blocks and never fails; the bound is kept by its owner, who lets replies wait, or
//! asks for room before a command takes effect, with no lock held ([`JournalBuffer::wait_for_room`]). Deliberately absent: files and threads.

use std::time::Duration;

use mtcache_engine::{Commands, DbIndex, Lsn};
use mtcache_protocol::encode_command;
use parking_lot::{Condvar, Mutex};

/// What an idle buffer keeps of its memory, in bytes, twice.
const KEPT_CAPACITY: usize = 4 * 1024 * 1024;

/// The room of a buffer unless another is asked for: 64 MiB.
pub const DEFAULT_JOURNAL_BUFFER_BYTES: usize = 64 * 1024 * 1024;

/// Whether there is room for a write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Room {
    /// There is; go on.
    Available,
    /// There was none in all the time that was given.
    None,
    /// The buffer has been closed: nobody takes from it any more.
    Closed,
}

/// What was taken from the buffer.
#[derive(Debug, Default)]
pub struct Batch {
    /// Complete commands.
    pub bytes: Vec<u8>,
    /// The database in effect before the first of them; `None` if they begin with a SELECT (or are none).
    pub db_before: Option<u32>,
    /// The place in the logical journal after the last of them.
    pub end: Lsn,
    /// Whether a cut ([`JournalBuffer::mark_cut`]) lies right behind the last of them: what follows belongs into another
    /// file.
    pub reaches_cut: bool,
}

/// The commands that no file has yet.
#[derive(Debug)]
pub struct JournalBuffer {
    state: Mutex<State>,
    /// Signalled when there is something to take, or the buffer is closed.
    filled: Condvar,
    /// Signalled when there is room again, or the buffer is closed.
    emptied: Condvar,
    limit: usize,
}

#[derive(Debug, Default)]
struct State {
    bytes: Vec<u8>,
    spare: Vec<u8>,
    db: Option<u32>,
    db_before: Option<u32>,
    end: Lsn,
    /// How many of the bytes lie before a cut.
    cut: Option<usize>,
    is_closed: bool,
}

impl JournalBuffer {
    /// A buffer that asks for patience from `limit` bytes on. It can hold more: the commands that had found room
    /// before it was full are all taken, one for each thread at most.
    pub fn new(limit: usize) -> Self {
        Self { state: Mutex::default(), filled: Condvar::new(), emptied: Condvar::new(), limit }
    }

    /// Appends one command that took effect in `db`, and a SELECT before it where that is another database than
    /// the last one's.
    pub fn append_args(&self, db: u32, args: &[&[u8]]) -> Lsn {
        self.append(db, db, |bytes| encode_command(args, bytes))
    }

    /// Appends encoded commands, complete ones. The first of them takes effect in `first_db`; after the last of
    /// them `last_db` is in effect, which differs if there is a SELECT among them.
    pub fn append_encoded(&self, first_db: u32, last_db: u32, commands: &[u8]) -> Lsn {
        self.append(first_db, last_db, |bytes| bytes.extend_from_slice(commands))
    }

    /// Appends what the engine tells its journal; the first of the commands took effect in `db`.
    pub fn append_commands(&self, db: DbIndex, commands: Commands<'_>) -> Lsn {
        match commands {
            Commands::Args(args) => self.append_args(db.into(), args),
            Commands::Encoded { bytes, last_db } => self.append_encoded(db.into(), last_db.into(), bytes),
        }
    }

    /// The place after the last command appended.
    pub fn end(&self) -> Lsn {
        self.state.lock().end
    }

    /// The bytes waiting to be taken.
    pub fn len(&self) -> usize {
        self.state.lock().bytes.len()
    }

    /// Whether nothing waits to be taken.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Waits until there is room. To be asked before a write takes effect, and with no lock held.
    pub fn wait_for_room(&self, patience: Duration) -> Room {
        let mut state = self.state.lock();
        if state.bytes.len() >= self.limit && !state.is_closed {
            self.emptied.wait_while_for(
                &mut state,
                |state| state.bytes.len() >= self.limit && !state.is_closed,
                patience,
            );
        }
        if state.is_closed {
            Room::Closed
        } else if state.bytes.len() < self.limit {
            Room::Available
        } else {
            Room::None
        }
    }

    /// Waits until there is something to take; false if there was nothing in all the time that was given, or the
    /// buffer is closed and empty.
    pub fn wait_for_commands(&self, patience: Duration) -> bool {
        let mut state = self.state.lock();
        let has_nothing = |state: &mut State| state.bytes.is_empty() && state.cut.is_none();
        if has_nothing(&mut state) && !state.is_closed {
            self.filled.wait_while_for(&mut state, |state| has_nothing(state) && !state.is_closed, patience);
        }
        !has_nothing(&mut state)
    }

    /// Divides what has been appended from what will be: no batch goes over this place. What follows begins with a SELECT,
    /// so that a file can begin there. A cut that has not been reached gives way to this one. To be called while nothing can
    /// be appended; the place of the cut.
    pub fn mark_cut(&self) -> Lsn {
        let mut state = self.state.lock();
        state.cut = Some(state.bytes.len());
        state.db = None;
        let end = state.end;
        drop(state);
        self.filled.notify_one();
        end
    }

    /// Forgets a cut that has not been reached.
    pub fn forget_cut(&self) {
        self.state.lock().cut = None;
    }

    /// Takes all that is there, or all up to a cut. Give the batch's bytes back with [`JournalBuffer::recycle`] when they are written.
    pub fn take(&self) -> Batch {
        let mut state = self.state.lock();
        let mut following = std::mem::take(&mut state.spare);
        let cut = state.cut.take();
        if let Some(behind) = cut.and_then(|cut| state.bytes.get(cut..)) {
            following.extend_from_slice(behind);
        }
        let mut bytes = std::mem::replace(&mut state.bytes, following);
        let end = Lsn(state.end.0 - state.bytes.len() as u64);
        let db_before = state.db_before;
        if let Some(cut) = cut {
            bytes.truncate(cut);
            // What follows a cut says itself which database it is for.
            state.db_before = None;
        }
        drop(state);
        self.emptied.notify_all();
        Batch { bytes, db_before, end, reaches_cut: cut.is_some() }
    }

    /// Takes a buffer back for reuse.
    pub fn recycle(&self, mut bytes: Vec<u8>) {
        // A large one is kept while it is made use of: to fault its memory in each time costs more than all the rest.
        if bytes.capacity() <= KEPT_CAPACITY || bytes.len() >= bytes.capacity() / 8 {
            bytes.clear();
            self.state.lock().spare = bytes;
        }
    }

    /// Lets everyone who waits go on, for good. What is appended after is still kept to be taken.
    pub fn close(&self) {
        self.state.lock().is_closed = true;
        self.filled.notify_all();
        self.emptied.notify_all();
    }

    /// Begins again after [`close`](Self::close), without what was left; where the journal goes on.
    pub fn reopen(&self) -> Lsn {
        let mut state = self.state.lock();
        state.bytes.clear();
        (state.db, state.cut, state.is_closed) = (None, None, false);
        state.end
    }

    fn append(&self, first_db: u32, last_db: u32, push: impl FnOnce(&mut Vec<u8>)) -> Lsn {
        let mut state = self.state.lock();
        let State { bytes, db, db_before, .. } = &mut *state;
        let begin = bytes.len();
        if begin == 0 {
            *db_before = db.filter(|&db| db == first_db);
        }
        if *db != Some(first_db) {
            push_select(bytes, first_db);
        }
        push(bytes);
        *db = Some(last_db);
        let appended = bytes.len() - begin;
        state.end.0 += appended as u64;
        let end = state.end;
        drop(state);
        if begin == 0 {
            self.filled.notify_one();
        }
        end
    }
}

/// Appends a SELECT.
pub(crate) fn push_select(bytes: &mut Vec<u8>, db: u32) {
    encode_command(&[b"SELECT", db.to_string().as_bytes()], bytes);
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::thread;

    use super::*;

    const SELECT_3: &[u8] = b"*2\r\n$6\r\nSELECT\r\n$1\r\n3\r\n";
    const PING: &[u8] = b"*1\r\n$4\r\nPING\r\n";
    const MOMENT: Duration = Duration::from_millis(1);
    const LONG: Duration = Duration::from_mins(1);

    fn buffer() -> JournalBuffer {
        JournalBuffer::new(1000)
    }

    #[test]
    fn a_select_stands_before_the_first_command_and_before_every_change_of_database() {
        let buffer = buffer();
        assert_eq!(buffer.append_args(3, &[b"PING"]), Lsn(37));
        assert_eq!(buffer.append_args(3, &[b"PING"]), Lsn(51));
        assert_eq!(buffer.append_encoded(3, 0, PING), Lsn(65));
        buffer.append_args(3, &[b"PING"]);
        let batch = buffer.take();
        assert_eq!(batch.bytes, [SELECT_3, PING, PING, PING, SELECT_3, PING].concat());
        assert_eq!((batch.db_before, batch.end), (None, Lsn(102)));
    }

    #[test]
    fn the_next_batch_says_which_database_it_goes_on_in() {
        let buffer = buffer();
        buffer.append_args(3, &[b"PING"]);
        buffer.take();
        buffer.append_args(3, &[b"PING"]);
        let batch = buffer.take();
        assert_eq!((batch.bytes.as_slice(), batch.db_before), (PING, Some(3)));
        buffer.append_args(0, &[b"PING"]);
        assert_eq!(buffer.take().db_before, None);
        assert_eq!(buffer.take().bytes, b"");
    }

    #[test]
    fn places_go_on_over_batches_and_buffers_are_used_again() {
        let buffer = buffer();
        buffer.append_args(0, &[b"PING"]);
        let first = buffer.take();
        let (end, place) = (first.end, first.bytes.as_ptr());
        buffer.recycle(first.bytes);
        buffer.append_args(0, &[b"PING"]);
        buffer.take();
        buffer.append_args(0, &[b"PING"]);
        let third = buffer.take();
        assert_eq!(third.end, Lsn(end.0 + 2 * PING.len() as u64));
        assert_eq!(third.bytes.as_ptr(), place);
    }

    #[test]
    fn no_batch_goes_over_a_cut_and_what_follows_it_can_begin_a_file() {
        let buffer = buffer();
        buffer.mark_cut();
        assert!(buffer.wait_for_commands(MOMENT), "a cut is news");
        let batch = buffer.take();
        assert!(batch.bytes.is_empty() && batch.reaches_cut);
        buffer.append_args(3, &[b"PING"]);
        assert_eq!(buffer.mark_cut(), Lsn(37));
        buffer.append_args(3, &[b"PING"]);
        let before = buffer.take();
        assert_eq!((before.bytes, before.end), ([SELECT_3, PING].concat(), Lsn(37)));
        assert!(before.reaches_cut);
        buffer.append_args(3, &[b"PING"]);
        let after = buffer.take();
        assert_eq!(after.bytes, [SELECT_3, PING, PING].concat());
        assert_eq!((after.db_before, after.end, after.reaches_cut), (None, Lsn(88), false));
        buffer.mark_cut();
        buffer.forget_cut();
        assert!(!buffer.wait_for_commands(MOMENT));
    }

    #[test]
    fn what_the_engine_hands_over_is_taken_in_either_form() {
        let buffer = buffer();
        buffer.append_commands(3, Commands::Args(&[b"PING"]));
        buffer.append_commands(3, Commands::Encoded { bytes: PING, last_db: 3 });
        assert_eq!(buffer.take().bytes, [SELECT_3, PING, PING].concat());
    }

    #[test]
    fn a_full_buffer_asks_for_patience_and_still_takes_what_has_taken_effect() {
        let buffer = JournalBuffer::new(20);
        assert_eq!(buffer.wait_for_room(MOMENT), Room::Available);
        buffer.append_args(0, &[b"PING"]);
        assert_eq!(buffer.wait_for_room(MOMENT), Room::None);
        buffer.append_args(0, &[b"PING"]);
        assert!(buffer.len() > 20);
        buffer.take();
        assert_eq!(buffer.wait_for_room(MOMENT), Room::Available);
    }

    #[test]
    fn whoever_waits_goes_on_when_there_is_room_or_something_to_take_or_the_end() {
        let buffer = Arc::new(JournalBuffer::new(1));
        thread::scope(|scope| {
            let taker = scope.spawn(|| {
                assert!(buffer.wait_for_commands(LONG));
                buffer.take()
            });
            buffer.append_args(0, &[b"PING"]);
            assert_eq!(buffer.wait_for_room(LONG), Room::Available);
            assert!(!taker.join().unwrap().bytes.is_empty());
            let waiting = scope.spawn(|| buffer.wait_for_commands(LONG));
            buffer.close();
            assert!(!waiting.join().unwrap());
        });
        assert_eq!(buffer.wait_for_room(LONG), Room::Closed);
    }

    #[test]
    fn many_threads_lose_nothing_and_every_place_is_the_end_of_its_command() {
        let buffer = Arc::new(JournalBuffer::new(4_000));
        let mut whole = Vec::new();
        thread::scope(|scope| {
            let writers: Vec<_> = (0..4_u32)
                .map(|db| {
                    let buffer = Arc::clone(&buffer);
                    scope.spawn(move || {
                        let places = (0..500).map(|number: u32| {
                            assert_eq!(buffer.wait_for_room(LONG), Room::Available);
                            let text = format!("{db}:{number}");
                            (text.clone(), buffer.append_args(db, &[b"SET", text.as_bytes()]))
                        });
                        places.collect::<Vec<_>>()
                    })
                })
                .collect();
            while writers.iter().any(|writer| !writer.is_finished()) || !buffer.is_empty() {
                if buffer.wait_for_commands(MOMENT) {
                    let batch = buffer.take();
                    whole.extend_from_slice(&batch.bytes);
                    assert_eq!(batch.end, Lsn(whole.len() as u64));
                    assert!(batch.bytes.len() < 4_000 + 4 * 100, "the bound holds");
                    buffer.recycle(batch.bytes);
                }
            }
            for writer in writers {
                for (text, Lsn(place)) in writer.join().unwrap() {
                    let before = whole.get(..place as usize).unwrap();
                    assert!(before.ends_with(format!("{text}\r\n").as_bytes()));
                }
            }
        });
    }
}
