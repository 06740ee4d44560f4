//! What every load goes by, of one key or of many: how it begins, what is counted, and what becomes of what it brings.
//!
//! Invariants: in the background one process at a time loads a key; what was loaded and is not stored is not loaded again at once for the next
//! read; whatever becomes of a fill, no read of this process finds what was near before it. Deliberately absent: the order of steps (`load.rs`,
//! `batch/load.rs`), and what decides about a fill (`fill_token.rs`).

use std::borrow::Cow;
use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::SemaphorePermit;

use crate::backend::{Bytes, CachedKey};
use crate::cache::Cache;
use crate::codec;
use crate::control::RegionMode;
use crate::error::{Error, Result};
use crate::events::{Event, RemovalCause};
use crate::fail_safe;
use crate::fill_token::{self, Fill, Filling, Permit, Present, Sharing, Suffices, TOKEN_MARGIN, Token};
use crate::framed::{self, Final, Standing};
use crate::lease::{LEASE_TTL, Lease, Patience};
use crate::load::{Errand, Storing};
use crate::metrics;
use crate::near::{Ticket, Wake};
use crate::read::{ReadOptions, Source};
use crate::refresh::Rules;
use crate::region::{Region, RegionState};
use crate::single_flight::{Currency, Landed};
use crate::stats;
use crate::tags::{Tag, TagToken, Tags};
use crate::timeouts;
use crate::ttl::Ttl;

/// What a load goes by.
pub(crate) struct Terms {
    pub(crate) cache: Cache,
    pub(crate) state: Arc<RegionState>,
    /// What the values will carry.
    pub(crate) tags: Arc<Tags>,
    pub(crate) options: ReadOptions,
    pub(crate) storing: Storing,
}

/// What a loader has brought for a key.
pub(crate) struct Arrival<'a> {
    pub(crate) key: &'a CachedKey,
    pub(crate) bytes: &'a [u8],
    /// None if it is not to be kept.
    pub(crate) ttl: Option<Ttl>,
    /// Of before the load.
    pub(crate) ticket: Option<Ticket>,
    /// The right to store it, if that was to be had.
    pub(crate) permit: Option<Permit>,
}

/// A loader call that has ended.
pub(crate) struct Ended {
    pub(crate) began: Instant,
    pub(crate) took: Duration,
    /// The tokens of the tags.
    pub(crate) taken: Result<Vec<(Tag, TagToken)>>,
    pub(crate) lease: Option<Lease>,
}

/// A fill under way.
struct Sent<'a> {
    arrival: &'a Arrival<'a>,
    began: Instant,
    currency: &'a mut Currency,
    rest: Option<Duration>,
    /// Hears of it.
    wake: Option<Wake>,
    /// Whether the load found something that would not do.
    found: bool,
}

/// What fills leave to be done.
#[derive(Default)]
struct Aftermath<'a> {
    /// What was brought for these is known, in place of what was near.
    known: HashSet<&'a [u8]>,
    /// Of these the source has none any more, and that is not kept.
    without: Vec<String>,
    /// These are to be read back.
    stored: Vec<(String, Wake)>,
}

impl Terms {
    pub(crate) fn of<T>(region: &Region<T>, options: ReadOptions, storing: Storing) -> Self {
        Self {
            cache: region.cache.clone(),
            state: Arc::clone(&region.state),
            tags: Arc::clone(&region.view.tags),
            options,
            storing,
        }
    }

    fn name(&self) -> Cow<'_, str> {
        Cow::Borrowed(&self.state.policy.name)
    }

    /// To be taken before the loader runs: what is told from then on, or done by this process, is about what it brings.
    pub(crate) fn ticket(&self, key: &CachedKey) -> Option<Ticket> {
        if self.state.remembers() { self.cache.near().begin_unheard(&text(key)) } else { None }
    }

    /// A place among the region's loads, at once or after a bounded wait.
    pub(crate) async fn place(&self) -> Result<SemaphorePermit<'_>> {
        self.state.limit.place(&self.state.policy.name).await.inspect_err(|error| {
            stats::count(&self.state.counters.loads_shed);
            self.cache.troubles().note(error);
        })
    }

    /// Who else may load under the same token, after so much waiting for it.
    pub(crate) fn sharing(&self, errand: Errand, patience: Option<&Patience>) -> Sharing {
        let is_patient = patience.is_none_or(|patience| !patience.is_exhausted());
        match (self.state.policy.lease, errand) {
            (None, Errand::Readers) => Sharing::Joined,
            (Some(_), _) if is_patient => Sharing::Exclusive,
            (None, _) if is_patient => Sharing::Refreshing,
            _ => {
                stats::count(&self.state.counters.lease_timeouts);
                Sharing::Joined
            }
        }
    }

    /// How long whoever makes such a load is waited for by those who take turns; none if nobody takes turns. In the background one process at a
    /// time does it, whether or not the region leases.
    fn lease_ttl(&self, errand: Errand) -> Option<Duration> {
        let lease = self.state.policy.lease;
        if errand == Errand::Readers { lease } else { lease.or(Some(LEASE_TTL)) }
    }

    pub(crate) fn token_ttl(&self, errand: Errand, sharing: Sharing) -> Duration {
        let policy = &self.state.policy;
        let lease = match sharing {
            Sharing::Joined => policy.lease,
            Sharing::Exclusive | Sharing::Refreshing => self.lease_ttl(errand),
        };
        lease.unwrap_or(policy.load_timeout + TOKEN_MARGIN)
    }

    /// Of one who waits for the leases of these keys.
    pub(crate) fn patience<'k>(
        &self,
        errand: Errand,
        held: impl IntoIterator<Item = &'k CachedKey>,
    ) -> Patience {
        stats::count(&self.state.counters.lease_waits);
        let limit = self.state.policy.load_timeout + self.lease_ttl(errand).unwrap_or_default();
        Patience::new(limit, held.into_iter().filter_map(|key| self.wake(key)))
    }

    fn wake(&self, key: &CachedKey) -> Option<Wake> {
        self.cache.near().wake(std::str::from_utf8(&key.key).ok()?)
    }

    /// Which value that is there already will do for such a load.
    pub(crate) fn suffices(&self, errand: Errand) -> Suffices {
        match errand {
            Errand::Ahead { seen_left, max_age, due } => Suffices::Ahead { seen_left, max_age, due },
            _ => self.state.suffices(self.options, self.storing),
        }
    }

    /// What is there already lands. What was asked about it meanwhile has made it older.
    pub(crate) fn found(&self, key: &CachedKey, present: Present) -> Landed {
        let Present { bytes, left, sent } = present;
        let age = self.state.age_on(&bytes, left, self.cache.run_of(&key.key)).grown_by(sent.elapsed());
        let until = framed::fresh_for(&bytes, left).and_then(|left| sent.checked_add(left));
        Landed::now(bytes, Source::Backend, age, Currency::MayBeOvertaken).until(until)
    }

    /// A load goes on without a token.
    pub(crate) fn no_token(&self, error: &Error) {
        stats::count(&self.state.counters.backend_errors);
        tracing::debug!(region = %self.name(), %error, "no fill token; a value will not be stored");
    }

    /// Keeps the leases among these permits while the load goes on.
    pub(crate) fn hold<'k>(
        &self,
        errand: Errand,
        permits: impl Iterator<Item = (&'k CachedKey, &'k Permit)>,
    ) -> Option<Lease> {
        let ttl = self.lease_ttl(errand)?;
        let held = permits.filter_map(|(key, permit)| {
            let token = permit.lease()?.to_vec();
            Some(Token { key: key.clone(), token })
        });
        let held: Vec<_> = held.collect();
        (!held.is_empty()).then(|| Lease::hold(&self.cache, held, ttl, self.state.policy.load_timeout))
    }

    /// The tokens of the tags, for as long as a value may live after the longest load. To be taken before the loader runs, so that an
    /// invalidation during the load invalidates what it stores.
    pub(crate) async fn take_tags(&self) -> Result<Vec<(Tag, TagToken)>> {
        if self.tags.is_empty() {
            return Ok(Vec::new());
        }
        let life = self.state.longest_life() + self.state.policy.load_timeout + TOKEN_MARGIN;
        self.tags.take(self.cache.backend().await?, life).await
    }

    /// What is known of an entry and may be told to its loader, as it is stored.
    pub(crate) async fn previous(
        &self,
        key: &CachedKey,
        permit: Option<&Permit>,
        is_value: impl Fn(&[u8]) -> bool,
    ) -> Option<Bytes> {
        if self.state.mode() != RegionMode::On {
            return None;
        }
        let bytes = match permit.map(Permit::found) {
            Some(Some((found, left))) => {
                let standing = self.cache.stands(found, left).await.ok()?;
                (standing != Standing::Fallen).then(|| found.to_vec())?
            }
            // A frame that is known would be there.
            Some(None) if self.state.policy.framing.is_some() => return None,
            found => {
                let (key, now) = (text(key), Instant::now());
                if found.is_some() {
                    self.cache.near().is_missing(&key, now);
                }
                self.cache.near().last_known(&key, now)?.known()?.stored.to_vec()
            }
        };
        is_value(&bytes).then_some(bytes)
    }

    /// What a loader brings in its time.
    pub(crate) async fn in_time<A>(
        &self,
        loading: impl Future<Output = std::result::Result<A, Box<dyn std::error::Error + Send + Sync>>>,
    ) -> Result<A> {
        let policy = &self.state.policy;
        match timeouts::hard(policy.load_timeout, loading).await {
            Some(Ok(brought)) => Ok(brought),
            Some(Err(source)) => Err(Error::loader(&policy.name, source)),
            None => Err(Error::load_timeout(&policy.name, policy.load_timeout)),
        }
    }

    /// A loader call for these keys that begins now.
    pub(crate) fn calling<'a>(&'a self, keys: impl IntoIterator<Item = &'a CachedKey>) -> Calling<'a> {
        Calling { terms: self, keys: keys.into_iter().collect(), began: Instant::now(), is_counted: false }
    }

    /// One load to those who count, failed if it brought nothing of use for one of its keys; an event for each of them to those who listen.
    fn count_load(&self, keys: &[&CachedKey], elapsed: Duration, succeeded: impl Fn(usize) -> bool) {
        if self.cache.reports_metrics() {
            metrics::load_took(&self.state.policy.name, elapsed.as_secs_f64());
        }
        let counters = &self.state.counters;
        stats::count(&counters.loads);
        stats::add(&counters.load_nanos, u64::try_from(elapsed.as_nanos()).unwrap_or(u64::MAX));
        if (0..keys.len()).any(&succeeded) {
            self.state.refreshes.loaded_in(elapsed);
        }
        if !(0..keys.len()).all(&succeeded) {
            stats::count(&counters.load_failures);
        }
        for (place, key) in keys.iter().enumerate() {
            let succeeded = succeeded(place);
            self.cache.event(|| Event::Load { region: self.name(), key: text(key), elapsed, succeeded });
        }
    }

    /// Leaves a key alone for so much of its value's life.
    pub(crate) fn rest(&self, key: &CachedKey, rest: Duration) {
        self.state.refreshes.rest(&text(key), rest);
    }

    /// Leaves a key alone for a while whose refresh has failed.
    pub(crate) fn pause(&self, key: &CachedKey) {
        self.state.refreshes.pause(&text(key));
    }

    /// What was loaded is not stored: to load it again for the next read would do no better.
    fn pause_refreshes(&self, key: &CachedKey) {
        let policy = &self.state.policy;
        if policy.stale_while_revalidate || Rules::of(policy).is_some() {
            self.pause(key);
        }
    }

    /// Stores what may be stored, and says what that makes of each value.
    pub(crate) async fn store(&self, mut arrivals: Vec<Arrival<'_>>, ended: Ended) -> Vec<Currency> {
        let permits: Vec<_> = arrivals.iter_mut().map(|arrival| arrival.permit.take()).collect();
        let mut currencies = vec![Currency::MayBeOvertaken; arrivals.len()];
        if let Err(error) = &ended.taken {
            stats::count(&self.state.counters.backend_errors);
            tracing::debug!(region = %self.name(), %error, "no tag tokens; what was loaded is not stored");
        }
        let mut fills = Vec::with_capacity(arrivals.len());
        for ((arrival, permit), currency) in arrivals.iter().zip(permits).zip(&mut currencies) {
            match permit {
                None => *currency = self.without_token(arrival, ended.began),
                Some(permit) if self.storing == Storing::IfMissing && permit.found().is_some() => {}
                Some(_) if ended.taken.is_err() => {
                    self.pause_refreshes(arrival.key);
                    *currency = Currency::Current;
                }
                Some(permit) => fills.push((arrival, permit, currency)),
            }
        }
        if !fills.is_empty() {
            self.fill(fills, ended).await;
        }
        currencies
    }

    /// What becomes of a value that there is no token for.
    fn without_token(&self, arrival: &Arrival<'_>, began: Instant) -> Currency {
        if self.storing == Storing::Never {
            // Nobody can tell whether its key has changed meanwhile.
            return Currency::MayBeOvertaken;
        }
        // The backend is in trouble, which must not make a load for each reader.
        if !self.know(arrival, began) && codec::is_null(arrival.bytes) {
            self.cache.near().drop_key(&arrival.key.key, RemovalCause::Replaced);
        }
        self.pause_refreshes(arrival.key);
        Currency::Current
    }

    async fn fill<'a>(&self, fills: Vec<(&'a Arrival<'a>, Permit, &'a mut Currency)>, mut ended: Ended) {
        // Whatever comes of it: the next read of this process must not find what was near before.
        let keys: Vec<&[u8]> = fills.iter().map(|(arrival, ..)| arrival.key.key.as_slice()).collect();
        let mut drops = self.cache.drops_near(keys);
        let mut aftermath = Aftermath::default();
        let taken = ended.taken.unwrap_or_default();
        let backend = self.cache.backend().await;
        let rules = Rules::of(&self.state.policy);
        let (mut under_way, mut permits, mut forms) = (Vec::new(), Vec::new(), Vec::new());
        for (arrival, permit, currency) in fills {
            match self.in_stored_form(arrival, ended.took, &taken) {
                Ok(form) => {
                    let wake = if self.state.remembers() { self.wake(arrival.key) } else { None };
                    let rest = arrival.ttl.and_then(|ttl| rules?.rest(ttl.as_duration()));
                    let (began, found) = (ended.began, permit.found().is_some());
                    under_way.push(Sent { arrival, began, currency, rest, wake, found });
                    permits.push(permit);
                    forms.push(form);
                }
                Err(error) => *currency = self.not_stored(arrival, ended.began, &error, &mut aftermath),
            }
        }
        let mut fillings = Vec::with_capacity(under_way.len());
        for ((Sent { arrival, rest, .. }, permit), form) in under_way.iter().zip(permits).zip(&forms) {
            let value = self.state.stored(form);
            fillings.push(Filling { key: arrival.key, permit, value, ttl: arrival.ttl, rest: *rest });
        }
        let sent = Instant::now();
        let outcomes = match &backend {
            Ok(backend) => fill_token::fill(backend, fillings, ended.began).await,
            Err(error) => fillings.iter().map(|_| Err(error.clone())).collect(),
        };
        let stand = match backend {
            Ok(backend) if !taken.is_empty() => self.cache.tags_stand(backend, &self.tags, &taken).await,
            _ => true,
        };
        let mut over = HashSet::new();
        for (fill, outcome) in under_way.into_iter().zip(outcomes) {
            if let Ok(Fill::Stored | Fill::Refused) = outcome {
                over.insert(fill.arrival.key);
            }
            self.settle(
                fill,
                outcome,
                if stand { Currency::AsOf(sent) } else { Currency::MayBeOvertaken },
                &mut aftermath,
            );
        }
        if let Some(lease) = &mut ended.lease {
            lease.is_over_for(&over);
        }
        drops.spare(&aftermath.known);
        drop(drops);
        self.end_what_was_there(&aftermath.without).await;
        fail_safe::read_back(&self.cache, &self.state, aftermath.stored);
    }

    /// Counts how a fill ended, and says what that makes of its value: if nothing came in between, as said.
    fn settle<'a>(
        &self,
        fill: Sent<'a>,
        outcome: Result<Fill>,
        if_current: Currency,
        aftermath: &mut Aftermath<'a>,
    ) {
        let Sent { arrival, began, currency, rest, wake, found } = fill;
        let (counters, key) = (&self.state.counters, arrival.key);
        *currency = if_current;
        match outcome {
            Ok(Fill::Stored) => {
                stats::count(&counters.fills_stored);
                if let Some(rest) = rest {
                    self.rest(key, rest.saturating_sub(began.elapsed()));
                }
                aftermath.stored.extend(wake.map(|wake| (text(key).into_owned(), wake)));
            }
            Ok(Fill::Refused) => {
                stats::count(&counters.fills_refused);
                self.pause_refreshes(key);
                self.cache.event(|| Event::FillRefused { region: self.name(), key: text(key) });
                *currency = Currency::MayBeOvertaken;
            }
            Ok(Fill::TooLate) => {
                self.pause_refreshes(key);
                if arrival.ttl.is_some() {
                    stats::count(&counters.fills_too_late);
                } else if found && codec::is_null(arrival.bytes) {
                    aftermath.without.push(text(key).into_owned());
                }
            }
            Err(error) => *currency = self.not_stored(arrival, began, &error, aftermath),
        }
    }

    fn not_stored<'a>(
        &self,
        arrival: &'a Arrival<'a>,
        began: Instant,
        error: &Error,
        aftermath: &mut Aftermath<'a>,
    ) -> Currency {
        stats::count(&self.state.counters.fills_failed);
        stats::count(&self.state.counters.backend_errors);
        self.pause_refreshes(arrival.key);
        tracing::debug!(region = %self.name(), %error, "a loaded value was not stored");
        if self.know(arrival, began) {
            aftermath.known.insert(&arrival.key.key);
        }
        Currency::after(error)
    }

    /// A value as it is stored; of a framed region but for the time.
    fn in_stored_form<'a>(
        &self,
        arrival: &Arrival<'a>,
        load_time: Duration,
        tags: &[(Tag, TagToken)],
    ) -> Result<Cow<'a, [u8]>> {
        match arrival.ttl.filter(|_| self.state.policy.framing.is_some()) {
            Some(ttl) => {
                let clock = self.cache.run_of(&arrival.key.key);
                Ok(Cow::Owned(self.state.finish(arrival.bytes, Final { ttl, load_time, clock, tags })?))
            }
            None => Ok(Cow::Borrowed(arrival.bytes)),
        }
    }

    /// The source has none any more, and that is not kept.
    async fn end_what_was_there(&self, keys: &[String]) {
        if keys.is_empty() {
            return;
        }
        if let Err(error) = self.cache.delete_full(keys, &self.state).await {
            tracing::debug!(region = %self.name(), %error, "what the source has no longer waits to be invalidated");
        }
    }

    /// Keeps what the backend could not be given as the last known value of this process, in place of what is near. False if there is no
    /// place for it.
    fn know(&self, arrival: &Arrival<'_>, began: Instant) -> bool {
        let kept = arrival
            .ttl
            .and_then(|ttl| self.state.unstored(&text(arrival.key), arrival.bytes, began, ttl.as_duration()));
        // Nobody could tell that one of its tags has fallen: it has no tokens.
        let (Some(ticket), Some(kept), true) = (arrival.ticket, kept, self.tags.is_empty()) else {
            return false;
        };
        self.cache.near().replace(ticket, &arrival.key.key, kept);
        true
    }
}

/// A loader call under way. One that does not come to its end has panicked, which is a failure like others.
pub(crate) struct Calling<'a> {
    terms: &'a Terms,
    keys: Vec<&'a CachedKey>,
    pub(crate) began: Instant,
    is_counted: bool,
}

impl Calling<'_> {
    /// It has ended, and brought something of use for the keys at these places; says how long it took.
    pub(crate) fn ended(mut self, succeeded: impl Fn(usize) -> bool) -> Duration {
        let took = self.began.elapsed();
        self.is_counted = true;
        self.terms.count_load(&self.keys, took, succeeded);
        took
    }
}

impl Drop for Calling<'_> {
    fn drop(&mut self) {
        if !self.is_counted {
            self.terms.count_load(&self.keys, self.began.elapsed(), |_| false);
        }
    }
}

fn text(key: &CachedKey) -> Cow<'_, str> {
    String::from_utf8_lossy(&key.key)
}

#[cfg(test)]
mod tests {
    use crate::region::RegionPolicy;
    use crate::ttl::TimeLeft;

    use super::*;

    /// A batch asks for the tags of all that it found before the first of it lands.
    #[tokio::test]
    async fn what_was_there_has_grown_older_by_the_time_it_lands() {
        let seconds = Duration::from_secs;
        let cache = Cache::connect("embedded://").await.unwrap();
        let region: Region<u32> = cache.region(RegionPolicy::new("r", seconds(30))).unwrap();
        let terms = Terms::of(&region, ReadOptions::new(), Storing::IfCurrent);
        let sent = Instant::now().checked_sub(seconds(5)).unwrap();
        let present = Present { bytes: b"1".to_vec(), left: TimeLeft::For(seconds(20)), sent };
        let landed = terms.found(&CachedKey::new("r:1"), present);
        assert!(!landed.age().is_within(seconds(15)) && landed.age().is_within(seconds(16)));
        assert_eq!(landed.ends(), Some(sent + seconds(20)));
    }
}
