//! The one load of a batch: what the flights of its keys share.
//!
//! Invariant: a key whose token could not be had, or is lost, costs only its own fill. Deliberately absent: single loads, which are
//! `read_through.rs`'.

use std::borrow::Cow;
use std::collections::HashMap;
use std::future::Future;
use std::sync::Arc;
use std::time::Instant;

use serde::Serialize;

use crate::backend::{Bytes, CachedKey};
use crate::cache::Cache;
use crate::codec;
use crate::error::{Error, Result};
use crate::events::Event;
use crate::fill_token::{self, Begun, Fill, Filling, Permit, Stored, Suffices, TOKEN_MARGIN};
use crate::keys::{self, KeyParts};
use crate::read::{Age, ReadOptions, Source};
use crate::read_through::Storing;
use crate::region::RegionState;
use crate::single_flight::{Currency, Landed};
use crate::stats;
use crate::timeouts;

type Failure = Box<dyn std::error::Error + Send + Sync>;

/// The stored form of what a loader has for each id that it was asked for.
pub(super) type Answers = Vec<Result<Bytes>>;

/// The answers for these keys among a loader's pairs of id and value; for those that it left out, that there is none.
pub(super) fn answers_of<'a, A: KeyParts, T: Serialize>(
    pairs: impl IntoIterator<Item = (A, T)>,
    keys: impl Iterator<Item = &'a String>,
    base: &str,
) -> Answers {
    let places: HashMap<&str, usize> = keys.map(String::as_str).zip(0..).collect();
    let mut answers: Answers = places.iter().map(|_| Ok(codec::NULL.to_vec())).collect();
    for (id, value) in pairs {
        let place = keys::join(base, &id).ok().and_then(|key| places.get(key.as_str()).copied());
        if let Some(answer) = place.and_then(|place| answers.get_mut(place)) {
            *answer = codec::encode(&value);
        }
    }
    answers
}

pub(super) struct BatchLoad {
    pub(super) cache: Cache,
    pub(super) state: Arc<RegionState>,
    pub(super) keys: Vec<CachedKey>,
    pub(super) options: ReadOptions,
    pub(super) storing: Storing,
    pub(super) decodes: fn(&[u8]) -> bool,
}

/// A key that is to be loaded: its place among the load's keys, and the right to store it, if that was to be had.
struct Wanted {
    place: usize,
    permit: Option<Permit>,
}

impl BatchLoad {
    /// What there is for each key. The loader is given the places of those keys that nobody has stored meanwhile.
    pub(super) async fn run<F, Fut>(self, loader: F) -> Vec<Result<Landed>>
    where
        F: FnOnce(Vec<usize>) -> Fut + Send,
        Fut: Future<Output = std::result::Result<Answers, Failure>> + Send,
    {
        let counters = &self.state.counters;
        let place = match self.state.limit.place(&self.state.policy.name).await {
            Ok(place) => place,
            Err(error) => {
                stats::count(&counters.loads_shed);
                return self.keys.iter().map(|_| Err(error.clone())).collect();
            }
        };
        let mut landed: Vec<Option<Result<Landed>>> = self.keys.iter().map(|_| None).collect();
        let wanted = self.begin(&mut landed).await;
        if !wanted.is_empty() {
            let began = Instant::now();
            let outcome = self.load(loader(wanted.iter().map(|wanted| wanted.place).collect())).await;
            drop(place);
            self.count_load(&wanted, began, outcome.is_ok());
            match outcome {
                Ok(answers) => self.fill(wanted, answers, began, &mut landed).await,
                Err(error) => {
                    for Wanted { place, .. } in wanted {
                        put(&mut landed, place, Err(error.clone()));
                    }
                }
            }
        }
        let missing = || Err(Error::protocol("a batch left out a key"));
        landed.into_iter().map(|landed| landed.unwrap_or_else(missing)).collect()
    }

    fn name(&self) -> Cow<'_, str> {
        Cow::Borrowed(&self.state.policy.name)
    }

    /// The second look and the tokens. What is there has landed; the rest is to be loaded.
    async fn begin(&self, landed: &mut [Option<Result<Landed>>]) -> Vec<Wanted> {
        if self.storing == Storing::Never {
            return (0..self.keys.len()).map(|place| Wanted { place, permit: None }).collect();
        }
        let suffices = match self.options.max_age {
            Some(max_age) => Suffices::Within { ttl: self.state.policy.ttl, max_age },
            None => Suffices::Any,
        };
        let mut unreadable = Vec::new();
        let mut wanted = Vec::new();
        let all: Vec<usize> = (0..self.keys.len()).collect();
        for (place, begun) in self.begin_some(&all, suffices).await {
            match begun {
                Some(Begun::Found(bytes, left)) if (self.decodes)(&bytes) => {
                    let age = self.state.age(&bytes, left);
                    put(
                        landed,
                        place,
                        Ok(Landed::now(bytes, Source::Backend, age, Currency::MayBeOvertaken)),
                    );
                }
                Some(Begun::Found(..)) => unreadable.push(place),
                Some(Begun::Load(permit)) => wanted.push(Wanted { place, permit: Some(permit) }),
                // Nobody is waited for in a batch.
                Some(Begun::Held(_)) | None => wanted.push(Wanted { place, permit: None }),
            }
        }
        if !unreadable.is_empty() {
            for (place, begun) in self.begin_some(&unreadable, Suffices::Nothing).await {
                let permit = match begun {
                    Some(Begun::Load(permit)) => Some(permit),
                    _ => None,
                };
                wanted.push(Wanted { place, permit });
            }
        }
        wanted
    }

    async fn begin_some(&self, places: &[usize], suffices: Suffices) -> Vec<(usize, Option<Begun>)> {
        let failed = |error: &Error| {
            stats::count(&self.state.counters.backend_errors);
            tracing::debug!(region = %self.state.policy.name, %error, "no fill token; a value will not be stored");
        };
        let keys = places.iter().filter_map(|place| self.keys.get(*place));
        let token_ttl = self.state.policy.load_timeout + TOKEN_MARGIN;
        let begun = match self.cache.backend().await {
            Ok(backend) => fill_token::begin_many(backend, keys, token_ttl, suffices).await,
            Err(error) => Err(error),
        };
        match begun {
            Ok(begun) => {
                let begun = begun.into_iter().map(|begun| begun.inspect_err(failed).ok());
                places.iter().copied().zip(begun).collect()
            }
            Err(error) => {
                failed(&error);
                places.iter().map(|place| (*place, None)).collect()
            }
        }
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
    async fn fill(
        &self,
        wanted: Vec<Wanted>,
        answers: Answers,
        began: Instant,
        landed: &mut [Option<Result<Landed>>],
    ) {
        let mut loaded = Vec::with_capacity(wanted.len());
        let mut permits = Vec::with_capacity(wanted.len());
        for (Wanted { place, permit }, answer) in wanted.into_iter().zip(answers) {
            match answer {
                Ok(bytes) => {
                    loaded.push((place, bytes));
                    permits.push(permit);
                }
                Err(error) => put(landed, place, Err(error)),
            }
        }
        let currencies = self.fill_all(&loaded, permits, began).await;
        for ((place, bytes), currency) in loaded.into_iter().zip(currencies) {
            let age = Age::AtMost(began.elapsed());
            put(landed, place, Ok(Landed::now(bytes, Source::Loader, age, currency)));
        }
    }

    async fn fill_all(
        &self,
        loaded: &[(usize, Bytes)],
        permits: Vec<Option<Permit>>,
        began: Instant,
    ) -> Vec<Currency> {
        let keys = || loaded.iter().filter_map(|(place, _)| self.keys.get(*place));
        // Whatever comes of it: the next read of this process must not find what was near before.
        let _drops = self.cache.drops_near(keys().map(|key| key.key.as_slice()));
        let without_token = match self.storing {
            // Nobody can tell whether the keys have changed meanwhile.
            Storing::Never => Currency::MayBeOvertaken,
            // The backend is in trouble, which must not make a load for each reader.
            Storing::IfCurrent => Currency::Current,
        };
        let mut currencies = vec![without_token; loaded.len()];
        let mut fillings = Vec::with_capacity(loaded.len());
        let mut filled = Vec::with_capacity(loaded.len());
        for (((n, (_, bytes)), key), permit) in loaded.iter().enumerate().zip(keys()).zip(permits) {
            if let Some(permit) = permit {
                let ttl = self.state.ttl_for(bytes);
                filled.push((n, key, ttl.is_some()));
                fillings.push(Filling { key, permit, value: Stored::Plain(bytes), ttl });
            }
        }
        if fillings.is_empty() {
            return currencies;
        }
        let backend = self.cache.backend().await;
        let sent = Instant::now();
        let outcomes = match backend {
            Ok(backend) => fill_token::fill_many(backend, fillings, began).await,
            Err(error) => Err(error),
        };
        let outcomes = outcomes.unwrap_or_else(|error| filled.iter().map(|_| Err(error.clone())).collect());
        for ((n, key, is_kept), outcome) in filled.into_iter().zip(outcomes) {
            if let Some(currency) = currencies.get_mut(n) {
                *currency = self.settled(key, outcome, is_kept, sent);
            }
        }
        currencies
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

fn put(landed: &mut [Option<Result<Landed>>], place: usize, outcome: Result<Landed>) {
    if let Some(landed) = landed.get_mut(place) {
        *landed = Some(outcome);
    }
}
