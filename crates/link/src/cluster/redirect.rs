//! What an error reply says about where to go on.
//!
//! Deliberately absent: going there.

use crate::error::{Error, ErrorKind};
use crate::url::Endpoint;

/// What a failed command's error asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Advice {
    /// The slot is another node's from now on.
    Moved(u16, Endpoint),
    /// This once, and after `ASKING`, another node: the slot is being moved.
    Ask(Endpoint),
    /// Some of the keys are moved already, some not yet.
    TryAgain,
    /// The cluster, or this part of it, is down.
    Down,
    /// The node is out of reach, or does not take this connection.
    Lost,
    /// It is the command that is wrong, or nothing that another node could mend.
    None,
}

impl Advice {
    /// An address without a host stands for the host that was asked.
    pub(crate) fn of(error: &Error, asked: &Endpoint) -> Self {
        match error.code() {
            Some("MOVED") => address(error, asked).map_or(Self::Down, |(slot, at)| Self::Moved(slot, at)),
            Some("ASK") => address(error, asked).map_or(Self::Down, |(_, at)| Self::Ask(at)),
            Some("TRYAGAIN") => Self::TryAgain,
            Some("CLUSTERDOWN") => Self::Down,
            _ if error.is_connection_trouble() => Self::Lost,
            _ if error.kind() == ErrorKind::Tls => Self::Lost,
            _ => Self::None,
        }
    }
}

/// `MOVED 3999 127.0.0.1:6381`
fn address(error: &Error, asked: &Endpoint) -> Option<(u16, Endpoint)> {
    let text = error.to_string();
    let mut words = text.split_ascii_whitespace().skip(1);
    let slot = words.next()?.parse().ok()?;
    let (host, port) = words.next()?.rsplit_once(':')?;
    let port = port.parse().ok().filter(|port| *port > 0)?;
    let host = match host.trim_start_matches('[').trim_end_matches(']') {
        "" => asked.host.clone(),
        // The node does not know it itself.
        "?" => return None,
        host => host.to_owned(),
    };
    Some((slot, Endpoint { host, port }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn advice(code: &str, detail: &str) -> Advice {
        let asked = Endpoint { host: "asked".to_owned(), port: 1 };
        Advice::of(&Error::server(code, Some(detail)), &asked)
    }

    #[test]
    fn every_form_of_an_address_is_read() {
        for (text, host, port) in [
            ("3999 127.0.0.1:6381", "127.0.0.1", 6381),
            ("3999 ::1:7000", "::1", 7000),
            ("3999 node-1.example:7000", "node-1.example", 7000),
            ("3999 :7001", "asked", 7001),
        ] {
            let at = Endpoint { host: host.to_owned(), port };
            assert_eq!(advice("MOVED", text), Advice::Moved(3999, at.clone()));
            assert_eq!(advice("ASK", text), Advice::Ask(at));
        }
    }

    #[test]
    fn what_names_no_address_is_not_followed() {
        for text in ["", "x 127.0.0.1:1", "1", "1 127.0.0.1", "1 127.0.0.1:0", "1 ?:7000", "1 h:99999"] {
            assert_eq!(advice("MOVED", text), Advice::Down, "{text:?}");
        }
        assert_eq!(advice("WRONGTYPE", "1 127.0.0.1:6381"), Advice::None);
    }
}
