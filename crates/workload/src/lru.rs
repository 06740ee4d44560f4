//! An exact LRU cache without values: the yardstick a real cache's approximation is compared with.
//!
//! Invariant: `order` links exactly the entries in `index`, most recently used first, and their cost never exceeds the
//! capacity. Entries live in one vector and are reused in place, so a run allocates no more than its peak. Absent: values,
//! expiry, concurrency.

use std::sync::Mutex;

use ahash::AHashMap;

use crate::{Error, ErrorKind, Lookup, ReplayTarget, Request};

/// How much an LRU model holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Capacity {
    /// So many objects, whatever their size.
    Objects(u64),
    /// So many bytes of values; keys and overhead count nothing.
    Bytes(u64),
}

/// An exact LRU cache that remembers which objects it holds, not their values.
#[derive(Debug)]
pub struct LruModel {
    capacity: u64,
    by_bytes: bool,
    used: u64,
    evictions: u64,
    index: AHashMap<u64, usize>,
    entries: Vec<Entry>,
    free: Vec<usize>,
    newest: Option<usize>,
    oldest: Option<usize>,
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    object: u64,
    cost: u64,
    newer: Option<usize>,
    older: Option<usize>,
}

impl LruModel {
    /// An empty cache of this capacity; a capacity of zero holds nothing.
    pub fn new(capacity: Capacity) -> Self {
        let (capacity, by_bytes) = match capacity {
            Capacity::Objects(objects) => (objects, false),
            Capacity::Bytes(bytes) => (bytes, true),
        };
        Self {
            capacity,
            by_bytes,
            used: 0,
            evictions: 0,
            index: AHashMap::new(),
            entries: Vec::new(),
            free: Vec::new(),
            newest: None,
            oldest: None,
        }
    }

    /// Looks the object up, making it the most recently used when it is there.
    pub fn touch(&mut self, object: u64) -> Lookup {
        let Some(&place) = self.index.get(&object) else {
            return Lookup::Miss;
        };
        self.unlink(place);
        self.link_newest(place);
        Lookup::Hit
    }

    /// Puts the object in as the most recently used, evicting the least recently used until it fits. An object larger
    /// than the whole cache is not kept.
    pub fn insert(&mut self, request: Request) {
        let cost = if self.by_bytes { u64::from(request.value_bytes) } else { 1 };
        if let Some(&place) = self.index.get(&request.object) {
            self.remove(place);
        }
        if cost > self.capacity {
            return;
        }
        while self.used + cost > self.capacity
            && let Some(oldest) = self.oldest
        {
            self.remove(oldest);
            self.evictions += 1;
        }
        let entry = Entry { object: request.object, cost, newer: None, older: None };
        let place = if let Some(place) = self.free.pop() {
            self.entries[place] = entry;
            place
        } else {
            self.entries.push(entry);
            self.entries.len() - 1
        };
        self.index.insert(request.object, place);
        self.used += cost;
        self.link_newest(place);
    }

    /// Looks the object up and, on a miss, puts it in: one request of a read-through cache.
    pub fn request(&mut self, request: Request) -> Lookup {
        let found = self.touch(request.object);
        if found == Lookup::Miss {
            self.insert(request);
        }
        found
    }

    /// How many objects it holds now.
    pub fn len(&self) -> usize {
        self.index.len()
    }

    /// Whether it holds nothing.
    pub fn is_empty(&self) -> bool {
        self.index.is_empty()
    }

    /// How many objects were pushed out to make room.
    pub fn evictions(&self) -> u64 {
        self.evictions
    }

    fn remove(&mut self, place: usize) {
        self.unlink(place);
        let Entry { object, cost, .. } = self.entries[place];
        self.index.remove(&object);
        self.used -= cost;
        self.free.push(place);
    }

    fn unlink(&mut self, place: usize) {
        let Entry { newer, older, .. } = self.entries[place];
        match newer {
            Some(newer) => self.entries[newer].older = older,
            None => self.newest = older,
        }
        match older {
            Some(older) => self.entries[older].newer = newer,
            None => self.oldest = newer,
        }
    }

    fn link_newest(&mut self, place: usize) {
        let second = self.newest.replace(place);
        self.entries[place].newer = None;
        self.entries[place].older = second;
        match second {
            Some(second) => self.entries[second].newer = Some(place),
            None => self.oldest = Some(place),
        }
    }
}

/// The exact LRU model as a target of [`crate::replay`].
#[derive(Debug)]
pub struct LruTarget {
    model: Mutex<LruModel>,
    described: String,
}

impl LruTarget {
    /// A model of this capacity, which must not be zero.
    pub fn new(capacity: Capacity) -> Result<Self, Error> {
        let described = match capacity {
            Capacity::Objects(0) | Capacity::Bytes(0) => {
                return Err(Error::new(
                    ErrorKind::Option,
                    "a cache of size zero holds nothing; give it a size",
                ));
            }
            Capacity::Objects(objects) => format!("exact LRU of {objects} objects"),
            Capacity::Bytes(bytes) => format!("exact LRU of {bytes} bytes of values"),
        };
        Ok(Self { model: Mutex::new(LruModel::new(capacity)), described })
    }

    fn model(&self) -> std::sync::MutexGuard<'_, LruModel> {
        self.model.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

impl ReplayTarget for LruTarget {
    fn describe(&self) -> String {
        self.described.clone()
    }

    async fn get(&self, request: Request) -> Result<Lookup, Error> {
        Ok(self.model().touch(request.object))
    }

    async fn set(&self, request: Request, _value: &[u8]) -> Result<(), Error> {
        self.model().insert(request);
        Ok(())
    }

    async fn evictions(&self) -> Result<Option<u64>, Error> {
        Ok(Some(self.model().evictions()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(object: u64, value_bytes: u32) -> Request {
        Request { object, value_bytes }
    }

    #[test]
    fn least_recently_used_object_is_the_one_evicted() {
        let mut lru = LruModel::new(Capacity::Objects(2));
        for object in [1, 2, 1, 3] {
            lru.request(request(object, 1));
        }
        assert_eq!(lru.touch(2), Lookup::Miss);
        assert_eq!(lru.touch(1), Lookup::Hit);
        assert_eq!(lru.evictions(), 1);
    }

    #[test]
    fn object_larger_than_the_cache_is_not_kept_and_evicts_nothing() {
        let mut lru = LruModel::new(Capacity::Bytes(100));
        lru.request(request(1, 100));
        lru.request(request(2, 101));
        assert_eq!((lru.touch(1), lru.touch(2)), (Lookup::Hit, Lookup::Miss));
    }

    proptest::proptest! {
        #[test]
        fn agrees_with_a_naive_list(requests in proptest::collection::vec((0u64..20, 1u32..30), 0..300), capacity in 1u64..120) {
            let mut lru = LruModel::new(Capacity::Bytes(capacity));
            let mut naive: Vec<Request> = Vec::new();
            for (object, value_bytes) in requests {
                let wanted = request(object, value_bytes);
                let held = naive.iter().position(|kept| kept.object == object);
                let found = lru.request(wanted);
                proptest::prop_assert_eq!(found == Lookup::Hit, held.is_some());
                if let Some(held) = held {
                    let kept = naive.remove(held);
                    naive.push(kept);
                } else if u64::from(value_bytes) <= capacity {
                    while naive.iter().map(|kept| u64::from(kept.value_bytes)).sum::<u64>() + u64::from(value_bytes) > capacity {
                        naive.remove(0);
                    }
                    naive.push(wanted);
                }
                proptest::prop_assert_eq!(lru.len(), naive.len());
            }
        }
    }
}
