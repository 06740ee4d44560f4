//! The active expire cycle: finds expired entries that nobody asks for.
//!
//! The method is Redis': look at random entries among those with an expiry, and go on with a database while more than a
//! tenth of the sample had expired, within a budget of entries per call. Each removal is reported, so that the caller
//! can journal it.

use super::eviction::random_below;
use super::shard::Shard;
use super::{DbIndex, Entry};
use crate::time::UnixMillis;

/// Entries looked at in one round.
const SAMPLE: usize = 20;
/// A further round follows while at least this many of the sample had expired.
const REPEAT_AT: usize = SAMPLE / 10;

/// What one call did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct ExpiryCycle {
    /// Entries removed.
    pub(crate) removed: usize,
    /// Whether the budget ended before the work.
    pub(crate) more: bool,
}

impl Shard {
    /// Removes expired entries of one database, `budget` at the most, and hands each to `removed`.
    pub(crate) fn expire_some(
        &mut self,
        db: DbIndex,
        now: UnixMillis,
        budget: usize,
        mut removed: impl FnMut(&Self, Entry),
    ) -> ExpiryCycle {
        let mut done = ExpiryCycle::default();
        loop {
            let population = self.db(db).map_or(0, super::db::Db::expiring_len);
            if population == 0 {
                return done;
            }
            let mut expired = 0;
            for _ in 0..SAMPLE.min(population) {
                let population = self.db(db).map_or(0, super::db::Db::expiring_len);
                let Some(slot) = self.db(db).and_then(|db| db.expiring_slot(random_below(population))) else {
                    break;
                };
                if self.is_expired_slot(db, slot, now)
                    && let Some(entry) = self.take(db, slot)
                {
                    self.counters.expired += 1;
                    expired += 1;
                    removed(self, entry);
                }
            }
            done.removed += expired;
            if expired < REPEAT_AT {
                return done;
            }
            if done.removed >= budget {
                done.more = true;
                return done;
            }
        }
    }
}
