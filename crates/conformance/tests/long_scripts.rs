//! Scripts that take too long, beside redis-server: what others are told meanwhile, what they may still do, and how it ends.
//!
//! The connections are made before the script starts, so that some of them share its thread.

use std::time::Duration;

use mtcache_conformance::{Client, PATIENCE, ServerOptions, TestServer, Value, run, wait_until};

const ENDLESS: &str = "while true do end";

fn options() -> ServerOptions {
    ServerOptions::new().args(["--busy-reply-threshold", "50"])
}

fn both() -> [TestServer; 2] {
    [TestServer::mtcache(options()).unwrap(), TestServer::redis(options()).unwrap()]
}

fn clients<const N: usize>(server: &TestServer) -> [Client; N] {
    std::array::from_fn(|_| {
        let mut client = server.client().unwrap();
        client.set_timeout(PATIENCE).unwrap();
        client.command(&["SELECT", "0"]).unwrap();
        client
    })
}

/// Asks until commands are refused.
fn await_busy(client: &mut Client) {
    wait_until(
        "commands are refused",
        || matches!(run(client, "PING"), Value::Error(text) if text.starts_with(b"BUSY ")),
    );
}

fn shown(value: &Value) -> String {
    format!("{value:?}")
}

#[test]
fn others_are_answered_while_a_script_runs_and_can_kill_it() {
    let mut seen = Vec::new();
    for server in both() {
        let mut said = Vec::new();
        let [mut runner, mut killer, mut other, mut watcher] = clients(&server);
        said.push(killer.command(&["SCRIPT", "KILL"]).unwrap());
        watcher.command(&["WATCH", "k"]).unwrap();
        watcher.command(&["MULTI"]).unwrap();
        runner.send(&["EVAL", ENDLESS, "0"]).unwrap();
        await_busy(&mut killer);
        for command in [
            "GET k",
            "SET k v",
            "PING",
            "PUBLISH c m",
            "SUBSCRIBE c",
            "EVAL 1 0",
            "SCRIPT EXISTS a",
            "INFO",
            "CLIENT ID",
            "MULTI",
            "GET k",
            "EXEC",
            "UNWATCH",
            "MULTI",
            "DISCARD",
            "SHUTDOWN",
            "SHUTDOWN SAVE",
            "NOSUCH",
            "GET",
            "AUTH x",
            "RESET",
        ] {
            said.push(run(&mut other, command));
        }
        // A transaction that was open before.
        said.push(watcher.command(&["GET", "k"]).unwrap());
        said.push(watcher.command(&["EXEC"]).unwrap());
        // A connection that comes now.
        let mut late = server.client().unwrap();
        said.push(late.command(&["PING"]).unwrap());
        said.push(late.command(&["SCRIPT", "KILL"]).unwrap());
        said.push(runner.reply().unwrap());
        for client in [&mut runner, &mut killer, &mut other, &mut watcher] {
            said.push(client.command(&["PING"]).unwrap());
        }
        said.push(other.command(&["SET", "k", "v"]).unwrap());
        said.push(watcher.command(&["GET", "k"]).unwrap());
        said.push(killer.command(&["SCRIPT", "KILL"]).unwrap());
        seen.push(said.iter().map(shown).collect::<Vec<_>>());
    }
    for (ours, theirs) in seen[0].iter().zip(&seen[1]) {
        assert_eq!(ours, theirs);
    }
}

#[test]
fn nothing_in_a_script_holds_up_its_end() {
    // redis-server never ends the second and the third.
    {
        let server = TestServer::mtcache(options()).unwrap();
        let [mut runner, mut killer] = clients(&server);
        for script in [
            "while true do pcall(function() while true do end end) end",
            "while true do xpcall(function() while true do end end, function() while true do end end) end",
            "while true do coroutine.resume(coroutine.create(function() while true do end end)) end",
            "while true do redis.pcall('GET', 'k') end",
            "while true do redis.call('GET', 'k') end",
            "local t = {} while true do t[#t % 100 + 1] = string.rep('x', 100) end",
        ] {
            runner.send(&["EVAL", script, "0"]).unwrap();
            await_busy(&mut killer);
            assert_eq!(
                killer.command(&["SCRIPT", "KILL"]).unwrap(),
                Value::Simple(b"OK".to_vec()),
                "{script}"
            );
            let reply = shown(&runner.reply().unwrap());
            assert!(reply.contains("Script killed by user"), "{script}: {reply}");
            // The interpreter is as good as before.
            let reply = runner.command(&["EVAL", "return pcall(error, 'x')", "0"]).unwrap();
            assert_eq!(reply, Value::NullBulk, "{script}");
        }
    }
}

#[test]
fn a_script_that_has_written_is_not_killed() {
    let mut seen = Vec::new();
    for server in both() {
        let mut said = Vec::new();
        let [mut runner, mut killer, mut reader] = clients(&server);
        // It ends by itself when it has seen enough time go by.
        let script = "redis.call('SET', 'k', 'written') local function now() local t = redis.call('TIME') \
                      return t[1] + t[2] / 1000000 end local begun = now() \
                      repeat for n = 1, 10000 do end until now() > begun + ARGV[1] return 'over'";
        runner.send(&["EVAL", script, "0", "3"]).unwrap();
        await_busy(&mut killer);
        said.push(killer.command(&["SCRIPT", "KILL"]).unwrap());
        said.push(reader.command(&["GET", "k"]).unwrap());
        said.push(runner.reply().unwrap());
        said.push(reader.command(&["GET", "k"]).unwrap());
        seen.push(said.iter().map(shown).collect::<Vec<_>>());
    }
    assert_eq!(seen[0], seen[1]);
}

#[test]
fn a_transaction_with_a_script_is_as_long_as_its_script() {
    let mut seen = Vec::new();
    for server in both() {
        let mut said = Vec::new();
        let [mut runner, mut killer] = clients(&server);
        for command in
            [&["MULTI"][..], &["SET", "before", "1"], &["EVAL", ENDLESS, "0"], &["SET", "after", "1"]]
        {
            runner.command(command).unwrap();
        }
        runner.send(&["EXEC"]).unwrap();
        await_busy(&mut killer);
        said.push(killer.command(&["SCRIPT", "KILL"]).unwrap());
        said.push(runner.reply().unwrap());
        said.push(killer.command(&["MGET", "before", "after"]).unwrap());
        seen.push(said.iter().map(shown).collect::<Vec<_>>());
    }
    assert_eq!(seen[0], seen[1]);
}

#[test]
fn shutdown_nosave_ends_a_script_that_has_written_and_leaves_nothing_of_it() {
    let options = options().args(["--appendonly", "yes", "--appendfsync", "always"]);
    let mut server = TestServer::mtcache(options).unwrap();
    let [mut runner, mut other] = clients(&server);
    other.command(&["SET", "kept", "1"]).unwrap();
    runner.send(&["EVAL", "redis.call('SET', 'half', '1') while true do end", "0"]).unwrap();
    await_busy(&mut other);
    other.send(&["SHUTDOWN", "NOSAVE"]).unwrap();
    assert!(server.wait().unwrap().success());
    server.start_again().unwrap();
    let mut client = server.client().unwrap();
    let left = client.command(&["MGET", "kept", "half"]).unwrap();
    assert_eq!(left, Value::Array(vec![Value::Bulk(b"1".to_vec()), Value::NullBulk]));
}

#[test]
fn a_signal_to_stop_ends_a_script_that_has_not_written() {
    let mut server = TestServer::mtcache(options()).unwrap();
    let [mut runner, mut other] = clients(&server);
    runner.send(&["EVAL", ENDLESS, "0"]).unwrap();
    await_busy(&mut other);
    server.signal("TERM").unwrap();
    assert!(server.wait().unwrap().success());
}

#[test]
fn connections_come_and_go_while_a_script_runs() {
    let server = TestServer::mtcache(options()).unwrap();
    let [mut runner, mut killer] = clients(&server);
    runner.send(&["EVAL", ENDLESS, "0"]).unwrap();
    await_busy(&mut killer);
    // Some watch keys or wait when the script starts to be in their way, and leave in the midst of it.
    for round in 0..50 {
        let mut client = server.client().unwrap();
        let reply = client.command(&["WATCH", "k"]).unwrap();
        assert!(shown(&reply).contains("BUSY"), "round {round}: {reply:?}");
    }
    killer.command(&["SCRIPT", "KILL"]).unwrap();
    runner.reply().unwrap();
    let [mut watcher, mut blocked] = clients(&server);
    assert_eq!(watcher.command(&["WATCH", "k"]).unwrap(), Value::Simple(b"OK".to_vec()));
    // Longer than it takes to see that it waits, shorter than the script.
    blocked.send(&["BLPOP", "list", "2"]).unwrap();
    wait_until("it waits", || shown(&run(&mut killer, "INFO clients")).contains("blocked_clients:1"));
    runner.send(&["EVAL", ENDLESS, "0"]).unwrap();
    await_busy(&mut killer);
    // Its time is over, and it is told so.
    assert_eq!(blocked.reply().unwrap(), Value::NullArray);
    drop((watcher, blocked));
    std::thread::sleep(Duration::from_millis(50));
    assert_eq!(killer.command(&["SCRIPT", "KILL"]).unwrap(), Value::Simple(b"OK".to_vec()));
    runner.reply().unwrap();
    assert_eq!(runner.command(&["SET", "k", "v"]).unwrap(), Value::Simple(b"OK".to_vec()));
}

#[test]
fn many_scripts_at_once_wait_for_each_other_or_are_refused() {
    let server = TestServer::mtcache(options()).unwrap();
    let script = "local n = 0 while n < 20000000 do n = n + 1 end return redis.call('INCR', KEYS[1])";
    let runners: Vec<_> = (0..8)
        .map(|_| {
            let mut client = server.client().unwrap();
            client.set_timeout(PATIENCE).unwrap();
            std::thread::spawn(move || {
                let mut done = 0;
                while done < 3 {
                    match client.command(&["EVAL", script, "1", "counter"]).unwrap() {
                        Value::Integer(_) => done += 1,
                        Value::Error(text) => assert!(text.starts_with(b"BUSY ")),
                        other => panic!("{other:?}"),
                    }
                    std::thread::sleep(Duration::from_millis(5));
                }
            })
        })
        .collect();
    for runner in runners {
        runner.join().unwrap();
    }
    assert_eq!(server.client().unwrap().command(&["GET", "counter"]).unwrap(), Value::Bulk(b"24".to_vec()));
}
