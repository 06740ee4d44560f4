//! Real processes on one server: this test program starts itself again, with orders in the environment.
//!
//! The server counts the loader calls, so that nothing depends on what the processes say of themselves. Rows for servers alone: an engine in
//! process cannot be shared between processes.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant, UNIX_EPOCH};

use mtcache_cache::{Cache, RegionPolicy};
use mtcache_conformance::Program;
use mtcache_conformance::client::Client;
use mtcache_conformance::clock;
use mtcache_conformance::servers::{ServerOptions, TestServer};
use mtcache_conformance::wait_until;

const TTL: Duration = Duration::from_mins(10);
const URL: &str = "MTCACHE_TEST_WORKER_URL";
const TASKS: &str = "MTCACHE_TEST_WORKER_TASKS";
const LOAD_MILLIS: &str = "MTCACHE_TEST_WORKER_LOAD_MILLIS";
/// Each worker begins when this key is there.
const GO: &str = "MTCACHE_TEST_WORKER_GO";
const LEASE_MILLIS: &str = "MTCACHE_TEST_WORKER_LEASE_MILLIS";
/// Seconds; this program's and the server's clocks are right.
const CLOCKS: [i32; 4] = [0, 900, -900, 450];

struct Worker {
    child: Child,
    lines: BufReader<std::process::ChildStdout>,
}

struct Orders<'a> {
    url: &'a str,
    tasks: u32,
    load: Duration,
    lease: Duration,
    go: &'a str,
}

impl Worker {
    /// Returns when it is ready.
    fn start(orders: &Orders<'_>, clock_ahead: i32) -> Self {
        let mut command = clock::command(&std::env::current_exe().unwrap(), clock_ahead).unwrap();
        command
            .args(["--exact", "processes::worker", "--ignored", "--nocapture"])
            .env(URL, orders.url)
            .env(GO, orders.go)
            .env(TASKS, orders.tasks.to_string())
            .env(LOAD_MILLIS, orders.load.as_millis().to_string())
            .env(LEASE_MILLIS, orders.lease.as_millis().to_string())
            .stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap());
        let mut worker = Self { child, lines };
        let off = worker.says().parse::<i64>().unwrap() - seconds_now() - i64::from(clock_ahead);
        assert!(off.abs() < 60, "its clock is {off} s away from where it should be");
        worker
    }

    /// Its next word to us; the test harness in it has words of its own.
    fn says(&mut self) -> String {
        loop {
            let mut line = String::new();
            assert!(self.lines.read_line(&mut line).unwrap() > 0, "the worker ended without a word");
            if let Some((_, word)) = line.split_once("worker: ") {
                return word.trim().to_owned();
            }
        }
    }

    fn signal(&self, name: &str) {
        let status = Command::new("kill").args([name, &self.child.id().to_string()]).status().unwrap();
        assert!(status.success());
    }

    /// Returns when it has stopped.
    fn stop(&self) {
        self.signal("-STOP");
        let stat = format!("/proc/{}/stat", self.child.id());
        wait_until("it has stopped", || std::fs::read_to_string(&stat).unwrap().contains(") T "));
    }

    /// What it read, one for each kind, and how long its slowest read took.
    fn result(&mut self) -> (String, Duration) {
        let words = self.says();
        let (values, millis) = words.rsplit_once(' ').unwrap();
        (values.to_owned(), Duration::from_millis(millis.parse().unwrap()))
    }
}

fn seconds_now() -> i64 {
    i64::try_from(UNIX_EPOCH.elapsed().unwrap().as_secs()).unwrap()
}

impl Drop for Worker {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Not a test by itself: what a worker does. Each loader call stores the number of the call.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "started by the tests of this file"]
async fn worker() {
    let order = |name: &str| std::env::var(name).unwrap();
    let millis = |name: &str| Duration::from_millis(order(name).parse().unwrap());
    let cache = Cache::builder(order(URL)).open().await.unwrap();
    let load = millis(LOAD_MILLIS);
    let region = cache.region::<i64>(RegionPolicy::new("r", TTL).lease(millis(LEASE_MILLIS))).unwrap();
    println!("worker: {}", seconds_now());
    while !cache.exists(&[order(GO)]).await.is_ok_and(|there| there == 1) {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let tasks: Vec<_> = (0..order(TASKS).parse::<u32>().unwrap())
        .map(|_| {
            let (region, cache) = (region.clone(), cache.clone());
            tokio::spawn(async move {
                let asked = Instant::now();
                let loader = move || async move {
                    let call = cache.increment("calls", 1).await?;
                    tokio::time::sleep(load).await;
                    Ok::<_, mtcache_cache::Error>(call)
                };
                let value = region.get_or_load("k", loader).await.unwrap().value;
                (value, asked.elapsed())
            })
        })
        .collect();
    let (mut values, mut slowest) = (Vec::new(), Duration::ZERO);
    for task in tasks {
        let (value, took) = task.await.unwrap();
        values.push(value);
        slowest = slowest.max(took);
    }
    values.sort_unstable();
    values.dedup();
    println!("worker: {values:?} {}", slowest.as_millis());
    // Not ended: what runs on in the background, such as a fill, has to have its time. We are killed.
    std::future::pending::<()>().await;
}

fn servers() -> impl Iterator<Item = TestServer> {
    Program::ALL.into_iter().map(|program| TestServer::start(program, ServerOptions::new()).unwrap())
}

fn text(client: &mut Client, key: &str) -> Option<String> {
    client.command(&["GET", key]).unwrap().text()
}

fn a_call_is_made(client: &mut Client) {
    wait_until("somebody loads", || text(client, "calls").as_deref() == Some("1"));
}

#[test]
fn of_four_processes_with_ten_thousand_tasks_each_one_loads() {
    for server in servers() {
        let url = server.url();
        let orders = Orders {
            url: &url,
            tasks: 10_000,
            load: Duration::from_secs(1),
            lease: Duration::from_secs(10),
            go: "go",
        };
        // Their clocks are a quarter of an hour apart from each other and from the server's.
        let mut workers: Vec<_> = CLOCKS.iter().map(|ahead| Worker::start(&orders, *ahead)).collect();
        server.client().unwrap().command(&["SET", "go", "1"]).unwrap();
        for worker in &mut workers {
            assert_eq!(worker.result().0, "[1]", "all have the value of the first call");
        }
        assert_eq!(text(&mut server.client().unwrap(), "calls").as_deref(), Some("1"));
    }
}

/// The holder is stopped in the middle of its load. The next answer comes within the lease's bound, and when the stopped process goes on, what
/// it brings is refused.
#[test]
fn a_stopped_holder_is_followed_and_its_fill_refused() {
    for server in servers() {
        let (url, lease) = (server.url(), Duration::from_secs(1));
        let orders = Orders { url: &url, tasks: 10, load: Duration::from_millis(1500), lease, go: "go" };
        // One task: those that join later would not be content with what was overtaken, and read the next holder's.
        let mut zombie = Worker::start(&Orders { tasks: 1, ..orders }, -900);
        let mut next =
            Worker::start(&Orders { load: Duration::from_millis(100), go: "go on", ..orders }, 900);
        let mut raw = server.client().unwrap();
        raw.command(&["SET", "go", "1"]).unwrap();
        a_call_is_made(&mut raw);
        zombie.stop();
        raw.command(&["SET", "go on", "1"]).unwrap();
        let (value, took) = next.result();
        assert_eq!(value, "[2]");
        assert!(
            took < lease + Duration::from_secs(2),
            "the bound is the lease, one look and the load: {took:?}"
        );
        assert_eq!(text(&mut raw, "r:k").as_deref(), Some("2"));
        zombie.signal("-CONT");
        assert_eq!(zombie.result().0, "[1]", "its own callers have what they waited for");
        std::thread::sleep(Duration::from_millis(300));
        assert_eq!(text(&mut raw, "r:k").as_deref(), Some("2"), "its fill is refused");
        assert_eq!(text(&mut raw, "calls").as_deref(), Some("2"));
    }
}

/// A killed process's lease ends by itself, and nothing of the killed one is left.
#[test]
fn a_killed_holder_is_followed() {
    for server in servers() {
        let (url, lease) = (server.url(), Duration::from_secs(1));
        let orders = Orders { url: &url, tasks: 10, load: Duration::from_mins(1), lease, go: "go" };
        let dies = Worker::start(&orders, 0);
        let mut raw = server.client().unwrap();
        raw.command(&["SET", "go", "1"]).unwrap();
        a_call_is_made(&mut raw);
        drop(dies);
        let mut next = Worker::start(&Orders { load: Duration::ZERO, ..orders }, 0);
        let (value, took) = next.result();
        assert_eq!(value, "[2]");
        assert!(took < lease + Duration::from_secs(2), "{took:?}");
    }
}
