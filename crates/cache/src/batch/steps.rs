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
use super::load::{BatchLoad, Wishes, answers_of};
use super::loader::Loader;
use super::look::{FRAME_STEP, Found, Shape, is_absence};
use crate::backend::{Bytes, CachedKey};
use crate::codec;
use crate::control::RegionMode;
use crate::error::{Error, Result};
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

/// What was asked of a batch, when, if anybody wants to know, and until when it may take.
#[derive(Clone, Copy)]
pub(super) struct Asked {
    pub(super) options: ReadOptions,
    pub(super) started: Option<Instant>,
    pub(super) until: Option<Instant>,
}

impl Asked {
    pub(super) fn now(options: ReadOptions, started: Option<Instant>) -> Self {
        let until = options.deadline.and_then(|limit| Instant::now().checked_add(limit));
        Self { options, started, until }
    }
}

/// What came of the id at a place.
type Outcome<T> = (usize, Result<Option<Read<T>>>);

/// What is known of an id, when that was found out, and until when it is, if the backend has told.
struct Known<T> {
    read: Read<T>,
    since: Instant,
    until: Option<Instant>,
}

/// What is known of the ids at places.
type KnownStale<T> = HashMap<usize, Known<T>>;

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
        let own = |read| (shape.of)(self, read, None);
        let (mut outcomes, mut missing, mut due) = (Vec::with_capacity(found.len()), Vec::new(), Vec::new());
        let mut seen = Vec::with_capacity(found.len());
        for ((place, found), key) in (0..).zip(found).zip(&batch.keys) {
            let (stale, since) = match found {
                Found::Value(read, left, since) => {
                    due.extend(self.due(left, read.age).map(|errand| (place, errand)));
                    seen.push((place, since));
                    outcomes.push(Some(Ok(Some(read))));
                    continue;
                }
                Found::Absence => {
                    outcomes.push(Some(Ok(None)));
                    continue;
                }
                Found::Failed(error) => {
                    outcomes.push(Some(Err(error)));
                    continue;
                }
                Found::Stale(read, since) => (Some(read), since),
                Found::Nothing => (None, Instant::now()),
            };
            if is_on && in_time {
                stats::count(&self.state.counters.misses);
                if let Some(stale) = self.instead_of_loading(key, stale, asked.options, own) {
                    due.push((place, Errand::Revalidate));
                    seen.push((place, since));
                    self.observe_read(key, &stale, asked.started);
                    outcomes.push(Some(Ok(Some(stale))));
                    continue;
                }
            }
            missing.push(place);
            outcomes.push(None);
        }
        self.refresh_many(&batch, due, loader);
        let brought = if !in_time {
            missing.into_iter().map(|place| (place, self.too_late(&batch, place, asked))).collect()
        } else if is_on {
            self.loaded_many(&batch, missing, asked, loader, Storing::IfCurrent).await
        } else {
            self.switched_many(&batch, asked, loader, mode).await
        };
        for (place, since) in seen {
            if let Some(Some(Ok(read))) = outcomes.get_mut(place) {
                *read = read.take().map(|read| read.aged_since(since));
            }
        }
        for (place, outcome) in brought {
            if let Some(empty) = outcomes.get_mut(place) {
                *empty = Some(outcome.map(|read| read.map(own)));
            }
        }
        let nothing = || Err(Error::protocol("a load brought nothing"));
        outcomes.into_iter().map(|outcome| outcome.unwrap_or_else(nothing)).collect()
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
            |place: &usize| matches!(cached.get(*place), Some(Found::Value(..) | Found::Absence));
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
            let (Some(key), Ok(brought)) = (batch.keys.get(*place), outcome) else { continue };
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
    async fn loaded_many<K>(
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
        let demand = Demand::now(asked.options, NoneIs::AnAnswer);
        let load = self.load_many(&orders, asked.options, loader, storing);
        let flights = self.cache.flights(storing);
        let mut group = flights.group(&orders.keys, demand, self.state.policy.max_batch, load);
        let wanted: Vec<(usize, usize)> = wanted.into_iter().zip(place_of).collect();
        // What is known stays so, should the caller's time end before the rest has come.
        let mut stale = KnownStale::new();
        let flown = self.waited_for(batch, &wanted, &mut group, asked.options, &mut stale);
        within(asked.until, pin!(flown)).await;
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
                    Some((_, Some(Ok(landed)))) => self.read_of(landed),
                    Some((_, Some(Err(error)))) => {
                        failed.push((place, error.clone()));
                        continue;
                    }
                    Some((_, None)) => {
                        failed.push((place, Error::loader_panicked(self.name())));
                        continue;
                    }
                    None => {
                        let known = stale.remove(&place).zip(batch.keys.get(place));
                        let still = known.and_then(|(known, key)| {
                            self.still_known(key, known, group.is_joinable(flight), asked.options)
                        });
                        match still {
                            Some(stale) => Ok(Some(self.served_unwaited(stale))),
                            None => self.too_late(batch, place, asked),
                        }
                    }
                },
            ));
        }
        for step in failed.chunks(FRAME_STEP) {
            let instead = step.iter().map(async |(place, error)| {
                let Some(key) = batch.keys.get(*place) else { return (*place, Err(error.clone())) };
                let stale = within(asked.until, pin!(self.or_stale(error.clone(), key, asked.options))).await;
                let late = || self.too_late(batch, *place, asked);
                (*place, stale.map_or_else(late, |stale| stale.map(Some)))
            });
            outcomes.extend(join_all(instead).await);
        }
        for (place, outcome) in &outcomes {
            if let (Some(key), Ok(Some(read))) = (batch.keys.get(*place), outcome) {
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
        let awaited = wanted.iter().filter(|(place, _)| !known.contains_key(place));
        let awaited: HashSet<usize> = awaited.map(|(_, flight)| *flight).collect();
        group.wait_for(|flight| awaited.contains(&flight)).await;
    }

    /// What was known at the soft timeout, if it is so now: without asking the backend, for which no time may be left. A load that none can
    /// join any more is one whose key was set or invalidated here.
    fn still_known(
        &self,
        key: &str,
        known: Known<T>,
        is_joinable: bool,
        options: ReadOptions,
    ) -> Option<Read<T>> {
        if self.framing().is_none() {
            return self.last_known(key, options);
        }
        let is_over = known.until.is_some_and(|until| Instant::now() >= until);
        let read = known.read.aged_since(known.since);
        (is_joinable && !is_over && options.accepts(read.age)).then_some(read)
    }

    async fn known_stale_many(&self, open: Vec<(usize, &String)>, options: ReadOptions) -> KnownStale<T> {
        let mut known = HashMap::new();
        for step in open.chunks(FRAME_STEP) {
            let looks = step.iter().map(async |(place, key)| {
                let (read, until) = self.known_stale_until(key, options).await?;
                Some((*place, Known { read, since: Instant::now(), until }))
            });
            known.extend(join_all(looks).await.into_iter().flatten());
        }
        known
    }

    /// Has the ids at these places loaded and stored in the background, as one load, but for those of which that goes on already or has just
    /// failed.
    fn refresh_many<K>(&self, batch: &Batch<K>, due: Vec<(usize, Errand)>, loader: &Loader<K, T>)
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

    /// What an id ends with of which nothing is known when the caller's time is over.
    fn too_late<K>(&self, batch: &Batch<K>, place: usize, asked: Asked) -> Result<Option<Read<T>>> {
        let error = asked.options.past_deadline(self.name());
        match batch.keys.get(place) {
            Some(key) => self.late(error, key, asked.options).map(Some),
            None => Err(error),
        }
    }
}

/// What the call gives, if it ends by then.
pub(super) async fn within<A>(until: Option<Instant>, call: Pin<&mut impl Future<Output = A>>) -> Option<A> {
    match until {
        Some(until) => tokio::time::timeout_at(until.into(), call).await.ok(),
        None => Some(call.await),
    }
}
