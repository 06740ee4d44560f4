//! Scripts that take too long: others are told so and get turns, and `SCRIPT KILL` ends them.
//!
//! Invariant: a script that has written is never killed, and one that is to be killed never writes any more: both are the same
//! step of one state. The time is looked at every [`INSTRUCTIONS_PER_LOOK`] of Lua's instructions and every [`CALLS_PER_LOOK`]
//! calls of commands; while one of Lua's own functions or one command runs, nobody looks.

use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use crate::error::CommandError;
use crate::keyspace::Busy;
use crate::time::Clock;

/// Instructions of Lua's machine between two looks: about a tenth of a millisecond.
pub(super) const INSTRUCTIONS_PER_LOOK: u32 = 10_000;

/// Calls of commands between two looks.
pub(super) const CALLS_PER_LOOK: u32 = 16;

const IDLE: u8 = 0;
const RUNNING: u8 = 1;
const HAS_WRITTEN: u8 = 2;
const KILLED: u8 = 3;

/// Gives whoever else the thread serves a turn; told whether it is the script's first.
type Turn = Box<dyn Fn(bool) + Send + Sync>;

/// What is known of the script that runs. There is one at a time, for it holds every lock.
pub(super) struct Watchdog {
    clock: Arc<dyn Clock>,
    /// The keyspace's: whoever waits for a lock gives up.
    busy: Arc<Busy>,
    state: AtomicU8,
    /// From then on, by the monotonic clock, the running script takes too long.
    overdue_at: AtomicU64,
    /// The server goes down: scripts that have not written end.
    is_closing: AtomicBool,
    /// And so do all others.
    is_abandoned: AtomicBool,
    turn: OnceLock<Turn>,
}

/// The running script has to end.
pub(super) struct MustEnd;

impl Watchdog {
    pub(super) fn new(clock: Arc<dyn Clock>, busy: Arc<Busy>) -> Self {
        Self {
            clock,
            busy,
            state: AtomicU8::new(IDLE),
            overdue_at: AtomicU64::new(u64::MAX),
            is_closing: AtomicBool::new(false),
            is_abandoned: AtomicBool::new(false),
            turn: OnceLock::new(),
        }
    }

    pub(super) fn set_turn(&self, turn: Turn) {
        // There is one server to an engine; a second one shares the first one's.
        let _ = self.turn.set(turn);
    }

    /// A script begins. `threshold` is in milliseconds; zero for any time.
    pub(super) fn begin(&self, threshold: u64) {
        let overdue_at = match threshold {
            0 => u64::MAX,
            millis => self.clock.monotonic_nanos().saturating_add(millis.saturating_mul(1_000_000)),
        };
        self.overdue_at.store(overdue_at, Ordering::Relaxed);
        self.state.store(RUNNING, Ordering::Release);
    }

    /// It has ended.
    pub(super) fn end(&self) {
        self.overdue_at.store(u64::MAX, Ordering::Relaxed);
        self.busy.lower();
        self.state.store(IDLE, Ordering::Release);
    }

    /// The running script is about to write; refused if it has been killed.
    pub(super) fn write(&self) -> Result<(), MustEnd> {
        match self.state.compare_exchange(RUNNING, HAS_WRITTEN, Ordering::AcqRel, Ordering::Acquire) {
            Err(KILLED) => Err(MustEnd),
            _ => Ok(()),
        }
    }

    /// `SCRIPT KILL`.
    pub(super) fn kill(&self) -> Result<(), CommandError> {
        match self.state.compare_exchange(RUNNING, KILLED, Ordering::AcqRel, Ordering::Acquire) {
            Ok(_) | Err(KILLED) => Ok(()),
            Err(HAS_WRITTEN) => Err(CommandError::UNKILLABLE),
            Err(_) => Err(CommandError::NOT_BUSY),
        }
    }

    /// Makes scripts end from now on, for the server goes down: those that have not written, or all of them.
    pub(super) fn close(&self, all: bool) {
        self.is_abandoned.fetch_or(all, Ordering::AcqRel);
        self.is_closing.store(true, Ordering::Release);
    }

    /// Whether what scripts have written is worth nothing any more.
    pub(super) fn is_abandoned(&self) -> bool {
        self.is_abandoned.load(Ordering::Acquire)
    }

    /// To be called now and then by the thread that runs the script.
    pub(super) fn look(&self) -> Result<(), MustEnd> {
        self.check()?;
        if self.clock.monotonic_nanos() < self.overdue_at.load(Ordering::Relaxed) {
            return Ok(());
        }
        let was_busy = self.busy.raise();
        if let Some(turn) = self.turn.get() {
            turn(!was_busy);
        }
        self.check()
    }

    /// Whether the running script has to end, of which it has been told already.
    pub(super) fn must_end(&self) -> bool {
        self.state.load(Ordering::Acquire) == KILLED || self.is_abandoned()
    }

    fn check(&self) -> Result<(), MustEnd> {
        // Whether a script may be killed is decided in one place.
        if self.is_closing.load(Ordering::Acquire) {
            let _ = self.kill();
        }
        if self.must_end() { Err(MustEnd) } else { Ok(()) }
    }
}
