//! Who is connected: every client by its id.
//!
//! Invariant: holds no client alive. A session that is dropped without `Engine::disconnect` disappears at the next look.

use std::collections::BTreeMap;
use std::sync::{Arc, Weak};

use parking_lot::Mutex;

use crate::client::Client;

/// See the module.
#[derive(Default)]
pub(crate) struct Registry {
    clients: Mutex<BTreeMap<u64, Weak<Client>>>,
}

impl Registry {
    pub(crate) fn add(&self, client: &Arc<Client>) {
        self.clients.lock().insert(client.id, Arc::downgrade(client));
    }

    pub(crate) fn remove(&self, id: u64) {
        self.clients.lock().remove(&id);
    }

    pub(crate) fn get(&self, id: u64) -> Option<Arc<Client>> {
        self.clients.lock().get(&id).and_then(Weak::upgrade)
    }

    /// Every client, oldest first.
    pub(crate) fn all(&self) -> Vec<Arc<Client>> {
        let mut clients = self.clients.lock();
        clients.retain(|_, client| client.strong_count() > 0);
        clients.values().filter_map(Weak::upgrade).collect()
    }
}
