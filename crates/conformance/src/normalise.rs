//! How the replies of two servers to one command are compared. Invariant: whatever is not named here is compared as it is, and
//! error replies are always compared to the letter. Pure: no sockets.
//!
//! The written normalisations: replies without an order are sorted; times to live may differ by the time between the two
//! servers; identities, clocks and sizes are compared by shape; what Redis chooses at random, and SCAN, are left to
//! `chance.rs`, which checks properties.

use crate::allowed::allowed;
use crate::resp::Value;

/// How far apart two servers may run the same command, in milliseconds; expiries in tests are at least 1000 seconds.
const APART: i64 = 60_000;

/// How two replies are compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Comparison {
    /// They are equal.
    Exact,
    /// They have the same elements in any order.
    Unordered,
    /// They have the same pairs of elements in any order.
    UnorderedPairs,
    /// As `Unordered`, at every depth, without the notes that are prose for people.
    CommandInfo,
    /// Times in seconds, equal but for the time between the servers.
    NearSeconds,
    /// Times in milliseconds, likewise.
    NearMilliseconds,
    /// HELLO's properties without the connection's id.
    Hello,
    /// They are of the same type.
    Shape,
    /// By property, with a look at the data (not by [`equal`]).
    Random,
    /// The scan is completed and compared as a set (not by [`equal`]).
    CompleteScan,
}

/// How replies to this command are compared.
pub fn comparison(args: &[Vec<u8>]) -> Comparison {
    if let Some(entry) = allowed(args) {
        return entry.compared_as;
    }
    let word = |position: usize| args.get(position).map_or_else(Vec::new, |arg| arg.to_ascii_uppercase());
    match (word(0).as_slice(), word(1).as_slice()) {
        (b"SMEMBERS" | b"SINTER" | b"SUNION" | b"SDIFF" | b"HKEYS" | b"HVALS" | b"KEYS", _)
        | (b"PUBSUB", b"CHANNELS") => Comparison::Unordered,
        (b"HGETALL", _) | (b"CONFIG", b"GET") => Comparison::UnorderedPairs,
        // All of them are too many to compare here, and not the same ones.
        (b"COMMAND", b"INFO") if args.len() == 2 => Comparison::Shape,
        (b"COMMAND", b"INFO") => Comparison::CommandInfo,
        (b"TTL" | b"EXPIRETIME", _) => Comparison::NearSeconds,
        (b"PTTL" | b"PEXPIRETIME", _) => Comparison::NearMilliseconds,
        (b"HELLO", _) => Comparison::Hello,
        (b"TIME" | b"LASTSAVE" | b"INFO", _)
        | (b"CLIENT", b"ID" | b"INFO" | b"LIST")
        | (b"OBJECT", b"IDLETIME") => Comparison::Shape,
        (b"SPOP" | b"SRANDMEMBER" | b"HRANDFIELD" | b"ZRANDMEMBER" | b"RANDOMKEY", _) => Comparison::Random,
        (b"SCAN" | b"HSCAN" | b"SSCAN" | b"ZSCAN", _) => Comparison::CompleteScan,
        _ => Comparison::Exact,
    }
}

/// Whether two replies to this command count as the same.
pub fn equal(args: &[Vec<u8>], ours: &Value, theirs: &Value) -> bool {
    if ours == theirs {
        return true;
    }
    if ours.error().is_some() || theirs.error().is_some() {
        return false;
    }
    match comparison(args) {
        Comparison::Exact | Comparison::Random | Comparison::CompleteScan => false,
        Comparison::Unordered => sorted(ours.clone()) == sorted(theirs.clone()),
        Comparison::UnorderedPairs => sorted_pairs(ours.clone()) == sorted_pairs(theirs.clone()),
        Comparison::CommandInfo => deeply_sorted(ours.clone()) == deeply_sorted(theirs.clone()),
        Comparison::NearSeconds => near(ours, theirs, APART / 1_000),
        Comparison::NearMilliseconds => near(ours, theirs, APART),
        Comparison::Hello => without_id(ours.clone()) == without_id(theirs.clone()),
        Comparison::Shape => same_type(ours, theirs),
    }
}

/// Whether EXEC's replies count as the same, each by its own command.
pub fn equal_transaction(queued: &[Vec<Vec<u8>>], ours: &Value, theirs: &Value) -> bool {
    match (ours, theirs) {
        (Value::Array(ours), Value::Array(theirs)) => {
            ours.len() == theirs.len()
                && ours.len() == queued.len()
                && queued
                    .iter()
                    .zip(ours.iter().zip(theirs))
                    .all(|(args, (ours, theirs))| equal(args, ours, theirs))
        }
        _ => ours == theirs,
    }
}

/// The elements sorted, where there are any.
pub fn sorted(value: Value) -> Value {
    match value {
        Value::Array(mut items) => {
            items.sort();
            Value::Array(items)
        }
        Value::Set(mut items) => {
            items.sort();
            Value::Set(items)
        }
        other => other,
    }
}

/// The pairs sorted, in a map or in a flat array.
pub fn sorted_pairs(value: Value) -> Value {
    match value {
        Value::Map(mut pairs) => {
            pairs.sort();
            Value::Map(pairs)
        }
        Value::Array(items) if items.len() % 2 == 0 => {
            let mut pairs: Vec<[Value; 2]> =
                items.chunks_exact(2).map(|pair| [pair[0].clone(), pair[1].clone()]).collect();
            pairs.sort();
            Value::Array(pairs.into_iter().flatten().collect())
        }
        other => other,
    }
}

fn deeply_sorted(value: Value) -> Value {
    let is_note = |key: &Value| key.bytes() == Some(b"notes");
    sorted(match value {
        Value::Array(items) if items.first().is_some_and(is_note) => {
            Value::Array(items.into_iter().skip(2).map(deeply_sorted).collect())
        }
        Value::Map(pairs) if pairs.first().is_some_and(|(key, _)| is_note(key)) => {
            return deeply_sorted(Value::Map(pairs.into_iter().skip(1).collect()));
        }
        Value::Array(items) => Value::Array(items.into_iter().map(deeply_sorted).collect()),
        Value::Set(items) => Value::Set(items.into_iter().map(deeply_sorted).collect()),
        Value::Map(pairs) => sorted_pairs(Value::Map(
            pairs.into_iter().map(|(key, value)| (key, deeply_sorted(value))).collect(),
        )),
        other => other,
    })
}

fn near(ours: &Value, theirs: &Value, tolerance: i64) -> bool {
    match (ours, theirs) {
        // -1 and -2 say that there is no expiry, or no key.
        (Value::Integer(ours), Value::Integer(theirs)) if *ours >= 0 && *theirs >= 0 => {
            ours.abs_diff(*theirs) <= tolerance as u64
        }
        _ => false,
    }
}

fn without_id(value: Value) -> Value {
    let id = |key: &Value| key.bytes() == Some(b"id");
    match value {
        Value::Map(pairs) => Value::Map(pairs.into_iter().filter(|(key, _)| !id(key)).collect()),
        Value::Array(items) => {
            Value::Array(items.chunks(2).filter(|pair| !id(&pair[0])).flatten().cloned().collect())
        }
        other => other,
    }
}

fn same_type(ours: &Value, theirs: &Value) -> bool {
    std::mem::discriminant(ours) == std::mem::discriminant(theirs)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args;

    fn bulk(text: &str) -> Value {
        Value::Bulk(text.into())
    }

    #[test]
    fn order_counts_unless_the_command_has_none() {
        let (one, two) = (Value::Array(vec![bulk("a"), bulk("b")]), Value::Array(vec![bulk("b"), bulk("a")]));
        assert!(equal(&args!["smembers", "k"], &one, &two));
        assert!(!equal(&args!["LRANGE", "k", "0", "-1"], &one, &two));
        assert!(!equal(&args!["SMEMBERS", "k"], &one, &Value::Array(vec![bulk("a")])));
    }

    #[test]
    fn fields_stay_with_their_values() {
        let reply = |items: [&str; 4]| Value::Array(items.map(bulk).to_vec());
        assert!(equal(&args!["HGETALL", "k"], &reply(["a", "1", "b", "2"]), &reply(["b", "2", "a", "1"])));
        assert!(!equal(&args!["HGETALL", "k"], &reply(["a", "1", "b", "2"]), &reply(["a", "2", "b", "1"])));
    }

    #[test]
    fn errors_are_compared_to_the_letter_whatever_the_command() {
        let (one, two) = (Value::Error(b"ERR a".to_vec()), Value::Error(b"ERR b".to_vec()));
        for args in [args!["TTL", "k"], args!["INFO"], args!["SMEMBERS", "k"], args!["MEMORY", "USAGE", "k"]]
        {
            assert!(!equal(&args, &one, &two));
            assert!(!equal(&args, &one, &Value::Integer(1)));
        }
    }

    #[test]
    fn a_time_to_live_may_be_off_a_little_but_not_absent() {
        let args = args!["TTL", "k"];
        assert!(equal(&args, &Value::Integer(5_000), &Value::Integer(4_999)));
        assert!(!equal(&args, &Value::Integer(5_000), &Value::Integer(6_000)));
        assert!(!equal(&args, &Value::Integer(-1), &Value::Integer(-2)));
        assert!(!equal(&args, &Value::Integer(-1), &Value::Integer(0)));
    }

    #[test]
    fn a_transaction_is_compared_command_by_command() {
        let queued = [args!["SMEMBERS", "k"], args!["GET", "k"]];
        let reply = |first: [&str; 2], second: &str| {
            Value::Array(vec![Value::Array(first.map(bulk).to_vec()), bulk(second)])
        };
        assert!(equal_transaction(&queued, &reply(["a", "b"], "v"), &reply(["b", "a"], "v")));
        assert!(!equal_transaction(&queued, &reply(["a", "b"], "v"), &reply(["a", "b"], "w")));
        assert!(!equal_transaction(&queued, &Value::NullArray, &reply(["a", "b"], "w")));
    }

    #[test]
    fn different_nulls_differ() {
        assert!(!equal(&args!["GET", "k"], &Value::NullBulk, &Value::NullArray));
        assert!(!equal(&args!["GET", "k"], &Value::NullBulk, &Value::Null));
    }
}
