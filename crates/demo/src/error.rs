//! The one error of the demo: a kind, and a message that says what to do.

use std::fmt;

/// Which part failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The bars could not be read.
    Bars,
    /// The database failed.
    Database,
    /// There is no such symbol or strategy.
    Unknown,
    /// The cache failed.
    Cache,
    /// A request makes no sense.
    Request,
}

/// Why the demo or one of its services failed.
#[derive(Debug)]
pub struct Error {
    kind: ErrorKind,
    message: String,
    source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

impl Error {
    pub(crate) fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), source: None }
    }

    pub(crate) fn caused_by(mut self, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        self.source = Some(source.into());
        self
    }

    /// Says which part failed.
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }
}

impl From<mtcache::Error> for Error {
    fn from(error: mtcache::Error) -> Self {
        Self::new(ErrorKind::Cache, "the cache failed").caused_by(error)
    }
}

impl From<mtcache::trading::Error> for Error {
    fn from(error: mtcache::trading::Error) -> Self {
        Self::new(ErrorKind::Cache, "the cache failed").caused_by(error)
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
