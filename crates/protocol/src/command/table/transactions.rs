//! Rows of the transaction commands.

use crate::command::CommandSpec;
use crate::command::flags::{AclCategories as C, CommandFlags as F, KeyFlags as K};
use crate::command::row::{cmd, span};

pub(super) const ROWS: &[CommandSpec] = &[
    cmd("discard", 1, "2.0.0", "O(N)")
        .flags(&[F::NOSCRIPT, F::LOADING, F::STALE, F::FAST, F::ALLOW_BUSY])
        .acl(&[C::TRANSACTION])
        .summary("Drops the queued commands and the watches"),
    cmd("exec", 1, "1.2.0", "O(N)")
        .flags(&[F::NOSCRIPT, F::LOADING, F::STALE, F::SKIP_SLOWLOG])
        .acl(&[C::TRANSACTION])
        .summary("Runs the queued commands as one step"),
    cmd("multi", 1, "1.2.0", "O(1)")
        .flags(&[F::NOSCRIPT, F::LOADING, F::STALE, F::FAST, F::ALLOW_BUSY])
        .acl(&[C::TRANSACTION])
        .summary("Starts queueing commands"),
    cmd("unwatch", 1, "2.2.0", "O(1)")
        .flags(&[F::NOSCRIPT, F::LOADING, F::STALE, F::FAST, F::ALLOW_BUSY])
        .acl(&[C::TRANSACTION])
        .summary("Forgets the watched keys"),
    cmd("watch", -2, "2.2.0", "O(N)")
        .flags(&[F::NOSCRIPT, F::LOADING, F::STALE, F::FAST, F::ALLOW_BUSY])
        .acl(&[C::TRANSACTION])
        .key_specs(&[span(1, -1, 1, &[K::RO])])
        .summary("Makes the next EXEC fail if one of the keys changes before it"),
];
