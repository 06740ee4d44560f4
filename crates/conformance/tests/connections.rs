//! Connections that misbehave or go quiet, on our server: who does not read is disconnected, whatever its task waits for,
//! and what is said about connections in the configuration holds.

use std::time::Duration;

use mtcache_conformance::{Client, ServerOptions, TestServer, Value, wait_until};

const MEGABYTE: usize = 1 << 20;

fn start(options: &[&str]) -> TestServer {
    TestServer::mtcache(ServerOptions::new().args(options.iter().copied())).unwrap()
}

fn text(value: &Value) -> String {
    value.text().unwrap_or_default()
}

/// Sockets that the server has open, the listening ones included: what it says about itself is not asked.
fn sockets(server: &TestServer) -> usize {
    let descriptors = std::fs::read_dir(format!("/proc/{}/fd", server.pid().unwrap())).unwrap();
    descriptors
        .filter_map(|entry| std::fs::read_link(entry.ok()?.path()).ok())
        .filter(|link| link.to_string_lossy().starts_with("socket:"))
        .count()
}

/// Sockets while `admin` is the only client: the one with which the harness saw that the server is up may still be on its way
/// out.
fn sockets_of_one_client(server: &TestServer, admin: &mut Client) -> usize {
    wait_until("one client is connected", || {
        text(&admin.command(&["CLIENT", "LIST"]).unwrap()).lines().count() == 1
    });
    let mut found = sockets(server);
    loop {
        std::thread::sleep(Duration::from_millis(50));
        let again = sockets(server);
        if again == found {
            return found;
        }
        found = again;
    }
}

/// A client that has asked for far more than the sockets hold, and reads nothing.
fn slow_reader(server: &TestServer, admin: &mut Client) -> (Client, String) {
    let value = vec![b'x'; 8 * MEGABYTE];
    admin.command(&[b"SET".as_slice(), b"big", &value]).unwrap();
    let mut slow = server.client().unwrap();
    let id = format!("{:?}", slow.command(&["CLIENT", "ID"]).unwrap());
    let id: String = id.chars().filter(char::is_ascii_digit).collect();
    for _ in 0..8 {
        slow.send(&["GET", "big"]).unwrap();
    }
    wait_until("the slow client's reply waits to be read", || {
        let list = text(&admin.command(&["CLIENT", "LIST", "ID", &id]).unwrap());
        list.contains(" events=rw ")
    });
    (slow, id)
}

#[test]
fn a_kill_reaches_a_client_that_does_not_read_its_replies() {
    let server = start(&[]);
    let mut admin = server.client().unwrap();
    let before = sockets_of_one_client(&server, &mut admin);
    let (slow, id) = slow_reader(&server, &mut admin);
    assert_eq!(sockets(&server), before + 1);
    assert_eq!(admin.command(&["CLIENT", "KILL", "ID", &id]).unwrap(), Value::Integer(1));
    wait_until("the socket of a killed client is closed", || sockets(&server) == before);
    drop(slow);
}

#[test]
fn a_client_that_does_not_read_is_idle_in_the_end() {
    let server = start(&[]);
    let mut admin = server.client().unwrap();
    let before = sockets_of_one_client(&server, &mut admin) + 1;
    let mut subscriber = server.client().unwrap();
    subscriber.command(&["SUBSCRIBE", "news"]).unwrap();
    let (slow, _) = slow_reader(&server, &mut admin);
    let mut idle = server.client().unwrap();
    idle.command(&["PING"]).unwrap();
    admin.command(&["CONFIG", "SET", "timeout", "1"]).unwrap();
    wait_until("idle clients are closed, whether they read or not", || {
        admin.command(&["PING"]).unwrap();
        sockets(&server) == before
    });
    assert_eq!(idle.read_to_close().unwrap(), b"", "no word is said to it");
    // Who waits for messages is never idle.
    admin.command(&["PUBLISH", "news", "hello"]).unwrap();
    assert!(format!("{:?}", subscriber.next_value().unwrap()).contains("hello"));
    drop(slow);
}

#[test]
fn subscribers_that_do_not_read_are_closed_at_the_hard_limit() {
    let server = start(&["--client-output-buffer-limit", "pubsub 4mb 0 0"]);
    let mut admin = server.client().unwrap();
    let before = sockets_of_one_client(&server, &mut admin);
    let mut subscribers: Vec<Client> = (0..5).map(|_| server.client().unwrap()).collect();
    for subscriber in &mut subscribers {
        subscriber.command(&["SUBSCRIBE", "news"]).unwrap();
    }
    assert_eq!(sockets(&server), before + 5);
    // Far beyond what the system's own buffers hold for a connection.
    let message = vec![b'x'; 256 * 1024];
    for _ in 0..240 {
        admin.command(&[b"PUBLISH".as_slice(), b"news", &message]).unwrap();
    }
    wait_until("five subscribers are closed", || sockets(&server) == before);
    assert!(server.log().contains("closed at 4194304 waiting bytes"));
    assert_eq!(admin.command(&["PUBLISH", "news", "x"]).unwrap(), Value::Integer(0));
}

#[test]
fn a_subscriber_that_lets_too_much_wait_for_too_long_is_closed_at_the_soft_limit() {
    let server = start(&["--client-output-buffer-limit", "pubsub 0 1mb 1"]);
    let mut admin = server.client().unwrap();
    let before = sockets_of_one_client(&server, &mut admin);
    let mut subscriber = server.client().unwrap();
    subscriber.command(&["SUBSCRIBE", "news"]).unwrap();
    let message = vec![b'x'; 256 * 1024];
    for _ in 0..80 {
        admin.command(&[b"PUBLISH".as_slice(), b"news", &message]).unwrap();
    }
    wait_until("the subscriber is closed", || sockets(&server) == before);
    assert!(server.log().contains("above its soft limit"));
}

#[test]
fn a_reply_above_the_hard_limit_of_normal_clients_closes_the_connection() {
    let server = start(&["--client-output-buffer-limit", "normal 1mb 0 0"]);
    let mut client = server.client().unwrap();
    client.command(&[b"SET".as_slice(), b"big", &vec![b'x'; 2 * MEGABYTE]]).unwrap();
    client.send(&["GET", "big"]).unwrap();
    assert_eq!(client.read_to_close().unwrap_or_default(), b"");
    let mut client = server.client().unwrap();
    client.command(&["CONFIG", "SET", "client-output-buffer-limit", "normal 0 0 0"]).unwrap();
    assert_eq!(text(&client.command(&["GET", "big"]).unwrap()).len(), 2 * MEGABYTE);
}

#[test]
fn the_longest_argument_is_what_the_configuration_says() {
    let server = start(&["--proto-max-bulk-len", "1mb"]);
    let mut client = server.client().unwrap();
    let set = |length: usize| format!("*3\r\n$3\r\nSET\r\n$1\r\nk\r\n${length}\r\n");
    client.send_raw(set(MEGABYTE + 1).as_bytes()).unwrap();
    let answer = String::from_utf8(client.read_to_close().unwrap()).unwrap();
    assert_eq!(answer, "-ERR Protocol error: invalid bulk length\r\n");
    let mut client = server.client().unwrap();
    client.command(&["CONFIG", "SET", "proto-max-bulk-len", "2mb"]).unwrap();
    let reply = client.command(&[b"SET".as_slice(), b"k", &vec![b'x'; MEGABYTE + 1]]).unwrap();
    assert_eq!(text(&reply), "OK");
}

#[test]
fn a_command_longer_than_the_query_buffer_may_be_ends_the_connection() {
    let server = start(&["--client-query-buffer-limit", "1mb"]);
    let mut client = server.client().unwrap();
    client.send_raw(b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$9000000\r\n").unwrap();
    // The server may close while this is being sent.
    let _ = client.send_raw(&vec![b'x'; 3 * MEGABYTE]);
    wait_until(
        "the connection is closed",
        || !matches!(client.read_available(Duration::from_millis(100)), Ok(Some(bytes)) if bytes.is_empty()),
    );
    assert!(server.log().contains("client-query-buffer-limit"));
}

#[test]
fn the_level_of_the_log_changes_and_the_pidfile_stands_while_the_server_runs() {
    let mut server = start(&["--pidfile", "server.pid"]);
    let path = server.directory().join("server.pid");
    let mut client = server.client().unwrap();
    assert_eq!(std::fs::read_to_string(&path).unwrap(), format!("{}\n", server.pid().unwrap()));
    client.command(&["CONFIG", "SET", "loglevel", "warning"]).unwrap();
    assert!(server.stop().unwrap().success());
    assert!(!server.log().contains("stopping"), "{}", server.log());
    assert!(!path.exists());
}

#[test]
fn a_second_signal_ends_the_process_at_once() {
    let mut server = start(&[]);
    let mut client = server.client().unwrap();
    // What a script has written is not cut off: the server waits for its end.
    client.send(&["EVAL", "redis.call('SET', 'k', 'v') while true do end", "0"]).unwrap();
    wait_until("the server runs the script", || {
        let mut other = server.client().unwrap();
        other.set_timeout(Duration::from_millis(200)).unwrap();
        !matches!(other.command(&["DBSIZE"]), Ok(Value::Integer(_)))
    });
    server.signal("TERM").unwrap();
    wait_until("the first signal is heard", || server.log().contains("received SIGTERM: stopping"));
    // `stop` sends the second one, and fails if the process does not end.
    assert_eq!(server.stop().unwrap().code(), Some(1));
    assert!(server.log().contains("received SIGTERM again"));
}
