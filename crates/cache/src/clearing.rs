//! Invalidation of many entries by what their names begin with, and of whole regions.
//!
//! Keys are walked by SCAN, never KEYS, and removed in bounded steps, so that nobody else waits for long. Invariants: no key is taken
//! whose name only looks alike (`users` leaves `usersAbc` alone); a walk that fails or is dropped half way waits to be made again before the
//! next read. Deliberately absent: tags, which need no walk (`tags.rs`).
//!
//! Each clearing is told to every process, its own too, and makes each look at all that it has near, once. Clearings are not joined for
//! that: two of one region are two moments, and to know that nothing came near between them would cost every value that comes near something.
//! A flood of them bounds itself, because whoever clears walks over all keys of the server first, in trips of a thousand; many that one walk
//! makes are told as one; a process that does not keep up with what it hears is late with its heartbeat, and then serves nothing from near. Who
//! clears often has tags for it.

use std::borrow::Cow;
use std::collections::BTreeMap;

use crate::backend::{Backend, CachedKey};
use crate::cache::Cache;
use crate::error::{Error, ErrorKind, Result};
use crate::events::Event;
use crate::fill_token;
use crate::keys::KeyParts;
use crate::region::{Region, RegionState};
use crate::stats;
use crate::told::Told;
use crate::writing::Clearing;

/// Keys that one step removes.
const STEP: usize = 1000;
/// How often a walk is begun whose servers are started anew meanwhile, before it fails and waits to be made later.
const MAX_WALKS: usize = 10;
/// Clearings of one walk that are told one by one; more are told as one of all that they have in common.
const MAX_TOLD: usize = 16;

/// How far a walk has come. Keys are not walked in order, and how many there are is not known before.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Progress {
    /// Steps of the walk, each over some thousand keys of the database.
    pub steps: u64,
    /// Entries removed.
    pub invalidated: u64,
}

impl<T> Region<T> {
    /// Removes every entry of the region; walks the whole database, so it is for rare use. A framed region that gives its values a
    /// tag of its own ([`Framing::tags`](crate::Framing::tags)) is emptied by that in one step.
    pub async fn invalidate_all(&self) -> Result<u64> {
        self.invalidate_all_with(|_| {}).await
    }

    /// As [`invalidate_all`](Self::invalidate_all); tells how far it has come after each step. Can be dropped at any time: what is left waits
    /// to be removed before the next read.
    pub async fn invalidate_all_with(&self, progress: impl FnMut(Progress)) -> Result<u64> {
        let Some(prefix) = self.state.key_prefix() else { return Ok(0) };
        self.cache.clear(&self.state, &prefix, progress).await
    }

    /// Removes an entry and every entry below it, of which its name's parts are the first: `["BTC"]` takes `["BTC"]` and `["BTC", "1h"]`, not
    /// `["BTCUSDT"]`. Walks the whole database. Says how many there were.
    pub async fn invalidate_under(&self, id: impl KeyParts) -> Result<u64> {
        self.invalidate_under_with(id, |_| {}).await
    }

    /// As [`invalidate_under`](Self::invalidate_under); tells how far it has come after each step.
    pub async fn invalidate_under_with(
        &self,
        id: impl KeyParts,
        progress: impl FnMut(Progress),
    ) -> Result<u64> {
        let key = self.key(id)?;
        let below = format!("{key}:");
        // Both are under way from here on: should the first fail, the second waits too.
        let clearing = self.cache.clear(&self.state, &below, progress);
        let keys = [key];
        let itself = self.cache.delete_full(&keys, &self.state);
        let (itself, cleared) = tokio::join!(itself, clearing);
        Ok(itself? + cleared?)
    }
}

impl Cache {
    async fn clear(
        &self,
        region: &RegionState,
        prefix: &str,
        mut progress: impl FnMut(Progress),
    ) -> Result<u64> {
        let mut clearing = Clearing::new(self.ledger(), region, prefix);
        let result = match self.backend().await {
            Err(error) => Err(error),
            Ok(backend) => invalidate_prefixes(backend, &[prefix.as_bytes().to_vec()], &mut progress).await,
        };
        let cleared = result.and_then(|Cleared { entries, untold }| {
            clearing.done();
            stats::add(&region.counters.invalidations, entries);
            let name = Cow::Borrowed(region.policy.name.as_str());
            self.event(|| Event::RegionInvalidated { region: name, keys: entries });
            untold.map_or(Ok(entries), |error| Err(Error::untold(prefix, &error)))
        });
        cleared.inspect_err(|_| stats::count(&region.counters.backend_errors))
    }
}

/// What was cleared.
pub(crate) struct Cleared {
    pub(crate) entries: u64,
    /// Why other processes may not be told of it, should that be forbidden. They hear of what was there by its own key.
    pub(crate) untold: Option<Error>,
}

/// Invalidates every key with one of these prefixes, and every load of one that is under way, in one walk. They are in order, and none begins
/// with another.
pub(crate) async fn invalidate_prefixes(
    backend: &Backend,
    prefixes: &[Vec<u8>],
    progress: &mut impl FnMut(Progress),
) -> Result<Cleared> {
    let all = in_common(prefixes);
    // The tokens first: a load that stores while the keys are walked over stores behind the walk.
    let mut loads = Progress::default();
    walk(
        backend,
        fill_token::token_prefix(),
        &mut loads,
        &mut |loads: Progress| progress(Progress { invalidated: 0, ..loads }),
        |token| {
            let is_meant = fill_token::key_of_token(&token).is_some_and(|key| is_among(prefixes, key));
            is_meant.then(|| CachedKey { key: token.clone(), token, gone: None })
        },
    )
    .await?;
    let mut entries = Progress { steps: loads.steps, invalidated: 0 };
    walk(backend, all, &mut entries, progress, |key| is_among(prefixes, &key).then(|| CachedKey::of(key)))
        .await?;
    // What is absent may be known elsewhere.
    let told: Vec<&[u8]> =
        if prefixes.len() > MAX_TOLD { vec![all] } else { prefixes.iter().map(Vec::as_slice).collect() };
    let mut untold = None;
    for prefix in told {
        match backend.tell(&Told::Cleared(prefix).key()).await {
            Err(error) if error.is_forbidden() => untold = Some(error),
            told => told?,
        }
    }
    Ok(Cleared { entries: entries.invalidated, untold })
}

/// Whether a name begins with one of these. None of them begins with another: it is the last that is not behind the name.
fn is_among(prefixes: &[Vec<u8>], name: &[u8]) -> bool {
    let behind = prefixes.partition_point(|prefix| prefix.as_slice() <= name);
    let last = behind.checked_sub(1).and_then(|last| prefixes.get(last));
    last.is_some_and(|prefix| name.starts_with(prefix))
}

/// What all of these begin with, which are in order.
fn in_common(prefixes: &[Vec<u8>]) -> &[u8] {
    let (Some(first), Some(last)) = (prefixes.first(), prefixes.last()) else { return &[] };
    let equal = first.iter().zip(last).take_while(|(a, b)| a == b).count();
    first.get(..equal).unwrap_or_default()
}

/// Removes the keys with this prefix that `taken` takes.
async fn walk(
    backend: &Backend,
    prefix: &[u8],
    sofar: &mut Progress,
    progress: &mut impl FnMut(Progress),
    taken: impl Fn(Vec<u8>) -> Option<CachedKey>,
) -> Result<()> {
    for _ in 0..MAX_WALKS {
        if walked(backend, prefix, sofar, progress, &taken).await? {
            return Ok(());
        }
    }
    let message = format!(
        "a walk over all keys was begun {MAX_WALKS} times, and each time a server was started anew meanwhile"
    );
    Err(Error::new(ErrorKind::Unavailable, message))
}

/// Walks from the start to the end. False if a server's cursor came to nothing on the way: it is a place in a table whose order another
/// run of the server does not have.
async fn walked(
    backend: &Backend,
    prefix: &[u8],
    sofar: &mut Progress,
    progress: &mut impl FnMut(Progress),
    taken: &impl Fn(Vec<u8>) -> Option<CachedKey>,
) -> Result<bool> {
    let (mut cursor, mut epochs) = (0, BTreeMap::new());
    note_epochs(backend, &mut epochs);
    loop {
        let (next, keys) = backend.scan(cursor, prefix).await?;
        // Between two steps nothing is noted: a change that came with one of them would be taken for how it has always been.
        if !note_epochs(backend, &mut epochs) {
            tracing::info!("a server was started anew during a walk over its keys, which begins again");
            return Ok(false);
        }
        let keys: Vec<_> = keys.into_iter().filter_map(taken).collect();
        for step in keys.chunks(STEP) {
            sofar.invalidated += backend.delete(step).await?;
        }
        sofar.steps += 1;
        progress(*sofar);
        if next == 0 {
            return Ok(true);
        }
        cursor = next;
    }
}

/// Notes which servers answer now; false if one of them is not what it was when it was last noted. One that is not connected says nothing of
/// what it was. A cluster's new servers are its walk's own matter.
pub(crate) fn note_epochs(backend: &Backend, epochs: &mut BTreeMap<u16, u64>) -> bool {
    let connected = backend.cursor_epochs().into_iter().filter(|(_, epoch)| *epoch != 0);
    connected.fold(true, |same, (server, epoch)| {
        let before = epochs.insert(server, epoch);
        same && before.is_none_or(|before| before == epoch)
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn one_walk_takes_what_many_would(
            prefixes in prop::collection::btree_set("[ab:]{0,3}", 1..8), name in "[ab:]{0,6}"
        ) {
            let begins_with_another = |one: &String| {
                prefixes.iter().any(|other| other != one && one.starts_with(other.as_str()))
            };
            let alone: BTreeSet<&String> = prefixes.iter().filter(|one| !begins_with_another(one)).collect();
            let in_order: Vec<Vec<u8>> = alone.iter().map(|prefix| prefix.as_bytes().to_vec()).collect();
            let is_meant = prefixes.iter().any(|prefix| name.starts_with(prefix.as_str()));
            prop_assert_eq!(is_among(&in_order, name.as_bytes()), is_meant);
            let all = in_common(&in_order);
            prop_assert!(in_order.iter().all(|prefix| prefix.starts_with(all)));
            let longer = |prefix: &Vec<u8>| prefix.get(all.len()).copied();
            let next = longer(&in_order[0]);
            prop_assert!(next.is_none() || in_order.iter().any(|prefix| longer(prefix) != next) || in_order.len() == 1);
        }
    }
}
