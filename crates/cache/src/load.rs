//! One load: what a flight does.
//!
//! A place among the region's loads, second look and fill token in one step, loader under its timeout, fill. Invariants: a token's life is
//! not spent waiting for a place, and a place is not held while another process loads; whatever becomes of the fill, the value is for
//! those who asked. Deliberately absent: who waits for it (`single_flight.rs`).

use std::time::Duration;

use serde::de::DeserializeOwned;
use tokio::sync::SemaphorePermit;

use crate::backend::CachedKey;
use crate::error::Result;
use crate::fill_token::{self, Begun, Present, Suffices};
use crate::framed::Standing;
use crate::lease::Patience;
use crate::loader::{Brought, Loader};
use crate::read::{Age, Source};
use crate::refresh::Due;
use crate::region::Region;
use crate::single_flight::{Currency, Landed};
use crate::terms::{Arrival, Ended, Terms};

/// What becomes of a loaded value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Storing {
    /// It is stored if nothing came in between.
    IfCurrent,
    /// It is stored if nothing was there and nothing came in between; what is there is never the answer.
    IfMissing,
    /// It is only given to those who asked.
    Never,
}

/// One load.
pub(crate) struct Load<T> {
    pub(crate) region: Region<T>,
    pub(crate) terms: Terms,
    pub(crate) key: CachedKey,
    pub(crate) errand: Errand,
}

/// For whom a load is made.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Errand {
    /// For those who wait for it.
    Readers,
    /// For the next, in place of what is past its TTL.
    Revalidate,
    /// For the next, ahead of time: of what was seen, so much was left.
    Ahead { seen_left: Duration, max_age: Duration, due: Due },
}

impl Errand {
    /// What was left of the life of what is to be replaced.
    pub(crate) fn left(self) -> Duration {
        match self {
            Self::Ahead { seen_left, .. } => seen_left,
            Self::Readers | Self::Revalidate => Duration::ZERO,
        }
    }
}

impl<T: DeserializeOwned> Load<T> {
    pub(crate) async fn run<L: Loader<T>>(self, loader: L) -> Result<Landed> {
        let Self { region, terms, key, errand } = &self;
        // Before the tokens are taken: an invalidation of a tag from here on finds this load.
        let _loading = terms.cache.tag_book().loading(&key.key, &terms.tags);
        let ticket = terms.ticket(key);
        let (place, entered) = self.enter().await?;
        let permit = match entered {
            Some(Begun::Found(present)) => return Ok(terms.found(key, present)),
            Some(Begun::Rests(present, rest)) => {
                terms.rest(key, rest);
                return Ok(terms.found(key, present));
            }
            Some(Begun::Load(permit)) => Some(permit),
            // A lease that is not to be had in time is as good as no token.
            Some(Begun::Held(_)) | None => None,
        };
        let lease = terms.hold(*errand, permit.iter().map(|permit| (key, permit)));
        let taken = if permit.is_some() { terms.take_tags().await } else { Ok(Vec::new()) };
        let is_value = |bytes: &[u8]| region.is_value(bytes);
        let previous = if L::ASKS { terms.previous(key, permit.as_ref(), is_value).await } else { None };
        let call = terms.calling([key]);
        let began = call.began;
        let brought = terms.in_time(loader.bring(region.clone(), previous)).await.flatten();
        drop(place);
        let took = call.ended(|_| brought.is_ok());
        let Brought { bytes, life } = brought?;
        let ttl = terms.state.ttl_of(&bytes, life);
        let arrival = Arrival { key, bytes: &bytes, ttl, ticket, permit };
        let currencies = terms.store(vec![arrival], Ended { began, took, taken, lease }).await;
        let currency = currencies.first().copied().unwrap_or(Currency::MayBeOvertaken);
        let until = ttl.and_then(|ttl| began.checked_add(ttl.as_duration()));
        Ok(Landed::now(bytes, Source::Loader, Age::AtMost(began.elapsed()), currency).until(until))
    }

    /// A place among the region's loads, and then what the backend says, if it is asked and says something; waits while another process holds the
    /// lease.
    async fn enter(&self) -> Result<(SemaphorePermit<'_>, Option<Begun>)> {
        let terms = &self.terms;
        let mut patience: Option<Patience> = None;
        loop {
            // The place first: the second look is worth most after the wait, and a token's life must not be spent waiting.
            let place = terms.place().await?;
            if terms.storing == Storing::Never {
                return Ok((place, None));
            }
            match self.begin(patience.as_ref()).await {
                Ok(Begun::Held(left)) => {
                    // Who waits does not load.
                    drop(place);
                    patience
                        .get_or_insert_with(|| terms.patience(self.errand, [&self.key]))
                        .pause(left)
                        .await;
                }
                Ok(begun) => return Ok((place, Some(begun))),
                Err(error) => {
                    terms.no_token(&error);
                    return Ok((place, None));
                }
            }
        }
    }

    async fn begin(&self, patience: Option<&Patience>) -> Result<Begun> {
        let Self { region, terms, key, errand } = self;
        let sharing = terms.sharing(*errand, patience);
        let token_ttl = terms.token_ttl(*errand, sharing);
        let backend = terms.cache.backend().await?;
        match fill_token::begin(backend, key, token_ttl, terms.suffices(*errand), sharing).await? {
            // There is a value, but not for this reader: unreadable, or "there is none" to a type that has no place for it.
            Begun::Found(Present { bytes, left, .. }) | Begun::Rests(Present { bytes, left, .. }, _)
                if !region.is_value(&bytes) || terms.cache.stands(&bytes, left).await? != Standing::Fresh =>
            {
                fill_token::begin(backend, key, token_ttl, Suffices::Nothing, sharing).await
            }
            begun => Ok(begun),
        }
    }
}
