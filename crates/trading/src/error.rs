//! The one error of this crate: a kind that says who is to blame, a message that says what to do, and its source.

use std::fmt;

/// What went wrong, in terms of who is to act.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The caller's timestamp is not one.
    InvalidTimestamp,
    /// The caller's signal is not a JSON object, or one of its reserved fields is wrong.
    InvalidSignal,
    /// The signal is older than the buffer keeps, or than the newest it has room for; it was not kept.
    SignalTooOld,
    /// A user, or another part of a key, is empty.
    InvalidKey,
    /// A value has no JSON form: NaN, an infinity, or a map with keys that are not text.
    InvalidValue,
    /// What is stored is not what was asked for.
    Undecodable,
    /// The table of regions is set up wrongly.
    Config,
    /// The cache below failed; [`Error::cache_error`] says how, and whether the outcome is known.
    Cache,
    /// The operating system gave no random numbers.
    Randomness,
}

/// Why a trading operation failed.
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

    /// The cache's own error, when that is the cause.
    pub fn cache_error(&self) -> Option<&mtcache_cache::Error> {
        self.source.as_deref()?.downcast_ref()
    }

    /// Says who is to act.
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }
}

impl From<mtcache_cache::Error> for Error {
    fn from(error: mtcache_cache::Error) -> Self {
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
