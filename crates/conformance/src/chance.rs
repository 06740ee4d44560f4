//! Commands whose replies are a matter of chance or of the server's own order: SPOP and its relatives are checked by property
//! against the data, then both sides are brought to the same data; scans are followed to their end and compared as sets.

use std::collections::BTreeSet;
use std::io;

use crate::args;
use crate::client::Client;
use crate::generate::draw::Args;
use crate::normalise::equal;
use crate::resp::Value;
use crate::state::scan_all;

/// Runs a command that chooses at random on both sides; `Some` says what is wrong with the replies.
pub(crate) fn compare_random(
    args: &Args,
    ours: &mut Client,
    theirs: &mut Client,
) -> io::Result<Option<String>> {
    let name = args[0].to_ascii_uppercase();
    let question = match (name.as_slice(), args.get(1)) {
        (b"RANDOMKEY", _) => Some(args!["KEYS", "*"]),
        (b"HRANDFIELD", Some(key)) => Some(args!["HGETALL", key.as_slice()]),
        (b"ZRANDMEMBER", Some(key)) => Some(args!["ZRANGE", key.as_slice(), "0", "-1", "WITHSCORES"]),
        (_, Some(key)) => Some(args!["SMEMBERS", key.as_slice()]),
        _ => None,
    };
    let before = match &question {
        Some(question) => ask(ours, question)?,
        None => Value::Null,
    };
    let (own, other) = (ours.command(args)?, theirs.command(args)?);
    if own.error().is_some() || other.error().is_some() || own.is_null() || other.is_null() {
        return Ok((own != other).then(|| format!("ours {own:?}, theirs {other:?}")));
    }
    let population = Population::of(&name, &before);
    for (side, reply) in [("ours", &own), ("theirs", &other)] {
        if let Some(fault) = population.fault(args, reply) {
            return Ok(Some(format!("{side} {reply:?}: {fault}; there was {before:?}")));
        }
    }
    if shape(&own) != shape(&other) {
        return Ok(Some(format!("ours {own:?}, theirs {other:?}: of another form")));
    }
    if name == b"SPOP" && own != other {
        even_out(&args[1], ours, theirs)?;
    }
    Ok(None)
}

/// Runs a scan to its end on both sides; `Some` says how the replies differ.
pub(crate) fn compare_scan(
    args: &Args,
    ours: &mut Client,
    theirs: &mut Client,
) -> io::Result<Option<String>> {
    let (own, other) = (ours.command(args)?, theirs.command(args)?);
    if own.error().is_some() || other.error().is_some() {
        return Ok((!equal(args, &own, &other)).then(|| format!("ours {own:?}, theirs {other:?}")));
    }
    let cursor_at = usize::from(!args[0].eq_ignore_ascii_case(b"SCAN")) + 1;
    if args.get(cursor_at).is_none_or(|cursor| cursor != b"0") {
        // A page from the middle of a scan that never began can be anything.
        return Ok(None);
    }
    let pairs = matches!(args[0].to_ascii_uppercase().as_slice(), b"HSCAN" | b"ZSCAN");
    let (own, other) = (elements(scan_all(ours, args)?, pairs), elements(scan_all(theirs, args)?, pairs));
    Ok((own != other).then(|| format!("complete scan: ours {own:?}, theirs {other:?}")))
}

fn ask(client: &mut Client, question: &Args) -> io::Result<Value> {
    let reply = client.command(question)?;
    Ok(if reply.error().is_some() { Value::Array(Vec::new()) } else { reply })
}

fn elements(found: Vec<Vec<u8>>, pairs: bool) -> BTreeSet<Vec<Vec<u8>>> {
    if pairs {
        return found.chunks(2).map(<[_]>::to_vec).collect();
    }
    found.into_iter().map(|item| vec![item]).collect()
}

/// Makes both sets anew with what theirs has left, and the expiry that it had. Taking out what only they popped would not do:
/// Redis' choice of encoding for the rest depends on what the rest happens to be.
fn even_out(key: &[u8], ours: &mut Client, theirs: &mut Client) -> io::Result<()> {
    let left = texts(&theirs.command(&args!["SMEMBERS", key])?);
    let expiry = theirs.command(&args!["PEXPIRETIME", key])?;
    let mut add = args!["SADD", key];
    add.extend(left);
    let mut commands = vec![args!["DEL", key]];
    if add.len() > 2 {
        commands.push(add);
    }
    if let Some(expiry) = expiry.integer().filter(|expiry| *expiry > 0) {
        commands.push(args!["PEXPIREAT", key, expiry]);
    }
    ours.pipeline(&commands)?;
    theirs.pipeline(&commands)?;
    Ok(())
}

fn texts(value: &Value) -> BTreeSet<Vec<u8>> {
    match value.elements() {
        Some(items) => items.into_iter().filter_map(|item| item.bytes().map(<[u8]>::to_vec)).collect(),
        None => value.bytes().map(<[u8]>::to_vec).into_iter().collect(),
    }
}

/// The types in a reply without their content; only the first of equal elements.
fn shape(value: &Value) -> String {
    let inside = |items: Vec<&Value>| {
        format!("{}[{}]", items.len(), items.first().map_or_else(String::new, |item| shape(item)))
    };
    match value {
        Value::Array(_) => format!("array{}", inside(value.elements().unwrap_or_default())),
        Value::Set(_) => format!("set{}", inside(value.elements().unwrap_or_default())),
        Value::Map(_) => format!("map{}", inside(value.elements().unwrap_or_default())),
        Value::Bulk(_) => "bulk".to_owned(),
        Value::Simple(_) => "simple".to_owned(),
        Value::Double(_) => "double".to_owned(),
        other => format!("{other:?}"),
    }
}

/// What could be chosen: members, or members with what belongs to them (a hash's value, a score).
struct Population {
    members: Vec<(Vec<u8>, Option<Vec<u8>>)>,
}

impl Population {
    fn of(name: &[u8], before: &Value) -> Self {
        let flat: Vec<Vec<u8>> = flatten(before);
        let members = if matches!(name, b"HRANDFIELD" | b"ZRANDMEMBER") {
            flat.chunks(2).map(|pair| (pair[0].clone(), pair.get(1).cloned())).collect()
        } else {
            flat.into_iter().map(|member| (member, None)).collect()
        };
        Self { members }
    }

    fn fault(&self, args: &Args, reply: &Value) -> Option<String> {
        let paired = args.len() > 3;
        let chosen = flatten(reply);
        let chosen: Vec<_> = if paired {
            chosen.chunks(2).map(|pair| (pair[0].clone(), pair.get(1).cloned())).collect()
        } else {
            chosen.into_iter().map(|member| (member, None)).collect()
        };
        let known = |(member, value): &(Vec<u8>, Option<Vec<u8>>)| {
            self.members.iter().any(|(own, belongs)| own == member && (value.is_none() || value == belongs))
        };
        if let Some((stranger, _)) = chosen.iter().find(|choice| !known(choice)) {
            return Some(format!("\"{}\" was not there", stranger.escape_ascii()));
        }
        let wanted = match args.get(2).and_then(|count| std::str::from_utf8(count).ok()?.parse::<i64>().ok())
        {
            None => 1,
            Some(_) if self.members.is_empty() => 0,
            Some(count) if count < 0 => count.unsigned_abs() as usize,
            Some(count) => {
                let distinct: BTreeSet<_> = chosen.iter().map(|(member, _)| member).collect();
                if distinct.len() != chosen.len() {
                    return Some("an element was chosen twice".to_owned());
                }
                (count as usize).min(self.members.len())
            }
        };
        (chosen.len() != wanted).then(|| format!("{wanted} were due"))
    }
}

fn flatten(value: &Value) -> Vec<Vec<u8>> {
    match value.elements() {
        Some(items) => items.into_iter().flat_map(flatten).collect(),
        None => value.bytes().map(<[u8]>::to_vec).into_iter().collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reply(items: &[&str]) -> Value {
        Value::Array(items.iter().map(|item| Value::Bulk((*item).into())).collect())
    }

    #[test]
    fn a_choice_must_be_there_be_distinct_and_be_as_many_as_asked() {
        let population = Population::of(b"SRANDMEMBER", &reply(&["a", "b", "c"]));
        let args = args!["SRANDMEMBER", "k", "2"];
        assert_eq!(population.fault(&args, &reply(&["a", "c"])), None);
        assert!(population.fault(&args, &reply(&["a", "x"])).is_some());
        assert!(population.fault(&args, &reply(&["a", "a"])).is_some());
        assert!(population.fault(&args, &reply(&["a"])).is_some());
        assert_eq!(population.fault(&args!["SRANDMEMBER", "k", "-4"], &reply(&["a", "a", "a", "b"])), None);
        assert_eq!(population.fault(&args!["SRANDMEMBER", "k"], &Value::Bulk(b"b".to_vec())), None);
    }

    #[test]
    fn a_value_must_belong_to_its_field() {
        let population = Population::of(b"HRANDFIELD", &reply(&["a", "1", "b", "2"]));
        let args = args!["HRANDFIELD", "k", "1", "WITHVALUES"];
        assert_eq!(population.fault(&args, &reply(&["b", "2"])), None);
        assert!(population.fault(&args, &reply(&["b", "1"])).is_some());
    }
}
