//! The whole demo, short, against a real server: it ends by itself, every check holds, and it leaves nothing behind.

use std::time::Duration;

use mtcache_conformance::servers::{ServerOptions, TestServer};
use mtcache_demo::{DemoOptions, ErrorKind, run};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn demo_runs_holds_its_checks_and_cleans_up() {
    let server = TestServer::redis(ServerOptions::new()).unwrap();
    let options = DemoOptions { duration: Duration::from_secs(6), ..DemoOptions::new(server.url()) };
    let report = run(&options).await.unwrap();
    eprintln!("{report}");
    assert!(report.is_success(), "{report}");
    assert!(report.requests() > 1000);
    for region in
        ["market_data", "social_sentiment", "onchain_metrics", "backtest", "position_sizing", "session"]
    {
        assert!(report.regions.iter().any(|line| line.region == region), "{region} has no requests");
    }
    assert!(report.counts.signals_buffered > 0 && report.counts.sessions_revoked > 0);
    assert!(report.counts.ticks_late > 0, "some ticks came too late on purpose");
    assert_eq!(report.to_json()["success"], true);
    let mut client = server.client().unwrap();
    let left = client.command(&["KEYS", "demo:*"]).unwrap();
    let left = format!("{left:?}");
    assert!(!left.contains("demo:market") && !left.contains("demo:signals"), "{left}");
}

#[tokio::test]
async fn cache_that_is_not_there_is_one_clear_error() {
    let mut server = TestServer::redis(ServerOptions::new()).unwrap();
    let url = server.url();
    server.stop().unwrap();
    let error = run(&DemoOptions::new(url)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Cache);
    assert!(error.to_string().contains("does not answer"), "{error}");
}
