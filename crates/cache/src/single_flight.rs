//! Single-flight: concurrent misses of one key share one load.
//!
//! A flight is a spawned task, so that a caller who is cancelled, the leader included, takes nothing from the others and the
//! work is kept. Invariants: at most one flight that newcomers can join per key, and none that has ended; all for whom an ended flight will not
//! do, because it panicked or brought something too old, share its one successor; a set or an invalidation detaches the flight of
//! its key before it returns, so that no later read joins a load that began before it; one of another process is found out by the
//! load itself, and then only those who asked before it began have its answer. Deliberately absent: what a flight does.

mod many;

use std::collections::HashMap;
use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::sync::{Arc, OnceLock, Weak};
use std::time::Instant;

use futures_util::FutureExt;
use parking_lot::Mutex;
use serde::de::DeserializeOwned;
use tokio::sync::watch;

pub(crate) use self::many::{Group, Landing, LoadManyFuture};
use crate::codec;
use crate::error::Error;
use crate::read::{Age, ReadOptions, Source};

/// How many flights one caller waits for at the most before it leads one of its own. Each but the last has brought what did for its
/// leader and not for this caller, so that more than two are rare.
const MAX_FLIGHTS: usize = 4;
/// How many flights may panic under one caller.
const MAX_PANICS: usize = 2;

/// What a flight brings home. Bytes, so that every reader decodes a value of its own.
#[derive(Clone, Debug)]
pub(crate) struct Landed {
    bytes: Arc<[u8]>,
    source: Source,
    /// The age when it landed.
    age: Age,
    at: Instant,
    /// When its life ends, if it does.
    until: Option<Instant>,
    currency: Currency,
}

/// Whether the key may have changed between the beginning of a flight and its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Currency {
    /// The backend could not be asked.
    Current,
    /// It had not when the fill was sent. A flight may land long after that, a batch above all: whoever asked in between may have asked after
    /// a change.
    AsOf(Instant),
    /// It may have: the fill was refused, or the value was there and was read at a moment that a later reader cannot place. Whoever
    /// asked after the flight began may have asked after the change.
    MayBeOvertaken,
}

impl Currency {
    /// What a fill that failed leaves to be said. A backend that is out of reach must not make a load for each reader; one that answered takes
    /// others' invalidations as well.
    pub(crate) fn after(error: &Error) -> Self {
        if error.is_backend_down() { Self::Current } else { Self::MayBeOvertaken }
    }
}

impl Landed {
    pub(crate) fn now(bytes: impl Into<Arc<[u8]>>, source: Source, age: Age, currency: Currency) -> Self {
        Self { bytes: bytes.into(), source, age, at: Instant::now(), until: None, currency }
    }

    /// The same, of a value whose life ends then.
    pub(crate) fn until(self, until: Option<Instant>) -> Self {
        Self { until, ..self }
    }

    /// When its life ends, if it does. Of what its load took longer for than it lives, which no other would mend, when it has waited for as long.
    pub(crate) fn ends(&self) -> Option<Instant> {
        let until = self.until?;
        if self.source != Source::Loader {
            return Some(until);
        }
        let (Age::AtMost(age) | Age::Exact(age)) = self.age else { return Some(until) };
        if until > self.at {
            return Some(until);
        }
        self.at.checked_add(until.saturating_duration_since(self.at.checked_sub(age)?))
    }

    /// When it is twice as old as it was when it landed; of what a loader has brought.
    pub(crate) fn once_more(&self) -> Option<Instant> {
        let (Age::AtMost(age) | Age::Exact(age)) = self.age else { return None };
        self.at.checked_add(age)
    }

    /// The age when it landed.
    pub(crate) fn age_landed(&self) -> Age {
        self.age
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    pub(crate) fn source(&self) -> Source {
        self.source
    }

    /// The age now.
    pub(crate) fn age(&self) -> Age {
        self.age.grown_by(self.at.elapsed())
    }
}

pub(crate) type LoadFuture = Pin<Box<dyn Future<Output = Result<Landed, Error>> + Send>>;

/// What a caller asks of a flight.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Demand {
    asked: Instant,
    options: ReadOptions,
    none: NoneIs,
}

/// What "the source has none" is to a caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NoneIs {
    AnAnswer,
    /// The caller's type has no place for it: it asks its own loader.
    NoAnswer,
}

impl NoneIs {
    /// What it is to readers of this type.
    pub(crate) fn to<T: DeserializeOwned>() -> Self {
        if codec::has_none::<T>() { Self::AnAnswer } else { Self::NoAnswer }
    }
}

impl Demand {
    pub(crate) fn now(options: ReadOptions, none: NoneIs) -> Self {
        Self { asked: Instant::now(), options, none }
    }

    /// False if what a flight that began then loads is certainly too old.
    fn can_be_met_from(&self, began: Instant) -> bool {
        let earliest = self.options.max_age.and_then(|limit| self.asked.checked_sub(limit));
        earliest.is_none_or(|earliest| began >= earliest)
    }

    /// What was loaded since the caller asked is as good as what a load of its own would bring, whatever its age by now. What may have
    /// been overtaken is only for those who asked before its flight began, and what was current once for those who had asked by then: the
    /// change may be what made the others ask. They find what was stored in the second look of the next flight.
    fn is_met_by(&self, landed: &Landed, began: Instant) -> bool {
        let is_in_order = match landed.currency {
            Currency::Current => true,
            Currency::AsOf(moment) => self.asked <= moment,
            Currency::MayBeOvertaken => self.asked <= began,
        };
        if !is_in_order {
            return false;
        }
        if self.none == NoneIs::NoAnswer && codec::is_null(landed.bytes()) {
            return false;
        }
        self.options.accepts(landed.age()) || (landed.source == Source::Loader && began >= self.asked)
    }
}

/// How a flight ended.
#[derive(Clone, Debug)]
enum Ending {
    Landed(Result<Landed, Error>),
    Panicked,
}

/// One load under way.
struct Flight {
    began: Instant,
    kind: Kind,
    ending: watch::Receiver<Option<Ending>>,
    /// The flight for those for whom this one will not do; made by whoever of them is first.
    successor: OnceLock<Arc<Flight>>,
}

/// Whether a flight began beside another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    First,
    /// The one that newcomers could join was too old for this one's leader. There is no third: whoever finds this one too old waits for
    /// its successor, so that strict demands do not make a load each.
    Second,
}

type Boarded = Option<(Part, Arc<Flight>)>;

/// All loads under way in this process.
#[derive(Clone, Default)]
pub(crate) struct Flights {
    by_key: Arc<Mutex<HashMap<String, Arc<Flight>>>>,
}

/// How a caller came by its answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Part {
    Led,
    Joined,
}

impl Flights {
    /// Joins the flight for this key if it can meet the demand, or starts one with `load`; goes on to its successor if it panicked or has
    /// not met the demand after all. None if the caller's own flight panicked, or two others.
    pub(crate) async fn fly(
        &self,
        key: &str,
        demand: Demand,
        load: impl FnOnce() -> LoadFuture,
    ) -> (Part, Option<Result<Landed, Error>>) {
        let mut load = Some(load);
        let mut prepare = |kind: Kind| {
            let (flight, departure) = self.prepare(key, load.take()?(), kind);
            Some((flight, || departure.begin()))
        };
        let Some((mut part, mut flight)) = self.board(key, demand, &mut prepare) else {
            return (Part::Led, None);
        };
        let (mut waited, mut panics) = (1, 0);
        loop {
            match flight.ending().await {
                Ending::Landed(Ok(landed))
                    if part == Part::Joined && !demand.is_met_by(&landed, flight.began) => {}
                Ending::Landed(landed) => return (part, Some(landed)),
                Ending::Panicked => {
                    panics += 1;
                    if part == Part::Led || panics == MAX_PANICS {
                        return (part, None);
                    }
                }
            }
            waited += 1;
            let next = if waited < MAX_FLIGHTS {
                self.board_next(key, &flight, &mut prepare)
            } else {
                self.lead(key, &mut prepare)
            };
            // Only who has led has no load left, and has returned.
            let Some(next) = next else { return (part, None) };
            (part, flight) = next;
        }
    }

    /// Starts a flight that nobody waits for yet, unless there is one that newcomers can join; says whether it did.
    pub(crate) fn depart(&self, key: &str, load: impl FnOnce() -> LoadFuture) -> bool {
        let (flight, departure) = {
            let mut by_key = self.by_key.lock();
            if by_key.contains_key(key) {
                return false;
            }
            let (flight, departure) = self.prepare(key, load(), Kind::First);
            by_key.insert(key.to_owned(), Arc::clone(&flight));
            (flight, departure)
        };
        departure.begin();
        drop(flight);
        true
    }

    /// Lets nobody join the present flight of this key any more. Those in it still get its answer.
    pub(crate) fn detach(&self, key: &str) {
        self.by_key.lock().remove(key);
    }

    /// Detaches every flight of a key with this prefix.
    pub(crate) fn detach_prefix(&self, prefix: &str) {
        self.by_key.lock().retain(|key, _| !key.starts_with(prefix));
    }

    fn board<D: FnOnce()>(
        &self,
        key: &str,
        demand: Demand,
        prepare: &mut impl FnMut(Kind) -> Option<(Arc<Flight>, D)>,
    ) -> Boarded {
        let mut by_key = self.by_key.lock();
        let kind = match by_key.get(key) {
            Some(present) if present.kind == Kind::Second || demand.can_be_met_from(present.began) => {
                return Some((Part::Joined, Arc::clone(present)));
            }
            Some(_) => Kind::Second,
            None => Kind::First,
        };
        let (flight, depart) = prepare(kind)?;
        by_key.insert(key.to_owned(), Arc::clone(&flight));
        drop(by_key);
        depart();
        Some((Part::Led, flight))
    }

    /// The successor of a flight that has ended: the one that newcomers join, or a new one.
    fn board_next<D: FnOnce()>(
        &self,
        key: &str,
        ended: &Arc<Flight>,
        prepare: &mut impl FnMut(Kind) -> Option<(Arc<Flight>, D)>,
    ) -> Boarded {
        let mut by_key = self.by_key.lock();
        if let Some(next) = ended.successor.get() {
            // Not put back where newcomers find it: it may have ended, or have been detached.
            return Some((Part::Joined, Arc::clone(next)));
        }
        if let Some(present) = by_key.get(key) {
            let _ = ended.successor.set(Arc::clone(present));
            return Some((Part::Joined, Arc::clone(present)));
        }
        let (flight, depart) = prepare(Kind::First)?;
        by_key.insert(key.to_owned(), Arc::clone(&flight));
        let _ = ended.successor.set(Arc::clone(&flight));
        drop(by_key);
        depart();
        Some((Part::Led, flight))
    }

    /// A flight of the caller's own, whatever else is under way.
    fn lead<D: FnOnce()>(
        &self,
        key: &str,
        prepare: &mut impl FnMut(Kind) -> Option<(Arc<Flight>, D)>,
    ) -> Boarded {
        let (flight, depart) = prepare(Kind::Second)?;
        self.by_key.lock().insert(key.to_owned(), Arc::clone(&flight));
        depart();
        Some((Part::Led, flight))
    }

    fn prepare(&self, key: &str, load: LoadFuture, kind: Kind) -> (Arc<Flight>, Departure) {
        let (flight, seat) = self.seat(key, kind);
        (flight, Departure { seat, load })
    }

    fn seat(&self, key: &str, kind: Kind) -> (Arc<Flight>, Seat) {
        let (sender, ending) = watch::channel(None);
        let flight = Arc::new(Flight { began: Instant::now(), kind, ending, successor: OnceLock::new() });
        let entry =
            Entry { by_key: Arc::clone(&self.by_key), key: key.to_owned(), flight: Arc::downgrade(&flight) };
        (flight, Seat { entry, ending: sender })
    }
}

/// A flight that is entered and has yet to begin: not under the lock, because a runtime that is shutting down drops its task at once.
struct Departure {
    seat: Seat,
    load: LoadFuture,
}

impl Departure {
    fn begin(self) {
        tokio::spawn(async move {
            // Dropped in reverse: should the runtime drop this, the seat goes last.
            let Self { seat, load } = self;
            let how = match AssertUnwindSafe(load).catch_unwind().await {
                Ok(landed) => Ending::Landed(landed),
                Err(_) => Ending::Panicked,
            };
            seat.end(how);
        });
    }
}

/// What a flight's task holds of it. Dropped in this order: should the runtime drop the task, nobody finds the flight once its waiters
/// are told.
struct Seat {
    entry: Entry,
    ending: watch::Sender<Option<Ending>>,
}

impl Seat {
    fn end(self, how: Ending) {
        // First: whoever comes after the answer is known looks in the cache, not here.
        drop(self.entry);
        self.ending.send_replace(Some(how));
    }
}

/// A flight's place where newcomers find it; taken back when the task ends, also if its runtime drops it.
struct Entry {
    by_key: Arc<Mutex<HashMap<String, Arc<Flight>>>>,
    key: String,
    flight: Weak<Flight>,
}

impl Drop for Entry {
    fn drop(&mut self) {
        let mut by_key = self.by_key.lock();
        if by_key
            .get(&self.key)
            .is_some_and(|present| std::ptr::eq(Arc::as_ptr(present), self.flight.as_ptr()))
        {
            by_key.remove(&self.key);
        }
    }
}

impl Flight {
    async fn ending(&self) -> Ending {
        let mut ending = self.ending.clone();
        match ending.wait_for(Option::is_some).await {
            Ok(ending) => ending.clone().unwrap_or(Ending::Panicked),
            // The task was dropped with its runtime.
            Err(_) => Ending::Panicked,
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::Notify;

    use super::*;

    fn any() -> Demand {
        Demand::now(ReadOptions::new(), NoneIs::AnAnswer)
    }

    fn value(n: u8) -> Landed {
        Landed::now([n], Source::Loader, Age::Unknown, Currency::Current)
    }

    /// Two followers of a flight that panicked: the first has had its successor's answer before the second comes to look.
    #[tokio::test]
    async fn a_straggler_puts_no_ended_flight_where_newcomers_find_it() {
        let flights = Flights::default();
        let panics = Arc::new(Notify::new());
        let told = Arc::clone(&panics);
        let mut leader = Box::pin(flights.fly("k", any(), || {
            Box::pin(async move {
                told.notified().await;
                panic!("a load that panics, on purpose")
            })
        }));
        assert!((&mut leader).now_or_never().is_none());
        let mut first = Box::pin(flights.fly("k", any(), || Box::pin(async { Ok(value(1)) })));
        let mut straggler = Box::pin(flights.fly("k", any(), || Box::pin(async { Ok(value(2)) })));
        assert!((&mut first).now_or_never().is_none() && (&mut straggler).now_or_never().is_none());
        panics.notify_one();
        assert!(leader.await.1.is_none());
        assert_eq!(first.await.1.unwrap().unwrap().bytes(), [1]);
        let (part, landed) = straggler.now_or_never().unwrap();
        assert_eq!((part, landed.unwrap().unwrap().bytes()), (Part::Joined, &[1][..]));
        assert!(flights.by_key.lock().is_empty());
    }

    /// A batch stores in steps, and lands when all are stored: what is asked in between is not met by what was stored before.
    #[tokio::test]
    async fn who_asks_after_the_fill_was_sent_does_not_have_it() {
        let flights = Flights::default();
        let lands = Arc::new(Notify::new());
        let told = Arc::clone(&lands);
        let mut leader = Box::pin(flights.fly("k", any(), || {
            Box::pin(async move {
                let sent = Instant::now();
                told.notified().await;
                Ok(Landed::now([1], Source::Loader, Age::Unknown, Currency::AsOf(sent)))
            })
        }));
        let early = any();
        assert!((&mut leader).now_or_never().is_none());
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        let mut before = Box::pin(flights.fly("k", early, || Box::pin(async { Ok(value(2)) })));
        let mut after = Box::pin(flights.fly("k", any(), || Box::pin(async { Ok(value(3)) })));
        assert!((&mut before).now_or_never().is_none() && (&mut after).now_or_never().is_none());
        lands.notify_one();
        assert_eq!(leader.await.1.unwrap().unwrap().bytes(), [1]);
        assert_eq!(before.await.1.unwrap().unwrap().bytes(), [1]);
        assert_eq!(after.await.1.unwrap().unwrap().bytes(), [3]);
    }

    #[test]
    fn only_what_took_longer_to_load_than_it_lives_waits_for_as_long_again() {
        let (age, now) = (Age::AtMost(std::time::Duration::from_secs(30)), Instant::now());
        let landed = |source| Landed::now([1], source, age, Currency::Current).until(Some(now));
        assert_eq!(landed(Source::Backend).ends(), Some(now), "found in the last moment of its life");
        assert!(
            landed(Source::Loader).ends().is_some_and(|ends| ends > now + std::time::Duration::from_secs(29))
        );
    }

    #[test]
    fn a_flight_whose_runtime_is_gone_is_found_by_nobody() {
        let flights = Flights::default();
        let runtime = || tokio::runtime::Builder::new_current_thread().build().unwrap();
        let first = runtime();
        first.block_on(async {
            let mut leader = Box::pin(flights.fly("k", any(), || Box::pin(std::future::pending())));
            assert!((&mut leader).now_or_never().is_none());
        });
        assert_eq!(flights.by_key.lock().len(), 1);
        drop(first);
        assert!(flights.by_key.lock().is_empty());
        let (part, landed) = runtime().block_on(flights.fly("k", any(), || Box::pin(async { Ok(value(3)) })));
        assert_eq!((part, landed.unwrap().unwrap().bytes()), (Part::Led, &[3][..]));
    }
}
