//! Batches: several entries read at once, and one loader call for all that are missing.
//!
//! The steps are those of `read_through.rs`, each taken for all keys together: one round trip for the reads, one for the tokens, one
//! loader call, one round trip for the fills. Invariants: every key has its own flight, token and outcome, so that a set, an invalidation or
//! a failure of one touches no other; a batch takes one of the region's places for loads, however many keys it has. Deliberately
//! absent: the steps (`batch/steps.rs`, `batch/look.rs`), what is known at the soft timeout (`batch/known.rs`), what lapses meanwhile (`batch/lapse.rs`), what the one load does (`batch/load.rs`), and who
//! joins whom (`single_flight/many.rs`).

mod known;
mod lapse;
mod load;
mod loader;
mod look;
mod steps;

use std::future::Future;
use std::sync::Arc;
use std::time::Instant;

use serde::Serialize;
use serde::de::DeserializeOwned;

use self::lapse::Dated;
use self::loader::Loader;
use self::look::{Found, Seen, SeenAs, Shape};
use self::steps::{Asked, Batch};
use crate::control::RegionMode;
use crate::error::Result;
use crate::keys::KeyParts;
use crate::loader::{Loaded, Previous};
use crate::read::{Read, ReadOptions};
use crate::region::Region;

/// Default of [`RegionPolicy::max_batch`](crate::RegionPolicy::max_batch).
pub const MAX_BATCH: usize = 1000;

/// What came of one of the ids of a batch: the value, or that the source has none, or why neither is known.
pub type Outcomes<T> = Vec<Result<Option<Read<T>>>>;

impl<T: Serialize + DeserializeOwned + Send + 'static> Region<T> {
    /// Reads several entries, in the order asked for, and loads and stores those that are missing with one call of `loader`.
    ///
    /// The loader is given the ids that are neither in the cache nor being loaded by somebody else, in batches or one by one: those loads
    /// are waited for. It answers with pairs of id and value, in any order. An id that it leaves out is one that the source does not have:
    /// its place holds `None`, and where the policy has [`none_ttl`](crate::RegionPolicy::none_ttl) so do the next batches', without a
    /// load. A type with a place for "none", such as an `Option`, has that in the place of `None`. Answers that were not asked for are
    /// passed over.
    ///
    /// More than [`max_batch`](crate::RegionPolicy::max_batch) ids are loaded by several calls. A batch counts as one load towards
    /// [`max_loads`](crate::RegionPolicy::max_loads), and has [`load_timeout`](crate::RegionPolicy::load_timeout) for all of its ids. It is
    /// called again only for what was set or invalidated while others loaded it, if their loader panicked, where the region leases for
    /// what another process was to load and did not, and for what was there and is past its life by the time that all are handed out.
    ///
    /// What the policy has served stale, or loaded ahead of time, of reads of one entry it has of batches too: by one call more of `loader`, in
    /// the background, for all of a batch that is to be loaded so.
    ///
    /// While the region is in shadow mode, what is cached is loaded too, by a call of its own.
    ///
    /// What is stored carries the tags of this region's view, see [`tagged`](Self::tagged).
    ///
    /// Fails if any of the entries does; [`get_or_load_each`](Self::get_or_load_each) tells them apart.
    ///
    /// ```
    /// # tokio::runtime::Runtime::new().unwrap().block_on(async {
    /// use std::collections::HashMap;
    /// use std::time::Duration;
    /// use mtcache_cache::{Cache, Region, RegionPolicy};
    ///
    /// let cache = Cache::connect("embedded://").await?;
    /// let prices: Region<f64> = cache.region(RegionPolicy::new("price", Duration::from_secs(30)))?;
    /// let reads = prices
    ///     .get_or_load_many(["BTC", "ETH", "NONE"], |missing: Vec<&str>| async move {
    ///         assert_eq!(missing, ["BTC", "ETH", "NONE"]);
    ///         Ok::<_, std::io::Error>(HashMap::from([("ETH", 3_500.0), ("BTC", 67_000.5)]))
    ///     })
    ///     .await?;
    /// let values: Vec<_> = reads.into_iter().map(|read| read.map(|read| read.value)).collect();
    /// assert_eq!(values, [Some(67_000.5), Some(3_500.0), None]);
    /// # Ok::<_, mtcache_cache::Error>(()) }).unwrap();
    /// ```
    pub async fn get_or_load_many<K, F, Fut, L, A, E>(
        &self,
        ids: impl IntoIterator<Item = K>,
        loader: F,
    ) -> Result<Vec<Option<Read<T>>>>
    where
        K: KeyParts + Clone + Send + Sync + 'static,
        F: Fn(Vec<K>) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = std::result::Result<L, E>> + Send + 'static,
        L: IntoIterator<Item = (A, T)>,
        A: KeyParts,
        E: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        self.get_or_load_each(ids, ReadOptions::new(), loader).await?.into_iter().collect()
    }

    /// As [`get_or_load_many`](Self::get_or_load_many), with demands and an outcome for each entry. They are held against an entry when all are
    /// handed out. What was in the cache and is fresh still, or has been loaded by then, keeps its outcome when the load of the rest takes longer than
    /// the [`deadline`](ReadOptions::deadline). The call as a whole fails only for an id that can be no key.
    pub async fn get_or_load_each<K, F, Fut, L, A, E>(
        &self,
        ids: impl IntoIterator<Item = K>,
        options: ReadOptions,
        loader: F,
    ) -> Result<Outcomes<T>>
    where
        K: KeyParts + Clone + Send + Sync + 'static,
        F: Fn(Vec<K>) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = std::result::Result<L, E>> + Send + 'static,
        L: IntoIterator<Item = (A, T)>,
        A: KeyParts,
        E: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        self.each(ids, options, &Loader::plain(loader, &self.state.base)).await
    }

    /// As [`get_or_load_each`](Self::get_or_load_each), with a loader that is told what was known of each id before, and says how long what it
    /// brings lives, as [`get_or_reload`](Self::get_or_reload) has it. An id that it leaves out is one that the source does not have;
    /// "not modified" of one of which nothing was known is that id's error.
    ///
    /// ```
    /// # tokio::runtime::Runtime::new().unwrap().block_on(async {
    /// use std::time::Duration;
    /// use mtcache_cache::{Cache, Loaded, Previous, ReadOptions, Region, RegionPolicy};
    ///
    /// let cache = Cache::connect("embedded://").await?;
    /// let prices: Region<f64> = cache.region(RegionPolicy::new("price", Duration::from_secs(30)))?;
    /// let reads = prices
    ///     .get_or_reload_each(["BTC", "ETH"], ReadOptions::new(), |asked: Vec<(&str, Option<Previous<f64>>)>| async move {
    ///         let loaded = asked.into_iter().map(|(id, previous)| match previous {
    ///             Some(_) => (id, Loaded::not_modified()),
    ///             None => (id, Loaded::new(67_000.5).ttl(Duration::from_secs(7))),
    ///         });
    ///         Ok::<_, std::io::Error>(loaded.collect::<Vec<_>>())
    ///     })
    ///     .await?;
    /// assert!(reads.into_iter().all(|read| read.is_ok_and(|read| read.is_some())));
    /// # Ok::<_, mtcache_cache::Error>(()) }).unwrap();
    /// ```
    pub async fn get_or_reload_each<K, F, Fut, L, A, E>(
        &self,
        ids: impl IntoIterator<Item = K>,
        options: ReadOptions,
        loader: F,
    ) -> Result<Outcomes<T>>
    where
        K: KeyParts + Clone + Send + Sync + 'static,
        F: Fn(Vec<(K, Option<Previous<T>>)>) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = std::result::Result<L, E>> + Send + 'static,
        L: IntoIterator<Item = (A, Loaded<T>)>,
        A: KeyParts,
        E: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        self.each(ids, options, &Loader::knowing(loader, &self.state.base)).await
    }

    async fn each<K>(
        &self,
        ids: impl IntoIterator<Item = K>,
        options: ReadOptions,
        loader: &Loader<K, T>,
    ) -> Result<Outcomes<T>>
    where
        K: KeyParts + Clone + Send + Sync + 'static,
    {
        let asked = Asked::now(options, self.cache.observed_from());
        let batch = Batch::of(self, ids)?;
        let found = batch.keys.iter().map(|_| Found::Nothing).collect();
        let shape = Shape { near: false, of: |_, read, _| read };
        Ok(self.finished(batch, found, asked, loader, shape).await)
    }
}

impl<T: Serialize + DeserializeOwned + Send + Sync + 'static> Region<T> {
    /// As [`get_or_load_many`](Self::get_or_load_many), with values that are shared through the near cache as
    /// [`get_shared`](Self::get_shared) has it. What was loaded is near from the next read on.
    pub async fn get_or_load_many_shared<K, F, Fut, L, A, E>(
        &self,
        ids: impl IntoIterator<Item = K>,
        loader: F,
    ) -> Result<Vec<Option<Read<Arc<T>>>>>
    where
        K: KeyParts + Clone + Send + Sync + 'static,
        F: Fn(Vec<K>) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = std::result::Result<L, E>> + Send + 'static,
        L: IntoIterator<Item = (A, T)>,
        A: KeyParts,
        E: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        self.get_or_load_each_shared(ids, ReadOptions::new(), loader).await?.into_iter().collect()
    }

    /// As [`get_or_load_many_shared`](Self::get_or_load_many_shared), with demands and an outcome for each entry.
    pub async fn get_or_load_each_shared<K, F, Fut, L, A, E>(
        &self,
        ids: impl IntoIterator<Item = K>,
        options: ReadOptions,
        loader: F,
    ) -> Result<Outcomes<Arc<T>>>
    where
        K: KeyParts + Clone + Send + Sync + 'static,
        F: Fn(Vec<K>) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = std::result::Result<L, E>> + Send + 'static,
        L: IntoIterator<Item = (A, T)>,
        A: KeyParts,
        E: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        self.each_shared(ids, options, &Loader::plain(loader, &self.state.base)).await
    }

    /// As [`get_or_reload_each`](Self::get_or_reload_each), with values that are shared.
    pub async fn get_or_reload_each_shared<K, F, Fut, L, A, E>(
        &self,
        ids: impl IntoIterator<Item = K>,
        options: ReadOptions,
        loader: F,
    ) -> Result<Outcomes<Arc<T>>>
    where
        K: KeyParts + Clone + Send + Sync + 'static,
        F: Fn(Vec<(K, Option<Previous<T>>)>) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = std::result::Result<L, E>> + Send + 'static,
        L: IntoIterator<Item = (A, Loaded<T>)>,
        A: KeyParts,
        E: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        self.each_shared(ids, options, &Loader::knowing(loader, &self.state.base)).await
    }

    async fn each_shared<K>(
        &self,
        ids: impl IntoIterator<Item = K>,
        options: ReadOptions,
        loader: &Loader<K, T>,
    ) -> Result<Outcomes<Arc<T>>>
    where
        K: KeyParts + Clone + Send + Sync + 'static,
    {
        let asked = Asked::now(options, self.cache.observed_from());
        let batch = Batch::of(self, ids)?;
        let is_on = self.state.mode() == RegionMode::On;
        let near = |id| {
            let (read, life) = if is_on { self.near_look(id, options)? } else { return None };
            self.count_near_hit(id);
            self.tell_near_hit(id, asked.started);
            let dated = Dated::now(read.age, Instant::now().checked_add(life.rest()));
            let dated = dated.hit(read.counted(), life.is_none);
            Some(Found::Value(read, life.left(), dated))
        };
        let found = batch.ids.iter().map(|id| near(id).unwrap_or_default()).collect();
        let shape: Shape<T, Arc<T>> = Shape {
            near: self.state.policy.near && is_on,
            of: |region, read, seen| match seen {
                Some(Seen { ticket: Some(ticket), key, found: SeenAs::Plain(bytes, left), sent }) => {
                    region.kept_near(ticket, key, bytes, left, sent, read)
                }
                Some(Seen { ticket: Some(ticket), key, found: SeenAs::Framed(sight), sent }) => {
                    region.kept_near_frame(ticket, key, sight, sent, read)
                }
                _ => read.shared(),
            },
        };
        Ok(self.finished(batch, found, asked, loader, shape).await)
    }
}
