//! The generic commands, alone and beside redis-server.

use std::collections::BTreeSet;
use std::time::Duration;

use mtcache_conformance::Value;

use crate::testing::{Pair, Rig};

#[test]
fn generic_commands_answer_as_redis_does() {
    let mut pair = Pair::start();
    pair.same(&[
        "MSET a 1 b 2 c 3",
        "EXISTS a a b none",
        "DEL a none a",
        "UNLINK b b",
        "TOUCH c c none",
        "TYPE c",
        "TYPE none",
        "RPUSH l 1",
        "HSET h f v",
        "SADD s 1 x",
        "ZADD z 1 a",
        "TYPE l",
        "TYPE h",
        "TYPE s",
        "TYPE z",
        "DEL",
        "EXISTS",
        "RENAME none x",
        "RENAME none none",
        "RENAMENX none x",
        "RENAME c c",
        "RENAMENX c c",
        "RENAME c d",
        "GET d",
        "SET c 1 EX 100",
        "RENAME c d",
        "GET d",
        "TTL d",
        "SET e 5",
        "RENAMENX d e",
        "RENAMENX d f",
        "TTL f",
        "RENAME l f",
        "TYPE f",
        "TTL f",
        "RENAME f",
        "DBSIZE",
        "RENAME z \"\"",
        "TYPE \"\"",
        "RENAME \"\" z",
        "ZCARD z",
        "SET z plain",
        "GET z",
        "TYPE z",
        "MSET l x h y",
        "MGET l h s",
    ]);
}

#[test]
fn databases_answer_as_redis_does() {
    let mut pair = Pair::start();
    pair.same(&[
        "SELECT 16",
        "SELECT -1",
        "SELECT x",
        "SELECT 99999999999",
        "SELECT",
        "SET a 0 EX 1000",
        "SELECT 1",
        "GET a",
        "SET a one",
        "SET b one",
        "DBSIZE",
        "SELECT 0",
        "MOVE a 1",
        "MOVE none 1",
        "MOVE a 0",
        "MOVE a 16",
        "MOVE a x",
        "MOVE a 99999999999",
        "MOVE a 2",
        "EXISTS a",
        "SELECT 2",
        "GET a",
        "TTL a",
        "SELECT 0",
        "SWAPDB 0 1",
        "GET a",
        "GET b",
        "SWAPDB 0 16",
        "SWAPDB x 1",
        "SWAPDB 0 x",
        "SWAPDB 0 99999999999",
        "SWAPDB 0 0",
        "COPY a a",
        "COPY a c",
        "COPY a c",
        "COPY a c REPLACE",
        "COPY none c",
        "COPY none c REPLACE",
        "COPY a a DB 3",
        "COPY a a DB 3",
        "COPY a a DB 3 REPLACE",
        "COPY a x DB 16",
        "COPY a x DB x",
        "COPY a x DB",
        "COPY a x BAD",
        "COPY a x DB -1",
        "COPY a x DB 99999999999",
        "SELECT 3",
        "GET a",
        "DBSIZE",
        "FLUSHDB x",
        "FLUSHDB ASYNC SYNC",
        "FLUSHDB async",
        "DBSIZE",
        "SELECT 0",
        "DBSIZE",
        "FLUSHALL x",
        "FLUSHALL SYNC",
        "DBSIZE",
        "SELECT 2",
        "DBSIZE",
    ]);
    pair.same(&[
        "SELECT 0",
        "SET k v EX 1000",
        "COPY k k2",
        "TTL k2",
        "HSET h a 1 b 2",
        "COPY h h2",
        "HGETALL h2",
    ]);
    pair.same(&[
        "RPUSH l a b",
        "COPY l h2 REPLACE",
        "LRANGE h2 0 -1",
        "RPUSH l c",
        "LRANGE h2 0 -1",
        "TYPE h2",
    ]);
}

#[test]
fn expiry_conditions_answer_as_redis_does() {
    let mut pair = Pair::start();
    let options = ["NX", "xx", "GT", "lt", "BAD"];
    let mut selections = vec![String::new()];
    for a in options {
        selections.push(a.to_owned());
        selections.extend(options.iter().map(|b| format!("{a} {b}")));
    }
    for options in &selections {
        for (command, near, far) in [
            ("EXPIRE", "500", "90000"),
            ("PEXPIRE", "500000", "90000000"),
            ("EXPIREAT", "33177117420", "33177118420"),
            ("PEXPIREAT", "33177117420000", "33177118420000"),
        ] {
            for value in [near, far, "-1", "x"] {
                for setup in ["SET k v", "SET k v EX 1000", "SET k v PXAT 33177117420000", "DEL k"] {
                    // Two servers are asked one after the other: what is left of a relative time may only be asked
                    // roughly, and an absolute one as it is.
                    let check = if setup.contains("EX 1000") || command.len() < 8 {
                        "EXPIRE k 2000000 GT"
                    } else {
                        "PEXPIRETIME k"
                    };
                    pair.same(&[setup, &format!("{command} k {value} {options}"), check, "EXISTS k"]);
                }
            }
        }
    }
    pair.same(&[
        "SET k v",
        "TTL k",
        "PTTL k",
        "EXPIRETIME k",
        "PEXPIRETIME k",
        "TTL none",
        "PTTL none",
        "EXPIRETIME none",
        "PEXPIRETIME none",
        "PERSIST none",
        "PERSIST k",
        "EXPIREAT k 33177117420",
        "EXPIRETIME k",
        "PEXPIRETIME k",
        "PEXPIREAT k 33177117420499",
        "EXPIRETIME k",
        "PEXPIREAT k 33177117420500",
        "EXPIRETIME k",
        "PERSIST k",
        "TTL k",
        "EXPIRE k 100 NX GT",
        "EXPIRE k",
        "TTL",
        "RPUSH l x",
        "EXPIRE l 100",
        "TTL l",
        "RPUSH l y",
        "TTL l",
        "PERSIST l",
    ]);
}

#[test]
fn object_answers_as_redis_does() {
    let mut pair = Pair::start();
    pair.same(&[
        "OBJECT HELP",
        "OBJECT",
        "OBJECT BAD x",
        "OBJECT ENCODING",
        "OBJECT ENCODING none",
        "OBJECT REFCOUNT none",
        "OBJECT IDLETIME none",
        "OBJECT FREQ none",
        "SET k 1",
        "OBJECT FREQ k",
        "OBJECT IDLETIME k",
        "OBJECT REFCOUNT k",
        "SET k x",
        "OBJECT REFCOUNT k",
        "RPUSH l 1",
        "OBJECT ENCODING l",
        "OBJECT REFCOUNT l",
        "HSET h f v",
        "OBJECT ENCODING h",
        "SADD i 1 2",
        "OBJECT ENCODING i",
        "SADD i x",
        "OBJECT ENCODING i",
        "ZADD z 1 a",
        "OBJECT ENCODING z",
        "OBJECT FREQ l",
        "OBJECT ENCODING k x",
        "OBJECT HELP x",
    ]);
}

#[test]
fn keys_and_scan_find_the_same_keys_as_redis() {
    let mut pair = Pair::start();
    for i in 0..200 {
        pair.same(&[&format!("SET key:{i} {i}"), &format!("RPUSH list:{i} {i}")]);
    }
    pair.same(&["SET \"\" empty", "SET h[e]llo 1", "SET hello 1", "SET hallo 1"]);
    for pattern in [
        "*",
        "**",
        "key:1*",
        "h[ae]llo",
        "h\\\\[e\\\\]llo",
        "?ey:??",
        "none",
        "[^k]*",
        "",
        "*:*9",
        "[",
        "h[e",
    ] {
        pair.same_set(&[&format!("KEYS \"{pattern}\"")]);
        for count in ["1", "10", "1000"] {
            for extra in ["", "TYPE string", "type LIST", "TYPE none"] {
                let (ours, theirs) =
                    full_scan(&mut pair, &format!("COUNT {count} MATCH \"{pattern}\" {extra}"));
                assert_eq!(ours, theirs, "{pattern} {count} {extra}");
            }
        }
    }
    pair.same(&[
        "SCAN",
        "SCAN x",
        "SCAN 0 COUNT 0",
        "SCAN 0 COUNT -1",
        "SCAN 0 COUNT x",
        "SCAN 0 COUNT",
        "SCAN 0 BAD 1",
        "SCAN 0 MATCH",
        "SCAN \" 0\"",
        "SCAN 18446744073709551616",
        "KEYS",
        "SCAN 0 TYPE",
        "SCAN 0 MATCH a COUNT",
    ]);
    pair.same(&["FLUSHALL", "SCAN 0", "KEYS *", "RANDOMKEY", "SET only 1", "RANDOMKEY"]);
}

fn full_scan(pair: &mut Pair, options: &str) -> (BTreeSet<Vec<u8>>, BTreeSet<Vec<u8>>) {
    let mut ours = (b"0".to_vec(), BTreeSet::new());
    let mut theirs = ours.clone();
    for (side, is_ours) in [(&mut ours, true), (&mut theirs, false)] {
        loop {
            let line = format!("SCAN {} {options}", String::from_utf8_lossy(&side.0));
            let replies = pair.run(&crate::testing::split(&line));
            let Value::Array(reply) = (if is_ours { replies.0 } else { replies.1 }) else { panic!("{line}") };
            side.0 = reply[0].bytes().unwrap().to_vec();
            let keys = reply[1].elements().unwrap();
            side.1.extend(keys.into_iter().map(|key| key.bytes().unwrap().to_vec()));
            if side.0 == b"0" {
                break;
            }
        }
    }
    (ours.1, theirs.1)
}

#[test]
fn walks_do_not_show_expired_keys() {
    let mut rig = Rig::new();
    for i in 0..100 {
        rig.run(&format!("SET k{i} v PX {}", if i == 7 { 1000 } else { 10 }));
    }
    rig.advance(Duration::from_millis(10));
    rig.check(&[("KEYS *", "[\"k7\"]"), ("DBSIZE", ":100"), ("RANDOMKEY", "\"k7\"")]);
    rig.check(&[("SCAN 0 COUNT 1000", "[\"0\", [\"k7\"]]"), ("DBSIZE", ":1")]);
    rig.assert_replay_gives_the_same();
}

#[test]
fn reads_count_hits_and_misses_and_looks_are_no_use() {
    let mut rig = Rig::new();
    rig.set_up(&["SET k v"]);
    rig.advance(Duration::from_secs(10));
    rig.check(&[
        ("OBJECT IDLETIME k", ":10"),
        ("TTL k", ":-1"),
        ("TYPE k", "+string"),
        ("EXISTS k", ":1"),
        ("OBJECT IDLETIME k", ":10"),
        ("GET k", "\"v\""),
        ("OBJECT IDLETIME k", ":0"),
    ]);
    rig.advance(Duration::from_secs(10));
    rig.check(&[("TOUCH k", ":1"), ("OBJECT IDLETIME k", ":0")]);
}

#[test]
fn moves_between_names_and_databases_survive_a_replay() {
    let mut rig = Rig::new();
    rig.set_up(&[
        "SET a 1 EX 100",
        "RENAME a b",
        "COPY b c",
        "COPY b c DB 2",
        "MOVE c 3",
        "SELECT 3",
        "SET x 1",
        "SWAPDB 3 4",
        "SELECT 2",
        "RENAMENX c d",
        "SELECT 0",
        "RPUSH l 1 2 3",
        "RENAME l m",
        "MOVE m 5",
        "SET gone 1",
        "SELECT 4",
        "FLUSHDB",
    ]);
    rig.assert_replay_gives_the_same();
    assert_eq!(rig.state().len(), 4, "{:?}", rig.state());
}

#[test]
fn a_copy_begins_its_own_record_of_uses() {
    let mut pair = Pair::start();
    pair.same(&["CONFIG SET maxmemory-policy allkeys-lfu", "SET f 1", "RPUSH l a", "SET replaced x"]);
    for _ in 0..200 {
        pair.same(&["GET f", "LLEN l", "GET replaced"]);
    }
    assert_ne!(pair.rig.run("OBJECT FREQ f"), ":5");
    pair.same(&[
        "COPY f g",
        "OBJECT FREQ g",
        "COPY l m",
        "OBJECT FREQ m",
        "COPY f replaced REPLACE",
        "OBJECT FREQ replaced",
    ]);
}
