//! The session store's contract, over every backend.

mod backends;

use std::time::Duration;

use backends::{Backend, ManualClock, on_every_backend};
use mtcache_cache::TimeLeft;
use mtcache_conformance::servers::TestServer;
use mtcache_trading::{
    ErrorKind, Extra, RegionChange, RegionId, RegionTable, SessionStore, SessionToken, Trading,
};
use serde_json::json;

fn data(theme: &str) -> Extra {
    let mut data = Extra::new();
    data.insert("theme".into(), json!(theme));
    data
}

async fn left(backend: &Backend, key: &str) -> Duration {
    match backend.cache.ttl(key).await.unwrap() {
        TimeLeft::For(left) => left,
        other => panic!("{key}: {other:?}"),
    }
}

fn everything(server: &TestServer) -> String {
    let mut client = server.client().unwrap();
    let keys = client.command(&["KEYS", "*"]).unwrap();
    let mut all = format!("{keys:?}");
    for prefix in ["test:session:", "test:session_index:"] {
        let script = "local out = {} for _, k in ipairs(redis.call('KEYS', ARGV[1] .. '*')) do \
            if redis.call('TYPE', k).ok == 'string' then out[#out+1] = redis.call('GET', k) \
            else for _, m in ipairs(redis.call('ZRANGE', k, 0, -1)) do out[#out+1] = m end end end return out";
        let values = client.command(&["EVAL", script, "0", prefix]).unwrap();
        all.extend([format!("{values:?}")]);
    }
    all
}

#[tokio::test]
async fn token_opens_its_session_and_is_never_stored() {
    on_every_backend(|backend| async move {
        let sessions = backend.trading.sessions();
        let (token, created) = sessions.create("ada", data("dark")).await.unwrap();
        let read = sessions.get(&token).await.unwrap().unwrap();
        assert_eq!(read, created);
        assert_eq!(read.data["theme"], "dark");
        let elsewhere = backend.another().await;
        assert_eq!(elsewhere.sessions().get(&token).await.unwrap().as_ref(), Some(&created));
        if let Some(server) = &backend.server {
            let stored = everything(server);
            assert!(stored.contains(&created.id) && !stored.contains(token.reveal()), "{stored}");
        }
        let unknown = SessionToken::parse(&"0".repeat(64)).unwrap();
        assert_eq!(sessions.get(&unknown).await.unwrap(), None);
    })
    .await;
}

#[tokio::test]
async fn use_re_arms_the_session_at_most_once_a_minute() {
    on_every_backend(|backend| async move {
        let sessions = backend.trading.sessions();
        let (token, session) = sessions.create("ada", Extra::new()).await.unwrap();
        let key = format!("session:{}", session.id);
        // As if half a minute, then two minutes, had passed on the server.
        backend.cache.expire(&key, Duration::from_secs(1771)).await.unwrap();
        sessions.get(&token).await.unwrap().unwrap();
        assert!(left(&backend, &key).await <= Duration::from_secs(1771), "30 s are not enough to re-arm it");
        backend.cache.expire(&key, Duration::from_mins(28)).await.unwrap();
        sessions.get(&token).await.unwrap().unwrap();
        assert!(left(&backend, &key).await > Duration::from_secs(1790), "re-armed");
        let index = left(&backend, "session_index:ada").await;
        assert!(index > Duration::from_mins(30) && index <= Duration::from_mins(90), "{index:?}");
    })
    .await;
}

#[tokio::test]
async fn session_of_a_minute_or_less_slides_too() {
    on_every_backend(|backend| async move {
        let short = RegionChange::new().with("ttl", "60s").unwrap();
        let table = RegionTable::default().with(RegionId::Session, short);
        let trading = Trading::with_table(&backend.cache, &table).unwrap();
        let sessions = trading.sessions();
        let (token, session) = sessions.create("ada", Extra::new()).await.unwrap();
        let key = format!("session:{}", session.id);
        // As if 20 seconds, then 35, had passed on the server.
        backend.cache.expire(&key, Duration::from_secs(40)).await.unwrap();
        sessions.get(&token).await.unwrap().unwrap();
        assert!(
            left(&backend, &key).await <= Duration::from_secs(40),
            "less than half is not enough to re-arm it"
        );
        backend.cache.expire(&key, Duration::from_secs(25)).await.unwrap();
        sessions.get(&token).await.unwrap().unwrap();
        assert!(left(&backend, &key).await > Duration::from_secs(40), "re-armed");
    })
    .await;
}

#[tokio::test]
async fn no_use_extends_a_session_past_its_absolute_end() {
    on_every_backend(|backend| async move {
        let time = ManualClock::now();
        let life = Duration::from_hours(1);
        let sessions = backend.trading.sessions().clone().with_clock(time.clock()).with_absolute_life(life);
        let (token, session) = sessions.create("ada", Extra::new()).await.unwrap();
        let key = format!("session:{}", session.id);
        time.advance(Duration::from_mins(50));
        backend.cache.expire(&key, Duration::from_mins(5)).await.unwrap();
        sessions.get(&token).await.unwrap().unwrap();
        let armed = left(&backend, &key).await;
        assert!(armed > Duration::from_secs(590) && armed <= Duration::from_mins(10), "{armed:?}");
        time.advance(Duration::from_mins(10));
        assert_eq!(sessions.get(&token).await.unwrap(), None, "whatever the server still holds");
        assert_eq!(backend.cache.ttl(&key).await.unwrap(), TimeLeft::Absent);
    })
    .await;
}

#[tokio::test]
async fn documented_lives_are_the_defaults() {
    on_every_backend(|backend| async move {
        let (_, session) = backend.trading.sessions().create("ada", Extra::new()).await.unwrap();
        let absolute = session.ends_at.epoch_seconds() - session.created_at.epoch_seconds();
        assert!((absolute - 30.0 * 86_400.0).abs() < 1e-3);
        let sliding = left(&backend, &format!("session:{}", session.id)).await;
        assert!(sliding > Duration::from_secs(1790) && sliding <= Duration::from_mins(30));
    })
    .await;
}

#[tokio::test]
async fn revoking_one_leaves_the_others() {
    on_every_backend(|backend| async move {
        let sessions = backend.trading.sessions();
        let (one, first) = sessions.create("ada", Extra::new()).await.unwrap();
        let (two, second) = sessions.create("ada", Extra::new()).await.unwrap();
        let (three, _) = sessions.create("bob", Extra::new()).await.unwrap();
        assert_eq!(sessions.list("ada").await.unwrap().len(), 2);
        assert!(sessions.revoke(&one).await.unwrap());
        assert!(!sessions.revoke(&one).await.unwrap(), "there is none any more");
        assert_eq!(sessions.get(&one).await.unwrap(), None);
        assert_eq!(sessions.list("ada").await.unwrap(), std::slice::from_ref(&second));
        assert!(sessions.get(&two).await.unwrap().is_some());
        assert!(sessions.revoke_id("ada", &second.id).await.unwrap());
        assert!(!sessions.revoke_id("ada", &first.id).await.unwrap());
        assert_eq!(sessions.get(&two).await.unwrap(), None);
        assert!(sessions.get(&three).await.unwrap().is_some());
    })
    .await;
}

#[tokio::test]
async fn revoking_all_of_a_user_leaves_other_users() {
    on_every_backend(|backend| async move {
        let sessions = backend.trading.sessions();
        let mut tokens = Vec::new();
        for _ in 0..5 {
            tokens.push(sessions.create("ada", Extra::new()).await.unwrap().0);
        }
        let (other, _) = sessions.create("ada:bob", Extra::new()).await.unwrap();
        assert_eq!(sessions.revoke_all("ada").await.unwrap(), 5);
        for token in &tokens {
            assert_eq!(sessions.get(token).await.unwrap(), None);
        }
        assert!(sessions.list("ada").await.unwrap().is_empty());
        assert_eq!(sessions.revoke_all("ada").await.unwrap(), 0);
        assert!(sessions.get(&other).await.unwrap().is_some());
    })
    .await;
}

#[tokio::test]
async fn revoked_session_is_not_brought_back_by_a_late_use_or_update() {
    on_every_backend(|backend| async move {
        let sessions = backend.trading.sessions();
        for round in 0..30 {
            let user = format!("user{round}");
            let (token, session) = sessions.create(&user, Extra::new()).await.unwrap();
            // Due for re-arming, so that each use writes.
            backend.cache.expire(&format!("session:{}", session.id), Duration::from_secs(100)).await.unwrap();
            let (get, update, revoke) = {
                let (one, two, three) = (sessions.clone(), sessions.clone(), sessions.clone());
                let (first, second, owner) = (token.clone(), token.clone(), user.clone());
                (
                    tokio::spawn(async move { one.get(&first).await.map(drop) }),
                    tokio::spawn(async move { two.update(&second, data("late")).await.map(drop) }),
                    tokio::spawn(async move { three.revoke_all(&owner).await.map(drop) }),
                )
            };
            get.await.unwrap().unwrap();
            update.await.unwrap().unwrap();
            revoke.await.unwrap().unwrap();
            assert_eq!(sessions.get(&token).await.unwrap(), None);
            assert!(sessions.list(&user).await.unwrap().is_empty());
        }
    })
    .await;
}

#[tokio::test]
async fn evicted_index_fails_closed() {
    on_every_backend(|backend| async move {
        let sessions = backend.trading.sessions();
        let (token, _) = sessions.create("ada", Extra::new()).await.unwrap();
        backend.cache.delete(&["session_index:ada"]).await.unwrap();
        assert_eq!(sessions.get(&token).await.unwrap(), None, "what revoke_all could not find must not open");
    })
    .await;
}

#[tokio::test]
async fn index_forgets_dead_sessions_and_expires_itself() {
    on_every_backend(|backend| async move {
        let time = ManualClock::now();
        let sessions: SessionStore = backend.trading.sessions().clone().with_clock(time.clock());
        for _ in 0..3 {
            sessions.create("ada", Extra::new()).await.unwrap();
        }
        time.advance(Duration::from_hours(2));
        sessions.create("ada", Extra::new()).await.unwrap();
        let index = backend.cache.sorted_set("session_index:ada").unwrap();
        assert_eq!(index.len().await.unwrap(), 1);
        assert!(left(&backend, "session_index:ada").await <= Duration::from_mins(90));
    })
    .await;
}

#[tokio::test]
async fn update_replaces_the_data_and_keeps_the_life() {
    on_every_backend(|backend| async move {
        let sessions = backend.trading.sessions();
        let (token, session) = sessions.create("ada", data("dark")).await.unwrap();
        let key = format!("session:{}", session.id);
        backend.cache.expire(&key, Duration::from_secs(1771)).await.unwrap();
        assert!(sessions.update(&token, data("light")).await.unwrap());
        assert_eq!(sessions.get(&token).await.unwrap().unwrap().data["theme"], "light");
        assert!(left(&backend, &key).await <= Duration::from_secs(1771));
        sessions.revoke(&token).await.unwrap();
        assert!(!sessions.update(&token, data("gone")).await.unwrap());
    })
    .await;
}

#[tokio::test]
async fn cache_without_memory_for_writes_logs_nobody_out() {
    on_every_backend(|backend| async move {
        let Some(server) = &backend.server else { return };
        let sessions = backend.trading.sessions();
        let (token, session) = sessions.create("ada", Extra::new()).await.unwrap();
        // Due for re-arming, so that the use wants to write.
        backend.cache.expire(&format!("session:{}", session.id), Duration::from_secs(100)).await.unwrap();
        let mut client = server.client().unwrap();
        client.command(&["CONFIG", "SET", "maxmemory-policy", "noeviction"]).unwrap();
        client.command(&["CONFIG", "SET", "maxmemory", "1"]).unwrap();
        assert_eq!(sessions.get(&token).await.unwrap(), Some(session));
        assert!(sessions.create("bob", Extra::new()).await.is_err(), "what cannot be stored is an error");
    })
    .await;
}

#[tokio::test]
async fn dead_server_is_an_error_not_a_logged_out_user() {
    on_every_backend(|mut backend| async move {
        let (token, _) = backend.trading.sessions().create("ada", Extra::new()).await.unwrap();
        let Some(server) = &mut backend.server else { return };
        server.stop().unwrap();
        let error = backend.trading.sessions().get(&token).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Cache);
        let error = backend.trading.sessions().create("", Extra::new()).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidKey);
    })
    .await;
}
