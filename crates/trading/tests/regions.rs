//! Every region over every backend: its key, its TTL, its shape in the store, and the rules that are its own.

mod backends;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use backends::{Backend, on_every_backend};
use mtcache_cache::{ReadOptions, Source, TimeLeft};
use mtcache_trading::{
    BacktestResult, Extra, KlinesKey, MarketData, OrderSide, PositionSizing, RegionId, Rounding, SeriesKey,
    SizingRequest, SizingRounding, SocialSentiment, TickOutcome, Timestamp,
};
use serde_json::{Value, json};

fn tick(price: f64, at: f64) -> MarketData {
    MarketData {
        symbol: "BTCUSDT".into(),
        price,
        volume: 1.0,
        timestamp: Timestamp::from_epoch_seconds(at).unwrap(),
        open: None,
        high: None,
        low: None,
        close: None,
        extra: Extra::new(),
    }
}

async fn assert_stored(backend: &Backend, key: &str, ttl_secs: u64) {
    let TimeLeft::For(left) = backend.cache.ttl(key).await.unwrap() else {
        panic!("{key} is not there or does not expire");
    };
    assert!(left <= Duration::from_secs(ttl_secs), "{key}: {left:?}");
    assert!(left > Duration::from_secs(ttl_secs).saturating_sub(Duration::from_secs(10)), "{key}: {left:?}");
}

#[tokio::test]
async fn every_region_stores_under_its_key_with_its_ttl() {
    on_every_backend(|backend| async move {
        let trading = &backend.trading;
        trading.market_data().store(&tick(1.0, 1000.0)).await.unwrap();
        assert_stored(&backend, "market_data:BTCUSDT", 30).await;
        let series = SeriesKey { symbol: "BTCUSDT".into(), timeframe: "1h".into(), kind: "ohlcv".into() };
        trading.market_data().series().set(&series, &json!([1])).await.unwrap();
        assert_stored(&backend, "market_data:BTCUSDT:1h:ohlcv", 300).await;
        let sentiment: SocialSentiment = serde_json::from_value(
            json!({"source": "x", "symbol": "BTC", "sentiment_score": 0.5, "timestamp": 5}),
        )
        .unwrap();
        trading.social_sentiment().set("BTC", &sentiment).await.unwrap();
        assert_stored(&backend, "social_sentiment:BTC", 60).await;
        let onchain = serde_json::from_value(
            json!({"symbol": "BTC", "metric_name": "NVT", "metric_value": 1, "timestamp": 5, "source": "x"}),
        );
        trading.onchain_metrics().set("BTC", &onchain.unwrap()).await.unwrap();
        assert_stored(&backend, "onchain_metrics:BTC", 300).await;
        trading.backtests().set("ma", &BacktestResult::default()).await.unwrap();
        assert_stored(&backend, "backtest:ma", 86_400).await;
        for (id, key, ttl) in [
            (RegionId::PriceSignal, "price_signal:BTC", 45),
            (RegionId::SentimentSignal, "sentiment_signal:BTC", 60),
            (RegionId::CircuitBreaker, "circuit_breaker:BTC", 86_400),
            (RegionId::RateLimiter, "rate_limiter:BTC", 3600),
        ] {
            trading.region::<Value>(id).unwrap().set("BTC", &json!({"state": 1})).await.unwrap();
            assert_stored(&backend, key, ttl).await;
        }
        let klines = KlinesKey {
            symbol: "BTCUSDT".into(),
            interval: "1h".into(),
            start: Some("5".into()),
            end: None,
            limit: 500,
        };
        trading.historical_klines().unwrap().set(&klines, &json!([])).await.unwrap();
        assert_stored(&backend, "historical_klines:BTCUSDT:1h:5:none:500", 300).await;
    })
    .await;
}

#[tokio::test]
async fn fault_arguments_missing_from_the_key_so_that_questions_share_one() {
    on_every_backend(|backend| async move {
        let klines = backend.trading.historical_klines().unwrap();
        let base = KlinesKey {
            symbol: "BTC".into(),
            interval: "1h".into(),
            start: Some("1".into()),
            end: Some("2".into()),
            limit: 5,
        };
        let others = [
            KlinesKey { symbol: "ETH".into(), ..base.clone() },
            KlinesKey { interval: "1d".into(), ..base.clone() },
            KlinesKey { start: None, ..base.clone() },
            KlinesKey { end: Some("3".into()), ..base.clone() },
            KlinesKey { limit: 6, ..base.clone() },
        ];
        klines.set(&base, &json!("base")).await.unwrap();
        for other in others {
            assert!(klines.get(&other).await.unwrap().is_none(), "{other:?}");
        }
    })
    .await;
}

#[tokio::test]
async fn late_tick_never_replaces_a_newer_price() {
    on_every_backend(|backend| async move {
        let prices = backend.trading.market_data();
        let now = Timestamp::now().epoch_seconds().floor();
        assert_eq!(prices.store(&tick(2.0, now)).await.unwrap(), TickOutcome::Stored);
        assert_eq!(prices.store(&tick(1.0, now - 1.0)).await.unwrap(), TickOutcome::Late);
        assert!((price(&backend).await - 2.0).abs() < f64::EPSILON);
        let iso = MarketData {
            timestamp: Timestamp::from_epoch_seconds(now + 1.0).unwrap().to_iso(),
            ..tick(3.0, 0.0)
        };
        assert_eq!(
            prices.store(&iso).await.unwrap(),
            TickOutcome::Stored,
            "the form of the time does not matter"
        );
        assert_eq!(prices.store(&tick(2.5, now + 0.5)).await.unwrap(), TickOutcome::Late);
        assert_eq!(prices.store(&tick(3.5, now + 1.0)).await.unwrap(), TickOutcome::Stored, "a tie replaces");
    })
    .await;
}

#[tokio::test]
async fn newest_tick_wins_whoever_writes_last() {
    on_every_backend(|backend| async move {
        let start = Timestamp::now().epoch_seconds();
        let mut writers = tokio::task::JoinSet::new();
        for writer in 0..8u32 {
            let prices = backend.another().await.market_data().clone();
            writers.spawn(async move {
                for number in (0..50u32).rev() {
                    let at = f64::from((number * 8 + writer) * 7 % 400);
                    prices.store(&tick(at, start + at)).await.unwrap();
                }
            });
        }
        writers.join_all().await;
        assert!((price(&backend).await - 399.0).abs() < f64::EPSILON);
    })
    .await;
}

async fn price(backend: &Backend) -> f64 {
    backend.trading.market_data().latest("BTCUSDT").await.unwrap().unwrap().value.price
}

#[tokio::test]
async fn reader_that_demands_a_young_price_gets_no_old_one() {
    on_every_backend(|backend| async move {
        let prices = backend.trading.market_data();
        prices.store(&tick(1.0, 1000.0)).await.unwrap();
        backend.cache.expire("market_data:BTCUSDT", Duration::from_secs(20)).await.unwrap();
        let within = |secs| ReadOptions::new().max_age(Duration::from_secs(secs));
        assert!(prices.latest_with("BTCUSDT", within(15)).await.unwrap().is_some());
        assert!(prices.latest_with("BTCUSDT", within(5)).await.unwrap().is_none());
    })
    .await;
}

#[tokio::test]
async fn fault_fifty_concurrent_misses_make_fifty_origin_calls() {
    on_every_backend(|backend| async move {
        let calls = Arc::new(AtomicUsize::new(0));
        let mut readers = tokio::task::JoinSet::new();
        for _ in 0..50 {
            let (backtests, calls) = (backend.trading.backtests().clone(), calls.clone());
            readers.spawn(async move {
                let load = move || async move {
                    calls.fetch_add(1, Ordering::SeqCst);
                    tokio::time::sleep(Duration::from_millis(50)).await;
                    Ok::<_, std::io::Error>(BacktestResult {
                        strategy_id: "ma".into(),
                        ..BacktestResult::default()
                    })
                };
                backtests.get_or_load("ma", load).await.unwrap().value.strategy_id
            });
        }
        assert!(readers.join_all().await.iter().all(|id| id == "ma"));
        assert_eq!(calls.load(Ordering::SeqCst), 1);
    })
    .await;
}

#[tokio::test]
async fn sizing_answer_is_shared_within_the_rounding_and_nowhere_else() {
    on_every_backend(|backend| async move {
        let request = |current_price| SizingRequest {
            symbol: "BTC".into(),
            strategy_id: "ma".into(),
            signal_strength: 0.8,
            current_price,
            volatility: Some(0.02),
            stop_loss_percent: None,
            risk_per_trade_percent: None,
            order_side: OrderSide::Buy,
            extra: Extra::new(),
        };
        // The answer shows the price that the loader was asked for.
        let load = |request: SizingRequest| async move {
            Ok::<_, std::io::Error>(PositionSizing {
                recommended_size_usd: 1.0,
                recommended_quantity: 1.0,
                position_risk_percent: 1.0,
                stop_loss_price: request.current_price,
                max_loss_usd: 1.0,
                warnings: vec![],
                approved: true,
                extra: Extra::new(),
            })
        };
        let exact = backend.trading.position_sizing();
        assert_eq!(exact.get_or_load(&request(100.01), load).await.unwrap().source, Source::Loader);
        assert_eq!(exact.get_or_load(&request(100.02), load).await.unwrap().source, Source::Loader);
        assert_eq!(exact.get_or_load(&request(100.02), load).await.unwrap().source, Source::Backend);
        let rounded = exact.clone().with_rounding(SizingRounding {
            current_price: Rounding::Significant(3),
            ..SizingRounding::default()
        });
        let first = rounded.get_or_load(&request(100.01), load).await.unwrap();
        assert_eq!(first.source, Source::Loader);
        assert!(
            (first.value.stop_loss_price - 100.0).abs() < f64::EPSILON,
            "the loader saw the rounded price"
        );
        assert_eq!(rounded.get_or_load(&request(100.02), load).await.unwrap().source, Source::Backend);
        assert_eq!(rounded.get_or_load(&request(101.0), load).await.unwrap().source, Source::Loader);
        assert!(rounded.invalidate(&request(100.3)).await.unwrap());
        assert!(rounded.get(&request(100.01)).await.unwrap().is_none());
        let key = format!("position_sizing:BTC:ma:{}", request(100.01).hash().unwrap());
        assert_stored(&backend, &key, 60).await;
    })
    .await;
}

#[tokio::test]
async fn values_of_python_services_are_read_and_theirs_to_read() {
    on_every_backend(|backend| async move {
        let Some(server) = &backend.server else { return };
        let mut client = server.client().unwrap();
        let python = r#"{"symbol": "BTCUSDT", "price": 45000.5, "volume": 1234567.89, "timestamp": 5.5}"#;
        client.command(&["SET", "test:market_data:BTCUSDT", python, "EX", "30"]).unwrap();
        let read = backend.trading.market_data().latest("BTCUSDT").await.unwrap().unwrap();
        assert!((read.value.price - 45000.5).abs() < f64::EPSILON);
        backend.trading.market_data().store(&read.value).await.unwrap();
        let stored = client.command(&["GET", "test:market_data:BTCUSDT"]).unwrap();
        assert!(format!("{stored:?}").contains("45000.5"), "{stored:?}");
    })
    .await;
}
