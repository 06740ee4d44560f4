//! Looks after the connection to one node: makes it, waits for its end, and makes the next one.
//!
//! Pauses between attempts grow exponentially with jitter; what a breaker adds is in `breaker.rs`. Invariant: whatever becomes of a
//! connection, the next attempt comes by itself. Deliberately absent: what callers see meanwhile (`connection.rs`).

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use redis::aio::MultiplexedConnection;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::breaker::Breaker;
use crate::connection::{Connection, Identity, State, Trial};
use crate::dial::Dialer;
use crate::error::{Delivery, Error, ErrorKind, Result};
use crate::options::LinkOptions;
use crate::reply::Reply;
use crate::route::Route;
use crate::url::Transport;

pub(crate) async fn supervise(
    dialer: Dialer,
    route: Route,
    state: watch::Sender<State>,
    generation: Arc<AtomicU64>,
    server_run: Arc<AtomicU64>,
) {
    let options = dialer.options();
    let mut failures = 0_u32;
    let mut breaker = Breaker::default();
    let mut node: Option<Transport> = None;
    // The last connection: the server may not have read all that was sent on it.
    let mut abandoned: Option<Identity> = None;
    loop {
        let attempt = tokio::select! {
            () = state.closed() => return,
            attempt = connect(&dialer, &route, abandoned.as_ref()) => attempt,
        };
        match attempt {
            Ok((connection, driver)) => {
                if node.as_ref() != Some(connection.at()) {
                    // Another node, whose silences these were not.
                    breaker = Breaker::default();
                    node = Some(connection.at().clone());
                }
                let trial = breaker.is_open(options).then(|| Trial::new(silent(connection.at(), options)));
                // The run first: between the two, the number would stand for a server whose run is not known.
                server_run.store(run_of(connection.identity()), Ordering::Release);
                let number = generation.fetch_add(1, Ordering::AcqRel) + 1;
                let connection = Arc::new(connection.begin(number, trial));
                let server = connection.at();
                let since = Instant::now();
                if failures > 0 {
                    tracing::info!(%server, "connected again");
                }
                state.send_replace(State::Up(Arc::clone(&connection)));
                if watch_over(&connection, driver, &route, &state, &mut breaker, options).await
                    == Ended::NobodyListens
                {
                    return;
                }
                connection.give_up();
                breaker.ended(connection.was_silent(), connection.replies(), options);
                if route.moves() {
                    // From here on nothing counts that was heard of a server which may be the primary no more.
                    generation.fetch_add(1, Ordering::AcqRel);
                }
                abandoned = connection.identity().cloned();
                if breaker.is_open(options) {
                    let pause = breaker.pause(options);
                    tracing::warn!(%server, ?pause, "the server takes connections and answers nothing; calls are refused for a while");
                    state.send_replace(State::Down(silent(server, options)));
                    tokio::select! {
                        () = state.closed() => return,
                        () = route.leads_elsewhere(server) => {}
                        () = tokio::time::sleep(pause) => {}
                    }
                    continue;
                }
                tracing::warn!(%server, "connection lost, connecting again");
                // A server that takes connections and drops them at once must not be hammered.
                if since.elapsed() > options.backoff_max {
                    failures = 0;
                    state.send_replace(State::Connecting);
                    continue;
                }
                if failures == 0 {
                    failures = 1;
                    state.send_replace(State::Connecting);
                    continue;
                }
                state.send_replace(State::Down(Error::new(
                    ErrorKind::Connect,
                    Delivery::NotSent,
                    format!("{server} keeps closing the connection"),
                )));
            }
            Err(error) => {
                if failures == 0 {
                    tracing::warn!(%error, "no connection, trying on");
                }
                // A refusal does not pass by waiting a moment, and each attempt is a line in the server's log.
                if matches!(error.kind(), ErrorKind::Auth | ErrorKind::Tls) {
                    failures = u32::MAX;
                }
                state.send_replace(State::Down(error));
            }
        }
        failures = failures.saturating_add(1);
        tokio::select! {
            () = state.closed() => return,
            () = tokio::time::sleep(pause(failures, options)) => {}
        }
    }
}

/// Stands for the run of a server, the same to everybody who asks it; 0 if it does not say which it is.
fn run_of(identity: Option<&Identity>) -> u64 {
    // FNV-1a: what it is hashed to is kept in stored values, and must not change with a release.
    let hash = |run: &str| {
        run.bytes()
            .fold(0xCBF2_9CE4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01B3))
    };
    identity.map_or(0, |identity| hash(&identity.run))
}

#[derive(PartialEq)]
enum Ended {
    Connection,
    NobodyListens,
}

async fn watch_over(
    connection: &Connection,
    mut driver: JoinHandle<()>,
    route: &Route,
    state: &watch::Sender<State>,
    breaker: &mut Breaker,
    options: &LinkOptions,
) -> Ended {
    let mut is_on_trial = connection.is_on_trial();
    loop {
        let ended = tokio::select! {
            _ = &mut driver => return Ended::Connection,
            () = connection.broken() => Ended::Connection,
            () = route.leads_elsewhere(connection.at()) => Ended::Connection,
            () = state.closed() => Ended::NobodyListens,
            () = connection.found_silent(options.response_timeout) => {
                connection.give_up_as_silent();
                Ended::Connection
            }
            () = connection.proved(), if is_on_trial => {
                is_on_trial = false;
                breaker.proved(options);
                tracing::info!(server = %connection.at(), "the server answers again");
                // Those who wait for a connection look again.
                state.send_modify(|_| {});
                continue;
            }
        };
        driver.abort();
        return ended;
    }
}

fn silent(at: &Transport, options: &LinkOptions) -> Error {
    Error::new(
        ErrorKind::Connect,
        Delivery::NotSent,
        format!(
            "{at} takes connections and answers nothing within {:?}, {} times in a row; calls are refused until one is answered",
            options.response_timeout, options.breaker_silences
        ),
    )
}

/// Exponential back-off with jitter over its upper half, so that many clients of one server do not come back together.
pub(crate) fn pause(failures: u32, options: &LinkOptions) -> Duration {
    let doubled = options
        .backoff_min
        .saturating_mul(1_u32.checked_shl(failures.saturating_sub(1).min(16)).unwrap_or(u32::MAX));
    let ceiling = doubled.min(options.backoff_max);
    ceiling.mul_f64(0.5 + 0.5 * rand::random::<f64>())
}

async fn connect(
    dialer: &Dialer,
    route: &Route,
    abandoned: Option<&Identity>,
) -> Result<(Connection, JoinHandle<()>)> {
    let attempt = async {
        let at = route.find().await?;
        let (mut mux, driver) = dialer.open(&at).await?;
        route.check(&at, &mut mux).await?;
        let introduced = async {
            let identity = introduce(&mut mux, dialer.options()).await?;
            if let (Some(old), Some(new)) = (abandoned, &identity) {
                fence(&mut mux, old, new).await?;
            }
            Ok(identity)
        };
        let identity = introduced.await.map_err(|error| Error::connecting(&at, error))?;
        Ok((Connection::new(at, mux, identity), driver))
    };
    match tokio::time::timeout(dialer.options().connect_timeout, attempt).await {
        Ok(outcome) => outcome,
        Err(_) => Err(dialer.too_late(route)),
    }
}

/// Tells the server our name and asks who we are to it. A server that refuses any of it is used all the same.
async fn introduce(
    mux: &mut MultiplexedConnection,
    options: &LinkOptions,
) -> redis::RedisResult<Option<Identity>> {
    let mut questions = redis::pipe();
    questions.cmd("CLIENT").arg("SETNAME").arg(&options.client_name);
    questions.cmd("CLIENT").arg("ID");
    questions.cmd("INFO").arg("server");
    let mut answers =
        mux.send_packed_commands(&questions, 0, 3).await?.into_iter().map(Reply::from_value).skip(1);
    let client = answers.next().and_then(|id| id.into_int().ok());
    let info = answers.next().and_then(|info| info.into_bytes().ok()).flatten().unwrap_or_default();
    let run = String::from_utf8_lossy(&info)
        .lines()
        .find_map(|line| line.strip_prefix("run_id:").map(|id| id.trim().to_owned()));
    Ok(client.zip(run).map(|(client, run)| Identity { run, client }))
}

/// Has the server close the connection before this one, so that what was sent on it and not yet read is never run: a write
/// whose outcome we reported as unknown must not take effect after later ones that succeeded.
async fn fence(mux: &mut MultiplexedConnection, old: &Identity, new: &Identity) -> redis::RedisResult<()> {
    if old.run != new.run {
        // A server that was started anew has forgotten it, and its number may be somebody else's now.
        return Ok(());
    }
    let mut kill = redis::cmd("CLIENT");
    kill.arg("KILL").arg("ID").arg(old.client);
    // Mostly it is closed already; not being allowed to is no reason to go without a connection.
    let answer = mux.send_packed_command(&kill).await?;
    tracing::debug!(?answer, "the connection before this one is closed");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pause_grows_to_its_bound_and_never_past_it() {
        let options = LinkOptions::default();
        for failures in 1..80 {
            let pause = pause(failures, &options);
            assert!(pause <= options.backoff_max, "{failures}: {pause:?}");
            assert!(pause >= options.backoff_min / 2, "{failures}: {pause:?}");
        }
        assert!(super::pause(40, &options) >= options.backoff_max / 2);
    }
}
