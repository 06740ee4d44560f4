//! Holds this crate against a running redis-server 7.0: the table, key positions, request errors, globs and
//! the text of doubles. It starts its own server on a free port and fails when there is none to start.

mod command_table;
mod globs;
mod requests;
mod server;
mod values;
