//! Replays a history on two servers and finds the first difference: replies in order, what subscribers receive, and the whole
//! state now and then. Each replay begins with empty servers and new connections, so that a history means the same each time.
//!
//! Commands of one connection that follow each other are sent together, to both servers before either is read.

use std::collections::{BTreeMap, HashSet};
use std::io;

use crate::args;
use crate::chance::{compare_random, compare_scan};
use crate::client::Client;
use crate::generate::draw::Args;
use crate::generate::{CONNECTIONS, RESP3, SUBSCRIBER2, SUBSCRIBER3, Step};
use crate::normalise::{Comparison, comparison, equal, equal_transaction};
use crate::resp::Value;
use crate::servers::{ServerError, ServerOptions, TestServer};
use crate::state::{differences, take};
use crate::subscriber::{self, received};

/// How many commands are sent together at the most.
const BATCH: usize = 64;
/// How many bytes are sent together at the most: less than what a socket takes without anybody reading.
const BATCH_BYTES: usize = 48 * 1024;
/// How often the whole states are compared, in steps.
const STATE_EVERY: usize = 500;

/// The options that both servers get: a slow log whose content would depend on the machine stays empty.
pub const OPTIONS: [&str; 6] =
    ["--slowlog-log-slower-than", "-1", "--maxmemory", "0", "--maxmemory-policy", "noeviction"];

/// Our server (or what stands for it) and the one it is compared with.
#[derive(Debug)]
pub struct Pair {
    /// The server under test.
    pub ours: TestServer,
    /// The reference.
    pub theirs: TestServer,
}

/// Where two servers differ.
#[derive(Debug, Clone)]
pub struct Difference {
    /// The step at whose reply it was seen; `None` when only the states differ.
    pub step: Option<usize>,
    /// The command, or `state`.
    pub command: String,
    /// What each side said.
    pub what: String,
}

/// Changes what "our" server is told or says, to prove that the test would see it.
#[derive(Debug, Clone, Copy, Default)]
pub struct Tamper {
    /// Changes a reply.
    pub reply: Option<fn(&Args, &mut Value)>,
    /// Replaces a command.
    pub command: Option<fn(&Args) -> Option<Args>>,
}

/// What the replies looked like, to judge the generators by.
#[derive(Debug, Default, Clone)]
pub struct Tally {
    /// For each command: replies, errors among them, nulls among them.
    pub commands: BTreeMap<String, [usize; 3]>,
}

impl Pair {
    /// Starts both servers; the first is what `start` makes.
    pub fn start(start: fn(ServerOptions) -> Result<TestServer, ServerError>) -> Result<Self, ServerError> {
        Ok(Self { ours: start(ServerOptions::from(OPTIONS))?, theirs: TestServer::redis(OPTIONS)? })
    }

    /// Replays the steps from empty servers.
    pub fn replay(
        &mut self,
        steps: &[Step],
        tamper: Tamper,
        tally: &mut Tally,
    ) -> Result<Option<Difference>, ServerError> {
        let outcome = Replay::begin(self, steps, tamper, tally).and_then(|mut replay| replay.run());
        match outcome {
            Ok(difference) => Ok(difference),
            Err(error) => {
                // A server that hangs or died is a difference too, and the next replay needs a new one.
                let log = self.ours.log();
                let tail: Vec<&str> = log.lines().rev().take(12).collect();
                let what = format!("{error}; the end of our log, last line first: {tail:#?}");
                self.ours.kill()?;
                self.ours.start_again()?;
                Ok(Some(Difference { step: None, command: "connection".to_owned(), what }))
            }
        }
    }
}

struct Side {
    control: Client,
    connections: Vec<Client>,
}

impl Side {
    fn open(server: &TestServer) -> io::Result<Self> {
        let mut control = server.client()?;
        for args in [
            args!["FLUSHALL"],
            args!["SCRIPT", "FLUSH"],
            args!["CONFIG", "SET", "maxmemory-policy", "noeviction"],
            args!["CONFIG", "SET", "maxmemory-samples", "5"],
        ] {
            let reply = control.command(&args)?;
            if let Some(error) = reply.error() {
                return Err(io::Error::other(format!("{} cannot be emptied: {error}", server.program())));
            }
        }
        let mut connections = (0..CONNECTIONS).map(|_| server.client()).collect::<io::Result<Vec<_>>>()?;
        for speaker in [RESP3, SUBSCRIBER3] {
            connections[speaker].command(&["HELLO", "3"])?;
        }
        Ok(Self { control, connections })
    }
}

struct Replay<'a> {
    ours: Side,
    theirs: Side,
    steps: &'a [Step],
    batch: Vec<usize>,
    batch_bytes: usize,
    /// What each connection has queued since its MULTI.
    queued: Vec<Option<Vec<Args>>>,
    subscribed: HashSet<usize>,
    tamper: Tamper,
    tally: &'a mut Tally,
}

/// Compares a command that cannot be sent along with others.
type CompareAlone = fn(&Args, &mut Client, &mut Client) -> io::Result<Option<String>>;
type Outcome = io::Result<Option<Difference>>;

impl<'a> Replay<'a> {
    fn begin(pair: &Pair, steps: &'a [Step], tamper: Tamper, tally: &'a mut Tally) -> io::Result<Self> {
        Ok(Self {
            ours: Side::open(&pair.ours)?,
            theirs: Side::open(&pair.theirs)?,
            steps,
            batch: Vec::new(),
            batch_bytes: 0,
            queued: vec![None; CONNECTIONS],
            subscribed: HashSet::new(),
            tamper,
            tally,
        })
    }

    fn run(&mut self) -> Outcome {
        for position in 0..self.steps.len() {
            let difference = self.step(position)?;
            if difference.is_some() {
                return Ok(difference);
            }
            if position % STATE_EVERY == STATE_EVERY - 1 {
                let difference = self.compare_states()?;
                if difference.is_some() {
                    return Ok(difference);
                }
            }
        }
        self.compare_states()
    }

    fn step(&mut self, position: usize) -> Outcome {
        let step = &self.steps[position];
        let changes_connection =
            self.batch.last().is_some_and(|last| self.steps[*last].connection != step.connection);
        if changes_connection || self.batch.len() >= BATCH || self.batch_bytes >= BATCH_BYTES {
            let difference = self.flush()?;
            if difference.is_some() {
                return Ok(difference);
            }
        }
        if step.connection >= SUBSCRIBER2 {
            let difference = self.flush()?;
            return if difference.is_some() { Ok(difference) } else { self.subscriber_step(position) };
        }
        let alone: Option<CompareAlone> = match comparison(&step.args) {
            Comparison::Random => Some(compare_random),
            Comparison::CompleteScan => Some(compare_scan),
            _ => None,
        };
        let Some(compare) = alone else {
            self.batch.push(position);
            self.batch_bytes += step.args.iter().map(|arg| arg.len() + 16).sum::<usize>();
            return Ok(None);
        };
        let difference = self.flush()?;
        // Queued, a random choice could neither be checked nor evened out. Histories have none; shrunk ones may.
        if difference.is_some() || self.queued[step.connection].is_some() {
            return Ok(difference);
        }
        let (ours, theirs) =
            (&mut self.ours.connections[step.connection], &mut self.theirs.connections[step.connection]);
        let what = compare(&step.args, ours, theirs)?;
        Ok(what.map(|what| Difference { step: Some(position), command: command_name(&step.args), what }))
    }

    fn flush(&mut self) -> Outcome {
        let batch = std::mem::take(&mut self.batch);
        self.batch_bytes = 0;
        let Some(first) = batch.first() else {
            return Ok(None);
        };
        let connection = self.steps[*first].connection;
        let (mut to_ours, mut to_theirs) = (Vec::new(), Vec::new());
        for position in &batch {
            let args = &self.steps[*position].args;
            let replaced = self.tamper.command.and_then(|replace| replace(args));
            crate::resp::write_command(&mut to_ours, replaced.as_ref().unwrap_or(args));
            crate::resp::write_command(&mut to_theirs, args);
        }
        self.ours.connections[connection].send_raw(&to_ours)?;
        self.theirs.connections[connection].send_raw(&to_theirs)?;
        for position in batch {
            let args = &self.steps[position].args;
            let mut ours = self.ours.connections[connection].reply().map_err(|error| {
                io::Error::new(
                    error.kind(),
                    format!("no reply from our side to {:?}: {error}", self.steps[position]),
                )
            })?;
            let theirs = self.theirs.connections[connection].reply()?;
            if let Some(tamper) = self.tamper.reply {
                tamper(args, &mut ours);
            }
            self.count(args, &theirs);
            if !self.same(connection, position, &ours, &theirs) {
                let what = format!("ours {ours:?}, theirs {theirs:?}");
                return Ok(Some(Difference { step: Some(position), command: command_name(args), what }));
            }
        }
        self.compare_received()
    }

    /// Compares one pair of replies and keeps track of the connection's transaction.
    fn same(&mut self, connection: usize, position: usize, ours: &Value, theirs: &Value) -> bool {
        let args = &self.steps[position].args;
        let queued = &mut self.queued[connection];
        if *theirs == Value::Simple(b"QUEUED".to_vec()) {
            if let Some(queued) = queued {
                queued.push(args.clone());
            }
            return ours == theirs;
        }
        match (args[0].to_ascii_uppercase().as_slice(), theirs.error().is_some()) {
            (b"MULTI", false) => *queued = Some(Vec::new()),
            (b"DISCARD" | b"RESET", false) => *queued = None,
            // Refused for its arguments EXEC leaves the transaction open; aborted or done it ends it.
            (b"EXEC", failed) if !failed || args.len() == 1 => {
                let queued = queued.take().unwrap_or_default();
                return equal_transaction(&queued, ours, theirs);
            }
            _ => {}
        }
        equal(args, ours, theirs)
    }

    fn subscriber_step(&mut self, position: usize) -> Outcome {
        let step = &self.steps[position];
        self.subscribed.insert(step.connection);
        let ours = subscriber::command(&mut self.ours.connections[step.connection], &step.args)?;
        let theirs = subscriber::command(&mut self.theirs.connections[step.connection], &step.args)?;
        let differ = ours != theirs;
        Ok(differ.then(|| Difference {
            step: Some(position),
            command: command_name(&step.args),
            what: format!("ours {ours:?}, theirs {theirs:?}"),
        }))
    }

    /// Compares what subscribers have received since the last time.
    fn compare_received(&mut self) -> Outcome {
        for connection in self.subscribed.clone() {
            let ours = received(&mut self.ours.connections[connection])?;
            let theirs = received(&mut self.theirs.connections[connection])?;
            if ours != theirs {
                let what = format!("subscriber {connection} received: ours {ours:?}, theirs {theirs:?}");
                return Ok(Some(Difference { step: None, command: "messages".to_owned(), what }));
            }
        }
        Ok(None)
    }

    fn compare_states(&mut self) -> Outcome {
        let difference = self.flush()?;
        if difference.is_some() {
            return Ok(difference);
        }
        let lines = differences(&take(&mut self.ours.control)?, &take(&mut self.theirs.control)?);
        if lines.is_empty() {
            return Ok(None);
        }
        Ok(Some(Difference { step: None, command: "state".to_owned(), what: lines.join("\n") }))
    }

    fn count(&mut self, args: &Args, reply: &Value) {
        let entry = self.tally.commands.entry(command_name(args)).or_default();
        entry[0] += 1;
        entry[1] += usize::from(reply.error().is_some());
        entry[2] += usize::from(reply.is_null());
    }
}

fn command_name(args: &Args) -> String {
    String::from_utf8_lossy(&args[0]).to_ascii_uppercase()
}
