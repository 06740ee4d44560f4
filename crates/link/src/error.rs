//! The one error type of this crate.
//!
//! Invariant: every error says what kind of trouble it is and whether the command can have taken effect (`Delivery`), because
//! that, not the text, decides what may be sent again. Deliberately absent: anything that reads as "no value".

use std::fmt;
use std::sync::Arc;

/// What this crate's calls return.
pub type Result<T> = std::result::Result<T, Error>;

/// What went wrong, by who can do something about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The URL or an option is not usable. Fix the configuration.
    Config,
    /// No connection could be made. It is tried again by itself.
    Connect,
    /// The connection broke while the command was under way.
    ConnectionLost,
    /// No answer within the response timeout.
    Timeout,
    /// The server refuses our name or password, or wants one.
    Auth,
    /// One side does not take the other's certificate, or the two cannot speak TLS with one another. It is tried again by itself, as
    /// certificates are renewed.
    Tls,
    /// The key holds another type (WRONGTYPE).
    WrongType,
    /// The server is out of memory and may not evict (OOM).
    OutOfMemory,
    /// The server does not know the script (NOSCRIPT). Handled inside; seen only if the server forgets it at once.
    NoScript,
    /// The server is busy with a script (BUSY), or loading its data (LOADING), or says try again.
    Busy,
    /// The server does not take writes now (READONLY, MISCONF, NOREPLICAS, MASTERDOWN).
    WritesRefused,
    /// Our user may not run this command (NOPERM).
    Permission,
    /// Any other error reply.
    Server,
    /// The reply does not have the form that the command promises.
    Protocol,
    /// Too many commands are under way on this link already.
    Overloaded,
}

/// Whether a failed command can have taken effect on the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Delivery {
    /// It was never sent.
    NotSent,
    /// The server answered with an error: the command had no effect.
    Refused,
    /// It was sent and no answer came. It may or may not have taken effect, or may do so yet.
    Unknown,
}

/// Why a command on a link failed.
#[derive(Clone)]
pub struct Error(Arc<Inner>);

struct Inner {
    kind: ErrorKind,
    delivery: Delivery,
    code: Option<String>,
    message: String,
    source: Option<redis::RedisError>,
}

impl Error {
    pub(crate) fn new(kind: ErrorKind, delivery: Delivery, message: impl Into<String>) -> Self {
        Self(Arc::new(Inner { kind, delivery, code: None, message: message.into(), source: None }))
    }

    pub(crate) fn config(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Config, Delivery::NotSent, message)
    }

    pub(crate) fn protocol(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Protocol, Delivery::Unknown, message)
    }

    /// An error reply of the server, by its code word.
    pub fn server(code: &str, detail: Option<&str>) -> Self {
        let kind = match code {
            "WRONGTYPE" => ErrorKind::WrongType,
            "OOM" => ErrorKind::OutOfMemory,
            "NOSCRIPT" => ErrorKind::NoScript,
            "BUSY" | "LOADING" | "TRYAGAIN" | "CLUSTERDOWN" => ErrorKind::Busy,
            "READONLY" | "MISCONF" | "NOREPLICAS" | "MASTERDOWN" => ErrorKind::WritesRefused,
            "NOAUTH" | "WRONGPASS" => ErrorKind::Auth,
            "NOPERM" => ErrorKind::Permission,
            // A script's own error arrives as ERR with the inner code inside the text.
            _ if detail.is_some_and(|d| d.contains("WRONGTYPE ")) => ErrorKind::WrongType,
            _ if detail.is_some_and(|d| d.contains("OOM command not allowed")) => ErrorKind::OutOfMemory,
            _ => ErrorKind::Server,
        };
        let message = match detail {
            Some(detail) => format!("{code} {detail}"),
            None => code.to_owned(),
        };
        Self(Arc::new(Inner {
            kind,
            delivery: Delivery::Refused,
            code: Some(code.to_owned()),
            message,
            source: None,
        }))
    }

    /// The command has run, and whether its effect is kept nobody can say: a server that answers each command would have
    /// answered nothing.
    pub fn in_doubt(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::WritesRefused, Delivery::Unknown, message)
    }

    /// The command was not sent, because what it is for is out of reach.
    pub fn not_sent(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Connect, Delivery::NotSent, message)
    }

    /// A failure of a command that had been handed to the connection.
    pub(crate) fn in_flight(error: redis::RedisError) -> Self {
        // A transaction that was refused while queueing: the reason is the refused command's, not EXEC's.
        if let Some(refusals) = error.clone().into_server_errors()
            && let Some((_, refusal)) = refusals.first()
        {
            return Self::server(refusal.code(), refusal.details());
        }
        if let redis::ErrorKind::Server(_) | redis::ErrorKind::Extension = error.kind() {
            let code = error.code().unwrap_or("ERR").to_owned();
            return Self::server(&code, error.detail());
        }
        let (kind, message) = if error.is_timeout() {
            (
                ErrorKind::Timeout,
                "no answer within the response timeout; the command may still take effect".to_owned(),
            )
        } else if error.kind() == redis::ErrorKind::Parse {
            (ErrorKind::Protocol, format!("the server's reply cannot be read: {error}"))
        } else if error.kind() == redis::ErrorKind::AuthenticationFailed {
            (ErrorKind::Auth, format!("the server refuses the credentials: {error}"))
        } else {
            (
                ErrorKind::ConnectionLost,
                format!(
                    "the connection broke before the answer came; the command may or may not have taken effect: {error}"
                ),
            )
        };
        Self(Arc::new(Inner { kind, delivery: Delivery::Unknown, code: None, message, source: Some(error) }))
    }

    /// A failure to make a connection, whatever its cause.
    pub(crate) fn connecting(target: &impl fmt::Display, error: redis::RedisError) -> Self {
        let code = error.code().unwrap_or_default().to_owned();
        let detail = error.detail().unwrap_or_default();
        let wants_password = matches!(code.as_str(), "NOAUTH" | "WRONGPASS")
            || error.kind() == redis::ErrorKind::AuthenticationFailed
            || detail.contains("WRONGPASS")
            || detail.contains("NOAUTH")
            || detail.contains("invalid username-password pair")
            || detail.contains("without any password configured");
        let kind = if wants_password {
            ErrorKind::Auth
        } else if code == "LOADING" {
            ErrorKind::Busy
        } else {
            ErrorKind::Connect
        };
        Self(Arc::new(Inner {
            kind,
            delivery: Delivery::NotSent,
            code: (!code.is_empty()).then_some(code),
            message: format!("cannot connect to {target}: {error}"),
            source: Some(error),
        }))
    }

    /// What went wrong.
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }

    /// Whether the command can have taken effect.
    pub fn delivery(&self) -> Delivery {
        self.0.delivery
    }

    /// The server's code word (`WRONGTYPE`, `OOM`), if the server answered.
    pub fn code(&self) -> Option<&str> {
        self.0.code.as_deref()
    }

    /// True if the server refuses this as a replica does.
    pub(crate) fn is_of_a_replica(&self) -> bool {
        self.delivery() == Delivery::Refused && matches!(self.code(), Some("READONLY" | "MASTERDOWN"))
    }

    /// True if the server is, or seems, out of reach.
    pub fn is_connection_trouble(&self) -> bool {
        matches!(self.0.kind, ErrorKind::Connect | ErrorKind::ConnectionLost | ErrorKind::Timeout)
    }
}

/// Two errors are the same if they say the same; where they came from does not matter.
impl PartialEq for Error {
    fn eq(&self, other: &Self) -> bool {
        (self.0.kind, self.0.delivery, &self.0.message) == (other.0.kind, other.0.delivery, &other.0.message)
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.message)
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Error")
            .field("kind", &self.0.kind)
            .field("delivery", &self.0.delivery)
            .field("message", &self.0.message)
            .finish()
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.0.source.as_ref().map(|e| e as &(dyn std::error::Error + 'static))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wrong_type_inside_a_script_is_still_a_wrong_type() {
        let error = Error::server("ERR", Some("Error running script: WRONGTYPE Operation against a key"));
        assert_eq!(error.kind(), ErrorKind::WrongType);
        assert_eq!(error.delivery(), Delivery::Refused);
    }

    #[test]
    fn each_code_word_has_its_kind() {
        for (code, kind) in [
            ("WRONGTYPE", ErrorKind::WrongType),
            ("OOM", ErrorKind::OutOfMemory),
            ("NOSCRIPT", ErrorKind::NoScript),
            ("BUSY", ErrorKind::Busy),
            ("LOADING", ErrorKind::Busy),
            ("READONLY", ErrorKind::WritesRefused),
            ("NOAUTH", ErrorKind::Auth),
            ("NOPERM", ErrorKind::Permission),
            ("ERR", ErrorKind::Server),
        ] {
            assert_eq!(Error::server(code, None).kind(), kind, "{code}");
        }
    }
}
