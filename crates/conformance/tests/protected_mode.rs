//! Protected mode: who is let in without a password. Redis counts 127.0.0.1 and `::1` as this machine and nothing else, so that
//! 127.0.0.2 stands in for another one here.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::process::Command;
use std::time::Duration;

use mtcache_conformance::{Program, ServerOptions, TestServer, Value};

const SERVERS: [Program; 2] = [Program::Redis, Program::Mtcache];
const ELSEWHERE: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 2);

/// What a PING from 127.0.0.2 is answered.
fn from_elsewhere(port: u16) -> String {
    // Only python binds the near end of a connection without further crates.
    const SCRIPT: &str = r"
import socket, sys
s = socket.socket()
s.settimeout(20)
s.bind(('127.0.0.2', 0))
s.connect(('127.0.0.2', int(sys.argv[1])))
try:
    s.sendall(b'PING\r\n')
    sys.stdout.write(s.recv(8000).decode())
except ConnectionError as error:
    sys.stdout.write(str(error))
";
    let output = Command::new("python3").args(["-c", SCRIPT, &port.to_string()]).output().unwrap();
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn strangers_are_refused_as_long_as_there_is_no_password() {
    let mut refusals = Vec::new();
    for program in SERVERS {
        let server =
            TestServer::start(program, ServerOptions::from(["--bind", "127.0.0.1", "127.0.0.2"])).unwrap();
        let mut admin = server.client().unwrap();
        let mut set = |args: &[&str]| assert_eq!(admin.command(args).unwrap(), Value::Simple(b"OK".to_vec()));
        refusals.push(from_elsewhere(server.port()));
        set(&["ACL", "SETUSER", "default", "off"]);
        assert!(from_elsewhere(server.port()).starts_with("-DENIED"), "{program}");
        set(&["ACL", "SETUSER", "default", "on", ">secret"]);
        assert_eq!(from_elsewhere(server.port()), "-NOAUTH Authentication required.\r\n", "{program}");
        set(&["ACL", "SETUSER", "default", "nopass"]);
        set(&["CONFIG", "SET", "protected-mode", "no"]);
        assert_eq!(from_elsewhere(server.port()), "+PONG\r\n", "{program}");
        set(&["CONFIG", "SET", "protected-mode", "yes"]);
        assert!(from_elsewhere(server.port()).starts_with("-DENIED"), "{program}");
    }
    assert!(refusals[0].starts_with("-DENIED Redis is running in protected mode"), "{}", refusals[0]);
    assert_eq!(refusals[0], refusals[1]);
}

#[test]
fn without_an_option_all_addresses_are_listened_on() {
    let server = TestServer::mtcache([]).unwrap();
    let defaults = server.client().unwrap().command(&["CONFIG", "GET", "protected-mode"]).unwrap();
    assert!(format!("{defaults:?}").contains("yes"));
    // The port is free on every address: nobody else answers there.
    let taken = TcpListener::bind(SocketAddr::from((ELSEWHERE, 0))).unwrap();
    let port = taken.local_addr().unwrap().port();
    drop(taken);
    let options = ServerOptions::new().args(["--bind", "*", "-::*", "--port", &port.to_string()]);
    // The harness asks on its own port, which this server does not have; so it is asked over the Unix socket.
    let server = TestServer::mtcache(options.no_tcp()).unwrap();
    let mut near = std::net::TcpStream::connect(("127.0.0.1", port)).unwrap();
    near.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    near.write_all(b"PING\r\n").unwrap();
    let mut pong = [0; 7];
    near.read_exact(&mut pong).unwrap();
    assert_eq!(&pong, b"+PONG\r\n");
    assert!(from_elsewhere(port).starts_with("-DENIED"), "{}", server.log());
}
