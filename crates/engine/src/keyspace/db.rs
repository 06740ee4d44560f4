//! One database's part of one shard: entries in a dense vector, a hash index over it, and a second dense vector that
//! lists the entries with an expiry.
//!
//! Invariants: `index` holds each slot of `entries` once, under the bits that `hashes` has for it; `expiring` holds the slot of each entry with an expiry once,
//! and that entry knows its place in it. Sampling and walking by slot are O(1) for that reason. Deliberately absent:
//! whether an entry is expired, which `Keyspace` decides, and any accounting, which the shard does.

use hashbrown::HashTable;

use super::dense::Dense;
use super::entry::Entry;
use crate::time::UnixMillis;

/// Position of an entry in its database's dense vector; valid until the next insertion or removal there.
pub(crate) type Slot = u32;

/// One database's share of a shard.
#[derive(Default)]
pub(crate) struct Db {
    entries: Dense<Entry>,
    /// Half of each entry's hash: a growing or shrinking index finds its way without reading, let alone hashing, a key
    /// that lies somewhere in memory. That is what makes growth short.
    hashes: Dense<u32>,
    index: HashTable<Slot>,
    expiring: Dense<Slot>,
}

impl Db {
    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    pub(crate) fn expiring_len(&self) -> usize {
        self.expiring.len()
    }

    #[inline]
    pub(crate) fn find(&self, hash: u64, key: &[u8]) -> Option<Slot> {
        self.index
            .find(spread(hash as u32), |&slot| {
                self.entries.get(slot as usize).is_some_and(|e| e.key() == key)
            })
            .copied()
    }

    #[inline]
    pub(crate) fn get(&self, slot: Slot) -> Option<&Entry> {
        self.entries.get(slot as usize)
    }

    /// The entry, for any change but of its key and its expiry.
    #[inline]
    pub(crate) fn get_mut(&mut self, slot: Slot) -> Option<&mut Entry> {
        self.entries.get_mut(slot as usize)
    }

    /// All entries.
    pub(crate) fn entries(&self) -> impl Iterator<Item = &Entry> {
        self.entries.iter()
    }

    /// The entry in place `index` of the list of expiring entries.
    pub(crate) fn expiring_slot(&self, index: usize) -> Option<Slot> {
        self.expiring.get(index).copied()
    }

    /// Adds an entry whose key is not there yet.
    pub(crate) fn insert(&mut self, hash: u64, mut entry: Entry) -> Slot {
        let slot = self.entries.len() as Slot;
        if entry.expires_at().is_some() {
            entry.set_ttl_index(self.expiring.len() as u32);
            self.expiring.push(slot);
        }
        self.entries.push(entry);
        self.hashes.push(hash as u32);
        let hashes = &self.hashes;
        self.index.insert_unique(spread(hash as u32), slot, |&slot| hash_of(hashes, slot));
        slot
    }

    /// Replaces the entry in `slot` by one of the same key and gives the old one back.
    pub(crate) fn replace(&mut self, slot: Slot, mut entry: Entry) -> Option<Entry> {
        self.unlist(slot);
        if entry.expires_at().is_some() {
            entry.set_ttl_index(self.expiring.len() as u32);
            self.expiring.push(slot);
        }
        self.get_mut(slot).map(|place| std::mem::replace(place, entry))
    }

    /// Takes an entry out. The last entry moves into its slot.
    pub(crate) fn remove(&mut self, slot: Slot) -> Option<Entry> {
        self.unlist(slot);
        if let Ok(found) = self.index.find_entry(hash_of(&self.hashes, slot), |&s| s == slot) {
            found.remove();
        }
        let removed = self.entries.swap_remove(slot as usize)?;
        self.hashes.swap_remove(slot as usize);
        let moved_from = self.entries.len() as Slot;
        if moved_from != slot
            && let Some(moved) = self.entries.get(slot as usize)
        {
            if moved.expires_at().is_some()
                && let Some(place) = self.expiring.get_mut(moved.ttl_index() as usize)
            {
                *place = slot;
            }
            if let Some(place) = self.index.find_mut(hash_of(&self.hashes, slot), |&s| s == moved_from) {
                *place = slot;
            }
        }
        Some(removed)
    }

    /// Sets or clears the expiry of the entry in `slot`.
    pub(crate) fn set_expires_at(&mut self, slot: Slot, expires_at: Option<UnixMillis>) {
        let listed = self.get(slot).is_some_and(|entry| entry.expires_at().is_some());
        if listed && expires_at.is_none() {
            self.unlist(slot);
        }
        let place = self.expiring.len() as u32;
        let Some(entry) = self.get_mut(slot) else { return };
        entry.set_expires_at(expires_at);
        if !listed && expires_at.is_some() {
            entry.set_ttl_index(place);
            self.expiring.push(slot);
        }
    }

    /// Bytes of the vectors and the index, without the entries.
    pub(crate) fn memory(&self) -> usize {
        self.entries.memory() + self.hashes.memory() + self.expiring.memory() + self.index.allocation_size()
    }

    /// Takes the entry in `slot` off the list of expiring entries, if it is on it.
    fn unlist(&mut self, slot: Slot) {
        let Some(entry) = self.get(slot) else { return };
        if entry.expires_at().is_none() {
            return;
        }
        let place = entry.ttl_index();
        self.expiring.swap_remove(place as usize);
        if let Some(&moved) = self.expiring.get(place as usize)
            && let Some(entry) = self.entries.get_mut(moved as usize)
        {
            entry.set_ttl_index(place);
        }
    }
}

/// What the index hashes a slot to.
#[inline]
fn hash_of(hashes: &Dense<u32>, slot: Slot) -> u64 {
    spread(hashes.get(slot as usize).copied().unwrap_or_default())
}

/// The index uses the lowest bits for the place and the highest for the tag: half a hash has enough of both, up to 2^25
/// entries without any bit in common.
#[inline]
fn spread(half: u32) -> u64 {
    u64::from(half) << 32 | u64::from(half)
}

#[cfg(test)]
#[path = "db_tests.rs"]
mod tests;
