//! Rows of the string commands.

use crate::command::CommandSpec;
use crate::command::flags::{AclCategories as C, CommandFlags as F, KeyFlags as K};
use crate::command::row::{cmd, key, span};

pub(super) const ROWS: &[CommandSpec] = &[
    cmd("append", 3, "2.0.0", "O(1)")
        .flags(&[F::WRITE, F::DENYOOM, F::FAST])
        .acl(&[C::STRING])
        .key_specs(&[key(1, &[K::RW, K::INSERT])])
        .summary("Adds text to the end of a string, creating it when missing"),
    cmd("decr", 2, "1.0.0", "O(1)")
        .flags(&[F::WRITE, F::DENYOOM, F::FAST])
        .acl(&[C::STRING])
        .key_specs(&[key(1, &[K::RW, K::ACCESS, K::UPDATE])])
        .summary("Subtracts one from an integer"),
    cmd("decrby", 3, "1.0.0", "O(1)")
        .flags(&[F::WRITE, F::DENYOOM, F::FAST])
        .acl(&[C::STRING])
        .key_specs(&[key(1, &[K::RW, K::ACCESS, K::UPDATE])])
        .summary("Subtracts a number from an integer"),
    cmd("get", 2, "1.0.0", "O(1)")
        .flags(&[F::READONLY, F::FAST])
        .acl(&[C::STRING])
        .key_specs(&[key(1, &[K::RO, K::ACCESS])])
        .summary("Reads a string"),
    cmd("getdel", 2, "6.2.0", "O(1)")
        .flags(&[F::WRITE, F::FAST])
        .acl(&[C::STRING])
        .key_specs(&[key(1, &[K::RW, K::ACCESS, K::DELETE])])
        .summary("Reads a string and deletes it"),
    cmd("getex", -2, "6.2.0", "O(1)")
        .flags(&[F::WRITE, F::FAST])
        .acl(&[C::STRING])
        .key_specs(&[key(1, &[K::RW, K::ACCESS, K::UPDATE])])
        .summary("Reads a string and sets or removes its time to live"),
    cmd("getrange", 4, "2.4.0", "O(N)")
        .flags(&[F::READONLY])
        .acl(&[C::STRING])
        .key_specs(&[key(1, &[K::RO, K::ACCESS])])
        .summary("Reads a part of a string by byte offsets"),
    cmd("getset", 3, "1.0.0", "O(1)")
        .flags(&[F::WRITE, F::DENYOOM, F::FAST])
        .acl(&[C::STRING])
        .key_specs(&[key(1, &[K::RW, K::ACCESS, K::UPDATE])])
        .deprecated("6.2.0", "SET with GET")
        .summary("Writes a string and answers with the one before"),
    cmd("incr", 2, "1.0.0", "O(1)")
        .flags(&[F::WRITE, F::DENYOOM, F::FAST])
        .acl(&[C::STRING])
        .key_specs(&[key(1, &[K::RW, K::ACCESS, K::UPDATE])])
        .summary("Adds one to an integer"),
    cmd("incrby", 3, "1.0.0", "O(1)")
        .flags(&[F::WRITE, F::DENYOOM, F::FAST])
        .acl(&[C::STRING])
        .key_specs(&[key(1, &[K::RW, K::ACCESS, K::UPDATE])])
        .summary("Adds a number to an integer"),
    cmd("incrbyfloat", 3, "2.6.0", "O(1)")
        .flags(&[F::WRITE, F::DENYOOM, F::FAST])
        .acl(&[C::STRING])
        .key_specs(&[key(1, &[K::RW, K::ACCESS, K::UPDATE])])
        .summary("Adds a floating point number to a number"),
    cmd("lcs", -3, "7.0.0", "O(N*M)")
        .flags(&[F::READONLY])
        .acl(&[C::STRING])
        .key_specs(&[span(1, 1, 1, &[K::RO, K::ACCESS])])
        .summary("Finds the longest common subsequence of two strings"),
    cmd("mget", -2, "1.0.0", "O(N)")
        .flags(&[F::READONLY, F::FAST])
        .acl(&[C::STRING])
        .key_specs(&[span(1, -1, 1, &[K::RO, K::ACCESS])])
        .tips(&["request_policy:multi_shard"])
        .summary("Reads several strings at once"),
    cmd("mset", -3, "1.0.1", "O(N)")
        .flags(&[F::WRITE, F::DENYOOM])
        .acl(&[C::STRING])
        .key_specs(&[span(1, -1, 2, &[K::OW, K::UPDATE])])
        .tips(&["request_policy:multi_shard", "response_policy:all_succeeded"])
        .summary("Writes several strings in one step"),
    cmd("msetnx", -3, "1.0.1", "O(N)")
        .flags(&[F::WRITE, F::DENYOOM])
        .acl(&[C::STRING])
        .key_specs(&[span(1, -1, 2, &[K::OW, K::INSERT])])
        .tips(&["request_policy:multi_shard", "response_policy:agg_min"])
        .summary("Writes several strings in one step if none of the keys exists"),
    cmd("psetex", 4, "2.6.0", "O(1)")
        .flags(&[F::WRITE, F::DENYOOM])
        .acl(&[C::STRING])
        .key_specs(&[key(1, &[K::OW, K::UPDATE])])
        .summary("Writes a string with a time to live in milliseconds"),
    cmd("set", -3, "1.0.0", "O(1)")
        .flags(&[F::WRITE, F::DENYOOM])
        .acl(&[C::STRING])
        .key_specs(&[key(1, &[K::RW, K::ACCESS, K::UPDATE, K::VARIABLE_FLAGS])])
        .summary("Writes a string, on conditions and with a time to live if asked"),
    cmd("setex", 4, "2.0.0", "O(1)")
        .flags(&[F::WRITE, F::DENYOOM])
        .acl(&[C::STRING])
        .key_specs(&[key(1, &[K::OW, K::UPDATE])])
        .summary("Writes a string with a time to live in seconds"),
    cmd("setnx", 3, "1.0.0", "O(1)")
        .flags(&[F::WRITE, F::DENYOOM, F::FAST])
        .acl(&[C::STRING])
        .key_specs(&[key(1, &[K::OW, K::INSERT])])
        .summary("Writes a string if the key does not exist"),
    cmd("setrange", 4, "2.2.0", "O(1)")
        .flags(&[F::WRITE, F::DENYOOM])
        .acl(&[C::STRING])
        .key_specs(&[key(1, &[K::RW, K::UPDATE])])
        .summary("Overwrites a part of a string from a byte offset on, padding with zeros"),
    cmd("strlen", 2, "2.2.0", "O(1)")
        .flags(&[F::READONLY, F::FAST])
        .acl(&[C::STRING])
        .key_specs(&[key(1, &[K::RO])])
        .summary("Measures a string in bytes"),
    cmd("substr", 4, "1.0.0", "O(N)")
        .flags(&[F::READONLY])
        .acl(&[C::STRING])
        .key_specs(&[key(1, &[K::RO, K::ACCESS])])
        .deprecated("2.0.0", "GETRANGE")
        .summary("Old name of GETRANGE"),
];
