//! A failover in the middle of switching tracking on: the change that is made to see whether it is told goes to another server than the one
//! that is listened to.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use mtcache_link::{Link, LinkOptions, Listener, TrackOptions, Tracker, TrackingState};
use parking_lot::Mutex;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, Semaphore};

/// One address, behind which one server after the other is.
struct Address {
    /// The server that new connections lead to.
    server: AtomicUsize,
    /// The first server has been asked to track, and answers when it is let.
    asked: Semaphore,
    answers: Semaphore,
    /// Ends the first connection.
    cut: Notify,
    tracking: Mutex<Vec<(usize, Writer)>>,
}

type Writer = Arc<tokio::sync::Mutex<OwnedWriteHalf>>;

struct Nobody;

impl Listener for Nobody {
    fn changed(&self, _: &[u8]) {}
    fn all_changed(&self) {}
}

impl Address {
    async fn serve(self: Arc<Self>, listener: TcpListener) {
        let mut number = 0;
        while let Ok((stream, _)) = listener.accept().await {
            number += 1;
            let (address, is_first) = (Arc::clone(&self), number == 1);
            tokio::spawn(async move {
                let cut = Arc::clone(&address);
                tokio::select! {
                    () = address.converse(stream) => {}
                    () = cut.cut.notified(), if is_first => {}
                }
            });
        }
    }

    async fn converse(&self, stream: TcpStream) {
        let server = self.server.load(Ordering::SeqCst);
        let (reader, writer) = stream.into_split();
        let (mut reader, writer) = (BufReader::new(reader), Arc::new(tokio::sync::Mutex::new(writer)));
        while let Some(words) = read(&mut reader).await {
            let reply = match (words[0].to_ascii_uppercase().as_str(), words.get(1).map(String::as_str)) {
                ("HELLO", _) => "%1\r\n$5\r\nproto\r\n:3\r\n".to_owned(),
                ("CLIENT", Some("ID")) => ":1\r\n".to_owned(),
                ("CLIENT", Some("TRACKING")) => {
                    if server == 0 {
                        self.asked.add_permits(1);
                        self.answers.acquire().await.unwrap().forget();
                    }
                    self.tracking.lock().push((server, Arc::clone(&writer)));
                    "+OK\r\n".to_owned()
                }
                ("INFO", _) => format!("$8\r\nrun_id:{server}\r\n"),
                ("PING", _) => "+PONG\r\n".to_owned(),
                ("SET", Some(key)) => {
                    let told: Vec<_> =
                        self.tracking.lock().iter().filter(|(at, _)| *at == server).cloned().collect();
                    let push = format!(">2\r\n$10\r\ninvalidate\r\n*1\r\n${}\r\n{key}\r\n", key.len());
                    for (_, writer) in told {
                        let _ = writer.lock().await.write_all(push.as_bytes()).await;
                    }
                    "+OK\r\n".to_owned()
                }
                _ => "+OK\r\n".to_owned(),
            };
            if writer.lock().await.write_all(reply.as_bytes()).await.is_err() {
                return;
            }
        }
    }
}

async fn read(reader: &mut BufReader<OwnedReadHalf>) -> Option<Vec<String>> {
    let mut line = String::new();
    reader.read_line(&mut line).await.ok().filter(|n| *n > 0)?;
    let count: usize = line.trim().strip_prefix('*')?.parse().ok()?;
    let mut words = Vec::with_capacity(count);
    for _ in 0..count {
        line.clear();
        reader.read_line(&mut line).await.ok()?;
        let length: usize = line.trim().strip_prefix('$')?.parse().ok()?;
        let mut word = vec![0; length + 2];
        reader.read_exact(&mut word).await.ok()?;
        word.truncate(length);
        words.push(String::from_utf8(word).ok()?);
    }
    Some(words)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_probe_that_went_to_another_server_does_not_refuse_that_one() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("redis://{}", listener.local_addr().unwrap());
    let address = Arc::new(Address {
        server: AtomicUsize::new(0),
        asked: Semaphore::new(0),
        answers: Semaphore::new(0),
        cut: Notify::new(),
        tracking: Mutex::default(),
    });
    tokio::spawn(Arc::clone(&address).serve(listener));
    let mut options = LinkOptions::default();
    options.response_timeout = Duration::from_secs(1);
    options.backoff_max = Duration::from_millis(100);
    let link = Link::open(&url.parse().unwrap(), options).unwrap();
    link.connected().await.unwrap();
    let old = link.server_run();
    let tracker = Tracker::start(&link, TrackOptions::default(), Arc::new(Nobody));
    tracker.add_prefix("r:");
    address.asked.acquire().await.unwrap().forget();
    address.server.store(1, Ordering::SeqCst);
    address.cut.notify_one();
    let until = |what: &'static str| {
        let deadline = Instant::now() + Duration::from_secs(20);
        move || assert!(Instant::now() < deadline, "not in time: {what}")
    };
    let check = until("the link leads to the second server");
    while link.server_run() == old || !link.is_connected() {
        check();
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    address.answers.add_permits(1);
    let check = until("tracking is on");
    while tracker.state() != TrackingState::On {
        assert!(
            !matches!(tracker.state(), TrackingState::Refused(_)),
            "off for a minute, for another server's silence"
        );
        check();
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
