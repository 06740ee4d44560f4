//! MONITOR on our server beside redis-server: the same commands, in the same order, in the same databases.

use mtcache_conformance::{Client, ServerOptions, TestServer};

/// What a watcher sees of these lines, up to the last of them, without times and addresses.
fn seen(server: &TestServer, lines: &[&str]) -> Vec<String> {
    let (mut watcher, mut client) = (server.client().unwrap(), server.client().unwrap());
    watcher.command(&["MONITOR"]).unwrap();
    for line in lines {
        client.command(&line.split('|').collect::<Vec<_>>()).unwrap();
    }
    client.command(&["ECHO", "the end"]).unwrap();
    let mut seen = Vec::new();
    while !seen.last().is_some_and(|line: &String| line.contains("the end")) {
        seen.push(without_times(&next(&mut watcher)));
    }
    seen
}

fn next(watcher: &mut Client) -> String {
    watcher.next_value().unwrap().text().unwrap()
}

fn without_times(line: &str) -> String {
    let (stamp, rest) = line.split_once(" [").unwrap_or_else(|| panic!("{line}"));
    assert!(stamp.split_once('.').is_some_and(|(_, fraction)| fraction.len() == 6), "{line}");
    let (place, command) = rest.split_once("] ").unwrap_or_else(|| panic!("{line}"));
    let (db, address) = place.split_once(' ').unwrap();
    format!("[{db} {}] {command}", if address == "lua" { "lua" } else { "client" })
}

/// Arguments with bars between.
const LINES: &[&str] = &[
    "SET|k|v",
    "SELECT|3",
    "SELECT|99",
    "EVAL|return redis.call('set', KEYS[1], ARGV[1])|1|k|v",
    "EVAL|redis.call('select', 5) return redis.call('get', 'k')|0",
    "EVAL_RO|return redis.call('get', KEYS[1])|1|k",
    "SCRIPT|LOAD|return redis.call('get', KEYS[1])",
    "EVALSHA|4e6d8fc8bb01276962cce5371fa795a7763657ae|1|k",
    "EVALSHA_RO|4e6d8fc8bb01276962cce5371fa795a7763657ae|1|k",
    "EVALSHA|ffffffffffffffffffffffffffffffffffffffff|0",
    "EVAL|return 1|x",
    "EVAL|this is no script|0",
    "EVAL|return 1",
    "MULTI",
    "EVAL|return redis.call('incr', 'n')|0",
    "SELECT|1",
    "EXEC",
    "CONFIG|GET|port",
    "RESET",
    "GET|k",
];

#[test]
fn the_monitor_shows_what_it_shows_in_redis() {
    let ours = TestServer::mtcache(ServerOptions::new()).unwrap();
    let theirs = TestServer::redis([]).unwrap();
    let seen = [&ours, &theirs].map(|server| seen(server, LINES));
    assert_eq!(seen[0], seen[1], "ours (left), Redis' (right)");
    let eval = seen[0].iter().position(|line| line.contains("\"EVAL\"")).unwrap();
    assert!(seen[0][eval + 1].starts_with("[3 lua] \"set\""), "{seen:#?}");
}

#[test]
fn times_are_in_microseconds() {
    let server = TestServer::mtcache(ServerOptions::new()).unwrap();
    let (mut watcher, mut client) = (server.client().unwrap(), server.client().unwrap());
    watcher.command(&["MONITOR"]).unwrap();
    let is_finer = (0..20).any(|_| {
        client.command(&["PING"]).unwrap();
        !next(&mut watcher).split_once(" [").unwrap().0.ends_with("000")
    });
    assert!(is_finer, "twenty times in a row on a whole millisecond");
}
