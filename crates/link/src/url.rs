//! The URL forms of a link: one server, a service that sentinels watch, a cluster.
//!
//! Invariants: a URL is either understood wholly or refused with a message that says what is wrong and how it is written; nothing in it
//! is ignored, and no text made from one, an error's included, shows a password. Deliberately absent: reading files that a URL
//! names, and looking anything up.

mod options;
mod parse;

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

pub use self::options::{FORMS, OPTIONS, OptionOf, UrlForm, UrlOption};
use crate::error::{Error, Result};
use crate::tls::TlsOptions;

/// A host and port.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Endpoint {
    /// Host name or address; an IPv6 address without brackets.
    pub host: String,
    /// Port.
    pub port: u16,
}

/// How one server is reached.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Transport {
    /// TCP to a host and port, with TLS if [`LinkUrl::tls`] says so.
    Tcp(Endpoint),
    /// A Unix socket, by its path.
    Unix(PathBuf),
}

/// What a URL names.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Target {
    /// One server.
    Server(Transport),
    /// The primary of a service, which sentinels know.
    Sentinel(Sentinels),
    /// A cluster, by some of its nodes.
    Cluster(Vec<Endpoint>),
}

/// The sentinels to ask, and what for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sentinels {
    /// Where they are, in the order of the URL.
    pub endpoints: Vec<Endpoint>,
    /// The service's name, as in `sentinel monitor NAME`.
    pub service: String,
    /// The user and password for the sentinels themselves; they do not share the servers'.
    pub login: Login,
}

/// A user and password. Its text forms do not show the password.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Login {
    /// None: the default user.
    pub user: Option<String>,
    /// None: nothing is said.
    pub password: Option<String>,
}

/// A parsed URL of a server, a watched service or a cluster. [`FORMS`] has the forms, [`OPTIONS`] what follows the `?`.
///
/// ```
/// use mtcache_link::{LinkUrl, Target};
///
/// let url: LinkUrl = "rediss+sentinel://app:s3cret@s1:26379,s2:26379/prices/2".parse()?;
/// let Target::Sentinel(sentinels) = url.target() else { unreachable!() };
/// assert_eq!((sentinels.service.as_str(), sentinels.endpoints.len(), url.db()), ("prices", 2, 2));
/// assert!(url.tls().is_some());
/// assert_eq!(url.to_string(), "rediss+sentinel://s1:26379,s2:26379/prices/2");
/// # Ok::<(), mtcache_link::Error>(())
/// ```
#[derive(Clone, PartialEq, Eq)]
pub struct LinkUrl {
    target: Target,
    login: Login,
    db: u16,
    tls: Option<TlsOptions>,
}

impl LinkUrl {
    /// What it names.
    pub fn target(&self) -> &Target {
        &self.target
    }

    /// The user to authenticate as, if one is named.
    pub fn user(&self) -> Option<&str> {
        self.login.user.as_deref()
    }

    /// The password, if there is one.
    pub fn password(&self) -> Option<&str> {
        self.login.password.as_deref()
    }

    /// User and password for the servers.
    pub fn login(&self) -> &Login {
        &self.login
    }

    /// The database. Default: 0.
    pub fn db(&self) -> u16 {
        self.db
    }

    /// How TLS is spoken; none if it is not.
    pub fn tls(&self) -> Option<&TlsOptions> {
        self.tls.as_ref()
    }

    /// The URL of one server that this one has led to: the same user, password, database and TLS.
    #[must_use]
    pub fn at(&self, transport: Transport) -> Self {
        Self { target: Target::Server(transport), ..self.clone() }
    }
}

impl FromStr for LinkUrl {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        parse::parse(text)
    }
}

/// Without user and password.
impl fmt::Display for LinkUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let s = if self.tls.is_some() { "s" } else { "" };
        match &self.target {
            Target::Server(Transport::Tcp(endpoint)) => write!(f, "redis{s}://{endpoint}/{}", self.db),
            Target::Server(Transport::Unix(path)) => {
                write!(f, "unix://{}?db={}", parse::escaped_path(&path.to_string_lossy()), self.db)
            }
            Target::Sentinel(sentinels) => {
                let service = parse::escaped(&sentinels.service);
                write!(f, "redis{s}+sentinel://{}/{service}/{}", Listed(&sentinels.endpoints), self.db)
            }
            Target::Cluster(endpoints) => write!(f, "redis{s}+cluster://{}", Listed(endpoints)),
        }
    }
}

/// Without user and password.
impl fmt::Debug for LinkUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "LinkUrl({self})")
    }
}

impl fmt::Debug for Login {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let password = self.password.as_ref().map(|_| "***");
        f.debug_struct("Login").field("user", &self.user).field("password", &password).finish()
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

impl fmt::Display for Transport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(endpoint) => endpoint.fmt(f),
            Self::Unix(path) => path.display().fmt(f),
        }
    }
}

/// Endpoints with commas between them.
struct Listed<'a>(&'a [Endpoint]);

impl fmt::Display for Listed<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (n, endpoint) in self.0.iter().enumerate() {
            write!(f, "{}{endpoint}", if n == 0 { "" } else { "," })?;
        }
        Ok(())
    }
}
