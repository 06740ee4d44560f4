//! How our server starts, refuses to start, and stops: a signal loses nothing, and what is wrong is said in one line.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use mtcache_conformance::ports::free_port;
use mtcache_conformance::programs::{Program, find};
use mtcache_conformance::{TestServer, Value};

const CLIENTS: usize = 4;
const WRITES: usize = 2000;

/// Clients write without a pause until the server is gone; what was acknowledged has to be there afterwards.
#[test]
fn a_signal_to_stop_loses_nothing_that_was_acknowledged() {
    for (signal, policy) in [("TERM", "everysec"), ("INT", "everysec"), ("TERM", "no"), ("INT", "always")] {
        let mut server = TestServer::mtcache(["--appendonly", "yes", "--appendfsync", policy]).unwrap();
        let writers: Vec<_> = (0..CLIENTS)
            .map(|number| {
                let mut client = server.client().unwrap();
                std::thread::spawn(move || {
                    let set = |i: usize| ["SET".to_owned(), format!("k{number}:{i}"), i.to_string()];
                    // One after the other, so that all up to the last acknowledged one are.
                    (0..WRITES).take_while(|&i| client.command(&set(i)).is_ok()).count()
                })
            })
            .collect();
        let mut watcher = server.client().unwrap();
        while watcher.command(&["DBSIZE"]).unwrap() < Value::Integer(200) {}
        server.signal(signal).unwrap();
        let acknowledged: Vec<usize> = writers.into_iter().map(|writer| writer.join().unwrap()).collect();
        server.wait().unwrap();
        server.start_again().unwrap();
        let mut client = server.client().unwrap();
        for (number, count) in acknowledged.into_iter().enumerate() {
            assert!(count > 0, "writer {number} was never answered");
            let gets: Vec<_> = (0..count).map(|i| ["GET".to_owned(), format!("k{number}:{i}")]).collect();
            for (i, value) in client.pipeline(&gets).unwrap().into_iter().enumerate() {
                let expected = Value::Bulk(i.to_string().into_bytes());
                assert_eq!(value, expected, "SIG{signal} with appendfsync {policy}: k{number}:{i}");
            }
        }
    }
}

#[test]
fn a_busy_port_is_said_in_one_line() {
    let server = TestServer::mtcache([]).unwrap();
    let port = server.port().to_string();
    let line = refusal(&serve(&["--port", &port, "--bind", "127.0.0.1"], Path::new(".")));
    assert!(line.contains(&port) && line.contains("in use"), "{line}");
}

#[test]
fn options_that_make_no_sense_are_said_in_one_line() {
    for (options, words) in [
        (&["--port", "70000"][..], "port"),
        (&["--maxmemory", "lots"], "maxmemory"),
        (&["--appendfsync", "sometimes"], "appendfsync"),
        (&["--no-such-option", "1"], "no-such-option"),
        (&["/nowhere/redis.conf"], "/nowhere/redis.conf"),
    ] {
        let line = refusal(&serve(options, Path::new(".")));
        assert!(line.contains(words), "{options:?}: {line}");
    }
}

#[test]
fn a_directory_that_cannot_be_used_is_said_in_one_line() {
    let directory = tempfile::tempdir().unwrap();
    let line = refusal(&serve(&["--dir", "/nowhere/at/all"], directory.path()));
    assert!(line.contains("/nowhere/at/all"), "{line}");
    // A directory that may not be written to stops everybody but root; a file in the place of the journal's directory all.
    std::fs::write(directory.path().join("appendonlydir"), "no directory").unwrap();
    std::fs::set_permissions(directory.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    let dir = directory.path().to_str().unwrap().to_owned();
    let line = refusal(&serve(&["--dir", &dir, "--appendonly", "yes"], directory.path()));
    assert!(line.contains("appendonlydir"), "{line}");
}

/// Starts a server that is not expected to come up.
fn serve(options: &[&str], directory: &Path) -> Output {
    let port_is_given = options.contains(&"--port");
    let mut command = Command::new(find(Program::Mtcache).unwrap());
    command.arg("serve").args(options).current_dir(directory).stdin(Stdio::null());
    if !port_is_given {
        command.args(["--bind", "127.0.0.1", "--port", &free_port().unwrap().to_string()]);
    }
    command.output().unwrap()
}

/// The one line that a server which could not start has left.
fn refusal(output: &Output) -> String {
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success(), "it started: {text}");
    let lines: Vec<&str> = text.lines().filter(|line| !line.trim().is_empty()).collect();
    assert_eq!(lines.len(), 1, "{text}");
    lines[0].to_owned()
}
