//! Connections that go from worker to worker while they are in use.
//!
//! The server is told that every worker is always saturated, so that it never stops moving connections. What is between
//! two requests (a transaction, a subscription, half a command, a client that waits) has to go along.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use mtcache_node::{Node, NodeOptions};
use mtcache_server::{Server, ServerOptions};

/// How long a loaded machine may take for what happens by itself.
const PATIENCE: Duration = Duration::from_mins(2);
/// So many moves have to be seen.
const MOVES: u64 = 60;

fn restless() -> Server {
    let node = Arc::new(Node::open(&NodeOptions::default()).unwrap());
    let options =
        ServerOptions { port: Some(0), workers: 3, saturated: 0, idle: 0, ..ServerOptions::default() };
    Server::start(node, &options).unwrap()
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
}

/// Counts up under a key of its own, now whole, now in two halves, now in a transaction.
fn count(address: SocketAddr, key: &str, rounds: usize) {
    let mut peer = Peer::connect(address);
    for round in 0..rounds {
        let before = round * 6;
        peer.send(&format!("INCR {key}\r\nINCR {key}\r\nINCR {key}\r\n"));
        peer.expect(&format!(":{}\r\n:{}\r\n:{}\r\n", before + 1, before + 2, before + 3));
        peer.send(&format!("MULTI\r\nINCR {key}\r\n"));
        peer.expect("+OK\r\n+QUEUED\r\n");
        peer.send(&format!("INCR {key}\r\nEXEC\r\n*2\r\n$4\r\nIN"));
        peer.expect(&format!("+QUEUED\r\n*2\r\n:{}\r\n:{}\r\n", before + 4, before + 5));
        peer.send(&format!("CR\r\n${}\r\n{key}\r\n", key.len()));
        peer.expect(&format!(":{}\r\n", before + 6));
    }
}

/// Sends numbers to a subscriber, and elements to one who waits for them; both get all of them in order.
fn talk(address: SocketAddr, name: &str, rounds: usize) {
    let (mut speaker, mut listener, mut waiting) =
        (Peer::connect(address), Peer::connect(address), Peer::connect(address));
    let length = name.len();
    listener.send(&format!("SUBSCRIBE {name}\r\n"));
    listener.expect(&format!("*3\r\n$9\r\nsubscribe\r\n${length}\r\n{name}\r\n:1\r\n"));
    for round in 100..100 + rounds {
        waiting.send(&format!("BLPOP {name} 0\r\n"));
        speaker.send(&format!("PUBLISH {name} {round:04}\r\nRPUSH {name} {round:04}\r\n"));
        speaker.expect(":1\r\n:1\r\n");
        listener.expect(&format!("*3\r\n$7\r\nmessage\r\n${length}\r\n{name}\r\n$4\r\n{round:04}\r\n"));
        waiting.expect(&format!("*2\r\n${length}\r\n{name}\r\n$4\r\n{round:04}\r\n"));
        if round % 7 == 0 {
            listener.send("PING\r\n");
            listener.expect("*2\r\n$4\r\npong\r\n$0\r\n\r\n");
        }
    }
}

#[test]
fn nothing_is_lost_or_reordered_while_connections_move() {
    let server = restless();
    let address = server.addresses()[0];
    let begin = Instant::now();
    let mut run = 0;
    while server.moves() < MOVES {
        assert!(begin.elapsed() < PATIENCE, "only {} moves", server.moves());
        thread::scope(|scope| {
            for number in 0..6 {
                scope.spawn(move || count(address, &format!("counter:{run}:{number}"), 100));
            }
            for number in 0..2 {
                scope.spawn(move || talk(address, &format!("talk:{run}:{number}"), 100));
            }
        });
        run += 1;
    }
    server.stop();
}

#[test]
fn a_connection_that_moved_still_counts_once() {
    let server = restless();
    let address = server.addresses()[0];
    let mut peers: Vec<Peer> = (0..5).map(|_| Peer::connect(address)).collect();
    let begin = Instant::now();
    while server.moves() < 20 {
        assert!(begin.elapsed() < PATIENCE, "only {} moves", server.moves());
        for peer in &mut peers {
            peer.send("PING\r\n");
            peer.expect("+PONG\r\n");
        }
    }
    let mut last = peers.pop().unwrap();
    drop(peers);
    loop {
        last.send("INFO clients\r\n");
        // One write of the server's; a part of it that lacks the line only means another round.
        let mut buffer = [0; 4096];
        let received = last.0.read(&mut buffer).unwrap();
        let text = String::from_utf8_lossy(&buffer[..received]);
        if text.contains("connected_clients:1\r\n") {
            break;
        }
        assert!(begin.elapsed() < PATIENCE, "{text}");
        thread::sleep(Duration::from_millis(20));
    }
    server.stop();
}
