//! Client-side caching: our server tells the same clients of the same keys as redis-server does, step by step.
//!
//! After every command each client is asked for a sign of life, and what it was told before that is compared. Redis puts several
//! keys into one message and we may send several: what is compared is the keys, in their alphabetical order.

use std::collections::BTreeMap;

use mtcache_conformance::{Client, TestServer, Value};

/// Clients by name. `s` speaks RESP2 and is subscribed to the channel of invalidations; the rest speak what they say.
struct Room {
    server: TestServer,
    clients: BTreeMap<char, Client>,
    ids: BTreeMap<char, i64>,
}

impl Room {
    fn open(server: TestServer) -> Self {
        Self { server, clients: BTreeMap::new(), ids: BTreeMap::new() }
    }

    fn client(&mut self, name: char) -> &mut Client {
        if !self.clients.contains_key(&name) {
            let mut client = self.server.client().unwrap();
            // Lower case speaks RESP3, upper case RESP2.
            if name.is_ascii_lowercase() {
                client.command(&["HELLO", "3"]).unwrap();
            }
            let Value::Integer(id) = client.command(&["CLIENT", "ID"]).unwrap() else { panic!("no id") };
            self.ids.insert(name, id);
            if name == 'S' {
                client.command(&["SUBSCRIBE", "__redis__:invalidate"]).unwrap();
            }
            self.clients.insert(name, client);
        }
        self.clients.get_mut(&name).unwrap()
    }

    /// Runs `a: GET k` as client a, and says what it answered and what everybody heard.
    fn step(&mut self, line: &str) -> Vec<String> {
        let (name, command) = line.split_once(": ").unwrap();
        let name = name.chars().next().unwrap();
        self.client(name);
        let mut args: Vec<String> = command.split(' ').map(str::to_owned).collect();
        for arg in &mut args {
            // `@x` is the id of client x.
            if let Some(other) = arg.strip_prefix('@') {
                let other = other.chars().next().unwrap();
                self.client(other);
                *arg = self.ids[&other].to_string();
            }
        }
        let mut heard = Vec::new();
        if command == "gone" {
            self.clients.remove(&name);
            // The server notices in its own time.
            let id = self.ids[&name].to_string();
            while !matches!(self.client('w').command(&["CLIENT", "LIST", "ID", &id]).unwrap(), Value::Verbatim(text) if text.len() == 4)
            {
                std::thread::sleep(std::time::Duration::from_millis(5));
            }
        } else {
            let reply = self.client(name).command(&args).unwrap();
            let shown = format!("{reply:?}");
            heard.push(if command.starts_with("CLIENT") { self.with_names(&shown) } else { shown });
        }
        let names: Vec<char> = self.clients.keys().copied().collect();
        for name in names {
            let told = self.told(name);
            if !told.is_empty() {
                heard.push(format!("{name} hears {told:?}"));
            }
        }
        heard
    }

    /// What a client has been told since the last time.
    fn told(&mut self, name: char) -> Vec<String> {
        let client = self.client(name);
        let mut told = Vec::new();
        if name == 'S' {
            client.send(&["PING"]).unwrap();
            loop {
                let value = client.next_value().unwrap();
                let text = format!("{value:?}");
                if text.contains("pong") {
                    break;
                }
                told.extend(keys(&value));
            }
        } else {
            client.command(&["PING"]).unwrap();
            told.extend(client.take_pushes().iter().flat_map(keys));
        }
        let with_names = |text: String| if text.contains("broken") { self.with_names(&text) } else { text };
        let mut told: Vec<String> = told.into_iter().map(with_names).collect();
        told.sort();
        told
    }

    fn with_names(&self, text: &str) -> String {
        let mut text = text.to_owned();
        for (name, id) in &self.ids {
            text = text.replace(&format!(":{id}"), &format!("the id of {name}"));
        }
        text
    }
}

/// The keys of an invalidation, or the message as it is if it is something else.
fn keys(message: &Value) -> Vec<String> {
    let (Value::Array(parts) | Value::Push(parts)) = message else { return vec![format!("{message:?}")] };
    match parts.as_slice() {
        [head @ .., Value::Array(keys)] if format!("{head:?}").contains("invalidate") => {
            keys.iter().map(|key| format!("{key:?}")).collect()
        }
        _ => vec![format!("{message:?}")],
    }
}

/// The same steps on both servers.
fn alike(options: &[&str], steps: &[&str]) {
    let mut ours = Room::open(TestServer::mtcache(options).unwrap());
    let mut theirs = Room::open(TestServer::redis(options).unwrap());
    // What shows a client's number in passing has to find the same numbers.
    for step in steps {
        let (ours, theirs) = (ours.step(step), theirs.step(step));
        assert_eq!(ours, theirs, "ours (left) and Redis' (right) differ after: {step}");
    }
}

#[test]
fn readers_hear_once_of_each_key_that_changes() {
    alike(
        &[],
        &[
            "a: SET k 1",
            "a: CLIENT TRACKING ON",
            "a: CLIENT TRACKINGINFO",
            "a: CLIENT GETREDIR",
            "a: GET k",
            "b: SET k 2",
            "b: SET k 3",
            "a: GET k",
            "a: SET k 4",
            "a: MGET k l m",
            "b: MSET k 5 l 6 x 7",
            "b: DEL m",
            "b: SET m 1",
            "a: GET none",
            "b: LPUSH none 1",
            "a: LRANGE none 0 -1",
            "b: RPOP none",
            "a: GET k",
            "b: EXPIRE k 100",
            "a: TTL k",
            "b: PERSIST k",
            "a: GET k",
            "b: RENAME k kk",
            "a: STRLEN kk",
            "b: FLUSHDB",
            "a: GET kk",
            "b: FLUSHALL",
            "a: CLIENT TRACKING OFF",
            "a: CLIENT GETREDIR",
            "a: GET k",
            "b: SET k 1",
            "a: CLIENT TRACKINGINFO",
        ],
    );
}

#[test]
fn transactions_and_scripts_are_reads_and_writes_like_others() {
    alike(
        &[],
        &[
            "a: CLIENT TRACKING ON",
            "a: MULTI",
            "a: GET k",
            "a: GET l",
            "a: EXEC",
            "b: MULTI",
            "b: SET k 1",
            "b: SET l 1",
            "b: SET k 2",
            "b: EXEC",
            // Redis 7.0 remembers the keys that a script declares, later ones and we those that it reads.
            "a: EVAL return{redis.call('get','k'),redis.call('get','l')} 2 k l",
            "b: SET l 2",
            "b: SET k 3",
            "a: EVAL_RO return{redis.call('get','k')} 1 k",
            "b: EVAL return{redis.call('set','k','1'),redis.call('set','l','1')} 2 k l",
            "a: GET k",
            "a: MULTI",
            "a: SET k 9",
            "a: GET k",
            "a: EXEC",
            "b: SET k 1",
        ],
    );
}

#[test]
fn opting_in_and_out_says_which_reads_count() {
    alike(
        &[],
        &[
            "a: CLIENT CACHING YES",
            "a: CLIENT TRACKING ON OPTIN",
            "a: GET k",
            "b: SET k 1",
            "a: CLIENT CACHING YES",
            "a: CLIENT TRACKINGINFO",
            "a: GET k",
            "a: GET l",
            "b: MSET k 1 l 1",
            "a: CLIENT CACHING YES",
            "a: MULTI",
            "a: GET k",
            "a: GET l",
            "a: EXEC",
            "a: GET m",
            "b: MSET k 1 l 1 m 1",
            "a: CLIENT CACHING NO",
            "a: CLIENT TRACKING ON OPTOUT",
            "a: CLIENT TRACKING ON OPTIN OPTOUT",
            "a: CLIENT TRACKING ON BCAST OPTIN",
            "a: CLIENT TRACKING OFF",
            "a: CLIENT TRACKING ON OPTOUT",
            "a: CLIENT CACHING YES",
            "a: CLIENT CACHING NO",
            "a: CLIENT TRACKINGINFO",
            "a: GET k",
            "a: GET l",
            "b: MSET k 1 l 1",
            "a: CLIENT CACHING",
            "a: CLIENT CACHING maybe",
            "a: CLIENT TRACKING",
            "a: CLIENT TRACKING maybe",
            "a: CLIENT TRACKING ON maybe",
            "a: RESET",
            "a: CLIENT TRACKINGINFO",
        ],
    );
}

#[test]
fn broadcasting_goes_by_prefixes() {
    alike(
        &[],
        &[
            "a: CLIENT TRACKING ON PREFIX u",
            "a: CLIENT TRACKING ON BCAST PREFIX user: PREFIX user:1",
            "a: CLIENT TRACKING ON BCAST PREFIX user: PREFIX price:",
            "a: CLIENT TRACKINGINFO",
            "a: CLIENT TRACKING ON BCAST PREFIX us",
            "a: CLIENT TRACKING ON BCAST PREFIX x",
            "c: CLIENT TRACKING ON BCAST NOLOOP",
            "c: CLIENT TRACKINGINFO",
            "b: SET user:1 1",
            "b: SET other 1",
            "b: MSET user:2 1 price:X 1 q 1 x 1",
            "a: SET user:3 1",
            "c: SET user:3 2",
            "c: CLIENT TRACKING ON",
            "b: FLUSHALL",
            "a: CLIENT TRACKING OFF",
            "b: SET user:1 1",
            "c: gone",
            "b: SET user:1 1",
        ],
    );
}

#[test]
fn messages_can_go_to_another_connection() {
    alike(
        &[],
        &[
            "A: CLIENT TRACKING ON REDIRECT 999999",
            "A: CLIENT TRACKING ON REDIRECT x",
            "A: CLIENT TRACKING ON REDIRECT @S REDIRECT @S",
            "A: CLIENT TRACKING ON REDIRECT @S",
            "A: CLIENT GETREDIR",
            "A: CLIENT TRACKINGINFO",
            "A: GET k",
            "b: SET k 1",
            "b: FLUSHALL",
            "c: CLIENT TRACKING ON REDIRECT @d NOLOOP",
            "c: GET k",
            "c: SET k 1",
            "c: GET k",
            "b: SET k 1",
            "c: GET k",
            "d: gone",
            "b: SET k 2",
            "c: CLIENT TRACKINGINFO",
            "c: CLIENT TRACKING ON",
            "c: CLIENT TRACKINGINFO",
        ],
    );
}

#[test]
fn a_full_table_forgets_keys_and_says_so() {
    let server = TestServer::mtcache(["--tracking-table-max-keys", "10"]).unwrap();
    let mut client = server.client().unwrap();
    client.command(&["HELLO", "3"]).unwrap();
    client.command(&["CLIENT", "TRACKING", "ON"]).unwrap();
    for i in 0..200 {
        client.command(&["GET", &format!("k{i}")]).unwrap();
    }
    client.command(&["PING"]).unwrap();
    let forgotten: Vec<String> = client.take_pushes().iter().flat_map(keys).collect();
    // Those of one part of the table are let go of together with a new key of the same part.
    assert!((150..200).contains(&forgotten.len()), "{} of 200 forgotten", forgotten.len());
    let Value::Verbatim(info) = client.command(&["INFO", "stats"]).unwrap() else { panic!("no INFO") };
    let kept: usize = String::from_utf8_lossy(&info)
        .lines()
        .find_map(|line| line.strip_prefix("tracking_total_keys:")?.parse().ok())
        .unwrap();
    assert_eq!(kept + forgotten.len(), 200);
}

#[test]
fn what_expires_or_is_evicted_is_told_of() {
    for options in [&["--active-expire-effort", "1"][..], &["--maxmemory-policy", "allkeys-lru"]] {
        let server = TestServer::mtcache(options).unwrap();
        let mut reader = server.client().unwrap();
        let mut writer = server.client().unwrap();
        reader.command(&["HELLO", "3"]).unwrap();
        reader.command(&["CLIENT", "TRACKING", "ON"]).unwrap();
        let evicts = options[0] == "--maxmemory-policy";
        if evicts {
            writer.command(&["SET", "k", "1"]).unwrap();
        } else {
            writer.command(&["SET", "k", "1", "PX", "300"]).unwrap();
        }
        reader.command(&["GET", "k"]).unwrap();
        if evicts {
            writer.command(&["CONFIG", "SET", "maxmemory", "1"]).unwrap();
            // Every write makes room first, by the only key that there is.
            writer.command(&["SET", "other", "1"]).unwrap();
        }
        let told = reader.next_push().unwrap();
        assert_eq!(keys(&told).len(), 1);
    }
}
