//! A redis-server of our own for the length of a test, and connections to it.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use mtcache_protocol::{Frame, FrameDecoder, ReplyLimits, encode_command};

pub(crate) struct Server {
    child: Child,
    port: u16,
}

impl Server {
    /// Starts a server that keeps nothing.
    pub(crate) fn start(extra: &[&str]) -> Self {
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let child = Command::new("redis-server")
            .args(["--port", &port.to_string(), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"])
            .arg("--dir")
            .arg(std::env::temp_dir())
            .args(extra)
            .stdout(Stdio::null())
            .spawn()
            .expect("these tests need redis-server 7.0 (Debian: apt-get install redis-server)");
        let server = Self { child, port };
        let give_up = Instant::now() + Duration::from_secs(10);
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            assert!(Instant::now() < give_up, "redis-server does not answer on port {port}");
            std::thread::sleep(Duration::from_millis(10));
        }
        server
    }

    pub(crate) fn connect(&self) -> Connection {
        let stream = TcpStream::connect(("127.0.0.1", self.port)).unwrap();
        stream.set_nodelay(true).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        Connection { stream, decoder: FrameDecoder::new(ReplyLimits::default()), buf: Vec::new() }
    }

    /// Sends `bytes` on a connection of their own, ends it, and gives everything that came back.
    pub(crate) fn exchange(&self, bytes: &[u8]) -> Vec<u8> {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        // A server that has refused the connection may be gone before it has read all.
        let _ = stream.write_all(bytes);
        let _ = stream.shutdown(Shutdown::Write);
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer);
        answer
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub(crate) struct Connection {
    stream: TcpStream,
    decoder: FrameDecoder,
    buf: Vec<u8>,
}

impl Connection {
    pub(crate) fn call(&mut self, args: &[&[u8]]) -> Frame {
        let mut request = Vec::new();
        encode_command(args, &mut request);
        self.stream.write_all(&request).unwrap();
        loop {
            let progress = self.decoder.next(&self.buf).unwrap();
            self.buf.drain(..progress.consumed);
            if let Some(frame) = progress.frame {
                return frame;
            }
            let mut chunk = [0; 8192];
            let read = self.stream.read(&mut chunk).unwrap();
            assert_ne!(read, 0, "redis-server closed the connection");
            self.buf.extend_from_slice(&chunk[..read]);
        }
    }

    /// A call given as words.
    pub(crate) fn words(&mut self, line: &str) -> Frame {
        let args: Vec<&[u8]> = line.split(' ').map(str::as_bytes).collect();
        self.call(&args)
    }
}

/// A small generator (splitmix64), so that a failure can be repeated from its seed.
pub(crate) struct Random(u64);

impl Random {
    /// Seeded from the environment variable `SEED`, which a failing run prints, or at random.
    pub(crate) fn new() -> Self {
        static SEED: OnceLock<u64> = OnceLock::new();
        let seed = *SEED.get_or_init(|| {
            let given = std::env::var("SEED").ok().and_then(|text| text.parse().ok());
            given.unwrap_or_else(|| std::time::UNIX_EPOCH.elapsed().unwrap().as_nanos() as u64)
        });
        println!("SEED={seed}");
        Self(seed)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub(crate) fn below(&mut self, n: usize) -> usize {
        (self.next() % n as u64) as usize
    }

    pub(crate) fn pick<'a, T: ?Sized>(&mut self, from: &[&'a T]) -> &'a T {
        from[self.below(from.len())]
    }
}
