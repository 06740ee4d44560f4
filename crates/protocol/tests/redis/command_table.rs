//! The command table and key positions, as COMMAND tells them.

use std::collections::{BTreeMap, BTreeSet};

use mtcache_protocol::{
    AclCategories, COMMANDS, CommandSpec, Frame, KeyRef, Reply, Version, decode_frame, lookup, top_level,
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

/// A row without what the table leaves out on purpose (notes on key specifications) and with subcommands, which
/// Redis lists in no order, by name.
fn comparable(row: &Frame) -> Frame {
    let mut row = row.as_elements().unwrap().to_vec();
    let specs = row[8].as_elements().unwrap().iter().map(|spec| match spec {
        Frame::Map(pairs) => {
            Frame::Map(pairs.iter().filter(|(name, _)| text(name) != "notes").cloned().collect())
        }
        other => {
            let pairs = other.as_elements().unwrap().chunks(2);
            Frame::Array(pairs.filter(|pair| text(&pair[0]) != "notes").flatten().cloned().collect())
        }
    });
    row[8] = Frame::Set(specs.collect());
    let mut subcommands: Vec<Frame> = row[9].as_elements().unwrap().iter().map(comparable).collect();
    subcommands.sort_by_key(|sub| text(&sub.as_elements().unwrap()[0]));
    row[9] = Frame::Array(subcommands);
    Frame::Array(row)
}

#[test]
fn rows_say_what_command_says() {
    let server = Server::start(&[]);
    let mut connection = server.connect();
    for version in [Version::Resp2, Version::Resp3] {
        connection.words(&format!("HELLO {}", version.number()));
        let reply = connection.words("COMMAND");
        let rows = reply.as_elements().unwrap();
        assert_eq!(rows.len(), top_level().len());
        for theirs in rows {
            let name = text(&theirs.as_elements().unwrap()[0]);
            let mut ours = Reply::new(version);
            lookup(name.as_bytes()).unwrap_or_else(|| panic!("{name}")).write_info(&mut ours);
            let (ours, _) = decode_frame(ours.as_bytes()).unwrap().unwrap();
            assert_eq!(comparable(&ours), comparable(theirs), "{name}");
        }
    }
}

#[test]
fn categories_list_the_same_commands() {
    let server = Server::start(&[]);
    let mut connection = server.connect();
    let names = owned(AclCategories::all().map(|(name, _)| name));
    assert_eq!(texts(&connection.words("ACL CAT")), names);
}

fn compare_docs(name: &str, ours: &BTreeMap<String, &Frame>, theirs: &BTreeMap<String, &Frame>) {
    for fact in ["since", "group", "deprecated_since", "doc_flags"] {
        assert_eq!(ours.get(fact), theirs.get(fact), "{name}: {fact}");
    }
    assert_ne!(ours["summary"], theirs["summary"], "{name}: the summary is to be ours");
    let subcommands = theirs.get("subcommands").map(|frame| fields(frame)).unwrap_or_default();
    let described = ours.get("subcommands").map(|frame| fields(frame)).unwrap_or_default();
    assert!(described.keys().eq(subcommands.keys()), "{name}");
    for (name, theirs) in subcommands {
        compare_docs(&name, &fields(described[&name]), &fields(theirs));
    }
}

#[test]
fn docs_agree_on_facts() {
    let server = Server::start(&[]);
    let reply = server.connect().words("COMMAND DOCS");
    let docs = fields(&reply);
    for spec in top_level() {
        let mut ours = Reply::new(Version::Resp2);
        spec.write_docs(&mut ours);
        let (ours, _) = decode_frame(ours.as_bytes()).unwrap().unwrap();
        compare_docs(spec.name, &fields(&ours), &fields(docs[spec.name]));
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
        // Redis parses the options of these two to find STREAMS and takes the first one in place; the key
        // specification, which we follow, looks from a fixed argument on. They differ where STREAMS comes too early.
        let is_streams = |arg: &&[u8]| arg.eq_ignore_ascii_case(b"STREAMS");
        if spec.name.starts_with("xread") && args.iter().position(is_streams).is_some_and(|at| at < 4) {
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
}
