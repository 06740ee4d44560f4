//! Slots of a cluster as the link needs them: those of a command's keys, and a text for each.
//!
//! Invariant: which arguments are keys is the command table's word, so that no command is sent by a guess. Deliberately absent: which node
//! serves a slot.

use std::sync::OnceLock;

use mtcache_protocol::{CLUSTER_SLOTS, KeyIndices, key_slot, lookup, lookup_sub};

use crate::command::Command;
use crate::error::{Error, Result};

/// The slot in which all keys of a command are; none if it has no keys.
pub(crate) fn of_command(command: &Command) -> Result<Option<u16>> {
    let words: Vec<&[u8]> = command.words().collect();
    one_slot(keys(&words)?.into_iter())
}

/// The slot in which all keys of several commands are.
pub(crate) fn of_commands<'a>(commands: impl IntoIterator<Item = &'a Command>) -> Result<Option<u16>> {
    let mut slots = Vec::new();
    for command in commands {
        slots.extend(of_command(command)?);
    }
    same(slots.into_iter())
}

/// The slot in which all these keys are.
pub(crate) fn one_slot<'a>(keys: impl Iterator<Item = &'a [u8]>) -> Result<Option<u16>> {
    same(keys.map(key_slot))
}

/// Calls `with` for each key of a command.
pub fn each_key(command: &Command, mut with: impl FnMut(&[u8])) {
    let words: Vec<&[u8]> = command.words().collect();
    for key in keys(&words).unwrap_or_default() {
        with(key);
    }
}

/// The smallest number whose decimal text has this slot.
pub fn slot_text(slot: u16) -> u32 {
    static TEXTS: OnceLock<Vec<u32>> = OnceLock::new();
    let texts = TEXTS.get_or_init(|| {
        let mut texts = vec![None; usize::from(CLUSTER_SLOTS)];
        let mut left = texts.len();
        for n in 0_u32.. {
            let place = &mut texts[usize::from(key_slot(n.to_string().as_bytes()))];
            if place.is_none() {
                *place = Some(n);
                left -= 1;
                if left == 0 {
                    break;
                }
            }
        }
        texts.into_iter().map(Option::unwrap_or_default).collect()
    });
    texts[usize::from(slot % CLUSTER_SLOTS)]
}

fn keys<'a>(words: &[&'a [u8]]) -> Result<Vec<&'a [u8]>> {
    let Some(name) = words.first() else { return Ok(Vec::new()) };
    let unknown = || {
        let name = String::from_utf8_lossy(name).into_owned();
        Error::config(format!("it is not known which arguments of {name} are keys, so no node can be chosen"))
    };
    let mut spec = lookup(name).ok_or_else(unknown)?;
    if spec.is_container()
        && let Some(sub) = words.get(1).and_then(|name| lookup_sub(spec, name))
    {
        spec = sub;
    }
    let mut indices = KeyIndices::new();
    spec.keys(words, &mut indices).map_err(|_| unknown())?;
    Ok(indices.iter().filter_map(|index| words.get(*index).copied()).collect())
}

fn same(mut slots: impl Iterator<Item = u16>) -> Result<Option<u16>> {
    let Some(first) = slots.next() else { return Ok(None) };
    if slots.all(|slot| slot == first) {
        return Ok(Some(first));
    }
    // The server's words: it would say the same.
    Err(Error::server("CROSSSLOT", Some("Keys in request don't hash to the same slot")))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn slot(line: &str) -> Result<Option<u16>> {
        let mut words = line.split(' ');
        of_command(&Command::new(words.next().unwrap_or_default()).args(words))
    }

    #[test]
    fn a_commands_slot_is_that_of_its_keys() {
        let a = Some(key_slot(b"a"));
        for line in [
            "GET a",
            "set a x",
            "DEL a {a}b",
            "EVALSHA h 2 a {a}x y",
            "ZUNIONSTORE a 2 {a}1 {a}2",
            "OBJECT FREQ a",
        ] {
            assert_eq!(slot(line).unwrap(), a, "{line}");
        }
        for line in ["PING", "EVAL s 0 x", "FLUSHDB", "CLUSTER SLOTS", "SCRIPT FLUSH"] {
            assert_eq!(slot(line).unwrap(), None, "{line}");
        }
    }

    #[test]
    fn keys_of_two_slots_and_unknown_commands_are_refused_here() {
        for line in ["DEL a b", "MSET a 1 b 2", "EVAL s 2 a b"] {
            assert_eq!(slot(line).unwrap_err().code(), Some("CROSSSLOT"), "{line}");
        }
        assert!(slot("NOSUCH a").is_err());
    }

    proptest! {
        #[test]
        fn a_slots_text_has_that_slot(slot in 0..CLUSTER_SLOTS) {
            prop_assert_eq!(key_slot(slot_text(slot).to_string().as_bytes()), slot);
        }
    }
}
