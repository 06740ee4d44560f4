//! Tags: one step invalidates all that carries one, wherever it is kept.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use mtcache_cache::{ErrorKind, Framing, Region, RegionPolicy, Source};
use tokio::sync::Notify;

use crate::near::{near_is_on, warm};
use crate::rig::{Rig, eventually, on_every_backend};

const TTL: Duration = Duration::from_secs(30);

on_every_backend! {
    an_invalidated_tag_takes_what_carries_it_and_nothing_else,
    an_invalidation_during_a_load_takes_what_the_load_stores,
    a_reader_after_an_invalidation_does_not_join_the_old_load,
    an_invalidation_by_another_process_during_a_load_is_found_out,
    a_missing_token_reads_as_invalidated,
    a_token_lives_longer_than_what_carries_it,
    tags_of_different_deployments_are_different,
    what_is_near_falls_with_its_tag_on_every_node,
    a_tag_read_before_is_asked_for_in_the_same_trip,
    expiring_members_leave_nothing_behind,
    plain_regions_keep_no_tags,
}

fn policy() -> RegionPolicy {
    RegionPolicy::new("r", TTL).framed(Framing::new())
}

async fn region(rig: &Rig) -> Region<u64> {
    rig.cache().await.region(policy()).unwrap()
}

async fn value(region: &Region<u64>, id: &str) -> Option<u64> {
    region.get(id).await.unwrap().map(|read| read.value)
}

async fn an_invalidated_tag_takes_what_carries_it_and_nothing_else(rig: Rig) {
    let cache = rig.cache().await;
    let one: Region<u64> = cache.region(policy()).unwrap();
    let static_tags = Framing::new().tags(["all"]);
    let other: Region<u64> = cache.region(RegionPolicy::new("o", TTL).framed(static_tags)).unwrap();
    let set_all = async || {
        one.tagged(["a"]).unwrap().set("a", &1).await.unwrap();
        one.tagged(["a", "b", "a"]).unwrap().set("ab", &2).await.unwrap();
        one.set("none", &3).await.unwrap();
        other.tagged(["b"]).unwrap().set_many(&[("b", 4)]).await.unwrap();
        let loader = || async { Ok::<_, io::Error>(5) };
        other.tagged(["a{b}%:"]).unwrap().get_or_load("odd", loader).await.unwrap();
    };
    let all = async |reader: &Region<u64>, others: &Region<u64>| {
        (
            [value(reader, "a").await, value(reader, "ab").await, value(reader, "none").await],
            [value(others, "b").await, value(others, "odd").await],
        )
    };
    // Another process sees the same.
    let elsewhere = rig.cache().await;
    let (one_too, other_too): (Region<u64>, Region<u64>) =
        (elsewhere.region(policy()).unwrap(), elsewhere.region(other.policy().clone()).unwrap());
    for (tag, left) in [
        ("a", ([None, None, Some(3)], [Some(4), Some(5)])),
        ("b", ([Some(1), None, Some(3)], [None, Some(5)])),
        ("a{b}%:", ([Some(1), Some(2), Some(3)], [Some(4), None])),
        ("all", ([Some(1), Some(2), Some(3)], [None, None])),
        ("nobody", ([Some(1), Some(2), Some(3)], [Some(4), Some(5)])),
    ] {
        cache.invalidate_tags(&["a", "b", "a{b}%:", "all"]).await.unwrap();
        set_all().await;
        cache.invalidate_tag(tag).await.unwrap();
        assert_eq!(all(&one, &other).await, left, "{tag}");
        assert_eq!(all(&one_too, &other_too).await, left, "{tag}, elsewhere");
    }
    assert!(one.stats().fallen > 0);
}

/// A load under way, and what lets it end.
fn load(region: &Region<u64>, value: u64) -> (tokio::task::JoinHandle<u64>, Arc<Notify>, Arc<Notify>) {
    let (began, end) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let (tell, wait) = (Arc::clone(&began), Arc::clone(&end));
    let region = region.tagged(["t"]).unwrap();
    let task = tokio::spawn(async move {
        let loader = move || async move {
            tell.notify_one();
            wait.notified().await;
            Ok::<_, io::Error>(value)
        };
        region.get_or_load("k", loader).await.unwrap().value
    });
    (task, began, end)
}

async fn an_invalidation_during_a_load_takes_what_the_load_stores(rig: Rig) {
    let region = region(&rig).await;
    let other = rig.cache().await;
    for round in 0..5 {
        let (task, began, end) = load(&region, round);
        began.notified().await;
        other.invalidate_tag("t").await.unwrap();
        end.notify_one();
        assert_eq!(task.await.unwrap(), round);
        assert_eq!(value(&region, "k").await, None);
    }
}

async fn a_reader_after_an_invalidation_does_not_join_the_old_load(rig: Rig) {
    let region = region(&rig).await;
    let (old, began, end) = load(&region, 1);
    began.notified().await;
    region.cache().invalidate_tag("t").await.unwrap();
    let (new, began, end_new) = load(&region, 2);
    began.notified().await;
    end.notify_one();
    assert_eq!(old.await.unwrap(), 1);
    end_new.notify_one();
    assert_eq!(new.await.unwrap(), 2);
}

async fn an_invalidation_by_another_process_during_a_load_is_found_out(rig: Rig) {
    let region = region(&rig).await;
    let (old, began, end) = load(&region, 1);
    began.notified().await;
    rig.cache().await.invalidate_tag("t").await.unwrap();
    // It asks after the invalidation, and finds the old load under way.
    let (new, _, end_new) = load(&region, 2);
    tokio::time::sleep(Duration::from_millis(100)).await;
    end.notify_one();
    end_new.notify_one();
    assert_eq!((old.await.unwrap(), new.await.unwrap()), (1, 2));
}

async fn a_missing_token_reads_as_invalidated(rig: Rig) {
    let region = region(&rig).await;
    for lost in [&["DEL", "mtcache:tag:{t}"][..], &["SET", "mtcache:tag:{t}", "nonsense", "EX", "100"]] {
        region.tagged(["t"]).unwrap().set("k", &1).await.unwrap();
        assert_eq!(value(&region, "k").await, Some(1));
        rig.raw(lost).await;
        assert_eq!(value(&region, "k").await, None, "{lost:?}");
        let tagged = region.tagged(["t"]).unwrap();
        let read = tagged.get_or_load("k", || async { Ok::<_, io::Error>(2) }).await.unwrap();
        assert_eq!(read.source, Source::Loader);
        assert_eq!(value(&region, "k").await, Some(2));
    }
}

async fn a_token_lives_longer_than_what_carries_it(rig: Rig) {
    let policy = policy().stale_window(TTL * 3);
    let region: Region<u64> = rig.cache().await.region(policy).unwrap();
    let tagged = region.tagged(["t"]).unwrap();
    let left = async || rig.raw(&["PTTL", "mtcache:tag:{t}"]).await.into_int().unwrap();
    let outlives = async |what: &str| {
        let value = rig.raw(&["PTTL", "r:k"]).await.into_int().unwrap();
        let token = left().await;
        assert!(value > 100_000 && token >= value, "{what}: {token} for {value}");
    };
    tagged.set("k", &1).await.unwrap();
    outlives("set").await;
    // What is short for the next value is made longer; what is long enough is left alone, so that it is not told to everybody.
    rig.raw(&["PEXPIRE", "mtcache:tag:{t}", "500"]).await;
    tagged.set("k", &1).await.unwrap();
    outlives("set again").await;
    rig.raw(&["PEXPIRE", "mtcache:tag:{t}", "500"]).await;
    tagged.invalidate("k").await.unwrap();
    tagged.get_or_load("k", || async { Ok::<_, io::Error>(2) }).await.unwrap();
    outlives("load").await;
    let before = left().await;
    tagged.set("k", &3).await.unwrap();
    assert!(left().await <= before);
    assert_eq!(value(&region, "k").await, Some(3));
}

async fn tags_of_different_deployments_are_different(rig: Rig) {
    let staging = rig.builder().prefix("staging:").open().await.unwrap();
    let there: Region<u64> = staging.region(policy()).unwrap();
    let here = region(&rig).await;
    there.tagged(["t"]).unwrap().set("k", &1).await.unwrap();
    here.tagged(["t"]).unwrap().set("k", &2).await.unwrap();
    here.cache().invalidate_tag("t").await.unwrap();
    assert_eq!((value(&there, "k").await, value(&here, "k").await), (Some(1), None));
    assert_eq!(rig.raw_keys().await, ["mtcache:tag:{staging:t}", "r:k", "staging:r:k"]);
}

async fn what_is_near_falls_with_its_tag_on_every_node(rig: Rig) {
    let near = async || {
        let region: Region<u64> = rig.cache().await.region(policy().near(true)).unwrap();
        near_is_on(region.cache()).await;
        region
    };
    let (one, other) = (near().await, near().await);
    let shared =
        async |region: &Region<u64>, id: &str| region.get_shared(id).await.unwrap().map(|read| *read.value);
    for round in 0..10 {
        one.tagged(["t", "u"]).unwrap().set("k", &round).await.unwrap();
        one.tagged(["v"]).unwrap().set("l", &round).await.unwrap();
        for region in [&one, &other] {
            eventually("the set is seen", async || shared(region, "k").await == Some(round)).await;
            warm(region, "k").await;
        }
        one.cache().invalidate_tag(if round % 2 == 0 { "t" } else { "u" }).await.unwrap();
        assert_eq!(shared(&one, "k").await, None, "the next read of this process");
        eventually("the fall is told", async || shared(&other, "k").await.is_none()).await;
        assert_eq!(shared(&one, "l").await, Some(round));
    }
    // A framed value is near for no longer than it is fresh.
    let framed: Region<u64> = one.cache().region(policy().near(true).stale_window(TTL)).unwrap();
    framed.set_for("short", &1, Duration::from_millis(400)).await.unwrap();
    warm(&framed, "short").await;
    tokio::time::sleep(Duration::from_millis(450)).await;
    assert_eq!(shared(&framed, "short").await, None);
}

async fn a_tag_read_before_is_asked_for_in_the_same_trip(rig: Rig) {
    let writer = region(&rig).await;
    let reader = region(&rig).await;
    for round in 0..3 {
        writer.tagged(["t"]).unwrap().set("k", &round).await.unwrap();
        for _ in 0..5 {
            assert_eq!(value(&reader, "k").await, Some(round));
        }
    }
    assert_eq!(reader.stats().tag_trips, 1, "the first read learns the tags");
    // Other tags than before.
    writer.tagged(["u"]).unwrap().set("k", &9).await.unwrap();
    assert_eq!((value(&reader, "k").await, reader.stats().tag_trips), (Some(9), 2));
    writer.cache().invalidate_tag("u").await.unwrap();
    assert_eq!(value(&reader, "k").await, None);
}

async fn expiring_members_leave_nothing_behind(rig: Rig) {
    let policy = RegionPolicy::new("r", Duration::from_millis(200)).framed(Framing::new());
    let region: Region<u64> = rig.cache().await.region(policy).unwrap();
    let tagged = region.tagged(["t"]).unwrap();
    for round in 0..20 {
        let entries: Vec<_> = (0..100_u64).map(|n| ((round * 100 + n).to_string(), n)).collect();
        tagged.set_many(&entries).await.unwrap();
    }
    // Two thousand members, one tag: one key, whose size does not depend on them.
    assert_eq!(rig.raw(&["STRLEN", "mtcache:tag:{t}"]).await.into_int().unwrap(), 32);
    eventually("the members are gone", async || {
        rig.raw_keys().await.iter().all(|key| key == "mtcache:tag:{t}")
    })
    .await;
    // And that key goes too.
    let left = rig.raw(&["PTTL", "mtcache:tag:{t}"]).await.into_int().unwrap();
    assert!(left < 300_000, "{left}");
}

async fn plain_regions_keep_no_tags(rig: Rig) {
    let plain: Region<u64> = rig.cache().await.region(RegionPolicy::new("r", TTL)).unwrap();
    assert_eq!(plain.tagged(["t"]).unwrap_err().kind(), ErrorKind::Config);
    let framed = region(&rig).await;
    let many: Vec<_> = (0..17).map(|n| n.to_string()).collect();
    assert_eq!(framed.tagged(&many).unwrap_err().kind(), ErrorKind::BadKey);
    assert_eq!(framed.tagged(["x".repeat(201)]).unwrap_err().kind(), ErrorKind::BadKey);
    assert_eq!(framed.cache().invalidate_tag("").await.unwrap_err().kind(), ErrorKind::BadKey);
}
