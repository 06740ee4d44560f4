//! The bytes that tell what kind of value follows, and the names of those that are refused.

use super::{Damage, Fault};

/// The kind of a value and the form that it is in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum ValueKind {
    /// A string.
    String,
    /// A list of strings, the form before version 7 or so.
    List,
    /// A set of strings.
    Set,
    /// A sorted set with scores as text.
    SortedSetText,
    /// A sorted set with scores as bits.
    SortedSet,
    /// A hash of strings.
    Hash,
    /// A hash in a zipmap.
    HashZipmap,
    /// A list in a ziplist.
    ListZiplist,
    /// A set in an intset.
    SetIntset,
    /// A sorted set in a ziplist.
    SortedSetZiplist,
    /// A hash in a ziplist.
    HashZiplist,
    /// A list of ziplists.
    ListOfZiplists,
    /// A hash in a listpack.
    HashListpack,
    /// A sorted set in a listpack.
    SortedSetListpack,
    /// A list of listpacks and single elements.
    ListOfListpacks,
    /// A set in a listpack.
    SetListpack,
}

impl ValueKind {
    /// The kind that a byte stands for; refuses one that is known and not supported by its name.
    pub fn from_byte(byte: u8) -> Result<Self, Fault> {
        let refused = |name: &str| Err(Fault::Unsupported(name.to_owned()));
        Ok(match byte {
            0 => Self::String,
            1 => Self::List,
            2 => Self::Set,
            3 => Self::SortedSetText,
            4 => Self::Hash,
            5 => Self::SortedSet,
            6 | 7 => return refused("a module's data type"),
            9 => Self::HashZipmap,
            10 => Self::ListZiplist,
            11 => Self::SetIntset,
            12 => Self::SortedSetZiplist,
            13 => Self::HashZiplist,
            14 => Self::ListOfZiplists,
            15 | 19 | 21 | 26 | 27 => return refused("the type stream"),
            16 => Self::HashListpack,
            17 => Self::SortedSetListpack,
            18 => Self::ListOfListpacks,
            20 => Self::SetListpack,
            22..=25 => return refused("a hash whose fields expire one by one"),
            _ => return Err(Fault::Damaged(Damage::Kind)),
        })
    }

    /// The byte that stands for this kind.
    pub fn to_byte(self) -> u8 {
        match self {
            Self::String => 0,
            Self::List => 1,
            Self::Set => 2,
            Self::SortedSetText => 3,
            Self::Hash => 4,
            Self::SortedSet => 5,
            Self::HashZipmap => 9,
            Self::ListZiplist => 10,
            Self::SetIntset => 11,
            Self::SortedSetZiplist => 12,
            Self::HashZiplist => 13,
            Self::ListOfZiplists => 14,
            Self::HashListpack => 16,
            Self::SortedSetListpack => 17,
            Self::ListOfListpacks => 18,
            Self::SetListpack => 20,
        }
    }
}

/// The name of the module that a 64-bit identifier stands for: nine letters of six bits, then a version.
pub fn module_name(id: u64) -> String {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let letter = |place: u32| LETTERS.get((id >> (10 + 6 * place)) as usize & 0x3f).copied().unwrap_or(b'?');
    (0..9).rev().map(|place| char::from(letter(place))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_and_bytes_stand_for_each_other() {
        let known = (0..=255).filter_map(|byte| Some((byte, ValueKind::from_byte(byte).ok()?)));
        assert_eq!(known.clone().count(), 16);
        assert!(known.into_iter().all(|(byte, kind)| kind.to_byte() == byte));
    }

    #[test]
    fn what_is_not_supported_is_refused_by_name() {
        for (byte, name) in [(7, "module"), (15, "stream"), (19, "stream"), (21, "stream"), (24, "hash")] {
            let text = ValueKind::from_byte(byte).unwrap_err().to_string();
            assert!(text.contains(name) && text.contains("not supported"), "{text}");
        }
        assert_eq!(ValueKind::from_byte(8), Err(Fault::Damaged(Damage::Kind)));
    }

    #[test]
    fn a_module_is_named() {
        // `ReJSON-RL` with version 3.
        let name = b"ReJSON-RL";
        let letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
        let id =
            name.iter().fold(0_u64, |id, letter| id << 6 | letters.find(char::from(*letter)).unwrap() as u64);
        assert_eq!(module_name(id << 10 | 3), "ReJSON-RL");
    }
}
