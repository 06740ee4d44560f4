//! Publish and subscribe: who listens to which channel, and the delivery of messages.
//!
//! Invariant: messages of one channel reach all its subscribers in one order, because delivery happens under the lock of
//! the channel's shard; so a client that has been taken off a channel gets nothing more from it. Locks: a keyspace shard
//! may be held when a message is published (keyspace events), never the other way round. Deliberately absent: waiting; a
//! mailbox takes the bytes or closes its connection.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use ahash::RandomState;
use hashbrown::HashMap;
use mtcache_protocol::{Reply, Version, glob};
use parking_lot::{Mutex, RwLock};

use crate::client::Client;

/// Shards of the channel table, so that publishers to different channels do not wait for each other.
const SHARDS: usize = 16;

/// What a subscription is to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A channel by name.
    Channel,
    /// All channels that match a pattern.
    Pattern,
    /// A shard channel: a separate space of names.
    Shard,
}

impl Kind {
    /// The word that confirms a subscription.
    pub(crate) fn subscribed(self) -> &'static str {
        match self {
            Self::Channel => "subscribe",
            Self::Pattern => "psubscribe",
            Self::Shard => "ssubscribe",
        }
    }

    /// The word that confirms its end.
    pub(crate) fn unsubscribed(self) -> &'static str {
        match self {
            Self::Channel => "unsubscribe",
            Self::Pattern => "punsubscribe",
            Self::Shard => "sunsubscribe",
        }
    }
}

type Subscribers = Vec<Arc<Client>>;
type ChannelShard = Mutex<HashMap<Box<[u8]>, Subscribers, RandomState>>;

/// All subscriptions of an engine.
pub(crate) struct PubSub {
    hasher: RandomState,
    channels: Channels,
    shard_channels: Channels,
    patterns: RwLock<Vec<(Box<[u8]>, Subscribers)>>,
    /// Number of patterns, so that a publisher need not lock where there are none.
    pattern_count: AtomicUsize,
}

/// Channels of one space of names.
struct Channels {
    shards: [ChannelShard; SHARDS],
    count: AtomicUsize,
}

impl Channels {
    fn new(hasher: &RandomState) -> Self {
        Self {
            shards: std::array::from_fn(|_| Mutex::new(HashMap::with_hasher(hasher.clone()))),
            count: AtomicUsize::new(0),
        }
    }

    fn shard(&self, hasher: &RandomState, name: &[u8]) -> Option<&ChannelShard> {
        self.shards.get(hasher.hash_one(name) as usize % SHARDS)
    }

    fn add(&self, hasher: &RandomState, name: &[u8], client: &Arc<Client>) {
        let Some(shard) = self.shard(hasher, name) else { return };
        let mut channels = shard.lock();
        let subscribers = channels.entry(name.into()).or_default();
        if subscribers.is_empty() {
            self.count.fetch_add(1, Ordering::Relaxed);
        }
        subscribers.push(Arc::clone(client));
    }

    fn remove(&self, hasher: &RandomState, name: &[u8], client: &Arc<Client>) {
        let Some(shard) = self.shard(hasher, name) else { return };
        let mut channels = shard.lock();
        if let Some(subscribers) = channels.get_mut(name) {
            subscribers.retain(|other| !Arc::ptr_eq(other, client));
            if subscribers.is_empty() {
                channels.remove(name);
                self.count.fetch_sub(1, Ordering::Relaxed);
            }
        }
    }

    fn names(&self, pattern: Option<&[u8]>) -> Vec<Box<[u8]>> {
        let wanted = |name: &[u8]| pattern.is_none_or(|pattern| glob::matches(pattern, name, false));
        let mut names = Vec::new();
        for shard in &self.shards {
            names.extend(shard.lock().keys().filter(|name| wanted(name)).cloned());
        }
        names
    }

    fn subscribers(&self, hasher: &RandomState, name: &[u8]) -> usize {
        let shard = self.shard(hasher, name);
        shard.map_or(0, |shard| shard.lock().get(name).map_or(0, Vec::len))
    }
}

impl PubSub {
    pub(crate) fn new() -> Self {
        let hasher = RandomState::new();
        Self {
            channels: Channels::new(&hasher),
            shard_channels: Channels::new(&hasher),
            hasher,
            patterns: RwLock::default(),
            pattern_count: AtomicUsize::new(0),
        }
    }

    /// Adds a subscription that the client does not have yet.
    pub(crate) fn subscribe(&self, kind: Kind, name: &[u8], client: &Arc<Client>) {
        match kind {
            Kind::Channel => self.channels.add(&self.hasher, name, client),
            Kind::Shard => self.shard_channels.add(&self.hasher, name, client),
            Kind::Pattern => {
                let mut patterns = self.patterns.write();
                match patterns.iter_mut().find(|(pattern, _)| **pattern == *name) {
                    Some((_, subscribers)) => subscribers.push(Arc::clone(client)),
                    None => patterns.push((name.into(), vec![Arc::clone(client)])),
                }
                self.pattern_count.store(patterns.len(), Ordering::Release);
            }
        }
    }

    /// Takes a subscription away. When it returns no message of it is on its way to the mailbox any more.
    pub(crate) fn unsubscribe(&self, kind: Kind, name: &[u8], client: &Arc<Client>) {
        match kind {
            Kind::Channel => self.channels.remove(&self.hasher, name, client),
            Kind::Shard => self.shard_channels.remove(&self.hasher, name, client),
            Kind::Pattern => {
                let mut patterns = self.patterns.write();
                if let Some((_, subscribers)) = patterns.iter_mut().find(|(pattern, _)| **pattern == *name) {
                    subscribers.retain(|other| !Arc::ptr_eq(other, client));
                }
                patterns.retain(|(_, subscribers)| !subscribers.is_empty());
                self.pattern_count.store(patterns.len(), Ordering::Release);
            }
        }
    }

    /// Publishes a message; how many received it.
    pub(crate) fn publish(&self, channel: &[u8], message: &[u8]) -> usize {
        let mut delivered = 0;
        let Some(shard) = self.channels.shard(&self.hasher, channel) else { return 0 };
        let channels = shard.lock();
        if let Some(subscribers) = channels.get(channel) {
            delivered += Encoded::new(&[b"message", channel, message]).deliver_to(subscribers);
        }
        if self.pattern_count.load(Ordering::Acquire) > 0 {
            for (pattern, subscribers) in self.patterns.read().iter() {
                if glob::matches(pattern, channel, false) {
                    let parts: [&[u8]; 4] = [b"pmessage", pattern, channel, message];
                    delivered += Encoded::new(&parts).deliver_to(subscribers);
                }
            }
        }
        delivered
    }

    /// Publishes to a shard channel; how many received it.
    pub(crate) fn publish_to_shard(&self, channel: &[u8], message: &[u8]) -> usize {
        let Some(shard) = self.shard_channels.shard(&self.hasher, channel) else { return 0 };
        match shard.lock().get(channel) {
            Some(subscribers) => Encoded::new(&[b"smessage", channel, message]).deliver_to(subscribers),
            None => 0,
        }
    }

    /// The channels that somebody is subscribed to by name, those that match `pattern` if one is given.
    pub(crate) fn names(&self, kind: Kind, pattern: Option<&[u8]>) -> Vec<Box<[u8]>> {
        self.space(kind).names(pattern)
    }

    /// Clients subscribed to a channel by name.
    pub(crate) fn subscribers(&self, kind: Kind, name: &[u8]) -> usize {
        self.space(kind).subscribers(&self.hasher, name)
    }

    /// Number of channels, patterns or shard channels that somebody is subscribed to.
    pub(crate) fn count(&self, kind: Kind) -> usize {
        match kind {
            Kind::Pattern => self.pattern_count.load(Ordering::Relaxed),
            _ => self.space(kind).count.load(Ordering::Relaxed),
        }
    }

    /// The clients that have a subscription for which this holds, some of them perhaps twice.
    pub(crate) fn clients_where(&self, holds: impl Fn(Kind, &[u8], &Client) -> bool) -> Vec<Arc<Client>> {
        let mut found = Vec::new();
        let mut look = |kind: Kind, name: &[u8], subscribers: &Subscribers| {
            found.extend(subscribers.iter().filter(|client| holds(kind, name, client)).cloned());
        };
        for kind in [Kind::Channel, Kind::Shard] {
            for shard in &self.space(kind).shards {
                for (name, subscribers) in shard.lock().iter() {
                    look(kind, name, subscribers);
                }
            }
        }
        for (pattern, subscribers) in self.patterns.read().iter() {
            look(Kind::Pattern, pattern, subscribers);
        }
        found
    }

    fn space(&self, kind: Kind) -> &Channels {
        if kind == Kind::Shard { &self.shard_channels } else { &self.channels }
    }
}

/// A message, encoded once per protocol version that is needed.
struct Encoded<'a> {
    parts: &'a [&'a [u8]],
    resp2: Vec<u8>,
    resp3: Vec<u8>,
}

impl<'a> Encoded<'a> {
    fn new(parts: &'a [&'a [u8]]) -> Self {
        Self { parts, resp2: Vec::new(), resp3: Vec::new() }
    }

    fn deliver_to(mut self, subscribers: &Subscribers) -> usize {
        for client in subscribers {
            let version = client.version();
            let bytes = if version == Version::Resp2 { &mut self.resp2 } else { &mut self.resp3 };
            if bytes.is_empty() {
                let mut reply = Reply::new(version);
                reply.push(self.parts.len());
                for part in self.parts {
                    reply.bulk(part);
                }
                *bytes = reply.into_bytes();
            }
            client.mailbox.deliver(bytes);
        }
        subscribers.len()
    }
}

/// What one session is subscribed to.
#[derive(Debug, Default)]
pub(crate) struct Subscriptions {
    channels: Names,
    patterns: Names,
    shard_channels: Names,
}

type Names = hashbrown::HashSet<Box<[u8]>, RandomState>;

impl Subscriptions {
    pub(crate) fn of(&mut self, kind: Kind) -> &mut Names {
        match kind {
            Kind::Channel => &mut self.channels,
            Kind::Pattern => &mut self.patterns,
            Kind::Shard => &mut self.shard_channels,
        }
    }

    pub(crate) fn counts(&self) -> crate::client::SubscriptionCounts {
        crate::client::SubscriptionCounts {
            channels: self.channels.len() as u32,
            patterns: self.patterns.len() as u32,
            shard_channels: self.shard_channels.len() as u32,
        }
    }

    /// The number that a confirmation shows: channels and patterns together, shard channels apart.
    pub(crate) fn shown(&self, kind: Kind) -> usize {
        match kind {
            Kind::Shard => self.shard_channels.len(),
            _ => self.channels.len() + self.patterns.len(),
        }
    }
}
