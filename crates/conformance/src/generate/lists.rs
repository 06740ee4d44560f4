//! Random commands on lists. Those that wait do so for a moment only.

use super::draw::{Args, Draw, Kind};
use super::timeout;
use crate::args;

/// One command of the family.
pub(super) fn next(draw: &mut Draw) -> Args {
    let key = draw.key(Kind::List);
    match draw.below(37) {
        34..=36 => waiting(draw),
        0..=8 => {
            let count = draw.batch();
            let mut args = args![draw.pick(&["LPUSH", "RPUSH", "RPUSH", "LPUSH", "LPUSHX", "RPUSHX"]), key];
            args.extend(draw.members(count));
            args
        }
        9..=11 => {
            let mut args = args![draw.pick(&["LPOP", "RPOP"]), key];
            if draw.percent(50) {
                args.push(count(draw));
            }
            args
        }
        12..=14 => args!["LRANGE", key, draw.index(), draw.index()],
        15 => args!["LLEN", key],
        16..=17 => args!["LINDEX", key, draw.index()],
        18 => args!["LSET", key, usual(draw, &["0", "-1", "1", "0"]), draw.value()],
        19..=20 => args![
            "LINSERT",
            key,
            draw.pick(&["BEFORE", "AFTER", "after", "BESIDE"]),
            draw.member(),
            draw.value()
        ],
        21..=22 => args!["LREM", key, draw.index(), draw.member()],
        23 => args!["LTRIM", key, trim(draw), trim(draw)],
        24..=26 => lpos(draw, key),
        27 => args!["RPOPLPUSH", key, draw.key(Kind::List)],
        28..=30 => args!["LMOVE", key, draw.key(Kind::List), side(draw), side(draw)],
        _ => {
            let keys = draw.few();
            let declared = if draw.percent(90) { keys.to_string().into_bytes() } else { draw.integer() };
            let mut args = args!["LMPOP", declared];
            args.extend((0..keys).map(|_| draw.key(Kind::List)));
            args.push(side(draw));
            if draw.percent(50) {
                args.extend(args!["COUNT", count(draw)]);
            }
            if draw.percent(4) {
                args.extend(args![draw.pick(&["COUNT", "LEFT", "NONSENSE"])]);
            }
            args
        }
    }
}

fn waiting(draw: &mut Draw) -> Args {
    match draw.below(5) {
        0..=1 => {
            let mut args = args![draw.pick(&["BLPOP", "BRPOP"])];
            args.extend((0..draw.few()).map(|_| draw.key(Kind::List)));
            args.push(timeout(draw));
            args
        }
        2 => {
            let keys = draw.few();
            let mut args = args!["BLMPOP", timeout(draw), keys];
            args.extend((0..keys).map(|_| draw.key(Kind::List)));
            args.push(side(draw));
            if draw.percent(50) {
                args.extend(args!["COUNT", count(draw)]);
            }
            args
        }
        3 => {
            let (from, to) = (draw.key(Kind::List), draw.key(Kind::List));
            args!["BLMOVE", from, to, side(draw), side(draw), timeout(draw)]
        }
        _ => args!["BRPOPLPUSH", draw.key(Kind::List), draw.key(Kind::List), timeout(draw)],
    }
}

fn side(draw: &mut Draw) -> Vec<u8> {
    draw.pick(&["LEFT", "RIGHT", "LEFT", "RIGHT", "LEFT", "RIGHT", "left", "MIDDLE"]).into()
}

fn count(draw: &mut Draw) -> Vec<u8> {
    match draw.below(12) {
        0 => draw.integer(),
        1 => draw.pick(&["0", "-1", "9223372036854775807"]).into(),
        _ => draw.between(1, 5).to_string().into_bytes(),
    }
}

fn trim(draw: &mut Draw) -> Vec<u8> {
    match draw.below(4) {
        0 => b"0".to_vec(),
        1 => b"-1".to_vec(),
        2 => draw.between(0, 2).to_string().into_bytes(),
        _ => draw.index(),
    }
}

fn lpos(draw: &mut Draw, key: Vec<u8>) -> Args {
    let mut args = args!["LPOS", key, draw.member()];
    for _ in 0..draw.below(4) {
        args.extend(match draw.below(7) {
            0..=1 => args!["RANK", usual(draw, &["1", "2", "-1", "-2"])],
            2..=3 => args!["COUNT", usual(draw, &["0", "1", "2", "5"])],
            4..=5 => args!["MAXLEN", usual(draw, &["0", "1", "3", "1000"])],
            _ => args![draw.pick(&["RANK", "COUNT", "rank", "NONSENSE"])],
        });
    }
    args
}

fn usual(draw: &mut Draw, texts: &[&'static str]) -> Vec<u8> {
    if draw.percent(85) { draw.pick(texts).into() } else { draw.index() }
}
