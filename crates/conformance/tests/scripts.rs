//! Many small scripts, one a line in `scripts.txt`, on our server and on redis-server 7.0.15: what they answer over RESP2 and
//! over RESP3 is equal to the byte, and no script ends the server.

use std::time::Duration;

use mtcache_conformance::resp::write_command;
use mtcache_conformance::{Client, ServerOptions, TestServer};

const SCRIPTS: &str = include_str!("scripts.txt");
/// Asked for after each script; its reply ends the answer.
const MARK: &str = "the end of this answer";

/// What the server sends for one command, as it is.
fn answer(client: &mut Client, args: &[&[u8]]) -> String {
    let mut bytes = Vec::new();
    write_command(&mut bytes, args);
    write_command(&mut bytes, &["ECHO", MARK]);
    client.send_raw(&bytes).unwrap();
    let end = format!("${}\r\n{MARK}\r\n", MARK.len());
    let mut answer = Vec::new();
    while !answer.ends_with(end.as_bytes()) {
        match client.read_available(Duration::from_secs(20)).unwrap() {
            Some(more) if !more.is_empty() => answer.extend(more),
            other => panic!("{other:?} after {}", answer.escape_ascii()),
        }
    }
    answer.truncate(answer.len() - end.len());
    answer.escape_ascii().to_string()
}

#[test]
fn scripts_answer_as_on_redis() {
    let ours = TestServer::mtcache(ServerOptions::new()).unwrap();
    let theirs = TestServer::redis(ServerOptions::new()).unwrap();
    let mut differences = Vec::new();
    for version in ["2", "3"] {
        let (mut here, mut there) = (ours.client().unwrap(), theirs.client().unwrap());
        here.command(&["HELLO", version]).unwrap();
        there.command(&["HELLO", version]).unwrap();
        for line in SCRIPTS.lines() {
            let script = line.replace("<nl>", "\n");
            for command in ["EVAL", "EVAL_RO"] {
                let args = [command.as_bytes(), script.as_bytes(), b"0"];
                let (found, expected) = (answer(&mut here, &args), answer(&mut there, &args));
                if found != expected {
                    differences.push(format!("{command} {line}\n  ours:   {found}\n  theirs: {expected}"));
                }
            }
        }
    }
    assert!(differences.is_empty(), "{} differences:\n{}", differences.len(), differences.join("\n"));
}

/// What ends redis-server, or what could end any server; of ours it is only asked that it goes on.
#[test]
fn no_script_ends_the_server() {
    let ours = TestServer::mtcache(ServerOptions::new()).unwrap();
    let mut client = ours.client().unwrap();
    for script in [
        "error({})",
        "error({err={}})",
        "error(setmetatable({},{__tostring=function() error('x') end}))",
        "error(setmetatable({},{__index=function() error('x') end}))",
        "local function f() return f() + 1 end return f()",
        "local function f() local ok = pcall(f) return ok end return f()",
        "local function f(x) return redis.pcall(f) end return f()",
        "local t={} for i=1,300 do t={t} end return t",
        "local t={} for i=1,100000 do t={t} end return cmsgpack.pack(t)",
        "cjson.encode_max_depth(100000000) local t={} for i=1,100000 do t={t} end return cjson.encode(t)",
        "cjson.decode_max_depth(100000000) return cjson.decode(string.rep('[',200000))",
        "cjson.decode_max_depth(100000000) return cjson.decode(string.rep('{\"a\":',200000))",
        "return cmsgpack.unpack(string.rep('\\145',1000000))",
        "return cmsgpack.unpack(string.rep('\\129\\1',1000000))",
        "return cmsgpack.unpack(string.rep('\\1',1000000))",
        "return struct.unpack(string.rep('b',100000),string.rep('x',100000))",
        "return struct.pack('c2147483647','x')",
        "return #struct.pack(string.rep('i32',100000))",
        "return loadstring(string.rep('(',100000))",
        "return loadstring('return '..string.rep('{',100000))",
        "return string.rep('x', 5000000000)",
        "return string.format('%99999d', 1)",
        "return string.find(string.rep('a',100000), string.rep('(',200))",
        "return string.rep('a',220000):find(string.rep('a?',220000))",
        "local c c=coroutine.wrap(function() return c() end) return c()",
        "local function f() return coroutine.wrap(f)() end return f()",
        "coroutine.wrap(function() redis.call('nosuch') end)()",
        "table.insert(redis, 1) redis.x = 1",
        "table.sort({3,2,1,5,4}, function() return true end) return 1",
        "return table.concat({}, 'x', 1, 10)",
        "return {unpack({}, 1, 1e7)}",
        "return redis.call(unpack({}, 1, 7000))",
        "setmetatable({}, {__gc=function() error('x') end}) collectgarbage() return 1",
        "return setmetatable({}, {__index=function() error('never') end})",
        "return {err=setmetatable({},{})}",
        "return {double='x', map=1, set=2, verbatim_string={}}",
    ] {
        let _ = client.command(&["EVAL", script, "0"]).unwrap();
        // Nothing that a script did is there for the next.
        let left =
            client.command(&["EVAL", "return {#redis, type(string.rep), type(redis.call)}", "0"]).unwrap();
        assert_eq!(left.elements().map(|left| left.len()), Some(3), "after {script}");
        client.command(&["EVAL", "cjson.encode_max_depth(1000) cjson.decode_max_depth(1000)", "0"]).unwrap();
    }
    assert_eq!(client.command(&["PING"]).unwrap().text().as_deref(), Some("PONG"));
}
