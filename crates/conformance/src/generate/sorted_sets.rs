//! Random commands on sorted sets. Lexicographic ranges are asked only of keys whose members all have the same score (Redis
//! promises nothing about others, and its skip list answers by chance), and those keys are written to here alone.

use super::draw::{Args, Draw, Kind};
use super::{random_count, scan_options};
use crate::args;

/// One command of the family.
pub(super) fn next(draw: &mut Draw) -> Args {
    let key = draw.key(Kind::Sorted);
    match draw.below(60) {
        0..=9 => zadd(draw, key),
        10..=11 => args!["ZINCRBY", key, draw.score(), draw.member()],
        12..=13 => {
            let mut args = args!["ZREM", key];
            let count = draw.few();
            args.extend(draw.members(count));
            args
        }
        14 => args!["ZCARD", key],
        15..=16 => args!["ZSCORE", key, draw.member()],
        17 => {
            let mut args = args!["ZMSCORE", key];
            let count = draw.few() + 1;
            args.extend(draw.members(count));
            args
        }
        18..=19 => args![draw.pick(&["ZRANK", "ZREVRANK"]), key, draw.member()],
        20..=21 => args!["ZCOUNT", key, draw.score_bound(), draw.score_bound()],
        22..=27 => {
            let mut args = args!["ZRANGE", key];
            args.extend(range(draw, true));
            args
        }
        28..=29 => {
            let mut args = args!["ZRANGESTORE", draw.key(Kind::Sorted), key];
            args.extend(range(draw, false));
            args
        }
        30..=31 => {
            let mut args =
                args![draw.pick(&["ZREVRANGE", "ZREVRANGE", "zrevrange"]), key, draw.index(), draw.index()];
            with_scores(draw, &mut args);
            args
        }
        32..=33 => {
            let name = draw.pick(&["ZRANGEBYSCORE", "ZREVRANGEBYSCORE"]);
            let mut args = args![name, key, draw.score_bound(), draw.score_bound()];
            with_scores(draw, &mut args);
            limit(draw, &mut args);
            args
        }
        34 => args!["ZREMRANGEBYRANK", key, draw.index(), draw.index()],
        35 => args!["ZREMRANGEBYSCORE", key, draw.score_bound(), draw.score_bound()],
        36..=37 => {
            let mut args = args![draw.pick(&["ZPOPMIN", "ZPOPMAX"]), key];
            if draw.percent(60) {
                args.push(pop_count(draw));
            }
            args
        }
        38 if draw.percent(50) => {
            let mut args = args![draw.pick(&["BZPOPMIN", "BZPOPMAX"])];
            args.extend((0..draw.few()).map(|_| draw.key(Kind::Sorted)));
            args.push(super::timeout(draw));
            args
        }
        38..=39 => {
            let mut args =
                if draw.percent(30) { args!["BZMPOP", super::timeout(draw)] } else { args!["ZMPOP"] };
            numbered_keys(draw, &mut args);
            args.extend(args![draw.pick(&["MIN", "MAX", "MIN", "MAX", "min", "LEFT"])]);
            if draw.percent(50) {
                args.extend(args!["COUNT", pop_count(draw)]);
            }
            args
        }
        40 => {
            let mut args = args!["ZRANDMEMBER", key];
            if draw.percent(70) {
                args.push(random_count(draw));
                with_scores(draw, &mut args);
            }
            args
        }
        41 => {
            let mut args = args!["ZSCAN", key];
            args.extend(scan_options(draw, false));
            args
        }
        42..=46 => combine(draw),
        47 => {
            let mut args = args!["ZINTERCARD"];
            numbered_keys(draw, &mut args);
            if draw.percent(50) {
                args.extend(args!["LIMIT", draw.integer()]);
            }
            args
        }
        _ => lexical(draw),
    }
}

fn zadd(draw: &mut Draw, key: Vec<u8>) -> Args {
    let mut args = args!["ZADD", key];
    let mut pairs = draw.batch();
    if draw.percent(40) {
        for _ in 0..draw.few() {
            args.extend(args![draw.pick(&["NX", "XX", "GT", "LT", "CH", "CH", "INCR", "gt", "incr"])]);
        }
        if draw.percent(60) {
            pairs = 1;
        }
    }
    for member in draw.members(pairs) {
        args.extend([draw.score(), member]);
    }
    args
}

/// `start stop` and the options of ZRANGE.
fn range(draw: &mut Draw, scores: bool) -> Args {
    let (mut args, mut tail) = match draw.below(10) {
        0..=4 => (args![draw.index(), draw.index()], Args::new()),
        5..=8 => (args![draw.score_bound(), draw.score_bound()], args!["BYSCORE"]),
        // Errors only: without BYSCORE a score bound is not a rank, and BYLEX takes no scores.
        _ => (args![draw.score_bound(), draw.index()], Args::new()),
    };
    if draw.percent(30) {
        tail.extend(args![draw.pick(&["REV", "REV", "rev"])]);
    }
    if draw.percent(30) {
        limit(draw, &mut tail);
    }
    if scores {
        with_scores(draw, &mut tail);
    }
    if draw.percent(3) {
        tail.extend(args![draw.pick(&["LIMIT", "NONSENSE", "WITHSCORES"])]);
    }
    args.extend(tail);
    args
}

fn with_scores(draw: &mut Draw, args: &mut Args) {
    if draw.percent(50) {
        args.extend(args![draw.pick(&["WITHSCORES", "WITHSCORES", "withscores", "WITHVALUES"])]);
    }
}

fn limit(draw: &mut Draw, args: &mut Args) {
    if draw.percent(40) {
        args.extend(args!["LIMIT", draw.index(), draw.index()]);
    }
}

fn pop_count(draw: &mut Draw) -> Vec<u8> {
    match draw.below(10) {
        0 => draw.integer(),
        1 => draw.pick(&["0", "-1", "9223372036854775807"]).into(),
        _ => draw.between(1, 4).to_string().into_bytes(),
    }
}

fn numbered_keys(draw: &mut Draw, args: &mut Args) {
    let count = draw.few().min(3);
    if draw.percent(93) {
        args.extend(args![count]);
    } else {
        args.push(draw.integer());
    }
    for _ in 0..count {
        // Plain sets take part as if every score were 1.
        let kind = if draw.percent(20) { Kind::Set } else { Kind::Sorted };
        args.push(draw.key(kind));
    }
}

fn combine(draw: &mut Draw) -> Args {
    let name = draw.pick(&["ZUNION", "ZINTER", "ZDIFF", "ZUNIONSTORE", "ZINTERSTORE", "ZDIFFSTORE"]);
    let mut args = args![name];
    if name.ends_with("STORE") {
        args.push(draw.key(Kind::Sorted));
    }
    let start = args.len();
    numbered_keys(draw, &mut args);
    let keys = args.len() - start - 1;
    if draw.percent(35) {
        args.extend(args!["WEIGHTS"]);
        let weights = if draw.percent(95) { keys } else { draw.below(4) };
        args.extend((0..weights).map(|_| draw.score()));
    }
    if draw.percent(35) {
        args.extend(args!["AGGREGATE", draw.pick(&["SUM", "MIN", "MAX", "sum", "min", "max", "AVG"])]);
    }
    with_scores(draw, &mut args);
    args
}

/// Reads by lexicographic range, and the writes that keep all scores of a key equal.
fn lexical(draw: &mut Draw) -> Args {
    let key = draw.own_key(Kind::Lexical);
    match draw.below(12) {
        0..=3 => {
            let mut args = args!["ZADD", key];
            for _ in 0..=draw.below(8) {
                args.extend([b"0".to_vec(), draw.member()]);
            }
            args
        }
        4 => args!["ZREM", key, draw.member()],
        5 => args!["ZREMRANGEBYLEX", key, draw.lexical_bound(), draw.lexical_bound()],
        6 => args!["ZLEXCOUNT", key, draw.lexical_bound(), draw.lexical_bound()],
        7..=8 => {
            let name = draw.pick(&["ZRANGEBYLEX", "ZREVRANGEBYLEX"]);
            let mut args = args![name, key, draw.lexical_bound(), draw.lexical_bound()];
            limit(draw, &mut args);
            args
        }
        9 => args![
            "ZRANGESTORE",
            draw.own_key(Kind::Lexical),
            key,
            draw.lexical_bound(),
            draw.lexical_bound(),
            "BYLEX"
        ],
        10 => {
            // Nothing stays for long, so that ranges stay short.
            args!["ZREMRANGEBYRANK", key, draw.index(), draw.index()]
        }
        _ => {
            let mut args = args!["ZRANGE", key, draw.lexical_bound(), draw.lexical_bound(), "BYLEX"];
            if draw.percent(40) {
                args.extend(args!["REV"]);
            }
            limit(draw, &mut args);
            if draw.percent(5) {
                args.extend(args![draw.pick(&["WITHSCORES", "BYSCORE"])]);
            }
            args
        }
    }
}
