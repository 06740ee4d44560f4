//! Client-side caching: who is told when which key changes ("Client-side caching" in Redis' manual).
//!
//! In the default mode the engine remembers which client has read which key, and the next change of the key tells them, once.
//! In `BCAST` mode nothing is remembered: a client hears of every key under its prefixes. Either way the client is told
//! through its mailbox, under the lock of the key's shard, so that the message follows every reply that showed the older value
//! and precedes every reply to a command that comes later.
//!
//! Invariants: a key that a tracking client has read is in the table until that client has been told or tracks no more; the
//! table is bounded by `tracking-table-max-keys`, beyond which clients are told of keys that did not change. Locks: a shard
//! of the keyspace may be held, and none is taken here. Deliberately absent: the commands, in `commands/tracking.rs`.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64, AtomicUsize, Ordering};

use ahash::RandomState;
use hashbrown::HashMap;
use mtcache_protocol::{CommandFlags, CommandSpec, Reply, Version};
use parking_lot::{Mutex, RwLock};
use smallvec::SmallVec;

use crate::client::Client;
use crate::context::Ctx;
use crate::registry::Registry;
use crate::session::Caching;

/// Parts of the table, so that readers of different keys do not wait for each other.
const PARTS: usize = 16;

/// The channel on which a client that speaks RESP2 hears of keys.
const CHANNEL: &[u8] = b"__redis__:invalidate";

/// Who is told what.
pub(crate) struct Tracking {
    hasher: RandomState,
    /// Clients that track in any mode: where there are none, a write stops here.
    clients: AtomicUsize,
    parts: [Mutex<Readers>; PARTS],
    keys: AtomicUsize,
    items: AtomicUsize,
    prefixes: RwLock<Vec<(Box<[u8]>, Vec<Arc<Client>>)>>,
    /// Number of prefixes, to be asked without the lock.
    prefix_count: AtomicUsize,
}

/// The ids of the clients that have read a key.
type Readers = HashMap<Box<[u8]>, SmallVec<[u64; 2]>, RandomState>;

/// How a client tracks: flags of [`TrackingFace`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Mode {
    On = 1,
    Broadcast = 1 << 1,
    OptIn = 1 << 2,
    OptOut = 1 << 3,
    NoLoop = 1 << 4,
    /// The client that messages went to is gone.
    BrokenRedirect = 1 << 5,
}

/// What others see of how a client tracks.
#[derive(Debug, Default)]
pub(crate) struct TrackingFace {
    modes: AtomicU8,
    redirect: AtomicU64,
}

impl TrackingFace {
    #[inline]
    pub(crate) fn is(&self, mode: Mode) -> bool {
        self.modes.load(Ordering::Relaxed) & mode as u8 != 0
    }

    /// The client that messages go to instead; zero for none.
    pub(crate) fn redirect(&self) -> u64 {
        self.redirect.load(Ordering::Relaxed)
    }

    /// Whether what the client reads is remembered.
    #[inline]
    fn reads_are_tracked(&self) -> bool {
        self.modes.load(Ordering::Relaxed) & (Mode::On as u8 | Mode::Broadcast as u8) == Mode::On as u8
    }
}

/// What `CLIENT TRACKING ON` asks for, checked.
#[derive(Debug, Default)]
pub(crate) struct Wish<'a> {
    /// [`Mode`]s beside `On`.
    pub(crate) modes: u8,
    pub(crate) redirect: u64,
    pub(crate) prefixes: Vec<&'a [u8]>,
}

impl Tracking {
    pub(crate) fn new() -> Self {
        let hasher = RandomState::new();
        Self {
            parts: std::array::from_fn(|_| Mutex::new(HashMap::with_hasher(hasher.clone()))),
            hasher,
            clients: AtomicUsize::new(0),
            keys: AtomicUsize::new(0),
            items: AtomicUsize::new(0),
            prefixes: RwLock::default(),
            prefix_count: AtomicUsize::new(0),
        }
    }

    /// Clients that track.
    #[inline]
    pub(crate) fn clients(&self) -> usize {
        self.clients.load(Ordering::Relaxed)
    }

    /// Keys that somebody has read, the readers of all of them, and prefixes that somebody hears of.
    pub(crate) fn counts(&self) -> [usize; 3] {
        [&self.keys, &self.items, &self.prefix_count].map(|count| count.load(Ordering::Relaxed))
    }

    /// Starts to track, or changes how; prefixes add to those that are there.
    pub(crate) fn start(&self, client: &Arc<Client>, wish: &Wish<'_>) {
        let face = &client.tracking;
        if !face.is(Mode::On) {
            self.clients.fetch_add(1, Ordering::Relaxed);
        }
        face.redirect.store(wish.redirect, Ordering::Relaxed);
        face.modes.store(wish.modes | Mode::On as u8, Ordering::Relaxed);
        if wish.modes & Mode::Broadcast as u8 != 0 {
            let every_key: &[&[u8]] = &[b""];
            let prefixes = if wish.prefixes.is_empty() { every_key } else { &wish.prefixes };
            for prefix in prefixes {
                self.hear(client, prefix);
            }
        }
    }

    /// Ends it. What was remembered of the client is forgotten when those keys change.
    pub(crate) fn stop(&self, client: &Arc<Client>) {
        let face = &client.tracking;
        if !face.is(Mode::On) {
            return;
        }
        self.clients.fetch_sub(1, Ordering::Relaxed);
        if face.is(Mode::Broadcast) {
            let mut prefixes = self.prefixes.write();
            for (_, clients) in prefixes.iter_mut() {
                clients.retain(|other| !Arc::ptr_eq(other, client));
            }
            prefixes.retain(|(_, clients)| !clients.is_empty());
            self.prefix_count.store(prefixes.len(), Ordering::Relaxed);
        }
        face.modes.store(0, Ordering::Relaxed);
        face.redirect.store(0, Ordering::Relaxed);
    }

    /// The prefixes that a client hears of, in their order.
    pub(crate) fn prefixes_of(&self, client: &Arc<Client>) -> Vec<Box<[u8]>> {
        let prefixes = self.prefixes.read();
        let mine = prefixes.iter().filter(|(_, clients)| clients.iter().any(|c| Arc::ptr_eq(c, client)));
        let mut mine: Vec<Box<[u8]>> = mine.map(|(prefix, _)| prefix.clone()).collect();
        mine.sort_unstable();
        mine
    }

    /// Remembers that a client has read a key. `limit` bounds the keys that are remembered; zero does not.
    pub(crate) fn remember(&self, registry: &Registry, client: &Client, key: &[u8], limit: usize) {
        if !client.tracking.reads_are_tracked() {
            return;
        }
        let Some(part) = self.part(key) else { return };
        let forgotten = {
            let mut readers = part.lock();
            let ids = match readers.get_mut(key) {
                Some(ids) => ids,
                None => {
                    self.keys.fetch_add(1, Ordering::Relaxed);
                    readers.entry(key.into()).or_default()
                }
            };
            if !ids.contains(&client.id) {
                ids.push(client.id);
                self.items.fetch_add(1, Ordering::Relaxed);
            }
            let is_over = limit > 0 && self.keys.load(Ordering::Relaxed) > limit;
            let other = is_over.then(|| readers.keys().find(|other| ***other != *key).cloned()).flatten();
            other.and_then(|other| self.forget(&mut readers, &other).map(|ids| (other, ids)))
        };
        if let Some((key, ids)) = forgotten {
            tell_all(registry, &ids, &key, 0);
        }
    }

    /// Tells those who have read a key, or hear of its prefix, that client `by` has changed it; zero for nobody.
    #[inline]
    pub(crate) fn changed(&self, registry: &Registry, key: &[u8], by: u64) {
        if self.clients() > 0 {
            self.tell_of(registry, key, by);
        }
    }

    #[cold]
    fn tell_of(&self, registry: &Registry, key: &[u8], by: u64) {
        if self.keys.load(Ordering::Relaxed) > 0
            && let Some(part) = self.part(key)
        {
            let ids = self.forget(&mut part.lock(), key);
            tell_all(registry, &ids.unwrap_or_default(), key, by);
        }
        if self.prefix_count.load(Ordering::Relaxed) == 0 {
            return;
        }
        let prefixes = self.prefixes.read();
        for (_, clients) in prefixes.iter().filter(|(prefix, _)| key.starts_with(prefix)) {
            for client in clients {
                if !(client.id == by && client.tracking.is(Mode::NoLoop)) {
                    tell(registry, client, Some(key));
                }
            }
        }
    }

    /// Tells every client that tracks that all keys are gone.
    pub(crate) fn flushed(&self, registry: &Registry) {
        if self.clients() == 0 {
            return;
        }
        for part in &self.parts {
            let gone = std::mem::replace(&mut *part.lock(), HashMap::with_hasher(self.hasher.clone()));
            self.keys.fetch_sub(gone.len(), Ordering::Relaxed);
            self.items.fetch_sub(gone.values().map(SmallVec::len).sum(), Ordering::Relaxed);
        }
        for client in registry.all().iter().filter(|client| client.tracking.is(Mode::On)) {
            tell(registry, client, None);
        }
    }

    fn part(&self, key: &[u8]) -> Option<&Mutex<Readers>> {
        self.parts.get(self.hasher.hash_one(key) as usize % PARTS)
    }

    fn forget(&self, readers: &mut Readers, key: &[u8]) -> Option<SmallVec<[u64; 2]>> {
        let ids = readers.remove(key)?;
        self.keys.fetch_sub(1, Ordering::Relaxed);
        self.items.fetch_sub(ids.len(), Ordering::Relaxed);
        Some(ids)
    }

    fn hear(&self, client: &Arc<Client>, prefix: &[u8]) {
        let mut prefixes = self.prefixes.write();
        match prefixes.iter_mut().find(|(known, _)| **known == *prefix) {
            Some((_, clients)) if clients.iter().any(|other| Arc::ptr_eq(other, client)) => {}
            Some((_, clients)) => clients.push(Arc::clone(client)),
            None => prefixes.push((prefix.into(), vec![Arc::clone(client)])),
        }
        self.prefix_count.store(prefixes.len(), Ordering::Relaxed);
    }
}

impl Ctx<'_, '_> {
    /// Remembers, for a client that tracks, which keys a command has read. Called while their shards are locked.
    #[cold]
    pub(crate) fn remember_reads(&mut self, spec: &CommandSpec, args: &[&[u8]]) {
        let client = &self.session.client;
        let is_wanted = if client.tracking.is(Mode::OptIn) {
            self.session.caching == Caching::Yes
        } else {
            !(client.tracking.is(Mode::OptOut) && self.session.caching == Caching::No)
        };
        // A script's own commands say what was read.
        let is_script = matches!(spec.name, "eval_ro" | "evalsha_ro" | "fcall_ro");
        if !is_wanted || is_script || !spec.flags.contains(CommandFlags::READONLY) {
            return;
        }
        let mut keys = SmallVec::new();
        if mtcache_protocol::keys(spec, args, &mut keys).is_err() {
            return;
        }
        let limit = self.engine.settings.tracking_max_keys();
        for key in keys.iter().filter_map(|&index| args.get(index)) {
            self.engine.tracking.remember(&self.engine.registry, client, key, limit);
        }
    }
}

/// Tells the readers of a key that still track what they read.
fn tell_all(registry: &Registry, ids: &[u64], key: &[u8], by: u64) {
    for &id in ids {
        if let Some(client) = registry.get(id)
            && client.tracking.reads_are_tracked()
            && !(id == by && client.tracking.is(Mode::NoLoop))
        {
            tell(registry, &client, Some(key));
        }
    }
}

/// Tells one client, or the one that it has named instead, of a key, or without one that all keys are gone.
fn tell(registry: &Registry, client: &Arc<Client>, key: Option<&[u8]>) {
    let redirect = client.tracking.redirect();
    if redirect == 0 {
        if client.version() == Version::Resp3 {
            client.mailbox.deliver(message(Version::Resp3, client.version(), key).as_bytes());
        }
        return;
    }
    match registry.get(redirect).filter(|target| !target.is_killed()) {
        Some(target) if target.version() == Version::Resp3 || target.is_subscribed() => {
            target.mailbox.deliver(message(target.version(), client.version(), key).as_bytes());
        }
        Some(_) => {}
        None => {
            client.tracking.modes.fetch_or(Mode::BrokenRedirect as u8, Ordering::Relaxed);
            if client.version() == Version::Resp3 {
                let mut broken = Reply::new(Version::Resp3);
                broken.push(2);
                broken.bulk(b"tracking-redir-broken");
                broken.integer(redirect as i64);
                client.mailbox.deliver(broken.as_bytes());
            }
        }
    }
}

/// The message for a client that speaks `version`. The null of a flush is in the version of the one that tracks, as in Redis.
fn message(version: Version, of: Version, key: Option<&[u8]>) -> Reply {
    let mut message = Reply::new(version);
    match version {
        Version::Resp3 => {
            message.push(2);
            message.bulk(b"invalidate");
        }
        Version::Resp2 => {
            message.array(3);
            message.bulk(b"message");
            message.bulk(CHANNEL);
        }
    }
    match key {
        Some(key) => {
            message.array(1);
            message.bulk(key);
        }
        None => message.raw(if of == Version::Resp3 { b"_\r\n" } else { b"$-1\r\n" }),
    }
    message
}
