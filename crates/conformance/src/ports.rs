//! Ports for test servers, each of which only one process of the harness has at a time.
//!
//! Invariant: who has a port keeps it while no server listens there, so a server that is down finds it free when it is started again, and
//! its clients meet no other test's server meanwhile. What keeps a port is a name among Linux's abstract sockets: it is taken by
//! one process, like a port within one network namespace, ends with that process however it ends, and leaves no file.

use std::net::TcpListener;
use std::ops::Range;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::sync::Mutex;
use std::time::SystemTime;

use crate::servers::ServerError;

/// Below Linux's ephemeral range, so that no outgoing connection takes the port while the server is down, and a client that
/// polls it cannot connect to itself; and so far below that the port at which nodes of a cluster meet is so, too.
const PORTS: Range<u16> = 12_000..22_000;
/// A node of a cluster meets the others at its own port and so many; whoever has the one has the other.
const TO_CLUSTER_PORT: u16 = 10_000;

/// A port of this process, until it is dropped.
#[derive(Debug)]
pub(crate) struct Port {
    number: u16,
    _claim: UnixDatagram,
}

impl Port {
    /// One on which nobody listens now.
    pub(crate) fn any() -> Result<Self, ServerError> {
        let clock =
            SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().subsec_nanos();
        let start = u64::from(clock).wrapping_mul(0x9E37_79B9_7F4A_7C15)
            ^ u64::from(std::process::id()).wrapping_mul(7_919);
        let span = u64::from(PORTS.end - PORTS.start);
        (0..span)
            .map(|step| PORTS.start + (start.wrapping_add(step * 7_907) % span) as u16)
            .find_map(Self::claim)
            .ok_or_else(|| ServerError::from("no free port on the loopback".to_owned()))
    }

    pub(crate) fn number(&self) -> u16 {
        self.number
    }

    /// This one, if nobody has it.
    fn claim(number: u16) -> Option<Self> {
        let name = SocketAddr::from_abstract_name(format!("mtcache-test-port-{number}")).ok()?;
        let claim = UnixDatagram::bind_addr(&name).ok()?;
        // Others than the harness use ports, too.
        let is_free = |port| TcpListener::bind(("127.0.0.1", port)).is_ok();
        (is_free(number) && is_free(number + TO_CLUSTER_PORT)).then_some(Self { number, _claim: claim })
    }
}

/// A TCP port on which nobody listens now, and which no other test is given while this process lives.
pub fn free_port() -> Result<u16, ServerError> {
    static KEPT: Mutex<Vec<Port>> = Mutex::new(Vec::new());
    let port = Port::any()?;
    let number = port.number();
    KEPT.lock().map_err(|_| "a thread panicked while it chose a port".to_owned())?.push(port);
    Ok(number)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::servers::TestServer;

    #[test]
    fn a_server_that_is_down_keeps_its_port() {
        let mut server = TestServer::redis([]).unwrap();
        server.kill().unwrap();
        assert!(Port::claim(server.port()).is_none());
        server.start_again().unwrap();
    }

    #[test]
    fn a_port_is_nobody_elses_until_it_is_dropped() {
        let port = Port::any().unwrap();
        let number = port.number();
        assert!(Port::claim(number).is_none());
        drop(port);
        assert_eq!(Port::claim(number).unwrap().number(), number);
    }

    #[test]
    fn a_port_is_not_given_while_somebody_listens_there_or_where_its_node_would_meet_others() {
        for offset in [0, TO_CLUSTER_PORT] {
            let number = free_port_of_nobody();
            let listener = TcpListener::bind(("127.0.0.1", number + offset)).unwrap();
            assert!(Port::claim(number).is_none(), "{offset}");
            drop(listener);
            assert!(Port::claim(number).is_some(), "{offset}");
        }
    }

    fn free_port_of_nobody() -> u16 {
        Port::any().unwrap().number()
    }
}
