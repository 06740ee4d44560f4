//! Who brings what waits to be invalidated to the backend, and counts what is given up of it.
//!
//! Invariant: no reader's leaving, nor its runtime's, keeps others waiting. Deliberately absent: what waits, and in which order it is brought
//! (`pending.rs`).

use std::sync::{Arc, Weak};

use tokio::runtime::{Builder, RuntimeFlavor};

use super::Cache;
use crate::backend::Backend;
use crate::error::{Error, ErrorKind, Result};
use crate::pending;
use crate::region::RegionState;
use crate::stats;

impl Cache {
    /// Has what waits brought to the backend. By a task of its own: it may take longer than any reader has time, and would begin anew for each.
    #[cold]
    pub(super) async fn replayed(&self) -> Result<()> {
        // The reader's runtime may run only while the reader waits, and would stop at its turn or before it, with all others behind it.
        let (cache, runtime) = (self.clone(), self.near().runtime());
        if runtime.runtime_flavor() == RuntimeFlavor::CurrentThread {
            // So may this one: a link that stands still with it fails, a task of it would be waited for as long as it stands.
            return self.brought_by_a_thread().await;
        }
        match runtime.spawn(async move { cache.bring_what_waits().await }).await {
            Ok(brought) => brought,
            Err(error) if error.is_panic() => Err(pending::panicked()),
            // The runtime in which the cache was opened has ended. An engine in this process is there all the same.
            Err(_) if matches!(self.0.backend, Backend::Embedded(_)) => self.brought_by_a_thread().await,
            Err(_) => self.bring_what_waits().await,
        }
    }

    /// By a thread that needs no runtime of others: an engine that syncs its writes has who brings something there wait.
    async fn brought_by_a_thread(&self) -> Result<()> {
        loop {
            let mut attempt = self.pending().attempt(|ended| {
                let cache = self.clone();
                let bring = move || {
                    let runtime = Builder::new_current_thread().enable_all().build();
                    let brought = match runtime {
                        Ok(runtime) => runtime.block_on(cache.bring_what_waits()),
                        Err(error) => Err(no_thread(&error)),
                    };
                    ended.send_replace(Some(brought));
                };
                let thread = std::thread::Builder::new().name("mtcache-replay".to_owned());
                thread.spawn(bring).map(drop).map_err(|error| no_thread(&error))
            })?;
            let brought = attempt.wait_for(Option::is_some).await.map(|ended| ended.clone());
            brought.ok().flatten().unwrap_or_else(|| Err(pending::panicked()))?;
            // It may have begun before the last of what waits.
            if !self.pending().is_waiting() {
                return Ok(());
            }
        }
    }

    async fn bring_what_waits(&self) -> Result<()> {
        self.pending().bring(&self.0.backend, &|name| self.count_lost(name)).await
    }

    /// Counts an invalidation that was given up, of a key or of what begins so, for the region that has it.
    fn count_lost(&self, name: &[u8]) {
        let open: Vec<_> = {
            let by_name = self.0.names.lock();
            by_name.values().flat_map(|named| &named.regions).filter_map(Weak::upgrade).collect()
        };
        let begins = |region: &&Arc<RegionState>| {
            region
                .key_prefix()
                .filter(|prefix| name.starts_with(prefix.as_bytes()))
                .map(|prefix| prefix.len())
        };
        let owner = open.iter().filter(|region| begins(region).is_some()).max_by_key(begins);
        stats::count(&owner.unwrap_or(&self.0.no_region).counters.invalidations_lost);
    }
}

fn no_thread(error: &std::io::Error) -> Error {
    let message = format!("what waits to be invalidated waits on: there is no thread to do it: {error}");
    Error::new(ErrorKind::Unavailable, message)
}
