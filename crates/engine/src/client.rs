//! A client as others see it: identity, address, counters, and a mailbox for what it did not ask for.
//!
//! Invariant: nothing here is needed to run a command; it is the public face of a [`Session`](crate::Session). What changes
//! with every command is a relaxed store into memory that only this client's thread writes.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU8, AtomicU16, AtomicU32, AtomicU64, Ordering};

use mtcache_protocol::{CommandId, CommandSpec, Version};
use parking_lot::Mutex;

use crate::acl::User;
use crate::blocking::Wake;
use crate::keyspace::DbIndex;
use crate::time::UnixMillis;
use crate::tracking::TrackingFace;

/// Where a connection receives messages that are no replies: pub/sub, `MONITOR`, invalidations.
pub trait Mailbox: Send + Sync {
    /// Queues encoded bytes for the client. Must not block, and must not call the engine.
    fn deliver(&self, bytes: &[u8]);

    /// Asks the connection to close.
    fn close(&self);

    /// Tells the connection that its wait may be over: it asks [`Engine::resume`](crate::Engine::resume).
    fn wake(&self) {}

    /// Moves what is queued to the end of the replies being written, so that it arrives before the reply that follows: a
    /// client that has read the confirmation of `UNSUBSCRIBE` gets no message after it.
    fn drain_into(&self, _replies: &mut Vec<u8>) {}

    /// Bytes that wait to be sent, replies included.
    fn pending(&self) -> u64 {
        0
    }
}

/// A mailbox of callers that never receive anything.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoMailbox;

impl Mailbox for NoMailbox {
    fn deliver(&self, _: &[u8]) {}
    fn close(&self) {}
}

/// Bytes that the server holds for one client, as `CLIENT LIST` shows them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ClientBuffers {
    /// Bytes received that are no complete command yet.
    pub input: u64,
    /// Room left in the input buffer.
    pub input_free: u64,
    /// Bytes of replies and messages that wait to be sent.
    pub output: u64,
}

/// The public face of a session.
pub struct Client {
    /// Unique and ever growing.
    pub id: u64,
    /// The peer's address, as `CLIENT LIST` shows it.
    pub addr: String,
    /// The local address.
    pub laddr: String,
    /// When it connected.
    pub created: UnixMillis,
    pub(crate) mailbox: Box<dyn Mailbox>,
    pub(crate) killed: AtomicBool,
    blocked: AtomicBool,
    wake: Mutex<Option<Wake>>,
    pub(crate) labels: Mutex<Labels>,
    user: Mutex<Arc<User>>,
    flags: AtomicU8,
    version: AtomicU8,
    db: AtomicU8,
    /// The last command's number plus one; zero before the first.
    last_command: AtomicU16,
    last_interaction: AtomicU64,
    channels: AtomicU32,
    patterns: AtomicU32,
    shard_channels: AtomicU32,
    /// Commands queued in the open transaction, -1 without one.
    queued: AtomicI32,
    /// Bytes of the arguments of these.
    queued_bytes: AtomicU64,
    pub(crate) tracking: TrackingFace,
    input: AtomicU64,
    input_free: AtomicU64,
}

/// What a client says about itself.
#[derive(Debug, Clone, Default)]
pub(crate) struct Labels {
    pub(crate) name: Box<[u8]>,
    pub(crate) library: Box<[u8]>,
    pub(crate) library_version: Box<[u8]>,
}

/// A property that `CLIENT LIST` shows as a letter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum ClientFlag {
    /// `O`: in `MONITOR`.
    Monitor = 1,
    /// `e`: `CLIENT NO-EVICT ON`.
    NoEvict = 1 << 1,
    /// `T`: `CLIENT NO-TOUCH ON`.
    NoTouch = 1 << 2,
    /// `U`: connected through a Unix socket.
    Unix = 1 << 3,
    /// `c`: closes once its replies are sent.
    Closing = 1 << 4,
}

/// How many channels, patterns and shard channels a client is subscribed to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct SubscriptionCounts {
    pub(crate) channels: u32,
    pub(crate) patterns: u32,
    pub(crate) shard_channels: u32,
}

impl SubscriptionCounts {
    pub(crate) fn any(self) -> bool {
        self != Self::default()
    }
}

impl Client {
    /// A client that has just connected.
    pub fn new(id: u64, addr: String, laddr: String, created: UnixMillis, mailbox: Box<dyn Mailbox>) -> Self {
        // As in Redis, a peer of a Unix socket has the socket's path and port 0 for an address.
        let flags = if addr.starts_with('/') { ClientFlag::Unix as u8 } else { 0 };
        Self {
            id,
            addr,
            laddr,
            created,
            mailbox,
            killed: AtomicBool::new(false),
            blocked: AtomicBool::new(false),
            wake: Mutex::new(None),
            labels: Mutex::default(),
            user: Mutex::new(User::trusted()),
            flags: AtomicU8::new(flags),
            version: AtomicU8::new(Version::Resp2.number()),
            db: AtomicU8::new(0),
            last_command: AtomicU16::new(0),
            last_interaction: AtomicU64::new(created.0),
            channels: AtomicU32::new(0),
            patterns: AtomicU32::new(0),
            shard_channels: AtomicU32::new(0),
            queued: AtomicI32::new(-1),
            queued_bytes: AtomicU64::new(0),
            tracking: TrackingFace::default(),
            input: AtomicU64::new(0),
            input_free: AtomicU64::new(0),
        }
    }

    /// Whether somebody has asked for this connection to end.
    pub fn is_killed(&self) -> bool {
        self.killed.load(Ordering::Relaxed)
    }

    /// Tells the engine how much the server has received of this client's next command, and the room it keeps for more.
    /// Cheap enough for every batch.
    pub fn set_input(&self, bytes: usize, free: usize) {
        self.input.store(bytes as u64, Ordering::Relaxed);
        self.input_free.store(free as u64, Ordering::Relaxed);
    }

    /// When the client last ran a command.
    pub fn last_interaction(&self) -> UnixMillis {
        UnixMillis(self.last_interaction.load(Ordering::Relaxed))
    }

    /// Notes that bytes have come from the client or reached it, outside of any command.
    pub fn note_activity(&self, now: UnixMillis) {
        self.last_interaction.store(now.0, Ordering::Relaxed);
    }

    /// Whether the client receives messages.
    pub fn is_subscribed(&self) -> bool {
        self.subscriptions().any()
    }

    /// Whether the client waits for an element or for the end of a pause.
    pub fn is_blocked(&self) -> bool {
        self.blocked.load(Ordering::Relaxed)
    }

    pub(crate) fn set_blocked(&self, blocked: bool) {
        self.blocked.store(blocked, Ordering::Relaxed);
    }

    /// Gives the client what it has waited for.
    pub(crate) fn wake_with(&self, wake: Wake) {
        *self.wake.lock() = Some(wake);
        self.mailbox.wake();
    }

    pub(crate) fn take_wake(&self) -> Option<Wake> {
        self.wake.lock().take()
    }

    /// Whether the client waits for something, and must not be ended for being idle.
    pub fn may_idle(&self) -> bool {
        self.is_subscribed() || self.is_blocked() || self.has(ClientFlag::Monitor)
    }

    /// Ends the connection as soon as the server can.
    pub(crate) fn kill(&self) {
        self.killed.store(true, Ordering::Relaxed);
        self.mailbox.close();
    }

    /// Who the client is logged in as.
    pub(crate) fn user(&self) -> Arc<User> {
        Arc::clone(&self.user.lock())
    }

    pub(crate) fn set_user(&self, user: &Arc<User>) {
        *self.user.lock() = Arc::clone(user);
    }

    #[inline]
    pub(crate) fn touch(&self, command: CommandId, now: UnixMillis) {
        self.last_command.store(command.index() as u16 + 1, Ordering::Relaxed);
        self.last_interaction.store(now.0, Ordering::Relaxed);
    }

    pub(crate) fn last_command(&self) -> Option<&'static CommandSpec> {
        let number = usize::from(self.last_command.load(Ordering::Relaxed));
        mtcache_protocol::COMMANDS.get(number.checked_sub(1)?)
    }

    pub(crate) fn has(&self, flag: ClientFlag) -> bool {
        self.flags.load(Ordering::Relaxed) & flag as u8 != 0
    }

    pub(crate) fn set_flag(&self, flag: ClientFlag, on: bool) {
        if on {
            self.flags.fetch_or(flag as u8, Ordering::Relaxed);
        } else {
            self.flags.fetch_and(!(flag as u8), Ordering::Relaxed);
        }
    }

    #[inline]
    pub(crate) fn version(&self) -> Version {
        if self.version.load(Ordering::Relaxed) == Version::Resp3.number() {
            Version::Resp3
        } else {
            Version::Resp2
        }
    }

    pub(crate) fn set_version(&self, version: Version) {
        self.version.store(version.number(), Ordering::Relaxed);
    }

    pub(crate) fn db(&self) -> DbIndex {
        self.db.load(Ordering::Relaxed)
    }

    pub(crate) fn set_db(&self, db: DbIndex) {
        self.db.store(db, Ordering::Relaxed);
    }

    pub(crate) fn queued(&self) -> i32 {
        self.queued.load(Ordering::Relaxed)
    }

    pub(crate) fn queued_bytes(&self) -> u64 {
        self.queued_bytes.load(Ordering::Relaxed)
    }

    /// How many commands are queued in the open transaction, if there is one, and the bytes of their arguments.
    pub(crate) fn set_queued(&self, commands: Option<(usize, usize)>) {
        let shown = commands.map_or(-1, |(commands, _)| i32::try_from(commands).unwrap_or(i32::MAX));
        self.queued.store(shown, Ordering::Relaxed);
        self.queued_bytes.store(commands.map_or(0, |(_, bytes)| bytes as u64), Ordering::Relaxed);
    }

    pub(crate) fn subscriptions(&self) -> SubscriptionCounts {
        SubscriptionCounts {
            channels: self.channels.load(Ordering::Relaxed),
            patterns: self.patterns.load(Ordering::Relaxed),
            shard_channels: self.shard_channels.load(Ordering::Relaxed),
        }
    }

    pub(crate) fn set_subscriptions(&self, counts: SubscriptionCounts) {
        self.channels.store(counts.channels, Ordering::Relaxed);
        self.patterns.store(counts.patterns, Ordering::Relaxed);
        self.shard_channels.store(counts.shard_channels, Ordering::Relaxed);
    }

    /// Bytes that the client costs, roughly: its buffers, what it has queued, and the rest.
    pub(crate) fn memory(&self) -> u64 {
        /// Of a session besides its buffers.
        const SESSION_BYTES: u64 = 1024;
        let buffers = self.buffers();
        buffers.input
            + buffers.input_free
            + buffers.output
            + self.queued_bytes()
            + size_of::<Self>() as u64
            + SESSION_BYTES
    }

    pub(crate) fn buffers(&self) -> ClientBuffers {
        ClientBuffers {
            input: self.input.load(Ordering::Relaxed),
            input_free: self.input_free.load(Ordering::Relaxed),
            output: self.mailbox.pending(),
        }
    }
}
