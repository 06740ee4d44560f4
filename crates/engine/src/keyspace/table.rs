//! A hash table of entries that keeps them in the order of their positions, and grows a little at a time.
//!
//! A *position* is the upper half of a key's hash. The range of positions is divided into leaves of up to 1,568 entries,
//! found through a directory by their first bits (extendible hashing: R. Fagin and others, 1979). A leaf is an array of
//! buckets of one cache line, eight entries each, and the next 16 bits of the position are the entry's tag: they say in
//! which bucket it belongs and tell it from almost all others there without a look at its key. What finds its bucket full
//! goes into the next (linear probing). A leaf grows by a fifth or so without reading a key; a full one is split in two,
//! the only step that does.
//!
//! Invariants: from an entry's home bucket to the one that it lies in, all but the last are full; the entries of a bucket
//! lie in its first places; each place of the directory names the leaf whose range it is in. So a look-up ends at the first
//! bucket with room, a walk in the order of positions can go on from any of them however the table has grown or
//! shrunk meanwhile, and a random entry is found in O(1). Deliberately absent: which keys are equal, what is expired.

use super::entry::Entry;
use super::eviction::{random, random_below};
use crate::prefetch::prefetch_value;

/// The upper half of a key's hash: where in the order of all entries its entry lies.
pub(crate) type Position = u32;

/// Where an entry is; valid until the next insertion or removal in its database.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Slot {
    leaf: u32,
    cell: u32,
}

/// Entries in a bucket: as many as a cache line holds.
const BUCKET: usize = 8;
/// Entries per bucket, on average, at which a leaf grows: seven eighths of the places.
const FULL: usize = 7;
/// Entries per bucket at which a leaf shrinks.
const SPARSE: usize = 3;
/// Buckets of the largest leaf. It is 14 KB, the largest size that allocators keep in slabs.
const MAX_BUCKETS: usize = 224;
/// A leaf with fewer entries than this looks whether it can be merged with its other half.
const MERGE_BELOW: usize = 192;
/// Two halves are merged when they have at most this many entries together.
const MERGED: usize = 512;
/// Bits of a position that the directory goes by at most. With 16 more as the tag, that is all of it; leaves of that depth
/// grow on instead of being split.
const MAX_DEPTH: u32 = 16;
/// Leaves that are looked into for a random entry before any that is not empty will do.
const MAX_TRIES: usize = 1000;
/// Bits of a position.
const BITS: u32 = Position::BITS;

/// Entries in the order of their positions; see the module.
#[derive(Default)]
pub(super) struct Table {
    /// 2^`depth` places, each with the number of a leaf; empty as long as nothing was ever inserted.
    directory: Vec<u32>,
    depth: u32,
    leaves: Vec<Leaf>,
    len: usize,
}

/// The entries whose positions begin with the `depth` bits of `prefix`.
struct Leaf {
    buckets: Vec<Bucket>,
    len: usize,
    prefix: u32,
    depth: u32,
}

/// One cache line.
#[derive(Default)]
#[repr(align(64))]
struct Bucket([Option<Entry>; BUCKET]);

impl Table {
    #[inline]
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// The entry at this position that `is_it` accepts.
    #[inline]
    pub(super) fn find(&self, position: Position, is_it: impl Fn(&Entry) -> bool) -> Option<Slot> {
        let number = self.leaf_of(position)?;
        let leaf = self.leaves.get(number as usize)?;
        let cell = leaf.find(tag_of(position, leaf.depth), is_it)?;
        Some(Slot { leaf: number, cell })
    }

    /// Asks for the bucket in which an entry at this position would be looked for.
    #[inline]
    pub(super) fn prefetch_bucket(&self, position: Position) {
        if let Some((leaf, tag)) = self.home(position)
            && let Some(bucket) = leaf.buckets.get(home_of(tag, leaf.buckets.len()))
        {
            prefetch_value(bucket);
        }
    }

    /// Asks for what an entry at this position holds, as far as its bucket alone tells which that is.
    #[inline]
    pub(super) fn prefetch_entry(&self, position: Position) {
        if let Some((leaf, tag)) = self.home(position)
            && let Some(bucket) = leaf.buckets.get(home_of(tag, leaf.buckets.len()))
            && let Some(entry) = bucket.0.iter().flatten().find(|entry| entry.tag() == tag)
        {
            entry.prefetch();
        }
    }

    #[inline]
    fn home(&self, position: Position) -> Option<(&Leaf, u16)> {
        let leaf = self.leaves.get(self.leaf_of(position)? as usize)?;
        Some((leaf, tag_of(position, leaf.depth)))
    }

    #[inline]
    pub(super) fn get(&self, slot: Slot) -> Option<&Entry> {
        let bucket = self.leaves.get(slot.leaf as usize)?.buckets.get(slot.cell as usize / BUCKET)?;
        bucket.0.get(slot.cell as usize % BUCKET)?.as_ref()
    }

    /// The entry, for any change but of its key. Its tag has to stay; [`replace`](Self::replace) sees to that.
    #[inline]
    pub(super) fn get_mut(&mut self, slot: Slot) -> Option<&mut Entry> {
        let bucket = self.leaves.get_mut(slot.leaf as usize)?.buckets.get_mut(slot.cell as usize / BUCKET)?;
        bucket.0.get_mut(slot.cell as usize % BUCKET)?.as_mut()
    }

    /// Puts an entry of the same key in the place of another, which comes back.
    pub(super) fn replace(&mut self, slot: Slot, mut entry: Entry) -> Option<Entry> {
        let place = self.get_mut(slot)?;
        entry.set_tag(place.tag());
        Some(std::mem::replace(place, entry))
    }

    /// All entries, in no particular order.
    pub(super) fn iter(&self) -> impl Iterator<Item = &Entry> {
        self.leaves.iter().flat_map(|leaf| &leaf.buckets).flat_map(|bucket| &bucket.0).flatten()
    }

    /// All entries, in no particular order; they are taken out.
    pub(super) fn into_entries(self) -> impl Iterator<Item = Entry> {
        self.leaves.into_iter().flat_map(|leaf| leaf.buckets).flat_map(|bucket| bucket.0).flatten()
    }

    /// Makes room in a table that has never held anything for about so many entries: filling it then moves none of them.
    pub(super) fn reserve(&mut self, entries: usize) {
        /// How full leaves are meant to get, as a share of the largest one: chance makes some of them fuller.
        const EXPECTED: usize = MAX_BUCKETS * FULL * 3 / 4;
        if !self.leaves.is_empty() || entries < EXPECTED {
            return;
        }
        let leaves = entries.div_ceil(EXPECTED).next_power_of_two().min(1 << MAX_DEPTH);
        self.depth = leaves.ilog2();
        let share = entries.div_ceil(leaves);
        // Four standard deviations more than the mean.
        let buckets = size_for(share + 4 * share.isqrt()).min(MAX_BUCKETS);
        self.directory = (0..leaves as u32).collect();
        let leaf = |prefix| Leaf { buckets: empty(buckets), len: 0, prefix, depth: leaves.ilog2() };
        self.leaves = (0..leaves as u32).map(leaf).collect();
    }

    /// Adds an entry whose key is not there. `position_of` tells the position of any key.
    pub(super) fn insert(
        &mut self,
        position: Position,
        mut entry: Entry,
        position_of: impl Fn(&[u8]) -> Position,
    ) {
        if self.leaves.is_empty() {
            self.directory = vec![0];
            self.depth = 0;
            self.leaves.push(Leaf { buckets: Vec::new(), len: 0, prefix: 0, depth: 0 });
        }
        loop {
            let Some(number) = self.leaf_of(position) else { return };
            let Some(leaf) = self.leaves.get_mut(number as usize) else { return };
            if leaf.len < leaf.buckets.len() * FULL {
                entry.set_tag(tag_of(position, leaf.depth));
                leaf.place(entry);
                leaf.len += 1;
                self.len += 1;
                return;
            }
            let larger = next_size(leaf.buckets.len());
            if larger <= MAX_BUCKETS || leaf.depth == MAX_DEPTH {
                leaf.resize(larger);
            } else {
                self.split(number, &position_of);
            }
        }
    }

    /// Takes an entry out.
    pub(super) fn remove(&mut self, slot: Slot) -> Option<Entry> {
        let leaf = self.leaves.get_mut(slot.leaf as usize)?;
        let removed = leaf.take(slot.cell as usize)?;
        leaf.len -= 1;
        self.len -= 1;
        if leaf.len < leaf.buckets.len() * SPARSE {
            let smaller = size_for(leaf.len);
            if smaller < leaf.buckets.len() {
                leaf.resize(smaller);
            }
            if leaf.len < MERGE_BELOW {
                let mut number = slot.leaf;
                while let Some(merged) = self.merge(number) {
                    number = merged;
                }
            }
        }
        Some(removed)
    }

    /// A random entry. All are equally likely but for the few hundredths by which leaves of one depth differ in length.
    pub(super) fn random(&self) -> Option<Slot> {
        if self.len == 0 {
            return None;
        }
        // Leaves are not empty for long: they shrink, and are merged with their other halves. Only where room was made for
        // entries that never came, many may be, and then any that is not will do.
        for _ in 0..MAX_TRIES {
            let number = self.leaf_of((random() >> BITS) as Position)?;
            let leaf = self.leaves.get(number as usize)?;
            if leaf.len > 0 {
                let mut slots = std::iter::repeat_with(|| Slot {
                    leaf: number,
                    cell: random_below(leaf.buckets.len() * BUCKET) as u32,
                });
                return slots.find(|&slot| self.get(slot).is_some());
            }
        }
        let start = random_below(self.leaves.len());
        let numbers = (start..self.leaves.len()).chain(0..start);
        let mut filled = numbers.filter_map(|number| Some((number, self.leaves.get(number)?)));
        filled.find_map(|(number, leaf)| {
            let occupied = |bucket: &Bucket| bucket.0.iter().any(Option::is_some);
            let bucket = leaf.buckets.iter().position(occupied)?;
            Some(Slot { leaf: number as u32, cell: (bucket * BUCKET) as u32 })
        })
    }

    /// Visits some entries, about a bucket of them, that lie at `from` or behind, and says where to go on; nothing when the
    /// end is reached. Between two calls the table may change in any way: an entry that is there all the time is visited.
    pub(super) fn walk(&self, from: Position, mut visit: impl FnMut(Slot, &Entry)) -> Option<Position> {
        let number = self.leaf_of(from)?;
        let leaf = self.leaves.get(number as usize)?;
        let (buckets, tag) = (leaf.buckets.len(), tag_of(from, leaf.depth));
        let first_bits = u64::from(leaf.prefix) << (BITS - leaf.depth);
        let next_leaf = Position::try_from(first_bits + (1_u64 << (BITS - leaf.depth))).ok();
        if buckets == 0 {
            return next_leaf;
        }
        let home = home_of(tag, buckets);
        leaf.belonging_to(home, |cell, entry| {
            if entry.tag() >= tag {
                visit(Slot { leaf: number, cell: cell as u32 }, entry);
            }
        });
        // The first tag that belongs to the next bucket.
        let next_tag = ((home as u64 + 1) << 16).div_ceil(buckets as u64);
        if next_tag > u64::from(u16::MAX) {
            return next_leaf;
        }
        let below = next_tag << (BITS - 16);
        Some((first_bits | (below >> leaf.depth)) as Position)
    }

    /// Bytes of the leaves and the directory, without what the entries take.
    pub(super) fn memory(&self) -> usize {
        let buckets: usize = self.leaves.iter().map(|leaf| leaf.buckets.capacity()).sum();
        buckets * size_of::<Bucket>()
            + self.leaves.capacity() * size_of::<Leaf>()
            + self.directory.capacity() * size_of::<u32>()
    }

    #[inline]
    fn leaf_of(&self, position: Position) -> Option<u32> {
        self.directory.get(first_bits(position, self.depth) as usize).copied()
    }

    /// Divides a leaf in two by one more bit of its entries' positions.
    fn split(&mut self, number: u32, position_of: impl Fn(&[u8]) -> Position) {
        let Some(leaf) = self.leaves.get_mut(number as usize) else { return };
        let depth = leaf.depth + 1;
        let expected = size_for(leaf.len / 2);
        let old = std::mem::take(&mut leaf.buckets);
        let mut halves = [leaf.prefix << 1, (leaf.prefix << 1) | 1].map(|prefix| Leaf {
            buckets: empty(expected),
            len: 0,
            prefix,
            depth,
        });
        for mut entry in old.into_iter().flat_map(|bucket| bucket.0).flatten() {
            let position = position_of(entry.key());
            entry.set_tag(tag_of(position, depth));
            let [lower, upper] = &mut halves;
            let half = if first_bits(position, depth) & 1 == 0 { lower } else { upper };
            if half.len == half.buckets.len() * FULL {
                half.resize(next_size(half.buckets.len()));
            }
            half.place(entry);
            half.len += 1;
        }
        if depth > self.depth {
            self.directory = self.directory.iter().flat_map(|&leaf| [leaf, leaf]).collect();
            self.depth = depth;
        }
        let [lower, upper] = halves;
        *leaf = lower;
        self.leaves.push(upper);
        self.enter(self.leaves.len() - 1);
    }

    /// Takes a split back if both halves together have few entries, and gives the number of the leaf that is left.
    fn merge(&mut self, number: u32) -> Option<u32> {
        let leaf = self.leaves.get(number as usize).filter(|leaf| leaf.depth > 0)?;
        let (depth, prefix) = (leaf.depth - 1, leaf.prefix >> 1);
        let other = self.leaf_of((leaf.prefix ^ 1) << (BITS - leaf.depth))?;
        let half = self.leaves.get(other as usize).filter(|half| half.depth == leaf.depth)?;
        let len = leaf.len + half.len;
        if len > MERGED {
            return None;
        }
        let mut merged = Leaf { buckets: empty(size_for(len)), len, prefix, depth };
        for number in [number, other] {
            let leaf = self.leaves.get_mut(number as usize)?;
            let bit = (leaf.prefix as u16 & 1) << 15;
            for mut entry in std::mem::take(&mut leaf.buckets).into_iter().flat_map(|b| b.0).flatten() {
                entry.set_tag(bit | (entry.tag() >> 1));
                merged.place(entry);
            }
        }
        let (kept, freed) = (number.min(other), number.max(other) as usize);
        *self.leaves.get_mut(kept as usize)? = merged;
        self.enter(kept as usize);
        self.leaves.swap_remove(freed);
        self.enter(freed);
        Some(kept)
    }

    /// Writes a leaf's number into its part of the directory.
    fn enter(&mut self, number: usize) {
        let Some(leaf) = self.leaves.get(number) else { return };
        let spare = self.depth - leaf.depth;
        let first = (leaf.prefix as usize) << spare;
        if let Some(places) = self.directory.get_mut(first..first + (1 << spare)) {
            places.fill(number as u32);
        }
    }
}

impl Leaf {
    #[inline]
    fn find(&self, tag: u16, is_it: impl Fn(&Entry) -> bool) -> Option<u32> {
        let buckets = self.buckets.as_slice();
        let mut number = home_of(tag, buckets.len());
        for _ in 0..buckets.len() {
            let bucket = buckets.get(number)?;
            for (place, entry) in bucket.0.iter().enumerate() {
                if let Some(entry) = entry
                    && entry.tag() == tag
                    && is_it(entry)
                {
                    return Some((number * BUCKET + place) as u32);
                }
            }
            if !bucket.is_full() {
                return None;
            }
            number = after(number, buckets.len());
        }
        None
    }

    /// Puts an entry where its tag says; there is room.
    fn place(&mut self, entry: Entry) {
        let buckets = self.buckets.len();
        let mut number = home_of(entry.tag(), buckets);
        while let Some(bucket) = self.buckets.get_mut(number) {
            if let Some(place) = bucket.0.iter_mut().find(|place| place.is_none()) {
                *place = Some(entry);
                return;
            }
            number = after(number, buckets);
        }
    }

    /// Takes an entry out of its place, and brings those that it had displaced nearer to their homes.
    fn take(&mut self, cell: usize) -> Option<Entry> {
        let buckets = self.buckets.len();
        let mut hole = cell / BUCKET;
        let bucket = self.buckets.get_mut(hole)?;
        let mut was_full = bucket.is_full();
        let removed = bucket.take(cell % BUCKET)?;
        let mut number = hole;
        while was_full {
            number = after(number, buckets);
            if number == hole {
                break;
            }
            let from_hole = distance(hole, number, buckets);
            let Some(bucket) = self.buckets.get_mut(number) else { break };
            was_full = bucket.is_full();
            let displaced = bucket.0.iter().position(|entry| {
                let displaced_by = |entry: &Entry| distance(home_of(entry.tag(), buckets), number, buckets);
                entry.as_ref().is_some_and(|entry| displaced_by(entry) >= from_hole)
            });
            if let Some(place) = displaced
                && let Some(entry) = bucket.take(place)
                && let Some(room) = self.buckets.get_mut(hole).and_then(|bucket| bucket.0.last_mut())
            {
                *room = Some(entry);
                hole = number;
            }
        }
        Some(removed)
    }

    /// Visits the entries whose home is the given bucket.
    fn belonging_to(&self, home: usize, mut visit: impl FnMut(usize, &Entry)) {
        let buckets = self.buckets.len();
        let mut number = home;
        for _ in 0..buckets {
            let Some(bucket) = self.buckets.get(number) else { return };
            for (place, entry) in bucket.0.iter().enumerate() {
                if let Some(entry) = entry
                    && home_of(entry.tag(), buckets) == home
                {
                    visit(number * BUCKET + place, entry);
                }
            }
            if !bucket.is_full() {
                return;
            }
            number = after(number, buckets);
        }
    }

    /// Moves all entries into another number of buckets, which is large enough.
    fn resize(&mut self, buckets: usize) {
        for entry in
            std::mem::replace(&mut self.buckets, empty(buckets)).into_iter().flat_map(|b| b.0).flatten()
        {
            self.place(entry);
        }
    }
}

impl Bucket {
    #[inline]
    fn is_full(&self) -> bool {
        self.0.last().is_some_and(Option::is_some)
    }

    /// Takes an entry out; the last one takes its place.
    fn take(&mut self, place: usize) -> Option<Entry> {
        let last = self.0.iter().rposition(Option::is_some)?;
        let last = self.0.get_mut(last)?.take();
        match self.0.get_mut(place) {
            Some(hole @ Some(_)) => std::mem::replace(hole, last),
            _ => last,
        }
    }
}

/// The first `depth` bits of a position.
#[inline]
fn first_bits(position: Position, depth: u32) -> u32 {
    (u64::from(position) >> (BITS - depth)) as u32
}

/// The 16 bits of a position behind the first `depth`.
#[inline]
fn tag_of(position: Position, depth: u32) -> u16 {
    ((position << depth) >> (BITS - 16)) as u16
}

/// The bucket that an entry belongs in. It grows with the tag, so that buckets are in the order of positions.
#[inline]
fn home_of(tag: u16, buckets: usize) -> usize {
    (usize::from(tag) * buckets) >> 16
}

#[inline]
fn after(number: usize, buckets: usize) -> usize {
    if number + 1 < buckets { number + 1 } else { 0 }
}

/// How far bucket `to` lies behind bucket `from`, the first following the last.
fn distance(from: usize, to: usize, buckets: usize) -> usize {
    if to >= from { to - from } else { to + buckets - from }
}

fn empty(buckets: usize) -> Vec<Bucket> {
    std::iter::repeat_with(Bucket::default).take(buckets).collect()
}

/// The number of buckets that follows: steps of an eighth to a quarter, which are the sizes that allocators have.
fn next_size(buckets: usize) -> usize {
    match buckets {
        0..4 => buckets + 1,
        _ => buckets + (1 << (buckets.ilog2() - 2)),
    }
}

/// The number of buckets for so many entries and a few more.
fn size_for(len: usize) -> usize {
    if len == 0 {
        return 0;
    }
    let needed = (len + len / 16).div_ceil(FULL);
    let step = 1 << needed.max(4).ilog2().saturating_sub(2);
    needed.next_multiple_of(step)
}

#[cfg(test)]
#[path = "table_tests.rs"]
mod tests;
