//! The circuit breaker of one node: when calls are refused at once, because the node takes connections and then answers nothing.
//!
//! A node that cannot be reached needs no breaker: while no connection can be made, calls are refused at once anyhow. What is left is a
//! node that is reached, logs us in, and is silent: each call would wait for the whole response timeout, and each new connection would
//! make the next callers wait again. Invariants: only silence counts, that is a connection on which nothing at all was answered for a
//! response timeout, once, however many calls waited on it; an error reply, a queue that is full, and one reply that is late while others come do not.
//! After a pause one call is let through, never two. Deliberately absent: clocks and connections, which `connection.rs` has.

use std::time::Duration;

use crate::options::LinkOptions;

/// Replies after which a connection shows that its node works: what came before it counts no more.
const STEADY_REPLIES: u64 = 10;

/// Whether a link lets calls through to its node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum BreakerState {
    /// Calls are sent, or wait for the connection that is being made.
    Closed,
    /// Calls are refused at once: no connection can be made, or the node has been silent too often.
    Open,
    /// One call is let through, to see whether the node answers again; others are refused at once.
    HalfOpen,
}

/// What happened so far.
#[derive(Debug, Default)]
pub(crate) struct Breaker {
    /// Connections in a row that ended in silence.
    silences: u32,
    /// How often in a row it was opened.
    opened: u32,
}

impl Breaker {
    /// A connection has ended, in silence or otherwise, after so many replies.
    pub(crate) fn ended(&mut self, silent: bool, replies: u64, options: &LinkOptions) {
        if replies >= STEADY_REPLIES {
            *self = Self::default();
        }
        if silent {
            self.silences = self.silences.saturating_add(1);
        }
        if self.is_open(options) {
            self.opened = self.opened.saturating_add(1);
        }
    }

    /// A call that was let through has been answered. One more silence opens it again, and for longer, until the node is steady: a
    /// node that answers now and then does not make it flap.
    pub(crate) fn proved(&mut self, options: &LinkOptions) {
        self.silences = options.breaker_silences.saturating_sub(1);
    }

    /// Whether the next connection is on trial.
    pub(crate) fn is_open(&self, options: &LinkOptions) -> bool {
        options.breaker_silences > 0 && self.silences >= options.breaker_silences
    }

    /// How long calls are refused before one is let through: doubled each time, with jitter over the upper half.
    pub(crate) fn pause(&self, options: &LinkOptions) -> Duration {
        let doublings = self.opened.saturating_sub(1).min(16);
        let ceiling = options.breaker_pause_min.saturating_mul(1 << doublings).min(options.breaker_pause_max);
        ceiling.mul_f64(0.5 + 0.5 * rand::random::<f64>())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn options() -> LinkOptions {
        LinkOptions::default()
    }

    #[test]
    fn it_opens_after_as_many_silences_in_a_row_as_configured() {
        let mut breaker = Breaker::default();
        for n in 1..=options().breaker_silences {
            assert!(!breaker.is_open(&options()), "after {}", n - 1);
            breaker.ended(true, 0, &options());
        }
        assert!(breaker.is_open(&options()));
    }

    #[test]
    fn a_steady_connection_between_silences_keeps_it_closed() {
        let mut breaker = Breaker::default();
        for _ in 0..100 {
            breaker.ended(true, STEADY_REPLIES, &options());
            assert!(!breaker.is_open(&options()));
        }
    }

    #[test]
    fn connections_that_are_closed_do_not_open_it() {
        let mut breaker = Breaker::default();
        for _ in 0..100 {
            breaker.ended(false, 0, &options());
        }
        assert!(!breaker.is_open(&options()));
    }

    #[test]
    fn one_answer_closes_it_and_one_silence_more_opens_it_for_longer() {
        let mut breaker = Breaker::default();
        let mut longest = Duration::ZERO;
        for _ in 0..options().breaker_silences {
            breaker.ended(true, 0, &options());
        }
        for _ in 0..20 {
            assert!(breaker.is_open(&options()));
            longest = longest.max(breaker.pause(&options()));
            breaker.proved(&options());
            assert!(!breaker.is_open(&options()));
            breaker.ended(true, 1, &options());
        }
        assert!(longest >= options().breaker_pause_max / 2, "{longest:?}");
        breaker.proved(&options());
        breaker.ended(true, STEADY_REPLIES, &options());
        assert!(!breaker.is_open(&options()), "steady since, so all is forgotten");
    }

    #[test]
    fn zero_switches_it_off() {
        let mut options = options();
        options.breaker_silences = 0;
        let mut breaker = Breaker::default();
        for _ in 0..100 {
            breaker.ended(true, 0, &options);
        }
        assert!(!breaker.is_open(&options));
    }

    proptest! {
        /// Whatever happens, the pause is within its bounds.
        #[test]
        fn the_pause_is_bounded(ends in proptest::collection::vec((any::<bool>(), 0..20_u64, any::<bool>()), 0..100)) {
            let (mut breaker, options) = (Breaker::default(), options());
            for (silent, replies, proved) in ends {
                breaker.ended(silent, replies, &options);
                if breaker.is_open(&options) {
                    let pause = breaker.pause(&options);
                    prop_assert!(pause <= options.breaker_pause_max && pause >= options.breaker_pause_min / 2);
                    if proved {
                        breaker.proved(&options);
                    }
                }
            }
        }
    }
}
