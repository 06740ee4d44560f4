//! The command table and key positions, as COMMAND tells them.

use std::collections::{BTreeMap, BTreeSet};

use mtcache_protocol::{
    AclCategories, BeginSearch, COMMANDS, CommandFlags, CommandSpec, FindKeys, Frame, KeyRef, KeySpec,
    lookup, top_level,
};

use crate::server::{Connection, Random, Server};

fn text(frame: &Frame) -> String {
    String::from_utf8(frame.as_bytes().unwrap().to_vec()).unwrap()
}

fn texts(frame: &Frame) -> BTreeSet<String> {
    frame.as_elements().unwrap().iter().map(text).collect()
}

/// A RESP2 reply of alternating keys and values.
fn fields(frame: &Frame) -> BTreeMap<String, &Frame> {
    frame.as_elements().unwrap().chunks(2).map(|pair| (text(&pair[0]), &pair[1])).collect()
}

fn owned<'a>(names: impl Iterator<Item = &'a str>) -> BTreeSet<String> {
    names.map(str::to_owned).collect()
}

fn compare_row(row: &Frame) -> usize {
    let row = row.as_elements().unwrap();
    let name = text(&row[0]);
    let spec = COMMANDS.iter().find(|spec| spec.full_name() == name).unwrap_or_else(|| panic!("{name}"));
    assert_eq!(row[1], Frame::Integer(spec.arity.into()), "{name}: arity");
    assert_eq!(texts(&row[2]), owned(spec.flags.without(CommandFlags::HIDDEN).names()), "{name}: flags");
    let range = spec.legacy_range;
    let range = [range.first, range.last, range.step].map(|n| Frame::Integer(n.into()));
    assert_eq!(row[3..6], range, "{name}: first, last, step");
    let categories = spec.acl_categories.names().map(|name| format!("@{name}")).collect();
    assert_eq!(texts(&row[6]), categories, "{name}: categories");
    assert_eq!(texts(&row[7]), owned(spec.tips.iter().copied()), "{name}: tips");
    let specs = row[8].as_elements().unwrap();
    assert_eq!(specs.len(), spec.key_specs.len(), "{name}: key specifications");
    for (theirs, ours) in specs.iter().zip(spec.key_specs) {
        compare_key_spec(&name, &fields(theirs), ours);
    }
    let subcommands = row[9].as_elements().unwrap();
    assert_eq!(subcommands.len(), spec.subcommands.len(), "{name}: subcommands");
    1 + subcommands.iter().map(compare_row).sum::<usize>()
}

fn compare_key_spec(name: &str, theirs: &BTreeMap<String, &Frame>, ours: &KeySpec) {
    assert_eq!(texts(theirs["flags"]), owned(ours.flags.names()), "{name}: key flags");
    let number = |n: i64| Frame::Integer(n);
    let (kind, expected) = match ours.begin {
        BeginSearch::Index(at) => ("index", vec![("index", number(at.into()))]),
        BeginSearch::Keyword { keyword, from } => {
            ("keyword", vec![("keyword", Frame::bulk(keyword)), ("startfrom", number(from.into()))])
        }
        BeginSearch::Unknown => ("unknown", vec![]),
    };
    compare_step(name, theirs["begin_search"], kind, &expected);
    let (kind, expected) = match ours.find {
        FindKeys::Range { last, step, limit } => {
            let numbers = [("lastkey", last.into()), ("keystep", step.into()), ("limit", limit.into())];
            ("range", numbers.map(|(name, n)| (name, number(n))).to_vec())
        }
        FindKeys::KeyNum { index, first, step } => {
            let numbers = [("keynumidx", index.into()), ("firstkey", first.into()), ("keystep", step.into())];
            ("keynum", numbers.map(|(name, n)| (name, number(n))).to_vec())
        }
        FindKeys::Unknown => ("unknown", vec![]),
    };
    compare_step(name, theirs["find_keys"], kind, &expected);
}

fn compare_step(name: &str, theirs: &Frame, kind: &str, expected: &[(&str, Frame)]) {
    let theirs = fields(theirs);
    assert_eq!(text(theirs["type"]), kind, "{name}");
    let step = fields(theirs["spec"]);
    assert_eq!(step.len(), expected.len(), "{name}");
    for (field, value) in expected {
        assert_eq!(step[*field], value, "{name}: {field}");
    }
}

#[test]
fn rows_say_what_command_says() {
    let server = Server::start(&[]);
    let reply = server.connect().words("COMMAND");
    let rows = reply.as_elements().unwrap();
    assert_eq!(rows.len(), top_level().len());
    assert_eq!(rows.iter().map(compare_row).sum::<usize>(), COMMANDS.len());
}

#[test]
fn categories_list_the_same_commands() {
    let server = Server::start(&[]);
    let mut connection = server.connect();
    let names = owned(AclCategories::all().map(|(name, _)| name));
    assert_eq!(texts(&connection.words("ACL CAT")), names);
}

fn compare_docs(spec: &CommandSpec, docs: &BTreeMap<String, &Frame>) {
    let name = spec.full_name();
    assert_eq!(text(docs["since"]), spec.since, "{name}");
    assert_eq!(text(docs["group"]), spec.group.name(), "{name}");
    assert_eq!(
        docs.get("deprecated_since").map(|f| text(f)).as_deref(),
        spec.deprecated.map(|d| d.since),
        "{name}"
    );
    assert_ne!(text(docs["summary"]), spec.summary, "{name}: the summary is to be ours");
    let internal = docs.get("doc_flags").is_some_and(|flags| texts(flags).contains("syscmd"));
    assert_eq!(spec.flags.contains(CommandFlags::INTERNAL), internal, "{name}");
    if let Some(subcommands) = docs.get("subcommands") {
        let subcommands = fields(subcommands);
        for sub in spec.subcommands {
            compare_docs(sub, &fields(subcommands[sub.full_name()]));
        }
    }
}

#[test]
fn docs_agree_on_facts() {
    let server = Server::start(&[]);
    let reply = server.connect().words("COMMAND DOCS");
    let docs = fields(&reply);
    for spec in top_level() {
        compare_docs(spec, &fields(docs[spec.name]));
    }
}

/// What COMMAND GETKEYSANDFLAGS finds; `None` when it answers with an error.
fn their_keys(connection: &mut Connection, args: &[&[u8]]) -> Option<Vec<(Vec<u8>, BTreeSet<String>)>> {
    let mut call: Vec<&[u8]> = vec![b"COMMAND", b"GETKEYSANDFLAGS"];
    call.extend_from_slice(args);
    let reply = connection.call(&call);
    let found = reply.as_elements()?;
    Some(
        found
            .iter()
            .map(|pair| {
                let pair = pair.as_elements().unwrap();
                (pair[0].as_bytes().unwrap().to_vec(), texts(&pair[1]))
            })
            .collect(),
    )
}

#[test]
fn keys_are_found_where_redis_finds_them() {
    let server = Server::start(&[]);
    let mut connection = server.connect();
    let mut random = Random::new();
    let words = [
        "0",
        "1",
        "2",
        "3",
        "-1",
        "a",
        "b",
        "c",
        "STORE",
        "store",
        "STOREDIST",
        "STREAMS",
        "KEYS",
        "GET",
        "BY",
        "LIMIT",
        "COPY",
        "AUTH",
        "AUTH2",
        "",
        "INCRBY",
        "u8",
        "WEIGHTS",
        "00",
    ];
    let with_keys: Vec<&CommandSpec> = COMMANDS.iter().filter(|spec| !spec.key_specs.is_empty()).collect();
    for round in 0..40_000 {
        let spec = with_keys[round % with_keys.len()];
        let mut args: Vec<&[u8]> = spec.full_name().split('|').map(str::as_bytes).collect();
        let least = spec.arity.unsigned_abs() as usize;
        let count = if spec.arity < 0 { least + random.below(6) } else { least };
        while args.len() < count {
            args.push(random.pick(&words).as_bytes());
        }
        // With several destinations Redis names the first and writes the last; we name all.
        let is_store = |arg: &&&[u8]| arg.to_ascii_lowercase().starts_with(b"store");
        if spec.name.starts_with("georadius") && args.iter().filter(is_store).count() > 1 {
            continue;
        }
        let mut found = smallvec::SmallVec::<[KeyRef; 8]>::new();
        let ours = mtcache_protocol::keys_with_flags(spec, &args, &mut found).ok().map(|()| {
            found.iter().map(|key| (args[key.index].to_vec(), owned(key.flags.names()))).collect::<Vec<_>>()
        });
        let mut indices = mtcache_protocol::KeyIndices::new();
        let fast = spec.keys(&args, &mut indices);
        assert_eq!(fast.is_ok(), ours.is_some());
        assert!(indices.iter().copied().eq(found.iter().map(|key| key.index)));

        let theirs = their_keys(&mut connection, &args);
        let shown: Vec<String> = args.iter().map(|arg| arg.escape_ascii().to_string()).collect();
        // Redis answers with an error where there are no keys, be that right or wrong.
        assert_eq!(ours.unwrap_or_default(), theirs.unwrap_or_default(), "{shown:?}");
    }
    assert!(lookup(b"get").is_some());
}
