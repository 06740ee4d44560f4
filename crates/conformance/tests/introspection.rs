//! What operators and tools ask a server, on ours beside redis-server 7.0: the command table entry by entry, the encodings around
//! every threshold, CLIENT and its kin with right and wrong arguments.

use std::collections::BTreeMap;

use mtcache_conformance::normalise::{equal, sorted};
use mtcache_conformance::{Client, ServerOptions, TestServer, Value};

struct Pair {
    ours: Client,
    theirs: Client,
    _servers: [TestServer; 2],
}

impl Pair {
    fn start() -> Self {
        let options = ["--maxmemory", "0", "--enable-debug-command", "yes"];
        let ours = TestServer::mtcache(ServerOptions::from(options)).unwrap();
        let theirs = TestServer::redis(options).unwrap();
        Self { ours: ours.client().unwrap(), theirs: theirs.client().unwrap(), _servers: [ours, theirs] }
    }

    fn run(&mut self, line: &str) -> [Value; 2] {
        let args: Vec<&str> = line.split_whitespace().collect();
        [&mut self.ours, &mut self.theirs].map(|client| client.command(&args).unwrap())
    }

    #[track_caller]
    fn same(&mut self, lines: &str) {
        for line in lines.lines().map(str::trim).filter(|line| !line.is_empty()) {
            let [ours, theirs] = self.run(line).map(without_identity);
            assert_eq!(ours, theirs, "ours (left) differs from Redis' (right) for: {line}");
        }
    }
}

/// A reply without what differs between any two servers: in the lines of clients, numbers of connections and sizes.
fn without_identity(value: Value) -> Value {
    const OWN: [&str; 15] = [
        "id=",
        "addr=",
        "laddr=",
        "fd=",
        "age=",
        "idle=",
        "qbuf=",
        "qbuf-free=",
        "argv-mem=",
        "multi-mem=",
        "rbs=",
        "rbp=",
        "obl=",
        "omem=",
        "tot-mem=",
    ];
    match value {
        Value::Bulk(bytes) if bytes.starts_with(b"id=") => {
            let text = String::from_utf8_lossy(&bytes).into_owned();
            let kept = text.split(' ').filter(|field| !OWN.iter().any(|own| field.starts_with(own)));
            Value::Bulk(kept.collect::<Vec<_>>().join(" ").into_bytes())
        }
        Value::Array(items) => Value::Array(items.into_iter().map(without_identity).collect()),
        other => other,
    }
}

/// Names and values of a reply that is a flat list of both.
fn fields(value: &Value) -> BTreeMap<String, Value> {
    let items = value.elements().unwrap_or_default();
    items.chunks(2).map(|pair| (pair[0].text().unwrap(), pair[1].clone())).collect()
}

#[test]
fn the_command_table_is_that_of_redis_entry_by_entry() {
    let mut pair = Pair::start();
    let names = pair.run("COMMAND LIST").map(sorted);
    assert_eq!(names[0], names[1]);
    let names: Vec<String> = names[0].elements().unwrap().iter().filter_map(|name| name.text()).collect();
    assert!(names.len() > 350, "{}", names.len());
    // Compared in any order, at every depth, and without the notes on keys, which are prose of Redis' own.
    let info = ["COMMAND", "INFO", "GET"].map(|word| word.as_bytes().to_vec());
    for name in &names {
        let [ours, theirs] = pair.run(&format!("COMMAND INFO {name}"));
        assert!(equal(&info, &ours, &theirs), "COMMAND INFO {name}: ours {ours:?}, Redis' {theirs:?}");
        // A container's own documentation repeats that of its subcommands.
        let [ours, theirs] = pair.run(&format!("COMMAND DOCS {name}")).map(|docs| {
            let docs = fields(&docs);
            assert_eq!(docs.len(), 1, "COMMAND DOCS {name}");
            fields(&docs[name])
        });
        assert!(ours.contains_key("summary"), "COMMAND DOCS {name}");
        for fact in ["since", "group", "deprecated_since", "doc_flags", "module"] {
            assert_eq!(ours.get(fact), theirs.get(fact), "COMMAND DOCS {name}: {fact}");
        }
    }
    let [ours, theirs] = pair.run("COMMAND");
    assert!(equal(&info, &ours, &theirs), "the whole table differs, and no entry of it");
    for filter in [
        "ACLCAT read",
        "ACLCAT @read",
        "ACLCAT nosuch",
        "PATTERN *l*",
        "PATTERN x[a-d]*",
        "PATTERN",
        "MODULE x",
    ] {
        let lists = pair.run(&format!("COMMAND LIST FILTERBY {filter}")).map(sorted);
        assert_eq!(lists[0], lists[1], "{filter}");
    }
}

#[test]
fn the_keys_of_a_command_line_are_those_that_redis_finds() {
    let mut pair = Pair::start();
    for way in ["GETKEYS", "GETKEYSANDFLAGS"] {
        for line in [
            "GET a",
            "GET",
            "PING",
            "NOSUCH a",
            "SET a b",
            "SET a b GET",
            "MSET a 1 b 2",
            "MSET a 1 b",
            "DEL a b c",
            "LMOVE a b LEFT RIGHT",
            "SORT a",
            "SORT a BY w_* GET # STORE d",
            "SORT a STORE b STORE c",
            "SORT_RO a BY w_*",
            "ZUNIONSTORE d 2 a b WEIGHTS 1 2",
            "ZUNION 1 a",
            "ZINTERCARD 2 a b LIMIT 1",
            "LMPOP 2 a b LEFT",
            "BLMPOP 0 1 a LEFT",
            "BLPOP a b 0",
            "EVAL x 2 a b c",
            "EVAL x 0",
            "EVAL x b c",
            "EVAL x -1 c",
            "EVAL_RO x 3 c",
            "ZUNION b c",
            "ZUNION 1e c",
            "ZUNION 4294967297 c",
            "ZUNIONSTORE d 01 c",
            "EVAL x 99999999999999999999 c",
            "EVALSHA x 1 a",
            "FCALL f 1 a",
            "MEMORY USAGE a",
            "OBJECT ENCODING a",
            "DEBUG OBJECT a",
            "BITFIELD a GET u8 0",
            "BITFIELD a SET u8 0 1",
            "GETEX a PX 5",
            "GEORADIUS a 1 2 3 km STORE d",
            "XREADGROUP GROUP g c STREAMS a b 1 2",
            "XREAD COUNT 1 STREAMS a 0",
            "MIGRATE h 1 a 0 5",
            "COPY a b DB 1",
            "RENAME a b",
            "SINTERSTORE d a b",
            "SUBSCRIBE c",
            "SPUBLISH c m",
            "PFCOUNT a b",
            "WATCH a b",
            "RESTORE a 0 x",
        ] {
            let [ours, theirs] = pair.run(&format!("COMMAND {way} {line}")).map(sorted);
            assert_eq!(ours, theirs, "ours (left) differs from Redis' (right): COMMAND {way} {line}");
        }
    }
}

#[test]
fn encodings_change_where_they_do_in_redis() {
    let mut pair = Pair::start();
    let limits = [
        ("hash-max-listpack-entries", "8"),
        ("hash-max-listpack-value", "10"),
        ("set-max-intset-entries", "8"),
        ("zset-max-listpack-entries", "8"),
        ("zset-max-listpack-value", "10"),
        ("list-max-listpack-size", "8"),
    ];
    for changed in [false, true] {
        let (entries, ints) = if changed { (8, 8) } else { (128, 512) };
        if changed {
            for (name, value) in limits {
                pair.same(&format!("CONFIG SET {name} {value}"));
            }
        }
        pair.same("FLUSHALL");
        for i in 0..entries + 3 {
            pair.same(&format!("HSET h {i} v\nZADD z {i} m{i}\nOBJECT ENCODING h\nOBJECT ENCODING z"));
        }
        for i in 0..ints + 3 {
            pair.same(&format!("SADD s {i}\nOBJECT ENCODING s"));
        }
        for i in 0..entries + 3 {
            pair.same(&format!("SADD t m{i}\nRPUSH l e{i}\nOBJECT ENCODING t\nOBJECT ENCODING l"));
        }
        pair.same("HDEL h 1 2 3 4 5\nOBJECT ENCODING h\nSADD u 1 2 x\nOBJECT ENCODING u\nSREM u x\nOBJECT ENCODING u");
        for length in [1, 9, 10, 11, 43, 44, 45, 63, 64, 65, 500] {
            let text = "v".repeat(length);
            pair.same(&format!(
                "DEL hh zz ll\nHSET hh f {text}\nHSET hh {text} f\nZADD zz 1 {text}\nRPUSH ll {text}\nSET str {text}\n\
                 OBJECT ENCODING hh\nOBJECT ENCODING zz\nOBJECT ENCODING ll\nOBJECT ENCODING str\nAPPEND str x\n\
                 OBJECT ENCODING str"
            ));
        }
    }
    for number in [
        "0",
        "-1",
        "9223372036854775807",
        "-9223372036854775808",
        "9223372036854775808",
        "01",
        "-0",
        "1.5",
        "+1",
        "1e3",
    ] {
        pair.same(&format!("SET n {number}\nOBJECT ENCODING n\nGETRANGE n 0 0\nOBJECT ENCODING n\nAPPEND n 1\nOBJECT ENCODING n"));
    }
    pair.same(
        "SET c 10\nINCR c\nOBJECT ENCODING c\nSETRANGE c 0 5\nOBJECT ENCODING c\nINCRBYFLOAT c 0.5\nOBJECT ENCODING c\n\
         ZUNIONSTORE zu 1 z\nOBJECT ENCODING zu\nZRANGESTORE zr z 0 2\nOBJECT ENCODING zr\nSUNIONSTORE su s t\nOBJECT ENCODING su\n\
         SINTERSTORE si s s\nOBJECT ENCODING si\nCOPY z zc\nOBJECT ENCODING zc\nSORT s STORE sl\nOBJECT ENCODING sl\n\
         ZUNIONSTORE zs 2 s t\nOBJECT ENCODING zs\nOBJECT ENCODING nosuch\nOBJECT REFCOUNT z\nOBJECT FREQ z",
    );
}

#[test]
fn client_and_its_kin_answer_as_redis_to_right_and_wrong_arguments() {
    Pair::start().same(CLIENT);
}

#[test]
fn administration_answers_as_redis_to_right_and_wrong_arguments() {
    Pair::start().same(ADMINISTRATION);
}

const CLIENT: &str = "
    client list
    client list type normal
    client list type pubsub
    client list type replica
    client list type slave
    client list type master
    client list type nosuch
    client list id 1000000
    client list id
    client list id x
    client list id 0
    client list id -1
    client list type
    client list foo bar
    client list type normal id 1
    client kill
    client kill x
    client kill 1.2.3.4:5
    client kill id
    client kill id x
    client kill id 0
    client kill id 99999
    client kill type nosuch
    client kill type pubsub
    client kill user nosuch
    client kill addr 1.2.3.4:1
    client kill laddr 1.2.3.4:1
    client kill skipme maybe
    client kill skipme yes id 1000000
    client kill addr
    client kill maxage 100
    client no-evict on
    client list
    client no-evict off
    client no-evict x
    client no-evict
    client pause
    client pause x
    client pause -1
    client pause 0
    client pause 1 nosuch
    client pause 1 write
    client pause 1 all
    client pause 1 write x
    client unpause
    client unpause x
    client unblock
    client unblock x
    client unblock 0
    client unblock 999999
    client unblock 999999 timeout
    client unblock 999999 error
    client unblock 999999 x
    client reply
    client reply x
    client reply on
    client trackinginfo
    client tracking on bcast prefix a prefix b
    client trackinginfo
    client tracking on bcast prefix c
    client trackinginfo
    client tracking off
    client trackinginfo
    client tracking on optin
    client trackinginfo
    client caching yes
    client trackinginfo
    client tracking off
    client tracking on optout noloop
    client trackinginfo
    client caching no
    client trackinginfo
    client caching yes
    client getredir
    client tracking off
    client caching yes
    client getredir
    client tracking on redirect 99999
    client tracking on bcast optin
    client tracking on bcast prefix aa prefix a
    client tracking on prefix a
    client tracking
    client tracking x
    client tracking on foo
    client getname
    client setname abc
    client getname
    client id x
    client info x
    client info
    client nosuch
    client
    multi
    client info
    get a
    exec
    reset
    client info
";

const ADMINISTRATION: &str = "
    shutdown foo
    shutdown save nosave
    shutdown abort
    shutdown a b c d e
    memory purge
    memory usage nosuch
    memory usage
    memory usage nosuch samples
    memory usage a samples x
    memory usage a samples -1
    memory usage a foo 5
    memory usage nosuch samples 0
    memory nosuch
    latency latest
    latency history command
    latency history nosuch
    latency graph command
    latency doctor x
    latency reset
    latency reset nosuch
    latency histogram nosuch
    latency nosuch
    latency
    object freq nosuch
    object nosuch a
    object encoding
    object help x
    object refcount nosuch
    object idletime nosuch
    config get maxmemory-clients
    config set maxmemory-clients x
    config set maxmemory-clients 1%
    config get maxmemory-clients
    config set maxmemory-clients 101%
    config set maxmemory-clients 0
    slowlog
    slowlog len x
    slowlog get x
    slowlog get -2
    slowlog reset x
    module list
    debug nosuch
    debug sleep
    debug object nosuch
    acl whoami
    wait 0 x
    wait 0 -1
    wait x 0
    command count x
    command list filterby
    command list filterby nosuch x
    command list x
    command docs nosuch
    command info nosuch
    lastsave x
    role x
    time x
    echo
    select 99
    select x
    swapdb 0
    swapdb 0 x
    swapdb 0 99
    config set maxmemory
    config set nosuch 1
    config get
    config resetstat x
    config rewrite x
";

#[test]
fn the_operating_system_is_named_as_in_redis() {
    let mut pair = Pair::start();
    let lines = pair.run("INFO server").map(|info| {
        let info = info.text().unwrap();
        info.lines().find(|line| line.starts_with("os:")).unwrap().to_owned()
    });
    assert_eq!(lines[0], lines[1]);
}
