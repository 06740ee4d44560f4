//! The cursor of `SCAN`: which shard, and from which position on it is still to be visited.
//!
//! A walk goes through the shards in order and through the entries of each in the order of their positions, which is that
//! of their keys' hashes. No growing, shrinking, insertion or removal changes the position of an entry, so one that is
//! there from the first call to the last is always returned, as Redis promises it.

use super::table::Position;

/// Where a walk through the keyspace stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ScanCursor {
    /// The shard being walked.
    pub(crate) shard: usize,
    /// The first position still to be visited.
    pub(crate) from: Position,
}

impl ScanCursor {
    /// Reads a cursor as a client sent it; anything that was never handed out means some place in the walk.
    pub(crate) fn from_wire(cursor: u64) -> Self {
        let shard = usize::try_from(cursor >> Position::BITS).unwrap_or(usize::MAX);
        Self { shard, from: cursor as Position }
    }

    /// The start of a shard's walk.
    pub(crate) fn start_of(shard: usize) -> Self {
        Self { shard, from: 0 }
    }

    /// The cursor for the client; zero when the walk is over, which is when no shard is left.
    pub(crate) fn to_wire(self, shards: usize) -> u64 {
        if self.shard >= shards { 0 } else { ((self.shard as u64) << Position::BITS) | u64::from(self.from) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_survives_the_wire() {
        let cursor = ScanCursor { shard: 3, from: 17 };
        assert_eq!(ScanCursor::from_wire(cursor.to_wire(16)), cursor);
        assert_eq!(ScanCursor::from_wire(0), ScanCursor::start_of(0));
        assert_eq!(ScanCursor::start_of(16).to_wire(16), 0);
    }
}
