//! Every parameter of Redis 7.0's configuration, in one table: its name, what it takes, its default, when it may change, and
//! who acts on it.
//!
//! Invariant: sorted by name, so that a look-up is a binary search. Defaults are Redis' own but for this product's operating
//! facts: 2 GB, allkeys-lru, append-only file on, save points 3600 1 300 100 60 10000, latency monitor at 100 ms.

use Kind::{
    BufferLimits, Choice, Events, Flag, Int, Memory, MemoryOrPercent, Octal, OomAdjust, Percentiles, Save,
    ShutdownOptions, Text, Words,
};

/// What a parameter takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// `yes` or `no`.
    Flag,
    /// A whole number between these two, both allowed.
    Int(i64, i64),
    /// Bytes, at least this many: a number with `b`, `k`, `kb`, `m`, `mb`, `g` or `gb` behind it, or nothing.
    Memory(u64),
    /// Bytes, or a share of `maxmemory` such as `5%`.
    MemoryOrPercent,
    /// One of these words.
    Choice(&'static [&'static str]),
    /// Any one text.
    Text,
    /// Any number of words.
    Words,
    /// File permissions, in octal.
    Octal,
    /// Save points: pairs of seconds and changes.
    Save,
    /// Per class of client: hard limit, soft limit, seconds.
    BufferLimits,
    /// Percentiles between 0 and 100.
    Percentiles,
    /// Three adjustments between -2000 and 2000.
    OomAdjust,
    /// Classes of keyspace event.
    Events,
    /// `default`, or some of `save`, `nosave`, `now`, `force`.
    ShutdownOptions,
}

/// When a parameter may change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// Any time, with `CONFIG SET`.
    Live,
    /// With `CONFIG SET` only if `enable-protected-configs` allows it.
    Protected,
    /// Only in the file or on the command line.
    AtStart,
}

/// Who acts on a parameter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effect {
    /// The engine itself.
    Engine,
    /// Whoever owns the engine: the node or the server.
    Owner,
    /// Nobody: accepted and remembered, so that an existing redis.conf starts.
    Ignored,
    /// Nobody yet, and starting without it would be wrong: anything but the default is refused.
    Refused,
}

/// One parameter.
#[derive(Debug, Clone, Copy)]
pub struct Param {
    /// The name in redis.conf.
    pub name: &'static str,
    /// An older name that means the same.
    pub alias: Option<&'static str>,
    /// What it takes.
    pub kind: Kind,
    /// The default, as `CONFIG GET` shows it.
    pub default: &'static str,
    /// When it may change.
    pub change: Change,
    /// Who acts on it.
    pub effect: Effect,
}

impl Param {
    const fn alias(mut self, alias: &'static str) -> Self {
        self.alias = Some(alias);
        self
    }

    const fn at_start(mut self) -> Self {
        self.change = Change::AtStart;
        self
    }

    const fn protected(mut self) -> Self {
        self.change = Change::Protected;
        self
    }

    /// Whether the value must not be shown to others: in `MONITOR`, the slow log or a log file.
    pub fn is_secret(&self) -> bool {
        matches!(
            self.name,
            "requirepass" | "masterauth" | "masteruser" | "tls-key-file-pass" | "tls-client-key-file-pass"
        )
    }
}

const fn param(name: &'static str, kind: Kind, default: &'static str, effect: Effect) -> Param {
    Param { name, alias: None, kind, default, change: Change::Live, effect }
}

const fn engine(name: &'static str, kind: Kind, default: &'static str) -> Param {
    param(name, kind, default, Effect::Engine)
}

const fn owner(name: &'static str, kind: Kind, default: &'static str) -> Param {
    param(name, kind, default, Effect::Owner)
}

const fn ignored(name: &'static str, kind: Kind, default: &'static str) -> Param {
    param(name, kind, default, Effect::Ignored)
}

const fn refused(name: &'static str, kind: Kind, default: &'static str) -> Param {
    param(name, kind, default, Effect::Refused)
}

const I32_MIN: i64 = i32::MIN as i64;
const I32_MAX: i64 = i32::MAX as i64;
const U32_MAX: i64 = u32::MAX as i64;

/// The table, sorted by name.
pub const PARAMS: &[Param] = &[
    engine("acl-pubsub-default", Choice(&["allchannels", "resetchannels"]), "resetchannels"),
    engine("aclfile", Text, "").at_start(),
    engine("acllog-max-len", Int(0, i64::MAX), "128"),
    ignored("active-defrag-cycle-max", Int(1, 99), "25"),
    ignored("active-defrag-cycle-min", Int(1, 99), "1"),
    ignored("active-defrag-ignore-bytes", Memory(1), "104857600"),
    ignored("active-defrag-max-scan-fields", Int(1, i64::MAX), "1000"),
    ignored("active-defrag-threshold-lower", Int(0, 1000), "10"),
    ignored("active-defrag-threshold-upper", Int(0, 1000), "100"),
    owner("active-expire-effort", Int(1, 10), "1"),
    ignored("activedefrag", Flag, "no"),
    ignored("activerehashing", Flag, "yes"),
    ignored("always-show-logo", Flag, "no").at_start(),
    ignored("aof-disable-auto-gc", Flag, "no"),
    owner("aof-load-truncated", Flag, "yes"),
    ignored("aof-rewrite-incremental-fsync", Flag, "yes"),
    ignored("aof-timestamp-enabled", Flag, "no"),
    owner("aof-use-rdb-preamble", Flag, "yes"),
    ignored("aof_rewrite_cpulist", Text, "").at_start(),
    owner("appenddirname", Text, "appendonlydir").at_start(),
    owner("appendfilename", Text, "appendonly.aof").at_start(),
    owner("appendfsync", Choice(&["everysec", "always", "no"]), "everysec"),
    owner("appendonly", Flag, "yes"),
    owner("auto-aof-rewrite-min-size", Memory(0), "67108864"),
    owner("auto-aof-rewrite-percentage", Int(0, I32_MAX), "100"),
    ignored("bgsave_cpulist", Text, "").at_start(),
    owner("bind", Words, "* -::*"),
    ignored("bind-source-addr", Text, ""),
    ignored("bio_cpulist", Text, "").at_start(),
    engine("busy-reply-threshold", Int(0, i64::MAX), "5000").alias("lua-time-limit"),
    owner(
        "client-output-buffer-limit",
        BufferLimits,
        "normal 0 0 0 slave 268435456 67108864 60 pubsub 33554432 8388608 60",
    ),
    owner("client-query-buffer-limit", Memory(1_048_576), "1073741824"),
    ignored("cluster-allow-pubsubshard-when-down", Flag, "yes"),
    ignored("cluster-allow-reads-when-down", Flag, "no"),
    ignored("cluster-allow-replica-migration", Flag, "yes"),
    ignored("cluster-announce-bus-port", Int(0, 65_535), "0"),
    ignored("cluster-announce-hostname", Text, ""),
    ignored("cluster-announce-ip", Text, ""),
    ignored("cluster-announce-port", Int(0, 65_535), "0"),
    ignored("cluster-announce-tls-port", Int(0, 65_535), "0"),
    ignored("cluster-config-file", Text, "nodes.conf").at_start(),
    refused("cluster-enabled", Flag, "no").at_start(),
    ignored("cluster-link-sendbuf-limit", Memory(0), "0"),
    ignored("cluster-migration-barrier", Int(0, I32_MAX), "1"),
    ignored("cluster-node-timeout", Int(0, i64::MAX), "15000"),
    ignored("cluster-port", Int(0, 65_535), "0").at_start(),
    ignored("cluster-preferred-endpoint-type", Choice(&["ip", "hostname", "unknown-endpoint"]), "ip"),
    ignored("cluster-replica-no-failover", Flag, "no").alias("cluster-slave-no-failover"),
    ignored("cluster-replica-validity-factor", Int(0, I32_MAX), "10").alias("cluster-slave-validity-factor"),
    ignored("cluster-require-full-coverage", Flag, "yes"),
    ignored("crash-log-enabled", Flag, "yes"),
    ignored("crash-memcheck-enabled", Flag, "yes"),
    ignored("daemonize", Flag, "no").at_start(),
    engine("databases", Int(1, 255), "16").at_start(),
    owner("dbfilename", Text, "dump.rdb").protected(),
    owner("dir", Text, "./").protected(),
    ignored("disable-thp", Flag, "yes").at_start(),
    ignored("dynamic-hz", Flag, "yes"),
    owner("enable-debug-command", Choice(&["no", "yes", "local"]), "no").at_start(),
    ignored("enable-module-command", Choice(&["no", "yes", "local"]), "no").at_start(),
    owner("enable-protected-configs", Choice(&["no", "yes", "local"]), "no").at_start(),
    engine("hash-max-listpack-entries", Int(0, i64::MAX), "512").alias("hash-max-ziplist-entries"),
    engine("hash-max-listpack-value", Memory(0), "64").alias("hash-max-ziplist-value"),
    ignored("hll-sparse-max-bytes", Memory(0), "3000"),
    owner("hz", Int(0, I32_MAX), "10"),
    ignored("ignore-warnings", Text, ""),
    owner("io-threads", Int(1, 128), "1").at_start(),
    ignored("io-threads-do-reads", Flag, "no").at_start(),
    ignored("jemalloc-bg-thread", Flag, "yes"),
    engine("latency-monitor-threshold", Int(0, i64::MAX), "100"),
    ignored("latency-tracking", Flag, "yes"),
    engine("latency-tracking-info-percentiles", Percentiles, "50 99 99.9"),
    ignored("lazyfree-lazy-eviction", Flag, "no"),
    ignored("lazyfree-lazy-expire", Flag, "no"),
    ignored("lazyfree-lazy-server-del", Flag, "no"),
    ignored("lazyfree-lazy-user-del", Flag, "no"),
    ignored("lazyfree-lazy-user-flush", Flag, "no"),
    engine("lfu-decay-time", Int(0, I32_MAX), "1"),
    engine("lfu-log-factor", Int(0, I32_MAX), "10"),
    ignored("list-compress-depth", Int(0, I32_MAX), "0"),
    engine("list-max-listpack-size", Int(I32_MIN, I32_MAX), "-2").alias("list-max-ziplist-size"),
    owner("logfile", Text, "").at_start(),
    owner("loglevel", Choice(&["debug", "verbose", "notice", "warning"]), "notice"),
    ignored("masterauth", Text, ""),
    ignored("masteruser", Text, ""),
    owner("maxclients", Int(1, U32_MAX), "10000"),
    engine("maxmemory", Memory(0), "2147483648"),
    engine("maxmemory-clients", MemoryOrPercent, "0"),
    ignored("maxmemory-eviction-tenacity", Int(0, 100), "10"),
    engine(
        "maxmemory-policy",
        Choice(&[
            "volatile-lru",
            "volatile-lfu",
            "volatile-random",
            "volatile-ttl",
            "allkeys-lru",
            "allkeys-lfu",
            "allkeys-random",
            "noeviction",
        ]),
        "allkeys-lru",
    ),
    engine("maxmemory-samples", Int(1, I32_MAX), "5"),
    ignored("min-replicas-max-lag", Int(0, I32_MAX), "10").alias("min-slaves-max-lag"),
    ignored("min-replicas-to-write", Int(0, I32_MAX), "0").alias("min-slaves-to-write"),
    ignored("no-appendfsync-on-rewrite", Flag, "no"),
    engine("notify-keyspace-events", Events, ""),
    ignored("oom-score-adj", Choice(&["no", "yes", "relative", "absolute"]), "no"),
    ignored("oom-score-adj-values", OomAdjust, "0 200 800"),
    owner("pidfile", Text, "").at_start(),
    owner("port", Int(0, 65_535), "6379"),
    ignored("proc-title-template", Text, "{title} {listen-addr} {server-mode}"),
    ignored("propagation-error-behavior", Choice(&["ignore", "panic", "panic-on-replicas"]), "ignore"),
    owner("protected-mode", Flag, "yes"),
    engine("proto-max-bulk-len", Memory(1_048_576), "536870912"),
    ignored("rdb-del-sync-files", Flag, "no"),
    ignored("rdb-save-incremental-fsync", Flag, "yes"),
    owner("rdbchecksum", Flag, "yes").at_start(),
    engine("rdbcompression", Flag, "yes"),
    ignored("repl-backlog-size", Memory(1), "1048576"),
    ignored("repl-backlog-ttl", Int(0, i64::MAX), "3600"),
    ignored("repl-disable-tcp-nodelay", Flag, "no"),
    ignored("repl-diskless-load", Choice(&["disabled", "on-empty-db", "swapdb"]), "disabled"),
    ignored("repl-diskless-sync", Flag, "yes"),
    ignored("repl-diskless-sync-delay", Int(0, I32_MAX), "5"),
    ignored("repl-diskless-sync-max-replicas", Int(0, I32_MAX), "0"),
    ignored("repl-ping-replica-period", Int(1, I32_MAX), "10").alias("repl-ping-slave-period"),
    ignored("repl-timeout", Int(1, I32_MAX), "60"),
    ignored("replica-announce-ip", Text, "").alias("slave-announce-ip"),
    ignored("replica-announce-port", Int(0, 65_535), "0").alias("slave-announce-port"),
    ignored("replica-announced", Flag, "yes"),
    ignored("replica-ignore-disk-write-errors", Flag, "no"),
    ignored("replica-ignore-maxmemory", Flag, "yes").alias("slave-ignore-maxmemory"),
    ignored("replica-lazy-flush", Flag, "no").alias("slave-lazy-flush"),
    ignored("replica-priority", Int(0, I32_MAX), "100").alias("slave-priority"),
    ignored("replica-read-only", Flag, "yes").alias("slave-read-only"),
    ignored("replica-serve-stale-data", Flag, "yes").alias("slave-serve-stale-data"),
    refused("replicaof", Words, "").alias("slaveof").at_start(),
    engine("requirepass", Text, ""),
    ignored("sanitize-dump-payload", Choice(&["no", "yes", "clients"]), "no"),
    owner("save", Save, "3600 1 300 100 60 10000"),
    ignored("server_cpulist", Text, "").at_start(),
    engine("set-max-intset-entries", Int(0, i64::MAX), "512"),
    ignored("set-proc-title", Flag, "yes").at_start(),
    ignored("shutdown-on-sigint", ShutdownOptions, "default"),
    ignored("shutdown-on-sigterm", ShutdownOptions, "default"),
    ignored("shutdown-timeout", Int(0, I32_MAX), "10"),
    engine("slowlog-log-slower-than", Int(-1, i64::MAX), "10000"),
    engine("slowlog-max-len", Int(0, i64::MAX), "128"),
    ignored("socket-mark-id", Int(0, U32_MAX), "0").at_start(),
    owner("stop-writes-on-bgsave-error", Flag, "yes"),
    ignored("stream-node-max-bytes", Memory(0), "4096"),
    ignored("stream-node-max-entries", Int(0, i64::MAX), "100"),
    ignored("supervised", Choice(&["upstart", "systemd", "auto", "no"]), "no").at_start(),
    ignored("syslog-enabled", Flag, "no").at_start(),
    ignored(
        "syslog-facility",
        Choice(&["user", "local0", "local1", "local2", "local3", "local4", "local5", "local6", "local7"]),
        "local0",
    )
    .at_start(),
    ignored("syslog-ident", Text, "redis").at_start(),
    owner("tcp-backlog", Int(0, I32_MAX), "511").at_start(),
    owner("tcp-keepalive", Int(0, I32_MAX), "300"),
    owner("timeout", Int(0, I32_MAX), "0"),
    owner("tls-auth-clients", Choice(&["no", "yes", "optional"]), "yes"),
    owner("tls-ca-cert-dir", Text, ""),
    owner("tls-ca-cert-file", Text, ""),
    owner("tls-cert-file", Text, ""),
    ignored("tls-ciphers", Text, ""),
    ignored("tls-ciphersuites", Text, ""),
    ignored("tls-client-cert-file", Text, ""),
    ignored("tls-client-key-file", Text, ""),
    ignored("tls-client-key-file-pass", Text, ""),
    refused("tls-cluster", Flag, "no"),
    ignored("tls-dh-params-file", Text, ""),
    owner("tls-key-file", Text, ""),
    refused("tls-key-file-pass", Text, ""),
    owner("tls-port", Int(0, 65_535), "0"),
    ignored("tls-prefer-server-ciphers", Flag, "no"),
    owner("tls-protocols", Text, ""),
    refused("tls-replication", Flag, "no"),
    ignored("tls-session-cache-size", Int(0, I32_MAX), "20480"),
    ignored("tls-session-cache-timeout", Int(0, I32_MAX), "300"),
    ignored("tls-session-caching", Flag, "yes"),
    engine("tracking-table-max-keys", Int(0, i64::MAX), "1000000"),
    owner("unixsocket", Text, "").at_start(),
    owner("unixsocketperm", Octal, "0").at_start(),
    engine("zset-max-listpack-entries", Int(0, i64::MAX), "128").alias("zset-max-ziplist-entries"),
    engine("zset-max-listpack-value", Memory(0), "64").alias("zset-max-ziplist-value"),
];

/// The position in [`PARAMS`] of the parameter of that name or alias, in any case.
pub(super) fn find(name: &str) -> Option<usize> {
    let name = name.to_ascii_lowercase();
    PARAMS
        .binary_search_by(|param| param.name.cmp(&name))
        .ok()
        .or_else(|| PARAMS.iter().position(|param| param.alias == Some(name.as_str())))
}

/// The name that somebody probably meant.
pub(super) fn nearest(name: &str) -> Option<&'static str> {
    let name = name.to_ascii_lowercase();
    // A third of the letters may be wrong; beyond that a suggestion misleads.
    let limit = (name.len() / 3).clamp(1, 4);
    PARAMS
        .iter()
        .flat_map(|param| [Some(param.name), param.alias])
        .flatten()
        .map(|candidate| (distance(name.as_bytes(), candidate.as_bytes()), candidate))
        .min()
        .filter(|(distance, _)| *distance <= limit)
        .map(|(_, candidate)| candidate)
}

/// Insertions, deletions and replacements between two names (Levenshtein).
fn distance(a: &[u8], b: &[u8]) -> usize {
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.iter().enumerate() {
        let mut diagonal = i;
        let mut left = i + 1;
        for (cell, y) in row.iter_mut().skip(1).zip(b) {
            let here = (diagonal + usize::from(x != y)).min(left + 1).min(*cell + 1);
            diagonal = std::mem::replace(cell, here);
            left = here;
        }
        if let Some(first) = row.first_mut() {
            *first = i + 1;
        }
    }
    row.last().copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_sorted_and_every_alias_is_its_own_name() {
        assert!(PARAMS.is_sorted_by(|a, b| a.name < b.name));
        for param in PARAMS {
            if let Some(alias) = param.alias {
                assert_eq!(find(alias).map(|i| PARAMS[i].name), Some(param.name));
            }
        }
    }

    #[test]
    fn a_typing_error_finds_its_name() {
        assert_eq!(nearest("maxmemorypolicy"), Some("maxmemory-policy"));
        assert_eq!(nearest("apendonly"), Some("appendonly"));
        assert_eq!(nearest("completely-else-thing"), None);
    }
}
