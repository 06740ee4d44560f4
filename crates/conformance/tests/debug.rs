//! DEBUG beside redis-server: the same data has the same signature, and what both know is answered alike, byte for byte.

use std::time::Duration;

use mtcache_conformance::datasets::{Scores, fill};
use mtcache_conformance::{Client, ServerOptions, TestServer, Value};

fn options() -> ServerOptions {
    ServerOptions::new().args(["--enable-debug-command", "yes"])
}

fn both() -> [TestServer; 2] {
    [TestServer::mtcache(options()).unwrap(), TestServer::redis(options()).unwrap()]
}

/// The bytes that a command is answered with. ECHO says where they end.
fn bytes(client: &mut Client, args: &[&str]) -> String {
    client.send(args).unwrap();
    client.send(&["ECHO", "the end"]).unwrap();
    let mut answer = Vec::new();
    while !answer.ends_with(b"$7\r\nthe end\r\n") {
        answer.extend(client.read_available(Duration::from_secs(20)).unwrap().unwrap());
    }
    answer.escape_ascii().to_string()
}

#[test]
fn the_same_data_has_the_same_signature() {
    let servers = both();
    let [mut ours, mut theirs] = [&servers[0], &servers[1]].map(|server| server.client().unwrap());
    let empty = Value::Simple("0".repeat(40).into_bytes());
    for seed in 1..=20 {
        let mut seen = Vec::new();
        for client in [&mut ours, &mut theirs] {
            client.command(&["FLUSHALL"]).unwrap();
            assert_eq!(client.command(&["DEBUG", "DIGEST"]).unwrap(), empty);
            fill(client, seed, 200, Scores::Any).unwrap();
            let digest = client.command(&["DEBUG", "DIGEST"]).unwrap();
            assert_ne!(digest, empty);
            let keys = client.command(&["KEYS", "*"]).unwrap();
            let mut keys: Vec<Vec<u8>> =
                keys.elements().unwrap().into_iter().map(|key| key.bytes().unwrap().to_vec()).collect();
            keys.sort();
            keys.push(b"not there".to_vec());
            let mut ask = vec![b"DEBUG".to_vec(), b"DIGEST-VALUE".to_vec()];
            ask.extend(keys);
            seen.push((digest, client.command(&ask).unwrap()));
        }
        assert_eq!(seen[0], seen[1], "seed {seed}");
    }
}

#[test]
fn one_changed_byte_changes_the_signature() {
    let server = TestServer::mtcache(options()).unwrap();
    let mut client = server.client().unwrap();
    let mut seen = std::collections::HashSet::new();
    for command in
        ["SET k v", "SET k w", "SET l w", "EXPIRE l 100000", "MOVE l 3", "RPUSH l a b", "LSET l 0 c"]
    {
        let args: Vec<&str> = command.split(' ').collect();
        assert!(client.command(&args).unwrap().error().is_none(), "{command}");
        assert!(seen.insert(client.command(&["DEBUG", "DIGEST"]).unwrap().text()), "{command}");
    }
}

#[test]
fn what_both_know_is_answered_alike() {
    let servers = both();
    for version in ["2", "3"] {
        let [mut ours, mut theirs] = [&servers[0], &servers[1]].map(|server| server.client().unwrap());
        for client in [&mut ours, &mut theirs] {
            client.command(&["HELLO", version]).unwrap();
        }
        let kinds =
            "string integer double bignum null array set map attrib push verbatim true false nosuch STRING";
        let mut commands: Vec<String> =
            kinds.split(' ').map(|kind| format!("DEBUG PROTOCOL {kind}")).collect();
        commands.extend(
            [
                "DEBUG NOSUCH",
                "DEBUG SLEEP",
                "DEBUG SLEEP x",
                "DEBUG SLEEP nan",
                "DEBUG SLEEP -1",
                "DEBUG sleep 0 0",
                "DEBUG ERROR hello",
                "DEBUG ERROR WRONGTYPE\nno",
                "DEBUG OBJECT nosuch",
                "DEBUG OBJECT",
                "DEBUG DIGEST x",
                "DEBUG DIGEST-VALUE nosuch",
                "DEBUG PROTOCOL",
                "DEBUG SET-ACTIVE-EXPIRE",
                "DEBUG SET-ACTIVE-EXPIRE x",
                "DEBUG SET-ACTIVE-EXPIRE 0",
                "DEBUG SET-ACTIVE-EXPIRE 1",
                "DEBUG QUICKLIST-PACKED-THRESHOLD 100b",
                "DEBUG QUICKLIST-PACKED-THRESHOLD 5gb",
                "DEBUG QUICKLIST-PACKED-THRESHOLD x",
                "DEBUG QUICKLIST-PACKED-THRESHOLD 0",
                "DEBUG LOG",
                "DEBUG LOG hello",
                "DEBUG LEAK",
                "DEBUG LEAK x",
                "DEBUG REPLICATE x",
                "DEBUG DROP-CLUSTER-PACKET-FILTER 1",
                "DEBUG CHANGE-REPL-ID",
                "DEBUG CHANGE-REPL-ID x",
                "DEBUG REPLYBUFFER PEAK-RESET-TIME never",
                "DEBUG REPLYBUFFER PEAK-RESET-TIME RESET",
                "DEBUG REPLYBUFFER peak-reset-time 100",
                "DEBUG REPLYBUFFER PEAK-RESET-TIME x",
                "DEBUG REPLYBUFFER RESIZING 1",
                "DEBUG REPLYBUFFER x",
                "DEBUG REPLYBUFFER x y",
                "DEBUG STRINGMATCH-TEST",
                "DEBUG STRINGMATCH-TEST x",
                "DEBUG POPULATE",
                "DEBUG POPULATE x",
                "DEBUG POPULATE -1",
                "DEBUG POPULATE 9223372036854775808",
                "DEBUG POPULATE 1 p -1",
                "DEBUG POPULATE 1 p x",
                "DEBUG POPULATE 1 p 2 3",
                "DEBUG POPULATE 0",
                "DEBUG OBJECT nosuch fast",
            ]
            .map(str::to_owned),
        );
        for command in commands {
            let args: Vec<&str> = command.split(' ').collect();
            assert_eq!(bytes(&mut ours, &args), bytes(&mut theirs, &args), "{command} by RESP{version}");
        }
    }
}

#[test]
fn an_object_is_described_in_the_words_of_redis() {
    let servers = both();
    let mut shown = Vec::new();
    for server in &servers {
        let mut client = server.client().unwrap();
        let mut lines = Vec::new();
        for (key, command) in [
            ("int", "SET int 12345"),
            ("short", "SET short abc"),
            ("long", "SET long 0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"),
            ("set", "SADD set 1 2 3"),
            ("hash", "HSET hash field value"),
            ("zset", "ZADD zset 1.5 a 2 b"),
            ("list", "RPUSH list a b 100 70000"),
        ] {
            let args: Vec<&str> = command.split(' ').collect();
            client.command(&args).unwrap();
            let line = client.command(&["DEBUG", "OBJECT", key]).unwrap().text().unwrap();
            // Where it lies and when it was made are each server's own.
            let kept = |word: &&str| !word.starts_with("at:") && !word.starts_with("lru:");
            let words: Vec<String> = line.split(' ').filter(kept).map(str::to_owned).collect();
            assert!(line.starts_with("Value at:0x"), "{line}");
            lines.push((key, words.join(" ")));
        }
        shown.push(lines);
    }
    assert_eq!(shown[0], shown[1]);
}

#[test]
fn without_active_expiry_keys_wait_for_who_asks() {
    for server in both() {
        let mut client = server.client().unwrap();
        client.command(&["DEBUG", "SET-ACTIVE-EXPIRE", "0"]).unwrap();
        for number in 0..50 {
            client.command(&["SET", &format!("k{number}"), "v", "PX", "1"]).unwrap();
        }
        // Several times as long as an expiry cycle needs.
        std::thread::sleep(Duration::from_millis(600));
        assert_eq!(client.command(&["DBSIZE"]).unwrap(), Value::Integer(50), "{}", server.program());
        assert_eq!(client.command(&["EXISTS", "k0"]).unwrap(), Value::Integer(0));
        client.command(&["DEBUG", "SET-ACTIVE-EXPIRE", "1"]).unwrap();
        while client.command(&["DBSIZE"]).unwrap() != Value::Integer(0) {
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

#[test]
fn a_list_shows_the_listpacks_that_redis_keeps_it_in() {
    let servers = both();
    let [mut ours, mut theirs] = [&servers[0], &servers[1]].map(|server| server.client().unwrap());
    let mut shown = [Vec::new(), Vec::new()];
    for (client, shown) in [&mut ours, &mut theirs].into_iter().zip(&mut shown) {
        for size in ["-1", "-2", "-5", "1", "7", "1000"] {
            client.command(&["CONFIG", "SET", "list-max-listpack-size", size]).unwrap();
            for length in [1_usize, 10, 60, 64, 100, 1000, 4000, 9000] {
                client.command(&["DEL", "l"]).unwrap();
                for number in 0..40 {
                    let element = format!("{number}{}", "x".repeat(length));
                    client.command(&["RPUSH", "l", &element]).unwrap();
                }
                let line = client.command(&["DEBUG", "OBJECT", "l"]).unwrap().text().unwrap();
                let words = line.split(' ').filter(|word| word.starts_with("ql_"));
                shown.push(format!("{size} {length}: {}", words.collect::<Vec<_>>().join(" ")));
            }
        }
    }
    assert_eq!(shown[0], shown[1]);
    assert!(shown[0].iter().any(|line| line.contains("ql_nodes:40")), "{shown:#?}");
}

#[test]
fn strings_are_made_as_redis_makes_them() {
    let servers = both();
    let mut seen = Vec::new();
    for server in &servers {
        let mut client = server.client().unwrap();
        for line in
            ["SET key:1 there", "DEBUG POPULATE 3", "DEBUG POPULATE 12 some 4", "DEBUG POPULATE 2 long 40"]
        {
            let args: Vec<&str> = line.split(' ').collect();
            assert!(client.command(&args).unwrap().error().is_none(), "{line}");
        }
        let name = "n".repeat(200);
        client.command(&["DEBUG", "POPULATE", "2", &name]).unwrap();
        client.command(&["SELECT", "2"]).unwrap();
        client.command(&["DEBUG", "POPULATE", "1"]).unwrap();
        let size = client.command(&["DBSIZE"]).unwrap();
        client.command(&["SELECT", "0"]).unwrap();
        let values = client.command(&["MGET", "key:0", "key:1", "key:2", "some:11", "long:1"]).unwrap();
        let digest = client.command(&["DEBUG", "DIGEST"]).unwrap();
        seen.push((size, values, digest, client.command(&["DBSIZE"]).unwrap()));
    }
    assert_eq!(seen[0], seen[1]);
    assert_eq!(seen[0].3, Value::Integer(3 + 12 + 2 + 1));
}

#[test]
fn what_was_made_is_there_after_a_restart() {
    let mut server =
        TestServer::mtcache(options().args(["--appendonly", "yes", "--appendfsync", "always"])).unwrap();
    server.client().unwrap().command(&["DEBUG", "POPULATE", "1000"]).unwrap();
    server.kill().unwrap();
    server.restart().unwrap();
    assert_eq!(server.client().unwrap().command(&["DBSIZE"]).unwrap(), Value::Integer(1000));
}
