//! Rows of the hash commands.

use crate::command::CommandSpec;
use crate::command::flags::{AclCategories as C, CommandFlags as F, KeyFlags as K};
use crate::command::row::{cmd, key};

pub(super) const ROWS: &[CommandSpec] = &[
    cmd("hdel", -3, "2.0.0", "O(N)")
        .flags(&[F::WRITE, F::FAST])
        .acl(&[C::HASH])
        .key_specs(&[key(1, &[K::RW, K::DELETE])])
        .summary("Deletes fields of a hash"),
    cmd("hexists", 3, "2.0.0", "O(1)")
        .flags(&[F::READONLY, F::FAST])
        .acl(&[C::HASH])
        .key_specs(&[key(1, &[K::RO])])
        .summary("Tells whether a hash has a field"),
    cmd("hget", 3, "2.0.0", "O(1)")
        .flags(&[F::READONLY, F::FAST])
        .acl(&[C::HASH])
        .key_specs(&[key(1, &[K::RO, K::ACCESS])])
        .summary("Reads a field of a hash"),
    cmd("hgetall", 2, "2.0.0", "O(N)")
        .flags(&[F::READONLY])
        .acl(&[C::HASH])
        .key_specs(&[key(1, &[K::RO, K::ACCESS])])
        .tips(&["nondeterministic_output_order"])
        .summary("Reads all fields of a hash with their values"),
    cmd("hincrby", 4, "2.0.0", "O(1)")
        .flags(&[F::WRITE, F::DENYOOM, F::FAST])
        .acl(&[C::HASH])
        .key_specs(&[key(1, &[K::RW, K::ACCESS, K::UPDATE])])
        .summary("Adds a number to an integer field"),
    cmd("hincrbyfloat", 4, "2.6.0", "O(1)")
        .flags(&[F::WRITE, F::DENYOOM, F::FAST])
        .acl(&[C::HASH])
        .key_specs(&[key(1, &[K::RW, K::ACCESS, K::UPDATE])])
        .summary("Adds a floating point number to a field"),
    cmd("hkeys", 2, "2.0.0", "O(N)")
        .flags(&[F::READONLY])
        .acl(&[C::HASH])
        .key_specs(&[key(1, &[K::RO, K::ACCESS])])
        .tips(&["nondeterministic_output_order"])
        .summary("Lists the fields of a hash"),
    cmd("hlen", 2, "2.0.0", "O(1)")
        .flags(&[F::READONLY, F::FAST])
        .acl(&[C::HASH])
        .key_specs(&[key(1, &[K::RO])])
        .summary("Counts the fields of a hash"),
    cmd("hmget", -3, "2.0.0", "O(N)")
        .flags(&[F::READONLY, F::FAST])
        .acl(&[C::HASH])
        .key_specs(&[key(1, &[K::RO, K::ACCESS])])
        .summary("Reads several fields of a hash"),
    cmd("hmset", -4, "2.0.0", "O(N)")
        .flags(&[F::WRITE, F::DENYOOM, F::FAST])
        .acl(&[C::HASH])
        .key_specs(&[key(1, &[K::RW, K::UPDATE])])
        .deprecated("4.0.0", "HSET")
        .summary("Writes several fields of a hash; HSET does the same"),
    cmd("hrandfield", -2, "6.2.0", "O(N)")
        .flags(&[F::READONLY])
        .acl(&[C::HASH])
        .key_specs(&[key(1, &[K::RO, K::ACCESS])])
        .tips(&["nondeterministic_output"])
        .summary("Picks fields at random"),
    cmd("hscan", -3, "2.8.0", "O(1)")
        .flags(&[F::READONLY])
        .acl(&[C::HASH])
        .key_specs(&[key(1, &[K::RO, K::ACCESS])])
        .tips(&["nondeterministic_output"])
        .summary("Walks through the fields and values of a hash in steps"),
    cmd("hset", -4, "2.0.0", "O(N)")
        .flags(&[F::WRITE, F::DENYOOM, F::FAST])
        .acl(&[C::HASH])
        .key_specs(&[key(1, &[K::RW, K::UPDATE])])
        .summary("Writes fields of a hash, creating it when missing"),
    cmd("hsetnx", 4, "2.0.0", "O(1)")
        .flags(&[F::WRITE, F::DENYOOM, F::FAST])
        .acl(&[C::HASH])
        .key_specs(&[key(1, &[K::RW, K::INSERT])])
        .summary("Writes a field if the hash does not have it"),
    cmd("hstrlen", 3, "3.2.0", "O(1)")
        .flags(&[F::READONLY, F::FAST])
        .acl(&[C::HASH])
        .key_specs(&[key(1, &[K::RO])])
        .summary("Measures the value of a field in bytes"),
    cmd("hvals", 2, "2.0.0", "O(N)")
        .flags(&[F::READONLY])
        .acl(&[C::HASH])
        .key_specs(&[key(1, &[K::RO, K::ACCESS])])
        .tips(&["nondeterministic_output_order"])
        .summary("Lists the values of a hash"),
];
