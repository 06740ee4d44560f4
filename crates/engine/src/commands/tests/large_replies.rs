//! Replies that would be larger than they may be: their commands stop, fail and end the session, and nothing else is lost.

use mtcache_protocol::{Reply, Version};

use crate::testing::{Pair, Rig, split};

const CEILING: usize = 10_000;
const REFUSED: &str = "-ERR the reply is larger than client-output-buffer-limit allows\r\n";

/// A rig with a collection of each type, of 1000 elements of a hundred bytes.
fn filled() -> Rig {
    let mut rig = Rig::new();
    for number in 0..1000 {
        let element = format!("{number:0>100}");
        rig.set_up(&[
            &format!("RPUSH l {element}"),
            &format!("SADD s {element}"),
            &format!("HSET h {element} {element}"),
            &format!("ZADD z {number} {element}"),
            &format!("SET {element} {element}"),
        ]);
    }
    rig
}

fn ask(rig: &mut Rig, line: &str, version: Version) -> String {
    let args = split(line);
    let args: Vec<&[u8]> = args.iter().map(Vec::as_slice).collect();
    let mut out = Reply::new(version);
    out.set_ceiling(CEILING);
    rig.engine.dispatch(&mut rig.session, &args, rig.engine.now(), &mut out);
    let reply = String::from_utf8_lossy(out.as_bytes()).into_owned();
    assert!(out.buffer_mut().capacity() < 2 * CEILING, "{line}: memory is kept");
    reply
}

#[test]
fn whatever_asks_for_too_much_is_refused_and_ended() {
    let rig = filled();
    let keys = (0..1000).map(|number| format!("{number:0>100}")).collect::<Vec<_>>().join(" ");
    let lines = [
        "SRANDMEMBER s -4611686018427387904",
        "HRANDFIELD h -4611686018427387903",
        "HRANDFIELD h -4611686018427387903 WITHVALUES",
        "ZRANDMEMBER z -4611686018427387903",
        "ZRANDMEMBER z -4611686018427387903 WITHSCORES",
        "SRANDMEMBER s 1000",
        "LRANGE l 0 -1",
        "SMEMBERS s",
        "SINTER s s",
        "SUNION s s",
        "SDIFF s nosuch",
        "HGETALL h",
        "HKEYS h",
        "HVALS h",
        "ZRANGE z 0 -1",
        "ZREVRANGE z 0 -1 WITHSCORES",
        "ZRANGEBYSCORE z -inf +inf",
        "ZUNION 2 z z",
        "KEYS *",
        "SCAN 0 COUNT 100000",
        "SSCAN s 0 COUNT 100000",
        "HSCAN h 0 COUNT 100000",
        "ZSCAN z 0 COUNT 100000",
        "SORT l",
        "SORT l BY nosort GET *",
        "LPOP l 1000",
        "SPOP s 1000",
        "ZPOPMIN z 1000",
        "EVAL \"return redis.call('keys', '*')\" 0",
        "EVAL \"return string.rep('x', 20000)\" 0",
    ];
    let many = [format!("MGET {keys}"), format!("HMGET h {keys}")];
    for line in lines.into_iter().chain(many.iter().map(String::as_str)) {
        for version in [Version::Resp2, Version::Resp3] {
            let mut session = rig.another();
            session.session.set_version(version);
            // What is taken out by the commands that do is put back.
            let reply = ask(&mut session, line, version);
            if !["LPOP", "SPOP", "ZPOP"].iter().any(|name| line.starts_with(name))
                || version == Version::Resp2
            {
                assert_eq!(reply, REFUSED, "{line}");
                assert!(session.session.wants_close(), "{line}");
            }
        }
    }
}

#[test]
fn what_is_within_is_answered_whole() {
    let mut rig = filled();
    let reply = ask(&mut rig, "LRANGE l 0 89", Version::Resp2);
    assert!(reply.starts_with("*90\r\n") && reply.len() < CEILING, "{reply}");
    assert!(!rig.session.wants_close());
}

#[test]
fn replies_before_it_in_the_same_batch_stay() {
    let mut rig = filled();
    let mut out = Reply::new(Version::Resp2);
    out.set_ceiling(CEILING);
    for line in ["SET k v", "HGETALL h"] {
        let args = split(line);
        let args: Vec<&[u8]> = args.iter().map(Vec::as_slice).collect();
        rig.engine.dispatch(&mut rig.session, &args, rig.engine.now(), &mut out);
    }
    assert_eq!(String::from_utf8_lossy(out.as_bytes()), format!("+OK\r\n{REFUSED}"));
}

#[test]
fn a_transaction_runs_whole_and_is_refused_its_reply() {
    let mut rig = filled();
    rig.set_up(&["MULTI", "SET before 1", "LRANGE l 0 -1", "SMEMBERS s", "SET after 1"]);
    assert_eq!(ask(&mut rig, "EXEC", Version::Resp2), REFUSED);
    assert!(rig.session.wants_close());
    rig.another().check(&[("EXISTS before after", ":2")]);
    let journal = rig.journal();
    assert!(["SET before 1", "SET after 1"].iter().all(|line| journal.iter().any(|other| other == line)));
}

#[test]
fn numbers_at_the_ends_of_their_range_are_answered_as_in_redis() {
    let mut pair = Pair::start();
    pair.same(&[
        "RPUSH l a b c a b c",
        "SADD s 1 2 3",
        "SADD one 1",
        "HSET h f v",
        "ZADD z 1 a",
        "SET k value",
    ]);
    for number in [
        i64::MIN,
        i64::MIN + 1,
        -(i64::MAX / 2) - 2,
        -(i64::MAX / 2) - 1,
        i64::MAX / 2,
        i64::MAX / 2 + 1,
        i64::MAX - 1,
        i64::MAX,
    ] {
        let mut lines: Vec<String> = [
            "LRANGE l # -1",
            "LRANGE l 0 #",
            "LRANGE l # #",
            "LINDEX l #",
            "LSET l # x",
            "LPOS l a RANK #",
            "LPOS l a RANK # COUNT 0",
            "LPOS l a COUNT #",
            "LPOS l a MAXLEN #",
            "LPOS l a RANK -1 MAXLEN #",
            "LREM nosuch # a",
            "GETRANGE k # -1",
            "GETRANGE k 0 #",
            "ZRANGE z # -1",
            "ZRANGE z 0 #",
            "ZREVRANGE z # #",
            "ZRANGEBYSCORE z -inf +inf LIMIT # 1",
            "ZRANGEBYSCORE z -inf +inf LIMIT 0 #",
            "SRANDMEMBER nosuch #",
            "HRANDFIELD nosuch #",
            "HRANDFIELD nosuch # WITHVALUES",
            "ZRANDMEMBER nosuch #",
            "ZRANDMEMBER nosuch # WITHSCORES",
            "LPOP nosuch #",
            "SPOP nosuch #",
            "ZPOPMIN nosuch #",
            "SETRANGE k # x",
        ]
        .iter()
        .map(|line| line.replace('#', &number.to_string()))
        .collect();
        // Of any other number below zero Redis would make a reply without end.
        if !(-(i64::MAX / 2)..=0).contains(&number) {
            lines.push(format!("HRANDFIELD h {number} WITHVALUES"));
            lines.push(format!("ZRANDMEMBER z {number} WITHSCORES"));
        }
        if number > 0 || number == i64::MIN {
            lines.extend(
                ["SRANDMEMBER one", "HRANDFIELD h", "ZRANDMEMBER z"].map(|line| format!("{line} {number}")),
            );
        }
        pair.same(&lines.iter().map(String::as_str).collect::<Vec<_>>());
    }
    pair.same(&["SRANDMEMBER s -9223372036854775808"]);
    pair.same_set(&["SRANDMEMBER s 9223372036854775807"]);
}
