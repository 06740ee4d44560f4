//! More clients than files that the process may have open, on our server beside redis-server: they are turned away, and files
//! go on being written.

use std::io::Read;
use std::net::TcpStream;
use std::time::Duration;

use mtcache_conformance::servers::OpenFiles;
use mtcache_conformance::{Client, ServerOptions, TestServer, run, wait_until};

const LIMIT: OpenFiles = OpenFiles { soft: 60, hard: 80 };
const CONNECTIONS: usize = 120;

fn options() -> ServerOptions {
    ServerOptions::new().args(["--appendonly", "yes"]).open_files(LIMIT)
}

fn maxclients(client: &mut Client) -> usize {
    let reply = run(client, "CONFIG GET maxclients");
    reply.elements().unwrap()[1].text().unwrap().parse().unwrap()
}

/// Whether the server says that it is full.
fn is_turned_away(stream: &mut TcpStream) -> bool {
    stream.set_read_timeout(Some(Duration::from_millis(20))).unwrap();
    let mut said = Vec::new();
    let _ = stream.take(100).read_to_end(&mut said);
    said.starts_with(b"-ERR max number of clients reached\r\n")
}

fn info(client: &mut Client, field: &str) -> String {
    let info = run(client, "INFO persistence").text().unwrap();
    let line = info.lines().find_map(|line| line.strip_prefix(field));
    line.unwrap_or_else(|| panic!("no {field} in {info}")).to_owned()
}

fn check(server: &TestServer) {
    let mut admin = server.client().unwrap();
    let possible = maxclients(&mut admin);
    assert!((20..=LIMIT.hard as usize - 32).contains(&possible), "maxclients {possible}: {}", server.log());
    assert!(
        server
            .log()
            .contains(&format!("maxclients has been reduced to {possible} to compensate for low ulimit")),
        "{}",
        server.log()
    );
    let mut crowd: Vec<TcpStream> =
        (0..CONNECTIONS).map(|_| TcpStream::connect(("127.0.0.1", server.port())).unwrap()).collect();
    wait_until("all are let in or turned away", || {
        let stats = run(&mut admin, "INFO stats").text().unwrap();
        let rejected = stats.lines().find_map(|line| line.strip_prefix("rejected_connections:")).unwrap();
        rejected.parse::<usize>().unwrap() == CONNECTIONS + 1 - possible
    });
    let turned_away = crowd.iter_mut().filter_map(|stream| is_turned_away(stream).then_some(())).count();
    assert_eq!(turned_away, CONNECTIONS + 1 - possible);

    for round in 0..3 {
        assert_eq!(run(&mut admin, &format!("SET k{round} v")).error(), None, "{}", server.log());
        assert_eq!(run(&mut admin, "BGSAVE").error(), None);
        wait_until("the snapshot is written", || info(&mut admin, "rdb_bgsave_in_progress:") == "0");
        assert_eq!(info(&mut admin, "rdb_last_bgsave_status:"), "ok", "{}", server.log());
        assert_eq!(run(&mut admin, "BGREWRITEAOF").error(), None);
        wait_until("the journal is rewritten", || info(&mut admin, "aof_rewrite_in_progress:") == "0");
        assert_eq!(info(&mut admin, "aof_last_bgrewrite_status:"), "ok", "{}", server.log());
    }
    assert_eq!(info(&mut admin, "aof_last_write_status:"), "ok");
}

#[test]
fn more_clients_than_open_files_leave_our_server_its_own() {
    check(&TestServer::mtcache(options()).unwrap());
}

#[test]
fn more_clients_than_open_files_leave_redis_its_own() {
    check(&TestServer::redis(options()).unwrap());
}

#[test]
fn maxclients_goes_no_further_than_open_files() {
    let servers = [TestServer::mtcache(options()).unwrap(), TestServer::redis(options()).unwrap()];
    for server in &servers {
        let mut admin = server.client().unwrap();
        let possible = maxclients(&mut admin);
        let refused = run(&mut admin, "CONFIG SET maxclients 5000");
        assert_eq!(
            refused.error().unwrap(),
            format!(
                "ERR CONFIG SET failed (possibly related to argument 'maxclients') - The operating system is not able to \
                 handle the specified number of clients, try with {possible}"
            )
        );
        assert_eq!(maxclients(&mut admin), possible);
        assert_eq!(run(&mut admin, "CONFIG SET maxclients 10").error(), None);
        assert_eq!(run(&mut admin, &format!("CONFIG SET maxclients {possible}")).error(), None);
    }
}

#[test]
fn the_limit_is_raised_as_far_as_it_has_to_be() {
    let limit = OpenFiles { soft: 60, hard: 4000 };
    let options = ServerOptions::new().args(["--maxclients", "500"]).open_files(limit);
    let server = TestServer::mtcache(options).unwrap();
    assert_eq!(maxclients(&mut server.client().unwrap()), 500);
    let limits = std::fs::read_to_string(format!("/proc/{}/limits", server.pid().unwrap())).unwrap();
    let line = limits.lines().find(|line| line.starts_with("Max open files")).unwrap();
    let soft: u32 = line.split_whitespace().nth(3).unwrap().parse().unwrap();
    assert!((532..600).contains(&soft), "{line}");
    assert!(server.log().contains("Increased maximum number of open files to"), "{}", server.log());
}
