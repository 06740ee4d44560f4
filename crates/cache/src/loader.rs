//! What a load runs: a function that brings a value, or one that says more of it and is told what was known before.
//!
//! Those of batches have the second half of it (`batch/loader.rs`). Invariant: what a loader says can make a value live shorter than its region's, never longer; "not modified" is taken only of what was
//! given to the loader. Deliberately absent: timeouts and storing (`load.rs`).

use std::future::Future;
use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::backend::Bytes;
use crate::frame::Frame;
use crate::region::Region;

type Source = Box<dyn std::error::Error + Send + Sync>;

/// What a loader of [`Region::get_or_reload`] brings.
///
/// ```
/// use std::time::Duration;
/// use mtcache_cache::Loaded;
///
/// // Until the exchange's own figure ends.
/// let open = Loaded::new(67_000.5).ttl(Duration::from_secs(7)).validator("\"v7\"");
/// // The source says that nothing has changed.
/// let same: Loaded<f64> = Loaded::not_modified();
/// # let _ = (open, same);
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct Loaded<T> {
    value: Option<T>,
    life: Life,
    validator: Option<Vec<u8>>,
}

/// How long a value is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Life {
    OfRegion,
    Own(Duration),
    NotKept,
}

impl<T> Loaded<T> {
    /// A value.
    pub fn new(value: T) -> Self {
        Self { value: Some(value), life: Life::OfRegion, validator: None }
    }

    /// The value that the loader was given is still the source's: it is stored again, as if it had been loaded now. An error if the
    /// loader was given none.
    pub fn not_modified() -> Self {
        Self { value: None, life: Life::OfRegion, validator: None }
    }

    /// How long the value is fresh, counted from the beginning of the load. The region's TTL is the most; less than a millisecond is not kept.
    /// Jitter does not change it. Default: as the region says.
    #[must_use]
    pub fn ttl(mut self, ttl: Duration) -> Self {
        self.life = if ttl < crate::ttl::SHORTEST { Life::NotKept } else { Life::Own(ttl) };
        self
    }

    /// The value is for those who wait for this load, and is not kept. What was stored before stays until its end.
    #[must_use]
    pub fn not_kept(mut self) -> Self {
        self.life = Life::NotKept;
        self
    }

    /// What the source gave to ask later whether the value has changed: an entity tag, a version, a time. At most 1,024 bytes. For framed
    /// regions, which keep it beside the value; in a plain region it is an error. Default: none, or as before where nothing is modified.
    #[must_use]
    pub fn validator(mut self, validator: impl Into<Vec<u8>>) -> Self {
        self.validator = Some(validator.into());
        self
    }
}

impl<T: Serialize + DeserializeOwned> Loaded<T> {
    /// As it is to be stored; `previous` is what the loader was told of, in its stored form. The outer error is the source's.
    pub(crate) fn brought(
        self,
        region: &Region<T>,
        previous: Option<&[u8]>,
    ) -> Result<crate::Result<Brought>, Source> {
        let (value, validator) = match self.value {
            Some(value) => (value, self.validator),
            None => match previous.and_then(|bytes| Previous::known(region, bytes)) {
                Some(previous) => (previous.value, self.validator.or(previous.validator)),
                None => return Err("the loader said \"not modified\", and nothing was known before".into()),
            },
        };
        let bytes = region.encode_with(&value, validator);
        Ok(bytes.map(|bytes| Brought { bytes, life: self.life }))
    }
}

/// What is known of an entry that is to be loaded: within its TTL, if it is loaded ahead of time, or its stale window. Never what was invalidated.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Previous<T> {
    /// The value.
    pub value: T,
    /// What the source gave with it; none in plain regions.
    pub validator: Option<Vec<u8>>,
}

impl<T: DeserializeOwned> Previous<T> {
    /// What these bytes tell of an entry.
    pub(crate) fn known(region: &Region<T>, bytes: &[u8]) -> Option<Self> {
        let value = region.decode(bytes).ok()?;
        let validator = Frame::read(bytes).ok().and_then(|frame| frame.header.validator);
        Some(Self { value, validator })
    }
}

/// What a loader has brought, as it is to be stored.
#[derive(Clone)]
pub(crate) struct Brought {
    pub(crate) bytes: Bytes,
    pub(crate) life: Life,
}

/// What a load runs.
pub(crate) trait Loader<T>: Send + Sized + 'static {
    /// Whether it wants to be told what was known before.
    const ASKS: bool;

    /// Brings a value; the outer error is the source's. `previous` is a stored form.
    fn bring(
        self,
        region: Region<T>,
        previous: Option<Bytes>,
    ) -> impl Future<Output = Result<crate::Result<Brought>, Source>> + Send;
}

/// A function that brings a value.
pub(crate) struct Plainly<F>(pub(crate) F);

impl<T, F, Fut, E> Loader<T> for Plainly<F>
where
    T: Serialize + Send + 'static,
    F: FnOnce() -> Fut + Send + 'static,
    Fut: Future<Output = Result<T, E>> + Send + 'static,
    E: Into<Source>,
{
    const ASKS: bool = false;

    async fn bring(self, region: Region<T>, _: Option<Bytes>) -> Result<crate::Result<Brought>, Source> {
        let loading = (self.0)();
        let value = loading.await.map_err(Into::into)?;
        Ok(region.encode(&value).map(|bytes| Brought { bytes, life: Life::OfRegion }))
    }
}

/// A function that is told what was known, and says how long what it brings lives.
pub(crate) struct Knowing<F>(pub(crate) F);

impl<T, F, Fut, E> Loader<T> for Knowing<F>
where
    T: Serialize + DeserializeOwned + Send + 'static,
    F: FnOnce(Option<Previous<T>>) -> Fut + Send + 'static,
    Fut: Future<Output = Result<Loaded<T>, E>> + Send + 'static,
    E: Into<Source>,
{
    const ASKS: bool = true;

    async fn bring(
        self,
        region: Region<T>,
        previous: Option<Bytes>,
    ) -> Result<crate::Result<Brought>, Source> {
        let known = previous.as_deref();
        let loading = (self.0)(known.and_then(|bytes| Previous::known(&region, bytes)));
        loading.await.map_err(Into::into)?.brought(&region, known)
    }
}
