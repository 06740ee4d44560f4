//! A walk over the keys of all primaries that misses none, though slots are moved meanwhile.
//!
//! Invariant: a key that is there all the time, and is moved once at most, is met. One pass over the primaries meets what stays where it
//! is. A key that is moved away before its old node's walk has met it is at its new node for the whole of a second pass; so there is one
//! whenever slots changed hands or are being moved. Everything needed to go on is in the cursor: from the top one bit for the pass, 10
//! for the node, 13 of the map's version at the start, 40 of the node's own cursor. Deliberately absent: walks of one slot.

use std::sync::Arc;

use futures_util::future::join_all;

use crate::cluster::ClusterLink;
use crate::cluster::map::Node;
use crate::command::Command;
use crate::error::{Error, ErrorKind, Result};
use crate::reply::Reply;

const INNER_BITS: u32 = 40;
const VERSION_BITS: u32 = 13;
const NODE_BITS: u32 = 10;

/// Where a walk stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Place {
    second_pass: bool,
    node: u16,
    version: u64,
    inner: u64,
}

impl Place {
    fn of(cursor: u64) -> Self {
        Self {
            second_pass: cursor >> 63 == 1,
            node: ((cursor >> (INNER_BITS + VERSION_BITS)) & ((1 << NODE_BITS) - 1)) as u16,
            version: (cursor >> INNER_BITS) & ((1 << VERSION_BITS) - 1),
            inner: cursor & ((1 << INNER_BITS) - 1),
        }
    }

    fn cursor(self) -> Result<u64> {
        if self.inner >> INNER_BITS != 0 || u32::from(self.node) >> NODE_BITS != 0 {
            return Err(Error::protocol(
                "a node's SCAN cursor is too large to be told apart from its neighbours'",
            ));
        }
        let pass = u64::from(self.second_pass) << 63;
        let node = u64::from(self.node) << (INNER_BITS + VERSION_BITS);
        Ok(pass | node | (self.version << INNER_BITS) | self.inner)
    }
}

impl ClusterLink {
    /// One step of a walk over the keys of all primaries that match a pattern, about `count` of them at a time; begins with 0 and ends when
    /// it answers 0. A key can be met more than once.
    pub async fn scan(&self, cursor: u64, pattern: &[u8], count: i64) -> Result<(u64, Vec<Vec<u8>>)> {
        if cursor == 0 {
            // The walk is of the cluster as it is now.
            self.0.refresher.refreshed().await?;
            let first = self.node_from(0)?;
            return self.step(Place { version: self.version(), ..at(&first) }, &first, pattern, count).await;
        }
        let place = Place::of(cursor);
        let node = self.node_from(place.node)?;
        // A node that has no slots any more is passed over: its keys are where its slots are, and there will be a second pass.
        let inner = if node.number == place.node { place.inner } else { 0 };
        self.step(Place { node: node.number, inner, ..place }, &node, pattern, count).await
    }

    async fn step(
        &self,
        place: Place,
        node: &Node,
        pattern: &[u8],
        count: i64,
    ) -> Result<(u64, Vec<Vec<u8>>)> {
        let scan = Command::new("SCAN").arg(place.inner.to_string()).arg("MATCH").arg(pattern);
        let answer = node.link.command(scan.arg("COUNT").int(count)).await.inspect_err(|_| {
            self.0.refresher.wake(None);
        })?;
        let mut parts = answer.into_array()?.into_iter();
        let (Some(next), Some(keys)) = (parts.next(), parts.next()) else {
            return Err(Error::protocol("SCAN answered less than a cursor and keys"));
        };
        let inner: u64 = String::from_utf8_lossy(&next.into_bytes()?.unwrap_or_default())
            .parse()
            .map_err(|_| Error::protocol("SCAN's cursor is not a number"))?;
        let keys = keys.into_array()?.into_iter();
        let keys = keys.map(Reply::into_bytes).filter_map(Result::transpose).collect::<Result<_>>()?;
        Ok((self.after(Place { inner, ..place }).await?, keys))
    }

    /// The cursor with which the walk goes on.
    async fn after(&self, place: Place) -> Result<u64> {
        if place.inner != 0 {
            return place.cursor();
        }
        let next =
            self.0.refresher.map.owners().primaries().into_iter().find(|node| node.number > place.node);
        if let Some(next) = next {
            return Place { node: next.number, ..place }.cursor();
        }
        if place.second_pass {
            return Ok(0);
        }
        self.0.refresher.refreshed().await?;
        if self.version() == place.version && !self.slots_are_being_moved().await? {
            return Ok(0);
        }
        let first = self.node_from(0)?;
        Place { second_pass: true, ..Place { version: place.version, ..at(&first) } }.cursor()
    }

    /// The first primary with this number or a higher one, or the last.
    fn node_from(&self, number: u16) -> Result<Arc<Node>> {
        let primaries = self.0.refresher.map.owners().primaries();
        let node = primaries.iter().find(|node| node.number >= number).or(primaries.last());
        node.cloned().ok_or_else(|| Error::server("CLUSTERDOWN", Some("no primary is known")))
    }

    fn version(&self) -> u64 {
        self.0.refresher.map.owners().version & ((1 << VERSION_BITS) - 1)
    }

    async fn slots_are_being_moved(&self) -> Result<bool> {
        let question = Command::new("CLUSTER").arg("NODES").with_retry(crate::retry::Retry::Safe);
        let primaries = self.0.refresher.map.owners().primaries();
        let mut answers = Vec::with_capacity(primaries.len());
        for node in &primaries {
            answers.push(node.link.command_of(&question));
        }
        let answers = join_all(answers).await;
        for answer in answers {
            match answer.and_then(Reply::into_bytes) {
                // Only a node itself says which of its slots are on their way: [slot->-node] and [slot-<-node].
                Ok(text) => {
                    let text = String::from_utf8_lossy(&text.unwrap_or_default()).into_owned();
                    if text.lines().any(|line| line.contains("myself") && line.contains('[')) {
                        return Ok(true);
                    }
                }
                // Who may not ask makes the second pass.
                Err(error) if error.kind() == ErrorKind::Permission => return Ok(true),
                Err(error) => return Err(error),
            }
        }
        Ok(false)
    }
}

/// The start of a node's keys.
fn at(node: &Node) -> Place {
    Place { second_pass: false, node: node.number, version: 0, inner: 0 }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_cursor_holds_all_of_a_place(
            second_pass in any::<bool>(), node in 0_u16..1 << NODE_BITS, version in 0_u64..1 << VERSION_BITS,
            inner in 0_u64..1 << INNER_BITS,
        ) {
            let place = Place { second_pass, node, version, inner };
            prop_assert_eq!(Place::of(place.cursor().unwrap()), place);
        }
    }

    #[test]
    fn a_node_cursor_that_does_not_fit_is_refused() {
        assert!(Place { second_pass: false, node: 1, version: 1, inner: 1 << INNER_BITS }.cursor().is_err());
    }
}
