//! The whole demo, short, against real servers: it ends by itself, every check holds, and it leaves nothing behind.

use std::time::{Duration, Instant};

use mtcache_conformance::programs::Program;
use mtcache_conformance::servers::{ServerOptions, TestServer};
use mtcache_demo::{DemoOptions, ErrorKind, run};

fn short(server: &TestServer) -> DemoOptions {
    DemoOptions { duration: Duration::from_secs(6), ..DemoOptions::new(server.url()) }
}

async fn runs_holds_its_checks_and_cleans_up(program: Program) {
    let server = TestServer::start(program, ServerOptions::new()).unwrap();
    let report = run(&short(&server)).await.unwrap();
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
    let left = server.client().unwrap().command(&["KEYS", "*"]).unwrap();
    let left = format!("{left:?}");
    assert!(!left.contains("demo:"), "{left}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn demo_runs_on_redis() {
    runs_holds_its_checks_and_cleans_up(Program::Redis).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn demo_runs_on_our_server() {
    runs_holds_its_checks_and_cleans_up(Program::Mtcache).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cache_lost_and_found_again_costs_errors_not_the_demo() {
    let mut server = TestServer::redis(ServerOptions::new()).unwrap();
    let options = short(&server);
    let started = Instant::now();
    let demo = tokio::spawn(async move { run(&options).await });
    while !load_has_begun(&server) {
        assert!(started.elapsed() < Duration::from_mins(1) && !demo.is_finished());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    tokio::time::sleep(Duration::from_secs(1)).await;
    server.kill().unwrap();
    tokio::time::sleep(Duration::from_secs(1)).await;
    server.start_again().unwrap();
    let report = demo.await.unwrap().unwrap();
    assert!(started.elapsed() < Duration::from_mins(1));
    assert!(report.counts.errors > 0 && !report.is_success(), "{report}");
    let first = report.first_error.as_deref().unwrap_or_default();
    assert!(first.contains("the cache failed"), "{first}");
    let prices = report.regions.iter().find(|region| region.region == "market_data").unwrap();
    assert!(prices.stats.hits > 100 && prices.stats.backend_errors > 0, "{report}");
}

/// The bars are in the database then, and the first signals in the buffer.
fn load_has_begun(server: &TestServer) -> bool {
    let found = server.client().unwrap().command(&["EXISTS", "demo:signals:recent"]).unwrap();
    found == mtcache_conformance::resp::Value::Integer(1)
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
