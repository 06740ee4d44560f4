//! A TCP proxy in front of a server that can be told to lose things.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// What happens to bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Mode {
    /// All goes through.
    Pass = 0,
    /// Requests reach the server; the connection is cut at its first reply.
    CutReplies = 1,
    /// Requests reach the server; replies never come back. No end, no error.
    SwallowReplies = 2,
    /// Requests do not even reach the server. No end, no error.
    SwallowRequests = 3,
    /// Requests are held back, and reach the server when the mode changes; replies never come back.
    HoldRequests = 4,
    /// As `HoldRequests`, from the first request that has the awaited bytes in it; then the client sees its connection end.
    HoldAwaitedAndCut = 5,
}

pub(crate) struct Proxy {
    port: u16,
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    mode: AtomicU8,
    connections: AtomicU32,
    /// What `HoldAwaitedAndCut` waits for.
    awaited: Mutex<Vec<u8>>,
    /// Something is held back, or was.
    holding: AtomicBool,
    /// What was held back has been sent on.
    released: AtomicBool,
    /// The server has closed a connection.
    server_closed: AtomicBool,
    /// Goes back to passing for connections made after the mode was set.
    era: AtomicU32,
}

impl Proxy {
    pub(crate) async fn before(server_port: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let shared = Arc::new(Shared::default());
        let for_task = Arc::clone(&shared);
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let shared = Arc::clone(&for_task);
                shared.connections.fetch_add(1, Ordering::SeqCst);
                let era = shared.era.load(Ordering::SeqCst);
                tokio::spawn(async move {
                    if let Ok(server) = TcpStream::connect(("127.0.0.1", server_port)).await {
                        relay(client, server, &shared, era).await;
                    }
                });
            }
        });
        Self { port, shared }
    }

    pub(crate) fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    /// Holds for the connections there are; those made later pass.
    pub(crate) fn set(&self, mode: Mode) {
        self.shared.era.fetch_add(1, Ordering::SeqCst);
        self.shared.mode.store(mode as u8, Ordering::SeqCst);
    }

    /// Holds back the request with these bytes in it and cuts its connection; what comes before it passes.
    pub(crate) fn hold_and_cut_at(&self, awaited: &str) {
        *self.shared.awaited.lock() = awaited.as_bytes().to_vec();
        self.set(Mode::HoldAwaitedAndCut);
    }

    /// Whether what was held back has been sent on, or thrown back by a server that had closed the connection.
    pub(crate) fn is_settled(&self) -> bool {
        self.shared.released.load(Ordering::SeqCst) || self.shared.server_closed.load(Ordering::SeqCst)
    }

    /// Whether a request has been held back.
    pub(crate) fn is_holding(&self) -> bool {
        self.shared.holding.load(Ordering::SeqCst)
    }

    /// How many connections were made so far.
    pub(crate) fn connections(&self) -> u32 {
        self.shared.connections.load(Ordering::SeqCst)
    }
}

async fn relay(mut client: TcpStream, mut server: TcpStream, shared: &Shared, era: u32) {
    let is = |mode: Mode| {
        era != shared.era.load(Ordering::SeqCst) && shared.mode.load(Ordering::SeqCst) == mode as u8
    };
    let is_awaited = |request: &[u8]| {
        let awaited = shared.awaited.lock();
        request.windows(awaited.len().max(1)).any(|part| part == *awaited)
    };
    let mut held: Vec<u8> = Vec::new();
    let mut client_ended = false;
    // No network loses a part of what it carries and goes on: what follows is lost too, or every later reply would be another request's.
    let (mut requests_are_lost, mut replies_are_lost) = (false, false);
    let (mut from_client, mut from_server) = (vec![0; 65_536], vec![0; 65_536]);
    loop {
        tokio::select! {
            () = tokio::time::sleep(Duration::from_millis(5)), if !held.is_empty() => {
                if !is(Mode::HoldRequests) && !is(Mode::HoldAwaitedAndCut) {
                    let sent = server.write_all(&std::mem::take(&mut held)).await;
                    shared.released.store(true, Ordering::SeqCst);
                    if sent.is_err() {
                        return;
                    }
                }
            }
            read = client.read(&mut from_client), if !client_ended => {
                let Ok(n @ 1..) = read else {
                    if held.is_empty() {
                        return;
                    }
                    // As a network does: what was sent arrives, whatever became of the sender.
                    client_ended = true;
                    continue;
                };
                let cuts = is(Mode::HoldAwaitedAndCut) && is_awaited(&from_client[..n]);
                if cuts || is(Mode::HoldRequests) || !held.is_empty() {
                    held.extend_from_slice(&from_client[..n]);
                    shared.holding.store(true, Ordering::SeqCst);
                    if cuts {
                        let _ = client.shutdown().await;
                        client_ended = true;
                    }
                    continue;
                }
                requests_are_lost |= is(Mode::SwallowRequests);
                if !requests_are_lost && server.write_all(&from_client[..n]).await.is_err() {
                    return;
                }
            }
            read = server.read(&mut from_server) => {
                let Ok(n @ 1..) = read else {
                    shared.server_closed.store(true, Ordering::SeqCst);
                    return;
                };
                if is(Mode::CutReplies) {
                    return;
                }
                replies_are_lost |= is(Mode::SwallowReplies) || is(Mode::HoldRequests);
                if !replies_are_lost && !client_ended && client.write_all(&from_server[..n]).await.is_err() {
                    return;
                }
            }
        }
    }
}
