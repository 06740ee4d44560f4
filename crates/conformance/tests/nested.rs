//! Commands inside a transaction and inside a script, which hold locks of the keyspace meanwhile: none may wait for itself, and the
//! server answers others afterwards. With debug assertions, as here, a command that would wait panics, and its connection ends.

use std::time::Duration;

use mtcache_conformance::{Client, TestServer, Value};

/// How long a loaded machine may take.
const PATIENCE: Duration = Duration::from_secs(30);

/// What ends or takes over the connection, or the server.
const LEFT_OUT: &[&str] = &[
    "shutdown",
    "monitor",
    "subscribe",
    "psubscribe",
    "ssubscribe",
    "exec",
    "multi",
    "discard",
    "reset",
    "quit",
    "sync",
    "psync",
];

/// Commands with a second word, and those that ask about everything or about many keys.
const MORE: &str = "INFO;INFO all;INFO everything;INFO persistence;INFO memory;INFO keyspace;INFO stats;INFO clients;LASTSAVE;\
    MEMORY STATS;MEMORY DOCTOR;MEMORY USAGE a;MEMORY PURGE;MEMORY MALLOC-STATS;CONFIG GET *;CONFIG SET maxmemory 0;CONFIG SET save 900;\
    CONFIG RESETSTAT;CONFIG REWRITE;CLIENT LIST;CLIENT INFO;CLIENT GETNAME;CLIENT KILL ID 99999;CLIENT NO-EVICT on;CLIENT TRACKING off;\
    CLIENT UNBLOCK 99999;LATENCY LATEST;LATENCY DOCTOR;SLOWLOG GET;SLOWLOG RESET;SCRIPT EXISTS a;SCRIPT FLUSH;OBJECT ENCODING a;\
    OBJECT FREQ a;COMMAND COUNT;COMMAND DOCS get;COMMAND GETKEYS get a;PUBSUB CHANNELS;PUBSUB NUMSUB a;ACL WHOAMI;ACL LIST;ACL LOG;\
    ACL SETUSER other on;BGSAVE SCHEDULE;SAVE;BGREWRITEAOF;SWAPDB 0 1;FLUSHDB;FLUSHALL;RANDOMKEY;SCAN 0;KEYS *;DBSIZE;COPY a b;\
    MOVE a 1;RENAME a b;SORT l;DUMP a;DEBUG SLEEP 0;DEBUG OBJECT a;DEBUG JMAP;WAIT 0 0;TIME;ECHO a;PING;EVAL return{redis.call('info')} 0";

fn commands(client: &mut Client) -> Vec<Vec<String>> {
    let Value::Array(specs) = client.command(&["COMMAND"]).unwrap() else { panic!("no list of commands") };
    let mut commands: Vec<Vec<String>> = specs
        .iter()
        .map(|spec| {
            let Value::Array(fields) = spec else { panic!("{spec:?}") };
            let Value::Integer(arity) = fields[1] else { panic!("{spec:?}") };
            let name = fields[0].text().unwrap();
            let args = usize::try_from(arity.unsigned_abs()).unwrap() - 1;
            [name].into_iter().chain(std::iter::repeat_n("a".to_owned(), args)).collect()
        })
        .filter(|words: &Vec<String>| !LEFT_OUT.contains(&&*words[0]))
        .collect();
    assert!(commands.len() > 200, "{}", commands.len());
    commands.extend(MORE.split(';').map(|line| line.split_whitespace().map(str::to_owned).collect()));
    commands
}

fn start() -> (TestServer, Vec<Vec<String>>) {
    let server =
        TestServer::mtcache(["--appendonly", "yes", "--save", "3600 1", "--enable-debug-command", "yes"])
            .unwrap();
    let commands = commands(&mut server.client().unwrap());
    (server, commands)
}

/// After each of these, others are answered.
fn assert_answered(server: &TestServer, what: &[String]) {
    let mut other = server.client().unwrap();
    other.set_timeout(PATIENCE).unwrap();
    let answer = other.command(&["SET", "other", "1"]);
    assert!(answer.is_ok(), "after {what:?} nobody is answered: {answer:?}");
}

#[test]
fn every_command_ends_within_a_transaction_that_has_written() {
    let (server, commands) = start();
    for words in &commands {
        let mut client = server.client().unwrap();
        client.set_timeout(PATIENCE).unwrap();
        client.command(&["MULTI"]).unwrap();
        client.command(&["SET", "a", "1"]).unwrap();
        client.command(words).unwrap();
        let answer = client.command(&["EXEC"]);
        assert!(answer.is_ok(), "{words:?} in a transaction: {answer:?}");
        assert_answered(&server, words);
    }
}

#[test]
fn every_command_ends_within_a_script_that_has_written() {
    let (server, commands) = start();
    for words in &commands {
        let mut client = server.client().unwrap();
        client.set_timeout(PATIENCE).unwrap();
        let script = "redis.call('SET', KEYS[1], '1') return redis.pcall(unpack(ARGV))";
        let args = ["EVAL", script, "1", "a"].into_iter().chain(words.iter().map(String::as_str));
        let answer = client.command(&args.collect::<Vec<_>>());
        assert!(answer.is_ok(), "{words:?} in a script: {answer:?}");
        assert_answered(&server, words);
    }
}
