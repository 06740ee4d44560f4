//! One database's part of one shard: a table of entries, and a dense vector that lists those with an expiry.
//!
//! Invariant: `expiring` holds the position of each entry with an expiry once, and that entry knows its place in it. A
//! random entry, and a random one among those with an expiry, is found in O(1) for that reason. Deliberately
//! absent: whether an entry is expired, which `Keyspace` decides, and any accounting, which the shard does.

use super::KeyHash;
use super::dense::Dense;
use super::entry::Entry;
use super::table::{Position, Slot, Table};
use crate::time::UnixMillis;

/// One database's share of a shard.
#[derive(Default)]
pub(crate) struct Db {
    table: Table,
    expiring: Dense<Position>,
}

impl Db {
    pub(crate) fn len(&self) -> usize {
        self.table.len()
    }

    pub(crate) fn expiring_len(&self) -> usize {
        self.expiring.len()
    }

    #[inline]
    pub(crate) fn find(&self, hash: KeyHash, key: &[u8]) -> Option<Slot> {
        self.table.find(hash.position(), |entry| entry.has_key(key))
    }

    /// See [`Table::prefetch_bucket`].
    #[inline]
    pub(crate) fn prefetch_bucket(&self, hash: KeyHash) {
        self.table.prefetch_bucket(hash.position());
    }

    /// See [`Table::prefetch_entry`].
    #[inline]
    pub(crate) fn prefetch_entry(&self, hash: KeyHash) {
        self.table.prefetch_entry(hash.position());
    }

    #[inline]
    pub(crate) fn get(&self, slot: Slot) -> Option<&Entry> {
        self.table.get(slot)
    }

    /// The entry, for any change but of its key and its expiry.
    #[inline]
    pub(crate) fn get_mut(&mut self, slot: Slot) -> Option<&mut Entry> {
        self.table.get_mut(slot)
    }

    /// All entries.
    pub(crate) fn entries(&self) -> impl Iterator<Item = &Entry> {
        self.table.iter()
    }

    /// All entries, taken out.
    pub(crate) fn into_entries(self) -> impl Iterator<Item = Entry> {
        self.table.into_entries()
    }

    /// A random entry.
    pub(crate) fn random_slot(&self) -> Option<Slot> {
        self.table.random()
    }

    /// The entry in place `index` of the list of expiring entries.
    pub(crate) fn expiring_slot(&self, index: usize) -> Option<Slot> {
        self.listed_at(index, *self.expiring.get(index)?)
    }

    /// Visits some entries from `from` on, in the order of positions, and says where to go on; see [`Table::walk`].
    pub(crate) fn walk(&self, from: Position, visit: impl FnMut(Slot, &Entry)) -> Option<Position> {
        self.table.walk(from, visit)
    }

    /// Makes room for about so many entries where none has ever been.
    pub(crate) fn reserve(&mut self, entries: usize) {
        self.table.reserve(entries);
    }

    /// Adds an entry whose key is not there yet. `hash_of` tells the hash of any key.
    pub(crate) fn insert(&mut self, hash: KeyHash, mut entry: Entry, hash_of: impl Fn(&[u8]) -> KeyHash) {
        if entry.expires_at().is_some() {
            entry.set_ttl_index(self.expiring.len() as u32);
            self.expiring.push(hash.position());
        }
        self.table.insert(hash.position(), entry, |key| hash_of(key).position());
    }

    /// Replaces the entry in `slot` by one of the same key and gives the old one back.
    pub(crate) fn replace(&mut self, hash: KeyHash, slot: Slot, mut entry: Entry) -> Option<Entry> {
        self.unlist(slot);
        if entry.expires_at().is_some() {
            entry.set_ttl_index(self.expiring.len() as u32);
            self.expiring.push(hash.position());
        }
        self.table.replace(slot, entry)
    }

    /// Takes an entry out.
    pub(crate) fn remove(&mut self, slot: Slot) -> Option<Entry> {
        self.unlist(slot);
        self.table.remove(slot)
    }

    /// Sets or clears the expiry of the entry in `slot`.
    pub(crate) fn set_expires_at(
        &mut self,
        slot: Slot,
        expires_at: Option<UnixMillis>,
        hash_of: impl Fn(&[u8]) -> KeyHash,
    ) {
        let listed = self.get(slot).is_some_and(|entry| entry.expires_at().is_some());
        if listed && expires_at.is_none() {
            self.unlist(slot);
        }
        let place = self.expiring.len() as u32;
        let Some(entry) = self.get_mut(slot) else { return };
        entry.set_expires_at(expires_at);
        if !listed && expires_at.is_some() {
            entry.set_ttl_index(place);
            let position = hash_of(entry.key()).position();
            self.expiring.push(position);
        }
    }

    /// Bytes of the table and the list, without the entries.
    pub(crate) fn memory(&self) -> usize {
        self.table.memory() + self.expiring.memory()
    }

    /// The entry that says of itself that it has place `index` of the list.
    fn listed_at(&self, index: usize, position: Position) -> Option<Slot> {
        let index = index as u32;
        self.table.find(position, |entry| entry.expires_at().is_some() && entry.ttl_index() == index)
    }

    /// Takes the entry in `slot` off the list of expiring entries, if it is on it.
    fn unlist(&mut self, slot: Slot) {
        let Some(entry) = self.get(slot) else { return };
        if entry.expires_at().is_none() {
            return;
        }
        let place = entry.ttl_index();
        // The last of the list takes the place.
        let last = self.expiring.len() - 1;
        if last != place as usize
            && let Some(moved) = self.expiring_slot(last)
            && let Some(entry) = self.table.get_mut(moved)
        {
            entry.set_ttl_index(place);
        }
        self.expiring.swap_remove(place as usize);
    }
}

#[cfg(test)]
#[path = "db_tests.rs"]
mod tests;
