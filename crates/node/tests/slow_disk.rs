//! A disk whose syncs take as long as a test likes: what goes on meanwhile, and what waits.

use std::future::Future;
use std::path::Path;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use mtcache_engine::{NoMailbox, Session};
use mtcache_node::{AppendOnly, Node, NodeOptions};
use mtcache_persistence::AppendFsync;
use mtcache_persistence::disk::SimDisk;
use mtcache_protocol::{Reply, Version};

const DIR: &str = "/data";
/// How long a loaded machine may take for what happens by itself.
const PATIENCE: Duration = Duration::from_mins(1);

struct Rig {
    disk: SimDisk,
    node: Node,
    session: Session,
}

impl Rig {
    fn open(fsync: AppendFsync) -> Self {
        let disk = SimDisk::with_dir(DIR);
        let append_only = AppendOnly { fsync, ..AppendOnly::in_dir(DIR) };
        let options = NodeOptions { append_only: Some(append_only), ..NodeOptions::default() };
        let node = Node::open_on(&options, Arc::new(disk.clone())).unwrap();
        let client = node.engine().connect(String::new(), String::new(), Box::new(NoMailbox));
        let session = node.engine().new_session(client);
        Self { disk, node, session }
    }

    fn run(&mut self, args: &[&str]) {
        let args: Vec<&[u8]> = args.iter().map(|arg| arg.as_bytes()).collect();
        let mut reply = Reply::new(Version::Resp2);
        let engine = self.node.engine();
        engine.dispatch(&mut self.session, &args, engine.now(), &mut reply);
        assert_ne!(reply.as_bytes().first(), Some(&b'-'), "{reply:?}");
    }

    /// Whether the reply to the last command may leave now.
    fn may_reply(&self) -> bool {
        match self.node.before_reply(&self.session) {
            None => true,
            Some(reached) => {
                pin!(reached).poll(&mut Context::from_waker(Waker::noop())) == Poll::Ready(Ok(()))
            }
        }
    }

    /// Whether the file holds these bytes, durable or not.
    fn has_written(&self, bytes: &str) -> bool {
        let path = Path::new(DIR).join("appendonlydir/appendonly.aof.1.incr.aof");
        let content = self.disk.content(path).unwrap_or_default();
        content.windows(bytes.len()).any(|window| window == bytes.as_bytes())
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        // The node syncs when it closes.
        self.disk.release_syncs();
    }
}

fn wait_until(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < deadline, "{what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn an_acknowledgement_under_always_waits_for_the_sync() {
    let mut rig = Rig::open(AppendFsync::Always);
    rig.disk.hold_syncs();
    rig.run(&["SET", "key", "first-value"]);
    assert!(!rig.may_reply());
    wait_until("the write reaches the file", || rig.has_written("first-value"));
    assert!(!rig.may_reply(), "a write that is not synced is acknowledged");
    rig.run(&["GET", "key"]);
    assert!(!rig.may_reply(), "a read shows what is not durable");
    rig.disk.release_syncs();
    wait_until("the reply may leave", || rig.may_reply());
}

#[test]
fn writing_goes_on_while_a_sync_runs() {
    let mut rig = Rig::open(AppendFsync::Everysec);
    rig.disk.hold_syncs();
    rig.run(&["SET", "key", "first-value"]);
    wait_until("the sync begins", || rig.disk.held_syncs() > 0);
    rig.run(&["SET", "key", "second-value"]);
    wait_until("the second write reaches the file", || rig.has_written("second-value"));
    assert_eq!(rig.disk.held_syncs(), 1, "the sync was running all the time");
}

#[test]
fn replies_to_writes_wait_once_an_older_write_has_not_been_synced_for_too_long() {
    let mut rig = Rig::open(AppendFsync::Everysec);
    rig.disk.hold_syncs();
    rig.run(&["SET", "key", "value"]);
    assert!(rig.may_reply(), "a write of the last second is acknowledged at once");
    wait_until("replies to writes wait", || {
        rig.run(&["INCR", "counter"]);
        !rig.may_reply()
    });
    let client = rig.node.engine().connect(String::new(), String::new(), Box::new(NoMailbox));
    let reader = rig.node.engine().new_session(client);
    assert!(rig.node.before_reply(&reader).is_none(), "who has written nothing need not wait");
    rig.disk.release_syncs();
    wait_until("the reply may leave", || rig.may_reply());
    rig.run(&["SET", "key", "value"]);
    wait_until("writes are acknowledged at once again", || rig.may_reply());
}

#[test]
fn a_sync_that_fails_in_the_background_stops_writes_and_loses_nothing() {
    let mut rig = Rig::open(AppendFsync::Everysec);
    rig.disk.hold_syncs();
    rig.run(&["SET", "key", "first-value"]);
    wait_until("the sync begins", || rig.disk.held_syncs() > 0);
    rig.disk.inject(mtcache_persistence::disk::Fault::SyncFails { times: 1 });
    rig.run(&["SET", "other", "second-value"]);
    rig.disk.release_syncs();
    wait_until("a new file holds both", || {
        let path = Path::new(DIR).join("appendonlydir/appendonly.aof.2.incr.aof");
        let content = String::from_utf8_lossy(&rig.disk.content(path).unwrap_or_default()).into_owned();
        content.contains("first-value") && content.contains("second-value")
    });
    wait_until("writes are taken again", || rig.node.journal_status().unwrap().failure.is_none());
}

#[test]
fn no_second_sync_overtakes_one_that_runs_and_takes_its_error_away() {
    let disk = SimDisk::with_dir(DIR);
    let mut append_only = AppendOnly::in_dir(DIR);
    append_only.files.max_unsynced_bytes = 200;
    let options = NodeOptions { append_only: Some(append_only), ..NodeOptions::default() };
    let node = Node::open_on(&options, Arc::new(disk.clone())).unwrap();
    let client = node.engine().connect(String::new(), String::new(), Box::new(NoMailbox));
    let session = node.engine().new_session(client);
    let mut rig = Rig { disk, node, session };
    rig.disk.hold_syncs();
    rig.run(&["SET", "key", "first-value"]);
    wait_until("the sync begins", || rig.disk.held_syncs() > 0);
    rig.run(&["SET", "other", &"second-value".repeat(20)]);
    wait_until("the second write reaches the file", || rig.has_written("second-value"));
    std::thread::sleep(Duration::from_millis(100));
    assert_eq!(rig.disk.held_syncs(), 1, "a second sync of the file runs");
}

#[test]
fn what_waits_when_a_sync_fails_at_the_end_is_written_all_the_same() {
    let mut rig = Rig::open(AppendFsync::Always);
    rig.disk.hold_syncs();
    rig.run(&["SET", "key", "first-value"]);
    wait_until("the sync begins", || rig.disk.held_syncs() > 0);
    rig.run(&["SET", "other", "second-value"]);
    rig.disk.inject(mtcache_persistence::disk::Fault::SyncFails { times: 1 });
    let (disk, node) = (rig.disk.clone(), &rig.node);
    std::thread::scope(|scope| {
        let end = scope.spawn(|| node.close());
        std::thread::sleep(Duration::from_millis(200));
        disk.release_syncs();
        end.join().unwrap().unwrap();
    });
    let content = |number: u32| {
        let path = format!("{DIR}/appendonlydir/appendonly.aof.{number}.incr.aof");
        String::from_utf8_lossy(&disk.content(Path::new(&path)).unwrap_or_default()).into_owned()
    };
    assert!((content(1) + &content(2)).contains("second-value"));
}
