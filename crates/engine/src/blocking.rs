//! Clients that wait for an element: who waits for which key, since when, and what each wants of it.
//!
//! Invariants: a client is entered and looked for under the lock of its key's shard, so that no element comes unseen between
//! its look and its wait; whoever takes a waiter out of the table, and nobody else, answers it, once. The table's own lock is
//! taken last and held for no command. Among those who want what a key holds, the one that has waited longest is served
//! first, and only after the whole command, transaction or script that brought the key. Deliberately absent: sockets; a
//! session whose command waits is [`Parked`], and its owner comes back with [`Engine::resume`] when the mailbox wakes it or
//! the time is over.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use ahash::RandomState;
use mtcache_protocol::{CommandSpec, Reply, Version};
use parking_lot::Mutex;

use crate::client::Client;
use crate::commands::blocking::{Wanted, serve};
use crate::context::{Ctx, Origin};
use crate::engine::Engine;
use crate::error::CommandError;
use crate::journal::Lsn;
use crate::keyspace::{DbIndex, Locked};
use crate::observe::silence;
use crate::session::{ReplyMode, Session};
use crate::time::UnixMillis;

/// What a session waits for, if it waits at all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Parked {
    /// It does not wait.
    No,
    /// The last command's reply comes later; nothing else of this session may run before.
    Blocked {
        /// When it comes at the latest; `None` for no limit.
        until: Option<UnixMillis>,
    },
    /// The last command has not run, for clients are paused: once [`Engine::resume`] says so it is to be handed in again.
    Held {
        /// When the pause ends at the latest.
        until: UnixMillis,
    },
}

/// The clients that wait.
#[derive(Default)]
pub(crate) struct Blocking {
    /// How many there are, for a glance without the lock.
    count: AtomicUsize,
    table: Mutex<Table>,
}

#[derive(Default)]
struct Table {
    /// The next ticket; tickets tell who has waited longer.
    next: u64,
    waiters: HashMap<u64, Waiter>,
    queues: HashMap<(DbIndex, Box<[u8]>), BTreeSet<u64>>,
    by_client: HashMap<u64, u64>,
}

/// A client that waits.
pub(crate) struct Waiter {
    pub(crate) client: Arc<Client>,
    pub(crate) db: DbIndex,
    pub(crate) keys: Vec<Box<[u8]>>,
    pub(crate) wanted: Wanted,
    pub(crate) version: Version,
    /// Whether the wait ends some time by itself.
    pub(crate) is_limited: bool,
}

/// What a session keeps of its own waiting.
#[derive(Debug)]
pub(crate) struct Blocked {
    ticket: u64,
    pub(crate) until: Option<UnixMillis>,
    spec: &'static CommandSpec,
    /// What the command took before it began to wait.
    nanos: u64,
}

/// The end of a wait, on its way to the client.
#[derive(Debug)]
pub(crate) struct Wake {
    reply: Vec<u8>,
    /// Where the journal ended after what the reply tells.
    lsn: Option<Lsn>,
    nanos: u64,
    failed: bool,
}

/// What `CLIENT UNBLOCK` ends a wait with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum UnblockAs {
    Timeout,
    Error,
}

/// What there is to do for a key.
enum Claim {
    /// Nobody waits for what it holds.
    Nobody,
    /// The next one needs a key whose shard is not locked.
    NeedsMore,
    /// The next one; it is out of the table.
    Next(u64, Waiter),
}

impl Blocking {
    /// Whether anybody waits.
    #[inline]
    pub(crate) fn any(&self) -> bool {
        self.count.load(Ordering::Relaxed) > 0
    }

    /// How many wait, but not for ever.
    pub(crate) fn timed(&self) -> usize {
        self.table.lock().waiters.values().filter(|waiter| waiter.is_limited).count()
    }

    /// Enters a client. Called under the locks of its keys' shards.
    fn add(&self, waiter: Waiter) -> u64 {
        let mut table = self.table.lock();
        let ticket = table.next;
        table.next += 1;
        for key in &waiter.keys {
            table.queues.entry((waiter.db, key.clone())).or_default().insert(ticket);
        }
        waiter.client.set_blocked(true);
        table.by_client.insert(waiter.client.id, ticket);
        table.waiters.insert(ticket, waiter);
        self.count.store(table.waiters.len(), Ordering::Relaxed);
        ticket
    }

    /// Takes a client out; `None` when somebody else has, who answers it.
    fn remove(&self, ticket: u64) -> Option<Waiter> {
        let mut table = self.table.lock();
        let waiter = table.remove(ticket);
        self.count.store(table.waiters.len(), Ordering::Relaxed);
        waiter
    }

    /// Whether anybody waits for this key.
    fn wants(&self, db: DbIndex, key: &[u8]) -> bool {
        self.table.lock().queues.contains_key(&(db, key.into()))
    }

    /// The keys of a database that somebody waits for.
    fn keys(&self, db: DbIndex) -> Vec<Box<[u8]>> {
        let table = self.table.lock();
        table.queues.keys().filter(|(other, _)| *other == db).map(|(_, key)| key.clone()).collect()
    }

    /// Takes out the first after `ticket` who waits for this key and is `fit` for it, unless it is not `ready` to be served.
    fn claim(
        &self,
        db: DbIndex,
        key: &[u8],
        after: Option<u64>,
        fit: impl Fn(&Wanted) -> bool,
        ready: impl Fn(&Waiter) -> bool,
    ) -> Claim {
        let mut table = self.table.lock();
        let Some(queue) = table.queues.get(&(db, key.into())) else { return Claim::Nobody };
        let mut waiting = queue.range(after.map_or(0, |ticket| ticket + 1)..);
        let next = waiting.find_map(|ticket| {
            let waiter = table.waiters.get(ticket)?;
            fit(&waiter.wanted).then_some((*ticket, waiter))
        });
        let Some((ticket, waiter)) = next else { return Claim::Nobody };
        if !ready(waiter) {
            return Claim::NeedsMore;
        }
        let claimed = table.remove(ticket);
        self.count.store(table.waiters.len(), Ordering::Relaxed);
        claimed.map_or(Claim::Nobody, |waiter| Claim::Next(ticket, waiter))
    }
}

impl Table {
    fn remove(&mut self, ticket: u64) -> Option<Waiter> {
        let waiter = self.waiters.remove(&ticket)?;
        for key in &waiter.keys {
            let place = (waiter.db, key.clone());
            if let Some(queue) = self.queues.get_mut(&place) {
                queue.remove(&ticket);
                if queue.is_empty() {
                    self.queues.remove(&place);
                }
            }
        }
        self.by_client.remove(&waiter.client.id);
        waiter.client.set_blocked(false);
        Some(waiter)
    }
}

impl Ctx<'_, '_> {
    /// Whether the running command may wait: one that a client sent by itself may, one in a transaction, a script or a
    /// replay, or of a caller that must not wait, finds nothing instead.
    pub(crate) fn may_wait(&self) -> bool {
        self.origin == Origin::Client && !self.session.never_waits
    }

    /// Makes the session wait for any of these keys, for so many milliseconds or, without a number, for ever.
    pub(crate) fn wait_for(
        &mut self,
        spec: &'static CommandSpec,
        keys: &[&[u8]],
        wanted: Wanted,
        millis: Option<u64>,
    ) {
        let mut seen: HashSet<&[u8], RandomState> = HashSet::default();
        let distinct = keys.iter().filter(|key| seen.insert(**key)).map(|key| Box::from(*key)).collect();
        let waiter = Waiter {
            client: Arc::clone(&self.session.client),
            db: self.session.db,
            keys: distinct,
            wanted,
            version: self.session.version,
            is_limited: millis.is_some(),
        };
        let until = millis.map(|millis| UnixMillis(self.engine.now().0.saturating_add(millis)));
        let ticket = self.engine.blocking.add(waiter);
        self.session.blocked = Some(Box::new(Blocked { ticket, until, spec, nanos: 0 }));
    }

    /// Takes note that a key has come to be, if somebody waits for it.
    #[cold]
    pub(crate) fn note_ready(&mut self, db: DbIndex, key: &[u8]) {
        let noted = self.session.ready.iter().any(|(other, noted)| *other == db && **noted == *key);
        if !noted && self.engine.blocking.wants(db, key) {
            self.session.ready.push((db, key.into()));
        }
    }

    /// Takes note of the keys of a database that somebody waits for and that are there: after `SWAPDB`. Every shard has to
    /// be locked.
    #[cold]
    pub(crate) fn note_database_ready(&mut self, db: DbIndex) {
        for key in self.engine.blocking.keys(db) {
            if self.peek_in(db, &key).is_some() {
                self.note_ready(db, &key);
            }
        }
    }
}

impl Engine {
    /// Gives what has come to those who wait for it, and releases the locks.
    #[cold]
    pub(crate) fn serve_ready<'e>(&'e self, mut locked: Locked<'e>, session: &mut Session, now: UnixMillis) {
        let (db, mut wakes) = (session.db, Vec::new());
        let late = self.serve_locked(&mut locked, session, now, &mut wakes);
        drop(locked);
        let mut is_left = false;
        if !late.is_empty() {
            // Moving an element to another key may need any shard, and locks are taken in order only.
            match self.keyspace.lock_all_unless_busy() {
                Some(mut locked) => {
                    session.ready = late;
                    self.serve_locked(&mut locked, session, now, &mut wakes);
                }
                // Who waited here would keep the script from being ended. Its own thread serves them.
                None => {
                    self.scripts.serve_later(late);
                    is_left = true;
                }
            }
        }
        session.db = db;
        for (client, wake) in wakes {
            client.wake_with(wake);
        }
        if is_left && !self.keyspace.is_busy() {
            self.serve_left(session, now);
        }
    }

    /// Serves those whom [`serve_ready`](Self::serve_ready) has left. Called without locks.
    #[cold]
    pub(crate) fn serve_left(&self, session: &mut Session, now: UnixMillis) {
        let ready = self.scripts.take_unserved();
        if ready.is_empty() {
            return;
        }
        match self.keyspace.lock_all_unless_busy() {
            Some(locked) => {
                session.ready = ready;
                self.serve_ready(locked, session, now);
            }
            None => self.scripts.serve_later(ready),
        }
    }

    /// Serves the keys that are ready, and those that this makes ready, round by round. What could not be served under these
    /// locks comes back.
    fn serve_locked<'e>(
        &'e self,
        locked: &mut Locked<'e>,
        session: &mut Session,
        now: UnixMillis,
        wakes: &mut Vec<(Arc<Client>, Wake)>,
    ) -> Vec<(DbIndex, Box<[u8]>)> {
        let mut late = Vec::new();
        while !session.ready.is_empty() {
            for (db, key) in std::mem::take(&mut session.ready) {
                session.db = db;
                if !self.serve_key(locked, session, &key, now, wakes) {
                    late.push((db, key));
                }
            }
        }
        late
    }

    /// Serves those who wait for one key; false when the next one needs shards that are not locked.
    fn serve_key<'e>(
        &'e self,
        locked: &mut Locked<'e>,
        session: &mut Session,
        key: &[u8],
        now: UnixMillis,
        wakes: &mut Vec<(Arc<Client>, Wake)>,
    ) -> bool {
        let mut after = None;
        loop {
            let started = self.clock.monotonic_nanos();
            let access = self.settings.access_clock(now);
            let mut ctx = Ctx::new(self, locked, session, access, now, Origin::Client);
            let claim = match ctx.peek(key).map(|entry| entry.type_name()) {
                None => Claim::Nobody,
                Some(kind) => {
                    let is_locked = |key: &[u8]| {
                        let shard = self.keyspace.shard_of(self.keyspace.hash(key));
                        ctx.locked.shard_ref(shard).is_some()
                    };
                    let ready = |waiter: &Waiter| waiter.wanted.other_key().is_none_or(is_locked);
                    self.blocking.claim(ctx.db(), key, after, |wanted| wanted.kind() == kind, ready)
                }
            };
            let (ticket, waiter) = match claim {
                Claim::Nobody => return true,
                Claim::NeedsMore => return false,
                Claim::Next(ticket, waiter) => (ticket, waiter),
            };
            after = Some(ticket);
            let mut reply = Reply::new(waiter.version);
            let result = serve(&mut ctx, key, &waiter.wanted, &mut reply);
            if let Err(error) = &result {
                reply.clear();
                reply.error(error.text());
                self.stats.error(error.text());
            }
            let lsn = match self.journal.get() {
                Some(journal) => session.effects.flush(&**journal),
                None => {
                    session.effects.clear();
                    None
                }
            };
            if let Some(lsn) = lsn {
                session.last_write = lsn;
            }
            let nanos = self.clock.monotonic_nanos().saturating_sub(started);
            let wake = Wake { reply: reply.into_bytes(), lsn, nanos, failed: result.is_err() };
            wakes.push((waiter.client, wake));
        }
    }

    /// To be called when a parked session's mailbox was woken or its time is over: whether it goes on. The reply that it
    /// waited for, if it did, is then written to `out`, after the messages that are older.
    pub fn resume(&self, session: &mut Session, now: UnixMillis, out: &mut Reply) -> bool {
        if session.held.is_some() {
            return self.release_held(session, now);
        }
        let Some(blocked) = &session.blocked else { return true };
        let is_over = blocked.until.is_some_and(|until| until <= now);
        let wake = session.client.take_wake().or_else(|| {
            // Who finds the waiter gone is told by whoever has taken it.
            let waiter = is_over.then(|| self.blocking.remove(blocked.ticket)).flatten()?;
            Some(timed_out(waiter.version))
        });
        let Some(wake) = wake else { return false };
        let Some(blocked) = session.blocked.take() else { return true };
        session.client.mailbox.drain_into(out.buffer_mut());
        out.set_version(session.version);
        let mark = out.len();
        out.raw(&wake.reply);
        if let Some(lsn) = wake.lsn {
            session.last_write = session.last_write.max(lsn);
        }
        self.stats.ran(blocked.spec.id, blocked.nanos + wake.nanos, wake.failed);
        if session.reply_mode != ReplyMode::On {
            silence(session, out, mark);
        }
        true
    }

    /// Takes note of what a command took that now waits.
    #[cold]
    pub(crate) fn begin_waiting(session: &mut Session, nanos: u64) {
        if let Some(blocked) = &mut session.blocked {
            blocked.nanos = nanos;
        }
    }

    /// Ends the wait of a client as `CLIENT UNBLOCK` does; whether it waited.
    pub(crate) fn unblock(&self, client: u64, how: UnblockAs) -> bool {
        let ticket = self.blocking.table.lock().by_client.get(&client).copied();
        let Some(waiter) = ticket.and_then(|ticket| self.blocking.remove(ticket)) else { return false };
        let wake = match how {
            UnblockAs::Timeout => timed_out(waiter.version),
            UnblockAs::Error => {
                let error = CommandError::UNBLOCKED;
                self.stats.error(error.text());
                let mut reply = Reply::new(waiter.version);
                reply.error(error.text());
                Wake { reply: reply.into_bytes(), lsn: None, nanos: 0, failed: true }
            }
        };
        waiter.client.wake_with(wake);
        true
    }

    /// Ends the wait of a session that goes away.
    pub(crate) fn stop_waiting(&self, session: &mut Session) {
        if let Some(blocked) = session.blocked.take() {
            self.blocking.remove(blocked.ticket);
        }
    }
}

/// What every command answers whose time is over.
fn timed_out(version: Version) -> Wake {
    let mut reply = Reply::new(version);
    reply.null_array();
    Wake { reply: reply.into_bytes(), lsn: None, nanos: 0, failed: false }
}
