//! The cursor of `SCAN`: which shard, and how many of its slots are still to be visited.
//!
//! A walk goes through the shards in order and through each shard's slots downwards. Removal moves the last entry into
//! the hole: if the hole lies ahead, the moved entry is met again there; if it lies behind, the moved entry had been met
//! already, being further up. New entries arrive at the top. So an entry that is there from the first call to the
//! last is always returned, at times twice, as Redis promises it.

/// Slots of one shard fit in this many bits of a cursor; shards and this are together below 2^63.
const SLOT_BITS: u32 = 40;
const TOP: u64 = (1 << SLOT_BITS) - 1;

/// Where a walk through the keyspace stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ScanCursor {
    /// The shard being walked.
    pub(crate) shard: usize,
    /// Slots below this one are still to be visited.
    pub(crate) below: u64,
}

impl ScanCursor {
    /// Reads a cursor as a client sent it; anything that was never handed out means some place in the walk.
    pub(crate) fn from_wire(cursor: u64) -> Self {
        if cursor == 0 {
            return Self::top_of(0);
        }
        Self { shard: usize::try_from(cursor >> SLOT_BITS).unwrap_or(usize::MAX), below: cursor & TOP }
    }

    /// The start of a shard's walk.
    pub(crate) fn top_of(shard: usize) -> Self {
        Self { shard, below: TOP }
    }

    /// The cursor for the client; zero when the walk is over, which is when no shard is left.
    pub(crate) fn to_wire(self, shards: usize) -> u64 {
        if self.shard >= shards { 0 } else { ((self.shard as u64) << SLOT_BITS) | self.below }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_survives_the_wire() {
        let cursor = ScanCursor { shard: 3, below: 17 };
        assert_eq!(ScanCursor::from_wire(cursor.to_wire(16)), cursor);
        assert_eq!(ScanCursor::from_wire(0), ScanCursor::top_of(0));
        assert_eq!(ScanCursor::top_of(16).to_wire(16), 0);
    }
}
