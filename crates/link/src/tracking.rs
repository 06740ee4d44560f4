//! Invalidations: a side connection on which the server tells which keys have changed, and proof that it still does.
//!
//! One mode only: RESP3, `CLIENT TRACKING ON BCAST` on prefixes, without `NOLOOP`. Invariants: a listener is told that everything has
//! changed after tracking was switched on and before the tracker calls itself coherent; the tracker is coherent at a moment only if
//! everything that changed longer ago than the heartbeat has been told, whatever became of the connection in silence; and only while
//! the link's own connection is the one for which tracking was switched on, since the next one may lead to another server.
//! Deliberately absent: what is kept of keys. Nothing is queued: the listener is called as messages are read.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use redis::aio::MultiplexedConnection;
use redis::{PushInfo, PushKind, Value};
use tokio::sync::{Notify, watch};
use tokio::task::JoinHandle;

use crate::command::Command;
use crate::dial::{PushHandler, SideError};
use crate::error::{Error, ErrorKind};
use crate::link::Link;
use crate::moment::Moment;
use crate::supervise;

/// Default of [`TrackOptions::heartbeat`].
const HEARTBEAT: Duration = Duration::from_secs(1);
/// Signs of life asked for in one heartbeat: a few may be late before the tracker is no longer coherent.
const BEATS: u32 = 5;
/// Pause before a server that refused to track is asked again; a new connection or prefix ends it.
const REFUSED_RETRY: Duration = Duration::from_mins(1);
/// What the keys begin with by whose change the tracker sees that it is told.
const PROBE_PREFIX: &str = "mtcache:probe:";
/// How long such a key lives.
const PROBE_TTL_MS: i64 = 10_000;

/// Who is told. Called on the connection's task: must be quick, and must not wait.
pub trait Listener: Send + Sync + 'static {
    /// This key has changed, expired or gone.
    fn changed(&self, key: &[u8]);

    /// Any key may have changed.
    fn all_changed(&self);

    /// Any key may have changed of which `may_have` is true. Default: [`all_changed`](Self::all_changed).
    fn some_changed(&self, may_have: &dyn Fn(&[u8]) -> bool) {
        let _ = may_have;
        self.all_changed();
    }

    /// Changes are not told from here on. The tracker is not coherent, and before it is again `all_changed` comes. Default: as that.
    fn silence(&self) {
        self.all_changed();
    }
}

/// What a tracker has to know of its server's place among others.
pub(crate) trait Place: Send + Sync + 'static {
    /// What the probing key's name goes on with, so that it is one of this server's; none if no key is.
    fn probe_name(&self) -> Option<String>;

    /// The sign of life that is asked for.
    fn question(&self) -> redis::Cmd;

    /// What the answer says of the server's claim to its keys: an answer with another claim ends the tracking.
    fn claim(&self, answer: Value) -> Result<u64, Error>;

    /// Is called when the server is lost.
    fn lost(&self);
}

/// A server that has all keys.
struct Alone;

impl Place for Alone {
    fn probe_name(&self) -> Option<String> {
        Some(String::new())
    }

    fn question(&self) -> redis::Cmd {
        redis::cmd("PING")
    }

    fn claim(&self, _: Value) -> Result<u64, Error> {
        Ok(0)
    }

    fn lost(&self) {}
}

/// How tracking is done.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct TrackOptions {
    /// How long a change may go untold before the tracker is no longer coherent. Default: 1 s.
    pub heartbeat: Duration,
}

impl Default for TrackOptions {
    fn default() -> Self {
        Self { heartbeat: HEARTBEAT }
    }
}

/// How it stands with a tracker.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum TrackingState {
    /// Nobody has asked for a prefix.
    Idle,
    /// It is being switched on, or the server is out of reach.
    Waiting,
    /// It is on, and a change that was made to see it has been told.
    On,
    /// It is not to be had; it is tried again once a minute.
    Refused(Refusal),
}

/// Why tracking is not to be had.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Refusal {
    /// The server does not speak RESP3.
    NoResp3,
    /// Our user may not use HELLO or CLIENT TRACKING, or may not write the probing keys.
    NotPermitted,
    /// The server does not know CLIENT TRACKING with these words.
    NotSupported,
    /// The server agreed, but was silent about a change: something in between keeps its messages.
    NotTold,
}

/// Hears of changed keys on one server. Stops when it is dropped.
pub struct Tracker {
    shared: Arc<Shared>,
    task: JoinHandle<()>,
}

struct Shared {
    link: Link,
    place: Arc<dyn Place>,
    listener: Arc<dyn Listener>,
    options: TrackOptions,
    wanted: Mutex<Wanted>,
    /// There are new prefixes.
    more: Notify,
    /// Coherent until this [`Moment`], if the link's connection is still the one of that number.
    coherent_until: AtomicI64,
    armed_for: AtomicU64,
    state: watch::Sender<TrackingState>,
}

#[derive(Default)]
struct Wanted {
    prefixes: BTreeSet<String>,
    version: u64,
}

impl Tracker {
    /// Starts a tracker beside a link; it connects once there is a prefix. Must be called inside a tokio runtime.
    pub fn start(link: &Link, options: TrackOptions, listener: Arc<dyn Listener>) -> Self {
        Self::start_at(link, options, listener, Arc::new(Alone))
    }

    /// As [`start`](Self::start), for a server that has some of the keys.
    pub(crate) fn start_at(
        link: &Link,
        options: TrackOptions,
        listener: Arc<dyn Listener>,
        place: Arc<dyn Place>,
    ) -> Self {
        let shared = Arc::new(Shared {
            link: link.clone(),
            place,
            listener,
            options,
            wanted: Mutex::default(),
            more: Notify::new(),
            coherent_until: AtomicI64::new(Moment::NEVER.number()),
            armed_for: AtomicU64::new(0),
            state: watch::Sender::new(TrackingState::Idle),
        });
        let task = tokio::spawn(Arc::clone(&shared).run());
        Self { shared, task }
    }

    /// Has the listener told of keys with this prefix too. Until that is so the tracker is not coherent. One that begins with another is
    /// heard with that.
    pub fn add_prefix(&self, prefix: &str) {
        let mut wanted = self.shared.wanted.lock();
        if wanted.prefixes.insert(prefix.to_owned()) {
            wanted.version += 1;
            self.shared.never_coherent();
            self.shared.state.send_if_modified(|state| {
                *state == TrackingState::Idle && {
                    *state = TrackingState::Waiting;
                    true
                }
            });
            self.shared.more.notify_one();
        }
    }

    /// Whether everything has been told that changed longer before `now` than the heartbeat.
    #[inline]
    pub fn is_coherent(&self, now: Moment) -> bool {
        now < Moment::from_number(self.shared.coherent_until.load(Ordering::Acquire))
            && self.shared.armed_for.load(Ordering::Acquire) == self.shared.link.generation()
    }

    /// How it stands.
    pub fn state(&self) -> TrackingState {
        *self.shared.state.borrow()
    }
}

impl Drop for Tracker {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl std::fmt::Debug for Tracker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tracker").field("state", &self.state()).finish_non_exhaustive()
    }
}

/// Why a time of tracking ended.
enum End {
    /// There are more prefixes, or the link has a new connection: begin anew at once.
    Anew,
    /// The server is out of reach or the connection is lost.
    Lost(Error),
    Refused(Refusal, String),
}

impl Shared {
    async fn run(self: Arc<Self>) {
        let mut failures = 0;
        loop {
            let (version, prefixes) = self.wanted();
            if prefixes.is_empty() {
                self.more.notified().await;
                continue;
            }
            let began = Instant::now();
            let end = self.track(version, &prefixes).await;
            self.silence();
            let generation = self.link.generation();
            let pause = match end {
                End::Anew => {
                    self.tell(TrackingState::Waiting);
                    continue;
                }
                End::Lost(error) => {
                    self.place.lost();
                    if self.tell(TrackingState::Waiting) == TrackingState::On {
                        tracing::warn!(server = %self.link.url(), %error, "near cache: invalidations are lost; not used until they are back");
                    }
                    failures =
                        if began.elapsed() > self.link.options().backoff_max { 1 } else { failures + 1 };
                    supervise::pause(failures, self.link.options())
                }
                End::Refused(refusal, reason) => {
                    failures = 0;
                    if self.tell(TrackingState::Refused(refusal)) != TrackingState::Refused(refusal) {
                        tracing::warn!(server = %self.link.url(), ?refusal, reason, "near cache: off, as this server tells of no changes");
                    }
                    REFUSED_RETRY
                }
            };
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = self.more.notified() => {}
                () = self.link.next_generation(generation) => {}
            }
        }
    }

    /// Tracks until something ends it.
    async fn track(&self, version: u64, prefixes: &BTreeSet<String>) -> End {
        if let Err(error) = self.link.connected().await {
            return End::Lost(error);
        }
        // Of one connection: the next may lead elsewhere.
        let Some((at, generation)) = self.link.place() else {
            return End::Anew;
        };
        let Some(name) = self.place.probe_name() else {
            return End::Lost(closed());
        };
        let probe = Probe::new(&name);
        let opened = self.link.dialer().open_side(&at, self.handler(&probe)).await;
        let (mut mux, driver) = match opened {
            Ok(opened) => opened,
            Err(SideError::NoResp3(reason)) => return End::Refused(Refusal::NoResp3, reason),
            Err(SideError::Failed(error)) => return refused_or_lost(error),
        };
        let mut driver = AbortOnDrop(driver);
        if let Err(error) = switch_on(&mut mux, self.link.options(), prefixes).await {
            return refused_or_lost(error);
        }
        let claim = match mux.send_packed_command(&self.place.question()).await {
            Ok(answer) => match self.place.claim(answer) {
                Ok(claim) => claim,
                Err(error) => return refused_or_lost(error),
            },
            Err(error) => return refused_or_lost(Error::in_flight(error)),
        };
        let key = probe.key.clone();
        let written = Command::new("SET").arg(&key).arg("1").arg("PX").int(PROBE_TTL_MS);
        if let Err(error) = self.link.command(written).await {
            return match error.kind() {
                ErrorKind::Permission => End::Refused(Refusal::NotPermitted, error.to_string()),
                _ => End::Lost(error),
            };
        }
        tokio::select! {
            _ = &mut driver.0 => return End::Lost(closed()),
            told = tokio::time::timeout(self.link.options().response_timeout, probe.told.notified()) => {
                if told.is_err() && self.link.generation() != generation {
                    // The change may have been made on another server than the one that is listened to.
                    return End::Anew;
                }
                if told.is_err() {
                    return End::Refused(Refusal::NotTold, "no message came of a change that was made for it".to_owned());
                }
            }
        }
        if !self.arm(version, generation) {
            return End::Anew;
        }
        if self.tell(TrackingState::On) != TrackingState::On {
            tracing::info!(server = %self.link.url(), "near cache: on");
        }
        self.listen(mux, driver, version, generation, claim).await
    }

    async fn listen(
        &self,
        mut mux: MultiplexedConnection,
        mut driver: AbortOnDrop,
        version: u64,
        generation: u64,
        claim: u64,
    ) -> End {
        let heartbeat = self.options.heartbeat;
        let mut previous = Moment::now();
        loop {
            tokio::select! {
                _ = &mut driver.0 => return End::Lost(closed()),
                () = self.more.notified() => return End::Anew,
                () = self.link.next_generation(generation) => return End::Anew,
                () = tokio::time::sleep(heartbeat / BEATS) => {}
            }
            let sent = Moment::now();
            let question = self.place.question();
            match tokio::time::timeout(heartbeat, mux.send_packed_command(&question)).await {
                Ok(Ok(answer)) => match self.place.claim(answer) {
                    Ok(now) if now == claim => {}
                    Ok(_) => return End::Lost(claimed_anew()),
                    Err(error) => return End::Lost(error),
                },
                Ok(Err(error)) => return End::Lost(Error::in_flight(error)),
                Err(_) => return End::Lost(silent(heartbeat)),
            }
            // Redis sends what a turn of its loop has changed after the replies of that turn, so this answer proves only that what
            // changed before the question before this one has been told.
            if !self.confirm(version, previous) {
                return End::Anew;
            }
            previous = sent;
        }
    }

    fn handler(&self, probe: &Probe) -> PushHandler {
        let listener = Arc::clone(&self.listener);
        let (probe_key, told) = (probe.key.clone(), Arc::clone(&probe.told));
        Box::new(move |push: PushInfo| {
            if push.kind != PushKind::Invalidate {
                return;
            }
            match push.data.into_iter().next() {
                Some(Value::Array(keys)) => {
                    for key in keys {
                        match key {
                            Value::BulkString(key) if key == probe_key.as_bytes() => told.notify_one(),
                            Value::BulkString(key) => listener.changed(&key),
                            Value::SimpleString(key) => listener.changed(key.as_bytes()),
                            _ => listener.all_changed(),
                        }
                    }
                }
                // Nil after FLUSHALL and FLUSHDB. What cannot be understood may mean anything.
                _ => listener.all_changed(),
            }
        })
    }

    /// From here on, what is read is told of when it changes. False if more prefixes are wanted by now.
    fn arm(&self, version: u64, generation: u64) -> bool {
        let wanted = self.wanted.lock();
        if wanted.version != version {
            return false;
        }
        self.listener.all_changed();
        self.armed_for.store(generation, Ordering::Release);
        self.coherent_for_heartbeat_from(Moment::now());
        true
    }

    fn confirm(&self, version: u64, told_up_to: Moment) -> bool {
        let wanted = self.wanted.lock();
        if wanted.version != version {
            return false;
        }
        self.coherent_for_heartbeat_from(told_up_to);
        true
    }

    fn coherent_for_heartbeat_from(&self, moment: Moment) {
        self.coherent_until.store(moment.deadline(self.options.heartbeat).number(), Ordering::Release);
    }

    fn never_coherent(&self) {
        self.coherent_until.store(Moment::NEVER.number(), Ordering::Release);
    }

    fn silence(&self) {
        self.never_coherent();
        self.listener.silence();
    }

    fn wanted(&self) -> (u64, BTreeSet<String>) {
        let wanted = self.wanted.lock();
        let mut prefixes = wanted.prefixes.clone();
        if !prefixes.is_empty() {
            prefixes.insert(PROBE_PREFIX.to_owned());
        }
        (wanted.version, shortest(prefixes))
    }

    /// Says how it stands now and returns how it stood.
    fn tell(&self, state: TrackingState) -> TrackingState {
        self.state.send_replace(state)
    }
}

/// Those that begin with none of the others: a server refuses prefixes that overlap.
fn shortest(prefixes: BTreeSet<String>) -> BTreeSet<String> {
    let mut kept: Vec<String> = Vec::new();
    // In this order all that begin with a prefix follow it.
    for prefix in prefixes {
        if kept.last().is_none_or(|before| !prefix.starts_with(before.as_str())) {
            kept.push(prefix);
        }
    }
    kept.into_iter().collect()
}

/// A key that is changed to see whether its change is told.
struct Probe {
    key: String,
    told: Arc<Notify>,
}

impl Probe {
    fn new(name: &str) -> Self {
        Self { key: format!("{PROBE_PREFIX}{name}{:032x}", rand::random::<u128>()), told: Arc::default() }
    }
}

struct AbortOnDrop(JoinHandle<()>);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

async fn switch_on(
    mux: &mut MultiplexedConnection,
    options: &crate::LinkOptions,
    prefixes: &BTreeSet<String>,
) -> Result<(), Error> {
    let mut name = redis::cmd("CLIENT");
    name.arg("SETNAME").arg(format!("{}:near", options.client_name));
    let mut tracking = redis::cmd("CLIENT");
    tracking.arg("TRACKING").arg("ON").arg("BCAST");
    for prefix in prefixes {
        tracking.arg("PREFIX").arg(prefix);
    }
    // A server that does not let us name the connection may track all the same.
    let _ = mux.send_packed_command(&name).await;
    match mux.send_packed_command(&tracking).await {
        Ok(answer) => crate::Reply::from_value(answer).ok().map(drop),
        Err(error) => Err(Error::in_flight(error)),
    }
}

fn refused_or_lost(error: Error) -> End {
    match error.kind() {
        ErrorKind::Permission => End::Refused(Refusal::NotPermitted, error.to_string()),
        ErrorKind::Server => End::Refused(Refusal::NotSupported, error.to_string()),
        _ => End::Lost(error),
    }
}

fn closed() -> Error {
    Error::new(
        ErrorKind::ConnectionLost,
        crate::Delivery::Unknown,
        "the connection for invalidations was closed",
    )
}

fn claimed_anew() -> Error {
    Error::new(
        ErrorKind::ConnectionLost,
        crate::Delivery::Unknown,
        "the server's claim to its keys is another than when tracking was switched on",
    )
}

fn silent(heartbeat: Duration) -> Error {
    Error::new(
        ErrorKind::Timeout,
        crate::Delivery::Unknown,
        format!("the connection for invalidations gave no sign of life for {heartbeat:?}"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_prefixes_that_begin_with_one_another_the_shortest_are_asked_for() {
        let all = ["a:", "a", "ab", "b:c", "b:d", "b", "mtcache:", PROBE_PREFIX].map(str::to_owned);
        let asked: Vec<_> = shortest(all.into_iter().collect()).into_iter().collect();
        assert_eq!(asked, ["a", "b", "mtcache:"]);
        let apart = ["a:", "ab:", "b:"].map(str::to_owned);
        assert_eq!(shortest(apart.clone().into_iter().collect()).len(), apart.len());
    }
}
