//! Sentinels as the link follows them: real failovers, by order and by a killed or frozen primary.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use mtcache_conformance::watched::{Watched, WatchedOptions};
use mtcache_conformance::{PATIENCE, Program};
use mtcache_link::{Command, Delivery, Error, ErrorKind, Link, LinkOptions, Script};

fn options() -> LinkOptions {
    let mut options = LinkOptions::default();
    options.connect_timeout = Duration::from_millis(500);
    options.response_timeout = Duration::from_millis(500);
    options.backoff_max = Duration::from_millis(200);
    options
}

fn watched(options: WatchedOptions) -> Watched {
    tokio::task::block_in_place(|| Watched::start(options).unwrap())
}

fn open(url: &str) -> Link {
    Link::open(&url.parse().unwrap(), options()).unwrap()
}

async fn set(link: &Link, value: &str) -> Result<(), Error> {
    link.command(Command::new("SET").arg("k").arg(value)).await.map(drop)
}

/// The port of the server at the other end.
async fn port(link: &Link) -> Result<u16, Error> {
    let info = link.command(Command::new("INFO").arg("server")).await?.into_bytes()?.unwrap_or_default();
    let info = String::from_utf8_lossy(&info).into_owned();
    Ok(info.lines().find_map(|line| line.strip_prefix("tcp_port:")).unwrap().trim().parse().unwrap())
}

async fn eventually(what: &str, mut claim: impl AsyncFnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !claim().await {
        assert!(Instant::now() < deadline, "not within {PATIENCE:?}: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

fn value_at(watched: &Watched) -> Option<String> {
    tokio::task::block_in_place(|| {
        watched.primary_server().client().unwrap().command(&["GET", "k"]).unwrap().text()
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_primary_is_found_and_a_failover_is_followed() {
    for program in [Program::Redis, Program::Valkey] {
        let watched = watched(WatchedOptions { program, ..WatchedOptions::default() });
        let link = open(&watched.url());
        link.connected().await.unwrap();
        set(&link, "1").await.unwrap();
        let first = port(&link).await.unwrap();
        assert_eq!(first, watched.primary_server().port());
        for round in 2..5 {
            let before = port(&link).await.unwrap();
            tokio::task::block_in_place(|| watched.fail_over());
            let failed_over = Instant::now();
            // Without a single write of ours to make it notice.
            eventually("the link leads to the new primary", async || {
                port(&link).await.is_ok_and(|port| port != before)
            })
            .await;
            let took = failed_over.elapsed();
            assert!(took < Duration::from_secs(5), "{took:?}");
            let value = round.to_string();
            eventually("it writes", async || set(&link, &value).await.is_ok()).await;
            assert_eq!(value_at(&watched).as_deref(), Some(value.as_str()), "{program}");
        }
    }
}

/// Each write that was acknowledged after the switch is on the new primary, while many are under way.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_a_killed_primary_writes_go_to_the_next() {
    let mut watched = watched(WatchedOptions { replicas: 2, ..WatchedOptions::default() });
    let link = open(&watched.url());
    let stop = Arc::new(AtomicBool::new(false));
    let workers: Vec<_> = (0..8_u64)
        .map(|worker| {
            let (link, stop) = (link.clone(), Arc::clone(&stop));
            tokio::spawn(async move {
                let mut kinds = Vec::new();
                while !stop.load(Ordering::SeqCst) {
                    if let Err(error) = link.command(Command::new("INCR").arg(format!("n{worker}"))).await {
                        kinds.push((error.kind(), error.delivery()));
                    }
                    tokio::time::sleep(Duration::from_millis(2)).await;
                }
                kinds
            })
        })
        .collect();
    tokio::time::sleep(Duration::from_millis(300)).await;
    tokio::task::block_in_place(|| watched.kill_primary());
    eventually("it writes", async || set(&link, "after").await.is_ok()).await;
    assert_eq!(value_at(&watched).as_deref(), Some("after"));
    stop.store(true, Ordering::SeqCst);
    for worker in workers {
        for (kind, delivery) in worker.await.unwrap() {
            assert!(
                matches!(kind, ErrorKind::Connect | ErrorKind::ConnectionLost | ErrorKind::Timeout)
                    || delivery == Delivery::Refused,
                "{kind:?} {delivery:?}"
            );
        }
    }
}

/// The frozen primary wakes as what it was, with connections that are still open, and is not spoken to any more.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_primary_that_was_frozen_and_wakes_is_not_spoken_to_any_more() {
    let mut watched = watched(WatchedOptions::default());
    let link = open(&watched.url());
    set(&link, "before").await.unwrap();
    let old = watched.primary().unwrap();
    watched.servers()[old].pause().unwrap();
    // Nothing is sent to it meanwhile: what ends the connection is the word of the sentinels.
    tokio::task::block_in_place(|| watched.wait_for_other_than(Some(old)));
    watched.servers()[old].resume().unwrap();
    let old_port = watched.servers()[old].port();
    eventually("the link leads to the new primary", async || {
        port(&link).await.is_ok_and(|port| port != old_port)
    })
    .await;
    for n in 0..200 {
        set(&link, &n.to_string()).await.unwrap();
    }
    assert_eq!(value_at(&watched).as_deref(), Some("199"));
}

/// The sentinels sleep, so that only the refused write can tell.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refused_write_ends_a_connection_to_what_is_a_replica_now() {
    after_a_demotion(async |link| set(link, "x").await.unwrap_err()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn so_does_one_in_a_pipeline() {
    after_a_demotion(async |link| {
        let commands = vec![Command::new("GET").arg("k"), Command::new("SET").arg("k").arg("x")];
        link.pipeline(commands).await.unwrap().pop().unwrap().ok().unwrap_err()
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn so_does_one_in_a_transaction_or_a_script() {
    after_a_demotion(async |link| {
        let commands = vec![Command::new("GET").arg("k"), Command::new("SET").arg("k").arg("x")];
        link.transaction(commands).await.unwrap_err()
    })
    .await;
    let script = Script::new("return redis.call('SET', KEYS[1], 'x')");
    after_a_demotion(async |link| link.script(&script, &["k"], &[""]).await.unwrap_err()).await;
}

async fn after_a_demotion(write: impl AsyncFnOnce(&Link) -> Error) {
    let mut watched = watched(WatchedOptions::default());
    let link = open(&watched.url());
    set(&link, "before").await.unwrap();
    let old = watched.primary().unwrap();
    let new = 1 - old;
    for sentinel in watched.sentinels() {
        sentinel.pause().unwrap();
    }
    let (old_port, new_port) = (watched.servers()[old].port(), watched.servers()[new].port());
    let mut to_new = watched.servers()[new].client().unwrap();
    to_new.command(&["REPLICAOF", "NO", "ONE"]).unwrap();
    let mut to_old = watched.servers()[old].client().unwrap();
    to_old.command(&["REPLICAOF", "127.0.0.1", &new_port.to_string()]).unwrap();
    let refused = write(&link).await;
    assert_eq!((refused.kind(), refused.delivery()), (ErrorKind::WritesRefused, Delivery::Refused));
    // From here on nothing is read from the old one: it says of itself that it is a replica.
    for _ in 0..20 {
        assert!(!port(&link).await.is_ok_and(|port| port == old_port));
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    for sentinel in watched.sentinels() {
        sentinel.resume().unwrap();
    }
    eventually("it writes again", async || set(&link, "after").await.is_ok()).await;
    assert_eq!(value_at(&watched).as_deref(), Some("after"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failover_is_followed_over_tls() {
    let watched = watched(WatchedOptions {
        tls: true,
        password: Some("s3rvers".to_owned()),
        ..WatchedOptions::default()
    });
    let link = open(&watched.url());
    link.connected().await.unwrap();
    set(&link, "1").await.unwrap();
    let before = port(&link).await.unwrap();
    tokio::task::block_in_place(|| watched.fail_over());
    eventually("it writes to the new primary", async || {
        port(&link).await.is_ok_and(|port| port != before) && set(&link, "2").await.is_ok()
    })
    .await;
    assert_eq!(value_at(&watched).as_deref(), Some("2"));
    let without = watched.url().replace("rediss", "redis");
    let without = &without[..without.find('?').unwrap()];
    assert!(open(without).connected().await.is_err());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_sentinels_have_a_login_of_their_own() {
    let watched = watched(WatchedOptions {
        replicas: 0,
        sentinels: 1,
        password: Some("s3rvers".to_owned()),
        sentinel_password: Some("s3ntinels".to_owned()),
        ..WatchedOptions::default()
    });
    let url = watched.url();
    let link = open(&url);
    link.connected().await.unwrap();
    set(&link, "1").await.unwrap();
    for (url, says) in [
        (url.replace("?sentinel_password=s3ntinels", ""), "sentinel_user and sentinel_password"),
        (url.replace("=s3ntinels", "=wr0ng"), "sentinel_user and sentinel_password"),
        (url.replace(":s3rvers@", ""), "cannot connect to 127.0.0.1"),
        (url.replace(":s3rvers@", ":wr0ng@"), "cannot connect to 127.0.0.1"),
    ] {
        let error = open(&url).connected().await.unwrap_err();
        assert_eq!((error.kind(), error.delivery()), (ErrorKind::Auth, Delivery::NotSent), "{url}: {error}");
        assert!(error.to_string().contains(says), "{url}: {error}");
        assert!(!error.to_string().contains("wr0ng"), "{error}");
    }
    let error = open(&url.replace("/svc", "/nosuch")).connected().await.unwrap_err();
    assert!(error.kind() == ErrorKind::Config && error.to_string().contains("no service nosuch"), "{error}");
}

/// Whoever may not ask for the role is told by INFO, and by nothing at the worst.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_user_with_few_rights_is_served() {
    let watched = watched(WatchedOptions { replicas: 0, sentinels: 1, ..WatchedOptions::default() });
    let mut raw = tokio::task::block_in_place(|| watched.primary_server().client().unwrap());
    for rights in ["-role", "-info"] {
        raw.command(&["ACL", "SETUSER", "app", "on", ">p", "~*", "&*", "+@all", "-role", rights]).unwrap();
        let link = open(&watched.url().replace("://", "://app:p@"));
        set(&link, "1").await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sentinels_may_be_away_at_the_start_and_one_is_enough() {
    let mut watched = watched(WatchedOptions { replicas: 0, sentinels: 2, ..WatchedOptions::default() });
    let url = watched.url();
    for sentinel in watched.sentinels() {
        sentinel.stop().unwrap();
    }
    let link = open(&url);
    let error = link.connected().await.unwrap_err();
    assert_eq!((error.kind(), error.delivery()), (ErrorKind::Connect, Delivery::NotSent), "{error}");
    assert!(error.to_string().contains("no sentinel says which server is the primary of svc"), "{error}");
    watched.sentinels()[1].start_again().unwrap();
    assert!(link.wait_connected(PATIENCE).await);
    set(&link, "1").await.unwrap();
    // Without any the connection that is there goes on.
    watched.sentinels()[1].stop().unwrap();
    tokio::time::sleep(Duration::from_millis(300)).await;
    set(&link, "2").await.unwrap();
}
