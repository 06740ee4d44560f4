//! Our engine and a redis-server, told the same.

use std::time::{SystemTime, UNIX_EPOCH};

use mtcache_conformance::{Client, TestServer, Value};

use super::{Rig, split};
use crate::time::UnixMillis;

/// A rig on the wall clock beside a redis-server of its own.
pub(crate) struct Pair {
    pub(crate) rig: Rig,
    redis: Client,
    server: TestServer,
}

impl Pair {
    /// Starts a redis-server; see the conformance crate for where it is looked for.
    pub(crate) fn start() -> Self {
        let server = TestServer::redis([]).unwrap();
        let redis = server.client().unwrap();
        let rig = Rig::new();
        rig.engine.set_config(&[b"maxmemory", b"0"]).unwrap();
        Self { rig, redis, server }
    }

    /// Another session on each side.
    pub(crate) fn others(&self) -> (Rig, Client) {
        (self.rig.another(), self.server.client().unwrap())
    }

    /// Runs each line on both sides; the replies must be equal.
    #[track_caller]
    pub(crate) fn same(&mut self, lines: &[&str]) {
        for command in lines {
            let (ours, theirs) = self.run(&split(command));
            assert_eq!(ours, theirs, "ours (left) differs from Redis' (right) for: {command}");
        }
    }

    /// As [`same`](Self::same), for replies whose elements come in no particular order.
    #[track_caller]
    pub(crate) fn same_set(&mut self, lines: &[&str]) {
        for command in lines {
            let (ours, theirs) = self.run(&split(command));
            assert_eq!(
                sorted(ours),
                sorted(theirs),
                "ours (left) differs from Redis' (right) for: {command}"
            );
        }
    }

    /// As [`same`](Self::same), for arguments that are awkward to write on a line. Gives the reply.
    #[track_caller]
    pub(crate) fn same_args<A: AsRef<[u8]>>(&mut self, args: &[A]) -> Value {
        let (ours, theirs) = self.run(args);
        let shown = || args.iter().map(|arg| arg.as_ref().escape_ascii().to_string()).collect::<Vec<_>>();
        assert_eq!(ours, theirs, "ours (left) differs from Redis' (right) for: {:?}", shown());
        ours
    }

    /// Runs a command on both sides: our reply, theirs.
    pub(crate) fn run<A: AsRef<[u8]>>(&mut self, args: &[A]) -> (Value, Value) {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
        self.rig.clock.set(UnixMillis(u64::try_from(now.as_millis()).unwrap()));
        let theirs = self.redis.command(args).unwrap();
        (self.rig.run_args(args), theirs)
    }
}

fn sorted(value: Value) -> Value {
    match value {
        Value::Array(mut items) => {
            items.sort();
            Value::Array(items)
        }
        other => other,
    }
}
