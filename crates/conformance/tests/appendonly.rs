//! CONFIG SET appendonly while the server runs: what is there and what is written comes back after a crash, here and in Redis.

use std::time::{Duration, Instant};

use mtcache_conformance::datasets::{Scores, fill, look};
use mtcache_conformance::{Client, Program, ServerOptions, TestServer, Value, ok, run};

fn options(journal: &str) -> ServerOptions {
    ServerOptions::new().args(["--appendonly", journal, "--save", "", "--appendfsync", "always"])
}

fn wait_for(client: &mut Client, what: &str) {
    let since = Instant::now();
    while !run(client, "INFO persistence").text().unwrap().contains(what) {
        assert!(since.elapsed() < Duration::from_mins(1), "{what} does not come");
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn switch_on(client: &mut Client) {
    ok(client, "CONFIG SET appendonly yes");
    wait_for(client, "aof_enabled:1");
    wait_for(client, "aof_rewrite_in_progress:0");
    wait_for(client, "aof_last_bgrewrite_status:ok");
}

/// The server's files moved under another server that begins with `appendonly yes`.
fn start_on(program: Program, from: &TestServer) -> TestServer {
    let mut server = TestServer::start(program, options("yes")).unwrap();
    server.stop().unwrap();
    let (source, target) = (from.directory().join("appendonlydir"), server.directory().join("appendonlydir"));
    std::fs::remove_dir_all(&target).unwrap();
    std::fs::create_dir(&target).unwrap();
    for file in std::fs::read_dir(source).unwrap() {
        let file = file.unwrap();
        std::fs::copy(file.path(), target.join(file.file_name())).unwrap();
    }
    server.start_again().unwrap();
    server
}

#[test]
fn switched_on_it_holds_what_was_there_and_what_is_written_then() {
    let mut server = TestServer::mtcache(options("no")).unwrap();
    let mut client = server.client().unwrap();
    fill(&mut client, 5, 300, Scores::Any).unwrap();
    switch_on(&mut client);
    ok(&mut client, "SELECT 4");
    ok(&mut client, "SET later value");
    ok(&mut client, "SELECT 0");
    let held = look(&mut client).unwrap();
    drop(client);
    server.kill().unwrap();
    for program in [Program::Mtcache, Program::Redis] {
        let other = start_on(program, &server);
        let mut differences = look(&mut other.client().unwrap()).unwrap().differences(&held);
        differences.retain(|line| !line.contains(": encoding: "));
        assert!(differences.is_empty(), "{program}: {differences:#?}");
    }
}

#[test]
fn nothing_is_lost_while_others_write() {
    let mut server = TestServer::mtcache(options("no")).unwrap();
    let mut client = server.client().unwrap();
    fill(&mut client, 6, 300, Scores::Any).unwrap();
    let ended = std::sync::atomic::AtomicBool::new(false);
    let counts: Vec<i64> = std::thread::scope(|scope| {
        let writers: Vec<_> = (0..3)
            .map(|number| {
                let (server, ended) = (&server, &ended);
                scope.spawn(move || {
                    let (mut client, mut count) = (server.client().unwrap(), 0);
                    while !ended.load(std::sync::atomic::Ordering::Relaxed) {
                        count += 1;
                        assert_eq!(
                            run(&mut client, &format!("INCR counter:{number}")),
                            Value::Integer(count)
                        );
                    }
                    count
                })
            })
            .collect();
        switch_on(&mut client);
        ok(&mut client, "CONFIG SET appendonly no");
        switch_on(&mut client);
        std::thread::sleep(Duration::from_millis(50));
        ended.store(true, std::sync::atomic::Ordering::Relaxed);
        writers.into_iter().map(|writer| writer.join().unwrap()).collect()
    });
    drop(client);
    server.kill().unwrap();
    let other = start_on(Program::Mtcache, &server);
    let mut client = other.client().unwrap();
    for (number, count) in counts.iter().enumerate() {
        assert_eq!(run(&mut client, &format!("GET counter:{number}")).text(), Some(count.to_string()));
    }
}

#[test]
fn switched_off_it_stays_as_it_was_and_switched_on_again_it_is_replaced() {
    let mut server = TestServer::mtcache(options("yes")).unwrap();
    let mut client = server.client().unwrap();
    ok(&mut client, "SET key journalled");
    ok(&mut client, "CONFIG SET appendonly no");
    wait_for(&mut client, "aof_enabled:0");
    ok(&mut client, "SET key unjournalled");
    let get = |server: &TestServer| run(&mut server.client().unwrap(), "GET key").text();
    assert_eq!(get(&start_on(Program::Mtcache, &server)).as_deref(), Some("journalled"));
    assert_eq!(get(&start_on(Program::Redis, &server)).as_deref(), Some("journalled"));
    // In a transaction, which holds locks that the first base needs.
    for command in ["MULTI", "SET key first", "CONFIG SET appendonly yes", "SET key second", "EXEC"] {
        ok(&mut client, command);
    }
    wait_for(&mut client, "aof_enabled:1");
    wait_for(&mut client, "aof_rewrite_in_progress:0");
    ok(&mut client, "APPEND key +more");
    drop(client);
    server.kill().unwrap();
    assert_eq!(get(&start_on(Program::Mtcache, &server)).as_deref(), Some("second+more"));
    assert_eq!(get(&start_on(Program::Redis, &server)).as_deref(), Some("second+more"));
}

#[test]
fn it_can_be_switched_often_and_an_end_in_between_is_orderly() {
    let mut server = TestServer::mtcache(options("no")).unwrap();
    let mut client = server.client().unwrap();
    for round in 0..20 {
        ok(&mut client, &format!("SET key {round}"));
        ok(&mut client, "CONFIG SET appendonly yes");
        if round % 3 == 0 {
            ok(&mut client, &format!("SET other {round}"));
        }
        ok(&mut client, "CONFIG SET appendonly no");
    }
    ok(&mut client, "CONFIG SET appendonly yes");
    ok(&mut client, "SET key last");
    drop(client);
    // The first base may not be there yet; the end waits for it.
    server.stop().unwrap();
    let other = start_on(Program::Redis, &server);
    assert_eq!(run(&mut other.client().unwrap(), "GET key").text().as_deref(), Some("last"));
}

#[test]
fn where_it_cannot_be_switched_on_the_error_is_that_of_redis() {
    let mut seen = Vec::new();
    for program in [Program::Mtcache, Program::Redis] {
        let server = TestServer::start(program, options("no")).unwrap();
        let mut client = server.client().unwrap();
        // A file where the directory should be.
        std::fs::write(server.directory().join("appendonlydir"), b"").unwrap();
        let reply = run(&mut client, "CONFIG SET appendonly yes");
        let value = run(&mut client, "CONFIG GET appendonly");
        seen.push((reply, value, run(&mut client, "SET key value")));
        std::fs::remove_file(server.directory().join("appendonlydir")).unwrap();
        switch_on(&mut client);
    }
    assert_eq!(seen[0], seen[1]);
}

#[test]
fn a_rewritten_configuration_begins_as_it_was_switched() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("server.conf");
    std::fs::write(&file, "appendonly no\nsave \"\"\n").unwrap();
    let mut server = TestServer::mtcache(ServerOptions::new().config_file(&file)).unwrap();
    let mut client = server.client().unwrap();
    ok(&mut client, "SET key value");
    switch_on(&mut client);
    ok(&mut client, "CONFIG REWRITE");
    drop(client);
    let text = std::fs::read_to_string(&file).unwrap();
    assert!(text.contains("appendonly yes"), "{text}");
    server.stop().unwrap();
}

#[test]
fn rewritten_while_it_is_off_it_holds_what_was_there() {
    let mut server = TestServer::mtcache(options("no")).unwrap();
    let mut client = server.client().unwrap();
    for seed in [7, 8] {
        // The second time there is a base to be replaced.
        ok(&mut client, "FLUSHALL");
        fill(&mut client, seed, 300, Scores::Any).unwrap();
        let begun = run(&mut client, "BGREWRITEAOF");
        assert_eq!(begun.text().unwrap(), "Background append only file rewriting started");
        wait_for(&mut client, "aof_rewrite_in_progress:0");
        wait_for(&mut client, "aof_last_bgrewrite_status:ok");
        wait_for(&mut client, "aof_enabled:0");
    }
    wait_for(&mut client, "aof_rewrites:2");
    let held = look(&mut client).unwrap();
    ok(&mut client, "SET later lost");
    drop(client);
    server.kill().unwrap();
    let mut names: Vec<_> = std::fs::read_dir(server.directory().join("appendonlydir"))
        .unwrap()
        .map(|file| file.unwrap().file_name().into_string().unwrap())
        .filter(|name| name.contains(".base."))
        .collect();
    names.sort();
    assert_eq!(names.len(), 1, "{names:?}");
    for program in [Program::Mtcache, Program::Redis] {
        let other = start_on(program, &server);
        let mut differences = look(&mut other.client().unwrap()).unwrap().differences(&held);
        differences.retain(|line| !line.contains(": encoding: "));
        assert!(differences.is_empty(), "{program}: {differences:#?}");
    }
}

#[test]
fn it_is_rewritten_and_switched_on_and_off_in_any_order() {
    let server = TestServer::mtcache(options("no")).unwrap();
    let mut client = server.client().unwrap();
    fill(&mut client, 9, 2000, Scores::Any).unwrap();
    for round in 0..20 {
        // What is asked for twice is in progress.
        let _ = run(&mut client, "BGREWRITEAOF");
        ok(&mut client, "CONFIG SET appendonly yes");
        ok(&mut client, &format!("SET round {round}"));
        if round % 2 == 0 {
            wait_for(&mut client, "aof_rewrite_in_progress:0");
        }
        let _ = run(&mut client, "BGREWRITEAOF");
        ok(&mut client, "CONFIG SET appendonly no");
    }
    switch_on(&mut client);
    ok(&mut client, "SET last 1");
    let held = look(&mut client).unwrap();
    drop(client);
    let mut server = server;
    server.kill().unwrap();
    let other = start_on(Program::Mtcache, &server);
    let mut differences = look(&mut other.client().unwrap()).unwrap().differences(&held);
    differences.retain(|line| !line.contains(": encoding: "));
    assert!(differences.is_empty(), "{differences:#?}");
}
