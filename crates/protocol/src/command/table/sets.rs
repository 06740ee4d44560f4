//! Rows of the set commands.

use crate::command::CommandSpec;
use crate::command::flags::{AclCategories as C, CommandFlags as F, KeyFlags as K};
use crate::command::row::{cmd, counted, key, span};

pub(super) const ROWS: &[CommandSpec] = &[
    cmd("sadd", -3, "1.0.0", "O(N)")
        .flags(&[F::WRITE, F::DENYOOM, F::FAST])
        .acl(&[C::SET])
        .key_specs(&[key(1, &[K::RW, K::INSERT])])
        .summary("Adds members to a set, creating it when missing"),
    cmd("scard", 2, "1.0.0", "O(1)")
        .flags(&[F::READONLY, F::FAST])
        .acl(&[C::SET])
        .key_specs(&[key(1, &[K::RO])])
        .summary("Counts the members of a set"),
    cmd("sdiff", -2, "1.0.0", "O(N)")
        .flags(&[F::READONLY])
        .acl(&[C::SET])
        .key_specs(&[span(1, -1, 1, &[K::RO, K::ACCESS])])
        .tips(&["nondeterministic_output_order"])
        .summary("Lists the members of the first set that are in none of the others"),
    cmd("sdiffstore", -3, "1.0.0", "O(N)")
        .flags(&[F::WRITE, F::DENYOOM])
        .acl(&[C::SET])
        .key_specs(&[key(1, &[K::OW, K::UPDATE]), span(2, -1, 1, &[K::RO, K::ACCESS])])
        .summary("Stores the members of the first set that are in none of the others"),
    cmd("sinter", -2, "1.0.0", "O(N*M)")
        .flags(&[F::READONLY])
        .acl(&[C::SET])
        .key_specs(&[span(1, -1, 1, &[K::RO, K::ACCESS])])
        .tips(&["nondeterministic_output_order"])
        .summary("Lists the members that all given sets share"),
    cmd("sintercard", -3, "7.0.0", "O(N*M)")
        .flags(&[F::READONLY, F::MOVABLE_KEYS])
        .acl(&[C::SET])
        .key_specs(&[counted(1, &[K::RO, K::ACCESS])])
        .summary("Counts the members that all given sets share"),
    cmd("sinterstore", -3, "1.0.0", "O(N*M)")
        .flags(&[F::WRITE, F::DENYOOM])
        .acl(&[C::SET])
        .key_specs(&[key(1, &[K::RW, K::UPDATE]), span(2, -1, 1, &[K::RO, K::ACCESS])])
        .summary("Stores the members that all given sets share"),
    cmd("sismember", 3, "1.0.0", "O(1)")
        .flags(&[F::READONLY, F::FAST])
        .acl(&[C::SET])
        .key_specs(&[key(1, &[K::RO])])
        .summary("Tells whether a value is in a set"),
    cmd("smembers", 2, "1.0.0", "O(N)")
        .flags(&[F::READONLY])
        .acl(&[C::SET])
        .key_specs(&[key(1, &[K::RO, K::ACCESS])])
        .tips(&["nondeterministic_output_order"])
        .summary("Lists the members of a set"),
    cmd("smismember", -3, "6.2.0", "O(N)")
        .flags(&[F::READONLY, F::FAST])
        .acl(&[C::SET])
        .key_specs(&[key(1, &[K::RO, K::ACCESS])])
        .summary("Tells which of several values are in a set"),
    cmd("smove", 4, "1.0.0", "O(1)")
        .flags(&[F::WRITE, F::FAST])
        .acl(&[C::SET])
        .key_specs(&[key(1, &[K::RW, K::ACCESS, K::DELETE]), key(2, &[K::RW, K::INSERT])])
        .summary("Moves a member from one set to another"),
    cmd("spop", -2, "1.0.0", "O(N)")
        .flags(&[F::WRITE, F::FAST])
        .acl(&[C::SET])
        .key_specs(&[key(1, &[K::RW, K::ACCESS, K::DELETE])])
        .tips(&["nondeterministic_output"])
        .summary("Removes members at random"),
    cmd("srandmember", -2, "1.0.0", "O(N)")
        .flags(&[F::READONLY])
        .acl(&[C::SET])
        .key_specs(&[key(1, &[K::RO, K::ACCESS])])
        .tips(&["nondeterministic_output"])
        .summary("Picks members at random"),
    cmd("srem", -3, "1.0.0", "O(N)")
        .flags(&[F::WRITE, F::FAST])
        .acl(&[C::SET])
        .key_specs(&[key(1, &[K::RW, K::DELETE])])
        .summary("Removes members"),
    cmd("sscan", -3, "2.8.0", "O(1)")
        .flags(&[F::READONLY])
        .acl(&[C::SET])
        .key_specs(&[key(1, &[K::RO, K::ACCESS])])
        .tips(&["nondeterministic_output"])
        .summary("Walks through the members of a set in steps"),
    cmd("sunion", -2, "1.0.0", "O(N)")
        .flags(&[F::READONLY])
        .acl(&[C::SET])
        .key_specs(&[span(1, -1, 1, &[K::RO, K::ACCESS])])
        .tips(&["nondeterministic_output_order"])
        .summary("Lists the members of any of the given sets"),
    cmd("sunionstore", -3, "1.0.0", "O(N)")
        .flags(&[F::WRITE, F::DENYOOM])
        .acl(&[C::SET])
        .key_specs(&[key(1, &[K::OW, K::UPDATE]), span(2, -1, 1, &[K::RO, K::ACCESS])])
        .summary("Stores the members of any of the given sets"),
];
