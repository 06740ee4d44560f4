//! Clusters for tests: primaries, with a replica each where they are asked for, on loopback ports of their own, stopped when dropped.
//!
//! Invariants: a cluster is ready when every node sees every slot served and takes commands; every wait has a deadline.
//! Deliberately absent: redis-cli, whose way of making clusters waits in whole seconds.

use std::thread;
use std::time::Duration;

use crate::client::{Client, ok, run};
use crate::patience::wait_until;
use crate::programs::Program;
use crate::resp::Value;
use crate::servers::{ServerError, ServerOptions, TestServer};

/// How many primaries a cluster has.
pub const PRIMARIES: usize = 3;
/// How many slots there are.
const SLOTS: usize = 16_384;
/// Keys that go from one node to another at once.
const MOVED_AT_ONCE: &str = "100";

/// How a cluster is made.
#[derive(Debug, Clone, Copy)]
pub struct ClusterOptions {
    /// Each primary has a replica, so that there is a failover. Default: no.
    pub replicas: bool,
    /// After how long a silent node is taken for dead. Default: 5 s, longer than a busy machine keeps a process waiting.
    pub node_timeout: Duration,
}

impl Default for ClusterOptions {
    fn default() -> Self {
        Self { replicas: false, node_timeout: Duration::from_secs(5) }
    }
}

/// A running cluster. The first nodes are made primaries, each for a third of the slots.
#[derive(Debug)]
pub struct TestCluster {
    nodes: Vec<TestServer>,
}

impl TestCluster {
    /// Starts a cluster and waits until all of it serves.
    ///
    /// # Panics
    /// When it does not come up in time.
    pub fn start(program: Program, options: ClusterOptions) -> Result<Self, ServerError> {
        let count = if options.replicas { 2 * PRIMARIES } else { PRIMARIES };
        let timeout = options.node_timeout.as_millis().to_string();
        let server = || {
            ServerOptions::new()
                .args(["--cluster-enabled", "yes", "--cluster-node-timeout", &timeout])
                .args(["--cluster-require-full-coverage", "no", "--cluster-replica-validity-factor", "0"])
                .args(["--cluster-allow-replica-migration", "no", "--repl-diskless-sync-delay", "0"])
        };
        let nodes: Vec<Result<TestServer, ServerError>> = thread::scope(|scope| {
            let started: Vec<_> =
                (0..count).map(|_| scope.spawn(|| TestServer::start(program, server()))).collect();
            let failed = |_| Err("a node's start panicked".to_owned().into());
            started.into_iter().map(|node| node.join().unwrap_or_else(failed)).collect()
        });
        let cluster = Self { nodes: nodes.into_iter().collect::<Result<_, _>>()? };
        cluster.assemble();
        Ok(cluster)
    }

    /// `redis+cluster://` with all nodes.
    pub fn url(&self) -> String {
        let nodes: Vec<String> = self.nodes.iter().map(|node| format!("127.0.0.1:{}", node.port())).collect();
        format!("redis+cluster://{}", nodes.join(","))
    }

    /// One node.
    pub fn node(&self, node: usize) -> &TestServer {
        &self.nodes[node]
    }

    /// One node, to stop it or to start it again.
    pub fn node_mut(&mut self, node: usize) -> &mut TestServer {
        &mut self.nodes[node]
    }

    /// A connection to a node.
    ///
    /// # Panics
    /// When there is none.
    pub fn client(&self, node: usize) -> Client {
        self.nodes[node].client().unwrap_or_else(|error| panic!("node {node}: {error}"))
    }

    /// The primary that serves a slot, by the word of a node.
    pub fn owner_by(&self, node: usize, slot: u16) -> Option<usize> {
        let mut client = self.nodes[node].client().ok()?;
        let reply = client.command(&["CLUSTER", "SLOTS"]).ok()?;
        let port = reply.elements()?.into_iter().find_map(|range| {
            let range = range.elements()?;
            let (first, last) = (range.first()?.integer()?, range.get(1)?.integer()?);
            let primary = range.get(2)?.elements()?;
            (first..=last).contains(&i64::from(slot)).then(|| primary.get(1)?.integer()).flatten()
        })?;
        self.nodes.iter().position(|node| i64::from(node.port()) == port)
    }

    /// The primary that serves a slot, once all living nodes agree about it.
    ///
    /// # Panics
    /// When they do not in time.
    pub fn owner(&self, slot: u16) -> usize {
        let mut owner = None;
        wait_until("all nodes agree about a slot's owner", || {
            let words: Vec<_> = (0..self.nodes.len())
                .filter(|node| self.nodes[*node].pid().is_some())
                .map(|node| self.owner_by(node, slot))
                .collect();
            owner = words.first().copied().flatten();
            owner.is_some_and(|owner| self.nodes[owner].pid().is_some())
                && words.iter().all(|word| *word == owner)
        });
        owner.unwrap_or_default()
    }

    /// Begins to move a slot: from now on new keys of it are the other node's.
    ///
    /// # Panics
    /// When a node refuses.
    pub fn begin_move(&self, slot: u16, from: usize, to: usize) {
        let (from_id, to_id) = (self.id(from), self.id(to));
        ok(&mut self.client(to), &format!("CLUSTER SETSLOT {slot} IMPORTING {from_id}"));
        ok(&mut self.client(from), &format!("CLUSTER SETSLOT {slot} MIGRATING {to_id}"));
    }

    /// Moves the keys that a slot has; says how many.
    ///
    /// # Panics
    /// When a node refuses.
    pub fn move_keys(&self, slot: u16, from: usize, to: usize) -> usize {
        let mut client = self.client(from);
        let port = self.nodes[to].port().to_string();
        let mut moved = 0;
        loop {
            let reply = run(&mut client, &format!("CLUSTER GETKEYSINSLOT {slot} {MOVED_AT_ONCE}"));
            let keys: Vec<Vec<u8>> = reply
                .elements()
                .unwrap_or_default()
                .into_iter()
                .filter_map(|key| key.bytes().map(<[u8]>::to_vec))
                .collect();
            if keys.is_empty() {
                return moved;
            }
            let mut migrate: Vec<&[u8]> =
                vec![b"MIGRATE", b"127.0.0.1", port.as_bytes(), b"", b"0", b"10000", b"KEYS"];
            migrate.extend(keys.iter().map(Vec::as_slice));
            let reply = client.command(&migrate).unwrap_or_else(|error| panic!("MIGRATE: {error}"));
            assert_eq!(reply.error(), None, "MIGRATE");
            moved += keys.len();
        }
    }

    /// Ends the move of a slot. Keys that came since are lost by Redis' rules, so move them first.
    ///
    /// # Panics
    /// When a node refuses.
    pub fn end_move(&self, slot: u16, from: usize, to: usize) {
        let id = self.id(to);
        // The new owner first, as redis-cli does: it may then answer for the slot whatever the others say.
        for node in [to, from] {
            ok(&mut self.client(node), &format!("CLUSTER SETSLOT {slot} NODE {id}"));
        }
    }

    /// Moves a slot with its keys while clients go on; says how many keys.
    pub fn move_slot(&self, slot: u16, from: usize, to: usize) -> usize {
        self.begin_move(slot, from, to);
        let moved = self.move_keys(slot, from, to);
        self.end_move(slot, from, to);
        moved
    }

    /// Kills the primary of a slot and waits until its replica has taken over, by the word of all others; says which has.
    ///
    /// # Panics
    /// When none does in time.
    pub fn fail_over(&mut self, slot: u16) -> Result<usize, ServerError> {
        let owner = self.owner(slot);
        self.nodes[owner].kill()?;
        Ok(self.owner(slot))
    }

    /// Waits until every living node takes commands, and every replica follows.
    ///
    /// # Panics
    /// When they do not in time.
    pub fn wait_ready(&self) {
        let living = || self.nodes.iter().filter(|node| node.pid().is_some());
        let says = |node: &TestServer, command: &str, lines: &[&str]| {
            node.client().is_ok_and(|mut client| {
                let text = run(&mut client, command).text().unwrap_or_default();
                lines.iter().all(|line| text.lines().any(|said| said.trim_end() == *line))
            })
        };
        wait_until("every node sees every slot served", || {
            living().all(|node| says(node, "CLUSTER INFO", &["cluster_state:ok", "cluster_slots_ok:16384"]))
        });
        wait_until("every replica follows its primary", || {
            living().all(|node| {
                says(node, "INFO replication", &["role:master"])
                    || says(node, "INFO replication", &["master_link_status:up"])
            })
        });
    }

    fn id(&self, node: usize) -> String {
        let id = run(&mut self.client(node), "CLUSTER MYID");
        id.text().unwrap_or_else(|| panic!("CLUSTER MYID answered {id:?}"))
    }

    fn assemble(&self) {
        let mut clients: Vec<Client> = (0..self.nodes.len()).map(|node| self.client(node)).collect();
        for (node, client) in clients.iter_mut().enumerate() {
            ok(client, &format!("CLUSTER SET-CONFIG-EPOCH {}", node + 1));
            if node < PRIMARIES {
                let (first, last) = (node * SLOTS / PRIMARIES, (node + 1) * SLOTS / PRIMARIES - 1);
                ok(client, &format!("CLUSTER ADDSLOTSRANGE {first} {last}"));
            }
        }
        // Everybody meets everybody: gossip would take a second longer.
        for (node, client) in clients.iter_mut().enumerate() {
            for other in &self.nodes[node + 1..] {
                ok(client, &format!("CLUSTER MEET 127.0.0.1 {}", other.port()));
            }
        }
        let all = format!("cluster_known_nodes:{}", self.nodes.len());
        for client in &mut clients {
            wait_until("every node knows every other", || {
                let nodes = run(client, "CLUSTER NODES");
                let info = run(client, "CLUSTER INFO");
                let no_handshakes = nodes.text().is_some_and(|text| !text.contains("handshake"));
                no_handshakes && info.text().is_some_and(|text| text.contains(&all))
            });
        }
        for (primary, client) in clients.iter_mut().skip(PRIMARIES).enumerate() {
            let replicate = format!("CLUSTER REPLICATE {}", self.id(primary));
            wait_until("a replica is accepted", || matches!(run(client, &replicate), Value::Simple(_)));
        }
        self.wait_ready();
    }
}
