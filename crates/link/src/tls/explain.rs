//! What went wrong in a TLS handshake, and what to do about it.
//!
//! Invariant: a refusal for a certificate's sake, by either side, is `ErrorKind::Tls`: it does not pass by waiting. Deliberately absent: a
//! network that is in trouble, which is no business of TLS'.

use std::error::Error as StdError;
use std::io;

use rustls::{AlertDescription, CertificateError, Error as Tls};

use super::TlsOptions;
use crate::error::{Delivery, Error, ErrorKind};
use crate::url::Endpoint;

/// The failure in words, if it is TLS' own.
pub(crate) fn explain(error: &io::Error, endpoint: &Endpoint, options: &TlsOptions) -> Option<Error> {
    let cause = tls_error(error)?;
    let (kind, reason) = match cause {
        Tls::InvalidCertificate(fault) => (ErrorKind::Tls, certificate(fault, endpoint, options)),
        Tls::NoCertificatesPresented => (ErrorKind::Tls, "the server shows no certificate".to_owned()),
        Tls::AlertReceived(alert) => (ErrorKind::Tls, refusal(*alert, options)),
        Tls::InvalidMessage(_) => (
            ErrorKind::Tls,
            "what answers on this port does not speak TLS; give the server's tls-port, or write redis:// to go without TLS"
                .to_owned(),
        ),
        Tls::PeerIncompatible(what) => (
            ErrorKind::Tls,
            format!("the server offers nothing that both sides can do ({what:?}); it needs TLS 1.2 or 1.3 with a modern cipher suite"),
        ),
        other => (ErrorKind::Tls, other.to_string()),
    };
    Some(Error::new(kind, Delivery::NotSent, format!("cannot connect to {endpoint} over TLS: {reason}")))
}

fn tls_error(error: &io::Error) -> Option<&Tls> {
    let mut cause: &(dyn StdError + 'static) = error.get_ref()?;
    loop {
        if let Some(found) = cause.downcast_ref::<Tls>() {
            return Some(found);
        }
        if let Some(inner) = cause.downcast_ref::<io::Error>().and_then(|inner| inner.get_ref()) {
            cause = inner;
            continue;
        }
        cause = cause.source()?;
    }
}

fn certificate(fault: &CertificateError, endpoint: &Endpoint, options: &TlsOptions) -> String {
    use CertificateError as Fault;
    let asked = options.server_name.as_ref().unwrap_or(&endpoint.host);
    match fault {
        Fault::UnknownIssuer => match &options.ca_file {
            Some(path) => format!(
                "the server's certificate is signed by no authority in {}; that file has to hold the one that signed it",
                path.display()
            ),
            None => "the server's certificate is signed by nobody whom this system trusts; name its authority's file with cacert (in \
                     the URL: ?cacert=/path/ca.pem), or install the authority in the system"
                .to_owned(),
        },
        Fault::Expired | Fault::ExpiredContext { .. } => {
            "the server's certificate has expired; renew it, and check this machine's clock".to_owned()
        }
        Fault::NotValidYet | Fault::NotValidYetContext { .. } => {
            "the server's certificate is not valid yet; check the clocks of this machine and of its maker".to_owned()
        }
        Fault::NotValidForNameContext { presented, .. } if presented.is_empty() => format!(
            "the server's certificate names no host (it has no subjectAltName), so it cannot be for {asked}; make one that does"
        ),
        Fault::NotValidForNameContext { presented, .. } => format!(
            "the server's certificate is for {}, not for {asked}; write a host that it is for, or say which with sni (in the URL: \
             ?sni=NAME)",
            presented.join(", ")
        ),
        Fault::NotValidForName => format!(
            "the server's certificate is not for {asked}; write a host that it is for, or say which with sni (in the URL: ?sni=NAME)"
        ),
        Fault::Other(other) if other.to_string().contains("CaUsedAsEndEntity") => {
            "the server shows an authority's certificate as its own; make one that this authority signs".to_owned()
        }
        Fault::BadSignature => "the server's certificate is not signed by the authority that it names; cacert may hold an older one of \
                                that name"
            .to_owned(),
        other => format!("the server's certificate cannot be taken: {other}"),
    }
}

fn refusal(alert: AlertDescription, options: &TlsOptions) -> String {
    let shown = options.cert_file.as_ref();
    match (alert, shown) {
        (AlertDescription::UnrecognisedName, _) => "the server knows no host of this name; say which with sni".to_owned(),
        (AlertDescription::ProtocolVersion, _) => "the server takes none of TLS 1.2 and 1.3".to_owned(),
        (AlertDescription::CertificateRequired | AlertDescription::HandshakeFailure | AlertDescription::BadCertificate, None) => {
            "the server wants a certificate of its clients; name one with cert and its key with key (in the URL: \
             ?cert=/path/client.pem&key=/path/client.key)"
                .to_owned()
        }
        (_, Some(path)) if is_about_certificates(alert) => format!(
            "the server refuses the certificate in {} ({alert:?}); it has to be in force, for client authentication, and signed by an \
             authority that the server trusts",
            path.display()
        ),
        _ => format!("the server refuses the handshake ({alert:?})"),
    }
}

fn is_about_certificates(alert: AlertDescription) -> bool {
    use AlertDescription as Alert;
    matches!(
        alert,
        Alert::BadCertificate
            | Alert::UnsupportedCertificate
            | Alert::CertificateRevoked
            | Alert::CertificateExpired
            | Alert::CertificateUnknown
            | Alert::CertificateRequired
            | Alert::UnknownCA
            | Alert::AccessDenied
            | Alert::DecryptError
            | Alert::HandshakeFailure
    )
}
