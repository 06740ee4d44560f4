//! What scripts see, and what they cannot do.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use mtcache_conformance::Client;
use mtcache_protocol::{Reply, Version};
use parking_lot::Mutex;

use crate::host::{Host, LogLevel};
use crate::testing::{Pair, Rig, split};
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

fn text(reply: &Reply) -> String {
    String::from_utf8_lossy(reply.as_bytes()).into_owned()
}

#[test]
fn any_number_of_scripts_can_be_known() {
    let engine = Engine::new(&EngineOptions::default(), Arc::new(Still));
    let mut session = Session::trusted(engine.connect(String::new(), String::new(), Box::new(NoMailbox)));
    let mut out = Reply::new(Version::Resp2);
    // Lua lets about 8,000 values be referred to from outside.
    for number in (0..10_000).chain(0..2) {
        let script = format!("return {number}");
        out.clear();
        engine.dispatch(&mut session, &[b"EVAL", script.as_bytes(), b"0"], engine.now(), &mut out);
        assert_eq!(text(&out), format!(":{number}\r\n"));
    }
}

#[test]
fn what_a_script_selects_it_selects_for_itself() {
    let engine = Engine::new(&EngineOptions::default(), Arc::new(Still));
    let mut session = Session::trusted(engine.connect(String::new(), String::new(), Box::new(NoMailbox)));
    let mut out = Reply::new(Version::Resp2);
    for script in ["redis.call('select',5) return 1", "redis.call('select',5) error('x')"] {
        engine.dispatch(&mut session, &[b"EVAL", script.as_bytes(), b"0"], engine.now(), &mut out);
        assert_eq!(session.db(), 0);
    }
    let transaction: [&[&[u8]]; 4] =
        [&[b"MULTI"], &[b"EVAL", b"return redis.call('select',5)", b"0"], &[b"SET", b"k", b"v"], &[b"EXEC"]];
    for command in transaction.into_iter().chain([&[b"EXISTS".as_slice(), b"k"] as &[&[u8]]]) {
        out.clear();
        engine.dispatch(&mut session, command, engine.now(), &mut out);
    }
    assert_eq!(text(&out), ":1\r\n");
}

#[test]
fn tables_of_any_size_are_encoded_and_returned() {
    let fill = "local t = {} for i = 1, 20000 do t[MAKE] = VALUE end ";
    let with = |make: &str, value: &str, rest: &str| {
        eval(&(fill.replace("MAKE", make).replace("VALUE", value) + rest))
    };
    for value in ["'v'..i", "{i}"] {
        for make in ["i", "'k'..i"] {
            for rest in ["return #cjson.encode(t) > 100000", "return #cmsgpack.pack(t) > 40000"] {
                assert_eq!(with(make, value, rest), ":1\r\n", "{make} {value} {rest}");
            }
        }
    }
    assert!(with("'k'..i", "'v'..i", "return {map=t}").starts_with("*40000\r\n"));
    assert!(with("'k'..i", "true", "return {set=t}").starts_with("*20000\r\n"));
    assert!(with("i", "{i}", "return t").starts_with("*20000\r\n"));
    let many: Vec<String> = (0..20_000).map(|number| number.to_string()).collect();
    let rest: Vec<&[u8]> =
        [b"10000".as_slice()].into_iter().chain(many.iter().map(String::as_bytes)).collect();
    assert_eq!(eval_with("return {#KEYS, ARGV[10000]}", &rest), "*2\r\n:10000\r\n$5\r\n19999\r\n");
}

#[test]
fn numbers_become_arguments_as_c_writes_them() {
    assert_eq!(eval("return redis.call('echo', 1e17)"), "$5\r\n1e+17\r\n");
    assert_eq!(eval("return redis.call('echo', -1e16)"), "$18\r\n-10000000000000000\r\n");
    assert_eq!(eval("return redis.call('echo', 123456789012345680)"), "$22\r\n1.2345678901234568e+17\r\n");
}

/// A clock that goes on by a millisecond with every look.
#[derive(Default)]
struct Going(AtomicU64);

impl Clock for Going {
    fn now(&self) -> UnixMillis {
        UnixMillis(1_700_000_000_000)
    }

    fn monotonic_nanos(&self) -> u64 {
        self.0.fetch_add(1_000_000, Ordering::Relaxed)
    }
}

#[test]
fn nobody_waits_for_a_script_that_takes_too_long() {
    let engine = Arc::new(Engine::new(&EngineOptions::default(), Arc::new(Going::default())));
    let session = || Session::trusted(engine.connect(String::new(), String::new(), Box::new(NoMailbox)));
    let run = |session: &mut Session, args: &[&[u8]]| {
        let mut out = Reply::new(Version::Resp2);
        engine.dispatch(session, args, engine.now(), &mut out);
        text(&out)
    };
    assert_eq!(run(&mut session(), &[b"CONFIG", b"SET", b"busy-reply-threshold", b"1500"]), "+OK\r\n");
    std::thread::scope(|scope| {
        let script = scope.spawn(|| run(&mut session(), &[b"EVAL", b"while true do end", b"0"]));
        // They begin to wait before it takes too long, and may not know whether it does.
        let waiting: Vec<_> = [[b"INFO".as_slice(), b"everything"], [b"MEMORY", b"STATS"]]
            .map(|command| {
                scope.spawn(move || {
                    std::thread::sleep(std::time::Duration::from_millis(50));
                    run(&mut session(), &command)
                })
            })
            .into();
        for reply in waiting {
            let reply = reply.join().unwrap();
            assert!(reply.starts_with("-BUSY"), "{reply}");
        }
        assert!(engine.begin_snapshot_at_once().is_none());
        assert_eq!(run(&mut session(), &[b"SCRIPT", b"KILL"]), "+OK\r\n");
        assert!(script.join().unwrap().contains("Script killed"));
    });
    assert!(engine.begin_snapshot_at_once().is_some());
}

#[test]
fn a_script_that_declares_itself_is_admitted_by_what_it_declares() {
    let mut pair = Pair::start();
    pair.same(&[
        "SET k v",
        "SCRIPT LOAD \"#!lua\\nreturn 1\"",
        "SCRIPT LOAD \"#!lua flags=no-writes\\nreturn 1\"",
        "SCRIPT LOAD \"#!lua flags=allow-oom\\nreturn redis.call('set', 'k', 'w')\"",
        "MULTI",
        "EVAL \"#!lua\\nreturn 1\" 0",
        "CONFIG SET maxmemory 0",
        "EXEC",
        "MULTI",
        "EVAL \"#!lua flags=no-writes\\nreturn 1\" 0",
    ]);
    let (mut our_other, mut their_other) = pair.others();
    let limit = |ours: &mut Rig, theirs: &mut Client| {
        for line in ["CONFIG SET maxmemory-policy noeviction", "CONFIG SET maxmemory 1"] {
            assert_eq!(ours.run(line), "+OK");
            assert_eq!(format!("{:?}", theirs.command(&split(line)).unwrap()), "+OK");
        }
    };
    limit(&mut our_other, &mut their_other);
    pair.same(&["EXEC"]);
    for line in ["CONFIG SET maxmemory 0", "MULTI", "EVAL \"#!lua\\nreturn 1\" 0"] {
        pair.same(&[line]);
    }
    limit(&mut our_other, &mut their_other);
    pair.same(&[
        "EXEC",
        "EVAL \"#!lua\\nreturn 1\" 0",
        "EVAL \"#!lua flags=\\nreturn 1\" 0",
        "EVAL \"#!lua flags=no-writes\\nreturn 1\" 0",
        "EVAL \"#!lua flags=no-writes\\nreturn redis.call('set', 'k', 'x')\" 0",
        "EVAL \"#!lua flags=allow-oom\\nreturn redis.call('set', 'k', 'x')\" 0",
        "EVAL_RO \"#!lua flags=no-writes\\nreturn redis.call('get', 'k')\" 0",
        "EVAL_RO \"#!lua\\nreturn 1\" 0",
        "EVAL_RO \"#!lua flags=allow-oom\\nreturn 1\" 0",
        "EVAL \"#!lua flags=nosuch\\nreturn 1\" 0",
        "EVAL \"#!lua\" 0",
        "EVALSHA b7f2a5ee2f5c1a4a8a3c57b1ba81cf1a0c3d3f8f 0",
        "EVAL \"return 1\" 0",
        "EVAL \"return redis.call('set', 'k', 'y')\" 0",
        "EVAL \"return redis.call('get', 'k')\" 0",
    ]);
    for source in [
        "#!lua\nreturn 1",
        "#!lua flags=no-writes\nreturn 1",
        "#!lua flags=allow-oom\nreturn redis.call('set', 'k', 'w')",
    ] {
        let sha = super::sha1_hex(source.as_bytes());
        pair.same_args(&[b"EVALSHA".as_slice(), &sha, b"0"]);
    }
}

#[test]
fn a_pause_of_writes_holds_scripts_by_what_they_declare() {
    let mut rig = Rig::new();
    let no_writes = sha(&mut rig, "#!lua flags=no-writes\\nreturn 1");
    let writes = sha(&mut rig, "#!lua\\nreturn 1");
    rig.run("CLIENT PAUSE 400 WRITE");
    rig.check(&[
        ("EVAL \"#!lua flags=no-writes\\nreturn 1\" 0", ":1"),
        (&format!("EVALSHA {no_writes} 0"), ":1"),
        ("EVAL_RO \"return 1\" 0", ":1"),
        ("MULTI", "+OK"),
        (&format!("EVALSHA {no_writes} 0"), "+QUEUED"),
        ("EXEC", "[:1]"),
    ]);
    for line in [
        "EVAL \"#!lua\\nreturn 1\" 0",
        "EVAL \"#!lua flags=allow-oom\\nreturn 1\" 0",
        "EVAL \"return 1\" 0",
        &format!("EVALSHA {writes} 0"),
    ] {
        rig.another().wait(line);
    }
}

fn sha(rig: &mut Rig, source: &str) -> String {
    crate::testing::plain(&rig.run(&format!("SCRIPT LOAD \"{source}\"")))
}

#[test]
fn globals_are_those_of_redis() {
    let mut pair = Pair::start();
    pair.same(&[
        "EVAL \"local t = {} for k in pairs(_G) do t[#t + 1] = k end table.sort(t) return t\" 0",
        "EVAL \"return __redis__err__handler('x')\" 0",
        "EVAL \"local e = __redis__err__handler('x')\\nreturn {e.err, e.source, e.line}\" 0",
        "EVAL \"local e = __redis__err__handler({err='MY x'})\\nreturn {e.err, e.source, e.line}\" 0",
        "EVAL \"\\n\\nlocal e = __redis__err__handler(nil)\\nreturn {e.err, e.source, e.line}\" 0",
        "EVAL \"local function f() error('a') end\\nlocal _, e = xpcall(f, __redis__err__handler) return {e.err, e.source, e.line}\" 0",
    ]);
}

#[test]
fn what_a_script_logs_reaches_the_owners_log() {
    #[derive(Default)]
    struct Log(Mutex<Vec<(LogLevel, String)>>);
    impl Host for Log {
        fn log(&self, level: LogLevel, text: &str) {
            self.0.lock().push((level, text.to_owned()));
        }
    }
    let mut rig = Rig::new();
    let log = Arc::new(Log::default());
    rig.engine.add_host(log.clone());
    rig.check(&[
        ("EVAL \"redis.log(redis.LOG_WARNING, 'a', 2, 'c', {}, 1.5) return 1\" 0", ":1"),
        ("EVAL \"redis.log(redis.LOG_DEBUG, 'd') return 1\" 0", ":1"),
    ]);
    let expected = [(LogLevel::Warning, "a 2 c 1.5"), (LogLevel::Debug, "d")];
    assert_eq!(*log.0.lock(), expected.map(|(level, text)| (level, text.to_owned())));
}
