//! The bytes of our replies beside those of a redis-server, for commands that answer with several replies or in the other
//! protocol version.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

use mtcache_conformance::TestServer;
use mtcache_protocol::encode_command;

use super::{Inbox, Rig, split};

/// A session of ours and a connection to a redis-server of its own.
pub(crate) struct Wires {
    pub(crate) ours: Rig,
    pub(crate) inbox: Inbox,
    theirs: TcpStream,
    _server: TestServer,
}

impl Wires {
    /// Starts a redis-server.
    pub(crate) fn start() -> Self {
        let server = TestServer::redis([]).unwrap();
        let theirs = TcpStream::connect(("127.0.0.1", server.port())).unwrap();
        theirs.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
        let (ours, inbox) = Rig::new().listening();
        Self { ours, inbox, theirs, _server: server }
    }

    /// Runs each line on both sides; all bytes must be equal, after `normalise` on both.
    #[track_caller]
    pub(crate) fn same_after(&mut self, lines: &[&str], normalise: impl Fn(String) -> String) {
        for command in lines {
            let ours = normalise(String::from_utf8_lossy(&self.ours.raw(command)).into_owned());
            let theirs = normalise(String::from_utf8_lossy(&self.ask(command, ours.len())).into_owned());
            assert_eq!(ours, theirs, "ours (left) differs from Redis' (right) for: {command}");
        }
    }

    /// As [`same_after`](Self::same_after), with nothing to normalise.
    #[track_caller]
    pub(crate) fn same(&mut self, lines: &[&str]) {
        self.same_after(lines, |text| text);
    }

    /// Sends a line and reads until as many bytes have come as expected, or no more come.
    fn ask(&mut self, command: &str, expected: usize) -> Vec<u8> {
        let args = split(command);
        let args: Vec<&[u8]> = args.iter().map(Vec::as_slice).collect();
        let mut request = Vec::new();
        encode_command(&args, &mut request);
        self.theirs.write_all(&request).unwrap();
        let mut reply = Vec::new();
        let mut chunk = [0; 4096];
        while reply.len() < expected.max(1) {
            match self.theirs.read(&mut chunk) {
                Ok(0) | Err(_) => break,
                Ok(read) => reply.extend_from_slice(&chunk[..read]),
            }
        }
        reply
    }
}
