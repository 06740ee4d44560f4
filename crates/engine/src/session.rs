//! One conversation with the engine: the selected database, the protocol version, the open transaction.
//!
//! A session belongs to one connection (or one in-process caller) and is used by one thread at a time. What other
//! sessions may see of it, for `CLIENT LIST`, lives in its [`Client`].

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use mtcache_protocol::{CommandFlags, CommandSpec, Version};

use crate::client::Client;
use crate::journal::{Effects, Lsn};
use crate::keyspace::DbIndex;

/// The state of one conversation.
pub struct Session {
    pub(crate) db: DbIndex,
    pub(crate) version: Version,
    pub(crate) authenticated: bool,
    pub(crate) transaction: Option<Transaction>,
    pub(crate) watched: Vec<(DbIndex, Box<[u8]>)>,
    /// Goes up when a watched key changes.
    pub(crate) watch_flag: Arc<AtomicBool>,
    pub(crate) client: Arc<Client>,
    pub(crate) effects: Effects,
    pub(crate) close: bool,
    pub(crate) last_write: Lsn,
    /// The replay of a journal: trusted, not expired, not journalled, not evicted for.
    pub(crate) replay: bool,
    /// There was no room for more when the running script started.
    pub(crate) out_of_memory: bool,
}

/// A transaction between `MULTI` and `EXEC`.
#[derive(Default)]
pub(crate) struct Transaction {
    pub(crate) queue: Vec<Queued>,
    /// A command could not be queued: `EXEC` will refuse.
    pub(crate) aborted: bool,
    /// The flags of all queued commands.
    pub(crate) flags: CommandFlags,
    /// Bytes of all queued arguments.
    pub(crate) bytes: usize,
}

/// A queued command.
pub(crate) struct Queued {
    pub(crate) spec: &'static CommandSpec,
    pub(crate) args: Box<[Box<[u8]>]>,
}

impl Session {
    /// A new session of `client`, in database 0, speaking RESP2. `authenticated` says whether it may begin at once,
    /// which it may when no password is set.
    pub fn new(client: Arc<Client>, authenticated: bool) -> Self {
        Self {
            db: 0,
            version: Version::Resp2,
            authenticated,
            transaction: None,
            watched: Vec::new(),
            watch_flag: Arc::new(AtomicBool::new(false)),
            client,
            effects: Effects::default(),
            close: false,
            last_write: Lsn::default(),
            replay: false,
            out_of_memory: false,
        }
    }

    /// A session for the replay of a journal.
    pub fn replaying(client: Arc<Client>) -> Self {
        Self { replay: true, ..Self::new(client, true) }
    }

    /// The protocol version that replies have to be in.
    pub fn version(&self) -> Version {
        self.version
    }

    /// The selected database.
    pub fn db(&self) -> DbIndex {
        self.db
    }

    /// Selects a database; the caller has checked that it exists.
    pub fn select(&mut self, db: DbIndex) {
        self.db = db;
    }

    /// Whether the connection is to be closed once the replies are sent (`QUIT`, `CLIENT KILL`).
    pub fn wants_close(&self) -> bool {
        self.close
    }

    /// What others may see of this session.
    pub fn client(&self) -> &Arc<Client> {
        &self.client
    }

    /// Where the journal ended after this session's last write.
    pub fn last_write(&self) -> Lsn {
        self.last_write
    }

    /// Whether the session may run commands.
    pub fn is_authenticated(&self) -> bool {
        self.authenticated
    }

    /// Takes what is watched, and the flag that goes up when it changes; from here on nothing is watched.
    pub(crate) fn take_watches(&mut self) -> (Vec<(DbIndex, Box<[u8]>)>, Arc<AtomicBool>) {
        if self.watched.is_empty() {
            return (Vec::new(), Arc::clone(&self.watch_flag));
        }
        (std::mem::take(&mut self.watched), std::mem::take(&mut self.watch_flag))
    }

    /// Whether a transaction is open.
    pub fn in_transaction(&self) -> bool {
        self.transaction.is_some()
    }
}
