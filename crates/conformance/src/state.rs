//! All that a server holds, taken through ordinary commands, and how two such states differ: 16 databases, and for each key
//! its type, its encoding, whether and when it expires, and its value. Keys come from complete SCANs and are compared as a set.

use std::collections::BTreeMap;
use std::io;

use crate::args;
use crate::client::Client;
use crate::generate::draw::Args;
use crate::normalise::{equal, sorted, sorted_pairs};
use crate::resp::Value;

/// How many databases a server has by default.
const DATABASES: u8 = 16;

/// One key's value and properties.
#[derive(Debug, Clone)]
pub struct Entry {
    kind: Value,
    encoding: Value,
    remaining: Value,
    value: Value,
}

/// A server's data by database and key.
pub type State = BTreeMap<(u8, Vec<u8>), Entry>;

/// Takes the state over a RESP2 connection; the connection ends up in the last database.
pub fn take(client: &mut Client) -> io::Result<State> {
    let mut state = State::new();
    for database in 0..DATABASES {
        let replies = client.pipeline(&[args!["SELECT", database.to_string()], args!["DBSIZE"]])?;
        if replies[1] == Value::Integer(0) {
            continue;
        }
        let keys = scan_all(client, &args!["SCAN", "0", "COUNT", "1000"])?;
        for keys in keys.chunks(256) {
            take_keys(client, database, keys, &mut state)?;
        }
    }
    Ok(state)
}

/// What differs between two states, one line for each key; empty when nothing does.
pub fn differences(ours: &State, theirs: &State) -> Vec<String> {
    let mut lines = Vec::new();
    for (at, entry) in theirs {
        match ours.get(at) {
            None => lines.push(format!("{}: only theirs has it: {entry:?}", place(at))),
            Some(own) => describe(at, own, entry, &mut lines),
        }
    }
    for (at, entry) in ours {
        if !theirs.contains_key(at) {
            lines.push(format!("{}: only ours has it: {entry:?}", place(at)));
        }
    }
    lines
}

/// Follows a SCAN, HSCAN, SSCAN or ZSCAN from cursor 0 to its end; all that it returned, with repetitions.
pub fn scan_all(client: &mut Client, scan: &Args) -> io::Result<Vec<Vec<u8>>> {
    let cursor_at = if scan[0].eq_ignore_ascii_case(b"SCAN") { 1 } else { 2 };
    let mut scan = scan.clone();
    let mut found = Vec::new();
    loop {
        let reply = client.command(&scan)?;
        let (cursor, items) =
            page(&reply).ok_or_else(|| io::Error::other(format!("not a page of a scan: {reply:?}")))?;
        found.extend(items);
        if cursor == b"0" {
            return Ok(found);
        }
        scan[cursor_at] = cursor;
    }
}

fn page(reply: &Value) -> Option<(Vec<u8>, Vec<Vec<u8>>)> {
    let parts = reply.elements()?;
    let [cursor, items] = parts.as_slice() else {
        return None;
    };
    let items =
        items.elements()?.into_iter().map(|item| item.bytes().map(<[u8]>::to_vec)).collect::<Option<_>>()?;
    Some((cursor.bytes()?.to_vec(), items))
}

fn take_keys(client: &mut Client, database: u8, keys: &[Vec<u8>], state: &mut State) -> io::Result<()> {
    let questions: Vec<Args> = keys
        .iter()
        .flat_map(|key| {
            let key = key.as_slice();
            [args!["TYPE", key], args!["OBJECT", "ENCODING", key], args!["PTTL", key]]
        })
        .collect();
    let properties = client.pipeline(&questions)?;
    let reads: Vec<Args> =
        keys.iter().zip(properties.chunks(3)).map(|(key, properties)| read(key, &properties[0])).collect();
    let values = client.pipeline(&reads)?;
    for ((key, properties), value) in keys.iter().zip(properties.chunks(3)).zip(values) {
        let [kind, encoding, remaining] = properties else {
            continue;
        };
        let value = match kind.bytes() {
            Some(b"set") => sorted(value),
            Some(b"hash") => sorted_pairs(value),
            _ => value,
        };
        let entry =
            Entry { kind: kind.clone(), encoding: encoding.clone(), remaining: remaining.clone(), value };
        state.insert((database, key.clone()), entry);
    }
    Ok(())
}

fn read(key: &[u8], kind: &Value) -> Args {
    match kind.bytes() {
        Some(b"list") => args!["LRANGE", key, "0", "-1"],
        Some(b"set") => args!["SMEMBERS", key],
        Some(b"hash") => args!["HGETALL", key],
        Some(b"zset") => args!["ZRANGE", key, "0", "-1", "WITHSCORES"],
        Some(b"string") => args!["GET", key],
        _ => args!["EXISTS", key],
    }
}

fn describe(at: &(u8, Vec<u8>), ours: &Entry, theirs: &Entry, lines: &mut Vec<String>) {
    let mut line = |what: &str, ours: &Value, theirs: &Value| {
        lines.push(format!("{}: {what}: ours {ours:?}, theirs {theirs:?}", place(at)));
    };
    if ours.kind != theirs.kind {
        return line("type", &ours.kind, &theirs.kind);
    }
    if ours.encoding != theirs.encoding {
        line("encoding", &ours.encoding, &theirs.encoding);
    }
    if !equal(&args!["PTTL"], &ours.remaining, &theirs.remaining) {
        line("expiry", &ours.remaining, &theirs.remaining);
    }
    if ours.value != theirs.value {
        line("value", &ours.value, &theirs.value);
    }
}

fn place((database, key): &(u8, Vec<u8>)) -> String {
    format!("db {database} key \"{}\"", key.escape_ascii())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(encoding: &str, remaining: i64, value: &str) -> Entry {
        let text = |text: &str| Value::Bulk(text.into());
        Entry {
            kind: Value::Simple(b"string".to_vec()),
            encoding: text(encoding),
            remaining: Value::Integer(remaining),
            value: text(value),
        }
    }

    #[test]
    fn every_property_of_a_key_is_compared() {
        let state = |entry: Entry| State::from([((3, b"k".to_vec()), entry)]);
        let base = state(entry("raw", -1, "v"));
        assert!(differences(&base, &base).is_empty());
        for other in [entry("embstr", -1, "v"), entry("raw", 1_000_000, "v"), entry("raw", -1, "w")] {
            assert_eq!(differences(&base, &state(other)).len(), 1);
        }
        assert_eq!(differences(&base, &State::new()).len(), 1);
        assert_eq!(differences(&State::new(), &base).len(), 1);
    }
}
