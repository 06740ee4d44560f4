//! Connections at hand: what a call needs to send, kept by the thread that had it last.
//!
//! To take the connection from where all share it costs a handful of counters that the threads of a busy service pull from each other: a
//! tenth of a get. Invariant: a seat is given out only if its connection is the one that is up and lets everybody through; it
//! holds nothing open, as a connection that was given up is closed whoever holds it. Deliberately absent: waiting for one.

use std::cell::Cell;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::Mutex;
use redis::aio::MultiplexedConnection;

use crate::connection::Connection;

/// Threads beyond share.
const STRIPES: usize = 16;
/// Seats that a stripe keeps; each is some hundred bytes.
const MAX_KEPT: usize = 512;

pub(crate) struct Seat {
    pub(crate) connection: Arc<Connection>,
    pub(crate) mux: MultiplexedConnection,
}

pub(crate) struct Seats(Box<[Stripe]>);

/// In cache lines of its own.
#[repr(align(128))]
#[derive(Default)]
struct Stripe(Mutex<Vec<Seat>>);

impl Seats {
    pub(crate) fn new() -> Self {
        Self((0..STRIPES).map(|_| Stripe::default()).collect())
    }

    /// A seat of the connection with this number, if one is at hand.
    pub(crate) fn take(&self, generation: u64) -> Option<Seat> {
        let mut kept = self.stripe()?.0.lock();
        let seat = kept.pop()?;
        if seat.connection.generation() == generation && seat.connection.lets_through() {
            return Some(seat);
        }
        // What lies below it is no younger.
        let old = std::mem::take(&mut *kept);
        drop(kept);
        drop(old);
        None
    }

    pub(crate) fn keep(&self, seat: Seat) {
        if let Some(stripe) = self.stripe() {
            let mut kept = stripe.0.lock();
            if kept.len() < MAX_KEPT {
                kept.push(seat);
            }
        }
    }

    fn stripe(&self) -> Option<&Stripe> {
        static THREADS: AtomicUsize = AtomicUsize::new(0);
        thread_local! {
            static NUMBER: Cell<usize> = Cell::new(THREADS.fetch_add(1, Ordering::Relaxed));
        }
        self.0.get(NUMBER.with(Cell::get) % STRIPES)
    }
}
