//! SORT against redis-server: what it sorts by, what it answers with, what it stores, what it refuses.

use crate::testing::{Pair, Rig};

#[test]
fn sort_answers_as_in_redis() {
    let mut pair = Pair::start();
    pair.same(&[
        "RPUSH l 3 1 2 10 -5 1.5",
        "SORT l",
        "SORT l DESC",
        "SORT l ALPHA",
        "SORT l ALPHA DESC",
        "SORT l LIMIT 1 2",
        "SORT l LIMIT -3 2",
        "SORT l LIMIT 100 2",
        "SORT l LIMIT 2 -1",
        "SORT l LIMIT 0 0",
        "SORT l LIMIT a 1",
        "SORT l LIMIT 1",
        "SORT l NONSENSE",
        "SORT_RO l DESC",
        "SORT_RO l STORE d",
        "SORT none",
        "SORT none STORE d",
        "SET s x",
        "SORT s",
        "RPUSH w b a c",
        "SORT w",
        "SORT w ALPHA",
        "RPUSH e '' 1 ' 2' 0x10 inf -inf",
        "SORT e",
        "MSET w_1 30 w_2 20 w_3 10 d_1 one d_3 three",
        "HSET h_1 f 1 g x",
        "HSET h_2 f 3",
        "HSET h_3 f 2 g ''",
        "RPUSH k 1 2 3",
        "SORT k BY w_*",
        "SORT k BY w_* GET # GET d_* GET h_*->g GET none_*",
        "SORT k BY h_*->f DESC GET h_*->f",
        "SORT k BY h_*-> GET nostar",
        "SORT k BY nosort",
        "SORT k BY nosort DESC LIMIT 1 1",
        "SORT k BY none_*",
        "SORT k BY d_* ALPHA",
        "SORT k BY d_*",
        "SORT k BY w_* GET d_* STORE out",
        "LRANGE out 0 -1",
        "TYPE out",
        "SORT k STORE out LIMIT 5 5",
        "EXISTS out",
        "SADD set 5 3 9 1",
        "SORT set",
        "SORT set BY nosort STORE out",
        "LRANGE out 0 -1",
        "ZADD z 3 1 2 2 1 3",
        "SORT z BY nosort",
        "SORT z BY nosort DESC LIMIT 0 2",
        "SORT z",
        "OBJECT ENCODING z",
        "SORT z STORE z",
        "TYPE z",
        "MULTI",
        "SORT k BY w_* STORE out",
        "EXEC",
        "EVAL \"return redis.call('SORT', 'set', 'BY', 'nosort')\" 0",
        // Last, for in Redis an overflow makes later numbers fail too.
        "RPUSH big 1e400 1",
        "SORT big",
    ]);
}

#[test]
fn what_is_stored_is_journalled_and_wakes_who_waits() {
    let mut rig = Rig::new();
    let mut waiter = rig.another();
    waiter.wait("BLPOP out 0");
    rig.set_up(&["RPUSH k 2 1 3", "SORT k DESC STORE out"]);
    assert_eq!(waiter.resumed().unwrap(), "[out, 3]");
    assert_eq!(rig.journal(), ["RPUSH k 2 1 3", "SORT k DESC STORE out", "LPOP out"]);
    rig.assert_replay_gives_the_same();
}

#[test]
fn who_may_not_read_every_key_may_not_name_keys_by_what_is_stored() {
    let mut rig = Rig::new();
    rig.set_up(&["ACL SETUSER some on nopass ~k* +@all", "ACL SETUSER reader on nopass %R~* ~k +@all"]);
    rig.set_up(&["RPUSH k 1", "SET w_1 secret", "AUTH some x"]);
    rig.check(&[
        ("SORT k BY w_*", "-ERR BY option of SORT denied due to insufficient ACL permissions"),
        ("SORT k GET w_*", "-ERR GET option of SORT denied due to insufficient ACL permissions"),
        ("SORT k GET #", "-ERR GET option of SORT denied due to insufficient ACL permissions"),
        ("SORT k BY nosort", "[\"1\"]"),
    ]);
    rig.set_up(&["AUTH reader x"]);
    rig.check(&[("SORT k GET w_*", "[\"secret\"]")]);
}
