//! The backend that is a Redis, a Valkey or our own server, over a link.
//!
//! Invariant: whatever must be one atomic step is one command, one transaction or one script. Deliberately absent: connections
//! and retries, which are the link's.

use std::time::Duration;

use mtcache_link::{Command, Link, Reply, Script};

use super::{Bytes, CachedKey, Order, When};
use crate::collections::{ScoreRange, ZaddOptions};
use crate::error::{Error, Result};
use crate::ttl::{TimeLeft, Ttl};

/// How many keys a step of a walk looks at.
const SCAN_COUNT: i64 = 1000;

pub(crate) struct RedisBackend {
    link: Link,
}

// References in, like the embedded backend's: both are called by one macro.
impl RedisBackend {
    pub(crate) fn new(link: Link) -> Self {
        Self { link }
    }

    pub(crate) fn is_up(&self) -> bool {
        self.link.is_connected()
    }

    pub(crate) async fn wait_up(&self, patience: Duration) -> bool {
        self.link.wait_connected(patience).await
    }

    /// How the first attempt to connect ended.
    pub(crate) async fn first_attempt(&self) -> Result<()> {
        Ok(self.link.connected().await?)
    }

    pub(crate) fn describe(&self) -> String {
        self.link.url().to_string()
    }

    pub(super) async fn get(&self, key: &[u8]) -> Result<Option<Bytes>> {
        Ok(self.link.command(Command::new("GET").arg(key)).await?.into_bytes()?)
    }

    pub(super) async fn get_with_time_left(&self, key: &[u8]) -> Result<(Option<Bytes>, TimeLeft)> {
        let commands = vec![Command::new("PTTL").arg(key), Command::new("GET").arg(key)];
        let [left, value] = exactly(self.link.pipeline(commands).await?)?;
        Ok((value.into_bytes()?, TimeLeft::from_pttl(left.into_int()?)))
    }

    pub(super) async fn get_many(&self, keys: &[Bytes]) -> Result<Vec<Option<Bytes>>> {
        // MGET answers nil for a key of another type, which would read as a miss.
        let commands = keys.iter().map(|key| Command::new("GET").arg(key)).collect();
        let replies = self.link.pipeline(commands).await?;
        replies.into_iter().map(|reply| Ok(reply.into_bytes()?)).collect()
    }

    pub(super) async fn set(
        &self,
        key: &CachedKey,
        value: &[u8],
        ttl: Option<Ttl>,
        when: When,
    ) -> Result<bool> {
        let mut set = set_command(key, value, ttl);
        match when {
            When::Always => {}
            When::Absent => set = set.arg("NX"),
            When::Present => set = set.arg("XX"),
        }
        let commands = vec![Command::new("DEL").arg(&key.token), set];
        let [_, stored] = exactly(self.link.transaction(commands).await?)?;
        Ok(stored.into_bytes()?.is_some())
    }

    pub(super) async fn set_many(&self, entries: &[(CachedKey, Bytes)], ttl: Option<Ttl>) -> Result<()> {
        let mut commands = vec![Command::new("DEL").args(entries.iter().map(|(key, _)| &key.token))];
        commands.extend(entries.iter().map(|(key, value)| set_command(key, value, ttl)));
        for reply in self.link.transaction(commands).await? {
            reply.ok()?;
        }
        Ok(())
    }

    pub(super) async fn delete(&self, keys: &[CachedKey]) -> Result<u64> {
        let commands = vec![
            Command::new("DEL").args(keys.iter().map(|key| &key.token)),
            Command::new("UNLINK").args(keys.iter().map(|key| &key.key)),
        ];
        let [_, deleted] = exactly(self.link.transaction(commands).await?)?;
        Ok(deleted.into_count()?)
    }

    pub(super) async fn exists(&self, keys: &[Bytes]) -> Result<u64> {
        self.count(Command::new("EXISTS").args(keys)).await
    }

    pub(super) async fn expire(&self, key: &[u8], ttl: Ttl) -> Result<bool> {
        let command = Command::new("PEXPIRE").arg(key).int(ttl.as_millis() as i64);
        Ok(self.link.command(command).await?.into_bool()?)
    }

    pub(super) async fn time_left(&self, key: &[u8]) -> Result<TimeLeft> {
        Ok(TimeLeft::from_pttl(self.int(Command::new("PTTL").arg(key)).await?))
    }

    pub(super) async fn increment(&self, key: &[u8], by: i64) -> Result<i64> {
        self.int(Command::new("INCRBY").arg(key).int(by)).await
    }

    pub(super) async fn hash_set(&self, key: &[u8], fields: &[(Bytes, Bytes)]) -> Result<u64> {
        let fields = fields.iter().flat_map(|(field, value)| [field, value]);
        self.count(Command::new("HSET").arg(key).args(fields)).await
    }

    pub(super) async fn hash_get(&self, key: &[u8], fields: &[Bytes]) -> Result<Vec<Option<Bytes>>> {
        let replies = self.link.command(Command::new("HMGET").arg(key).args(fields)).await?.into_array()?;
        replies.into_iter().map(|reply| Ok(reply.into_bytes()?)).collect()
    }

    pub(super) async fn hash_all(&self, key: &[u8]) -> Result<Vec<(Bytes, Bytes)>> {
        let pairs = self.link.command(Command::new("HGETALL").arg(key)).await?.into_pairs()?;
        pairs.into_iter().map(|(field, value)| Ok((present(field)?, present(value)?))).collect()
    }

    pub(super) async fn hash_delete(&self, key: &[u8], fields: &[Bytes]) -> Result<u64> {
        self.count(Command::new("HDEL").arg(key).args(fields)).await
    }

    pub(super) async fn hash_len(&self, key: &[u8]) -> Result<u64> {
        self.count(Command::new("HLEN").arg(key)).await
    }

    pub(super) async fn hash_increment(&self, key: &[u8], field: &[u8], by: i64) -> Result<i64> {
        self.int(Command::new("HINCRBY").arg(key).arg(field).int(by)).await
    }

    pub(super) async fn zset_add(
        &self,
        key: &[u8],
        members: &[(Bytes, f64)],
        options: ZaddOptions,
    ) -> Result<u64> {
        let mut command = Command::new("ZADD").arg(key).args(options.words());
        for (member, score) in members {
            command = command.arg(score_text(*score)).arg(member);
        }
        self.count(command).await
    }

    pub(super) async fn zset_increment(&self, key: &[u8], member: &[u8], by: f64) -> Result<f64> {
        let command = Command::new("ZINCRBY").arg(key).arg(score_text(by)).arg(member);
        let score = self.link.command(command).await?.into_float()?;
        score.ok_or_else(|| Error::protocol("ZINCRBY answered nil"))
    }

    pub(super) async fn zset_range(
        &self,
        key: &[u8],
        start: i64,
        stop: i64,
        order: Order,
    ) -> Result<Vec<(Bytes, f64)>> {
        let mut command = Command::new("ZRANGE").arg(key).int(start).int(stop);
        if order == Order::Descending {
            command = command.arg("REV");
        }
        self.scored(command.arg("WITHSCORES")).await
    }

    pub(super) async fn zset_range_by_score(
        &self,
        key: &[u8],
        range: ScoreRange,
        order: Order,
        skip: u64,
        limit: Option<u64>,
    ) -> Result<Vec<(Bytes, f64)>> {
        let (low, high) = range.words();
        let mut command = match order {
            Order::Ascending => Command::new("ZRANGEBYSCORE").arg(key).arg(low).arg(high),
            Order::Descending => Command::new("ZREVRANGEBYSCORE").arg(key).arg(high).arg(low),
        };
        command = command.arg("WITHSCORES");
        if skip > 0 || limit.is_some() {
            let limit = limit.map_or(-1, |n| i64::try_from(n).unwrap_or(i64::MAX));
            command = command.arg("LIMIT").int(i64::try_from(skip).unwrap_or(i64::MAX)).int(limit);
        }
        self.scored(command).await
    }

    pub(super) async fn zset_remove(&self, key: &[u8], members: &[Bytes]) -> Result<u64> {
        self.count(Command::new("ZREM").arg(key).args(members)).await
    }

    pub(super) async fn zset_remove_by_rank(&self, key: &[u8], start: i64, stop: i64) -> Result<u64> {
        self.count(Command::new("ZREMRANGEBYRANK").arg(key).int(start).int(stop)).await
    }

    pub(super) async fn zset_remove_by_score(&self, key: &[u8], range: ScoreRange) -> Result<u64> {
        let (low, high) = range.words();
        self.count(Command::new("ZREMRANGEBYSCORE").arg(key).arg(low).arg(high)).await
    }

    pub(super) async fn zset_len(&self, key: &[u8]) -> Result<u64> {
        self.count(Command::new("ZCARD").arg(key)).await
    }

    pub(super) async fn zset_count(&self, key: &[u8], range: ScoreRange) -> Result<u64> {
        let (low, high) = range.words();
        self.count(Command::new("ZCOUNT").arg(key).arg(low).arg(high)).await
    }

    pub(super) async fn zset_score(&self, key: &[u8], member: &[u8]) -> Result<Option<f64>> {
        Ok(self.link.command(Command::new("ZSCORE").arg(key).arg(member)).await?.into_float()?)
    }

    pub(super) async fn script(&self, script: &Script, keys: &[Bytes], args: &[Bytes]) -> Result<Reply> {
        Ok(self.link.script(script, keys, args).await?)
    }

    pub(super) async fn ping(&self) -> Result<()> {
        self.link.command(Command::new("PING")).await?;
        Ok(())
    }

    pub(super) async fn info(&self, section: &str) -> Result<String> {
        let text = self.link.command(Command::new("INFO").arg(section)).await?.into_bytes()?;
        Ok(String::from_utf8_lossy(&text.unwrap_or_default()).into_owned())
    }

    pub(super) async fn flush_database(&self) -> Result<()> {
        self.link.command(Command::new("FLUSHDB")).await?;
        Ok(())
    }

    pub(super) async fn scan(&self, cursor: u64, prefix: &[u8]) -> Result<(u64, Vec<Bytes>)> {
        let command = Command::new("SCAN")
            .arg(cursor.to_string())
            .arg("MATCH")
            .arg(prefix_pattern(prefix))
            .arg("COUNT")
            .int(SCAN_COUNT);
        let [next, keys] = exactly(self.link.command(command).await?.into_array()?)?;
        let next = String::from_utf8_lossy(&present(next)?)
            .parse()
            .map_err(|_| Error::protocol("SCAN's cursor is not a number"))?;
        let keys = keys.into_array()?.into_iter().map(present).collect::<Result<_>>()?;
        Ok((next, keys))
    }

    async fn int(&self, command: Command) -> Result<i64> {
        Ok(self.link.command(command).await?.into_int()?)
    }

    async fn count(&self, command: Command) -> Result<u64> {
        Ok(self.link.command(command).await?.into_count()?)
    }

    async fn scored(&self, command: Command) -> Result<Vec<(Bytes, f64)>> {
        let pairs = self.link.command(command).await?.into_pairs()?;
        pairs
            .into_iter()
            .map(|(member, score)| {
                let score = score.into_float()?.ok_or_else(|| Error::protocol("a score that is nil"))?;
                Ok((present(member)?, score))
            })
            .collect()
    }
}

fn set_command(key: &CachedKey, value: &[u8], ttl: Option<Ttl>) -> Command {
    let set = Command::new("SET").arg(&key.key).arg(value);
    match ttl {
        Some(ttl) => set.arg("PX").int(ttl.as_millis() as i64),
        None => set,
    }
}

/// The glob that matches exactly the keys with this prefix.
fn prefix_pattern(prefix: &[u8]) -> Bytes {
    let mut pattern = Vec::with_capacity(prefix.len() + 8);
    for byte in prefix {
        if matches!(byte, b'*' | b'?' | b'[' | b']' | b'\\') {
            pattern.push(b'\\');
        }
        pattern.push(*byte);
    }
    pattern.push(b'*');
    pattern
}

/// A score as text that comes back as the same float.
fn score_text(score: f64) -> String {
    if score.is_infinite() {
        return if score > 0.0 { "+inf".to_owned() } else { "-inf".to_owned() };
    }
    format!("{score:?}")
}

fn present(reply: Reply) -> Result<Bytes> {
    reply.into_bytes()?.ok_or_else(|| Error::protocol("nil where bytes were due"))
}

fn exactly<const N: usize>(replies: Vec<Reply>) -> Result<[Reply; N]> {
    let count = replies.len();
    replies.try_into().map_err(|_| Error::protocol(format!("{count} replies where {N} were due")))
}
