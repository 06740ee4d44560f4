//! The URL forms of a link.
//!
//! Invariant: a URL is either understood wholly or refused with a message that says why; nothing in it is ignored.
//! Deliberately absent: TLS, Sentinel and Cluster, which are refused here until they come.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use crate::error::{Error, Result};

/// The port of a `redis://` URL that names none.
const DEFAULT_PORT: u16 = 6379;

/// How the server is reached.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Transport {
    /// TCP to a host and port.
    Tcp {
        /// Host name or address.
        host: String,
        /// Port.
        port: u16,
    },
    /// A Unix socket.
    Unix {
        /// The socket's path.
        path: PathBuf,
    },
}

/// A parsed URL of a server.
///
/// Forms: `redis://[user][:password]@host[:port][/db]`, `unix:///path/to.sock[?db=N&user=U&password=P]` and
/// `redis+unix://`, the same.
#[derive(Clone, PartialEq, Eq)]
pub struct LinkUrl {
    transport: Transport,
    user: Option<String>,
    password: Option<String>,
    db: u16,
}

impl LinkUrl {
    /// How the server is reached.
    pub fn transport(&self) -> &Transport {
        &self.transport
    }

    /// The user to authenticate as, if one is named.
    pub fn user(&self) -> Option<&str> {
        self.user.as_deref()
    }

    /// The password, if there is one.
    pub fn password(&self) -> Option<&str> {
        self.password.as_deref()
    }

    /// The database. Default: 0.
    pub fn db(&self) -> u16 {
        self.db
    }
}

impl FromStr for LinkUrl {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let url = url::Url::parse(text)
            .map_err(|e| Error::config(format!("{} is not a URL: {e}", redacted(text))))?;
        match url.scheme() {
            "redis" => tcp(&url),
            "unix" | "redis+unix" => unix(&url),
            "rediss" | "valkeys" => Err(later("TLS", url.scheme())),
            "redis+sentinel" | "rediss+sentinel" => Err(later("Sentinel", url.scheme())),
            "redis+cluster" | "rediss+cluster" => Err(later("Cluster", url.scheme())),
            other => Err(Error::config(format!(
                "the scheme {other}:// is not known; use redis://host:port/db or unix:///path/to.sock"
            ))),
        }
    }
}

fn later(what: &str, scheme: &str) -> Error {
    Error::config(format!("{what} ({scheme}://) comes later; use redis:// or unix:// for now"))
}

fn tcp(url: &url::Url) -> Result<LinkUrl> {
    if let Some((name, _)) = url.query_pairs().next() {
        return Err(Error::config(format!(
            "the option {name} in a redis:// URL is not known; the database goes in the path, as in redis://host/2"
        )));
    }
    let host = match url.host() {
        Some(url::Host::Ipv6(addr)) => addr.to_string(),
        Some(host) => host.to_string(),
        None => "127.0.0.1".to_owned(),
    };
    let host = if host.is_empty() { "127.0.0.1".to_owned() } else { host };
    let path = url.path().trim_start_matches('/').trim_end_matches('/');
    Ok(LinkUrl {
        transport: Transport::Tcp { host, port: url.port().unwrap_or(DEFAULT_PORT) },
        user: none_if_empty(decode(url.username())?),
        password: url.password().map(decode).transpose()?,
        db: if path.is_empty() { 0 } else { database(path)? },
    })
}

fn unix(url: &url::Url) -> Result<LinkUrl> {
    if url.host_str().is_some_and(|h| !h.is_empty()) {
        return Err(Error::config("a unix:// URL names a path, with three slashes: unix:///run/redis.sock"));
    }
    let path = decode(url.path())?;
    if path.is_empty() || path == "/" {
        return Err(Error::config("the unix:// URL has no path of a socket"));
    }
    let mut parsed = LinkUrl {
        transport: Transport::Unix { path: PathBuf::from(path) },
        user: none_if_empty(decode(url.username())?),
        password: url.password().map(decode).transpose()?,
        db: 0,
    };
    for (name, value) in url.query_pairs() {
        match &*name {
            "db" => parsed.db = database(&value)?,
            "user" | "username" => parsed.user = Some(value.into_owned()),
            "pass" | "password" => parsed.password = Some(value.into_owned()),
            other => {
                return Err(Error::config(format!(
                    "the option {other} in a unix:// URL is not known; there are db, user and password"
                )));
            }
        }
    }
    Ok(parsed)
}

fn database(text: &str) -> Result<u16> {
    text.parse().map_err(|_| Error::config(format!("{text} is not a database; a number such as 0 is wanted")))
}

fn none_if_empty(text: String) -> Option<String> {
    (!text.is_empty()).then_some(text)
}

/// Undoes percent-encoding, which names and passwords need for `@`, `:` and `/`.
fn decode(text: &str) -> Result<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes().iter().copied();
    while let Some(byte) = rest.next() {
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        let digit = |b: Option<u8>| b.and_then(|b| char::from(b).to_digit(16));
        match (digit(rest.next()), digit(rest.next())) {
            (Some(high), Some(low)) => bytes.push((high * 16 + low) as u8),
            _ => {
                return Err(Error::config(
                    "a % in the URL is not followed by two hex digits; write a bare % as %25",
                ));
            }
        }
    }
    String::from_utf8(bytes).map_err(|_| Error::config("the URL's escapes do not make UTF-8"))
}

/// The text without what could be a password, for messages.
fn redacted(text: &str) -> String {
    match (text.find("://"), text.rfind('@')) {
        (Some(scheme), Some(at)) if at > scheme => {
            format!("{}://***{}", &text[..scheme], &text[at..])
        }
        _ => text.to_owned(),
    }
}

/// Without the password.
impl fmt::Display for LinkUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.transport {
            Transport::Tcp { host, port } if host.contains(':') => {
                write!(f, "redis://[{host}]:{port}/{}", self.db)
            }
            Transport::Tcp { host, port } => write!(f, "redis://{host}:{port}/{}", self.db),
            Transport::Unix { path } => write!(f, "unix://{}?db={}", path.display(), self.db),
        }
    }
}

/// Without the password.
impl fmt::Debug for LinkUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "LinkUrl({self})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> LinkUrl {
        text.parse().unwrap()
    }

    #[test]
    fn a_bare_host_gets_the_default_port_and_database() {
        let url = parse("redis://cache.example");
        assert_eq!(url.transport, Transport::Tcp { host: "cache.example".into(), port: 6379 });
        assert_eq!((url.db, url.user(), url.password()), (0, None, None));
    }

    #[test]
    fn user_password_port_and_database_are_read() {
        let url = parse("redis://al%40ice:p%2Fw%25@10.0.0.1:7000/5");
        assert_eq!(url.user(), Some("al@ice"));
        assert_eq!(url.password(), Some("p/w%"));
        assert_eq!(url.db, 5);
        assert_eq!(url.to_string(), "redis://10.0.0.1:7000/5");
    }

    #[test]
    fn a_password_alone_is_the_default_users() {
        let url = parse("redis://:secret@localhost:6380");
        assert_eq!((url.user(), url.password()), (None, Some("secret")));
    }

    #[test]
    fn an_ipv6_address_is_read() {
        let url = parse("redis://[::1]:7001/1");
        assert_eq!(url.transport, Transport::Tcp { host: "::1".into(), port: 7001 });
    }

    #[test]
    fn a_unix_socket_takes_its_options_from_the_query() {
        let url = parse("unix:///run/r.sock?db=3&user=u&password=p");
        assert_eq!(url.transport, Transport::Unix { path: "/run/r.sock".into() });
        assert_eq!((url.db, url.user(), url.password()), (3, Some("u"), Some("p")));
        assert_eq!(parse("redis+unix:///run/r.sock"), parse("unix:///run/r.sock"));
    }

    #[test]
    fn what_comes_later_says_so() {
        for text in ["rediss://h", "redis+sentinel://h/m", "redis+cluster://h"] {
            let error = text.parse::<LinkUrl>().unwrap_err();
            assert!(error.to_string().contains("comes later"), "{error}");
        }
    }

    #[test]
    fn what_is_not_understood_is_refused() {
        for text in
            ["", "localhost:6379", "http://x", "redis://h/x", "redis://h?db=1", "unix://h/p", "unix://"]
        {
            assert!(text.parse::<LinkUrl>().is_err(), "{text}");
        }
    }

    #[test]
    fn no_message_shows_the_password() {
        let url = parse("redis://u:hunter2@h:1/0");
        assert!(!format!("{url} {url:?}").contains("hunter2"));
        let error = "redis://u:hunter2@[bad".parse::<LinkUrl>().unwrap_err();
        assert!(!error.to_string().contains("hunter2"), "{error}");
    }
}
