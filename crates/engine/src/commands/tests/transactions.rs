//! Transactions: MULTI, EXEC, WATCH and what aborts them.

use std::time::Duration;

use crate::testing::{Pair, Rig};

#[test]
fn transactions_answer_as_in_redis() {
    let mut pair = Pair::start();
    pair.same(&[
        "EXEC",
        "DISCARD",
        "MULTI",
        "MULTI",
        "SET a 1",
        "INCR a",
        "GET a",
        "EXEC",
        "MULTI",
        "SET a x",
        "INCR a",
        "GET a",
        "EXEC",
        "MULTI",
        "SET a",
        "GET a",
        "EXEC",
        "GET a",
        "MULTI",
        "NOSUCH x",
        "EXEC",
        "MULTI",
        "SET a 5",
        "DISCARD",
        "GET a",
        "WATCH a",
        "MULTI",
        "WATCH b",
        "EXEC",
        "WATCH a",
        "SET a 6",
        "MULTI",
        "GET a",
        "EXEC",
        "MULTI",
        "GET a",
        "EXEC",
        "WATCH a",
        "SET a 7",
        "UNWATCH",
        "MULTI",
        "GET a",
        "EXEC",
        "MULTI",
        "EXEC",
        "MULTI",
        "SELECT 1",
        "SET db1 1",
        "SELECT 0",
        "EXEC",
        "GET db1",
        "SELECT 1",
        "GET db1",
        "SELECT 0",
        "MULTI",
        "UNWATCH",
        "EXEC",
        "WATCH",
        "MULTI x",
        "MULTI",
        "EXEC x",
        "EXEC",
        "EXEC x",
        "MULTI",
        "RPUSH l 1 2",
        "LRANGE l 0 -1",
        "DBSIZE",
        "FLUSHALL",
        "EXEC",
        "WATCH a",
        "DISCARD",
        "MULTI",
        "DISCARD x",
        "DISCARD",
        "WATCH none",
        "MULTI",
        "GET none",
        "EXEC",
    ]);
}

/// A watching session, another one's command, and whether EXEC goes through, as Redis has it.
#[test]
fn what_voids_a_transaction_is_as_in_redis() {
    let mut pair = Pair::start();
    let (mut other, mut redis_other) = pair.others();
    let cases = [
        (&["SET a 1"][..], "SET a 1"),
        (&["SET a 1"], "GET a"),
        (&["SET a 1"], "DEL a"),
        (&[], "DEL a"),
        (&["SET a 1"], "EXPIRE a 100"),
        (&["SET a 1"], "PERSIST a"),
        (&["SET a 1 EX 100"], "PERSIST a"),
        (&["SET a 1"], "FLUSHALL"),
        (&[], "FLUSHALL"),
        (&["SET a 1"], "FLUSHDB"),
        (&["SET b 1"], "RENAME b a"),
        (&["SET a 1"], "RENAME a b"),
        (&["SET b 1"], "COPY b a"),
        (&["SET a 1"], "MOVE a 1"),
        (&["SET a 1"], "SWAPDB 0 1"),
        (&[], "SWAPDB 0 1"),
        (&["SET a 1"], "SWAPDB 1 2"),
        (&["SELECT 1", "SET a 1", "SELECT 0"], "SWAPDB 0 1"),
        (&["SET a 1"], "SWAPDB 0 0"),
        (&["SET a 1"], "TOUCH a"),
        (&["SET a 1"], "INCR a"),
        (&["SET a x"], "INCR a"),
        (&["SET a 1"], "SET a 2 NX"),
        (&["SET a 1"], "GETEX a"),
        (&["SET a 1"], "GETEX a EX 10"),
        (&["SET a 1"], "GETDEL a"),
        (&["SET a 1"], "APPEND a \"\""),
        (&["SET a 1"], "SETRANGE a 0 \"\""),
        (&["RPUSH a 1"], "LPOP a"),
        (&["RPUSH a 1"], "LREM a 0 5"),
        (&["SADD a 1"], "SADD a 1"),
        (&["HSET a f v"], "HDEL a none"),
        (&["HSET a f v"], "HSET a f v"),
        (&["ZADD a 1 x"], "ZADD a 1 x"),
        (&["SET a 1"], "SET b 1"),
        (&["SELECT 1", "SET a 1", "SELECT 0"], "MOVE a 0"),
    ];
    for (setup, command) in cases {
        pair.same(&["FLUSHALL"]);
        pair.same(setup);
        pair.same(&["WATCH a", "MULTI", "GET none"]);
        let (ours, theirs) =
            (other.run(command), redis_other.command(&crate::testing::split(command)).unwrap());
        assert_eq!(ours, format!("{theirs:?}"), "{command}");
        pair.same(&["EXEC"]);
    }
}

#[test]
fn the_expiry_of_a_watched_key_voids_the_transaction() {
    let mut rig = Rig::new();
    rig.set_up(&["SET a 1 PX 10", "WATCH a", "MULTI", "GET none"]);
    rig.advance(Duration::from_millis(10));
    rig.check(&[("EXEC", "(null array)")]);
}

#[test]
fn a_key_that_had_expired_when_it_was_watched_counts_as_absent() {
    let mut rig = Rig::new();
    let mut other = rig.another();
    rig.set_up(&["SET a 1 PX 10"]);
    rig.advance(Duration::from_millis(10));
    rig.set_up(&["WATCH a", "MULTI", "DBSIZE"]);
    other.check(&[("GET a", "(null bulk)")]);
    rig.check(&[("EXEC", "[:0]")]);
    rig.set_up(&["WATCH a", "MULTI", "DBSIZE"]);
    other.check(&[("SET a 1", "+OK")]);
    rig.check(&[("EXEC", "(null array)")]);
}

#[test]
fn a_transaction_is_journalled_as_one_group() {
    let mut rig = Rig::new();
    rig.set_up(&["MULTI", "SET a 1 EX 10", "GET a", "SELECT 2", "SET b 1", "INCRBYFLOAT b 0.5", "EXEC"]);
    let at = rig.now().0 + 10_000;
    assert_eq!(
        rig.journal(),
        [
            "MULTI".to_owned(),
            format!("SET a 1 PXAT {at}"),
            "[2] SET b 1".to_owned(),
            "[2] SET b 1.5 KEEPTTL".to_owned(),
            "[2] EXEC".to_owned()
        ]
    );
    rig.assert_replay_gives_the_same();
    rig.set_up(&["MULTI", "SET a 1", "EXEC"]);
    assert_eq!(rig.journal(), ["[2] SET a 1"], "a single write needs no group");
    rig.set_up(&["MULTI", "GET a", "EXEC"]);
    assert!(rig.journal().is_empty());
}

#[test]
fn watches_leave_nothing_behind() {
    let mut rig = Rig::new();
    for end in ["EXEC", "DISCARD"] {
        rig.set_up(&["WATCH a b c", "WATCH a", "MULTI", end]);
    }
    rig.set_up(&["WATCH a b c", "UNWATCH"]);
    let mut other = rig.another();
    other.set_up(&["WATCH a b c", "SELECT 3", "WATCH a"]);
    rig.engine.disconnect(&mut other.session);
    assert!(rig.engine.keyspace.lock_all().shards().all(|shard| shard.watched_keys().is_empty()));
}

#[test]
fn a_transaction_that_needs_memory_is_refused_when_there_is_none() {
    let mut rig = Rig::new();
    rig.set_up(&["SET k v", "MULTI", "SET a 1"]);
    let mut late = rig.another();
    late.set_up(&["MULTI"]);
    rig.engine.set_config(&[b"maxmemory-policy", b"noeviction", b"maxmemory", b"1"]).unwrap();
    let oom = "OOM command not allowed when used memory > \\'maxmemory\\'.";
    rig.check(&[
        ("EXEC", &format!("-EXECABORT Transaction discarded because of: {oom}")),
        ("EXEC", "-ERR EXEC without MULTI"),
    ]);
    late.check(&[
        ("GET k", &format!("-{oom}")),
        ("EXEC", "-EXECABORT Transaction discarded because of previous errors."),
    ]);
    rig.check(&[("SET a 1", &format!("-{oom}")), ("GET k", "\"v\""), ("DEL k", ":1")]);
}
