//! Warming up: entries that will be asked for are read, or loaded, before anybody asks.
//!
//! Invariants: never more at once, nor more in a second, than said; a warm-up that is dropped starts nothing more, and the loads that it
//! has begun go on and are kept, as any. Deliberately absent: which keys are hot.

use std::fmt;
use std::fs::File;
use std::future::Future;
use std::io::{self, BufRead, BufReader};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::time::Instant;

use crate::error::Result;
use crate::keys::KeyParts;
use crate::read::{Read, Source};
use crate::region::Region;

/// Reads under way at once, unless said otherwise.
pub const WARM_UP_AT_ONCE: usize = 16;
/// Reads begun in a second, unless said otherwise.
pub const WARM_UP_PER_SECOND: u32 = 1000;
/// Most lines of a file of hot keys that are read.
const MAX_HOT_KEYS: usize = 1_000_000;

/// How a region is warmed up.
///
/// ```no_run
/// # async fn example(region: mtcache_cache::Region<String>) -> std::io::Result<()> {
/// use mtcache_cache::{WarmUp, hot_keys};
///
/// let options = WarmUp::new().per_second(200).on_progress(|so_far| println!("{so_far}"));
/// let report = region.warm_up(hot_keys("hot-symbols.txt")?, &options).await;
/// println!("{} of {} were there", report.found, report.asked);
/// # Ok(()) }
/// ```
#[derive(Clone)]
pub struct WarmUp {
    at_once: usize,
    per_second: u32,
    progress: Option<Arc<dyn Fn(&WarmUpReport) + Send + Sync>>,
}

impl Default for WarmUp {
    fn default() -> Self {
        Self { at_once: WARM_UP_AT_ONCE, per_second: WARM_UP_PER_SECOND, progress: None }
    }
}

impl fmt::Debug for WarmUp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WarmUp")
            .field("at_once", &self.at_once)
            .field("per_second", &self.per_second)
            .finish_non_exhaustive()
    }
}

impl WarmUp {
    /// 16 at once, 1,000 a second.
    pub fn new() -> Self {
        Self::default()
    }

    /// How many reads are under way at once, at least 1. Default: 16.
    #[must_use]
    pub fn at_once(mut self, reads: usize) -> Self {
        self.at_once = reads.max(1);
        self
    }

    /// How many reads begin in a second, at least 1. Default: 1,000.
    #[must_use]
    pub fn per_second(mut self, reads: u32) -> Self {
        self.per_second = reads.max(1);
        self
    }

    /// Is called after each read, on the task that warms up: it must be quick.
    #[must_use]
    pub fn on_progress(mut self, tell: impl Fn(&WarmUpReport) + Send + Sync + 'static) -> Self {
        self.progress = Some(Arc::new(tell));
        self
    }
}

/// What a warm-up has done, so far or in the end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct WarmUpReport {
    /// Entries that were asked for.
    pub asked: u64,
    /// Of these, those that the cache had; they are near now, where the region has that on.
    pub found: u64,
    /// Those that were loaded.
    pub loaded: u64,
    /// Those that are not there, without a loader to ask.
    pub missing: u64,
    /// Those whose read failed.
    pub failed: u64,
}

impl fmt::Display for WarmUpReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { asked, found, loaded, missing, failed } = self;
        write!(f, "{asked} asked, {found} found, {loaded} loaded, {missing} missing, {failed} failed")
    }
}

impl WarmUpReport {
    fn count<V>(&mut self, read: &Result<Option<Read<V>>>) {
        self.asked += 1;
        *match read {
            Ok(Some(read)) if read.source == Source::Loader => &mut self.loaded,
            Ok(Some(_)) => &mut self.found,
            Ok(None) => &mut self.missing,
            Err(_) => &mut self.failed,
        } += 1;
    }
}

impl<T: DeserializeOwned + Send + Sync + 'static> Region<T> {
    /// Brings near what the backend has of these entries; loads nothing. Errors are counted.
    pub async fn warm_up<K: KeyParts>(
        &self,
        ids: impl IntoIterator<Item = K>,
        options: &WarmUp,
    ) -> WarmUpReport {
        let read = |id: K| {
            let region = self.clone();
            async move { region.get_shared(id).await }
        };
        warm_up(ids, options, read).await
    }
}

impl<T: Serialize + DeserializeOwned + Send + Sync + 'static> Region<T> {
    /// Reads these entries, and loads those that are not there. Errors are counted. `loader` is asked for a key once the cache has
    /// not got it, and shares its load with everybody else who asks.
    pub async fn warm_up_or_load<K, L, F, E>(
        &self,
        ids: impl IntoIterator<Item = K>,
        options: &WarmUp,
        loader: L,
    ) -> WarmUpReport
    where
        K: KeyParts + Clone + Send + 'static,
        L: Fn(K) -> F + Clone + Send + 'static,
        F: Future<Output = std::result::Result<T, E>> + Send + 'static,
        E: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let read = |id: K| {
            let (region, loader, asked) = (self.clone(), loader.clone(), id.clone());
            async move { region.get_or_load_shared(id, move || loader(asked)).await.map(Some) }
        };
        warm_up(ids, options, read).await
    }
}

async fn warm_up<K, V, F>(
    ids: impl IntoIterator<Item = K>,
    options: &WarmUp,
    read: impl Fn(K) -> F,
) -> WarmUpReport
where
    F: Future<Output = Result<Option<Read<V>>>>,
{
    let pause = Duration::from_secs(1) / options.per_second;
    let mut next = Instant::now();
    let paced = stream::iter(ids).then(|id| {
        // What was missed is not made up for in a burst.
        let turn = next.max(Instant::now());
        next = turn + pause;
        async move {
            tokio::time::sleep_until(turn).await;
            id
        }
    });
    let mut reads = std::pin::pin!(paced.map(read).buffer_unordered(options.at_once));
    let mut report = WarmUpReport::default();
    while let Some(read) = reads.next().await {
        report.count(&read);
        if let Some(progress) = &options.progress {
            progress(&report);
        }
    }
    report
}

/// The entries that a file names: one a line, as what follows the region's name in the key (`BTC`, or `BTC:1h` for one of two parts).
/// Empty lines and those that begin with `#` are passed over. A file of more than a million lines is an error.
pub fn hot_keys(path: impl AsRef<Path>) -> io::Result<Vec<Vec<String>>> {
    let mut ids = Vec::new();
    for line in BufReader::new(File::open(path)?).lines() {
        let line = line?;
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        if ids.len() == MAX_HOT_KEYS {
            let message = format!("more than {MAX_HOT_KEYS} hot keys; warm up what is asked for most");
            return Err(io::Error::new(io::ErrorKind::InvalidData, message));
        }
        ids.push(line.split(':').map(unescaped).collect());
    }
    Ok(ids)
}

fn unescaped(part: &str) -> String {
    part.replace("%3A", ":").replace("%25", "%")
}
