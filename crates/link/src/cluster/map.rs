//! Which node serves which slot, as far as this process knows, and the nodes' links.
//!
//! Invariants: whoever watches is told of slots that change hands before any command goes to their new node, and again after; a
//! node that serves slots keeps its link and its number. Deliberately absent: asking the cluster (`refresh.rs`).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use mtcache_protocol::CLUSTER_SLOTS;
use parking_lot::Mutex;

use crate::cluster::topology::View;
use crate::error::{Error, Result};
use crate::link::Link;
use crate::options::LinkOptions;
use crate::url::{Endpoint, LinkUrl, Transport};

/// Nodes with a link at once; Redis recommends no larger cluster.
pub(crate) const MAX_NODES: usize = 1000;
/// How long a node that serves no slot keeps its link.
const IDLE_LINK: Duration = Duration::from_mins(1);
/// Stands for "nobody".
const NOBODY: u16 = u16::MAX;

/// One node, and the link to it.
pub(crate) struct Node {
    pub(crate) endpoint: Endpoint,
    pub(crate) number: u16,
    pub(crate) link: Link,
}

/// Who serves what, as of one moment.
#[derive(Clone)]
pub(crate) struct Owners {
    slots: Box<[u16]>,
    nodes: Vec<Option<Arc<Node>>>,
    /// Grows with each change.
    pub(crate) version: u64,
    /// The latest epoch of the views it is made of.
    pub(crate) epoch: u64,
}

/// Is told of slots that change hands.
pub(crate) trait Watcher: Send + Sync {
    /// The nodes of these slots are about to be other ones. Nobody is sent to the new ones yet.
    fn leaving(&self, slots: &BTreeSet<u16>);
    /// Everybody is sent to these nodes now.
    fn settled(&self, owners: &Owners);
}

pub(crate) struct Map {
    url: LinkUrl,
    options: LinkOptions,
    owners: ArcSwap<Owners>,
    changing: Mutex<Changing>,
}

#[derive(Default)]
struct Changing {
    /// When each node without slots was asked for last, by its number.
    idle: Vec<Option<Instant>>,
    /// Slots whose node was named by another since the cluster was asked last, and those nodes' numbers.
    moved: BTreeMap<u16, u16>,
    watcher: Option<Arc<dyn Watcher>>,
}

impl Owners {
    /// The node of a slot.
    pub(crate) fn of(&self, slot: u16) -> Option<&Arc<Node>> {
        let number = *self.slots.get(usize::from(slot))?;
        self.nodes.get(usize::from(number))?.as_ref()
    }

    /// The nodes that serve slots, by their numbers.
    pub(crate) fn primaries(&self) -> Vec<Arc<Node>> {
        let serving: BTreeSet<u16> = self.slots.iter().copied().filter(|number| *number != NOBODY).collect();
        serving.into_iter().filter_map(|number| self.nodes.get(usize::from(number))?.clone()).collect()
    }

    /// The slots of a node, by its number.
    pub(crate) fn slots_of(&self, number: u16) -> impl Iterator<Item = u16> + '_ {
        let slots = self.slots.iter().enumerate();
        slots.filter(move |(_, owner)| **owner == number).map(|(slot, _)| slot as u16)
    }

    /// True once any slot has a node.
    pub(crate) fn is_known(&self) -> bool {
        self.slots.iter().any(|number| *number != NOBODY)
    }
}

impl Map {
    pub(crate) fn new(url: LinkUrl, options: LinkOptions) -> Self {
        let slots = vec![NOBODY; usize::from(CLUSTER_SLOTS)].into_boxed_slice();
        let owners = Owners { slots, nodes: Vec::new(), version: 0, epoch: 0 };
        Self { url, options, owners: ArcSwap::from_pointee(owners), changing: Mutex::default() }
    }

    pub(crate) fn owners(&self) -> arc_swap::Guard<Arc<Owners>> {
        self.owners.load()
    }

    pub(crate) fn options(&self) -> &LinkOptions {
        &self.options
    }

    /// Has somebody told of changes from here on; of what is, at once.
    pub(crate) fn watch(&self, watcher: Arc<dyn Watcher>) {
        let mut changing = self.changing.lock();
        watcher.settled(&self.owners.load());
        changing.watcher = Some(watcher);
    }

    /// The node at an address, with a link that is opened if there is none.
    pub(crate) fn node_at(&self, endpoint: &Endpoint) -> Result<Arc<Node>> {
        let mut changing = self.changing.lock();
        let mut owners = Owners::clone(&self.owners.load());
        let (node, opened) = self.find_or_open(&mut owners, endpoint)?;
        changing.used(node.number);
        if opened {
            self.owners.store(Arc::new(owners));
        }
        Ok(node)
    }

    /// One slot is another node's, as the one before has said.
    pub(crate) fn moved(&self, slot: u16, to: &Endpoint) -> Result<Arc<Node>> {
        let mut changing = self.changing.lock();
        let mut owners = Owners::clone(&self.owners.load());
        let (node, _) = self.find_or_open(&mut owners, to)?;
        changing.used(node.number);
        if let Some(place) = owners.slots.get_mut(usize::from(slot)) {
            *place = node.number;
            changing.moved.insert(slot, node.number);
        }
        self.change(&mut changing, owners);
        Ok(node)
    }

    /// The cluster is about to be asked: what is [`moved`](Self::moved) from here on may be news to whoever answers.
    pub(crate) fn asking(&self) {
        self.changing.lock().moved.clear();
    }

    /// Takes over what a node has said of the whole cluster, but for slots that moved since it was asked.
    pub(crate) fn apply(&self, view: &View) -> Result<()> {
        let mut changing = self.changing.lock();
        let mut owners = Owners::clone(&self.owners.load());
        let mut slots = vec![NOBODY; usize::from(CLUSTER_SLOTS)];
        for (range, endpoint) in &view.ranges {
            let (node, _) = self.find_or_open(&mut owners, endpoint)?;
            for slot in range.clone() {
                slots[usize::from(slot)] = node.number;
            }
        }
        for (slot, number) in &changing.moved {
            slots[usize::from(*slot)] = *number;
        }
        owners.slots = slots.into_boxed_slice();
        owners.epoch = view.standing.epoch;
        changing.prune(&mut owners);
        self.change(&mut changing, owners);
        Ok(())
    }

    fn change(&self, changing: &mut Changing, mut owners: Owners) {
        let before = self.owners.load();
        let pairs = before.slots.iter().zip(&owners.slots).enumerate();
        let left: BTreeSet<u16> =
            pairs.filter(|(_, (was, is))| was != is).map(|(slot, _)| slot as u16).collect();
        if left.is_empty() {
            self.owners.store(Arc::new(owners));
            return;
        }
        owners.version += 1;
        if let Some(watcher) = &changing.watcher {
            watcher.leaving(&left);
        }
        tracing::info!(cluster = %self.url, slots = left.len(), "slots have other nodes than before");
        let owners = Arc::new(owners);
        self.owners.store(Arc::clone(&owners));
        if let Some(watcher) = &changing.watcher {
            watcher.settled(&owners);
        }
    }

    fn find_or_open(&self, owners: &mut Owners, endpoint: &Endpoint) -> Result<(Arc<Node>, bool)> {
        if let Some(node) = owners.nodes.iter().flatten().find(|node| node.endpoint == *endpoint) {
            return Ok((Arc::clone(node), false));
        }
        let free = owners.nodes.iter().position(Option::is_none).unwrap_or(owners.nodes.len());
        if free >= MAX_NODES {
            return Err(Error::config(format!("the cluster has more than {MAX_NODES} nodes")));
        }
        let url = self.url.at(Transport::Tcp(endpoint.clone()));
        let link = Link::open(&url, self.options.clone())?;
        let node = Arc::new(Node { endpoint: endpoint.clone(), number: free as u16, link });
        if free == owners.nodes.len() {
            owners.nodes.push(None);
        }
        owners.nodes[free] = Some(Arc::clone(&node));
        Ok((node, true))
    }
}

impl Changing {
    fn used(&mut self, number: u16) {
        let number = usize::from(number);
        if self.idle.len() <= number {
            self.idle.resize(number + 1, None);
        }
        self.idle[number] = Some(Instant::now());
    }

    /// Lets go of links to nodes without slots that nobody has asked for lately.
    fn prune(&self, owners: &mut Owners) {
        let serving: BTreeSet<u16> = owners.slots.iter().copied().collect();
        for (number, node) in owners.nodes.iter_mut().enumerate() {
            let used = self.idle.get(number).copied().flatten();
            let lately = used.is_some_and(|used| used.elapsed() < IDLE_LINK);
            if !lately && !serving.contains(&(number as u16)) {
                *node = None;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::topology::Standing;

    #[tokio::test]
    async fn what_was_asked_before_a_slot_moved_does_not_undo_it_and_what_is_asked_after_does() {
        let at = |port| Endpoint { host: "127.0.0.1".to_owned(), port };
        let standing = Standing { ok: true, epoch: 1, own_epoch: 1 };
        let all_at_first = View { ranges: vec![(0..=16383, at(1))], replicas: Vec::new(), standing };
        let map = Map::new("redis+cluster://127.0.0.1:1".parse().unwrap(), LinkOptions::default());
        let ports = || [4, 5, 6].map(|slot| map.owners().of(slot).unwrap().endpoint.port);
        map.asking();
        map.apply(&all_at_first).unwrap();
        assert_eq!(ports(), [1, 1, 1]);
        map.asking();
        map.moved(5, &at(2)).unwrap();
        map.apply(&all_at_first).unwrap();
        assert_eq!(ports(), [1, 2, 1]);
        map.asking();
        map.apply(&all_at_first).unwrap();
        assert_eq!(ports(), [1, 1, 1]);
    }
}
