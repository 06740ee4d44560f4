//! Hashes and sorted sets.

use std::time::Duration;

use mtcache_cache::collections::{Bound, ScoreRange, ZaddOptions};
use mtcache_cache::{ErrorKind, Order, TimeLeft};
use serde_json::{Value, json};

use crate::rig::{Rig, on_every_backend};

on_every_backend! {
    a_hash_holds_values,
    a_hash_set_with_a_ttl_has_it,
    a_hash_keeps_the_expiry_that_it_has_where_that_is_asked_for,
    a_sorted_set_is_read_from_both_ends,
    scores_are_exact_and_bounds_hold,
    adding_keeps_to_its_options,
    members_are_removed_by_rank_and_score,
}

async fn a_hash_holds_values(rig: Rig) {
    let hash = rig.cache().await.hash("h").unwrap();
    assert!(hash.set("a", &json!({"x": 1})).await.unwrap());
    assert!(!hash.set("a", "text").await.unwrap());
    assert_eq!(hash.get::<String>("a").await.unwrap().as_deref(), Some("text"));
    assert_eq!(hash.get::<String>("b").await.unwrap(), None);
    assert_eq!(hash.increment("n", 4).await.unwrap(), 4);
    assert_eq!(hash.increment("a", 4).await.unwrap_err().kind(), ErrorKind::NotANumber);
    let many: Vec<Option<Value>> = hash.get_many(&["n", "b", "a"]).await.unwrap();
    assert_eq!(many, [Some(json!(4)), None, Some(json!("text"))]);
    let mut all: Vec<(String, Value)> = hash.all().await.unwrap();
    all.sort_by(|a, b| a.0.cmp(&b.0));
    assert_eq!(all, [("a".to_owned(), json!("text")), ("n".to_owned(), json!(4))]);
    assert_eq!(hash.len().await.unwrap(), 2);
    assert_eq!(hash.delete(&["a", "n", "zzz"]).await.unwrap(), 2);
    assert!(hash.is_empty().await.unwrap());
}

async fn a_hash_set_with_a_ttl_has_it(rig: Rig) {
    let cache = rig.cache().await;
    let hash = cache.hash("h").unwrap();
    let ttl = Duration::from_secs(100);
    assert_eq!(hash.set_many(&[("a", 1), ("b", 2)], ttl).await.unwrap(), 2);
    assert_eq!(hash.set_many(&[("a", 3), ("c", 4)], ttl).await.unwrap(), 1);
    let left = cache.ttl("h").await.unwrap();
    assert!(matches!(left, TimeLeft::For(left) if left > Duration::from_secs(90) && left <= ttl), "{left:?}");
    assert_eq!(hash.get::<i32>("a").await.unwrap(), Some(3));
    assert_eq!(hash.set_many(&[("a", 1)], Duration::ZERO).await.unwrap_err().kind(), ErrorKind::BadTtl);
}

async fn a_hash_keeps_the_expiry_that_it_has_where_that_is_asked_for(rig: Rig) {
    let cache = rig.cache().await;
    let hash = cache.hash("h").unwrap();
    let left = async || match cache.ttl("h").await.unwrap() {
        TimeLeft::For(left) => left,
        other => panic!("{other:?}"),
    };
    let (day, short) = (Duration::from_hours(24), Duration::from_secs(100));
    assert!(hash.set("a", &1).await.unwrap());
    assert_eq!(cache.ttl("h").await.unwrap(), TimeLeft::Forever);
    assert_eq!(hash.set_many_keeping_expiry(&[("b", 2)], day).await.unwrap(), 1);
    assert!(left().await > short, "one that had none has it now");
    assert!(cache.expire("h", short).await.unwrap());
    assert_eq!(hash.set_many_keeping_expiry(&[("b", 3), ("c", 4)], day).await.unwrap(), 1);
    assert!(left().await <= short, "a shorter one is not prolonged");
    assert_eq!(hash.set_many_keeping_expiry(&[("b", 5)], short / 2).await.unwrap(), 0);
    assert!(left().await > short / 2, "nor is one cut short");
}

async fn a_sorted_set_is_read_from_both_ends(rig: Rig) {
    let zset = rig.cache().await.sorted_set("z").unwrap();
    let members = [("a", 1.0), ("b", 2.0), ("c", 3.0)];
    assert_eq!(zset.add(&members, ZaddOptions::default()).await.unwrap(), 3);
    let up: Vec<(String, f64)> = zset.range(0, -1, Order::Ascending).await.unwrap();
    assert_eq!(up, [("a".to_owned(), 1.0), ("b".to_owned(), 2.0), ("c".to_owned(), 3.0)]);
    let newest: Vec<(String, f64)> = zset.range(0, 1, Order::Descending).await.unwrap();
    assert_eq!(newest, [("c".to_owned(), 3.0), ("b".to_owned(), 2.0)]);
    assert_eq!(zset.score("b").await.unwrap(), Some(2.0));
    assert_eq!(zset.score("x").await.unwrap(), None);
    assert!((zset.increment("b", 0.5).await.unwrap() - 2.5).abs() < f64::EPSILON);
    assert_eq!(zset.len().await.unwrap(), 3);
}

async fn scores_are_exact_and_bounds_hold(rig: Rig) {
    let zset = rig.cache().await.sorted_set("z").unwrap();
    let score = 1_700_000_000.123_456_7_f64;
    let members = [("low", f64::NEG_INFINITY), ("a", 0.1), ("now", score), ("high", f64::INFINITY)];
    zset.add(&members, ZaddOptions::default()).await.unwrap();
    assert_eq!(zset.score("now").await.unwrap().map(f64::to_bits), Some(score.to_bits()));
    let names = async |range, order, skip, limit| {
        let found: Vec<(String, f64)> = zset.range_by_score(range, order, skip, limit).await.unwrap();
        found.into_iter().map(|(name, _)| name).collect::<Vec<_>>()
    };
    assert_eq!(names(ScoreRange::ALL, Order::Descending, 0, None).await, ["high", "now", "a", "low"]);
    assert_eq!(names(ScoreRange::ALL, Order::Ascending, 1, Some(2)).await, ["a", "now"]);
    assert_eq!(names(ScoreRange::ALL, Order::Ascending, 0, Some(0)).await, Vec::<String>::new());
    assert_eq!(names(ScoreRange::from(score).unwrap(), Order::Ascending, 0, None).await, ["now", "high"]);
    let between = ScoreRange::new(Bound::Excluding(0.1), Bound::Including(score)).unwrap();
    assert_eq!(names(between, Order::Ascending, 0, None).await, ["now"]);
    assert_eq!(zset.count(ScoreRange::below(score).unwrap()).await.unwrap(), 2);
    assert_eq!(ScoreRange::from(f64::NAN).unwrap_err().kind(), ErrorKind::Unencodable);
    let nan = zset.add(&[("x", f64::NAN)], ZaddOptions::default()).await;
    assert_eq!(nan.unwrap_err().kind(), ErrorKind::Unencodable);
}

async fn adding_keeps_to_its_options(rig: Rig) {
    let zset = rig.cache().await.sorted_set("z").unwrap();
    zset.add(&[("a", 1.0)], ZaddOptions::default()).await.unwrap();
    let new = ZaddOptions::default().only_new();
    assert_eq!(zset.add(&[("a", 9.0), ("b", 2.0)], new).await.unwrap(), 1);
    let present = ZaddOptions::default().only_present().count_changed();
    assert_eq!(zset.add(&[("a", 5.0), ("c", 3.0)], present).await.unwrap(), 1);
    let all: Vec<(String, f64)> = zset.range(0, -1, Order::Ascending).await.unwrap();
    assert_eq!(all, [("b".to_owned(), 2.0), ("a".to_owned(), 5.0)]);
}

async fn members_are_removed_by_rank_and_score(rig: Rig) {
    let zset = rig.cache().await.sorted_set("z").unwrap();
    let members: Vec<(u32, f64)> = (0..10).map(|i| (i, f64::from(i))).collect();
    zset.add(&members, ZaddOptions::default()).await.unwrap();
    assert_eq!(zset.remove_by_rank(0, -9).await.unwrap(), 2);
    assert_eq!(zset.remove_by_score(ScoreRange::below(5.0).unwrap()).await.unwrap(), 3);
    assert_eq!(zset.remove(&[9, 77]).await.unwrap(), 1);
    let left: Vec<(u32, f64)> = zset.range(0, -1, Order::Ascending).await.unwrap();
    assert_eq!(left.iter().map(|(m, _)| *m).collect::<Vec<_>>(), [5, 6, 7, 8]);
}
