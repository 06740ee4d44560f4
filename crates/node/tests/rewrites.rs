//! Rewrites of the journal and snapshots while commands go on, on a disk that loses power at any step.
//!
//! Every command appends its number to a list of all that were run, so that a command that is lost, comes twice or comes
//! in another order is seen.

use std::collections::BTreeSet;
use std::path::Path;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use mtcache_engine::{NoMailbox, Session};
use mtcache_node::{AppendOnly, Node, NodeOptions, Snapshots};
use mtcache_persistence::AppendFsync;
use mtcache_persistence::disk::{Crash, Disk, Fault, SimDisk};
use mtcache_protocol::{Reply, Version};

const DIR: &str = "/data";
/// How long a loaded machine may take for what happens by itself.
const PATIENCE: Duration = Duration::from_mins(1);
/// Histories of each sort; more with `MTCACHE_HISTORIES`.
const HISTORIES: u64 = 60;

fn histories() -> u64 {
    std::env::var("MTCACHE_HISTORIES").ok().and_then(|count| count.parse().ok()).unwrap_or(HISTORIES)
}

struct Rig {
    node: Node,
    session: Session,
}

impl Rig {
    fn open(disk: &SimDisk, journal: bool, config: &[(&str, &str)]) -> Result<Self, mtcache_node::NodeError> {
        let mut options = NodeOptions {
            append_only: journal
                .then(|| AppendOnly { fsync: AppendFsync::Always, ..AppendOnly::in_dir(DIR) }),
            snapshots: Some(Snapshots::in_dir(DIR)),
            ..NodeOptions::default()
        };
        options.engine.config.set("save", "").unwrap();
        for (name, value) in config {
            options.engine.config.set(name, value).unwrap();
        }
        let node = Node::open_on(&options, Arc::new(disk.clone()))?;
        let client = node.engine().connect(String::new(), String::new(), Box::new(NoMailbox));
        let session = node.engine().new_session(client);
        Ok(Self { node, session })
    }

    fn run(&mut self, args: &[&str]) -> String {
        let args: Vec<&[u8]> = args.iter().map(|arg| arg.as_bytes()).collect();
        let mut reply = Reply::new(Version::Resp2);
        let engine = self.node.engine();
        engine.dispatch(&mut self.session, &args, engine.now(), &mut reply);
        String::from_utf8_lossy(reply.as_bytes()).into_owned()
    }

    /// Waits until what was written is durable; false when it never will be.
    fn is_durable(&self) -> bool {
        let Some(reached) = self.node.before_reply(&self.session) else { return true };
        let mut reached = pin!(reached);
        let deadline = Instant::now() + PATIENCE;
        loop {
            match reached.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
                Poll::Ready(result) => return result.is_ok(),
                Poll::Pending => std::thread::yield_now(),
            }
            assert!(Instant::now() < deadline, "the reply never leaves");
        }
    }

    fn info(&mut self) -> String {
        self.run(&["INFO", "persistence"])
    }

    fn wait_for(&mut self, field: &str) {
        let deadline = Instant::now() + PATIENCE;
        while !self.info().contains(&format!("{field}\r\n")) {
            assert!(Instant::now() < deadline, "{field} never comes: {}", self.info());
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    /// Command number `number`, in the order of all.
    fn step(&mut self, number: u64) -> bool {
        let (db, list) = ((number / 5 % 3).to_string(), format!("list:{}", number % 4));
        self.run(&["SELECT", &db]);
        !self.run(&["RPUSH", &list, &number.to_string()]).starts_with('-')
    }

    /// How many commands have been run, all that is there being what they have made.
    fn commands_held(&mut self) -> u64 {
        let mut seen = BTreeSet::new();
        for db in 0..3 {
            self.run(&["SELECT", &db.to_string()]);
            for list in 0..4 {
                let reply = self.run(&["LRANGE", &format!("list:{list}"), "0", "-1"]);
                let numbers: Vec<u64> = reply
                    .split("\r\n")
                    .skip(1)
                    .filter(|line| !line.starts_with('$') && !line.is_empty())
                    .map(|number| number.parse().unwrap())
                    .collect();
                assert!(numbers.is_sorted_by(|one, next| one < next), "{numbers:?}");
                for number in numbers {
                    assert_eq!((number / 5 % 3, number % 4), (db, list));
                    seen.insert(number);
                }
            }
        }
        assert!(seen.iter().copied().eq(0..seen.len() as u64), "{seen:?}");
        seen.len() as u64
    }
}

/// Runs commands, rewrites and snapshots until the power fails at `step`; what was promised and what was run.
fn live(disk: &SimDisk, seed: u64, step: u64) -> (u64, u64) {
    let preamble = if seed.is_multiple_of(3) { "no" } else { "yes" };
    let Ok(mut rig) = Rig::open(disk, true, &[("aof-use-rdb-preamble", preamble)]) else {
        assert!(disk.has_crashed());
        return (0, 0);
    };
    let (mut promised, mut run) = (0, 0);
    disk.crash_at(step);
    for number in 0..120 {
        if (number + seed).is_multiple_of(17) {
            rig.run(&["BGREWRITEAOF"]);
        }
        if (number + seed).is_multiple_of(29) {
            rig.run(&["BGSAVE", "SCHEDULE"]);
        }
        if !rig.step(number) {
            break;
        }
        run = number + 1;
        if !rig.is_durable() {
            break;
        }
        promised = run;
    }
    (promised, run)
}

#[test]
fn no_promise_is_broken_when_the_power_fails_during_rewrites_and_snapshots() {
    let mut crashes = 0;
    for seed in 0..histories() {
        let disk = SimDisk::with_dir(DIR);
        // Steps of other threads come at times of their own, so a history is not the same twice; the property is.
        let (promised, run) = live(&disk, seed, 12 + seed * 7 % 330);
        crashes += u64::from(disk.has_crashed());
        let how =
            [Crash::Strict, Crash::Torn(seed), Crash::AnyNames(seed), Crash::ProcessOnly][seed as usize % 4];
        let after = disk.crash(how);
        let what = format!("seed {seed}, {how:?}, promised {promised}, run {run}");
        let mut rig = Rig::open(&after, true, &[]).unwrap_or_else(|error| panic!("{what}: {error}"));
        let held = rig.commands_held();
        assert!((promised..=run).contains(&held), "{what}: {held} came back");
        // It goes on from there, a rewrite included.
        assert!(rig.step(held) && rig.is_durable(), "{what}");
        rig.run(&["BGREWRITEAOF"]);
        rig.wait_for("aof_rewrite_in_progress:0");
        assert!(rig.info().contains("aof_last_bgrewrite_status:ok"), "{what}: {}", rig.info());
        drop(rig);
        assert_eq!(Rig::open(&after, true, &[]).unwrap().commands_held(), held + 1, "{what}");
        if after.exists(&Path::new(DIR).join("dump.rdb")).unwrap() {
            let mut snapshot =
                Rig::open(&after, false, &[]).unwrap_or_else(|error| panic!("{what}: {error}"));
            assert!(snapshot.commands_held() <= run, "{what}");
        }
    }
    assert!(crashes > histories() / 2, "{crashes} histories of {} lost their power", histories());
}

#[test]
fn a_rewrite_takes_the_place_of_all_before_it_and_leaves_no_file_behind() {
    let disk = SimDisk::with_dir(DIR);
    let mut rig = Rig::open(&disk, true, &[]).unwrap();
    (0..50).for_each(|number| assert!(rig.step(number)));
    assert_eq!(rig.run(&["BGREWRITEAOF"]), "+Background append only file rewriting started\r\n");
    (50..80).for_each(|number| assert!(rig.step(number)));
    rig.wait_for("aof_rewrite_in_progress:0");
    let info = rig.info();
    for field in ["aof_rewrites:1", "aof_last_bgrewrite_status:ok", "aof_rewrites_consecutive_failures:0"] {
        assert!(info.contains(field), "{info}");
    }
    drop(rig);
    let files = disk.list(&Path::new(DIR).join("appendonlydir")).unwrap();
    let expected = ["1.base.rdb", "1.incr.aof"].map(|name| format!("appendonly.aof.{name}"));
    assert!(!files.iter().any(|file| expected.contains(file)), "{files:?}");
    assert_eq!(files.len(), 4, "base, increment, manifest and lock: {files:?}");
    assert_eq!(Rig::open(&disk, true, &[]).unwrap().commands_held(), 80);
}

#[test]
fn a_journal_that_has_grown_is_rewritten_by_itself() {
    let disk = SimDisk::with_dir(DIR);
    let config = [("auto-aof-rewrite-min-size", "1000"), ("auto-aof-rewrite-percentage", "100")];
    let mut rig = Rig::open(&disk, true, &config).unwrap();
    for _ in 0..200 {
        rig.run(&["SET", "key", "the same value again and again"]);
    }
    let deadline = Instant::now() + PATIENCE;
    while rig.info().contains("aof_rewrites:0\r\n") {
        assert!(Instant::now() < deadline, "{}", rig.info());
        std::thread::sleep(Duration::from_millis(2));
    }
    rig.wait_for("aof_last_bgrewrite_status:ok");
}

#[test]
fn a_rewrite_that_fails_changes_nothing_and_is_tried_again() {
    let disk = SimDisk::with_dir(DIR);
    let mut rig = Rig::open(&disk, true, &[]).unwrap();
    (0..30).for_each(|number| assert!(rig.step(number) && rig.is_durable()));
    // The increment after the cut is made, and the base is not put in place.
    disk.inject(Fault::RenameFails { times: 2 });
    rig.run(&["BGREWRITEAOF"]);
    rig.wait_for("aof_last_bgrewrite_status:err");
    disk.heal();
    let deadline = Instant::now() + PATIENCE;
    while !rig.step(30) {
        assert!(Instant::now() < deadline, "writes are never accepted again");
        std::thread::sleep(Duration::from_millis(5));
    }
    assert!(rig.is_durable());
    assert_eq!(rig.commands_held(), 31);
    rig.run(&["BGREWRITEAOF"]);
    rig.wait_for("aof_last_bgrewrite_status:ok");
    drop(rig);
    assert_eq!(Rig::open(&disk, true, &[]).unwrap().commands_held(), 31);
}

#[test]
fn a_panic_while_saving_is_a_failed_save_and_the_next_one_begins() {
    let disk = SimDisk::with_dir(DIR);
    let mut rig = Rig::open(&disk, false, &[]).unwrap();
    assert!(rig.step(0));
    disk.inject(Fault::RenamePanics { times: 1 });
    assert_eq!(rig.run(&["BGSAVE"]), "+Background saving started\r\n");
    rig.wait_for("rdb_bgsave_in_progress:0");
    assert!(rig.info().contains("rdb_last_bgsave_status:err\r\n"));
    assert_eq!(rig.run(&["SAVE"]), "+OK\r\n");
    assert!(rig.info().contains("rdb_last_bgsave_status:ok\r\n"));
    drop(rig);
    assert_eq!(Rig::open(&disk, false, &[]).unwrap().commands_held(), 1);
}
