//! Users and their rights, beside a redis-server: what rules become, what is denied, in which words, and who is cut off.

use std::time::Duration;

use mtcache_conformance::{Client, Value};

use crate::testing::{Pair, Rig, split};

/// One session on each side.
struct Both {
    ours: Rig,
    theirs: Client,
}

impl Both {
    fn of(pair: &Pair) -> Self {
        let (ours, theirs) = pair.others();
        Self { ours, theirs }
    }

    /// A session that has logged in.
    fn logged_in(pair: &Pair, user: &str, password: &str) -> Self {
        let mut both = Self::of(pair);
        both.same(&[&format!("auth {user} {password}")]);
        both
    }

    #[track_caller]
    fn same(&mut self, lines: &[&str]) {
        for line in lines {
            let (ours, theirs) =
                (self.ours.run_args(&split(line)), self.theirs.command(&split(line)).unwrap());
            assert_eq!(ours, theirs, "ours (left) differs from Redis' (right) for: {line}");
        }
    }
}

/// The words of all texts in order: which single commands come first is up to the server.
fn sorted_words(value: Value) -> Value {
    match value {
        Value::Array(items) => Value::Array(items.into_iter().map(sorted_words).collect()),
        Value::Bulk(text) => {
            let mut words: Vec<&[u8]> = text.split(|byte| *byte == b' ').collect();
            words.sort_unstable();
            Value::Bulk(words.join(&b' '))
        }
        other => other,
    }
}

#[track_caller]
fn same_words(pair: &mut Pair, line: &str) {
    let (ours, theirs) = pair.run(&split(line));
    assert_eq!(sorted_words(ours), sorted_words(theirs), "{line}");
}

const HASH: &str = "#148de9c5a7a44d19e56cd9ae1a554bf67847afb0c58f6e12fa29ac7ddfca9940";

#[test]
fn rules_become_what_they_become_in_redis() {
    let mut pair = Pair::start();
    let rules = [
        "on >p +@all -get ~x %R~y",
        "%R~a %W~a %W~b %rw~c",
        "&x &y* +client|id +select|0 +select|1 +debug|Object",
        "reset",
        "skip-sanitize-payload",
        "sanitize-payload +@read -@keyspace +@dangerous -info +client|list",
        "resetchannels resetkeys nocommands +@write -@write +client",
        "+@all -client|id -@slow",
        "allkeys allchannels allcommands nopass",
        "-get +get",
        "resetpass >a >b >a",
        "<a off on ON",
        "-@all +@string +@hash -@write +@fast -hello -auth",
        "+@scripting +@pubsub -publish -script",
        "allcommands -select +select|0 +select",
        "-@all %R %~x",
        "~ & -@all +@connection +@transaction -client|kill",
        "resetkeys ~{a}* ~[bc]? +@admin -acl -config|set",
        "clearselectors",
        "+@all -@admin -@dangerous",
        "-@connection +acl|whoami",
    ];
    for rule in rules {
        let line = format!("acl setuser bob {rule}");
        pair.same(&[line.as_str()]);
        same_words(&mut pair, "acl list");
        same_words(&mut pair, "acl getuser bob");
    }
    pair.same(&[&format!("acl setuser carl {HASH}"), "acl setuser \"\"", "acl users", "acl getuser none"]);
    same_words(&mut pair, "acl list");
    pair.same(&[
        &format!("acl setuser carl {}", HASH.replace('#', "!")),
        "acl deluser carl nobody \"\"",
        "acl users",
    ]);
    pair.same(&["hello 3"].map(|_| "acl whoami"));
}

#[test]
fn wrong_rules_are_refused_in_redis_words_and_change_nothing() {
    let mut pair = Pair::start();
    pair.same(&[
        "acl setuser bob on >p",
        "acl setuser bob +get|x|y",
        "acl setuser bob +client|id|x",
        "acl setuser bob +client|nosuch",
        "acl setuser bob +client|",
        "acl setuser bob +nosuch",
        "acl setuser bob off -nosuch",
        "acl setuser bob off +@nosuch",
        "acl setuser bob -debug|object",
        "acl setuser bob \"~a b\"",
        "acl setuser bob \"&a b\"",
        "acl setuser bob %RWR~x",
        "acl setuser bob %Rz",
        "acl setuser bob %",
        "acl setuser bob !x",
        "acl setuser bob #148DE9C5A7A44D19E56CD9AE1A554BF67847AFB0C58F6E12FA29AC7DDFCA9940",
        "acl setuser bob foo",
        "acl setuser bob allkeys ~x",
        "acl setuser bob allchannels &x",
        "acl setuser bob <x",
        "acl setuser bob (+get ~x",
        "acl setuser \"b c\" on",
        "acl setuser",
        "acl deluser default",
        "acl deluser",
        "acl genpass 0",
        "acl genpass 4097",
        "acl genpass x",
        "acl genpass 1 2",
        "acl log x",
        "acl log 1 2",
        "acl cat nosuch",
        "acl cat a b",
        "acl cat",
        "acl load",
        "acl save",
        "acl nosuch",
        "acl getuser bob",
        "acl list",
        "acl dryrun bob",
        "acl dryrun nobody get x",
        "acl dryrun default nosuch",
        "acl dryrun default client nosuch",
        "acl dryrun default set x",
        "client kill user nobody",
    ]);
    assert_eq!(
        pair.rig.run("acl setuser bob (~x)"),
        "-ERR Error in ACL SETUSER modifier \\'(~x)\\': selectors in parentheses are not supported by this version yet; give \
         each set of rights a user of its own"
    );
}

#[test]
fn categories_hold_the_commands_that_they_hold_in_redis() {
    let mut pair = Pair::start();
    for (category, _) in mtcache_protocol::AclCategories::all() {
        pair.same_set(&[&format!("acl cat {category}")]);
    }
}

#[test]
fn passwords_of_a_given_length_come_from_the_system() {
    let mut rig = Rig::new();
    let mut password = |line: &str| rig.run(line).trim_matches('"').to_owned();
    for (line, digits) in
        [("acl genpass", 64), ("acl genpass 5", 2), ("acl genpass 1", 1), ("acl genpass 4096", 1024)]
    {
        let (one, other) = (password(line), password(line));
        assert_eq!((one.len(), other.len()), (digits, digits));
        assert!(digits < 8 || one != other);
        assert!(one.bytes().all(|digit| digit.is_ascii_hexdigit()));
    }
}

#[test]
fn commands_keys_and_channels_are_denied_as_redis_denies_them() {
    let mut pair = Pair::start();
    pair.same(&[
        "acl setuser bob on >p +@all -flushall -config|set -debug +debug|sleep ~own:* %R~read:* %W~write:* &news.* &a?",
        "set read:k v",
        "set write:k v",
        "set own:k v",
    ]);
    let mut bob = Both::logged_in(&pair, "bob", "p");
    bob.same(&[
        "acl whoami",
        "get own:k",
        "get read:k",
        "get write:k",
        "get other",
        "set own:k 2",
        "set read:k 2",
        "set write:k 2",
        "set write:k 2 get",
        "set own:k 2 get",
        "exists read:k",
        "exists write:k",
        "exists own:k other",
        "type write:k",
        "type other",
        "del write:k read:k",
        "del write:k",
        "append write:k x",
        "incr write:n",
        "getdel write:k",
        "strlen write:k",
        "expire write:k 100",
        "mget own:a own:b read:c",
        "mget own:a own:b write:c",
        "mset own:a 1 other 2",
        "copy read:k own:c",
        "copy own:c read:k",
        "rename own:c write:c",
        "rename write:c own:c",
        "sunionstore own:s read:s",
        "sunionstore read:s own:s",
        "zunionstore own:z 2 read:z other",
        "zunionstore write:z 1 read:z",
        "lmpop 1 read:l left",
        "lmpop 1 own:l left",
        "object encoding write:k",
        "dbsize",
        "scan 0 match nosuch*",
        "flushall",
        "config set maxmemory 0",
        "config get maxmemory-samples",
        "nosuch",
        "get",
        "publish news.x hi",
        "publish ab hi",
        "publish other hi",
        "spublish other hi",
        "eval \"return redis.call('get',KEYS[1])\" 1 own:k",
        "eval \"return redis.call('get',KEYS[1])\" 1 read:k",
        "eval \"return 1\" 1 other",
        "eval \"return redis.call('get','other')\" 0",
        "eval \"return redis.pcall('get','other')\" 0",
        "eval \"return redis.pcall('flushall').err\" 0",
        "eval \"return redis.pcall('publish','other','x').err\" 0",
        "eval \"return redis.call('set','read:k','1')\" 0",
        "acl dryrun bob get other",
        "acl dryrun bob get read:k",
        "acl dryrun bob publish other x",
        "acl dryrun bob flushall",
        "acl dryrun bob config get x",
        "acl dryrun bob mset own:a 1 other 2",
    ]);
    bob.same(&["multi", "get own:k", "get other", "exec", "multi", "get own:k", "exec"]);
    for line in ["subscribe other", "psubscribe news.*x", "ssubscribe news.x nope", "subscribe news.x nope"] {
        bob.same(&[line]);
    }
    bob.same(&["psubscribe news.*"]);
}

#[test]
fn a_user_without_rights_can_still_come_and_go() {
    let mut pair = Pair::start();
    pair.same(&[
        "acl setuser none on nopass",
        "acl setuser off off nopass ~* +@all",
        "acl setuser pings on nopass +ping",
    ]);
    let mut none = Both::logged_in(&pair, "none", "x");
    none.same(&[
        "get x",
        "ping",
        "acl whoami",
        "auth none y",
        "auth off x",
        "auth nobody x",
        "auth pings z",
        "ping",
        "get x",
    ]);
    none.same(&["acl whoami", "reset", "acl whoami", "hello 2 auth pings q setname x", "quit"].map(|line| {
        // HELLO tells a number of the connection.
        if line.starts_with("hello") { "auth pings q" } else { line }
    }));
}

#[test]
fn rights_that_go_while_commands_are_queued_are_missed_at_exec() {
    let mut pair = Pair::start();
    pair.same(&["acl setuser bob on >p +@all ~* &*"]);
    let mut bob = Both::logged_in(&pair, "bob", "p");
    bob.same(&["multi", "set a 1", "get b", "publish c x", "flushall", "ping"]);
    pair.same(&["acl setuser bob -flushall resetkeys ~b resetchannels"]);
    bob.same(&["exec", "multi", "get a", "ping", "exec"]);
    pair.same(&["get a"]);
}

#[test]
fn what_was_denied_is_logged_and_grouped() {
    let mut pair = Pair::start();
    pair.same(&["acl setuser bob on >p +@all -flushall ~own:* resetchannels"]);
    let mut bob = Both::logged_in(&pair, "bob", "p");
    bob.same(&[
        "get other",
        "get other",
        "get more",
        "flushall",
        "publish c x",
        "auth bob wrong",
        "auth nobody wrong",
    ]);
    bob.same(&["multi", "get other", "discard", "eval \"return redis.pcall('get','other').err\" 0"]);
    let shown = |value: Value| {
        let Value::Array(entries) = value else { panic!("{value:?}") };
        let fields = |entry: Value| {
            let Value::Array(mut fields) = entry else { panic!("{entry:?}") };
            // The age, and the client with its number and address, differ.
            fields.truncate(10);
            fields
        };
        entries.into_iter().map(fields).collect::<Vec<_>>()
    };
    for line in ["acl log", "acl log 100", "acl log 2", "acl log 0", "acl log -3"] {
        let (ours, theirs) = pair.run(&split(line));
        assert_eq!(shown(ours), shown(theirs), "{line}");
    }
    let log = pair.rig.run("acl log 1");
    assert!(log.contains("cmd=eval") && log.contains("user=bob"), "{log}");
    pair.same(&["config set acllog-max-len 2"]);
    bob.same(&["get third"]);
    let (ours, theirs) = pair.run(&split("acl log"));
    assert_eq!(shown(ours).len(), shown(theirs).len());
    pair.same(&["acl log reset", "acl log"]);
}

#[test]
fn the_default_users_password_is_the_one_that_is_required() {
    let mut pair = Pair::start();
    let mut early = Both::of(&pair);
    pair.same(&["auth x", "config set requirepass sec", "config get requirepass"]);
    same_words(&mut pair, "acl list");
    early.same(&["get x", "auth x", "auth sec", "auth default sec", "get x"]);
    pair.same(&["acl setuser default >more", "auth more", "auth sec", "config set requirepass sec"]);
    same_words(&mut pair, "acl list");
    pair.same(&["config set requirepass \"\""]);
    same_words(&mut pair, "acl list");
    pair.same(&["acl setuser default resetpass >x -@all", "get x", "auth x", "acl whoami", "ping"]);
}

#[test]
fn a_connection_waits_for_the_password_as_long_as_there_is_one() {
    let mut rig = Rig::new();
    rig.set_up(&["config set requirepass sec"]);
    let (mut stranger, _) = rig.listening();
    assert_eq!(stranger.run("get x"), "-NOAUTH Authentication required.");
    rig.set_up(&["config set requirepass \"\""]);
    assert_eq!(stranger.run("get x"), "(null bulk)");
    rig.set_up(&["acl setuser default off"]);
    assert_eq!(stranger.run("get x"), "-NOAUTH Authentication required.");
    assert_eq!(rig.run("get x"), "(null bulk)");
}

#[test]
fn connections_of_deleted_users_end() {
    let mut rig = Rig::new();
    rig.set_up(&["acl setuser bob on >p +@all ~*", "acl setuser carl on >p +@all ~*"]);
    let (mut bob, bobs) = rig.listening();
    let (mut carl, carls) = rig.listening();
    bob.set_up(&["auth bob p"]);
    carl.set_up(&["auth carl p"]);
    let clients = rig.run("client list");
    assert!(clients.contains("user=bob") && clients.contains("user=default"), "{clients}");
    assert_eq!(rig.run("client kill user carl"), ":1");
    assert!(carls.is_closed() && !bobs.is_closed());
    assert_eq!(rig.run("acl deluser bob"), ":1");
    assert!(bobs.is_closed());
    assert_eq!(bob.run("get x"), "-NOPERM this user has no permissions to run the \\'get\\' command");
    // Made again, the user is another one.
    rig.set_up(&["acl setuser bob on >p +@all ~*"]);
    assert_eq!(bob.run("get x"), "-NOPERM this user has no permissions to run the \\'get\\' command");
    let (mut own, _) = rig.listening();
    own.set_up(&["auth bob p"]);
    assert_eq!(own.run("acl deluser bob"), ":1");
    assert!(own.session.wants_close());
}

#[test]
fn subscribers_that_lose_their_channel_are_cut_off() {
    let mut rig = Rig::new();
    rig.set_up(&["acl setuser bob on nopass +@all &news.* &other"]);
    let (mut news, inbox_news) = rig.listening();
    let (mut other, inbox_other) = rig.listening();
    let (mut pattern, inbox_pattern) = rig.listening();
    let (mut shard, inbox_shard) = rig.listening();
    let (mut quiet, inbox_quiet) = rig.listening();
    for session in [&mut news, &mut other, &mut pattern, &mut shard, &mut quiet] {
        session.set_up(&["auth bob x"]);
    }
    news.set_up(&["subscribe news.x"]);
    other.set_up(&["subscribe other"]);
    pattern.set_up(&["psubscribe news.*"]);
    shard.set_up(&["ssubscribe other"]);
    let closed = || {
        [&inbox_news, &inbox_other, &inbox_pattern, &inbox_shard, &inbox_quiet].map(|inbox| inbox.is_closed())
    };
    rig.set_up(&["acl setuser bob &third", "acl setuser bob -get"]);
    assert_eq!(closed(), [false; 5]);
    rig.set_up(&["acl setuser bob resetchannels &news.*"]);
    assert_eq!(closed(), [false, true, false, true, false]);
    rig.set_up(&["acl setuser bob resetchannels &news.x"]);
    assert_eq!(closed(), [false, true, true, true, false]);
    rig.set_up(&["acl setuser bob resetchannels"]);
    assert_eq!(closed(), [true, true, true, true, false]);
}

#[test]
fn callers_of_our_own_process_may_do_everything() {
    let mut rig = Rig::new();
    rig.set_up(&["config set requirepass sec", "acl setuser default -@all resetkeys"]);
    let client = rig.session.client().clone();
    rig.session = crate::session::Session::trusted(client);
    rig.check(&[
        ("set k v", "+OK"),
        ("acl whoami", "(null bulk)"),
        ("eval \"return redis.call('get','k')\" 0", "\"v\""),
    ]);
}

#[test]
fn new_users_get_the_channels_that_the_configuration_says() {
    let mut pair = Pair::start();
    pair.same(&[
        "config set acl-pubsub-default allchannels",
        "acl setuser bob",
        "acl setuser carl resetchannels &x",
    ]);
    same_words(&mut pair, "acl list");
    pair.same(&["acl setuser carl reset", "acl setuser dora &x"]);
    same_words(&mut pair, "acl list");
}

#[test]
fn users_are_never_shown_with_their_passwords() {
    let (mut watcher, inbox) = Rig::new().listening();
    let mut rig = watcher.another();
    watcher.set_up(&["monitor"]);
    rig.set_up(&["config set slowlog-log-slower-than 0", "acl setuser bob on >hidden", "auth bob hidden"]);
    let (mut other, _) = watcher.listening();
    other.advance(Duration::from_millis(1));
    let log = other.run("slowlog get 100");
    assert!(log.contains("(redacted)") && !log.contains("hidden"), "{log}");
    let shown = inbox.take_text();
    assert!(!shown.contains("hidden"), "{shown}");
}
