//! Messages about thousands of keys at once, and those about all (hazard 7): each key is heard of, on every node.

use std::time::Duration;

use mtcache_cache::{Cache, Region, RegionPolicy, TrackingState};
use mtcache_conformance::{Program, ServerOptions, TestServer};

use crate::near::near_is_on;
use crate::rig::{Rig, eventually, on_every_backend};

const TTL: Duration = Duration::from_mins(5);
/// In one command. A script's arguments, by which a foreign writer speaks here, are at most some 8,000.
const KEYS: u64 = 5000;
/// Reads at once.
const AT_ONCE: usize = 250;
/// Every so many keys are set anew after the rest has gone.
const SET_ANEW: u64 = 500;

on_every_backend! {
    of_thousands_of_keys_unlinked_at_once_none_is_left_near,
    after_a_flush_none_of_thousands_is_left_near,
}

fn region(cache: &Cache) -> Region<u64> {
    cache.region(RegionPolicy::new("r", TTL).near(true)).unwrap()
}

async fn nodes(rig: &Rig) -> [Region<u64>; 2] {
    let nodes = [region(&rig.cache().await), region(&rig.cache().await)];
    for node in &nodes {
        near_is_on(node.cache()).await;
    }
    nodes
}

/// All of one slot, so that one command can name them on a cluster too.
fn ids() -> Vec<String> {
    (0..KEYS).map(|n| format!("{{many}}{n}")).collect()
}

async fn set_all(region: &Region<u64>, ids: &[String], value: u64) {
    let entries: Vec<(&String, u64)> = ids.iter().map(|id| (id, value)).collect();
    region.set_many(&entries).await.unwrap();
}

/// What a node reads of all.
async fn read_all(node: &Region<u64>, ids: &[String]) -> Vec<Option<u64>> {
    let mut values = Vec::with_capacity(ids.len());
    for some in ids.chunks(AT_ONCE) {
        for read in futures_util::future::join_all(some.iter().map(|id| node.get_shared(id))).await {
            values.push(read.unwrap().map(|read| *read.value));
        }
    }
    values
}

/// Reads until all are near.
async fn warm_all(nodes: &[Region<u64>], ids: &[String]) {
    for node in nodes {
        eventually("all are near", async || {
            read_all(node, ids).await;
            node.cache().near_size().0 == KEYS
        })
        .await;
    }
}

async fn of_thousands_of_keys_unlinked_at_once_none_is_left_near(rig: Rig) {
    let (nodes, ids) = (nodes(&rig).await, ids());
    for command in ["UNLINK", "DEL"] {
        set_all(&nodes[0], &ids, 1).await;
        warm_all(&nodes, &ids).await;
        let mut words = vec![command.to_owned()];
        words.extend(ids.iter().map(|id| format!("r:{id}")));
        rig.raw(&words.iter().map(String::as_str).collect::<Vec<_>>()).await;
        let anew: Vec<usize> = (0..KEYS).step_by(SET_ANEW as usize).map(|n| n as usize).collect();
        for n in &anew {
            rig.raw(&["SET", &format!("r:{}", ids[*n]), "2", "PX", "300000"]).await;
        }
        for node in &nodes {
            let mut expected = vec![None; ids.len()];
            for n in &anew {
                expected[*n] = Some(2);
            }
            eventually("the node has heard of each key", async || read_all(node, &ids).await == expected)
                .await;
            assert_eq!(node.cache().near_state(), TrackingState::On, "and needed no new connection for it");
        }
    }
}

async fn after_a_flush_none_of_thousands_is_left_near(rig: Rig) {
    let (nodes, ids) = (nodes(&rig).await, ids());
    for flush in [&["FLUSHDB"][..], &["FLUSHALL", "ASYNC"], &["FLUSHDB", "SYNC"]] {
        set_all(&nodes[0], &ids, 1).await;
        warm_all(&nodes, &ids).await;
        rig.raw(flush).await;
        for node in &nodes {
            eventually("nothing is near", async || node.cache().near_size() == (0, 0)).await;
            assert_eq!(read_all(node, &ids[..10]).await, [None; 10]);
        }
    }
}

/// RESP2 has no messages beside the replies: the near cache is off, and what changes is seen by the next read.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn over_resp2_the_next_read_sees_that_all_have_gone() {
    for program in [Program::Redis, Program::Valkey] {
        let options = ServerOptions::new().args(["--rename-command", "HELLO", ""]);
        let server = TestServer::start(program, options).unwrap();
        let node = region(&Cache::connect(&server.url()).await.unwrap());
        let ids = ids();
        let mut unlink = vec!["UNLINK".to_owned()];
        unlink.extend(ids.iter().map(|id| format!("r:{id}")));
        for words in [unlink, vec!["FLUSHDB".to_owned()], vec!["FLUSHALL".to_owned()]] {
            set_all(&node, &ids, 1).await;
            assert!(read_all(&node, &ids).await.iter().all(|value| *value == Some(1)));
            server.client().unwrap().command(&words.iter().map(String::as_str).collect::<Vec<_>>()).unwrap();
            assert!(read_all(&node, &ids).await.iter().all(Option::is_none));
            assert_eq!(node.cache().near_size(), (0, 0));
        }
    }
}
