//! What has lapsed while a batch waited for the rest: past its life, or older than the call allows.
//!
//! All of a batch is handed out together, at its end. Invariants: what was found, and what others brought, is fresh and young enough then, or is
//! loaded anew, or ends as a read of it alone would. Bounded: so many rounds, the last of which takes all that was found and could lapse; what
//! this call has had loaded and lapses even then, beside a load that takes longer than it lives, is handed out. Deliberately absent: the first round
//! (`steps.rs`).

use std::time::{Duration, Instant};

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::loader::Loader;
use super::steps::{Asked, Batch, Ending, Outcome};
use crate::fail_safe::Stale;
use crate::keys::KeyParts;
use crate::load::{Errand, Storing};
use crate::read::{Age, Read, ReadOptions};
use crate::region::Region;
use crate::single_flight::Landed;
use crate::stats;

/// How often what has lapsed is loaded. The first such round also takes what was found and would lapse if it took as long as all before it; that
/// there is another is rare.
const ROUNDS: u32 = 2;

/// How old something was when it was found or had landed, and when it ceases to be what it was then, fresh or stale.
#[derive(Clone, Copy, Debug)]
pub(super) struct Dated {
    /// None if that is no matter: it was too old when it landed.
    age: Option<Age>,
    at: Instant,
    until: Option<Instant>,
    /// It was loaded after the call had begun.
    is_of_this_call: bool,
}

impl Dated {
    pub(super) fn now(age: Age, until: Option<Instant>) -> Self {
        Self { age: Some(age), at: Instant::now(), until, is_of_this_call: false }
    }

    pub(super) fn stale<T>(stale: &Stale<T>) -> Self {
        Self::now(stale.read.age, stale.until)
    }

    /// Of what a flight has brought. If it was too old when it landed its source has nothing younger, and it may wait for as long as it took.
    pub(super) fn landed(landed: &Landed, asked: Asked) -> Self {
        let age = landed.age();
        let is_accepted = asked.options.accepts(landed.age_landed());
        let patience = if is_accepted { None } else { landed.once_more() };
        Self {
            age: is_accepted.then_some(age),
            at: Instant::now(),
            until: landed.ends().into_iter().chain(patience).min(),
            is_of_this_call: age.is_within(asked.began.elapsed()),
        }
    }

    pub(super) fn at(&self) -> Instant {
        self.at
    }

    /// Whether it is still what it was, and young enough, after so much more time.
    pub(super) fn holds(&self, options: ReadOptions, more: Duration) -> bool {
        let then = Instant::now().checked_add(more);
        let is_over = self.until.is_some_and(|until| then.is_none_or(|then| then >= until));
        let passed = self.at.elapsed().saturating_add(more);
        !is_over && self.age.is_none_or(|age| options.accepts(age.grown_by(passed)))
    }
}

/// Puts what was brought in its places.
pub(super) fn put<T, V>(
    endings: &mut [Option<Ending<V>>],
    brought: Vec<Outcome<T>>,
    options: ReadOptions,
    own: impl Fn(Read<T>) -> Read<V> + Copy,
) {
    for (place, brought) in brought {
        let Some(ending) = endings.get_mut(place) else { continue };
        let is_fresh = matches!(&brought, Ok((read, _)) if read.as_ref().is_none_or(|read| !read.is_stale()));
        // What was to be loaded before its end, and could not be, is what it was until then.
        if is_fresh || !holds(ending.as_ref(), options, Duration::ZERO) {
            *ending = Some(brought.map(|(read, dated)| (read.map(own), dated)));
        }
    }
}

/// Whether an id ends so still, and if it was found and is fresh, after so much more time.
fn holds<V>(ending: Option<&Ending<V>>, options: ReadOptions, more: Duration) -> bool {
    match ending {
        Some(Ok((read, dated))) => {
            let is_loaded = dated.is_of_this_call || read.as_ref().is_some_and(Read::is_stale);
            dated.holds(options, if is_loaded { Duration::ZERO } else { more })
        }
        Some(Err(_)) => true,
        None => false,
    }
}

/// The places of what will not hold for so much longer.
fn lapsed<V>(endings: &[Option<Ending<V>>], options: ReadOptions, more: Duration) -> Vec<usize> {
    let ends = (0..).zip(endings).filter(|(_, ending)| !holds(ending.as_ref(), options, more));
    ends.map(|(place, _)| place).collect()
}

impl<T: Serialize + DeserializeOwned + Send + 'static> Region<T> {
    /// Has what has lapsed loaded anew. To be called when all else is there.
    pub(super) async fn renew<K, V>(
        &self,
        batch: &Batch<K>,
        endings: &mut [Option<Ending<V>>],
        asked: Asked,
        loader: &Loader<K, T>,
        own: impl Fn(Read<T>) -> Read<V> + Copy,
    ) where
        K: KeyParts + Clone + Send + Sync + 'static,
    {
        for round in 1..=ROUNDS {
            self.give_meanwhile(batch, endings, asked, loader, own);
            if asked.is_over() || lapsed(endings, asked.options, Duration::ZERO).is_empty() {
                break;
            }
            let ahead = if round == ROUNDS { Duration::MAX } else { asked.began.elapsed() };
            let wanted = lapsed(endings, asked.options, ahead);
            stats::add(&self.state.counters.misses, wanted.len() as u64);
            let brought = self.loaded_many(batch, wanted, asked.anew(), loader, Storing::IfCurrent).await;
            put(endings, brought, asked.options, own);
        }
        for place in lapsed(endings, asked.options, Duration::ZERO) {
            let Some(ending) = endings.get_mut(place) else { continue };
            if !matches!(ending, Some(Ok((_, dated))) if dated.is_of_this_call) {
                *ending =
                    Some(self.too_late(batch, place, asked).map(|(read, dated)| (read.map(own), dated)));
            }
        }
    }

    /// Of what has lapsed, gives what the region serves stale at once, and has that loaded in the background.
    fn give_meanwhile<K, V>(
        &self,
        batch: &Batch<K>,
        endings: &mut [Option<Ending<V>>],
        asked: Asked,
        loader: &Loader<K, T>,
        own: impl Fn(Read<T>) -> Read<V> + Copy,
    ) where
        K: KeyParts + Clone + Send + Sync + 'static,
    {
        let mut due = Vec::new();
        for place in lapsed(endings, asked.options, Duration::ZERO) {
            let (Some(key), Some(ending)) = (batch.keys.get(place), endings.get_mut(place)) else { continue };
            if let Some((stale, dated)) = self.meanwhile(key, None, asked, own) {
                stats::count(&self.state.counters.misses);
                due.push((place, Errand::Revalidate));
                *ending = Some(Ok((Some(stale), dated)));
            }
        }
        self.refresh_many(batch, due, loader);
    }

    /// What a batch gives at once whose value is loaded in the background, as [`instead_of_loading`](Self::instead_of_loading) has it.
    pub(super) fn meanwhile<V>(
        &self,
        key: &str,
        stale: Option<(Read<V>, Dated)>,
        asked: Asked,
        own: impl Fn(Read<T>) -> Read<V>,
    ) -> Option<(Read<V>, Dated)> {
        let known = || {
            let stale = self.known_here(key, asked.options)?;
            let dated = Dated::stale(&stale);
            Some((own(stale.read), dated))
        };
        if !self.state.policy.stale_while_revalidate {
            return None;
        }
        let (stale, dated) = stale.or_else(known)?;
        let stale = self.served_stale(stale, "a load that goes on");
        self.observe_read(key, &stale, asked.started);
        Some((stale, dated))
    }
}
