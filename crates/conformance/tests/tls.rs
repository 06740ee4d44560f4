//! TLS as clients meet it: redis-cli, redis-py and redis-rs with certificates that are right and wrong, on redis-server first, so
//! that a mistake in the certificates is not taken for one of ours; certificates changed while the server runs.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use mtcache_conformance::certificates::Authority;
use mtcache_conformance::ports::free_port;
use mtcache_conformance::programs::test_tools;
use mtcache_conformance::{Program, TestServer};
use redis::{AsyncCommands, Client, ClientTlsConfig, TlsCertificates};

const SERVERS: [Program; 2] = [Program::Redis, Program::Mtcache];

/// What redis-rs shows and trusts.
fn for_redis_rs(trusted: &Authority, shown: Option<&Authority>) -> TlsCertificates {
    let client_tls = shown.map(|own| ClientTlsConfig {
        client_cert: own.read("client.pem"),
        client_key: own.read("client.key"),
    });
    TlsCertificates { client_tls, root_cert: Some(trusted.read("ca.pem")) }
}

/// Runs a command through redis-cli; what it prints on either stream.
fn redis_cli(port: u16, trusted: &Authority, shown: Option<&Authority>, command: &[&str]) -> String {
    let mut cli = Command::new("redis-cli");
    cli.args(["-h", "localhost", "-p", &port.to_string(), "--tls", "--cacert", &trusted.path("ca.pem")]);
    if let Some(own) = shown {
        cli.args(["--cert", &own.path("client.pem"), "--key", &own.path("client.key")]);
    }
    let output = cli.args(command).output().unwrap();
    [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).concat()
}

fn is_served(port: u16, trusted: &Authority, shown: Option<&Authority>) -> bool {
    let said = redis_cli(port, trusted, shown, &["PING"]);
    assert!(said == "PONG\n" || said.contains("rror") || said.contains("failed"), "{said}");
    said == "PONG\n"
}

fn python() -> PathBuf {
    let python = test_tools().join("redis-py-5/bin/python");
    assert!(python.exists(), "{} is missing; run scripts/install-test-tools.sh", python.display());
    python
}

#[test]
fn redis_cli_is_served_with_the_right_certificates_alone() {
    let folder = tempfile::tempdir().unwrap();
    let (ours, other) = (Authority::new(folder.path(), "ours"), Authority::new(folder.path(), "other"));
    for program in SERVERS {
        let port = free_port().unwrap();
        let server = TestServer::start(program, ours.options(port).no_tcp()).unwrap();
        assert!(is_served(port, &ours, Some(&ours)), "{program}: {}", server.log());
        assert!(!is_served(port, &ours, None), "{program}: no certificate");
        assert!(!is_served(port, &ours, Some(&other)), "{program}: another authority's certificate");
        assert!(!is_served(port, &other, Some(&ours)), "{program}: the client does not trust the server");
        let long = "x".repeat(300_000);
        assert_eq!(redis_cli(port, &ours, Some(&ours), &["SET", "k", &long[..100_000]]), "OK\n");
        assert_eq!(redis_cli(port, &ours, Some(&ours), &["GET", "k"]).len(), 100_001);
        let mut plain = server.unix_client().unwrap();
        assert_eq!(plain.command(&["STRLEN", "k"]).unwrap(), mtcache_conformance::Value::Integer(100_000));
    }
}

#[test]
fn clients_are_asked_for_certificates_as_configured() {
    let folder = tempfile::tempdir().unwrap();
    let (ours, other) = (Authority::new(folder.path(), "ours"), Authority::new(folder.path(), "other"));
    for program in SERVERS {
        for (asked, without, wrong) in [("optional", true, false), ("no", true, true)] {
            let port = free_port().unwrap();
            let options = ours.options(port).args(["--tls-auth-clients", asked]);
            let _server = TestServer::start(program, options).unwrap();
            assert!(is_served(port, &ours, Some(&ours)), "{program}, {asked}");
            assert_eq!(is_served(port, &ours, None), without, "{program}, {asked}");
            assert_eq!(is_served(port, &ours, Some(&other)), wrong, "{program}, {asked}");
        }
    }
}

#[test]
fn redis_py_is_served_over_tls() {
    const SCRIPT: &str = r#"
import redis, sys
port, ca, cert, key, other_cert, other_key = int(sys.argv[1]), *sys.argv[2:7]
def connect(**tls):
    return redis.Redis(host="localhost", port=port, ssl=True, ssl_ca_certs=ca, socket_timeout=30, **tls)
r = connect(ssl_certfile=cert, ssl_keyfile=key)
assert r.ping()
big = b"v" * 3_000_000
assert r.set("big", big) and r.get("big") == big
pipe = r.pipeline(transaction=False)
for i in range(20_000):
    pipe.incr("n")
assert pipe.execute() == list(range(1, 20_001))
p = r.pubsub()
p.subscribe("c")
assert p.get_message(timeout=10)["type"] == "subscribe"
assert r.publish("c", "m") == 1
assert p.get_message(timeout=10)["data"] == b"m"
for wrong in ({}, {"ssl_certfile": other_cert, "ssl_keyfile": other_key}):
    try:
        connect(**wrong).ping()
    except (redis.ConnectionError, OSError):
        continue
    raise AssertionError("served without the right certificate")
print("all good")
"#;
    let folder = tempfile::tempdir().unwrap();
    let (ours, other) = (Authority::new(folder.path(), "ours"), Authority::new(folder.path(), "other"));
    for program in SERVERS {
        let port = free_port().unwrap();
        let server = TestServer::start(program, ours.options(port)).unwrap();
        let files = [
            ours.path("ca.pem"),
            ours.path("client.pem"),
            ours.path("client.key"),
            other.path("client.pem"),
            other.path("client.key"),
        ];
        let output =
            Command::new(python()).args(["-c", SCRIPT, &port.to_string()]).args(files).output().unwrap();
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(
            said == "all good\n",
            "{program}:\n{said}{}\n{}",
            String::from_utf8_lossy(&output.stderr),
            server.log()
        );
    }
}

#[tokio::test]
async fn redis_rs_is_served_over_tls() {
    let folder = tempfile::tempdir().unwrap();
    let (ours, other) = (Authority::new(folder.path(), "ours"), Authority::new(folder.path(), "other"));
    for program in SERVERS {
        let port = free_port().unwrap();
        let _server = TestServer::start(program, ours.options(port)).unwrap();
        let url = format!("rediss://localhost:{port}/");
        let client = Client::build_with_tls(url.as_str(), for_redis_rs(&ours, Some(&ours))).unwrap();
        let mut connection = client.get_multiplexed_async_connection().await.unwrap();
        let big = "v".repeat(2_000_000);
        let _: () = connection.set("k", &big).await.unwrap();
        assert_eq!(connection.get::<_, String>("k").await.unwrap(), big, "{program}");
        for (trusted, shown) in [(&ours, None), (&ours, Some(&other)), (&other, Some(&ours))] {
            let client = Client::build_with_tls(url.as_str(), for_redis_rs(trusted, shown)).unwrap();
            let answer = match client.get_multiplexed_async_connection().await {
                Ok(mut connection) => connection.get::<_, Option<String>>("k").await.map(drop),
                Err(error) => Err(error),
            };
            assert!(answer.is_err(), "{program} serves a client without the right certificate");
        }
    }
}

#[tokio::test]
async fn new_certificates_are_taken_without_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let (old, new) = (Authority::new(folder.path(), "old"), Authority::new(folder.path(), "new"));
    for program in SERVERS {
        let port = free_port().unwrap();
        let server = TestServer::start(program, old.options(port)).unwrap();
        let url = format!("rediss://localhost:{port}/");
        let client = Client::build_with_tls(url.as_str(), for_redis_rs(&old, Some(&old))).unwrap();
        let mut early = client.get_multiplexed_async_connection().await.unwrap();
        let _: () = early.set("k", 1).await.unwrap();
        let mut admin = server.client().unwrap();
        let (cert, key, ca) = (new.path("server.pem"), new.path("server.key"), new.path("ca.pem"));
        // A certificate with the key of another one is refused, and the old ones stay.
        let reply = admin.command(&["CONFIG", "SET", "tls-cert-file", &cert]).unwrap();
        assert!(
            reply.error().is_some_and(|error| error.contains("Unable to update TLS configuration")),
            "{reply:?}"
        );
        assert!(is_served(port, &old, Some(&old)), "{program}");
        let all = ["CONFIG", "SET", "tls-cert-file", &cert, "tls-key-file", &key, "tls-ca-cert-file", &ca];
        let reply = admin.command(&all).unwrap();
        assert!(reply.error().is_none(), "{program}: {reply:?}");
        assert!(is_served(port, &new, Some(&new)), "{program}");
        assert!(!is_served(port, &old, Some(&old)), "{program}");
        assert_eq!(early.get::<_, i64>("k").await.unwrap(), 1, "{program}");
    }
}

#[test]
fn files_that_change_under_their_names_are_read_again() {
    let folder = tempfile::tempdir().unwrap();
    let (old, new) = (Authority::new(folder.path(), "old"), Authority::new(folder.path(), "new"));
    for program in SERVERS {
        let port = free_port().unwrap();
        let used = Authority::new(folder.path(), "used");
        let copy = |from: &Authority| {
            for what in ["ca.pem", "server.pem", "server.key"] {
                fs::copy(from.file(what), used.file(what)).unwrap();
            }
        };
        copy(&old);
        let server = TestServer::start(program, used.options(port)).unwrap();
        assert!(is_served(port, &old, Some(&old)), "{program}");
        copy(&new);
        let same = ["CONFIG", "SET", "tls-cert-file", &used.path("server.pem")];
        assert!(server.client().unwrap().command(&same).unwrap().error().is_none());
        assert!(is_served(port, &new, Some(&new)), "{program}");
    }
}

#[test]
fn authorities_may_lie_in_a_directory() {
    let folder = tempfile::tempdir().unwrap();
    let ours = Authority::new(folder.path(), "ours");
    let authorities = folder.path().join("authorities");
    fs::create_dir(&authorities).unwrap();
    fs::copy(ours.file("ca.pem"), authorities.join("ca.pem")).unwrap();
    fs::write(authorities.join("README"), "no certificate").unwrap();
    let port = free_port().unwrap();
    let options = ours.options(port).args(["--tls-ca-cert-file", "", "--tls-ca-cert-dir"]).arg(&authorities);
    let _server = TestServer::mtcache(options).unwrap();
    assert!(is_served(port, &ours, Some(&ours)));
    assert!(!is_served(port, &ours, None));
}

#[test]
fn protocol_versions_are_limited() {
    const SCRIPT: &str = r"
import socket, ssl, sys
context = ssl.create_default_context(cafile=sys.argv[2])
context.maximum_version = ssl.TLSVersion.TLSv1_2
with context.wrap_socket(socket.create_connection(('localhost', int(sys.argv[1]))), server_hostname='localhost') as s:
    print(s.version())
";
    let folder = tempfile::tempdir().unwrap();
    let ours = Authority::new(folder.path(), "ours");
    for (protocols, expected) in [("TLSv1.2 TLSv1.3", true), ("TLSv1.3", false), ("TLSv1.2", true)] {
        let port = free_port().unwrap();
        let options = ours.options(port).args(["--tls-auth-clients", "no", "--tls-protocols", protocols]);
        let _server = TestServer::mtcache(options).unwrap();
        let arguments = ["-c", SCRIPT, &port.to_string(), &ours.path("ca.pem")];
        let output = Command::new(python()).args(arguments).output().unwrap();
        assert_eq!(
            output.status.success(),
            expected,
            "{protocols}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
    }
}

#[test]
fn files_that_do_not_fit_are_told_in_one_line() {
    let folder = tempfile::tempdir().unwrap();
    let (ours, other) = (Authority::new(folder.path(), "ours"), Authority::new(folder.path(), "other"));
    let missing = folder.path().join("missing.pem");
    let missing: &Path = &missing;
    let port = free_port().unwrap();
    let cases: [(&str, PathBuf, &str); 7] = [
        ("--tls-cert-file", missing.into(), "missing.pem cannot be read"),
        ("--tls-cert-file", ours.file("server.key"), "holds no certificate"),
        ("--tls-key-file", missing.into(), "missing.pem cannot be read"),
        ("--tls-key-file", ours.file("server.pem"), "holds no unencrypted private key"),
        ("--tls-key-file", other.file("server.key"), "does not belong to the certificate"),
        ("--tls-ca-cert-file", missing.into(), "missing.pem cannot be read"),
        ("--tls-protocols", "SSLv3".into(), "TLSv1.2 and TLSv1.3 are supported"),
    ];
    for (option, value, expected) in cases {
        let error = TestServer::mtcache(ours.options(port).arg(option).arg(value)).unwrap_err().to_string();
        let line = error.lines().find(|line| line.contains(expected));
        assert!(line.is_some_and(|line| line.contains(option)), "{option}: {error}");
    }
    let error = TestServer::mtcache(ours.options(port).args(["--tls-ca-cert-file", ""])).unwrap_err();
    assert!(error.to_string().contains("give --tls-ca-cert-file, or --tls-auth-clients no"), "{error}");
}
