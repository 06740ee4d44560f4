//! Identities of signals: unique everywhere, and sorted by when they were made within one process.
//!
//! 32 hexadecimal digits: 12 of milliseconds since 1970, 4 of a counter, 16 at random. Only equality matters for correctness;
//! the order merely keeps signals of one moment in the order of their pushes.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::Timestamp;

/// Makes identities. Clones share their counter.
#[derive(Clone, Debug, Default)]
pub(crate) struct SignalIds {
    last: Arc<AtomicU64>,
}

impl SignalIds {
    /// An identity that no other call gets.
    pub(crate) fn next(&self, now: &Timestamp) -> String {
        let fresh = ((now.epoch_seconds() * 1000.0) as u64) << 16;
        // Never below the one before, so that pushes within a millisecond, or across a clock set back, keep their order.
        let step = |last: u64| Some(fresh.max(last.saturating_add(1)));
        let last = self.last.fetch_update(Ordering::Relaxed, Ordering::Relaxed, step).unwrap_or_default();
        let ordered = fresh.max(last.saturating_add(1));
        format!("{ordered:016x}{:016x}", rand::random::<u64>())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identities_are_unique_and_in_order_even_when_the_clock_is_set_back() {
        let ids = SignalIds::default();
        let late = Timestamp::from_epoch_seconds(2000.0).unwrap();
        let early = Timestamp::from_epoch_seconds(1000.0).unwrap();
        let made: Vec<String> = [&late, &late, &early, &late].into_iter().map(|now| ids.next(now)).collect();
        assert!(made.is_sorted() && made.windows(2).all(|pair| pair[0] != pair[1]), "{made:?}");
        assert!(made.iter().all(|id| id.len() == 32));
    }
}
