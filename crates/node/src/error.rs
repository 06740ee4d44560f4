//! Why a node could not be opened or closed.

use std::fmt;

/// Why a node could not be opened or closed, in one line that says what to do.
#[derive(Debug)]
pub struct NodeError {
    message: String,
    source: Option<mtcache_persistence::Error>,
}

impl NodeError {
    pub(crate) fn new(message: impl Into<String>) -> Self {
        Self { message: message.into(), source: None }
    }

    pub(crate) fn files(source: mtcache_persistence::Error) -> Self {
        Self { message: source.to_string(), source: Some(source) }
    }
}

impl fmt::Display for NodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for NodeError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.source.as_ref().map(|source| source as _)
    }
}
