//! Keyspace notifications: which classes of event exist.
//!
//! Commands report every event; whether anybody hears of it is the engine's decision, by `notify-keyspace-events`.

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
}
