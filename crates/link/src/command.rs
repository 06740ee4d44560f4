//! One command to send.
//!
//! Invariant: whether it may be sent twice is decided by the retry table when it is sent, from its own words, unless its maker
//! knows better. Deliberately absent: typed commands; those live where they mean something.

use crate::retry::{self, Retry};

/// One command with its arguments.
#[derive(Clone)]
pub struct Command {
    pub(crate) inner: redis::Cmd,
    retry: Option<Retry>,
}

impl Command {
    /// Starts a command by its name, in capitals.
    pub fn new(name: &str) -> Self {
        Self { inner: redis::cmd(name), retry: None }
    }

    /// Adds an argument.
    #[must_use]
    pub fn arg(mut self, arg: impl AsRef<[u8]>) -> Self {
        self.inner.arg(arg.as_ref());
        self
    }

    /// Adds an integer argument.
    #[must_use]
    pub fn int(mut self, n: i64) -> Self {
        self.inner.arg(n);
        self
    }

    /// Adds several arguments.
    #[must_use]
    pub fn args<A: AsRef<[u8]>>(mut self, args: impl IntoIterator<Item = A>) -> Self {
        for arg in args {
            self.inner.arg(arg.as_ref());
        }
        self
    }

    /// Overrules the retry table, for what only the caller can know.
    #[must_use]
    pub fn with_retry(mut self, retry: Retry) -> Self {
        self.retry = Some(retry);
        self
    }

    /// Its name and arguments.
    pub fn words(&self) -> impl Iterator<Item = &[u8]> {
        self.inner.args_iter().filter_map(|arg| match arg {
            redis::Arg::Simple(bytes) => Some(bytes),
            _ => None,
        })
    }

    /// Whether it may be sent again when it is not known what became of it.
    pub fn retry(&self) -> Retry {
        self.retry.unwrap_or_else(|| {
            let words: Vec<&[u8]> = self.words().collect();
            retry::of(&words)
        })
    }
}
