//! The one error type of this crate.
//!
//! Invariants: errors are values, each cause has its own kind, and none of them reads as a miss; an error of a write says
//! whether the write can have taken effect. Deliberately absent: the backend's own error types, which are only a source here.

use std::error::Error as StdError;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

/// What this crate's calls return.
pub type Result<T> = std::result::Result<T, Error>;

/// What went wrong, by who can do something about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The URL or an option is not usable. Fix the configuration.
    Config,
    /// A TTL of nothing, below a millisecond, or beyond what the backend can hold. Fix the caller.
    BadTtl,
    /// A key that cannot be. Fix the caller.
    BadKey,
    /// The value has no stored form: NaN or an infinity, a map with keys that are not text. Fix the caller.
    Unencodable,
    /// The stored bytes are not a value of the type asked for. Fix the writer, or delete the key.
    Undecodable,
    /// The key holds another type: a hash where a string is asked for. Fix the caller, or delete the key.
    WrongType,
    /// The key holds a value that is not a number, or the result would not fit.
    NotANumber,
    /// The backend is out of reach; the command was not sent. It is reconnected by itself.
    Unavailable,
    /// The connection broke under way: the outcome is unknown.
    ConnectionLost,
    /// The backend did not answer in time: the outcome is unknown.
    Timeout,
    /// The backend refuses our credentials, or our user may not do this, or one side does not take the other's certificate.
    Denied,
    /// The backend is out of memory and may not evict.
    OutOfMemory,
    /// The backend does not take this now: busy with a script, loading, read-only, failing to persist. If it was under way when
    /// the persisting failed, its outcome is unknown.
    NotNow,
    /// Too much is under way already; this was refused at once to keep the rest fast. Ask again later.
    Shed,
    /// Any other refusal by the backend.
    Refused,
    /// The backend's answer makes no sense.
    Protocol,
    /// The loader returned an error; it is the source.
    Loader,
    /// The loader panicked, and so did the one that took over.
    LoaderPanicked,
    /// The loader took longer than the region allows.
    LoadTimeout,
    /// The read took longer than its caller allows. A load that has begun goes on.
    Deadline,
}

/// Whether a failed write can have taken effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// It has not, and will not.
    NotApplied,
    /// It may have, or may yet.
    Unknown,
}

/// Why a call failed. Cheap to clone: those who waited for the same load share one.
#[derive(Clone)]
pub struct Error(Arc<Inner>);

struct Inner {
    kind: ErrorKind,
    outcome: Outcome,
    message: String,
    source: Option<Box<dyn StdError + Send + Sync>>,
}

impl Error {
    pub(crate) fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self(Arc::new(Inner { kind, outcome: Outcome::NotApplied, message: message.into(), source: None }))
    }

    pub(crate) fn caused(
        kind: ErrorKind,
        message: impl Into<String>,
        source: impl Into<Box<dyn StdError + Send + Sync>>,
    ) -> Self {
        Self(Arc::new(Inner {
            kind,
            outcome: Outcome::NotApplied,
            message: message.into(),
            source: Some(source.into()),
        }))
    }

    pub(crate) fn loader(region: &str, source: Box<dyn StdError + Send + Sync>) -> Self {
        let message = format!("the loader of region {region} failed: {source}");
        Self::caused(ErrorKind::Loader, message, source)
    }

    pub(crate) fn loader_panicked(region: &str) -> Self {
        Self::new(
            ErrorKind::LoaderPanicked,
            format!("the loader of region {region} panicked, or its runtime was shut down"),
        )
    }

    pub(crate) fn load_timeout(region: &str, limit: Duration) -> Self {
        Self::new(
            ErrorKind::LoadTimeout,
            format!(
                "the loader of region {region} took longer than {limit:?}; make it faster or raise load_timeout"
            ),
        )
    }

    pub(crate) fn lapsed(region: &str) -> Self {
        Self::new(
            ErrorKind::LoadTimeout,
            format!(
                "what was known of an entry of region {region} was over before all of its batch had come, and nothing newer was to be had; ask for it again, or for fewer at once"
            ),
        )
    }

    /// What begins so was invalidated, and others may not be told.
    pub(crate) fn untold(prefix: &str, error: &Self) -> Self {
        let message = format!(
            "what begins with {prefix} was invalidated, but our user may not tell other processes, which may serve what they knew of it marked stale: {error}"
        );
        let source = Some(Box::from(error.clone()));
        Self(Arc::new(Inner { kind: error.kind(), outcome: Outcome::Unknown, message, source }))
    }

    pub(crate) fn protocol(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Protocol, message)
    }

    /// What went wrong.
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }

    /// Whether the failed call can have taken effect.
    pub fn outcome(&self) -> Outcome {
        self.0.outcome
    }

    /// True if our user may not do this; other than a refusal of our credentials it will not pass with another connection.
    pub(crate) fn is_forbidden(&self) -> bool {
        let source = self.0.source.as_ref().and_then(|source| source.downcast_ref::<mtcache_link::Error>());
        source.is_some_and(|error| error.kind() == mtcache_link::ErrorKind::Permission)
    }

    /// True if the backend is out of reach or does not answer, so that a later try may do better.
    pub fn is_backend_down(&self) -> bool {
        matches!(
            self.0.kind,
            ErrorKind::Unavailable | ErrorKind::ConnectionLost | ErrorKind::Timeout | ErrorKind::NotNow
        )
    }
}

impl From<mtcache_link::Error> for Error {
    fn from(error: mtcache_link::Error) -> Self {
        use mtcache_link::ErrorKind as Link;
        let kind = match error.kind() {
            Link::Config => ErrorKind::Config,
            Link::Connect => ErrorKind::Unavailable,
            Link::ConnectionLost => ErrorKind::ConnectionLost,
            Link::Timeout => ErrorKind::Timeout,
            Link::Auth | Link::Permission | Link::Tls => ErrorKind::Denied,
            Link::WrongType => ErrorKind::WrongType,
            Link::OutOfMemory => ErrorKind::OutOfMemory,
            Link::Busy | Link::WritesRefused => ErrorKind::NotNow,
            Link::Overloaded => ErrorKind::Shed,
            Link::Protocol => ErrorKind::Protocol,
            Link::Server if is_about_a_number(&error.to_string()) => ErrorKind::NotANumber,
            _ => ErrorKind::Refused,
        };
        let outcome = match error.delivery() {
            mtcache_link::Delivery::Unknown => Outcome::Unknown,
            _ => Outcome::NotApplied,
        };
        Self(Arc::new(Inner { kind, outcome, message: error.to_string(), source: Some(Box::new(error)) }))
    }
}

fn is_about_a_number(text: &str) -> bool {
    ["not an integer", "not a valid float", "would overflow", "would produce NaN"]
        .iter()
        .any(|part| text.contains(part))
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
            .field("outcome", &self.0.outcome)
            .field("message", &self.0.message)
            .finish()
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.0.source.as_deref().map(|source| source as &(dyn StdError + 'static))
    }
}
