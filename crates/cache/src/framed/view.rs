//! What a region knows of frames that depends on the type of its values, or on who reads it: tags, older schemas, decoding.
//!
//! Invariant: what cannot be read says why, and whether that is an error or a miss to this region. Deliberately absent: the backend.

use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::backend::Bytes;
use crate::codec::{self, Codec};
use crate::error::{Error, ErrorKind, Result};
use crate::frame::{self, Frame, Framing, Header, PlainValues, Unreadable};
use crate::region::{Region, Undecodable};
use crate::tags::{Tag, Tags};

/// What a region knows of frames that depends on the type of its values, or on who reads it.
pub(crate) struct View<T> {
    /// The tags that what is stored through this view carries.
    pub(crate) tags: Arc<Tags>,
    /// How values of older schemas are read.
    older: Vec<Older<T>>,
}

/// How values of one older schema are read.
struct Older<T> {
    schema: u32,
    read: Arc<dyn Fn(Codec, &[u8]) -> Result<T> + Send + Sync>,
}

impl<T> View<T> {
    pub(crate) fn new(tags: Arc<Tags>) -> Self {
        Self { tags, older: Vec::new() }
    }

    fn with_tags(&self, tags: Arc<Tags>) -> Self {
        Self { tags, older: self.older.clone() }
    }
}

impl<T> Clone for Older<T> {
    fn clone(&self) -> Self {
        Self { schema: self.schema, read: Arc::clone(&self.read) }
    }
}

/// Why stored bytes are no value to this reader, and what that counts as.
pub(crate) struct Unusable {
    pub(crate) error: Error,
    pub(crate) counts_as: Undecodable,
    /// It is not broken, only of a later version.
    pub(crate) is_newer: bool,
}

impl<T> Region<T> {
    pub(crate) fn framing(&self) -> Option<&Framing> {
        self.state.policy.framing.as_ref()
    }

    /// This region, with these tags besides those of its policy for all that is stored through what is returned. For regions that are
    /// [`framed`](crate::RegionPolicy::framed). [`Cache::invalidate_tag`](crate::Cache::invalidate_tag) then invalidates all that carries the tag, in one step.
    ///
    /// The tags of an entry should follow from its name: concurrent loads of one entry are one load, which stores the tags of whoever
    /// came first. At most 16 tags per value.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] if the region is not framed, [`ErrorKind::BadKey`] for a tag that cannot be, or too many.
    ///
    /// ```no_run
    /// # async fn example(cache: mtcache_cache::Cache) -> mtcache_cache::Result<()> {
    /// use std::time::Duration;
    /// use mtcache_cache::{Framing, Region, RegionPolicy};
    ///
    /// let policy = RegionPolicy::new("sizing", Duration::from_secs(60)).framed(Framing::new());
    /// let sizes: Region<f64> = cache.region(policy)?;
    /// sizes.tagged(["symbol:BTC"])?.set(["BTC", "trend"], &0.25).await?;
    /// cache.invalidate_tag("symbol:BTC").await?;
    /// assert!(sizes.get(["BTC", "trend"]).await?.is_none());
    /// # Ok(()) }
    /// ```
    pub fn tagged<S: AsRef<str>>(&self, tags: impl IntoIterator<Item = S>) -> Result<Self> {
        if self.framing().is_none() {
            return Err(Error::new(
                ErrorKind::Config,
                format!("region {} is plain and cannot keep tags; make its policy framed", self.name()),
            ));
        }
        let mut all = self.view.tags.tags.clone();
        for tag in tags {
            all.push(Tag::new(tag.as_ref())?);
        }
        let tags = Arc::new(Tags::new(all, self.cache.prefix())?);
        Ok(Self { view: Arc::new(self.view.with_tags(tags)), ..self.clone() })
    }

    /// This region, reading values of an older schema too: they are read as `Old` and turned into what this region's readers take.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] if the region is not framed or the schema is not older than its own.
    pub fn reads_schema<Old: DeserializeOwned>(
        &self,
        schema: u32,
        upgrade: impl Fn(Old) -> T + Send + Sync + 'static,
    ) -> Result<Self> {
        if self.framing().is_none_or(|framing| schema >= framing.schema) {
            return Err(Error::new(
                ErrorKind::Config,
                format!("region {} is plain, or its schema is not newer than {schema}", self.name()),
            ));
        }
        let mut view = self.view.with_tags(Arc::clone(&self.view.tags));
        view.older.retain(|older| older.schema != schema);
        view.older
            .push(Older { schema, read: Arc::new(move |codec, bytes| codec.decode(bytes).map(&upgrade)) });
        Ok(Self { view: Arc::new(view), ..self.clone() })
    }
}

impl<T: Serialize> Region<T> {
    /// The stored form of a value: plain, or a frame that lacks what is known only when it is stored.
    pub(crate) fn encode(&self, value: &T) -> Result<Bytes> {
        self.encode_with(value, None)
    }

    /// The same with what the source gave to ask later whether it has changed.
    pub(crate) fn encode_with(&self, value: &T, validator: Option<Vec<u8>>) -> Result<Bytes> {
        if self.framing().is_none() {
            return match validator {
                None => codec::encode(value),
                Some(_) => Err(Error::new(
                    ErrorKind::Unencodable,
                    format!("region {} is plain and keeps no validator; make its policy framed", self.name()),
                )),
            };
        }
        self.draft(&self.state.policy.codec.encode(value)?, validator)
    }

    /// The stored form of "the source has none", whatever the type.
    pub(crate) fn encode_none(&self) -> Result<Bytes> {
        if self.framing().is_none() {
            return Ok(codec::NULL.to_vec());
        }
        self.draft(&self.state.policy.codec.encode(&())?, None)
    }

    fn draft(&self, bytes: &[u8], validator: Option<Vec<u8>>) -> Result<Bytes> {
        let codec = self.state.policy.codec;
        let mut header = Header::new(codec, Duration::ZERO);
        header.schema = self.framing().map_or(header.schema, |framing| framing.schema);
        header.is_none = codec.says_none(bytes);
        header.validator = validator;
        frame::write(&header, 0, bytes, frame::Compression::None)
            .map_err(|message| Error::new(ErrorKind::Unencodable, message))
    }
}

impl<T: DeserializeOwned> Region<T> {
    /// Whether a reader of this type has a value in these bytes.
    pub(crate) fn is_value(&self, stored: &[u8]) -> bool {
        if codec::is_null(stored) { codec::has_none::<T>() } else { self.decode(stored).is_ok() }
    }

    /// The value of a stored form.
    pub(crate) fn decode(&self, stored: &[u8]) -> std::result::Result<T, Unusable> {
        let policy = &self.state.policy;
        let broken = |error| Unusable { error, counts_as: policy.undecodable, is_newer: false };
        let Some(framing) = &policy.framing else { return codec::decode(stored).map_err(broken) };
        let unreadable = |unreadable: &Unreadable| {
            let message = format!("region {}: {unreadable}", policy.name);
            broken(Error::new(ErrorKind::Undecodable, message))
        };
        let newer = |what: String| Unusable {
            error: Error::new(
                ErrorKind::Undecodable,
                format!("region {}: {what}; this reader is older than its writer", policy.name),
            ),
            counts_as: framing.newer,
            is_newer: true,
        };
        let frame = match Frame::read(stored) {
            Ok(frame) => frame,
            Err(Unreadable::NotFramed) => {
                return match framing.plain {
                    PlainValues::Read => codec::decode(stored).map_err(broken),
                    PlainValues::Miss => {
                        Err(Unusable { counts_as: Undecodable::Miss, ..unreadable(&Unreadable::NotFramed) })
                    }
                    PlainValues::Error => {
                        Err(Unusable { counts_as: Undecodable::Error, ..unreadable(&Unreadable::NotFramed) })
                    }
                };
            }
            Err(Unreadable::Newer(what)) => return Err(newer(format!("a frame with {what}"))),
            Err(other) => return Err(unreadable(&other)),
        };
        let schema = frame.header.schema;
        if schema > framing.schema {
            return Err(newer(format!("a value of schema {schema}, newer than {}", framing.schema)));
        }
        let value = frame.value().map_err(|error| unreadable(&error))?;
        if schema == framing.schema {
            return frame.header.codec.decode(&value).map_err(broken);
        }
        let Some(older) = self.view.older.iter().find(|older| older.schema == schema) else {
            return Err(broken(Error::new(
                ErrorKind::Undecodable,
                format!(
                    "region {}: a value of schema {schema}, which nobody told this reader of schema {} to read; see \
                     Region::reads_schema",
                    policy.name, framing.schema
                ),
            )));
        };
        (older.read)(frame.header.codec, &value).map_err(broken)
    }
}
