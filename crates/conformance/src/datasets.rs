//! Random data of all types on both sides of every threshold of encoding, in several databases, with and without expiries:
//! what files are written of and must come back as. And the look at a server that such a comparison needs.
//!
//! Expiries are moments far away, so that no two servers can differ in what has expired while they are compared.

use std::collections::BTreeMap;
use std::io;

use crate::args;
use crate::client::Client;
use crate::generate::draw::{Args, Draw};
use crate::resp::Value;
use crate::state::{self, State};

/// The earliest expiry, in milliseconds of Unix time: in the year 2100.
const FAR_AWAY: i64 = 4_102_444_800_000;

/// The databases that are written to.
const DATABASES: [usize; 4] = [0, 1, 9, 15];

/// Which scores a dataset has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scores {
    /// Any numbers.
    Any,
    /// Halves, which every server prints alike: Valkey prints others with fewer digits than Redis does.
    Halves,
}

/// Writes a dataset of about `keys` keys; the same seed gives the same.
pub fn fill(client: &mut Client, seed: u64, keys: usize, scores: Scores) -> io::Result<()> {
    let mut draw = Draw::new(seed);
    let mut commands: Vec<Args> = Vec::new();
    for number in 0..keys {
        if number == 0 || draw.percent(10) {
            commands.push(args!["SELECT", DATABASES[draw.below(DATABASES.len())]]);
        }
        let key = key(&mut draw, number);
        commands.push(args!["DEL", key.as_slice()]);
        value(&mut draw, &key, scores, &mut commands);
        if draw.percent(30) {
            let at = FAR_AWAY + draw.between(0, 1_000_000_000_000);
            commands.push(args!["PEXPIREAT", key.as_slice(), at]);
        }
    }
    commands.push(args!["SELECT", "0"]);
    for chunk in commands.chunks(500) {
        for (command, reply) in chunk.iter().zip(client.pipeline(chunk)?) {
            if let Some(error) = reply.error() {
                return Err(io::Error::other(format!(
                    "{:?}: {error}",
                    command[0].escape_ascii().to_string()
                )));
            }
        }
    }
    Ok(())
}

/// What a server holds, and when each key expires to the millisecond.
pub fn look(client: &mut Client) -> io::Result<Dataset> {
    let state = state::take(client)?;
    let mut expiries = BTreeMap::new();
    for (database, key) in state.keys() {
        let questions = [args!["SELECT", usize::from(*database)], args!["PEXPIRETIME", key.as_slice()]];
        let mut replies = client.pipeline(&questions)?;
        expiries.insert((*database, key.clone()), replies.pop().unwrap_or(Value::Null));
    }
    client.command(&args!["SELECT", "0"])?;
    Ok(Dataset { state, expiries })
}

/// What a server holds.
#[derive(Debug)]
pub struct Dataset {
    state: State,
    expiries: BTreeMap<(u8, Vec<u8>), Value>,
}

impl Dataset {
    /// Number of keys.
    pub fn len(&self) -> usize {
        self.state.len()
    }

    /// Whether there is no key.
    pub fn is_empty(&self) -> bool {
        self.state.is_empty()
    }

    /// What differs from another dataset, one line for each difference.
    pub fn differences(&self, other: &Self) -> Vec<String> {
        let mut lines = state::differences(&self.state, &other.state);
        for (at, expiry) in &self.expiries {
            if other.expiries.get(at).is_some_and(|theirs| theirs != expiry) {
                lines.push(format!(
                    "{}: expires at {expiry:?} and {:?}",
                    at.1.escape_ascii(),
                    other.expiries.get(at)
                ));
            }
        }
        lines
    }
}

fn key(draw: &mut Draw, number: usize) -> Vec<u8> {
    match draw.below(10) {
        0 => (number as i64 * 7919 - 3000).to_string().into_bytes(),
        1 => [bytes(draw, 12), number.to_string().into_bytes()].concat(),
        2 => format!("{number}:{}", "long".repeat(draw.below(60))).into_bytes(),
        _ => format!("key:{number}").into_bytes(),
    }
}

fn bytes(draw: &mut Draw, len: usize) -> Vec<u8> {
    (0..draw.below(len + 1)).map(|_| draw.bits() as u8).collect()
}

/// A string: an integer of any width, a short text, random bytes, something that compresses, something big.
fn text(draw: &mut Draw) -> Vec<u8> {
    match draw.below(12) {
        0..=3 => {
            let shift = draw.below(64);
            ((draw.bits() as i64) >> shift).to_string().into_bytes()
        }
        4 => bytes(draw, 30),
        5 => bytes(draw, 70),
        6 => bytes(draw, 7).repeat(draw.below(40)),
        7 => Vec::new(),
        8 if draw.percent(3) => bytes(draw, 20_000),
        8 => format!("{{\"symbol\":\"S{}\",\"price\":{}}}", draw.below(50), draw.below(100_000))
            .repeat(draw.below(6))
            .into_bytes(),
        _ => format!("word{}", draw.below(5000)).into_bytes(),
    }
}

/// How many elements: mostly few, sometimes beyond each threshold.
fn size(draw: &mut Draw) -> usize {
    match draw.below(40) {
        0 => 127 + draw.below(4),
        1 => 511 + draw.below(4),
        2 => 1000 + draw.below(500),
        _ => 1 + draw.below(20),
    }
}

fn score(draw: &mut Draw, scores: Scores) -> Vec<u8> {
    if scores == Scores::Halves {
        return format!("{}.5", draw.between(-9999, 9999)).into_bytes();
    }
    match draw.below(8) {
        0 => b"inf".to_vec(),
        1 => b"-inf".to_vec(),
        2 | 3 => draw.between(-100, 100).to_string().into_bytes(),
        4 => ((draw.bits() as i64) >> draw.below(64)).to_string().into_bytes(),
        5 => format!("{:e}", f64::from_bits(draw.bits() & 0x7fdf_ffff_ffff_ffff)).into_bytes(),
        _ => format!("{}.{}", draw.between(-9999, 9999), draw.below(100_000)).into_bytes(),
    }
}

fn value(draw: &mut Draw, key: &[u8], scores: Scores, commands: &mut Vec<Args>) {
    let mut command = match draw.below(10) {
        0..=3 => {
            commands.push(args!["SET", key, text(draw)]);
            if draw.percent(10) {
                commands.push(args!["APPEND", key, text(draw)]);
            }
            return;
        }
        4 | 5 => {
            let mut command = args!["RPUSH", key];
            command.extend((0..size(draw)).map(|_| text(draw)));
            command
        }
        6 => {
            let mut command = args!["SADD", key];
            let shift = 20 + draw.below(44);
            command.extend((0..size(draw)).map(|_| ((draw.bits() as i64) >> shift).to_string().into_bytes()));
            command
        }
        7 => {
            let mut command = args!["SADD", key];
            command.extend((0..size(draw)).map(|_| text(draw)));
            command
        }
        8 => {
            let mut command = args!["HSET", key];
            for _ in 0..size(draw) {
                command.extend([text(draw), text(draw)]);
            }
            command
        }
        _ => {
            let mut command = args!["ZADD", key];
            for _ in 0..size(draw) {
                command.extend([score(draw, scores), text(draw)]);
            }
            command
        }
    };
    let rest = command.split_off(command.len().min(2 + 2 * 400));
    let head = command[..2].to_vec();
    commands.push(command);
    for chunk in rest.chunks(800) {
        commands.push([head.as_slice(), chunk].concat());
    }
}
