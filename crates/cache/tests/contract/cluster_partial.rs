//! What of a cluster is not to be had, or not for us, takes nothing from the rest.

use std::io;
use std::time::Duration;

use mtcache_cache::slot::key_slot;
use mtcache_cache::{Cache, ErrorKind, Framing, ReadOptions, Region, RegionPolicy, Source};
use mtcache_conformance::{ClusterOptions, Program, TestCluster};

use crate::rig::eventually;

const TTL: Duration = Duration::from_mins(5);

fn clusters() -> impl Iterator<Item = TestCluster> {
    let programs = [Program::Redis, Program::Valkey].into_iter();
    programs.map(|program| TestCluster::start(program, ClusterOptions::default()).unwrap())
}

/// Before the link gives the silent primary up.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_batch_has_what_the_others_have_answered_when_its_time_ends() {
    for cluster in clusters() {
        let cache =
            Cache::builder(cluster.url()).response_timeout(Duration::from_secs(30)).open().await.unwrap();
        let plain = RegionPolicy::new("p", TTL);
        let mut regions: Vec<Region<u64>> = Vec::new();
        for policy in [plain.clone(), plain.key_base("f").framed(Framing::new())] {
            regions.push(cache.region(policy).unwrap());
        }
        let ids: Vec<String> = (0..30).map(|n| n.to_string()).collect();
        let is_silent =
            |region: &Region<u64>, id: &str| cluster.owner(key_slot(region.key(id).unwrap().as_bytes())) == 0;
        let mut silent: Vec<Vec<bool>> = Vec::new();
        for region in &regions {
            for id in &ids {
                region.set(id, &1).await.unwrap();
            }
            silent.push(ids.iter().map(|id| is_silent(region, id)).collect());
        }
        cluster.node(0).pause().unwrap();
        for (region, silent) in regions.iter().zip(silent) {
            let loader = |ids: Vec<String>| async move {
                Ok::<_, io::Error>(ids.into_iter().map(|id| (id, 3)).collect::<Vec<_>>())
            };
            let options = ReadOptions::new().deadline(Duration::from_secs(1));
            let each = region.get_or_load_each(ids.clone(), options, loader).await.unwrap();
            assert!(silent.contains(&true) && silent.contains(&false));
            for ((id, is_silent), read) in ids.iter().zip(silent).zip(each) {
                if is_silent {
                    assert_eq!(read.unwrap_err().kind(), ErrorKind::Deadline, "{id}");
                } else {
                    let read = read.unwrap().unwrap();
                    assert_eq!((read.value, read.source), (1, Source::Backend), "{id}");
                }
            }
        }
        cluster.node(0).resume().unwrap();
    }
}

/// The others' answers wait for that of the slow one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_expires_while_one_primary_is_slow_is_loaded() {
    let short = Duration::from_secs(1);
    for cluster in clusters() {
        let cache =
            Cache::builder(cluster.url()).response_timeout(Duration::from_secs(30)).open().await.unwrap();
        let plain = RegionPolicy::new("p", TTL);
        let mut regions = Vec::new();
        for policy in [plain.clone(), plain.key_base("f").framed(Framing::new())] {
            let region: Region<u64> = cache.region(policy).unwrap();
            let owned_by = |node: usize| {
                let mut ids = (0..).map(|n: u32| n.to_string());
                ids.find(|id| cluster.owner(key_slot(region.key(id).unwrap().as_bytes())) == node).unwrap()
            };
            let (slow, there) = (owned_by(0), owned_by(1));
            region.set(&slow, &1).await.unwrap();
            regions.push((region, slow, there));
        }
        cluster.node(0).pause().unwrap();
        let mut late = Vec::new();
        for (region, slow, there) in &regions {
            region.set_for(there, &1, short).await.unwrap();
            let (region, ids) = (region.clone(), [slow.clone(), there.clone()]);
            let loader = |ids: Vec<String>| async move {
                Ok::<_, io::Error>(ids.into_iter().map(|id| (id, 3)).collect::<Vec<_>>())
            };
            late.push(tokio::spawn(async move { region.get_or_load_many(ids, loader).await.unwrap() }));
        }
        for (region, _, there) in &regions {
            eventually("it is over", async || region.get(there).await.unwrap().is_none()).await;
        }
        cluster.node(0).resume().unwrap();
        for late in late {
            let values: Vec<_> = late.await.unwrap().into_iter().map(|read| read.unwrap().value).collect();
            assert_eq!(values, [1, 3]);
        }
    }
}

/// As on one server (`clearing.rs`): what is refused for good does not wait for ever.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_may_not_be_invalidated_is_given_up() {
    for cluster in clusters() {
        let cache = Cache::connect(&cluster.url()).await.unwrap();
        let ours: Region<u32> = cache.region(RegionPolicy::new("ours", TTL)).unwrap();
        let theirs: Region<u32> = cache.region(RegionPolicy::new("theirs", TTL)).unwrap();
        ours.set("{t}k", &1).await.unwrap();
        for node in 0..3 {
            let words = ["ACL", "SETUSER", "default", "resetkeys", "~ours:*", "~mtcache:*"];
            cluster.client(node).command(&words).unwrap();
        }
        assert_eq!(theirs.set("{t}k", &2).await.unwrap_err().kind(), ErrorKind::Denied);
        eventually("it is given up", async || {
            // In the same slot, and read all the while.
            assert_eq!(ours.get("{t}k").await.unwrap().map(|read| read.value), Some(1));
            cache.pending_invalidations() == (0, 0)
        })
        .await;
        assert_eq!((ours.stats().invalidations_lost, theirs.stats().invalidations_lost), (0, 1));
        ours.set("{t}k", &3).await.unwrap();
        assert_eq!(ours.get("{t}k").await.unwrap().map(|read| read.value), Some(3));
    }
}

/// One key may wait twice: as a set of it has failed, and an invalidation, of which others are to hear.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_that_waits_twice_waits_until_both_are_done() {
    for cluster in clusters() {
        let cache =
            Cache::builder(cluster.url()).response_timeout(Duration::from_millis(300)).open().await.unwrap();
        let region: Region<u64> = cache.region(RegionPolicy::new("r", TTL).stale_window(TTL)).unwrap();
        let owned_by = |node: usize| {
            let mut ids = (0..).map(|n: u32| n.to_string());
            ids.find(|id| cluster.owner(key_slot(region.key(id).unwrap().as_bytes())) == node).unwrap()
        };
        let (away, there) = (owned_by(0), owned_by(1));
        region.set(&away, &1).await.unwrap();
        region.set(&there, &1).await.unwrap();
        cluster.node(0).pause().unwrap();
        assert!(region.set(&away, &2).await.is_err());
        assert!(region.invalidate(&away).await.is_err());
        assert_eq!(cache.pending_invalidations(), (2, 0));
        // Each read tries it again, but for a pause in between.
        for _ in 0..4 {
            assert_eq!(region.get(&there).await.unwrap().unwrap().value, 1);
            tokio::time::sleep(Duration::from_millis(150)).await;
        }
        assert_eq!(cache.pending_invalidations(), (2, 0), "nothing is done");
        cluster.node(0).resume().unwrap();
        eventually("both are done", async || {
            let _there = region.get(&there).await;
            cache.pending_invalidations() == (0, 0)
        })
        .await;
        assert!(region.get(&away).await.unwrap().is_none());
    }
}
