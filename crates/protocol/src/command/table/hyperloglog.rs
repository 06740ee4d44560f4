//! Rows of the `HyperLogLog` commands.

use crate::command::CommandSpec;
use crate::command::flags::{AclCategories as C, CommandFlags as F, KeyFlags as K};
use crate::command::row::{cmd, key, span};

pub(super) const ROWS: &[CommandSpec] = &[
    cmd("pfadd", -2, "2.8.9", "O(1)")
        .flags(&[F::WRITE, F::DENYOOM, F::FAST])
        .acl(&[C::HYPERLOGLOG])
        .key_specs(&[key(1, &[K::RW, K::INSERT])])
        .summary("Adds elements to a HyperLogLog"),
    cmd("pfcount", -2, "2.8.9", "O(N)")
        .flags(&[F::READONLY, F::MAY_REPLICATE])
        .acl(&[C::HYPERLOGLOG])
        .key_specs(&[span(1, -1, 1, &[K::RW, K::ACCESS])])
        .summary("Estimates how many distinct elements were added"),
    cmd("pfdebug", 3, "2.8.9", "O(N)")
        .flags(&[F::WRITE, F::DENYOOM, F::ADMIN, F::INTERNAL])
        .acl(&[C::HYPERLOGLOG])
        .key_specs(&[key(2, &[K::RW, K::ACCESS])])
        .summary("Looks inside a HyperLogLog (internal)"),
    cmd("pfmerge", -2, "2.8.9", "O(N)")
        .flags(&[F::WRITE, F::DENYOOM])
        .acl(&[C::HYPERLOGLOG])
        .key_specs(&[key(1, &[K::RW, K::ACCESS, K::INSERT]), span(2, -1, 1, &[K::RO, K::ACCESS])])
        .summary("Merges HyperLogLogs into one"),
    cmd("pfselftest", 1, "2.8.9", "O(N)")
        .flags(&[F::ADMIN, F::INTERNAL])
        .acl(&[C::HYPERLOGLOG])
        .summary("Tests the HyperLogLog implementation (internal)"),
];
