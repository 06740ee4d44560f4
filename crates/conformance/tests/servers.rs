//! The harness itself, on redis-server: start, both sockets, RESP3, pause, kill, restart, and errors that help.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant, SystemTime};

use mtcache_conformance::{RedisOptions, TestServer, Value, clock};

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
    for words in ["Bad directive", "(pid ", "port ", "after its start: exit status: 1"] {
        assert!(error.to_string().contains(words), "{error}");
    }
    assert!(start.elapsed() < Duration::from_secs(10));
}

#[test]
fn what_keeps_a_server_from_starting_again_is_not_taken_from_what_an_earlier_run_has_said() {
    let files = tempfile::tempdir().unwrap();
    let file = files.path().join("redis.conf");
    fs::write(&file, "").unwrap();
    let mut server = TestServer::redis(RedisOptions::new().config_file(&file)).unwrap();
    server.kill().unwrap();
    fs::write(server.directory().join("server.log"), "bind: Address already in use").unwrap();
    fs::write(&file, "no-such-option 1").unwrap();
    let start = Instant::now();
    let error = server.start_again().unwrap_err();
    assert!(error.to_string().contains("Bad directive"), "{error}");
    assert!(start.elapsed() < Duration::from_secs(10));
}

/// As a killed process leaves it: the library's destructor removes the other file first.
#[test]
fn a_clock_is_wrong_whatever_a_process_of_the_same_number_has_left() {
    let ahead = clock::command(Path::new("date"), 900).unwrap();
    let leave = ": >/dev/shm/faketime_shm_$$; exec \"$0\" \"$@\"";
    let mut command = Command::new("/bin/sh");
    command.args(["-c", leave]).arg(ahead.get_program()).args(ahead.get_args()).arg("+%s");
    let output = command.output().unwrap();
    let here = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs();
    let there = String::from_utf8_lossy(&output.stdout).trim().parse::<u64>();
    assert!(there.is_ok_and(|there| there.abs_diff(here + 900) < 100), "{output:?} at {here}");
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
