//! The steps of a batch: what is there, what is served stale, what is missing, what a load brings.
//!
//! Invariants: each id ends with one outcome, whatever becomes of the others; what is loaded behind the caller's back is one load. Deliberately
//! absent: what callers see (`batch.rs`), and the look at the backend (`look.rs`).

use std::collections::{HashMap, HashSet};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::Instant;

use futures_util::future::{Either, join_all, select};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::Outcomes;
use super::known::{KnownStale, Now};
use super::lapse::{Dated, Lapsing, Until};
use super::load::{BatchLoad, Wishes, answers_of};
use super::loader::Loader;
use super::look::{FRAME_STEP, Found, Shape, is_absence};
use crate::backend::{Bytes, CachedKey};
use crate::codec;
use crate::control::RegionMode;
use crate::error::{Error, Result};
use crate::fail_safe::Stale;
use crate::keys::KeyParts;
use crate::load::{Errand, Storing};
use crate::loader::{Loaded, Previous};
use crate::read::{Read, ReadOptions};
use crate::region::Region;
use crate::single_flight::{Demand, Group, Landed, Landing, LoadManyFuture, NoneIs, Part};
use crate::stats;
use crate::terms::Terms;
use crate::timeouts;

/// The ids of a call, and their keys.
pub(super) struct Batch<K> {
    pub(super) ids: Vec<K>,
    pub(super) keys: Vec<String>,
}

impl<K: KeyParts> Batch<K> {
    pub(super) fn of<T>(region: &Region<T>, ids: impl IntoIterator<Item = K>) -> Result<Self> {
        let ids: Vec<K> = ids.into_iter().collect();
        let keys = ids.iter().map(|id| region.key(id)).collect::<Result<_>>()?;
        Ok(Self { ids, keys })
    }
}

/// What was asked of a batch, when, and until when it may take.
#[derive(Clone, Copy)]
pub(super) struct Asked {
    pub(super) options: ReadOptions,
    /// When, if anybody wants to know how long reads take.
    pub(super) started: Option<Instant>,
    pub(super) began: Instant,
    pub(super) until: Option<Instant>,
    is_anew: bool,
}

impl Asked {
    pub(super) fn now(options: ReadOptions, started: Option<Instant>) -> Self {
        let began = Instant::now();
        let until = options.deadline.and_then(|limit| began.checked_add(limit));
        Self { options, started, began, until, is_anew: false }
    }

    /// The same of what has been found once: only what is younger than the call will do.
    pub(super) fn anew(self) -> Self {
        Self { is_anew: true, ..self }
    }

    /// The same, with a word of how long each value lives.
    pub(super) fn with_age(self) -> Self {
        Self { options: self.options.with_age(), ..self }
    }

    /// What is asked of a load.
    fn demands(&self) -> ReadOptions {
        let limits = self.options.max_age.into_iter().chain(self.is_anew.then(|| self.began.elapsed()));
        ReadOptions { max_age: limits.min(), ..self.options }
    }

    pub(super) fn is_over(&self) -> bool {
        self.until.is_some_and(|until| Instant::now() >= until)
    }
}

/// What an id ends with, and how old that is; if it ends well.
pub(super) type Ending<V> = Result<(Option<Read<V>>, Dated)>;

/// What came of the id at a place.
pub(super) type Outcome<T> = (usize, Ending<T>);

/// What is to be loaded, and for whom.
struct Orders<K> {
    ids: Vec<K>,
    keys: Vec<String>,
    errands: Vec<Errand>,
}

impl<K: Clone> Orders<K> {
    /// The ids at these places of a batch, each once; and the place here of each of them.
    fn of(batch: &Batch<K>, wanted: impl IntoIterator<Item = (usize, Errand)>) -> (Self, Vec<usize>) {
        let mut orders = Self { ids: Vec::new(), keys: Vec::new(), errands: Vec::new() };
        let (mut places, mut place_of) = (HashMap::new(), Vec::new());
        for (place, errand) in wanted {
            let (Some(id), Some(key)) = (batch.ids.get(place), batch.keys.get(place)) else { continue };
            place_of.push(*places.entry(key.as_str()).or_insert_with(|| {
                orders.ids.push(id.clone());
                orders.keys.push(key.clone());
                orders.errands.push(errand);
                orders.keys.len() - 1
            }));
        }
        (orders, place_of)
    }
}

impl<T: Serialize + DeserializeOwned + Send + 'static> Region<T> {
    /// Looks for that of which nothing is known, and loads what is not there. What is not known in the time that the caller allows ends with
    /// that; what was found by then keeps its outcome.
    pub(super) async fn finished<K, V>(
        &self,
        batch: Batch<K>,
        mut found: Vec<Found<V>>,
        asked: Asked,
        loader: &Loader<K, T>,
        shape: Shape<T, V>,
    ) -> Outcomes<V>
    where
        K: KeyParts + Clone + Send + Sync + 'static,
    {
        let mode = self.state.mode();
        let is_on = mode == RegionMode::On;
        let in_time = !is_on || self.look_for_rest(&batch.keys, &mut found, asked, &shape).await;
        let (mut endings, mut missing, mut due) = (Vec::with_capacity(found.len()), Vec::new(), Vec::new());
        for ((place, found), key) in (0..).zip(found).zip(&batch.keys) {
            let stale = match found {
                Found::Value(read, left, dated) => {
                    due.extend(self.due(left, read.age).map(|errand| (place, errand)));
                    endings.push(Some(Ok((Some(read), dated))));
                    continue;
                }
                Found::Absence(dated) => {
                    endings.push(Some(Ok((None, dated))));
                    continue;
                }
                Found::Failed(error) => {
                    endings.push(Some(Err(error)));
                    continue;
                }
                Found::Stale(read, dated) => Some((read, dated)),
                Found::Nothing => None,
            };
            if is_on && in_time {
                stats::count(&self.state.counters.misses);
                if let Some((stale, dated)) = self.meanwhile(key, stale, asked, &shape) {
                    due.push((place, Errand::Revalidate));
                    endings.push(Some(Ok((Some(stale), dated))));
                    continue;
                }
            }
            missing.push(place);
            endings.push(None);
        }
        self.refresh_many(&batch, due, loader);
        let waits = !missing.is_empty();
        let (brought, again) = if !in_time {
            let late = |place| (place, self.too_late(&batch, place, asked));
            (missing.into_iter().map(late).collect(), Vec::new())
        } else if !is_on {
            (self.switched_many(&batch, asked, loader, mode).await, Vec::new())
        } else if waits {
            let load = self.loaded_many(&batch, missing, asked, loader, Storing::IfCurrent);
            // Beside the load, for which there is nothing else to do.
            tokio::join!(load, self.looked_again(&batch.keys, &endings, asked))
        } else {
            Default::default()
        };
        let (batch, shape) = (&batch, &shape);
        let mut lapsing = Lapsing { region: self, batch, asked, loader, shape, endings };
        if waits {
            lapsing.date(again);
        }
        lapsing.put(brought);
        // Without a load too: what was near, or what one server has answered, may have waited for another's answer.
        let endings = if is_on { lapsing.renewed().await } else { lapsing.endings };
        let handed_out = |ending: Option<Ending<V>>| {
            let (read, dated) = ending.unwrap_or_else(|| Err(Error::protocol("a load brought nothing")))?;
            Ok(read.map(|read| read.aged_since(dated.at())))
        };
        endings.into_iter().map(handed_out).collect()
    }

    /// What the loader gives for all, while the region is not on: as `switched.rs` has it.
    async fn switched_many<K>(
        &self,
        batch: &Batch<K>,
        asked: Asked,
        loader: &Loader<K, T>,
        mode: RegionMode,
    ) -> Vec<Outcome<T>>
    where
        K: KeyParts + Clone + Send + Sync + 'static,
    {
        let counters = &self.state.counters;
        let mut cached: Vec<Found<T>> = batch.keys.iter().map(|_| Found::Nothing).collect();
        if mode == RegionMode::Killed {
            stats::add(&counters.bypassed, batch.keys.len() as u64);
        } else {
            let unheard = Asked { started: None, ..asked };
            let shape = Shape { near: false, of: |_, read, _| read };
            within(asked.until, pin!(self.look_uncounted(&batch.keys, &mut cached, unheard, &shape))).await;
        }
        let is_compared =
            |place: &usize| matches!(cached.get(*place), Some(Found::Value(..) | Found::Absence(_)));
        let (compared, missing): (Vec<_>, Vec<_>) = (0..batch.keys.len()).partition(is_compared);
        let storing = if mode == RegionMode::Killed { Storing::Never } else { Storing::IfMissing };
        let (mut answers, others) = tokio::join!(
            self.loaded_many(batch, missing, asked, loader, storing),
            self.loaded_many(batch, compared, asked, loader, Storing::Never),
        );
        for (place, outcome) in &answers {
            let Some(key) = batch.keys.get(*place) else { continue };
            if mode == RegionMode::Killed {
                if outcome.is_ok() {
                    self.served_past(key);
                }
            } else if matches!(cached.get(*place), Some(Found::Nothing | Found::Stale(..))) {
                stats::count(&counters.shadow_missing);
            }
        }
        for (place, outcome) in &others {
            let (Some(key), Ok((brought, _))) = (batch.keys.get(*place), outcome) else { continue };
            let cached = match cached.get(*place) {
                Some(Found::Value(read, ..)) => Some(&read.value),
                _ => None,
            };
            self.compare(key, cached, brought.as_ref().map(|read| &read.value));
        }
        answers.extend(others);
        answers
    }

    /// What flights bring for the ids at these places, or what there is instead.
    pub(super) async fn loaded_many<K>(
        &self,
        batch: &Batch<K>,
        wanted: Vec<usize>,
        asked: Asked,
        loader: &Loader<K, T>,
        storing: Storing,
    ) -> Vec<Outcome<T>>
    where
        K: KeyParts + Clone + Send + Sync + 'static,
    {
        if wanted.is_empty() {
            return Vec::new();
        }
        let (orders, place_of) = Orders::of(batch, wanted.iter().map(|place| (*place, Errand::Readers)));
        let orders = Arc::new(orders);
        let demands = asked.demands();
        let demand = Demand::now(demands, NoneIs::AnAnswer);
        let load = self.load_many(&orders, demands, loader, storing);
        let flights = self.cache.flights(storing);
        let mut group = flights.group(&orders.keys, demand, self.state.policy.max_batch, load);
        let wanted: Vec<(usize, usize)> = wanted.into_iter().zip(place_of).collect();
        // What is known stays so, should the caller's time end before the rest has come.
        let mut stale = KnownStale::new();
        let flown = self.waited_for(batch, &wanted, &mut group, asked.options, &mut stale);
        let is_late = within(asked.until, pin!(flown)).await.is_none();
        group.look_around();
        for place in 0..orders.keys.len() {
            if let Some((Part::Joined, _)) = group.arrived(place) {
                stats::count(&self.state.counters.joined_loads);
            }
        }
        let (mut outcomes, mut failed) = (Vec::with_capacity(wanted.len()), Vec::new());
        for (place, flight) in wanted {
            outcomes.push((
                place,
                match group.arrived(flight) {
                    Some((_, Some(Ok(landed)))) => {
                        self.read_of(landed).map(|read| (read, Dated::landed(landed, asked)))
                    }
                    Some((_, Some(Err(error)))) => {
                        failed.push((place, error.clone()));
                        continue;
                    }
                    Some((_, None)) => {
                        failed.push((place, Error::loader_panicked(self.name())));
                        continue;
                    }
                    None => {
                        let known =
                            stale.remove(&place).zip(batch.keys.get(place)).and_then(|(known, key)| {
                                let now =
                                    self.known_now(key, &known, group.is_joinable(flight), asked.options);
                                match now {
                                    Now::Same => Some((known.stale.read, known.dated)),
                                    Now::Here(stale) => {
                                        let dated = Dated::stale(&stale);
                                        Some((stale.read, dated))
                                    }
                                    // That it was still known was the last that was seen.
                                    Now::Nothing => (!is_late).then_some((known.stale.read, known.dated)),
                                }
                            });
                        match known {
                            Some((stale, dated)) => Ok((Some(self.served_unwaited(stale)), dated)),
                            None => self.too_late(batch, place, asked),
                        }
                    }
                },
            ));
        }
        for step in failed.chunks(FRAME_STEP) {
            let instead = step.iter().map(async |(place, error)| {
                let Some(key) = batch.keys.get(*place) else { return (*place, Err(error.clone())) };
                let stale = pin!(self.or_stale_until(error.clone(), key, asked.options));
                let stale = within(asked.until, stale).await;
                let late = || self.too_late(batch, *place, asked);
                let there = |stale: Stale<T>| {
                    let dated = Dated::stale(&stale);
                    (Some(stale.read), dated)
                };
                (*place, stale.map_or_else(late, |stale| stale.map(there)))
            });
            outcomes.extend(join_all(instead).await);
        }
        for (place, outcome) in &outcomes {
            if let (Some(key), Ok((Some(read), _))) = (batch.keys.get(*place), outcome) {
                self.observe_read(key, read, asked.started);
            }
        }
        outcomes
    }

    /// Waits for all flights, but no longer than the region says for those ids of which something stale is known.
    async fn waited_for<K, L>(
        &self,
        batch: &Batch<K>,
        wanted: &[(usize, usize)],
        group: &mut Group<'_, L>,
        options: ReadOptions,
        known: &mut KnownStale<T>,
    ) where
        L: Fn(Vec<usize>, Landing) -> LoadManyFuture,
    {
        if timeouts::soft(self.state.policy.soft_timeout, pin!(group.wait_for(|_| true))).await.is_some() {
            return;
        }
        let open = wanted.iter().filter(|(_, flight)| group.arrived(*flight).is_none());
        let open: Vec<_> = open.filter_map(|(place, _)| Some((*place, batch.keys.get(*place)?))).collect();
        match select(pin!(group.wait_for(|_| true)), pin!(self.known_stale_many(open, options))).await {
            Either::Left(_) => return,
            Either::Right((stale, _)) => *known = stale,
        }
        loop {
            let awaited = wanted.iter().filter(|(place, _)| !known.contains_key(place));
            let awaited: HashSet<usize> = awaited.map(|(_, flight)| *flight).collect();
            group.wait_for(|flight| awaited.contains(&flight)).await;
            let before = known.len();
            for (place, flight) in wanted.iter().filter(|(_, flight)| group.arrived(*flight).is_none()) {
                let (Some(key), Some(there)) = (batch.keys.get(*place), known.get(place)) else { continue };
                let now = self.known_now(key, there, group.is_joinable(*flight), options);
                if matches!(now, Now::Nothing) {
                    known.remove(place);
                }
            }
            // What is known no more is waited for like the rest.
            if known.len() == before {
                return;
            }
        }
    }

    /// Has the ids at these places loaded and stored in the background, as one load, but for those of which that goes on already or has just
    /// failed.
    pub(super) fn refresh_many<K>(&self, batch: &Batch<K>, due: Vec<(usize, Errand)>, loader: &Loader<K, T>)
    where
        K: KeyParts + Clone + Send + Sync + 'static,
    {
        let is_to_be = |(place, errand): &(usize, Errand)| {
            let key = batch.keys.get(*place);
            key.is_some_and(|key| !self.state.refreshes.is_paused(key, errand.left()))
        };
        let due = due.into_iter().filter(is_to_be);
        let orders = Arc::new(Orders::of(batch, due).0);
        if orders.keys.is_empty() {
            return;
        }
        let storing = Storing::IfCurrent;
        let load = self.load_many(&orders, ReadOptions::new(), loader, storing);
        let loads = self.cache.flights(storing).depart_many(&orders.keys, self.state.policy.max_batch, load);
        stats::add(&self.state.counters.refreshes, loads as u64);
    }

    /// Begins loads of some of what was ordered.
    fn load_many<'a, K>(
        &'a self,
        orders: &'a Arc<Orders<K>>,
        options: ReadOptions,
        loader: &'a Loader<K, T>,
        storing: Storing,
    ) -> impl Fn(Vec<usize>, Landing) -> LoadManyFuture + 'a
    where
        K: KeyParts + Clone + Send + Sync + 'static,
    {
        move |places, landing| {
            let key = |place: &usize| {
                Some((CachedKey::new(orders.keys.get(*place)?), *orders.errands.get(*place)?))
            };
            let load = BatchLoad {
                terms: Terms::of(self, options, storing),
                keys: places.iter().filter_map(key).collect(),
                decodes: Box::new({
                    let region = self.clone();
                    move |bytes| codec::is_null(bytes) || region.decode(bytes).is_ok()
                }),
                is_told: loader.asks.then(|| -> Box<dyn Fn(&[u8]) -> bool + Send + Sync> {
                    let region = self.clone();
                    Box::new(move |bytes| region.is_value(bytes))
                }),
            };
            let (region, loader, orders) = (self.clone(), loader.clone(), Arc::clone(orders));
            let call = move |wishes: Wishes| {
                let (region, orders) = (region.clone(), Arc::clone(&orders));
                let placed = |(n, previous)| Some((*places.get(n)?, previous));
                let wanted: Wishes = wishes.into_iter().filter_map(placed).collect();
                let wish = |(place, previous): &(usize, Option<Bytes>)| {
                    let known = previous.as_deref().and_then(|bytes| Previous::known(&region, bytes));
                    Some((orders.ids.get(*place)?.clone(), known))
                };
                let loading = loader.load(wanted.iter().filter_map(wish).collect());
                async move {
                    let brought = loading.await?;
                    let keys = wanted.iter().filter_map(|(place, previous)| {
                        Some((orders.keys.get(*place)?, previous.as_deref()))
                    });
                    let stored = |loaded: Loaded<T>, previous: Option<&[u8]>| {
                        let failed = |source| Error::loader(region.name(), source);
                        loaded.brought(&region, previous).map_err(failed).flatten()
                    };
                    Ok(answers_of(brought, keys, &region.encode_none(), stored))
                }
            };
            Box::pin(load.run(call, landing))
        }
    }

    fn read_of(&self, landed: &Landed) -> Result<Option<Read<T>>> {
        if is_absence::<T>(landed.bytes()) {
            return Ok(None);
        }
        let value = self.decode(landed.bytes()).map_err(|unusable| unusable.error)?;
        Ok(Some(Read::fresh(value, landed.source(), landed.age())))
    }

    /// What an id ends with of which nothing is known when the caller's time is over, or that of what was known.
    pub(super) fn too_late<K>(&self, batch: &Batch<K>, place: usize, asked: Asked) -> Ending<T> {
        let error = asked.options.past_deadline(self.name());
        let Some(key) = batch.keys.get(place) else { return Err(error) };
        // Without a deadline it is the others that have taken their time.
        let over = |late| if asked.options.deadline.is_some() { late } else { Error::lapsed(self.name()) };
        let stale = self.late(error, key, asked.options).map_err(over)?;
        let dated = Dated::now(stale.age, Until::Forever);
        Ok((Some(stale), dated))
    }
}

/// What the call gives, if it ends by then.
pub(super) async fn within<A>(until: Option<Instant>, call: Pin<&mut impl Future<Output = A>>) -> Option<A> {
    match until {
        Some(until) => tokio::time::timeout_at(until.into(), call).await.ok(),
        None => Some(call.await),
    }
}
