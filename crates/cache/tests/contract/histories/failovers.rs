//! Histories in which primaries die, are frozen or are told to step down, and slots move: over Sentinel and over clusters of six nodes.
//!
//! Redis acknowledges before its replicas have heard, so what was written while a failover was under way is not counted on; before one
//! begins, the replica has all that was. What is counted on must then be read by everybody, during the failover too.
//! `MTCACHE_FAILOVER_HISTORIES=50` runs so many of each.

use std::time::Duration;

use mtcache_cache::Cache;
use mtcache_cache::slot::key_slot;
use mtcache_conformance::watched::{Watched, WatchedOptions};
use mtcache_conformance::{Client, ClusterOptions, Program, TestCluster};
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};

use super::run::{NODES, Node, Run, Seen, Shared, many, node, pause};

const VARIABLE: &str = "MTCACHE_FAILOVER_HISTORIES";
/// Runs where nobody says otherwise: each takes many seconds.
const HISTORIES: u64 = 1;
const FAULTS: u32 = 3;

#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn no_history_over_sentinel_breaks_the_contract() {
    many(VARIABLE, HISTORIES, over_sentinel).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn no_history_over_a_cluster_breaks_the_contract() {
    many(VARIABLE, HISTORIES, over_a_cluster).await;
}

async fn over_sentinel(seed: u64, total: &Seen) {
    let mut random = StdRng::seed_from_u64(seed);
    let mut watched = tokio::task::block_in_place(|| Watched::start(WatchedOptions::default()).unwrap());
    let url = watched.url();
    let run = Run::new();
    let faults = async |random: &mut StdRng| {
        for _ in 0..FAULTS {
            pause(random, 500_000).await;
            run.unsettle().await;
            let kind = random.random_range(0..4);
            let while_away = Duration::from_millis(random.random_range(0..300));
            tokio::task::block_in_place(|| primary_falls(&mut watched, kind, while_away));
            run.settle().await;
        }
        pause(random, 500_000).await;
    };
    let ended = run.go(nodes(&url, &mut random).await, &mut random, faults).await;
    judge(seed, "Sentinel", ended, total);
}

fn primary_falls(watched: &mut Watched, kind: u32, while_away: Duration) {
    let primary = watched.primary_server();
    has_passed_on(&mut primary.client().unwrap(), "witness");
    match kind {
        0 => watched.fail_over(),
        1 => {
            let killed = watched.kill_primary();
            std::thread::sleep(while_away);
            watched.servers()[killed].start_again().unwrap();
        }
        2 => {
            let frozen = watched.primary();
            watched.primary_server().pause().unwrap();
            watched.wait_for_other_than(frozen);
            std::thread::sleep(while_away);
            watched.servers()[frozen.unwrap()].resume().unwrap();
        }
        _ => {
            let mut primary = watched.primary_server().client().unwrap();
            primary.command(&["DEL", "mtcache:fill:{r:k}"]).unwrap();
        }
    }
    watched.wait_replicated();
}

async fn over_a_cluster(seed: u64, total: &Seen) {
    let mut random = StdRng::seed_from_u64(seed);
    let program = if seed.is_multiple_of(2) { Program::Redis } else { Program::Valkey };
    let options = ClusterOptions { replicas: true, node_timeout: Duration::from_millis(1500) };
    let mut cluster = tokio::task::block_in_place(|| TestCluster::start(program, options).unwrap());
    let url = cluster.url();
    let run = Run::new();
    let faults = async |random: &mut StdRng| {
        for fault in 0..FAULTS {
            pause(random, 500_000).await;
            let while_away = Duration::from_millis(random.random_range(0..300));
            // Moves lose nothing, so all that is written meanwhile counts.
            if fault != 1 {
                let step = random.random_range(1..3);
                tokio::task::block_in_place(|| slot_moves(&cluster, step, while_away));
                continue;
            }
            run.unsettle().await;
            tokio::task::block_in_place(|| primary_dies(&mut cluster, while_away));
            run.settle().await;
        }
        pause(random, 500_000).await;
    };
    let ended = run.go(nodes(&url, &mut random).await, &mut random, faults).await;
    judge(seed, &format!("a cluster of {program:?}"), ended, total);
}

fn slot() -> u16 {
    key_slot(b"r:k")
}

/// To another of the primaries, with a time in which some keys are here and some there.
fn slot_moves(cluster: &TestCluster, step: usize, on_the_way: Duration) {
    let from = cluster.owner(slot());
    let others: Vec<usize> = [0, 8_192, 16_383]
        .into_iter()
        .map(|slot| cluster.owner(slot))
        .filter(|owner| *owner != from)
        .collect();
    let to = others[step % others.len()];
    cluster.begin_move(slot(), from, to);
    cluster.move_keys(slot(), from, to);
    std::thread::sleep(on_the_way);
    cluster.move_keys(slot(), from, to);
    cluster.end_move(slot(), from, to);
    // All have to know, replicas too: one that did not would not stand for the slot.
    cluster.owner(slot());
    cluster.wait_ready();
}

fn primary_dies(cluster: &mut TestCluster, while_away: Duration) {
    let owner = cluster.owner(slot());
    has_passed_on(&mut cluster.client(owner), "{r:k}witness");
    cluster.fail_over(slot()).unwrap();
    std::thread::sleep(while_away);
    cluster.node_mut(owner).start_again().unwrap();
    cluster.wait_ready();
}

/// Waits until a replica has all that its primary has acknowledged.
fn has_passed_on(primary: &mut Client, witness: &str) {
    primary.command(&["SET", witness, "x"]).unwrap();
    let heard = primary.command(&["WAIT", "1", "20000"]).unwrap();
    assert_eq!(heard.integer(), Some(1), "a replica hears its primary");
}

async fn nodes(url: &str, random: &mut StdRng) -> Vec<Node> {
    let shared = Shared::stale(random);
    let mut nodes = Vec::new();
    for _ in 0..NODES {
        nodes.push(node(Cache::builder(url), random, shared).await);
    }
    nodes
}

fn judge(seed: u64, over: &str, ended: Result<&Seen, Vec<String>>, total: &Seen) {
    match ended {
        Ok(seen) => total.add(seen),
        Err(violations) => panic!("MTCACHE_HISTORY_SEED={seed} over {over}: {violations:#?}"),
    }
}
