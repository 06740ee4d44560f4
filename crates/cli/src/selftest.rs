//! `mtcache selftest`: a client's whole day against a server, step by step, as a person reads it.
//!
//! Everything happens under a prefix of its own and is removed at the end, also after a failure. Any failed step makes the
//! exit code non-zero.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use clap::Args;
use mtcache::cache::collections::ZaddOptions;
use mtcache::cache::{Cache, ErrorKind, Order, SetOptions, Source, TimeLeft};
use mtcache::trading::{
    BacktestResult, Extra, MarketData, OnchainMetrics, PositionSizing, RegionTable, SignalFilter,
    SizingRequest, SocialSentiment, TickOutcome, Trading,
};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

/// Test a cache from a client's point of view, step by step.
#[derive(Debug, Args)]
pub(crate) struct Selftest {
    /// The cache to test: `embedded://`, `redis://host:port/db`, `unix:///path`.
    #[arg(long, default_value = "embedded://", env = "MTCACHE_URL")]
    url: String,
}

type StepResult = Result<String, String>;

/// Keeps score while the steps are printed.
#[derive(Default)]
struct Score {
    passed: usize,
    failed: usize,
}

impl Score {
    fn section(title: &str) {
        let line = "=".repeat(61);
        println!("\n{line}\n{title}\n{line}");
    }

    async fn step(&mut self, name: &str, step: impl Future<Output = StepResult>) {
        match step.await {
            Ok(detail) => {
                self.passed += 1;
                println!("✅ {name}: {detail}");
            }
            Err(reason) => {
                self.failed += 1;
                println!("❌ {name}: {reason}");
            }
        }
    }
}

fn ensure(holds: bool, detail: impl Into<String>) -> StepResult {
    if holds { Ok(detail.into()) } else { Err(detail.into()) }
}

fn text(error: impl std::fmt::Display) -> String {
    error.to_string()
}

fn shape<T: DeserializeOwned>(value: Value) -> Result<T, String> {
    serde_json::from_value(value).map_err(text)
}

fn epoch() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64()
}

impl Selftest {
    pub(crate) fn run(self) -> Result<(), String> {
        let runtime = tokio::runtime::Runtime::new().map_err(text)?;
        runtime.block_on(self.run_steps())
    }

    async fn run_steps(self) -> Result<(), String> {
        println!("╔{}╗", "=".repeat(58));
        println!("║{:^58}║", "CACHE CLIENT TEST SUITE");
        println!("╚{}╝", "=".repeat(58));
        let regions = RegionTable::from_environment().map_err(text)?;
        let mut score = Score::default();
        let prefix = format!("mtcache-selftest:{}-{}:", std::process::id(), (epoch() * 1e6) as u64);
        Score::section("Testing Connection");
        let cache = Cache::builder(self.url.clone()).prefix(&prefix).open().await.map_err(text)?;
        cache.wait_connected(Duration::from_secs(3)).await;
        if let Err(error) = cache.ping().await {
            println!("❌ Ping: {error}");
            return Err(format!("no cache answers at {}: {error}", without_password(&self.url)));
        }
        score.step("Connected", async { Ok(without_password(&self.url)) }).await;
        score.step("Server", server(&cache)).await;

        basic(&cache, &mut score).await;
        collections(&cache, &mut score).await;
        let trading = Trading::with_table(&cache, &regions).map_err(text)?;
        trading_data(&trading, &mut score).await;
        loading(&trading, &mut score).await;
        signals(&trading, &mut score).await;
        sessions(&trading, &mut score).await;
        errors(&cache, &mut score).await;

        Score::section("Cleaning Up");
        score.step("Keys removed", clean_up(&cache, &trading)).await;

        println!();
        if score.failed == 0 {
            println!("✅ ALL TESTS PASSED! ({} steps)", score.passed);
            Ok(())
        } else {
            println!("❌ {} of {} steps failed", score.failed, score.passed + score.failed);
            Err("the self-test failed".to_owned())
        }
    }
}

/// A URL without its password, fit to be printed.
pub(crate) fn without_password(url: &str) -> String {
    match (url.split_once("://"), url.rsplit_once('@')) {
        (Some((scheme, _)), Some((_, host))) => format!("{scheme}://***@{host}"),
        _ => url.to_owned(),
    }
}

async fn server(cache: &Cache) -> StepResult {
    let info = cache.info("server").await.map_err(text)?;
    let line =
        |name: &str| info.lines().find_map(|line| line.strip_prefix(name)).map_or("?", str::trim).to_owned();
    ensure(info.contains("redis_version:"), format!("redis_version {}", line("redis_version:")))
}

async fn basic(cache: &Cache, score: &mut Score) {
    Score::section("Testing Basic Operations");
    let value = json!({"message": "Hello Redis!", "timestamp": epoch()});
    let minute = Duration::from_mins(1);
    score
        .step("Set operation", async {
            ensure(cache.set("greeting", &value, SetOptions::ttl(minute)).await.map_err(text)?, "stored")
        })
        .await;
    score
        .step("Get operation", async {
            let read: Option<Value> = cache.get("greeting").await.map_err(text)?;
            ensure(read.as_ref() == Some(&value), format!("{}", read.unwrap_or_default()))
        })
        .await;
    score
        .step("Exists check", async {
            let found = cache.exists(&["greeting"]).await.map_err(text)?;
            ensure(found == 1, format!("{found} key(s) found"))
        })
        .await;
    score
        .step("TTL", async {
            match cache.ttl("greeting").await.map_err(text)? {
                TimeLeft::For(left) => ensure(
                    left <= minute && left > minute / 2,
                    format!("{:.0} seconds remaining", left.as_secs_f64()),
                ),
                other => Err(format!("{other:?}")),
            }
        })
        .await;
    score
        .step("Delete operation", async {
            let deleted = cache.delete(&["greeting"]).await.map_err(text)?;
            ensure(deleted == 1, format!("{deleted} key(s) deleted"))
        })
        .await;
    score
        .step("Set only if absent", async {
            let options = || SetOptions::ttl(minute).if_absent();
            let first = cache.set("once", "a", options()).await.map_err(text)?;
            let second = cache.set("once", "b", options()).await.map_err(text)?;
            ensure(first && !second, "the second writer was refused")
        })
        .await;
    score
        .step("Expiry", async {
            cache.set("brief", "x", SetOptions::ttl(Duration::from_millis(50))).await.map_err(text)?;
            tokio::time::sleep(Duration::from_millis(120)).await;
            let gone: Option<String> = cache.get("brief").await.map_err(text)?;
            ensure(gone.is_none(), "gone after 50 ms")
        })
        .await;
    score
        .step("Many at once", async {
            let entries = [("m1", 1), ("m2", 2)];
            cache.set_many(&entries, minute).await.map_err(text)?;
            let read: Vec<Option<i64>> = cache.get_many(&["m1", "m2", "m3"]).await.map_err(text)?;
            ensure(read == [Some(1), Some(2), None], format!("{read:?}"))
        })
        .await;
    score
        .step("Counters", async {
            cache.increment("count", 5).await.map_err(text)?;
            let left = cache.decrement("count", 2).await.map_err(text)?;
            ensure(left == 3, format!("5 - 2 = {left}"))
        })
        .await;
}

async fn collections(cache: &Cache, score: &mut Score) {
    Score::section("Testing Collections");
    score
        .step("Hash", async {
            let hash = cache.hash("portfolio").map_err(text)?;
            hash.set("BTCUSDT", &json!({"quantity": 2})).await.map_err(text)?;
            let read: Option<Value> = hash.get("BTCUSDT").await.map_err(text)?;
            ensure(read == Some(json!({"quantity": 2})), format!("{}", read.unwrap_or_default()))
        })
        .await;
    score
        .step("Sorted set", async {
            let set = cache.sorted_set("leaders").map_err(text)?;
            set.add(&[("a", 1.0), ("b", 3.0), ("c", 2.0)], ZaddOptions::default()).await.map_err(text)?;
            let top: Vec<(String, f64)> = set.range(0, 1, Order::Descending).await.map_err(text)?;
            let names: Vec<_> = top.iter().map(|(name, _)| name.as_str()).collect();
            ensure(names == ["b", "c"], format!("highest first: {names:?}"))
        })
        .await;
}

async fn trading_data(trading: &Trading, score: &mut Score) {
    Score::section("Testing Market Data, Metrics and Sentiment");
    let now = epoch();
    let tick = |price: f64, timestamp: f64| {
        shape::<MarketData>(
            json!({"symbol": "BTCUSDT", "price": price, "volume": 1_234_567.89, "timestamp": timestamp}),
        )
    };
    score
        .step("Market data cached", async {
            let outcome = trading.market_data().store(&tick(45_000.5, now)?).await.map_err(text)?;
            let read = trading.market_data().latest("BTCUSDT").await.map_err(text)?.ok_or("nothing there")?;
            ensure(
                outcome == TickOutcome::Stored && read.value.price > 44_999.0,
                format!("price {}", read.value.price),
            )
        })
        .await;
    score
        .step("Late tick refused", async {
            let outcome = trading.market_data().store(&tick(44_000.0, now - 10.0)?).await.map_err(text)?;
            let read = trading.market_data().latest("BTCUSDT").await.map_err(text)?.ok_or("nothing there")?;
            ensure(outcome != TickOutcome::Stored && read.value.price > 44_999.0, "the newer price stays")
        })
        .await;
    score
        .step("On-chain metrics", async {
            let metrics: OnchainMetrics = shape(json!({
                "symbol": "BTCUSDT", "metric_name": "nvt", "metric_value": 65.2, "timestamp": now, "source": "selftest",
            }))?;
            trading.onchain_metrics().set("BTCUSDT", &metrics).await.map_err(text)?;
            let read = trading.onchain_metrics().get("BTCUSDT").await.map_err(text)?.ok_or("nothing there")?;
            ensure(read.value == metrics, format!("{} = {}", read.value.metric_name, read.value.metric_value))
        })
        .await;
    score
        .step("Social sentiment", async {
            let sentiment: SocialSentiment = shape(json!({
                "source": "selftest", "symbol": "BTCUSDT", "sentiment_score": 0.4, "timestamp": now,
            }))?;
            trading.social_sentiment().set("BTCUSDT", &sentiment).await.map_err(text)?;
            let read =
                trading.social_sentiment().get("BTCUSDT").await.map_err(text)?.ok_or("nothing there")?;
            ensure(read.value == sentiment, "read back")
        })
        .await;
}

async fn loading(trading: &Trading, score: &mut Score) {
    Score::section("Testing Cache-Aside Loading");
    score
        .step("Backtest loaded once", async {
            let loads = Arc::new(AtomicUsize::new(0));
            let mut tasks = tokio::task::JoinSet::new();
            for _ in 0..100 {
                let (region, loads) = (trading.backtests().clone(), Arc::clone(&loads));
                tasks.spawn(async move {
                    let loader = || async move {
                        loads.fetch_add(1, Ordering::Relaxed);
                        tokio::time::sleep(Duration::from_millis(30)).await;
                        let found = BacktestResult {
                            strategy_id: "selftest".to_owned(),
                            total_trades: 42,
                            ..Default::default()
                        };
                        Ok::<_, std::io::Error>(found)
                    };
                    region.get_or_load("selftest", loader).await.map(|read| read.value.total_trades)
                });
            }
            while let Some(read) = tasks.join_next().await {
                let trades = read.map_err(text)?.map_err(text)?;
                if trades != 42 {
                    return Err(format!("a caller got {trades} trades"));
                }
            }
            let loads = loads.load(Ordering::Relaxed);
            ensure(loads == 1, format!("100 concurrent misses, {loads} load"))
        })
        .await;
    score
        .step("Backtest from the cache", async {
            let loader = || async { Err::<BacktestResult, _>(std::io::Error::other("must not be called")) };
            let read = trading.backtests().get_or_load("selftest", loader).await.map_err(text)?;
            ensure(read.source == Source::Backend, format!("source {}", read.source.name()))
        })
        .await;
    score
        .step("Position sizing", async {
            let request: SizingRequest = shape(json!({
                "symbol": "BTCUSDT", "strategy_id": "selftest", "signal_strength": 0.8, "current_price": 45_000.0,
                "volatility": 0.02, "stop_loss_percent": 2.0, "risk_per_trade_percent": 1.0, "order_side": "BUY",
            }))?;
            let answer = json!({
                "recommended_size_usd": 5000.0, "recommended_quantity": 0.11, "position_risk_percent": 1.0,
                "stop_loss_price": 44_100.0, "max_loss_usd": 100.0, "warnings": [], "approved": true,
            });
            let sizing: PositionSizing = shape(answer)?;
            let loader = |_| async move { Ok::<_, std::io::Error>(sizing) };
            trading.position_sizing().get_or_load(&request, loader).await.map_err(text)?;
            let read = trading.position_sizing().get(&request).await.map_err(text)?.ok_or("nothing there")?;
            trading.position_sizing().invalidate(&request).await.map_err(text)?;
            ensure(read.value.approved, format!("{} USD approved", read.value.recommended_size_usd))
        })
        .await;
}

async fn signals(trading: &Trading, score: &mut Score) {
    Score::section("Testing Signal Buffer");
    let now = epoch();
    score
        .step("Signals buffered", async {
            for i in 0..10 {
                let symbol = if i % 2 == 0 { "BTCUSDT" } else { "ETHUSDT" };
                let signal = json!({
                    "symbol": symbol, "signal_type": "BUY", "strength": 0.5 + f64::from(i) / 20.0,
                    "timestamp": now - f64::from(10 - i),
                });
                trading.signals().push(&signal).await.map_err(text)?;
            }
            let len = trading.signals().len().await.map_err(text)?;
            ensure(len == 10, format!("{len} signals"))
        })
        .await;
    score
        .step("Newest first", async {
            let recent = trading.signals().recent(3).await.map_err(text)?;
            let times: Vec<f64> = recent.iter().map(|signal| signal.at.epoch_seconds()).collect();
            let falls = times.windows(2).all(|pair| matches!(pair, [a, b] if a > b));
            ensure(recent.len() == 3 && falls, format!("{} signals", recent.len()))
        })
        .await;
    score
        .step("Filtered before the limit", async {
            let filter = SignalFilter::new().symbol("BTCUSDT");
            let found = trading.signals().find(&filter, 5).await.map_err(text)?;
            ensure(found.len() == 5, format!("{} of BTCUSDT", found.len()))
        })
        .await;
}

async fn sessions(trading: &Trading, score: &mut Score) {
    Score::section("Testing Sessions");
    score
        .step("Created, read, revoked", async {
            let sessions = trading.sessions();
            let (token, _) = sessions.create("selftest", Extra::default()).await.map_err(text)?;
            let read = sessions.get(&token).await.map_err(text)?.ok_or("the session is not there")?;
            let revoked = sessions.revoke(&token).await.map_err(text)?;
            let after = sessions.get(&token).await.map_err(text)?;
            ensure(read.user_id == "selftest" && revoked && after.is_none(), "gone after revocation")
        })
        .await;
    score
        .step("All of a user revoked", async {
            let sessions = trading.sessions();
            for _ in 0..3 {
                sessions.create("selftest", Extra::default()).await.map_err(text)?;
            }
            let listed = sessions.list("selftest").await.map_err(text)?.len();
            let revoked = sessions.revoke_all("selftest").await.map_err(text)?;
            ensure(listed == 3 && revoked == 3, format!("{revoked} sessions"))
        })
        .await;
}

async fn errors(cache: &Cache, score: &mut Score) {
    Score::section("Testing Errors");
    score
        .step("Wrong type is an error, not a miss", async {
            cache.hash("portfolio").map_err(text)?.set("x", &1).await.map_err(text)?;
            match cache.get::<Value>("portfolio").await {
                Err(error) if error.kind() == ErrorKind::WrongType => Ok(text(error)),
                other => Err(format!("{other:?}")),
            }
        })
        .await;
    score
        .step("A TTL of zero is refused", async {
            match cache.set("zero", "x", SetOptions::ttl(Duration::ZERO)).await {
                Err(error) => Ok(text(error)),
                Ok(stored) => Err(format!("accepted: {stored}")),
            }
        })
        .await;
    score
        .step("Not a number is refused", async {
            match cache.set("nan", &f64::NAN, SetOptions::ttl(Duration::from_secs(1))).await {
                Err(error) => Ok(text(error)),
                Ok(stored) => Err(format!("accepted: {stored}")),
            }
        })
        .await;
}

async fn clean_up(cache: &Cache, trading: &Trading) -> StepResult {
    let keys = ["greeting", "once", "brief", "m1", "m2", "count", "portfolio", "leaders", "zero", "nan"];
    let mut removed = cache.delete(&keys).await.map_err(text)?;
    removed += u64::from(trading.market_data().region().invalidate("BTCUSDT").await.map_err(text)?);
    removed += u64::from(trading.onchain_metrics().invalidate("BTCUSDT").await.map_err(text)?);
    removed += u64::from(trading.social_sentiment().invalidate("BTCUSDT").await.map_err(text)?);
    removed += u64::from(trading.backtests().invalidate("selftest").await.map_err(text)?);
    trading.signals().clear().await.map_err(text)?;
    let left = cache.exists(&keys).await.map_err(text)?;
    ensure(left == 0, format!("{removed} keys"))
}
