//! Random commands on the connection and the server, as far as they have comparable answers and change nothing that other
//! commands' replies depend on.

use super::draw::{Args, Draw};
use super::generic::database;
use crate::args;

const PARAMETERS: [&str; 9] = [
    "maxmemory",
    "maxmemory-samples",
    "lfu-decay-time",
    "slowlog-max-len",
    "maxmemory-policy",
    "timeout",
    "hash-max-listpack-*",
    "no-such-parameter",
    "list-max-ziplist-size",
];

/// One command of the family.
pub(super) fn next(draw: &mut Draw) -> Args {
    match draw.below(44) {
        0..=2 => args!["PING"],
        3 => args!["PING", draw.value()],
        4 => args!["ECHO", draw.value()],
        5..=10 => args!["SELECT", database(draw)],
        11 => args!["SWAPDB", database(draw), database(draw)],
        12..=14 => args!["DBSIZE"],
        // Seldom, or nothing would ever grow.
        15 if draw.percent(15) => args!["FLUSHDB"],
        15 if draw.percent(10) => args!["FLUSHALL"],
        16 if draw.percent(10) => {
            args![draw.pick(&["FLUSHDB", "FLUSHALL"]), draw.pick(&["SYNC", "ASYNC", "NOW"])]
        }
        15..=16 => args![draw.pick(&["FLUSHDB", "FLUSHALL"]), "NOW"],
        17..=19 => args!["CLIENT", "SETNAME", draw.pick(&["worker", "", "with space", "other"])],
        20..=21 => args!["CLIENT", "GETNAME"],
        22 => args!["CLIENT", draw.pick(&["ID", "INFO", "LIST", "NONSENSE", "GETREDIR", "TRACKINGINFO"])],
        23 => args!["CLIENT", "KILL", draw.pick(&["ID", "127.0.0.1:1", "nonsense"])],
        24 => args!["CLIENT", "KILL", "ID", draw.pick(&["99999999", "abc", "0", "-1"])],
        25 => args!["CLIENT", "NO-EVICT", draw.pick(&["on", "off", "maybe"])],
        26 => args!["CLIENT", "UNBLOCK", draw.pick(&["99999999", "abc"])],
        27 => args!["CLIENT", "LIST", "TYPE", draw.pick(&["normal", "pubsub", "replica", "nonsense"])],
        28..=29 => args!["CONFIG", "GET", draw.pick(&PARAMETERS)],
        30 => match draw.below(8) {
            0 => args!["CONFIG", "SET", "maxmemory-policy", draw.pick(&["noeviction", "nonsense"])],
            1 => args!["CONFIG", "SET", "maxmemory-samples", draw.pick(&["5", "0", "abc", "7"])],
            2 => args!["CONFIG", "SET", "no-such-parameter", "1"],
            3 => args!["CONFIG", "SET", "maxmemory"],
            4 => args!["CONFIG", "SET", "timeout", "0", "timeout", "0"],
            5 => args!["CONFIG", "SET", "port", "abc"],
            6 => args!["CONFIG", "NONSENSE"],
            _ => args!["CONFIG", draw.pick(&["RESETSTAT", "GET"])],
        },
        31 => args!["COMMAND", draw.pick(&["COUNT", "NONSENSE", "INFO"])],
        32..=33 => {
            let mut args = args!["COMMAND", "GETKEYS"];
            args.extend(match draw.below(8) {
                0 => args!["GET", "a"],
                5 => args!["EVAL", "return 1", draw.integer(), "a", "b"],
                6 => args!["ZUNION", draw.integer(), "a", "b"],
                1 => args!["MSET", "a", "1", "b", "2"],
                2 => args!["EVAL", "return 1", "2", "a", "b", "c"],
                3 => args!["ZUNIONSTORE", "d", "2", "a", "b"],
                4 => args!["NOSUCH"],
                _ => args!["PING"],
            });
            args
        }
        34 => args![
            "COMMAND",
            "INFO",
            draw.pick(&["get", "set", "zadd", "nosuch", "eval", "mset", "lmpop", "GET"])
        ],
        35 => args!["SLOWLOG", draw.pick(&["LEN", "RESET", "NONSENSE", "GET"])],
        36 => args!["SLOWLOG", "GET", draw.integer()],
        37 => args!["MEMORY", draw.pick(&["USAGE", "NONSENSE", "USAGE"]), draw.any_key()],
        38 => args!["MEMORY", "USAGE", draw.any_key(), "SAMPLES", draw.integer()],
        39 => match draw.below(6) {
            0 => args!["HELLO", draw.pick(&["1", "4", "abc", ""])],
            1 => args!["HELLO", "3", "SETNAME"],
            2 => args!["HELLO", "2", "NONSENSE"],
            3 => args!["HELLO", "3", "SETNAME", "me"],
            4 => args!["HELLO", "2"],
            _ => args!["HELLO"],
        },
        40 => args!["AUTH", draw.pick(&["password", "default", ""])],
        41 => args!["AUTH", "default", draw.pick(&["password", ""])],
        42 => args![draw.pick(&["TIME", "LASTSAVE", "INFO", "RESET", "ROLE"])],
        _ => args!["INFO", draw.pick(&["server", "memory", "keyspace", "everything", "nonsense"])],
    }
}
