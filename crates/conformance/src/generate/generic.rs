//! Random commands that work on keys of any type: expiry, renaming, scanning, introspection.

use super::draw::{Args, Draw, Kind};
use super::scan_options;
use crate::args;

/// One command of the family.
pub(super) fn next(draw: &mut Draw) -> Args {
    match draw.below(40) {
        0..=1 => {
            let mut args = args![draw.pick(&["DEL", "UNLINK"])];
            args.extend((0..draw.few()).map(|_| readable_key(draw)));
            args
        }
        2..=5 => {
            let mut args = args![draw.pick(&["EXISTS", "TOUCH", "EXISTS"])];
            args.extend((0..draw.few()).map(|_| readable_key(draw)));
            args
        }
        6..=13 => expire(draw),
        14..=18 => args![draw.pick(&["TTL", "PTTL", "EXPIRETIME", "PEXPIRETIME"]), readable_key(draw)],
        19..=20 => args!["PERSIST", readable_key(draw)],
        21..=22 => args!["TYPE", readable_key(draw)],
        23..=25 => {
            let [from, to] = from_and_to(draw);
            args![draw.pick(&["RENAME", "RENAME", "RENAMENX"]), from, to]
        }
        26..=28 => {
            let mut args = args!["SCAN"];
            args.extend(scan_options(draw, true));
            args
        }
        29 => args!["RANDOMKEY"],
        30 => args!["KEYS", draw.pattern()],
        31..=34 => args!["OBJECT", draw.pick(&["ENCODING", "encoding", "ENCODING"]), readable_key(draw)],
        35 => {
            let name = draw.pick(&["REFCOUNT", "IDLETIME", "FREQ", "HELP", "NONSENSE", "ENCODING"]);
            let mut args = args!["OBJECT", name];
            if name != "HELP" || draw.percent(10) {
                args.push(readable_key(draw));
            }
            args
        }
        36..=37 => args!["MOVE", draw.any_key(), other_database(draw)],
        _ => args!["DBSIZE"],
    }
}

/// One command that copies or sorts.
pub(super) fn next_copying(draw: &mut Draw) -> Args {
    match draw.below(2) {
        0 => {
            let [from, to] = from_and_to(draw);
            let mut args = args!["COPY", from, to];
            for _ in 0..draw.below(3) {
                args.extend(match draw.below(4) {
                    0..=1 => args!["REPLACE"],
                    2 => args!["DB", database(draw)],
                    _ => args![draw.pick(&["DB", "NONSENSE"])],
                });
            }
            args
        }
        _ => sort(draw),
    }
}

/// Two keys, mostly of the same kind: otherwise types would soon be mixed everywhere.
fn from_and_to(draw: &mut Draw) -> [Vec<u8>; 2] {
    let kind = draw.pick(&Kind::WRITABLE);
    let to = if draw.percent(85) { draw.own_key(kind) } else { draw.any_key() };
    [draw.own_key(kind), to]
}

fn readable_key(draw: &mut Draw) -> Vec<u8> {
    match draw.below(30) {
        0 => b"none:0".to_vec(),
        1 => draw.own_key(Kind::Lexical),
        _ => draw.any_key(),
    }
}

fn expire(draw: &mut Draw) -> Args {
    let key = readable_key(draw);
    let mut args = match draw.below(4) {
        0 => args!["EXPIRE", key, draw.seconds()],
        1 => args!["PEXPIRE", key, draw.milliseconds()],
        2 => args!["EXPIREAT", key, draw.at_seconds(true)],
        _ => args!["PEXPIREAT", key, draw.at_milliseconds(true)],
    };
    if draw.percent(45) {
        for _ in 0..draw.few() {
            args.extend(args![draw.pick(&["NX", "XX", "GT", "LT", "nx", "gt", "NONSENSE"])]);
        }
    }
    args
}

/// A database's number: mostly the first few, sometimes one that is not there.
pub(super) fn database(draw: &mut Draw) -> Vec<u8> {
    match draw.below(20) {
        0 => draw.pick(&["16", "-1", "abc", "", "99999999999", "15"]).into(),
        1..=4 => draw.between(1, 3).to_string().into_bytes(),
        _ => b"0".to_vec(),
    }
}

fn other_database(draw: &mut Draw) -> Vec<u8> {
    if draw.percent(70) { draw.between(0, 3).to_string().into_bytes() } else { database(draw) }
}

fn sort(draw: &mut Draw) -> Args {
    let kind = draw.pick(&[Kind::List, Kind::List, Kind::Set, Kind::Sorted]);
    let mut args = args![draw.pick(&["SORT", "SORT", "SORT_RO"]), draw.key(kind)];
    for _ in 0..draw.below(4) {
        args.extend(match draw.below(6) {
            0 => args![draw.pick(&["ASC", "DESC"])],
            1..=2 => args!["LIMIT", draw.index(), draw.index()],
            3 => args!["GET", draw.pick(&["#", "s:*", "h:*->a", "none:*"])],
            4 => args!["STORE", draw.own_key(Kind::List)],
            // A GET without its pattern would take the ALPHA below for one, and the numbers would be Redis' to refuse.
            _ => args![draw.pick(&["NONSENSE", "ASC", "LIMIT"])],
        });
    }
    // Weights of other keys leave the order open where they are equal texts; and where they are numbers Redis may refuse them
    // for one that an earlier command could not read (it looks at C's errno, which nobody has cleared).
    // What is only answered is compared up to a NUL, so that two texts may tie; what is stored is not. SORT_RO refuses STORE.
    args.extend(args!["ALPHA", "STORE", draw.own_key(Kind::List)]);
    args
}
