//! The rows of all groups put together into one array while compiling.
//!
//! Each file below holds one group as COMMAND DOCS knows it; a container is followed by its subcommands.
//! To add a command, add its row: lookups, ids, ACL categories and documentation follow from it.

mod bitmap;
mod cluster;
mod connection;
mod generic;
mod geo;
mod hashes;
mod hyperloglog;
mod lists;
mod pubsub;
mod scripting;
mod server;
mod sets;
mod sorted_sets;
mod streams;
mod strings;
mod transactions;

use super::row::cmd;
use super::{CommandSpec, Group};

const GROUPS: &[(Group, &[CommandSpec])] = &[
    (Group::String, strings::ROWS),
    (Group::Hash, hashes::ROWS),
    (Group::List, lists::ROWS),
    (Group::Set, sets::ROWS),
    (Group::SortedSet, sorted_sets::ROWS),
    (Group::Stream, streams::ROWS),
    (Group::Bitmap, bitmap::ROWS),
    (Group::HyperLogLog, hyperloglog::ROWS),
    (Group::Geo, geo::ROWS),
    (Group::Generic, generic::ROWS),
    (Group::Transactions, transactions::ROWS),
    (Group::Scripting, scripting::ROWS),
    (Group::PubSub, pubsub::ROWS),
    (Group::Connection, connection::ROWS),
    (Group::Server, server::ROWS),
    (Group::Cluster, cluster::ROWS),
];

/// Rows of [`COMMANDS`].
pub const COMMAND_COUNT: usize = count(true) + count(false);

/// How many of them are no subcommands; they come first.
pub const TOP_LEVEL_COUNT: usize = count(true);

/// Every command of Redis 7.0: first the top level, then the subcommands.
pub static COMMANDS: [CommandSpec; COMMAND_COUNT] = build(&COMMANDS);

const fn count(top_level: bool) -> usize {
    let mut count = 0;
    let mut groups = GROUPS;
    while let [(_, rows), tail @ ..] = groups {
        groups = tail;
        let mut rows = *rows;
        while let [row, tail @ ..] = rows {
            rows = tail;
            if row.container.is_none() == top_level {
                count += 1;
            }
        }
    }
    count
}

/// Lays the rows out. `finished` is the array that is being built: containers point into it at their
/// subcommands, which takes its address and reads nothing.
#[allow(clippy::indexing_slicing, clippy::large_stack_arrays, reason = "runs while compiling")]
const fn build(finished: &'static [CommandSpec]) -> [CommandSpec; COMMAND_COUNT] {
    let mut table = [cmd("", 0, "", ""); COMMAND_COUNT];
    let (mut top, mut sub) = (0, TOP_LEVEL_COUNT);
    let mut groups = GROUPS;
    while let [(group, rows), tail @ ..] = groups {
        groups = tail;
        let mut rows = *rows;
        while let [row, tail @ ..] = rows {
            rows = tail;
            if row.container.is_some() {
                table[sub] = row.placed(sub as u16, *group, &[]);
                sub += 1;
            } else {
                let (_, rest) = finished.split_at(sub);
                let (subcommands, _) = rest.split_at(leading_subcommands(tail));
                table[top] = row.placed(top as u16, *group, subcommands);
                top += 1;
            }
        }
    }
    table
}

/// How many of `rows` belong to the container before them.
const fn leading_subcommands(rows: &[CommandSpec]) -> usize {
    let mut count = 0;
    let mut rest = rows;
    while let [row, tail @ ..] = rest {
        if row.container.is_none() {
            break;
        }
        count += 1;
        rest = tail;
    }
    count
}

/// Where the command of that full name is; for constants.
pub(super) const fn position(full_name: &str) -> Option<usize> {
    let mut at = 0;
    let mut rest: &[CommandSpec] = &COMMANDS;
    while let [row, tail @ ..] = rest {
        if same(row.full_name.as_bytes(), full_name.as_bytes()) {
            return Some(at);
        }
        at += 1;
        rest = tail;
    }
    None
}

const fn same(mut a: &[u8], mut b: &[u8]) -> bool {
    while let ([x, a_tail @ ..], [y, b_tail @ ..]) = (a, b) {
        if *x != *y {
            return false;
        }
        (a, b) = (a_tail, b_tail);
    }
    a.is_empty() && b.is_empty()
}
