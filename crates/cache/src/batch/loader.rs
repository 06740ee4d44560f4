//! A batch's loader, whatever its caller's types of ids, futures and errors.
//!
//! Deliberately absent: what is done with its answers (`load.rs`).

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use crate::keys::{self, KeyParts};
use crate::loader::{Loaded, Previous};

pub(super) type Failure = Box<dyn std::error::Error + Send + Sync>;

/// What a loader brings, by its key.
pub(super) type Brings<T> = Vec<(String, Loaded<T>)>;
pub(super) type Loading<T> = Pin<Box<dyn Future<Output = std::result::Result<Brings<T>, Failure>> + Send>>;
/// An id, and what was known of it before.
pub(super) type Wish<K, T> = (K, Option<Previous<T>>);

/// Loads the values of ids.
pub(super) struct Loader<K, T> {
    load: Arc<dyn Fn(Vec<Wish<K, T>>) -> Loading<T> + Send + Sync>,
    /// Whether it wants to be told what was known before.
    pub(super) asks: bool,
}

impl<K, T: 'static> Loader<K, T> {
    /// One that brings values alone. `base` is what the region's keys begin with. What a loader answers under an id that can be no key, nobody
    /// has asked for.
    pub(super) fn plain<F, Fut, L, A, E>(loader: F, base: &str) -> Self
    where
        F: Fn(Vec<K>) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = std::result::Result<L, E>> + Send + 'static,
        L: IntoIterator<Item = (A, T)>,
        A: KeyParts,
        E: Into<Failure>,
    {
        let base: Arc<str> = base.into();
        let load = move |wishes: Vec<Wish<K, T>>| -> Loading<T> {
            let loading = loader(wishes.into_iter().map(|(id, _)| id).collect());
            let base = Arc::clone(&base);
            Box::pin(async move {
                let pairs = loading.await.map_err(Into::into)?;
                Ok(keyed(&base, pairs.into_iter().map(|(id, value)| (id, Loaded::new(value)))))
            })
        };
        Self { load: Arc::new(load), asks: false }
    }

    /// One that is told what was known, and says more.
    pub(super) fn knowing<F, Fut, L, A, E>(loader: F, base: &str) -> Self
    where
        F: Fn(Vec<Wish<K, T>>) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = std::result::Result<L, E>> + Send + 'static,
        L: IntoIterator<Item = (A, Loaded<T>)>,
        A: KeyParts,
        E: Into<Failure>,
    {
        let base: Arc<str> = base.into();
        let load = move |wishes: Vec<Wish<K, T>>| -> Loading<T> {
            let (loading, base) = (loader(wishes), Arc::clone(&base));
            Box::pin(async move { Ok(keyed(&base, loading.await.map_err(Into::into)?)) })
        };
        Self { load: Arc::new(load), asks: true }
    }

    pub(super) fn load(&self, wishes: Vec<Wish<K, T>>) -> Loading<T> {
        (self.load)(wishes)
    }
}

fn keyed<A: KeyParts, T>(base: &str, pairs: impl IntoIterator<Item = (A, Loaded<T>)>) -> Brings<T> {
    pairs.into_iter().filter_map(|(id, loaded)| Some((keys::join(base, &id).ok()?, loaded))).collect()
}

impl<K, T> Clone for Loader<K, T> {
    fn clone(&self) -> Self {
        Self { load: Arc::clone(&self.load), asks: self.asks }
    }
}
