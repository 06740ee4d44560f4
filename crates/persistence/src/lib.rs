//! Keeps the data over a restart: the multi-part append-only file of Redis 7.
//!
//! Bytes of commands go in, come back after a restart in the same order, and nothing that a sync has promised
//! is lost, whatever the moment at which the machine stops. Everything is synchronous and runs on the caller's
//! thread; which thread that is, and when it writes and syncs, is for the floor above to decide. No sockets, no
//! clock, and no idea of what a command does. RDB files and rewriting come later; their place is kept.
#![cfg_attr(
    not(test),
    warn(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)
)]

pub mod disk;
mod error;
pub mod manifest;

pub use error::{Error, ErrorKind, Result};
