//! When a connection's driver has its turn: after the tasks that are ready to run, not before the next of them.
//!
//! Tokio runs a task that was woken before all others that wait, up to three times in a row. A driver that is woken by the first of many
//! callers would so write a few commands at a time, with a system call of this process and one of the server for each few; behind the others it
//! finds all their commands at once. Where few commands are under way there is nothing to be gathered, and to go to the end of the
//! queue would wake another thread for nothing. Invariant: it is late by one round of the tasks that are ready at the most.
//! Deliberately absent: waiting for commands that might come.

use std::pin::Pin;
use std::task::{Context, Poll};

/// Commands under way up to which the driver does not let others pass: with two, it cost as much as it saved.
const FEW: usize = 2;

pub(crate) struct AfterOthers<F, N> {
    driver: Pin<Box<F>>,
    /// How many commands are under way.
    in_flight: N,
    has_let_pass: bool,
}

impl<F: Future, N: Fn() -> usize + Unpin> AfterOthers<F, N> {
    pub(crate) fn new(driver: F, in_flight: N) -> Self {
        Self { driver: Box::pin(driver), in_flight, has_let_pass: false }
    }
}

impl<F: Future, N: Fn() -> usize + Unpin> Future for AfterOthers<F, N> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<F::Output> {
        if !self.has_let_pass && (self.in_flight)() > FEW {
            self.has_let_pass = true;
            // A task that wakes itself goes to the end of the queue.
            context.waker().wake_by_ref();
            return Poll::Pending;
        }
        self.has_let_pass = false;
        self.driver.as_mut().poll(context)
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use tokio::sync::mpsc;

    use super::*;

    /// How many of so many messages, each of a task of its own, a driver finds when it looks first.
    async fn found_at_once(count: usize, drive: impl Fn(Driver) -> tokio::task::JoinHandle<usize>) -> usize {
        let (sender, receiver) = mpsc::unbounded_channel();
        let driver = drive(driver(receiver));
        // From a worker, as where the tasks of a batch of replies are woken.
        let sent = tokio::spawn(async move {
            tokio::task::yield_now().await;
            for n in 0..count {
                let sender = sender.clone();
                tokio::spawn(async move { sender.send(n) });
            }
        });
        sent.await.unwrap();
        driver.await.unwrap()
    }

    type Driver = Pin<Box<dyn Future<Output = usize> + Send>>;

    fn driver(mut receiver: mpsc::UnboundedReceiver<usize>) -> Driver {
        Box::pin(poll_fn(move |context| {
            let mut found = 0;
            loop {
                match receiver.poll_recv(context) {
                    Poll::Ready(Some(_)) => found += 1,
                    Poll::Ready(None) => return Poll::Ready(found),
                    Poll::Pending if found == 0 => return Poll::Pending,
                    Poll::Pending => return Poll::Ready(found),
                }
            }
        }))
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 1)]
    async fn what_many_tasks_send_is_found_together() {
        assert_eq!(found_at_once(8, |driver| tokio::spawn(AfterOthers::new(driver, || 8))).await, 8);
        assert!(found_at_once(8, |driver| tokio::spawn(AfterOthers::new(driver, || FEW))).await < 8);
        // What it is for: should tokio come to do the same by itself, this file can go.
        assert!(found_at_once(8, |driver| tokio::spawn(driver)).await < 8);
    }

    #[tokio::test]
    async fn it_ends_with_its_driver() {
        let mut left = 3;
        let driver = poll_fn(move |context| {
            left -= 1;
            if left == 0 {
                return Poll::Ready("over");
            }
            context.waker().wake_by_ref();
            Poll::Pending
        });
        assert_eq!(tokio::spawn(AfterOthers::new(driver, || 8)).await.unwrap(), "over");
    }
}
