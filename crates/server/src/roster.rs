//! The connections of one worker, for what is done to all of them from time to time: soft limits and idle clients.
//!
//! Each worker has one and no other thread sees it. A connection is in it exactly as long as its task runs.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;

use mtcache_engine::{Client, UnixMillis};

use crate::outbox::Outbox;

/// A connection that has sent nothing for longer makes no work, so that moving it would ease nothing. Default: 1 s.
const RECENT_MILLIS: u64 = 1000;

/// See the module.
#[derive(Clone, Default)]
pub(crate) struct Roster(Rc<RefCell<HashMap<u64, Entry>>>);

struct Entry {
    client: Arc<Client>,
    outbox: Arc<Outbox>,
    is_movable: bool,
}

/// A connection's place in the roster; leaves it when dropped.
pub(crate) struct Present {
    roster: Roster,
    id: u64,
}

impl Drop for Present {
    fn drop(&mut self) {
        self.roster.0.borrow_mut().remove(&self.id);
    }
}

impl Roster {
    /// Takes a connection in.
    pub(crate) fn enter(&self, client: &Arc<Client>, outbox: &Arc<Outbox>, is_movable: bool) -> Present {
        let entry = Entry { client: Arc::clone(client), outbox: Arc::clone(outbox), is_movable };
        self.0.borrow_mut().insert(client.id, entry);
        Present { roster: self.clone(), id: client.id }
    }

    /// The connections that can go to another worker and have sent something in the last second before `now`.
    pub(crate) fn movable(&self, now: UnixMillis) -> Vec<Arc<Outbox>> {
        let entries = self.0.borrow();
        let movable = entries.values().filter(|entry| entry.is_movable);
        let active = movable.filter(|entry| now.since(entry.client.last_interaction()) <= RECENT_MILLIS);
        active.map(|entry| Arc::clone(&entry.outbox)).collect()
    }

    /// Ends the connections that have been idle for more than `timeout` seconds (zero for never), and those whose client
    /// has let too much wait for too long.
    pub(crate) fn sweep(&self, now: UnixMillis, timeout: u32) {
        for Entry { client, outbox, .. } in self.0.borrow().values() {
            if outbox.is_over_soft_limit(now) {
                tracing::warn!(
                    client = client.id,
                    "a client does not read: closed with {} bytes above its soft limit",
                    outbox.pending()
                );
                outbox.end();
            } else if timeout > 0
                && !client.may_idle()
                && now.since(client.last_interaction()) > u64::from(timeout) * 1000
            {
                tracing::debug!(client = client.id, "closing an idle client");
                outbox.end();
            }
        }
    }
}
