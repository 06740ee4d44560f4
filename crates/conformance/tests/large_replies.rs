//! Replies that `client-output-buffer-limit` does not allow: they take no more memory than it does, and end their connection, on our
//! server as on redis-server.

use mtcache_conformance::{Client, ServerOptions, TestServer, ok, run};

/// Keys of `SIZE` bytes: 60 MB, fifteen times the limit.
const KEYS: usize = 600;
const SIZE: usize = 100_000;
/// What the server may take for all of it: the limit of one connection, twice that while a buffer grows, and some waste.
const ROOM: u64 = 32 << 20;

fn options() -> ServerOptions {
    ServerOptions::new().args([
        "--maxmemory",
        "0",
        "--enable-debug-command",
        "yes",
        "--client-output-buffer-limit",
        "normal 4mb 0 0",
    ])
}

/// The most memory that the process has had resident.
fn peak(server: &TestServer) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", server.pid().unwrap())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().strip_suffix(" kB").unwrap().parse::<u64>().unwrap() * 1024
}

fn fill(client: &mut Client) {
    ok(client, &format!("DEBUG POPULATE {KEYS} k {SIZE}"));
    let element = "x".repeat(SIZE);
    for number in 0..KEYS {
        ok(client, &format!("RPUSH numbers {number}"));
        ok(client, &format!("HSET h f{number} {element}"));
    }
    for number in 0..1000 {
        ok(client, &format!("SADD s {number:0>100}"));
        ok(client, &format!("ZADD z {number} {number:0>100}"));
    }
}

fn check(server: &TestServer) {
    let mut admin = server.client().unwrap();
    fill(&mut admin);
    let keys = (0..KEYS).map(|number| format!("k:{number}")).collect::<Vec<_>>().join(" ");
    let mget = format!("MGET {keys}");
    let before = peak(server);
    for lines in [
        vec!["SRANDMEMBER s -5000000"],
        vec!["ZRANDMEMBER z -5000000 WITHSCORES"],
        vec!["HRANDFIELD h -100000 WITHVALUES"],
        vec!["HVALS h"],
        vec!["HGETALL h"],
        vec!["SORT numbers BY nosort GET k:*"],
        vec![&*mget],
        vec!["MULTI", &*mget, "SRANDMEMBER s -5000000", "HGETALL h", "SET in-transaction 1", "EXEC"],
    ] {
        let mut client = server.client().unwrap();
        for line in &lines {
            client.send(&line.split(' ').collect::<Vec<_>>()).unwrap();
        }
        // What came of it, if anything did, or a reset.
        let received = client.read_to_close().map_or(0, |bytes| bytes.len() as u64);
        assert!(received < ROOM, "{lines:?}: {received} bytes");
        let taken = peak(server) - before;
        assert!(taken < ROOM, "{lines:?}: {taken} bytes");
    }
    assert_eq!(run(&mut admin, "GET in-transaction").text().unwrap(), "1");
    assert!(server.log().contains("overcoming of output buffer limits"), "{}", server.log());
}

#[test]
fn they_take_no_more_than_the_limit_of_our_server() {
    check(&TestServer::mtcache(options()).unwrap());
}

#[test]
fn they_take_no_more_than_the_limit_of_redis() {
    check(&TestServer::redis(options()).unwrap());
}
