//! A subscriber's side of the comparison. How many replies a subscription command gives depends on what is subscribed, so each
//! is followed by a PING with a text of its own, and everything before that PING's reply belongs to the command.

use std::io;

use crate::args;
use crate::client::Client;
use crate::generate::draw::Args;
use crate::resp::Value;

const MARK: &str = "everything before this has been read";

/// Sends a command; all that arrives because of it, where the order is not determined sorted.
pub(crate) fn command(client: &mut Client, args: &Args) -> io::Result<Vec<Value>> {
    client.send(args)?;
    let mut values = received(client)?;
    let name = args[0].to_ascii_uppercase();
    if args.len() == 1 && matches!(name.as_slice(), b"UNSUBSCRIBE" | b"PUNSUBSCRIBE") {
        sort_channels(&mut values);
    }
    Ok(values)
}

/// All that has arrived; messages that match several patterns come in any order among themselves.
pub(crate) fn received(client: &mut Client) -> io::Result<Vec<Value>> {
    client.send(&args!["PING", MARK])?;
    let mut values = Vec::new();
    loop {
        let value = client.next_value()?;
        if is_mark(&value) {
            break;
        }
        values.push(value);
    }
    for run in values.chunk_by_mut(|one, other| message(one).is_some() && message(one) == message(other)) {
        run.sort();
    }
    Ok(values)
}

fn is_mark(value: &Value) -> bool {
    let mark = |value: &Value| value.bytes() == Some(MARK.as_bytes());
    match value {
        // A RESP2 subscriber's PING is answered like a message.
        Value::Array(parts) => parts.len() == 2 && parts[0].bytes() == Some(b"pong") && mark(&parts[1]),
        other => mark(other),
    }
}

/// Channel and payload of a message.
fn message(value: &Value) -> Option<(Vec<u8>, Vec<u8>)> {
    let parts = value.elements()?;
    let offset = match parts.first()?.bytes()? {
        b"message" => 1,
        b"pmessage" => 2,
        _ => return None,
    };
    Some((parts.get(offset)?.bytes()?.to_vec(), parts.get(offset + 1)?.bytes()?.to_vec()))
}

/// UNSUBSCRIBE from everything names the channels in any order; the counts that remain are in order.
fn sort_channels(values: &mut [Value]) {
    let name_at = 1;
    let mut names: Vec<Value> = values
        .iter()
        .filter_map(|value| value.elements()?.get(name_at).map(|name| (*name).clone()))
        .collect();
    names.sort();
    let mut names = names.into_iter();
    for value in values {
        if let (Value::Array(parts) | Value::Push(parts), Some(name)) = (value, names.next())
            && let Some(part) = parts.get_mut(name_at)
        {
            *part = name;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn push(parts: &[&str]) -> Value {
        Value::Push(parts.iter().map(|part| Value::Bulk((*part).into())).collect())
    }

    #[test]
    fn unsubscribing_from_all_compares_names_as_a_set_and_counts_in_order() {
        let reply = |name: &str, left| {
            Value::Push(vec![
                Value::Bulk(b"unsubscribe".to_vec()),
                Value::Bulk(name.into()),
                Value::Integer(left),
            ])
        };
        let (mut one, mut two) = (vec![reply("a", 1), reply("b", 0)], vec![reply("b", 1), reply("a", 0)]);
        sort_channels(&mut one);
        sort_channels(&mut two);
        assert_eq!(one, two);
    }

    #[test]
    fn a_message_is_known_by_channel_and_payload() {
        assert_eq!(message(&push(&["message", "c", "m"])), message(&push(&["pmessage", "c*", "c", "m"])));
        assert_eq!(message(&push(&["subscribe", "c", "1"])), None);
    }
}
