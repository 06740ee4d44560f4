//! Why a server could not start.

use std::fmt;
use std::io;

/// A server that could not start, in one line that says what to do.
#[derive(Debug)]
pub struct ServerError {
    message: String,
    source: Option<io::Error>,
}

impl ServerError {
    pub(crate) fn new(message: impl Into<String>, source: io::Error) -> Self {
        Self { message: message.into(), source: Some(source) }
    }
}

impl ServerError {
    /// An error whose message says it all.
    pub(crate) fn told(message: String) -> Self {
        Self { message, source: None }
    }
}

impl fmt::Display for ServerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)?;
        match &self.source {
            Some(source) => write!(f, ": {source}"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for ServerError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.source.as_ref().map(|source| source as _)
    }
}
