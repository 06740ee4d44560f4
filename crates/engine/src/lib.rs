//! The engine of the cache: keyspace, value types, commands, expiry and eviction, without sockets, files or a clock.

#![cfg_attr(
    not(test),
    warn(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)
)]

pub mod types;
