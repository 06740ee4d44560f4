//! `SHUTDOWN` with its options, on our server as on redis-server: what is saved, what is refused, and how the process ends.

use std::time::Duration;

use mtcache_conformance::{Program, ServerOptions, TestServer};

/// How long a loaded machine may take for a save.
const PATIENCE: Duration = Duration::from_mins(2);
const BOTH: [Program; 2] = [Program::Mtcache, Program::Redis];

/// Ends a server that has one key: whether it left a file, and its exit status.
fn ended(program: Program, save: &str, command: &str) -> (bool, Option<i32>) {
    let options = ServerOptions::new().args(["--appendonly", "no", "--save", save]);
    let mut server = TestServer::start(program, options).unwrap();
    let mut client = server.client().unwrap();
    client.set_timeout(PATIENCE).unwrap();
    client.command(&["SET", "k", "v"]).unwrap();
    client.send(&command.split(' ').collect::<Vec<_>>()).unwrap();
    // No reply, only the end of the connection.
    let end = client.read_to_close();
    assert!(
        end.as_ref().is_ok_and(Vec::is_empty),
        "{program}, save {save:?}: {command}: {end:?}\n{}",
        server.log()
    );
    let status = server.wait().unwrap();
    (server.directory().join("dump.rdb").exists(), status.code())
}

#[test]
fn options_say_what_is_saved() {
    for (save, command, leaves_file) in [
        ("", "SHUTDOWN", false),
        ("", "SHUTDOWN SAVE", true),
        ("", "SHUTDOWN NOW FORCE", false),
        ("3600 1", "SHUTDOWN", true),
        ("3600 1", "shutdown nosave", false),
        ("3600 1", "SHUTDOWN NOW", true),
        ("3600 1", "SHUTDOWN NOSAVE NOW FORCE", false),
        ("3600 1", "SHUTDOWN SAVE NOW NOW", true),
    ] {
        for program in BOTH {
            assert_eq!(
                ended(program, save, command),
                (leaves_file, Some(0)),
                "{program}, save {save:?}: {command}"
            );
        }
    }
}

#[test]
fn a_save_that_fails_keeps_the_server_unless_it_is_forced() {
    for program in BOTH {
        let options = ServerOptions::new().args(["--appendonly", "no", "--save", "3600 1"]);
        let mut server = TestServer::start(program, options).unwrap();
        // No file can take a directory's place.
        std::fs::create_dir(server.directory().join("dump.rdb")).unwrap();
        let mut client = server.client().unwrap();
        client.command(&["SET", "k", "v"]).unwrap();
        for command in [["SHUTDOWN"].as_slice(), &["SHUTDOWN", "SAVE"], &["SHUTDOWN", "NOW"]] {
            let reply = client.command(command).unwrap();
            assert_eq!(
                reply.error().as_deref(),
                Some("ERR Errors trying to SHUTDOWN. Check logs."),
                "{program}: {command:?}"
            );
        }
        assert_eq!(client.command(&["GET", "k"]).unwrap().bytes(), Some(b"v".as_slice()));
        let reply = client.command(&["SHUTDOWN", "ABORT"]).unwrap();
        assert_eq!(reply.error().as_deref(), Some("ERR No shutdown in progress."));
        client.send(&["SHUTDOWN", "SAVE", "FORCE"]).unwrap();
        assert_eq!(client.read_to_close().unwrap(), b"");
        assert_eq!(server.wait().unwrap().code(), Some(0));
    }
}
