//! Where the next connection leads to: always to one server, or to whichever is the primary now.
//!
//! Invariant: what may lead elsewhere is asked before each connection. Deliberately absent: making the connection.

use std::fmt;

use redis::aio::MultiplexedConnection;

use crate::dial::Dialer;
use crate::error::{Delivery, Error, ErrorKind, Result};
use crate::reply::Reply;
use crate::sentinel::Watch;
use crate::url::{LinkUrl, Target, Transport};

pub(crate) enum Route {
    /// To one server.
    Fixed(Transport),
    /// To the primary of a service.
    Sentinel(Watch),
}

impl Route {
    /// The route of a URL. Must be called inside a tokio runtime.
    pub(crate) fn of(url: &LinkUrl, dialer: &Dialer) -> Result<Self> {
        match url.target() {
            Target::Server(at) => Ok(Self::Fixed(at.clone())),
            Target::Sentinel(sentinels) => Ok(Self::Sentinel(Watch::start(sentinels, dialer))),
            Target::Cluster(_) => {
                Err(Error::config(format!("{url} is a cluster, which one connection cannot serve")))
            }
        }
    }

    /// True if one connection may lead to another server than the last.
    pub(crate) fn moves(&self) -> bool {
        matches!(self, Self::Sentinel(_))
    }

    /// Where to connect to.
    pub(crate) async fn find(&self) -> Result<Transport> {
        match self {
            Self::Fixed(at) => Ok(at.clone()),
            Self::Sentinel(watch) => Ok(Transport::Tcp(watch.primary().await?)),
        }
    }

    /// Waits until it leads to another place than this.
    pub(crate) async fn leads_elsewhere(&self, than: &Transport) {
        match (self, than) {
            (Self::Sentinel(watch), Transport::Tcp(endpoint)) => watch.elsewhere(endpoint).await,
            _ => std::future::pending().await,
        }
    }

    /// Whether a new connection leads to a server that takes writes, where that is not certain.
    pub(crate) async fn check(&self, at: &Transport, mux: &mut MultiplexedConnection) -> Result<()> {
        let Self::Sentinel(watch) = self else { return Ok(()) };
        let role = match ask(mux, &redis::cmd("ROLE")).await {
            Ok(role) => role.into_array()?.into_iter().next(),
            // Our user may not ask. INFO has it too; without either, a refused write and the sentinels have to tell.
            Err(error) if error.delivery() == Delivery::Refused => return by_info(watch, at, mux).await,
            Err(error) => return Err(error),
        };
        match role.map(Reply::into_bytes).transpose()?.flatten().as_deref() {
            Some(b"master") => Ok(()),
            _ => Err(not_primary(watch, at)),
        }
    }
}

async fn by_info(watch: &Watch, at: &Transport, mux: &mut MultiplexedConnection) -> Result<()> {
    match ask(mux, redis::cmd("INFO").arg("replication")).await {
        Ok(info) => {
            let info = info.into_bytes()?.unwrap_or_default();
            if String::from_utf8_lossy(&info).contains("role:slave") {
                return Err(not_primary(watch, at));
            }
            Ok(())
        }
        Err(error) if error.delivery() == Delivery::Refused => {
            tracing::warn!(server = %at, %error, "Sentinel: whether this server is a primary cannot be asked; allow ROLE to our user");
            Ok(())
        }
        Err(error) => Err(error),
    }
}

async fn ask(mux: &mut MultiplexedConnection, question: &redis::Cmd) -> Result<Reply> {
    match mux.send_packed_command(question).await {
        Ok(value) => Reply::from_value(value).ok(),
        Err(error) => Err(Error::in_flight(error)),
    }
}

impl fmt::Display for Route {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Fixed(at) => at.fmt(f),
            Self::Sentinel(watch) => write!(f, "the primary of {}", watch.service()),
        }
    }
}

fn not_primary(watch: &Watch, at: &Transport) -> Error {
    Error::new(
        ErrorKind::Connect,
        Delivery::NotSent,
        format!(
            "{at} is a replica, though it is named as the primary of {}; the sentinels are asked again",
            watch.service()
        ),
    )
}
