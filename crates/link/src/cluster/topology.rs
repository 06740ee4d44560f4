//! What one node says about the cluster: who serves which slot, and how far it has heard.
//!
//! Invariant: what a server sends is read without trusting it: a range outside the slots or a reply of another form is an error, never a
//! panic. Deliberately absent: whom to ask, and what follows from it.

use std::ops::RangeInclusive;

use mtcache_protocol::CLUSTER_SLOTS;

use crate::command::Command;
use crate::error::{Error, Result};
use crate::reply::Reply;
use crate::url::Endpoint;

/// The cluster as one node sees it.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct View {
    /// Slots and their primaries, as far as they have an address.
    pub(crate) ranges: Vec<(RangeInclusive<u16>, Endpoint)>,
    /// Where else one may ask.
    pub(crate) replicas: Vec<Endpoint>,
    pub(crate) standing: Standing,
}

/// What a node says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Standing {
    /// It sees most of the cluster, and takes commands.
    pub(crate) ok: bool,
    /// The latest epoch it has heard of.
    pub(crate) epoch: u64,
    /// The epoch of its own claim to its slots; a replica's is its primary's.
    pub(crate) own_epoch: u64,
}

/// What has to be asked for a view.
pub(crate) fn questions() -> Vec<Command> {
    vec![
        Command::new("CLUSTER").arg("INFO").with_retry(crate::retry::Retry::Safe),
        Command::new("CLUSTER").arg("SLOTS").with_retry(crate::retry::Retry::Safe),
    ]
}

impl View {
    /// Reads the answers to [`questions`].
    pub(crate) fn read(answers: Vec<Reply>, asked: &Endpoint) -> Result<Self> {
        let mut answers = answers.into_iter();
        let (Some(info), Some(slots)) = (answers.next(), answers.next()) else {
            return Err(Error::protocol("two answers were due"));
        };
        let standing = Standing::read(&info.into_bytes()?.unwrap_or_default())?;
        let mut view = Self { ranges: Vec::new(), replicas: Vec::new(), standing };
        for range in slots.into_array()? {
            let mut parts = range.into_array()?.into_iter();
            let mut bound = || -> Result<u16> {
                let n = parts.next().unwrap_or(Reply::Nil).into_int()?;
                u16::try_from(n)
                    .ok()
                    .filter(|slot| *slot < CLUSTER_SLOTS)
                    .ok_or_else(|| Error::protocol(format!("CLUSTER SLOTS names the slot {n}")))
            };
            let (first, last) = (bound()?, bound()?);
            let Some(primary) = parts.next() else {
                return Err(Error::protocol("CLUSTER SLOTS names a range without a primary"));
            };
            if let Some(primary) = endpoint(primary, asked)? {
                view.ranges.push((first..=last, primary));
            }
            for replica in parts {
                view.replicas.extend(endpoint(replica, asked)?);
            }
        }
        view.replicas.sort();
        view.replicas.dedup();
        Ok(view)
    }

    /// Whether any node serves any slot.
    pub(crate) fn is_of_a_cluster(&self) -> bool {
        !self.ranges.is_empty()
    }
}

impl Standing {
    /// Reads the answer to CLUSTER INFO.
    pub(crate) fn read(info: &[u8]) -> Result<Self> {
        let text = String::from_utf8_lossy(info);
        let field = |name: &str| {
            text.lines()
                .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))
                .map(str::trim)
                .ok_or_else(|| Error::protocol(format!("CLUSTER INFO has no {name}")))
        };
        let number = |name: &str| {
            field(name)?.parse().map_err(|_| Error::protocol(format!("CLUSTER INFO's {name} is no number")))
        };
        Ok(Self {
            ok: field("cluster_state")? == "ok",
            epoch: number("cluster_current_epoch")?,
            own_epoch: number("cluster_my_epoch")?,
        })
    }
}

/// One node of a range; none if nobody knows its address.
fn endpoint(node: Reply, asked: &Endpoint) -> Result<Option<Endpoint>> {
    let mut parts = node.into_array()?.into_iter();
    let host = parts.next().unwrap_or(Reply::Nil).into_bytes()?;
    let port = parts.next().unwrap_or(Reply::Nil).into_int()?;
    let Some(port) = u16::try_from(port).ok().filter(|port| *port > 0) else { return Ok(None) };
    let host = match host.as_deref() {
        // The same host as this answer came from.
        None | Some(b"") => asked.host.clone(),
        Some(b"?") => return Ok(None),
        Some(host) => String::from_utf8_lossy(host).into_owned(),
    };
    Ok(Some(Endpoint { host, port }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(text: &str) -> Reply {
        Reply::Bytes(text.as_bytes().to_vec())
    }

    fn node(host: Reply, port: i64) -> Reply {
        Reply::Array(vec![host, Reply::Int(port), text("id"), Reply::Array(vec![])])
    }

    fn asked() -> Endpoint {
        Endpoint { host: "asked".into(), port: 1 }
    }

    fn info(state: &str) -> Reply {
        text(&format!("cluster_state:{state}\r\ncluster_current_epoch:7\r\ncluster_my_epoch:3\r\n"))
    }

    fn read(ranges: Vec<Reply>) -> Result<View> {
        View::read(vec![info("ok"), Reply::Array(ranges)], &asked())
    }

    #[test]
    fn ranges_primaries_and_replicas_are_read() {
        let range = |first, last, nodes: Vec<Reply>| {
            Reply::Array([vec![Reply::Int(first), Reply::Int(last)], nodes].concat())
        };
        let view = read(vec![
            range(0, 5460, vec![node(text("10.0.0.1"), 1), node(text("10.0.0.2"), 2)]),
            range(5461, 5461, vec![node(Reply::Nil, 3), node(text("10.0.0.2"), 2)]),
            range(5462, 16383, vec![node(text("?"), 4)]),
        ])
        .unwrap();
        let at = |host: &str, port| Endpoint { host: host.into(), port };
        assert_eq!(view.ranges, [(0..=5460, at("10.0.0.1", 1)), (5461..=5461, at("asked", 3))]);
        assert_eq!(view.replicas, [at("10.0.0.2", 2)]);
        assert_eq!(view.standing, Standing { ok: true, epoch: 7, own_epoch: 3 });
    }

    #[test]
    fn nonsense_is_an_error() {
        for range in [
            Reply::Nil,
            text("x"),
            Reply::Array(vec![]),
            Reply::Array(vec![Reply::Int(0), Reply::Int(16384), node(text("h"), 1)]),
            Reply::Array(vec![Reply::Int(-1), Reply::Int(1), node(text("h"), 1)]),
            Reply::Array(vec![Reply::Int(0), Reply::Int(1)]),
        ] {
            let read = read(vec![range.clone()]);
            assert!(read.is_err(), "{range:?}: {read:?}");
        }
        assert!(View::read(vec![text("ERR"), Reply::Array(vec![])], &asked()).is_err());
        assert!(View::read(vec![], &asked()).is_err());
        assert!(!read(vec![]).unwrap().is_of_a_cluster());
    }
}
