//! Rows of the commands about the server itself.

use crate::command::CommandSpec;
use crate::command::flags::{AclCategories as C, CommandFlags as F, KeyFlags as K};
use crate::command::row::{cmd, key};

pub(super) const ROWS: &[CommandSpec] = &[
    cmd("acl", -2, "6.0.0", "").summary("Container of the commands about users and what they may do"),
    cmd("acl|cat", -2, "6.0.0", "O(1)")
        .flags(&[F::NOSCRIPT, F::LOADING, F::STALE])
        .summary("Names the command categories, or the commands in one of them"),
    cmd("acl|deluser", -3, "6.0.0", "O(1)")
        .flags(&[F::ADMIN, F::NOSCRIPT, F::LOADING, F::STALE])
        .summary("Deletes users and drops their connections"),
    cmd("acl|dryrun", -4, "7.0.0", "O(1)")
        .flags(&[F::ADMIN, F::NOSCRIPT, F::LOADING, F::STALE])
        .summary("Tells whether a user could run a command, without running it"),
    cmd("acl|genpass", -2, "6.0.0", "O(1)")
        .flags(&[F::NOSCRIPT, F::LOADING, F::STALE])
        .summary("Makes a random password"),
    cmd("acl|getuser", 3, "6.0.0", "O(N)")
        .flags(&[F::ADMIN, F::NOSCRIPT, F::LOADING, F::STALE])
        .summary("Shows the rules of one user"),
    cmd("acl|help", 2, "6.0.0", "O(1)").flags(&[F::LOADING, F::STALE]).summary("Lists the subcommands"),
    cmd("acl|list", 2, "6.0.0", "O(N)")
        .flags(&[F::ADMIN, F::NOSCRIPT, F::LOADING, F::STALE])
        .summary("Shows every user as a line of the ACL file"),
    cmd("acl|load", 2, "6.0.0", "O(N)")
        .flags(&[F::ADMIN, F::NOSCRIPT, F::LOADING, F::STALE])
        .summary("Reads the users again from the ACL file"),
    cmd("acl|log", -2, "6.0.0", "O(N)")
        .flags(&[F::ADMIN, F::NOSCRIPT, F::LOADING, F::STALE])
        .summary("Shows refused commands and failed logins, or forgets them"),
    cmd("acl|save", 2, "6.0.0", "O(N)")
        .flags(&[F::ADMIN, F::NOSCRIPT, F::LOADING, F::STALE])
        .summary("Writes the users to the ACL file"),
    cmd("acl|setuser", -3, "6.0.0", "O(N)")
        .flags(&[F::ADMIN, F::NOSCRIPT, F::LOADING, F::STALE])
        .summary("Creates a user or changes its rules"),
    cmd("acl|users", 2, "6.0.0", "O(N)")
        .flags(&[F::ADMIN, F::NOSCRIPT, F::LOADING, F::STALE])
        .summary("Names all users"),
    cmd("acl|whoami", 2, "6.0.0", "O(1)")
        .flags(&[F::NOSCRIPT, F::LOADING, F::STALE])
        .summary("Names the user of this connection"),
    cmd("bgrewriteaof", 1, "1.0.0", "O(1)")
        .flags(&[F::ADMIN, F::NOSCRIPT, F::NO_ASYNC_LOADING])
        .summary("Rewrites the append-only file in the background"),
    cmd("bgsave", -1, "1.0.0", "O(1)")
        .flags(&[F::ADMIN, F::NOSCRIPT, F::NO_ASYNC_LOADING])
        .summary("Saves all databases to disk in the background"),
    cmd("command", -1, "2.8.13", "O(N)")
        .flags(&[F::LOADING, F::STALE])
        .acl(&[C::CONNECTION])
        .tips(&["nondeterministic_output_order"])
        .summary("Describes every command, or contains the commands about commands"),
    cmd("command|count", 2, "2.8.13", "O(1)")
        .flags(&[F::LOADING, F::STALE])
        .acl(&[C::CONNECTION])
        .summary("Counts the commands of this server"),
    cmd("command|docs", -2, "7.0.0", "O(N)")
        .flags(&[F::LOADING, F::STALE])
        .acl(&[C::CONNECTION])
        .tips(&["nondeterministic_output_order"])
        .summary("Explains commands: summary, history, group, complexity"),
    cmd("command|getkeys", -4, "2.8.13", "O(N)")
        .flags(&[F::LOADING, F::STALE])
        .acl(&[C::CONNECTION])
        .summary("Picks the key names out of a full command line"),
    cmd("command|getkeysandflags", -4, "7.0.0", "O(N)")
        .flags(&[F::LOADING, F::STALE])
        .acl(&[C::CONNECTION])
        .summary("Picks the key names out of a full command line, with how each key is used"),
    cmd("command|help", 2, "5.0.0", "O(1)")
        .flags(&[F::LOADING, F::STALE])
        .acl(&[C::CONNECTION])
        .summary("Lists the subcommands"),
    cmd("command|info", -2, "2.8.13", "O(N)")
        .flags(&[F::LOADING, F::STALE])
        .acl(&[C::CONNECTION])
        .tips(&["nondeterministic_output_order"])
        .summary("Describes the commands named, or all"),
    cmd("command|list", -2, "7.0.0", "O(N)")
        .flags(&[F::LOADING, F::STALE])
        .acl(&[C::CONNECTION])
        .tips(&["nondeterministic_output_order"])
        .summary("Names the commands, optionally by category, module or pattern"),
    cmd("config", -2, "2.0.0", "").summary("Container of the commands about the running configuration"),
    cmd("config|get", -3, "2.0.0", "O(N)")
        .flags(&[F::ADMIN, F::NOSCRIPT, F::LOADING, F::STALE])
        .summary("Reads the options that match a pattern"),
    cmd("config|help", 2, "5.0.0", "O(1)").flags(&[F::LOADING, F::STALE]).summary("Lists the subcommands"),
    cmd("config|resetstat", 2, "2.0.0", "O(1)")
        .flags(&[F::ADMIN, F::NOSCRIPT, F::LOADING, F::STALE])
        .summary("Sets the counters of INFO back to zero"),
    cmd("config|rewrite", 2, "2.8.0", "O(1)")
        .flags(&[F::ADMIN, F::NOSCRIPT, F::LOADING, F::STALE])
        .summary("Writes the running configuration back to its file"),
    cmd("config|set", -4, "2.0.0", "O(N)")
        .flags(&[F::ADMIN, F::NOSCRIPT, F::LOADING, F::STALE])
        .tips(&["request_policy:all_nodes", "response_policy:all_succeeded"])
        .summary("Changes options while running; all of them or none"),
    cmd("dbsize", 1, "1.0.0", "O(1)")
        .flags(&[F::READONLY, F::FAST])
        .acl(&[C::KEYSPACE])
        .tips(&["request_policy:all_shards", "response_policy:agg_sum"])
        .summary("Counts the keys of the selected database"),
    cmd("debug", -2, "1.0.0", "")
        .flags(&[F::ADMIN, F::NOSCRIPT, F::LOADING, F::STALE, F::PROTECTED, F::INTERNAL])
        .summary("Container of the commands for testing the server itself"),
    cmd("failover", -1, "6.2.0", "O(1)")
        .flags(&[F::ADMIN, F::NOSCRIPT, F::STALE])
        .summary("Hands the role of primary over to a replica in an orderly way"),
    cmd("flushall", -1, "1.0.0", "O(N)")
        .flags(&[F::WRITE])
        .acl(&[C::KEYSPACE, C::DANGEROUS])
        .tips(&["request_policy:all_shards", "response_policy:all_succeeded"])
        .summary("Deletes every key of every database"),
    cmd("flushdb", -1, "1.0.0", "O(N)")
        .flags(&[F::WRITE])
        .acl(&[C::KEYSPACE, C::DANGEROUS])
        .tips(&["request_policy:all_shards", "response_policy:all_succeeded"])
        .summary("Deletes every key of the selected database"),
    cmd("info", -1, "1.0.0", "O(1)")
        .flags(&[F::LOADING, F::STALE])
        .acl(&[C::DANGEROUS])
        .tips(&["nondeterministic_output", "request_policy:all_shards", "response_policy:special"])
        .summary("Reports the server's state and counters by section"),
    cmd("lastsave", 1, "1.0.0", "O(1)")
        .flags(&[F::LOADING, F::STALE, F::FAST])
        .acl(&[C::ADMIN, C::DANGEROUS])
        .tips(&["nondeterministic_output"])
        .summary("Tells when the last successful save ended, in Unix seconds"),
    cmd("latency", -2, "2.8.13", "").summary("Container of the commands about slow events"),
    cmd("latency|doctor", 2, "2.8.13", "O(1)")
        .flags(&[F::ADMIN, F::NOSCRIPT, F::LOADING, F::STALE])
        .tips(&["nondeterministic_output", "request_policy:all_nodes", "response_policy:special"])
        .summary("Explains in prose what made the server slow"),
    cmd("latency|graph", 3, "2.8.13", "O(1)")
        .flags(&[F::ADMIN, F::NOSCRIPT, F::LOADING, F::STALE])
        .tips(&["nondeterministic_output", "request_policy:all_nodes", "response_policy:special"])
        .summary("Draws the spikes of one event as text"),
    cmd("latency|help", 2, "2.8.13", "O(1)").flags(&[F::LOADING, F::STALE]).summary("Lists the subcommands"),
    cmd("latency|histogram", -2, "7.0.0", "O(N)")
        .flags(&[F::ADMIN, F::NOSCRIPT, F::LOADING, F::STALE])
        .tips(&["nondeterministic_output", "request_policy:all_nodes", "response_policy:special"])
        .summary("Shows the distribution of run times per command"),
    cmd("latency|history", 3, "2.8.13", "O(1)")
        .flags(&[F::ADMIN, F::NOSCRIPT, F::LOADING, F::STALE])
        .tips(&["nondeterministic_output", "request_policy:all_nodes", "response_policy:special"])
        .summary("Lists the recorded spikes of one event"),
    cmd("latency|latest", 2, "2.8.13", "O(1)")
        .flags(&[F::ADMIN, F::NOSCRIPT, F::LOADING, F::STALE])
        .tips(&["nondeterministic_output", "request_policy:all_nodes", "response_policy:special"])
        .summary("Shows the newest spike of each event"),
    cmd("latency|reset", -2, "2.8.13", "O(1)")
        .flags(&[F::ADMIN, F::NOSCRIPT, F::LOADING, F::STALE])
        .tips(&["request_policy:all_nodes", "response_policy:all_succeeded"])
        .summary("Forgets the recorded spikes"),
    cmd("lolwut", -1, "5.0.0", "O(1)")
        .flags(&[F::READONLY, F::FAST])
        .summary("Shows the version with a piece of text art"),
    cmd("memory", -2, "4.0.0", "").summary("Container of the commands about memory"),
    cmd("memory|doctor", 2, "4.0.0", "O(1)")
        .tips(&["nondeterministic_output", "request_policy:all_shards", "response_policy:special"])
        .summary("Explains in prose what is odd about memory use"),
    cmd("memory|help", 2, "4.0.0", "O(1)").flags(&[F::LOADING, F::STALE]).summary("Lists the subcommands"),
    cmd("memory|malloc-stats", 2, "4.0.0", "O(N)")
        .tips(&["nondeterministic_output", "request_policy:all_shards", "response_policy:special"])
        .summary("Shows the allocator's own statistics"),
    cmd("memory|purge", 2, "4.0.0", "O(N)")
        .tips(&["request_policy:all_shards", "response_policy:all_succeeded"])
        .summary("Asks the allocator to give free pages back"),
    cmd("memory|stats", 2, "4.0.0", "O(1)")
        .tips(&["nondeterministic_output", "request_policy:all_shards", "response_policy:special"])
        .summary("Breaks memory use down by purpose"),
    cmd("memory|usage", -3, "4.0.0", "O(N)")
        .flags(&[F::READONLY])
        .key_specs(&[key(2, &[K::RO])])
        .summary("Estimates the bytes that a key and its value occupy"),
    cmd("module", -2, "4.0.0", "").summary("Container of the commands about modules"),
    cmd("module|help", 2, "5.0.0", "O(1)").flags(&[F::LOADING, F::STALE]).summary("Lists the subcommands"),
    cmd("module|list", 2, "4.0.0", "O(N)")
        .flags(&[F::ADMIN, F::NOSCRIPT])
        .tips(&["nondeterministic_output_order"])
        .summary("Names the loaded modules"),
    cmd("module|load", -3, "4.0.0", "O(1)")
        .flags(&[F::ADMIN, F::NOSCRIPT, F::NO_ASYNC_LOADING, F::PROTECTED])
        .summary("Loads a module"),
    cmd("module|loadex", -3, "7.0.0", "O(1)")
        .flags(&[F::ADMIN, F::NOSCRIPT, F::NO_ASYNC_LOADING, F::PROTECTED])
        .summary("Loads a module with configuration and arguments"),
    cmd("module|unload", 3, "4.0.0", "O(1)")
        .flags(&[F::ADMIN, F::NOSCRIPT, F::NO_ASYNC_LOADING, F::PROTECTED])
        .summary("Unloads a module"),
    cmd("monitor", 1, "1.0.0", "O(1)")
        .flags(&[F::ADMIN, F::NOSCRIPT, F::LOADING, F::STALE])
        .summary("Streams every command that the server runs to this connection"),
    cmd("psync", -3, "2.8.0", "O(N)")
        .flags(&[F::ADMIN, F::NOSCRIPT, F::NO_ASYNC_LOADING, F::NO_MULTI])
        .summary("Asks a primary for its stream of writes from an offset (internal)"),
    cmd("replconf", -1, "3.0.0", "O(1)")
        .flags(&[F::ADMIN, F::NOSCRIPT, F::LOADING, F::STALE, F::ALLOW_BUSY, F::INTERNAL])
        .summary("Negotiates details between replica and primary (internal)"),
    cmd("replicaof", 3, "5.0.0", "O(1)")
        .flags(&[F::ADMIN, F::NOSCRIPT, F::STALE, F::NO_ASYNC_LOADING])
        .summary("Makes the server a replica of another, or a primary again"),
    cmd("restore-asking", -4, "3.0.0", "O(N)")
        .flags(&[F::WRITE, F::DENYOOM, F::ASKING, F::INTERNAL])
        .acl(&[C::KEYSPACE, C::DANGEROUS])
        .key_specs(&[key(1, &[K::OW, K::UPDATE])])
        .summary("Restores a key during a slot migration (internal)"),
    cmd("role", 1, "2.8.12", "O(1)")
        .flags(&[F::NOSCRIPT, F::LOADING, F::STALE, F::FAST])
        .acl(&[C::ADMIN, C::DANGEROUS])
        .summary("Tells whether the server is primary, replica or sentinel, with its offsets"),
    cmd("save", 1, "1.0.0", "O(N)")
        .flags(&[F::ADMIN, F::NOSCRIPT, F::NO_ASYNC_LOADING, F::NO_MULTI])
        .summary("Saves all databases to disk and answers when done"),
    cmd("shutdown", -1, "1.0.0", "O(N)")
        .flags(&[F::ADMIN, F::NOSCRIPT, F::LOADING, F::STALE, F::NO_MULTI, F::ALLOW_BUSY])
        .summary("Saves if configured and stops the server"),
    cmd("slaveof", 3, "1.0.0", "O(1)")
        .flags(&[F::ADMIN, F::NOSCRIPT, F::STALE, F::NO_ASYNC_LOADING])
        .deprecated("5.0.0", "REPLICAOF")
        .summary("Old name of REPLICAOF"),
    cmd("slowlog", -2, "2.2.12", "").summary("Container of the commands about the log of slow commands"),
    cmd("slowlog|get", -2, "2.2.12", "O(N)")
        .flags(&[F::ADMIN, F::LOADING, F::STALE])
        .tips(&["request_policy:all_nodes", "nondeterministic_output"])
        .summary("Lists the newest slow commands"),
    cmd("slowlog|help", 2, "6.2.0", "O(1)").flags(&[F::LOADING, F::STALE]).summary("Lists the subcommands"),
    cmd("slowlog|len", 2, "2.2.12", "O(1)")
        .flags(&[F::ADMIN, F::LOADING, F::STALE])
        .tips(&["request_policy:all_nodes", "response_policy:agg_sum", "nondeterministic_output"])
        .summary("Counts the entries of the log"),
    cmd("slowlog|reset", 2, "2.2.12", "O(N)")
        .flags(&[F::ADMIN, F::LOADING, F::STALE])
        .tips(&["request_policy:all_nodes", "response_policy:all_succeeded"])
        .summary("Empties the log"),
    cmd("swapdb", 3, "4.0.0", "O(N)")
        .flags(&[F::WRITE, F::FAST])
        .acl(&[C::KEYSPACE, C::DANGEROUS])
        .summary("Swaps the contents of two databases"),
    cmd("sync", 1, "1.0.0", "O(N)")
        .flags(&[F::ADMIN, F::NOSCRIPT, F::NO_ASYNC_LOADING, F::NO_MULTI])
        .summary("Asks a primary for a full copy and its stream of writes (internal)"),
    cmd("time", 1, "2.6.0", "O(1)")
        .flags(&[F::LOADING, F::STALE, F::FAST])
        .tips(&["nondeterministic_output"])
        .summary("Tells the server's time in seconds and microseconds"),
];
