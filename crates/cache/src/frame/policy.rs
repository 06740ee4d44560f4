//! What holds for the values of a framed region.
//!
//! Deliberately absent: what holds for those of plain regions too (`region.rs`).

use super::Compression;
use crate::error::{Error, ErrorKind, Result};
use crate::region::Undecodable;
use crate::tags::{MAX_TAGS, Tag};

/// Default of [`Framing::compress`]'s threshold, in bytes.
pub const COMPRESS_ABOVE: usize = 1024;
/// The schema version of a region that says nothing of it.
pub(super) const FIRST_SCHEMA: u32 = 1;

/// How a region's values are framed. Given to [`RegionPolicy::framed`](crate::RegionPolicy::framed).
///
/// ```
/// use std::time::Duration;
/// use mtcache_cache::{Codec, Compression, Framing, RegionPolicy};
///
/// let framing = Framing::new().compress(Compression::Zstd, 1024).schema(2).tags(["backtests"]);
/// let policy = RegionPolicy::new("backtest", Duration::from_secs(86_400))
///     .framed(framing)
///     .codec(Codec::MessagePack);
/// # let _ = policy;
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Framing {
    /// How values above the threshold are packed, if that makes them smaller. Default: not at all. All are unpacked.
    pub compression: Compression,
    /// Values up to so many bytes are not packed. Default: 1,024.
    pub compress_above: usize,
    /// The version of the values' type. Default: 1. Raise it when readers of the version before could misread a value.
    pub schema: u32,
    /// What a value of a newer schema, or in a newer kind of frame, is to this reader. Default: a miss, so that old and new
    /// instances can run side by side.
    pub newer: Undecodable,
    /// What a plain value under a key of this region is. Default: read it as plain regions do; it has no tags.
    pub plain: PlainValues,
    /// Tags that every value of the region carries. Default: none.
    pub tags: Vec<String>,
}

/// What a plain value is to a framed region.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum PlainValues {
    /// A value, read as plain regions read theirs; its age is a bound, and no tag takes it.
    #[default]
    Read,
    /// A miss: the next load replaces it.
    Miss,
    /// An error of the kind [`ErrorKind::Undecodable`].
    Error,
}

impl Default for Framing {
    fn default() -> Self {
        Self {
            compression: Compression::None,
            compress_above: COMPRESS_ABOVE,
            schema: FIRST_SCHEMA,
            newer: Undecodable::Miss,
            plain: PlainValues::Read,
            tags: Vec::new(),
        }
    }
}

impl Framing {
    /// The defaults.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets how values above so many bytes are packed.
    #[must_use]
    pub fn compress(mut self, compression: Compression, above: usize) -> Self {
        self.compression = compression;
        self.compress_above = above;
        self
    }

    /// Sets the version of the values' type.
    #[must_use]
    pub fn schema(mut self, version: u32) -> Self {
        self.schema = version;
        self
    }

    /// Sets what newer values are to this reader.
    #[must_use]
    pub fn newer(mut self, choice: Undecodable) -> Self {
        self.newer = choice;
        self
    }

    /// Sets what plain values are.
    #[must_use]
    pub fn plain(mut self, choice: PlainValues) -> Self {
        self.plain = choice;
        self
    }

    /// Sets the tags that every value carries.
    #[must_use]
    pub fn tags<S: Into<String>>(mut self, tags: impl IntoIterator<Item = S>) -> Self {
        self.tags = tags.into_iter().map(Into::into).collect();
        self
    }

    pub(crate) fn check(&self, region: &str) -> Result<Vec<Tag>> {
        if self.tags.len() > MAX_TAGS {
            return Err(Error::new(
                ErrorKind::Config,
                format!("region {region}: {} tags are too many; {MAX_TAGS} are allowed", self.tags.len()),
            ));
        }
        self.tags.iter().map(|tag| Tag::new(tag)).collect()
    }

    pub(crate) fn compression_for(&self, bytes: usize) -> Compression {
        if bytes > self.compress_above { self.compression } else { Compression::None }
    }
}
