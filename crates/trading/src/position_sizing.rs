//! The risk manager's answers, by everything they depend on.
//!
//! Invariant: an answer is computed from exactly the inputs that its key is made of, rounding included. Absent: a way to
//! store an answer without its request.

use std::future::Future;

use mtcache_cache::{Read, Region};

use crate::{Error, PositionSizing, SizingRequest, SizingRounding};

/// Cached position sizes.
#[derive(Clone, Debug)]
pub struct PositionSizingCache {
    region: Region<PositionSizing>,
    rounding: SizingRounding,
}

impl PositionSizingCache {
    pub(crate) fn new(region: Region<PositionSizing>) -> Self {
        Self { region, rounding: SizingRounding::default() }
    }

    /// The same cache with inputs rounded before they become part of a key. Default: exact, with which a continuous price never hits.
    #[must_use]
    pub fn with_rounding(mut self, rounding: SizingRounding) -> Self {
        self.rounding = rounding;
        self
    }

    /// The answer to a request. The loader gets the rounded request, so that its answer belongs to the key.
    pub async fn get_or_load<F, Fut, E>(
        &self,
        request: &SizingRequest,
        loader: F,
    ) -> Result<Read<PositionSizing>, Error>
    where
        F: FnOnce(SizingRequest) -> Fut + Send + 'static,
        Fut: Future<Output = Result<PositionSizing, E>> + Send + 'static,
        E: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let request = request.rounded(&self.rounding);
        let id = id(&request)?;
        Ok(self.region.get_or_load(id, move || loader(request)).await?)
    }

    /// The cached answer to a request; `None` is a miss.
    pub async fn get(&self, request: &SizingRequest) -> Result<Option<Read<PositionSizing>>, Error> {
        let id = id(&request.rounded(&self.rounding))?;
        Ok(self.region.get(id).await?)
    }

    /// Removes the answer to a request; true if it was there.
    pub async fn invalidate(&self, request: &SizingRequest) -> Result<bool, Error> {
        let id = id(&request.rounded(&self.rounding))?;
        Ok(self.region.invalidate(id).await?)
    }

    /// The region, for its counters and policy.
    pub fn region(&self) -> &Region<PositionSizing> {
        &self.region
    }
}

fn id(rounded: &SizingRequest) -> Result<[String; 3], Error> {
    Ok([rounded.symbol.clone(), rounded.strategy_id.clone(), rounded.hash()?])
}
