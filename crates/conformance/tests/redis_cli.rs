//! Every redis-cli command line of the setup document that the product comes from, on our server, with what an operator
//! expects to see in the answer; and a few that operators type besides. redis-server answers first, to test the expectations.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use mtcache_conformance::{Program, ServerOptions, TestServer};

fn each_server(check: impl Fn(&TestServer)) {
    for program in [Program::Redis, Program::Mtcache] {
        check(&TestServer::start(program, ServerOptions::from(["--slowlog-log-slower-than", "0"])).unwrap());
    }
}

fn command(server: &TestServer, args: &[&str]) -> Command {
    let mut command = Command::new("redis-cli");
    command.args(["-p", &server.port().to_string()]).args(args);
    command
}

/// What redis-cli prints; it must end well and say nothing on its error output.
fn cli(server: &TestServer, args: &[&str]) -> String {
    let output = command(server, args).stdin(Stdio::null()).output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success() && output.stderr.is_empty(), "{} {args:?}: {output:?}", server.program());
    said
}

/// The value of a line `name:value` of INFO.
fn field<'a>(info: &'a str, name: &str) -> &'a str {
    info.lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))
        .unwrap_or_else(|| panic!("no {name} in {info}"))
        .trim()
}

/// A process that is stopped when the test is done with it.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Lines of a program that does not end by itself, until `enough` of them are there or ten seconds have passed.
fn watch(mut command: Command, meanwhile: impl Fn(), enough: impl Fn(&[String]) -> bool) -> Vec<String> {
    let mut child = Running(command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap());
    let output = child.0.stdout.take().unwrap();
    let (sender, lines) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        BufReader::new(output).lines().map_while(Result::ok).try_for_each(|line| sender.send(line))
    });
    let deadline = Instant::now() + Duration::from_secs(10);
    let mut seen = Vec::new();
    while !enough(&seen) {
        assert!(Instant::now() < deadline, "seen only {seen:#?}");
        meanwhile();
        while let Ok(line) = lines.recv_timeout(Duration::from_millis(100)) {
            seen.push(line);
        }
    }
    seen
}

#[test]
fn ping_and_info_answer() {
    each_server(|server| {
        assert_eq!(cli(server, &["ping"]), "PONG\n");
        assert_eq!(cli(server, &["PING"]), "PONG\n");
        let info = cli(server, &["INFO"]);
        for section in [
            "Server",
            "Clients",
            "Memory",
            "Persistence",
            "Stats",
            "Replication",
            "CPU",
            "Modules",
            "Errorstats",
            "Cluster",
            "Keyspace",
        ] {
            assert!(info.contains(&format!("# {section}\r\n")), "no section {section} in {info}");
        }
        let info = cli(server, &["INFO", "server"]);
        assert!(field(&info, "redis_version").starts_with("7."));
        assert_eq!(field(&info, "tcp_port"), server.port().to_string());
        assert_eq!(field(&info, "process_id"), server.pid().unwrap().to_string());
        assert!(field(&info, "uptime_in_seconds").parse::<u64>().is_ok());
    });
}

#[test]
fn memory_is_told_for_people_and_for_programs() {
    each_server(|server| {
        let before: u64 = field(&cli(server, &["INFO", "memory"]), "used_memory").parse().unwrap();
        cli(
            server,
            &["EVAL", "for i = 1, 2000 do redis.call('SET', 'k' .. i, string.rep('x', 1000)) end", "0"],
        );
        let info = cli(server, &["INFO", "memory"]);
        let after: u64 = field(&info, "used_memory").parse().unwrap();
        assert!(after > before + 1_500_000, "{before} bytes before, {after} after 2 MB were stored");
        let human = field(&info, "used_memory_human");
        assert!(human.ends_with('M') && human.trim_end_matches('M').parse::<f64>().is_ok(), "{human}");
        for name in ["used_memory_rss", "used_memory_peak", "maxmemory", "mem_fragmentation_ratio"] {
            assert!(field(&info, name).parse::<f64>().is_ok(), "{name}");
        }
        assert!(!field(&info, "maxmemory_policy").is_empty());
    });
}

#[test]
fn clients_are_listed() {
    each_server(|server| {
        let mut other = server.client().unwrap();
        other.command(&["CLIENT", "SETNAME", "another"]).unwrap();
        let list = cli(server, &["CLIENT", "LIST"]);
        let line =
            list.lines().find(|line| line.contains("name=another")).unwrap_or_else(|| panic!("{list}"));
        for part in [
            "id=",
            "addr=127.0.0.1:",
            "laddr=127.0.0.1:",
            "fd=",
            "age=",
            "idle=",
            "flags=N",
            "db=0",
            "cmd=client|setname",
            "user=default",
        ] {
            assert!(line.contains(part), "no {part} in {line}");
        }
        assert!(list.contains("cmd=client|list"), "{list}");
    });
}

#[test]
fn keys_are_counted_and_flushed() {
    each_server(|server| {
        assert_eq!(cli(server, &["SET", "a", "1"]), "OK\n");
        assert_eq!(cli(server, &["-n", "1", "SET", "b", "1"]), "OK\n");
        assert_eq!(cli(server, &["DBSIZE"]), "1\n");
        assert_eq!(cli(server, &["FLUSHDB"]), "OK\n");
        assert_eq!(cli(server, &["DBSIZE"]), "0\n");
        assert_eq!(cli(server, &["-n", "1", "DBSIZE"]), "1\n");
        assert!(cli(server, &["INFO", "keyspace"]).contains("db1:keys=1,expires=0"));
    });
}

#[test]
fn the_slow_log_is_shown() {
    each_server(|server| {
        cli(server, &["SET", "slow", "enough"]);
        for count in ["10", "100"] {
            let log = cli(server, &["SLOWLOG", "GET", count]);
            assert!(log.contains("SET\nslow\nenough\n"), "{log}");
        }
        assert!(cli(server, &["SLOWLOG", "LEN"]).trim().parse::<u64>().unwrap() > 0);
        assert_eq!(cli(server, &["SLOWLOG", "RESET"]), "OK\n");
    });
}

#[test]
fn the_monitor_shows_other_clients_commands() {
    each_server(|server| {
        let seen = watch(
            command(server, &["MONITOR"]),
            || {
                server.client().unwrap().command(&["SET", "watched", "a \"b\"\n"]).unwrap();
            },
            |lines| lines.iter().any(|line| line.contains("watched")),
        );
        assert_eq!(seen[0], "OK");
        let line = seen.iter().find(|line| line.contains("watched")).unwrap();
        let (stamp, rest) = line.split_once(" [0 127.0.0.1:").unwrap_or_else(|| panic!("{line}"));
        assert!(stamp.parse::<f64>().is_ok_and(|seconds| seconds > 1e9), "{line}");
        assert!(rest.ends_with("] \"SET\" \"watched\" \"a \\\"b\\\"\\n\""), "{line}");
    });
}

#[test]
fn real_time_statistics_run() {
    each_server(|server| {
        cli(server, &["SET", "k", "v"]);
        // redis-cli does not flush its lines into a pipe; stdbuf makes it.
        let mut command = Command::new("stdbuf");
        command.args(["-oL", "redis-cli", "-p", &server.port().to_string(), "--stat"]);
        let seen = watch(command, || (), |lines| lines.len() >= 4);
        assert!(seen[0].contains("data") && seen[1].contains("keys"), "{seen:#?}");
        let numbers: Vec<&str> = seen[3].split_whitespace().collect();
        assert_eq!(numbers.first(), Some(&"1"), "{seen:#?}");
        assert!(numbers.len() >= 6, "{seen:#?}");
    });
}

#[test]
fn saving_and_rewriting_begin_or_say_that_they_come_later() {
    each_server(|server| {
        for name in ["BGREWRITEAOF", "BGSAVE", "LASTSAVE"] {
            let answer = cli(server, &[name]);
            assert!(!answer.contains("unknown command"), "{answer}");
            assert!(
                answer.contains("started")
                    || answer.contains("scheduled")
                    || answer.starts_with("ERR")
                    || answer.trim().parse::<u64>().is_ok(),
                "{name}: {answer}"
            );
        }
    });
}

#[test]
fn a_session_can_be_typed() {
    each_server(|server| {
        let mut child = command(server, &[]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let typed = "PING\nSET k \"two words\"\nGET k\nINFO server\nINFO memory\nHELP @string\nEXIT\n";
        child.stdin.take().unwrap().write_all(typed.as_bytes()).unwrap();
        let output = child.wait_with_output().unwrap();
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success());
        assert!(said.starts_with("PONG\nOK\ntwo words\n# Server"), "{said}");
        assert!(said.contains("used_memory_human"), "{said}");
    });
}

#[test]
fn operators_other_habits_work() {
    each_server(|server| {
        cli(server, &["EVAL", "for i = 1, 300 do redis.call('SADD', 'set' .. i, i, i + 1) end", "0"]);
        assert_eq!(cli(server, &["--scan", "--pattern", "set1*"]).lines().count(), 111);
        assert!(cli(server, &["--bigkeys"]).contains("Biggest    set found"), "bigkeys");
        assert!(cli(server, &["--memkeys"]).contains("Biggest    set found"), "memkeys");
        assert!(
            cli(server, &["-3", "HGETALL", "none"]).trim().contains("empty")
                || cli(server, &["-3", "HGETALL", "none"]).trim().is_empty()
        );
        assert_eq!(cli(server, &["CONFIG", "GET", "maxmemory-samples"]), "maxmemory-samples\n5\n");
        assert!(cli(server, &["COMMAND", "DOCS", "get"]).contains("summary"), "COMMAND DOCS");
        let mut pipe =
            command(server, &["--pipe"]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        pipe.stdin
            .take()
            .unwrap()
            .write_all(&b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$1\r\nv\r\n".repeat(1_000))
            .unwrap();
        let said = String::from_utf8_lossy(&pipe.wait_with_output().unwrap().stdout).into_owned();
        assert!(said.contains("errors: 0, replies: 1000"), "{said}");
        let latency = cli(server, &["--raw", "--latency", "-i", "1"]);
        assert!(latency.split_whitespace().count() >= 4, "{latency}");
    });
}
