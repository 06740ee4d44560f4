//! The one load of a batch: what the flights of its keys share.
//!
//! Invariants: a key whose token could not be had, or is lost, costs only its own fill; one that another process loads is waited for beside
//! the load of the others, and lands by itself; no lease outlives the load that it was taken for. Deliberately absent: single loads,
//! which are `read_through.rs`'.

use std::collections::HashMap;
use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::pin::pin;
use std::time::Duration;

use futures_util::future::join_all;
use futures_util::stream::FuturesUnordered;
use futures_util::{FutureExt, StreamExt};
use tokio::sync::SemaphorePermit;

use super::loader::Failure;
use super::look::FRAME_STEP;
use crate::backend::{Bytes, CachedKey};
use crate::error::Result;
use crate::fill_token::{self, Begun, Permit, Present, Sharing, Suffices};
use crate::framed::Standing;
use crate::lease::Patience;
use crate::load::{Errand, Storing};
use crate::loader::{Brought, Life};
use crate::near::Ticket;
use crate::read::{Age, Source};
use crate::single_flight::{Landed, Landing};
use crate::terms::{Arrival, Ended, Terms};

/// The stored form of what a loader has for each id that it was asked for.
pub(super) type Answers = Vec<Result<Brought>>;
/// Places of keys among a load's, each with what was known of it before, as it is stored.
pub(super) type Wishes = Vec<(usize, Option<Bytes>)>;

/// The answers for these keys, each with what was known of it, among what a loader has brought; `none` for those that it left out.
pub(super) fn answers_of<'a, V>(
    brought: Vec<(String, V)>,
    keys: impl Iterator<Item = (&'a String, Option<&'a [u8]>)>,
    none: &Result<Bytes>,
    stored: impl Fn(V, Option<&[u8]>) -> Result<Brought>,
) -> Answers {
    let places: HashMap<&str, (usize, Option<&[u8]>)> =
        keys.enumerate().map(|(place, (key, previous))| (key.as_str(), (place, previous))).collect();
    let none = none.clone().map(|bytes| Brought { bytes, life: Life::OfRegion });
    let mut answers: Answers = places.iter().map(|_| none.clone()).collect();
    for (key, value) in brought {
        let Some((place, previous)) = places.get(key.as_str()) else { continue };
        if let Some(answer) = answers.get_mut(*place) {
            *answer = stored(value, *previous);
        }
    }
    answers
}

pub(super) struct BatchLoad {
    pub(super) terms: Terms,
    /// Each key, and for whom it is loaded: all in the background, or none.
    pub(super) keys: Vec<(CachedKey, Errand)>,
    /// Whether bytes are an answer to these readers, be it that the source has none.
    pub(super) decodes: Box<dyn Fn(&[u8]) -> bool + Send + Sync>,
    /// Whether they are a value of which the loader is to be told; none if it does not ask.
    pub(super) is_told: Option<Box<dyn Fn(&[u8]) -> bool + Send + Sync>>,
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

/// What was there already, and for how long it is to be left alone, if it is.
struct Found {
    place: usize,
    present: Present,
    rest: Option<Duration>,
}

impl BatchLoad {
    /// Lands each key with what there is, or what the loader gives. That is given the places of those keys that nobody has stored meanwhile,
    /// and again of those that another process was to load and did not.
    pub(super) async fn run<F, Fut>(self, loader: F, landing: Landing)
    where
        F: Fn(Wishes) -> Fut + Send + Sync,
        Fut: Future<Output = std::result::Result<Answers, Failure>> + Send,
    {
        let terms = &self.terms;
        let book = terms.cache.tag_book();
        // Before the tokens are taken: an invalidation of a tag from here on finds this load.
        let carrying = self.keys.iter().filter(|_| !terms.tags.is_empty());
        let _loading: Vec<_> = carrying.map(|(key, _)| book.loading(&key.key, &terms.tags)).collect();
        let tickets: Vec<_> = self.keys.iter().map(|(key, _)| terms.ticket(key)).collect();
        let mut loads = FuturesUnordered::new();
        let mut open: Vec<usize> = (0..self.keys.len()).collect();
        let mut patience: Option<Patience> = None;
        while !open.is_empty() {
            // The place first, as for a single load.
            let place = match beside(&mut loads, terms.place()).await {
                Ok(place) => place,
                Err(error) => {
                    for place in open {
                        self.land(&landing, place, Err(error.clone()));
                    }
                    break;
                }
            };
            let entered = beside(&mut loads, self.begin(&open, patience.as_ref(), &landing)).await;
            if entered.wanted.is_empty() {
                drop(place);
            } else {
                loads.push(self.load_apart(place, entered.wanted, &tickets, &loader, &landing));
            }
            open = entered.held;
            if !open.is_empty() {
                let patience =
                    patience.get_or_insert_with(|| terms.patience(self.errand(), self.keys_at(&open)));
                beside(&mut loads, patience.pause(entered.left)).await;
            }
        }
        while loads.next().await.is_some() {}
    }

    /// For whom all of it is, as far as that is the same for all.
    fn errand(&self) -> Errand {
        self.keys.first().map_or(Errand::Readers, |(_, errand)| *errand)
    }

    fn keys_at<'a>(
        &'a self,
        places: impl IntoIterator<Item = &'a usize>,
    ) -> impl Iterator<Item = &'a CachedKey> {
        places.into_iter().filter_map(|place| self.keys.get(*place)).map(|(key, _)| key)
    }

    fn land(&self, landing: &Landing, place: usize, landed: Result<Landed>) {
        if landed.is_err() {
            self.failed(place);
        }
        landing.land(place, landed);
    }

    /// What failed in the background is not tried again by the next read.
    fn failed(&self, place: usize) {
        if let Some((key, Errand::Revalidate | Errand::Ahead { .. })) = self.keys.get(place) {
            self.terms.pause(key);
        }
    }

    /// The second look and the tokens. What is there lands.
    async fn begin(&self, open: &[usize], patience: Option<&Patience>, landing: &Landing) -> Entered {
        let mut entered = Entered { left: Duration::MAX, ..Entered::default() };
        if self.terms.storing == Storing::Never {
            entered.wanted.extend(open.iter().map(|place| Wanted { place: *place, permit: None }));
            return entered;
        }
        let sharing = self.terms.sharing(self.errand(), patience);
        let suffices = |errand| self.terms.suffices(errand);
        let found = self.enter(open, suffices, sharing, &mut entered).await;
        let mut will_do = Vec::with_capacity(found.len());
        for step in found.chunks(FRAME_STEP) {
            will_do.extend(join_all(step.iter().map(|found| self.will_do(found))).await);
        }
        let mut unfit = Vec::new();
        for (Found { place, present, rest }, will_do) in found.into_iter().zip(will_do) {
            match self.keys.get(place).filter(|_| will_do) {
                Some((key, _)) => {
                    if let Some(rest) = rest {
                        self.terms.rest(key, rest);
                    }
                    self.land(landing, place, Ok(self.terms.found(key, present)));
                }
                None => unfit.push(place),
            }
        }
        if !unfit.is_empty() {
            let found = self.enter(&unfit, |_| Suffices::Nothing, sharing, &mut entered).await;
            entered.wanted.extend(found.into_iter().map(|found| Wanted { place: found.place, permit: None }));
        }
        entered
    }

    /// Whether what was found is a value for this reader.
    async fn will_do(&self, found: &Found) -> bool {
        let Present { bytes, left, .. } = &found.present;
        (self.decodes)(bytes)
            && self.terms.cache.stands(bytes, *left).await.is_ok_and(|standing| standing == Standing::Fresh)
    }

    /// Begins with these keys; returns what was found.
    async fn enter(
        &self,
        places: &[usize],
        suffices: impl Fn(Errand) -> Suffices,
        sharing: Sharing,
        entered: &mut Entered,
    ) -> Vec<Found> {
        let terms = &self.terms;
        let keys = places.iter().filter_map(|place| self.keys.get(*place));
        let keys: Vec<_> = keys.map(|(key, errand)| (key, suffices(*errand))).collect();
        let begun = match terms.cache.backend().await {
            Ok(backend) => {
                fill_token::begin_many(backend, &keys, terms.token_ttl(self.errand(), sharing), sharing).await
            }
            Err(error) => keys.iter().map(|_| Err(error.clone())).collect(),
        };
        let mut found = Vec::new();
        for (place, begun) in places.iter().copied().zip(begun) {
            match begun {
                Ok(Begun::Found(present)) => found.push(Found { place, present, rest: None }),
                Ok(Begun::Rests(present, rest)) => found.push(Found { place, present, rest: Some(rest) }),
                Ok(Begun::Load(permit)) => entered.wanted.push(Wanted { place, permit: Some(permit) }),
                Ok(Begun::Held(left)) => {
                    entered.left = entered.left.min(left);
                    entered.held.push(place);
                }
                Err(error) => {
                    terms.no_token(&error);
                    entered.wanted.push(Wanted { place, permit: None });
                }
            }
        }
        found
    }

    /// What the loader is asked for.
    async fn wishes(&self, wanted: &[Wanted]) -> Wishes {
        let Some(is_told) = &self.is_told else {
            return wanted.iter().map(|wanted| (wanted.place, None)).collect();
        };
        let mut wishes = Vec::with_capacity(wanted.len());
        for step in wanted.chunks(FRAME_STEP) {
            let step = step.iter().map(async |Wanted { place, permit }| {
                let Some((key, _)) = self.keys.get(*place) else { return (*place, None) };
                (*place, self.terms.previous(key, permit.as_ref(), is_told).await)
            });
            wishes.extend(join_all(step).await);
        }
        wishes
    }

    /// One call of the loader, and what becomes of it. If it panics, that is a matter of its own keys.
    async fn load_apart<F, Fut>(
        &self,
        place: SemaphorePermit<'_>,
        wanted: Vec<Wanted>,
        tickets: &[Option<Ticket>],
        loader: &F,
        landing: &Landing,
    ) where
        F: Fn(Wishes) -> Fut + Send + Sync,
        Fut: Future<Output = std::result::Result<Answers, Failure>> + Send,
    {
        let places: Vec<usize> = wanted.iter().map(|wanted| wanted.place).collect();
        let load = AssertUnwindSafe(self.load_some(place, wanted, tickets, loader, landing));
        if load.catch_unwind().await.is_err() {
            for place in places {
                self.failed(place);
                landing.panicked(place);
            }
        }
    }

    /// One call of the loader.
    async fn load_some<F, Fut>(
        &self,
        place: SemaphorePermit<'_>,
        wanted: Vec<Wanted>,
        tickets: &[Option<Ticket>],
        loader: &F,
        landing: &Landing,
    ) where
        F: Fn(Wishes) -> Fut + Send + Sync,
        Fut: Future<Output = std::result::Result<Answers, Failure>> + Send,
    {
        let terms = &self.terms;
        let permits = wanted
            .iter()
            .filter_map(|Wanted { place, permit }| Some((&self.keys.get(*place)?.0, permit.as_ref()?)));
        let may_store = wanted.iter().any(|wanted| wanted.permit.is_some());
        let lease = terms.hold(self.errand(), permits);
        let taken = if may_store { terms.take_tags().await } else { Ok(Vec::new()) };
        let places: Vec<usize> = wanted.iter().map(|wanted| wanted.place).collect();
        let wishes = self.wishes(&wanted).await;
        let call = terms.calling(self.keys_at(&places));
        let began = call.began;
        let outcome = terms.in_time(loader(wishes)).await;
        drop(place);
        let answer = |place| outcome.as_ref().ok()?.get(place);
        let took = call.ended(|place| answer(place).is_some_and(Result::is_ok));
        let answers = match outcome {
            Ok(answers) => answers,
            Err(error) => {
                for place in places {
                    self.land(landing, place, Err(error.clone()));
                }
                return;
            }
        };
        let mut brought = Vec::with_capacity(wanted.len());
        let mut permits = Vec::with_capacity(wanted.len());
        for (Wanted { place, permit }, answer) in wanted.into_iter().zip(answers) {
            match answer {
                Ok(answer) => {
                    brought.push((place, answer));
                    permits.push(permit);
                }
                Err(error) => self.land(landing, place, Err(error)),
            }
        }
        let (mut arrivals, mut ends) = (Vec::with_capacity(brought.len()), Vec::with_capacity(brought.len()));
        for ((place, Brought { bytes, life }), permit) in brought.iter().zip(permits) {
            let Some((key, _)) = self.keys.get(*place) else { continue };
            let (ttl, ticket) = (terms.state.ttl_of(bytes, *life), tickets.get(*place).copied().flatten());
            ends.push(ttl.and_then(|ttl| began.checked_add(ttl.as_duration())));
            arrivals.push(Arrival { key, bytes, ttl, ticket, permit });
        }
        let currencies = terms.store(arrivals, Ended { began, took, taken, lease }).await;
        for (((place, Brought { bytes, .. }), currency), until) in
            brought.into_iter().zip(currencies).zip(ends)
        {
            let age = Age::AtMost(began.elapsed());
            self.land(landing, place, Ok(Landed::now(bytes, Source::Loader, age, currency).until(until)));
        }
    }
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
