//! A model of leases and near caches around fill tokens, checked exhaustively: every order of the steps of three nodes on one key.
//!
//! What is modelled beyond `model_fill_token.rs`: a lease (a token taken exclusively; who finds one waits), its renewal, its release, its
//! end by age, its next holder, and the zombie that wakes later; attempts to take it whose answer is lost, and the same node's next attempt;
//! messages that are lost, late or out of order; a near cache that reads the backend, hears messages about changes, loses its connection,
//! finds that out, and comes back. Properties: no load that began before a write stores after it; at most one node holds the lease
//! that is there; a near cache serves as fresh nothing that it was told of, nor anything older than its own node's last acknowledged write,
//! and not even as stale what its own node has overwritten. Each hole made in the protocol must be found, or the model proves nothing.
//!
//! Reductions, each of which loses no violation. One node has a near cache, because what a near cache holds has no effect on the backend or on
//! other nodes: a violation at any node is one at that node with the names exchanged. The other two are interchangeable, so their order is
//! forgotten. A renewal and a release change at most the token that they name, so one that is late is the same as one that happens
//! at any time for any token that was ever handed out; nobody has to remember it. Values are not compared by a fill here: with less to
//! refuse it, the token alone has to hold. Waiting for a lease is no state: who waits does nothing but begin again.

use std::collections::BTreeSet;

use stateright::{Checker, HasDiscoveries, Model, Property};

/// The protocol, or one with a hole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Protocol {
    AsBuilt,
    /// A set leaves the token.
    SetKeepsToken,
    /// An invalidation leaves the token.
    InvalidationKeepsToken,
    /// A fill does not look whose token is there.
    AnyTokenWillDo,
    /// The next holder's token is the one of before.
    NextHolderHasTheSameToken,
    /// Who finds a lease joins it, as a fill token is joined.
    LeaseIsJoined,
    /// A renewal puts its token there, whatever is.
    RenewalDoesNotLook,
    /// A request to begin takes effect twice, the second time late.
    BeginIsSentTwice,
    /// What was read is kept near although its key changed meanwhile.
    KeepsWhatWasOvertaken,
    /// A set or an invalidation leaves what its own node has near.
    OwnWriteLeavesNear,
    /// A connection that is back goes on with what was kept before.
    ReconnectKeepsNear,
    /// A connection that is known to be down is still believed.
    SilenceIsBelieved,
}

type Version = u8;
type Token = u8;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
enum Phase {
    Idle,
    /// Only the begin counts: the loader may have asked the source just then.
    Loading {
        token: Token,
        began_at: Version,
    },
}

/// A fill on its way to the backend; its sender may be a zombie, or may have given up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
struct Fill {
    token: Token,
    began_at: Version,
}

/// A read of the near node on its way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Reading {
    No,
    Sent {
        overtaken: bool,
    },
    /// The backend has answered this.
    Answered {
        value: Version,
        overtaken: bool,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Connection {
    Up,
    /// Broken or silent, and not found out: the heartbeat bounds how long.
    Cut,
    /// Known to be down.
    Down,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Near {
    kept: Option<Version>,
    reading: Reading,
    connection: Connection,
    /// Messages that were sent and have not been heard.
    untold: u8,
    /// A write of this node that has taken effect and has not returned.
    writing: Option<Version>,
    /// The last write of this node that has returned.
    acknowledged: Version,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct State {
    value: Option<Version>,
    token: Option<Token>,
    /// The answer that handed it out was lost: nobody knows that he holds it.
    orphan: bool,
    handed_out: Token,
    writes: Version,
    /// The first has the near cache.
    nodes: Vec<Phase>,
    fills: Vec<Fill>,
    near: Near,
    broken: bool,
    /// What was served from near when it should not have been.
    lied: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Step {
    Begin(usize),
    /// It takes effect, late perhaps, and its answer reaches nobody.
    BeginUnanswered,
    /// The same request takes effect once more.
    BeginAgain(Token),
    Loaded(usize),
    LoadFailed(usize),
    FillArrives(Fill),
    FillLost(Fill),
    Renewal(Token),
    Release(Token),
    Set,
    Invalidate,
    SetByNear,
    InvalidateByNear,
    WriteReturns,
    TokenGone,
    ValueGone,
    ReadSent,
    ReadAnswered,
    ReadEnds,
    Told,
    Cut,
    FoundOut,
    Reconnected,
    Served,
}

struct Cluster {
    nodes: usize,
    max_writes: Version,
    max_tokens: Token,
    max_fills: usize,
    protocol: Protocol,
}

const FENCED: &str = "no load that began before a write stores after it";
const CURRENT: &str = "what is stored is as new as the last write";
const ONE_HOLDER: &str = "at most one node holds the lease that is there";
const HONEST: &str = "nothing is served as fresh that was told of, or overwritten here";
const NOT_RAISED: &str = "what this node has overwritten is not known here any more";

impl Model for Cluster {
    type State = State;
    type Action = Step;

    fn init_states(&self) -> Vec<State> {
        let near = Near {
            kept: None,
            reading: Reading::No,
            connection: Connection::Up,
            untold: 0,
            writing: None,
            acknowledged: 0,
        };
        vec![State {
            value: None,
            token: None,
            orphan: false,
            handed_out: 0,
            writes: 0,
            nodes: vec![Phase::Idle; self.nodes],
            fills: Vec::new(),
            near,
            broken: false,
            lied: false,
        }]
    }

    fn actions(&self, state: &State, steps: &mut Vec<Step>) {
        let may_take = state.handed_out < self.max_tokens
            && (state.token.is_none() || state.orphan || self.protocol == Protocol::LeaseIsJoined);
        for (node, phase) in state.nodes.iter().enumerate() {
            match phase {
                Phase::Idle if may_take => steps.push(Step::Begin(node)),
                Phase::Idle => {}
                Phase::Loading { .. } => {
                    if state.fills.len() < self.max_fills {
                        steps.push(Step::Loaded(node));
                    }
                    steps.push(Step::LoadFailed(node));
                }
            }
        }
        if state.handed_out < self.max_tokens && state.token.is_none() {
            steps.push(Step::BeginUnanswered);
        }
        for fill in &state.fills {
            steps.push(Step::FillArrives(*fill));
            steps.push(Step::FillLost(*fill));
        }
        for token in 0..state.handed_out {
            steps.push(Step::Release(token));
            match self.protocol {
                Protocol::RenewalDoesNotLook => steps.push(Step::Renewal(token)),
                Protocol::BeginIsSentTwice => steps.push(Step::BeginAgain(token)),
                // A renewal of the token that is there changes nothing that is modelled, and no other has an effect.
                _ => {}
            }
        }
        if state.writes < self.max_writes {
            steps.extend([Step::Set, Step::Invalidate]);
            if state.near.writing.is_none() {
                steps.extend([Step::SetByNear, Step::InvalidateByNear]);
            }
        }
        if state.token.is_some() {
            steps.push(Step::TokenGone);
        }
        if state.value.is_some() {
            steps.push(Step::ValueGone);
        }
        near_actions(&state.near, steps);
    }

    fn next_state(&self, state: &State, step: Step) -> Option<State> {
        let mut next = state.clone();
        match step {
            Step::Begin(node) => {
                let token = self.take(&mut next);
                next.orphan = false;
                next.nodes[node] = Phase::Loading { token, began_at: next.writes };
            }
            Step::BeginUnanswered => {
                self.take(&mut next);
                next.orphan = true;
            }
            Step::BeginAgain(token) => {
                if next.token.is_none() {
                    next.token = Some(token);
                }
            }
            Step::Loaded(node) => {
                let Phase::Loading { token, began_at } = next.nodes[node] else { return None };
                next.nodes[node] = Phase::Idle;
                next.fills.push(Fill { token, began_at });
                next.fills.sort_unstable();
            }
            Step::LoadFailed(node) => next.nodes[node] = Phase::Idle,
            Step::FillArrives(fill) => {
                remove(&mut next.fills, fill);
                self.fill(&mut next, fill);
            }
            Step::FillLost(fill) => remove(&mut next.fills, fill),
            Step::Renewal(token) => next.token = Some(token),
            Step::Release(token) => {
                if next.token == Some(token) {
                    next.token = None;
                }
            }
            Step::Set | Step::Invalidate => self.write(&mut next, step == Step::Set),
            Step::SetByNear | Step::InvalidateByNear => {
                self.write(&mut next, step == Step::SetByNear);
                next.near.writing = Some(next.writes);
            }
            Step::TokenGone => next.token = None,
            Step::ValueGone => {
                next.value = None;
                tell(&mut next);
            }
            near => self.near_step(&mut next, &near)?,
        }
        if next.token.is_none() {
            next.orphan = false;
        }
        // Which of the others is which makes no difference.
        next.nodes[1..].sort_unstable();
        (next != *state).then_some(next)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always(FENCED, |_, state: &State| !state.broken),
            Property::always(CURRENT, |_, state: &State| {
                state.value.is_none_or(|value| value == state.writes)
            }),
            Property::always(ONE_HOLDER, |_, state: &State| holders(state) <= 1),
            Property::always(HONEST, |_, state: &State| !state.lied),
            Property::always(NOT_RAISED, |_, state: &State| {
                state.near.kept.is_none_or(|kept| kept >= state.near.acknowledged)
            }),
            // What can be reached at all, so that the claims above are not about nothing.
            Property::sometimes("a zombie loads beside the next holder", |_, state: &State| {
                holders(state) == 1 && state.nodes.iter().filter(|node| **node != Phase::Idle).count() > 1
            }),
            Property::sometimes("a zombie's fill comes when the next holder loads", |_, state: &State| {
                holders(state) == 1 && state.fills.iter().any(|fill| Some(fill.token) != state.token)
            }),
            Property::sometimes("a load stores after a write", |_, state: &State| {
                state.writes > 0 && state.value == Some(state.writes) && state.handed_out > 0
            }),
            Property::sometimes("a lease is orphaned", |_, state: &State| state.orphan),
            Property::sometimes(
                "something old is near, and the message about it is on its way",
                |_, state: &State| {
                    state.near.kept.is_some_and(|kept| kept < state.writes)
                        && state.near.connection == Connection::Up
                },
            ),
            Property::sometimes("something old is near, and no message will come", |_, state: &State| {
                state.near.kept.is_some_and(|kept| kept < state.writes)
                    && state.near.connection == Connection::Down
            }),
        ]
    }
}

fn holders(state: &State) -> usize {
    let holds = |phase: &&Phase| matches!(phase, Phase::Loading { token, .. } if state.token == Some(*token));
    state.nodes.iter().filter(holds).count()
}

impl Cluster {
    fn take(&self, state: &mut State) -> Token {
        if let (Protocol::LeaseIsJoined, Some(token)) = (self.protocol, state.token) {
            return token;
        }
        let fresh = match self.protocol {
            Protocol::NextHolderHasTheSameToken => 0,
            _ => state.handed_out,
        };
        state.handed_out += 1;
        state.token = Some(fresh);
        fresh
    }

    fn write(&self, state: &mut State, is_set: bool) {
        state.writes += 1;
        state.value = is_set.then_some(state.writes);
        let keeps = if is_set { Protocol::SetKeepsToken } else { Protocol::InvalidationKeepsToken };
        if self.protocol != keeps {
            state.token = None;
        }
        tell(state);
    }

    fn fill(&self, state: &mut State, fill: Fill) {
        let its_own = match self.protocol {
            Protocol::AnyTokenWillDo => state.token.is_some(),
            _ => state.token == Some(fill.token),
        };
        if !its_own {
            return;
        }
        state.token = None;
        state.broken |= fill.began_at < state.writes;
        state.value = Some(fill.began_at);
        tell(state);
    }

    fn near_step(&self, state: &mut State, step: &Step) -> Option<()> {
        let value = state.value;
        let near = &mut state.near;
        match step {
            Step::ReadSent => near.reading = Reading::Sent { overtaken: false },
            Step::ReadAnswered => {
                let Reading::Sent { overtaken } = near.reading else { return None };
                near.reading = value.map_or(Reading::No, |value| Reading::Answered { value, overtaken });
            }
            Step::ReadEnds => {
                let Reading::Answered { value, overtaken } = near.reading else { return None };
                near.reading = Reading::No;
                if !overtaken || self.protocol == Protocol::KeepsWhatWasOvertaken {
                    near.kept = Some(value);
                }
            }
            Step::WriteReturns => {
                near.acknowledged = near.writing.take()?;
                if self.protocol != Protocol::OwnWriteLeavesNear {
                    forget(near);
                }
            }
            Step::Told => {
                near.untold -= 1;
                forget(near);
            }
            Step::Cut => {
                near.connection = Connection::Cut;
                near.untold = 0;
            }
            // What is kept stays, to be served marked stale; what is being read is not kept.
            Step::FoundOut => {
                near.connection = Connection::Down;
                overtake(near);
            }
            Step::Reconnected => {
                near.connection = Connection::Up;
                if self.protocol == Protocol::ReconnectKeepsNear {
                    overtake(near);
                } else {
                    forget(near);
                }
            }
            Step::Served => {
                let kept = near.kept?;
                let as_fresh =
                    near.connection != Connection::Down || self.protocol == Protocol::SilenceIsBelieved;
                let told = match near.connection {
                    // Everything that was not told is on its way.
                    Connection::Up => near.untold == 0,
                    // For at most a heartbeat nobody can know.
                    Connection::Cut => false,
                    Connection::Down => true,
                };
                state.lied |= as_fresh && (kept < near.acknowledged || told && kept < state.writes);
            }
            _ => return None,
        }
        Some(())
    }
}

fn near_actions(near: &Near, steps: &mut Vec<Step>) {
    match near.reading {
        Reading::No if near.connection != Connection::Down => steps.push(Step::ReadSent),
        Reading::No => {}
        Reading::Sent { .. } => steps.push(Step::ReadAnswered),
        Reading::Answered { .. } => steps.push(Step::ReadEnds),
    }
    if near.writing.is_some() {
        steps.push(Step::WriteReturns);
    }
    if near.untold > 0 {
        steps.push(Step::Told);
    }
    if near.kept.is_some() {
        steps.push(Step::Served);
    }
    steps.push(match near.connection {
        Connection::Up => Step::Cut,
        Connection::Cut => Step::FoundOut,
        Connection::Down => Step::Reconnected,
    });
}

/// The server sends a message about the key to who hears.
fn tell(state: &mut State) {
    if state.near.connection == Connection::Up {
        // More than a few unheard messages are as good as a few: each makes the node forget.
        state.near.untold = (state.near.untold + 1).min(2);
    }
}

fn forget(near: &mut Near) {
    near.kept = None;
    overtake(near);
}

fn overtake(near: &mut Near) {
    match &mut near.reading {
        Reading::No => {}
        Reading::Sent { overtaken } | Reading::Answered { overtaken, .. } => *overtaken = true,
    }
}

fn remove(fills: &mut Vec<Fill>, fill: Fill) {
    if let Some(place) = fills.iter().position(|f| *f == fill) {
        fills.remove(place);
    }
}

fn holds(nodes: usize, max_writes: Version, max_tokens: Token, max_fills: usize) {
    let cluster = Cluster { nodes, max_writes, max_tokens, max_fills, protocol: Protocol::AsBuilt };
    let checker = cluster.checker().threads(2).spawn_bfs().join();
    assert!(checker.is_done());
    checker.assert_properties();
    println!("{nodes} nodes, {max_writes} writes: {} states", checker.unique_state_count());
    assert!(checker.unique_state_count() > 10_000, "{} states are too few", checker.unique_state_count());
}

#[test]
fn three_nodes_with_leases_and_a_near_cache_never_break_the_contract() {
    holds(3, 2, 3, 2);
    // Minutes rather than seconds.
    if std::env::var_os("MTCACHE_LONG_MODEL").is_some() {
        holds(3, 3, 4, 3);
    }
}

#[test]
fn every_hole_in_leases_and_near_caches_is_found() {
    use Protocol as P;
    for (protocol, claim) in [
        (P::SetKeepsToken, FENCED),
        (P::InvalidationKeepsToken, FENCED),
        (P::AnyTokenWillDo, FENCED),
        (P::NextHolderHasTheSameToken, FENCED),
        (P::RenewalDoesNotLook, FENCED),
        (P::BeginIsSentTwice, FENCED),
        (P::LeaseIsJoined, ONE_HOLDER),
        (P::KeepsWhatWasOvertaken, HONEST),
        (P::OwnWriteLeavesNear, NOT_RAISED),
        (P::OwnWriteLeavesNear, HONEST),
        (P::ReconnectKeepsNear, HONEST),
        (P::SilenceIsBelieved, HONEST),
    ] {
        let cluster = Cluster { nodes: 3, max_writes: 2, max_tokens: 3, max_fills: 2, protocol };
        let found = HasDiscoveries::AllOf(BTreeSet::from([claim]));
        let checker = cluster.checker().threads(2).finish_when(found).spawn_bfs().join();
        assert!(checker.discovery(claim).is_some(), "{protocol:?} does not break: {claim}");
    }
}
