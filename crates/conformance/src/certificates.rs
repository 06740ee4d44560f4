//! Certificates for tests: an authority that signs a server's and a client's, as files, and ones with something wrong.

use std::fs;
use std::path::{Path, PathBuf};

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, date_time_ymd,
};

use crate::servers::ServerOptions;

/// An authority with a server's and a client's certificate, as files `NAME-ca.pem`, `NAME-server.pem`, `NAME-server.key` ...
#[derive(Debug)]
pub struct Authority {
    folder: PathBuf,
    name: &'static str,
    issuer: Issuer<'static, KeyPair>,
}

/// What a certificate is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum For {
    /// A server's end of a connection.
    Server,
    /// A client's.
    Client,
}

/// When a certificate is in force.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Life {
    /// For thousands of years.
    Now,
    /// It has ended long ago.
    Past,
    /// It has not begun.
    Future,
}

impl Authority {
    /// Makes the files `NAME-ca.pem`, and a `.pem` and a `.key` of `NAME-server` and `NAME-client`, in force and for the loopback.
    ///
    /// # Panics
    /// When a file cannot be written.
    pub fn new(folder: &Path, name: &'static str) -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new([]).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params.distinguished_name.push(DnType::CommonName, format!("authority {name}"));
        let own_certificate = params.self_signed(&key).unwrap().pem();
        let own = Self { folder: folder.to_path_buf(), name, issuer: Issuer::new(params, key) };
        fs::write(own.file("ca.pem"), own_certificate).unwrap();
        own.sign("server", For::Server, &["localhost", "127.0.0.1"], Life::Now);
        own.sign("client", For::Client, &["localhost", "127.0.0.1"], Life::Now);
        own
    }

    /// Makes `NAME-WHAT.pem` and `NAME-WHAT.key`.
    ///
    /// # Panics
    /// When a file cannot be written.
    pub fn sign(&self, what: &str, purpose: For, hosts: &[&str], life: Life) {
        let key = KeyPair::generate().unwrap();
        let hosts: Vec<String> = hosts.iter().map(|host| (*host).to_owned()).collect();
        let mut params = CertificateParams::new(hosts).unwrap();
        params.extended_key_usages = vec![match purpose {
            For::Server => ExtendedKeyUsagePurpose::ServerAuth,
            For::Client => ExtendedKeyUsagePurpose::ClientAuth,
        }];
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.use_authority_key_identifier_extension = true;
        params.distinguished_name.push(DnType::CommonName, format!("{what} of {}", self.name));
        match life {
            Life::Now => {}
            Life::Past => {
                (params.not_before, params.not_after) =
                    (date_time_ymd(2001, 1, 1), date_time_ymd(2002, 1, 1));
            }
            Life::Future => {
                (params.not_before, params.not_after) =
                    (date_time_ymd(2999, 1, 1), date_time_ymd(3000, 1, 1));
            }
        }
        let signed = params.signed_by(&key, &self.issuer).unwrap();
        fs::write(self.file(&format!("{what}.pem")), signed.pem()).unwrap();
        fs::write(self.file(&format!("{what}.key")), key.serialize_pem()).unwrap();
    }

    /// The file `NAME-WHAT`.
    pub fn file(&self, what: &str) -> PathBuf {
        self.folder.join(format!("{}-{what}", self.name))
    }

    /// The same as text.
    pub fn path(&self, what: &str) -> String {
        self.file(what).display().to_string()
    }

    /// Its bytes.
    ///
    /// # Panics
    /// When it cannot be read.
    pub fn read(&self, what: &str) -> Vec<u8> {
        fs::read(self.file(what)).unwrap()
    }

    /// The options of a server with these certificates on this TLS port.
    pub fn options(&self, port: u16) -> ServerOptions {
        ServerOptions::new()
            .args(["--tls-port", &port.to_string()])
            .args(["--tls-cert-file", &self.path("server.pem"), "--tls-key-file", &self.path("server.key")])
            .args(["--tls-ca-cert-file", &self.path("ca.pem")])
    }

    /// `rediss://localhost:PORT/0` with the options by which our library trusts this authority and shows its client certificate.
    pub fn url(&self, port: u16) -> String {
        format!("rediss://localhost:{port}/0?{}", self.url_options())
    }

    /// What follows the `?` of such a URL.
    pub fn url_options(&self) -> String {
        let [ca, cert, key] = ["ca.pem", "client.pem", "client.key"].map(|what| self.path(what));
        format!("cacert={ca}&cert={cert}&key={key}")
    }
}
