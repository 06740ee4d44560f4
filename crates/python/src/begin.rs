//! Where a call begins, which for an engine in this process is where all of it runs.
//!
//! Invariant: what opens or walks, or is about many entries, holds up neither Python's lock nor a loop. Deliberately absent: how a result comes
//! back (`operation.rs`, `hub.rs`).

use std::future::Future;
use std::panic::resume_unwind;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use pyo3::prelude::*;
use tokio::task::spawn_blocking;

use crate::large::{LARGE, expects_large};
use crate::runtime::runtime;

/// Most entries that a call is about and still begins in the thread that awaits it.
const FEW: usize = 100;

/// Makes the result of a call, holding Python's lock.
pub(crate) type Outcome = Box<dyn FnOnce(Python<'_>) -> PyResult<Py<PyAny>> + Send>;
pub(crate) type Call = Pin<Box<dyn Future<Output = Outcome> + Send>>;

/// Where a call begins.
#[derive(Clone, Copy)]
pub(crate) enum Begin {
    /// In the awaiting thread, with Python's lock: one small thing is done sooner than the lock is given away and taken back.
    Here,
    /// In the awaiting thread, without Python's lock: one command, which may be about much, or brings much.
    Unlocked,
    /// In a thread of the package's own: what takes its time.
    Aside,
}

impl Begin {
    /// For a call about so many entries.
    pub(crate) fn for_many(entries: usize) -> Self {
        if entries > FEW { Self::Aside } else { Self::Here }
    }

    /// For a read of one entry.
    pub(crate) fn for_read() -> Self {
        if expects_large() { Self::Unlocked } else { Self::Here }
    }

    /// For a call about so many entries that brings so many bytes of values.
    pub(crate) fn for_bytes(entries: usize, bytes: usize) -> Self {
        match Self::for_many(entries) {
            Self::Here if bytes >= LARGE => Self::Unlocked,
            begin => begin,
        }
    }

    /// The first step. What needs no waiting ends in it; what does has been sent.
    pub(crate) fn step(self, py: Python<'_>, call: Call) -> PyResult<Polled> {
        let runtime = runtime(py)?;
        let here = move || {
            let _inside = runtime.enter();
            poll(call)
        };
        Ok(match self {
            Self::Here => here(),
            Self::Unlocked => py.detach(here),
            Self::Aside => Polled::Pending(Box::pin(aside(here))),
        })
    }
}

/// A call after its first step.
pub(crate) enum Polled {
    Ended(Outcome),
    Pending(Call),
}

fn poll(mut call: Call) -> Polled {
    // Whoever takes it over polls it again, and is the one who is woken from then on.
    match call.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(outcome) => Polled::Ended(outcome),
        Poll::Pending => Polled::Pending(call),
    }
}

async fn aside(first: impl FnOnce() -> Polled + Send + 'static) -> Outcome {
    match spawn_blocking(first).await.map_err(tokio::task::JoinError::try_into_panic) {
        Ok(Polled::Ended(outcome)) => outcome,
        Ok(Polled::Pending(call)) => call.await,
        Err(Ok(panic)) => resume_unwind(panic),
        Err(Err(_)) => unreachable!("nothing ends a step of a call but itself"),
    }
}
