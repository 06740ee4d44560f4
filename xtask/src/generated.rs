//! Documentation that is written from the code's own tables: the commands and the server's options.
//!
//! Invariant: the files under `docs/` are what this writes; the check fails when they differ.

use std::fmt::Write as _;
use std::fs;

use mtcache_engine::{Change, Effect, Kind, PARAMS, Param, supports};
use mtcache_protocol::{COMMANDS, CommandSpec, Group};

use crate::cache_docs::{CONFIGURATION_DOCUMENT, METRICS_DOCUMENT};
use crate::{Outcome, root};

/// A file that is generated.
#[derive(Debug, Clone, Copy)]
pub struct Document {
    pub(crate) path: &'static str,
    pub(crate) task: &'static str,
    pub(crate) text: fn() -> String,
}

/// Every command of Redis 7.0, with whether the engine runs it.
pub const COMMANDS_DOCUMENT: Document =
    Document { path: "docs/commands.md", task: "commands", text: commands_text };

/// Every parameter of redis.conf, with its default and what it does here.
pub const OPTIONS_DOCUMENT: Document =
    Document { path: "docs/options.md", task: "options", text: options_text };

/// Writes the file.
pub fn write(document: Document) -> Outcome {
    fs::write(root().join(document.path), (document.text)())
        .map_err(|error| vec![format!("{}: {error}", document.path)])?;
    Ok(format!("wrote {}", document.path))
}

/// Compares the file with what would be written.
pub fn check(document: Document) -> Outcome {
    let there = fs::read_to_string(root().join(document.path)).unwrap_or_default();
    if there == (document.text)() {
        return Ok(format!("{} is current", document.path));
    }
    Err(vec![format!("{} is out of date: run `cargo run -p xtask -- {}`", document.path, document.task)])
}

/// Compares every generated file.
pub fn check_all() -> Outcome {
    let (current, stale): (Vec<_>, Vec<_>) =
        [COMMANDS_DOCUMENT, OPTIONS_DOCUMENT, CONFIGURATION_DOCUMENT, METRICS_DOCUMENT]
            .into_iter()
            .map(check)
            .partition(Result::is_ok);
    if stale.is_empty() {
        return Ok(current.into_iter().flatten().collect::<Vec<_>>().join("\n"));
    }
    Err(stale.into_iter().filter_map(Result::err).flatten().collect())
}

/// Where the answer of a command that runs is not Redis' own, and why that is so. Not listed: which keys a random command picks,
/// orders that Redis leaves open, and what a command of a family that is not there yet answers.
const DIFFERENCES: &[(&str, &str)] = &[
    ("every `HELP`", "the lines are in our own words"),
    ("`COMMAND INFO`", "no notes on key specifications, which are prose; every other field is Redis'"),
    ("`COMMAND DOCS`", "summaries and complexities are in our own words; no arguments and no history"),
    (
        "`CLIENT LIST`, `CLIENT INFO`",
        "`fd` is -1; `argv-mem`, `rbs`, `rbp` and `oll` are 0, because buffers are others here",
    ),
    (
        "`CLIENT REPLY OFF` in `MULTI`",
        "nothing is sent any more; Redis still sends the header of `EXEC`'s reply, which no client can read",
    ),
    (
        "`CLIENT SETINFO`, `CLIENT NO-TOUCH`",
        "taken from Redis 7.2, because client libraries send them when they connect",
    ),
    (
        "`INFO`",
        "every field of Redis 7.0; what forks, replicas, clusters, modules and active defragmentation report is zero",
    ),
    (
        "`LATENCY`",
        "the events are `command`, `fast-command`, `expire-cycle`, `eviction-cycle`, `aof-write` and `aof-fsync-always`; there \
         are no forks to report; `DOCTOR` is in our own words",
    ),
    (
        "`DEBUG CHANGE-REPL-ID`, `REPLICATE`, `DROP-CLUSTER-PACKET-FILTER`, `REPLYBUFFER`, `LEAK`, `QUICKLIST-PACKED-THRESHOLD`",
        "accepted without effect: there are no replicas and no cluster, replies have other buffers, nothing leaks on purpose, and \
         large elements of lists are always kept apart",
    ),
    (
        "`DEBUG HTSTATS`, `HTSTATS-KEY`, `LISTPACK`, `QUICKLIST`, `SDSLEN`, `STRUCTSIZE`, `MALLCTL`, `MALLCTL-STR`, \
         `CLIENT-EVICTION`",
        "unknown: they show Redis' structures, and ours are others; `MEMORY USAGE` and `MEMORY STATS` tell what things take",
    ),
    (
        "`DEBUG AOF-FLUSH-SLEEP`, `PAUSE-CRON`, `SET-DISABLE-DENY-SCRIPTS`, `SET-SKIP-CHECKSUM-VALIDATION`, \
         `CONFIG-REWRITE-FORCE-ALL`, `CRASH-AND-RECOVER`, `RESTART`, `ASSERT`, `OOM`, `PANIC`, `SEGFAULT`",
        "unknown: Redis' own tests break the server with them on purpose",
    ),
    (
        "any whose reply is larger than `client-output-buffer-limit` allows",
        "fails with an error before its connection ends, where that can be sent; commands behind replies that a client does not \
         read wait, and only what has been made counts",
    ),
    (
        "`DEBUG OBJECT` of a list",
        "`ql_nodes` and what follows it are those of a list that was appended to; `ql_compressed` is 0, because lists are not \
         compressed in memory",
    ),
    (
        "`DEBUG POPULATE`",
        "what is made is in the append-only file, too; in Redis it is lost at the next start",
    ),
    ("`DEBUG STRINGMATCH-LEN`", "an addition: whether a pattern fits a string"),
    ("`MEMORY USAGE`", "the size of our own layout, which is smaller"),
    ("`MEMORY STATS`", "figures of our own allocator; what belongs to replicas and clusters is zero"),
    ("`MEMORY DOCTOR`", "in our own words, of what can be wrong here"),
    ("`OBJECT REFCOUNT`", "1 for every key: small integers are not shared"),
    ("`SCAN` and its kin", "cursors are other numbers; what a full iteration guarantees is the same"),
    ("`SHUTDOWN`", "there are no replicas to wait for, so `NOW` and `ABORT` find nothing to change"),
    (
        "`SLOWLOG GET`, `MONITOR`",
        "the names in `ACL GETUSER` and `ACL DELUSER` are `(redacted)` here, and what is set as `tls-key-file-pass`; Redis shows \
         them",
    ),
    ("`WATCH`", "refused while a script takes too long, when nothing could be read anyway"),
    ("`SCRIPT KILL`", "works before `busy-reply-threshold` too"),
    ("`WAIT`", "answers 0 at once: there are no replicas"),
    ("`ROLE`, `REPLICAOF`, `SLAVEOF`", "always a master; only `NO ONE` is accepted"),
    ("`MODULE`", "as with `enable-module-command no`, whatever it is set to"),
    ("`ACL SETUSER`", "selectors in parentheses are refused by name"),
    (
        "`UNLINK`, `FLUSHALL ASYNC`",
        "as `DEL` and `FLUSHALL`: memory is always freed after the locks have been given back",
    ),
];

/// Why parameters whose names begin so have no effect.
const WITHOUT_EFFECT: &[(&str, &str)] = &[
    ("active-defrag", "nothing is moved in memory"),
    ("activedefrag", "nothing is moved in memory"),
    ("cluster-", "no cluster"),
    ("daemonize", "stays in the foreground, for a supervisor"),
    ("hll-", "the type is not there yet"),
    ("io-threads", "every core serves anyway"),
    ("jemalloc-", "its background thread always runs"),
    (
        "lazyfree-",
        "what is removed is always freed after the locks have been given back, so that nobody else waits for it",
    ),
    ("list-compress-", "lists are not compressed in memory"),
    ("master", "no replication"),
    ("min-replicas-", "no replication"),
    ("repl-", "no replication"),
    ("replica-", "no replication"),
    ("stream-", "the type is not there yet"),
    ("syslog-", "logs go to the standard output or a file"),
];

fn commands_text() -> String {
    let runs = |spec: &&CommandSpec| supports(spec);
    let plain = |spec: &&CommandSpec| !spec.is_container();
    let all = COMMANDS.iter().filter(plain).count();
    let done = COMMANDS.iter().filter(plain).filter(runs).count();
    let mut text = format!(
        "<!-- Written by `cargo run -p xtask -- commands` from the command table and the engine's own list of what it runs. \
         Do not edit. -->\n\n# Commands\n\nEvery command of Redis 7.0 is in the server's command table, so that arity, flags and \
         key positions are\nright for all of them (`COMMAND` answers with Redis' own facts). The engine runs **{done} of \
         {all}**; the others\nanswer with one clear error. Those of cluster mode answer as a Redis without it does. What differs is \
         [at the end](#differences).\n\n\
         | group | runs | of |\n|---|--:|--:|\n"
    );
    for group in groups() {
        let of_group = || COMMANDS.iter().filter(plain).filter(|spec| spec.group == group);
        let _ = writeln!(
            text,
            "| [{name}](#{name}) | {} | {} |",
            of_group().filter(runs).count(),
            of_group().count(),
            name = group.name()
        );
    }
    for group in groups() {
        let _ = write!(
            text,
            "\n## {}\n\n| command | runs | arity | since | what it does |\n|---|---|--:|---|---|\n",
            group.name()
        );
        let mut rows: Vec<&CommandSpec> =
            COMMANDS.iter().filter(plain).filter(|spec| spec.group == group).collect();
        rows.sort_by_key(|spec| spec.full_name());
        for spec in rows {
            let _ = writeln!(
                text,
                "| `{}` | {} | {} | {} | {} |",
                spec.full_name().to_uppercase().replace('|', " "),
                if supports(spec) { "yes" } else { "not yet" },
                spec.arity,
                spec.since,
                spec.summary,
            );
        }
    }
    text += "\n## Differences\n\nWhat a command that runs answers otherwise than redis-server 7.0. Tests compare everything else.\n\n\
             | command | here |\n|---|---|\n";
    for (command, here) in DIFFERENCES {
        let _ = writeln!(text, "| {command} | {here} |");
    }
    text
}

/// The groups in the order of their names.
fn groups() -> Vec<Group> {
    let mut groups: Vec<Group> = COMMANDS.iter().map(|spec| spec.group).collect();
    groups.sort_by_key(|group| group.name());
    groups.dedup();
    groups
}

fn options_text() -> String {
    let mut text = String::from(
        "<!-- Written by `cargo run -p xtask -- options` from the engine's table of parameters. Do not edit. -->\n\n# Server \
         options\n\n`mtcache serve [FILE] [--NAME VALUE...]` takes redis.conf's own parameters, in a redis.conf file given as \
         first\nargument or as options, which win over the file. Defaults are Redis' but for what this product's operating \
         facts\nsay: 2 GB, allkeys-lru, append-only file on.\n",
    );
    let sections: [(&str, &str, &[Effect]); 3] = [
        (
            "In effect",
            "`live` may change with `CONFIG SET`, `protected` only with `enable-protected-configs`, `start` only at start.",
            &[Effect::Engine, Effect::Owner],
        ),
        (
            "Refused",
            "What these ask for is not there yet, and a server without it would not be the one that was asked for. Any value \
             but\nthe default ends the start with one clear line.",
            &[Effect::Refused],
        ),
        (
            "Accepted without effect",
            "So that an existing redis.conf starts. A value other than the default is reported once in the log.",
            &[Effect::Ignored],
        ),
    ];
    for (title, what, effects) in sections {
        let says_why = effects.contains(&Effect::Ignored);
        let (head, line) = if says_why { (" why |", "---|") } else { ("", "") };
        let _ = write!(
            text,
            "\n## {title}\n\n{what}\n\n| name | takes | default | changes |{head}\n|---|---|---|---|{line}\n"
        );
        for param in PARAMS.iter().filter(|param| effects.contains(&param.effect)) {
            let _ = write!(
                text,
                "| {} | {} | {} | {} |",
                names(param),
                takes(param.kind),
                code(param.default),
                match param.change {
                    Change::Live => "live",
                    Change::Protected => "protected",
                    Change::AtStart => "start",
                }
            );
            if says_why {
                let reason = WITHOUT_EFFECT.iter().find(|(start, _)| param.name.starts_with(start));
                let _ = write!(text, " {} |", reason.map_or("", |(_, reason)| reason));
            }
            text.push('\n');
        }
    }
    text
}

fn names(param: &Param) -> String {
    match param.alias {
        Some(alias) => format!("`{}`, older `{alias}`", param.name),
        None => format!("`{}`", param.name),
    }
}

fn takes(kind: Kind) -> String {
    match kind {
        Kind::Flag => "`yes` or `no`".to_owned(),
        Kind::Int(least, most) if most >= i64::from(u32::MAX) => format!("a number from {least}"),
        Kind::Int(least, most) => format!("a number, {least} to {most}"),
        Kind::Memory(0) => "a size: `100mb`".to_owned(),
        Kind::Memory(least) => format!("a size from {least} bytes"),
        Kind::MemoryOrPercent => "a size, or a percentage of `maxmemory`".to_owned(),
        Kind::Choice(words) => words.iter().map(|word| format!("`{word}`")).collect::<Vec<_>>().join(" "),
        Kind::Text => "a text".to_owned(),
        Kind::Words => "words".to_owned(),
        Kind::Octal => "permissions in octal".to_owned(),
        Kind::Save => "pairs of seconds and changes".to_owned(),
        Kind::BufferLimits => "per class of client: hard limit, soft limit, seconds".to_owned(),
        Kind::Percentiles => "percentiles".to_owned(),
        Kind::OomAdjust => "three adjustments".to_owned(),
        Kind::Events => "classes of event".to_owned(),
        Kind::ShutdownOptions => "`default`, or some of `save` `nosave` `now` `force`".to_owned(),
    }
}

/// A value as code; an empty one has no code to show.
fn code(value: &str) -> String {
    if value.is_empty() { "none".to_owned() } else { format!("`{value}`") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_command_is_in_the_reference_with_its_state() {
        let text = commands_text();
        for spec in COMMANDS.iter().filter(|spec| !spec.is_container()) {
            let start = format!("| `{}` | ", spec.full_name().to_uppercase().replace('|', " "));
            let row = text.lines().find(|line| line.starts_with(&start)).unwrap_or_else(|| panic!("{start}"));
            assert_eq!(row[start.len()..].starts_with("yes"), supports(spec), "{row}");
        }
    }

    #[test]
    fn every_option_is_in_the_reference_once() {
        let text = options_text();
        for param in PARAMS {
            let start = format!("| `{}`", param.name);
            let is_row =
                |line: &&str| line.strip_prefix(&start).is_some_and(|rest| rest.starts_with([' ', ',']));
            assert_eq!(text.lines().filter(is_row).count(), 1, "{}", param.name);
        }
    }
}
