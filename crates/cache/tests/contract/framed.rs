//! Framed regions: exact age, schemas, codecs and compression, and what plain readers and writers see of them.

use std::io;
use std::time::Duration;

use mtcache_cache::codec::Coded;
use mtcache_cache::{
    Age, Codec, Compression, Condition, ErrorKind, Framing, PlainValues, ReadOptions, Region, RegionPolicy,
    Script, Source, TimeLeft, Undecodable,
};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::rig::{Rig, on_every_backend};

const TTL: Duration = Duration::from_secs(30);

on_every_backend! {
    a_framed_value_is_read_as_it_was_set,
    the_age_is_exact,
    a_load_counts_its_age_from_its_beginning,
    past_its_ttl_a_value_is_there_and_not_fresh,
    an_expiry_changed_by_hand_makes_the_age_a_bound_and_never_younger,
    a_touch_begins_its_life_anew,
    plain_and_framed_readers_tell_each_others_values_apart,
    old_and_new_readers_share_keys_both_ways,
    a_frame_from_the_future_reads_as_configured,
    conditions_hold_for_frames_too,
    an_absence_in_a_frame_is_cached_for_its_own_time,
    what_does_not_fit_is_refused,
    many_frames_are_set_and_read_at_once,
    a_callers_own_bytes_are_framed_as_they_are,
}

fn policy(framing: Framing) -> RegionPolicy {
    RegionPolicy::new("r", TTL).framed(framing)
}

async fn region<T: 'static>(rig: &Rig, policy: RegionPolicy) -> Region<T> {
    rig.cache().await.region(policy).unwrap()
}

async fn a_callers_own_bytes_are_framed_as_they_are(rig: Rig) {
    for (codec, bytes) in
        [(Codec::Json, &b"{\"a\":[1,null]}"[..]), (Codec::MessagePack, b"\x81\xa1a\x92\x01\xc0")]
    {
        let policy = policy(Framing::new()).codec(codec);
        let own: Region<Coded> = region(&rig, policy.clone()).await;
        let typed: Region<Value> = region(&rig, policy).await;
        let coded = Coded { codec: Some(codec), bytes: bytes.to_vec() };
        own.set("k", &coded).await.unwrap();
        assert_eq!(typed.get("k").await.unwrap().unwrap().value, json!({"a": [1, null]}));
        typed.set("k", &json!({"a": [1, null]})).await.unwrap();
        assert_eq!(own.get("k").await.unwrap().unwrap().value, coded);
        let plain = Coded { codec: None, bytes: bytes.to_vec() };
        assert_eq!(own.set("k", &plain).await.unwrap_err().kind(), ErrorKind::Unencodable);
        rig.raw(&["SET", "r:k", "words"]).await;
        let words = own.get("k").await.unwrap().unwrap().value;
        assert_eq!(
            words,
            Coded { codec: None, bytes: b"words".to_vec() },
            "a plain value says that it is one"
        );
    }
}

fn exact(age: Age) -> Duration {
    match age {
        Age::Exact(age) => age,
        other => panic!("{other:?}"),
    }
}

async fn a_framed_value_is_read_as_it_was_set(rig: Rig) {
    let long = json!({"text": "12", "n": 1.5, "many": vec!["the same"; 500], "none": null});
    for codec in [Codec::Json, Codec::MessagePack] {
        for compression in [Compression::None, Compression::Zstd, Compression::Lz4] {
            let policy = policy(Framing::new().compress(compression, 100)).codec(codec);
            let region: Region<Value> = region(&rig, policy).await;
            for value in [json!("12"), json!("\"quoted\""), json!(-7), json!([]), long.clone()] {
                region.set("k", &value).await.unwrap();
                let read = region.get("k").await.unwrap().unwrap();
                assert!(!read.is_stale());
                assert_eq!((read.value, read.source), (value, Source::Backend));
            }
            let stored = rig.raw(&["STRLEN", "r:k"]).await.into_int().unwrap();
            assert_eq!(
                stored > 4000,
                compression == Compression::None,
                "{codec:?} {compression:?}: {stored}"
            );
        }
    }
    // Of whatever codec and compression a value is, every reader reads it.
    let reader: Region<Value> = region(&rig, policy(Framing::new())).await;
    assert_eq!(reader.get("k").await.unwrap().unwrap().value, long);
    let not_a_number: Region<f64> = region(&rig, policy(Framing::new()).codec(Codec::MessagePack)).await;
    not_a_number.set("nan", &f64::NAN).await.unwrap();
    assert!(not_a_number.get("nan").await.unwrap().unwrap().value.is_nan());
    let json: Region<f64> = region(&rig, policy(Framing::new())).await;
    assert_eq!(json.set("nan", &f64::NAN).await.unwrap_err().kind(), ErrorKind::Unencodable);
}

async fn the_age_is_exact(rig: Rig) {
    let region: Region<u32> = region(&rig, policy(Framing::new()).ttl_jitter(0.5)).await;
    let before = std::time::Instant::now();
    region.set("k", &1).await.unwrap();
    let set = std::time::Instant::now();
    tokio::time::sleep(Duration::from_millis(300)).await;
    let least = set.elapsed();
    let age = exact(region.get("k").await.unwrap().unwrap().age);
    let most = before.elapsed();
    let slack = Duration::from_millis(3);
    assert!(age + slack >= least && age <= most + slack, "{least:?} <= {age:?} <= {most:?}");
    // Jitter shortens a value's life and not what is known of it; a plain region has only its whole TTL to go by.
    let within = |ms| ReadOptions::new().max_age(Duration::from_millis(ms));
    assert!(region.get_with("k", within(200)).await.unwrap().is_none());
    assert!(region.get_with("k", within(15_000)).await.unwrap().is_some());
    let loaded = region.get_or_load_with("k", within(200), || async { Ok::<_, io::Error>(2) }).await.unwrap();
    assert_eq!((loaded.value, loaded.source), (2, Source::Loader));
    assert!(exact(region.get("k").await.unwrap().unwrap().age) < Duration::from_secs(5));
}

async fn a_load_counts_its_age_from_its_beginning(rig: Rig) {
    let region: Region<u32> = region(&rig, policy(Framing::new())).await;
    let slow = Duration::from_millis(400);
    let loader = move || async move {
        tokio::time::sleep(slow).await;
        Ok::<_, io::Error>(1)
    };
    region.get_or_load("k", loader).await.unwrap();
    let age = exact(region.get("k").await.unwrap().unwrap().age);
    assert!(age >= slow && age < slow * 20, "{age:?}");
    assert_eq!(region.stats().fills_stored, 1);
}

async fn past_its_ttl_a_value_is_there_and_not_fresh(rig: Rig) {
    let policy = policy(Framing::new()).stale_window(TTL);
    let region: Region<u32> = region(&rig, policy).await;
    region.set_for("k", &1, Duration::from_millis(300)).await.unwrap();
    assert_eq!(region.get("k").await.unwrap().unwrap().value, 1);
    let TimeLeft::For(left) = region.time_left("k").await.unwrap() else { panic!("no expiry") };
    assert!(left + Duration::from_secs(10) > TTL, "{left:?}");
    tokio::time::sleep(Duration::from_millis(400)).await;
    assert_eq!(rig.raw(&["EXISTS", "r:k"]).await.into_int().unwrap(), 1);
    assert!(region.get("k").await.unwrap().is_none());
    assert_eq!(region.stats().expired_in_window, 1);
    // The second look of a load is not content with it either.
    let read = region.get_or_load("k", || async { Ok::<_, io::Error>(2) }).await.unwrap();
    assert_eq!((read.value, read.source), (2, Source::Loader));
    assert_eq!(region.get("k").await.unwrap().unwrap().value, 2);
}

async fn an_expiry_changed_by_hand_makes_the_age_a_bound_and_never_younger(rig: Rig) {
    let region: Region<u32> = region(&rig, policy(Framing::new())).await;
    region.set("k", &1).await.unwrap();
    exact(region.get("k").await.unwrap().unwrap().age);
    rig.raw(&["PEXPIRE", "r:k", "20000"]).await;
    let Age::AtMost(age) = region.get("k").await.unwrap().unwrap().age else { panic!("not a bound") };
    assert!(age >= Duration::from_secs(10), "{age:?}");
    for lengthened in [&["PEXPIRE", "r:k", "90000"][..], &["PERSIST", "r:k"]] {
        rig.raw(lengthened).await;
        assert!(region.get("k").await.unwrap().is_none(), "{lengthened:?}");
    }
    let read = region.get_or_load("k", || async { Ok::<_, io::Error>(2) }).await.unwrap();
    assert_eq!(read.source, Source::Loader);
    exact(region.get("k").await.unwrap().unwrap().age);
}

async fn a_touch_begins_its_life_anew(rig: Rig) {
    let policy = policy(Framing::new()).stale_window(TTL);
    let region: Region<u32> = region(&rig, policy).await;
    region.set_for("k", &1, Duration::from_millis(500)).await.unwrap();
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert!(region.touch("k").await.unwrap());
    tokio::time::sleep(Duration::from_millis(300)).await;
    let age = exact(region.get("k").await.unwrap().unwrap().age);
    assert!(age >= Duration::from_millis(300) && age < Duration::from_secs(10), "{age:?}");
    assert!(!region.touch("absent").await.unwrap());
    region.set_for("old", &1, Duration::from_millis(20)).await.unwrap();
    tokio::time::sleep(Duration::from_millis(40)).await;
    assert!(!region.touch("old").await.unwrap(), "in its stale window it is past its life");
    assert!(region.get("old").await.unwrap().is_none());
    let TimeLeft::For(left) = region.time_left("k").await.unwrap() else { panic!("no expiry") };
    assert!(left > TTL && left <= TTL * 2, "{left:?}");
}

async fn plain_and_framed_readers_tell_each_others_values_apart(rig: Rig) {
    let plain: Region<u32> = region(&rig, RegionPolicy::new("r", TTL)).await;
    let framed: Region<u32> = region(&rig, policy(Framing::new())).await;
    framed.set("k", &1).await.unwrap();
    let error = plain.get("k").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Undecodable);
    assert!(error.to_string().contains("frame"), "{error}");
    assert_eq!(plain.cache().get::<Value>("r:k").await.unwrap_err().kind(), ErrorKind::Undecodable);

    rig.raw(&["SET", "r:k", "7", "PX", "20000"]).await;
    let read = framed.get("k").await.unwrap().unwrap();
    assert_eq!(read.value, 7);
    assert!(matches!(read.age, Age::AtMost(age) if age >= Duration::from_secs(10)), "{:?}", read.age);
    let missing: Region<u32> = region(&rig, policy(Framing::new().plain(PlainValues::Miss))).await;
    assert!(missing.get("k").await.unwrap().is_none());
    let strict: Region<u32> = region(&rig, policy(Framing::new().plain(PlainValues::Error))).await;
    assert_eq!(strict.get("k").await.unwrap_err().kind(), ErrorKind::Undecodable);
    let packed: Region<u32> = region(&rig, policy(Framing::new()).codec(Codec::MessagePack)).await;
    let read = packed.get_or_load("k", || async { Ok::<_, io::Error>(8) }).await.unwrap();
    assert_eq!((read.value, read.source), (7, Source::Backend));
    let read = missing.get_or_load("k", || async { Ok::<_, io::Error>(9) }).await.unwrap();
    assert_eq!((read.value, read.source), (9, Source::Loader));
    assert_eq!(strict.get("k").await.unwrap().unwrap().value, 9);
}

#[derive(Serialize, Deserialize, Debug, PartialEq, Clone)]
struct Old {
    price: f64,
}

#[derive(Serialize, Deserialize, Debug, PartialEq, Clone)]
struct New {
    price: String,
}

async fn old_and_new_readers_share_keys_both_ways(rig: Rig) {
    let old: Region<Old> = region(&rig, policy(Framing::new())).await;
    let blunt: Region<New> = region(&rig, policy(Framing::new().schema(2))).await;
    let new = blunt.reads_schema(1, |old: Old| New { price: old.price.to_string() }).unwrap();
    let (a, b) = (Old { price: 1.5 }, New { price: "2.5".to_owned() });
    old.set("k", &a).await.unwrap();
    assert_eq!(new.get("k").await.unwrap().unwrap().value, New { price: "1.5".to_owned() });
    let read = new.get_or_load("k", || async { Err::<New, _>(io::Error::other("not asked")) }).await.unwrap();
    assert_eq!(read.source, Source::Backend);
    assert_eq!(blunt.get("k").await.unwrap_err().kind(), ErrorKind::Undecodable);

    new.set("k", &b).await.unwrap();
    assert!(old.get("k").await.unwrap().is_none());
    assert_eq!((old.stats().newer, old.stats().undecodable), (1, 0));
    let strict: Region<Old> = region(&rig, policy(Framing::new().newer(Undecodable::Error))).await;
    let error = strict.get("k").await.unwrap_err();
    assert!(error.kind() == ErrorKind::Undecodable && error.to_string().contains("schema 2"), "{error}");
    // The old one loads and stores in its own way, which the new one reads again.
    let loaded = a.clone();
    let read = old.get_or_load("k", move || async move { Ok::<_, io::Error>(loaded) }).await.unwrap();
    assert_eq!((read.value, read.source), (a, Source::Loader));
    assert_eq!(new.get("k").await.unwrap().unwrap().value.price, "1.5");
    assert_eq!(blunt.reads_schema(2, |new: New| new).unwrap_err().kind(), ErrorKind::Config);
}

async fn a_frame_from_the_future_reads_as_configured(rig: Rig) {
    let lenient: Region<u32> = region(&rig, policy(Framing::new())).await;
    let strict: Region<u32> = region(&rig, policy(Framing::new().newer(Undecodable::Error))).await;
    // Version 2 of the layout; a flag that is not known.
    for (at, byte) in [("1", "\u{2}"), ("2", "\u{40}")] {
        lenient.set("k", &1).await.unwrap();
        rig.raw(&["SETRANGE", "r:k", at, byte]).await;
        assert!(lenient.get("k").await.unwrap().is_none(), "{byte:?}");
        assert_eq!(strict.get("k").await.unwrap_err().kind(), ErrorKind::Undecodable);
        let read = lenient.get_or_load("k", || async { Ok::<_, io::Error>(2) }).await.unwrap();
        assert_eq!((read.value, read.source), (2, Source::Loader));
        assert_eq!(strict.get("k").await.unwrap().unwrap().value, 2);
    }
    let cut =
        Script::new("return redis.call('SET', KEYS[1], redis.call('GETRANGE', KEYS[1], 0, 30), 'PX', 9000)");
    lenient.cache().script(&cut, &["r:k"], &[]).await.unwrap();
    let error = lenient.get("k").await.unwrap_err();
    assert!(error.kind() == ErrorKind::Undecodable && error.to_string().contains("broken"), "{error}");
}

async fn conditions_hold_for_frames_too(rig: Rig) {
    let region: Region<u32> = region(&rig, policy(Framing::new())).await;
    assert!(!region.set_when("k", &1, Condition::IfPresent).await.unwrap());
    assert!(region.set_when("k", &2, Condition::IfAbsent).await.unwrap());
    assert!(!region.set_when("k", &3, Condition::IfAbsent).await.unwrap());
    assert_eq!(region.get("k").await.unwrap().unwrap().value, 2);
    assert!(region.set_when("k", &4, Condition::IfPresent).await.unwrap());
    assert_eq!(region.get("k").await.unwrap().unwrap().value, 4);
    let newer = region.set_when("k", &5, Condition::IfNewer { field: "time".to_owned() }).await;
    assert_eq!(newer.unwrap_err().kind(), ErrorKind::Config);
    assert_eq!(region.cache().pending_invalidations(), (0, 0));
}

async fn an_absence_in_a_frame_is_cached_for_its_own_time(rig: Rig) {
    for codec in [Codec::Json, Codec::MessagePack] {
        let policy =
            policy(Framing::new()).codec(codec).stale_window(TTL).none_ttl(Some(Duration::from_secs(3)));
        let maybe: Region<Option<u32>> = region(&rig, policy.clone()).await;
        let read = maybe.get_or_load("k", || async { Ok::<_, io::Error>(None) }).await.unwrap();
        assert_eq!((read.value, read.source), (None, Source::Loader));
        let TimeLeft::For(left) = maybe.time_left("k").await.unwrap() else { panic!("no expiry") };
        assert!(left <= Duration::from_secs(3), "{left:?}");
        let read = maybe.get_or_load("k", || async { Ok::<_, io::Error>(Some(1)) }).await.unwrap();
        assert_eq!((read.value, read.source), (None, Source::Backend));
        assert_eq!(maybe.stats().none_hits, 1);
        let always: Region<u32> = region(&rig, policy).await;
        assert!(always.get("k").await.unwrap().is_none());
        let read = always.get_or_load("k", || async { Ok::<_, io::Error>(7) }).await.unwrap();
        assert_eq!((read.value, read.source), (7, Source::Loader));
        assert_eq!(always.stats().undecodable, 0);
        maybe.invalidate("k").await.unwrap();
    }
}

async fn what_does_not_fit_is_refused(rig: Rig) {
    let region: Region<String> = region(&rig, policy(Framing::new().compress(Compression::Zstd, 0))).await;
    let too_large = "a".repeat(mtcache_cache::frame::MAX_VALUE_BYTES);
    let error = region.set("k", &too_large).await.unwrap_err();
    assert!(error.kind() == ErrorKind::Unencodable && error.to_string().contains("bytes"), "{error}");
    let cache = region.cache();
    let plain = RegionPolicy::new("r", TTL).codec(Codec::MessagePack);
    assert_eq!(cache.region::<u8>(plain).unwrap_err().kind(), ErrorKind::Config);
    let no_tag = RegionPolicy::new("r", TTL).framed(Framing::new().tags([""]));
    assert_eq!(cache.region::<u8>(no_tag).unwrap_err().kind(), ErrorKind::BadKey);
}

async fn many_frames_are_set_and_read_at_once(rig: Rig) {
    let region: Region<Option<usize>> = region(&rig, policy(Framing::new()).none_ttl(None)).await;
    region.set("7", &Some(0)).await.unwrap();
    let entries: Vec<_> = (0..250).map(|n: usize| (n.to_string(), (n != 7).then_some(n))).collect();
    region.set_many(&entries).await.unwrap();
    let ids: Vec<_> = (0..251).map(|n: usize| n.to_string()).collect();
    for (n, read) in region.get_many(&ids).await.unwrap().into_iter().enumerate() {
        let read = read.map(|read| (exact(read.age) < TTL, read.value));
        assert_eq!(read, (n != 7 && n < 250).then_some((true, Some(n))), "{n}");
    }
    assert_eq!((region.stats().hits, region.stats().misses), (249, 2));
}
