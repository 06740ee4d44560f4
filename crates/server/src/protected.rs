//! Protected mode: a server without a password talks to its own machine alone.
//!
//! Invariant: who is refused is told how to be let in, in Redis' words, and nothing it has sent is looked at.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// How long a refused peer may take to read why and go. Default: 1 s.
const FAREWELL: Duration = Duration::from_secs(1);

const DENIED: &str = "-DENIED Redis is running in protected mode because protected mode is enabled and no password is set \
    for the default user. In this mode connections are only accepted from the loopback interface. If you want to connect from \
    external computers to Redis you may adopt one of the following solutions: 1) Just disable protected mode sending the \
    command 'CONFIG SET protected-mode no' from the loopback interface by connecting to Redis from the same host the server is \
    running, however MAKE SURE Redis is not publicly accessible from internet if you do so. Use CONFIG REWRITE to make this \
    change permanent. 2) Alternatively you can just disable the protected mode by editing the Redis configuration file, and \
    setting the protected mode option to 'no', and then restarting the server. 3) If you started the server manually just for \
    testing, restart it with the '--protected-mode no' option. 4) Setup a an authentication password for the default user. \
    NOTE: You only need to do one of the above things in order for the server to start accepting connections from the \
    outside.\r\n";

/// Whether the peer is on this machine, by the two addresses that Redis counts.
pub(crate) fn is_local(peer: IpAddr) -> bool {
    peer == Ipv4Addr::LOCALHOST || peer == Ipv6Addr::LOCALHOST
}

/// Says why, and ends the connection.
pub(crate) async fn refuse<S: AsyncRead + AsyncWrite + Unpin>(mut stream: S) {
    let farewell = async {
        stream.write_all(DENIED.as_bytes()).await?;
        stream.shutdown().await?;
        // What has come in the meantime is read away: closing over it would take the words back on their way.
        let mut waste = [0; 512];
        while stream.read(&mut waste).await? > 0 {}
        std::io::Result::Ok(())
    };
    // Best effort: the peer is a stranger.
    let _ = tokio::time::timeout(FAREWELL, farewell).await;
}
