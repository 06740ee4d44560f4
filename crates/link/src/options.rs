//! What can be tuned about a link, each with its default.
//!
//! Invariant: every wait and every queue has a bound here. Deliberately absent: where the server is (that is the URL).

use std::time::Duration;

use crate::tls::TlsOptions;

/// Default of `LinkOptions::connect_timeout`.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// Default of `LinkOptions::response_timeout`.
const RESPONSE_TIMEOUT: Duration = Duration::from_secs(2);
/// Default of `LinkOptions::backoff_min`.
const BACKOFF_MIN: Duration = Duration::from_millis(50);
/// Default of `LinkOptions::backoff_max`.
const BACKOFF_MAX: Duration = Duration::from_secs(2);
/// Default of `LinkOptions::max_retries`.
const MAX_RETRIES: u32 = 2;
/// Default of `LinkOptions::max_in_flight`.
const MAX_IN_FLIGHT: usize = 65_536;

/// Default of `LinkOptions::breaker_silences`.
const BREAKER_SILENCES: u32 = 3;
/// Default of `LinkOptions::breaker_pause_min`.
const BREAKER_PAUSE_MIN: Duration = Duration::from_millis(500);
/// Default of `LinkOptions::breaker_pause_max`.
const BREAKER_PAUSE_MAX: Duration = Duration::from_secs(10);
/// Default of `LinkOptions::topology_refresh`.
const TOPOLOGY_REFRESH: Duration = Duration::from_secs(10);

/// Timeouts and bounds of a link.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct LinkOptions {
    /// Longest wait for a connection with its handshake. Default: 2 s.
    pub connect_timeout: Duration,
    /// Longest wait for the answer to one command or pipeline. Default: 2 s.
    pub response_timeout: Duration,
    /// First pause between two attempts to connect; each next one doubles it. Default: 50 ms.
    pub backoff_min: Duration,
    /// Longest pause between two attempts to connect. Default: 2 s.
    pub backoff_max: Duration,
    /// How often a command is sent again where the retry table allows it. Default: 2.
    pub max_retries: u32,
    /// Commands under way at once; more are refused as [`ErrorKind::Overloaded`](crate::ErrorKind::Overloaded).
    /// Default: 65,536.
    pub max_in_flight: usize,
    /// Connections in a row on which a node answers nothing for a response timeout, before calls to it are refused at once; 0 never
    /// refuses them for that. Default: 3.
    pub breaker_silences: u32,
    /// How long calls are refused then, before one is let through to see; each time that this one is not answered doubles it. Default: 500 ms.
    pub breaker_pause_min: Duration,
    /// Longest time for which calls are refused before one is let through. Default: 10 s.
    pub breaker_pause_max: Duration,
    /// On a cluster: how often it is asked who serves what, beside the times when something calls for it. Default: 10 s.
    pub topology_refresh: Duration,
    /// The name this client shows in CLIENT LIST. Default: `mtcache`.
    pub client_name: String,
    /// How TLS is spoken, where the URL says that it is and does not say how. Default: with what the system trusts, and no certificate of
    /// our own.
    pub tls: TlsOptions,
}

impl Default for LinkOptions {
    fn default() -> Self {
        Self {
            connect_timeout: CONNECT_TIMEOUT,
            response_timeout: RESPONSE_TIMEOUT,
            backoff_min: BACKOFF_MIN,
            backoff_max: BACKOFF_MAX,
            max_retries: MAX_RETRIES,
            max_in_flight: MAX_IN_FLIGHT,
            breaker_silences: BREAKER_SILENCES,
            breaker_pause_min: BREAKER_PAUSE_MIN,
            breaker_pause_max: BREAKER_PAUSE_MAX,
            topology_refresh: TOPOLOGY_REFRESH,
            client_name: "mtcache".to_owned(),
            tls: TlsOptions::default(),
        }
    }
}
