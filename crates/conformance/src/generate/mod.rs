//! Random commands for the differential test: which connection says what, in which order. Pure: a seed gives a history, and no
//! reply ever changes it, so that a history can be cut down and replayed.

pub mod draw;
mod generic;
mod hashes;
mod lists;
mod pubsub;
mod scripting;
mod server;
mod sets;
mod sorted_sets;
mod strings;
mod transactions;

use std::fmt;

use self::draw::{Args, Draw, Kind};
use crate::args;

/// The connection that speaks RESP2.
pub const RESP2: usize = 0;
/// The connection that speaks RESP3.
pub const RESP3: usize = 1;
/// The subscriber that speaks RESP2.
pub const SUBSCRIBER2: usize = 2;
/// The subscriber that speaks RESP3.
pub const SUBSCRIBER3: usize = 3;
/// How many connections a history uses.
pub const CONNECTIONS: usize = 4;

/// One command of a history.
#[derive(Clone, PartialEq, Eq)]
pub struct Step {
    /// Which connection says it.
    pub connection: usize,
    /// The command.
    pub args: Args,
}

impl fmt::Debug for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}>", self.connection)?;
        self.args.iter().try_for_each(|arg| write!(f, " \"{}\"", arg.escape_ascii()))
    }
}

/// A family of commands that a test can choose.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[allow(missing_docs)] // The names say it.
pub enum Family {
    Strings,
    Hashes,
    Lists,
    Sets,
    SortedSets,
    Generic,
    Copying,
    Transactions,
    Scripting,
    PubSub,
    Server,
}

impl Family {
    /// What the engine has today.
    pub const IMPLEMENTED: [Self; 11] = [
        Self::Strings,
        Self::Hashes,
        Self::Lists,
        Self::Sets,
        Self::SortedSets,
        Self::Generic,
        Self::Copying,
        Self::Transactions,
        Self::Scripting,
        Self::PubSub,
        Self::Server,
    ];

    /// The family of a name as `MTCACHE_FAMILIES` lists them.
    pub fn named(name: &str) -> Option<Self> {
        Some(match name {
            "strings" => Self::Strings,
            "hashes" => Self::Hashes,
            "lists" => Self::Lists,
            "sets" => Self::Sets,
            "sorted_sets" => Self::SortedSets,
            "generic" => Self::Generic,
            "copying" => Self::Copying,
            "transactions" => Self::Transactions,
            "scripting" => Self::Scripting,
            "pubsub" => Self::PubSub,
            "server" => Self::Server,
            _ => return None,
        })
    }

    fn is_data(self) -> bool {
        !matches!(self, Self::Transactions | Self::Scripting | Self::PubSub | Self::Server)
    }
}

/// Makes histories of the chosen families.
#[derive(Debug)]
pub struct Generator {
    draw: Draw,
    families: Vec<Family>,
}

impl Generator {
    /// A generator for a seed; at least one family.
    pub fn new(seed: u64, families: &[Family]) -> Self {
        assert!(!families.is_empty(), "at least one family of commands is needed");
        Self { draw: Draw::new(seed), families: families.to_vec() }
    }

    /// A history of at least `length` commands.
    pub fn history(&mut self, length: usize) -> Vec<Step> {
        let mut steps = Vec::with_capacity(length);
        let mut connection = RESP2;
        while steps.len() < length {
            // One connection speaks for a while, so that its commands can be sent together.
            if self.draw.percent(3) {
                connection = self.draw.pick(&[RESP2, RESP3]);
                // Other commands may have changed its protocol.
                if connection == RESP3 && self.draw.percent(30) {
                    steps.push(Step { connection, args: args!["HELLO", "3"] });
                }
            }
            self.extend(&mut steps, connection);
        }
        steps
    }

    fn extend(&mut self, steps: &mut Vec<Step>, connection: usize) {
        let draw = &mut self.draw;
        let has = |family| self.families.contains(&family);
        let data: Vec<Family> = self.families.iter().copied().filter(|family| family.is_data()).collect();
        // Transactions and scripts are made of data commands.
        let data_or_strings = if data.is_empty() { vec![Family::Strings] } else { data.clone() };
        let chosen = match draw.below(100) {
            0..=2 if has(Family::Transactions) => Family::Transactions,
            3..=7 if has(Family::Scripting) => Family::Scripting,
            8..=9 if has(Family::PubSub) => Family::PubSub,
            10..=13 if has(Family::Server) => Family::Server,
            _ => draw.pick(&self.families),
        };
        match chosen {
            Family::Transactions if draw.percent(40) => {
                steps.extend(transactions::episode(draw, &data_or_strings));
            }
            Family::Scripting if draw.percent(50) => {
                let mut args = scripting::next(draw, &data_or_strings);
                if draw.percent(2) {
                    spoil(draw, &mut args);
                }
                steps.push(Step { connection, args });
            }
            Family::PubSub => steps.push(pubsub::next(draw)),
            Family::Server if draw.percent(40) => {
                let mut args = server::next(draw);
                // Leaving commands that a spoiled argument makes dangerous to others as they are.
                if draw.percent(3)
                    && !matches!(args[0].as_slice(), b"CLIENT" | b"CONFIG" | b"HELLO" | b"RESET")
                {
                    spoil(draw, &mut args);
                }
                steps.push(Step { connection, args });
            }
            Family::Transactions | Family::Scripting | Family::Server if data.is_empty() => {}
            _ => {
                let family = if chosen.is_data() { chosen } else { draw.pick(&data) };
                let args = command(draw, family);
                steps.push(Step { connection, args });
            }
        }
    }
}

/// A command of any of the data families among these.
fn data_command(draw: &mut Draw, families: &[Family]) -> Args {
    let family = draw.pick(families);
    command(draw, family)
}

/// A command of a data family, now and then a spoiled one.
fn command(draw: &mut Draw, family: Family) -> Args {
    if draw.percent(18) {
        return feed(draw);
    }
    let mut args = match family {
        Family::Hashes => hashes::next(draw),
        Family::Lists => lists::next(draw),
        Family::Sets => sets::next(draw),
        Family::SortedSets => sorted_sets::next(draw),
        Family::Generic => generic::next(draw),
        Family::Copying => generic::next_copying(draw),
        _ => strings::next(draw),
    };
    if draw.percent(4) {
        spoil(draw, &mut args);
    }
    args
}

/// Puts some elements where they belong: of all that commands do, more takes away than adds.
fn feed(draw: &mut Draw) -> Args {
    let kind = draw.pick(&[
        Kind::Sorted,
        Kind::Sorted,
        Kind::Sorted,
        Kind::List,
        Kind::List,
        Kind::Hash,
        Kind::Set,
        Kind::Text,
    ]);
    let key = draw.own_key(kind);
    let count = 3 + draw.below(6);
    let mut args = match kind {
        Kind::Sorted => args!["ZADD", key],
        Kind::List => args!["RPUSH", key],
        Kind::Hash => args!["HSET", key],
        Kind::Set => args!["SADD", key],
        _ => return args!["SET", key, draw.value()],
    };
    for _ in 0..count {
        match kind {
            Kind::Sorted => args.extend([draw.between(-5, 12).to_string().into_bytes(), draw.member()]),
            Kind::Hash => args.extend([draw.member(), draw.value()]),
            // Half of the sets stay sets of integers.
            Kind::Set if args[1].last().is_some_and(|last| last % 2 == 0) => {
                args.push(draw.between(-5, 15).to_string().into_bytes());
            }
            _ => args.push(draw.member()),
        }
    }
    args
}

/// How long a command waits that is never served, for nothing else runs meanwhile: a moment, or not at all.
fn timeout(draw: &mut Draw) -> Vec<u8> {
    draw.pick(&["0.001", "0.001", "0.001", "0.002", "1e-3", "abc", "-1", "", "nan", "1e20"]).into()
}

/// Makes a command wrong, or at least unusual: an argument too few or too many, one that is not what is due, another case.
fn spoil(draw: &mut Draw, args: &mut Args) {
    // A wrong timeout could be a long one, and SORT must keep the words that make its order certain.
    if matches!(
        args[0].as_slice(),
        b"BLPOP" | b"BRPOP" | b"BLMPOP" | b"BLMOVE" | b"BRPOPLPUSH" | b"BZPOPMIN" | b"BZPOPMAX"
    ) || matches!(args[0].as_slice(), b"BZMPOP" | b"SORT" | b"SORT_RO")
    {
        args[0].make_ascii_lowercase();
        return;
    }
    match draw.below(10) {
        0..=2 => {
            args.pop();
            if args.is_empty() {
                *args = args!["NOSUCHCOMMAND"];
            }
        }
        3..=4 => {
            let extra = draw.member();
            // A wider write, or an argument too many.
            if !is_write_to_lexical(args) && !takes_time(args) {
                args.push(extra);
            }
        }
        5 => args.truncate(1),
        6 => args[0].make_ascii_lowercase(),
        7 => args[0] = [b"NO".as_slice(), &args[0]].concat(),
        _ => {
            let position = draw.below(args.len());
            // A sort by nothing leaves a set's order open. Never a valid positive number: as a time to live it would end during the test.
            if position > 0 && !is_write_to_lexical(args) && !args.contains(&b"BY".to_vec()) {
                args[position] = draw.not_an_integer();
            }
        }
    }
}

fn is_write_to_lexical(args: &Args) -> bool {
    args.iter().any(|arg| arg.starts_with(b"x:"))
}

fn takes_time(args: &Args) -> bool {
    let name = args[0].to_ascii_uppercase();
    matches!(name.as_slice(), b"SET" | b"GETEX" | b"SETEX" | b"PSETEX")
        || name.windows(6).any(|part| part == b"EXPIRE")
}

/// The count of a command that chooses at random; few, or refused, never enough to fill the memory.
fn random_count(draw: &mut Draw) -> Vec<u8> {
    match draw.below(14) {
        0 => draw.not_an_integer(),
        1 => draw.pick(&["9223372036854775807", "-9223372036854775808", "0", "1000"]).into(),
        2..=4 => draw.between(-20, -1).to_string().into_bytes(),
        _ => draw.between(0, 8).to_string().into_bytes(),
    }
}

/// A cursor and the options of the SCAN family.
fn scan_options(draw: &mut Draw, by_type: bool) -> Args {
    let mut args = args![if draw.percent(92) {
        "0"
    } else {
        draw.pick(&["abc", "-1", "", "1 ", "99999999999999999999999"])
    }];
    for _ in 0..draw.below(3) {
        args.extend(match draw.below(8) {
            0..=2 => args!["COUNT", draw.pick(&["1", "3", "10", "1000"])],
            3 => args!["COUNT", draw.pick(&["0", "-1", "abc", ""])],
            4..=5 => args!["MATCH", draw.pattern()],
            6 if by_type => {
                args!["TYPE", draw.pick(&["string", "hash", "list", "set", "zset", "STRING", "nonsense"])]
            }
            _ => args![draw.pick(&["COUNT", "MATCH", "NONSENSE", "TYPE"])],
        });
    }
    args
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn a_seed_always_gives_the_same_history() {
        let history = |seed| Generator::new(seed, &Family::IMPLEMENTED).history(500);
        assert_eq!(history(3), history(3));
        assert_ne!(history(3), history(4));
    }

    #[test]
    fn every_command_of_the_families_is_generated() {
        let history = Generator::new(5, &Family::IMPLEMENTED).history(200_000);
        let names: HashSet<String> =
            history.iter().map(|step| String::from_utf8_lossy(&step.args[0]).to_ascii_uppercase()).collect();
        let expected = "APPEND DECR DECRBY GET GETDEL GETEX GETRANGE GETSET INCR INCRBY INCRBYFLOAT LCS MGET MSET MSETNX PSETEX \
            SET SETEX SETNX SETRANGE STRLEN SUBSTR HDEL HEXISTS HGET HGETALL HINCRBY HINCRBYFLOAT HKEYS HLEN HMGET HMSET \
            HRANDFIELD HSCAN HSET HSETNX HSTRLEN HVALS LINDEX LINSERT LLEN LMOVE LMPOP LPOP LPOS LPUSH LPUSHX LRANGE LREM LSET \
            LTRIM RPOP RPOPLPUSH RPUSH RPUSHX SADD SCARD SDIFF SDIFFSTORE SINTER SINTERCARD SINTERSTORE SISMEMBER SMEMBERS \
            SMISMEMBER SMOVE SPOP SRANDMEMBER SREM SSCAN SUNION SUNIONSTORE ZADD ZCARD ZCOUNT ZDIFF ZDIFFSTORE ZINCRBY ZINTER \
            ZINTERCARD ZINTERSTORE ZLEXCOUNT ZMPOP ZMSCORE ZPOPMAX ZPOPMIN ZRANDMEMBER ZRANGE ZRANGEBYLEX ZRANGEBYSCORE \
            ZRANGESTORE ZRANK ZREM ZREMRANGEBYLEX ZREMRANGEBYRANK ZREMRANGEBYSCORE ZREVRANGE ZREVRANGEBYLEX ZREVRANGEBYSCORE \
            ZREVRANK ZSCAN ZSCORE ZUNION ZUNIONSTORE BLPOP BRPOP BLMPOP BLMOVE BRPOPLPUSH BZPOPMIN BZPOPMAX BZMPOP COPY SORT SORT_RO \
            DEL UNLINK EXISTS EXPIRE EXPIREAT PEXPIRE PEXPIREAT EXPIRETIME \
            PEXPIRETIME TTL PTTL PERSIST TYPE RENAME RENAMENX SCAN RANDOMKEY OBJECT TOUCH KEYS MOVE MULTI EXEC DISCARD WATCH \
            UNWATCH EVAL EVALSHA EVAL_RO EVALSHA_RO SCRIPT SUBSCRIBE UNSUBSCRIBE PSUBSCRIBE PUNSUBSCRIBE PUBLISH PUBSUB PING ECHO \
            SELECT SWAPDB DBSIZE FLUSHDB FLUSHALL CLIENT CONFIG COMMAND SLOWLOG MEMORY HELLO AUTH TIME INFO RESET";
        let missing: Vec<_> = expected.split_whitespace().filter(|name| !names.contains(*name)).collect();
        assert!(missing.is_empty(), "never generated: {missing:?}");
    }

    #[test]
    fn only_subscribers_subscribe() {
        let history = Generator::new(6, &Family::IMPLEMENTED).history(20_000);
        assert!(history.iter().filter(|step| step.connection < SUBSCRIBER2).all(|step| {
            !matches!(
                step.args[0].to_ascii_uppercase().as_slice(),
                b"SUBSCRIBE" | b"PSUBSCRIBE" | b"SSUBSCRIBE" | b"MONITOR"
            )
        }));
    }
}
