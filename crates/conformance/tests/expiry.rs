//! Expiry as time passes, which the random comparison leaves out: keys go when they should, by access and by themselves, on
//! redis-server and on ours. The waits are short and the bounds wide, so that a busy machine does not fail them.

use std::time::{Duration, Instant};

use mtcache_conformance::{Client, Program, ServerOptions, TestServer, Value, ok, wait_until};

fn each_server(check: impl Fn(&TestServer, &mut Client)) {
    for program in [Program::Redis, Program::Mtcache] {
        let server = TestServer::start(program, ServerOptions::new()).unwrap();
        check(&server, &mut server.client().unwrap());
    }
}

fn integer(client: &mut Client, command: &str) -> i64 {
    let args: Vec<&str> = command.split(' ').collect();
    let reply = client.command(&args).unwrap();
    reply.integer().unwrap_or_else(|| panic!("{command}: {reply:?}"))
}

#[test]
fn a_key_is_there_until_its_time_and_never_after() {
    each_server(|server, client| {
        for set in ["SET k v PX 300", "PSETEX k 300 v", "SET k v|PEXPIRE k 300", "RPUSH k v|PEXPIRE k 300"] {
            let start = Instant::now();
            for command in set.split('|') {
                ok(client, command);
            }
            let set_by = Instant::now();
            let mut seen_alive = 0;
            loop {
                let asked = Instant::now();
                if integer(client, "EXISTS k") == 0 {
                    // A millisecond either way, because servers count in whole ones.
                    assert!(
                        start.elapsed() >= Duration::from_millis(299),
                        "{set} on {}: gone early",
                        server.program()
                    );
                    break;
                }
                seen_alive += 1;
                assert!(asked - set_by < Duration::from_millis(301), "{set} on {}: late", server.program());
            }
            assert!(seen_alive > 0);
            assert_eq!(integer(client, "TTL k"), -2);
            assert_eq!(client.command(&["TYPE", "k"]).unwrap(), Value::Simple(b"none".to_vec()));
        }
    });
}

#[test]
fn the_remaining_time_is_rounded_to_the_nearest_second() {
    each_server(|server, client| {
        for millis in [1_499, 1_600, 2_499, 2_501, 99_400, 99_600] {
            ok(client, &format!("SET k v PX {millis}"));
            let replies = client.pipeline(&[vec!["PTTL", "k"], vec!["TTL", "k"], vec!["PTTL", "k"]]).unwrap();
            let [before, seconds, after] = [0, 1, 2].map(|index: usize| replies[index].integer().unwrap());
            assert!(
                ((after + 500) / 1_000..=(before + 500) / 1_000).contains(&seconds),
                "{} ms on {}: {replies:?}",
                millis,
                server.program()
            );
        }
    });
}

#[test]
fn what_nobody_asks_for_goes_by_itself() {
    each_server(|server, client| {
        for number in 0..2_000 {
            client.send(&["SET", &format!("k{number}"), "v", "PX", "200"]).unwrap();
        }
        for _ in 0..2_000 {
            client.reply().unwrap();
        }
        ok(client, "SET stays v");
        wait_until(&format!("expiry by itself on {}", server.program()), || integer(client, "DBSIZE") == 1);
        let info = client.command(&["INFO", "stats"]).unwrap().text().unwrap();
        assert!(info.contains("expired_keys:2000\r\n"), "{} says {info}", server.program());
    });
}

#[test]
fn an_expired_key_is_absent_to_every_command() {
    each_server(|server, client| {
        for (make, ask, expected) in [
            ("SET k v", "GET k", Value::NullBulk),
            ("SET k 5", "INCR k", Value::Integer(1)),
            ("SET k v", "APPEND k w", Value::Integer(1)),
            ("SET k v", "SETNX k w", Value::Integer(1)),
            ("SET k v", "SET k w XX", Value::NullBulk),
            ("SET k v", "RENAME k l", Value::Error(b"ERR no such key".to_vec())),
            ("SET k v", "LPUSH k x", Value::Integer(1)),
            ("RPUSH k a b", "LLEN k", Value::Integer(0)),
            ("RPUSH k a b", "LPUSHX k c", Value::Integer(0)),
            ("SADD k a b", "SUNIONSTORE l k", Value::Integer(0)),
            ("ZADD k 1 a", "ZADD k 1 a", Value::Integer(1)),
            ("HSET k f v", "HSET k f v", Value::Integer(1)),
            ("SET k v", "DEL k", Value::Integer(0)),
            ("SET k v", "PERSIST k", Value::Integer(0)),
            ("SET k v", "EXPIRE k 100", Value::Integer(0)),
            ("SET k v", "OBJECT ENCODING k", Value::NullBulk),
            ("SET k v", "TOUCH k", Value::Integer(0)),
            ("SET k v", "KEYS *", Value::Array(Vec::new())),
        ] {
            ok(client, "FLUSHALL");
            ok(client, make);
            ok(client, "PEXPIRE k 1");
            std::thread::sleep(Duration::from_millis(10));
            let args: Vec<&str> = ask.split(' ').collect();
            assert_eq!(client.command(&args).unwrap(), expected, "{ask} on {}", server.program());
        }
    });
}

#[test]
fn a_watched_key_that_expires_voids_the_transaction() {
    each_server(|server, client| {
        ok(client, "SET k v PX 50");
        ok(client, "WATCH k");
        std::thread::sleep(Duration::from_millis(100));
        ok(client, "MULTI");
        ok(client, "SET k w");
        assert_eq!(client.command(&["EXEC"]).unwrap(), Value::NullArray, "{}", server.program());
        // A key that was expired already when it was watched voids nothing.
        ok(client, "SET k v PX 1");
        std::thread::sleep(Duration::from_millis(20));
        ok(client, "WATCH k");
        ok(client, "MULTI");
        ok(client, "PING");
        assert_eq!(
            client.command(&["EXEC"]).unwrap(),
            Value::Array(vec![Value::Simple(b"PONG".to_vec())]),
            "{}",
            server.program()
        );
    });
}

#[test]
fn time_stands_still_in_a_script_and_in_a_transaction() {
    each_server(|server, client| {
        ok(client, "SET k v PX 30");
        let script = "local first = redis.call('EXISTS', KEYS[1]) \
            local start = redis.call('TIME') \
            for i = 1, 300000 do local x = i * i end \
            for i = 1, 20000 do redis.call('EXISTS', 'other') end \
            return {first, redis.call('EXISTS', KEYS[1])}";
        let reply = client.command(&["EVAL", script, "1", "k"]).unwrap();
        let both = reply.elements().unwrap();
        assert_eq!(both[0], both[1], "{}: {reply:?}", server.program());
    });
}
