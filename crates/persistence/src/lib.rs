//! Keeps the data over a restart: the multi-part append-only file of Redis 7, and its RDB files.
//!
//! Bytes of commands go in, come back after a restart in the same order, and nothing that a sync has promised
//! is lost, whatever the moment at which the machine stops. Everything is synchronous and runs on the caller's
//! thread; which thread that is, and when it writes and syncs, is for the floor above to decide. No sockets, no
//! clock, and no idea of what a command does.
#![cfg_attr(
    not(test),
    warn(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)
)]

mod aof;
mod append_fsync;
mod check;
pub mod disk;
mod error;
mod journal_buffer;
pub mod manifest;
mod rdb;
mod receiver;
mod recover;

pub use aof::{AofFiles, AofWriter, BasePlace, BaseWriter, Command, NewBase, PendingSync, Rewrite};
pub use append_fsync::AppendFsync;
pub use check::{
    CheckReport, CheckedFile, CheckedRdb, Fix, check, check_aof_file, check_rdb, cut_off_aof_file,
    first_after,
};
pub use error::{Error, ErrorKind, Result};
pub use journal_buffer::{Batch, DEFAULT_JOURNAL_BUFFER_BYTES, JournalBuffer, Room};
pub use mtcache_engine::Lsn;
pub use rdb::{RdbKey, RdbOptions, RdbReport, RdbWriter, TEMP_RDB, load_rdb, save_rdb};
pub use receiver::Receiver;
pub use recover::{Aof, AofOptions, BaseForm, CutOff, ReplayReport, TornTail};
