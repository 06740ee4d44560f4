//! DEBUG, for those who test the server: everything is locked while a subcommand runs.
//!
//! Off unless `enable-debug-command` says otherwise. Deliberately absent: what ends the process, and what shows the insides of
//! Redis' structures, which are not ours.

use std::sync::atomic::Ordering;
use std::time::Duration;

use mtcache_protocol::{Reply, Version, glob};
use sha1::{Digest, Sha1};

use super::{Row, parse, write_help};
use crate::client::ClientFlag;
use crate::context::{Ctx, Expiry};
use crate::error::{CommandError, CommandResult};
use crate::host::LogLevel;
use crate::keyspace::{DbIndex, Entry, ValueRef, idle_millis, random_below};
use crate::rdb;
use crate::reload::{Present, ReloadFrom, reload};
use crate::types::{EncodingLimits, List};

pub(super) const TABLE: &[Row] = &[("debug", super::Locks::All, debug)];

/// The longest that `DEBUG SLEEP` may stop everything. Default: 10 minutes.
const MAX_SLEEP_SECONDS: f64 = 600.0;
/// The longest string that `DEBUG POPULATE` makes. Default: 512 MB, as long as one can be.
const MAX_BULK: usize = 512 << 20;
/// The largest `QUICKLIST-PACKED-THRESHOLD`. Default: 4 GB, as in Redis.
const MAX_PACKED_THRESHOLD: u64 = 4 << 30;

const HELP: &[&str] = &[
    "DIGEST",
    "    A signature of all data: the same data has the same one here and on Redis.",
    "DIGEST-VALUE <key> [<key> ...]",
    "    Signatures of the values of these keys.",
    "ERROR <string>",
    "    Fails with this message.",
    "LEAK <string>",
    "    Accepted without effect: nothing is leaked on purpose.",
    "LOADAOF",
    "    Reads all data again from the append-only file; what is there stays if that fails.",
    "LOG <message>",
    "    Writes a message to the server's log.",
    "OBJECT <key>",
    "    How a value is kept, its length in a snapshot, and how long it has been idle; of a list also its listpacks.",
    "POPULATE <count> [<prefix>] [<size>]",
    "    Makes strings named key:0, key:1, ... or <prefix>:0, ...; keys that are there stay as they are. Of <size> bytes,",
    "    or as long as the value is: value:0, value:1, ...",
    "PROTOCOL <type>",
    "    Replies with a value of this type: string, integer, double, bignum, null, array, set, map, attrib, push,",
    "    verbatim, true, false.",
    "QUICKLIST-PACKED-THRESHOLD <size>",
    "    Accepted without effect: elements of lists are never packed together beyond a listpack.",
    "RELOAD [NOSAVE] [NOFLUSH] [MERGE]",
    "    Saves a snapshot and reads all data again from it. NOSAVE: reads the one that is there. NOFLUSH: keeps what is",
    "    there, and fails if a key comes twice. MERGE: lets keys that come twice take the place of those that are there.",
    "SET-ACTIVE-EXPIRE <0|1>",
    "    Whether expired keys are removed without being asked for.",
    "SLEEP <seconds>",
    "    Stops everything for so long; decimals allowed, 600 at most.",
    "STRINGMATCH-LEN <pattern> <string>",
    "    Whether a pattern fits a string, as KEYS and SCAN see it: 1 or 0.",
    "STRINGMATCH-TEST",
    "    Matches random strings with random patterns, to see that it ends.",
    "CHANGE-REPL-ID, DROP-CLUSTER-PACKET-FILTER <type>, REPLICATE <string>, REPLYBUFFER <what> <value>",
    "    Accepted without effect: there are no replicas and no cluster, and buffers of replies are others here.",
];

fn debug(ctx: &mut Ctx<'_, '_>, args: &[&[u8]], out: &mut Reply) -> CommandResult {
    check_allowed(ctx)?;
    match (args[1].to_ascii_lowercase().as_slice(), args.get(2..).unwrap_or_default()) {
        (b"sleep", [seconds]) => {
            let seconds = std::str::from_utf8(seconds).ok().and_then(|text| text.parse::<f64>().ok());
            let seconds = seconds.filter(|seconds| !seconds.is_nan()).unwrap_or(0.0);
            // Every shard is locked: everything stands still, which is what a test asks for with this.
            std::thread::sleep(Duration::from_secs_f64(seconds.clamp(0.0, MAX_SLEEP_SECONDS)));
            out.ok();
        }
        (b"object", [key]) => return object(ctx, key, out),
        (b"digest", []) => out.simple(&hex(digest_of_all(ctx))),
        (b"digest-value", keys) => {
            out.array(keys.len());
            for key in keys {
                let mut digest = Signature::default();
                if let Some(entry) = ctx.peek(key) {
                    digest.add_value(entry);
                }
                out.simple(&hex(digest));
            }
        }
        (b"error", [text]) => return Err(CommandError::new(String::from_utf8_lossy(text).into_owned())),
        (b"protocol", [kind]) => return protocol(kind, out),
        (b"quicklist-packed-threshold", [size]) => {
            crate::config::parse_memory(size).filter(|size| *size <= MAX_PACKED_THRESHOLD).ok_or_else(
                || {
                    CommandError::new(
                        "ERR argument must be a memory value bigger than 1 and smaller than 4gb",
                    )
                },
            )?;
            out.ok();
        }
        (b"reload", options) => return reload_snapshot(ctx, options, out),
        // Redis looks at nothing that follows, either.
        (b"loadaof", _) => {
            reload(ctx, ReloadFrom::Journal, Present::Replaced)?;
            out.ok();
        }
        (b"set-active-expire", [on]) => {
            // What is no number counts as zero, as everywhere in DEBUG.
            ctx.engine.expires_actively.store(parse::integer(on).unwrap_or(0) != 0, Ordering::Relaxed);
            out.ok();
        }
        (b"log", [text]) => {
            let text = format!("DEBUG LOG: {}", String::from_utf8_lossy(text));
            ctx.engine.hosts.log(LogLevel::Warning, &text);
            out.ok();
        }
        (b"populate", [count, options @ ..]) if options.len() <= 2 => {
            populate(ctx, count, options)?;
            out.ok();
        }
        // There is nothing here that these could change.
        (b"leak" | b"replicate" | b"drop-cluster-packet-filter", [_]) | (b"change-repl-id", []) => out.ok(),
        (b"replybuffer", [what, value]) => {
            let words: &[&str] = match what.to_ascii_lowercase().as_slice() {
                b"peak-reset-time" => &["never", "reset"],
                b"resizing" => &[],
                _ => return Err(unknown_subcommand(args)),
            };
            if !words.iter().any(|word| parse::is(value, word)) {
                parse::integer(value)?;
            }
            out.ok();
        }
        (b"stringmatch-test", []) => {
            try_matching();
            out.simple("Apparently Redis did not crash: test passed");
        }
        (b"stringmatch-len", [pattern, string]) => out.integer(glob::matches(pattern, string, false).into()),
        (b"help", []) => write_help("DEBUG", HELP, out),
        _ => return Err(unknown_subcommand(args)),
    }
    Ok(())
}

fn unknown_subcommand(args: &[&[u8]]) -> CommandError {
    CommandError::new(format!(
        "ERR unknown subcommand or wrong number of arguments for '{}'. Try DEBUG HELP.",
        String::from_utf8_lossy(args[1])
    ))
}

/// Makes many strings. Unlike Redis, where they are lost at the next start, they are journalled: as what they have become.
fn populate(ctx: &mut Ctx<'_, '_>, count: &[u8], options: &[&[u8]]) -> CommandResult {
    /// Redis cuts names off at this length.
    const LONGEST_KEY: usize = 127;
    let count = parse::non_negative(count)?;
    let prefix = options.first().copied().unwrap_or(b"key");
    let size = options.get(1).map_or(Ok(0), |size| parse::non_negative(size))? as usize;
    if size > MAX_BULK {
        return Err(CommandError::STRING_TOO_LONG);
    }
    let mut digits = itoa::Buffer::new();
    let db = ctx.db();
    ctx.journal_nothing();
    for number in 0..count {
        let digits = digits.format(number).as_bytes();
        let mut key = [prefix, b":", digits].concat();
        key.truncate(LONGEST_KEY);
        if ctx.exists(&key) {
            continue;
        }
        let mut value = [b"value:", digits].concat();
        if size > 0 {
            value.resize(size, 0);
        }
        ctx.set_string(&key, &value, Expiry::Clear);
        ctx.journal_as(&[b"SET", &key, &value]);
        ctx.changed(db, &key);
    }
    Ok(())
}

/// Matches patterns and strings made of the characters that mean something in patterns.
fn try_matching() {
    const TRIES: usize = 100_000;
    const LENGTH: usize = 32;
    const LETTERS: &[u8] = b"*?[]^-\\abc\0";
    let text = |length: usize| -> Vec<u8> {
        (0..length).filter_map(|_| LETTERS.get(random_below(LETTERS.len())).copied()).collect()
    };
    for _ in 0..TRIES {
        let (pattern, string) = (text(random_below(LENGTH)), text(random_below(LENGTH)));
        std::hint::black_box(glob::matches(&pattern, &string, false));
    }
}

fn check_allowed(ctx: &Ctx<'_, '_>) -> CommandResult {
    let config = ctx.engine.config();
    let client = &ctx.session.client;
    let is_local = || {
        client.has(ClientFlag::Unix) || client.addr.starts_with("127.") || client.addr.starts_with("[::1]")
    };
    let is_allowed = match config.bytes("enable-debug-command") {
        b"yes" => true,
        b"local" => is_local(),
        _ => false,
    };
    if is_allowed {
        return Ok(());
    }
    Err(CommandError::new(
        "ERR DEBUG command not allowed. If the enable-debug-command option is set to \"local\", you can run it from a \
         local connection, otherwise you need to set this option in the configuration file, and then restart the \
         server.",
    ))
}

fn reload_snapshot(ctx: &mut Ctx<'_, '_>, options: &[&[u8]], out: &mut Reply) -> CommandResult {
    let (mut from, mut flushes, mut merges) = (ReloadFrom::NewSnapshot, true, false);
    for option in options {
        match option.to_ascii_lowercase().as_slice() {
            b"nosave" => from = ReloadFrom::Snapshot,
            b"noflush" => flushes = false,
            b"merge" => merges = true,
            _ => {
                return Err(CommandError::new(
                    "ERR DEBUG RELOAD only supports the MERGE, NOFLUSH and NOSAVE options.",
                ));
            }
        }
    }
    let present = match (flushes, merges) {
        (true, _) => Present::Replaced,
        (false, true) => Present::Merged,
        (false, false) => Present::Kept,
    };
    reload(ctx, from, present)?;
    out.ok();
    Ok(())
}

fn object(ctx: &mut Ctx<'_, '_>, key: &[u8], out: &mut Reply) -> CommandResult {
    /// What a payload of DUMP has besides the value: its kind, a version, a checksum.
    const AROUND: usize = 1 + 2 + 8;
    let settings = &ctx.engine.settings;
    let (limits, compression, now) = (settings.encoding_limits(), settings.rdb_compression(), ctx.now);
    let entry = ctx.peek(key).ok_or(CommandError::NO_SUCH_KEY)?;
    let serialized = rdb::dump(entry.value(), &limits, compression).len().saturating_sub(AROUND);
    let idle = idle_millis(entry.access(), now) / 1000;
    let listpacks = match entry.value() {
        ValueRef::List(list) => listpacks_of(list, &limits),
        _ => String::new(),
    };
    out.simple(&format!(
        "Value at:{:p} refcount:1 encoding:{} serializedlength:{serialized} lru:{} lru_seconds_idle:{idle}{listpacks}",
        std::ptr::from_ref(entry),
        super::object::encoding_name(entry),
        now.as_seconds().saturating_sub(idle) & 0x00ff_ffff,
    ));
    Ok(())
}

/// What Redis says of a list that was appended to. Ours are never compressed in memory.
fn listpacks_of(list: &List, limits: &EncodingLimits) -> String {
    let (mut count, mut bytes) = (0_usize, 0);
    rdb::each_listpack(list, limits, |listpack| {
        count += 1;
        bytes += listpack.len();
    });
    format!(
        " ql_nodes:{count} ql_avg_node:{:.2} ql_listpack_max:{} ql_compressed:0 ql_uncompressed_size:{bytes}",
        list.len() as f64 / count.max(1) as f64,
        limits.list_max_listpack_size,
    )
}

fn protocol(kind: &[u8], out: &mut Reply) -> CommandResult {
    match kind.to_ascii_lowercase().as_slice() {
        b"string" => out.bulk(b"Hello World"),
        b"integer" => out.integer(12345),
        // The number that Redis answers with; no attempt at a constant of mathematics.
        #[allow(clippy::approx_constant)]
        b"double" => out.double(3.141),
        b"null" => out.null(),
        b"array" => {
            out.array(3);
            (0..3).for_each(|number| out.integer(number));
        }
        b"set" => {
            out.set(3);
            (0..3).for_each(|number| out.integer(number));
        }
        b"map" => {
            out.map(3);
            for number in 0..3 {
                out.integer(number);
                out.bool(number == 1);
            }
        }
        b"attrib" => {
            if out.version() == Version::Resp3 {
                out.attribute(1);
                out.bulk(b"key-popularity");
                out.array(2);
                out.bulk(b"key:123");
                out.integer(90);
            }
            out.bulk(b"Some real reply following the attribute");
        }
        b"push" => {
            if out.version() == Version::Resp2 {
                return Err(CommandError::new("ERR RESP2 is not supported by this command"));
            }
            out.push(2);
            out.bulk(b"server-cpu-usage");
            out.integer(42);
            // A client that throws pushes away waits for a reply all the same.
            out.bulk(b"Some real reply following the push reply");
        }
        b"verbatim" => out.verbatim(*b"txt", b"This is a verbatim\nstring"),
        b"true" => out.bool(true),
        b"false" => out.bool(false),
        b"bignum" => out.big_number("1234567999999999999999999999999999999"),
        _ => {
            return Err(CommandError::new(
                "ERR Wrong protocol type name. Please use one of the following: string|integer|double|bignum|null|\
                 array|set|map|attrib|push|verbatim|true|false",
            ));
        }
    }
    Ok(())
}

/// Redis' signature of data, as `computeDatasetDigest` in its `debug.c` defines it: SHA-1 sums, chained where order matters
/// and put together with exclusive or where it does not.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
struct Signature([u8; 20]);

impl Signature {
    /// Adds bytes whose place among others does not matter.
    fn add(&mut self, bytes: &[u8]) {
        self.combine(Sha1::digest(bytes).into());
    }

    /// Adds bytes that come after all that was added before.
    fn append(&mut self, bytes: &[u8]) {
        self.add(bytes);
        self.0 = Sha1::digest(self.0).into();
    }

    fn combine(&mut self, sum: [u8; 20]) {
        for (own, other) in self.0.iter_mut().zip(sum) {
            *own ^= other;
        }
    }

    fn add_value(&mut self, entry: &Entry) {
        let value = entry.value();
        let kind: u32 = match value {
            ValueRef::String(..) => 0,
            ValueRef::List(_) => 1,
            ValueRef::Set(_) => 2,
            ValueRef::SortedSet(_) => 3,
            ValueRef::Hash(_) => 4,
        };
        self.append(&kind.to_be_bytes());
        match value {
            ValueRef::String(text, _) => self.append(text),
            ValueRef::List(list) => list.into_iter().for_each(|element| self.append(element)),
            ValueRef::Set(set) => set.into_iter().for_each(|member| self.add(&member)),
            ValueRef::SortedSet(set) => {
                let mut score_text = Vec::new();
                for (member, score) in set {
                    score_text.clear();
                    mtcache_protocol::write_double(&mut score_text, score);
                    self.add_pair(member, &score_text);
                }
            }
            ValueRef::Hash(hash) => hash.into_iter().for_each(|(field, value)| self.add_pair(field, value)),
        }
        if entry.expires_at().is_some() {
            self.add(b"!!expire!!");
        }
    }

    fn add_pair(&mut self, first: &[u8], second: &[u8]) {
        let mut pair = Self::default();
        pair.append(first);
        pair.append(second);
        self.add(&pair.0);
    }
}

fn digest_of_all(ctx: &mut Ctx<'_, '_>) -> Signature {
    let now = ctx.now;
    let databases = ctx.engine.keyspace.databases();
    let mut all = Signature::default();
    for db in 0..databases {
        let (mut keys, mut is_empty) = (Signature::default(), true);
        for shard in ctx.locked.shards() {
            for entry in shard.live_entries(db as DbIndex, now) {
                let mut one = Signature::default();
                one.append(entry.key());
                one.add_value(entry);
                keys.add(&one.0);
                is_empty = false;
            }
        }
        if !is_empty {
            all.append(&(db as u32).to_be_bytes());
            all.combine(keys.0);
        }
    }
    all
}

fn hex(signature: Signature) -> String {
    signature.0.iter().fold(String::with_capacity(40), |text, byte| text + &format!("{byte:02x}"))
}

#[cfg(test)]
mod tests {
    use crate::testing::Rig;

    #[test]
    fn it_is_off_unless_the_configuration_allows_it() {
        let reply = Rig::new().run("debug sleep 0");
        assert!(reply.starts_with("-ERR DEBUG command not allowed."), "{reply}");
    }
}
