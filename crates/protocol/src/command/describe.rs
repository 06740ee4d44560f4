//! A row as COMMAND INFO and COMMAND DOCS answer with it.
//!
//! The shapes are Redis': sets and maps in RESP3, arrays in RESP2, so clients that learn commands from the
//! server (cluster clients, proxies, redis-cli) can. Argument grammars, histories and notes are left out.

use super::flags::CommandFlags;
use super::key_spec::{BeginSearch, FindKeys, KeySpec};
use super::{CommandSpec, Deprecation};
use crate::encode::Reply;

impl CommandSpec {
    /// Writes the row's ten elements as COMMAND INFO shows them, subcommands included.
    pub fn write_info(&self, reply: &mut Reply) {
        reply.array(10);
        reply.bulk(self.full_name().as_bytes());
        reply.integer(self.arity.into());
        write_names(self.flags.without(CommandFlags::HIDDEN).names(), reply);
        let range = self.legacy_range;
        for position in [range.first, range.last, range.step] {
            reply.integer(position.into());
        }
        reply.set(self.acl_categories.names().count());
        for category in self.acl_categories.names() {
            reply.simple(&format!("@{category}"));
        }
        reply.set(self.tips.len());
        for tip in self.tips {
            reply.bulk(tip.as_bytes());
        }
        reply.set(self.key_specs.len());
        for spec in self.key_specs {
            write_key_spec(spec, reply);
        }
        // None at all is an empty set, as Redis has it.
        if self.subcommands.is_empty() {
            reply.set(0);
        } else {
            reply.array(self.subcommands.len());
        }
        for sub in self.subcommands {
            sub.write_info(reply);
        }
    }

    /// Writes the map of facts that COMMAND DOCS shows under the command's name.
    pub fn write_docs(&self, reply: &mut Reply) {
        let mark = reply.begin_deferred();
        let mut entries = 0;
        let mut entry = |name: &str, value: &str, reply: &mut Reply| {
            if !value.is_empty() {
                reply.bulk(name.as_bytes());
                reply.bulk(value.as_bytes());
                entries += 1;
            }
        };
        entry("summary", self.summary, reply);
        entry("since", self.since, reply);
        entry("group", self.group.name(), reply);
        entry("complexity", self.complexity, reply);
        if let Some(Deprecation { since, replaced_by }) = self.deprecated {
            entry("deprecated_since", since, reply);
            entry("replaced_by", replaced_by, reply);
        }
        let internal = self.flags.contains(CommandFlags::INTERNAL).then_some("syscmd");
        let doc_flags = || self.deprecated.map(|_| "deprecated").into_iter().chain(internal);
        if doc_flags().next().is_some() {
            reply.bulk(b"doc_flags");
            write_names(doc_flags(), reply);
            entries += 1;
        }
        if self.is_container() {
            reply.bulk(b"subcommands");
            reply.map(self.subcommands.len());
            for sub in self.subcommands {
                reply.bulk(sub.full_name().as_bytes());
                sub.write_docs(reply);
            }
            entries += 1;
        }
        reply.end_map(mark, entries);
    }
}

fn write_names<'a>(names: impl Iterator<Item = &'a str>, reply: &mut Reply) {
    let mark = reply.begin_deferred();
    let mut count = 0;
    for name in names {
        reply.simple(name);
        count += 1;
    }
    reply.end_set(mark, count);
}

fn write_key_spec(spec: &KeySpec, reply: &mut Reply) {
    reply.map(3);
    reply.bulk(b"flags");
    write_names(spec.flags.names(), reply);
    reply.bulk(b"begin_search");
    match spec.begin {
        BeginSearch::Index(at) => write_step("index", &[("index", at.into())], reply),
        BeginSearch::Keyword { keyword, from } => {
            write_step_head("keyword", 2, reply);
            reply.bulk(b"keyword");
            reply.bulk(keyword.as_bytes());
            reply.bulk(b"startfrom");
            reply.integer(from.into());
        }
        BeginSearch::Unknown => write_step("unknown", &[], reply),
    }
    reply.bulk(b"find_keys");
    match spec.find {
        FindKeys::Range { last, step, limit } => {
            let numbers = [("lastkey", last.into()), ("keystep", step.into()), ("limit", limit.into())];
            write_step("range", &numbers, reply);
        }
        FindKeys::KeyNum { index, first, step } => {
            let numbers = [("keynumidx", index.into()), ("firstkey", first.into()), ("keystep", step.into())];
            write_step("keynum", &numbers, reply);
        }
        FindKeys::Unknown => write_step("unknown", &[], reply),
    }
}

fn write_step(kind: &str, numbers: &[(&str, i64)], reply: &mut Reply) {
    write_step_head(kind, numbers.len(), reply);
    for (name, number) in numbers {
        reply.bulk(name.as_bytes());
        reply.integer(*number);
    }
}

fn write_step_head(kind: &str, fields: usize, reply: &mut Reply) {
    reply.map(2);
    reply.bulk(b"type");
    reply.bulk(kind.as_bytes());
    reply.bulk(b"spec");
    reply.map(fields);
}
