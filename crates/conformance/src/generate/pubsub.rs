//! Random subscribing and publishing: two connections subscribe (one for each protocol), the others publish and ask.

use super::draw::{Args, Draw};
use super::{RESP2, RESP3, SUBSCRIBER2, SUBSCRIBER3, Step};
use crate::args;

/// One step of the family.
pub(super) fn next(draw: &mut Draw) -> Step {
    let subscriber = draw.pick(&[SUBSCRIBER2, SUBSCRIBER3]);
    let publisher = draw.pick(&[RESP2, RESP3]);
    match draw.below(20) {
        0..=2 => Step { connection: subscriber, args: named(draw, "SUBSCRIBE", channel) },
        3..=4 => Step { connection: subscriber, args: named(draw, "PSUBSCRIBE", pattern) },
        5..=6 => {
            let mut args = args!["UNSUBSCRIBE"];
            args.extend((0..draw.below(3)).map(|_| channel(draw)));
            Step { connection: subscriber, args }
        }
        7 => {
            let mut args = args!["PUNSUBSCRIBE"];
            args.extend((0..draw.below(3)).map(|_| pattern(draw)));
            Step { connection: subscriber, args }
        }
        8 => Step { connection: subscriber, args: refused_while_subscribed(draw) },
        9..=10 => Step { connection: publisher, args: state(draw) },
        _ => Step { connection: publisher, args: args!["PUBLISH", channel(draw), draw.value()] },
    }
}

fn named(draw: &mut Draw, name: &str, choose: fn(&mut Draw) -> Vec<u8>) -> Args {
    let mut args = args![name];
    args.extend((0..draw.few()).map(|_| choose(draw)));
    if draw.percent(3) {
        args.truncate(1);
    }
    args
}

fn channel(draw: &mut Draw) -> Vec<u8> {
    draw.pick(&["news", "news.tech", "n", "", "канал", "a[b"]).into()
}

fn pattern(draw: &mut Draw) -> Vec<u8> {
    draw.pick(&["news*", "*", "n?ws", "[nm]", "news.tech", "a\\[b"]).into()
}

fn refused_while_subscribed(draw: &mut Draw) -> Args {
    match draw.below(6) {
        0 => args!["PING", "hello"],
        1 => args!["GET", "s:0"],
        2 => args!["PING"],
        3 => args!["SET", "s:0", "by a subscriber"],
        4 => args!["NOSUCHCOMMAND"],
        _ => args!["PING", "a", "b"],
    }
}

fn state(draw: &mut Draw) -> Args {
    match draw.below(6) {
        0 => args!["PUBSUB", "CHANNELS"],
        1 => args!["PUBSUB", "CHANNELS", pattern(draw)],
        2..=3 => {
            let mut args = args!["PUBSUB", "NUMSUB"];
            args.extend((0..draw.below(3)).map(|_| channel(draw)));
            args
        }
        4 => args!["PUBSUB", "NUMPAT"],
        _ => args!["PUBSUB", draw.pick(&["NONSENSE", "numpat", "HELP"])],
    }
}
