//! Asks sentinels which server is the primary of a service, and hears of it when that changes.
//!
//! One connection to each sentinel, subscribed to `+switch-master` and asked once a second besides, so that a message that was lost
//! costs a second. Invariants: of different answers the one with the highest configuration epoch counts, which is how sentinels agree among
//! themselves, so that one that was cut off from the others does not lead back to a primary of before; before each connection to a primary
//! all are asked anew. Deliberately absent: finding sentinels that the URL does not name, and sending anything to the servers.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use redis::aio::MultiplexedConnection;
use redis::{PushInfo, PushKind};
use tokio::sync::{Notify, watch};
use tokio::task::JoinHandle;

use crate::dial::{Dialer, PushHandler};
use crate::error::{Delivery, Error, ErrorKind, Result};
use crate::reply::Reply;
use crate::supervise;
use crate::url::{Endpoint, Sentinels, Transport};

/// Time between two questions to a sentinel that says nothing by itself.
const ASK_PERIOD: Duration = Duration::from_secs(1);
/// How long the first answer waits for others, which may know of a later failover.
const OTHERS_PATIENCE: Duration = Duration::from_millis(100);
/// What sentinels publish when another server has become the primary.
const SWITCHED: &str = "+switch-master";

/// Knows the primary of one service. Stops when it is dropped.
pub(crate) struct Watch {
    shared: Arc<Shared>,
    tasks: Vec<JoinHandle<()>>,
}

struct Shared {
    service: String,
    /// Grows when all are to be asked anew.
    round: watch::Sender<u64>,
    views: watch::Sender<Vec<View>>,
    /// What was last named as the primary, for the log.
    named: Mutex<Option<Endpoint>>,
}

/// What one sentinel says.
#[derive(Clone, Debug)]
struct View {
    /// The round that it has answered last, or failed to.
    round: u64,
    said: Result<Sighting>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Sighting {
    primary: Endpoint,
    epoch: u64,
}

impl Watch {
    /// Starts to ask. Must be called inside a tokio runtime.
    pub(crate) fn start(sentinels: &Sentinels, dialer: &Dialer) -> Self {
        let not_yet = Error::new(ErrorKind::Connect, Delivery::NotSent, "no answer yet");
        let views =
            sentinels.endpoints.iter().map(|_| View { round: 0, said: Err(not_yet.clone()) }).collect();
        let shared = Arc::new(Shared {
            service: sentinels.service.clone(),
            round: watch::Sender::new(0),
            views: watch::Sender::new(views),
            named: Mutex::default(),
        });
        let dialer = dialer.as_login(sentinels.login.clone());
        let tasks = sentinels
            .endpoints
            .iter()
            .enumerate()
            .map(|(n, sentinel)| {
                tokio::spawn(Arc::clone(&shared).keep_asking(n, sentinel.clone(), dialer.clone()))
            })
            .collect();
        Self { shared, tasks }
    }

    pub(crate) fn service(&self) -> &str {
        &self.shared.service
    }

    /// Asks all sentinels, and says which server the one that knows best names. Waits for the first answer, and for the others a little.
    pub(crate) async fn primary(&self) -> Result<Endpoint> {
        let mut views = self.shared.views.subscribe();
        let mut round = 0;
        self.shared.round.send_modify(|last| {
            *last += 1;
            round = *last;
        });
        let all_settled = |views: &Vec<View>| views.iter().all(|view| view.round >= round);
        let gone =
            |_| Error::new(ErrorKind::Connect, Delivery::NotSent, "the sentinels are not asked any more");
        views
            .wait_for(|views| {
                all_settled(views) || views.iter().any(|view| view.round >= round && view.said.is_ok())
            })
            .await
            .map_err(gone)?;
        // All that matters is that the wait is over.
        let _ = tokio::time::timeout(OTHERS_PATIENCE, views.wait_for(all_settled)).await;
        let views = views.borrow().clone();
        let Some(best) = best(&views) else {
            return Err(nobody_knows(&self.shared.service, &views));
        };
        let before = self.shared.named.lock().replace(best.primary.clone());
        if before.as_ref().is_some_and(|before| *before != best.primary) {
            tracing::warn!(service = self.shared.service, primary = %best.primary, "Sentinel: another server is the primary now");
        }
        Ok(best.primary.clone())
    }

    /// Waits until another server than this is named.
    pub(crate) async fn elsewhere(&self, than: &Endpoint) {
        let mut views = self.shared.views.subscribe();
        let moved = views.wait_for(|views| best(views).is_some_and(|best| best.primary != *than));
        if moved.await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        for task in &self.tasks {
            task.abort();
        }
    }
}

impl Shared {
    async fn keep_asking(self: Arc<Self>, n: usize, sentinel: Endpoint, dialer: Dialer) {
        let mut rounds = self.round.subscribe();
        let mut failures = 0;
        loop {
            let mut answered = false;
            let error = self.converse(n, &sentinel, &dialer, &mut rounds, &mut answered).await;
            failures = if answered { 1 } else { failures + 1 };
            if failures == 1 {
                tracing::warn!(%sentinel, %error, "Sentinel: no answer, asking on");
            }
            let round = *rounds.borrow();
            self.tell(n, round, Err(error));
            tokio::select! {
                () = tokio::time::sleep(supervise::pause(failures, dialer.options())) => {}
                _ = rounds.changed() => {}
            }
        }
    }

    /// Asks on one connection until it ends; says why it did.
    async fn converse(
        &self,
        n: usize,
        sentinel: &Endpoint,
        dialer: &Dialer,
        rounds: &mut watch::Receiver<u64>,
        answered: &mut bool,
    ) -> Error {
        // What is asked for from here on is a new attempt.
        rounds.mark_unchanged();
        let switched = Arc::new(Notify::new());
        let at = Transport::Tcp(sentinel.clone());
        let opening = dialer.open_hearing(&at, handler(&switched));
        let (mut mux, driver) = match tokio::time::timeout(dialer.options().connect_timeout, opening).await {
            Ok(Ok(opened)) => opened,
            Ok(Err(error)) => return of_sentinel(sentinel, &error),
            Err(_) => return of_sentinel(sentinel, &dialer.too_late(&at)),
        };
        let mut driver = AbortOnDrop(driver);
        // One that cannot be subscribed to is asked only.
        let _ = mux.subscribe(SWITCHED).await;
        loop {
            let round = *rounds.borrow_and_update();
            match self.ask(&mut mux, sentinel).await {
                Ok(said) => {
                    *answered = true;
                    self.tell(n, round, said);
                }
                Err(error) => return of_sentinel(sentinel, &error),
            }
            tokio::select! {
                _ = &mut driver.0 => return of_sentinel(sentinel, &closed()),
                _ = rounds.changed() => {}
                () = switched.notified() => {}
                () = tokio::time::sleep(ASK_PERIOD) => {}
            }
        }
    }

    /// The outer error ends the connection, the inner one is an answer.
    async fn ask(&self, mux: &mut MultiplexedConnection, sentinel: &Endpoint) -> Result<Result<Sighting>> {
        let mut questions = redis::pipe();
        questions.cmd("SENTINEL").arg("get-master-addr-by-name").arg(&self.service);
        questions.cmd("SENTINEL").arg("master").arg(&self.service);
        let answers = mux.send_packed_commands(&questions, 0, 2).await.map_err(Error::in_flight)?;
        let mut answers = answers.into_iter().map(Reply::from_value);
        let (address, details) = (answers.next().unwrap_or(Reply::Nil), answers.next().unwrap_or(Reply::Nil));
        match address.ok() {
            Ok(Reply::Nil) => Ok(Err(Error::config(format!(
                "sentinel {sentinel} watches no service {}; the name is the one after monitor in its configuration",
                self.service
            )))),
            Ok(address) => {
                let primary = endpoint(address)?;
                // Without the right to ask for it all epochs are equal, and most voices count.
                Ok(Ok(Sighting { primary, epoch: epoch(details).unwrap_or(0) }))
            }
            Err(refused) => Ok(Err(of_sentinel(sentinel, &refused))),
        }
    }

    fn tell(&self, n: usize, round: u64, said: Result<Sighting>) {
        self.views.send_modify(|views| {
            if let Some(view) = views.get_mut(n) {
                (view.round, view.said) = (round, said);
            }
        });
    }
}

/// The sighting of the highest epoch; of equal ones, that of most sentinels, and then of the first.
fn best(views: &[View]) -> Option<&Sighting> {
    let seen = || views.iter().filter_map(|view| view.said.as_ref().ok());
    let voices = |sighting: &Sighting| seen().filter(|other| *other == sighting).count();
    // The last of equals wins there.
    seen().rev().max_by_key(|sighting| (sighting.epoch, voices(sighting)))
}

fn nobody_knows(service: &str, views: &[View]) -> Error {
    let errors = || views.iter().filter_map(|view| view.said.as_ref().err());
    let of = |kind: ErrorKind| errors().find(|error| error.kind() == kind).cloned();
    // Whoever answered knows more than whoever did not.
    if let Some(error) = of(ErrorKind::Config).or_else(|| of(ErrorKind::Auth)).or_else(|| of(ErrorKind::Tls))
    {
        return error;
    }
    let said: Vec<String> = errors().map(ToString::to_string).collect();
    Error::new(
        ErrorKind::Connect,
        Delivery::NotSent,
        format!("no sentinel says which server is the primary of {service}: {}", said.join("; ")),
    )
}

fn of_sentinel(sentinel: &Endpoint, error: &Error) -> Error {
    let hint = match error.kind() {
        ErrorKind::Auth => {
            "; user and password for sentinels are the URL's sentinel_user and sentinel_password"
        }
        ErrorKind::Permission => "; its user has to be allowed sentinel|get-master-addr-by-name",
        _ => "",
    };
    Error::new(error.kind(), Delivery::NotSent, format!("sentinel {sentinel}: {error}{hint}"))
}

fn endpoint(address: Reply) -> Result<Endpoint> {
    let mut parts = address.into_array()?.into_iter();
    let mut text = || -> Result<String> {
        let part = parts.next().unwrap_or(Reply::Nil).into_bytes()?.unwrap_or_default();
        Ok(String::from_utf8_lossy(&part).into_owned())
    };
    let (host, port) = (text()?, text()?);
    match port.parse() {
        Ok(port @ 1..) if !host.is_empty() => Ok(Endpoint { host, port }),
        _ => Err(Error::protocol(format!("a sentinel's answer is no address: {host}:{port}"))),
    }
}

fn epoch(details: Reply) -> Option<u64> {
    let pairs = details.into_pairs().ok()?;
    let text = |reply: Reply| reply.into_bytes().ok().flatten();
    let (_, epoch) = pairs.into_iter().find_map(|(name, value)| {
        let name = text(name)?;
        (name == b"config-epoch").then_some((name, value))
    })?;
    String::from_utf8(text(epoch)?).ok()?.parse().ok()
}

fn handler(switched: &Arc<Notify>) -> PushHandler {
    let switched = Arc::clone(switched);
    Box::new(move |push: PushInfo| {
        // Whatever service it is about: asking costs less than understanding.
        if push.kind == PushKind::Message {
            switched.notify_one();
        }
    })
}

fn closed() -> Error {
    Error::new(ErrorKind::ConnectionLost, Delivery::NotSent, "the connection was closed")
}

struct AbortOnDrop(JoinHandle<()>);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn view(said: Option<(u16, u64)>) -> View {
        let at = |port| Endpoint { host: "h".to_owned(), port };
        let said = said.map(|(primary, epoch)| Sighting { primary: at(primary), epoch });
        View { round: 1, said: said.ok_or_else(closed) }
    }

    fn chosen(said: &[Option<(u16, u64)>]) -> Option<u16> {
        let views: Vec<View> = said.iter().map(|said| view(*said)).collect();
        best(&views).map(|sighting| sighting.primary.port)
    }

    #[test]
    fn the_highest_epoch_counts_then_most_voices_then_the_first() {
        assert_eq!(chosen(&[None, None]), None);
        assert_eq!(chosen(&[None, Some((7, 0))]), Some(7));
        assert_eq!(chosen(&[Some((1, 4)), Some((1, 4)), Some((2, 5))]), Some(2));
        assert_eq!(chosen(&[Some((1, 0)), Some((2, 0)), Some((2, 0))]), Some(2));
        assert_eq!(chosen(&[Some((1, 3)), Some((2, 3))]), Some(1));
    }

    #[test]
    fn a_sentinel_that_knows_no_such_service_says_more_than_one_that_is_silent() {
        let mut views = vec![view(None), view(None)];
        assert_eq!(nobody_knows("s", &views).kind(), ErrorKind::Connect);
        views[1].said = Err(Error::config("no such service"));
        assert_eq!(nobody_knows("s", &views).kind(), ErrorKind::Config);
    }
}
