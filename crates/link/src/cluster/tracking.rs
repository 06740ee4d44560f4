//! Invalidations on a cluster: a tracker beside each primary, and who of them can be believed about which slot.
//!
//! Invariants: a key is coherent only while its slot's primary, by the map, has a tracker that is. A slot that changes hands belongs to
//! nobody, and its keys have been told as changed, before anybody is sent to its new node; what a node other than the slot's own has
//! answered (`MOVED`, `ASK`) is told as changed too, before it is asked. A node's claim to its slots is part of its sign of life:
//! one that no longer sees most of the cluster, or whose claim is another than when its tracker was armed, is not believed.
//! Deliberately absent: how one node is tracked (`../tracking.rs`).

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU16, AtomicU64, Ordering};
use std::sync::{Arc, Weak};

use mtcache_protocol::{CLUSTER_SLOTS, key_slot};
use parking_lot::{Mutex, RwLock};

use crate::cluster::ClusterLink;
use crate::cluster::map::{Node, Owners, Watcher};
use crate::cluster::refresh::Refresher;
use crate::cluster::topology::Standing;
use crate::error::{Delivery, Error, ErrorKind, Result};
use crate::moment::Moment;
use crate::reply::Reply;
use crate::slots::slot_text;
use crate::tracking::{Listener, Place, TrackOptions, Tracker, TrackingState};

/// Stands for "nobody".
const NOBODY: u16 = u16::MAX;

/// Hears of changed keys on all primaries of a cluster. Stops when it is dropped.
pub struct ClusterTracker {
    seats: Arc<Seats>,
}

struct Seats {
    /// Whose tracker speaks for each slot, by its node's number.
    owners: Box<[AtomicU16]>,
    /// By their nodes' numbers.
    taken: RwLock<Vec<Option<Seat>>>,
    prefixes: Mutex<BTreeSet<String>>,
    options: TrackOptions,
    listener: Arc<dyn Listener>,
    refresher: Arc<Refresher>,
    runtime: tokio::runtime::Handle,
}

struct Seat {
    node: Arc<Node>,
    tracker: Tracker,
}

impl ClusterTracker {
    /// Starts a tracker beside each primary; they connect once there is a prefix. Must be called inside a tokio runtime.
    pub fn start(link: &ClusterLink, options: TrackOptions, listener: Arc<dyn Listener>) -> Self {
        let refresher = Arc::clone(&link.0.refresher);
        let seats = Arc::new(Seats {
            owners: (0..CLUSTER_SLOTS).map(|_| AtomicU16::new(NOBODY)).collect(),
            taken: RwLock::default(),
            prefixes: Mutex::default(),
            options,
            listener: Arc::clone(&listener),
            refresher: Arc::clone(&refresher),
            runtime: tokio::runtime::Handle::current(),
        });
        *link.0.elsewhere.write() = Some(listener);
        refresher.map.watch(Arc::new(Watching(Arc::downgrade(&seats))));
        Self { seats }
    }

    /// Has the listener told of keys with this prefix too. Until that is so no tracker is coherent. One that begins with another
    /// is heard with that.
    pub fn add_prefix(&self, prefix: &str) {
        let mut prefixes = self.seats.prefixes.lock();
        prefixes.insert(prefix.to_owned());
        for seat in self.seats.taken.read().iter().flatten() {
            seat.tracker.add_prefix(prefix);
        }
    }

    /// Whether everything that changed about a key longer before `now` than the heartbeat has been told.
    pub fn is_coherent(&self, key: &[u8], now: Moment) -> bool {
        let number = self.seats.owner_of(key);
        let seats = self.seats.taken.read();
        seats
            .get(usize::from(number))
            .and_then(Option::as_ref)
            .is_some_and(|seat| seat.tracker.is_coherent(now))
    }

    /// The same of every key, whichever primary has it. Does not wait: false while primaries come and go, as whoever asks may hold what the
    /// trackers need for that.
    pub fn is_coherent_everywhere(&self, now: Moment) -> bool {
        let Some(seats) = self.seats.taken.try_read() else { return false };
        seats.iter().flatten().all(|seat| seat.tracker.is_coherent(now))
    }

    /// How it stands: on if it is so for every primary, refused if any refuses.
    pub fn state(&self) -> TrackingState {
        if self.seats.prefixes.lock().is_empty() {
            return TrackingState::Idle;
        }
        let seats = self.seats.taken.read();
        let mut states = seats.iter().flatten().map(|seat| seat.tracker.state()).peekable();
        if states.peek().is_none() {
            return TrackingState::Waiting;
        }
        states.fold(TrackingState::On, |all, one| match (all, one) {
            (TrackingState::Refused(why), _) | (_, TrackingState::Refused(why)) => {
                TrackingState::Refused(why)
            }
            (TrackingState::On, TrackingState::On) => TrackingState::On,
            _ => TrackingState::Waiting,
        })
    }
}

impl Seats {
    fn owner_of(&self, key: &[u8]) -> u16 {
        self.owner(key_slot(key))
    }

    fn owner(&self, slot: u16) -> u16 {
        self.owners.get(usize::from(slot)).map_or(NOBODY, |owner| owner.load(Ordering::Acquire))
    }

    /// A tracker for each primary that has none yet, and none for those that are no longer.
    fn seat(self: &Arc<Self>, owners: &Owners) {
        let prefixes = self.prefixes.lock();
        let primaries = owners.primaries();
        let mut seats = self.taken.write();
        let mut gone = Vec::new();
        for seat in seats.iter_mut() {
            let stays = |seat: &Seat| primaries.iter().any(|node| Arc::ptr_eq(node, &seat.node));
            if seat.as_ref().is_some_and(|seat| !stays(seat)) {
                gone.extend(seat.take());
            }
        }
        for node in primaries {
            let number = usize::from(node.number);
            if seats.len() <= number {
                seats.resize_with(number + 1, || None);
            }
            if seats[number].is_none() {
                let place = Arc::new(Here {
                    number: node.number,
                    refresher: Arc::clone(&self.refresher),
                    heard_of: AtomicU64::new(0),
                });
                let listener = Arc::new(OfOne { seats: Arc::downgrade(self), number: node.number });
                let _runtime = self.runtime.enter();
                let tracker = Tracker::start_at(&node.link, self.options.clone(), listener, place);
                for prefix in prefixes.iter() {
                    tracker.add_prefix(prefix);
                }
                seats[number] = Some(Seat { node, tracker });
            }
        }
    }
}

/// Weak, because the map outlives the tracker.
struct Watching(Weak<Seats>);

impl Watcher for Watching {
    fn leaving(&self, slots: &BTreeSet<u16>) {
        let Some(seats) = self.0.upgrade() else { return };
        for slot in slots {
            if let Some(owner) = seats.owners.get(usize::from(*slot)) {
                owner.store(NOBODY, Ordering::Release);
            }
        }
        seats.listener.some_changed(&|key| slots.contains(&key_slot(key)));
    }

    fn settled(&self, owners: &Owners) {
        let Some(seats) = self.0.upgrade() else { return };
        seats.seat(owners);
        for (slot, owner) in seats.owners.iter().enumerate() {
            let number = owners.of(slot as u16).map_or(NOBODY, |node| node.number);
            owner.store(number, Ordering::Release);
        }
    }
}

/// Hears one primary.
struct OfOne {
    seats: Weak<Seats>,
    number: u16,
}

impl Listener for OfOne {
    fn changed(&self, key: &[u8]) {
        if let Some(seats) = self.seats.upgrade() {
            seats.listener.changed(key);
        }
    }

    fn all_changed(&self) {
        if let Some(seats) = self.seats.upgrade() {
            // What the node does not serve has been told of when it left the node.
            seats.listener.some_changed(&|key| seats.owner_of(key) == self.number);
        }
    }

    fn silence(&self) {
        if let Some(seats) = self.seats.upgrade() {
            seats.listener.silence();
        }
    }
}

/// One primary among the others.
struct Here {
    number: u16,
    refresher: Arc<Refresher>,
    /// The latest epoch for which the cluster was asked.
    heard_of: AtomicU64,
}

impl Place for Here {
    fn probe_name(&self) -> Option<String> {
        let owners = self.refresher.map.owners();
        let slots: Vec<u16> = owners.slots_of(self.number).collect();
        // Any of them, as one may be on its way to another node just now.
        let slot = slots.get(rand::random_range(0..slots.len().max(1)))?;
        Some(format!("{{{}}}:", slot_text(*slot)))
    }

    fn question(&self) -> redis::Cmd {
        let mut info = redis::cmd("CLUSTER");
        info.arg("INFO");
        info
    }

    fn claim(&self, answer: redis::Value) -> Result<u64> {
        let info = Reply::from_value(answer).into_bytes()?.unwrap_or_default();
        let standing = Standing::read(&info)?;
        if standing.epoch != self.heard_of.swap(standing.epoch, Ordering::Relaxed) {
            self.refresher.wake(None);
        }
        if standing.ok {
            return Ok(standing.own_epoch);
        }
        Err(Error::new(ErrorKind::Busy, Delivery::Refused, "the node does not see most of its cluster"))
    }

    fn lost(&self) {
        self.refresher.wake(None);
    }
}

impl std::fmt::Debug for ClusterTracker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ClusterTracker").field("state", &self.state()).finish_non_exhaustive()
    }
}
