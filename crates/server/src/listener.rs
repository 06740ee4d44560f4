//! Listening sockets: opened before anything else starts, so that a busy port is one clear line.

use std::net::{SocketAddr, TcpListener};
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use socket2::{Domain, Protocol, Socket, Type};

use crate::ServerOptions;
use crate::error::ServerError;

/// The sockets of one server.
#[derive(Debug, Default)]
pub(crate) struct Listeners {
    pub(crate) tcp: Vec<TcpListener>,
    pub(crate) tls: Vec<TcpListener>,
    pub(crate) unix: Option<UnixListener>,
    /// Removed when the server ends.
    pub(crate) unix_path: Option<PathBuf>,
}

impl Listeners {
    pub(crate) fn open(options: &ServerOptions) -> Result<Self, ServerError> {
        let mut listeners = Self::default();
        if let Some(port) = options.port {
            listeners.tcp = open_port(options, port, "--port")?;
        }
        if let Some(tls) = &options.tls {
            listeners.tls = open_port(options, tls.port, "--tls-port")?;
        }
        if let Some(path) = &options.unixsocket {
            listeners.unix = Some(open_unix(path, options.unixsocketperm)?);
            listeners.unix_path = Some(path.clone());
        }
        Ok(listeners)
    }

    /// The addresses listened on.
    pub(crate) fn addresses(&self) -> Vec<SocketAddr> {
        let all = self.tcp.iter().chain(&self.tls);
        all.filter_map(|listener| listener.local_addr().ok()).collect()
    }
}

/// Listens on one port of every address.
fn open_port(options: &ServerOptions, mut port: u16, option: &str) -> Result<Vec<TcpListener>, ServerError> {
    let mut listeners = Vec::new();
    for bind in &options.bind {
        let addr = SocketAddr::new(bind.address, port);
        match open_tcp(addr, options.tcp_backlog) {
            Ok(listener) => {
                // Port 0 lets the system choose; the other addresses then share the choice.
                if port == 0 {
                    port = listener.local_addr().map_or(0, |addr| addr.port());
                }
                listeners.push(listener);
            }
            Err(_) if bind.is_optional => {}
            Err(error) if error.kind() == std::io::ErrorKind::AddrInUse => {
                return Err(ServerError::new(
                    format!(
                        "port {port} on {} is in use by another program; choose another with {option}",
                        bind.address
                    ),
                    error,
                ));
            }
            Err(error) => return Err(ServerError::new(format!("cannot listen on {addr}"), error)),
        }
    }
    Ok(listeners)
}

fn open_tcp(addr: SocketAddr, backlog: i32) -> std::io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(addr), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    if addr.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.set_nonblocking(true)?;
    socket.bind(&addr.into())?;
    socket.listen(backlog)?;
    Ok(socket.into())
}

fn open_unix(path: &Path, permissions: Option<u32>) -> Result<UnixListener, ServerError> {
    let fail =
        |error| ServerError::new(format!("cannot listen on the unix socket {}", path.display()), error);
    // A socket left behind by a server that was killed is removed; one that answers, or any other file, is not.
    if let Ok(metadata) = std::fs::symlink_metadata(path)
        && metadata.file_type().is_socket()
        && UnixStream::connect(path).is_err()
    {
        std::fs::remove_file(path).map_err(fail)?;
    }
    let listener = UnixListener::bind(path).map_err(fail)?;
    if let Some(mode) = permissions {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).map_err(fail)?;
    }
    listener.set_nonblocking(true).map_err(fail)?;
    Ok(listener)
}
