//! What happens in a cache, told to those who want to know: one observer, called on the spot, and any number of streams.
//!
//! Invariants: while nobody listens an event costs one relaxed load and is not made; telling never waits, and a stream that does not
//! keep up is told how many events it missed. Events name keys and never hold values. Deliberately absent: counting (`stats.rs`).

use std::borrow::Cow;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures_util::Stream;
use futures_util::stream::unfold;
use tokio::sync::broadcast;

use crate::control::RegionMode;
use crate::read::{Source, Staleness};

/// Events that a stream can be behind before it misses some.
pub const MAX_EVENTS_BEHIND: usize = 4096;

/// One thing that happened. Texts are borrowed for the observer and owned in streams.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Event<'a> {
    /// A read of a region ended with a value: a hit, unless the source is the loader.
    #[non_exhaustive]
    Read {
        /// The region's name.
        region: Cow<'a, str>,
        /// The key in the backend.
        key: Cow<'a, str>,
        /// Where the value came from.
        source: Source,
        /// Whether it is past its TTL.
        staleness: Staleness,
        /// From call to value.
        elapsed: Duration,
    },
    /// A read found nothing.
    #[non_exhaustive]
    Miss {
        /// The region's name.
        region: Cow<'a, str>,
        /// The key in the backend.
        key: Cow<'a, str>,
        /// From call to answer.
        elapsed: Duration,
    },
    /// A read went past the cache because its region is killed, and had no loader.
    #[non_exhaustive]
    Bypassed {
        /// The region's name.
        region: Cow<'a, str>,
        /// The key in the backend.
        key: Cow<'a, str>,
    },
    /// A loader ended; a batch's tells it of each of its keys.
    #[non_exhaustive]
    Load {
        /// The region's name.
        region: Cow<'a, str>,
        /// The key in the backend.
        key: Cow<'a, str>,
        /// How long the loader ran.
        elapsed: Duration,
        /// Whether it gave a value.
        succeeded: bool,
    },
    /// What was loaded was not stored: its key was set or invalidated meanwhile.
    #[non_exhaustive]
    FillRefused {
        /// The region's name.
        region: Cow<'a, str>,
        /// The key in the backend.
        key: Cow<'a, str>,
    },
    /// This process removed a key from the backend, or put another value there.
    #[non_exhaustive]
    Changed {
        /// The region's name.
        region: Cow<'a, str>,
        /// The key in the backend.
        key: Cow<'a, str>,
        /// `Replaced` for a set, `Invalidated` or `Deleted` for a removal.
        cause: RemovalCause,
    },
    /// This process invalidated everything of a region.
    #[non_exhaustive]
    RegionInvalidated {
        /// The region's name.
        region: Cow<'a, str>,
        /// So many keys were there.
        keys: u64,
    },
    /// A value is no longer near. Values that go because all may have changed are told once, as `NearCleared`;
    /// on a cluster, where only those of one primary go, each is told.
    #[non_exhaustive]
    NearDropped {
        /// The key in the backend.
        key: Cow<'a, str>,
        /// Why. The backend's messages do not say why a key changed there: all of them are `Invalidated`.
        cause: RemovalCause,
    },
    /// Nothing is near any more: any key may have changed, or changes could not be heard for a time.
    #[non_exhaustive]
    NearCleared {},
    /// In shadow mode the cache would have served another value than the loader did. At most one a second and region is told; the
    /// counters have all.
    #[non_exhaustive]
    ShadowDiffered {
        /// The region's name.
        region: Cow<'a, str>,
        /// The key in the backend.
        key: Cow<'a, str>,
        /// Where in the value the two differ, as JSON pointers, at most 8; the empty one is the whole. Never what is there.
        places: Vec<String>,
    },
    /// The near cache served what the backend no longer had: the contract is broken. See `near_violations` in
    /// [`RegionStats`](crate::RegionStats).
    #[non_exhaustive]
    Violation {
        /// The region's name.
        region: Cow<'a, str>,
        /// The key in the backend.
        key: Cow<'a, str>,
        /// So long at least it had been wrong.
        age: Duration,
    },
    /// A region was switched.
    #[non_exhaustive]
    Switched {
        /// The region's name.
        region: Cow<'a, str>,
        /// How it was.
        from: RegionMode,
        /// How it is.
        to: RegionMode,
    },
}

/// Why an entry is no longer there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum RemovalCause {
    /// Its time was over.
    Expired,
    /// Others needed the room.
    Evicted,
    /// It was declared untrue: by an invalidation of this process, or by a message about its key.
    Invalidated,
    /// Its key was deleted by name.
    Deleted,
    /// Another value took its place.
    Replaced,
}

impl RemovalCause {
    /// A short name for reports and labels.
    pub fn name(self) -> &'static str {
        match self {
            Self::Expired => "expired",
            Self::Evicted => "evicted",
            Self::Invalidated => "invalidated",
            Self::Deleted => "deleted",
            Self::Replaced => "replaced",
        }
    }
}

impl Event<'_> {
    /// The same event with texts of its own.
    pub fn into_owned(self) -> Event<'static> {
        let own = |text: Cow<'_, str>| Cow::Owned(text.into_owned());
        match self {
            Self::Read { region, key, source, staleness, elapsed } => {
                Event::Read { region: own(region), key: own(key), source, staleness, elapsed }
            }
            Self::Miss { region, key, elapsed } => {
                Event::Miss { region: own(region), key: own(key), elapsed }
            }
            Self::Bypassed { region, key } => Event::Bypassed { region: own(region), key: own(key) },
            Self::Load { region, key, elapsed, succeeded } => {
                Event::Load { region: own(region), key: own(key), elapsed, succeeded }
            }
            Self::FillRefused { region, key } => Event::FillRefused { region: own(region), key: own(key) },
            Self::Changed { region, key, cause } => {
                Event::Changed { region: own(region), key: own(key), cause }
            }
            Self::RegionInvalidated { region, keys } => {
                Event::RegionInvalidated { region: own(region), keys }
            }
            Self::NearDropped { key, cause } => Event::NearDropped { key: own(key), cause },
            Self::NearCleared {} => Event::NearCleared {},
            Self::ShadowDiffered { region, key, places } => {
                Event::ShadowDiffered { region: own(region), key: own(key), places }
            }
            Self::Violation { region, key, age } => {
                Event::Violation { region: own(region), key: own(key), age }
            }
            Self::Switched { region, from, to } => Event::Switched { region: own(region), from, to },
        }
    }
}

/// Called for each event, on the thread where it happens: it must be quick, and must not call the cache. While none is set, and no stream
/// listens, times are not taken.
pub type Observer = Arc<dyn Fn(&Event<'_>) + Send + Sync>;

/// What a stream hears.
#[derive(Clone, Debug, PartialEq)]
pub enum Heard {
    /// Something happened.
    Event(Arc<Event<'static>>),
    /// So many events were missed, because the stream was not read in time.
    Missed(u64),
}

/// The events of a cache from when it was asked for, in the order in which they were told. Made by
/// [`Cache::events`](crate::Cache::events).
#[derive(Debug)]
pub struct EventStream {
    from: broadcast::Receiver<Arc<Event<'static>>>,
    listening: Arc<AtomicUsize>,
}

impl EventStream {
    /// Waits for the next event; `None` once the cache is gone. Loses nothing when it is cancelled.
    pub async fn next(&mut self) -> Option<Heard> {
        match self.from.recv().await {
            Ok(event) => Some(Heard::Event(event)),
            Err(broadcast::error::RecvError::Lagged(missed)) => Some(Heard::Missed(missed)),
            Err(broadcast::error::RecvError::Closed) => None,
        }
    }

    /// The same as a [`Stream`].
    pub fn into_stream(self) -> impl Stream<Item = Heard> + Send {
        unfold(self, async |mut events| events.next().await.map(|heard| (heard, events)))
    }
}

impl Drop for EventStream {
    fn drop(&mut self) {
        self.listening.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Who is told.
pub(crate) struct Teller {
    observer: Option<Observer>,
    /// Streams that listen, and one for the observer.
    listening: Arc<AtomicUsize>,
    streams: broadcast::Sender<Arc<Event<'static>>>,
}

impl Teller {
    pub(crate) fn new(observer: Option<Observer>) -> Self {
        let listening = Arc::new(AtomicUsize::new(usize::from(observer.is_some())));
        Self { observer, listening, streams: broadcast::Sender::new(MAX_EVENTS_BEHIND) }
    }

    #[inline]
    pub(crate) fn is_heard(&self) -> bool {
        self.listening.load(Ordering::Relaxed) > 0
    }

    pub(crate) fn tell<'a>(&self, event: impl FnOnce() -> Event<'a>) {
        if self.is_heard() {
            self.tell_now(event());
        }
    }

    #[cold]
    fn tell_now(&self, event: Event<'_>) {
        if let Some(observer) = &self.observer {
            observer(&event);
        }
        if self.streams.receiver_count() > 0 {
            // An error means that the last stream has just gone.
            let _ = self.streams.send(Arc::new(event.into_owned()));
        }
    }

    pub(crate) fn stream(&self) -> EventStream {
        let from = self.streams.subscribe();
        self.listening.fetch_add(1, Ordering::Relaxed);
        EventStream { from, listening: Arc::clone(&self.listening) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bypassed(key: &str) -> Event<'_> {
        Event::Bypassed { region: Cow::Borrowed("r"), key: Cow::Borrowed(key) }
    }

    #[tokio::test]
    async fn a_stream_that_does_not_keep_up_is_told_how_much_it_missed() {
        let teller = Teller::new(None);
        let mut stream = teller.stream();
        for n in 0..MAX_EVENTS_BEHIND + 10 {
            teller.tell(|| bypassed(&n.to_string()).into_owned());
        }
        assert_eq!(stream.next().await, Some(Heard::Missed(10)));
        assert_eq!(stream.next().await, Some(Heard::Event(Arc::new(bypassed("10").into_owned()))));
        drop(teller);
        let mut rest = 0;
        while stream.next().await.is_some() {
            rest += 1;
        }
        assert_eq!(rest, MAX_EVENTS_BEHIND - 1);
    }

    #[test]
    fn an_event_is_not_made_while_nobody_listens() {
        let teller = Teller::new(None);
        teller.tell(|| unreachable!("nobody listens"));
        drop(teller.stream());
        teller.tell(|| unreachable!("nobody listens any more"));
        assert!(!teller.is_heard());
    }
}
