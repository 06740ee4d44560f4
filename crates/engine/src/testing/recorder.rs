//! A journal that keeps everything in memory, as lines to compare and as commands to replay.

use parking_lot::Mutex;

use mtcache_conformance::Value;
use mtcache_conformance::resp::read_value;

use crate::journal::{Commands, Journal, Lsn};
use crate::keyspace::DbIndex;

/// A write as it was journalled: its database and its arguments.
pub(crate) type Write = (DbIndex, Vec<Vec<u8>>);

/// A [`Journal`] for tests.
#[derive(Debug, Default)]
pub(crate) struct Recorder {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    writes: Vec<Write>,
    shown: usize,
    bytes: u64,
}

impl Recorder {
    /// The lines journalled since the last call; a write of a database other than 0 starts with its number: `[3] SET k v`.
    pub(crate) fn take_lines(&self) -> Vec<String> {
        let mut state = self.state.lock();
        let lines = state.writes[state.shown..]
            .iter()
            .map(|(db, args)| if *db == 0 { line(args) } else { format!("[{db}] {}", line(args)) })
            .collect();
        state.shown = state.writes.len();
        lines
    }

    /// Everything that was journalled.
    pub(crate) fn writes(&self) -> Vec<Write> {
        self.state.lock().writes.clone()
    }
}

impl Journal for Recorder {
    fn append(&self, db: DbIndex, commands: Commands<'_>) -> Lsn {
        let mut state = self.state.lock();
        match commands {
            Commands::Args(args) => {
                state.bytes += 1;
                state.writes.push((db, args.iter().map(|arg| arg.to_vec()).collect()));
            }
            Commands::Encoded { bytes, last_db } => {
                state.bytes += bytes.len() as u64;
                let mut db = db;
                let mut rest = bytes;
                while !rest.is_empty() {
                    let args = arguments(&mut rest);
                    if args[0].eq_ignore_ascii_case(b"select") {
                        db = String::from_utf8_lossy(&args[1]).parse().unwrap();
                    } else {
                        state.writes.push((db, args));
                    }
                }
                assert_eq!(db, last_db, "the group does not end in the database that it names");
            }
        }
        Lsn(state.bytes)
    }

    fn accepts_writes(&self) -> bool {
        true
    }
}

fn arguments(rest: &mut &[u8]) -> Vec<Vec<u8>> {
    let value = read_value(rest).expect("the journal holds whole commands");
    let Value::Array(items) = value else { panic!("not a command: {value:?}") };
    items.iter().map(|item| item.bytes().expect("arguments are bulk strings").to_vec()).collect()
}

/// A command as one line, with quotes where they are needed.
pub(crate) fn line(args: &[Vec<u8>]) -> String {
    let word = |arg: &Vec<u8>| {
        let plain =
            !arg.is_empty() && arg.iter().all(|b| b.is_ascii_graphic() && !matches!(b, b'"' | b'\'' | b'\\'));
        if plain { String::from_utf8_lossy(arg).into_owned() } else { format!("\"{}\"", arg.escape_ascii()) }
    };
    args.iter().map(word).collect::<Vec<_>>().join(" ")
}
