//! `tower-sessions` over our store, as a browser and a service see it.

use std::time::Duration;

use axum::Router;
use axum::routing::{get, post};
use mtcache_cache::{RegionPolicy, TimeLeft};
use mtcache_http::TowerSessions;
use tower_sessions::cookie::time::{Duration as Life, OffsetDateTime};
use tower_sessions::session::{Id, Record};
use tower_sessions::{Expiry, Session, SessionManagerLayer, SessionStore};

use crate::rig::{Answer, Client, Rig, on_both_backends, serve};

on_both_backends! {
    a_visitor_is_known_again_until_the_session_ends,
    what_is_stored_opens_no_session,
    a_session_lives_as_long_as_it_says,
    a_new_session_never_takes_anothers_place,
    a_late_save_brings_no_ended_session_back,
}

async fn count(session: Session) -> String {
    let visits = session.get::<u64>("visits").await.unwrap().unwrap_or(0) + 1;
    session.insert("visits", visits).await.unwrap();
    visits.to_string()
}

async fn app(sessions: &TowerSessions, life: Life) -> Client {
    let layer =
        SessionManagerLayer::new(sessions.clone()).with_secure(false).with_expiry(Expiry::OnInactivity(life));
    let end = |session: Session| async move { session.flush().await.unwrap() };
    let renew = |session: Session| async move { session.cycle_id().await.unwrap() };
    let app = Router::new()
        .route("/", get(count))
        .route("/end", post(end))
        .route("/renew", post(renew))
        .layer(layer);
    serve(app).await
}

/// What a browser sends back.
fn cookie(answer: &Answer) -> String {
    answer.header("set-cookie").split(';').next().unwrap().to_owned()
}

async fn a_visitor_is_known_again_until_the_session_ends(rig: Rig) {
    let sessions = TowerSessions::new(&rig.cache).unwrap();
    let client = app(&sessions, Life::hours(1)).await;
    let first = client.get("/").await;
    let token = cookie(&first);
    let with = |token: &str| [("cookie", token.to_owned())];
    let ask = async |token: &str| {
        let [(name, value)] = with(token);
        client.get_with("/", &[(name, &value)]).await.text().to_owned()
    };
    assert_eq!((first.text(), ask(&token).await, ask(&token).await), ("1", "2".into(), "3".into()));
    assert_eq!(client.get("/").await.text(), "1", "another visitor");
    let renewed = client.send("POST", "/renew", &[("cookie", &token)]).await;
    let (old, token) = (token, cookie(&renewed));
    assert_ne!(old, token);
    assert_eq!((ask(&token).await, ask(&old).await), ("4".into(), "1".into()));
    client.send("POST", "/end", &[("cookie", &token)]).await;
    assert_eq!(ask(&token).await, "1");
}

async fn what_is_stored_opens_no_session(rig: Rig) {
    let sessions = TowerSessions::new(&rig.cache).unwrap();
    let client = app(&sessions, Life::hours(1)).await;
    let token = cookie(&client.get("/").await);
    let id = token.split_once('=').unwrap().1;
    let keys = mtcache_cache::Script::new("return redis.call('KEYS', '*')");
    let keys = rig.cache.script::<&str>(&keys, &[], &[]).await.unwrap().into_array().unwrap();
    let [key]: [_; 1] = keys.try_into().unwrap();
    let key = String::from_utf8(key.into_bytes().unwrap().unwrap()).unwrap();
    assert!(key.starts_with("tower_session:") && !key.contains(id), "{key}");
    let value = String::from_utf8(rig.cache.get_bytes(&key).await.unwrap().unwrap()).unwrap();
    assert!(value.contains("visits") && !value.contains(id), "{value}");
    // Its name is no cookie either.
    let name = key.split_once(':').unwrap().1;
    assert_eq!(client.get_with("/", &[("cookie", &format!("id={name}"))]).await.text(), "1");
}

fn record(life: Life) -> Record {
    let data = [("n".to_owned(), 1.into())].into();
    Record { id: Id::default(), data, expiry_date: OffsetDateTime::now_utc() + life }
}

async fn a_session_lives_as_long_as_it_says(rig: Rig) {
    let policy = RegionPolicy::new("tower_session", Duration::from_secs(100));
    let sessions = TowerSessions::with_policy(&rig.cache, policy).unwrap();
    let left = async |record: &Record| {
        use sha2::Digest;
        let hash = sha2::Sha256::digest(record.id.to_string().as_bytes());
        let hash = bytes::Bytes::copy_from_slice(&hash);
        rig.cache.ttl(&format!("tower_session:{hash:x}")).await.unwrap()
    };
    let mut short = record(Life::seconds(50));
    sessions.create(&mut short).await.unwrap();
    let TimeLeft::For(time) = left(&short).await else { panic!("no expiry") };
    assert!(time <= Duration::from_secs(50) && time > Duration::from_secs(40), "{time:?}");
    assert_eq!(sessions.load(&short.id).await.unwrap().unwrap().data, short.data);
    let mut long = record(Life::days(400));
    sessions.create(&mut long).await.unwrap();
    let TimeLeft::For(time) = left(&long).await else { panic!("no expiry") };
    assert!(time <= Duration::from_secs(100), "{time:?}");
    // One whose time is over, by its own words, is not there, and saving it ends it.
    short.expiry_date = OffsetDateTime::now_utc() - Life::seconds(1);
    sessions.save(&short).await.unwrap();
    assert_eq!((sessions.load(&short.id).await.unwrap(), left(&short).await), (None, TimeLeft::Absent));
    let mut brief = record(Life::milliseconds(60));
    sessions.create(&mut brief).await.unwrap();
    tokio::time::sleep(Duration::from_millis(80)).await;
    assert_eq!(sessions.load(&brief.id).await.unwrap(), None);
}

async fn a_new_session_never_takes_anothers_place(rig: Rig) {
    let sessions = TowerSessions::new(&rig.cache).unwrap();
    let mut first = record(Life::hours(1));
    sessions.create(&mut first).await.unwrap();
    let mut second = Record { id: first.id, data: [("n".to_owned(), 2.into())].into(), ..first.clone() };
    sessions.create(&mut second).await.unwrap();
    assert_ne!(first.id, second.id);
    for record in [first, second] {
        assert_eq!(sessions.load(&record.id).await.unwrap().unwrap().data, record.data);
    }
}

async fn a_late_save_brings_no_ended_session_back(rig: Rig) {
    let sessions = TowerSessions::new(&rig.cache).unwrap();
    let mut ended = record(Life::hours(1));
    sessions.create(&mut ended).await.unwrap();
    sessions.delete(&ended.id).await.unwrap();
    sessions.save(&ended).await.unwrap();
    assert_eq!(sessions.load(&ended.id).await.unwrap(), None);
}
