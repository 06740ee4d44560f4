//! From files to what rustls takes.
//!
//! Invariant: what is wrong with a file is said in one line that names it and the option. Deliberately absent: keeping the result.

use std::path::Path;
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, WebPkiSupportedAlgorithms};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};

use super::{TlsOptions, Verification};

/// What the options amount to now; an error is in words for people.
pub(super) fn config(options: &TlsOptions) -> Result<Arc<ClientConfig>, String> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(|error| format!("TLS cannot be set up: {error}"))?;
    let builder = match options.verification.unwrap_or_default() {
        Verification::Full => builder.with_root_certificates(roots(options)?),
        Verification::None => {
            builder.dangerous().with_custom_certificate_verifier(Arc::new(Anyone::new(&provider)))
        }
    };
    let (cert, key) = match (&options.cert_file, &options.key_file) {
        (None, None) => return Ok(Arc::new(builder.with_no_client_auth())),
        (Some(cert), Some(key)) => (cert, key),
        (Some(_), None) => {
            return Err("a client certificate needs its private key too: give key besides cert".to_owned());
        }
        (None, Some(_)) => {
            return Err("a private key needs its certificate too: give cert besides key".to_owned());
        }
    };
    let chain = certificates(cert, "cert")?;
    let private = PrivateKeyDer::from_pem_slice(&read(key, "key")?).map_err(|_| {
        format!("{} holds no unencrypted private key in PEM form; check the TLS option key", key.display())
    })?;
    builder.with_client_auth_cert(chain, private).map(Arc::new).map_err(|error| match error {
        rustls::Error::InconsistentKeys(_) => format!(
            "the key in {} does not belong to the certificate in {}; check the TLS options key and cert",
            key.display(),
            cert.display()
        ),
        error => format!(
            "the certificate in {} cannot be used: {error}; check the TLS option cert",
            cert.display()
        ),
    })
}

fn roots(options: &TlsOptions) -> Result<RootCertStore, String> {
    let mut roots = RootCertStore::empty();
    if let Some(path) = &options.ca_file {
        for certificate in certificates(path, "cacert")? {
            roots.add(certificate).map_err(|error| {
                format!(
                    "a certificate in {} cannot be used: {error}; check the TLS option cacert",
                    path.display()
                )
            })?;
        }
        return Ok(roots);
    }
    // What the system trusts, and not a list that came with this program: it is kept up to date, and a company's own
    // authority is there once it is installed. SSL_CERT_FILE and SSL_CERT_DIR name others.
    let system = rustls_native_certs::load_native_certs();
    roots.add_parsable_certificates(system.certs);
    if roots.is_empty() {
        let reason = system.errors.first().map(|error| format!(" ({error})")).unwrap_or_default();
        return Err(format!(
            "the system has no list of authorities that it trusts{reason}; install one (Debian: ca-certificates), or name the \
             server's authority with the TLS option cacert"
        ));
    }
    Ok(roots)
}

fn certificates(path: &Path, option: &str) -> Result<Vec<CertificateDer<'static>>, String> {
    let bytes = read(path, option)?;
    let found: Vec<_> = CertificateDer::pem_slice_iter(&bytes)
        .collect::<Result<_, _>>()
        .map_err(|_| format!("{} is not in PEM form; check the TLS option {option}", path.display()))?;
    if found.is_empty() {
        return Err(format!(
            "{} holds no certificate in PEM form; check the TLS option {option}",
            path.display()
        ));
    }
    Ok(found)
}

fn read(path: &Path, option: &str) -> Result<Vec<u8>, String> {
    std::fs::read(path)
        .map_err(|error| format!("{} cannot be read: {error}; check the TLS option {option}", path.display()))
}

/// Takes any certificate. That whoever shows it has its key is still checked.
#[derive(Debug)]
struct Anyone(WebPkiSupportedAlgorithms);

impl Anyone {
    fn new(provider: &CryptoProvider) -> Self {
        Self(provider.signature_verification_algorithms)
    }
}

impl ServerCertVerifier for Anyone {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls12_signature(message, certificate, signed, &self.0)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls13_signature(message, certificate, signed, &self.0)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_schemes()
    }
}
