//! The circuit breaker, against a node that takes connections, logs clients in, and then answers as the test says; and against real
//! servers that are merely slow.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{Duration, Instant};

use mtcache_conformance::{Program, ServerOptions, TestServer};
use mtcache_link::{BreakerState, Command, Delivery, Error, ErrorKind, Link, LinkOptions};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};

const RESPONSE: Duration = Duration::from_millis(300);
const PAUSE: Duration = Duration::from_millis(800);

/// A node that answers all that belongs to logging in.
struct Node {
    port: u16,
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    /// Calls are answered.
    answers: AtomicBool,
    /// So many calls are answered on each connection, whatever else.
    first: AtomicU32,
    connections: AtomicU32,
    calls: AtomicU32,
}

impl Node {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let shared = Arc::new(Shared::default());
        let for_task = Arc::clone(&shared);
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                for_task.connections.fetch_add(1, Ordering::SeqCst);
                tokio::spawn(serve(client, Arc::clone(&for_task)));
            }
        });
        Self { port, shared }
    }

    fn calls(&self) -> u32 {
        self.shared.calls.load(Ordering::SeqCst)
    }

    fn connections(&self) -> u32 {
        self.shared.connections.load(Ordering::SeqCst)
    }

    fn answer(&self, answers: bool) {
        self.shared.answers.store(answers, Ordering::SeqCst);
    }

    fn link(&self) -> Link {
        let mut options = LinkOptions::default();
        options.connect_timeout = Duration::from_secs(5);
        options.response_timeout = RESPONSE;
        options.backoff_min = Duration::from_millis(5);
        options.backoff_max = Duration::from_millis(10);
        (options.breaker_pause_min, options.breaker_pause_max) = (PAUSE, PAUSE);
        Link::open(&format!("redis://127.0.0.1:{}", self.port).parse().unwrap(), options).unwrap()
    }
}

async fn serve(client: TcpStream, shared: Arc<Shared>) {
    let mut client = BufReader::new(client);
    let mut answered = 0;
    while let Some(words) = command(&mut client).await {
        let answer = match words[0].as_str() {
            "HELLO" => "%1\r\n$5\r\nproto\r\n:3\r\n",
            "CLIENT" if words[1] == "ID" => ":1\r\n",
            "CLIENT" => "+OK\r\n",
            "INFO" => "$0\r\n\r\n",
            _ => {
                shared.calls.fetch_add(1, Ordering::SeqCst);
                let may = answered < shared.first.load(Ordering::SeqCst);
                if !may && !shared.answers.load(Ordering::SeqCst) {
                    continue;
                }
                answered += 1;
                "+PONG\r\n"
            }
        };
        if client.write_all(answer.as_bytes()).await.is_err() {
            return;
        }
    }
}

async fn command(client: &mut BufReader<TcpStream>) -> Option<Vec<String>> {
    let words = number(client).await?;
    let mut command = Vec::new();
    for _ in 0..words {
        let mut word = vec![0; number(client).await? + 2];
        client.read_exact(&mut word).await.ok()?;
        command.push(String::from_utf8_lossy(&word[..word.len() - 2]).into_owned());
    }
    Some(command)
}

/// What follows a `*` or a `$`.
async fn number(client: &mut BufReader<TcpStream>) -> Option<usize> {
    let mut line = String::new();
    client.read_line(&mut line).await.ok()?;
    line.trim_end().get(1..)?.parse().ok()
}

async fn ping(link: &Link) -> Result<(), Error> {
    link.command(Command::new("PING")).await.map(drop)
}

/// Calls until it is open; says how many timed out.
async fn until_open(link: &Link) -> u32 {
    let mut timeouts = 0;
    while link.breaker() != BreakerState::Open {
        match ping(link).await.unwrap_err() {
            error if error.kind() == ErrorKind::Timeout => timeouts += 1,
            error => assert_eq!((error.kind(), error.delivery()), (ErrorKind::Connect, Delivery::NotSent)),
        }
        assert!(timeouts < 20, "{timeouts} calls waited for nothing");
    }
    timeouts
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_answers_nothing_is_given_a_rest_and_one_call_tries_it() {
    let node = Node::start().await;
    let link = node.link();
    assert_eq!(until_open(&link).await, 3);
    // Open: at once, nothing sent, in words.
    let (calls, connections) = (node.calls(), node.connections());
    let opened = Instant::now();
    while opened.elapsed() < PAUSE / 4 {
        let asked = Instant::now();
        let error = ping(&link).await.unwrap_err();
        assert_eq!((error.kind(), error.delivery()), (ErrorKind::Connect, Delivery::NotSent));
        assert!(error.to_string().contains("answers nothing"), "{error}");
        assert!(asked.elapsed() < RESPONSE / 2, "{:?}", asked.elapsed());
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    assert_eq!((node.calls(), node.connections()), (calls, connections));
    // Half open, again and again: of many callers one is let through, and the others are refused at once.
    for round in 1..4 {
        while link.breaker() != BreakerState::HalfOpen {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        let callers: Vec<_> = (0..50)
            .map(|_| {
                let link = link.clone();
                tokio::spawn(async move { ping(&link).await.unwrap_err().kind() })
            })
            .collect();
        let mut timeouts = 0;
        for caller in callers {
            timeouts += u32::from(caller.await.unwrap() == ErrorKind::Timeout);
        }
        assert_eq!((timeouts, node.calls()), (1, calls + round));
        assert_eq!(until_open(&link).await, 0);
    }
    // It answers again: the first that is let through closes it for all.
    node.answer(true);
    while ping(&link).await.is_err() {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    assert_eq!(link.breaker(), BreakerState::Closed);
    for _ in 0..100 {
        ping(&link).await.unwrap();
    }
    // Steady since: a single silence is one call's trouble.
    node.answer(false);
    assert_eq!(ping(&link).await.unwrap_err().kind(), ErrorKind::Timeout);
    node.answer(true);
    ping(&link).await.unwrap();
    assert_eq!(link.breaker(), BreakerState::Closed);
}

/// A thousand calls that wait on one silent connection are one silence.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn however_many_wait_it_is_one_silence() {
    let node = Node::start().await;
    let link = node.link();
    node.shared.first.store(1, Ordering::SeqCst);
    ping(&link).await.unwrap();
    let callers: Vec<_> = (0..1000)
        .map(|_| {
            let link = link.clone();
            tokio::spawn(async move { link.command(Command::new("INCR").arg("n")).await.unwrap_err() })
        })
        .collect();
    for caller in callers {
        let error = caller.await.unwrap();
        assert!(matches!(error.kind(), ErrorKind::Timeout | ErrorKind::ConnectionLost), "{error}");
    }
    node.answer(true);
    ping(&link).await.unwrap();
    assert_eq!(link.breaker(), BreakerState::Closed);
}

/// It answers one call of each connection, and then falls silent: the pauses bound how often callers wait for nothing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_answers_now_and_then_does_not_make_it_flap() {
    let node = Node::start().await;
    let link = node.link();
    node.shared.first.store(1, Ordering::SeqCst);
    let since = Instant::now();
    let mut timeouts = 0;
    while since.elapsed() < Duration::from_secs(5) {
        if ping(&link).await.is_err_and(|error| error.kind() == ErrorKind::Timeout) {
            timeouts += 1;
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    // Three to open it, and after that one for each half pause and timeout, where without it there would be twenty.
    let most = 3 + 5_000 / (PAUSE / 2 + RESPONSE).as_millis() + 1;
    assert!(timeouts >= 4 && timeouts <= most, "{timeouts} of at most {most}");
}

/// Callers who leave before the response timeout notice nothing themselves.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn silence_is_noticed_though_no_caller_waits_for_it() {
    let node = Node::start().await;
    let link = node.link();
    link.connected().await.unwrap();
    let since = Instant::now();
    while link.breaker() == BreakerState::Closed {
        assert!(
            tokio::time::timeout(RESPONSE / 10, ping(&link)).await.is_err() || since.elapsed() > RESPONSE
        );
        assert!(since.elapsed() < RESPONSE * 20, "not noticed");
    }
    node.answer(true);
    while ping(&link).await.is_err() {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    // And callers who leave while others are answered, or who leave and would have been, prove nothing.
    let connections = node.connections();
    for _ in 0..100 {
        drop(tokio::time::timeout(Duration::ZERO, ping(&link)).await);
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert_eq!((link.breaker(), node.connections()), (BreakerState::Closed, connections));
}

/// The caller who is let through leaves; the next one is let through in its place.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_trial_whose_caller_leaves_is_the_next_ones() {
    let node = Node::start().await;
    let link = node.link();
    until_open(&link).await;
    while link.breaker() != BreakerState::HalfOpen {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let calls = node.calls();
    for _ in 0..3 {
        drop(tokio::time::timeout(Duration::from_millis(20), ping(&link)).await);
    }
    assert_eq!(node.calls(), calls + 3);
    node.answer(true);
    while ping(&link).await.is_err() {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    assert_eq!(link.breaker(), BreakerState::Closed);
}

/// One late reply, errors, and a full queue are no outage.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn slowness_errors_and_a_full_queue_leave_it_closed() {
    for program in [Program::Redis, Program::Valkey] {
        let server =
            TestServer::start(program, ServerOptions::new().args(["--enable-debug-command", "yes"])).unwrap();
        let mut options = LinkOptions::default();
        options.response_timeout = Duration::from_millis(400);
        options.max_in_flight = 4;
        let link = Link::open(&server.url().parse().unwrap(), options).unwrap();
        for _ in 0..3 {
            for _ in 0..10 {
                ping(&link).await.unwrap();
            }
            let slow = Command::new("DEBUG").arg("SLEEP").arg("0.6");
            assert_eq!(link.command(slow).await.unwrap_err().kind(), ErrorKind::Timeout);
            while ping(&link).await.is_err() {}
            assert_eq!(link.breaker(), BreakerState::Closed);
        }
        for _ in 0..100 {
            assert_eq!(link.command(Command::new("NOSUCH")).await.unwrap_err().kind(), ErrorKind::Server);
        }
        server.pause().unwrap();
        let callers: Vec<_> = (0..40)
            .map(|_| {
                let link = link.clone();
                tokio::spawn(async move { ping(&link).await.map_err(|error| error.kind()) })
            })
            .collect();
        tokio::time::sleep(Duration::from_millis(100)).await;
        server.resume().unwrap();
        for caller in callers {
            let outcome = caller.await.unwrap();
            assert!(matches!(outcome, Ok(()) | Err(ErrorKind::Overloaded)), "{outcome:?}");
        }
        assert_eq!(link.breaker(), BreakerState::Closed);
    }
}
