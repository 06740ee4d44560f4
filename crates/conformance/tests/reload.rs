//! DEBUG RELOAD and DEBUG LOADAOF beside redis-server: what is read again is what was there, and nobody sees anything else.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use mtcache_conformance::datasets::{Scores, fill, look};
use mtcache_conformance::{ServerOptions, TestServer, Value, ok, run};

fn options(journal: &str) -> ServerOptions {
    ServerOptions::new().args(["--enable-debug-command", "yes", "--appendonly", journal, "--save", ""])
}

fn both(journal: &str) -> [TestServer; 2] {
    [TestServer::mtcache(options(journal)).unwrap(), TestServer::redis(options(journal)).unwrap()]
}

#[test]
fn data_is_read_again_as_it_was() {
    for server in both("yes") {
        let mut client = server.client().unwrap();
        for seed in 1..=3 {
            ok(&mut client, "FLUSHALL");
            fill(&mut client, seed, 300, Scores::Any).unwrap();
            let digest = run(&mut client, "DEBUG DIGEST");
            let held = look(&mut client).unwrap();
            for command in ["DEBUG RELOAD", "debug loadaof", "DEBUG RELOAD NOSAVE", "DEBUG LOADAOF anything"]
            {
                ok(&mut client, command);
                assert_eq!(run(&mut client, "DEBUG DIGEST"), digest, "{command} on {}", server.program());
                let mut differences = look(&mut client).unwrap().differences(&held);
                // Loading may choose another encoding than growing did.
                differences.retain(|line| !line.contains(": encoding: "));
                assert!(differences.is_empty(), "{command} on {}: {differences:#?}", server.program());
            }
        }
    }
}

#[test]
fn its_options_and_what_transactions_see_are_those_of_redis() {
    let mut seen = Vec::new();
    for server in both("no") {
        let [mut client, mut other] = [server.client().unwrap(), server.client().unwrap()];
        let mut replies = Vec::new();
        for command in [
            "DEBUG RELOAD NOSUCH",
            "DEBUG RELOAD",
            "SET a 1",
            "DEBUG RELOAD",
            "SET b 2",
            "DEBUG RELOAD NOSAVE NOFLUSH MERGE",
            "MGET a b",
            "SET a changed",
            "debug reload nosave noflush merge",
            "MGET a b",
            "DEBUG RELOAD NOSAVE",
            "MGET a b",
            "DEBUG RELOAD MERGE",
            "DBSIZE",
            "MULTI",
            "SET c 3",
            "DEBUG RELOAD",
            "GET c",
            "EXEC",
            "WATCH a",
            "DEBUG RELOAD NOSAVE",
            "MULTI",
            "EXEC",
            "WATCH nosuch",
            "DEBUG RELOAD",
            "MULTI",
            "PING",
            "EXEC",
            "SELECT 3",
            "RPUSH list x y",
            "DEBUG RELOAD",
            "LRANGE list 0 -1",
            "SELECT 0",
            "EVAL return(redis.pcall('debug','reload').err) 0",
        ] {
            replies.push((command, run(&mut client, command)));
        }
        other.send(&["BLPOP", "waited", "0"]).unwrap();
        while !run(&mut client, "INFO clients").text().unwrap().contains("blocked_clients:1") {
            std::thread::sleep(Duration::from_millis(5));
        }
        replies.push(("reload while one waits", run(&mut client, "DEBUG RELOAD")));
        replies.push(("push", run(&mut client, "RPUSH waited element")));
        replies.push(("served", other.reply().unwrap()));
        seen.push(replies);
    }
    assert_eq!(seen[0], seen[1]);
}

#[test]
fn those_who_track_keys_are_told_that_all_are_gone() {
    let mut seen = Vec::new();
    for server in both("no") {
        let [mut client, mut tracking] = [server.client().unwrap(), server.client().unwrap()];
        ok(&mut client, "SET key value");
        for command in ["HELLO 3", "CLIENT TRACKING on", "GET key"] {
            ok(&mut tracking, command);
        }
        ok(&mut client, "DEBUG RELOAD");
        let push = tracking.next_push().unwrap();
        ok(&mut tracking, "GET key");
        ok(&mut client, "SET key other");
        seen.push((push, tracking.next_push().unwrap()));
    }
    assert_eq!(seen[0], seen[1]);
}

#[test]
fn times_to_live_last_and_what_has_expired_does_not_come_back() {
    for server in both("yes") {
        let mut client = server.client().unwrap();
        ok(&mut client, "DEBUG SET-ACTIVE-EXPIRE 0");
        ok(&mut client, "SET long v PX 10000000");
        ok(&mut client, "SET short v PX 1");
        let at = run(&mut client, "PEXPIRETIME long");
        std::thread::sleep(Duration::from_millis(20));
        for command in ["DEBUG RELOAD", "DEBUG LOADAOF"] {
            ok(&mut client, command);
            assert_eq!(run(&mut client, "PEXPIRETIME long"), at);
            assert_eq!(run(&mut client, "EXISTS short"), Value::Integer(0), "{}", server.program());
        }
    }
}

#[test]
fn nobody_sees_a_part_of_the_data_and_no_write_is_lost() {
    const KEYS: i64 = 3_000;
    let server = TestServer::mtcache(options("yes")).unwrap();
    let mut client = server.client().unwrap();
    for number in 1..KEYS {
        ok(&mut client, &format!("SET key:{number} value"));
    }
    ok(&mut client, "SET counter 0");
    let ended = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let counting = scope.spawn(|| {
            let (mut client, mut count) = (server.client().unwrap(), 0);
            while !ended.load(Ordering::Relaxed) {
                count += 1;
                assert_eq!(run(&mut client, "INCR counter"), Value::Integer(count));
            }
            count
        });
        let looking = scope.spawn(|| {
            let mut client = server.client().unwrap();
            while !ended.load(Ordering::Relaxed) {
                assert_eq!(run(&mut client, "DBSIZE"), Value::Integer(KEYS));
                assert_eq!(run(&mut client, "GET key:77").text().as_deref(), Some("value"));
            }
        });
        for command in
            ["DEBUG RELOAD", "DEBUG LOADAOF", "BGSAVE", "DEBUG RELOAD", "BGREWRITEAOF", "DEBUG LOADAOF"]
        {
            for _ in 0..4 {
                let reply = run(&mut client, command);
                let is_busy =
                    reply.error().is_some_and(|text| text.contains("in progress") || text.contains("active"));
                assert!(reply.error().is_none() || is_busy, "{command}: {reply:?}");
            }
        }
        ended.store(true, Ordering::Relaxed);
        looking.join().unwrap();
        let count = counting.join().unwrap();
        assert_eq!(run(&mut client, "GET counter").text(), Some(count.to_string()));
    });
}

#[test]
fn what_cannot_be_loaded_leaves_the_data_alone() {
    let server = TestServer::mtcache(options("no")).unwrap();
    let mut client = server.client().unwrap();
    ok(&mut client, "SET key value");
    let failure = |reply: Value| reply.error().unwrap().clone();
    let snapshot = "ERR Error trying to load the RDB dump, check server logs.";
    assert_eq!(failure(run(&mut client, "DEBUG RELOAD NOSAVE")), snapshot);
    ok(&mut client, "SAVE");
    assert_eq!(failure(run(&mut client, "DEBUG RELOAD NOSAVE NOFLUSH")), snapshot);
    let path = server.directory().join("dump.rdb");
    let mut bytes = std::fs::read(&path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&path, bytes).unwrap();
    assert_eq!(failure(run(&mut client, "DEBUG RELOAD NOSAVE")), snapshot);
    assert_eq!(
        failure(run(&mut client, "DEBUG LOADAOF")),
        "ERR the append-only file is off: there is nothing to load"
    );
    assert_eq!(run(&mut client, "GET key").text().as_deref(), Some("value"));
}

#[test]
fn a_restart_after_another_snapshot_was_loaded_finds_that_one() {
    let mut server = TestServer::mtcache(options("yes")).unwrap();
    let mut client = server.client().unwrap();
    ok(&mut client, "SET key saved");
    ok(&mut client, "SAVE");
    ok(&mut client, "SET key journalled");
    ok(&mut client, "DEBUG RELOAD NOSAVE");
    ok(&mut client, "SET later value");
    let since = Instant::now();
    while !run(&mut client, "INFO persistence").text().unwrap().contains("aof_rewrites:1\r\n")
        || run(&mut client, "INFO persistence").text().unwrap().contains("aof_rewrite_in_progress:1")
    {
        assert!(since.elapsed() < Duration::from_mins(1));
        std::thread::sleep(Duration::from_millis(10));
    }
    drop(client);
    server.kill().unwrap();
    server.start_again().unwrap();
    let mut client = server.client().unwrap();
    let held = run(&mut client, "MGET key later");
    assert_eq!(
        held.elements().unwrap().iter().map(|value| value.text()).collect::<Vec<_>>(),
        [Some("saved".to_owned()), Some("value".to_owned())]
    );
}

#[test]
fn it_is_refused_where_debug_is_not_allowed() {
    let server = TestServer::mtcache(ServerOptions::new()).unwrap();
    let mut client = server.client().unwrap();
    for command in ["DEBUG RELOAD", "DEBUG LOADAOF"] {
        let reply = run(&mut client, command);
        assert!(reply.error().unwrap().starts_with("ERR DEBUG command not allowed."), "{reply:?}");
    }
}
