//! Rows of the stream commands.

use crate::command::CommandSpec;
use crate::command::flags::{AclCategories as C, CommandFlags as F, KeyFlags as K};
use crate::command::row::{after, cmd, key};

pub(super) const ROWS: &[CommandSpec] = &[
    cmd("xack", -4, "5.0.0", "O(1)")
        .flags(&[F::WRITE, F::FAST])
        .acl(&[C::STREAM])
        .key_specs(&[key(1, &[K::RW, K::UPDATE])])
        .summary("Confirms that a consumer group has handled entries"),
    cmd("xadd", -5, "5.0.0", "O(1)")
        .flags(&[F::WRITE, F::DENYOOM, F::FAST])
        .acl(&[C::STREAM])
        .key_specs(&[key(1, &[K::RW, K::UPDATE])])
        .tips(&["nondeterministic_output"])
        .summary("Appends an entry to a stream, trimming the stream if asked"),
    cmd("xautoclaim", -6, "6.2.0", "O(1)")
        .flags(&[F::WRITE, F::FAST])
        .acl(&[C::STREAM])
        .key_specs(&[key(1, &[K::RW, K::DELETE])])
        .tips(&["nondeterministic_output"])
        .summary("Takes over entries that other consumers have left pending for too long"),
    cmd("xclaim", -6, "5.0.0", "O(log(N))")
        .flags(&[F::WRITE, F::FAST])
        .acl(&[C::STREAM])
        .key_specs(&[key(1, &[K::RW, K::UPDATE])])
        .tips(&["nondeterministic_output"])
        .summary("Takes over pending entries by their ids"),
    cmd("xdel", -3, "5.0.0", "O(1)")
        .flags(&[F::WRITE, F::FAST])
        .acl(&[C::STREAM])
        .key_specs(&[key(1, &[K::RW, K::DELETE])])
        .summary("Deletes entries by their ids"),
    cmd("xgroup", -2, "5.0.0", "").summary("Container of the commands about consumer groups"),
    cmd("xgroup|create", -5, "5.0.0", "O(1)")
        .flags(&[F::WRITE, F::DENYOOM])
        .acl(&[C::STREAM])
        .key_specs(&[key(2, &[K::RW, K::INSERT])])
        .summary("Creates a consumer group"),
    cmd("xgroup|createconsumer", 5, "6.2.0", "O(1)")
        .flags(&[F::WRITE, F::DENYOOM])
        .acl(&[C::STREAM])
        .key_specs(&[key(2, &[K::RW, K::INSERT])])
        .summary("Creates a consumer in a group"),
    cmd("xgroup|delconsumer", 5, "5.0.0", "O(1)")
        .flags(&[F::WRITE])
        .acl(&[C::STREAM])
        .key_specs(&[key(2, &[K::RW, K::DELETE])])
        .summary("Deletes a consumer and its pending entries"),
    cmd("xgroup|destroy", 4, "5.0.0", "O(N)")
        .flags(&[F::WRITE])
        .acl(&[C::STREAM])
        .key_specs(&[key(2, &[K::RW, K::DELETE])])
        .summary("Deletes a consumer group"),
    cmd("xgroup|help", 2, "5.0.0", "O(1)")
        .flags(&[F::LOADING, F::STALE])
        .acl(&[C::STREAM])
        .summary("Lists the subcommands"),
    cmd("xgroup|setid", -5, "5.0.0", "O(1)")
        .flags(&[F::WRITE])
        .acl(&[C::STREAM])
        .key_specs(&[key(2, &[K::RW, K::UPDATE])])
        .summary("Sets the last entry that a group has been given"),
    cmd("xinfo", -2, "5.0.0", "").summary("Container of the commands that describe streams"),
    cmd("xinfo|consumers", 4, "5.0.0", "O(1)")
        .flags(&[F::READONLY])
        .acl(&[C::STREAM])
        .key_specs(&[key(2, &[K::RO, K::ACCESS])])
        .tips(&["nondeterministic_output"])
        .summary("Describes the consumers of a group"),
    cmd("xinfo|groups", 3, "5.0.0", "O(1)")
        .flags(&[F::READONLY])
        .acl(&[C::STREAM])
        .key_specs(&[key(2, &[K::RO, K::ACCESS])])
        .summary("Describes the consumer groups of a stream"),
    cmd("xinfo|help", 2, "5.0.0", "O(1)")
        .flags(&[F::LOADING, F::STALE])
        .acl(&[C::STREAM])
        .summary("Lists the subcommands"),
    cmd("xinfo|stream", -3, "5.0.0", "O(1)")
        .flags(&[F::READONLY])
        .acl(&[C::STREAM])
        .key_specs(&[key(2, &[K::RO, K::ACCESS])])
        .summary("Describes a stream"),
    cmd("xlen", 2, "5.0.0", "O(1)")
        .flags(&[F::READONLY, F::FAST])
        .acl(&[C::STREAM])
        .key_specs(&[key(1, &[K::RO])])
        .summary("Counts the entries of a stream"),
    cmd("xpending", -3, "5.0.0", "O(N)")
        .flags(&[F::READONLY])
        .acl(&[C::STREAM])
        .key_specs(&[key(1, &[K::RO, K::ACCESS])])
        .tips(&["nondeterministic_output"])
        .summary("Lists what a group was given and has not confirmed"),
    cmd("xrange", -4, "5.0.0", "O(N)")
        .flags(&[F::READONLY])
        .acl(&[C::STREAM])
        .key_specs(&[key(1, &[K::RO, K::ACCESS])])
        .summary("Reads the entries between two ids"),
    cmd("xread", -4, "5.0.0", "O(N)")
        .flags(&[F::READONLY, F::BLOCKING, F::MOVABLE_KEYS])
        .acl(&[C::STREAM])
        .key_specs(&[after("STREAMS", 1, -1, 2, &[K::RO, K::ACCESS])])
        .summary("Reads entries that come after given ids, waiting for new ones if asked"),
    cmd("xreadgroup", -7, "5.0.0", "O(M)")
        .flags(&[F::WRITE, F::BLOCKING, F::MOVABLE_KEYS])
        .acl(&[C::STREAM])
        .key_specs(&[after("STREAMS", 4, -1, 2, &[K::RO, K::ACCESS])])
        .summary("Reads new or pending entries as a consumer of a group, waiting if asked"),
    cmd("xrevrange", -4, "5.0.0", "O(N)")
        .flags(&[F::READONLY])
        .acl(&[C::STREAM])
        .key_specs(&[key(1, &[K::RO, K::ACCESS])])
        .summary("Reads the entries between two ids, newest first"),
    cmd("xsetid", -3, "5.0.0", "O(1)")
        .flags(&[F::WRITE, F::DENYOOM, F::FAST])
        .acl(&[C::STREAM])
        .key_specs(&[key(1, &[K::RW, K::UPDATE])])
        .summary("Sets the last id of a stream (internal)"),
    cmd("xtrim", -4, "5.0.0", "O(N)")
        .flags(&[F::WRITE])
        .acl(&[C::STREAM])
        .key_specs(&[key(1, &[K::RW, K::DELETE])])
        .tips(&["nondeterministic_output"])
        .summary("Deletes the oldest entries of a stream"),
];
