//! Random scripts: commands through `redis.call` and `redis.pcall`, conversions between Lua and RESP both ways, errors of all
//! sorts, and the SCRIPT subcommands.

use std::fmt::Write as _;

use super::draw::{Args, Draw};
use super::{Family, data_command};
use crate::args;
use crate::normalise::{Comparison, comparison};

/// Scripts that are known by their digest, so that EVALSHA sometimes finds one.
const KNOWN: [(&str, &str); 3] = [
    ("return 1", "e0e1f9fabfc9d4800c877a703b823ac0578ff8db"),
    ("return KEYS[1]", "4a2267357833227dd98abdedb8cf24b15a986445"),
    ("return ARGV[1]", "098e0f0d1448c0a81dafe820f66d460eb09263da"),
];

/// Values that a script returns, each a Lua expression.
const EXPRESSIONS: [&str; 58] = [
    "1",
    "3.99",
    "-3.99",
    "1e20",
    "0/0",
    "true",
    "false",
    "nil",
    "''",
    "'text'",
    "{}",
    "{1, 2, 3}",
    "{1, nil, 3}",
    "{1, 'a', {2, {3}}, true, false}",
    "{ok = 'FINE'}",
    "{err = 'My error'}",
    "{err = 'ERR with code'}",
    "{err = 'WRONGTYPE of mine'}",
    "{double = 3.25}",
    "{map = {a = 1}}",
    "{set = {a = true}}",
    "{big_number = '123456789012345678901'}",
    "{verbatim_string = {format = 'txt', string = 'words'}}",
    "{a = 1, 2}",
    "redis.status_reply('FINE')",
    "redis.error_reply('Bad')",
    "redis.error_reply('-CODE bad')",
    "redis.sha1hex('')",
    "redis.sha1hex('abc')",
    "#KEYS",
    "#ARGV",
    "KEYS",
    "ARGV",
    "KEYS[1]",
    "{KEYS[1], ARGV[1], KEYS[2], ARGV[2]}",
    "tostring(ARGV[1])",
    "tonumber(ARGV[1])",
    "type(redis.pcall('GET', 's:0'))",
    "redis.pcall('NOSUCH')",
    "redis.pcall('GET')",
    "redis.pcall()",
    "redis.pcall('INCR', 's:0')['err']",
    "string.format('%.17g', 0.1)",
    "tostring(1e15)",
    "tostring(12345678901234567)",
    "{string.byte('abc', 1, -1)}",
    "cjson.encode({1, 'a', {b = ARGV[1]}})",
    "cjson.encode({KEYS, ARGV, tonumber(ARGV[1])})",
    "cjson.decode('{\"a\":[1,2.5,null,true]}').a",
    "cjson.decode(ARGV[1])",
    "cjson.decode(cjson.encode({ARGV}))",
    "cmsgpack.pack(ARGV, tonumber(ARGV[1]))",
    "{cmsgpack.unpack(cmsgpack.pack(ARGV[1], #KEYS, {KEYS}))}",
    "cmsgpack.unpack(ARGV[1])",
    "bit.tohex(tonumber(ARGV[1]) or 7)",
    "{bit.bxor(#KEYS, 255), bit.lshift(3, #ARGV), bit.bnot(#KEYS)}",
    "struct.pack('>I2i4sd', #KEYS, -2, 'text', tonumber(ARGV[1]) or 0.5)",
    "{struct.unpack('<I2i4', ARGV[1] or 'abcdef')}",
];

/// Whole scripts that go wrong, or that look at their surroundings.
const SCRIPTS: [&str; 30] = [
    "return redis.call('NOSUCH')",
    "return redis.call('GET')",
    "return redis.call()",
    "return redis.call('SUBSCRIBE', 'c')",
    "return redis.call('MULTI')",
    "return redis.call('EVAL', 'return 1', 0)",
    "return redis.call('WATCH', 'k')",
    "error('thrown')",
    "error({err = 'ERR thrown table'})",
    "error()",
    "return redis.call('GET', {})",
    "return redis.call('SET', 's:0', 1.5)",
    "return redis.call('SET', 's:1', 3)",
    "return redis.call('SET', 's:1', 1e300)",
    "undefined_variable = 1",
    "return undefined_variable",
    "local x = nil; return x.y",
    "return 'unfinished",
    "this is not Lua",
    "return os.time()",
    "return io",
    "return loadfile",
    "return require",
    "redis.setresp(3); return redis.call('HGETALL', 'h:7')",
    "redis.setresp(4)",
    "redis.replicate_commands(); return 1",
    "redis.log(redis.LOG_DEBUG, 'quiet'); return 2",
    "redis.breakpoint(); return redis.REPL_ALL",
    "for i = 1, 3 do redis.call('RPUSH', KEYS[1], i) end; return redis.call('LLEN', KEYS[1])",
    "redis.call('INCR', 'n:0'); return redis.call('INCR', 's:0')",
];

/// One command of the family.
pub(super) fn next(draw: &mut Draw, families: &[Family]) -> Args {
    match draw.below(24) {
        0..=7 => eval(draw, &commands(draw.clone(), families)),
        8..=11 => {
            let script = format!("return {}", draw.pick(&EXPRESSIONS));
            eval(draw, &script)
        }
        12..=14 => {
            let script = draw.pick(&SCRIPTS);
            eval(draw, script)
        }
        15..=16 => {
            let script = draw.pick(&["return redis.call(unpack(ARGV))", "return redis.pcall(unpack(ARGV))"]);
            let mut args = args![draw.pick(&["EVAL", "EVAL", "EVAL_RO"]), script, "0"];
            args.extend(callable(draw, families));
            args
        }
        17..=18 => {
            let (_, digest) = draw.pick(&KNOWN);
            let digest = if draw.percent(10) { digest.to_uppercase() } else { digest.to_owned() };
            args![draw.pick(&["EVALSHA", "EVALSHA", "EVALSHA_RO"]), digest, "1", draw.any_key(), draw.value()]
        }
        19 => args!["SCRIPT", "LOAD", draw.pick(&KNOWN).0],
        20 => {
            let mut args = args!["SCRIPT", "EXISTS"];
            args.extend((0..draw.few()).map(|_| draw.pick(&KNOWN).1.as_bytes().to_vec()));
            args
        }
        21 => match draw.below(12) {
            0 => args!["SCRIPT", "FLUSH"],
            1 => args!["SCRIPT", "FLUSH", draw.pick(&["SYNC", "ASYNC", "LATER"])],
            2 => args!["SCRIPT", "LOAD", "this is not Lua"],
            3 => args!["SCRIPT", "NONSENSE"],
            5 => args!["SCRIPT", "LOAD"],
            _ => args!["EVALSHA", "ffffffffffffffffffffffffffffffffffffffff", "0"],
        },
        22 => args!["EVAL", "return {KEYS, ARGV}", draw.integer(), draw.value(), draw.value()],
        _ => {
            let script = format!("redis.setresp(3); return {}", draw.pick(&EXPRESSIONS));
            eval(draw, &script)
        }
    }
}

fn eval(draw: &mut Draw, script: &str) -> Args {
    let keys = draw.below(3);
    let mut args = args![draw.pick(&["EVAL", "EVAL", "EVAL", "EVAL", "eval", "EVAL_RO"]), script, keys];
    args.extend((0..keys).map(|_| draw.any_key()));
    args.extend((0..draw.below(3)).map(|_| draw.value()));
    args
}

/// A script of some random commands, returning all their replies.
fn commands(mut draw: Draw, families: &[Family]) -> String {
    let mut script = String::from("local r = {}\n");
    for _ in 0..=draw.below(4) {
        let function = draw.pick(&["pcall", "pcall", "pcall", "call"]);
        let _ = write!(script, "r[#r + 1] = redis.{function}(");
        for (position, arg) in callable(&mut draw, families).iter().enumerate() {
            let comma = if position == 0 { "" } else { ", " };
            let _ = write!(script, "{comma}{}", literal(arg));
        }
        script.push_str(")\n");
    }
    script.push_str(draw.pick(&["return r", "return r", "return r[1]", "return #r"]));
    script
}

/// A data command whose reply does not depend on chance, order or the clock.
fn callable(draw: &mut Draw, families: &[Family]) -> Args {
    loop {
        let args = data_command(draw, families);
        // Big writes would make scripts unreadable.
        if comparison(&args) == Comparison::Exact && args.len() < 24 {
            return args;
        }
    }
}

/// The bytes as a Lua string literal.
fn literal(bytes: &[u8]) -> String {
    let mut text = String::from("'");
    for &byte in bytes {
        match byte {
            b'\'' | b'\\' => {
                text.push('\\');
                text.push(char::from(byte));
            }
            b' '..=b'~' => text.push(char::from(byte)),
            _ => {
                let _ = write!(text, "\\{byte:03}");
            }
        }
    }
    text.push('\'');
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_literal_is_safe_for_any_bytes() {
        assert_eq!(literal(b"a'\\\x00\xff1"), "'a\\'\\\\\\000\\2551'");
    }
}
