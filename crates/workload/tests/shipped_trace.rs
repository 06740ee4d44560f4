//! The shipped trace, read whole: its published figures are the check of the reader and of the LRU model.

use std::collections::HashSet;
use std::path::Path;
use std::sync::Arc;

use mtcache_workload::{Capacity, Lookup, LruModel, LruTarget, ReplayOptions, Request, open_trace, replay};

const DISTINCT_OBJECTS: u64 = 143_542;

fn trace() -> Vec<Request> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../data/twitter_cluster52.u32pairs.zst");
    open_trace(&path).unwrap().collect::<Result<_, _>>().unwrap()
}

fn lru_hit_ratio(trace: &[Request], objects: u64) -> f64 {
    let mut lru = LruModel::new(Capacity::Objects(objects));
    let hits = trace.iter().filter(|request| lru.request(**request) == Lookup::Hit).count();
    hits as f64 / trace.len() as f64
}

#[test]
fn shipped_trace_has_its_published_shape() {
    let trace = trace();
    assert_eq!(trace.len(), 1_000_000);
    let distinct: HashSet<u64> = trace.iter().map(|request| request.object).collect();
    assert_eq!(distinct.len() as u64, DISTINCT_OBJECTS);
    let mut sizes: Vec<u32> = trace.iter().map(|request| request.value_bytes).collect();
    sizes.sort_unstable();
    assert_eq!((sizes[500_000], sizes[990_000]), (54, 1_221));
}

#[test]
fn lru_of_one_and_ten_percent_of_the_objects_hits_as_published() {
    let trace = trace();
    let percent = |objects| format!("{:.1}", lru_hit_ratio(&trace, objects) * 100.0);
    assert_eq!(percent(DISTINCT_OBJECTS / 100), "66.2");
    assert_eq!(percent(DISTINCT_OBJECTS / 10), "79.3");
}

#[tokio::test]
async fn replay_through_the_lru_target_finds_the_same_ratio() {
    let trace = trace();
    let expected = lru_hit_ratio(&trace, DISTINCT_OBJECTS / 100);
    let target = Arc::new(LruTarget::new(Capacity::Objects(DISTINCT_OBJECTS / 100)).unwrap());
    let report = replay(trace.into_iter().map(Ok), target, &ReplayOptions::default(), |_| ()).await.unwrap();
    assert!((report.hit_ratio - expected).abs() < 1e-9, "{report}");
    assert!(report.evictions.unwrap() > 0);
}
