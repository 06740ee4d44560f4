//! Tests of the sorted set against a plain map and a sorted vector.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

const SMALL: EncodingLimits =
    EncodingLimits { zset_max_listpack_entries: 10, zset_max_listpack_value: 20, ..EncodingLimits::DEFAULT };

/// Everything large from the first member on.
const NEVER_SMALL: EncodingLimits =
    EncodingLimits { zset_max_listpack_entries: 0, ..EncodingLimits::DEFAULT };

#[derive(Debug, Clone)]
enum Op {
    Insert(u16, f64),
    Add(u16, f64),
    Remove(u16),
    RemoveRanks(usize, usize),
    PopMin,
    PopMax,
}

fn score() -> impl Strategy<Value = f64> {
    prop_oneof![
        6 => (-5_i32..5).prop_map(f64::from),
        3 => -1e6..1e6,
        1 => prop::sample::select(vec![0.0, -0.0, f64::INFINITY, f64::NEG_INFINITY, f64::MAX, f64::NAN, 1e-300]),
    ]
}

fn op(members: u16, removals: u32) -> impl Strategy<Value = Op> {
    prop_oneof![
        20 => (0..members, score()).prop_map(|(m, s)| Op::Insert(m, s)),
        4 => (0..members, score()).prop_map(|(m, s)| Op::Add(m, s)),
        2 * removals => (0..members).prop_map(Op::Remove),
        removals => (any::<usize>(), 0_usize..8).prop_map(|(i, n)| Op::RemoveRanks(i, n)),
        removals => Just(Op::PopMin),
        removals => Just(Op::PopMax),
    ]
}

fn member(i: u16) -> Vec<u8> {
    match i % 7 {
        0 => format!("a-long-member-of-the-set:{i:0>20}").into_bytes(),
        _ => format!("m{i}").into_bytes(),
    }
}

fn lex_bounds(bound: &str) -> [LexBound<'_>; 4] {
    let bound = bound.as_bytes();
    [LexBound::Included(bound), LexBound::Excluded(bound), LexBound::Min, LexBound::Max]
}

/// Scores by member, and members in order.
#[derive(Default)]
struct Model {
    scores: BTreeMap<Vec<u8>, f64>,
    ordered: Vec<(Vec<u8>, f64)>,
}

impl Model {
    fn score(&self, member: &[u8]) -> Option<f64> {
        self.scores.get(member).copied()
    }

    fn place(&self, member: &[u8], score: f64) -> usize {
        self.ordered.partition_point(|(m, s)| s.partial_cmp(&score).unwrap().then((**m).cmp(member)).is_lt())
    }

    fn insert(&mut self, member: Vec<u8>, score: f64) {
        self.remove(&member);
        self.ordered.insert(self.place(&member, score), (member.clone(), score));
        self.scores.insert(member, score);
    }

    fn remove(&mut self, member: &[u8]) -> Option<f64> {
        let score = self.scores.remove(member)?;
        self.ordered.remove(self.place(member, score));
        Some(score)
    }

    fn len(&self) -> usize {
        self.ordered.len()
    }
}

fn owned(iter: impl Iterator<Item = (impl AsRef<[u8]>, f64)>) -> Vec<(Vec<u8>, u64)> {
    // Bits, because a zero's sign must survive.
    iter.map(|(m, s)| (m.as_ref().to_vec(), value_bits(s))).collect()
}

#[allow(clippy::float_cmp)]
fn apply(set: &mut SortedSet, model: &mut Model, op: &Op, limits: &EncodingLimits) {
    match *op {
        Op::Insert(m, s) => {
            let m = member(m);
            let expected = match model.score(&m) {
                _ if s.is_nan() => ScoreChange::Unchanged,
                Some(old) if old == s => ScoreChange::Unchanged,
                Some(_) => ScoreChange::Updated,
                None => ScoreChange::Added,
            };
            assert_eq!(set.insert(&m, s, limits), expected);
            if expected != ScoreChange::Unchanged {
                model.insert(m, s);
            }
        }
        Op::Add(m, s) => {
            let m = member(m);
            let sum = model.score(&m).unwrap_or(0.0) + s;
            set.update_with(&m, limits, |old| {
                assert_eq!(old, model.score(&m));
                Some(old.unwrap_or(0.0) + s)
            });
            if !sum.is_nan() && model.score(&m) != Some(sum) {
                model.insert(m, sum);
            }
        }
        Op::Remove(m) => assert_eq!(set.remove(&member(m)), model.remove(&member(m))),
        Op::RemoveRanks(i, n) => {
            let i = i % (model.len() + 1);
            let gone = model.ordered[i..(i + n).min(model.len())].to_vec();
            assert_eq!(set.remove_ranks(i..i + n), gone.len());
            for (m, _) in gone {
                model.remove(&m);
            }
        }
        Op::PopMin | Op::PopMax => {
            let (popped, expected) = match op {
                Op::PopMin => (set.pop_min(), model.ordered.first().cloned()),
                _ => (set.pop_max(), model.ordered.last().cloned()),
            };
            assert_eq!(popped, expected);
            expected.map(|(m, _)| model.remove(&m));
        }
    }
}

fn check_reads(set: &SortedSet, model: &Model) {
    let all = &model.ordered;
    assert_eq!(set.len(), all.len());
    assert_eq!(owned(set.iter()), owned(all.iter().map(|(m, s)| (m, *s))));
    assert_eq!(owned(set.iter().rev()), owned(all.iter().rev().map(|(m, s)| (m, *s))));
    let mut by_index = owned((0..all.len()).map(|i| set.by_index(i).unwrap()));
    by_index.sort();
    assert_eq!(by_index, owned(model.scores.iter().map(|(m, s)| (m, *s))));
    assert_eq!(set.by_index(all.len()), None);
    for (rank, (m, s)) in all.iter().enumerate() {
        assert_eq!((set.rank(m), set.score(m)), (Some(rank), Some(*s)));
    }
    assert_eq!((set.rank(b"absent"), set.score(b"absent")), (None, None));
    for start in (0..=all.len()).step_by(11) {
        for end in [start, start + 1, start + 90, usize::MAX] {
            let expected = &all[start..end.min(all.len())];
            let range = set.iter_ranks(start..end);
            assert_eq!(range.len(), expected.len());
            assert_eq!(owned(range), owned(expected.iter().map(|(m, s)| (m, *s))));
        }
    }
}

fn check_score_ranges(set: &SortedSet, model: &Model, bounds: &[f64]) {
    let all = &model.ordered;
    let inside = |s: f64, min: ScoreBound, max: ScoreBound| {
        let above = match min {
            ScoreBound::Included(b) => s >= b,
            ScoreBound::Excluded(b) => s > b,
        };
        above
            && match max {
                ScoreBound::Included(b) => s <= b,
                ScoreBound::Excluded(b) => s < b,
            }
    };
    let both = |b: &f64| [ScoreBound::Included(*b), ScoreBound::Excluded(*b)];
    for min in bounds.iter().filter(|b| !b.is_nan()).flat_map(both) {
        for max in bounds.iter().filter(|b| !b.is_nan()).flat_map(both) {
            let expected: Vec<_> = all.iter().filter(|(_, s)| inside(*s, min, max)).collect();
            let ranks = set.ranks_by_score(min, max);
            assert_eq!(ranks.len(), expected.len(), "{min:?} {max:?}");
            assert_eq!(owned(set.iter_ranks(ranks)), owned(expected.iter().map(|(m, s)| (m, *s))));
        }
    }
}

fn check(ops: &[Op], bounds: &[f64], limits: &EncodingLimits) {
    let (mut set, mut model, mut large) = (SortedSet::new(), Model::default(), false);
    for op in ops {
        let before = model.len();
        apply(&mut set, &mut model, op, limits);
        if model.len() > before {
            let (Op::Insert(m, _) | Op::Add(m, _)) = *op else { panic!("{op:?} added a member") };
            large |= model.len() > limits.zset_max_listpack_entries
                || member(m).len() > limits.zset_max_listpack_value;
        }
        assert_eq!(set.encoding(), if large { "skiplist" } else { "listpack" });
        assert_eq!(set.len(), model.len());
    }
    check_reads(&set, &model);
    check_score_ranges(&set, &model, bounds);
    check_reads(&set.clone(), &model);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn behaves_as_an_ordered_map(
        ops in prop::collection::vec(op(400, 1), 0..600),
        bounds in prop::collection::vec(score(), 4),
    ) {
        check(&ops, &bounds, &EncodingLimits::DEFAULT);
    }

    #[test]
    fn behaves_as_an_ordered_map_around_the_thresholds(
        ops in prop::collection::vec(op(25, 3), 0..120),
        bounds in prop::collection::vec(score(), 4),
    ) {
        check(&ops, &bounds, &SMALL);
    }

    #[test]
    fn behaves_as_an_ordered_map_when_always_large(
        ops in prop::collection::vec(op(60, 6), 0..300),
        bounds in prop::collection::vec(score(), 4),
    ) {
        check(&ops, &bounds, &NEVER_SMALL);
    }

    #[test]
    fn ranges_of_members_agree_with_the_model(
        members in prop::collection::btree_set("[a-d]{0,4}", 0..300),
        bounds in prop::collection::vec("[a-d]{0,4}", 2),
        never_small: bool,
    ) {
        let limits = if never_small { NEVER_SMALL } else { EncodingLimits::DEFAULT };
        let mut set = SortedSet::new();
        for m in &members {
            set.insert(m.as_bytes(), 7.5, &limits);
        }
        for min in lex_bounds(&bounds[0]) {
            for max in lex_bounds(&bounds[1]) {
                let expected: Vec<&str> = members
                    .iter()
                    .map(String::as_str)
                    .filter(|m| match min {
                        LexBound::Min => true,
                        LexBound::Max => false,
                        LexBound::Included(b) => m.as_bytes() >= b,
                        LexBound::Excluded(b) => m.as_bytes() > b,
                    })
                    .filter(|m| match max {
                        LexBound::Min => false,
                        LexBound::Max => true,
                        LexBound::Included(b) => m.as_bytes() <= b,
                        LexBound::Excluded(b) => m.as_bytes() < b,
                    })
                    .collect();
                let ranks = set.ranks_by_lex(min, max);
                prop_assert!(set.iter_ranks(ranks).map(|(m, _)| m).eq(expected.iter().map(|m| m.as_bytes())));
            }
        }
    }

    #[test]
    fn a_scan_of_a_changing_sorted_set_reports_every_member_that_stays(
        size in 1_u16..600,
        count in 1_usize..60,
        changes in prop::collection::vec(op(800, 4), 0..150),
    ) {
        let limits = EncodingLimits::DEFAULT;
        let (mut set, mut model) = (SortedSet::new(), Model::default());
        for i in 0..size {
            apply(&mut set, &mut model, &Op::Insert(i, f64::from(i % 50)), &limits);
        }
        let mut missing = model.scores.clone();
        let mut changes = changes.into_iter();
        let mut cursor = 0;
        loop {
            let (next, found) = set.scan(cursor, count);
            for (m, s) in found {
                prop_assert_eq!(model.score(m).map(value_bits), Some(value_bits(s)));
                missing.remove(m);
            }
            cursor = next;
            if cursor == 0 {
                break;
            }
            for op in changes.by_ref().take(25) {
                apply(&mut set, &mut model, &op, &limits);
                if !matches!(op, Op::Insert(..) | Op::Add(..)) {
                    missing.retain(|m, _| model.scores.contains_key(m));
                }
            }
        }
        prop_assert!(missing.is_empty());
    }
}

#[test]
fn conversion_happens_one_past_the_default_thresholds() {
    let limits = EncodingLimits::DEFAULT;
    let mut set = SortedSet::new();
    for i in 0..127 {
        set.insert(format!("m{i}").as_bytes(), f64::from(i), &limits);
    }
    set.insert(&[b'x'; 64], 0.0, &limits);
    assert_eq!((set.len(), set.encoding()), (128, "listpack"));
    set.insert(b"m0", 9.0, &limits);
    assert_eq!(set.encoding(), "listpack");
    set.insert(b"one more", 0.0, &limits);
    assert_eq!((set.len(), set.encoding()), (129, "skiplist"));

    let mut set = SortedSet::new();
    set.insert(&[b'x'; 65], 0.0, &limits);
    assert_eq!(set.encoding(), "skiplist");
}

/// Tells scores apart but not the two zeros: which of them is kept depends on the encoding.
fn value_bits(score: f64) -> u64 {
    (score + 0.0).to_bits()
}

#[test]
fn a_zero_keeps_its_sign_in_the_large_encoding_only() {
    for (limits, keeps) in [(EncodingLimits::DEFAULT, false), (NEVER_SMALL, true)] {
        let mut set = SortedSet::new();
        set.insert(b"a", -0.0, &limits);
        assert_eq!(set.insert(b"a", 0.0, &limits), ScoreChange::Unchanged);
        assert_eq!(set.score(b"a").unwrap().is_sign_negative(), keeps);
        set.insert(b"b", 0.0, &limits);
        set.insert(b"A", 0.0, &limits);
        // The two zeros are one score, so the members decide.
        let members: Vec<&[u8]> = set.iter().map(|(m, _)| m).collect();
        assert_eq!(members, [b"A", b"a", b"b"]);
    }
}

#[test]
fn a_set_made_large_is_packed_when_it_would_have_been_small() {
    let mut set = SortedSet::new_large();
    set.insert(b"a", -0.0, &EncodingLimits::DEFAULT);
    assert!(set.encoding() == "skiplist" && set.score(b"a").unwrap().is_sign_negative());
    set.pack_if_small(&EncodingLimits::DEFAULT);
    assert!(set.encoding() == "listpack" && set.score(b"a").unwrap().is_sign_positive());
    let mut set = SortedSet::new_large();
    set.insert(&[b'x'; 65], 1.0, &EncodingLimits::DEFAULT);
    set.pack_if_small(&EncodingLimits::DEFAULT);
    assert_eq!(set.encoding(), "skiplist");
}
