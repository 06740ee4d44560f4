//! DUMP and RESTORE beside redis-server: each takes what the other gives.

use std::time::Duration;

use mtcache_conformance::Value;

use crate::testing::{Pair, Rig};

/// Values of every type on both sides of each threshold.
fn fill() -> Vec<Vec<String>> {
    let words = |line: String| line.split(' ').map(str::to_owned).collect::<Vec<_>>();
    let mut commands: Vec<Vec<String>> = [
        "SET empty ",
        "SET int 12345",
        "SET wide 9223372036854775807",
        "SET negative -128",
        "SET zeros 007",
        "SET short abc",
        "APPEND grown abc",
        "HSET h f v n 17 minus -4097",
        "SADD ints 1 -2 300",
        "SADD wideints 1 70000 5000000000",
        "SADD words a b 17",
        "ZADD z 1 a 2.5 b -inf c inf d 1e300 e 0.1 f -0.1 g 17 17",
        "RPUSH l a 1 -5 300 70000 5000000000 -9223372036854775808",
    ]
    .map(|line| words(line.to_owned()))
    .to_vec();
    for size in [21, 64, 65, 5000, 70_000] {
        let value: String = (0..size).map(|n| char::from(b'a' + (n * n % 23) as u8)).collect();
        commands.push(vec!["SET".into(), format!("s{size}"), value.clone()]);
        commands.push(vec!["SET".into(), format!("same{size}"), "x".repeat(size)]);
        commands.push(vec![
            "HSET".into(),
            format!("h{size}"),
            "f".into(),
            value.clone(),
            value.clone(),
            "f".into(),
        ]);
        commands.push(vec![
            "ZADD".into(),
            format!("z{size}"),
            "1".into(),
            value.clone(),
            "2".into(),
            "b".into(),
        ]);
        commands.push(vec![
            "RPUSH".into(),
            format!("l{size}"),
            value.clone(),
            "b".into(),
            value.clone(),
            value,
        ]);
    }
    for count in [127, 128, 129, 511, 512, 513, 3000] {
        let numbers: Vec<String> = (0..count).map(|n| (n * 37).to_string()).collect();
        let add = |name: &str, key: &str| {
            [vec![name.to_owned(), format!("{key}{count}")], numbers.clone()].concat()
        };
        commands.push(add("SADD", "si"));
        commands.push(add("RPUSH", "li"));
        let pairs = |name: &str, key: &str| {
            let pairs = numbers.iter().flat_map(|n| [n.clone(), format!("{n}{n}")]);
            [name.to_owned(), format!("{key}{count}")].into_iter().chain(pairs).collect::<Vec<_>>()
        };
        commands.push(pairs("HSET", "hi"));
        commands.push(pairs("ZADD", "zi"));
    }
    commands
}

#[test]
fn what_either_side_dumps_the_other_restores_with_the_same_encoding() {
    let mut pair = Pair::start();
    for compression in ["yes", "no"] {
        pair.same(&["FLUSHALL", &format!("CONFIG SET rdbcompression {compression}")]);
        let commands = fill();
        for command in &commands {
            pair.same_args(command);
        }
        for command in &commands {
            let key = &command[1];
            let (ours, theirs) = pair.run(&["DUMP", key]);
            let (ours, theirs) = (ours.bytes().unwrap().to_vec(), theirs.bytes().unwrap().to_vec());
            pair.same_args(&["DEL", key]);
            // Each gets what the other made.
            let (restored_here, _) = pair.run(&[b"RESTORE", key.as_bytes(), b"0", &theirs]);
            assert_eq!(restored_here, Value::Simple(b"OK".to_vec()), "{key}");
            pair.same_args(&["OBJECT", "ENCODING", key]);
            pair.same_args(&["TYPE", key]);
            let (_, there) = pair.run(&[&b"RESTORE"[..], key.as_bytes(), b"0", &ours, b"REPLACE"]);
            assert_eq!(there, Value::Simple(b"OK".to_vec()), "{key}");
            pair.same_args(&["OBJECT", "ENCODING", key]);
        }
        for command in &commands {
            let key = command[1].as_str();
            match command[0].as_str() {
                "HSET" => {
                    let (ours, theirs) = pair.run(&["HGETALL", key]);
                    assert_eq!(pairs(&ours), pairs(&theirs), "{key}");
                }
                "SADD" => pair.same_set(&[&format!("SMEMBERS {key}")]),
                "ZADD" => drop(pair.same_args(&["ZRANGE", key, "0", "-1", "WITHSCORES"])),
                "RPUSH" => drop(pair.same_args(&["LRANGE", key, "0", "-1"])),
                _ => drop(pair.same_args(&["GET", key])),
            }
        }
    }
}

fn pairs(reply: &Value) -> Vec<Vec<Value>> {
    let elements: Vec<Value> = reply.elements().unwrap().into_iter().cloned().collect();
    let mut pairs: Vec<_> = elements.chunks(2).map(<[Value]>::to_vec).collect();
    pairs.sort();
    pairs
}

#[test]
fn restore_refuses_and_answers_as_redis_does() {
    let mut pair = Pair::start();
    pair.same(&["SET k value", "DUMP none"]);
    let (_, payload) = pair.run(&["DUMP", "k"]);
    let payload = payload.bytes().unwrap().to_vec();
    let mut broken = payload.clone();
    broken[2] ^= 1;
    let mut other_version = payload.clone();
    let at = other_version.len() - 10;
    other_version[at] = 99;
    let mut run = |words: &[&str], payload: &[u8]| {
        let args: Vec<&[u8]> =
            words.iter().map(|word| if *word == "P" { payload } else { word.as_bytes() }).collect();
        pair.same_args(&args);
    };
    for payload in [&payload[..], &broken, &other_version, b"", b"short", &[0; 30]] {
        for line in [
            "RESTORE k 0 P",
            "RESTORE new 0 P",
            "RESTORE new2 -1 P",
            "RESTORE new2 x P",
            "RESTORE k 0 P REPLACE",
            "RESTORE k 100000 P REPLACE",
            "RESTORE k 1 P REPLACE ABSTTL",
            "EXISTS k",
            "RESTORE k 99999999999999 P ABSTTL",
            "PEXPIRETIME k",
            "RESTORE k 0 P REPLACE IDLETIME 1000",
            "OBJECT IDLETIME k",
            "RESTORE k 0 P REPLACE IDLETIME -1",
            "RESTORE k 0 P REPLACE IDLETIME x",
            "RESTORE k 0 P REPLACE FREQ 256",
            "RESTORE k 0 P REPLACE FREQ -1",
            "RESTORE k 0 P REPLACE FREQ 9",
            "RESTORE k 0 P REPLACE FREQ 9 IDLETIME 7",
            "RESTORE k 0 P REPLACE IDLETIME 7 FREQ 9",
            "RESTORE k 0 P REPLACE IDLETIME",
            "RESTORE k 0 P BOGUS",
            "RESTORE k 0",
            "GET k",
            "DEL new k",
        ] {
            run(&line.split(' ').collect::<Vec<_>>(), payload);
        }
        pair_set(&mut run);
    }
    pair.same(&["CONFIG SET maxmemory-policy allkeys-lfu"]);
    pair.same_args(&[b"RESTORE", &b"f"[..], b"0", &payload, b"FREQ", b"77"]);
    pair.same(&["OBJECT FREQ f"]);
}

fn pair_set(run: &mut impl FnMut(&[&str], &[u8])) {
    run(&["SET", "k", "value"], b"");
}

#[test]
fn restore_goes_to_the_journal_with_the_moment_of_its_expiry() {
    let mut rig = Rig::new();
    rig.set_up(&["SET k v"]);
    let payload = rig.run_args(&["DUMP", "k"]).bytes().unwrap().to_vec();
    let at = (rig.now().0 + 5000).to_string();
    rig.run_args(&[b"RESTORE", &b"a"[..], b"0", &payload]);
    rig.run_args(&[b"RESTORE", &b"b"[..], b"5000", &payload]);
    let lines = rig.journal();
    assert!(lines.iter().any(|line| line.starts_with("RESTORE a 0 ")), "{lines:?}");
    assert!(
        lines.iter().any(|line| line.starts_with(&format!("RESTORE b {at} ")) && line.ends_with(" ABSTTL")),
        "{lines:?}"
    );
    rig.run_args(&[b"RESTORE", &b"a"[..], b"1", &payload, b"REPLACE", b"ABSTTL"]);
    assert!(rig.journal().iter().any(|line| line == "DEL a"));
    rig.assert_replay_gives_the_same();
    rig.advance(Duration::from_secs(6));
    assert_eq!(rig.run("EXISTS a b"), ":0");
}
