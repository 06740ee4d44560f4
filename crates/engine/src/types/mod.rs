//! The value types of the engine: hashes, lists, sets and sorted sets with Redis 7.0's encodings and thresholds.
//!
//! They are plain single-threaded data structures. They know no keys, expiry, clock, protocol or random source (a
//! random choice comes in as an index), and each tells in O(1) how many heap bytes it holds, because `maxmemory`
//! depends on it. Nothing here panics or recurses deeper than the logarithm of the size, drops included.

mod allocation;
mod blob;
mod counted_tree;
mod dense;
mod hash;
mod int_set;
mod limits;
mod list;
mod list_node;
mod member;
mod packed;
mod scored_pack;
mod scored_table;
mod set;
mod sorted_keys;
mod sorted_set;
mod split_index;

pub(crate) use self::member::parse_int as canonical_int;
pub use self::{
    allocation::allocation_size,
    hash::{Hash, HashIter},
    limits::EncodingLimits,
    list::{List, ListEnd, ListIter},
    member::Member,
    packed::{Packed, PackedIter, Position},
    set::{Difference, Intersection, Set, SetIter},
    sorted_set::{LexBound, ScoreBound, ScoreChange, SortedSet, SortedSetIter},
};
