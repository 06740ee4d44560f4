//! Random commands on strings, counters and floats.

use super::draw::{Args, Draw, Kind};
use crate::args;

/// One command of the family.
pub(super) fn next(draw: &mut Draw) -> Args {
    match draw.below(34) {
        0..=5 => set(draw),
        6..=7 => args!["GET", text_key(draw)],
        8 => args!["GETDEL", text_key(draw)],
        9 => getex(draw),
        10 => args!["GETSET", text_key(draw), draw.value()],
        11 => args!["STRLEN", text_key(draw)],
        12..=13 => args!["APPEND", text_key(draw), draw.value()],
        14 => {
            let name = draw.pick(&["GETRANGE", "SUBSTR"]);
            args![name, text_key(draw), draw.index(), draw.index()]
        }
        15 => args!["SETRANGE", text_key(draw), offset(draw), draw.value()],
        16..=18 => {
            let name = draw.pick(&["INCR", "DECR"]);
            args![name, draw.key(Kind::Number)]
        }
        19..=21 => {
            let name = draw.pick(&["INCRBY", "DECRBY"]);
            args![name, draw.key(Kind::Number), draw.integer()]
        }
        22..=24 => args!["INCRBYFLOAT", number_key(draw), draw.float()],
        25 => args!["SET", draw.key(Kind::Number), draw.integer()],
        26 => args!["SET", draw.key(Kind::Float), draw.float()],
        27..=28 => {
            let mut args = args!["MGET"];
            args.extend((0..draw.few()).map(|_| text_key(draw)));
            args
        }
        29..=30 => {
            let mut args = args![draw.pick(&["MSET", "MSET", "MSETNX"])];
            for _ in 0..draw.few() {
                args.extend([text_key(draw), draw.value()]);
            }
            args
        }
        31 => args![draw.pick(&["SETNX"]), text_key(draw), draw.value()],
        32 => match draw.below(2) {
            0 => args!["SETEX", text_key(draw), draw.seconds(), draw.value()],
            _ => args!["PSETEX", text_key(draw), draw.milliseconds(), draw.value()],
        },
        _ => lcs(draw),
    }
}

fn text_key(draw: &mut Draw) -> Vec<u8> {
    let kind = draw.pick(&[Kind::Text, Kind::Text, Kind::Text, Kind::Number, Kind::Float]);
    draw.key(kind)
}

fn number_key(draw: &mut Draw) -> Vec<u8> {
    let kind = draw.pick(&[Kind::Float, Kind::Float, Kind::Number, Kind::Text]);
    draw.key(kind)
}

fn set(draw: &mut Draw) -> Args {
    let mut args = args!["SET", text_key(draw), draw.value()];
    let mut options: Vec<Args> = Vec::new();
    if draw.percent(45) {
        for _ in 0..draw.few() {
            options.push(match draw.below(10) {
                0 => args!["NX"],
                1 => args!["XX"],
                2 => args!["GET"],
                3 => args!["KEEPTTL"],
                4 => args!["EX", draw.seconds()],
                5 => args!["PX", draw.milliseconds()],
                6 => args!["EXAT", draw.at_seconds(false)],
                7 => args!["PXAT", draw.at_milliseconds(false)],
                8 => args![draw.pick(&["nx", "xX", "get", "keepttl"])],
                _ => args![draw.pick(&["EX", "PXAT", "PERSIST", "NONSENSE", ""])],
            });
        }
    }
    args.extend(options.into_iter().flatten());
    args
}

fn getex(draw: &mut Draw) -> Args {
    let mut args = args!["GETEX", text_key(draw)];
    args.extend(match draw.below(10) {
        0 => args!["EX", draw.seconds()],
        1 => args!["PX", draw.milliseconds()],
        2 => args!["EXAT", draw.at_seconds(true)],
        3 => args!["PXAT", draw.at_milliseconds(true)],
        4..=5 => args!["PERSIST"],
        6 => args![draw.pick(&["EX", "KEEPTTL", "NX", "GET"])],
        7 => args!["EX", draw.seconds(), "PERSIST"],
        _ => Vec::new(),
    });
    args
}

fn offset(draw: &mut Draw) -> Vec<u8> {
    match draw.below(10) {
        0 => draw.pick(&["-1", "536870912", "9223372036854775807", "-9223372036854775808", "abc"]).into(),
        1 => draw.between(0, 3_000).to_string().into_bytes(),
        _ => draw.between(0, 20).to_string().into_bytes(),
    }
}

fn lcs(draw: &mut Draw) -> Args {
    let mut args = args!["LCS", draw.key(Kind::Text), draw.key(Kind::Text)];
    for _ in 0..draw.below(4) {
        args.extend(match draw.below(6) {
            0 => args!["LEN"],
            1 | 2 => args!["IDX"],
            3 => args!["WITHMATCHLEN"],
            4 => args!["MINMATCHLEN", draw.integer()],
            _ => args![draw.pick(&["MINMATCHLEN", "NONSENSE"])],
        });
    }
    args
}
