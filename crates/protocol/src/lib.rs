//! RESP2 and RESP3 bytes to frames and back, and the table of commands: the lowest floor.
//!
//! Nothing here knows sockets, runtimes or how a command runs. Bytes come in as slices and leave in a
//! `Vec<u8>`; whatever arrives, nothing panics, nothing recurses without a bound and no length header
//! makes it allocate before the bytes it announces are there.
#![cfg_attr(
    not(test),
    warn(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)
)]

mod double;
mod encode;

pub use double::write_double;
pub use encode::{Deferred, Reply, Version, write_array_header, write_bulk, write_integer};
