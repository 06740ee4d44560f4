//! Random transactions over two connections: queued commands that succeed and fail, WATCH with and without interference, and
//! all of it in wrong order.

use super::draw::{Args, Draw};
use super::{Family, RESP2, RESP3, Step, data_command};
use crate::args;
use crate::normalise::{Comparison, comparison};

/// The steps of one transaction, or of one misuse.
pub(super) fn episode(draw: &mut Draw, families: &[Family]) -> Vec<Step> {
    let (own, other) = if draw.percent(50) { (RESP2, RESP3) } else { (RESP3, RESP2) };
    let mut steps = Vec::new();
    let mut say = |connection, args| steps.push(Step { connection, args });
    if draw.percent(6) {
        say(own, args![draw.pick(&["EXEC", "DISCARD", "UNWATCH", "WATCH"])]);
        return steps;
    }
    let watched = draw.any_key();
    let is_watching = draw.percent(45);
    if is_watching {
        let mut args = args!["WATCH", watched.as_slice()];
        args.extend((0..draw.below(2)).map(|_| draw.any_key()));
        say(own, args);
        if draw.percent(10) {
            say(own, args!["UNWATCH"]);
        }
        if draw.percent(60) {
            say(own, queueable(draw, families));
        }
        for _ in 0..draw.below(3) {
            let args = if draw.percent(50) { touching(draw, &watched) } else { queueable(draw, families) };
            let connection = if draw.percent(85) { other } else { own };
            say(connection, args);
        }
    }
    say(own, args!["MULTI"]);
    for _ in 0..draw.below(6) {
        say(
            own,
            match draw.below(40) {
                0 => args!["MULTI"],
                1 => args!["WATCH", draw.any_key()],
                2 => args!["NOSUCHCOMMAND", "a"],
                3 => args!["GET"],
                4 => args!["SELECT", super::generic::database(draw)],
                5 => args!["UNWATCH"],
                6 => args!["PING"],
                _ => queueable(draw, families),
            },
        );
        if is_watching && draw.percent(10) {
            say(other, touching(draw, &watched));
        }
    }
    say(
        own,
        match draw.below(20) {
            0..=2 => args!["DISCARD"],
            3 => args!["EXEC", "now"],
            _ => args!["EXEC"],
        },
    );
    // A refused EXEC leaves the transaction open; the next commands must not land in it.
    if draw.percent(30) {
        say(own, args!["DISCARD"]);
    }
    steps
}

/// A data command whose reply can be compared wherever it appears: not one that chooses at random.
fn queueable(draw: &mut Draw, families: &[Family]) -> Args {
    loop {
        let args = data_command(draw, families);
        if !matches!(comparison(&args), Comparison::Random | Comparison::CompleteScan) {
            return args;
        }
    }
}

/// What may or may not count as a change of the watched key.
fn touching(draw: &mut Draw, key: &[u8]) -> Args {
    match draw.below(10) {
        0 => args!["DEL", key],
        1 => args!["SET", key, "changed"],
        2 => args!["EXPIRE", key, draw.far_seconds()],
        3 => args!["PERSIST", key],
        4 => args!["TOUCH", key],
        5 => args!["APPEND", key, ""],
        6 => args!["RENAME", key, draw.any_key()],
        7 => args!["SADD", key, "a"],
        8 => args!["EXPIREAT", key, "1"],
        _ => args!["GETEX", key, "PERSIST"],
    }
}
