//! Where a command's keys are, said as data: find a starting point, then find keys from there.
//!
//! The model is that of Redis 7's key specifications. Two shorter forms are derived from it while compiling:
//! the shape that the hot path uses and the first/last/step triple that COMMAND has shown since 2.8.

use super::flags::KeyFlags;

/// One group of keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KeySpec {
    /// How the first of them is found.
    pub begin: BeginSearch,
    /// How the others follow.
    pub find: FindKeys,
    /// What the command does with them.
    pub flags: KeyFlags,
}

/// Where the search for keys begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BeginSearch {
    /// At this argument.
    Index(u8),
    /// Behind this word.
    Keyword {
        /// The word, in any case.
        keyword: &'static str,
        /// First argument that may be the word; negative counts from the end and searches backwards.
        from: i8,
    },
    /// No rule says it.
    Unknown,
}

/// Which arguments from the beginning on are keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FindKeys {
    /// A run of arguments.
    Range {
        /// Offset of the last key from the first; negative counts from the end of the arguments.
        last: i8,
        /// Every how many arguments there is a key.
        step: u8,
        /// With a negative `last`: keys end after this fraction of the rest (2: half of it); 0 and 1: all.
        limit: u8,
    },
    /// As many as an argument says.
    KeyNum {
        /// Offset of the argument with the number.
        index: u8,
        /// Offset of the first key.
        first: u8,
        /// Every how many arguments there is a key.
        step: u8,
    },
    /// No rule says it.
    Unknown,
}

/// First key, last key (negative: from the end) and step, as COMMAND shows them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct LegacyRange {
    /// Position of the first key, 0 for none.
    pub first: i32,
    /// Position of the last key.
    pub last: i32,
    /// Distance between keys.
    pub step: i32,
}

/// What the hot path needs to know about key positions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyShape {
    /// No keys at all.
    None,
    /// Exactly one key, right behind the name.
    First,
    /// Keys from the first argument on: up to the end less `tail` arguments, every `step`.
    Run {
        /// Arguments behind the last possible key.
        tail: u8,
        /// Distance between keys.
        step: u8,
    },
    /// The arguments decide.
    Search,
}

impl KeySpec {
    const fn run(self) -> Option<(i32, i32, i32)> {
        match (self.begin, self.find) {
            (BeginSearch::Index(at), FindKeys::Range { last, step, limit: 0 | 1 }) => {
                Some((at as i32, last as i32, step as i32))
            }
            _ => None,
        }
    }
}

impl KeyShape {
    /// The shape that `specs` amount to.
    pub(super) const fn of(specs: &[KeySpec]) -> Self {
        let spec = match specs {
            [] => return Self::None,
            [spec] if spec.flags.contains(KeyFlags::NOT_KEY) => return Self::None,
            [spec] => spec,
            _ => return Self::Search,
        };
        match spec.run() {
            Some((1, 0, _)) => Self::First,
            Some((1, last @ -128..=-1, step)) => Self::Run { tail: (-1 - last) as u8, step: step as u8 },
            _ => Self::Search,
        }
    }
}

impl LegacyRange {
    /// Redis' rule: one range as it is; several only while they follow each other without a gap.
    pub(super) const fn of(specs: &[KeySpec]) -> Self {
        if let [only] = specs {
            return match (only.begin, only.find) {
                (BeginSearch::Index(at), FindKeys::Range { last, step, .. }) => {
                    let (at, last) = (at as i32, last as i32);
                    Self { first: at, last: if last >= 0 { at + last } else { last }, step: step as i32 }
                }
                _ => Self { first: 0, last: 0, step: 0 },
            };
        }
        let (mut first, mut last) = (i32::MAX, 0_i32);
        let mut rest = specs;
        while let [spec, tail @ ..] = rest {
            rest = tail;
            let Some((at, offset, step)) = spec.run() else { continue };
            if step != 1 || last != 0 && last != at - 1 {
                break;
            }
            if at < first {
                first = at;
            }
            let end = if offset >= 0 { at + offset } else { offset };
            // A negative end, counted from the back, is behind every positive one.
            if end as u32 > last as u32 {
                last = end;
            }
        }
        if first == i32::MAX {
            return Self { first: 0, last: 0, step: 0 };
        }
        Self { first, last, step: 1 }
    }
}
