//! The engine: everything that is stored and known, behind one type that any thread may call.
//!
//! Public entry points are [`Engine::dispatch`] for one command as it came over a connection, and the timers that whoever
//! owns the engine calls ([`Engine::expire_cycle`]). Time comes in through the [`Clock`], writes go out through
//! the [`Journal`].

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicIsize, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use parking_lot::Mutex;

use crate::acl::Acl;
use crate::blocking::Blocking;
use crate::client::{Client, Mailbox};
use crate::config::{Config, ConfigListener, RuntimeConfig, rewritten};
use crate::error::CommandError;
use crate::host::{Host, Hosts};
use crate::journal::{Journal, JournalSlot};
use crate::keyspace::{
    DEFAULT_DATABASES, DbIndex, EvictionPolicy, EvictionPool, EvictionRules, Keyspace, Room, random_below,
};
use crate::latency::LatencyMonitor;
use crate::monitor::Monitors;
use crate::notify::{Class, EventClasses};
use crate::pause::Pause;
use crate::pubsub::PubSub;
use crate::registry::Registry;
use crate::script::Scripts;
use crate::session::Session;
use crate::settings::Settings;
use crate::slowlog::SlowLog;
use crate::stats::{CommandStats, Stats, Totals};
use crate::time::{Clock, UnixMillis};
use crate::tracking::Tracking;

/// How an engine is made.
#[derive(Debug, Clone)]
pub struct EngineOptions {
    /// Number of shards, rounded up to a power of two. Default: 16.
    pub shards: usize,
    /// The configuration to begin with. Default: [`Config::default`].
    pub config: Config,
}

impl Default for EngineOptions {
    fn default() -> Self {
        Self { shards: 16, config: Config::default() }
    }
}

/// What an allocator may lose to fragmentation before `maxmemory` counts it: pages that are only partly used are resident all
/// the same. Default: 32 MB.
pub const MAX_FRAGMENTATION: usize = 32 * 1024 * 1024;

/// What a process has allocated, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct AllocatedMemory {
    /// All that is given out.
    pub bytes: usize,
    /// The part of it that holds what the journal has not brought to disk, which `maxmemory` does not count.
    pub of_journal: usize,
    /// The pages that hold what is given out.
    pub in_pages: usize,
}

/// The engine.
pub struct Engine {
    pub(crate) keyspace: Keyspace,
    pub(crate) settings: Settings,
    config: RuntimeConfig,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) scripts: Scripts,
    pub(crate) acl: Arc<Acl>,
    pub(crate) journal: JournalSlot,
    next_client_id: AtomicU64,
    /// What the process had allocated beyond our account of the keyspace (or, below zero, less) when its owner last looked.
    external_memory: AtomicIsize,
    /// Bytes that are in use and that eviction could not make fewer: the journal's.
    not_evictable: AtomicUsize,
    /// Bytes that the allocator loses to fragmentation beyond [`MAX_FRAGMENTATION`].
    excess_fragmentation: AtomicUsize,
    pub(crate) registry: Registry,
    pub(crate) pubsub: PubSub,
    pub(crate) tracking: Tracking,
    pub(crate) monitors: Monitors,
    pub(crate) blocking: Blocking,
    pub(crate) pause: Pause,
    pub(crate) slowlog: SlowLog,
    pub(crate) latency: LatencyMonitor,
    pub(crate) stats: Stats,
    pub(crate) hosts: Hosts,
    started: UnixMillis,
    run_id: String,
    peak_memory: AtomicUsize,
    /// The best victims seen so far. Locked before any shard, never after.
    pool: Mutex<EvictionPool>,
    /// What a snapshot that is being written has saved before changes, and whether there is one.
    pub(crate) room: Arc<Room>,
    pub(crate) is_capturing: AtomicBool,
    /// Changes that belong to no key.
    pub(crate) other_changes: AtomicU64,
    snapshots_fail: AtomicBool,
    /// Off only by `DEBUG SET-ACTIVE-EXPIRE`.
    pub(crate) expires_actively: AtomicBool,
}

impl Engine {
    /// An empty engine.
    pub fn new(options: &EngineOptions, clock: Arc<dyn Clock>) -> Self {
        let databases = usize::try_from(options.config.int("databases")).unwrap_or(DEFAULT_DATABASES);
        let acl = Arc::new(Acl::new(&options.config));
        let config = RuntimeConfig::new(options.config.clone());
        config.listen(Arc::clone(&acl) as _);
        let keyspace = Keyspace::new(options.shards, databases.clamp(1, 255));
        let scripts = Scripts::new(Arc::clone(&clock), Arc::clone(keyspace.busy()));
        Self {
            acl,
            keyspace,
            settings: Settings::new(&options.config),
            config,
            registry: Registry::default(),
            pubsub: PubSub::new(),
            tracking: Tracking::new(),
            monitors: Monitors::default(),
            blocking: Blocking::default(),
            pause: Pause::default(),
            slowlog: SlowLog::default(),
            latency: LatencyMonitor::default(),
            stats: Stats::new(),
            hosts: Hosts::default(),
            started: clock.now(),
            run_id: make_run_id(),
            peak_memory: AtomicUsize::new(0),
            clock,
            scripts,
            journal: JournalSlot::default(),
            next_client_id: AtomicU64::new(1),
            external_memory: AtomicIsize::new(0),
            not_evictable: AtomicUsize::new(0),
            excess_fragmentation: AtomicUsize::new(0),
            pool: Mutex::new(EvictionPool::default()),
            room: Arc::default(),
            is_capturing: AtomicBool::new(false),
            other_changes: AtomicU64::new(0),
            snapshots_fail: AtomicBool::new(false),
            expires_actively: AtomicBool::new(true),
        }
    }

    /// Attaches the journal; from here on every write goes there. Can be done once, after the replay.
    pub fn attach_journal(&self, journal: Arc<dyn Journal>) -> bool {
        self.journal.set(journal)
    }

    /// Whether writes go to the journal that is attached; they do until this is called. To be called while every shard is
    /// locked where the journal is to know exactly what is written from then on.
    pub fn keep_journal(&self, on: bool) {
        self.journal.switch(on);
    }

    /// Makes the public face of a new connection. Ends with [`disconnect`](Self::disconnect).
    pub fn connect(&self, addr: String, laddr: String, mailbox: Box<dyn Mailbox>) -> Arc<Client> {
        let id = self.next_client_id.fetch_add(1, Ordering::Relaxed);
        let client = Arc::new(Client::new(id, addr, laddr, self.clock.now(), mailbox));
        self.registry.add(&client);
        self.stats.connected();
        client
    }

    /// Ends a session: forgets what it watches and what it is subscribed to, and takes it off the list of clients.
    pub fn disconnect(&self, session: &mut Session) {
        self.forget(session);
        self.registry.remove(session.client.id);
    }

    /// Counts a connection that was turned away.
    pub fn count_rejected_connection(&self) {
        self.stats.connection_rejected();
    }

    /// Counts bytes that one read from a connection has brought and one write to it has taken; zero for none.
    #[inline]
    pub fn count_network(&self, received: u64, sent: u64) {
        self.stats.network(received, sent);
    }

    /// Takes a sample for the rates that `INFO` shows, and of the peak of memory. To be called ten times a second.
    pub fn sample_rates(&self) {
        self.stats.sample(self.clock.monotonic_nanos());
        self.note_peak(self.used_memory() as u64);
    }

    /// What was counted since the start or the last `CONFIG RESETSTAT`.
    pub fn totals(&self) -> Totals {
        self.stats.totals()
    }

    /// The commands that were called since then, by name.
    pub fn command_stats(&self) -> Vec<(&'static str, CommandStats)> {
        self.stats.commands().into_iter().map(|(spec, stats)| (spec.full_name(), stats)).collect()
    }

    /// Makes an owner of the engine known: it adds to `INFO` and is asked to do what the engine cannot.
    pub fn add_host(&self, host: Arc<dyn Host>) {
        self.hosts.add(host);
    }

    /// Every client that is connected, oldest first.
    pub fn clients(&self) -> Vec<Arc<Client>> {
        self.registry.all()
    }

    /// Ends a connection from inside; false if there is none of that number.
    pub fn kill_client(&self, id: u64) -> bool {
        self.registry.get(id).is_some_and(|client| {
            client.kill();
            true
        })
    }

    /// When the engine was made.
    pub fn started(&self) -> UnixMillis {
        self.started
    }

    /// Forty hexadecimal digits that tell this run of the engine from any other.
    pub fn run_id(&self) -> &str {
        &self.run_id
    }

    /// The highest use of memory seen, given the one at present.
    pub(crate) fn note_peak(&self, used: u64) -> u64 {
        self.peak_memory.fetch_max(used as usize, Ordering::Relaxed).max(used as usize) as u64
    }

    /// Whether writes can be made durable at present.
    pub(crate) fn accepts_writes(&self) -> bool {
        self.journal.get().is_none_or(|journal| journal.accepts_writes())
    }

    /// Makes writes be refused from now on because snapshots cannot be written (`stop-writes-on-bgsave-error`), or not.
    pub fn refuse_writes_for_snapshots(&self, refuse: bool) {
        self.snapshots_fail.store(refuse, Ordering::Relaxed);
    }

    /// Whether writes are refused because snapshots cannot be written.
    pub(crate) fn snapshots_fail(&self) -> bool {
        self.snapshots_fail.load(Ordering::Relaxed)
    }

    /// Number of databases.
    pub fn databases(&self) -> usize {
        self.keyspace.databases()
    }

    /// The wall clock.
    pub fn now(&self) -> UnixMillis {
        self.clock.now()
    }

    /// The configuration.
    pub fn config(&self) -> Arc<Config> {
        self.config.get()
    }

    /// Changes parameters as `CONFIG SET` does: name, value, name, value; wholly or not at all.
    pub fn set_config(&self, pairs: &[&[u8]]) -> Result<(), CommandError> {
        self.config.change(&self.settings, pairs)
    }

    /// `CONFIG REWRITE`: brings the configuration file to the values in force.
    pub(crate) fn rewrite_config(&self) -> Result<(), CommandError> {
        let path = self.hosts.report().config_file;
        if path.is_empty() {
            return Err(CommandError::new("ERR The server is running without a config file"));
        }
        let failed = |reason: String| CommandError::new(format!("ERR Rewriting config file: {reason}"));
        let nobody = || Err("nobody here knows files".to_owned());
        let old = self.hosts.read_file(&path).unwrap_or_else(nobody).map_err(failed)?;
        let config = self.config();
        let users = config.bytes("aclfile").is_empty().then(|| self.acl_lines());
        let new = rewritten(&old, &config, users.as_deref());
        self.hosts
            .replace_file(&path, &new)
            .unwrap_or_else(|| Err("nobody here writes files".to_owned()))
            .map_err(failed)
    }

    /// Makes `listener` hear of every change of the configuration from now on.
    pub fn on_config_change(&self, listener: Arc<dyn ConfigListener>) {
        self.config.listen(listener);
    }

    /// The parameters that commands read all the time.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// The eviction policy in force.
    #[inline]
    pub fn policy(&self) -> EvictionPolicy {
        self.settings.policy()
    }

    /// Bytes in use. In a process that tells what its allocator says ([`set_allocated_memory`](Self::set_allocated_memory))
    /// these are all of its bytes, otherwise those of the keyspace.
    pub fn used_memory(&self) -> usize {
        self.keyspace.used_memory().saturating_add_signed(self.external_memory.load(Ordering::Relaxed))
    }

    /// Tells the engine what the process has allocated. What the keyspace does between two calls is accounted for without
    /// them.
    pub fn set_allocated_memory(&self, allocated: AllocatedMemory) {
        let AllocatedMemory { bytes, of_journal, in_pages } = allocated;
        let external = bytes as isize - self.keyspace.used_memory() as isize;
        self.external_memory.store(external, Ordering::Relaxed);
        self.not_evictable.store(of_journal.min(bytes), Ordering::Relaxed);
        let wasted = in_pages.saturating_sub(bytes).saturating_sub(MAX_FRAGMENTATION);
        self.excess_fragmentation.store(wasted, Ordering::Relaxed);
    }

    /// Bytes in use that `maxmemory` does not count.
    pub(crate) fn not_evictable(&self) -> usize {
        self.not_evictable.load(Ordering::Relaxed)
    }

    /// Bytes in use as `maxmemory` counts them.
    fn counted_memory(&self) -> u64 {
        let wasted = self.excess_fragmentation.load(Ordering::Relaxed);
        (self.used_memory().saturating_sub(self.not_evictable()) + wasted) as u64
    }

    /// Publishes a keyspace notification if its class is switched on. The subscribers' mailboxes take it under whatever locks
    /// the caller holds, so that the events of a key arrive in the order in which they happened.
    #[inline]
    pub(crate) fn notify(&self, db: DbIndex, class: Class, event: &'static str, key: &[u8]) {
        let classes = self.settings.event_classes();
        if classes.wants(class) {
            self.publish_event(classes, db, event, key);
        }
    }

    #[cold]
    fn publish_event(&self, classes: EventClasses, db: DbIndex, event: &'static str, key: &[u8]) {
        if classes.to_keyspace() {
            let channel = [format!("__keyspace@{db}__:").as_bytes(), key].concat();
            self.pubsub.publish(&channel, event.as_bytes());
        }
        if classes.to_keyevent() {
            self.pubsub.publish(format!("__keyevent@{db}__:{event}").as_bytes(), key);
        }
    }

    /// Whether there is surely room below `limit`, told at a glance.
    #[inline]
    fn has_room(&self, limit: u64) -> bool {
        let external =
            self.external_memory.load(Ordering::Relaxed).saturating_sub_unsigned(self.not_evictable());
        let external = external.saturating_add_unsigned(self.excess_fragmentation.load(Ordering::Relaxed));
        usize::try_from(limit).is_ok_and(|limit| {
            self.keyspace.is_surely_within(limit.saturating_add_signed(external.saturating_neg()))
        })
    }

    /// Whether a write that takes memory may go on: evicts until the use is below `maxmemory`. Called without locks.
    pub(crate) fn make_room(&self, now: UnixMillis) -> bool {
        /// Evictions for one command; a write that needs more leaves the rest to the next.
        const MAX_PER_COMMAND: usize = 10_000;
        let limit = self.settings.maxmemory();
        if limit == 0 || self.has_room(limit) || self.counted_memory() <= limit {
            return true;
        }
        if self.is_paused(now) {
            return true;
        }
        let started = self.clock.monotonic_nanos();
        let mut pool = self.pool.lock();
        let mut has_victims = true;
        for _ in 0..MAX_PER_COMMAND {
            has_victims = self.evict_one(&mut pool, now);
            if !has_victims || self.counted_memory() <= limit {
                break;
            }
        }
        drop(pool);
        self.record_latency("eviction-cycle", self.since(started));
        has_victims
    }

    /// Evicts until the use is below `maxmemory`, for whoever owns the engine: the limit may have been lowered, or memory
    /// taken by something that is no write. To be called several times a second.
    pub fn hold_memory(&self) {
        self.make_room(self.clock.now());
    }

    /// Evicts the best candidate under the policy. False when there is none.
    fn evict_one(&self, pool: &mut EvictionPool, now: UnixMillis) -> bool {
        let policy = self.policy();
        if policy == EvictionPolicy::NoEviction {
            return false;
        }
        let rules =
            EvictionRules { policy, samples: self.settings.maxmemory_samples(), lfu: self.settings.lfu() };
        let shards = self.keyspace.shards();
        let start = random_below(shards);
        // One random shard is enough where it has entries; only an almost empty keyspace makes this look further.
        for step in 0..shards {
            let number = (start + step) & (shards - 1);
            {
                let Some(mut locked) = self.keyspace.lock_one_unless_busy(number) else { return false };
                let shard = locked.shard(number);
                for db in 0..self.keyspace.databases() as DbIndex {
                    pool.sample(number, shard, db, rules, now);
                }
            }
            while let Some((number, db, key)) = pool.best() {
                if self.evict(number, db, &key, policy) {
                    return true;
                }
            }
        }
        false
    }

    fn evict(&self, number: usize, db: DbIndex, key: &[u8], policy: EvictionPolicy) -> bool {
        let hash = self.keyspace.hash(key);
        let entry = {
            let Some(mut locked) = self.keyspace.lock_one_unless_busy(number) else { return false };
            let shard = locked.shard(number);
            let Some(slot) = shard.victim(db, hash, key, policy) else { return false };
            let entry = shard.take(db, slot);
            shard.counters.evicted += 1;
            shard.signal(db, key);
            self.tracking.changed(&self.registry, key, 0);
            self.journal_removal(db, key);
            // Under the lock, as all events of a key, so that they come in the order in which they happened.
            self.notify(db, Class::Evicted, "evicted", key);
            entry
        };
        entry.is_some()
    }

    /// Removes expired entries that nobody asks for, up to `budget` per shard and database. Whether there is more to do.
    pub fn expire_cycle(&self, budget: usize) -> bool {
        let now = self.clock.now();
        let started = self.clock.monotonic_nanos();
        let mut more = false;
        if self.is_paused(now) || !self.expires_actively.load(Ordering::Relaxed) {
            return false;
        }
        for number in 0..self.keyspace.shards() {
            let mut garbage = Vec::new();
            let Some(mut locked) = self.keyspace.lock_one_unless_busy(number) else { return false };
            let shard = locked.shard(number);
            for db in 0..self.keyspace.databases() as DbIndex {
                let cycle = shard.expire_some(db, now, budget, |shard, entry| {
                    shard.signal(db, entry.key());
                    self.tracking.changed(&self.registry, entry.key(), 0);
                    self.journal_removal(db, entry.key());
                    self.notify(db, Class::Expired, "expired", entry.key());
                    garbage.push(entry);
                });
                more |= cycle.more;
            }
            drop(locked);
        }
        let took = self.since(started);
        self.stats.expired_for(u64::try_from(took.as_nanos()).unwrap_or(u64::MAX));
        self.record_latency("expire-cycle", took);
        more
    }

    /// The time since a reading of the monotonic clock.
    fn since(&self, started: u64) -> Duration {
        Duration::from_nanos(self.clock.monotonic_nanos().saturating_sub(started))
    }

    /// Journals a removal that no client asked for. Called under the shard's lock.
    fn journal_removal(&self, db: DbIndex, key: &[u8]) {
        if let Some(journal) = self.journal.get() {
            journal.append(db, crate::journal::Commands::Args(&[b"DEL", key]));
        }
    }
}

/// Random enough to tell runs apart; nothing secret depends on it.
fn make_run_id() -> String {
    let part = |part: u8| format!("{:016x}", ahash::RandomState::new().hash_one(part));
    let digits = [part(0), part(1), part(2)].concat();
    digits.get(..40).unwrap_or_default().to_owned()
}
