//! The files of a journal that is open, to be read while its writer stands still.
//!
//! Deliberately absent: the lock, which the writer has, and any judgement of a torn end: what a writer has written is whole.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use super::reader::{Tail, Warnings, replay_file};
use crate::disk::Disk;
use crate::error::{Error, ErrorKind, Result};
use crate::receiver::Receiver;

/// The files of a journal, as they are at one moment.
pub struct AofFiles {
    pub(super) disk: Arc<dyn Disk>,
    pub(super) dir: PathBuf,
    pub(super) names: Vec<String>,
    pub(super) max_bulk_bytes: usize,
}

impl AofFiles {
    /// Hands everything on, in order; oddities for the log come back.
    pub fn replay_into(&self, receiver: &mut dyn Receiver) -> Result<Vec<String>> {
        let mut warnings = Warnings::default();
        for name in &self.names {
            let file = self.disk.open_read(&self.dir.join(name));
            let file = file.map_err(|error| Error::io(format_args!("read {name}"), error))?;
            let outcome = replay_file(file, name, self.max_bulk_bytes, &mut warnings, receiver)?;
            if outcome.tail != Tail::Clean {
                let (how, offset) = (outcome.tail.describe(), outcome.valid_up_to);
                let message = format!("the AOF file {name} is incomplete: {how}, after offset {offset}");
                return Err(Error::new(ErrorKind::Truncated, message).at(offset, offset));
            }
        }
        Ok(warnings.into_texts())
    }
}

impl fmt::Debug for AofFiles {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AofFiles").field("names", &self.names).finish_non_exhaustive()
    }
}
