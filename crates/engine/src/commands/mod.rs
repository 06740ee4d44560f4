//! The commands, a file per group, under the names that the command table in `protocol` gives them.
//!
//! A command is a function of a context, its arguments and the reply to write. It is registered in its group's `TABLE`
//! together with what it locks. A command of the table that no group registers is refused as not supported yet.
// The number of arguments has been checked against the table before a command runs.
#![allow(clippy::indexing_slicing)]
// Commands share one signature, whether or not they can fail.
#![allow(clippy::unnecessary_wraps)]

mod acl;
pub(crate) mod blocking;
mod client;
mod collection_scan;
mod command;
mod config;
mod connection;
mod debug;
mod dump;
mod expire;
mod generic;
mod hashes;
mod info;
mod latency;
mod lcs;
mod lists;
mod memory;
mod module;
mod object;
pub(crate) mod parse;
mod pubsub;
mod scripting;
mod server;
mod sets;
mod slowlog;
mod sort;
mod sorted_set_combine;
mod sorted_set_ranges;
mod sorted_sets;
mod strings;
#[cfg(test)]
mod tests;
mod tracking;
mod transactions;
mod walk;

use std::sync::LazyLock;

use mtcache_protocol::{COMMAND_COUNT, COMMANDS, CommandSpec, Reply, lookup, lookup_sub};

pub(crate) use self::client::describe as describe_client;
use crate::context::Ctx;
use crate::error::CommandResult;

/// How a command runs.
pub(crate) type Run =
    for<'c, 'a, 'e, 'r> fn(&'c mut Ctx<'a, 'e>, &'r [&'r [u8]], &'r mut Reply) -> CommandResult;

/// What a command locks before it runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Locks {
    /// Nothing: it does not touch the keyspace.
    None,
    /// The shards of the keys that the command table finds in its arguments.
    Keys,
    /// Every shard: it walks the keyspace or may touch any key.
    All,
    /// Nothing when it runs alone, since it asks others first and locks by itself then; every shard inside a transaction.
    Later,
    /// What the queued commands need; `EXEC` alone.
    Exec,
}

/// A command that can run.
#[derive(Clone, Copy)]
pub(crate) struct Handler {
    pub(crate) locks: Locks,
    pub(crate) run: Run,
}

/// A row of a group's table: the name (`container|subcommand` for a subcommand) and how it runs.
pub(crate) type Row = (&'static str, Locks, Run);

const GROUPS: &[&[Row]] = &[
    strings::TABLE,
    generic::TABLE,
    expire::TABLE,
    walk::TABLE,
    object::TABLE,
    dump::TABLE,
    transactions::TABLE,
    hashes::TABLE,
    sets::TABLE,
    lists::TABLE,
    blocking::TABLE,
    sort::TABLE,
    sorted_sets::TABLE,
    sorted_set_ranges::TABLE,
    sorted_set_combine::TABLE,
    scripting::TABLE,
    connection::TABLE,
    client::TABLE,
    acl::TABLE,
    tracking::TABLE,
    config::TABLE,
    pubsub::TABLE,
    debug::TABLE,
    server::TABLE,
    slowlog::TABLE,
    latency::TABLE,
    memory::TABLE,
    module::TABLE,
    command::TABLE,
    info::TABLE,
];

static HANDLERS: LazyLock<Vec<Option<Handler>>> = LazyLock::new(|| {
    let mut handlers = vec![None; COMMAND_COUNT];
    for &(name, locks, run) in GROUPS.iter().copied().flatten() {
        let spec = match name.split_once('|') {
            Some((container, sub)) => {
                lookup(container.as_bytes()).and_then(|c| lookup_sub(c, sub.as_bytes()))
            }
            None => lookup(name.as_bytes()),
        };
        debug_assert!(spec.is_some(), "{name} is not in the command table");
        if let Some(place) = spec.and_then(|spec| handlers.get_mut(spec.id.index())) {
            *place = Some(Handler { locks, run });
        }
    }
    for spec in COMMANDS.iter().filter(|spec| spec.container == Some("cluster")) {
        if let Some(place) = handlers.get_mut(spec.id.index()) {
            *place = Some(Handler { locks: Locks::None, run: server::no_cluster });
        }
    }
    handlers
});

/// How to run a command, if the engine can.
#[inline]
pub(crate) fn handler(spec: &CommandSpec) -> Option<Handler> {
    HANDLERS.get(spec.id.index()).copied().flatten()
}

/// Commands that are there only to be refused in Redis' own words: what they need is not there yet.
const REFUSED: &[&str] = &["asking", "readonly", "readwrite", "replicaof", "slaveof"];

/// Whether the engine can run the command; of a container, whether it can run any of its subcommands. The command
/// reference in the documentation is written from this.
pub fn supports(spec: &CommandSpec) -> bool {
    let is_refused = spec.container == Some("cluster") || REFUSED.contains(&spec.full_name());
    (handler(spec).is_some() && !is_refused) || spec.subcommands.iter().any(supports)
}

/// Writes what a container's HELP says: a headline, the given lines, and HELP itself.
pub(crate) fn write_help(container: &str, lines: &[&str], out: &mut Reply) {
    out.array(lines.len() + 3);
    out.simple(&format!("{container} <subcommand> [<arg> [value] [opt] ...]. Subcommands are:"));
    for line in lines.iter().chain(&["HELP", "    Prints this help."]) {
        out.simple(line);
    }
}
