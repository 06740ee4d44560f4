//! Many commands at once: shared out over their nodes, sent at the same time, and answered in the order asked for.
//!
//! Invariant: commands for one slot are run in the order given, for as long as that slot is not being moved. Deliberately absent: one
//! step over several slots, which no cluster has.

use std::collections::BTreeMap;

use futures_util::future::join_all;

use crate::cluster::redirect::Advice;
use crate::cluster::{ClusterLink, Grouping, Next, Travel, Way, asking, exec, executed, multi};
use crate::command::Command;
use crate::error::{Error, Result};
use crate::reply::Reply;
use crate::slots;

/// A command that is still to be answered.
struct Waiting<'a> {
    position: usize,
    command: &'a Command,
    slot: Option<u16>,
    way: Way,
    travel: Travel,
}

impl ClusterLink {
    /// Sends several commands in one go to each of their nodes. They are not one atomic step. An error reply stands in its command's place,
    /// and so does the failure of a node that is out of reach: those for other nodes are answered.
    pub async fn pipeline(&self, commands: Vec<Command>) -> Result<Vec<Reply>> {
        let mut answers: Vec<Option<Reply>> = commands.iter().map(|_| None).collect();
        let mut waiting = Vec::with_capacity(commands.len());
        for (position, command) in commands.iter().enumerate() {
            let way = match slots::of_command(command) {
                Ok(slot) => self.way(slot).await.map(|way| (slot, way)),
                Err(error) => Err(error),
            };
            match way {
                Ok((slot, way)) => {
                    waiting.push(Waiting { position, command, slot, way, travel: Travel::default() });
                }
                Err(error) => answers[position] = Some(Reply::Error(error)),
            }
        }
        while !waiting.is_empty() {
            waiting = self.round(waiting, &mut answers).await;
        }
        let count = commands.len();
        let answers: Vec<Reply> = answers.into_iter().flatten().collect();
        if answers.len() == count {
            return Ok(answers);
        }
        Err(Error::protocol(format!("{} replies to {count} commands", answers.len())))
    }

    /// Sends each to its node; returns those that have to go on.
    async fn round<'a>(&self, waiting: Vec<Waiting<'a>>, answers: &mut [Option<Reply>]) -> Vec<Waiting<'a>> {
        let mut batches: BTreeMap<(u16, bool), Vec<Waiting<'a>>> = BTreeMap::new();
        for one in waiting {
            batches.entry((one.way.node.number, one.way.asking)).or_default().push(one);
        }
        let mut sending = Vec::with_capacity(batches.len());
        for batch in batches.into_values() {
            sending.push(send_batch(batch));
        }
        let sent = join_all(sending);
        let (mut on, mut pause) = (Vec::new(), None);
        for (batch, replies) in sent.await {
            let commands: Vec<&Command> = batch.iter().map(|one| one.command).collect();
            let replies = match replies {
                Ok(replies) => replies.into_iter().map(Ok).collect::<Vec<_>>(),
                Err(error) => commands.iter().map(|_| Err(error.clone())).collect(),
            };
            for (mut one, reply) in batch.into_iter().zip(replies) {
                let own = [one.command];
                // A whole batch that is lost may go on only if all of it may be sent twice.
                let (error, concerned) = match reply {
                    Ok(Reply::Error(error)) => (error, own.as_slice()),
                    Ok(reply) => {
                        answers[one.position] = Some(reply);
                        continue;
                    }
                    Err(error) => (error, commands.as_slice()),
                };
                match self.next(&error, &one.way, one.slot, concerned, &mut one.travel) {
                    Next::Go(way) => {
                        one.way = way;
                        on.push(one);
                    }
                    Next::Pause(longer) => {
                        pause = pause.max(Some(longer));
                        on.push(one);
                    }
                    Next::GiveUp => answers[one.position] = Some(Reply::Error(error)),
                }
            }
        }
        // In the order given, whatever node each was at.
        on.sort_by_key(|one| one.position);
        let Some(pause) = pause else { return on };
        tokio::time::sleep(pause).await;
        let mut found = Vec::with_capacity(on.len());
        for mut one in on {
            match self.way(one.slot).await {
                Ok(way) => {
                    one.way = way;
                    found.push(one);
                }
                Err(error) => answers[one.position] = Some(Reply::Error(error)),
            }
        }
        found
    }

    /// Runs several transactions, each with its keys in one slot and independent of the others: those for one node go out together.
    pub async fn transactions(&self, groups: Vec<Vec<Command>>) -> Vec<Result<Vec<Reply>>> {
        let groups = &groups;
        let mut by_node: BTreeMap<u16, Vec<(usize, Way)>> = BTreeMap::new();
        let mut results: Vec<Option<Result<Vec<Reply>>>> = groups.iter().map(|_| None).collect();
        for (position, group) in groups.iter().enumerate() {
            let way = match slots::of_commands(group) {
                Ok(slot) => self.way(slot).await,
                Err(error) => Err(error),
            };
            match way {
                Ok(way) => by_node.entry(way.node.number).or_default().push((position, way)),
                Err(error) => results[position] = Some(Err(error)),
            }
        }
        let mut sending = Vec::with_capacity(by_node.len());
        for batch in by_node.into_values() {
            sending.push(send_transactions(batch, groups));
        }
        let sent = join_all(sending);
        let mut again = Vec::new();
        for (batch, answers) in sent.await {
            let mut answers = answers.map(Vec::into_iter);
            for (position, way) in batch {
                let result = match &mut answers {
                    Ok(answers) => executed(answers.take(groups[position].len() + 2)),
                    Err(error) => Err(error.clone()),
                };
                match result {
                    // Nothing of it has taken effect, and another node or moment may do.
                    Err(error) if goes_on(&error, &way) => again.push(position),
                    result => {
                        if result.is_err() {
                            self.0.refresher.wake(None);
                        }
                        results[position] = Some(result);
                    }
                }
            }
        }
        let mut going_on = Vec::with_capacity(again.len());
        for position in again {
            going_on.push(self.go_on(position, &groups[position]));
        }
        for (position, result) in join_all(going_on).await {
            results[position] = Some(result);
        }
        results
            .into_iter()
            .map(|result| result.unwrap_or_else(|| Err(Error::protocol("a transaction was not sent"))))
            .collect()
    }

    async fn go_on(&self, position: usize, group: &[Command]) -> (usize, Result<Vec<Reply>>) {
        let commands: Vec<&Command> = group.iter().collect();
        match slots::of_commands(group) {
            Ok(slot) => (position, self.routed(slot, &commands, Grouping::Transaction).await),
            Err(error) => (position, Err(error)),
        }
    }
}

/// Sends what goes to one node.
async fn send_batch(batch: Vec<Waiting<'_>>) -> (Vec<Waiting<'_>>, Result<Vec<Reply>>) {
    let Some(first) = batch.first() else { return (batch, Ok(Vec::new())) };
    let asking = asking();
    let mut commands = Vec::with_capacity(batch.len());
    for one in &batch {
        if one.way.asking {
            commands.push(&asking);
        }
        commands.push(one.command);
    }
    let step = commands.len() / batch.len();
    let answers = first.way.node.link.pipeline_of(&commands).await;
    let answers = answers.map(|answers| answers.into_iter().skip(step - 1).step_by(step).collect());
    (batch, answers)
}

/// Sends the transactions that go to one node, by their positions.
async fn send_transactions(
    batch: Vec<(usize, Way)>,
    groups: &[Vec<Command>],
) -> (Vec<(usize, Way)>, Result<Vec<Reply>>) {
    let Some((_, way)) = batch.first() else { return (batch, Ok(Vec::new())) };
    let (multi, exec) = (multi(), exec());
    let mut commands = Vec::new();
    for (position, _) in &batch {
        commands.push(&multi);
        commands.extend(&groups[*position]);
        commands.push(&exec);
    }
    let answers = way.node.link.pipeline_of(&commands).await;
    (batch, answers)
}

fn goes_on(error: &Error, way: &Way) -> bool {
    !matches!(Advice::of(error, &way.node.endpoint), Advice::Lost | Advice::None)
}
