//! `mtcache check-aof` and `mtcache check-rdb` on files of real servers: what they say, their exit status, and what they leave.

use std::fs;
use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use mtcache_conformance::{Program, ServerOptions, TestServer, programs};

fn run(args: &[&str], file: &Path, answer: &str) -> (bool, String) {
    let mut command = Command::new(programs::find(Program::Mtcache).unwrap());
    command.args(args).arg(file).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    // It need not ask.
    let _ = child.stdin.take().unwrap().write_all(answer.as_bytes());
    let Output { status, stdout, stderr } = child.wait_with_output().unwrap();
    let said = [stdout, stderr].concat();
    (status.success(), String::from_utf8_lossy(&said).into_owned())
}

/// A server that has written twenty keys, and is stopped.
fn written_by(program: Program) -> TestServer {
    let options = ServerOptions::new().args(["--appendonly", "yes", "--save", "", "--appendfsync", "always"]);
    let mut server = TestServer::start(program, options).unwrap();
    let mut client = server.client().unwrap();
    for number in 0..20 {
        client.command(&["SET", &format!("key:{number}"), "a value"]).unwrap();
    }
    client.command(&["SAVE"]).unwrap();
    server.stop().unwrap();
    server
}

#[test]
fn a_damaged_journal_is_located_and_cut_off_only_after_a_yes() {
    for program in [Program::Mtcache, Program::Redis] {
        let mut server = written_by(program);
        let dir = server.directory().join("appendonlydir");
        let (manifest, last) = (dir.join("appendonly.aof.manifest"), dir.join("appendonly.aof.1.incr.aof"));
        let (is_sound, said) = run(&["check-aof"], &manifest, "");
        assert!(is_sound && said.contains("all files are sound"), "{program:?}: {said}");
        let sound = fs::read(&last).unwrap();
        let damaged = [&sound[..], b"*3\r\n$3\r\nSET\r\n$3\r\nke"].concat();
        for file in [&manifest, &last] {
            fs::write(&last, &damaged).unwrap();
            let place = format!("not sound after offset {}", sound.len());
            let (is_sound, said) = run(&["check-aof"], file, "");
            assert!(!is_sound && said.contains(&place) && said.contains("at command number 21"), "{said}");
            let (is_done, said) = run(&["check-aof", "--fix"], file, "n\n");
            assert!(!is_done && said.contains("nothing was changed"), "{said}");
            assert_eq!(fs::read(&last).unwrap(), damaged);
            let (is_done, said) = run(&["check-aof", "--fix"], file, "y\n");
            assert!(is_done && said.contains("were cut off"), "{said}");
            assert_eq!(fs::read(&last).unwrap(), sound);
            fs::write(&last, &damaged).unwrap();
            assert!(run(&["check-aof", "--fix", "--yes"], file, "").0);
            assert_eq!(fs::read(&last).unwrap(), sound);
        }
        server.start_again().unwrap();
        let size = server.client().unwrap().command(&["DBSIZE"]).unwrap();
        assert_eq!(size.integer(), Some(20));
        if program == Program::Mtcache {
            let (is_done, said) = run(&["check-aof"], &manifest, "");
            assert!(!is_done && said.contains("in use"), "a server has it: {said}");
        }
    }
}

#[test]
fn a_journal_is_cut_off_at_a_time() {
    let server = written_by(Program::Mtcache);
    let file = server.directory().join("with-times.aof");
    let set = "*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$1\r\nv\r\n";
    fs::write(&file, format!("#TS:100\r\n{set}#TS:200\r\n{set}")).unwrap();
    let (is_done, said) = run(&["check-aof", "--truncate-to-timestamp", "300"], &file, "");
    assert!(is_done && said.contains("nothing in"), "{said}");
    let (is_done, said) = run(&["check-aof", "--truncate-to-timestamp", "150", "--yes"], &file, "");
    assert!(is_done, "{said}");
    assert_eq!(fs::read_to_string(&file).unwrap(), format!("#TS:100\r\n{set}"));
}

#[test]
fn a_snapshot_is_looked_through() {
    for program in [Program::Mtcache, Program::Redis] {
        let server = written_by(program);
        let file = server.directory().join("dump.rdb");
        let (is_sound, said) = run(&["check-rdb"], &file, "");
        assert!(is_sound && said.contains("20 keys") && said.contains("checksum is right"), "{said}");
        let mut bytes = fs::read(&file).unwrap();
        let place = bytes.len() / 2;
        bytes[place] ^= 4;
        fs::write(&file, &bytes).unwrap();
        let (is_sound, said) = run(&["check-rdb"], &file, "");
        assert!(!is_sound && said.contains("offset") && said.contains("keys were read before"), "{said}");
    }
}
