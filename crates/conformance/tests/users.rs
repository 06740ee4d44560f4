//! Users of our server as operators keep them: in an ACL file, in redis.conf, beside a redis-server that reads and writes the
//! same files.

use std::fs;
use std::io;
use std::path::Path;

use mtcache_conformance::{Client, Program, ServerOptions, TestServer, Value};

const PROGRAMS: [Program; 2] = [Program::Redis, Program::Mtcache];

fn with_file(program: Program, file: &Path) -> Result<TestServer, String> {
    let options = ServerOptions::new().arg("--aclfile").arg(file);
    TestServer::start(program, options).map_err(|error| error.to_string())
}

fn text(client: &mut Client, args: &[&str]) -> String {
    let reply = client.command(args).unwrap();
    match reply.error() {
        Some(error) => error.clone(),
        None => format!("{reply:?}"),
    }
}

fn user(server: &TestServer, name: &str, password: &str) -> Client {
    let mut client = server.client().unwrap();
    assert_eq!(client.command(&["AUTH", name, password]).unwrap(), Value::Simple(b"OK".to_vec()));
    client
}

/// Whether the server has ended the connection; it may take a moment.
fn is_ended(client: &mut Client) -> bool {
    match client.command(&["PING"]).and_then(|_| client.command(&["PING"])) {
        Ok(_) => false,
        Err(error) => {
            assert_ne!(error.kind(), io::ErrorKind::WouldBlock, "the connection hangs");
            true
        }
    }
}

#[test]
fn both_servers_keep_users_in_the_same_file() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("users.acl");
    let mut written = Vec::new();
    for writer in PROGRAMS {
        fs::write(&file, "user bob on >first ~own:* +@all\r\n\nuser default on nopass ~* &* +@all\n")
            .unwrap();
        let server = with_file(writer, &file).unwrap();
        let mut client = server.client().unwrap();
        text(
            &mut client,
            &["ACL", "SETUSER", "carl", "on", ">second", "%R~c:*", "&news", "+@read", "-@keyspace"],
        );
        assert_eq!(text(&mut client, &["ACL", "SAVE"]), "+OK", "{writer}");
        let mut lists = Vec::new();
        for reader in PROGRAMS {
            let reader = with_file(reader, &file).unwrap();
            let mut bob = user(&reader, "bob", "first");
            assert_eq!(text(&mut bob, &["SET", "own:k", "v"]), "+OK");
            assert!(text(&mut bob, &["SET", "k", "v"]).starts_with("NOPERM"));
            user(&reader, "carl", "second");
            let users = text(&mut reader.client().unwrap(), &["ACL", "LIST"]);
            let word = |word: &str| word.trim_matches(['"', ',', '[', ']']).to_owned();
            let mut words: Vec<String> = users.split(' ').map(word).collect();
            words.sort();
            lists.push(words);
        }
        assert_eq!(lists[0], lists[1]);
        let mut words: Vec<String> =
            fs::read_to_string(&file).unwrap().split_whitespace().map(str::to_owned).collect();
        words.sort();
        written.push(words);
    }
    assert_eq!(written[0], written[1], "Redis (left) writes another file than we do (right)");
}

#[test]
fn a_file_is_loaded_wholly_or_not_at_all() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("users.acl");
    let name = file.display().to_string();
    for program in PROGRAMS {
        fs::write(&file, "user bob on >p ~* +@all\n").unwrap();
        let server = with_file(program, &file).unwrap();
        let mut admin = server.client().unwrap();
        let mut bob = user(&server, "bob", "p");
        for (wrong, expected) in [
            ("bla\n", format!("{name}:1 should start with user keyword followed by the username. ")),
            ("user bob on >p ~* +@all\nuser x on foo", format!("{name}:2: Syntax error. ")),
            (
                "\nuser x +nosuch",
                format!(
                    "{name}:2: Error in applying operation '+nosuch': Unknown command or category name in ACL. "
                ),
            ),
            ("user x on\nuser x off\n", "WARNING: Duplicate user 'x' found on line 2. ".to_owned()),
            ("user x (~y\n", format!("{name}:1: Unmatched parenthesis in selector definition.")),
        ] {
            fs::write(&file, wrong).unwrap();
            let error = text(&mut admin, &["ACL", "LOAD"]);
            assert_eq!(
                error,
                format!(
                    "ERR {expected}WARNING: ACL errors detected, no change to the previously active ACL rules was performed"
                ),
                "{program}"
            );
            assert_eq!(text(&mut bob, &["SET", "k", "v"]), "+OK");
        }
        fs::write(&file, "user carl on >q ~* +@all\nuser default on nopass ~* &* +@all\n").unwrap();
        assert_eq!(text(&mut admin, &["ACL", "LOAD"]), "+OK", "{program}");
        assert!(is_ended(&mut bob), "{program}");
        user(&server, "carl", "q");
        fs::remove_file(&file).unwrap();
        let error = text(&mut admin, &["ACL", "LOAD"]);
        assert!(
            error.contains(&format!("Error loading ACLs, opening file '{name}': No such file")),
            "{error}"
        );
    }
}

#[test]
fn a_server_with_wrong_users_does_not_start() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("users.acl");
    for program in PROGRAMS {
        let error = with_file(program, &folder.path().join("none.acl")).unwrap_err();
        assert!(error.contains("opening file") && error.contains("No such file"), "{error}");
        fs::write(&file, "user bob on foo\n").unwrap();
        let error = with_file(program, &file).unwrap_err();
        assert!(error.contains("users.acl:1: Syntax error"), "{error}");
        fs::write(&file, "user bob on\n").unwrap();
        let both = ServerOptions::new().arg("--aclfile").arg(&file).args(["--user", "carl", "on"]);
        let error = TestServer::start(program, both).unwrap_err().to_string();
        assert!(error.contains("aclfile") || error.contains("ACL file"), "{error}");
        let error = TestServer::start(program, ["--user", "bob", "on", "+nosuch"].into()).unwrap_err();
        assert!(error.to_string().contains("Unknown command or category name in ACL"), "{error}");
    }
}

#[test]
fn users_of_the_configuration_are_there_from_the_start() {
    for program in PROGRAMS {
        let options =
            ServerOptions::from(["--user", "bob", "on", ">p", "~own:*", "+@all", "--requirepass", "sec"]);
        // The harness asks as `default`, which needs its password.
        let server = TestServer::start(program, options.password("sec")).unwrap();
        let mut bob = user(&server, "bob", "p");
        assert_eq!(text(&mut bob, &["SET", "own:k", "v"]), "+OK", "{program}");
        assert!(text(&mut bob, &["GET", "k"]).starts_with("NOPERM"), "{program}");
        assert!(text(&mut server.client().unwrap(), &["CLIENT", "LIST"]).contains("user=bob"), "{program}");
        let mut stranger = Client::connect(&server.address()).unwrap();
        assert_eq!(text(&mut stranger, &["GET", "k"]), "NOAUTH Authentication required.", "{program}");
        assert_eq!(text(&mut stranger, &["AUTH", "default", "sec"]), "+OK", "{program}");
    }
}
