//! Entries by their keys, bounded by what they count for.
//!
//! Who has to go is found much as S3-FIFO finds it (Yang, Zhang, Qiu, Yue and Rashmi, "FIFO queues are all you need for cache eviction", SOSP 2023): a
//! new entry is on probation in a short queue, and only what was asked for there gets into the long one, in which what was asked for since it
//! came to the end goes round again. The hashes of those that went from probation are remembered, and when such a key comes back, its entry is
//! on probation no more. A hit so moves nothing, and changes a count that nobody waits for. Otherwise than there one use is enough to pass probation, which
//! is what its authors' own code has; those that went are remembered each at a place of its hash and not in a queue; and so that nobody waits long,
//! an eviction takes a limited number of steps.
//!
//! Own and no library's, because a hit is what the near cache is for and can be had for three quarters of what it took with `quick_cache`
//! within: hashes are compared in one line of memory, a short key is compared in words that hashing has left in registers, and an
//! entry has in one line what a hit needs.
//!
//! Invariants: each entry is in one queue and has one place in the index; between two changes the entries count for no more than the
//! capacity. Deliberately absent: locks (`shards.rs`), and what the entries mean (`store.rs`).

use std::mem;

use super::held::{Held, Name};
use super::index::Index;
use super::sought::{ShortSought, Sought};

/// The part of the capacity, in percent, for entries on probation.
const PROBATION_PERCENT: u64 = 10;
/// How often an entry counts as asked for at the most, which is how often it goes round again without having been asked for meanwhile.
const MOST_USES: u8 = 3;
/// So many entries at the most go round, or on, for one that goes.
const MOST_STEPS: u32 = 256;
/// No entry.
const NONE: u32 = u32::MAX;

/// In this order: what a hit needs fills a line of memory together with the lock before it.
#[repr(C)]
pub(super) struct Table {
    entries: Vec<Option<Entry>>,
    index: Index,
    /// The numbers of the entries that are none.
    free: Vec<u32>,
    probation: Queue,
    main: Queue,
    /// The higher halves of the hashes of those that had to go from probation, at the places that the lower halves say.
    ghosts: Box<[u32]>,
    capacity: u64,
}

/// In this order, and where lines of memory begin: see [`Held`].
#[repr(C, align(64))]
struct Entry {
    name: Name,
    held: Held,
    /// Of its key.
    hash: u64,
    before: u32,
    after: u32,
    is_main: bool,
}

/// What had to go for an insertion, or was removed with others. To be dropped once no lock is held.
#[derive(Default)]
pub(super) struct Gone {
    replaced: Option<Held>,
    evicted: Vec<(Name, Held)>,
}

impl Gone {
    /// Of those that nothing replaces.
    pub(super) fn keys(&self) -> impl Iterator<Item = &[u8]> {
        self.evicted.iter().map(|(name, _)| &**name)
    }
}

/// Entries from the one that came first to the one that came last.
struct Queue {
    first: u32,
    last: u32,
    bytes: u64,
}

impl Queue {
    const EMPTY: Self = Self { first: NONE, last: NONE, bytes: 0 };
}

impl Table {
    /// With room for so many bytes, which remembers about so many that had to go.
    pub(super) fn new(capacity: u64, ghosts: usize) -> Self {
        let ghosts = vec![0; ghosts.checked_next_power_of_two().unwrap_or_default()].into();
        let (probation, main) = (Queue::EMPTY, Queue::EMPTY);
        Self {
            index: Index::default(),
            entries: Vec::new(),
            free: Vec::new(),
            probation,
            main,
            ghosts,
            capacity,
        }
    }

    pub(super) fn capacity(&self) -> u64 {
        self.capacity
    }

    pub(super) fn len(&self) -> usize {
        self.index.len()
    }

    pub(super) fn bytes(&self) -> u64 {
        self.probation.bytes + self.main.bytes
    }

    /// What is there under this key, which has been asked for.
    pub(super) fn get(&self, key: &Sought<'_>) -> Option<&Held> {
        let number = self.find(key.hash, |entry| *entry.name == *key.key)?;
        let held = self.held(number)?;
        held.uses.count(MOST_USES);
        Some(held)
    }

    /// The same at one look, without a call or a loop: for short keys, and not for all of them.
    #[allow(
        clippy::inline_always,
        reason = "what a hit is made of passes through memory wherever a call is left"
    )]
    #[inline(always)]
    pub(super) fn get_at_once(&self, key: ShortSought<'_>) -> Option<&Held> {
        let number = self.index.first_candidate(key.hash)?;
        let Some(Entry { name: Name::Short(name), held, .. }) = self.entry(number) else { return None };
        if !key.is(name) {
            return None;
        }
        held.uses.count(MOST_USES);
        Some(held)
    }

    fn held(&self, number: u32) -> Option<&Held> {
        self.entry(number).map(|entry| &entry.held)
    }

    fn find(&self, hash: u64, is_meant: impl Fn(&Entry) -> bool) -> Option<u32> {
        self.index.candidates(hash).find(|number| self.entry(*number).is_some_and(&is_meant))
    }

    /// Keeps an entry. What it replaces and what has to go for it is in `gone` then.
    pub(super) fn insert(&mut self, hash: u64, name: Name, mut held: Held, gone: &mut Gone) {
        let mut replaced = self.find(hash, |other| other.name == name).and_then(|number| self.take(number));
        *held.uses.get_mut() = replaced.as_mut().map_or(0, |entry| *entry.held.uses.get_mut());
        let was_main = replaced.as_ref().is_some_and(|entry| entry.is_main);
        gone.replaced = replaced.map(|entry| entry.held);
        let bytes = u64::from(held.bytes());
        debug_assert!(bytes <= self.capacity, "it would have all others go and be too large still");
        // Before others go, which may take its place among those that are remembered.
        let is_ghost = self.take_ghost(hash);
        while self.bytes() + bytes > self.capacity && self.evict(gone) {}
        let is_main = was_main || is_ghost;
        let entry = Entry { name, held, hash, before: NONE, after: NONE, is_main };
        let number = self.put(entry);
        self.link(number);
        let Self { index, entries, .. } = self;
        index.insert(hash, number, |number| hash_of(entries, number));
    }

    /// Removes the entry with this key if it is meant.
    pub(super) fn remove(&mut self, key: &Sought<'_>, is_meant: impl FnOnce(&Held) -> bool) -> Option<Held> {
        let number = self.find(key.hash, |entry| *entry.name == *key.key)?;
        if is_meant(self.held(number)?) { self.take(number).map(|entry| entry.held) } else { None }
    }

    /// Removes all entries whose names are meant.
    pub(super) fn remove_all(&mut self, is_meant: impl Fn(&[u8]) -> bool, gone: &mut Gone) {
        for number in 0..self.entries.len() as u32 {
            if self.entry(number).is_some_and(|entry| is_meant(&entry.name)) {
                self.remove_number(number, gone);
            }
        }
    }

    /// Removes all entries, which are still to be dropped.
    #[must_use]
    pub(super) fn clear(&mut self) -> impl Sized + use<> {
        let empty = Self { ghosts: mem::take(&mut self.ghosts), ..Self::new(self.capacity, 0) };
        mem::replace(self, empty)
    }

    /// Lets one entry go, unless there is none.
    fn evict(&mut self, gone: &mut Gone) -> bool {
        for step in 0.. {
            let share = self.capacity / 100 * PROBATION_PERCENT;
            let is_over = self.probation.first != NONE && self.probation.bytes > share;
            let from_main = !is_over && self.main.first != NONE;
            let number = if from_main { self.main.first } else { self.probation.first };
            let Some(entry) = self.entry_mut(number) else { return false };
            let uses = mem::take(entry.held.uses.get_mut());
            if uses == 0 || step == MOST_STEPS {
                let hash = entry.hash;
                if !from_main && let Some(ghost) = self.ghost(hash) {
                    *ghost = (hash >> 32) as u32;
                }
                self.remove_number(number, gone);
                return true;
            }
            // It goes round, or on from probation, where it begins anew.
            self.unlink(number);
            if let Some(entry) = self.entry_mut(number) {
                *entry.held.uses.get_mut() = if from_main { uses - 1 } else { 0 };
                entry.is_main = true;
            }
            self.link(number);
        }
        false
    }

    fn remove_number(&mut self, number: u32, gone: &mut Gone) {
        gone.evicted.extend(self.take(number).map(|entry| (entry.name, entry.held)));
    }

    fn take(&mut self, number: u32) -> Option<Entry> {
        let hash = self.entry(number)?.hash;
        self.unlink(number);
        let Self { index, entries, .. } = self;
        index.remove(hash, number, |number| hash_of(entries, number));
        self.free.push(number);
        self.entries.get_mut(number as usize)?.take()
    }

    /// Whether it went from probation lately. It is forgotten.
    fn take_ghost(&mut self, hash: u64) -> bool {
        let is_it = |ghost: &&mut u32| **ghost == (hash >> 32) as u32;
        self.ghost(hash).filter(is_it).map(mem::take).is_some()
    }

    fn ghost(&mut self, hash: u64) -> Option<&mut u32> {
        let place = hash as u32 as usize & self.ghosts.len().wrapping_sub(1);
        self.ghosts.get_mut(place)
    }

    #[inline]
    fn entry(&self, number: u32) -> Option<&Entry> {
        self.entries.get(number as usize)?.as_ref()
    }

    fn entry_mut(&mut self, number: u32) -> Option<&mut Entry> {
        self.entries.get_mut(number as usize)?.as_mut()
    }

    fn put(&mut self, entry: Entry) -> u32 {
        if let Some(number) = self.free.pop() {
            self.entries[number as usize] = Some(entry);
            return number;
        }
        self.entries.push(Some(entry));
        (self.entries.len() - 1) as u32
    }

    fn queue(&mut self, is_main: bool) -> &mut Queue {
        if is_main { &mut self.main } else { &mut self.probation }
    }

    /// Puts an entry at the end of its queue.
    fn link(&mut self, number: u32) {
        let Some(entry) = self.entry(number) else { return };
        let (is_main, bytes) = (entry.is_main, u64::from(entry.held.bytes()));
        let queue = self.queue(is_main);
        queue.bytes += bytes;
        let before = mem::replace(&mut queue.last, number);
        match self.entry_mut(before) {
            Some(last) => last.after = number,
            None => self.queue(is_main).first = number,
        }
        if let Some(entry) = self.entry_mut(number) {
            (entry.before, entry.after) = (before, NONE);
        }
    }

    /// Takes an entry out of its queue.
    fn unlink(&mut self, number: u32) {
        let Some(entry) = self.entry(number) else { return };
        let (is_main, bytes) = (entry.is_main, u64::from(entry.held.bytes()));
        let (before, after) = (entry.before, entry.after);
        match self.entry_mut(before) {
            Some(entry) => entry.after = after,
            None => self.queue(is_main).first = after,
        }
        match self.entry_mut(after) {
            Some(entry) => entry.before = before,
            None => self.queue(is_main).last = before,
        }
        self.queue(is_main).bytes -= bytes;
    }
}

fn hash_of(entries: &[Option<Entry>], number: u32) -> u64 {
    entries.get(number as usize).and_then(Option::as_ref).map_or(0, |entry| entry.hash)
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::collections::HashMap;
    use std::sync::Arc;

    use parking_lot::RwLock;
    use proptest::prelude::*;

    use super::super::sought::{Base, Seeds};
    use super::super::store::{Kept, Ticket};
    use super::super::typed::TypeNumber;
    use super::*;

    struct Rig {
        seeds: Seeds,
        table: Table,
        next: u64,
        /// How many were found at one look.
        at_once: Cell<u32>,
    }

    impl Rig {
        fn new(capacity: u64) -> Self {
            Self { seeds: Seeds::random(), table: Table::new(capacity, 64), next: 0, at_once: Cell::new(0) }
        }

        /// Keeps a value that is like no other. Returns it, and the keys that had to go.
        fn insert(&mut self, key: &str, weight: u64) -> (u64, Vec<String>) {
            self.next += 1;
            let kept = Kept::plain(Arc::new(self.next), weight);
            let held = Held::new(Ticket { epoch: 0, heard: 0, tags_heard: 0 }, kept);
            let mut gone = Gone::default();
            let hash = Sought::new(self.seeds, key.as_bytes()).hash;
            self.table.insert(hash, Name::new(key.as_bytes()), held, &mut gone);
            (self.next, gone.keys().map(|key| String::from_utf8_lossy(key).into_owned()).collect())
        }

        fn get(&self, key: &str) -> Option<u64> {
            let value = |held: &Held| held.value(TypeNumber::<u64>::own()).map(|value| *value);
            let found = self.table.get(&Sought::new(self.seeds, key.as_bytes())).and_then(value);
            if let Some((base, part)) = key.rsplit_once(':') {
                let base = Base::new(self.seeds, format!("{base}:").as_bytes());
                let at_once = self.table.get_at_once(base.then(part).unwrap()).and_then(value);
                assert!(at_once.is_none() || at_once == found, "{key} is not another");
                self.at_once.set(self.at_once.get() + u32::from(at_once.is_some()));
            }
            found
        }

        fn remove(&mut self, key: &str) -> bool {
            self.table.remove(&Sought::new(self.seeds, key.as_bytes()), |_| true).is_some()
        }

        /// What each queue lists, both ways, is what is there.
        fn check(&self) {
            let mut listed = 0;
            for (queue, is_main) in [(&self.table.probation, false), (&self.table.main, true)] {
                let (mut number, mut before, mut bytes) = (queue.first, NONE, 0);
                while let Some(entry) = self.table.entry(number) {
                    assert_eq!((entry.before, entry.is_main), (before, is_main));
                    bytes += u64::from(entry.held.bytes());
                    listed += 1;
                    (before, number) = (number, entry.after);
                }
                assert_eq!((queue.last, queue.bytes, number), (before, bytes, NONE));
            }
            let there = self.table.entries.iter().flatten().count();
            assert_eq!(
                (self.table.len(), listed, self.table.free.len()),
                (there, there, self.table.entries.len() - there)
            );
            assert!(self.table.bytes() <= self.table.capacity());
        }
    }

    #[derive(Clone, Debug)]
    enum Step {
        Insert(usize, u64),
        Get(usize),
        Remove(usize),
        RemoveSome(usize),
        Clear,
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            8 => (0..40_usize, 1..30_u64).prop_map(|(key, weight)| Step::Insert(key, weight)),
            6 => (0..40_usize).prop_map(Step::Get),
            3 => (0..40_usize).prop_map(Step::Remove),
            1 => (0..4_usize).prop_map(Step::RemoveSome),
            1 => Just(Step::Clear),
        ]
    }

    /// Short and long ones, of one piece and of two.
    fn key(number: usize) -> String {
        match number % 4 {
            0 => number.to_string(),
            1 => format!("r:{number}"),
            2 => format!("market_data:SYM{number:07}"),
            _ => format!("a_name_that_is_too_long_to_lie_within_an_entry:{number}"),
        }
    }

    proptest! {
        #[test]
        fn it_has_what_was_put_in_and_not_said_to_have_gone(steps in prop::collection::vec(step(), 0..300)) {
            let mut rig = Rig::new(200);
            let mut model: HashMap<String, u64> = HashMap::new();
            for step in steps {
                match step {
                    Step::Insert(number, weight) => {
                        let (value, gone) = rig.insert(&key(number), weight);
                        for key in gone {
                            prop_assert!(model.remove(&key).is_some(), "{key} was not there");
                        }
                        model.insert(key(number), value);
                    }
                    Step::Get(number) => prop_assert_eq!(rig.get(&key(number)), model.get(&key(number)).copied()),
                    Step::Remove(number) => {
                        prop_assert_eq!(rig.remove(&key(number)), model.remove(&key(number)).is_some());
                    }
                    Step::RemoveSome(kind) => {
                        let is_meant = |key: &[u8]| key.len() % 4 == kind;
                        let mut gone = Gone::default();
                        rig.table.remove_all(is_meant, &mut gone);
                        let before = model.len();
                        model.retain(|key, _| !is_meant(key.as_bytes()));
                        prop_assert_eq!(gone.keys().count(), before - model.len());
                    }
                    Step::Clear => {
                        drop(rig.table.clear());
                        model.clear();
                    }
                }
                rig.check();
            }
            for number in 0..40 {
                prop_assert_eq!(rig.get(&key(number)), model.get(&key(number)).copied());
            }
        }
    }

    #[test]
    fn what_is_asked_for_outlives_a_scan() {
        let mut rig = Rig::new(100);
        for number in 0..50 {
            rig.insert(&format!("hot{number}"), 1);
        }
        for _ in 0..2 {
            for number in 0..50 {
                assert!(rig.get(&format!("hot{number}")).is_some());
            }
        }
        for number in 0..10_000 {
            rig.insert(&format!("scanned{number}"), 1);
        }
        let left = (0..50).filter(|number| rig.get(&format!("hot{number}")).is_some()).count();
        assert_eq!(left, 50, "what nobody asks for again goes from probation");
        rig.check();
    }

    #[test]
    fn what_comes_back_soon_after_it_went_from_probation_is_not_on_probation_again() {
        let mut rig = Rig::new(100);
        let went: Vec<String> = (0..110).flat_map(|number| rig.insert(&format!("k{number}"), 1).1).collect();
        assert_eq!(went.len(), 10);
        rig.insert(&went[9], 1);
        assert!(is_main(&rig, &went[9]));
        rig.insert("of which nobody has heard", 1);
        assert!(!is_main(&rig, "of which nobody has heard"));
        rig.check();
    }

    #[test]
    fn an_entry_that_fills_it_alone_lets_all_others_go() {
        let mut rig = Rig::new(100);
        for number in 0..10 {
            rig.insert(&number.to_string(), 10);
        }
        let (value, gone) = rig.insert("large", 100);
        assert_eq!((gone.len(), rig.get("large"), rig.table.len()), (10, Some(value), 1));
        rig.check();
    }

    #[test]
    fn an_entry_is_two_lines_whether_or_not_it_is_there() {
        assert_eq!((size_of::<Option<Entry>>(), align_of::<Option<Entry>>()), (128, 64));
        assert_eq!((mem::offset_of!(Entry, name), mem::offset_of!(Entry, held)), (0, size_of::<Name>()));
    }

    #[test]
    fn what_a_look_up_needs_of_a_table_is_in_one_line_with_the_lock() {
        assert!(size_of::<RwLock<()>>() + mem::offset_of!(Table, index) + size_of::<Index>() <= 64);
    }

    #[test]
    fn most_short_keys_are_found_at_one_look() {
        let mut rig = Rig::new(10_000);
        for number in 0..10_000 {
            rig.insert(&format!("market_data:S{number}"), 1);
        }
        for number in 0..10_000 {
            assert!(rig.get(&format!("market_data:S{number}")).is_some());
        }
        assert!(rig.at_once.get() > 8500, "{}", rig.at_once.get());
    }

    fn number(rig: &Rig, key: &str) -> u32 {
        let hash = Sought::new(rig.seeds, key.as_bytes()).hash;
        rig.table.find(hash, |entry| *entry.name == *key.as_bytes()).unwrap()
    }

    fn is_main(rig: &Rig, key: &str) -> bool {
        rig.table.entry(number(rig, key)).unwrap().is_main
    }

    fn uses(rig: &mut Rig, key: &str) -> u8 {
        let number = number(rig, key);
        *rig.table.entry_mut(number).unwrap().held.uses.get_mut()
    }

    /// One that is full, and of which all has been asked for.
    fn full(capacity: u64) -> Rig {
        let mut rig = Rig::new(capacity);
        for number in 0..capacity {
            rig.insert(&number.to_string(), 1);
            rig.get(&number.to_string());
        }
        rig
    }

    #[test]
    fn what_replaces_an_entry_is_as_known_as_that_was() {
        let mut rig = Rig::new(100);
        rig.insert("k", 1);
        for asked in [1, 2, 3, 3] {
            rig.get("k");
            assert_eq!(uses(&mut rig, "k"), asked);
        }
        rig.insert("k", 2);
        assert_eq!((uses(&mut rig, "k"), is_main(&rig, "k"), rig.table.bytes()), (3, false, 2));
        for number in 0..100 {
            rig.insert(&number.to_string(), 1);
        }
        assert_eq!((uses(&mut rig, "k"), is_main(&rig, "k")), (0, true), "it begins anew");
        rig.get("k");
        rig.insert("k", 1);
        assert_eq!((uses(&mut rig, "k"), is_main(&rig, "k")), (1, true));
        rig.check();
    }

    #[test]
    fn what_was_asked_for_often_goes_round_three_times_and_then_goes() {
        let mut rig = full(100);
        // A tenth stays on probation; the first of the others goes.
        assert_eq!(rig.insert("100", 1).1, ["0"]);
        for _ in 0..10 {
            rig.get("1");
        }
        let gone_after = (101..1000).position(|number| {
            rig.get(&(number - 1).to_string());
            rig.insert(&number.to_string(), 1).1.iter().any(|gone| gone == "1")
        });
        assert!((3 * 85..3 * 95).contains(&gone_after.unwrap()), "{gone_after:?}");
        rig.check();
    }

    #[test]
    fn only_those_that_went_from_probation_are_remembered() {
        let mut rig = full(100);
        let (_, went) = rig.insert("100", 1);
        assert_eq!(went, ["0"], "the first of the long queue, into which all were moved");
        let hash = Sought::new(rig.seeds, b"0").hash;
        assert!(!rig.table.take_ghost(hash));
    }

    #[test]
    fn one_that_goes_makes_few_others_go_round() {
        let mut rig = full(10_000);
        assert_eq!(rig.insert("another", 1).1, [MOST_STEPS.to_string()]);
        rig.check();
    }
}
