//! Rows of the commands about connections.

use crate::command::CommandSpec;
use crate::command::flags::{AclCategories as C, CommandFlags as F};
use crate::command::row::cmd;

pub(super) const ROWS: &[CommandSpec] = &[
    cmd("auth", -2, "1.0.0", "O(N)")
        .flags(&[F::NOSCRIPT, F::LOADING, F::STALE, F::FAST, F::NO_AUTH, F::ALLOW_BUSY])
        .acl(&[C::CONNECTION])
        .summary("Logs this connection in"),
    cmd("client", -2, "2.4.0", "").summary("Container of the commands about connections"),
    cmd("client|caching", 3, "6.0.0", "O(1)")
        .flags(&[F::NOSCRIPT, F::LOADING, F::STALE])
        .acl(&[C::CONNECTION])
        .summary("Says whether the next command's keys are to be tracked"),
    cmd("client|getname", 2, "2.6.9", "O(1)")
        .flags(&[F::NOSCRIPT, F::LOADING, F::STALE])
        .acl(&[C::CONNECTION])
        .summary("Tells this connection's name"),
    cmd("client|getredir", 2, "6.0.0", "O(1)")
        .flags(&[F::NOSCRIPT, F::LOADING, F::STALE])
        .acl(&[C::CONNECTION])
        .summary("Tells which connection gets this one's invalidations"),
    cmd("client|help", 2, "5.0.0", "O(1)")
        .flags(&[F::LOADING, F::STALE])
        .acl(&[C::CONNECTION])
        .summary("Lists the subcommands"),
    cmd("client|id", 2, "5.0.0", "O(1)")
        .flags(&[F::NOSCRIPT, F::LOADING, F::STALE])
        .acl(&[C::CONNECTION])
        .summary("Tells this connection's number"),
    cmd("client|info", 2, "6.2.0", "O(1)")
        .flags(&[F::NOSCRIPT, F::LOADING, F::STALE])
        .acl(&[C::CONNECTION])
        .tips(&["nondeterministic_output"])
        .summary("Describes this connection"),
    cmd("client|kill", -3, "2.4.0", "O(N)")
        .flags(&[F::ADMIN, F::NOSCRIPT, F::LOADING, F::STALE])
        .acl(&[C::CONNECTION])
        .summary("Closes connections by address or by filter"),
    cmd("client|list", -2, "2.4.0", "O(N)")
        .flags(&[F::ADMIN, F::NOSCRIPT, F::LOADING, F::STALE])
        .acl(&[C::CONNECTION])
        .tips(&["nondeterministic_output"])
        .summary("Describes the open connections"),
    cmd("client|no-evict", 3, "7.0.0", "O(1)")
        .flags(&[F::ADMIN, F::NOSCRIPT, F::LOADING, F::STALE])
        .acl(&[C::CONNECTION])
        .summary("Protects this connection from being evicted for its memory"),
    cmd("client|pause", -3, "2.9.50", "O(1)")
        .flags(&[F::ADMIN, F::NOSCRIPT, F::LOADING, F::STALE])
        .acl(&[C::CONNECTION])
        .summary("Holds back the commands of all clients for a time"),
    cmd("client|reply", 3, "3.2.0", "O(1)")
        .flags(&[F::NOSCRIPT, F::LOADING, F::STALE])
        .acl(&[C::CONNECTION])
        .summary("Turns replies to this connection on, off or off once"),
    cmd("client|setname", 3, "2.6.9", "O(1)")
        .flags(&[F::NOSCRIPT, F::LOADING, F::STALE])
        .acl(&[C::CONNECTION])
        .summary("Names this connection"),
    cmd("client|tracking", -3, "6.0.0", "O(1)")
        .flags(&[F::NOSCRIPT, F::LOADING, F::STALE])
        .acl(&[C::CONNECTION])
        .summary("Turns invalidation messages for cached keys on or off"),
    cmd("client|trackinginfo", 2, "6.2.0", "O(1)")
        .flags(&[F::NOSCRIPT, F::LOADING, F::STALE])
        .acl(&[C::CONNECTION])
        .summary("Tells how this connection is tracked"),
    cmd("client|unblock", -3, "5.0.0", "O(log(N))")
        .flags(&[F::ADMIN, F::NOSCRIPT, F::LOADING, F::STALE])
        .acl(&[C::CONNECTION])
        .summary("Wakes a client that waits in a blocking command"),
    cmd("client|unpause", 2, "6.2.0", "O(N)")
        .flags(&[F::ADMIN, F::NOSCRIPT, F::LOADING, F::STALE])
        .acl(&[C::CONNECTION])
        .summary("Lets paused clients go on"),
    cmd("echo", 2, "1.0.0", "O(1)")
        .flags(&[F::LOADING, F::STALE, F::FAST])
        .acl(&[C::CONNECTION])
        .summary("Answers with its argument"),
    cmd("hello", -1, "6.0.0", "O(1)")
        .flags(&[F::NOSCRIPT, F::LOADING, F::STALE, F::FAST, F::NO_AUTH, F::ALLOW_BUSY])
        .acl(&[C::CONNECTION])
        .summary("Chooses the protocol version, logs in and describes the server"),
    cmd("ping", -1, "1.0.0", "O(1)")
        .flags(&[F::FAST])
        .acl(&[C::CONNECTION])
        .tips(&["request_policy:all_shards", "response_policy:all_succeeded"])
        .summary("Answers PONG or its argument"),
    cmd("quit", -1, "1.0.0", "O(1)")
        .flags(&[F::NOSCRIPT, F::LOADING, F::STALE, F::FAST, F::NO_AUTH, F::ALLOW_BUSY])
        .acl(&[C::CONNECTION])
        .summary("Closes this connection after its replies"),
    cmd("reset", 1, "6.2.0", "O(1)")
        .flags(&[F::NOSCRIPT, F::LOADING, F::STALE, F::FAST, F::NO_AUTH, F::ALLOW_BUSY])
        .acl(&[C::CONNECTION])
        .summary("Sets this connection back to how it began"),
    cmd("select", 2, "1.0.0", "O(1)")
        .flags(&[F::LOADING, F::STALE, F::FAST])
        .acl(&[C::CONNECTION])
        .summary("Chooses this connection's database"),
];
