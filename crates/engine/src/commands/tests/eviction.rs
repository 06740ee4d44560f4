//! `maxmemory` as clients meet it: what goes, what stays, when writes are refused.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;

use crate::client::{Mailbox, NoMailbox};
use crate::engine::Engine;
use crate::keyspace::EvictionPolicy;
use crate::session::Session;
use crate::testing::Rig;

const KEYS: usize = 1000;

/// A rig with `KEYS` keys, every third with an expiry, written one per 10 ms.
fn filled(policy: &str) -> Rig {
    let mut rig = Rig::new();
    configure(&rig, &[("maxmemory", "0"), ("maxmemory-policy", policy), ("maxmemory-samples", "10")]);
    for i in 0..KEYS {
        // Later keys expire earlier.
        let expiry = if i % 3 == 0 { format!("PX {}", 100_000_000 - i * 1000) } else { String::new() };
        rig.run(&format!("SET k{i} {} {expiry}", "x".repeat(200)));
        rig.advance(Duration::from_millis(10));
    }
    rig
}

fn configure(rig: &Rig, pairs: &[(&str, &str)]) {
    let pairs: Vec<&[u8]> =
        pairs.iter().flat_map(|(name, value)| [name.as_bytes(), value.as_bytes()]).collect();
    rig.engine.set_config(&pairs).unwrap();
}

/// Limits the memory to a share of what is used, writes once, and gives the numbers of the keys that are left.
fn shrink(rig: &mut Rig, percent: usize) -> BTreeSet<usize> {
    let limit = rig.engine.used_memory() * percent / 100;
    configure(rig, &[("maxmemory", &limit.to_string())]);
    rig.set_up(&["SET new v"]);
    assert!(rig.engine.used_memory() <= limit + 200, "one write may go over the limit, not more");
    let left = left(rig);
    rig.assert_replay_gives_the_same();
    left
}

fn left(rig: &mut Rig) -> BTreeSet<usize> {
    (0..KEYS).filter(|i| rig.run(&format!("EXISTS k{i}")) == ":1").collect()
}

#[test]
fn noeviction_refuses_writes_and_evicts_nothing() {
    let mut rig = filled("noeviction");
    let limit = rig.engine.used_memory() / 2;
    configure(&rig, &[("maxmemory", &limit.to_string())]);
    rig.check(&[
        ("SET new v", "-OOM command not allowed when used memory > \\'maxmemory\\'."),
        ("APPEND k1 x", "-OOM command not allowed when used memory > \\'maxmemory\\'."),
        ("DEL k0", ":1"),
        ("STRLEN k1", ":200"),
        ("EXPIRE k1 100", ":1"),
    ]);
    assert_eq!(left(&mut rig).len(), KEYS - 1);
}

#[test]
fn volatile_policies_evict_only_keys_with_an_expiry() {
    for policy in ["volatile-lru", "volatile-lfu", "volatile-random", "volatile-ttl"] {
        let mut rig = filled(policy);
        let left = shrink(&mut rig, 90);
        assert!((0..KEYS).filter(|i| i % 3 != 0).all(|i| left.contains(&i)), "{policy}");
        assert!(left.len() < KEYS, "{policy}");
        configure(&rig, &[("maxmemory", "1000")]);
        let reply = rig.run("SET new v");
        assert!(reply.starts_with("-OOM"), "{policy} finds nothing more to evict: {reply}");
    }
}

#[test]
fn allkeys_policies_evict_any_key_until_there_is_room() {
    for policy in ["allkeys-lru", "allkeys-lfu", "allkeys-random"] {
        let mut rig = filled(policy);
        let left = shrink(&mut rig, 50);
        assert!((300..700).contains(&left.len()), "{policy}: {}", left.len());
        assert!(left.iter().any(|i| i % 3 == 0) && left.iter().any(|i| i % 3 != 0), "{policy}");
    }
}

#[test]
fn lru_evicts_what_was_not_used_for_long() {
    let mut rig = filled("allkeys-lru");
    // The first two hundred become the latest.
    for i in 0..200 {
        rig.set_up(&[&format!("GET k{i}")]);
        rig.advance(Duration::from_millis(10));
    }
    let left = shrink(&mut rig, 50);
    let share = |range: std::ops::Range<usize>| left.range(range.clone()).count() * 100 / range.len();
    assert!(share(0..200) >= 95, "lately used: {} % left", share(0..200));
    assert!(share(900..1000) >= 85, "written last: {} % left", share(900..1000));
    assert!(share(200..400) <= 20, "not used for longest: {} % left", share(200..400));
}

#[test]
fn looks_do_not_save_a_key_from_lru() {
    let mut rig = filled("allkeys-lru");
    for i in 0..200 {
        rig.run(&format!("TTL k{i}"));
        rig.run(&format!("EXISTS k{i}"));
    }
    let left = shrink(&mut rig, 50);
    assert!(left.range(0..200).count() <= 40, "{}", left.range(0..200).count());
}

#[test]
fn lfu_keeps_what_is_used_often() {
    let mut rig = filled("allkeys-lfu");
    for i in 300..500 {
        for _ in 0..60 {
            rig.run(&format!("GET k{i}"));
        }
    }
    let freq = rig.run("OBJECT FREQ k400");
    assert!(freq[1..].parse::<i32>().unwrap() > 6, "{freq}");
    let left = shrink(&mut rig, 50);
    assert!(left.range(300..500).count() >= 195, "{}", left.range(300..500).count());
}

#[test]
fn lfu_forgets_with_time() {
    let mut rig = filled("allkeys-lfu");
    for _ in 0..500 {
        rig.run("GET k1");
    }
    let freq = |rig: &mut Rig| rig.run("OBJECT FREQ k1")[1..].parse::<i32>().unwrap();
    let hot = freq(&mut rig);
    rig.advance(Duration::from_mins(5));
    assert_eq!(freq(&mut rig), hot - 5, "one less per minute");
    configure(&rig, &[("lfu-decay-time", "0")]);
    assert_eq!(freq(&mut rig), hot, "zero turns the decay off");
    rig.advance(Duration::from_hours(24));
    configure(&rig, &[("lfu-decay-time", "1")]);
    assert_eq!(freq(&mut rig), 0);
}

#[test]
fn ttl_evicts_what_expires_first() {
    let mut rig = filled("volatile-ttl");
    let left = shrink(&mut rig, 90);
    let volatile: Vec<usize> = (0..KEYS).step_by(3).collect();
    let (far, near) = volatile.split_at(volatile.len() / 2);
    let count = |keys: &[usize]| keys.iter().filter(|i| left.contains(i)).count();
    assert!(count(far) * 100 / far.len() >= 90, "{} of {}", count(far), far.len());
    assert!(count(near) * 100 / near.len() <= 60, "{} of {}", count(near), near.len());
}

#[test]
fn an_eviction_is_journalled_and_voids_transactions() {
    let mut rig = Rig::new();
    configure(&rig, &[("maxmemory", "0"), ("maxmemory-policy", "allkeys-lru")]);
    rig.set_up(&["SET victim v", "WATCH victim", "MULTI", "GET none"]);
    let mut other = rig.another();
    configure(&rig, &[("maxmemory", "1")]);
    rig.journal();
    other.run("SET other v");
    assert_eq!(rig.journal()[0], "DEL victim");
    configure(&rig, &[("maxmemory", "0")]);
    rig.check(&[("EXEC", "(null array)")]);
}

#[test]
fn expired_keys_go_without_being_asked_for() {
    let mut rig = Rig::new();
    let mut other = rig.another();
    rig.set_up(&["SELECT 3"]);
    for i in 0..2000 {
        rig.run(&format!("SET k{i} v PX {}", if i % 4 == 0 { 1_000_000 } else { 10 + i }));
        other.run(&format!("SET forever{i} v"));
    }
    rig.journal();
    rig.advance(Duration::from_secs(3));
    let mut cycles = 0;
    while rig.engine.expire_cycle(200) {
        cycles += 1;
        assert!(cycles < 1000, "the cycle makes progress");
    }
    // It stops when a sample holds few expired ones; calls go on forever in a server.
    for _ in 0..200 {
        rig.engine.expire_cycle(200);
    }
    let size: i64 = rig.run("DBSIZE")[1..].parse().unwrap();
    assert!((500..560).contains(&size), "{size}");
    assert_eq!(other.run("DBSIZE"), ":2000");
    let journal = rig.journal();
    assert!(journal.iter().all(|line| line.starts_with("[3] DEL k")), "{:?}", journal.first());
    assert_eq!(journal.len() as i64, 2000 - size);
    assert!(cycles >= 1, "a budget bounds what one call removes");
    rig.assert_replay_gives_the_same();
}

#[test]
fn each_policy_has_the_name_that_selects_it() {
    for policy in EvictionPolicy::ALL {
        let rig = Rig::new();
        configure(&rig, &[("maxmemory-policy", policy.name())]);
        assert_eq!(rig.engine.policy(), policy);
    }
}

#[test]
fn memory_returns_to_nothing_when_everything_is_gone() {
    let mut rig = filled("allkeys-lru");
    rig.set_up(&[
        "RPUSH l a b c",
        "HSET h f v",
        "SADD s 1 2 x",
        "ZADD z 1 a",
        "SELECT 5",
        "SET x y",
        "APPEND x z",
    ]);
    rig.set_up(&[
        "RENAME x y",
        "COPY y z",
        "MOVE z 6",
        "SWAPDB 5 7",
        "SELECT 0",
        "EXPIRE l 100",
        "PERSIST l",
    ]);
    assert!(rig.engine.used_memory() > 200_000);
    rig.set_up(&["FLUSHALL"]);
    assert_eq!(rig.engine.used_memory(), 0);
    rig.set_up(&[
        "SET a 1",
        "EXPIRE a 10",
        "INCRBYFLOAT a 1.5",
        "APPEND a 00",
        "SETRANGE a 100 x",
        "PERSIST a",
        "DEL a",
    ]);
    rig.set_up(&[
        "HSET h a 1 b 2",
        "HDEL h a b",
        "RPUSH l 1",
        "LPOP l",
        "SADD s x",
        "SREM s x",
        "ZADD z 1 a",
        "ZREM z a",
    ]);
    assert_eq!(rig.engine.used_memory(), 0);
}

/// Whether a key can be written while its event is delivered.
struct Prober {
    engine: std::sync::OnceLock<std::sync::Weak<Engine>>,
    could_write: Arc<Mutex<Vec<bool>>>,
}

struct ProberHandle(Arc<Prober>);

impl Mailbox for ProberHandle {
    fn deliver(&self, bytes: &[u8]) {
        /// Much longer than a write takes.
        const PATIENCE: Duration = Duration::from_millis(200);
        if !bytes.windows(7).any(|part| part == b"evicted") {
            return;
        }
        let engine = self.0.engine.get().unwrap().upgrade().unwrap();
        let key = bytes.split(|byte| *byte == b'\n').rev().nth(1).unwrap().strip_suffix(b"\r").unwrap();
        let key = key.to_vec();
        let (sender, receiver) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            let client = engine.connect(String::new(), String::new(), Box::new(NoMailbox));
            let mut session = Session::trusted(client);
            let mut out = mtcache_protocol::Reply::default();
            engine.dispatch(&mut session, &[b"GET", &key], engine.now(), &mut out);
            let _ = sender.send(());
        });
        self.0.could_write.lock().push(receiver.recv_timeout(PATIENCE).is_ok());
    }

    fn close(&self) {}
}

#[test]
fn an_eviction_is_told_before_anybody_else_can_touch_the_key() {
    let mut rig = Rig::new();
    configure(&rig, &[("maxmemory", "0"), ("notify-keyspace-events", "Ee")]);
    rig.set_up(&["SET k v"]);
    let seen = Arc::default();
    let prober = Arc::new(Prober { engine: std::sync::OnceLock::new(), could_write: Arc::clone(&seen) });
    prober.engine.set(Arc::downgrade(&rig.engine)).unwrap();
    let client = rig.engine.connect(String::new(), String::new(), Box::new(ProberHandle(prober)));
    let mut listener = Session::trusted(client);
    let mut out = mtcache_protocol::Reply::default();
    let now = rig.engine.now();
    rig.engine.dispatch(&mut listener, &[b"SUBSCRIBE", b"__keyevent@0__:evicted"], now, &mut out);
    configure(&rig, &[("maxmemory-policy", "allkeys-random"), ("maxmemory", "1")]);
    rig.run("SET other v");
    assert_eq!(*seen.lock(), [false]);
}
