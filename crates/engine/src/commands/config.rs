//! CONFIG: reading and changing the configuration of a running engine.

use mtcache_protocol::{Reply, glob};

use super::Locks::None as NoLocks;
use super::{Row, write_help};
use crate::context::Ctx;
use crate::error::CommandResult;

pub(super) const TABLE: &[Row] = &[
    ("config|get", NoLocks, get),
    ("config|set", NoLocks, set),
    ("config|resetstat", super::Locks::All, reset_statistics),
    ("config|rewrite", NoLocks, rewrite),
    ("config|help", NoLocks, config_help),
];

fn get(ctx: &mut Ctx<'_, '_>, args: &[&[u8]], out: &mut Reply) -> CommandResult {
    let config = ctx.engine.config();
    // A name asked for literally is answered under the name asked for, as in Redis: clients look for exactly that.
    let mut found: Vec<(Vec<u8>, &[u8])> = Vec::new();
    let mut add = |name: &[u8], value| {
        if !found.iter().any(|(known, _)| known.eq_ignore_ascii_case(name)) {
            found.push((name.to_vec(), value));
        }
    };
    for pattern in &args[2..] {
        let is_pattern = pattern.iter().any(|byte| matches!(byte, b'*' | b'?' | b'['));
        for (param, value) in config.iter() {
            for name in [Some(param.name), param.alias].into_iter().flatten() {
                if !is_pattern && pattern.eq_ignore_ascii_case(name.as_bytes()) {
                    add(pattern, value);
                } else if is_pattern && glob::matches(pattern, name.as_bytes(), true) {
                    add(name.as_bytes(), value);
                }
            }
        }
    }
    out.map(found.len());
    for (name, value) in found {
        out.bulk(&name);
        out.bulk(value);
    }
    Ok(())
}

fn set(ctx: &mut Ctx<'_, '_>, args: &[&[u8]], out: &mut Reply) -> CommandResult {
    ctx.engine.set_config(args.get(2..).unwrap_or_default())?;
    out.ok();
    Ok(())
}

fn reset_statistics(ctx: &mut Ctx<'_, '_>, _: &[&[u8]], out: &mut Reply) -> CommandResult {
    ctx.engine.stats.reset();
    for shard in ctx.locked.shards() {
        shard.counters = crate::keyspace::ShardCounters::default();
    }
    out.ok();
    Ok(())
}

fn rewrite(ctx: &mut Ctx<'_, '_>, _: &[&[u8]], out: &mut Reply) -> CommandResult {
    ctx.engine.rewrite_config()?;
    out.ok();
    Ok(())
}

fn config_help(_: &mut Ctx<'_, '_>, _: &[&[u8]], out: &mut Reply) -> CommandResult {
    write_help(
        "CONFIG",
        &[
            "GET <pattern> [<pattern> ...]",
            "    Parameters whose names match, with their values.",
            "SET <directive> <value> [<directive> <value> ...]",
            "    Changes parameters: all of them or none.",
            "RESETSTAT",
            "    Starts the statistics of INFO from zero.",
            "REWRITE",
            "    Writes the configuration in force to the configuration file.",
        ],
        out,
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use mtcache_conformance::Value;

    use crate::testing::Pair;

    fn map(value: &Value) -> BTreeMap<String, String> {
        let items = value.elements().unwrap();
        items.chunks(2).map(|pair| (pair[0].text().unwrap(), pair[1].text().unwrap())).collect()
    }

    #[test]
    fn every_parameter_of_redis_is_known_with_its_default() {
        // The operating facts of the product, and what a test server is started with.
        const OURS: [&str; 10] = [
            "maxmemory",
            "maxmemory-policy",
            "appendonly",
            "save",
            "latency-monitor-threshold",
            "port",
            "dir",
            "unixsocket",
            "enable-debug-command",
            "bind",
        ];
        let mut pair = Pair::start();
        let (ours, theirs) = pair.run(&["config", "get", "*"]);
        let (mut ours, mut theirs) = (map(&ours), map(&theirs));
        for name in OURS {
            assert_eq!(ours.remove(name).is_some(), theirs.remove(name).is_some(), "{name}");
        }
        let only_theirs: Vec<_> =
            theirs.iter().filter(|(name, value)| ours.get(*name) != Some(value)).collect();
        assert!(only_theirs.is_empty(), "{only_theirs:?}");
        assert_eq!(ours.len(), theirs.len());
    }

    #[test]
    fn parameters_are_read_and_set_as_in_redis() {
        let mut pair = Pair::start();
        pair.same(&[
            "config get MAXMEMORY-samples",
            "config get slave-priority",
            "config get nosuch",
            "config get [s]et-max*",
            "config set nosuch 1",
            "config set maxmemory 1gb maxmemory 2gb",
            "config set slave-priority 1 replica-priority 2",
            "config set maxmemory 1gb port",
            "config set maxmemory-samples 7 maxmemory-policy foo",
            "config get maxmemory-samples",
            "config set daemonize yes",
            "config set dir /tmp",
            "config set save \"900 1 300\"",
            "config set save \"900 1 300 10\"",
            "config get save",
            "config set appendfsync ALWAYS",
            "config get appendfsync",
            "config set maxmemory 1k",
            "config get maxmemory",
            "config set maxmemory 100MB",
            "config get maxmemory",
            "config set requirepass abc",
            "config get requirepass",
            "config set requirepass \"\"",
            "config set hz 600",
            "config get hz",
            "config set client-output-buffer-limit \"pubsub 1mb 1mb 10 replica 1gb 0 0\"",
            "config get client-output-buffer-limit",
            "config set client-output-buffer-limit \"foo 1 1 1\"",
            "config set client-output-buffer-limit \"normal x 1 1\"",
            "config set notify-keyspace-events KEA",
            "config get notify-keyspace-events",
            "config set notify-keyspace-events q",
            "config set latency-tracking-info-percentiles \"50.10 1e1\"",
            "config get latency-tracking-info-percentiles",
            "config set oom-score-adj-values \"1 2 3000\"",
            "config set tcp-keepalive -1",
            "config set tcp-keepalive 99999999999",
            "config set hash-max-ziplist-value 1b",
            "config get hash-max-listpack-value",
            "config set repl-backlog-size 0",
            "config resetstat",
            "config rewrite",
        ]);
        pair.same_set(&["config get slave-p* SAVE save", "config get *ziplist*"]);
    }
}
