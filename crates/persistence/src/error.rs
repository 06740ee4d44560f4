//! The crate's one error: what went wrong, where, and what the reader of the message should do.
//!
//! The kind says who is to blame and so what a caller may do next; the message is written for the person
//! who runs the server. An error of the disk keeps its `io::Error` as source.

use std::fmt;
use std::io;

/// What sort of failure an [`Error`] is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The disk refused an operation. Trying again may help once its cause is gone.
    Io,
    /// Another process has the directory open.
    Locked,
    /// The manifest does not say what files there are, or names one that is missing.
    Manifest,
    /// A file holds bytes that are not what a journal holds.
    Damaged,
    /// The last file ends in the middle of a command, and the options forbid cutting it off.
    Truncated,
    /// The file is sound but of a kind that this version does not read.
    Unsupported,
    /// The receiver of replayed commands refused one of them.
    Refused,
    /// The disk did not keep up and what needed it was given up. Nothing is wrong with it; trying again may help.
    TooSlow,
    /// An earlier write or fsync failed: nothing is accepted until a new file has been started.
    Failed,
}

/// A failure of the persistence layer.
#[derive(Debug)]
pub struct Error {
    kind: ErrorKind,
    message: String,
    offset: Option<u64>,
    sound_up_to: Option<u64>,
    source: Option<io::Error>,
}

/// A result of the persistence layer.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// Who is to blame and whether trying again can help.
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }

    /// The disk's own error, where there was one.
    pub fn io_error(&self) -> Option<&io::Error> {
        self.source.as_ref()
    }

    /// Where in its file the damage is, in bytes, for an error about damage.
    pub fn offset(&self) -> Option<u64> {
        self.offset
    }

    pub(crate) fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), offset: None, sound_up_to: None, source: None }
    }

    /// Up to where the file is sound, in bytes, for an error about damage: all before has been replayed.
    pub fn sound_up_to(&self) -> Option<u64> {
        self.sound_up_to
    }

    /// A snapshot that cannot begin, because another one is being written.
    pub fn busy() -> Self {
        Self::new(ErrorKind::Failed, "another snapshot is being written: wait for its end")
    }

    /// Work that was given up before its end.
    pub fn abandoned(why: &str) -> Self {
        Self::new(ErrorKind::Failed, format!("it was given up: {why}"))
    }

    /// Work whose thread panicked: a fault of this program.
    pub fn panicked() -> Self {
        Self::new(ErrorKind::Failed, "it panicked, which is a fault of this program: see the log")
    }

    /// A snapshot that was given up, because the disk took nothing for too long.
    pub fn too_slow() -> Self {
        Self::new(
            ErrorKind::TooSlow,
            "the disk is too slow for the writes that go on meanwhile: the snapshot was given up",
        )
    }

    /// Of damage that no cutting off would mend.
    pub(crate) fn located(mut self, offset: u64) -> Self {
        self.offset = Some(offset);
        self
    }

    pub(crate) fn at(mut self, offset: u64, sound_up_to: u64) -> Self {
        self.offset = Some(offset);
        self.sound_up_to = Some(sound_up_to);
        self
    }

    /// `what` completes "cannot ...", for example "write the manifest".
    pub(crate) fn io(what: impl fmt::Display, source: io::Error) -> Self {
        let advice = advice_for(&source);
        let message = format!("cannot {what}: {source}{advice}");
        Self { kind: ErrorKind::Io, message, offset: None, sound_up_to: None, source: Some(source) }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.message)
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.source.as_ref().map(|source| source as _)
    }
}

fn advice_for(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::PermissionDenied => {
            "; give the server's user the right to write there, or choose another --dir"
        }
        io::ErrorKind::ReadOnlyFilesystem => "; mount it writable, or choose another --dir",
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => "; free some space",
        _ => "",
    }
}
