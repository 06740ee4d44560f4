//! The one load of a batch: what the flights of its keys share.
//!
//! Invariants: a key whose token could not be had, or is lost, costs only its own fill; one that another process loads is waited for beside
//! the load of the others, and lands by itself; no lease outlives the load that it was taken for. Deliberately absent: single loads,
//! which are `read_through.rs`'.

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};
use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use futures_util::stream::FuturesUnordered;
use futures_util::{FutureExt, StreamExt};
use tokio::sync::SemaphorePermit;

use super::loader::Failure;
use crate::backend::{Bytes, CachedKey};
use crate::cache::Cache;
use crate::error::{Error, Result};
use crate::events::Event;
use crate::fill_token::{self, Begun, Fill, Filling, Permit, Sharing, Suffices, TOKEN_MARGIN, Token};
use crate::framed::{Final, Standing};
use crate::lease::{Lease, Patience};
use crate::load::Storing;
use crate::read::{Age, ReadOptions, Source};
use crate::refresh::Rules;
use crate::region::RegionState;
use crate::single_flight::{Currency, Landed, Landing};
use crate::stats;
use crate::tags::{Tag, TagToken, Tags};
use crate::timeouts;
use crate::ttl::{TimeLeft, Ttl};

/// The stored form of what a loader has for each id that it was asked for.
pub(super) type Answers = Vec<Result<Bytes>>;

/// The answers for these keys among a loader's pairs of key and value; `none` for those that it left out.
pub(super) fn answers_of<'a, T>(
    pairs: Vec<(String, T)>,
    keys: impl Iterator<Item = &'a String>,
    none: &Result<Bytes>,
    encode: impl Fn(&T) -> Result<Bytes>,
) -> Answers {
    let places: HashMap<&str, usize> = keys.map(String::as_str).zip(0..).collect();
    let mut answers: Answers = places.iter().map(|_| none.clone()).collect();
    for (key, value) in pairs {
        let place = places.get(key.as_str());
        if let Some(answer) = place.and_then(|place| answers.get_mut(*place)) {
            *answer = encode(&value);
        }
    }
    answers
}

pub(super) struct BatchLoad {
    pub(super) cache: Cache,
    pub(super) state: Arc<RegionState>,
    /// What the values will carry.
    pub(super) tags: Arc<Tags>,
    pub(super) keys: Vec<CachedKey>,
    pub(super) options: ReadOptions,
    pub(super) storing: Storing,
    pub(super) decodes: Box<dyn Fn(&[u8]) -> bool + Send + Sync>,
}

/// A key that is to be loaded: its place among the load's keys, and the right to store it, if that was to be had.
struct Wanted {
    place: usize,
    permit: Option<Permit>,
}

/// What became of keys that a load was to begin with, and have not landed.
#[derive(Default)]
struct Entered {
    wanted: Vec<Wanted>,
    /// Others hold the leases of these.
    held: Vec<usize>,
    /// The first of those leases ends in so long.
    left: Duration,
}

/// A loader call that has ended.
struct Load {
    lease: Option<Lease>,
    /// The tokens of the tags.
    taken: Result<Vec<(Tag, TagToken)>>,
    began: Instant,
    took: Duration,
}

impl BatchLoad {
    /// Lands each key with what there is, or what the loader gives. That is given the places of those keys that nobody has stored meanwhile,
    /// and again of those that another process was to load and did not.
    pub(super) async fn run<F, Fut>(self, loader: F, landing: Landing)
    where
        F: Fn(Vec<usize>) -> Fut + Send + Sync,
        Fut: Future<Output = std::result::Result<Answers, Failure>> + Send,
    {
        let book = self.cache.tag_book();
        // Before the tokens are taken: an invalidation of a tag from here on finds this load.
        let carrying = self.keys.iter().filter(|_| !self.tags.is_empty());
        let _loading: Vec<_> = carrying.map(|key| book.loading(&key.key, &self.tags)).collect();
        let mut loads = FuturesUnordered::new();
        let mut open: Vec<usize> = (0..self.keys.len()).collect();
        let mut patience: Option<Patience> = None;
        while !open.is_empty() {
            // The place first, as for a single load.
            let place = match beside(&mut loads, self.state.limit.place(&self.state.policy.name)).await {
                Ok(place) => place,
                Err(error) => {
                    stats::count(&self.state.counters.loads_shed);
                    self.cache.troubles().note(&error);
                    for place in open {
                        landing.land(place, Err(error.clone()));
                    }
                    break;
                }
            };
            let sharing = self.sharing(patience.as_ref());
            let entered = beside(&mut loads, self.begin(&open, sharing, &landing)).await;
            if entered.wanted.is_empty() {
                drop(place);
            } else {
                loads.push(self.load_apart(place, entered.wanted, &loader, &landing));
            }
            open = entered.held;
            if !open.is_empty() {
                let patience = patience.get_or_insert_with(|| self.patience(&open));
                beside(&mut loads, patience.pause(entered.left)).await;
            }
        }
        while loads.next().await.is_some() {}
    }

    fn name(&self) -> Cow<'_, str> {
        Cow::Borrowed(&self.state.policy.name)
    }

    fn keys_at<'a>(
        &'a self,
        places: impl IntoIterator<Item = &'a usize>,
    ) -> impl Iterator<Item = &'a CachedKey> {
        places.into_iter().filter_map(|place| self.keys.get(*place))
    }

    fn sharing(&self, patience: Option<&Patience>) -> Sharing {
        if self.state.policy.lease.is_none() {
            return Sharing::Joined;
        }
        if patience.is_some_and(Patience::is_exhausted) {
            stats::count(&self.state.counters.lease_timeouts);
            return Sharing::Joined;
        }
        Sharing::Exclusive
    }

    /// Of one who waits for the leases of these keys.
    fn patience(&self, held: &[usize]) -> Patience {
        stats::count(&self.state.counters.lease_waits);
        let policy = &self.state.policy;
        let near = self.cache.near();
        let texts = self.keys_at(held).filter_map(|key| std::str::from_utf8(&key.key).ok());
        let wakes = texts.filter_map(|key| near.wake(key));
        Patience::new(policy.load_timeout + policy.lease.unwrap_or_default(), wakes)
    }

    /// The second look and the tokens. What is there lands.
    async fn begin(&self, open: &[usize], sharing: Sharing, landing: &Landing) -> Entered {
        let mut entered = Entered { left: Duration::MAX, ..Entered::default() };
        if self.storing == Storing::Never {
            entered.wanted.extend(open.iter().map(|place| Wanted { place: *place, permit: None }));
            return entered;
        }
        let suffices = self.state.suffices(self.options, self.storing);
        let found = self.enter(open, suffices, sharing, &mut entered).await;
        let will_do = join_all(found.iter().map(|(_, bytes, left)| self.will_do(bytes, *left))).await;
        let mut unfit = Vec::new();
        for ((place, bytes, left), will_do) in found.into_iter().zip(will_do) {
            if will_do {
                let run = self.keys.get(place).map_or(0, |key| self.cache.run_of(&key.key));
                let age = self.state.age_on(&bytes, left, run);
                landing.land(place, Ok(Landed::now(bytes, Source::Backend, age, Currency::MayBeOvertaken)));
            } else {
                unfit.push(place);
            }
        }
        if !unfit.is_empty() {
            let found = self.enter(&unfit, Suffices::Nothing, sharing, &mut entered).await;
            entered.wanted.extend(found.into_iter().map(|(place, ..)| Wanted { place, permit: None }));
        }
        entered
    }

    /// Whether what was found is a value for this reader.
    async fn will_do(&self, bytes: &[u8], left: TimeLeft) -> bool {
        (self.decodes)(bytes)
            && self.cache.stands(bytes, left).await.is_ok_and(|standing| standing == Standing::Fresh)
    }

    /// Begins with these keys; returns what was found.
    async fn enter(
        &self,
        places: &[usize],
        suffices: Suffices,
        sharing: Sharing,
        entered: &mut Entered,
    ) -> Vec<(usize, Bytes, TimeLeft)> {
        let policy = &self.state.policy;
        let keys: Vec<_> = self.keys_at(places).collect();
        let token_ttl = policy.lease.unwrap_or(policy.load_timeout + TOKEN_MARGIN);
        let begun = match self.cache.backend().await {
            Ok(backend) => fill_token::begin_many(backend, &keys, token_ttl, suffices, sharing).await,
            Err(error) => keys.iter().map(|_| Err(error.clone())).collect(),
        };
        let mut found = Vec::new();
        for (place, begun) in places.iter().copied().zip(begun) {
            match begun {
                Ok(Begun::Found(bytes, left) | Begun::Rests(bytes, left, _)) => {
                    found.push((place, bytes, left));
                }
                Ok(Begun::Load(permit)) => entered.wanted.push(Wanted { place, permit: Some(permit) }),
                Ok(Begun::Held(left)) => {
                    entered.left = entered.left.min(left);
                    entered.held.push(place);
                }
                Err(error) => {
                    stats::count(&self.state.counters.backend_errors);
                    tracing::debug!(region = %policy.name, %error, "no fill token; a value will not be stored");
                    entered.wanted.push(Wanted { place, permit: None });
                }
            }
        }
        found
    }

    /// One call of the loader, and what becomes of it. If it panics, that is a matter of its own keys.
    async fn load_apart<F, Fut>(
        &self,
        place: SemaphorePermit<'_>,
        wanted: Vec<Wanted>,
        loader: &F,
        landing: &Landing,
    ) where
        F: Fn(Vec<usize>) -> Fut + Send + Sync,
        Fut: Future<Output = std::result::Result<Answers, Failure>> + Send,
    {
        let places: Vec<usize> = wanted.iter().map(|wanted| wanted.place).collect();
        let load = AssertUnwindSafe(self.load_some(place, wanted, loader, landing));
        if load.catch_unwind().await.is_err() {
            for place in places {
                landing.panicked(place);
            }
        }
    }

    /// One call of the loader.
    async fn load_some<F, Fut>(
        &self,
        place: SemaphorePermit<'_>,
        wanted: Vec<Wanted>,
        loader: &F,
        landing: &Landing,
    ) where
        F: Fn(Vec<usize>) -> Fut + Send + Sync,
        Fut: Future<Output = std::result::Result<Answers, Failure>> + Send,
    {
        let lease = self.hold(&wanted);
        // Before the loader runs, so that an invalidation during the load invalidates what it stores.
        let taken = self.take_tags().await;
        let began = Instant::now();
        let outcome = self.load(loader(wanted.iter().map(|wanted| wanted.place).collect())).await;
        drop(place);
        self.count_load(&wanted, began, outcome.is_ok());
        match outcome {
            Ok(answers) => {
                let load = Load { lease, taken, began, took: began.elapsed() };
                self.fill(wanted, answers, load, landing).await;
            }
            Err(error) => {
                for Wanted { place, .. } in wanted {
                    landing.land(place, Err(error.clone()));
                }
            }
        }
    }

    /// The tokens of the tags, for as long as a value may live after the longest load.
    async fn take_tags(&self) -> Result<Vec<(Tag, TagToken)>> {
        if self.tags.is_empty() || self.storing == Storing::Never {
            return Ok(Vec::new());
        }
        let life = self.state.longest_life() + self.state.policy.load_timeout + TOKEN_MARGIN;
        self.tags.take(self.cache.backend().await?, life).await
    }

    fn hold(&self, wanted: &[Wanted]) -> Option<Lease> {
        let policy = &self.state.policy;
        let ttl = policy.lease?;
        let held = wanted.iter().filter_map(|wanted| {
            let token = wanted.permit.as_ref()?.lease()?.to_vec();
            Some(Token { key: self.keys.get(wanted.place)?.clone(), token })
        });
        let held: Vec<_> = held.collect();
        (!held.is_empty()).then(|| Lease::hold_many(&self.cache, held, ttl, policy.load_timeout))
    }

    async fn load(
        &self,
        loading: impl Future<Output = std::result::Result<Answers, Failure>> + Send,
    ) -> Result<Answers> {
        let policy = &self.state.policy;
        match timeouts::hard(policy.load_timeout, loading).await {
            Some(Ok(answers)) => Ok(answers),
            Some(Err(source)) => Err(Error::loader(&policy.name, source)),
            None => Err(Error::load_timeout(&policy.name, policy.load_timeout)),
        }
    }

    /// One load to those who count; an event for each key to those who listen.
    fn count_load(&self, wanted: &[Wanted], began: Instant, succeeded: bool) {
        let (elapsed, counters) = (began.elapsed(), &self.state.counters);
        stats::count(&counters.loads);
        stats::add(&counters.load_nanos, u64::try_from(elapsed.as_nanos()).unwrap_or(u64::MAX));
        if !succeeded {
            stats::count(&counters.load_failures);
        }
        for key in wanted.iter().filter_map(|wanted| self.keys.get(wanted.place)) {
            let (region, key) = (self.name(), key_text(key));
            self.cache.event(|| Event::Load { region, key, elapsed, succeeded });
        }
    }

    /// Stores what may be stored, and lands it all.
    async fn fill(&self, wanted: Vec<Wanted>, answers: Answers, load: Load, landing: &Landing) {
        let began = load.began;
        let mut loaded = Vec::with_capacity(wanted.len());
        let mut permits = Vec::with_capacity(wanted.len());
        for (Wanted { place, permit }, answer) in wanted.into_iter().zip(answers) {
            match answer {
                Ok(bytes) => {
                    loaded.push((place, bytes));
                    permits.push(permit);
                }
                Err(error) => landing.land(place, Err(error)),
            }
        }
        let currencies = self.fill_all(&loaded, permits, load).await;
        for ((place, bytes), currency) in loaded.into_iter().zip(currencies) {
            let age = Age::AtMost(began.elapsed());
            landing.land(place, Ok(Landed::now(bytes, Source::Loader, age, currency)));
        }
    }

    async fn fill_all(
        &self,
        loaded: &[(usize, Bytes)],
        permits: Vec<Option<Permit>>,
        mut load: Load,
    ) -> Vec<Currency> {
        let keys = || loaded.iter().filter_map(|(place, _)| self.keys.get(*place));
        // Whatever comes of it: the next read of this process must not find what was near before.
        let _drops = self.cache.drops_near(keys().map(|key| key.key.as_slice()));
        let without_token = match self.storing {
            // Nobody can tell whether the keys have changed meanwhile.
            Storing::Never => Currency::MayBeOvertaken,
            // The backend is in trouble, which must not make a load for each reader.
            Storing::IfCurrent | Storing::IfMissing => Currency::Current,
        };
        let mut currencies = vec![without_token; loaded.len()];
        let taken = match &load.taken {
            Ok(taken) => taken,
            Err(error) => {
                stats::count(&self.state.counters.backend_errors);
                tracing::debug!(region = %self.state.policy.name, %error, "no tag tokens; values are not stored");
                return currencies;
            }
        };
        let mut prepared = Vec::with_capacity(loaded.len());
        for ((((_, bytes), key), permit), currency) in
            loaded.iter().zip(keys()).zip(permits).zip(&mut currencies)
        {
            let Some(permit) = permit else { continue };
            if self.storing == Storing::IfMissing && permit.found().is_some() {
                *currency = Currency::MayBeOvertaken;
                continue;
            }
            let ttl = self.state.ttl_for(bytes);
            match self.in_stored_form(key, bytes, ttl, load.took, taken) {
                Ok(stored) => prepared.push((currency, key, Some(permit), stored, ttl)),
                Err(error) => *currency = self.settled(key, Err(error), true, load.began),
            }
        }
        if prepared.is_empty() {
            return currencies;
        }
        let mut filled = Vec::with_capacity(prepared.len());
        let mut fillings = Vec::with_capacity(prepared.len());
        let rules = Rules::of(&self.state.policy);
        for (currency, key, permit, stored, ttl) in &mut prepared {
            let Some(permit) = permit.take() else { continue };
            filled.push((currency, *key, ttl.is_some()));
            let rest = ttl.and_then(|ttl| rules?.rest(ttl.as_duration()));
            fillings.push(Filling { key, permit, value: self.state.stored(stored), ttl: *ttl, rest });
        }
        let backend = self.cache.backend().await;
        let sent = Instant::now();
        let outcomes = match &backend {
            Ok(backend) => fill_token::fill_many(backend, fillings, load.began).await,
            Err(error) => filled.iter().map(|_| Err(error.clone())).collect(),
        };
        let stand = match backend {
            Ok(backend) if !taken.is_empty() => self.cache.tags_stand(backend, &self.tags, taken).await,
            _ => true,
        };
        let mut over = HashSet::new();
        for ((currency, key, is_kept), outcome) in filled.into_iter().zip(outcomes) {
            if let Ok(Fill::Stored | Fill::Refused) = outcome {
                over.insert(key);
            }
            **currency = match self.settled(key, outcome, is_kept, sent) {
                Currency::AsOf(_) if !stand => Currency::MayBeOvertaken,
                currency => currency,
            };
        }
        if let Some(lease) = &mut load.lease {
            lease.is_over_for(&over);
        }
        currencies
    }

    /// A value as it is stored; of a framed region but for the time.
    fn in_stored_form<'a>(
        &self,
        key: &CachedKey,
        bytes: &'a [u8],
        ttl: Option<Ttl>,
        load_time: Duration,
        tags: &[(Tag, TagToken)],
    ) -> Result<Cow<'a, [u8]>> {
        match ttl.filter(|_| self.state.policy.framing.is_some()) {
            Some(ttl) => {
                let clock = self.cache.run_of(&key.key);
                Ok(Cow::Owned(self.state.finish(bytes, Final { ttl, load_time, clock, tags })?))
            }
            None => Ok(Cow::Borrowed(bytes)),
        }
    }

    /// Counts how a fill ended, and says what that makes of its value.
    fn settled(&self, key: &CachedKey, outcome: Result<Fill>, is_kept: bool, sent: Instant) -> Currency {
        let counters = &self.state.counters;
        match outcome {
            Ok(Fill::Stored) => stats::count(&counters.fills_stored),
            Ok(Fill::Refused) => {
                stats::count(&counters.fills_refused);
                self.cache.event(|| Event::FillRefused { region: self.name(), key: key_text(key) });
                return Currency::MayBeOvertaken;
            }
            Ok(Fill::TooLate) if is_kept => stats::count(&counters.fills_too_late),
            Ok(Fill::TooLate) => {}
            Err(error) => {
                stats::count(&counters.fills_failed);
                stats::count(&counters.backend_errors);
                tracing::debug!(region = %self.state.policy.name, %error, "a loaded value was not stored");
                return Currency::after(&error);
            }
        }
        Currency::AsOf(sent)
    }
}

fn key_text(key: &CachedKey) -> Cow<'_, str> {
    String::from_utf8_lossy(&key.key)
}

/// The outcome of this, while those go on.
async fn beside<T>(
    those: &mut FuturesUnordered<impl Future<Output = ()> + Send>,
    this: impl Future<Output = T> + Send,
) -> T {
    let mut this = pin!(this);
    loop {
        tokio::select! {
            outcome = &mut this => return outcome,
            Some(()) = those.next(), if !those.is_empty() => {}
        }
    }
}
