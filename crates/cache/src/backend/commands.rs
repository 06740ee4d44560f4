//! The operations as commands: what every backend that understands Redis' commands does, written once.
//!
//! Invariant: whatever must be one atomic step is one command, one transaction or one script. Deliberately absent: how commands
//! travel; that is what `Speaks` asks of a backend.

use mtcache_link::{Command, ErrorKind, Reply, Script};

use super::{Bytes, CachedKey, Entry, Order, ScriptCall, When};
use crate::collections::{ScoreRange, ZaddOptions};
use crate::error::{Error, Result};
use crate::told::telling;
use crate::ttl::{TimeLeft, Ttl};

/// How many keys a step of a walk looks at.
pub(super) const SCAN_COUNT: i64 = 1000;
/// How many reads go out at once; more would hold up everybody else's replies.
pub(crate) const READ_STEP: usize = 1000;
/// How many runs of a script go out at once, for the same reason: each costs as much as several reads.
const SCRIPT_STEP: usize = 200;

/// A backend that takes commands.
// Only the enum in mod.rs calls these, on types that it knows, so nothing is lost by not naming the futures' bounds.
#[allow(async_fn_in_trait)]
pub(super) trait Speaks {
    /// One command; an error reply is an `Err`.
    async fn one(&self, command: Command) -> Result<Reply>;

    /// Several commands, in order but not as one step; errors stand in their command's place.
    async fn several(&self, commands: Vec<Command>) -> Result<Vec<Reply>>;

    /// Several commands as one step.
    async fn atomic(&self, commands: Vec<Command>) -> Result<Vec<Reply>>;

    /// A script.
    async fn script(&self, script: &Script, keys: &[Bytes], args: &[Bytes]) -> Result<Reply>;

    async fn get(&self, key: &[u8]) -> Result<Option<Bytes>> {
        Ok(self.one(Command::new("GET").arg(key)).await?.into_bytes()?)
    }

    async fn get_with_time_left(&self, key: &[u8]) -> Result<(Option<Bytes>, TimeLeft)> {
        let commands = vec![Command::new("PTTL").arg(key), Command::new("GET").arg(key)];
        let [left, value] = exactly(self.several(commands).await?)?;
        Ok((value.into_bytes()?, TimeLeft::from_pttl(left.into_int()?)))
    }

    async fn get_with_clock(&self, key: &[u8]) -> Result<(Option<Bytes>, TimeLeft, u64)> {
        // One step, and so on one node: which of them answers a TIME by itself nobody could say.
        let commands =
            vec![Command::new("PTTL").arg(key), Command::new("GET").arg(key), Command::new("TIME")];
        let [left, value, time] = exactly(self.atomic(commands).await?)?;
        let [seconds, micros] = exactly(time.into_array()?)?;
        let now = number(seconds)?.saturating_mul(1_000_000).saturating_add(number(micros)?);
        Ok((value.into_bytes()?, TimeLeft::from_pttl(left.into_int()?), now))
    }

    async fn get_many(&self, keys: &[Bytes]) -> Result<Vec<Option<Bytes>>> {
        // MGET answers nil for a key of another type, which would read as a miss.
        let mut values = Vec::with_capacity(keys.len());
        for step in keys.chunks(READ_STEP) {
            let commands = step.iter().map(|key| Command::new("GET").arg(key)).collect();
            for reply in self.several(commands).await? {
                values.push(reply.into_bytes()?);
            }
        }
        Ok(values)
    }

    async fn get_each(&self, keys: &[Bytes]) -> Result<Vec<Result<Option<Bytes>>>> {
        let mut values = Vec::with_capacity(keys.len());
        for step in keys.chunks(READ_STEP) {
            let commands = step.iter().map(|key| Command::new("GET").arg(key)).collect();
            values.extend(self.several(commands).await?.into_iter().map(|reply| Ok(reply.into_bytes()?)));
        }
        Ok(values)
    }

    async fn look_many(&self, keys: &[Bytes]) -> Result<Vec<Result<(Option<Bytes>, TimeLeft)>>> {
        let mut looks = Vec::with_capacity(keys.len());
        for step in keys.chunks(READ_STEP) {
            let mut commands = Vec::with_capacity(2 * step.len());
            for key in step {
                commands.push(Command::new("PTTL").arg(key));
                commands.push(Command::new("GET").arg(key));
            }
            let mut replies = self.several(commands).await?.into_iter();
            for _ in step {
                let mut next = || replies.next().unwrap_or(Reply::Nil);
                let left = next();
                looks.push(look(left, next()));
            }
        }
        Ok(looks)
    }

    async fn scripts(&self, script: &Script, calls: &[ScriptCall]) -> Result<Vec<Reply>> {
        let mut replies = Vec::with_capacity(calls.len());
        for step in calls.chunks(SCRIPT_STEP) {
            let commands = step.iter().map(|call| script.by_hash(&call.keys, &call.args)).collect();
            let mut answers = self.several(commands).await?;
            // A call that was not known had no effect.
            let unknown = |reply: &Reply| matches!(reply, Reply::Error(e) if e.kind() == ErrorKind::NoScript);
            if answers.iter().any(unknown) {
                let again = step.iter().zip(&answers).filter(|(_, answer)| unknown(answer));
                let commands = again.map(|(call, _)| script.by_text(&call.keys, &call.args)).collect();
                let mut told = self.several(commands).await?.into_iter();
                for answer in answers.iter_mut().filter(|answer| unknown(answer)) {
                    *answer = told.next().unwrap_or(Reply::Nil);
                }
            }
            replies.append(&mut answers);
        }
        Ok(replies)
    }

    async fn set(&self, key: &CachedKey, value: &[u8], ttl: Option<Ttl>, when: When) -> Result<bool> {
        let mut set = set_command(key, value, ttl);
        match when {
            When::Always => {}
            When::Absent => set = set.arg("NX"),
            When::Present => set = set.arg("XX"),
        }
        let commands = vec![Command::new("DEL").arg(&key.token), set];
        let [_, stored] = exactly(self.atomic(commands).await?)?;
        Ok(stored.into_bytes()?.is_some())
    }

    async fn set_many(&self, entries: &[Entry]) -> Result<()> {
        let mut commands = vec![Command::new("DEL").args(entries.iter().map(|entry| &entry.key.token))];
        commands.extend(entries.iter().map(|entry| set_command(&entry.key, &entry.value, entry.ttl)));
        for reply in self.atomic(commands).await? {
            reply.ok()?;
        }
        Ok(())
    }

    async fn delete(&self, keys: &[CachedKey]) -> Result<u64> {
        deleted(self.atomic(removal(keys.iter())).await?)
    }

    async fn tell(&self, key: &[u8]) -> Result<()> {
        self.atomic(telling(key).to_vec()).await?;
        Ok(())
    }

    async fn exists(&self, keys: &[Bytes]) -> Result<u64> {
        self.count(Command::new("EXISTS").args(keys)).await
    }

    async fn expire(&self, key: &[u8], ttl: Ttl) -> Result<bool> {
        let command = Command::new("PEXPIRE").arg(key).int(ttl.as_millis() as i64);
        Ok(self.one(command).await?.into_bool()?)
    }

    async fn time_left(&self, key: &[u8]) -> Result<TimeLeft> {
        Ok(TimeLeft::from_pttl(self.int(Command::new("PTTL").arg(key)).await?))
    }

    async fn increment(&self, key: &[u8], by: i64) -> Result<i64> {
        self.int(Command::new("INCRBY").arg(key).int(by)).await
    }

    async fn hash_set(&self, key: &[u8], fields: &[(Bytes, Bytes)]) -> Result<u64> {
        let fields = fields.iter().flat_map(|(field, value)| [field, value]);
        self.count(Command::new("HSET").arg(key).args(fields)).await
    }

    async fn hash_get(&self, key: &[u8], fields: &[Bytes]) -> Result<Vec<Option<Bytes>>> {
        let replies = self.one(Command::new("HMGET").arg(key).args(fields)).await?.into_array()?;
        replies.into_iter().map(|reply| Ok(reply.into_bytes()?)).collect()
    }

    async fn hash_all(&self, key: &[u8]) -> Result<Vec<(Bytes, Bytes)>> {
        let pairs = self.one(Command::new("HGETALL").arg(key)).await?.into_pairs()?;
        pairs.into_iter().map(|(field, value)| Ok((present(field)?, present(value)?))).collect()
    }

    async fn hash_delete(&self, key: &[u8], fields: &[Bytes]) -> Result<u64> {
        self.count(Command::new("HDEL").arg(key).args(fields)).await
    }

    async fn hash_len(&self, key: &[u8]) -> Result<u64> {
        self.count(Command::new("HLEN").arg(key)).await
    }

    async fn hash_increment(&self, key: &[u8], field: &[u8], by: i64) -> Result<i64> {
        self.int(Command::new("HINCRBY").arg(key).arg(field).int(by)).await
    }

    async fn zset_add(&self, key: &[u8], members: &[(Bytes, f64)], options: ZaddOptions) -> Result<u64> {
        let mut command = Command::new("ZADD").arg(key).args(options.words());
        for (member, score) in members {
            command = command.arg(score_text(*score)).arg(member);
        }
        self.count(command).await
    }

    async fn zset_increment(&self, key: &[u8], member: &[u8], by: f64) -> Result<f64> {
        let command = Command::new("ZINCRBY").arg(key).arg(score_text(by)).arg(member);
        let score = self.one(command).await?.into_float()?;
        score.ok_or_else(|| Error::protocol("ZINCRBY answered nil"))
    }

    async fn zset_range(&self, key: &[u8], start: i64, stop: i64, order: Order) -> Result<Vec<(Bytes, f64)>> {
        let mut command = Command::new("ZRANGE").arg(key).int(start).int(stop);
        if order == Order::Descending {
            command = command.arg("REV");
        }
        self.scored(command.arg("WITHSCORES")).await
    }

    async fn zset_range_by_score(
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

    async fn zset_remove(&self, key: &[u8], members: &[Bytes]) -> Result<u64> {
        self.count(Command::new("ZREM").arg(key).args(members)).await
    }

    async fn zset_remove_by_rank(&self, key: &[u8], start: i64, stop: i64) -> Result<u64> {
        self.count(Command::new("ZREMRANGEBYRANK").arg(key).int(start).int(stop)).await
    }

    async fn zset_remove_by_score(&self, key: &[u8], range: ScoreRange) -> Result<u64> {
        let (low, high) = range.words();
        self.count(Command::new("ZREMRANGEBYSCORE").arg(key).arg(low).arg(high)).await
    }

    async fn zset_len(&self, key: &[u8]) -> Result<u64> {
        self.count(Command::new("ZCARD").arg(key)).await
    }

    async fn zset_count(&self, key: &[u8], range: ScoreRange) -> Result<u64> {
        let (low, high) = range.words();
        self.count(Command::new("ZCOUNT").arg(key).arg(low).arg(high)).await
    }

    async fn zset_score(&self, key: &[u8], member: &[u8]) -> Result<Option<f64>> {
        Ok(self.one(Command::new("ZSCORE").arg(key).arg(member)).await?.into_float()?)
    }

    async fn command(&self, command: Command) -> Result<Reply> {
        self.one(command).await
    }

    async fn ping(&self) -> Result<()> {
        self.one(Command::new("PING")).await?;
        Ok(())
    }

    async fn info(&self, section: &str) -> Result<String> {
        let text = self.one(Command::new("INFO").arg(section)).await?.into_bytes()?;
        Ok(String::from_utf8_lossy(&text.unwrap_or_default()).into_owned())
    }

    async fn flush_database(&self) -> Result<()> {
        self.one(Command::new("FLUSHDB")).await?;
        Ok(())
    }

    async fn scan(&self, cursor: u64, prefix: &[u8]) -> Result<(u64, Vec<Bytes>)> {
        let command = Command::new("SCAN")
            .arg(cursor.to_string())
            .arg("MATCH")
            .arg(prefix_pattern(prefix))
            .arg("COUNT")
            .int(SCAN_COUNT);
        let [next, keys] = exactly(self.one(command).await?.into_array()?)?;
        let next = String::from_utf8_lossy(&present(next)?)
            .parse()
            .map_err(|_| Error::protocol("SCAN's cursor is not a number"))?;
        let keys = keys.into_array()?.into_iter().map(present).collect::<Result<_>>()?;
        Ok((next, keys))
    }

    async fn int(&self, command: Command) -> Result<i64> {
        Ok(self.one(command).await?.into_int()?)
    }

    async fn count(&self, command: Command) -> Result<u64> {
        Ok(self.one(command).await?.into_count()?)
    }

    async fn scored(&self, command: Command) -> Result<Vec<(Bytes, f64)>> {
        let pairs = self.one(command).await?.into_pairs()?;
        pairs
            .into_iter()
            .map(|(member, score)| {
                let score = score.into_float()?.ok_or_else(|| Error::protocol("a score that is nil"))?;
                Ok((present(member)?, score))
            })
            .collect()
    }
}

pub(super) fn set_command(key: &CachedKey, value: &[u8], ttl: Option<Ttl>) -> Command {
    let set = Command::new("SET").arg(&key.key).arg(value);
    match ttl {
        Some(ttl) => set.arg("PX").int(ttl.as_millis() as i64),
        None => set,
    }
}

/// Deletes tokens and keys, and tells of the keys for which that is asked.
pub(super) fn removal<'a>(keys: impl Iterator<Item = &'a CachedKey> + Clone) -> Vec<Command> {
    let mut commands = vec![
        Command::new("DEL").args(keys.clone().map(|key| &key.token)),
        Command::new("UNLINK").args(keys.clone().map(|key| &key.key)),
    ];
    for gone in keys.filter_map(|key| key.gone.as_ref()) {
        commands.extend(telling(gone));
    }
    commands
}

/// How many keys a removal has deleted.
pub(super) fn deleted(replies: Vec<Reply>) -> Result<u64> {
    let unlinked = replies.into_iter().nth(1);
    Ok(unlinked.ok_or_else(|| Error::protocol("a reply is missing"))?.into_count()?)
}

/// The glob that matches exactly the keys with this prefix.
pub(super) fn prefix_pattern(prefix: &[u8]) -> Bytes {
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

fn look(left: Reply, value: Reply) -> Result<(Option<Bytes>, TimeLeft)> {
    Ok((value.into_bytes()?, TimeLeft::from_pttl(left.into_int()?)))
}

fn present(reply: Reply) -> Result<Bytes> {
    reply.into_bytes()?.ok_or_else(|| Error::protocol("nil where bytes were due"))
}

fn number(reply: Reply) -> Result<u64> {
    std::str::from_utf8(&present(reply)?)
        .ok()
        .and_then(|text| text.parse().ok())
        .ok_or_else(|| Error::protocol("a number that is none"))
}

pub(super) fn exactly<const N: usize>(replies: Vec<Reply>) -> Result<[Reply; N]> {
    let count = replies.len();
    replies.try_into().map_err(|_| Error::protocol(format!("{count} replies where {N} were due")))
}
