//! A Lua script that runs on the server as one atomic step.
//!
//! Invariant: it is sent by its hash, and by its text only when the server does not know it (NOSCRIPT), which has no effect and
//! so is always safe to follow. Deliberately absent: what scripts do.

use crate::command::Command;
use crate::retry::Retry;

/// A script and its hash.
#[derive(Clone, Debug)]
pub struct Script {
    source: &'static str,
    hash: String,
    retry: Retry,
}

impl Script {
    /// A script that must not run twice for one call: when its outcome is unknown the caller is told, and it is not sent again.
    pub fn new(source: &'static str) -> Self {
        Self { source, hash: redis::Script::new(source).get_hash().to_owned(), retry: Retry::Never }
    }

    /// A script that does nothing more when it runs twice, and answers the same.
    pub fn idempotent(source: &'static str) -> Self {
        Self { retry: Retry::Safe, ..Self::new(source) }
    }

    /// Its Lua text.
    pub fn source(&self) -> &'static str {
        self.source
    }

    /// The SHA-1 of its text in lower-case hex, by which servers know it.
    pub fn hash(&self) -> &str {
        &self.hash
    }

    /// Whether it may be sent again after its outcome became unknown.
    pub fn retry(&self) -> Retry {
        self.retry
    }

    /// The command that runs it where it is known by its hash; NOSCRIPT, where it is not, has no effect.
    pub fn by_hash<K: AsRef<[u8]>, A: AsRef<[u8]>>(&self, keys: &[K], args: &[A]) -> Command {
        self.fill(Command::new("EVALSHA").arg(&self.hash), keys, args)
    }

    /// The command that runs it and makes it known.
    pub fn by_text<K: AsRef<[u8]>, A: AsRef<[u8]>>(&self, keys: &[K], args: &[A]) -> Command {
        self.fill(Command::new("EVAL").arg(self.source), keys, args)
    }

    fn fill<K: AsRef<[u8]>, A: AsRef<[u8]>>(&self, command: Command, keys: &[K], args: &[A]) -> Command {
        command
            .int(i64::try_from(keys.len()).unwrap_or(i64::MAX))
            .args(keys)
            .args(args)
            .with_retry(self.retry)
    }
}
