//! An engine under test: one session, a clock that stands still until it is moved, a journal that is read back.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use mtcache_conformance::Value;
use mtcache_conformance::resp::read_value;
use mtcache_protocol::Reply;

use super::{Inbox, Recorder, line, split};
use crate::blocking::Parked;
use crate::client::NoMailbox;
use crate::engine::{Engine, EngineOptions};
use crate::keyspace::DbIndex;
use crate::session::Session;
use crate::time::{Clock, UnixMillis};

/// Where a rig's clock starts: 2023-11-14 22:13:20 UTC.
pub(super) const START: UnixMillis = UnixMillis(1_700_000_000_000);

/// A clock that tests move.
#[derive(Debug)]
pub(crate) struct ManualClock(AtomicU64);

impl ManualClock {
    pub(crate) fn set(&self, now: UnixMillis) {
        self.0.store(now.0, Ordering::SeqCst);
    }
}

impl Clock for ManualClock {
    fn now(&self) -> UnixMillis {
        UnixMillis(self.0.load(Ordering::SeqCst))
    }

    fn monotonic_nanos(&self) -> u64 {
        self.0.load(Ordering::SeqCst).saturating_mul(1_000_000)
    }
}

/// The text of a reply without the marks of its types.
pub(crate) fn plain(reply: &str) -> String {
    reply.replace(['"', ':'], "")
}

/// One session of an engine under test.
pub(crate) struct Rig {
    pub(crate) engine: Arc<Engine>,
    pub(crate) clock: Arc<ManualClock>,
    pub(crate) recorder: Arc<Recorder>,
    pub(crate) session: Session,
    reply: Reply,
}

impl Rig {
    /// A new engine of four shards.
    pub(crate) fn new() -> Self {
        Self::with_options(&EngineOptions { shards: 4, ..EngineOptions::default() })
    }

    /// A new engine.
    pub(crate) fn with_options(options: &EngineOptions) -> Self {
        let clock = Arc::new(ManualClock(AtomicU64::new(START.0)));
        let engine = Arc::new(Engine::new(options, clock.clone()));
        let recorder = Arc::new(Recorder::default());
        engine.attach_journal(recorder.clone());
        Self::on(engine, clock, recorder)
    }

    fn on(engine: Arc<Engine>, clock: Arc<ManualClock>, recorder: Arc<Recorder>) -> Self {
        let client = engine.connect("127.0.0.1:1".into(), "127.0.0.1:2".into(), Box::new(NoMailbox));
        let session = Session::of(client, engine.acl.default_user().clone(), true);
        Self { engine, clock, recorder, session, reply: Reply::default() }
    }

    /// Another session of the same engine, with the mailbox it receives messages in.
    pub(crate) fn listening(&self) -> (Self, Inbox) {
        let inbox = Inbox::default();
        let client = self.engine.connect("127.0.0.1:9".into(), "127.0.0.1:2".into(), Box::new(inbox.clone()));
        let session = self.engine.new_session(client);
        let parts = (self.engine.clone(), self.clock.clone(), self.recorder.clone());
        let rig =
            Self { engine: parts.0, clock: parts.1, recorder: parts.2, session, reply: Reply::default() };
        (rig, inbox)
    }

    /// Runs one line and gives the bytes of its reply or replies.
    pub(crate) fn raw(&mut self, command: &str) -> Vec<u8> {
        let args = split(command);
        let args: Vec<&[u8]> = args.iter().map(Vec::as_slice).collect();
        self.reply.clear();
        self.engine.dispatch(&mut self.session, &args, self.clock.now(), &mut self.reply);
        self.reply.as_bytes().to_vec()
    }

    /// Runs one line that is expected to wait.
    #[track_caller]
    pub(crate) fn wait(&mut self, command: &str) {
        assert_eq!(self.raw(command), b"", "{command}");
        assert_ne!(self.session.parked(), Parked::No, "{command}");
        assert_eq!(self.resumed(), None, "{command}");
    }

    /// The reply that the session has waited for, [plain], if its wait is over.
    pub(crate) fn resumed(&mut self) -> Option<String> {
        self.reply.clear();
        if !self.engine.resume(&mut self.session, self.clock.now(), &mut self.reply) {
            return None;
        }
        let mut rest = self.reply.as_bytes();
        let value = read_value(&mut rest).unwrap();
        assert!(rest.is_empty(), "more than one reply: {value:?} then {}", rest.escape_ascii());
        Some(plain(&format!("{value:?}")))
    }

    /// Whether the session goes on.
    pub(crate) fn goes_on(&mut self) -> bool {
        self.raw_resumed();
        self.session.parked() == Parked::No
    }

    /// As [`resumed`](Self::resumed), the bytes; empty while the wait goes on.
    pub(crate) fn raw_resumed(&mut self) -> Vec<u8> {
        self.reply.clear();
        self.engine.resume(&mut self.session, self.clock.now(), &mut self.reply);
        self.reply.as_bytes().to_vec()
    }

    /// Another session of the same engine.
    pub(crate) fn another(&self) -> Self {
        Self::on(self.engine.clone(), self.clock.clone(), self.recorder.clone())
    }

    /// Runs one line and gives the text of its reply.
    pub(crate) fn run(&mut self, command: &str) -> String {
        format!("{:?}", self.run_args(&split(command)))
    }

    /// Runs one command and gives its reply.
    pub(crate) fn run_args<A: AsRef<[u8]>>(&mut self, args: &[A]) -> Value {
        let args: Vec<&[u8]> = args.iter().map(AsRef::as_ref).collect();
        self.reply.clear();
        self.engine.dispatch(&mut self.session, &args, self.clock.now(), &mut self.reply);
        let mut rest = self.reply.as_bytes();
        let shown = || args.iter().map(|arg| arg.escape_ascii().to_string()).collect::<Vec<_>>().join(" ");
        let value = read_value(&mut rest).unwrap_or_else(|error| panic!("{}: {error}", shown()));
        assert!(
            rest.is_empty(),
            "{}: more than one reply: {:?} then {}",
            shown(),
            value,
            rest.escape_ascii()
        );
        value
    }

    /// Runs lines and compares each reply with the text beside it.
    #[track_caller]
    pub(crate) fn check(&mut self, lines: &[(&str, &str)]) {
        for (command, expected) in lines {
            assert_eq!(self.run(command), *expected, "{command}");
        }
    }

    /// Runs lines whose replies do not matter, as long as they are no errors.
    #[track_caller]
    pub(crate) fn set_up(&mut self, lines: &[&str]) {
        for command in lines {
            let reply = self.run(command);
            assert!(!reply.starts_with('-'), "{command}: {reply}");
        }
    }

    /// What the clock shows.
    pub(crate) fn now(&self) -> UnixMillis {
        self.clock.now()
    }

    /// Moves the clock forward.
    pub(crate) fn advance(&self, by: Duration) {
        self.clock.set(self.now().plus(by));
    }

    /// What was journalled since the last call, as lines.
    pub(crate) fn journal(&self) -> Vec<String> {
        self.recorder.take_lines()
    }

    /// Runs a line and gives what it journalled.
    pub(crate) fn journalled(&mut self, command: &str) -> Vec<String> {
        self.journal();
        let reply = self.run(command);
        assert!(!reply.starts_with('-'), "{command}: {reply}");
        self.journal()
    }

    /// Everything that is stored and alive: by database and key, the type, the value and the moment of expiry.
    pub(crate) fn state(&self) -> BTreeMap<(DbIndex, String), String> {
        let mut reader = self.another();
        let mut state = BTreeMap::new();
        for db in 0..self.engine.keyspace.databases() as DbIndex {
            reader.session.db = db;
            for (key, expires_at, kind) in self.entries(db) {
                let read: &[&[u8]] = match kind {
                    "string" => &[b"GET", &key],
                    "hash" => &[b"HGETALL", &key],
                    "list" => &[b"LRANGE", &key, b"0", b"-1"],
                    "set" => &[b"SMEMBERS", &key],
                    _ => &[b"ZRANGE", &key, b"0", b"-1", b"WITHSCORES"],
                };
                let value = match (kind, reader.run_args(read)) {
                    ("set", Value::Array(mut items)) => {
                        items.sort();
                        Value::Array(items)
                    }
                    ("hash", Value::Array(items)) => {
                        let mut pairs: Vec<_> = items.chunks(2).map(<[Value]>::to_vec).collect();
                        pairs.sort();
                        Value::Array(pairs.concat())
                    }
                    (_, value) => value,
                };
                state
                    .insert((db, key.escape_ascii().to_string()), format!("{kind} {value:?} {expires_at:?}"));
            }
        }
        state
    }

    fn entries(&self, db: DbIndex) -> Vec<(Vec<u8>, Option<u64>, &'static str)> {
        let mut locked = self.engine.keyspace.lock_all();
        let mut entries = Vec::new();
        for shard in locked.shards() {
            let Some(part) = shard.db(db) else { continue };
            for entry in part.entries() {
                if entry.expires_at().is_none_or(|at| at > self.now()) {
                    entries.push((
                        entry.key().to_vec(),
                        entry.expires_at().map(|at| at.0),
                        entry.type_name(),
                    ));
                }
            }
        }
        entries
    }

    /// Replays all that was journalled so far into a new engine and compares what is stored.
    #[track_caller]
    pub(crate) fn assert_replay_gives_the_same(&self) {
        let mut replica = Self::new();
        replica.clock.set(self.now());
        let client = replica.session.client().clone();
        replica.session = Session::replaying(client);
        let mut selected = 0;
        for (db, args) in self.recorder.writes() {
            if db != selected {
                replica.run(&format!("SELECT {db}"));
                selected = db;
            }
            let reply = replica.run_args(&args);
            assert!(reply.error().is_none(), "replay of {}: {reply:?}", line(&args));
        }
        assert_eq!(replica.state(), self.state(), "the replayed engine differs");
    }
}
