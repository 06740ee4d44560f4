//! The one error of this crate: a kind, and a sentence that names the file, the place in it and what to do.

use std::fmt;

/// What went wrong, in terms of whose turn it is to act.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The trace could not be opened or read: the path, the permissions or the disk.
    Io,
    /// The trace ends in the middle of a request.
    Truncated,
    /// The trace is not in the format it was read as, or is damaged.
    Malformed,
    /// The cache that was replayed against failed or refused.
    Target,
    /// An option makes no sense, such as a cache of no size.
    Option,
}

/// Why a trace could not be read or replayed.
#[derive(Debug)]
pub struct Error {
    kind: ErrorKind,
    message: String,
    source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

impl Error {
    /// A failure of the cache that is replayed against; for implementers of [`crate::ReplayTarget`].
    pub fn target(
        message: impl Into<String>,
        source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
    ) -> Self {
        Self::new(ErrorKind::Target, message).caused_by(source)
    }

    pub(crate) fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), source: None }
    }

    pub(crate) fn caused_by(mut self, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        self.source = Some(source.into());
        self
    }

    /// Says whose turn it is to act.
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)?;
        match &self.source {
            Some(source) => write!(f, ": {source}"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.source.as_deref().map(|source| source as _)
    }
}
