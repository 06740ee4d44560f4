//! Replays one append-only file: its commands in order, transactions whole or not at all.
//!
//! Each file begins in database 0. MULTI, EXEC and SELECT are understood here and not handed on; a transaction
//! is first looked through to its EXEC and then handed on, so that nothing is kept in memory but the command at
//! hand. What the end of the file looks like is reported, and left for the caller to judge: it knows which
//! file is the last. Deliberately absent: whether a command exists and what it does.

use super::base::read_base;
use super::checksum::{Line, read_line};
use super::scanner::{Record, Scanner, TornRecord};
use crate::disk::ReadFile;
use crate::error::{Error, ErrorKind, Result};
use crate::receiver::Receiver;

/// How many oddities are described one by one in a report.
const MAX_WARNINGS: usize = 20;

/// A command that comes back from the journal.
#[derive(Clone, Copy, Debug)]
pub struct Command<'a> {
    /// The database it is for. Whether there is such a one is for the receiver to say.
    pub db: u32,
    /// Its name and arguments; never empty.
    pub args: &'a [&'a [u8]],
    /// The name of the file that it stands in.
    pub file: &'a str,
    /// Where in the file it begins, in bytes.
    pub offset: u64,
    /// Whether it is part of a transaction (which is complete).
    pub in_transaction: bool,
}

/// How a file ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Tail {
    /// After a complete record.
    Clean,
    /// In the middle of a command.
    TornCommand,
    /// In the middle of an annotation line, which carries no data.
    TornAnnotation,
    /// With zeros that were never written.
    Zeros,
    /// In a transaction without its EXEC.
    OpenTransaction,
}

impl Tail {
    pub(crate) fn describe(self) -> &'static str {
        match self {
            Self::Clean => "it ends after a complete command",
            Self::TornCommand => "it ends in the middle of a command",
            Self::TornAnnotation => "it ends in the middle of an annotation line",
            Self::Zeros => "it ends with zeros that were never written",
            Self::OpenTransaction => "it ends in a transaction that has no EXEC",
        }
    }
}

/// What came of a file.
#[derive(Clone, Copy, Debug)]
pub(crate) struct FileOutcome {
    /// Commands handed on.
    pub(crate) commands: u64,
    /// Keys of a snapshot handed on.
    pub(crate) keys: u64,
    /// The length of the file.
    pub(crate) len: u64,
    /// Up to where it is sound: all before has been handed on.
    pub(crate) valid_up_to: u64,
    /// What comes after that.
    pub(crate) tail: Tail,
}

/// Oddities that do no harm, for the log.
#[derive(Debug, Default)]
pub(crate) struct Warnings {
    texts: Vec<String>,
    left_out: u64,
}

impl Warnings {
    pub(crate) fn add(&mut self, text: impl FnOnce() -> String) {
        if self.texts.len() < MAX_WARNINGS {
            self.texts.push(text());
        } else {
            self.left_out += 1;
        }
    }

    pub(crate) fn into_texts(mut self) -> Vec<String> {
        if self.left_out > 0 {
            self.texts.push(format!("{} more of the kind", self.left_out));
        }
        self.texts
    }
}

/// Hands the commands of a file on, one by one, until its end or until something is wrong.
pub(crate) fn replay_file(
    file: Box<dyn ReadFile>,
    name: &str,
    max_bulk_bytes: usize,
    warnings: &mut Warnings,
    receiver: &mut dyn Receiver,
) -> Result<FileOutcome> {
    let base = read_base(&*file, name, receiver)?.unwrap_or_default();
    if base.empty_keys > 0 {
        warnings.add(|| {
            format!("{name} holds {} collections without elements, which are left out", base.empty_keys)
        });
    }
    let begin = base.end;
    let scanner = Scanner::new(file, name, begin, max_bulk_bytes)?;
    let valid_up_to = begin;
    let mut replay = FileReplay { scanner, name, db: 0, commands: 0, valid_up_to, warnings, receiver };
    let tail = replay.run()?;
    Ok(FileOutcome {
        commands: replay.commands,
        keys: base.keys,
        len: replay.scanner.len(),
        valid_up_to: replay.valid_up_to,
        tail,
    })
}

struct FileReplay<'a> {
    scanner: Scanner,
    name: &'a str,
    db: u32,
    commands: u64,
    valid_up_to: u64,
    warnings: &'a mut Warnings,
    receiver: &'a mut dyn Receiver,
}

/// The commands that are about the journal itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Word {
    Multi,
    Exec,
    Discard,
    Select,
    Other,
}

/// Where a transaction leads to.
enum Transaction {
    /// Its EXEC begins here.
    Exec(u64),
    /// Its DISCARD ends here.
    Discarded(u64),
    /// The file ends before.
    Open(Tail),
}

impl FileReplay<'_> {
    fn run(&mut self) -> Result<Tail> {
        loop {
            if let Some(tail) = self.step()? {
                return Ok(tail);
            }
            // As in Redis, not after an annotation: it belongs to the command that follows, and is cut off with it.
            if self.scanner.name().is_some() {
                self.valid_up_to = self.scanner.offset();
            }
        }
    }

    /// Handles one record, or one whole transaction; says how the file ended if it did.
    fn step(&mut self) -> Result<Option<Tail>> {
        if let Some(tail) = self.advance()? {
            return Ok(Some(tail));
        }
        match self.word() {
            Some(Word::Multi) => return self.transaction(),
            Some(Word::Exec | Word::Discard) => self.warn("without a MULTI before it is ignored"),
            Some(Word::Select) => self.select()?,
            Some(Word::Other) => self.hand_on(false)?,
            None => {}
        }
        Ok(None)
    }

    fn transaction(&mut self) -> Result<Option<Tail>> {
        let begin = self.scanner.offset();
        let exec = match self.look_for_exec()? {
            Transaction::Open(tail) => return Ok(Some(tail)),
            Transaction::Discarded(end) => {
                self.scanner.go_to(end);
                return Ok(None);
            }
            Transaction::Exec(offset) => offset,
        };
        self.scanner.go_to(begin);
        while self.scanner.offset() < exec {
            // It has been read before and is complete.
            if self.advance()?.is_some() {
                return Err(self.damaged(self.scanner.record_offset(), "the file changed while it was read"));
            }
            match self.word() {
                Some(Word::Multi) => self.warn("inside a transaction is ignored"),
                Some(Word::Select) => self.select()?,
                Some(Word::Other) => self.hand_on(true)?,
                Some(Word::Exec | Word::Discard) | None => {}
            }
        }
        self.advance()?;
        Ok(None)
    }

    fn look_for_exec(&mut self) -> Result<Transaction> {
        let mut unknown = None;
        loop {
            if let Some(tail) = self.advance()? {
                // An EXEC that has been damaged leaves the transaction open too, and what follows must not go with it.
                if let Some(offset) = unknown {
                    return Err(self.damaged(offset, "there is no such command"));
                }
                // Also in the middle of a command: to keep the commands before it would keep half of a transaction.
                let tail = if tail == Tail::Clean { Tail::OpenTransaction } else { tail };
                return Ok(Transaction::Open(tail));
            }
            match self.word() {
                Some(Word::Exec) => return Ok(Transaction::Exec(self.scanner.record_offset())),
                Some(Word::Discard) => return Ok(Transaction::Discarded(self.scanner.offset())),
                Some(Word::Other) if unknown.is_none() && !self.is_known() => {
                    unknown = Some(self.scanner.record_offset());
                }
                _ => {}
            }
        }
    }

    fn advance(&mut self) -> Result<Option<Tail>> {
        Ok(match self.scanner.advance()? {
            Record::Command => None,
            Record::Annotation => self.look_at_annotation()?,
            Record::End => Some(Tail::Clean),
            Record::Torn(TornRecord::Command) => {
                let torn = self.scanner.record_offset();
                let known = |name: &[u8]| mtcache_protocol::lookup(name).is_some();
                if let Some(next) = self.scanner.commands_behind_torn(known)? {
                    let what =
                        format!("a length leads beyond the end of the file, yet commands follow at {next}");
                    return Err(self.damaged(torn, &what));
                }
                Some(Tail::TornCommand)
            }
            Record::Torn(TornRecord::Annotation) => Some(Tail::TornAnnotation),
            Record::Torn(TornRecord::Zeros) => Some(Tail::Zeros),
            Record::Bad(offset, what) => {
                let is_annotation = offset == self.scanner.offset() && self.scanner.starts_with(b'#')?;
                if is_annotation && self.scanner.ends_with_zeros()? {
                    return Ok(Some(Tail::Zeros));
                }
                return Err(self.damaged(offset, what));
            }
        })
    }

    /// Holds a group against the line that stands before it, before any of it is handed on.
    fn look_at_annotation(&mut self) -> Result<Option<Tail>> {
        let group = match read_line(self.scanner.line()) {
            Line::Other => return Ok(None),
            Line::Group(group) => group,
            Line::Damaged if self.scanner.ends_with_zeros()? => return Ok(Some(Tail::Zeros)),
            Line::Damaged => {
                let offset = self.scanner.record_offset();
                return Err(self.damaged(offset, "a line that should have a checksum is not whole"));
            }
        };
        if group.len > self.scanner.left() {
            return Ok(Some(Tail::TornCommand));
        }
        if self.scanner.checksum_ahead(group.len)? == group.checksum {
            return Ok(None);
        }
        if self.scanner.ends_with_zeros()? {
            return Ok(Some(Tail::Zeros));
        }
        let (begin, len) = (self.scanner.offset(), group.len);
        let what = format!(
            "the {len} bytes from {begin} on do not have the checksum that the line before them gives"
        );
        Err(self.damaged(begin, &what))
    }

    /// What the command at hand is; `None` at an annotation.
    fn word(&self) -> Option<Word> {
        let name = self.scanner.name()?;
        let words: [(&[u8], Word); 4] = [
            (b"SELECT", Word::Select),
            (b"MULTI", Word::Multi),
            (b"EXEC", Word::Exec),
            (b"DISCARD", Word::Discard),
        ];
        let known = words.iter().find(|(word, _)| name.eq_ignore_ascii_case(word));
        Some(known.map_or(Word::Other, |&(_, word)| word))
    }

    fn is_known(&self) -> bool {
        self.scanner.name().is_some_and(|name| mtcache_protocol::lookup(name).is_some())
    }

    fn select(&mut self) -> Result<()> {
        let args = self.scanner.args();
        let db = match args.as_slice() {
            [_, db] => std::str::from_utf8(db).ok().and_then(|text| text.parse().ok()),
            _ => None,
        };
        self.db = db.ok_or_else(|| {
            self.damaged(self.scanner.record_offset(), "a SELECT names something that is no database")
        })?;
        Ok(())
    }

    fn hand_on(&mut self, in_transaction: bool) -> Result<()> {
        let args = self.scanner.args();
        let (offset, sound) = (self.scanner.record_offset(), self.valid_up_to);
        let command = Command { db: self.db, args: &args, file: self.name, offset, in_transaction };
        self.receiver.command(command).map_err(|reason| {
            let name: String = args.first().map(|name| name.escape_ascii().take(40).map(char::from).collect())
                .unwrap_or_default();
            let message = format!(
                "the command {name} at offset {offset} of the AOF file {} cannot be replayed: {reason}; if another \
                 version wrote the file, start that one; otherwise make a backup of the file and look at that place",
                self.name
            );
            Error::new(ErrorKind::Refused, message).at(offset, sound)
        })?;
        self.commands += 1;
        Ok(())
    }

    fn warn(&mut self, what: &str) {
        let (name, offset) = (self.name, self.scanner.record_offset());
        let args = self.scanner.args();
        self.warnings.add(|| {
            let word = args.first().map(|word| word.escape_ascii().to_string()).unwrap_or_default();
            format!("{word} at offset {offset} of the AOF file {name} {what}")
        });
    }

    fn damaged(&self, offset: u64, what: &str) -> Error {
        let (name, sound) = (self.name, self.valid_up_to);
        let message = format!(
            "the AOF file {name} is damaged at offset {offset}: {what}; all before offset {sound} is sound; make a \
             backup of the file, then cut the damage off with `mtcache check-aof --fix`"
        );
        Error::new(ErrorKind::Damaged, message).at(offset, sound)
    }
}
