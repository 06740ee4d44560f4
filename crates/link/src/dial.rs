//! One attempt to make a connection: reach the server, speak TLS where the URL says so, log in, agree on a protocol version.
//!
//! Invariant: an attempt ends within the connect timeout, and its error says which of these steps failed and what to do about it.
//! Deliberately absent: another attempt, which `connection.rs` decides over.

use std::fmt;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, ProtocolVersion, RedisConnectionInfo};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio::task::JoinHandle;

use crate::error::{Delivery, Error, ErrorKind, Result};
use crate::options::LinkOptions;
use crate::tls::{self, Connector, LastWords};
use crate::turns::AfterOthers;
use crate::url::{Endpoint, LinkUrl, Login, Transport};

/// Idle time after which the kernel asks whether the other side still lives.
const KEEPALIVE_IDLE: Duration = Duration::from_secs(15);
/// Pause between the kernel's questions.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(5);
/// Sent bytes that nobody acknowledges for so long end the connection.
const UNACKNOWLEDGED_MAX: Duration = Duration::from_secs(30);
/// Commands handed to the connection's task ahead of its writing them.
const SEND_QUEUE: usize = 1024;

/// Is called for each message that is no reply, as it is read.
pub(crate) type PushHandler = Box<dyn Fn(redis::PushInfo) + Send + Sync>;

/// A connection, and the task that drives it.
pub(crate) type Opened = (MultiplexedConnection, JoinHandle<()>);

/// Makes connections as one URL says. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Dialer(Arc<Inner>);

struct Inner {
    login: Login,
    db: u16,
    tls: Option<Arc<Connector>>,
    options: LinkOptions,
    in_flight: AtomicUsize,
}

/// Why there is no connection with pushes.
pub(crate) enum SideError {
    /// The server does not speak RESP3; in its own words.
    NoResp3(String),
    Failed(Error),
}

impl Dialer {
    /// Reads certificates once; what is wrong with them is a mistake in the configuration.
    pub(crate) fn new(url: &LinkUrl, options: LinkOptions) -> Result<Self> {
        let tls = match url.tls() {
            Some(tls) => Some(Arc::new(Connector::new(tls.or(&options.tls))?)),
            None if options.tls != tls::TlsOptions::default() => {
                return Err(Error::config(
                    "there are options for TLS and the URL is of a form without it; write rediss:// for redis://",
                ));
            }
            None => None,
        };
        Ok(Self(Arc::new(Inner {
            login: url.login().clone(),
            db: url.db(),
            tls,
            options,
            in_flight: AtomicUsize::new(0),
        })))
    }

    /// The same with another user and password, and database 0.
    pub(crate) fn as_login(&self, login: Login) -> Self {
        let (tls, options) = (self.0.tls.clone(), self.0.options.clone());
        Self(Arc::new(Inner { login, db: 0, tls, options, in_flight: AtomicUsize::new(0) }))
    }

    pub(crate) fn options(&self) -> &LinkOptions {
        &self.0.options
    }

    /// Commands under way over its connections.
    pub(crate) fn in_flight(&self) -> &AtomicUsize {
        &self.0.in_flight
    }

    /// A connection for commands, over the newest protocol that the server speaks.
    pub(crate) async fn open(&self, at: &Transport) -> Result<Opened> {
        match self.attempt(at, ProtocolVersion::RESP3, None).await {
            Err(Failure::Redis(error, _)) if speaks_only_resp2(&error) => {
                self.attempt(at, ProtocolVersion::RESP2, None).await
            }
            other => other,
        }
        .map_err(|failure| self.explain(at, failure))
    }

    /// A connection for commands and for messages of the server, if it speaks RESP3, or for commands alone.
    pub(crate) async fn open_hearing(&self, at: &Transport, pushes: PushHandler) -> Result<Opened> {
        match self.attempt(at, ProtocolVersion::RESP3, Some(pushes)).await {
            Err(Failure::Redis(error, _)) if speaks_only_resp2(&error) => {
                self.attempt(at, ProtocolVersion::RESP2, None).await
            }
            other => other,
        }
        .map_err(|failure| self.explain(at, failure))
    }

    /// A connection beside the one for commands, for messages of the server. Nobody replaces it; the task ends with it.
    pub(crate) async fn open_side(
        &self,
        at: &Transport,
        pushes: PushHandler,
    ) -> std::result::Result<Opened, SideError> {
        let attempt = self.attempt(at, ProtocolVersion::RESP3, Some(pushes));
        let connect_timeout = self.0.options.connect_timeout;
        match tokio::time::timeout(connect_timeout, attempt).await {
            Ok(Ok(opened)) => Ok(opened),
            Ok(Err(Failure::Redis(error, _))) if speaks_only_resp2(&error) => {
                Err(SideError::NoResp3(error.to_string()))
            }
            Ok(Err(Failure::Redis(error, _))) if error.code() == Some("NOPERM") => {
                Err(SideError::Failed(Error::in_flight(error)))
            }
            Ok(Err(failure)) => Err(SideError::Failed(self.explain(at, failure))),
            Err(_) => Err(SideError::Failed(self.too_late(at))),
        }
    }

    /// There was no connection within the connect timeout.
    pub(crate) fn too_late(&self, at: &impl fmt::Display) -> Error {
        let hint = match &self.0.tls {
            Some(_) => "; is this its TLS port?",
            None => "",
        };
        Error::new(
            ErrorKind::Connect,
            Delivery::NotSent,
            format!(
                "cannot connect to {at}: nothing usable within {:?}{hint}",
                self.0.options.connect_timeout
            ),
        )
    }

    fn explain(&self, at: &Transport, failure: Failure) -> Error {
        match failure {
            Failure::Ours(error) => error,
            Failure::Redis(error, last_words) => {
                let tls = last_words
                    .and_then(|words| words.heard())
                    .zip(self.0.tls.as_deref())
                    .zip(tcp(at))
                    .and_then(|((heard, tls), endpoint)| tls::explain(&heard, endpoint, tls.options()));
                tls.unwrap_or_else(|| Error::connecting(at, error))
            }
        }
    }

    async fn attempt(
        &self,
        at: &Transport,
        protocol: ProtocolVersion,
        pushes: Option<PushHandler>,
    ) -> std::result::Result<Opened, Failure> {
        let unreached = |error: io::Error| Failure::Redis(error.into(), None);
        match (at, &self.0.tls) {
            (Transport::Tcp(endpoint), tls) => {
                let stream =
                    TcpStream::connect((endpoint.host.as_str(), endpoint.port)).await.map_err(unreached)?;
                tune(&stream).map_err(unreached)?;
                match tls {
                    None => self.log_in(stream, protocol, pushes).await.map_err(|e| Failure::Redis(e, None)),
                    Some(tls) => {
                        let stream = tls.connect(stream, endpoint).await.map_err(Failure::Ours)?;
                        let last_words = stream.last_words();
                        let opened = self.log_in(stream, protocol, pushes).await;
                        opened.map_err(|error| Failure::Redis(error, Some(last_words)))
                    }
                }
            }
            (Transport::Unix(path), _) => {
                let stream = UnixStream::connect(path).await.map_err(unreached)?;
                self.log_in(stream, protocol, pushes).await.map_err(|e| Failure::Redis(e, None))
            }
        }
    }

    async fn log_in<S>(
        &self,
        stream: S,
        protocol: ProtocolVersion,
        pushes: Option<PushHandler>,
    ) -> redis::RedisResult<Opened>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let mut login = RedisConnectionInfo::default()
            .set_db(i64::from(self.0.db))
            .set_protocol(protocol)
            .set_lib_name("mtcache", env!("CARGO_PKG_VERSION"));
        if let Some(user) = &self.0.login.user {
            login = login.set_username(user);
        }
        if let Some(password) = &self.0.login.password {
            login = login.set_password(password);
        }
        let mut config = AsyncConnectionConfig::new()
            .set_response_timeout(Some(self.0.options.response_timeout))
            .set_pipeline_buffer_size(SEND_QUEUE);
        let hears = pushes.is_some();
        if let Some(pushes) = pushes {
            config = config.set_push_sender(move |push| {
                pushes(push);
                Ok::<(), std::convert::Infallible>(())
            });
        }
        let (mux, driver) = MultiplexedConnection::new_with_config(&login, stream, config).await?;
        if hears {
            // What keys have changed is not to wait for anybody.
            return Ok((mux, tokio::spawn(driver)));
        }
        let dialer = self.clone();
        let in_flight = move || dialer.in_flight().load(Ordering::Relaxed);
        Ok((mux, tokio::spawn(AfterOthers::new(driver, in_flight))))
    }
}

/// Why an attempt failed.
enum Failure {
    /// In words already.
    Ours(Error),
    /// As the client library says it, with what a TLS connection has said besides.
    Redis(redis::RedisError, Option<LastWords>),
}

fn tcp(at: &Transport) -> Option<&Endpoint> {
    match at {
        Transport::Tcp(endpoint) => Some(endpoint),
        Transport::Unix(_) => None,
    }
}

fn speaks_only_resp2(error: &redis::RedisError) -> bool {
    error.kind() == redis::ErrorKind::RESP3NotSupported
        || error.code() == Some("NOPROTO")
        || error.detail().is_some_and(|d| d.contains("unknown command"))
}

fn tune(stream: &TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let socket = socket2::SockRef::from(stream);
    socket.set_tcp_keepalive(
        &socket2::TcpKeepalive::new().with_time(KEEPALIVE_IDLE).with_interval(KEEPALIVE_INTERVAL),
    )?;
    #[cfg(target_os = "linux")]
    socket.set_tcp_user_timeout(Some(UNACKNOWLEDGED_MAX))?;
    Ok(())
}
