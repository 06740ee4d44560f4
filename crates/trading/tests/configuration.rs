//! Configuration of the regions: what a table says holds for regions that are open, and for those that are opened.

use mtcache_cache::{Cache, RegionMode};
use mtcache_trading::{RegionId, RegionTable, Trading};
use serde_json::Value;

#[tokio::test]
async fn a_table_says_how_regions_are_opened() {
    let cache = Cache::connect("embedded://").await.unwrap();
    let text = "[backtest]\nmode = \"killed\"\nmax_loads = 3\n[price_signal]\nmode = \"shadow\"\n[session]\nttl = \"10m\"\n";
    let trading = Trading::with_table(&cache, &RegionTable::from_toml(text).unwrap()).unwrap();
    assert_eq!(trading.backtests().control().mode(), RegionMode::Killed);
    assert_eq!(trading.backtests().policy().max_loads, 3);
    let opened_later = trading.region::<Value>(RegionId::PriceSignal).unwrap();
    assert_eq!(opened_later.control().mode(), RegionMode::Shadow);
    // The mode is the operator's from then on.
    opened_later.control().set_mode(RegionMode::On);
    let again = trading.region::<Value>(RegionId::PriceSignal).unwrap();
    assert_eq!(again.control().mode(), RegionMode::On);
}

#[tokio::test]
async fn a_reload_changes_all_or_nothing() {
    let cache = Cache::connect("embedded://").await.unwrap();
    let trading = Trading::new(&cache).unwrap();
    let table =
        RegionTable::from_toml("[onchain_metrics]\nttl = \"2m\"\nnear = true\nmode = \"shadow\"\n").unwrap();
    let reloaded = trading.reload(&table).unwrap();
    let [(id, what)] = reloaded.as_slice() else { panic!("{reloaded:?}") };
    assert_eq!(
        (*id, what.changed.as_slice(), what.needs_restart.as_slice()),
        (RegionId::OnchainMetrics, &["ttl"][..], &["near"][..])
    );
    assert_eq!(trading.onchain_metrics().policy().ttl.as_secs(), 120);
    assert_eq!(trading.onchain_metrics().control().mode(), RegionMode::Shadow);
    // What a table no longer says is as shipped again.
    trading.reload(&RegionTable::default()).unwrap();
    assert_eq!(trading.onchain_metrics().policy().ttl.as_secs(), 300);
    assert_eq!(
        trading.onchain_metrics().control().mode(),
        RegionMode::Shadow,
        "modes are left to the operator"
    );
    let later = trading.region::<Value>(RegionId::OnchainMetrics).unwrap();
    assert!(!later.policy().near, "and so it is for regions that are opened later");
}
