//! Reads an RDB file from its first byte to its checksum, key by key.
//!
//! What is known and carries no data (facts about the writer, size hints) is passed over; what carries data that the
//! engine cannot hold is refused by name, with its place. Every announced length is held against what is left of the file.

use std::fmt;

use mtcache_engine::UnixMillis;
use mtcache_engine::rdb::{
    Damage, Fault, Loaded, Source, ValueKind, array, byte, length, module_name, opcode, read_object,
    reads_version, string,
};

use super::source::FileSource;
use crate::disk::ReadFile;
use crate::error::{Error, ErrorKind, Result};
use crate::receiver::Receiver;

/// What RDB files begin with: Redis' and, from its version 9 on, Valkey's.
pub(crate) const RDB_MAGICS: [&[u8]; 2] = [b"REDIS", b"VALKEY"];
/// Magic and version together.
const HEAD_LEN: usize = 9;
/// Files have a checksum since this version.
const FIRST_WITH_CHECKSUM: u16 = 5;

/// Where an RDB file stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// In a file of its own.
    Alone,
    /// At the beginning of a journal, whose commands follow.
    BeforeCommands,
}

/// A key that comes from a file.
#[derive(Debug)]
#[non_exhaustive]
pub struct RdbKey<'a> {
    /// The database it is for. Whether there is such a one is for the receiver to say.
    pub db: u64,
    /// Its name.
    pub key: &'a [u8],
    /// Its value, and what else is known of it.
    pub loaded: Loaded,
    /// The name of the file that it stands in.
    pub file: &'a str,
    /// Where in the file it begins, in bytes.
    pub offset: u64,
    /// Whether commands follow the snapshot, which say by themselves what has expired since.
    pub commands_follow: bool,
}

/// What an RDB file was found to be.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct RdbReport {
    /// The version of its format.
    pub version: u16,
    /// The keys that were handed on.
    pub keys: u64,
    /// Those of them that expire.
    pub expiring_keys: u64,
    /// Collections without elements, which were passed over.
    pub empty_keys: u64,
    /// Where it ends, its checksum included, in bytes.
    pub end: u64,
    /// Whether it has a checksum, which then was right.
    pub has_checksum: bool,
    /// Facts about the server that wrote it, a bounded number.
    pub facts: Vec<(String, String)>,
}

/// Bytes that a key takes at the least: its type, the lengths of key and value, and one of either.
const SMALLEST_KEY: u64 = 4;

/// How many facts are kept for a report, and how much of each.
const MAX_FACTS: usize = 32;
const MAX_FACT_CHARS: usize = 200;

/// Reads the RDB file that `file` begins with.
pub(crate) fn read_rdb(
    file: &dyn ReadFile,
    name: &str,
    place: Place,
    receiver: &mut dyn Receiver,
) -> Result<RdbReport> {
    let io = |error| Error::io(format_args!("read {name}"), error);
    let room = file.len().map_err(io)? / SMALLEST_KEY;
    let source = FileSource::new(file).map_err(io)?;
    let report = RdbReport::default();
    let mut reader = Reader {
        source,
        room,
        name,
        place,
        receiver,
        report,
        db: 0,
        record: 0,
        key: Vec::new(),
        is_key: false,
    };
    match reader.run() {
        Ok(()) => Ok(reader.report),
        Err(Stop::Error(error)) => Err(error),
        Err(Stop::Fault(fault)) => Err(reader.explain(&fault)),
    }
}

/// Why reading ended early.
enum Stop {
    Fault(Fault),
    Error(Error),
}

impl From<Fault> for Stop {
    fn from(fault: Fault) -> Self {
        Self::Fault(fault)
    }
}

struct Reader<'a> {
    source: FileSource<'a>,
    /// How many keys more the file may announce: as many as it has room for, in all databases together.
    room: u64,
    name: &'a str,
    place: Place,
    receiver: &'a mut dyn Receiver,
    report: RdbReport,
    db: u64,
    /// Where the present record begins, and its key, once it is known.
    record: u64,
    key: Vec<u8>,
    is_key: bool,
}

/// What has been said about the next key.
#[derive(Default)]
struct Before {
    expires_at: Option<UnixMillis>,
    idle_seconds: Option<u64>,
    counter: Option<u8>,
}

impl Reader<'_> {
    fn run(&mut self) -> Result<(), Stop> {
        self.head()?;
        let mut before = Before::default();
        loop {
            if before.expires_at.is_none() && before.idle_seconds.is_none() && before.counter.is_none() {
                self.record = self.source.offset();
            }
            match byte(&mut self.source)? {
                opcode::END => break,
                opcode::SELECT_DB => self.db = length(&mut self.source)?,
                opcode::RESIZE_DB => {
                    let keys = length(&mut self.source)?.min(self.room);
                    self.pass_over_lengths(1)?;
                    self.room -= keys;
                    self.receiver.expect_keys(self.db, keys);
                }
                opcode::SLOT_INFO => self.pass_over_lengths(3)?,
                opcode::AUX => self.fact()?,
                opcode::FUNCTION => self.library()?,
                opcode::FUNCTION_BEFORE_RELEASE => {
                    return Err(self.unsupported("a library of functions in the form of a release candidate"));
                }
                opcode::MODULE_AUX => {
                    let module = module_name(length(&mut self.source)?);
                    return Err(self.unsupported(&format!("data of the module {module}")));
                }
                opcode::EXPIRE_SECONDS => {
                    let seconds = i32::from_le_bytes(array(&mut self.source)?);
                    before.expires_at = Some(UnixMillis(u64::try_from(seconds).unwrap_or_default() * 1000));
                }
                opcode::EXPIRE_MILLIS => {
                    let millis = i64::from_le_bytes(array(&mut self.source)?);
                    before.expires_at = Some(UnixMillis(u64::try_from(millis).unwrap_or_default()));
                }
                opcode::IDLE => before.idle_seconds = Some(length(&mut self.source)?),
                opcode::FREQ => before.counter = Some(byte(&mut self.source)?),
                kind => {
                    self.key(kind, &before)?;
                    before = Before::default();
                }
            }
        }
        self.check_end()
    }

    fn head(&mut self) -> Result<(), Stop> {
        let head: [u8; HEAD_LEN] = array(&mut self.source)?;
        let digits = RDB_MAGICS.iter().find_map(|magic| head.strip_prefix(*magic));
        let digits = digits.ok_or_else(|| self.damaged("it does not begin as an RDB file does"))?;
        let version =
            std::str::from_utf8(digits).ok().filter(|text| text.bytes().all(|digit| digit.is_ascii_digit()));
        let version: u16 =
            version.and_then(|text| text.parse().ok()).ok_or_else(|| self.damaged("its version is none"))?;
        if !reads_version(version) {
            return Err(self.unsupported(&format!("version {version} of the RDB format")));
        }
        if self.place == Place::BeforeCommands && version < 8 {
            return Err(self.damaged("its version is older than journals that begin as RDB files"));
        }
        self.report.version = version;
        Ok(())
    }

    fn pass_over_lengths(&mut self, count: usize) -> Result<(), Stop> {
        for _ in 0..count {
            length(&mut self.source)?;
        }
        Ok(())
    }

    fn fact(&mut self) -> Result<(), Stop> {
        let (mut name, mut value) = (Vec::new(), Vec::new());
        string(&mut self.source, &mut name)?;
        string(&mut self.source, &mut value)?;
        if self.report.facts.len() < MAX_FACTS {
            let shown = |text: &[u8]| String::from_utf8_lossy(text).chars().take(MAX_FACT_CHARS).collect();
            self.report.facts.push((shown(&name), shown(&value)));
        }
        Ok(())
    }

    fn library(&mut self) -> Result<(), Stop> {
        let mut code = Vec::new();
        string(&mut self.source, &mut code)?;
        if code.is_empty() {
            return Ok(());
        }
        let first_line: String =
            String::from_utf8_lossy(&code).lines().next().unwrap_or_default().chars().take(100).collect();
        Err(self.unsupported(&format!("a library of functions ({first_line})")))
    }

    fn key(&mut self, kind: u8, before: &Before) -> Result<(), Stop> {
        let kind = ValueKind::from_byte(kind);
        if kind == Err(Fault::Damaged(Damage::Kind)) {
            return Err(Fault::Damaged(Damage::Kind).into());
        }
        // Also of a value that is refused, so that the message can name it.
        string(&mut self.source, &mut self.key)?;
        self.is_key = true;
        let object = match read_object(&mut self.source, kind?, &self.receiver.encoding_limits()) {
            Ok(object) => object,
            Err(Fault::Empty) => {
                self.report.empty_keys += 1;
                return Ok(());
            }
            Err(fault) => return Err(fault.into()),
        };
        self.is_key = false;
        let mut loaded = Loaded::new(object);
        loaded.expires_at = before.expires_at;
        loaded.idle_seconds = before.idle_seconds;
        loaded.counter = before.counter;
        self.report.keys += 1;
        self.report.expiring_keys += u64::from(before.expires_at.is_some());
        let key = RdbKey {
            db: self.db,
            key: &self.key,
            loaded,
            file: self.name,
            offset: self.record,
            commands_follow: self.place == Place::BeforeCommands,
        };
        self.receiver.key(key).map_err(|reason| {
            let message = format!(
                "the key {} at offset {} of {} cannot be loaded: {reason}",
                shown(&self.key),
                self.record,
                self.name
            );
            Stop::Error(Error::new(ErrorKind::Refused, message).located(self.record))
        })
    }

    fn check_end(&mut self) -> Result<(), Stop> {
        if self.report.version >= FIRST_WITH_CHECKSUM {
            let computed = self.source.checksum();
            let stored = u64::from_le_bytes(array(&mut self.source)?);
            // 0 means that the writer had checksums switched off.
            if stored != 0 && stored != computed {
                return Err(self.damaged("its checksum is wrong: some of its bytes are not what was written"));
            }
            self.report.has_checksum = stored != 0;
        }
        self.report.end = self.source.offset();
        if self.place == Place::Alone && self.source.left() > 0 {
            self.record = self.report.end;
            return Err(self.damaged("there are bytes after its end"));
        }
        Ok(())
    }

    fn damaged(&self, what: impl fmt::Display) -> Stop {
        let place = if self.is_key { format!(", in the key {}", shown(&self.key)) } else { String::new() };
        let message = format!(
            "{} is damaged, in what begins at offset {}{place}: {what}; restore it from a backup",
            self.name, self.record
        );
        Stop::Error(Error::new(ErrorKind::Damaged, message).located(self.record))
    }

    fn unsupported(&self, what: &str) -> Stop {
        let place =
            if self.is_key { format!("the key {}", shown(&self.key)) } else { "what stands".to_owned() };
        let message = format!(
            "{} holds {what}, which is not supported by this version ({place} at offset {}); nothing of the file is \
             used: remove that on the server that wrote it and save again, or go on with that server",
            self.name, self.record
        );
        Stop::Error(Error::new(ErrorKind::Unsupported, message).located(self.record))
    }

    fn explain(&mut self, fault: &Fault) -> Error {
        if let Some(error) = self.source.take_failure() {
            return Error::io(format_args!("read {}", self.name), error);
        }
        let stop = match fault {
            Fault::Unsupported(name) => self.unsupported(name),
            fault => self.damaged(fault),
        };
        match stop {
            Stop::Error(error) => error,
            Stop::Fault(fault) => Error::new(ErrorKind::Damaged, fault.to_string()),
        }
    }
}

/// A key for a message: what can be printed of its beginning.
fn shown(key: &[u8]) -> String {
    let text: String = key.escape_ascii().take(80).map(char::from).collect();
    format!("\"{text}\"")
}
