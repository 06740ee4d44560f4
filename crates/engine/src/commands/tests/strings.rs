//! The string commands, alone and beside redis-server.

use std::time::Duration;

use crate::testing::{Pair, Rig};

/// Every selection of up to three of the options, in every order.
fn selections(options: &[&str]) -> Vec<String> {
    let mut all = vec![String::new()];
    for a in options {
        all.push((*a).to_owned());
        for b in options {
            all.push(format!("{a} {b}"));
            for c in options {
                all.push(format!("{a} {b} {c}"));
            }
        }
    }
    all
}

#[test]
fn set_answers_as_redis_does_for_every_selection_of_options() {
    let mut pair = Pair::start();
    let options =
        ["NX", "xx", "GET", "KEEPTTL", "EX 100", "px 100000", "EXAT 33177117420", "PXAT 1", "PERSIST", "EX"];
    for options in selections(&options) {
        for setup in ["DEL k", "SET k old", "SET k old PXAT 33177117420000", "RPUSH l x"] {
            let key = if setup.starts_with("RPUSH") { "l" } else { "k" };
            pair.same(&[
                setup,
                &format!("SET {key} v {options}"),
                &format!("TYPE {key}"),
                &format!("GET {key}"),
                &format!("EXPIRETIME {key}"),
                "DEL k l",
            ]);
        }
    }
}

#[test]
fn getex_answers_as_redis_does_for_every_selection_of_options() {
    let mut pair = Pair::start();
    let options = [
        "PERSIST",
        "EX 100",
        "px 100000",
        "EXAT 33177117420",
        "PXAT 1",
        "EX 0",
        "PX -1",
        "KEEPTTL",
        "NX",
        "EXAT",
    ];
    for options in selections(&options) {
        for setup in ["DEL k", "SET k old", "SET k old PXAT 33177117421000"] {
            pair.same(&[setup, &format!("GETEX k {options}"), "GET k", "EXPIRETIME k"]);
        }
    }
    pair.same(&["RPUSH l x", "GETEX l", "GETEX l EX 0", "GETEX l BAD"]);
}

#[test]
fn expiries_out_of_range_are_refused_in_redis_words() {
    let mut pair = Pair::start();
    let values = [
        "0",
        "-1",
        "1",
        "a",
        "",
        "1.5",
        " 1",
        "+1",
        "01",
        "9223372036854775807",
        "9223372036854775",
        "9223372036854776",
        "-9223372036854775808",
        "-9223372036854776",
        "9223370000000000",
        "9999999999999999999",
    ];
    for value in values {
        for option in ["EX", "PX", "EXAT", "PXAT"] {
            pair.same_args(&["SET", "k", "v", option, value]);
            pair.same_args(&["SET", "k", "v"]);
            pair.same_args(&["GETEX", "k", option, value]);
        }
        for command in ["EXPIRE", "PEXPIRE", "EXPIREAT", "PEXPIREAT"] {
            pair.same_args(&["SET", "k", "v"]);
            pair.same_args(&[command, "k", value]);
            // A key with a millisecond left is there or is not, on either side.
            if (command, value) != ("PEXPIRE", "1") {
                pair.same_args(&["EXISTS", "k"]);
            }
            pair.same_args(&[command, "none", value]);
        }
        for command in ["SETEX", "PSETEX"] {
            pair.same_args(&[command, "k", value, "v"]);
        }
    }
}

#[test]
fn the_rest_of_the_family_answers_as_redis_does() {
    let mut pair = Pair::start();
    pair.same(&[
        "SETNX a 1",
        "SETNX a 2",
        "GET a",
        "SETEX a 100 x",
        "TTL a",
        "PSETEX a 100000 y",
        "TTL a",
        "SETEX a 0 x",
        "GETSET a z",
        "TTL a",
        "GETSET none z",
        "GETDEL none",
        "GETDEL none",
        "GET none",
        "RPUSH l 1",
        "GETDEL l",
        "GETSET l 1",
        "SETNX l 1",
        "GET l",
        "MGET a l none a",
        "MSET",
        "MSET a",
        "MSET a 1 b",
        "MSET a 1 b 2",
        "MGET a b",
        "MSETNX a 1",
        "MSETNX c",
        "MSETNX c 3 a 1",
        "GET c",
        "MSETNX c 3 d 4 c 5",
        "MGET c d",
        "MSET a 1 a 2",
        "GET a",
        "STRLEN a",
        "STRLEN none",
        "STRLEN l",
        "SET",
        "SET a",
        "GET",
        "GET a b",
        "APPEND x abc",
        "APPEND x def",
        "GET x",
        "APPEND x \"\"",
        "OBJECT ENCODING x",
        "APPEND new \"\"",
        "EXISTS new",
        "APPEND l x",
        "SUBSTR x 1 2",
        "APPEND num 12",
        "OBJECT ENCODING num",
        "APPEND num 3",
        "OBJECT ENCODING num",
        "INCR num",
        "OBJECT ENCODING num",
    ]);
}

#[test]
fn ranges_answer_as_redis_does() {
    let mut pair = Pair::start();
    pair.same(&["SET k abcdef", "RPUSH l x", "SET e \"\""]);
    let indices = [
        "0",
        "1",
        "5",
        "6",
        "100",
        "-1",
        "-6",
        "-7",
        "-100",
        "9223372036854775807",
        "-9223372036854775808",
        "x",
        "",
    ];
    for start in indices {
        for end in indices {
            for key in ["k", "none", "l", "e"] {
                pair.same_args(&["GETRANGE", key, start, end]);
            }
        }
    }
    pair.same(&[
        "SETRANGE k 2 XY",
        "GET k",
        "SETRANGE k 8 Z",
        "GET k",
        "SETRANGE k 0 \"\"",
        "SETRANGE none 5 \"\"",
        "EXISTS none",
        "SETRANGE none 3 abc",
        "GET none",
        "SETRANGE none -1 a",
        "SETRANGE none x a",
        "SETRANGE k 536870912 a",
        "SETRANGE k 536870911 ab",
        "SETRANGE k 9223372036854775807 a",
        "SETRANGE other 536870912 a",
        "EXISTS other",
        "SETRANGE l 0 a",
        "SETRANGE l 0 \"\"",
        "SETRANGE l -1 a",
        "SET i 12345",
        "SETRANGE i 1 9",
        "GET i",
        "OBJECT ENCODING i",
        "OBJECT ENCODING none",
    ]);
}

#[test]
fn integer_arithmetic_answers_as_redis_does() {
    let mut pair = Pair::start();
    let values = [
        "0",
        "1",
        "-1",
        "9223372036854775807",
        "-9223372036854775808",
        "9223372036854775806",
        "9223372036854775808",
        "a",
        "",
        "1.0",
        " 1",
        "1 ",
        "+1",
        "-0",
        "007",
        "1e3",
    ];
    for old in values {
        for by in values {
            pair.same_args(&["SET", "k", old]);
            pair.same_args(&["OBJECT", "ENCODING", "k"]);
            pair.same_args(&["INCRBY", "k", by]);
            pair.same_args(&["DECRBY", "k", by]);
            pair.same_args(&["GET", "k"]);
        }
        pair.same_args(&["SET", "k", old]);
        pair.same(&["INCR k", "DECR k", "DECR k", "GET k"]);
    }
    pair.same(&[
        "DEL k",
        "INCR k",
        "DECRBY k 5",
        "GET k",
        "EXPIRE k 100",
        "INCR k",
        "TTL k",
        "RPUSH l x",
        "INCR l",
        "DECRBY l 1",
        "INCRBY none -9223372036854775808",
        "DECRBY none2 -9223372036854775808",
        "INCRBY k",
        "INCR k 1",
    ]);
}

#[test]
fn float_arithmetic_has_redis_digits() {
    let mut pair = Pair::start();
    let values = [
        "0",
        "-0",
        "1",
        "0.1",
        "0.2",
        "-0.3",
        "1e5",
        "1E-5",
        "3.0e3",
        "1e-17",
        "1e-18",
        "5e-18",
        "4.9e-18",
        "1e-4950",
        "1e-5000",
        "1e17",
        "1e20",
        "123456789012345678901234567890",
        "1e300",
        "1.7e308",
        "1e4932",
        "1.2e4932",
        "-1e4932",
        "1e5000",
        "inf",
        "-inf",
        "+inf",
        "infinity",
        "nan",
        "-nan",
        "nan(1)",
        "0x10",
        "0x1p-3",
        "0x.8",
        "0x",
        "0x1p",
        "-0xAp1",
        "",
        " 1",
        "1 ",
        "abc",
        "1a",
        ".5",
        "5.",
        ".",
        "+1.5",
        "--1",
        "1e",
        "1e+",
        "1e+2",
        "9223372036854775807",
        "18446744073709551615",
        "18446744073709551616",
        "0.99999999999999999",
        "0.999999999999999999",
        "2.5e-17",
        "3.14159265358979323846",
        "100.10",
        "1,5",
    ];
    for old in values {
        pair.same_args(&["DEL", "k"]);
        pair.same_args(&["INCRBYFLOAT", "k", old]);
        for by in values {
            pair.same_args(&["SET", "k", old]);
            pair.same_args(&["INCRBYFLOAT", "k", by]);
            pair.same_args(&["HSET", "h", "f", old]);
            pair.same_args(&["HINCRBYFLOAT", "h", "f", by]);
        }
        pair.same(&["GET k", "OBJECT ENCODING k"]);
    }
    let nul = "1\0";
    pair.same_args(&["INCRBYFLOAT", "k", nul]);
    pair.same_args(&["INCRBYFLOAT", "k", &"1".repeat(5119)]);
    pair.same_args(&["INCRBYFLOAT", "k", &"1".repeat(5120)]);
    pair.same_args(&["INCRBYFLOAT", "k", &format!("0.{}1", "0".repeat(4900))]);
    pair.same_args(&["SET", "k", &format!("{}1", "0".repeat(5117))]);
    pair.same(&["INCRBYFLOAT k 1", "RPUSH l x", "INCRBYFLOAT l 1", "INCRBYFLOAT l x", "SET k 1 EX 100"]);
    pair.same(&["INCRBYFLOAT k 1", "TTL k", "OBJECT ENCODING k", "INCR k", "OBJECT ENCODING k"]);
}

#[test]
fn random_float_sums_have_redis_digits() {
    let mut pair = Pair::start();
    let mut state = 88_172_645_463_325_252_u64;
    let mut next = move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    for _ in 0..5000 {
        let mut number = || {
            let digits = next() >> (next() % 63);
            let sign = if next() % 2 == 0 { "-" } else { "" };
            match next() % 4 {
                0 => format!("{sign}{digits}"),
                1 => format!("{sign}{digits}e{}", next() as i64 % 40),
                2 => format!("{sign}{}.{digits}", next() % 1000),
                _ => format!("{sign}0.{digits}"),
            }
        };
        let (old, by) = (number(), number());
        pair.same_args(&["SET", "k", &old]);
        pair.same_args(&["INCRBYFLOAT", "k", &by]);
    }
}

#[test]
fn lcs_answers_as_redis_does() {
    let mut pair = Pair::start();
    let words = [
        "",
        "a",
        "ohmytext",
        "mynewtext",
        "abcbdab",
        "bdcaba",
        "aaaa",
        "xaxaxa",
        "ABABABABA",
        "BABAB",
        "\"q w\"",
    ];
    let options =
        ["", "LEN", "IDX", "IDX WITHMATCHLEN", "IDX MINMATCHLEN 2 withmatchlen", "WITHMATCHLEN", "IDX LEN"];
    for a in words {
        for b in words {
            pair.same(&[&format!("MSET a {0} b {1}", quoted(a), quoted(b))]);
            for options in options {
                pair.same(&[&format!("LCS a b {options}")]);
            }
        }
    }
    pair.same(&[
        "LCS a none",
        "LCS none none2 IDX",
        "RPUSH l x",
        "LCS a l",
        "LCS l a BAD",
        "LCS a b BAD",
        "LCS a b MINMATCHLEN",
        "LCS a b MINMATCHLEN x",
        "LCS a b IDX MINMATCHLEN -5",
        "LCS a",
        "SETRANGE big1 11600 x",
        "SETRANGE big2 11600 x",
        "LCS big1 big2 LEN",
    ]);
}

fn quoted(word: &str) -> String {
    if word.is_empty() { "\"\"".to_owned() } else { word.to_owned() }
}

#[test]
fn encodings_are_named_as_in_redis() {
    let mut pair = Pair::start();
    let long = "x".repeat(44);
    for value in
        ["1", "-1", "01", "9223372036854775807", "9223372036854775808", "-0", "", &long, &format!("{long}x")]
    {
        pair.same_args(&["SET", "k", value]);
        pair.same(&["OBJECT ENCODING k", "OBJECT REFCOUNT k", "COPY k c REPLACE", "OBJECT ENCODING c"]);
        pair.same_args(&["GETSET", "k", value]);
        pair.same(&[
            "OBJECT ENCODING k",
            "APPEND k y",
            "OBJECT ENCODING k",
            "COPY k c REPLACE",
            "OBJECT ENCODING c",
        ]);
    }
    pair.same(&[
        "SET k 9999",
        "OBJECT REFCOUNT k",
        "SET k 10000",
        "OBJECT REFCOUNT k",
        "INCRBY k 0",
        "OBJECT ENCODING k",
    ]);
}

#[test]
fn writes_are_journalled_by_their_effect() {
    let mut rig = Rig::new();
    let now = rig.now().0;
    let cases = [
        ("SET k v", "SET k v".to_owned()),
        ("SET k v EX 10", format!("SET k v PXAT {}", now + 10_000)),
        ("SET k v PX 10 XX GET", format!("SET k v PXAT {}", now + 10)),
        ("SET k v KEEPTTL GET", "SET k v KEEPTTL".to_owned()),
        ("SETEX k 10 v", format!("SET k v PXAT {}", now + 10_000)),
        ("PSETEX k 10 v", format!("SET k v PXAT {}", now + 10)),
        ("GETSET k w", "SET k w".to_owned()),
        ("GETEX k EX 5", format!("PEXPIREAT k {}", now + 5000)),
        ("GETEX k PERSIST", "PERSIST k".to_owned()),
        ("EXPIRE k 5", format!("PEXPIREAT k {}", now + 5000)),
        ("PEXPIRE k 5 XX", format!("PEXPIREAT k {}", now + 5)),
        ("EXPIREAT k 4000000000", "PEXPIREAT k 4000000000000".to_owned()),
        ("PERSIST k", "PERSIST k".to_owned()),
        ("EXPIRE k -1", "DEL k".to_owned()),
        ("MSET a 1 b 2", "MSET a 1 b 2".to_owned()),
        ("GETEX a PXAT 1", "DEL a".to_owned()),
        ("GETDEL b", "DEL b".to_owned()),
        ("INCR n", "INCR n".to_owned()),
        ("INCRBYFLOAT n 0.5", "SET n 1.5 KEEPTTL".to_owned()),
        ("APPEND n x", "APPEND n x".to_owned()),
        ("UNLINK n none", "UNLINK n none".to_owned()),
        ("FLUSHALL", "FLUSHALL".to_owned()),
    ];
    for (command, journalled) in cases {
        assert_eq!(rig.journalled(command), [journalled], "{command}");
    }
    for command in
        ["GET k", "SET k v XX", "GETDEL k", "DEL k", "PERSIST k", "EXPIRE k 1", "GETEX k EX 1", "MGET a b"]
    {
        assert!(rig.journalled(command).is_empty(), "{command} changes nothing");
    }
    rig.assert_replay_gives_the_same();
}

#[test]
fn an_expired_key_is_deleted_in_the_journal_before_it_is_used() {
    let mut rig = Rig::new();
    rig.set_up(&["SET k v PX 10", "SET n 5 PX 10", "SET m 5 PX 10"]);
    rig.advance(Duration::from_millis(10));
    rig.journal();
    rig.check(&[("GET k", "(null bulk)"), ("INCR n", ":1"), ("SETNX m 1", ":1")]);
    assert_eq!(
        rig.journal(),
        ["DEL k", "MULTI", "DEL n", "INCR n", "EXEC", "MULTI", "DEL m", "SETNX m 1", "EXEC"]
    );
    rig.assert_replay_gives_the_same();
}

#[test]
fn a_replay_keeps_what_has_expired_in_the_meantime() {
    let mut rig = Rig::new();
    rig.set_up(&["SET a 1 PX 10", "SET b 1", "PEXPIRE b 10", "INCR a", "GETEX b PX 500"]);
    rig.advance(Duration::from_millis(20));
    rig.assert_replay_gives_the_same();
}
