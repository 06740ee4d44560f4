//! A batch's loader, whatever its caller's types of ids, futures and errors.
//!
//! Deliberately absent: what is done with its answers (`load.rs`).

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use crate::keys::{self, KeyParts};

pub(super) type Failure = Box<dyn std::error::Error + Send + Sync>;

/// What a loader brings: values by their keys.
pub(super) type Loading<T> =
    Pin<Box<dyn Future<Output = std::result::Result<Vec<(String, T)>, Failure>> + Send>>;

/// Loads the values of ids.
pub(super) struct Loader<K, T>(Arc<dyn Fn(Vec<K>) -> Loading<T> + Send + Sync>);

impl<K, T> Loader<K, T> {
    /// `base` is what the region's keys begin with. What a loader answers under an id that can be no key, nobody has asked for.
    pub(super) fn new<F, Fut, L, A, E>(loader: F, base: &str) -> Self
    where
        F: Fn(Vec<K>) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = std::result::Result<L, E>> + Send + 'static,
        L: IntoIterator<Item = (A, T)>,
        A: KeyParts,
        E: Into<Failure>,
    {
        let base: Arc<str> = base.into();
        Self(Arc::new(move |ids| {
            let (loading, base) = (loader(ids), Arc::clone(&base));
            Box::pin(async move {
                let pairs = loading.await.map_err(Into::into)?;
                let keyed = |(id, value)| Some((keys::join(&base, &id).ok()?, value));
                Ok(pairs.into_iter().filter_map(keyed).collect())
            })
        }))
    }

    pub(super) fn load(&self, ids: Vec<K>) -> Loading<T> {
        (self.0)(ids)
    }
}

impl<K, T> Clone for Loader<K, T> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}
