//! Random commands on hashes.

use super::draw::{Args, Draw, Kind};
use super::{random_count, scan_options};
use crate::args;

/// One command of the family.
pub(super) fn next(draw: &mut Draw) -> Args {
    let key = draw.key(Kind::Hash);
    match draw.below(30) {
        0..=6 => {
            let mut args = args![draw.pick(&["HSET", "HSET", "HMSET"]), key];
            let count = draw.batch();
            for field in draw.members(count) {
                args.extend([field, draw.value()]);
            }
            args
        }
        7 => args!["HSETNX", key, draw.member(), draw.value()],
        8..=10 => args!["HGET", key, draw.member()],
        11..=12 => {
            let count = draw.few() + 1;
            let mut args = args!["HMGET", key];
            args.extend(draw.members(count));
            args
        }
        13..=15 => {
            let count = draw.few();
            let mut args = args!["HDEL", key];
            args.extend(draw.members(count));
            args
        }
        16 => args!["HEXISTS", key, draw.member()],
        17 => args!["HLEN", key],
        18 => args!["HSTRLEN", key, draw.member()],
        19 => args![draw.pick(&["HKEYS", "HVALS"]), key],
        20..=21 => args!["HGETALL", key],
        22..=23 => args!["HINCRBY", key, number_field(draw), draw.integer()],
        24..=25 => args!["HINCRBYFLOAT", key, number_field(draw), draw.float()],
        26 => args!["HSET", key, number_field(draw), draw.integer()],
        27 => {
            let mut args = args!["HRANDFIELD", key];
            if draw.percent(70) {
                args.push(random_count(draw));
                if draw.percent(50) {
                    args.extend(args![draw.pick(&["WITHVALUES", "WITHVALUES", "withvalues", "WITHSCORES"])]);
                }
            }
            args
        }
        28 => {
            let mut args = args!["HSCAN", key];
            args.extend(scan_options(draw, false));
            args
        }
        _ => args!["HSET", key, draw.member(), draw.float_text()],
    }
}

fn number_field(draw: &mut Draw) -> Vec<u8> {
    if draw.percent(80) { draw.pick(&["i", "j", "k"]).into() } else { draw.member() }
}
