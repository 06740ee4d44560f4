//! `#[cached]` as a service uses it.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use mtcache::cache::TimeLeft;
use mtcache::{Cache, ErrorKind, cached};

type AnyError = Box<dyn std::error::Error + Send + Sync>;

/// Counts the runs of a function.
#[derive(Clone, Debug)]
struct Runs(std::sync::Arc<AtomicU32>);

impl Runs {
    fn new() -> Self {
        Self(std::sync::Arc::default())
    }

    fn up(&self) -> u32 {
        self.0.fetch_add(1, Ordering::SeqCst) + 1
    }
}

async fn open() -> Cache {
    Cache::connect("embedded://").await.unwrap()
}

#[cached(cache = cache, ttl = 60, skip(cache, runs))]
async fn klines(
    cache: &Cache,
    runs: &Runs,
    symbol: &str,
    interval: &str,
    limit: Option<u32>,
) -> Result<String, AnyError> {
    let _ = cache;
    Ok(format!("{symbol} {interval} {limit:?} {}", runs.up()))
}

#[tokio::test]
async fn every_argument_is_in_the_key_but_those_that_are_skipped() {
    let (cache, runs) = (open().await, Runs::new());
    let ask = async |symbol: &str, interval: &str, limit| {
        klines(&cache, &runs, symbol, interval, limit).await.unwrap()
    };
    assert_eq!(ask("BTC", "1h", Some(5)).await, "BTC 1h Some(5) 1");
    assert_eq!(ask("ETH", "1h", Some(5)).await, "ETH 1h Some(5) 2");
    assert_eq!(ask("BTC", "1d", Some(5)).await, "BTC 1d Some(5) 3");
    assert_eq!(ask("BTC", "1h", None).await, "BTC 1h None 4");
    assert_eq!(ask("BT", "C:1h", None).await, "BT C:1h None 5");
    assert_eq!(klines(&cache, &Runs::new(), "BTC", "1h", Some(5)).await.unwrap(), "BTC 1h Some(5) 1");
    let region =
        cache.stats().into_iter().map(|(name, _)| name).find(|name| name.ends_with("klines")).unwrap();
    assert_eq!(region, "cached.klines");
    // Another cache has answers of its own.
    assert_eq!(klines(&open().await, &runs, "BTC", "1h", Some(5)).await.unwrap(), "BTC 1h Some(5) 6");
}

#[cached(cache = &cache, ttl = 0.5, region = "metrics", skip(cache))]
async fn in_a_region(cache: Cache, days: u8) -> u64 {
    drop(cache);
    u64::from(days) * 2
}

#[tokio::test]
async fn a_named_region_has_the_functions_path_in_its_keys() {
    let cache = open().await;
    assert_eq!((in_a_region(cache.clone(), 4).await, in_a_region(cache.clone(), 4).await), (8, 8));
    let TimeLeft::For(left) = cache.ttl("metrics:cached.in_a_region:4").await.unwrap() else {
        panic!("no such key, or no expiry");
    };
    assert!(left <= Duration::from_millis(500));
}

#[cached(cache = cache, ttl = 60, skip(cache, runs))]
async fn fails_first(cache: &Cache, runs: &Runs, id: u64) -> Result<u64, AnyError> {
    let _ = cache;
    if runs.up() == 1 { Err("the exchange says no".into()) } else { Ok(id) }
}

#[tokio::test]
async fn an_error_is_never_cached() {
    let (cache, runs) = (open().await, Runs::new());
    let error = fails_first(&cache, &runs, 7).await.unwrap_err();
    let error = error.downcast::<mtcache::Error>().unwrap();
    assert_eq!(error.kind(), ErrorKind::Loader);
    assert!(error.to_string().contains("the exchange says no"), "{error}");
    assert_eq!(
        (fails_first(&cache, &runs, 7).await.unwrap(), fails_first(&cache, &runs, 7).await.unwrap()),
        (7, 7)
    );
    assert_eq!(runs.0.load(Ordering::SeqCst), 2);
}

#[cached(cache = cache, ttl = 60, skip(cache, runs))]
async fn forgets_none(cache: &Cache, runs: &Runs) -> Option<u32> {
    let _ = (cache, runs.up());
    None
}

#[cached(cache = cache, ttl = 60, none_ttl = 5, skip(cache, runs))]
async fn keeps_none(cache: &Cache, runs: &Runs) -> Option<u32> {
    let _ = (cache, runs.up());
    None
}

#[tokio::test]
async fn none_is_cached_when_that_is_asked_for() {
    let (cache, runs) = (open().await, Runs::new());
    assert_eq!((forgets_none(&cache, &runs).await, forgets_none(&cache, &runs).await), (None, None));
    assert_eq!(runs.0.swap(0, Ordering::SeqCst), 2);
    assert_eq!((keeps_none(&cache, &runs).await, keeps_none(&cache, &runs).await), (None, None));
    assert_eq!(runs.0.load(Ordering::SeqCst), 1);
}

#[cached(cache = cache, ttl = 60, skip(cache, runs))]
async fn slow(cache: &Cache, runs: &Runs, id: u64) -> u64 {
    let _ = (cache, runs.up());
    tokio::time::sleep(Duration::from_millis(50)).await;
    id
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn calls_at_once_share_one_run() {
    let (cache, runs) = (open().await, Runs::new());
    let call = |_| {
        let (cache, runs) = (cache.clone(), runs.clone());
        tokio::spawn(async move { slow(&cache, &runs, 3).await })
    };
    let calls: Vec<_> = (0..100).map(call).collect();
    for call in calls {
        assert_eq!(call.await.unwrap(), 3);
    }
    assert_eq!(runs.0.load(Ordering::SeqCst), 1);
}
