//! Clients that wait: who is served, when, with what, and what the journal hears of it.

use std::time::Duration;

use crate::blocking::Parked;
use crate::session::Session;
use crate::testing::{Rig, plain};

fn run(rig: &mut Rig, command: &str) -> String {
    plain(&rig.run(command))
}

fn rigs<const N: usize>() -> [Rig; N] {
    let first = Rig::new();
    std::array::from_fn(|_| first.another())
}

#[test]
fn what_is_there_is_taken_at_once_and_from_the_first_key_that_has_any() {
    let mut rig = Rig::new();
    rig.set_up(&["RPUSH l 1 2 3 4 5 6 7", "ZADD z 1 a 2 b 3 c 4 d"]);
    for (command, reply) in [
        ("BLPOP none l 0", "[l, 1]"),
        ("BRPOP l none 0", "[l, 7]"),
        ("BLMOVE l d LEFT RIGHT 0", "2"),
        ("BRPOPLPUSH l d 0", "6"),
        ("BLMPOP 0 2 none l LEFT COUNT 2", "[l, [3, 4]]"),
        ("BZPOPMIN none z 0", "[z, a, 1]"),
        ("BZPOPMAX z 0", "[z, d, 4]"),
        ("BZMPOP 0 1 z MIN COUNT 9", "[z, [[b, 2], [c, 3]]]"),
        ("LRANGE d 0 -1", "[6, 2]"),
    ] {
        assert_eq!(run(&mut rig, command), reply, "{command}");
    }
    assert_eq!(
        rig.journal()[2..9],
        ["LPOP l", "RPOP l", "LMOVE l d left right", "RPOPLPUSH l d", "LPOP l 2", "ZPOPMIN z", "ZPOPMAX z",]
    );
    rig.assert_replay_gives_the_same();
}

#[test]
fn the_one_that_has_waited_longest_is_served_first() {
    let [mut first, mut second, mut third, mut giver] = rigs();
    first.wait("BLPOP l 0");
    second.wait("BRPOP other l 0");
    third.wait("BLPOP l 0");
    assert_eq!(run(&mut giver, "RPUSH l a b"), "2");
    assert_eq!(first.resumed().unwrap(), "[l, a]");
    assert_eq!(second.resumed().unwrap(), "[l, b]");
    assert_eq!(third.resumed(), None);
    assert_eq!(run(&mut giver, "EXISTS l"), "0");
    assert_eq!(giver.journal(), ["RPUSH l a b", "LPOP l", "RPOP l"]);
    // Who was served waits for nothing else any more.
    assert_eq!(run(&mut giver, "RPUSH other x"), "1");
    assert_eq!(run(&mut giver, "LLEN other"), "1");
}

#[test]
fn a_wait_ends_with_its_time() {
    let [mut waiter, mut giver] = rigs();
    for command in ["BLPOP l 1.5", "BLMOVE l d LEFT LEFT 1.5", "BRPOPLPUSH l d 1.5", "BZMPOP 1.5 1 z MIN"] {
        waiter.wait(command);
        waiter.advance(Duration::from_millis(1499));
        assert_eq!(waiter.resumed(), None, "{command}");
        waiter.advance(Duration::from_millis(1));
        assert_eq!(waiter.raw_resumed(), b"*-1\r\n", "{command}");
    }
    assert_eq!(run(&mut giver, "RPUSH l a"), "1");
    assert_eq!(run(&mut giver, "LLEN l"), "1");
}

#[test]
fn timeouts_are_seconds_with_a_fraction() {
    let mut rig = Rig::new();
    for (text, error) in [
        ("abc", "-ERR timeout is not a float or out of range"),
        ("1.5s", "-ERR timeout is not a float or out of range"),
        ("nan", "-ERR timeout is not a float or out of range"),
        ("-1", "-ERR timeout is negative"),
        ("inf", "-ERR timeout is negative"),
        ("1e20", "-ERR timeout is negative"),
        ("9223372036854775807", "-ERR timeout is negative"),
    ] {
        rig.check(&[(&format!("BLPOP l {text}"), error), (&format!("BLMPOP {text} 1 l LEFT"), error)]);
    }
    for endless in ["0", "-0.0001", "0x0"] {
        let mut waiter = rig.another();
        waiter.wait(&format!("BLPOP l {endless}"));
        waiter.advance(Duration::from_secs(1_000_000));
        assert_eq!(waiter.resumed(), None);
    }
}

#[test]
fn nothing_waits_inside_a_transaction_or_where_nobody_could_be_told() {
    let mut rig = Rig::new();
    rig.set_up(&["MULTI", "BLPOP l 0", "BLMOVE l d LEFT LEFT 0", "BZMPOP 0 1 z MIN"]);
    assert_eq!(rig.raw("EXEC"), b"*3\r\n*-1\r\n$-1\r\n*-1\r\n");
    let script =
        "return {redis.call('BLMPOP','0','1','l','LEFT'), redis.call('BZMPOP','0','1','z','MIN'), 1}";
    assert_eq!(
        plain(&format!("{:?}", rig.run_args(&["EVAL", script, "0"]))),
        "[(null bulk), (null bulk), 1]"
    );
    assert_eq!(rig.session.parked(), Parked::No);
    rig.session.never_wait();
    assert_eq!(rig.raw("BLPOP l 0"), b"*-1\r\n");
}

#[test]
fn a_transaction_is_whole_before_anybody_is_served() {
    let [mut waiter, mut giver] = rigs();
    waiter.wait("BLPOP l 0");
    giver.set_up(&["MULTI", "RPUSH l a", "LPUSH l b", "LLEN l"]);
    assert_eq!(run(&mut giver, "EXEC"), "[1, 2, 2]");
    assert_eq!(waiter.resumed().unwrap(), "[l, b]");
    assert_eq!(giver.journal(), ["MULTI", "RPUSH l a", "LPUSH l b", "EXEC", "LPOP l"]);
    waiter.wait("BLPOP gone 0");
    giver.set_up(&["MULTI", "RPUSH gone a", "DEL gone", "EXEC"]);
    assert_eq!(waiter.resumed(), None);
}

#[test]
fn a_script_is_whole_before_anybody_is_served() {
    let [mut waiter, mut giver] = rigs();
    waiter.wait("BZPOPMIN z 0");
    let script = "redis.call('ZADD','z',5,'a') redis.call('ZADD','z',1,'b') return redis.call('ZCARD','z')";
    assert_eq!(plain(&format!("{:?}", giver.run_args(&["EVAL", script, "0"]))), "2");
    assert_eq!(waiter.resumed().unwrap(), "[z, b, 1]");
}

#[test]
fn moves_wake_those_who_wait_for_where_they_go() {
    // Many keys, so that some lie in shards that the giver has not locked.
    for number in 0..40 {
        let [mut first, mut second, mut third, mut giver] = rigs();
        first.wait(&format!("BLMOVE a{number} b{number} LEFT RIGHT 0"));
        second.wait(&format!("BRPOPLPUSH b{number} c{number} 0"));
        third.wait(&format!("BLPOP c{number} 0"));
        assert_eq!(run(&mut giver, &format!("RPUSH a{number} x")), "1");
        assert_eq!(first.resumed().unwrap(), "x");
        assert_eq!(second.resumed().unwrap(), "x");
        assert_eq!(third.resumed().unwrap(), format!("[c{number}, x]"));
        assert_eq!(
            giver.journal(),
            [
                format!("RPUSH a{number} x"),
                format!("LMOVE a{number} b{number} left right"),
                format!("RPOPLPUSH b{number} c{number}"),
                format!("LPOP c{number}"),
            ]
        );
        assert_eq!(run(&mut giver, "DBSIZE"), "0");
    }
}

#[test]
fn a_move_to_another_type_fails_and_the_next_is_served() {
    let [mut first, mut second, mut giver] = rigs();
    first.wait("BLMOVE l s LEFT LEFT 0");
    second.wait("BLPOP l 0");
    giver.set_up(&["SET s x", "RPUSH l a"]);
    assert!(first.resumed().unwrap().starts_with("-WRONGTYPE"));
    assert_eq!(second.resumed().unwrap(), "[l, a]");
}

#[test]
fn each_is_served_by_the_type_it_wants() {
    let [mut sorted, mut list, mut giver] = rigs();
    sorted.wait("BZPOPMIN k 0");
    list.wait("BLPOP k 0");
    giver.set_up(&["SET k x"]);
    assert_eq!((sorted.resumed(), list.resumed()), (None, None));
    giver.set_up(&["DEL k", "RPUSH k a"]);
    assert_eq!(list.resumed().unwrap(), "[k, a]");
    assert_eq!(sorted.resumed(), None);
    giver.set_up(&["ZADD k 1 m"]);
    assert_eq!(sorted.resumed().unwrap(), "[k, m, 1]");
    giver.set_up(&["SET k x"]);
    assert!(run(&mut list, "BLPOP none k 0").starts_with("-WRONGTYPE"));
}

#[test]
fn whatever_brings_a_key_wakes() {
    for commands in [
        &["RPUSH src a", "RENAME src k"][..],
        &["RPUSH src a", "RENAMENX src k"],
        &["RPUSH src a", "COPY src k"],
        &["RPUSH src a", "LMOVE src k LEFT LEFT"],
        &["SELECT 1", "RPUSH k a", "MOVE k 0", "SELECT 0"],
        &["SELECT 1", "RPUSH k a", "SWAPDB 0 1"],
        &["SELECT 1", "RPUSH src a", "COPY src k DB 0"],
    ] {
        let [mut waiter, mut giver] = rigs();
        waiter.wait("BLPOP k 0");
        giver.set_up(commands);
        assert_eq!(waiter.resumed().as_deref(), Some("[k, a]"), "{commands:?}");
    }
}

#[test]
fn a_client_that_leaves_loses_nothing_for_the_others() {
    let [mut leaving, mut staying, mut giver] = rigs();
    leaving.wait("BLPOP l 0");
    staying.wait("BLPOP l 0");
    giver.engine.disconnect(&mut leaving.session);
    giver.set_up(&["RPUSH l a"]);
    assert_eq!(staying.resumed().unwrap(), "[l, a]");
}

#[test]
fn a_wait_can_be_ended_from_outside() {
    let [mut waiter, mut other] = rigs();
    let id = run(&mut waiter, "CLIENT ID");
    let shown = |rig: &mut Rig| run(rig, "INFO clients").contains("blocked_clients1");
    assert_eq!(run(&mut other, &format!("CLIENT UNBLOCK {id}")), "0");
    waiter.wait("BLPOP l 0");
    assert!(shown(&mut other));
    assert!(run(&mut other, &format!("CLIENT LIST ID {id}")).contains(" flags=b "));
    assert_eq!(run(&mut other, &format!("CLIENT UNBLOCK {id}")), "1");
    assert_eq!(run(&mut other, &format!("CLIENT UNBLOCK {id}")), "0");
    assert!(!shown(&mut other));
    assert_eq!(waiter.raw_resumed(), b"*-1\r\n");
    waiter.wait("BLPOP l 0");
    assert_eq!(run(&mut other, &format!("CLIENT UNBLOCK {id} ERROR")), "1");
    assert_eq!(waiter.resumed().unwrap(), "-UNBLOCKED client unblocked via CLIENT UNBLOCK");
}

#[test]
fn events_come_in_redis_order() {
    let [mut first, mut second, mut giver] = rigs();
    let (mut listener, inbox) = giver.listening();
    giver.set_up(&["CONFIG SET notify-keyspace-events EA"]);
    listener.run("PSUBSCRIBE __key*");
    inbox.take();
    first.wait("BLMOVE k d LEFT RIGHT 0");
    second.wait("BLPOP d 0");
    giver.set_up(&["RPUSH k e"]);
    let events: Vec<String> = inbox
        .take()
        .iter()
        .map(|event| event.rsplit_once("__:").unwrap().1.trim_end_matches(']').replace('"', ""))
        .collect();
    assert_eq!(events, ["rpush, k", "rpush, d", "lpop, k", "del, k", "lpop, d", "del, d"]);
}

#[test]
fn a_pause_holds_writes_or_everything_until_it_ends() {
    let [mut client, mut admin] = rigs();
    admin.check(&[
        ("CLIENT PAUSE abc", "-ERR timeout is not an integer or out of range"),
        ("CLIENT PAUSE -1", "-ERR timeout is negative"),
        ("CLIENT PAUSE 5 SOME", "-ERR CLIENT PAUSE mode must be WRITE or ALL"),
        ("CLIENT PAUSE 1000 WRITE", "+OK"),
        ("CLIENT PAUSE 10 WRITE", "+OK"),
    ]);
    client.check(&[("GET k", "(null bulk)"), ("PING", "+PONG")]);
    for held in ["SET k v", "PUBLISH c m", "EVAL 'return 1' 0"] {
        client.wait(held);
        client.session = fresh(&client);
    }
    client.set_up(&["MULTI"]);
    client.wait("SET k v");
    admin.advance(Duration::from_millis(999));
    assert!(!client.goes_on());
    admin.advance(Duration::from_millis(1));
    assert!(client.goes_on());
    client.check(&[("SET k v", "+QUEUED")]);
    admin.check(&[("CLIENT PAUSE 1000 WRITE", "+OK")]);
    client.wait("EXEC");
    admin.check(&[("CLIENT UNPAUSE", "+OK")]);
    assert!(client.goes_on());
    client.check(&[("EXEC", "[+OK]")]);
    admin.check(&[("CLIENT PAUSE 1000", "+OK")]);
    client.wait("PING");
}

fn fresh(rig: &Rig) -> Session {
    rig.another().session
}
