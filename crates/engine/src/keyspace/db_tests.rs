//! A database's part of a shard, against a model.

use std::collections::BTreeMap;

use ahash::RandomState;
use proptest::prelude::*;

use super::super::eviction::AccessClock;
use super::super::shard::{Found, Shard};
use super::super::{DbIndex, Value};
use super::*;
use crate::types::{EncodingLimits, Set};

impl Db {
    /// Holds the invariants of the module against what is stored.
    fn assert_consistent(&self, hasher: &RandomState) {
        for entry in self.entries() {
            let slot = self.find(KeyHash(hasher.hash_one(entry.key())), entry.key()).unwrap();
            assert!(std::ptr::eq(self.get(slot).unwrap(), entry));
            if entry.expires_at().is_some() {
                assert_eq!(self.expiring_slot(entry.ttl_index() as usize), Some(slot));
            }
        }
        assert_eq!(self.entries().count(), self.len());
        let expiring = self.entries().filter(|entry| entry.expires_at().is_some()).count();
        assert_eq!(self.expiring_len(), expiring);
    }
}

const DBS: usize = 3;

#[derive(Debug, Clone)]
enum Step {
    Put { db: DbIndex, key: u8, len: u16, ttl: Option<u16> },
    PutSet { db: DbIndex, key: u8, len: u8, ttl: Option<u16> },
    Grow { db: DbIndex, key: u8, by: u16 },
    AddMembers { db: DbIndex, key: u8, by: u8 },
    Overwrite { db: DbIndex, key: u8, len: u16, ttl: Option<u16> },
    SetExpiry { db: DbIndex, key: u8, ttl: Option<u16> },
    Take { db: DbIndex, key: u8 },
    Move { db: DbIndex, key: u8, to: DbIndex, name: u8 },
    Tick(u16),
    ExpireCycle { db: DbIndex },
    Clear { db: DbIndex },
    Swap { a: DbIndex, b: DbIndex },
}

fn step() -> impl Strategy<Value = Step> {
    let db = || 0..DBS as DbIndex;
    let key = || 0..40_u8;
    let ttl = || proptest::option::of(1..2000_u16);
    prop_oneof![
        8 => (db(), key(), 0..600_u16, ttl()).prop_map(|(db, key, len, ttl)| Step::Put { db, key, len, ttl }),
        3 => (db(), key(), any::<u8>(), ttl()).prop_map(|(db, key, len, ttl)| Step::PutSet { db, key, len, ttl }),
        3 => (db(), key(), 0..600_u16).prop_map(|(db, key, by)| Step::Grow { db, key, by }),
        3 => (db(), key(), any::<u8>()).prop_map(|(db, key, by)| Step::AddMembers { db, key, by }),
        8 => (db(), key(), 0..600_u16, ttl()).prop_map(|(db, key, len, ttl)| Step::Overwrite { db, key, len, ttl }),
        5 => (db(), key(), ttl()).prop_map(|(db, key, ttl)| Step::SetExpiry { db, key, ttl }),
        5 => (db(), key()).prop_map(|(db, key)| Step::Take { db, key }),
        3 => (db(), key(), db(), key()).prop_map(|(db, key, to, name)| Step::Move { db, key, to, name }),
        3 => (0..500_u16).prop_map(Step::Tick),
        2 => db().prop_map(|db| Step::ExpireCycle { db }),
        1 => db().prop_map(|db| Step::Clear { db }),
        1 => (db(), db()).prop_map(|(a, b)| Step::Swap { a, b }),
    ]
}

type Model = Vec<BTreeMap<u8, (usize, Option<UnixMillis>)>>;

struct Tested {
    shard: Shard,
    hasher: RandomState,
    model: Model,
    now: UnixMillis,
}

impl Tested {
    fn new() -> Self {
        let hasher = RandomState::new();
        let shard = Shard::new(DBS, hasher.clone());
        Self { shard, hasher, model: vec![BTreeMap::new(); DBS], now: UnixMillis(1_000_000) }
    }

    fn hash(&self, key: u8) -> KeyHash {
        KeyHash(self.hasher.hash_one(&[key][..]))
    }

    /// The slot of a live key; an expired one is taken out, on both sides.
    fn live(&mut self, db: DbIndex, key: u8) -> Option<Slot> {
        let found = self.shard.find_live(db, self.hash(key), &[key], self.now);
        let expected = self.model[usize::from(db)].get(&key).copied();
        match (found, expected) {
            (Found::Absent, None) => None,
            (Found::Live(slot), Some((_, at))) => {
                assert!(at.is_none_or(|at| at > self.now));
                Some(slot)
            }
            (Found::Expired(slot), Some((_, at))) => {
                assert!(at.is_some_and(|at| at <= self.now));
                assert_eq!(self.shard.take(db, slot).unwrap().key(), [key]);
                self.model[usize::from(db)].remove(&key);
                None
            }
            (found, expected) => panic!("{found:?} where {expected:?} is expected"),
        }
    }

    fn put(&mut self, db: DbIndex, key: u8, entry: Entry, len: usize) {
        let at = entry.expires_at();
        self.shard.put(db, self.hash(key), entry);
        self.model[usize::from(db)].insert(key, (len, at));
    }

    fn after(&self, ttl: Option<u16>) -> Option<UnixMillis> {
        ttl.map(|ttl| UnixMillis(self.now.0 + u64::from(ttl)))
    }

    #[allow(clippy::needless_pass_by_value, reason = "a step is done once")]
    fn apply(&mut self, step: Step) {
        match step {
            Step::Put { db, key, len, ttl } => {
                let entry = Entry::string(&[key], &vec![b'x'; usize::from(len)], self.after(ttl), 0);
                self.put(db, key, entry, usize::from(len));
            }
            Step::PutSet { db, key, len, ttl } => {
                let value = Value::Set(Box::new(set_of(0, len)));
                let entry = Entry::new(&[key], value, self.after(ttl), 0);
                self.put(db, key, entry, usize::from(len));
            }
            Step::Grow { db, key, by } => {
                let Some(slot) = self.live(db, key) else { return };
                let mut entry = self.shard.entry_mut(db, slot).unwrap();
                let super::super::ValueMut::String(value) = entry.value_mut() else { return };
                value.resize(value.len() + usize::from(by), 0);
                self.model[usize::from(db)].get_mut(&key).unwrap().0 += usize::from(by);
            }
            Step::AddMembers { db, key, by } => {
                let Some(slot) = self.live(db, key) else { return };
                let Some(mut set) = self.shard.collection_mut::<Set>(db, slot) else { return };
                let len = set.len();
                for member in len..len + usize::from(by) {
                    set.add(format!("member{member}").as_bytes(), &EncodingLimits::default());
                }
                self.model[usize::from(db)].get_mut(&key).unwrap().0 += usize::from(by);
            }
            Step::Overwrite { db, key, len, ttl } => {
                let Some(slot) = self.live(db, key) else { return };
                let at = self.after(ttl);
                let clock = AccessClock::new(self.now, None);
                self.shard.overwrite_string(db, slot, &vec![b'y'; usize::from(len)], at, clock);
                self.model[usize::from(db)].insert(key, (usize::from(len), at));
            }
            Step::SetExpiry { db, key, ttl } => {
                let Some(slot) = self.live(db, key) else { return };
                let at = self.after(ttl);
                self.shard.set_expires_at(db, slot, at);
                self.model[usize::from(db)].get_mut(&key).unwrap().1 = at;
            }
            Step::Take { db, key } => {
                let Some(slot) = self.live(db, key) else { return };
                assert_eq!(self.shard.take(db, slot).unwrap().key(), [key]);
                self.model[usize::from(db)].remove(&key);
            }
            Step::Move { db, key, to, name } => {
                let Some(slot) = self.live(db, key) else { return };
                let entry = self.shard.take(db, slot).unwrap().into_renamed(&[name]);
                let (len, _) = self.model[usize::from(db)].remove(&key).unwrap();
                self.put(to, name, entry, len);
            }
            Step::Tick(by) => self.now = UnixMillis(self.now.0 + u64::from(by)),
            Step::ExpireCycle { db } => {
                let (model, now) = (&mut self.model[usize::from(db)], self.now);
                self.shard.expire_some(db, now, 1000, |_, entry| {
                    let (_, at) = model.remove(&entry.key()[0]).unwrap();
                    assert!(at.is_some_and(|at| at <= now));
                });
            }
            Step::Clear { db } => {
                self.shard.clear(db);
                self.model[usize::from(db)].clear();
            }
            Step::Swap { a, b } => {
                self.shard.swap(a, b);
                self.model.swap(usize::from(a), usize::from(b));
            }
        }
    }

    fn check(&mut self) {
        let mut used = 0;
        for db in 0..DBS as DbIndex {
            let part = self.shard.db(db).unwrap();
            part.assert_consistent(&self.hasher);
            let stored: BTreeMap<u8, (usize, Option<UnixMillis>)> =
                part.entries().map(|entry| (entry.key()[0], (len_of(entry), entry.expires_at()))).collect();
            assert_eq!(stored, self.model[usize::from(db)]);
            used += part.entries().map(super::super::shard::footprint).sum::<usize>();
        }
        assert_eq!(self.shard.used(), used);
    }

    fn empty(&mut self) {
        for db in 0..DBS as DbIndex {
            while let Some(slot) = self.shard.db(db).unwrap().random_slot() {
                self.shard.take(db, slot);
            }
        }
        assert_eq!(self.shard.used(), 0);
    }
}

fn set_of(from: usize, len: u8) -> Set {
    let mut set = Set::default();
    for member in from..from + usize::from(len) {
        set.add(format!("member{member}").as_bytes(), &EncodingLimits::default());
    }
    set
}

fn len_of(entry: &Entry) -> usize {
    match entry.value() {
        super::super::ValueRef::String(bytes, _) => bytes.len(),
        super::super::ValueRef::Set(set) => set.len(),
        other => panic!("{other:?}"),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(crate::testing::cases(128)))]

    #[test]
    fn a_shard_holds_what_a_map_would_and_accounts_for_it(
        steps in proptest::collection::vec(step(), 0..200),
    ) {
        let mut tested = Tested::new();
        for step in steps {
            tested.apply(step);
        }
        tested.check();
        tested.empty();
    }

    #[test]
    fn a_shard_is_consistent_after_every_step(steps in proptest::collection::vec(step(), 0..40)) {
        let mut tested = Tested::new();
        for step in steps {
            tested.apply(step);
            tested.check();
        }
    }
}
