//! Random commands on sets. Every other key holds integers mostly, so that both encodings are met.

use super::draw::{Args, Draw, Kind};
use super::{random_count, scan_options};
use crate::args;

/// One command of the family.
pub(super) fn next(draw: &mut Draw) -> Args {
    let key = draw.key(Kind::Set);
    match draw.below(32) {
        0..=7 => {
            let mut args = args!["SADD", key.as_slice()];
            args.extend(members(draw, &key));
            args
        }
        8..=10 => {
            let mut args = args!["SREM", key.as_slice()];
            args.extend(members(draw, &key));
            args
        }
        11 => args!["SCARD", key],
        12..=13 => args!["SISMEMBER", key.as_slice(), member(draw, &key)],
        14 => {
            let mut args = args!["SMISMEMBER", key.as_slice()];
            args.extend(members(draw, &key));
            args
        }
        15..=16 => args!["SMEMBERS", key],
        17 => args!["SMOVE", key.as_slice(), draw.key(Kind::Set), member(draw, &key)],
        18 => {
            let mut args = args!["SPOP", key];
            if draw.percent(60) {
                args.push(random_count(draw));
            }
            args
        }
        19 => {
            let mut args = args!["SRANDMEMBER", key];
            if draw.percent(70) {
                args.push(random_count(draw));
            }
            args
        }
        20..=23 => {
            let mut args = args![draw.pick(&["SINTER", "SUNION", "SDIFF"]), key];
            args.extend(sources(draw));
            args
        }
        24..=27 => {
            let name = draw.pick(&["SINTERSTORE", "SUNIONSTORE", "SDIFFSTORE"]);
            let mut args = args![name, draw.key(Kind::Set), key];
            args.extend(sources(draw));
            args
        }
        28..=29 => {
            let mut keys = sources(draw);
            keys.push(key);
            let declared =
                if draw.percent(90) { keys.len().to_string().into_bytes() } else { draw.integer() };
            let mut args = args!["SINTERCARD", declared];
            args.extend(keys);
            if draw.percent(50) {
                args.extend(args!["LIMIT", draw.integer()]);
            }
            if draw.percent(4) {
                args.extend(args![draw.pick(&["LIMIT", "NONSENSE"])]);
            }
            args
        }
        _ => {
            let mut args = args!["SSCAN", key];
            args.extend(scan_options(draw, false));
            args
        }
    }
}

fn sources(draw: &mut Draw) -> Args {
    (0..draw.below(3)).map(|_| draw.key(Kind::Set)).collect()
}

fn members(draw: &mut Draw, key: &[u8]) -> Args {
    let count = draw.batch();
    if count > 8 {
        return draw.members(count);
    }
    (0..count).map(|_| member(draw, key)).collect()
}

fn member(draw: &mut Draw, key: &[u8]) -> Vec<u8> {
    let integers = key.last().is_some_and(|last| last % 2 == 0);
    match draw.below(40) {
        0 if integers => draw.integer_edge(),
        1 if integers => draw.not_an_integer(),
        _ if integers => draw.between(-5, 15).to_string().into_bytes(),
        _ => draw.member(),
    }
}
