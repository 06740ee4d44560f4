//! Rows of the commands on keys of any type.

use crate::command::CommandSpec;
use crate::command::flags::{AclCategories as C, CommandFlags as F, KeyFlags as K};
use crate::command::row::{after, cmd, key, span, unknown};

pub(super) const ROWS: &[CommandSpec] = &[
    cmd("copy", -3, "6.2.0", "O(N)")
        .flags(&[F::WRITE, F::DENYOOM])
        .acl(&[C::KEYSPACE])
        .key_specs(&[key(1, &[K::RO, K::ACCESS]), key(2, &[K::OW, K::UPDATE])])
        .summary("Copies a value to another key"),
    cmd("del", -2, "1.0.0", "O(N)")
        .flags(&[F::WRITE])
        .acl(&[C::KEYSPACE])
        .key_specs(&[span(1, -1, 1, &[K::RM, K::DELETE])])
        .tips(&["request_policy:multi_shard", "response_policy:agg_sum"])
        .summary("Deletes keys"),
    cmd("dump", 2, "2.6.0", "O(N)")
        .flags(&[F::READONLY])
        .acl(&[C::KEYSPACE])
        .key_specs(&[key(1, &[K::RO, K::ACCESS])])
        .tips(&["nondeterministic_output"])
        .summary("Serializes the value of a key for RESTORE"),
    cmd("exists", -2, "1.0.0", "O(N)")
        .flags(&[F::READONLY, F::FAST])
        .acl(&[C::KEYSPACE])
        .key_specs(&[span(1, -1, 1, &[K::RO])])
        .tips(&["request_policy:multi_shard", "response_policy:agg_sum"])
        .summary("Counts how many of the given keys exist"),
    cmd("expire", -3, "1.0.0", "O(1)")
        .flags(&[F::WRITE, F::FAST])
        .acl(&[C::KEYSPACE])
        .key_specs(&[key(1, &[K::RW, K::UPDATE])])
        .summary("Sets a key's time to live in seconds"),
    cmd("expireat", -3, "1.2.0", "O(1)")
        .flags(&[F::WRITE, F::FAST])
        .acl(&[C::KEYSPACE])
        .key_specs(&[key(1, &[K::RW, K::UPDATE])])
        .summary("Sets the Unix second at which a key expires"),
    cmd("expiretime", 2, "7.0.0", "O(1)")
        .flags(&[F::READONLY, F::FAST])
        .acl(&[C::KEYSPACE])
        .key_specs(&[key(1, &[K::RO, K::ACCESS])])
        .summary("Tells the Unix second at which a key expires"),
    cmd("keys", 2, "1.0.0", "O(N)")
        .flags(&[F::READONLY])
        .acl(&[C::KEYSPACE, C::DANGEROUS])
        .tips(&["request_policy:all_shards", "nondeterministic_output_order"])
        .summary("Lists all keys that match a pattern"),
    cmd("migrate", -6, "2.6.0", "O(N)")
        .flags(&[F::WRITE, F::MOVABLE_KEYS])
        .acl(&[C::KEYSPACE, C::DANGEROUS])
        .key_specs(&[
            key(3, &[K::RW, K::ACCESS, K::DELETE]),
            after("KEYS", -2, -1, 0, &[K::RW, K::ACCESS, K::DELETE, K::INCOMPLETE]),
        ])
        .tips(&["nondeterministic_output"])
        .summary("Moves keys to another server"),
    cmd("move", 3, "1.0.0", "O(1)")
        .flags(&[F::WRITE, F::FAST])
        .acl(&[C::KEYSPACE])
        .key_specs(&[key(1, &[K::RW, K::ACCESS, K::UPDATE])])
        .summary("Moves a key to another database"),
    cmd("object", -2, "2.2.3", "").summary("Container of the commands that look inside a value"),
    cmd("object|encoding", 3, "2.2.3", "O(1)")
        .flags(&[F::READONLY])
        .acl(&[C::KEYSPACE])
        .key_specs(&[key(2, &[K::RO])])
        .tips(&["nondeterministic_output"])
        .summary("Tells how a value is stored"),
    cmd("object|freq", 3, "4.0.0", "O(1)")
        .flags(&[F::READONLY])
        .acl(&[C::KEYSPACE])
        .key_specs(&[key(2, &[K::RO])])
        .tips(&["nondeterministic_output"])
        .summary("Tells how often a key is used, on a logarithmic scale"),
    cmd("object|help", 2, "6.2.0", "O(1)")
        .flags(&[F::LOADING, F::STALE])
        .acl(&[C::KEYSPACE])
        .summary("Lists the subcommands"),
    cmd("object|idletime", 3, "2.2.3", "O(1)")
        .flags(&[F::READONLY])
        .acl(&[C::KEYSPACE])
        .key_specs(&[key(2, &[K::RO])])
        .tips(&["nondeterministic_output"])
        .summary("Tells for how many seconds a key has not been used"),
    cmd("object|refcount", 3, "2.2.3", "O(1)")
        .flags(&[F::READONLY])
        .acl(&[C::KEYSPACE])
        .key_specs(&[key(2, &[K::RO])])
        .tips(&["nondeterministic_output"])
        .summary("Counts the references to a value"),
    cmd("persist", 2, "2.2.0", "O(1)")
        .flags(&[F::WRITE, F::FAST])
        .acl(&[C::KEYSPACE])
        .key_specs(&[key(1, &[K::RW, K::UPDATE])])
        .summary("Removes a key's time to live"),
    cmd("pexpire", -3, "2.6.0", "O(1)")
        .flags(&[F::WRITE, F::FAST])
        .acl(&[C::KEYSPACE])
        .key_specs(&[key(1, &[K::RW, K::UPDATE])])
        .summary("Sets a key's time to live in milliseconds"),
    cmd("pexpireat", -3, "2.6.0", "O(1)")
        .flags(&[F::WRITE, F::FAST])
        .acl(&[C::KEYSPACE])
        .key_specs(&[key(1, &[K::RW, K::UPDATE])])
        .summary("Sets the Unix millisecond at which a key expires"),
    cmd("pexpiretime", 2, "7.0.0", "O(1)")
        .flags(&[F::READONLY, F::FAST])
        .acl(&[C::KEYSPACE])
        .key_specs(&[key(1, &[K::RO, K::ACCESS])])
        .summary("Tells the Unix millisecond at which a key expires"),
    cmd("pttl", 2, "2.6.0", "O(1)")
        .flags(&[F::READONLY, F::FAST])
        .acl(&[C::KEYSPACE])
        .key_specs(&[key(1, &[K::RO, K::ACCESS])])
        .tips(&["nondeterministic_output"])
        .summary("Tells a key's remaining time to live in milliseconds"),
    cmd("randomkey", 1, "1.0.0", "O(1)")
        .flags(&[F::READONLY])
        .acl(&[C::KEYSPACE])
        .tips(&["request_policy:all_shards", "nondeterministic_output"])
        .summary("Picks a key at random"),
    cmd("rename", 3, "1.0.0", "O(1)")
        .flags(&[F::WRITE])
        .acl(&[C::KEYSPACE])
        .key_specs(&[key(1, &[K::RW, K::ACCESS, K::DELETE]), key(2, &[K::OW, K::UPDATE])])
        .summary("Renames a key, replacing what has the new name"),
    cmd("renamenx", 3, "1.0.0", "O(1)")
        .flags(&[F::WRITE, F::FAST])
        .acl(&[C::KEYSPACE])
        .key_specs(&[key(1, &[K::RW, K::ACCESS, K::DELETE]), key(2, &[K::OW, K::INSERT])])
        .summary("Renames a key if the new name is free"),
    cmd("restore", -4, "2.6.0", "O(N)")
        .flags(&[F::WRITE, F::DENYOOM])
        .acl(&[C::KEYSPACE, C::DANGEROUS])
        .key_specs(&[key(1, &[K::OW, K::UPDATE])])
        .summary("Creates a key from what DUMP serialized"),
    cmd("scan", -2, "2.8.0", "O(1)")
        .flags(&[F::READONLY])
        .acl(&[C::KEYSPACE])
        .tips(&["nondeterministic_output", "request_policy:special"])
        .summary("Walks through the keys of a database in steps"),
    cmd("sort", -2, "1.0.0", "O(N+M*log(M))")
        .flags(&[F::WRITE, F::DENYOOM, F::MOVABLE_KEYS])
        .acl(&[C::SET, C::SORTED_SET, C::LIST, C::DANGEROUS])
        .key_specs(&[key(1, &[K::RO, K::ACCESS]), unknown(&[K::RO, K::ACCESS]), unknown(&[K::OW, K::UPDATE])])
        .summary("Sorts a list, set or sorted set and answers with or stores the result"),
    cmd("sort_ro", -2, "7.0.0", "O(N+M*log(M))")
        .flags(&[F::READONLY, F::MOVABLE_KEYS])
        .acl(&[C::SET, C::SORTED_SET, C::LIST, C::DANGEROUS])
        .key_specs(&[key(1, &[K::RO, K::ACCESS]), unknown(&[K::RO, K::ACCESS])])
        .summary("Sorts a list, set or sorted set and answers with the result"),
    cmd("touch", -2, "3.2.1", "O(N)")
        .flags(&[F::READONLY, F::FAST])
        .acl(&[C::KEYSPACE])
        .key_specs(&[span(1, -1, 1, &[K::RO])])
        .tips(&["request_policy:multi_shard", "response_policy:agg_sum"])
        .summary("Marks keys as just used and counts those that exist"),
    cmd("ttl", 2, "1.0.0", "O(1)")
        .flags(&[F::READONLY, F::FAST])
        .acl(&[C::KEYSPACE])
        .key_specs(&[key(1, &[K::RO, K::ACCESS])])
        .tips(&["nondeterministic_output"])
        .summary("Tells a key's remaining time to live in seconds"),
    cmd("type", 2, "1.0.0", "O(1)")
        .flags(&[F::READONLY, F::FAST])
        .acl(&[C::KEYSPACE])
        .key_specs(&[key(1, &[K::RO])])
        .summary("Tells the type of a value"),
    cmd("unlink", -2, "4.0.0", "O(1)")
        .flags(&[F::WRITE, F::FAST])
        .acl(&[C::KEYSPACE])
        .key_specs(&[span(1, -1, 1, &[K::RM, K::DELETE])])
        .tips(&["request_policy:multi_shard", "response_policy:agg_sum"])
        .summary("Deletes keys and frees their memory in the background"),
    cmd("wait", 3, "3.0.0", "O(1)")
        .flags(&[F::NOSCRIPT])
        .acl(&[C::CONNECTION])
        .tips(&["request_policy:all_shards", "response_policy:agg_min"])
        .summary("Waits until replicas have this connection's writes"),
];
