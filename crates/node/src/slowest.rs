//! The slowest write and sync of the journal since somebody last asked, for `LATENCY`.
//!
//! The writer thread knows no engine; the timers carry over what it notes here.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Slowest {
    write: AtomicU64,
    sync: AtomicU64,
}

impl Slowest {
    /// A write to the file took so long.
    pub(crate) fn wrote(&self, took: Duration) {
        self.write.fetch_max(nanos(took), Ordering::Relaxed);
    }

    /// A sync that replies waited for took so long.
    pub(crate) fn synced(&self, took: Duration) {
        self.sync.fetch_max(nanos(took), Ordering::Relaxed);
    }

    /// The slowest of each, under Redis' names, since this was asked last.
    pub(crate) fn take(&self) -> [(&'static str, Duration); 2] {
        [("aof-write", &self.write), ("aof-fsync-always", &self.sync)]
            .map(|(event, slowest)| (event, Duration::from_nanos(slowest.swap(0, Ordering::Relaxed))))
    }
}

fn nanos(took: Duration) -> u64 {
    u64::try_from(took.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_is_told_once_with_its_worst() {
        let slowest = Slowest::default();
        for millis in [3, 7, 5] {
            slowest.wrote(Duration::from_millis(millis));
        }
        slowest.synced(Duration::from_millis(2));
        let millis = |slowest: &Slowest| slowest.take().map(|(_, took)| took.as_millis());
        assert_eq!(millis(&slowest), [7, 2]);
        assert_eq!(millis(&slowest), [0, 0]);
    }
}
