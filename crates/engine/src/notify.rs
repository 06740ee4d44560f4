//! Keyspace notifications: which classes of event exist, and which of them are switched on.
//!
//! Commands report every event; whether anybody hears of it is the engine's decision, by `notify-keyspace-events`.

use std::fmt;

/// A class of keyspace event, by the letter that switches it on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u16)]
pub(crate) enum Class {
    /// `g`: commands that know no type, such as DEL and EXPIRE.
    Generic = 1,
    /// `$`: strings.
    String = 1 << 1,
    /// `l`: lists.
    List = 1 << 2,
    /// `s`: sets.
    Set = 1 << 3,
    /// `h`: hashes.
    Hash = 1 << 4,
    /// `z`: sorted sets.
    SortedSet = 1 << 5,
    /// `x`: a key has expired.
    Expired = 1 << 6,
    /// `e`: a key has been evicted.
    Evicted = 1 << 7,
    /// `n`: a key has been made.
    New = 1 << 8,
    /// `m`: a key was asked for that is not there.
    Miss = 1 << 12,
}

/// `t` and `d`: streams and modules, which have no events here but a letter in the setting.
const STREAM: u16 = 1 << 9;
const MODULE: u16 = 1 << 13;
/// `K`: publish to `__keyspace@db__:key`.
const KEYSPACE: u16 = 1 << 10;
/// `E`: publish to `__keyevent@db__:event`.
const KEYEVENT: u16 = 1 << 11;

/// The letters in the order in which `CONFIG GET` shows them. `A` stands for the first ten.
const LETTERS: [(u8, u16); 14] = [
    (b'g', Class::Generic as u16),
    (b'$', Class::String as u16),
    (b'l', Class::List as u16),
    (b's', Class::Set as u16),
    (b'h', Class::Hash as u16),
    (b'z', Class::SortedSet as u16),
    (b'x', Class::Expired as u16),
    (b'e', Class::Evicted as u16),
    (b't', STREAM),
    (b'd', MODULE),
    (b'n', Class::New as u16),
    (b'K', KEYSPACE),
    (b'E', KEYEVENT),
    (b'm', Class::Miss as u16),
];
const ALL: u16 = Class::Generic as u16
    | Class::String as u16
    | Class::List as u16
    | Class::Set as u16
    | Class::Hash as u16
    | Class::SortedSet as u16
    | Class::Expired as u16
    | Class::Evicted as u16
    | STREAM
    | MODULE;

/// The value of `notify-keyspace-events`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct EventClasses(u16);

impl EventClasses {
    /// From its letters; `None` if one of them means nothing.
    pub(crate) fn parse(letters: &[u8]) -> Option<Self> {
        let mut bits = 0;
        for letter in letters {
            bits |= match letter {
                b'A' => ALL,
                _ => LETTERS.iter().find(|(known, _)| known == letter)?.1,
            };
        }
        Some(Self(bits))
    }

    pub(crate) fn bits(self) -> u16 {
        self.0
    }

    #[inline]
    pub(crate) fn from_bits(bits: u16) -> Self {
        Self(bits)
    }

    /// Whether an event of this class goes anywhere.
    #[inline]
    pub(crate) fn wants(self, class: Class) -> bool {
        self.0 & class as u16 != 0 && self.0 & (KEYSPACE | KEYEVENT) != 0
    }

    pub(crate) fn to_keyspace(self) -> bool {
        self.0 & KEYSPACE != 0
    }

    pub(crate) fn to_keyevent(self) -> bool {
        self.0 & KEYEVENT != 0
    }
}

impl fmt::Display for EventClasses {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let all = self.0 & ALL == ALL;
        if all {
            f.write_str("A")?;
        }
        for (letter, bit) in LETTERS {
            // With `A` Redis leaves `n` out although it is on; tools compare this text.
            let covered = all && bit & (ALL | Class::New as u16) != 0;
            if self.0 & bit != 0 && !covered {
                write!(f, "{}", char::from(letter))?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::EventClasses;

    #[test]
    fn letters_are_shown_in_redis_order() {
        for (given, shown) in [
            ("KEA", "AKE"),
            ("gKE$", "g$KE"),
            ("KEAmnd", "AKEm"),
            ("ndtexzhsl$EKm", "$lshzxetdnKEm"),
            ("n", "n"),
            ("", ""),
        ] {
            assert_eq!(EventClasses::parse(given.as_bytes()).unwrap().to_string(), shown);
        }
        assert_eq!(EventClasses::parse(b"q"), None);
    }
}
