//! Rows of the publish and subscribe commands.

use crate::command::CommandSpec;
use crate::command::flags::{CommandFlags as F, KeyFlags as K};
use crate::command::row::{cmd, key, span};

pub(super) const ROWS: &[CommandSpec] = &[
    cmd("psubscribe", -2, "2.0.0", "O(N)")
        .flags(&[F::PUBSUB, F::NOSCRIPT, F::LOADING, F::STALE])
        .summary("Listens to the channels that match patterns"),
    cmd("publish", 3, "2.0.0", "O(N+M)")
        .flags(&[F::PUBSUB, F::LOADING, F::STALE, F::FAST, F::MAY_REPLICATE])
        .summary("Sends a message to a channel"),
    cmd("pubsub", -2, "2.8.0", "").summary("Container of the commands about channels"),
    cmd("pubsub|channels", -2, "2.8.0", "O(N)")
        .flags(&[F::PUBSUB, F::LOADING, F::STALE])
        .summary("Names the channels that have subscribers"),
    cmd("pubsub|help", 2, "6.2.0", "O(1)").flags(&[F::LOADING, F::STALE]).summary("Lists the subcommands"),
    cmd("pubsub|numpat", 2, "2.8.0", "O(1)")
        .flags(&[F::PUBSUB, F::LOADING, F::STALE])
        .summary("Counts the patterns that have subscribers"),
    cmd("pubsub|numsub", -2, "2.8.0", "O(N)")
        .flags(&[F::PUBSUB, F::LOADING, F::STALE])
        .summary("Counts the subscribers of channels"),
    cmd("pubsub|shardchannels", -2, "7.0.0", "O(N)")
        .flags(&[F::PUBSUB, F::LOADING, F::STALE])
        .summary("Names the shard channels that have subscribers"),
    cmd("pubsub|shardnumsub", -2, "7.0.0", "O(N)")
        .flags(&[F::PUBSUB, F::LOADING, F::STALE])
        .summary("Counts the subscribers of shard channels"),
    cmd("punsubscribe", -1, "2.0.0", "O(N+M)")
        .flags(&[F::PUBSUB, F::NOSCRIPT, F::LOADING, F::STALE])
        .summary("Stops listening to patterns"),
    cmd("spublish", 3, "7.0.0", "O(N)")
        .flags(&[F::PUBSUB, F::LOADING, F::STALE, F::FAST, F::MAY_REPLICATE])
        .key_specs(&[key(1, &[K::NOT_KEY])])
        .summary("Sends a message to a shard channel"),
    cmd("ssubscribe", -2, "7.0.0", "O(N)")
        .flags(&[F::PUBSUB, F::NOSCRIPT, F::LOADING, F::STALE])
        .key_specs(&[span(1, -1, 1, &[K::NOT_KEY])])
        .summary("Listens to shard channels"),
    cmd("subscribe", -2, "2.0.0", "O(N)")
        .flags(&[F::PUBSUB, F::NOSCRIPT, F::LOADING, F::STALE])
        .summary("Listens to channels"),
    cmd("sunsubscribe", -1, "7.0.0", "O(N)")
        .flags(&[F::PUBSUB, F::NOSCRIPT, F::LOADING, F::STALE])
        .key_specs(&[span(1, -1, 1, &[K::NOT_KEY])])
        .summary("Stops listening to shard channels"),
    cmd("unsubscribe", -1, "2.0.0", "O(N)")
        .flags(&[F::PUBSUB, F::NOSCRIPT, F::LOADING, F::STALE])
        .summary("Stops listening to channels"),
];
