//! Where the entries of a table are, by the hashes of their keys.
//!
//! Buckets of one line of memory each. An entry is in the bucket that its hash says, or in one behind it with none in between that has room; so
//! a look-up mostly reads one line, in which all hashes are compared at once. Invariants: a bucket is filled from its beginning; at
//! least a quarter of all room is empty. Deliberately absent: keys and their whole hashes, which are the entries'.

use std::mem;

/// As many as there are bytes in the word that holds their tags.
const SLOTS: usize = 8;
/// So many of a bucket's slots may be taken before there are more buckets.
const FULL_SLOTS: usize = 6;
/// Buckets of the smallest index that has any.
const LEAST_BUCKETS: usize = 2;

#[derive(Clone, Copy, Default)]
#[repr(C, align(64))]
struct Bucket {
    /// A part of each hash, which tells most of those of one bucket apart; the first lowest.
    tags: u64,
    /// The numbers of the entries, and one each; 0 where there is none.
    numbers: [u32; SLOTS],
}

impl Bucket {
    /// The slots with this tag, as the highest bits of their bytes; also some that are empty now and had it, and some above one of these.
    #[inline]
    fn with_tag(&self, tag: u8) -> u64 {
        const ONES: u64 = u64::from_ne_bytes([1; SLOTS]);
        // Mycroft's test for a byte that is zero: it errs about those above one that is.
        let others = self.tags ^ (ONES * u64::from(tag));
        others.wrapping_sub(ONES) & !others & (ONES << 7)
    }

    #[inline]
    fn is_full(&self) -> bool {
        self.numbers[SLOTS - 1] != 0
    }

    fn len(&self) -> usize {
        self.numbers.iter().take_while(|number| **number != 0).count()
    }

    /// Puts it behind the others, where there is room.
    fn push(&mut self, there: Slot) {
        self.set(self.len(), there);
    }

    fn remove(&mut self, slot: usize) -> Slot {
        let removed = self.slot(slot);
        let last = self.len() - 1;
        self.set(slot, self.slot(last));
        self.numbers[last] = 0;
        removed
    }

    fn slot(&self, slot: usize) -> Slot {
        (self.tags.to_le_bytes()[slot], self.numbers[slot])
    }

    fn set(&mut self, slot: usize, (tag, number): Slot) {
        let mut tags = self.tags.to_le_bytes();
        tags[slot] = tag;
        self.tags = u64::from_le_bytes(tags);
        self.numbers[slot] = number;
    }
}

/// A tag, and a number and one.
type Slot = (u8, u32);

/// By other bits of the hash than those by which a bucket is chosen, and a shard.
#[inline]
fn tag(hash: u64) -> u8 {
    (hash >> 56) as u8
}

#[derive(Default)]
pub(super) struct Index {
    buckets: Box<[Bucket]>,
    len: usize,
}

impl Index {
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// The one of this hash, mostly; it may be another, or `u32::MAX`, which is never given.
    #[allow(
        clippy::inline_always,
        reason = "what a hit is made of passes through memory wherever a call is left"
    )]
    #[inline(always)]
    pub(super) fn first_candidate(&self, hash: u64) -> Option<u32> {
        let here = self.buckets.get(hash as u32 as usize & self.buckets.len().wrapping_sub(1))?;
        let slot = here.with_tag(tag(hash)).trailing_zeros() as usize / 8;
        here.numbers.get(slot).map(|number| number.wrapping_sub(1))
    }

    /// The numbers of this hash, and perhaps some of others, and `u32::MAX`, which is never given.
    pub(super) fn candidates(&self, hash: u64) -> Candidates<'_> {
        Candidates { buckets: &self.buckets, bucket: hash as u32 as usize, tag: tag(hash), slots: None }
    }

    /// Adds a number, which is not there. `hash_of` knows the hashes of those that are.
    pub(super) fn insert(&mut self, hash: u64, number: u32, hash_of: impl Fn(u32) -> u64) {
        self.len += 1;
        if self.len > self.buckets.len() * FULL_SLOTS {
            let count = (self.buckets.len() * 2).max(LEAST_BUCKETS);
            let before = mem::replace(&mut self.buckets, vec![Bucket::default(); count].into());
            for number in before.iter().flat_map(|bucket| bucket.numbers).filter(|number| *number != 0) {
                self.settle(hash_of(number - 1), number);
            }
        }
        self.settle(hash, number + 1);
    }

    fn settle(&mut self, hash: u64, number: u32) {
        let mask = self.buckets.len() - 1;
        let mut bucket = hash as u32 as usize & mask;
        while self.buckets[bucket].is_full() {
            bucket = (bucket + 1) & mask;
        }
        self.buckets[bucket].push((tag(hash), number));
    }

    /// Removes a number, if it is there.
    pub(super) fn remove(&mut self, hash: u64, number: u32, hash_of: impl Fn(u32) -> u64) {
        let Some((mut hole, slot)) = self.place(hash, number) else { return };
        self.len -= 1;
        let mask = self.buckets.len() - 1;
        let mut was_full = self.buckets[hole].is_full();
        self.buckets[hole].remove(slot);
        // What had to go past a full bucket moves up, or it would not be found any more.
        let mut next = hole;
        while was_full {
            next = (next + 1) & mask;
            let passed = next.wrapping_sub(hole) & mask;
            let here = &mut self.buckets[next];
            was_full = here.is_full();
            let wanted = |slot: usize| hash_of(here.numbers[slot] - 1) as u32 as usize;
            if let Some(slot) = (0..here.len()).find(|slot| next.wrapping_sub(wanted(*slot)) & mask >= passed)
            {
                let there = here.remove(slot);
                self.buckets[hole].push(there);
                hole = next;
            }
        }
    }

    /// The bucket and the slot of a number.
    fn place(&self, hash: u64, number: u32) -> Option<(usize, usize)> {
        let mut bucket = hash as u32 as usize;
        loop {
            bucket &= self.buckets.len().wrapping_sub(1);
            let here = self.buckets.get(bucket)?;
            if let Some(slot) = here.numbers.iter().position(|there| *there == number + 1) {
                return Some((bucket, slot));
            }
            if !here.is_full() {
                return None;
            }
            bucket += 1;
        }
    }
}

pub(super) struct Candidates<'a> {
    buckets: &'a [Bucket],
    bucket: usize,
    tag: u8,
    /// The bucket that is looked through, and which of its slots are left.
    slots: Option<(&'a Bucket, u64)>,
}

impl Iterator for Candidates<'_> {
    type Item = u32;

    fn next(&mut self) -> Option<u32> {
        loop {
            if let Some((here, slots)) = &mut self.slots {
                if *slots != 0 {
                    let slot = slots.trailing_zeros() as usize / 8;
                    *slots &= *slots - 1;
                    return Some(here.numbers[slot].wrapping_sub(1));
                }
                if !here.is_full() {
                    return None;
                }
                self.bucket += 1;
            }
            // Where there is no bucket there is none of this number either.
            let here = self.buckets.get(self.bucket & self.buckets.len().wrapping_sub(1))?;
            self.slots = Some((here, here.with_tag(self.tag)));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_bucket_is_a_line() {
        assert_eq!((size_of::<Bucket>(), align_of::<Bucket>()), (64, 64));
    }

    fn has(index: &Index, hash: u64, number: u32) -> bool {
        index.candidates(hash).any(|there| there == number)
    }

    /// Each bucket is filled from its beginning, nobody went past one with room, and nothing is in it that was not given.
    fn check(index: &Index, model: &HashMap<u32, u64>) {
        let count = index.buckets.len();
        assert!(index.len() <= count * FULL_SLOTS);
        let mut there = 0;
        for (at, bucket) in index.buckets.iter().enumerate() {
            let len = bucket.len();
            assert!(bucket.numbers[len..].iter().all(|number| *number == 0));
            for slot in 0..len {
                let (tag, number) = bucket.slot(slot);
                let hash = model[&(number - 1)];
                assert_eq!(tag, super::tag(hash));
                let mut passed = hash as u32 as usize & (count - 1);
                while passed != at {
                    assert!(index.buckets[passed].is_full());
                    passed = (passed + 1) & (count - 1);
                }
            }
            there += len;
        }
        assert_eq!(there, model.len());
    }

    proptest! {
        /// Few hashes, so that buckets overflow into others and over the end.
        #[test]
        fn all_that_is_in_it_is_found_and_nothing_else(
            hashes in prop::collection::vec(prop_oneof![Just(0), Just(u64::MAX), (0..64_u64), any::<u64>()], 1..12),
            steps in prop::collection::vec((any::<prop::sample::Index>(), any::<prop::sample::Index>(), 0..5), 0..400),
        ) {
            let mut index = Index::default();
            let mut model: HashMap<u32, u64> = HashMap::new();
            let mut next = 0;
            for (which, whose, step) in steps {
                if step < 3 {
                    let hash = *which.get(&hashes);
                    index.insert(hash, next, |number| model[&number]);
                    model.insert(next, hash);
                    next += 1;
                } else if !model.is_empty() {
                    let mut numbers: Vec<u32> = model.keys().copied().collect();
                    numbers.sort_unstable();
                    let number = *whose.get(&numbers);
                    let hash = model[&number];
                    prop_assert!(has(&index, hash, number));
                    index.remove(hash, number, |number| model[&number]);
                    model.remove(&number);
                }
                prop_assert_eq!(index.len(), model.len());
                check(&index, &model);
                for (number, hash) in &model {
                    prop_assert!(has(&index, *hash, *number));
                }
                for hash in &hashes {
                    prop_assert!(!has(&index, *hash, next));
                }
            }
        }
    }
}
