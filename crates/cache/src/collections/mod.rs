//! Views of keys that hold more than one value.
//!
//! Invariant: fields, members and values go through the same codec as plain values. Deliberately absent: fill tokens: collections are written
//! in place, never filled by loaders.

mod hashes;
mod sorted_sets;

pub use self::hashes::HashView;
pub use self::sorted_sets::{Bound, ScoreRange, SortedSetView, ZaddOptions};
