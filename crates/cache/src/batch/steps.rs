//! The steps of a batch: what is there, what is missing, what a load brings.
//!
//! Invariant: each id ends with one outcome, whatever becomes of the others. Deliberately absent: what callers see (`batch.rs`).

use std::collections::HashMap;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::Instant;

use futures_util::future::join_all;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::Outcomes;
use super::load::{BatchLoad, answers_of};
use super::loader::Loader;
use crate::backend::{Backend, Bytes, CachedKey, WithLeft};
use crate::codec;
use crate::control::RegionMode;
use crate::error::{Error, ErrorKind, Result};
use crate::framed::Sight;
use crate::keys::KeyParts;
use crate::load::{Errand, Storing};
use crate::near::Ticket;
use crate::read::{Age, Read, ReadOptions, Source, Staleness};
use crate::read_through::Looked;
use crate::region::Region;
use crate::single_flight::{Demand, Landed, Landing, LoadManyFuture, NoneIs, Part};
use crate::stats;
use crate::terms::Terms;
use crate::ttl::TimeLeft;

/// Looks at keys of a framed region that are under way at once.
const FRAME_STEP: usize = 200;

/// The ids of a call, and their keys.
pub(super) struct Batch<K> {
    pub(super) ids: Arc<[K]>,
    pub(super) keys: Vec<String>,
}

impl<K: KeyParts> Batch<K> {
    pub(super) fn of<T>(region: &Region<T>, ids: impl IntoIterator<Item = K>) -> Result<Self> {
        let ids: Arc<[K]> = ids.into_iter().collect();
        let keys = ids.iter().map(|id| region.key(id)).collect::<Result<_>>()?;
        Ok(Self { ids, keys })
    }
}

/// What was asked of a batch, and when, if anybody wants to know.
#[derive(Clone, Copy)]
pub(super) struct Asked {
    pub(super) options: ReadOptions,
    pub(super) started: Option<Instant>,
}

/// What is handed out for a value.
pub(super) struct Shape<T, V> {
    /// Whether what is read may be kept near.
    pub(super) near: bool,
    pub(super) of: fn(&Region<T>, Read<T>, Option<Seen<'_>>) -> Read<V>,
}

/// A value as the backend has it.
pub(super) struct Seen<'a> {
    pub(super) key: &'a str,
    pub(super) found: SeenAs<'a>,
    pub(super) sent: Instant,
    pub(super) ticket: Option<Ticket>,
}

pub(super) enum SeenAs<'a> {
    Plain(&'a [u8], TimeLeft),
    Framed(&'a Sight),
}

/// What there is for each id so far.
type Found<V> = Vec<Option<Result<Option<Read<V>>>>>;

/// The place of a key that has no outcome yet, and what lets its value be kept near.
type Open<'a, V> = (&'a mut Option<Result<Option<Read<V>>>>, &'a str, Option<Ticket>);

impl<T: Serialize + DeserializeOwned + Send + 'static> Region<T> {
    /// Looks for what has no outcome yet, and loads what is not there. What is not known in the time that the caller allows ends with that;
    /// what was found by then keeps its outcome.
    pub(super) async fn finished<K, V>(
        &self,
        batch: Batch<K>,
        mut found: Found<V>,
        asked: Asked,
        loader: &Loader<K, T>,
        shape: Shape<T, V>,
    ) -> Outcomes<V>
    where
        K: KeyParts + Clone + Send + Sync + 'static,
    {
        let until = asked.options.deadline.and_then(|limit| Instant::now().checked_add(limit));
        let mode = self.state.mode();
        let is_on = mode == RegionMode::On;
        let in_time = !is_on || self.look_for_rest(&batch.keys, &mut found, asked, until, &shape).await;
        let brought = if in_time {
            let missing = (0..).zip(&found).filter(|(_, found)| found.is_none());
            let missing: Vec<usize> = missing.map(|(place, _)| place).collect();
            let loads = async {
                if !is_on {
                    return self.switched_many(&batch, asked, loader, mode).await;
                }
                stats::add(&self.state.counters.misses, missing.len() as u64);
                self.loaded_many(&batch, missing, asked, loader, Storing::IfCurrent).await
            };
            within(until, pin!(loads)).await
        } else {
            None
        };
        let is_late = brought.is_none();
        let shaped = |(place, outcome): (usize, Result<Option<Read<T>>>)| {
            (place, outcome.map(|read| read.map(|read| (shape.of)(self, read, None))))
        };
        let mut answers: HashMap<_, _> = brought.into_iter().flatten().map(shaped).collect();
        let outcomes = (0..).zip(found).map(|(place, found)| {
            let outcome = found.or_else(|| answers.remove(&place));
            outcome.unwrap_or_else(|| {
                Err(if is_late {
                    asked.options.past_deadline(self.name())
                } else {
                    Error::protocol("a load brought nothing")
                })
            })
        });
        outcomes.collect()
    }

    /// What the loader gives for all, while the region is not on: as `switched.rs` has it.
    async fn switched_many<K>(
        &self,
        batch: &Batch<K>,
        asked: Asked,
        loader: &Loader<K, T>,
        mode: RegionMode,
    ) -> Vec<(usize, Result<Option<Read<T>>>)>
    where
        K: KeyParts + Clone + Send + Sync + 'static,
    {
        let counters = &self.state.counters;
        let mut cached: Found<T> = batch.keys.iter().map(|_| None).collect();
        if mode == RegionMode::Killed {
            stats::add(&counters.bypassed, batch.keys.len() as u64);
        } else {
            let unheard = Asked { started: None, ..asked };
            let shape = Shape { near: false, of: |_, read, _| read };
            self.look_uncounted(&batch.keys, &mut cached, unheard, &shape).await;
        }
        let is_compared = |place: &usize| matches!(cached.get(*place), Some(Some(Ok(_))));
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
            } else if matches!(cached.get(*place), Some(None)) {
                stats::count(&counters.shadow_missing);
            }
        }
        for (place, outcome) in &others {
            let (Some(key), Some(Some(Ok(cached)))) = (batch.keys.get(*place), cached.get(*place)) else {
                continue;
            };
            if let Ok(read) = outcome {
                self.compare(
                    key,
                    cached.as_ref().map(|read| &read.value),
                    read.as_ref().map(|read| &read.value),
                );
            }
        }
        answers.extend(others);
        answers
    }

    /// What flights bring for the ids at these places.
    async fn loaded_many<K>(
        &self,
        batch: &Batch<K>,
        wanted: Vec<usize>,
        asked: Asked,
        loader: &Loader<K, T>,
        storing: Storing,
    ) -> Vec<(usize, Result<Option<Read<T>>>)>
    where
        K: KeyParts + Clone + Send + Sync + 'static,
    {
        let mut places: HashMap<&str, usize> = HashMap::new();
        let (mut ids, mut keys) = (Vec::new(), Vec::new());
        let named = |place: &usize| Some((batch.keys.get(*place)?, batch.ids.get(*place)?));
        for (key, id) in wanted.iter().filter_map(named) {
            places.entry(key).or_insert_with(|| {
                ids.push(id.clone());
                keys.push(key.clone());
                keys.len() - 1
            });
        }
        let landed = self.landed(ids, keys, asked.options, loader, storing).await;
        let of_place = |place: usize| {
            let key = batch.keys.get(place)?;
            Some((place, key, landed.get(*places.get(key.as_str())?)?.clone()))
        };
        let mut outcomes = Vec::with_capacity(wanted.len());
        for (place, key, landed) in wanted.into_iter().filter_map(of_place) {
            let outcome = match landed {
                Ok(landed) => self.read_of(&landed),
                Err(error) => self.or_stale(error, key, asked.options).await.map(Some),
            };
            if let Ok(Some(read)) = &outcome {
                self.observe_read(key, read, asked.started);
            }
            outcomes.push((place, outcome));
        }
        outcomes
    }

    fn read_of(&self, landed: &Landed) -> Result<Option<Read<T>>> {
        if is_absence::<T>(landed.bytes()) {
            return Ok(None);
        }
        let value = self.decode(landed.bytes()).map_err(|unusable| unusable.error)?;
        let (source, age) = (landed.source(), landed.age());
        Ok(Some(Read { value, source, staleness: Staleness::Fresh, age }))
    }

    /// One look at the backend for all that has no outcome yet; counts what it finds. False if it took until then.
    async fn look_for_rest<V>(
        &self,
        keys: &[String],
        found: &mut Found<V>,
        asked: Asked,
        until: Option<Instant>,
        shape: &Shape<T, V>,
    ) -> bool {
        let open: Vec<bool> = found.iter().map(Option::is_none).collect();
        let looked = within(until, pin!(self.look_uncounted(keys, found, asked, shape))).await;
        for ((found, key), _) in found.iter().zip(keys).zip(open).filter(|(_, open)| *open) {
            match found {
                Some(Ok(Some(read))) => self.count_hit(key, read, asked.started),
                Some(Ok(None)) => {
                    let (source, staleness, age) = (Source::Backend, Staleness::Fresh, Age::Unknown);
                    self.count_hit(key, &Read { value: (), source, staleness, age }, asked.started);
                }
                _ => {}
            }
        }
        looked.is_some()
    }

    async fn look_uncounted<V>(
        &self,
        keys: &[String],
        found: &mut Found<V>,
        asked: Asked,
        shape: &Shape<T, V>,
    ) {
        let rest = found.iter_mut().zip(keys).filter(|(found, _)| found.is_none());
        let keeps = shape.near || self.state.remembers();
        let ticket = |key| if keeps { self.cache.near().begin(key) } else { None };
        let mut rest: Vec<_> = rest.map(|(place, key)| (place, key.as_str(), ticket(key))).collect();
        if rest.is_empty() {
            return;
        }
        let looked = if self.framing().is_some() {
            self.look_at_frames(&mut rest, asked, shape).await
        } else {
            self.look_at_values(&mut rest, asked, shape).await
        };
        if let Err(error) = looked {
            stats::count(&self.state.counters.backend_errors);
            tracing::debug!(region = self.name(), %error, "backend read failed, loading");
        }
    }

    async fn look_at_values<V>(
        &self,
        rest: &mut [Open<'_, V>],
        asked: Asked,
        shape: &Shape<T, V>,
    ) -> Result<()> {
        let began = Instant::now();
        let backend = asked.options.in_time(pin!(self.cache.backend())).await?;
        // By the servers that have them: one that is silent keeps nobody from what the others have answered.
        let mut by_server: HashMap<u64, Vec<_>> = HashMap::new();
        for open in rest {
            by_server.entry(backend.run_of(open.1.as_bytes())).or_default().push(open);
        }
        let groups =
            by_server.into_values().map(|group| self.look_at_group(backend, group, asked, shape, began));
        join_all(groups).await.into_iter().collect()
    }

    async fn look_at_group<V>(
        &self,
        backend: &Backend,
        mut group: Vec<&mut Open<'_, V>>,
        asked: Asked,
        shape: &Shape<T, V>,
        began: Instant,
    ) -> Result<()> {
        let bytes: Vec<Bytes> = group.iter().map(|(_, key, _)| key.as_bytes().to_vec()).collect();
        let wants_left = asked.options.wants_age() || group.iter().any(|(_, _, ticket)| ticket.is_some());
        let with_left = if wants_left { WithLeft::Yes } else { WithLeft::No };
        let sent = Instant::now();
        let looks = asked.options.in_time_since(began, pin!(backend.look_many(&bytes, with_left))).await?;
        for ((place, key, ticket), look) in group.iter_mut().zip(looks) {
            **place = match look {
                Ok((None, _)) => {
                    self.found_nothing(*ticket, key);
                    None
                }
                Ok((Some(bytes), left)) => {
                    let is_told = asked.options.wants_age() || ticket.is_some();
                    let age = if is_told { self.state.age(&bytes, left) } else { Age::Unknown };
                    if !shape.near {
                        self.remember(ticket.take(), key, &bytes, left, sent);
                    }
                    if !asked.options.accepts(age) {
                        None
                    } else if is_absence::<T>(&bytes) {
                        Some(Ok(self.absent()))
                    } else {
                        let seen = Seen { key, found: SeenAs::Plain(&bytes, left), sent, ticket: *ticket };
                        self.looked_at(self.decoded(&bytes, age), Some(seen), shape)
                    }
                }
                Err(error) => {
                    stats::count(&self.state.counters.backend_errors);
                    self.looked_at(Err(error), None, shape)
                }
            };
        }
        Ok(())
    }

    /// Of a framed region: each key in a step of its own, many at once.
    async fn look_at_frames<V>(
        &self,
        rest: &mut [Open<'_, V>],
        asked: Asked,
        shape: &Shape<T, V>,
    ) -> Result<()> {
        let until = asked.options.backend_timeout.map(|limit| Instant::now() + limit);
        for step in rest.chunks_mut(FRAME_STEP) {
            if until.is_some_and(|until| Instant::now() >= until) {
                break;
            }
            let sent = Instant::now();
            let looks = step.iter_mut().map(async |(place, key, ticket)| {
                let mut down = None;
                // At once, as with values: should the caller's time end, what has been answered by then is found.
                **place = match self.look_at_frame(key, asked.options).await {
                    Ok((Looked::Nothing, Some(sight))) if is_absence::<T>(&sight.bytes) => {
                        Some(Ok(self.absent()))
                    }
                    Ok((looked, sight)) => {
                        if let (false, Some(sight)) = (shape.near, &sight) {
                            self.remember_frame(ticket.take(), key, sight, sent);
                        }
                        let seen = |sight| Seen { key, found: SeenAs::Framed(sight), sent, ticket: *ticket };
                        self.looked_at(Ok(looked), sight.as_ref().map(seen), shape)
                    }
                    Err(error) => {
                        down = error.is_backend_down().then(|| error.clone());
                        self.looked_at(Err(error), None, shape)
                    }
                };
                down
            });
            let down = join_all(looks).await.into_iter().flatten().next();
            if let Some(error) = down {
                // The rest would only wait for the same.
                return Err(error);
            }
        }
        Ok(())
    }

    /// The source has none, as the cache has it.
    fn absent<V>(&self) -> Option<Read<V>> {
        stats::count(&self.state.counters.none_hits);
        None
    }

    /// What a look is to this read; none if it will not do.
    fn looked_at<V>(
        &self,
        looked: Result<Looked<T>>,
        seen: Option<Seen<'_>>,
        shape: &Shape<T, V>,
    ) -> Option<Result<Option<Read<V>>>> {
        match looked {
            Ok(Looked::Value(read)) => Some(Ok(Some((shape.of)(self, read, seen)))),
            Ok(Looked::Stale(_) | Looked::Nothing) => None,
            // As in `read_through.rs`: loading would neither replace what is there nor say so.
            Err(error) if matches!(error.kind(), ErrorKind::Undecodable | ErrorKind::WrongType) => {
                Some(Err(error))
            }
            Err(_) => None,
        }
    }

    /// What flights bring for these keys, in their order.
    async fn landed<K>(
        &self,
        ids: Vec<K>,
        keys: Vec<String>,
        options: ReadOptions,
        loader: &Loader<K, T>,
        storing: Storing,
    ) -> Vec<Result<Landed>>
    where
        K: KeyParts + Clone + Send + Sync + 'static,
    {
        let ids: Arc<[K]> = ids.into();
        let load = |places: Vec<usize>, landing: Landing| -> LoadManyFuture {
            let names: Vec<_> = places.iter().filter_map(|place| keys.get(*place)).cloned().collect();
            let load = BatchLoad {
                terms: Terms::of(self, options, storing),
                keys: names.iter().map(|key| (CachedKey::new(key), Errand::Readers)).collect(),
                decodes: Box::new({
                    let region = self.clone();
                    move |bytes| codec::is_null(bytes) || region.decode(bytes).is_ok()
                }),
            };
            let (region, loader, ids) = (self.clone(), loader.clone(), Arc::clone(&ids));
            let asked = Arc::new((ids, places, names));
            let call = move |wanted: Vec<usize>| {
                let (region, asked) = (region.clone(), Arc::clone(&asked));
                let pick = |n: &usize| asked.1.get(*n).and_then(|place| asked.0.get(*place)).cloned();
                let loading = loader.load(wanted.iter().filter_map(pick).collect());
                async move {
                    let pairs = loading.await?;
                    let names = wanted.iter().filter_map(|n| asked.2.get(*n));
                    Ok(answers_of(pairs, names, &region.encode_none(), |value| region.encode(value)))
                }
            };
            Box::pin(load.run(call, landing))
        };
        let demand = Demand::now(options, NoneIs::AnAnswer);
        let flown =
            self.cache.flights(storing).fly_many(&keys, demand, self.state.policy.max_batch, load).await;
        let landed = flown.into_iter().map(|(part, landed)| {
            if part == Part::Joined {
                stats::count(&self.state.counters.joined_loads);
            }
            landed.unwrap_or_else(|| Err(Error::loader_panicked(self.name())))
        });
        landed.collect()
    }
}

/// What the call gives, if it ends by then.
async fn within<A>(until: Option<Instant>, call: Pin<&mut impl Future<Output = A>>) -> Option<A> {
    match until {
        Some(until) => tokio::time::timeout_at(until.into(), call).await.ok(),
        None => Some(call.await),
    }
}

/// Whether stored bytes say that the source has none, to a reader whose type has no place for that.
fn is_absence<T: DeserializeOwned>(bytes: &[u8]) -> bool {
    codec::is_null(bytes) && !codec::has_none::<T>()
}
