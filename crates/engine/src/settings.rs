//! The parameters that commands read all the time, mirrored out of the configuration into atomics.
//!
//! Invariant: written by [`Settings::apply`] alone (and by code that owns an engine, through the setters), read relaxed:
//! a change need not reach a command that is already running.

use std::sync::atomic::{
    AtomicBool, AtomicI32, AtomicI64, AtomicU8, AtomicU16, AtomicU32, AtomicU64, AtomicUsize, Ordering,
};

use crate::config::Config;
use crate::keyspace::{AccessClock, EvictionPolicy, LfuParameters};
use crate::notify::EventClasses;
use crate::rdb::Compression;
use crate::time::UnixMillis;
use crate::types::EncodingLimits;

/// See the module.
#[derive(Debug, Default)]
pub struct Settings {
    maxmemory: AtomicU64,
    maxmemory_clients: AtomicI64,
    policy: AtomicU8,
    maxmemory_samples: AtomicUsize,
    lfu_log_factor: AtomicU32,
    lfu_decay_minutes: AtomicU32,
    slowlog_micros: AtomicI64,
    latency_millis: AtomicU64,
    /// Nanoseconds from which on somebody wants to know of a command: the lower one of the two above.
    observe_nanos: AtomicU64,
    slowlog_len: AtomicUsize,
    event_classes: AtomicU16,
    max_bulk_len: AtomicU64,
    tracking_max_keys: AtomicUsize,
    busy_millis: AtomicU64,
    hash_entries: AtomicUsize,
    hash_value: AtomicUsize,
    set_entries: AtomicUsize,
    zset_entries: AtomicUsize,
    zset_value: AtomicUsize,
    list_size: AtomicI32,
    rdb_uncompressed: AtomicBool,
}

impl Settings {
    pub(crate) fn new(config: &Config) -> Self {
        let settings = Self::default();
        settings.apply(config);
        settings
    }

    /// Takes the configuration over.
    pub(crate) fn apply(&self, config: &Config) {
        let size = |name| usize::try_from(config.int(name)).unwrap_or_default();
        let number = |name| u32::try_from(config.int(name)).unwrap_or_default();
        self.set_maxmemory(config.memory("maxmemory"));
        self.maxmemory_clients.store(config.int("maxmemory-clients"), Ordering::Relaxed);
        self.set_policy(EvictionPolicy::from_name(&config.text("maxmemory-policy")).unwrap_or_default());
        self.maxmemory_samples.store(size("maxmemory-samples").min(MAX_SAMPLES), Ordering::Relaxed);
        self.lfu_log_factor.store(number("lfu-log-factor"), Ordering::Relaxed);
        self.lfu_decay_minutes.store(number("lfu-decay-time"), Ordering::Relaxed);
        self.slowlog_micros.store(config.int("slowlog-log-slower-than"), Ordering::Relaxed);
        let latency = config.memory("latency-monitor-threshold");
        self.latency_millis.store(latency, Ordering::Relaxed);
        let slow =
            u64::try_from(self.slowlog_micros()).map_or(u64::MAX, |micros| micros.saturating_mul(1000));
        let late = if latency == 0 { u64::MAX } else { latency.saturating_mul(1_000_000) };
        self.observe_nanos.store(slow.min(late), Ordering::Relaxed);
        self.slowlog_len.store(size("slowlog-max-len"), Ordering::Relaxed);
        self.event_classes.store(config.int("notify-keyspace-events") as u16, Ordering::Relaxed);
        self.max_bulk_len.store(config.memory("proto-max-bulk-len"), Ordering::Relaxed);
        self.tracking_max_keys.store(size("tracking-table-max-keys"), Ordering::Relaxed);
        self.busy_millis.store(config.int("busy-reply-threshold").unsigned_abs(), Ordering::Relaxed);
        self.hash_entries.store(size("hash-max-listpack-entries"), Ordering::Relaxed);
        self.hash_value.store(size("hash-max-listpack-value"), Ordering::Relaxed);
        self.set_entries.store(size("set-max-intset-entries"), Ordering::Relaxed);
        self.zset_entries.store(size("zset-max-listpack-entries"), Ordering::Relaxed);
        self.zset_value.store(size("zset-max-listpack-value"), Ordering::Relaxed);
        self.list_size.store(config.int("list-max-listpack-size") as i32, Ordering::Relaxed);
        self.rdb_uncompressed.store(!config.flag("rdbcompression"), Ordering::Relaxed);
    }

    /// Bytes the keyspace may take; zero for no limit.
    #[inline]
    pub fn maxmemory(&self) -> u64 {
        self.maxmemory.load(Ordering::Relaxed)
    }

    /// Bytes that all clients may hold together, a share of `maxmemory` in percent if it is below zero, zero for no limit.
    pub(crate) fn maxmemory_clients(&self) -> i64 {
        self.maxmemory_clients.load(Ordering::Relaxed)
    }

    pub(crate) fn set_maxmemory(&self, bytes: u64) {
        self.maxmemory.store(bytes, Ordering::Relaxed);
    }

    /// The eviction policy.
    #[inline]
    pub fn policy(&self) -> EvictionPolicy {
        let number = usize::from(self.policy.load(Ordering::Relaxed));
        EvictionPolicy::ALL.get(number).copied().unwrap_or_default()
    }

    pub(crate) fn set_policy(&self, policy: EvictionPolicy) {
        self.policy.store(policy as u8, Ordering::Relaxed);
    }

    /// Entries looked at per eviction.
    pub fn maxmemory_samples(&self) -> usize {
        self.maxmemory_samples.load(Ordering::Relaxed)
    }

    /// How slowly the use counters of LFU grow.
    pub fn lfu_log_factor(&self) -> u32 {
        self.lfu_log_factor.load(Ordering::Relaxed)
    }

    /// Minutes after which an LFU counter has lost one; zero for never.
    pub fn lfu_decay_minutes(&self) -> u32 {
        self.lfu_decay_minutes.load(Ordering::Relaxed)
    }

    pub(crate) fn lfu(&self) -> LfuParameters {
        LfuParameters { log_factor: self.lfu_log_factor(), decay_minutes: self.lfu_decay_minutes() }
    }

    /// How an access at `now` is recorded.
    #[inline]
    pub(crate) fn access_clock(&self, now: UnixMillis) -> AccessClock {
        AccessClock::new(now, self.policy().is_lfu().then(|| self.lfu()))
    }

    /// Microseconds from which on a command is logged as slow; below zero for never.
    pub fn slowlog_micros(&self) -> i64 {
        self.slowlog_micros.load(Ordering::Relaxed)
    }

    /// Milliseconds from which on the latency monitor records an event; zero for never.
    pub fn latency_millis(&self) -> u64 {
        self.latency_millis.load(Ordering::Relaxed)
    }

    /// Nanoseconds from which on a command is logged or recorded as slow.
    #[inline]
    pub(crate) fn observe_nanos(&self) -> u64 {
        self.observe_nanos.load(Ordering::Relaxed)
    }

    /// Entries that the slow log keeps.
    pub fn slowlog_len(&self) -> usize {
        self.slowlog_len.load(Ordering::Relaxed)
    }

    /// Which keyspace events are published.
    #[inline]
    pub(crate) fn event_classes(&self) -> EventClasses {
        EventClasses::from_bits(self.event_classes.load(Ordering::Relaxed))
    }

    /// Bytes of the longest string.
    pub fn max_bulk_len(&self) -> u64 {
        self.max_bulk_len.load(Ordering::Relaxed)
    }

    /// Milliseconds after which a script takes too long; zero for never.
    pub(crate) fn busy_reply_threshold(&self) -> u64 {
        self.busy_millis.load(Ordering::Relaxed)
    }

    /// Keys that are remembered as read by clients that track; zero for any number.
    pub(crate) fn tracking_max_keys(&self) -> usize {
        self.tracking_max_keys.load(Ordering::Relaxed)
    }

    /// Whether strings in snapshots and DUMP payloads are compressed.
    pub fn rdb_compression(&self) -> Compression {
        if self.rdb_uncompressed.load(Ordering::Relaxed) { Compression::Off } else { Compression::Lzf }
    }

    /// When collections leave their compact encodings.
    pub fn encoding_limits(&self) -> EncodingLimits {
        EncodingLimits {
            hash_max_listpack_entries: self.hash_entries.load(Ordering::Relaxed),
            hash_max_listpack_value: self.hash_value.load(Ordering::Relaxed),
            set_max_intset_entries: self.set_entries.load(Ordering::Relaxed),
            zset_max_listpack_entries: self.zset_entries.load(Ordering::Relaxed),
            zset_max_listpack_value: self.zset_value.load(Ordering::Relaxed),
            list_max_listpack_size: self.list_size.load(Ordering::Relaxed),
        }
    }
}

/// More samples than this per eviction cost more than they improve the choice. Default: 64.
const MAX_SAMPLES: usize = 64;
