//! The differential test tested: redis-server against itself shows no difference, and everything that is changed on purpose
//! (a reply, a text, a write that is left out) is found and cut down to a few commands.

use mtcache_conformance::differential::{Plan, Report, run};
use mtcache_conformance::generate::Family;
use mtcache_conformance::generate::draw::Args;
use mtcache_conformance::replay::{Pair, Tamper};
use mtcache_conformance::{TestServer, Value, args};

fn run_redis_twice(commands: usize, seed: u64, tamper: Tamper) -> Report {
    let families = Family::IMPLEMENTED.to_vec();
    let plan = Plan { seed, commands, families, failures: 1, tamper };
    let mut pair = Pair::start(TestServer::redis).unwrap();
    run(&mut pair, &plan).unwrap()
}

#[test]
fn redis_does_not_differ_from_itself() {
    let report = run_redis_twice(100_000, Plan::from_environment().unwrap().seed, Tamper::default());
    println!("{} commands in {:?}", report.commands, report.took);
    assert!(report.failures.is_empty(), "{}", report.failures[0]);
}

#[test]
fn most_commands_meet_data_and_succeed() {
    let report = run_redis_twice(40_000, 1, Tamper::default());
    let mut poor = Vec::new();
    let meant_to_find = ["GET", "HGET", "ZSCORE", "ZRANK", "LINDEX", "LPOP", "ZMPOP", "LMOVE", "GETRANGE"];
    for (command, [replies, errors, nulls]) in &report.tally.commands {
        if meant_to_find.contains(&command.as_str()) && nulls * 10 > *replies * 6 {
            poor.push(format!("{command}: {nulls} nulls of {replies}"));
        }
        println!("{command:20} {replies:7} replies, {errors:6} errors, {nulls:6} nulls");
        if *replies >= 100 && errors * 10 > *replies * 6 && !command.starts_with("NO") {
            poor.push(format!("{command}: {errors} errors of {replies}"));
        }
    }
    // These are mostly asked for what they refuse.
    poor.retain(|line| {
        !["AUTH", "HELLO", "SORT_RO", "EVALSHA", "EVAL_RO", "COMMAND", "MULTI", "DISCARD"]
            .iter()
            .any(|name| line.starts_with(name))
    });
    assert!(poor.is_empty(), "mostly errors: {poor:#?}");
}

fn assert_found(tamper: Tamper, command: &str, steps: usize) {
    let report = run_redis_twice(60_000, 11, tamper);
    let failure = report.failures.first().unwrap_or_else(|| panic!("the change of {command} was not seen"));
    assert_eq!(failure.difference.command, command, "{failure}");
    assert!(failure.steps <= steps, "not shrunk: {failure}");
}

fn is(args: &Args, name: &[u8]) -> bool {
    args[0].eq_ignore_ascii_case(name)
}

#[test]
fn a_wrong_number_is_found() {
    fn tamper(args: &Args, reply: &mut Value) {
        if let (true, Value::Integer(number)) = (is(args, b"LLEN"), reply) {
            *number += i64::from(*number > 2);
        }
    }
    assert_found(Tamper { reply: Some(tamper), ..Tamper::default() }, "LLEN", 6);
}

#[test]
fn one_wrong_letter_in_a_float_is_found() {
    fn tamper(args: &Args, reply: &mut Value) {
        if let (true, Value::Bulk(text)) = (is(args, b"INCRBYFLOAT"), reply)
            && text.contains(&b'.')
        {
            text.push(b'0');
        }
    }
    assert_found(Tamper { reply: Some(tamper), ..Tamper::default() }, "INCRBYFLOAT", 2);
}

#[test]
fn another_error_text_is_found() {
    fn tamper(args: &Args, reply: &mut Value) {
        if let (true, Value::Error(text)) = (is(args, b"ZADD"), reply)
            && text.starts_with(b"WRONGTYPE")
        {
            text.pop();
        }
    }
    assert_found(Tamper { reply: Some(tamper), ..Tamper::default() }, "ZADD", 4);
}

#[test]
fn a_missing_element_of_an_unordered_reply_is_found() {
    fn tamper(args: &Args, reply: &mut Value) {
        if let (true, Value::Array(items) | Value::Set(items)) = (is(args, b"SINTER"), reply) {
            items.pop();
        }
    }
    assert_found(Tamper { reply: Some(tamper), ..Tamper::default() }, "SINTER", 4);
}

#[test]
fn a_write_left_out_is_found_in_the_state_even_when_its_reply_is_right() {
    fn tamper(args: &Args) -> Option<Args> {
        (is(args, b"PERSIST") && args.len() == 2).then(|| args!["EXISTS", args[1].as_slice()])
    }
    let report = run_redis_twice(60_000, 11, Tamper { command: Some(tamper), ..Tamper::default() });
    let failure = report.failures.first().expect("the PERSIST that was left out was not seen");
    assert!(failure.steps <= 4, "not shrunk: {failure}");
}

#[test]
fn a_reply_of_the_other_protocol_version_is_found() {
    fn tamper(args: &Args, reply: &mut Value) {
        if let (true, Value::Double(text)) = (is(args, b"ZSCORE"), &reply) {
            *reply = Value::Bulk(text.clone());
        }
    }
    assert_found(Tamper { reply: Some(tamper), ..Tamper::default() }, "ZSCORE", 2);
}
