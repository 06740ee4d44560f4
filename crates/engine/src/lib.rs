//! The embedded engine: a sharded keyspace with Redis 7's types, commands, expiry and eviction.
//!
//! Any thread calls in directly ([`Engine::dispatch`]); shards by key hash, each behind its own lock, let every core work.
//! Time is a parameter (through [`Clock`]) and writes go out through [`Journal`]. Deliberately absent: sockets, files, an
//! async runtime, the wall clock.
#![cfg_attr(
    not(test),
    warn(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)
)]

mod acl;
mod blocking;
mod client;
mod client_eviction;
mod commands;
mod config;
mod context;
mod dispatch;
mod engine;
mod error;
mod float;
mod histogram;
mod host;
mod journal;
mod keyspace;
mod latency;
mod load;
mod monitor;
mod notify;
mod observe;
mod pause;
mod prefetch;
mod pubsub;
pub mod rdb;
mod registry;
mod reload;
mod script;
mod session;
mod settings;
mod slowlog;
mod snapshot;
mod stats;
#[cfg(test)]
#[allow(dead_code, reason = "each family of commands uses its part of the harness")]
mod testing;
mod time;
mod tracking;
pub mod types;

pub use self::blocking::Parked;
pub use self::client::{Client, ClientBuffers, Mailbox, NoMailbox};
pub use self::commands::supports;
pub use self::config::{
    BufferLimit, Change, Config, ConfigError, ConfigListener, ConfigText, Effect, Kind, PARAMS, Param,
    SavePoint,
};
pub use self::dispatch::{MAX_TRANSACTION_BYTES, nanos_alone};
pub use self::engine::{AllocatedMemory, Engine, EngineOptions, MAX_FRAGMENTATION};
pub use self::error::{CommandError, CommandResult};
pub use self::host::{Host, HostReport, HostRequest, JournalReport, LogLevel, ShutdownMode, SnapshotReport};
pub use self::journal::{Commands, Journal, Lsn};
pub use self::keyspace::{DEFAULT_DATABASES, DbIndex, EvictionPolicy, MAX_KEY_LEN};
pub use self::load::NotLoaded;
pub use self::reload::{NotReloaded, ReloadFrom, StandingData};
pub use self::session::Session;
pub use self::settings::Settings;
pub use self::snapshot::{MAX_SAVED_BYTES, Progress, Snapshot};
pub use self::stats::{CommandStats, Totals};
pub use self::time::{Clock, UnixMillis};
