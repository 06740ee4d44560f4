//! Connections between the lane of their worker and a task of their own: nothing is lost, reordered or forgotten on the way.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use mtcache_node::{Node, NodeOptions};
use mtcache_server::{Server, ServerOptions};

/// How long a loaded machine may take for what happens by itself.
const PATIENCE: Duration = Duration::from_mins(1);

fn serve() -> (Server, SocketAddr) {
    let node = Arc::new(Node::open(&NodeOptions::default()).unwrap());
    let options = ServerOptions { port: Some(0), workers: 1, ..ServerOptions::default() };
    let server = Server::start(node, &options).unwrap();
    let address = server.addresses()[0];
    (server, address)
}

struct Peer(TcpStream);

impl Peer {
    fn connect(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).unwrap();
        stream.set_nodelay(true).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        Self(stream)
    }

    fn send(&mut self, bytes: &str) {
        self.0.write_all(bytes.as_bytes()).unwrap();
    }

    fn expect(&mut self, bytes: &str) {
        let mut received = vec![0; bytes.len()];
        self.0.read_exact(&mut received).unwrap();
        assert_eq!(String::from_utf8_lossy(&received), bytes);
    }

    /// All that comes until the server closes.
    fn rest(&mut self) -> Vec<u8> {
        let mut rest = Vec::new();
        self.0.read_to_end(&mut rest).unwrap();
        rest
    }
}

/// Waiting commands and scripts make a connection a task, a number of calm batches take it back.
#[test]
fn order_is_kept_between_lane_and_task() {
    let (_server, address) = serve();
    let (mut peer, mut other) = (Peer::connect(address), Peer::connect(address));
    let mut count = 0;
    for round in 0..20 {
        peer.send(
            "INCR n\r\nBLPOP list 0\r\nINCR n\r\nEVAL \"return redis.call('incr','n')\" 0\r\nINCR n\r\n",
        );
        count += 1;
        peer.expect(&format!(":{count}\r\n"));
        other.send("RPUSH list x\r\n");
        other.expect(":1\r\n");
        peer.expect("*2\r\n$4\r\nlist\r\n$1\r\nx\r\n");
        peer.expect(&format!(":{}\r\n:{}\r\n:{}\r\n", count + 1, count + 2, count + 3));
        count += 3;
        // Sometimes back in the lane before the next round, sometimes not.
        for _ in 0..round * 5 {
            count += 1;
            peer.send("INC");
            peer.send("R n\r\n");
            peer.expect(&format!(":{count}\r\n"));
        }
    }
}

#[test]
fn a_message_reaches_a_client_that_says_nothing() {
    let (_server, address) = serve();
    let (mut tracker, mut writer) = (Peer::connect(address), Peer::connect(address));
    tracker.send("HELLO 3\r\n");
    let mut hello = [0; 4096];
    assert!(tracker.0.read(&mut hello).unwrap() > 0);
    for round in 0..50 {
        tracker.send("CLIENT TRACKING ON\r\nGET key\r\n");
        tracker.expect("+OK\r\n");
        let shown = if round == 0 { "_\r\n".to_owned() } else { format!("$2\r\n{:02}\r\n", round - 1) };
        tracker.expect(&shown);
        writer.send(&format!("SET key {round:02}\r\n"));
        writer.expect("+OK\r\n");
        tracker.expect(">2\r\n$10\r\ninvalidate\r\n*1\r\n$3\r\nkey\r\n");
    }
}

#[test]
fn a_client_that_says_nothing_can_be_ended() {
    let (_server, address) = serve();
    let (mut idle, mut admin) = (Peer::connect(address), Peer::connect(address));
    idle.send("CLIENT ID\r\n");
    idle.expect(":1\r\n");
    admin.send("CLIENT KILL ID 1\r\n");
    admin.expect(":1\r\n");
    assert!(idle.rest().is_empty());
}

/// What was sent before the end of a stream is run and answered, also when the end comes with it.
#[test]
fn requests_before_the_end_of_a_stream_are_answered() {
    let (_server, address) = serve();
    for _ in 0..200 {
        let mut peer = Peer::connect(address);
        peer.send("PING\r\nPING\r\n");
        peer.0.shutdown(Shutdown::Write).unwrap();
        assert_eq!(peer.rest(), b"+PONG\r\n+PONG\r\n");
    }
}

/// More than a read takes at once and more than a socket takes at once, both ways.
#[test]
fn what_does_not_fit_goes_on_later() {
    let (_server, address) = serve();
    let mut peer = Peer::connect(address);
    let value = "v".repeat(3_000_000);
    let mut sender = Peer(peer.0.try_clone().unwrap());
    let commands = format!("*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$3000000\r\n{value}\r\nGET k\r\nGET k\r\nPING\r\n");
    let writing = std::thread::spawn(move || sender.send(&commands));
    peer.expect("+OK\r\n");
    std::thread::sleep(Duration::from_millis(50));
    for _ in 0..2 {
        peer.expect(&format!("$3000000\r\n{value}\r\n"));
    }
    peer.expect("+PONG\r\n");
    writing.join().unwrap();
}

/// Nobody waits for ever behind a connection that always has something.
#[test]
fn a_busy_connection_does_not_keep_others_out() {
    let (_server, address) = serve();
    let mut busy = Peer::connect(address);
    let mut sender = Peer(busy.0.try_clone().unwrap());
    let writing = std::thread::spawn(move || {
        for _ in 0..300 {
            sender.send(&"PING\r\n".repeat(10_000));
        }
    });
    let reading = std::thread::spawn(move || {
        let mut left = 300 * 10_000 * 7;
        let mut buffer = vec![0; 65536];
        while left > 0 {
            left -= busy.0.read(&mut buffer).unwrap();
        }
    });
    for _ in 0..50 {
        let mut other = Peer::connect(address);
        other.send("EVAL \"return 7\" 0\r\n");
        other.expect(":7\r\n");
    }
    writing.join().unwrap();
    reading.join().unwrap();
}
