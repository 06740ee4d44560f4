//! What only a cluster does: slots move while clients go on, primaries die and replicas take over, parts of it are away.

use std::collections::HashMap;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use mtcache_cache::slot::key_slot;
use mtcache_cache::{Cache, Framing, ReadOptions, Region, RegionPolicy, SetOptions, Source};
use mtcache_conformance::{ClusterOptions, Program, TestCluster};
use parking_lot::Mutex;

use crate::near::{near_is_on, warm};
use crate::rig::eventually;

const TTL: Duration = Duration::from_mins(5);
const HEARTBEAT: Duration = Duration::from_secs(1);
/// What a busy machine may add between a moment and its being noted.
const SLACK: Duration = Duration::from_millis(500);
/// What Redis itself may lose in a failover: writes that the replica had not yet got.
const REPLICATION_LAG: Duration = Duration::from_secs(1);
/// A tag whose slot is moved about.
const TAG: &str = "{moves}";

const PROGRAMS: [Program; 2] = [Program::Redis, Program::Valkey];

fn without_replicas() -> impl Iterator<Item = TestCluster> {
    PROGRAMS.into_iter().map(|program| TestCluster::start(program, ClusterOptions::default()).unwrap())
}

fn with_replicas() -> impl Iterator<Item = TestCluster> {
    let options = ClusterOptions { replicas: true, node_timeout: Duration::from_millis(1500) };
    PROGRAMS.into_iter().map(move |program| TestCluster::start(program, options).unwrap())
}

async fn open(cluster: &TestCluster) -> Cache {
    Cache::builder(cluster.url())
        .near_heartbeat(HEARTBEAT)
        .backoff(Duration::from_millis(20), Duration::from_millis(200))
        .open()
        .await
        .unwrap()
}

async fn region(cluster: &TestCluster) -> Region<u64> {
    let region: Region<u64> = open(cluster).await.region(RegionPolicy::new("r", TTL).near(true)).unwrap();
    near_is_on(region.cache()).await;
    region
}

fn tagged(n: u64) -> String {
    format!("{TAG}{n}")
}

fn slot() -> u16 {
    key_slot(format!("r:{TAG}").as_bytes())
}

/// For each key, what was acknowledged and when.
#[derive(Default)]
struct Acknowledged(Mutex<HashMap<String, Vec<(u64, Instant)>>>);

impl Acknowledged {
    fn note(&self, id: &str, value: u64) {
        self.0.lock().entry(id.to_owned()).or_default().push((value, Instant::now()));
    }

    /// The last value that was acknowledged before then.
    fn before(&self, id: &str, moment: Instant) -> u64 {
        let all = self.0.lock();
        let values = all.get(id).map(Vec::as_slice).unwrap_or_default();
        values.iter().rev().find(|(_, at)| *at <= moment).map_or(0, |(value, _)| *value)
    }

    fn last(&self, id: &str) -> u64 {
        self.before(id, Instant::now())
    }
}

/// Writers of growing values and readers that share them, until they are told to stop.
struct Load {
    ids: Vec<String>,
    acknowledged: Arc<Acknowledged>,
    stop: Arc<AtomicBool>,
    tasks: Vec<tokio::task::JoinHandle<u64>>,
}

impl Load {
    fn start(writing: &Region<u64>, reading: &[Region<u64>], ids: Vec<String>) -> Self {
        let (acknowledged, stop) = (Arc::<Acknowledged>::default(), Arc::<AtomicBool>::default());
        let mut tasks = Vec::new();
        for id in ids.clone() {
            let (region, acknowledged, stop) =
                (writing.clone(), Arc::clone(&acknowledged), Arc::clone(&stop));
            tasks.push(tokio::spawn(async move {
                let mut failed = 0;
                for value in 1.. {
                    if stop.load(Ordering::SeqCst) {
                        break;
                    }
                    match region.set(&id, &value).await {
                        Ok(()) => acknowledged.note(&id, value),
                        Err(_) => failed += 1,
                    }
                    tokio::time::sleep(Duration::from_millis(7)).await;
                }
                failed
            }));
        }
        for region in reading {
            let (region, ids) = (region.clone(), ids.clone());
            let (acknowledged, stop) = (Arc::clone(&acknowledged), Arc::clone(&stop));
            tasks.push(tokio::spawn(async move {
                let mut failed = 0;
                while !stop.load(Ordering::SeqCst) {
                    for id in &ids {
                        let Some(due) = Instant::now().checked_sub(HEARTBEAT + SLACK) else { continue };
                        let due = acknowledged.before(id, due);
                        match region.get_shared(id).await {
                            Ok(Some(read)) if read.source == Source::Near => {
                                assert!(
                                    *read.value >= due,
                                    "{id}: {} near, {due} is older than the heartbeat",
                                    read.value
                                );
                            }
                            Ok(_) => {}
                            Err(_) => failed += 1,
                        }
                    }
                    tokio::time::sleep(Duration::from_millis(1)).await;
                }
                failed
            }));
        }
        Self { ids, acknowledged, stop, tasks }
    }

    /// How many calls have failed.
    async fn end(&mut self) -> u64 {
        self.stop.store(true, Ordering::SeqCst);
        let mut failed = 0;
        for task in self.tasks.drain(..) {
            failed += task.await.unwrap();
        }
        failed
    }

    /// Waits until each key was written once more.
    async fn wait_for_a_write_of_each(&self) {
        let since: Vec<u64> = self.ids.iter().map(|id| self.acknowledged.last(id)).collect();
        eventually("every key is written again", async || {
            self.ids.iter().zip(&since).all(|(id, since)| self.acknowledged.last(id) > *since)
        })
        .await;
    }
}

/// Nobody has anything near that the backend has not.
async fn nothing_stale_is_near(regions: &[Region<u64>], ids: &[String]) {
    tokio::time::sleep(HEARTBEAT).await;
    for region in regions {
        for id in ids {
            let near = region.get_shared(id).await.unwrap().map(|read| *read.value);
            let truth = region.get(id).await.unwrap().map(|read| read.value);
            assert_eq!(near, truth, "{id}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn slots_that_move_under_load_lose_no_write_and_leave_nothing_stale_near() {
    for cluster in without_replicas() {
        let cluster = Arc::new(cluster);
        let regions = [region(&cluster).await, region(&cluster).await];
        let mut ids: Vec<String> = (0..10).map(tagged).collect();
        ids.extend((0..10).map(|n| n.to_string()));
        let mut load = Load::start(&regions[0], &regions, ids.clone());
        for round in 0..6 {
            load.wait_for_a_write_of_each().await;
            let cluster = Arc::clone(&cluster);
            let moved = tokio::task::spawn_blocking(move || {
                let from = cluster.owner(slot());
                let to = (from + 1 + round % 2) % 3;
                cluster.begin_move(slot(), from, to);
                // For a while some keys are here and some there.
                let moved = cluster.move_keys(slot(), from, to);
                std::thread::sleep(Duration::from_millis(100));
                let late = cluster.move_keys(slot(), from, to);
                cluster.end_move(slot(), from, to);
                moved + late
            });
            assert!(moved.await.unwrap() >= 10, "there were keys to move");
        }
        load.wait_for_a_write_of_each().await;
        assert_eq!(load.end().await, 0, "no call fails because a slot moves");
        for id in &ids {
            let stored = regions[0].get(id).await.unwrap().map(|read| read.value);
            assert_eq!(stored, Some(load.acknowledged.last(id)), "{id}");
        }
        nothing_stale_is_near(&regions, &ids).await;
        // And it is used again.
        for region in &regions {
            assert_eq!(*warm(region, &ids[0]).await.value, load.acknowledged.last(&ids[0]));
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_primary_loses_what_redis_loses_and_leaves_nothing_stale_near() {
    for cluster in with_replicas() {
        let regions = [region(&cluster).await, region(&cluster).await];
        let cluster = Arc::new(Mutex::new(cluster));
        let ids: Vec<String> = (0..20).map(|n| n.to_string()).collect();
        let slot = key_slot(b"r:0");
        let mut load = Load::start(&regions[0], &regions, ids.clone());
        load.wait_for_a_write_of_each().await;
        let before_it: Vec<String> = (0..200).map(|n| format!("before{n}")).collect();
        for id in &before_it {
            regions[0].set(id, &1).await.unwrap();
        }
        tokio::time::sleep(REPLICATION_LAG).await;
        let killed = Instant::now();
        let failing = Arc::clone(&cluster);
        let owners = tokio::task::spawn_blocking(move || {
            let mut cluster = failing.lock();
            let before = cluster.owner(slot);
            (before, cluster.fail_over(slot).unwrap())
        });
        let (before, after) = owners.await.unwrap();
        load.wait_for_a_write_of_each().await;
        println!("{} failed over to {after} and written again after {:?}", before, killed.elapsed());
        let failed = load.end().await;
        for id in &ids {
            let last = load.acknowledged.last(id);
            let stored = regions[0].get(id).await.unwrap().map(|read| read.value);
            assert_eq!(stored, Some(last), "{id}: what was acknowledged after the failover is there");
        }
        for id in &before_it {
            let stored = regions[0].get(id).await.unwrap().map(|read| read.value);
            assert_eq!(stored, Some(1), "{id}: what was acknowledged well before the failover is there");
        }
        assert!(failed > 0, "it was seen to be away");
        nothing_stale_is_near(&regions, &ids).await;
        for region in &regions {
            assert_eq!(*warm(region, "0").await.value, load.acknowledged.last("0"));
        }
        // The old primary comes back as a replica, and nobody takes its word.
        {
            let cluster = Arc::clone(&cluster);
            tokio::task::spawn_blocking(move || {
                let mut cluster = cluster.lock();
                cluster.node_mut(before).start_again().unwrap();
                cluster.wait_ready();
            })
            .await
            .unwrap();
        }
        regions[1].set("0", &1_000_000).await.unwrap();
        eventually("the write is seen", async || {
            regions[0]
                .get_shared("0")
                .await
                .is_ok_and(|read| read.is_some_and(|read| *read.value == 1_000_000))
        })
        .await;
    }
}

/// Some of a slot's keys are at one node and some at the other, for longer than any wait: a value and its token are never at one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_a_slot_is_on_its_way_values_are_read_written_and_invalidated() {
    for cluster in without_replicas() {
        let region = region(&cluster).await;
        let cache = region.cache().clone();
        for n in 0..4 {
            region.set(&tagged(n), &n).await.unwrap();
        }
        let from = cluster.owner(slot());
        let to = (from + 1) % 3;
        cluster.begin_move(slot(), from, to);
        cluster.move_keys(slot(), from, to);
        // What is set now is new at the other node; the first four were moved there.
        for n in 0..8 {
            let read = region.get_shared(&tagged(n)).await.unwrap().map(|read| *read.value);
            assert_eq!(read, (n < 4).then_some(n));
            region.set(&tagged(n), &(n + 100)).await.unwrap();
            for _ in 0..3 {
                let read = region.get_shared(&tagged(n)).await.unwrap().unwrap();
                assert_eq!(
                    (*read.value, read.source),
                    (n + 100, Source::Backend),
                    "nobody tells of its changes"
                );
            }
        }
        let keys: Vec<String> = (0..9).map(|n| region.key(tagged(n)).unwrap()).collect();
        let values: Vec<Option<u64>> = cache.get_many(&keys).await.unwrap();
        assert_eq!(values, (0..9).map(|n| (n < 8).then_some(n + 100)).collect::<Vec<_>>());
        assert_eq!(cache.exists(&keys).await.unwrap(), 8);
        assert!(!cache.set(&keys[0], &7, SetOptions::ttl(TTL).if_absent()).await.unwrap());
        assert!(cache.set(&keys[8], &108, SetOptions::ttl(TTL).if_absent()).await.unwrap());
        cache.set_many(&[(&keys[0], 200), (&keys[1], 201)], TTL).await.unwrap();
        assert_eq!(region.get(tagged(1)).await.unwrap().unwrap().value, 201);
        region.invalidate(tagged(1)).await.unwrap();
        assert!(region.get(tagged(1)).await.unwrap().is_none());
        assert_eq!(cache.delete(&keys[2..4]).await.unwrap(), 2);
        // A miss is loaded, whether or not it can be stored.
        let read = region.get_or_load(tagged(1), || async { Ok::<_, io::Error>(5) }).await.unwrap();
        assert_eq!((read.value, read.source), (5, Source::Loader));
        cluster.move_keys(slot(), from, to);
        cluster.end_move(slot(), from, to);
        assert_eq!(*warm(&region, &tagged(0)).await.value, 200);
        let stats = region.stats();
        assert_eq!(cache.pending_invalidations(), (0, 0), "{stats:?}");
    }
}

/// A load that began before a slot's move does not store over what was set on the way.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_load_from_before_a_move_does_not_store_over_a_set_within_it() {
    for cluster in without_replicas() {
        let region = region(&cluster).await;
        let (started, go_on) = (Arc::new(tokio::sync::Notify::new()), Arc::new(tokio::sync::Notify::new()));
        let loading = {
            let (region, started, go_on) = (region.clone(), Arc::clone(&started), Arc::clone(&go_on));
            tokio::spawn(async move {
                let loader = move || async move {
                    started.notify_one();
                    go_on.notified().await;
                    Ok::<_, io::Error>(1)
                };
                region.get_or_load(tagged(0), loader).await.unwrap().value
            })
        };
        started.notified().await;
        let from = cluster.owner(slot());
        let to = (from + 1) % 3;
        cluster.begin_move(slot(), from, to);
        cluster.move_keys(slot(), from, to);
        let other = self::region(&cluster).await;
        other.set(tagged(0), &2).await.unwrap();
        cluster.move_keys(slot(), from, to);
        cluster.end_move(slot(), from, to);
        go_on.notify_one();
        assert_eq!(loading.await.unwrap(), 1);
        assert_eq!(other.get(tagged(0)).await.unwrap().unwrap().value, 2);
        assert_eq!(region.get(tagged(0)).await.unwrap().unwrap().value, 2);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clearing_a_region_meets_the_keys_that_are_on_their_way() {
    for cluster in without_replicas() {
        let cluster = Arc::new(cluster);
        let region = region(&cluster).await;
        for round in 0..5 {
            let entries: Vec<(String, u64)> = (0..3000)
                .map(|n| (region.key(if n % 3 == 0 { tagged(n) } else { n.to_string() }).unwrap(), n))
                .collect();
            region.cache().set_many(&entries, TTL).await.unwrap();
            let moving = {
                let cluster = Arc::clone(&cluster);
                tokio::task::spawn_blocking(move || {
                    let from = cluster.owner(slot());
                    cluster.move_slot(slot(), from, (from + 1 + round % 2) % 3);
                })
            };
            region.invalidate_all().await.unwrap();
            moving.await.unwrap();
            let keys: Vec<&String> = entries.iter().map(|(key, _)| key).collect();
            assert_eq!(region.cache().exists(&keys).await.unwrap(), 0, "round {round}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_one_primary_the_others_are_read_near_and_far() {
    for cluster in without_replicas() {
        let region = region(&cluster).await;
        let ids: Vec<String> = (0..30).map(|n| n.to_string()).collect();
        let owner = |id: &str| cluster.owner(key_slot(format!("r:{id}").as_bytes()));
        let (gone, there): (Vec<_>, Vec<_>) = ids.iter().partition(|id| owner(id) == 0);
        assert!(gone.len() > 3 && there.len() > 3);
        for id in &ids {
            region.set(id, &1).await.unwrap();
            warm(&region, id).await;
        }
        cluster.node(0).pause().unwrap();
        // What is near of the silent node is not believed for longer than the heartbeat, and the rest is not dropped.
        tokio::time::sleep(HEARTBEAT + SLACK).await;
        for id in &there {
            assert_eq!(region.get_shared(*id).await.unwrap().unwrap().source, Source::Near, "{id}");
            assert_eq!(region.get(*id).await.unwrap().unwrap().value, 1, "{id}");
        }
        assert!(region.get_shared(gone[0]).await.is_err());
        // What fails for one key waits for that key alone, and is made good before it is read again.
        assert!(region.set(gone[0], &2).await.is_err());
        assert_eq!(region.cache().pending_invalidations(), (1, 0));
        for id in &there {
            assert_eq!(region.get(*id).await.unwrap().unwrap().value, 1, "{id}");
        }
        assert!(region.get(gone[0]).await.is_err());
        let read = region.get_or_load(gone[0], || async { Ok::<_, io::Error>(3) }).await.unwrap();
        assert_eq!((read.value, read.source), (3, Source::Loader));
        // In a batch too, and what cannot be read is loaded.
        let loader = |ids: Vec<String>| async move {
            Ok::<_, io::Error>(ids.into_iter().map(|id| (id, 3)).collect::<Vec<_>>())
        };
        let each = region.get_or_load_each(ids.clone(), ReadOptions::new(), loader).await.unwrap();
        for (id, read) in ids.iter().zip(each) {
            let read = read.unwrap().unwrap();
            let expected = if gone.contains(&id) { (3, Source::Loader) } else { (1, Source::Backend) };
            assert_eq!((read.value, read.source), expected, "{id}");
        }
        cluster.node(0).resume().unwrap();
        for id in &gone {
            let mut value = None;
            eventually("it is back", async || {
                let read = region.get(*id).await;
                value = read.as_ref().ok().and_then(|read| read.as_ref().map(|read| read.value));
                read.is_ok()
            })
            .await;
            // The set may have taken effect or not; the invalidation has.
            assert_eq!(value, (*id != gone[0]).then_some(1), "{id}");
        }
        assert_eq!(region.cache().pending_invalidations(), (0, 0));
    }
}

/// The values are on primaries that answer; whether their tag has fallen only the silent one could say.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_carries_a_tag_of_a_silent_primary_is_not_served() {
    for cluster in without_replicas() {
        let policy = RegionPolicy::new("r", TTL).framed(Framing::new()).near(true);
        let region: Region<u64> = open(&cluster).await.region(policy).unwrap();
        near_is_on(region.cache()).await;
        let owner = |text: &str| cluster.owner(key_slot(text.as_bytes()));
        let named = |prefix: &str, is_silent: bool| {
            let mut names = (0..).map(|n: u32| n.to_string());
            names.find(|name| (owner(&format!("{prefix}{name}")) == 0) == is_silent).unwrap()
        };
        // A tag's token lies in the slot of its name.
        let (silent, id) = (named("", true), named("r:", false));
        let tagged = region.tagged([&silent]).unwrap();
        tagged.set(&id, &1).await.unwrap();
        warm(&region, &id).await;
        cluster.node(0).pause().unwrap();
        tokio::time::sleep(HEARTBEAT + SLACK).await;
        assert!(region.get_shared(&id).await.is_err(), "nobody knows whether its tag has fallen");
        assert!(region.get(&id).await.is_err());
        let read = tagged.get_or_load(&id, || async { Ok::<_, io::Error>(3) }).await.unwrap();
        assert_eq!((read.value, read.source), (3, Source::Loader));
        let loader = |ids: Vec<String>| async move {
            Ok::<_, io::Error>(ids.into_iter().map(|id| (id, 4)).collect::<Vec<_>>())
        };
        let each = tagged.get_or_load_each([id.clone()], ReadOptions::new(), loader).await.unwrap();
        assert_eq!(each[0].as_ref().unwrap().as_ref().unwrap().value, 4);
        assert!(region.cache().invalidate_tag(&silent).await.is_err());
        assert_eq!(region.cache().pending_invalidations(), (1, 0));
        cluster.node(0).resume().unwrap();
        let mut read = None;
        eventually("it is back", async || {
            read = region.get(&id).await.ok();
            read.is_some()
        })
        .await;
        assert_eq!(read.unwrap(), None, "the tag has fallen before the first read");
        assert_eq!(region.cache().pending_invalidations(), (0, 0));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_service_starts_without_its_cluster_and_uses_it_once_it_is_there() {
    for mut cluster in without_replicas() {
        for node in 0..3 {
            cluster.node_mut(node).stop().unwrap();
        }
        let region: Region<u64> =
            open(&cluster).await.region(RegionPolicy::new("r", TTL).near(true)).unwrap();
        let read = region.get_or_load("k", || async { Ok::<_, io::Error>(1) }).await.unwrap();
        assert_eq!((read.value, read.source), (1, Source::Loader));
        assert!(region.get("k").await.is_err() && !region.cache().is_connected());
        for node in 0..3 {
            cluster.node_mut(node).start_again().unwrap();
        }
        cluster.wait_ready();
        assert!(region.cache().wait_connected(Duration::from_secs(20)).await);
        region.set("k", &2).await.unwrap();
        assert_eq!(*warm(&region, "k").await.value, 2);
    }
}
