//! Leases: one load of a key among all processes, for regions that ask for it.
//!
//! A lease is a fill token taken exclusively; its TTL only bounds how long a holder that died or stands still is waited for. Invariants: it is
//! renewed and released only while the token there equals the holder's, so a zombie neither keeps its place nor takes another's;
//! whoever waits does so for a bounded time and then loads as where there are no leases. Deliberately absent: what keeps a late load from storing
//! (`fill_token.rs`), and who waits in this process (`single_flight.rs`).

use std::time::{Duration, Instant};

use tokio::runtime::Handle;
use tokio::task::JoinHandle;

use crate::backend::{Bytes, CachedKey};
use crate::cache::Cache;
use crate::fill_token;
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

/// A lease that is held. It is renewed until this is dropped, and then released unless the fill has taken it.
pub(crate) struct Lease {
    cache: Cache,
    key: CachedKey,
    token: Bytes,
    renewal: JoinHandle<()>,
    is_over: bool,
}

impl Lease {
    /// `longest` is how long the load can take: nothing is renewed after it.
    pub(crate) fn hold(
        cache: &Cache,
        key: &CachedKey,
        token: &[u8],
        ttl: Duration,
        longest: Duration,
    ) -> Self {
        let renewal = tokio::spawn(keep(cache.clone(), key.clone(), token.to_vec(), ttl, longest));
        Self { cache: cache.clone(), key: key.clone(), token: token.to_vec(), renewal, is_over: false }
    }

    /// The token is gone: the fill has used it, or somebody else has deleted it.
    pub(crate) fn is_over(&mut self) {
        self.is_over = true;
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.renewal.abort();
        if self.is_over {
            return;
        }
        // The loader failed, panicked, or brought what is not stored: the next need not wait until the lease ends by itself.
        let Ok(runtime) = Handle::try_current() else { return };
        let (cache, key, token) = (self.cache.clone(), self.key.clone(), std::mem::take(&mut self.token));
        runtime.spawn(async move {
            let released = match cache.backend().await {
                Ok(backend) => fill_token::release(backend, &key, &token).await,
                Err(error) => Err(error),
            };
            if let Err(error) = released {
                tracing::debug!(%error, "a lease was not released; it ends by itself");
            }
        });
    }
}

/// Renews a lease on a task of its own, so that a loader that computes does not keep it from it.
async fn keep(cache: Cache, key: CachedKey, token: Bytes, ttl: Duration, longest: Duration) {
    let began = Instant::now();
    while began.elapsed() < longest {
        tokio::time::sleep(ttl / RENEWALS).await;
        let renewed = match cache.backend().await {
            Ok(backend) => fill_token::renew(backend, &key, &token, ttl).await,
            Err(error) => Err(error),
        };
        match renewed {
            Ok(true) => {}
            Ok(false) => return,
            Err(error) => tracing::debug!(%error, "a lease was not renewed"),
        }
    }
}

/// The patience of one who waits for somebody else's lease.
pub(crate) struct Patience {
    began: Instant,
    limit: Duration,
    pause: Duration,
    wake: Option<Wake>,
}

impl Patience {
    pub(crate) fn new(limit: Duration, wake: Option<Wake>) -> Self {
        Self { began: Instant::now(), limit, pause: POLL_MIN, wake }
    }

    pub(crate) fn is_exhausted(&self) -> bool {
        self.began.elapsed() >= self.limit
    }

    /// A pause at random below one that doubles, but not much longer than the lease can last; over at once when the key is heard to change.
    pub(crate) async fn pause(&mut self, left: Duration) {
        let pause = self.pause.mul_f64(0.5 + rand::random::<f64>() / 2.0);
        self.pause = (self.pause * 2).min(POLL_MAX);
        let pause = pause.min(left + Duration::from_millis(1));
        match &self.wake {
            Some(wake) => {
                let _ = tokio::time::timeout(pause, wake.heard()).await;
            }
            None => tokio::time::sleep(pause).await,
        }
    }
}
