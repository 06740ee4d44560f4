//! TLS towards servers: rustls with ring, certificates from files or from what the system trusts.
//!
//! Invariants: a server is spoken to only if its certificate is for the name asked for and signed by somebody trusted, unless the
//! options say in so many words that any will do; files are read anew for each connection, so that certificates change without a
//! restart, and files that do not fit leave the last that did in use. Deliberately absent: encrypted keys, revocation lists, TLS
//! before 1.2.

mod certificates;
mod explain;
mod stream;

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use parking_lot::Mutex;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

pub(crate) use self::explain::explain;
pub(crate) use self::stream::{LastWords, TlsStream};
use crate::error::{Delivery, Error, ErrorKind, Result};
use crate::url::Endpoint;

/// How TLS is spoken. Used by URLs that begin with `rediss`; what such a URL says itself goes before what is set here.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct TlsOptions {
    /// A PEM file with the authorities that may sign servers' certificates, instead of those that the system trusts. Default: none.
    pub ca_file: Option<PathBuf>,
    /// A PEM file with the certificate that this client shows, and those between it and its authority. Default: none.
    pub cert_file: Option<PathBuf>,
    /// A PEM file with that certificate's private key, unencrypted. Default: none.
    pub key_file: Option<PathBuf>,
    /// The name that a server's certificate has to be for. Default: the host of the URL, or that a sentinel or a cluster gives.
    pub server_name: Option<String>,
    /// What is asked of a server's certificate. Default: everything, unless a URL says otherwise.
    pub verification: Option<Verification>,
}

/// What is asked of a server's certificate.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Verification {
    /// It is for the name asked for, in force, and signed by somebody trusted.
    #[default]
    Full,
    /// Nothing: whoever answers is believed. Encrypted, but anybody in between can read along and answer in the server's place.
    None,
}

impl TlsOptions {
    /// These, with the gaps filled from `others`.
    pub(crate) fn or(&self, others: &Self) -> Self {
        // A certificate and its key come from one side.
        let pair = if self.cert_file.is_some() || self.key_file.is_some() { self } else { others };
        Self {
            ca_file: self.ca_file.clone().or_else(|| others.ca_file.clone()),
            cert_file: pair.cert_file.clone(),
            key_file: pair.key_file.clone(),
            server_name: self.server_name.clone().or_else(|| others.server_name.clone()),
            verification: self.verification.or(others.verification),
        }
    }
}

/// Makes TLS connections.
pub(crate) struct Connector {
    options: TlsOptions,
    /// Made of the last files that fitted together.
    last_good: Mutex<Arc<ClientConfig>>,
}

impl Connector {
    /// Reads the files once; what is wrong with them is a mistake in the configuration.
    pub(crate) fn new(options: TlsOptions) -> Result<Self> {
        let config = certificates::config(&options).map_err(Error::config)?;
        if let Some(name) = &options.server_name {
            ServerName::try_from(name.as_str()).map_err(|_| {
                Error::config(
                    "the name for the server's certificate (sni) is neither a host name nor an address",
                )
            })?;
        }
        if options.verification == Some(Verification::None) {
            tracing::warn!("TLS without verification: servers' certificates are taken whoever shows them");
        }
        Ok(Self { options, last_good: Mutex::new(config) })
    }

    /// Speaks TLS over a new connection. What the server says after that, should it end it for our certificate's sake, is in the
    /// stream's last words.
    pub(crate) async fn connect(&self, stream: TcpStream, endpoint: &Endpoint) -> Result<TlsStream> {
        let name = self.options.server_name.as_deref().unwrap_or(&endpoint.host);
        let Ok(name) = ServerName::try_from(name.to_owned()) else {
            return Err(Error::config(format!(
                "{name} is neither a host name nor an address that a certificate could be for"
            )));
        };
        let connector = TlsConnector::from(self.config().await);
        match connector.connect(name, stream).await {
            Ok(stream) => Ok(TlsStream::new(stream)),
            Err(error) => Err(explain(&error, endpoint, &self.options).unwrap_or_else(|| {
                Error::new(
                    ErrorKind::Connect,
                    Delivery::NotSent,
                    format!("cannot connect to {endpoint}: {error} during the TLS handshake; is this its TLS port? If it has none, write redis://"),
                )
            })),
        }
    }

    pub(crate) fn options(&self) -> &TlsOptions {
        &self.options
    }

    async fn config(&self) -> Arc<ClientConfig> {
        let options = self.options.clone();
        let read = tokio::task::spawn_blocking(move || certificates::config(&options)).await;
        let mut last_good = self.last_good.lock();
        match read {
            Ok(Ok(config)) => *last_good = config,
            Ok(Err(reason)) => tracing::warn!(reason, "TLS: certificates stay as they were"),
            Err(error) => tracing::warn!(%error, "TLS: certificates stay as they were"),
        }
        Arc::clone(&last_good)
    }
}

impl fmt::Debug for Connector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connector").field("options", &self.options).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_url_says_goes_first_and_pairs_are_not_mixed() {
        let file = |name: &str| Some(PathBuf::from(name));
        let url = TlsOptions { cert_file: file("a"), key_file: file("b"), ..TlsOptions::default() };
        let set = TlsOptions {
            ca_file: file("ca"),
            cert_file: file("c"),
            key_file: file("d"),
            ..TlsOptions::default()
        };
        let merged = url.or(&set);
        assert_eq!((merged.ca_file, merged.cert_file, merged.key_file), (file("ca"), file("a"), file("b")));
        assert_eq!(TlsOptions::default().or(&set), set);
        let lone = TlsOptions { cert_file: file("a"), ..TlsOptions::default() };
        assert_eq!(lone.or(&set).key_file, None);
        let asking = |verification| TlsOptions { verification, ..TlsOptions::default() };
        for (url, set, merged) in [
            (None, None, None),
            (None, Some(Verification::None), Some(Verification::None)),
            (Some(Verification::Full), Some(Verification::None), Some(Verification::Full)),
            (Some(Verification::None), Some(Verification::Full), Some(Verification::None)),
        ] {
            assert_eq!(asking(url).or(&asking(set)).verification, merged, "{url:?} before {set:?}");
        }
    }
}
