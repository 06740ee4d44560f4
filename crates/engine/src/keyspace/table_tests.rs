//! The table against a model, with hashes that spread and with hashes that do not.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;

/// How keys, which are numbers here, come by their positions.
#[derive(Debug, Clone, Copy)]
enum Spread {
    /// As by a good hash.
    Well,
    /// All in the same 64th of the range.
    Narrow,
    /// Sixteen positions in all.
    Few,
}

impl Spread {
    fn position(self, key: u32) -> Position {
        let hash = key.wrapping_mul(0x9e37_79b1).rotate_left(15).wrapping_mul(0x85eb_ca77);
        match self {
            Self::Well => hash,
            Self::Narrow => 0xabff_ffff & (hash | 0xa800_0000),
            Self::Few => hash & 0x0f00_000f & 0x0000_000f | 0x7fff_0000,
        }
    }

    fn of(self, key: &[u8]) -> Position {
        self.position(u32::from_be_bytes(key.try_into().unwrap()))
    }
}

struct Tested {
    table: Table,
    spread: Spread,
    model: BTreeSet<u32>,
}

impl Tested {
    fn new(spread: Spread) -> Self {
        Self { table: Table::default(), spread, model: BTreeSet::new() }
    }

    fn find(&self, key: u32) -> Option<Slot> {
        self.table.find(self.spread.position(key), |entry| entry.key() == key.to_be_bytes())
    }

    fn insert(&mut self, key: u32) {
        if self.model.insert(key) {
            let entry = Entry::string(&key.to_be_bytes(), b"v", None, 0);
            self.table.insert(self.spread.position(key), entry, |key| self.spread.of(key));
        }
    }

    fn remove(&mut self, key: u32) {
        if self.model.remove(&key) {
            let slot = self.find(key).unwrap();
            assert_eq!(self.table.remove(slot).unwrap().key(), key.to_be_bytes());
        }
        assert_eq!(self.find(key), None);
    }

    /// A whole walk; the keys in the order in which they were met.
    fn walked(&self) -> Vec<u32> {
        let mut keys = Vec::new();
        let mut from = Some(0);
        while let Some(position) = from {
            from = self.table.walk(position, |slot, entry| {
                assert!(std::ptr::eq(self.table.get(slot).unwrap(), entry));
                keys.push(key_of(entry));
            });
        }
        keys
    }

    fn check(&self) {
        let table = &self.table;
        assert_eq!(table.len(), self.model.len());
        for &key in &self.model {
            let slot = self.find(key).unwrap_or_else(|| panic!("{key} is not found"));
            assert_eq!(table.get(slot).unwrap().key(), key.to_be_bytes());
        }
        let mut listed: Vec<u32> = table.iter().map(key_of).collect();
        listed.sort_unstable();
        assert!(listed.iter().eq(&self.model));
        let mut walked = self.walked();
        walked.sort_unstable();
        assert_eq!(walked, listed);
        for leaf in &table.leaves {
            assert_eq!(leaf.buckets.iter().flat_map(|bucket| &bucket.0).flatten().count(), leaf.len);
            for bucket in &leaf.buckets {
                let used = bucket.0.iter().flatten().count();
                assert!(bucket.0.iter().take(used).all(Option::is_some), "a hole between entries");
            }
        }
        for (place, &number) in table.directory.iter().enumerate() {
            let leaf = &table.leaves[number as usize];
            assert_eq!(place >> (table.depth - leaf.depth), leaf.prefix as usize);
        }
        if let Some(slot) = table.random() {
            assert!(table.get(slot).is_some());
        } else {
            assert!(self.model.is_empty());
        }
    }
}

fn key_of(entry: &Entry) -> u32 {
    u32::from_be_bytes(entry.key().try_into().unwrap())
}

fn spread() -> impl Strategy<Value = Spread> {
    prop_oneof![4 => Just(Spread::Well), 2 => Just(Spread::Narrow), 1 => Just(Spread::Few)]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(crate::testing::cases(32)))]

    #[test]
    fn a_table_holds_what_a_set_would_while_it_grows_and_shrinks(
        spread in spread(),
        steps in prop::collection::vec((any::<bool>(), 0_u32..6000, 0_u32..4000), 1..12),
    ) {
        let mut tested = Tested::new(spread);
        for (adds, from, count) in steps {
            let count = if matches!(spread, Spread::Few) { count / 8 } else { count };
            for key in from..from + count {
                if adds { tested.insert(key) } else { tested.remove(key) }
            }
            tested.check();
        }
        for key in tested.model.clone() {
            tested.remove(key);
        }
        tested.check();
        prop_assert!(tested.table.leaves.len() <= 2, "{} leaves for nothing", tested.table.leaves.len());
    }

    #[test]
    fn a_walk_meets_all_that_is_there_throughout(
        spread in spread(),
        staying in prop::collection::btree_set(0_u32..20_000, 0..600),
        changes in prop::collection::vec((any::<bool>(), 20_000_u32..30_000, 0_u32..3000, 1_usize..40), 0..12),
    ) {
        let mut tested = Tested::new(spread);
        let few = matches!(spread, Spread::Few);
        for &key in &staying {
            tested.insert(key);
        }
        let mut met: BTreeMap<u32, usize> = BTreeMap::new();
        let mut from = Some(0);
        let mut changes = changes.into_iter();
        while let Some(mut position) = from {
            // Some steps of the walk, then a change.
            let change = changes.next();
            for _ in 0..change.map_or(usize::MAX, |(.., steps)| steps) {
                let next = tested.table.walk(position, |_, entry| *met.entry(key_of(entry)).or_default() += 1);
                prop_assert!(next.is_none_or(|next| next > position));
                from = next;
                match next {
                    Some(next) => position = next,
                    None => break,
                }
            }
            if let Some((adds, first, count, _)) = change {
                for key in first..first + if few { count / 8 } else { count } {
                    if adds { tested.insert(key) } else { tested.remove(key) }
                }
            }
        }
        for key in staying {
            prop_assert!(met.contains_key(&key), "{key} was not met");
        }
    }
}

#[test]
fn every_entry_is_as_likely_as_any_other() {
    let mut tested = Tested::new(Spread::Well);
    for key in 0..5000 {
        tested.insert(key);
    }
    let mut drawn = vec![0_u32; 5000];
    for _ in 0..500_000 {
        let slot = tested.table.random().unwrap();
        drawn[key_of(tested.table.get(slot).unwrap()) as usize] += 1;
    }
    // A hundred are expected of each; ten standard deviations either way, and what leaves differ by.
    assert!(drawn.iter().all(|&times| (20..250).contains(&times)), "{:?}", drawn.iter().minmax());
}

trait MinMax: Iterator<Item: Copy + Ord> + Sized {
    fn minmax(self) -> Option<(Self::Item, Self::Item)> {
        self.fold(None, |range, x| range.map_or(Some((x, x)), |(low, high)| Some((x.min(low), x.max(high)))))
    }
}

impl<I: Iterator<Item: Copy + Ord>> MinMax for I {}

#[test]
fn a_table_takes_ten_bytes_for_an_entry() {
    let mut tested = Tested::new(Spread::Well);
    let mut worst = 0_f64;
    for key in 0..100_000 {
        tested.insert(key);
        if key > 1000 && key % 500 == 0 {
            worst = worst.max(tested.table.memory() as f64 / f64::from(key));
        }
    }
    assert!(worst < 14.0, "{worst} bytes for an entry");
    assert!(tested.table.memory() < 11 * 100_000, "{} bytes", tested.table.memory());
}

#[test]
fn sizes_grow_by_the_steps_that_allocators_have() {
    let mut size = 0;
    let mut sizes = Vec::new();
    while size < MAX_BUCKETS {
        size = next_size(size);
        sizes.push(size);
    }
    assert_eq!(sizes[..12], [1, 2, 3, 4, 5, 6, 7, 8, 10, 12, 14, 16]);
    assert_eq!(sizes.last(), Some(&MAX_BUCKETS));
    for len in 1..2000 {
        let size = size_for(len);
        assert!(len <= size * FULL && size <= len / 5 + 2, "{size} buckets for {len}");
        assert!(size > MAX_BUCKETS || sizes.contains(&size));
    }
}

#[test]
fn room_that_was_made_is_enough_and_not_much_more() {
    for entries in [2_000, 30_000, 100_000] {
        let mut tested = Tested::new(Spread::Well);
        tested.table.reserve(entries as usize);
        let before = tested.table.memory();
        assert!(before < 14 * entries as usize, "{before} bytes for {entries}");
        (0..entries).for_each(|key| tested.insert(key));
        tested.check();
        // A leaf or two may be unlucky.
        assert!(
            tested.table.memory() <= before + before / 50,
            "{} bytes after {before}",
            tested.table.memory()
        );
        (0..entries).for_each(|key| tested.remove(key));
        tested.check();
        assert!(
            tested.table.memory() < before / 20,
            "{} bytes of {before} when it is empty",
            tested.table.memory()
        );
    }
}

#[test]
fn room_for_entries_that_never_come_is_in_nobodys_way() {
    let mut tested = Tested::new(Spread::Narrow);
    tested.table.reserve(1_000_000);
    (0..3).for_each(|key| tested.insert(key));
    tested.check();
    let met: BTreeSet<u32> =
        (0..200).map(|_| key_of(tested.table.get(tested.table.random().unwrap()).unwrap())).collect();
    assert!(!met.is_empty());
    (0..20_000).for_each(|key| tested.insert(key));
    tested.check();
    (0..20_000).for_each(|key| tested.remove(key));
    tested.check();
}
