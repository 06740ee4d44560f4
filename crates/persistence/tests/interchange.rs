//! Journals go to redis-server and come from it, and a damaged one is judged as redis-server judges it.
//!
//! States are compared by DEBUG DIGEST: what we replay is sent to a second redis-server, commands and databases
//! as they come back. Where we differ from Redis on purpose, the test says in which direction.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use mtcache_conformance::{Client, TestServer};
use mtcache_persistence::disk::RealDisk;
use mtcache_persistence::{
    Aof, AofOptions, BaseForm, Command, Error, JournalBuffer, RdbKey, Receiver, TornTail,
};

const AOF_DIR: &str = "appendonlydir";
const INCR: &str = "appendonly.aof.1.incr.aof";

type Commands = Vec<(u32, Vec<Vec<u8>>)>;

fn redis(args: &[&str]) -> TestServer {
    let all = [&["--appendonly", "yes", "--enable-debug-command", "local"], args].concat();
    TestServer::redis(all.as_slice()).unwrap()
}

fn run(client: &mut Client, command: &str) {
    let words: Vec<&str> = command.split(' ').collect();
    let reply = client.command(&words).unwrap();
    assert_eq!(reply.error(), None, "{command}");
}

fn digest(client: &mut Client) -> String {
    client.command(&["DEBUG", "DIGEST"]).unwrap().text().unwrap()
}

/// Takes keys by name.
#[derive(Default)]
struct Keys(Vec<Vec<u8>>);

impl Receiver for Keys {
    fn command(&mut self, _: Command<'_>) -> Result<(), String> {
        Ok(())
    }

    fn key(&mut self, key: RdbKey<'_>) -> Result<(), String> {
        self.0.push(key.key.to_vec());
        Ok(())
    }
}

struct Ours {
    commands: Commands,
    last_file_len: Option<u64>,
    outcome: Result<(), Error>,
}

fn replay(dir: &Path, options: AofOptions) -> Ours {
    let mut commands = Vec::new();
    let outcome = Aof::open(Arc::new(RealDisk), dir, options).and_then(|aof| {
        aof.replay(|command| {
            // As an engine would: what no server knows is refused.
            let name = command.args.first().copied().unwrap_or_default();
            if mtcache_protocol::lookup(name).is_none() {
                return Err("unknown command".into());
            }
            commands.push((command.db, command.args.iter().map(|arg| arg.to_vec()).collect()));
            Ok(())
        })
    });
    let last_file_len = fs::metadata(dir.join(AOF_DIR).join(INCR)).ok().map(|metadata| metadata.len());
    Ours { commands, last_file_len, outcome: outcome.map(drop) }
}

/// The state that commands lead to, on a server that keeps nothing.
struct Scratch {
    _server: TestServer,
    client: Client,
}

impl Scratch {
    fn start() -> Self {
        let server = TestServer::redis(["--enable-debug-command", "local"]).unwrap();
        let client = server.client().unwrap();
        Self { _server: server, client }
    }

    fn digest_of(&mut self, commands: &Commands) -> String {
        run(&mut self.client, "FLUSHALL");
        for (db, args) in commands {
            run(&mut self.client, &format!("SELECT {db}"));
            // A refused one changes nothing, here as in the server that wrote it.
            let _ = self.client.command(args).unwrap();
        }
        digest(&mut self.client)
    }
}

fn fill(client: &mut Client) {
    for command in [
        "SET text value",
        "SET number 12",
        "INCRBYFLOAT number 0.5",
        "SELECT 3",
        "RPUSH list a b c",
        "LPOP list",
        "HSET hash f 1 g 2",
        "SELECT 0",
        "SADD set x y z",
        "ZADD zset 1.5 a 2 b",
        "SET fleeting v EX 100000",
        "PEXPIREAT text 99999999999999",
        "MULTI",
        "INCR counter",
        "SELECT 5",
        "INCR counter",
        "EXEC",
        "EVAL redis.call('set',KEYS[1],1);redis.call('rpush',KEYS[2],'a') 2 scripted scripted-list",
        "COPY set copy",
        "SPOP copy",
    ] {
        run(client, command);
    }
    client.command(&[&b"SET"[..], b"bin\0ary\r\n", &[0, 255, b'\r', b'\n', b'*', b'#']]).unwrap();
}

#[test]
fn what_redis_wrote_comes_back() {
    let mut scratch = Scratch::start();
    for args in [
        &["--aof-use-rdb-preamble", "no"][..],
        &["--aof-use-rdb-preamble", "no", "--aof-timestamp-enabled", "yes"],
        // Its base is an RDB file without keys.
        &["--aof-use-rdb-preamble", "yes"],
        &[
            "--aof-use-rdb-preamble",
            "no",
            "--appendfilename",
            "my \"own\" file",
            "--appenddirname",
            "elsewhere",
        ],
    ] {
        let mut server = redis(args);
        let mut client = server.client().unwrap();
        fill(&mut client);
        if args.contains(&"no") {
            run(&mut client, "BGREWRITEAOF");
            while !client
                .command(&["INFO", "persistence"])
                .unwrap()
                .text()
                .unwrap()
                .contains("rewrite_in_progress:0")
            {
                std::thread::yield_now();
            }
            run(&mut client, "SELECT 7");
            run(&mut client, "SET after rewrite");
        }
        let theirs = digest(&mut client);
        server.stop().unwrap();
        let mut options = AofOptions::default();
        if args.contains(&"elsewhere") {
            options.dir_name = "elsewhere".into();
            options.file_name = "my \"own\" file".into();
        }
        let ours = replay(server.directory(), options);
        ours.outcome.unwrap();
        assert_eq!(scratch.digest_of(&ours.commands), theirs, "{args:?}");
        // And it is still theirs.
        server.start_again().unwrap();
        assert_eq!(digest(&mut server.client().unwrap()), theirs, "{args:?}");
    }
}

#[test]
fn a_base_with_data_in_rdb_form_is_read_key_by_key() {
    let mut server = redis(&[]);
    let mut client = server.client().unwrap();
    fill(&mut client);
    run(&mut client, "SELECT 0");
    let keyspace = client.command(&["INFO", "keyspace"]).unwrap().text().unwrap();
    let counts =
        keyspace.split("keys=").skip(1).filter_map(|rest| rest.split(',').next()?.parse::<u64>().ok());
    let keys_there: u64 = counts.sum();
    assert!(keys_there > 3);
    run(&mut client, "BGREWRITEAOF");
    while !client.command(&["INFO", "persistence"]).unwrap().text().unwrap().contains("rewrite_in_progress:0")
    {
        std::thread::yield_now();
    }
    server.stop().unwrap();
    let mut keys = Keys::default();
    let aof = Aof::open(Arc::new(RealDisk), server.directory(), AofOptions::default()).unwrap();
    let (_, report) = aof.replay_into(&mut keys).unwrap();
    assert_eq!((report.keys, report.commands), (keys_there, 0));
    assert_eq!(keys.0.len() as u64, keys_there);
}

#[test]
fn the_single_file_of_an_older_redis_is_taken_over_as_redis_7_does() {
    let mut server = redis(&["--aof-use-rdb-preamble", "no"]);
    let mut client = server.client().unwrap();
    fill(&mut client);
    let theirs = digest(&mut client);
    server.stop().unwrap();
    let dir = tempfile::tempdir().unwrap();
    fs::copy(server.directory().join(AOF_DIR).join(INCR), dir.path().join("appendonly.aof")).unwrap();
    let ours = replay(dir.path(), AofOptions::default());
    ours.outcome.unwrap();
    assert_eq!(Scratch::start().digest_of(&ours.commands), theirs);
    put(&mut server, dir.path());
    server.start_again().unwrap();
    assert_eq!(digest(&mut server.client().unwrap()), theirs);
}

#[test]
fn redis_reads_what_we_wrote_and_we_read_on_after_it() {
    for base_form in [BaseForm::Rdb, BaseForm::Aof] {
        let dir = tempfile::tempdir().unwrap();
        let mut options = AofOptions::default();
        options.base_form = base_form;
        let aof = Aof::open(Arc::new(RealDisk), dir.path(), options.clone()).unwrap();
        let (mut writer, _) = aof.replay(|_| Ok(())).unwrap();
        let buffer = JournalBuffer::new(1 << 20);
        for number in 0..1_000_u32 {
            let (name, value) = (format!("key:{number}"), vec![b'v'; number as usize % 50]);
            buffer.append_args(number % 3, &[b"SET", name.as_bytes(), &value]);
            if number % 100 == 50 {
                let batch = buffer.take();
                writer.append(&batch.bytes, batch.db_before).unwrap();
                // A new file begins in database 0, wherever the buffer is.
                writer.start_new_incr().unwrap();
            }
        }
        let batch = buffer.take();
        writer.append(&batch.bytes, batch.db_before).unwrap();
        writer.sync().unwrap();
        drop(writer);

        let mut server = redis(&["--aof-use-rdb-preamble", "no"]);
        server.kill().unwrap();
        put(&mut server, dir.path());
        server.start_again().unwrap();
        let mut client = server.client().unwrap();
        for (db, count) in [(0, 334), (1, 333), (2, 333)] {
            run(&mut client, &format!("SELECT {db}"));
            assert_eq!(client.command(&["DBSIZE"]).unwrap().integer(), Some(count));
        }
        assert_eq!(client.command(&["STRLEN", "key:848"]).unwrap().integer(), Some(48));
        run(&mut client, "SET theirs too");
        let theirs = digest(&mut client);
        server.stop().unwrap();
        let ours = replay(server.directory(), options);
        ours.outcome.unwrap();
        assert_eq!(ours.commands.len(), 1_001);
        assert_eq!(Scratch::start().digest_of(&ours.commands), theirs);
    }
}

/// Gives a stopped server the journal in `dir`.
fn put(server: &mut TestServer, dir: &Path) {
    let to = server.directory().join(AOF_DIR);
    let _ = fs::remove_dir_all(&to);
    fs::create_dir(&to).unwrap();
    for entry in fs::read_dir(dir.join(AOF_DIR)).unwrap() {
        let entry = entry.unwrap();
        fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
    }
}

fn encode(commands: &[&str]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for command in commands {
        if command.starts_with('#') {
            bytes.extend_from_slice(format!("{command}\r\n").as_bytes());
            continue;
        }
        let words: Vec<&str> = command.split(' ').collect();
        bytes.extend_from_slice(format!("*{}\r\n", words.len()).as_bytes());
        for word in words {
            bytes.extend_from_slice(format!("${}\r\n{word}\r\n", word.len()).as_bytes());
        }
    }
    bytes
}

const JOURNAL: [&str; 11] = [
    "SELECT 0",
    "SET a 1",
    "#TS:1700000000",
    "RPUSH l x y z",
    "MULTI",
    "SET b 2",
    "SELECT 3",
    "SET d 4",
    "EXEC",
    "SELECT 1",
    "SET c longervalue",
];

/// Both sides, each with its own copy of the same files.
struct SideBySide {
    redis: TestServer,
    scratch: Scratch,
    torn_tail: TornTail,
}

#[derive(Debug, PartialEq, Eq)]
struct Verdict {
    digest: String,
    last_file_len: u64,
}

impl SideBySide {
    fn start(torn_tail: TornTail) -> Self {
        let truncated = if torn_tail == TornTail::CutOff { "yes" } else { "no" };
        let mut redis = redis(&["--aof-use-rdb-preamble", "no", "--aof-load-truncated", truncated]);
        redis.kill().unwrap();
        Self { redis, scratch: Scratch::start(), torn_tail }
    }

    /// What redis-server and we make of a journal of one increment; `None` for a refusal.
    fn judge(&mut self, content: &[u8]) -> (Option<Verdict>, Option<Verdict>) {
        let dir = tempfile::tempdir().unwrap();
        let files = dir.path().join(AOF_DIR);
        fs::create_dir(&files).unwrap();
        fs::write(files.join("appendonly.aof.manifest"), format!("file {INCR} seq 1 type i\n")).unwrap();
        fs::write(files.join(INCR), content).unwrap();
        put(&mut self.redis, dir.path());
        let theirs = self.redis.start_again().ok().map(|()| {
            let digest = digest(&mut self.redis.client().unwrap());
            self.redis.kill().unwrap();
            let last_file_len = fs::metadata(self.redis.directory().join(AOF_DIR).join(INCR)).unwrap().len();
            Verdict { digest, last_file_len }
        });
        let mut options = AofOptions::default();
        options.torn_tail = self.torn_tail;
        let ours = replay(dir.path(), options);
        let ours = ours.outcome.ok().map(|()| Verdict {
            digest: self.scratch.digest_of(&ours.commands),
            last_file_len: ours.last_file_len.unwrap(),
        });
        (theirs, ours)
    }
}

#[test]
fn a_truncated_journal_is_judged_as_redis_judges_it() {
    let content = encode(&JOURNAL);
    let multi = encode(&JOURNAL[..4]).len();
    let exec = encode(&JOURNAL[..9]).len();
    let annotation = encode(&JOURNAL[..2]).len()..encode(&JOURNAL[..3]).len();
    for (torn_tail, step) in [(TornTail::CutOff, 3), (TornTail::Refuse, 8)] {
        let mut sides = SideBySide::start(torn_tail);
        for len in (0..=content.len()).step_by(step) {
            let (theirs, ours) = sides.judge(&content[..len]);
            assert_eq!(theirs.is_some(), ours.is_some(), "{torn_tail:?} at {len}");
            let (Some(theirs), Some(ours)) = (theirs, ours) else { continue };
            assert_eq!(ours.digest, theirs.digest, "{torn_tail:?} at {len}");
            if annotation.contains(&len) && len > annotation.start {
                // Redis leaves half an annotation line; what it appends then becomes part of that line.
                assert_eq!((ours.last_file_len, theirs.last_file_len), (annotation.start as u64, len as u64));
            } else if (multi..exec).contains(&len) {
                // Torn within a command, Redis keeps the open MULTI; what it appends then is never executed.
                assert_eq!(ours.last_file_len, multi as u64, "{torn_tail:?} at {len}");
                assert!(theirs.last_file_len >= ours.last_file_len);
            } else {
                assert_eq!(ours.last_file_len, theirs.last_file_len, "{torn_tail:?} at {len}");
            }
        }
    }
}

#[test]
fn a_flipped_bit_that_redis_refuses_is_refused_here_too() {
    let content = encode(&JOURNAL);
    let mut sides = SideBySide::start(TornTail::CutOff);
    let (mut both_refuse, mut both_load, mut stricter) = (0, 0, 0);
    for bit in (0..content.len() * 8).step_by(19) {
        let mut flipped = content.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        match sides.judge(&flipped) {
            (None, None) => both_refuse += 1,
            (Some(_), None) => stricter += 1,
            (Some(theirs), Some(ours)) => {
                assert_eq!(ours.digest, theirs.digest, "bit {bit}");
                both_load += 1;
            }
            (None, Some(_)) => panic!("bit {bit}: Redis refuses it and we do not"),
        }
    }
    println!(
        "refused by both {both_refuse}, loaded by both with one result {both_load}, by Redis alone {stricter}"
    );
    assert!(both_refuse > 20 && both_load > 10);
}
