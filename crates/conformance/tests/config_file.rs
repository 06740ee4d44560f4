//! `CONFIG REWRITE`: what was changed is there after a restart, the file stays its owner's, and redis-server reads it too.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use mtcache_conformance::servers::ServerOptions;
use mtcache_conformance::{TestServer, Value};

const FILE: &str =
    "# what we changed ourselves\nmaxmemory 100mb\n\nhz 15\nuser ann on nopass ~ann:* -@all +get\n";

/// Parameters that are at hand on both sides, with values that are no defaults and need care.
const CHANGES: [(&str, &str); 8] = [
    ("maxmemory", "209715200"),
    ("maxmemory-policy", "volatile-lfu"),
    ("notify-keyspace-events", "xKE"),
    ("client-output-buffer-limit", "normal 0 0 0 slave 268435456 67108864 60 pubsub 1048576 524288 10"),
    ("masterauth", "two words, a \"quote\" and a #"),
    ("slowlog-log-slower-than", "-1"),
    ("latency-tracking-info-percentiles", "50 99.9"),
    ("hz", "20"),
];

fn change_and_rewrite(server: &TestServer) {
    let mut client = server.client().unwrap();
    for (name, value) in CHANGES {
        assert_eq!(
            client.command(&["CONFIG", "SET", name, value]).unwrap(),
            Value::Simple("OK".into()),
            "{name}"
        );
    }
    let set = ["ACL", "SETUSER", "bob", "on", ">secret", "%R~b*", "&news", "+@read"];
    assert_eq!(client.command(&set).unwrap(), Value::Simple("OK".into()));
    assert_eq!(client.command(&["CONFIG", "REWRITE"]).unwrap(), Value::Simple("OK".into()));
}

fn check(server: &TestServer, file: &Path) {
    let mut client = server.client().unwrap();
    for (name, value) in CHANGES {
        let shown = client.command(&["CONFIG", "GET", name]).unwrap();
        assert_eq!(shown.elements().unwrap()[1].text().unwrap(), value, "{name}");
    }
    let users = client.command(&["ACL", "LIST"]).unwrap();
    let users: Vec<_> = users.elements().unwrap().iter().map(|user| user.text().unwrap()).collect();
    assert!(users.iter().any(|user| user.starts_with("user ann ") && user.contains("~ann:*")), "{users:?}");
    assert!(users.iter().any(|user| user.starts_with("user bob ") && user.contains("%R~b*")), "{users:?}");
    let text = std::fs::read_to_string(file).unwrap();
    assert!(text.starts_with("# what we changed ourselves\nmaxmemory 200mb\n\nhz 20\nuser "), "{text}");
    assert!(!text.contains("secret") && text.matches("\nhz ").count() == 1, "{text}");
}

#[test]
fn what_was_rewritten_is_there_after_a_restart_and_for_redis_too() {
    let directory = tempfile::tempdir().unwrap();
    for by_redis in [false, true] {
        let file = directory.path().join(format!("{by_redis}.conf"));
        std::fs::write(&file, FILE).unwrap();
        let options = || ServerOptions::new().config_file(&file);
        let first =
            if by_redis { TestServer::redis(options()) } else { TestServer::mtcache(options()) }.unwrap();
        change_and_rewrite(&first);
        // The first goes on: redis-server does not start with a `dir` that is gone.
        check(&TestServer::mtcache(options()).unwrap(), &file);
        check(&TestServer::redis(options()).unwrap(), &file);
    }
}

#[test]
fn the_file_keeps_its_rights_and_its_name_may_be_a_link() {
    let directory = tempfile::tempdir().unwrap();
    let (file, link) = (directory.path().join("real.conf"), directory.path().join("link.conf"));
    std::fs::write(&file, "hz 15\n").unwrap();
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o640)).unwrap();
    std::os::unix::fs::symlink(&file, &link).unwrap();
    let server = TestServer::mtcache(ServerOptions::new().config_file(&link)).unwrap();
    let mut client = server.client().unwrap();
    client.command(&["CONFIG", "SET", "hz", "33"]).unwrap();
    assert_eq!(client.command(&["CONFIG", "REWRITE"]).unwrap(), Value::Simple("OK".into()));
    assert!(std::fs::symlink_metadata(&link).unwrap().is_symlink());
    assert!(std::fs::read_to_string(&file).unwrap().starts_with("hz 33\n"));
    assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o640);
    let info = client.command(&["INFO", "server"]).unwrap().text().unwrap();
    assert!(info.contains(&format!("config_file:{}\r\n", link.display())), "{info}");
    assert!(info.contains("executable:/"), "{info}");
}

#[test]
fn a_file_that_cannot_be_written_is_said_and_left_alone() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("server.conf");
    std::fs::write(&file, "hz 15\n").unwrap();
    let server = TestServer::mtcache(ServerOptions::new().config_file(&file)).unwrap();
    let mut client = server.client().unwrap();
    // A directory in its place stops everybody, root too.
    std::fs::remove_file(&file).unwrap();
    std::fs::create_dir(&file).unwrap();
    let error = client.command(&["CONFIG", "REWRITE"]).unwrap().error().unwrap();
    assert!(error.starts_with("ERR Rewriting config file: "), "{error}");
    assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 1);
    let without = TestServer::mtcache([]).unwrap();
    let error = without.client().unwrap().command(&["CONFIG", "REWRITE"]).unwrap().error().unwrap();
    assert_eq!(error, "ERR The server is running without a config file");
}
