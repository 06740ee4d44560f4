//! The server's part in what a client may ask: where it listens, how many may connect, and that it stop.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use mtcache_engine::{Config, ConfigListener, Host, HostReport, HostRequest};
use tokio::sync::watch;

use crate::descriptors;
use crate::tls::TlsFiles;
use crate::worker::Shared;

/// See the module.
pub(crate) struct ServerHost {
    pub(crate) shared: Arc<Shared>,
    pub(crate) port: Option<u16>,
    pub(crate) tls_port: Option<u16>,
    pub(crate) workers: usize,
    /// Set when a client has asked for `SHUTDOWN`.
    pub(crate) stop_requested: watch::Sender<bool>,
}

impl Host for ServerHost {
    fn report(&self, report: &mut HostReport) {
        report.tcp_port = self.port;
    }

    fn perform(&self, request: HostRequest) -> Option<Result<String, String>> {
        match request {
            HostRequest::Shutdown(_) => {
                let was_requested = self.stop_requested.send_replace(true);
                Some(if was_requested {
                    Err("ERR a shutdown is in progress already".to_owned())
                } else {
                    Ok(String::new())
                })
            }
            _ => None,
        }
    }
}

impl ConfigListener for ServerHost {
    fn config_changed(&self, config: &Config, names: &[&'static str]) -> Result<(), String> {
        if names.contains(&"port") && config.port() != self.port.unwrap_or(0) {
            return Err(
                "the port cannot be changed while the server runs yet; restart it with --port".to_owned()
            );
        }
        if names.contains(&"tls-port") && config.int("tls-port") != i64::from(self.tls_port.unwrap_or(0)) {
            return Err(
                "the TLS port cannot be changed while the server runs yet; restart it with --tls-port"
                    .to_owned(),
            );
        }
        if let Some(certificates) = &self.shared.certificates
            && names.iter().any(|name| name.starts_with("tls-"))
        {
            // Also when the names are the old ones: the files may be new.
            let reloaded = certificates.reload(&TlsFiles::of(config));
            reloaded.map_err(|reason| format!("Unable to update TLS configuration: {reason}"))?;
        }
        if names.contains(&"protected-mode") {
            self.shared.protected_mode.store(config.flag("protected-mode"), Ordering::Relaxed);
        }
        if names.contains(&"bind") {
            return Err(
                "addresses cannot be changed while the server runs yet; restart it with --bind".to_owned()
            );
        }
        if names.contains(&"maxclients") {
            let maxclients = usize::try_from(config.int("maxclients")).unwrap_or(usize::MAX);
            let possible = descriptors::make_room(maxclients, self.workers);
            if possible < maxclients {
                return Err(format!(
                    "The operating system is not able to handle the specified number of clients, try with {possible}"
                ));
            }
            self.shared.maxclients.store(maxclients, Ordering::Relaxed);
        }
        self.shared.configure(config);
        Ok(())
    }
}
