//! A task on a stack of its own, so that a script that takes too long can stop in the middle of a command and let the worker
//! serve its other connections.
//!
//! A task asks for a stack with [`on_a_fiber`] and has it until it next waits. On it, [`give_turn`] hands the thread back to the event
//! loop, which comes again at the next opportunity; the task knows nothing of it. Invariant: what stops there runs on: a
//! stack with a script on it is never thrown away.

use std::cell::Cell;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use corosensei::stack::DefaultStack;
use corosensei::{Coroutine, CoroutineResult, Yielder};
use scoped_tls::scoped_thread_local;

/// Bytes of such a stack, of which only those are taken that are used. Default: 8 MB, as the main thread of a process has.
const STACK_BYTES: usize = 8 * 1024 * 1024;

scoped_thread_local!(static YIELDER: Yielder<(), ()>);

thread_local! {
    static IS_WANTED: Cell<bool> = const { Cell::new(false) };
    /// There was no memory for a stack: the task runs where it is, and holds the thread as long as it takes.
    static IS_REFUSED: Cell<bool> = const { Cell::new(false) };
    /// One that is free.
    static STACK: Cell<Option<DefaultStack>> = const { Cell::new(None) };
}

/// A task that can ask for a stack of its own.
pub(crate) struct Fiber<F>(State<F>);

type Boxed<F> = Pin<Box<F>>;
type Running<F> = Coroutine<(), (), (Boxed<F>, Poll<()>), DefaultStack>;

enum State<F> {
    /// It waits, or runs on the thread's stack.
    Plain(Boxed<F>),
    /// It has stopped in the middle.
    Stopped(Running<F>),
    Over,
}

impl<F: Future<Output = ()> + 'static> Fiber<F> {
    pub(crate) fn new(task: F) -> Self {
        Self(State::Plain(Box::pin(task)))
    }

    /// Runs the task on a stack of its own up to where it waits or stops.
    fn enter(&mut self, task: Boxed<F>, waker: &Waker) -> Poll<()> {
        let Ok(stack) = STACK.take().map_or_else(|| DefaultStack::new(STACK_BYTES), Ok) else {
            tracing::error!("no memory for the stack of a script");
            IS_REFUSED.set(true);
            waker.wake_by_ref();
            self.0 = State::Plain(task);
            return Poll::Pending;
        };
        let in_there = waker.clone();
        let running = Coroutine::with_stack(stack, move |yielder, ()| {
            let mut task = task;
            let polled = YIELDER.set(yielder, || task.as_mut().poll(&mut Context::from_waker(&in_there)));
            (task, polled)
        });
        self.go_on(running, waker)
    }

    fn go_on(&mut self, mut running: Running<F>, waker: &Waker) -> Poll<()> {
        match running.resume(()) {
            CoroutineResult::Yield(()) => {
                self.0 = State::Stopped(running);
                waker.wake_by_ref();
                Poll::Pending
            }
            CoroutineResult::Return((task, polled)) => {
                STACK.set(Some(running.into_stack()));
                if polled.is_pending() {
                    self.0 = State::Plain(task);
                }
                polled
            }
        }
    }
}

impl<F: Future<Output = ()> + 'static> Future for Fiber<F> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        match std::mem::replace(&mut self.0, State::Over) {
            State::Plain(mut task) => {
                let polled = task.as_mut().poll(context);
                if IS_WANTED.take() {
                    return self.enter(task, context.waker());
                }
                if polled.is_pending() {
                    self.0 = State::Plain(task);
                }
                polled
            }
            State::Stopped(running) => self.go_on(running, context.waker()),
            State::Over => Poll::Ready(()),
        }
    }
}

impl<F> Drop for Fiber<F> {
    fn drop(&mut self) {
        // Lua cannot be unwound: a script that has stopped runs to its end.
        if let State::Stopped(running) = &mut self.0 {
            while !running.done() {
                let _ = running.resume(());
            }
        }
    }
}

/// Goes on when the task is on a stack of its own, until it next waits.
pub(crate) async fn on_a_fiber() {
    poll_fn(|_| {
        if YIELDER.is_set() || IS_REFUSED.get() {
            return Poll::Ready(());
        }
        IS_WANTED.set(true);
        Poll::Pending
    })
    .await;
}

/// Whether the running task has to ask for a stack of its own first.
pub(crate) fn is_needed() -> bool {
    !YIELDER.is_set() && !IS_REFUSED.take()
}

/// Lets whatever else the thread has to do go first, if it is a task on a stack of its own that calls.
pub(crate) fn give_turn() {
    if YIELDER.is_set() {
        YIELDER.with(|yielder| yielder.suspend(()));
    }
}

#[cfg(test)]
mod tests {
    use std::rc::Rc;

    use tokio::task::{LocalSet, yield_now};

    use super::*;

    fn run(test: impl Future<Output = ()>) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        LocalSet::new().block_on(&runtime, test);
    }

    #[test]
    fn others_run_while_a_task_stops_in_the_middle() {
        run(async {
            let (turns, is_over) = (Rc::new(Cell::new(0)), Rc::new(Cell::new(false)));
            let (seen, over) = (Rc::clone(&turns), Rc::clone(&is_over));
            let task = tokio::task::spawn_local(Fiber::new(async move {
                on_a_fiber().await;
                // No await from here on: a call deep inside, with the task's borrowed state on the stack.
                let before = seen.get();
                let mut local = vec![before];
                while seen.get() < before + 10 {
                    give_turn();
                    local.push(seen.get());
                }
                assert!(local.is_sorted() && local.len() > 2);
                over.set(true);
                // Waiting is as before.
                tokio::time::sleep(std::time::Duration::from_millis(1)).await;
                assert!(is_needed());
                on_a_fiber().await;
                assert!(!is_needed());
            }));
            while !is_over.get() {
                turns.set(turns.get() + 1);
                yield_now().await;
            }
            task.await.unwrap();
            assert!(turns.get() >= 10);
        });
    }

    #[test]
    fn a_task_that_has_stopped_runs_to_its_end_when_it_is_dropped() {
        run(async {
            let steps = Rc::new(Cell::new(0));
            let seen = Rc::clone(&steps);
            let mut fiber = Box::pin(Fiber::new(async move {
                on_a_fiber().await;
                for _ in 0..5 {
                    give_turn();
                    seen.set(seen.get() + 1);
                }
                std::future::pending::<()>().await;
            }));
            poll_fn(|context| {
                assert!(fiber.as_mut().poll(context).is_pending());
                Poll::Ready(())
            })
            .await;
            assert_eq!(steps.get(), 0);
            drop(fiber);
            assert_eq!(steps.get(), 5);
        });
    }

    #[test]
    fn a_panic_on_the_stack_is_a_panic_of_the_task() {
        run(async {
            let task = tokio::task::spawn_local(Fiber::new(async {
                on_a_fiber().await;
                panic!("on purpose");
            }));
            assert!(task.await.unwrap_err().is_panic());
        });
    }
}
