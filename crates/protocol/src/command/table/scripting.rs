//! Rows of the commands about Lua scripts and functions.

use crate::command::CommandSpec;
use crate::command::flags::{AclCategories as C, CommandFlags as F, KeyFlags as K};
use crate::command::row::{cmd, counted};

pub(super) const ROWS: &[CommandSpec] = &[
    cmd("eval", -3, "2.6.0", "that of the script")
        .flags(&[
            F::NOSCRIPT,
            F::STALE,
            F::SKIP_MONITOR,
            F::NO_MANDATORY_KEYS,
            F::MOVABLE_KEYS,
            F::MAY_REPLICATE,
        ])
        .acl(&[C::SCRIPTING])
        .key_specs(&[counted(2, &[K::RW, K::ACCESS, K::UPDATE])])
        .summary("Runs a Lua script"),
    cmd("eval_ro", -3, "7.0.0", "that of the script")
        .flags(&[F::READONLY, F::NOSCRIPT, F::STALE, F::SKIP_MONITOR, F::NO_MANDATORY_KEYS, F::MOVABLE_KEYS])
        .acl(&[C::SCRIPTING])
        .key_specs(&[counted(2, &[K::RO, K::ACCESS])])
        .summary("Runs a Lua script that only reads"),
    cmd("evalsha", -3, "2.6.0", "that of the script")
        .flags(&[
            F::NOSCRIPT,
            F::STALE,
            F::SKIP_MONITOR,
            F::NO_MANDATORY_KEYS,
            F::MOVABLE_KEYS,
            F::MAY_REPLICATE,
        ])
        .acl(&[C::SCRIPTING])
        .key_specs(&[counted(2, &[K::RW, K::ACCESS, K::UPDATE])])
        .summary("Runs a loaded Lua script by its SHA1"),
    cmd("evalsha_ro", -3, "7.0.0", "that of the script")
        .flags(&[F::READONLY, F::NOSCRIPT, F::STALE, F::SKIP_MONITOR, F::NO_MANDATORY_KEYS, F::MOVABLE_KEYS])
        .acl(&[C::SCRIPTING])
        .key_specs(&[counted(2, &[K::RO, K::ACCESS])])
        .summary("Runs a loaded Lua script that only reads, by its SHA1"),
    cmd("fcall", -3, "7.0.0", "that of the function")
        .flags(&[
            F::NOSCRIPT,
            F::STALE,
            F::SKIP_MONITOR,
            F::NO_MANDATORY_KEYS,
            F::MOVABLE_KEYS,
            F::MAY_REPLICATE,
        ])
        .acl(&[C::SCRIPTING])
        .key_specs(&[counted(2, &[K::RW, K::ACCESS, K::UPDATE])])
        .summary("Calls a function of a library"),
    cmd("fcall_ro", -3, "7.0.0", "that of the function")
        .flags(&[F::READONLY, F::NOSCRIPT, F::STALE, F::SKIP_MONITOR, F::NO_MANDATORY_KEYS, F::MOVABLE_KEYS])
        .acl(&[C::SCRIPTING])
        .key_specs(&[counted(2, &[K::RO, K::ACCESS])])
        .summary("Calls a function of a library that only reads"),
    cmd("function", -2, "7.0.0", "").summary("Container of the commands about function libraries"),
    cmd("function|delete", 3, "7.0.0", "O(1)")
        .flags(&[F::WRITE, F::NOSCRIPT])
        .acl(&[C::SCRIPTING])
        .tips(&["request_policy:all_shards", "response_policy:all_succeeded"])
        .summary("Deletes a library"),
    cmd("function|dump", 2, "7.0.0", "O(N)")
        .flags(&[F::NOSCRIPT])
        .acl(&[C::SCRIPTING])
        .summary("Serializes all libraries"),
    cmd("function|flush", -2, "7.0.0", "O(N)")
        .flags(&[F::WRITE, F::NOSCRIPT])
        .acl(&[C::SCRIPTING])
        .tips(&["request_policy:all_shards", "response_policy:all_succeeded"])
        .summary("Deletes all libraries"),
    cmd("function|help", 2, "7.0.0", "O(1)")
        .flags(&[F::LOADING, F::STALE])
        .acl(&[C::SCRIPTING])
        .summary("Lists the subcommands"),
    cmd("function|kill", 2, "7.0.0", "O(1)")
        .flags(&[F::NOSCRIPT, F::ALLOW_BUSY])
        .acl(&[C::SCRIPTING])
        .tips(&["request_policy:all_shards", "response_policy:one_succeeded"])
        .summary("Stops the function that is running"),
    cmd("function|list", -2, "7.0.0", "O(N)")
        .flags(&[F::NOSCRIPT])
        .acl(&[C::SCRIPTING])
        .tips(&["nondeterministic_output_order"])
        .summary("Describes the libraries"),
    cmd("function|load", -3, "7.0.0", "O(1)")
        .flags(&[F::WRITE, F::DENYOOM, F::NOSCRIPT])
        .acl(&[C::SCRIPTING])
        .tips(&["request_policy:all_shards", "response_policy:all_succeeded"])
        .summary("Creates a library from its source"),
    cmd("function|restore", -3, "7.0.0", "O(N)")
        .flags(&[F::WRITE, F::DENYOOM, F::NOSCRIPT])
        .acl(&[C::SCRIPTING])
        .tips(&["request_policy:all_shards", "response_policy:all_succeeded"])
        .summary("Creates libraries from what FUNCTION DUMP serialized"),
    cmd("function|stats", 2, "7.0.0", "O(1)")
        .flags(&[F::NOSCRIPT, F::ALLOW_BUSY])
        .acl(&[C::SCRIPTING])
        .tips(&["nondeterministic_output", "request_policy:all_shards", "response_policy:special"])
        .summary("Tells which function is running and counts libraries by engine"),
    cmd("script", -2, "2.6.0", "").summary("Container of the commands about cached Lua scripts"),
    cmd("script|debug", 3, "3.2.0", "O(1)")
        .flags(&[F::NOSCRIPT])
        .acl(&[C::SCRIPTING])
        .summary("Sets the debugger's mode for the scripts of this connection"),
    cmd("script|exists", -3, "2.6.0", "O(N)")
        .flags(&[F::NOSCRIPT])
        .acl(&[C::SCRIPTING])
        .tips(&["request_policy:all_shards", "response_policy:agg_logical_and"])
        .summary("Tells which scripts are cached"),
    cmd("script|flush", -2, "2.6.0", "O(N)")
        .flags(&[F::NOSCRIPT])
        .acl(&[C::SCRIPTING])
        .tips(&["request_policy:all_nodes", "response_policy:all_succeeded"])
        .summary("Empties the script cache"),
    cmd("script|help", 2, "5.0.0", "O(1)")
        .flags(&[F::LOADING, F::STALE])
        .acl(&[C::SCRIPTING])
        .summary("Lists the subcommands"),
    cmd("script|kill", 2, "2.6.0", "O(1)")
        .flags(&[F::NOSCRIPT, F::ALLOW_BUSY])
        .acl(&[C::SCRIPTING])
        .tips(&["request_policy:all_shards", "response_policy:one_succeeded"])
        .summary("Stops the script that is running"),
    cmd("script|load", 3, "2.6.0", "O(N)")
        .flags(&[F::NOSCRIPT, F::STALE])
        .acl(&[C::SCRIPTING])
        .tips(&["request_policy:all_nodes", "response_policy:all_succeeded"])
        .summary("Caches a script without running it"),
];
