//! Rows of the commands on bits of strings.

use crate::command::CommandSpec;
use crate::command::flags::{AclCategories as C, CommandFlags as F, KeyFlags as K};
use crate::command::row::{cmd, key, span};

pub(super) const ROWS: &[CommandSpec] = &[
    cmd("bitcount", -2, "2.6.0", "O(N)")
        .flags(&[F::READONLY])
        .acl(&[C::BITMAP])
        .key_specs(&[key(1, &[K::RO, K::ACCESS])])
        .summary("Counts the bits that are set in a string"),
    cmd("bitfield", -2, "3.2.0", "O(N)")
        .flags(&[F::WRITE, F::DENYOOM])
        .acl(&[C::BITMAP])
        .key_specs(&[key(1, &[K::RW, K::ACCESS, K::UPDATE, K::VARIABLE_FLAGS])])
        .summary("Reads, writes and increments integers of any width inside a string"),
    cmd("bitfield_ro", -2, "6.0.0", "O(N)")
        .flags(&[F::READONLY, F::FAST])
        .acl(&[C::BITMAP])
        .key_specs(&[key(1, &[K::RO, K::ACCESS])])
        .summary("Reads integers of any width inside a string"),
    cmd("bitop", -4, "2.6.0", "O(N)")
        .flags(&[F::WRITE, F::DENYOOM])
        .acl(&[C::BITMAP])
        .key_specs(&[key(2, &[K::OW, K::UPDATE]), span(3, -1, 1, &[K::RO, K::ACCESS])])
        .summary("Combines strings bit by bit and stores the result"),
    cmd("bitpos", -3, "2.8.7", "O(N)")
        .flags(&[F::READONLY])
        .acl(&[C::BITMAP])
        .key_specs(&[key(1, &[K::RO, K::ACCESS])])
        .summary("Finds the first bit that is set or clear in a string"),
    cmd("getbit", 3, "2.2.0", "O(1)")
        .flags(&[F::READONLY, F::FAST])
        .acl(&[C::BITMAP])
        .key_specs(&[key(1, &[K::RO, K::ACCESS])])
        .summary("Reads one bit of a string"),
    cmd("setbit", 4, "2.2.0", "O(1)")
        .flags(&[F::WRITE, F::DENYOOM])
        .acl(&[C::BITMAP])
        .key_specs(&[key(1, &[K::RW, K::ACCESS, K::UPDATE])])
        .summary("Sets or clears one bit of a string"),
];
