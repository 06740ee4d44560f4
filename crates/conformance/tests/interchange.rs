//! Data moves between our server, redis-server and Valkey in files and in DUMP payloads, and nothing changes on the way:
//! values, encodings, and expiries to the millisecond.

use std::fs;
use std::path::Path;

use mtcache_conformance::datasets::{self, Dataset, Scores};
use mtcache_conformance::{Client, Program, ServerOptions, TestServer};

const SNAPSHOT: &str = "dump.rdb";
const JOURNAL: &str = "appendonlydir";

/// How many datasets each test moves; more with `MTCACHE_DATASETS`.
fn datasets() -> u64 {
    std::env::var("MTCACHE_DATASETS").ok().and_then(|count| count.parse().ok()).unwrap_or(2)
}

fn start(program: Program, journal: bool, more: &[&str]) -> TestServer {
    let options = ServerOptions::new()
        .args(["--appendonly", if journal { "yes" } else { "no" }, "--save", "", "--maxmemory", "0"])
        .args(more.iter().copied());
    TestServer::start(program, options).unwrap()
}

fn ok(client: &mut Client, command: &[&str]) {
    let reply = client.command(command).unwrap();
    assert_eq!(reply.error(), None, "{command:?}");
}

fn fill(client: &mut Client, program: Program, seed: u64, keys: usize) {
    let scores = if program == Program::Valkey { Scores::Halves } else { Scores::Any };
    datasets::fill(client, seed, keys, scores).unwrap();
}

/// What a server holds after it has been started again on its own files, which changes some encodings.
fn after_restart(server: &mut TestServer) -> Dataset {
    server.start_again().unwrap();
    let held = datasets::look(&mut server.client().unwrap()).unwrap();
    server.stop().unwrap();
    held
}

/// A server of that program on a copy of a file or directory of another one's.
fn start_on(program: Program, journal: bool, from: &Path, more: &[&str]) -> TestServer {
    let mut server = start(program, journal, more);
    server.stop().unwrap();
    let to = server.directory().join(from.file_name().unwrap());
    if to.is_dir() {
        fs::remove_dir_all(&to).unwrap();
    }
    copy(from, &to);
    server.start_again().unwrap();
    server
}

fn copy(from: &Path, to: &Path) {
    if !from.is_dir() {
        fs::copy(from, to).unwrap();
        return;
    }
    fs::create_dir(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
    }
}

fn assert_holds(server: &TestServer, expected: &Dataset, what: &str) {
    let found = datasets::look(&mut server.client().unwrap()).unwrap();
    let mut differences = found.differences(expected);
    if what.contains("Valkey") || what.contains("payloads") {
        // Valkey's thresholds and the names of its encodings are its own; a payload does not keep that a string may grow.
        differences.retain(|line| !line.contains(": encoding: "));
    }
    assert!(differences.is_empty(), "{what}: {differences:#?}");
    assert_eq!(found.len(), expected.len());
    assert!(expected.len() > 150);
}

fn wait_for_rewrite(client: &mut Client) {
    let in_progress = |client: &mut Client| {
        let info = client.command(&["INFO", "persistence"]).unwrap().text().unwrap();
        info.contains("aof_rewrite_in_progress:1") || info.contains("aof_rewrite_scheduled:1")
    };
    while in_progress(client) {
        std::thread::yield_now();
    }
}

/// Which of the two is the pickier about scores.
fn pickier(from: Program, to: Program) -> Program {
    if to == Program::Valkey { to } else { from }
}

fn snapshot_moves(from: Program, to: Program, compression: &str, checksum: &str) {
    for seed in 0..datasets() {
        let options = ["--rdbcompression", compression, "--rdbchecksum", checksum];
        let mut server = start(from, false, &options);
        let mut client = server.client().unwrap();
        fill(&mut client, pickier(from, to), seed, 200);
        ok(&mut client, &["SAVE"]);
        server.kill().unwrap();
        let expected = after_restart(&mut server);
        let loaded = start_on(to, false, &server.directory().join(SNAPSHOT), &options);
        assert_holds(&loaded, &expected, &format!("{from:?} to {to:?}, seed {seed}"));
    }
}

#[test]
fn a_snapshot_of_redis_is_loaded_here() {
    snapshot_moves(Program::Redis, Program::Mtcache, "yes", "yes");
    snapshot_moves(Program::Redis, Program::Mtcache, "no", "no");
}

#[test]
fn a_snapshot_of_ours_is_loaded_by_valkey() {
    snapshot_moves(Program::Mtcache, Program::Valkey, "yes", "yes");
}

fn journal_moves(from: Program, to: Program, preamble: &str) {
    for seed in 100..100 + datasets() {
        let mut server = start(from, true, &["--aof-use-rdb-preamble", preamble]);
        let mut client = server.client().unwrap();
        fill(&mut client, pickier(from, to), seed, 200);
        ok(&mut client, &["BGREWRITEAOF"]);
        wait_for_rewrite(&mut client);
        fill(&mut client, pickier(from, to), seed + 1000, 50);
        server.stop().unwrap();
        let expected = after_restart(&mut server);
        let loaded = start_on(to, true, &server.directory().join(JOURNAL), &[]);
        assert_holds(&loaded, &expected, &format!("{from:?} to {to:?}, seed {seed}"));
    }
}

#[test]
fn a_journal_of_redis_is_loaded_here_whatever_its_base() {
    journal_moves(Program::Redis, Program::Mtcache, "yes");
    journal_moves(Program::Redis, Program::Mtcache, "no");
}

#[test]
fn a_rewritten_journal_of_ours_is_loaded_by_redis_and_valkey_whatever_its_base() {
    for to in [Program::Redis, Program::Valkey] {
        journal_moves(Program::Mtcache, to, "yes");
        journal_moves(Program::Mtcache, to, "no");
    }
}

#[test]
fn payloads_go_between_the_servers_and_change_nothing() {
    for (seed, from, to) in [
        (1, Program::Redis, Program::Mtcache),
        (2, Program::Mtcache, Program::Redis),
        (3, Program::Mtcache, Program::Mtcache),
    ] {
        let (source, target) = (start(from, false, &[]), start(to, false, &[]));
        fill(&mut source.client().unwrap(), from, seed, 200);
        let expected = datasets::look(&mut source.client().unwrap()).unwrap();
        let (mut reader, mut writer) = (source.client().unwrap(), target.client().unwrap());
        for database in 0..16 {
            let database: &str = &database.to_string();
            for client in [&mut reader, &mut writer] {
                ok(client, &["SELECT", database]);
            }
            let keys = reader.command(&["KEYS", "*"]).unwrap();
            for key in keys.elements().unwrap() {
                let key = key.bytes().unwrap();
                let payload = reader.command(&[b"DUMP", key]).unwrap().bytes().unwrap().to_vec();
                let at = reader.command(&[b"PEXPIRETIME", key]).unwrap();
                let at = at.integer().unwrap().max(0).to_string();
                let restore = [b"RESTORE", key, at.as_bytes(), &payload, b"ABSTTL"];
                assert_eq!(writer.command(&restore).unwrap().error(), None);
            }
        }
        assert_holds(&target, &expected, &format!("payloads {from:?} to {to:?}"));
    }
}

#[test]
fn a_snapshot_of_valkey_is_loaded_here() {
    snapshot_moves(Program::Valkey, Program::Mtcache, "yes", "yes");
}

#[test]
fn a_journal_of_valkey_is_loaded_here() {
    journal_moves(Program::Valkey, Program::Mtcache, "yes");
}

#[test]
fn a_snapshot_of_ours_is_loaded_by_redis_and_by_ourselves() {
    snapshot_moves(Program::Mtcache, Program::Redis, "yes", "yes");
    snapshot_moves(Program::Mtcache, Program::Redis, "no", "no");
    snapshot_moves(Program::Mtcache, Program::Mtcache, "yes", "yes");
}
