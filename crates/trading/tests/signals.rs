//! The signal buffer's contract, over every backend. Tests whose name starts with `fault_` hold a fault of the system that this one
//! replaces.

mod backends;

use std::time::Duration;

use backends::{ManualClock, on_every_backend};
use mtcache_cache::collections::ZaddOptions;
use mtcache_cache::{Order, TimeLeft};
use mtcache_trading::{ErrorKind, Extra, Signal, SignalFilter, SignalType, Timestamp};
use proptest::prelude::{Strategy as _, any};
use serde_json::{Value, json};

fn signal(symbol: &str, strength: f64, at: f64) -> Signal {
    Signal {
        symbol: symbol.into(),
        signal_type: SignalType::Buy,
        strength,
        timestamp: Timestamp::from_epoch_seconds(at).unwrap(),
        extra: Extra::new(),
    }
}

fn now() -> f64 {
    Timestamp::now().epoch_seconds()
}

#[tokio::test]
async fn fault_buffer_loses_signals_under_concurrent_writers() {
    on_every_backend(|backend| async move {
        let start = now() - 4000.0;
        let mut writers = tokio::task::JoinSet::new();
        for writer in 0..8u32 {
            let buffer = backend.another().await.signals().clone();
            writers.spawn(async move {
                let mut refused = 0;
                for number in 0..400u32 {
                    // The writers' times interleave, so each is in the others' way.
                    let at = start + f64::from(number * 8 + writer);
                    match buffer.push(&signal("BTC", 0.5, at)).await {
                        Ok(_) => {}
                        Err(error) if error.kind() == ErrorKind::SignalTooOld => refused += 1,
                        Err(error) => panic!("{error}"),
                    }
                }
                refused
            });
        }
        let refused: u32 = writers.join_all().await.into_iter().sum();
        let kept = backend.trading.signals().recent(5000).await.unwrap();
        assert_eq!(kept.len(), 1000);
        let times: Vec<f64> = kept.iter().map(|signal| (signal.at.epoch_seconds() - start).round()).collect();
        let expected: Vec<f64> = (2200..3200u32).rev().map(f64::from).collect();
        assert_eq!(times, expected, "exactly the newest 1000 remain ({refused} were late)");
    })
    .await;
}

#[tokio::test]
async fn fault_two_equal_signals_collapse_into_one() {
    on_every_backend(|backend| async move {
        let buffer = backend.trading.signals();
        let one = signal("BTC", 0.5, now());
        let first = buffer.push(&one).await.unwrap();
        let second = buffer.push(&one).await.unwrap();
        assert_ne!(first.id, second.id);
        assert_eq!(second.buffered, 2);
        let read = buffer.recent(10).await.unwrap();
        assert_eq!(read.len(), 2);
        assert_eq!(read[0].id.as_ref(), Some(&second.id), "of one moment the later push is the newer");
        for buffered in &read {
            assert_eq!(
                buffered.signal,
                serde_json::to_value(&one).unwrap(),
                "the buffer's own field is not seen"
            );
            assert_eq!(buffered.parse::<Signal>().unwrap(), one);
        }
    })
    .await;
}

#[tokio::test]
async fn retry_of_one_push_stays_one_entry() {
    on_every_backend(|backend| async move {
        let buffer = backend.trading.signals();
        let once = json!({"_id": "mine", "symbol": "BTC", "timestamp": now()});
        let first = buffer.push(&once).await.unwrap();
        let again = buffer.push(&once).await.unwrap();
        assert_eq!((first.id.as_str(), &first), ("mine", &again));
        assert_eq!(again.buffered, 1);
    })
    .await;
}

#[tokio::test]
async fn fault_count_of_zero_returns_everything() {
    on_every_backend(|backend| async move {
        let buffer = backend.trading.signals();
        buffer.push(&signal("BTC", 0.5, now())).await.unwrap();
        assert!(buffer.recent(0).await.unwrap().is_empty());
        assert!(buffer.find(&SignalFilter::new().symbol("BTC"), 0).await.unwrap().is_empty());
    })
    .await;
}

#[tokio::test]
async fn fault_newest_matches_return_the_oldest() {
    on_every_backend(|backend| async move {
        let buffer = backend.trading.signals();
        let start = now() - 100.0;
        // Pushed out of order on purpose.
        for offset in [3.0, 1.0, 4.0, 2.0, 0.0] {
            buffer.push(&signal("BTC", 0.5, start + offset)).await.unwrap();
        }
        let newest = buffer.find(&SignalFilter::new().since(at(start)), 2).await.unwrap();
        let offsets: Vec<f64> =
            newest.iter().map(|signal| (signal.at.epoch_seconds() - start).round()).collect();
        assert_eq!(offsets, [4.0, 3.0]);
    })
    .await;
}

#[tokio::test]
async fn fault_symbol_filter_runs_after_the_limit() {
    on_every_backend(|backend| async move {
        let buffer = backend.trading.signals();
        let start = now() - 100.0;
        buffer.push(&signal("RARE", 0.9, start)).await.unwrap();
        for number in 1..=50 {
            buffer.push(&signal("BTC", 0.1, start + f64::from(number))).await.unwrap();
        }
        let rare = buffer.find(&SignalFilter::new().symbol("RARE"), 1).await.unwrap();
        assert_eq!(rare.len(), 1, "older than 50 others, but the newest of its symbol");
        assert_eq!(buffer.find(&SignalFilter::new().min_strength(0.5), 10).await.unwrap().len(), 1);
        assert_eq!(buffer.find(&SignalFilter::new().signal_type("sell"), 10).await.unwrap().len(), 0);
        let between = SignalFilter::new().since(at(start + 10.0)).until(at(start + 12.0)).symbol("BTC");
        assert_eq!(buffer.find(&between, 10).await.unwrap().len(), 3, "both ends count");
    })
    .await;
}

#[tokio::test]
async fn fault_iso_timestamp_reports_success_without_buffering() {
    on_every_backend(|backend| async move {
        let buffer = backend.trading.signals();
        let iso = at(now() - 5.0).to_iso().to_string();
        buffer.push(&json!({"symbol": "BTC", "timestamp": iso})).await.unwrap();
        assert_eq!(buffer.recent(10).await.unwrap()[0].signal["timestamp"], json!(iso));
        for bad in [json!("tomorrow"), json!(null), json!([1]), json!(-5)] {
            let error = buffer.push(&json!({"symbol": "BTC", "timestamp": bad})).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidTimestamp);
        }
        assert_eq!(buffer.len().await.unwrap(), 1);
        let ahead = buffer.push(&signal("BTC", 0.5, now() + 3600.0)).await.unwrap_err();
        assert_eq!(ahead.kind(), ErrorKind::InvalidTimestamp, "a thousand such would keep true signals out");
        buffer.push(&signal("BTC", 0.5, now() + 5.0)).await.unwrap();
        assert_eq!(buffer.len().await.unwrap(), 2, "clocks differ a little");
    })
    .await;
}

#[tokio::test]
async fn fault_naive_times_are_cut_off_by_local_time() {
    on_every_backend(|backend| async move {
        let buffer = backend.trading.signals();
        // Written without a zone; a reader in any zone must find it within the last minute of UTC.
        let naive = at(now() - 30.0).to_iso().to_string().trim_end_matches('Z').to_owned();
        buffer.push(&json!({"symbol": "BTC", "timestamp": naive})).await.unwrap();
        let last_minute = SignalFilter::new().since(at(now() - 60.0)).until(at(now()));
        let found = buffer.find(&last_minute, 10).await.unwrap();
        assert_eq!(found.len(), 1);
        assert!(found[0].age >= Duration::from_secs(30) && found[0].age < Duration::from_mins(1));
        let until = Timestamp::parse(&naive).unwrap();
        assert_eq!(buffer.find(&SignalFilter::new().until(until), 10).await.unwrap().len(), 1);
    })
    .await;
}

#[tokio::test]
async fn fault_dead_server_reports_success() {
    on_every_backend(|mut backend| async move {
        let Some(server) = &mut backend.server else { return };
        server.stop().unwrap();
        let error = backend.trading.signals().push(&signal("BTC", 0.5, now())).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Cache);
        assert!(error.cache_error().is_some_and(mtcache_cache::Error::is_backend_down), "{error}");
        let error = backend.trading.signals().recent(5).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Cache);
        server.start_again().unwrap();
        assert!(backend.cache.wait_connected(Duration::from_secs(20)).await);
        backend.trading.signals().push(&signal("BTC", 0.5, now())).await.unwrap();
    })
    .await;
}

#[tokio::test]
async fn signals_older_than_the_ttl_are_refused_removed_and_not_read() {
    on_every_backend(|backend| async move {
        let time = ManualClock::now();
        let buffer = backend.trading.signals().clone().with_clock(time.clock());
        let day = Duration::from_hours(24);
        let error =
            buffer.push(&signal("BTC", 0.5, time.seconds() - day.as_secs_f64() - 1.0)).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::SignalTooOld);
        buffer.push(&signal("OLD", 0.5, time.seconds() - 10.0)).await.unwrap();
        time.advance(day.saturating_sub(Duration::from_secs(11)));
        assert_eq!(buffer.recent(10).await.unwrap().len(), 1);
        time.advance(Duration::from_secs(2));
        assert_eq!(buffer.recent(10).await.unwrap().len(), 0, "readers skip it before any push removes it");
        assert_eq!(buffer.len().await.unwrap(), 0);
        assert_eq!(stored(&backend).await.len(), 1);
        let pushed = buffer.push(&signal("NEW", 0.5, time.seconds())).await.unwrap();
        assert_eq!(pushed.buffered, 1);
        assert_eq!(stored(&backend).await.len(), 1, "the push removed the old one");
    })
    .await;
}

#[tokio::test]
async fn every_push_re_arms_the_expiry_of_the_key() {
    on_every_backend(|backend| async move {
        let buffer = backend.trading.signals();
        buffer.push(&signal("BTC", 0.5, now())).await.unwrap();
        assert!(backend.cache.expire("signals:recent", Duration::from_secs(100)).await.unwrap());
        buffer.push(&signal("BTC", 0.5, now())).await.unwrap();
        let TimeLeft::For(left) = backend.cache.ttl("signals:recent").await.unwrap() else {
            panic!("the buffer must expire");
        };
        assert!(left > Duration::from_secs(86_390) && left <= Duration::from_hours(24), "{left:?}");
    })
    .await;
}

#[tokio::test]
async fn signal_older_than_a_full_buffer_is_refused_not_reported_as_buffered() {
    on_every_backend(|backend| async move {
        let buffer = backend.trading.signals().clone().with_capacity(3);
        let start = now() - 100.0;
        for number in 1..=5 {
            buffer.push(&signal("BTC", 0.5, start + f64::from(number))).await.unwrap();
        }
        assert_eq!(buffer.len().await.unwrap(), 3);
        let error = buffer.push(&signal("LATE", 0.5, start)).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::SignalTooOld);
        assert_eq!(buffer.len().await.unwrap(), 3);
    })
    .await;
}

#[tokio::test]
async fn entries_of_old_writers_are_read_well() {
    on_every_backend(|backend| async move {
        let set = backend.cache.sorted_set("signals:recent").unwrap();
        let old = json!({"symbol": "OLD", "signal_type": "SELL", "strength": 0.4, "timestamp": now()});
        set.add(&[(old.clone(), now() - 1.0)], ZaddOptions::default()).await.unwrap();
        set.add(&[("{'symbol': 'python repr'}", now() - 2.0)], ZaddOptions::default()).await.unwrap();
        let read = backend.trading.signals().recent(10).await.unwrap();
        assert_eq!(read.len(), 2);
        assert_eq!((&read[0].signal, &read[0].id), (&old, &None));
        assert_eq!(read[0].parse::<Signal>().unwrap().signal_type, SignalType::Sell);
        assert_eq!(read[1].signal, json!("{'symbol': 'python repr'}"));
        assert_eq!(read[1].parse::<Signal>().unwrap_err().kind(), ErrorKind::Undecodable);
        let found = backend.trading.signals().find(&SignalFilter::new().symbol("OLD"), 10).await.unwrap();
        assert_eq!(found.len(), 1);
    })
    .await;
}

#[tokio::test]
async fn stored_form_is_what_old_readers_understand() {
    on_every_backend(|backend| async move {
        let written =
            r#"{"symbol":"BTC","timestamp":1.5e9,"big":123456789012345678901234567890,"exact":0.10}"#;
        let signal: Box<serde_json::value::RawValue> = serde_json::from_str(written).unwrap();
        let time = Timestamp::from_epoch_seconds(1_500_000_100.0).unwrap();
        let buffer =
            backend.trading.signals().clone().with_clock(mtcache_trading::Clock::new(move || time.clone()));
        let pushed = buffer.push(&signal).await.unwrap();
        let Some(server) = &backend.server else { return };
        let members = server
            .client()
            .unwrap()
            .command(&["ZRANGE", "test:signals:recent", "0", "-1", "WITHSCORES"])
            .unwrap();
        let expected = format!(r#"{{"_id":"{}",{}"#, pushed.id, &written[1..]);
        assert!(format!("{members:?}").contains(&expected.escape_debug().to_string()), "{members:?}");
        assert!(format!("{members:?}").contains("1500000000"), "{members:?}");
    })
    .await;
}

#[tokio::test]
async fn what_is_no_signal_is_refused_before_anything_is_sent() {
    on_every_backend(|backend| async move {
        let buffer = backend.trading.signals();
        for (bad, kind) in [
            (json!("BUY"), ErrorKind::InvalidSignal),
            (json!([1]), ErrorKind::InvalidSignal),
            (json!(null), ErrorKind::InvalidSignal),
            (json!({"_id": 5}), ErrorKind::InvalidSignal),
        ] {
            assert_eq!(buffer.push(&bad).await.unwrap_err().kind(), kind, "{bad}");
        }
        let error =
            buffer.push(&Signal { strength: f64::NAN, ..signal("BTC", 0.5, now()) }).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidValue);
        assert!(buffer.is_empty().await.unwrap());
        assert_eq!(buffer.push(&json!({})).await.unwrap().buffered, 1, "no timestamp means now");
        assert_eq!(buffer.recent(1).await.unwrap()[0].signal, json!({}));
        buffer.clear().await.unwrap();
        assert!(buffer.is_empty().await.unwrap());
    })
    .await;
}

#[tokio::test]
async fn buffer_key_of_another_type_is_an_error_not_an_empty_buffer() {
    on_every_backend(|backend| async move {
        backend.cache.set("signals:recent", &1, mtcache_cache::SetOptions::default()).await.unwrap();
        let pushed = backend.trading.signals().push(&signal("BTC", 0.5, now())).await.unwrap_err();
        let read = backend.trading.signals().recent(5).await.unwrap_err();
        for error in [pushed, read] {
            assert_eq!(error.cache_error().unwrap().kind(), mtcache_cache::ErrorKind::WrongType, "{error}");
        }
    })
    .await;
}

#[test]
fn any_json_object_comes_back_as_it_was_pushed() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let buffer = runtime.block_on(async {
        let cache = mtcache_cache::Cache::connect("embedded://").await.unwrap();
        mtcache_trading::Trading::new(&cache).unwrap().signals().clone()
    });
    let value = || proptest::prop_oneof![".{0,8}".prop_map(Value::from), any::<i64>().prop_map(Value::from)];
    let object = proptest::collection::vec(("[a-z\"\\\\ ]{0,4}", value()), 0..5);
    proptest::proptest!(|(fields in object)| {
        let signal: Value = fields.into_iter().collect::<serde_json::Map<_, _>>().into();
        let read = runtime.block_on(async {
            buffer.push(&signal).await.unwrap();
            buffer.recent(1).await.unwrap()
        });
        proptest::prop_assert_eq!(&read[0].signal, &signal);
    });
}

fn at(seconds: f64) -> Timestamp {
    Timestamp::from_epoch_seconds(seconds).unwrap()
}

async fn stored(backend: &backends::Backend) -> Vec<(Value, f64)> {
    backend.cache.sorted_set("signals:recent").unwrap().range(0, -1, Order::Ascending).await.unwrap()
}
