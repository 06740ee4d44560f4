//! What is known of a batch's ids when its soft timeout is over, and what of that is so when it is handed out.
//!
//! Invariant: what this process has invalidated, or has heard of, meanwhile is not handed out. Deliberately absent: who is waited for (`steps.rs`).

use std::collections::HashMap;
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::lapse::Dated;
use super::look::FRAME_STEP;
use crate::fail_safe::Stale;
use crate::near::Ticket;
use crate::read::ReadOptions;
use crate::region::Region;

/// What is known of an id, and what had been heard when the backend was asked for it.
pub(super) struct Known<T> {
    pub(super) stale: Stale<T>,
    pub(super) dated: Dated,
    ticket: Option<Ticket>,
}

/// What that is by now.
pub(super) enum Now<T> {
    Same,
    /// What this process has of it itself.
    Here(Stale<T>),
    Nothing,
}

/// What is known of the ids at places.
pub(super) type KnownStale<T> = HashMap<usize, Known<T>>;

impl<T: Serialize + DeserializeOwned + Send + 'static> Region<T> {
    /// What becomes of what was known at the soft timeout: without asking the backend, for which no time may be left. A load that none can join
    /// any more is one whose key was set or invalidated here; what others have done is heard, where changes are told. A word about a neighbour may
    /// pass for one about the key; what this process has of that itself has heard of it alone.
    pub(super) fn known_now(
        &self,
        key: &str,
        known: &Known<T>,
        is_joinable: bool,
        options: ReadOptions,
    ) -> Now<T> {
        let Known { stale, dated, ticket } = known;
        let tags = stale.tags.as_deref().map_or(&[][..], |tags| &tags.keys);
        let is_same = self.framing().is_some()
            && is_joinable
            && dated.holds(options, Instant::now(), Duration::ZERO)
            && ticket.is_none_or(|ticket| self.cache.near().is_unheard_since(ticket, key, tags));
        if is_same {
            return Now::Same;
        }
        self.known_here(key, options).map_or(Now::Nothing, Now::Here)
    }

    pub(super) async fn known_stale_many(
        &self,
        open: Vec<(usize, &String)>,
        options: ReadOptions,
    ) -> KnownStale<T> {
        let mut known = HashMap::new();
        for step in open.chunks(FRAME_STEP) {
            let looks = step.iter().map(async |(place, key)| {
                let ticket = self.cache.near().listen(key);
                let stale = self.known_stale_until(key, options).await?;
                let dated = Dated::stale(&stale);
                Some((*place, Known { stale, dated, ticket }))
            });
            known.extend(join_all(looks).await.into_iter().flatten());
        }
        known
    }
}
