//! The framed stored form: a header before the value, so that its age, its schema and its tags are known exactly.
//!
//! The layout is documented to the byte in `docs/stored-form.md`, with an example that a test here checks. Invariants: the first byte
//! begins neither UTF-8 text nor `MessagePack`, so that no plain value is taken for a frame; reading is total: any bytes are a frame, one of a
//! newer kind, or broken, and never allocate more than they hold or than [`MAX_VALUE_BYTES`]. Deliberately absent: backends and
//! clocks; the time in a frame is written by the backend as it stores it.

mod compression;
mod policy;

use std::borrow::Cow;
use std::fmt;
use std::time::Duration;

pub use self::compression::Compression;
pub use self::policy::{COMPRESS_ABOVE, Framing, PlainValues};
use crate::codec::Codec;
use crate::tags::{MAX_TAGS, Tag, TagToken};

/// What every frame begins with. UTF-8 never has this byte, `MessagePack` never uses it.
pub const MAGIC: u8 = 0xC1;
/// The version of the layout that this library writes.
pub const VERSION: u8 = 1;
/// Bytes of the header before tags and validator.
pub const FIXED_BYTES: usize = 48;
/// Where the time stands that the backend writes: eight bytes.
pub(crate) const STAMP_AT: usize = 8;
pub(crate) const STAMP_END: usize = 16;
/// Longest value in a frame, uncompressed: what the reader allocates at the most.
pub const MAX_VALUE_BYTES: usize = 64 * 1024 * 1024;
/// Longest validator.
pub const MAX_VALIDATOR_BYTES: usize = 1024;

const NONE: u8 = 1;
const TAGGED: u8 = 2;
const VALIDATED: u8 = 4;
const KNOWN_FLAGS: u8 = NONE | TAGGED | VALIDATED;

/// What a frame says of its value, apart from the time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Header {
    /// The value stands for "the source has none".
    pub is_none: bool,
    /// How the value is written.
    pub codec: Codec,
    /// The version of the value's type.
    pub schema: u32,
    /// How long the value is fresh, from when its load began. In whole milliseconds.
    pub ttl: Duration,
    /// How long past that it may be served, marked stale. In whole milliseconds.
    pub stale_window: Duration,
    /// How long its load took; zero for what was set. In whole microseconds, up to 71 minutes.
    pub load_time: Duration,
    /// Stands for the run of the server whose clock the time is by; 0 if that is not known. To another run the time says nothing: its
    /// clock may be another.
    pub clock: u64,
    /// What the source gave to ask later whether the value has changed.
    pub validator: Option<Vec<u8>>,
    /// The tags that it falls with, and their tokens when its load began.
    pub tags: Vec<(Tag, TagToken)>,
}

impl Header {
    /// A header with nothing but the essentials.
    pub fn new(codec: Codec, ttl: Duration) -> Self {
        Self {
            is_none: false,
            codec,
            schema: policy::FIRST_SCHEMA,
            ttl,
            stale_window: Duration::ZERO,
            load_time: Duration::ZERO,
            clock: 0,
            validator: None,
            tags: Vec::new(),
        }
    }

    /// How long the backend keeps the value: fresh and stale together.
    pub fn life(&self) -> Duration {
        self.ttl + self.stale_window
    }
}

/// Why bytes are no frame that can be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unreadable {
    /// They do not begin as a frame does: a plain value.
    NotFramed,
    /// They are a frame with something that this version of the library does not know.
    Newer(String),
    /// They are no sound frame.
    Broken(&'static str),
}

impl fmt::Display for Unreadable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotFramed => f.write_str("a plain value, no frame"),
            Self::Newer(what) => write!(f, "a frame of a newer kind: {what}"),
            Self::Broken(what) => write!(f, "a broken frame: {what}"),
        }
    }
}

/// A frame as it is stored, read but not copied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame<'a> {
    /// What it says of its value.
    pub header: Header,
    /// When the value's load began or it was set, in microseconds since 1970 by the clock of the backend that stored it.
    pub began: u64,
    /// How the value is packed.
    pub compression: Compression,
    /// Bytes of the value once it is unpacked.
    pub value_bytes: usize,
    packed: &'a [u8],
}

impl<'a> Frame<'a> {
    /// Reads a frame. The value is looked at by [`value`](Self::value) alone.
    pub fn read(bytes: &'a [u8]) -> Result<Self, Unreadable> {
        let mut rest = Bytes(bytes);
        if rest.0.first() != Some(&MAGIC) {
            return Err(Unreadable::NotFramed);
        }
        rest.u8()?;
        let version = rest.u8()?;
        if version != VERSION {
            return Err(Unreadable::Newer(format!("version {version} of the layout")));
        }
        let flags = rest.u8()?;
        if flags & !KNOWN_FLAGS != 0 {
            return Err(Unreadable::Newer(format!("flags {flags:#04x}")));
        }
        let coding = rest.u8()?;
        let codec = codec_of(coding & 0x0F)?;
        let compression = Compression::of(coding >> 4)?;
        let schema = rest.u32()?;
        let began = rest.u64()?;
        let ttl = Duration::from_millis(rest.u64()?);
        let stale_window = Duration::from_millis(rest.u64()?);
        let load_time = Duration::from_micros(u64::from(rest.u32()?));
        let value_bytes = rest.u32()? as usize;
        let clock = rest.u64()?;
        if value_bytes > MAX_VALUE_BYTES {
            return Err(Unreadable::Broken("its value is longer than a value may be"));
        }
        if ttl.checked_add(stale_window).is_none() {
            return Err(Unreadable::Broken("its times add up to more than there is"));
        }
        let tags = if flags & TAGGED == 0 { Vec::new() } else { rest.tags()? };
        let validator = if flags & VALIDATED == 0 { None } else { Some(rest.validator()?) };
        let packed = rest.0;
        if compression == Compression::None && packed.len() != value_bytes {
            return Err(Unreadable::Broken("its value has not the length that it names"));
        }
        let is_none = flags & NONE != 0;
        let header = Header { is_none, codec, schema, ttl, stale_window, load_time, clock, validator, tags };
        Ok(Self { header, began, compression, value_bytes, packed })
    }

    /// The value's bytes, unpacked.
    pub fn value(&self) -> Result<Cow<'a, [u8]>, Unreadable> {
        self.compression.unpack(self.packed, self.value_bytes)
    }

    /// How long ago the value's load began at this time of the same clock; zero if that was set back meanwhile.
    pub fn age(&self, now: u64) -> Duration {
        Duration::from_micros(now.saturating_sub(self.began))
    }
}

/// Writes a frame, with this time; the value is packed if that makes it smaller.
///
/// # Errors
/// What does not fit: a value above [`MAX_VALUE_BYTES`], too many tags, a validator above [`MAX_VALIDATOR_BYTES`].
pub fn write(header: &Header, began: u64, value: &[u8], compression: Compression) -> Result<Vec<u8>, String> {
    if value.len() > MAX_VALUE_BYTES {
        return Err(format!(
            "the value takes {} bytes; a framed one may take {MAX_VALUE_BYTES}",
            value.len()
        ));
    }
    if header.tags.len() > MAX_TAGS {
        return Err(format!("{} tags are too many; {MAX_TAGS} are allowed", header.tags.len()));
    }
    let validator_bytes = header.validator.as_ref().map_or(0, Vec::len);
    if validator_bytes > MAX_VALIDATOR_BYTES {
        return Err(format!(
            "the validator takes {validator_bytes} bytes; {MAX_VALIDATOR_BYTES} are allowed"
        ));
    }
    let (compression, packed) = compression.pack(value);
    let mut bytes = Vec::with_capacity(FIXED_BYTES + 64 + validator_bytes + packed.len());
    let mut flags = 0;
    for (flag, is_set) in
        [(NONE, header.is_none), (TAGGED, !header.tags.is_empty()), (VALIDATED, header.validator.is_some())]
    {
        flags |= if is_set { flag } else { 0 };
    }
    bytes.extend_from_slice(&[MAGIC, VERSION, flags, number_of(header.codec) | compression.number() << 4]);
    bytes.extend_from_slice(&header.schema.to_be_bytes());
    bytes.extend_from_slice(&began.to_be_bytes());
    bytes.extend_from_slice(&millis(header.ttl).to_be_bytes());
    bytes.extend_from_slice(&millis(header.stale_window).to_be_bytes());
    let load_time = u32::try_from(header.load_time.as_micros()).unwrap_or(u32::MAX);
    bytes.extend_from_slice(&load_time.to_be_bytes());
    bytes.extend_from_slice(&(value.len() as u32).to_be_bytes());
    bytes.extend_from_slice(&header.clock.to_be_bytes());
    if !header.tags.is_empty() {
        bytes.push(header.tags.len() as u8);
        for (tag, token) in &header.tags {
            bytes.push(tag.as_str().len() as u8);
            bytes.extend_from_slice(tag.as_str().as_bytes());
            bytes.extend_from_slice(&token.0);
        }
    }
    if let Some(validator) = &header.validator {
        bytes.extend_from_slice(&(validator.len() as u16).to_be_bytes());
        bytes.extend_from_slice(validator);
    }
    bytes.extend_from_slice(&packed);
    Ok(bytes)
}

/// Whether these bytes say that they are a frame.
pub(crate) fn is_framed(bytes: &[u8]) -> bool {
    bytes.first() == Some(&MAGIC)
}

/// Whether these bytes are a frame that stands for "the source has none".
pub(crate) fn says_none(bytes: &[u8]) -> bool {
    matches!(bytes, [MAGIC, VERSION, flags, ..] if flags & NONE != 0 && flags & !KNOWN_FLAGS == 0)
}

fn codec_of(number: u8) -> Result<Codec, Unreadable> {
    match number {
        0 => Ok(Codec::Json),
        1 => Ok(Codec::MessagePack),
        other => Err(Unreadable::Newer(format!("codec {other}"))),
    }
}

fn number_of(codec: Codec) -> u8 {
    match codec {
        Codec::Json => 0,
        Codec::MessagePack => 1,
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// What is left to read.
struct Bytes<'a>(&'a [u8]);

const TOO_SHORT: Unreadable = Unreadable::Broken("it ends in its header");

impl<'a> Bytes<'a> {
    fn take(&mut self, n: usize) -> Result<&'a [u8], Unreadable> {
        let (taken, rest) = self.0.split_at_checked(n).ok_or(TOO_SHORT)?;
        self.0 = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Unreadable> {
        let (taken, rest) = self.0.split_first_chunk().ok_or(TOO_SHORT)?;
        self.0 = rest;
        Ok(*taken)
    }

    fn u8(&mut self) -> Result<u8, Unreadable> {
        self.array::<1>().map(|[byte]| byte)
    }

    fn u32(&mut self) -> Result<u32, Unreadable> {
        self.array().map(u32::from_be_bytes)
    }

    fn u64(&mut self) -> Result<u64, Unreadable> {
        self.array().map(u64::from_be_bytes)
    }

    fn tags(&mut self) -> Result<Vec<(Tag, TagToken)>, Unreadable> {
        let count = usize::from(self.u8()?);
        if count == 0 || count > MAX_TAGS {
            return Err(Unreadable::Broken("it has too many tags or says that it has some and has none"));
        }
        let mut tags = Vec::with_capacity(count);
        for _ in 0..count {
            let length = usize::from(self.u8()?);
            let tag = std::str::from_utf8(self.take(length)?)
                .ok()
                .and_then(|text| Tag::new(text).ok())
                .ok_or(Unreadable::Broken("one of its tags is none"))?;
            tags.push((tag, TagToken(self.array()?)));
        }
        Ok(tags)
    }

    fn validator(&mut self) -> Result<Vec<u8>, Unreadable> {
        let length = usize::from(u16::from_be_bytes(self.array()?));
        if length > MAX_VALIDATOR_BYTES {
            return Err(Unreadable::Broken("its validator is too long"));
        }
        self.take(length).map(<[u8]>::to_vec)
    }
}

#[cfg(test)]
mod tests;
