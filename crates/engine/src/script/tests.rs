//! What scripts see, and what they cannot do.

use std::sync::Arc;

use mtcache_protocol::{Reply, Version};

use crate::{Clock, Engine, EngineOptions, NoMailbox, Session, UnixMillis};

struct Still;

impl Clock for Still {
    fn now(&self) -> UnixMillis {
        UnixMillis(1_700_000_000_000)
    }

    fn monotonic_nanos(&self) -> u64 {
        0
    }
}

fn eval(script: &str) -> String {
    eval_with(script, &[])
}

fn eval_with(script: &str, rest: &[&[u8]]) -> String {
    let engine = Engine::new(&EngineOptions::default(), Arc::new(Still));
    let client = engine.connect(String::new(), String::new(), Box::new(NoMailbox));
    let mut session = Session::trusted(client);
    let mut out = Reply::new(Version::Resp2);
    engine.dispatch(&mut session, &[b"LPUSH", b"l", b"abc"], engine.now(), &mut out);
    out.clear();
    let mut args: Vec<&[u8]> = vec![b"EVAL", script.as_bytes()];
    if rest.is_empty() {
        args.push(b"0");
    } else {
        args.extend(rest);
    }
    engine.dispatch(&mut session, &args, engine.now(), &mut out);
    String::from_utf8_lossy(out.as_bytes()).into_owned()
}

#[test]
fn values_are_converted_as_redis_does() {
    assert_eq!(eval("return {1,2.7,'x',nil,3}"), "*3\r\n:1\r\n:2\r\n$1\r\nx\r\n");
    assert_eq!(eval("return true"), ":1\r\n");
    assert_eq!(eval("return false"), "$-1\r\n");
    assert_eq!(eval("return redis.status_reply('FINE')"), "+FINE\r\n");
    assert_eq!(eval("return redis.error_reply('MYERR')"), "-ERR MYERR\r\n");
    assert_eq!(eval("return redis.error_reply('My Err')"), "-My Err\r\n");
    assert_eq!(eval("return redis.sha1hex('')"), "$40\r\nda39a3ee5e6b4b0d3255bfef95601890afd80709\r\n");
    assert_eq!(eval("math.randomseed(0) return math.random()*1000000"), ":170828\r\n");
    assert_eq!(eval("return tostring(3.0)..tostring(1e15)..tostring(0.1)"), "$9\r\n31e+150.1\r\n");
    assert_eq!(
        eval_with("return {KEYS[1], ARGV[1], #KEYS}", &[b"1", b"k", b"a"]),
        "*3\r\n$1\r\nk\r\n$1\r\na\r\n:1\r\n"
    );
}

#[test]
fn commands_run_and_answer() {
    assert_eq!(eval("return redis.call('lindex','l',0)"), "$3\r\nabc\r\n");
    assert_eq!(eval("redis.call('set','a',1.5) return redis.call('get','a')"), "$3\r\n1.5\r\n");
    assert_eq!(eval("return redis.call('get','nokey') == false"), ":1\r\n");
    assert_eq!(
        eval("local ok, err = pcall(redis.call,'lset','l','x','y') return err"),
        "$43\r\nERR value is not an integer or out of range\r\n"
    );
    assert_eq!(
        eval("return redis.pcall('lset','l','x','y')"),
        "-ERR value is not an integer or out of range\r\n"
    );
}

#[test]
fn errors_name_the_script_and_the_line() {
    let suffix = |script: &str, line: usize| {
        let sha = super::sha1_hex(script.as_bytes());
        format!(" script: {}, on @user_script:{line}.\r\n", String::from_utf8_lossy(&sha))
    };
    for (script, line, text) in [
        ("return redis.call('lset','l','x','y')", 1, "-ERR value is not an integer or out of range"),
        (
            "\nreturn redis.call('hset','l',1,2)",
            2,
            "-WRONGTYPE Operation against a key holding the wrong kind of value",
        ),
        ("local x = nil; return x.y", 1, "-ERR user_script:1: attempt to index local 'x' (a nil value)"),
        ("return foo", 1, "-ERR user_script:1: Script attempted to access nonexistent global variable 'foo'"),
        ("foo=1", 1, "-ERR user_script:1: Attempt to modify a readonly table"),
        ("redis=nil", 1, "-ERR user_script:1: Attempt to modify a readonly table"),
        ("KEYS={}", 1, "-ERR user_script:1: Attempt to modify a readonly table"),
        ("string.x=1", 1, "-ERR user_script:1: Attempt to modify a readonly table"),
        ("rawset(_G,'x',1)", 1, "-ERR Attempt to modify a readonly table"),
        ("error('boom')", 1, "-ERR user_script:1: boom"),
        ("error({err='CODE boom'})", 1, "-CODE boom"),
        ("return redis.call('nosuch')", 1, "-ERR Unknown Redis command called from script"),
        ("return redis.call('get')", 1, "-ERR Wrong number of args calling Redis command from script"),
        ("return redis.call()", 1, "-ERR Please specify at least one argument for this redis lib call"),
        ("return redis.call({})", 1, "-ERR Lua redis lib command arguments must be strings or integers"),
        ("return redis.call('multi')", 1, "-ERR This Redis command is not allowed from script"),
    ] {
        assert_eq!(eval(script), format!("{text}{}", suffix(script, line)), "{script}");
    }
    assert_eq!(
        eval("syntax error here"),
        "-ERR Error compiling script (new function): user_script:1: '=' expected near 'error'\r\n"
    );
}

#[test]
fn nothing_but_source_text_is_compiled() {
    assert!(eval("return loadstring('\\27Lua') == nil").starts_with(":1"));
    assert_eq!(eval("return loadstring('return 7')()"), ":7\r\n");
    assert!(eval("return load(function() return nil end)").starts_with("$-1"));
    assert!(eval("error({x=1})").starts_with("-ERR "));
    assert!(eval("local t = {} t[1] = t return t").starts_with("-ERR reached lua stack limit"));
    assert!(eval("getmetatable('').__index.rep = nil").starts_with("-ERR"));
}
