//! One load: what a flight does.
//!
//! A place among the region's loads, second look and fill token in one step, loader under its timeout, fill. Invariants: a token's life is
//! not spent waiting for a place, and a place is not held while another process loads; whatever becomes of the fill, the value is for
//! those who asked. Deliberately absent: who waits for it (`single_flight.rs`).
use std::borrow::Cow;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde::de::DeserializeOwned;
use tokio::sync::SemaphorePermit;

use crate::backend::{Bytes, CachedKey};
use crate::cache::Cache;
use crate::codec;
use crate::control::RegionMode;
use crate::error::{Error, Result};
use crate::events::{Event, RemovalCause};
use crate::fail_safe;
use crate::fill_token::{self, Begun, Fill, Permit, Sharing, Suffices, TOKEN_MARGIN};
use crate::framed::{Final, Standing};
use crate::lease::{LEASE_TTL, Lease, Patience};
use crate::loader::{Brought, Loader};
use crate::metrics;
use crate::near::Ticket;
use crate::read::{Age, ReadOptions, Source};
use crate::refresh::{Due, Rules};
use crate::region::{Region, RegionState};
use crate::single_flight::{Currency, Landed};
use crate::stats;
use crate::tags::{Tag, TagToken, Tags};
use crate::timeouts;
use crate::ttl::Ttl;

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
    pub(crate) key: CachedKey,
    pub(crate) options: ReadOptions,
    pub(crate) storing: Storing,
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

impl<T: DeserializeOwned> Load<T> {
    fn cache(&self) -> &Cache {
        &self.region.cache
    }

    fn state(&self) -> &Arc<RegionState> {
        &self.region.state
    }

    /// What the value will carry.
    fn tags(&self) -> &Arc<Tags> {
        &self.region.view.tags
    }

    pub(crate) async fn run<L: Loader<T>>(self, loader: L) -> Result<Landed> {
        // Before the tokens are taken: an invalidation of a tag from here on finds this load.
        let _loading = self.cache().tag_book().loading(&self.key.key, self.tags());
        // Before the loader runs too: what is told from here on, or done by this process, is about what it brings.
        let ticket =
            if self.state().remembers() { self.cache().near().begin_unheard(&self.key_text()) } else { None };
        let (place, entered) = self.enter().await?;
        let permit = match entered {
            Ok(Some(Begun::Found(bytes, left))) => {
                let age = self.state().age_on(&bytes, left, self.cache().run_of(&self.key.key));
                return Ok(Landed::now(bytes, Source::Backend, age, Currency::MayBeOvertaken));
            }
            Ok(Some(Begun::Rests(bytes, left, rest))) => {
                self.state().refreshes.rest(&self.key_text(), rest);
                let age = self.state().age_on(&bytes, left, self.cache().run_of(&self.key.key));
                return Ok(Landed::now(bytes, Source::Backend, age, Currency::MayBeOvertaken));
            }
            Ok(Some(Begun::Load(permit))) => Some(permit),
            // A lease that is not to be had in time is as good as no token.
            Ok(Some(Begun::Held(_)) | None) => None,
            Err(error) => {
                stats::count(&self.state().counters.backend_errors);
                tracing::debug!(region = %self.state().policy.name, %error, "no fill token; the value will not be stored");
                None
            }
        };
        let lease = self.hold(permit.as_ref());
        // Before the loader runs, so that an invalidation during the load invalidates what it stores.
        let taken = match &permit {
            Some(_) => self.take_tags().await,
            None => Ok(Vec::new()),
        };
        let previous = if L::ASKS { self.previous(permit.as_ref()).await } else { None };
        let began = Instant::now();
        let outcome = self.load(loader, previous).await;
        drop(place);
        let elapsed = began.elapsed();
        if self.cache().reports_metrics() {
            metrics::load_took(&self.state().policy.name, elapsed.as_secs_f64());
        }
        let counters = &self.state().counters;
        stats::count(&counters.loads);
        stats::add(&counters.load_nanos, u64::try_from(elapsed.as_nanos()).unwrap_or(u64::MAX));
        if outcome.is_ok() {
            self.state().refreshes.loaded_in(elapsed);
        } else {
            stats::count(&counters.load_failures);
        }
        self.cache().event(|| Event::Load {
            region: Cow::Borrowed(&self.state().policy.name),
            key: self.key_text(),
            elapsed,
            succeeded: outcome.is_ok(),
        });
        let Brought { bytes, life } = outcome?;
        let arrival =
            Arrival { ttl: self.state().ttl_of(&bytes, life), bytes: &bytes, began, elapsed, ticket };
        let currency = match (permit, taken) {
            (Some(permit), _) if self.storing == Storing::IfMissing && permit.found().is_some() => {
                Currency::MayBeOvertaken
            }
            (Some(permit), Ok(taken)) => self.fill(permit, lease, &taken, arrival).await,
            (Some(_), Err(error)) => {
                stats::count(&counters.backend_errors);
                tracing::debug!(region = %self.state().policy.name, %error, "no tag tokens; the value is not stored");
                self.pause_refreshes();
                Currency::Current
            }
            // Nobody can tell whether its key has changed meanwhile.
            (None, _) if self.storing == Storing::Never => Currency::MayBeOvertaken,
            // The backend is in trouble, which must not make a load for each reader.
            (None, _) => {
                if !self.know(&arrival) && codec::is_null(arrival.bytes) {
                    self.cache().near().drop_key(&self.key.key, RemovalCause::Replaced);
                }
                self.pause_refreshes();
                Currency::Current
            }
        };
        Ok(Landed::now(bytes, Source::Loader, Age::AtMost(began.elapsed()), currency))
    }

    fn key_text(&self) -> Cow<'_, str> {
        String::from_utf8_lossy(&self.key.key)
    }

    /// A place among the region's loads, and then what the backend says; waits while another process holds the lease.
    async fn enter(&self) -> Result<(SemaphorePermit<'_>, Result<Option<Begun>>)> {
        let (policy, counters) = (&self.state().policy, &self.state().counters);
        let mut patience: Option<Patience> = None;
        loop {
            // The place first: the second look is worth most after the wait, and a token's life must not be spent waiting.
            let place = self.state().limit.place(&policy.name).await.inspect_err(|error| {
                stats::count(&counters.loads_shed);
                self.cache().troubles().note(error);
            })?;
            if self.storing == Storing::Never {
                return Ok((place, Ok(None)));
            }
            let is_patient = patience.as_ref().is_none_or(|patience| !patience.is_exhausted());
            let sharing = match (policy.lease, self.errand) {
                (None, Errand::Readers) => Sharing::Joined,
                (Some(_), _) if is_patient => Sharing::Exclusive,
                (None, _) if is_patient => Sharing::Refreshing,
                _ => {
                    stats::count(&counters.lease_timeouts);
                    Sharing::Joined
                }
            };
            match self.begin(sharing).await {
                Ok(Begun::Held(left)) => {
                    // Who waits does not load.
                    drop(place);
                    let patience = patience.get_or_insert_with(|| {
                        stats::count(&counters.lease_waits);
                        let limit = policy.load_timeout + self.lease_ttl().unwrap_or_default();
                        Patience::new(
                            limit,
                            std::str::from_utf8(&self.key.key)
                                .ok()
                                .and_then(|key| self.cache().near().wake(key)),
                        )
                    });
                    patience.pause(left).await;
                }
                begun => return Ok((place, begun.map(Some))),
            }
        }
    }

    fn hold(&self, permit: Option<&Permit>) -> Option<Lease> {
        let policy = &self.state().policy;
        let (token, ttl) = (permit?.lease()?, self.lease_ttl()?);
        Some(Lease::hold(self.cache(), &self.key, token, ttl, policy.load_timeout))
    }

    /// How long whoever makes such a load is waited for by those who take turns; none if nobody takes turns. In the background one process at a
    /// time does it, whether or not the region leases.
    fn lease_ttl(&self) -> Option<Duration> {
        let lease = self.state().policy.lease;
        if self.errand == Errand::Readers { lease } else { lease.or(Some(LEASE_TTL)) }
    }

    async fn begin(&self, sharing: Sharing) -> Result<Begun> {
        let policy = &self.state().policy;
        let suffices = match self.errand {
            Errand::Ahead { seen_left, max_age, due } => Suffices::Ahead { seen_left, max_age, due },
            _ => self.state().suffices(self.options, self.storing),
        };
        let backend = self.cache().backend().await?;
        let token_ttl = match sharing {
            Sharing::Joined => None,
            Sharing::Exclusive | Sharing::Refreshing => self.lease_ttl(),
        };
        let token_ttl = token_ttl.or(policy.lease).unwrap_or(policy.load_timeout + TOKEN_MARGIN);
        match fill_token::begin(backend, &self.key, token_ttl, suffices, sharing).await? {
            // There is a value, but not for this reader: unreadable, or "there is none" to a type that has no place for it.
            Begun::Found(bytes, left) | Begun::Rests(bytes, left, _)
                if !self.region.is_value(&bytes)
                    || self.cache().stands(&bytes, left).await? != Standing::Fresh =>
            {
                fill_token::begin(backend, &self.key, token_ttl, Suffices::Nothing, sharing).await
            }
            begun => Ok(begun),
        }
    }

    /// What is known of the entry and may be told to its loader, as it is stored.
    async fn previous(&self, permit: Option<&Permit>) -> Option<Bytes> {
        if self.state().mode() != RegionMode::On {
            return None;
        }
        let bytes = match permit.map(Permit::found) {
            Some(Some((found, left))) => {
                let standing = self.cache().stands(found, left).await.ok()?;
                (standing != Standing::Fallen).then(|| found.to_vec())?
            }
            // A frame that is known would be there.
            Some(None) if self.region.framing().is_some() => return None,
            found => {
                let (key, now) = (self.key_text(), Instant::now());
                if found.is_some() {
                    self.cache().near().is_missing(&key, now);
                }
                self.cache().near().last_known(&key, now)?.known()?.stored.to_vec()
            }
        };
        self.region.is_value(&bytes).then_some(bytes)
    }

    /// The tokens of its tags, for as long as the value may live after the longest load.
    async fn take_tags(&self) -> Result<Vec<(Tag, TagToken)>> {
        if self.tags().is_empty() {
            return Ok(Vec::new());
        }
        let life = self.state().longest_life() + self.state().policy.load_timeout + TOKEN_MARGIN;
        self.tags().take(self.cache().backend().await?, life).await
    }

    async fn load<L: Loader<T>>(&self, loader: L, previous: Option<Bytes>) -> Result<Brought> {
        let policy = &self.state().policy;
        match timeouts::hard(policy.load_timeout, loader.bring(self.region.clone(), previous)).await {
            Some(Ok(encoded)) => encoded,
            Some(Err(source)) => Err(Error::loader(&policy.name, source)),
            None => Err(Error::load_timeout(&policy.name, policy.load_timeout)),
        }
    }

    async fn fill(
        &self,
        permit: Permit,
        mut lease: Option<Lease>,
        taken: &[(Tag, TagToken)],
        arrival: Arrival<'_>,
    ) -> Currency {
        let ttl = arrival.ttl;
        let rest = ttl.and_then(|ttl| Rules::of(&self.state().policy)?.rest(ttl.as_duration()));
        let found = permit.found().is_some();
        let wake = if self.state().remembers() { self.cache().near().wake(&self.key_text()) } else { None };
        // Whatever comes of it: the next read of this process must not find what was near before.
        let drops = self.cache().drops_near([self.key.key.as_slice()]);
        let mut stand = true;
        let mut sent = Instant::now();
        let filled: Result<Fill> = async {
            let backend = self.cache().backend().await?;
            let frame = match ttl.filter(|_| self.state().policy.framing.is_some()) {
                Some(ttl) => {
                    let clock = backend.run_of(&self.key.key);
                    let last = Final { ttl, load_time: arrival.elapsed, clock, tags: taken };
                    Some(self.state().finish(arrival.bytes, last)?)
                }
                None => None,
            };
            let stored = self.state().stored(frame.as_deref().unwrap_or(arrival.bytes));
            sent = Instant::now();
            let elapsed = arrival.began.elapsed();
            let filled = fill_token::fill(backend, &self.key, permit, stored, ttl, elapsed, rest).await?;
            stand = taken.is_empty() || self.cache().tags_stand(backend, self.tags(), taken).await;
            Ok(filled)
        }
        .await;
        let counters = &self.state().counters;
        if let (Some(lease), Ok(Fill::Stored | Fill::Refused)) = (&mut lease, &filled) {
            lease.is_over();
        }
        match filled {
            Ok(Fill::Stored) => {
                stats::count(&counters.fills_stored);
                drop(drops);
                if let Some(wake) = wake {
                    fail_safe::read_back(self.cache(), self.state(), &self.key_text(), wake);
                }
                if let Some(rest) = rest {
                    let elapsed = arrival.began.elapsed();
                    self.state().refreshes.rest(&self.key_text(), rest.saturating_sub(elapsed));
                }
                if stand { Currency::AsOf(sent) } else { Currency::MayBeOvertaken }
            }
            Ok(Fill::Refused) => {
                stats::count(&counters.fills_refused);
                self.pause_refreshes();
                self.cache().event(|| Event::FillRefused {
                    region: Cow::Borrowed(&self.state().policy.name),
                    key: self.key_text(),
                });
                Currency::MayBeOvertaken
            }
            Ok(Fill::TooLate) => {
                self.pause_refreshes();
                if ttl.is_some() {
                    stats::count(&counters.fills_too_late);
                } else if found && codec::is_null(arrival.bytes) {
                    self.end_what_was_there().await;
                }
                Currency::AsOf(sent)
            }
            Err(error) => {
                stats::count(&counters.fills_failed);
                self.pause_refreshes();
                stats::count(&counters.backend_errors);
                tracing::debug!(region = %self.state().policy.name, %error, "a loaded value was not stored");
                if self.know(&arrival) {
                    drops.spare();
                }
                Currency::after(&error)
            }
        }
    }

    /// What was loaded is not stored: to load it again for the next read would do no better.
    fn pause_refreshes(&self) {
        let policy = &self.state().policy;
        if policy.stale_while_revalidate || Rules::of(policy).is_some() {
            self.state().refreshes.pause(&self.key_text());
        }
    }

    /// The source has none any more, and that is not kept.
    async fn end_what_was_there(&self) {
        let key = self.key_text().into_owned();
        if let Err(error) = self.cache().delete_full(&[key], self.state()).await {
            tracing::debug!(region = %self.state().policy.name, %error, "what the source has no longer waits to be invalidated");
        }
    }

    /// Keeps what the backend could not be given as the last known value of this process, in place of what is near. False if there is no
    /// place for it.
    fn know(&self, arrival: &Arrival<'_>) -> bool {
        let kept = arrival.ttl.and_then(|ttl| {
            self.state().unstored(&self.key_text(), arrival.bytes, arrival.began, ttl.as_duration())
        });
        // Nobody could tell that one of its tags has fallen: it has no tokens.
        let (Some(ticket), Some(kept), true) = (arrival.ticket, kept, self.tags().is_empty()) else {
            return false;
        };
        self.cache().near().replace(ticket, &self.key.key, kept);
        true
    }
}

/// What a loader has brought.
struct Arrival<'a> {
    bytes: &'a [u8],
    /// None if it is not to be kept.
    ttl: Option<Ttl>,
    began: Instant,
    elapsed: Duration,
    /// Of before the load.
    ticket: Option<Ticket>,
}
