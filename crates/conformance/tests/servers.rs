//! The harness itself, on redis-server: start, both sockets, RESP3, pause, kill, restart, and errors that help.

use std::time::{Duration, Instant};

use mtcache_conformance::{RedisOptions, TestServer, Value};

#[test]
fn a_server_answers_over_tcp_and_unix_and_dies_with_its_owner() {
    let server = TestServer::redis([]).unwrap();
    let pid = server.pid().unwrap();
    assert_eq!(server.client().unwrap().command(&["SET", "k", "v"]).unwrap(), Value::Simple(b"OK".to_vec()));
    assert_eq!(server.unix_client().unwrap().command(&["GET", "k"]).unwrap(), Value::Bulk(b"v".to_vec()));
    drop(server);
    assert!(!std::path::Path::new(&format!("/proc/{pid}")).exists());
}

#[test]
fn a_password_is_used_by_clients_and_urls() {
    let server = TestServer::redis(RedisOptions::new().password("sesame")).unwrap();
    assert_eq!(server.client().unwrap().command(&["PING"]).unwrap(), Value::Simple(b"PONG".to_vec()));
    assert_eq!(server.url(), format!("redis://:sesame@127.0.0.1:{}", server.port()));
}

#[test]
fn a_pipeline_returns_replies_in_order_and_sets_pushes_aside() {
    let server = TestServer::redis([]).unwrap();
    let mut client = server.client().unwrap();
    client.command(&["HELLO", "3"]).unwrap();
    client.send(&["SUBSCRIBE", "c"]).unwrap();
    let replies = client.pipeline(&[vec!["PUBLISH", "c", "m"], vec!["INCR", "n"]]).unwrap();
    assert_eq!(replies, [Value::Integer(1), Value::Integer(1)]);
    assert_eq!(client.take_pushes().len(), 2);
}

#[test]
fn a_paused_server_is_silent_and_answers_after_it_is_resumed() {
    let server = TestServer::redis([]).unwrap();
    let mut client = server.client().unwrap();
    server.pause().unwrap();
    client.send(&["PING"]).unwrap();
    assert_eq!(client.read_available(Duration::from_millis(100)).unwrap(), Some(Vec::new()));
    server.resume().unwrap();
    assert_eq!(client.reply().unwrap(), Value::Simple(b"PONG".to_vec()));
}

#[test]
fn a_restarted_server_has_its_port_and_its_data() {
    let mut server = TestServer::redis(["--appendonly", "yes", "--appendfsync", "always"]).unwrap();
    let port = server.port();
    server.client().unwrap().command(&["SET", "k", "v"]).unwrap();
    server.kill().unwrap();
    server.start_again().unwrap();
    server.restart().unwrap();
    assert_eq!(server.port(), port);
    assert_eq!(server.client().unwrap().command(&["GET", "k"]).unwrap(), Value::Bulk(b"v".to_vec()));
}

#[test]
fn a_bad_option_fails_at_once_with_the_servers_own_words() {
    let start = Instant::now();
    let error = TestServer::redis(["--no-such-option", "1"]).unwrap_err();
    assert!(error.to_string().contains("Bad directive"), "{error}");
    assert!(start.elapsed() < Duration::from_secs(10));
}

#[test]
fn two_servers_started_together_never_share_a_port() {
    let servers: Vec<_> = std::thread::scope(|scope| {
        let starts: Vec<_> = (0..6).map(|_| scope.spawn(|| TestServer::redis([]).unwrap())).collect();
        starts.into_iter().map(|start| start.join().unwrap()).collect()
    });
    let mut ports: Vec<_> = servers.iter().map(TestServer::port).collect();
    ports.sort_unstable();
    ports.dedup();
    assert_eq!(ports.len(), 6);
}

#[test]
fn valkey_starts_like_redis_does() {
    let server = TestServer::valkey([]).unwrap();
    assert_eq!(server.client().unwrap().command(&["PING"]).unwrap(), Value::Simple(b"PONG".to_vec()));
}
