//! The commands against a real redis-server, and what they journal.

mod generic;
mod strings;
mod transactions;
