//! Everything that speaks to a Redis, Valkey or our own server from outside.
//!
//! One multiplexed connection per node, which comes back by itself: a lost connection is noticed, replaced with back-off
//! and jitter, and nothing ever needs a restart. Errors say whether a command was sent, and the retry table decides from that
//! what may be sent again.
//!
//! Deliberately absent: what a cache is. This crate knows commands and replies, never regions, tokens or codecs. It is the
//! only crate that names the client library underneath.

mod breaker;
mod cluster;
mod command;
mod connection;
mod dial;
mod error;
mod link;
mod moment;
mod options;
mod reply;
pub mod retry;
mod route;
mod script;
mod seats;
mod sentinel;
mod slots;
mod supervise;
mod tls;
mod tracking;
mod turns;
mod url;

pub use crate::breaker::BreakerState;
pub use crate::cluster::{ClusterLink, ClusterTracker};
pub use crate::command::Command;
pub use crate::error::{Delivery, Error, ErrorKind, Result};
pub use crate::link::Link;
pub use crate::moment::Moment;
pub use crate::options::LinkOptions;
pub use crate::reply::Reply;
pub use crate::script::Script;
pub use crate::slots::{each_key, slot_text};
pub use crate::tls::{TlsOptions, Verification};
pub use crate::tracking::{Listener, Refusal, TrackOptions, Tracker, TrackingState};
pub use crate::url::{
    Endpoint, FORMS, LinkUrl, Login, OPTIONS, OptionOf, Sentinels, Target, Transport, UrlForm, UrlOption,
};
pub use mtcache_protocol::{CLUSTER_SLOTS, hash_tag, key_slot};
