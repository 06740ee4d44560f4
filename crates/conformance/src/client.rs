//! A blocking client for tests: RESP2 and RESP3, pipelining, pushes, raw bytes, TCP and Unix sockets. It sends exactly what it
//! is told and never retries or reconnects; every read has a deadline, so that a test fails instead of hanging.

use std::collections::VecDeque;
use std::io::{self, BufReader, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::Duration;

use crate::resp::{Value, read_value, write_command};

/// How long a read or write waits unless [`Client::set_timeout`] says otherwise.
pub const DEFAULT_TIMEOUT: Duration = Duration::from_secs(20);

/// Where a server listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Address {
    /// A port on 127.0.0.1.
    Tcp(u16),
    /// A Unix socket's path.
    Unix(PathBuf),
}

/// Sends a command as one types it, words with spaces between, and returns its reply.
///
/// # Panics
/// When there is none.
pub fn run(client: &mut Client, command: &str) -> Value {
    let args: Vec<&str> = command.split(' ').collect();
    client.command(&args).unwrap_or_else(|error| panic!("{command}: {error}"))
}

/// As [`run`], of a command that has to succeed.
///
/// # Panics
/// When it does not.
pub fn ok(client: &mut Client, command: &str) {
    let reply = run(client, command);
    assert_eq!(reply.error(), None, "{command}");
}

/// One connection.
#[derive(Debug)]
pub struct Client {
    reader: BufReader<Stream>,
    pushes: VecDeque<Value>,
}

impl Client {
    /// Connects; no command is sent.
    pub fn connect(address: &Address) -> io::Result<Self> {
        let stream = match address {
            Address::Tcp(port) => {
                let stream = TcpStream::connect(("127.0.0.1", *port))?;
                stream.set_nodelay(true)?;
                Stream::Tcp(stream)
            }
            Address::Unix(path) => Stream::Unix(UnixStream::connect(path)?),
        };
        let client = Self { reader: BufReader::with_capacity(64 * 1024, stream), pushes: VecDeque::new() };
        client.set_timeout(DEFAULT_TIMEOUT)?;
        Ok(client)
    }

    /// Bounds every later read and write.
    pub fn set_timeout(&self, timeout: Duration) -> io::Result<()> {
        match self.reader.get_ref() {
            Stream::Tcp(stream) => {
                stream.set_read_timeout(Some(timeout))?;
                stream.set_write_timeout(Some(timeout))
            }
            Stream::Unix(stream) => {
                stream.set_read_timeout(Some(timeout))?;
                stream.set_write_timeout(Some(timeout))
            }
        }
    }

    /// Sends one command and returns its reply; pushes that arrive before it are kept for [`Client::next_push`].
    pub fn command<A: AsRef<[u8]>>(&mut self, args: &[A]) -> io::Result<Value> {
        let mut bytes = Vec::new();
        write_command(&mut bytes, args);
        self.send_raw(&bytes)?;
        self.reply()
    }

    /// Sends one command without reading its reply.
    pub fn send<A: AsRef<[u8]>>(&mut self, args: &[A]) -> io::Result<()> {
        let mut bytes = Vec::new();
        write_command(&mut bytes, args);
        self.send_raw(&bytes)
    }

    /// Sends all commands with one write, then reads as many replies. Keep the batch small enough (some hundred kilobytes
    /// each way) that neither side blocks on a full socket.
    pub fn pipeline<C: AsRef<[A]>, A: AsRef<[u8]>>(&mut self, commands: &[C]) -> io::Result<Vec<Value>> {
        let mut bytes = Vec::new();
        for args in commands {
            write_command(&mut bytes, args.as_ref());
        }
        self.send_raw(&bytes)?;
        commands.iter().map(|_| self.reply()).collect()
    }

    /// Sends bytes as they are.
    pub fn send_raw(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.reader.get_mut().write_all(bytes)
    }

    /// The next reply that is not a push.
    pub fn reply(&mut self) -> io::Result<Value> {
        loop {
            match read_value(&mut self.reader)? {
                push @ Value::Push(_) => self.pushes.push_back(push),
                value => return Ok(value),
            }
        }
    }

    /// The next value of any kind, in the order of arrival: what a RESP2 subscriber reads.
    pub fn next_value(&mut self) -> io::Result<Value> {
        match self.pushes.pop_front() {
            Some(push) => Ok(push),
            None => read_value(&mut self.reader),
        }
    }

    /// The next push, waiting for it; an error when something else arrives.
    pub fn next_push(&mut self) -> io::Result<Value> {
        match self.next_value()? {
            push @ Value::Push(_) => Ok(push),
            other => Err(io::Error::new(
                io::ErrorKind::InvalidData,
                format!("a reply where a push was due: {other:?}"),
            )),
        }
    }

    /// The pushes that were read along with replies so far.
    pub fn take_pushes(&mut self) -> Vec<Value> {
        self.pushes.drain(..).collect()
    }

    /// Everything the server sends until it closes the connection.
    pub fn read_to_close(&mut self) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        self.reader.read_to_end(&mut bytes)?;
        Ok(bytes)
    }

    /// Reads whatever has arrived, waiting at most `wait` for the first byte; nothing in that time is an empty answer, and
    /// `None` means that the server has closed the connection.
    pub fn read_available(&mut self, wait: Duration) -> io::Result<Option<Vec<u8>>> {
        self.set_timeout(wait)?;
        let mut bytes = vec![0; 64 * 1024];
        let read = self.reader.read(&mut bytes);
        self.set_timeout(DEFAULT_TIMEOUT)?;
        match read {
            Ok(0) => Ok(None),
            Ok(length) => {
                bytes.truncate(length);
                Ok(Some(bytes))
            }
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {
                Ok(Some(Vec::new()))
            }
            Err(error) => Err(error),
        }
    }

    /// Tells the server that nothing more will be sent; replies can still be read.
    pub fn finish_sending(&mut self) -> io::Result<()> {
        match self.reader.get_ref() {
            Stream::Tcp(stream) => stream.shutdown(Shutdown::Write),
            Stream::Unix(stream) => stream.shutdown(Shutdown::Write),
        }
    }
}

#[derive(Debug)]
enum Stream {
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl Read for Stream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(stream) => stream.read(buffer),
            Self::Unix(stream) => stream.read(buffer),
        }
    }
}

impl Write for Stream {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(stream) => stream.write(buffer),
            Self::Unix(stream) => stream.write(buffer),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
