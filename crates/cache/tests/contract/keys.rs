//! Keys that could meet: bookkeeping keys lie in the slot of their key, by what real servers say; regions whose names begin alike have
//! nothing of each other's.

use std::time::Duration;

use mtcache_cache::slot::{bookkeeping_key, key_slot};
use mtcache_cache::{ErrorKind, Framing, ReadOptions, Region, RegionPolicy, TrackingState};
use mtcache_conformance::servers::{ServerOptions, TestServer};

use crate::near::{near_is_on, warm};
use crate::rig::{Rig, eventually, on_every_backend};

const TTL: Duration = Duration::from_secs(30);

on_every_backend! {
    regions_whose_names_begin_alike_are_heard_apart,
    no_region_has_a_name_within_anothers_keys_or_the_librarys,
}

/// A server refuses to tell of prefixes that begin with one another, and what is heard of one must not touch the others.
async fn regions_whose_names_begin_alike_are_heard_apart(rig: Rig) {
    let (here, there) = (rig.cache().await, rig.cache().await);
    let names = ["a", "ab", "a.b", "a-b", "a_b", "mtcach", "mtcache.gone"];
    let mut regions: Vec<Region<u64>> = Vec::new();
    let mut others: Vec<Region<u64>> = Vec::new();
    for (n, name) in names.iter().enumerate() {
        let policy = RegionPolicy::new(*name, TTL).near(true);
        let policy = if n % 2 == 0 { policy.stale_window(TTL) } else { policy.framed(Framing::new()) };
        regions.push(here.region(policy.clone()).unwrap());
        others.push(there.region(policy).unwrap());
    }
    near_is_on(&here).await;
    for (changed, other) in others.iter().enumerate() {
        for region in &regions {
            region.set("k", &1).await.unwrap();
        }
        for region in &regions {
            warm(region, "k").await;
        }
        let near = |region: &Region<u64>| {
            let read = region.get_near("k", ReadOptions::new()).unwrap();
            // Nothing can fall in between that is not gone for good.
            if read.is_none() {
                assert_eq!(region.peek("k"), None);
            }
            read
        };
        for region in &regions {
            assert_eq!(region.peek("k").as_deref(), Some(&1));
        }
        if changed % 2 == 0 {
            other.invalidate_all().await.unwrap();
        } else {
            other.set("k", &2).await.unwrap();
        }
        eventually("it is told", async || near(&regions[changed]).is_none()).await;
        for (n, region) in regions.iter().enumerate() {
            let value = region.get("k").await.unwrap().map(|read| read.value);
            let left = if changed % 2 == 0 { None } else { Some(2) };
            assert_eq!(
                value,
                if n == changed { left } else { Some(1) },
                "{} and {}",
                names[changed],
                names[n]
            );
        }
    }
    assert_eq!(here.near_state(), TrackingState::On);
}

async fn no_region_has_a_name_within_anothers_keys_or_the_librarys(rig: Rig) {
    let cache = rig.cache().await;
    let kind = |policy: RegionPolicy| cache.region::<u64>(policy.near(true)).unwrap_err().kind();
    assert_eq!(kind(RegionPolicy::new("a:b", TTL)), ErrorKind::Config);
    assert_eq!(kind(RegionPolicy::new("ab", TTL).key_base("a:b")), ErrorKind::Config);
    assert_eq!(kind(RegionPolicy::new("mtcache", TTL)), ErrorKind::Config);
    assert_eq!(kind(RegionPolicy::new("other", TTL).key_base("mtcache")), ErrorKind::Config);
    let deployed = rig.builder().prefix("mt").open().await.unwrap();
    let refused = deployed.region::<u64>(RegionPolicy::new("cache", TTL).near(true)).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Config);
    // What was refused has not switched off the others.
    let region = cache.region::<u64>(RegionPolicy::new("r", TTL).near(true)).unwrap();
    near_is_on(&cache).await;
    region.set("k", &1).await.unwrap();
    warm(&region, "k").await;
}

fn ours_is_theirs(server: &TestServer) {
    let mut client = server.client().unwrap();
    let letters = [b'{', b'}', b'a', b':', 0xff];
    let mut keys: Vec<Vec<u8>> = vec![b"market_data:BTC/USDT".to_vec(), b"{user}:x".to_vec(), "ключ".into()];
    // Every key of up to four of these letters: all the ways in which braces can meet.
    for length in 0..=4_u32 {
        for n in 0..letters.len().pow(length) {
            keys.push((0..length).map(|i| letters[n / letters.len().pow(i) % letters.len()]).collect());
        }
    }
    let mut names = std::collections::HashSet::new();
    for key in keys {
        let book = bookkeeping_key("fill", &key);
        for name in [&key, &book] {
            let said = client.command(&[&b"CLUSTER"[..], b"KEYSLOT", name]).unwrap().integer();
            assert_eq!(said, Some(i64::from(key_slot(&key))), "{:?}", String::from_utf8_lossy(name));
        }
        assert!(names.insert(book), "{:?}", String::from_utf8_lossy(&key));
    }
}

#[test]
fn redis_says_that_bookkeeping_keys_are_in_their_keys_slot() {
    ours_is_theirs(&TestServer::redis(ServerOptions::new().args(["--cluster-enabled", "yes"])).unwrap());
}

#[test]
fn valkey_says_that_bookkeeping_keys_are_in_their_keys_slot() {
    ours_is_theirs(&TestServer::valkey(ServerOptions::new().args(["--cluster-enabled", "yes"])).unwrap());
}
