//! TLS as the link speaks it: with redis-server and our own server, certificates that are right and such that are wrong, and what is
//! said about the wrong ones.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use mtcache_conformance::certificates::{Authority, For, Life};
use mtcache_conformance::ports::free_port;
use mtcache_conformance::{Program, ServerOptions, TestServer, wait_until};
use mtcache_link::{
    Command, Error, ErrorKind, Link, LinkOptions, Listener, TrackOptions, Tracker, TrackingState,
    Verification,
};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use tokio::net::{TcpListener, TcpStream};

/// The build of Valkey that tests have is without TLS; `valkey_is_spoken_to_through_what_speaks_tls_for_it` has it.
const SERVERS: [Program; 2] = [Program::Redis, Program::Mtcache];

fn open(url: &str, options: LinkOptions) -> Result<Link, Error> {
    Link::open(&url.parse()?, options)
}

async fn connected(url: &str) -> Link {
    let link = open(url, LinkOptions::default()).unwrap();
    link.connected().await.unwrap();
    link
}

/// How the first attempt is refused.
async fn refusal(url: &str) -> Error {
    let link = open(url, LinkOptions::default()).unwrap();
    let error = link.connected().await.unwrap_err();
    assert!(error.to_string().contains("cannot connect to localhost"), "{error}");
    error
}

async fn echo(link: &Link, value: &[u8]) {
    link.command(Command::new("SET").arg("k").arg(value)).await.unwrap();
    let read = link.command(Command::new("GET").arg("k")).await.unwrap();
    assert_eq!(read.into_bytes().unwrap().as_deref(), Some(value));
}

#[tokio::test]
async fn values_come_back_whole() {
    let folder = tempfile::tempdir().unwrap();
    let ours = Authority::new(folder.path(), "ours");
    for program in SERVERS {
        let port = free_port().unwrap();
        let _server = TestServer::start(program, ours.options(port).no_tcp()).unwrap();
        let link = connected(&ours.url(port)).await;
        echo(&link, b"").await;
        echo(&link, &vec![7; 3_000_000]).await;
        let many = (0..20_000).map(|_| Command::new("INCR").arg("n")).collect();
        let last = link.pipeline(many).await.unwrap().pop().unwrap();
        assert_eq!(last.into_int().unwrap(), 20_000, "{program}");
    }
}

/// Ends TLS in front of a server, as a proxy does, and wants a client's certificate.
async fn in_front_of(port: u16, authority: &Authority) -> u16 {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let chain =
        CertificateDer::pem_slice_iter(&authority.read("server.pem")).collect::<Result<_, _>>().unwrap();
    let key = PrivateKeyDer::from_pem_slice(&authority.read("server.key")).unwrap();
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(&authority.read("ca.pem")).unwrap()).unwrap();
    let clients =
        WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider)).build().unwrap();
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_client_cert_verifier(clients)
        .with_single_cert(chain, key)
        .unwrap();
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let own_port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                let mut server = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
                if let Ok(mut client) = acceptor.accept(client).await {
                    let _ = tokio::io::copy_bidirectional(&mut client, &mut server).await;
                }
            });
        }
    });
    own_port
}

#[tokio::test]
async fn valkey_is_spoken_to_through_what_speaks_tls_for_it() {
    let folder = tempfile::tempdir().unwrap();
    let (ours, other) = (Authority::new(folder.path(), "ours"), Authority::new(folder.path(), "other"));
    let server = TestServer::valkey(ServerOptions::new()).unwrap();
    let port = in_front_of(server.port(), &ours).await;
    let link = connected(&ours.url(port)).await;
    echo(&link, &vec![7; 3_000_000]).await;
    let tracker = Tracker::start(&link, TrackOptions::default(), Arc::new(Nobody));
    tracker.add_prefix("r:");
    while tracker.state() != TrackingState::On {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(refusal(&other.url(port)).await.kind(), ErrorKind::Tls);
    let uncertified = format!("rediss://localhost:{port}?cacert={}", ours.path("ca.pem"));
    assert!(refusal(&uncertified).await.to_string().contains("wants a certificate of its clients"));
}

#[tokio::test]
async fn a_user_logs_in_over_tls() {
    let folder = tempfile::tempdir().unwrap();
    let ours = Authority::new(folder.path(), "ours");
    for program in SERVERS {
        let port = free_port().unwrap();
        let server = TestServer::start(program, ours.options(port)).unwrap();
        let mut raw = server.client().unwrap();
        raw.command(&["ACL", "SETUSER", "app", "on", ">p@ss/word", "~*", "&*", "+@all"]).unwrap();
        let url = |credentials: &str| ours.url(port).replace("://", &format!("://{credentials}@"));
        let link = connected(&url("app:p%40ss%2Fword")).await;
        let who = link.command(Command::new("ACL").arg("WHOAMI")).await.unwrap();
        assert_eq!(who.into_bytes().unwrap().as_deref(), Some(&b"app"[..]), "{program}");
        let error = refusal(&url("app:hunter2")).await;
        assert!(
            error.kind() == ErrorKind::Auth && !error.to_string().contains("hunter2"),
            "{program}: {error}"
        );
    }
}

#[tokio::test]
async fn the_options_may_come_from_code() {
    let folder = tempfile::tempdir().unwrap();
    let ours = Authority::new(folder.path(), "ours");
    for program in SERVERS {
        let port = free_port().unwrap();
        let _server = TestServer::start(program, ours.options(port).no_tcp()).unwrap();
        let mut options = LinkOptions::default();
        options.tls.ca_file = Some(ours.file("ca.pem"));
        options.tls.cert_file = Some(ours.file("client.pem"));
        options.tls.key_file = Some(ours.file("client.key"));
        let link = open(&format!("rediss://127.0.0.1:{port}"), options.clone()).unwrap();
        link.connected().await.unwrap();
        echo(&link, b"v").await;
        let error = open(&format!("redis://127.0.0.1:{port}"), options).unwrap_err();
        assert!(error.kind() == ErrorKind::Config && error.to_string().contains("rediss://"), "{error}");
    }
}

#[tokio::test]
async fn a_server_whose_certificate_is_wrong_is_not_spoken_to() {
    let folder = tempfile::tempdir().unwrap();
    let (ours, other) = (Authority::new(folder.path(), "ours"), Authority::new(folder.path(), "other"));
    ours.sign("expired", For::Server, &["localhost"], Life::Past);
    ours.sign("early", For::Server, &["localhost"], Life::Future);
    ours.sign("elsewhere", For::Server, &["cache.example"], Life::Now);
    ours.sign("nameless", For::Server, &[], Life::Now);
    ours.sign("clients", For::Client, &["localhost"], Life::Now);
    let trusts = |own: &Authority, port| format!("rediss://localhost:{port}?cacert={}", own.path("ca.pem"));
    for program in SERVERS {
        for (shown, says) in [
            ("expired", "has expired; renew it"),
            ("early", "not valid yet"),
            ("elsewhere", "is for DnsName(\"cache.example\"), not for localhost"),
            ("nameless", "names no host"),
            ("clients", "cannot be taken"),
        ] {
            let port = free_port().unwrap();
            let options = ours.options(port).args(["--tls-auth-clients", "no"]);
            let files = [ours.path(&format!("{shown}.pem")), ours.path(&format!("{shown}.key"))];
            let options = options.args(["--tls-cert-file", &files[0], "--tls-key-file", &files[1]]);
            let _server = TestServer::start(program, options).unwrap();
            let error = refusal(&trusts(&ours, port)).await;
            assert!(error.kind() == ErrorKind::Tls && error.to_string().contains(says), "{program}: {error}");
            if shown == "elsewhere" {
                echo(&connected(&format!("{}&sni=cache.example", trusts(&ours, port))).await, b"v").await;
            }
            // Spelled out, and only then.
            echo(&connected(&format!("rediss://localhost:{port}#insecure")).await, b"v").await;
        }
        let port = free_port().unwrap();
        let _server =
            TestServer::start(program, ours.options(port).args(["--tls-auth-clients", "no"])).unwrap();
        let error = refusal(&trusts(&other, port)).await;
        let says = format!("signed by no authority in {}", other.path("ca.pem"));
        assert!(error.kind() == ErrorKind::Tls && error.to_string().contains(&says), "{program}: {error}");
        let error = refusal(&format!("rediss://localhost:{port}")).await;
        assert!(
            error.kind() == ErrorKind::Tls && error.to_string().contains("?cacert="),
            "{program}: {error}"
        );
        echo(&connected(&trusts(&ours, port)).await, b"v").await;
    }
}

#[tokio::test]
async fn a_client_whose_certificate_is_wrong_is_told_why() {
    let folder = tempfile::tempdir().unwrap();
    let (ours, other) = (Authority::new(folder.path(), "ours"), Authority::new(folder.path(), "other"));
    ours.sign("expired", For::Client, &["localhost"], Life::Past);
    for program in SERVERS {
        for protocols in ["TLSv1.2", "TLSv1.3"] {
            let port = free_port().unwrap();
            let options = ours.options(port).args(["--tls-protocols", protocols]);
            let _server = TestServer::start(program, options).unwrap();
            let with = |pem: &Path, key: &Path| {
                format!(
                    "rediss://localhost:{port}?cacert={}&cert={}&key={}",
                    ours.path("ca.pem"),
                    pem.display(),
                    key.display()
                )
            };
            let error = refusal(&format!("rediss://localhost:{port}?cacert={}", ours.path("ca.pem"))).await;
            let told = error.to_string();
            assert_eq!(error.kind(), ErrorKind::Tls, "{program} {protocols}: {error}");
            assert!(told.contains("wants a certificate of its clients"), "{program} {protocols}: {told}");
            for (authority, name) in [(&other, "client"), (&ours, "expired")] {
                let (pem, key) =
                    (authority.file(&format!("{name}.pem")), authority.file(&format!("{name}.key")));
                let error = refusal(&with(&pem, &key)).await;
                assert_eq!(error.kind(), ErrorKind::Tls, "{program} {protocols} {name}: {error}");
                let says = format!("refuses the certificate in {}", pem.display());
                assert!(error.to_string().contains(&says), "{program} {protocols} {name}: {error}");
            }
            echo(&connected(&ours.url(port)).await, b"v").await;
        }
    }
}

#[tokio::test]
async fn a_port_without_tls_is_said_to_be_one() {
    for program in Program::ALL {
        let server = TestServer::start(program, ServerOptions::new()).unwrap();
        let mut options = LinkOptions::default();
        options.connect_timeout = Duration::from_millis(500);
        let link = open(&format!("rediss://localhost:{}#insecure", server.port()), options).unwrap();
        let error = link.connected().await.unwrap_err();
        assert!(error.to_string().contains("TLS"), "{program}: {error}");
    }
}

#[tokio::test]
async fn files_that_do_not_fit_are_told_in_one_line_at_the_start() {
    let folder = tempfile::tempdir().unwrap();
    let (ours, other) = (Authority::new(folder.path(), "ours"), Authority::new(folder.path(), "other"));
    let missing = folder.path().join("missing.pem").display().to_string();
    let (cert, key) = (ours.path("client.pem"), ours.path("client.key"));
    for (options, says) in [
        (format!("cacert={missing}"), "missing.pem cannot be read"),
        (format!("cacert={key}"), "holds no certificate in PEM form; check the TLS option cacert"),
        (format!("cert={cert}"), "give key besides cert"),
        (format!("key={key}"), "give cert besides key"),
        (format!("cert={missing}&key={key}"), "missing.pem cannot be read"),
        (format!("cert={cert}&key={missing}"), "missing.pem cannot be read"),
        (format!("cert={cert}&key={cert}"), "holds no unencrypted private key"),
        (format!("cert={cert}&key={}", other.path("client.key")), "does not belong to the certificate"),
        ("sni=not%20a%20name".to_owned(), "neither a host name nor an address"),
    ] {
        let error = open(&format!("rediss://localhost:1?{options}"), LinkOptions::default()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Config);
        assert!(error.to_string().contains(says), "{options}: {error}");
    }
}

#[tokio::test]
async fn certificates_change_without_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let (old, new) = (Authority::new(folder.path(), "old"), Authority::new(folder.path(), "new"));
    let used = Authority::new(folder.path(), "used");
    let copy = |from: &Authority| {
        for what in ["ca.pem", "client.pem", "client.key"] {
            std::fs::copy(from.file(what), used.file(what)).unwrap();
        }
    };
    for program in SERVERS {
        copy(&old);
        let port = free_port().unwrap();
        let server = TestServer::start(program, old.options(port)).unwrap();
        let link = connected(&used.url(port)).await;
        let (cert, key, ca) = (new.path("server.pem"), new.path("server.key"), new.path("ca.pem"));
        let all = ["CONFIG", "SET", "tls-cert-file", &cert, "tls-key-file", &key, "tls-ca-cert-file", &ca];
        let mut admin = server.client().unwrap();
        assert!(admin.command(&all).unwrap().error().is_none());
        // The connection that is there goes on; the next one is refused, and says so, until the files are the new ones.
        echo(&link, b"1").await;
        admin.command(&["CLIENT", "KILL", "TYPE", "normal"]).unwrap();
        let refused = refused_in_the_end(&link).await;
        assert_eq!(refused.kind(), ErrorKind::Tls, "{program}: {refused}");
        // Half a change: the last that fitted stays in use, and nothing breaks.
        std::fs::copy(new.file("client.pem"), used.file("client.pem")).unwrap();
        copy(&new);
        assert!(link.wait_connected(Duration::from_secs(20)).await, "{program}");
        echo(&link, b"2").await;
    }
}

async fn refused_in_the_end(link: &Link) -> Error {
    loop {
        match link.command(Command::new("PING")).await {
            Err(error) if error.kind() == ErrorKind::ConnectionLost => {}
            Err(error) => return error,
            Ok(_) => tokio::time::sleep(Duration::from_millis(5)).await,
        }
    }
}

struct Nobody;

impl Listener for Nobody {
    fn changed(&self, _: &[u8]) {}
    fn all_changed(&self) {}
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn changes_are_told_over_tls_too() {
    let folder = tempfile::tempdir().unwrap();
    let ours = Authority::new(folder.path(), "ours");
    for program in SERVERS {
        let port = free_port().unwrap();
        let _server = TestServer::start(program, ours.options(port).no_tcp()).unwrap();
        let link = connected(&ours.url(port)).await;
        let tracker = Tracker::start(&link, TrackOptions::default(), Arc::new(Nobody));
        tracker.add_prefix("r:");
        tokio::task::block_in_place(|| wait_until("tracking is on", || tracker.state() == TrackingState::On));
    }
}

#[test]
fn nothing_but_the_word_itself_switches_verification_off() {
    for text in ["rediss://h", "rediss://h?insecure=false", "rediss+sentinel://h/s"] {
        let url: mtcache_link::LinkUrl = text.parse().unwrap();
        assert_eq!(url.tls().unwrap().verification.unwrap_or_default(), Verification::Full, "{text}");
    }
}
