//! Who takes what comes back from the files: commands of a journal, keys of a snapshot.

use mtcache_engine::types::EncodingLimits;

use crate::aof::Command;
use crate::rdb::RdbKey;

/// Takes what is read, in order. A refusal ends the reading; its text completes "it cannot be replayed: ...".
pub trait Receiver {
    /// A command of a journal.
    fn command(&mut self, command: Command<'_>) -> Result<(), String>;

    /// A key of a snapshot.
    fn key(&mut self, key: RdbKey<'_>) -> Result<(), String>;

    /// Says that about so many keys of this database follow. It need not be true.
    fn expect_keys(&mut self, _db: u64, _keys: u64) {}

    /// When collections leave their compact encodings.
    fn encoding_limits(&self) -> EncodingLimits {
        EncodingLimits::DEFAULT
    }
}

/// Takes commands, and refuses keys.
pub(crate) struct CommandsOnly<F>(pub(crate) F);

impl<F: FnMut(Command<'_>) -> Result<(), String>> Receiver for CommandsOnly<F> {
    fn command(&mut self, command: Command<'_>) -> Result<(), String> {
        (self.0)(command)
    }

    fn key(&mut self, _: RdbKey<'_>) -> Result<(), String> {
        Err("only commands are expected here".to_owned())
    }
}
