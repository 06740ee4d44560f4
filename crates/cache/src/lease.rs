//! Leases: one load of a key among all processes, for regions that ask for it.
//!
//! A lease is a fill token taken exclusively; its TTL only bounds how long a holder that died or stands still is waited for. Invariants: it is
//! renewed and released only while the token there equals the holder's, so a zombie neither keeps its place nor takes another's;
//! whoever waits does so for a bounded time and then loads as where there are no leases. Deliberately absent: what keeps a late load from storing
//! (`fill_token.rs`), and who waits in this process (`single_flight.rs`).

use std::collections::HashSet;
use std::time::{Duration, Instant};

use futures_util::future::select_all;
use tokio::runtime::Handle;
use tokio::task::JoinHandle;

use crate::backend::CachedKey;
use crate::cache::Cache;
use crate::fill_token::{self, Token};
use crate::near::Wake;

/// A lease's TTL where a region names none: how long a holder that stands still is waited for.
pub const LEASE_TTL: Duration = Duration::from_secs(10);
/// Shortest lease: it has to outlast a few round trips.
pub(crate) const LEASE_TTL_MIN: Duration = Duration::from_millis(50);
/// A holder renews its lease so often in its TTL.
const RENEWALS: u32 = 3;
/// First pause before a lease that somebody else holds is looked at again; then doubled.
const POLL_MIN: Duration = Duration::from_millis(5);
/// Longest such pause.
const POLL_MAX: Duration = Duration::from_millis(200);

/// A lease that is held, of one key or, by a batch, of several. It is renewed until this is dropped, and then released unless the fill has
/// taken it.
pub(crate) struct Lease {
    cache: Cache,
    held: Vec<Token>,
    renewal: JoinHandle<()>,
}

impl Lease {
    /// `longest` is how long the load can take: nothing is renewed after it.
    pub(crate) fn hold(cache: &Cache, held: Vec<Token>, ttl: Duration, longest: Duration) -> Self {
        let renewal = tokio::spawn(keep(cache.clone(), held.clone(), ttl, longest));
        Self { cache: cache.clone(), held, renewal }
    }

    /// The tokens of these keys are gone: the fill has used them, or somebody else has deleted them.
    pub(crate) fn is_over_for(&mut self, keys: &HashSet<&CachedKey>) {
        self.held.retain(|held| !keys.contains(&held.key));
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.renewal.abort();
        if self.held.is_empty() {
            return;
        }
        // The loader failed, panicked, or brought what is not stored: the next need not wait until the lease ends by itself.
        let Ok(runtime) = Handle::try_current() else { return };
        let (cache, held) = (self.cache.clone(), std::mem::take(&mut self.held));
        runtime.spawn(async move {
            let released = match cache.backend().await {
                Ok(backend) => fill_token::release(backend, &held).await,
                Err(error) => Err(error),
            };
            if let Err(error) = released {
                tracing::debug!(%error, "a lease was not released; it ends by itself");
            }
        });
    }
}

/// Renews leases on a task of its own, so that a loader that computes does not keep it from it.
async fn keep(cache: Cache, mut held: Vec<Token>, ttl: Duration, longest: Duration) {
    let began = Instant::now();
    while !held.is_empty() && began.elapsed() < longest {
        tokio::time::sleep(ttl / RENEWALS).await;
        let mut renewed = match cache.backend().await {
            Ok(backend) => fill_token::renew(backend, &held, ttl).await,
            Err(error) => vec![Err(error)],
        }
        .into_iter();
        held.retain(|_| match renewed.next() {
            Some(Ok(is_there)) => is_there,
            Some(Err(error)) => {
                tracing::debug!(%error, "a lease was not renewed");
                true
            }
            None => true,
        });
    }
}

/// The patience of one who waits for somebody else's lease, or for any of several.
pub(crate) struct Patience {
    began: Instant,
    limit: Duration,
    pause: Duration,
    wakes: Vec<Wake>,
}

impl Patience {
    pub(crate) fn new(limit: Duration, wakes: impl IntoIterator<Item = Wake>) -> Self {
        Self { began: Instant::now(), limit, pause: POLL_MIN, wakes: wakes.into_iter().collect() }
    }

    pub(crate) fn is_exhausted(&self) -> bool {
        self.began.elapsed() >= self.limit
    }

    /// A pause at random below one that doubles, but not much longer than the lease can last; over at once when the key is heard to change.
    pub(crate) async fn pause(&mut self, left: Duration) {
        let pause = self.pause.mul_f64(0.5 + rand::random::<f64>() / 2.0);
        self.pause = (self.pause * 2).min(POLL_MAX);
        let pause = pause.min(left + Duration::from_millis(1));
        if self.wakes.is_empty() {
            tokio::time::sleep(pause).await;
        } else {
            let heard = select_all(self.wakes.iter().map(|wake| Box::pin(wake.heard())));
            let _ = tokio::time::timeout(pause, heard).await;
        }
    }
}
