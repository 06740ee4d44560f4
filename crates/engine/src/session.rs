//! One conversation with the engine: the selected database, the protocol version, the open transaction.
//!
//! A session belongs to one connection (or one in-process caller) and is used by one thread at a time. What other
//! sessions may see of it, for `CLIENT LIST`, lives in its [`Client`].

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use mtcache_protocol::{CommandFlags, CommandSpec, RecentCommand, Version};

use crate::acl::User;
use crate::blocking::{Blocked, Parked};
use crate::client::{Client, ClientFlag};
use crate::context::Garbage;
use crate::journal::{Effects, Lsn};
use crate::keyspace::DbIndex;
use crate::pubsub::Subscriptions;
use crate::time::{Clock, UnixMillis};

/// The state of one conversation.
#[allow(clippy::struct_excessive_bools, reason = "independent facts, no states of one machine")]
pub struct Session {
    pub(crate) db: DbIndex,
    pub(crate) version: Version,
    pub(crate) authenticated: bool,
    pub(crate) user: Arc<User>,
    pub(crate) transaction: Option<Transaction>,
    pub(crate) watched: Vec<(DbIndex, Box<[u8]>)>,
    /// Goes up when a watched key changes.
    pub(crate) watch_flag: Arc<AtomicBool>,
    pub(crate) client: Arc<Client>,
    pub(crate) effects: Effects,
    /// Values that the running command has replaced or removed.
    pub(crate) garbage: Vec<Garbage>,
    pub(crate) close: bool,
    pub(crate) last_write: Lsn,
    /// The replay of a journal: trusted, not expired, not journalled, not evicted for.
    pub(crate) replay: bool,
    /// There was no room for more when the running script started.
    pub(crate) out_of_memory: bool,
    pub(crate) reply_mode: ReplyMode,
    /// The last command waits for an element.
    pub(crate) blocked: Option<Box<Blocked>>,
    /// The last command was held back by a pause, which ends then.
    pub(crate) held: Option<UnixMillis>,
    /// Nobody could take a reply that comes later: what would wait finds nothing instead.
    pub(crate) never_waits: bool,
    /// Keys that the running command has made and that somebody waits for.
    pub(crate) ready: Vec<(DbIndex, Box<[u8]>)>,
    /// Tracks, in whatever mode; so that the others lose no time over it.
    pub(crate) tracks: bool,
    pub(crate) caching: Caching,
    /// Made with the first subscription.
    subscriptions: Option<Box<Subscriptions>>,
    /// What may run is limited by what the session has become; see [`Restriction`].
    pub(crate) restriction: Restriction,
    /// Inside a batch: when the last command ended, by the monotonic clock.
    mark: Option<u64>,
    in_batch: bool,
    pub(crate) recent: RecentCommand,
}

/// Whether replies are sent: `CLIENT REPLY`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ReplyMode {
    /// Yes.
    On,
    /// No.
    Off,
    /// Not the one of the next command.
    SkipNext,
    /// Not the one of this command.
    SkipThis,
}

/// What `CLIENT CACHING` has said of the next command, or of the transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Caching {
    /// Nothing.
    Unsaid,
    /// Track it.
    Yes,
    /// Do not.
    No,
}

/// Whether a command runs by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Nesting {
    /// Yes.
    Outer,
    /// It runs inside another one, and others may follow there.
    Inner,
}

/// What a session that has become a listener may still run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Restriction {
    /// Anything.
    None,
    /// Only what changes or ends subscriptions: RESP2 cannot tell a message from a reply.
    Subscribed,
    /// Nothing that reads or writes keys: it watches others with `MONITOR`.
    Monitor,
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
    /// A session of a caller in our own process, in database 0, speaking RESP2: it may do everything. Connections from
    /// outside get theirs from [`Engine::new_session`](crate::Engine::new_session).
    pub fn trusted(client: Arc<Client>) -> Self {
        Self::of(client, User::trusted(), true)
    }

    /// A session of `user`, in database 0, speaking RESP2. `authenticated` says whether it may begin at once.
    pub(crate) fn of(client: Arc<Client>, user: Arc<User>, authenticated: bool) -> Self {
        client.set_user(&user);
        Self {
            user,
            db: 0,
            version: Version::Resp2,
            authenticated,
            transaction: None,
            watched: Vec::new(),
            watch_flag: Arc::new(AtomicBool::new(false)),
            client,
            effects: Effects::default(),
            garbage: Vec::new(),
            close: false,
            last_write: Lsn::default(),
            replay: false,
            out_of_memory: false,
            reply_mode: ReplyMode::On,
            blocked: None,
            held: None,
            never_waits: false,
            ready: Vec::new(),
            tracks: false,
            caching: Caching::Unsaid,
            subscriptions: None,
            restriction: Restriction::None,
            mark: None,
            in_batch: false,
            recent: RecentCommand::default(),
        }
    }

    /// A session for the replay of a journal.
    pub fn replaying(client: Arc<Client>) -> Self {
        Self { replay: true, never_waits: true, ..Self::trusted(client) }
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
        self.client.set_db(db);
    }

    /// Makes commands that would wait find nothing instead, and pauses pass by: for callers whose calls always end.
    pub fn never_wait(&mut self) {
        self.never_waits = true;
    }

    /// Whether the session waits, and for what.
    #[inline]
    pub fn parked(&self) -> Parked {
        if let Some(until) = self.held {
            return Parked::Held { until };
        }
        match &self.blocked {
            None => Parked::No,
            Some(blocked) => Parked::Blocked { until: blocked.until },
        }
    }

    /// Says that several commands follow each other without a pause, so that the end of one is the start of the next and
    /// one look at the clock per command is enough to time them. Ends with [`end_batch`](Self::end_batch).
    pub fn begin_batch(&mut self) {
        self.in_batch = true;
        self.mark = None;
    }

    /// Ends what [`begin_batch`](Self::begin_batch) began.
    pub fn end_batch(&mut self) {
        self.in_batch = false;
        self.mark = None;
    }

    /// Starts the time of a command.
    #[inline]
    pub(crate) fn start_timing(&mut self, clock: &dyn Clock) -> u64 {
        self.mark.unwrap_or_else(|| clock.monotonic_nanos())
    }

    /// Ends it: the nanoseconds that the command took.
    #[inline]
    pub(crate) fn end_timing(&mut self, clock: &dyn Clock, started: u64, nesting: Nesting) -> u64 {
        let end = clock.monotonic_nanos();
        self.mark = (self.in_batch || nesting == Nesting::Inner).then_some(end);
        end.saturating_sub(started)
    }

    /// Changes the protocol version.
    pub(crate) fn set_version(&mut self, version: Version) {
        self.version = version;
        self.client.set_version(version);
        self.refresh_restrictions();
    }

    /// What the session is subscribed to.
    pub(crate) fn subscriptions(&mut self) -> &mut Subscriptions {
        self.subscriptions.get_or_insert_default()
    }

    /// To be called when that has changed.
    pub(crate) fn subscriptions_changed(&mut self) {
        let counts = self.subscriptions.as_ref().map(|mine| mine.counts()).unwrap_or_default();
        self.client.set_subscriptions(counts);
        if !counts.any() {
            self.subscriptions = None;
        }
        self.refresh_restrictions();
    }

    pub(crate) fn refresh_restrictions(&mut self) {
        self.restriction = if self.client.is_subscribed() && self.version == Version::Resp2 {
            Restriction::Subscribed
        } else if self.client.has(ClientFlag::Monitor) {
            Restriction::Monitor
        } else {
            Restriction::None
        };
    }

    /// Whether the session listens and speaks RESP2, so that hardly anything may run.
    pub(crate) fn is_restricted(&self) -> bool {
        self.restriction == Restriction::Subscribed
    }

    /// Shows others how many commands are queued.
    pub(crate) fn show_queue(&self) {
        self.client.set_queued(
            self.transaction.as_ref().map(|transaction| (transaction.queue.len(), transaction.bytes)),
        );
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

    /// Makes the session the one of `user`.
    pub(crate) fn log_in(&mut self, user: Arc<User>, authenticated: bool) {
        self.client.set_user(&user);
        self.user = user;
        self.authenticated = authenticated;
    }

    /// Drops the values that a command has left behind, which may take long: called without locks.
    #[inline]
    pub(crate) fn drop_garbage(&mut self) {
        if !self.garbage.is_empty() {
            self.garbage = Vec::new();
        }
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
