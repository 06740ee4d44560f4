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
use super::look::Shape;
use super::steps::{Asked, Batch, Ending, Outcome};
use crate::fail_safe::Stale;
use crate::keys::KeyParts;
use crate::load::{Errand, Storing};
use crate::read::{Age, Counted, Read, ReadOptions, Source};
use crate::region::Region;
use crate::single_flight::Landed;
use crate::stats;

/// How often what has lapsed is loaded. The first such round also takes what was found and would lapse if it took as long as all before it; that
/// there is another is rare.
const ROUNDS: u32 = 2;

/// When something ceases to be what it was found as, fresh or stale.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Until {
    Forever,
    Then(Instant),
    /// Nobody has said: at any time.
    Unknown,
}

impl From<Option<Instant>> for Until {
    /// When that is, if it is ever.
    fn from(until: Option<Instant>) -> Self {
        until.map_or(Self::Forever, Self::Then)
    }
}

/// How old something was when it was found or had landed, and when it ceases to be what it was then.
#[derive(Clone, Copy, Debug)]
pub(super) struct Dated {
    /// None if that is no matter: it was too old when it landed.
    age: Option<Age>,
    at: Instant,
    until: Until,
    /// It was loaded after the call had begun.
    is_of_this_call: bool,
    hit: Option<Hit>,
}

/// As what an id was counted that was found.
#[derive(Clone, Copy, Debug)]
pub(super) struct Hit {
    pub(super) counted: Counted,
    /// It was found that the source has none.
    pub(super) is_none: bool,
}

impl Dated {
    pub(super) fn now(age: Age, until: impl Into<Until>) -> Self {
        Self { age: Some(age), at: Instant::now(), until: until.into(), is_of_this_call: false, hit: None }
    }

    /// The same of what was counted as this.
    pub(super) fn hit(self, counted: Counted, is_none: bool) -> Self {
        Self { hit: Some(Hit { counted, is_none }), ..self }
    }

    pub(super) fn stale<T>(stale: &Stale<T>) -> Self {
        Self::now(stale.read.age, stale.until)
    }

    /// Of what a flight has brought. If a loader's answer was too old when it landed its source has nothing younger, and it may wait for as long
    /// as it took.
    pub(super) fn landed(landed: &Landed, asked: Asked) -> Self {
        let age = landed.age();
        let is_accepted = landed.source() != Source::Loader || asked.options.accepts(landed.age_landed());
        let patience = if is_accepted { None } else { landed.once_more() };
        Self {
            age: is_accepted.then_some(age),
            at: Instant::now(),
            until: landed.ends().into_iter().chain(patience).min().into(),
            is_of_this_call: age.is_within(asked.began.elapsed()),
            hit: None,
        }
    }

    /// Whether nobody has said when it ends.
    pub(super) fn is_undated(&self) -> bool {
        self.until == Until::Unknown
    }

    pub(super) fn at(&self) -> Instant {
        self.at
    }

    /// Whether it is still what it was, and young enough, so much time after now.
    pub(super) fn holds(&self, options: ReadOptions, now: Instant, more: Duration) -> bool {
        let then = now.checked_add(more);
        let is_over = match self.until {
            Until::Forever => false,
            Until::Then(until) => then.is_none_or(|then| then >= until),
            // Nothing else was waited for.
            Until::Unknown => !more.is_zero(),
        };
        let passed = now.saturating_duration_since(self.at).saturating_add(more);
        !is_over && self.age.is_none_or(|age| options.accepts(age.grown_by(passed)))
    }

    /// The same after something else was waited for: of what nobody has said how long it lives nothing is known any more.
    fn has_waited(&mut self) {
        if self.until == Until::Unknown {
            self.until = Until::Then(self.at);
        }
    }
}

/// Whether an id ends so still, and if it was found and is fresh, so much time after now.
fn holds<V>(ending: Option<&Ending<V>>, options: ReadOptions, now: Instant, more: Duration) -> bool {
    match ending {
        Some(Ok((read, dated))) => {
            let is_loaded = dated.is_of_this_call || read.as_ref().is_some_and(Read::is_stale);
            dated.holds(options, now, if is_loaded { Duration::ZERO } else { more })
        }
        Some(Err(_)) => true,
        None => false,
    }
}

/// To be called when a batch has waited for something else since it found what it has.
fn have_waited<V>(endings: &mut [Option<Ending<V>>]) {
    for (_, dated) in endings.iter_mut().flatten().flatten() {
        dated.has_waited();
    }
}

/// A batch of which all is there that was to be had at once, and what it takes to have again what has lapsed of it.
pub(super) struct Lapsing<'a, K, T, V> {
    pub(super) region: &'a Region<T>,
    pub(super) batch: &'a Batch<K>,
    pub(super) asked: Asked,
    pub(super) loader: &'a Loader<K, T>,
    pub(super) shape: &'a Shape<T, V>,
    pub(super) endings: Vec<Option<Ending<V>>>,
}

impl<K, T, V> Lapsing<'_, K, T, V>
where
    K: KeyParts + Clone + Send + Sync + 'static,
    T: Serialize + DeserializeOwned + Send + 'static,
{
    /// Has what has lapsed loaded anew; what each id ends with then.
    pub(super) async fn renewed(mut self) -> Vec<Option<Ending<V>>> {
        let (region, asked) = (self.region, self.asked);
        for round in 1..=ROUNDS {
            if self.lapsed(Duration::ZERO).is_empty() {
                return self.endings;
            }
            self.give_meanwhile();
            if asked.is_over() || self.lapsed(Duration::ZERO).is_empty() {
                break;
            }
            have_waited(&mut self.endings);
            let ahead = if round == ROUNDS { Duration::MAX } else { asked.began.elapsed() };
            let wanted = self.lapsed(ahead);
            let brought =
                region.loaded_many(self.batch, wanted, asked.anew(), self.loader, Storing::IfCurrent).await;
            self.put(brought);
        }
        for place in self.lapsed(Duration::ZERO) {
            if !matches!(self.endings.get(place), Some(Some(Ok((_, dated)))) if dated.is_of_this_call) {
                let late = region.too_late(self.batch, place, asked);
                self.replace(place, self.own(late));
            }
        }
        self.endings
    }

    /// Puts what a second look has found in its places. Of what is undated even then nothing is known after the wait.
    pub(super) fn date(&mut self, again: Vec<(usize, Option<Ending<T>>)>) {
        for (place, ending) in again {
            if let Some(ending) = ending {
                self.replace(place, self.own(ending));
            }
        }
        have_waited(&mut self.endings);
    }

    /// Puts what was brought in its places.
    pub(super) fn put(&mut self, brought: Vec<Outcome<T>>) {
        let now = Instant::now();
        for (place, brought) in brought {
            let Some(ending) = self.endings.get(place) else { continue };
            let is_fresh =
                matches!(&brought, Ok((read, _)) if read.as_ref().is_none_or(|read| !read.is_stale()));
            // What was to be loaded before its end, and could not be, is what it was until then.
            if is_fresh || !holds(ending.as_ref(), self.asked.options, now, Duration::ZERO) {
                self.replace(place, self.own(brought));
            }
        }
    }

    /// Of what has lapsed, gives what the region serves stale at once, and has that loaded in the background.
    fn give_meanwhile(&mut self) {
        let mut due = Vec::new();
        for place in self.lapsed(Duration::ZERO) {
            let Some(key) = self.batch.keys.get(place) else { continue };
            if let Some((stale, dated)) = self.region.meanwhile(key, None, self.asked, self.shape) {
                due.push((place, Errand::Revalidate));
                self.replace(place, Ok((Some(stale), dated)));
            }
        }
        self.region.refresh_many(self.batch, due, self.loader);
    }

    fn own(&self, ending: Ending<T>) -> Ending<V> {
        ending.map(|(read, dated)| (read.map(|read| self.shape.own(self.region, read)), dated))
    }

    /// Has an id end otherwise. If that is no hit, what was found of it was none, as it is not handed out.
    fn replace(&mut self, place: usize, by: Ending<V>) {
        let Some(ending) = self.endings.get_mut(place) else { return };
        let is_hit = matches!(by, Ok((_, Dated { hit: Some(_), .. })));
        if let Some(Ok((_, Dated { hit: Some(hit), .. }))) = ending.replace(by) {
            if !is_hit {
                self.region.count_no_hit(hit.counted);
            }
            if hit.is_none {
                stats::take_back(&self.region.state.counters.none_hits);
            }
        }
    }

    /// The places of what will not hold for so much longer.
    fn lapsed(&self, more: Duration) -> Vec<usize> {
        let (now, options) = (Instant::now(), self.asked.options);
        let ends = (0..).zip(&self.endings).filter(|(_, ending)| !holds(ending.as_ref(), options, now, more));
        ends.map(|(place, _)| place).collect()
    }
}

impl<T: DeserializeOwned> Region<T> {
    /// What a batch gives at once whose value is loaded in the background, as [`instead_of_loading`](Self::instead_of_loading) has it.
    pub(super) fn meanwhile<V>(
        &self,
        key: &str,
        stale: Option<(Read<V>, Dated)>,
        asked: Asked,
        shape: &Shape<T, V>,
    ) -> Option<(Read<V>, Dated)> {
        let known = || {
            let stale = self.known_here(key, asked.options)?;
            let dated = Dated::stale(&stale);
            Some((shape.own(self, stale.read), dated))
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::single_flight::Currency;

    /// Between the backend's word that it will do and the batch's end.
    #[test]
    fn what_was_there_and_too_old_when_it_landed_has_no_more_time() {
        let options = ReadOptions::new().max_age(Duration::from_secs(4));
        let asked = Asked::now(options, None);
        let holds = |source, age| {
            let age = Age::AtMost(Duration::from_secs(age));
            let landed = Landed::now([1], source, age, Currency::MayBeOvertaken);
            Dated::landed(&landed, asked).holds(options, Instant::now(), Duration::from_millis(500))
        };
        assert!(holds(Source::Backend, 3));
        assert!(!holds(Source::Backend, 5));
        assert!(holds(Source::Loader, 5), "its source has nothing younger");
    }
}
