//! Single keys: values, conditions, expiry, counters, errors.

use std::collections::BTreeMap;
use std::time::Duration;

use mtcache_cache::{Cache, ErrorKind, SetOptions, TimeLeft};
use serde_json::{Value, json};

use crate::rig::{Rig, on_every_backend};

const MINUTE: Duration = Duration::from_mins(1);

on_every_backend! {
    what_was_set_is_read,
    a_text_is_stored_as_it_is,
    conditions_decide_what_is_stored,
    a_ttl_that_cannot_be_is_refused,
    fractions_of_a_second_are_kept,
    every_value_expires_unless_told_otherwise,
    many_are_read_in_the_order_asked,
    many_are_set_and_deleted,
    counters_count,
    another_type_is_an_error_never_a_miss,
    undecodable_is_an_error_never_a_miss,
    nan_is_refused_and_nothing_is_written,
    a_late_tick_never_overwrites_a_newer_price,
    concurrent_ticks_end_with_the_newest,
    the_prefix_is_on_every_key,
    expired_is_a_miss,
    a_server_that_forgot_its_scripts_is_no_trouble,
    what_is_of_the_connection_is_no_command_for_all,
}

fn minute() -> SetOptions {
    SetOptions::ttl(MINUTE)
}

async fn what_was_set_is_read(rig: Rig) {
    let cache = rig.cache().await;
    let map: BTreeMap<String, Option<f64>> = [("a".into(), Some(0.1)), ("b".into(), None)].into();
    assert!(cache.set("map", &map, minute()).await.unwrap());
    assert_eq!(cache.get::<BTreeMap<String, Option<f64>>>("map").await.unwrap(), Some(map));
    cache.set("big", &u128::MAX, minute()).await.unwrap();
    assert_eq!(cache.get::<u128>("big").await.unwrap(), Some(u128::MAX));
    cache.set("none", &None::<u8>, minute()).await.unwrap();
    assert_eq!(cache.get::<Option<u8>>("none").await.unwrap(), Some(None));
    assert_eq!(cache.get::<Option<u8>>("absent").await.unwrap(), None);
    let bytes: Vec<u8> = (0..=255).collect();
    cache.set_bytes("bytes", &bytes, minute()).await.unwrap();
    assert_eq!(cache.get_bytes("bytes").await.unwrap(), Some(bytes));
    cache.set("empty", "", minute()).await.unwrap();
    assert_eq!(cache.get::<String>("empty").await.unwrap().as_deref(), Some(""));
}

async fn a_text_is_stored_as_it_is(rig: Rig) {
    let cache = rig.cache().await;
    cache.set("text", "buy \"now\" ✓", minute()).await.unwrap();
    assert_eq!(rig.raw_get("text").await.as_deref(), Some("buy \"now\" ✓"));
    cache.set("json", &json!({"b": 1, "a": [true, null]}), minute()).await.unwrap();
    assert_eq!(rig.raw_get("json").await.as_deref(), Some(r#"{"b":1,"a":[true,null]}"#));
    rig.raw(&["SET", "number", "42"]).await;
    assert_eq!(cache.get::<Value>("number").await.unwrap(), Some(json!(42)));
    assert_eq!(cache.get::<String>("number").await.unwrap().as_deref(), Some("42"));
}

async fn conditions_decide_what_is_stored(rig: Rig) {
    let cache = rig.cache().await;
    assert!(!cache.set("k", &1, minute().if_present()).await.unwrap());
    assert_eq!(cache.get::<i32>("k").await.unwrap(), None);
    assert!(cache.set("k", &2, minute().if_absent()).await.unwrap());
    assert!(!cache.set("k", &3, minute().if_absent()).await.unwrap());
    assert_eq!(cache.get::<i32>("k").await.unwrap(), Some(2));
    assert!(cache.set("k", &4, minute().if_present()).await.unwrap());
    assert_eq!(cache.get::<i32>("k").await.unwrap(), Some(4));
}

async fn a_ttl_that_cannot_be_is_refused(rig: Rig) {
    let cache = rig.cache().await;
    cache.set("k", &1, minute()).await.unwrap();
    for ttl in [Duration::ZERO, Duration::from_nanos(999_999), Duration::MAX] {
        let refused = [
            cache.set("k", &2, SetOptions::ttl(ttl)).await.map(drop),
            cache.set_many(&[("k", 2)], ttl).await,
            cache.expire("k", ttl).await.map(drop),
        ];
        for result in refused {
            assert_eq!(result.unwrap_err().kind(), ErrorKind::BadTtl, "{ttl:?}");
        }
    }
    assert_eq!(cache.get::<i32>("k").await.unwrap(), Some(1));
}

async fn fractions_of_a_second_are_kept(rig: Rig) {
    let cache = rig.cache().await;
    cache.set("k", &1, SetOptions::ttl(Duration::from_millis(1500))).await.unwrap();
    let TimeLeft::For(left) = cache.ttl("k").await.unwrap() else { panic!("no expiry") };
    assert!(left > Duration::from_secs(1) && left <= Duration::from_millis(1500), "{left:?}");
    assert!(cache.expire("k", Duration::from_millis(2750)).await.unwrap());
    let TimeLeft::For(left) = cache.ttl("k").await.unwrap() else { panic!("no expiry") };
    assert!(left > Duration::from_secs(2) && left <= Duration::from_millis(2750), "{left:?}");
}

async fn every_value_expires_unless_told_otherwise(rig: Rig) {
    let cache = rig.cache().await;
    cache.set("k", &1, SetOptions::default()).await.unwrap();
    assert!(matches!(cache.ttl("k").await.unwrap(), TimeLeft::For(_)));
    cache.set("k", &1, SetOptions::no_expiry()).await.unwrap();
    assert_eq!(cache.ttl("k").await.unwrap(), TimeLeft::Forever);
    assert_eq!(cache.ttl("absent").await.unwrap(), TimeLeft::Absent);
    assert!(!cache.expire("absent", MINUTE).await.unwrap());
}

async fn many_are_read_in_the_order_asked(rig: Rig) {
    let cache = rig.cache().await;
    cache.set_many(&[("a", 1), ("b", 2), ("c", 3)], MINUTE).await.unwrap();
    let values: Vec<Option<i32>> = cache.get_many(&["c", "x", "a", "c"]).await.unwrap();
    assert_eq!(values, [Some(3), None, Some(1), Some(3)]);
    assert_eq!(cache.get_many::<i32, &str>(&[]).await.unwrap(), []);
    rig.raw(&["HSET", "h", "f", "v"]).await;
    assert_eq!(cache.get_many::<i32, _>(&["a", "h"]).await.unwrap_err().kind(), ErrorKind::WrongType);
}

async fn many_are_set_and_deleted(rig: Rig) {
    let cache = rig.cache().await;
    let entries: Vec<(String, usize)> = (0..2500).map(|i| (format!("k{i}"), i)).collect();
    cache.set_many(&entries, MINUTE).await.unwrap();
    assert!(matches!(cache.ttl("k2499").await.unwrap(), TimeLeft::For(_)));
    let keys: Vec<&String> = entries.iter().map(|(k, _)| k).collect();
    assert_eq!(cache.exists(&keys).await.unwrap(), 2500);
    assert_eq!(cache.exists(&["k0", "k0", "absent"]).await.unwrap(), 2);
    assert_eq!(cache.delete(&["k0", "absent"]).await.unwrap(), 1);
    assert_eq!(cache.delete(&keys).await.unwrap(), 2499);
    assert_eq!(cache.delete::<&str>(&[]).await.unwrap(), 0);
    assert_eq!(rig.raw_keys().await, Vec::<String>::new());
}

async fn counters_count(rig: Rig) {
    let cache = rig.cache().await;
    assert_eq!(cache.increment("n", 5).await.unwrap(), 5);
    assert_eq!(cache.decrement("n", 7).await.unwrap(), -2);
    assert_eq!(cache.get::<i64>("n").await.unwrap(), Some(-2));
    cache.set("text", "abc", minute()).await.unwrap();
    assert_eq!(cache.increment("text", 1).await.unwrap_err().kind(), ErrorKind::NotANumber);
    cache.set("n", &i64::MAX, minute()).await.unwrap();
    assert_eq!(cache.increment("n", 1).await.unwrap_err().kind(), ErrorKind::NotANumber);
    assert_eq!(cache.decrement("n", i64::MIN).await.unwrap_err().kind(), ErrorKind::NotANumber);
    assert_eq!(cache.get::<i64>("n").await.unwrap(), Some(i64::MAX));
}

async fn another_type_is_an_error_never_a_miss(rig: Rig) {
    let cache = rig.cache().await;
    rig.raw(&["RPUSH", "list", "x"]).await;
    let zset = cache.sorted_set("list").unwrap();
    let hash = cache.hash("list").unwrap();
    let newer = SetOptions::ttl(MINUTE).if_newer("timestamp");
    let errors = [
        cache.get::<Value>("list").await.unwrap_err(),
        cache.increment("list", 1).await.unwrap_err(),
        cache.set("list", &json!({"timestamp": 1}), newer).await.unwrap_err(),
        zset.len().await.unwrap_err(),
        zset.range::<Value>(0, -1, mtcache_cache::Order::Ascending).await.unwrap_err(),
        hash.get::<Value>("f").await.unwrap_err(),
        hash.all::<Value>().await.unwrap_err(),
        hash.set_many(&[("f", 1)], MINUTE).await.unwrap_err(),
    ];
    for error in errors {
        assert_eq!(error.kind(), ErrorKind::WrongType, "{error}");
    }
    assert_eq!(cache.pending_invalidations(), (0, 0));
}

async fn undecodable_is_an_error_never_a_miss(rig: Rig) {
    let cache = rig.cache().await;
    rig.raw(&["SET", "k", "{broken"]).await;
    assert_eq!(cache.get::<u32>("k").await.unwrap_err().kind(), ErrorKind::Undecodable);
    assert_eq!(cache.get::<Value>("k").await.unwrap(), Some(json!("{broken")));
}

async fn nan_is_refused_and_nothing_is_written(rig: Rig) {
    let cache = rig.cache().await;
    cache.set("k", &1.5, minute()).await.unwrap();
    for bad in [f64::NAN, f64::INFINITY] {
        assert_eq!(cache.set("k", &bad, minute()).await.unwrap_err().kind(), ErrorKind::Unencodable);
    }
    assert_eq!(cache.get::<f64>("k").await.unwrap(), Some(1.5));
}

async fn a_late_tick_never_overwrites_a_newer_price(rig: Rig) {
    let cache = rig.cache().await;
    let set = async |time: Value, price: f64| {
        let options = minute().if_newer("timestamp");
        cache.set("tick", &json!({"price": price, "timestamp": time}), options).await.unwrap()
    };
    assert!(set(json!(1_700_000_000), 1.0).await);
    assert!(!set(json!(1_699_999_999.999), 2.0).await);
    assert!(!set(json!("2023-11-14T22:13:19Z"), 3.0).await);
    assert!(set(json!("2023-11-14T22:13:20.000001"), 4.0).await);
    assert!(set(json!(1_700_000_000_001_i64), 5.0).await);
    assert!(set(json!(1_700_000_000.001), 6.0).await, "equal times replace");
    let stored: Value = cache.get("tick").await.unwrap().unwrap();
    assert_eq!(stored["price"], json!(6.0));
    assert!(matches!(cache.ttl("tick").await.unwrap(), TimeLeft::For(_)));

    let without = cache.set("tick", &json!({"price": 1}), minute().if_newer("timestamp")).await;
    assert_eq!(without.unwrap_err().kind(), ErrorKind::Unencodable);
    rig.raw(&["SET", "tick", "garbage"]).await;
    assert!(set(json!(1), 7.0).await, "what has no time is replaced");
}

async fn concurrent_ticks_end_with_the_newest(rig: Rig) {
    let mut writers = Vec::new();
    for writer in 0..8_u64 {
        let cache: Cache = rig.cache().await;
        writers.push(tokio::spawn(async move {
            for step in 0..100_u64 {
                // Every writer's order is its own, and none is sorted.
                let time = (step * 37 + writer * 11) % 100 * 8 + writer;
                let tick = json!({"price": time, "timestamp": 1_700_000_000 + time});
                let options = minute().if_newer("timestamp");
                cache.set("tick", &tick, options).await.unwrap();
            }
        }));
    }
    for writer in writers {
        writer.await.unwrap();
    }
    let stored: Value = rig.cache().await.get("tick").await.unwrap().unwrap();
    assert_eq!(stored["price"], json!(799));
}

async fn the_prefix_is_on_every_key(rig: Rig) {
    let cache = rig.builder().prefix("staging:").open().await.unwrap();
    cache.set("a", &1, minute()).await.unwrap();
    cache.increment("n", 1).await.unwrap();
    cache.hash("h").unwrap().set("f", &1).await.unwrap();
    assert_eq!(rig.raw_keys().await, ["staging:a", "staging:h", "staging:n"]);
    assert_eq!(cache.get::<i32>("a").await.unwrap(), Some(1));
    assert_eq!(rig.cache().await.get::<i32>("a").await.unwrap(), None);
}

async fn expired_is_a_miss(rig: Rig) {
    let cache = rig.cache().await;
    cache.set("k", &1, SetOptions::ttl(Duration::from_millis(40))).await.unwrap();
    tokio::time::sleep(Duration::from_millis(60)).await;
    assert_eq!(cache.get::<i32>("k").await.unwrap(), None);
    assert_eq!(cache.exists(&["k"]).await.unwrap(), 0);
}

async fn a_server_that_forgot_its_scripts_is_no_trouble(rig: Rig) {
    let cache = rig.cache().await;
    let options = || minute().if_newer("timestamp");
    for time in 1..4 {
        assert!(cache.set("k", &json!({"timestamp": time}), options()).await.unwrap());
        rig.forget_scripts().await;
    }
}

async fn what_is_of_the_connection_is_no_command_for_all(rig: Rig) {
    let cache = rig.cache().await;
    for name in ["asking", "WAITAOF", "WAIT", "MULTI", "Subscribe", "CLIENT", "BLPOP", "SELECT"] {
        let error = cache.command(&[name, "1", "1", "1"]).await.unwrap_err();
        assert!(
            error.kind() == ErrorKind::Refused && error.to_string().contains("the connection"),
            "{error}"
        );
    }
    assert!(cache.command::<&str>(&[]).await.is_err());
    assert_eq!(
        cache.command(&["ECHO", "1"]).await.unwrap().into_bytes().unwrap().as_deref(),
        Some(&b"1"[..])
    );
}
