//! Keeps the map of a cluster up to date: asks when a command was sent on, when a node is lost, and from time to time.
//!
//! Invariants: one question at a time, and never without a pause in between; the word of a node that does not see most of the cluster, or
//! that has heard less than we have, counts only if there is no other. Deliberately absent: the map (`map.rs`).

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::{Notify, watch};
use tokio::task::JoinSet;

use crate::cluster::map::{Map, Node};
use crate::cluster::topology::{View, questions};
use crate::error::{Delivery, Error, ErrorKind, Result};
use crate::url::Endpoint;

/// Pause between two refreshes that were asked for.
const MIN_PAUSE: Duration = Duration::from_millis(20);
/// Pause between two refreshes while a node of the map is out of reach.
const LOST_PAUSE: Duration = Duration::from_millis(200);
/// How long a node is waited for before the next one is asked beside it.
const STAGGER: Duration = Duration::from_millis(50);
/// How many nodes are asked in one refresh.
const MAX_ASKED: usize = 8;

/// How the last refresh ended.
#[derive(Clone)]
pub(crate) enum Known {
    /// The first one is under way.
    Asking,
    /// So many have succeeded.
    Up(u64),
    /// The cluster was never found yet; why.
    Down(Error),
}

pub(crate) struct Refresher {
    pub(crate) map: Map,
    seeds: Vec<Endpoint>,
    /// Where else one may ask: the last view's replicas.
    replicas: Mutex<Vec<Endpoint>>,
    /// Who should know best.
    hint: Mutex<Option<Endpoint>>,
    wake: Notify,
    known: watch::Sender<Known>,
    /// The last refresh failed, and it was said.
    failing: AtomicBool,
}

impl Refresher {
    pub(crate) fn new(map: Map, seeds: Vec<Endpoint>) -> Self {
        Self {
            map,
            seeds,
            replicas: Mutex::default(),
            hint: Mutex::default(),
            wake: Notify::new(),
            known: watch::Sender::new(Known::Asking),
            failing: AtomicBool::new(false),
        }
    }

    /// Has the cluster asked soon; who is named is asked first.
    pub(crate) fn wake(&self, hint: Option<&Endpoint>) {
        if let Some(hint) = hint {
            *self.hint.lock() = Some(hint.clone());
        }
        self.wake.notify_one();
    }

    /// Waits for the first refresh that is under way, and says how it ended.
    pub(crate) async fn ready(&self) -> Result<()> {
        let wait = async {
            let mut known = self.known.subscribe();
            match known.wait_for(|known| !matches!(known, Known::Asking)).await.as_deref() {
                Ok(Known::Up(_)) => Ok(()),
                Ok(Known::Down(error)) => Err(error.clone()),
                _ => Err(unreached("the task that looked after this cluster is gone")),
            }
        };
        let patience = self.map.options().connect_timeout + Duration::from_millis(200);
        match tokio::time::timeout(patience, wait).await {
            Ok(ended) => ended,
            Err(_) => Err(unreached("no node of the cluster has answered within the connect timeout")),
        }
    }

    /// Waits until the cluster has been found.
    pub(crate) async fn found(&self) {
        let mut known = self.known.subscribe();
        if known.wait_for(|known| matches!(known, Known::Up(_))).await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    /// Has the cluster asked now, and waits for what it says.
    pub(crate) async fn refreshed(&self) -> Result<()> {
        self.ready().await?;
        let mut known = self.known.subscribe();
        let Known::Up(before) = *known.borrow_and_update() else { return self.ready().await };
        self.wake(None);
        // The one that may be under way began before this call, so it takes one more.
        let newer = known.wait_for(|known| matches!(known, Known::Up(count) if *count > before + 1));
        let again = async {
            loop {
                tokio::time::sleep(MIN_PAUSE).await;
                self.wake(None);
            }
        };
        let patience = self.map.options().response_timeout;
        let ended = tokio::time::timeout(patience, async {
            tokio::select! {
                newer = newer => newer.is_ok(),
                () = again => false,
            }
        });
        match ended.await {
            Ok(true) => Ok(()),
            _ => Err(unreached("no node of the cluster says who serves what")),
        }
    }

    pub(crate) async fn run(self: Arc<Self>) {
        loop {
            match self.ask().await {
                Ok(view) => {
                    self.replicas.lock().clone_from(&view.replicas);
                    match self.map.apply(&view) {
                        Ok(()) => {
                            self.failing.store(false, Ordering::Relaxed);
                            self.known.send_modify(|known| {
                                let count = if let Known::Up(count) = known { *count } else { 0 };
                                *known = Known::Up(count + 1);
                            });
                        }
                        Err(error) => self.failed(error),
                    }
                }
                Err(error) => self.failed(error),
            }
            tokio::time::sleep(MIN_PAUSE).await;
            let lost = !self.map.owners().is_known()
                || self.map.owners().primaries().iter().any(|node| !node.link.is_connected());
            let period = if lost { LOST_PAUSE } else { self.map.options().topology_refresh };
            tokio::select! {
                () = self.wake.notified() => {}
                () = tokio::time::sleep(period) => {}
            }
        }
    }

    fn failed(&self, error: Error) {
        self.known.send_modify(|known| match known {
            Known::Up(_) => {
                if !self.failing.swap(true, Ordering::Relaxed) {
                    tracing::warn!(%error, "no node of the cluster says who serves what; the last word holds");
                }
            }
            Known::Asking => {
                tracing::warn!(%error, "the cluster is not found, trying on");
                *known = Known::Down(error);
            }
            Known::Down(_) => *known = Known::Down(error),
        });
    }

    /// Asks one node after another, and takes the first answer that is good.
    async fn ask(self: &Arc<Self>) -> Result<View> {
        self.map.asking();
        let epoch = self.map.owners().epoch;
        let mut asked = JoinSet::new();
        for (position, endpoint) in self.candidates().into_iter().enumerate() {
            let this = Arc::clone(self);
            asked.spawn(async move {
                tokio::time::sleep(STAGGER * position as u32).await;
                // A link is opened only once it is this one's turn.
                ask(&*this.map.node_at(&endpoint)?).await
            });
        }
        let mut second_best: Option<View> = None;
        let mut failure: Option<Error> = None;
        while let Some(answer) = asked.join_next().await {
            match answer {
                Ok(Ok(view)) if view.standing.ok && view.standing.epoch >= epoch => return Ok(view),
                Ok(Ok(view)) => {
                    if second_best.as_ref().is_none_or(|best| best.standing.epoch < view.standing.epoch) {
                        second_best = Some(view);
                    }
                }
                // That our password is refused says more than that somebody is out of reach.
                Ok(Err(error)) => {
                    if failure.is_none() || error.kind() == ErrorKind::Auth {
                        failure = Some(error);
                    }
                }
                Err(_) => {}
            }
        }
        second_best.ok_or_else(|| failure.unwrap_or_else(|| unreached("there is no node to ask")))
    }

    /// Who knows best first: whoever was named, nodes that are connected, in another order each time, and all others.
    fn candidates(&self) -> Vec<Endpoint> {
        let mut primaries = self.map.owners().primaries();
        if !primaries.is_empty() {
            let turn = rand::random_range(0..primaries.len());
            primaries.rotate_left(turn);
            primaries.sort_by_key(|node| !node.link.is_connected());
        }
        let hint = self.hint.lock().take();
        let mut endpoints: Vec<Endpoint> = Vec::new();
        let known = primaries.into_iter().map(|node| node.endpoint.clone());
        let others = self.replicas.lock().clone();
        for endpoint in hint.into_iter().chain(known).chain(self.seeds.iter().cloned()).chain(others) {
            if !endpoints.contains(&endpoint) {
                endpoints.push(endpoint);
            }
            if endpoints.len() == MAX_ASKED {
                break;
            }
        }
        endpoints
    }
}

async fn ask(node: &Node) -> Result<View> {
    node.link.connected().await?;
    let view = View::read(node.link.pipeline(questions()).await?, &node.endpoint)?;
    if view.is_of_a_cluster() {
        return Ok(view);
    }
    Err(unreached(&format!("{} knows of no slot that anybody serves", node.endpoint)))
}

fn unreached(message: &str) -> Error {
    Error::new(ErrorKind::Connect, Delivery::NotSent, message)
}
