//! The append-only file: reading it back, and writing it.

mod base;
mod beside;
mod checksum;
mod files;
mod parse;
mod reader;
mod rewrite;
mod scanner;
mod writer;

#[cfg(test)]
pub(crate) use crate::rdb::empty_rdb;
pub(crate) use base::end_of_base;
pub use beside::PendingSync;
pub use files::AofFiles;
pub use reader::Command;
pub(crate) use reader::{FileOutcome, Tail, Warnings, replay_file};
pub use rewrite::{BasePlace, BaseWriter, NewBase, Rewrite};
pub(crate) use scanner::{Record, Scanner};
pub use writer::AofWriter;
pub(crate) use writer::{WriterParts, sync_dir};
