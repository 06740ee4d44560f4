//! The retry table: which command may be sent again when it is not known what became of it.
//!
//! Invariant: a command that is not in the table is never sent twice. A command belongs in it only if doing it twice leaves the
//! same state as doing it once *and* the second answer does not mislead (so `SET ... NX` is not in it: the second run would
//! report that somebody else holds the key). Deliberately absent: waiting and counting, which `link.rs` does.

/// Whether a command may be sent again after its outcome became unknown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Retry {
    /// Doing it twice is doing it once.
    Safe,
    /// It may have happened; doing it again could do it twice.
    Never,
}

/// Reads: nothing changes.
const READS: &[&str] = &[
    "ASKING",
    "BITCOUNT",
    "BITPOS",
    "CLIENT",
    "COMMAND",
    "DBSIZE",
    "DUMP",
    "ECHO",
    "EXISTS",
    "EXPIRETIME",
    "GET",
    "GETBIT",
    "GETRANGE",
    "HEXISTS",
    "HGET",
    "HGETALL",
    "HKEYS",
    "HLEN",
    "HMGET",
    "HRANDFIELD",
    "HSCAN",
    "HSTRLEN",
    "HVALS",
    "INFO",
    "LINDEX",
    "LLEN",
    "LPOS",
    "LRANGE",
    "MEMORY",
    "MGET",
    "OBJECT",
    "PEXPIRETIME",
    "PING",
    "PTTL",
    "RANDOMKEY",
    "SCAN",
    "SCARD",
    "SDIFF",
    "SINTER",
    "SINTERCARD",
    "SISMEMBER",
    "SMEMBERS",
    "SMISMEMBER",
    "SRANDMEMBER",
    "SSCAN",
    "STRLEN",
    "SUBSTR",
    "SUNION",
    "TIME",
    "TTL",
    "TYPE",
    "ZCARD",
    "ZCOUNT",
    "ZDIFF",
    "ZINTER",
    "ZINTERCARD",
    "ZLEXCOUNT",
    "ZMSCORE",
    "ZRANDMEMBER",
    "ZRANGE",
    "ZRANGEBYLEX",
    "ZRANGEBYSCORE",
    "ZRANK",
    "ZREVRANGE",
    "ZREVRANGEBYLEX",
    "ZREVRANGEBYSCORE",
    "ZREVRANK",
    "ZSCAN",
    "ZSCORE",
    "ZUNION",
];

/// Writes that leave the same state when done twice. Counts in the second answer may be lower (a DEL that had already
/// deleted answers 0).
const REPEATABLE_WRITES: &[&str] = &[
    "DEL",
    "EXPIRE",
    "EXPIREAT",
    "FLUSHALL",
    "FLUSHDB",
    "HDEL",
    "HMSET",
    "HSET",
    "MSET",
    "PERSIST",
    "PEXPIRE",
    "PEXPIREAT",
    "PSETEX",
    "SADD",
    "SETBIT",
    "SETEX",
    "SETRANGE",
    "SREM",
    "TOUCH",
    "UNLINK",
    "ZREM",
    "ZREMRANGEBYLEX",
    "ZREMRANGEBYSCORE",
];

/// The table's answer for a command with its arguments.
pub fn of(command: &[&[u8]]) -> Retry {
    let Some((name, args)) = command.split_first() else {
        return Retry::Never;
    };
    let Ok(name) = std::str::from_utf8(name) else {
        return Retry::Never;
    };
    let name = name.to_ascii_uppercase();
    let has = |word: &str| args.iter().any(|arg| arg.eq_ignore_ascii_case(word.as_bytes()));
    let safe = match name.as_str() {
        // Options stand after key and value; a key or value that happens to read NX only costs a retry.
        "SET" => !has("NX") && !has("GET"),
        // INCR adds again; NX, XX, GT, LT and CH only change a second answer's count, never the state.
        "ZADD" => !has("INCR"),
        // CLIENT, MEMORY and OBJECT are in the reads for their asking forms; these change something.
        "CLIENT" => !has("KILL") && !has("PAUSE") && !has("REPLY"),
        // A relative expiry under NX answers differently the second time, but the state is the same.
        other => READS.contains(&other) || REPEATABLE_WRITES.contains(&other),
    };
    if safe { Retry::Safe } else { Retry::Never }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(line: &str) -> Retry {
        let words: Vec<&[u8]> = line.split(' ').map(str::as_bytes).collect();
        of(&words)
    }

    #[test]
    fn what_would_happen_twice_is_never_sent_twice() {
        for line in [
            "INCR k",
            "INCRBY k 2",
            "DECR k",
            "INCRBYFLOAT k 1",
            "HINCRBY h f 1",
            "ZINCRBY z 1 m",
            "LPUSH l a",
            "RPUSH l a",
            "LPOP l",
            "SPOP s",
            "APPEND k x",
            "GETDEL k",
            "GETSET k v",
            "SETNX k v",
            "SET k v NX",
            "set k v px 10 nx",
            "SET k v GET",
            "ZADD z INCR 1 m",
            "ZREMRANGEBYRANK z 0 1",
            "ZPOPMIN z",
            "EVAL s 0",
            "EVALSHA s 0",
            "RENAME a b",
            "LTRIM l 0 1",
            "PUBLISH c m",
            "XADD s * a b",
            "EXEC",
            "HSETNX h f v",
            "COPY a b",
            "NOSUCH x",
            "",
        ] {
            assert_eq!(table(line), Retry::Never, "{line}");
        }
    }

    #[test]
    fn reads_and_repeatable_writes_may_be_sent_again() {
        for line in [
            "GET k",
            "MGET a b",
            "PTTL k",
            "SET k v",
            "SET k v PX 10",
            "SET k v XX",
            "DEL a b",
            "PEXPIRE k 10",
            "HSET h f v",
            "ZADD z 1 m",
            "ZADD z NX 1 m",
            "ZRANGE z 0 -1",
            "PING",
            "SCAN 0",
        ] {
            assert_eq!(table(line), Retry::Safe, "{line}");
        }
    }
}
