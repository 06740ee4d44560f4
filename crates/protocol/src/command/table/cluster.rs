//! Rows of the cluster commands.

use crate::command::CommandSpec;
use crate::command::flags::{AclCategories as C, CommandFlags as F};
use crate::command::row::cmd;

pub(super) const ROWS: &[CommandSpec] = &[
    cmd("asking", 1, "3.0.0", "O(1)")
        .flags(&[F::FAST])
        .acl(&[C::CONNECTION])
        .summary("Lets the next command use a slot that is being imported"),
    cmd("cluster", -2, "3.0.0", "").summary("Container of the commands about the cluster"),
    cmd("cluster|addslots", -3, "3.0.0", "O(N)")
        .flags(&[F::ADMIN, F::STALE, F::NO_ASYNC_LOADING])
        .summary("Gives hash slots to this node"),
    cmd("cluster|addslotsrange", -4, "7.0.0", "O(N)")
        .flags(&[F::ADMIN, F::STALE, F::NO_ASYNC_LOADING])
        .summary("Gives ranges of hash slots to this node"),
    cmd("cluster|bumpepoch", 2, "3.0.0", "O(1)")
        .flags(&[F::ADMIN, F::STALE, F::NO_ASYNC_LOADING])
        .tips(&["nondeterministic_output"])
        .summary("Raises the cluster's configuration epoch"),
    cmd("cluster|count-failure-reports", 3, "3.0.0", "O(N)")
        .flags(&[F::ADMIN, F::STALE])
        .tips(&["nondeterministic_output"])
        .summary("Counts the nodes that report a node as failing"),
    cmd("cluster|countkeysinslot", 3, "3.0.0", "O(1)")
        .flags(&[F::STALE])
        .summary("Counts the keys of a hash slot on this node"),
    cmd("cluster|delslots", -3, "3.0.0", "O(N)")
        .flags(&[F::ADMIN, F::STALE, F::NO_ASYNC_LOADING])
        .summary("Forgets who owns hash slots"),
    cmd("cluster|delslotsrange", -4, "7.0.0", "O(N)")
        .flags(&[F::ADMIN, F::STALE, F::NO_ASYNC_LOADING])
        .summary("Forgets who owns ranges of hash slots"),
    cmd("cluster|failover", -2, "3.0.0", "O(1)")
        .flags(&[F::ADMIN, F::STALE, F::NO_ASYNC_LOADING])
        .summary("Makes a replica take its primary's place"),
    cmd("cluster|flushslots", 2, "3.0.0", "O(1)")
        .flags(&[F::ADMIN, F::STALE, F::NO_ASYNC_LOADING])
        .summary("Takes all hash slots from this node"),
    cmd("cluster|forget", 3, "3.0.0", "O(1)")
        .flags(&[F::ADMIN, F::STALE, F::NO_ASYNC_LOADING])
        .summary("Removes a node from the node table"),
    cmd("cluster|getkeysinslot", 4, "3.0.0", "O(N)")
        .flags(&[F::STALE])
        .tips(&["nondeterministic_output"])
        .summary("Lists keys of a hash slot on this node"),
    cmd("cluster|help", 2, "5.0.0", "O(1)").flags(&[F::LOADING, F::STALE]).summary("Lists the subcommands"),
    cmd("cluster|info", 2, "3.0.0", "O(1)")
        .flags(&[F::STALE])
        .tips(&["nondeterministic_output"])
        .summary("Reports the cluster's state as this node sees it"),
    cmd("cluster|keyslot", 3, "3.0.0", "O(N)").flags(&[F::STALE]).summary("Computes the hash slot of a key"),
    cmd("cluster|links", 2, "7.0.0", "O(N)")
        .flags(&[F::STALE])
        .tips(&["nondeterministic_output"])
        .summary("Lists the connections to the other nodes"),
    cmd("cluster|meet", -4, "3.0.0", "O(1)")
        .flags(&[F::ADMIN, F::STALE, F::NO_ASYNC_LOADING])
        .summary("Introduces another node to the cluster"),
    cmd("cluster|myid", 2, "3.0.0", "O(1)").flags(&[F::STALE]).summary("Tells this node's id"),
    cmd("cluster|nodes", 2, "3.0.0", "O(N)")
        .flags(&[F::STALE])
        .tips(&["nondeterministic_output"])
        .summary("Shows the node table as text"),
    cmd("cluster|replicas", 3, "5.0.0", "O(N)")
        .flags(&[F::ADMIN, F::STALE])
        .tips(&["nondeterministic_output"])
        .summary("Lists the replicas of a primary"),
    cmd("cluster|replicate", 3, "3.0.0", "O(1)")
        .flags(&[F::ADMIN, F::STALE, F::NO_ASYNC_LOADING])
        .summary("Makes this node a replica of a primary"),
    cmd("cluster|reset", -2, "3.0.0", "O(N)")
        .flags(&[F::ADMIN, F::NOSCRIPT, F::STALE])
        .summary("Takes this node out of the cluster"),
    cmd("cluster|saveconfig", 2, "3.0.0", "O(1)")
        .flags(&[F::ADMIN, F::STALE, F::NO_ASYNC_LOADING])
        .summary("Writes the cluster configuration to disk now"),
    cmd("cluster|set-config-epoch", 3, "3.0.0", "O(1)")
        .flags(&[F::ADMIN, F::STALE, F::NO_ASYNC_LOADING])
        .summary("Sets the configuration epoch of a new node"),
    cmd("cluster|setslot", -4, "3.0.0", "O(1)")
        .flags(&[F::ADMIN, F::STALE, F::NO_ASYNC_LOADING])
        .summary("Assigns a hash slot or marks it as moving"),
    cmd("cluster|shards", 2, "7.0.0", "O(N)")
        .flags(&[F::STALE])
        .tips(&["nondeterministic_output"])
        .summary("Lists slots and nodes by shard"),
    cmd("cluster|slaves", 3, "3.0.0", "O(N)")
        .flags(&[F::ADMIN, F::STALE])
        .tips(&["nondeterministic_output"])
        .deprecated("5.0.0", "CLUSTER REPLICAS")
        .summary("Old name of CLUSTER REPLICAS"),
    cmd("cluster|slots", 2, "3.0.0", "O(N)")
        .flags(&[F::STALE])
        .tips(&["nondeterministic_output"])
        .deprecated("7.0.0", "CLUSTER SHARDS")
        .summary("Lists which nodes serve which ranges of slots"),
    cmd("readonly", 1, "3.0.0", "O(1)")
        .flags(&[F::LOADING, F::STALE, F::FAST])
        .acl(&[C::CONNECTION])
        .summary("Allows reads from a replica on this connection"),
    cmd("readwrite", 1, "3.0.0", "O(1)")
        .flags(&[F::LOADING, F::STALE, F::FAST])
        .acl(&[C::CONNECTION])
        .summary("Forbids reads from a replica on this connection again"),
];
