//! A count that grows with every near hit, on any thread.
//!
//! Each thread has a part of its own to which only it adds, by a plain load and a plain store; an atomic addition is a tenth of a near hit, and
//! several times that where threads share the line. Invariants: a part is one thread's until that thread ends, and its successor's then; a
//! count never goes backwards. Deliberately absent: parts for any number of threads; those beyond the first share one and add atomically.

use std::cell::Cell;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

/// Threads that have a part of their own, at one time. Default: 32.
const TALLY_THREADS: u32 = 32;
/// The part of a thread that has not asked yet.
const UNKNOWN: u32 = u32::MAX;
/// The part of the threads that have none of their own.
const SHARED: u32 = TALLY_THREADS;

/// Parts that no thread has, a bit for each. Not behind a lock, which a fork could copy as it is held.
static FREE: AtomicU32 = AtomicU32::new(u32::MAX);

/// Gives a thread's part back when it ends.
struct Owned(u32);

thread_local! {
    static PART: Cell<u32> = const { Cell::new(UNKNOWN) };
    static OWNED: Cell<Option<Owned>> = const { Cell::new(None) };
}

impl Drop for Owned {
    fn drop(&mut self) {
        // What else ends with this thread may still count.
        PART.set(SHARED);
        // What this thread has counted is there for the next that has the part.
        FREE.fetch_or(1 << self.0, Ordering::Release);
    }
}

/// The part of this thread.
#[inline]
fn part() -> u32 {
    let part = PART.get();
    if part == UNKNOWN { take_part() } else { part }
}

#[cold]
fn take_part() -> u32 {
    let without_lowest = |free: u32| (free != 0).then(|| free & (free - 1));
    let taken = FREE.fetch_update(Ordering::Acquire, Ordering::Relaxed, without_lowest);
    let part = taken
        .ok()
        .map(u32::trailing_zeros)
        .filter(|part| OWNED.try_with(|owned| owned.set(Some(Owned(*part)))).is_ok());
    let part = part.unwrap_or(SHARED);
    PART.set(part);
    part
}

/// A part alone in its line, so that no other thread's additions take it away.
#[derive(Debug, Default)]
#[repr(align(64))]
struct Part(AtomicU64);

#[derive(Debug)]
pub(crate) struct Tally([Part; SHARED as usize + 1]);

impl Default for Tally {
    fn default() -> Self {
        Self(std::array::from_fn(|_| Part::default()))
    }
}

impl Tally {
    /// Counts one more. Returns how many this thread's part was at before.
    #[inline]
    pub(crate) fn count(&self) -> u64 {
        let mine = part();
        let Some(Part(counted)) = self.0.get(mine as usize) else { return 0 };
        if mine == SHARED {
            return counted.fetch_add(1, Ordering::Relaxed);
        }
        let before = counted.load(Ordering::Relaxed);
        counted.store(before.wrapping_add(1), Ordering::Relaxed);
        before
    }

    /// All that was counted.
    pub(crate) fn sum(&self) -> u64 {
        self.0.iter().fold(0, |sum, Part(counted)| sum.wrapping_add(counted.load(Ordering::Relaxed)))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Barrier;

    use parking_lot::Mutex;

    use super::*;

    /// Both tests want parts of this process.
    static ALONE: Mutex<()> = Mutex::new(());

    /// More threads than there are parts, all at once and then all again: nothing is lost, whoever has which part.
    #[test]
    fn nothing_is_lost_with_more_threads_than_parts() {
        const THREADS: u64 = TALLY_THREADS as u64 * 2;
        let _alone = ALONE.lock();
        let tally = Tally::default();
        for round in 1..=3 {
            let all_there = Barrier::new(THREADS as usize);
            std::thread::scope(|scope| {
                for _ in 0..THREADS {
                    scope.spawn(|| {
                        tally.count();
                        all_there.wait();
                        (1..1_000).for_each(|_| assert!(tally.count() > 0));
                    });
                }
            });
            assert_eq!(tally.sum(), round * THREADS * 1_000);
        }
    }

    #[test]
    fn a_thread_that_ends_leaves_its_part_to_another() {
        let _alone = ALONE.lock();
        let own = |tally: &Tally| {
            tally.count();
            PART.get()
        };
        let tally = Tally::default();
        let mut parts: Vec<u32> = (0..TALLY_THREADS * 3)
            .map(|_| std::thread::scope(|scope| scope.spawn(|| own(&tally)).join().unwrap()))
            .collect();
        parts.dedup();
        assert!(parts.iter().all(|part| *part != SHARED), "{parts:?}");
    }
}
