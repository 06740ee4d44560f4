//! The commands against a real redis-server, and what they journal.

mod acl;
mod blocking;
mod concurrency;
mod dump;
mod eviction;
mod generic;
mod large_replies;
mod scan;
mod snapshot;
mod sort;
mod strings;
mod transactions;
