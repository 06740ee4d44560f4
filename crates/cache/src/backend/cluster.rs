//! The backend that is a Redis or Valkey cluster.
//!
//! Invariant: what one key needs as one step (its value and its fill token) is one step, for both are in one slot; what several keys need
//! is a step for each slot, all sent at the same time. While a slot is being moved a cluster refuses steps of several keys for as long as
//! one is at the old node or nowhere; then a value is written in three steps whose order keeps what the one step promises.
//! Deliberately absent: the operations on one key (commands.rs); routing (the link's).

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures_util::future::join_all;
use mtcache_link::{ClusterLink, Command, Reply, Script, each_key, key_slot};
use parking_lot::Mutex;

use super::commands::{SCAN_COUNT, Speaks, deleted, exactly, prefix_pattern, removal, set_command};
use super::{Bytes, CachedKey, Entry, When};
use crate::error::{Error, ErrorKind, Result};
use crate::health::Troubles;
use crate::told::telling;
use crate::ttl::Ttl;

pub(crate) struct ClusterBackend {
    link: ClusterLink,
    /// Keys that wait to be invalidated: nobody may read or set them.
    barred: Mutex<HashSet<Bytes>>,
    any_barred: AtomicBool,
    troubles: Troubles,
}

impl ClusterBackend {
    pub(crate) fn new(link: ClusterLink) -> Self {
        let troubles = Troubles::default();
        Self { link, barred: Mutex::default(), any_barred: AtomicBool::new(false), troubles }
    }

    pub(crate) fn link(&self) -> &ClusterLink {
        &self.link
    }

    pub(crate) fn troubles(&self) -> &Troubles {
        &self.troubles
    }

    pub(super) fn noted<T>(&self, result: Result<T>) -> Result<T> {
        result.inspect_err(|error| self.troubles.note(error))
    }

    pub(crate) fn is_up(&self) -> bool {
        self.link.is_connected()
    }

    pub(crate) async fn wait_up(&self, patience: Duration) -> bool {
        self.link.wait_connected(patience).await
    }

    /// How the first attempt to find the cluster ended.
    pub(crate) async fn first_attempt(&self) -> Result<()> {
        Ok(self.link.connected().await?)
    }

    pub(crate) fn describe(&self) -> String {
        self.link.url().to_string()
    }

    /// From here on nobody reads or sets these keys, and all others may be.
    pub(crate) fn bar(&self, keys: HashSet<Bytes>) {
        let mut barred = self.barred.lock();
        self.any_barred.store(!keys.is_empty(), Ordering::Release);
        *barred = keys;
    }

    /// Deletes keys and tokens, each with its own outcome: some of their primaries may be away.
    pub(crate) async fn delete_each(&self, keys: &[CachedKey]) -> Vec<Result<()>> {
        let groups = by_slot(keys, |key| key);
        let mut failed = HashMap::new();
        for (group, outcome) in groups.iter().zip(self.delete_groups(&groups).await) {
            if let Err(error) = outcome {
                failed.extend(group.iter().map(|key| (&key.key, error.clone())));
            }
        }
        keys.iter().map(|key| failed.get(&key.key).cloned().map_or(Ok(()), Err)).collect()
    }

    async fn delete_groups(&self, groups: &[Vec<&CachedKey>]) -> Vec<Result<u64>> {
        let steps = groups.iter().map(|group| removal(group.iter().copied())).collect();
        let outcomes = self.link.transactions(steps).await;
        let mut settling = Vec::with_capacity(groups.len());
        for (group, outcome) in groups.iter().zip(outcomes) {
            settling.push(self.settle_delete(group, outcome));
        }
        join_all(settling).await
    }

    fn refuse_barred(&self, mut is_barred: impl FnMut(&HashSet<Bytes>) -> bool) -> Result<()> {
        if self.any_barred.load(Ordering::Acquire) && is_barred(&self.barred.lock()) {
            return Err(Error::new(ErrorKind::Unavailable, BARRED));
        }
        Ok(())
    }

    fn refuse_barred_in(&self, commands: &[Command]) -> Result<()> {
        self.refuse_barred(|barred| commands.iter().any(|command| names_any(command, barred)))
    }

    /// Takes out the commands for keys that are barred, by their places.
    fn without_barred(&self, commands: Vec<Command>) -> (Vec<Command>, Vec<usize>) {
        if !self.any_barred.load(Ordering::Acquire) {
            return (commands, Vec::new());
        }
        let barred = self.barred.lock();
        let (mut rest, mut places) = (Vec::with_capacity(commands.len()), Vec::new());
        for (place, command) in commands.into_iter().enumerate() {
            if names_any(&command, &barred) {
                places.push(place);
            } else {
                rest.push(command);
            }
        }
        (rest, places)
    }

    /// What every primary answers; the first error, if one fails.
    async fn everywhere(&self, command: Command) -> Result<Vec<(String, Reply)>> {
        let answers = self.link.on_every_primary(&command).await?;
        answers.into_iter().map(|(node, answer)| Ok((node.to_string(), answer?))).collect()
    }

    /// Runs the command between two that delete the token.
    ///
    /// No load that began before the last of the three stores after it. One that began between the first two found the value of before,
    /// or none: it stores only if that is still so, and what it stores was loaded after this write began.
    async fn in_steps(&self, token: &[u8], command: Command) -> Result<Reply> {
        let delete = || Command::new("DEL").arg(token);
        self.link.command(delete()).await?;
        let reply = self.link.command(command).await?;
        self.link.command(delete()).await?;
        Ok(reply)
    }

    async fn settle_set(&self, group: &[&Entry], outcome: Outcome) -> Result<()> {
        match outcome {
            Ok(replies) => {
                for reply in replies {
                    reply.ok()?;
                }
            }
            Err(error) if is_between_nodes(&error) => {
                for entry in group {
                    let set = set_command(&entry.key, &entry.value, entry.ttl);
                    self.in_steps(&entry.key.token, set).await?;
                }
            }
            Err(error) => return Err(error.into()),
        }
        Ok(())
    }

    async fn settle_delete(&self, group: &[&CachedKey], outcome: Outcome) -> Result<u64> {
        match outcome {
            Ok(replies) => deleted(replies),
            Err(error) if is_between_nodes(&error) => {
                let mut count = 0;
                for key in group {
                    let unlink = Command::new("UNLINK").arg(&key.key);
                    count += self.in_steps(&key.token, unlink).await?.into_count()?;
                    for command in key.gone.iter().flat_map(|gone| telling(gone)) {
                        self.link.command(command).await?;
                    }
                }
                Ok(count)
            }
            Err(error) => Err(error.into()),
        }
    }
}

const BARRED: &str = "a write of this key has failed, and what it was to replace is not invalidated yet, as the key's primary is away";

fn names_any(command: &Command, keys: &HashSet<Bytes>) -> bool {
    let mut any = false;
    each_key(command, |key| any |= keys.contains(key));
    any
}

fn connection_trouble(reply: &Reply) -> Option<&mtcache_link::Error> {
    match reply {
        Reply::Error(error) if error.is_connection_trouble() => Some(error),
        _ => None,
    }
}

/// What became of one slot's step.
type Outcome = mtcache_link::Result<Vec<Reply>>;

impl Speaks for ClusterBackend {
    async fn one(&self, command: Command) -> Result<Reply> {
        self.refuse_barred_in(std::slice::from_ref(&command))?;
        Ok(self.link.command(command).await?)
    }

    async fn several(&self, commands: Vec<Command>) -> Result<Vec<Reply>> {
        let (commands, barred) = self.without_barred(commands);
        let mut replies = self.link.pipeline(commands).await?;
        if let Some(error) = replies.iter().find_map(connection_trouble) {
            self.troubles.note(&error.clone().into());
        }
        for place in barred {
            replies.insert(place, Reply::Error(mtcache_link::Error::not_sent(BARRED)));
        }
        Ok(replies)
    }

    async fn atomic(&self, commands: Vec<Command>) -> Result<Vec<Reply>> {
        self.refuse_barred_in(&commands)?;
        Ok(self.link.transaction(commands).await?)
    }

    async fn script(&self, script: &Script, keys: &[Bytes], args: &[Bytes]) -> Result<Reply> {
        self.refuse_barred(|barred| keys.iter().any(|key| barred.contains(key)))?;
        Ok(self.link.script(script, keys, args).await?)
    }

    async fn set(&self, key: &CachedKey, value: &[u8], ttl: Option<Ttl>, when: When) -> Result<bool> {
        // What waits would take the new value away again.
        self.refuse_barred(|barred| barred.contains(&key.key))?;
        let set = match when {
            When::Always => set_command(key, value, ttl),
            When::Absent => set_command(key, value, ttl).arg("NX"),
            When::Present => set_command(key, value, ttl).arg("XX"),
        };
        let commands = vec![Command::new("DEL").arg(&key.token), set.clone()];
        let stored = match self.link.transaction(commands).await {
            Ok(replies) => {
                let [_, stored] = exactly(replies)?;
                stored
            }
            Err(error) if is_between_nodes(&error) => self.in_steps(&key.token, set).await?,
            Err(error) => return Err(error.into()),
        };
        Ok(stored.into_bytes()?.is_some())
    }

    async fn set_many(&self, entries: &[Entry]) -> Result<()> {
        self.refuse_barred(|barred| entries.iter().any(|entry| barred.contains(&entry.key.key)))?;
        let groups = by_slot(entries, |entry| &entry.key);
        let mut steps = Vec::with_capacity(groups.len());
        for group in &groups {
            let mut commands = vec![Command::new("DEL").args(group.iter().map(|entry| &entry.key.token))];
            commands.extend(group.iter().map(|entry| set_command(&entry.key, &entry.value, entry.ttl)));
            steps.push(commands);
        }
        let outcomes = self.link.transactions(steps).await;
        let mut settling = Vec::with_capacity(groups.len());
        for (group, outcome) in groups.iter().zip(outcomes) {
            settling.push(self.settle_set(group, outcome));
        }
        join_all(settling).await.into_iter().collect()
    }

    async fn delete(&self, keys: &[CachedKey]) -> Result<u64> {
        self.delete_groups(&by_slot(keys, |key| key)).await.into_iter().sum()
    }

    async fn exists(&self, keys: &[Bytes]) -> Result<u64> {
        let asked = keys.iter().map(|key| Command::new("EXISTS").arg(key)).collect();
        let mut there = 0;
        for reply in self.several(asked).await? {
            there += reply.into_count()?;
        }
        Ok(there)
    }

    /// Every primary has to answer.
    async fn ping(&self) -> Result<()> {
        self.everywhere(Command::new("PING")).await.map(drop)
    }

    /// The reports of all primaries, each under a comment that names it.
    async fn info(&self, section: &str) -> Result<String> {
        let mut all = String::new();
        for (node, report) in self.everywhere(Command::new("INFO").arg(section)).await? {
            let report = report.into_bytes()?.unwrap_or_default();
            all.push_str(&format!("# Node {node}\r\n{}\r\n", String::from_utf8_lossy(&report).trim_end()));
        }
        Ok(all)
    }

    async fn flush_database(&self) -> Result<()> {
        self.everywhere(Command::new("FLUSHDB")).await.map(drop)
    }

    async fn scan(&self, cursor: u64, prefix: &[u8]) -> Result<(u64, Vec<Bytes>)> {
        Ok(self.link.scan(cursor, &prefix_pattern(prefix), SCAN_COUNT).await?)
    }
}

/// Some of its keys are at the slot's new node and others are not; nothing has taken effect.
fn is_between_nodes(error: &mtcache_link::Error) -> bool {
    error.code() == Some("TRYAGAIN")
}

/// Those of one slot together, in the order given.
fn by_slot<T>(items: &[T], key: impl Fn(&T) -> &CachedKey) -> Vec<Vec<&T>> {
    let mut slots: BTreeMap<u16, Vec<&T>> = BTreeMap::new();
    for item in items {
        slots.entry(key_slot(&key(item).key)).or_default().push(item);
    }
    slots.into_values().collect()
}
