//! Finds a command by its name in any case: a small hash table that is built while compiling.
//!
//! A name is packed into three words (its ends, and its middle when it is long), so that folding the case,
//! hashing and comparing are a few operations on integers. No allocation, no locks.

use super::table::{COMMANDS, TOP_LEVEL_COUNT};
use super::{CommandId, CommandSpec};

/// Slots of the hash table: about four per name, so that nearly every name is in its first slot.
const SLOTS: usize = 1024;
const EMPTY: u16 = u16::MAX;

static INDEX: [u16; SLOTS] = build();
static NAMES: [Packed; TOP_LEVEL_COUNT] = pack_names();

/// The command called `name`, in any case; subcommands are found by [`lookup_sub`].
///
/// ```
/// let get = mtcache_protocol::lookup(b"Get").unwrap();
/// assert_eq!((get.name, get.arity), ("get", 2));
/// assert!(mtcache_protocol::lookup(b"nonsense").is_none());
/// ```
#[inline]
pub fn lookup(name: &[u8]) -> Option<&'static CommandSpec> {
    let packed = Packed::new(name)?;
    let mut slot = packed.slot();
    loop {
        let id = *INDEX.get(slot)?;
        if id == EMPTY {
            return None;
        }
        if *NAMES.get(usize::from(id))? == packed {
            return Some(CommandId(id).spec());
        }
        slot = (slot + 1) % SLOTS;
    }
}

/// Finds commands as [`lookup`] does, and with less work the one that was asked for last, written in the same way: commands come in runs.
#[derive(Debug, Clone, Copy, Default)]
pub struct RecentCommand {
    /// The last short name and its length; no name is empty. What it names follows.
    name: (u64, usize),
    spec: Option<&'static CommandSpec>,
}

impl RecentCommand {
    /// The command called `name`, in any case.
    #[inline]
    pub fn lookup(&mut self, name: &[u8]) -> Option<&'static CommandSpec> {
        let Some(word) = short_word(name) else { return lookup(name) };
        if self.name != (word, name.len()) {
            *self = Self { name: (word, name.len()), spec: lookup(name) };
        }
        self.spec
    }
}

/// The bytes of a name of up to eight in one word, from which, with the length, it can be told from any other.
#[inline]
fn short_word(name: &[u8]) -> Option<u64> {
    Some(match name {
        [a] => u64::from(*a),
        [a, b] => u64::from(*a) | u64::from(*b) << 8,
        [a, b, c] => u64::from(*a) | u64::from(*b) << 8 | u64::from(*c) << 16,
        [_, _, _, _]
        | [_, _, _, _, _]
        | [_, _, _, _, _, _]
        | [_, _, _, _, _, _, _]
        | [_, _, _, _, _, _, _, _] => {
            let (first, last) = (name.first_chunk()?, name.last_chunk()?);
            u64::from(u32::from_le_bytes(*first)) | u64::from(u32::from_le_bytes(*last)) << 32
        }
        _ => return None,
    })
}

/// The subcommand of `container` called `name`, in any case.
pub fn lookup_sub(container: &CommandSpec, name: &[u8]) -> Option<&'static CommandSpec> {
    container.subcommands.iter().find(|sub| sub.name.as_bytes().eq_ignore_ascii_case(name))
}

/// A name of at most 24 bytes in lower case.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Packed {
    ends: [u64; 2],
    middle: u64,
    len: usize,
}

impl Packed {
    const NONE: Self = Self { ends: [0; 2], middle: 0, len: 0 };

    /// `None` for what is too long for any command, or empty.
    #[inline]
    const fn new(name: &[u8]) -> Option<Self> {
        let len = name.len();
        let (first, last, middle) = match name {
            [] | [_, _, _, _, _, _, _, _, _, _, _, _, _, _, _, _, _, _, _, _, _, _, _, _, _, ..] => {
                return None;
            }
            [a] => (*a as u64, 0, 0),
            [a, b] => (*a as u64 | (*b as u64) << 8, 0, 0),
            [a, b, c] => (*a as u64 | (*b as u64) << 8 | (*c as u64) << 16, 0, 0),
            _ => match (name.first_chunk(), name.last_chunk()) {
                (Some(first), Some(last)) => {
                    let (_, rest) = name.split_at(8);
                    let middle = match rest.first_chunk() {
                        Some(middle) if len > 16 => u64::from_le_bytes(*middle),
                        _ => 0,
                    };
                    (u64::from_le_bytes(*first), u64::from_le_bytes(*last), middle)
                }
                _ => match (name.first_chunk(), name.last_chunk()) {
                    (Some(first), Some(last)) => {
                        (u32::from_le_bytes(*first) as u64, u32::from_le_bytes(*last) as u64, 0)
                    }
                    _ => return None,
                },
            },
        };
        Some(Self { ends: [lower(first), lower(last)], middle: lower(middle), len })
    }

    #[inline]
    const fn slot(self) -> usize {
        let mixed = self.ends[0].wrapping_mul(0x9e37_79b9_7f4a_7c15)
            ^ self.ends[1].rotate_left(29).wrapping_mul(0xd6e8_feb8_6659_fd93)
            ^ self.middle
            ^ self.len as u64;
        (mixed.wrapping_mul(0xff51_afd7_ed55_8ccd) >> 40) as usize % SLOTS
    }

    /// Comparison for constants, where `==` cannot be used.
    const fn same(self, other: Self) -> bool {
        self.ends[0] == other.ends[0]
            && self.ends[1] == other.ends[1]
            && self.middle == other.middle
            && self.len == other.len
    }
}

/// Folds the ASCII letters among eight bytes to lower case, all at once.
#[inline]
const fn lower(word: u64) -> u64 {
    const EACH: u64 = 0x0101_0101_0101_0101;
    let low_bits = word & (0x7f * EACH);
    let from_a = low_bits + (0x80 - b'A' as u64) * EACH;
    let beyond_z = low_bits + (0x7f - b'Z' as u64) * EACH;
    let upper = !word & (from_a ^ beyond_z) & (0x80 * EACH);
    word | upper >> 2
}

#[allow(clippy::indexing_slicing, clippy::panic, reason = "runs while compiling")]
const fn pack_names() -> [Packed; TOP_LEVEL_COUNT] {
    let mut names = [Packed::NONE; TOP_LEVEL_COUNT];
    let mut at = 0;
    while at < TOP_LEVEL_COUNT {
        names[at] = match Packed::new(COMMANDS[at].name.as_bytes()) {
            Some(packed) => packed,
            None => panic!("a command's name is longer than 24 bytes"),
        };
        at += 1;
    }
    names
}

#[allow(clippy::indexing_slicing, clippy::panic, reason = "runs while compiling")]
const fn build() -> [u16; SLOTS] {
    let names = pack_names();
    let mut index = [EMPTY; SLOTS];
    let mut at = 0;
    while at < TOP_LEVEL_COUNT {
        let mut slot = names[at].slot();
        while index[slot] != EMPTY {
            assert!(!names[index[slot] as usize].same(names[at]), "two commands have the same name");
            slot = (slot + 1) % SLOTS;
        }
        index[slot] = at as u16;
        at += 1;
    }
    index
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_found_in_any_case_and_nothing_else_is() {
        for spec in super::super::top_level() {
            assert_eq!(lookup(spec.name.as_bytes()).unwrap().id, spec.id);
            assert_eq!(lookup(spec.name.to_uppercase().as_bytes()).unwrap().id, spec.id);
            for at in 0..spec.name.len() {
                let mut other = spec.name.as_bytes().to_vec();
                // What a careless case folding would take for the same letter.
                other[at] ^= 0x80;
                assert!(lookup(&other).is_none());
                other[at] ^= 0x80 ^ 0x40;
                assert!(lookup(&other).is_none(), "{other:?}");
            }
        }
        for absent in ["", "g", "getx", "GETT", "subscribers", "restore_asking", "averyveryveryverylongname"]
        {
            assert!(lookup(absent.as_bytes()).is_none(), "{absent}");
        }
    }

    #[test]
    fn what_was_found_last_is_found_again_and_taken_for_nothing_else() {
        let names: Vec<Vec<u8>> = super::super::top_level()
            .iter()
            .flat_map(|spec| [spec.name.as_bytes().to_vec(), spec.name.to_uppercase().into_bytes()])
            .chain(
                ["", "g", "ge", "getx", "nonsense", "averyveryveryverylongname"]
                    .map(|name| name.as_bytes().to_vec()),
            )
            .collect();
        let mut recent = RecentCommand::default();
        for name in &names {
            let expected = lookup(name).map(|spec| spec.id);
            for _ in 0..2 {
                assert_eq!(recent.lookup(name).map(|spec| spec.id), expected);
            }
            // Names that differ from the last one in one byte, or in length.
            for at in 0..name.len() {
                let mut other = name.clone();
                other[at] ^= 0x21;
                assert_eq!(recent.lookup(&other).map(|spec| spec.id), lookup(&other).map(|spec| spec.id));
                assert_eq!(
                    recent.lookup(&name[..at]).map(|spec| spec.id),
                    lookup(&name[..at]).map(|spec| spec.id)
                );
                assert_eq!(recent.lookup(name).map(|spec| spec.id), expected);
            }
        }
    }

    #[test]
    fn folding_changes_letters_alone() {
        for byte in 0..=u8::MAX {
            let word = u64::from_le_bytes([byte, b'A', byte, b'z', 0, 0xff, byte, byte]);
            let folded = lower(word).to_le_bytes();
            let expected = word.to_le_bytes().map(|b| b.to_ascii_lowercase());
            assert_eq!(folded, expected);
        }
    }

    #[test]
    fn nearly_every_name_is_in_its_first_slot() {
        let displaced =
            NAMES.iter().enumerate().filter(|(at, name)| INDEX[name.slot()] != *at as u16).count();
        assert!(displaced * 4 < TOP_LEVEL_COUNT, "{displaced} of {TOP_LEVEL_COUNT}");
    }
}
