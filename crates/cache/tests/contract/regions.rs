//! Regions: keys, ages, cached absences, policies.

use std::io;
use std::time::Duration;

use mtcache_cache::{
    Age, Condition, Counted, ErrorKind, ReadOptions, Region, RegionPolicy, Source, Staleness, TimeLeft,
    Undecodable,
};
use serde_json::{Value, json};

use crate::loads::Gate;
use crate::near::{near_is_on, warm};
use crate::rig::{Rig, eventually, on_every_backend};

const TTL: Duration = Duration::from_secs(30);

on_every_backend! {
    a_region_reads_what_it_set,
    age_is_told_when_asked_and_bounded_by_the_ttl,
    older_than_demanded_is_a_miss,
    an_absence_is_cached_for_its_own_time,
    unreadable_bytes_are_what_the_policy_says,
    clearing_users_keeps_users_abc,
    what_is_stored_together_expires_apart,
    many_are_read_at_once,
    a_hit_that_was_counted_as_a_miss_is_not_taken_back,
    each_read_knows_as_what_hit_it_was_counted,
    nothing_outlives_its_region,
    a_bad_policy_is_refused,
}

async fn region<T: 'static>(rig: &Rig, policy: RegionPolicy) -> Region<T> {
    rig.cache().await.region(policy).unwrap()
}

async fn a_region_reads_what_it_set(rig: Rig) {
    let region: Region<Value> = region(&rig, RegionPolicy::new("market_data", TTL)).await;
    assert!(region.get("BTC").await.unwrap().is_none());
    region.set("BTC", &json!({"price": 1.5})).await.unwrap();
    region.set(["BTC", "1h", "ohlcv"], &json!([])).await.unwrap();
    let read = region.get("BTC").await.unwrap().unwrap();
    assert_eq!(
        (read.value, read.source, read.staleness),
        (json!({"price": 1.5}), Source::Backend, Staleness::Fresh)
    );
    assert_eq!(rig.raw_keys().await, ["market_data:BTC", "market_data:BTC:1h:ohlcv"]);
    assert!(!region.set_when("BTC", &json!(0), Condition::IfAbsent).await.unwrap());
    assert!(region.invalidate("BTC").await.unwrap());
    assert!(!region.invalidate("BTC").await.unwrap());
    let stats = region.stats();
    assert_eq!((stats.hits, stats.misses, stats.sets, stats.invalidations), (1, 1, 2, 2));
    assert_eq!(stats.sets_refused, 1);
}

async fn age_is_told_when_asked_and_bounded_by_the_ttl(rig: Rig) {
    let region: Region<u32> = region(&rig, RegionPolicy::new("r", TTL)).await;
    region.set("k", &1).await.unwrap();
    let asked = ReadOptions::new().with_age();
    assert_eq!(region.get("k").await.unwrap().unwrap().age, Age::Unknown);
    let Age::AtMost(age) = region.get_with("k", asked).await.unwrap().unwrap().age else { panic!("no age") };
    assert!(age < Duration::from_secs(5), "{age:?}");
    region.expire("k", Duration::from_secs(10)).await.unwrap();
    let Age::AtMost(age) = region.get_with("k", asked).await.unwrap().unwrap().age else { panic!("no age") };
    assert!(age >= Duration::from_secs(20), "{age:?}");
    rig.raw(&["PERSIST", "r:k"]).await;
    assert_eq!(region.get_with("k", asked).await.unwrap().unwrap().age, Age::Unknown);
    rig.raw(&["PEXPIRE", "r:k", "31000"]).await;
    assert_eq!(region.get_with("k", asked).await.unwrap().unwrap().age, Age::Unknown);
}

async fn older_than_demanded_is_a_miss(rig: Rig) {
    let region: Region<u32> = region(&rig, RegionPolicy::new("r", TTL)).await;
    region.set("k", &1).await.unwrap();
    let within = |s| ReadOptions::new().max_age(Duration::from_secs(s));
    assert!(region.get_with("k", within(25)).await.unwrap().is_some());
    region.expire("k", Duration::from_secs(10)).await.unwrap();
    assert!(region.get_with("k", within(15)).await.unwrap().is_none());
    assert!(region.get_with("k", within(25)).await.unwrap().is_some());
    // Unknown is a miss too, and a load replaces it.
    rig.raw(&["PERSIST", "r:k"]).await;
    assert!(region.get_with("k", within(25)).await.unwrap().is_none());
    let read = region.get_or_load_with("k", within(25), || async { Ok::<_, io::Error>(2) }).await.unwrap();
    assert_eq!((read.value, read.source), (2, Source::Loader));
    assert!(read.age.is_within(Duration::from_secs(25)));
    let read = region.get_with("k", within(25)).await.unwrap().unwrap();
    assert_eq!(read.value, 2);
}

async fn an_absence_is_cached_for_its_own_time(rig: Rig) {
    let policy = RegionPolicy::new("r", TTL).none_ttl(Some(Duration::from_secs(3)));
    let maybe: Region<Option<u32>> = region(&rig, policy.clone()).await;
    let read = maybe.get_or_load("k", || async { Ok::<_, io::Error>(None) }).await.unwrap();
    assert_eq!((read.value, read.source), (None, Source::Loader));
    assert_eq!(rig.raw_get("r:k").await.as_deref(), Some("null"));
    let TimeLeft::For(left) = maybe.time_left("k").await.unwrap() else { panic!("no expiry") };
    assert!(left <= Duration::from_secs(3), "{left:?}");
    let read = maybe.get_or_load("k", || async { Ok::<_, io::Error>(Some(1)) }).await.unwrap();
    assert_eq!((read.value, read.source), (None, Source::Backend));
    assert_eq!(maybe.stats().none_hits, 1);
    assert_eq!(maybe.get("k").await.unwrap().unwrap().value, None);

    // To a type without a place for it, it is no value, and a load replaces it.
    let always: Region<u32> = region(&rig, policy.clone()).await;
    assert!(always.get("k").await.unwrap().is_none());
    let read = always.get_or_load("k", || async { Ok::<_, io::Error>(7) }).await.unwrap();
    assert_eq!((read.value, read.source), (7, Source::Loader));
    assert_eq!(maybe.get("k").await.unwrap().unwrap().value, Some(7));

    let forgetful: Region<Option<u32>> = region(&rig, policy.none_ttl(None)).await;
    forgetful.set("k", &None).await.unwrap();
    assert_eq!(rig.raw_keys().await, Vec::<String>::new());
    forgetful.set("k", &Some(1)).await.unwrap();
    forgetful.set_many(&[("j", Some(2)), ("k", None)]).await.unwrap();
    assert_eq!(rig.raw_keys().await, ["r:j"]);

    // A condition holds for it as for any value.
    assert!(!forgetful.set_when("j", &None, Condition::IfAbsent).await.unwrap());
    let newer = forgetful.set_when("j", &None, Condition::IfNewer { field: "time".to_owned() }).await;
    assert_eq!(newer.unwrap_err().kind(), ErrorKind::Unencodable);
    assert!(!forgetful.set_when("none", &None, Condition::IfPresent).await.unwrap());
    assert_eq!(rig.raw_keys().await, ["r:j"]);
    assert!(forgetful.set_when("j", &None, Condition::IfPresent).await.unwrap());
    forgetful.set_many(&[("k", None), ("l", Some(1)), ("k", Some(3)), ("l", None)]).await.unwrap();
    assert_eq!(rig.raw_keys().await, ["r:k"], "the last entry of a key counts");
}

async fn unreadable_bytes_are_what_the_policy_says(rig: Rig) {
    rig.raw(&["SET", "r:k", "{broken", "EX", "30"]).await;
    let strict: Region<u32> = region(&rig, RegionPolicy::new("r", TTL)).await;
    assert_eq!(strict.get("k").await.unwrap_err().kind(), ErrorKind::Undecodable);
    let refused = strict.get_or_load("k", || async { Ok::<_, io::Error>(1) }).await;
    assert_eq!(refused.unwrap_err().kind(), ErrorKind::Undecodable);
    assert_eq!(strict.stats().undecodable, 2);
    assert_eq!(strict.stats().misses, 0);

    let lenient: Region<u32> = region(&rig, RegionPolicy::new("r", TTL).undecodable(Undecodable::Miss)).await;
    assert!(lenient.get("k").await.unwrap().is_none());
    let read = lenient.get_or_load("k", || async { Ok::<_, io::Error>(1) }).await.unwrap();
    assert_eq!((read.value, read.source), (1, Source::Loader));
    assert_eq!(rig.raw_get("r:k").await.as_deref(), Some("1"));
    assert_eq!(lenient.stats().undecodable, 2);
}

async fn clearing_users_keeps_users_abc(rig: Rig) {
    let cache = rig.builder().prefix("p[*]:").open().await.unwrap();
    let users: Region<usize> = cache.region(RegionPolicy::new("users", TTL)).unwrap();
    let others: Region<usize> = cache.region(RegionPolicy::new("usersAbc", TTL)).unwrap();
    let ids: Vec<(String, usize)> = (0..300).map(|i| (format!("{{{i}}}"), i)).collect();
    users.set_many(&ids).await.unwrap();
    others.set("1", &1).await.unwrap();
    rig.raw(&["SET", "pX:users:1", "1"]).await;
    assert_eq!(users.invalidate_all().await.unwrap(), 300);
    assert_eq!(rig.raw_keys().await, ["pX:users:1", "p[*]:usersAbc:1"]);
}

async fn what_is_stored_together_expires_apart(rig: Rig) {
    let region: Region<u32> = region(&rig, RegionPolicy::new("r", TTL).ttl_jitter(0.5)).await;
    let mut lefts = Vec::new();
    for i in 0..50_u32 {
        region.set(i.to_string(), &i).await.unwrap();
        let TimeLeft::For(left) = region.time_left(i.to_string()).await.unwrap() else { panic!("no expiry") };
        assert!(left <= TTL && left > TTL / 3, "{left:?}");
        lefts.push(left);
    }
    let spread = lefts.iter().max().unwrap().abs_diff(*lefts.iter().min().unwrap());
    assert!(spread > Duration::from_secs(5), "{spread:?}");
}

async fn many_are_read_at_once(rig: Rig) {
    let region: Region<u32> = region(&rig, RegionPolicy::new("r", TTL)).await;
    region.set_many(&[("a", 1), ("b", 2)]).await.unwrap();
    let read = region.get_many(&["b", "x", "a"]).await.unwrap();
    let values: Vec<_> = read.into_iter().map(|read| read.map(|r| r.value)).collect();
    assert_eq!(values, [Some(2), None, Some(1)]);
    assert_eq!((region.stats().hits, region.stats().misses), (2, 1));
}

async fn a_hit_that_was_counted_as_a_miss_is_not_taken_back(rig: Rig) {
    let region: Region<u32> = region(&rig, RegionPolicy::new("r", TTL).max_loads(1, 10)).await;
    let gate = Gate::default();
    let read = |id: &'static str, gate: &Gate| {
        let (region, loader) = (region.clone(), gate.loader(1));
        tokio::spawn(async move { region.get_or_load(id, loader).await.unwrap() })
    };
    let first = read("x", &gate);
    gate.running.notified().await;
    let second = read("k", &Gate::default());
    eventually("it waits for its place", async || region.stats().misses == 2).await;
    region.set("k", &2).await.unwrap();
    gate.open.notify_one();
    first.await.unwrap();
    let found = second.await.unwrap();
    assert_eq!((found.value, found.source), (2, Source::Backend));
    // Nor is the hit of another reader, who was there meanwhile.
    let hit = region.get("k").await.unwrap().unwrap();
    region.count_undecodable(found.counted());
    let stats = region.stats();
    assert_eq!((stats.hits, stats.misses, stats.undecodable), (1, 2, 1));
    // A hit becomes a miss.
    region.count_undecodable(hit.counted());
    let stats = region.stats();
    assert_eq!((stats.hits, stats.misses, stats.undecodable), (0, 3, 2));
}

async fn each_read_knows_as_what_hit_it_was_counted(rig: Rig) {
    let policy = RegionPolicy::new("r", TTL).near(true);
    let region: Region<u64> = rig.cache().await.region(policy).unwrap();
    near_is_on(region.cache()).await;
    region.set("k", &1).await.unwrap();
    let near = warm(&region, "k").await;
    let far = region.get_many(&["k"]).await.unwrap().remove(0).unwrap();
    let loader = |ids: Vec<&'static str>| async move {
        Ok::<_, io::Error>(ids.into_iter().map(|id| (id, 2)).collect::<Vec<_>>())
    };
    let batch = region.get_or_load_many_shared(["k", "new"], loader).await.unwrap();
    let counted: Vec<_> = batch.into_iter().map(|read| read.unwrap().counted()).collect();
    assert_eq!((near.counted(), far.counted()), (Counted::NearHit, Counted::Hit));
    assert_eq!(counted, [Counted::NearHit, Counted::NoHit]);
    let before = region.stats();
    for counted in [near.counted(), far.counted(), counted[0], counted[1]] {
        region.count_undecodable(counted);
    }
    let after = region.stats();
    assert_eq!((before.hits - after.hits, before.near_hits - after.near_hits), (3, 2));
    assert_eq!((after.misses - before.misses, after.undecodable - before.undecodable), (3, 4));
}

async fn nothing_outlives_its_region(rig: Rig) {
    let region: Region<u32> = region(&rig, RegionPolicy::new("r", TTL)).await;
    assert_eq!(region.set_for("k", &1, TTL * 2).await.unwrap_err().kind(), ErrorKind::BadTtl);
    region.set_for("k", &1, Duration::from_secs(2)).await.unwrap();
    assert!(
        matches!(region.time_left("k").await.unwrap(), TimeLeft::For(left) if left <= Duration::from_secs(2))
    );
    assert!(region.touch("k").await.unwrap());
    assert!(
        matches!(region.time_left("k").await.unwrap(), TimeLeft::For(left) if left > TTL / 2 && left <= TTL)
    );
}

async fn a_bad_policy_is_refused(rig: Rig) {
    let cache = rig.cache().await;
    for (policy, kind) in [
        (RegionPolicy::new("a:b", TTL), ErrorKind::Config),
        (RegionPolicy::new("", TTL), ErrorKind::Config),
        (RegionPolicy::new("r", Duration::ZERO), ErrorKind::BadTtl),
        (RegionPolicy::new("r", TTL).ttl_jitter(0.6), ErrorKind::Config),
        (RegionPolicy::new("r", TTL).ttl_jitter(f64::NAN), ErrorKind::Config),
        (RegionPolicy::new("r", TTL).key_base("x:y"), ErrorKind::Config),
    ] {
        assert_eq!(cache.region::<u32>(policy).unwrap_err().kind(), kind);
    }
}
