//! The set type: `intset` while it holds few integers only, `hashtable` beyond.
//!
//! Set algebra is here as iterators over members; storing its result is the commands' business.

use super::{
    allocation::allocation_size,
    blob::{Blob, KeyHash},
    dense::{DenseIter, DenseTable, Record},
    int_set::IntSet,
    limits::EncodingLimits,
    member::{Member, parse_int},
};

/// A set of byte strings.
#[derive(Debug, Clone, Default)]
pub struct Set(Encoding);

#[derive(Debug, Clone)]
enum Encoding {
    Ints(IntSet),
    Table(Box<DenseTable<Blob>>),
}

impl Default for Encoding {
    fn default() -> Self {
        Self::Ints(IntSet::default())
    }
}

impl Set {
    /// Creates an empty set, an `intset` that allocates nothing.
    pub fn new() -> Self {
        Self::default()
    }

    /// Name of the encoding as OBJECT ENCODING reports it.
    pub fn encoding(&self) -> &'static str {
        match &self.0 {
            Encoding::Ints(_) => "intset",
            Encoding::Table(_) => "hashtable",
        }
    }

    /// Heap bytes held, in O(1).
    pub fn heap_bytes(&self) -> usize {
        match &self.0 {
            Encoding::Ints(ints) => ints.heap_bytes(),
            Encoding::Table(table) => allocation_size(size_of::<DenseTable<Blob>>()) + table.heap_bytes(),
        }
    }

    /// Asks the memory for these members, before they are needed.
    pub(crate) fn prefetch<'k>(&self, members: impl Iterator<Item = &'k [u8]>) {
        if let Encoding::Table(table) = &self.0 {
            table.prefetch(members);
        }
    }

    /// Number of members.
    pub fn len(&self) -> usize {
        match &self.0 {
            Encoding::Ints(ints) => ints.len(),
            Encoding::Table(table) => table.len(),
        }
    }

    /// Whether there is no member.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether `member` is there.
    pub fn contains(&self, member: &[u8]) -> bool {
        self.holds(&mut Probe::of_bytes(member))
    }

    /// Adds `member`; returns whether it is new.
    pub fn add(&mut self, member: &[u8], limits: &EncodingLimits) -> bool {
        if let Encoding::Ints(ints) = &mut self.0 {
            if let Some(value) = parse_int(member) {
                let added = ints.insert(value);
                if added && ints.len() > limits.set_max_intset_entries {
                    self.convert(0);
                }
                return added;
            }
            self.convert(1);
        }
        match &mut self.0 {
            Encoding::Table(table) => add_to_table(table, member),
            Encoding::Ints(_) => false,
        }
    }

    /// Removes `member`; returns whether it was there.
    pub fn remove(&mut self, member: &[u8]) -> bool {
        match &mut self.0 {
            Encoding::Ints(ints) => parse_int(member).is_some_and(|value| ints.remove(value)),
            Encoding::Table(table) => {
                let found = table.find(KeyHash::of(member), member);
                found.and_then(|index| table.swap_remove(index)).is_some()
            }
        }
    }

    /// Iterates over the members: ascending in an `intset`, in no promised order otherwise.
    pub fn iter(&self) -> SetIter<'_> {
        SetIter(match &self.0 {
            Encoding::Ints(ints) => Source::Ints { ints, next: 0 },
            Encoding::Table(table) => Source::Table(table.iter()),
        })
    }

    /// The member at `index` of [`Set::iter`], in O(1), for random choices.
    pub fn by_index(&self, index: usize) -> Option<Member<'_>> {
        match &self.0 {
            Encoding::Ints(ints) => ints.get(index).map(Member::from_int),
            Encoding::Table(table) => table.get(index).map(|blob| Member::from_bytes(blob.bytes())),
        }
    }

    /// Takes out the member at `index` of [`Set::iter`]; the others may change their index.
    pub fn pop_at(&mut self, index: usize) -> Option<Vec<u8>> {
        match &mut self.0 {
            Encoding::Ints(ints) => ints.remove_at(index).map(|value| Member::from_int(value).to_vec()),
            Encoding::Table(table) => table.swap_remove(index).map(Blob::into_vec),
        }
    }

    /// One step of a scan: the next cursor, and members.
    ///
    /// Cursor 0 begins a scan, and 0 as the next cursor ends it. A member that is there during the whole scan is
    /// reported, perhaps twice. About `count` members are reported at a time, but an `intset` as a whole.
    pub fn scan(&self, cursor: u64, count: usize) -> (u64, SetIter<'_>) {
        match &self.0 {
            Encoding::Ints(_) => (0, self.iter()),
            Encoding::Table(table) => {
                let (next, found) = table.scan(cursor, count);
                (next, SetIter(Source::Table(found)))
            }
        }
    }

    /// Iterates over the members that all of `sets` hold; over none if `sets` is empty.
    pub fn intersection<'a>(sets: &[&'a Self]) -> Intersection<'a> {
        let mut sets = sets.to_vec();
        sets.sort_by_key(|set| set.len());
        let mut sets = sets.into_iter();
        Intersection { walked: sets.next().map(Self::iter), probed: sets.collect() }
    }

    /// Iterates over the members that none of `others` holds.
    pub fn difference<'a>(&'a self, others: &[&'a Self]) -> Difference<'a> {
        let mut probed = others.to_vec();
        // The larger a set, the likelier it holds a member and ends the search.
        probed.sort_by_key(|set| std::cmp::Reverse(set.len()));
        Difference { walked: self.iter(), probed }
    }

    fn holds(&self, probe: &mut Probe<'_>) -> bool {
        match &self.0 {
            Encoding::Ints(ints) => probe.member.as_int().is_some_and(|value| ints.contains(value)),
            Encoding::Table(table) => table.find(probe.hash(), &probe.member).is_some(),
        }
    }

    fn convert(&mut self, additional: usize) {
        let Encoding::Ints(ints) = &self.0 else { return };
        let mut table = Box::new(DenseTable::with_capacity(ints.len() + additional));
        for member in self.iter() {
            add_to_table(&mut table, &member);
        }
        self.0 = Encoding::Table(table);
    }
}

impl<'a> IntoIterator for &'a Set {
    type Item = Member<'a>;
    type IntoIter = SetIter<'a>;

    fn into_iter(self) -> SetIter<'a> {
        self.iter()
    }
}

/// Iterator over the members of a [`Set`].
#[derive(Debug, Clone)]
pub struct SetIter<'a>(Source<'a>);

#[derive(Debug, Clone)]
enum Source<'a> {
    Ints { ints: &'a IntSet, next: usize },
    Table(DenseIter<'a, Blob>),
}

impl<'a> SetIter<'a> {
    /// The next member with what is known about it: its integer or its hash.
    fn next_probe(&mut self) -> Option<Probe<'a>> {
        match &mut self.0 {
            Source::Ints { ints, next } => {
                *next += 1;
                Some(Probe::of_int(ints.get(*next - 1)?))
            }
            Source::Table(iter) => Some(Probe::of_blob(iter.next()?)),
        }
    }
}

impl<'a> Iterator for SetIter<'a> {
    type Item = Member<'a>;

    fn next(&mut self) -> Option<Member<'a>> {
        match &mut self.0 {
            Source::Ints { ints, next } => {
                *next += 1;
                ints.get(*next - 1).map(Member::from_int)
            }
            Source::Table(iter) => iter.next().map(|blob| Member::from_bytes(blob.bytes())),
        }
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        let len = match &self.0 {
            Source::Ints { ints, next } => ints.len().saturating_sub(*next),
            Source::Table(iter) => iter.len(),
        };
        (len, Some(len))
    }
}

impl ExactSizeIterator for SetIter<'_> {}

/// Iterator over what several sets have in common; see [`Set::intersection`].
#[derive(Debug, Clone)]
pub struct Intersection<'a> {
    walked: Option<SetIter<'a>>,
    probed: Vec<&'a Set>,
}

impl<'a> Iterator for Intersection<'a> {
    type Item = Member<'a>;

    fn next(&mut self) -> Option<Member<'a>> {
        let walked = self.walked.as_mut()?;
        loop {
            let mut probe = walked.next_probe()?;
            if self.probed.iter().all(|set| set.holds(&mut probe)) {
                return Some(probe.member);
            }
        }
    }
}

/// Iterator over what only the first of several sets holds; see [`Set::difference`].
#[derive(Debug, Clone)]
pub struct Difference<'a> {
    walked: SetIter<'a>,
    probed: Vec<&'a Set>,
}

impl<'a> Iterator for Difference<'a> {
    type Item = Member<'a>;

    fn next(&mut self) -> Option<Member<'a>> {
        loop {
            let mut probe = self.walked.next_probe()?;
            if !self.probed.iter().any(|set| set.holds(&mut probe)) {
                return Some(probe.member);
            }
        }
    }
}

/// A member to look for in several sets, hashed at most once.
struct Probe<'a> {
    member: Member<'a>,
    hash: Option<KeyHash>,
}

impl<'a> Probe<'a> {
    fn of_bytes(bytes: &'a [u8]) -> Self {
        Self { member: Member::from_bytes(bytes), hash: None }
    }

    fn of_int(value: i64) -> Self {
        Self { member: Member::from_int(value), hash: None }
    }

    fn of_blob(blob: &'a Blob) -> Self {
        Self { hash: Some(blob.key_hash()), ..Self::of_bytes(blob.bytes()) }
    }

    fn hash(&mut self) -> KeyHash {
        *self.hash.get_or_insert_with(|| KeyHash::of(&self.member))
    }
}

impl Record for Blob {
    #[inline]
    fn key(&self) -> &[u8] {
        self.bytes()
    }

    #[inline]
    fn key_hash(&self) -> KeyHash {
        self.hash(|bytes| bytes)
    }

    #[inline]
    fn heap_bytes(&self) -> usize {
        self.heap_bytes()
    }

    #[inline]
    fn prefetch(&self) {
        self.prefetch();
    }
}

fn add_to_table(table: &mut DenseTable<Blob>, member: &[u8]) -> bool {
    let hash = KeyHash::of(member);
    table.insert_with(hash, member, || Blob::new(hash, &[member])).is_some_and(|(_, new)| new)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    const SMALL: EncodingLimits = EncodingLimits { set_max_intset_entries: 8, ..EncodingLimits::DEFAULT };

    type Model = BTreeSet<Vec<u8>>;

    fn member(words: bool) -> impl Strategy<Value = Vec<u8>> {
        let ints = prop_oneof![4 => -15_i64..15, 1 => any::<i32>().prop_map(i64::from), 1 => -600_i64..600]
            .prop_map(|v| v.to_string().into_bytes());
        let others =
            prop_oneof!["[a-c]{0,2}", "0[0-9]", "-0", "long-member-[0-9]{20}"].prop_map(String::into_bytes);
        if words { prop_oneof![30 => ints, 1 => others].boxed() } else { ints.boxed() }
    }

    #[derive(Debug, Clone)]
    enum Op {
        Add(Vec<u8>),
        Remove(Vec<u8>),
        PopAt(usize),
    }

    fn op(words: bool) -> impl Strategy<Value = Op> {
        prop_oneof![
            5 => member(words).prop_map(Op::Add),
            2 => member(words).prop_map(Op::Remove),
            1 => any::<usize>().prop_map(Op::PopAt),
        ]
    }

    fn build(ops: Vec<Op>, limits: &EncodingLimits) -> Result<(Set, Model), TestCaseError> {
        let (mut set, mut model) = (Set::new(), Model::new());
        let mut large = false;
        for op in ops {
            match op {
                Op::Add(m) => {
                    large |= parse_int(&m).is_none();
                    prop_assert_eq!(set.add(&m, limits), model.insert(m));
                }
                Op::Remove(m) => prop_assert_eq!(set.remove(&m), model.remove(&m)),
                Op::PopAt(i) if !model.is_empty() => {
                    let i = i % model.len();
                    let expected = set.by_index(i).unwrap().to_vec();
                    prop_assert_eq!(set.pop_at(i), Some(expected.clone()));
                    prop_assert!(model.remove(&expected));
                }
                Op::PopAt(i) => prop_assert_eq!(set.pop_at(i), None),
            }
            large |= model.len() > limits.set_max_intset_entries;
            prop_assert_eq!(set.encoding(), if large { "hashtable" } else { "intset" });
            prop_assert_eq!(set.len(), model.len());
        }
        Ok((set, model))
    }

    fn collected<'a>(members: impl Iterator<Item = Member<'a>>) -> Model {
        members.map(|m| m.to_vec()).collect()
    }

    fn check(ops: Vec<Op>, limits: &EncodingLimits) -> Result<(), TestCaseError> {
        let (set, model) = build(ops, limits)?;
        prop_assert_eq!(collected(set.iter()), model.clone());
        prop_assert_eq!(set.iter().len(), model.len());
        prop_assert_eq!(set.iter().count(), model.len());
        prop_assert!(model.iter().all(|m| set.contains(m)));
        prop_assert!(set.iter().enumerate().all(|(i, m)| set.by_index(i) == Some(m)));
        prop_assert!(!set.contains(b"absent"));
        Ok(())
    }

    proptest! {
        #[test]
        fn behaves_as_a_set(ops in prop::collection::vec(op(true), 0..200)) {
            check(ops, &EncodingLimits::DEFAULT)?;
        }

        #[test]
        fn behaves_as_a_set_around_the_threshold(ops in prop::collection::vec(op(false), 0..200)) {
            check(ops, &SMALL)?;
        }

        #[test]
        fn algebra_agrees_with_the_model(
            many in prop::collection::vec(prop::collection::vec(op(true), 0..60), 1..5),
            tight: bool,
        ) {
            let limits = if tight { SMALL } else { EncodingLimits::DEFAULT };
            let built: Vec<(Set, Model)> =
                many.into_iter().map(|ops| build(ops, &limits)).collect::<Result<_, _>>()?;
            let sets: Vec<&Set> = built.iter().map(|(set, _)| set).collect();
            let mut common = built[0].1.clone();
            let mut only_first = built[0].1.clone();
            for (_, model) in &built[1..] {
                common.retain(|m| model.contains(m));
                only_first.retain(|m| !model.contains(m));
            }
            prop_assert_eq!(collected(Set::intersection(&sets)), common);
            prop_assert_eq!(collected(sets[0].difference(&sets[1..])), only_first);
        }

        #[test]
        fn a_scan_of_a_changing_set_reports_every_member_that_stays(
            size in 1_u32..1500,
            count in 1_usize..100,
            changes in prop::collection::vec((any::<bool>(), 0_u32..2500), 0..300),
        ) {
            let limits = EncodingLimits::DEFAULT;
            let text = |i: u32| i.to_string().into_bytes();
            let mut set = Set::new();
            let mut missing = Model::new();
            for i in 0..size {
                set.add(&text(i), &limits);
                missing.insert(text(i));
            }
            let mut changes = changes.into_iter();
            let mut cursor = 0;
            loop {
                let (next, found) = set.scan(cursor, count);
                for m in found {
                    missing.remove(&*m);
                }
                cursor = next;
                if cursor == 0 {
                    break;
                }
                for (adds, i) in changes.by_ref().take(25) {
                    if adds {
                        set.add(&text(i), &limits);
                    } else {
                        set.remove(&text(i));
                        missing.remove(&text(i));
                    }
                }
            }
            prop_assert!(missing.is_empty());
        }
    }

    #[test]
    fn conversion_happens_one_past_the_default_threshold() {
        let mut set = Set::new();
        for i in 0..512 {
            set.add(i.to_string().as_bytes(), &EncodingLimits::DEFAULT);
        }
        assert_eq!(set.encoding(), "intset");
        set.add(b"512", &EncodingLimits::DEFAULT);
        assert_eq!(set.encoding(), "hashtable");
    }

    #[test]
    fn nothing_is_common_to_no_sets() {
        assert_eq!(Set::intersection(&[]).count(), 0);
    }
}
