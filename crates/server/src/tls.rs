//! TLS: certificates from files, read at the start and again whenever a parameter that names them is set.
//!
//! Invariant: connections are accepted with the last set of files that fitted together; one that does not is refused in one
//! line and changes nothing. Connections that are open keep what they began with. The provider of the cryptography is ring.
//! Deliberately absent: certificates that are made here, encrypted keys, protocol versions before TLS 1.2.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use mtcache_engine::Config;
use parking_lot::RwLock;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig, SupportedProtocolVersion};
use tokio_rustls::TlsAcceptor;

/// Where TLS listens, and with which files. Names and meaning are Redis'.
#[derive(Debug, Clone)]
pub struct TlsOptions {
    /// TCP port; 0 lets the system choose.
    pub port: u16,
    /// What is presented and asked for.
    pub files: TlsFiles,
}

/// The files behind a TLS port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsFiles {
    /// The server's certificate, with those between it and its authority.
    pub cert_file: PathBuf,
    /// Its private key.
    pub key_file: PathBuf,
    /// Certificates of the authorities that sign clients' certificates.
    pub ca_cert_file: Option<PathBuf>,
    /// A directory of such certificates.
    pub ca_cert_dir: Option<PathBuf>,
    /// Whether clients have to show a certificate. Default: required.
    pub clients: ClientCertificates,
    /// `TLSv1.2`, `TLSv1.3`, or both, separated by spaces; empty for both.
    pub protocols: String,
}

/// Whether clients have to show a certificate: `tls-auth-clients`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ClientCertificates {
    /// They have to.
    #[default]
    Required,
    /// One that is shown has to be right.
    Optional,
    /// They are not asked.
    NotAsked,
}

impl TlsFiles {
    /// What the parameters say.
    pub fn of(config: &Config) -> Self {
        let path = |name| PathBuf::from(config.text(name).into_owned());
        let given = |name| Some(path(name)).filter(|path| !path.as_os_str().is_empty());
        Self {
            cert_file: path("tls-cert-file"),
            key_file: path("tls-key-file"),
            ca_cert_file: given("tls-ca-cert-file"),
            ca_cert_dir: given("tls-ca-cert-dir"),
            clients: match config.bytes("tls-auth-clients") {
                b"no" => ClientCertificates::NotAsked,
                b"optional" => ClientCertificates::Optional,
                _ => ClientCertificates::Required,
            },
            protocols: config.text("tls-protocols").into_owned(),
        }
    }

    fn load(&self) -> Result<Arc<ServerConfig>, String> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let certificates = self.certificates()?;
        let key = self.key()?;
        let failed = |error: rustls::Error| match error {
            rustls::Error::InconsistentKeys(_) => format!(
                "the key in {} does not belong to the certificate in {}; check --tls-key-file and --tls-cert-file",
                self.key_file.display(),
                self.cert_file.display()
            ),
            error => format!(
                "the certificate in {} cannot be used: {error}; check --tls-cert-file",
                self.cert_file.display()
            ),
        };
        let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_protocol_versions(&self.versions()?)
            .map_err(|error| format!("--tls-protocols: {error}"))?;
        let builder = if self.clients == ClientCertificates::NotAsked {
            builder.with_no_client_auth()
        } else {
            let roots = Arc::new(self.roots()?);
            let verifier = WebPkiClientVerifier::builder_with_provider(roots, provider);
            let verifier = match self.clients {
                ClientCertificates::Optional => verifier.allow_unauthenticated(),
                _ => verifier,
            };
            let verifier = verifier
                .build()
                .map_err(|error| format!("the certificates of --tls-ca-cert-file cannot be used: {error}"))?;
            builder.with_client_cert_verifier(verifier)
        };
        builder.with_single_cert(certificates, key).map(Arc::new).map_err(failed)
    }

    fn certificates(&self) -> Result<Vec<CertificateDer<'static>>, String> {
        let path = named(&self.cert_file, "--tls-cert-file", "the server's certificate")?;
        let certificates = read_certificates(path, "--tls-cert-file")?;
        if certificates.is_empty() {
            return Err(format!(
                "{} holds no certificate in PEM form; check --tls-cert-file",
                path.display()
            ));
        }
        Ok(certificates)
    }

    fn key(&self) -> Result<PrivateKeyDer<'static>, String> {
        let path = named(&self.key_file, "--tls-key-file", "the key of the server's certificate")?;
        PrivateKeyDer::from_pem_slice(&read(path, "--tls-key-file")?).map_err(|_| {
            format!("{} holds no unencrypted private key in PEM form; check --tls-key-file", path.display())
        })
    }

    fn roots(&self) -> Result<RootCertStore, String> {
        let mut certificates = Vec::new();
        if let Some(path) = &self.ca_cert_file {
            certificates.extend(read_certificates(path, "--tls-ca-cert-file")?);
        }
        if let Some(directory) = &self.ca_cert_dir {
            let failed = |error| cannot_read(directory, "--tls-ca-cert-dir", &error);
            for entry in std::fs::read_dir(directory).map_err(failed)? {
                let path = entry.map_err(failed)?.path();
                // Such directories hold other things besides; what holds no certificates adds none.
                if path.is_file() {
                    certificates.extend(read_certificates(&path, "--tls-ca-cert-dir").unwrap_or_default());
                }
            }
        }
        if self.ca_cert_file.is_none() && self.ca_cert_dir.is_none() {
            return Err(
                "clients have to show certificates, and nothing says who signs them: give --tls-ca-cert-file, or \
                 --tls-auth-clients no"
                    .to_owned(),
            );
        }
        let mut roots = RootCertStore::empty();
        let (added, _) = roots.add_parsable_certificates(certificates);
        if added == 0 {
            return Err(
                "no certificate of an authority found; check --tls-ca-cert-file and --tls-ca-cert-dir"
                    .to_owned(),
            );
        }
        Ok(roots)
    }

    fn versions(&self) -> Result<Vec<&'static SupportedProtocolVersion>, String> {
        let mut versions = Vec::new();
        for word in self.protocols.split_whitespace() {
            versions.push(match word.to_ascii_lowercase().as_str() {
                "tlsv1.2" => &rustls::version::TLS12,
                "tlsv1.3" => &rustls::version::TLS13,
                _ => return Err(format!("--tls-protocols {word}: TLSv1.2 and TLSv1.3 are supported")),
            });
        }
        if versions.is_empty() {
            versions.extend(rustls::ALL_VERSIONS);
        }
        Ok(versions)
    }
}

fn named<'p>(path: &'p Path, option: &str, what: &str) -> Result<&'p Path, String> {
    if path.as_os_str().is_empty() {
        return Err(format!("a TLS port needs {what}: give {option}"));
    }
    Ok(path)
}

fn read(path: &Path, option: &str) -> Result<Vec<u8>, String> {
    std::fs::read(path).map_err(|error| cannot_read(path, option, &error))
}

fn cannot_read(path: &Path, option: &str, error: &std::io::Error) -> String {
    format!("{} cannot be read: {error}; check {option}", path.display())
}

fn read_certificates(path: &Path, option: &str) -> Result<Vec<CertificateDer<'static>>, String> {
    let bytes = read(path, option)?;
    CertificateDer::pem_slice_iter(&bytes)
        .collect::<Result<_, _>>()
        .map_err(|error| format!("{} is no PEM file: {error}; check {option}", path.display()))
}

/// The certificates in use.
pub(crate) struct Certificates(RwLock<Arc<ServerConfig>>);

impl Certificates {
    pub(crate) fn load(files: &TlsFiles) -> Result<Self, String> {
        files.load().map(RwLock::new).map(Self)
    }

    /// Takes other files for the connections that come from now on.
    pub(crate) fn reload(&self, files: &TlsFiles) -> Result<(), String> {
        let loaded = files.load()?;
        *self.0.write() = loaded;
        Ok(())
    }

    pub(crate) fn acceptor(&self) -> TlsAcceptor {
        TlsAcceptor::from(Arc::clone(&self.0.read()))
    }
}

impl std::fmt::Debug for Certificates {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Certificates")
    }
}
