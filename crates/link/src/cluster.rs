//! A link to a cluster: one ordinary link per primary, and each command goes to the node that serves its keys' slot.
//!
//! Invariants: a command follows `MOVED` and `ASK` a bounded number of times, and waits out `TRYAGAIN` and `CLUSTERDOWN` for a
//! bounded time; one whose outcome is unknown is sent to another node only where the retry table says so, as between two connections of
//! one node. Built on our own `Link` rather than redis-rs' cluster client, so that what a link promises (retry table, delivery,
//! bound of what is under way, no write that takes effect after a later one) holds for each node. Deliberately absent: reading from
//! replicas, which may be older than what was acknowledged.

mod many;
mod map;
mod redirect;
mod refresh;
mod scan;
mod topology;
mod tracking;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use parking_lot::RwLock;
use tokio::task::JoinHandle;

use self::map::{Map, Node};
use self::redirect::Advice;
use self::refresh::Refresher;
pub use self::tracking::ClusterTracker;
use crate::breaker::BreakerState;
use crate::command::Command;
use crate::error::{Delivery, Error, ErrorKind, Result};
use crate::options::LinkOptions;
use crate::reply::Reply;
use crate::retry::Retry;
use crate::script::Script;
use crate::slots;
use crate::tracking::Listener;
use crate::url::{Endpoint, LinkUrl, Target};

/// How often one command is sent on to another node, between two waits.
const MAX_HOPS: u32 = 5;
/// How often one command waits for a slot that is being moved, or for a cluster that is down.
const MAX_PAUSES: u32 = 5;
/// The first of these waits; each next one is twice as long, 124 ms in all.
const FIRST_PAUSE: Duration = Duration::from_millis(4);

/// How often one who waits for connections looks which are missing.
const LOOK_PERIOD: Duration = Duration::from_millis(100);

/// A link to a cluster. Cheap to clone; all clones share their connections, one per primary.
///
/// ```no_run
/// # async fn example() -> mtcache_link::Result<()> {
/// use mtcache_link::{ClusterLink, Command, LinkOptions};
///
/// let link = ClusterLink::open(&"redis+cluster://node-1:7000,node-2:7000".parse()?, LinkOptions::default())?;
/// link.command(Command::new("SET").arg("greeting").arg("hello")).await?;
/// let value = link.command(Command::new("GET").arg("greeting")).await?.into_bytes()?;
/// assert_eq!(value.as_deref(), Some(&b"hello"[..]));
/// # Ok(()) }
/// ```
#[derive(Clone)]
pub struct ClusterLink(Arc<Inner>);

struct Inner {
    url: LinkUrl,
    refresher: Arc<Refresher>,
    task: JoinHandle<()>,
    /// Whose turn it is when any node will do.
    turn: AtomicUsize,
    /// Is told of keys whose reads are answered by another node than the one that tells of their changes.
    elsewhere: RwLock<Option<Arc<dyn Listener>>>,
}

/// Where a command goes next.
#[derive(Clone)]
struct Way {
    node: Arc<Node>,
    /// `ASKING` goes before it.
    asking: bool,
}

/// How far a command has come.
#[derive(Default)]
struct Travel {
    hops: u32,
    pauses: u32,
}

/// How commands belong together.
#[derive(Clone, Copy, PartialEq)]
enum Grouping {
    One,
    Transaction,
}

/// What to do after a failure.
enum Next {
    Go(Way),
    /// Wait so long, then ask the map again.
    Pause(Duration),
    GiveUp,
}

impl ClusterLink {
    /// Starts to look for the cluster in the background and returns at once; nodes that are down are not an error here. Must be
    /// called inside a tokio runtime.
    pub fn open(url: &LinkUrl, options: LinkOptions) -> Result<Self> {
        let Target::Cluster(seeds) = url.target() else {
            return Err(Error::config(format!("{url} is not the URL of a cluster")));
        };
        if tokio::runtime::Handle::try_current().is_err() {
            return Err(Error::config("a link must be opened inside a tokio runtime"));
        }
        let refresher = Arc::new(Refresher::new(Map::new(url.clone(), options), seeds.clone()));
        // What is wrong with the options is said now, not at the first attempt.
        for seed in seeds.iter().take(1) {
            refresher.map.node_at(seed)?;
        }
        let task = tokio::spawn(Arc::clone(&refresher).run());
        Ok(Self(Arc::new(Inner {
            url: url.clone(),
            refresher,
            task,
            turn: AtomicUsize::new(0),
            elsewhere: RwLock::default(),
        })))
    }

    /// The cluster's URL; its text form has no password.
    pub fn url(&self) -> &LinkUrl {
        &self.0.url
    }

    /// True while the cluster has been found and there is a connection to any of its primaries.
    pub fn is_connected(&self) -> bool {
        self.0.refresher.map.owners().primaries().iter().any(|node| node.link.is_connected())
    }

    /// Waits for the attempt to find the cluster that is under way, and says how it ended.
    pub async fn connected(&self) -> Result<()> {
        self.0.refresher.ready().await
    }

    /// Waits at most so long for connections to all primaries; false if any is missing then.
    pub async fn wait_connected(&self, patience: Duration) -> bool {
        let until = Instant::now() + patience;
        if tokio::time::timeout(patience, self.0.refresher.found()).await.is_err() {
            return false;
        }
        loop {
            let primaries = self.0.refresher.map.owners().primaries();
            let Some(missing) = primaries.iter().find(|node| !node.link.is_connected()) else { return true };
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            // Not for all that is left: while one waits, another node may take over its slots.
            missing.link.wait_connected(left.min(LOOK_PERIOD)).await;
        }
    }

    /// The breaker that lets the least through, of those of all primaries.
    pub fn breaker(&self) -> BreakerState {
        let primaries = self.0.refresher.map.owners().primaries();
        let states: Vec<BreakerState> = primaries.iter().map(|node| node.link.breaker()).collect();
        let worst =
            [BreakerState::Open, BreakerState::HalfOpen].into_iter().find(|state| states.contains(state));
        worst.unwrap_or(BreakerState::Closed)
    }

    /// Where the primaries are, as far as is known.
    pub fn primaries(&self) -> Vec<Endpoint> {
        self.0.refresher.map.owners().primaries().iter().map(|node| node.endpoint.clone()).collect()
    }

    /// What [`Link::cursor_epoch`](crate::Link::cursor_epoch) is for each primary, by its number.
    pub fn cursor_epochs(&self) -> Vec<(u16, u64)> {
        let primaries = self.0.refresher.map.owners().primaries();
        primaries.iter().map(|node| (node.number, node.link.cursor_epoch())).collect()
    }

    /// Stands for the run of the primary that has this key, as far as is known; else 0.
    pub fn server_run_of(&self, key: &[u8]) -> u64 {
        let owners = self.0.refresher.map.owners();
        owners.of(mtcache_protocol::key_slot(key)).map_or(0, |node| node.link.server_run())
    }

    /// Waits for the attempt to reach the primary that has this key, and says how it ended.
    pub async fn connected_for(&self, key: &[u8]) -> Result<()> {
        self.connected().await?;
        let node = self.0.refresher.map.owners().of(mtcache_protocol::key_slot(key)).cloned();
        match node {
            Some(node) => node.link.connected().await,
            None => Ok(()),
        }
    }

    /// Where the primary of a slot is, as far as is known.
    pub fn primary_of(&self, slot: u16) -> Option<Endpoint> {
        self.0.refresher.map.owners().of(slot).map(|node| node.endpoint.clone())
    }

    /// Sends one command to the node that serves its keys, or to any if it has none. An error reply is an `Err`; keys of several slots
    /// are refused as the server would.
    pub async fn command(&self, command: Command) -> Result<Reply> {
        let slot = slots::of_command(&command)?;
        let replies = self.routed(slot, &[&command], Grouping::One).await?;
        Ok(replies.into_iter().next().unwrap_or(Reply::Nil))
    }

    /// Sends several commands as one MULTI/EXEC, as [`Link::transaction`](crate::Link::transaction) does; all their keys must be in one slot.
    pub async fn transaction(&self, commands: Vec<Command>) -> Result<Vec<Reply>> {
        let slot = slots::of_commands(&commands)?;
        let commands: Vec<&Command> = commands.iter().collect();
        self.routed(slot, &commands, Grouping::Transaction).await
    }

    /// Runs a script where its keys are, by its hash where the node knows it.
    pub async fn script<K: AsRef<[u8]>, A: AsRef<[u8]>>(
        &self,
        script: &Script,
        keys: &[K],
        args: &[A],
    ) -> Result<Reply> {
        match self.command(script.by_hash(keys, args)).await {
            Err(e) if e.kind() == ErrorKind::NoScript => self.command(script.by_text(keys, args)).await,
            other => other,
        }
    }

    /// Sends one command to every primary, at the same time.
    pub async fn on_every_primary(&self, command: &Command) -> Result<Vec<(Endpoint, Result<Reply>)>> {
        self.0.refresher.ready().await?;
        let primaries = self.0.refresher.map.owners().primaries();
        let mut answers = Vec::with_capacity(primaries.len());
        for node in primaries {
            answers.push(self.on(node, command));
        }
        Ok(join_all(answers).await)
    }

    async fn on(&self, node: Arc<Node>, command: &Command) -> (Endpoint, Result<Reply>) {
        let answer = node.link.command_of(command).await;
        if answer.is_err() {
            self.0.refresher.wake(None);
        }
        (node.endpoint.clone(), answer)
    }

    /// Sends until there is an answer, or no more way to go.
    async fn routed(
        &self,
        slot: Option<u16>,
        commands: &[&Command],
        grouping: Grouping,
    ) -> Result<Vec<Reply>> {
        let mut travel = Travel::default();
        let mut way = self.way(slot).await?;
        loop {
            let error = match send(&way, commands, grouping).await {
                Ok(replies) => return Ok(replies),
                Err(error) => error,
            };
            match self.next(&error, &way, slot, commands, &mut travel) {
                Next::Go(next) => way = next,
                Next::Pause(pause) => {
                    tokio::time::sleep(pause).await;
                    way = self.way(slot).await?;
                }
                Next::GiveUp => return Err(error),
            }
        }
    }

    /// Where a slot's commands go by the map.
    async fn way(&self, slot: Option<u16>) -> Result<Way> {
        let map = &self.0.refresher.map;
        if !map.owners().is_known() {
            self.0.refresher.ready().await?;
        }
        let owners = map.owners();
        let node = match slot {
            Some(slot) => owners.of(slot).cloned(),
            None => {
                let primaries = owners.primaries();
                let turn = self.0.turn.fetch_add(1, Ordering::Relaxed);
                let up: Vec<_> = primaries.iter().filter(|node| node.link.is_connected()).collect();
                if up.is_empty() {
                    primaries.first().cloned()
                } else {
                    up.get(turn % up.len()).copied().cloned()
                }
            }
        };
        node.map(|node| Way { node, asking: false }).ok_or_else(|| {
            self.0.refresher.wake(None);
            Error::server("CLUSTERDOWN", Some("Hash slot not served by any node that is known"))
        })
    }

    fn next(
        &self,
        error: &Error,
        way: &Way,
        slot: Option<u16>,
        commands: &[&Command],
        travel: &mut Travel,
    ) -> Next {
        let refresher = &self.0.refresher;
        let mut hop = |way: Result<Way>| match way {
            Ok(way) if travel.hops < MAX_HOPS => {
                travel.hops += 1;
                Next::Go(way)
            }
            _ => Next::GiveUp,
        };
        match Advice::of(error, &way.node.endpoint) {
            Advice::Moved(slot, to) => {
                // Whoever is named is asked next, and knows of it: to be said before the slot has its node, which the next question forgets.
                refresher.wake(Some(&to));
                let node = refresher.map.moved(slot, &to);
                // The map is told first: from then on nobody takes the old node's word for these keys.
                self.answered_elsewhere(commands);
                hop(node.map(|node| Way { node, asking: false }))
            }
            Advice::Ask(to) => {
                self.answered_elsewhere(commands);
                hop(refresher.map.node_at(&to).map(|node| Way { node, asking: true }))
            }
            Advice::TryAgain | Advice::Down => {
                if matches!(Advice::of(error, &way.node.endpoint), Advice::Down) {
                    refresher.wake(None);
                }
                if travel.pauses == MAX_PAUSES {
                    return Next::GiveUp;
                }
                travel.pauses += 1;
                // After a wait the way begins anew.
                travel.hops = 0;
                Next::Pause(FIRST_PAUSE * (1 << (travel.pauses - 1)))
            }
            Advice::Lost => {
                refresher.wake(None);
                let safe = match error.delivery() {
                    Delivery::NotSent | Delivery::Refused => true,
                    // After a timeout the caller has waited long enough.
                    Delivery::Unknown => {
                        error.kind() == ErrorKind::ConnectionLost
                            && commands.iter().all(|command| command.retry() == Retry::Safe)
                    }
                };
                // Meanwhile the map may know who has taken over.
                let owner = slot.and_then(|slot| refresher.map.owners().of(slot).cloned());
                match owner {
                    Some(node) if safe && !Arc::ptr_eq(&node, &way.node) => {
                        hop(Ok(Way { node, asking: false }))
                    }
                    _ => Next::GiveUp,
                }
            }
            Advice::None => Next::GiveUp,
        }
    }

    /// What is answered by another node may not be kept: that node's changes are not told of as this slot's.
    fn answered_elsewhere(&self, commands: &[&Command]) {
        if let Some(listener) = &*self.0.elsewhere.read() {
            for command in commands {
                slots::each_key(command, |key| listener.changed(key));
            }
        }
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl std::fmt::Debug for ClusterLink {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ClusterLink")
            .field("url", &self.0.url)
            .field("primaries", &self.primaries())
            .finish_non_exhaustive()
    }
}

async fn send(way: &Way, commands: &[&Command], grouping: Grouping) -> Result<Vec<Reply>> {
    let link = &way.node.link;
    match (grouping, commands) {
        (Grouping::One, [command]) if !way.asking => Ok(vec![link.command_of(command).await?]),
        (Grouping::One, commands) => {
            let asking = asking();
            let all: Vec<&Command> = std::iter::once(&asking).chain(commands.iter().copied()).collect();
            link.pipeline_of(&all).await?.into_iter().skip(1).map(Reply::ok).collect()
        }
        (Grouping::Transaction, commands) if !way.asking => link.transaction_of(commands).await,
        (Grouping::Transaction, commands) => {
            let (asking, multi, exec) = (asking(), multi(), exec());
            let mut all = vec![&asking, &multi];
            all.extend(commands);
            all.push(&exec);
            executed(link.pipeline_of(&all).await?.into_iter().skip(1))
        }
    }
}

/// Lets the next command, or a transaction, use a slot that is on its way to the node.
fn asking() -> Command {
    Command::new("ASKING")
}

/// Whether a transaction may be sent twice is for what is in it to say.
fn multi() -> Command {
    Command::new("MULTI").with_retry(Retry::Safe)
}

fn exec() -> Command {
    Command::new("EXEC").with_retry(Retry::Safe)
}

/// The replies of a transaction out of those to MULTI, its commands and EXEC. Of one that was refused while queueing, the reason.
fn executed(replies: impl Iterator<Item = Reply>) -> Result<Vec<Reply>> {
    let mut replies: Vec<Reply> = replies.collect();
    let Some(exec) = replies.pop() else {
        return Err(Error::protocol("EXEC was not answered"));
    };
    let count = replies.len().saturating_sub(1);
    for queued in replies {
        queued.ok()?;
    }
    let answers = exec.into_array()?;
    if answers.len() == count {
        return Ok(answers);
    }
    Err(Error::protocol(format!("{} replies to {count} commands", answers.len())))
}
