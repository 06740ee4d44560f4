//! A model of the fill-token protocol, checked exhaustively: every order of the steps of a few nodes on one key.
//!
//! What is modelled is what the scripts in `fill_token.rs` and the writes in `backend/` do, each as one atomic step: begin (take a token or
//! join the one there), load, fill, set, invalidate; and what may happen to a node or the backend besides: a token expires or is evicted,
//! the value expires or is evicted, a fill's message is lost, or arrives when its sender has long given up. Property: a load that began before a set
//! or an invalidation never stores after it. Each mutation of the protocol must be caught, or the model proves nothing.

use stateright::{Checker, Model, Property};

/// The protocol, or one with a hole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Protocol {
    AsBuilt,
    /// A set leaves the token.
    SetKeepsToken,
    /// An invalidation leaves the token.
    InvalidationKeepsToken,
    /// A fill does not look whether the token is its own: any will do.
    AnyTokenWillDo,
    /// A fill leaves its token, and does not look at the key.
    FillKeepsTokenAndKeyUnseen,
    /// Tokens are a counter that starts anew when the token is gone.
    TokensRepeat,
}

/// Of what the value is: the number of the last write when its load began, or of the set itself.
type Version = u8;
type Token = u8;

#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
enum Phase {
    Idle,
    /// The loader runs; it may have read the source before or after any later change, so only the begin counts.
    Loading {
        token: Token,
        began_at: Version,
        found: Option<Stored>,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
struct Stored {
    /// What the bytes are: two values of one version can be the same bytes, so that equal bytes prove nothing.
    bytes: u8,
    /// The last write that this value is known to be as new as.
    as_new_as: Version,
}

/// A fill on its way to the backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
struct Fill {
    token: Token,
    began_at: Version,
    found: Option<u8>,
    bytes: u8,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct State {
    value: Option<Stored>,
    token: Option<Token>,
    next_token: Token,
    /// How many sets and invalidations there were.
    writes: Version,
    nodes: Vec<Phase>,
    fills: Vec<Fill>,
    /// A load that began before a write stored after it.
    broken: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Step {
    Begin { node: usize },
    Loaded { node: usize, bytes: u8 },
    LoadLost { node: usize },
    FillArrives { fill: Fill },
    FillLost { fill: Fill },
    Set { bytes: u8 },
    Invalidate,
    TokenGone,
    ValueGone,
}

struct Cluster {
    nodes: usize,
    max_writes: Version,
    max_tokens: Token,
    protocol: Protocol,
}

/// Two kinds of bytes are enough for "the same" and "another".
const BYTES: [u8; 2] = [0, 1];

impl Model for Cluster {
    type State = State;
    type Action = Step;

    fn init_states(&self) -> Vec<State> {
        vec![State {
            value: None,
            token: None,
            next_token: 0,
            writes: 0,
            nodes: vec![Phase::Idle; self.nodes],
            fills: Vec::new(),
            broken: false,
        }]
    }

    fn actions(&self, state: &State, steps: &mut Vec<Step>) {
        for (node, phase) in state.nodes.iter().enumerate() {
            match phase {
                // A fill under way belongs to a load that is over; its node may begin another.
                Phase::Idle if state.fills.len() < self.nodes && state.next_token < self.max_tokens => {
                    steps.push(Step::Begin { node });
                }
                Phase::Idle => {}
                Phase::Loading { .. } => {
                    steps.extend(BYTES.map(|bytes| Step::Loaded { node, bytes }));
                    steps.push(Step::LoadLost { node });
                }
            }
        }
        for fill in &state.fills {
            steps.push(Step::FillArrives { fill: *fill });
            steps.push(Step::FillLost { fill: *fill });
        }
        if state.writes < self.max_writes {
            steps.extend(BYTES.map(|bytes| Step::Set { bytes }));
            steps.push(Step::Invalidate);
        }
        if state.token.is_some() {
            steps.push(Step::TokenGone);
        }
        if state.value.is_some() {
            steps.push(Step::ValueGone);
        }
    }

    fn next_state(&self, state: &State, step: Step) -> Option<State> {
        let mut next = state.clone();
        match step {
            Step::Begin { node } => {
                let token = next.token.unwrap_or_else(|| {
                    let fresh = if self.protocol == Protocol::TokensRepeat { 0 } else { next.next_token };
                    next.next_token += 1;
                    fresh
                });
                next.token = Some(token);
                next.nodes[node] = Phase::Loading { token, began_at: next.writes, found: next.value };
            }
            Step::Loaded { node, bytes } => {
                let Phase::Loading { token, began_at, found } = next.nodes[node].clone() else { return None };
                next.nodes[node] = Phase::Idle;
                next.fills.push(Fill { token, began_at, found: found.map(|f| f.bytes), bytes });
                next.fills.sort_unstable();
            }
            Step::LoadLost { node } => next.nodes[node] = Phase::Idle,
            Step::FillArrives { fill } => {
                remove(&mut next.fills, fill);
                self.fill(&mut next, fill);
            }
            Step::FillLost { fill } => remove(&mut next.fills, fill),
            Step::Set { bytes } => {
                next.writes += 1;
                next.value = Some(Stored { bytes, as_new_as: next.writes });
                if self.protocol != Protocol::SetKeepsToken {
                    next.token = None;
                }
            }
            Step::Invalidate => {
                next.writes += 1;
                next.value = None;
                if self.protocol != Protocol::InvalidationKeepsToken {
                    next.token = None;
                }
            }
            Step::TokenGone => next.token = None,
            Step::ValueGone => next.value = None,
        }
        // Which node is which makes no difference, so states that differ only in that are one.
        next.nodes.sort_unstable();
        Some(next)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always("no load that began before a write stores after it", |_, state: &State| {
                !state.broken
            }),
            Property::always("what is stored is as new as the last write", |_, state: &State| {
                state.value.is_none_or(|value| value.as_new_as == state.writes)
            }),
            // What can be reached at all, so that the claims above are not about nothing.
            Property::sometimes("a load stores after a write", |_, state: &State| {
                state.writes > 0
                    && state.value.is_some_and(|_| state.fills.is_empty() && state.token.is_none())
            }),
            Property::sometimes("a fill comes too late", |_, state: &State| {
                state.fills.iter().any(|fill| fill.began_at < state.writes)
            }),
            Property::sometimes("two nodes load on one token", |_, state: &State| {
                let tokens: Vec<_> = state
                    .nodes
                    .iter()
                    .filter_map(|phase| match phase {
                        Phase::Loading { token, .. } => Some(*token),
                        Phase::Idle => None,
                    })
                    .collect();
                tokens.iter().enumerate().any(|(i, token)| tokens[..i].contains(token))
            }),
        ]
    }
}

impl Cluster {
    /// The fill script.
    fn fill(&self, state: &mut State, fill: Fill) {
        let token_is_there = match self.protocol {
            Protocol::AnyTokenWillDo => state.token.is_some(),
            _ => state.token == Some(fill.token),
        };
        if !token_is_there {
            return;
        }
        if self.protocol != Protocol::FillKeepsTokenAndKeyUnseen {
            state.token = None;
            if state.value.map(|value| value.bytes) != fill.found {
                return;
            }
        }
        if fill.began_at < state.writes {
            state.broken = true;
        }
        state.value = Some(Stored { bytes: fill.bytes, as_new_as: fill.began_at });
    }
}

fn remove(fills: &mut Vec<Fill>, fill: Fill) {
    if let Some(place) = fills.iter().position(|f| *f == fill) {
        fills.remove(place);
    }
}

fn holds(nodes: usize, max_writes: Version, max_tokens: Token) {
    let cluster = Cluster { nodes, max_writes, max_tokens, protocol: Protocol::AsBuilt };
    let checker = cluster.checker().threads(2).spawn_bfs().join();
    assert!(checker.is_done());
    checker.assert_properties();
    assert!(checker.unique_state_count() > 1000, "{} states are too few", checker.unique_state_count());
}

#[test]
fn two_nodes_never_store_what_is_older_than_the_last_write() {
    holds(2, 2, 3);
}

#[test]
fn three_nodes_never_store_what_is_older_than_the_last_write() {
    holds(3, 2, 2);
}

#[test]
fn every_hole_in_the_protocol_is_found() {
    for protocol in [
        Protocol::SetKeepsToken,
        Protocol::InvalidationKeepsToken,
        Protocol::AnyTokenWillDo,
        Protocol::TokensRepeat,
    ] {
        let cluster = Cluster { nodes: 2, max_writes: 2, max_tokens: 3, protocol };
        let checker = cluster.checker().threads(2).spawn_bfs().join();
        assert!(
            checker.discovery("no load that began before a write stores after it").is_some(),
            "{protocol:?} was not caught"
        );
    }
}

/// Not a hole as such: that a fill takes its token away and looks at the key is what saves a foreign write, which deletes no token. With
/// library writes alone, the model shows, the token suffices.
#[test]
fn among_library_writes_the_token_alone_suffices() {
    let protocol = Protocol::FillKeepsTokenAndKeyUnseen;
    let cluster = Cluster { nodes: 2, max_writes: 1, max_tokens: 2, protocol };
    let checker = cluster.checker().threads(2).spawn_bfs().join();
    assert!(checker.discovery("no load that began before a write stores after it").is_none());
}
