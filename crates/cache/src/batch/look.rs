//! A batch's look at the backend: one for all keys of which nothing is known yet.
//!
//! Invariant: what a server has answered is found, whatever the others do. Deliberately absent: what becomes of it (`steps.rs`).

use std::collections::HashMap;
use std::pin::pin;
use std::time::Instant;

use futures_util::future::join_all;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::lapse::{Dated, Until};
use super::steps::{Asked, Ending, within};
use crate::backend::{Backend, Bytes, READ_STEP};
use crate::codec;
use crate::error::{Error, ErrorKind, Result};
use crate::framed::Sight;
use crate::near::Ticket;
use crate::read::{Age, Counted, Read, Source};
use crate::read_through::{FreshFor, Looked, ahead};
use crate::refresh::Rules;
use crate::region::Region;
use crate::stats;
use crate::ttl::TimeLeft;

/// Keys of a framed region that are looked at at once.
pub(super) const FRAME_STEP: usize = 200;

/// What there is for an id.
#[derive(Default)]
pub(super) enum Found<V> {
    #[default]
    Nothing,
    /// It is past its TTL, and this reader takes such.
    Stale(Read<V>, Dated),
    Value(Read<V>, FreshFor, Dated),
    /// The source has none.
    Absence(Dated),
    /// Loading would not help.
    Failed(Error),
}

impl<V> Found<V> {
    fn is_nothing(&self) -> bool {
        matches!(self, Self::Nothing)
    }
}

/// What is handed out for a value.
pub(super) struct Shape<T, V> {
    /// Whether what is read may be kept near.
    pub(super) near: bool,
    pub(super) of: fn(&Region<T>, Read<T>, Option<Seen<'_>>) -> Read<V>,
}

impl<T, V> Shape<T, V> {
    /// For a value that is not kept near.
    pub(super) fn own(&self, region: &Region<T>, read: Read<T>) -> Read<V> {
        (self.of)(region, read, None)
    }
}

/// A value as the backend has it.
pub(super) struct Seen<'a> {
    pub(super) key: &'a str,
    pub(super) found: SeenAs<'a>,
    pub(super) sent: Instant,
    pub(super) ticket: Option<Ticket>,
}

impl Seen<'_> {
    fn is_none(&self) -> bool {
        codec::is_null(match self.found {
            SeenAs::Plain(bytes, _) => bytes,
            SeenAs::Framed(sight) => &sight.bytes,
        })
    }
}

pub(super) enum SeenAs<'a> {
    Plain(&'a [u8], TimeLeft),
    Framed(&'a Sight),
}

/// One look at the backend.
#[derive(Clone, Copy)]
struct Look {
    asked: Asked,
    began: Instant,
    /// Whether it asks what is left of each value's life, which is a command more for each.
    wants_left: bool,
}

/// The place of a key of which nothing is known, and what lets its value be kept near.
type Open<'a, V> = (&'a mut Found<V>, &'a str, Option<Ticket>);

impl<T: Serialize + DeserializeOwned + Send + 'static> Region<T> {
    /// One look at the backend for all of which nothing is known; counts what it finds. False if it took longer than is allowed.
    pub(super) async fn look_for_rest<V>(
        &self,
        keys: &[String],
        found: &mut [Found<V>],
        asked: Asked,
        shape: &Shape<T, V>,
    ) -> bool {
        let open: Vec<bool> = found.iter().map(Found::is_nothing).collect();
        let looked = within(asked.until, pin!(self.look_uncounted(keys, found, asked, shape))).await;
        for ((found, key), _) in found.iter().zip(keys).zip(open).filter(|(_, open)| *open) {
            match found {
                Found::Value(read, ..) => self.count_hit(key, read, asked.started),
                Found::Absence(_) => {
                    self.count_hit(key, &Read::fresh((), Source::Backend, Age::Unknown), asked.started);
                }
                _ => {}
            }
        }
        looked.is_some()
    }

    pub(super) async fn look_uncounted<V>(
        &self,
        keys: &[String],
        found: &mut [Found<V>],
        asked: Asked,
        shape: &Shape<T, V>,
    ) {
        let rest = found.iter_mut().zip(keys).filter(|(found, _)| found.is_nothing());
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

    /// What is there now, and until when, in the places of what was found without a word of how long it lives. That is not asked for alone, because
    /// another's value may have taken its place. None where nothing is.
    pub(super) async fn looked_again<V>(
        &self,
        keys: &[String],
        endings: &[Option<Ending<V>>],
        asked: Asked,
    ) -> Vec<(usize, Option<Ending<T>>)> {
        let is_undated =
            |ending: &Option<Ending<V>>| matches!(ending, Some(Ok((_, dated))) if dated.is_undated());
        let places = endings.iter().zip(keys).enumerate().filter(|(_, (ending, _))| is_undated(ending));
        let (places, keys): (Vec<usize>, Vec<String>) =
            places.map(|(place, (_, key))| (place, key.clone())).unzip();
        let mut found: Vec<Found<T>> = places.iter().map(|_| Found::Nothing).collect();
        let shape = Shape { near: false, of: |_, read, _| read };
        within(asked.until, pin!(self.look_uncounted(&keys, &mut found, asked.with_age(), &shape))).await;
        let ending = |found| match found {
            Found::Value(read, _, dated) => Some(Ok((Some(read), dated))),
            Found::Absence(dated) => Some(Ok((None, dated))),
            Found::Failed(error) => Some(Err(error)),
            Found::Nothing | Found::Stale(..) => None,
        };
        places.into_iter().zip(found.into_iter().map(ending)).collect()
    }

    async fn look_at_values<V>(
        &self,
        rest: &mut [Open<'_, V>],
        asked: Asked,
        shape: &Shape<T, V>,
    ) -> Result<()> {
        let (began, keys) = (Instant::now(), rest.len());
        let backend = asked.options.in_time(pin!(self.cache.backend())).await?;
        // By the servers that have them: one that is silent keeps nobody from what the others have answered.
        let mut by_server: HashMap<u64, Vec<_>> = HashMap::new();
        for open in rest {
            by_server.entry(backend.run_of(open.1.as_bytes())).or_default().push(open);
        }
        // Otherwise all of it comes together, and lives are asked for only if something else is waited for. A node of a cluster may send us on.
        let comes_apart = matches!(backend, Backend::Cluster(_)) || keys > READ_STEP;
        let wants_left = comes_apart
            || shape.near
            || self.state.remembers()
            || asked.options.wants_age()
            || Rules::of(&self.state.policy).is_some();
        let look = Look { asked, began, wants_left };
        let groups = by_server.into_values().map(|group| self.look_at_group(backend, group, look, shape));
        join_all(groups).await.into_iter().collect()
    }

    async fn look_at_group<V>(
        &self,
        backend: &Backend,
        mut group: Vec<&mut Open<'_, V>>,
        Look { asked, began, wants_left }: Look,
        shape: &Shape<T, V>,
    ) -> Result<()> {
        let bytes: Vec<Bytes> = group.iter().map(|(_, key, _)| key.as_bytes().to_vec()).collect();
        let sent = Instant::now();
        let looks = async {
            if wants_left {
                let looks = backend.look_many(&bytes).await?.into_iter();
                return Ok(looks.map(|look| look.map(|(value, left)| (value, Some(left)))).collect());
            }
            let values = backend.get_each(&bytes).await?.into_iter();
            Ok(values.map(|value| value.map(|value| (value, None))).collect::<Vec<_>>())
        };
        let looks = asked.options.in_time_since(began, pin!(looks)).await?;
        for ((place, key, ticket), look) in group.iter_mut().zip(looks) {
            **place = match look {
                Ok((None, _)) => {
                    self.found_nothing(*ticket, key);
                    Found::Nothing
                }
                Ok((Some(bytes), left)) => {
                    let age = left.map_or(Age::Unknown, |left| self.state.age(&bytes, left));
                    let until = left.map_or(Until::Unknown, |left| ends(left, sent));
                    // Without a ticket it is not kept, and what is known may be older.
                    if let (Some(left), true) = (left, !shape.near || ticket.is_none()) {
                        self.remember(ticket.take(), key, &bytes, left, sent);
                    }
                    if !asked.options.accepts(age) {
                        Found::Nothing
                    } else if is_absence::<T>(&bytes) {
                        self.absence(Dated::now(age, until))
                    } else {
                        let found = SeenAs::Plain(&bytes, left.unwrap_or(TimeLeft::Absent));
                        let seen = Seen { key, found, sent, ticket: *ticket };
                        let fresh_for = left.and_then(|left| ahead(&bytes, left));
                        self.looked_at(self.decoded(&bytes, age), fresh_for, until, Some(seen), shape)
                    }
                }
                Err(error) => {
                    stats::count(&self.state.counters.backend_errors);
                    self.looked_at(Err(error), None, Until::Unknown, None, shape)
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
                        if ticket.is_none() {
                            self.found_nothing(None, key);
                        }
                        self.absence(Dated::now(sight.age, sight.ends(sent)))
                    }
                    Ok((looked, sight)) => {
                        let may_be_near = shape.near && ticket.is_some();
                        let is_to_be_shared = may_be_near && matches!(looked, Looked::Value(_));
                        match &sight {
                            Some(_) if is_to_be_shared => {}
                            Some(sight) => self.remember_frame(ticket.take(), key, sight, sent),
                            None if ticket.is_none() => self.found_nothing(None, key),
                            None => {}
                        }
                        let fresh_for = sight.as_ref().and_then(Sight::ahead);
                        let until = sight.as_ref().and_then(|sight| sight.ends(sent)).into();
                        let seen = |sight| Seen { key, found: SeenAs::Framed(sight), sent, ticket: *ticket };
                        self.looked_at(Ok(looked), fresh_for, until, sight.as_ref().map(seen), shape)
                    }
                    Err(error) => {
                        down = error.is_backend_down().then(|| error.clone());
                        self.looked_at(Err(error), None, Until::Unknown, None, shape)
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
    fn absence<V>(&self, dated: Dated) -> Found<V> {
        stats::count(&self.state.counters.none_hits);
        Found::Absence(dated.hit(Counted::Hit, true))
    }

    /// What a look is to this read.
    fn looked_at<V>(
        &self,
        looked: Result<Looked<T>>,
        fresh_for: FreshFor,
        until: Until,
        seen: Option<Seen<'_>>,
        shape: &Shape<T, V>,
    ) -> Found<V> {
        match looked {
            Ok(Looked::Value(read)) => {
                let is_none = seen.as_ref().is_some_and(Seen::is_none);
                let dated = Dated::now(read.age, until).hit(read.counted(), is_none);
                Found::Value((shape.of)(self, read, seen), fresh_for, dated)
            }
            Ok(Looked::Stale(read)) => {
                let dated = Dated::now(read.age, until);
                Found::Stale((shape.of)(self, read, None), dated)
            }
            // As in `read_through.rs`: loading would neither replace what is there nor say so.
            Err(error) if matches!(error.kind(), ErrorKind::Undecodable | ErrorKind::WrongType) => {
                Found::Failed(error)
            }
            Ok(Looked::Nothing) | Err(_) => Found::Nothing,
        }
    }
}

/// When the life of a value ends of which a read that was sent then has told what is left. Nobody has said it of one that was stored while it
/// was read.
fn ends(left: TimeLeft, sent: Instant) -> Until {
    match left {
        TimeLeft::For(left) => sent.checked_add(left).into(),
        TimeLeft::Forever => Until::Forever,
        TimeLeft::Absent => Until::Unknown,
    }
}

/// Whether stored bytes say that the source has none, to a reader whose type has no place for that.
pub(super) fn is_absence<T: DeserializeOwned>(bytes: &[u8]) -> bool {
    codec::is_null(bytes) && !codec::has_none::<T>()
}
