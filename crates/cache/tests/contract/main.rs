//! The contract: one body of tests over every backend.
//!
//! Each test is a function of a `Rig`; `on_every_backend!` makes one test of it for each backend. A backend is added by a
//! row in `rig.rs`. What only a server outside can do (stop, hang, cut a connection) is in `recovery.rs` and `cancelled.rs`, with
//! rows of their own; what only the engine in process does is in `in_process.rs`.

#![allow(clippy::similar_names, reason = "leader and loader, stop and step: each says what it is")]

mod ages;
mod batch_history;
mod batch_lapse;
mod batch_leases;
mod batch_reload;
mod batch_stale;
mod batches;
mod cancelled;
mod clearing;
mod clocks;
mod cluster;
mod cluster_partial;
mod collections;
mod events;
mod framed;
mod framed_batches;
mod histories;
mod history;
mod in_process;
mod keys;
mod leases;
mod limits;
mod loads;
mod many_keys;
mod near;
mod near_faults;
mod operating;
mod processes;
mod proxy;
mod recovery;
mod refresh;
mod regions;
mod reload;
mod rig;
mod sentinel;
mod stale;
mod strings;
mod switches;
mod tags;
