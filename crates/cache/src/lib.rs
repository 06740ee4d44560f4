//! The caching layer: typed regions over an embedded engine or a Redis, with reads that say what they returned.
//!
//! What it promises (the contract is in the product's documents): one load per key, no load that began before a set or an
//! invalidation stores after it, errors that are values, recovery by itself. Deliberately absent: what is cached (trading words live a
//! floor above) and how bytes reach a server (a floor below).

mod backend;
mod background;
mod batch;
mod builder;
mod cache;
mod call_site;
mod checker;
mod clearing;
pub mod codec;
pub mod collections;
mod control;
mod error;
mod events;
mod fail_safe;
mod fill_token;
pub mod frame;
mod framed;
mod health;
mod keys;
mod lease;
mod load;
mod loader;
mod metrics;
mod near;
mod newer;
mod options;
mod pending;
mod published;
mod read;
mod read_probe;
mod read_through;
mod refresh;
mod region;
mod setting_text;
mod settings;
mod shared;
mod single_flight;
pub mod slot;
mod stats;
mod switched;
mod tags;
mod tally;
mod terms;
mod timeouts;
mod timestamp;
mod told;
mod ttl;
mod warm_up;
mod writing;

pub use mtcache_link::{BreakerState, Refusal, Reply, Script, TlsOptions, TrackingState, Verification};

pub use crate::backend::Order;
pub use crate::batch::{MAX_BATCH, Outcomes};
pub use crate::builder::CacheBuilder;
pub use crate::cache::Cache;
pub use crate::call_site::{CallKey, CallSite, KeyArgument, dotted};
pub use crate::clearing::Progress;
pub use crate::codec::Codec;
pub use crate::control::{RegionControl, RegionMode};
pub use crate::error::{Error, ErrorKind, Outcome, Result};
pub use crate::events::{Event, EventStream, Heard, MAX_EVENTS_BEHIND, Observer, RemovalCause};
pub use crate::frame::{COMPRESS_ABOVE, Compression, Framing, PlainValues};
pub use crate::health::{Health, HealthLevel, LastError};
pub use crate::keys::KeyParts;
pub use crate::lease::LEASE_TTL;
pub use crate::loader::{Loaded, Previous};
pub use crate::metrics::{Metric, MetricKind, all_metrics};
pub use crate::options::{Condition, DEFAULT_TTL, SetOptions};
pub use crate::published::{ProcessStats, PublishedStats};
pub use crate::read::{Age, Counted, Read, ReadOptions, Source, Staleness};
pub use crate::read_probe::StaleReads;
pub use crate::region::{NONE_TTL, Region, RegionPolicy, Undecodable};
pub use crate::settings::{RegionChange, Reloaded, SETTINGS, Setting, SettingChange};
pub use crate::stats::RegionStats;
pub use crate::tags::{MAX_TAG_BYTES, MAX_TAGS, Tag, TagToken};
pub use crate::timeouts::{LOAD_TIMEOUT, MAX_LOAD_WAIT, MAX_LOADS, MAX_WAITING_LOADS};
pub use crate::timestamp::Timestamp;
pub use crate::ttl::{TimeLeft, Ttl};
pub use crate::warm_up::{WARM_UP_AT_ONCE, WARM_UP_PER_SECOND, WarmUp, WarmUpReport, hot_keys};
